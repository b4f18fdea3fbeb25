//! A proxy: asks another server for what its clients ask for.
//!
//! `cargo xtask run proxy --target unix -- --origin=127.0.0.1:8000`
//!
//! Limits: GET and HEAD alone; a response is passed on part by part, of its header fields the type, the tag and the time of change.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

use alloc::format;
use alloc::rc::Rc;
use alloc::vec;
use alloc::vec::Vec;
use core::net::SocketAddr;

use fogbow::StartError;
use fogbow_net::Stack;
use fogbow_net::http::client::{self, Client};
use fogbow_net::http::{Body, EitherBody, Interrupted, Method, Request, Response, Server, Status};

fogbow::arguments!();

/// Bytes of a response that are passed on at a time.
const PART: usize = 4096;

/// Header fields of a response that are passed on.
const PASSED: [&str; 3] = ["content-type", "etag", "last-modified"];

/// Serves what the server at `--origin` has, until the network fails.
///
/// # Errors
/// When the port is in use, an argument is wrong, or the network fails.
pub async fn start(service: Server<impl Stack>, origin: Client<impl Stack>) -> Result<(), StartError> {
    let address = Arguments::read()?.origin;
    let origin = Rc::new(origin);
    service
        .serve(async move |mut request: Request<'_>| {
            if !matches!(request.method(), Method::Get | Method::Head) {
                return request
                    .respond(Status::METHOD_NOT_ALLOWED, EitherBody::Left("only GET and HEAD\n"))
                    .with_field("allow", "GET, HEAD");
            }
            match ask(&origin, address, &request).await {
                Ok(answer) => pass_on(&mut request, answer),
                Err(error) => {
                    log::warn!("{address}: {error}");
                    request.respond(Status::BAD_GATEWAY, EitherBody::Left("the origin does not answer\n")).with_type("text/plain")
                }
            }
        })
        .await
}

/// Asks the origin for what `request` asks for.
async fn ask<S: Stack>(origin: &Client<S>, address: SocketAddr, request: &Request<'_>) -> Result<client::Response<S>, client::SendError> {
    let target = match request.query() {
        Some(query) => format!("http://{address}{}?{query}", request.path()),
        None => format!("http://{address}{}", request.path()),
    };
    let asked = origin.request(request.method(), &target).map_err(|_| client::SendError::Malformed)?;
    asked.send().await
}

fn pass_on<S: Stack>(request: &mut Request<'_>, answer: client::Response<S>) -> Response<EitherBody<&'static str, Passed<S>>> {
    let fields: Vec<_> = PASSED.iter().filter_map(|name| Some((*name, answer.field(name)?.to_vec()))).collect();
    let size = answer.field("content-length").and_then(|length| core::str::from_utf8(length).ok()?.parse().ok());
    let mut response = request.respond(answer.status(), EitherBody::Right(Passed { answer, size, part: vec![0; PART] }));
    for (name, value) in fields {
        response = response.with_field(name, value);
    }
    response
}

/// The body of the origin's response.
struct Passed<S: Stack> {
    answer: client::Response<S>,
    size: Option<u64>,
    part: Vec<u8>,
}

impl<S: Stack> Body for Passed<S> {
    fn size(&self) -> Option<u64> {
        self.size
    }

    async fn read_at(&mut self, _: u64) -> Result<&[u8], Interrupted> {
        let length = self.answer.read(&mut self.part).await.map_err(|_| Interrupted)?;
        Ok(&self.part[..length])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fogbow::simulation::Simulation;
    use fogbow_net::Loopback;

    #[test]
    fn passes_on_what_the_origin_has() {
        Simulation::new(1).with_arguments(&[Arguments::GROUP], ["--origin=127.0.0.1:8000"]).block_on(async {
            let stack = Loopback::new();
            let origin = Server::new(stack.clone(), 8000);
            let site = async |mut request: Request<'_>| match request.path() {
                "/a" => request.respond(Status::OK, vec![b'a'; 10_000]).with_type("text/a"),
                _ => request.respond(Status::NOT_FOUND, Vec::new()),
            };
            fogbow::spawn(async move { origin.serve(site).await.unwrap() }).detach();
            let client = Client::new(stack.clone(), client::Limits::default());
            let proxy = start(Server::new(stack, 80), client.clone());
            fogbow::spawn(async move { proxy.await.unwrap() }).detach();
            fogbow::task::yield_now().await;
            let mut found = client.get("http://127.0.0.1/a?b").unwrap().send().await.unwrap();
            assert_eq!((found.status(), found.field("content-type")), (Status::OK, Some(&b"text/a"[..])));
            assert_eq!(found.read_to_end().await.unwrap(), vec![b'a'; 10_000]);
            assert_eq!(client.get("http://127.0.0.1/c").unwrap().send().await.unwrap().status(), Status::NOT_FOUND);
            let head = client.request(Method::Head, "http://127.0.0.1/a").unwrap().send().await.unwrap();
            assert_eq!(head.field("content-length"), Some(&b"10000"[..]));
            assert_eq!(
                client.request(Method::Post, "http://127.0.0.1/a").unwrap().send().await.unwrap().status(),
                Status::METHOD_NOT_ALLOWED
            );
        });
    }
}
