// SPDX-License-Identifier: MIT OR Apache-2.0
//! The Debian packages that building and testing needs: `ci/packages.txt`.

use crate::{Result, project};
use std::path::Path;
use std::process::{Command, Stdio};

/// Read by PostgreSQL's installation: settings for the cluster it would make.
const CLUSTER_SETTINGS: &str = "/etc/postgresql-common/createcluster.d";

/// Installs what is missing of what the tests need, or says what to install.
pub fn provide() -> Result<()> {
    require_list("ci/packages.txt")
}

/// Installs what is missing of a list of the project, or says what to install.
pub fn require_list(list: &str) -> Result<()> {
    let text = read(list)?;
    if !Path::new("/usr/bin/dpkg-query").exists() {
        eprintln!("xtask: this is no Debian; what {list} lists must be there");
        return Ok(());
    }
    require(names(&text))
}

/// The text of a list of the project, for [`names`].
pub fn read(list: &str) -> Result<String> {
    let list = project::root().join(list);
    std::fs::read_to_string(&list).map_err(|e| format!("{}: {e}", list.display()))
}

/// Installs what is missing of these, or says what to install.
pub fn require<'a>(packages: impl IntoIterator<Item = &'a str>) -> Result<()> {
    let mut missing = Vec::new();
    for package in packages {
        if !is_installed(package)? {
            missing.push(package);
        }
    }
    if missing.is_empty() {
        return Ok(());
    }
    if !nix::unistd::geteuid().is_root() {
        return Err(format!(
            "packages are missing; as root: apt-get install {}",
            missing.join(" ")
        ));
    }
    install(&missing)
}

/// The packages of a list: the first word of each line, `#` begins a comment.
pub fn names(list: &str) -> impl Iterator<Item = &str> {
    list.lines()
        .filter_map(|line| line.split('#').next()?.split_whitespace().next())
}

fn is_installed(package: &str) -> Result<bool> {
    let mut query = Command::new("dpkg-query");
    query
        .args(["-W", "-f", "${db:Status-Status}", package])
        .stderr(Stdio::null());
    let output = query
        .output()
        .map_err(|e| project::cannot_run(&query, &e))?;
    Ok(output.stdout == b"installed")
}

fn install(missing: &[&str]) -> Result<()> {
    eprintln!("xtask: installing {}", missing.join(" "));
    let apt = |args: &[&str]| {
        project::run(
            Command::new("apt-get")
                .env("DEBIAN_FRONTEND", "noninteractive")
                .args(["-q", "-y"])
                .args(args)
                .stdout(Stdio::null()),
        )
    };
    apt(&["update"])?;
    let arguments: Vec<_> = ["install", "--no-install-recommends"]
        .iter()
        .chain(missing)
        .copied()
        .collect();
    if !missing.iter().any(|name| name.starts_with("postgresql")) {
        return apt(&arguments);
    }
    // The tests make databases of their own; a server that starts with the machine is not wanted.
    let settings = Path::new(CLUSTER_SETTINGS).join("vshmem-tests.conf");
    let fail = |e: std::io::Error| format!("{}: {e}", settings.display());
    std::fs::create_dir_all(CLUSTER_SETTINGS).map_err(fail)?;
    std::fs::write(&settings, "create_main_cluster = false\n").map_err(fail)?;
    let installed = apt(&arguments);
    std::fs::remove_file(&settings).map_err(fail)?;
    installed
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_list_has_a_package_a_line_with_a_comment_behind() {
        let list = "# head\n\ngcc   # compiles\nmake\n";
        assert_eq!(names(list).collect::<Vec<_>>(), ["gcc", "make"]);
    }

    #[test]
    fn the_list_of_the_project_names_packages_only() {
        let list = read("ci/packages.txt").unwrap();
        let allowed = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "+-.".contains(c);
        for name in names(&list) {
            assert!(name.chars().all(allowed), "{name}");
        }
        assert!(names(&list).any(|name| name == "gcc"));
    }
}
