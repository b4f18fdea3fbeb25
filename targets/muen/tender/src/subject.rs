//! What a subject finds when it starts: its image, and what Muen's tools and kernel would put into its memory.

use std::fs::File;

use fogbow_muen_interface::boot::{self, BootInfo, EXIT_EVENT, IMAGE, INFO, INFO_SIZE, SCHEDULING_INFO, SINFO};
use fogbow_muen_interface::muennet::{CHANNEL_SIZE, IN, OUT};
use fogbow_muen_interface::sinfo::{self, MemoryRegion, Resource, Version, kind};
use fogbow_muen_interface::time::{SCHEDULING_INFO_SIZE, TIME_INFO_SIZE};
use fogbow_muen_interface::{debuglog, time};
use fogbow_tender::elf::{Image, ImageError, Layout, PAGE_SIZE};
use fogbow_tender::manifest::{DeviceKind, Manifest};

use crate::event;
use crate::memory::{Memory, Region};
use crate::reset::Start;
use crate::world::TSC_KHZ;

/// The subject's name.
const NAME: &str = "subject";

/// Bytes of the memory around the subject information.
const SINFO_SIZE: u64 = 0x8000;

/// Bytes of the debug log: `logchannel_size` of Muen's policy.
const DEBUGLOG_SIZE: u64 = 0x2_0000;

/// Why the memory cannot be laid out.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SubjectError {
    #[error("{0:#x} bytes of memory are too few for an image of {1:#x}: give it more with --mem")]
    TooLittleMemory(u64, u64),
    #[error("block device '{0}': Muen has no block devices")]
    Block(String),
    #[error("the image begins at {0:#x}, and one for Muen at {IMAGE:#x}: build it with --target muen")]
    Place(u64),
}

/// What the subject has, and how it starts.
#[derive(Debug)]
pub(crate) struct Plan {
    pub(crate) regions: Vec<Region>,
    pub(crate) start: Start,
    /// Names of the network devices, in the manifest's order.
    pub(crate) networks: Vec<String>,
    info: BootInfo,
}

impl Plan {
    /// The plan for an image of this layout and manifest; `memory_size` counts the image and the memory beyond.
    pub(crate) fn new(layout: &Layout, manifest: &Manifest, memory_size: u64) -> Result<Self, SubjectError> {
        let mut regions = Vec::new();
        let mut add = |name: &str, address: u64, size: u64, rights: (bool, bool), kind: u8| {
            let (is_writable, is_executable) = rights;
            regions.push(Region { name: name.to_owned(), address, size, is_writable, is_executable, kind });
        };
        for (index, segment) in layout.segments.iter().enumerate() {
            let rights = (segment.protection.write, segment.protection.execute);
            let name = if index == 0 { "text".to_owned() } else { format!("segment{index}") };
            add(&name, segment.pages.start, segment.pages.end - segment.pages.start, rights, kind::BINARY);
        }
        let start = layout.segments.first().map_or(0, |segment| segment.pages.start);
        if start != IMAGE {
            return Err(SubjectError::Place(start));
        }
        let image_size = layout.end - start;
        let too_little = SubjectError::TooLittleMemory(memory_size, image_size);
        let ram_size = memory_size.checked_sub(image_size).map(|size| size / PAGE_SIZE * PAGE_SIZE).filter(|size| *size > 0);
        let ram_size = ram_size.ok_or(too_little)?;
        let memory_end = layout.end + ram_size;
        add("ram", layout.end, ram_size, (true, false), kind::SUBJECT);
        let mut networks = Vec::new();
        let mut next = memory_end;
        for device in manifest.devices() {
            let name = device.name.to_string();
            match device.kind {
                DeviceKind::Net => {
                    for (end, is_writable) in [(IN, false), (OUT, true)] {
                        add(&format!("{name}{end}"), next, CHANNEL_SIZE, (is_writable, false), kind::CHANNEL);
                        next += CHANNEL_SIZE;
                    }
                    networks.push(name);
                }
                DeviceKind::Block => return Err(SubjectError::Block(name)),
            }
        }
        add("boot_info", INFO, INFO_SIZE as u64, (false, false), kind::BOOT_INFO);
        add("sinfo", SINFO, SINFO_SIZE, (false, false), kind::SUBJECT_INFO);
        add("sched_info", SCHEDULING_INFO, SCHEDULING_INFO_SIZE, (false, false), kind::SCHEDULING_INFO);
        add(time::NAME, boot::TIME_INFO, TIME_INFO_SIZE, (false, false), kind::CHANNEL);
        add(debuglog::NAME, boot::DEBUGLOG, DEBUGLOG_SIZE, (true, false), kind::CHANNEL);
        let start = Start { entry: layout.entry, stack: memory_end - 8, argument: INFO };
        Ok(Self { regions, start, networks, info: BootInfo { memory_end, image_last: layout.end - 1 } })
    }

    /// Fills the memory, and says whether the subject has the event [`EXIT_EVENT`].
    pub(crate) fn fill(
        &self,
        memory: &mut Memory,
        image: &Image<'_, File>,
        layout: &Layout,
        command_line: &[u8],
        version: Version,
    ) -> Result<bool, ImageError> {
        for segment in &layout.segments {
            if let Some(bytes) = memory.bytes(segment.contents.start, segment.contents.end - segment.contents.start) {
                image.read_segment(segment, bytes)?;
            }
        }
        let has_event = event::prepare(memory, layout);
        if let Some(bytes) = memory.bytes(INFO, INFO_SIZE as u64) {
            bytes.copy_from_slice(&self.info.emit(command_line));
        }
        let regions = self.regions.iter().map(|region| {
            let Region { kind, is_writable, is_executable, address, size, .. } = *region;
            (region.name.as_str(), Resource::Memory(MemoryRegion { kind, is_writable, is_executable, address, size }))
        });
        let event = has_event.then_some((EXIT_EVENT, Resource::Event(event::NUMBER)));
        let resources: Vec<(&str, Resource)> = regions.chain(event).collect();
        if let Some(bytes) = memory.bytes(SINFO, sinfo::SIZE as u64).and_then(<[u8]>::first_chunk_mut) {
            sinfo::emit(bytes, version, TSC_KHZ, NAME, &resources);
        }
        Ok(has_event)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fogbow_tender::elf::{Protection, Segment};
    use fogbow_tender::manifest::{Device, Name};

    fn layout() -> Layout {
        let protection = Protection { read: true, write: false, execute: true };
        let segment = Segment { index: 0, file_offset: 0, contents: 0x20_0000..0x20_0010, pages: 0x20_0000..0x20_1000, protection };
        Layout { entry: 0x20_0000, end: 0x20_1000, segments: vec![segment] }
    }

    fn manifest(kind: DeviceKind) -> Manifest {
        Manifest::new(vec![Device::new(Name::new("service").unwrap(), kind)]).unwrap()
    }

    #[test]
    fn regions_are_where_a_subject_expects_them() {
        let plan = Plan::new(&layout(), &manifest(DeviceKind::Net), 1 << 20).unwrap();
        let region = |name: &str| plan.regions.iter().find(|region| region.name == name).map(|r| (r.address, r.size, r.is_writable));
        assert_eq!(region("ram"), Some((0x20_1000, 0xf_f000, true)));
        assert_eq!(region("service|in"), Some((0x30_0000, 0x10_0000, false)));
        assert_eq!(region("service|out"), Some((0x40_0000, 0x10_0000, true)));
        assert_eq!(region("time_info"), Some((0xf_ffd0_0000, 0x1000, false)));
        assert_eq!(plan.start, Start { entry: 0x20_0000, stack: 0x2f_fff8, argument: 0x1000 });
        assert_eq!(plan.info, BootInfo { memory_end: 0x30_0000, image_last: 0x20_0fff });
    }

    #[test]
    fn what_cannot_be_is_refused() {
        assert!(matches!(Plan::new(&layout(), &manifest(DeviceKind::Net), 0x1fff), Err(SubjectError::TooLittleMemory(..))));
        assert!(matches!(Plan::new(&layout(), &manifest(DeviceKind::Block), 1 << 20), Err(SubjectError::Block(_))));
        // Where the boot information is, and where the subject information is.
        for place in [INFO, SINFO] {
            let mut layout = layout();
            layout.segments[0].pages = place..place + PAGE_SIZE;
            assert!(matches!(Plan::new(&layout, &manifest(DeviceKind::Net), 1 << 20), Err(SubjectError::Place(found)) if found == place));
        }
    }
}
