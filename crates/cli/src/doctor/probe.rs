// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whether a program with the library in it reaches the daemon of a domain: this command is run once more,
//! as that program.

use std::path::Path;
use std::process::{Command, Stdio};
use vshmem_abi::paths;

/// Environment variable that makes this command such a program.
pub const ENV_PROBE: &str = "VSHMEM_DOCTOR_PROBE";

/// A key that nobody is likely to have.
const KEY: i32 = 0x7ffe_d0c7;

/// What such a program does: it looks for a segment that is not there, and ends with the errno of the answer,
/// or with 0 where that is one of somebody who was reached.
pub fn probe() -> i32 {
    // SAFETY: looks for a segment, and makes none.
    let found = unsafe { libc::shmget(KEY, 0, 0) };
    let errno = std::io::Error::last_os_error().raw_os_error();
    match errno.filter(|_| found < 0) {
        // Not there, or not for this domain.
        None | Some(libc::ENOENT | libc::EACCES) => 0,
        Some(errno) => errno,
    }
}

/// Whether programs of a domain, whose files are called `name`, reach its daemon.
///
/// # Errors
/// What the library says, or else the errno.
pub fn reaches(dir: &Path, name: &str, library: &Path) -> Result<(), String> {
    let own = std::env::current_exe().map_err(|error| error.to_string())?;
    let mut command = Command::new(own);
    command
        .env("LD_PRELOAD", library)
        .env(paths::ENV_DIR, dir)
        .env(paths::ENV_DOMAIN, name)
        .env(paths::ENV_KEYS, "all")
        .env(ENV_PROBE, "1")
        .stdin(Stdio::null());
    let run = command.output().map_err(|error| error.to_string())?;
    if run.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&run.stderr);
    match (said.lines().next(), run.status.code()) {
        (Some(line), _) => Err(line.to_owned()),
        (None, Some(errno)) => Err(crate::ask::text(errno).to_owned()),
        (None, None) => Err(run.status.to_string()),
    }
}
