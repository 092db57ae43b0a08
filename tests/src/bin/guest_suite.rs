// SPDX-License-Identifier: MIT OR Apache-2.0
//! `guest_suite ADDRESS ADDRESS ADDRESS`: runs the tests between guests, in dom0 of the lab, whose first
//! three guests have these addresses and an agent each. Prints a line for each test and last their sum, as
//! cargo's tests do.

use std::process::ExitCode;
use vshmem_tests::guests::suite;

fn main() -> ExitCode {
    let hosts: Vec<String> = std::env::args().skip(1).collect();
    match <[String; 3]>::try_from(hosts) {
        Ok(hosts) => suite::run(hosts),
        Err(_) => {
            eprintln!("usage: guest_suite ADDRESS ADDRESS ADDRESS, of dom1, dom2 and dom3");
            ExitCode::from(2)
        }
    }
}
