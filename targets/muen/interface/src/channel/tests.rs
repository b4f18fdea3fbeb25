//! Against a model, against a writer that does what it likes, and in every order that the memory model allows.

use std::cell::{Cell, RefCell};
use std::vec;
use std::vec::Vec;

use loom::sync::Arc;
use proptest::prelude::*;

use super::*;

const PROTOCOL_NUMBER: u64 = 0x1234;

/// Memory of one thread.
pub(crate) struct Fake {
    header: [Cell<u64>; 8],
    data: Vec<Cell<u32>>,
}

impl Fake {
    pub(crate) fn new(size: usize) -> Self {
        Self { header: Default::default(), data: vec![Cell::new(0); (size - HEADER_SIZE) / WORD] }
    }

    pub(crate) fn store_data(&self, word: usize, value: u32) {
        self.data[word].set(value);
    }
}

impl Shared for Fake {
    fn header(&self, word: usize) -> u64 {
        self.header[word].get()
    }

    fn set_header(&self, word: usize, value: u64) {
        self.header[word].set(value);
    }

    fn data_words(&self) -> usize {
        self.data.len()
    }

    fn data(&self, word: usize) -> u32 {
        self.data[word].get()
    }

    fn set_data(&self, word: usize, value: u32) {
        self.data[word].set(value);
    }

    fn fence(&self, _: Ordering) {}
}

fn write(writer: &mut Writer, shared: &impl Shared, value: u64) {
    writer.write(shared, |element| element.put(0, &value.to_le_bytes()));
}

fn read(reader: &mut Reader, shared: &impl Shared) -> Received<u64> {
    reader.read(shared, |element| {
        let mut bytes = [0; 8];
        element.get(0, &mut bytes);
        u64::from_le_bytes(bytes)
    })
}

fn pair(shared: &impl Shared) -> (Writer, Reader) {
    (Writer::new(shared, PROTOCOL_NUMBER, 8, 1).unwrap(), Reader::new(PROTOCOL_NUMBER, 8))
}

#[test]
fn the_header_is_as_the_protocol_has_it() {
    let shared = Fake::new(HEADER_SIZE + 8 * 5 + 7);
    let (mut writer, _) = pair(&shared);
    write(&mut writer, &shared, 7);
    let header: Vec<u64> = shared.header.iter().map(Cell::get).collect();
    assert_eq!(header, [0x4873_12b6_b79a_9b6d, 1, PROTOCOL_NUMBER, 8, 5, 0, 1, 1]);
    assert_eq!(shared.data[0].get(), 7);
}

#[test]
fn elements_need_not_begin_at_words_for_a_reader() {
    let shared = Fake::new(HEADER_SIZE + 16);
    let (mut writer, mut reader) = (Writer::new(&shared, 1, 16, 1).unwrap(), Reader::new(1, 16));
    writer.write(&shared, |element| element.put(4, b"abcdefghij"));
    let mut bytes = [0; 20];
    let got = reader.read(&shared, |element| element.get(5, &mut bytes));
    assert_eq!((got, &bytes[..12]), (Received::Element(()), &b"bcdefghij\0\0\0"[..]));
}

#[test]
fn channels_without_room_are_refused() {
    assert_eq!(Writer::new(&Fake::new(HEADER_SIZE + 4), 1, 8, 1).unwrap_err(), TooSmall);
    // SAFETY: nothing is read or written: none of these is a channel.
    unsafe {
        assert!(Region::new(0, 4096).is_none());
        assert!(Region::new(4, 4096).is_none());
        assert!(Region::new(4096, 63).is_none());
        assert!(Region::new(u64::MAX - 7, 4096).is_none());
        assert!(Region::new(8, u64::MAX - 7).is_none());
    }
}

#[test]
fn a_reader_follows_a_channel_from_life_to_life() {
    let shared = Fake::new(HEADER_SIZE + 8 * 4);
    let mut reader = Reader::new(PROTOCOL_NUMBER, 8);
    assert_eq!((reader.is_pending(&shared), read(&mut reader, &shared)), (false, Received::Inactive));
    for epoch in [5, 6] {
        let mut writer = Writer::new(&shared, PROTOCOL_NUMBER, 8, epoch).unwrap();
        assert_eq!(read(&mut reader, &shared), Received::Nothing);
        write(&mut writer, &shared, epoch * 10);
        assert!(reader.is_pending(&shared));
        assert_eq!(read(&mut reader, &shared), Received::Element(epoch * 10));
    }
    shared.set_header(EPOCH, 0);
    assert_eq!(read(&mut reader, &shared), Received::Inactive);
}

#[test]
fn an_overrun_is_told_once_and_left_behind() {
    let shared = Fake::new(HEADER_SIZE + 8 * 4);
    let (mut writer, mut reader) = pair(&shared);
    (0..5).for_each(|value| write(&mut writer, &shared, value));
    assert_eq!((read(&mut reader, &shared), read(&mut reader, &shared)), (Received::Overrun, Received::Nothing));
    write(&mut writer, &shared, 77);
    assert_eq!(read(&mut reader, &shared), Received::Element(77));
}

#[test]
fn a_counter_that_runs_back_is_an_overrun() {
    let shared = Fake::new(HEADER_SIZE + 8 * 4);
    let (mut writer, mut reader) = pair(&shared);
    (0..3).for_each(|value| write(&mut writer, &shared, value));
    assert_eq!((read(&mut reader, &shared), read(&mut reader, &shared)), (Received::Element(0), Received::Element(1)));
    shared.set_header(WRITTEN, 1);
    assert_eq!((read(&mut reader, &shared), read(&mut reader, &shared)), (Received::Overrun, Received::Nothing));
}

#[test]
fn what_is_announced_over_an_element_takes_it_away() {
    let shared = Fake::new(HEADER_SIZE + 8 * 2);
    let (mut writer, mut reader) = pair(&shared);
    (0..2).for_each(|value| write(&mut writer, &shared, value));
    // The writer is in the middle of overwriting the first.
    shared.set_header(ANNOUNCED, 3);
    assert_eq!(read(&mut reader, &shared), Received::Overrun);
}

/// Headers that must not be believed: each with what is wrong.
#[test]
fn headers_that_do_not_fit_are_not_followed() {
    for (word, value) in [
        (TRANSPORT_WORD, 0),
        (PROTOCOL, 1),
        (ELEMENT_SIZE, 0),
        (ELEMENT_SIZE, 4),
        (ELEMENT_SIZE, 12),
        (ELEMENTS, 0),
        (ELEMENTS, 5),
        (ELEMENTS, u64::MAX),
    ] {
        let shared = Fake::new(HEADER_SIZE + 8 * 4);
        let (mut writer, mut reader) = pair(&shared);
        write(&mut writer, &shared, 1);
        let right = shared.header(word);
        shared.set_header(word, value);
        assert_eq!((reader.is_pending(&shared), read(&mut reader, &shared)), (false, Received::Inactive), "word {word} is {value:#x}");
        shared.set_header(word, right);
        assert_eq!(read(&mut reader, &shared), Received::Element(1), "word {word} is right again");
    }
}

/// What a writer and a reader do, one after the other.
#[derive(Clone, Debug)]
enum Step {
    Write(u64),
    Read,
    Restart(u64),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![4 => any::<u64>().prop_map(Step::Write), 4 => Just(Step::Read), 1 => (1_u64..9).prop_map(Step::Restart)];
    prop::collection::vec(step, 0..200)
}

proptest! {
    #[test]
    fn a_channel_is_a_queue_that_loses_all_when_it_overflows(elements in 1_usize..6, steps in steps()) {
        let shared = Fake::new(HEADER_SIZE + 8 * elements);
        let (mut writer, mut reader) = pair(&shared);
        let mut model = std::collections::VecDeque::new();
        let (mut epoch, mut is_lost) = (1, false);
        for step in steps {
            match step {
                Step::Write(value) => {
                    write(&mut writer, &shared, value);
                    model.push_back(value);
                    is_lost |= model.len() > elements;
                }
                Step::Restart(step) => {
                    epoch += step;
                    writer = Writer::new(&shared, PROTOCOL_NUMBER, 8, epoch).unwrap();
                    model.clear();
                    is_lost = false;
                }
                Step::Read if is_lost => {
                    prop_assert!(reader.is_pending(&shared));
                    prop_assert_eq!(read(&mut reader, &shared), Received::Overrun);
                    model.clear();
                    is_lost = false;
                }
                Step::Read => {
                    prop_assert_eq!(reader.is_pending(&shared), !model.is_empty());
                    let expected = model.pop_front().map_or(Received::Nothing, Received::Element);
                    prop_assert_eq!(read(&mut reader, &shared), expected);
                }
            }
        }
    }
}

/// Memory that gives anything at any time: what was written, or what the other side would like to be there.
struct Hostile {
    fake: Fake,
    /// Words of the header, and beyond it of the elements, and what they become, one change at each access.
    changes: RefCell<vec::IntoIter<(usize, u64)>>,
    accesses: Cell<usize>,
}

impl Hostile {
    fn change(&self) {
        self.accesses.set(self.accesses.get() + 1);
        match self.changes.borrow_mut().next() {
            Some((word @ ..8, value)) => self.fake.set_header(word, value),
            Some((word, value)) => self.fake.set_data(word % self.fake.data_words(), value as u32),
            None => {}
        }
    }
}

impl Shared for Hostile {
    fn header(&self, word: usize) -> u64 {
        self.change();
        self.fake.header(word)
    }

    fn set_header(&self, _: usize, _: u64) {
        panic!("a reader writes nothing");
    }

    fn data_words(&self) -> usize {
        self.fake.data_words()
    }

    fn data(&self, word: usize) -> u32 {
        self.change();
        self.fake.data(word)
    }

    fn set_data(&self, _: usize, _: u32) {
        panic!("a reader writes nothing");
    }

    fn fence(&self, _: Ordering) {}
}

/// A word, and a value that is plausible, at an edge, or any.
fn change() -> impl Strategy<Value = (usize, u64)> {
    let value = prop_oneof![0_u64..20, Just(TRANSPORT), Just(PROTOCOL_NUMBER), Just(u64::MAX), Just(1 << 63), any::<u64>()];
    let right = prop_oneof![Just((0, TRANSPORT)), Just((2, PROTOCOL_NUMBER)), Just((3, 8)), Just((4, 4)), Just((4, 5)), Just((1, 9))];
    prop_oneof![2 => (0_usize..8, value), 1 => right, 1 => (8_usize..2000, any::<u64>())]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    /// `Fake` panics when a word outside is asked for: whatever the other side does, no such word is, each read looks at a bounded number of
    /// words, and a reader that the writer's counters let go on goes on.
    #[test]
    fn a_hostile_writer_leads_no_reader_astray(changes in prop::collection::vec(change(), 0..150), reads in 1_usize..30) {
        let fake = Fake::new(HEADER_SIZE + 8 * 5);
        let (mut writer, mut reader) = pair(&fake);
        (0..3).for_each(|value| write(&mut writer, &fake, value));
        let shared = Hostile { fake, changes: RefCell::new(changes.into_iter()), accesses: Cell::new(0) };
        for _ in 0..reads {
            let before = shared.accesses.get();
            let _ = (reader.is_pending(&shared), read(&mut reader, &shared));
            prop_assert!(shared.accesses.get() - before <= 2 * 7 + 6, "{} accesses", shared.accesses.get() - before);
        }
        // Its whims over, the writer begins again, and is understood.
        let mut writer = Writer::new(&shared.fake, PROTOCOL_NUMBER, 8, 77).unwrap();
        let _ = read(&mut reader, &shared.fake);
        write(&mut writer, &shared.fake, 5);
        prop_assert_eq!(read(&mut reader, &shared.fake), Received::Element(5));
    }

    #[test]
    fn no_frame_of_a_hostile_writer_is_longer_than_a_frame(
        changes in prop::collection::vec(change(), 0..100), lengths in prop::collection::vec(any::<u32>(), 4),
    ) {
        use crate::muennet::{self, Frame, FrameReader, FrameWriter};

        let fake = Fake::new(HEADER_SIZE + 4 * muennet::ELEMENT_SIZE);
        let mut writer = FrameWriter::new(&fake, 1).unwrap();
        for (element, length) in lengths.into_iter().enumerate() {
            writer.send(&fake, &[1; 60]);
            fake.store_data((element + 1) * muennet::ELEMENT_SIZE / WORD - 1, length);
        }
        let shared = Hostile { fake, changes: RefCell::new(changes.into_iter()), accesses: Cell::new(0) };
        let (mut reader, mut frame) = (FrameReader::new(), Frame::new());
        for _ in 0..6 {
            let length = reader.receive(&shared, &mut frame).map_or(0, |frame| frame.len());
            prop_assert!(length <= muennet::FRAME_SIZE);
        }
    }
}

/// Memory in which every order that the memory model allows is tried.
struct Ordered {
    header: [loom::sync::atomic::AtomicU64; 8],
    data: Vec<loom::sync::atomic::AtomicU32>,
}

impl Ordered {
    fn new(words: usize) -> Self {
        Self {
            header: core::array::from_fn(|_| loom::sync::atomic::AtomicU64::new(0)),
            data: (0..words).map(|_| loom::sync::atomic::AtomicU32::new(0)).collect(),
        }
    }
}

impl Shared for Ordered {
    fn header(&self, word: usize) -> u64 {
        self.header[word].load(Ordering::Relaxed)
    }

    fn set_header(&self, word: usize, value: u64) {
        self.header[word].store(value, Ordering::Relaxed);
    }

    fn data_words(&self) -> usize {
        self.data.len()
    }

    fn data(&self, word: usize) -> u32 {
        self.data[word].load(Ordering::Relaxed)
    }

    fn set_data(&self, word: usize, value: u32) {
        self.data[word].store(value, Ordering::Relaxed);
    }

    fn fence(&self, ordering: Ordering) {
        loom::sync::atomic::fence(ordering);
    }
}

/// An element of two words that are always the same number, so that a torn one shows.
fn write_twin(writer: &mut Writer, shared: &Ordered, value: u32) {
    writer.write(shared, |element| {
        element.put(0, &value.to_le_bytes());
        element.put(4, &value.to_le_bytes());
    });
}

fn read_twin(reader: &mut Reader, shared: &Ordered) -> Received<(u32, u32)> {
    match read(reader, shared) {
        Received::Element(both) => Received::Element((both as u32, (both >> 32) as u32)),
        Received::Nothing => Received::Nothing,
        Received::Inactive => Received::Inactive,
        Received::Overrun => Received::Overrun,
    }
}

fn in_every_order(test: impl Fn() + Sync + Send + 'static) {
    let mut model = loom::model::Builder::new();
    model.preemption_bound = Some(2);
    model.check(test);
}

#[test]
fn no_element_is_torn_in_any_order_of_memory() {
    in_every_order(|| {
        // One element: the second write goes over the first.
        let shared = Arc::new(Ordered::new(2));
        let mut writer = Writer::new(&*shared, PROTOCOL_NUMBER, 8, 1).unwrap();
        let mut reader = Reader::new(PROTOCOL_NUMBER, 8);
        assert!(reader.synchronize(&*shared));
        let others = Arc::clone(&shared);
        let thread = loom::thread::spawn(move || (1..=2).for_each(|value| write_twin(&mut writer, &others, value)));
        let mut before = 0;
        for _ in 0..2 {
            if let Received::Element((one, other)) = read_twin(&mut reader, &shared) {
                assert!(one == other && one > before, "{one} and {other} after {before}");
                before = one;
            }
        }
        thread.join().unwrap();
    });
}

#[test]
fn no_element_of_another_life_is_read_in_any_order_of_memory() {
    in_every_order(|| {
        let shared = Arc::new(Ordered::new(2));
        let mut writer = Writer::new(&*shared, PROTOCOL_NUMBER, 8, 1).unwrap();
        write_twin(&mut writer, &shared, 5);
        let mut reader = Reader::new(PROTOCOL_NUMBER, 8);
        assert!(reader.synchronize(&*shared));
        let others = Arc::clone(&shared);
        let thread = loom::thread::spawn(move || {
            Writer::new(&*others, PROTOCOL_NUMBER, 8, 2).unwrap();
        });
        if let Received::Element(both) = read_twin(&mut reader, &shared) {
            assert_eq!(both, (5, 5));
        }
        thread.join().unwrap();
    });
}

#[test]
fn no_size_of_another_life_is_taken_over_in_any_order_of_memory() {
    in_every_order(|| {
        let shared = Arc::new(Ordered::new(4));
        Writer::new(&*shared, PROTOCOL_NUMBER, 8, 1).unwrap();
        shared.set_header(ELEMENTS, 1);
        let others = Arc::clone(&shared);
        let thread = loom::thread::spawn(move || {
            Writer::new(&*others, PROTOCOL_NUMBER, 8, 2).unwrap();
        });
        let mut reader = Reader::new(PROTOCOL_NUMBER, 8);
        if reader.synchronize(&*shared) {
            assert_eq!(reader.elements, reader.epoch);
        }
        thread.join().unwrap();
    });
}
