// SPDX-License-Identifier: MIT OR Apache-2.0
//! A call that has to wait, once it is in a line: looking for a while, asleep, and out again by being
//! served, by a signal, by time, or because the construct is gone.
//!
//! From the moment it is in the line a signal handler that runs in this thread ends the wait first
//! ([`crate::thread::Wait`]): in the kernel too, the call has ended when the handler runs, which may
//! never come back here.

use crate::own::{Around, Held, Kind, Own};
use crate::process::processors;
use crate::sleep::{self, Slept};
use crate::sys::time_of;
use crate::thread::{self, Thread, Wait};
use libc::timespec;
use rustix::thread::sched_yield;
use rustix::time::Timespec;
use std::ffi::c_int;
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU32, Ordering::*, fence};
use vshmem_abi::region::waiter;
use vshmem_abi::wire::State;
use vshmem_engine::death_mark::Mark;
use vshmem_engine::directory;
use vshmem_engine::sleep_word::SleepWord;

/// What came of a wait.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Came {
    /// The result of the call; below 0: its errno, negative.
    Result(i64),
    /// The call has to begin again.
    Again,
}

/// The error `errno` as a result.
pub fn failed(errno: c_int) -> i64 {
    -i64::from(errno)
}

/// What is particular to a call that waits.
pub trait Call {
    /// The kind of construct that it is made on.
    type Kind: Kind;

    /// Whether its result is taken with the lock held.
    const LOCKED: bool;

    /// Whether it is a cancellation point: a thread that somebody wants to end does not sleep, but
    /// is interrupted.
    const CANCELLABLE: bool;

    /// Whether it begins again after a stop of the process.
    const RESTARTS: bool;

    /// Takes what came of the wait at `index`, which has ended, and frees the record. Called in a critical
    /// section; `locked` is the lock, if it could be had and [`Self::LOCKED`]; it is given back.
    fn take(
        &self,
        own: &Own<Self::Kind>,
        thread: &Thread,
        locked: Option<Held<'_, Self::Kind>>,
        index: u32,
    ) -> Came;

    /// The same for a signal handler that is about to run. The record stays until
    /// [`Kind::free_record`]: the thread may be about to sleep on it. A call that would have to begin again has
    /// been interrupted.
    fn take_for_handler(
        &self,
        own: &Own<Self::Kind>,
        thread: &Thread,
        locked: Held<'_, Self::Kind>,
        index: u32,
    ) -> i64;
}

/// The longest sleep without a look around. Whoever serves a sleeper wakes it; this is for a
/// `vshmemd` that died, and for one who died between serving and waking.
const SLICE: Timespec = Timespec {
    tv_sec: 2,
    tv_nsec: 0,
};

/// From the announcement of a request to end the thread to the request itself.
const MOMENT: Timespec = Timespec {
    tv_sec: 0,
    tv_nsec: 1_000_000,
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

/// A look under way before a call gets into a line.
#[repr(C)]
struct Early {
    wait: Wait,
    /// A signal handler has run.
    interrupted: AtomicBool,
}

/// Before a call that found nothing to do gets into a line: gives the lock back, looks whether that
/// changes soon, for as long as it has paid lately, and takes the lock again. Where one sends all the
/// time and another one receives, each finds several messages, or much room, at a time then; nobody has
/// to be told, and what they work on does not go to and fro with each of them.
///
/// # Errors
/// `EINTR` when a signal handler has run; `EIDRM` when the construct is gone.
pub fn look_early<'b, K: Kind>(
    own: &Own<K>,
    locked: Held<'b, K>,
    thread: &Thread,
    around: &'b Around<K>,
    mut look: impl FnMut() -> bool,
    found: impl FnOnce(&dyn Fn() -> bool),
) -> Result<Held<'b, K>, c_int> {
    // Where others wait, or processors are few, whoever is looked for may need ours.
    if locked.waiting() + 1 >= processors() {
        return Ok(locked);
    }
    let early = Early {
        wait: Wait { cancel: interrupt },
        interrupted: AtomicBool::new(false),
    };
    thread.set_waiting(std::ptr::from_ref(&early).cast());
    locked.unlock();
    thread.leave();
    let local = own.local;
    let interrupted = || early.interrupted.load(Relaxed);
    let looked = SPINS.look(&local.early, local.waits.load(Relaxed), || {
        std::hint::spin_loop();
        if look() || interrupted() {
            Look::Found
        } else {
            Look::Nothing
        }
    });
    if looked {
        found(&interrupted);
        own.await_release();
    }
    if !thread.enter() {
        return Err(libc::EINTR);
    }
    thread.clear_waiting();
    if interrupted() {
        thread.leave();
        return Err(libc::EINTR);
    }
    own.lock_again(thread, around).ok_or_else(|| {
        thread.leave();
        libc::EIDRM
    })
}

/// Notes that a signal handler is about to run.
///
/// # Safety
/// `wait` is the first field of an [`Early`], whose frame is further up on this thread's stack.
unsafe fn interrupt(wait: *const Wait) {
    // SAFETY: as the caller promises.
    let early = unsafe { &*wait.cast::<Early>() };
    early.interrupted.store(true, Relaxed);
}

/// [`Waiting::ended`]: it has not.
const NOT_ENDED: i64 = i64::MIN;

/// A slot of the domain's wait page, which the calling thread has.
pub struct Place {
    slot: u32,
    mark: Mark,
}

impl Place {
    /// Takes one; `None`: all are taken.
    pub fn claim<K: Kind>(own: &Own<K>) -> Option<Self> {
        let token = own.process.token();
        let (slot, mark) = own.page.claim(token, token.serial() as u32)?;
        Some(Self { slot, mark })
    }

    /// Which one.
    pub fn slot(&self) -> u32 {
        self.slot
    }

    /// Gives it back.
    pub fn release<K: Kind>(self, own: &Own<K>) {
        own.page.release(self.slot, self.mark);
    }
}

/// A wait under way, on the stack of the thread that waits.
#[repr(C)]
struct Waiting<'a, C: Call> {
    wait: Wait,
    own: &'a Own<C::Kind>,
    call: &'a C,
    index: u32,
    slot: u32,
    mark: Mark,
    /// The result, if a signal handler has ended the wait.
    ended: AtomicI64,
}

/// Waits, in `place`, with the record at `index`, which was put into a line just now; the lock is held.
#[inline(never)]
pub fn wait<C: Call>(
    own: &Own<C::Kind>,
    call: &C,
    place: Place,
    index: u32,
    timeout: Option<timespec>,
    locked: Held<'_, C::Kind>,
    thread: &Thread,
) -> Came {
    // With the lock still held: `vshmemd` finds a dead client by one or the other.
    own.page.set_construct(place.slot, own.local.id, index);
    own.local.waiting.fetch_add(1, SeqCst);
    let all = locked.waiting();
    let waiting = Waiting {
        wait: Wait {
            cancel: cancel::<C>,
        },
        own,
        call,
        index,
        slot: place.slot,
        mark: place.mark,
        ended: AtomicI64::new(NOT_ENDED),
    };
    thread.set_waiting(std::ptr::from_ref(&waiting).cast());
    locked.unlock();
    thread.leave();
    waiting.finish(thread, timeout, all)
}

impl<C: Call> Waiting<'_, C> {
    fn finish(&self, thread: &Thread, timeout: Option<timespec>, all: u32) -> Came {
        let deadline = timeout.map(after);
        let stopped = if self.look_for_a_while(all) {
            Stop::Told
        } else {
            self.sleep(deadline)
        };
        let mut errno = match stopped {
            Stop::Told | Stop::Restart => libc::EIDRM,
            Stop::Because(errno) | Stop::Gone(errno) => errno,
        };
        // From here on the thread is in a critical section: no handler runs until all is put away.
        let around = self.own.around();
        let mut locked = None;
        if C::LOCKED || matches!(stopped, Stop::Because(_)) {
            match self.own.lock_soon(thread, &around) {
                Ok(held) => locked = Some(held),
                // The construct is gone, or `vshmemd` is.
                Err(error) => errno = error,
            }
        }
        if locked.is_none() && !thread.enter() {
            return Came::Result(failed(libc::EINTR));
        }
        let came = self.end(thread, &stopped, locked, errno);
        self.put_away(thread);
        thread.leave();
        came
    }

    /// What came of the wait; if there is no result, the construct is gone, and its memory may be, too.
    #[inline]
    fn end(
        &self,
        thread: &Thread,
        stopped: &Stop,
        mut locked: Option<Held<'_, C::Kind>>,
        mut errno: c_int,
    ) -> Came {
        let give_back = |locked: Option<Held<'_, C::Kind>>| {
            if let Some(locked) = locked {
                locked.unlock();
            }
        };
        thread.clear_waiting();
        if C::CANCELLABLE {
            thread.set_sleeps_on(None);
        }
        let ended = self.ended.load(Relaxed);
        if ended != NOT_ENDED {
            give_back(locked);
            return Came::Result(ended);
        }
        let token = self.own.process.token();
        match (stopped, &mut locked) {
            (Stop::Because(_), Some(held)) => {
                if held.give_up(self.index, token) {
                    give_back(locked);
                    return Came::Result(failed(errno));
                }
                errno = libc::EIDRM;
            }
            (Stop::Restart, Some(held)) => {
                // The call begins again, unless it was done before.
                held.interrupt(self.index, token, libc::EAGAIN);
            }
            _ => {}
        }
        if !C::LOCKED {
            give_back(locked.take());
        }
        if self.own.local.region.look(self.index) == waiter::POSTED {
            return self.call.take(self.own, thread, locked, self.index);
        }
        give_back(locked);
        Came::Result(failed(errno))
    }

    /// Frees what the wait has taken.
    fn put_away(&self, thread: &Thread) {
        let local = self.own.local;
        if self.ended.load(Relaxed) == NOT_ENDED {
            self.own.page.release(self.slot, self.mark);
            local.waiting.fetch_sub(1, SeqCst);
        } else if thread.comes_back_for(local.left(), self.index) {
            local.free(self.index);
        }
    }

    fn has_ended(&self) -> bool {
        self.ended.load(Relaxed) != NOT_ENDED
            || !matches!(
                self.own.local.region.look(self.index),
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
        let begun = time_of(libc::CLOCK_MONOTONIC);
        YIELDS.look(&local.yields, wait, || {
            sched_yield();
            let now = time_of(libc::CLOCK_MONOTONIC);
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

    /// What the thread sleeps on.
    fn sleep_word(&self) -> SleepWord<'static> {
        let local = self.own.local;
        let in_page = (!local.has_futexes).then(|| self.own.page.sleep_word(self.slot));
        in_page
            .flatten()
            .unwrap_or(SleepWord::Post(local.region.post(self.index)))
    }

    fn sleep(&self, deadline: Option<Timespec>) -> Stop {
        let own = self.own;
        let thread = thread::current();
        let word = self.sleep_word();
        let mut asked_before = false;
        loop {
            let expected = word.expected();
            if self.has_ended() || !own.local.region.fall_asleep(self.index) {
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
            let time = if C::CANCELLABLE {
                thread.set_sleeps_on(Some(word));
                match thread.is_asked() {
                    // The request was announced a while ago, so the C library may have it.
                    true if asked_before => return Stop::Because(libc::EINTR),
                    true => {
                        asked_before = true;
                        MOMENT
                    }
                    false => time,
                }
            } else {
                time
            };
            match sleep::wait(word.futex(), expected, Some(time)) {
                Slept::Woken | Slept::Changed => {}
                Slept::TimedOut if is_last => return Stop::Because(libc::EAGAIN),
                Slept::TimedOut => {}
                Slept::Restarted if C::RESTARTS => return Stop::Restart,
                Slept::Interrupted | Slept::Restarted => return Stop::Because(libc::EINTR),
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
    /// The kernel would begin the call again, behind all who wait.
    Restart,
    /// There is nothing to wait for any more.
    Gone(c_int),
}

/// Ends the wait of this thread, on which a signal handler is about to run.
///
/// # Safety
/// `wait` is the first field of a [`Waiting`], whose frame is further up on this thread's stack.
unsafe fn cancel<C: Call>(wait: *const Wait) {
    // SAFETY: as the caller promises.
    let waiting = unsafe { &*wait.cast::<Waiting<'_, C>>() };
    let own = waiting.own;
    let thread = thread::current();
    let around = own.around();
    // The thread may be about to sleep, on what is somebody else's when the slot was given back.
    waiting.sleep_word().disturb();
    match own.lock(thread, &around) {
        Ok(mut locked) => {
            locked.interrupt(waiting.index, own.process.token(), libc::EINTR);
            let call = waiting.call;
            let result = call.take_for_handler(own, thread, locked, waiting.index);
            own.page.release(waiting.slot, waiting.mark);
            thread.leave_behind(own.local.left(), waiting.index);
            waiting.ended.store(result, Relaxed);
            thread.leave();
        }
        Err(error) => {
            own.page.release(waiting.slot, waiting.mark);
            own.local.waiting.fetch_sub(1, SeqCst);
            waiting.ended.store(failed(error), Relaxed);
        }
    }
}

/// The moment that lies `time` ahead.
fn after(time: timespec) -> Timespec {
    let now = time_of(libc::CLOCK_MONOTONIC);
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
    let now = time_of(libc::CLOCK_MONOTONIC);
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
