// SPDX-License-Identifier: MIT OR Apache-2.0
//! Clients that work on regions themselves, as the client library would, and children that die.

use crate::world::{Client, request};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::AtomicU64;
use vshmem_abi::Kind;
use vshmem_abi::region::Layout;
use vshmem_abi::token::Token;
use vshmem_abi::wire::{Meta, Op, Opened, Reply, Request, how_opened};
use vshmem_abi::{msgq, set};
use vshmem_engine::mapping::Source;
use vshmem_engine::region::{self, Caller, Locked, Region, RegionMap, Surroundings, Who, map};
use vshmem_engine::wait_page::WaitPage;

/// What the tests give as the time.
pub const NOW: i64 = 1234;

/// The kind of construct that a region's layout is of.
pub trait Shape: region::Kind + Layout {
    /// The kind.
    const KIND: Kind;
}

impl Shape for set::Shape {
    const KIND: Kind = Kind::Sem;
}

impl Shape for msgq::Shape {
    const KIND: Kind = Kind::Msg;
}

/// A request for `op` about a construct of `kind`.
pub fn ask_about(kind: Kind, op: Op, id: i32) -> Request {
    Request {
        id,
        kind: kind as u32,
        ..request(op)
    }
}

/// `semget` or `msgget`.
pub fn get(client: &Client, kind: Kind, key: i32, size: u64, flags: i32) -> Result<Meta, i32> {
    let (reply, _) = client.ask(Request {
        key,
        size,
        flags,
        ..ask_about(kind, Op::Get, 0)
    })?;
    Ok(reply.body())
}

/// What the engine needs of a client.
pub struct Around<'a, K> {
    region: Region<'a, AtomicU64, K>,
    domid: u32,
    waits: &'static WaitPage,
}

impl<K: Shape> Surroundings for Around<'_, K> {
    fn domid(&self) -> u32 {
        self.domid
    }

    fn is_dead(&self, slot: u32) -> bool {
        self.waits.is_dead(slot)
    }

    fn wake(&self, waiter: u32) {
        map::wake(self.region, waiter);
    }
}

/// What the reply to [`Op::Open`] has brought.
pub fn source<'a>(reply: &Reply, fd: &'a OwnedFd) -> Source<'a> {
    Source {
        fd: fd.as_fd(),
        how: how_opened(reply.value),
        len: reply.body::<Opened>().bytes,
    }
}

/// A client with a region mapped, as the client library would be.
pub struct User<K> {
    pub client: Client,
    pub map: RegionMap<K>,
    pub id: i32,
}

impl<K: Shape> User<K> {
    /// Opens the construct `id`.
    pub fn new(client: Client, id: i32) -> Result<Self, i32> {
        let (reply, [fd, ..]) = client.ask(ask_about(K::KIND, Op::Open, id))?;
        let fd = fd.expect("a region");
        let map = RegionMap::map(&source(&reply, &fd)).unwrap();
        Ok(Self { client, map, id })
    }

    /// The client's token.
    pub fn token(&self) -> Token {
        Token::new(self.client.welcome.domid, self.client.welcome.serial)
    }

    /// The client as the engine knows it.
    pub fn caller(&self) -> Caller {
        Caller {
            token: self.token(),
            who: Who::new(std::process::id() as i32, self.client.welcome.domid),
            now: NOW,
        }
    }

    /// Does something with the lock held.
    pub fn locked<R>(
        &self,
        work: impl FnOnce(&mut Locked<'_, '_, AtomicU64, Around<'_, K>, K>) -> R,
    ) -> Option<R> {
        let around = self.around();
        let region = self.map.region();
        let mut locked = region.try_lock(self.token(), &around)?;
        let result = work(&mut locked);
        locked.unlock();
        Some(result)
    }

    /// What the client brings along.
    pub fn around(&self) -> Around<'_, K> {
        Around {
            region: self.map.region(),
            domid: self.client.welcome.domid,
            waits: self.client.waits,
        }
    }

    /// How many wait.
    pub fn waiting(&self) -> u32 {
        self.locked(|locked| locked.waiting()).expect("a free lock")
    }

    /// Begins to wait as `enter` says, which gets the slot to wait in; returns the waiter's index.
    pub fn begin_to_wait_by(
        &self,
        enter: impl FnOnce(&mut Locked<'_, '_, AtomicU64, Around<'_, K>, K>, u32) -> Option<u32>,
    ) -> u32 {
        let (slot, _) = self.client.waits.claim(self.token(), 0).unwrap();
        let index = self.locked(|locked| enter(locked, slot));
        let index = index.flatten().expect("room for a waiter");
        self.client.waits.set_construct(slot, self.id, index);
        index
    }

    /// Takes the lock and keeps it.
    pub fn hold_lock(&self) {
        let around = self.around();
        // It is not given back by being dropped.
        let region = self.map.region();
        let locked = region.try_lock(self.token(), &around);
        assert!(locked.is_some());
    }

    /// Whether anybody has the lock.
    pub fn lock_is_held(&self) -> bool {
        self.map.region().lock_holder() != Token::NONE
    }
}

/// A child of this process, which does something as a client of its own and then waits to be killed.
pub struct Child(pub Pid);

impl Child {
    /// One that does `work`.
    pub fn that(work: impl FnOnce()) -> Self {
        Self::that_then(work, || {})
    }

    /// The same, which goes on with something of which nobody is told.
    pub fn that_then(work: impl FnOnce(), then: impl FnOnce()) -> Self {
        let (told, tell) = rustix::pipe::pipe().unwrap();
        // SAFETY: the child has this thread alone; the C library sees to it that memory can be
        // allocated in it, and nothing else that another thread may have locked is used.
        match unsafe { libc::fork() } {
            0 => {
                let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work)).is_ok();
                let _ = rustix::io::write(&tell, &[u8::from(done)]);
                then();
                loop {
                    // SAFETY: waits for the signal that ends it.
                    unsafe { libc::pause() };
                }
            }
            pid => {
                let mut byte = [0];
                rustix::io::read(&told, &mut byte).unwrap();
                let child = Self(Pid::from_raw(pid).expect("fork"));
                assert_eq!(byte, [1], "the child has failed");
                child
            }
        }
    }

    /// Kills it. When this returns it is as dead as can be.
    pub fn kill(self) {
        kill_process(self.0, Signal::KILL).unwrap();
        waitpid(Some(self.0), WaitOptions::empty()).unwrap();
    }
}
