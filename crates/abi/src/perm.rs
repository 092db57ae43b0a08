// SPDX-License-Identifier: MIT OR Apache-2.0
//! The permission rules of System V IPC, as `ipcperms` in the kernel's `ipc/util.c` has them.

use crate::wire::Meta;

/// Read permission for owner, group and others (`S_IRUGO`).
pub const READ: u32 = 0o444;
/// Write, or for semaphores alter, permission (`S_IWUGO`).
pub const WRITE: u32 = 0o222;
/// Execute permission (`S_IXUGO`), asked for by `SHM_EXEC` only.
pub const EXEC: u32 = 0o111;

/// Whether a caller with `euid`, and for whom `in_group` tells membership, may access the
/// construct in all the ways that `wanted` names (any of the three positions of a mode counts).
///
/// Root passes always: the kernel asks for `CAP_IPC_OWNER`, of which the effective uid is what a
/// daemon can know.
pub fn may_access(
    meta: &Meta,
    wanted: u32,
    euid: u32,
    mut in_group: impl FnMut(u32) -> bool,
) -> bool {
    let asked = (wanted >> 6 | wanted >> 3 | wanted) & 0o7;
    if asked == 0 || euid == 0 {
        return true;
    }
    let granted = if euid == meta.uid || euid == meta.cuid {
        meta.mode >> 6
    } else if asked & !(meta.mode >> 3) == asked & !meta.mode & 0o7 {
        // Group and others would decide alike: membership need not be looked up.
        meta.mode
    } else if in_group(meta.cgid) || in_group(meta.gid) {
        meta.mode >> 3
    } else {
        meta.mode
    };
    asked & !granted & 0o7 == 0
}

/// Whether a caller with `euid` may change or remove the construct (`ipcctl_obtain_check`):
/// owner, creator or root.
pub fn may_control(meta: &Meta, euid: u32) -> bool {
    euid == 0 || euid == meta.uid || euid == meta.cuid
}

#[cfg(test)]
mod tests {
    use super::*;

    fn meta(mode: u32) -> Meta {
        Meta {
            uid: 10,
            gid: 20,
            cuid: 11,
            cgid: 21,
            mode,
            ..Meta::default()
        }
    }

    #[test]
    fn owner_and_creator_are_judged_by_the_owner_bits_even_when_others_would_pass() {
        assert!(!may_access(&meta(0o077), READ, 10, |_| true));
        assert!(!may_access(&meta(0o077), READ, 11, |_| true));
    }

    #[test]
    fn a_group_member_is_judged_by_the_group_bits_even_when_others_would_pass() {
        assert!(!may_access(&meta(0o706), READ, 99, |g| g == 21));
        assert!(may_access(&meta(0o706), READ, 99, |_| false));
    }

    #[test]
    fn root_passes_mode_000() {
        assert!(may_access(&meta(0), READ | WRITE, 0, |_| false));
    }

    #[test]
    fn asking_for_nothing_is_always_granted() {
        assert!(may_access(&meta(0), 0, 99, |_| false));
    }

    proptest::proptest! {
        #[test]
        fn the_short_cut_past_group_lookup_never_changes_the_answer(
            mode in 0u32..0o1000, wanted in 0u32..0o1000, euid in 9u32..13, member: bool,
        ) {
            let m = meta(mode);
            let asked = (wanted >> 6 | wanted >> 3 | wanted) & 7;
            let granted = if euid == 10 || euid == 11 { mode >> 6 } else if member { mode >> 3 } else { mode };
            proptest::prop_assert_eq!(may_access(&m, wanted, euid, |_| member), asked & !granted & 7 == 0);
        }
    }
}
