//! The power button: the host asks the image to end.
//!
//! It interrupts by a line of an I/O interrupt controller (Intel 82093AA), which ends a halt. An image that never halts lets no interrupt in: there the
//! button is looked at every 10 ms.

use core::arch::naked_asm;
use core::cell::Cell;
use core::sync::atomic::{AtomicU8, Ordering};

use fogbow_x86::descriptors::Gate;

use crate::acpi::power::{self as acpi, ButtonRegisters, EVENT_BUTTON, FIXED_BUTTON, PowerButton, SCI_ENABLE, Write};
use crate::guest::{controllers, window};
use crate::interrupts::ACTIVE_LOW;
use crate::{apic, firmware, ports, power};

/// The button's interrupt.
const VECTOR: usize = 52;

/// How often an image that does not halt looks, in nanoseconds.
const LOOK_AFTER: u64 = 10_000_000;

/// How often the machine is looked at until it is ACPI's.
const LOOKS: u32 = 1_000;

/// Set by the interrupt.
static INTERRUPTED: AtomicU8 = AtomicU8::new(0);

/// The button's gate.
pub(crate) fn gate() -> (usize, Gate) {
    (VECTOR, Gate::new(note as *const () as u64, 0))
}

#[unsafe(naked)]
unsafe extern "C" fn note() {
    naked_asm!(
        "mov byte ptr [rip + {interrupted}], 1",
        "push rax",
        "mov eax, {end_of_interrupt}",
        "mov dword ptr [rax], 0",
        "pop rax",
        "iretq",
        interrupted = sym INTERRUPTED,
        end_of_interrupt = const apic::BASE + apic::END_OF_INTERRUPT,
    )
}

/// A machine's power button.
#[derive(Debug)]
pub(crate) struct Button {
    registers: ButtonRegisters,
    /// When an image that does not halt looks next.
    next_look: Cell<u64>,
}

impl Button {
    /// Finds the button and lets it interrupt; `None` where the machine has none.
    pub(crate) fn find() -> Option<Self> {
        let tables = firmware::tables()?;
        let PowerButton { line, registers } = acpi::power_button(tables)?;
        let (line, is_low) = acpi::global_interrupt(tables, line);
        // It interrupts when the line rises: no more than the button is on it.
        let polarity = if is_low { ACTIVE_LOW } else { 0 };
        if !controllers().iter().any(|controller| controller.lead(line, VECTOR, polarity)) {
            return None;
        }
        let button = Self { registers, next_look: Cell::new(0) };
        button.set_up();
        Some(button)
    }

    fn set_up(&self) {
        if let ButtonRegisters::Fixed { enable, control, take, .. } = self.registers {
            if let Some(take) = take.filter(|_| read16(control) & SCI_ENABLE == 0) {
                power::write(take);
                let _ = (0..LOOKS).any(|_| read16(control) & SCI_ENABLE != 0);
            }
            self.is_pressed();
            write16(enable, FIXED_BUTTON);
        } else {
            self.is_pressed();
        }
    }

    /// Whether it was pressed since the last look, as far as its interrupt tells; the time is `now`, in nanoseconds, when the image does not halt.
    pub(crate) fn was_pressed(&self, busy_at: Option<u64>) -> bool {
        let is_due = busy_at.is_some_and(|now| now >= self.next_look.get());
        if is_due {
            self.next_look.set(busy_at.unwrap_or(0).saturating_add(LOOK_AFTER));
        }
        let interrupted = INTERRUPTED.load(Ordering::Relaxed) != 0;
        INTERRUPTED.store(0, Ordering::Relaxed);
        (interrupted || is_due) && self.is_pressed()
    }

    /// Looks at the registers, which forget it.
    fn is_pressed(&self) -> bool {
        match self.registers {
            ButtonRegisters::Fixed { status, .. } => {
                let is_pressed = read16(status) & FIXED_BUTTON != 0;
                if is_pressed {
                    write16(status, FIXED_BUTTON);
                }
                is_pressed
            }
            ButtonRegisters::Events { address } => window(address, 4).is_some_and(|register| register.read32(0) & EVENT_BUTTON != 0),
        }
    }
}

fn read16(port: u16) -> u16 {
    if !ports::ALLOWED.contains(&port) {
        return 0;
    }
    // SAFETY: ACPI says that the port is a register of its own; reading it changes no memory.
    unsafe { ports::read16(port) }
}

fn write16(port: u16, value: u16) {
    power::write(Write::Port16 { port, value });
}
