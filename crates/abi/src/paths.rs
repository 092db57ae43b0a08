// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where sockets, pid files, logs and the configuration are. Everything of one world lies in one directory, so two
//! directories are two worlds that know nothing of each other.

use std::path::{Path, PathBuf};

/// Environment variable that names the directory.
pub const ENV_DIR: &str = "VSHMEM_DIR";
/// Environment variable that names the domain a client belongs to.
pub const ENV_DOMAIN: &str = "VSHMEM_DOMAIN";
/// Environment variable that lists the routed keys.
pub const ENV_KEYS: &str = "VSHMEM_KEYS";
/// The domain of a client that names none.
pub const DEFAULT_DOMAIN: &str = "local";

/// The directory to use: `VSHMEM_DIR`, else `/run/vshmem` for root, else
/// `$XDG_RUNTIME_DIR/vshmem`, else `/tmp/vshmem-UID`. Root comes before `XDG_RUNTIME_DIR` since
/// daemons and root's logins must meet in one place.
pub fn default_dir() -> PathBuf {
    if let Some(dir) = non_empty_env(ENV_DIR) {
        return PathBuf::from(dir);
    }
    let uid = rustix::process::getuid().as_raw();
    if uid == 0 {
        return PathBuf::from("/run/vshmem");
    }
    if let Some(dir) = non_empty_env("XDG_RUNTIME_DIR") {
        return Path::new(&dir).join("vshmem");
    }
    PathBuf::from(format!("/tmp/vshmem-{uid}"))
}

/// The domain to use: `VSHMEM_DOMAIN`, else [`DEFAULT_DOMAIN`].
pub fn default_domain() -> String {
    non_empty_env(ENV_DOMAIN)
        .and_then(|name| name.into_string().ok())
        .unwrap_or_else(|| DEFAULT_DOMAIN.to_owned())
}

fn non_empty_env(name: &str) -> Option<std::ffi::OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

/// Why `name` cannot be a domain's name, if it cannot. A name becomes part of file names.
pub fn domain_name_error(name: &str) -> Option<&'static str> {
    if name.is_empty() || name.len() > 32 {
        return Some("a domain name has 1 to 32 characters");
    }
    if !name
        .bytes()
        .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
    {
        return Some("a domain name has letters, digits, '-', '_' and '.' only");
    }
    if name.starts_with('.') || name == "backend" {
        return Some("a domain name does not begin with '.' and is not 'backend'");
    }
    None
}

/// The socket on which the `vshmemd` of a domain serves its clients.
pub fn domain_socket(dir: &Path, domain: &str) -> PathBuf {
    dir.join(format!("{domain}.sock"))
}

/// The socket on which the back-end enrols domains.
pub fn backend_socket(dir: &Path) -> PathBuf {
    dir.join("backend.sock")
}

/// The pid file of a domain's `vshmemd`, or of the back-end (`name` is then `backend`). Its
/// daemon holds an exclusive `flock` on it for as long as it lives.
pub fn pid_file(dir: &Path, name: &str) -> PathBuf {
    dir.join(format!("{name}.pid"))
}

/// The second line of the pid file of a Xen guest's `vshmemd`, whose back-end is in dom0.
pub const PID_FILE_OF_GUEST: &str = "port xen\n";

/// The log file of a daemon that `vshmem run` started.
pub fn log_file(dir: &Path, name: &str) -> PathBuf {
    dir.join(format!("{name}.log"))
}

/// Where the daemons of a directory look for their configuration, in this order.
pub fn config_files(dir: &Path) -> [PathBuf; 2] {
    [
        dir.join("vshmem.toml"),
        PathBuf::from("/etc/vshmem/vshmem.toml"),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_would_leave_the_directory_are_refused() {
        for bad in ["", "..", "a/b", ".x", "backend", "a b", &"x".repeat(33)] {
            assert!(domain_name_error(bad).is_some(), "{bad}");
        }
        for good in ["a", "dom-1", "web_2.test"] {
            assert!(domain_name_error(good).is_none(), "{good}");
        }
    }
}
