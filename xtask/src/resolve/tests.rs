use super::*;
use crate::manifest::Format;

const APPLICATION: &str = r#"
    name = "app"
    device = [
        { kind = "stack", name = "service" },
        { kind = "net", name = "wire" },
        { kind = "block", name = "disk" },
        { kind = "kv_ro", name = "pages", source = "pages" },
        { kind = "kv_rw", name = "state" },
        { kind = "kv_rw", name = "kept", source = "kept" },
    ]
"#;

fn resolve(text: &str, target: Target, choices: &[(&str, StackChoice)]) -> Result<Resolved, String> {
    let choices: Vec<_> = choices.iter().map(|(name, choice)| ((*name).to_owned(), *choice)).collect();
    Resolved::new(&Manifest::parse(text).unwrap(), target, &choices).map_err(|error| error.to_string())
}

fn implementations(resolved: &Resolved) -> Vec<Implementation> {
    resolved.devices.iter().map(|device| device.implementation).collect()
}

fn argument_names(resolved: &Resolved) -> Vec<String> {
    let names = resolved.groups.iter().flat_map(|group| group.arguments.iter().map(|a| format!("{}{}", group.prefix, a.name)));
    names.collect()
}

#[test]
fn each_kind_has_its_implementation_on_each_target() {
    use Implementation::*;
    for target in [Target::Spt, Target::Hvt, Target::Virtio, Target::Genode] {
        let resolved = resolve(APPLICATION, target, &[]).unwrap();
        assert_eq!(implementations(&resolved), [DirectStack, Frames, Block, Embedded, Memory, Memory]);
        let attached: Vec<_> = resolved.host_devices().map(|(device, kind)| (device.device.name.as_str(), kind)).collect();
        assert_eq!(attached, [("service", DeviceKind::Net), ("wire", DeviceKind::Net), ("disk", DeviceKind::Block)]);
    }
    let resolved = resolve(APPLICATION, Target::Unix, &[]).unwrap();
    assert_eq!(implementations(&resolved), [HostStack, Frames, Block, Directory, Memory, Directory]);
    let resolved = resolve(APPLICATION, Target::Unix, &[("service", StackChoice::Direct)]).unwrap();
    assert_eq!(implementations(&resolved)[0], DirectStack);
}

#[test]
fn what_a_target_cannot_offer_is_an_error_that_names_those_that_can() {
    assert_eq!(
        resolve(APPLICATION, Target::Spt, &[("service", StackChoice::Host)]),
        Err("device 'service' (stack, the host's sockets): the target spt cannot offer it; unix can".to_owned())
    );
    assert_eq!(
        resolve(APPLICATION, Target::Muen, &[]),
        Err("device 'disk' (block, block device): the target muen cannot offer it; unix, spt, hvt, virtio, genode can".to_owned())
    );
    let error = resolve(APPLICATION, Target::Unix, &[("servce", StackChoice::Host)]).unwrap_err();
    assert!(error.contains("did you mean \"service\"?"), "{error}");
}

#[test]
fn what_keeps_a_store_is_chosen_where_the_target_has_it() {
    let choose = |target, name: &str, store: &str| {
        let text = APPLICATION.replace("{ kind = \"block\", name = \"disk\" },", "{ kind = \"kv_ro\", name = \"open\" },");
        let mut manifest = Manifest::parse(&text).unwrap();
        let open = if name == "open" { Vec::new() } else { vec![("open".to_owned(), "tar".parse().unwrap())] };
        manifest.choose(&[open, vec![(name.to_owned(), store.parse().unwrap())]].concat()).unwrap();
        Resolved::new(&manifest, target, &[]).map_err(|error| error.to_string())
    };
    let found = |target, name, store| {
        let resolved = choose(target, name, store).unwrap();
        resolved.devices.iter().find(|device| device.device.name == name).unwrap().implementation
    };
    let stored = |format| Implementation::Stored(format);
    assert_eq!(found(Target::Unix, "pages", "embedded"), Implementation::Embedded);
    assert_eq!(found(Target::Spt, "pages", "tar"), stored(Format::Tar));
    assert_eq!(found(Target::Hvt, "state", "log"), stored(Format::Log));
    assert_eq!(found(Target::Unix, "state", "directory"), Implementation::Directory);
    let resolved = choose(Target::Hvt, "state", "fat").unwrap();
    assert!(argument_names(&resolved).contains(&"state-memory".to_owned()));
    assert!(resolved.host_devices().any(|(device, kind)| device.device.name == "state" && kind == DeviceKind::Block));
    let open = choose(Target::Unix, "open", "directory").unwrap();
    let arguments = open.groups.iter().find(|group| group.prefix == "open-").unwrap();
    assert_eq!(arguments.arguments[0].presence, Presence::Required);
    assert_eq!(
        choose(Target::Spt, "kept", "directory").unwrap_err(),
        "device 'kept' (kv_rw, directory of the host): the target spt cannot offer it; unix can; or build with --store kept=memory|log|tar|fat"
    );
    assert_eq!(
        choose(Target::Muen, "open", "tar").unwrap_err(),
        "device 'open' (kv_ro, tar archive on a block device): the target muen cannot offer it; unix, spt, hvt, virtio, genode can"
    );
    let text = "name = \"app\"\ndevice = [{ kind = \"kv_ro\", name = \"open\" }]";
    assert_eq!(implementations(&resolve(text, Target::Unix, &[]).unwrap()), [Implementation::Directory]);
    assert_eq!(
        resolve(text, Target::Hvt, &[]).unwrap_err(),
        "device 'open' (kv_ro): nothing says what keeps its values: add source = \"DIRECTORY\", which an image embeds; or build with --store open=log|tar|fat"
    );
}

#[test]
fn arguments_of_one_stack_are_bare_and_of_several_are_prefixed() {
    let one = resolve(APPLICATION, Target::Hvt, &[]).unwrap();
    assert!(argument_names(&one).contains(&"ipv4".to_owned()), "{:?}", argument_names(&one));
    let two = APPLICATION.replace("{ kind = \"net\", name = \"wire\" }", "{ kind = \"stack\", name = \"admin\" }");
    let two = argument_names(&resolve(&two, Target::Hvt, &[]).unwrap());
    assert!(two.contains(&"service-ipv4".to_owned()) && two.contains(&"admin-ipv4".to_owned()) && !two.contains(&"ipv4".to_owned()));
}

#[test]
fn a_group_is_the_prefix_of_its_stack() {
    let grouped = APPLICATION.replace("name = \"service\"", "name = \"service\", group = \"public\"");
    let names = argument_names(&resolve(&grouped, Target::Hvt, &[]).unwrap());
    assert!(names.contains(&"public-ipv4".to_owned()) && !names.contains(&"ipv4".to_owned()), "{names:?}");
    let twice = grouped.replace("{ kind = \"net\", name = \"wire\" }", "{ kind = \"stack\", name = \"admin\", group = \"public\" }");
    let error = resolve(&twice, Target::Hvt, &[]).unwrap_err();
    assert!(error.starts_with("the argument --public-ipv4 belongs both to device 'service' and to device 'admin'"), "{error}");
}

#[test]
fn library_defaults_are_values() {
    let groups = [
        arguments::COMMON.arguments,
        fogbow_net::direct::ARGUMENTS,
        fogbow_net::http::SERVER_ARGUMENTS,
        fogbow_unix::STACK_ARGUMENTS,
        fogbow_unix::NET_ARGUMENTS,
        fogbow_unix::BLOCK_ARGUMENTS,
        fogbow_block::layers::PARTITION_ARGUMENTS,
        fogbow_block::layers::CACHE_ARGUMENTS,
        fogbow_block::layers::XTS_ARGUMENTS,
        fogbow_block::layers::AUTHENTICATED_ARGUMENTS,
        fogbow_kv::stores::LOG_ARGUMENTS,
        fogbow_kv::stores::FAT_ARGUMENTS,
    ];
    for argument in groups.into_iter().flatten() {
        if let arguments::Presence::Default(value) = argument.presence() {
            assert_eq!(argument.check(value), Ok(()), "--{}", argument.name());
        }
    }
}

proptest::proptest! {
    #[test]
    fn a_length_of_time_is_the_same_here_and_in_an_image(text in "([0-9]{0,20}[a-z]{0,2}|.{0,8})") {
        proptest::prop_assert_eq!(Type::Duration.accepts(&text), text.parse::<arguments::Span>().is_ok());
    }
}

#[test]
fn a_process_takes_its_devices_from_arguments() {
    let names = argument_names(&resolve(APPLICATION, Target::Unix, &[]).unwrap());
    for name in ["bind", "wire-tap", "disk-file", "pages-directory", "kept-directory"] {
        assert!(names.contains(&name.to_owned()), "{name} is not in {names:?}");
    }
}

#[test]
fn arguments_that_clash_are_refused() {
    let text = format!("{APPLICATION}\n[[arg]]\nname = \"ipv4\"\n");
    assert_eq!(
        resolve(&text, Target::Spt, &[]).unwrap_err(),
        "the argument --ipv4 belongs both to the application and to device 'service': rename the application's argument or the device"
    );
    assert!(resolve(&text, Target::Unix, &[]).is_ok());
}

#[test]
fn http_devices_bring_their_stack_and_arguments() {
    let text = r#"
        name = "app"
        device = [{ kind = "http_server", name = "web" }, { kind = "http_client", name = "origin", stack = "web" }]
    "#;
    let spt = resolve(text, Target::Spt, &[]).unwrap();
    assert_eq!(implementations(&spt), [Implementation::DirectStack, Implementation::SharedStack]);
    assert_eq!(spt.host_devices().map(|(device, _)| device.device.name.as_str()).collect::<Vec<_>>(), ["web"]);
    let names = argument_names(&spt);
    assert!(["ipv4", "web-port"].iter().all(|name| names.contains(&(*name).to_owned())), "{names:?}");
    assert_eq!(implementations(&resolve(text, Target::Unix, &[]).unwrap())[0], Implementation::HostStack);
    assert_eq!(implementations(&resolve(text, Target::Unix, &[("web", StackChoice::Direct)]).unwrap())[0], Implementation::DirectStack);
    assert!(resolve(text, Target::Unix, &[("origin", StackChoice::Direct)]).unwrap_err().contains("no stack is called 'origin'"));
}

#[test]
fn targets_have_names() {
    assert_eq!("hvt".parse(), Ok(Target::Hvt));
    assert_eq!(
        "stp".parse::<Target>(),
        Err("unknown target: did you mean \"spt\"? (allowed: unix, spt, hvt, virtio, muen, genode)".to_owned())
    );
}
