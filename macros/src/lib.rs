//! `fogbow::arguments!()`: the arguments that `unikernel.toml` declares, as a struct.
//!
//! The file beside the application's `Cargo.toml` is the one place that declares arguments: the builder and this macro read it with the same
//! code, so a plain `cargo test` of the application checks it too.
#![forbid(unsafe_code)]

use std::fmt::Write as _;
use std::path::Path;

use fogbow_manifest::{Argument, FILE, Manifest, Presence, Type};
use proc_macro::TokenStream;

/// Makes the struct `Arguments`: a public field for each `[[arg]]` of the application's `unikernel.toml`.
///
/// A field has the argument's type as it is where the argument has a default or is required, in an `Option` where it may be left out, in a `Vec`
/// where it is repeated; its name has underscores for dashes. Besides:
///
/// - `Arguments::read()` gives their values in the image that runs, or an `ArgumentError`;
/// - `Arguments::GROUP` declares them, for tests: `Simulation::new(1).with_arguments(&[Arguments::GROUP], ["--port=8080"])`.
#[proc_macro]
pub fn arguments(input: TokenStream) -> TokenStream {
    let made = if input.is_empty() { generate() } else { Err("arguments! takes nothing: it reads unikernel.toml".to_owned()) };
    made.unwrap_or_else(|message| format!("::core::compile_error!({message:?});")).parse().unwrap_or_default()
}

fn generate() -> Result<String, String> {
    let directory = std::env::var("CARGO_MANIFEST_DIR").map_err(|_| "arguments!: compile with cargo".to_owned())?;
    let path = Path::new(&directory).join(FILE);
    let manifest = Manifest::read(&path).map_err(|error| error.to_string())?;
    Ok(source(&manifest.arguments, &path.display().to_string()))
}

fn source(arguments: &[Argument], path: &str) -> String {
    let (mut fields, mut values, mut declarations) = (String::new(), String::new(), String::new());
    for argument in arguments {
        let field = argument.field();
        let _ = writeln!(fields, "#[doc = {:?}] pub {field}: {},", argument.doc, argument.field_type());
        let _ = writeln!(values, "{field}: {},", value(argument));
        let _ = writeln!(declarations, "{},", argument.declaration());
    }
    format!(
        "/// The application's arguments, as `unikernel.toml` declares them.
        #[derive(Clone, Debug, PartialEq)]
        pub struct Arguments {{ {fields} }}

        impl Arguments {{
            /// Declares them to the runtime.
            pub const GROUP: ::fogbow::arguments::Group = {{
                use ::fogbow::arguments::Argument;
                ::fogbow::arguments::Group {{ prefix: \"\", arguments: &[{declarations}] }}
            }};

            /// Their values in the image that runs.
            ///
            /// # Errors
            /// None in an image: it checks its arguments before it starts. `ArgumentError` where they were not declared.
            ///
            /// # Panics
            /// When no runtime is running.
            pub fn read() -> ::core::result::Result<Self, ::fogbow::arguments::ArgumentError> {{
                ::core::result::Result::Ok(Self {{ {values} }})
            }}
        }}

        // Read here so that a change of the file compiles the crate anew.
        const _: &[u8] = ::core::include_bytes!({path:?});"
    )
}

/// The expression that reads an argument.
fn value(argument: &Argument) -> String {
    let name = &argument.name;
    let (read, unwrap) = match argument.presence {
        Presence::Default(_) | Presence::Required => ("parse", ".0"),
        Presence::Optional => ("parse_optional", ".map(|span| span.0)"),
        Presence::Repeated => ("parse_all", ".into_iter().map(|span| span.0).collect()"),
    };
    match argument.value {
        Type::Duration => format!("::fogbow::arguments::{read}::<::fogbow::arguments::Span>({name:?})?{unwrap}"),
        other => format!("::fogbow::arguments::{read}::<{}>({name:?})?", other.rust()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_as_its_argument_is_given() {
        let text = "name = 'x'
            arg = [
                { name = 'count', type = 'u64', default = 5, doc = 'how many' },
                { name = 'rest', type = 'duration' },
                { name = 'peer', group = 'public', type = 'socket', repeated = true },
            ]";
        let source = source(&Manifest::parse(text).unwrap().arguments, "/x/unikernel.toml");
        for part in [
            "#[doc = \"how many\"] pub count: u64,",
            "pub rest: ::core::option::Option<::core::time::Duration>,",
            "pub public_peer: ::fogbow::arguments::generated::Vec<::core::net::SocketAddr>,",
            "rest: ::fogbow::arguments::parse_optional::<::fogbow::arguments::Span>(\"rest\")?.map(|span| span.0),",
            "Argument::new::<u64>(\"count\", \"how many\").valued(\"NUMBER\").default(\"5\"),",
        ] {
            assert!(source.contains(part), "{part} is not in {source}");
        }
    }
}
