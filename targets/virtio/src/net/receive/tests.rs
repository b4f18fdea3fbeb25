use super::*;
use crate::queue::Doorbell;
use crate::queue::tests::Device;
use fogbow_net::frame::{FrameInfo, MacAddress, Offload};
use proptest::prelude::*;
use std::vec::Vec;

const SLOT: usize = 128;
const LARGEST: usize = 1000;

fn source(size: u16, slots: usize, merges: bool) -> (Source, Device) {
    let bell = Doorbell::Half(crate::window::tests::memory(8), 0);
    let queue = Queue::new(size, true, |_| Ok::<_, QueueError>(bell)).unwrap();
    let info = FrameInfo { mac: MacAddress([2; 6]), mtu: LARGEST - 18, offload: Offload::default() };
    let terms = Terms { info, merges, slot: SLOT, slots };
    let device = Device::new(queue.ring());
    (Source::new(queue, &terms), device)
}

/// Lets the device write a frame of `length` bytes, in as many buffers as it takes; the bytes are numbers from `seed` on.
fn send(source: &Source, device: &mut Device, length: usize, seed: usize) {
    let mut bytes = [0; HEADER].to_vec();
    bytes.extend((0..length).map(|index| (index + seed) as u8));
    let pieces: Vec<&[u8]> = bytes.chunks(SLOT).collect();
    for (index, piece) in pieces.iter().enumerate() {
        let head = device.next().expect("a buffer for the frame");
        let Piece { address, length, writable } = device.pieces(head)[0];
        assert!(writable && length as usize == SLOT && address == source.slots.address(head.into()));
        // SAFETY: the device has the slot.
        let slot = unsafe { source.slots.bytes(head.into(), 0, piece.len()) };
        slot.copy_from_slice(piece);
        if index == 0 {
            slot[10..12].copy_from_slice(&(pieces.len() as u16).to_le_bytes());
        }
        device.use_buffer(head.into(), piece.len() as u32);
    }
    device.publish();
}

fn receive(source: &mut Source) -> Option<Vec<u8>> {
    let arrived = source.next().unwrap()?;
    let frame = source.frame(&arrived).1.to_vec();
    source.give_back();
    Some(frame)
}

#[test]
fn frames_of_any_length_come_in_one_piece_and_too_long_ones_not_at_all() {
    let (mut source, mut device) = source(32, 20, true);
    for round in 0..2000 {
        let length = round * 37 % (LARGEST + 200);
        send(&source, &mut device, length, round);
        let expected: Vec<u8> = (0..length).map(|index| (index + round) as u8).collect();
        assert_eq!(receive(&mut source), Some(expected).filter(|_| length <= LARGEST), "round {round}");
        assert_eq!(receive(&mut source), None);
    }
}

#[test]
fn buffers_in_another_order_are_put_in_order() {
    let (mut source, mut device) = source(8, 8, true);
    let heads: Vec<u16> = (0..3).map(|_| device.next().unwrap()).collect();
    for (part, head) in heads.iter().rev().enumerate() {
        // SAFETY: the device has the slot.
        let slot = unsafe { source.slots.bytes((*head).into(), 0, 100) };
        slot.fill(part as u8);
        if part == 0 {
            slot[10..12].copy_from_slice(&[3, 0]);
        }
        device.use_buffer((*head).into(), 100);
    }
    device.publish();
    let expected = [&[0; 100 - HEADER][..], &[1; 100], &[2; 100]].concat();
    assert_eq!(receive(&mut source), Some(expected));
}

#[test]
fn lies_about_buffers_end_the_device() {
    for (merges, length, buffers) in [(true, 11, 1), (true, 100, 0), (true, 100, 2), (true, 100, u16::MAX), (false, 3, 1)] {
        let (mut source, mut device) = source(8, 8, merges);
        let head = device.next().unwrap();
        // SAFETY: the device has the slot.
        unsafe { source.slots.bytes(head.into(), 10, 2).copy_from_slice(&buffers.to_le_bytes()) };
        device.use_buffer(head.into(), length);
        device.publish();
        assert!(source.next().is_err(), "{length} bytes in {buffers}");
        assert_eq!(source.next(), Ok(None));
    }
}

proptest! {
    #[test]
    fn a_device_that_lies_gives_frames_within_the_slots_or_none(
        uses in prop::collection::vec((0_u32..10, 0_u32..140, prop::array::uniform12(any::<u8>()), 0_u16..3), 1..60), merges in any::<bool>(),
    ) {
        let (mut source, mut device) = source(8, 8, merges);
        for (slot, length, mut header, buffers) in uses {
            while device.next().is_some() {}
            header[10..12].copy_from_slice(&buffers.to_le_bytes());
            if slot < 8 {
                // SAFETY: no frame is in use.
                unsafe { source.slots.bytes(slot as usize, 0, HEADER).copy_from_slice(&header) };
            }
            device.use_buffer(slot, length);
            device.publish();
            while let Ok(Some(arrived)) = source.next() {
                prop_assert!(arrived.length <= HEADER + LARGEST);
                let (_, frame) = source.frame(&arrived);
                frame.fill(7);
                source.give_back();
            }
        }
    }
}
