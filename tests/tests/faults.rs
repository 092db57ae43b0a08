// SPDX-License-Identifier: MIT OR Apache-2.0
//! Daemons that are killed or stopped under their clients.

use nix::errno::Errno;
use nix::sys::signal::Signal;
use vshmem_tests::World;
use vshmem_tests::actor::Actor;
use vshmem_tests::program::segments;

#[test]
fn a_killed_daemon_leaves_data_usable_and_its_successor_works_in_the_old_programs() {
    let world = World::new();
    let (mut a, mut b) = (Actor::of(&world, "a"), Actor::of(&world, "b"));
    let id = a.make(0x401, 4096);
    a.ok(&format!("at {id} 0"));
    b.ok(&format!("at {id} 0"));
    world.kill_and_wait("a");

    // What is mapped goes on, in both domains.
    a.ok("poke 0 0 5");
    assert_eq!(b.ok("peek 0 0"), 5);
    b.ok("poke 0 1 6");
    assert_eq!(a.ok("peek 0 1"), 6);
    for call in [
        "get 0x402 4096 01600".to_owned(),
        "get 0x401 4096 0600".to_owned(),
        format!("at {id} 0"),
        format!("stat {id}"),
        format!("set {id} 0 0600"),
        format!("rm {id}"),
    ] {
        assert_eq!(a.ask(&call), Err(Errno::ENODEV), "{call}");
    }
    let said = a.said();
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(
        said.contains("vshmem run") && said.contains("a.sock"),
        "{said}"
    );
    let child = a.ok("child");
    a.ok(&format!("end {child}"));

    world.up("a");
    for call in [
        format!("stat {id}"),
        format!("at {id} 0"),
        format!("set {id} 0 0600"),
        format!("rm {id}"),
    ] {
        assert_eq!(a.ask(&call), Err(Errno::EIDRM), "{call}");
        assert_eq!(b.ask(&call), Err(Errno::EIDRM), "{call}");
    }
    let said = a.said();
    assert_eq!(said.lines().count(), 2, "{said}");
    assert!(said.contains("EIDRM"), "{said}");
    assert_eq!(b.said(), "");
    assert_eq!(a.ok("peek 0 1"), 6);

    // The key is free, and new constructs work in the programs of before.
    assert_eq!(b.call("get 0x401 0 0"), Err(Errno::ENOENT));
    let next = a.make(0x401, 8192);
    assert_eq!(b.ok("get 0x401 0 0"), next);
    let (at_a, at_b) = (a.ok(&format!("at {next} 0")), b.ok(&format!("at {next} 0")));
    a.ok(&format!("poke {at_a} 8000 7"));
    assert_eq!(b.ok(&format!("peek {at_b} 8000")), 7);
    assert_eq!((a.nattch(next), b.nattch(next)), (2, 2));
    let child = a.ok("child");
    assert_eq!(a.nattch(next), 3);
    a.ok(&format!("end {child}"));
    a.ok("dt 0");
    b.ok("dt 0");
    assert_eq!((a.nattch(next), b.nattch(next)), (2, 2));
    let ids: Vec<_> = segments(&world, "b").iter().map(|s| s.id).collect();
    assert_eq!(ids, [next]);
}

#[test]
fn a_daemon_that_is_killed_and_restarted_between_two_calls_is_noticed() {
    let world = World::new();
    let mut a = Actor::of(&world, "a");
    for key in 0x410..0x418 {
        let id = a.make(key, 4096);
        let n = a.ok(&format!("at {id} 0"));
        world.kill_and_wait("a");
        world.up("a");
        assert_eq!(a.stat(id), Err(Errno::EIDRM));
        assert_eq!(a.call(&format!("get {key} 0 0")), Err(Errno::ENOENT));
        a.ok(&format!("poke {n} 0 1"));
        a.ok(&format!("dt {n}"));
        assert_eq!(a.ok("list"), 0);
    }
}

#[test]
fn the_death_of_another_domains_daemon_takes_its_attachments_and_constructs() {
    let world = World::new();
    let (mut a, mut b) = (Actor::of(&world, "a"), Actor::of(&world, "b"));
    let (own, removed) = (a.make(0x420, 4096), a.make(0x421, 4096));
    let foreign = b.make(0x422, 4096);
    for id in [own, removed, foreign] {
        b.ok(&format!("at {id} 0"));
    }
    a.ok(&format!("at {own} 0"));
    let mapped = a.ok(&format!("at {foreign} 0"));
    a.ok(&format!("rm {removed}"));
    assert_eq!(
        (a.nattch(own), a.nattch(removed), a.nattch(foreign)),
        (2, 1, 2)
    );
    world.kill_and_wait("b");

    vshmem_tests::wait_until("the death of the domain is known", || a.nattch(own) == 1);
    // The last ones attached to it were b's.
    assert_eq!(a.stat(removed), Err(Errno::EINVAL));
    for call in [
        format!("stat {foreign}"),
        format!("at {foreign} 0"),
        format!("rm {foreign}"),
    ] {
        assert_eq!(a.ask(&call), Err(Errno::EIDRM), "{call}");
    }
    // Its memory is there as long as somebody has it mapped, and its key is free.
    a.ok(&format!("poke {mapped} 0 3"));
    assert_eq!(a.ok(&format!("peek {mapped} 0")), 3);
    assert_eq!(b.ok("peek 2 0"), 3);
    let next = a.make(0x422, 4096);
    assert_ne!(next, foreign);
    a.ok(&format!("dt {mapped}"));
    let ids: Vec<_> = segments(&world, "a").iter().map(|s| s.id).collect();
    assert_eq!(ids, [own, next]);
    assert_eq!(a.said(), "");
}

#[test]
fn while_the_back_end_is_away_constructs_go_on_and_nothing_hangs() {
    let world = World::new();
    let (mut a, mut b) = (Actor::of(&world, "a"), Actor::of(&world, "b"));
    let id = a.make(0x430, 4096);
    a.ok(&format!("at {id} 0"));
    b.ok(&format!("at {id} 0"));
    world.kill_and_wait("backend");
    for _ in 0..3 {
        a.ok("poke 0 0 5");
        assert_eq!(b.ok("peek 0 0"), 5);
        b.ok("poke 0 0 6");
        assert_eq!(a.ok("peek 0 0"), 6);
        for actor in [&mut a, &mut b] {
            // What it says is one thing: that it says something is the other.
            let refused = actor.call("get 0x431 4096 01600");
            assert_eq!(refused, Err(Errno::ENODEV));
            let child = actor.ok("child");
            actor.ok(&format!("end {child}"));
        }
    }
    a.ok("dt 0");
    b.ok("dt 0");
    // A new back-end knows nothing of before: the domains have to start anew as well.
    for domain in ["a", "b"] {
        vshmem_tests::succeed(world.vshmem(&["down", "--domain", domain, "--force"]));
        world.up(domain);
    }
    let (mut c, mut d) = (Actor::of(&world, "a"), Actor::of(&world, "b"));
    let id = c.make(0x432, 4096);
    assert_eq!(d.ok("get 0x432 0 0"), id);
    d.ok(&format!("at {id} 0"));
    assert_eq!(c.nattch(id), 1);
    // In the old programs too.
    assert_eq!(a.ok("get 0x432 0 0"), id);
    b.ok(&format!("at {id} 0"));
    assert_eq!((a.nattch(id), b.nattch(id)), (2, 2));
}

#[test]
fn a_stopped_daemon_of_another_domain_holds_nobody_up_for_ever() {
    let world = World::new();
    let (mut a, mut b) = (Actor::of(&world, "a"), Actor::of(&world, "b"));
    let own = a.make(0x440, 4096);
    let foreign = b.make(0x441, 4096);
    a.ok(&format!("at {own} 0"));
    b.ok(&format!("at {own} 0"));
    a.ok(&format!("at {foreign} 0"));
    assert_eq!(a.nattch(own), 2);
    world.kill("b", Signal::SIGSTOP);
    // b counts with what it said last.
    assert_eq!(a.nattch(own), 2);
    a.ok(&format!("at {own} 0"));
    assert_eq!(a.nattch(own), 3);
    a.ok("dt 0");
    assert_eq!(a.nattch(own), 2);
    let new = a.make(0x442, 4096);
    a.ok(&format!("at {new} 0"));
    a.ok(&format!("rm {own}"));
    a.ok("poke 1 0 9");
    let mut c = Actor::of(&world, "c");
    assert_eq!(c.ok("get 0x442 0 0"), new);
    world.kill("b", Signal::SIGCONT);
    // All is as if it had never been away.
    assert_eq!(b.nattch(own), 2);
    assert_eq!(b.call("get 0x440 0 0"), Err(Errno::ENOENT));
    assert_eq!(b.ok("get 0x442 0 0"), new);
    a.ok("dt 2");
    assert_eq!(a.nattch(own), 1);
    b.ok("dt 0");
    assert_eq!(a.stat(own), Err(Errno::EINVAL));
    assert_eq!(b.stat(own), Err(Errno::EINVAL));
    assert_eq!((a.said(), b.said()), (String::new(), String::new()));
}

#[test]
fn a_stopped_daemon_of_the_own_domain_gives_enodev_and_works_when_it_goes_on() {
    let world = World::new();
    let mut a = Actor::of(&world, "a");
    let id = a.make(0x450, 4096);
    a.ok(&format!("at {id} 0"));
    world.kill("a", Signal::SIGSTOP);
    a.ok("poke 0 0 1");
    assert_eq!(a.call("get 0x451 4096 01600"), Err(Errno::ENODEV));
    world.kill("a", Signal::SIGCONT);
    // The request may be carried out late, but its answer is not taken for another's.
    let late = a.ok("get 0x451 4096 01600");
    let other = a.make(0x452, 8192);
    assert_ne!(late, other);
    assert_eq!(a.stat(late).expect("stat").size, 4096);
    assert_eq!(a.stat(other).expect("stat").size, 8192);
    assert_eq!(a.nattch(id), 1);
    a.ok("dt 0");
    assert_eq!(a.nattch(id), 0);
}

#[test]
fn hundreds_that_connect_to_a_daemon_that_is_stopped_for_seconds_are_served_when_it_goes_on() {
    let world = World::new();
    // They connect with their first call.
    let mut actors: Vec<_> = (0..200).map(|_| Actor::of(&world, "a")).collect();
    world.kill("a", Signal::SIGSTOP);
    let request = "get 0x458 4096 01600";
    actors.iter_mut().for_each(|actor| actor.send(request));
    // Longer than a program waits for a place among those who have connected.
    std::thread::sleep(std::time::Duration::from_secs(6));
    world.kill("a", Signal::SIGCONT);
    for actor in &mut actors {
        assert!(actor.answer(request).is_ok(), "{}", actor.said());
    }
}

#[test]
fn a_daemon_killed_in_the_middle_of_a_call_ends_the_call() {
    let world = World::new();
    let mut a = Actor::of(&world, "a");
    let id = a.make(0x460, 4096);
    a.ok(&format!("at {id} 0"));
    for request in ["get 0x461 4096 01600".to_owned(), format!("stat {id}")] {
        world.kill("a", Signal::SIGSTOP);
        a.send(&request);
        world.kill_and_wait("a");
        let refused = a.answer(&request).expect_err("no answer");
        // The first of them may have come when the daemon was gone already.
        assert!(
            [Errno::ENODEV, Errno::EIDRM].contains(&refused),
            "{refused}"
        );
        a.ok("poke 0 0 1");
        world.up("a");
    }
    a.make(0x462, 4096);
}

#[test]
fn a_stopped_back_end_gives_enodev_and_works_when_it_goes_on() {
    let world = World::new();
    let (mut a, mut b) = (Actor::of(&world, "a"), Actor::of(&world, "b"));
    let id = a.make(0x470, 4096);
    a.ok(&format!("at {id} 0"));
    b.ok(&format!("at {id} 0"));
    world.kill("backend", Signal::SIGSTOP);
    for actor in [&mut a, &mut b] {
        actor.send("get 0x471 4096 03600");
    }
    for actor in [&mut a, &mut b] {
        assert_eq!(actor.answer("get"), Err(Errno::ENODEV));
        actor.ok("poke 0 0 1");
    }
    world.kill("backend", Signal::SIGCONT);
    // It is silent until it is heard of again, which may be after the next call.
    for actor in [&mut a, &mut b] {
        vshmem_tests::wait_until("the back-end is heard of again", || {
            actor.call("get 0x471 4096 01600") != Err(Errno::ENODEV)
        });
    }
    // What was asked for meanwhile may have been done late, once.
    let (found, other) = (a.ok("get 0x471 4096 01600"), b.ok("get 0x471 4096 01600"));
    assert_eq!(found, other);
    assert_eq!((a.nattch(id), b.nattch(id)), (2, 2));
    let next = b.make(0x472, 8192);
    a.ok(&format!("at {next} 0"));
    assert_eq!((a.nattch(next), b.nattch(next)), (1, 1));
}
