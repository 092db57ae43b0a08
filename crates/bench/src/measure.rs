// SPDX-License-Identifier: MIT OR Apache-2.0
//! Runs a case natively and routed by turns.

use crate::cases::{Case, Key, Keys, Place, Program, Turns};
use crate::report::Measured;
use std::ffi::OsStr;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};
use vshmem_bench::Result;
use vshmem_bench::process::{in_round, output, start};
use vshmem_bench::world::{Bench, DOMAIN, OTHER, Pinning, ROUTED_KEYS};

/// How much is run.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Pairs of runs.
    pub pairs: usize,
    /// Samples that a worker takes in a run; `sync` takes one.
    pub batches: u32,
    /// Divides how often a thing is done for a sample.
    pub shorter: u32,
}

impl Effort {
    /// Enough to judge by.
    pub const FULL: Self = Self {
        pairs: 15,
        batches: 20,
        shorter: 1,
    };
    /// Enough to see that it works.
    pub const QUICK: Self = Self {
        pairs: 2,
        batches: 3,
        shorter: 20,
    };
}

/// Whose memory a run works in.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Native,
    Routed,
}

/// Measures `case`: pairs of runs, of which every other one begins with the routed run, so that
/// neither profits from what the other left in the caches.
pub fn measure(bench: &Bench, case: &Case, pinning: Pinning, effort: Effort) -> Result<Measured> {
    bench.pin_daemons(pinning)?;
    let run = Run {
        bench,
        case,
        pinning,
        effort,
    };
    let mut measured = Measured::new(case, pinning, run.ops());
    for pair in 0..effort.pairs * case.pairs {
        for side in in_round(vec![Side::Native, Side::Routed], pair) {
            let samples = run
                .once(side)
                .map_err(|error| format!("{}, {side:?}, {pinning}: {error}", case.name))?;
            match side {
                Side::Native => measured.native.runs.push(samples),
                Side::Routed => measured.routed.runs.push(samples),
            }
        }
    }
    bench.pin_next(Pinning::Free, 0)?;
    measured.conclude();
    Ok(measured)
}

struct Run<'a> {
    bench: &'a Bench,
    case: &'a Case,
    pinning: Pinning,
    effort: Effort,
}

impl Run<'_> {
    fn ops(&self) -> u32 {
        (self.case.ops / self.effort.shorter).max(1)
    }

    fn keys(&self) -> &'static str {
        match self.case.keys {
            Keys::Range => ROUTED_KEYS,
            Keys::None => "",
        }
    }

    /// One run: the samples of it, in nanoseconds.
    fn once(&self, side: Side) -> Result<Vec<f64>> {
        match self.case.program {
            Program::Sync(size, place) => self.sync(side, size, place),
            Program::Two(turns, place) => {
                let key = self.bench.key();
                self.two(place, |id, place| self.turns(side, place, turns, id, &key))
            }
            Program::Many(turns, workers) => {
                let (workers, key) = (workers.to_string(), self.bench.key());
                let command = self.turns(side, Place::Same, turns, &workers, &key);
                turn(&output(self.start(command, 0)?)?)
            }
            Program::Worker { case, key } => self.worker(side, case, key),
            Program::Start(program) => {
                // The worker itself is native in both: what it starts is what differs.
                let mut worker = self.worker_command(Side::Native, "spawn");
                worker.arg(program);
                if side == Side::Routed {
                    worker.args(self.bench.preload(DOMAIN, self.keys()));
                }
                samples(self.start(worker, 0)?)
            }
        }
    }

    fn sync(&self, side: Side, size: u32, place: Place) -> Result<Vec<f64>> {
        let key = self.bench.key();
        let program = self.bench.program("sync");
        let command = |id: &str, place: Place| {
            let mut command = self.command(side, place, &program);
            command
                .args(["--id", id, "--key", &key])
                .args(["--size", &size.to_string()])
                .args(["--iters", &self.ops().to_string()]);
            command
        };
        self.two(place, command)
    }

    fn turns(&self, side: Side, place: Place, of: Turns, number: &str, key: &str) -> Command {
        let mut command = self.command(side, place, self.bench.program(of.program));
        command
            .args([of.part, number, key])
            .arg(self.ops().to_string())
            .args(of.size.map(|size| size.to_string()));
        command
    }

    /// One run of two processes that work together, of which the first measures a turn.
    fn two(&self, place: Place, command: impl Fn(&str, Place) -> Command) -> Result<Vec<f64>> {
        let measured = self.start(command("0", Place::Same), 0)?;
        let peer = self.start(command("1", place), 1)?;
        let said = output(measured)?;
        output(peer)?;
        turn(&said)
    }

    fn worker(&self, side: Side, case: &str, key: Key) -> Result<Vec<f64>> {
        let mut worker = self.worker_command(side, case);
        let mut holder = None;
        match key {
            Key::No => {}
            Key::Unused => {
                worker.arg(self.bench.key());
            }
            Key::Local => {
                worker.arg(self.bench.local_key());
            }
            Key::Held(size, place) | Key::HeldSet(size, place) | Key::HeldQueue(size, place) => {
                let hold = match key {
                    Key::HeldSet(..) => "hold-set",
                    Key::HeldQueue(..) => "hold-queue",
                    _ => "hold",
                };
                let (key, size) = (self.bench.key(), size.to_string());
                let mut command = self.command(side, place, self.bench.program("worker"));
                command.args([hold, &key, &size]).stdin(Stdio::piped());
                holder = Some(ready(self.start(command, 1)?)?);
                worker.args([key, size]);
            }
        }
        let samples = samples(self.start(worker, 0)?);
        if let Some(mut holder) = holder {
            // The end of its input is the end of what it holds.
            drop(holder.stdin.take());
            output(holder)?;
        }
        samples
    }

    fn worker_command(&self, side: Side, case: &str) -> Command {
        let mut command = self.command(side, Place::Same, self.bench.program("worker"));
        command
            .arg(self.effort.batches.to_string())
            .arg(self.ops().to_string())
            .arg(case);
        command
    }

    fn command(&self, side: Side, place: Place, program: impl AsRef<OsStr>) -> Command {
        let domain = match place {
            Place::Same => DOMAIN,
            Place::Other => OTHER,
        };
        match side {
            Side::Native => self.bench.native(program),
            Side::Routed => self.bench.routed(domain, self.keys(), program),
        }
    }

    /// Starts a command on its core; what it starts inherits that.
    fn start(&self, command: Command, side: usize) -> Result<Child> {
        self.bench.pin_next(self.pinning, side)?;
        start(command)
    }
}

/// The time that a turn took, of a program that ends with, say, "1000 turns: 70.1 ns a turn".
fn turn(said: &str) -> Result<Vec<f64>> {
    let words: Vec<&str> = said.split_whitespace().collect();
    match words[..] {
        [.., time, "ns", "a", "turn"] => Ok(vec![time.parse()?]),
        _ => Err(format!("the program said: {said}").into()),
    }
}

/// Waits until a holder has made its construct.
fn ready(mut holder: Child) -> Result<Child> {
    let stdout = holder.stdout.as_mut().ok_or("no stdout")?;
    let mut line = String::new();
    BufReader::new(stdout).read_line(&mut line)?;
    if line == "ready\n" {
        return Ok(holder);
    }
    output(holder)?;
    Err("it was not made".into())
}

fn samples(worker: Child) -> Result<Vec<f64>> {
    let said = output(worker)?;
    let samples = said
        .lines()
        .map(str::parse)
        .collect::<std::result::Result<_, _>>();
    samples.map_err(|error: std::num::ParseFloatError| {
        format!("the worker said '{said}': {error}").into()
    })
}
