use super::*;
use crate::acpi::tests::balance;
use proptest::prelude::*;
use std::vec;
use std::vec::Vec;

const AT: u64 = 0xe_0000;

/// A root pointer, a root table, a fixed table and a program.
fn tables(flags: u32, kind: u8) -> Vec<u8> {
    let mut bytes = vec![0; 0x800];
    let mut put = |at: usize, value: &[u8]| bytes[at..at + value.len()].copy_from_slice(value);
    let address = |at: u64| (AT + at).to_le_bytes();
    put(0x40, b"RSD PTR ");
    put(0x50, &address(0x100)[..4]);
    put(0x100, b"RSDT");
    put(0x104, &48_u32.to_le_bytes());
    put(0x124, &address(0x600)[..4]);
    put(0x12c, &address(0x700)[..4]);
    put(0x700, b"APIC");
    put(0x704, &(44 + 8 + 12 + 12 + 10_u32).to_le_bytes());
    put(0x72c, &[0, 8, 0, 0, 1, 0, 0, 0]);
    put(0x734, &[1, 12, 0, 0, 0, 0, 0xc0, 0xfe, 0, 0, 0, 0]);
    put(0x740, &[1, 12, 1, 0, 0, 0x10, 0xc0, 0xfe, 24, 0, 0, 0]);
    put(0x74c, &[2, 10, 0, 9, 20, 0, 0, 0, 0xf, 0]);
    put(0x128, &address(0x200)[..4]);
    put(0x200, b"FACP");
    put(0x204, &268_u32.to_le_bytes());
    put(0x200 + 40, &address(0x400)[..4]);
    put(0x200 + 46, &9_u16.to_le_bytes());
    put(0x200 + 48, &0xb2_u32.to_le_bytes());
    put(0x200 + 52, &[2]);
    put(0x200 + 56, &0x600_u32.to_le_bytes());
    put(0x200 + 64, &0x604_u32.to_le_bytes());
    put(0x200 + 88, &[4]);
    put(0x200 + 112, &flags.to_le_bytes());
    put(0x200 + 116, &[1]);
    put(0x200 + 120, &0xcf9_u64.to_le_bytes());
    put(0x200 + 128, &[6]);
    put(0x200 + 248, &0xfea0_0200_u64.to_le_bytes());
    put(0x400, b"DSDT");
    put(0x404, &0x100_u32.to_le_bytes());
    // As QEMU 7.2 writes it for a microvm, in part.
    put(0x440, b"ACPI0013\0\x08_CRS\x11\x0c\x0a\x09\x89\x06\x00\x01\x01\x05\x00\x00\x00\x79\x00");
    put(0x460, b"\x5b\x80EREG\x00\x0c\x00\x00\xa0\xfe\x0a\x04");
    put(0x480, b"_S5_\x12\x06\x04\x0a");
    put(0x488, &[kind]);
    balance(&mut bytes, 0x40);
    bytes
}

fn with<T>(bytes: &[u8], root_pointer: u64, read: impl Fn(Tables<'_>) -> Option<T>) -> Option<T> {
    let memory = |at: u64| bytes.get(usize::try_from(at.checked_sub(AT)?).ok()?).copied();
    read(Tables::find(root_pointer, AT..AT + 0x800, &memory)?)
}

fn power_off(bytes: &[u8], root_pointer: u64) -> Option<Write> {
    with(bytes, root_pointer, super::power_off)
}

#[test]
fn both_ways_to_turn_off_are_found_with_and_without_a_hint() {
    assert_eq!(power_off(&tables(0, 0), 0), Some(Write::Port16 { port: 0x604, value: 0x2000 }));
    assert_eq!(power_off(&tables(0, 5), AT + 0x40), Some(Write::Port16 { port: 0x604, value: 0x3400 }));
    assert_eq!(power_off(&tables(NO_HARDWARE, 5), AT), Some(Write::Memory { address: 0xfea0_0200, value: 0x34 }));
}

#[test]
fn what_is_not_there_is_not_found() {
    assert_eq!(power_off(&[0; 0x800], 0), None);
    assert_eq!(power_off(&tables(0, 9), 0), None);
    for length in 0..0x489 {
        assert_eq!(power_off(&tables(0, 5)[..length], 0), None, "{length:#x} bytes");
    }
}

#[test]
fn a_register_that_restarts_is_found_where_there_is_one() {
    let find = |flags| with(&tables(flags, 5), 0, restart);
    assert_eq!(find(RESTARTS), Some(Write::Port { port: 0xcf9, value: 6 }));
    assert_eq!(find(0), None);
}

#[test]
fn both_kinds_of_power_buttons_are_found() {
    let button = |flags| with(&tables(flags, 5), 0, power_button);
    let take = Some(Write::Port { port: 0xb2, value: 2 });
    let fixed = ButtonRegisters::Fixed { status: 0x600, enable: 0x602, control: 0x604, take };
    assert_eq!(button(0), Some(PowerButton { line: 9, registers: fixed }));
    assert_eq!(button(PROGRAM_BUTTON), None);
    assert_eq!(button(NO_HARDWARE), Some(PowerButton { line: 5, registers: ButtonRegisters::Events { address: 0xfea0_0000 } }));
}

#[test]
fn an_interrupt_of_old_is_what_the_table_says() {
    let global = |interrupt| with(&tables(0, 5), 0, |tables| Some(global_interrupt(tables, interrupt)));
    assert_eq!([global(9), global(5)], [Some((20, true)), Some((5, false))]);
}

proptest! {
    #[test]
    fn any_tables_are_read_without_a_panic(
        changes in prop::collection::vec((0_usize..0x780, any::<u8>()), 0..60), flags in prop_oneof![Just(0), Just(NO_HARDWARE), any::<u32>()],
    ) {
        let mut bytes = tables(flags, 5);
        for (at, value) in changes {
            bytes[at] = value;
        }
        with(&bytes, 0, |tables| {
            let _ = (super::power_off(tables), restart(tables), power_button(tables), global_interrupt(tables, 9));
            tables.table(b"HPET")?.number(44, 8)
        });
    }
}
