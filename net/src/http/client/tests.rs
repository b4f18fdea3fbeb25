//! Tests of the client over the loopback stack in virtual time: against this crate's own server, and against scripts that say what others might.

use core::cell::RefCell;
use std::rc::Rc;
use std::string::{String, ToString};
use std::vec::Vec;
use std::{format, vec};

use embedded_io_async::{Read, Write};
use fogbow::simulation::Simulation;
use fogbow::time::{self, Duration};

use super::*;
use crate::http::{self, BodyError, Status};
use crate::{Listener, Loopback};

const URL: &str = "http://127.0.0.1/";

/// What one connection of a scripted server does: waits for each request, and answers it with these bytes. It closes after the last answer, or
/// stays open for good.
#[derive(Clone)]
struct Script {
    answers: Vec<Vec<u8>>,
    stays_open: bool,
}

impl Script {
    fn new<A: AsRef<[u8]>>(answers: &[A]) -> Self {
        Self { answers: answers.iter().map(|answer| answer.as_ref().to_vec()).collect(), stays_open: true }
    }

    fn closing(self) -> Self {
        Self { stays_open: false, ..self }
    }
}

/// Heads and bodies that a scripted server received, connection by connection.
type Received = Rc<RefCell<Vec<Vec<String>>>>;

/// Serves one connection after the other as the scripts say.
fn serve(stack: &Loopback, scripts: Vec<Script>) -> Received {
    let received = Received::default();
    let mut listener = stack.listen(80).unwrap();
    let noted = Rc::clone(&received);
    fogbow::spawn(async move {
        for (number, script) in scripts.into_iter().enumerate() {
            let mut stream = listener.accept().await.unwrap();
            noted.borrow_mut().push(Vec::new());
            let noted = Rc::clone(&noted);
            fogbow::spawn(async move {
                let mut request = vec![0; 64 * 1024];
                for answer in script.answers {
                    let mut length = 0;
                    while length == 0 || is_begun(&request[..length]) {
                        match stream.read(&mut request[length..]).await.unwrap_or(0) {
                            0 => return,
                            more => length += more,
                        }
                    }
                    noted.borrow_mut()[number].push(String::from_utf8_lossy(&request[..length]).into_owned());
                    stream.write_all(&answer).await.unwrap();
                    stream.flush().await.unwrap();
                }
                if script.stays_open {
                    let _ = stream.read(&mut request).await;
                    noted.borrow_mut()[number].push("closed".into());
                }
            })
            .detach();
        }
        core::future::pending::<()>().await;
    })
    .detach();
    received
}

/// Whether a request has more chunks to come.
fn is_begun(request: &[u8]) -> bool {
    let request = String::from_utf8_lossy(request);
    request.contains("transfer-encoding: chunked") && !request.ends_with("0\r\n\r\n")
}

/// Runs `use_client` against a scripted server.
fn converse<F: Future<Output = T> + 'static, T: 'static>(
    scripts: &[Script],
    limits: Limits,
    use_client: impl FnOnce(Client<Loopback>, Received) -> F + 'static,
) -> T {
    let scripts = scripts.to_vec();
    Simulation::new(1).block_on(async move {
        let stack = Loopback::new();
        let received = serve(&stack, scripts);
        use_client(Client::new(stack, limits), received).await
    })
}

/// The outcome of one GET request that is answered with `answer`: the status and the body.
fn get(answer: &[u8], limits: Limits) -> Result<(u16, Result<Vec<u8>, BodyError>), SendError> {
    converse(&[Script::new(&[answer]).closing()], limits, |client, _| async move {
        let mut response = client.get(URL).unwrap().send().await?;
        Ok((response.status().code(), response.read_to_end().await))
    })
}

#[test]
fn asks_this_crates_own_server() {
    Simulation::new(1).block_on(async {
        let stack = Loopback::new();
        let listener = stack.listen(80).unwrap();
        let echo = async |mut request: http::Request<'_>| {
            let body = request.read_to_end().await.unwrap();
            let text = [format!("{:?} {} ", request.method(), request.path()).into_bytes(), body].concat();
            request.respond(Status::ACCEPTED, text).with_field("x-host", request.field("host").unwrap_or_default())
        };
        fogbow::spawn(http::serve(listener, http::Limits::default(), echo)).detach();
        let client = Client::new(stack, Limits::default());
        for method in [Method::Get, Method::Post, Method::Put, Method::Delete, Method::Patch, Method::Options] {
            let request = client.request(method, "http://127.0.0.1/a?b").unwrap();
            let body = if method == Method::Get { Vec::new() } else { vec![b'z'; 20_000] };
            let mut response = request.with_body(body.clone()).send().await.unwrap();
            assert_eq!(response.status(), Status::ACCEPTED);
            assert_eq!(response.field("X-Host"), Some(&b"127.0.0.1"[..]));
            let expected = [format!("{method:?} /a ").into_bytes(), body].concat();
            assert_eq!(response.read_to_end().await.unwrap(), expected);
            assert_eq!(response.read(&mut [0]).await, Ok(0), "the end is the end");
        }
        let mut head = client.request(Method::Head, URL).unwrap().with_host("a.example").unwrap().send().await.unwrap();
        assert_eq!((head.field("content-length"), head.field("x-host")), (Some(&b"7"[..]), Some(&b"a.example"[..])));
        assert_eq!(head.read_to_end().await.unwrap(), b"");
    });
}

#[test]
fn a_request_is_what_it_says() {
    let answer = "HTTP/1.1 204 No Content\r\n\r\n";
    let requests = converse(&[Script::new(&[answer; 3])], Limits::default(), |client, received| async move {
        let url = "http://name.example:81/a?b#c";
        let get = client.get(url).unwrap();
        assert_eq!(get.send().await.err(), Some(SendError::Name));
        let server = "127.0.0.1:80".parse().unwrap();
        client.get(url).unwrap().at(server).with_field("x", "a\r\ny: b").send().await.unwrap();
        client.request(Method::Post, URL).unwrap().send().await.unwrap();
        client.request(Method::Put, URL).unwrap().with_body(Pieces(&["ab", "cde"])).send().await.unwrap();
        received.take()
    });
    assert_eq!(
        requests,
        [[
            "GET /a?b HTTP/1.1\r\nhost: name.example:81\r\nx: a  y: b\r\n\r\n",
            "POST / HTTP/1.1\r\nhost: 127.0.0.1\r\ncontent-length: 0\r\n\r\n",
            "PUT / HTTP/1.1\r\nhost: 127.0.0.1\r\ntransfer-encoding: chunked\r\n\r\n2\r\nab\r\n3\r\ncde\r\n0\r\n\r\n",
        ]]
    );
}

/// A body whose size is not known before.
struct Pieces(&'static [&'static str]);

impl http::Body for Pieces {
    fn size(&self) -> Option<u64> {
        None
    }

    async fn read_at(&mut self, _: u64) -> Result<&[u8], http::Interrupted> {
        let Some((first, rest)) = self.0.split_first() else { return Ok(&[]) };
        self.0 = rest;
        Ok(first.as_bytes())
    }
}

#[test]
fn bodies_are_read_to_their_ends() {
    for (answer, body) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", Ok("abc")),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n1;x\r\nc\r\n0\r\nt: u\r\n\r\n", Ok("abc")),
        ("HTTP/1.1 200 OK\r\n\r\nabc", Ok("abc")),
        ("HTTP/1.1 103 Early Hints\r\nx: y\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc", Ok("abc")),
        ("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nabc", Err(BodyError::Ended)),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab\r\n", Err(BodyError::Ended)),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nab!\r\n", Err(BodyError::Malformed)),
    ] {
        let expected = body.map(|body| body.as_bytes().to_vec());
        assert_eq!(get(answer.as_bytes(), Limits::default()), Ok((200, expected)), "{answer:?}");
    }
}

#[test]
fn responses_that_are_too_long_are_errors() {
    let limits = Limits { head: 100, body: 5, ..Limits::default() };
    let whole = |body: &str| Ok((200, Ok(body.as_bytes().to_vec())));
    assert_eq!(get(b"HTTP/1.1 200 OK\r\n\r\nabcde", limits), whole("abcde"));
    assert_eq!(get(b"HTTP/1.1 200 OK\r\n\r\nabcdef", limits), Ok((200, Err(BodyError::TooLarge))));
    assert_eq!(get(b"HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nabcdef", limits), Err(SendError::TooLarge));
    let chunks = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n3\r\ndef\r\n0\r\n\r\n";
    assert_eq!(get(chunks, limits), Ok((200, Err(BodyError::TooLarge))));
    let long = format!("HTTP/1.1 200 OK\r\nx: {}\r\n\r\n", "y".repeat(100));
    assert_eq!(get(long.as_bytes(), limits), Err(SendError::TooLarge));
    let interim = "HTTP/1.1 100 Continue\r\n\r\n".repeat(20);
    assert_eq!(get(interim.as_bytes(), limits), Err(SendError::Malformed));
}

#[test]
fn what_is_no_response_is_an_error() {
    for (answer, error) in [
        ("", SendError::Closed),
        ("HTTP/1.1 200 OK\r\n", SendError::Malformed),
        ("SSH-2.0-x\r\n\r\n", SendError::Malformed),
        ("HTTP/1.1 200 OK\nContent-Length: 0\n\n", SendError::Malformed),
        ("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n", SendError::Malformed),
    ] {
        assert_eq!(get(answer.as_bytes(), Limits::default()), Err(error), "{answer:?}");
    }
}

#[test]
fn a_connection_is_used_again_when_its_response_has_been_read() {
    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab";
    let received = converse(&[Script::new(&[answer; 9]), Script::new(&[answer; 9])], Limits::default(), |client, received| async move {
        for _ in 0..3 {
            let mut response = client.get(URL).unwrap().send().await.unwrap();
            assert_eq!(response.read_to_end().await.unwrap(), b"ab");
        }
        // One that is only begun keeps its connection to itself, and takes it along when it is dropped.
        let begun = client.get(URL).unwrap().send().await.unwrap();
        let mut beside = client.get(URL).unwrap().send().await.unwrap();
        drop(begun);
        beside.read_to_end().await.unwrap();
        client.get(URL).unwrap().send().await.unwrap();
        time::sleep(Duration::from_millis(1)).await;
        received.borrow().iter().map(Vec::len).collect::<Vec<_>>()
    });
    assert_eq!(received, [4, 2], "three and the begun one; the one beside it and the last");
}

#[test]
fn what_comes_unasked_is_no_response_to_the_next_request() {
    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab";
    let split = format!("{answer}HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\nforged");
    for first in [split.as_str(), "HTTP/1.1 204 No Content\r\nContent-Length: 6\r\n\r\nforged"] {
        let bodies = converse(&[Script::new(&[first]), Script::new(&[answer])], Limits::default(), |client, _| async move {
            let mut bodies = Vec::new();
            for _ in 0..2 {
                bodies.push(client.get(URL).unwrap().send().await.unwrap().read_to_end().await.unwrap());
            }
            bodies
        });
        assert_eq!(bodies[1], b"ab", "{first:?}");
    }
}

#[test]
fn a_request_that_a_kept_connection_swallowed_is_repeated_if_it_may_be() {
    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab";
    // The second request is read, and the connection closed without a word.
    let script = [Script::new(&[answer, ""]).closing(), Script::new(&[answer; 2])];
    for (method, outcome) in [(Method::Get, Ok(200)), (Method::Post, Err(SendError::Closed))] {
        let (status, received) = converse(&script, Limits::default(), move |client, received| async move {
            client.get(URL).unwrap().send().await.unwrap().read_to_end().await.unwrap();
            let second = client.request(method, URL).unwrap().send().await;
            (second.map(|response| response.status().code()), received.borrow().len())
        });
        assert_eq!((status, received), (outcome, if outcome.is_ok() { 2 } else { 1 }), "{method:?}");
    }
}

#[test]
fn a_connection_that_the_server_closed_is_not_used() {
    let answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nab";
    let script = [Script::new(&[answer]).closing(), Script::new(&[answer])];
    let second = converse(&script, Limits::default(), |client, _| async move {
        client.get(URL).unwrap().send().await.unwrap().read_to_end().await.unwrap();
        time::sleep(Duration::from_millis(1)).await;
        let response = client.request(Method::Post, URL).unwrap().with_body("not to be repeated").send().await;
        response.map(|response| response.status())
    });
    assert_eq!(second, Ok(Status::OK));
}

#[test]
fn kept_connections_close_in_time_and_are_few() {
    let answer = "HTTP/1.1 204 No Content\r\n\r\n";
    let limits = Limits { kept: 2, kept_for: Duration::from_secs(30), ..Limits::default() };
    let scripts: Vec<_> = (0..3).map(|_| Script::new(&[answer])).collect();
    converse(&scripts, limits, |client, received| async move {
        let closed = |received: &Received| received.borrow().iter().filter(|requests| requests.contains(&"closed".to_string())).count();
        // Three at once, of which two are kept.
        let requests = [(); 3].map(|()| fogbow::spawn(client.get(URL).unwrap().send()));
        for request in requests {
            request.await.unwrap();
        }
        time::sleep(Duration::from_secs(29)).await;
        assert_eq!(closed(&received), 1);
        time::sleep(Duration::from_secs(2)).await;
        assert_eq!(closed(&received), 3);
    });
}

#[test]
fn servers_that_take_too_long_are_given_up() {
    let limits = Limits { response_timeout: Duration::from_secs(3), body_timeout: Duration::from_secs(4), ..Limits::default() };
    let took = |answer: &str| {
        let script = Script::new(&[answer]);
        converse(&[script], limits, |client, _| async move {
            let start = time::now();
            let outcome = match client.get(URL).unwrap().send().await {
                Ok(mut response) => response.read_to_end().await.map_err(|error| error.to_string()),
                Err(error) => Err(error.to_string()),
            };
            (outcome.unwrap_err(), start.elapsed())
        })
    };
    assert_eq!(took("HTTP/1.1 200 OK\r\n"), (SendError::TimedOut.to_string(), Duration::from_secs(3)));
    assert_eq!(took("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\na"), (BodyError::TimedOut.to_string(), Duration::from_secs(4)));
    let refused =
        Simulation::new(1).block_on(async { Client::new(Loopback::new(), Limits::default()).get(URL).unwrap().send().await.err() });
    assert_eq!(refused, Some(SendError::Connect(crate::ConnectError::Refused)));
}
