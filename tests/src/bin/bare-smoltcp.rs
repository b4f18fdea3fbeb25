//! The measure for our stack: smoltcp as it is, in a Linux process on the same kind of tap, polled as well as it can be.
//!
//! `bare-smoltcp TAP` serves what the image `throughput` serves: port 5001 drops its input, port 5002 sends until the peer closes. One connection at
//! a time on each, buffers of 256 KiB, every frame that waits taken before anything is sent.
#![forbid(unsafe_code)]

use std::os::fd::AsRawFd;

use anyhow::{Context, Result};
use smoltcp::iface::{Config, Interface, SocketSet};
use smoltcp::phy::{Medium, TunTapInterface, wait};
use smoltcp::socket::tcp::{Socket, SocketBuffer};
use smoltcp::time::Instant;
use smoltcp::wire::{EthernetAddress, IpAddress, IpCidr};

const SINK: u16 = 5001;
const SOURCE: u16 = 5002;
const BUFFER: usize = 256 * 1024;

fn main() -> Result<()> {
    let tap = std::env::args().nth(1).context("usage: bare-smoltcp TAP")?;
    let mut device = TunTapInterface::new(&tap, Medium::Ethernet).with_context(|| format!("opening {tap}"))?;
    let mut interface = Interface::new(Config::new(EthernetAddress([2, 0, 0, 0, 0, 2]).into()), &mut device, Instant::now());
    // The list has room for one address at least.
    interface.update_ip_addrs(|addresses| {
        let _ = addresses.push(IpCidr::new(IpAddress::v4(10, 0, 0, 2), 24));
    });
    let mut sockets = SocketSet::new(Vec::new());
    let mut add = || sockets.add(Socket::new(SocketBuffer::new(vec![0; BUFFER]), SocketBuffer::new(vec![0; BUFFER])));
    let (sink, source) = (add(), add());
    let chunk = vec![0x5a; 64 * 1024];
    println!("ready");
    loop {
        let now = Instant::now();
        interface.poll(now, &mut device, &mut sockets);
        for (handle, port) in [(sink, SINK), (source, SOURCE)] {
            let socket = sockets.get_mut::<Socket>(handle);
            if !socket.is_open() {
                socket.listen(port).context("listening")?;
            }
            if port == SINK {
                while socket.can_recv() {
                    socket.recv(|data| (data.len(), ())).context("receiving")?;
                }
            } else {
                while socket.can_send() && socket.send_slice(&chunk).context("sending")? > 0 {}
            }
            if !socket.may_recv() && socket.may_send() && socket.state() != smoltcp::socket::tcp::State::Listen {
                socket.close();
            }
        }
        interface.poll_egress(now, &mut device, &mut sockets);
        let delay = interface.poll_delay(now, &sockets);
        wait(device.as_raw_fd(), delay).context("waiting")?;
    }
}
