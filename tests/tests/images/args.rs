//! Arguments and log messages, as an image has them.

use anyhow::{Result, ensure};
use fogbow_tests::builder::{Place, Run};
use fogbow_tests::guest::{Ended, Output};
use libtest_mimic::Trial;

const PLACES: [Place; 6] = [Place::Unix, Place::Spt, Place::Hvt, Place::Virtio, Place::Muen, Place::Genode];

pub(crate) fn trials() -> Vec<Trial> {
    [
        super::on(&PLACES, "args_reads_an_argument_of_each_kind", reads_each_kind),
        super::on(&PLACES, "args_splits_its_command_line_as_mirageos_does", splits),
        super::on(&PLACES, "args_ends_with_64_when_an_argument_is_wrong", refuses),
        super::on(&PLACES, "args_explains_itself", explains),
        super::on(&PLACES, "args_filters_its_log", filters),
        super::on(&[Place::Unix, Place::Spt, Place::Hvt], "args_has_colours_on_a_terminal", has_colours),
        super::on(&PLACES, "args_shows_its_last_messages_when_it_panics", shows_last_messages),
    ]
    .into_iter()
    .flatten()
    .collect()
}

fn run(place: Place, arguments: &[&str]) -> Result<Ended> {
    place.start("args", &Run { arguments, ..Run::default() })?.ended()
}

fn reads_each_kind(place: Place) -> Result<()> {
    let ended = run(place, &["--times=2", "--hello", "you", "--pause=20ms", "--loud", "--peer=10.0.0.1:514", "--peer", "[::1]:80"])?;
    let expected = "HELLO, YOU!\nHELLO, YOU!\nHello, 10.0.0.1:514!\nHello, [::1]:80!\nargs: plain edition\n";
    ensure!(ended.status == Some(0) && ended.console.ends_with(expected), "{ended:?}");
    Ok(())
}

fn splits(place: Place) -> Result<()> {
    for word in [r"--hello=foo\ bar", "\"--hello=foo bar\"", "--hello='foo bar'"] {
        let ended = run(place, &["--times=1", word])?;
        ensure!(ended.status == Some(0) && ended.console.contains("Hello, foo bar!\n"), "{word}: {ended:?}");
    }
    let ended = run(place, &["--times=1 --hello=you"])?;
    ensure!(ended.status == Some(0) && ended.console.contains("Hello, you!\n"), "{ended:?}");
    Ok(())
}

fn refuses(place: Place) -> Result<()> {
    for (arguments, message) in [
        (&["--hello=x"][..], "argument --times is needed: give --times=VALUE"),
        (&["--times=many"], "argument --times=many: invalid digit found in string"),
        (&["--times=1", "--pause=5"], "argument --pause=5: write a whole number and a unit"),
        (&["--times=1", "--peer=10.0.0.1"], "argument --peer=10.0.0.1: invalid socket address syntax"),
        (&["--time=1"], "unknown argument --time: see --help"),
        (&["--times=1", "--loud", "yes"], "'yes' is no argument"),
        (&["--times=1", "--hello='x"], "the command line has an unclosed quotation mark"),
        (&["--times=1", "--edition=other"], "argument --edition was fixed when the image was built"),
        (&["--times=1", "--logs=net:loud"], "argument --logs=net:loud: 'net:loud' is no log filter"),
    ] {
        let ended = run(place, arguments)?;
        ensure!(ended.status == Some(64) && ended.console.contains(&format!("args: error: {message}")), "{arguments:?}: {ended:?}");
        ensure!(!ended.console.contains("Hello"), "it started: {ended:?}");
    }
    Ok(())
}

fn explains(place: Place) -> Result<()> {
    let ended = run(place, &["--version"])?;
    ensure!(ended.status == Some(0) && ended.console == concat!("args ", env!("CARGO_PKG_VERSION"), "\n"), "{ended:?}");
    let ended = run(place, &["--help"])?;
    ensure!(ended.status == Some(0), "{ended:?}");
    for part in [
        "  --hello=TEXT\n      whom to greet (default: world)\n",
        "  --times=NUMBER\n      how often to greet (needed)\n",
        "  --loud\n      greet in capital letters\n",
        "  --peer=ADDRESS:PORT\n      an address to greet as well (may be given again)\n",
        "      which edition of the image this is (fixed when built: plain)\n",
        "  --solo5:quiet, --solo5:debug\n",
    ] {
        ensure!(ended.console.contains(part), "{part:?} is not in {}", ended.console);
    }
    Ok(())
}

fn filters(place: Place) -> Result<()> {
    for (arguments, printed) in [
        (&["--times=0"][..], &["WARN  args: nobody"][..]),
        (&["--times=0", "-l", "*:debug"], &["DEBUG args: arguments:", "INFO  args: greeted", "WARN  args: nobody"]),
        (&["--times=0", "--logs=*:debug,args:info"], &["INFO  args: greeted", "WARN  args: nobody"]),
        (&["--solo5:quiet", "--times=0"], &[]),
    ] {
        let ended = run(place, arguments)?;
        let lines: Vec<_> = ended.console.lines().filter(|line| line.contains(" args: ")).collect();
        ensure!(lines.len() == printed.len(), "{arguments:?}: {ended:?}");
        for (line, part) in lines.iter().zip(printed) {
            // [seconds.microseconds], and no colours: this is no terminal.
            ensure!(line.starts_with('[') && line.contains("] ") && line.contains(part), "{arguments:?}: {line}");
        }
    }
    let ended = run(place, &["--times=0", "--log-colour=always"])?;
    ensure!(ended.console.contains("\x1b[33mWARN \x1b[0m args: nobody"), "{ended:?}");
    Ok(())
}

fn has_colours(place: Place) -> Result<()> {
    for (choice, message) in [
        ("--log-colour=auto", "\x1b[33mWARN \x1b[0m args: nobody was greeted\r\n"),
        ("--log-colour=never", "] WARN  args: nobody was greeted\r\n"),
    ] {
        let arguments = ["--times=0", choice];
        let ended = place.start("args", &Run { arguments: &arguments, output: Output::Terminal, ..Run::default() })?.ended()?;
        ensure!(ended.status == Some(0) && ended.console.contains(message), "{choice}: {ended:?}");
    }
    Ok(())
}

fn shows_last_messages(place: Place) -> Result<()> {
    let ended = run(place, &["--times=3", "--test-panic"])?;
    ensure!(ended.status == Some(255), "{ended:?}");
    let (before, after) = ended.console.split_once("the last log messages:\n").ok_or_else(|| anyhow::anyhow!("no messages: {ended:?}"))?;
    ensure!(before.contains("as --test-panic says") && !before.contains("greeted"), "{ended:?}");
    ensure!(after.contains("INFO  args: greeted 3 times\n"), "{ended:?}");
    Ok(())
}
