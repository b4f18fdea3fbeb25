//! Every example on every target, with real clients.
#![forbid(unsafe_code)]

mod args;
mod attacks;
mod block;
mod clock;
mod conformance;
mod echo;
mod endings;
mod faults;
mod gdb;
mod hello;
mod http;
mod impairments;
mod kv;
mod muen;
mod network;
mod proxy;
mod random;
mod services;
mod stores;
mod timers;
mod user_network;
mod virtio;
mod virtio_devices;

use anyhow::Result;
use fogbow_tests::builder::Place;
use libtest_mimic::{Arguments, Trial};

fn main() {
    let arguments = Arguments::from_args();
    let trials = [
        hello::trials(),
        args::trials(),
        clock::trials(),
        random::trials(),
        timers::trials(),
        block::trials(),
        echo::trials(),
        endings::trials(),
        http::trials(),
        faults::trials(),
        gdb::trials(),
        kv::trials(),
        network::trials(),
        impairments::trials(),
        conformance::trials(),
        proxy::trials(),
        services::trials(),
        attacks::trials(),
        stores::trials(),
        user_network::trials(),
        virtio::trials(),
        virtio_devices::trials(),
        muen::trials(),
    ];
    libtest_mimic::run(&arguments, trials.into_iter().flatten().collect()).exit();
}

/// A test of an image: passes, fails, or is skipped with a reason.
fn trial(name: &str, place: Place, test: impl FnOnce() -> Result<()> + Send + 'static) -> Trial {
    fogbow_tests::trial::trial(format!("{}::{name}", place.name()), test)
}

/// The same test on several places.
fn on(places: &[Place], name: &str, test: fn(Place) -> Result<()>) -> Vec<Trial> {
    places.iter().map(|&place| trial(name, place, move || test(place))).collect()
}
