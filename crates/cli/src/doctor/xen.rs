// SPDX-License-Identifier: MIT OR Apache-2.0
//! What Vshmem needs in a domain of Xen: drivers and their limits in a guest, and XenStore, in which the
//! back-end in dom0 says who it is.

use super::machine::Place;
use super::{Findings, NEARLY};
use rustix::fs::Access;
use rustix::io::Errno;
use std::path::Path;
use vshmem_abi::{ABI_VERSION, Domid};
use vshmem_gnt::xen::{Frames, grant_frames};
use vshmem_registry::xenstore::library::Library;
use vshmem_registry::xenstore::{
    Announcement, NODES, QUOTA_ADVICE, XenStore, own_nodes, paths, read_if_there,
};

/// Grants that fit into a frame of the grant table.
const GRANTS: u32 = 512;

/// Pages that gntalloc makes in all unless it is told otherwise: 4 MiB.
const FEW: u64 = 1024;

/// What is known of this domain of Xen.
#[derive(Clone, Copy, Debug)]
pub struct Domain {
    /// Guest or dom0.
    pub place: Place,
    /// Daemons of the Xen port run here; without, what is missing does no harm.
    pub in_use: bool,
    /// Pages that its `vshmemd` has granted.
    pub granted: u64,
}

/// Looks at all of it.
pub fn look(found: &mut Findings, domain: Domain) {
    if domain.place == Place::Guest {
        devices(found, domain, Path::new("/"));
        limits(found, domain, Path::new("/"));
    }
    match Library::open() {
        Ok(store) => in_store(found, domain, &store),
        Err(error) => missing(
            found,
            domain,
            format!("XenStore cannot be looked at: {error}"),
            "be root; install libxenstore4; in a guest modprobe xenfs, in dom0 see that xenstored runs",
        ),
    }
}

/// Something is missing, which matters where it is used.
fn missing(
    found: &mut Findings,
    domain: Domain,
    text: impl Into<String>,
    advice: impl Into<String>,
) {
    if domain.in_use {
        found.wrong("xen", text, advice);
    } else {
        let advice = format!("for the Xen port (vshmemd --port xen): {}", advice.into());
        found.warn("xen", text, advice);
    }
}

/// The drivers, below `root`.
fn devices(found: &mut Findings, domain: Domain, root: &Path) {
    for (module, device) in [
        ("xen-gntalloc", "gntalloc"),
        ("xen-gntdev", "gntdev"),
        ("xen-evtchn", "evtchn"),
        ("xenfs", "xenbus"),
    ] {
        let path = root.join("dev/xen").join(device);
        let name = format!("/dev/xen/{device}");
        if !path.exists() {
            let advice = format!("load its driver: modprobe {module}");
            missing(found, domain, format!("{name} is not there"), advice);
        } else if rustix::fs::access(&path, Access::READ_OK | Access::WRITE_OK).is_err() {
            // Of programs only that one is needed.
            let advice = match device {
                "gntdev" => {
                    "let its group have it by a udev rule (xen-config/udev), and be of that group"
                }
                _ => "vshmemd needs it: run that as root, or be of its group; programs do not",
            };
            let text = format!("{name} is not for you");
            match device {
                "gntdev" => missing(found, domain, text, advice),
                _ => found.warn("xen", text, advice),
            }
        } else {
            found.fine("xen", name);
        }
    }
}

/// What the drivers allow, below `root`.
fn limits(found: &mut Findings, domain: Domain, root: &Path) {
    let limit = |module: &str| -> Option<u64> {
        let path = format!("sys/module/{module}/parameters/limit");
        let text = std::fs::read_to_string(root.join(path)).ok()?;
        text.trim().parse().ok()
    };
    if let Some(pages) = limit("xen_gntalloc") {
        let used = domain.granted;
        let text = format!("gntalloc makes {pages} pages for the whole domain, {used} are granted");
        if pages <= FEW || used >= pages / 100 * NEARLY {
            let advice = "raise /sys/module/xen_gntalloc/parameters/limit, and where the grant table is \
                          full max_grant_frames in the guest's xl.cfg (512 pages a frame)";
            found.warn("xen", text, advice);
        } else {
            found.fine("xen", text);
        }
    }
    if let Some(pages) = limit("xen_gntdev") {
        found.fine("xen", format!("gntdev maps up to {pages} pages at a time"));
    }
}

/// How much of a domain's grant table is used, as Xen itself says.
fn table(found: &mut Findings, whose: &str, told: Result<Frames, Errno>) {
    match told {
        Ok(Frames { used, most }) => {
            let text = format!(
                "the grant table of {whose} has {used} of at most {most} frames ({GRANTS} grants each)"
            );
            if u64::from(used) * 100 >= u64::from(most) * NEARLY {
                let advice =
                    "raise max_grant_frames in the guest's xl.cfg, and start the guest anew";
                found.warn("xen", text, advice);
            } else {
                found.fine("xen", text);
            }
        }
        Err(errno) => found.fine(
            "xen",
            format!("how much of the grant table of {whose} is used is not told here ({errno})"),
        ),
    }
}

/// What stands in XenStore.
fn in_store(found: &mut Findings, domain: Domain, store: &dyn XenStore) {
    back_end(found, domain, store);
    if let Ok(ready) = ready(store) {
        let names: Vec<_> = ready.iter().map(|(_, name)| name.as_str()).collect();
        let text = match names.is_empty() {
            true => "no domain is ready".to_owned(),
            false => format!("ready: {}", names.join(", ")),
        };
        found.fine("xen", text);
        // A guest's kernel may let it ask for its own or not; dom0's lets root ask for all.
        if domain.place == Place::Dom0 {
            for (domid, name) in &ready {
                table(found, name, grant_frames(*domid));
            }
        }
    }
    if domain.place == Place::Guest
        && let Ok(nodes) = own_nodes(store)
    {
        let text = format!("{nodes} nodes of XenStore below data, of {NODES} as a rule");
        if nodes >= NODES / 100 * NEARLY {
            found.warn("xen", text, QUOTA_ADVICE);
        } else {
            found.fine("xen", text);
        }
    }
}

/// Who the back-end in dom0 says it is.
fn back_end(found: &mut Findings, domain: Domain, store: &dyn XenStore) {
    let announced = match read_if_there(store, paths::BACKEND) {
        // Where there never was one, guests may not read what is not there.
        Err(Errno::ACCESS) => Ok(None),
        announced => announced,
    };
    let version = match announced {
        Ok(Some(value)) => Announcement::parse(&value).map(|announcement| announcement.version),
        Ok(None) => {
            return missing(
                found,
                domain,
                "no back-end is announced in XenStore",
                "start it in dom0: vshmemd --backend --port xen",
            );
        }
        Err(errno) => {
            let text = format!("{} cannot be read: {errno}", paths::BACKEND);
            return missing(found, domain, text, "see that xenstored runs in dom0");
        }
    };
    if version == Some(ABI_VERSION) {
        // It takes no other, so all that are ready have the same.
        let text = format!("a back-end is announced, and of this version (ABI {ABI_VERSION})");
        found.fine("xen", text);
    } else {
        let its = version.map_or("none that is known".into(), |its| format!("ABI {its}"));
        found.wrong(
            "xen",
            format!(
                "the back-end in dom0 is of another version ({its}, this is ABI {ABI_VERSION})"
            ),
            "install the same Vshmem in dom0 and in all guests",
        );
    }
}

/// The domains that are ready, by number, and as they are shown.
fn ready(store: &dyn XenStore) -> Result<Vec<(Domid, String)>, Errno> {
    let mut ready = Vec::new();
    for domid in store.directory(paths::READY)? {
        let Ok(domid) = domid.parse() else {
            continue;
        };
        let path = paths::of_domain(paths::READY_DOMAIN, domid);
        let name = read_if_there(store, &path)?.unwrap_or_default();
        let shown = format!("{} ({domid})", String::from_utf8_lossy(&name));
        ready.push((domid, shown));
    }
    Ok(ready)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Level;
    use vshmem_registry::xenstore::fake::FakeStore;

    const GUEST: Domain = Domain {
        place: Place::Guest,
        in_use: true,
        granted: 100,
    };

    fn numbers(found: &Findings) -> (u64, u64) {
        (found.number(Level::Wrong), found.number(Level::Warning))
    }

    #[test]
    fn a_guest_without_drivers_is_told_which_to_load() {
        let root = tempfile::tempdir().unwrap();
        let devices_dir = root.path().join("dev/xen");
        std::fs::create_dir_all(&devices_dir).unwrap();
        std::fs::write(devices_dir.join("gntdev"), "").unwrap();
        let mut found = Findings::default();
        devices(&mut found, GUEST, root.path());
        assert_eq!(numbers(&found), (3, 0));
        assert!(found.text(true).contains("modprobe xen-gntalloc"));
        let unused = Domain {
            in_use: false,
            ..GUEST
        };
        let mut found = Findings::default();
        devices(&mut found, unused, root.path());
        assert_eq!(numbers(&found), (0, 3));
    }

    #[test]
    fn limits_that_are_low_or_nearly_reached_are_warned_of() {
        let root = tempfile::tempdir().unwrap();
        let parameters = root.path().join("sys/module/xen_gntalloc/parameters");
        std::fs::create_dir_all(&parameters).unwrap();
        let told = |limit: &str, granted| {
            std::fs::write(parameters.join("limit"), limit).unwrap();
            let mut found = Findings::default();
            limits(&mut found, Domain { granted, ..GUEST }, root.path());
            numbers(&found).1
        };
        assert_eq!(told("1024\n", 0), 1);
        assert_eq!(told("65536\n", 100), 0);
        assert_eq!(told("65536\n", 60_000), 1);
    }

    #[test]
    fn a_grant_table_that_is_nearly_full_is_warned_of() {
        let told = |told| {
            let mut found = Findings::default();
            table(&mut found, "dom1 (1)", told);
            numbers(&found)
        };
        let frames = |used| Ok(Frames { used, most: 64 });
        assert_eq!(told(frames(10)), (0, 0));
        assert_eq!(told(frames(64)), (0, 1));
        assert_eq!(told(Err(Errno::ACCESS)), (0, 0));
    }

    #[test]
    fn a_back_end_that_is_not_there_or_of_another_version_is_wrong_and_of_this_one_right() {
        let store = FakeStore::new();
        store.introduce(3, "three");
        let (dom0, guest) = (store.connect(0), store.connect(3));
        let told = || {
            let mut found = Findings::default();
            in_store(&mut found, GUEST, &guest);
            (numbers(&found).0, found.text(false))
        };
        let (wrong, text) = told();
        assert!(
            wrong == 1 && text.contains("vshmemd --backend --port xen"),
            "{text}"
        );
        vshmem_registry::xenstore::Books::open(std::rc::Rc::new(store.connect(0))).unwrap();
        let announce = |text: &str| dom0.write(paths::BACKEND, text.as_bytes()).unwrap();
        announce(&Announcement::new(7).text());
        dom0.write("/vshmem/ready/3", b"three").unwrap();
        guest.write("data/vshmem/up/1", b"x").unwrap();
        let (wrong, text) = told();
        assert!(wrong == 0 && text.contains("ready: three (3)"), "{text}");
        assert!(text.contains("4 nodes of XenStore"), "{text}");
        announce("0000000000000007 1");
        let (wrong, text) = told();
        assert!(wrong == 1 && text.contains("(ABI 1, this is"), "{text}");
    }
}
