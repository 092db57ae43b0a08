// SPDX-License-Identifier: MIT OR Apache-2.0
//! Doorbells between domains that do as if each had a kernel of its own: clients that ring, and daemons that
//! answer.

use crate::regions::{Child, User, ask_about, get};
use crate::world::{Client, Daemon, World, wait_until};
use std::os::fd::{AsFd, OwnedFd};
use vshmem_abi::Kind;
use vshmem_abi::doorbell::{Notify, Page};
use vshmem_abi::set::Shape;
use vshmem_abi::token::Token;
use vshmem_abi::wire::{BELL_WAKE, BELL_WAKE_ALL, Bell, Op as Ask, REGION_NO_FUTEX, Request};
use vshmem_engine::death_mark::Mark;
use vshmem_engine::doorbell::Doorbell;
use vshmem_engine::mapping::Mapping;
use vshmem_engine::set::{Call, Op, Outcome};

const KEY: i32 = 0x5600_0003;

/// Domains, and a client of each that has the same set open, which the first one has made.
struct Domains {
    users: Vec<User<Shape>>,
    daemons: Vec<Daemon>,
    world: World,
}

impl Domains {
    fn new(names: &[&str]) -> Self {
        let world = World::with_separate_kernels();
        let mut of = Self {
            users: Vec::new(),
            daemons: Vec::new(),
            world,
        };
        names.iter().for_each(|name| of.add(name));
        of
    }

    fn add(&mut self, name: &str) {
        self.daemons.push(self.world.domain(name));
        let client = self.world.client(name);
        let made = get(&client, Kind::Sem, KEY, 1, libc::IPC_CREAT | 0o600).unwrap();
        self.users.push(User::new(client, made.id).unwrap());
    }

    fn user(&self, index: usize) -> &User<Shape> {
        &self.users[index]
    }

    fn domid(&self, index: usize) -> u32 {
        self.user(index).client.welcome.domid
    }

    fn id(&self) -> i32 {
        self.user(0).id
    }
}

fn asking(id: i32, domid: u32, flags: i32, slot: u64) -> Request {
    Request {
        arg: domid,
        flags,
        size: slot,
        ..ask_about(Kind::Sem, Ask::Bell, id)
    }
}

/// A doorbell in the hands of a client.
struct Held {
    bell: Bell,
    page: Mapping<Page>,
    notifier: OwnedFd,
}

impl Held {
    fn ask(client: &Client, id: i32, domid: u32) -> Self {
        let (reply, fds) = client.ask(asking(id, domid, 0, 0)).unwrap();
        let [Some(page), Some(notifier), None, None] = fds else {
            panic!("{fds:?}");
        };
        assert_eq!(reply.value, 0);
        Self {
            bell: reply.body(),
            page: Mapping::new(page.as_fd(), true).unwrap(),
            notifier,
        }
    }

    fn rings(&self) -> Doorbell<'_, std::sync::atomic::AtomicU64> {
        Doorbell::new(&self.page.directions[self.bell.direction as usize]).unwrap()
    }

    fn ring(&self, slot: u32) {
        if self.rings().ring(slot) {
            let notify = Notify::from_parts(self.bell.how, self.bell.port).unwrap();
            notify.raise(self.notifier.as_fd()).unwrap();
        }
    }
}

/// A slot of the wait page of a client's domain, as if somebody slept there.
struct Sleeper<'a> {
    client: &'a Client,
    slot: u32,
    mark: Option<Mark>,
    seen: u32,
}

impl<'a> Sleeper<'a> {
    fn new(client: &'a Client) -> Self {
        let token = Token::new(client.welcome.domid, client.welcome.serial);
        let (slot, mark) = client.waits.claim(token, 0).unwrap();
        let mut sleeper = Self {
            client,
            slot,
            mark: Some(mark),
            seen: 0,
        };
        sleeper.seen = sleeper.count();
        sleeper
    }

    fn count(&self) -> u32 {
        self.client.waits.sleep_word(self.slot).unwrap().expected()
    }

    fn is_woken(&mut self) {
        wait_until("the sleeper is woken", || self.count() != self.seen);
        self.seen = self.count();
    }
}

impl Drop for Sleeper<'_> {
    fn drop(&mut self) {
        if let Some(mark) = self.mark.take() {
            self.client.waits.release(self.slot, mark);
        }
    }
}

#[test]
fn futexes_are_said_to_work_in_regions_of_one_kernel_only() {
    let says = |world: &World| {
        let client = world.client("a");
        let made = get(&client, Kind::Sem, KEY, 1, libc::IPC_CREAT | 0o600).unwrap();
        let (reply, _) = client
            .ask(ask_about(Kind::Sem, Ask::Open, made.id))
            .unwrap();
        reply.value
    };
    let world = World::new();
    let _a = world.domain("a");
    assert_eq!(says(&world), 0);
    let world = World::with_separate_kernels();
    let _a = world.domain("a");
    assert_eq!(says(&world), REGION_NO_FUTEX);
}

#[test]
fn clients_ring_for_sleepers_of_other_domains_and_daemons_answer() {
    let domains = Domains::new(&["a", "b"]);
    for (from, to) in [(0, 1), (1, 0)] {
        let client = &domains.user(from).client;
        let held = Held::ask(client, domains.id(), domains.domid(to));
        assert!(held.rings().is_answered());
        let mut sleeper = Sleeper::new(&domains.user(to).client);
        for _ in 0..20 {
            held.ring(sleeper.slot);
            sleeper.is_woken();
        }
        let again = Held::ask(client, domains.id(), domains.domid(to));
        assert_eq!(again.bell, held.bell);
    }
}

#[test]
fn a_daemon_that_is_asked_for_a_doorbell_rings_it_as_well() {
    let domains = Domains::new(&["a", "b"]);
    let mut sleeper = Sleeper::new(&domains.user(1).client);
    let ask = |flags, slot| {
        let request = asking(domains.id(), domains.domid(1), flags, slot);
        domains.user(0).client.ask(request).map(|_| ())
    };
    for (flags, slot) in [(BELL_WAKE, sleeper.slot.into()), (BELL_WAKE_ALL, 0)] {
        ask(flags, slot).unwrap();
        sleeper.is_woken();
    }
    ask(BELL_WAKE, 1 << 20).unwrap();
    assert_eq!(ask(BELL_WAKE, 1 << 40), Err(libc::EINVAL));
}

#[test]
fn two_domains_that_share_a_third_ones_set_have_a_doorbell_when_they_need_it() {
    let domains = Domains::new(&["a", "b", "c", "d"]);
    for (from, to) in [(1, 2), (2, 1), (3, 1)] {
        let held = Held::ask(&domains.user(from).client, domains.id(), domains.domid(to));
        let mut sleeper = Sleeper::new(&domains.user(to).client);
        held.ring(sleeper.slot);
        sleeper.is_woken();
    }
}

#[test]
fn a_doorbell_is_for_who_may_use_the_set_and_of_a_domain_that_has_it() {
    let mut domains = Domains::new(&["a", "b"]);
    domains.daemons.push(domains.world.domain("c"));
    let stranger = domains.world.client("c").welcome.domid;
    let (id, own, other) = (domains.id(), domains.domid(0), domains.domid(1));
    let client = &domains.user(0).client;
    for (request, errno) in [
        (asking(id, own, 0, 0), libc::EINVAL),
        (asking(id, stranger, 0, 0), libc::EINVAL),
        (asking(id, 4711, 0, 0), libc::EINVAL),
        (asking(id, u32::MAX, 0, 0), libc::EINVAL),
        (asking(id + 1, other, 0, 0), libc::EINVAL),
        (
            Request {
                kind: Kind::Shm as u32,
                ..asking(id, other, 0, 0)
            },
            libc::EINVAL,
        ),
        (
            Request {
                kind: Kind::Msg as u32,
                ..asking(id, other, 0, 0)
            },
            libc::EINVAL,
        ),
    ] {
        assert_eq!(client.ask(request).err(), Some(errno), "{request:?}");
    }
    let mut user = domains.world.client("a");
    user.become_user(4711);
    assert_eq!(user.ask(asking(id, other, 0, 0)).err(), Some(libc::EACCES));
    assert!(client.ask(asking(id, other, 0, 0)).is_ok());
}

#[test]
fn where_futexes_work_there_are_no_doorbells() {
    let world = World::new();
    let _daemons = ["a", "b"].map(|name| world.domain(name));
    let clients = ["a", "b"].map(|name| world.client(name));
    let ids = clients.each_ref().map(|client| {
        let made = get(client, Kind::Sem, KEY, 1, libc::IPC_CREAT | 0o600).unwrap();
        let _ = client
            .ask(ask_about(Kind::Sem, Ask::Open, made.id))
            .unwrap();
        made.id
    });
    let other = clients[1].welcome.domid;
    let refused = clients[0].ask(asking(ids[0], other, 0, 0));
    assert_eq!(refused.err(), Some(libc::EINVAL));
}

#[test]
fn clients_see_that_the_other_domain_is_gone_and_get_another_doorbell_when_it_is_back() {
    let mut domains = Domains::new(&["a", "b"]);
    let held = Held::ask(&domains.user(0).client, domains.id(), domains.domid(1));
    let before = domains.daemons[0].descriptors();
    drop(domains.daemons.pop());
    domains.users.pop();
    wait_until("the doorbell is given up", || !held.rings().is_answered());
    wait_until("its descriptors are closed", || {
        domains.daemons[0].descriptors() < before
    });
    domains.add("b");
    let again = Held::ask(&domains.user(0).client, domains.id(), domains.domid(1));
    assert_ne!(again.bell.serial, held.bell.serial);
    let mut sleeper = Sleeper::new(&domains.user(1).client);
    again.ring(sleeper.slot);
    sleeper.is_woken();
}

#[test]
fn a_daemon_wakes_those_for_whom_it_does_what_the_dead_have_left_to_do() {
    let domains = Domains::new(&["a", "b", "c"]);
    domains.user(0).change(1);
    let child = Child::that(|| {
        let client = domains.world.client("b");
        let user = User::<Shape>::new(client, domains.id()).unwrap();
        user.change_with_undo(-1);
        std::mem::forget(user);
    });
    // In c, with which b has no doorbell yet.
    let user = domains.user(2);
    let mut sleeper = Sleeper::new(&user.client);
    let ops = [Op::new(0, -1, 0)];
    let call = Call {
        caller: user.caller(),
        record: None,
    };
    let index = user.locked(|set| {
        assert_eq!(set.semop(&ops, &call), Outcome::Blocked(0));
        set.wait(&ops, &call, sleeper.slot, 0)
    });
    assert!(user.map.region().fall_asleep(index.flatten().unwrap()));
    child.kill();
    sleeper.is_woken();
}
