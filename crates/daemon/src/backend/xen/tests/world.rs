// SPDX-License-Identifier: MIT OR Apache-2.0
//! A machine of Xen, as far as the daemons see one.

use super::super::{Backend, PATIENCE};
use crate::config::Config;
use crate::front::link::{Attend, Link, Mailboxes};
use crate::server::Signals;
use rustix::event::{EventfdFlags, PollFd, PollFlags, eventfd, poll};
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;
use vshmem_abi::ids::ROUTED_BIT;
use vshmem_abi::link::{LinkMsg, LinkOp};
use vshmem_abi::wire::{Meta, State};
use vshmem_abi::{Domid, Kind};
use vshmem_registry::xenstore::fake::FakeStore;
use vshmem_registry::xenstore::{XenStore, paths};

pub const KEY: i32 = 0x5601;
pub const CREAT: i32 = libc::IPC_CREAT;
pub const EXCL: i32 = libc::IPC_CREAT | libc::IPC_EXCL;

/// The machine.
pub struct World {
    pub store: FakeStore,
    patience: Duration,
    /// Where a back-end finds its configuration, if it has one.
    configured: Option<tempfile::TempDir>,
    backend: Option<(OwnedFd, JoinHandle<Result<(), Errno>>)>,
}

impl World {
    /// A machine with a back-end and no guests.
    pub fn new() -> Self {
        Self::with_patience(PATIENCE)
    }

    pub fn with_patience(patience: Duration) -> Self {
        let mut world = Self::without_backend();
        world.patience = patience;
        world.start();
        world
    }

    pub fn without_backend() -> Self {
        Self {
            store: FakeStore::new(),
            patience: PATIENCE,
            configured: None,
            backend: None,
        }
    }

    /// What `vshmem.toml` says to the next back-end, and to this one when it is to read it again.
    pub fn configure(&mut self, text: &str) {
        let dir = self
            .configured
            .get_or_insert_with(|| tempfile::tempdir().unwrap());
        std::fs::write(dir.path().join("vshmem.toml"), text).unwrap();
    }

    /// Has the back-end read it again.
    pub fn reload(&self) {
        let (signals, _) = self.backend.as_ref().unwrap();
        rustix::io::write(signals, &(libc::SIGHUP as u64).to_ne_bytes()).unwrap();
    }

    /// Starts a back-end, and waits until it is announced.
    pub fn start(&mut self) {
        self.start_after(None);
        assert!(self.is_announced());
    }

    /// Starts a back-end whose connection breaks after so many requests; returns when it serves, or has
    /// ended.
    pub fn start_after(&mut self, requests: Option<u32>) {
        assert!(self.backend.is_none());
        self.store.mend(0);
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        let stop = eventfd(0, flags).unwrap();
        let signals = Signals::from(stop.try_clone().unwrap());
        let (store, patience) = (self.store.clone(), self.patience);
        let config = self
            .configured
            .as_ref()
            .map_or_else(Config::default, |dir| {
                Config::read(Some(dir.path().join("vshmem.toml")), dir.path()).unwrap()
            });
        let (up, is_up) = channel();
        let thread = std::thread::spawn(move || {
            let connection = Rc::new(store.connect(0));
            if let Some(requests) = requests {
                store.cut_after(0, requests);
            }
            let backend = Backend::new(connection, signals, config, patience)?;
            backend.announce()?;
            up.send(()).unwrap();
            backend.serve()
        });
        // It has ended when nobody is left to send.
        let _ = is_up.recv();
        self.backend = Some((stop, thread));
    }

    fn is_announced(&self) -> bool {
        self.store.connect(0).read(paths::BACKEND).is_ok()
    }

    /// Kills the back-end.
    pub fn kill(&mut self) {
        self.store.cut(0);
        let (_, thread) = self.backend.take().unwrap();
        assert_eq!(thread.join().unwrap(), Err(Errno::IO));
        self.store.mend(0);
    }

    /// Another one takes the place of one that has ended.
    pub fn restart_ended(&mut self) {
        let (_, thread) = self.backend.take().unwrap();
        assert_eq!(thread.join().unwrap(), Err(Errno::IO));
        self.start();
    }

    /// Tells the back-end to stop.
    pub fn stop(&mut self) {
        let (stop, thread) = self.backend.take().unwrap();
        rustix::io::write(&stop, &(libc::SIGTERM as u64).to_ne_bytes()).unwrap();
        assert_eq!(thread.join().unwrap(), Ok(()));
        assert!(!self.is_announced());
    }

    /// Whether the back-end has ended by itself.
    pub fn has_ended(&self) -> bool {
        self.backend
            .as_ref()
            .is_none_or(|(_, thread)| thread.is_finished())
    }

    /// A guest with a `vshmemd` that is enrolled.
    pub fn guest(&self, domid: Domid) -> Guest {
        self.store.introduce(domid, &format!("guest-{domid}"));
        self.vshmemd(domid, u64::from(domid))
    }

    /// A `vshmemd` of this generation in a guest that there is.
    pub fn vshmemd(&self, domid: Domid, generation: u64) -> Guest {
        let guest = Guest::start(self.store.clone(), domid, generation);
        guest.run(|guest| guest.enrol()).unwrap();
        guest
    }

    /// Whether two guests can still enrol, find each other's segments and remove them.
    pub fn assert_works(&self) {
        let (a, b) = (self.guest(101), self.guest(102));
        let id = a.make(KEY + 1);
        assert_eq!(b.get(KEY + 1, 0).unwrap().meta.id, id);
        assert_eq!(a.remove(id), Ok(State::Free));
        self.store.release(101);
        self.store.release(102);
        drop((a, b));
    }

    /// What there is below a path.
    pub fn below(&self, path: &str) -> Vec<String> {
        let paths = self.store.paths().into_iter();
        paths.filter(|p| p.starts_with(path)).collect()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if let Some((stop, thread)) = self.backend.take() {
            rustix::io::write(&stop, &(libc::SIGTERM as u64).to_ne_bytes()).unwrap();
            let ended = thread.join();
            if !std::thread::panicking() {
                ended.unwrap().unwrap();
            }
        }
    }
}

/// What the `vshmemd` of a guest holds.
pub struct Front {
    pub link: Link,
    pub books: Knows,
    generation: u64,
    next_id: i32,
    pub epoch: u32,
}

/// What it knows, and what it has heard.
#[derive(Default)]
pub struct Knows {
    pub known: BTreeMap<i32, Meta>,
    /// What it says when it is asked.
    pub nattch: u64,
    pub granted: Vec<(Domid, u32)>,
    /// The flags of the last grant.
    pub granted_for: i32,
    pub departed: Vec<(i32, Domid, u32)>,
    pub ready: BTreeMap<Domid, String>,
    pub late: Vec<LinkMsg>,
}

impl Knows {
    fn apply(&mut self, meta: &Meta) {
        let state = State::from_raw(meta.state);
        if state == State::Free || state == State::Lost && self.nattch == 0 {
            self.known.remove(&meta.id);
        } else if let Some(known) = self.known.get_mut(&meta.id) {
            *known = *meta;
        }
    }
}

impl Attend for Knows {
    fn query(&mut self, query: &LinkMsg) -> LinkMsg {
        let mut answer = query.answer();
        answer.usage.nattch = self.nattch;
        match LinkOp::from_raw(query.op).unwrap() {
            LinkOp::Update => self.apply(&query.meta),
            LinkOp::Grant => {
                self.granted.push((query.domid, query.epoch));
                self.granted_for = query.flags;
                answer.gref = 500 + query.domid;
            }
            LinkOp::Departed => {
                let gone = (query.meta.id, query.domid, query.epoch);
                self.departed.push(gone);
            }
            _ => {}
        }
        answer
    }

    fn late(&mut self, answer: &LinkMsg) {
        self.late.push(*answer);
    }

    fn questions(&self) -> Vec<LinkMsg> {
        let find = |id: &i32| LinkMsg {
            flags: 1,
            ..about(LinkOp::Find, *id)
        };
        self.known.keys().map(find).collect()
    }

    fn told(&mut self, question: &LinkMsg, answer: Result<&LinkMsg, Errno>) {
        match answer {
            Ok(answer) => self.apply(&answer.meta),
            Err(_) => drop(self.known.remove(&question.meta.id)),
        }
    }

    fn ready(&mut self, ready: BTreeMap<Domid, String>) {
        self.ready = ready;
    }
}

impl Front {
    pub fn enrol(&mut self) -> Result<(), Errno> {
        let request = LinkMsg {
            generation: self.generation,
            ..LinkMsg::new(LinkOp::Enrol)
        };
        // As `vshmemd` has it: what is heard until it is enrolled, nobody keeps.
        let (answer, _) = self.link.enrol(&request, &mut Knows::default())?;
        self.epoch = answer.epoch;
        self.link.attend(&mut self.books);
        Ok(())
    }

    pub fn call(&mut self, request: &LinkMsg) -> Result<LinkMsg, Errno> {
        Ok(self.link.call(request, &mut self.books)?.0)
    }

    pub fn get(&mut self, kind: Kind, key: i32, flags: i32) -> Result<LinkMsg, Errno> {
        self.next_id += 4;
        let id = self.next_id | ROUTED_BIT;
        let meta = Meta {
            kind: kind as u32,
            key,
            size: 4096,
            ..Meta::default()
        };
        let request = LinkMsg {
            flags,
            ids: [id, id + 1, id + 2, id + 3],
            ..LinkMsg::about(LinkOp::Get, meta)
        };
        let answer = self.call(&request)?;
        self.books.known.insert(answer.meta.id, answer.meta);
        Ok(answer)
    }

    pub fn remove(&mut self, id: i32) -> Result<State, Errno> {
        let answer = self.call(&about(LinkOp::Remove, id))?;
        self.books.apply(&answer.meta);
        Ok(State::from_raw(answer.meta.state))
    }
}

pub fn about(op: LinkOp, id: i32) -> LinkMsg {
    let meta = Meta {
        id,
        ..Meta::default()
    };
    LinkMsg::about(op, meta)
}

type Job = Box<dyn FnOnce(&mut Front) + Send>;

/// The `vshmemd` of a guest: a thread that attends to its link, and does what it is told to.
pub struct Guest {
    pub domid: Domid,
    jobs: Option<Sender<Job>>,
    wake: OwnedFd,
    thread: Option<JoinHandle<()>>,
}

impl Guest {
    pub fn start(store: FakeStore, domid: Domid, generation: u64) -> Self {
        let (jobs, todo) = channel::<Job>();
        let wake = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).unwrap();
        let woken = wake.try_clone().unwrap();
        let thread = std::thread::spawn(move || {
            let mailboxes = Mailboxes::new(Rc::new(store.connect(domid)), generation).unwrap();
            assert_eq!(mailboxes.domid(), domid);
            let front = Front {
                link: Link::new(mailboxes),
                books: Knows::default(),
                generation,
                next_id: domid as i32 * 1_000_000 + generation as i32 * 1000,
                epoch: 0,
            };
            attend(front, &todo, &woken);
        });
        Self {
            domid,
            jobs: Some(jobs),
            wake,
            thread: Some(thread),
        }
    }

    /// Has the thread do something and waits until it is done.
    pub fn run<T: Send + 'static>(&self, job: impl FnOnce(&mut Front) -> T + Send + 'static) -> T {
        self.begin(job).recv().unwrap()
    }

    /// Has the thread do something, whose result can be waited for.
    pub fn begin<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Front) -> T + Send + 'static,
    ) -> Receiver<T> {
        let (done, result) = channel();
        let job = move |front: &mut Front| drop(done.send(job(front)));
        self.jobs.as_ref().unwrap().send(Box::new(job)).unwrap();
        rustix::io::write(&self.wake, &1u64.to_ne_bytes()).unwrap();
        result
    }

    pub fn get(&self, key: i32, flags: i32) -> Result<LinkMsg, Errno> {
        self.run(move |front| front.get(Kind::Shm, key, flags))
    }

    /// Makes a segment and returns its id.
    pub fn make(&self, key: i32) -> i32 {
        let made = self.get(key, EXCL).unwrap();
        assert_eq!(made.created, 1);
        made.meta.id
    }

    pub fn remove(&self, id: i32) -> Result<State, Errno> {
        self.run(move |front| front.remove(id))
    }

    pub fn call(&self, request: LinkMsg) -> Result<LinkMsg, Errno> {
        self.run(move |front| front.call(&request))
    }

    /// The state of a construct, as the guest knows it.
    pub fn state(&self, id: i32) -> Option<State> {
        self.run(move |front| Some(State::from_raw(front.books.known.get(&id)?.state)))
    }

    /// Waits until the guest has heard something.
    pub fn await_that(&self, what: impl Fn(&Front) -> bool + Send + Clone + 'static) {
        loop {
            let what = what.clone();
            if self.run(move |front| what(front)) {
                return;
            }
            std::thread::yield_now();
        }
    }

    /// Ends it as kill -9 would: nothing is cleared away.
    pub fn kill(self, world: &World) {
        let domid = self.domid;
        world.store.cut(domid);
        drop(self);
        world.store.mend(domid);
    }

    fn end(&mut self) {
        drop(self.jobs.take());
        // Nobody to wake is as good.
        let _ = rustix::io::write(&self.wake, &1u64.to_ne_bytes());
        if let Some(thread) = self.thread.take() {
            let ended = thread.join();
            if !std::thread::panicking() {
                ended.unwrap();
            }
        }
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        self.end();
    }
}

fn attend(mut front: Front, todo: &Receiver<Job>, woken: &OwnedFd) {
    loop {
        let link = front.link.fd();
        let mut fds = vec![PollFd::new(woken, PollFlags::IN)];
        fds.extend(link.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
        poll(&mut fds, None).unwrap();
        let mut count = [0; 8];
        // Nothing to read is as good.
        let _ = rustix::io::read(woken, &mut count);
        loop {
            front.link.attend(&mut front.books);
            match todo.try_recv() {
                Ok(job) => job(&mut front),
                Err(std::sync::mpsc::TryRecvError::Empty) => break,
                Err(std::sync::mpsc::TryRecvError::Disconnected) => return,
            }
        }
    }
}
