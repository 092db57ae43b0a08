// SPDX-License-Identifier: MIT OR Apache-2.0
//! The wait page of a domain: who waits, or has undo, at this moment, and whether it lives.
//!
//! All clients of the domain and its `vshmemd` map it for reading and writing. A thread that is
//! going to wait takes a slot and has the kernel mark it when the thread dies, however it dies, so
//! that whoever would carry out its operations sees that nobody waits for them any more, without a
//! system call. `vshmemd` takes the slots of dead clients back, and
//! finds in them what they were waiting for.

use crate::death_mark::{self, Mark};
use crate::mapping::{Mapping, file_size};
use crate::sleep_word::SleepWord;
use rustix::fs::{MemfdFlags, SealFlags};
use rustix::io::Errno;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::atomic::Ordering::*;
use vshmem_abi::layout::{self, Shared, WAIT_MAGIC, WAIT_SLOTS, WaitSlot};
use vshmem_abi::token::Token;

/// Where threads begin to look for a free slot is spread over so many, so that they do not meet,
/// and all used slots are near the beginning, where `vshmemd` looks for them.
const SPREAD: usize = 128;

/// What a slot says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// The slot.
    pub slot: u32,
    /// The client that has it.
    pub token: Token,
    /// What it waits for: the set's id and the waiter's index in it.
    pub waits: Option<(i32, u32)>,
    /// Undo token of the process, if the slot is held because of that.
    pub undoer: Token,
}

fn is_marked(slot: &WaitSlot) -> bool {
    death_mark::is_set_off(&slot.mark)
}

fn place(slot: &WaitSlot) -> death_mark::Place<'_> {
    death_mark::Place::new(&slot.mark, &slot.links)
}

/// Wakes whoever sleeps in one of these slots, if somebody has it.
fn wake(slots: &[WaitSlot], slot: u32) {
    if let Some(slot) = slots.get(slot as usize)
        && slot.token.load(Relaxed) != Token::NONE.raw()
    {
        SleepWord::Wakes(&slot.wakes).disturb();
    }
}

/// `vshmemd`'s side.
pub struct WaitMaster {
    fd: OwnedFd,
    map: Mapping<layout::WaitPage>,
}

impl WaitMaster {
    /// Makes a page without waiters.
    ///
    /// # Errors
    /// What `memfd_create`, `ftruncate` and `mmap` say.
    pub fn create(generation: u64) -> std::io::Result<Self> {
        let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
        let fd = rustix::fs::memfd_create("vshmem-wait", flags)?;
        rustix::fs::ftruncate(&fd, file_size::<layout::WaitPage>())?;
        rustix::fs::fcntl_add_seals(&fd, SealFlags::SHRINK | SealFlags::GROW | SealFlags::SEAL)?;
        let map = Mapping::<layout::WaitPage>::new(fd.as_fd(), true)?;
        map.head.magic.store(WAIT_MAGIC, Relaxed);
        map.head.generation.store(generation, Relaxed);
        Ok(Self { fd, map })
    }

    /// The descriptor to pass to clients.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// All slots that somebody has.
    pub fn held(&self) -> impl Iterator<Item = Held> {
        // Clients can write any number: bounded by the array.
        let used = self.map.head.high_water.load(SeqCst).min(WAIT_SLOTS as u64) as u32;
        (0..used).zip(&self.map.slots).filter_map(|(slot, of)| {
            let token = Token::from_raw(of.token.load(Acquire));
            // SeqCst: pairs with `WaitPage::set_construct`.
            let construct = of.construct.load(SeqCst);
            let waiter = (construct as u32).checked_sub(1);
            (token != Token::NONE).then(|| Held {
                slot,
                token,
                waits: waiter.map(|waiter| ((construct >> 32) as i32, waiter)),
                undoer: Token::from_raw(of.undoer.load(Relaxed)),
            })
        })
    }

    /// Whether the thread that holds `slot` is dead, as the kernel has marked it.
    pub fn is_dead(&self, slot: u32) -> bool {
        self.map.slots.get(slot as usize).is_some_and(is_marked)
    }

    /// Wakes whoever sleeps in `slot`.
    pub fn wake(&self, slot: u32) {
        wake(&self.map.slots, slot);
    }

    /// Takes back the slots that `are_free` says are those of the dead.
    pub fn free(&self, are_free: impl Fn(&Held) -> bool) {
        for held in self.held().filter(are_free) {
            if let Some(slot) = self.map.slots.get(held.slot as usize) {
                let words = [&slot.mark, &slot.construct, &slot.undoer];
                for word in words.into_iter().chain(&slot.links) {
                    word.store(0, Relaxed);
                }
                // Who takes the slot next finds all of it zero.
                slot.token.store(Token::NONE.raw(), Release);
            }
        }
    }
}

/// The clients' side.
#[repr(transparent)]
pub struct WaitPage(layout::WaitPage);

// SAFETY: nothing but a layout that is one.
unsafe impl Shared for WaitPage {}

impl WaitPage {
    /// Maps the page that `vshmemd` passed. Never unmapped: a thread may be in it, and a program sees
    /// few daemons in its life.
    ///
    /// # Errors
    /// `PROTO` when it is not a wait page; else what `mmap` says.
    pub fn map(fd: BorrowedFd<'_>) -> Result<&'static Self, Errno> {
        let map = Mapping::<Self>::new(fd, true)?;
        if map.0.head.magic.load(Relaxed) != WAIT_MAGIC {
            return Err(Errno::PROTO);
        }
        Ok(map.leak())
    }

    /// Takes a slot for the calling thread of the client `token`, whose death will show in it. `hint`
    /// says where to begin to look: threads that wait at the same time should have different ones.
    /// `None`: all are taken.
    pub fn claim(&self, token: Token, hint: u32) -> Option<(u32, Mark)> {
        let first = hint as usize % SPREAD;
        for index in (first..WAIT_SLOTS).chain(0..first) {
            let Some(slot) = self.0.slots.get(index) else {
                break;
            };
            if slot.token.load(Relaxed) != Token::NONE.raw() {
                continue;
            }
            // Before the slot is taken: once it is, `vshmemd` has to find it.
            if self.0.head.high_water.load(Relaxed) <= index as u64 {
                self.0.head.high_water.fetch_max(index as u64 + 1, SeqCst);
            }
            // Acquire: pairs with the Release of whoever gave it back.
            let taken =
                slot.token
                    .compare_exchange(Token::NONE.raw(), token.raw(), Acquire, Relaxed);
            if taken.is_err() {
                continue;
            }
            return Some((index as u32, death_mark::set(place(slot))));
        }
        None
    }

    /// Notes what the thread that has `slot` waits for. Before it sleeps it has to look whether the
    /// set is still there: either it sees that it is not, or `vshmemd` sees this.
    pub fn set_construct(&self, slot: u32, id: i32, waiter: u32) {
        if let Some(slot) = self.0.slots.get(slot as usize) {
            let word = u64::from(id as u32) << 32 | (u64::from(waiter) + 1) & 0xffff_ffff;
            slot.construct.store(word, SeqCst);
            std::sync::atomic::fence(SeqCst);
        }
    }

    /// Notes that `slot` is held for the life of the process, whose undo token is `undoer`.
    pub fn set_undoer(&self, slot: u32, undoer: Token) {
        if let Some(slot) = self.0.slots.get(slot as usize) {
            slot.undoer.store(undoer.raw(), Release);
        }
    }

    /// Takes over `slot`, which the process holds, from a thread that has ended.
    pub fn hold_on(&self, slot: u32) {
        if let Some(slot) = self.0.slots.get(slot as usize) {
            // For as long as this thread lives, too.
            let _ = death_mark::set(place(slot));
        }
    }

    /// Wakes whoever sleeps in `slot`.
    pub fn wake(&self, slot: u32) {
        wake(&self.0.slots, slot);
    }

    /// What the thread that has `slot` sleeps on where it cannot in the region.
    pub fn sleep_word(&self, slot: u32) -> Option<SleepWord<'_>> {
        let slot = self.0.slots.get(slot as usize)?;
        Some(SleepWord::Wakes(&slot.wakes))
    }

    /// Gives `slot` back, in the thread that claimed it and was given `mark`.
    pub fn release(&self, slot: u32, mark: Mark) {
        if let Some(slot) = self.0.slots.get(slot as usize) {
            slot.construct.store(0, Relaxed);
            slot.undoer.store(0, Relaxed);
            death_mark::clear(place(slot), mark);
            slot.token.store(Token::NONE.raw(), Release);
        }
    }

    /// Whether the thread that holds `slot` is dead, as the kernel has marked it.
    #[inline]
    pub fn is_dead(&self, slot: u32) -> bool {
        self.0.slots.get(slot as usize).is_some_and(is_marked)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: i32 = 0x4000_0001;

    fn pair() -> (WaitMaster, &'static WaitPage) {
        let master = WaitMaster::create(1).unwrap();
        let page = WaitPage::map(master.fd()).unwrap();
        (master, page)
    }

    fn client(serial: u64) -> Token {
        Token::new(3, serial)
    }

    #[test]
    fn the_master_sees_who_waits_for_what() {
        let (master, page) = pair();
        let (slot, mark) = page.claim(client(7), 5).unwrap();
        let held = |waits| Held {
            slot,
            token: client(7),
            waits,
            undoer: Token::NONE,
        };
        assert_eq!(master.held().collect::<Vec<_>>(), [held(None)]);
        page.set_construct(slot, ID, 0);
        assert_eq!(master.held().collect::<Vec<_>>(), [held(Some((ID, 0)))]);
        page.set_undoer(slot, client(6));
        assert_eq!(master.held().next().unwrap().undoer, client(6));
        page.release(slot, mark);
        assert_eq!(master.held().count(), 0);
    }

    #[test]
    fn the_same_hint_twice_gives_different_slots_and_a_slot_given_back_is_used_again() {
        let (_master, page) = pair();
        let (one, first) = page.claim(client(1), 300).unwrap();
        let (two, second) = page.claim(client(2), 300).unwrap();
        assert_ne!(one, two);
        page.release(two, second);
        let (again, second) = page.claim(client(3), 300).unwrap();
        assert_eq!(again, two);
        page.release(two, second);
        page.release(one, first);
    }

    #[test]
    fn a_thread_that_dies_is_marked_and_one_that_lives_is_not() {
        let (master, page) = pair();
        let (mine, mark) = page.claim(client(1), 0).unwrap();
        let its = std::thread::spawn(move || page.claim(client(1), 0).unwrap().0)
            .join()
            .unwrap();
        assert!(page.is_dead(its) && master.is_dead(its));
        assert!(!page.is_dead(mine) && !master.is_dead(mine));
        assert!(!page.is_dead(u32::MAX));
        page.release(mine, mark);
    }

    #[test]
    fn slots_of_a_dead_client_are_taken_back_and_those_of_others_are_not() {
        let (master, page) = pair();
        let (mine, mark) = page.claim(client(1), 0).unwrap();
        let its = std::thread::spawn(move || {
            let (slot, _) = page.claim(client(2), 0).unwrap();
            page.set_construct(slot, ID, 4);
            page.set_undoer(slot, client(2));
            slot
        });
        let its = its.join().unwrap();
        master.free(|held| held.token == client(2));
        let left: Vec<u32> = master.held().map(|held| held.slot).collect();
        assert_eq!(left, [mine]);
        assert!(!page.is_dead(its));
        let (again, third) = page.claim(client(3), its).unwrap();
        assert_eq!(again, its);
        let held = master.held().find(|held| held.slot == its).unwrap();
        assert_eq!((held.waits, held.undoer), (None, Token::NONE));
        page.release(again, third);
        page.release(mine, mark);
    }

    #[test]
    fn a_full_page_gives_no_slot_and_is_searched_once() {
        let (master, page) = pair();
        for slot in &page.0.slots {
            slot.token.store(9, Relaxed);
        }
        assert!(page.claim(client(1), 77).is_none());
        page.0.slots[3].token.store(0, Relaxed);
        let (slot, mark) = page.claim(client(1), 77).unwrap();
        assert_eq!(slot, 3);
        page.release(3, mark);
        page.0.head.high_water.store(u64::MAX, Relaxed);
        assert_eq!(master.held().count(), WAIT_SLOTS - 1);
    }
}
