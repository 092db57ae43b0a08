// SPDX-License-Identifier: MIT OR Apache-2.0
//! Random scripts of calls on semaphore sets: most succeed or sleep, the rest fails in as many ways
//! as the man pages know.

use super::script::{Call, Op, Step, Timeout};
use crate::conform::generate::{buffer, id, mode, set};
use crate::conform::script::{Common, IDS, Id};
use crate::conform::sleepers::{
    self,
    generate::{get_flags, key, signal},
};
use proptest::prelude::*;
use proptest::sample::select;
use std::ops::RangeInclusive;

/// Semaphores of most sets.
const SEMS: i32 = 3;

/// Scripts of so many steps.
pub fn scripts(steps: RangeInclusive<usize>) -> BoxedStrategy<Vec<Step>> {
    // A set for all to begin with, lest half of the steps find nothing to work on.
    let first = Just(vec![Call::Get {
        slot: 0,
        key: 1,
        sems: SEMS,
        flags: libc::IPC_CREAT | 0o666,
    }]);
    sleepers::generate::scripts(first, call(), steps)
}

fn call() -> impl Strategy<Value = sleepers::Call<Call>> {
    prop_oneof![
        77 => own().prop_map(sleepers::Call::Own),
        32 => common().prop_map(sleepers::Call::Common),
        6 => signal(),
    ]
}

fn own() -> impl Strategy<Value = Call> {
    prop_oneof![
        8 => get(),
        50 => op(),
        2 => (id(), buffer(), select(vec![0u32, 1, 2, 3, 500, 501, 4_000_000_000]))
            .prop_map(|(id, buffer, count)| Call::BadOp { id, buffer, count }),
        5 => (id(), sem(), select(vec![libc::GETVAL, libc::GETPID, libc::GETNCNT, libc::GETZCNT]))
            .prop_map(|(id, sem, command)| Call::Number { id, sem, command }),
        5 => (id(), sem(), value()).prop_map(|(id, sem, value)| Call::SetVal { id, sem, value }),
        4 => (id(), buffer()).prop_map(|(id, buffer)| Call::GetAll { id, buffer }),
        3 => (id(), prop_oneof![9 => 0..4u16, 1 => Just(32767u16)], buffer())
            .prop_map(|(id, first, buffer)| Call::SetAll { id, first, buffer }),
    ]
}

fn common() -> impl Strategy<Value = Common> {
    prop_oneof![
        3 => set(mode()),
        29 => sleepers::generate::common(),
    ]
}

fn get() -> impl Strategy<Value = Call> {
    let sems = prop_oneof![
        8 => Just(SEMS),
        2 => 1..3i32,
        1 => select(vec![0, -1, 4, 200, 32000, 32001, i32::MAX]),
    ];
    (0..IDS as u8, key(), sems, get_flags()).prop_map(|(slot, key, sems, flags)| Call::Get {
        slot,
        key,
        sems,
        flags,
    })
}

fn op() -> impl Strategy<Value = Call> {
    let sem = prop_oneof![
        30 => 0..SEMS as u16,
        1 => select(vec![SEMS as u16, 199, u16::MAX]),
    ];
    let by = prop_oneof![
        6 => Just(-1i16),
        5 => Just(1i16),
        4 => Just(0i16),
        4 => -3..4i16,
        1 => select(vec![32767, -32767, -32768, 32766]),
    ];
    let flags =
        (prop::bool::weighted(0.4), prop::bool::weighted(0.12)).prop_map(|(undo, nowait)| {
            let undo = if undo { libc::SEM_UNDO } else { 0 };
            (undo | if nowait { libc::IPC_NOWAIT } else { 0 }) as i16
        });
    let one = (sem, by, flags).prop_map(|(sem, by, flags)| Op { sem, by, flags });
    let ops = prop_oneof![
        6 => prop::collection::vec(one.clone(), 1),
        4 => prop::collection::vec(one.clone(), 2..4),
        1 => prop::collection::vec(one, 4..12),
    ];
    let timeout = prop_oneof![
        12 => Just(Timeout::Semop),
        2 => Just(Timeout::Null),
        2 => Just(Timeout::Short(0)),
        1 => Just(Timeout::Short(1_000_000)),
        3 => Just(Timeout::Long),
        1 => select(vec![
            Timeout::Bad(0, -1), Timeout::Bad(0, 1_000_000_000), Timeout::Bad(-1, 0),
            Timeout::Nowhere,
        ]),
    ];
    // Most on the one set that there is from the beginning: there they meet.
    let id = prop_oneof![3 => Just(Id::Slot(0)), 1 => id()];
    (id, ops, timeout).prop_map(|(id, ops, timeout)| Call::Op { id, ops, timeout })
}

fn sem() -> impl Strategy<Value = i32> {
    prop_oneof![20 => 0..SEMS, 1 => select(vec![-1, SEMS, i32::MAX, i32::MIN, 65536])]
}

fn value() -> impl Strategy<Value = i32> {
    prop_oneof![12 => 0..4, 1 => select(vec![-1, 32767, 32768, i32::MIN, 65536])]
}
