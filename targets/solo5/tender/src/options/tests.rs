use proptest::prelude::*;

use super::*;
use crate::manifest::Device;

fn parse_list(arguments: &[&str]) -> Result<Request, OptionsError> {
    parse(arguments.iter().map(OsString::from))
}

fn run(arguments: &[&str]) -> CommandLine {
    match parse_list(arguments) {
        Ok(Request::Run(command_line)) => command_line,
        other => panic!("{other:?}"),
    }
}

fn error(arguments: &[&str]) -> OptionsError {
    parse_list(arguments).expect_err("a wrong command line")
}

fn name(name: &str) -> Name {
    Name::new(name).expect("a valid name")
}

fn net_source(value: &str) -> Option<NetSource> {
    let command_line = run(&[&format!("--net:service={value}"), "image"]);
    match &command_line.devices[0].setting {
        DeviceSetting::Net(NetSetting { source, mac: None, offload: None, pcap: None }) => source.clone(),
        other => panic!("{other:?}"),
    }
}

#[test]
fn an_image_alone_gets_the_defaults() {
    let command_line = run(&["image"]);
    assert_eq!(command_line.memory_size, 512 << 20);
    assert_eq!(command_line.image, PathBuf::from("image"));
    assert!(command_line.devices.is_empty() && command_line.arguments.is_empty());
}

#[test]
fn what_follows_the_image_is_the_guests() {
    let command_line = run(&["--mem=2", "image", "--mem=3", "--", "--help", ""]);
    assert_eq!(command_line.memory_size, 2 << 20);
    assert_eq!(command_line.arguments, ["--mem=3", "--", "--help", ""]);
}

#[test]
fn a_double_dash_ends_the_options() {
    let command_line = run(&["--", "--odd", "argument"]);
    assert_eq!((command_line.image, command_line.arguments), (PathBuf::from("--odd"), vec![OsString::from("argument")]));
    assert_eq!(error(&["--mem=2", "--"]), OptionsError::MissingImage);
}

#[test]
fn help_and_version_come_first() {
    assert_eq!(parse_list(&["--mem=x", "--help"]), Ok(Request::Help));
    assert_eq!(parse_list(&["--version"]), Ok(Request::Version));
    assert!(matches!(parse_list(&["image", "--help"]), Ok(Request::Run(_))));
    assert!(help("tender").starts_with("usage: tender "));
}

#[test]
fn memory_is_a_whole_number_of_megabytes() {
    assert_eq!(run(&["--mem=4096", "i"]).memory_size, 4096 << 20);
    for bad in ["", "0", "-1", "2M", " 2", "+2", "99999999999999999999", "17592186044416", "8796093022208"] {
        assert_eq!(error(&[&format!("--mem={bad}"), "i"]), OptionsError::Memory(bad.to_owned()));
    }
}

#[test]
fn networks_are_taps_descriptors_or_the_user_mode_network() {
    assert_eq!(net_source("tap0"), Some(NetSource::Tap("tap0".into())));
    assert_eq!(net_source("userland"), Some(NetSource::Tap("userland".into())));
    assert_eq!(net_source("@12"), Some(NetSource::Descriptor(12)));
    assert_eq!(net_source("user"), Some(NetSource::User(String::new())));
    let forward = "hostfwd=8080:80,hostfwd=8081:81";
    assert_eq!(net_source(&format!("user,{forward}")), Some(NetSource::User(forward.into())));
    for bad in ["tap%d", "a/b", ".", "..", "a b", "sixteencharacter"] {
        let expected = OptionsError::Interface { name: name("s"), found: bad.to_owned() };
        assert_eq!(error(&[&format!("--net:s={bad}"), "i"]), expected);
    }
    for bad in ["@", "@x", "@-1", "@2147483648"] {
        let expected = OptionsError::Descriptor { name: name("s"), found: bad.to_owned() };
        assert_eq!(error(&[&format!("--net:s={bad}"), "i"]), expected);
    }
}

#[test]
fn ethernet_addresses_are_unicast() {
    let command_line = run(&["--net-mac:s=02:00:aB:00:00:01", "i"]);
    let mac = Some([2, 0, 0xab, 0, 0, 1]);
    assert_eq!(command_line.devices[0].setting, DeviceSetting::Net(NetSetting { mac, ..NetSetting::default() }));
    for bad in ["01:00:00:00:00:00", "00:00:00:00:00:00", "2:0:0:0:0:1", "02:00:00:00:00", "02:00:00:00:00:01:02", "0x:00:00:00:00:01"] {
        assert!(matches!(error(&[&format!("--net-mac:s={bad}"), "i"]), OptionsError::Mac { .. }), "{bad}");
    }
}

#[test]
fn offload_is_yes_or_no_and_a_capture_has_a_file() {
    let command_line = run(&["--net-offload:s=no", "--net-pcap:s=a=b.pcap", "i"]);
    let expected = NetSetting { offload: Some(false), pcap: Some("a=b.pcap".into()), ..NetSetting::default() };
    assert_eq!(command_line.devices[0].setting, DeviceSetting::Net(expected));
    assert!(matches!(error(&["--net-offload:s=maybe", "i"]), OptionsError::YesNo { .. }));
    assert!(matches!(error(&["--net-pcap:s=a", "--net-pcap:s=a", "i"]), OptionsError::Twice { .. }));
}

#[test]
fn sector_sizes_are_powers_of_two() {
    let command_line = run(&["--block:d=disk=1.img", "--block-sector-size:d=4096", "i"]);
    let expected = DeviceSetting::Block { source: Some("disk=1.img".into()), sector_size: Some(4096), read_only: None };
    assert_eq!(command_line.devices[0].setting, expected);
    for bad in ["256", "521", "513", "65536", "-512", "x"] {
        assert!(matches!(error(&[&format!("--block-sector-size:d={bad}"), "i"]), OptionsError::SectorSize { .. }), "{bad}");
    }
}

#[test]
fn a_device_is_for_reading_alone_where_that_is_said() {
    let command_line = run(&["--block-read-only:d=yes", "--block:d=disk.img", "i"]);
    let expected = DeviceSetting::Block { source: Some("disk.img".into()), sector_size: None, read_only: Some(true) };
    assert_eq!(command_line.devices[0].setting, expected);
    assert!(error(&["--block-read-only:d=true", "i"]).to_string().starts_with("--block-read-only:d: `true'"));
    assert!(matches!(error(&["--block-read-only:d=no", "--block-read-only:d=yes", "i"]), OptionsError::Twice { .. }));
}

#[test]
fn malformed_and_unknown_options_are_named() {
    assert_eq!(error(&["--network=x", "i"]), OptionsError::Unknown("--network=x".into()));
    assert_eq!(error(&["-x", "i"]), OptionsError::Unknown("-x".into()));
    for bad in [
        "--net:service",
        "--net:service=",
        "--net:=tap0",
        "--net:a-b=tap0",
        "--block:d",
        "--net-mac:d",
        "--net-offload:d",
        "--net-pcap:d=",
        "--block-sector-size:d",
    ] {
        assert!(matches!(error(&[bad, "i"]), OptionsError::Malformed { .. }), "{bad}");
    }
}

#[test]
fn an_option_given_twice_for_a_device_is_an_error() {
    let twice = |option| OptionsError::Twice { option, name: name("s") };
    assert_eq!(error(&["--net:s=tap0", "--net:s=tap1", "i"]), twice("--net"));
    assert_eq!(error(&["--block:s=a", "--block:s=a", "i"]), twice("--block"));
    // The same name for devices of both kinds is not.
    assert_eq!(run(&["--net:s=tap0", "--block:s=a", "i"]).devices.len(), 2);
}

#[test]
fn every_declared_device_and_no_other_is_attached() {
    let devices = vec![Device::new(name("service"), DeviceKind::Net), Device::new(name("disk"), DeviceKind::Block)];
    let manifest = Manifest::new(devices).expect("two devices");
    let resolve = |arguments: &[&str]| run(arguments).resolve(&manifest).map(|settings| settings.into_iter().cloned().collect::<Vec<_>>());

    let settings = resolve(&["--block:disk=file", "--net:service=tap0", "i"]).expect("both are given");
    assert_eq!(settings.iter().map(DeviceSetting::kind).collect::<Vec<_>>(), [DeviceKind::Net, DeviceKind::Block]);

    let message = |arguments: &[&str]| resolve(arguments).expect_err("a wrong command line").to_string();
    assert_eq!(
        message(&["--net:disk=tap0", "i"]),
        "Resource not declared in manifest: 'disk' (--net:disk=...): the image declares net 'service', block 'disk'"
    );
    assert_eq!(
        message(&["--net:service=tap0", "--block-sector-size:disk=512", "i"]),
        "All declared devices must be attached, and block 'disk' is not: add --block:disk=PATH"
    );
    assert_eq!(
        message(&["i"]),
        "All declared devices must be attached, and net 'service', block 'disk' are not: add --net:service=IFACE --block:disk=PATH"
    );
}

proptest! {
    #[test]
    fn any_arguments_are_a_request_or_one_line(arguments in prop::collection::vec("(--[a-z:-]{0,20}=?)?[ -~\\n]{0,20}", 0..6)) {
        if let Err(error) = parse(arguments.into_iter().map(OsString::from)) {
            prop_assert!(!error.to_string().contains('\n'));
        }
    }
}
