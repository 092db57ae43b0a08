// SPDX-License-Identifier: MIT OR Apache-2.0
//! Many processes in four domains at the same keys at once.

use std::process::{Child, Command, Stdio};
use vshmem_tests::{World, cc, stdout_of};

const DOMAINS: [&str; 4] = ["a", "b", "c", "d"];

fn spawn(mut command: Command) -> Child {
    command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| panic!("{command:?}: {e}"))
}

/// What each wrote to stdout; all must have succeeded in silence otherwise.
fn outputs(children: Vec<Child>) -> Vec<String> {
    let outputs = children.into_iter().map(|child| {
        let output = child.wait_with_output().expect("wait");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success() && errors.is_empty(),
            "{}: {errors}",
            output.status
        );
        String::from_utf8(output.stdout).expect("UTF-8")
    });
    outputs.collect()
}

#[test]
fn one_racer_of_four_domains_creates_a_key_and_all_find_its_segment() {
    let world = World::new();
    DOMAINS.iter().for_each(|domain| world.up(domain));
    let program = cc("race_get");
    let page = tempfile::NamedTempFile::new().expect("file");
    page.as_file().set_len(4096).expect("set_len");
    let racers = 2 * DOMAINS.len();
    const ROUNDS: usize = 200;
    let children = (0..racers).map(|racer| {
        let mut command = world.preload(DOMAINS[racer % DOMAINS.len()], "all", &program);
        command.arg(page.path());
        command.args([&racers.to_string(), &ROUNDS.to_string(), "0x56002000"]);
        spawn(command)
    });
    let children = children.collect();
    let outputs = outputs(children);
    for round in 0..ROUNDS {
        let lines: Vec<Vec<&str>> = outputs
            .iter()
            .map(|text| {
                text.lines()
                    .nth(round)
                    .expect("a line")
                    .split(' ')
                    .collect()
            })
            .collect();
        let winners: Vec<_> = lines.iter().filter(|line| line[0] == "won").collect();
        assert_eq!(winners.len(), 1, "round {round}: {lines:?}");
        let id = winners[0][1];
        for line in &lines {
            assert_eq!(line.last(), Some(&id), "round {round}: {lines:?}");
            assert!(
                ["won", "EEXIST"].contains(&line[0]),
                "round {round}: {lines:?}"
            );
        }
    }
}

#[test]
fn removal_at_any_moment_neither_harms_the_attached_nor_leaves_segments_behind() {
    let world = World::new();
    DOMAINS.iter().for_each(|domain| world.up(domain));
    let program = cc("race_remove");
    let children = (0..2 * DOMAINS.len()).map(|racer| {
        let mut command = world.preload(DOMAINS[racer % DOMAINS.len()], "all", &program);
        command.args(["2000", "3", "0x56003000", &racer.to_string()]);
        spawn(command)
    });
    let children = children.collect();
    outputs(children);
    let mut left = world.vshmem(&["ls"]);
    left.args(["--domain", "a"]);
    let left = stdout_of(left);
    assert!(!left.contains("0x5600300"), "left behind:\n{left}");
}
