// SPDX-License-Identifier: MIT OR Apache-2.0
//! stress-ng's stressors of semaphore sets and message queues, routed, with their own verification.

use std::process::{Command, Stdio};
use vshmem_tests::program::succeed_silently;
use vshmem_tests::{World, wait_until};

/// The lines of `vshmem ls` but for the headings.
fn listed(world: &World) -> Vec<String> {
    let text = succeed_silently(world.vshmem(&["ls", "--domain", "a"]));
    text.lines().skip(1).map(str::to_owned).collect()
}

/// Operations that a run counted: the second number of the line of the stressor.
fn operations(said: &str, stressor: &str) -> u64 {
    let name = format!(" {stressor} ");
    let line = said
        .lines()
        .find(|line| line.contains("metrc") && line.contains(&name));
    let words = line.and_then(|line| line.split(&name).nth(1));
    let number = words.and_then(|words| words.split_whitespace().next());
    let number = number.and_then(|number| number.parse().ok());
    number.unwrap_or_else(|| panic!("no metrics in\n{said}"))
}

/// Runs four of a stressor in one domain, all of which is routed, and checks that it found nothing wrong
/// and left nothing.
fn verifies(stressor: &str, options: &[&str], time: &str) {
    let world = World::new();
    world.up("a");
    let mut command: Command = world.run("a", "all,private", "stress-ng");
    command.args([&format!("--{stressor}"), "4", "--verify", "--timeout", time]);
    command.args(["--metrics-brief", "--no-rand-seed"]);
    let child = command
        .args(options)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("stress-ng runs");
    wait_until("what it works on is ours", || !listed(&world).is_empty());
    let output = child.wait_with_output().expect("wait");
    let said = [output.stdout, output.stderr]
        .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
        .concat();
    assert!(output.status.success(), "{}\n{said}", output.status);
    assert!(said.contains("successful run completed"), "{said}");
    assert!(!said.contains("fail"), "{said}");
    assert!(operations(&said, stressor) > 0, "{said}");
    assert_eq!(listed(&world), [""; 0], "{said}");
}

#[test]
fn stress_ng_verifies_routed_sets_for_a_minute() {
    verifies("sem-sysv", &[], "60s");
}

#[test]
fn stress_ng_verifies_routed_queues_of_one_type_for_half_a_minute() {
    verifies("msg", &[], "30s");
}

#[test]
fn stress_ng_verifies_routed_queues_of_many_types_and_large_messages_for_half_a_minute() {
    verifies("msg", &["--msg-types", "8", "--msg-bytes", "4096"], "30s");
}
