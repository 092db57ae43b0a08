// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the registrar needs from outside: other domains, the time, the kernel's settings.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::time::{SystemTime, UNIX_EPOCH};
use vshmem_abi::Domid;
use vshmem_abi::limits::ShmLimits;
use vshmem_abi::link::LinkMsg;

/// Why a domain has not answered a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoAnswer {
    /// It is there and has been told, but says nothing. It may be using what it was asked about.
    Silent,
    /// It is gone.
    Gone,
}

/// The way to ask other domains.
pub trait Peers {
    /// Asks a domain a query and waits for its answer.
    fn query(&mut self, domid: Domid, query: &LinkMsg) -> Result<LinkMsg, NoAnswer>;
}

/// The time and the limits, which tests replace.
pub trait Environment {
    /// Seconds since the epoch.
    fn now(&self) -> i64;

    /// The limits that hold at this moment.
    fn shm_limits(&self) -> ShmLimits;
}

/// The machine's clock and the kernel's settings.
#[derive(Debug)]
pub struct System {
    max: Setting,
    all: Setting,
    mni: Setting,
}

impl System {
    /// Opens the kernel's settings; one that cannot be opened has the kernel's default.
    pub fn new() -> Self {
        let default = ShmLimits::DEFAULT;
        Self {
            max: Setting::open("/proc/sys/kernel/shmmax", default.max),
            all: Setting::open("/proc/sys/kernel/shmall", default.all),
            mni: Setting::open("/proc/sys/kernel/shmmni", default.mni),
        }
    }
}

impl Default for System {
    fn default() -> Self {
        Self::new()
    }
}

impl Environment for System {
    fn now(&self) -> i64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        since.map_or(0, |d| i64::try_from(d.as_secs()).unwrap_or(i64::MAX))
    }

    fn shm_limits(&self) -> ShmLimits {
        ShmLimits {
            max: self.max.read(),
            all: self.all.read(),
            mni: self.mni.read(),
        }
    }
}

/// A file of one number, kept open: each creation of a segment asks, and to open three files
/// takes as long as all the rest of it.
#[derive(Debug)]
struct Setting {
    file: Option<File>,
    default: u64,
}

impl Setting {
    fn open(path: &str, default: u64) -> Self {
        Self {
            file: File::open(path).ok(),
            default,
        }
    }

    fn read(&self) -> u64 {
        let mut text = [0; 32];
        let read = self
            .file
            .as_ref()
            .and_then(|f| f.read_at(&mut text, 0).ok());
        read.and_then(|len| str::from_utf8(&text[..len]).ok())
            .and_then(|text| text.trim().parse().ok())
            .unwrap_or(self.default)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limits_are_the_kernels() {
        assert_eq!(System::new().shm_limits(), ShmLimits::read());
    }

    #[test]
    fn a_setting_is_read_anew_each_time_and_has_a_default() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let setting = Setting::open(file.path().to_str().unwrap(), 5);
        assert_eq!(setting.read(), 5);
        std::fs::write(file.path(), "7\n").unwrap();
        assert_eq!(setting.read(), 7);
        assert_eq!(Setting::open("/nowhere/at/all", 6).read(), 6);
    }
}
