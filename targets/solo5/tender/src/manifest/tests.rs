use proptest::prelude::*;

use super::*;

fn device(name: &str, kind: DeviceKind) -> Device {
    Device::new(Name::new(name).expect("a valid name"), kind)
}

fn two_devices() -> Manifest {
    Manifest::new(vec![device("service", DeviceKind::Net), device("storage", DeviceKind::Block)]).expect("two devices")
}

fn entry_field(entry: usize, offset: usize) -> usize {
    HEADER_SIZE + entry * ENTRY_SIZE + offset
}

fn parse_changed(offset: usize, bytes: &[u8]) -> Result<Manifest, ManifestError> {
    let mut manifest = two_devices().emit();
    manifest[offset..offset + bytes.len()].copy_from_slice(bytes);
    Manifest::parse(&manifest)
}

#[test]
fn attached_devices_are_laid_out_as_the_abi_says() {
    let attachments = [
        Attachment { properties: Properties::Net { mac: [2, 1, 2, 3, 4, 5], mtu: 0x1234, headed: true }, descriptor: 7 },
        Attachment {
            properties: Properties::Block { capacity: 0x0102_0304_0506_0708, block_size: 0x1000, extended: false, read_only: true },
            descriptor: -1,
        },
    ];
    let bytes = two_devices().emit_attached(&attachments);
    assert_eq!(bytes.len(), 8 + 3 * 104);
    assert_eq!(bytes[..8], [1, 0, 0, 0, 3, 0, 0, 0]);
    let reserved = &bytes[8..112];
    assert_eq!(reserved[68..72], [0, 0, 0, 0x40]);
    assert!(reserved[..68].iter().chain(&reserved[72..]).all(|&byte| byte == 0));
    let net = &bytes[112..216];
    assert_eq!(net[..8], *b"service\0");
    assert_eq!(net[68..72], [2, 0, 0, 0]);
    assert_eq!(net[72..80], [2, 1, 2, 3, 4, 5, 0x34, 0x12]);
    assert_eq!(net[88..92], [7, 0, 0, 0]);
    assert_eq!(net[96..104], [1, 2, 0, 0, 0, 0, 0, 0]);
    let block = &bytes[216..];
    assert_eq!(block[68..72], [1, 0, 0, 0]);
    assert_eq!(block[72..82], [8, 7, 6, 5, 4, 3, 2, 1, 0, 0x10]);
    assert_eq!(block[88..92], [0xff; 4]);
    assert_eq!(block[96..104], [1, 0, 0, 0, 1, 0, 0, 0]);
}

#[test]
fn a_console_is_offered_to_who_can_take_it() {
    let place = entry_field(0, 97);
    let taking = two_devices().taking_console();
    assert_eq!((taking.emit()[place], taking.emit_attached(&[])[place]), (1, 2));
    assert_eq!(Manifest::parse(&taking.emit()), Ok(taking));
    let on_terminal = two_devices().taking_console().on_terminal(true);
    assert_eq!((&on_terminal.emit()[place..place + 2], &on_terminal.emit_attached(&[])[place..place + 2]), (&[1, 0][..], &[2, 1][..]));
    assert_eq!((two_devices().emit()[place], two_devices().emit_attached(&[])[place]), (0, 0));
}

#[test]
fn devices_beyond_the_attachments_are_not_attached() {
    let attachment = Attachment { properties: Properties::Net { mac: [2; 6], mtu: 1500, headed: false }, descriptor: 3 };
    let bytes = two_devices().emit_attached(&[attachment]);
    assert_eq!((bytes[entry_field(1, 96)], bytes[entry_field(2, 96)]), (1, 0));
}

#[test]
fn each_rule_is_kept() {
    assert_eq!(parse_changed(0, &[2]), Err(ManifestError::Version(2)));
    assert_eq!(parse_changed(4, &[0]), Err(ManifestError::Count(0)));
    assert_eq!(parse_changed(4, &[65]), Err(ManifestError::Count(65)));
    assert_eq!(parse_changed(4, &[2]), Err(ManifestError::Size { found: 320, expected: 216 }));
    assert_eq!(parse_changed(entry_field(0, 0), b"x"), Err(ManifestError::ReservedFirst));
    assert_eq!(parse_changed(entry_field(0, 68), &[1, 0, 0, 0]), Err(ManifestError::ReservedFirst));
    assert_eq!(parse_changed(entry_field(1, 68), &[3]), Err(ManifestError::Type { index: 1, number: 3 }));
    assert_eq!(parse_changed(entry_field(1, 0), &[0]), Err(ManifestError::Name(1)));
    assert_eq!(parse_changed(entry_field(1, 0), b"a-b\0"), Err(ManifestError::Name(1)));
    assert_eq!(parse_changed(entry_field(2, 0), &[b'a'; 68]), Err(ManifestError::Name(2)));
    assert_eq!(parse_changed(entry_field(2, 96), &[1]), Err(ManifestError::AlreadyAttached(2)));
    assert_eq!(Manifest::parse(&[1, 0, 0]), Err(ManifestError::Size { found: 3, expected: 8 }));
    let twice = vec![device("a", DeviceKind::Net), device("a", DeviceKind::Block), device("a", DeviceKind::Net)];
    assert_eq!(Manifest::new(twice), Err(ManifestError::Duplicate(device("a", DeviceKind::Net))));
}

#[test]
fn sixty_three_devices_are_the_most() {
    let devices = |count: usize| (0..count).map(|index| device(&format!("d{index}"), DeviceKind::Block)).collect::<Vec<_>>();
    let most = Manifest::new(devices(63)).expect("63 devices");
    assert_eq!(Manifest::parse(&most.emit()), Ok(most));
    assert_eq!(Manifest::new(devices(64)), Err(ManifestError::Count(65)));
}

#[test]
fn a_manifest_reads_well() {
    assert_eq!(two_devices().to_string(), "net 'service', block 'storage'");
    assert_eq!(Manifest::default().to_string(), "no device");
}

fn any_manifest() -> impl Strategy<Value = Manifest> {
    let kind = prop_oneof![Just(DeviceKind::Net), Just(DeviceKind::Block)];
    let devices = prop::collection::hash_set(("[A-Za-z0-9]{1,67}", kind), 0..MAX_ENTRIES);
    devices.prop_map(|devices| {
        let devices = devices.into_iter().map(|(name, kind)| device(&name, kind)).collect();
        Manifest::new(devices).expect("different devices, and not too many")
    })
}

proptest! {
    #[test]
    fn parsing_gives_back_what_was_emitted(manifest in any_manifest()) {
        prop_assert_eq!(Manifest::parse(&manifest.emit()), Ok(manifest));
    }

    #[test]
    fn changed_bytes_are_an_error_or_a_manifest_that_is_emitted_alike(
        manifest in any_manifest(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4),
    ) {
        let mut bytes = manifest.emit();
        for (index, value) in changes {
            let index = index.index(bytes.len());
            bytes[index] = value;
        }
        if let Ok(parsed) = Manifest::parse(&bytes) {
            prop_assert_eq!(Manifest::parse(&parsed.emit()), Ok(parsed));
        }
    }
}
