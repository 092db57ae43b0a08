// SPDX-License-Identifier: MIT OR Apache-2.0
//! Limits: the kernel's own settings, and the limits that Vshmem's layouts set.

use std::fs::File;
use std::os::unix::fs::FileExt;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Constructs that one domain can know at a time (slots of its directory).
pub const DIR_SLOTS: usize = 1 << 17;

/// The settings of `/proc/sys/kernel` that govern segments. Units as in the files: bytes, pages,
/// segments (`proc_sys_kernel(5)`, `sysvipc(7)`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ShmLimits {
    /// SHMMAX: the largest segment, in bytes.
    pub max: u64,
    /// SHMALL: all segments together, in pages.
    pub all: u64,
    /// SHMMNI: how many segments there may be.
    pub mni: u64,
}

/// SHMMIN: the smallest segment, in bytes. A constant of the kernel.
pub const SHMMIN: u64 = 1;

impl ShmLimits {
    /// The kernel's defaults (`include/uapi/linux/shm.h`), for where `/proc` cannot be read.
    pub const DEFAULT: Self = Self {
        max: u64::MAX - (1 << 24),
        all: u64::MAX - (1 << 24),
        mni: 4096,
    };

    /// Reads the kernel's settings at this moment; a file that cannot be read gives its default.
    pub fn read() -> Self {
        Self {
            max: setting("/proc/sys/kernel/shmmax").unwrap_or(Self::DEFAULT.max),
            all: setting("/proc/sys/kernel/shmall").unwrap_or(Self::DEFAULT.all),
            mni: Self::read_mni(),
        }
    }

    /// SHMMNI alone.
    pub fn read_mni() -> u64 {
        setting("/proc/sys/kernel/shmmni").unwrap_or(Self::DEFAULT.mni)
    }
}

/// The settings of `/proc/sys/kernel/sem`, in their order in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SemLimits {
    /// SEMMSL: semaphores of one set.
    pub msl: u64,
    /// SEMMNS: semaphores of all sets together.
    pub mns: u64,
    /// SEMOPM: operations of one call.
    pub opm: u64,
    /// SEMMNI: how many sets there may be.
    pub mni: u64,
}

/// SEMVMX: the largest value of a semaphore. A constant of the kernel.
pub const SEMVMX: i32 = 32767;
/// SEMAEM: the largest adjustment of an undo record. A constant of the kernel.
pub const SEMAEM: i32 = SEMVMX;

impl SemLimits {
    /// The kernel's defaults (`include/uapi/linux/sem.h`), for where `/proc` cannot be read.
    pub const DEFAULT: Self = Self {
        msl: 32000,
        mns: 32000 * 32000,
        opm: 500,
        mni: 32000,
    };

    /// Where they are.
    pub const PATH: &'static str = "/proc/sys/kernel/sem";

    /// Reads the kernel's settings at this moment; the defaults when they cannot be read.
    pub fn read() -> Self {
        let mut text = [0u8; 128];
        let numbers = contents(Self::PATH, &mut text).and_then(Self::parse);
        numbers.unwrap_or(Self::DEFAULT)
    }

    /// What the file's text says.
    pub fn parse(text: &str) -> Option<Self> {
        let mut numbers = text.split_whitespace().map(|n| n.parse().ok());
        let mut next = || numbers.next().flatten();
        Some(Self {
            msl: next()?,
            mns: next()?,
            opm: next()?,
            mni: next()?,
        })
    }
}

/// The settings of `/proc/sys/kernel` that govern queues, or those that `vshmem.toml` raises them to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MsgLimits {
    /// MSGMAX: the largest message, in bytes.
    pub max: u64,
    /// MSGMNB: `msg_qbytes` of a new queue.
    pub mnb: u64,
    /// MSGMNI: how many queues there may be.
    pub mni: u64,
}

impl MsgLimits {
    /// The kernel's defaults (`include/uapi/linux/msg.h`), for where `/proc` cannot be read.
    pub const DEFAULT: Self = Self {
        max: 8192,
        mnb: 16384,
        mni: 32000,
    };

    /// Where they are.
    const MAX: &'static str = "/proc/sys/kernel/msgmax";
    const MNB: &'static str = "/proc/sys/kernel/msgmnb";
    const MNI: &'static str = "/proc/sys/kernel/msgmni";

    /// Reads the kernel's settings at this moment; a file that cannot be read gives its default.
    pub fn read() -> Self {
        Self {
            max: setting(Self::MAX).unwrap_or(Self::DEFAULT.max),
            mnb: setting(Self::MNB).unwrap_or(Self::DEFAULT.mnb),
            mni: setting(Self::MNI).unwrap_or(Self::DEFAULT.mni),
        }
    }

    /// Of each the larger one: limits are raised, never lowered.
    pub fn raised(self, to: Self) -> Self {
        Self {
            max: self.max.max(to.max),
            mnb: self.mnb.max(to.mnb),
            mni: self.mni.max(to.mni),
        }
    }
}

/// The first number of a file of one line under `/proc/sys`. Allocates nothing: the client
/// library asks too.
pub fn setting(path: &str) -> Option<u64> {
    let mut text = [0u8; 64];
    let text = contents(path, &mut text)?;
    text.split_whitespace().next()?.parse().ok()
}

/// The text of a small file.
fn contents<'a>(path: &str, buffer: &'a mut [u8]) -> Option<&'a str> {
    use rustix::fs::{Mode, OFlags};
    let file = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let len = rustix::io::read(&file, &mut *buffer).ok()?;
    std::str::from_utf8(buffer.get(..len)?).ok()
}

/// A file under `/proc/sys` that is read again and again, kept open: for daemons, to which each
/// making of a construct would else be several system calls more.
#[derive(Debug)]
pub struct Setting<T> {
    file: Option<File>,
    parse: fn(&str) -> Option<T>,
    default: T,
}

impl<T: Copy> Setting<T> {
    /// Opens the file; `default` is what it is taken to say when it cannot be read.
    pub fn open(path: &str, parse: fn(&str) -> Option<T>, default: T) -> Self {
        let file = File::open(path).ok();
        Self {
            file,
            parse,
            default,
        }
    }

    /// What it says at this moment.
    pub fn read(&self) -> T {
        let mut text = [0; 128];
        let read = self
            .file
            .as_ref()
            .and_then(|f| f.read_at(&mut text, 0).ok());
        read.and_then(|len| std::str::from_utf8(&text[..len]).ok())
            .and_then(self.parse)
            .unwrap_or(self.default)
    }
}

impl Setting<u64> {
    /// A file of one number.
    pub fn number(path: &str, default: u64) -> Self {
        Self::open(path, |text| text.trim().parse().ok(), default)
    }
}

/// The limits of queues that hold at each moment, for daemons.
#[derive(Debug)]
pub struct MsgSettings {
    max: Setting<u64>,
    mnb: Setting<u64>,
    mni: Setting<u64>,
    raised: MsgLimits,
}

impl MsgSettings {
    /// Opens the kernel's settings, which are `raised`.
    pub fn open(raised: MsgLimits) -> Self {
        let default = MsgLimits::DEFAULT;
        Self {
            max: Setting::number(MsgLimits::MAX, default.max),
            mnb: Setting::number(MsgLimits::MNB, default.mnb),
            mni: Setting::number(MsgLimits::MNI, default.mni),
            raised,
        }
    }

    /// From now on they are raised to these.
    pub fn raise(&mut self, to: MsgLimits) {
        self.raised = to;
    }

    /// The limits of this moment.
    pub fn read(&self) -> MsgLimits {
        let kernel = MsgLimits {
            max: self.max.read(),
            mnb: self.mnb.read(),
            mni: self.mni.read(),
        };
        kernel.raised(self.raised)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_settings_are_read() {
        let text = std::fs::read_to_string("/proc/sys/kernel/shmmni").unwrap();
        assert_eq!(ShmLimits::read().mni, text.trim().parse::<u64>().unwrap());
        assert_eq!(setting("/proc/sys/kernel/no-such-setting"), None);
    }
    #[test]
    fn the_four_numbers_of_semaphores_are_read() {
        let text = std::fs::read_to_string(SemLimits::PATH).unwrap();
        let want: Vec<u64> = text.split_whitespace().flat_map(str::parse).collect();
        let SemLimits { msl, mns, opm, mni } = SemLimits::read();
        assert_eq!([msl, mns, opm, mni], want[..]);
        assert_eq!(SemLimits::parse("1 2 3"), None);
        assert_eq!(SemLimits::parse("1 2 x 4"), None);
    }

    #[test]
    fn a_setting_is_read_anew_each_time_and_has_a_default() {
        let path = format!(
            "{}/setting-{}",
            std::env::temp_dir().display(),
            std::process::id()
        );
        std::fs::write(&path, "").unwrap();
        let setting = Setting::number(&path, 5);
        assert_eq!(setting.read(), 5);
        std::fs::write(&path, "7\n").unwrap();
        assert_eq!(setting.read(), 7);
        std::fs::remove_file(&path).unwrap();
        assert_eq!(Setting::number("/nowhere/at/all", 6).read(), 6);
        let sem = Setting::open(SemLimits::PATH, SemLimits::parse, SemLimits::DEFAULT);
        assert_eq!(sem.read(), SemLimits::read());
    }

    #[test]
    fn limits_of_queues_are_raised_and_never_lowered() {
        let kernel = MsgLimits::read();
        assert_eq!(MsgSettings::open(MsgLimits::default()).read(), kernel);
        let to = MsgLimits {
            max: kernel.max + 1,
            mnb: kernel.mnb - 1,
            mni: 0,
        };
        let want = MsgLimits {
            max: kernel.max + 1,
            ..kernel
        };
        assert_eq!(MsgSettings::open(to).read(), want);
    }
}
