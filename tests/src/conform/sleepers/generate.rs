// SPDX-License-Identifier: MIT OR Apache-2.0
//! What random scripts of calls that may sleep have in common.

use super::{Call, Own, Signal, Step};
use crate::conform::generate::{become_other, end, id, limits, mode, new_process, stat, totals};
use crate::conform::script::{Buffer, Common, PROCESSES, STARTED};
use proptest::prelude::*;
use proptest::sample::select;
use std::ops::RangeInclusive;

/// Scripts of so many steps, after those of `first`.
pub fn scripts<O: Own>(
    first: impl Strategy<Value = Vec<O>> + 'static,
    call: impl Strategy<Value = Call<O>> + 'static,
    steps: RangeInclusive<usize>,
) -> BoxedStrategy<Vec<Step<O>>> {
    let process = prop_oneof![6 => 0..STARTED as u8, 4 => STARTED as u8..PROCESSES as u8];
    let step = (process, prop::bool::weighted(0.15), call).prop_map(|(process, raw, call)| Step {
        process,
        raw,
        call,
    });
    (first, prop::collection::vec(step, steps))
        .prop_map(|(first, steps)| {
            let first = first.into_iter().map(|call| Step {
                process: 0,
                raw: false,
                call: Call::Own(call),
            });
            first.chain(steps).collect()
        })
        .boxed()
}

/// A signal to who sleeps.
pub(in crate::conform) fn signal<O: Own>() -> impl Strategy<Value = Call<O>> {
    select(vec![
        Signal::Handled,
        Signal::Restarting,
        Signal::Ignored,
        Signal::Stop,
    ])
    .prop_map(|signal| Call::Signal { signal })
}

/// The mode of a get, and how it is to find or to make.
pub(in crate::conform) fn get_flags() -> impl Strategy<Value = i32> {
    let how = prop_oneof![
        9 => Just(libc::IPC_CREAT),
        2 => Just(libc::IPC_CREAT | libc::IPC_EXCL),
        3 => Just(0),
        1 => Just(libc::IPC_EXCL),
    ];
    (how, mode()).prop_map(|(how, mode)| how | mode)
}

/// A key of a get.
pub(in crate::conform) fn key() -> impl Strategy<Value = u8> {
    prop_oneof![1 => Just(0u8), 6 => 1..3u8]
}

/// The calls that scripts on all such constructs make in the same way.
pub(in crate::conform) fn common() -> impl Strategy<Value = Common> {
    prop_oneof![
        3 => stat(),
        2 => control(),
        1 => limits(),
        1 => totals(),
        7 => new_process(),
        2 => Just(Common::Exec),
        7 => end(),
        6 => become_other(),
        1 => Just(Common::CloseAll),
    ]
}

/// The control commands that take nothing, and some that do not exist.
fn control() -> impl Strategy<Value = Common> {
    let command = prop_oneof![
        6 => Just(libc::IPC_RMID),
        // Unused numbers and IPC_64 alone.
        1 => select(vec![-1, 5, 99, 0x100, i32::MIN]),
    ];
    (id(), command).prop_map(|(id, command)| Common::Control {
        id,
        command,
        buffer: Buffer::Null,
    })
}
