//! QEMU's monitor: what a machine's operator does.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Instant;

use anyhow::{Context as _, Result, bail};

use crate::guest::PATIENCE;

/// A place for the monitor of one machine (QEMU Machine Protocol, `docs/interop/qmp-spec.txt` of QEMU).
#[derive(Debug)]
pub struct Monitor {
    folder: tempfile::TempDir,
}

impl Monitor {
    /// Makes the place.
    ///
    /// # Errors
    /// When there can be no folder.
    pub fn new() -> Result<Self> {
        Ok(Self { folder: tempfile::tempdir()? })
    }

    fn socket(&self) -> PathBuf {
        self.folder.path().join("monitor")
    }

    /// QEMU's option after `-qmp`.
    #[must_use]
    pub fn option(&self) -> String {
        format!("unix:{},server=on,wait=off", self.socket().display())
    }

    /// Executes a command without arguments, such as `system_powerdown`.
    ///
    /// # Errors
    /// When QEMU is not there, or refuses.
    pub fn execute(&self, command: &str) -> Result<()> {
        let stream = connect(&self.socket())?;
        stream.set_read_timeout(Some(PATIENCE))?;
        let mut answers = BufReader::new(stream.try_clone()?).lines();
        let mut send = |text: &str| -> Result<()> {
            (&stream).write_all(format!("{{\"execute\":\"{text}\"}}\n").as_bytes())?;
            loop {
                let answer = answers.next().context("QEMU closed its monitor")??;
                if answer.contains("\"error\"") {
                    bail!("{text}: {answer}");
                }
                if answer.contains("\"return\"") {
                    return Ok(());
                }
            }
        };
        send("qmp_capabilities")?;
        send(command)
    }
}

/// QEMU makes the socket before it starts the machine, but perhaps not yet.
fn connect(path: &Path) -> Result<UnixStream> {
    let start = Instant::now();
    loop {
        match UnixStream::connect(path) {
            Ok(stream) => return Ok(stream),
            Err(error) if start.elapsed() > PATIENCE => return Err(error).context("connecting to QEMU's monitor"),
            Err(_) => std::thread::yield_now(),
        }
    }
}
