// SPDX-License-Identifier: MIT OR Apache-2.0
//! `[metrics]` of `vshmem.toml`: what a daemon tells, over both kinds of sockets, while programs do something.

use libc::{GETNCNT, GETVAL, IPC_CREAT, SEM_UNDO};
use nix::errno::Errno;
use nix::sys::signal::Signal;
use std::collections::BTreeMap;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::Command;
use vshmem_tests::actor::Actor;
use vshmem_tests::{World, bin, kernels, succeed, wait_until};

fn configure(world: &World, text: &str) {
    std::fs::write(world.dir().join("vshmem.toml"), text).expect("vshmem.toml");
}

/// A world whose daemons tell numbers on Unix sockets.
fn world() -> World {
    let world = World::new();
    let dir = world.dir().display().to_string();
    configure(
        &world,
        &format!("[metrics]\nlisten = \"unix:{dir}/{{name}}.metrics\"\n"),
    );
    world
}

fn socket(world: &World, name: &str) -> PathBuf {
    world.dir().join(format!("{name}.metrics"))
}

/// What is answered to a request for the numbers.
fn get(mut stream: impl Read + Write) -> BTreeMap<String, i64> {
    let request = b"GET /metrics HTTP/1.1\r\nHost: localhost\r\n\r\n";
    stream.write_all(request).expect("request");
    let mut text = String::new();
    stream.read_to_string(&mut text).expect("answer");
    let (head, body) = text.split_once("\r\n\r\n").expect("head and body");
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    assert!(head.contains("application/openmetrics-text"), "{head}");
    let samples = body.lines().filter(|line| !line.starts_with('#'));
    let pairs = samples.map(|line| {
        let (name, value) = line.rsplit_once(' ').expect("name and value");
        (name.to_owned(), value.parse().expect("a number"))
    });
    pairs.collect()
}

fn told(world: &World, name: &str) -> BTreeMap<String, i64> {
    get(UnixStream::connect(socket(world, name)).expect("connect"))
}

fn one(world: &World, name: &str, series: &str) -> i64 {
    let told = told(world, name);
    *told
        .get(series)
        .unwrap_or_else(|| panic!("{series} in {told:?}"))
}

#[test]
fn numbers_change_with_what_programs_do() {
    let world = world();
    let mut a = Actor::of(&world, "a");
    let mut b = Actor::of(&world, "b");
    let a_says = |series: &str| one(&world, "a", series);
    let constructs = "vshmem_constructs{kind=\"shm\",owner=\"own\"}";
    assert_eq!((a_says(constructs), a_says("vshmem_attachments")), (0, 0));
    let free = a_says("vshmem_grant_pages{state=\"free\"}");

    let id = a.make(0x5601, 5000);
    a.ok(&format!("set {id} 0 0666"));
    a.ok(&format!("at {id} 0"));
    b.ok(&format!("at {id} 0"));
    assert_eq!((a_says(constructs), a_says("vshmem_attachments")), (1, 1));
    assert_eq!(a_says("vshmem_region_bytes{kind=\"shm\"}"), 8192);
    assert_eq!(a_says("vshmem_grant_pages{state=\"used\"}"), 2);
    assert_eq!(a_says("vshmem_grant_pages{state=\"free\"}"), free - 2);
    assert_eq!(a_says("vshmem_backend_connected"), 1);
    let of_others = "vshmem_constructs{kind=\"shm\",owner=\"other\"}";
    assert_eq!(one(&world, "b", of_others), 1);

    let none = "vshmem_errors_total{errno=\"ENOENT\"}";
    assert!(!told(&world, "b").contains_key(none));
    let gets = "vshmem_requests_total{op=\"get\"}";
    let before = one(&world, "b", gets);
    assert_eq!(b.call("get 0x5602 1 0"), Err(Errno::ENOENT));
    assert_eq!(one(&world, "b", none), 1);
    assert_eq!(one(&world, "b", gets), before + 1);
    a.make(0x5602, 1);

    assert_eq!(one(&world, "backend", "vshmem_backend_domains"), 2);
    let all = "vshmem_backend_constructs{kind=\"shm\"}";
    assert_eq!(one(&world, "backend", all), 2);
    assert_eq!(
        one(&world, "backend", "vshmem_backend_domains_gone_total"),
        0
    );
    // The owner domain dies.
    world.kill_and_wait("a");
    let lost = || one(&world, "b", "vshmem_constructs_lost_total");
    wait_until("the domain is gone", || lost() == 1);
    assert_eq!(
        one(&world, "backend", "vshmem_backend_domains_gone_total"),
        1
    );
    // And the back-end.
    world.kill_and_wait("backend");
    let connected = || one(&world, "b", "vshmem_backend_connected");
    wait_until("the link is lost", || connected() == 0);
}

#[test]
fn calls_that_no_daemon_sees_are_told_also_when_the_construct_or_the_process_is_gone() {
    let world = world();
    let (mut memory, mut sets) = (Actor::of(&world, "a"), Actor::of_sets(&world, "a"));
    let mut queues = Actor::of_queues(&world, "a");
    let mut other = Actor::of_sets(&world, "b");
    let done = |call: &str| {
        one(
            &world,
            "a",
            &format!("vshmem_calls_total{{call=\"{call}\"}}"),
        )
    };
    let all = || ["shmat", "semop", "msgsnd", "msgrcv"].map(done);
    assert_eq!(all(), [0; 4]);

    let segment = memory.make(0x5601, 4096);
    for _ in 0..3 {
        memory.ok(&format!("at {segment} 0"));
        memory.ok("dt 0");
    }
    let set = sets.ok("get 0x5602 1 03666");
    for _ in 0..5 {
        sets.ok(&format!("op {set} 0 1 0"));
    }
    // What does not succeed is not counted, and what another domain does is.
    let nowait = libc::IPC_NOWAIT;
    assert_eq!(
        sets.call(&format!("op {set} 0 0 {nowait}")),
        Err(Errno::EAGAIN)
    );
    other.ok(&format!("op {set} 0 -2 {SEM_UNDO}"));
    let queue = queues.ok("get 0x5603 03666");
    queues.ok(&format!("send {queue} 1 3 0"));
    queues.ok(&format!("send {queue} 2 3 0"));
    queues.ok(&format!("receive {queue} 3 2 0"));
    assert_eq!(all(), [3, 6, 2, 1]);

    sets.ok(&format!("ctl {set} 0 {} 0", libc::IPC_RMID));
    queues.ok(&format!("remove {queue}"));
    memory.kill();
    wait_until("the process is gone", || {
        one(&world, "a", "vshmem_clients") == 2
    });
    assert_eq!(all(), [3, 6, 2, 1]);
}

#[test]
fn waiters_wake_ups_and_what_is_done_after_deaths_are_told() {
    let world = world();
    // Only where no futex reaches the other domain is it vshmemd that wakes.
    let mut up = world.run("a", "all", "true");
    up.env(kernels::ENV, "1");
    succeed(up);
    let (mut a, mut b) = (Actor::of_sets(&world, "a"), Actor::of_sets(&world, "b"));
    let id = a.ok("get 0x501 1 03666");
    let number = |actor: &mut Actor, command: i32| actor.ok(&format!("ctl {id} 0 {command} 0"));
    let b_says = |series: &str| one(&world, "b", series);
    let waiting = "vshmem_waiters{kind=\"sem\"}";
    b.ok(&format!("op {id} 0 1 0"));
    b.ok(&format!("op {id} 0 -1 0"));
    assert_eq!((b_says(waiting), b_says("vshmem_undo_processes")), (0, 0));

    let down = format!("op {id} 0 -1 {SEM_UNDO}");
    b.send_to_sleep(&down);
    wait_until("it waits", || b_says(waiting) == 1);
    assert!(b_says("vshmem_semaphore_idle_seconds") >= 0);
    assert_eq!(b_says("vshmem_undo_processes"), 1);
    let before = b_says("vshmem_wakeups_received_total");
    a.ok(&format!("op {id} 0 1 0"));
    assert_eq!(b.answer(&down), Ok(vec![0]));
    assert_eq!(b_says("vshmem_wakeups_received_total"), before + 1);
    assert_eq!(b_says(waiting), 0);

    // It dies with what it has taken, and another one while it waits.
    assert_eq!(b_says("vshmem_undo_applied_total"), 0);
    b.kill();
    wait_until("undo is applied", || number(&mut a, GETVAL) == 1);
    assert_eq!(b_says("vshmem_undo_applied_total"), 1);
    let mut other = Actor::of_sets(&world, "b");
    other.send_to_sleep(&format!("op {id} 0 -9 0"));
    wait_until("it waits", || number(&mut a, GETNCNT) == 1);
    let cleared = "vshmem_recoveries_total{dead=\"process\"}";
    let before = b_says(cleared);
    other.kill();
    wait_until("it is cleared away", || b_says(cleared) == before + 1);
    assert_eq!(b_says("vshmem_cleanups_pending"), 0);
}

#[test]
fn refusals_of_the_policy_are_told() {
    let world = world();
    let file = world.dir().join("vshmem.toml");
    let metrics = std::fs::read_to_string(file).expect("vshmem.toml");
    let rule = "[[policy.rule]]\ndomains = \"*\"\nkeys = 7\naccess = \"read-write\"\n";
    configure(&world, &format!("{metrics}{rule}"));
    let mut a = Actor::of(&world, "a");
    let refused = || one(&world, "backend", "vshmem_policy_refusals_total");
    a.make(7, 1);
    assert_eq!(refused(), 0);
    let make = format!("get 8 1 {IPC_CREAT}");
    assert_eq!(a.call(&make), Err(Errno::EACCES));
    assert_eq!(refused(), 1);
    let errors = "vshmem_backend_errors_total{errno=\"EACCES\"}";
    assert_eq!(one(&world, "backend", errors), 1);
}

#[test]
fn a_loopback_address_tells_the_same_and_another_place_counts_from_the_next_reload() {
    let world = World::new();
    configure(&world, "[metrics]\nlisten = \"127.0.0.1:0\"\n");
    world.up("a");
    let log = || std::fs::read_to_string(world.dir().join("a.log")).unwrap_or_default();
    let place = log();
    let place = place.split("http://").nth(1).expect("the place");
    let address = place.split("/metrics").next().expect("an address");
    let connect = || TcpStream::connect(address);
    let over_tcp = || get(connect().expect("connect"));
    let constructs = "vshmem_constructs{kind=\"shm\",owner=\"own\"}";
    assert_eq!(over_tcp()[constructs], 0);
    Actor::of(&world, "a").make(0x5603, 1);
    assert_eq!(over_tcp()[constructs], 1);

    let socket = socket(&world, "a");
    let text = format!("[metrics]\nlisten = \"unix:{}\"\n", socket.display());
    configure(&world, &text);
    world.kill("a", Signal::SIGHUP);
    wait_until("it listens elsewhere", || {
        UnixStream::connect(&socket).is_ok()
    });
    assert_eq!(one(&world, "a", constructs), 1);
    assert!(connect().is_err());

    configure(&world, "");
    world.kill("a", Signal::SIGHUP);
    wait_until("it listens nowhere", || !socket.exists());
}

#[test]
fn an_address_that_other_machines_reach_keeps_a_daemon_from_starting() {
    let world = World::new();
    configure(&world, "[metrics]\nlisten = \"0.0.0.0:9464\"\n");
    let mut daemon = Command::new(bin("vshmemd"));
    daemon.arg("--backend").arg("--dir").arg(world.dir());
    let output = daemon.output().expect("vshmemd");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{said}");
    assert!(
        said.contains("vshmem.toml:2:10: `0.0.0.0` can be reached from other machines"),
        "{said}"
    );
}
