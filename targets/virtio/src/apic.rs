//! The local interrupt controller (Intel SDM volume 3A, chapter 11): a timer and devices that end the halt, and the halt itself.
//!
//! Interrupts are on only within the service of [`halt`], and their handlers do nothing but acknowledge, if that: whoever halted looks for what happened.

use core::arch::{asm, naked_asm};
use core::sync::atomic::{AtomicU8, Ordering};

use fogbow_x86::descriptors::Gate;

use crate::ports;

/// Where the controller's registers are. Firmware leaves them there.
pub(crate) const BASE: usize = 0xfee0_0000;

/// Registers (table 11-1).
const ID: usize = 0x20;
pub(crate) const END_OF_INTERRUPT: usize = 0xb0;
const SPURIOUS: usize = 0xf0;
const TIMER: usize = 0x320;
const INITIAL_COUNT: usize = 0x380;
const CURRENT_COUNT: usize = 0x390;
const DIVIDER: usize = 0x3e0;

/// The controller is on (in [`SPURIOUS`]).
const ENABLED: u32 = 1 << 8;

/// An entry of the local vector table is masked.
const MASKED: u32 = 1 << 16;

/// The timer counts every 16th tick (in [`DIVIDER`]).
const BY_16: u32 = 3;

/// The service that halts.
const HALT_VECTOR: usize = 48;

/// The timer's interrupt.
const TIMER_VECTOR: usize = 49;

/// The interrupt of devices that send messages.
const DEVICE_VECTOR: usize = 50;

/// The interrupt of devices that raise lines. It has ended when [`end_of_interrupt`] says so.
pub(crate) const LINE_VECTOR: usize = 51;

/// The interrupt of devices that send messages when something about them has changed. The two between are the button's and the page tables'.
const CHANGE_VECTOR: usize = 54;

/// The interrupt that was none. Its low four bits are ones, as older controllers want them.
const SPURIOUS_VECTOR: usize = 63;

/// The gates of the service and of the interrupts.
pub(crate) fn gates() -> [(usize, Gate); 6] {
    let address = |handler: unsafe extern "C" fn()| handler as usize as u64;
    [
        (HALT_VECTOR, Gate::new(address(halt_service), 3)),
        (TIMER_VECTOR, Gate::new(address(acknowledge), 0)),
        (DEVICE_VECTOR, Gate::new(address(acknowledge), 0)),
        (CHANGE_VECTOR, Gate::new(address(note_change), 0)),
        (LINE_VECTOR, Gate::new(address(pass_over), 0)),
        (SPURIOUS_VECTOR, Gate::new(address(pass_over), 0)),
    ]
}

/// `sti` takes effect after the instruction that follows it, so that no interrupt comes between it and the halt.
#[unsafe(naked)]
unsafe extern "C" fn halt_service() {
    naked_asm!("sti", "hlt", "cli", "iretq")
}

#[unsafe(naked)]
unsafe extern "C" fn acknowledge() {
    naked_asm!(
        "push rax",
        "mov eax, {register}",
        "mov dword ptr [rax], 0",
        "pop rax",
        "iretq",
        register = const BASE + END_OF_INTERRUPT,
    )
}

#[unsafe(naked)]
unsafe extern "C" fn note_change() {
    naked_asm!(
        "mov byte ptr [rip + {changed}], 1",
        "jmp {acknowledge}",
        changed = sym CHANGED,
        acknowledge = sym acknowledge,
    )
}

/// Set by the interrupt.
static CHANGED: AtomicU8 = AtomicU8::new(0);

/// Whether a message of a device has said, since the last call, that something about it has changed.
pub(crate) fn has_changed() -> bool {
    let changed = CHANGED.load(Ordering::Relaxed) != 0;
    CHANGED.store(0, Ordering::Relaxed);
    changed
}

#[unsafe(naked)]
unsafe extern "C" fn pass_over() {
    naked_asm!("iretq")
}

/// Turns the controller on with its timer off, and the interrupt controllers of old off.
pub(crate) fn set_up() {
    for controller in ports::INTERRUPT_CONTROLLERS {
        // SAFETY: it masks all of the controller's interrupts, and touches no memory.
        unsafe { ports::write(controller + 1, 0xff) };
    }
    write(SPURIOUS, ENABLED | SPURIOUS_VECTOR as u32);
    write(DIVIDER, BY_16);
    write(TIMER, MASKED | TIMER_VECTOR as u32);
}

/// The controller's number.
pub(crate) fn id() -> u32 {
    read(ID) >> 24
}

/// The messages that a device interrupts by (section 11.11): an address, and what it writes there when it has used buffers, and when something about it has
/// changed.
pub(crate) fn messages() -> (u64, [u32; 2]) {
    (BASE as u64 | u64::from(id()) << 12, [DEVICE_VECTOR as u32, CHANGE_VECTOR as u32])
}

/// Lets interrupts of [`LINE_VECTOR`] and below it come again.
pub(crate) fn end_of_interrupt() {
    write(END_OF_INTERRUPT, 0);
}

/// Starts the timer without an interrupt, to measure it.
pub(crate) fn start_count() {
    write(INITIAL_COUNT, u32::MAX);
}

/// What the timer has counted since [`start_count`].
pub(crate) fn counted() -> u32 {
    u32::MAX - read(CURRENT_COUNT)
}

/// Lets the timer interrupt after this many of its counts, or not at all.
pub(crate) fn set_timer(counts: Option<u32>) {
    match counts {
        Some(counts) => {
            write(TIMER, TIMER_VECTOR as u32);
            write(INITIAL_COUNT, counts.max(1));
        }
        None => write(INITIAL_COUNT, 0),
    }
}

/// Halts the processor until an interrupt; at once past one that came before.
pub(crate) fn halt() {
    // SAFETY: the service keeps all registers and the stack of ring 3; what interrupts it touches no memory of the image.
    unsafe { asm!("int {vector}", vector = const HALT_VECTOR, options(nostack)) };
}

fn read(register: usize) -> u32 {
    // SAFETY: every processor of this target has the register, which the page tables map; reading it changes nothing in memory.
    unsafe { core::ptr::with_exposed_provenance::<u32>(BASE + register).read_volatile() }
}

fn write(register: usize, value: u32) {
    // SAFETY: as for `read`; interrupts that this allows have gates.
    unsafe { core::ptr::with_exposed_provenance_mut::<u32>(BASE + register).write_volatile(value) };
}
