// SPDX-License-Identifier: MIT OR Apache-2.0
//! Daemons that are killed, told to stop, started twice, or run out of descriptors.

use crate::world::{Client, World, ask, own_ids, request, wait_until};
use rustix::process::Signal;
use std::os::fd::AsFd;
use std::process::Command;
use vshmem_abi::paths;
use vshmem_abi::wire::{Meta, Op, Reply, Request};
use vshmem_engine::directory::writer_lives;

const KEY: i32 = 0x5600_0001;
const CREAT: i32 = libc::IPC_CREAT;

#[test]
fn without_a_back_end_what_is_known_goes_on_and_all_else_is_enodev() {
    let mut world = World::new();
    let _a = world.domain("a");
    let a = world.client("a");
    let (made, _) = a.get(KEY, 100, CREAT | 0o600).unwrap();
    world.back.signal(Signal::KILL);
    world.back.wait();
    assert_eq!(a.get(KEY + 1, 1, CREAT).unwrap_err(), libc::ENODEV);
    assert_eq!(a.about(Op::Remove, made.id).unwrap_err(), libc::ENODEV);
    assert_eq!(a.about(Op::Find, made.id + 1).unwrap_err(), libc::ENODEV);
    assert_eq!(a.get(KEY, 100, 0).unwrap().0.id, made.id);
    assert!(
        a.directory_has(KEY),
        "a remove that failed has removed nothing"
    );
    a.open(made.id, 0o600).unwrap();
    assert_eq!(a.stat(made.id).unwrap().meta, made);
    world.client("a");
    assert!(world.log("--domain_a").contains("the back-end is gone"));
}

#[test]
fn segments_of_a_domain_that_died_are_lost_to_the_others() {
    let world = World::new();
    let (mut a, _b) = (world.domain("a"), world.domain("b"));
    let (in_a, b) = (world.client("a"), world.client("b"));
    let (made, _) = in_a.get(KEY, 100, CREAT | 0o600).unwrap();
    b.get(KEY, 100, 0).unwrap();
    a.signal(Signal::KILL);
    a.wait();
    assert!(!writer_lives(in_a.directory));
    wait_until("the segment is lost", || {
        b.stat(made.id).is_err_and(|errno| errno == libc::EIDRM)
    });
    assert_eq!(b.open(made.id, 0o600).unwrap_err(), libc::EIDRM);
    assert_eq!(b.about(Op::Remove, made.id).unwrap_err(), libc::EIDRM);
    // Its key is free at once.
    let (again, _) = b.get(KEY, 1, CREAT | libc::IPC_EXCL | 0o600).unwrap();
    assert_ne!(again.id, made.id);
}

#[test]
fn a_client_of_an_earlier_run_is_taken_in_and_the_log_says_what_is_gone() {
    let world = World::new();
    let mut a = world.domain("a");
    let first = world.client("a");
    let (made, _) = first.get(KEY, 100, CREAT | 0o600).unwrap();
    a.signal(Signal::KILL);
    a.wait();
    let _again = world.domain("a");
    let second = Client::hello(world.connect("a"), first.welcome.generation).unwrap();
    assert_ne!(second.welcome.generation, first.welcome.generation);
    assert_ne!(second.welcome.domid, first.welcome.domid);
    assert_eq!(second.about(Op::Stat, made.id).unwrap_err(), libc::EINVAL);
    assert_eq!(second.get(KEY, 1, 0).unwrap_err(), libc::ENOENT);
    assert!(world.log("--domain_a").contains("earlier run"));
}

fn shutdown(world: &World, arg: u32, uid: u32) -> Reply {
    let socket = world.connect("a");
    let mut ids = own_ids();
    ids.uid = rustix::process::Uid::from_raw(uid);
    let stop = Request {
        kind: 0,
        arg,
        ..request(Op::Shutdown)
    };
    ask(socket.as_fd(), &stop, ids).unwrap().0
}

#[test]
fn a_domain_with_clients_stops_only_when_forced() {
    let world = World::new();
    let mut a = world.domain("a");
    let uid = rustix::process::geteuid().as_raw();
    let client = world.client("a");
    let refused = shutdown(&world, 0, uid);
    assert_eq!((refused.errno, refused.value), (libc::EBUSY, 1));
    let counted = shutdown(&world, 2, uid);
    assert_eq!((counted.errno, counted.value), (0, 1));
    if uid == 0 {
        assert_eq!(shutdown(&world, 1, 4711).errno, libc::EPERM);
    }
    let agreed = shutdown(&world, 1, uid);
    assert_eq!((agreed.errno, agreed.value), (0, 1));
    assert!(a.wait());
    assert!(!paths::domain_socket(world.dir(), "a").exists());
    drop(client);

    let mut a = world.domain("a");
    drop(world.client("a"));
    assert_eq!(
        shutdown(&world, 0, uid).errno,
        0,
        "its only client has gone"
    );
    assert!(a.wait());
}

#[test]
fn sigterm_ends_it_cleanly_and_a_second_instance_does_not_start() {
    let world = World::new();
    let mut a = world.domain("a");
    let second = Command::new(env!("CARGO_BIN_EXE_vshmemd"))
        .args(["--domain", "a", "--dir"])
        .arg(world.dir())
        .output()
        .unwrap();
    assert_eq!(second.status.code(), Some(1));
    let said = String::from_utf8(second.stderr).unwrap();
    assert!(
        said.contains(&format!("already running (pid {}", a.pid())),
        "{said}"
    );
    a.signal(Signal::TERM);
    assert!(a.wait());
    for path in [
        paths::domain_socket(world.dir(), "a"),
        paths::pid_file(world.dir(), "a"),
    ] {
        assert!(!path.exists(), "{}", path.display());
    }
}

#[test]
fn without_a_back_end_it_does_not_start_and_says_how_to_get_one() {
    let dir = tempfile::tempdir().unwrap();
    let refused = Command::new(env!("CARGO_BIN_EXE_vshmemd"))
        .args(["--domain", "a", "--dir"])
        .arg(dir.path())
        .output()
        .unwrap();
    assert_eq!(refused.status.code(), Some(1));
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(said.contains("vshmemd --backend --dir"), "{said}");
}

#[test]
fn a_daemon_out_of_descriptors_serves_who_is_there_and_recovers() {
    let world = World::new();
    let a = world.domain_after("a", "ulimit -n 40;");
    let client = world.client("a");
    let mut others = Vec::new();
    let refused = loop {
        match Client::hello(world.connect("a"), 0) {
            Ok(other) => others.push(other),
            Err(errno) => break errno,
        }
        assert!(others.len() < 40, "the limit is nowhere");
    };
    assert_eq!(refused, rustix::io::Errno::MFILE);
    let made = (0..40).map(|n| client.get(KEY + n, 1, CREAT | 0o600));
    let failed = made.filter_map(Result::err).next();
    assert_eq!(failed, Some(libc::ENFILE));
    assert!(client.about(Op::Find, 0x7fff_fff0).is_err());
    drop(others);
    wait_until("there is room for another client", || {
        Client::hello(world.connect("a"), 0).is_ok()
    });
    let again: Meta = client.get(KEY + 100, 1, CREAT | 0o600).unwrap().0;
    client.stat(again.id).unwrap();
    assert!(a.descriptors() <= 40);
}
