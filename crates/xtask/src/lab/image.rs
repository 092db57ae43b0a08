// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is in the initial file systems of dom0 and of the guests, which are all they have.

use super::commands::Commands;
use super::debian::Root;
use super::{Setup, libraries, tree::Tree};
use crate::{Result, project};
use std::path::Path;

/// Loaded in this order; names below the kernel's `kernel/`.
const MODULES: [&str; 3] = [
    "drivers/xen/xen-evtchn",
    "drivers/xen/xen-gntdev",
    "drivers/xen/xen-gntalloc",
];

/// In dom0, before these: its hold on the hypervisor, and ports to the host.
const DOM0_MODULES: [&str; 8] = [
    "drivers/xen/xen-privcmd",
    "drivers/xen/xenfs/xenfs",
    "drivers/virtio/virtio_ring",
    "drivers/virtio/virtio",
    "drivers/virtio/virtio_pci_legacy_dev",
    "drivers/virtio/virtio_pci_modern_dev",
    "drivers/virtio/virtio_pci",
    "drivers/char/virtio_console",
];

/// For a network between guests: in dom0, and in a guest.
const DOM0_NETWORK: [&str; 4] = [
    "net/llc/llc",
    "net/802/stp",
    "net/bridge/bridge",
    "drivers/net/xen-netback/xen-netback",
];
const GUEST_NETWORK: [&str; 1] = ["drivers/net/xen-netfront"];

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

/// Loaded by whoever uses Xen while it runs: `vshmemd`, and the ports' own suite.
const LOADED: [&str; 3] = ["libxenevtchn.so.1", "libxengnttab.so.1", "libxenstore.so.4"];

/// What users of Vshmem have in every domain, in one directory.
const VSHMEM: [&str; 3] = ["libvshmem.so", "vshmem", "vshmemd"];

/// Where scripts of the lab, and what they read, are.
const ETC: &str = "etc/lab";

/// Said at the beginning of an interactive look around.
const WELCOME: &str = "\n\
    This is dom0. `xl list` lists the domains; `xl console dom1` is a shell in a guest, left by\n\
    Ctrl-]; xenstore-ls shows XenStore, `lab` what the lab can do. /lab has the files that were\n\
    given. `exit` switches the machine off, and so does Ctrl-a x, at once.\n\n";

/// What domains are to do: commands, or nothing by themselves.
#[derive(Debug, Clone, Copy)]
pub enum Work<'a> {
    /// Each its command.
    Commands(&'a Commands),
    /// To wait at a shell.
    Shell,
}

/// The guests' file system, the same for all: the kernel's command line says which one it is.
pub fn guest(root: &Root, setup: &Setup, work: Work) -> Result<Tree> {
    let mut modules = MODULES.to_vec();
    if setup.network {
        modules.extend(GUEST_NETWORK);
    }
    let mut tree = common(root, setup, work, &modules)?;
    tree.script("init", include_str!("scripts/guest.sh"));
    if !setup.bare {
        tree.text(&format!("{ETC}/vshmemd"), "--port xen\n");
    }
    libraries::add(&mut tree, &root.libraries())?;
    Ok(tree)
}

/// Dom0's file system, which has the guests' archive in it.
pub fn dom0(root: &Root, setup: &Setup, work: Work, guest: &Path) -> Result<Tree> {
    let mut modules = DOM0_MODULES.to_vec();
    modules.extend(MODULES);
    if setup.network {
        modules.extend(DOM0_NETWORK);
    }
    let mut tree = common(root, setup, work, &modules)?;
    tree.script("init", include_str!("scripts/dom0.sh"));
    if !setup.bare {
        tree.text(&format!("{ETC}/vshmemd"), "--backend --port xen\n");
    }
    for program in XEN_PROGRAMS {
        // Where xl looks for its helper; the command is on the path.
        let place = format!("usr/lib/xen-4.17/bin/{program}");
        tree.file(&place, &root.path(&place))?;
        tree.link(&format!("usr/sbin/{program}"), format!("/{place}"));
    }
    tree.file("boot/vmlinuz", &root.image())?;
    tree.file("boot/guest", guest)?;
    // Dom0 has its memory from the beginning and keeps it.
    tree.text("etc/xen/xl.conf", "autoballoon=\"off\"\n");
    tree.script("etc/xen/scripts/vif-lab", include_str!("scripts/vif.sh"));
    let mut guests = String::new();
    for number in 1..=setup.domains {
        let name = format!("dom{number}");
        tree.text(&format!("etc/xen/{name}.cfg"), configuration(&name, setup));
        guests += &format!("{name}\n");
    }
    tree.text(&format!("{ETC}/guests"), guests);
    libraries::add(&mut tree, &root.libraries())?;
    Ok(tree)
}

/// What all domains have, but for the libraries that it needs.
fn common(root: &Root, setup: &Setup, work: Work, modules: &[&str]) -> Result<Tree> {
    let mut tree = Tree::default();
    tree.file("bin/busybox", &root.path("bin/busybox"))?;
    tree.link("bin/sh", "busybox");
    tree.directory("proc/xen");
    tree.directory("root");
    tree.text("etc/passwd", "root:x:0:0::/root:/bin/sh\n");
    tree.text("etc/group", "root:x:0:\n");
    tree.text(&format!("{ETC}/setup"), include_str!("scripts/setup.sh"));
    tree.script("lab-bin/lab", include_str!("scripts/lab.sh"));
    let mut list = String::new();
    for module in modules {
        tree.file(&format!("lib/modules/{module}.ko"), &root.module(module))?;
        list += &format!("{module}\n");
    }
    tree.text(&format!("{ETC}/modules"), list);
    tree.file("usr/bin/xenstore", &root.path("usr/bin/xenstore"))?;
    for name in XENSTORE_NAMES {
        tree.link(&format!("usr/bin/xenstore-{name}"), "xenstore");
    }
    match work {
        Work::Shell => tree.text(&format!("{ETC}/shell"), WELCOME),
        Work::Commands(commands) => {
            for (number, command) in commands.of_domains() {
                tree.text(&format!("{ETC}/command-dom{number}"), command);
            }
        }
    }
    if setup.network {
        tree.text(&format!("{ETC}/network"), "");
    }
    if let Some(dir) = &setup.files {
        tree.copy("lab", dir)?;
    }
    if !setup.bare {
        let bin = project::bin_dir()?;
        for name in VSHMEM {
            tree.file(&format!("usr/bin/{name}"), &bin.join(name))?;
        }
    }
    for library in LOADED {
        libraries::add_named(&mut tree, library, &root.libraries())?;
    }
    Ok(tree)
}

/// A guest's configuration for xl.
fn configuration(name: &str, setup: &Setup) -> String {
    let kind = setup.guest.word();
    let memory = setup.memory;
    let vif = match setup.network {
        true => "vif = [\"bridge=xenbr0,script=vif-lab\"]\n",
        false => "",
    };
    format!(
        "name = \"{name}\"\n\
         type = \"{kind}\"\n\
         kernel = \"/boot/vmlinuz\"\n\
         ramdisk = \"/boot/guest\"\n\
         extra = \"console=hvc0 rdinit=/init rootfstype=ramfs lab.name={name}\"\n\
         memory = {memory}\n\
         vcpus = 1\n\
         max_grant_frames = 256\n\
         on_crash = \"destroy\"\n\
         {vif}"
    )
}
