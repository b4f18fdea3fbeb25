//! What valid requests are answered with.

use super::*;

#[test]
fn a_small_request_is_one_read_and_one_write() {
    Simulation::new(1).block_on(async {
        let mut client = connect(site, Limits::default()).await;
        client.write_all(b"GET /a?b HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        let mut response = [0; 4096];
        // The loopback stack keeps writes apart.
        let length = client.read(&mut response).await.unwrap();
        let (reply, rest) = read_reply(&response[..length], "GET");
        assert_eq!((reply.status, reply.text(), rest.len()), (200, "/a b", 0));
        assert!(
            reply.has("date: thu, 01 jan 2026 00:00:00 gmt") && reply.has("content-length: 4") && reply.has("content-type: text/plain")
        );
        assert!(!reply.head.contains("connection:"));
    });
}

#[test]
fn requests_that_arrive_together_are_answered_together() {
    Simulation::new(1).block_on(async {
        let mut client = connect(site, Limits::default()).await;
        client.write_all(&b"GET /p HTTP/1.1\r\nHost: x\r\n\r\n".repeat(20)).await.unwrap();
        let mut response = [0; 8192];
        let length = client.read(&mut response).await.unwrap();
        assert_eq!(read_replies(response[..length].to_vec()).len(), 20);
    });
}

#[test]
fn bodies_are_read_by_length_and_by_chunk() {
    let replies = ask("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello\
         POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: Chunked\r\n\r\n3;a=b\r\nabc\r\n2\r\nde\r\n0\r\nTrailer: x\r\n\r\n\
         POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n\
         \r\n\r\nGET /last HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(replies.iter().map(Reply::text).collect::<Vec<_>>(), ["hello", "abcde", "", "/last -"]);
}

#[test]
fn what_a_handler_leaves_of_a_body_is_skipped() {
    let replies = ask("POST /part HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nabcdefghi\
         POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nGET \r\n0\r\n\r\n\
         GET /last HTTP/1.1\r\nHost: x\r\n\r\n");
    assert_eq!(replies.iter().map(Reply::text).collect::<Vec<_>>(), ["a", "/ -", "/last -"]);
}

#[test]
fn a_large_body_that_nobody_reads_ends_the_connection() {
    let head = "POST /a HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n";
    let replies = ask([head.as_bytes(), &[b'x'; 100_000], b"GET /last HTTP/1.1\r\nHost: x\r\n\r\n"].concat());
    assert_eq!(replies.len(), 1);
    assert!(replies[0].has("connection: close"));
}

#[test]
fn clients_that_expect_it_are_asked_for_the_body() {
    let head = "HTTP/1.1\r\nHost: x\r\nExpect: 100-Continue\r\nContent-Length: 2\r\n\r\n";
    let replies = ask(format!("POST /echo {head}ok"));
    assert_eq!(replies.iter().map(|reply| reply.status).collect::<Vec<_>>(), [100, 200]);
    // A handler that does not want the body does not ask, and what follows cannot be told from the body.
    let replies = ask(format!("POST /no {head}okGET / HTTP/1.1\r\nHost: x\r\n\r\n"));
    assert_eq!(replies.len(), 1);
    assert!(replies[0].has("connection: close"));
}

#[test]
fn bodies_of_unknown_length_are_sent_in_chunks_or_until_the_end() {
    let replies = ask("GET /stream HTTP/1.1\r\nHost: x\r\n\r\nGET /stream HTTP/1.0\r\nConnection: keep-alive\r\n\r\n");
    assert_eq!(replies.iter().map(Reply::text).collect::<Vec<_>>(), ["onetwothree"; 2]);
    assert!(replies[0].has("transfer-encoding: chunked"));
    assert!(replies[1].has("connection: close") && !replies[1].head.contains("transfer-encoding"));
}

#[test]
fn pieces_are_sent_when_they_are_there() {
    Simulation::new(1).block_on(async {
        let mut client = connect(site, Limits::default()).await;
        client.write_all(b"GET /slow HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
        let mut piece = [0; 4096];
        let length = client.read(&mut piece).await.unwrap();
        assert!(piece[..length].ends_with(b"\r\n\r\n3\r\none\r\n"));
        assert_eq!(time::now().as_nanos(), 5_000_000_000);
        let length = client.read(&mut piece).await.unwrap();
        assert_eq!((&piece[..length], time::now().as_nanos()), (&b"3\r\ntwo\r\n"[..], 10_000_000_000));
    });
}

#[test]
fn a_body_that_fails_resets_the_connection() {
    for path in ["/broken", "/short"] {
        Simulation::new(1).block_on(async move {
            let mut client = connect(site, Limits::default()).await;
            client.write_all(format!("GET {path} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).await.unwrap();
            assert_eq!(read_all(&mut client).await, Err(StreamError::Reset), "{path}");
        });
    }
    assert_eq!(ask("GET /long HTTP/1.1\r\nHost: x\r\n\r\n")[0].text(), "onetw");
}

#[test]
fn large_bodies_arrive_whole() {
    let replies = ask("GET /large HTTP/1.1\r\nHost: x\r\n\r\n".repeat(3));
    assert_eq!(replies.len(), 3);
    for reply in replies {
        assert!(reply.body.iter().enumerate().all(|(at, byte)| *byte == at as u8) && reply.body.len() == 100_000);
    }
}

#[test]
fn heads_without_bodies() {
    let raw = converse(
        site,
        Limits::default(),
        &[b"HEAD /stream HTTP/1.1\r\nHost: x\r\n\r\nHEAD /large HTTP/1.1\r\nHost: x\r\n\r\nGET /none HTTP/1.1\r\nHost: x\r\n\r\n"],
    );
    let (stream, rest) = read_reply(&raw, "HEAD");
    assert!(stream.has("transfer-encoding: chunked"));
    let (large, rest) = read_reply(&rest, "HEAD");
    assert!(large.has("content-length: 100000"));
    let (none, rest) = read_reply(&rest, "GET");
    assert_eq!((none.status, none.head.contains("content-length"), rest.len()), (204, false, 0));
}

#[test]
fn connections_close_when_the_client_says_so() {
    for (head, close, keep) in [
        ("GET /1 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", true, false),
        ("GET /1 HTTP/1.0\r\n\r\n", true, false),
        ("GET /1 HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", false, true),
        ("GET /1 HTTP/1.1\r\nHost: x\r\n\r\n", false, false),
    ] {
        let replies = ask(format!("{head}GET /2 HTTP/1.1\r\nHost: x\r\n\r\n"));
        assert_eq!(replies.len(), if close { 1 } else { 2 }, "{head}");
        assert_eq!((replies[0].has("connection: close"), replies[0].has("connection: keep-alive")), (close, keep), "{head}");
    }
}

#[test]
fn no_value_forges_a_field() {
    assert!(ask("GET /forge HTTP/1.1\r\nHost: x\r\n\r\n")[0].has("x: a  y: b "));
}
