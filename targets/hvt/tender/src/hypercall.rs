//! The hypercalls: what a guest asks for by writing the address of a structure to an I/O port (`hvt_abi.h` of Solo5 0.12.1).
//!
//! A structure is copied in once, checked, acted on, and its results copied out, so that a guest that changes it meanwhile changes
//! nothing. A pointer that is not the guest's ends the run with an error; a bad handle, offset or size is told to the guest.

use std::io;
use std::os::fd::BorrowedFd;
use std::time::{SystemTime, UNIX_EPOCH};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

use crate::devices::{Devices, NetError};
use crate::memory::{GuestMemory, PointerError};
use crate::ring::{Frames, Status};

/// The I/O port of hypercall 0 (`HVT_HYPERCALL_PIO_BASE`).
pub(crate) const PORT_BASE: u16 = 0x500;

// `enum hvt_hypercall`.
const WALLTIME: u16 = 1;
const PUTS: u16 = 2;
const POLL: u16 = 3;
const BLOCK_WRITE: u16 = 4;
const BLOCK_READ: u16 = 5;
const NET_WRITE: u16 = 6;
const NET_READ: u16 = 7;
const HALT: u16 = 8;
/// Fogbow's own, offered in the manifest: makes what was written to a block device durable. Far from Solo5's numbers.
const BLOCK_FLUSH: u16 = 64;
/// Fogbow's own, offered in the manifest: as `PUTS`, but takes what the console has room for.
const CONSOLE_OFFER: u16 = 65;

/// `HVT_HALT_COOKIE_MAX`.
const HALT_COOKIE_SIZE: u64 = 512;
const NANOSECONDS: u64 = 1_000_000_000;

/// What to do after a hypercall.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// Run the guest on.
    Resume,
    /// The guest has ended with this status.
    Halt(i32),
}

/// Why a hypercall ends the run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum HypercallError {
    /// The structure, or what it points to, is not the guest's.
    #[error("hypercall {number} got a bad pointer: {source}")]
    Pointer {
        /// The hypercall.
        number: u16,
        /// What is wrong with the pointer.
        source: PointerError,
    },
    /// There is no such hypercall.
    #[error("there is no hypercall {0}: was the image built for a newer tender?")]
    Unknown(u16),
    /// The console cannot be written.
    #[error("cannot write to standard output: {0}")]
    Console(io::Error),
    /// The host cannot wait.
    #[error("the host cannot wait for network devices: {0}")]
    Poll(io::Error),
    /// A network device failed.
    #[error(transparent)]
    Net(#[from] NetError),
}

/// Serves hypercalls for one guest.
#[derive(Debug)]
pub(crate) struct Hypercalls<'a> {
    memory: &'a GuestMemory,
    devices: &'a Devices,
    console: BorrowedFd<'a>,
    /// The network devices in the order of `handles`, ready to be waited for.
    waiting: Vec<PollFd<'a>>,
    handles: Vec<(u64, &'a str)>,
}

impl<'a> Hypercalls<'a> {
    /// Serves a guest with this memory and these devices, and writes what it prints to `console`.
    pub(crate) fn new(memory: &'a GuestMemory, devices: &'a Devices, console: BorrowedFd<'a>) -> Self {
        let waiting = devices.networks().map(|(_, _, net)| PollFd::from_borrowed_fd(net, PollFlags::IN)).collect();
        let handles = devices.networks().map(|(handle, name, _)| (handle, name)).collect();
        Self { memory, devices, console, waiting, handles }
    }

    /// Serves the hypercall of this number with the structure at a guest address.
    ///
    /// # Errors
    /// [`HypercallError`]: the run is over.
    pub(crate) fn serve(&mut self, number: u16, address: u64) -> Result<Next, HypercallError> {
        let outcome = match number {
            WALLTIME => self.walltime(address).map(|()| Next::Resume),
            PUTS => self.puts(address).map(|()| Next::Resume),
            POLL => self.poll(address).map(|()| Next::Resume),
            BLOCK_WRITE => self.block_write(address).map(|()| Next::Resume),
            BLOCK_READ => self.block_read(address).map(|()| Next::Resume),
            NET_WRITE => self.net_write(address).map(|()| Next::Resume),
            NET_READ => self.net_read(address).map(|()| Next::Resume),
            HALT => self.halt(address).map(Next::Halt),
            BLOCK_FLUSH => self.block_flush(address).map(|()| Next::Resume),
            CONSOLE_OFFER => self.console_offer(address).map(|()| Next::Resume),
            _ => return Err(HypercallError::Unknown(number)),
        };
        outcome.map_err(|fault| match fault {
            Fault::Pointer(source) => HypercallError::Pointer { number, source },
            Fault::Host(error) => error,
        })
    }

    /// `struct hvt_hc_walltime`: nsecs.
    fn walltime(&self, address: u64) -> Result<(), Fault> {
        // A host whose clock stands before 1970 has no wall clock worth the name. 64 bits of nanoseconds last until 2554.
        let nanoseconds = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |now| now.as_nanos() as u64);
        Ok(self.memory.store(address, &nanoseconds.to_le_bytes())?)
    }

    /// `struct hvt_hc_puts`: data, len.
    fn puts(&self, address: u64) -> Result<(), Fault> {
        let [data, length] = self.words(address)?;
        let mut text = self.memory.source(data, length)?;
        while text.len() > 0 {
            match text.write(self.console) {
                Ok(written) => text = text.skip(written),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    // Standard output may be shared with a program that made it non-blocking. An interrupted wait is begun again.
                    let _ = poll(&mut [PollFd::from_borrowed_fd(self.console, PollFlags::OUT)], None);
                }
                Err(error) => return Err(HypercallError::Console(error).into()),
            }
        }
        Ok(())
    }

    /// Data, len; how many bytes were taken.
    fn console_offer(&self, address: u64) -> Result<(), Fault> {
        let [data, length] = self.words(address)?;
        let text = self.memory.source(data, length)?;
        let taken = match text.write(self.console) {
            Ok(written) => written,
            Err(error) if matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock) => 0,
            Err(error) => return Err(HypercallError::Console(error).into()),
        };
        Ok(self.memory.store(address + 16, &(taken as u64).to_le_bytes())?)
    }

    /// `struct hvt_hc_poll`: timeout_nsecs; ready_set, ret.
    fn poll(&mut self, address: u64) -> Result<(), Fault> {
        let [nanoseconds] = self.words(address)?;
        let timeout = Timespec { tv_sec: (nanoseconds / NANOSECONDS) as i64, tv_nsec: (nanoseconds % NANOSECONDS) as i64 };
        match poll(&mut self.waiting, Some(&timeout)) {
            Ok(_) => {}
            // To wake early is allowed, and only stopping and continuing the tender does this.
            Err(rustix::io::Errno::INTR) => self.waiting.iter_mut().for_each(PollFd::clear_revents),
            Err(error) => return Err(HypercallError::Poll(error.into()).into()),
        }
        let mut ready_set = 0_u64;
        for (net, (handle, name)) in self.waiting.iter().zip(&self.handles) {
            let events = net.revents();
            if events.intersects(PollFlags::HUP | PollFlags::ERR | PollFlags::NVAL) {
                return Err(HypercallError::Net(NetError::Gone((*name).to_owned())).into());
            }
            if events.contains(PollFlags::IN) {
                ready_set |= 1 << handle;
            }
        }
        self.memory.store(address + 8, &ready_set.to_le_bytes())?;
        Ok(self.memory.store(address + 16, &ready_set.count_ones().to_le_bytes())?)
    }

    /// `struct hvt_hc_block_write`: handle, offset, data, len; ret.
    fn block_write(&self, address: u64) -> Result<(), Fault> {
        let [handle, offset, data, length] = self.words(address)?;
        let status = self.devices.block_write(handle, offset, self.memory.source(data, length)?);
        self.answer(address + 32, status)
    }

    /// `struct hvt_hc_block_read`: handle, offset, data, len; ret.
    fn block_read(&self, address: u64) -> Result<(), Fault> {
        let [handle, offset, data, length] = self.words(address)?;
        let status = self.devices.block_read(handle, offset, self.memory.sink(data, length)?);
        self.answer(address + 32, status)
    }

    /// Handle; ret.
    fn block_flush(&self, address: u64) -> Result<(), Fault> {
        let [handle] = self.words(address)?;
        self.answer(address + 8, self.devices.block_flush(handle))
    }

    /// `struct hvt_hc_net_write`: handle, data, len; ret.
    fn net_write(&self, address: u64) -> Result<(), Fault> {
        let [handle, data, length] = self.words(address)?;
        let status = self.devices.send(handle, self.memory.source(data, length)?).map_err(HypercallError::Net)?;
        self.answer(address + 24, status)
    }

    /// `struct hvt_hc_net_read`: handle, data, len (in and out); ret.
    fn net_read(&self, address: u64) -> Result<(), Fault> {
        let [handle, data, length] = self.words(address)?;
        let (status, received) = self.devices.receive(handle, self.memory.sink(data, length)?).map_err(HypercallError::Net)?;
        if status == Status::Ok {
            self.memory.store(address + 16, &u64::from(received).to_le_bytes())?;
        }
        self.answer(address + 24, status)
    }

    /// `struct hvt_hc_halt`: cookie, exit_status. The cookie says where a debugger finds a trap frame; it has to be the guest's.
    fn halt(&self, address: u64) -> Result<i32, Fault> {
        let [cookie, status] = self.words(address)?;
        if cookie != 0 {
            self.memory.source(cookie, HALT_COOKIE_SIZE)?;
        }
        Ok(status as u32 as i32)
    }

    fn answer(&self, address: u64, status: Status) -> Result<(), Fault> {
        Ok(self.memory.store(address, &(status as i32).to_le_bytes())?)
    }

    /// The 64-bit fields that a structure begins with.
    fn words<const N: usize>(&self, address: u64) -> Result<[u64; N], Fault> {
        let mut words = [0; N];
        for (index, word) in (0..).zip(&mut words) {
            *word = u64::from_le_bytes(self.memory.load(address + index * 8)?);
        }
        Ok(words)
    }
}

/// What stops a hypercall, before the hypercall's number is added.
enum Fault {
    Pointer(PointerError),
    Host(HypercallError),
}

impl From<PointerError> for Fault {
    fn from(error: PointerError) -> Self {
        Self::Pointer(error)
    }
}

impl From<HypercallError> for Fault {
    fn from(error: HypercallError) -> Self {
        Self::Host(error)
    }
}

#[cfg(test)]
mod tests;
