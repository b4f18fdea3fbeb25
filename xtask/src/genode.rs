//! The configuration with which Genode runs an image: what init starts, and which session goes where.
//!
//! It is written beside the image, as XML, which every version of Genode reads. The components that stand for the host's devices are those of Genode's
//! Linux version; on other kernels the drivers there take their place, and the image's own part stays as it is.

use std::fmt::Write as _;

use fogbow_tender::manifest::DeviceKind;

use crate::resolve::Resolved;

/// Megabytes that an image gets: its heap is what its code and half a megabyte leave of them.
const MEMORY: u32 = 64;

/// The configuration of init for an application's image `file`.
pub(crate) fn configuration(resolved: &Resolved, file: &str) -> String {
    let devices: Vec<(&str, DeviceKind)> = resolved.host_devices().map(|(device, kind)| (device.device.name.as_str(), kind)).collect();
    let has = |kind| devices.iter().any(|(_, other)| *other == kind);
    let name = &resolved.manifest.name;
    let mut roms = vec!["core", "ld.lib.so", "init", "timer", "linux_rtc", "solo5.lib.so", file];
    let mut text = String::new();
    let (mut drivers, mut places) = (String::new(), String::new());
    // A driver that is a Linux program of its own is not loaded by Genode's dynamic linker.
    start(&mut drivers, "timer", "", 2, "Timer", "", "");
    start(&mut drivers, "linux_rtc", " ld=\"no\"", 2, "Rtc", "", "");
    let (mut nics, mut blocks) = (Vec::new(), Vec::new());
    for (index, (device, kind)) in devices.iter().enumerate() {
        match kind {
            DeviceKind::Net => {
                let child = format!("nic_{device}");
                start(&mut drivers, &child, "", 2, "Nic", "    <binary name=\"nic_uplink\"/>\n", "<service name=\"Uplink\"/> ");
                let _ = write!(
                    drivers,
                    "  <start name=\"tap_{device}\" ld=\"no\">\n    <binary name=\"linux_nic\"/>\n    <resource name=\"RAM\" quantum=\"8M\"/>\n    \
                     <config tap=\"tap{}\" mac=\"02:00:00:00:00:{:02x}\"/>\n    <route>\n      <service name=\"Uplink\"> <child name=\"{child}\"/> </service>\n      \
                     <any-service> <parent/> <any-child/> </any-service>\n    </route>\n  </start>\n",
                    nics.len(),
                    index + 1
                );
                let _ = writeln!(places, "  On Linux net device {device} is on the tap interface tap{}.", nics.len());
                nics.push((*device, child));
            }
            DeviceKind::Block => {
                let child = format!("block_{device}");
                let config = format!(
                    "    <binary name=\"vfs_block\"/>\n    <config>\n      <vfs> <fs label=\"{device} -> /\" writeable=\"yes\"/> </vfs>\n      \
                     <policy label_suffix=\"{device}\" file=\"/{device}.img\" block_size=\"512\" writeable=\"yes\"/>\n    </config>\n"
                );
                start(&mut drivers, &child, "", 8, "Block", &config, "");
                let _ =
                    writeln!(places, "  On Linux block device {device} is the file disks/{device}.img, seen from where core is started.");
                blocks.push((*device, child));
            }
        }
    }
    if has(DeviceKind::Net) {
        roms.extend(["nic_uplink", "linux_nic"]);
    }
    if has(DeviceKind::Block) {
        roms.extend(["vfs_block", "vfs.lib.so", "lx_fs"]);
        let policy: String = blocks
            .iter()
            .map(|(device, _)| format!("      <policy label_prefix=\"block_{device}\" root=\"/disks\" writeable=\"yes\"/>\n"))
            .collect();
        start(&mut drivers, "lx_fs", " ld=\"no\"", 8, "File_system", &format!("    <config>\n{policy}    </config>\n"), "");
    }
    let _ = write!(
        text,
        "<!--\n  {name} on Genode: the configuration of init. Made by the builder; changes here are lost.\n\n  \
         ROM modules: {}.\n  The image's arguments are in two places, because the library of Solo5 0.6 reads the element and later ones the attribute.\n{places}-->\n",
        roms.join(", ")
    );
    text.push_str("<config>\n  <parent-provides>\n");
    for service in ["ROM", "PD", "RM", "CPU", "LOG", "IO_MEM", "IO_PORT", "IRQ"] {
        let _ = writeln!(text, "    <service name=\"{service}\"/>");
    }
    text.push_str("  </parent-provides>\n  <default-route> <any-service> <parent/> <any-child/> </any-service> </default-route>\n  <default caps=\"200\"/>\n\n");
    text.push_str(&drivers);
    let _ = write!(
        text,
        "  <start name=\"{name}\" caps=\"300\">\n    <binary name=\"{file}\"/>\n    <resource name=\"RAM\" quantum=\"{MEMORY}M\"/>\n    \
         <config cmdline=\"\"> <cmdline></cmdline> </config>\n    <route>\n      <service name=\"LOG\"> <parent/> </service>\n      \
         <service name=\"Timer\"> <child name=\"timer\"/> </service>\n      <service name=\"Rtc\"> <child name=\"linux_rtc\"/> </service>\n"
    );
    for (service, children) in [("Nic", nics), ("Block", blocks)] {
        for (device, child) in children {
            let _ = writeln!(text, "      <service name=\"{service}\" label=\"{device}\"> <child name=\"{child}\"/> </service>");
        }
    }
    text.push_str("      <any-service> <parent/> </any-service>\n    </route>\n  </start>\n</config>\n");
    text
}

/// A component that provides a service, and with `others` more of them. `more` is what else there is to say of it.
fn start(text: &mut String, name: &str, attributes: &str, megabytes: u32, service: &str, more: &str, others: &str) {
    let _ = write!(
        text,
        "  <start name=\"{name}\"{attributes}>\n{more}    <resource name=\"RAM\" quantum=\"{megabytes}M\"/>\n    <provides> <service name=\"{service}\"/> \
         {others}</provides>\n  </start>\n"
    );
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::Manifest;
    use crate::resolve::Target;

    fn configuration_of(devices: &str) -> String {
        let manifest = Manifest::parse(&format!("name = \"app\"\ndevice = [{devices}]")).unwrap();
        configuration(&Resolved::new(&manifest, Target::Genode, &[]).unwrap(), "app.genode")
    }

    #[test]
    fn each_session_has_a_route_and_each_route_a_component() {
        let text =
            configuration_of("{ kind = 'net', name = 'wire' }, { kind = 'block', name = 'disk' }, { kind = 'kv_rw', name = 'state' }");
        for line in [
            "<service name=\"Nic\" label=\"wire\"> <child name=\"nic_wire\"/> </service>",
            "<service name=\"Block\" label=\"disk\"> <child name=\"block_disk\"/> </service>",
            "<service name=\"Uplink\"> <child name=\"nic_wire\"/> </service>",
            "<start name=\"nic_wire\">",
            "<start name=\"block_disk\">",
            "<binary name=\"app.genode\"/>",
            "net device wire is on the tap interface tap0.",
            "block device disk is the file disks/disk.img",
        ] {
            assert!(text.contains(line), "{line} is not in\n{text}");
        }
        assert!(!text.contains("state"), "a store in memory needs no session");
    }

    #[test]
    fn an_image_without_devices_gets_no_drivers_for_them() {
        let text = configuration_of("");
        assert!(!text.contains("Nic") && !text.contains("Block") && !text.contains("File_system"), "{text}");
        assert_eq!(text.matches("<start ").count(), text.matches("</start>").count());
    }

    /// XML has no comment with two hyphens in it, and each element that begins ends.
    #[test]
    fn it_is_well_formed() {
        let text = configuration_of("{ kind = 'net', name = 'wire' }");
        let (comment, elements) = text.strip_prefix("<!--").and_then(|rest| rest.split_once("-->")).unwrap();
        assert!(!comment.contains("--"), "{comment}");
        let begun = elements.matches('<').count() - elements.matches("</").count() - elements.matches("/>").count();
        assert_eq!(begun, elements.matches("</").count(), "{elements}");
    }
}
