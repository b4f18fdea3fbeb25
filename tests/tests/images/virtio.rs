//! What the virtio target alone has: several machines, memory maps, clocks that may be missing.

use std::process::Command;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use anyhow::{Result, ensure};
use fogbow_tests::Skip;
use fogbow_tests::builder::{self, Place, Run};
use libtest_mimic::Trial;

pub(crate) fn trials() -> Vec<Trial> {
    let mut trials = Vec::new();
    for machine in ["pc", "microvm", "q35,smm=off"] {
        let place = Place::Virtio;
        trials.push(super::trial(&format!("boots_on_{machine}"), place, move || boots_and_turns_off(machine)));
        trials.push(super::trial(&format!("tells_the_time_on_{machine}"), place, move || tells_the_time(machine)));
        trials.push(super::trial(&format!("boots_by_multiboot_on_{machine}"), place, move || boots_by_multiboot(machine)));
    }
    for machine in ["pc", "q35"] {
        trials.push(super::trial(&format!("boots_from_a_disk_on_{machine}"), Place::Virtio, move || boots_from_a_disk(machine)));
    }
    trials.push(super::trial("libvirt_xml_is_valid", Place::Virtio, libvirt_is_valid));
    trials.push(super::trial("uses_memory_beyond_4_gib", Place::Virtio, uses_much_memory));
    trials.push(super::trial("says_what_it_lacks_without_a_clock", Place::Virtio, without_clock));
    trials.push(super::trial("says_what_the_processor_lacks", Place::Virtio, on_wrong_processors));
    trials.push(super::trial("says_that_its_command_line_is_too_long", Place::Virtio, with_long_line));
    trials.push(super::trial("says_that_it_cannot_turn_the_machine_off", Place::Virtio, without_acpi));
    for (options, clock) in CLOCKS {
        let name = format!("keeps_time_by_{}", clock.replace(' ', "_").replace(['\'', ','], ""));
        trials.push(super::trial(&name, Place::Virtio, move || keeps_time(options, clock)));
    }
    trials.push(super::trial("keeps_time_by_kvms_clock", Place::Virtio, keeps_time_by_kvm));
    trials
}

fn boots_and_turns_off(machine: &str) -> Result<()> {
    let ended = Place::Virtio.start("hello", &Run { tender: &["-machine", machine], ..Run::default() })?.ended()?;
    ensure!(ended.status == Some(0) && ended.console == "Hello from Fogbow!\n", "{ended:?}");
    Ok(())
}

/// The date is the machine's, and no more time passes in the image than outside: each machine has other timers to measure the counters with.
fn tells_the_time(machine: &str) -> Result<()> {
    let start = Instant::now();
    let run = Run { tender: &["-machine", machine, "-rtc", "base=2031-02-03T04:05:06"], ..Run::default() };
    let ended = Place::Virtio.start("clock", &Run { arguments: &["--count=2", "--interval=10ms"], ..run })?.ended()?;
    ensure!(ended.status == Some(0) && ended.console.contains("2031-02-03T04:0"), "{ended:?}");
    let latest = super::clock::first_number(ended.console.lines().last().unwrap_or_default())?;
    ensure!(latest <= start.elapsed().as_secs_f64(), "{latest} s passed in the image, and {:?} outside", start.elapsed());
    Ok(())
}

/// QEMU prefers multiboot, but looks for a header where the image has none: a copy has it elsewhere. The loader is another one than GRUB, whose command line
/// begins with the file's name.
fn boots_by_multiboot(machine: &str) -> Result<()> {
    let run = Run { tender: &["-machine", machine], arguments: &["--logs=debug"], ..Run::default() };
    let ended = Place::Virtio.start("hello", &run)?.ended()?;
    ensure!(ended.status == Some(0) && ended.console.contains("started by PVH"), "{ended:?}");
    let mut image = std::fs::read(Place::Virtio.image("hello")?)?;
    let (from, to) = (8160, 7000);
    let mut header = image[from..from + 32].to_vec();
    ensure!(header.starts_with(&0x1bad_b002_u32.to_le_bytes()) && image[to..to + 32] == [0xcc; 32], "no header, or no room for it");
    let address = u32::from_le_bytes([header[12], header[13], header[14], header[15]]) - (from - to) as u32;
    header[12..16].copy_from_slice(&address.to_le_bytes());
    image[to..to + 32].copy_from_slice(&header);
    let file = tempfile::NamedTempFile::new()?;
    std::fs::write(file.path(), image)?;
    let ended = builder::boot(Some(file.path()), &run)?.ended()?;
    ensure!(ended.status == Some(0) && ended.console.contains("started by multiboot"), "{ended:?}");
    Ok(())
}

fn boots_from_a_disk(machine: &str) -> Result<()> {
    let delivered = builder::xtask(&["build", "faults", "--target", "virtio", "--disk", "--", "--logs=debug", "--fault=no such"])?;
    let disk = builder::root().join(delivered.lines().last().unwrap_or_default());
    let drive = format!("file={},format=raw,if=ide,snapshot=on", disk.display());
    let ended = builder::boot(None, &Run { tender: &["-machine", machine, "-drive", &drive], ..Run::default() })?.ended()?;
    ensure!(ended.console.contains("started by multiboot") && ended.console.contains("no fault is called 'no such'"), "{ended:?}");
    Ok(())
}

/// By libvirt's own schema: devices of each kind (kv has a block device and a network), a random device and a console with each.
fn libvirt_is_valid() -> Result<()> {
    const ARGUMENTS: &[&str] = &["--ipv4=10.0.0.2/24", "--logs=*:info", "--x='<&>\""];
    for (image, arguments, parts) in [
        ("kv", ARGUMENTS, &["<interface ", "<disk "][..]),
        ("block", &[], &["<disk "]),
        ("http", ARGUMENTS, &["<interface "]),
        ("hello", &[], &[]),
    ] {
        builder::xtask(&[&["build", image, "--target", "virtio", "--"], arguments].concat())?;
        let file = builder::root().join(format!("dist/{image}.virtio.libvirt.xml"));
        let text = std::fs::read_to_string(&file)?;
        let missing = parts.iter().chain(&["<rng ", "<serial ", "<console "]).find(|part| !text.contains(**part));
        ensure!(missing.is_none(), "{image}: no {missing:?} in {text}");
        let validated = Command::new("virt-xml-validate").arg(file).arg("domain").output();
        let validated = validated.map_err(|error| Skip(format!("virt-xml-validate: {error}; install libvirt-clients")))?;
        ensure!(validated.status.success(), "{image}: {}", String::from_utf8_lossy(&validated.stderr));
    }
    Ok(())
}

/// On q35 with 4 GiB, 2 of them lie above 4 GiB.
fn uses_much_memory() -> Result<()> {
    for (memory, arguments, line) in
        [(1024, ["--blocks=1", "--mib=960"], "1 blocks of 960 MiB"), (4096, ["--blocks=2", "--mib=1900"], "2 blocks of 1900 MiB")]
    {
        let ended = Place::Virtio.start("tests/images/large", &Run { memory, arguments: &arguments, ..Run::default() })?.ended()?;
        ensure!(ended.status == Some(0) && ended.console.contains(line) && ended.console.contains(" 0 of them wrong"), "{ended:?}");
    }
    Ok(())
}

fn without_clock() -> Result<()> {
    let ended = Place::Virtio.start("hello", &Run { tender: &["-machine", "pc,pit=off,hpet=off"], ..Run::default() })?.ended()?;
    ensure!(ended.status == Some(255) && ended.console.contains("the machine has no clock"), "{ended:?}");
    Ok(())
}

/// Of 32 bits, and without pages that cannot be executed.
fn on_wrong_processors() -> Result<()> {
    for processor in ["pentium3", "qemu64,-nx"] {
        let ended = Place::Virtio.start("hello", &Run { tender: &["-cpu", processor], ..Run::default() })?.ended()?;
        ensure!(
            ended.status == Some(255) && ended.console.contains("the processor has no 64-bit mode, or no NX"),
            "{processor}: {ended:?}"
        );
    }
    Ok(())
}

fn with_long_line() -> Result<()> {
    for length in [4096, 5000] {
        let ended = Place::Virtio.start("hello", &Run { arguments: &[&"a".repeat(length)], ..Run::default() })?.ended()?;
        ensure!(ended.status == Some(255) && ended.console.contains("longer than 4095 bytes"), "{length}: {ended:?}");
    }
    Ok(())
}

/// A machine without ACPI runs on when the image has ended in success.
fn without_acpi() -> Result<()> {
    let run = Run { tender: &["-machine", "microvm,acpi=off"], ..Run::default() };
    let guest = Place::Virtio.start("hello", &run)?;
    guest.wait_for("the machine has no ACPI that turns it off: halted")?;
    Ok(())
}

/// Machines, and the clock that an image finds on each.
const CLOCKS: [(&[&str], &str); 2] = [
    (&["-machine", "pc,pit=off"], "the high precision event timer"),
    (&["-machine", "q35,hpet=off"], "the time stamp counter, which is not said to be invariant"),
];

/// In a second of the image, no less than a second passes outside.
fn keeps_time(options: &[&str], clock: &str) -> Result<()> {
    let start = Instant::now();
    let run = Run { tender: options, arguments: &["--count=2", "--interval=1s", "--logs=debug"], ..Run::default() };
    let ended = Place::Virtio.start("clock", &run)?.ended()?;
    ensure!(ended.status == Some(0) && ended.console.contains(&format!("time by {clock}\n")), "{ended:?}");
    let latest = super::clock::first_number(ended.console.lines().last().unwrap_or_default())?;
    // Half a part in a hundred: what a busy host may do to the measurement of a counter.
    ensure!((1.0..=start.elapsed().as_secs_f64() * 1.005).contains(&latest), "{latest} s, and {:?} outside: {ended:?}", start.elapsed());
    Ok(())
}

/// On the host's KVM, where an image without devices needs little of it. It takes the date from the host, to a fraction of a second.
fn keeps_time_by_kvm() -> Result<()> {
    builder::require_kvm()?;
    let before = SystemTime::now();
    let options = ["-machine", "microvm,rtc=off", "-accel", "kvm", "-cpu", "kvm64"];
    let ended =
        Place::Virtio.start("clock", &Run { tender: &options, arguments: &["--count=1", "--logs=debug"], ..Run::default() })?.ended()?;
    if ended.console.contains("failed to initialize kvm") {
        return Err(Skip(ended.console).into());
    }
    ensure!(ended.status == Some(0) && ended.console.contains("time by KVM's clock\n"), "{ended:?}");
    let date = ended.console.lines().find(|line| line.ends_with('Z'));
    let since_midnight = super::clock::seconds_of_day(date.unwrap_or_default())?;
    let [before, after] =
        [before, SystemTime::now()].map(|time| time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs_f64() % 86_400.0);
    // Midnight may lie between.
    ensure!(after < before || (before - 0.1..after + 0.1).contains(&since_midnight), "{before} to {after}, and {ended:?}");
    Ok(())
}
