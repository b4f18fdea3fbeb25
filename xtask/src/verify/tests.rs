use super::*;
use fogbow_tender::elf;
use fogbow_tender::manifest::DeviceKind;
use fogbow_tender::testing::ImageWriter;
use proptest::prelude::*;

fn resolved(target: Target) -> Resolved {
    let text = "name = 'a'\ndevice = [{ kind = 'net', name = 'wire' }, { kind = 'kv_rw', name = 'state' }]";
    Resolved::new(&crate::manifest::Manifest::parse(text).unwrap(), target, &[]).unwrap()
}

fn image() -> ImageWriter {
    let device = Device::new(Name::new("wire").unwrap(), DeviceKind::Net);
    ImageWriter { manifest: Manifest::new(vec![device]).unwrap().taking_console(), ..ImageWriter::new(elf::Target::Spt, 2) }
}

fn tender_problem(file: &[u8], target: Target) -> String {
    check_as_tender(file, &resolved(target)).unwrap_err().to_string()
}

#[test]
fn an_image_with_the_manifest_of_its_application_passes() {
    let verified = check_as_tender(&image().write(), &resolved(Target::Spt)).unwrap();
    assert_eq!(verified.manifest.to_string(), "net 'wire'");
}

#[test]
fn an_image_for_something_else_is_refused() {
    assert!(tender_problem(&image().write(), Target::Hvt).contains("the image is for spt"));
    let other = ImageWriter { manifest: Manifest::default(), ..image() };
    assert_eq!(tender_problem(&other.write(), Target::Spt), "the manifest declares no device, and unikernel.toml asks for net 'wire'");
    let elsewhere = ImageWriter { target: elf::Target::Muen, version: 4, ..image() };
    assert!(tender_problem(&elsewhere.write(), Target::Muen).contains("its code does not begin at 0x200000"));
    let old = ImageWriter { version: 1, ..image() };
    assert!(tender_problem(&old.write(), Target::Spt).contains("version 1"));
}

#[test]
fn notes_must_be_three_and_in_order() {
    // The tender's own test image does without the note for OpenBSD, which a tender does not look at.
    let error = check_contents(&image().write(), Target::Spt).unwrap_err().to_string();
    assert_eq!(error, "its notes are Solo5 0x31494241, Solo5 0x3154464d, and OpenBSD 0x1, Solo5 0x31494241, Solo5 0x3154464d are wanted");
}

#[test]
fn a_shared_object_has_the_manifest_of_its_application_and_keeps_to_genodes_limits() {
    use fogbow_genode_tender::testing::ImageWriter;

    let file = ImageWriter { manifest: image().manifest, ..ImageWriter::new() }.write();
    let judged = |file: &[u8]| verify(file, file, &resolved(Target::Genode)).map_err(|error| format!("{error:#}"));
    assert_eq!(judged(&file).unwrap().manifest.to_string(), "net 'wire'");
    let other = judged(&ImageWriter::new().write()).unwrap_err();
    assert_eq!(other, "the manifest declares no device, and unikernel.toml asks for net 'wire'");
    let mut entered = file.clone();
    entered[24] = 1;
    assert!(judged(&entered).unwrap_err().contains("its entry point is 0x1"));
    let stripped = verify(&file, &entered, &resolved(Target::Genode)).map_err(|error| format!("{error:#}")).unwrap_err();
    assert!(stripped.starts_with("after stripping: its entry point is 0x1"), "{stripped}");
}

/// A program of the host: with shared libraries, thread-local storage and everything else that an image must not have.
fn program() -> Vec<u8> {
    std::fs::read("/proc/self/exe").unwrap()
}

#[test]
fn a_program_is_no_image() {
    let program = program();
    assert!(check_contents(&program, Target::Spt).is_err());
    let file = ElfFile64::<Endianness>::parse(&program[..]).unwrap();
    let error = check_program_headers(&file, &TENDER_NOTES).unwrap_err().to_string();
    assert!(error.contains("dynamic section") || error.contains("program header of type"), "{error}");
    let error = check_sections(&file).unwrap_err().to_string();
    assert!(error.starts_with("it has a section ."), "{error}");
    let error = check_symbols(&file).unwrap_err().to_string();
    assert!(error.starts_with("it has undefined symbols: "), "{error}");
}

proptest! {
    #[test]
    fn a_damaged_image_is_judged_without_a_panic(places in prop::collection::vec((0..0x400usize, any::<u8>()), 1..6)) {
        let mut file = image().write();
        for (place, byte) in places {
            if let Some(there) = file.get_mut(place) {
                *there = byte;
            }
        }
        let _ = verify(&file, &file, &resolved(Target::Spt));
    }
}
