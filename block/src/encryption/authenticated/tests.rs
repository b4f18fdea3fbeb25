use super::*;
use crate::Ram;
use crate::fault::{FaultDisk, Survivors};
use alloc::rc::Rc;
use fogbow::simulation::Simulation;
use proptest::prelude::*;

const KEY: [u8; 32] = [5; 32];
const SECTOR: usize = 8 * 512;

/// A formatted disk of four sectors, each full of its number.
async fn formatted() -> Rc<Ram> {
    let disk = Rc::new(Ram::new("disk", 512, 1 + 4 * GROUP).unwrap());
    let sealed = Authenticated::format(Rc::clone(&disk), &KEY).await.unwrap();
    for sector in 0..4 {
        sealed.write(sector, &[sector as u8; SECTOR]).await.unwrap();
    }
    disk
}

#[test]
fn what_is_written_comes_back_and_what_was_never_written_is_zeros() {
    Simulation::new(1).block_on(async {
        let disk = Rc::new(Ram::new("disk", 512, 1 + 40 * GROUP).unwrap());
        let sealed = Authenticated::format(Rc::clone(&disk), &KEY).await.unwrap();
        assert_eq!((sealed.info().sector_size, sealed.info().sectors), (SECTOR, 40));
        let data: Vec<u8> = (0..30 * SECTOR).map(|index| (index / 100) as u8).collect();
        sealed.write_vectored(5, &[&data[..SECTOR], &data[SECTOR..]]).await.unwrap();
        let sealed = Authenticated::open(disk, &KEY).await.unwrap();
        let (mut before, mut back) = (vec![1; SECTOR], vec![1; 30 * SECTOR]);
        sealed.read_vectored(4, &mut [&mut before, &mut back]).await.unwrap();
        assert!(before == [0; SECTOR] && back == data);
    });
}

#[test]
fn no_nonce_is_used_twice() {
    Simulation::new(1).block_on(async {
        let disk = formatted().await;
        let mut nonces = alloc::collections::BTreeSet::new();
        for _ in 0..3 {
            for sector in 0..4 {
                let mut seal = [0; 512];
                disk.read(1 + sector * GROUP + DATA, &mut seal).await.unwrap();
                assert!(nonces.insert(seal[..NONCE].to_vec()), "sector {sector}");
            }
            let sealed = Authenticated::open(Rc::clone(&disk), &KEY).await.unwrap();
            sealed.write(0, &[7; 4 * SECTOR]).await.unwrap();
        }
    });
}

#[test]
fn wrong_keys_versions_and_disks_are_told_apart() {
    Simulation::new(1).block_on(async {
        let disk = formatted().await;
        assert_eq!(Authenticated::open(Rc::clone(&disk), &[6; 32]).await.unwrap_err(), OpenError::Key);
        let mut header = [0; 512];
        disk.read(0, &mut header).await.unwrap();
        header[16] = 2;
        disk.write(0, &header).await.unwrap();
        assert_eq!(Authenticated::open(Rc::clone(&disk), &KEY).await.unwrap_err(), OpenError::Version(2));
        disk.write(0, &[0; 512]).await.unwrap();
        assert_eq!(Authenticated::open(disk, &KEY).await.unwrap_err(), OpenError::NotFormatted);
        let small = Ram::new("disk", 512, GROUP).unwrap();
        assert_eq!(Authenticated::open(small, &KEY).await.unwrap_err(), OpenError::TooSmall);
    });
}

/// Formatting anew that is interrupted leaves the former device, or none: what opens under the new key is whole.
#[test]
fn what_was_interrupted_is_not_formatted() {
    const NEW: [u8; 32] = [6; 32];
    Simulation::new(1).block_on(async {
        let old = formatted().await;
        for cut in 0.. {
            let disk = FaultDisk::new(old.snapshot(), 1);
            disk.cut_after(cut);
            let is_formatted = Authenticated::format(disk.clone(), &NEW).await.is_ok();
            for seed in 0..8 {
                let left = Rc::new(disk.power_cut(if is_formatted { Survivors::None } else { Survivors::Random(seed) }));
                for (key, byte) in [(KEY, Some(3)), (NEW, None)] {
                    let mut last = [0; SECTOR];
                    match Authenticated::open(Rc::clone(&left), &key).await {
                        Ok(sealed) => {
                            assert_eq!(sealed.read(3, &mut last).await, Ok(()), "after {cut} sectors");
                            assert_eq!(last[0], byte.unwrap_or(0));
                        }
                        Err(_) => assert!(!is_formatted || byte.is_some(), "what was formatted is"),
                    }
                }
            }
            if is_formatted {
                break;
            }
        }
    });
}

#[test]
fn a_flush_is_passed_on_and_what_leaves_the_device_is_refused() {
    Simulation::new(1).block_on(async {
        let disk = FaultDisk::new(formatted().await.snapshot(), 1);
        let sealed = Authenticated::open(disk.clone(), &KEY).await.unwrap();
        sealed.write(0, &[1; SECTOR]).await.unwrap();
        sealed.flush().await.unwrap();
        assert_eq!(disk.pending(), 0);
        let beyond = Cause::OutOfRange { sectors: 4 };
        assert_eq!(sealed.read(3, &mut [0; 2 * SECTOR]).await.unwrap_err().cause, beyond);
        assert_eq!(sealed.write(3, &[0; 2 * SECTOR]).await.unwrap_err().cause, beyond);
        assert_eq!(sealed.discard(3, 2).await.unwrap_err().cause, beyond);
        let odd = Cause::NotWholeSectors { sector_size: SECTOR };
        assert_eq!(sealed.read(0, &mut [0; 512]).await.unwrap_err().cause, odd);
        assert_eq!(sealed.write(0, &[0; 512]).await.unwrap_err().cause, odd);
    });
}

#[test]
fn sectors_that_change_places_and_torn_ones_are_errors() {
    Simulation::new(1).block_on(async {
        let disk = formatted().await;
        let (mut first, mut second) = (vec![0; GROUP as usize * 512], vec![0; GROUP as usize * 512]);
        disk.read_vectored(1, &mut [&mut first, &mut second]).await.unwrap();
        disk.write_vectored(1, &[&second, &first]).await.unwrap();
        let sealed = Authenticated::open(Rc::clone(&disk), &KEY).await.unwrap();
        let error = sealed.read(0, &mut [0; 2 * SECTOR]).await.unwrap_err();
        assert_eq!((error.sector, error.cause), (0, Cause::NotAuthentic));

        let faulty = FaultDisk::new(formatted().await.snapshot(), 1);
        let sealed = Authenticated::open(faulty.clone(), &KEY).await.unwrap();
        sealed.write(2, &[9; SECTOR]).await.unwrap();
        let torn = faulty.power_cut(Survivors::First { sectors: 3, torn: 7 });
        let sealed = Authenticated::open(torn, &KEY).await.unwrap();
        assert_eq!(sealed.read(2, &mut [0; SECTOR]).await.unwrap_err().cause, Cause::NotAuthentic);
        assert_eq!(sealed.read(3, &mut [0; SECTOR]).await, Ok(()), "its neighbours are whole");
        sealed.write(2, &[8; SECTOR]).await.unwrap();
        assert_eq!(sealed.read(2, &mut [0; SECTOR]).await, Ok(()));
    });
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]
    /// Whatever bit is flipped on the disk, a read gives what was written, or an error.
    #[test]
    fn tampering_is_an_error_and_never_data(at in 512_usize..(1 + 4 * GROUP as usize) * 512, bit in 0..8) {
        Simulation::new(1).block_on(async move {
            let disk = formatted().await;
            let mut sector = [0; 512];
            disk.read((at / 512) as u64, &mut sector).await.unwrap();
            sector[at % 512] ^= 1_u8 << bit;
            disk.write((at / 512) as u64, &sector).await.unwrap();
            let sealed = Authenticated::open(disk, &KEY).await.unwrap();
            let hit = (at as u64 / 512 - 1) / GROUP;
            // Behind the seal of 40 bytes nothing is stored.
            let is_stored = at / 512 != (1 + hit * GROUP + DATA) as usize || at % 512 < NONCE + TAG;
            for number in 0..4 {
                let mut data = [0; SECTOR];
                match sealed.read(number, &mut data).await {
                    Ok(()) => assert!(data == [number as u8; SECTOR] && (number != hit || !is_stored)),
                    Err(error) => assert!(number == hit && is_stored && error.cause == Cause::NotAuthentic),
                }
            }
        });
    }
}
