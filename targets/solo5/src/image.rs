//! What an image has once and a library must not: notes, allocator, panic handler, and the symbols that the prebuilt `core` asks for.

/// Puts into an image's crate what every guest of the family needs once. For the `image!` macros of the targets.
///
/// - `target`, `version`: for the note that names target and ABI version;
/// - `devices`: for the manifest, as in `[net "service", block "disk"]`;
/// - `heap`: the name of the allocator's static, a [`fogbow::heap::Heap`] without memory;
/// - `panic`: what ends the image after a panic, a `fn(&PanicInfo) -> !`.
#[macro_export]
macro_rules! guest {
    {
        target: $target:ident, version: $version:expr, devices: [$($kind:ident $name:literal),* $(,)?], heap: $heap:ident, panic: $panic:path $(,)?
    } => {
        #[global_allocator]
        static $heap: $crate::fogbow::heap::Heap = $crate::fogbow::heap::Heap::new();

        #[panic_handler]
        fn panic(panic: &::core::panic::PanicInfo<'_>) -> ! {
            $panic(panic)
        }

        const _: () = {
            use $crate::manifest::DeclaredDevice;
            use $crate::notes::{AbiNote, Interpreter, ManifestNote, OpenBsdNote, Target};

            const DEVICES: &[DeclaredDevice] = &[$(DeclaredDevice::$kind($name)),*];

            #[used]
            #[unsafe(link_section = ".interp")]
            static INTERPRETER: Interpreter = Interpreter::SOLO5;

            #[used]
            #[unsafe(link_section = ".note.solo5.not_openbsd")]
            static NOT_OPENBSD: OpenBsdNote = OpenBsdNote::NOTE;

            #[used]
            #[unsafe(link_section = ".note.solo5.abi")]
            static ABI: AbiNote = AbiNote::new(Target::$target, $version);

            #[used]
            #[unsafe(link_section = ".note.solo5.manifest")]
            static MANIFEST: ManifestNote<{ DEVICES.len() + 1 }> = ManifestNote::new(DEVICES);
        };

        $crate::memory_functions!();
    };
}

/// The symbols that compiled code may call without naming them: the memory functions, and those of unwinding, which never happens.
#[doc(hidden)]
#[macro_export]
macro_rules! memory_functions {
    () => {
        const _: () = {
            use $crate::memory;

            // SAFETY (of the names): each function does what C demands of its name; its contract for callers is C's as well.
            #[unsafe(no_mangle)]
            unsafe extern "C" fn memcpy(into: *mut u8, from: *const u8, length: usize) -> *mut u8 {
                // SAFETY: passed on to the caller, word by word.
                unsafe { memory::copy(into, from, length) };
                into
            }

            #[unsafe(no_mangle)]
            unsafe extern "C" fn memmove(into: *mut u8, from: *const u8, length: usize) -> *mut u8 {
                // SAFETY: passed on to the caller, word by word.
                unsafe { memory::shift(into, from, length) };
                into
            }

            #[unsafe(no_mangle)]
            unsafe extern "C" fn memset(into: *mut u8, value: i32, length: usize) -> *mut u8 {
                // SAFETY: passed on to the caller, word by word.
                unsafe { memory::fill(into, value as u8, length) };
                into
            }

            #[unsafe(no_mangle)]
            unsafe extern "C" fn memcmp(left: *const u8, right: *const u8, length: usize) -> i32 {
                // SAFETY: passed on to the caller, word by word.
                unsafe { memory::compare(left, right, length) }
            }

            #[unsafe(no_mangle)]
            unsafe extern "C" fn bcmp(left: *const u8, right: *const u8, length: usize) -> i32 {
                // SAFETY: passed on to the caller, word by word.
                unsafe { memory::compare(left, right, length) }
            }

            #[unsafe(no_mangle)]
            extern "C" fn rust_eh_personality() {}

            #[unsafe(no_mangle)]
            extern "C" fn _Unwind_Resume() -> ! {
                ::core::unreachable!("nothing unwinds in an image")
            }
        };
    };
}
