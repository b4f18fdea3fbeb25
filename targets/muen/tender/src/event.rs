//! The event at the end. Muen takes it as a `vmcall`, which the emulated processor does not have: the instruction is replaced, in the image's code in memory,
//! by one as long that writes the event's number, which the subject has in RAX, to a port at which QEMU ends with it.
//!
//! Limit: the instruction is found by its bytes. Where they are there more than once, one may be part of something else, and the subject has no event.

use std::process::ExitStatus;

use fogbow_tender::elf::Layout;

use crate::memory::Memory;

/// The number of the subject's event: any that a policy's tools could choose.
pub(crate) const NUMBER: u8 = 5;

/// The port of QEMU's device `isa-debug-exit`.
pub(crate) const PORT: u8 = 0xf4;

/// VMCALL (Intel SDM volume 3C, chapter 31).
const VMCALL: [u8; 3] = [0x0f, 0x01, 0xc1];

/// OUT from AL to the port, and NOP (Intel SDM volume 2B).
const OUT: [u8; 3] = [0xe6, PORT, 0x90];

/// Makes the image's event one that the emulated processor can raise. False when the image has none.
pub(crate) fn prepare(memory: &mut Memory, layout: &Layout) -> bool {
    let mut places = Vec::new();
    for segment in layout.segments.iter().filter(|segment| segment.protection.execute) {
        let start = segment.contents.start;
        if let Some(code) = memory.bytes(start, segment.contents.end - start) {
            places.extend(places_in(code).map(|place| start + place as u64));
        }
    }
    let [place] = places[..] else { return false };
    if let Some(instruction) = memory.bytes(place, OUT.len() as u64) {
        instruction.copy_from_slice(&OUT);
    }
    true
}

fn places_in(code: &[u8]) -> impl Iterator<Item = usize> {
    code.windows(VMCALL.len()).enumerate().filter(|(_, bytes)| *bytes == VMCALL).map(|(place, _)| place)
}

/// Whether QEMU ended because the event was raised: its device turns the value into an odd status.
pub(crate) fn was_raised(status: ExitStatus) -> bool {
    status.code() == Some(i32::from(NUMBER) << 1 | 1)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::process::ExitStatusExt as _;

    #[test]
    fn the_instruction_is_found_by_its_bytes() {
        let places = |code: &[u8]| places_in(code).collect::<Vec<_>>();
        assert_eq!(places(&[0x90, 0x0f, 0x01, 0xc1, 0x0f, 0x01, 0xc1]), [1, 4]);
        assert_eq!(places(&[0x0f, 0x01, 0xd9, 0x0f, 0x01]), [0; 0]);
    }

    #[test]
    fn only_its_own_number_is_the_event() {
        let ended = |code: i32| was_raised(ExitStatus::from_raw(code << 8));
        assert!(ended(11));
        assert!(!ended(0) && !ended(1) && !ended(13));
        assert!(!was_raised(ExitStatus::from_raw(11)), "ended by a signal");
    }
}
