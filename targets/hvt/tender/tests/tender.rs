//! The tender as a whole, running guests of a few instructions that do what no honest guest would.
//!
//! Without a usable `/dev/kvm` the tests that need it say so and pass.

use std::fs;
use std::io::{Read as _, Write as _};
use std::os::fd::AsRawFd as _;
use std::os::unix::net::UnixDatagram;
use std::process::{Command, Output, Stdio};
use std::thread::available_parallelism;

use fogbow_tender::elf::Target;
use fogbow_tender::manifest::{Device, DeviceKind, Manifest, Name};
use fogbow_tender::testing::{CODE_ADDRESS, DATA_ADDRESS, ImageWriter};
use rustix::io::{FdFlags, fcntl_setfd};

/// `HVT_HYPERCALL_PIO_BASE`.
const PORT: u16 = 0x500;
const PUTS: u16 = 2;
const POLL: u16 = 3;
const HALT: u16 = 8;
/// Where the network ring is with `--mem=4`.
const RING: u32 = 4 << 20;

/// Machine code that makes hypercall `number` with a structure at `address`.
fn hypercall(number: u16, address: u32) -> Vec<u8> {
    let mut code = vec![0xb8]; // mov eax, address
    code.extend(address.to_le_bytes());
    code.extend([0x66, 0xba]); // mov dx, port
    code.extend((PORT + number).to_le_bytes());
    code.push(0xef); // out dx, eax
    code
}

/// Machine code that stores a word.
fn store(address: u32, value: u32) -> Vec<u8> {
    // mov dword ptr [address], value
    [vec![0xc7, 0x04, 0x25], address.to_le_bytes().to_vec(), value.to_le_bytes().to_vec()].concat()
}

fn one_network() -> Manifest {
    let name = Name::new("service").expect("a valid name");
    Manifest::new(vec![Device { name, kind: DeviceKind::Net, takes_headers: false }]).expect("a valid manifest")
}

fn words(words: &[u64]) -> Vec<u8> {
    words.iter().flat_map(|word| word.to_le_bytes()).collect()
}

fn kvm_is_usable() -> bool {
    let usable = fs::OpenOptions::new().read(true).write(true).open("/dev/kvm").is_ok();
    if !usable {
        eprintln!("skipped: no usable /dev/kvm");
    }
    usable
}

fn tender(options: &[&str], image: &ImageWriter) -> Output {
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    file.write_all(&image.write()).expect("the image is written");
    Command::new(env!("CARGO_BIN_EXE_fogbow-hvt-tender")).args(options).arg(file.path()).output().expect("the tender starts")
}

/// Runs a guest of this code and data with 4 MiB of memory: its status, and what the tender says on standard error.
fn run(code: Vec<u8>, data: Vec<u8>) -> (Option<i32>, String, String) {
    let image = ImageWriter { code, data, ..ImageWriter::new(Target::Hvt, 2) };
    let output = tender(&["--mem=4"], &image);
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[track_caller]
fn stops_with(code: Vec<u8>, data: Vec<u8>, message: &str) {
    if !kvm_is_usable() {
        return;
    }
    let (status, _, errors) = run(code, data);
    assert_eq!(status, Some(1), "{errors}");
    assert!(errors.contains(message), "{errors}");
    assert_eq!(errors.lines().count(), 1, "{errors}");
}

#[test]
fn a_guest_prints_and_its_status_is_passed_through() {
    if !kvm_is_usable() {
        return;
    }
    let data = DATA_ADDRESS as u32;
    let structures = [words(&[DATA_ADDRESS + 32, 6, 0, 42]), b"hello\n".to_vec()].concat();
    let code = [hypercall(PUTS, data), hypercall(HALT, data + 16)].concat();
    assert_eq!(run(code, structures), (Some(42), "hello\n".into(), String::new()));
}

#[test]
fn a_structure_outside_memory_stops_the_guest() {
    for address in [0x40_0000, 0x3f_ffff, u32::MAX] {
        stops_with(hypercall(HALT, address), vec![], "hypercall 8 got a bad pointer");
    }
}

#[test]
fn a_length_that_overflows_stops_the_guest() {
    stops_with(hypercall(PUTS, DATA_ADDRESS as u32), words(&[DATA_ADDRESS, u64::MAX]), "not in guest memory, which ends at 0x400000");
}

#[test]
fn a_result_for_read_only_memory_stops_the_guest() {
    stops_with(hypercall(1, CODE_ADDRESS as u32), vec![], "touches read-only memory");
}

#[test]
fn unknown_hypercalls_and_ports_stop_the_guest() {
    stops_with(hypercall(9, 0), vec![], "there is no hypercall 9");
    stops_with(hypercall(0, 0), vec![], "there is no hypercall 0");
    // in al, 0x60
    stops_with(vec![0xe4, 0x60], vec![], "Invalid guest port access: port=0x60");
}

#[test]
fn hlt_and_a_triple_fault_stop_the_guest() {
    stops_with(vec![0xf4], vec![], "the guest executed hlt at rip=0x10000");
    // ud2, and no interrupt table
    stops_with(vec![0x0f, 0x0b], vec![], "guest triple fault: rip=0x");
}

#[test]
fn writing_to_text_stops_the_guest() {
    // mov byte ptr [0x100000], 0
    let code = [vec![0xc6, 0x04, 0x25], (CODE_ADDRESS as u32).to_le_bytes().to_vec(), vec![0]].concat();
    stops_with(code, vec![], "host/guest translation fault: rip=0x10000");
}

#[test]
fn page_zero_is_not_there() {
    // mov al, byte ptr [0x300000], which is memory; then mov al, byte ptr [0]
    let code = [vec![0x8a, 0x04, 0x25], 0x30_0000_u32.to_le_bytes().to_vec(), vec![0x8a, 0x04, 0x25], vec![0; 4]].concat();
    stops_with(code, vec![], "guest triple fault");
}

#[test]
fn a_ring_that_claims_too_much_stops_the_guest() {
    if !kvm_is_usable() || available_parallelism().is_ok_and(|processors| processors.get() < 2) {
        return;
    }
    let mut code = store(RING, 5000);
    // The kick, and then polls for ever.
    code.extend([0x31, 0xc0, 0x66, 0xba, 0x00, 0x06, 0xef]); // xor eax, eax; mov dx, 0x600; out dx, eax
    code.extend(hypercall(POLL, DATA_ADDRESS as u32));
    let image = ImageWriter { code, data: words(&[u64::MAX, 0, 0]), manifest: one_network(), ..ImageWriter::new(Target::Hvt, 2) };
    let output = tender(&["--mem=4", "--net:service=user"], &image);
    let errors = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{errors}");
    assert!(errors.contains("the guest claims 5000 entries in the network ring"), "{errors}");
}

#[test]
fn frames_in_the_ring_leave_even_if_the_guest_halts_at_once() {
    if !kvm_is_usable() || available_parallelism().is_ok_and(|processors| processors.get() < 2) {
        return;
    }
    let (theirs, ours) = UnixDatagram::pair().expect("a pair of sockets");
    fcntl_setfd(&theirs, FdFlags::empty()).expect("the socket is passed on");
    // An entry (write, device 1, data, length), the tail, and no kick.
    let entry = RING + 128;
    let stores = [(entry, 1), (entry + 4, 1), (entry + 8, DATA_ADDRESS as u32 + 16), (entry + 16, 60), (RING, 1)];
    let mut code: Vec<u8> = stores.into_iter().flat_map(|(address, value)| store(address, value)).collect();
    code.extend(hypercall(HALT, DATA_ADDRESS as u32));
    let data = [words(&[0, 7]), vec![0x5a; 60]].concat();
    let image = ImageWriter { code, data, manifest: one_network(), ..ImageWriter::new(Target::Hvt, 2) };
    let output = tender(&["--mem=4", &format!("--net:service=@{}", theirs.as_raw_fd())], &image);
    assert_eq!(output.status.code(), Some(7), "{}", String::from_utf8_lossy(&output.stderr));
    ours.set_nonblocking(true).expect("a socket can be made non-blocking");
    let mut frame = [0; 100];
    assert_eq!(ours.recv(&mut frame).expect("the frame is there"), 60);
    assert_eq!(frame[..60], [0x5a; 60]);
}

#[test]
fn signals_end_the_tender_with_a_message() {
    if !kvm_is_usable() {
        return;
    }
    // Prints, then polls for ever.
    let data = DATA_ADDRESS as u32;
    let structures = [words(&[DATA_ADDRESS + 48, 6, u64::MAX, 0, 0, 0]), b"ready\n".to_vec()].concat();
    let image = ImageWriter {
        code: [hypercall(PUTS, data), hypercall(POLL, data + 16)].concat(),
        data: structures,
        ..ImageWriter::new(Target::Hvt, 2)
    };
    let mut file = tempfile::NamedTempFile::new().expect("a temporary file");
    file.write_all(&image.write()).expect("the image is written");
    let mut command = Command::new(env!("CARGO_BIN_EXE_fogbow-hvt-tender"));
    let mut child =
        command.args(["--mem=4"]).arg(file.path()).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("the tender starts");
    let mut ready = [0; 6];
    child.stdout.as_mut().expect("standard output is piped").read_exact(&mut ready).expect("the guest prints");
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, rustix::process::Signal::TERM).expect("the tender is there");
    let output = child.wait_with_output().expect("the tender ends");
    assert_eq!(output.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&output.stderr).contains("Exiting on signal 15"));
}

#[test]
fn what_cannot_be_run_is_said_in_one_line() {
    let plain = ImageWriter::new(Target::Hvt, 2);
    let cases: [(&[&str], ImageWriter, &str); 5] = [
        (&[], ImageWriter { target: Target::Spt, ..plain.clone() }, "the image is for spt"),
        (&[], ImageWriter { version: 3, ..plain.clone() }, "version 3"),
        (&[], ImageWriter { manifest: one_network(), ..plain.clone() }, "--net:service=IFACE"),
        (&["--mem=0"], plain.clone(), "--mem"),
        (&["--block:storage=x"], plain, "not declared"),
    ];
    for (options, image, message) in cases {
        let output = tender(options, &image);
        let errors = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{errors}");
        assert!(errors.contains(message), "{errors}");
        assert_eq!(errors.lines().count(), 1, "{errors}");
    }
}
