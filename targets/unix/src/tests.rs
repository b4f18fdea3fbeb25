//! The parts of the target together, on the host's loopback and in a directory of the test's own.

use std::cell::RefCell;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;

use embedded_io_async::{Read, Write};
use fogbow::{Image, StartError, spawn};
use fogbow_kv::{Change, Digest, Key, Kind, Name, ReadError, ReadOnly, ReadWrite, WriteError};
use fogbow_net::{ConnectError, Listener, Stack, Stream, UdpSocket};

use crate::platform::Unix;
use crate::{Directory, HostStack};

/// Runs `future` as an image on this thread and gives its output.
fn run<F>(future: F) -> F::Output
where
    F: Future + 'static,
    F::Output: 'static,
{
    let output = Rc::new(RefCell::new(None));
    let slot = Rc::clone(&output);
    let image = Image { name: "test", version: "0", arguments: &[] };
    let status = fogbow::run(Rc::new(Unix::new().unwrap()), &image, Ok([""; 0]), || async move {
        let output = future.await;
        slot.replace(Some(output));
        Ok::<(), StartError>(())
    });
    assert_eq!(status, 0);
    output.take().unwrap()
}

const STACK: HostStack = HostStack::new(Ipv4Addr::LOCALHOST);

fn loopback(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

#[test]
fn a_stream_carries_more_than_the_socket_buffers_hold_and_half_closes() {
    const LENGTH: usize = 8 << 20;
    let (received, answer) = run(async {
        let mut listener = STACK.listen(0).unwrap();
        let port = listener.port();
        let server = spawn(async move {
            let mut stream = listener.accept().await.unwrap();
            let mut total = 0;
            let mut buffer = vec![0; 65536];
            loop {
                match stream.read(&mut buffer).await.unwrap() {
                    0 => break,
                    length => total += length,
                }
            }
            stream.write_all(b"end").await.unwrap();
            total
        });
        let mut client = STACK.connect(loopback(port)).await.unwrap();
        assert_eq!(client.peer().port(), port);
        client.write_all(&vec![7; LENGTH]).await.unwrap();
        client.shutdown().await.unwrap();
        let mut answer = [0; 3];
        client.read_exact(&mut answer).await.unwrap();
        assert_eq!(client.read(&mut [0]).await, Ok(0));
        (server.await, answer)
    });
    assert_eq!(received, LENGTH);
    assert_eq!(&answer, b"end");
}

#[test]
fn a_port_where_nobody_listens_refuses() {
    run(async {
        let port = STACK.listen(0).unwrap().port();
        assert_eq!(STACK.connect(loopback(port)).await.err(), Some(ConnectError::Refused));
        let listener = STACK.listen(0).unwrap();
        assert_eq!(STACK.listen(listener.port()).err(), Some(fogbow_net::ListenError::InUse));
        // An address for documentation (RFC 5737), which no host has.
        let elsewhere = HostStack::new([192, 0, 2, 1].into());
        assert_eq!(elsewhere.listen(0).err(), Some(fogbow_net::ListenError::NoAddress));
        assert_eq!(elsewhere.bind(0).err(), Some(fogbow_net::BindError::NoAddress));
    });
}

#[test]
fn an_aborted_stream_is_reset() {
    run(async {
        let mut listener = STACK.listen(0).unwrap();
        let mut client = STACK.connect(loopback(listener.port())).await.unwrap();
        listener.accept().await.unwrap().abort();
        assert_eq!(client.read(&mut [0]).await, Err(fogbow_net::StreamError::Reset));
    });
}

#[test]
fn the_halves_of_a_stream_work_in_two_tasks() {
    run(async {
        let mut listener = STACK.listen(0).unwrap();
        let mut client = STACK.connect(loopback(listener.port())).await.unwrap();
        let (mut reader, mut writer) = listener.accept().await.unwrap().split();
        let echo = spawn(async move {
            let mut byte = [0];
            while reader.read(&mut byte).await == Ok(1) {
                writer.write_all(&byte).await.unwrap();
            }
        });
        for byte in 0..=255 {
            client.write_all(&[byte]).await.unwrap();
            let mut back = [0];
            client.read_exact(&mut back).await.unwrap();
            assert_eq!(back, [byte]);
        }
        drop(client);
        echo.await;
    });
}

#[test]
fn datagrams_arrive_with_their_sender() {
    run(async {
        let (a, b) = (STACK.bind(0).unwrap(), STACK.bind(0).unwrap());
        a.send_to(b"ping", loopback(b.port())).await.unwrap();
        let mut buffer = [0; 16];
        assert_eq!(b.receive_from(&mut buffer).await, Ok((4, loopback(a.port()))));
        assert_eq!(a.send_to(&vec![0; 70_000], loopback(b.port())).await, Err(fogbow_net::UdpError::TooLong));
    });
}

fn key(text: &str) -> Key<'_> {
    Key::new(text).unwrap()
}

#[test]
fn a_directory_is_a_store() {
    let directory = tempfile::tempdir().unwrap();
    let store = Directory::open(directory.path()).unwrap();
    run(async move {
        store.set(key("a/b/c"), b"hello").await.unwrap();
        store.set(key("a/b/c"), b"hello, world").await.unwrap();
        assert_eq!(store.get(key("a/b/c")).await.unwrap(), b"hello, world");
        assert_eq!(store.get_partial(key("a/b/c"), 7, 3).await.unwrap(), b"wor");
        assert_eq!(store.get_partial(key("a/b/c"), u64::MAX, 3).await.unwrap(), b"");
        assert_eq!(store.size(key("a/b/c")).await, Ok(12));
        assert_eq!(store.digest(key("a/b/c")).await, Ok(Digest::of(b"hello, world")));
        assert_eq!(store.list(key("a")).await.unwrap(), [Name { name: "b".into(), kind: Kind::Dictionary }]);
        assert_eq!(store.list(key("a/b")).await.unwrap(), [Name { name: "c".into(), kind: Kind::Value }]);
        assert_eq!(store.get(key("a/b")).await, Err(ReadError::IsDictionary("a/b".into())));
        assert_eq!(store.set(key("a/b"), b"").await, Err(WriteError::Conflict("a/b".into())));
        assert_eq!(store.set(key("a/b/c/d"), b"").await, Err(WriteError::Conflict("a/b/c/d".into())));
        store.set_partial(key("a/b/c"), 14, b"!").await.unwrap();
        assert_eq!(store.get(key("a/b/c")).await.unwrap(), b"hello, world\0\0!");
        store.rename(key("a"), key("x/y")).await.unwrap();
        assert_eq!(store.exists(key("x/y/b/c")).await, Ok(Some(Kind::Value)));
        assert_eq!(store.allocate(key("x/y/b/c"), 5).await, Err(WriteError::Exists("x/y/b/c".into())));
        store.allocate(key("z"), 5).await.unwrap();
        assert_eq!(store.get(key("z")).await.unwrap(), [0; 5]);
        store.remove(key("x")).await.unwrap();
        store.remove(key("x")).await.unwrap();
        let longest = "é".repeat(127);
        store.set(key(&longest), b"long").await.unwrap();
        store.remove(key(&longest)).await.unwrap();
        assert_eq!(store.list(Key::ROOT).await.unwrap(), [Name { name: "z".into(), kind: Kind::Value }]);
    });
}

#[test]
fn values_of_a_directory_stream_and_batches_are_of_one_value() {
    let directory = tempfile::tempdir().unwrap();
    let store = Directory::open(directory.path()).unwrap();
    run(async move {
        let value: Vec<u8> = (0..200_000).map(|index| (index / 7) as u8).collect();
        assert_eq!(store.set_stream(key("a"), &mut &value[..]).await, Ok(200_000));
        let mut reader = store.read(key("a")).await.unwrap();
        let mut read = vec![0; 200_000];
        reader.read_exact(&mut read[..1000]).await.unwrap();
        store.batch(&[Change::Set(key("a"), b"other")]).await.unwrap();
        reader.read_exact(&mut read[1000..]).await.unwrap();
        assert!(read == value, "a stream gives the value as it was");
        let two = [Change::Remove(key("a")), Change::Set(key("b"), b"")];
        assert!(matches!(store.batch(&two).await, Err(WriteError::Unsupported { .. })));
        store.batch(&two[..1]).await.unwrap();
        assert_eq!(store.list(Key::ROOT).await, Ok(Vec::new()), "no files are left behind");
    });
}

/// A stream that sets a value beside the one it is read for, and removes what it can.
struct Interfering(Rc<Directory>);

impl embedded_io_async::ErrorType for Interfering {
    type Error = std::convert::Infallible;
}

impl Read for Interfering {
    async fn read(&mut self, _: &mut [u8]) -> Result<usize, Self::Error> {
        self.0.set(key("a/beside"), b"1").await.unwrap();
        assert!(self.0.remove(key("a")).await.is_err(), "a value is under way in it");
        Ok(0)
    }
}

/// A value that was under way when the image was killed is not there, is in nobody's way, and gives its place to the next one.
#[test]
fn what_a_crash_leaves_in_a_directory_is_taken_over() {
    let directory = tempfile::tempdir().unwrap();
    let left = directory.path().join("a/.fogbow-new-0");
    std::fs::create_dir(directory.path().join("a")).unwrap();
    std::fs::write(&left, "half a value").unwrap();
    let store = Rc::new(Directory::open(directory.path()).unwrap());
    run(async move {
        assert_eq!(store.list(key("a")).await, Ok(Vec::new()));
        assert_eq!(store.exists(key("a/.fogbow-new-0")).await, Ok(None));
        assert!(matches!(store.set(key("a/.fogbow-new-7"), b"").await, Err(WriteError::Unsupported { .. })));
        store.set_stream(key("a/b"), &mut Interfering(Rc::clone(&store))).await.unwrap();
        assert_eq!(store.get(key("a/b")).await.unwrap(), b"", "nothing of what was left");
        assert!(!left.exists());
        std::fs::write(&left, "half another").unwrap();
        store.remove(key("a")).await.unwrap();
        assert_eq!(store.list(Key::ROOT).await, Ok(Vec::new()));
    });
}

/// As every store has it: of the latest value below a dictionary, not of the directory.
#[test]
fn a_dictionary_of_files_was_modified_when_the_latest_of_them_was() {
    let directory = tempfile::tempdir().unwrap();
    let store = Directory::open(directory.path()).unwrap();
    run(async move {
        for (name, seconds) in [("a/b/c", 1_000_000_000), ("a/d", 2_000_000_000), ("e", 500_000_000)] {
            store.set(key(name), b"").await.unwrap();
            let file = std::fs::File::options().write(true).open(directory.path().join(name)).unwrap();
            file.set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(seconds)).unwrap();
        }
        for (name, seconds) in [("", 2_000_000_000), ("a", 2_000_000_000), ("a/b", 1_000_000_000), ("e", 500_000_000_u64)] {
            let modified = store.last_modified(key(name)).await.unwrap();
            assert_eq!(modified.as_unix_nanos() / 1_000_000_000, seconds, "{name}");
        }
        assert_eq!(store.last_modified(key("f")).await, Err(ReadError::NotFound("f".into())));
    });
}

#[test]
fn a_directory_is_not_left_over_a_symbolic_link() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::create_dir(directory.path().join("store")).unwrap();
    std::fs::write(directory.path().join("secret"), "secret").unwrap();
    std::os::unix::fs::symlink("../secret", directory.path().join("store/link")).unwrap();
    std::os::unix::fs::symlink("..", directory.path().join("store/up")).unwrap();
    let store = Directory::open(directory.path().join("store")).unwrap();
    run(async move {
        assert!(matches!(store.get(key("link")).await, Err(ReadError::Unavailable { .. })));
        assert!(matches!(store.get(key("up/secret")).await, Err(ReadError::Unavailable { .. })));
        assert!(store.set(key("up/new"), b"").await.is_err());
    });
    assert!(!directory.path().join("new").exists());
}
