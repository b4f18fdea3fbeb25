//! Hypercalls from an honest guest and from a hostile one.

use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixDatagram;

use proptest::prelude::*;

use super::*;
use crate::devices::Device;

const SIZE: u64 = 2 << 20;
/// Read-only to the guest.
const TEXT: u64 = 1 << 20;
/// Where structures go.
const CALL: u64 = 0x8000;
const DATA: u64 = 0xa000;
const NET: u64 = 1;
const BLOCK: u64 = 2;

struct Fixture {
    memory: GuestMemory,
    devices: Devices,
    console: File,
    peer: UnixDatagram,
}

impl Fixture {
    fn new() -> Self {
        let mut memory = GuestMemory::new(SIZE, SIZE).unwrap();
        memory.protect_read_only(TEXT..TEXT + 0x1000).unwrap();
        let (ours, peer) = UnixDatagram::pair().unwrap();
        ours.set_nonblocking(true).unwrap();
        let mut disk = tempfile::tempfile().unwrap();
        disk.write_all(&[0; 4096]).unwrap();
        let net = Device::Net { name: "service".into(), descriptor: ours.into() };
        let block = Device::Block { descriptor: disk.into(), capacity: 4096 };
        Self { memory, devices: Devices::new(vec![net, block]), console: tempfile::tempfile().unwrap(), peer }
    }

    /// Makes a hypercall with a structure of these fields.
    fn call(&self, number: u16, fields: &[u64]) -> Result<Next, HypercallError> {
        let bytes: Vec<u8> = fields.iter().flat_map(|field| field.to_le_bytes()).collect();
        self.memory.store(CALL, &bytes).unwrap();
        self.call_at(number, CALL)
    }

    fn call_at(&self, number: u16, address: u64) -> Result<Next, HypercallError> {
        Hypercalls::new(&self.memory, &self.devices, self.console.as_fd()).serve(number, address)
    }

    /// A 64-bit field of the structure, after the call.
    fn field(&self, index: u64) -> u64 {
        u64::from_le_bytes(self.memory.load(CALL + index * 8).unwrap())
    }

    fn status(&self, index: u64) -> i32 {
        self.field(index) as u32 as i32
    }
}

#[test]
fn the_wall_clock_is_the_hosts() {
    let fixture = Fixture::new();
    fixture.call(WALLTIME, &[0]).unwrap();
    let host = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_nanos() as u64;
    assert!(host.abs_diff(fixture.field(0)) < 60 * NANOSECONDS);
}

#[test]
fn a_console_takes_what_it_has_room_for() {
    let mut fixture = Fixture::new();
    let (reader, writer) = rustix::pipe::pipe_with(rustix::pipe::PipeFlags::NONBLOCK).unwrap();
    fixture.console = writer.into();
    let (mut taken, piece) = (0, 0x1000);
    loop {
        fixture.call(CONSOLE_OFFER, &[DATA, piece, u64::MAX]).unwrap();
        match fixture.field(2) {
            0 => break,
            more => taken += more,
        }
    }
    let mut all = vec![0; taken as usize + 1];
    assert_eq!(File::from(reader).read(&mut all).unwrap() as u64, taken);
}

#[test]
fn text_reaches_the_console() {
    let mut fixture = Fixture::new();
    fixture.memory.store(DATA, b"hello\n").unwrap();
    fixture.call(PUTS, &[DATA, 6]).unwrap();
    let mut text = String::new();
    fixture.console.rewind().unwrap();
    fixture.console.read_to_string(&mut text).unwrap();
    assert_eq!(text, "hello\n");
}

#[test]
fn polling_tells_which_network_is_ready() {
    let fixture = Fixture::new();
    fixture.call(POLL, &[1000, 77, 77]).unwrap();
    assert_eq!((fixture.field(1), fixture.status(2)), (0, 0));
    fixture.peer.send(b"frame").unwrap();
    // Longer than any test may take: it must return at once.
    fixture.call(POLL, &[u64::MAX, 0, 0]).unwrap();
    assert_eq!((fixture.field(1), fixture.status(2)), (1 << NET, 1));
}

#[test]
fn frames_go_both_ways() {
    let fixture = Fixture::new();
    fixture.peer.send(b"frame").unwrap();
    fixture.call(NET_READ, &[NET, DATA, 1514, 77]).unwrap();
    assert_eq!((fixture.field(2), fixture.status(3)), (5, Status::Ok as i32));
    assert_eq!(fixture.memory.load(DATA).unwrap(), *b"frame");
    fixture.call(NET_READ, &[NET, DATA, 1514, 77]).unwrap();
    assert_eq!(fixture.status(3), Status::Again as i32);
    fixture.call(NET_WRITE, &[NET, DATA, 3, 77]).unwrap();
    assert_eq!(fixture.status(3), Status::Ok as i32);
    let mut buffer = [0; 16];
    assert_eq!(fixture.peer.recv(&mut buffer).unwrap(), 3);
}

#[test]
fn blocks_are_kept() {
    let fixture = Fixture::new();
    fixture.memory.store(DATA, &[9; 512]).unwrap();
    fixture.call(BLOCK_WRITE, &[BLOCK, 512, DATA, 512, 77]).unwrap();
    assert_eq!(fixture.status(4), Status::Ok as i32);
    fixture.call(BLOCK_READ, &[BLOCK, 512, DATA + 0x1000, 512, 77]).unwrap();
    assert_eq!(fixture.status(4), Status::Ok as i32);
    assert_eq!(fixture.memory.load::<512>(DATA + 0x1000).unwrap(), [9; 512]);
    fixture.call(BLOCK_WRITE, &[BLOCK, 4096, DATA, 512, 77]).unwrap();
    assert_eq!(fixture.status(4), Status::Invalid as i32);
}

#[test]
fn a_status_is_passed_through_and_a_bad_cookie_is_not() {
    let fixture = Fixture::new();
    assert_eq!(fixture.call(HALT, &[0, 0xdead_0000_0000_00ff]).unwrap(), Next::Halt(255));
    assert_eq!(fixture.call(HALT, &[SIZE - 512, 3]).unwrap(), Next::Halt(3));
    assert!(matches!(fixture.call(HALT, &[SIZE - 511, 3]), Err(HypercallError::Pointer { number: HALT, .. })));
}

#[test]
fn results_and_frames_never_go_to_read_only_memory() {
    let fixture = Fixture::new();
    fixture.peer.send(b"frame").unwrap();
    assert!(matches!(fixture.call(NET_READ, &[NET, TEXT, 64, 0]), Err(HypercallError::Pointer { .. })));
    assert!(matches!(fixture.call(BLOCK_READ, &[BLOCK, 0, TEXT - 8, 512, 0]), Err(HypercallError::Pointer { .. })));
    assert!(matches!(fixture.call_at(WALLTIME, TEXT), Err(HypercallError::Pointer { .. })));
    assert!(fixture.call(PUTS, &[TEXT, 16]).is_ok());
}

#[test]
fn unknown_numbers_end_the_run() {
    let fixture = Fixture::new();
    for number in [0, HALT + 1, u16::MAX] {
        assert!(matches!(fixture.call(number, &[0]), Err(HypercallError::Unknown(found)) if found == number));
    }
}

fn number() -> impl Strategy<Value = u64> {
    let near = |value: u64| (0_u64..1030).prop_map(move |delta| value.wrapping_add(delta).wrapping_sub(515));
    prop_oneof![0..3_u64, near(0), near(TEXT), near(SIZE), near(4096), near(u64::MAX), near(1 << 32), any::<u64>()]
}

proptest! {
    /// Whatever the fields are and wherever the structure is: an answer or an error, and read-only memory unchanged.
    #[test]
    fn a_hostile_guest_is_contained(
        call in prop_oneof![Just(PUTS), BLOCK_WRITE..=HALT],
        address in prop_oneof![Just(CALL), number()],
        fields in [number(), number(), number(), number(), number()],
    ) {
        let fixture = Fixture::new();
        fixture.peer.send(b"frame").unwrap();
        let bytes: Vec<u8> = fields.iter().flat_map(|field| field.to_le_bytes()).collect();
        let _ = fixture.memory.store(address, &bytes);
        let result = fixture.call_at(call, address);
        prop_assert!(!matches!(result, Err(HypercallError::Unknown(_) | HypercallError::Poll(_))));
        if address > SIZE {
            prop_assert!(result.is_err());
        }
        prop_assert!(fixture.memory.load::<4096>(TEXT).unwrap().iter().all(|&byte| byte == 0));
    }
}
