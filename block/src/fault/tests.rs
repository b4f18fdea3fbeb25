use super::*;
use fogbow::simulation::Simulation;
use std::collections::BTreeSet;

const SIZE: usize = 512;

fn disk() -> FaultDisk {
    FaultDisk::new(Ram::new("disk", SIZE, 8).unwrap(), 3)
}

async fn first_bytes(disk: &impl Block) -> Vec<u8> {
    let mut all = [0; 8 * SIZE];
    disk.read(0, &mut all).await.unwrap();
    all.chunks(SIZE).map(|sector| sector[0]).collect()
}

#[test]
fn a_flush_is_a_barrier_and_nothing_else_is() {
    Simulation::new(1).block_on(async {
        let disk = disk();
        disk.write(0, &[1; 2 * SIZE]).await.unwrap();
        disk.flush().await.unwrap();
        disk.write(1, &[2; 2 * SIZE]).await.unwrap();
        disk.write(0, &[3; SIZE]).await.unwrap();
        assert_eq!(first_bytes(&disk).await, [3, 2, 2, 0, 0, 0, 0, 0]);
        assert_eq!(first_bytes(&disk.power_cut(Survivors::None)).await, [1, 1, 0, 0, 0, 0, 0, 0]);
        assert_eq!(first_bytes(&disk.power_cut(Survivors::All)).await, [3, 2, 2, 0, 0, 0, 0, 0]);
        let torn = disk.power_cut(Survivors::First { sectors: 1, torn: 5 });
        assert_eq!(first_bytes(&torn).await, [1, 2, 2, 0, 0, 0, 0, 0]);
        let mut sector = [9; SIZE];
        torn.read(2, &mut sector).await.unwrap();
        assert_eq!(sector[..8], [2, 2, 2, 2, 2, 0, 0, 0]);
    });
}

#[test]
fn a_power_cut_reorders_loses_and_tears() {
    Simulation::new(1).block_on(async {
        let disk = disk();
        disk.write(0, &[1; SIZE]).await.unwrap();
        disk.write(0, &[2; SIZE]).await.unwrap();
        disk.write(1, &[3; SIZE]).await.unwrap();
        let mut seen = BTreeSet::new();
        for seed in 0..200 {
            let left = disk.power_cut(Survivors::Random(seed));
            let mut all = [0; 2 * SIZE];
            left.read(0, &mut all).await.unwrap();
            seen.insert((all[0], all[SIZE - 1], all[SIZE], all[2 * SIZE - 1]));
        }
        assert!(seen.contains(&(0, 0, 3, 3)), "a later write alone");
        assert!(seen.contains(&(1, 1, 0, 0)), "an overwrite lost or overtaken");
        assert!(seen.iter().any(|(first, last, ..)| (*first, *last) == (1, 2)), "an overwrite overtaken: the former came last, and torn");
        assert!(seen.iter().any(|(first, last, ..)| first != last), "a torn sector");
    });
}

/// What is written while a flush takes its time is not covered by it; what is discarded reads as garbage, and so it is noticed who relies on it.
#[test]
fn a_slow_flush_covers_what_was_there_and_a_discard_is_noticed() {
    Simulation::new(1).block_on(async {
        let disk = disk();
        disk.write(0, &[1; SIZE]).await.unwrap();
        disk.fail(Operation::Flush, 1, Fault::Late(Duration::from_secs(1)));
        let other = disk.clone();
        let flush = fogbow::spawn(async move { other.flush().await });
        fogbow::task::yield_now().await;
        disk.write(1, &[2; SIZE]).await.unwrap();
        flush.await.unwrap();
        assert_eq!(first_bytes(&disk.power_cut(Survivors::None)).await[..2], [1, 0]);
        disk.discard(0, 2).await.unwrap();
        assert_eq!(first_bytes(&disk).await[..3], [0xd1, 0xd1, 0]);
        assert!(disk.discard(7, 2).await.is_err());
    });
}

#[test]
fn power_fails_in_the_middle_of_a_request() {
    Simulation::new(1).block_on(async {
        let disk = disk();
        disk.cut_after(3);
        disk.write(0, &[1; 2 * SIZE]).await.unwrap();
        let error = disk.write(2, &[1; 2 * SIZE]).await.unwrap_err();
        assert_eq!((error.cause, error.sector, error.length), (Cause::Failed, 2, 2 * SIZE as u64));
        assert!(disk.is_dead() && disk.flush().await.is_err() && disk.read(0, &mut [0; SIZE]).await.is_err());
        assert_eq!(first_bytes(&disk.power_cut(Survivors::All)).await, [1, 1, 1, 0, 0, 0, 0, 0]);
        assert_eq!(disk.counts().sectors_written, 3);
        let disk = self::disk();
        disk.cut_after(1);
        disk.write(0, &[1; SIZE]).await.unwrap();
        assert!(disk.flush().await.is_err(), "the power failed before the flush");
        assert_eq!(first_bytes(&disk.power_cut(Survivors::None)).await, [0; 8]);
    });
}

#[test]
fn the_nth_request_meets_its_fault() {
    Simulation::new(1).block_on(async {
        let disk = disk();
        disk.write(0, &[7; SIZE]).await.unwrap();
        disk.fail(Operation::Write, 2, Fault::Error);
        disk.fail(Operation::Write, 3, Fault::Lost);
        disk.fail(Operation::Write, 4, Fault::Misdirected);
        disk.fail(Operation::Write, 5, Fault::Torn);
        disk.write(0, &[1; SIZE]).await.unwrap();
        assert!(disk.write(0, &[2; SIZE]).await.is_err());
        disk.write(0, &[3; SIZE]).await.unwrap();
        assert_eq!(first_bytes(&disk).await[0], 1);
        disk.write(0, &[4; SIZE]).await.unwrap();
        let bytes = first_bytes(&disk).await;
        assert!(bytes[0] == 1 && bytes[1..].iter().filter(|byte| **byte == 4).count() == 1, "{bytes:?}");
        assert!(disk.write(0, &[5; SIZE]).await.is_err());
        disk.fail(Operation::Flush, 1, Fault::Lost);
        disk.flush().await.unwrap();
        assert_eq!(first_bytes(&disk.power_cut(Survivors::None)).await, [0; 8]);
        disk.fail(Operation::Read, 1, Fault::Misdirected);
        let mut all = [0; SIZE];
        disk.write(0, &[6; SIZE]).await.unwrap();
        disk.read(0, &mut all).await.unwrap();
        assert_ne!(all[0], 6);
    });
}

#[test]
fn requests_can_be_late_and_sectors_damaged() {
    Simulation::new(1).block_on(async {
        let disk = disk();
        disk.set_latency(Duration::from_millis(2)..Duration::from_millis(3));
        let start = time::now();
        disk.flush().await.unwrap();
        assert!(start.elapsed() >= Duration::from_millis(2) && start.elapsed() < Duration::from_millis(3));
        disk.fail(Operation::Flush, 1, Fault::Late(Duration::from_secs(1)));
        disk.flush().await.unwrap();
        assert!(start.elapsed() >= Duration::from_secs(1));
        disk.damage(3, 0, &[8]);
        disk.damage(8, 0, &[8]);
        assert_eq!(first_bytes(&disk).await, [0, 0, 0, 8, 0, 0, 0, 0]);
    });
}
