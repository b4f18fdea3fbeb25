//! The component description that Muen's tools take: what a subject that runs an image has of memory, channels and events.
//!
//! It is written beside the image, in the format of a system policy's components (`libmuxml/schema/component.xsd` of Muen's tools, of 2026). Two of Muen's own
//! component libraries bring the debug log and the time of day. A system's policy names a subject that realises the component, maps its channels and its
//! event to its own, and gives the arguments as the subject's `bootparams`.

use std::fmt::Write as _;

use anyhow::ensure;
use fogbow_muen_interface::boot::{EXIT_EVENT, IMAGE, INFO, INFO_SIZE};
use fogbow_muen_interface::muennet::{CHANNEL_SIZE, IN, OUT};
use fogbow_muen_interface::sinfo::MAX_NAME;
use fogbow_tender::elf::{Layout, PAGE_SIZE};
use fogbow_tender::manifest::DeviceKind;

use crate::resolve::Resolved;

/// Mebibytes of the subject's memory beyond its image.
const MEMORY: u64 = 64;

/// Where the channels begin: beyond any memory that the description may be given.
const CHANNELS: u64 = 1 << 32;

/// Characters of the longest name of a component: `nameType` of `types.xsd`.
const LONGEST_NAME: usize = MAX_NAME;

/// Characters of the longest name of a network device, of which the names of channels are made.
const LONGEST_DEVICE: usize = LONGEST_NAME - OUT.len();

/// Exceptions that go to the subject's own handlers (`exceptionType` of `vcpu.xsd`).
const EXCEPTIONS: [&str; 17] = [
    "DivideError",
    "Debug",
    "Breakpoint",
    "Overflow",
    "BOUNDRangeExceeded",
    "InvalidOpcode",
    "DeviceNotAvailable",
    "DoubleFault",
    "CoprocessorSegmentOverrun",
    "InvalidTSS",
    "SegmentNotPresent",
    "StackSegmentFault",
    "GeneralProtection",
    "PageFault",
    "x87FPUFloatingPointError",
    "AlignmentCheck",
    "SIMDFloatingPointException",
];

/// Checks that the application `name` with these network devices has names that Muen's tools take, and that the subject information has room for.
pub(crate) fn check_names<'a>(name: &str, devices: impl Iterator<Item = &'a str>) -> anyhow::Result<()> {
    ensure!(
        name.len() <= LONGEST_NAME,
        "its name has {} characters, and on muen {LONGEST_NAME} are allowed: choose a shorter one",
        name.len()
    );
    for device in devices {
        let length = device.len();
        ensure!(
            length <= LONGEST_DEVICE,
            "device '{device}': its name has {length} characters, and on muen, where channels are named after it, {LONGEST_DEVICE} are allowed: \
             choose a shorter one"
        );
    }
    Ok(())
}

/// Checks what Muen's tools ask of an image's layout besides what every image is.
pub(crate) fn check(layout: &Layout, size: u64) -> anyhow::Result<()> {
    let first = layout.segments.first().map(|segment| (segment.pages.start, segment.protection.execute));
    ensure!(first == Some((IMAGE, true)), "its code does not begin at {IMAGE:#x}, where an image for Muen does");
    ensure!(
        layout.entry == IMAGE,
        "its entry point is {:#x}, and for a subject that is reset it has to be the first byte of its code",
        layout.entry
    );
    for segment in &layout.segments {
        let length = segment.contents.end - segment.contents.start;
        let starts = segment.contents.start % PAGE_SIZE == 0 && (length == 0 || segment.file_offset % PAGE_SIZE == 0);
        ensure!(starts, "the segment at {:#x} does not begin with a page, in memory and in the file", segment.contents.start);
        let is_one = length == 0 || length == segment.pages.end - segment.pages.start;
        ensure!(is_one, "the segment at {:#x} is neither all bytes of the file nor all zeros", segment.contents.start);
        ensure!(length == 0 || segment.file_offset + length <= size, "the segment at {:#x} ends beyond the file", segment.contents.start);
    }
    Ok(())
}

/// The description of an application's image `file` with this layout.
pub(crate) fn description(resolved: &Resolved, file: &str, layout: &Layout) -> String {
    let name = &resolved.manifest.name;
    let mut text = format!(
        "<!--\n  {name} on Muen: the description of its component. Made by the builder; changes here are lost.\n\n  The image's \
         arguments are the subject's bootparams. The size of the memory named ram may be changed, up to where the channels begin.\n-->\n"
    );
    let _ = write!(
        text,
        "<component name=\"{name}\" profile=\"native\">\n  <config>\n    <string name=\"bootparams\" value=\"\"/>\n  </config>\n  <depends>\n    \
         <library ref=\"libmudebuglog\"/>\n    <library ref=\"libmutime\"/>\n  </depends>\n  <requires>\n"
    );
    processor(&mut text, layout);
    channels(&mut text, resolved);
    let _ = write!(
        text,
        "    <events>\n      <source>\n        <event logical=\"{EXIT_EVENT}\" id=\"0\"/>\n      </source>\n    </events>\n  </requires>\n  <provides>\n"
    );
    memory(&mut text, name, file, layout);
    text.push_str("  </provides>\n</component>\n");
    text
}

/// How the subject's processor begins, and which exceptions it handles itself.
fn processor(text: &mut String, layout: &Layout) {
    text.push_str("    <vcpu>\n      <x86_64>\n        <vmx>\n          <masks>\n            <exception>\n");
    for exception in EXCEPTIONS {
        let _ = writeln!(text, "              <{exception}>0</{exception}>");
    }
    let _ = write!(
        text,
        "            </exception>\n          </masks>\n        </vmx>\n        <registers>\n          <gpr>\n            <rip>{}</rip>\n            \
         <rsp>{}</rsp>\n            <rdi>{}</rdi>\n          </gpr>\n          <cr4>\n            \
         <OSSupportSIMDExceptions>1</OSSupportSIMDExceptions>\n          </cr4>\n        </registers>\n      </x86_64>\n    </vcpu>\n",
        number(layout.entry),
        number(layout.end + (MEMORY << 20) - 8),
        number(INFO)
    );
}

/// A pair of channels for each network device.
fn channels(text: &mut String, resolved: &Resolved) {
    let ends = resolved.host_devices().filter(|(_, kind)| *kind == DeviceKind::Net).flat_map(|(device, _)| {
        let name = &device.device.name;
        [("reader", format!("{name}{IN}")), ("writer", format!("{name}{OUT}"))]
    });
    let ends: Vec<_> = (0..).zip(ends).collect();
    if ends.is_empty() {
        return;
    }
    text.push_str("    <channels>\n");
    for (index, (role, name)) in ends {
        let (address, size) = (number(CHANNELS + index * CHANNEL_SIZE), number(CHANNEL_SIZE));
        let _ = writeln!(text, "      <{role} logical=\"{name}\" virtualAddress=\"{address}\" size=\"{size}\"/>");
    }
    text.push_str("    </channels>\n");
}

/// The boot information, the image's segments, and the memory beyond.
fn memory(text: &mut String, name: &str, file: &str, layout: &Layout) {
    let mut region = |logical: &str, address: u64, size: u64, rights: (bool, bool), kind: &str, content: &str| {
        let (writable, executable) = rights;
        let _ = write!(
            text,
            "    <memory logical=\"{logical}\" virtualAddress=\"{}\" size=\"{}\" executable=\"{executable}\" writable=\"{writable}\" \
             type=\"{kind}\"{}",
            number(address),
            number(size),
            if content.is_empty() { "/>\n".to_owned() } else { format!(">\n      {content}\n    </memory>\n") }
        );
    };
    let boot_info = format!("<file filename=\"{name}_bi\" offset=\"none\"/>");
    region("boot_info", INFO, INFO_SIZE as u64, (false, false), "subject_solo5_boot_info", &boot_info);
    for segment in &layout.segments {
        let (size, is_zeros) = (segment.pages.end - segment.pages.start, segment.contents.is_empty());
        let logical = match (segment.protection.execute, segment.protection.write, is_zeros) {
            // The name by which Muen's start-up code finds where to jump to.
            (true, ..) => "text".to_owned(),
            (false, false, _) => "rodata".to_owned(),
            (false, true, false) => "data".to_owned(),
            (false, true, true) => format!("zeros_{:x}", segment.pages.start),
        };
        let content = match is_zeros {
            true => "<fill pattern=\"16#00#\"/>".to_owned(),
            false => format!("<file filename=\"{file}\" offset=\"{}\"/>", number(segment.file_offset)),
        };
        let rights = (segment.protection.write, segment.protection.execute);
        region(&logical, segment.pages.start, size, rights, "subject_binary", &content);
    }
    region("ram", layout.end, MEMORY << 20, (true, false), "subject", "");
}

/// A number as Ada has it: sixteen's digits in groups of four.
fn number(value: u64) -> String {
    let groups: Vec<String> = (0..4).rev().map(|group| format!("{:04x}", value >> (16 * group) & 0xffff)).collect();
    let first = groups.iter().position(|group| group != "0000").unwrap_or(3);
    format!("16#{}#", groups[first..].join("_"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::Manifest;
    use crate::resolve::Target;
    use fogbow_tender::elf::{Protection, Segment};

    fn layout() -> Layout {
        let segment = |index, file_offset, contents: core::ops::Range<u64>, pages, write, execute| Segment {
            index,
            file_offset,
            contents,
            pages,
            protection: Protection { read: true, write, execute },
        };
        let segments = vec![
            segment(0, 0x1000, IMAGE..0x20_4000, IMAGE..0x20_4000, false, true),
            segment(1, 0x5000, 0x20_4000..0x20_5000, 0x20_4000..0x20_5000, false, false),
            segment(2, 0, 0x20_6000..0x20_6000, 0x20_6000..0x24_6000, true, false),
            segment(3, 0x6000, 0x24_6000..0x24_7000, 0x24_6000..0x24_7000, true, false),
        ];
        Layout { entry: IMAGE, end: 0x24_7000, segments }
    }

    fn description_of(devices: &str) -> String {
        let manifest = Manifest::parse(&format!("name = \"app\"\ndevice = [{devices}]")).unwrap();
        description(&Resolved::new(&manifest, Target::Muen, &[]).unwrap(), "app.muen", &layout())
    }

    #[test]
    fn memory_channels_and_events_are_described() {
        let text = description_of("{ kind = 'net', name = 'one' }, { kind = 'stack', name = 'two' }");
        for part in [
            "<reader logical=\"one|in\" virtualAddress=\"16#0001_0000_0000#\" size=\"16#0010_0000#\"/>",
            "<writer logical=\"two|out\" virtualAddress=\"16#0001_0030_0000#\" size=\"16#0010_0000#\"/>",
            "<memory logical=\"text\" virtualAddress=\"16#0020_0000#\" size=\"16#4000#\" executable=\"true\" writable=\"false\" type=\"subject_binary\">\n      \
             <file filename=\"app.muen\" offset=\"16#1000#\"/>",
            "<memory logical=\"zeros_206000\" virtualAddress=\"16#0020_6000#\" size=\"16#0004_0000#\" executable=\"false\" writable=\"true\"",
            "<memory logical=\"ram\" virtualAddress=\"16#0024_7000#\" size=\"16#0400_0000#\"",
            "<rsp>16#0424_6ff8#</rsp>",
            "<file filename=\"app_bi\" offset=\"none\"/>",
            "<event logical=\"solo5_exit\" id=\"0\"/>",
        ] {
            assert!(text.contains(part), "{part} is not in\n{text}");
        }
        assert!(!description_of("").contains("channels>"));
    }

    #[test]
    fn names_that_are_too_long_for_muen_are_refused() {
        let resolve = |name: usize, device: usize, target| {
            let (name, device) = ("n".repeat(name), "d".repeat(device));
            let manifest = Manifest::parse(&format!("name = \"{name}\"\ndevice = [{{ kind = 'stack', name = '{device}' }}]")).unwrap();
            Resolved::new(&manifest, target, &[]).map(drop).map_err(|error| error.to_string())
        };
        assert_eq!(resolve(63, 59, Target::Muen), Ok(()));
        assert!(resolve(64, 1, Target::Muen).unwrap_err().contains("63 are allowed"));
        assert!(resolve(1, 60, Target::Muen).unwrap_err().contains("59 are allowed"));
        assert_eq!(resolve(67, 67, Target::Spt), Ok(()));
    }

    #[test]
    fn what_the_tools_cannot_load_is_refused() {
        assert!(check(&layout(), 0x7000).is_ok());
        let refused = |change: fn(&mut Layout), reason: &str| {
            let mut layout = layout();
            change(&mut layout);
            let error = check(&layout, 0x7000).unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        };
        refused(|layout| layout.entry += 1, "first byte");
        refused(|layout| layout.segments.reverse(), "its code does not begin");
        refused(|layout| layout.segments[1].file_offset += 8, "does not begin with a page");
        refused(|layout| layout.segments[3].contents.end -= 8, "neither all bytes");
        refused(|layout| layout.segments[3].file_offset += PAGE_SIZE, "beyond the file");
    }

    #[test]
    fn numbers_are_written_as_ada_has_them() {
        assert_eq!(number(0), "16#0000#");
        assert_eq!(number(0x1000), "16#1000#");
        assert_eq!(number(0xe_0000_8000), "16#000e_0000_8000#");
    }

    /// XML has no comment with two hyphens in it, and each element that begins ends.
    #[test]
    fn it_is_well_formed() {
        let text = description_of("{ kind = 'net', name = 'wire' }");
        let (comment, elements) = text.strip_prefix("<!--").and_then(|rest| rest.split_once("-->")).unwrap();
        assert!(!comment.contains("--"), "{comment}");
        let begun = elements.matches('<').count() - elements.matches("</").count() - elements.matches("/>").count();
        assert_eq!(begun, elements.matches("</").count(), "{elements}");
    }
}
