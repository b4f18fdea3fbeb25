//! Serving a store.

use super::*;
use crate::http::Files;
use fogbow_kv::{Digest, Key, Memory, ReadWrite};

async fn store() -> Memory {
    let store = Memory::new();
    let large: Vec<u8> = (0..200_000u32).map(|i| (i / 7) as u8).collect();
    for (key, value) in [
        ("index.html", &b"<h1>Hi</h1>"[..]),
        ("style.css", b"body{}"),
        ("a b.txt", b"space"),
        ("docs/index.html", b"docs"),
        ("empty/x.txt", b""),
        ("large.bin", &large),
    ] {
        store.set(Key::new(key).unwrap(), value).await.unwrap();
    }
    store
}

/// The response to one request for `target`, with further `fields`.
fn get(method: &str, target: &str, fields: &str, page: Option<&'static str>) -> Reply {
    let request = format!("{method} {target} HTTP/1.1\r\nHost: x\r\n{fields}\r\n");
    let raw = Simulation::new(1).block_on(async move {
        let store = store().await;
        if let Some(page) = page {
            store.set(Key::new("404.html").unwrap(), page.as_bytes()).await.unwrap();
        }
        let mut client = connect(Files::new(store), Limits::default()).await;
        client.write_all(request.as_bytes()).await.unwrap();
        client.shutdown().await.unwrap();
        read_all(&mut client).await.unwrap()
    });
    let (reply, rest) = read_reply(&raw, method);
    assert_eq!(rest, b"");
    reply
}

#[test]
fn paths_lead_to_values() {
    for (target, content_type, text) in [
        ("/", "text/html; charset=utf-8", "<h1>Hi</h1>"),
        ("/index.html?x", "text/html; charset=utf-8", "<h1>Hi</h1>"),
        ("/style.css", "text/css; charset=utf-8", "body{}"),
        ("/%73tyle%2ecss", "text/css; charset=utf-8", "body{}"),
        ("/a%20b.txt", "text/plain; charset=utf-8", "space"),
        ("/docs/", "text/html; charset=utf-8", "docs"),
        ("/empty/x.txt", "text/plain; charset=utf-8", ""),
        ("http://x/style.css", "text/css; charset=utf-8", "body{}"),
    ] {
        let reply = get("GET", target, "", None);
        assert_eq!((reply.status, reply.text()), (200, text), "{target}");
        assert!(reply.has(&format!("content-type: {content_type}")), "{target}: {}", reply.head);
    }
    let reply = get("GET", "/docs?x", "", None);
    assert!(reply.status == 301 && reply.has("location: /docs/"));
}

#[test]
fn no_path_leads_out_of_the_store() {
    for target in [
        "/../style.css",
        "/docs/../style.css",
        "/%2e%2e/style.css",
        "/docs/%2e%2e/style.css",
        "/./style.css",
        "//style.css",
        "//docs",
        "/docs//index.html",
        "/style.css/",
        "/style.css%00",
        "/%ff",
        "/%",
        "/%zz",
        "/nothing",
        "/empty",
        "/empty/",
        "/.",
        "/..",
        "/%2f%2e%2e%2fstyle.css",
        "/Style.css",
    ] {
        assert_eq!((get("GET", target, "", None).status, target), (404, target));
    }
    let reply = get("GET", "/nothing", "Range: bytes=0-1\r\n", Some("<h1>Lost?</h1>"));
    assert_eq!((reply.status, reply.text()), (404, "<h1>Lost?</h1>"));
}

#[test]
fn only_reading_is_allowed() {
    for method in ["POST", "PUT", "DELETE", "OPTIONS", "PATCH"] {
        let reply = get(method, "/", "", None);
        assert!(reply.status == 405 && reply.has("allow: get, head"), "{method}");
    }
    assert!(get("HEAD", "/large.bin", "", None).has("content-length: 200000"));
}

#[test]
fn what_the_client_has_is_not_sent_again() {
    let tag = &Digest::of(b"body{}").to_string()[..32];
    assert!(get("GET", "/style.css", "", None).has(&format!("etag: \"{tag}\"")));
    for (fields, status) in [
        (format!("If-None-Match: \"{tag}\"\r\n"), 304),
        (format!("If-None-Match: \"x\", W/\"{tag}\"\r\n"), 304),
        ("If-None-Match: *\r\n".into(), 304),
        ("If-None-Match: \"x\"\r\n".into(), 200),
        (format!("If-None-Match: \"{tag}\"\r\nRange: bytes=0-1\r\n"), 304),
    ] {
        assert_eq!(get("GET", "/style.css", &fields, None).status, status, "{fields}");
    }
}

#[test]
fn parts_are_given() {
    let large = get("GET", "/large.bin", "", None);
    assert!(large.body.iter().enumerate().all(|(at, byte)| *byte == (at / 7) as u8) && large.body.len() == 200_000);
    for (range, start, end) in [("0-0", 0, 1), ("100000-", 100_000, 200_000), ("-70", 199_930, 200_000), ("5-99999999", 5, 200_000)] {
        let reply = get("GET", "/large.bin", &format!("Range: bytes={range}\r\n"), None);
        assert_eq!(reply.status, 206);
        assert!(reply.has(&format!("content-range: bytes {start}-{}/200000", end - 1)), "{range}: {}", reply.head);
        assert!(reply.body == large.body[start..end], "{range}");
    }
    let reply = get("GET", "/style.css", "Range: bytes=6-\r\n", None);
    assert!(reply.status == 416 && reply.has("content-range: bytes */6"));
    assert_eq!(get("GET", "/style.css", "Range: bytes=0-1\r\nIf-Range: \"x\"\r\n", None).status, 200);
    assert_eq!(get("GET", "/style.css", "Range: bytes=0-1,3-4\r\n", None).status, 200);
}
