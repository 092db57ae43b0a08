// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is in the initial file systems of dom0 and of the guests, which are all they have.

use super::debian::Root;
use super::{Kind, Options, libraries, tree::Tree};
use crate::{Result, project};
use std::path::Path;

/// Loaded in this order; names below the kernel's `kernel/`.
const MODULES: [&str; 4] = [
    "drivers/xen/xen-evtchn",
    "drivers/xen/xen-gntdev",
    "drivers/xen/xen-gntalloc",
    "drivers/xen/xenfs/xenfs",
];

/// In dom0, before these: its hold on the hypervisor, and ports to the host.
const DOM0_MODULES: [&str; 7] = [
    "drivers/xen/xen-privcmd",
    "drivers/virtio/virtio_ring",
    "drivers/virtio/virtio",
    "drivers/virtio/virtio_pci_legacy_dev",
    "drivers/virtio/virtio_pci_modern_dev",
    "drivers/virtio/virtio_pci",
    "drivers/char/virtio_console",
];

/// Xen's own programs, for dom0.
const XEN_PROGRAMS: [&str; 7] = [
    "libxl-save-helper",
    "lsevtchn",
    "xen-init-dom0",
    "xenconsole",
    "xenconsoled",
    "xenstored",
    "xl",
];

/// The names of the one program that speaks to XenStore.
const XENSTORE_NAMES: [&str; 8] = [
    "chmod", "exists", "list", "ls", "read", "rm", "watch", "write",
];

/// Loaded by `vshmemd` while it runs.
const LOADED: [&str; 5] = [
    "libxenevtchn.so.1",
    "libxengnttab.so.1",
    "libxenstore.so.4",
    "libxentoolcore.so.1",
    "libxentoollog.so.1",
];

/// What users of Vshmem have in every domain, in one directory.
const VSHMEM: [&str; 3] = ["libvshmem.so", "vshmem", "vshmemd"];

/// Where scripts of the lab, and what they read, are.
const ETC: &str = "etc/lab";

/// The guests' file system, the same for all: the kernel's command line says which one it is.
pub fn guest(root: &Root, options: &Options) -> Result<Tree> {
    let mut tree = common(root, options, &MODULES)?;
    tree.script("init", include_str!("scripts/guest.sh"));
    tree.text(&format!("{ETC}/daemon"), daemon(options, ""));
    libraries::add(&mut tree, &root.libraries())?;
    Ok(tree)
}

/// Dom0's file system, which has the guests' archive in it.
pub fn dom0(root: &Root, options: &Options, guest: &Path) -> Result<Tree> {
    let modules: Vec<_> = DOM0_MODULES.iter().chain(&MODULES).copied().collect();
    let mut tree = common(root, options, &modules)?;
    tree.script("init", include_str!("scripts/dom0.sh"));
    tree.text(&format!("{ETC}/daemon"), daemon(options, "--backend "));
    for program in XEN_PROGRAMS {
        // Where xl looks for its helper; the command is on the path.
        let place = format!("usr/lib/xen-4.17/bin/{program}");
        tree.file(&place, &root.path(&place))?;
        tree.link(&format!("usr/sbin/{program}"), format!("/{place}"));
    }
    let image = root.path("boot").join(format!("vmlinuz-{}", root.kernel));
    tree.file("boot/vmlinuz", &image)?;
    tree.file("boot/guest", guest)?;
    // Dom0 has its memory from the beginning and keeps it.
    tree.text("etc/xen/xl.conf", "autoballoon=\"off\"\n");
    let mut guests = String::new();
    for number in 1..=options.domains {
        let name = format!("dom{number}");
        tree.text(
            &format!("etc/xen/{name}.cfg"),
            configuration(&name, options),
        );
        guests += &format!("{name}\n");
    }
    tree.text(&format!("{ETC}/guests"), guests);
    libraries::add(&mut tree, &root.libraries())?;
    Ok(tree)
}

/// What all domains have, but for the libraries that it needs.
fn common(root: &Root, options: &Options, modules: &[&str]) -> Result<Tree> {
    let mut tree = Tree::default();
    tree.file("bin/busybox", &root.path("bin/busybox"))?;
    tree.link("bin/sh", "busybox");
    tree.directory("proc/xen");
    tree.directory("root");
    tree.text(&format!("{ETC}/setup"), include_str!("scripts/setup.sh"));
    tree.script("lab-bin/lab", include_str!("scripts/lab.sh"));
    let mut list = String::new();
    for module in modules {
        let from = format!("lib/modules/{}/kernel/{module}.ko", root.kernel);
        tree.file(&format!("lib/modules/{module}.ko"), &root.path(&from))?;
        list += &format!("{module}\n");
    }
    tree.text(&format!("{ETC}/modules"), list);
    let xenstore = root.path("usr/bin/xenstore");
    tree.file("usr/bin/xenstore", &xenstore)?;
    for name in XENSTORE_NAMES {
        tree.link(&format!("usr/bin/xenstore-{name}"), "xenstore");
    }
    for (number, command) in options.commands.of_domains() {
        tree.text(&format!("{ETC}/command-dom{number}"), command);
    }
    if let Some(dir) = &options.files {
        tree.copy("lab", dir)?;
    }
    if !options.bare {
        let bin = project::bin_dir()?;
        for name in VSHMEM {
            tree.file(&format!("usr/bin/{name}"), &bin.join(name))?;
        }
        for library in LOADED {
            libraries::add_named(&mut tree, library, &root.libraries())?;
        }
    }
    Ok(tree)
}

/// The part of a domain's first process that starts its daemon.
fn daemon(options: &Options, _role: &str) -> String {
    if options.bare {
        return String::new();
    }
    String::new()
}

/// A guest's configuration for xl.
fn configuration(name: &str, options: &Options) -> String {
    let kind = match options.guest {
        Kind::Pv => "pv",
        Kind::Pvh => "pvh",
    };
    let memory = options.memory;
    format!(
        "name = \"{name}\"\n\
         type = \"{kind}\"\n\
         kernel = \"/boot/vmlinuz\"\n\
         ramdisk = \"/boot/guest\"\n\
         extra = \"console=hvc0 rdinit=/init lab.name={name}\"\n\
         memory = {memory}\n\
         vcpus = 1\n\
         on_crash = \"destroy\"\n"
    )
}
