// SPDX-License-Identifier: MIT OR Apache-2.0
//! The example of two containers that share one directory, as `examples/containers/run` makes them.

use std::process::Command;
use vshmem_tests::program::is_root;
use vshmem_tests::{bin, root, stdout_of, succeed};

/// What one of the containers said.
fn said<'a>(text: &'a str, who: &str) -> Vec<&'a str> {
    let lines = text.lines().filter_map(|line| line.split_once('|'));
    let own = lines.filter(|(name, _)| name.trim() == who);
    own.map(|(_, line)| line.trim()).collect()
}

#[test]
fn programs_of_two_containers_meet_by_a_key_with_nothing_but_a_directory_in_common() {
    if !is_root() {
        return;
    }
    let programs = root().join("dwarfs-c");
    let mut make = Command::new("make");
    make.arg("-sC").arg(&programs).args(["hello", "semsync"]);
    succeed(make);
    let mut run = Command::new(root().join("examples/containers/run"));
    run.env(
        "VSHMEM_BIN_DIR",
        bin("vshmem").parent().expect("a directory"),
    );
    run.env("PROGRAMS", &programs);
    let text = stdout_of(run);
    let (alpha, beta) = (said(&text, "alpha"), said(&text, "beta"));
    // Namespaces of IPC and network.
    let own = std::fs::read_link("/proc/self/ns/ipc").expect("a namespace");
    assert!(
        alpha[0].starts_with("ipc ipc:[") && alpha[0] != beta[0],
        "{text}"
    );
    assert!(!text.contains(&own.display().to_string()), "{text}");
    for container in [&alpha, &beta] {
        assert_eq!(
            container[1..3],
            ["interfaces: lo", "kernel segments: 0"],
            "{text}"
        );
        assert!(
            container
                .last()
                .is_some_and(|line| line.contains("2000 turns")),
            "{text}"
        );
    }
    let has = |lines: &[&str], what: &str| lines.iter().any(|line| line.contains(what));
    assert!(
        has(&beta, "hello: shmget(0x5601): No such file or directory"),
        "{text}"
    );
    assert!(has(&beta, "saw \"greetings from pid"), "{text}");
    assert!(has(&alpha, "was answered \"thanks, pid"), "{text}");
}
