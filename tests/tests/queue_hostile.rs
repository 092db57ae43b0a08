// SPDX-License-Identifier: MIT OR Apache-2.0
//! A domain that writes anything anywhere into a queue's region, while another one uses the queue.

use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use vshmem_tests::program::run_to_end;
use vshmem_tests::{World, cc};

const KEY: &str = "0x5150";

/// Starts a program that says "ready".
fn ready(mut command: Command) -> Child {
    let mut child = command.stdout(Stdio::piped()).spawn().expect("spawn");
    let mut line = String::new();
    let stdout = child.stdout.as_mut().expect("stdout");
    BufReader::new(stdout).read_line(&mut line).expect("a line");
    assert_eq!(line, "ready\n");
    child
}

/// Runs victims, begun as `checker` says, one after the other beside somebody who spoils the region.
fn victims_survive(checker: &[&str], seeds: std::ops::Range<u32>, calls: &[&str]) {
    let world = World::new();
    let program = cc("msg_spoil");
    world.up("victim");
    for seed in seeds {
        let seed = seed.to_string();
        // A queue of its own each time: what is spoilt stays so.
        let key = format!("{KEY}{seed:0>3}");
        let mut maker = world.run("victim", "all", &program);
        maker.args(["victim", &key, "1", "1"]);
        vshmem_tests::succeed(maker);
        let mut spoiler = world.run("spoiler", "all", &program);
        spoiler.args(["spoil", &key, &seed]);
        let mut spoiler = ready(spoiler);
        let words = checker.iter().map(std::ffi::OsStr::new);
        let mut words = words.chain([program.as_os_str()]);
        let mut command = world.preload("victim", "all", words.next().expect("a program"));
        command
            .args(words)
            .args(["victim", &key, &seed])
            .args(calls);
        let ended = run_to_end(command);
        spoiler.kill().expect("kill");
        spoiler.wait().expect("wait");
        assert!(
            ended.status.success() && ended.stderr.is_empty(),
            "seed {seed}: {}\n{}",
            ended.status,
            ended.stderr
        );
    }
}

#[test]
fn whatever_is_written_into_a_queue_its_users_get_no_more_than_they_have_room_for_and_go_on() {
    victims_survive(&[], 1..6, &["3000", "50000"]);
}

#[test]
fn whatever_is_written_into_a_queue_nothing_outside_of_it_is_looked_at() {
    let valgrind = ["valgrind", "-q", "--error-exitcode=77", "--"];
    // Without signals: valgrind gives a handler back the mask that it had, whatever the handler has put there,
    // and one that is put off until a call of ours is done comes again at once, for ever.
    victims_survive(&valgrind, 1..6, &["1500"]);
}
