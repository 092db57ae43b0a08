// SPDX-License-Identifier: MIT OR Apache-2.0
//! Random scripts of calls on semaphore sets: most succeed or sleep, the rest fails in as many ways
//! as the man pages know.

use super::script::{Call, Op, Signal, Step, Timeout};
use crate::conform::generate::{
    become_other, buffer, end, id, limits, mode, new_process, set, stat, totals,
};
use crate::conform::script::{Buffer, Common, IDS, Id, PROCESSES, STARTED};
use proptest::prelude::*;
use proptest::sample::select;
use std::ops::RangeInclusive;

/// Semaphores of most sets.
const SEMS: i32 = 3;

/// Scripts of so many steps.
pub fn scripts(steps: RangeInclusive<usize>) -> BoxedStrategy<Vec<Step>> {
    let process = prop_oneof![6 => 0..STARTED as u8, 4 => STARTED as u8..PROCESSES as u8];
    let step = (process, prop::bool::weighted(0.15), call())
        .prop_map(|(process, raw, call)| Step { process, raw, call });
    // A set for all to begin with, lest half of the steps find nothing to work on.
    let first = Step {
        process: 0,
        raw: false,
        call: Call::Get {
            slot: 0,
            key: 1,
            sems: SEMS,
            flags: libc::IPC_CREAT | 0o666,
        },
    };
    prop::collection::vec(step, steps)
        .prop_map(move |mut steps| {
            steps.insert(0, first.clone());
            steps
        })
        .boxed()
}

fn call() -> impl Strategy<Value = Call> {
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
        3 => stat().prop_map(Call::Common),
        3 => set(mode()).prop_map(Call::Common),
        2 => control().prop_map(Call::Common),
        1 => limits().prop_map(Call::Common),
        1 => totals().prop_map(Call::Common),
        6 => signal(),
        7 => new_process().prop_map(Call::Common),
        2 => Just(Call::Common(Common::Exec)),
        7 => end().prop_map(Call::Common),
        6 => become_other().prop_map(Call::Common),
        1 => Just(Call::Common(Common::CloseAll)),
    ]
}

fn get() -> impl Strategy<Value = Call> {
    let sems = prop_oneof![
        8 => Just(SEMS),
        2 => 1..3i32,
        1 => select(vec![0, -1, 4, 200, 32000, 32001, i32::MAX]),
    ];
    let how = prop_oneof![
        9 => Just(libc::IPC_CREAT),
        2 => Just(libc::IPC_CREAT | libc::IPC_EXCL),
        3 => Just(0),
        1 => Just(libc::IPC_EXCL),
    ];
    let key = prop_oneof![1 => Just(0u8), 6 => 1..3u8];
    (0..IDS as u8, key, sems, how, mode()).prop_map(|(slot, key, sems, how, mode)| Call::Get {
        slot,
        key,
        sems,
        flags: how | mode,
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

fn control() -> impl Strategy<Value = Common> {
    let command = prop_oneof![
        6 => Just(libc::IPC_RMID),
        // The last are shmctl's SHM_LOCK, msgctl's MSG_INFO, unused numbers and IPC_64 alone.
        1 => select(vec![-1, 5, 99, 0x100, i32::MIN]),
    ];
    (id(), command).prop_map(|(id, command)| Common::Control {
        id,
        command,
        buffer: Buffer::Null,
    })
}

fn signal() -> impl Strategy<Value = Call> {
    select(vec![
        Signal::Handled,
        Signal::Restarting,
        Signal::Ignored,
        Signal::Stop,
    ])
    .prop_map(|signal| Call::Signal { signal })
}
