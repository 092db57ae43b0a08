// SPDX-License-Identifier: MIT OR Apache-2.0
//! `vshmem-report`: the paper's figures, measured again.
//!
//! Runs the programs of `dwarfs-c` natively and through Vshmem, with OpenMP and with MPI, by turns,
//! and writes a page with figures and tables, and every sample. Times never make it fail. What has
//! been run is kept as it goes: who interrupts it goes on with the same command.

mod claims;
mod journal;
mod lab;
mod launch;
mod measured;
mod page;
mod plan;
mod plot;

use clap::Parser;
use journal::{Header, Journal, Which};
use launch::Launch;
use measured::{MeasuredFigure, Report};
use nix::sys::signal::{SigSet, Signal};
use plan::{Effort, Figure, Point, Series};
use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};
use vshmem_bench::Result;
use vshmem_bench::machine::Machine;
use vshmem_bench::process::in_round;
use vshmem_bench::world::{Bench, target_dir};

/// Measures the paper's figures again and writes a report
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    /// Few and short runs: shows that it works, not how fast it is
    #[arg(long)]
    quick: bool,

    /// Where the report goes [default: report in the target directory]
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,

    /// What a lab of guests has measured; without the file it is left out
    /// [default: lab/figures.json in the target directory]
    #[arg(long, value_name = "FILE")]
    lab: Option<PathBuf>,

    /// Runs of each point [default: 31, with --quick 2]
    #[arg(long, value_name = "N")]
    rounds: Option<usize>,
}

fn main() -> ExitCode {
    match report(&Args::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("vshmem-report: {error}");
            ExitCode::FAILURE
        }
    }
}

fn report(args: &Args) -> Result<()> {
    let target = target_dir()?;
    let out = args.out.clone().unwrap_or_else(|| target.join("report"));
    let lab = args
        .lab
        .clone()
        .unwrap_or_else(|| target.join("lab/figures.json"));
    // What could spoil the end is tried before it begins.
    lab::read(&lab)?;
    plot::take_font()?;
    std::fs::create_dir_all(&out).map_err(|error| format!("{}: {error}", out.display()))?;
    take_signals()?;
    let mut effort = if args.quick {
        Effort::QUICK
    } else {
        Effort::FULL
    };
    effort.rounds = args.rounds.unwrap_or(effort.rounds).max(1);
    let figures = plan::all(effort);
    let machine = Machine::look();
    let bench = Bench::new()?;
    bench.make("all")?;
    let mut journal = Journal::open(
        &out.join("unfinished.jsonl"),
        &header(args, &machine, &bench, &figures)?,
    )?;
    measure(&bench, &figures, effort.rounds, &mut journal)?;
    drop(bench);
    let measured = figures
        .iter()
        .map(|figure| concluded(figure, effort.rounds, &journal));
    let measured = measured.collect::<Result<Vec<_>>>()?;
    let report = Report {
        format: "vshmem-report 1",
        taken: SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs(),
        quick: args.quick,
        rounds: effort.rounds,
        workers: launch::WORKERS.parse()?,
        pinning: "each on a core of its own, as far as there are cores",
        machine,
        claims: claims::claims(&measured),
        goals: claims::goals(&measured),
        figures: measured,
        lab: lab::read(&lab)?,
    };
    std::fs::write(
        out.join("report.json"),
        serde_json::to_string(&report)? + "\n",
    )?;
    page::write(&report, &out)?;
    journal.remove()?;
    summary(&report, &out);
    Ok(())
}

/// What has to be the same for a report to go on.
fn header(args: &Args, machine: &Machine, bench: &Bench, figures: &[Figure]) -> Result<Header> {
    let programs = figures.iter().flat_map(|figure| {
        let series = figure.series.iter();
        series.map(|series| bench.program(&figure.program_of(series.way)))
    });
    let built = programs
        .chain(bench.built())
        .collect::<BTreeSet<_>>()
        .into_iter();
    let built = built.map(|path| {
        let modified = std::fs::metadata(path)?.modified()?;
        Ok(modified.duration_since(UNIX_EPOCH)?.as_nanos())
    });
    Ok(Header {
        format: "vshmem-report 1".into(),
        quick: args.quick,
        cpu: machine.cpu.clone(),
        kernel: machine.kernel.clone(),
        real_time: machine.real_time,
        built: built.collect::<Result<_>>()?,
    })
}

/// Set by a signal that would end this process.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// From now on such a signal ends it after the run that is under way, so that there is one way out
/// and the daemons are stopped on it. On Ctrl-C the programs of that run get the signal as well.
fn take_signals() -> Result<()> {
    let signals: SigSet = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP]
        .into_iter()
        .collect();
    signals.thread_block()?;
    std::thread::spawn(move || {
        while signals.wait().is_ok() {
            INTERRUPTED.store(true, Relaxed);
        }
    });
    Ok(())
}

/// All runs of a round of a figure, in their order.
fn runs(figure: &Figure, round: usize) -> Vec<(Point, &Series)> {
    let mut all = Vec::new();
    for &point in &figure.points {
        let able = figure
            .series
            .iter()
            .filter(|series| point.size <= series.most);
        let able = in_round(able.collect(), round);
        all.extend(able.into_iter().map(|series| (point, series)));
    }
    all
}

fn which(figure: &Figure, series: &Series, point: Point, round: usize) -> Which {
    Which {
        figure: figure.id.into(),
        series: series.id.into(),
        size: point.size,
        round,
    }
}

/// Does all runs that the journal has not.
fn measure(bench: &Bench, figures: &[Figure], rounds: usize, journal: &mut Journal) -> Result<()> {
    let count: usize = figures
        .iter()
        .map(|figure| runs(figure, 0).len() * rounds)
        .sum();
    let mut progress = Progress::new(count, journal.len());
    for round in 0..rounds {
        for figure in figures {
            progress.tell(figure.title, round, rounds);
            for (point, series) in runs(figure, round) {
                let which = which(figure, series, point, round);
                if journal.get(&which).is_some() {
                    continue;
                }
                let launch = Launch {
                    bench,
                    figure,
                    series,
                    point,
                };
                let run = launch.run();
                if INTERRUPTED.load(Relaxed) {
                    return Err("interrupted; the same command goes on from here".into());
                }
                let run = run.map_err(|error| {
                    format!(
                        "{}, {}, size {}: {error}",
                        figure.id, series.name, point.size
                    )
                })?;
                journal.add(which, run)?;
                progress.done += 1;
            }
        }
    }
    Ok(())
}

/// What is shown while it runs.
struct Progress {
    began: Instant,
    before: usize,
    done: usize,
    count: usize,
}

impl Progress {
    fn new(count: usize, before: usize) -> Self {
        if before > 0 {
            eprintln!("vshmem-report: going on after {before} of {count} runs");
        }
        Self {
            began: Instant::now(),
            before,
            done: before,
            count,
        }
    }

    fn tell(&self, title: &str, round: usize, rounds: usize) {
        let percent = 100 * self.done / self.count.max(1);
        let left = match self.done - self.before {
            0 => String::new(),
            now => {
                let each = self.began.elapsed().as_secs_f64() / now as f64;
                let left = Duration::from_secs_f64(each * (self.count - self.done) as f64);
                format!(
                    ", {} min {} s left",
                    left.as_secs() / 60,
                    left.as_secs() % 60
                )
            }
        };
        eprintln!(
            "{percent:3} %{left}; round {} of {rounds}: {title}",
            round + 1
        );
    }
}

/// What the runs of a figure say.
fn concluded(figure: &Figure, rounds: usize, journal: &Journal) -> Result<MeasuredFigure> {
    for (point, series) in runs(figure, 0) {
        for round in 0..rounds {
            let which = which(figure, series, point, round);
            journal
                .get(&which)
                .ok_or_else(|| format!("no run of {which:?}"))?;
        }
    }
    Ok(measured::conclude(figure, |series, size| {
        let which = |round| Which {
            figure: figure.id.into(),
            series: series.into(),
            size,
            round,
        };
        (0..rounds)
            .filter_map(|round| journal.get(&which(round)).cloned())
            .collect()
    }))
}

/// What is printed at the end.
fn summary(report: &Report, out: &Path) {
    for goal in &report.goals {
        let met = if goal.met { "met" } else { "NOT MET" };
        println!("{met:8} {}: {}", goal.goal, goal.measured);
    }
    let agree = report.claims.iter().filter(|claim| claim.agrees).count();
    println!(
        "{agree} of {} claims of the paper agree with what was measured",
        report.claims.len()
    );
    if report.quick {
        println!("(too short to judge by: --quick)");
    }
    println!("the report is {}", out.join("index.html").display());
}
