//! Requests that are refused: each ends the connection after one response, so that nothing behind it is taken for a request.
//!
//! The smuggling cases are those of RFC 9112 (sections 5.1, 5.2, 6.1, 6.3, 7.1, 11.2), of Kettle's "HTTP Desync Attacks" (CL.TE, TE.CL and
//! TE.TE with its obfuscations), and of the differences between servers that the HTTP Garden collects.

use super::*;

/// Sends `request` and, behind it, what an attacker would smuggle.
fn check(request: &str, status: u16) {
    let replies = ask(format!("{request}GET /smuggled HTTP/1.1\r\nHost: x\r\n\r\n"));
    assert_eq!(replies.iter().map(|reply| reply.status).collect::<Vec<_>>(), [status], "{request:?}");
    assert!(replies[0].has("connection: close"), "{request:?}");
}

#[test]
fn dubious_lengths_and_codings() {
    for (fields, status) in [
        ("Content-Length: 3\r\nTransfer-Encoding: chunked", 400),
        ("Transfer-Encoding: chunked\r\nContent-Length: 3", 400),
        ("Content-Length: 3\r\nContent-Length: 4", 400),
        ("Content-Length: 3\r\nContent-Length: 3", 400),
        ("Content-Length: 3, 3", 400),
        ("Content-Length: +3", 400),
        ("Content-Length: -3", 400),
        ("Content-Length: 0x3", 400),
        ("Content-Length: 3 3", 400),
        ("Content-Length: 3_0", 400),
        ("Content-Length: 3.0", 400),
        ("Content-Length: ３", 400),
        ("Content-Length:", 400),
        ("Content-Length : 3", 400),
        ("Content-Length\t: 3", 400),
        ("Content-Length: \x0b3", 400),
        ("Transfer-Encoding: xchunked", 400),
        ("Transfer-Encoding: chunked, identity", 400),
        ("Transfer-Encoding: identity", 400),
        ("Transfer-Encoding: chunked, chunked", 400),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", 400),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: x", 400),
        ("Transfer-Encoding: chunked;q=1", 400),
        ("Transfer-Encoding: \"chunked\"", 400),
        ("Transfer-Encoding: chunked\0", 400),
        ("Transfer-Encoding: \x0bchunked", 400),
        ("Transfer-Encoding: chunked\r", 400),
        ("Transfer-Encoding:", 400),
        ("Transfer-Encoding: ,chunked", 501),
        ("Transfer-Encoding: gzip, chunked", 501),
        ("Transfer-Encoding : chunked", 400),
        ("Transfer-Encoding\r\n : chunked", 400),
        ("Transfer-Encoding:\r\n chunked", 400),
        ("Transfer-Encoding\0: chunked", 400),
        ("X: y\nTransfer-Encoding: chunked", 400),
        ("X: y\r\n Transfer-Encoding: chunked", 400),
        ("X: y\r\n\tTransfer-Encoding: chunked", 400),
        ("X: y\rTransfer-Encoding: chunked", 400),
        ("X\r\nTransfer-Encoding: chunked", 400),
        ("X: y\x7f", 400),
        ("X: y\0", 400),
        ("X Y: z", 400),
        ("(X): z", 400),
        ("Ü: z", 400),
        (": z", 400),
        ("Host: y", 400),
        ("Expect: 200-ok", 417),
    ] {
        check(&format!("POST /echo HTTP/1.1\r\nHost: x\r\n{fields}\r\n\r\n"), status);
    }
    check("POST /echo HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400);
    check("POST /echo HTTP/1.1\r\n Host: x\r\n\r\n", 400);
}

#[test]
fn dubious_request_lines_and_hosts() {
    for (head, status) in [
        ("GET / HTTP/1.1\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a b\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: a/b\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: u@a\r\n", 400),
        ("GET / HTTP/1.1\nHost: x\r\n", 400),
        ("GET / HTTP/1.1\r\nHost: x\n", 400),
        ("GET  / HTTP/1.1\r\nHost: x\r\n", 400),
        ("GET\t/\tHTTP/1.1\r\nHost: x\r\n", 400),
        ("GET / HTTP/1.1 \r\nHost: x\r\n", 400),
        (" GET / HTTP/1.1\r\nHost: x\r\n", 400),
        ("GET /\r\nHost: x\r\n", 400),
        ("GET / http/1.1\r\nHost: x\r\n", 400),
        ("GET / HTTP/1.1x\r\nHost: x\r\n", 400),
        ("GET /a b HTTP/1.1\r\nHost: x\r\n", 400),
        ("GET /\0 HTTP/1.1\r\nHost: x\r\n", 400),
        ("GET x HTTP/1.1\r\nHost: x\r\n", 400),
        ("GET / HTTP/1.2\r\nHost: x\r\n", 505),
        ("GET / HTTP/2.0\r\nHost: x\r\n", 505),
        ("PRI * HTTP/2.0\r\n", 505),
        ("get / HTTP/1.1\r\nHost: x\r\n", 501),
        ("TRACE / HTTP/1.1\r\nHost: x\r\n", 501),
        ("CONNECT x:80 HTTP/1.1\r\nHost: x\r\n", 501),
        ("G(T / HTTP/1.1\r\nHost: x\r\n", 400),
        ("\nGET / HTTP/1.1\r\nHost: x\r\n", 400),
    ] {
        check(&format!("{head}\r\n"), status);
    }
}

#[test]
fn malformed_chunks_whether_they_are_read_or_not() {
    for chunks in [
        "x\r\n",
        "3\r\nabcd\r\n",
        "3\nabc\r\n",
        "3 \r\nabc\r\n",
        "0x3\r\nabc\r\n",
        "-1\r\n",
        "0\r\nX : y\r\n\r\n",
        "0\r\n\n",
        "3\r\nabc0\r\n\r\n",
    ] {
        for path in ["/echo", "/part", "/ignored"] {
            check(&format!("POST {path} HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n{chunks}"), 400);
        }
    }
}

#[test]
fn what_is_too_large() {
    check(&format!("GET /{} HTTP/1.1\r\nHost: x\r\n\r\n", "a".repeat(9000)), 414);
    check(&format!("GET / HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "a".repeat(9000)), 431);
    check(&format!("GET / HTTP/1.1\r\nHost: x\r\n{}\r\n", "X: y\r\n".repeat(64)), 431);
    check("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 1048577\r\n\r\n", 413);
    check("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 99999999999999999999999\r\n\r\n", 413);
    check("POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n", 413);
    check("POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n100001\r\n", 413);
    check("POST /ignored HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\nf0000000\r\n", 413);
    check("POST /echo HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 1048577\r\n\r\n", 413);
}

#[test]
fn the_limits_themselves_are_served() {
    let fields = "X: y\r\n".repeat(63);
    assert_eq!(ask(format!("GET / HTTP/1.1\r\nHost: x\r\n{fields}\r\n"))[0].status, 200);
    let long = format!("GET / HTTP/1.1\r\nHost: x\r\nX: {}\r\n\r\n", "a".repeat(8192 - 32));
    assert_eq!((long.len(), ask(&long)[0].status), (8192, 200));
    let body = "x".repeat(1024 * 1024);
    assert_eq!(ask(format!("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{body}", body.len()))[0].text(), body);
}

#[test]
fn a_refusal_arrives_although_the_client_has_more_to_say() {
    let request = format!("POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 9999999\r\n\r\n{}", "x".repeat(500_000));
    assert_eq!(ask(request)[0].status, 413);
}
