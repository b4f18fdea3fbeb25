//! The console: the debug log, if the subject has one.

use fogbow_muen_interface::channel::{Region, Writer};
use fogbow_muen_interface::debuglog::{ELEMENT_SIZE, Message, NAME, PROTOCOL};
use fogbow_muen_interface::sinfo::{MemoryRegion, Sinfo};
use fogbow_muen_interface::{boot, sinfo};
use spin::Mutex;

use crate::platform::turn;

/// The debug log and the message that is being written.
struct Console {
    region: Region<'static>,
    writer: Writer,
    message: Message,
}

/// Contended only when a fault interrupted a write: see [`take_over`].
static CONSOLE: Mutex<Option<Console>> = Mutex::new(None);

/// Bytes of the debug log that `begin_anyhow` takes to be there: a page.
const LEAST_SIZE: u64 = 4096;

/// Begins the console, where Muen says that there is one.
pub(crate) fn begin(sinfo: &Sinfo<'_>) {
    if let Some(region) = sinfo.memory(NAME).filter(|region| region.is_writable) {
        begin_at(&region);
    }
}

/// Begins the console where Muen's own library puts it, for an image that cannot find out. If it is not there, the image ends with a fault.
pub(crate) fn begin_anyhow() {
    let address = boot::DEBUGLOG;
    begin_at(&MemoryRegion { kind: sinfo::kind::CHANNEL, is_writable: true, is_executable: false, address, size: LEAST_SIZE });
}

fn begin_at(region: &MemoryRegion) {
    // SAFETY: Muen maps this memory, writable, and for nothing else; all accesses of this image to it go through the region.
    let Some(region) = (unsafe { Region::new(region.address, region.size) }) else { return };
    if let Ok(writer) = Writer::new(&region, PROTOCOL, ELEMENT_SIZE, turn().start)
        && let Some(mut console) = CONSOLE.try_lock()
    {
        *console = Some(Console { region, writer, message: Message::EMPTY });
    }
}

/// Writes `bytes`: a message goes out when its line ends or when it is full.
pub(crate) fn write(bytes: &[u8]) {
    if let Some(console) = CONSOLE.try_lock().as_deref_mut().and_then(Option::as_mut) {
        for &byte in bytes {
            let message = console.message.push(byte);
            console.put(message);
        }
    }
}

/// Ends a line that has begun.
pub(crate) fn end_line() {
    let has_begun = CONSOLE.try_lock().as_deref().and_then(Option::as_ref).is_some_and(|console| console.message != Message::EMPTY);
    if has_begun {
        write(b"\n");
    }
}

/// Takes the console from code that was interrupted for good, by a fault.
pub(crate) fn take_over() {
    if CONSOLE.is_locked() {
        // SAFETY: whoever holds the lock never runs again; what it wrote is words, each whole, and at worst a message is lost.
        unsafe { CONSOLE.force_unlock() };
    }
}

impl Console {
    fn put(&mut self, message: Option<Message>) {
        if let Some(message) = message {
            self.writer.write(&self.region, |element| message.emit(turn().start, element));
        }
    }
}
