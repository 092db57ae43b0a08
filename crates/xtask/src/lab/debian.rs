// SPDX-License-Identifier: MIT OR Apache-2.0
//! The lab's Debian packages: fetched as any user and unpacked below `target/lab`, nothing of
//! them is installed. What is there is kept for as long as Debian's versions are the same.

use crate::{Result, packages, project};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Depends on the current kernel; it is that one that is unpacked.
const KERNEL: &str = "linux-image-amd64";

/// Packages by name, with their versions.
type Versions = BTreeMap<String, String>;

/// The unpacked packages.
#[derive(Debug)]
pub struct Root {
    dir: PathBuf,
    /// The kernel's release, as in `uname -r`.
    kernel: String,
}

impl Root {
    /// Fetches and unpacks what is not there yet.
    pub fn provide(lab: &Path) -> Result<Self> {
        let text = packages::read("ci/lab-packages.txt")?;
        let wanted: Vec<&str> = packages::names(&text).collect();
        let (dir, stamp) = (lab.join("root"), lab.join("packages"));
        let there = std::fs::read_to_string(&stamp).ok();
        match versions(&wanted) {
            Ok(versions) => {
                if there.as_deref() != Some(&listed(&versions)) {
                    unpack(lab, &dir, &versions)?;
                    std::fs::write(&stamp, listed(&versions))
                        .map_err(|e| format!("{}: {e}", stamp.display()))?;
                }
            }
            Err(error) if there.is_none() => return Err(error),
            Err(error) => eprintln!("xtask: {error}; going on with what is unpacked"),
        }
        let kernel = kernel(&dir)?;
        Ok(Self { dir, kernel })
    }

    /// A file of the packages.
    pub fn path(&self, path: &str) -> PathBuf {
        self.dir.join(path)
    }

    /// The kernel.
    pub fn image(&self) -> PathBuf {
        self.path("boot").join(format!("vmlinuz-{}", self.kernel))
    }

    /// A module of the kernel, named by its path below the kernel's modules.
    pub fn module(&self, name: &str) -> PathBuf {
        let modules = format!("lib/modules/{}/kernel", self.kernel);
        self.path(&modules).join(format!("{name}.ko"))
    }

    /// Where the packages' shared libraries are.
    pub fn libraries(&self) -> PathBuf {
        self.path("usr/lib/x86_64-linux-gnu")
    }

    /// The one file of a directory whose name begins and ends like this.
    pub fn find(&self, dir: &str, begin: &str, end: &str) -> Result<PathBuf> {
        find(&self.path(dir), begin, end)
    }
}

/// The one file of a directory whose name begins and ends like this.
pub fn find(dir: &Path, begin: &str, end: &str) -> Result<PathBuf> {
    let entries = std::fs::read_dir(dir).map_err(|e| format!("{}: {e}", dir.display()))?;
    entries
        .flatten()
        .find(|entry| {
            let name = entry.file_name();
            let name = name.to_string_lossy();
            name.starts_with(begin) && name.ends_with(end)
        })
        .map(|entry| entry.path())
        .ok_or_else(|| format!("{} has no {begin}*{end}", dir.display()))
}

fn kernel(root: &Path) -> Result<String> {
    let image = find(&root.join("boot"), "vmlinuz-", "")?;
    let name = image.file_name().unwrap_or_default().to_string_lossy();
    Ok(name.trim_start_matches("vmlinuz-").to_owned())
}

/// The versions that Debian has now; as root its lists are fetched if they are not there.
fn versions(wanted: &[&str]) -> Result<Versions> {
    if !Path::new("/usr/bin/apt-cache").exists() {
        return Err(
            "the lab is made of Debian's packages, and there is no apt-cache here: run it on \
             Debian 12"
                .into(),
        );
    }
    let known = ask(wanted);
    if known.is_ok() || !nix::unistd::geteuid().is_root() {
        return known;
    }
    update()?;
    ask(wanted)
}

fn update() -> Result<()> {
    eprintln!("xtask: fetching Debian's lists of packages");
    project::run(apt_get().arg("update").stdout(Stdio::null()))
}

/// `apt-get` that may fetch into the project.
pub fn apt_get() -> Command {
    let mut apt = Command::new("apt-get");
    apt.arg("-q");
    if nix::unistd::geteuid().is_root() {
        // The user that apt changes to may have no way to the project.
        apt.args(["-o", "APT::Sandbox::User=root"]);
    }
    apt
}

fn ask(wanted: &[&str]) -> Result<Versions> {
    let mut known = show(wanted)?;
    if let Some((_, depends)) = known.remove(KERNEL) {
        let name = depends.split([' ', ',']).next().unwrap_or_default();
        known.extend(show(&[name])?);
    }
    let missing: Vec<_> = wanted
        .iter()
        .filter(|&&name| name != KERNEL && !known.contains_key(name))
        .copied()
        .collect();
    if !missing.is_empty() || !known.keys().any(|name| name.starts_with("linux-image-")) {
        let names = if missing.is_empty() {
            KERNEL.into()
        } else {
            missing.join(" ")
        };
        return Err(format!(
            "apt knows no package {names}: as root: apt-get update (the lab needs Debian 12)"
        ));
    }
    Ok(known
        .into_iter()
        .map(|(name, (version, _))| (name, version))
        .collect())
}

/// Versions and dependencies of the packages that apt knows.
fn show(names: &[&str]) -> Result<BTreeMap<String, (String, String)>> {
    let mut show = Command::new("apt-cache");
    show.args(["show", "--no-all-versions"])
        .args(names)
        .stderr(Stdio::null());
    let output = show.output().map_err(|e| project::cannot_run(&show, &e))?;
    Ok(described(&String::from_utf8_lossy(&output.stdout)))
}

/// Reads descriptions of packages: name to version and dependencies.
fn described(text: &str) -> BTreeMap<String, (String, String)> {
    let field = |paragraph: &str, name: &str| {
        let value = paragraph
            .lines()
            .find_map(|line| line.strip_prefix(name)?.strip_prefix(": "));
        value.unwrap_or_default().to_owned()
    };
    text.split("\n\n")
        .filter(|paragraph| !paragraph.trim().is_empty())
        .map(|paragraph| {
            let about = (field(paragraph, "Version"), field(paragraph, "Depends"));
            (field(paragraph, "Package"), about)
        })
        .collect()
}

/// One a line, as the stamp has it.
fn listed(versions: &Versions) -> String {
    versions
        .iter()
        .map(|(name, version)| format!("{name} {version}\n"))
        .collect()
}

fn unpack(lab: &Path, dir: &Path, versions: &Versions) -> Result<()> {
    let fresh = lab.join("root.new");
    let archives = lab.join("archives");
    for old in [&fresh, &dir.to_owned()] {
        if old.exists() {
            std::fs::remove_dir_all(old).map_err(|e| format!("{}: {e}", old.display()))?;
        }
    }
    for new in [&fresh, &archives] {
        std::fs::create_dir_all(new).map_err(|e| format!("{}: {e}", new.display()))?;
    }
    eprintln!(
        "xtask: fetching and unpacking {} packages below {}",
        versions.len(),
        lab.display()
    );
    if let Err(error) = download(&archives, versions) {
        if !nix::unistd::geteuid().is_root() {
            return Err(format!(
                "{error}; if apt's lists are old, as root: apt-get update"
            ));
        }
        update()?;
        download(&archives, versions)?;
    }
    let mut current = Vec::new();
    for (name, version) in versions {
        let begin = format!("{name}_{}_", version.replace(':', "%3a"));
        let archive = find(&archives, &begin, ".deb")?;
        project::run(Command::new("dpkg").arg("-x").arg(&archive).arg(&fresh))?;
        current.push(archive);
    }
    let entries =
        std::fs::read_dir(&archives).map_err(|e| format!("{}: {e}", archives.display()))?;
    for old in entries.flatten().map(|entry| entry.path()) {
        if !current.contains(&old) {
            // One that stays takes room, no more.
            let _ = std::fs::remove_file(old);
        }
    }
    std::fs::rename(&fresh, dir).map_err(|e| format!("{}: {e}", dir.display()))
}

/// Archives that are there already apt leaves as they are.
fn download(archives: &Path, versions: &Versions) -> Result<()> {
    let named = versions
        .iter()
        .map(|(name, version)| format!("{name}={version}"));
    project::run(
        apt_get()
            .arg("download")
            .args(named)
            .current_dir(archives)
            .stdout(Stdio::null()),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptions_give_versions_and_dependencies() {
        let text = "Package: libuuid1\nVersion: 2.38.1-5\nDepends: libc6 (>= 2.25)\n\n\
                    Package: linux-image-amd64\nSource: linux\nVersion: 6.1.2-1\n\
                    Depends: linux-image-6.1.0-5-amd64 (= 6.1.2-1)\n\n";
        let known = described(text);
        assert_eq!(known["libuuid1"].0, "2.38.1-5");
        assert!(known[KERNEL].1.starts_with("linux-image-6.1.0-5-amd64 "));
        assert_eq!(known.len(), 2);
    }

    #[test]
    fn the_list_names_the_hypervisor_and_a_kernel() {
        let text = packages::read("ci/lab-packages.txt").unwrap();
        let names: Vec<_> = packages::names(&text).collect();
        assert!(names.contains(&KERNEL));
        assert!(names.iter().any(|n| n.starts_with("xen-hypervisor-")));
    }
}
