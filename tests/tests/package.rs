// SPDX-License-Identifier: MIT OR Apache-2.0
//! The Debian package that `cargo xtask deb` makes: installed, used, upgraded and removed in a clean root.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use vshmem_tests::program::is_root;
use vshmem_tests::{bin, root, stdout_of, succeed};

/// What there is in the root beside what every Debian has.
const PACKAGES: &str = "systemd,util-linux";

/// The archive of a clean root of the Debian that this machine has; `target/` keeps it.
fn clean_root() -> PathBuf {
    let release = fs::read_to_string("/etc/os-release").expect("os-release");
    let codename = release
        .lines()
        .find_map(|line| line.strip_prefix("VERSION_CODENAME="))
        .expect("a Debian");
    let dir = root().join("target/clean-root");
    fs::create_dir_all(&dir).expect("target directory");
    let archive = dir.join(format!("{codename}.tar"));
    // Two test runs in one checkout must not make it at the same time.
    let lock = File::create(dir.join("lock")).expect("lock file");
    lock.lock().expect("lock");
    if !archive.exists() {
        let unfinished = dir.join("unfinished.tar");
        let mut make = Command::new("mmdebstrap");
        make.args([
            "--quiet",
            "--variant=minbase",
            "--include",
            PACKAGES,
            codename,
        ]);
        make.arg(&unfinished);
        succeed(make);
        fs::rename(&unfinished, &archive).expect("rename of the clean root");
    }
    archive
}

/// The package, made of what is built now.
fn package() -> PathBuf {
    let package = root().join("target/debian/vshmem.deb");
    let age = |path: &Path| path.metadata().and_then(|meta| meta.modified()).ok();
    let parts = ["vshmem", "vshmemd", "libvshmem.so"].map(|part| age(&bin(part)));
    assert!(
        age(&package).is_some_and(|made| parts.iter().all(|built| *built <= Some(made))),
        "{} is missing or older than what is built: run `cargo xtask deb` first",
        package.display()
    );
    package
}

/// The same package as a newer version.
fn newer(package: &Path, scratch: &Path, into: &Path) {
    let mut unpack = Command::new("dpkg-deb");
    unpack.arg("--raw-extract").arg(package).arg(scratch);
    succeed(unpack);
    let control = scratch.join("DEBIAN/control");
    let text = fs::read_to_string(&control).expect("control");
    let raised: Vec<_> = text
        .lines()
        .map(|line| match line.strip_prefix("Version: ") {
            Some(version) => format!("Version: {version}+newer"),
            None => line.to_owned(),
        })
        .collect();
    fs::write(&control, raised.join("\n") + "\n").expect("control");
    let mut pack = Command::new("dpkg-deb");
    pack.args(["--root-owner-group", "-Zgzip", "--build"]);
    pack.arg(scratch).arg(into);
    succeed(pack);
}

/// What `inside.sh` wrote, by part.
fn parts(text: &str) -> BTreeMap<String, String> {
    let mut parts = BTreeMap::new();
    for part in text.split("== ").skip(1) {
        let (name, text) = part.split_once('\n').expect("a line");
        parts.insert(name.to_owned(), text.to_owned());
    }
    parts
}

#[test]
fn the_package_installs_works_is_upgraded_under_living_programs_and_leaves_nothing() {
    if !is_root() {
        return;
    }
    let (package, archive) = (package(), clean_root());
    let dir = tempfile::Builder::new()
        .prefix("package-")
        .tempdir_in(root().join("target"))
        .expect("tempdir");
    let (clean, scratch) = (dir.path().join("root"), dir.path().join("newer"));
    fs::create_dir(&clean).expect("mkdir");
    let mut unpack = Command::new("tar");
    unpack.arg("-xf").arg(&archive).arg("-C").arg(&clean);
    unpack.args(["--exclude", "./dev/*"]);
    succeed(unpack);
    let new = clean.join("new");
    fs::create_dir(&new).expect("mkdir");
    fs::copy(&package, new.join("old.deb")).expect("copy");
    fs::copy(
        root().join("tests/package/inside.sh"),
        new.join("inside.sh"),
    )
    .expect("copy");
    newer(&package, &scratch, &new.join("newer.deb"));
    let mut compile = Command::new("gcc");
    compile.arg(scratch.join("usr/share/doc/vshmem/examples/hello.c"));
    compile.arg("-o").arg(new.join("hello"));
    succeed(compile);
    for (name, of) in [("stdin", "0"), ("stdout", "1"), ("stderr", "2"), ("fd", "")] {
        symlink(format!("/proc/self/fd/{of}"), clean.join("dev").join(name)).expect("symlink");
    }

    // A machine of its own, as far as a kernel can give one: all in it ends with the script.
    let mut machine = Command::new("unshare");
    machine.args([
        "--mount",
        "--ipc",
        "--pid",
        "--net",
        "--uts",
        "--fork",
        "--kill-child",
    ]);
    machine.args(["sh", "-ec", ENTER]).arg(&clean);
    let text = stdout_of(machine);
    let parts = parts(&text);
    let part = |name: &str| {
        parts
            .get(name)
            .unwrap_or_else(|| panic!("{name}: {text}"))
            .as_str()
    };

    assert!(part("install").contains("vshmem:x:"), "{text}");
    assert_eq!(part("units"), "");
    assert!(part("demo").ends_with("all is well\n"), "{text}");
    assert!(part("upgrade").contains("daemons that run go on"), "{text}");
    assert!(part("upgrade").contains("alpha:1"), "{text}");
    assert!(
        part("reader").contains("saw \"greetings from pid"),
        "{text}"
    );
    assert!(
        part("writer").contains("was answered \"thanks, pid"),
        "{text}"
    );
    assert_eq!(part("left"), "", "{text}");
    assert!(parts.contains_key("end"), "{text}");
}

/// Goes into the root `$0` and runs the script there.
const ENTER: &str = r#"
mount --make-rprivate /
for device in null zero full random urandom; do
    : >"$0/dev/$device"
    mount --bind "/dev/$device" "$0/dev/$device"
done
mount -t proc proc "$0/proc"
mount -t tmpfs -o mode=755 tmpfs "$0/run"
mount -t tmpfs tmpfs "$0/tmp"
exec chroot "$0" env -i /bin/sh /new/inside.sh
"#;
