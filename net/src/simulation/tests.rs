use std::vec;
use std::vec::Vec;

use embedded_io_async::{Read, Write};
use fogbow::simulation::Simulation;
use fogbow::spawn;
use fogbow::time::{self, Duration};

use super::*;
use crate::{Listener, Stack};

/// Three clients ask a server for different lengths over a bad network. Gives all that went over the switch.
fn exchange(seed: u64) -> Vec<u8> {
    Simulation::new(seed).block_on(async {
        let network = Network::new();
        let capture = network.switch().capture();
        network.switch().impair(Impairment {
            lost: 5 * Impairment::PERCENT,
            doubled: Impairment::PERCENT,
            corrupted: Impairment::PERCENT,
            reordered: Impairment::PERCENT,
            delay: Duration::from_millis(5),
            jitter: Duration::from_micros(100),
            rate: Some(100_000_000),
        });
        let mut listener = network.stack(1).listen(7).unwrap();
        spawn(async move {
            while let Ok(mut stream) = listener.accept().await {
                spawn(async move {
                    let mut length = [0; 4];
                    stream.read_exact(&mut length).await.unwrap();
                    stream.write_all(&vec![7; u32::from_be_bytes(length) as usize]).await.unwrap();
                })
                .detach();
            }
        })
        .detach();
        let clients: Vec<_> = (2..5_u8)
            .map(|host| {
                let stack = network.stack(host);
                spawn(async move {
                    let mut stream = stack.connect(Network::at(1, 7)).await.unwrap();
                    let length = u32::from(host) * 10_000;
                    stream.write_all(&length.to_be_bytes()).await.unwrap();
                    let (mut total, mut buffer) = (0, vec![0; 4096]);
                    while let Ok(read @ 1..) = stream.read(&mut buffer).await {
                        assert!(buffer[..read].iter().all(|&byte| byte == 7));
                        total += read as u32;
                    }
                    assert_eq!(total, length);
                })
            })
            .collect();
        for client in clients {
            client.await;
        }
        assert!(network.switch().lost() > 0);
        capture.to_pcap()
    })
}

#[test]
fn an_exchange_replays_bit_for_bit_from_its_seed() {
    let first = exchange(3);
    assert!(fogbow_pcap::Records::new(&first).unwrap().count() > 100);
    assert!(exchange(3) == first);
    assert!(exchange(4) != first);
}

#[test]
fn a_device_that_is_unplugged_hears_and_says_nothing() {
    Simulation::new(1).block_on(async {
        let switch = Switch::new();
        let (mut one, mut two, mut three) = (switch.device(100), switch.device(100), switch.device(100));
        switch.impair_link(two.info().mac, Some(Impairment::UNPLUGGED));
        one.send(&[0xff; 14]);
        two.send(&[0xff; 20]);
        assert_eq!((one.try_receive(), two.try_receive()), (None, None));
        assert_eq!((three.try_receive().unwrap().len(), three.try_receive()), (14, None));
        switch.impair_link(two.info().mac, None);
        one.send(&[0xff; 14]);
        assert!(two.try_receive().is_some());
    });
}

#[test]
fn a_link_carries_no_more_than_its_rate() {
    Simulation::new(1).block_on(async {
        let switch = Switch::new();
        switch.impair(Impairment { rate: Some(8_000_000), ..Impairment::default() });
        let (mut one, mut two) = (switch.device(1500), switch.device(1500));
        let started = time::now();
        for _ in 0..10 {
            one.send(&[0xff; 1000]);
        }
        for _ in 0..10 {
            two.receive().await;
        }
        assert_eq!(started.elapsed(), Duration::from_millis(10));
    });
}

#[test]
fn one_bit_of_a_corrupted_frame_differs() {
    Simulation::new(1).block_on(async {
        let switch = Switch::new();
        switch.impair(Impairment { corrupted: 100 * Impairment::PERCENT, ..Impairment::default() });
        let (mut one, mut two) = (switch.device(1500), switch.device(1500));
        one.send(&[0xff; 100]);
        let turned: u32 = two.try_receive().unwrap().iter().map(|byte| byte.count_zeros()).sum();
        assert_eq!(turned, 1);
    });
}
