// SPDX-License-Identifier: MIT OR Apache-2.0
//! The policy of `vshmem.toml`: which domains may use which keys and how, how much each may make, and what
//! becomes of it all when the file is read again.

use libc::{IPC_CREAT, SHM_RDONLY};
use nix::errno::Errno;
use nix::sys::signal::Signal;
use vshmem_tests::actor::Actor;
use vshmem_tests::program::run_to_end;
use vshmem_tests::{World, stdout_of, wait_until};

/// Of the keys from 0x5600 on domain a may do everything, b read; all others are everybody's, but c's.
const RULES: &str = "
[[policy.rule]]
domains = [\"a\"]
keys = \"0x5600-0x56ff\"
access = \"read-write\"

[[policy.rule]]
domains = [\"b\"]
keys = \"0x5600-0x56ff\"
access = \"read-only\"

[[policy.rule]]
domains = [\"a\", \"b\"]
keys = \"all\"
access = \"read-write\"
";

fn configure(world: &World, text: &str) {
    std::fs::write(world.dir().join("vshmem.toml"), text).expect("vshmem.toml");
}

/// A world of this configuration.
fn configured(text: &str) -> World {
    let world = World::new();
    configure(&world, text);
    world
}

fn log(world: &World, name: &str) -> String {
    std::fs::read_to_string(world.dir().join(format!("{name}.log"))).unwrap_or_default()
}

/// Has a daemon read its configuration again, and waits until it says something that it has not said yet.
fn reload(world: &World, name: &str, says: &str) {
    let count = || log(world, name).matches(says).count();
    let before = count();
    world.kill(name, Signal::SIGHUP);
    wait_until("the configuration is read again", || count() > before);
}

#[test]
fn a_domain_that_no_rule_lets_use_a_key_gets_eacces_and_the_logs_say_why() {
    let world = configured(RULES);
    let mut a = Actor::of(&world, "a");
    let mut c = Actor::of(&world, "c");
    let id = a.make(0x5601, 5000);
    for request in [
        "get 0x5601 0 0".to_owned(),
        format!("get 0x5601 1 {IPC_CREAT}"),
        format!("get 0x9999 1 {IPC_CREAT}"),
        "get 0 1 0600".to_owned(),
        // Also when it was told the id.
        format!("at {id} 0"),
        format!("stat {id}"),
        format!("rm {id}"),
    ] {
        assert_eq!(c.call(&request), Err(Errno::EACCES), "{request}");
    }
    let said = log(&world, "backend");
    assert!(
        said.contains("domain c (2) may not use a segment of key 0x00005601: no rule of [policy]"),
        "{said}"
    );
    let said = log(&world, "c");
    assert!(
        said.contains("the policy of the back-end refuses"),
        "{said}"
    );
    // It is as if it were not there.
    let listed = |domain| {
        let mut ipcs = world.run(domain, "all", "ipcs");
        ipcs.arg("-m");
        stdout_of(ipcs).contains("0x00005601")
    };
    assert!(listed("a") && !listed("c"));
}

#[test]
fn a_domain_that_may_read_attaches_for_reading_and_can_never_write() {
    let world = configured(RULES);
    let mut a = Actor::of(&world, "a");
    let mut b = Actor::of(&world, "b");
    assert_eq!(
        b.call(&format!("get 0x5602 1 {IPC_CREAT}")),
        Err(Errno::EACCES)
    );
    let id = a.make(0x5602, 5000);
    a.ok(&format!("set {id} 0 0666"));
    a.ok(&format!("at {id} 0"));
    a.ok("poke 0 7 42");
    assert_eq!(b.ok(&format!("get 0x5602 5000 {}", IPC_CREAT | 0o666)), id);
    assert_eq!(b.call(&format!("at {id} 0")), Err(Errno::EACCES));
    assert_eq!(b.ok(&format!("at {id} {SHM_RDONLY}")), 0);
    assert_eq!(b.ok("peek 0 7"), 42);
    a.ok("poke 0 8 43");
    assert_eq!(b.ok("peek 0 8"), 43);
    assert_eq!(b.call("writable 0"), Err(Errno::EACCES));
    assert_eq!(b.call(&format!("at {id} 0")), Err(Errno::EACCES));
    // It sees what there is, and changes nothing.
    assert_eq!(b.stat(id).map(|stat| stat.nattch), Ok(2));
    assert_eq!(b.call(&format!("rm {id}")), Err(Errno::EACCES));
    assert_eq!(b.call(&format!("set {id} 0 0600")), Err(Errno::EACCES));
    assert!(log(&world, "b").contains("to attach it with SHM_RDONLY"));
    // What a child has is no more.
    let child = b.ok("child");
    assert_eq!(a.stat(id).map(|stat| stat.nattch), Ok(3));
    b.ok(&format!("end {child}"));
    // After it is removed as before.
    a.ok(&format!("rm {id}"));
    assert_eq!(b.call(&format!("at {id} 0")), Err(Errno::EACCES));
    assert_eq!(b.ok(&format!("at {id} {SHM_RDONLY}")), 1);
    assert_eq!(b.ok("peek 1 7"), 42);
    // Of other keys it writes.
    let id = a.make(0x7000, 4096);
    let place = b.ok(&format!("at {id} 0"));
    b.ok(&format!("poke {place} 0 1"));
}

#[test]
fn sets_and_queues_are_not_for_who_may_only_read() {
    let world = configured(RULES);
    let mut set = Actor::of_sets(&world, "a");
    let mut queue = Actor::of_queues(&world, "a");
    let (set_id, queue_id) = (set.ok("get 0x5604 2 03600"), queue.ok("get 0x5604 03600"));
    let mut sets_of_b = Actor::of_sets(&world, "b");
    let mut queues_of_b = Actor::of_queues(&world, "b");
    let refused = |actor: &mut Actor, requests: &[String]| {
        for request in requests {
            assert_eq!(actor.call(request), Err(Errno::EACCES), "{request}");
        }
    };
    let operate = format!("op {set_id} 0 1 0");
    refused(&mut sets_of_b, &["get 0x5604 2 0".into(), operate]);
    let send = format!("send {queue_id} 1 8 1 0");
    let receive = format!("receive {queue_id} 100 0 0");
    refused(&mut queues_of_b, &["get 0x5604 0".into(), send, receive]);
    let said = log(&world, "backend");
    assert!(
        said.contains("a set or queue cannot be used without changing it"),
        "{said}"
    );
    set.ok(&format!("op {set_id} 0 1 0"));
}

#[test]
fn a_domain_makes_no_more_than_its_limits_and_others_as_they_like() {
    let world = configured(
        "[[policy.limit]]\ndomains = [\"a\"]\nsegments = 2\nbytes = 1048576\nqueues = 0\n",
    );
    let mut a = Actor::of(&world, "a");
    let mut b = Actor::of(&world, "b");
    assert_eq!(a.call("get 0x1 2000000 03600"), Err(Errno::ENOSPC));
    let first = a.make(0x1, 4096);
    a.make(0x2, 4096);
    assert_eq!(a.call("get 0x3 1 03600"), Err(Errno::ENOSPC));
    assert_eq!(a.ok("get 0x1 0 0"), first);
    a.ok(&format!("rm {first}"));
    a.make(0x3, 4096);
    b.make(0x4, 2_000_000);
    // It may use what others make.
    let others = a.ok("get 0x4 0 0");
    a.ok(&format!("at {others} 0"));
    let mut queues = Actor::of_queues(&world, "a");
    assert_eq!(queues.call("get 0x5 03600"), Err(Errno::ENOSPC));
    let said = log(&world, "backend");
    assert!(
        said.contains("says queues = 0; remove what is not needed"),
        "{said}"
    );
}

#[test]
fn a_policy_that_is_read_again_counts_from_then_on_and_takes_nothing_away() {
    let world = configured("");
    let mut a = Actor::of(&world, "a");
    let mut b = Actor::of(&world, "b");
    let old = a.make(0x5605, 4096);
    b.ok(&format!("at {old} 0"));
    configure(&world, RULES);
    reload(&world, "backend", "configured");
    let new = a.make(0x5606, 4096);
    assert_eq!(b.call(&format!("at {new} 0")), Err(Errno::EACCES));
    b.ok(&format!("at {new} {SHM_RDONLY}"));
    // What it has it keeps, and nothing else.
    b.ok("poke 0 0 1");
    assert_eq!(b.call(&format!("rm {old}")), Err(Errno::EACCES));
    // A file that is wrong changes nothing.
    configure(&world, "[policy]\nrules = 1\n");
    reload(&world, "backend", "the one before stays in force");
    let said = log(&world, "backend");
    assert!(
        said.contains("vshmem.toml:2:1: unknown field `rules`"),
        "{said}"
    );
    let newer = a.make(0x5607, 4096);
    assert_eq!(b.call(&format!("at {newer} 0")), Err(Errno::EACCES));
    // One that is gone is one that says nothing.
    std::fs::remove_file(world.dir().join("vshmem.toml")).expect("remove");
    reload(&world, "backend", "configured by nothing");
    b.ok(&format!("rm {old}"));
    b.ok(&format!("rm {newer}"));
}

#[test]
fn limits_of_queues_that_are_read_again_hold_for_the_next_queue() {
    let world = configured("");
    let mut a = Actor::of_queues(&world, "a");
    let kernels = a.ask("limits").expect("limits");
    let raised = [50_000, 1 << 20, 8 << 20];
    let [mni, max, mnb] = raised;
    configure(
        &world,
        &format!("[limits]\nmsgmni = {mni}\nmsgmax = {max}\nmsgmnb = {mnb}\n"),
    );
    assert_eq!(a.ask("limits"), Ok(kernels));
    reload(&world, "a", "configured");
    assert_eq!(a.ask("limits").expect("limits"), raised);
    let id = a.ok("get 0x701 03600");
    a.ok(&format!("send {id} 1 16000 1 0"));
}

#[test]
fn a_policy_is_checked_and_explained_before_any_daemon_reads_it() {
    let world = configured(RULES);
    let check = |more: &[&str]| run_to_end(world.vshmem(&[&["policy", "check"], more].concat()));
    let told = check(&[]);
    assert!(told.status.success(), "{told:?}");
    let of_c = "every other domain\n  none        all keys\n";
    assert!(told.stdout.ends_with(of_c), "{told:?}");
    assert!(
        told.stdout
            .contains("domain b\n  read-only   0x5600-0x56ff (line 7)")
    );
    let told = check(&["--domain", "b", "--key", "0x5601"]);
    assert!(
        told.stdout.starts_with("segments        read-only"),
        "{told:?}"
    );
    let file = world.dir().join("new.toml");
    std::fs::write(&file, "[policy]\ndefault = \"red-only\"\n").expect("write");
    let path = file.to_str().expect("UTF-8");
    let told = check(&[path]);
    assert_eq!(told.status.code(), Some(1));
    let want = format!("vshmem: {path}:2:11: unknown variant `red-only`");
    assert!(told.stderr.starts_with(&want), "{told:?}");
    assert!(
        told.stderr.ends_with("did you mean `read-only`?\n"),
        "{told:?}"
    );
    assert_eq!(check(&["/nowhere/at/all"]).status.code(), Some(1));
}
