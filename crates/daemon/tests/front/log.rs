// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where the log goes, and what goes into it.

use crate::world::World;
use std::process::Command;

#[test]
fn on_the_journals_stderr_lines_have_a_priority_and_no_time() {
    let world = World::new();
    let _a = world.domain_after(
        "a",
        "export JOURNAL_STREAM=$(stat -L -c %d:%i /proc/$$/fd/2);",
    );
    let said = world.log_of("a");
    assert!(
        said.contains("\n<6> INFO vshmemd::front: serving"),
        "{said}"
    );
    let _b = world.domain_after("b", "export JOURNAL_STREAM=1:1;");
    let said = world.log_of("b");
    assert!(said.contains("INFO vshmemd::front: serving"), "{said}");
    assert!(!said.contains('<') && said.starts_with("20"), "{said}");
}

#[test]
fn the_option_comes_before_the_variable_and_a_word_that_is_no_level_is_refused() {
    let vshmemd = || Command::new(env!("CARGO_BIN_EXE_vshmemd"));
    let dir = tempfile::tempdir().unwrap();
    let run = |args: &[&str], variable: &str| {
        let mut command = vshmemd();
        command.args(args).arg("--check-config").arg("--dir");
        command.arg(dir.path()).env("VSHMEM_LOG", variable);
        command.output().unwrap()
    };
    assert!(run(&[], "warn").status.success());
    let refused = run(&[], "inof");
    assert_eq!(refused.status.code(), Some(2));
    let said = String::from_utf8(refused.stderr).unwrap();
    assert!(
        said.contains("'inof' is no level: say error, warn"),
        "{said}"
    );
    assert!(run(&["--log", "info"], "inof").status.success());
}
