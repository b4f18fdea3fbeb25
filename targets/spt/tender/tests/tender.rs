//! The tender as a process, with guests of a few instructions: what they are given, what they may, and how they end.

use std::io::{BufRead, BufReader, Write};
use std::net::{TcpStream, UdpSocket};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Output, Stdio};

use fogbow_tender::elf::Target;
use fogbow_tender::manifest::{Device, DeviceKind, Manifest, Name};
use fogbow_tender::testing::ImageWriter;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::FdFlags;
use rustix::thread::UnshareFlags;
use tempfile::NamedTempFile;

mod guests;

const TENDER: &str = env!("CARGO_BIN_EXE_fogbow-spt-tender");

fn image(code: Vec<u8>, devices: &[(&str, DeviceKind)]) -> NamedTempFile {
    let device = |&(name, kind): &(&str, DeviceKind)| Device { name: Name::new(name).expect("a name"), kind, takes_headers: false };
    let manifest = Manifest::new(devices.iter().map(device).collect()).expect("a manifest");
    let writer = ImageWriter { code, manifest, ..ImageWriter::new(Target::Spt, 2) };
    let mut file = NamedTempFile::new().expect("a temporary file");
    file.write_all(&writer.write()).expect("the image is written");
    file
}

fn run_with(code: Vec<u8>, devices: &[(&str, DeviceKind)], options: &[&str], arguments: &[&str]) -> Output {
    let image = image(code, devices);
    let mut command = Command::new(TENDER);
    command.arg("--mem=2").args(options).arg("--").arg(image.path()).args(arguments);
    command.output().expect("the tender starts")
}

fn run(code: Vec<u8>) -> Output {
    run_with(code, &[], &[], &[])
}

fn disk(size: u64) -> NamedTempFile {
    let file = NamedTempFile::new().expect("a temporary file");
    file.as_file().set_len(size).expect("the file grows");
    file
}

fn u64_at(bytes: &[u8], offset: usize) -> u64 {
    u64::from_le_bytes(*bytes[offset..].first_chunk().expect("eight bytes"))
}

#[test]
fn a_guests_status_passes_through() {
    let output = run(guests::exits());
    assert_eq!(output.status.code(), Some(42));
    assert!(output.stdout.is_empty() && output.stderr.is_empty());
}

#[test]
fn a_guest_finds_its_boot_information() {
    let output = run_with(guests::tells_what_it_was_given(), &[], &[], &["--one", "two three"]);
    assert!(output.status.success(), "{output:?}");
    let boot_info = &output.stdout[..40];
    assert_eq!(u64_at(boot_info, 0), 2 << 20, "mem_size");
    assert_eq!(u64_at(boot_info, 8), 0x10_3000, "kernel_end");
    assert_eq!(u64_at(boot_info, 24), 0x1_1028, "mft");
    let manifest = Manifest::default().emit();
    let given = &output.stdout[40..40 + 4096];
    assert_eq!(given[..manifest.len()], manifest);
    let command_line = (u64_at(boot_info, 16) - 0x1_1028) as usize;
    assert!(given[command_line..].starts_with(b"--one two three\0"));
    // A push below the top, where a return address would be.
    assert_eq!(u64_at(&output.stdout, 40 + 4096), (2 << 20) - 8);
}

#[test]
fn a_forbidden_system_call_kills() {
    for code in [guests::calls_what_is_forbidden(), guests::reads_standard_input(), guests::maps_memory()] {
        let status = run(code).status;
        assert_eq!(status.signal(), Some(libc::SIGSYS), "{status:?}");
    }
}

#[test]
fn a_fault_is_told_and_ends_with_255() {
    let cases = [
        (guests::reads_page_zero(), "page fault reading from address 0x8, rip 0x100000"),
        (guests::writes_code(), "page fault writing to address 0x100007, rip 0x100007"),
        (guests::executes_data(), "page fault executing address 0x101000, rip 0x101000"),
        (guests::overflows_its_stack(), "page fault writing to address 0x7ff8, rip 0x100007"),
        (guests::runs_no_instruction(), "invalid instruction (SIGILL), rip 0x100000"),
        (guests::faults_with_another_thread_pointer(), "page fault reading from address 0x8"),
    ];
    for (code, expected) in cases {
        let output = run(code);
        let message = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(255), "{expected}: {output:?}");
        assert!(message.starts_with("fogbow-spt-tender: guest fault: ") && message.contains(expected), "{message}");
        assert_eq!(message.lines().count(), 1);
    }
}

#[test]
fn the_timer_wakes_a_guest() {
    assert_eq!(run(guests::waits()).status.code(), Some(1));
}

#[test]
fn descriptors_that_are_not_the_guests_are_closed() {
    let (ours, theirs) = std::io::pipe().expect("a pipe");
    let theirs = OwnedFd::from(theirs);
    rustix::io::fcntl_setfd(&theirs, FdFlags::empty()).expect("the tender inherits it");
    let image = image(guests::waits_for_ever(), &[]);
    let mut tender = Command::new(TENDER).arg("--mem=2").arg(image.path()).stdin(Stdio::piped()).spawn().expect("the tender starts");
    drop(theirs);
    // Hangs up once the tender, which waits for ever, has closed the last copy of the other end.
    let limit = Timespec { tv_sec: 30, tv_nsec: 0 };
    let hung_up = poll(&mut [PollFd::new(&ours, PollFlags::IN)], Some(&limit)).expect("poll");
    tender.kill().expect("the tender still runs");
    assert_eq!(tender.wait().expect("the tender ends").signal(), Some(libc::SIGKILL));
    assert_eq!(hung_up, 1, "the tender keeps what it inherited");
}

#[test]
fn a_disk_is_read_and_written_inside_its_bounds() {
    let file = disk(2048);
    let last_sector = [0xab; 512];
    std::os::unix::fs::FileExt::write_all_at(file.as_file(), &last_sector, 1536).expect("the file is written");
    let option = format!("--block:disk={}", file.path().display());
    let devices = [("disk", DeviceKind::Block)];
    let code = guests::uses_its_disk();
    let output = run_with(code.clone(), &devices, &[&option], &[]);
    assert_eq!(output.status.code(), Some(0xab), "{output:?}");
    let contents = std::fs::read(file.path()).expect("the file is read");
    assert!(contents.starts_with(&code));

    let output = run_with(guests::writes_beyond_its_disk(), &devices, &[&option], &[]);
    assert_eq!(output.status.signal(), Some(libc::SIGSYS), "{output:?}");
    assert_eq!(std::fs::read(file.path()).expect("the file is read"), contents);
}

#[test]
fn sixty_three_disks_fit_the_filter() {
    let files: Vec<NamedTempFile> = (0..63).map(|_| disk(512)).collect();
    let names: Vec<String> = (0..63).map(|index| format!("disk{index}")).collect();
    let options: Vec<String> = names.iter().zip(&files).map(|(name, file)| format!("--block:{name}={}", file.path().display())).collect();
    let devices: Vec<(&str, DeviceKind)> = names.iter().map(|name| (name.as_str(), DeviceKind::Block)).collect();
    let options: Vec<&str> = options.iter().map(String::as_str).collect();
    assert_eq!(run_with(guests::exits(), &devices, &options, &[]).status.code(), Some(42));
}

#[test]
fn an_inherited_socket_is_a_network() {
    let kind = rustix::net::SocketType::SEQPACKET;
    let flags = rustix::net::SocketFlags::empty();
    let (ours, theirs) = rustix::net::socketpair(rustix::net::AddressFamily::UNIX, kind, flags, None).expect("a socket pair");
    rustix::io::write(&ours, &[0; 60]).expect("a frame is sent");
    let option = format!("--net:service=@{}", theirs.as_raw_fd());
    let output = run_with(guests::receives_a_frame(), &[("service", DeviceKind::Net)], &[&option], &[]);
    assert_eq!(output.status.code(), Some(7), "{output:?}");
}

#[test]
fn the_user_mode_network_is_a_network() {
    let image = image(guests::receives_a_frame(), &[("service", DeviceKind::Net)]);
    let mut command = Command::new(TENDER);
    command.args(["--mem=2", "--net:service=user,hostfwd=tcp:127.0.0.1:0:80"]).arg(image.path());
    let mut tender = command.stderr(Stdio::piped()).spawn().expect("the tender starts");
    let mut line = String::new();
    BufReader::new(tender.stderr.take().expect("it is piped")).read_line(&mut line).expect("a line is read");
    let address = line.strip_prefix("fogbow-spt-tender: forwarding tcp ").and_then(|rest| rest.strip_suffix(" to the guest's port 80\n"));
    // The network asks for the guest's address when somebody connects.
    let _connection = TcpStream::connect(address.expect("the tender tells the port")).expect("the port is open");
    assert_eq!(tender.wait().expect("the guest ends").code(), Some(7));
}

/// Needs root, for a network namespace; says so and passes otherwise.
#[test]
fn a_tap_is_a_network() {
    let test = || {
        // SAFETY: changes the namespace of this thread alone; what it starts afterwards inherits it.
        if let Err(errno) = unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) } {
            eprintln!("not tested: making a network namespace needs root ({errno})");
            return;
        }
        for arguments in ["tuntap add tap0 mode tap", "link set tap0 up", "addr add 10.0.0.1/24 dev tap0"] {
            assert!(Command::new("ip").args(arguments.split(' ')).status().expect("iproute2 is installed").success());
        }
        // The kernel asks for the address of whom it is to send to, and what it sent before the tap was opened waits there.
        let socket = UdpSocket::bind("10.0.0.1:0").expect("a socket");
        let guest = std::thread::scope(|scope| {
            let guest = scope.spawn(|| {
                run_with(
                    guests::receives_a_frame(),
                    &[("service", DeviceKind::Net)],
                    &["--net:service=tap0", "--net-mac:service=02:00:00:00:00:02"],
                    &[],
                )
            });
            while !guest.is_finished() {
                socket.send_to(b"hello", "10.0.0.2:7").expect("the datagram leaves");
                std::thread::yield_now();
            }
            guest.join().expect("the guest ran")
        });
        assert_eq!(guest.status.code(), Some(7), "{guest:?}");
    };
    std::thread::spawn(test).join().expect("the test passes");
}

#[test]
fn what_cannot_be_started_is_one_line_and_status_1() {
    let file = image(guests::exits(), &[("service", DeviceKind::Net)]);
    let path = file.path().to_str().expect("a plain path");
    let cases: [(&[&str], &str); 8] = [
        (&[], "Missing KERNEL operand"),
        (&["/nonexistent/image"], "/nonexistent/image: Could not open"),
        (&["/proc/self/exe"], "not an x86-64 unikernel image"),
        (&[path], "net 'service' is not: add --net:service=IFACE"),
        (&["--net:other=tap0", path], "Resource not declared in manifest: 'other'"),
        (&["--net:service=nonesuch0", path], "ip tuntap add nonesuch0 mode tap"),
        (&["--mem=1", "--net:service=@999", path], "@999: no such descriptor"),
        (&["--frobnicate", path], "Invalid option: `--frobnicate'"),
    ];
    for (arguments, expected) in cases {
        let output = Command::new(TENDER).args(arguments).output().expect("the tender starts");
        let message = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{arguments:?}: {message}");
        assert!(message.starts_with("fogbow-spt-tender: ") && message.contains(expected), "{arguments:?}: {message}");
        assert_eq!(message.lines().count(), 1, "{message}");
    }
}

#[test]
fn too_little_and_too_much_memory_are_one_line() {
    let file = image(guests::exits(), &[]);
    for (option, expected) in [("--mem=1", "give it --mem=2 or more"), ("--mem=134217727", "give the guest less with --mem")] {
        let output = Command::new(TENDER).arg(option).arg(file.path()).output().expect("the tender starts");
        let message = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(1), "{message}");
        assert!(message.contains(expected), "{message}");
    }
}

#[test]
fn help_and_version_end_as_solo5s_do() {
    let help = Command::new(TENDER).arg("--help").output().expect("the tender starts");
    assert_eq!(help.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&help.stderr).contains("--net:NAME=IFACE"));
    let version = Command::new(TENDER).arg("--version").output().expect("the tender starts");
    assert_eq!(version.status.code(), Some(0));
    assert!(String::from_utf8_lossy(&version.stderr).contains("ABI version 2"));
}
