// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whether a segment may be made: the rules of the kernel's `newseg` (`ipc/shm.c`) that are not
//! about keys, and the draw of ids.

use super::creds::Caller;
use rustix::io::Errno;
use std::fs::File;
use std::os::unix::fs::FileExt;
use vshmem_abi::ids::ROUTED_BIT;
use vshmem_abi::limits::{SHMMIN, ShmLimits};
use vshmem_abi::link::CANDIDATES;
use vshmem_abi::{PAGE_SIZE, pages};

/// `SHM_HUGETLB` of `sys/shm.h`; the page size is in the bits from [`HUGE_SHIFT`] on.
pub const SHM_HUGETLB: i32 = 0o4000;
/// `SHM_NORESERVE` of `sys/shm.h`.
pub const SHM_NORESERVE: i32 = 0o10000;
const HUGE_SHIFT: u32 = 26;
const HUGE_MASK: u32 = 0x3f;

/// A file of `/proc/sys` that is read again and again, kept open: one system call a look.
struct Setting {
    file: Option<File>,
    default: u64,
}

impl Setting {
    fn open(path: &str, default: u64) -> Self {
        let file = File::open(path).ok();
        Self { file, default }
    }

    fn read(&self) -> u64 {
        let mut text = [0u8; 32];
        let read = self.file.as_ref().map(|file| file.read_at(&mut text, 0));
        match read {
            Some(Ok(len)) => std::str::from_utf8(&text[..len])
                .ok()
                .and_then(|text| text.trim().parse().ok())
                .unwrap_or(self.default),
            _ => self.default,
        }
    }
}

/// The kernel's settings that bound the making of a segment.
pub struct Rules {
    shmmax: Setting,
    shmall: Setting,
    overcommit: Setting,
}

/// A segment that may be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Bytes asked for.
    pub size: u64,
    /// log2 of the page size where `SHM_HUGETLB` asks for one, else 0.
    pub huge_shift: u32,
}

impl Rules {
    /// Opens the settings.
    pub fn open() -> Self {
        Self {
            shmmax: Setting::open("/proc/sys/kernel/shmmax", ShmLimits::DEFAULT.max),
            shmall: Setting::open("/proc/sys/kernel/shmall", ShmLimits::DEFAULT.all),
            overcommit: Setting::open("/proc/sys/vm/overcommit_memory", 0),
        }
    }

    /// Whether `caller` may make a segment of `size` bytes with the flags of its `shmget`. What
    /// all segments together take is for the back-end to judge.
    ///
    /// # Errors
    /// In the kernel's order: `EINVAL` for a size out of bounds or a page size that this machine
    /// does not have, `ENOSPC`, `EPERM` for huge pages, `EINVAL` for a size that no file can
    /// have, `ENOMEM`.
    pub fn check(&self, size: u64, flags: i32, caller: &Caller) -> Result<Plan, Errno> {
        let count = check_size(size, self.shmmax.read(), self.shmall.read())?;
        if flags & SHM_HUGETLB != 0 {
            let huge_shift = huge_shift(flags, default_huge_shift, |kib| {
                std::path::Path::new(&format!("/sys/kernel/mm/hugepages/hugepages-{kib}kB"))
                    .exists()
            })?;
            if !may_use_huge_pages(caller) {
                return Err(Errno::PERM);
            }
            // There is no pool of that many pages, and no file either.
            let len = size.checked_next_multiple_of(1 << huge_shift);
            if len.is_none_or(|len| len > i64::MAX as u64) {
                return Err(Errno::NOMEM);
            }
            return Ok(Plan { size, huge_shift });
        }
        if size > i64::MAX as u64 {
            return Err(Errno::INVAL);
        }
        let policy = self.overcommit.read();
        if !memory_suffices(
            policy,
            count,
            flags & SHM_NORESERVE != 0,
            ram_and_swap,
            spare,
        ) {
            return Err(Errno::NOMEM);
        }
        Ok(Plan {
            size,
            huge_shift: 0,
        })
    }
}

fn check_size(size: u64, max: u64, all: u64) -> Result<u64, Errno> {
    if size < SHMMIN || size > max {
        return Err(Errno::INVAL);
    }
    let count = pages(size).ok_or(Errno::NOSPC)?;
    if count > all {
        return Err(Errno::NOSPC);
    }
    Ok(count)
}

/// The rule of `__vm_enough_memory` (`mm/util.c`) for `vm.overcommit_memory` = `policy`.
fn memory_suffices(
    policy: u64,
    pages: u64,
    no_reserve: bool,
    ram_and_swap: impl FnOnce() -> u64,
    spare: impl FnOnce() -> u64,
) -> bool {
    match policy {
        1 => true,
        2 => pages <= spare(),
        _ => no_reserve || pages <= ram_and_swap(),
    }
}

fn ram_and_swap() -> u64 {
    let info = rustix::system::sysinfo();
    let bytes = u128::from(info.totalram) + u128::from(info.totalswap);
    let pages = bytes * u128::from(info.mem_unit) / u128::from(PAGE_SIZE);
    u64::try_from(pages).unwrap_or(u64::MAX)
}

/// Pages that may still be promised under strict accounting.
fn spare() -> u64 {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib = |name| meminfo(&text, name).unwrap_or(0);
    kib("CommitLimit:").saturating_sub(kib("Committed_AS:")) * 1024 / PAGE_SIZE
}

fn meminfo(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|l| l.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

fn default_huge_shift() -> Option<u32> {
    let text = std::fs::read_to_string("/proc/meminfo").ok()?;
    Some((meminfo(&text, "Hugepagesize:")? * 1024).ilog2())
}

fn huge_shift(
    flags: i32,
    default: impl FnOnce() -> Option<u32>,
    is_supported: impl FnOnce(u64) -> bool,
) -> Result<u32, Errno> {
    match (flags as u32 >> HUGE_SHIFT) & HUGE_MASK {
        0 => default().ok_or(Errno::INVAL),
        shift @ 10.. if is_supported(1 << (shift - 10)) => Ok(shift),
        _ => Err(Errno::INVAL),
    }
}

/// `can_do_hugetlb_shm` (`mm/hugetlb.c`). A limit of locked memory gives no right any more since
/// Linux 5.18.
fn may_use_huge_pages(caller: &Caller) -> bool {
    let group = || vshmem_abi::limits::setting("/proc/sys/vm/hugetlb_shm_group");
    caller.uid == 0 || group().is_some_and(|gid| caller.in_group(gid as u32, None))
}

/// Ids to offer for new constructs: drawn and checked while nobody waits, replaced when used.
pub struct Candidates {
    ids: [i32; CANDIDATES],
}

impl Candidates {
    /// The first draw.
    pub fn draw() -> Self {
        let mut candidates = Self {
            ids: [0; CANDIDATES],
        };
        candidates.refill();
        candidates
    }

    /// The ids to offer.
    pub fn ids(&self) -> [i32; CANDIDATES] {
        self.ids
    }

    /// `id` is taken.
    pub fn used(&mut self, id: i32) {
        for place in &mut self.ids {
            if *place == id {
                *place = 0;
            }
        }
    }

    /// All of them are taken: by others, in other domains.
    pub fn used_all(&mut self) {
        self.ids = [0; CANDIDATES];
    }

    /// Draws what is missing.
    pub fn refill(&mut self) {
        for place in &mut self.ids {
            while *place == 0 {
                let id = random() as i32 & i32::MAX | ROUTED_BIT;
                if !kernel_knows(id) {
                    *place = id;
                }
            }
        }
    }
}

/// A random number from the kernel.
pub fn random() -> u64 {
    let mut bytes = [0u8; 8];
    // Requests of up to 256 bytes are never cut short, and after boot they never fail.
    let got = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    assert_eq!(got, Ok(bytes.len()), "getrandom");
    u64::from_ne_bytes(bytes)
}

/// Whether this kernel has a System V construct of its own with this id.
fn kernel_knows(id: i32) -> bool {
    // Larger than any of the three structures that the kernel may fill in.
    let mut space = [0u64; 64];
    let space = space.as_mut_ptr();
    let stat = libc::IPC_STAT;
    let unknown = |result: libc::c_long| {
        result == -1 && std::io::Error::last_os_error().raw_os_error() == Some(libc::EINVAL)
    };
    // By number, not through the C library's functions, which a preload may have replaced.
    // SAFETY: IPC_STAT only writes one structure of less than 512 bytes to `space`.
    let shm = unsafe { libc::syscall(libc::SYS_shmctl, id, stat, space) };
    if !unknown(shm) {
        return true;
    }
    // SAFETY: as above.
    let sem = unsafe { libc::syscall(libc::SYS_semctl, id, 0, stat, space) };
    if !unknown(sem) {
        return true;
    }
    // SAFETY: as above.
    !unknown(unsafe { libc::syscall(libc::SYS_msgctl, id, stat, space) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use vshmem_abi::ids::may_be_routed;

    #[test]
    fn sizes_are_refused_in_the_kernels_order() {
        let (max, all) = (1 << 20, 100);
        assert_eq!(check_size(0, max, all), Err(Errno::INVAL));
        assert_eq!(check_size(max + 1, max, all), Err(Errno::INVAL));
        assert_eq!(check_size(max, max, all), Err(Errno::NOSPC));
        assert_eq!(check_size(4097, max, all), Ok(2));
        assert_eq!(check_size(u64::MAX, u64::MAX, all), Err(Errno::NOSPC));
    }

    #[test]
    fn memory_is_judged_as_the_overcommit_policy_says() {
        let (ram, spare) = (|| 100, || 10);
        assert!(memory_suffices(0, 100, false, ram, spare));
        assert!(!memory_suffices(0, 101, false, ram, spare));
        assert!(memory_suffices(0, 101, true, ram, spare));
        assert!(memory_suffices(1, u64::MAX, false, ram, spare));
        assert!(!memory_suffices(2, 11, true, ram, spare));
        assert!(memory_suffices(2, 10, false, ram, spare));
    }

    #[test]
    fn huge_page_sizes_are_read_from_the_flags() {
        let two_mib = |kib| kib == 2048;
        let sized = |bits: i32| SHM_HUGETLB | bits << HUGE_SHIFT;
        assert_eq!(huge_shift(sized(0), || Some(21), two_mib), Ok(21));
        assert_eq!(huge_shift(sized(21), || None, two_mib), Ok(21));
        assert_eq!(
            huge_shift(sized(30), || Some(21), two_mib),
            Err(Errno::INVAL)
        );
        assert_eq!(
            huge_shift(sized(3), || Some(21), |_| true),
            Err(Errno::INVAL)
        );
        assert_eq!(huge_shift(sized(0), || None, two_mib), Err(Errno::INVAL));
    }

    #[test]
    fn candidates_have_the_routed_bit_and_only_used_ones_are_drawn_again() {
        let mut candidates = Candidates::draw();
        let before = candidates.ids();
        assert!(before.iter().all(|&id| may_be_routed(id)));
        candidates.used(before[1]);
        candidates.refill();
        let after = candidates.ids();
        assert_ne!(after[1], before[1]);
        assert_eq!(
            (after[0], after[2], after[3]),
            (before[0], before[2], before[3])
        );
    }

    #[test]
    fn an_id_that_the_kernel_gave_away_is_known_to_it() {
        // SAFETY: makes, then removes a segment of our own; no memory is mapped.
        let id = unsafe { libc::shmget(libc::IPC_PRIVATE, 1, 0o600) };
        assert!(id >= 0);
        let known = kernel_knows(id);
        // SAFETY: as above.
        unsafe { libc::shmctl(id, libc::IPC_RMID, std::ptr::null_mut()) };
        assert!(known);
    }

    #[test]
    fn a_missing_setting_has_the_kernels_default() {
        assert_eq!(Setting::open("/proc/sys/kernel/nothing", 7).read(), 7);
        let rules = Rules::open();
        assert_eq!(rules.shmmax.read(), ShmLimits::read().max);
    }
}
