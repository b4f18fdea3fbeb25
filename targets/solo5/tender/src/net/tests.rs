use std::os::fd::AsRawFd;
use std::process::Command;
use std::thread;

use rustix::thread::UnshareFlags;

use super::*;

fn tap(name: &str) -> NetSource {
    NetSource::Tap(name.to_owned())
}

/// Runs `test` on a thread in a network namespace of its own, which ends with the thread. Needs root; says so and passes otherwise.
fn in_network_namespace(test: fn()) {
    let thread = thread::spawn(move || {
        // SAFETY: changes the namespace of this thread alone, which opens no descriptor before.
        match unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) } {
            Ok(()) => test(),
            Err(errno) => eprintln!("not tested: making a network namespace needs root ({errno})"),
        }
    });
    thread.join().expect("the test passes");
}

fn ip(arguments: &str) {
    let status = Command::new("ip").args(arguments.split(' ')).status().expect("iproute2 is installed");
    assert!(status.success(), "ip {arguments}");
}

#[test]
fn a_tap_is_attached_with_its_mtu() {
    in_network_namespace(|| {
        ip("tuntap add fogbow0 mode tap");
        assert!(matches!(open(&tap("fogbow0"), Frames::Plain), Err(NetError::Down(name)) if name == "fogbow0"));
        ip("link set fogbow0 up mtu 9000");
        let device = open(&tap("fogbow0"), Frames::Plain).expect("the tap is there and up");
        assert_eq!(device.mtu, 9000);
        let flags = rustix::fs::fcntl_getfl(&device.descriptor).expect("flags");
        assert!(flags.contains(OFlags::NONBLOCK));
        assert!(matches!(open(&tap("fogbow0"), Frames::Plain), Err(NetError::Busy(_))));
    });
}

#[test]
fn interfaces_that_are_no_taps_are_refused_and_none_is_made() {
    in_network_namespace(|| {
        ip("link set lo up");
        let result = open(&tap("lo"), Frames::Plain);
        assert!(matches!(result, Err(NetError::NotTap(_))), "{result:?}");
        assert!(matches!(open(&tap("fogbow1"), Frames::Plain), Err(NetError::NoInterface(_))));
        assert!(matches!(open(&tap("fogbow1"), Frames::Plain), Err(NetError::NoInterface(_))), "the first try must not have made it");
    });
}

#[test]
fn an_inherited_descriptor_is_taken_once() {
    let types = rustix::net::SocketFlags::empty();
    let (ours, theirs) = rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, types, None).expect("a socket pair");
    let number = ours.as_raw_fd();
    // It is now open and owned by nobody, as after exec.
    core::mem::forget(ours);
    let device = open(&NetSource::Descriptor(number), Frames::Plain).expect("an inherited socket");
    assert_eq!((device.descriptor.as_raw_fd(), device.mtu), (number, DEFAULT_MTU));
    assert!(matches!(open(&NetSource::Descriptor(number), Frames::Plain), Err(NetError::NoDescriptor(_))));
    rustix::io::write(&theirs, b"frame").expect("the other end is open");
    let mut frame = [0; 16];
    assert_eq!(rustix::io::read(&device.descriptor, &mut frame), Ok(5));
    assert_eq!(rustix::io::read(&device.descriptor, &mut frame), Err(Errno::AGAIN));
}

#[test]
fn headers_are_for_guests_that_take_them() {
    in_network_namespace(|| {
        ip("tuntap add fogbow0 mode tap");
        ip("link set fogbow0 up");
        let source = tap("fogbow0");
        let is_headed = |device: &NetDevice| interface::get_tap(device.descriptor.as_fd()).expect("a tap").1;
        for (frames, headed) in [(Frames::Plain, false), (Frames::Any, true), (Frames::Plain, false)] {
            let device = open(&source, frames).expect("the tap is there and up");
            assert_eq!((device.headed, is_headed(&device)), (headed, headed));
        }
        // Inherited as the one that opened it made it.
        for (made, frames, expected) in
            [(Frames::Any, Frames::Any, Some(true)), (Frames::Any, Frames::Plain, None), (Frames::Plain, Frames::Any, Some(false))]
        {
            let device = open(&source, made).expect("the tap is there and up");
            rustix::io::fcntl_setfd(&device.descriptor, FdFlags::empty()).expect("flags");
            let number = std::os::fd::IntoRawFd::into_raw_fd(device.descriptor);
            match open(&NetSource::Descriptor(number), frames) {
                Ok(device) => assert_eq!(Some(device.headed), expected),
                Err(error) => assert!(expected.is_none() && matches!(error, NetError::Headed(_)), "{error}"),
            }
        }
    });
}

#[test]
fn descriptors_that_were_not_passed_are_refused() {
    assert!(matches!(open(&NetSource::Descriptor(1), Frames::Plain), Err(NetError::Console(1))));
    assert!(matches!(open(&NetSource::Descriptor(i32::MAX), Frames::Plain), Err(NetError::NoDescriptor(_))));
}

#[test]
fn the_user_mode_network_names_what_it_does_not_know() {
    let error = open(&NetSource::User("nonsense=1".to_owned()), Frames::Plain).expect_err("an unknown option").to_string();
    assert!(error.contains("nonsense") && !error.contains('\n'), "{error}");
}

#[test]
fn random_addresses_are_unicast_and_local() {
    let (one, other) = (random_mac().expect("random"), random_mac().expect("random"));
    assert_ne!(one, other);
    assert_eq!(one[0] & 3, 2);
}
