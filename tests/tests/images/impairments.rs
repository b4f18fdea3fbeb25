//! Streams through a bad wire, Linux's stack at one end and an image's at the other: what is sent comes back, all of it and unchanged.
//!
//! Few megabytes each, so that they are quick. `cargo xtask soak` moves a hundred each way and looks for stalls.

use anyhow::Result;
use fogbow_net::simulation::Impairment;
use fogbow_tests::builder::{Place, Run};
use fogbow_tests::client;
use fogbow_tests::network::GUEST;
use fogbow_tests::relay::{IMPAIRMENTS, Relay};
use libtest_mimic::Trial;

use crate::echo::with_console;

const PORT: u16 = 7000;
const LENGTH: usize = 2 << 20;

pub(crate) fn trials() -> Vec<Trial> {
    let trial =
        |&(name, impairment): &(&str, Impairment)| super::trial(&format!("impaired_by_{name}"), Place::Spt, move || stream(impairment));
    IMPAIRMENTS.iter().map(trial).collect()
}

fn stream(impairment: Impairment) -> Result<()> {
    let relay = Relay::new(impairment, 1)?;
    let port = format!("--port={PORT}");
    let guest = Place::Spt.start("echo", &Run { namespace: Some(relay.guest()), arguments: &[&port], ..Run::default() })?;
    relay.client().run(|| client::echo((GUEST, PORT).into(), LENGTH)).map_err(|error| with_console(error, &guest))
}
