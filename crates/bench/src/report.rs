// SPDX-License-Identifier: MIT OR Apache-2.0
//! What was measured, as a table and as JSON.

use crate::cases::{Case, Goal};
use serde::Serialize;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};
use vshmem_bench::Result;
use vshmem_bench::machine::Machine;
use vshmem_bench::stats::{median, median_bounds, percentile, time};
use vshmem_bench::world::Pinning;

/// Everything of one start of this program.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Names this layout.
    format: &'static str,
    /// Seconds since the epoch.
    taken: u64,
    /// Whether it was too short to judge by.
    quick: bool,
    /// Pairs of runs of most cases; some have several times as many.
    pairs: usize,
    /// Where.
    machine: Machine,
    /// What.
    pub results: Vec<Measured>,
}

/// One side of a case. All times are nanoseconds for one operation.
#[derive(Debug, Default, Serialize)]
pub struct Series {
    /// The samples of each run.
    pub runs: Vec<Vec<f64>>,
    /// Median of the runs' medians.
    median: f64,
    /// Of all samples.
    p50: f64,
    /// Of all samples.
    p99: f64,
    /// Of all samples.
    max: f64,
}

impl Series {
    fn medians(&self) -> Vec<f64> {
        self.runs.iter().map(|run| median(run)).collect()
    }

    fn conclude(&mut self) {
        let all = self.runs.concat();
        self.median = median(&self.medians());
        self.p50 = percentile(&all, 50.0);
        self.p99 = percentile(&all, 99.0);
        self.max = percentile(&all, 100.0);
    }
}

/// One case with one pinning.
#[derive(Debug, Serialize)]
pub struct Measured {
    name: &'static str,
    what: &'static str,
    pinning: Pinning,
    /// Operations in one sample.
    ops: u32,
    /// The kernel's own.
    pub native: Series,
    /// Ours.
    pub routed: Series,
    /// Routed to native, of the medians above.
    ratio_of_medians: f64,
    /// Routed to native, median of the pairs.
    ratio: f64,
    /// Between which the true one lies with a probability of 95 %.
    ratio_bounds: (f64, f64),
    /// Nanoseconds that routed takes more, median of the pairs.
    added: f64,
    /// What is wanted.
    goal: Goal,
    /// Whether that is so; nothing where nothing is wanted.
    met: Option<bool>,
}

impl Measured {
    /// A case of which nothing has run yet.
    pub fn new(case: &Case, pinning: Pinning, ops: u32) -> Self {
        Self {
            name: case.name,
            what: case.what,
            pinning,
            ops,
            native: Series::default(),
            routed: Series::default(),
            ratio_of_medians: 0.0,
            ratio: 0.0,
            ratio_bounds: (0.0, 0.0),
            added: 0.0,
            goal: case.goal,
            met: None,
        }
    }

    /// Draws the conclusions from what has run.
    pub fn conclude(&mut self) {
        self.native.conclude();
        self.routed.conclude();
        let pairs: Vec<(f64, f64)> = self
            .native
            .medians()
            .into_iter()
            .zip(self.routed.medians())
            .collect();
        let ratios: Vec<f64> = pairs
            .iter()
            .map(|(native, routed)| routed / native)
            .collect();
        let added: Vec<f64> = pairs
            .iter()
            .map(|(native, routed)| routed - native)
            .collect();
        self.ratio_of_medians = self.routed.median / self.native.median;
        self.ratio = median(&ratios);
        self.ratio_bounds = median_bounds(&ratios);
        self.added = median(&added);
        self.met = match self.goal {
            Goal::Ratio(most) => Some(self.ratio <= most),
            Goal::Noise(most) => Some(self.ratio_bounds.0 <= most),
            Goal::Added(most) => Some(self.added <= most),
            Goal::Open => None,
        };
    }

    /// As a line of the table that [`header`] begins.
    pub fn line(&self) -> String {
        let goal = match self.goal {
            Goal::Ratio(most) => format!("<= {most:.2}"),
            Goal::Noise(_) => "1.00".to_owned(),
            Goal::Added(most) => format!("<= +{}", time(most)),
            Goal::Open => "-".to_owned(),
        };
        let met = match self.met {
            Some(true) => "met",
            Some(false) => "NOT MET",
            None => "",
        };
        let (low, high) = self.ratio_bounds;
        row([
            self.name,
            &self.pinning.to_string(),
            &time(self.native.median),
            &time(self.routed.median),
            &time(self.added),
            &format!("{:.3}", self.ratio_of_medians),
            &format!("{:.3}", self.ratio),
            &format!("{low:.3}-{high:.3}"),
            &time(self.native.p99),
            &time(self.routed.p99),
            &time(self.native.max),
            &time(self.routed.max),
            &goal,
            met,
        ])
    }
}

/// One line of the table.
fn row(cells: [&str; 14]) -> String {
    let [
        name,
        cores,
        native,
        routed,
        added,
        medians,
        pairs,
        bounds,
        tail @ ..,
        goal,
        met,
    ] = cells;
    let [p99, routed_p99, max, routed_max] = tail;
    let line = format!(
        "{name:<18} {cores:<9} {native:>9} {routed:>9} {added:>9} {medians:>8} {pairs:>7} \
         {bounds:>13} {p99:>9} {routed_p99:>10} {max:>9} {routed_max:>10}  {goal:<13} {met}"
    );
    line.trim_end().to_owned()
}

/// Names the columns: medians of both sides, what is added, the ratio of these medians and that
/// of the pairs with its bounds, and the slowest samples.
pub fn header() -> String {
    row([
        "case", "cores", "native", "routed", "added", "ratio", "pairs'", "95 %", "p99", "routed",
        "max", "routed", "goal", "",
    ])
}

impl Report {
    /// An empty report of now and here.
    pub fn new(quick: bool, pairs: usize) -> Self {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        Self {
            format: "vshmem-bench 1",
            taken: now.map_or(0, |now| now.as_secs()),
            quick,
            pairs,
            machine: Machine::look(),
            results: Vec::new(),
        }
    }

    /// What it was measured on, in one line.
    pub fn head(&self) -> String {
        let machine = &self.machine;
        format!(
            "{}, {} cores{}, Linux {}, load {}{}; {} pairs of runs; times of one operation",
            machine.cpu,
            machine.cores,
            if machine.virtual_machine {
                " of a virtual machine"
            } else {
                ""
            },
            machine.kernel.split(' ').next().unwrap_or_default(),
            machine.load,
            if machine.real_time {
                ", real-time priority"
            } else {
                ""
            },
            self.pairs,
        )
    }

    /// How many goals are met.
    pub fn summary(&self) -> String {
        let count = |met| self.results.iter().filter(|r| r.met == Some(met)).count();
        let (met, missed) = (count(true), count(false));
        let caution = if self.quick {
            " (too short to judge by: --quick)"
        } else {
            ""
        };
        format!("{met} of {} goals met{caution}", met + missed)
    }

    /// Writes everything, with each sample, to `path`.
    pub fn write(&self, path: &Path) -> Result<()> {
        if let Some(dir) = path.parent() {
            std::fs::create_dir_all(dir)?;
        }
        std::fs::write(path, serde_json::to_string(self)? + "\n")
            .map_err(|error| format!("{}: {error}", path.display()).into())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cases;

    fn measured(goal: Goal, pairs: &[(f64, f64)]) -> Measured {
        let case = Case {
            goal,
            ..cases::all()[0]
        };
        let mut measured = Measured::new(&case, Pinning::Free, 1);
        for (native, routed) in pairs {
            measured.native.runs.push(vec![*native]);
            measured.routed.runs.push(vec![*routed]);
        }
        measured.conclude();
        measured
    }

    #[test]
    fn goals_are_judged_by_pairs() {
        let pairs = [(100.0, 104.0); 9];
        for (goal, met) in [
            (Goal::Ratio(1.0), Some(false)),
            (Goal::Ratio(1.04), Some(true)),
            (Goal::Noise(1.01), Some(false)),
            (Goal::Added(5.0), Some(true)),
            (Goal::Added(3.0), Some(false)),
            (Goal::Open, None),
        ] {
            assert_eq!(measured(goal, &pairs).met, met, "{goal:?}");
        }
    }

    #[test]
    fn what_one_pair_in_three_contradicts_is_noise() {
        let mut pairs = [(100.0, 104.0); 9];
        for pair in &mut pairs[..3] {
            *pair = (104.0, 100.0);
        }
        assert_eq!(measured(Goal::Noise(1.01), &pairs).met, Some(true));
    }
}
