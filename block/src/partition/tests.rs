use super::*;
use crate::Ram;
use alloc::rc::Rc;
use fogbow::simulation::Simulation;
use gpt_disk_io::BlockIoAdapter;
use gpt_disk_io::gpt_disk_types::{GptPartitionEntry, GptPartitionEntryArray, GptPartitionType, LbaLe, U32Le};
use proptest::prelude::*;

const SECTORS: u64 = 256;

/// A disk with a GPT of two partitions, made by gpt_disk_io.
fn gpt() -> Vec<u8> {
    let mut image = vec![0; SECTORS as usize * 512];
    let mut buffer = vec![0; 512];
    let mut primary = GptHeader {
        my_lba: LbaLe::from_u64(1),
        alternate_lba: LbaLe::from_u64(SECTORS - 1),
        first_usable_lba: LbaLe::from_u64(34),
        last_usable_lba: LbaLe::from_u64(SECTORS - 34),
        partition_entry_lba: LbaLe::from_u64(2),
        number_of_partition_entries: U32Le::from_u32(128),
        ..GptHeader::default()
    };
    let layout = primary.get_partition_entry_array_layout().unwrap();
    let mut storage = vec![0; 32 * 512];
    let mut array = GptPartitionEntryArray::new(layout, BlockSize::BS_512, &mut storage).unwrap();
    for (index, range, name) in [(0, 40..50, "boot"), (4, 50..200, "data")] {
        *array.get_partition_entry_mut(index).unwrap() = GptPartitionEntry {
            partition_type_guid: GptPartitionType::BASIC_DATA,
            starting_lba: LbaLe::from_u64(range.start),
            ending_lba: LbaLe::from_u64(range.end - 1),
            name: name.parse().unwrap(),
            ..GptPartitionEntry::default()
        };
    }
    primary.partition_entry_array_crc32 = array.calculate_crc32();
    primary.update_header_crc32();
    let mut secondary = GptHeader {
        my_lba: primary.alternate_lba,
        alternate_lba: primary.my_lba,
        partition_entry_lba: LbaLe::from_u64(SECTORS - 33),
        ..primary
    };
    secondary.update_header_crc32();
    let mut disk = Disk::new(BlockIoAdapter::new(image.as_mut_slice(), BlockSize::BS_512)).unwrap();
    disk.write_protective_mbr(&mut buffer).unwrap();
    disk.write_primary_gpt_header(&primary, &mut buffer).unwrap();
    disk.write_secondary_gpt_header(&secondary, &mut buffer).unwrap();
    disk.write_gpt_partition_entry_array(&array).unwrap();
    array.set_start_lba(Lba(SECTORS - 33));
    disk.write_gpt_partition_entry_array(&array).unwrap();
    drop(disk);
    image
}

fn disk(image: &[u8]) -> Rc<Ram> {
    let disk = Ram::new("disk", 512, (image.len() / 512) as u64).unwrap();
    assert!(disk.write_now(0, image));
    Rc::new(disk)
}

#[test]
fn a_gpt_is_read_and_its_second_copy_when_the_first_is_damaged() {
    Simulation::new(1).block_on(async {
        let mut image = gpt();
        let table = Table::read(disk(&image)).await.unwrap();
        assert_eq!(table.kind, TableKind::Gpt { is_backup: false });
        let found: Vec<_> = table.partitions.iter().map(|p| (p.number, p.range.clone(), p.name.as_str())).collect();
        assert_eq!(found, [(1, 40..50, "boot"), (5, 50..200, "data")]);
        for wanted in ["5", "data"] {
            let view = open(disk(&image), wanted).await.unwrap();
            assert_eq!((view.name(), view.info().sectors), ("disk, partition 5", 150));
        }
        let error = open(disk(&image), "9").await.unwrap_err();
        assert_eq!(error.to_string(), "block device 'disk' has no partition '9'; it has 1 (boot), 5 (data)");
        // A header that was damaged: all that its checksum covers.
        for at in [0, 40, 73] {
            let mut damaged = image.clone();
            damaged[512 + at] ^= 1;
            assert_eq!(Table::read(disk(&damaged)).await.unwrap().kind, TableKind::Gpt { is_backup: true }, "byte {at}");
        }
        image[2 * 512 + 200] ^= 1;
        let backup = Table::read(disk(&image)).await.unwrap();
        assert_eq!((backup.kind, backup.partitions), (TableKind::Gpt { is_backup: true }, table.partitions));
        image[255 * 512 + 80] ^= 1;
        assert!(matches!(Table::read(disk(&image)).await, Err(PartitionError::Damaged { .. })));
    });
}

/// Overwrites a part of both headers and makes their checksums right again.
fn forged(offset: usize, bytes: &[u8]) -> Vec<u8> {
    let mut image = gpt();
    for at in [512, 255 * 512] {
        let header = &mut image[at..at + 92];
        header[offset..offset + bytes.len()].copy_from_slice(bytes);
        header[16..20].fill(0);
        let sum = header.iter().fold(u32::MAX, |sum, byte| {
            (0..8).fold(sum ^ u32::from(*byte), |sum, _| if sum & 1 == 1 { sum >> 1 ^ 0xedb8_8320 } else { sum >> 1 })
        });
        header[16..20].copy_from_slice(&(!sum).to_le_bytes());
    }
    image
}

/// What a table says of its size is believed as far as memory goes; what is no table has another signature.
#[test]
fn forged_headers_are_refused() {
    Simulation::new(1).block_on(async {
        assert!(Table::read(disk(&forged(0, b"EFI PART"))).await.is_ok());
        for (offset, bytes, reason) in
            [(0, &b"EFI PARU"[..], "its header has a wrong signature or checksum"), (80, &[0xff, 0xff, 0xff, 0], "it has too many entries")]
        {
            let error = Table::read(disk(&forged(offset, bytes))).await.unwrap_err();
            assert_eq!(error, PartitionError::Damaged { device: "disk".into(), reason });
        }
    });
}

#[test]
fn an_mbr_is_read_and_what_leaves_the_disk_is_refused() {
    Simulation::new(1).block_on(async {
        let mut image = vec![0; 64 * 512];
        assert!(matches!(Table::read(disk(&image)).await, Err(PartitionError::NoTable { .. })));
        image[510..512].copy_from_slice(&MBR_SIGNATURE);
        image[MBR_ENTRIES + 4] = 0x83;
        image[MBR_ENTRIES + 8] = 8;
        image[MBR_ENTRIES + 12] = 16;
        image[MBR_ENTRIES + 32 + 4] = 0x0c;
        image[MBR_ENTRIES + 32 + 8] = 24;
        image[MBR_ENTRIES + 32 + 12] = 41;
        let table = Table::read(disk(&image)).await.unwrap();
        let found: Vec<_> = table.partitions.iter().map(|p| (p.number, p.range.clone(), p.kind.as_str())).collect();
        assert_eq!((table.kind, found), (TableKind::Mbr, vec![(1, 8..24, "83"), (3, 24..65, "0c")]));
        assert_eq!(open(disk(&image), "1").await.unwrap().info().sectors, 16);
        assert!(matches!(open(disk(&image), "3").await, Err(PartitionError::Range(_))));
    });
}

proptest! {
    /// Whatever bytes a table is damaged with, nothing panics, and a partition that opens lies on the disk.
    #[test]
    fn damaged_tables_are_errors_or_read(changes in proptest::collection::vec((0_usize..34 * 512, any::<u8>()), 0..40)) {
        Simulation::new(1).block_on(async move {
            let mut image = gpt();
            for (at, byte) in changes {
                image[at] = byte;
            }
            let disk = disk(&image);
            if let Ok(table) = Table::read(Rc::clone(&disk)).await {
                for partition in table.partitions {
                    if let Ok(view) = open(Rc::clone(&disk), &partition.number.to_string()).await {
                        assert!(partition.range.end <= SECTORS && view.info().sectors <= SECTORS);
                    }
                }
            }
        });
    }
}
