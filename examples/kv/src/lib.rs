//! A key-value store over HTTP. What a `PUT` or `DELETE` was answered for with 204 has been written and flushed: it survives the image's end, however it
//! comes, and a power cut as far as the host keeps its promise.
//!
//! `cargo xtask kv format disk.img --create 64M` and `cargo xtask run kv --target spt --block store=disk.img`, then
//! `curl -T file URL/some/key`, `curl URL/some/key`, `curl -X DELETE URL/some/key`; a path that ends with `/` lists what is below it, a name a line.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

use alloc::format;
use alloc::rc::Rc;
use alloc::string::{String, ToString};
use alloc::vec::Vec;

use embedded_io_async::Read;
use fogbow::StartError;
use fogbow_kv::{Key, Kind, Name, ReadError, ReadWrite, StreamError, WriteError};
use fogbow_net::http::{self, EitherBody, Interrupted, Limits, Method, Request, Response, Status};
use fogbow_net::{Listener, Stack};
use percent_encoding::percent_decode_str;

fogbow::arguments!();

/// The largest value that is taken. It streams, so that this is the device's affair and not the memory's.
const LARGEST: u64 = 1 << 40;

/// Bytes of a value that are sent at a time.
const PART: usize = 32 << 10;

/// The body of a response: a value of the store, or text.
type Body<R> = EitherBody<Streamed<R>, String>;

/// A value on its way to a client. It is the value as it was when this began: should another take its place meanwhile, the connection is reset.
struct Streamed<R> {
    reader: R,
    size: u64,
    part: Vec<u8>,
}

impl<R: Read<Error = ReadError> + 'static> http::Body for Streamed<R> {
    fn size(&self) -> Option<u64> {
        Some(self.size)
    }

    async fn read_at(&mut self, _: u64) -> Result<&[u8], Interrupted> {
        self.part.resize(PART, 0);
        match self.reader.read(&mut self.part).await {
            Ok(length) => Ok(&self.part[..length]),
            Err(error) => {
                log::error!("{error}");
                Err(Interrupted)
            }
        }
    }
}

/// Serves `store` on `--port` until the network fails.
///
/// # Errors
/// When the port is in use, an argument is wrong, or the network fails.
pub async fn start(stack: impl Stack, store: impl ReadWrite) -> Result<(), StartError> {
    let port = Arguments::read()?.port;
    let listener = stack.listen(port).map_err(|error| StartError::new(&format!("port {port}"), error))?;
    fogbow::println!("kv: listening on port {}", listener.port());
    let store = Rc::new(store);
    let handler = async move |request: Request<'_>| respond(&*store, request).await;
    http::serve(listener, Limits { body: LARGEST, ..Limits::default() }, handler).await.map_err(|error| StartError::new("http", error))
}

async fn respond<S: ReadWrite>(store: &S, mut request: Request<'_>) -> Response<Body<S::Reader>> {
    let path = request.path();
    let Ok(text) = percent_decode_str(path).decode_utf8() else {
        return text_response(&mut request, Status::BAD_REQUEST, "the path is not UTF-8\n");
    };
    let key = match Key::new(&text) {
        Ok(key) => key,
        Err(error) => return text_response(&mut request, Status::BAD_REQUEST, &format!("{error}\n")),
    };
    let result = match request.method() {
        Method::Get | Method::Head if text.ends_with('/') => match store.list(key).await {
            Ok(names) => {
                let line = |name: Name| name.name + if name.kind == Kind::Dictionary { "/\n" } else { "\n" };
                let text: String = names.into_iter().map(line).collect();
                return text_response(&mut request, Status::OK, &text);
            }
            Err(error) => Err(read_status(&error)),
        },
        Method::Get | Method::Head => match open(store, key).await {
            Ok(value) => return request.respond(Status::OK, EitherBody::Left(value)).with_type("application/octet-stream"),
            Err(error) => Err(read_status(&error)),
        },
        Method::Put => match store.set_stream(key, &mut request).await {
            Ok(_) => Ok(()),
            Err(StreamError::Store(error)) => Err(write_status(&error)),
            Err(StreamError::Source(error)) => Err((Status::BAD_REQUEST, error.to_string())),
        },
        Method::Delete => store.remove(key).await.map_err(|error| write_status(&error)),
        _ => Err((Status::METHOD_NOT_ALLOWED, "GET, HEAD, PUT and DELETE are understood".to_string())),
    };
    match result {
        Ok(()) => request.respond(Status::NO_CONTENT, EitherBody::Right(String::new())),
        Err((status, message)) => text_response(&mut request, status, &(message + "\n")),
    }
}

async fn open<S: ReadWrite>(store: &S, key: Key<'_>) -> Result<Streamed<S::Reader>, ReadError> {
    let reader = store.read(key).await?;
    Ok(Streamed { reader, size: store.size(key).await?, part: Vec::new() })
}

fn text_response<R>(request: &mut Request<'_>, status: Status, text: &str) -> Response<Body<R>> {
    request.respond(status, EitherBody::Right(text.to_string())).with_type("text/plain; charset=utf-8")
}

fn read_status(error: &ReadError) -> (Status, String) {
    let status = match error {
        ReadError::NotFound(_) | ReadError::IsDictionary(_) | ReadError::IsValue(_) => Status::NOT_FOUND,
        _ => Status::INTERNAL_SERVER_ERROR,
    };
    (status, error.to_string())
}

fn write_status(error: &WriteError) -> (Status, String) {
    let status = match error {
        WriteError::Conflict(_) => Status::CONFLICT,
        WriteError::NoSpace(_) => Status::INSUFFICIENT_STORAGE,
        _ => Status::INTERNAL_SERVER_ERROR,
    };
    (status, error.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use embedded_io_async::Write;
    use fogbow::simulation::Simulation;
    use fogbow_kv::Memory;
    use fogbow_net::Loopback;

    #[test]
    fn values_are_put_got_listed_and_deleted() {
        Simulation::new(1).with_arguments(&[Arguments::GROUP], ["--port=8080"]).block_on(async {
            let stack = Loopback::new();
            fogbow::spawn(start(stack.clone(), Memory::new())).detach();
            fogbow::task::yield_now().await;
            let mut client = stack.connect(([127, 0, 0, 1], 8080).into()).await.unwrap();
            let mut ask = async |request: &str| {
                client.write_all(request.as_bytes()).await.unwrap();
                let mut response = [0; 1024];
                let length = client.read(&mut response).await.unwrap();
                String::from_utf8_lossy(&response[..length]).into_owned()
            };
            let put = "PUT /a/b%20c HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\n\r\nvalue";
            assert!(ask(put).await.starts_with("HTTP/1.1 204"));
            assert!(ask("GET /a/b%20c HTTP/1.1\r\nHost: x\r\n\r\n").await.ends_with("\r\n\r\nvalue"));
            assert!(ask("GET /a/ HTTP/1.1\r\nHost: x\r\n\r\n").await.ends_with("\r\n\r\nb c\n"));
            assert!(ask("GET / HTTP/1.1\r\nHost: x\r\n\r\n").await.ends_with("\r\n\r\na/\n"));
            assert!(ask("PUT /a HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n1").await.starts_with("HTTP/1.1 409"));
            assert!(ask("DELETE /a/b%20c HTTP/1.1\r\nHost: x\r\n\r\n").await.starts_with("HTTP/1.1 204"));
            assert!(ask("GET /a/b%20c HTTP/1.1\r\nHost: x\r\n\r\n").await.starts_with("HTTP/1.1 404"));
            assert!(ask("PUT /../x HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n\r\n1").await.starts_with("HTTP/1.1 400"));
        });
    }
}
