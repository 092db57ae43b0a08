// SPDX-License-Identifier: MIT OR Apache-2.0
//! Message queues over two domains: making, limits, `msgctl`, and what is left after deaths.

use crate::regions::{self, Child, NOW};
use crate::world::{Client, World, wait_until};
use rustix::process::Signal;
use std::mem::forget;
use std::path::Path;
use std::process::Command;
use vshmem_abi::Kind;
use vshmem_abi::ids::IPC_PRIVATE;
use vshmem_abi::limits::MsgLimits;
use vshmem_abi::msgq::Shape;
use vshmem_abi::region::waiter;
use vshmem_abi::wire::{
    Meta, Op as Ask, QueueStat, QueueUse, Request, STAT_ANY, STAT_INDEX, Totals,
};
use vshmem_engine::directory;
use vshmem_engine::msgq::{Received, Sent, Taken, Text, Want};

const KEY: i32 = 0x5600_0003;
const CREAT: i32 = libc::IPC_CREAT;
const EXCL: i32 = libc::IPC_CREAT | libc::IPC_EXCL;
/// A user that is not the one the tests run as.
const USER: u32 = 4711;
/// Anything, with as much text as may be.
const ANY: Want = Want::new(0, false, 8192);

type User = regions::User<Shape>;

fn ask_about(op: Ask, id: i32) -> Request {
    regions::ask_about(Kind::Msg, op, id)
}

fn get(client: &Client, key: i32, flags: i32) -> Result<Meta, i32> {
    regions::get(client, Kind::Msg, key, 0, flags)
}

fn stat(client: &Client, id: i32, flags: i32) -> Result<QueueStat, i32> {
    let (reply, _) = client.ask(Request {
        flags,
        ..ask_about(Ask::Stat, id)
    })?;
    Ok(reply.body())
}

/// `IPC_SET` by root's own ids.
fn set(id: i32, mode: u32, qbytes: u64) -> Request {
    Request {
        mode,
        size: qbytes,
        ..ask_about(Ask::Set, id)
    }
}

impl User {
    fn send(&self, mtype: i64, size: u32) -> Sent {
        let sent = self.locked(|queue| {
            let text = Text::default();
            queue.send_small(mtype, &text, size, &self.caller())
        });
        sent.expect("a free lock")
    }

    fn receive(&self, want: &Want) -> Received {
        let received =
            self.locked(|queue| queue.receive(want, &self.caller(), &mut Text::default()));
        received.expect("a free lock")
    }

    fn begin_to_receive(&self) -> u32 {
        self.begin_to_wait_by(|queue, slot| queue.wait_to_receive(&ANY, &self.caller(), slot))
    }

    fn begin_to_send(&self, size: u32) -> u32 {
        self.begin_to_wait_by(|queue, slot| {
            let message = queue.hold(size, 1, self.token())?;
            assert_eq!(queue.send(message, &self.caller()), Sent::Full);
            queue.wait_to_send(message, &self.caller(), slot)
        })
    }

    fn take(&self, index: u32) -> Taken {
        let taken = self.locked(|queue| queue.take(index, self.token(), &mut Text::default()));
        taken.expect("a free lock")
    }

    fn look(&self, index: u32) -> u64 {
        self.map.region().look(index)
    }

    fn status(&self) -> QueueUse {
        self.map.region().status()
    }
}

/// Makes a queue in the domain of `client`.
fn make(client: Client) -> User {
    let made = get(&client, KEY, CREAT | 0o600).unwrap();
    User::new(client, made.id).unwrap()
}

#[test]
fn a_queue_made_in_one_domain_is_worked_on_in_another() {
    let world = World::new();
    let (_a, _b) = (world.domain("a"), world.domain("b"));
    let a = make(world.client("a"));
    let b = world.client("b");
    let found = get(&b, KEY, 0).unwrap();
    assert_eq!((found.id, found.size, found.mode), (a.id, 0, 0o600));
    let pid = std::process::id() as i32;
    let owner = a.client.welcome.domid;
    assert_eq!(a.send(5, 10), Sent::Done);
    let want = QueueUse {
        qnum: 1,
        cbytes: 10,
        qbytes: MsgLimits::read().mnb,
        stime: NOW,
        lspid: pid,
        lspid_domain: owner,
        ..QueueUse::default()
    };
    // Asked where the region is not at hand yet, and where it is.
    for _ in 0..2 {
        let told = stat(&b, a.id, 0).unwrap();
        assert_eq!((told.meta.id, told.queue), (a.id, want));
    }
    let b = User::new(b, a.id).unwrap();
    assert_eq!(b.receive(&ANY), Received::Small { mtype: 5, size: 10 });
    let told = stat(&a.client, a.id, 0).unwrap().queue;
    assert_eq!((told.qnum, told.cbytes, told.rtime), (0, 0, NOW));
    let domid = b.client.welcome.domid;
    assert_eq!((told.lrpid, told.lrpid_domain), (pid, domid));
}

#[test]
fn a_get_of_a_queue_answers_in_the_kernels_order() {
    let world = World::new();
    let (_a, _b) = (world.domain("a"), world.domain("b"));
    let (a, b) = (world.client("a"), world.client("b"));
    assert_eq!(get(&a, KEY, 0o600), Err(libc::ENOENT));
    let made = get(&a, KEY, EXCL | 0o600).unwrap();
    for client in [&b, &a] {
        assert_eq!(get(client, KEY, EXCL | 0o600), Err(libc::EEXIST));
        assert_eq!(get(client, KEY, CREAT | 0o600).unwrap().id, made.id);
    }
    assert_ne!(get(&a, IPC_PRIVATE, 0o600).unwrap().id, made.id);
}

#[test]
fn permissions_of_a_queue_are_the_modes() {
    if !rustix::process::geteuid().is_root() {
        assert!(std::env::var_os("CI").is_none(), "CI has to be root");
        return;
    }
    let world = World::new();
    let _a = world.domain("a");
    let (root, mut user) = (world.client("a"), world.client("a"));
    user.become_user(USER);
    let made = get(&root, KEY, CREAT | 0o600).unwrap();
    let errno = |request| user.ask(request).map(|_| ()).unwrap_err();
    assert_eq!(errno(ask_about(Ask::Open, made.id)), libc::EACCES);
    assert_eq!(errno(ask_about(Ask::Stat, made.id)), libc::EACCES);
    assert_eq!(errno(ask_about(Ask::Remove, made.id)), libc::EPERM);
    assert_eq!(errno(set(made.id, 0o666, 1)), libc::EPERM);
    assert_eq!(get(&user, KEY, 0o400), Err(libc::EACCES));
    assert!(stat(&user, made.id, STAT_ANY).is_ok());
    root.ask(set(made.id, 0o602, 1)).unwrap();
    assert!(user.ask(ask_about(Ask::Open, made.id)).is_ok());
    assert_eq!(errno(ask_about(Ask::Stat, made.id)), libc::EACCES);
}

#[test]
fn more_bytes_than_msgmnb_are_for_root_which_is_looked_at_before_the_owner_to_set() {
    if !rustix::process::geteuid().is_root() {
        assert!(std::env::var_os("CI").is_none(), "CI has to be root");
        return;
    }
    let world = World::new();
    let (_a, _b) = (world.domain("a"), world.domain("b"));
    let mut user = world.client("a");
    user.become_user(USER);
    let made = get(&user, KEY, CREAT | 0o600).unwrap();
    let owner = |request| Request {
        uid: USER,
        gid: USER,
        ..request
    };
    let nobody = |request| Request {
        uid: u32::MAX,
        ..request
    };
    let mnb = MsgLimits::read().mnb;
    let qbytes = || stat(&user, made.id, 0).unwrap().queue.qbytes;
    let more = set(made.id, 0o600, mnb + 1);
    assert_eq!(user.ask(nobody(more)).unwrap_err(), libc::EPERM);
    let less = set(made.id, 0o600, mnb - 1);
    assert_eq!(user.ask(nobody(less)).unwrap_err(), libc::EINVAL);
    assert_eq!(qbytes(), mnb);
    user.ask(owner(less)).unwrap();
    assert_eq!(qbytes(), mnb - 1);
    // From a domain that has not had the region before.
    let root = world.client("b");
    root.ask(owner(set(made.id, 0o600, 5))).unwrap();
    assert_eq!(qbytes(), 5);
    let raised = root.ask(owner(set(made.id, 0o600, u64::MAX)));
    let want = match may_raise_limits() {
        true => (Ok(()), u64::MAX),
        false => (Err(libc::EPERM), 5),
    };
    assert_eq!((raised.map(|_| ()), qbytes()), want);
}

/// Whether this process has `CAP_SYS_RESOURCE`, which root in a container is often without.
fn may_raise_limits() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|l| l.strip_prefix("CapEff:"));
    let effective = u64::from_str_radix(line.unwrap().trim(), 16).unwrap();
    effective >> 24 & 1 == 1
}

#[test]
fn more_bytes_let_in_those_who_wait_to_send() {
    let world = World::new();
    let (_a, _b) = (world.domain("a"), world.domain("b"));
    let a = make(world.client("a"));
    let b = User::new(world.client("b"), a.id).unwrap();
    a.client.ask(set(a.id, 0o600, 10)).unwrap();
    assert_eq!(a.send(1, 10), Sent::Done);
    let index = b.begin_to_send(20);
    a.client.ask(set(a.id, 0o600, 29)).unwrap();
    assert_eq!(b.look(index), waiter::AWAKE);
    a.client.ask(set(a.id, 0o600, 30)).unwrap();
    assert_eq!(b.look(index), waiter::POSTED);
    assert_eq!(b.take(index), Taken::Sent);
    assert_eq!((a.status().qnum, a.status().cbytes), (2, 30));
}

#[test]
fn a_changed_mode_has_the_receivers_of_every_domain_look_again_once_they_can_see_it() {
    let world = World::new();
    let (_a, _b) = (world.domain("a"), world.domain("b"));
    let a = make(world.client("a"));
    let b = User::new(world.client("b"), a.id).unwrap();
    let waits = [(&a, a.begin_to_receive()), (&b, b.begin_to_receive())];
    let qbytes = a.status().qbytes;
    // Nothing that matters to them.
    a.client.ask(set(a.id, 0o600, qbytes)).unwrap();
    for (user, index) in waits {
        assert_eq!(user.look(index), waiter::AWAKE);
    }
    b.client.ask(set(a.id, 0o400, qbytes)).unwrap();
    for (user, index) in waits {
        assert_eq!(user.look(index), waiter::POSTED);
        assert_eq!(user.take(index), Taken::Again(None));
        let found = directory::find_id(user.client.directory, Kind::Msg, a.id);
        let directory::Lookup::Found(_, meta) = found else {
            panic!("{found:?}");
        };
        assert_eq!(meta.mode, 0o400);
    }
}

#[test]
fn a_limit_that_a_held_lock_keeps_out_is_set_when_the_lock_is_free() {
    let world = World::new();
    let _a = world.domain("a");
    let (a, other) = (make(world.client("a")), world.client("a"));
    let (queue, around) = (a.map.region(), a.around());
    let locked = queue.try_lock(a.token(), &around).unwrap();
    for qbytes in [5, 6] {
        other.ask(set(a.id, 0o600, qbytes)).unwrap();
    }
    assert_eq!(a.status().qbytes, MsgLimits::read().mnb);
    assert!(stat(&other, a.id, 0).is_ok());
    locked.unlock();
    wait_until("the last limit holds", || a.status().qbytes == 6);
}

#[test]
fn a_removed_queue_is_gone_at_once_and_who_waits_is_told_in_all_domains() {
    let world = World::new();
    let (_a, _b) = (world.domain("a"), world.domain("b"));
    let a = make(world.client("a"));
    let b = User::new(world.client("b"), a.id).unwrap();
    a.client.ask(set(a.id, 0o600, 10)).unwrap();
    let waits = [(&a, a.begin_to_receive()), (&b, b.begin_to_send(20))];
    b.client.ask(ask_about(Ask::Remove, a.id)).unwrap();
    for (user, index) in waits {
        assert_ne!(user.look(index), waiter::AWAKE);
        for op in [Ask::Stat, Ask::Find, Ask::Remove, Ask::Open, Ask::Settle] {
            let refused = user.client.ask(ask_about(op, a.id)).unwrap_err();
            assert_eq!(refused, libc::EINVAL, "{op:?}");
        }
    }
    assert_eq!(get(&b.client, KEY, 0), Err(libc::ENOENT));
}

#[test]
fn listings_and_totals_count_queues_messages_and_bytes() {
    let world = World::new();
    let (mut a_daemon, _b) = (world.domain("a"), world.domain("b"));
    let a = make(world.client("a"));
    let made = get(&world.client("b"), IPC_PRIVATE, 0o600).unwrap();
    let b = User::new(world.client("b"), made.id).unwrap();
    for (user, size) in [(&a, 7), (&b, 20), (&b, 1)] {
        assert_eq!(user.send(1, size), Sent::Done);
    }
    let totals = |client: &Client| {
        let (reply, _) = client.ask(ask_about(Ask::Info, 0)).unwrap();
        let totals = reply.body::<Totals>();
        (totals.used, totals.indices, totals.pages, totals.resident)
    };
    assert_eq!(totals(&a.client), (2, 2, 3, 28));
    let next = |client: &Client, arg| {
        let request = Request {
            arg,
            ..ask_about(Ask::Next, 0)
        };
        let (reply, _) = client.ask(request)?;
        let told = reply.body::<QueueStat>();
        Ok((told.meta.id, told.queue.qnum, told.queue.cbytes))
    };
    for client in [&a.client, &b.client] {
        assert_eq!(next(client, u32::MAX), Ok((a.id, 1, 7)));
        assert_eq!(next(client, 0), Ok((b.id, 2, 21)));
        assert_eq!(next(client, 1), Err(libc::ENOENT));
    }
    assert_eq!(stat(&a.client, 1, STAT_INDEX).unwrap().queue.cbytes, 21);
    assert_eq!(stat(&a.client, 2, STAT_INDEX), Err(libc::EINVAL));
    a_daemon.signal(Signal::KILL);
    a_daemon.wait();
    wait_until("one queue is left", || totals(&b.client) == (1, 2, 2, 21));
}

#[test]
fn what_a_process_that_is_killed_had_in_its_hands_comes_back() {
    for domain in ["a", "b"] {
        let world = World::new();
        let (_a, _b) = (world.domain("a"), world.domain("b"));
        let a = make(world.client("a"));
        let user = User::new(world.client(domain), a.id).unwrap();
        let stays = user.begin_to_receive();
        let child = Child::that(|| {
            let own = User::new(world.client(domain), a.id).unwrap();
            // Its message is never sent, and its receiver never takes one.
            own.locked(|queue| queue.hold(300, 1, own.token())).unwrap();
            own.begin_to_receive();
            own.hold_lock();
            forget(own);
        });
        child.kill();
        wait_until("the lock is free", || !a.lock_is_held());
        wait_until("the waiter is gone", || a.waiting() == 1);
        assert!(!a.map.region().may_concern(a.token()));
        assert_eq!(a.send(1, 3), Sent::Done);
        let received = Received::Small { mtype: 1, size: 3 };
        assert_eq!(user.take(stays), Taken::Received(received));
    }
}

#[test]
fn after_settle_a_message_that_was_given_to_the_dead_is_in_the_queue_again() {
    for domain in ["a", "b"] {
        let world = World::new();
        let (_a, _b) = (world.domain("a"), world.domain("b"));
        let a = make(world.client("a"));
        let user = User::new(world.client(domain), a.id).unwrap();
        let child = Child::that(|| {
            let own = User::new(world.client(domain), a.id).unwrap();
            own.begin_to_receive();
            forget(own);
        });
        assert_eq!(a.send(9, 4), Sent::Done);
        assert_eq!(a.receive(&ANY), Received::Nothing);
        child.kill();
        user.client.ask(ask_about(Ask::Settle, a.id)).unwrap();
        assert_eq!(a.receive(&ANY), Received::Small { mtype: 9, size: 4 });
    }
}

#[test]
fn what_a_dead_domain_has_left_in_a_queue_is_cleared_away() {
    let world = World::new();
    let _a = world.domain("a");
    let mut b_daemon = world.domain("b");
    let a = make(world.client("a"));
    let b = User::new(world.client("b"), a.id).unwrap();
    b.begin_to_receive();
    let stays = a.begin_to_receive();
    b.hold_lock();
    b_daemon.signal(Signal::KILL);
    b_daemon.wait();
    wait_until("the lock is free", || !a.lock_is_held());
    assert_eq!((a.waiting(), a.look(stays)), (1, waiter::AWAKE));
}

#[test]
fn when_the_owner_domain_dies_who_waits_in_a_queue_elsewhere_is_told() {
    let world = World::new();
    let mut a_daemon = world.domain("a");
    let _b = world.domain("b");
    let a = make(world.client("a"));
    let b = User::new(world.client("b"), a.id).unwrap();
    let index = b.begin_to_receive();
    a_daemon.signal(Signal::KILL);
    a_daemon.wait();
    wait_until("the waiter is told", || b.look(index) == waiter::GONE);
    for op in [Ask::Stat, Ask::Open, Ask::Settle, Ask::Remove] {
        let refused = b.client.ask(ask_about(op, a.id)).unwrap_err();
        assert_eq!(refused, libc::EIDRM, "{op:?}");
    }
    let refused = b.client.ask(set(a.id, 0o600, 1)).unwrap_err();
    assert_eq!(refused, libc::EIDRM);
}

#[test]
fn limits_of_the_configuration_reach_new_queues_and_clients() {
    let mnb = MsgLimits::read().mnb + 1000;
    let config = format!("[limits]\nmsgmnb = {mnb}\nmsgmax = 100000\n");
    let world = World::with_config(&config);
    let _a = world.domain("a");
    let a = make(world.client("a"));
    assert_eq!(a.status().qbytes, mnb);
    let told = directory::raised_limits(a.client.directory);
    assert_eq!((told.max, told.mnb, told.mni), (100_000, mnb, 0));
}

/// What a daemon that does not start says.
fn refusal(dir: &Path, args: &[&str]) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vshmemd"));
    let output = command.args(args).arg("--dir").arg(dir).output().unwrap();
    assert!(!output.status.success());
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn a_configuration_with_a_mistake_keeps_both_parts_from_starting() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("vshmem.toml");
    std::fs::write(&file, "[limits]\nmsgmin = 1\n").unwrap();
    let want = format!("vshmemd: {}:2:1: unknown field `msgmin`", file.display());
    for part in [["--backend"].as_slice(), &["--domain", "a"]] {
        let said = refusal(dir.path(), part);
        assert!(said.starts_with(&want), "{said}");
    }
    let said = refusal(dir.path(), &["--backend", "--config", "/nowhere/at/all"]);
    assert!(said.contains("cannot read /nowhere/at/all"), "{said}");
}
