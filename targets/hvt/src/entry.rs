//! From the tender's first instruction, in ring 0, to the image's own code, in ring 3; and back to ring 0 for a moment when something faults.
//!
//! An image runs in ring 3, under page tables of its own: no code of the application can run a privileged instruction or change what memory allows,
//! on any host; and on hosts whose hypervisor is software, which emulates ring 0 instruction by instruction, ring 3 alone runs at full speed. Ring 0
//! is therefore a few dozen instructions of assembler, here. They use general registers only: such a hypervisor emulates no SSE, and the compiler
//! uses SSE wherever it likes. Everything else, building tables and reporting faults included, is Rust in ring 3:
//!
//! 1. [`enter`], ring 0: coarse page tables under which everything is allowed, the descriptors, and the first step into ring 3;
//! 2. [`prepare`], ring 3, on the fault stack: lays memory out, builds the final page tables and the gates;
//! 3. [`switch_gate`], ring 0, by `int3`, once: loads the final page tables; from here on the tables and the descriptors are out of reach;
//! 4. the image's main function, ring 3, on its stack;
//! 5. a fault: [`fault_gate`], ring 0, writes down what the processor said and goes back to ring 3, to [`report`](crate::fault::report) on the
//!    fault stack. A fault during that ends the image from ring 0.
//!
//! Faults never use the stack they happen on, so the red zone that compiled code relies on is safe.
//! Limits: no interrupts, one processor; supervisor-mode execution prevention (CR4.SMEP) stays off, as ring 0 shares the image's code pages.

use core::arch::{asm, naked_asm};
use core::cell::UnsafeCell;
use core::mem::offset_of;

use fogbow::console::ChunkWriter;

use crate::boot_info::BootInfo;
use crate::descriptors::{Gate, RING3_CODE, RING3_DATA, SEGMENTS, TASK, TASK_RING0_STACK, TaskState};
use crate::fault::{self, Fault};
use crate::hypercall::{self, Halt, Hypercall, PORTS, Puts};
use crate::layout::{Given, Layout, Parts};
use crate::paging::{FIRST_LARGE_PAGE, PAGE, TABLE_ENTRY, Table};
use crate::ring::SharedRing;

/// What the linker knows of an image, for the entry code: the symbols that `image.ld` of `fogbow-solo5` defines.
#[repr(C)]
pub struct Program {
    /// `fogbow_text_start`.
    pub start: *const u8,
    /// `fogbow_text_end`.
    pub code_end: *const u8,
    /// `fogbow_stack_guard`.
    pub guard: *const u8,
    /// `fogbow_stack_bottom`.
    pub stack: *const u8,
    /// `fogbow_stack_top`.
    pub stack_end: *const u8,
    /// `fogbow_end`.
    pub end: *const u8,
    /// Where the image goes on in ring 3, on its stack and under its own page tables.
    pub main: extern "C" fn() -> !,
}

// SAFETY: nothing is ever read or written through the pointers: they are addresses.
unsafe impl Sync for Program {}

/// What the image knows when its main function begins.
pub(crate) struct Boot {
    pub(crate) info: BootInfo,
    pub(crate) layout: Layout,
}

/// What [`prepare`] found out; `None` before.
pub(crate) fn boot() -> Option<&'static Boot> {
    // SAFETY: written once, by `prepare`, before any code that reads it runs; there is one thread.
    unsafe { (*BOOT.0.get()).as_ref() }
}

/// The first instructions of every image, which its `_start` jumps to.
///
/// # Safety
/// Called once, by a tender of the hvt ABI, in ring 0 of 64-bit mode, with RDI holding the address of its boot information and RSI that of a
/// [`Program`] whose addresses are true.
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
        "lea ecx, [rbx + {task}]",
        "mov [rbx + {task_segment} + 2], cx",
        "shr ecx, 16",
        "mov [rbx + {task_segment} + 4], cl",
        "mov [rbx + {task_segment} + 7], ch",
        "lea rcx, [rip + {switch_gate}]",
        "mov [rbx + {gates} + 3 * 16], cx",
        "shr ecx, 16",
        "mov [rbx + {gates} + 3 * 16 + 6], cx",
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
        "lea rax, [rip + {prepare}]",
        "push rax",
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
        task_segment = const offset_of!(Ring0, segments) + TASK as usize,
        task_selector = const TASK,
        switch_gate = sym switch_gate,
        fault_stack = sym FAULT_STACK,
        fault_stack_size = const FAULT_STACK_SIZE,
        ring3_data = const RING3_DATA,
        ring3_code = const RING3_CODE,
        prepare = sym prepare,
    )
}

/// Bytes of the stack that [`prepare`] and the fault report run on.
const FAULT_STACK_SIZE: usize = 16 << 10;

/// Interrupt vectors of the processor's own (Intel SDM volume 3A, chapter 6.3.1).
const VECTORS: usize = 32;

/// The vector of `int3`.
const BREAKPOINT: usize = 3;

/// Bytes between the entry points in [`fault_gates`].
const FAULT_GATE_SIZE: u64 = 16;

/// What `lgdt` and `lidt` read, at `limit`.
#[repr(C)]
struct TablePointer {
    padding: [u16; 3],
    limit: u16,
    base: u64,
}

impl TablePointer {
    const fn new(size: usize) -> Self {
        Self { padding: [0; 3], limit: (size - 1) as u16, base: 0 }
    }
}

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
    task: TaskState,
    gates: [Gate; VECTORS],
    stack: [u8; 3152],
}

const _: () = assert!(size_of::<Ring0>() == PAGE as usize);

/// Something that is written before anything reads it, or by assembler alone.
#[repr(transparent)]
struct Shared<T>(UnsafeCell<T>);

// SAFETY: an image has one thread, and the accesses through the cell each say why they exclude each other.
unsafe impl<T> Sync for Shared<T> {}

#[repr(C, align(16))]
struct Stack<const SIZE: usize>([u8; SIZE]);

static RING0: Shared<Ring0> = Shared(UnsafeCell::new(Ring0 {
    segments: SEGMENTS,
    segments_pointer: TablePointer::new(size_of::<[u64; SEGMENTS.len()]>()),
    gates_pointer: TablePointer::new(size_of::<[Gate; VECTORS]>()),
    switched: 0,
    faulted: 0,
    task: TaskState::new(),
    gates: [Gate::new(0, 3); VECTORS],
    stack: [0; _],
}));

static FIRST_TABLES: Shared<[Table; 3]> = Shared(UnsafeCell::new([Table::EMPTY; 3]));
static FAULT_STACK: Shared<Stack<FAULT_STACK_SIZE>> = Shared(UnsafeCell::new(Stack([0; _])));
static FAULT: Shared<Fault> = Shared(UnsafeCell::new(Fault::NONE));
static BOOT: Shared<Option<Boot>> = Shared(UnsafeCell::new(None));

/// The gate of `int3`. The first time: goes on in ring 3 with RDI as the root of the page tables, RSI as the stack pointer, at RDX. Then: a fault.
#[unsafe(naked)]
unsafe extern "C" fn switch_gate() -> ! {
    naked_asm!(
        "cmp qword ptr [rip + {ring0} + {switched}], 0",
        "jne 2f",
        "mov byte ptr [rip + {ring0} + {switched}], 1",
        "mov cr3, rdi",
        "mov [rsp], rdx",
        "mov [rsp + 24], rsi",
        "iretq",
        "2:",
        "push 0",
        "push {breakpoint}",
        "jmp {fault_gate}",
        ring0 = sym RING0,
        switched = const offset_of!(Ring0, switched),
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
        "pop qword ptr [rip + {fault}]",
        "pop qword ptr [rip + {fault} + 8]",
        "pop qword ptr [rip + {fault} + 16]",
        "pop qword ptr [rip + {fault} + 24]",
        "add rsp, 8",
        "pop qword ptr [rip + {fault} + 32]",
        "mov rax, cr2",
        "mov [rip + {fault} + 40], rax",
        "lea rsp, [rip + {ring0} + {page}]",
        "push {ring3_data}",
        "lea rax, [rip + {fault_stack} + {fault_stack_size} - 8]",
        "push rax",
        "push 2",
        "push {ring3_code}",
        "lea rax, [rip + {report}]",
        "push rax",
        "lea rdi, [rip + {fault}]",
        "iretq",
        "2:",
        "lea rax, [rip + {last_words}]",
        "mov edx, {puts}",
        "out dx, eax",
        "lea rax, [rip + {halt_argument}]",
        "mov edx, {halt}",
        "3:",
        "out dx, eax",
        "jmp 3b",
        ring0 = sym RING0,
        faulted = const offset_of!(Ring0, faulted),
        fault = sym FAULT,
        page = const PAGE,
        ring3_data = const RING3_DATA,
        ring3_code = const RING3_CODE,
        fault_stack = sym FAULT_STACK,
        fault_stack_size = const FAULT_STACK_SIZE,
        report = sym fault::report,
        last_words = sym LAST_WORDS,
        puts = const PORTS + Hypercall::Puts as u16,
        halt_argument = sym HALT,
        halt = const PORTS + Hypercall::Halt as u16,
    )
}

static LAST_WORDS_TEXT: [u8; 40] = *b"fault: another fault while reporting it\n";
static LAST_WORDS: Shared<Puts> = Shared(UnsafeCell::new(Puts { data: LAST_WORDS_TEXT.as_ptr(), length: LAST_WORDS_TEXT.len() as u64 }));
static HALT: Shared<Halt> = Shared(UnsafeCell::new(Halt { cookie: core::ptr::null(), status: fogbow::status::ABORT as i32 }));

/// The first Rust code: lays memory out, builds what [`enter`] could not, and goes on in the image's main function.
///
/// # Safety
/// Called once, by [`enter`], with the tender's boot information and a true [`Program`].
unsafe extern "C" fn prepare(info: *mut BootInfo, program: &Program) -> ! {
    let info_address = info.addr() as u64;
    // SAFETY: the tender's structure is valid; the tables of `enter` allow to write it, which nothing else does.
    let info = unsafe {
        (*info).accept();
        *info
    };
    // SAFETY: ring 0 does not run now; the tables of `enter` allow to write its page.
    let gates = unsafe { &mut (*RING0.0.get()).gates };
    let first = (fault_gates as *const () as u64).next_multiple_of(FAULT_GATE_SIZE);
    for (vector, gate) in (0..).zip(gates).filter(|(vector, _)| *vector != BREAKPOINT as u64) {
        *gate = Gate::new(first + vector * FAULT_GATE_SIZE, 0);
    }
    let parts = Parts {
        start: program.start.addr() as u64,
        code_end: program.code_end.addr() as u64,
        guard: program.guard.addr() as u64,
        stack: program.stack.addr() as u64,
        stack_end: program.stack_end.addr() as u64,
        end: program.end.addr() as u64,
        ring0: RING0.0.get().addr() as u64,
    };
    let given = Given {
        memory: info.memory,
        handed_over: info.extent(info_address, parts.start),
        ring: info.ring().map(|ring| ring..ring.saturating_add(size_of::<SharedRing>() as u64)),
    };
    let layout = match Layout::new(&parts, &given) {
        Ok(layout) => layout,
        Err(error) => fail(&error),
    };
    let count = (layout.tables.end - layout.tables.start) / PAGE;
    let tables = core::ptr::with_exposed_provenance_mut::<Table>(layout.tables.start as usize);
    // SAFETY: the layout says that nothing else lies there, and that it lies within the four MiB after the image that `enter` mapped.
    let tables = unsafe { core::slice::from_raw_parts_mut(tables, count as usize) };
    let root = match layout.build_tables(tables) {
        Ok(root) => root,
        Err(error) => fail(&error),
    };
    let stack = layout.stack.end - 8;
    // SAFETY: nothing has read it yet.
    unsafe { *BOOT.0.get() = Some(Boot { info, layout }) };
    // SAFETY: the tables map all that the image uses, and nothing on this stack is used again. The stack pointer is 8 below a multiple of 16, as at
    // the beginning of every function.
    unsafe { asm!("int3", in("rdi") root, in("rsi") stack, in("rdx") program.main, options(noreturn)) }
}

/// Ends an image that cannot start.
fn fail(error: &dyn core::error::Error) -> ! {
    // The writer itself never fails.
    let _ = core::fmt::write(&mut ChunkWriter::new(hypercall::puts), format_args!("cannot start: {error}\n"));
    hypercall::halt(fogbow::status::ABORT)
}
