//! Debuggers: where gdb finds a running image, on every target at the same port.

use std::path::Path;
use std::process::Command;

use crate::files;
use crate::resolve::Target;

/// The port of the loopback.
pub(super) const PORT: u16 = 1234;

/// Debian's package gdbserver.
const SERVER: &str = "gdbserver";

/// Whether images of the target can be waited for.
pub(super) fn is_on(target: Target) -> bool {
    matches!(target, Target::Virtio | Target::Hvt | Target::Spt)
}

/// What to do where they cannot.
pub(super) const fn instead(target: Target) -> &'static str {
    match target {
        Target::Unix => "start a program for unix in gdb itself",
        _ => "debug the application on one of these",
    }
}

/// The tender, to be followed by its options: with an option of its own on hvt; on spt, where the image becomes the tender's process, under gdbserver.
pub(super) fn command(tender: &Path, target: Target, is_debugged: bool) -> Command {
    let mut command = Command::new(if is_debugged && target == Target::Spt { SERVER.as_ref() } else { tender });
    match target {
        Target::Spt if is_debugged => command.args(["--once", "--no-startup-with-shell", &format!("127.0.0.1:{PORT}")]).arg(tender),
        Target::Hvt if is_debugged => command.arg(format!("--gdb={PORT}")),
        _ => &mut command,
    };
    command
}

/// What to type in another terminal.
pub(super) fn hint(image: &Path) -> String {
    let symbols = image.with_extension(format!("{}.debug", image.extension().unwrap_or_default().display()));
    format!("in another terminal: gdb {} -ex 'target remote 127.0.0.1:{PORT}'; see docs/debugging.md", files::display(&symbols))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_target_waits_in_its_own_way() {
        let words = |target, is_debugged| {
            let command = command(Path::new("/t"), target, is_debugged);
            std::iter::once(command.get_program())
                .chain(command.get_args())
                .map(|word| word.display().to_string())
                .collect::<Vec<_>>()
                .join(" ")
        };
        assert_eq!(words(Target::Spt, true), "gdbserver --once --no-startup-with-shell 127.0.0.1:1234 /t");
        assert_eq!(words(Target::Hvt, true), "/t --gdb=1234");
        assert_eq!([words(Target::Spt, false), words(Target::Hvt, false)], ["/t", "/t"]);
        assert!(hint(Path::new("/d/a.hvt")).contains("gdb /d/a.hvt.debug -ex 'target remote 127.0.0.1:1234'"));
    }
}
