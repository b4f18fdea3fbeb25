//! The one registration point: which runtime plain calls such as `time::now()` mean.
//!
//! An image has one slot for its whole life. With the feature `hosted` every thread has its own, and runtimes may nest.

use alloc::rc::Rc;

use crate::executor::Runtime;

/// Makes `runtime` the current one until the guard is dropped, when the former comes back.
pub(crate) fn enter(runtime: Rc<Runtime>) -> Entered {
    Entered { former: slot::replace(Some(runtime)) }
}

/// Undoes [`enter`].
pub(crate) struct Entered {
    former: Option<Rc<Runtime>>,
}

impl Drop for Entered {
    fn drop(&mut self) {
        slot::replace(self.former.take());
    }
}

/// The current runtime, or `None` before the image has started.
pub(crate) fn get() -> Option<Rc<Runtime>> {
    slot::get()
}

/// Calls `f` with the current runtime.
///
/// # Panics
/// When no runtime runs: the caller is outside of `start`.
pub(crate) fn with<R>(f: impl FnOnce(&Runtime) -> R) -> R {
    match slot::get() {
        Some(runtime) => f(&runtime),
        None => {
            panic!("no runtime is running here: call this from `start` or from a task it spawned")
        }
    }
}

#[cfg(not(any(test, feature = "hosted")))]
mod slot {
    use alloc::rc::Rc;
    use core::cell::UnsafeCell;

    use crate::executor::Runtime;

    struct Slot(UnsafeCell<Option<Rc<Runtime>>>);

    // SAFETY: `Platform` is an unsafe trait whose implementor promises one thread of execution when `hosted` is off, and a slot is only ever
    // filled with a runtime that was made from a platform.
    unsafe impl Sync for Slot {}

    static SLOT: Slot = Slot(UnsafeCell::new(None));

    pub(super) fn replace(runtime: Option<Rc<Runtime>>) -> Option<Rc<Runtime>> {
        // SAFETY: one thread (see `Slot`), and no reference into the slot outlives `get` or `replace`, neither of which calls foreign code
        // while it holds one.
        unsafe { core::mem::replace(&mut *SLOT.0.get(), runtime) }
    }

    pub(super) fn get() -> Option<Rc<Runtime>> {
        // SAFETY: as in `replace`; cloning an `Rc` runs no foreign code.
        unsafe { (*SLOT.0.get()).clone() }
    }
}

#[cfg(any(test, feature = "hosted"))]
mod slot {
    use alloc::rc::Rc;
    use core::cell::RefCell;

    use crate::executor::Runtime;

    std::thread_local! {
        static SLOT: RefCell<Option<Rc<Runtime>>> = const { RefCell::new(None) };
    }

    pub(super) fn replace(runtime: Option<Rc<Runtime>>) -> Option<Rc<Runtime>> {
        SLOT.with(|slot| slot.replace(runtime))
    }

    pub(super) fn get() -> Option<Rc<Runtime>> {
        // A thread that is being torn down has no slot any more: then there is no runtime either.
        SLOT.try_with(|slot| slot.borrow().clone()).ok().flatten()
    }
}
