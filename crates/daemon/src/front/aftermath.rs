// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is done in semaphore sets and message queues when something has died, a program, a process
//! with undo, another domain, or the construct itself; and what a change of a queue means for those who
//! wait there.
//!
//! Whatever needs a region's lock may find it held by somebody who lives. It is then pending, and tried
//! again a little later: nothing here waits for a client.

use super::clients::Client;
use super::constructs::Known;
use super::domain::{Domain, seconds};
use super::shared::Shared;
use super::undoers::Fate;
use prometheus_client::metrics::counter::Counter;
use rustix::io::Errno;
use std::collections::BTreeSet;
use std::time::{Duration, Instant};
use vshmem_abi::Domid;
use vshmem_abi::token::Token;
use vshmem_abi::wire::{QueueUse, Usage};
use vshmem_engine::msgq::QueueMap;
use vshmem_engine::region::map::With;
use vshmem_engine::region::recover::{Busy, Dead};
use vshmem_engine::wait_page::Held;

/// How often what is pending of a construct is tried while its client waits for an answer. In between the
/// processor is given to whoever has the lock.
const TRIES: usize = 200;

/// How long a process of a domain that is gone may hold a lock before it is taken from it. Its
/// `vshmemd` may have died alone, in the middle of what the process was doing; from its next call on
/// the process does nothing more.
const GRACE: Duration = Duration::from_millis(100);

/// Something that is to be done, in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pending {
    /// What this dead client has left in this set or queue: the lock, waiters, messages.
    CleanUp(i32, Token),
    /// What a dead domain, of this epoch, has left there; who of it has the lock, and since when, as
    /// far as has been seen.
    Departed(i32, Domid, u8, Option<(Token, Instant)>),
    /// Those of this domain who wait on this queue look whether they still may.
    LookAgain(i32),
    /// This queue gets this `msg_qbytes`.
    SetLimit(i32, u64),
    /// What the process with this undo token would have undone of this set; its own pid.
    Undo(i32, Token, i32),
    /// The slots in which a program that is gone was waiting, by its client's token.
    FreeWaits(Token),
    /// The slots that the process with this undo token held.
    FreeUndoer(Token),
}

impl Domain {
    /// The token of this daemon itself.
    fn token(&self) -> Token {
        Token::new(self.domid, Token::serial_in(self.clients.run.epoch, 0))
    }

    /// The times that the region of a set tells, if it is at hand.
    pub fn times(&self, id: i32) -> Usage {
        let set = self.constructs.get(id).and_then(Known::set);
        let (otime, ctime) = set.map_or((0, 0), |set| set.region().times());
        let nanoseconds = |seconds: i64| seconds.saturating_mul(1_000_000_000);
        Usage {
            atime: nanoseconds(otime),
            dtime: nanoseconds(ctime),
            ..Usage::default()
        }
    }

    /// The set or queue `id` is gone, as the directory says by now: who waits on it here wakes up to see it.
    pub fn end_waits(&self, id: i32) {
        if let Some(known) = self.constructs.get(id) {
            self.end_waits_on(id, known);
        }
    }

    /// The same for one that was taken out.
    pub fn end_waits_on(&self, id: i32, known: &Known) {
        self.work_in(id, known, |shared, with| {
            for held in self.waits.held() {
                if let Some((_, waiter)) = held.waits.filter(|(of, _)| *of == id) {
                    shared.post_gone(waiter, held.slot, with);
                }
            }
        });
    }

    /// Does something in the region of a set or queue, with what a daemon brings along to it; `None` when
    /// the region is not at hand.
    fn work_in<T>(
        &self,
        id: i32,
        known: &Known,
        work: impl FnOnce(&Shared, &With<'_>) -> T,
    ) -> Option<T> {
        let wake = |domid, slot| self.wake(id, domid, slot);
        let wake: &dyn Fn(u32, u32) = &wake;
        let with = With {
            me: self.token(),
            is_dead: &|slot| self.waits.is_dead(slot),
            wake: (!known.has_futexes()).then_some(wake),
        };
        Some(work(known.shared()?, &with))
    }

    /// The same of the one that this domain knows by its id.
    fn work_on<T>(&self, id: i32, work: impl FnOnce(&Shared, &With<'_>) -> T) -> Option<T> {
        self.work_in(id, self.constructs.get(id)?, work)
    }

    /// Wakes those of this domain for whom a doorbell was rung. `false`: it is being rung again.
    pub fn answer_bells(&mut self) -> bool {
        let (waits, woken) = (&self.waits, &self.counts.woken);
        self.bells.answer(|slot| {
            woken.inc();
            waits.wake(slot);
        })
    }

    /// Wakes who sleeps in a slot of a domain's wait page, for something that was done in `id`.
    fn wake(&self, id: i32, domid: Domid, slot: u32) {
        self.counts.woke.inc();
        if domid == self.domid {
            self.waits.wake(slot);
        } else {
            self.bells.wake(id, domid, slot, &self.port);
        }
    }

    /// The process of client `number` is about to use `SEM_UNDO` on the set `id`; returns its undo
    /// token.
    pub fn remember_undo(&mut self, number: u64, id: i32) -> Result<Token, Errno> {
        let client = self.clients.get(number).ok_or(Errno::PROTO)?;
        let undoer = self.undoers.remember(client, self.domid)?;
        undoer.sets.insert(id);
        Ok(undoer.token)
    }

    /// The program of a client is gone: its process has ended, or become another program.
    pub fn client_died(&mut self, client: &Client) {
        let Some(token) = client.token(self.domid) else {
            return;
        };
        let own = |held: &Held| held.token == token;
        let waited = self.waits.held().filter(own);
        let mut concerned: BTreeSet<i32> = waited.filter_map(|held| Some(held.waits?.0)).collect();
        let others = self.constructs.iter().filter(|(_, known)| {
            known
                .shared()
                .is_some_and(|shared| shared.may_concern(token))
        });
        concerned.extend(others.map(|(id, _)| id));
        for id in concerned {
            self.pending.push(Pending::CleanUp(id, token));
        }
        self.pending.push(Pending::FreeWaits(token));
        // The slot of a process that has undo, and has become another program, stays and is marked: its
        // end will not show otherwise, so everybody who wants to know has to ask.
        if let Some(undoer) = self.undoers.of(client, self.domid)
            && undoer.fate(true) == Fate::Ended
        {
            self.undo_of(undoer.token);
        }
        self.do_pending();
        self.bells.mend(&self.port);
    }

    /// The process whose undo token has this serial has ended.
    pub fn undoer_ended(&mut self, serial: u64) {
        let token = Token::new(self.domid, serial);
        self.look_at_undoer(token);
    }

    /// Looks whether the process with this undo token has ended, and does what is due then.
    fn look_at_undoer(&mut self, token: Token) {
        let Some(undoer) = self.undoers.get(token) else {
            return;
        };
        // Its clients first: one may have died with a lock in its hands.
        let gone = |number: &u64| self.clients.get(*number).is_some_and(|c| !c.lives());
        let pid = undoer.pid();
        let clients = pid
            .map(|pid| self.clients.of_process(pid))
            .unwrap_or_default();
        let dead: Vec<u64> = clients.into_iter().filter(gone).collect();
        for number in dead {
            self.reap(number);
        }
        let left = self.undoers.get(token);
        if left.is_some_and(|undoer| undoer.fate(false) == Fate::Ended) {
            self.undo_of(token);
            self.do_pending();
        }
    }

    /// A process with undo has ended.
    fn undo_of(&mut self, token: Token) {
        if let Some(undoer) = self.undoers.take(token) {
            let of = |id| Pending::Undo(id, token, undoer.own_pid);
            self.pending.extend(undoer.sets.into_iter().map(of));
            self.pending.push(Pending::FreeUndoer(token));
        }
    }

    /// Who holds the lock of the set or queue `id`, as the lock says, if it is one of another domain.
    pub fn foreign_holder(&self, id: i32) -> Option<Token> {
        let holder = self.constructs.get(id)?.shared()?.lock_holder();
        (holder != Token::NONE && holder.domid() != self.domid).then_some(holder)
    }

    /// Takes the lock of `id` from a client of this domain that there is not, or from this daemon, which
    /// does not hold it: a peer has written there.
    fn free_from_nobody(&mut self, id: i32) {
        let shared = self.constructs.get(id).and_then(Known::shared);
        let holder = shared.map_or(Token::NONE, Shared::lock_holder);
        let is_client = |(_, client): (u64, &Client)| client.token(self.domid) == Some(holder);
        if holder != Token::NONE
            && holder.domid() == self.domid
            && !self.clients.iter().any(is_client)
            && !self.is_pending(id)
        {
            tracing::warn!(id, "a lock is held by a client that is none");
            self.pending.push(Pending::CleanUp(id, holder));
        }
    }

    /// Another domain, which had the region of our set or queue `id`, is gone in this epoch.
    pub fn departed(&mut self, id: i32, domid: Domid, epoch: u8) {
        self.partners.forget(id, domid, epoch);
        self.bells.give_up_with(domid);
        self.pending.push(Pending::Departed(id, domid, epoch, None));
        self.do_pending();
    }

    /// Those of this domain who wait on the queue `id` look whether they still may: the directory says
    /// so by now.
    pub fn look_again(&mut self, id: i32) {
        if self.constructs.get(id).and_then(Known::queue).is_some() {
            self.pending.push(Pending::LookAgain(id));
            self.do_pending();
        }
    }

    /// Sets `msg_qbytes` of the queue `id`, whose region is at hand.
    pub fn set_limit(&mut self, id: i32, qbytes: u64) {
        let of_before =
            |pending: &Pending| matches!(pending, Pending::SetLimit(of, _) if *of == id);
        self.pending.retain(|pending| !of_before(pending));
        self.pending.push(Pending::SetLimit(id, qbytes));
        self.do_pending();
        self.insist(id);
    }

    /// What is in the queue `id`, whose region is at hand.
    pub fn queue_use(&self, id: i32) -> Option<QueueUse> {
        self.work_on(id, |shared, with| {
            Some(shared.queue()?.status(seconds(), with))
        })?
    }

    /// Looks who of this domain's processes is dead that has something in the set or queue `id`, and
    /// clears it away.
    pub fn settle(&mut self, id: i32) {
        let of_this = |held: &Held| {
            held.waits.is_some_and(|(of, _)| of == id) && self.waits.is_dead(held.slot)
        };
        let tokens: BTreeSet<u64> = self
            .waits
            .held()
            .filter(of_this)
            .map(|h| h.token.raw())
            .collect();
        let is_dead = |client: &Client| {
            let token = client.token(self.domid);
            token.is_some_and(|token| tokens.contains(&token.raw())) && !client.lives()
        };
        let dead: Vec<u64> = self
            .clients
            .iter()
            .filter(|(_, client)| is_dead(client))
            .map(|(number, _)| number)
            .collect();
        for number in dead {
            self.reap(number);
        }
        let of_set = self
            .undoers
            .iter()
            .filter(|undoer| undoer.sets.contains(&id));
        let undoers: Vec<Token> = of_set.map(|undoer| undoer.token).collect();
        for token in undoers {
            self.look_at_undoer(token);
        }
        self.free_from_nobody(id);
        self.insist(id);
    }

    /// Tries what is pending of `id`, again and again for a while.
    fn insist(&mut self, id: i32) {
        for _ in 0..TRIES {
            if !self.is_pending(id) {
                return;
            }
            rustix::thread::sched_yield();
            self.do_pending();
        }
    }

    /// Whether something is to be done in `id` that whoever asks has to wait for.
    fn is_pending(&self, id: i32) -> bool {
        let of_dead_domain = |pending: &Pending| matches!(pending, Pending::Departed(..));
        self.pending
            .iter()
            .any(|pending| pending.construct() == Some(id) && !of_dead_domain(pending))
    }

    /// How much is still to be done.
    pub fn pending_count(&self) -> usize {
        self.pending.len()
    }

    /// Whether something is pending.
    pub fn has_pending(&self) -> bool {
        !self.pending.is_empty()
    }

    /// Does what is pending, as far as those who live let us.
    pub fn do_pending(&mut self) {
        // By whose token something of before was not done: what follows of it waits too.
        let mut waiting: Vec<Token> = Vec::new();
        // Constructs in which something was not done. What waits there is taken out before undo records are
        // freed, which it may name.
        let mut busy: Vec<i32> = Vec::new();
        for mut pending in std::mem::take(&mut self.pending) {
            let done = match &mut pending {
                &mut Pending::CleanUp(id, token) => {
                    let done = self.clean_up(id, Dead::Client(token));
                    counted(done, &self.counts.after_process)
                }
                Pending::Departed(id, domid, epoch, holder) => {
                    let done = self.clear_domain(*id, Dead::Domain(*domid, *epoch), holder);
                    counted(done, &self.counts.after_domain)
                }
                &mut Pending::LookAgain(id) => {
                    self.in_queue(id, |queue, with| queue.look_again(seconds(), with))
                }
                &mut Pending::SetLimit(id, qbytes) => {
                    self.in_queue(id, |queue, with| queue.set_limit(qbytes, seconds(), with))
                }
                &mut Pending::Undo(id, token, pid) => {
                    let done = !busy.contains(&id) && self.apply_undo(id, token, pid);
                    counted(done, &self.counts.undone)
                }
                &mut Pending::FreeWaits(token) => self.free(&waiting, token, |held, token| {
                    held.token == token && held.undoer == Token::NONE
                }),
                &mut Pending::FreeUndoer(token) => {
                    self.free(&waiting, token, |held, token| held.undoer == token)
                }
            };
            if !done {
                busy.extend(pending.construct());
                waiting.extend(pending.token());
                self.pending.push(pending);
            }
        }
    }

    /// `true`: nothing is left to be done.
    fn clean_up(&self, id: i32, dead: Dead) -> bool {
        self.work_on(id, |shared, with| shared.clean_up(dead, seconds(), with))
            .is_none_or(|done| done.is_ok())
    }

    /// The same of something that is done in a queue.
    fn in_queue(
        &self,
        id: i32,
        work: impl FnOnce(&QueueMap, &With<'_>) -> Result<(), Busy>,
    ) -> bool {
        self.work_on(id, |shared, with| Some(work(shared.queue()?, with)))
            .flatten()
            .is_none_or(|done| done.is_ok())
    }

    fn clear_domain(&self, id: i32, dead: Dead, seen: &mut Option<(Token, Instant)>) -> bool {
        let shared = self.constructs.get(id).and_then(Known::shared);
        let holder = shared.map_or(Token::NONE, Shared::lock_holder);
        if dead.is(holder) {
            match *seen {
                Some((before, since)) if before == holder => {
                    if since.elapsed() < GRACE {
                        return false;
                    }
                }
                _ => {
                    *seen = Some((holder, Instant::now()));
                    return false;
                }
            }
        }
        self.clean_up(id, dead)
    }

    fn apply_undo(&self, id: i32, undoer: Token, pid: i32) -> bool {
        self.work_on(id, |shared, with| {
            Some(shared.set()?.apply_undo(undoer, pid, seconds(), with))
        })
        .flatten()
        .is_none_or(|done| done.is_ok())
    }

    fn free(&self, waiting: &[Token], token: Token, is_of: impl Fn(&Held, Token) -> bool) -> bool {
        if waiting.contains(&token) {
            return false;
        }
        self.waits.free(|held| is_of(held, token));
        true
    }
}

/// Counts what is done.
fn counted(done: bool, counter: &Counter) -> bool {
    if done {
        counter.inc();
    }
    done
}

impl Pending {
    /// The construct it is about.
    fn construct(&self) -> Option<i32> {
        match *self {
            Self::CleanUp(id, _)
            | Self::Departed(id, ..)
            | Self::LookAgain(id)
            | Self::SetLimit(id, _)
            | Self::Undo(id, ..) => Some(id),
            Self::FreeWaits(_) | Self::FreeUndoer(_) => None,
        }
    }

    /// By whose token it is done.
    fn token(self) -> Option<Token> {
        match self {
            Self::Departed(..) | Self::LookAgain(_) | Self::SetLimit(..) => None,
            Self::CleanUp(_, token)
            | Self::Undo(_, token, _)
            | Self::FreeWaits(token)
            | Self::FreeUndoer(token) => Some(token),
        }
    }
}
