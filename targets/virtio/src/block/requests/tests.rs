use super::*;
use crate::queue::Doorbell;
use crate::queue::tests::Device;
use proptest::prelude::*;
use std::vec::Vec;

fn requests(count: usize) -> (Requests, Device) {
    let bell = Doorbell::Half(crate::window::tests::memory(8), 0);
    let queue = Queue::new(16, true, |_| Ok::<_, QueueError>(bell)).unwrap();
    let device = Device::new(queue.ring());
    (Requests::new(queue, count).unwrap(), device)
}

/// The bytes of a piece, which lies in a slot of `requests`.
#[expect(clippy::mut_from_ref, reason = "the test is the device")]
fn bytes<'a>(requests: &'a Requests, piece: &Piece) -> &'a mut [u8] {
    let offset = (piece.address - requests.slots.address(0)) as usize;
    // SAFETY: the device has the slot.
    unsafe { requests.slots.bytes(0, offset, piece.length as usize) }
}

fn poll(requests: &mut Requests, slot: usize) -> Option<bool> {
    requests.collect();
    requests.poll(slot, &mut Context::from_waker(Waker::noop()))
}

#[test]
fn a_request_is_as_the_standard_has_it_and_ends_as_the_device_says() {
    for (kind, number, length) in [(Kind::Read, 0, 1024), (Kind::Write, 1, LONGEST), (Kind::Flush, 4, 0), (Kind::Discard, 11, 16)] {
        for status in [0, 1, 2, 0xff] {
            let (mut requests, mut device) = requests(2);
            let request = Request { kind, sector: 0x1_2345_6789, length };
            let slot = requests.begin(request, |data| data.fill(0x5a)).unwrap();
            let head = device.next().unwrap();
            let pieces = device.pieces(head);
            let expected: Vec<(usize, bool)> =
                [(16, false), (length, kind == Kind::Read), (1, true)].into_iter().filter(|(length, _)| *length > 0).collect();
            assert_eq!(pieces.iter().map(|piece| (piece.length as usize, piece.writable)).collect::<Vec<_>>(), expected);
            let header = bytes(&requests, &pieces[0]);
            assert_eq!((&header[..8], &header[8..]), (&[number, 0, 0, 0, 0, 0, 0, 0][..], &0x1_2345_6789_u64.to_le_bytes()[..]));
            let mut written = 1;
            if kind == Kind::Read {
                bytes(&requests, &pieces[1]).fill(0x77);
                written += length;
            } else if length > 0 {
                assert!(bytes(&requests, &pieces[1]).iter().all(|byte| *byte == 0x5a));
            }
            bytes(&requests, pieces.last().unwrap())[0] = status;
            assert_eq!(poll(&mut requests, slot), None);
            device.use_buffer(head.into(), written as u32);
            device.publish();
            assert_eq!(poll(&mut requests, slot), Some(status == 0), "{kind:?}, {status}");
            if kind == Kind::Read {
                assert!(requests.data(slot, request).iter().all(|byte| *byte == 0x77));
            }
            requests.release(slot);
            assert!(requests.begin(request, |_| ()).is_some());
        }
    }
}

/// Cloud Hypervisor leaves the status out of the count, and counts what it read when it wrote to the disk; Linux looks at the status alone.
#[test]
fn what_became_of_a_request_is_in_its_status_whatever_the_device_counts() {
    for (kind, count) in [(Kind::Read, 512), (Kind::Write, 0), (Kind::Write, 512), (Kind::Flush, 0)] {
        for status in [OK, 1, NO_STATUS] {
            let (mut requests, mut device) = requests(2);
            let slot = requests.begin(Request { kind, sector: 0, length: if kind == Kind::Flush { 0 } else { 512 } }, |_| ()).unwrap();
            let head = device.next().unwrap();
            let pieces = device.pieces(head);
            bytes(&requests, pieces.last().unwrap())[0] = status;
            device.use_buffer(head.into(), count);
            device.publish();
            assert_eq!(poll(&mut requests, slot), Some(status == OK), "{kind:?}, {count}, {status}");
        }
    }
}

#[test]
fn a_lie_ends_all_that_is_under_way() {
    let (mut requests, mut device) = requests(2);
    let request = Request { kind: Kind::Read, sector: 0, length: 512 };
    let slots = [requests.begin(request, |_| ()).unwrap(), requests.begin(request, |_| ()).unwrap()];
    assert_eq!(requests.begin(request, |_| ()), None, "no buffer is left");
    device.use_buffer(9, 1);
    device.publish();
    assert_eq!(slots.map(|slot| poll(&mut requests, slot)), [Some(false); 2]);
    slots.iter().for_each(|slot| requests.release(*slot));
    assert_eq!(requests.begin(request, |_| ()), None, "nothing is asked of a broken device");
}

#[test]
fn a_device_that_gives_up_has_failed_at_all_it_has() {
    let (mut requests, _) = requests(2);
    let request = Request { kind: Kind::Write, sector: 0, length: 512 };
    let slot = requests.begin(request, |_| ()).unwrap();
    assert_eq!(poll(&mut requests, slot), None);
    requests.ring().give_up();
    assert_eq!(poll(&mut requests, slot), Some(false));
    assert_eq!(requests.begin(request, |_| ()), None);
}

proptest! {
    #[test]
    fn whatever_a_device_says_each_request_ends_once(uses in prop::collection::vec((0_u32..12, 0_u32..600, any::<bool>()), 1..60)) {
        let (mut requests, mut device) = requests(3);
        let mut under_way = Vec::new();
        let request = Request { kind: Kind::Read, sector: 0, length: 512 };
        for (head, length, good) in uses {
            while let Some(slot) = requests.begin(request, |_| ()) {
                under_way.push(slot);
            }
            if good {
                // SAFETY: the test is the device.
                unsafe { requests.slots.bytes((head as usize / PIECES).min(2), STATUS, 1)[0] = 0 };
            }
            device.use_buffer(head, length);
            device.publish();
            under_way.retain(|slot| match poll(&mut requests, *slot) {
                Some(_) => {
                    requests.release(*slot);
                    false
                }
                None => true,
            });
        }
        prop_assert!(under_way.len() <= 3);
    }
}
