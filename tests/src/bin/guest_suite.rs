// SPDX-License-Identifier: MIT OR Apache-2.0
//! `guest_suite run ADDRESS ADDRESS ADDRESS [FILTER]`: runs the tests between guests, or those that FILTER
//! chooses by their names, in dom0 of the lab, whose first three guests have these addresses and an agent
//! each. Prints a line for each test and last their sum, as cargo's tests do. `guest_suite programs DIR` puts all programs of `tests/c` into a directory, for guests,
//! in which there is no compiler.

use std::process::ExitCode;
use vshmem_tests::guests::suite;

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.split_first().map(|(verb, rest)| (verb.as_str(), rest)) {
        Some(("run", [first, second, third, filter @ ..])) if filter.len() < 2 => {
            let hosts = [first, second, third].map(String::clone);
            suite::run(hosts, filter.first().cloned())
        }
        Some(("programs", [dir])) => {
            suite::put_programs(dir.as_ref());
            ExitCode::SUCCESS
        }
        _ => {
            eprintln!(
                "usage: guest_suite run ADDRESS ADDRESS ADDRESS [FILTER] | guest_suite programs DIR"
            );
            ExitCode::from(2)
        }
    }
}
