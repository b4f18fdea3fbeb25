use super::*;
use crate::transport::{SetupError, Transport};
use proptest::prelude::*;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::string::ToString;

/// Functions with 256 bytes of configuration space each, and registers at one address.
#[derive(Default)]
struct Machine {
    spaces: RefCell<BTreeMap<Function, [u8; 256]>>,
    registers: Option<Window>,
    /// Bytes behind each base address; none are told of unless the device is asked for them.
    sizes: BTreeMap<u8, u32>,
}

const REGISTERS: u64 = 0xfe00_0000;

impl Configuration for Machine {
    fn read(&self, function: Function, offset: u8) -> u32 {
        let spaces = self.spaces.borrow();
        spaces
            .get(&function)
            .map_or(u32::MAX, |space| u32::from_le_bytes(space[usize::from(offset & 0xfc)..].first_chunk().copied().unwrap()))
    }

    fn write(&self, function: Function, offset: u8, value: u32) {
        let value = self.sizes.get(&offset).map_or(value, |size| value & size.wrapping_neg() | self.read(function, offset) & 0xf);
        // The upper half of the command is the status, which is not written so.
        let bytes = if offset == COMMAND { 2 } else { 4 };
        self.set(function, offset, &value.to_le_bytes()[..bytes]);
    }
}

fn function(text: &str) -> Function {
    text.parse().unwrap()
}

impl Machine {
    fn set(&self, function: Function, offset: u8, bytes: &[u8]) {
        if let Some(space) = self.spaces.borrow_mut().get_mut(&function) {
            space[usize::from(offset & 0xfc)..][..bytes.len()].copy_from_slice(bytes);
        }
    }

    fn put(&self, at: &str, words: &[(u8, u32)]) {
        self.spaces.borrow_mut().entry(function(at)).or_insert([0; 256]);
        words.iter().for_each(|(offset, value)| self.set(function(at), *offset, &value.to_le_bytes()));
    }

    /// A transitional network device with the registers of a modern one, of 0x3000 bytes.
    fn with_device() -> Self {
        let machine = Self { registers: Some(crate::window::tests::memory(0x3000)), ..Self::default() };
        machine.put("00:03.0", &[(ID, 0x1000_1af4), (COMMAND, HAS_CAPABILITIES), (SUBSYSTEM, 1 << 16), (CAPABILITIES, 0x40)]);
        machine.put("00:03.0", &[(BARS + 4, REGISTERS as u32), (BARS + 16, REGISTERS as u32 | 4), (BARS + 20, 0), (INTERRUPT, 11)]);
        for (at, next, kind, offset, length) in
            [(0x40, 0x50, 1, 0, 0x38), (0x50, 0x60, 3, 0x1000, 4), (0x60, 0x70, 4, 0x1100, 12), (0x70, 0x84, 2, 0x2000, 0x100)]
        {
            let words = [u32::from(kind as u8) << 24 | 0x14 << 16 | next << 8 | 9, 4, offset, length, 4];
            (0..).zip(words).for_each(|(index, word)| machine.put("00:03.0", &[(at + 4 * index, word)]));
        }
        machine.put("00:03.0", &[(0x84, 3 << 16 | 0x11), (0x88, 0x2800 | 1)]);
        machine
    }

    fn window(&self, address: u64, length: u64) -> Option<Window> {
        self.registers?.part(address.checked_sub(REGISTERS)?, length)
    }

    fn device(&self) -> Result<transport::Device, SetupError> {
        self.device_with(&|_| None)
    }

    fn device_with(&self, place: &dyn Fn(u64) -> Option<u64>) -> Result<transport::Device, SetupError> {
        let window = |address, length| self.window(address, length);
        let access = Access { configuration: self, function: function("00:03.0"), window: &window, place };
        transport::Device::new(&access, (0xfee0_0000, [50, 54]))
    }
}

#[test]
fn functions_are_found_behind_bridges_and_circles_end() {
    let machine = Machine::default();
    for at in ["00:00.0", "00:1f.0", "00:1f.3", "00:02.1", "03:00.0", "04:05.0"] {
        machine.put(at, &[(ID, 0x1234_5678)]);
    }
    machine.put("00:1f.0", &[(HEADER, 0x80 << 16)]);
    machine.put("00:04.0", &[(ID, 1), (HEADER, 1 << 16), (BUSES, 3 << 8)]);
    machine.put("03:01.0", &[(ID, 1), (HEADER, 1 << 16), (BUSES, 4 << 8)]);
    machine.put("04:00.0", &[(ID, 1), (HEADER, 1 << 16), (BUSES, 0)]);
    let found: Vec<_> = functions(&machine, 0).iter().map(ToString::to_string).collect();
    assert_eq!(found, ["00:00.0", "00:1f.0", "00:1f.3", "03:00.0", "04:05.0"]);
}

#[test]
fn a_devices_registers_are_where_its_capabilities_say() {
    let machine = Machine::with_device();
    let window = |address, length| machine.window(address, length);
    let access = Access { configuration: &machine, function: function("00:03.0"), window: &window, place: &|_| None };
    assert_eq!(transport::kind(&access), Some(1));
    let device = machine.device().unwrap();
    let registers = machine.registers.unwrap();
    registers.write8(0x14, 0x0f);
    registers.write8(0x1105, 0x77);
    registers.write16(0x1e, 3);
    assert_eq!((device.status(), device.configuration8(5), device.configuration8(12)), (0x0f, 0x77, u8::MAX));
    assert_eq!((device.configuration16(4), device.configuration32(4), device.configuration32(12)), (0x7700, 0x7700, u32::MAX));
    // Message-signalled interrupts are on, unmasked, with the message in the table's first entry; the line is off.
    assert_eq!(machine.read(function("00:03.0"), 0x84) >> 30, 2);
    assert_eq!([0, 4, 8, 12].map(|at| registers.read32(0x2800 + at)), [0xfee0_0000, 0, 50, 0]);
    assert_eq!([0, 4, 8, 12].map(|at| registers.read32(0x2810 + at)), [0xfee0_0000, 0, 54, 0]);
    assert_eq!(machine.read(function("00:03.0"), COMMAND) & 0xffff, MEMORY | MASTER | NO_LINE);
    let queue = crate::queue::Queue::new(8, true, |ring| device.attach(5, ring).ok_or(())).unwrap();
    assert_eq!((registers.read16(0x16), registers.read16(0x18), registers.read16(0x1c)), (5, 8, 1));
    assert_eq!(registers.read16(0x10), 1, "changes have the second message");
    let mut queue = queue;
    queue.offer(0, None);
    queue.publish();
    assert_eq!(registers.read16(0x2000 + 3 * 4), 5, "the bell of the queue");
}

#[test]
fn a_table_of_one_message_has_the_first_alone() {
    let machine = Machine::with_device();
    machine.put("00:03.0", &[(0x84, 0x11)]);
    let (device, registers) = (machine.device().unwrap(), machine.registers.unwrap());
    assert_eq!([0x2808, 0x2810, 0x2818].map(|at| registers.read32(at)), [50, 0, 0]);
    crate::queue::Queue::new(8, true, |ring| device.attach(0, ring).ok_or(())).unwrap();
    assert_eq!(registers.read16(0x10), 0xffff);
}

#[test]
fn without_messages_the_line_is_used() {
    let machine = Machine::with_device();
    machine.put("00:03.0", &[(0x84, 0x05)]);
    let device = machine.device().unwrap();
    assert!(matches!(device.interrupt(), crate::interrupts::Interrupt::Line { line: 11, .. }));
    assert_eq!(machine.read(function("00:03.0"), COMMAND) & 0xffff, MEMORY | MASTER);
}

/// Four base addresses, of which the device's capabilities name two: the registers' is given a place, the message table's has one, others are left alone.
#[test]
fn base_addresses_that_nobody_set_are_given_a_place() {
    let mut machine = Machine::with_device();
    machine.put("00:03.0", &[(BARS, 0), (BARS + 16, 4)]);
    machine.sizes.insert(BARS + 16, 0x4000);
    assert_eq!(machine.device().unwrap_err(), SetupError::OutOfReach, "there is no place");
    let sizes = RefCell::new(Vec::new());
    let device = machine.device_with(&|size| {
        sizes.borrow_mut().push(size);
        Some(REGISTERS)
    });
    assert!(device.is_ok() && *sizes.borrow() == [0x4000]);
    let read = |offset| machine.read(function("00:03.0"), offset);
    assert_eq!([read(BARS), read(BARS + 16), read(BARS + 20)], [0, REGISTERS as u32 | 4, 0]);
    machine.put("00:03.0", &[(BARS + 16, 4)]);
    assert_eq!(machine.device_with(&|_| Some(1 << 32)).unwrap_err(), SetupError::OutOfReach);
    assert_eq!(read(BARS + 16), 4);
}

#[test]
fn what_cannot_be_used_is_told_apart() {
    let machine = Machine::with_device();
    machine.put("00:03.0", &[(COMMAND, 0)]);
    assert_eq!(machine.device().unwrap_err(), SetupError::Legacy);
    let machine = Machine::with_device();
    machine.put("00:03.0", &[(BARS + 20, 1)]);
    assert_eq!(machine.device().unwrap_err(), SetupError::OutOfReach);
    let machine = Machine::with_device();
    machine.put("00:03.0", &[(BARS + 16, 0xc001)]);
    assert_eq!(machine.device().unwrap_err(), SetupError::OutOfReach);
}

proptest! {
    #[test]
    fn any_configuration_space_is_read_without_harm(
        changes in prop::collection::vec((any::<u8>(), any::<u8>()), 0..40), buses in prop::collection::vec(any::<u8>(), 0..8),
    ) {
        let machine = Machine::with_device();
        for (at, value) in changes {
            machine.spaces.borrow_mut().entry(function("00:03.0")).and_modify(|space| space[usize::from(at)] = value);
        }
        for (index, bus) in (0_u8..).zip(buses) {
            machine.put(&std::format!("{index:02x}:01.0"), &[(ID, 1), (HEADER, 1 << 16), (BUSES, u32::from(bus) << 8)]);
        }
        functions(&machine, 0);
        if let Ok(device) = machine.device() {
            let _ = crate::queue::Queue::new(8, true, |ring| device.attach(0, ring).ok_or(()));
            device.configuration8(3);
        }
    }

    #[test]
    fn functions_are_written_as_they_are_read(bus: u8, device in 0_u8..32, number in 0_u8..8, text in ".{0,9}") {
        let function = Function { bus, device, function: number };
        prop_assert_eq!(function.to_string().parse(), Ok(function));
        let _ = text.parse::<Function>();
    }
}
