// SPDX-License-Identifier: MIT OR Apache-2.0
//! `cargo xtask lab test`: the tests between guests. Most are the test programs of the host port, started
//! in the guests by agents (`tests/src/guests`); dom0 runs the suite and says how each test went.

use super::Kind;
use super::files::{copy, fresh, more_grants, on_network};
use super::place::Place;
use crate::test::Sum;
use crate::{Result, project};
use std::path::PathBuf;
use std::process::{Command, Stdio};

/// The test programs that the suite starts in guests.
const TESTS: [&str; 9] = [
    "conformance",
    "lifecycle",
    "msg_conformance",
    "permissions",
    "queue_domains",
    "queues",
    "sem_conformance",
    "sem_domains",
    "semaphores",
];

/// Guests: two that share, and a third that is refused.
const GUESTS: usize = 3;

/// Runs the suite in guests of a kind, or what `filter` chooses by its name, in at most `limit` seconds, and adds
/// up how its tests went.
pub fn run(kind: Kind, filter: Option<&str>, limit: u32, sum: &mut Sum) -> Result<()> {
    let files = files()?;
    // The tests' users are in no group that the device could be given to.
    let agent = format!(
        "{} && chmod 666 /dev/xen/gntdev && exec /lab/guest_agent serve",
        more_grants()
    );
    let addresses: Vec<_> = (1..=GUESTS).map(|n| format!("192.0.2.1{n}")).collect();
    let filter = filter.map_or_else(String::new, |text| {
        format!(" '{}'", text.replace('\'', r"'\''"))
    });
    let suite = format!(
        "VSHMEM_BIN_DIR=/lab VSHMEM_TEST_PROGRAMS=/lab exec /lab/guest_suite run {}{filter}",
        addresses.join(" ")
    );
    let mut lab = on_network(kind, GUESTS, limit, &files)?;
    lab.args(["--dom0", &suite]);
    for guest in 1..=GUESTS {
        lab.args([&format!("--dom{guest}"), &agent]);
    }
    let ended = project::run(&mut lab);
    let log = Place::path()?.join("log/dom0.log");
    let text = std::fs::read_to_string(&log).unwrap_or_default();
    let mut own = Sum::default();
    // The suite's is the last: programs of which a test failed have shown theirs before.
    if let Some(result) = text.lines().rfind(|line| line.starts_with(Sum::RESULT)) {
        own.add(result);
    }
    println!("between {} guests: {own}", kind.word().to_uppercase());
    sum.add_all(&own);
    match ended {
        // It is said with the tests that failed.
        Err(_) if own.failed > 0 => Ok(()),
        ended => ended,
    }
}

/// Puts together what the guests need, and says where.
fn files() -> Result<PathBuf> {
    project::build()?;
    let dir = Place::path()?.join("suite");
    fresh(&dir)?;
    let bins = project::bin_dir()?;
    for name in ["vshmem", "vshmemd", "libvshmem.so"] {
        copy(&bins.join(name), &dir, name)?;
    }
    copy(&project::dwarf("hello"), &dir, "hello")?;
    for (name, path) in executables()? {
        copy(&path, &dir, &name)?;
    }
    let mut programs = Command::new(dir.join("guest_suite"));
    programs.arg("programs").arg(&dir);
    project::run(&mut programs)?;
    Ok(dir)
}

/// Builds the test programs, the agent and the suite; returns their names and where they are.
fn executables() -> Result<Vec<(String, PathBuf)>> {
    let mut build = project::cargo([
        "test",
        "--no-run",
        "--message-format=json-render-diagnostics",
    ])?;
    build.args(["-p", "vshmem-tests", "--bins"]);
    for test in TESTS {
        build.args(["--test", test]);
    }
    let output = build
        .stdout(Stdio::piped())
        .stderr(Stdio::inherit())
        .output();
    let output = output.map_err(|e| project::cannot_run(&build, &e))?;
    project::judge(&build, output.status)?;
    let text = String::from_utf8_lossy(&output.stdout);
    let built = text.lines().filter_map(|line| {
        let line: serde_json::Value = serde_json::from_str(line).ok()?;
        let executable = line.get("executable")?.as_str()?;
        let target = line.get("target")?;
        let is_test = target
            .get("kind")?
            .as_array()?
            .iter()
            .any(|kind| kind == "test");
        // Programs are built to be run, and once more to test what is in them.
        let is_run = is_test || line.get("profile")?.get("test")? == false;
        is_run.then(|| {
            (
                target["name"].as_str().unwrap_or_default().to_owned(),
                executable.into(),
            )
        })
    });
    let built: Vec<(String, PathBuf)> = built.collect();
    let wanted = TESTS.iter().chain(&["guest_agent", "guest_suite"]);
    for name in wanted {
        if !built.iter().any(|(built, _)| built == name) {
            return Err(format!("cargo has not built {name}"));
        }
    }
    Ok(built)
}
