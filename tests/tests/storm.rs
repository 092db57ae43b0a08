// SPDX-License-Identifier: MIT OR Apache-2.0
//! Clients of two domains that attach, detach, remove and fork at random and are killed at
//! random moments: in the end nothing of them is left.

use nix::sys::signal::{Signal, kill, killpg};
use nix::unistd::Pid;
use std::os::unix::process::CommandExt;
use std::process::Child;
use std::time::Duration;
use vshmem_tests::actor::Actor;
use vshmem_tests::program::{descriptors, segments};
use vshmem_tests::{World, cc, wait_until};

const WORKERS: usize = 10;
const KILLS: u64 = 400;

#[test]
fn clients_killed_at_random_leave_nothing_behind() {
    let world = World::new();
    let (mut a, mut b) = (Actor::of(&world, "a"), Actor::of(&world, "b"));
    a.ok("list");
    b.ok("list");
    let pids = ["a", "b", "backend"].map(|name| world.pid(name));
    let open = || pids.map(|pid| descriptors(pid).len());
    let before = open();
    let said = tempfile::NamedTempFile::new().expect("temporary file");
    let program = cc("storm");
    let start = |seed: u64| {
        let mut command = world.preload(["a", "b"][seed as usize % 2], "all", &program);
        let stderr = std::fs::OpenOptions::new().append(true).open(said.path());
        command.arg(seed.to_string()).process_group(0);
        command.stderr(stderr.expect("stderr"));
        command.spawn().expect("storm")
    };
    let mut workers: Vec<Child> = (0..WORKERS as u64).map(start).collect();
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    for seed in 0..KILLS {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        std::thread::sleep(Duration::from_micros(state >> 20 & 0x3fff));
        let victim = &mut workers[(state >> 8) as usize % WORKERS];
        end(victim, state & 1 == 0);
        *victim = start(WORKERS as u64 + seed);
    }
    for worker in &mut workers {
        end(worker, true);
    }
    let said = std::fs::read_to_string(said.path()).expect("stderr");
    assert_eq!(said, "");

    wait_until("nothing is attached", || {
        segments(&world, "a").iter().all(|s| s.nattch == 0)
    });
    for segment in segments(&world, "b") {
        // A removed one with nothing attached would have had to go.
        assert_eq!(segment.status, "-", "{segment:?}");
        a.ok(&format!("rm {}", segment.id));
    }
    assert_eq!(segments(&world, "a"), []);
    assert_eq!(segments(&world, "b"), []);
    wait_until("descriptors are not more than before", || {
        open()
            .iter()
            .zip(before)
            .all(|(now, before)| *now <= before)
    });
    assert_eq!(["a", "b", "backend"].map(|name| world.pid(name)), pids);
    // And it all still works.
    let id = b.make(0x701, 4096);
    a.ok(&format!("at {id} 0"));
    assert_eq!(b.nattch(id), 1);
}

/// Kills a worker, with its children or first alone, so that they lose their parent.
fn end(worker: &mut Child, children_too: bool) {
    let pid = Pid::from_raw(worker.id().cast_signed());
    if !children_too {
        kill(pid, Signal::SIGKILL).expect("kill");
        std::thread::sleep(Duration::from_millis(1));
    }
    // None left of the group is fine.
    let _ = killpg(pid, Signal::SIGKILL);
    worker.wait().expect("wait");
}
