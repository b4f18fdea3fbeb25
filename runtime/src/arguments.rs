//! Boot arguments: what the host passes on the image's command line.
//!
//! Every argument is declared: by the application in `unikernel.toml`, and by the devices it uses. `--name=value` and `--name value` set one,
//! `--help` and `--version` are answered by the image itself, and anything that was not declared ends the image with a message and
//! [`status::USAGE`](crate::status::USAGE), so that a typing error is never silently ignored.
//!
//! Limit: each value is text; the reader of an argument parses it ([`parse`]).

use alloc::borrow::ToOwned;
use alloc::string::{String, ToString};
use alloc::vec::Vec;
use core::fmt;
use core::str::FromStr;

use crate::current;

/// An argument that an image understands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Argument {
    /// Its name, without the leading `--` and without its group's prefix.
    pub name: &'static str,
    /// Its value when it is not given. `None`: it may be left out, and then has no value.
    pub default: Option<&'static str>,
    /// What it means, in a line, for `--help`.
    pub doc: &'static str,
}

/// Arguments that belong together, such as those of one device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Group {
    /// Put before each name, as in `--PREFIXname`; empty where names cannot clash.
    pub prefix: &'static str,
    /// The arguments.
    pub arguments: &'static [Argument],
}

/// The arguments of every image.
pub const COMMON: Group = Group {
    prefix: "",
    arguments: &[Argument {
        name: "logs",
        default: None,
        doc: "which log messages to print: SOURCE:LEVEL,...; for example *:info,fogbow_net:debug (short: -l)",
    }],
};

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
    get(name)
        .map(|value| {
            value.parse().map_err(|error: T::Err| ArgumentError::Invalid { name: name.to_owned(), value, reason: error.to_string() })
        })
        .transpose()
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
/// const PORT: Group = Group { prefix: "", arguments: &[Argument { name: "port", default: Some("80"), doc: "TCP port to serve" }] };
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
            Self::NoValue(name) => write!(f, "argument --{name} needs a value: --{name}=VALUE"),
            Self::Missing { name } => write!(f, "argument --{name} is needed: give --{name}=VALUE"),
            Self::Invalid { name, value, reason } => write!(f, "argument --{name}={value}: {reason}: see --help"),
        }
    }
}

impl core::error::Error for ArgumentError {}

/// What the command line asks for.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Request {
    Start(Arguments),
    Help,
    Version,
}

/// The arguments given and declared.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Arguments {
    groups: Vec<Group>,
    given: Vec<(String, String)>,
}

impl Arguments {
    /// Reads the words of a command line against what is declared. Given twice, the later value counts.
    pub(crate) fn read<I>(groups: &[Group], words: I) -> Result<Request, ArgumentError>
    where
        I: IntoIterator,
        I::Item: Into<String>,
    {
        let mut arguments = Self { groups: groups.to_vec(), given: Vec::new() };
        let mut words = words.into_iter().map(Into::into);
        while let Some(word) = words.next() {
            let (name, value) = match word.as_str() {
                "--help" | "-h" => return Ok(Request::Help),
                "--version" => return Ok(Request::Version),
                "-l" => ("logs", None),
                other => match other.strip_prefix("--") {
                    Some(option) => option.split_once('=').map_or((option, None), |(name, value)| (name, Some(value))),
                    None => return Err(ArgumentError::Stray(word)),
                },
            };
            if !arguments.is_declared(name) {
                return Err(ArgumentError::Unknown(name.to_owned()));
            }
            let value = match value {
                Some(value) => value.to_owned(),
                None => words.next().ok_or_else(|| ArgumentError::NoValue(name.to_owned()))?,
            };
            arguments.given.push((name.to_owned(), value));
        }
        Ok(Request::Start(arguments))
    }

    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        match self.given.iter().rev().find(|(given, _)| given == name) {
            Some((_, value)) => Some(value),
            None => self.declared().find(|(prefix, argument)| is_named(prefix, argument, name)).and_then(|(_, argument)| argument.default),
        }
    }

    fn is_declared(&self, name: &str) -> bool {
        self.declared().any(|(prefix, argument)| is_named(prefix, argument, name))
    }

    fn declared(&self) -> impl Iterator<Item = (&'static str, &'static Argument)> {
        self.groups.iter().flat_map(|group| group.arguments.iter().map(|argument| (group.prefix, argument)))
    }
}

fn is_named(prefix: &str, argument: &Argument, name: &str) -> bool {
    name.strip_prefix(prefix) == Some(argument.name)
}

/// Splits a command line into words as a POSIX shell does, quotation marks and backslashes included.
///
/// # Errors
/// [`ArgumentError::Unclosed`].
pub fn split(line: &str) -> Result<Vec<String>, ArgumentError> {
    shlex::split(line).ok_or(ArgumentError::Unclosed)
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
            for Argument { name, default, doc } in *arguments {
                writeln!(f, "  --{prefix}{name}=VALUE")?;
                match default {
                    Some(default) => writeln!(f, "      {doc} (default: {default})")?,
                    None => writeln!(f, "      {doc}")?,
                }
            }
        }
        writeln!(f, "  --help\n      print this and end\n  --version\n      print the image's name and version and end")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const STACK: Group = Group {
        prefix: "admin-",
        arguments: &[Argument { name: "ipv4", default: None, doc: "address" }, Argument { name: "mtu", default: Some("1500"), doc: "MTU" }],
    };

    fn read(line: &str) -> Result<Arguments, ArgumentError> {
        match Arguments::read(&[COMMON, STACK], split(line)?)? {
            Request::Start(arguments) => Ok(arguments),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn values_come_from_the_line_else_from_the_default() {
        let arguments = read("--admin-ipv4=10.0.0.2/24 -l '*:debug' --admin-ipv4 10.0.0.3/24").unwrap();
        assert_eq!(arguments.get("admin-ipv4"), Some("10.0.0.3/24"));
        assert_eq!(arguments.get("admin-mtu"), Some("1500"));
        assert_eq!(arguments.get("logs"), Some("*:debug"));
        assert_eq!(arguments.get("mtu"), None);
    }

    #[test]
    fn mistakes_are_named() {
        assert_eq!(read("--ipv4=10.0.0.2"), Err(ArgumentError::Unknown("ipv4".into())));
        assert_eq!(read("--admin-ipv4"), Err(ArgumentError::NoValue("admin-ipv4".into())));
        assert_eq!(read("hello"), Err(ArgumentError::Stray("hello".into())));
        assert_eq!(read("--logs='x"), Err(ArgumentError::Unclosed));
    }

    #[test]
    fn help_lists_every_argument_with_its_default() {
        let help = Help { image: "http", groups: &[COMMON, STACK] }.to_string();
        assert!(help.contains("--admin-mtu=VALUE\n      MTU (default: 1500)"), "{help}");
        assert!(matches!(Arguments::read(&[], ["--help"]), Ok(Request::Help)));
    }

    proptest! {
        #[test]
        fn any_line_is_read_or_refused(line in ".{0,200}") {
            let _ = split(&line).map(|words| Arguments::read(&[COMMON, STACK], words));
        }
    }
}
