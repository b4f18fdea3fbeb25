//! `[[arg]]`: an argument of the application, and how Rust says it.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};

use super::table::Table;
use super::{Problem, check_words, read_group, suggest};

/// An argument that the application takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Argument {
    /// Its name on the command line, its group's prefix included, without `--`.
    pub name: String,
    /// What its values are.
    pub value: Type,
    /// How often it is given.
    pub presence: Presence,
    /// When it is given.
    pub stage: Stage,
    /// What it means, in a line.
    pub doc: String,
    /// What it serves, when it is a port.
    pub serves: Serves,
}

/// How often an argument is given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Presence {
    /// It may be left out, and then has no value.
    Optional,
    /// It may be left out, and then has this value.
    Default(String),
    /// It must be given.
    Required,
    /// It may be given any number of times.
    Repeated,
}

/// When an argument is given.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Stage {
    /// When the image is built.
    Build,
    /// When the image starts.
    #[default]
    Boot,
}

/// What is served on the port that an argument names.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Serves {
    /// TCP.
    pub tcp: bool,
    /// UDP.
    pub udp: bool,
    /// HTTP over TCP: implies `tcp`.
    pub http: bool,
}

macro_rules! types {
    ($($(#[$doc:meta])* $variant:ident $name:literal $rust:literal $check:expr,)+) => {
        /// What the values of an argument are.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Type { $($(#[$doc])* $variant,)+ }

        impl Type {
            const ALL: &[Self] = &[$(Self::$variant,)+];
            const NAMES: &[&str] = &[$($name,)+];

            /// Its name in the file.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$variant => $name,)+ }
            }

            /// The Rust type of a value.
            #[must_use]
            pub fn rust(self) -> &'static str {
                match self { $(Self::$variant => $rust,)+ }
            }

            /// Whether `text` is a value of this type.
            #[must_use]
            pub fn accepts(self, text: &str) -> bool {
                let check: fn(&str) -> bool = match self { $(Self::$variant => $check,)+ };
                check(text)
            }
        }
    };
}

types! {
    /// Any text.
    String "string" "::fogbow::arguments::generated::String" |_| true,
    /// `true` or `false`; `--name` alone means `true`.
    Bool "bool" "bool" is::<bool>,
    /// A number from 0 to 65,535.
    U16 "u16" "u16" is::<u16>,
    /// A number from 0 to 4,294,967,295.
    U32 "u32" "u32" is::<u32>,
    /// A number from 0 to 2^64 - 1.
    U64 "u64" "u64" is::<u64>,
    /// A number from -2^63 to 2^63 - 1.
    I64 "i64" "i64" is::<i64>,
    /// A number with a fraction.
    F64 "f64" "f64" is::<f64>,
    /// A length of time with its unit, such as `500ms` or `2s`.
    Duration "duration" "::core::time::Duration" is_duration,
    /// An IPv4 address.
    Ipv4 "ipv4" "::core::net::Ipv4Addr" is::<Ipv4Addr>,
    /// An IPv4 or IPv6 address.
    Ip "ip" "::core::net::IpAddr" is::<IpAddr>,
    /// An address and a port, such as `10.0.0.1:514`.
    Socket "socket" "::core::net::SocketAddr" is::<SocketAddr>,
}

fn is<T: std::str::FromStr>(text: &str) -> bool {
    text.parse::<T>().is_ok()
}

/// As `fogbow::arguments::Span` reads it: a number without fraction and a unit. A test of the builder, which knows both, holds them together.
fn is_duration(text: &str) -> bool {
    let digits = text.trim_start_matches(|c: char| c.is_ascii_digit());
    let (number, unit) = text.split_at(text.len() - digits.len());
    let nanos = match unit {
        "ns" => 1,
        "us" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        _ => return false,
    };
    number.parse::<u64>().is_ok_and(|number| number.checked_mul(nanos).is_some())
}

impl fmt::Display for Type {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl Argument {
    pub(crate) const FIELDS: &[&str] = &["name", "type", "default", "required", "repeated", "group", "stage", "doc", "tcp", "udp", "http"];

    /// Arguments that every image has.
    const RESERVED: [&str; 4] = ["logs", "log-colour", "help", "version"];

    /// The value that it has when it is not given.
    #[must_use]
    pub fn default(&self) -> Option<&str> {
        match &self.presence {
            Presence::Default(value) => Some(value),
            Presence::Optional | Presence::Required | Presence::Repeated => None,
        }
    }

    /// What the struct calls it.
    #[must_use]
    pub fn field(&self) -> String {
        let raw = if super::is_keyword(&self.name) { "r#" } else { "" };
        format!("{raw}{}", self.name.replace('-', "_"))
    }

    /// The type of the field.
    #[must_use]
    pub fn field_type(&self) -> String {
        let value = self.value.rust();
        match self.presence {
            Presence::Default(_) | Presence::Required => value.to_owned(),
            Presence::Optional => format!("::core::option::Option<{value}>"),
            Presence::Repeated => format!("::fogbow::arguments::generated::Vec<{value}>"),
        }
    }

    /// The expression that declares it to the runtime, a `fogbow::arguments::Argument`, where `Argument` is in scope.
    #[must_use]
    pub fn declaration(&self) -> String {
        let Self { name, value, presence, stage, doc, .. } = self;
        let value = match value {
            Type::Duration => "::fogbow::arguments::Span",
            other => other.rust(),
        };
        let presence = match (presence, stage) {
            (Presence::Default(default), Stage::Build) => format!(".fixed({default:?})"),
            (Presence::Default(default), Stage::Boot) => format!(".default({default:?})"),
            (Presence::Required, _) => ".required()".to_owned(),
            (Presence::Repeated, _) => ".repeated()".to_owned(),
            (Presence::Optional, _) => String::new(),
        };
        let placeholder = match self.value {
            Type::Bool => ".flag()",
            Type::String => "",
            Type::U16 | Type::U32 | Type::U64 | Type::I64 | Type::F64 => ".valued(\"NUMBER\")",
            Type::Duration => ".valued(\"DURATION\")",
            Type::Ipv4 | Type::Ip => ".valued(\"ADDRESS\")",
            Type::Socket => ".valued(\"ADDRESS:PORT\")",
        };
        format!("Argument::new::<{value}>({name:?}, {doc:?}){placeholder}{presence}")
    }

    pub(crate) fn read(mut table: Table<'_>) -> Result<(Self, usize), Problem> {
        let line = table.line();
        let bare = table.required_string("name", "the argument's name, without --")?;
        check_words(&bare.value).map_err(|rule| bare.problem(format!("argument name \"{}\": {rule}", bare.value)))?;
        let group = read_group(&mut table, &format!("argument '{}': ", bare.value))?;
        let name = group.map_or_else(|| bare.value.clone(), |group| format!("{group}-{}", bare.value));
        if Self::RESERVED.contains(&name.as_str()) {
            return Err(bare.problem(format!("argument '{name}': every image has --{name} already: choose another name")));
        }
        let context = format!("argument '{name}': ");
        let value = Type::read(&mut table, &context)?;
        let presence = read_presence(&mut table, value, line, &context)?;
        let stage = Stage::read(&mut table, &presence, line, &context)?;
        let doc = table.string("doc")?.map_or_else(String::new, |doc| doc.value);
        let http = table.boolean("http")?;
        let serves = Serves { tcp: table.boolean("tcp")? || http, udp: table.boolean("udp")?, http };
        table.finish(&context)?;
        if let (Presence::Default(default), true) = (&presence, serves != Serves::default())
            && !default.parse::<u16>().is_ok_and(|port| port > 0)
        {
            return Err(Problem { line, message: format!("{context}default \"{default}\" is no port: write a number from 1 to 65535") });
        }
        Ok((Self { name, value, presence, stage, doc, serves }, line))
    }
}

impl Type {
    fn read(table: &mut Table<'_>, context: &str) -> Result<Self, Problem> {
        let Some(name) = table.string("type")? else { return Ok(Self::String) };
        Self::ALL
            .iter()
            .copied()
            .find(|value| value.name() == name.value)
            .ok_or_else(|| name.problem(format!("{context}unknown type \"{}\": {}", name.value, suggest::hint(&name.value, Self::NAMES))))
    }
}

fn read_presence(table: &mut Table<'_>, value: Type, line: usize, context: &str) -> Result<Presence, Problem> {
    let default = table.scalar("default")?;
    if let Some(default) = &default
        && !value.accepts(&default.value)
    {
        return Err(default.problem(format!("{context}default \"{}\" is no {value}", default.value)));
    }
    match (default, table.boolean("required")?, table.boolean("repeated")?) {
        (Some(default), false, false) => Ok(Presence::Default(default.value)),
        (None, true, false) => Ok(Presence::Required),
        (None, false, true) => Ok(Presence::Repeated),
        (None, false, false) if value == Type::Bool => Ok(Presence::Default("false".to_owned())),
        (None, false, false) => Ok(Presence::Optional),
        _ => Err(Problem { line, message: format!("{context}default, required and repeated exclude each other: keep one") }),
    }
}

impl Stage {
    fn read(table: &mut Table<'_>, presence: &Presence, line: usize, context: &str) -> Result<Self, Problem> {
        let Some(stage) = table.string("stage")? else { return Ok(Self::Boot) };
        match stage.value.as_str() {
            "boot" => Ok(Self::Boot),
            "build" if matches!(presence, Presence::Default(_)) => Ok(Self::Build),
            "build" => Err(Problem { line, message: format!("{context}an argument of the stage build has a default: add one") }),
            other => Err(stage.problem(format!("{context}unknown stage \"{other}\": {}", suggest::hint(other, &["build", "boot"])))),
        }
    }
}

/// Why a value cannot be fixed when an image is built.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SetError {
    /// No argument of the stage `build` has this name; the hint says which do.
    Unknown(String, String),
    /// The text is no value of the argument's type.
    Invalid(String, String, Type),
}

impl fmt::Display for SetError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown(name, hint) => write!(f, "--set {name}=...: no argument of the stage build is called '{name}': {hint}"),
            Self::Invalid(name, value, wanted) => write!(f, "--set {name}={value}: '{value}' is no {wanted}"),
        }
    }
}

impl std::error::Error for SetError {}

impl super::Manifest {
    /// Fixes the values of arguments of the stage `build`.
    ///
    /// # Errors
    /// [`SetError`] for the first that cannot be.
    pub fn set(&mut self, values: &[(String, String)]) -> Result<(), SetError> {
        for (name, value) in values {
            let of_stage = self.arguments.iter_mut().filter(|argument| argument.stage == Stage::Build);
            let mut of_stage: Vec<&mut Argument> = of_stage.collect();
            let names: Vec<String> = of_stage.iter().map(|argument| argument.name.clone()).collect();
            let Some(argument) = of_stage.iter_mut().find(|argument| argument.name == *name) else {
                let names: Vec<&str> = names.iter().map(String::as_str).collect();
                return Err(SetError::Unknown(name.clone(), suggest::hint(name, &names)));
            };
            if !argument.value.accepts(value) {
                return Err(SetError::Invalid(name.clone(), value.clone(), argument.value));
            }
            argument.presence = Presence::Default(value.clone());
        }
        Ok(())
    }
}

/// Checks that the struct can have all of them as fields.
pub(crate) fn check_fields(arguments: &[(Argument, usize)]) -> Result<(), Problem> {
    for (argument, line) in arguments {
        // The words that `r#` cannot make names.
        if ["crate", "self", "super"].contains(&argument.name.as_str()) {
            let message = format!("argument '{}': it cannot name a field in Rust: choose another", argument.name);
            return Err(Problem { line: *line, message });
        }
    }
    Ok(())
}
