// SPDX-License-Identifier: MIT OR Apache-2.0
//! The processes of the domain: their pages, and how it is known that they live.
//!
//! A client goes by the number of the connection that it was made for, which is never used
//! again. The witness of its life is its page ([`PageMaster::still_mapped`]); connection and
//! pidfd only tell when to look.

use super::maps::{self, FileId};
use crate::metrics::counts::Calls;
use crate::server::random;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::SealFlags;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::collections::{BTreeMap, BTreeSet};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use vshmem_abi::Domid;
use vshmem_abi::token::Token;
use vshmem_abi::wire::Welcome;
use vshmem_engine::client_page::PageMaster;

/// What tells one run of a domain's `vshmemd` from all others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Run {
    /// A random number.
    pub generation: u64,
    /// Which `vshmemd` of this domain number it is ([`vshmem_abi::token`]).
    pub epoch: u8,
}

impl Run {
    /// Draws a generation.
    pub fn draw_generation() -> u64 {
        random().max(1)
    }
}

/// One process.
pub struct Client {
    /// What it has attached.
    pub page: PageMaster,
    /// Place in the domain, which no other living client has.
    pub slot: u32,
    /// What its token is made of: a number that no other process of the domain ever has; 0: its
    /// process has gone over to another client.
    serial: u64,
    /// Its pid as it sees itself, as it has said with its Hello; 0: it has not.
    said_pid: i32,
    /// As our pid namespace numbers it; 0: not known.
    pid: i32,
    pidfd: Option<OwnedFd>,
    page_file: Option<FileId>,
    /// The connection that was made for a child before there was one.
    birth: Option<Rc<OwnedFd>>,
    /// Sets and queues that the process has been given the regions of, by id.
    opened: BTreeSet<i32>,
    /// Connection or process have ended: the page has to be looked at from time to time.
    pub ending: bool,
}

impl Client {
    /// What it is told when it begins.
    pub fn welcome(&self, domid: Domid, generation: u64) -> Welcome {
        Welcome {
            generation,
            domid,
            client: self.slot,
            serial: self.serial,
        }
    }

    /// Whether the process is there. One that has not mapped its page yet, and so has not written
    /// its pid, is believed to be, unless it is a child whose end of the connection is closed: its
    /// `fork` has failed, or it was killed before it did anything.
    pub fn lives(&self) -> bool {
        match self.page.pid() {
            1.. => self.page.still_mapped(),
            _ => !self.birth.as_ref().is_some_and(|fd| is_hung_up(fd.as_fd())),
        }
    }

    /// Its calls in shared memory that are not counted elsewhere.
    pub fn calls(&self) -> Calls {
        Calls {
            shmat: self.page.attaches().into(),
            ..Calls::default()
        }
    }

    /// This is the client of a child-to-be, whose connection is to be looked at.
    pub fn expect_birth(&mut self, connection: Rc<OwnedFd>) {
        self.birth = Some(connection);
    }

    /// The connection has ended and the process has not: from now on its page has to be looked at.
    pub fn outlive_connection(&mut self) {
        self.ending = true;
        // Held any longer, the connection would stay open, and hung up, for epoll to report.
        self.birth = None;
    }

    /// Whether something is left of the process whose connection, or which itself, has ended.
    pub fn is_left(&self) -> bool {
        // With this seal no other can be added, so the page is no witness any more. No client of
        // ours adds it: whoever did is believed to have ended.
        let sealed = rustix::fs::fcntl_get_seals(self.page.fd())
            .is_ok_and(|seals| seals.contains(SealFlags::SEAL));
        !sealed && self.page.still_mapped()
    }

    /// Remembers which process this is, and returns the descriptor that becomes readable when it
    /// ends; `None` when it was known before or cannot be watched.
    pub fn identify(&mut self, pid: i32) -> Option<BorrowedFd<'_>> {
        if self.pid != 0 || pid <= 0 {
            return None;
        }
        self.pid = pid;
        self.pidfd = pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()).ok();
        self.pidfd.as_ref().map(AsFd::as_fd)
    }

    /// Its token, as a client of `domid`; `None` once its process has gone over to another client.
    pub fn token(&self, domid: Domid) -> Option<Token> {
        (self.serial != 0).then(|| Token::new(domid, self.serial))
    }

    /// As our pid namespace numbers the process; 0: not known.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// It is given the region of the set or queue `id`.
    pub fn opens(&mut self, id: i32) {
        self.opened.insert(id);
    }

    /// Whether it was given the region of the set or queue `id`.
    pub fn has_open(&self, id: i32) -> bool {
        self.opened.contains(&id)
    }

    /// Stops watching the process.
    pub fn unwatch(&mut self) {
        self.pidfd = None;
    }

    /// Whether this is the process `pid`, as our pid namespace numbers it.
    pub fn is_process(&self, pid: i32) -> bool {
        self.pid == pid && pid != 0
    }

    /// It says that this is its pid, which its page will have once it has mapped that.
    pub fn says_pid(&mut self, pid: i32) {
        self.said_pid = pid;
    }

    /// Its pid as it sees itself, or else as we do.
    pub fn own_pid(&self) -> i32 {
        let known = [self.page.pid(), self.said_pid, self.pid];
        known.into_iter().find(|&pid| pid > 0).unwrap_or(0)
    }

    /// Mappings of `region` in the process; `None` where they cannot be seen.
    pub fn mappings(&self, region: FileId) -> Option<u64> {
        // A child of fork that has not asked for anything yet is known by what it says; whether
        // that is true, the page tells, which is to be among the mappings.
        let pid = if self.pid == 0 {
            self.page.pid()
        } else {
            self.pid
        };
        maps::count(pid, self.page_file?, region)
    }
}

/// All clients of the domain.
pub struct Clients {
    by_number: BTreeMap<u64, Client>,
    free: Vec<u32>,
    next: u32,
    /// This run of `vshmemd`, whose generation their pages bear.
    pub run: Run,
}

impl Clients {
    /// None yet, of this run.
    pub fn new(run: Run) -> Self {
        Self {
            by_number: BTreeMap::new(),
            free: Vec::new(),
            next: 0,
            run,
        }
    }

    /// Makes the client of connection `number`, with an empty page.
    ///
    /// # Errors
    /// What making the page says: no more descriptors, no memory.
    pub fn add(&mut self, number: u64) -> std::io::Result<&mut Client> {
        let slot = self.free.last().copied().unwrap_or(self.next);
        let page = PageMaster::create(slot, self.run.generation)?;
        if self.free.pop().is_none() {
            self.next += 1;
        }
        let client = Client {
            page_file: FileId::of(page.fd()),
            birth: None,
            page,
            slot,
            serial: Token::serial_in(self.run.epoch, number),
            said_pid: 0,
            pid: 0,
            pidfd: None,
            opened: BTreeSet::new(),
            ending: false,
        };
        Ok(self.by_number.entry(number).or_insert(client))
    }

    /// The process `pid` has connected anew, as client `number`. If what it was before is still
    /// there, and it has not become another program, it keeps its token: it may hold a lock by it.
    pub fn carry_token_over(&mut self, number: u64, pid: i32) {
        let before = self.by_number.iter_mut().find(|(other, client)| {
            let same = client.is_process(pid) && client.serial != 0;
            **other != number && same && client.page.pid() > 0 && client.page.still_mapped()
        });
        let serial = before.map(|(_, client)| std::mem::take(&mut client.serial));
        if let (Some(serial), Some(client)) = (serial, self.by_number.get_mut(&number)) {
            client.serial = serial;
        }
    }

    /// Numbers of the clients of process `pid`.
    pub fn of_process(&self, pid: i32) -> Vec<u64> {
        let own = self.iter().filter(|(_, client)| client.is_process(pid));
        own.map(|(number, _)| number).collect()
    }

    /// Makes the client of connection `number`, a child-to-be of client `parent`, with its
    /// attachments.
    ///
    /// # Errors
    /// As [`Self::add`]; `NotFound` when there is no such parent.
    pub fn add_child(&mut self, number: u64, parent: u64) -> std::io::Result<()> {
        self.add(number)?;
        let copied = match (self.by_number.get(&number), self.by_number.get(&parent)) {
            (Some(child), Some(parent)) => child.page.copy_attachments_from(&parent.page),
            _ => Err(std::io::ErrorKind::NotFound.into()),
        };
        if copied.is_err() {
            self.remove(number);
        }
        // What the parent has mapped, its child has too.
        let opened = self.by_number.get(&parent).map(|of| of.opened.clone());
        if let (Some(child), Some(opened)) = (self.by_number.get_mut(&number), opened) {
            child.opened = opened;
        }
        copied
    }

    /// The client of connection `number`.
    pub fn get(&self, number: u64) -> Option<&Client> {
        self.by_number.get(&number)
    }

    /// The client of connection `number`, to change.
    pub fn get_mut(&mut self, number: u64) -> Option<&mut Client> {
        self.by_number.get_mut(&number)
    }

    /// Takes a client out.
    pub fn remove(&mut self, number: u64) -> Option<Client> {
        let client = self.by_number.remove(&number)?;
        self.free.push(client.slot);
        Some(client)
    }

    /// There is no set or queue `id` any more.
    pub fn forget(&mut self, id: i32) {
        for client in self.by_number.values_mut() {
            client.opened.remove(&id);
        }
    }

    /// All clients with their numbers.
    pub fn iter(&self) -> impl Iterator<Item = (u64, &Client)> {
        self.by_number
            .iter()
            .map(|(&number, client)| (number, client))
    }

    /// Numbers of the clients that have to be looked at from time to time.
    pub fn ending(&self) -> impl Iterator<Item = u64> {
        self.iter()
            .filter(|(_, client)| client.ending)
            .map(|(number, _)| number)
    }

    /// Clients that count attachments of `id`.
    pub fn holders(&self, slot: u32, id: i32) -> impl Iterator<Item = (u64, &Client)> {
        self.iter()
            .filter(move |(_, client)| client.page.count(slot, id) > 0)
    }
}

fn is_hung_up(connection: BorrowedFd<'_>) -> bool {
    let mut fds = [PollFd::from_borrowed_fd(connection, PollFlags::empty())];
    poll(&mut fds, Some(&Timespec::default()))
        .is_ok_and(|_| fds[0].revents().contains(PollFlags::HUP))
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::{AddressFamily, SocketFlags, SocketType, socketpair};
    use vshmem_engine::client_page::PageMine;

    const RUN: Run = Run {
        generation: 1,
        epoch: 0,
    };

    #[test]
    fn a_slot_is_used_again_only_when_its_client_is_gone() {
        let mut clients = Clients::new(RUN);
        assert_eq!(clients.add(10).unwrap().slot, 0);
        assert_eq!(clients.add(11).unwrap().slot, 1);
        clients.remove(10);
        assert_eq!(clients.add(12).unwrap().slot, 0);
        assert_eq!(clients.add(13).unwrap().slot, 2);
    }

    #[test]
    fn a_client_lives_from_its_making_until_its_page_is_unmapped() {
        let mut clients = Clients::new(RUN);
        let client = clients.add(1).unwrap();
        assert!(client.lives());
        let mine = PageMine::map(client.page.fd(), 42).unwrap();
        assert!(client.lives());
        assert_eq!(client.own_pid(), 42);
        drop(mine);
        assert!(!client.lives());
    }

    #[test]
    fn a_client_that_has_not_mapped_its_page_yet_has_the_pid_that_it_says() {
        let mut clients = Clients::new(RUN);
        let client = clients.add(1).unwrap();
        assert_eq!(client.own_pid(), 0);
        client.says_pid(42);
        assert_eq!(client.own_pid(), 42);
        let _mine = PageMine::map(client.page.fd(), 43).unwrap();
        assert_eq!(client.own_pid(), 43);
    }

    #[test]
    fn a_child_that_was_never_born_does_not_live() {
        let flags = SocketFlags::CLOEXEC;
        let pair = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None);
        let (ours, theirs) = pair.unwrap();
        let mut clients = Clients::new(RUN);
        clients.add(1).unwrap();
        clients.add_child(2, 1).unwrap();
        let child = clients.get_mut(2).unwrap();
        child.expect_birth(Rc::new(ours));
        assert!(child.lives());
        drop(theirs);
        assert!(!child.lives());
    }

    #[test]
    fn a_child_that_outlives_its_connection_does_not_hold_it_open() {
        let flags = SocketFlags::CLOEXEC;
        let pair = socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None);
        let (ours, _theirs) = pair.unwrap();
        let ours = Rc::new(ours);
        let mut clients = Clients::new(RUN);
        let child = clients.add(1).unwrap();
        child.expect_birth(ours.clone());
        child.outlive_connection();
        assert!(child.ending);
        assert_eq!(Rc::strong_count(&ours), 1);
    }

    #[test]
    fn a_client_that_seals_its_page_is_not_kept_for_ever() {
        let mut clients = Clients::new(RUN);
        let client = clients.add(1).unwrap();
        let _mine = PageMine::map(client.page.fd(), 42).unwrap();
        assert!(client.is_left());
        rustix::fs::fcntl_add_seals(client.page.fd(), SealFlags::SEAL).unwrap();
        assert!(!client.is_left());
    }

    #[test]
    fn a_child_has_open_what_its_parent_has() {
        let mut clients = Clients::new(RUN);
        clients.add(1).unwrap().opens(7);
        clients.add_child(2, 1).unwrap();
        let open = |clients: &Clients| [1, 2].map(|n| clients.get(n).unwrap().has_open(7));
        assert_eq!(open(&clients), [true, true]);
        clients.forget(7);
        assert_eq!(open(&clients), [false, false]);
    }

    #[test]
    fn a_child_of_nobody_leaves_nothing_behind() {
        let mut clients = Clients::new(RUN);
        assert!(clients.add_child(2, 1).is_err());
        assert_eq!(clients.iter().count(), 0);
    }
}
