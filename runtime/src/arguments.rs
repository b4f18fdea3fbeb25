//! Arguments: what the host passes on the image's command line, and what was fixed when the image was built.
//!
//! Every argument is declared: by the application in `unikernel.toml`, which [`arguments!`](crate::arguments!) makes a struct, and by the devices
//! it uses. `--name=value` and `--name value` set one, `--name` alone a truth value; `--help` and `--version` are answered by the image itself.
//! What was not declared, is missing or is no value of its type ends the image before it starts, with a message and
//! [`status::USAGE`](crate::status::USAGE), so that a typing error is never silently ignored.
//!
//! A command line is one string on every target: see [`split`].

use alloc::borrow::ToOwned;
use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::str::FromStr;

use log::LevelFilter;

use crate::current;
use crate::logs::{Colour, Filter};
use crate::time::Duration;

/// An argument that an image understands.
///
/// ```
/// use fogbow::arguments::Argument;
/// const PORT: Argument = Argument::new::<u16>("port", "TCP port to serve").valued("NUMBER").default("80");
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Argument {
    name: &'static str,
    doc: &'static str,
    value: &'static str,
    presence: Presence,
    is_flag: bool,
    check: fn(&str) -> Result<(), String>,
}

/// How often an argument is given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Presence {
    /// It may be left out, and then has no value.
    Optional,
    /// It may be left out, and then has this value.
    Default(&'static str),
    /// It must be given.
    Required,
    /// It may be given any number of times.
    Repeated,
    /// It cannot be given: it got this value when the image was built.
    Fixed(&'static str),
}

impl Argument {
    /// An argument that may be left out, whose values are read as a `T`. `name` is without the leading `--` and its group's prefix; `doc` says
    /// what it means, in a line, for `--help`.
    #[must_use]
    pub const fn new<T: FromStr>(name: &'static str, doc: &'static str) -> Self
    where
        T::Err: fmt::Display,
    {
        Self { name, doc, value: "TEXT", presence: Presence::Optional, is_flag: false, check: check::<T> }
    }

    /// What stands for a value in `--help`; `TEXT` otherwise.
    #[must_use]
    pub const fn valued(self, value: &'static str) -> Self {
        Self { value, ..self }
    }

    /// A truth value: the name alone means `true`, and the next word is no value of it.
    #[must_use]
    pub const fn flag(self) -> Self {
        Self { is_flag: true, ..self }
    }

    /// Has the value `default` when it is not given.
    #[must_use]
    pub const fn default(self, default: &'static str) -> Self {
        Self { presence: Presence::Default(default), ..self }
    }

    /// Must be given.
    #[must_use]
    pub const fn required(self) -> Self {
        Self { presence: Presence::Required, ..self }
    }

    /// May be given any number of times.
    #[must_use]
    pub const fn repeated(self) -> Self {
        Self { presence: Presence::Repeated, ..self }
    }

    /// Has the value `value`, and cannot be given.
    #[must_use]
    pub const fn fixed(self, value: &'static str) -> Self {
        Self { presence: Presence::Fixed(value), ..self }
    }

    /// Its name, without the leading `--` and without its group's prefix.
    #[must_use]
    pub const fn name(&self) -> &'static str {
        self.name
    }

    /// What it means, in a line.
    #[must_use]
    pub const fn doc(&self) -> &'static str {
        self.doc
    }

    /// How often it is given.
    #[must_use]
    pub const fn presence(&self) -> Presence {
        self.presence
    }

    /// Checks a value.
    ///
    /// # Errors
    /// Why it is none.
    pub fn check(&self, value: &str) -> Result<(), String> {
        (self.check)(value)
    }

    const fn absent(&self) -> Option<&'static str> {
        match self.presence {
            Presence::Default(value) | Presence::Fixed(value) => Some(value),
            Presence::Optional | Presence::Required | Presence::Repeated => None,
        }
    }
}

fn check<T: FromStr>(value: &str) -> Result<(), String>
where
    T::Err: fmt::Display,
{
    value.parse::<T>().map(drop).map_err(|error| alloc::format!("{error}"))
}

/// Arguments that belong together, such as those of one device.
#[derive(Clone, Copy, Debug)]
pub struct Group {
    /// Put before each name, as in `--PREFIXname`; empty where names cannot clash.
    pub prefix: &'static str,
    /// The arguments.
    pub arguments: &'static [Argument],
}

/// The arguments of every image.
pub const COMMON: Group = Group {
    prefix: "",
    arguments: &[
        Argument::new::<Filter>("logs", "which log messages to print: SOURCE:LEVEL,...; for example *:info,net.http:debug (short: -l)")
            .valued("FILTER"),
        Argument::new::<Colour>("log-colour", "whether the levels of log messages are in colour: auto, on a terminal alone; always; never")
            .valued("WHEN")
            .default("auto"),
    ],
};

/// What the macro [`arguments!`](crate::arguments!) names.
#[doc(hidden)]
pub mod generated {
    pub use alloc::string::String;
    pub use alloc::vec::Vec;
}

/// The value of the argument `name`, with its group's prefix: as given, else its default, else `None`.
///
/// # Panics
/// When no runtime is running.
#[must_use]
pub fn get(name: &str) -> Option<String> {
    current::with(|runtime| runtime.arguments.get(name).map(ToOwned::to_owned))
}

/// The value of the argument `name`, parsed; `None` when it has none.
///
/// # Errors
/// [`ArgumentError::Invalid`] when it does not parse as a `T`. Return it from `start`, and the image ends with it as its message.
///
/// # Panics
/// When no runtime is running.
pub fn parse_optional<T: FromStr>(name: &str) -> Result<Option<T>, ArgumentError>
where
    T::Err: fmt::Display,
{
    get(name).map(|value| parse_value(name, value)).transpose()
}

/// Every value that was given for the argument `name`, parsed, in order.
///
/// # Errors
/// [`ArgumentError::Invalid`] when one does not parse as a `T`.
///
/// # Panics
/// When no runtime is running.
pub fn parse_all<T: FromStr>(name: &str) -> Result<Vec<T>, ArgumentError>
where
    T::Err: fmt::Display,
{
    let values: Vec<String> = current::with(|runtime| runtime.arguments.get_all(name).map(ToOwned::to_owned).collect());
    values.into_iter().map(|value| parse_value(name, value)).collect()
}

fn parse_value<T: FromStr>(name: &str, value: String) -> Result<T, ArgumentError>
where
    T::Err: fmt::Display,
{
    value.parse().map_err(|error: T::Err| ArgumentError::Invalid { name: name.to_owned(), value, reason: alloc::format!("{error}") })
}

/// The value of the argument `name`, parsed.
///
/// # Errors
/// [`ArgumentError::Missing`] when it was not given and has no default, [`ArgumentError::Invalid`] when it does not parse as a `T`.
///
/// # Panics
/// When no runtime is running.
///
/// ```
/// use fogbow::arguments::{self, Argument, Group};
/// const PORT: Group = Group { prefix: "", arguments: &[Argument::new::<u16>("port", "TCP port to serve").default("80")] };
/// let simulation = fogbow::simulation::Simulation::new(1).with_arguments(&[PORT], ["--port=8080"]);
/// let port = simulation.block_on(async { arguments::parse::<u16>("port") });
/// assert_eq!(port, Ok(8080));
/// ```
pub fn parse<T: FromStr>(name: &str) -> Result<T, ArgumentError>
where
    T::Err: fmt::Display,
{
    parse_optional(name)?.ok_or_else(|| ArgumentError::Missing { name: name.to_owned() })
}

/// What is wrong with an image's arguments.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ArgumentError {
    /// The command line has an unclosed quotation mark.
    Unclosed,
    /// A word that is no argument, such as `hello` in `--port 80 hello`.
    Stray(String),
    /// An argument that the image does not declare.
    Unknown(String),
    /// An argument that was fixed when the image was built.
    Fixed(String),
    /// An argument without the value it needs, at the end of the line.
    NoValue(String),
    /// An argument that was not given, has no default and is needed.
    Missing {
        /// Its name.
        name: String,
    },
    /// A value that cannot be understood.
    Invalid {
        /// The argument's name.
        name: String,
        /// What was given.
        value: String,
        /// Why it was refused.
        reason: String,
    },
}

impl fmt::Display for ArgumentError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unclosed => f.write_str("the command line has an unclosed quotation mark"),
            Self::Stray(word) => {
                write!(f, "'{word}' is no argument: write --NAME=VALUE, see --help")
            }
            Self::Unknown(name) => write!(f, "unknown argument --{name}: see --help"),
            Self::Fixed(name) => write!(f, "argument --{name} was fixed when the image was built: build it anew with --set {name}=VALUE"),
            Self::NoValue(name) => write!(f, "argument --{name} needs a value: --{name}=VALUE"),
            Self::Missing { name } => write!(f, "argument --{name} is needed: give --{name}=VALUE"),
            Self::Invalid { name, value, reason } => write!(f, "argument --{name}={value}: {reason}: see --help"),
        }
    }
}

impl core::error::Error for ArgumentError {}

/// What the command line asks for.
#[derive(Debug)]
pub(crate) enum Request {
    Start(Arguments),
    Help,
    Version,
}

/// The arguments given and declared.
#[derive(Debug, Default)]
pub(crate) struct Arguments {
    groups: Vec<Group>,
    given: Vec<(String, String)>,
    /// What `--solo5:quiet` and the like ask for.
    pub(crate) verbosity: Option<LevelFilter>,
}

impl Arguments {
    /// Reads the words of a command line against what is declared. Given twice, the later value counts, unless it is one that is repeated.
    pub(crate) fn read<I>(groups: &[Group], words: I) -> Result<Request, ArgumentError>
    where
        I: IntoIterator,
        I::Item: Into<String>,
    {
        let mut arguments = Self { groups: groups.to_vec(), ..Self::default() };
        let mut words = words.into_iter().map(Into::into);
        while let Some(word) = words.next() {
            let (name, value) = match word.as_str() {
                "--help" | "-h" => return Ok(Request::Help),
                "--version" => return Ok(Request::Version),
                // What Solo5's own bindings take off the command line of an image.
                "--solo5:quiet" => {
                    arguments.verbosity = Some(LevelFilter::Error);
                    continue;
                }
                "--solo5:debug" => {
                    arguments.verbosity = Some(LevelFilter::Debug);
                    continue;
                }
                "-l" => ("logs", None),
                other => match other.strip_prefix("--") {
                    // By its bytes: `split_once` searches with code that most images do not have otherwise.
                    Some(option) => match option.bytes().position(|byte| byte == b'=') {
                        Some(place) => (option.get(..place).unwrap_or_default(), option.get(place + 1..)),
                        None => (option, None),
                    },
                    None => return Err(ArgumentError::Stray(word)),
                },
            };
            let argument = *arguments.find(name).ok_or_else(|| ArgumentError::Unknown(name.to_owned()))?;
            if matches!(argument.presence, Presence::Fixed(_)) {
                return Err(ArgumentError::Fixed(name.to_owned()));
            }
            let value = match value {
                Some(value) => value.to_owned(),
                None if argument.is_flag => "true".to_owned(),
                None => words.next().ok_or_else(|| ArgumentError::NoValue(name.to_owned()))?,
            };
            let name = name.to_owned();
            if let Err(reason) = argument.check(&value) {
                return Err(ArgumentError::Invalid { name, value, reason });
            }
            arguments.given.push((name, value));
        }
        arguments.check_required()?;
        Ok(Request::Start(arguments))
    }

    fn check_required(&self) -> Result<(), ArgumentError> {
        for (prefix, argument) in self.declared().filter(|(_, argument)| argument.presence == Presence::Required) {
            if !self.given.iter().any(|(name, _)| is_named(prefix, argument, name)) {
                return Err(ArgumentError::Missing { name: alloc::format!("{prefix}{}", argument.name) });
            }
        }
        Ok(())
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.get_all(name).last().or_else(|| self.find(name)?.absent())
    }

    fn get_all<'a>(&'a self, name: &str) -> impl Iterator<Item = &'a str> {
        self.given.iter().filter(move |(given, _)| given == name).map(|(_, value)| value.as_str())
    }

    fn find(&self, name: &str) -> Option<&'static Argument> {
        self.declared().find(|(prefix, argument)| is_named(prefix, argument, name)).map(|(_, argument)| argument)
    }

    fn declared(&self) -> impl Iterator<Item = (&'static str, &'static Argument)> {
        self.groups.iter().flat_map(|group| group.arguments.iter().map(|argument| (group.prefix, argument)))
    }
}

fn is_named(prefix: &str, argument: &Argument, name: &str) -> bool {
    name.strip_prefix(prefix) == Some(argument.name)
}

/// Splits a command line into words as a POSIX shell does: at blanks, but for those in quotation marks and after a backslash; a word that begins
/// with `#` begins a comment. This is MirageOS's rule, and holds on every target: what the host was given as several arguments is joined by
/// blanks first.
///
/// # Errors
/// [`ArgumentError::Unclosed`].
///
/// ```
/// use fogbow::arguments::split;
/// for line in [r"--hello=foo\ bar", r#""--hello=foo bar""#, r"--hello='foo bar'"] {
///     assert_eq!(split(line)?, ["--hello=foo bar"]);
/// }
/// # Ok::<(), fogbow::arguments::ArgumentError>(())
/// ```
pub fn split(line: &str) -> Result<Vec<String>, ArgumentError> {
    shlex::split(line).ok_or(ArgumentError::Unclosed)
}

/// A length of time as an argument has it: a whole number and a unit, `ns`, `us`, `ms`, `s`, `m` or `h`.
///
/// ```
/// use fogbow::arguments::Span;
/// use fogbow::time::Duration;
/// assert_eq!("1500ms".parse(), Ok(Span(Duration::from_millis(1500))));
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span(pub Duration);

/// A text that is no [`Span`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SpanError;

impl fmt::Display for SpanError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("write a whole number and a unit (ns, us, ms, s, m, h), such as 500ms")
    }
}

impl core::error::Error for SpanError {}

impl FromStr for Span {
    type Err = SpanError;

    fn from_str(text: &str) -> Result<Self, SpanError> {
        let length = text.bytes().take_while(u8::is_ascii_digit).count();
        let (number, unit) = text.split_at(length);
        let nanos: u64 = match unit {
            "ns" => 1,
            "us" => 1_000,
            "ms" => 1_000_000,
            "s" => 1_000_000_000,
            "m" => 60_000_000_000,
            "h" => 3_600_000_000_000,
            _ => return Err(SpanError),
        };
        let number: u64 = number.parse().map_err(|_| SpanError)?;
        Ok(Self(Duration::from_nanos(number.checked_mul(nanos).ok_or(SpanError)?)))
    }
}

/// A choice as an argument has it: `yes` or `no`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct YesNo(pub bool);

impl FromStr for YesNo {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, &'static str> {
        match text {
            "yes" => Ok(Self(true)),
            "no" => Ok(Self(false)),
            _ => Err("write yes or no"),
        }
    }
}

/// What `--help` prints.
pub(crate) struct Help<'a> {
    pub(crate) image: &'a str,
    pub(crate) groups: &'a [Group],
}

impl fmt::Display for Help<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "{}: arguments", self.image)?;
        for Group { prefix, arguments } in self.groups {
            for Argument { name, doc, value, presence, is_flag, .. } in *arguments {
                write!(f, "  --{prefix}{name}")?;
                match is_flag {
                    true => f.write_str("\n")?,
                    false => writeln!(f, "={value}")?,
                }
                write!(f, "      {doc}")?;
                match presence {
                    Presence::Optional => f.write_str("\n")?,
                    Presence::Default(_) if *is_flag => f.write_str("\n")?,
                    Presence::Default(default) => writeln!(f, " (default: {default})")?,
                    Presence::Required => f.write_str(" (needed)\n")?,
                    Presence::Repeated => f.write_str(" (may be given again)\n")?,
                    Presence::Fixed(value) => writeln!(f, " (fixed when built: {value})")?,
                }
            }
        }
        f.write_str(
            "  --solo5:quiet, --solo5:debug\n      print log messages of level error alone; of level debug and worse\n  --help, -h\n      print this and \
             end\n  --version\n      print the image's name and version and end\n",
        )
    }
}

#[cfg(test)]
mod tests;
