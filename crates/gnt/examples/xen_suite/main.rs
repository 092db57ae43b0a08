// SPDX-License-Identifier: MIT OR Apache-2.0
//! The suite of ports, and what is particular about Xen, between real guests.
//!
//! In each domain runs `xen_suite serve`, in dom0 also `xen_suite drive N`, which waits for N domains,
//! has them do what the checks say, says how each went, and ends with `N passed, M failed` and an exit
//! status that agrees. A domain of a check is an **agent**: a process of a real domain, started for the
//! check and killed after it. Driver, servers and agents talk in text through XenStore, below each
//! domain's `data/suite`. Three domains are needed, of which dom0 may be one. How to run it is in
//! CONTRIBUTING.md, "A new port".

mod agent;
mod checks;
mod driver;
mod remote;
mod server;
mod words;

// Some of it Xen cannot do; what Xen does then is in `checks`.
#[allow(dead_code)]
#[path = "../../tests/suite/mod.rs"]
mod suite;

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    match arguments[..] {
        ["serve"] => server::run(),
        ["agent", number] => agent::run(number),
        ["drive", guests] => driver::run(guests.parse().expect("a number of domains")),
        _ => {
            eprintln!(
                "usage: xen_suite serve (in each domain) | xen_suite drive DOMAINS (in dom0)"
            );
            ExitCode::FAILURE
        }
    }
}
