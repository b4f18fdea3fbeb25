//! The memory functions that compiled code calls without naming them, for processors with SSE2 (all of x86-64).
//!
//! Short lengths take a few moves that overlap instead of a loop; longer ones loop over SSE registers, aligned to where they write, with
//! unaligned moves at both ends. Long fills use `rep stosb`, whose microcode writes whole cache lines. Long copies do not use `rep
//! movsb`: where its source and destination are not aligned alike, it was seen to take ten times as long as the loop (AMD EPYC with ERMS
//! and FSRM). Loops are assembly, because the compiler recognises loops that copy or fill and replaces them by a call of the very
//! function they are in.
//!
//! `cargo run --release -p fogbow-solo5 --example memory_speed` compares them with the host's C library.

use core::arch::asm;
use core::arch::x86_64::{__m128i, _mm_and_si128, _mm_cmpeq_epi8, _mm_loadu_si128, _mm_movemask_epi8, _mm_set1_epi8, _mm_storeu_si128};

/// From this length on, in bytes, `rep stosb` is used.
const LONG: usize = 4096;

/// Copies `length` bytes that do not overlap: `memcpy`.
///
/// # Safety
/// `from` is valid for reads and `into` for writes of `length` bytes, and the two do not overlap (being the same is allowed).
#[inline(always)]
pub unsafe fn copy(into: *mut u8, from: *const u8, length: usize) {
    // SAFETY: the caller's promises are those of each function called; `length` is in the range that each asks for.
    unsafe {
        if length <= 128 {
            move_up_to_128(into, from, length);
        } else {
            copy_upwards(into, from, length);
        }
    }
}

/// Copies `length` bytes that may overlap: `memmove`.
///
/// # Safety
/// `from` is valid for reads and `into` for writes of `length` bytes.
#[inline(always)]
pub unsafe fn shift(into: *mut u8, from: *const u8, length: usize) {
    // SAFETY: the caller's promises are those of each function called. Upwards is right when `into` is not within the source, which an
    // unsigned distance of at least `length` says; downwards otherwise.
    unsafe {
        if length <= 128 {
            move_up_to_128(into, from, length);
        } else if into.addr().wrapping_sub(from.addr()) < length {
            copy_downwards(into, from, length);
        } else {
            copy_upwards(into, from, length);
        }
    }
}

/// Sets `length` bytes to `value`: `memset`.
///
/// # Safety
/// `into` is valid for writes of `length` bytes.
#[inline(always)]
pub unsafe fn fill(into: *mut u8, value: u8, length: usize) {
    // SAFETY: every place written lies within the `length` bytes that the caller promises: in each branch the offsets and widths add up
    // to `length` at most, for the lengths that reach it.
    unsafe {
        if length <= 16 {
            fill_up_to_16(into, value, length);
            return;
        }
        let vector = _mm_set1_epi8(value.cast_signed());
        if length <= 64 {
            store(into, vector);
            store(into.add(length - 16), vector);
            if length > 32 {
                store(into.add(16), vector);
                store(into.add(length - 32), vector);
            }
        } else if length < LONG {
            fill_loop(into, vector, length);
        } else {
            asm!("rep stosb", inout("rcx") length => _, inout("rdi") into => _, in("al") value, options(nostack, preserves_flags));
        }
    }
}

/// Compares `length` bytes: negative, zero or positive as the first difference, as numbers from 0 to 255, is. `memcmp`, and `bcmp`.
///
/// # Safety
/// `left` and `right` are valid for reads of `length` bytes.
#[inline(always)]
pub unsafe fn compare(left: *const u8, right: *const u8, length: usize) -> i32 {
    // SAFETY: every place read lies within the `length` bytes that the caller promises.
    unsafe {
        if length >= 16 {
            return compare_vectors(left, right, length);
        }
        if length >= 8 {
            let order = compare_words(left, right);
            return if order != 0 { order } else { compare_words(left.add(length - 8), right.add(length - 8)) };
        }
        if length >= 4 {
            let word = |at: *const u8| at.cast::<u32>().read_unaligned().swap_bytes();
            let first = order(word(left), word(right));
            return if first != 0 { first } else { order(word(left.add(length - 4)), word(right.add(length - 4))) };
        }
        if length == 0 {
            return 0;
        }
        // One to three bytes: the first, the middle and the last, some of them the same.
        let bytes = |at: *const u8| {
            let (first, middle, last) = (at.read(), at.add(length / 2).read(), at.add(length - 1).read());
            u32::from(first) << 16 | u32::from(middle) << 8 | u32::from(last)
        };
        order(bytes(left), bytes(right))
    }
}

fn order<T: Ord>(left: T, right: T) -> i32 {
    i32::from(left > right) - i32::from(left < right)
}

#[inline(always)]
unsafe fn load(from: *const u8) -> __m128i {
    // SAFETY: the caller promises 16 readable bytes; the move needs no alignment.
    unsafe { _mm_loadu_si128(from.cast()) }
}

#[inline(always)]
unsafe fn store(into: *mut u8, value: __m128i) {
    // SAFETY: the caller promises 16 writable bytes; the move needs no alignment.
    unsafe { _mm_storeu_si128(into.cast(), value) }
}

/// Two moves of the same width, at both ends: all is read before anything is written.
#[inline(always)]
unsafe fn move_ends<T>(into: *mut u8, from: *const u8, length: usize) {
    // SAFETY: the caller promises that `length` is at least the width of `T`, and that many bytes at both pointers.
    unsafe {
        let last = length - size_of::<T>();
        let (head, tail) = (from.cast::<T>().read_unaligned(), from.add(last).cast::<T>().read_unaligned());
        into.cast::<T>().write_unaligned(head);
        into.add(last).cast::<T>().write_unaligned(tail);
    }
}

/// Moves up to 128 bytes: all is read before anything is written.
#[inline(always)]
unsafe fn move_up_to_128(into: *mut u8, from: *const u8, length: usize) {
    // SAFETY: the caller's promises are those of each function called; `length` is in the range that each asks for.
    unsafe {
        if length <= 16 {
            move_up_to_16(into, from, length);
        } else if length <= 64 {
            move_17_to_64(into, from, length);
        } else {
            move_65_to_128(into, from, length);
        }
    }
}

#[inline(always)]
unsafe fn move_up_to_16(into: *mut u8, from: *const u8, length: usize) {
    // SAFETY: each width is used only for lengths of at least that width.
    unsafe {
        if length >= 8 {
            move_ends::<u64>(into, from, length);
        } else if length >= 4 {
            move_ends::<u32>(into, from, length);
        } else if length >= 2 {
            move_ends::<u16>(into, from, length);
        } else if length == 1 {
            into.write(from.read());
        }
    }
}

#[inline(always)]
unsafe fn move_17_to_64(into: *mut u8, from: *const u8, length: usize) {
    // SAFETY: with more than 16 bytes both outer moves fit, with more than 32 the inner ones as well.
    unsafe {
        let (head, tail) = (load(from), load(from.add(length - 16)));
        if length > 32 {
            let (second, last_but_one) = (load(from.add(16)), load(from.add(length - 32)));
            store(into.add(16), second);
            store(into.add(length - 32), last_but_one);
        }
        store(into, head);
        store(into.add(length - 16), tail);
    }
}

/// Copies more than 128 bytes from low addresses to high ones, 64 at a time to places that are multiples of 16. What is left at the ends,
/// the first 16 and the last 64, is read first and written last.
#[inline(always)]
unsafe fn copy_upwards(into: *mut u8, from: *const u8, length: usize) {
    // SAFETY: the loop ends before the last 64 bytes, so nothing outside of the `length` bytes is touched.
    unsafe {
        asm!(
            "movups {head}, [{from}]",
            "movups {a}, [{from} + {last}]",
            "movups {b}, [{from} + {last} + 16]",
            "movups {c}, [{from} + {last} + 32]",
            "movups {d}, [{from} + {last} + 48]",
            ".p2align 4",
            "2:",
            "movups {e}, [{from} + {at}]",
            "movups {f}, [{from} + {at} + 16]",
            "movups {g}, [{from} + {at} + 32]",
            "movups {h}, [{from} + {at} + 48]",
            "movaps [{into} + {at}], {e}",
            "movaps [{into} + {at} + 16], {f}",
            "movaps [{into} + {at} + 32], {g}",
            "movaps [{into} + {at} + 48], {h}",
            "add {at}, 64",
            "cmp {at}, {last}",
            "jb 2b",
            "movups [{into}], {head}",
            "movups [{into} + {last}], {a}",
            "movups [{into} + {last} + 16], {b}",
            "movups [{into} + {last} + 32], {c}",
            "movups [{into} + {last} + 48], {d}",
            into = in(reg) into, from = in(reg) from, last = in(reg) length - 64, at = inout(reg) 16 - (into.addr() & 15) => _,
            head = out(xmm_reg) _, a = out(xmm_reg) _, b = out(xmm_reg) _, c = out(xmm_reg) _, d = out(xmm_reg) _,
            e = out(xmm_reg) _, f = out(xmm_reg) _, g = out(xmm_reg) _, h = out(xmm_reg) _,
            options(nostack),
        );
    }
}

/// Copies more than 128 bytes from high addresses to low ones, 64 at a time to places that are multiples of 16. What is left at the ends,
/// the first 64 and the last 16, is read first and written last.
#[inline(always)]
unsafe fn copy_downwards(into: *mut u8, from: *const u8, length: usize) {
    // The loop's end is the last multiple of 16 before the end of the destination.
    let end = length - 1 - ((into.addr() + length - 1) & 15);
    // SAFETY: the loop ends before the first 64 bytes, so nothing outside of the `length` bytes is touched.
    unsafe {
        asm!(
            "movups {tail}, [{from} + {last}]",
            "movups {a}, [{from}]",
            "movups {b}, [{from} + 16]",
            "movups {c}, [{from} + 32]",
            "movups {d}, [{from} + 48]",
            ".p2align 4",
            "2:",
            "movups {e}, [{from} + {at} - 16]",
            "movups {f}, [{from} + {at} - 32]",
            "movups {g}, [{from} + {at} - 48]",
            "movups {h}, [{from} + {at} - 64]",
            "movaps [{into} + {at} - 16], {e}",
            "movaps [{into} + {at} - 32], {f}",
            "movaps [{into} + {at} - 48], {g}",
            "movaps [{into} + {at} - 64], {h}",
            "sub {at}, 64",
            "cmp {at}, 64",
            "ja 2b",
            "movups [{into} + {last}], {tail}",
            "movups [{into}], {a}",
            "movups [{into} + 16], {b}",
            "movups [{into} + 32], {c}",
            "movups [{into} + 48], {d}",
            into = in(reg) into, from = in(reg) from, last = in(reg) length - 16, at = inout(reg) end => _,
            tail = out(xmm_reg) _, a = out(xmm_reg) _, b = out(xmm_reg) _, c = out(xmm_reg) _, d = out(xmm_reg) _,
            e = out(xmm_reg) _, f = out(xmm_reg) _, g = out(xmm_reg) _, h = out(xmm_reg) _,
            options(nostack),
        );
    }
}

/// Moves 65 to 128 bytes: all is read before anything is written.
#[inline(always)]
unsafe fn move_65_to_128(into: *mut u8, from: *const u8, length: usize) {
    let last = length - 64;
    // SAFETY: eight registers' worth of bytes lie within the `length` bytes, four from the beginning and four up to the end.
    unsafe {
        let (a, b, c, d) = (load(from), load(from.add(16)), load(from.add(32)), load(from.add(48)));
        let (e, f) = (load(from.add(last)), load(from.add(last + 16)));
        let (g, h) = (load(from.add(last + 32)), load(from.add(last + 48)));
        store(into, a);
        store(into.add(16), b);
        store(into.add(32), c);
        store(into.add(48), d);
        store(into.add(last), e);
        store(into.add(last + 16), f);
        store(into.add(last + 32), g);
        store(into.add(last + 48), h);
    }
}

#[inline(always)]
unsafe fn fill_up_to_16(into: *mut u8, value: u8, length: usize) {
    let word = u64::from(value) * 0x0101_0101_0101_0101;
    // SAFETY: each width is used only for lengths of at least that width.
    unsafe {
        if length >= 8 {
            into.cast::<u64>().write_unaligned(word);
            into.add(length - 8).cast::<u64>().write_unaligned(word);
        } else if length >= 4 {
            into.cast::<u32>().write_unaligned(word as u32);
            into.add(length - 4).cast::<u32>().write_unaligned(word as u32);
        } else if length >= 2 {
            into.cast::<u16>().write_unaligned(word as u16);
            into.add(length - 2).cast::<u16>().write_unaligned(word as u16);
        } else if length == 1 {
            into.write(value);
        }
    }
}

/// Fills more than 64 bytes, 64 at a time, and the last 64 once more.
#[inline(always)]
unsafe fn fill_loop(into: *mut u8, vector: __m128i, length: usize) {
    // SAFETY: the loop ends before the last 64 bytes, so nothing outside of the `length` bytes is touched.
    unsafe {
        asm!(
            "xor {at:e}, {at:e}",
            ".p2align 4",
            "2:",
            "movups [{into} + {at}], {vector}",
            "movups [{into} + {at} + 16], {vector}",
            "movups [{into} + {at} + 32], {vector}",
            "movups [{into} + {at} + 48], {vector}",
            "add {at}, 64",
            "cmp {at}, {last}",
            "jb 2b",
            "movups [{into} + {last}], {vector}",
            "movups [{into} + {last} + 16], {vector}",
            "movups [{into} + {last} + 32], {vector}",
            "movups [{into} + {last} + 48], {vector}",
            into = in(reg) into, last = in(reg) length - 64, at = out(reg) _, vector = in(xmm_reg) vector,
            options(nostack),
        );
    }
}

#[inline(always)]
unsafe fn compare_words(left: *const u8, right: *const u8) -> i32 {
    // SAFETY: the caller promises 8 readable bytes at both.
    let (left, right) = unsafe { (left.cast::<u64>().read_unaligned(), right.cast::<u64>().read_unaligned()) };
    order(left.swap_bytes(), right.swap_bytes())
}

/// Compares 16 bytes or more: 64 at a time as long as they are equal, then 16 at a time, the last 16 perhaps overlapping.
#[inline(always)]
unsafe fn compare_vectors(left: *const u8, right: *const u8, length: usize) -> i32 {
    let last = length - 16;
    let mut at = 0;
    // SAFETY: `at` never exceeds `last`, 16 bytes before the end, and 64 bytes are compared only where that many are left.
    unsafe {
        let equal = |at: usize| _mm_cmpeq_epi8(load(left.add(at)), load(right.add(at)));
        while length - at >= 64 {
            let (first, second) = (_mm_and_si128(equal(at), equal(at + 16)), _mm_and_si128(equal(at + 32), equal(at + 48)));
            if _mm_movemask_epi8(_mm_and_si128(first, second)) != 0xffff {
                break;
            }
            at += 64;
        }
        // When all was whole 64s, the last 16 once more.
        at = at.min(last);
        loop {
            let equal = _mm_movemask_epi8(equal(at));
            if equal != 0xffff {
                let place = at + (!equal).trailing_zeros() as usize;
                return i32::from(left.add(place).read()) - i32::from(right.add(place).read());
            }
            if at == last {
                return 0;
            }
            at = (at + 16).min(last);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use std::vec;
    use std::vec::Vec;

    /// Lengths around every change of method, and beyond.
    fn length() -> impl Strategy<Value = usize> {
        prop_oneof![0..140usize, 2000..2200usize, 0..9000usize]
    }

    fn pattern(length: usize) -> Vec<u8> {
        (0..length).map(|index| (index * 31 + index / 251) as u8).collect()
    }

    proptest! {
        #[test]
        fn copies_as_core_does(length in length(), from in 0..32usize, into in 0..32usize) {
            let source = pattern(length + 64);
            let mut copied = vec![0xaa; length + 64];
            let mut expected = copied.clone();
            expected[into..into + length].copy_from_slice(&source[from..from + length]);
            // SAFETY: both ranges lie within their vectors.
            unsafe { copy(copied.as_mut_ptr().add(into), source.as_ptr().add(from), length) };
            prop_assert_eq!(copied, expected);
        }

        #[test]
        fn moves_as_core_does(length in length(), from in 0..200usize, into in 0..200usize) {
            let mut moved = pattern(length + 200);
            let mut expected = moved.clone();
            expected.copy_within(from..from + length, into);
            // SAFETY: both ranges lie within the vector.
            unsafe { shift(moved.as_mut_ptr().add(into), moved.as_ptr().add(from), length) };
            prop_assert_eq!(moved, expected);
        }

        #[test]
        fn fills_as_core_does(length in length(), into in 0..32usize, value: u8) {
            let mut filled = pattern(length + 64);
            let mut expected = filled.clone();
            expected[into..into + length].fill(value);
            // SAFETY: the range lies within the vector.
            unsafe { fill(filled.as_mut_ptr().add(into), value, length) };
            prop_assert_eq!(filled, expected);
        }

        #[test]
        fn compares_as_core_does(length in length(), left in 0..32usize, right in 0..32usize, change: Option<(usize, u8)>) {
            let mut changed = pattern(length);
            if let Some((place, value)) = change && length > 0 {
                changed[place % length] = value;
            }
            let (mut a, mut b) = (vec![1; left], vec![2; right]);
            a.extend(pattern(length));
            b.extend(changed);
            let expected = a[left..].cmp(&b[right..]) as i32;
            // Bytes that differ behind the end must not count.
            a.push(3);
            b.push(4);
            // SAFETY: both ranges lie within their vectors.
            let order = unsafe { compare(a.as_ptr().add(left), b.as_ptr().add(right), length) };
            prop_assert_eq!(order.signum(), expected);
        }
    }

    #[test]
    fn every_short_length_is_right() {
        for length in 0..=200 {
            let source = pattern(length);
            let mut copied = vec![0; length + 1];
            // SAFETY: both have `length` bytes.
            unsafe { copy(copied.as_mut_ptr(), source.as_ptr(), length) };
            assert_eq!((&copied[..length], copied[length]), (&source[..], 0));
        }
    }
}
