//! Known answers of the oracle in Python (`runtime/oracle`), and what the book promises.

use super::*;
use std::format;
use std::string::String;
use std::vec;
use std::vec::Vec;

const SOURCES: [Source; Source::COUNT] =
    [Source::Rdseed, Source::Rdrand, Source::Jitter, Source::WakeUp, Source::Packet, Source::Host, Source::Device];

fn from_hex(text: &str) -> Vec<u8> {
    text.as_bytes().chunks(2).map(|pair| u8::from_str_radix(core::str::from_utf8(pair).unwrap(), 16).unwrap()).collect()
}

fn to_hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn seeded(bytes: &[u8]) -> Fortuna {
    let mut seed = Seed::new(Instant::default(), 0);
    seed.bytes.clear();
    seed.bytes.extend_from_slice(bytes);
    Fortuna::new(&seed)
}

fn draw(fortuna: &mut Fortuna, nanos: u64, length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    fortuna.fill(Instant::from_nanos(nanos), &mut bytes);
    bytes
}

#[test]
fn a_run_gives_what_the_oracle_says() {
    let mut fortuna = None;
    let mut fills = 0;
    for (number, line) in include_str!("../../../oracle/fortuna.txt").lines().enumerate() {
        let words: Vec<&str> = line.split(' ').collect();
        match (words[0], fortuna.as_mut()) {
            ("start", None) => fortuna = Some(seeded(&from_hex(words[1]))),
            ("add", Some(fortuna)) => fortuna.add(SOURCES[words[1].parse::<usize>().unwrap()], &from_hex(words[2])),
            ("fill", Some(fortuna)) => {
                let bytes = draw(fortuna, words[1].parse().unwrap(), words[2].parse().unwrap());
                assert_eq!(to_hex(&Sha256::digest(&bytes)), words[3], "line {}", number + 1);
                fills += 1;
            }
            _ => panic!("line {}: {line}", number + 1),
        }
    }
    assert!(fills > 400);
}

#[test]
fn pools_reseed_in_their_turn_and_not_too_often() {
    let mut fortuna = seeded(b"seed");
    let feed = |fortuna: &mut Fortuna| (0..2 * POOLS).for_each(|_| fortuna.add(Source::Host, &[7; 32]));
    // Half of what pool 0 needs.
    fortuna.add(Source::Host, &[7; 32]);
    draw(&mut fortuna, 0, 8);
    assert_eq!(fortuna.reseeds, 0);
    for reseed in 1..=8 {
        feed(&mut fortuna);
        draw(&mut fortuna, reseed * 200_000_000, 8);
        feed(&mut fortuna);
        draw(&mut fortuna, reseed * 200_000_000 + 99_999_999, 8);
        assert_eq!(fortuna.reseeds, reseed);
    }
    // Pool 3 was emptied at the eighth reseed and pool 4 never: the feeding after the eighth is in the one, and all seventeen in the other.
    let fed = 2 * 34;
    assert_eq!((fortuna.pools[3].length, fortuna.pools[4].length), (fed, 16 * fed));
}

/// Forward secrecy: after a request, nothing in the memory of the generator holds what it gave, nor the key it came from.
#[test]
fn the_generator_remembers_nothing_that_it_gave() {
    let mut fortuna = Box::new(seeded(b"seed"));
    for length in [1, 16, 32, 100, 224, 256, 1000] {
        let key = fortuna.stream.get_seed();
        let given = draw(&mut fortuna, 0, length);
        let place = (&raw const *fortuna).cast::<u8>();
        // SAFETY: the bytes of the box, in which all that can hold output is written: arrays of integers without padding. Read one by one, as volatile.
        let memory: Vec<u8> = (0..size_of::<Fortuna>()).map(|at| unsafe { place.add(at).read_volatile() }).collect();
        for secret in [&key[..], &given[..]].into_iter().filter(|secret| secret.len() >= 16) {
            for part in secret.windows(16) {
                assert!(!memory.windows(16).any(|window| window == part), "output or key of a request of {length} bytes is left");
            }
        }
    }
}
