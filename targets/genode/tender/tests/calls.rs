//! The loader as a process, with images of a few instructions: what the library does with calls that our images never make.

use std::io::Write as _;
use std::process::{Command, Output};

use fogbow_genode_tender::testing::{IMPORT_ADDRESS, ImageWriter};
use fogbow_tender::machine_code;
use fogbow_tender::manifest::{Device, DeviceKind, Manifest, Name};
use tempfile::NamedTempFile;

const LOADER: &str = env!("CARGO_BIN_EXE_fogbow-genode-tender");

/// Bytes of the image's disk.
const DISK_SIZE: u64 = 4096;

// What is called is at `IMPORT_ADDRESS`.
machine_code! {
    returns { "mov eax, 42" "ret" }

    /// Writes no byte, at no address.
    writes_nothing { "sub rsp, 8" "xor edi, edi" "xor esi, esi" "call qword ptr [0x1009100]" "add rsp, 8" "xor eax, eax" "ret" }

    acquires_another {
        "sub rsp, 72" "lea rdi, [rip + 2f]" "lea rsi, [rsp]" "lea rdx, [rsp + 16]" "call qword ptr [0x1009100]" "add rsp, 72" "ret"
        "2: .asciz \"other\""
    }

    reads_another { "sub rsp, 520" "mov edi, 2" "xor esi, esi" "mov rdx, rsp" "mov ecx, 512" "call qword ptr [0x1009100]" "add rsp, 520" "ret" }

    reads_the_last_sector { "sub rsp, 520" "mov edi, 1" "mov esi, 3584" "mov rdx, rsp" "mov ecx, 512" "call qword ptr [0x1009100]" "add rsp, 520" "ret" }

    reads_beyond { "sub rsp, 520" "mov edi, 1" "mov esi, 4096" "mov rdx, rsp" "mov ecx, 512" "call qword ptr [0x1009100]" "add rsp, 520" "ret" }

    /// From the last sector but one of all that 64 bits can count.
    reads_beyond_all { "sub rsp, 520" "mov edi, 1" "mov rsi, -512" "mov rdx, rsp" "mov ecx, 512" "call qword ptr [0x1009100]" "add rsp, 520" "ret" }

    reads_a_part_of_a_sector { "sub rsp, 520" "mov edi, 1" "mov esi, 1" "mov rdx, rsp" "mov ecx, 512" "call qword ptr [0x1009100]" "add rsp, 520" "ret" }
}

/// Runs an image with a disk.
fn run(import: &'static str, code: Vec<u8>, options: &[&str], arguments: &[&str]) -> Output {
    let disk = NamedTempFile::new().expect("a temporary file");
    disk.as_file().set_len(DISK_SIZE).expect("the file grows");
    let manifest = Manifest::new(vec![Device::new(Name::new("disk").expect("a name"), DeviceKind::Block)]).expect("a manifest");
    let mut image = NamedTempFile::new().expect("a temporary file");
    image.write_all(&ImageWriter { manifest, import, code }.write()).expect("the image is written");
    let mut command = Command::new(LOADER);
    command.arg("--mem=2").arg(format!("--block:disk={}", disk.path().display())).args(options);
    command.arg("--").arg(image.path()).args(arguments).output().expect("the loader starts")
}

fn is_undefined(output: &Output, what: &str) {
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(255) && error.contains("undefined on Genode") && error.contains(what), "{output:?}");
}

#[test]
fn an_images_exit_value_is_the_status() {
    assert_eq!(IMPORT_ADDRESS, 0x100_9100, "the address in the images' code");
    assert_eq!(run("solo5_exit", returns(), &[], &[]).status.code(), Some(42));
}

#[test]
fn what_the_library_leaves_undefined_ends_the_image_with_a_message() {
    is_undefined(&run("solo5_console_write", writes_nothing(), &[], &[]), "an empty line");
    is_undefined(
        &run("solo5_block_acquire", acquires_another(), &[], &[]),
        "block device 'other' is acquired, and the manifest declares block 'disk'",
    );
    is_undefined(&run("solo5_block_read", reads_another(), &[], &[]), "handle 2 is used");
}

#[test]
fn a_transfer_lies_within_the_device_and_is_of_whole_sectors() {
    let read = |code| run("solo5_block_read", code, &[], &[]).status.code();
    assert_eq!(read(reads_the_last_sector()), Some(0));
    assert_eq!([read(reads_beyond()), read(reads_beyond_all()), read(reads_a_part_of_a_sector())], [Some(2); 3]);
}

#[test]
fn a_command_line_is_not_cut() {
    let refused = |arguments: &str| run("solo5_exit", returns(), &[], &[arguments]);
    assert_eq!(refused(&"x".repeat(1023)).status.code(), Some(42));
    let output = refused(&"x".repeat(1024));
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.code() == Some(1) && error.contains("1024 characters, at most 1023"), "{output:?}");
}

#[test]
fn a_debugger_is_not_silently_forgotten() {
    let output = run("solo5_exit", returns(), &["--gdb=1234"], &[]);
    assert!(output.status.code() == Some(1) && String::from_utf8_lossy(&output.stderr).contains("no debugger"), "{output:?}");
}
