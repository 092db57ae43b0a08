// SPDX-License-Identifier: MIT OR Apache-2.0
//! Debian's `fakeroot-sysv`: two preloaded libraries in one process, and a daemon and its clients in two
//! domains that talk through two message queues under a semaphore.
//!
//! `chown` and `mknod` by one who is not root are noted by `faked-sysv`, and what `tar` then packs, in a
//! process of its own, belongs to whom they say.

use nix::unistd::geteuid;
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use vshmem_tests::program::{in_own_namespace, succeed_silently};
use vshmem_tests::{World, copy_product, stdout_of, wait_until};

/// A uid, and gid, that is not root's.
const NOBODY: u32 = 65534;
/// The library that makes root's calls seem to succeed.
const LIBRARY: &str = "/usr/lib/x86_64-linux-gnu/libfakeroot/libfakeroot-sysv.so";

/// Changes the tree, packs it, and lists what was packed.
const PACK: &str = "
    set -e
    chown 12:34 tree/given
    mknod tree/null c 1 3
    tar --create --sort=name --mtime=@0 --file tree.tar tree
    TZ=UTC tar --list --verbose --numeric-owner --file tree.tar
";
/// What is then in the archive.
const PACKED: &str = "\
drwxr-xr-x 0/0               0 1970-01-01 00:00 tree/
-rw-r--r-- 12/34             5 1970-01-01 00:00 tree/given
-rw-r--r-- 0/0               4 1970-01-01 00:00 tree/kept
crw-r--r-- 0/0             1,3 1970-01-01 00:00 tree/null
";
/// Says which keys the library was told, and shows what is routed.
const SHOW: &str = r#"echo "$FAKEROOTKEY"; LD_PRELOAD= "$VSHMEM" ls --domain a"#;

/// A directory with a tree of its own, in which somebody who is not root works.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Self {
        assert!(
            Path::new(LIBRARY).exists(),
            "{LIBRARY} is missing: install the Debian package fakeroot"
        );
        let place = Self(tempfile::tempdir().expect("tempdir"));
        fs::create_dir(place.path("tree")).expect("mkdir");
        fs::create_dir(place.path("bin")).expect("mkdir");
        fs::write(place.path("tree/given"), "given").expect("write");
        fs::write(place.path("tree/kept"), "kept").expect("write");
        copy_product(&place.path("bin"));
        for (name, mode) in [
            ("", 0o755),
            ("bin", 0o755),
            ("tree", 0o755),
            ("tree/given", 0o644),
            ("tree/kept", 0o644),
        ] {
            let path = place.path(name);
            fs::set_permissions(&path, Permissions::from_mode(mode)).expect("chmod");
            if geteuid().is_root() {
                chown(&path, Some(NOBODY), Some(NOBODY)).expect("chown");
            }
        }
        place
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A program, run in the directory by somebody who is not root.
    fn command(&self, program: impl AsRef<std::ffi::OsStr>) -> Command {
        let mut command = if geteuid().is_root() {
            let mut command = Command::new("setpriv");
            let user = NOBODY.to_string();
            command.args(["--reuid", &user, "--regid", &user, "--clear-groups", "--"]);
            command.arg(program);
            command
        } else {
            Command::new(program)
        };
        command.current_dir(self.0.path());
        command
    }

    /// `vshmem run` in a domain of a world.
    fn run(&self, world: &World, domain: &str) -> Command {
        let mut command = self.command(self.path("bin/vshmem"));
        command
            .args(["run", "--domain", domain, "--"])
            .env("VSHMEM", self.path("bin/vshmem"))
            .env("VSHMEM_DIR", world.dir());
        command
    }

    /// The files of the tree are still the user's own.
    fn assert_nothing_was_given(&self) {
        use std::os::unix::fs::MetadataExt;
        let owner = self.path("tree/kept").metadata().expect("stat").uid();
        for name in ["tree/given", "tree/null"] {
            let meta = self.path(name).metadata().expect("stat");
            assert!(meta.is_file(), "{name}");
            assert_eq!(meta.uid(), owner, "{name}");
        }
    }
}

/// A world of two domains, with daemons that others may reach.
fn world() -> World {
    let world = World::new();
    fs::set_permissions(world.dir(), Permissions::from_mode(0o755)).expect("chmod");
    world.up("a");
    world.up("b");
    world
}

/// The keys of each table of `vshmem ls` beside the one of segments: queues, and sets.
fn routed_keys(listing: &str) -> (Vec<u32>, Vec<u32>) {
    let (mut queues, mut sets) = (Vec::new(), Vec::new());
    for table in listing.split("\n\n").skip(1) {
        let (header, rows) = table.split_once('\n').unwrap_or((table, ""));
        let keys = if header.contains("nsems") {
            &mut sets
        } else {
            &mut queues
        };
        let key = |row: &str| {
            let key = row.split(' ').next()?.strip_prefix("0x")?;
            u32::from_str_radix(key, 16).ok()
        };
        keys.extend(rows.lines().map(|row| key(row).expect("a key")));
    }
    queues.sort_unstable();
    (queues, sets)
}

/// Checks what [`PACK`] and [`SHOW`] wrote, and that nothing is left of what they worked on.
fn check(world: &World, place: &Place, written: &str) {
    let shown = written.strip_prefix(PACKED);
    let shown = shown.unwrap_or_else(|| panic!("not packed as root would:\n{written}"));
    let (key, listing) = shown.split_once('\n').expect("a key");
    let key: u32 = key.parse().expect("a key");
    let (queues, sets) = routed_keys(listing);
    let by_faked = [key, key.wrapping_add(1)];
    assert_eq!(queues, by_faked, "{listing}");
    assert_eq!(sets, [key.wrapping_add(2)], "{listing}");
    place.assert_nothing_was_given();
    wait_until("faked-sysv has removed what it made", || {
        let listing = succeed_silently(world.vshmem(&["ls", "--domain", "b"]));
        routed_keys(&listing) == (Vec::new(), Vec::new())
    });
}

#[test]
fn fakeroot_packs_what_is_not_roots_as_roots_natively() {
    let place = Place::new();
    let mut command = place.command("fakeroot-sysv");
    command.args(["--", "sh", "-c", PACK]);
    let mut own = in_own_namespace(&command);
    own.current_dir(place.0.path());
    assert_eq!(stdout_of(own), PACKED);
    place.assert_nothing_was_given();
}

#[test]
fn fakeroot_in_one_domain_packs_with_its_daemon_in_another() {
    let (world, place) = (world(), Place::new());
    let faked = format!(
        "{} run --domain b -- faked-sysv",
        place.path("bin/vshmem").display()
    );
    // The script puts its library before ours, which was there first.
    let mut command = place.run(&world, "a");
    command.args(["fakeroot-sysv", "--faked", &faked, "--", "sh", "-c"]);
    command.arg(format!("{PACK}{SHOW}"));
    check(&world, &place, &stdout_of(command));
}

#[test]
fn fakeroot_works_with_its_library_behind_ours() {
    let (world, place) = (world(), Place::new());
    let mut faked = place.run(&world, "b");
    // It goes on with its stderr open.
    faked.arg("faked-sysv").stderr(Stdio::null());
    let said = stdout_of(faked);
    let (key, pid) = said.trim().split_once(':').expect("KEY:PID");
    // Not in the command itself, which would ask a faked-sysv of the kernel's.
    let behind = format!("export LD_PRELOAD=\"$LD_PRELOAD:{LIBRARY}\" FAKEROOTKEY={key}");
    let mut command = place.run(&world, "a");
    command.args(["sh", "-c", &format!("{behind}; exec sh -c \"$0\"")]);
    command.arg(format!("{PACK}{SHOW}"));
    let output = command.output().expect("sh");
    let pid = nix::unistd::Pid::from_raw(pid.parse().expect("a pid"));
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).expect("faked-sysv runs");
    assert!(output.status.success(), "{output:?}");
    check(&world, &place, &String::from_utf8_lossy(&output.stdout));
}
