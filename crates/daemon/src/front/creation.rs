// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whether a construct may be made: the rules of the kernel's `newseg` (`ipc/shm.c`), `newary`
//! (`ipc/sem.c`) and `newque` (`ipc/msg.c`) that are not about keys, and the draw of ids.

use super::creds::Caller;
use super::shared::Inside;
use crate::server::random;
use rustix::io::Errno;
use vshmem_abi::ids::ROUTED_BIT;
use vshmem_abi::limits::{MsgLimits, MsgSettings, SHMMIN, SemLimits, Setting, ShmLimits};
use vshmem_abi::link::CANDIDATES;
use vshmem_abi::region::Memory;
use vshmem_abi::set::MAX_SEMS;
use vshmem_abi::wire::Meta;
use vshmem_abi::{Kind, PAGE_SIZE, msgq, pages, set};
use vshmem_gnt::RegionOptions;

/// `SHM_HUGETLB` of `sys/shm.h`; the page size is in the bits from [`HUGE_SHIFT`] on.
const SHM_HUGETLB: i32 = 0o4000;
/// `SHM_NORESERVE` of `sys/shm.h`.
const SHM_NORESERVE: i32 = 0o10000;
const HUGE_SHIFT: u32 = 26;
const HUGE_MASK: u32 = 0x3f;

/// The settings that bound the making of a construct.
pub struct Rules {
    memory: Memory,
    shmmax: Setting<u64>,
    shmall: Setting<u64>,
    overcommit: Setting<u64>,
    sem: Setting<SemLimits>,
    msg: MsgSettings,
}

/// A construct that may be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// What its entry is to say: bytes, a number of semaphores, of a queue 0.
    pub size: u64,
    /// How its memory is to be made.
    pub options: RegionOptions,
    /// What is to be made in its memory, unless it is a segment.
    pub inside: Option<Inside>,
}

impl Plan {
    fn segment(size: u64, options: RegionOptions) -> Self {
        Self {
            size,
            options,
            inside: None,
        }
    }

    fn set(memory: Memory, nsems: u32, limits: &SemLimits) -> Self {
        let ops = u32::try_from(limits.opm).unwrap_or(u32::MAX);
        Self {
            size: nsems.into(),
            options: RegionOptions::default(),
            inside: Some(Inside::Set(set::Shape::new(memory, nsems, ops))),
        }
    }

    fn queue(memory: Memory, limits: &MsgLimits) -> Self {
        let shape = msgq::Shape::new(memory, limits.mnb, limits.max);
        Self {
            size: 0,
            options: RegionOptions::default(),
            inside: Some(Inside::Queue(shape, limits.mnb)),
        }
    }

    /// Bytes of its memory.
    pub fn bytes(&self) -> u64 {
        self.inside.as_ref().map_or(self.size, Inside::bytes)
    }
}

impl Rules {
    /// Opens the settings; the limits of queues are `raised`, and regions of sets and queues are of
    /// `memory`.
    pub fn open(raised: MsgLimits, memory: Memory) -> Self {
        Self {
            memory,
            shmmax: Setting::number("/proc/sys/kernel/shmmax", ShmLimits::DEFAULT.max),
            shmall: Setting::number("/proc/sys/kernel/shmall", ShmLimits::DEFAULT.all),
            overcommit: Setting::number("/proc/sys/vm/overcommit_memory", 0),
            sem: Setting::open(SemLimits::PATH, SemLimits::parse, SemLimits::DEFAULT),
            msg: MsgSettings::open(raised),
        }
    }

    /// From now on the limits of queues are raised to these.
    pub fn raise(&mut self, to: MsgLimits) {
        self.msg.raise(to);
    }

    /// MSGMNB: as much as `msg_qbytes` may be raised to by anybody.
    pub fn msgmnb(&self) -> u64 {
        self.msg.read().mnb
    }

    /// The plan that the back-end's entry of a construct speaks of; `None` for one that cannot be made.
    pub fn plan_of(&self, meta: &Meta) -> Option<Plan> {
        let options = RegionOptions {
            huge_shift: meta.huge_shift,
            reserve: true,
            ..RegionOptions::default()
        };
        match Kind::from_raw(meta.kind)? {
            Kind::Shm => Some(Plan::segment(meta.size, options)),
            Kind::Sem => Some(Plan::set(
                self.memory,
                meta.size.try_into().ok()?,
                &self.sem.read(),
            )),
            Kind::Msg => Some(Plan::queue(self.memory, &self.msg.read())),
        }
    }

    /// What a get of `kind` refuses before it looks at the key.
    ///
    /// # Errors
    /// `EINVAL` for a number of semaphores that no set has.
    pub fn check_call(&self, kind: Kind, size: u64) -> Result<(), Errno> {
        if kind == Kind::Sem && size > self.most_sems() {
            return Err(Errno::INVAL);
        }
        Ok(())
    }

    /// Whether `caller` may make a construct of `kind` and `size` with the flags of its get. What
    /// all of a kind together take is for the back-end to judge.
    ///
    /// # Errors
    /// Those of the kernel, in its order.
    pub fn check(&self, kind: Kind, size: u64, flags: i32, caller: &Caller) -> Result<Plan, Errno> {
        match kind {
            Kind::Shm => self.check_segment(size, flags, caller),
            Kind::Sem => self.check_set(size),
            Kind::Msg => Ok(Plan::queue(self.memory, &self.msg.read())),
        }
    }

    fn most_sems(&self) -> u64 {
        self.sem.read().msl.min(MAX_SEMS.into())
    }

    fn check_set(&self, nsems: u64) -> Result<Plan, Errno> {
        match u32::try_from(nsems) {
            Ok(nsems @ 1..) => Ok(Plan::set(self.memory, nsems, &self.sem.read())),
            _ => Err(Errno::INVAL),
        }
    }

    /// A segment of `size` bytes.
    ///
    /// # Errors
    /// In the kernel's order: `EINVAL` for a size out of bounds or a page size that this machine
    /// does not have, `ENOSPC`, `EPERM` for huge pages, `EINVAL` for a size that no file can
    /// have, `ENOMEM`.
    fn check_segment(&self, size: u64, flags: i32, caller: &Caller) -> Result<Plan, Errno> {
        let count = check_size(size, self.shmmax.read(), self.shmall.read())?;
        let no_reserve = flags & SHM_NORESERVE != 0;
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
            let options = RegionOptions {
                huge_shift,
                reserve: !no_reserve,
                ..RegionOptions::default()
            };
            return Ok(Plan::segment(size, options));
        }
        if size > i64::MAX as u64 {
            return Err(Errno::INVAL);
        }
        let policy = self.overcommit.read();
        if !memory_suffices(policy, count, no_reserve, ram_and_swap, spare) {
            return Err(Errno::NOMEM);
        }
        let options = RegionOptions {
            reserve: !no_reserve,
            ..RegionOptions::default()
        };
        Ok(Plan::segment(size, options))
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
    fn the_rules_are_the_kernels_settings() {
        let rules = rules();
        assert_eq!(rules.msgmnb(), MsgLimits::read().mnb);
        assert_eq!(rules.shmmax.read(), ShmLimits::read().max);
        assert_eq!(rules.most_sems(), SemLimits::read().msl.min(65536));
    }

    #[test]
    fn a_set_has_at_least_one_semaphore_and_a_call_may_name_none() {
        let rules = rules();
        let caller = Caller::new(0, 0, 0);
        let check = |nsems| rules.check(Kind::Sem, nsems, 0, &caller);
        assert_eq!(check(0), Err(Errno::INVAL));
        assert_eq!(rules.check_call(Kind::Sem, 0), Ok(()));
        // -1, as the client library passes it.
        for none_has in [u64::MAX, u32::MAX.into(), SemLimits::read().msl + 1] {
            assert_eq!(rules.check_call(Kind::Sem, none_has), Err(Errno::INVAL));
        }
        assert_eq!(rules.check_call(Kind::Shm, u64::MAX), Ok(()));
        let plan = check(3).unwrap();
        let sems = inside_set(&plan).map(|shape| shape.sems);
        assert_eq!((plan.size, sems), (3, Some(3)));
        assert_eq!(plan.bytes(), plan.inside.unwrap().bytes());
    }

    fn rules() -> Rules {
        Rules::open(MsgLimits::default(), Memory::OnDemand)
    }

    fn inside_set(plan: &Plan) -> Option<set::Shape> {
        match plan.inside {
            Some(Inside::Set(shape)) => Some(shape),
            _ => None,
        }
    }

    #[test]
    fn a_queue_is_made_for_what_the_limits_are_raised_to() {
        let raised = MsgLimits {
            mnb: 1 << 30,
            max: 1 << 24,
            mni: 0,
        };
        let rules = Rules::open(raised, Memory::OnDemand);
        let plan = rules.check(Kind::Msg, 0, 0, &Caller::new(0, 0, 0)).unwrap();
        let shape = msgq::Shape::new(Memory::OnDemand, 1 << 30, 1 << 24);
        assert_eq!(plan.inside, Some(Inside::Queue(shape, 1 << 30)));
        assert_eq!((plan.size, rules.msgmnb()), (0, 1 << 30));
    }

    #[test]
    fn what_an_entry_says_is_enough_to_make_its_memory() {
        let meta = |kind: Kind, size| Meta {
            kind: kind as u32,
            size,
            huge_shift: 21,
            ..Meta::default()
        };
        let rules = rules();
        let segment = rules.plan_of(&meta(Kind::Shm, 5000)).unwrap();
        assert_eq!((segment.bytes(), segment.options.huge_shift), (5000, 21));
        let set = rules.plan_of(&meta(Kind::Sem, 4)).unwrap();
        assert_eq!(
            (inside_set(&set).unwrap().sems, set.options.huge_shift),
            (4, 0)
        );
        assert_eq!(rules.plan_of(&meta(Kind::Sem, u64::MAX)), None);
        let queue = rules.plan_of(&meta(Kind::Msg, 0));
        assert_eq!(
            queue,
            Some(Plan::queue(Memory::OnDemand, &MsgLimits::read()))
        );
    }
}
