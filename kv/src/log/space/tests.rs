use fogbow_block::{BlockInfo, Durability};
use proptest::prelude::*;

use super::*;

const ID: u64 = 5;

/// Not whole words of 64, so that the last one has bits that stand for no page.
const PAGES: u64 = 3 * 32640 - 100;

fn geometry(pages: u64) -> Geometry {
    Geometry::of(BlockInfo { sector_size: 512, sectors: pages * 8, read_only: false, durability: Durability::Host }).unwrap()
}

/// Where pages are looked for: there are few such places, so that pages are taken again, and some lie in two pages of the map.
const NEAR: [u64; 4] = [0, 32630, 2 * 32640 - 7, PAGES - 30];

/// A device whose map has several pages, as checkpoints leave it.
struct Device {
    space: Space,
    copies: [Vec<Vec<u8>>; 2],
    generation: usize,
    sum: u64,
}

impl Device {
    /// With both copies of the map written.
    fn new() -> Self {
        let space = Space::new(geometry(PAGES));
        let mut device = Self { copies: [const { Vec::new() }; 2], generation: 0, sum: 0, space };
        device.copies.iter_mut().for_each(|copy| copy.resize(3, Vec::new()));
        device.checkpoint(&[]);
        device.checkpoint(&[]);
        device
    }

    fn copy(&self) -> usize {
        self.generation % 2
    }

    /// How many pages of the map it writes.
    fn checkpoint(&mut self, freed: &[Extent]) -> usize {
        self.generation += 1;
        let copy = self.copy();
        let (pages, sum) = self.space.emit(copy, ID, freed);
        let count = pages.len();
        for (at, page) in pages {
            self.copies[copy][(at - self.space.geometry.map_start(copy)) as usize] = page;
        }
        self.sum = sum;
        count
    }

    fn read(&self) -> Space {
        let mut space = Space::new(self.space.geometry);
        for (group, page) in self.copies[self.copy()].iter().enumerate() {
            space.read_group(self.copy(), ID, group, page);
        }
        space
    }

    fn is_whole(&self, space: &Space) -> bool {
        space.is_whole(self.copy(), ID, self.sum)
    }

    /// Changes a bit of the map, and puts all checksums right again.
    fn forge(&mut self, page: u64) {
        let copy = self.copy();
        let (group, bit) = ((page / self.space.geometry.map_bits()) as usize, page % self.space.geometry.map_bits());
        let bytes = &mut self.copies[copy][group];
        bytes[MAP_HEADER + (bit / 8) as usize] ^= 1 << (bit % 8);
        let sum = checksum(ID, &bytes[8..]);
        bytes[..8].copy_from_slice(&sum.to_le_bytes());
        self.space.sums[copy][group] = sum;
        self.sum = self.space.sum(copy, ID);
    }
}

fn count(extents: &[Vec<Extent>]) -> u64 {
    extents.iter().flatten().map(|extent| u64::from(extent.count)).sum()
}

proptest! {
    /// No page is given out twice, and all are given out.
    #[test]
    fn pages_are_taken_once(steps in prop::collection::vec((1_u32..20, any::<bool>()), 0..60)) {
        let geometry = geometry(1200);
        let mut space = Space::new(geometry);
        let mut taken: Vec<Vec<Extent>> = Vec::new();
        for (count, release) in steps {
            let free = space.free();
            if release && !taken.is_empty() {
                space.release(&taken.swap_remove(count as usize % taken.len()));
            } else if let Some(extents) = space.take(count) {
                prop_assert_eq!(extents.iter().map(|e| e.count).sum::<u32>(), count);
                for extent in extents.iter() {
                    prop_assert!(!taken.iter().flatten().any(|t| t.page < extent.page + u64::from(extent.count) && extent.page < t.page + u64::from(t.count)));
                    prop_assert!(extent.page >= geometry.data_start() && extent.page + u64::from(extent.count) <= geometry.pages);
                }
                taken.push(extents);
            } else {
                prop_assert!(free < u64::from(count) && space.free() == free);
            }
        }
    }

    /// After any checkpoint the copy of the map that it wrote says what is in use: not what it frees, nor what is for commits that are not in the log yet.
    /// Whoever opens the device after a power cut goes on from there.
    #[test]
    fn every_checkpoint_leaves_the_map_that_it_should(steps in prop::collection::vec((0_u8..8, 1_u32..20, prop::sample::select(&NEAR)), 0..60)) {
        let mut device = Device::new();
        let (mut kept, mut writing): (Vec<Vec<Extent>>, Vec<Vec<Extent>>) = (Vec::new(), Vec::new());
        let in_use = |space: &Space, extents: &[Vec<Extent>]| {
            extents.iter().flatten().all(|extent| (0..extent.count).all(|page| space.is_used(extent.page + u64::from(page))))
        };
        for (step, pages, near) in steps {
            device.space.hint = near;
            let any = |extents: &mut Vec<Vec<Extent>>| {
                if extents.is_empty() { Vec::new() } else { extents.swap_remove(near as usize % extents.len()) }
            };
            match step {
                0 | 1 => kept.push(device.space.take(pages).unwrap()),
                2 => writing.push(device.space.take_unlogged(pages).unwrap()),
                3 => {
                    let extents = any(&mut writing);
                    device.space.logged(&extents);
                    kept.push(extents);
                }
                4 => device.space.release(&any(&mut writing)),
                5 => device.space.release(&any(&mut kept)),
                _ => {
                    let freed = any(&mut kept);
                    device.checkpoint(&freed);
                    let read = device.read();
                    prop_assert!(device.is_whole(&read) && in_use(&read, &kept));
                    prop_assert_eq!(read.free(), PAGES - read.geometry.data_start() - count(&kept));
                    prop_assert_eq!(read.groups.iter().map(|free| u64::from(*free)).sum::<u64>(), read.free());
                    if step == 7 {
                        writing.clear();
                        device.space = read;
                    } else {
                        device.space.release(&freed);
                    }
                }
            }
            prop_assert!(in_use(&device.space, &kept) && in_use(&device.space, &writing));
            prop_assert_eq!(device.space.free(), PAGES - device.space.geometry.data_start() - count(&kept) - count(&writing));
        }
    }
}

/// A checkpoint writes the pages of the map that have changed since it was last in this copy; opening the device is no change.
#[test]
fn only_changed_pages_of_the_map_are_written() {
    let mut device = Device::new();
    assert_eq!((device.checkpoint(&[]), device.checkpoint(&[])), (0, 0));
    device.space = device.read();
    assert_eq!((device.checkpoint(&[]), device.checkpoint(&[])), (3, 0), "nothing is known of the other copy");
    device.space.hint = 2 * device.space.geometry.map_bits() - 5;
    let extents = device.space.take(10).unwrap();
    assert_eq!(extents.len(), 1);
    assert_eq!((device.checkpoint(&[]), device.checkpoint(&[]), device.checkpoint(&[])), (2, 2, 0), "they are in two pages of the map");
    device.space.forget();
    assert_eq!((device.checkpoint(&[]), device.checkpoint(&[])), (3, 3));
}

#[test]
fn a_map_that_is_not_what_the_checkpoint_wrote_is_told() {
    let mut device = Device::new();
    assert!(device.is_whole(&device.read()));
    let copy = device.copy();
    for byte in [8, MAP_HEADER, MAP_HEADER + 2000, 4095] {
        device.copies[copy][1][byte] ^= 4;
        assert!(!device.is_whole(&device.read()), "byte {byte}");
        device.copies[copy][1][byte] ^= 4;
    }
    device.copies[copy].swap(1, 2);
    assert!(!device.is_whole(&device.read()), "pages in each other's place");
    device.copies[copy].swap(1, 2);

    // Pages that a checkpoint of an earlier time wrote: a disk that lost a write has them.
    let former = device.copies[copy].clone();
    device.space.take(5).unwrap();
    device.checkpoint(&[]);
    device.checkpoint(&[]);
    assert!(device.is_whole(&device.read()));
    device.copies[copy] = former;
    assert!(!device.is_whole(&device.read()), "pages of an earlier time");
}

/// Though all checksums are right: the store would be overwritten by its own values, or count pages that the device does not have.
#[test]
fn a_map_that_cannot_be_is_told() {
    let data_start = geometry(PAGES).data_start();
    for (page, is_whole) in
        [(0, false), (data_start - 1, false), (data_start, true), (PAGES - 1, true), (PAGES, false), (PAGES + 35, false)]
    {
        let mut device = Device::new();
        device.forge(page);
        assert_eq!(device.is_whole(&device.read()), is_whole, "page {page} of {PAGES}");
    }
}

#[test]
fn pages_that_belong_to_the_format_or_to_no_device_are_nobodys() {
    let geometry = geometry(1000);
    let start = geometry.data_start();
    for (page, count, is_right) in [
        (start, 3, true),
        (start - 1, 3, false),
        (start - 2, 2, false),
        (0, 1, false),
        (997, 3, true),
        (997, 4, false),
        (1000, 1, false),
        (u64::MAX, 1, false),
        (u64::MAX - 1, 5, false),
    ] {
        let extent = Extent { page, count };
        let mut space = Space::new(geometry);
        assert_eq!(space.set_all(extent), is_right, "{extent:?}");
        assert!(!space.set_all(extent), "{extent:?} a second time");
        space.release(&[extent]);
        assert_eq!(space.free(), 1000 - start, "{extent:?}");
        assert!((0..start).all(|page| space.is_used(page)), "{extent:?}");
        space.logged(&[extent]);
        let (pages, sum) = space.emit(0, ID, &[extent]);
        space.read_group(0, ID, 0, &pages[0].1);
        assert!(space.is_whole(0, ID, sum), "{extent:?}");
    }
}

#[test]
fn pages_are_taken_in_one_piece_where_nothing_lies_between() {
    let mut space = Space::new(geometry(1000));
    let holes: Vec<Extent> = (0..20).flat_map(|_| space.take(1).unwrap()).collect();
    holes.iter().step_by(2).for_each(|hole| space.release(&[*hole]));
    // What has been free for long is behind, and the holes are for when that is used up.
    let rest = space.take(900).unwrap();
    assert_eq!(rest, [Extent { page: space.geometry.data_start() + 20, count: 900 }]);
    let left = space.free();
    assert_eq!((space.take(left as u32 + 1), space.free()), (None, left), "all or none");
    assert!(space.take(left as u32).unwrap().len() >= 10);
}
