// SPDX-License-Identifier: MIT OR Apache-2.0
//! A `semop` that has to wait: into the queue, looking for a while, asleep, and out again by being
//! served, by a signal, by time, or because the set is gone.
//!
//! From the moment it is in the queue a signal handler that runs in this thread ends the wait first
//! ([`crate::thread::Wait`]): in the kernel too, the call has failed with `EINTR` when the handler
//! runs, which may never come back here.

use crate::process::processors;
use crate::sem::{Around, Failed, Own};
use crate::sets::LocalSet;
use crate::sleep::{self, Slept};
use crate::thread::{self, Thread, Wait};
use libc::timespec;
use rustix::thread::sched_yield;
use rustix::time::{ClockId, Timespec, clock_gettime};
use std::ffi::c_int;
use std::sync::atomic::{AtomicI32, AtomicU32, AtomicU64, Ordering::*, fence};
use vshmem_abi::region::waiter;
use vshmem_abi::wire::State;
use vshmem_engine::death_mark::Mark;
use vshmem_engine::directory;
use vshmem_engine::region::map;
use vshmem_engine::set::{Call, Locked, Op, Outcome};

/// The longest sleep without a look around. Whoever serves a sleeper wakes it; this is for a
/// `vshmemd` that died, and for one who died between serving and waking.
const SLICE: Timespec = Timespec {
    tv_sec: 2,
    tv_nsec: 0,
};

/// Looks before sleeping: at first, at least when trying anew, at least, and at most.
struct Looks {
    first: u32,
    probe: u32,
    least: u32,
    most: u32,
}

/// Looks without letting others run: up to a few tens of microseconds, which is what a wake-up of
/// another processor takes.
const SPINS: Looks = Looks {
    first: 300,
    probe: 32,
    least: 2,
    most: 2000,
};

/// Looks after letting others run: the one who serves us, and those who wait before us, are among
/// them. No wake-up is needed then, and no processor idles until it has come. Measured on one
/// processor, a turn of two processes took 1.6 us instead of 2.8.
const YIELDS: Looks = Looks {
    first: 8,
    probe: 8,
    least: 0,
    most: 64,
};

/// Nanoseconds after which others have had the processor for so long that it would have been better to
/// sleep: a sleeper that is woken goes first.
const DEAR: i64 = 1_000_000;

/// How many waits go by until one looks for longer than usual: what did not pay may do so again.
const PROBE: u32 = 64;

/// What a look has shown.
#[derive(PartialEq, Eq)]
enum Look {
    /// What was looked for.
    Found,
    /// Nothing yet.
    Nothing,
    /// That looking does not pay, whatever else.
    TooDear,
}

impl Looks {
    /// Looks as often as `now` says, which is then adapted; `true` as soon as something was found. This
    /// is wait number `wait`. What is kept is one more than the number of looks; 0: not known yet.
    fn look(&self, now: &AtomicU32, wait: u32, mut look: impl FnMut() -> Look) -> bool {
        let usual = now.load(Relaxed).checked_sub(1).unwrap_or(self.first);
        let looks = if wait.is_multiple_of(PROBE) {
            usual.max((4 * usual).clamp(self.probe, self.first))
        } else {
            usual
        };
        let mut last = Look::Nothing;
        let taken = (1..=looks).find(|_| {
            last = look();
            last != Look::Nothing
        });
        let next = match (taken, &last) {
            (Some(taken), Look::Found) => usual.max(2 * taken).min(self.most),
            (_, Look::TooDear) => (usual / 2).max(self.least),
            _ => (usual * 7 / 8).max(self.least),
        };
        now.store(next + 1, Relaxed);
        last == Look::Found
    }
}

/// [`Waiting::ended`]: it has not.
const NOT_ENDED: i32 = -1;

/// A wait under way, on the stack of the thread that waits.
#[repr(C)]
struct Waiting<'a> {
    wait: Wait,
    own: &'a Own,
    index: u32,
    slot: u32,
    mark: Mark,
    /// The result, 0 or an errno, if a signal handler has ended the wait.
    ended: AtomicI32,
}

/// Goes on with a call that cannot be done at once, as `outcome` says; the set's lock is held.
#[inline(never)]
#[allow(clippy::too_many_arguments)] // one caller, which has all of them at hand
pub fn blocked<'b>(
    own: &Own,
    ops: &[Op],
    call: &Call,
    timeout: Option<timespec>,
    mut locked: Locked<'static, 'b, AtomicU64, Around>,
    mut outcome: Outcome,
    thread: &Thread,
    around: &'b Around,
) -> Result<(), Failed> {
    if locked.has_undo_of_the_dead() {
        locked.unlock();
        thread.leave();
        own.settle();
        locked = own.lock(thread, around)?;
        outcome = locked.semop(ops, call);
    }
    let place = match outcome {
        Outcome::Blocked(place) if !timeout.is_some_and(|t| t.tv_sec == 0 && t.tv_nsec == 0) => {
            place
        }
        outcome => {
            locked.unlock();
            thread.leave();
            return match outcome {
                Outcome::Done => Ok(()),
                Outcome::Failed(error) => Err(error.into()),
                Outcome::Blocked(_) => Err(libc::EAGAIN.into()),
            };
        }
    };
    let refused = |locked: Locked<'static, '_, AtomicU64, Around>| {
        locked.unlock();
        thread.leave();
        Err(libc::ENOMEM.into())
    };
    let Some((slot, mark)) = own
        .page
        .claim(call.caller.token, call.caller.token.serial() as u32)
    else {
        return refused(locked);
    };
    let Some(index) = locked.wait(ops, call, slot, place) else {
        own.page.release(slot, mark);
        return refused(locked);
    };
    // With the lock still held: `vshmemd` finds a dead client by one or the other.
    own.page.set_construct(slot, own.local.id, index);
    own.local.waiting.fetch_add(1, SeqCst);
    let all = locked.waiting();
    let waiting = Waiting {
        wait: Wait { cancel },
        own,
        index,
        slot,
        mark,
        ended: AtomicI32::new(NOT_ENDED),
    };
    thread.set_waiting(&waiting.wait);
    locked.unlock();
    thread.leave();
    waiting.finish(thread, timeout, all)
}

impl Waiting<'_> {
    fn finish(&self, thread: &Thread, timeout: Option<timespec>, all: u32) -> Result<(), Failed> {
        let deadline = timeout.map(after);
        let stopped = if self.look_for_a_while(all) {
            Stop::Told
        } else {
            self.sleep(deadline)
        };
        // From here on the thread is in a critical section: no handler runs until all is put away.
        let around = self.own.around();
        let result = match stopped {
            Stop::Told => {
                if !thread.enter() {
                    return Err(libc::EINTR.into());
                }
                self.told(thread)
            }
            Stop::Because(errno) => match self.own.lock(thread, &around) {
                Ok(mut locked) => {
                    let in_time = self.is_ours(thread)
                        && locked.give_up(self.index, self.own.process.token());
                    locked.unlock();
                    if in_time { errno } else { self.told(thread) }
                }
                // The set is gone, or `vshmemd` is.
                Err(error) => {
                    if !thread.enter() {
                        return Err(libc::EINTR.into());
                    }
                    self.told_or(thread, error)
                }
            },
            Stop::Gone(errno) => {
                if !thread.enter() {
                    return Err(libc::EINTR.into());
                }
                self.told_or(thread, errno)
            }
        };
        self.put_away();
        thread.leave();
        match result {
            0 => Ok(()),
            errno => Err(errno.into()),
        }
    }

    /// The result of a wait that has ended, by whoever. If there is none the set is gone, and its
    /// memory may be, too.
    fn told(&self, thread: &Thread) -> c_int {
        self.told_or(thread, libc::EIDRM)
    }

    /// The result of a wait, or this errno if there is none.
    fn told_or(&self, thread: &Thread, errno: c_int) -> c_int {
        if !self.is_ours(thread) {
            return self.ended.load(Relaxed);
        }
        match self.own.local.set.look(self.index) {
            waiter::POSTED => self.own.local.set.collect(self.index),
            _ => errno,
        }
    }

    /// Takes the wait from the thread. `false`: a signal handler has ended it.
    fn is_ours(&self, thread: &Thread) -> bool {
        thread.clear_waiting();
        self.ended.load(Relaxed) == NOT_ENDED
    }

    /// Frees what the wait has taken.
    fn put_away(&self) {
        let local = self.own.local;
        if self.ended.load(Relaxed) == NOT_ENDED {
            self.own.page.release(self.slot, self.mark);
            local.waiting.fetch_sub(1, SeqCst);
        } else {
            let (left, index) = &thread::current().left;
            if std::ptr::eq(left.load(Relaxed), local) && index.load(Relaxed) == self.index {
                left.store(std::ptr::null_mut(), Relaxed);
                free(local, self.index);
            }
        }
    }

    fn has_ended(&self) -> bool {
        self.ended.load(Relaxed) != NOT_ENDED
            || !matches!(
                self.own.local.set.look(self.index),
                waiter::AWAKE | waiter::ASLEEP
            )
    }

    /// Looks whether somebody serves us soon, for as long as it has paid lately: first by looking alone,
    /// where all who wait, and one more, can have a processor each; then by letting others run, who
    /// may be on ours.
    fn look_for_a_while(&self, waiting: u32) -> bool {
        let local = self.own.local;
        let wait = local.waits.fetch_add(1, Relaxed);
        let alone = waiting < processors()
            && SPINS.look(&local.spins, wait, || {
                std::hint::spin_loop();
                self.found()
            });
        if alone {
            return true;
        }
        let begun = clock_gettime(ClockId::Monotonic);
        YIELDS.look(&local.yields, wait, || {
            sched_yield();
            let now = clock_gettime(ClockId::Monotonic);
            let took = now.tv_nsec - begun.tv_nsec;
            if now.tv_sec != begun.tv_sec || took > DEAR {
                return Look::TooDear;
            }
            self.found()
        }) || self.has_ended()
    }

    fn found(&self) -> Look {
        if self.has_ended() {
            Look::Found
        } else {
            Look::Nothing
        }
    }

    fn sleep(&self, deadline: Option<Timespec>) -> Stop {
        let own = self.own;
        loop {
            if self.has_ended() || !own.local.set.fall_asleep(self.index) {
                return Stop::Told;
            }
            // The slot says what we wait for; now the state is looked at. `vshmemd` writes the state,
            // then looks at the slots: one of us sees the other.
            fence(SeqCst);
            if !directory::writer_lives(own.directory) {
                return Stop::Gone(libc::ENODEV);
            }
            if own.local.state(own.directory) != State::Live {
                return Stop::Gone(libc::EIDRM);
            }
            let (time, is_last) = match deadline.map(until) {
                None => (SLICE, false),
                Some(None) => return Stop::Because(libc::EAGAIN),
                Some(Some(left)) if left < SLICE => (left, true),
                Some(Some(_)) => (SLICE, false),
            };
            let word = map::futex_word(own.local.set, self.index);
            match sleep::wait(word, waiter::ASLEEP as u32, Some(time)) {
                Slept::Woken | Slept::Changed => {}
                Slept::TimedOut if is_last => return Stop::Because(libc::EAGAIN),
                Slept::TimedOut => {}
                Slept::Interrupted => return Stop::Because(libc::EINTR),
            }
        }
    }
}

/// Why a wait ends.
enum Stop {
    /// There is a result.
    Told,
    /// It gives up, with this errno if there is no result.
    Because(c_int),
    /// There is nothing to wait for any more.
    Gone(c_int),
}

/// Ends the wait of this thread, on which a signal handler is about to run.
///
/// # Safety
/// `wait` is the first field of a [`Waiting`], whose frame is further up on this thread's stack.
unsafe fn cancel(wait: *const Wait) {
    // SAFETY: as the caller promises.
    let waiting = unsafe { &*wait.cast::<Waiting<'_>>() };
    let own = waiting.own;
    let thread = thread::current();
    let around = own.around();
    let ended = match own.lock(thread, &around) {
        Ok(mut locked) => {
            let interrupted = locked.interrupt(waiting.index, own.process.token(), libc::EINTR);
            locked.unlock();
            let result = match own.local.set.look(waiting.index) {
                _ if interrupted => libc::EINTR,
                waiter::POSTED => own.local.set.result(waiting.index),
                _ => libc::EIDRM,
            };
            own.page.release(waiting.slot, waiting.mark);
            let (left, index) = &thread.left;
            let before = (left.load(Relaxed), index.load(Relaxed));
            left.store(std::ptr::from_ref(own.local).cast_mut(), Relaxed);
            index.store(waiting.index, Relaxed);
            // SAFETY: null, or a set, which stays until the process ends.
            if let Some(local) = unsafe { before.0.as_ref() } {
                // Of a wait that was left behind by a handler that jumped away.
                free(local, before.1);
            }
            waiting.ended.store(result, Relaxed);
            thread.leave();
            return;
        }
        Err(error) => error,
    };
    own.page.release(waiting.slot, waiting.mark);
    own.local.waiting.fetch_sub(1, SeqCst);
    waiting.ended.store(ended, Relaxed);
}

/// Frees the record of a wait that has ended.
fn free(local: &LocalSet, index: u32) {
    local.set.collect(index);
    local.waiting.fetch_sub(1, SeqCst);
}

/// The moment that lies `time` ahead.
fn after(time: timespec) -> Timespec {
    let now = clock_gettime(ClockId::Monotonic);
    let nsec = now.tv_nsec + time.tv_nsec;
    Timespec {
        tv_sec: now
            .tv_sec
            .saturating_add(time.tv_sec)
            .saturating_add(nsec / 1_000_000_000),
        tv_nsec: nsec % 1_000_000_000,
    }
}

/// The time until `deadline`; `None` when it has come.
fn until(deadline: Timespec) -> Option<Timespec> {
    let now = clock_gettime(ClockId::Monotonic);
    let (mut sec, mut nsec) = (
        deadline.tv_sec.saturating_sub(now.tv_sec),
        deadline.tv_nsec - now.tv_nsec,
    );
    if nsec < 0 {
        sec = sec.saturating_sub(1);
        nsec += 1_000_000_000;
    }
    (sec >= 0 && (sec, nsec) != (0, 0)).then_some(Timespec {
        tv_sec: sec,
        tv_nsec: nsec,
    })
}
