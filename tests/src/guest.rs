//! A running image: its console, and how it ended.

use std::fs::File;
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt as _;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow, bail};
use rustix::fs::OFlags;
use rustix::process::{Pid, Signal};
use rustix::pty::{OpenptFlags, openpt, ptsname, unlockpt};

/// How long anything that a guest should do may take before it counts as not happening. Generous: machines are shared, and some emulate.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A process that runs an image; killed when dropped.
#[derive(Debug)]
pub struct Guest {
    child: Child,
    console: Arc<Console>,
    /// The process is QEMU, which makes a status of its own of the image's.
    is_qemu: bool,
    /// The image's last words are on its console: a subject of Muen has no other place for its status.
    has_last_words: bool,
}

/// What a guest has printed, on standard output and standard error together.
#[derive(Debug, Default)]
struct Console {
    state: Mutex<ConsoleState>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct ConsoleState {
    text: String,
    open: u32,
}

/// How a guest ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ended {
    /// The exit status; `None` when a signal ended the process.
    pub status: Option<i32>,
    /// All that it printed.
    pub console: String,
}

/// What the standard output of a guest's process is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Output {
    /// A pipe, whose other end is the console.
    #[default]
    Pipe,
    /// A pipe that nobody reads.
    Unread,
    /// A terminal, which is the console.
    Terminal,
}

/// Both ends of a terminal: what is written to the second can be read from the first, until all who have the second open have closed it.
fn pseudo_terminal() -> Result<(File, File)> {
    let ours = openpt(OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC).context("opening a pseudo-terminal")?;
    unlockpt(&ours)?;
    let path = ptsname(&ours, Vec::new())?;
    let theirs = File::options().read(true).write(true).custom_flags(OFlags::NOCTTY.bits().cast_signed()).open(path.to_str()?)?;
    Ok((ours.into(), theirs))
}

impl Guest {
    /// Starts `command`.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(command: Command) -> Result<Self> {
        Self::start_with(command, Output::Pipe)
    }

    /// Starts `command` with this as its standard output.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_with(mut command: Command, output: Output) -> Result<Self> {
        let mut terminal = None;
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        if output == Output::Terminal {
            let (ours, theirs) = pseudo_terminal()?;
            command.stdout(theirs);
            terminal = Some(ours);
        }
        let mut child = command.spawn().with_context(|| format!("starting {command:?}"))?;
        let errors = child.stderr.take().map(|stream| Box::new(stream) as _);
        let read = match (output, terminal) {
            (Output::Unread, _) => None,
            (_, Some(terminal)) => Some(Box::new(terminal) as _),
            (_, None) => child.stdout.take().map(|stream| Box::new(stream) as _),
        };
        let guest = Self { child, console: Arc::new(Console::default()), is_qemu: false, has_last_words: false };
        guest.follow(errors);
        guest.follow(read);
        Ok(guest)
    }

    /// Adds what comes through `stream` to the console.
    fn follow(&self, stream: Option<Box<dyn Read + Send>>) {
        if let Some(stream) = stream {
            let console = Arc::clone(&self.console);
            console.lock().open += 1;
            std::thread::spawn(move || console.follow(stream));
        }
    }

    /// As [`start`](Self::start), for a `command` that is QEMU with `isa-debug-exit`.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_in_qemu(command: Command) -> Result<Self> {
        let mut guest = Self::start(command)?;
        guest.is_qemu = true;
        Ok(guest)
    }

    /// As [`start`](Self::start), for a `command` that plays Muen.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_on_muen(command: Command) -> Result<Self> {
        let mut guest = Self::start(command)?;
        guest.has_last_words = true;
        Ok(guest)
    }

    /// Waits until the console shows `text`.
    ///
    /// # Errors
    /// When the guest ends first, or within [`PATIENCE`] does not print it; the message has the console.
    pub fn wait_for(&self, text: &str) -> Result<()> {
        self.wait_for_within(text, PATIENCE)
    }

    /// Waits until the console shows `text`, for as long as `patience`.
    ///
    /// # Errors
    /// When the guest ends first, or does not print it in time; the message has the console.
    pub fn wait_for_within(&self, text: &str, patience: Duration) -> Result<()> {
        let state = self.console.wait(patience, |state| state.text.contains(text) || state.open == 0)?;
        if !state.contains(text) {
            bail!("the guest ended without printing {text:?}; its console:\n{state}");
        }
        Ok(())
    }

    /// Waits until the guest has ended.
    ///
    /// # Errors
    /// When it has not within [`PATIENCE`].
    pub fn ended(mut self) -> Result<Ended> {
        let console = self.console.wait(PATIENCE, |state| state.open == 0)?;
        let status = self.child.wait()?.code();
        // `2 * status + 1`, modulo 256; 255 is told from 127 by custom, and QEMU's own failures are 1.
        let status = status.map(|code| if self.is_qemu && code % 2 == 1 && !matches!(code, 1 | 255) { code / 2 } else { code });
        let last_words = format!("Solo5: solo5_exit({}) called\nSolo5: Halted\n", status.unwrap_or_default());
        let console = match console.strip_suffix(&last_words) {
            Some(before) if self.has_last_words => before.to_owned(),
            _ => console,
        };
        Ok(Ended { status, console })
    }

    /// The process, for looking at it under /proc.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends the interrupt signal, as Ctrl-C does.
    ///
    /// # Errors
    /// When the process is gone.
    pub fn interrupt(&self) -> Result<()> {
        let pid = Pid::from_raw(self.child.id().cast_signed()).context("the guest has no process")?;
        rustix::process::kill_process(pid, Signal::INT).context("interrupting the guest")
    }

    /// What the guest has printed so far.
    #[must_use]
    pub fn console(&self) -> String {
        self.console.lock().text.clone()
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Console {
    fn lock(&self) -> std::sync::MutexGuard<'_, ConsoleState> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    fn follow(&self, mut stream: impl Read) {
        let mut buffer = [0; 4096];
        while let Ok(length @ 1..) = stream.read(&mut buffer) {
            self.lock().text.push_str(&String::from_utf8_lossy(&buffer[..length]));
            self.changed.notify_all();
        }
        self.lock().open -= 1;
        self.changed.notify_all();
    }

    fn wait(&self, patience: Duration, mut until: impl FnMut(&ConsoleState) -> bool) -> Result<String> {
        let deadline = Instant::now() + patience;
        let mut state = self.lock();
        while !until(&state) {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(anyhow!("waited {patience:?} for the guest in vain; its console:\n{}", state.text));
            }
            state = self.changed.wait_timeout(state, left).unwrap_or_else(std::sync::PoisonError::into_inner).0;
        }
        Ok(state.text.clone())
    }
}
