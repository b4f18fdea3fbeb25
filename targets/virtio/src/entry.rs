//! From the loader's jump to the image's own code: what `fogbow-x86` needs to know of this target, and what it does about faults.

use core::arch::naked_asm;
use core::ffi::c_void;
use core::ops::Range;
use core::sync::atomic::{AtomicU8, Ordering};

use fogbow::console;
use fogbow_x86::entry::{self, Prepared, enter_from_32_bits};
use fogbow_x86::fault::{Fault, Report};
use fogbow_x86::layout::{Given, HIGHEST, Layout};
use fogbow_x86::paging::{LARGE_PAGE, PAGE};
use fogbow_x86::program::{Handlers, Program};
use fogbow_x86::shared::Shared;

use crate::loader::{self, COMMAND_LINE_SIZE, Protocol, Reach};
use crate::{apic, button, clock, ports, power, serial};

/// What the image does about faults.
pub const HANDLERS: Handlers = Handlers { report, last_words };

/// The part of low memory where firmware leaves its tables: monitors without firmware (Cloud Hypervisor, Firecracker) begin at its extended data area.
pub(crate) const FIRMWARE: Range<u64> = 0x9_f000..0x10_0000;

/// The part of that where the pointer to them is looked for (ACPI 6.5, section 5.2.5.1).
pub(crate) const POINTERS: Range<u64> = 0xe_0000..0x10_0000;

/// What the image knows when its main function begins.
pub(crate) struct Boot {
    pub(crate) layout: Layout,
    pub(crate) protocol: Protocol,
    /// ACPI's root pointer as the loader knows it, or zero.
    pub(crate) root_pointer: u64,
    pub(crate) command_line: &'static [u8],
}

/// What [`prepare`] found out; `None` before.
pub(crate) fn boot() -> Option<&'static Boot> {
    // SAFETY: written once, by `prepare`, before any code that reads it runs; there is one thread.
    unsafe { (*BOOT.get()).as_ref() }
}

static BOOT: Shared<Option<Boot>> = Shared::new(None);

/// A copy of the command line: the loader's may lie where the page tables are built. On the fault stack, which `prepare` runs on, it would not fit several
/// times, as code without optimisation has it.
static COMMAND_LINE: Shared<[u8; COMMAND_LINE_SIZE]> = Shared::new([0; _]);

/// Prints a fault and ends the image.
extern "C" fn report(fault: &Fault) -> ! {
    let layout = boot().map(|boot| &boot.layout);
    console::write_to(&mut serial::puts, format_args!("{}\n", Report { fault, layout }));
    power::end(fogbow::status::ABORT)
}

/// The end when that faults.
#[unsafe(naked)]
unsafe extern "C" fn last_words() -> ! {
    naked_asm!(
        "lea rsi, [rip + {text}]",
        "mov ecx, {length}",
        "mov edx, {serial}",
        "cld",
        "rep outsb",
        "mov edx, {debug_exit}",
        "mov eax, {status}",
        "out dx, al",
        "2:",
        "cli",
        "hlt",
        "jmp 2b",
        text = sym LAST_WORDS,
        length = const LAST_WORDS.len(),
        serial = const ports::SERIAL,
        debug_exit = const ports::DEBUG_EXIT,
        status = const fogbow::status::ABORT,
    )
}

static LAST_WORDS: [u8; 40] = *b"fault: another fault while reporting it\n";

/// What [`enter_from_32_bits`] takes for granted: 64-bit mode, and pages that cannot be executed (CPUID leaf 0x80000001, EDX: Intel SDM volume 2A).
const NEEDED: u32 = 1 << 29 | 1 << 20;

/// Goes on to [`enter_from_32_bits`] where the processor can, and says so where it cannot.
///
/// # Safety
/// As [`enter_from_32_bits`].
#[unsafe(naked)]
pub unsafe extern "C" fn enter() -> ! {
    naked_asm!(
        ".code32",
        "mov edi, ebx",
        "mov eax, 0x80000000",
        "cpuid",
        "cmp eax, 0x80000001",
        "jb 2f",
        "mov eax, 0x80000001",
        "cpuid",
        "and edx, {needed}",
        "cmp edx, {needed}",
        "jne 2f",
        "mov ebx, edi",
        "jmp {enter}",
        "2:",
        "lea esi, [{text}]",
        "mov ecx, {length}",
        "mov edx, {serial}",
        "cld",
        "rep outsb",
        "mov edx, {debug_exit}",
        "mov eax, {status}",
        "out dx, al",
        "3:",
        "hlt",
        "jmp 3b",
        ".code64",
        needed = const NEEDED,
        enter = sym enter_from_32_bits,
        text = sym WRONG_PROCESSOR,
        length = const WRONG_PROCESSOR.len(),
        serial = const ports::SERIAL,
        debug_exit = const ports::DEBUG_EXIT,
        status = const fogbow::status::ABORT,
    )
}

static WRONG_PROCESSOR: [u8; 99] = *b"cannot start: the processor has no 64-bit mode, or no NX: give QEMU another -cpu, such as -cpu max\n";

/// Not zero when a multiboot loader started the image: written by the first instructions.
pub(crate) static BY_MULTIBOOT: AtomicU8 = AtomicU8::new(0);

/// The lowest address that a loader may use: QEMU's leaves its memory map in the first page, where nothing but the null pointer is out of bounds.
const LOWEST: u64 = 8;

/// Page tables for devices beyond 4 GiB: two for each place that is far from all others, and firmware puts devices together.
const SPARE_TABLES: u64 = 4;

/// The first Rust code: reads what the loader says, lays memory out, and goes on in the image's main function.
///
/// # Safety
/// Called once, by the entry code, with the address of the loader's information and a true [`Program`].
pub unsafe extern "C" fn prepare(info: *mut c_void, program: &Program) -> ! {
    // SAFETY: the page of ring 0 is free to change here; the gates' handlers keep all registers.
    unsafe {
        entry::allow_ports(ports::ALLOWED);
        for (vector, gate) in apic::gates().into_iter().chain([button::gate(), entry::devices::gate()]) {
            entry::set_gate(vector, gate);
        }
    }
    serial::set_up();
    let image = program.start.addr() as u64..program.end.addr() as u64;
    // SAFETY: the tables of the entry code map all memory up to there, and what the loader left beside the image stays as it is until the tables are laid out.
    let bytes = |range: Range<u64>| unsafe {
        core::slice::from_raw_parts(core::ptr::with_exposed_provenance(range.start as usize), (range.end - range.start) as usize)
    };
    let reach = Reach([LOWEST..image.start, image.end..entry::REACH].map(|range| (range.start, bytes(range))));
    let protocol = if BY_MULTIBOOT.load(Ordering::Relaxed) == 0 { Protocol::Pvh } else { Protocol::Multiboot };
    let said = match loader::read(protocol, info.addr() as u64, &image, reach) {
        Ok(said) => said,
        Err(error) => fail(&error),
    };
    // SAFETY: this runs once, and nothing else refers to it; from here on it is read alone.
    let line: &'static mut [u8] = unsafe { &mut *COMMAND_LINE.get() };
    let (line, _) = line.split_at_mut(said.command_line.len());
    line.copy_from_slice(said.command_line);
    let command_line: &'static [u8] = line;
    let memory = said.memory.min(HIGHEST - LARGE_PAGE) / PAGE * PAGE;
    // What lies beyond the memory up to 4 GiB are ACPI's tables and the devices.
    let given = Given { memory, handed_over: FIRMWARE, shared: Some(memory..HIGHEST), high: said.high, spare_tables: SPARE_TABLES };
    // SAFETY: this is the program's `prepare`, which runs once.
    match unsafe { entry::prepare(program, &given) } {
        Ok(Prepared { layout, root }) => {
            let stack_end = layout.stack.end;
            let boot = Boot { layout, protocol, root_pointer: said.root_pointer, command_line };
            // SAFETY: nothing has read it yet; nothing on this stack is used again.
            unsafe {
                *BOOT.get() = Some(boot);
                entry::start(program, root, stack_end, clock::kvm::registers())
            }
        }
        Err(error) => fail(&error),
    }
}

/// Ends an image that cannot start.
fn fail(error: &dyn core::fmt::Display) -> ! {
    console::write_to(&mut serial::puts, format_args!("cannot start: {error}\n"));
    power::end(fogbow::status::ABORT)
}
