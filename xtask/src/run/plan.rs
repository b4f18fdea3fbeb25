//! How an application's devices are attached and where its ports are found: from what was asked for, and sensible defaults for the rest.

use anyhow::{Context as _, bail, ensure};
use fogbow_tender::manifest::DeviceKind;

use crate::cli::RunArgs;
use crate::generate;
use crate::manifest::Serves;
use crate::resolve::{Implementation, Resolved, ResolvedDevice};
use crate::suggest;

use super::ports;

/// What a device of an image is attached to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Attachment {
    pub(super) kind: DeviceKind,
    /// The device's name.
    pub(super) name: String,
    /// A tap or `user` and its options; a file.
    pub(super) source: String,
    /// Whether a file is opened for reading alone.
    pub(super) is_only_read: bool,
}

/// What to run an image with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Plan {
    /// The tender's options besides those for devices.
    pub(super) options: Vec<String>,
    /// What the image's devices are attached to, in the manifest's order.
    pub(super) attachments: Vec<Attachment>,
    /// The image's arguments.
    pub(super) arguments: Vec<String>,
    /// Where what it serves is found, in lines for the user.
    pub(super) places: Vec<String>,
}

impl Plan {
    /// Makes a plan. `is_free` tells whether a port of the host is.
    pub(super) fn new(resolved: &Resolved, args: &RunArgs, is_free: impl Fn(u16, Serves) -> bool) -> anyhow::Result<Self> {
        check_names("--net", &args.net, resolved, DeviceKind::Net)?;
        check_names("--block", &args.block, resolved, DeviceKind::Block)?;
        let planner = Planner { resolved, args, is_free: &is_free };
        let mut plan = Self { options: args.mem.iter().map(|mem| format!("--mem={mem}")).collect(), ..Self::default() };
        for (device, kind) in resolved.host_devices() {
            match kind {
                DeviceKind::Net => planner.attach_net(&mut plan, device)?,
                DeviceKind::Block => planner.attach_block(&mut plan, device)?,
            }
        }
        if resolved.devices.iter().any(|device| device.implementation == Implementation::HostStack) {
            planner.serve_on_host(&mut plan)?;
        }
        plan.arguments.extend(args.arguments.iter().cloned());
        Ok(plan)
    }

    /// All options of a tender.
    pub(super) fn tender_options(&self) -> impl Iterator<Item = String> {
        let attachments = self.attachments.iter().map(|Attachment { kind, name, source, .. }| format!("--{kind}:{name}={source}"));
        let read = self.attachments.iter().filter(|attachment| attachment.is_only_read);
        let read = read.map(|Attachment { kind, name, .. }| format!("--{kind}-read-only:{name}=yes"));
        self.options.iter().cloned().chain(attachments).chain(read)
    }
}

/// A port that the application serves.
struct Served {
    /// The argument's name.
    name: String,
    serves: Serves,
    port: u16,
    /// True when the user gave the port.
    is_given: bool,
}

struct Planner<'a> {
    resolved: &'a Resolved,
    args: &'a RunArgs,
    is_free: &'a dyn Fn(u16, Serves) -> bool,
}

impl Planner<'_> {
    fn attach_net(&self, plan: &mut Plan, device: &ResolvedDevice) -> anyhow::Result<()> {
        let name = &device.device.name;
        let is_stack = device.implementation == Implementation::DirectStack;
        let is_image = self.resolved.target.is_image();
        let is_alone = self.resolved.host_devices().filter(|(_, kind)| *kind == DeviceKind::Net).count() == 1;
        let source = match given(&self.args.net, name) {
            Some(source) => source,
            None if is_image && is_stack && is_alone => "user",
            None if is_image => bail!("device '{name}' is attached to nothing: add --net {name}=TAP or --net {name}=user,hostfwd=8080:80"),
            None => bail!("device '{name}' is attached to nothing: add --net {name}=TAP"),
        };
        let is_user = source == "user" || source.starts_with("user,");
        if !is_user {
            self.pass(plan, DeviceKind::Net, name, source);
            if let Some(address) = self.argument(&format!("{}ipv4", device.prefix)).filter(|_| is_stack) {
                let address = address.split('/').next().unwrap_or_default().to_owned();
                plan.places.extend(self.served().map(|served| self.place(&served, &address, served.port)));
            }
            return Ok(());
        }
        ensure!(is_image, "--net {name}=user is for images: a {} program has the host's sockets or --net {name}=TAP", self.resolved.target);
        if let Some(tender) = self.solo5_tender() {
            bail!("{tender} has no user-mode network for device '{name}': add --net {name}=TAP, or leave --tender out to use ours");
        }
        let options = source.strip_prefix("user").unwrap_or_default();
        let options = fogbow_usernet::Options::parse(options).with_context(|| format!("--net {name}={source}"))?;
        if !is_stack {
            self.pass(plan, DeviceKind::Net, name, source);
            return Ok(());
        }
        if source == "user" {
            let source = self.forward_ports(plan)?;
            self.pass(plan, DeviceKind::Net, name, &source);
        } else {
            self.name_forwards(plan, &options);
            self.pass(plan, DeviceKind::Net, name, source);
        }
        let address = format!("{}/{}", fogbow_usernet::GUEST, fogbow_usernet::PREFIX_LENGTH);
        for (argument, value) in [("ipv4", address), ("ipv4-gateway", fogbow_usernet::GATEWAY.to_string())] {
            let argument = format!("{}{argument}", device.prefix);
            if self.argument(&argument).is_none() {
                plan.arguments.push(format!("--{argument}={value}"));
            }
        }
        Ok(())
    }

    fn attach_block(&self, plan: &mut Plan, device: &ResolvedDevice) -> anyhow::Result<()> {
        let name = &device.device.name;
        let file = given(&self.args.block, name);
        let file = file.with_context(|| format!("device '{name}' is attached to nothing: add --block {name}=FILE"))?;
        self.pass(plan, DeviceKind::Block, name, file);
        if let Some(attachment) = plan.attachments.last_mut().filter(|_| self.solo5_tender().is_none()) {
            attachment.is_only_read = generate::is_only_read(device);
        }
        Ok(())
    }

    /// The name of the tender where it is one of Solo5's own.
    fn solo5_tender(&self) -> Option<&str> {
        self.args.tender.as_deref().and_then(|tender| tender.rsplit('/').next()).filter(|tender| tender.starts_with("solo5-"))
    }

    /// Attaches an image's device, or tells a program by its own arguments.
    fn pass(&self, plan: &mut Plan, kind: DeviceKind, name: &str, value: &str) {
        if self.resolved.target.is_image() {
            plan.attachments.push(Attachment { kind, name: name.to_owned(), source: value.to_owned(), is_only_read: false });
        } else {
            let argument = if kind == DeviceKind::Net { "tap" } else { "file" };
            plan.arguments.push(format!("--{name}-{argument}={value}"));
        }
    }

    /// A user-mode network through which everything that the application serves is reached.
    fn forward_ports(&self, plan: &mut Plan) -> anyhow::Result<String> {
        let mut source = "user".to_owned();
        for served in self.served() {
            let port = self.choose(&served)?;
            let Serves { tcp, udp, .. } = served.serves;
            for (wanted, protocol) in [(tcp, ""), (udp, "udp:")] {
                if wanted {
                    source.push_str(&format!(",hostfwd={protocol}{port}:{}", served.port));
                }
            }
            plan.places.push(self.place(&served, "127.0.0.1", port));
        }
        Ok(source)
    }

    /// Says where the user's own forwards lead.
    fn name_forwards(&self, plan: &mut Plan, options: &fogbow_usernet::Options) {
        for served in self.served() {
            let forward = options.forwards.iter().find(|forward| forward.guest_port == served.port && forward.host.port() != 0);
            plan.places.extend(forward.map(|forward| self.place(&served, &forward.host.ip().to_string(), forward.host.port())));
        }
    }

    /// The host's sockets: ports that need no privilege, unless the user chose.
    fn serve_on_host(&self, plan: &mut Plan) -> anyhow::Result<()> {
        let bind = self.argument("bind").filter(|address| address != "0.0.0.0").unwrap_or_else(|| "127.0.0.1".to_owned());
        for served in self.served() {
            let port = if served.is_given { served.port } else { self.choose(&served)? };
            if !served.is_given && port != served.port {
                plan.arguments.push(format!("--{}={port}", served.name));
            }
            plan.places.push(self.place(&served, &bind, port));
        }
        Ok(())
    }

    fn choose(&self, served: &Served) -> anyhow::Result<u16> {
        let name = &served.name;
        ports::choose(served.port, served.serves, self.is_free)
            .with_context(|| format!("no port of the host is free for --{name}={}: choose with --net or -- --{name}=PORT", served.port))
    }

    fn place(&self, served: &Served, address: &str, port: u16) -> String {
        let name = &self.resolved.manifest.name;
        let Serves { tcp, udp, http } = served.serves;
        match (http, tcp, udp) {
            (true, ..) if port == 80 => format!("{name} is at http://{address}/"),
            (true, ..) => format!("{name} is at http://{address}:{port}/"),
            (_, true, true) => format!("{name} is at {address}:{port} (TCP and UDP)"),
            (_, false, true) => format!("{name} is at {address}:{port} (UDP)"),
            _ => format!("{name} is at {address}:{port} (TCP)"),
        }
    }

    /// The arguments of the application and its devices that name a port that is served.
    fn served(&self) -> impl Iterator<Item = Served> {
        let all = self.resolved.groups.iter().flat_map(|group| group.arguments.iter().map(|argument| (&group.prefix, argument)));
        all.filter(|(_, argument)| argument.serves != Serves::default()).filter_map(|(prefix, argument)| {
            let name = format!("{prefix}{}", argument.name);
            let given = self.argument(&name);
            let is_given = given.is_some();
            let port = given.or_else(|| argument.default().map(str::to_owned))?.parse().ok()?;
            Some(Served { name, serves: argument.serves, port, is_given })
        })
    }

    /// What the user gave for an argument of the image.
    fn argument(&self, name: &str) -> Option<String> {
        let words = &self.args.arguments;
        let mut values = words.iter().enumerate().filter_map(|(index, word)| match word.strip_prefix("--")?.strip_prefix(name)? {
            "" => words.get(index + 1).cloned(),
            rest => rest.strip_prefix('=').map(str::to_owned),
        });
        values.next_back()
    }
}

fn given<'a>(list: &'a [(String, String)], name: &str) -> Option<&'a str> {
    list.iter().find(|(given, _)| given == name).map(|(_, value)| value.as_str())
}

/// Refuses names of devices that there are not, and names given twice.
fn check_names(option: &str, list: &[(String, String)], resolved: &Resolved, kind: DeviceKind) -> anyhow::Result<()> {
    let known: Vec<&str> = resolved.host_devices().filter(|(_, k)| *k == kind).map(|(device, _)| device.device.name.as_str()).collect();
    for (index, (name, _)) in list.iter().enumerate() {
        if known.is_empty() {
            bail!("{option} {name}=...: {} has no {kind} device on {}", resolved.manifest.name, resolved.target);
        }
        ensure!(
            known.contains(&name.as_str()),
            "{option} {name}=...: no {kind} device is called '{name}': {}",
            suggest::hint(name, &known)
        );
        ensure!(list[..index].iter().all(|(other, _)| other != name), "{option} {name}=... is given twice: leave one out");
    }
    Ok(())
}

#[cfg(test)]
mod tests;
