// SPDX-License-Identifier: MIT OR Apache-2.0
//! `cargo xtask test`: all checks and tests, and their sum.

use crate::lab::{self, Kind};
use crate::{Result, deb, packages, project, silence};
use std::ffi::OsString;
use std::io::Write;
use std::process::ExitCode;
use std::time::Duration;

/// How many tests passed and failed; a check that fails, or a test program that dies, is a
/// failure as well.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Sum {
    passed: u64,
    /// Those that failed.
    pub failed: u64,
}

/// Of the tests in guests of Xen: those of two guests, and what of one guest alone emulation does in a minute. `cargo
/// xtask lab test` runs all, for hours.
const IN_GUESTS: &str = "!alone, semaphores|!alone, queues|!alone, lifecycle";

/// Seconds that these may take in guests of one kind: twice what they take in emulation, so that the rest of those
/// that hang is heard of.
const GUESTS_LIMIT: u32 = 2400;

/// Tests that print nothing for so long hang; building them takes a few minutes.
const PATIENCE: Duration = Duration::from_secs(900);

/// Runs everything, whatever of it fails; the last line printed is the sum.
pub fn test(args: &[OsString]) -> Result<ExitCode> {
    packages::provide()?;
    let mut sum = Sum::default();
    let checks = [
        project::cargo(["fmt", "--all", "--check"])?,
        project::cargo([
            "clippy",
            "--quiet",
            "--workspace",
            "--all-targets",
            "--",
            "-D",
            "warnings",
        ])?,
    ];
    for mut check in checks {
        if let Err(error) = project::run(&mut check) {
            eprintln!("xtask: {error}");
            sum.failed += 1;
        }
    }
    // Programs and the library as users have them; the tests that start them are built for
    // development, which leaves out the link-time optimization of each test program.
    project::build()?;
    // With the man pages, which are looked at for mistakes.
    if let Err(error) = deb::deb() {
        eprintln!("xtask: {error}");
        sum.failed += 1;
    }
    run_tests(args, &mut sum)?;
    // Arguments choose among cargo's tests.
    let kinds: &[Kind] = if args.is_empty() {
        &[Kind::Pv, Kind::Pvh]
    } else {
        &[]
    };
    for &kind in kinds {
        if let Err(error) = lab::test(kind, Some(IN_GUESTS), GUESTS_LIMIT, &mut sum) {
            eprintln!("xtask: {error}");
            sum.failed += 1;
        }
    }
    println!("{sum}");
    Ok(sum.status())
}

/// Runs `cargo test`, passes on what it prints, and adds up its results.
fn run_tests(args: &[OsString], sum: &mut Sum) -> Result<()> {
    let mut tests = project::cargo(["test", "--no-fail-fast"])?;
    let chosen = |arg: &OsString| arg == "-p" || arg.to_string_lossy().starts_with("--package");
    if !args.iter().any(chosen) {
        tests.arg("--workspace");
    }
    tests.args(args);
    let before = sum.failed;
    let heard = |line: &[u8]| {
        let mut out = std::io::stdout().lock();
        // A reader that went away takes nothing from the result.
        let _ = out.write_all(line).and_then(|()| out.write_all(b"\n"));
        sum.add(&String::from_utf8_lossy(line));
    };
    let hung = |process: &str| eprintln!("xtask: nothing heard for {PATIENCE:?}, ended: {process}");
    let status = silence::run(&mut tests, PATIENCE, heard, hung)?;
    if let Err(error) = project::judge(&tests, status) {
        eprintln!("xtask: {error}");
        if sum.failed == before {
            sum.failed += 1;
        }
    }
    Ok(())
}

impl std::fmt::Display for Sum {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed)
    }
}

impl Sum {
    /// Of the program that has run the tests.
    pub fn status(&self) -> ExitCode {
        match self.failed {
            0 => ExitCode::SUCCESS,
            _ => ExitCode::FAILURE,
        }
    }

    /// How a line begins that tells results.
    pub const RESULT: &str = "test result: ";

    /// Adds what somebody else has summed up.
    pub fn add_all(&mut self, other: &Self) {
        self.passed += other.passed;
        self.failed += other.failed;
    }

    /// Adds a line of the test runner, if it is one of
    /// `test result: ok. 12 passed; 0 failed; ...`.
    pub fn add(&mut self, line: &str) {
        let Some(result) = line.strip_prefix(Self::RESULT) else {
            return;
        };
        let number = |word: &str| -> Option<u64> {
            let before = result.split(word).next()?;
            before.split_whitespace().next_back()?.parse().ok()
        };
        self.passed += number(" passed;").unwrap_or(0);
        self.failed += number(" failed;").unwrap_or(0);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn results_of_all_test_programs_are_added_up() {
        let mut sum = Sum::default();
        for line in [
            "test result: ok. 12 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out; \
             finished in 0.01s",
            "test a_test ... ok",
            "test result: FAILED. 3 passed; 2 failed; 0 ignored; 0 measured; 0 filtered out",
        ] {
            sum.add(line);
        }
        let want = Sum {
            passed: 15,
            failed: 2,
        };
        assert_eq!(sum, want);
    }
}
