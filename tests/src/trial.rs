//! Tests that know at run time whether they can run here.

use anyhow::Result;
use libtest_mimic::{Completion, Failed, Trial};

use crate::Skip;

/// A test that passes, fails, or is [skipped](Skip) with a reason, which is reported as ignored.
pub fn trial(name: String, test: impl FnOnce() -> Result<()> + Send + 'static) -> Trial {
    Trial::ignorable_test(name, move || match test() {
        Ok(()) => Ok(Completion::Completed),
        Err(error) => match error.downcast::<Skip>() {
            Ok(Skip(reason)) => Ok(Completion::ignored_with(reason)),
            Err(error) => Err(Failed::from(format!("{error:?}"))),
        },
    })
}
