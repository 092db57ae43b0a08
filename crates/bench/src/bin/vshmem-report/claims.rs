// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the paper says beside what was measured, and what this project wants of itself.

use crate::measured::{MeasuredFigure, MeasuredPoint};
use crate::plan::{NATIVE, ONE, TWO};
use serde::Serialize;
use vshmem_bench::stats::{median, time};

/// A sentence of the paper.
#[derive(Debug, Serialize)]
pub struct Claim {
    /// Where it stands.
    pub paper: &'static str,
    /// What it says.
    pub claim: &'static str,
    /// What was seen here.
    pub measured: String,
    /// Whether that agrees.
    pub agrees: bool,
    /// Why not, or what is to be said in any case.
    pub why: &'static str,
}

/// What is wanted.
#[derive(Debug, Serialize)]
pub struct Goal {
    pub goal: &'static str,
    pub measured: String,
    pub met: bool,
    /// Why not, or what is to be said in any case.
    pub why: &'static str,
}

/// As fast as another, within what a machine with other things to do can tell.
const AS_FAST: f64 = 1.03;

/// The figures by what they are.
struct Figures<'a>(&'a [MeasuredFigure]);

impl<'a> Figures<'a> {
    /// Those whose id begins so.
    fn of(&self, begin: &str) -> Vec<&'a MeasuredFigure> {
        let figures = self.0.iter().filter(|figure| figure.id.starts_with(begin));
        figures.collect()
    }

    /// All points of two series in the figures whose id begins so.
    fn both(&self, begin: &str, one: &str, other: &str) -> Vec<Pair<'a>> {
        let figures = self.of(begin).into_iter();
        figures
            .flat_map(|figure| {
                let points = figure.both(one, other).into_iter();
                points.map(|(one, other)| Pair { figure, one, other })
            })
            .collect()
    }

    /// All figures of dwarfs.
    fn dwarfs(&self) -> Vec<&'a MeasuredFigure> {
        self.of("fig")
    }
}

/// The same size of two series.
struct Pair<'a> {
    figure: &'a MeasuredFigure,
    one: &'a MeasuredPoint,
    other: &'a MeasuredPoint,
}

impl Pair<'_> {
    /// How many times as long the first takes: median of the rounds.
    fn ratio(&self) -> f64 {
        let runs = self.one.runs.iter().zip(&self.other.runs);
        let ratios = runs.map(|(one, other)| median(&one.batches) / median(&other.batches));
        median(&ratios.collect::<Vec<_>>())
    }
}

/// How often the first of two is as fast as the other, in words, and whether always.
fn as_fast(pairs: &[Pair<'_>]) -> (String, bool) {
    let fast = pairs.iter().filter(|pair| pair.ratio() <= AS_FAST).count();
    let mut text = format!("at {fast} of {} sizes", pairs.len());
    let worst = pairs.iter().max_by(|a, b| a.ratio().total_cmp(&b.ratio()));
    if let Some(worst) = worst.filter(|_| fast < pairs.len()) {
        let (title, x) = (worst.figure.title, worst.one.x);
        text += &format!(" (worst: {:.2} times, {title}, {x})", worst.ratio());
    }
    (text, fast == pairs.len())
}

/// The smallest and the largest ratio.
fn span(ratios: &[f64]) -> (f64, f64) {
    let low = ratios.iter().copied().fold(f64::INFINITY, f64::min);
    let high = ratios.iter().copied().fold(0.0, f64::max);
    (low, high)
}

fn ratios(pairs: &[Pair<'_>]) -> Vec<f64> {
    pairs.iter().map(Pair::ratio).collect()
}

/// Ratios at the smallest and at the largest size of each figure.
fn ends(figures: &[&MeasuredFigure], one: &str, other: &str) -> Vec<(f64, f64)> {
    let ends = figures.iter().filter_map(|figure| {
        let pairs = figure.both(one, other);
        let ratio = |pair: Option<&(&MeasuredPoint, &MeasuredPoint)>| {
            let (one, other) = *pair?;
            Some(Pair { figure, one, other }.ratio())
        };
        Some((ratio(pairs.first())?, ratio(pairs.last())?))
    });
    ends.collect()
}

/// Whether the first of two is further from the other at the smallest size than at the largest.
fn gaps_shrink(figures: &[&MeasuredFigure], one: &str, other: &str) -> (String, bool) {
    let ends = ends(figures, one, other);
    let shrinks =
        |&&(small, large): &&(f64, f64)| large.ln().abs() <= small.ln().abs().max(AS_FAST.ln());
    let count = ends.iter().filter(shrinks).count();
    let (small, large): (Vec<_>, Vec<_>) = ends.iter().copied().unzip();
    let text = format!(
        "{count} of {}; {:.1} times at the smallest sizes, {:.2} at the largest (medians)",
        ends.len(),
        median(&small),
        median(&large)
    );
    (text, count == ends.len())
}

/// The paper's claims.
pub fn claims(figures: &[MeasuredFigure]) -> Vec<Claim> {
    let figures = Figures(figures);
    let mut claims = latency(&figures);
    claims.extend(dwarfs(&figures));
    claims
}

fn latency(figures: &Figures<'_>) -> Vec<Claim> {
    let pairs = |one, other| figures.both("latency", one, other);
    let (tcp, udp) = (ratios(&pairs("tcp", NATIVE)), ratios(&pairs("udp", NATIVE)));
    let same = ratios(&pairs(TWO, NATIVE));
    let (low, high) = span(&same);
    let tcp_two = ratios(&pairs("tcp", TWO));
    let spread = |id| {
        let figure = figures.of("latency");
        let points = figure
            .iter()
            .filter_map(|figure| figure.series(id))
            .flat_map(|s| &s.points);
        median(
            &points
                .map(|point| point.spread_us().1 * 1e3 / point.median)
                .collect::<Vec<_>>(),
        )
    };
    let (native, two, tcp_spread) = (spread(NATIVE), spread(TWO), spread("tcp"));
    vec![
        Claim {
            paper: "II, Fig. 4",
            claim: "Sockets between virtual machines take some 56 times as long as System V memory within one",
            measured: format!(
                "TCP takes {:.0} times as long, UDP {:.0} times (medians over the sizes)",
                median(&tcp),
                median(&udp)
            ),
            agrees: median(&tcp) >= 20.0,
            why: "Here the sockets are those of one kernel, without a second network stack and dom0 between \
                  them; most of the time is that of waking a process on another core, which in a virtual \
                  machine is long.",
        },
        Claim {
            paper: "V-C, Fig. 7",
            claim: "Vshmem across machines is about as fast as System V",
            measured: format!(
                "{low:.2} to {high:.2} times as long, {:.2} in the median",
                median(&same)
            ),
            agrees: median(&same) <= AS_FAST,
            why: "Once it is mapped it is the same memory, and no call goes into Vshmem: what is left is chance.",
        },
        Claim {
            paper: "V-C, Fig. 7",
            claim: "Vshmem is an order of magnitude faster than sockets",
            measured: format!("{:.0} times as fast as TCP in the median", median(&tcp_two)),
            agrees: median(&tcp_two) >= 10.0,
            why: "The larger the buffer, the more of the time is that of filling it, which both do.",
        },
        Claim {
            paper: "V-C, Fig. 7",
            claim: "Vshmem varies less than System V (standard deviation 0.086 against 1.66 us)",
            measured: format!(
                "standard deviation {:.0} % of the median for Vshmem, {:.0} % for System V",
                100.0 * two,
                100.0 * native
            ),
            agrees: two < native,
            why: "The paper's guests had one core each and a kernel without SMP. Here both run on one kernel \
                  and wait in the same memory, so what differs is chance.",
        },
        Claim {
            paper: "V-C, Fig. 7",
            claim: "Sockets vary more than shared memory (standard deviations 2.5 and 3.3 us)",
            measured: format!(
                "standard deviation {:.0} % of the median for TCP, {:.0} % for Vshmem",
                100.0 * tcp_spread,
                100.0 * two
            ),
            agrees: tcp_spread > two,
            why: "In microseconds they vary more here, too. As a part of the time, what disturbs a turn of a \
                  tenth of a microsecond weighs more.",
        },
    ]
}

fn dwarfs(figures: &Figures<'_>) -> Vec<Claim> {
    let fast = |begin, other| as_fast(&figures.both(begin, TWO, other));
    let (blas_openmp, blas_first) = fast("fig8", "openmp");
    let (blas_mpi, blas_over_mpi) = fast("fig8", "mpi");
    let (openmp_mpi, blas_second) = as_fast(&figures.both("fig8", "openmp", "mpi"));
    let (blas_gap, blas_shrinks) = gaps_shrink(&figures.of("fig8"), "mpi", TWO);
    let laplace = ratios(&figures.both("fig9", TWO, NATIVE));
    let (laplace_openmp, openmp_first) = as_fast(&figures.both("fig9", "openmp", TWO));
    let (pi_openmp, pi_first) = fast("fig10", "openmp");
    let (pi_mpi, pi_over_mpi) = fast("fig10", "mpi");
    let (md_openmp, md_first) = fast("fig11", "openmp");
    let (all_gap, all_shrink) = gaps_shrink(&figures.dwarfs(), "openmp", TWO);
    let smallest = |begin| {
        let figures = figures.of(begin);
        let points = figures
            .iter()
            .filter_map(|figure| figure.series(TWO)?.points.first());
        median(&points.map(|point| point.total_ratio).collect::<Vec<_>>())
    };
    vec![
        Claim {
            paper: "V-D1, Fig. 8",
            claim: "BLAS: System V and Vshmem are the fastest at all levels and in both precisions",
            measured: format!(
                "Vshmem, two domains, is as fast as OpenMP {blas_openmp}, as MPI {blas_mpi}"
            ),
            agrees: blas_first && blas_over_mpi,
            why: "Where the work is long, all that share memory take as long: the loops are the same machine \
                  code. Where it is short, the barrier decides. Once, in the first sample, a process takes a \
                  page fault for each page that another one has filled, which threads do not: 1.4 ms \
                  for the largest matrix times vector in double precision. The medians leave that out, as they leave \
                  out the start of OpenMP's threads and of MPI.",
        },
        Claim {
            paper: "V-D1, Fig. 8",
            claim: "BLAS: OpenMP is the second fastest, MPI the slowest",
            measured: format!("OpenMP is as fast as MPI {openmp_mpi}"),
            agrees: blas_second,
            why: "MPI begins and ends with the data at one rank, as in the program that the paper took, and \
                  copies them there and back each time.",
        },
        Claim {
            paper: "V-D1, Fig. 8",
            claim: "BLAS: the gaps close as the matrices grow and with the level",
            measured: format!("gap from Vshmem to MPI closes in {blas_gap}"),
            agrees: blas_shrinks,
            why: "At level 1 and 2 MPI copies as many numbers as it multiplies, however many there are: the \
                  gap stays. At level 3 it closes.",
        },
        Claim {
            paper: "V-D2, Fig. 9",
            claim: "Laplace: System V and Vshmem do not differ significantly",
            measured: format!("{:.2} times as long in the median", median(&laplace)),
            agrees: median(&laplace) <= AS_FAST,
            why: "As for Sync: the same memory, and no call into Vshmem after the set-up.",
        },
        Claim {
            paper: "V-D2, Fig. 9",
            claim: "Laplace: OpenMP is the fastest, by its better reduction",
            measured: format!("OpenMP is as fast as Vshmem {laplace_openmp}"),
            agrees: openmp_first,
            why: "The paper's own reduction was slow. That of common/team.c takes one cache line from each \
                  worker to each other, and is barrier and sum in one.",
        },
        Claim {
            paper: "V-D3, Fig. 10",
            claim: "pi: System V and Vshmem are the fastest, then OpenMP, then MPI",
            measured: format!(
                "Vshmem, two domains, is as fast as OpenMP {pi_openmp}, as MPI {pi_mpi}"
            ),
            agrees: pi_first && pi_over_mpi,
            why: "With many intervals there is nothing but arithmetic, and all take as long.",
        },
        Claim {
            paper: "V-D3, Fig. 10",
            claim: "pi: with 100 intervals Vshmem is slower than System V, by its set-up",
            measured: format!("with the set-up {:.2} times as long", smallest("fig10")),
            agrees: smallest("fig10") > AS_FAST,
            why: "A process meets its daemon once, and making and removing a segment is asked of the back-end: \
                  each is a few wake-ups of a sleeping daemon.",
        },
        Claim {
            paper: "V-D4, Fig. 11",
            claim: "Molecular dynamics: OpenMP is always the slowest",
            measured: format!("Vshmem, two domains, is as fast as OpenMP {md_openmp}"),
            agrees: md_first,
            why: "Where there is much to calculate, both take as long. GCC's threads of today stay between \
                  parallel regions; what is left is two regions a step against two barriers.",
        },
        Claim {
            paper: "V-D4, Fig. 11",
            claim: "Molecular dynamics: with few particles Vshmem is slower than System V, by its set-up",
            measured: format!(
                "with the set-up {:.2} times as long with one particle",
                smallest("fig11")
            ),
            agrees: smallest("fig11") > AS_FAST,
            why: "As for pi.",
        },
        Claim {
            paper: "V-D",
            claim: "The gaps between the models close as the work grows, in all dwarfs",
            measured: format!("gap from Vshmem to OpenMP closes in {all_gap}"),
            agrees: all_shrink,
            why: "Where both have the same gap at all sizes, it is none of communication.",
        },
    ]
}

/// This project's goals.
pub fn goals(figures: &[MeasuredFigure]) -> Vec<Goal> {
    let figures = Figures(figures);
    let dwarfs = figures.dwarfs();
    let points = |id: &'static str, last: bool| {
        let points = dwarfs.iter().filter_map(move |figure| {
            let points = &figure.series(id)?.points;
            let point = if last { points.last() } else { points.first() };
            Some((figure.title, point?))
        });
        points.collect::<Vec<_>>()
    };
    // The worst by what is sure of it.
    let worst_large = |id| {
        let points = points(id, true).into_iter();
        let worst = points.max_by(|a, b| a.1.ratio_bounds.0.total_cmp(&b.1.ratio_bounds.0));
        worst.map_or((String::new(), 0.0), |(title, point)| {
            let (low, high) = point.ratio_bounds;
            let ratio = point.ratio;
            (
                format!(
                    "worst: {ratio:.3} times (95 %: {low:.3} to {high:.3}), {title}, {}",
                    point.x
                ),
                low,
            )
        })
    };
    let worst_small = |ratio: fn(&MeasuredPoint) -> f64| {
        let points = points(TWO, false).into_iter();
        let worst = points.max_by(|a, b| ratio(a.1).total_cmp(&ratio(b.1)));
        worst.map_or((String::new(), 0.0), |(title, point)| {
            let ratio = ratio(point);
            (
                format!("worst: {ratio:.2} times, {title}, {}", point.x),
                ratio,
            )
        })
    };
    let (two_at, two) = worst_large(TWO);
    let (one_at, one) = worst_large(ONE);
    let (calls_at, calls) = worst_small(|point| point.total_ratio);
    let (whole_at, whole) = worst_small(|point| point.whole_ratio);
    let latency = figures.of("latency");
    let tcp = ends(&latency, "tcp", TWO);
    let tcp = tcp.first().map_or(0.0, |ends| ends.0);
    vec![
        Goal {
            goal: "Each dwarf at its largest size within 3 % of System V, in two domains",
            measured: two_at,
            met: two <= AS_FAST,
            why: "After the set-up it is the same memory.",
        },
        Goal {
            goal: "Each dwarf at its largest size within 3 % of System V, in one domain",
            measured: one_at,
            met: one <= AS_FAST,
            why: "",
        },
        Goal {
            goal: "Each dwarf at its smallest size at most 2 times System V, set-up included: from the \
                   start of both processes to their end",
            measured: whole_at,
            met: whole <= 2.0,
            why: "What a program has to wait for is a dozen wake-ups of daemons, some tenths of a millisecond; to \
                  start and end two processes takes a millisecond.",
        },
        Goal {
            goal: "The same without what it takes to start and end a process: calls of System V and iterations",
            measured: calls_at,
            met: calls <= 2.0,
            why: "The kernel makes, maps and removes a segment in some 25 us, less than one wake-up of another \
                  process takes here. It cannot be met by programs that end after a fraction of a millisecond; it \
                  is by those that calculate for one.",
        },
        Goal {
            goal: "Sync across domains at least 50 times as fast as TCP, with the smallest buffer",
            measured: format!("{tcp:.0} times"),
            met: tcp >= 50.0,
            why: "",
        },
    ]
}

/// The set-up of the System V variants beside each other, at the smallest size of each dwarf.
pub fn setups(figures: &[MeasuredFigure]) -> Vec<[String; 8]> {
    let figures = Figures(figures);
    let rows = figures.dwarfs().into_iter().filter_map(|figure| {
        let at = |id| figure.series(id)?.points.first();
        let (native, one, two) = (at(NATIVE)?, at(ONE)?, at(TWO)?);
        let setup = |point: &MeasuredPoint| time(point.setup.unwrap_or_default());
        Some([
            format!("{}, {}", figure.title, native.x),
            setup(native),
            setup(one),
            setup(two),
            format!("{:.2}", two.total_ratio),
            time(native.whole),
            time(two.whole),
            format!("{:.2}", two.whole_ratio),
        ])
    });
    rows.collect()
}
