// SPDX-License-Identifier: MIT OR Apache-2.0
//! Daemons that are started by the first connection, on sockets that somebody else (systemd) has made.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use vshmem_tests::{World, bin, cc, stdout_of, succeed, wait_until};

/// A daemon to be, behind its socket. Ends with the test, where it did not before.
struct Activated(Child);

impl Activated {
    /// Listens on the socket `name` of the world, for `vshmemd` with `args`.
    fn listen(world: &World, name: &str, args: &[&str]) -> Self {
        let socket = world.dir().join(format!("{name}.sock"));
        let mut command = Command::new("systemd-socket-activate");
        command
            .arg("--seqpacket")
            .arg("--listen")
            .arg(&socket)
            .arg(bin("vshmemd"))
            .args(args)
            .arg("--dir")
            .arg(world.dir())
            .stdin(Stdio::null())
            .stderr(Stdio::null());
        let child = command.spawn().expect("systemd-socket-activate");
        wait_until("somebody listens", || socket.exists());
        Self(child)
    }
}

impl Drop for Activated {
    fn drop(&mut self) {
        // One that has ended needs none of it.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A world with a back-end and domains `a` and `b`, of which none runs yet.
fn world() -> (World, [Activated; 3]) {
    let world = World::new();
    let activated = [
        Activated::listen(&world, "backend", &["--backend"]),
        Activated::listen(&world, "a", &["--domain", "a"]),
        Activated::listen(&world, "b", &["--domain", "b"]),
    ];
    (world, activated)
}

fn pid_file(world: &World, name: &str) -> PathBuf {
    world.dir().join(format!("{name}.pid"))
}

#[test]
fn the_first_program_under_the_library_starts_its_domain_and_the_back_end() {
    let (world, _activated) = world();
    assert!(!pid_file(&world, "a").exists());
    let mut make = world.preload("a", "all", "ipcmk");
    make.args(["--shmem", "4096"]);
    succeed(make);
    assert!(pid_file(&world, "a").exists() && pid_file(&world, "backend").exists());
    assert!(!pid_file(&world, "b").exists());
    let mut list = world.preload("b", "all", "ipcs");
    list.arg("-m");
    assert!(stdout_of(list).contains("4096"));
    let mut remove = world.preload("b", "all,private", cc("remove_all"));
    remove.env("VSHMEM_KEYS", "all,private");
    succeed(remove);
}

#[test]
fn vshmem_run_starts_no_daemon_of_its_own_where_one_is_to_be_started_by_its_socket() {
    let (world, activated) = world();
    world.up("a");
    let [backend, domain, _] = &activated;
    // The process that listened has become the daemon.
    assert_eq!(world.pid("a"), domain.0.id().cast_signed());
    assert_eq!(world.pid("backend"), backend.0.id().cast_signed());
    let sockets = || ["backend", "a", "b"].map(|name| world.dir().join(format!("{name}.sock")));
    succeed(world.vshmem(&["down", "--all"]));
    assert!(sockets().iter().all(|socket| socket.exists()));
    assert!(!pid_file(&world, "a").exists());
}
