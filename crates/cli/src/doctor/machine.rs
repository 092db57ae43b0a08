// SPDX-License-Identifier: MIT OR Apache-2.0
//! What Vshmem needs of the machine: its kernel, its limits, and on Xen its drivers.

use super::Findings;
use rustix::fs::Access;
use rustix::process::{Resource, getrlimit};
use std::path::Path;

/// The oldest kernel that Vshmem works on.
const KERNEL: (u32, u32) = (5, 14);

/// Descriptors that a daemon may need: about one a construct.
const DESCRIPTORS: u64 = 4096;

/// Looks at all of it.
pub fn look(found: &mut Findings) {
    kernel(found);
    descriptors(found);
    let kind = std::fs::read_to_string("/sys/hypervisor/type").unwrap_or_default();
    if kind.trim() == "xen" {
        xen(found, Path::new("/"));
    }
}

fn kernel(found: &mut Findings) {
    let uname = rustix::system::uname();
    let release = uname.release().to_string_lossy().into_owned();
    match version(&release) {
        Some(version) if version < KERNEL => found.wrong(
            "kernel",
            format!("Linux {release} is too old"),
            format!("Vshmem needs Linux {}.{} or later", KERNEL.0, KERNEL.1),
        ),
        _ => found.fine("kernel", format!("Linux {release}")),
    }
    if !Path::new("/proc/self/maps").exists() {
        found.wrong(
            "kernel",
            "/proc is not mounted",
            "mount it: attachments are counted, and groups looked up there",
        );
    }
}

/// The first two numbers of a kernel's release.
fn version(release: &str) -> Option<(u32, u32)> {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn descriptors(found: &mut Findings) {
    let most = getrlimit(Resource::Nofile).maximum;
    match most {
        Some(most) if most < DESCRIPTORS => found.warn(
            "limits",
            format!("a daemon can open {most} files: so many constructs and clients"),
            "raise the hard limit (ulimit -Hn; LimitNOFILE= of systemd)",
        ),
        most => {
            let most = most.map_or("any number of".to_owned(), |most| most.to_string());
            found.fine("limits", format!("a daemon can open {most} files"));
        }
    }
}

/// The drivers of a domain of Xen, below `root`.
fn xen(found: &mut Findings, root: &Path) {
    for (module, device) in [
        ("xen_gntalloc", "gntalloc"),
        ("xen_gntdev", "gntdev"),
        ("xen_evtchn", "evtchn"),
        ("xenfs", "xenbus"),
    ] {
        let path = root.join("dev/xen").join(device);
        let name = format!("/dev/xen/{device}");
        if !path.exists() {
            found.wrong(
                "xen",
                format!("{name} is not there"),
                format!("load its driver: modprobe {}", module.replace('_', "-")),
            );
        } else if rustix::fs::access(&path, Access::READ_OK | Access::WRITE_OK).is_err() {
            found.wrong(
                "xen",
                format!("{name} is not for you"),
                "let its group have it by a udev rule, and be of that group",
            );
        } else {
            found.fine("xen", name);
        }
    }
    let limit = root.join("sys/module/xen_gntalloc/parameters/limit");
    let pages = std::fs::read_to_string(&limit).ok();
    match pages.and_then(|text| text.trim().parse::<i64>().ok()) {
        // What the driver begins with: 4 MiB in all.
        Some(pages) if pages <= 1024 => found.warn(
            "xen",
            format!("gntalloc makes {pages} pages for the whole domain"),
            "raise /sys/module/xen_gntalloc/parameters/limit",
        ),
        Some(pages) => found.fine("xen", format!("gntalloc makes up to {pages} pages")),
        None => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Level;

    #[test]
    fn a_release_is_read_whatever_follows_it() {
        for (release, want) in [
            ("5.14.0-427.el9", Some((5, 14))),
            ("6.1.0-18-amd64", Some((6, 1))),
            ("6.18", Some((6, 18))),
            ("garbage", None),
        ] {
            assert_eq!(version(release), want);
        }
    }

    #[test]
    fn a_domain_of_xen_without_drivers_is_told_which_to_load() {
        let root = tempfile::tempdir().unwrap();
        let devices = root.path().join("dev/xen");
        std::fs::create_dir_all(&devices).unwrap();
        std::fs::write(devices.join("gntdev"), "").unwrap();
        let parameters = root.path().join("sys/module/xen_gntalloc/parameters");
        std::fs::create_dir_all(&parameters).unwrap();
        std::fs::write(parameters.join("limit"), "1024\n").unwrap();
        let mut found = Findings::default();
        xen(&mut found, root.path());
        assert_eq!(
            (found.number(Level::Wrong), found.number(Level::Warning)),
            (3, 1)
        );
        assert!(found.text(true).contains("modprobe xen-gntalloc"));
    }
}
