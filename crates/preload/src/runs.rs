// SPDX-License-Identifier: MIT OR Apache-2.0
//! Working at a queue in runs. Where one process sends all the time and another one receives, all that the
//! two work on goes from processor to processor whenever it is the other one's turn, which takes
//! several times as long as a call. So a call that has found nothing to do, and then sees that there is
//! something, waits on for a moment, as long as there is more and more to do: then many calls in a row find
//! what they need, and nobody is in the way of the other.
//!
//! Only a process that has done nothing but send, or nothing but receive, for several calls does so, and
//! only as long as it pays: one that waits for an answer before it goes on has nothing of it.

use crate::sys::time_of;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};

/// What a process does at a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// It sends.
    In,
    /// It receives.
    Out,
}

/// How a process uses a queue. Two threads that count at once may lose a call of each other.
#[derive(Default)]
pub struct Runs {
    sends: Calls,
    receives: Calls,
}

/// Calls of one kind.
#[derive(Default)]
struct Calls {
    /// How many were done.
    done: AtomicU32,
    /// How many there were when one of the other kind was last seen to have come in between.
    turned: AtomicU32,
    /// How many of the other kind there were then.
    others: AtomicU32,
    /// How many there were when there was last something to do again.
    begun: AtomicU32,
    /// Whether that was waited on for.
    waited: AtomicBool,
    /// How often it is not waited from now on.
    skip: AtomicU32,
}

/// Calls in a row that make a stream.
const STREAM: u32 = 8;
/// Calls that have to be done in a row for the wait to have paid.
const WORTH: u32 = 8;
/// How often it is not waited when that did not pay.
const SKIP: u32 = 64;
/// Nanoseconds until the first look whether there is more to do. A look takes the other one about as much
/// time as a call.
const FIRST: i64 = 500;
/// Nanoseconds between later looks, at most.
const LATER: i64 = 2_000;
/// Nanoseconds that something to do is there at most, while it is waited for more.
const LONGEST: i64 = 16_000;
/// Nanoseconds in which there has to be one more thing to do.
const PACE: i64 = 500;

impl Runs {
    fn calls(&self, way: Way) -> (&Calls, &Calls) {
        match way {
            Way::In => (&self.sends, &self.receives),
            Way::Out => (&self.receives, &self.sends),
        }
    }

    /// A call has sent, or received, a message.
    #[inline(always)]
    pub fn count(&self, way: Way) {
        let done = &self.calls(way).0.done;
        done.store(done.load(Relaxed).wrapping_add(1), Relaxed);
    }

    /// Whether it is a stream that goes this way.
    fn streams(&self, way: Way) -> bool {
        let (own, other) = self.calls(way);
        let (done, others) = (own.done.load(Relaxed), other.done.load(Relaxed));
        if own.others.load(Relaxed) != others {
            own.others.store(others, Relaxed);
            own.turned.store(done, Relaxed);
        }
        done.wrapping_sub(own.turned.load(Relaxed)) >= STREAM
    }

    /// Which way it is a stream of which many calls were done since it was last waited for more to do: those
    /// who work against it have not had their turn for as long.
    pub fn had_a_run(&self) -> Option<Way> {
        [Way::In, Way::Out].into_iter().find(|&way| {
            let calls = self.calls(way).0;
            let run = calls
                .done
                .load(Relaxed)
                .wrapping_sub(calls.begun.load(Relaxed));
            run >= WORTH && self.streams(way)
        })
    }

    /// There is something to do, which there was not before. Waits for more, if that is worth while, until
    /// `stops`; `come` counts what comes.
    pub fn wait_on(&self, way: Way, come: impl Fn() -> u64, stops: impl Fn() -> bool) {
        let calls = self.calls(way).0;
        let done = calls.done.load(Relaxed);
        let run = done.wrapping_sub(calls.begun.swap(done, Relaxed));
        if calls.waited.swap(false, Relaxed) && run < WORTH {
            calls.skip.store(SKIP, Relaxed);
        }
        if !self.streams(way) {
            return;
        }
        match calls.skip.load(Relaxed) {
            0 => {}
            skip => return calls.skip.store(skip - 1, Relaxed),
        }
        calls.waited.store(true, Relaxed);
        let begun = now();
        let (mut seen, mut at, mut gap) = (come(), begun, FIRST);
        while at - begun < LONGEST {
            at += gap;
            while now() < at {
                if stops() {
                    return;
                }
                std::hint::spin_loop();
            }
            let more = come();
            if (more.wrapping_sub(seen) as i64) < gap / PACE {
                return;
            }
            seen = more;
            gap = (2 * gap).min(LATER);
        }
    }
}

/// Nanoseconds since some moment.
fn now() -> i64 {
    let now = time_of(libc::CLOCK_MONOTONIC);
    now.tv_sec
        .wrapping_mul(1_000_000_000)
        .wrapping_add(now.tv_nsec)
}
