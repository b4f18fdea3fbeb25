//! The simulator as a process: what it refuses before it looks at an image.

use std::process::Command;

/// What it says of this command line, and that it starts nothing.
fn refusal(arguments: &[&str]) -> String {
    let output = Command::new(env!("CARGO_BIN_EXE_fogbow-muen-tender")).args(arguments).output().expect("the simulator starts");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[test]
fn a_command_line_is_not_cut() {
    // The boot information is a page, of which 40 bytes come before, and a terminator after.
    assert!(refusal(&["no-such-image", &"x".repeat(4055)]).contains("no-such-image: Could not open"));
    assert!(refusal(&["no-such-image", &"x".repeat(4056)]).contains("4056 characters, at most 4055"));
}

#[test]
fn a_debugger_is_not_silently_forgotten() {
    assert!(refusal(&["--gdb=1234", "no-such-image"]).contains("no debugger"));
}
