//! `main.rs` of a generated crate: the arguments, the devices, and the call of the application's `start`.

use std::fmt::Write as _;
use std::path::Path;

use crate::application::Application;
use crate::files;
use crate::manifest::{Argument, Device, Kind, Layer};
use crate::resolve::{ArgumentGroup, Implementation, Resolved, ResolvedDevice};

use super::{LINKER_SCRIPT, Origin, embed};

pub(super) fn main(origin: &Origin, application: &Application, resolved: &Resolved, directory: &Path) -> anyhow::Result<String> {
    let mut text = format!("//! The image `{}` for the target {}.\n//!\n{}", application.name(), resolved.target, origin.comment("//!"));
    if resolved.target.is_image() {
        text.push_str("#![no_std]\n");
    }
    if resolved.target.is_image() && !resolved.target.is_shared_object() {
        text.push_str("#![no_main]\n");
    }
    text.push('\n');
    text.push_str(&uses(resolved));
    for device in resolved.devices.iter().filter(|device| device.implementation == Implementation::Embedded) {
        let _ = writeln!(text, "mod {};\n", embed::module(&device.device));
    }
    text.push_str(&image(application, resolved));
    for group in &resolved.groups {
        text.push_str(&constant(application, group, resolved, directory)?);
    }
    let devices: Vec<String> = resolved.host_devices().map(|(device, kind)| format!("{kind} {:?}", device.device.name)).collect();
    let target = resolved.target.crate_name();
    let _ = writeln!(text, "{target}::image! {{ image: IMAGE, devices: [{}], start: start }}\n", devices.join(", "));
    if resolved.target.is_image() {
        let _ = writeln!(
            text,
            "// Read here so that a change of the linker script links the image anew.\nconst _: &[u8] = include_bytes!(\"../{LINKER_SCRIPT}\");\n"
        );
    }
    text.push_str("async fn start() -> Result<(), StartError> {\n");
    for device in &resolved.devices {
        text.push_str(&open(device, resolved));
    }
    let names: Vec<&str> = resolved.devices.iter().map(|device| device.device.name.as_str()).collect();
    let _ = writeln!(text, "    application::start({}).await.map_err(StartError::application)\n}}", names.join(", "));
    Ok(text)
}

fn uses(resolved: &Resolved) -> String {
    let has = |implementation| resolved.devices.iter().any(|device| device.implementation == implementation);
    let has_constants = resolved.groups.iter().any(|group| matches!(group.path, "APPLICATION" | "DIRECTORY"));
    let mut text = String::new();
    text.push_str(if has_constants {
        "use fogbow::arguments::{Argument, COMMON, Group};\n"
    } else if resolved.groups.len() > 1 {
        "use fogbow::arguments::{COMMON, Group};\n"
    } else {
        "use fogbow::arguments::COMMON;\n"
    });
    text.push_str("use fogbow::{Image, StartError};\n");
    text.push_str(match (has(Implementation::Embedded), has(Implementation::Memory)) {
        (true, true) => "use fogbow_kv::{Embedded, Memory};\n",
        (true, false) => "use fogbow_kv::Embedded;\n",
        (false, true) => "use fogbow_kv::Memory;\n",
        (false, false) => "",
    });
    for (implementation, line) in
        [(Implementation::DirectStack, "use fogbow_net::direct::Direct;\n"), (Implementation::Directory, "use fogbow_unix::Directory;\n")]
    {
        if has(implementation) {
            text.push_str(line);
        }
    }
    text.push('\n');
    text
}

fn image(application: &Application, resolved: &Resolved) -> String {
    let mut text = format!(
        "const IMAGE: Image = Image {{\n    name: {:?},\n    version: {:?},\n    arguments: &[\n",
        application.name(),
        application.package.version
    );
    for group in &resolved.groups {
        let _ = match group.path {
            "COMMON" => writeln!(text, "        COMMON,"),
            _ => writeln!(text, "        Group {{ prefix: {:?}, arguments: {} }},", group.prefix, constant_name(group)),
        };
    }
    text.push_str("    ],\n};\n\n");
    text
}

/// How the group's arguments are named in the generated code.
fn constant_name(group: &ArgumentGroup) -> String {
    match group.path {
        "DIRECTORY" => format!("{}DIRECTORY", group.prefix.replace('-', "_").to_uppercase()),
        path => path.to_owned(),
    }
}

/// The constant of a group whose arguments are declared in the generated code itself.
fn constant(application: &Application, group: &ArgumentGroup, resolved: &Resolved, directory: &Path) -> anyhow::Result<String> {
    if !matches!(group.path, "APPLICATION" | "DIRECTORY") {
        return Ok(String::new());
    }
    let mut text = format!("/// Arguments of {}.\nconst {}: &[Argument] = &[\n", group.owner, constant_name(group));
    for argument in &group.arguments {
        let declaration = match (argument.default(), group.path) {
            (Some(source), "DIRECTORY") => {
                let device = resolved.devices.iter().map(|device| &device.device).find(|device| device.source.as_deref() == Some(source));
                let path = source_path(application, device, directory)?;
                let Argument { name, doc, .. } = argument;
                format!(
                    "Argument::new::<String>({name:?}, {doc:?}).valued(\"PATH\").default(concat!(env!(\"CARGO_MANIFEST_DIR\"), {path:?}))"
                )
            }
            _ => argument.declaration(),
        };
        let _ = writeln!(text, "    {declaration},");
    }
    text.push_str("];\n\n");
    Ok(text)
}

/// The way from the generated crate to the directory of a store, after a slash.
fn source_path(application: &Application, device: Option<&Device>, directory: &Path) -> anyhow::Result<String> {
    let Some(device) = device else { return Ok(String::new()) };
    let source = embed::source_directory(application, device)?;
    Ok(format!("/{}", files::utf8(&files::relative(directory, &source))?))
}

/// What lies over a block device: under a store that is only read, a layer that sees to it.
pub(super) fn layers(device: &ResolvedDevice) -> impl Iterator<Item = Layer> {
    let is_read = matches!(device.implementation, Implementation::Stored(_)) && device.device.kind == Kind::KvReadOnly;
    let guard = (is_read && !device.device.layers.contains(&Layer::ReadOnly)).then_some(Layer::ReadOnly);
    device.device.layers.iter().copied().chain(guard)
}

/// Whether nothing is ever written to a block device: formatting for authenticated encryption is.
pub(crate) fn is_only_read(device: &ResolvedDevice) -> bool {
    let mut is_read_only = false;
    layers(device).all(|layer| {
        is_read_only |= layer == Layer::ReadOnly;
        layer != Layer::Authenticated
    }) && is_read_only
}

/// The lines that open a device and bind it to its name.
fn open(device: &ResolvedDevice, resolved: &Resolved) -> String {
    let name = &device.device.name;
    let stack = stack_variable(&device.device);
    let target = resolved.target.crate_name();
    let failed = format!("map_err(|error| StartError::new({name:?}, error))");
    let opened = match device.implementation {
        Implementation::SharedStack => {
            let shared = resolved.devices.iter().find(|other| Some(&other.device.name) == device.device.stack.as_ref());
            let shared = shared.map(|other| stack_variable(&other.device)).unwrap_or_default();
            format!("    let {stack} = {shared}.clone();\n")
        }
        Implementation::HostStack => format!("    let {stack} = fogbow_unix::stack()?;\n"),
        Implementation::DirectStack => format!(
            "    let {stack} = {target}::net({name:?}).{failed}?;\n    let {stack} = Direct::from_arguments({stack}, {:?}).await?;\n",
            device.prefix
        ),
        Implementation::Frames => format!("    let {name} = {target}::net({name:?}).{failed}?;\n"),
        Implementation::Block | Implementation::Stored(_) => {
            let block = if !resolved.target.is_image() && is_only_read(device) { "read_only_block" } else { "block" };
            let mut text = format!("    let {name} = {target}::{block}({name:?}).{failed}?;\n");
            for layer in layers(device) {
                let _ = writeln!(text, "    let {name} = fogbow_block::layers::{}({name}, {name:?}).await?;", layer.name());
            }
            if let Implementation::Stored(format) = device.implementation {
                let _ = writeln!(text, "    let {name} = fogbow_kv::stores::{}({name}, {name:?}).await?;", format.name());
            }
            text
        }
        Implementation::Embedded => format!("    let {name} = Embedded::new(&{}::ENTRIES);\n", embed::module(&device.device)),
        Implementation::Directory => format!(
            "    let {name} = fogbow::arguments::parse::<String>(\"{name}-directory\")?;\n    let {name} = Directory::open({name}).{failed}?;\n"
        ),
        Implementation::Memory => format!("    let {name} = Memory::new();\n"),
    };
    opened + &over_stack(&device.device)
}

/// How the generated code names a device's stack: as the device where it is nothing else.
fn stack_variable(device: &Device) -> String {
    if device.kind == Kind::Stack { device.name.clone() } else { format!("{}_stack", device.name) }
}

/// The line that makes of a stack what the device is.
fn over_stack(device: &Device) -> String {
    let (name, stack) = (&device.name, stack_variable(device));
    let own = format!("{name}-");
    match device.kind {
        Kind::HttpServer => format!("    let {name} = fogbow_net::http::Server::from_arguments({stack}.clone(), {own:?})?;\n"),
        Kind::HttpClient => {
            format!(
                "    let {name} = fogbow_net::http::client::Client::new({stack}.clone(), fogbow_net::http::client::Limits::default());\n"
            )
        }
        _ => String::new(),
    }
}
