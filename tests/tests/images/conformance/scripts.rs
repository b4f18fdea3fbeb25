//! The scripts, named after the section that each is about.

use anyhow::Result;
use fogbow_tests::script::{ACK, Client, FIN, Options, RST, SYN, URG};

use super::{CLOSES, ECHO, NOTHING, Script};

const fn script(name: &'static str, port: u16, run: fn(&mut Client<'_>) -> Result<()>) -> Script {
    Script { name, port, run, allowed: &[] }
}

/// Five bytes to the echo, and its answer acknowledged: the connection is there and works.
fn exchange(client: &mut Client<'_>) -> Result<()> {
    client.open()?;
    client.send(ACK, 1, 1, b"hello")?;
    client.until_sent(6)?;
    client.send(ACK, 6, 6, b"")?;
    client.answers()
}

/// Has the server close first.
fn closed_by_server(client: &mut Client<'_>) -> Result<()> {
    client.open()?;
    client.send(ACK, 1, 1, REQUEST)?;
    client.until_end()
}

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n";
/// The sequence number after it.
const ASKED: u32 = 1 + REQUEST.len() as u32;
const ALL: Options = Options { mss: Some(1460), scale: true, sack: true, stamps: true };

pub(super) const SCRIPTS: &[Script] = &[
    script("rfc9293_3_5_handshake_and_data", ECHO, exchange),
    script("rfc7323_2_handshake_with_all_options", ECHO, |client| {
        client.options = ALL;
        exchange(client)
    }),
    script("rfc9293_3_7_1_segments_of_536_bytes_without_an_option", ECHO, |client| {
        client.options.mss = None;
        client.open()?;
        client.send(ACK, 1, 1, &[7; 1000])?;
        client.until_sent(1001)?;
        client.send(ACK, 1001, 1001, b"")?;
        client.answers()
    }),
    script("rfc9293_3_10_7_1_a_request_to_a_closed_port", NOTHING, |client| {
        client.send(SYN, 0, 0, b"")?;
        client.answers()
    }),
    script("rfc9293_3_10_7_1_segments_to_a_closed_port", NOTHING, |client| {
        for (flags, payload) in [(ACK, &b""[..]), (ACK, b"data"), (0, b"data"), (FIN, b""), (FIN | ACK, b""), (SYN | ACK, b"")] {
            client.send(flags, 5, 9, payload)?;
            client.answers()?;
        }
        client.send(RST, 5, 0, b"")?;
        client.send(RST | ACK, 5, 9, b"")?;
        client.answers()
    }),
    script("rfc9293_3_10_7_2_segments_to_a_listener", ECHO, |client| {
        for (flags, payload) in [(ACK, &b""[..]), (ACK, b"data"), (FIN | ACK, b""), (SYN | ACK, b"")] {
            client.send(flags, 5, 9, payload)?;
            client.answers()?;
        }
        for flags in [RST, RST | ACK, 0, FIN, SYN | FIN, SYN | RST] {
            client.send(flags, 5, 9, b"")?;
            client.answers()?;
        }
        Ok(())
    }),
    script("rfc9293_3_10_7_2_data_with_a_request", ECHO, |client| {
        client.send(SYN, 0, 0, b"hello")?;
        client.answers()?;
        client.send(ACK, 1, 1, b"hello")?;
        client.until_sent(6)
    }),
    script("rfc9293_3_10_7_4_a_wrong_acknowledgement_in_syn_received", ECHO, |client| {
        client.send(SYN, 0, 0, b"")?;
        client.answers()?;
        client.send(ACK, 1, 77, b"")?;
        client.answers()?;
        client.send(ACK, 1, 1, b"hello")?;
        client.until_sent(6)
    }),
    script("rfc1122_4_2_2_20_a_request_twice", ECHO, |client| {
        client.send(SYN, 0, 0, b"")?;
        client.answers()?;
        client.send(SYN, 0, 0, b"")?;
        client.until_again()?;
        client.send(ACK, 1, 1, b"hello")?;
        client.until_sent(6)
    }),
    script("rfc9293_3_10_7_4_a_reset_in_syn_received", ECHO, |client| {
        client.send(SYN, 0, 0, b"")?;
        client.answers()?;
        client.send(RST, 1, 0, b"")?;
        client.send(ACK, 1, 1, b"")?;
        client.answers()
    }),
    script("rfc5961_3_a_reset_beyond_the_window_in_syn_received", ECHO, |client| {
        client.send(SYN, 0, 0, b"")?;
        client.answers()?;
        client.send(RST, 0x1000_0000, 0, b"")?;
        client.send(ACK, 1, 1, b"hello")?;
        client.until_sent(6)
    }),
    script("rfc6298_5_a_request_whose_answer_is_lost", ECHO, |client| {
        client.send(SYN, 0, 0, b"")?;
        client.until_again()?;
        client.send(ACK, 1, 1, b"hello")?;
        client.until_sent(6)
    }),
    script("rfc9293_3_10_7_4_data_before_the_window", ECHO, |client| {
        exchange(client)?;
        client.send(ACK, 1, 6, b"hello")?;
        client.answers()?;
        client.send(ACK, 4, 6, b"loXY")?;
        client.until_sent(8)
    }),
    script("rfc9293_3_10_7_4_data_beyond_the_window", ECHO, |client| {
        exchange(client)?;
        client.send(ACK, 0x1000_0000, 6, b"hello")?;
        client.answers()
    }),
    Script {
        name: "rfc2018_3_data_out_of_order",
        port: ECHO,
        run: |client| {
            client.options.sack = true;
            exchange(client)?;
            client.send(ACK, 11, 6, b"later")?;
            client.answers()?;
            client.send(ACK, 21, 6, b"last.")?;
            client.answers()?;
            client.send(ACK, 6, 6, b"first")?;
            client.until_sent(16)?;
            client.send(ACK, 16, 16, b"among")?;
            client.until_sent(26)
        },
        allowed: &[(
            "ACK 6..6 ack=16 has=21..26; ACK 6..16 ack=16 has=21..26",
            "ACK 6..6 ack=16 has=21..26; ACK 6..16 ack=16",
            "RFC 2018, section 3: a sender of data should, but need not, say it again with them",
        )],
    },
    script("rfc2883_4_data_twice", ECHO, |client| {
        client.options.sack = true;
        exchange(client)?;
        client.send(ACK, 1, 6, b"hello")?;
        client.answers()?;
        // Told once.
        client.send(ACK, 16, 6, b"later")?;
        client.answers()
    }),
    // Linux holds back what it has to say of the fourth segment out of order and later ones: three are enough each time.
    script("rfc2883_4_1_data_out_of_order_twice", ECHO, |client| {
        client.options.sack = true;
        exchange(client)?;
        for sequence in [11, 11, 1] {
            client.send(ACK, sequence, 6, b"later")?;
            client.answers()?;
        }
        client.send(ACK, 6, 6, b"first")?;
        client.until_sent(16)
    }),
    script("rfc2883_4_1_data_twice_with_time_stamps", ECHO, |client| {
        client.options = ALL;
        client.stamp = 100;
        exchange(client)?;
        for sequence in [21, 11, 21] {
            client.stamp += 10;
            client.send(ACK, sequence, 6, b"later")?;
            client.answers()?;
        }
        // A time stamp from the past.
        client.stamp = 50;
        client.send(ACK, 1, 6, b"hello")?;
        client.answers()
    }),
    script("rfc2883_4_2_data_of_which_an_end_came_before", ECHO, |client| {
        client.options.sack = true;
        exchange(client)?;
        client.send(ACK, 11, 6, b"56789")?;
        client.answers()?;
        client.send(ACK, 13, 6, b"789abc")?;
        client.answers()?;
        client.send(ACK, 6, 6, b"0123456")?;
        client.until_sent(19)
    }),
    script("rfc2883_4_2_data_of_which_two_parts_came_before", ECHO, |client| {
        client.options.sack = true;
        exchange(client)?;
        client.send(ACK, 11, 6, b"56789")?;
        client.answers()?;
        client.send(ACK, 21, 6, b"fghij")?;
        client.answers()?;
        client.send(ACK, 9, 6, b"3456789abcdefghijklm")?;
        client.answers()?;
        // The beginning has been acknowledged.
        client.send(ACK, 4, 6, b"lo012")?;
        client.until_sent(29)
    }),
    script("rfc2883_5_what_was_sent_again_came_twice", ECHO, |client| {
        client.options.sack = true;
        client.open()?;
        for piece in 0..6 {
            client.send(ACK, 1 + 1460 * piece, 1, &[7; 1460])?;
        }
        client.until_sent(1 + 6 * 1460)?;
        // The first is overtaken by the others.
        client.has[0] = Some((1 + 1460, 1 + 6 * 1460));
        client.send(ACK, 1 + 6 * 1460, 1, b"")?;
        client.until_again()?;
        client.has[0] = Some((1, 1 + 1460));
        client.send(ACK, 1 + 6 * 1460, 1 + 6 * 1460, b"")?;
        client.answers()?;
        client.has[0] = None;
        client.send(ACK, 1 + 6 * 1460, 1 + 6 * 1460, b"hello")?;
        client.until_sent(1 + 6 * 1460 + 5)
    }),
    script("rfc2883_4_an_end_twice", ECHO, |client| {
        client.options.sack = true;
        exchange(client)?;
        client.send(FIN | ACK, 6, 6, b"hello")?;
        client.until_sent(12)?;
        client.send(FIN | ACK, 6, 6, b"hello")?;
        client.answers()?;
        client.send(FIN | ACK, 11, 6, b"")?;
        client.answers()
    }),
    script("rfc9293_3_10_7_4_data_that_overlap", ECHO, |client| {
        exchange(client)?;
        client.send(ACK, 10, 6, b"56789")?;
        client.answers()?;
        client.send(ACK, 6, 6, b"123456")?;
        client.until_sent(15)
    }),
    script("rfc5961_3_2_resets", ECHO, |client| {
        exchange(client)?;
        // Outside of the window, inside but not exact, exact.
        for sequence in [0x1000_0000, 5, 7, 6] {
            client.send(RST, sequence, 0, b"")?;
            client.answers()?;
        }
        client.send(ACK, 6, 6, b"hello")?;
        client.answers()
    }),
    script("rfc5961_4_2_a_request_in_the_window", ECHO, |client| {
        exchange(client)?;
        client.send(SYN, 7, 0, b"")?;
        client.answers()?;
        client.send(ACK, 6, 6, b"hello")?;
        client.until_sent(11)
    }),
    script("rfc5961_4_2_a_request_outside_of_the_window", ECHO, |client| {
        exchange(client)?;
        client.send(SYN, 0x1000_0000, 0, b"")?;
        client.answers()?;
        client.send(ACK, 6, 6, b"hello")?;
        client.until_sent(11)
    }),
    script("rfc5961_5_2_an_acknowledgement_of_long_ago", ECHO, |client| {
        exchange(client)?;
        client.send(ACK, 6, 0xf000_0000, b"hello")?;
        client.answers()?;
        client.send(ACK, 6, 6, b"hello")?;
        client.until_sent(11)
    }),
    script("rfc9293_3_10_7_4_an_acknowledgement_of_what_was_not_sent", ECHO, |client| {
        exchange(client)?;
        client.send(ACK, 6, 100, b"hello")?;
        client.answers()?;
        client.send(ACK, 6, 6, b"hello")?;
        client.until_sent(11)
    }),
    script("rfc9293_3_10_7_4_a_segment_without_acknowledgement", ECHO, |client| {
        exchange(client)?;
        client.send(0, 6, 0, b"hello")?;
        client.answers()?;
        client.send(ACK, 6, 6, b"hello")?;
        client.until_sent(11)
    }),
    script("rfc9293_3_6_case_2_the_client_closes", ECHO, |client| {
        exchange(client)?;
        client.send(FIN | ACK, 6, 6, b"")?;
        client.until_sent(7)?;
        client.send(ACK, 7, 7, b"")?;
        client.answers()?;
        // Nothing is left of it.
        client.send(FIN | ACK, 6, 7, b"")?;
        client.answers()
    }),
    script("rfc9293_3_6_data_and_an_end_in_one_segment", ECHO, |client| {
        exchange(client)?;
        client.send(FIN | ACK, 6, 6, b"hello")?;
        client.until_sent(12)
    }),
    script("rfc9293_3_10_7_4_an_end_before_what_is_missing", ECHO, |client| {
        exchange(client)?;
        client.send(FIN | ACK, 11, 6, b"")?;
        client.answers()?;
        client.send(ACK, 6, 6, b"hello")?;
        client.until("the end", |answer| answer.flags & FIN != 0)
    }),
    script("rfc9293_3_10_7_4_data_after_an_end", ECHO, |client| {
        exchange(client)?;
        client.send(FIN | ACK, 6, 6, b"")?;
        client.until_sent(7)?;
        client.send(ACK, 7, 6, b"more")?;
        client.answers()
    }),
    script("rfc6298_5_an_end_that_is_lost", ECHO, |client| {
        exchange(client)?;
        client.send(FIN | ACK, 6, 6, b"")?;
        client.until_sent(7)?;
        client.until_again()?;
        client.send(ACK, 7, 7, b"")?;
        client.answers()
    }),
    script("rfc6298_5_data_that_are_lost", ECHO, |client| {
        client.open()?;
        client.send(ACK, 1, 1, b"hello")?;
        client.until_sent(6)?;
        client.until_again()?;
        client.send(ACK, 6, 6, b"")?;
        client.answers()
    }),
    Script {
        name: "rfc9293_3_6_case_1_the_server_closes",
        port: CLOSES,
        run: |client| {
            closed_by_server(client)?;
            client.send(ACK, ASKED, 1, b"")?;
            client.answers()?;
            client.send(FIN | ACK, ASKED, 1, b"")?;
            client.answers()?;
            // Again: the first answer may have been lost.
            client.send(FIN | ACK, ASKED, 1, b"")?;
            client.answers()
        },
        allowed: &[(
            "ACK 1..1 ack=48",
            "ACK 1..1 ack=48 closed",
            "RFC 9293, section 3.10.7.4: in TIME-WAIT nothing more can come, whatever the window",
        )],
    },
    Script {
        name: "rfc9293_3_6_case_3_both_close_at_once",
        port: CLOSES,
        run: |client| {
            closed_by_server(client)?;
            client.send(FIN | ACK, ASKED, 0, b"")?;
            client.answers()?;
            client.send(ACK, ASKED + 1, 1, b"")?;
            client.answers()?;
            client.send(FIN | ACK, ASKED, 1, b"")?;
            client.answers()
        },
        allowed: &[(
            "ACK 1..1 ack=48",
            "ACK 1..1 ack=48 closed",
            "RFC 9293, section 3.10.7.4: in TIME-WAIT nothing more can come, whatever the window",
        )],
    },
    script("rfc9293_3_6_1_a_new_connection_in_time_wait", CLOSES, |client| {
        closed_by_server(client)?;
        client.send(FIN | ACK, ASKED, 1, b"")?;
        client.answers()?;
        client.begin_anew();
        client.send(SYN, 100_000, 0, b"")?;
        client.until("a SYN", |answer| answer.flags & SYN != 0)
    }),
    Script {
        name: "rfc1337_3_a_reset_in_time_wait",
        port: CLOSES,
        run: |client| {
            closed_by_server(client)?;
            client.send(FIN | ACK, ASKED, 1, b"")?;
            client.answers()?;
            client.send(RST, ASKED + 1, 0, b"")?;
            client.answers()?;
            client.send(FIN | ACK, ASKED, 1, b"")?;
            client.answers()
        },
        allowed: &[(
            "RST 1..1",
            "ACK 1..1 ack=48 closed",
            "RFC 1337, section 3: resets in TIME-WAIT are ignored, which Linux does with net.ipv4.tcp_rfc1337=1 alone",
        )],
    },
    Script {
        name: "rfc9293_3_8_6_1_a_window_that_closes_and_opens",
        port: ECHO,
        run: |client| {
            client.open()?;
            client.window = 0;
            client.send(ACK, 1, 1, b"hello")?;
            client.until("a probe", |answer| answer.length > 0 || answer.sequence == 0)?;
            client.send(ACK, 6, 1, b"")?;
            client.window = 60_000;
            client.send(ACK, 6, 1, b"")?;
            client.until("the rest", |answer| answer.end() == 6)?;
            client.send(ACK, 6, 6, b"")?;
            client.answers()
        },
        allowed: &[
            ("ACK 0..0 ack=6", "ACK 1..2 ack=6", "RFC 9293, section 3.8.6.1: a probe has a byte of new data; Linux sends none"),
            ("ACK 1..6 ack=6", "ACK 2..6 ack=6", "the byte of the probe is on its way already"),
        ],
    },
    script("rfc1122_4_2_3_6_a_question_whether_the_connection_is_there", ECHO, |client| {
        exchange(client)?;
        client.send(ACK, 5, 6, b"")?;
        client.answers()?;
        client.send(ACK, 5, 6, b"o")?;
        client.answers()
    }),
    Script {
        name: "rfc9293_3_8_5_urgent_data",
        port: ECHO,
        run: |client| {
            exchange(client)?;
            client.send(ACK | URG, 6, 6, b"hello")?;
            client.until("the echo", |answer| answer.length > 0)
        },
        allowed: &[(
            "ACK 6..10 ack=11",
            "ACK 6..11 ack=11",
            "RFC 6093, section 6: urgent data belong into the stream; Linux takes a byte out",
        )],
    },
    script("rfc7323_5_3_a_time_stamp_from_the_past", ECHO, |client| {
        client.options = ALL;
        client.stamp = 100;
        exchange(client)?;
        client.stamp = 50;
        client.send(ACK, 6, 6, b"hello")?;
        client.answers()?;
        client.stamp = 101;
        client.send(ACK, 6, 6, b"hello")?;
        client.until_sent(11)
    }),
    script("rfc7323_4_3_which_time_stamp_is_echoed", ECHO, |client| {
        client.options = ALL;
        exchange(client)?;
        client.stamp = 10;
        // Out of order: the one before is echoed.
        client.send(ACK, 11, 6, b"later")?;
        client.answers()?;
        client.stamp = 20;
        client.send(ACK, 6, 6, b"first")?;
        client.until_sent(16)
    }),
    script("rfc5681_3_2_three_duplicates", ECHO, |client| {
        client.open()?;
        for piece in 0..6 {
            client.send(ACK, 1 + 1460 * piece, 1, &[7; 1460])?;
        }
        client.until_sent(1 + 6 * 1460)?;
        for _ in 0..3 {
            client.send(ACK, 1 + 6 * 1460, 1, b"")?;
        }
        client.until_again()?;
        client.send(ACK, 1 + 6 * 1460, 1 + 6 * 1460, b"")?;
        client.answers()
    }),
];
