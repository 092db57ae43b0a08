// SPDX-License-Identifier: MIT OR Apache-2.0
//! One run of one series at one size: the programs are started, and what they print is read.

use crate::plan::{Figure, Place, Point, Series, Wait, Way};
use serde::{Deserialize, Serialize};
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, Command};
use std::time::Instant;
use vshmem_bench::Result;
use vshmem_bench::process::{output, start};
use vshmem_bench::world::{Bench, DOMAIN, OTHER, ROUTED_KEYS};

/// Workers of each run but the serial ones.
pub const WORKERS: &str = "2";

/// Batches that the iterations of a run are divided into, as far as there are as many.
const BATCHES: u64 = 10;

/// What a run gave. Times are nanoseconds.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Run {
    /// Of an iteration in each batch, as the first worker saw it.
    pub batches: Vec<f64>,
    /// Of an iteration, over all of them.
    pub mean: f64,
    /// How many there were.
    pub iters: u64,
    /// Of what is done before the first iteration and after the last: the calls of System V of the
    /// first worker and of the slowest other, or the start of threads or MPI. None where it is not
    /// told.
    pub setup: Option<f64>,
    /// From the start of the first process to the end of the last.
    pub whole: f64,
}

impl Run {
    /// All iterations and the set-up.
    pub fn total(&self) -> f64 {
        self.mean * self.iters as f64 + self.setup.unwrap_or(0.0)
    }
}

/// What starts a run.
pub struct Launch<'a> {
    pub bench: &'a Bench,
    pub figure: &'a Figure,
    pub series: &'a Series,
    pub point: Point,
}

impl Launch<'_> {
    /// Does it.
    pub fn run(&self) -> Result<Run> {
        let program = self.figure.program_of(self.series.way);
        let began = Instant::now();
        let said = match self.series.way {
            Way::Pair(_, place) => {
                let key = self.bench.key();
                self.both(place, |side, place| {
                    let mut command = self.in_place(place, &program, side);
                    command.args(["--id", &side.to_string(), "--key", &key, "--pin"]);
                    command
                })?
            }
            Way::Socket(kind, pinned) => self.socket(&program, kind, pinned)?,
            Way::Serial => output(start(self.sized(self.native(&program)))?)?,
            Way::Team(place, wait) => {
                let key = self.bench.key();
                self.both(place, |rank, place| {
                    let mut command = self.in_place(place, &program, rank);
                    command
                        .args(["--rank", &rank.to_string(), "--of", WORKERS])
                        .args(["--key", &key, "--pin", "--wait"])
                        .arg(match wait {
                            Wait::Spin => "spin",
                            Wait::Semaphore => "semaphore",
                        });
                    command
                })?
            }
            Way::OpenMp => {
                let mut command = self.native(&program);
                command
                    .args(["--workers", WORKERS])
                    .env("OMP_PROC_BIND", "true");
                output(start(self.sized(command))?)?
            }
            Way::Mpi => {
                let mut command = self.bench.native("mpiexec.mpich");
                command
                    .args(["-bind-to", "core", "-n", WORKERS])
                    .arg(self.bench.program(&program));
                output(start(self.sized(command))?)?
            }
        };
        let whole = began.elapsed().as_secs_f64() * 1e9;
        read(&said, self.iters(), whole)
    }

    fn iters(&self) -> u64 {
        self.point.iters_of(self.series.way)
    }

    /// A program of `dwarfs-c` without Vshmem, without arguments.
    fn native(&self, program: &str) -> Command {
        self.bench.native(self.bench.program(program))
    }

    /// A program in the place of one of the two workers.
    fn in_place(&self, place: Place, program: &str, worker: usize) -> Command {
        let mut command = self.native(program);
        let domain = match (place, worker) {
            (Place::Kernel, _) => return command,
            (Place::OneDomain, _) | (Place::TwoDomains, 0) => DOMAIN,
            (Place::TwoDomains, _) => OTHER,
        };
        for variable in self.bench.preload(domain, ROUTED_KEYS) {
            if let Some((name, value)) = variable.split_once('=') {
                command.env(name, value);
            }
        }
        command
    }

    /// Adds the arguments that say how much there is to do.
    fn sized(&self, mut command: Command) -> Command {
        let iters = self.iters();
        command
            .args(["--size", &self.point.size.to_string()])
            .args(["--iters", &iters.to_string()])
            .args(["--batches", &BATCHES.min(iters).to_string()])
            .args(self.figure.args);
        command
    }

    /// Both workers of a program; what the first says.
    fn both(&self, place: Place, command: impl Fn(usize, Place) -> Command) -> Result<String> {
        let first = start(self.sized(command(0, place)))?;
        let second = start(self.sized(command(1, place)))?;
        ended(first, second)
    }

    fn socket(&self, program: &str, kind: &str, pinned: bool) -> Result<String> {
        let side = |side, at: [&str; 2]| {
            let mut command = self.native(program);
            command.args([kind, side]).args(at);
            if pinned {
                command.arg("--pin");
            }
            start(self.sized(command))
        };
        let path = self.bench.path("way");
        let path = path.to_string_lossy();
        let by_path = ["--path", &*path];
        let by_port = kind == "tcp" || kind == "udp";
        let mut server = side("server", if by_port { ["--port", "0"] } else { by_path })?;
        let line = first_line(&mut server)?;
        let port = line.trim_end().rsplit(' ').next().unwrap_or_default();
        let client = side("client", if by_port { ["--port", port] } else { by_path })?;
        ended(client, server)
    }
}

/// Waits for the end of both; returns what the first said.
fn ended(first: Child, mut second: Child) -> Result<String> {
    let said = output(first);
    if said.is_err() {
        // It waits for the other in vain.
        second.kill()?;
    }
    let other = output(second);
    let said = said?;
    other?;
    Ok(said)
}

/// The first line that a program prints.
fn first_line(program: &mut Child) -> Result<String> {
    let mut line = String::new();
    let mut stdout = BufReader::new(program.stdout.as_mut().ok_or("no stdout")?.by_ref());
    stdout.read_line(&mut line)?;
    Ok(line)
}

/// Reads what a program printed: a line for each batch, and at the end a line with the time of an
/// iteration (or a turn) and perhaps of the set-up.
fn read(said: &str, iters: u64, whole: f64) -> Result<Run> {
    let bad = || format!("the program said: {said}");
    let number = |text: Option<&str>| text.and_then(|text| text.parse::<f64>().ok());
    let batches = said
        .lines()
        .filter_map(|line| number(line.strip_prefix("batch ")?.strip_suffix(" ns")))
        .collect::<Vec<_>>();
    let last = said.lines().last().ok_or_else(bad)?;
    let words = last.split(' ').collect::<Vec<_>>();
    let before = |unit: &[&str]| {
        let at = words.windows(unit.len()).rposition(|words| words == unit)?;
        number(at.checked_sub(1).map(|at| words[at]))
    };
    let mean = before(&["ns", "an", "iteration"])
        .or_else(|| before(&["ns", "a", "turn"]))
        .ok_or_else(bad)?;
    let setup = before(&["us,"]).map(|us| us * 1e3);
    Ok(Run {
        batches: if batches.is_empty() {
            vec![mean]
        } else {
            batches
        },
        mean,
        iters,
        setup,
        whole,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_dwarfs_print_is_read() {
        let said = "pi = 3.14\nbatch 10.50 ns\nbatch 11.50 ns\n\
                    size 8, 20 iterations, 2 workers: set-up 35.1 us, 11.0 ns an iteration\n";
        let run = read(said, 20, 1e6).unwrap();
        let want = Run {
            batches: vec![10.5, 11.5],
            mean: 11.0,
            iters: 20,
            setup: Some(35_100.0),
            whole: 1e6,
        };
        assert_eq!(run, want);
        assert_eq!(run.total(), 35_320.0);
    }

    #[test]
    fn what_the_programs_of_turns_print_is_read() {
        let run = read("peer says: x\n8 bytes, 40 turns: 70.1 ns a turn\n", 20, 1.0).unwrap();
        assert_eq!((run.batches, run.setup), (vec![70.1], None));
    }

    #[test]
    fn a_program_that_says_nothing_of_times_is_an_error() {
        assert!(read("", 1, 1.0).is_err());
        assert!(read("pi = 3\n", 1, 1.0).is_err());
    }
}
