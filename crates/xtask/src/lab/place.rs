// SPDX-License-Identifier: MIT OR Apache-2.0
//! The lab's place, `target/lab`: one lab at a time, its logs, and what is known of this machine.

use super::{Accelerator, Setup};
use crate::{Result, project};
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};

/// Lines of a log that are shown when something went wrong.
const LAST_LINES: usize = 25;

/// Changes with each boot of this machine.
const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// The place, of which this process has the only hold.
pub struct Place {
    dir: PathBuf,
    _lock: File,
}

impl Place {
    /// Where it is.
    pub fn path() -> Result<PathBuf> {
        let bin = project::bin_dir()?;
        Ok(bin.parent().unwrap_or(&bin).join("lab"))
    }

    /// Takes hold of it.
    pub fn take() -> Result<Self> {
        let dir = Self::path()?;
        let logs = dir.join("log");
        let fail = |e: std::io::Error| format!("{}: {e}", dir.display());
        std::fs::create_dir_all(&logs).map_err(fail)?;
        let lock = File::create(dir.join("lock")).map_err(fail)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(format!(
                    "another lab of this checkout runs ({} is locked): wait for its end",
                    dir.join("lock").display()
                ));
            }
            Err(TryLockError::Error(error)) => return Err(fail(error)),
        }
        for log in files(&logs) {
            std::fs::remove_file(&log).map_err(|e| format!("{}: {e}", log.display()))?;
        }
        Ok(Self { dir, _lock: lock })
    }

    /// Where the lab keeps its things.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where logs are.
    pub fn logs(&self) -> PathBuf {
        self.dir.join("log")
    }

    /// Puts aside the logs of a boot that failed.
    pub fn put_aside(&self, boot: u32) -> Result<()> {
        for log in self.current() {
            let name = log.file_name().unwrap_or_default().to_string_lossy();
            let aside = log.with_file_name(format!("failed-boot-{boot}-{name}"));
            std::fs::rename(&log, aside).map_err(|e| format!("{}: {e}", log.display()))?;
        }
        Ok(())
    }

    /// The ends of the logs of the last boot.
    pub fn last_lines(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for path in self.current() {
            let text = std::fs::read(&path).unwrap_or_default();
            let text = String::from_utf8_lossy(&text);
            let all: Vec<_> = text.lines().collect();
            if !all.is_empty() {
                lines.push(format!("the end of {}:", path.display()));
            }
            let from = all.len().saturating_sub(LAST_LINES);
            lines.extend(all[from..].iter().map(|line| format!("  {line}")));
        }
        lines
    }

    /// Logs of the last boot.
    fn current(&self) -> Vec<PathBuf> {
        let mut logs = files(&self.logs());
        logs.retain(|log| {
            let name = log.file_name().unwrap_or_default().to_string_lossy();
            !name.starts_with("failed-boot-")
        });
        logs
    }

    /// What is to run the machine: what was asked for, else KVM if it is there and is not known to
    /// be unable.
    pub fn accelerator(&self, setup: &Setup) -> Accelerator {
        let kvm = || {
            let device = File::options().read(true).write(true).open("/dev/kvm");
            let unable = std::fs::read_to_string(self.unable()).ok();
            device.is_ok() && unable != std::fs::read_to_string(BOOT_ID).ok()
        };
        match setup.accelerator {
            Some(asked) => asked,
            None if kvm() => Accelerator::Kvm,
            None => Accelerator::Tcg,
        }
    }

    /// Keeps in mind, until this machine boots again, that its KVM does not run Xen.
    pub fn forget_kvm(&self) {
        // What cannot be written down is found out again.
        let _ = std::fs::copy(BOOT_ID, self.unable());
    }

    fn unable(&self) -> PathBuf {
        self.dir.join("kvm-does-not-run-xen")
    }
}

/// The files of a directory, in order.
fn files(dir: &Path) -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(dir) else {
        return Vec::new();
    };
    let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    paths
}
