//! Writes log messages in storms: for measurements of what one costs, and of how long it holds up other tasks.
#![no_std]
#![forbid(unsafe_code)]

use core::convert::Infallible;

use fogbow::println;
use fogbow::task::yield_now;
use fogbow::time::{self, Duration};

/// Messages of a storm, between two of which other tasks run.
const STORM: u32 = 100;

/// Storms of each kind; the quickest counts, as the machine may be busy.
const STORMS: u32 = 1000;

/// Prints nanoseconds for a message that no filter lets pass, for one that is kept for a panic alone, and for one that is printed; and microseconds until
/// the task's next turn, in a storm that is printed. Each is the quickest of many.
///
/// # Errors
/// None.
pub async fn start() -> Result<(), Infallible> {
    let (filtered, _) = storms(|number| log::debug!("message {number} of a storm")).await;
    let (kept, _) = storms(|number| log::info!("message {number} of a storm")).await;
    let (printed, rest) = storms(|number| log::warn!("message {number} of a storm")).await;
    println!("\nfiltered {filtered:.1}\nkept {kept:.1}\nprinted {printed:.1}\nround {:.1}", rest.as_nanos() as f64 / 1000.0);
    Ok(())
}

/// Nanoseconds for a message in the quickest storm, and how long other tasks' turn took after it.
async fn storms(message: fn(u32)) -> (f64, Duration) {
    let mut quickest = (Duration::MAX, Duration::MAX);
    for _ in 0..STORMS {
        let start = time::now();
        (0..STORM).for_each(message);
        let written = start.elapsed();
        yield_now().await;
        quickest = (quickest.0.min(written), quickest.1.min(start.elapsed() - written));
    }
    (quickest.0.as_nanos() as f64 / f64::from(STORM), quickest.1)
}
