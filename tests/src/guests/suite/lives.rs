// SPDX-License-Identifier: MIT OR Apache-2.0
//! Deaths and returns: of daemons, and of a guest in the middle of its work.

use super::rules::Configured;
use super::shared::{make_all, mapped, world};
use super::{Suite, in_dom0, to_end};
use crate::actor::Actor;
use crate::wait_until;
use nix::errno::Errno;
use std::time::Duration;

/// Of what the storms work on.
const KEY: i32 = 0x5600_d600;
/// Processes of a storm in one guest.
const PROCESSES: &str = "4";
/// What the storm's counter has to gain to show that it goes on.
const TURNS: i64 = 200;

pub(super) fn run(suite: &mut Suite) {
    suite.check(
        "a back-end that was killed is started again and knows all keys",
        back_end,
    );
    suite.check(
        "a vshmemd that was killed is started again; what it owned is gone",
        front_end,
    );
    suite.check(
        "the survivor of a kill storm goes on when the other guest is destroyed",
        survivor,
    );
    suite.check("a guest that was started again joins", joins);
}

fn back_end(suite: &Suite) {
    let world = world(suite);
    let (mut a, mut b) = (Actor::of(&world, "a"), Actor::of(&world, "b"));
    let id = a.make(KEY, 4096);
    a.ok(&format!("at {id} 0"));
    b.ok(&format!("at {id} 0"));
    in_dom0(&["sh", "-c", "kill -9 $(head -n 1 /run/vshmem/backend.pid)"]);
    // It is not on the way to memory.
    a.ok("poke 0 0 5");
    assert_eq!(b.ok("peek 0 0"), 5);
    in_dom0(&["lab", "vshmemd"]);
    let mut late = Actor::of(&world, "b");
    wait_until("the key is found again", || {
        late.call(&format!("get {KEY} 0 0")) == Ok(id)
    });
    late.ok(&format!("at {id} 0"));
    assert_eq!(late.ok("peek 0 0"), 5);
    assert_eq!(
        late.call(&format!("get {KEY} 4096 03600")),
        Err(Errno::EEXIST)
    );
    let mut early = Actor::of(&world, "a");
    let next = early.make(KEY + 1, 4096);
    assert_eq!(b.ok(&format!("get {} 0 0", KEY + 1)), next);
    assert_eq!(a.nattch(id), 3);
}

fn front_end(suite: &Suite) {
    let world = world(suite);
    let (mut a, mut b) = (Actor::of(&world, "a"), Actor::of(&world, "b"));
    let (mine, theirs) = (a.make(KEY, 4096), b.make(KEY + 1, 4096));
    for actor in [&mut a, &mut b] {
        actor.ok(&format!("at {mine} 0"));
        actor.ok(&format!("at {theirs} 0"));
    }
    a.ok("poke 0 0 1");
    b.ok("poke 1 0 2");
    suite.succeed(
        2,
        &["sh", "-c", "kill -9 $(head -n 1 /run/vshmem/local.pid)"],
    );
    // What is mapped stays.
    assert_eq!((b.ok("peek 0 0"), a.ok("peek 1 0")), (1, 2));
    suite.succeed(2, &["lab", "vshmemd"]);
    wait_until("what it owned is gone", || {
        matches!(a.stat(theirs), Err(Errno::EIDRM | Errno::EINVAL))
    });
    assert_eq!(a.call(&format!("get {} 0 0", KEY + 1)), Err(Errno::ENOENT));
    let mut again = Actor::of(&world, "b");
    assert_eq!(again.ok(&format!("get {KEY} 0 0")), mine);
    again.ok(&format!("at {mine} 0"));
    assert_eq!(again.ok("peek 0 0"), 1);
    again.make(KEY + 1, 4096);
    drop((a, b));
}

fn survivor(suite: &Suite) {
    let world = world(suite);
    make_all(&world, "a", KEY, 4096);
    make_all(&world, "b", KEY + 1, 4096);
    let mut a = Actor::of(&world, "a");
    let (id, lost) = (
        a.ok(&format!("get {KEY} 0 0")),
        a.ok(&format!("get {} 0 0", KEY + 1)),
    );
    a.ok(&format!("at {id} 0"));
    a.ok(&format!("at {lost} 0"));
    let mut sets = Actor::of_sets(&world, "a");
    let set = sets.ok(&format!("get {KEY} 3 0"));
    sets.ok(&format!("op {set} 0 1 0"));
    let key = KEY.to_string();
    let storms = [1, 2].map(|guest| suite.start(guest, &["/lab/guest", "storm", &key, PROCESSES]));
    let goes_on = |a: &mut Actor, whose: &str| {
        let begun = count(a);
        wait_until(whose, || {
            std::thread::sleep(Duration::from_millis(20));
            count(a) >= begun + TURNS
        });
    };
    goes_on(&mut a, "both storms go on");
    in_dom0(&["lab", "destroy", "dom2"]);
    goes_on(&mut a, "the survivor goes on alone");
    // The end of the storm: all have given the mutex back.
    a.ok("poke 0 24 1");
    let [mine, _] = storms;
    let ended = to_end(mine);
    assert_eq!(ended.status, 0, "{}", ended.text);
    assert_eq!(sets.ok(&format!("ctl {set} 0 {} 0", libc::GETVAL)), 1);
    let mut queues = Actor::of_queues(&world, "a");
    let queue = queues.ok(&format!("get {KEY} 0"));
    queues.ok(&format!("send {queue} 4711 200 1 0"));
    assert_eq!(
        queues.ask(&format!("receive {queue} 4096 4711 0")),
        Ok(vec![4711, 200, 1])
    );
    // What the dead one owned is gone, but what is mapped of it stays readable.
    wait_until("what dom2 owned is gone", || {
        matches!(a.stat(lost), Err(Errno::EIDRM | Errno::EINVAL))
    });
    a.ok("peek 1 0");
    wait_until("Xen counts no grant to the dead guest", || mapped() == 0);
    let left = in_dom0(&["sh", "-c", "xenstore-ls /vshmem"]);
    assert!(!left.contains("\"dom2\""), "{left}");
}

/// The storm's counter.
fn count(a: &mut Actor) -> i64 {
    a.ok("word 0 0")
}

fn joins(suite: &Suite) {
    // Where the test before has not.
    in_dom0(&[
        "sh",
        "-c",
        "! xl domid dom2 2>/dev/null || lab destroy dom2",
    ]);
    in_dom0(&["lab", "create", "dom2", "/lab/guest_agent serve"]);
    super::await_agent(suite.host(2));
    // A guest that comes back has the highest number, and without this dom1's memory is made for the lowest.
    let _peer = Configured::new(Some((suite, 1)), "[xen]\\npeer = \"dom2\"\\n");
    let world = world(suite);
    let (mut a, mut b) = (Actor::of(&world, "a"), Actor::of(&world, "b"));
    let (mine, theirs) = (a.make(KEY + 2, 4096), b.make(KEY + 3, 4096));
    for actor in [&mut a, &mut b] {
        actor.ok(&format!("at {mine} 0"));
        actor.ok(&format!("at {theirs} 0"));
    }
    a.ok("poke 0 0 3");
    a.ok("poke 1 0 4");
    assert_eq!((b.ok("peek 0 0"), b.ok("peek 1 0")), (3, 4));
    let key = (KEY + 4).to_string();
    make_all(&world, "a", KEY + 4, 4096);
    let ended = suite.routed(2, &["/lab/guest", "maps", &key]);
    assert_eq!(ended.status, 0, "{}", ended.text);
}
