//! The machine of an image for libvirt (`virsh define`, `virt-manager`), written beside it: see libvirt's "Domain XML format".

use std::fmt::Write as _;
use std::path::Path;

use fogbow_tender::manifest::DeviceKind;

use crate::resolve::Resolved;

/// Memory in mebibytes.
const MEMORY: u32 = 64;

/// The description of a machine that starts the image at `image`, an absolute path, with this command line. Networks are libvirt's own, `default`; block
/// devices are files beside the image, by their names. The image takes devices of a kind in this order.
pub(crate) fn domain(resolved: &Resolved, image: &Path, line: &str) -> String {
    let mut devices = String::new();
    let mut disks = 0_u32;
    for (device, kind) in resolved.host_devices() {
        let name = &device.device.name;
        match kind {
            DeviceKind::Net => {
                let _ = write!(
                    devices,
                    "    <!-- {name} -->\n    <interface type='network'>\n      <source network='default'/>\n      <model type='virtio'/>\n    </interface>\n"
                );
            }
            DeviceKind::Block => {
                let file = escaped(&image.with_file_name(format!("{name}.img")).display().to_string());
                // vda, vdb and so on: libvirt wants a name, which the image does not see.
                let target = char::from(b'a' + (disks % 26) as u8);
                let prefix =
                    (disks / 26).checked_sub(1).map(|index| char::from(b'a' + (index % 26) as u8)).map_or(String::new(), String::from);
                disks += 1;
                let _ = write!(
                    devices,
                    "    <!-- {name} -->\n    <disk type='file' device='disk'>\n      <driver name='qemu' type='raw' discard='unmap'/>\n      \
                     <source file='{file}'/>\n      <target dev='vd{prefix}{target}' bus='virtio'/>\n    </disk>\n"
                );
            }
        }
    }
    format!(
        "<!-- Made by `cargo xtask build` -->
<domain type='kvm'>
  <name>{name}</name>
  <memory unit='MiB'>{MEMORY}</memory>
  <vcpu>1</vcpu>
  <os>
    <type arch='x86_64' machine='q35'>hvm</type>
    <kernel>{image}</kernel>
    <cmdline>{line}</cmdline>
  </os>
  <features>
    <acpi/>
  </features>
  <cpu mode='host-passthrough'/>
  <on_poweroff>destroy</on_poweroff>
  <on_reboot>restart</on_reboot>
  <on_crash>destroy</on_crash>
  <devices>
{devices}    <serial type='pty'>
      <target port='0'/>
    </serial>
    <console type='pty'>
      <target type='serial' port='0'/>
    </console>
    <rng model='virtio'>
      <backend model='random'>/dev/urandom</backend>
    </rng>
    <controller type='usb' model='none'/>
    <memballoon model='none'/>
  </devices>
</domain>
",
        name = escaped(&resolved.manifest.name),
        image = escaped(&image.display().to_string()),
        line = escaped(line),
    )
}

/// Text as XML has it, in an attribute as well.
fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('\'', "&apos;").replace('"', "&quot;")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::manifest::Manifest;
    use crate::resolve::Target;

    fn described(text: &str) -> String {
        let resolved = Resolved::new(&Manifest::parse(text).unwrap(), Target::Spt, &[]).unwrap();
        domain(&resolved, Path::new("/a&b/app.virtio"), "--greeting='<hello>'")
    }

    #[test]
    fn devices_stand_in_order_and_text_is_escaped() {
        let text = described(
            "name = \"app\"\ndevice = [{ kind = \"block\", name = \"one\" }, { kind = \"net\", name = \"service\" }, { kind = \"block\", name = \"two\" }]",
        );
        for part in [
            "<kernel>/a&amp;b/app.virtio</kernel>",
            "<cmdline>--greeting=&apos;&lt;hello&gt;&apos;</cmdline>",
            "<source file='/a&amp;b/one.img'/>\n      <target dev='vda'",
            "<source file='/a&amp;b/two.img'/>\n      <target dev='vdb'",
        ] {
            assert!(text.contains(part), "no {part} in {text}");
        }
        let place = |name: &str| text.find(&format!("<!-- {name} -->")).unwrap();
        assert!(place("one") < place("service") && place("service") < place("two"));
    }

    #[test]
    fn many_disks_have_names_of_their_own() {
        let devices: Vec<String> = (0..28).map(|index| format!("{{ kind = \"block\", name = \"disk{index}\" }}")).collect();
        let text = described(&format!("name = \"app\"\ndevice = [{}]", devices.join(", ")));
        assert!(text.contains("dev='vdz'") && text.contains("dev='vdaa'") && text.contains("dev='vdab'"));
    }
}
