//! Draws random bytes as fast as it can: for measurements, and as a stream for statistical tests.
#![no_std]
#![forbid(unsafe_code)]

extern crate alloc;

use alloc::vec;

use fogbow::time::Duration;
use fogbow::{StartError, console, print, println, random, time};

fogbow::arguments!();

/// Bytes of a large draw.
const LARGE: usize = 1 << 20;

/// Draws of each kind that are measured in one round: less than a millisecond's, so that on a busy machine some rounds are not interrupted. The
/// quickest of [`ROUNDS`] counts.
const SMALL_DRAWS: u32 = 2000;
const LARGE_DRAWS: u32 = 1;
const CLOCK_READINGS: u32 = 2000;
const ROUNDS: u32 = 500;

/// Prints nanoseconds for a draw of 32 bytes, gigabytes per second of large ones, and nanoseconds for a reading of the clock; or does what an argument
/// says.
///
/// # Errors
/// When there is no entropy.
pub async fn start() -> Result<(), StartError> {
    let Arguments { stream, forget, remember, clocks } = Arguments::read()?;
    if forget || remember {
        return draw_and_wait(remember).await;
    }
    if clocks > 0 {
        watch_clocks(clocks).await;
        return Ok(());
    }
    let mut large = vec![0; LARGE];
    let fill = |bytes: &mut [u8]| random::fill(bytes).map_err(|error| StartError::new("random", error));
    fill(&mut large)?;
    for _ in 0..stream {
        fill(&mut large)?;
        console::write(&large);
    }
    if stream > 0 {
        return Ok(());
    }
    let mut key = [0; 32];
    let small = quickest(SMALL_DRAWS, || fill(&mut key))?;
    let large = quickest(LARGE_DRAWS, || fill(&mut large))?;
    let clock = quickest(CLOCK_READINGS, || {
        core::hint::black_box(time::now());
        Ok(())
    })?;
    println!("small {small:.1}\nlarge {:.3}\nclock {clock:.1}", LARGE as f64 / large);
    Ok(())
}

/// Draws, says what in a form that is not the draw itself, and waits, so that somebody can look for it in the image's memory.
async fn draw_and_wait(remember: bool) -> Result<(), StartError> {
    let mut bytes = vec![0; 300];
    for length in [32, 100, 300] {
        for _ in 0..20 {
            let drawn = &mut bytes[..length];
            random::fill(drawn).map_err(|error| StartError::new("random", error))?;
            print!("drew ");
            drawn.iter().for_each(|byte| print!("{:02x}", !byte));
            print!("\n");
            if !remember {
                drawn.fill(0);
                core::hint::black_box(drawn);
            }
        }
    }
    println!("waiting");
    core::future::pending().await
}

/// Reads the monotonic clock again and again, with a sleep now and then, and prints how often it went back or slept too short; and the wall clock, how far
/// it came apart from it.
async fn watch_clocks(readings: u32) {
    const PAUSE: Duration = Duration::from_micros(300);
    const SLEEPS: u32 = 500;
    let (start, wall) = (time::now(), time::wall());
    let (mut before, mut back, mut short) = (start, 0, 0);
    for number in 1..=readings {
        if number.is_multiple_of(readings.div_ceil(SLEEPS)) {
            let asleep = time::now();
            time::sleep(PAUSE).await;
            short += u32::from(asleep.elapsed() < PAUSE);
        }
        let now = time::now();
        back += u32::from(now < before);
        before = now;
    }
    let apart = (before - start).as_micros().abs_diff(u128::from((time::wall().as_unix_nanos() - wall.as_unix_nanos()) / 1000));
    println!("went back {back}\nslept short {short}\npassed {}\napart {apart}", (before - start).as_micros());
}

/// Nanoseconds that `work` takes, in the quickest round.
fn quickest(count: u32, mut work: impl FnMut() -> Result<(), StartError>) -> Result<f64, StartError> {
    let mut quickest = f64::MAX;
    for _ in 0..ROUNDS {
        let start = time::now();
        for _ in 0..count {
            work()?;
        }
        quickest = quickest.min(start.elapsed().as_nanos() as f64 / f64::from(count));
    }
    Ok(quickest)
}
