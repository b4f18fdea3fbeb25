//! The server over the direct stack, on a network that loses, doubles and reorders frames.

use core::net::Ipv4Addr;

use super::*;
use crate::direct::{Config, Direct, Ipv4Cidr};
use crate::simulation::{Impairment, Switch};

fn stack(switch: &Switch, host: u8) -> Direct {
    Direct::new(switch.device(1500), Config::new(Ipv4Cidr { address: Ipv4Addr::new(10, 0, 0, host), prefix_length: 24 })).unwrap()
}

#[test]
fn a_bad_network_changes_nothing() {
    let request =
        "GET /large HTTP/1.1\r\nHost: x\r\n\r\nPOST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 3000\r\nConnection: close\r\n\r\n";
    let requests = format!("{request}{}", "y".repeat(3000));
    let expected = read_replies(converse(site, Limits::default(), &[requests.as_bytes()]));
    for seed in 0..20 {
        let requests = requests.clone();
        let raw = Simulation::new(seed).block_on(async move {
            let switch = Switch::new();
            let (server, client) = (stack(&switch, 1), stack(&switch, 2));
            fogbow::spawn(serve(server.listen(80).unwrap(), Limits::default(), site)).detach();
            switch.impair(Impairment {
                lost: 3 * Impairment::PERCENT,
                doubled: 3 * Impairment::PERCENT,
                delay: Duration::from_millis(2),
                jitter: Duration::from_millis(5),
                ..Impairment::default()
            });
            let mut stream = client.connect("10.0.0.1:80".parse().unwrap()).await.unwrap();
            stream.write_all(requests.as_bytes()).await.unwrap();
            stream.flush().await.unwrap();
            read_all(&mut stream).await.unwrap()
        });
        let replies = read_replies(raw);
        assert_eq!(replies.len(), 2, "seed {seed}");
        for (reply, expected) in replies.iter().zip(&expected) {
            assert!(reply.status == 200 && reply.body == expected.body, "seed {seed}");
        }
    }
}
