//! Properties: however bytes arrive, and whatever they are.

use super::*;
use proptest::prelude::*;

const PARTS: [&str; 24] = [
    "GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    "GET /stream HTTP/1.1\r\nHost: x\r\n\r\n",
    "HEAD /large HTTP/1.1\r\nHost: x\r\n\r\n",
    "POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nhello",
    "POST /part HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nabcdefghi",
    "POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n",
    "POST /echo HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n",
    "POST /echo HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: 2\r\n\r\nok",
    "5\r\nhello\r\n",
    "0\r\n\r\n",
    "GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    "GET / HTTP/1.0\r\n\r\n",
    "GET ",
    "/a?b ",
    "HTTP/1.1\r\n",
    "Host: x\r\n",
    "Content-Length: 3\r\n",
    "Transfer-Encoding: chunked\r\n",
    "Connection: close\r\n",
    "\r\n",
    "\r",
    "\n",
    "abc",
    "\0",
];

/// Requests, pieces of requests, and damage.
fn bytes() -> impl Strategy<Value = Vec<u8>> {
    let parts = proptest::collection::vec(proptest::sample::select(PARTS.to_vec()), 0..8);
    let damage = proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..2);
    (parts, damage).prop_map(|(parts, damage)| {
        let mut bytes = parts.concat().into_bytes();
        for (at, byte) in damage {
            if !bytes.is_empty() {
                let at = at.index(bytes.len());
                bytes[at] = byte;
            }
        }
        bytes
    })
}

proptest! {
    #[test]
    fn writes_do_not_matter(bytes in bytes(), cuts in proptest::collection::vec(any::<prop::sample::Index>(), 0..6)) {
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        cuts.extend([0, bytes.len()]);
        cuts.sort_unstable();
        let writes: Vec<&[u8]> = cuts.windows(2).map(|cut| &bytes[cut[0]..cut[1]]).collect();
        let limits = Limits::default();
        prop_assert_eq!(converse(site, limits, &writes), converse(site, limits, &[&bytes]));
        let single: Vec<&[u8]> = bytes.chunks(1).collect();
        prop_assert_eq!(converse(site, limits, &single), converse(site, limits, &[&bytes]));
    }

    #[test]
    fn small_limits_do_not_matter_either(bytes in bytes(), head in 20..120usize, body in 0..8u64) {
        let limits = Limits { head, body, ..Limits::default() };
        let single: Vec<&[u8]> = bytes.chunks(1).collect();
        prop_assert_eq!(converse(site, limits, &single), converse(site, limits, &[&bytes]));
    }

    #[test]
    fn any_bytes_are_answered_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        let raw = converse(site, Limits::default(), &[&bytes]);
        prop_assert!(read_replies(raw).iter().all(|reply| reply.status >= 400));
    }
}
