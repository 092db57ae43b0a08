// SPDX-License-Identifier: MIT OR Apache-2.0
//! The tests that come with the Python package `sysv_ipc`, run natively and routed.
//!
//! They are somebody else's idea of what System V IPC does, so they find what our own tests
//! forget. The package is fetched from PyPI by its hash and built in a virtual environment below
//! `target/`; nothing in it is changed.

use serde_json::Value;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::LazyLock;
use vshmem_abi::ids::may_be_routed;
use vshmem_tests::{World, root, stdout_of};

const NAME: &str = "sysv_ipc-1.2.0";
const REQUIREMENT: &str = "sysv_ipc==1.2.0 \
     --hash=sha256:ef96ab33bb62e4d14142f0be0524dcc0c3c70c96442df2fc773c67b7c7514199\n";

/// An interpreter that has the package, and the package's tests.
struct Package {
    python: PathBuf,
    source: PathBuf,
}

static PACKAGE: LazyLock<Package> = LazyLock::new(prepare);

/// Fetches and builds the package, once: `target/` keeps it.
fn prepare() -> Package {
    let dir = root().join("target").join(NAME);
    std::fs::create_dir_all(&dir).expect("target directory");
    let done = dir.join("done");
    let package = Package {
        python: dir.join("venv/bin/python"),
        source: dir.join(NAME),
    };
    // Two test runs in one checkout must not build in one place at the same time.
    let lock = File::create(dir.join("lock")).expect("lock file");
    lock.lock().expect("lock");
    if !done.exists() {
        build(&dir, &package);
        File::create(&done).expect("mark of the finished build");
    }
    package
}

fn build(dir: &Path, package: &Package) {
    let requirements = dir.join("requirements.txt");
    std::fs::write(&requirements, REQUIREMENT).expect("requirements.txt");
    step(
        Command::new("python3")
            .args(["-m", "venv", "--clear"])
            .arg(dir.join("venv")),
        "it needs the packages python3-venv and python3-dev",
    );
    let pip = || {
        let mut pip = Command::new(&package.python);
        pip.args(["-m", "pip", "--disable-pip-version-check", "--quiet"]);
        pip
    };
    step(
        pip()
            .args(["download", "--no-deps", "--no-binary", "sysv_ipc", "--dest"])
            .arg(dir)
            .arg("--requirement")
            .arg(&requirements),
        "it needs access to PyPI",
    );
    let archive = dir.join(format!("{NAME}.tar.gz"));
    step(
        Command::new("tar")
            .arg("-xzf")
            .arg(&archive)
            .arg("-C")
            .arg(dir),
        "it needs tar",
    );
    step(
        pip().args(["install", "--no-deps"]).arg(&archive),
        "it needs gcc, Python's header files (python3-dev) and access to PyPI",
    );
}

/// One step of the build. There is no skipping: what is missing is said.
fn step(command: &mut Command, needs: &str) {
    let output = command
        .output()
        .unwrap_or_else(|e| panic!("{command:?}: {e}; {needs}"));
    assert!(
        output.status.success(),
        "{command:?}: {}; {needs}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

/// Gives a command what it needs to run one part of the package's tests.
fn with_part(mut command: Command, part: &str) -> Command {
    command
        .arg(root().join("tests/tests/sysv_ipc_part.py"))
        .arg(part)
        .current_dir(&PACKAGE.source);
    command
}

fn report_of(command: Command) -> Value {
    serde_json::from_str(&stdout_of(command)).expect("the report is JSON")
}

/// Runs one part natively, then routed, and checks that each ran `count` tests of which only
/// `skipped` were skipped, and on whose constructs.
fn natively_then_routed(part: &str, count: u64, skipped: &[&str]) {
    let native = report_of(with_part(Command::new(&PACKAGE.python), part));
    let world = World::new();
    let routed = report_of(with_part(
        world.run("main", "all,private", &PACKAGE.python),
        part,
    ));
    for (report, by_kernel) in [(&native, true), (&routed, false)] {
        assert_eq!(report["ran"], count, "{report}");
        let list = |name: &str| report[name].as_array().expect("a list").clone();
        assert!(list("failed").is_empty(), "{report}");
        let skips = list("skipped");
        let names = skips
            .iter()
            .filter_map(|test| test.as_str()?.split(' ').next());
        assert!(names.eq(skipped.iter().copied()), "{report}");
        let made = list("made");
        assert!((made.len() + skipped.len()) as u64 >= count, "{report}");
        for construct in made {
            assert_eq!(construct["kernel"], by_kernel, "{construct}");
            let id = construct["id"].as_i64().expect("an id") as i32;
            assert!(by_kernel || may_be_routed(id), "{construct}");
        }
    }
}

#[test]
fn all_50_tests_of_the_memory_part_pass_routed_as_they_do_natively() {
    natively_then_routed("memory", 50, &[]);
}

#[test]
fn all_42_tests_of_the_semaphore_part_pass_routed_as_they_do_natively() {
    natively_then_routed("semaphores", 42, &[]);
}

/// The test that skips itself on Linux is about what `msgrcv` does with negative types there.
#[test]
fn all_34_tests_of_the_queue_part_but_one_that_is_not_for_linux_pass_routed_as_they_do_natively() {
    let not_for_linux = ["test_message_type_receive_specific_order"];
    natively_then_routed("message_queues", 34, &not_for_linux);
}
