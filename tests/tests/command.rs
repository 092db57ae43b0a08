// SPDX-License-Identifier: MIT OR Apache-2.0
//! `vshmem run` and `vshmem down`: whose exit status, signals and stdin a run has, what starts
//! and stops, and in which world.

use nix::errno::Errno;
use nix::sys::signal::Signal;
use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::process::{Command, Stdio};
use vshmem_tests::actor::Actor;
use vshmem_tests::program::{run_to_end, succeed_silently};
use vshmem_tests::{World, stdout_of, wait_until};

fn sh(world: &World, script: &str) -> Command {
    let mut command = world.run("a", "all", "sh");
    command.args(["-c", script]);
    command
}

#[test]
fn a_run_ends_as_its_command_does() {
    let world = World::new();
    for code in [0, 7, 255] {
        let ended = run_to_end(sh(&world, &format!("exit {code}")));
        assert_eq!(ended.status.code(), Some(code));
        assert_eq!(ended.stderr, "");
    }
    for signal in [Signal::SIGKILL, Signal::SIGTERM, Signal::SIGPIPE] {
        let ended = run_to_end(sh(&world, &format!("kill -{} $$", signal as i32)));
        assert_eq!(ended.status.signal(), Some(signal as i32));
    }
}

#[test]
fn a_run_becomes_its_command() {
    let world = World::new();
    let mut command = sh(
        &world,
        "echo $$; read line; echo \"$line\"; printf '%s|' \"$@\"",
    );
    command.args(["sh", "two words", "", "--domain", "*"]);
    let mut child = command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("vshmem run");
    let mut stdin = child.stdin.take().expect("stdin");
    stdin.write_all(b"hello\n").expect("write");
    let pid = child.id();
    let output = child.wait_with_output().expect("wait");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    assert_eq!(text, format!("{pid}\nhello\ntwo words||--domain|*|"));
}

#[test]
fn the_signal_mask_and_ignored_signals_reach_the_command_as_they_were() {
    let world = World::new();
    world.up("a");
    let script = "trap '' USR1; exec \"$@\"";
    let show = ["grep", "^Sig[BI]", "/proc/self/status"];
    let mut native = Command::new("sh");
    native.args(["-c", script, "sh"]).args(show);
    let mut routed = Command::new("sh");
    let run = world.run("a", "all", show[0]);
    routed
        .args(["-c", script, "sh"])
        .arg(run.get_program())
        .args(run.get_args())
        .args(&show[1..])
        .env("VSHMEM_DIR", world.dir());
    assert_eq!(succeed_silently(routed), succeed_silently(native));
}

#[test]
fn a_command_that_cannot_be_run_is_named() {
    let world = World::new();
    for (program, status) in [("/no/such/program", 127), ("/etc/passwd", 126)] {
        let ended = run_to_end(world.run("a", "all", program));
        assert_eq!(ended.status.code(), Some(status));
        assert!(ended.stderr.contains(program), "{ended:?}");
    }
}

#[test]
fn down_refuses_while_clients_are_there_and_says_so() {
    let world = World::new();
    let mut client = Actor::of(&world, "a");
    let id = client.make(0x301, 4096);
    client.ok(&format!("at {id} 0"));
    for args in [&["down", "--domain", "a"][..], &["down", "--all"]] {
        let ended = run_to_end(world.vshmem(args));
        assert!(!ended.status.success(), "{ended:?}");
        assert!(ended.stderr.contains("--force"), "{ended:?}");
        assert!(ended.stderr.contains('1'), "{ended:?}");
    }
    assert_eq!(client.nattch(id), 1);
    let daemon = world.pid("a");
    let ended = run_to_end(world.vshmem(&["down", "--domain", "a", "--force"]));
    assert!(ended.status.success(), "{ended:?}");
    gone(daemon);
    assert_eq!(client.ok("poke 0 0 1"), 0);
    assert_eq!(client.call("get 0x302 4096 01600"), Err(Errno::ENODEV));
    let backend = world.pid("backend");
    run_to_end(world.vshmem(&["down", "--all"]));
    gone(backend);
}

fn gone(pid: i32) {
    wait_until("the daemon is gone", || {
        match std::fs::read_to_string(format!("/proc/{pid}/stat")) {
            Ok(stat) => stat.contains(") Z"),
            Err(_) => true,
        }
    });
}

#[test]
fn down_with_nothing_running_is_no_failure() {
    let world = World::new();
    for args in [
        &["down"][..],
        &["down", "--all"],
        &["down", "--domain", "x"],
        &["down", "--all", "--force"],
    ] {
        let ended = run_to_end(world.vshmem(args));
        assert!(ended.status.success(), "{args:?}: {ended:?}");
        assert!(ended.stdout.lines().count() == 1, "{args:?}: {ended:?}");
    }
}

#[test]
fn down_leaves_no_socket_and_no_pid_file() {
    let world = World::new();
    world.up("a");
    world.up("b");
    let ended = run_to_end(world.vshmem(&["down", "--domain", "a"]));
    assert!(ended.status.success(), "{ended:?}");
    assert!(!world.dir().join("a.sock").exists() && !world.dir().join("a.pid").exists());
    assert!(world.dir().join("b.sock").exists() && world.dir().join("backend.sock").exists());
    let mut b = Actor::of(&world, "b");
    b.make(0x303, 4096);
    b.kill();
    let ended = run_to_end(world.vshmem(&["down", "--all"]));
    assert!(ended.status.success(), "{ended:?}");
    for name in ["b.sock", "b.pid", "backend.sock", "backend.pid"] {
        assert!(!world.dir().join(name).exists(), "{name}");
    }
}

#[test]
fn two_directories_are_two_worlds() {
    let (one, two) = (World::new(), World::new());
    let (mut a, mut b) = (Actor::of(&one, "a"), Actor::of(&two, "a"));
    let first = a.make(0x304, 4096);
    assert_eq!(b.call("get 0x304 4096 0"), Err(Errno::ENOENT));
    let second = b.make(0x304, 8192);
    assert_eq!(b.stat(first), Err(Errno::EINVAL));
    assert_eq!(a.stat(second), Err(Errno::EINVAL));
    let mut list = two.vshmem(&["ls"]);
    list.arg("--dir").arg(one.dir());
    let list = stdout_of(list);
    assert!(list.contains(&first.to_string()) && !list.contains(&second.to_string()));
}

/// A segment made in domain a is found in b: both daemons are enrolled at one back-end.
fn works(world: &World) {
    let (mut a, mut b) = (Actor::of(world, "a"), Actor::of(world, "b"));
    let id = a.make(0x306, 4096);
    a.ok(&format!("at {id} 0"));
    b.ok(&format!("at {id} 0"));
    assert_eq!((a.nattch(id), b.nattch(id)), (2, 2));
    assert_eq!((a.said(), b.said()), (String::new(), String::new()));
}

#[test]
fn a_run_after_daemons_were_killed_starts_new_ones() {
    for killed in [
        &["a"][..],
        &["backend"],
        &["backend", "a"],
        &["a", "backend"],
    ] {
        let world = World::new();
        world.up("a");
        for name in killed {
            world.kill_and_wait(name);
        }
        works(&world);
    }
    // With clients in it, a domain whose own daemon was killed starts anew as well.
    let world = World::new();
    let mut client = Actor::of(&world, "a");
    client.make(0x305, 4096);
    world.kill_and_wait("a");
    works(&world);
}

#[test]
fn a_run_in_a_domain_that_lost_its_back_end_under_clients_says_what_to_do() {
    let world = World::new();
    let mut client = Actor::of(&world, "a");
    let id = client.make(0x305, 4096);
    client.ok(&format!("at {id} 0"));
    world.kill_and_wait("backend");
    let ended = run_to_end(world.run("a", "all", "true"));
    assert!(!ended.status.success(), "{ended:?}");
    assert!(ended.stderr.contains("back-end"), "{ended:?}");
    assert!(ended.stderr.contains("--force"), "{ended:?}");
    assert_eq!(client.ok("poke 0 0 1"), 0);
    let ended = run_to_end(world.vshmem(&["down", "--domain", "a", "--force"]));
    assert!(ended.status.success(), "{ended:?}");
    works(&world);
}

#[test]
fn stale_files_of_another_process_do_not_stop_a_run() {
    let world = World::new();
    // Pids that exist and are not ours, as after a reboot.
    for name in ["backend", "a"] {
        std::fs::write(world.dir().join(format!("{name}.pid")), "1\n").expect("pid file");
        std::fs::write(world.dir().join(format!("{name}.sock")), "").expect("socket");
    }
    Actor::of(&world, "a").make(0x307, 4096);
    assert_ne!(world.pid("a"), 1);
}

#[test]
fn runs_at_the_same_time_start_each_daemon_once() {
    let world = World::new();
    let runs: Vec<_> = (0..16)
        .map(|n| {
            let mut command = world.run(["a", "b"][n % 2], "all", "true");
            command.stderr(Stdio::piped()).spawn().expect("vshmem run")
        })
        .collect();
    for run in runs {
        let output = run.wait_with_output().expect("wait");
        assert!(output.status.success(), "{output:?}");
        assert!(output.stderr.is_empty(), "{output:?}");
    }
    let dir = world.dir().to_str().expect("UTF-8");
    let mut daemons: Vec<_> = std::fs::read_dir("/proc")
        .expect("/proc")
        .flatten()
        .filter_map(|entry| std::fs::read_to_string(entry.path().join("cmdline")).ok())
        .filter(|line| line.contains("vshmemd") && line.contains(dir))
        .map(|line| match line.contains("--backend") {
            true => "backend".to_owned(),
            false => line.split('\0').nth(2).expect("domain").to_owned(),
        })
        .collect();
    daemons.sort();
    assert_eq!(daemons, ["a", "b", "backend"]);
}
