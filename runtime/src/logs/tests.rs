use super::*;
use crate::simulation::Simulation;
use crate::{print, println, time};
use std::string::String;
use std::vec::Vec;

fn simulation(line: &str) -> Simulation {
    Simulation::new(1).with_arguments(&[crate::arguments::COMMON], [line])
}

#[test]
fn messages_and_prints_stay_in_order() {
    let simulation = simulation("--logs=*:info");
    simulation.block_on(async {
        log::info!("one");
        println!("two");
        log::debug!("not printed");
        log::warn!("three");
        time::sleep(time::Duration::from_millis(1500)).await;
        print!("four\n");
        log::error!("five");
    });
    assert_eq!(
        simulation.console(),
        "[    0.000000] INFO  fogbow::logs::tests: one\ntwo\n[    0.000000] WARN  fogbow::logs::tests: three\nfour\n\
         [    1.500000] ERROR fogbow::logs::tests: five\n"
    );
}

#[test]
fn levels_are_in_colour_where_asked_for() {
    let simulation = simulation("--log-colour=always");
    simulation.block_on(async { log::warn!("x") });
    assert_eq!(simulation.console(), "[    0.000000] \x1b[33mWARN \x1b[0m fogbow::logs::tests: x\n");
}

#[test]
fn quiet_means_errors_alone_unless_told_otherwise() {
    for (line, expected) in [("--solo5:quiet", 1), ("--solo5:debug", 3), ("--logs=*:warning", 2)] {
        let simulation = simulation(line);
        simulation.block_on(async {
            log::error!("1");
            log::warn!("2");
            log::debug!("3");
        });
        assert_eq!(simulation.console().lines().count(), expected, "{line}");
    }
}

#[test]
fn a_storm_loses_the_oldest_and_says_how_many() {
    let simulation = simulation("--logs=*:info");
    simulation.block_on(async {
        for number in 0..10_000 {
            log::info!("message {number}");
        }
    });
    let console = simulation.console();
    let lines: Vec<&str> = console.lines().collect();
    let lost: usize = lines[0].strip_prefix('(').unwrap().split(' ').next().unwrap().parse().unwrap();
    assert_eq!(lost + lines.len() - 1, 10_000, "{}", lines[0]);
    assert!(lines.last().unwrap().ends_with("message 9999"));
    assert!(console.len() < 2 * 16 * 1024);
}

#[test]
fn a_console_without_room_holds_up_nobody() {
    let simulation = simulation("--logs=*:info");
    simulation.set_console_room(0);
    simulation.block_on(async {
        for _ in 0..1000 {
            log::info!("a message");
            time::sleep(time::Duration::from_millis(1)).await;
        }
        assert_eq!(time::now().as_nanos(), 1_000_000_000);
    });
    // Written when the image ends, whatever the console takes. The first piece was on its way, and what came after it has filled the ring.
    let console = simulation.console();
    assert!(console.starts_with("[    0.000000] INFO  fogbow::logs::tests: a message\n"), "{console}");
    assert!(console.contains(" log messages were lost: "), "{console}");
}

#[test]
fn a_console_that_takes_some_bytes_at_a_time_gets_every_one_once() {
    let simulation = std::rc::Rc::new(simulation("--logs=*:info"));
    simulation.set_console_room(0);
    let machine = std::rc::Rc::clone(&simulation);
    simulation.block_on(async move {
        (0..100).for_each(|number| log::info!("message {number}"));
        for room in (0..100).map(|step| step % 7 * 20) {
            machine.set_console_room(room);
            time::sleep(time::Duration::from_millis(10)).await;
        }
        println!("end");
    });
    let console = simulation.console();
    let lines: Vec<&str> = console.lines().collect();
    assert_eq!(lines.len(), 101, "{console}");
    assert!((0..100).all(|number| lines[number].ends_with(&std::format!("fogbow::logs::tests: message {number}"))), "{console}");
}

#[test]
fn a_long_message_is_cut_at_a_character() {
    let simulation = simulation("--logs=*:info");
    simulation.block_on(async { log::info!("{}", "\u{e9}".repeat(LONGEST)) });
    let line = simulation.console();
    assert!(line.ends_with("\u{e9}\n") && line.len() <= LONGEST + 30, "{} bytes", line.len());
}

#[test]
fn a_panic_shows_what_was_not_printed_too() {
    let simulation = simulation("--logs=*:error");
    let dumped = simulation.block_on(async {
        for number in 0..1000 {
            log::info!("kept \u{1f32b} {number}");
        }
        let mut dumped = Vec::new();
        dump(&mut |bytes| dumped.extend_from_slice(bytes));
        String::from_utf8(dumped).unwrap()
    });
    let lines: Vec<&str> = dumped.lines().collect();
    assert_eq!(lines[0], "the last log messages:");
    assert!(lines.len() > 100 && lines.last().unwrap().ends_with("INFO  fogbow::logs::tests: kept \u{1f32b} 999"), "{dumped}");
    assert!(lines[1..].iter().all(|line| line.contains("kept \u{1f32b} ")));
    assert_eq!(simulation.console(), "");
}

#[test]
fn a_subscriber_has_a_filter_and_a_limit_of_its_own() {
    let simulation = simulation("--logs=*:error");
    let (received, lost) = simulation.block_on(async {
        let mut subscription = Subscription::new(Filter::from(LevelFilter::Debug), 2);
        for number in 0..5 {
            log::debug!("{number}");
        }
        let received = [subscription.next().await, subscription.next().await];
        log::debug!("after");
        (received, subscription.next().await.lost)
    });
    assert_eq!(lost, 3);
    assert_eq!(received.map(|message| (message.level, message.text)), [(Level::Debug, "0".into()), (Level::Debug, "1".into())]);
    assert_eq!(simulation.console(), "");
}
