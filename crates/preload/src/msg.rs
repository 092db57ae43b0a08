// SPDX-License-Identifier: MIT OR Apache-2.0
//! `msgget`, `msgsnd` and `msgrcv`, with the results and errors of the kernel's `ipc/msg.c`. `msgctl` is
//! [`crate::msg_ctl`].
//!
//! A call that need not wait makes no system call: it finds the queue ([`crate::locals`]), takes the lock in
//! its region and sends or receives there ([`vshmem_engine::msgq`]). A long text is copied without the
//! lock ([`crate::text`]). Waiting is [`crate::wait`].
//!
//! From the moment a message is held, or was taken out of the queue, the thread is in a critical section
//! until all is done: a handler that runs finds a call that has ended.

use crate::cancel::{Answer, Then, cancellation_point};
use crate::construct::{get_known, get_request, is_routed_key, left_to_kernel};
use crate::errno::fail;
use crate::locals::{ALTER, Local, Locals, READ, Table};
use crate::own::{self, Around, Failed, seconds};
use crate::process::processors;
use crate::runs::{Runs, Way};
use crate::session::{Session, live_directory};
use crate::sys::Space;
use crate::text::{self, HEAD, Short};
use crate::thread::{self, Thread};
use crate::wait::{self, Came, Place, failed};
use crate::{lock, user};
use libc::{c_int, c_long, c_void, key_t};
use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering::*, fence};
use vshmem_abi::Kind;
use vshmem_abi::limits::MsgLimits;
use vshmem_abi::msgq::Shape;
use vshmem_engine::directory;
use vshmem_engine::msgq::{INLINE, Queue, Received, Sent, Taken, Text, Want};
use vshmem_engine::region::Caller;

/// Type of the real `msgget`.
pub type MsgGet = unsafe extern "C" fn(key_t, c_int) -> c_int;
/// Type of the real `msgsnd`.
pub type MsgSnd = unsafe extern "C" fn(c_int, *const c_void, usize, c_int) -> c_int;
/// Type of the real `msgrcv`.
pub type MsgRcv = unsafe extern "C" fn(c_int, *mut c_void, usize, c_long, c_int) -> isize;

static QUEUES: Table<Shape> = Table::new();

impl own::Kind for Shape {
    const KIND: Kind = Kind::Msg;
    type Notes = Runs;

    #[inline(always)]
    fn table() -> &'static Table<Self> {
        &QUEUES
    }

    fn locals(session: &mut Session) -> &mut Locals<Self> {
        &mut session.queues
    }

    fn free_record(queue: &Queue<'static, AtomicU64>, index: u32) {
        queue.collect(index);
    }

    fn contended(queue: &Local<Self>) {
        if processors() > 1
            && let Some(way) = queue.notes.had_a_run()
        {
            queue
                .notes
                .wait_on(way, || come(&queue.region, way), || false);
        }
    }
}

/// What there is more of, the more a call that goes this way has to do.
fn come(queue: &Queue<'static, AtomicU64>, way: Way) -> u64 {
    match way {
        Way::In => u64::from(queue.qnum()).wrapping_neg(),
        Way::Out => queue.sent(),
    }
}

/// A queue and all that this process needs to work on it.
type Own = own::Own<Shape>;
/// The right to change a queue.
type Held<'b> = own::Held<'b, Shape>;

/// `msgget(2)`.
///
/// # Safety
/// `real` is the C library's function.
pub unsafe fn get(real: MsgGet, key: key_t, flags: c_int) -> c_int {
    if !is_routed_key(key) {
        // SAFETY: passed on as it came.
        return unsafe { real(key, flags) };
    }
    get_routed(key, flags).unwrap_or_else(fail)
}

fn get_routed(key: key_t, flags: c_int) -> Result<c_int, c_int> {
    if let Some(known) = get_known(Kind::Msg, key, 0, flags) {
        return known;
    }
    let mut session = lock::enter();
    let (reply, _) = session.call(get_request(Kind::Msg, key, 0, flags))?;
    Ok(reply.value)
}

cancellation_point! {
    /// `msgsnd(2)` of an id that may be routed: the real function, then its arguments.
    ///
    /// # Safety
    /// `real` is the C library's function; `msg` is the caller's, and may lead nowhere.
    send, send_routed, after
}

cancellation_point! {
    /// `msgrcv(2)` of an id that may be routed: the real function, then its arguments.
    ///
    /// # Safety
    /// As [`send`].
    receive, receive_routed, after
}

extern "C" fn send_routed(id: c_int, msg: *const c_void, size: usize, flags: c_int) -> Answer {
    answer(send_to(
        id,
        msg as usize,
        size,
        flags & libc::IPC_NOWAIT != 0,
    ))
}

extern "C" fn receive_routed(
    id: c_int,
    msg: *mut c_void,
    size: usize,
    mtype: c_long,
    flags: c_int,
) -> Answer {
    answer(receive_from(id, msg as usize, size, mtype, flags))
}

#[inline]
fn answer(result: Result<c_long, Failed>) -> Answer {
    let (result, then) = match result {
        Ok(result) => (result, Then::Return),
        Err(Failed::With(libc::EINTR)) if thread::current().heeds() => (0, Then::Again),
        Err(Failed::With(error)) => (fail(error).into(), Then::Return),
        Err(Failed::Denied(_)) => (fail(libc::EACCES).into(), Then::Return),
        Err(Failed::NotOurs(instead)) => (instead.unwrap_or(0).into(), Then::Pass),
    };
    Answer { result, then }
}

/// After the real function was called with an id that is not ours.
extern "C" fn after(result: c_long, id: c_int, instead: c_int) -> c_long {
    let failed = result as c_int == -1;
    left_to_kernel(id, failed, (instead != 0).then_some(instead));
    result
}

/// MSGMAX as it was last found.
static MOST: AtomicU64 = AtomicU64::new(0);

#[cold]
fn most() -> u64 {
    let raised = live_directory().map_or(MsgLimits::default(), directory::raised_limits);
    let most = MsgLimits::read().raised(raised).max;
    MOST.store(most, Relaxed);
    most
}

impl Own {
    #[inline]
    fn caller(&self) -> Caller {
        Caller {
            token: self.process.token(),
            who: self.who(),
            now: seconds(),
        }
    }

    /// Gives the lock back and ends the critical section.
    #[inline(always)]
    fn done<T>(&self, locked: Held<'_>, thread: &Thread, result: T) -> T {
        locked.unlock();
        thread.leave();
        result
    }

    /// Frees a message that this process holds, and gives the lock back.
    fn drop_message<T>(&self, mut locked: Held<'_>, thread: &Thread, message: u32, result: T) -> T {
        locked.free(message, self.process.token());
        self.done(locked, thread, result)
    }
}

// Sending. In the order of `ksys_msgsnd` and what it calls.

fn send_to(id: c_int, from: usize, size: usize, nowait: bool) -> Result<c_long, Failed> {
    let mtype = user::read(from as *const i64).ok_or(libc::EFAULT)?;
    let bytes = size as u64;
    if bytes > MOST.load(Relaxed) && bytes > most() || bytes > i32::MAX as u64 || mtype < 1 {
        return Err(libc::EINVAL.into());
    }
    let (text, size) = (from.wrapping_add(HEAD), size as u32);
    if size as usize > INLINE {
        return send_long(id, mtype, text, size, nowait);
    }
    let text = text::read_short(text, size as usize).ok_or(libc::EFAULT)?;
    let own = Own::find(id)?;
    own.check(ALTER)?;
    let thread = thread::current();
    let around = own.around();
    let caller = own.caller();
    let mut locked = own.lock(thread, &around)?;
    let mut sent = locked.send_small(mtype, &text, size, &caller);
    if sent == Sent::Full && !nowait {
        let region = own.local.region;
        let wait_on = |stops: &dyn Fn() -> bool| {
            let come = || come(&region, Way::In);
            own.local.notes.wait_on(Way::In, come, stops);
        };
        locked = wait::look_early(&own, locked, thread, &around, || region.fits(size), wait_on)?;
        sent = locked.send_small(mtype, &text, size, &caller);
    }
    match sent {
        Sent::Done => {
            own.local.notes.count(Way::In);
            Ok(own.done(locked, thread, 0))
        }
        Sent::NoRoom => own.done(locked, thread, Err(libc::ENOMEM.into())),
        Sent::Full if nowait => own.done(locked, thread, Err(libc::EAGAIN.into())),
        Sent::Full => match locked.hold(size, mtype, caller.token) {
            Some(message) => {
                text::fill_short(own.local.region.pieces(message, size), &text);
                wait_to_send(&own, locked, message, &caller, thread, &around)
            }
            None => own.done(locked, thread, Err(libc::ENOMEM.into())),
        },
    }
}

fn send_long(
    id: c_int,
    mtype: i64,
    from: usize,
    size: u32,
    nowait: bool,
) -> Result<c_long, Failed> {
    // The kernel reads the text before it looks for the queue.
    send_straight(id, mtype, from, size, nowait).map_err(|error| match error {
        Failed::NotOurs(_) | Failed::With(libc::EINTR) => error,
        _ if text::is_readable(from, size as usize) => error,
        _ => libc::EFAULT.into(),
    })
}

fn send_straight(
    id: c_int,
    mtype: i64,
    from: usize,
    size: u32,
    nowait: bool,
) -> Result<c_long, Failed> {
    let own = Own::find(id)?;
    own.check(ALTER)?;
    let thread = thread::current();
    let around = own.around();
    let caller = own.caller();
    let mut locked = own.lock(thread, &around)?;
    if nowait && !own.local.region.fits(size) {
        return own.done(locked, thread, Err(libc::EAGAIN.into()));
    }
    let Some(message) = locked.hold(size, mtype, caller.token) else {
        return own.done(locked, thread, Err(libc::ENOMEM.into()));
    };
    locked.unlock();
    let pieces = own.local.region.pieces(message, size);
    let filled = text::fill(pieces, from, size as usize);
    let Some(mut locked) = own.lock_again(thread, &around) else {
        thread.leave();
        return Err(libc::EIDRM.into());
    };
    if !filled {
        return own.drop_message(locked, thread, message, Err(libc::EFAULT.into()));
    }
    match locked.send(message, &caller) {
        Sent::Done => {
            own.local.notes.count(Way::In);
            Ok(own.done(locked, thread, 0))
        }
        Sent::NoRoom => own.done(locked, thread, Err(libc::EIDRM.into())),
        Sent::Full if nowait => own.drop_message(locked, thread, message, Err(libc::EAGAIN.into())),
        Sent::Full => wait_to_send(&own, locked, message, &caller, thread, &around),
    }
}

/// Waits until `message`, which this process holds, is sent; the lock is held.
#[inline(never)]
fn wait_to_send<'b>(
    own: &Own,
    mut locked: Held<'b>,
    message: u32,
    caller: &Caller,
    thread: &Thread,
    around: &'b Around<Shape>,
) -> Result<c_long, Failed> {
    let mut message = message;
    loop {
        let Some(place) = Place::claim(own) else {
            return own.drop_message(locked, thread, message, Err(libc::ENOMEM.into()));
        };
        let Some(index) = locked.wait_to_send(message, caller, place.slot()) else {
            place.release(own);
            return own.drop_message(locked, thread, message, Err(libc::ENOMEM.into()));
        };
        let sending = Sending {
            again: Cell::new(None),
        };
        match wait::wait(own, &sending, place, index, None, locked, thread) {
            Came::Result(0) => {
                own.local.notes.count(Way::In);
                return Ok(0);
            }
            Came::Result(errno) => return Err((-errno as c_int).into()),
            Came::Again => {}
        }
        // Who may use the queue has changed.
        let may = own.check(ALTER);
        locked = own.lock(thread, around)?;
        message = sending.again.get().ok_or_else(|| {
            // A peer has written into the region.
            thread.leave();
            libc::EIDRM
        })?;
        if let Err(error) = may {
            return own.drop_message(locked, thread, message, Err(error.into()));
        }
        match locked.send(message, caller) {
            Sent::Done => return Ok(own.done(locked, thread, 0)),
            Sent::NoRoom => return own.done(locked, thread, Err(libc::EIDRM.into())),
            Sent::Full => {}
        }
    }
}

/// A `msgsnd` that waits.
struct Sending {
    /// The message that has to be sent again.
    again: Cell<Option<u32>>,
}

impl wait::Call for Sending {
    type Kind = Shape;
    const LOCKED: bool = true;
    const CANCELLABLE: bool = true;
    const RESTARTS: bool = true;

    fn take(&self, own: &Own, thread: &Thread, locked: Option<Held<'_>>, index: u32) -> Came {
        let Some(mut locked) = locked else {
            return Came::Result(failed(libc::EIDRM));
        };
        let _ = thread;
        let taken = locked.take(index, own.process.token(), &mut Short::new().text);
        locked.unlock();
        match taken {
            Taken::Sent => Came::Result(0),
            Taken::Again(message) => {
                self.again.set(message);
                Came::Again
            }
            Taken::Failed(errno) => Came::Result(failed(errno)),
            Taken::Received(_) => Came::Result(failed(libc::EIDRM)),
        }
    }

    fn take_for_handler(&self, own: &Own, _: &Thread, mut locked: Held<'_>, index: u32) -> i64 {
        let token = own.process.token();
        let taken = locked.take_and_keep(index, token, &mut Short::new().text);
        let result = match taken {
            Taken::Sent => 0,
            Taken::Again(message) => {
                if let Some(message) = message {
                    locked.free(message, token);
                }
                failed(libc::EINTR)
            }
            Taken::Failed(errno) => failed(errno),
            Taken::Received(_) => failed(libc::EIDRM),
        };
        locked.unlock();
        result
    }
}

// Receiving. In the order of `do_msgrcv`.

fn receive_from(
    id: c_int,
    to: usize,
    size: usize,
    mtype: c_long,
    flags: c_int,
) -> Result<c_long, Failed> {
    if size as isize <= -1 {
        return Err(libc::EINVAL.into());
    }
    if flags & libc::MSG_COPY != 0 {
        return copy_from(id, to, size, mtype, flags);
    }
    let room = if flags & libc::MSG_NOERROR != 0 {
        Want::CUT
    } else {
        size.min(Want::CUT as usize - 1) as u32
    };
    let want = Want::new(mtype, flags & libc::MSG_EXCEPT != 0, room);
    let own = Own::find(id)?;
    let receiving = Receiving { to, room: size };
    let thread = thread::current();
    let around = own.around();
    let nowait = flags & libc::IPC_NOWAIT != 0;
    loop {
        own.check(READ)?;
        let caller = own.caller();
        let mut text = Short::new().text;
        let mut locked = own.lock(thread, &around)?;
        let mut received = locked.receive(&want, &caller, &mut text);
        if received == Received::Nothing && !nowait {
            let region = own.local.region;
            let sent = region.sent();
            let wait_on = |stops: &dyn Fn() -> bool| {
                let come = || come(&region, Way::Out);
                own.local.notes.wait_on(Way::Out, come, stops);
            };
            let comes = || region.sent() != sent;
            locked = wait::look_early(&own, locked, thread, &around, comes, wait_on)?;
            received = locked.receive(&want, &caller, &mut text);
        }
        match received {
            Received::Nothing if !nowait => {}
            Received::Nothing => return own.done(locked, thread, Err(libc::ENOMSG.into())),
            Received::TooBig => return own.done(locked, thread, Err(libc::E2BIG.into())),
            received => {
                locked.unlock();
                own.local.notes.count(Way::Out);
                let result = receiving.deliver(&own, thread, &around, received, text);
                thread.leave();
                return as_result(result);
            }
        }
        let Some(place) = Place::claim(&own) else {
            return own.done(locked, thread, Err(libc::ENOMEM.into()));
        };
        let Some(index) = locked.wait_to_receive(&want, &caller, place.slot()) else {
            place.release(&own);
            return own.done(locked, thread, Err(libc::ENOMEM.into()));
        };
        let came = wait::wait(&own, &receiving, place, index, None, locked, thread);
        if let Came::Result(result) = came {
            own.local.notes.count(Way::Out);
            return as_result(result);
        }
    }
}

#[inline]
fn as_result(result: i64) -> Result<c_long, Failed> {
    if result < 0 {
        Err((-result as c_int).into())
    } else {
        Ok(result)
    }
}

/// A `msgrcv`.
struct Receiving {
    /// Where the message goes.
    to: usize,
    /// Bytes that its text may have there.
    room: usize,
}

impl Receiving {
    /// Writes what was received to where the program wants it; the result of the call. In a critical
    /// section, without the lock.
    #[inline]
    fn deliver(
        &self,
        own: &Own,
        thread: &Thread,
        around: &Around<Shape>,
        received: Received,
        text: Text,
    ) -> i64 {
        let (written, size) = match received {
            Received::Small { mtype, size } => {
                let size = self.room.min(size as usize);
                (
                    text::write_short(self.to, &Short { mtype, text }, size),
                    size,
                )
            }
            Received::Large {
                message,
                mtype,
                size,
            } => {
                let pieces = own.local.region.pieces(message, size);
                let size = self.room.min(size as usize);
                let written = text::write(self.to, mtype, pieces, size);
                // Memory that is given back is zeroed from its beginning on.
                fence(Acquire);
                if !own.local.region.is(own.local.id) {
                    return failed(libc::EIDRM);
                }
                if let Some(mut locked) = own.lock_again(thread, around) {
                    locked.free(message, own.process.token());
                    locked.unlock();
                }
                (written, size)
            }
            Received::TooBig => return failed(libc::E2BIG),
            Received::Nothing => return failed(libc::EIDRM),
        };
        if written {
            size as i64
        } else {
            failed(libc::EFAULT)
        }
    }
}

impl wait::Call for Receiving {
    type Kind = Shape;
    const LOCKED: bool = true;
    const CANCELLABLE: bool = true;
    const RESTARTS: bool = true;

    fn take(&self, own: &Own, thread: &Thread, locked: Option<Held<'_>>, index: u32) -> Came {
        let around = own.around();
        // A message that was given stays so when the queue goes.
        let Some(mut locked) = locked.or_else(|| own.lock_at_the_end(&around)) else {
            return Came::Result(failed(libc::EIDRM));
        };
        let mut text = Short::new().text;
        let taken = locked.take(index, own.process.token(), &mut text);
        locked.unlock();
        match taken {
            Taken::Received(received) => {
                Came::Result(self.deliver(own, thread, &around, received, text))
            }
            Taken::Again(_) => Came::Again,
            Taken::Failed(errno) => Came::Result(failed(errno)),
            Taken::Sent => Came::Result(failed(libc::EIDRM)),
        }
    }

    fn take_for_handler(
        &self,
        own: &Own,
        thread: &Thread,
        mut locked: Held<'_>,
        index: u32,
    ) -> i64 {
        let mut text = Short::new().text;
        let taken = locked.take_and_keep(index, own.process.token(), &mut text);
        locked.unlock();
        match taken {
            Taken::Received(received) => self.deliver(own, thread, &own.around(), received, text),
            Taken::Again(_) => failed(libc::EINTR),
            Taken::Failed(errno) => failed(errno),
            Taken::Sent => failed(libc::EIDRM),
        }
    }
}

/// `MSG_COPY`: the message of this number stays.
fn copy_from(
    id: c_int,
    to: usize,
    size: usize,
    number: c_long,
    flags: c_int,
) -> Result<c_long, Failed> {
    if flags & libc::MSG_EXCEPT != 0 || flags & libc::IPC_NOWAIT == 0 {
        return Err(libc::EINVAL.into());
    }
    // The kernel makes its copy as if it were a message that is sent from there.
    let most = size.min(most() as usize);
    if !text::is_readable(to, most) {
        return Err(libc::EFAULT.into());
    }
    let mut space = Space::new(most.next_multiple_of(8).max(8)).ok_or(libc::ENOMEM)?;
    let copy = space.as_slice_of::<u64>(most.div_ceil(8));
    let own = Own::find(id)?;
    own.check(READ)?;
    let thread = thread::current();
    let around = own.around();
    let locked = own.lock(thread, &around)?;
    let Some((message, mtype, bytes)) = locked.peek(number) else {
        return own.done(locked, thread, Err(libc::ENOMSG.into()));
    };
    let bytes = bytes as usize;
    if bytes > size && flags & libc::MSG_NOERROR == 0 {
        return own.done(locked, thread, Err(libc::E2BIG.into()));
    }
    if bytes > most {
        return own.done(locked, thread, Err(libc::EINVAL.into()));
    }
    let mut places = copy.iter_mut();
    for (words, _) in own.local.region.pieces(message, bytes as u32) {
        for (word, place) in words.iter().zip(&mut places) {
            *place = word.load(Relaxed);
        }
    }
    own.done(locked, thread, ());
    if !text::write_whole(to, mtype, copy, bytes) {
        return Err(libc::EFAULT.into());
    }
    Ok(bytes as c_long)
}
