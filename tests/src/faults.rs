//! The violations of the example `faults`, and how each target names them.

/// A violation.
#[derive(Clone, Copy, Debug)]
pub struct Fault {
    /// The value of `--fault`.
    pub name: &'static str,
    /// Part of the message on spt and genode, where the tender reports what the host's kernel says.
    pub spt: &'static str,
    /// Part of the message on hvt, virtio and muen, where the image itself knows its memory.
    pub machine: &'static str,
}

/// Every violation. Each ends with a message that says what it was, and status 255.
pub const FAULTS: [Fault; 14] = [
    fault("write-text", "page fault writing", "write to read-only memory"),
    fault("write-rodata", "page fault writing", "write to read-only memory"),
    fault("execute-data", "page fault executing", "execute of non-executable memory"),
    fault("execute-heap", "page fault executing", "execute of non-executable memory"),
    fault("execute-stack", "page fault executing", "execute of non-executable memory"),
    fault("read-page-zero", "page fault reading", "null pointer: read"),
    fault("write-page-zero", "page fault writing", "null pointer: write"),
    fault("overflow-stack", "stack overflow: page fault", "stack overflow"),
    fault("overflow-stack-at-once", "stack overflow: page fault", "stack overflow"),
    fault("divide-by-zero", "arithmetic error", "division by zero"),
    fault("invalid-instruction", "invalid instruction", "invalid instruction"),
    fault("privileged-instruction", "general protection fault", "privileged instruction"),
    fault("exhaust-memory", "out of memory: ", "out of memory: "),
    fault("panic", "a deliberate panic", "a deliberate panic"),
];

const fn fault(name: &'static str, spt: &'static str, machine: &'static str) -> Fault {
    Fault { name, spt, machine }
}
