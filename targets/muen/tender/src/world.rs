//! All that is not the subject: turns of the schedule, the reader of the debug log, and a network behind each pair of channels.
//!
//! One thread plays them all: it looks at everything, and sleeps for a part of a turn when nothing happens, but for what the host's networks have.

use std::io::{self, Write as _};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use fogbow_muen_interface::boot::{EXIT_EVENT, HALTED, SCHEDULING_INFO, TIME_INFO};
use fogbow_muen_interface::channel::{Reader, Received, Region};
use fogbow_muen_interface::debuglog::{self, Message};
use fogbow_muen_interface::muennet::{FRAME_SIZE, Frame, FrameReader, FrameWriter, IN, OUT};
use fogbow_muen_interface::time::{SharedSchedulingInfo, SharedTimeInfo, TimeInfo, Turn};
use fogbow_tender::attach::Attached;
use fogbow_tender::options::ABORT_STATUS;
use rustix::event::{PollFd, PollFlags, Timespec};

use crate::PROGRAM;
use crate::event;
use crate::machine::Machine;
use crate::memory::Memory;
use crate::subject::Plan;

/// Ticks of the played time stamp counter in a millisecond: two in a nanosecond.
pub(crate) const TSC_KHZ: u32 = 2_000_000;
/// Where the counter stands when the subject starts: a second after it began, so that no epoch is 0.
const TSC_START: u64 = TSC_KHZ as u64 * 1000;
/// How long a turn is said to last, in ticks: half a millisecond, a minor frame of Muen's demonstration systems.
const TURN: u64 = TSC_KHZ as u64 / 2;
/// How long to sleep when nothing happens.
const NAP: Timespec = Timespec { tv_sec: 0, tv_nsec: 200_000 };
/// How long nothing has to happen before that.
const RESTLESS: Duration = Duration::from_micros(50);
/// Frames and messages that are moved in one go before the rest gets a look.
const BATCH: usize = 64;
/// How long between two looks at whether QEMU still runs.
const MACHINE_INTERVAL: Duration = Duration::from_millis(100);
/// How long the event at the end may take after the last words, and how often it is looked for.
const EVENT_PATIENCE: Duration = Duration::from_secs(5);
const EVENT_INTERVAL: Duration = Duration::from_millis(1);

/// The schedule's clock.
#[derive(Debug)]
struct Schedule {
    shared: &'static SharedSchedulingInfo,
    start: Instant,
}

impl Schedule {
    /// Begins another turn of the subject, now.
    fn turn(&self) -> u64 {
        let nanos = u64::try_from(self.start.elapsed().as_nanos()).unwrap_or(u64::MAX);
        let now = TSC_START.saturating_add(nanos.saturating_mul(u64::from(TSC_KHZ) / 1_000_000));
        self.shared.write(Turn { start: now, end: now.saturating_add(TURN) });
        now
    }
}

/// The reader of the debug log.
#[derive(Debug)]
struct Log {
    region: Region<'static>,
    reader: Reader,
    line: Vec<u8>,
    status: u8,
    has_halted: bool,
}

impl Log {
    fn new(region: Region<'static>) -> Self {
        let reader = Reader::new(debuglog::PROTOCOL, debuglog::ELEMENT_SIZE);
        Self { region, reader, line: Vec::new(), status: 0, has_halted: false }
    }

    /// Prints what the subject has written. True when there was something.
    fn drain(&mut self) -> bool {
        let mut text = Vec::new();
        for _ in 0..BATCH {
            match self.reader.read(&self.region, Message::read) {
                Received::Element(message) => text.extend_from_slice(message.text()),
                Received::Overrun => text.extend_from_slice(b"(messages of the debug log are lost)\n"),
                Received::Nothing | Received::Inactive => break,
            }
        }
        if text.is_empty() {
            return false;
        }
        // Nobody may be there to read it.
        let _ = io::stdout().write_all(&text).and_then(|()| io::stdout().flush());
        for byte in text {
            if byte == b'\n' {
                self.understand();
                self.line.clear();
            } else if self.line.len() <= debuglog::CHARACTERS {
                self.line.push(byte);
            }
        }
        true
    }

    /// Finds how the subject ended in a line of it, if it says so.
    fn understand(&mut self) {
        let line = String::from_utf8_lossy(&self.line);
        if line == HALTED {
            self.has_halted = true;
        } else if line == "Solo5: solo5_abort() called" || line.starts_with("Solo5: ABORT:") {
            self.status = ABORT_STATUS as u8;
        } else if let Some(status) = line.strip_prefix("Solo5: solo5_exit(").and_then(|rest| rest.strip_suffix(") called")) {
            // What is left of a status when a process ends with it.
            self.status = status.parse::<i32>().map_or(ABORT_STATUS as u8, |status| status as u8);
        }
    }
}

/// A network behind a pair of channels.
#[derive(Debug)]
struct Wire {
    descriptor: OwnedFd,
    from_subject: Region<'static>,
    reader: FrameReader,
    to_subject: Region<'static>,
    writer: FrameWriter,
    frame: Box<Frame>,
    is_open: bool,
}

impl Wire {
    /// Moves frames in both directions. True when there was one.
    fn bridge(&mut self) -> bool {
        let mut has_moved = false;
        for _ in 0..BATCH {
            let Some(frame) = self.reader.receive(&self.from_subject, &mut self.frame) else { break };
            // A frame that the host does not take is lost, as on a wire.
            let _ = rustix::io::write(&self.descriptor, frame);
            has_moved = true;
        }
        // One byte more than a frame has, to see what is too long for one.
        let mut frame = [0; FRAME_SIZE + 1];
        for _ in 0..BATCH {
            match rustix::io::read(&self.descriptor, &mut frame) {
                Ok(0) => {
                    if std::mem::replace(&mut self.is_open, false) {
                        eprintln!("{}: a network of the image is gone: what was behind it on the host has ended", PROGRAM.name);
                    }
                    break;
                }
                Ok(length) if length <= FRAME_SIZE => self.writer.send(&self.to_subject, &frame[..length]),
                Ok(_) => {}
                // Nothing waits.
                Err(_) => break,
            }
            has_moved = true;
        }
        has_moved
    }
}

/// All that is not the subject.
#[derive(Debug)]
pub(crate) struct World {
    schedule: Schedule,
    log: Log,
    wires: Vec<Wire>,
}

impl World {
    /// Begins the first turn, publishes the time of day and begins the channels into the subject.
    pub(crate) fn new(plan: &Plan, memory: &Memory, devices: Vec<Attached>) -> io::Result<Self> {
        let missing = |what: &str| io::Error::other(format!("the subject has no {what}"));
        // SAFETY: both are made of atomic integers.
        let (scheduling, time) = unsafe { (memory.shared(SCHEDULING_INFO), memory.shared::<SharedTimeInfo>(TIME_INFO)) };
        let schedule = Schedule { shared: scheduling.ok_or_else(|| missing("scheduling information"))?, start: Instant::now() };
        let epoch = schedule.turn();
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let base = since_1970.saturating_sub(Duration::from_nanos(epoch / (u64::from(TSC_KHZ) / 1_000_000)));
        let base = u64::try_from(base.as_micros()).unwrap_or(u64::MAX);
        time.ok_or_else(|| missing("time of day"))?.write(TimeInfo { base, frequency: u64::from(TSC_KHZ) * 1000 });
        let channel = |name: &str| memory.channel(name).ok_or_else(|| missing(name));
        let log = Log::new(channel(debuglog::NAME)?);
        let wires = plan.networks.iter().zip(devices).map(|(name, device)| {
            let to_subject = channel(&format!("{name}{IN}"))?;
            Ok(Wire {
                descriptor: device.descriptor,
                from_subject: channel(&format!("{name}{OUT}"))?,
                reader: FrameReader::new(),
                to_subject,
                writer: FrameWriter::new(&to_subject, epoch).map_err(io::Error::other)?,
                frame: Box::new(Frame::new()),
                is_open: true,
            })
        });
        Ok(Self { schedule, log, wires: wires.collect::<io::Result<_>>()? })
    }

    /// Plays until the subject has ended, and gives its status.
    pub(crate) fn run(mut self, mut machine: Machine, has_event: bool) -> u8 {
        let (mut busy, mut looked) = (Instant::now(), Instant::now());
        loop {
            self.schedule.turn();
            let mut has_moved = self.log.drain();
            for wire in &mut self.wires {
                has_moved |= wire.bridge();
            }
            if self.log.has_halted {
                return if !has_event || event_comes(&mut machine) { self.log.status } else { ABORT_STATUS as u8 };
            }
            if has_moved {
                busy = Instant::now();
            } else if busy.elapsed() < RESTLESS {
                std::thread::yield_now();
            } else {
                self.nap();
            }
            // However busy the networks are.
            if looked.elapsed() >= MACHINE_INTERVAL {
                looked = Instant::now();
                if let Some(status) = machine.ended() {
                    while self.log.drain() {}
                    // Its last words may have come since the log was looked at.
                    if self.log.has_halted {
                        continue;
                    }
                    eprintln!(
                        "{}: the machine ended before the image did ({status}): its processor shut down, by three faults at once",
                        PROGRAM.name
                    );
                    return ABORT_STATUS as u8;
                }
            }
        }
    }

    /// Sleeps until a network has something, a part of a turn at most.
    fn nap(&self) {
        let open = self.wires.iter().filter(|wire| wire.is_open);
        let mut networks: Vec<PollFd<'_>> = open.map(|wire| PollFd::new(&wire.descriptor, PollFlags::IN)).collect();
        // A sleep that is cut short is none the worse.
        let _ = rustix::event::poll(&mut networks, Some(&NAP));
    }
}

/// Waits for the event of a subject that has said its last words. False, and a message, when it does not come.
fn event_comes(machine: &mut Machine) -> bool {
    let last_words = Instant::now();
    let ended = loop {
        let ended = machine.ended();
        if ended.is_some() || last_words.elapsed() > EVENT_PATIENCE {
            break ended;
        }
        std::thread::sleep(EVENT_INTERVAL);
    };
    let is_raised = ended.is_some_and(event::was_raised);
    if !is_raised {
        eprintln!("{}: the image halted without its event '{EXIT_EVENT}'", PROGRAM.name);
    }
    is_raised
}

#[cfg(test)]
mod tests {
    use super::*;

    fn log(lines: &str) -> (u8, bool) {
        let memory = [0_u64; 16];
        // SAFETY: nothing is read or written: only lines are understood.
        let region = unsafe { Region::new(memory.as_ptr().expose_provenance() as u64, 128) }.unwrap();
        let mut log = Log::new(region);
        for line in lines.lines() {
            log.line = line.as_bytes().to_vec();
            log.understand();
        }
        (log.status, log.has_halted)
    }

    #[test]
    fn last_words_are_understood() {
        assert_eq!(log("Solo5: solo5_exit(64) called\nSolo5: Halted"), (64, true));
        assert_eq!(log("Solo5: solo5_exit(-1) called"), (255, false));
        assert_eq!(log("Solo5: solo5_exit(many) called"), (255, false));
        assert_eq!(log("Solo5: solo5_abort() called\nSolo5: Halted"), (255, true));
        assert_eq!(log("Solo5: ABORT: cpu_x86_64.c:182: Fatal trap\nSolo5: Halted"), (255, true));
        assert_eq!(log("Solo5: Halted"), (0, true));
        assert_eq!(log("it says: Solo5: Halted"), (0, false));
    }
}
