// SPDX-License-Identifier: MIT OR Apache-2.0
//! What was measured: every sample, and what follows from them. This is the report's JSON.

use crate::claims::{Claim, Goal};
use crate::lab::Lab;
use crate::launch::Run;
use crate::plan::{Figure, NATIVE, Picture};
use serde::Serialize;
use vshmem_bench::machine::Machine;
use vshmem_bench::stats::{median, median_bounds, percentile};

/// Everything of one report.
#[derive(Debug, Serialize)]
pub struct Report {
    /// Names this layout.
    pub format: &'static str,
    /// Seconds since the epoch.
    pub taken: u64,
    /// Whether it was too short to judge by.
    pub quick: bool,
    /// Runs of each point.
    pub rounds: usize,
    /// Workers of each run but the serial ones.
    pub workers: u32,
    /// Where these were.
    pub pinning: &'static str,
    /// Where all was.
    pub machine: Machine,
    /// What was measured.
    pub figures: Vec<MeasuredFigure>,
    /// What the paper says, and what was seen.
    pub claims: Vec<Claim>,
    /// What is wanted, and what was seen.
    pub goals: Vec<Goal>,
    /// What a lab of guests has measured, if one ran.
    pub lab: Option<Lab>,
}

/// A figure.
#[derive(Debug, Serialize)]
pub struct MeasuredFigure {
    pub id: &'static str,
    pub title: &'static str,
    /// The paper's number.
    pub paper: &'static str,
    /// What `x` is.
    pub x_label: &'static str,
    /// What a time is that is shown: that of `iterations` iterations.
    pub y_label: &'static str,
    pub iterations: u32,
    pub series: Vec<MeasuredSeries>,
    #[serde(skip)]
    pub pictures: Vec<Picture>,
}

/// A curve.
#[derive(Debug, Serialize)]
pub struct MeasuredSeries {
    pub id: &'static str,
    pub name: &'static str,
    pub points: Vec<MeasuredPoint>,
}

/// A size. Times are nanoseconds, of one iteration (or turn) where nothing else is said.
#[derive(Debug, Serialize)]
pub struct MeasuredPoint {
    /// On the axis.
    pub x: u64,
    /// `--size` of the program.
    pub size: u64,
    /// One of each round.
    pub runs: Vec<Run>,
    /// Of the runs' medians.
    pub median: f64,
    /// Of all samples.
    pub p50: f64,
    pub p99: f64,
    pub min: f64,
    pub max: f64,
    /// To System V on the kernel: median of the rounds, and between which the true one lies with a
    /// probability of 95 %.
    pub ratio: f64,
    pub ratio_bounds: (f64, f64),
    /// Of the set-up, median. None where it is not told.
    pub setup: Option<f64>,
    /// Of all iterations and the set-up: median, and its ratio to System V as above.
    pub total: f64,
    pub total_ratio: f64,
    /// From the start of the first process to the end of the last, median.
    pub whole: f64,
    pub whole_ratio: f64,
}

impl MeasuredPoint {
    fn new(x: u64, size: u64, runs: Vec<Run>, native: Option<&[Run]>) -> Self {
        let of = |value: fn(&Run) -> f64| median(&runs.iter().map(value).collect::<Vec<_>>());
        let ratios = |value: fn(&Run) -> f64| {
            let native = native.unwrap_or(&runs);
            let pairs = runs.iter().zip(native);
            pairs
                .map(|(run, native)| value(run) / value(native))
                .collect::<Vec<_>>()
        };
        let all = runs
            .iter()
            .flat_map(|run| run.batches.iter().copied())
            .collect::<Vec<_>>();
        let setups = runs.iter().filter_map(|run| run.setup).collect::<Vec<_>>();
        let each = ratios(|run| median(&run.batches));
        Self {
            x,
            size,
            median: of(|run| median(&run.batches)),
            p50: percentile(&all, 50.0),
            p99: percentile(&all, 99.0),
            min: percentile(&all, 0.0),
            max: percentile(&all, 100.0),
            ratio: median(&each),
            ratio_bounds: median_bounds(&each),
            setup: (!setups.is_empty()).then(|| median(&setups)),
            total: of(Run::total),
            total_ratio: median(&ratios(Run::total)),
            whole: of(|run| run.whole),
            whole_ratio: median(&ratios(|run| run.whole)),
            runs,
        }
    }

    /// Variance and standard deviation of all samples, of microseconds.
    pub fn spread_us(&self) -> (f64, f64) {
        let all = self
            .runs
            .iter()
            .flat_map(|run| &run.batches)
            .map(|ns| ns / 1e3);
        let all = all.collect::<Vec<_>>();
        let count = all.len() as f64;
        let mean = all.iter().sum::<f64>() / count;
        let variance = all.iter().map(|us| (us - mean).powi(2)).sum::<f64>() / count;
        (variance, variance.sqrt())
    }
}

/// The figure, of the runs that `of` gives for each of its series and sizes.
pub fn conclude(figure: &Figure, of: impl Fn(&str, u64) -> Vec<Run>) -> MeasuredFigure {
    let series = figure.series.iter().map(|series| {
        let points = figure
            .points
            .iter()
            .filter(|point| point.size <= series.most);
        let points = points.map(|point| {
            let native = of(NATIVE, point.size);
            let runs = of(series.id, point.size);
            MeasuredPoint::new((figure.x)(point.size), point.size, runs, Some(&native))
        });
        MeasuredSeries {
            id: series.id,
            name: series.name,
            points: points.collect(),
        }
    });
    MeasuredFigure {
        id: figure.id,
        title: figure.title,
        paper: figure.paper,
        x_label: figure.x_label,
        y_label: figure.y_label,
        iterations: figure.iterations,
        series: series.collect(),
        pictures: figure.pictures.clone(),
    }
}

impl MeasuredFigure {
    /// A series of it. It is one of the plan's.
    pub fn series(&self, id: &str) -> Option<&MeasuredSeries> {
        self.series.iter().find(|series| series.id == id)
    }

    /// The points that two series have in common.
    pub fn both(&self, one: &str, other: &str) -> Vec<(&MeasuredPoint, &MeasuredPoint)> {
        let points = |id| self.series(id).map_or(&[][..], |series| &series.points);
        let pairs = points(one).iter().filter_map(|point| {
            let same = points(other).iter().find(|other| other.x == point.x)?;
            Some((point, same))
        });
        pairs.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(batches: &[f64], setup: f64) -> Run {
        Run {
            batches: batches.to_vec(),
            mean: median(batches),
            iters: 10,
            setup: Some(setup),
            whole: 1000.0,
        }
    }

    #[test]
    fn ratios_are_of_the_runs_of_a_round() {
        let native = [
            run(&[10.0], 100.0),
            run(&[20.0], 100.0),
            run(&[30.0], 100.0),
        ];
        let ours = vec![
            run(&[20.0], 300.0),
            run(&[20.0], 300.0),
            run(&[15.0, 45.0], 300.0),
        ];
        let point = MeasuredPoint::new(1, 1, ours, Some(&native));
        assert_eq!((point.median, point.ratio), (20.0, 1.0));
        assert_eq!((point.min, point.max), (15.0, 45.0));
        assert_eq!(point.setup, Some(300.0));
        assert_eq!(point.total_ratio, 500.0 / 300.0);
    }

    #[test]
    fn a_spread_is_of_microseconds() {
        let point = MeasuredPoint::new(1, 1, vec![run(&[1000.0, 3000.0], 0.0)], None);
        assert_eq!(point.spread_us(), (1.0, 1.0));
    }
}
