// SPDX-License-Identifier: MIT OR Apache-2.0
//! The QEMU that emulates machines with PVH guests: Debian's source with the corrections of `qemu.patch`, built
//! once below `target/lab`. Debian's own does for all others.

use super::{Accelerator, Kind, Setup, debian};
use crate::{Result, packages, project};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const PATCH: &str = include_str!("qemu.patch");

/// The Debian package of the same QEMU, which also has what its machines begin with.
pub const PACKAGE: &str = "qemu-system-x86";

/// Its source.
const SOURCE: &str = "qemu";

/// What its machines begin with, which is not built.
const FIRMWARE: [&str; 2] = ["/usr/share/seabios", "/usr/share/qemu"];

/// As little of QEMU as boots Xen.
const OPTIONS: [&str; 8] = [
    "--target-list=x86_64-softmmu",
    "--without-default-features",
    "--enable-system",
    "--enable-tcg",
    "--enable-fdt=system",
    "--disable-docs",
    "--disable-debug-info",
    "--disable-install-blobs",
];

/// Whether it is this QEMU that runs a machine.
pub fn is_for(setup: &Setup, accelerator: Accelerator) -> bool {
    (accelerator, setup.guest) == (Accelerator::Tcg, Kind::Pvh)
}

/// How it is started, once it is built.
pub fn command(lab: &Path) -> Vec<PathBuf> {
    let firmware = FIRMWARE.iter().flat_map(|dir| ["-L".into(), dir.into()]);
    std::iter::once(program(lab)).chain(firmware).collect()
}

fn program(lab: &Path) -> PathBuf {
    lab.join("qemu/build/qemu-system-x86_64")
}

/// Builds it if it is not there, or not of these corrections.
pub fn provide(lab: &Path) -> Result<()> {
    let dir = lab.join("qemu");
    let stamp = dir.join("corrections");
    let fail = |e: std::io::Error| format!("{}: {e}", dir.display());
    if program(lab).exists() && std::fs::read_to_string(&stamp).ok().as_deref() == Some(PATCH) {
        return Ok(());
    }
    packages::require_list("ci/qemu-packages.txt")?;
    if dir.exists() {
        std::fs::remove_dir_all(&dir).map_err(fail)?;
    }
    let build = dir.join("build");
    std::fs::create_dir_all(&build).map_err(fail)?;
    eprintln!(
        "xtask: building QEMU for PVH guests below {}, once, for some minutes",
        dir.display()
    );
    let source = fetch(&dir)?;
    let patch = dir.join("qemu.patch");
    std::fs::write(&patch, PATCH).map_err(fail)?;
    let log = dir.join("build.log");
    let mut steps = [
        Command::new("patch"),
        Command::new(source.join("configure")),
        Command::new("ninja"),
    ];
    steps[0]
        .args(["-p1", "-i"])
        .arg(&patch)
        .current_dir(&source);
    steps[1].args(OPTIONS).current_dir(&build);
    steps[2].arg("qemu-system-x86_64").current_dir(&build);
    for step in &mut steps {
        let out = std::fs::File::options()
            .create(true)
            .append(true)
            .open(&log);
        let out = out.map_err(fail)?;
        step.stderr(out.try_clone().map_err(fail)?).stdout(out);
        project::run(step).map_err(|e| format!("{e}; what it said is in {}", log.display()))?;
    }
    std::fs::write(&stamp, PATCH).map_err(fail)
}

/// Fetches the source of the package that Debian has now, and unpacks it.
fn fetch(dir: &Path) -> Result<PathBuf> {
    let list = dir.join("sources.list");
    let fail = |e: std::io::Error| format!("{}: {e}", dir.display());
    std::fs::write(&list, format!("deb-src {}\n", origin()?)).map_err(fail)?;
    let lists = dir.join("lists");
    std::fs::create_dir_all(lists.join("partial")).map_err(fail)?;
    let mut update = apt(&list, &lists);
    update.arg("update");
    let mut download = apt(&list, &lists);
    download
        .args(["source", "--download-only", SOURCE])
        .current_dir(dir);
    let source = dir.join("source");
    for mut step in [update, download] {
        project::run(step.stdout(Stdio::null()))?;
    }
    let mut unpack = Command::new("dpkg-source");
    unpack
        .args(["-x"])
        .arg(debian::find(dir, "qemu_", ".dsc")?)
        .arg(&source);
    project::run(unpack.stdout(Stdio::null()).stderr(Stdio::null()))?;
    Ok(source)
}

/// apt with lists of its own, since few machines have those of sources.
fn apt(list: &Path, lists: &Path) -> Command {
    let mut apt = debian::apt_get();
    apt.arg("-o")
        .arg(format!("Dir::Etc::sourcelist={}", list.display()))
        .args(["-o", "Dir::Etc::sourceparts=/dev/null", "-o"])
        .arg(format!("Dir::State::lists={}", lists.display()))
        .args([
            "-o",
            "Dir::Cache::pkgcache=",
            "-o",
            "Dir::Cache::srcpkgcache=",
        ]);
    apt
}

/// Where the package comes from, as a list of sources has it.
fn origin() -> Result<String> {
    let mut ask = debian::apt_get();
    ask.args(["--print-uris", "download", PACKAGE]);
    let output = ask.output().map_err(|e| project::cannot_run(&ask, &e))?;
    project::judge(&ask, output.status)?;
    let release = std::fs::read_to_string("/etc/os-release").unwrap_or_default();
    origin_of(&String::from_utf8_lossy(&output.stdout), &release)
        .ok_or_else(|| "apt does not say where QEMU comes from; the lab needs Debian 12".into())
}

/// The same, from what apt says of the package and from `os-release`.
fn origin_of(said: &str, release: &str) -> Option<String> {
    let mirror = said.trim_start_matches('\'').split_once("/pool/")?.0;
    let name = release
        .lines()
        .find_map(|line| line.strip_prefix("VERSION_CODENAME="))?;
    let suite = match mirror.ends_with("-security") {
        true => format!("{name}-security"),
        false => name.to_owned(),
    };
    Some(format!("{mirror} {suite} main"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sources_are_where_the_package_is() {
        let release = "ID=debian\nVERSION_CODENAME=bookworm\n";
        let of = |said| origin_of(said, release);
        assert_eq!(
            of("'http://deb.debian.org/debian/pool/main/q/qemu/qemu.deb' qemu.deb 9 SHA256:a"),
            Some("http://deb.debian.org/debian bookworm main".into())
        );
        assert_eq!(
            of("'http://deb.debian.org/debian-security/pool/updates/main/q/qemu/qemu.deb' q 9"),
            Some("http://deb.debian.org/debian-security bookworm-security main".into())
        );
        assert_eq!(of("E: Unable to locate package"), None);
    }
}
