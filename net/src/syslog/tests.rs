use super::*;
use crate::Loopback;
use crate::stack::{Listener, Stream};
use alloc::string::ToString;
use alloc::vec::Vec;
use fogbow::simulation::Simulation;
use fogbow::time::WallTime;
use fogbow::{log, spawn};
use proptest::prelude::*;

const COLLECTOR: ([u8; 4], u16) = ([127, 0, 0, 1], 514);

fn sink(stack: &Loopback, transport: Transport) -> Syslog<Loopback> {
    Syslog::new(stack.clone(), COLLECTOR.into(), transport, Origin::new("web 1", "http"))
}

#[test]
fn each_message_is_a_datagram() {
    let datagrams = Simulation::new(1).block_on(async {
        let stack = Loopback::new();
        let collector = stack.bind(514).unwrap();
        spawn(sink(&stack, Transport::Udp).run()).detach();
        log::warn!(target: "app::a module with a name that is too long", "gr\u{fc}\u{df}e");
        log::debug!("not sent");
        log::error!(target: "fogbow_net::direct", "not sent");
        time::sleep(Duration::from_micros(1_234_567)).await;
        log::info!(target: "app", "x\ny");
        let mut datagrams = Vec::new();
        for _ in 0..2 {
            let mut datagram = [0; 500];
            let (length, _) = collector.receive_from(&mut datagram).await.unwrap();
            datagrams.push(core::str::from_utf8(&datagram[..length]).unwrap().to_string());
        }
        datagrams
    });
    assert_eq!(
        datagrams,
        [
            "<28>1 2026-01-01T00:00:00.000000Z web?1 http - app::a?module?with?a?name?that?i - \u{feff}gr\u{fc}\u{df}e",
            "<30>1 2026-01-01T00:00:01.234567Z web?1 http - app - x\ny",
        ]
    );
}

#[test]
fn a_connection_carries_counted_messages_and_is_made_anew() {
    Simulation::new(1).block_on(async {
        let stack = Loopback::new();
        spawn(sink(&stack, Transport::Tcp).run()).detach();
        for number in 0..300 {
            log::info!(target: "app", "{number}");
        }
        // The collector comes late, goes, and comes back.
        time::sleep(Duration::from_secs(2)).await;
        let mut listener = stack.listen(514).unwrap();
        let mut stream = listener.accept().await.unwrap();
        for number in 0..256 {
            assert_eq!(text_of(&frame(&mut stream).await), number.to_string());
        }
        log::info!(target: "app", "after");
        assert_eq!(text_of(&frame(&mut stream).await), "after (44 messages before this one were lost)");
        stream.abort();
        log::info!(target: "app", "again");
        let mut stream = listener.accept().await.unwrap();
        assert_eq!(text_of(&frame(&mut stream).await), "again");
    });
}

/// Reads `LENGTH MESSAGE`.
async fn frame(stream: &mut impl Stream) -> String {
    let mut length = 0;
    loop {
        let mut byte = [0];
        stream.read_exact(&mut byte).await.unwrap();
        match byte[0] {
            b' ' => break,
            digit => length = length * 10 + usize::from(digit - b'0'),
        }
    }
    let mut text = alloc::vec![0; length];
    stream.read_exact(&mut text).await.unwrap();
    String::from_utf8(text).unwrap()
}

fn text_of(frame: &str) -> &str {
    frame.split_once(" - app - ").unwrap().1
}

proptest! {
    #[test]
    fn the_header_is_as_the_grammar_says(host in ".{0,300}", application in ".{0,60}", source in ".{0,40}", text in ".{0,50}", nanos: u64) {
        let message = Message { time: WallTime::from_unix_nanos(nanos), level: Level::Error, source, text: text.clone(), lost: 0 };
        let formatted = format_message(&Origin::new(&host, &application), &message);
        let fields: Vec<&str> = formatted.splitn(8, ' ').collect();
        prop_assert_eq!(fields[0], "<27>1");
        for (field, longest) in fields[1..6].iter().zip([32, 255, 48, 128, 32]) {
            prop_assert!((1..=longest).contains(&field.len()) && field.bytes().all(|byte| byte.is_ascii_graphic()), "{}", field);
        }
        prop_assert_eq!(fields[6], "-");
        prop_assert_eq!(fields[7].trim_start_matches('\u{feff}'), text.trim_start_matches('\u{feff}'));
    }
}
