// SPDX-License-Identifier: MIT OR Apache-2.0
//! What guests share while all goes well, and what they cannot have.

use super::{Suite, in_dom0, to_end};
use crate::World;
use crate::actor::Actor;
use nix::errno::Errno;

/// What the daemon of a domain says, in the lab.
pub(super) const LOG: &str = "/var/log/vshmemd.log";

/// What Linux lets a guest allocate at most, in pages.
const LIMIT: &str = "/sys/module/xen_gntalloc/parameters/limit";

pub(super) fn run(suite: &mut Suite) {
    suite.check(
        "two programs talk through one segment, each in a guest",
        demo,
    );
    for (maker, mapper) in [(1, 2), (2, 1)] {
        let name = format!(
            "dom{mapper} maps what dom{maker} made: several times, over fork and exec, and when killed"
        );
        suite.check(&name, |suite| maps(suite, maker, mapper));
    }
    suite.check("one racer of two guests creates each of 200 keys", race);
    suite.check("a third guest is refused, with the reason", third_guest);
    suite.check("the limit of gntalloc gives ENOSPC and is named", limit);
    suite.check(
        "a segment is gone from Xen's grant tables when it is removed",
        grants_end,
    );
}

/// A world with domain `a` in dom1 and so on; its constructs are removed in the end.
pub(super) fn world(suite: &Suite) -> World {
    let place = |(name, guest)| format!("{name}={}", suite.host(guest));
    World::of_guests(&[("a", 1), ("b", 2), ("c", 3)].map(place).join(" "))
}

fn demo(suite: &Suite) {
    let writer = suite.start(1, &["/lab/hello", "write", "--key", "0x5600d000"]);
    let reader = suite.routed(2, &["/lab/hello", "read", "--key", "0x5600d000"]);
    let writer = to_end(writer);
    assert_eq!(
        (reader.status, writer.status),
        (0, 0),
        "{} {}",
        reader.text,
        writer.text
    );
    assert!(
        reader.text.contains("saw \"greetings from pid"),
        "{}",
        reader.text
    );
    assert!(
        writer.text.contains("was answered \"thanks, pid"),
        "{}",
        writer.text
    );
}

/// Has a guest make a segment, a set and a queue of `key`.
pub(super) fn make_all(world: &World, domain: &str, key: i32, bytes: u64) {
    Actor::of(world, domain).make(key, bytes);
    Actor::of_sets(world, domain).ok(&format!("get {key} 3 03600"));
    Actor::of_queues(world, domain).ok(&format!("get {key} 03600"));
}

fn maps(suite: &Suite, maker: usize, mapper: usize) {
    const KEY: i32 = 0x5600_d100;
    let world = world(suite);
    make_all(&world, ["a", "b"][maker - 1], KEY, 10 * 4096);
    let ended = suite.routed(mapper, &["/lab/guest", "maps", &KEY.to_string()]);
    assert_eq!(ended.status, 0, "{}", ended.text);
}

fn race(suite: &Suite) {
    const ROUNDS: usize = 200;
    let world = world(suite);
    let mut maker = Actor::of(&world, "a");
    maker.make(0x5600_d200, 4096);
    let rounds = ROUNDS.to_string();
    let args = [
        "/lab/race_get",
        "key:0x5600d200",
        "2",
        &rounds,
        "0x5600e000",
    ];
    let racers = [1, 2].map(|guest| suite.start(guest, &args));
    let ended = racers.map(to_end);
    for racer in &ended {
        assert_eq!(racer.status, 0, "{}", racer.text);
    }
    let mut won = [0; 2];
    for round in 0..ROUNDS {
        let lines =
            [0, 1].map(|racer: usize| ended[racer].text.lines().nth(round).expect("a line"));
        let words = lines.map(|line| line.split(' ').collect::<Vec<_>>());
        let winners: Vec<_> = (0..2).filter(|&racer| words[racer][0] == "won").collect();
        assert_eq!(winners.len(), 1, "round {round}: {lines:?}");
        won[winners[0]] += 1;
        assert_eq!(
            words[1 - winners[0]][0],
            "EEXIST",
            "round {round}: {lines:?}"
        );
        assert_eq!(words[0].last(), words[1].last(), "round {round}: {lines:?}");
    }
    println!("the race: dom1 won {}, dom2 {}", won[0], won[1]);
}

fn third_guest(suite: &Suite) {
    const KEY: i32 = 0x5600_d300;
    let world = world(suite);
    let mut a = Actor::of(&world, "a");
    let id = a.make(KEY, 4096);
    let mut b = Actor::of(&world, "b");
    assert_eq!(b.ok(&format!("get {KEY} 0 0")), id);
    b.ok(&format!("at {id} 0"));
    b.ok("poke 0 0 7");
    let mut c = Actor::of(&world, "c");
    assert_eq!(c.ok(&format!("get {KEY} 0 0")), id);
    assert_eq!(c.call(&format!("at {id} 0")), Err(Errno::ENOSPC));
    // Nothing has happened to those who share it.
    a.ok(&format!("at {id} 0"));
    assert_eq!(a.ok("peek 0 0"), 7);
    assert_eq!(a.nattch(id), 2);
    // The owner knows why, and who was refused where to look.
    let owner = suite.succeed(1, &["cat", LOG]);
    assert!(owner.contains("one other domain only"), "{owner}");
    let refused = suite.succeed(3, &["cat", LOG]);
    assert!(
        refused.contains("the log of the owner's vshmemd"),
        "{refused}"
    );
}

fn limit(suite: &Suite) {
    let world = world(suite);
    let before = suite.succeed(1, &["cat", LIMIT]);
    let set = |to: &str| {
        suite.succeed(1, &["sh", "-c", &format!("echo {to} >{LIMIT}")]);
    };
    let mut a = Actor::of(&world, "a");
    a.make(0x5600_d400, 100 * 4096);
    set("300");
    let made = a.make(0x5600_d401, 100 * 4096);
    assert_eq!(
        a.call(&format!("get {} {} 03600", 0x5600_d402, 200 * 4096)),
        Err(Errno::ENOSPC)
    );
    let log = suite.succeed(1, &["cat", LOG]);
    assert!(log.contains(LIMIT), "{log}");
    // What was there is usable, and with a higher limit there is more.
    a.ok(&format!("at {made} 0"));
    a.ok("poke 0 409599 1");
    set(before.trim());
    a.make(0x5600_d402, 200 * 4096);
}

/// Pages of dom1 that others have mapped, as Xen itself lists them: the domid of who has, and whether it may
/// write. Dom0 has some, for console, XenStore and network.
fn mappings() -> Vec<(u32, bool)> {
    let domid = in_dom0(&["lab", "domid", "dom1"]);
    in_dom0(&["xl", "dmesg", "-c"]);
    in_dom0(&["xl", "debug-keys", "g"]);
    let text = in_dom0(&["xl", "dmesg"]);
    assert!(text.contains("gnttab_usage_print_all ] done"), "{text}");
    let head = format!("grant-table for remote d{} ", domid.trim());
    let table = text
        .lines()
        .skip_while(|line| !line.contains(&head))
        .skip(1);
    let table = table.take_while(|line| !line.contains("grant-table for remote"));
    // `[0x008]      2 0x0007b2a 0x00000001 ...`: the reference, who has mapped it, what, and how often; the
    // lowest byte of that counts mappings for writing.
    let mapping = |line: &str| {
        let mut words = line.split_once("[0x")?.1.split_whitespace();
        let by = words.nth(1)?.parse().ok()?;
        let pins = u64::from_str_radix(words.nth(1)?.strip_prefix("0x")?, 16).ok()?;
        Some((by, pins & 0xff != 0))
    };
    table.filter_map(mapping).collect()
}

/// How many pages of dom1 other guests have mapped.
pub(super) fn mapped() -> usize {
    mappings().iter().filter(|(by, _)| *by != 0).count()
}

/// How many pages of dom1 another guest has mapped for writing, or for reading only.
pub(super) fn mapped_by(guest: &str, for_writing: bool) -> usize {
    let domid = in_dom0(&["lab", "domid", guest]);
    let domid = domid.trim().parse().expect("a domid");
    let is_it = |mapping: &&(u32, bool)| **mapping == (domid, for_writing);
    mappings().iter().filter(is_it).count()
}

fn grants_end(suite: &Suite) {
    const PAGES: usize = 500;
    let world = world(suite);
    let mut a = Actor::of(&world, "a");
    let mut b = Actor::of(&world, "b");
    let before = mapped();
    let id = a.make(0x5600_d500, PAGES as u64 * 4096);
    b.ok(&format!("at {id} 0"));
    let during = mapped();
    assert!(during >= before + PAGES, "{before} {during}");
    a.ok(&format!("rm {id}"));
    b.ok("dt 0");
    let after = mapped();
    assert!(after < before + PAGES, "{before} {during} {after}");
    println!("grants of dom1 mapped by dom2: {before}, with {PAGES} pages {during}, after {after}");
}
