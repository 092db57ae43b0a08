// SPDX-License-Identifier: MIT OR Apache-2.0
//! stress-ng's stressor of semaphore sets, routed, for a minute, with its own verification.

use std::process::{Command, Stdio};
use vshmem_tests::program::succeed_silently;
use vshmem_tests::{World, wait_until};

/// The lines of `vshmem ls` but for the headings.
fn listed(world: &World) -> Vec<String> {
    let text = succeed_silently(world.vshmem(&["ls", "--domain", "a"]));
    text.lines().skip(1).map(str::to_owned).collect()
}

/// Operations that a run counted: the second number of the line of the stressor.
fn operations(said: &str) -> u64 {
    let line = said
        .lines()
        .find(|line| line.contains("metrc") && line.contains(" sem-sysv "));
    let words = line.and_then(|line| line.split(" sem-sysv ").nth(1));
    let number = words.and_then(|words| words.split_whitespace().next());
    let number = number.and_then(|number| number.parse().ok());
    number.unwrap_or_else(|| panic!("no metrics in\n{said}"))
}

#[test]
fn stress_ng_verifies_routed_sets_for_a_minute() {
    let world = World::new();
    world.up("a");
    let mut command: Command = world.run("a", "all,private", "stress-ng");
    command.args(["--sem-sysv", "4", "--verify", "--timeout", "60s"]);
    command.args(["--metrics-brief", "--no-rand-seed"]);
    let child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("stress-ng runs");
    wait_until("its sets are ours", || !listed(&world).is_empty());
    let output = child.wait_with_output().expect("wait");
    let said = [output.stdout, output.stderr]
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .concat();
    assert!(output.status.success(), "{}\n{said}", output.status);
    assert!(said.contains("successful run completed"), "{said}");
    assert!(!said.contains("fail"), "{said}");
    assert!(operations(&said) > 0, "{said}");
    assert_eq!(listed(&world), [""; 0], "{said}");
}
