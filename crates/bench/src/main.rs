// SPDX-License-Identifier: MIT OR Apache-2.0
//! `vshmem-bench`: what routed calls cost beside the kernel's own.
//!
//! Each case is one unmodified C program, run natively and under `vshmem run` by turns, so that
//! whatever the machine does besides hits both alike. Ratios are of such pairs. Times never make
//! it fail: it says which goals are met, and writes every sample to a file of JSON.

mod cases;
mod measure;
mod report;

use clap::Parser;
use measure::Effort;
use std::path::PathBuf;
use std::process::ExitCode;
use vshmem_bench::{Result, world};

/// Measures routed calls beside the kernel's own
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    /// Few and short runs: shows that it works, not how fast it is
    #[arg(long)]
    quick: bool,

    /// Where to write all samples [default: bench/vshmem.json in the target directory]
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,

    /// Measure only the cases whose name begins with NAME
    #[arg(long, value_name = "NAME", default_value = "")]
    only: String,

    /// Pairs of runs of each case
    #[arg(long, value_name = "N", default_value_t = 15)]
    pairs: usize,

    /// Print the names of the cases and what they measure
    #[arg(long)]
    list: bool,
}

fn main() -> ExitCode {
    match bench(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("vshmem-bench: {error}");
            ExitCode::FAILURE
        }
    }
}

fn bench(args: &Args) -> Result<()> {
    let cases: Vec<_> = cases::all()
        .into_iter()
        .filter(|case| case.name.starts_with(&args.only))
        .collect();
    if cases.is_empty() {
        return Err(format!("no case begins with '{}' (see --list)", args.only).into());
    }
    if args.list {
        for case in &cases {
            println!("{:<24} {}", case.name, case.what);
        }
        return Ok(());
    }
    let effort = if args.quick {
        Effort::QUICK
    } else {
        Effort {
            pairs: args.pairs.max(1),
            ..Effort::FULL
        }
    };
    let bench = world::Bench::new()?;
    for program in ["worker", "semaphores", "queues"] {
        bench.compile(program)?;
    }
    bench.make("basic")?;
    let json = match &args.json {
        Some(path) => path.clone(),
        None => world::target_dir()?.join("bench/vshmem.json"),
    };
    let mut report = report::Report::new(args.quick, effort.pairs);
    println!("{}", report.head());
    println!("{}", report::header());
    for case in &cases {
        for &pinning in case.pinnings {
            if !bench.can(pinning) {
                eprintln!(
                    "{} is not measured on {pinning}: this machine has one core",
                    case.name
                );
                continue;
            }
            let result = measure::measure(&bench, case, pinning, effort)?;
            println!("{}", result.line());
            report.results.push(result);
        }
    }
    println!("{}", report.summary());
    report.write(&json)?;
    println!("all samples are in {}", json.display());
    Ok(())
}
