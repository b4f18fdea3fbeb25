//! Devices of virtual machines: every way to reach them and to be interrupted by them, and what is said when they are not as they should be.

use anyhow::{Context, Result, ensure};
use fogbow_tests::builder::{Place, Run, served_at};
use fogbow_tests::client::Http;
use fogbow_tests::network::Namespace;
use libtest_mimic::Trial;

const PLACE: Place = Place::Virtio;

/// Virtual machines, each with a network device: PCI by memory and by ports, behind a bridge, with messages and with lines; registers in memory that ACPI
/// tells of, and the command line; registers beyond 4 GiB, where firmware puts what does not fit below beside a large device.
const MACHINES: [(&str, &[&str]); 9] = [
    ("pc", &["-machine", "pc", "-device", "virtio-net-pci,netdev=service,disable-legacy=on"]),
    ("pc_by_lines", &["-machine", "pc", "-device", "virtio-net-pci,netdev=service,vectors=0"]),
    ("q35_by_lines", &["-machine", "q35", "-device", "virtio-net-pci,netdev=service,vectors=0"]),
    ("q35_behind_a_bridge", &["-device", "pcie-root-port,id=bridge,chassis=1", "-device", "virtio-net-pci,netdev=service,bus=bridge"]),
    ("q35_beyond_4_gib", &["-device", "pci-testdev,membar=8G", "-device", "virtio-net-pci,netdev=service"]),
    ("q35_beyond_512_gib", &["-cpu", "max,phys-bits=42", "-device", "pci-testdev,membar=1T", "-device", "virtio-net-pci,netdev=service"]),
    ("microvm", &["-machine", "microvm", MODERN[0], MODERN[1], "-device", "virtio-net-device,netdev=service"]),
    ("microvm_with_pci", &["-machine", "microvm,pcie=on", "-device", "virtio-net-pci,netdev=service"]),
    ("microvm_without_acpi", &["-machine", "microvm,acpi=off", MODERN[0], MODERN[1], "-device", "virtio-net-device,netdev=service"]),
];

const MODERN: [&str; 2] = ["-global", "virtio-mmio.force-legacy=off"];

/// A processor without instructions for random numbers.
const WITHOUT_RANDOM: [&str; 2] = ["-cpu", "max,rdrand=off,rdseed=off"];

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = Vec::new();
    for (name, options) in MACHINES {
        trials.push(super::trial(&format!("http_serves_on_{name}"), PLACE, || serves(options)));
    }
    trials.push(super::trial("http_serves_on_the_device_that_is_chosen", PLACE, serves_on_the_chosen_device));
    trials.push(super::trial("devices_that_are_not_there_or_unusable_are_named", PLACE, names_what_is_wrong));
    trials.push(super::trial("random_is_seeded_by_the_device_alone", PLACE, seeded_by_device));
    trials.push(super::trial("the_virtio_console_shows_what_the_serial_port_shows", PLACE, shows_on_both_consoles));
    trials
}

fn serves(options: &[&str]) -> Result<()> {
    let namespace = Namespace::new()?;
    let guest = PLACE.start("http", &Run { namespace: Some(&namespace), tender: options, ..Run::default() })?;
    let client = || {
        namespace.run(|| {
            let mut http = Http::connect((served_at(PLACE), 80).into())?;
            for _ in 0..20 {
                ensure!(http.request("GET", "/")?.status == 200);
            }
            Ok(())
        })
    };
    client().map_err(|error| crate::echo::with_console(error, &guest))
}

/// The first device leads nowhere.
fn serves_on_the_chosen_device() -> Result<()> {
    let namespace = Namespace::new()?;
    let tender = [
        ["-netdev", "user,id=nowhere,restrict=on", "-device", "virtio-net-pci,netdev=nowhere,addr=5"],
        ["-name", "chosen", "-device", "virtio-net-pci,netdev=service,addr=9"],
    ]
    .concat();
    let run = Run { namespace: Some(&namespace), tender: &tender, arguments: &["--net:service=pci:00:09.0"], ..Run::default() };
    let guest = PLACE.start("http", &run)?;
    let client = || namespace.run(|| Http::connect((served_at(PLACE), 80).into())?.request("GET", "/"));
    let response = client().map_err(|error| crate::echo::with_console(error, &guest))?;
    ensure!(response.status == 200);
    Ok(())
}

fn names_what_is_wrong() -> Result<()> {
    const LEGACY: &[&str] = &["-netdev", "user,id=a", "-device", "virtio-net-pci,netdev=a,disable-modern=on,addr=4"];
    const BLOCK: &[&str] =
        &["-drive", "if=none,id=a,format=raw,file.driver=null-co,file.size=1M", "-device", "virtio-blk-pci,drive=a,addr=6"];
    let cases: [(&[&str], &str, i32, &str); 5] = [
        (&[], "", 1, "net device 'service': the machine has no virtio device left for it (it has none): give QEMU -netdev user,id=service"),
        (BLOCK, "", 1, "(it has block at pci:00:06.0)"),
        (BLOCK, "--net:service=pci:00:06.0", 1, "there is no virtio net device at pci:00:06.0 (the machine has block at pci:00:06.0)"),
        (LEGACY, "", 1, "net device 'service' at pci:00:04.0: it is a legacy device, from before virtio 1.0"),
        (&[], "--net:admin=pci:00:06.0", 64, "--net:admin=pci:00:06.0: this image's devices of that kind are service"),
    ];
    for (tender, argument, status, message) in cases {
        let arguments = ["--ipv4=10.0.2.15/24", argument];
        let ended = PLACE.start("http", &Run { tender, arguments: &arguments, ..Run::default() })?.ended()?;
        ensure!(ended.status == Some(status) && ended.console.contains(message), "not {status} and {message:?}: {ended:?}");
    }
    Ok(())
}

fn seeded_by_device() -> Result<()> {
    let run = |device: &[&str]| {
        let tender = [&WITHOUT_RANDOM, device].concat();
        PLACE.start("random", &Run { tender: &tender, arguments: &["--lines=1"], ..Run::default() })
    };
    let seeded = run(&["-device", "virtio-rng-pci"])?.ended()?;
    ensure!(seeded.status == Some(0) && seeded.console.lines().count() == 3, "{seeded:?}");
    let in_memory = run(&["-machine", "microvm", MODERN[0], MODERN[1], "-device", "virtio-rng-device"])?.ended()?;
    ensure!(in_memory.status == Some(0) && in_memory.console != seeded.console, "{in_memory:?}");
    Ok(())
}

fn shows_on_both_consoles() -> Result<()> {
    let file = tempfile::NamedTempFile::new()?;
    let chardev = format!("file,id=text,path={}", file.path().to_str().context("a path that is text")?);
    let tender = ["-chardev", &chardev, "-device", "virtio-serial-pci", "-device", "virtconsole,chardev=text"];
    for arguments in [&["--logs=debug"][..], &["--fault=panic"]] {
        let image = if arguments == ["--fault=panic"] { "faults" } else { "hello" };
        let ended = PLACE.start(image, &Run { tender: &tender, arguments, ..Run::default() })?.ended()?;
        let shown = std::fs::read_to_string(file.path())?;
        ensure!(!shown.is_empty() && ended.console.lines().eq(shown.lines()), "{shown:?} is not {ended:?}");
    }
    Ok(())
}
