//! The one registration point: which runtime plain calls such as `time::now()` mean.
//!
//! An image has one slot for its whole life. With the feature `hosted` every thread has its own, and runtimes may nest.

use alloc::rc::Rc;

use crate::executor::Runtime;

/// Makes `runtime` the current one until the guard is dropped, when the former comes back.
pub(crate) fn enter(runtime: Rc<Runtime>) -> Entered {
    Entered { former: slot::replace(Some(slot::keep(runtime))) }
}

/// Undoes [`enter`].
pub(crate) struct Entered {
    former: Option<Current>,
}

impl Drop for Entered {
    fn drop(&mut self) {
        slot::replace(self.former.take());
    }
}

pub(crate) use slot::Current;

/// The current runtime, or `None` before the image has started.
pub(crate) fn get() -> Option<Current> {
    slot::get()
}

/// Calls `f` with the current runtime.
///
/// # Panics
/// When no runtime runs: the caller is outside of `start`.
pub(crate) fn with<R>(f: impl FnOnce(&Runtime) -> R) -> R {
    slot::with(f).unwrap_or_else(|| panic!("no runtime is running here: call this from `start` or from a task it spawned"))
}

#[cfg(not(any(test, feature = "hosted")))]
mod slot {
    use alloc::rc::Rc;
    use core::cell::UnsafeCell;
    use core::mem::ManuallyDrop;

    use crate::executor::Runtime;

    /// An image has one runtime, which is never freed: calls of it need not count.
    pub(crate) type Current = &'static Runtime;

    struct Slot(UnsafeCell<Option<Current>>);

    // SAFETY: `Platform` is an unsafe trait whose implementor promises one thread of execution when `hosted` is off, and a slot is only ever
    // filled with a runtime that was made from a platform.
    unsafe impl Sync for Slot {}

    static SLOT: Slot = Slot(UnsafeCell::new(None));

    pub(super) fn keep(runtime: Rc<Runtime>) -> Current {
        let kept: *const Runtime = Rc::as_ptr(&ManuallyDrop::new(runtime));
        // SAFETY: what was not dropped holds the runtime in its place for ever; nothing takes it mutably.
        unsafe { &*kept }
    }

    pub(super) fn replace(runtime: Option<Current>) -> Option<Current> {
        // SAFETY: one thread (see `Slot`), and no reference into the slot outlives `get` or `replace`, neither of which calls foreign code
        // while it holds one.
        unsafe { core::mem::replace(&mut *SLOT.0.get(), runtime) }
    }

    pub(super) fn with<R>(f: impl FnOnce(&Runtime) -> R) -> Option<R> {
        get().map(f)
    }

    pub(super) fn get() -> Option<Current> {
        // SAFETY: as in `replace`.
        unsafe { *SLOT.0.get() }
    }
}

#[cfg(any(test, feature = "hosted"))]
mod slot {
    use alloc::rc::Rc;
    use core::cell::RefCell;

    use crate::executor::Runtime;

    pub(crate) type Current = Rc<Runtime>;

    std::thread_local! {
        static SLOT: RefCell<Option<Rc<Runtime>>> = const { RefCell::new(None) };
    }

    pub(super) fn keep(runtime: Rc<Runtime>) -> Current {
        runtime
    }

    pub(super) fn replace(runtime: Option<Current>) -> Option<Current> {
        SLOT.with(|slot| slot.replace(runtime))
    }

    pub(super) fn with<R>(f: impl FnOnce(&Runtime) -> R) -> Option<R> {
        get().map(|runtime| f(&runtime))
    }

    pub(super) fn get() -> Option<Current> {
        // A thread that is being torn down has no slot any more: then there is no runtime either.
        SLOT.try_with(|slot| slot.borrow().clone()).ok().flatten()
    }
}
