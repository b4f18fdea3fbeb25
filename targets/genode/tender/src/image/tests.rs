use super::*;
use crate::testing::{CODE, DYNAMIC, ImageWriter, NOTE_AT, POINTERS, RELOCATIONS, address, header, put, put_words, string, symbol};
use fogbow_tender::manifest::{Device, Name};
use proptest::prelude::*;

fn image(devices: &[(&str, DeviceKind)]) -> Vec<u8> {
    let device = |&(name, kind): &(&str, DeviceKind)| Device { name: Name::new(name).unwrap(), kind, takes_headers: false };
    ImageWriter { manifest: Manifest::new(devices.iter().map(device).collect()).unwrap(), ..ImageWriter::new() }.write()
}

/// What is said of an image after `change`.
fn refusal(change: impl FnOnce(&mut Vec<u8>)) -> ImageError {
    let mut file = image(&[("service", DeviceKind::Net)]);
    change(&mut file);
    Image::read(&file).map(|_| ()).unwrap_err()
}

#[test]
fn an_image_is_read_loaded_and_relocated() {
    let file = image(&[("service", DeviceKind::Net), ("disk", DeviceKind::Block)]);
    let image = Image::read(&file).unwrap();
    assert_eq!(image.manifest().to_string(), "net 'service', block 'disk'");
    assert_eq!(image.addresses(), BASE..BASE + 0xb000);
    let mut bytes = vec![0; 0xb000];
    let main = image.load(&mut GuestMemory::new(BASE, &mut bytes), |name| (name == "solo5_exit").then_some(0x1234)).unwrap();
    assert_eq!(main, address(CODE));
    let pointers: Vec<u64> = (0..3).map(|index| number::<8>(&bytes, POINTERS + 8 * index).unwrap()).collect();
    assert_eq!(pointers, [0x1234, address(CODE), address(CODE) + 5]);
    let missing = image.load(&mut GuestMemory::new(BASE, &mut bytes), |_| None);
    assert_eq!(missing, Err(ImageError::Import("solo5_exit".into())));
    let little = image.load(&mut GuestMemory::new(BASE, &mut bytes[..0x9000]), |_| Some(0));
    assert_eq!(little, Err(ImageError::Outside("segment")));
}

#[test]
fn headers_are_those_that_the_linker_takes() {
    assert_eq!(refusal(|file| file.truncate(40)), ImageError::NotElf);
    assert_eq!(refusal(|file| file[18] = 3), ImageError::NotElf);
    assert_eq!(refusal(|file| file[16] = 2), ImageError::Type(2));
    assert_eq!(refusal(|file| file[24] = 1), ImageError::Entry(1));
    assert_eq!(refusal(|file| file[56] = 11), ImageError::ProgramHeaders(11));
    assert!(matches!(refusal(|file| header(file, 3, 3, 4, 0, 1, 1)), ImageError::Forbidden(name) if name.contains("PT_INTERP")));
    assert!(matches!(refusal(|file| header(file, 3, 7, 4, 0, 1, 1)), ImageError::Forbidden(name) if name.contains("PT_TLS")));
    assert!(matches!(refusal(|file| header(file, 2, 4, 4, NOTE_AT, 24, 24)), ImageError::Missing(name) if name.contains("PT_DYNAMIC")));
    assert_eq!(refusal(|file| put(file, NOTE_AT + 8, &0x3149_4241u32.to_le_bytes())), ImageError::AbiNote);
}

#[test]
fn segments_have_the_rights_places_and_alignment_that_the_linker_takes() {
    assert_eq!(refusal(|file| file[68] = 4), ImageError::Rights("R--, RW-".into()));
    assert_eq!(refusal(|file| file[68] = 7), ImageError::Rights("RWX, RW-".into()));
    assert_eq!(refusal(|file| header(file, 2, 1, 6, 0, 0, 0)), ImageError::Rights("R-X, RW-, RW-".into()));
    assert_eq!(refusal(|file| put_words(file, 64 + 16, &[0])), ImageError::Base(0));
    let (address, second) = (BASE + 0x9000, 64 + 56);
    assert_eq!(refusal(|file| put_words(file, second + 48, &[0x800])), ImageError::Alignment { address, alignment: 0x800 });
    assert_eq!(refusal(|file| put_words(file, second + 8, &[0x9010])), ImageError::PageStart { address, offset: 0x9010 });
    assert_eq!(refusal(|file| put_words(file, second + 16, &[BASE + 0x8000])), ImageError::Size(BASE + 0x8000));
    assert_eq!(refusal(|file| put_words(file, second + 40, &[u64::MAX])), ImageError::Size(address));
    assert_eq!(refusal(|file| file.truncate(0x9800)), ImageError::Outside("segment"));
}

#[test]
fn the_dynamic_section_is_what_the_linker_needs() {
    let tag = |index: usize, tag: u64| move |file: &mut Vec<u8>| put_words(file, DYNAMIC + 16 * index, &[tag]);
    assert!(matches!(refusal(tag(1, 0x6fff_fef5)), ImageError::Missing(name) if name.contains("DT_HASH")));
    assert!(matches!(refusal(tag(2, 99)), ImageError::Missing(name) if name.contains("DT_STRTAB")));
    assert!(matches!(refusal(tag(3, 99)), ImageError::Missing(name) if name.contains("DT_SYMTAB")));
    assert!(matches!(refusal(tag(6, 25)), ImageError::Forbidden(name) if name.contains("DT_INIT_ARRAY")));
    assert!(matches!(refusal(tag(6, 22)), ImageError::Forbidden(name) if name.contains("DT_TEXTREL")));
    assert_eq!(refusal(tag(0, 99)), ImageError::Needed(String::new()));
    let path = refusal(|file| put_words(file, DYNAMIC, &[1, string("lib.so")]));
    assert_eq!(path, ImageError::Needed("lib.so".into()));
    let two = refusal(|file| put_words(file, DYNAMIC + 16 * 7, &[1, string("solo5.lib.so")]));
    assert_eq!(two, ImageError::Needed("solo5.lib.so, solo5.lib.so".into()));
}

#[test]
fn symbols_and_relocations_are_those_that_exist_on_genode() {
    assert_eq!(refusal(|file| symbol(file, 1, "strlen", 0, None, 0)), ImageError::Import("strlen".into()));
    assert_eq!(refusal(|file| symbol(file, 2, "solo5_exit", 2, Some(CODE), 0)), ImageError::Export("solo5_app_main"));
    assert_eq!(refusal(|file| symbol(file, 3, "__solo5_mft1_note", 2, Some(NOTE_AT), 0)), ImageError::Export("__solo5_mft1_note"));
    let place = address(POINTERS);
    // R_X86_64_DTPMOD64 and R_X86_64_IRELATIVE.
    for kind in [16, 37] {
        let error = refusal(|file| put_words(file, RELOCATIONS + 8, &[u64::from(kind)]));
        assert_eq!(error, ImageError::Relocation { kind, address: place });
    }
    for place in [address(CODE), BASE + 0xaff9, u64::MAX] {
        assert_eq!(refusal(|file| put_words(file, RELOCATIONS, &[place])), ImageError::RelocationPlace(place));
    }
}

#[test]
fn the_manifest_is_one_that_the_library_understands() {
    assert_eq!(refusal(|file| file[NOTE_AT] = 5), ImageError::ManifestNote);
    assert_eq!(refusal(|file| file[NOTE_AT + 24] = 9), ImageError::Manifest(fogbow_tender::manifest::ManifestError::Version(9)));
    let names: Vec<String> = (1..=31).map(|number| format!("device{number}")).collect();
    let devices = |last| names.iter().enumerate().map(move |(index, name)| (&**name, if index == 30 { last } else { DeviceKind::Net }));
    assert!(Image::read(&image(&devices(DeviceKind::Block).collect::<Vec<_>>())).is_ok());
    let error = Image::read(&image(&devices(DeviceKind::Net).collect::<Vec<_>>())).map(|_| ()).unwrap_err();
    assert_eq!(error, ImageError::NetHandle("device31".into(), 31));
}

proptest! {
    #[test]
    fn a_damaged_image_is_judged_and_loaded_without_a_panic(
        places in prop::collection::vec((prop_oneof![0..0x400usize, 0x8000..0x8400usize, 0x9000..0x9200usize], any::<u8>()), 1..6),
        length in 0..0xa001usize,
        is_cut in prop::bool::weighted(0.1),
    ) {
        let mut file = image(&[("service", DeviceKind::Net)]);
        for (place, byte) in places {
            file[place] = byte;
        }
        if is_cut {
            file.truncate(length);
        }
        if let Ok(image) = Image::read(&file) {
            let mut bytes = vec![0; 0x10000];
            let _ = image.load(&mut GuestMemory::new(BASE, &mut bytes), |_| Some(0));
        }
    }
}
