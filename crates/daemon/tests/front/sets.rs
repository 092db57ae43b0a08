// SPDX-License-Identifier: MIT OR Apache-2.0
//! Semaphore sets over two domains: making, opening, removing, and what is left after deaths.

use crate::regions::{self, Child, NOW, source};
use crate::world::{Client, World, ask, own_ids, request, wait_until};
use rustix::process::Signal;
use std::mem::forget;
use std::os::fd::AsFd;
use vshmem_abi::Kind;
use vshmem_abi::ids::IPC_PRIVATE;
use vshmem_abi::limits::SemLimits;
use vshmem_abi::region::waiter;
use vshmem_abi::set::Shape;
use vshmem_abi::token::Token;
use vshmem_abi::wire::{
    Meta, Op as Ask, Request, STAT_ANY, STAT_INDEX, Stat, State, Totals, Undoer, Welcome,
};
use vshmem_engine::client_page::PageMine;
use vshmem_engine::directory;
use vshmem_engine::set::{Call, Op, Outcome, SEM_UNDO, SetMap};

const KEY: i32 = 0x5600_0002;
const CREAT: i32 = libc::IPC_CREAT;
const EXCL: i32 = libc::IPC_CREAT | libc::IPC_EXCL;
/// A user that is not the one the tests run as.
const USER: u32 = 4711;
/// End of a list of arguments.
const END: *const libc::c_char = std::ptr::null();

fn ask_about(op: Ask, id: i32) -> Request {
    regions::ask_about(Kind::Sem, op, id)
}

fn get(client: &Client, key: i32, nsems: u64, flags: i32) -> Result<Meta, i32> {
    regions::get(client, Kind::Sem, key, nsems, flags)
}

fn about(client: &Client, op: Ask, id: i32) -> Result<(), i32> {
    client.ask(ask_about(op, id)).map(|_| ())
}

fn stat(client: &Client, id: i32, flags: i32) -> Result<Stat, i32> {
    let (reply, _) = client.ask(Request {
        flags,
        ..ask_about(Ask::Stat, id)
    })?;
    Ok(reply.body())
}

type User = regions::User<Shape>;

impl User {
    fn call(&self, record: Option<u32>) -> Call {
        Call {
            caller: self.caller(),
            record,
        }
    }

    fn value(&self) -> i32 {
        self.locked(|set| set.get_value(0)).expect("a free lock")
    }

    pub fn change(&self, op: i16) {
        let done = self.locked(|set| set.semop(&[Op::new(0, op, 0)], &self.call(None)));
        assert_eq!(done, Some(Outcome::Done));
    }

    /// `semop` with `SEM_UNDO`.
    pub fn change_with_undo(&self, op: i16) {
        let (reply, _) = self.client.ask(ask_about(Ask::Undo, self.id)).unwrap();
        let undoer = Token::from_raw(reply.body::<Undoer>().token);
        let (slot, _) = self.client.waits.claim(self.token(), 0).unwrap();
        self.client.waits.set_undoer(slot, undoer);
        let record = self.locked(|set| set.undo_record(undoer, slot)).unwrap();
        let done = self.locked(|set| {
            set.semop(
                &[Op::new(0, op, SEM_UNDO)],
                &self.call(Some(record.unwrap())),
            )
        });
        assert_eq!(done, Some(Outcome::Done));
    }

    /// Begins to wait until the first semaphore can be lowered by `by`; returns the waiter's index.
    fn begin_to_wait(&self, by: i16) -> u32 {
        let ops = [Op::new(0, -by, 0)];
        self.begin_to_wait_by(|set, slot| {
            let call = self.call(None);
            assert_eq!(set.semop(&ops, &call), Outcome::Blocked(0));
            set.wait(&ops, &call, slot, 0)
        })
    }
}

/// Makes a set of two semaphores in the domain of `client`.
fn make(client: Client) -> User {
    let made = get(&client, KEY, 2, CREAT | 0o600).unwrap();
    User::new(client, made.id).unwrap()
}

#[test]
fn a_set_made_in_one_domain_is_worked_on_in_another() {
    let world = World::new();
    let (_a, _b) = (world.domain("a"), world.domain("b"));
    let a = make(world.client("a"));
    let b = world.client("b");
    let found = get(&b, KEY, 1, 0).unwrap();
    assert_eq!((found.id, found.size, found.mode), (a.id, 2, 0o600));
    assert_eq!(found.owner, a.client.welcome.domid);
    assert_eq!(stat(&b, a.id, 0).unwrap().usage, Default::default());
    a.change(3);
    // Asked where the region is not at hand, and where it is.
    for _ in 0..2 {
        let usage = stat(&b, a.id, 0).unwrap().usage;
        assert_eq!((usage.atime, usage.dtime), (NOW * 1_000_000_000, 0));
        let _ = b.ask(ask_about(Ask::Open, a.id)).unwrap();
    }
    let b = User::new(b, a.id).unwrap();
    assert_eq!(b.value(), 3);
    b.locked(|set| set.set_value(0, 7, b.call(None).caller.who, NOW + 1));
    assert_eq!(a.value(), 7);
    let usage = stat(&a.client, a.id, 0).unwrap().usage;
    assert_eq!(usage.dtime, (NOW + 1) * 1_000_000_000);
}

#[test]
fn a_get_of_a_set_answers_in_the_kernels_order() {
    let world = World::new();
    let (_a, _b) = (world.domain("a"), world.domain("b"));
    let (a, b) = (world.client("a"), world.client("b"));
    let errno = |client: &Client, nsems, flags| get(client, KEY, nsems, flags).unwrap_err();
    let too_many = SemLimits::read().msl + 1;
    assert_eq!(errno(&a, 1, 0o600), libc::ENOENT);
    assert_eq!(errno(&a, 0, 0o600), libc::ENOENT);
    assert_eq!(errno(&a, too_many, 0o600), libc::EINVAL);
    assert_eq!(errno(&a, 0, CREAT | 0o600), libc::EINVAL);
    assert_eq!(errno(&a, u64::MAX, CREAT | 0o600), libc::EINVAL);
    let made = get(&a, KEY, 3, EXCL | 0o600).unwrap();
    for client in [&b, &a] {
        assert_eq!(errno(client, too_many, EXCL), libc::EINVAL);
        assert_eq!(errno(client, 4, EXCL), libc::EEXIST);
        assert_eq!(errno(client, 4, CREAT), libc::EINVAL);
        assert_eq!(get(client, KEY, 0, CREAT).unwrap().id, made.id);
        // Flags that ask for huge pages mean nothing here.
        assert_eq!(get(client, KEY, 3, 0o4000).unwrap().id, made.id);
    }
    let private = get(&a, IPC_PRIVATE, 1, 0o4600 | 21 << 26).unwrap();
    assert_eq!((private.key, private.huge_shift), (IPC_PRIVATE, 0));
}

#[test]
fn the_region_is_for_who_may_read_or_alter() {
    if !rustix::process::geteuid().is_root() {
        assert!(std::env::var_os("CI").is_none(), "CI has to be root");
        return;
    }
    let world = World::new();
    let _a = world.domain("a");
    let (root, mut user) = (world.client("a"), world.client("a"));
    user.become_user(USER);
    let made = get(&root, KEY, 1, CREAT | 0o600).unwrap();
    let set = |mode| Request {
        mode,
        ..ask_about(Ask::Set, made.id)
    };
    for op in [Ask::Open, Ask::Undo, Ask::Stat] {
        assert_eq!(
            about(&user, op, made.id).unwrap_err(),
            libc::EACCES,
            "{op:?}"
        );
    }
    assert_eq!(stat(&user, made.id, STAT_ANY).unwrap().meta.id, made.id);
    assert_eq!(get(&user, KEY, 1, 0o400).unwrap_err(), libc::EACCES);
    assert_eq!(user.ask(set(0o666)).unwrap_err(), libc::EPERM);
    assert_eq!(about(&user, Ask::Remove, made.id).unwrap_err(), libc::EPERM);
    for mode in [0o604, 0o602] {
        root.ask(set(mode)).unwrap();
        // Whoever takes the lock writes.
        let (reply, [fd, ..]) = user.ask(ask_about(Ask::Open, made.id)).unwrap();
        SetMap::map(&source(&reply, &fd.unwrap())).unwrap();
    }
    assert_eq!(about(&user, Ask::Stat, made.id).unwrap_err(), libc::EACCES);
}

#[test]
fn a_removed_set_is_gone_at_once_and_who_waits_is_told_in_all_domains() {
    let world = World::new();
    let (_a, _b) = (world.domain("a"), world.domain("b"));
    let a = make(world.client("a"));
    let b = User::new(world.client("b"), a.id).unwrap();
    let other = make_private(&world);
    let untouched = other.begin_to_wait(1);
    let waits = [(&a, a.begin_to_wait(1)), (&b, b.begin_to_wait(2))];
    let version = directory::version_of(b.client.directory, 0);
    about(&b.client, Ask::Remove, a.id).unwrap();
    for (user, index) in waits {
        // Told so, or the memory is given back already and says nothing.
        assert_ne!(user.map.region().look(index), waiter::AWAKE);
        assert!(!user.client.directory_has(KEY));
        let ops = [
            Ask::Stat,
            Ask::Find,
            Ask::Remove,
            Ask::Open,
            Ask::Undo,
            Ask::Settle,
        ];
        for op in ops {
            assert_eq!(
                about(&user.client, op, a.id).unwrap_err(),
                libc::EINVAL,
                "{op:?}"
            );
        }
    }
    assert_ne!(directory::version_of(b.client.directory, 0), version);
    assert_eq!(other.map.region().look(untouched), waiter::AWAKE);
    // The memory is given back, whoever still has it mapped.
    let around = a.around();
    let set = a.map.region();
    let locked = set.try_lock(a.token(), &around).unwrap();
    assert!(!a.map.region().is(a.id));
    locked.unlock();
}

/// A set without a key in domain a.
fn make_private(world: &World) -> User {
    let client = world.client("a");
    let made = get(&client, IPC_PRIVATE, 1, 0o600).unwrap();
    User::new(client, made.id).unwrap()
}

#[test]
fn what_is_asked_about_one_kind_is_not_answered_of_another() {
    let world = World::new();
    let _a = world.domain("a");
    let a = make(world.client("a"));
    let (segment, _) = a.client.get(KEY, 1, CREAT | 0o600).unwrap();
    let ops = [
        (Ask::Find, true, true),
        (Ask::Stat, true, true),
        (Ask::Open, true, true),
        (Ask::Confirm, true, false),
        (Ask::Detached, true, false),
        (Ask::Lock, true, false),
        (Ask::Undo, false, true),
        (Ask::Settle, false, true),
        (Ask::Remove, true, true),
    ];
    for (op, of_segments, of_sets) in ops {
        let errno = |of: bool| if of { Ok(()) } else { Err(libc::EINVAL) };
        let asked = |id, kind: Kind| {
            let request = Request {
                kind: kind as u32,
                ..ask_about(op, id)
            };
            a.client.ask(request).map(|_| ())
        };
        assert_eq!(asked(segment.id, Kind::Sem), Err(libc::EINVAL), "{op:?}");
        // A detach is believed whatever it is about.
        if op != Ask::Detached {
            assert_eq!(asked(a.id, Kind::Shm), Err(libc::EINVAL), "{op:?}");
        }
        assert_eq!(asked(segment.id, Kind::Shm), errno(of_segments), "{op:?}");
        assert_eq!(asked(a.id, Kind::Sem), errno(of_sets), "{op:?}");
    }
}

#[test]
fn listings_and_totals_count_sets_and_semaphores() {
    let world = World::new();
    let (_a, _b) = (world.domain("a"), world.domain("b"));
    let (a, b) = (world.client("a"), world.client("b"));
    let ids = [(&a, 3), (&b, 4), (&a, 5)].map(|(client, nsems)| {
        let made = get(client, IPC_PRIVATE, nsems, 0o600).unwrap();
        made.id
    });
    about(&b, Ask::Remove, ids[1]).unwrap();
    let (reply, _) = b.ask(ask_about(Ask::Info, 0)).unwrap();
    let totals = reply.body::<Totals>();
    assert_eq!((totals.used, totals.indices, totals.pages), (2, 3, 8));
    assert_eq!(stat(&b, 2, STAT_INDEX).unwrap().meta.id, ids[2]);
    assert_eq!(stat(&b, 1, STAT_INDEX).unwrap_err(), libc::EINVAL);
    let next = |arg| {
        let request = Request {
            arg,
            ..ask_about(Ask::Next, 0)
        };
        b.ask(request).map(|(reply, _)| reply.value)
    };
    assert_eq!(next(u32::MAX), Ok(ids[0]));
    assert_eq!(next(0), Ok(ids[2]));
    assert_eq!(next(2), Err(libc::ENOENT));
}

#[test]
fn the_lock_and_the_waiter_of_a_process_that_is_killed_are_cleared_away() {
    for domain in ["a", "b"] {
        let world = World::new();
        let (_a, _b) = (world.domain("a"), world.domain("b"));
        let a = make(world.client("a"));
        let user = User::new(world.client(domain), a.id).unwrap();
        let stays = user.begin_to_wait(5);
        let child = Child::that(|| {
            let own = User::new(world.client(domain), a.id).unwrap();
            own.begin_to_wait(1);
            own.hold_lock();
            forget(own);
        });
        assert!(a.lock_is_held());
        child.kill();
        wait_until("the lock is free", || !a.lock_is_held());
        assert_eq!(a.waiting(), 1);
        a.change(1);
        assert_eq!(a.value(), 1, "the dead has taken nothing");
        a.change(4);
        assert_eq!(user.map.region().look(stays), waiter::POSTED);
    }
}

#[test]
fn after_settle_nothing_is_left_of_who_was_dead_before() {
    for domain in ["a", "b"] {
        let world = World::new();
        let (_a, _b) = (world.domain("a"), world.domain("b"));
        let a = make(world.client("a"));
        let user = User::new(world.client(domain), a.id).unwrap();
        a.change(1);
        for _ in 0..20 {
            let child = Child::that(|| {
                let own = User::new(world.client(domain), a.id).unwrap();
                own.change_with_undo(-1);
                own.begin_to_wait(1);
                forget(own);
            });
            assert_eq!(a.value(), 0);
            child.kill();
            about(&user.client, Ask::Settle, a.id).unwrap();
            assert_eq!((a.value(), a.waiting()), (1, 0));
        }
    }
}

#[test]
fn what_a_process_has_changed_with_undo_is_undone_at_its_end_in_every_set() {
    let world = World::new();
    let _a = world.domain("a");
    let (a, other) = (make(world.client("a")), make_private(&world));
    let child = Child::that(|| {
        for id in [a.id, other.id] {
            let own = User::new(world.client("a"), id).unwrap();
            own.change_with_undo(4);
            forget(own);
        }
    });
    assert_eq!((a.value(), other.value()), (4, 4));
    child.kill();
    let is_undone = |of: &User| of.locked(|set| set.get_value(0)) == Some(0);
    wait_until("it is undone", || is_undone(&a) && is_undone(&other));
    // Its slots are free too, when the daemon is done with it.
    about(&a.client, Ask::Settle, a.id).unwrap();
    let slots = [&a, &other].map(|of| {
        let claimed = of.client.waits.claim(of.token(), 0);
        claimed.map(|(slot, _)| slot)
    });
    assert_eq!(slots, [Some(0), Some(1)]);
}

#[test]
fn undo_outlives_the_program_that_a_process_was() {
    let world = World::new();
    let _a = world.domain("a");
    let a = make(world.client("a"));
    let work = || {
        let own = User::new(world.client("a"), a.id).unwrap();
        own.change_with_undo(1);
        forget(own);
    };
    let child = Child::that_then(work, || {
        // SAFETY: all are strings, and the list ends with a null pointer.
        unsafe {
            libc::execlp(
                c"sleep".as_ptr(),
                c"sleep".as_ptr(),
                c"1000000".as_ptr(),
                END,
            )
        };
    });
    let name = format!("/proc/{}/comm", child.0.as_raw_nonzero());
    wait_until("it is another program", || {
        std::fs::read_to_string(&name).unwrap() == "sleep\n"
    });
    // Its slot is marked, so that whoever wants to know of its end asks.
    wait_until("it shows", || a.client.waits.is_dead(0));
    about(&a.client, Ask::Settle, a.id).unwrap();
    assert!(a.client.waits.is_dead(0));
    assert_eq!(a.value(), 1);
    child.kill();
    about(&a.client, Ask::Settle, a.id).unwrap();
    assert_eq!(a.value(), 0);
}

#[test]
fn what_a_dead_domain_has_left_in_a_set_is_cleared_away() {
    let world = World::new();
    let _a = world.domain("a");
    let mut b_daemon = world.domain("b");
    let a = make(world.client("a"));
    let b = User::new(world.client("b"), a.id).unwrap();
    b.change_with_undo(2);
    b.begin_to_wait(5);
    let stays = a.begin_to_wait(4);
    b.hold_lock();
    b_daemon.signal(Signal::KILL);
    b_daemon.wait();
    wait_until("the lock is free", || !a.lock_is_held());
    assert_eq!((a.value(), a.waiting()), (0, 1));
    assert_eq!(a.map.region().look(stays), waiter::AWAKE);
}

#[test]
fn when_the_owner_domain_dies_who_waits_elsewhere_is_told() {
    let world = World::new();
    let mut a_daemon = world.domain("a");
    let _b = world.domain("b");
    let a = make(world.client("a"));
    let b = User::new(world.client("b"), a.id).unwrap();
    let index = b.begin_to_wait(1);
    a_daemon.signal(Signal::KILL);
    a_daemon.wait();
    let post = || b.map.region().look(index);
    wait_until("the waiter is told", || post() == waiter::GONE);
    for op in [Ask::Stat, Ask::Open, Ask::Undo, Ask::Settle, Ask::Remove] {
        assert_eq!(
            about(&b.client, op, a.id).unwrap_err(),
            libc::EIDRM,
            "{op:?}"
        );
    }
    assert_eq!(get(&b.client, KEY, 1, 0).unwrap_err(), libc::ENOENT);
}

#[test]
fn a_process_that_connects_anew_keeps_its_token_and_its_waiters() {
    let world = World::new();
    let _a = world.domain("a");
    let mut user = make(world.client("a"));
    let serial = user.client.welcome.serial;
    let index = user.begin_to_wait(1);
    let generation = user.client.welcome.generation;
    let again = Client::hello(world.connect("a"), generation).unwrap();
    assert_eq!(again.welcome.serial, serial);
    // The connection and the page of before go.
    user.client = again;
    about(&user.client, Ask::Settle, user.id).unwrap();
    let third = world.client("a");
    assert_ne!(third.welcome.serial, serial);
    assert_eq!(user.waiting(), 1);
    user.change(1);
    assert_eq!(user.map.region().look(index), waiter::POSTED);
}

#[test]
fn a_client_that_has_not_mapped_its_page_yet_is_not_taken_for_dead() {
    let world = World::new();
    let _a = world.domain("a");
    let a = make(world.client("a"));
    a.change_with_undo(1);
    let fresh = world.connect("a");
    let hello = Request {
        kind: 0,
        ..request(Ask::Hello)
    };
    let (_, [_, page, ..]) = ask(fresh.as_fd(), &hello, own_ids()).unwrap();
    about(&a.client, Ask::Settle, a.id).unwrap();
    PageMine::map(page.unwrap().as_fd(), 1).unwrap();
    let (reply, _) = ask(fresh.as_fd(), &ask_about(Ask::Find, a.id), own_ids()).unwrap();
    assert_eq!(reply.value, a.id);
}

#[test]
fn a_child_of_fork_has_a_token_of_its_own() {
    let world = World::new();
    let _a = world.domain("a");
    let a = world.client("a");
    let (reply, _) = a.ask(request(Ask::Fork)).unwrap();
    let child = reply.body::<Welcome>();
    assert_ne!(child.serial, a.welcome.serial);
    assert_ne!(child.client, a.welcome.client);
    assert_eq!(
        (child.domid, child.generation),
        (a.welcome.domid, a.welcome.generation)
    );
}

#[test]
fn a_lock_that_somebody_alive_holds_keeps_nobody_from_being_answered() {
    let world = World::new();
    let _a = world.domain("a");
    let (a, other) = (make(world.client("a")), world.client("a"));
    let child = Child::that(|| {
        let own = User::new(world.client("a"), a.id).unwrap();
        own.change_with_undo(1);
        own.begin_to_wait(2);
        forget(own);
    });
    let (set, around) = (a.map.region(), a.around());
    let locked = set.try_lock(a.token(), &around).unwrap();
    child.kill();
    about(&other, Ask::Settle, a.id).unwrap();
    let seen = stat(&other, a.id, 0).unwrap();
    assert_eq!(seen.meta.state, State::Live as u32);
    assert_eq!((locked.get_value(0), locked.waiting()), (1, 1));
    locked.unlock();
    wait_until("the dead has left nothing", || {
        a.locked(|set| (set.get_value(0), set.waiting())) == Some((0, 0))
    });
}
