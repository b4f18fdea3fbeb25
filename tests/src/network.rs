//! Network namespaces with a tap: a wire between a test and its guest that nothing else can see.

use std::net::Ipv4Addr;
use std::os::fd::{AsFd, OwnedFd};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, bail};
use fogbow_tender::net::{self, Frames};
use fogbow_tender::options::NetSource;
use rustix::fs::{Mode, OFlags};
use rustix::thread::LinkNameSpaceType;

use crate::Skip;

/// The host's address on the tap.
pub const HOST: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 1);

/// The guest's address.
pub const GUEST: Ipv4Addr = Ipv4Addr::new(10, 0, 0, 2);

/// The tap's name in every namespace.
pub const TAP: &str = "tap0";

/// A network namespace that holds one tap, [`TAP`], with the address [`HOST`]/24. Deleted when dropped.
#[derive(Debug)]
pub struct Namespace {
    name: String,
}

impl Namespace {
    /// Makes a namespace with a tap.
    ///
    /// # Errors
    /// [`Skip`] without the rights to make one, and what `ip` says otherwise.
    pub fn new() -> Result<Self> {
        Self::with_mtu(1500)
    }

    /// Makes a namespace with a tap that carries `mtu` bytes in a frame.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn with_mtu(mtu: u32) -> Result<Self> {
        let namespace = Self::empty()?;
        namespace.add_tap(TAP)?;
        namespace.ip(&["addr", "add", &format!("{HOST}/24"), "dev", TAP])?;
        namespace.ip(&["link", "set", TAP, "up", "mtu", &mtu.to_string()])?;
        Ok(namespace)
    }

    /// A namespace with taps that a bridge joins, none of which has an address.
    ///
    /// # Errors
    /// As [`new`](Self::new).
    pub fn bridged(taps: &[&str], bridge: &str) -> Result<Self> {
        let namespace = Self::empty()?;
        namespace.ip(&["link", "add", bridge, "type", "bridge"])?;
        namespace.ip(&["link", "set", bridge, "up"])?;
        for tap in taps {
            namespace.ip(&["tuntap", "add", tap, "mode", "tap"])?;
            namespace.ip(&["link", "set", tap, "up", "master", bridge])?;
        }
        Ok(namespace)
    }

    /// A namespace without a tap, for one end of a [`Pair`].
    fn empty() -> Result<Self> {
        static SERIAL: AtomicU32 = AtomicU32::new(0);
        if !rustix::process::geteuid().is_root() {
            bail!(Skip("making a network namespace needs root".into()));
        }
        let name = format!("fogbow-{}-{}", std::process::id(), SERIAL.fetch_add(1, Ordering::Relaxed));
        ip(&["netns", "add", &name])?;
        let namespace = Self { name };
        namespace.ip(&["link", "set", "lo", "up"])?;
        Ok(namespace)
    }

    /// Adds a tap, without an address of the host's.
    ///
    /// # Errors
    /// What `ip` says.
    pub fn add_tap(&self, name: &str) -> Result<()> {
        self.ip(&["tuntap", "add", name, "mode", "tap"])?;
        self.ip(&["link", "set", name, "up"])
    }

    /// A command that will run in the namespace.
    #[must_use]
    pub fn command(&self, program: &str) -> Command {
        let mut command = Command::new("ip");
        command.args(["netns", "exec", &self.name, program]);
        command
    }

    /// Runs `client` on a thread of its own that sees the namespace's network, and gives what it gives.
    ///
    /// # Errors
    /// When the namespace cannot be entered, and what `client` says.
    pub fn run<R: Send>(&self, client: impl FnOnce() -> Result<R> + Send) -> Result<R> {
        let path = format!("/run/netns/{}", self.name);
        std::thread::scope(|scope| {
            let thread = scope.spawn(|| {
                let file = rustix::fs::open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).context("opening the namespace")?;
                rustix::thread::move_into_link_name_space(file.as_fd(), Some(LinkNameSpaceType::Network))
                    .context("entering the namespace")?;
                client()
            });
            thread.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic))
        })
    }

    /// Opens a tap of the namespace, as a tender does: each read takes a plain frame, each write gives one, and neither waits.
    ///
    /// # Errors
    /// When there is no such tap, or another process has it.
    pub fn open(&self, tap: &str) -> Result<OwnedFd> {
        self.run(|| Ok(net::open(&NetSource::Tap(tap.into()), Frames::Plain)?.descriptor))
    }

    /// Tells the namespace where the neighbour with this address is, so that nobody has to ask.
    ///
    /// # Errors
    /// What `ip` says.
    pub fn add_neighbour(&self, address: Ipv4Addr, hardware: &str) -> Result<()> {
        self.ip(&["neigh", "replace", &address.to_string(), "lladdr", hardware, "dev", TAP])
    }

    /// How many frames the tap has carried so far, both ways together. To be called on a thread of [`run`](Self::run).
    ///
    /// # Errors
    /// When the host's statistics cannot be read.
    pub fn frames(&self) -> Result<u64> {
        // `/proc/net` is the namespace's of the thread that reads (proc(5)).
        let text = std::fs::read_to_string("/proc/thread-self/net/dev").context("reading /proc/thread-self/net/dev")?;
        let line = text.lines().find_map(|line| line.trim().strip_prefix(TAP)?.strip_prefix(':')).context("the tap has no statistics")?;
        let numbers: Vec<u64> = line.split_whitespace().filter_map(|number| number.parse().ok()).collect();
        // Packets received are the second column, packets sent the tenth.
        numbers.get(1).zip(numbers.get(9)).map(|(received, sent)| received + sent).context("an unknown format of /proc/net/dev")
    }

    pub(crate) fn ip(&self, arguments: &[&str]) -> Result<()> {
        ip(&[&["-n", &self.name], arguments].concat())
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        // Nothing to be done about a namespace that does not go; the test's verdict stands.
        let _ = ip(&["netns", "delete", &self.name]);
    }
}

/// Two namespaces joined by a pair of virtual Ethernet interfaces: a client's and a server's.
#[derive(Debug)]
pub struct Pair {
    client: Namespace,
    server: Namespace,
}

impl Pair {
    /// Makes a pair.
    ///
    /// # Errors
    /// As [`Namespace::new`].
    pub fn new() -> Result<Self> {
        let pair = Self { client: Namespace::empty()?, server: Namespace::empty()? };
        pair.client.ip(&["link", "add", "veth0", "type", "veth", "peer", "name", "veth0", "netns", &pair.server.name])?;
        for (namespace, address) in [(&pair.client, HOST), (&pair.server, GUEST)] {
            namespace.ip(&["addr", "add", &format!("{address}/24"), "dev", "veth0"])?;
            namespace.ip(&["link", "set", "veth0", "up"])?;
        }
        Ok(pair)
    }

    /// Has both ends cut what they send to the MTU themselves.
    ///
    /// # Errors
    /// What `ethtool` says; [`Skip`] when it is not installed.
    pub fn switch_offload_off(&self) -> Result<()> {
        for namespace in [&self.client, &self.server] {
            let mut command = namespace.command("ethtool");
            let output = command.args(["-K", "veth0", "tso", "off", "gso", "off"]).output()?;
            if !output.status.success() {
                bail!(Skip(format!("ethtool -K: {} (apt-get install ethtool)", String::from_utf8_lossy(&output.stderr).trim())));
            }
        }
        Ok(())
    }

    /// Where the client runs.
    #[must_use]
    pub const fn client(&self) -> &Namespace {
        &self.client
    }

    /// Where the server runs.
    #[must_use]
    pub const fn server(&self) -> &Namespace {
        &self.server
    }

    /// The server's address, seen from the client.
    #[must_use]
    pub const fn server_address(&self) -> Ipv4Addr {
        GUEST
    }
}

fn ip(arguments: &[&str]) -> Result<()> {
    let output = Command::new("ip").args(arguments).output().context("running `ip` (package iproute2)")?;
    if !output.status.success() {
        bail!("ip {}: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(())
}
