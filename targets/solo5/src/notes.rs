//! The ELF notes by which a tender knows an image: "I am for this target, at this version of its ABI" and "I ask for these devices".
//!
//! Values of these types, placed into the sections that `image.ld` names, are the notes: their layout in memory is the layout in the file.
//! [`guest!`](crate::guest) makes them; all of it is evaluated by the compiler. Source: `elf_abi.h` and `mft_abi.h` of Solo5 v0.12.1.

use crate::manifest::{CONSOLE_TAKEN, DeclaredDevice, MAX_ENTRIES, VERSION, raw};

/// The targets of the Solo5 family: `enum abi_target` of `elf_abi.h`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Target {
    /// `HVT_ABI_TARGET`: a virtual machine with hypercalls.
    Hvt = 1,
    /// `SPT_ABI_TARGET`: a sandboxed Linux process.
    Spt = 2,
    /// `VIRTIO_ABI_TARGET`: a virtual machine with virtio devices.
    Virtio = 3,
    /// `MUEN_ABI_TARGET`: a subject on the Muen separation kernel.
    Muen = 4,
    /// `GENODE_ABI_TARGET`: a Genode component.
    Genode = 5,
}

/// `ABI1_NOTE_NAME` and `MFT1_NOTE_NAME`, padded to a multiple of 4 bytes as ELF demands.
const SOLO5: [u8; 8] = *b"Solo5\0\0\0";
/// Bytes of that name that count, its terminator included.
const SOLO5_SIZE: u32 = 6;
/// `ABI1_NOTE_TYPE` of `elf_abi.h`: "ABI1".
const ABI1: u32 = 0x3149_4241;
/// `MFT1_NOTE_TYPE` of `mft_abi.h`: "MFT1".
const MFT1: u32 = 0x3154_464d;

/// The header of an ELF note whose name takes 8 bytes.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
struct NoteHeader {
    name_size: u32,
    descriptor_size: u32,
    kind: u32,
    name: [u8; 8],
}

/// What stands in `.interp`: no host has such a program interpreter, so no host starts an image by mistake (`DECLARE_ELF_INTERP` of
/// `elf_abi.h`).
#[derive(Clone, Copy, Debug)]
#[repr(C, align(8))]
pub struct Interpreter([u8; 24]);

impl Interpreter {
    /// `/nonexistent/solo5/`, padded with zeros.
    pub const SOLO5: Self = Self(*b"/nonexistent/solo5/\0\0\0\0\0");
}

/// The note that keeps OpenBSD from handing an image to a shell: `struct openbsd_note` of `elf_abi.h`. It has to be the first of all notes.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct OpenBsdNote {
    header: NoteHeader,
    data: u32,
}

impl OpenBsdNote {
    /// The one value there is.
    pub const NOTE: Self = Self { header: NoteHeader { name_size: 8, descriptor_size: 4, kind: 1, name: *b"OpenBSD\0" }, data: 0 };
}

/// The note that says which target an image is for: `struct abi1_note` of `elf_abi.h`.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct AbiNote {
    header: NoteHeader,
    target: u32,
    version: u32,
    reserved: [u32; 2],
}

impl AbiNote {
    /// An image for `version` of the ABI of `target`.
    #[must_use]
    pub const fn new(target: Target, version: u32) -> Self {
        Self {
            header: NoteHeader { name_size: SOLO5_SIZE, descriptor_size: 16, kind: ABI1, name: SOLO5 },
            target: target as u32,
            version,
            reserved: [0; 2],
        }
    }
}

/// The note that says which devices an image asks for: `struct mft1_note` of `mft_abi.h`. `ENTRIES` is the number of devices and one more.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct ManifestNote<const ENTRIES: usize> {
    header: NoteHeader,
    /// `struct mft` is aligned to 8 bytes, and these 4 count as part of the note's descriptor.
    padding: u32,
    manifest: raw::Header,
    entries: [raw::Entry; ENTRIES],
}

impl<const ENTRIES: usize> ManifestNote<ENTRIES> {
    /// Asks for `devices`.
    ///
    /// # Panics
    /// At compile time where it is used as [`guest!`](crate::guest) does: when there are more than 63 devices, when two have the same
    /// name, when a name is not 1 to 67 ASCII letters and digits, or when `ENTRIES` is not the number of devices and one more.
    #[must_use]
    pub const fn new(devices: &[DeclaredDevice]) -> Self {
        assert!(ENTRIES == devices.len() + 1, "a manifest has one entry more than devices");
        assert!(ENTRIES <= MAX_ENTRIES, "an image can have at most 63 devices");
        let mut entries = [raw::Entry::RESERVED_FIRST; ENTRIES];
        entries[0].padding[0] = CONSOLE_TAKEN;
        let mut index = 0;
        while index < devices.len() {
            devices[index].check_against(devices, index);
            entries[index + 1] = devices[index].entry();
            index += 1;
        }
        Self {
            header: NoteHeader {
                name_size: SOLO5_SIZE,
                descriptor_size: (size_of::<Self>() - size_of::<NoteHeader>()) as u32,
                kind: MFT1,
                name: SOLO5,
            },
            padding: 0,
            manifest: raw::Header { version: VERSION, entries: ENTRIES as u32 },
            entries,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::vec::Vec;

    fn bytes<T>(value: &T) -> &[u8] {
        // SAFETY: the notes have no padding (the tests below count every byte), so all of their bytes are initialised.
        unsafe { core::slice::from_raw_parts((&raw const *value).cast(), size_of::<T>()) }
    }

    fn words(values: &[u32]) -> Vec<u8> {
        values.iter().flat_map(|value| value.to_le_bytes()).collect()
    }

    #[test]
    fn abi_note_is_the_headers_byte_for_byte() {
        let mut expected = words(&[6, 16, 0x3149_4241]);
        expected.extend(b"Solo5\0\0\0");
        expected.extend(words(&[2, 2, 0, 0]));
        assert_eq!(bytes(&AbiNote::new(Target::Spt, 2)), expected);
    }

    #[test]
    fn openbsd_note_and_interpreter_are_the_headers_byte_for_byte() {
        let mut expected = words(&[8, 4, 1]);
        expected.extend(b"OpenBSD\0");
        expected.extend(words(&[0]));
        assert_eq!(bytes(&OpenBsdNote::NOTE), expected);
        assert_eq!(bytes(&Interpreter::SOLO5), b"/nonexistent/solo5/\0\0\0\0\0");
    }

    #[test]
    fn manifest_note_is_the_headers_byte_for_byte() {
        // Offsets of struct mft_entry on x86-64: name 0, type 68, u 72, b 88, attached 96; 104 bytes in all.
        // The byte behind `attached` is ours: a network that takes frames with headers.
        fn entry(name: &str, kind: u32) -> Vec<u8> {
            let mut entry = name.as_bytes().to_vec();
            entry.resize(68, 0);
            entry.extend(kind.to_le_bytes());
            entry.resize(104, 0);
            entry[97] = u8::from(kind == 2);
            entry
        }
        let note = ManifestNote::<3>::new(&[DeclaredDevice::net("service"), DeclaredDevice::block("disk")]);
        let mut expected = words(&[6, 4 + 8 + 3 * 104, 0x3154_464d]);
        expected.extend(b"Solo5\0\0\0");
        expected.extend(words(&[0, 1, 3]));
        expected.extend(entry("", 1 << 30));
        // Padding to Solo5: the image copes with a console that takes only a part of what it is given.
        let reserved = expected.len() - 104;
        expected[reserved + 97] = 1;
        expected.extend(entry("service", 2));
        expected.extend(entry("disk", 1));
        assert_eq!(bytes(&note), expected);
    }

    #[test]
    #[should_panic(expected = "two devices have the same name")]
    fn names_are_unique() {
        let _ = ManifestNote::<3>::new(&[DeclaredDevice::net("a"), DeclaredDevice::block("a")]);
    }

    #[test]
    #[should_panic(expected = "letters and digits")]
    fn names_can_be_written_on_a_command_line() {
        let _ = ManifestNote::<2>::new(&[DeclaredDevice::net("a-b")]);
    }

    #[test]
    fn names_may_be_67_characters() {
        let _ = ManifestNote::<2>::new(&[DeclaredDevice::net(core::str::from_utf8(&[b'x'; 67]).unwrap())]);
        let longer =
            std::panic::catch_unwind(|| ManifestNote::<2>::new(&[DeclaredDevice::net(core::str::from_utf8(&[b'x'; 68]).unwrap())]));
        assert!(longer.is_err());
    }
}
