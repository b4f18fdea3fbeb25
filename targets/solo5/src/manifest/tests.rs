use super::*;
use proptest::prelude::*;
use std::vec;

/// What a tender would hand back for a net and a block device.
fn handed_back() -> Vec<u8> {
    let mut bytes = vec![1, 0, 0, 0, 3, 0, 0, 0];
    bytes.resize(8 + 3 * 104, 0);
    bytes[8 + 68..8 + 72].copy_from_slice(&(1u32 << 30).to_le_bytes());
    let net = &mut bytes[8 + 104..8 + 208];
    net[..7].copy_from_slice(b"service");
    net[68] = 2;
    net[72..78].copy_from_slice(&[2, 0, 0, 0, 0, 9]);
    net[78..80].copy_from_slice(&1500u16.to_le_bytes());
    net[88] = 5;
    net[96] = 1;
    let block = &mut bytes[8 + 208..8 + 312];
    block[..4].copy_from_slice(b"disk");
    block[68] = 1;
    block[72..80].copy_from_slice(&(1u64 << 20).to_le_bytes());
    block[80..82].copy_from_slice(&4096u16.to_le_bytes());
    block[88] = 6;
    block[96] = 1;
    bytes
}

fn changed(offset: usize, values: &[u8]) -> Result<Manifest, ManifestError> {
    let mut bytes = handed_back();
    bytes[offset..offset + values.len()].copy_from_slice(values);
    Manifest::read(&bytes)
}

#[test]
fn reads_what_the_tender_attached() {
    let manifest = Manifest::read(&handed_back()).unwrap();
    let service = manifest.find(DeviceKind::Net, "service").unwrap();
    assert_eq!((service.handle, service.host_descriptor), (1, 5));
    assert_eq!(service.properties, Ok(Properties::Net { mac: MacAddress([2, 0, 0, 0, 0, 9]), mtu: 1500, headed: false }));
    let disk = manifest.find(DeviceKind::Block, "disk").unwrap();
    assert_eq!((disk.handle, disk.host_descriptor), (2, 6));
    assert_eq!(disk.properties, Ok(Properties::Block { capacity: 1 << 20, sector_size: 4096, extension: None, read_only: false }));
    assert_eq!(manifest.find(DeviceKind::Net, "disk"), None);
}

#[test]
fn a_block_device_is_more_than_solo5_s_only_where_the_tender_says_so() {
    let larger = Some(Extension { transfer_sizes: [1 << 16, 1 << 20] });
    for (given, expected) in [
        ([0, 0, 0, 0], (None, false)),
        ([1, 16, 20, 0], (larger, false)),
        ([1, 16, 20, 1], (larger, true)),
        ([0, 16, 20, 1], (None, true)),
        ([1, 8, 20, 2], (None, false)),
        ([1, 16, 31, 0], (None, false)),
    ] {
        let manifest = changed(8 + 2 * 104 + 97, &given).unwrap();
        let Ok(Properties::Block { extension, read_only, .. }) = manifest.devices()[1].properties else { panic!("no block device") };
        assert_eq!((extension, read_only), expected, "{given:?}");
    }
}

#[test]
fn frames_have_headers_only_where_the_tender_says_so() {
    // 1 is what the image itself carries, and what Solo5's tenders hand back.
    for (given, expected) in [(0, Framing::Plain), (1, Framing::Plain), (2, Framing::Headed), (3, Framing::Plain)] {
        let manifest = changed(8 + 104 + 97, &[given]).unwrap();
        let (info, framing) = manifest.devices()[0].properties.unwrap().frames().unwrap();
        assert_eq!((framing, info.offload == Offload::FULL), (expected, given == 2));
    }
}

#[test]
fn a_console_is_offered_where_the_tender_says_so() {
    let offers = |value: u8| changed(8 + 97, &[value]).unwrap().offers_console();
    // Solo5's tenders hand back what the image carries, which is 1.
    assert_eq!([offers(0), offers(1), offers(2)], [false, false, true]);
    let is_terminal = |values: [u8; 2]| changed(8 + 97, &values).unwrap().on_terminal();
    assert_eq!([is_terminal([2, 1]), is_terminal([2, 0]), is_terminal([1, 1])], [true, false, false]);
}

#[test]
fn a_broken_manifest_is_refused() {
    assert_eq!(changed(0, &[2]), Err(ManifestError::Version(2)));
    assert_eq!(changed(4, &[0]), Err(ManifestError::Count(0)));
    assert_eq!(changed(4, &[65]), Err(ManifestError::Count(65)));
    assert_eq!(changed(4, &[4]), Err(ManifestError::Truncated));
    assert_eq!(changed(8 + 104, &[b'x'; 68]), Err(ManifestError::Name { handle: 1 }));
    assert_eq!(changed(8 + 104, &[0xff]), Err(ManifestError::Name { handle: 1 }));
    assert_eq!(changed(8 + 208 + 68, &[3]), Err(ManifestError::Kind { handle: 2, kind: 3 }));
    assert_eq!(Manifest::read(&[1, 0, 0]), Err(ManifestError::Truncated));
}

#[test]
fn a_broken_device_is_unusable_and_says_why() {
    let net = |offset: usize, values: &[u8]| changed(8 + 104 + offset, values).unwrap().devices()[0].properties;
    let block = |offset: usize, values: &[u8]| changed(8 + 208 + offset, values).unwrap().devices()[1].properties;
    assert_eq!(net(96, &[0]), Err(Unusable::NotAttached));
    assert_eq!(net(72, &[3]), Err(Unusable::Mac(MacAddress([3, 0, 0, 0, 0, 9]))));
    assert_eq!(net(72, &[0; 6]), Err(Unusable::Mac(MacAddress([0; 6]))));
    assert_eq!(net(78, &[67, 0]), Err(Unusable::Mtu(67)));
    assert_eq!(block(80, &[0, 3]), Err(Unusable::SectorSize(768)));
    assert_eq!(block(80, &[0, 1]), Err(Unusable::SectorSize(256)));
    assert_eq!(block(72, &[1]), Err(Unusable::Capacity((1 << 20) + 1)));
    assert_eq!(block(72, &[0; 8]), Err(Unusable::Capacity(0)));
    assert_eq!(block(72, &[0, 0xf0, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]), Err(Unusable::Capacity(u64::MAX - 0xfff)));
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = Manifest::read(&bytes);
    }

    #[test]
    fn any_change_is_read_or_refused(changes in proptest::collection::vec((0..320usize, any::<u8>()), 1..8)) {
        let mut bytes = handed_back();
        for (offset, value) in changes {
            bytes[offset] = value;
        }
        let _ = Manifest::read(&bytes);
    }
}
