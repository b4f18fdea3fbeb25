//! From the entry code to `start` and to the status that the host sees.

use alloc::boxed::Box;
use alloc::rc::Rc;
use alloc::string::String;
use core::any::Any;
use core::error::Error;
use core::fmt;
use core::future::Future;

use crate::arguments::{ArgumentError, Arguments, Group, Help, Request};
use crate::console;
use crate::executor::Runtime;
use crate::logs::{Filter, Journal};
use crate::platform::Platform;
use crate::task::Ending;

/// The statuses with which an image ends.
pub mod status {
    /// `start` returned `Ok`.
    pub const SUCCESS: u8 = 0;
    /// `start` returned an error, which is on the console.
    pub const FAILURE: u8 = 1;
    /// The arguments are wrong: `EX_USAGE` of BSD's `sysexits.h`.
    pub const USAGE: u8 = 64;
    /// A panic, exhausted memory or a fault: `SOLO5_EXIT_ABORT` of Solo5's `solo5.h`.
    pub const ABORT: u8 = 255;
}

/// What the builder knows about an image.
#[derive(Clone, Copy, Debug)]
pub struct Image {
    /// Its name, from `unikernel.toml`.
    pub name: &'static str,
    /// Its version, from the application's `Cargo.toml`.
    pub version: &'static str,
    /// The arguments it understands.
    pub arguments: &'static [Group],
}

/// Why an image could not start or ended in failure: the message on the console, and the status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartError {
    message: String,
    status: u8,
}

impl StartError {
    /// The failure of `what`, such as a device's name: the message is `what: error`.
    pub fn new(what: &str, error: impl fmt::Display) -> Self {
        Self { message: alloc::format!("{what}: {error}"), status: status::FAILURE }
    }

    /// The error that the application's `start` returned. A `StartError` keeps its status, and an [`ArgumentError`] has its own; both do so
    /// in a `Box<dyn Error>` too.
    pub fn application(error: impl fmt::Display + 'static) -> Self {
        let message = alloc::format!("{error}");
        let error: &dyn Any = &error;
        let (start, is_argument) = match error.downcast_ref::<Box<dyn Error>>() {
            Some(error) => (error.downcast_ref::<Self>(), error.is::<ArgumentError>()),
            None => (error.downcast_ref::<Self>(), error.is::<ArgumentError>()),
        };
        let status = match start {
            Some(start) => start.status,
            None if is_argument => status::USAGE,
            None => status::FAILURE,
        };
        Self { message, status }
    }
}

impl From<ArgumentError> for StartError {
    fn from(error: ArgumentError) -> Self {
        Self { message: alloc::format!("{error}"), status: status::USAGE }
    }
}

impl fmt::Display for StartError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl Error for StartError {}

/// Runs an image: reads its arguments, then runs what `start` returns until it ends. Gives the status for the host; the reason of a failure is
/// on the console by then.
///
/// `words` is the command line, split, or why it could not be split (see [`split`](crate::arguments::split)).
pub fn run<W, S, F>(platform: Rc<dyn Platform>, image: &Image, words: Result<W, ArgumentError>, start: S) -> u8
where
    W: IntoIterator,
    W::Item: Into<String>,
    S: FnOnce() -> F,
    F: Future<Output = Result<(), StartError>> + 'static,
{
    let outcome = match words.and_then(|words| Arguments::read(image.arguments, words)) {
        Ok(Request::Help) => {
            print(&*platform, format_args!("{}", Help { image: image.name, groups: image.arguments }));
            Ok(())
        }
        Ok(Request::Version) => {
            print(&*platform, format_args!("{} {}\n", image.name, image.version));
            Ok(())
        }
        Ok(Request::Start(arguments)) => start_runtime(Rc::clone(&platform), arguments, start),
        Err(error) => Err(error.into()),
    };
    match outcome {
        Ok(()) => status::SUCCESS,
        Err(error) => {
            print(&*platform, format_args!("{}: error: {error}\n", image.name));
            error.status
        }
    }
}

fn start_runtime<S, F>(platform: Rc<dyn Platform>, arguments: Arguments, start: S) -> Result<(), StartError>
where
    S: FnOnce() -> F,
    F: Future<Output = Result<(), StartError>> + 'static,
{
    let journal = journal(&arguments, &*platform);
    let runtime = Runtime::new(Rc::clone(&platform), arguments, journal);
    let output = runtime.block_on(start());
    if runtime.ending.get() == Some(Ending::Restart) {
        platform.restart();
        return Err(StartError { message: "it cannot start anew on this target: start it again".into(), status: status::FAILURE });
    }
    output.unwrap_or(Ok(()))
}

/// The log that the arguments ask for, which have been checked.
pub(crate) fn journal(arguments: &Arguments, platform: &dyn Platform) -> Journal {
    let filter = arguments.get("logs").and_then(|text| text.parse().ok());
    let filter = filter.unwrap_or_else(|| arguments.verbosity.map_or_else(Filter::default, Filter::from));
    let colour = arguments.get("log-colour").and_then(|text| text.parse().ok());
    Journal::new(filter, colour.unwrap_or_default(), platform)
}

fn print(platform: &dyn Platform, text: fmt::Arguments<'_>) {
    console::write_to(&mut |bytes| platform.write_console(bytes), text);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arguments::{Argument, COMMON};
    use crate::simulation::Simulation;

    const IMAGE: Image = Image {
        name: "test",
        version: "1.2.3",
        arguments: &[COMMON, Group { prefix: "", arguments: &[Argument::new::<String>("n", "")] }],
    };

    fn run_with(words: &[&str], result: Result<(), StartError>) -> (u8, String) {
        let simulation = Simulation::new(1);
        let status = run(simulation.platform(), &IMAGE, Ok(words.iter().copied()), || async { result });
        (status, simulation.console())
    }

    #[test]
    fn start_decides_the_status() {
        assert_eq!(run_with(&[], Ok(())), (0, String::new()));
        assert_eq!(run_with(&[], Err(StartError::application("no disk"))), (1, "test: error: no disk\n".into()));
        let missing = ArgumentError::Missing { name: "n".into() };
        assert_eq!(run_with(&[], Err(missing.clone().into())).0, 64);
        for error in [
            StartError::application(missing.clone()),
            StartError::application(StartError::from(missing.clone())),
            StartError::application(Box::<dyn Error>::from(missing.clone())),
            StartError::application(Box::<dyn Error>::from(StartError::from(missing.clone()))),
        ] {
            assert_eq!(run_with(&[], Err(error)), (64, "test: error: argument --n is needed: give --n=VALUE\n".into()));
        }
        assert_eq!(run_with(&[], Err(StartError::application(Box::<dyn Error>::from(fmt::Error)))).0, 1);
    }

    #[test]
    fn an_image_ends_before_its_start_with_its_hooks_run() {
        let ended_by = |end: fn()| {
            let simulation = Simulation::new(1);
            let status = run(simulation.platform(), &IMAGE, Ok(["--n=1"]), move || async move {
                let held = Held;
                crate::at_exit(async { crate::println!("hook") });
                crate::spawn(async move { end() }).detach();
                core::future::pending::<()>().await;
                drop(held);
                Ok(())
            });
            (status, simulation.console())
        };
        assert_eq!(ended_by(crate::shut_down), (0, "dropped\nhook\n".into()));
        let (status, console) = ended_by(crate::restart);
        assert_eq!(status, 1);
        assert!(console.contains("hook\ntest: error: it cannot start anew"), "{console}");
    }

    /// Says when it is dropped.
    struct Held;

    impl Drop for Held {
        fn drop(&mut self) {
            crate::println!("dropped");
        }
    }

    #[test]
    fn wrong_arguments_end_with_a_usage_status_and_help_does_not() {
        assert_eq!(run_with(&["--m=1"], Ok(())), (64, "test: error: unknown argument --m: see --help\n".into()));
        assert_eq!(run_with(&["--logs=x:y"], Ok(())).0, 64);
        assert_eq!(run_with(&["--version"], Ok(())), (0, "test 1.2.3\n".into()));
        assert!(run_with(&["--help"], Ok(())).1.contains("--n=TEXT"));
    }
}
