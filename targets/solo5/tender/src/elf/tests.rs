use proptest::prelude::*;

use super::*;
use crate::testing::{CODE_ADDRESS, DATA_ADDRESS, ImageWriter};

const MEMORY_BASE: u64 = GUEST_MIN_BASE - PAGE_SIZE;
const MEMORY_SIZE: usize = 0x6000;
const MEMORY_END: u64 = MEMORY_BASE + MEMORY_SIZE as u64;
const CANARY: usize = 0x1000;
const SPT: Abi = Abi { target: Target::Spt, version: 2 };

/// Where the fields of the program header at `index` are in a file of [`ImageWriter`].
fn field(index: usize, offset: usize) -> usize {
    headers::HEADER_SIZE + index * headers::PROGRAM_HEADER_SIZE + offset
}

const INTERPRETER_HEADER: usize = 0;
const CODE_HEADER: usize = 1;
const DATA_HEADER: usize = 2;
const ABI_NOTE_HEADER: usize = 3;

fn image() -> Vec<u8> {
    ImageWriter::new(Target::Spt, 2).write()
}

fn with(changes: &[(usize, &[u8])]) -> Vec<u8> {
    let mut file = image();
    for (offset, bytes) in changes {
        file[*offset..*offset + bytes.len()].copy_from_slice(bytes);
    }
    file
}

/// Loads into memory with canaries on both sides and checks that nothing was written outside the segments' contents.
fn load(file: &[u8]) -> Result<Layout, ImageError> {
    let mut bytes = vec![0xa5; CANARY + MEMORY_SIZE + CANARY];
    let memory = &mut bytes[CANARY..CANARY + MEMORY_SIZE];
    memory.fill(0);
    let image = Image::read(file)?;
    image.require(SPT)?;
    image.manifest()?;
    let result = image.load(&mut GuestMemory::new(MEMORY_BASE, memory));
    assert!(bytes[..CANARY].iter().chain(&bytes[CANARY + MEMORY_SIZE..]).all(|&byte| byte == 0xa5));
    let layout = result?;
    check_layout(&layout);
    for (address, &byte) in (MEMORY_BASE..).zip(&bytes[CANARY..CANARY + MEMORY_SIZE]) {
        let from_file = layout.segments.iter().find(|segment| segment.contents.contains(&address));
        let expected = from_file.map_or(0, |segment| file[(segment.file_offset + address - segment.contents.start) as usize]);
        assert_eq!(byte, expected, "at {address:#x}");
    }
    Ok(layout)
}

/// What a loader promises of any image it accepts.
fn check_layout(layout: &Layout) {
    let mut previous_end = GUEST_MIN_BASE;
    for segment in &layout.segments {
        assert!(segment.pages.start >= previous_end && segment.pages.end <= MEMORY_END);
        assert!(segment.pages.start % PAGE_SIZE == 0 && segment.pages.end % PAGE_SIZE == 0);
        assert!(segment.pages.start <= segment.contents.start && segment.contents.end <= segment.pages.end);
        assert!(!(segment.protection.write && segment.protection.execute));
        previous_end = segment.pages.end;
    }
    assert_eq!(layout.end, previous_end);
    assert!(layout.segments.iter().any(|segment| segment.protection.execute && segment.contents.contains(&layout.entry)));
}

#[test]
fn a_valid_image_is_loaded_where_it_says() {
    let layout = load(&image()).expect("a valid image");
    assert_eq!(layout.entry, CODE_ADDRESS);
    assert_eq!(layout.end, DATA_ADDRESS + 0x2000);
    let rights: Vec<Protection> = layout.segments.iter().map(|segment| segment.protection).collect();
    let code = Protection { read: true, write: false, execute: true };
    let data = Protection { read: true, write: true, execute: false };
    assert_eq!(rights, [code, data]);
}

#[test]
fn the_notes_are_read() {
    let file = image();
    let image = Image::read(&file[..]).expect("a valid image");
    assert_eq!(image.abi().expect("a valid note"), SPT);
    assert_eq!(image.manifest().expect("a valid note"), Manifest::default());
}

#[test]
fn another_target_or_version_is_refused() {
    let hvt = ImageWriter::new(Target::Hvt, 2).write();
    assert!(matches!(load(&hvt), Err(ImageError::WrongTarget { found: Target::Hvt, wanted: Target::Spt })));
    let newer = ImageWriter::new(Target::Spt, 3).write();
    assert!(matches!(load(&newer), Err(ImageError::WrongVersion { found: 3, wanted: 2, .. })));
}

#[test]
fn a_file_that_is_no_image_is_refused() {
    assert!(matches!(load(b""), Err(ImageError::Truncated { offset: 0, size: 64, .. })));
    assert!(matches!(load(&with(&[(0, b"#!/bin/sh")])), Err(ImageError::Header { offset: 0, .. })));
    for (offset, value) in [(4, 1), (5, 2), (16, 3), (18, 183), (20, 2), (52, 0), (54, 0)] {
        let result = load(&with(&[(offset, &[value])]));
        assert!(matches!(&result, Err(ImageError::Header { offset: found, .. }) if *found == offset as u64), "{result:?}");
    }
    assert!(matches!(load(&with(&[(56, &[0, 0])])), Err(ImageError::ProgramHeaderCount(0))));
    assert!(matches!(load(&with(&[(56, &[0xff, 0xff])])), Err(ImageError::ProgramHeaderCount(0xffff))));
    assert!(matches!(load(&with(&[(32, &u64::MAX.to_le_bytes())])), Err(ImageError::Truncated { offset: u64::MAX, .. })));
}

#[test]
fn the_interpreter_has_to_be_the_one_that_does_not_exist() {
    let path = with(&[(0x400, b"/lib64/ld-linux-x86-64.s")]);
    assert!(matches!(load(&path), Err(ImageError::Interpreter)));
    let longer = with(&[(0x400 + 19, b"x")]);
    assert!(matches!(load(&longer), Err(ImageError::Interpreter)));
    let none = with(&[(field(INTERPRETER_HEADER, 0), &[0])]);
    assert!(matches!(load(&none), Err(ImageError::Interpreter)));
}

#[test]
fn each_rule_about_segments_is_kept() {
    let address = |index, value: u64| (field(index, 16), value.to_le_bytes());
    let file_size = |index, value: u64| (field(index, 32), value.to_le_bytes());
    let memory_size = |index, value: u64| (field(index, 40), value.to_le_bytes());
    let alignment = |index, value: u64| (field(index, 48), value.to_le_bytes());
    let problem = |(offset, bytes): (usize, [u8; 8])| match load(&with(&[(offset, &bytes)])) {
        Err(ImageError::Segment { problem, .. }) => problem,
        other => panic!("{other:?}"),
    };
    assert_eq!(problem(address(CODE_HEADER, GUEST_MIN_BASE - PAGE_SIZE)), SegmentProblem::TooLow);
    assert_eq!(problem(address(CODE_HEADER, 0)), SegmentProblem::TooLow);
    assert_eq!(problem(address(DATA_HEADER, CODE_ADDRESS)), SegmentProblem::Overlap(DATA_ADDRESS));
    assert_eq!(problem(address(DATA_HEADER, DATA_ADDRESS - 1)), SegmentProblem::Overlap(DATA_ADDRESS));
    let too_high = SegmentProblem::TooHigh { end: MEMORY_END + PAGE_SIZE, memory_size: MEMORY_END };
    assert_eq!(problem(address(DATA_HEADER, MEMORY_END - PAGE_SIZE)), too_high);
    assert_eq!(problem(address(DATA_HEADER, u64::MAX - 0xfff)), SegmentProblem::Overflow);
    assert_eq!(problem(address(DATA_HEADER, u64::MAX - 0x2001)), SegmentProblem::Overflow);
    assert_eq!(problem(memory_size(DATA_HEADER, u64::MAX)), SegmentProblem::Overflow);
    assert_eq!(problem(memory_size(DATA_HEADER, 3)), SegmentProblem::FileLarger { file_size: 4, memory_size: 3 });
    assert_eq!(problem(file_size(DATA_HEADER, u64::MAX)), SegmentProblem::FileLarger { file_size: u64::MAX, memory_size: 0x2000 });
    for bad in [0, 1, 0x800, 0x1001, 0x1800] {
        assert_eq!(problem(alignment(DATA_HEADER, bad)), SegmentProblem::Alignment(bad));
    }
    assert_eq!(problem(alignment(DATA_HEADER, 1 << 63)), SegmentProblem::TooLow);
    assert_eq!(problem((field(DATA_HEADER, 4), [7, 0, 0, 0, 0, 0x40, 0, 0])), SegmentProblem::WritableAndExecutable);
}

#[test]
fn the_entry_point_has_to_be_in_code() {
    for entry in [0, CODE_ADDRESS - 1, CODE_ADDRESS + 1, DATA_ADDRESS, u64::MAX] {
        let result = load(&with(&[(24, &entry.to_le_bytes())]));
        assert!(matches!(result, Err(ImageError::Entry(found)) if found == entry), "{result:?}");
    }
}

#[test]
fn a_segment_cut_off_is_an_error() {
    let file = image();
    let result = load(&file[..file.len() - 1]);
    assert!(matches!(&result, Err(ImageError::Truncated { what, .. }) if what == "segment 2"), "{result:?}");
}

#[test]
fn empty_segments_are_passed_over_and_all_empty_is_an_error() {
    let nothing = [0; 8];
    let empty = |index| [(field(index, 32), &nothing[..]), (field(index, 40), &nothing[..])];
    let no_data = load(&with(&empty(DATA_HEADER))).expect("code alone is enough");
    assert_eq!(no_data.segments.len(), 1);
    let none = with(&[empty(CODE_HEADER), empty(DATA_HEADER)].concat());
    assert!(matches!(load(&none), Err(ImageError::NothingToLoad)));
}

#[test]
fn notes_of_wrong_sizes_are_errors() {
    let size_of_note = |size: u32| with(&[(0x418 + 4, &size.to_le_bytes())]);
    for size in [0, 17, 33, u32::MAX] {
        let result = load(&size_of_note(size));
        assert!(matches!(result, Err(ImageError::NoteSize { index: ABI_NOTE_HEADER, .. })), "{size}: {result:?}");
    }
    let header_cut = with(&[(field(ABI_NOTE_HEADER, 32), &[11])]);
    assert!(matches!(load(&header_cut), Err(ImageError::NoteSize { found: 11, .. })));
    let other_owner = with(&[(0x418 + 12, b"Other")]);
    assert!(matches!(load(&other_owner), Err(ImageError::NoteMissing("ABI"))));
}

#[test]
fn errors_are_one_line() {
    let bytes = with(&[(0x400, b"\n\n\n")]);
    let message = load(&bytes).expect_err("a wrong interpreter").to_string();
    assert!(!message.contains('\n') && message.contains("build it for"), "{message}");
}

/// One change to a file.
#[derive(Clone, Debug)]
enum Mutation {
    Byte(prop::sample::Index, u8),
    HeaderWord(usize, u64),
    Truncate(prop::sample::Index),
}

fn mutation() -> impl Strategy<Value = Mutation> {
    // Words that stand near a limit, besides random ones.
    let near = prop::sample::select(vec![0, 1, 0xfff, PAGE_SIZE, GUEST_MIN_BASE, MEMORY_END, 1 << 32, 1 << 63, u64::MAX]);
    let word = prop_oneof![any::<u64>(), (near, 0..3_u64).prop_map(|(value, add)| value.wrapping_add(add).wrapping_sub(1))];
    prop_oneof![
        (any::<prop::sample::Index>(), any::<u8>()).prop_map(|(index, value)| Mutation::Byte(index, value)),
        ((0..43_usize), word).prop_map(|(index, value)| Mutation::HeaderWord(index * 8, value)),
        any::<prop::sample::Index>().prop_map(Mutation::Truncate),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1000))]

    #[test]
    fn a_mutated_image_is_an_error_or_a_valid_load(mutations in prop::collection::vec(mutation(), 1..4)) {
        let mut file = image();
        for mutation in mutations {
            match mutation {
                Mutation::Byte(index, value) if !file.is_empty() => {
                    let index = index.index(file.len());
                    file[index] = value;
                }
                Mutation::HeaderWord(offset, value) if offset + 8 <= file.len() => {
                    file[offset..offset + 8].copy_from_slice(&value.to_le_bytes());
                }
                Mutation::Truncate(index) => file.truncate(index.index(file.len() + 1)),
                Mutation::Byte(..) | Mutation::HeaderWord(..) => {}
            }
        }
        if let Err(error) = load(&file) {
            prop_assert!(!error.to_string().contains('\n'));
        }
    }

    #[test]
    fn random_bytes_are_an_error(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
        prop_assert!(load(&bytes).is_err());
    }
}
