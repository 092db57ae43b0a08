// SPDX-License-Identifier: MIT OR Apache-2.0
//! Random scripts of calls on message queues: most succeed or sleep, the rest fails in as many ways
//! as the man pages know.

use super::script::{Call, Place, Step};
use crate::conform::generate::{buffer, id, mode, owner};
use crate::conform::script::{Buffer, IDS, Id};
use crate::conform::sleepers::{
    self,
    generate::{common, get_flags, key, signal},
};
use proptest::prelude::*;
use proptest::sample::select;
use std::ops::RangeInclusive;

/// MSGMAX and MSGMNB of an IPC namespace in which nobody has changed them.
const MSGMAX: u64 = 8192;
const MSGMNB: u64 = 16384;

/// Scripts of so many steps.
pub fn scripts(steps: RangeInclusive<usize>) -> BoxedStrategy<Vec<Step>> {
    // A queue for all to begin with, in most scripts one that is full soon.
    let get = Call::Get {
        slot: 0,
        key: 1,
        flags: libc::IPC_CREAT | 0o666,
    };
    let first = prop_oneof![1 => Just(MSGMNB), 4 => few_bytes()].prop_map(move |qbytes| {
        let set = Call::Set {
            id: Id::Slot(0),
            uid: 0,
            gid: 0,
            mode: 0o666,
            qbytes,
            buffer: Buffer::Good,
        };
        vec![get.clone(), set]
    });
    sleepers::generate::scripts(first, call(), steps)
}

fn call() -> impl Strategy<Value = sleepers::Call<Call>> {
    prop_oneof![
        70 => own().prop_map(sleepers::Call::Own),
        24 => common().prop_map(sleepers::Call::Common),
        8 => signal(),
    ]
}

fn own() -> impl Strategy<Value = Call> {
    prop_oneof![
        7 => get(),
        32 => send(),
        32 => receive(),
        6 => set(),
    ]
}

fn get() -> impl Strategy<Value = Call> {
    let slot = prop_oneof![2 => Just(0u8), 1 => 0..IDS as u8];
    (slot, key(), get_flags()).prop_map(|(slot, key, flags)| Call::Get { slot, key, flags })
}

/// Most on the one queue that there is from the beginning: there they meet.
fn queue() -> impl Strategy<Value = Id> {
    prop_oneof![4 => Just(Id::Slot(0)), 1 => id()]
}

/// Sizes of texts: of those that lie with their type, of those that do not, and of those that are too
/// long for a queue.
fn size() -> impl Strategy<Value = u64> {
    prop_oneof![
        10 => 0..40u64,
        3 => select(vec![64, 71, 72, 73, 80, 100, 200]),
        3 => select(vec![511, 512, 513, 1000, 1024, 1025, 4088, 4096, MSGMAX - 1, MSGMAX]),
    ]
}

fn few_bytes() -> impl Strategy<Value = u64> {
    prop_oneof![
        8 => 20..120u64,
        1 => 0..6u64,
        2 => select(vec![512, 1000, 4096, MSGMAX]),
    ]
}

fn place() -> impl Strategy<Value = Place> {
    select(vec![
        Place::Pages,
        Place::Stack,
        Place::Heap,
        Place::Unaligned,
        Place::Data,
        Place::End,
    ])
}

fn send() -> impl Strategy<Value = Call> {
    let kind = prop_oneof![
        12 => 1..5i64,
        2 => select(vec![64, 65, 128, 129, i64::MAX]),
        1 => select(vec![0, -1, i64::MIN]),
    ];
    let size = prop_oneof![
        24 => size(),
        1 => select(vec![MSGMAX + 1, 1 << 32, 1 << 63, u64::MAX]),
    ];
    let flags = prop_oneof![
        5 => Just(0),
        3 => Just(libc::IPC_NOWAIT),
        1 => Just(libc::MSG_NOERROR | libc::MSG_EXCEPT),
    ];
    (queue(), kind, size, flags, any::<u8>(), buffer(), place()).prop_map(
        |(id, kind, size, flags, text, buffer, place)| Call::Send {
            id,
            kind,
            size,
            flags,
            text,
            buffer,
            place,
        },
    )
}

fn receive() -> impl Strategy<Value = Call> {
    let kind = prop_oneof![
        6 => Just(0i64),
        8 => 1..5i64,
        5 => -4..0i64,
        2 => select(vec![64, 65, 129, -65, -129, i64::MAX, -i64::MAX, i64::MIN]),
    ];
    let room = prop_oneof![
        12 => Just(MSGMAX),
        6 => size(),
        1 => select(vec![MSGMAX + 1, 1 << 32, i64::MAX as u64, 1 << 63, u64::MAX]),
    ];
    let flag = |probability, bit: i32| {
        prop::bool::weighted(probability).prop_map(move |on| if on { bit } else { 0 })
    };
    let flags = (
        flag(0.4, libc::IPC_NOWAIT),
        flag(0.2, libc::MSG_NOERROR),
        flag(0.1, libc::MSG_EXCEPT),
        // Without IPC_NOWAIT it is an error.
        prop_oneof![
            20 => Just(0),
            2 => Just(libc::MSG_COPY | libc::IPC_NOWAIT),
            1 => Just(libc::MSG_COPY),
        ],
    )
        .prop_map(|(nowait, noerror, except, copy)| nowait | noerror | except | copy);
    (queue(), room, kind, flags, buffer(), place()).prop_map(
        |(id, room, kind, flags, buffer, place)| Call::Receive {
            id,
            room,
            kind,
            flags,
            buffer,
            place,
        },
    )
}

fn set() -> impl Strategy<Value = Call> {
    let qbytes = prop_oneof![
        4 => few_bytes(),
        3 => Just(MSGMNB),
        1 => select(vec![MSGMNB + 1, 1 << 20]),
    ];
    (queue(), owner(), owner(), mode(), qbytes, buffer()).prop_map(
        |(id, uid, gid, mode, qbytes, buffer)| Call::Set {
            id,
            uid,
            gid,
            mode: mode as u16,
            qbytes,
            buffer,
        },
    )
}
