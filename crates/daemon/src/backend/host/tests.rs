// SPDX-License-Identifier: MIT OR Apache-2.0
//! The back-end as a whole, with domains that are sockets in this process.

use super::*;
use crate::config::Config;
use rustix::event::EventfdFlags;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
use std::os::fd::BorrowedFd;
use std::thread::JoinHandle;
use vshmem_abi::Kind;
use vshmem_abi::ids::ROUTED_BIT;
use vshmem_abi::wire::{Meta, State};
use vshmem_gnt::host::HostPort;
use vshmem_gnt::{GrantRef, Limits, Port, Region, RegionOptions};

const KEY: i32 = 0x5601;

/// A back-end in a thread, with a directory of its own.
struct World {
    dir: tempfile::TempDir,
    stop: OwnedFd,
    thread: Option<JoinHandle<Result<(), Errno>>>,
}

impl World {
    fn new() -> Self {
        Self::with_patience(PATIENCE)
    }

    fn with_patience(patience: Duration) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        let stop = rustix::event::eventfd(0, flags).unwrap();
        let listener = Listener::bind(&paths::backend_socket(dir.path()), 0o666).unwrap();
        let hub = hub::serve(Limits::DEFAULT).unwrap();
        let signals = Signals::from(stop.try_clone().unwrap());
        let thread = std::thread::spawn(move || {
            let carrier = Sockets::new(hub);
            let core = Core::new(signals, Config::default(), NoKeeper, carrier, patience).unwrap();
            Backend::new(listener, core)?.serve()
        });
        Self {
            dir,
            stop,
            thread: Some(thread),
        }
    }

    fn connect(&self) -> OwnedFd {
        let flags = SocketFlags::CLOEXEC;
        let kind = SocketType::SEQPACKET;
        let socket = rustix::net::socket_with(AddressFamily::UNIX, kind, flags, None).unwrap();
        let address = SocketAddrUnix::new(paths::backend_socket(self.dir.path())).unwrap();
        rustix::net::connect(&socket, &address).unwrap();
        socket
    }

    fn enrol(&self, name: &str) -> Domain {
        let socket = self.connect();
        say(&socket, &enrolment(name)).unwrap();
        let (answer, [hub, ..]) = recv::<LinkMsg>(socket.as_fd(), RecvFlags::empty()).unwrap();
        assert_eq!(answer.errno, 0, "enrolment of {name}");
        Domain {
            port: HostPort::new(answer.domid, hub.unwrap()).unwrap(),
            domid: answer.domid,
            socket,
            seq: 0,
            nattch: 0,
            next_id: answer.domid as i32 * 1_000_000,
        }
    }

    /// Whether domains can still enrol and find each other's segments.
    fn assert_works(&self) {
        let mut a = self.enrol("sound-a");
        let mut b = self.enrol("sound-b");
        let id = a.make(KEY + 1);
        assert_eq!(b.get(KEY + 1, 0).meta.id, id);
        assert_eq!(serve(&mut a, |a| a.remove(id), &mut b), State::Free);
    }
}

impl Drop for World {
    fn drop(&mut self) {
        rustix::io::write(&self.stop, &(libc::SIGTERM as u64).to_ne_bytes()).unwrap();
        if let Some(thread) = self.thread.take()
            && !std::thread::panicking()
        {
            thread.join().unwrap().unwrap();
        }
    }
}

/// A domain, as far as the back-end sees one.
struct Domain {
    domid: Domid,
    socket: OwnedFd,
    port: HostPort,
    seq: u32,
    /// What it says when it is asked.
    nattch: u64,
    next_id: i32,
}

impl Domain {
    fn send(&mut self, request: &LinkMsg) -> u32 {
        self.seq += 1;
        let seq = self.seq;
        say(&self.socket, &LinkMsg { seq, ..*request }).unwrap();
        seq
    }

    /// Answers one query and returns it.
    fn answer_one(&mut self) -> LinkMsg {
        let query = hear(&self.socket).unwrap();
        assert!(query.op >= LinkOp::Update as u32, "no query: {query:?}");
        let mut answer = query.answer();
        answer.usage.nattch = self.nattch;
        answer.gref = query.domid + 500;
        say(&self.socket, &answer).unwrap();
        query
    }

    fn ask(&mut self, request: &LinkMsg) -> LinkMsg {
        let seq = self.send(request);
        loop {
            let message = hear(&self.socket).unwrap();
            if message.seq == seq && message.op == request.op {
                return message;
            }
        }
    }

    fn get(&mut self, key: i32, flags: i32) -> LinkMsg {
        self.next_id += 4;
        let id = self.next_id | ROUTED_BIT;
        let meta = Meta {
            kind: Kind::Shm as u32,
            key,
            size: 4096,
            ..Meta::default()
        };
        let request = LinkMsg {
            flags,
            ids: [id, id + 1, id + 2, id + 3],
            ..LinkMsg::about(LinkOp::Get, meta)
        };
        self.ask(&request)
    }

    fn make(&mut self, key: i32) -> i32 {
        let made = self.get(key, libc::IPC_CREAT | libc::IPC_EXCL);
        assert_eq!((made.errno, made.created), (0, 1));
        made.meta.id
    }

    fn remove(&mut self, id: i32) -> State {
        let answer = self.ask(&about(LinkOp::Remove, id));
        assert_eq!(answer.errno, 0);
        State::from_raw(answer.meta.state)
    }
}

fn about(op: LinkOp, id: i32) -> LinkMsg {
    let meta = Meta {
        id,
        ..Meta::default()
    };
    LinkMsg::about(op, meta)
}

fn enrolment(name: &str) -> LinkMsg {
    let mut request = LinkMsg::new(LinkOp::Enrol);
    request.name[..name.len()].copy_from_slice(name.as_bytes());
    request
}

fn say(socket: &OwnedFd, message: &LinkMsg) -> Result<(), Errno> {
    send(socket.as_fd(), message, &[], None, SendFlags::empty())
}

fn hear(socket: &OwnedFd) -> Result<LinkMsg, Errno> {
    Ok(recv(socket.as_fd(), RecvFlags::empty())?.0)
}

/// Lets `asker` ask while `other` answers every query that it gets.
fn serve<T>(asker: &mut Domain, ask: impl FnOnce(&mut Domain) -> T, other: &mut Domain) -> T {
    let (done, stop) = std::io::pipe().unwrap();
    std::thread::scope(|scope| {
        let answering = scope.spawn(|| {
            loop {
                let mut fds = [
                    PollFd::new(&other.socket, PollFlags::IN),
                    PollFd::new(&done, PollFlags::IN),
                ];
                rustix::event::poll(&mut fds, None).unwrap();
                if !fds[0].revents().is_empty() {
                    other.answer_one();
                } else {
                    return;
                }
            }
        });
        let result = ask(asker);
        drop(stop);
        answering.join().unwrap();
        result
    })
}

/// Waits until the back-end has cut a connection.
fn assert_cut(socket: BorrowedFd<'_>) {
    loop {
        match recv::<LinkMsg>(socket, RecvFlags::empty()) {
            Ok(_) => {}
            Err(errno) => return assert_eq!(errno, Errno::CONNRESET),
        }
    }
}

/// The SplitMix64 sequence: the same garbage in every run.
fn garbage(seed: &mut u64) -> u64 {
    *seed = seed.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let z = (*seed ^ (*seed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

#[test]
fn two_domains_find_a_key_and_share_its_region() {
    let world = World::new();
    let (mut a, mut b) = (world.enrol("a"), world.enrol("b"));
    let own = a.port.create(4096, RegionOptions::default()).unwrap();
    rustix::io::pwrite(own.fd(), b"shared", 0).unwrap();
    let id = a.make(KEY);
    assert_eq!(b.get(KEY, 0).meta.id, id);
    let seq = b.send(&about(LinkOp::Locate, id));
    let query = hear(&a.socket).unwrap();
    assert_eq!((query.op, query.meta.id), (LinkOp::Grant as u32, id));
    let mut granted = query.answer();
    granted.gref = a.port.grant(&own, query.domid).unwrap().0;
    say(&a.socket, &granted).unwrap();
    let place = hear(&b.socket).unwrap();
    assert_eq!((place.seq, place.errno, place.domid), (seq, 0, a.domid));
    let theirs = b.port.map(place.domid, GrantRef(place.gref)).unwrap();
    let mut seen = [0; 6];
    rustix::io::pread(theirs.fd(), &mut seen, 0).unwrap();
    assert_eq!(&seen, b"shared");
}

#[test]
fn a_key_that_many_domains_race_for_has_one_winner() {
    let world = World::new();
    let domains: Vec<Domain> = (0..8).map(|n| world.enrol(&format!("d{n}"))).collect();
    let threads = domains.into_iter().map(|mut domain| {
        std::thread::spawn(move || {
            let exclusive = libc::IPC_CREAT | libc::IPC_EXCL;
            let won: Vec<i32> = (1..200)
                .filter(|key| domain.get(*key, exclusive).created == 1)
                .collect();
            (won, domain)
        })
    });
    let threads: Vec<_> = threads.collect();
    let results = threads.into_iter().map(|t| t.join().unwrap());
    let (won, _domains): (Vec<_>, Vec<_>) = results.unzip();
    let mut won: Vec<i32> = won.into_iter().flatten().collect();
    won.sort_unstable();
    assert_eq!(won, (1..200).collect::<Vec<i32>>());
}

#[test]
fn another_version_is_refused_with_eproto() {
    let world = World::new();
    let socket = world.connect();
    let request = LinkMsg {
        version: ABI_VERSION + 1,
        ..enrolment("a")
    };
    say(&socket, &request).unwrap();
    assert_eq!(hear(&socket).unwrap().errno, libc::EPROTO);
    assert_cut(socket.as_fd());
    world.enrol("a");
}

#[test]
fn who_does_not_enrol_first_is_refused() {
    let world = World::new();
    for op in [LinkOp::Get, LinkOp::Update, LinkOp::Totals] {
        let socket = world.connect();
        say(&socket, &LinkMsg::new(op)).unwrap();
        assert_eq!(hear(&socket).unwrap().errno, libc::EPROTO);
        assert_cut(socket.as_fd());
    }
}

#[test]
fn a_name_that_cannot_be_one_is_refused() {
    let world = World::new();
    for name in ["", "a/b", "backend", "\u{fffd}"] {
        let socket = world.connect();
        say(&socket, &enrolment(name)).unwrap();
        assert_eq!(hear(&socket).unwrap().errno, libc::EINVAL, "{name}");
    }
}

#[test]
fn a_name_is_refused_while_its_domain_lives_and_free_as_soon_as_it_is_dead() {
    let world = World::new();
    let first = world.enrol("a");
    let socket = world.connect();
    say(&socket, &enrolment("a")).unwrap();
    assert_eq!(hear(&socket).unwrap().errno, libc::EEXIST);
    let old = first.domid;
    for _ in 0..50 {
        drop(world.enrol("b"));
    }
    drop(first);
    assert_ne!(world.enrol("a").domid, old);
}

#[test]
fn a_name_passes_on_when_its_old_link_closes_a_moment_later() {
    let world = World::new();
    let first = world.enrol("a");
    let socket = world.connect();
    say(&socket, &enrolment("a")).unwrap();
    drop(first);
    assert_eq!(hear(&socket).unwrap().errno, 0);
}

#[test]
fn connections_that_say_nothing_cost_only_themselves() {
    let world = World::new();
    let idle: Vec<OwnedFd> = (0..200).map(|_| world.connect()).collect();
    world.assert_works();
    assert_cut(idle[0].as_fd());
    let last = idle.last().unwrap();
    say(last, &enrolment("late")).unwrap();
    assert_eq!(hear(last).unwrap().errno, 0);
}

#[test]
fn a_process_of_another_user_is_not_enrolled() {
    if !rustix::process::geteuid().is_root() {
        assert!(std::env::var_os("CI").is_none(), "this test needs root");
        return;
    }
    let world = World::new();
    let path = world.dir.path();
    let open = std::os::unix::fs::PermissionsExt::from_mode(0o777);
    std::fs::set_permissions(path, open).unwrap();
    std::thread::scope(|scope| {
        let other = scope.spawn(|| {
            let uid = rustix::process::Uid::from_raw(12345);
            // This thread's alone.
            rustix::thread::set_thread_res_uid(uid, uid, uid).unwrap();
            let socket = world.connect();
            // The back-end may have closed it already.
            let _ = say(&socket, &enrolment("a"));
            assert_cut(socket.as_fd());
        });
        other.join().unwrap();
    });
    world.enrol("a");
}

#[test]
fn packets_of_garbage_harm_nobody_else() {
    let world = World::new();
    let mut seed = 3;
    for round in 0..200 {
        let enrolled = round % 2 == 0;
        let socket = if enrolled {
            world.enrol(&format!("bad-{round}")).socket
        } else {
            world.connect()
        };
        for _ in 0..4 {
            let len = match garbage(&mut seed) % 3 {
                0 => size_of::<LinkMsg>(),
                _ => (garbage(&mut seed) % 500) as usize,
            };
            let bytes: Vec<u8> = (0..len).map(|_| garbage(&mut seed) as u8).collect();
            // Once the connection is cut the rest goes nowhere.
            let _ = rustix::net::send(&socket, &bytes, SendFlags::NOSIGNAL);
        }
        if !enrolled {
            assert_cut(socket.as_fd());
        }
    }
    world.assert_works();
}

#[test]
fn well_formed_messages_with_wild_fields_harm_nobody_else() {
    let world = World::with_patience(Duration::from_millis(1));
    let mut sound = world.enrol("sound");
    let id = sound.make(KEY);
    let mut seed = 4;
    for round in 0..60 {
        let bad = world.enrol(&format!("bad-{round}"));
        for _ in 0..100 {
            let mut message = LinkMsg::new(LinkOp::Get);
            let small = |seed: &mut u64| (garbage(seed) % 12) as u32;
            message.op = 2 + garbage(&mut seed) as u32 % 9;
            if garbage(&mut seed).is_multiple_of(8) {
                message.op = garbage(&mut seed) as u32 % 40;
            }
            message.seq = small(&mut seed);
            message.flags = garbage(&mut seed) as i32 & 0o3001;
            message.errno = garbage(&mut seed) as i32;
            message.gref = garbage(&mut seed) as u32;
            message.meta.kind = 1 + small(&mut seed) % 4;
            message.meta.key = small(&mut seed) as i32;
            message.meta.size = garbage(&mut seed) >> (garbage(&mut seed) % 64);
            message.meta.index = small(&mut seed);
            message.meta.id = match garbage(&mut seed) % 3 {
                0 => garbage(&mut seed) as i32,
                1 => id,
                _ => small(&mut seed) as i32 | ROUTED_BIT,
            };
            if message.op == LinkOp::Remove as u32 && message.meta.id == id {
                continue;
            }
            message.usage.nattch = garbage(&mut seed);
            message.ids = [(); 4].map(|()| small(&mut seed) as i32 | ROUTED_BIT);
            if say(&bad.socket, &message).is_err() {
                break;
            }
        }
    }
    let found = sound.ask(&about(LinkOp::Find, id));
    assert_eq!((found.errno, found.meta.owner), (0, sound.domid));
}

#[test]
fn a_domain_that_asks_and_never_reads_is_cut_off_and_others_go_on() {
    let world = World::new();
    let bad = world.enrol("bad");
    // Ends when the back-end cuts the link.
    while say(&bad.socket, &LinkMsg::new(LinkOp::Totals)).is_ok() {}
    world.assert_works();
}

#[test]
fn a_request_that_comes_while_its_domain_is_asked_is_answered_after() {
    let world = World::new();
    let (mut a, mut b) = (world.enrol("a"), world.enrol("b"));
    let id = a.make(KEY);
    b.get(KEY, 0);
    let mut set = about(LinkOp::Set, id);
    set.meta.mode = 0o600;
    let asked = a.send(&set);
    // The query has come, so the back-end is waiting when the request does.
    let query = hear(&b.socket).unwrap();
    assert_eq!(query.op, LinkOp::Update as u32);
    let own = b.send(&about(LinkOp::Find, id));
    say(&b.socket, &query.answer()).unwrap();
    assert_eq!(hear(&a.socket).unwrap().seq, asked);
    let found = hear(&b.socket).unwrap();
    assert_eq!((found.seq, found.meta.mode), (own, 0o600));
}

#[test]
fn a_domain_that_dies_while_it_is_asked_has_nothing_attached() {
    let world = World::new();
    let (mut a, mut b) = (world.enrol("a"), world.enrol("b"));
    let id = a.make(KEY);
    b.get(KEY, 0);
    let seq = b.send(&about(LinkOp::Locate, id));
    a.answer_one();
    assert_eq!(hear(&b.socket).unwrap().seq, seq);
    a.send(&about(LinkOp::Remove, id));
    hear(&b.socket).unwrap();
    drop(b);
    let removed = hear(&a.socket).unwrap();
    assert_eq!(removed.meta.state, State::Free as u32);
}

#[test]
fn the_death_of_an_owner_is_told_to_those_that_know_and_frees_its_keys() {
    let world = World::new();
    let (mut a, mut b) = (world.enrol("a"), world.enrol("b"));
    let id = a.make(KEY);
    b.get(KEY, 0);
    b.nattch = 1;
    drop(a);
    let told = b.answer_one();
    assert_eq!((told.meta.id, told.meta.state), (id, State::Lost as u32));
    assert_eq!(b.get(KEY, 0).errno, libc::ENOENT);
}

#[test]
fn a_silent_domain_is_waited_for_once_and_told_of_every_change() {
    let world = World::new();
    let (mut a, mut b) = (world.enrol("a"), world.enrol("b"));
    let id = a.make(KEY);
    b.get(KEY, 0);
    let seq = b.send(&about(LinkOp::Locate, id));
    a.answer_one();
    assert_eq!(hear(&b.socket).unwrap().seq, seq);
    // It may have the segment attached, so that stays until it speaks.
    assert_eq!(a.remove(id), State::Dest);
    assert_eq!(a.remove(id), State::Dest);
    for _ in 0..2 {
        let told = hear(&b.socket).unwrap();
        assert_eq!(told.meta.state, State::Dest as u32);
        say(&b.socket, &told.answer()).unwrap();
    }
    // It has spoken: now all are counted, and the segment ends.
    let end = |b: &mut Domain| while b.answer_one().meta.state != State::Free as u32 {};
    serve(&mut b, end, &mut a);
}

#[test]
fn a_domain_that_does_not_take_its_changes_is_cut_off() {
    let world = World::with_patience(Duration::from_millis(1));
    let (mut a, mut b) = (world.enrol("a"), world.enrol("b"));
    let id = a.make(KEY);
    b.get(KEY, 0);
    let socket = b.socket.as_fd();
    let cut = |fd| {
        let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::empty())];
        rustix::event::poll(&mut fds, Some(&Timespec::default())) == Ok(1)
    };
    while !cut(socket) {
        assert_eq!(a.ask(&about(LinkOp::Set, id)).errno, 0);
    }
    world.assert_works();
}
