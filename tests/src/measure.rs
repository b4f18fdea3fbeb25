//! Measuring: processor time of a process, medians, and the table that a benchmark prints.

use std::fmt;
use std::time::Duration;

use anyhow::{Context, Result};

/// A figure beside what it is measured against.
#[derive(Clone, Debug)]
pub struct Row {
    /// What is measured, with its unit.
    pub what: String,
    /// Ours.
    pub ours: f64,
    /// The reference and its name, measured in the same run or a stated figure.
    pub reference: Option<(f64, String)>,
    /// The promise, and whether more or less than it is wanted.
    pub promise: Option<Promise>,
}

/// A limit that a figure is to keep.
#[derive(Clone, Copy, Debug)]
pub enum Promise {
    /// No more than this.
    AtMost(f64),
    /// No less than this.
    AtLeast(f64),
    /// No more than this many times the reference.
    RatioAtMost(f64),
    /// No less than this many times the reference.
    RatioAtLeast(f64),
}

impl Row {
    /// Whether the promise is kept; `None` without a promise.
    #[must_use]
    pub fn kept(&self) -> Option<bool> {
        let ratio = self.reference.as_ref().map(|(reference, _)| self.ours / reference);
        match self.promise? {
            Promise::AtMost(limit) => Some(self.ours <= limit),
            Promise::AtLeast(limit) => Some(self.ours >= limit),
            Promise::RatioAtMost(limit) => ratio.map(|ratio| ratio <= limit),
            Promise::RatioAtLeast(limit) => ratio.map(|ratio| ratio >= limit),
        }
    }
}

impl fmt::Display for Row {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:<58} {:>12.2}", self.what, self.ours)?;
        match &self.reference {
            Some((reference, name)) => write!(f, " {reference:>12.2} {:>6.2}x  {name}", self.ours / reference)?,
            None => write!(f, " {:>12} {:>7}", "", "")?,
        }
        match (self.promise, self.kept()) {
            (Some(promise), Some(kept)) => write!(f, "  [{promise}: {}]", if kept { "kept" } else { "NOT KEPT" }),
            _ => Ok(()),
        }
    }
}

impl fmt::Display for Promise {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AtMost(limit) => write!(f, "at most {limit}"),
            Self::AtLeast(limit) => write!(f, "at least {limit}"),
            Self::RatioAtMost(limit) => write!(f, "at most {limit}x"),
            Self::RatioAtLeast(limit) => write!(f, "at least {limit}x"),
        }
    }
}

/// The median of `values`; 0 if there are none.
#[must_use]
pub fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

/// Processor time that the process `id` has used, in user and kernel mode: fields 14 and 15 of `/proc/PID/stat` (proc(5)).
///
/// # Errors
/// When the process is gone.
pub fn cpu_time(id: u32) -> Result<Duration> {
    let stat = std::fs::read_to_string(format!("/proc/{id}/stat")).context("reading the process's times")?;
    // The second field is a name in parentheses, which may hold spaces.
    let fields: Vec<&str> = stat.rsplit_once(')').context("an unknown format of stat")?.1.split_whitespace().collect();
    let ticks = [11, 12].map(|at| fields.get(at).and_then(|field| field.parse::<u64>().ok()).unwrap_or_default());
    Ok(Duration::from_secs_f64((ticks[0] + ticks[1]) as f64 / rustix::param::clock_ticks_per_second() as f64))
}

/// Resident memory of the process `id` in KiB: `VmRSS` of `/proc/PID/status` (proc(5)).
///
/// # Errors
/// When the process is gone.
pub fn resident(id: u32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{id}/status")).context("reading the process's memory")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    line.split_whitespace().next().and_then(|value| value.parse().ok()).context("an unknown format of VmRSS")
}
