//! From the first instruction of an image, in ring 0, to its own code, in ring 3; and back to ring 0 for a moment when something faults.
//!
//! An image runs in ring 3, under page tables of its own: no code of the application can run a privileged instruction or change what memory allows,
//! on any host; and on hosts whose hypervisor is software, which emulates ring 0 instruction by instruction, ring 3 alone runs at full speed. Ring 0
//! is therefore a few dozen instructions of assembler, here. They use general registers only: such a hypervisor emulates no SSE, and the compiler
//! uses SSE wherever it likes. Everything else, building tables and reporting faults included, is Rust in ring 3:
//!
//! 1. [`enter`], ring 0: coarse page tables under which everything is allowed, the descriptors, and the first step into ring 3;
//! 2. [`Program::prepare`], ring 3, on the fault stack: the target's; by [`prepare`] it lays memory out, builds the final page tables and the gates;
//! 3. `switch_gate`, ring 0, by `int3`, once: loads the final page tables; from here on the tables and the descriptors are out of reach;
//! 4. the image's main function, ring 3, on its stack;
//! 5. a fault: `fault_gate`, ring 0, writes down what the processor said and goes back to ring 3, to [`Handlers::report`] on the fault stack. A fault
//!    during that ends the image from ring 0, by [`Handlers::last_words`].
//!
//! Faults never use the stack they happen on, so the red zone that compiled code relies on is safe.
//!
//! A target that stays in ring 0, under page tables that another made, calls [`install`] instead of all that: faults then come to its report in ring 0,
//! on the fault stack.
//! Limits: one processor, no interrupts but those that a target adds with [`set_gate`]; supervisor-mode execution prevention (CR4.SMEP) stays off, as
//! ring 0 shares the image's code pages.

use core::arch::{asm, naked_asm};
use core::fmt;
use core::mem::offset_of;
use core::ops::Range;

use crate::descriptors::{
    Gate, RING0_CODE, RING0_DATA, RING3_CODE, RING3_DATA, SEGMENTS, TASK, TASK_OWN_STACK, TASK_RING0_STACK, TablePointer, TaskState,
};
use crate::fault::{self, Fault};
use crate::layout::{Given, Layout, LayoutError, Parts};
use crate::paging::devices::Spare;
use crate::paging::{FIRST_LARGE_PAGE, PAGE, PagingError, TABLE_ENTRY, Table};
use crate::program::{Handlers, Program};
use crate::shared::Shared;

pub mod devices;
mod from_32_bits;

pub use from_32_bits::{REACH, enter_from_32_bits};

/// From ring 0 to [`Program::prepare`]: what the first instructions of an image jump to.
///
/// # Safety
/// Called once, in ring 0 of 64-bit mode with memory mapped to itself as far as 6 MiB beyond the image, with RDI holding what `prepare` wants (an
/// address of what the host says) and RSI the address of a [`Program`] whose addresses are true.
#[unsafe(naked)]
pub unsafe extern "C" fn enter() -> ! {
    naked_asm!(
        "cld",
        // Page tables: one entry each in the root and below it, then as many large pages as hold the image and four MiB beyond.
        "lea rax, [rip + {tables}]",
        "lea rcx, [rax + {page} + {table_entry}]",
        "mov [rax], rcx",
        "lea rcx, [rax + 2 * {page} + {table_entry}]",
        "mov [rax + {page}], rcx",
        "lea rdx, [rax + 2 * {page}]",
        "mov r8, [rsi + {program_end}]",
        "shr r8, 21",
        "add r8, 3",
        "mov ecx, {large_page}",
        "2:",
        "mov [rdx], rcx",
        "add rcx, 0x200000",
        "add rdx, 8",
        "dec r8",
        "jnz 2b",
        // Descriptors: the addresses that the compiler could not put into them.
        "lea rbx, [rip + {ring0}]",
        "mov [rbx + {segments_base}], rbx",
        "lea rcx, [rbx + {gates}]",
        "mov [rbx + {gates_base}], rcx",
        "lea rcx, [rbx + {page}]",
        "mov [rbx + {task} + {task_stack}], rcx",
        "mov [rbx + {task} + {own_stack}], rcx",
        "lea ecx, [rbx + {task}]",
        "mov [rbx + {task_segment} + 2], cx",
        "shr ecx, 16",
        "mov [rbx + {task_segment} + 4], cl",
        "mov [rbx + {task_segment} + 7], ch",
        "lea rcx, [rip + {switch_gate}]",
        "mov [rbx + {gates} + 3 * 16], cx",
        "shr ecx, 16",
        "mov [rbx + {gates} + 3 * 16 + 6], cx",
        "mov rcx, [rsi + {program_report}]",
        "mov [rbx + {report}], rcx",
        "mov rcx, [rsi + {program_last_words}]",
        "mov [rbx + {last_words}], rcx",
        "lgdt [rbx + {segments_base} - 2]",
        "lidt [rbx + {gates_base} - 2]",
        "mov ecx, {task_selector}",
        "ltr cx",
        // EFER.NXE: pages that cannot be executed.
        "mov ecx, 0xc0000080",
        "mov r8, rax",
        "rdmsr",
        "or eax, 0x800",
        "wrmsr",
        "mov cr3, r8",
        // To ring 3. RDI and RSI hold what they held.
        "lea rsp, [rbx + {page}]",
        "mov ecx, {ring3_data}",
        "mov ds, ecx",
        "mov es, ecx",
        "push rcx",
        "lea rax, [rip + {fault_stack} + {fault_stack_size} - 8]",
        "push rax",
        "push 2",
        "push {ring3_code}",
        "push qword ptr [rsi + {program_prepare}]",
        "iretq",
        tables = sym FIRST_TABLES,
        page = const PAGE,
        table_entry = const TABLE_ENTRY,
        large_page = const FIRST_LARGE_PAGE,
        program_end = const offset_of!(Program, end),
        ring0 = sym RING0,
        segments_base = const offset_of!(Ring0, segments_pointer) + offset_of!(TablePointer, base),
        gates_base = const offset_of!(Ring0, gates_pointer) + offset_of!(TablePointer, base),
        gates = const offset_of!(Ring0, gates),
        task = const offset_of!(Ring0, task),
        task_stack = const TASK_RING0_STACK,
        own_stack = const TASK_OWN_STACK,
        task_segment = const offset_of!(Ring0, segments) + TASK as usize,
        task_selector = const TASK,
        switch_gate = sym switch_gate,
        fault_stack = sym FAULT_STACK,
        fault_stack_size = const FAULT_STACK_SIZE,
        ring3_data = const RING3_DATA,
        ring3_code = const RING3_CODE,
        program_prepare = const offset_of!(Program, prepare),
        program_report = const offset_of!(Program, handlers) + offset_of!(Handlers, report),
        program_last_words = const offset_of!(Program, handlers) + offset_of!(Handlers, last_words),
        report = const offset_of!(Ring0, report),
        last_words = const offset_of!(Ring0, last_words),
    )
}

/// Bytes of the stack that [`Program::prepare`] and the fault report run on.
pub const FAULT_STACK_SIZE: usize = 16 << 10;

/// Vectors of the processor's own (Intel SDM volume 3A, chapter 6.3.1).
pub const FAULTS: usize = 32;

/// Vectors that have a gate.
pub const VECTORS: usize = 64;

/// The vector of `int3`.
const BREAKPOINT: usize = 3;

/// Bytes between the entry points in [`fault_gates`].
const FAULT_GATE_SIZE: u64 = 16;

/// All memory of ring 0 but the page tables: one page, which ring 3 cannot touch once [`switch_gate`] has run.
#[repr(C, align(4096))]
struct Ring0 {
    segments: [u64; SEGMENTS.len()],
    segments_pointer: TablePointer,
    gates_pointer: TablePointer,
    /// Not zero when the final page tables are in place.
    switched: u64,
    /// Not zero when a fault has happened.
    faulted: u64,
    /// [`Handlers::report`] and [`Handlers::last_words`].
    report: u64,
    last_words: u64,
    /// The segments that the report runs with: those of ring 3, or of ring 0 where the image stays there.
    report_code: u64,
    report_data: u64,
    /// Page tables for devices.
    spare: Spare,
    task: TaskState,
    gates: [Gate; VECTORS],
    stack: [u8; PAGE as usize - RING0_USED],
}

/// Bytes of [`Ring0`] before its stack.
const RING0_USED: usize = size_of::<[u64; SEGMENTS.len()]>()
    + 2 * size_of::<TablePointer>()
    + 6 * size_of::<u64>()
    + size_of::<Spare>()
    + size_of::<TaskState>()
    + size_of::<[Gate; VECTORS]>();

const _: () = assert!(size_of::<Ring0>() == PAGE as usize);

#[repr(C, align(16))]
struct Stack<const SIZE: usize>([u8; SIZE]);

static RING0: Shared<Ring0> = Shared::new(Ring0 {
    segments: SEGMENTS,
    segments_pointer: TablePointer::new(size_of::<[u64; SEGMENTS.len()]>()),
    gates_pointer: TablePointer::new(size_of::<[Gate; VECTORS]>()),
    switched: 0,
    faulted: 0,
    report: 0,
    last_words: 0,
    report_code: RING3_CODE as u64,
    report_data: RING3_DATA as u64,
    spare: Spare { next: 0, end: 0 },
    task: TaskState::new(),
    gates: [Gate::new(0, 3); VECTORS],
    stack: [0; _],
});

static FIRST_TABLES: Shared<[Table; 3]> = Shared::new([Table::EMPTY; 3]);
static FAULT_STACK: Shared<Stack<FAULT_STACK_SIZE>> = Shared::new(Stack([0; _]));
static FAULT: Shared<Fault> = Shared::new(Fault::NONE);

/// A model-specific register (Intel SDM volume 4), and what is written to it.
#[derive(Clone, Copy, Debug)]
#[repr(C)]
pub struct ModelSpecific {
    /// Its number.
    pub register: u32,
    /// The value.
    pub value: u64,
}

/// The gate of `int3`. The first time: writes R8 model-specific registers from R9 on, and goes on in ring 3 with RDI as the root of the page tables, RSI
/// as the stack pointer, at R10. Then: a fault.
#[unsafe(naked)]
unsafe extern "C" fn switch_gate() -> ! {
    naked_asm!(
        "cmp qword ptr [rip + {ring0} + {switched}], 0",
        "jne 2f",
        "mov byte ptr [rip + {ring0} + {switched}], 1",
        "3:",
        "sub r8, 1",
        "jb 4f",
        "mov ecx, [r9]",
        "mov eax, [r9 + {value}]",
        "mov edx, [r9 + {value} + 4]",
        "wrmsr",
        "add r9, {model_specific}",
        "jmp 3b",
        "4:",
        "mov cr3, rdi",
        "mov [rsp], r10",
        "mov [rsp + 24], rsi",
        "iretq",
        "2:",
        "push 0",
        "push {breakpoint}",
        "jmp {fault_gate}",
        ring0 = sym RING0,
        switched = const offset_of!(Ring0, switched),
        value = const offset_of!(ModelSpecific, value),
        model_specific = const size_of::<ModelSpecific>(),
        breakpoint = const BREAKPOINT,
        fault_gate = sym fault_gate,
    )
}

/// One entry point per vector, [`FAULT_GATE_SIZE`] bytes apart from the first multiple of that on. The mask names the vectors for which the processor
/// pushes an error code; for the others a zero takes its place.
#[unsafe(naked)]
unsafe extern "C" fn fault_gates() -> ! {
    naked_asm!(
        ".irp vector, 0,1,2,3,4,5,6,7,8,9,10,11,12,13,14,15,16,17,18,19,20,21,22,23,24,25,26,27,28,29,30,31",
        ".balign 16",
        ".if ((0x60227d00 >> \\vector) & 1) == 0",
        "push 0",
        ".endif",
        "push \\vector",
        "jmp {fault_gate}",
        ".endr",
        fault_gate = sym fault_gate,
    )
}

/// Writes down a fault and reports it in ring 3; ends the image if that faults too.
#[unsafe(naked)]
unsafe extern "C" fn fault_gate() -> ! {
    naked_asm!(
        "cmp qword ptr [rip + {ring0} + {faulted}], 0",
        "jne 2f",
        "mov byte ptr [rip + {ring0} + {faulted}], 1",
        "mov [rip + {fault} + {registers} + 0 * 8], rax",
        "mov [rip + {fault} + {registers} + 1 * 8], rbx",
        "mov [rip + {fault} + {registers} + 2 * 8], rcx",
        "mov [rip + {fault} + {registers} + 3 * 8], rdx",
        "mov [rip + {fault} + {registers} + 4 * 8], rsi",
        "mov [rip + {fault} + {registers} + 5 * 8], rdi",
        "mov [rip + {fault} + {registers} + 6 * 8], rbp",
        "mov [rip + {fault} + {registers} + 7 * 8], r8",
        "mov [rip + {fault} + {registers} + 8 * 8], r9",
        "mov [rip + {fault} + {registers} + 9 * 8], r10",
        "mov [rip + {fault} + {registers} + 10 * 8], r11",
        "mov [rip + {fault} + {registers} + 11 * 8], r12",
        "mov [rip + {fault} + {registers} + 12 * 8], r13",
        "mov [rip + {fault} + {registers} + 13 * 8], r14",
        "mov [rip + {fault} + {registers} + 14 * 8], r15",
        "pop qword ptr [rip + {fault}]",
        "pop qword ptr [rip + {fault} + 8]",
        "pop qword ptr [rip + {fault} + 16]",
        "pop qword ptr [rip + {fault} + 24]",
        "pop qword ptr [rip + {fault} + {flags}]",
        "pop qword ptr [rip + {fault} + 32]",
        "mov rax, cr2",
        "mov [rip + {fault} + {address}], rax",
        "lea rsp, [rip + {ring0} + {page}]",
        "push qword ptr [rip + {ring0} + {report_data}]",
        "lea rax, [rip + {fault_stack} + {fault_stack_size} - 8]",
        "push rax",
        "push 2",
        "push qword ptr [rip + {ring0} + {report_code}]",
        "push qword ptr [rip + {ring0} + {report}]",
        "lea rdi, [rip + {fault}]",
        "iretq",
        "2:",
        "lea rsp, [rip + {ring0} + {page}]",
        "jmp qword ptr [rip + {ring0} + {last_words}]",
        ring0 = sym RING0,
        faulted = const offset_of!(Ring0, faulted),
        report = const offset_of!(Ring0, report),
        report_code = const offset_of!(Ring0, report_code),
        report_data = const offset_of!(Ring0, report_data),
        last_words = const offset_of!(Ring0, last_words),
        fault = sym FAULT,
        registers = const fault::FIRST_REGISTER,
        flags = const fault::FLAGS,
        address = const fault::ADDRESS,
        page = const PAGE,
        fault_stack = sym FAULT_STACK,
        fault_stack_size = const FAULT_STACK_SIZE,
    )
}

/// Why an image cannot run where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PrepareError {
    /// Memory cannot be laid out.
    Layout(LayoutError),
    /// Page tables cannot be built.
    Paging(PagingError),
}

impl fmt::Display for PrepareError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Layout(error) => error.fmt(f),
            Self::Paging(error) => error.fmt(f),
        }
    }
}

impl core::error::Error for PrepareError {}

/// An image that is ready to run under its own page tables.
#[derive(Clone, Debug)]
pub struct Prepared {
    /// Where everything lies.
    pub layout: Layout,
    /// The address of the root of the page tables.
    pub root: u64,
}

/// Lays memory out, and builds what [`enter`] could not: the gates and the page tables.
///
/// # Errors
/// [`PrepareError`] when that cannot be done with what the host gave.
///
/// # Safety
/// Called once, within [`Program::prepare`], with the program that it got.
pub unsafe fn prepare(program: &Program, given: &Given) -> Result<Prepared, PrepareError> {
    // SAFETY: ring 0 does not run now; the tables of `enter` allow to write its page.
    fill_gates(unsafe { &mut (*RING0.get()).gates });
    let parts = Parts {
        start: program.start.addr() as u64,
        code_end: program.code_end.addr() as u64,
        guard: program.guard.addr() as u64,
        stack: program.stack.addr() as u64,
        stack_end: program.stack_end.addr() as u64,
        end: program.end.addr() as u64,
        ring0: RING0.get().addr() as u64,
    };
    let layout = Layout::new(&parts, given).map_err(PrepareError::Layout)?;
    let count = (layout.tables.end - layout.tables.start) / PAGE;
    let tables = core::ptr::with_exposed_provenance_mut::<Table>(layout.tables.start as usize);
    // SAFETY: the layout says that nothing else lies there, and that it lies within the four MiB after the image that `enter` mapped.
    let tables = unsafe { core::slice::from_raw_parts_mut(tables, count as usize) };
    let root = layout.build_tables(tables).map_err(PrepareError::Paging)?;
    // SAFETY: as for the gates.
    unsafe { (*RING0.get()).spare = layout.spare() };
    Ok(Prepared { layout, root })
}

/// Goes on in the image's main function, under the page tables with this root and on the stack that ends at `stack_end`, when these model-specific registers
/// are written.
///
/// # Safety
/// Called once, within [`Program::prepare`], with what [`prepare`] gave; nothing on the present stack is used again. The processor has the registers, and
/// their values change nothing that the image relies on.
pub unsafe fn start(program: &Program, root: u64, stack_end: u64, registers: &[ModelSpecific]) -> ! {
    // SAFETY: the tables map all that the image uses. The stack pointer is 8 below a multiple of 16, as at the beginning of every function.
    unsafe {
        asm!(
            "int3",
            in("rdi") root,
            in("rsi") stack_end - 8,
            in("r8") registers.len(),
            in("r9") registers.as_ptr(),
            in("r10") program.main,
            options(noreturn),
        )
    }
}

/// Lets ring 3 use `ports`, as far as they lie below [`PORTS`](crate::descriptors::PORTS).
///
/// # Safety
/// Called within [`Program::prepare`]: the page of ring 0 can be written, and nothing else refers to it.
pub unsafe fn allow_ports(ports: Range<u16>) {
    // SAFETY: passed on to the caller.
    unsafe { (*RING0.get()).task.allow(ports) };
}

/// Sets the gate of a vector beyond the processor's own: an interrupt's, or a service's.
///
/// # Panics
/// When `vector` has no gate.
///
/// # Safety
/// As [`allow_ports`], before [`start`]; and the gate's handler keeps all registers.
pub unsafe fn set_gate(vector: usize, gate: Gate) {
    // SAFETY: passed on to the caller.
    unsafe { (*RING0.get()).gates[vector] = gate };
}

fn fill_gates(gates: &mut [Gate; VECTORS]) {
    let first = (fault_gates as *const () as u64).next_multiple_of(FAULT_GATE_SIZE);
    for (vector, gate) in (0..).zip(gates).take(FAULTS).filter(|(vector, _)| *vector != BREAKPOINT as u64) {
        // A fault in a service or an interrupt's handler too finds a stack that works.
        *gate = Gate::new(first + vector * FAULT_GATE_SIZE, 0).on_own_stack();
    }
}

/// For an image that stays in ring 0, under page tables that another made: segments, a task state segment, and gates for all faults, which come to
/// `handlers.report` in ring 0 on a stack of its own. Interrupts stay as they are; vectors beyond the processor's own have no gate.
///
/// # Safety
/// Called once, in ring 0 of 64-bit mode, with interrupts off, by an image that does not use [`enter`]; the image's code and data are mapped to
/// themselves, readable, its data writable.
pub unsafe fn install(handlers: Handlers) {
    let ring0 = RING0.get();
    // SAFETY: called once: nothing refers to the page yet, and no fault handler is in place that would.
    let (segments, gates) = unsafe {
        let state = &mut *ring0;
        let base = ring0.addr() as u64;
        let task = (&raw const state.task).addr() as u64;
        state.segments[usize::from(TASK >> 3)] |= (task & 0xff_ffff) << 16 | (task >> 24 & 0xff) << 56;
        state.segments[usize::from(TASK >> 3) + 1] = task >> 32;
        state.task.set_stack(base + PAGE);
        fill_gates(&mut state.gates);
        let breakpoint = (fault_gates as *const () as u64).next_multiple_of(FAULT_GATE_SIZE) + BREAKPOINT as u64 * FAULT_GATE_SIZE;
        state.gates[BREAKPOINT] = Gate::new(breakpoint, 0).on_own_stack();
        state.report = handlers.report as usize as u64;
        state.last_words = handlers.last_words as usize as u64;
        (state.report_code, state.report_data) = (RING0_CODE.into(), RING0_DATA.into());
        state.segments_pointer.base = base;
        state.gates_pointer.base = (&raw const state.gates).addr() as u64;
        (&raw const state.segments_pointer.limit, &raw const state.gates_pointer.limit)
    };
    // SAFETY: the tables are complete and stay for ever; the far return goes on at the next instruction, in the same ring.
    unsafe {
        asm!(
            "lgdt [{segments}]",
            "lidt [{gates}]",
            "mov {scratch:e}, {task}",
            "ltr {scratch:x}",
            "mov {scratch:e}, {data}",
            "mov ds, {scratch:e}",
            "mov es, {scratch:e}",
            "mov ss, {scratch:e}",
            "push {code}",
            "lea {scratch}, [rip + 2f]",
            "push {scratch}",
            "retfq",
            "2:",
            segments = in(reg) segments,
            gates = in(reg) gates,
            scratch = out(reg) _,
            task = const TASK,
            data = const RING0_DATA,
            code = const RING0_CODE,
        );
    }
}
