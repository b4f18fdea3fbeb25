//! Takes memory in large blocks and uses each from end to end: all of them are there at once, or the image ends.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

use alloc::collections::TryReserveError;
use alloc::vec::Vec;
use core::error::Error;
use core::mem::MaybeUninit;

use fogbow::{arguments, println};

/// One byte in so many is written and read.
const STEP: usize = 32 << 20;

/// Takes the blocks and uses them.
///
/// # Errors
/// When an argument is no number, or there is no room for a block.
pub async fn start() -> Result<(), alloc::boxed::Box<dyn Error>> {
    let (count, size) = (arguments::parse::<usize>("blocks")?, arguments::parse::<usize>("mib")? << 20);
    let mut blocks = (0..count).map(|_| block(size)).collect::<Result<Vec<_>, _>>()?;
    let mut marks: Vec<&mut usize> = Vec::new();
    for block in &mut blocks {
        for piece in block.spare_capacity_mut().chunks_mut(STEP / size_of::<usize>()) {
            let [first, .., last] = piece else { continue };
            for place in [first, last] {
                let mark = marks.len();
                marks.push(MaybeUninit::write(place, mark));
            }
        }
    }
    let wrong = marks.iter().enumerate().filter(|(index, mark)| ***mark != *index).count();
    println!("{count} blocks of {} MiB, {} places in them, {wrong} of them wrong", size >> 20, marks.len());
    Ok(())
}

fn block(size: usize) -> Result<Vec<usize>, TryReserveError> {
    let mut block = Vec::new();
    block.try_reserve_exact(size / size_of::<usize>())?;
    Ok(block)
}
