//! The direct stack beside Linux's: the same segments from the same client, and the answers compared, step by step. Where the two differ, the script
//! says how, and which section of which RFC lets them.

mod scripts;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Result, ensure};
use fogbow_tests::builder::{Place, Run};
use fogbow_tests::guest::Guest;
use fogbow_tests::network::{GUEST, HOST, Namespace, TAP};
use fogbow_tests::script::{Client, Wire};
use libtest_mimic::Trial;

use crate::echo::with_console;
use scripts::SCRIPTS;

/// The client's end of the wire to the image.
const END: &str = "client0";
/// Where an echo is, where a server that closes first is, and where nothing is.
const ECHO: u16 = 7000;
const CLOSES: u16 = 80;
const NOTHING: u16 = 9;

struct Script {
    /// The section that it is about, and what happens.
    name: &'static str,
    port: u16,
    run: fn(&mut Client<'_>) -> Result<()>,
    /// Answers of Linux's and of ours that may stand for each other, and why.
    allowed: &'static [(&'static str, &'static str, &'static str)],
}

pub(crate) fn trials() -> Vec<Trial> {
    let scene = Arc::new(Mutex::new(None));
    (SCRIPTS.iter().zip(40_000..))
        .map(|(script, from)| {
            let scene = Arc::clone(&scene);
            super::trial(&format!("like_linux_{}", script.name), Place::Spt, move || {
                let mut scene = scene.lock().unwrap_or_else(PoisonError::into_inner);
                let scene = match &mut *scene {
                    Some(scene) => scene,
                    none => none.insert(Scene::new()?),
                };
                scene.play(script, from)
            })
        })
        .collect()
}

/// Linux and the images, each at the end of a wire.
struct Scene {
    linux: Wire,
    echo: Image,
    closes: Image,
    _namespace: Namespace,
}

struct Image {
    wire: Wire,
    guest: Guest,
    _namespace: Namespace,
}

impl Scene {
    fn new() -> Result<Self> {
        let namespace = Namespace::new()?;
        let linux = namespace.open(TAP)?;
        namespace.run(|| {
            serve(ECHO, |mut stream| {
                // Images do not hold small segments back.
                drop(stream.set_nodelay(true));
                // Whole segments: Linux counts its first window in segments, however short they are.
                let mut buffer = [0; 8192];
                while let Ok(length @ 1..) = stream.read(&mut buffer) {
                    if stream.write_all(&buffer[..length]).is_err() {
                        break;
                    }
                }
            })?;
            serve(CLOSES, |mut stream| {
                let mut request = Vec::new();
                let mut buffer = [0; 1024];
                while !request.ends_with(b"\r\n\r\n") {
                    let Ok(length @ 1..) = stream.read(&mut buffer) else { return };
                    request.extend_from_slice(&buffer[..length]);
                }
                // The client closes as soon as it has seen this end.
                drop(stream.write_all(b"an answer"));
            })
        })?;
        let port = format!("--port={ECHO}");
        Ok(Self {
            linux: Wire::new(linux, HOST, ECHO)?,
            echo: Image::start("echo", ECHO, &[&port])?,
            closes: Image::start("http", CLOSES, &[])?,
            _namespace: namespace,
        })
    }

    fn play(&mut self, script: &Script, from: u16) -> Result<()> {
        let image = if script.port == CLOSES { &mut self.closes } else { &mut self.echo };
        let play = |wire| -> Result<Vec<String>> {
            let mut client = Client::new(wire, from, script.port);
            (script.run)(&mut client)?;
            Ok(client.into_lines())
        };
        let (linux, ours) = std::thread::scope(|scope| {
            let linux = scope.spawn(|| play(&mut self.linux));
            let ours = play(&mut image.wire);
            (linux.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic)), ours)
        });
        let (linux, ours) = (linux?, ours.map_err(|error| with_console(error, &image.guest))?);
        for (step, (linux, ours)) in linux.iter().zip(&ours).enumerate() {
            let is_allowed = script.allowed.iter().any(|(theirs, own, _)| linux == theirs && ours == own);
            ensure!(linux == ours || is_allowed, "step {}: Linux answers {linux:?}, the image {ours:?}", step + 1);
        }
        ensure!(linux.len() == ours.len(), "Linux answers {linux:?}, the image {ours:?}");
        // What is no longer different is to be taken out of the list.
        for (theirs, own, _) in script.allowed {
            ensure!(linux.iter().zip(&ours).any(|pair| pair == (&(*theirs).into(), &(*own).into())), "never seen: {theirs:?} and {own:?}");
        }
        Ok(())
    }
}

impl Image {
    fn start(image: &str, listens: u16, arguments: &[&str]) -> Result<Self> {
        let namespace = Namespace::bridged(&[TAP, END], "bridge0")?;
        let wire = namespace.open(END)?;
        let guest = Place::Spt.start(image, &Run { namespace: Some(&namespace), arguments, ..Run::default() })?;
        let wire = Wire::new(wire, GUEST, listens).map_err(|error| with_console(error, &guest))?;
        Ok(Self { wire, guest, _namespace: namespace })
    }
}

/// Serves a port, each connection on a thread of its own, for as long as the process lives.
fn serve(port: u16, each: fn(TcpStream)) -> Result<()> {
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, port))?;
    std::thread::spawn(move || listener.incoming().flatten().for_each(|stream| drop(std::thread::spawn(move || each(stream)))));
    Ok(())
}
