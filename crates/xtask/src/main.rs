// SPDX-License-Identifier: MIT OR Apache-2.0
//! `cargo xtask`: the tasks of the project that take more than one command.

mod deb;
mod demo;
mod lab;
mod man;
mod miri;
mod packages;
mod programs;
mod project;
mod silence;
mod test;

use clap::Parser;
use std::ffi::OsString;
use std::process::ExitCode;

/// What went wrong, for the person at the terminal.
type Result<T> = std::result::Result<T, String>;

/// Tasks of the Vshmem project
#[derive(Debug, Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask")]
enum Task {
    /// Build, and show two domains at work in one memory, with the latency beside TCP's
    Demo,
    /// Build, check format and lints, and run all tests
    ///
    /// Debian packages that the tests need and that are missing are installed (as root) or named.
    /// The last line says how many tests passed and failed.
    Test {
        /// For `cargo test`, as in `cargo xtask test -- --test fork`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
    /// Write the man pages to target/man, and look for mistakes in them
    Man,
    /// Build the Debian package, in target/debian
    Deb,
    /// Run the engine's tests under Miri, as far as it can run them
    ///
    /// Needs a nightly toolchain with Miri: rustup toolchain install nightly --component miri
    Miri,
    /// Boot real Xen in QEMU, with guests
    #[command(subcommand)]
    Lab(lab::Task),
    /// Build, and run the benchmarks, native beside routed
    Bench {
        /// For the benchmark runner, as in `cargo xtask bench -- --quick`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
    /// Build, and measure the figures of the paper again: a page with figures and tables
    ///
    /// It can be interrupted; the same command goes on from there.
    Report {
        /// For the report, as in `cargo xtask report -- --quick`
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        args: Vec<OsString>,
    },
}

fn main() -> ExitCode {
    let result = match Task::parse() {
        Task::Demo => demo::demo().map(|()| ExitCode::SUCCESS),
        Task::Test { args } => test::test(&args),
        Task::Man => man::man().map(|pages| {
            for page in pages {
                println!("{}", page.display());
            }
            ExitCode::SUCCESS
        }),
        Task::Deb => deb::deb().map(|package| {
            println!("{}", package.display());
            ExitCode::SUCCESS
        }),
        Task::Miri => miri::miri().map(|()| ExitCode::SUCCESS),
        Task::Lab(task) => lab::lab(task),
        Task::Bench { args } => bench("vshmem-bench", &args).map(|()| ExitCode::SUCCESS),
        Task::Report { args } => bench("vshmem-report", &args).map(|()| ExitCode::SUCCESS),
    };
    result.unwrap_or_else(|error| {
        eprintln!("xtask: {error}");
        ExitCode::FAILURE
    })
}

/// Runs a program of the benchmarks.
fn bench(program: &str, args: &[OsString]) -> Result<()> {
    project::build()?;
    let mut runner = project::cargo([
        "run",
        "--release",
        "-p",
        "vshmem-bench",
        "--bin",
        program,
        "--",
    ])?;
    project::run(runner.args(args))
}
