// SPDX-License-Identifier: MIT OR Apache-2.0
//! The cases of message queues.

use super::Key::HeldQueue;
use super::Pinning::{Free, OneCore, TwoCores};
use super::Place::{Other, Same};
use super::{
    Case, Goal, NOISE, Pinning, Program, THIRTY_TIMES, THREE_TIMES, Turns, routed, worker,
};

const fn queues(part: &'static str, size: u32) -> Turns {
    Turns {
        program: "queues",
        part,
        size: Some(size),
    }
}

const MSG_PING: Turns = queues("ping", 8);

const TWICE: Goal = Goal::Ratio(1.0 / 2.0);
const HALF_AS_MUCH_MORE: Goal = Goal::Ratio(1.0 / 1.5);

/// All of them.
pub fn all() -> Vec<Case> {
    const ONE: &[Pinning] = &[OneCore];
    const TWO: &[Pinning] = &[TwoCores];
    const FREE: &[Pinning] = &[Free];
    const TWO_FREE: &[Pinning] = &[TwoCores, Free];
    vec![
        worker(
            "msg-one",
            "msgsnd and msgrcv of 8 bytes by one process; queue made in the same domain",
            ("message", HeldQueue(0, Same)),
            20000,
            ONE,
            THREE_TIMES,
        ),
        worker(
            "msg-one-across",
            "msgsnd and msgrcv of 8 bytes by one process; queue made in another domain",
            ("message", HeldQueue(0, Other)),
            20000,
            ONE,
            THREE_TIMES,
        ),
        worker(
            "msg-deep-1000",
            "msgsnd and msgrcv by type behind 1000 messages of other types",
            ("message", HeldQueue(1000, Same)),
            1000,
            ONE,
            NOISE,
        ),
        worker(
            "msg-deep-10000",
            "msgsnd and msgrcv by type behind 10000 messages of other types",
            ("message", HeldQueue(10000, Same)),
            200,
            ONE,
            NOISE,
        ),
        routed(
            "msg-ping-two",
            "ping-pong of 8 bytes by two processes in one domain",
            Program::Two(MSG_PING, Same),
            5000,
            TWO,
            THIRTY_TIMES,
        ),
        routed(
            "msg-ping-one",
            "ping-pong of 8 bytes by two processes in one domain",
            Program::Two(MSG_PING, Same),
            20000,
            ONE,
            NOISE,
        ),
        routed(
            "msg-ping-free",
            "ping-pong of 8 bytes by two processes in one domain",
            Program::Two(MSG_PING, Same),
            5000,
            FREE,
            Goal::Open,
        ),
        routed(
            "msg-ping-two-across",
            "ping-pong of 8 bytes by two processes in two domains",
            Program::Two(MSG_PING, Other),
            5000,
            TWO,
            THIRTY_TIMES,
        ),
        routed(
            "msg-ping-one-across",
            "ping-pong of 8 bytes by two processes in two domains",
            Program::Two(MSG_PING, Other),
            20000,
            ONE,
            NOISE,
        ),
        routed(
            "msg-ping-free-across",
            "ping-pong of 8 bytes by two processes in two domains",
            Program::Two(MSG_PING, Other),
            5000,
            FREE,
            Goal::Open,
        ),
        routed(
            "msg-stream-64",
            "a stream of messages of 64 bytes, one sender, one receiver, in one domain",
            Program::Two(queues("stream", 64), Same),
            50000,
            TWO_FREE,
            THREE_TIMES,
        ),
        routed(
            "msg-stream-8k",
            "a stream of messages of 8 KiB, one sender, one receiver, in one domain",
            Program::Two(queues("stream", 8192), Same),
            20000,
            TWO_FREE,
            HALF_AS_MUCH_MORE,
        ),
        routed(
            "msg-stream-64-across",
            "a stream of messages of 64 bytes, one sender, one receiver, in two domains",
            Program::Two(queues("stream", 64), Other),
            50000,
            TWO_FREE,
            THREE_TIMES,
        ),
        routed(
            "msg-stream-8k-across",
            "a stream of messages of 8 KiB, one sender, one receiver, in two domains",
            Program::Two(queues("stream", 8192), Other),
            20000,
            TWO_FREE,
            HALF_AS_MUCH_MORE,
        ),
        routed(
            "msg-typed",
            "4 senders and 4 receivers, each with a type of its own, at one queue; 64 bytes",
            Program::Many(queues("typed", 64), 4),
            5000,
            FREE,
            TWICE,
        ),
    ]
}
