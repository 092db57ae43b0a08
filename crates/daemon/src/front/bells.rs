// SPDX-License-Identifier: MIT OR Apache-2.0
//! The doorbells of this domain: by them sleepers of other domains are woken where no futex reaches
//! them, and ours from there ([`vshmem_engine::doorbell`]).
//!
//! A doorbell is a page that two domains map, and an event channel between their `vshmemd`s. The owner of
//! a set or queue makes one for a domain together with the first grant of such a region; two domains
//! that share a third one's ask for theirs when one has to wake a sleeper of the other. Clients are handed
//! the page and a descriptor to notify with: they ring, and their `vshmemd`s answer.

use super::shared::source;
use std::cell::RefCell;
use std::os::fd::BorrowedFd;
use std::sync::atomic::AtomicU64;
use vshmem_abi::Domid;
use vshmem_abi::doorbell::{BYTES, Page};
use vshmem_engine::doorbell::Doorbell;
use vshmem_engine::mapping::{MapError, Mapping};
use vshmem_gnt::{Event, GrantRef, LocalPort, Port, PortError, Region, RegionOptions};

/// How often a doorbell is answered before others get their turn.
const ROUNDS: u32 = 2;

/// Domains whose sleepers may have to be woken later. A peer can write any number where one is read.
const MISSING: usize = 8;

/// Why there is no doorbell.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BellError {
    /// The port refuses.
    #[error(transparent)]
    Port(#[from] PortError),
    /// Its page cannot be mapped.
    #[error("its page cannot be mapped: {0}")]
    Map(MapError),
}

impl BellError {
    /// The errno of a call that failed for this reason.
    pub fn errno(self) -> rustix::io::Errno {
        match self {
            Self::Port(error) => error.errno(),
            Self::Map(error) => error.errno(),
        }
    }
}

/// A doorbell as its maker numbers it: the grant of its page, and the event channel.
pub type Numbers = (GrantRef, LocalPort);

/// One of them.
pub struct Bell<R> {
    /// Its number here, which no other one ever has.
    pub serial: u64,
    /// The other domain, and if this one has made it, which `vshmemd` of it.
    other: Domid,
    made_for: Option<u8>,
    numbers: Numbers,
    page: R,
    map: Mapping<Page>,
    channel: LocalPort,
    watched: bool,
    /// It has to be answered.
    rung: bool,
}

impl<R: Region> Bell<R> {
    /// Its page.
    pub fn page(&self) -> &R {
        &self.page
    }

    /// Its event channel.
    pub fn channel(&self) -> LocalPort {
        self.channel
    }

    /// Which direction of the page is rung here.
    pub fn direction(&self) -> usize {
        usize::from(self.made_for.is_none())
    }

    fn at(&self, direction: usize) -> Option<Doorbell<'_, AtomicU64>> {
        self.map
            .directions
            .get(direction)
            .and_then(|d| Doorbell::new(d))
    }

    fn rings(&self) -> Option<Doorbell<'_, AtomicU64>> {
        self.at(self.direction())
    }

    fn answers(&self) -> Option<Doorbell<'_, AtomicU64>> {
        self.at(1 - self.direction())
    }

    /// Whether it is answered, here and there, as far as is known.
    fn set_answered(&self, here: bool, there: bool) {
        if let Some(bell) = self.answers() {
            bell.set_answered(here);
        }
        if !there && let Some(bell) = self.rings() {
            bell.set_answered(false);
        }
    }

    /// Has the other domain woken: who sleeps in `slot`, or all.
    pub fn ring(&self, slot: Option<u32>, port: &impl Port) {
        let Some(bell) = self.rings() else { return };
        let asleep = match slot {
            Some(slot) => bell.ring(slot),
            None => bell.ring_all(),
        };
        if asleep {
            self.notify(port);
        }
    }

    fn notify(&self, port: &impl Port) {
        // Whoever is gone needs no notification.
        if let Ok((fd, how)) = port.notifier(self.channel) {
            let _ = how.raise(fd);
        }
    }

    /// Ends it. Nothing watches it any more.
    pub fn close(self, port: &mut impl Port<Region = R>) {
        // What is gone there already need not be given up.
        let _ = port.close(self.channel);
        if self.made_for.is_some() {
            let _ = port.end_grant(self.numbers.0);
        }
        drop(self.map);
        self.page.release();
    }
}

/// A wake-up that waits for a doorbell.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Missing {
    /// The domain.
    pub domid: Domid,
    /// A set or queue that it shares with this one.
    pub id: i32,
    /// Who is to be woken; `None`: all, since there were several.
    pub slot: Option<u32>,
}

/// All of them.
pub struct Bells<R> {
    all: Vec<Bell<R>>,
    /// Those that were given up, until nothing watches them any more.
    over: Vec<Bell<R>>,
    last: u64,
    missing: RefCell<Vec<Missing>>,
}

impl<R: Region> Bells<R> {
    /// None yet.
    pub fn new() -> Self {
        Self {
            all: Vec::new(),
            over: Vec::new(),
            last: 0,
            missing: RefCell::default(),
        }
    }

    /// The last one that came to be with domain `other`.
    pub fn with(&self, other: Domid) -> Option<&Bell<R>> {
        self.all.iter().rev().find(|bell| bell.other == other)
    }

    /// The one of this number.
    pub fn get(&self, serial: u64) -> Option<&Bell<R>> {
        self.all.iter().find(|bell| bell.serial == serial)
    }

    /// The doorbell that this domain has made for `to`, which is in `epoch`; made now if there is none.
    ///
    /// # Errors
    /// [`BellError`]
    pub fn offer(
        &mut self,
        to: Domid,
        epoch: u8,
        port: &mut impl Port<Region = R>,
    ) -> Result<Numbers, BellError> {
        let made = |bell: &&Bell<R>| bell.other == to && bell.made_for == Some(epoch);
        if let Some(bell) = self.all.iter().find(made) {
            return Ok(bell.numbers);
        }
        self.offer_anew(to, epoch, port)
    }

    /// The same, for one who has none: a doorbell that was made for it before is given up.
    ///
    /// # Errors
    /// [`BellError`]
    pub fn offer_anew(
        &mut self,
        to: Domid,
        epoch: u8,
        port: &mut impl Port<Region = R>,
    ) -> Result<Numbers, BellError> {
        self.give_up(|bell| bell.other == to && bell.made_for.is_some());
        let options = RegionOptions {
            peer: Some(to),
            ..RegionOptions::default()
        };
        let page = port.create(BYTES, options)?;
        let map = Mapping::of(&source(&page), true).map_err(BellError::Map)?;
        let gref = port.grant(&page, to)?;
        let channel = port.alloc_unbound(to).inspect_err(|_| {
            let _ = port.end_grant(gref);
        })?;
        let numbers = (gref, channel);
        self.add(to, Some(epoch), numbers, page, map, channel);
        Ok(numbers)
    }

    /// Takes up the doorbell that domain `from` has made for this one.
    ///
    /// # Errors
    /// [`BellError`]
    pub fn take_up(
        &mut self,
        from: Domid,
        numbers: Numbers,
        port: &mut impl Port<Region = R>,
    ) -> Result<(), BellError> {
        let taken = |bell: &Bell<R>| bell.other == from && bell.made_for.is_none();
        if self
            .all
            .iter()
            .any(|bell| taken(bell) && bell.numbers == numbers)
        {
            return Ok(());
        }
        self.give_up(taken);
        let (gref, offered) = numbers;
        let page = port.map(from, gref)?;
        let map = Mapping::of(&source(&page), true).map_err(BellError::Map)?;
        let channel = port.bind_interdomain(from, offered)?;
        self.add(from, None, numbers, page, map, channel);
        Ok(())
    }

    fn add(
        &mut self,
        other: Domid,
        made_for: Option<u8>,
        numbers: Numbers,
        page: R,
        map: Mapping<Page>,
        channel: LocalPort,
    ) {
        self.last += 1;
        let bell = Bell {
            serial: self.last,
            other,
            made_for,
            numbers,
            page,
            map,
            channel,
            watched: false,
            // What was rung before this domain was there to hear it.
            rung: true,
        };
        bell.set_answered(true, true);
        tracing::debug!(
            domid = other,
            serial = bell.serial,
            made = made_for.is_some(),
            "doorbell"
        );
        self.all.push(bell);
    }

    /// Has domain `other` wake who sleeps in `slot` of its wait page, on the set or queue `id`.
    pub fn wake(&self, id: i32, other: Domid, slot: u32, port: &impl Port) {
        if let Some(bell) = self.with(other) {
            return bell.ring(Some(slot), port);
        }
        let mut missing = self.missing.borrow_mut();
        if let Some(known) = missing.iter_mut().find(|known| known.domid == other) {
            known.slot = known.slot.filter(|&before| before == slot);
        } else if missing.len() < MISSING {
            missing.push(Missing {
                domid: other,
                id,
                slot: Some(slot),
            });
        }
    }

    /// Whether wake-ups wait for doorbells.
    pub fn has_missing(&self) -> bool {
        !self.missing.borrow().is_empty()
    }

    /// The wake-ups that wait for doorbells.
    pub fn take_missing(&self) -> Vec<Missing> {
        self.missing.take()
    }

    /// A client has died, which may have begun to ring.
    pub fn mend(&self, port: &impl Port) {
        for bell in &self.all {
            if bell.rings().is_some_and(|rings| rings.mend()) {
                bell.notify(port);
            }
        }
    }

    // Answering.

    /// Something came by the event channel of doorbell `serial`.
    pub fn raised(&mut self, serial: u64, port: &mut impl Port<Region = R>) {
        let Some(bell) = self.all.iter_mut().find(|bell| bell.serial == serial) else {
            return;
        };
        match port.take(bell.channel) {
            Ok(Event::Raised | Event::Idle) => bell.rung = true,
            Ok(Event::Closed) | Err(_) => {
                tracing::debug!(
                    domid = bell.other,
                    serial,
                    "the other end of a doorbell is gone"
                );
                self.give_up(|bell| bell.serial == serial);
            }
        }
    }

    /// Wakes those who were rung for, by the slots that they have. `false`: somebody rings without end, or so it seems, and it is for
    /// others to have their turn first.
    pub fn answer(&mut self, wake: impl Fn(u32)) -> bool {
        let mut all = true;
        for bell in self.all.iter_mut().filter(|bell| bell.rung) {
            let map = &bell.map;
            let direction = usize::from(bell.made_for.is_some());
            let Some(answers) = map.directions.get(direction).and_then(|d| Doorbell::new(d)) else {
                continue;
            };
            answers.wake();
            for _ in 0..ROUNDS {
                answers.answer(&wake);
                bell.rung = !answers.sleep();
                if !bell.rung {
                    break;
                }
            }
            all &= !bell.rung;
        }
        all
    }

    // Being watched, and not any more.

    /// A doorbell whose event channel is to be watched from now on, with what that polls.
    pub fn next_unwatched<'a>(
        &mut self,
        port: &'a impl Port<Region = R>,
    ) -> Option<(u64, BorrowedFd<'a>)> {
        let bell = self.all.iter_mut().find(|bell| !bell.watched)?;
        bell.watched = true;
        Some((bell.serial, port.wait_fd(bell.channel).ok()?))
    }

    /// One that is not to be watched any more, and then to be closed.
    pub fn next_over(&mut self) -> Option<Bell<R>> {
        self.over.pop()
    }

    /// Gives up those with domain `other`, which is gone.
    pub fn give_up_with(&mut self, other: Domid) {
        self.give_up(|bell| bell.other == other);
    }

    fn give_up(&mut self, which: impl Fn(&Bell<R>) -> bool) {
        for at in (0..self.all.len()).rev() {
            if self.all.get(at).is_some_and(&which) {
                let bell = self.all.remove(at);
                // So that clients on both sides ask for another one.
                bell.set_answered(false, false);
                self.over.push(bell);
            }
        }
    }
}

#[cfg(test)]
mod tests;
