// SPDX-License-Identifier: MIT OR Apache-2.0
//! What Vshmem needs of the machine: its kernel and its limits; and whether it is one of Xen.

use super::Findings;
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
}

/// What this machine is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// None of Xen's.
    Host,
    /// A guest of Xen.
    Guest,
    /// Dom0, where the back-end of all guests runs.
    Dom0,
}

impl Place {
    /// What this one is.
    pub fn here() -> Self {
        Self::of(Path::new("/"))
    }

    fn of(root: &Path) -> Self {
        let read = |path| std::fs::read_to_string(root.join(path)).unwrap_or_default();
        if read("sys/hypervisor/type").trim() != "xen" {
            Self::Host
        } else if read("proc/xen/capabilities").contains("control_d") {
            Self::Dom0
        } else {
            Self::Guest
        }
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

#[cfg(test)]
mod tests {
    use super::*;

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
    fn dom0_is_told_from_a_guest_and_both_from_other_machines() {
        let root = tempfile::tempdir().unwrap();
        assert_eq!(Place::of(root.path()), Place::Host);
        let write = |path: &str, text: &str| {
            let path = root.path().join(path);
            std::fs::create_dir_all(path.parent().unwrap()).unwrap();
            std::fs::write(path, text).unwrap();
        };
        write("sys/hypervisor/type", "xen\n");
        write("proc/xen/capabilities", "");
        assert_eq!(Place::of(root.path()), Place::Guest);
        write("proc/xen/capabilities", "control_d\n");
        assert_eq!(Place::of(root.path()), Place::Dom0);
    }
}
