// SPDX-License-Identifier: MIT OR Apache-2.0
//! `guest_agent`: starts programs in a guest for tests that run in another one
//! ([`vshmem_tests::guests`]).

use std::process::ExitCode;
use vshmem_tests::guests::{Program, agent, exec};

const USAGE: &str =
    "usage: guest_agent serve | guest_agent exec HOST [NAME=VALUE...] -- PROGRAM [ARGS...]";

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match args.first().map(String::as_str) {
        Some("serve") if args.len() == 1 => match agent::serve() {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => {
                eprintln!("guest_agent: {error}");
                ExitCode::FAILURE
            }
        },
        Some("exec") => {
            let dashes = args.iter().position(|arg| arg == "--");
            let (Some(host), Some(dashes)) = (args.get(1), dashes) else {
                return usage();
            };
            let set = |arg: &String| {
                let (name, value) = arg.split_once('=')?;
                Some((name.to_owned(), value.to_owned()))
            };
            let env: Option<Vec<_>> = args[2..dashes].iter().map(set).collect();
            let argv = args[dashes + 1..].to_vec();
            match env {
                Some(env) if !argv.is_empty() => exec::exec(host, Program { argv, env }),
                _ => usage(),
            }
        }
        _ => usage(),
    }
}

fn usage() -> ExitCode {
    eprintln!("{USAGE}");
    ExitCode::from(2)
}
