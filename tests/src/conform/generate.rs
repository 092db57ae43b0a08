// SPDX-License-Identifier: MIT OR Apache-2.0
//! Random scripts. The weights are such that most calls succeed and the rest fail in as many
//! ways as the man pages know.

use super::accept;
use super::script::{
    AREA_PAGES, ATTACHMENTS, Address, Birth, Buffer, Call, Common, End, IDS, Id, Look, PAGE,
    PROCESSES, STARTED, Step,
};
use proptest::prelude::*;
use proptest::sample::select;
use std::ops::RangeInclusive;

/// A uid, and gid, without rights.
pub const NOBODY: u32 = 65534;
/// A uid, and gid, that is neither root's nor nobody's.
pub const OTHER: u32 = 1234;

/// Scripts of so many steps.
pub fn scripts(steps: RangeInclusive<usize>) -> BoxedStrategy<Vec<Step>> {
    prop::collection::vec(step(), steps).boxed()
}

fn step() -> impl Strategy<Value = Step> {
    // Those that live from the start do most; a process that does not live costs a step.
    let process = prop_oneof![7 => 0..STARTED as u8, 3 => STARTED as u8..PROCESSES as u8];
    (process, prop::bool::weighted(0.15), call()).prop_map(|(process, raw, call)| Step {
        process,
        raw,
        call,
    })
}

/// Scripts of so many steps that all can change times of a segment, and pids and counts with them.
pub fn timed_scripts(steps: RangeInclusive<usize>) -> BoxedStrategy<Vec<Step>> {
    let slot = || 0..2u8;
    let make = (slot(), 1..3u8).prop_map(|(slot, key)| Call::Get {
        slot,
        key,
        size: PAGE,
        flags: libc::IPC_CREAT | 0o666,
    });
    let attach =
        (slot(), slot(), select(vec![0, libc::SHM_RDONLY])).prop_map(|(slot, id, flags)| {
            Call::Attach {
                slot,
                id: Id::Slot(id),
                at: Address::Number(0),
                flags,
            }
        });
    let detach = slot().prop_map(|slot| Call::Detach {
        at: Address::Attached {
            slot,
            page: 0,
            byte: 0,
        },
    });
    let set = slot().prop_map(|slot| Common::Set {
        id: Id::Slot(slot),
        uid: 0,
        gid: 0,
        mode: 0o660,
        buffer: Buffer::Good,
    });
    let control =
        (slot(), select(vec![libc::IPC_RMID, libc::SHM_LOCK])).prop_map(|(slot, command)| {
            Common::Control {
                id: Id::Slot(slot),
                command,
                buffer: Buffer::Good,
            }
        });
    let call = prop_oneof![
        4 => make,
        6 => attach,
        4 => detach,
        1 => set.prop_map(Call::Common),
        1 => control.prop_map(Call::Common),
        3 => new_process().prop_map(Call::Common),
        1 => Just(Call::Common(Common::Exec)),
        2 => end().prop_map(Call::Common),
    ];
    let step = (0..PROCESSES as u8, call).prop_map(|(process, call)| Step {
        process,
        raw: false,
        call,
    });
    prop::collection::vec(step, steps).boxed()
}

fn call() -> impl Strategy<Value = Call> {
    prop_oneof![
        16 => get(),
        20 => attach(),
        9 => any_address().prop_map(|at| Call::Detach { at }),
        8 => any_address().prop_map(|at| Call::Read { at }),
        8 => (any_address(), 1..255u8).prop_map(|(at, value)| Call::Write { at, value }),
        14 => stat().prop_map(Call::Common),
        5 => set(prop_oneof![4 => mode(), 1 => Just(0o7777)]).prop_map(Call::Common),
        6 => control().prop_map(Call::Common),
        1 => limits().prop_map(Call::Common),
        2 => totals().prop_map(Call::Common),
        6 => new_process().prop_map(Call::Common),
        1 => Just(Call::Common(Common::Exec)),
        3 => end().prop_map(Call::Common),
        4 => become_other().prop_map(Call::Common),
        2 => (0..AREA_PAGES, 1..4u8)
            .prop_map(|(page, pages)| or_a_look(Call::Unmap { page, pages }, page)),
        2 => (0..AREA_PAGES, 1..3u8, select(vec![0, 1, 3]))
            .prop_map(|(page, pages, prot)| or_a_look(Call::Protect { page, pages, prot }, page)),
        1 => Just(Call::Common(Common::CloseAll)),
    ]
}

/// A call that changes mappings behind the back of the library. Between guests it is a look at the page: what
/// becomes of memory of another domain is not what becomes of one's own (docs/limitations.md).
fn or_a_look(call: Call, page: u8) -> Call {
    if crate::in_guests() {
        let at = Address::Area { page, byte: 0 };
        Call::Read { at }
    } else {
        call
    }
}

pub(super) fn id() -> impl Strategy<Value = Id> {
    prop_oneof![
        25 => (0..IDS as u8).prop_map(Id::Slot),
        // None of these can be an id of a case's own IPC namespace, where indexes and sequence
        // numbers begin at 0.
        1 => select(vec![-1, i32::MIN, i32::MAX, 5 * 32768 + 777, (1 << 30) + 4711])
            .prop_map(Id::Number),
    ]
}

pub(super) fn mode() -> impl Strategy<Value = i32> {
    prop_oneof![
        6 => Just(0o600),
        6 => Just(0o666),
        2 => select(vec![0o000, 0o400, 0o444, 0o222, 0o640, 0o060, 0o006, 0o777]),
    ]
}

/// Sizes that segments are refused for, or that take no memory until they are used; where all is taken
/// at once there are none of the latter.
fn largest() -> Vec<u64> {
    const REFUSED: [u64; 2] = [u64::MAX - (1 << 24) + 1, u64::MAX];
    const SPARSE: [u64; 5] = [
        1 << 40,
        1 << 46,
        1 << 62,
        i64::MAX as u64,
        u64::MAX - (1 << 24),
    ];
    let sparse = SPARSE.into_iter().filter(|_| !crate::in_guests());
    sparse.chain(REFUSED).collect()
}

fn get() -> impl Strategy<Value = Call> {
    let size = prop_oneof![
        2 => Just(0),
        6 => Just(1),
        4 => Just(PAGE),
        2 => Just(PAGE - 1),
        3 => Just(PAGE + 1),
        4 => Just(3 * PAGE),
        1 => select(largest()),
    ];
    let how = prop_oneof![
        9 => Just(libc::IPC_CREAT),
        3 => Just(libc::IPC_CREAT | libc::IPC_EXCL),
        3 => Just(0),
        1 => Just(libc::IPC_EXCL),
    ];
    // Between guests there are no huge pages (`accept`).
    let huge = if crate::in_guests() {
        0
    } else {
        libc::SHM_HUGETLB
    };
    let extra = prop_oneof![
        30 => Just(0),
        2 => Just(libc::SHM_NORESERVE),
        1 => Just(huge),
        1 => select(vec![9, 12, 21, 30, 63])
            .prop_map(move |shift| if huge == 0 { 0 } else { huge | shift << 26 }),
    ];
    let key = prop_oneof![1 => Just(0u8), 5 => 1..4u8];
    (0..IDS as u8, key, size, how, mode(), extra).prop_map(|(slot, key, size, how, mode, extra)| {
        Call::Get {
            slot,
            key,
            size: if extra & libc::SHM_HUGETLB == 0 {
                size
            } else {
                size.min(accept::LARGEST_HUGE)
            },
            flags: how | mode | extra,
        }
    })
}

fn byte() -> impl Strategy<Value = u16> {
    prop_oneof![12 => Just(0u16), 1 => select(vec![1, 8, 123, PAGE as u16 - 1])]
}

fn attached() -> impl Strategy<Value = Address> {
    (
        0..ATTACHMENTS as u8,
        prop_oneof![8 => Just(0u8), 1 => 1..3u8],
        byte(),
    )
        .prop_map(|(slot, page, byte)| Address::Attached { slot, page, byte })
}

fn area() -> impl Strategy<Value = Address> {
    (0..AREA_PAGES, byte()).prop_map(|(page, byte)| Address::Area { page, byte })
}

fn any_address() -> impl Strategy<Value = Address> {
    prop_oneof![
        14 => attached(),
        3 => area(),
        1 => select(vec![0, u64::MAX, !(PAGE - 1), 1 << 47, 1 << 63]).prop_map(Address::Number),
    ]
}

fn attach() -> impl Strategy<Value = Call> {
    let at = prop_oneof![
        12 => Just(Address::Number(0)),
        8 => area(),
        1 => attached(),
        1 => select(vec![1, PAGE - 1, 1 << 47, u64::MAX, !(PAGE - 1)]).prop_map(Address::Number),
    ];
    let bits = (
        prop::bool::weighted(0.2),
        prop::bool::weighted(0.2),
        prop::bool::weighted(0.1),
        prop::bool::weighted(0.08),
    )
        .prop_map(|(rdonly, rnd, remap, exec)| {
            [
                (rdonly, libc::SHM_RDONLY),
                (rnd, libc::SHM_RND),
                (remap, libc::SHM_REMAP),
                (exec, libc::SHM_EXEC),
            ]
            .into_iter()
            .filter_map(|(on, bit)| on.then_some(bit))
            .sum::<i32>()
        });
    (0..ATTACHMENTS as u8, id(), at, bits).prop_map(|(slot, id, at, flags)| {
        // REMAP takes away what lies there, which outside the area may be anything.
        let at = match at {
            Address::Area { .. } | Address::Number(_) => at,
            Address::Attached { .. } if flags & libc::SHM_REMAP != 0 => Address::Number(0),
            Address::Attached { .. } => at,
        };
        Call::Attach {
            slot,
            id,
            at,
            flags,
        }
    })
}

pub(super) fn buffer() -> impl Strategy<Value = Buffer> {
    prop_oneof![
        12 => Just(Buffer::Good),
        1 => select(vec![
            Buffer::Null, Buffer::MinusOne, Buffer::Unmapped, Buffer::ReadOnly, Buffer::Half,
        ]),
    ]
}

fn look() -> impl Strategy<Value = Look> {
    prop_oneof![4 => buffer().prop_map(Look::Id), 1 => Just(Look::Index), 1 => Just(Look::IndexAny)]
}

pub(super) fn stat() -> impl Strategy<Value = Common> {
    (id(), look()).prop_map(|(id, look)| Common::Stat { id, look })
}

pub(super) fn limits() -> impl Strategy<Value = Common> {
    buffer().prop_map(|buffer| Common::Limits { buffer })
}

pub(super) fn totals() -> impl Strategy<Value = Common> {
    buffer().prop_map(|buffer| Common::Totals { buffer })
}

pub(super) fn new_process() -> impl Strategy<Value = Common> {
    (STARTED as u8..PROCESSES as u8, birth())
        .prop_map(|(child, birth)| Common::New { child, birth })
}

/// A uid or gid that a construct is to be given to.
pub(super) fn owner() -> impl Strategy<Value = u32> {
    select(vec![0, NOBODY, OTHER, u32::MAX])
}

pub(super) fn set(mode: impl Strategy<Value = i32>) -> impl Strategy<Value = Common> {
    (id(), owner(), owner(), mode, buffer()).prop_map(|(id, uid, gid, mode, buffer)| Common::Set {
        id,
        uid,
        gid,
        mode: mode as u16,
        buffer,
    })
}

fn control() -> impl Strategy<Value = Common> {
    let command = prop_oneof![
        8 => Just(libc::IPC_RMID),
        3 => Just(libc::SHM_LOCK),
        3 => Just(libc::SHM_UNLOCK),
        // The last are semctl's GETALL, unused numbers and IPC_64 alone.
        1 => select(vec![-1, 5, 16, 99, 0x100, i32::MIN]),
    ];
    (id(), command, buffer()).prop_map(|(id, command, buffer)| Common::Control {
        id,
        command,
        buffer,
    })
}

fn birth() -> impl Strategy<Value = Birth> {
    prop_oneof![4 => Just(Birth::Fork), 1 => Just(Birth::Vfork), 1 => Just(Birth::Spawn)]
}

pub(super) fn end() -> impl Strategy<Value = Common> {
    select(vec![End::Exit, End::QuickExit, End::Abort, End::Kill])
        .prop_map(|end| Common::Leave { end })
}

pub(super) fn become_other() -> impl Strategy<Value = Common> {
    let uid = prop_oneof![3 => Just(NOBODY), 3 => Just(0), 1 => Just(OTHER)];
    let gid = select(vec![0, NOBODY, OTHER]);
    let group = select(vec![-1, 0, NOBODY as i32, OTHER as i32]);
    let for_good = prop::bool::weighted(0.1);
    (uid, gid, group, for_good).prop_map(|(uid, gid, group, for_good)| Common::Become {
        uid,
        gid,
        for_good,
        group,
    })
}
