// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is measured: the figures of the paper, with their series, sizes and numbers of iterations.

use Place::{Kernel, OneDomain, TwoDomains};
use Wait::{Semaphore, Spin};

/// Where the two workers of a System V program run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Place {
    /// On the kernel's own System V.
    Kernel,
    /// In one domain.
    OneDomain,
    /// In two.
    TwoDomains,
}

/// How the workers of a team wait for each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wait {
    /// By spinning.
    Spin,
    /// In `semop`.
    Semaphore,
}

/// How a series is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// Both sides of a program that takes turns: its name.
    Pair(&'static str, Place),
    /// Both sides of `socket`: its kind, and whether each side is on a core of its own.
    Socket(&'static str, bool),
    /// The serial variant.
    Serial,
    /// The System V variant.
    Team(Place, Wait),
    /// The OpenMP variant.
    OpenMp,
    /// The MPI variant.
    Mpi,
}

/// One curve.
#[derive(Clone, Copy, Debug)]
pub struct Series {
    /// In the results.
    pub id: &'static str,
    /// In words.
    pub name: &'static str,
    /// How it is run.
    pub way: Way,
    /// The largest size that it can.
    pub most: u64,
}

/// One size.
#[derive(Clone, Copy, Debug)]
pub struct Point {
    /// `--size`.
    pub size: u64,
    /// `--iters`, where no turn needs the kernel.
    pub iters: u64,
    /// `--iters`, where each turn does.
    pub kernel_iters: u64,
}

/// What is drawn in one picture: some of the series.
#[derive(Clone, Copy, Debug)]
pub struct Picture {
    /// Name of its files.
    pub file: &'static str,
    /// Above it.
    pub title: &'static str,
    /// What it shows, of the series' ids.
    pub series: &'static [&'static str],
}

/// All that is measured with one program.
#[derive(Clone, Debug)]
pub struct Figure {
    /// In the results.
    pub id: &'static str,
    /// In words.
    pub title: &'static str,
    /// The paper's number of it.
    pub paper: &'static str,
    /// What the sizes are.
    pub x_label: &'static str,
    /// What the times are.
    pub y_label: &'static str,
    /// The number on the axis for a size.
    pub x: fn(u64) -> u64,
    /// Iterations that the times shown are for.
    pub iterations: u32,
    /// The program, without its variant.
    pub program: &'static str,
    /// Its arguments, beside those of a point.
    pub args: &'static [&'static str],
    /// The curves.
    pub series: Vec<Series>,
    /// The sizes, from small to large.
    pub points: Vec<Point>,
    /// What is drawn.
    pub pictures: Vec<Picture>,
}

/// The id of the series that all others are held against.
pub const NATIVE: &str = "sysv";
/// The id of that in two domains.
pub const TWO: &str = "vshmem-two";
/// The id of that in one domain.
pub const ONE: &str = "vshmem-one";

const fn series(id: &'static str, name: &'static str, way: Way) -> Series {
    Series {
        id,
        name,
        way,
        most: u64::MAX,
    }
}

const fn up_to(most: u64, series: Series) -> Series {
    Series { most, ..series }
}

const fn point(size: u64, iters: u64) -> Point {
    Point {
        size,
        iters,
        kernel_iters: iters,
    }
}

const fn turns(size: u64, iters: u64, kernel_iters: u64) -> Point {
    Point {
        size,
        iters,
        kernel_iters,
    }
}

/// The curves that every dwarf has.
const DWARF: [Series; 6] = [
    series("serial", "serial", Way::Serial),
    series(NATIVE, "System V", Way::Team(Kernel, Spin)),
    series(ONE, "Vshmem, one domain", Way::Team(OneDomain, Spin)),
    series(TWO, "Vshmem, two domains", Way::Team(TwoDomains, Spin)),
    series("openmp", "OpenMP", Way::OpenMp),
    series("mpi", "MPI", Way::Mpi),
];

/// The same with a barrier and sum of semaphores.
const SEMAPHORES: [Series; 2] = [
    series(
        "sysv-sem",
        "System V, semaphores",
        Way::Team(Kernel, Semaphore),
    ),
    series(
        "vshmem-two-sem",
        "Vshmem, two domains, semaphores",
        Way::Team(TwoDomains, Semaphore),
    ),
];

/// Largest message that the kernel takes unless it is told otherwise (MSGMAX).
const MSGMAX: u64 = 8192;
/// The most that one UDP packet carries.
const UDP_MAX: u64 = 65507;

fn latency() -> Figure {
    Figure {
        id: "latency",
        title: "Latency of communication",
        paper: "Figs. 4 and 7",
        x_label: "buffer, bytes",
        y_label: "time of a turn (one way)",
        x: |size| size,
        iterations: 1,
        program: "",
        args: &[],
        series: vec![
            series(NATIVE, "Sync, System V", Way::Pair("sync", Kernel)),
            series(
                ONE,
                "Sync, Vshmem, one domain",
                Way::Pair("sync", OneDomain),
            ),
            series(
                TWO,
                "Sync, Vshmem, two domains",
                Way::Pair("sync", TwoDomains),
            ),
            series("tcp", "TCP", Way::Socket("tcp", true)),
            up_to(UDP_MAX, series("udp", "UDP", Way::Socket("udp", true))),
            series("unix", "Unix socket", Way::Socket("unix", true)),
            series("pipe", "pipes", Way::Socket("pipe", true)),
            series("tcp-free", "TCP, not pinned", Way::Socket("tcp", false)),
            series("semsync", "semop, System V", Way::Pair("semsync", Kernel)),
            series(
                "semsync-two",
                "semop, Vshmem, two domains",
                Way::Pair("semsync", TwoDomains),
            ),
            up_to(
                MSGMAX,
                series(
                    "msgsync",
                    "messages, System V",
                    Way::Pair("msgsync", Kernel),
                ),
            ),
            up_to(
                MSGMAX,
                series(
                    "msgsync-two",
                    "messages, Vshmem, two domains",
                    Way::Pair("msgsync", TwoDomains),
                ),
            ),
        ],
        points: vec![
            turns(8, 20_000, 400),
            turns(64, 20_000, 400),
            turns(512, 20_000, 400),
            turns(2048, 20_000, 400),
            turns(8192, 10_000, 400),
            turns(32768, 4_000, 300),
            turns(65536, 2_000, 200),
        ],
        pictures: vec![
            Picture {
                file: "fig4",
                title: "Fig. 4: System V within one system beside sockets",
                series: &[NATIVE, "tcp", "udp"],
            },
            Picture {
                file: "fig7",
                title: "Fig. 7: Sync through System V and Vshmem, Socket through TCP and UDP",
                series: &[NATIVE, ONE, TWO, "tcp", "udp"],
            },
            Picture {
                file: "fig7-beside",
                title: "Beside Fig. 7: what else two processes can take",
                series: &[
                    TWO,
                    "unix",
                    "pipe",
                    "tcp-free",
                    "semsync",
                    "semsync-two",
                    "msgsync",
                    "msgsync-two",
                ],
            },
        ],
    }
}

/// A figure that shows all of its series in one picture.
fn dwarf(
    id: &'static str,
    title: &'static str,
    paper: &'static str,
    program: &'static str,
) -> Figure {
    Figure {
        id,
        title,
        paper,
        x_label: "",
        y_label: "",
        x: |size| size,
        iterations: 1,
        program,
        args: &[],
        series: DWARF.to_vec(),
        points: Vec::new(),
        pictures: vec![Picture {
            file: id,
            title,
            series: &[],
        }],
    }
}

const DOUBLE: &[&str] = &["--type", "double"];
const FLOAT: &[&str] = &["--type", "float"];

fn blas() -> Vec<Figure> {
    let vectors = vec![
        point(16, 1000),
        point(256, 1000),
        point(4096, 1000),
        point(65_536, 1000),
        point(1_048_576, 100),
    ];
    let vector = vec![
        point(16, 1000),
        point(64, 1000),
        point(256, 1000),
        point(512, 300),
        point(1024, 80),
    ];
    let matrices = vec![
        point(16, 1000),
        point(32, 1000),
        point(64, 300),
        point(128, 50),
        point(256, 10),
    ];
    let figure = |id, title, program, args, x_label, points: &Vec<Point>| Figure {
        args,
        x_label,
        y_label: "time of a multiplication",
        points: points.clone(),
        ..dwarf(id, title, "Fig. 8", program)
    };
    let elements = "elements of a vector";
    let dimension = "rows and columns of a matrix";
    vec![
        figure(
            "fig8-blas1-float",
            "Fig. 8: BLAS 1, vector times vector, float",
            "blas1",
            FLOAT,
            elements,
            &vectors,
        ),
        figure(
            "fig8-blas1-double",
            "Fig. 8: BLAS 1, vector times vector, double",
            "blas1",
            DOUBLE,
            elements,
            &vectors,
        ),
        figure(
            "fig8-blas2-float",
            "Fig. 8: BLAS 2, matrix times vector, float",
            "blas2",
            FLOAT,
            dimension,
            &vector,
        ),
        figure(
            "fig8-blas2-double",
            "Fig. 8: BLAS 2, matrix times vector, double",
            "blas2",
            DOUBLE,
            dimension,
            &vector,
        ),
        figure(
            "fig8-blas3-float",
            "Fig. 8: BLAS 3, matrix times matrix, float",
            "blas3",
            FLOAT,
            dimension,
            &matrices,
        ),
        figure(
            "fig8-blas3-double",
            "Fig. 8: BLAS 3, matrix times matrix, double",
            "blas3",
            DOUBLE,
            dimension,
            &matrices,
        ),
    ]
}

fn laplace() -> Figure {
    Figure {
        x_label: "points of the mesh",
        y_label: "time of 1000 iterations",
        x: |side| side * side,
        iterations: 1000,
        series: [&DWARF[..], &SEMAPHORES].concat(),
        points: [10, 20, 50, 100, 200, 400]
            .map(|side| point(side, 1000))
            .to_vec(),
        ..dwarf(
            "fig9-laplace",
            "Fig. 9: Laplace's equation by Jacobi's method",
            "Fig. 9",
            "laplace",
        )
    }
}

fn pi() -> Figure {
    Figure {
        x_label: "intervals",
        y_label: "time of an iteration",
        points: [100, 1000, 10_000, 100_000]
            .map(|n| point(n, 1000))
            .to_vec(),
        ..dwarf("fig10-pi", "Fig. 10: pi by Simpson's rule", "Fig. 10", "pi")
    }
}

fn md() -> Vec<Figure> {
    let figure = |id, title, args| Figure {
        args,
        x_label: "particles",
        y_label: "time of 100 steps",
        iterations: 100,
        points: [1, 5, 10, 20, 35, 50, 200].map(|n| point(n, 100)).to_vec(),
        ..dwarf(id, title, "Fig. 11", "md")
    };
    vec![
        figure(
            "fig11-md-2d",
            "Fig. 11: molecular dynamics in two dimensions",
            &["--dims", "2"],
        ),
        figure(
            "fig11-md-3d",
            "Fig. 11: molecular dynamics in three dimensions",
            &["--dims", "3"],
        ),
    ]
}

/// How much is run.
#[derive(Clone, Copy, Debug)]
pub struct Effort {
    /// Runs of each point of each series.
    pub rounds: usize,
    /// Divides the numbers of iterations.
    pub shorter: u64,
    /// Of the sizes, every so many-th.
    pub every: usize,
}

impl Effort {
    /// Enough to judge by.
    pub const FULL: Self = Self {
        rounds: 31,
        shorter: 1,
        every: 1,
    };
    /// Enough to see that it works.
    pub const QUICK: Self = Self {
        rounds: 2,
        shorter: 10,
        every: 3,
    };
}

/// All figures, in the order they are measured in.
pub fn all(effort: Effort) -> Vec<Figure> {
    let mut figures = vec![latency()];
    figures.extend(blas());
    figures.extend([laplace(), pi()]);
    figures.extend(md());
    for figure in &mut figures {
        figure.points = figure
            .points
            .iter()
            .copied()
            .step_by(effort.every)
            .collect();
        for point in &mut figure.points {
            point.iters = (point.iters / effort.shorter).max(1);
            point.kernel_iters = (point.kernel_iters / effort.shorter).max(1);
        }
    }
    figures
}

impl Figure {
    /// The program of `dwarfs-c` that a series is run by.
    pub fn program_of(&self, way: Way) -> String {
        let variant = match way {
            Way::Pair(program, _) => return program.to_owned(),
            Way::Socket(..) => return "socket".to_owned(),
            Way::Serial => "serial",
            Way::Team(..) => "sysv",
            Way::OpenMp => "openmp",
            Way::Mpi => "mpi",
        };
        format!("{}-{variant}", self.program)
    }
}

impl Point {
    /// The iterations of a series.
    pub fn iters_of(&self, way: Way) -> u64 {
        match way {
            Way::Pair("sync", _) | Way::Pair(_, OneDomain | TwoDomains) => self.iters,
            Way::Pair(..) | Way::Socket(..) => self.kernel_iters,
            Way::Serial | Way::Team(..) | Way::OpenMp | Way::Mpi => self.iters,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn names_are_unique_and_pictures_show_series_that_there_are() {
        let figures = all(Effort::FULL);
        let mut files = HashSet::new();
        for figure in &figures {
            let ids: HashSet<_> = figure.series.iter().map(|series| series.id).collect();
            assert_eq!(ids.len(), figure.series.len(), "{}", figure.id);
            assert!(ids.contains(NATIVE) && ids.contains(ONE) && ids.contains(TWO));
            for picture in &figure.pictures {
                assert!(files.insert(picture.file), "{}", picture.file);
                assert!(picture.series.iter().all(|id| ids.contains(id)));
            }
        }
        let ids: HashSet<_> = figures.iter().map(|figure| figure.id).collect();
        assert_eq!(ids.len(), figures.len());
    }

    #[test]
    fn the_quick_form_has_every_figure_and_series() {
        let (full, quick) = (all(Effort::FULL), all(Effort::QUICK));
        assert_eq!(full.len(), quick.len());
        for (full, quick) in full.iter().zip(&quick) {
            assert_eq!(full.series.len(), quick.series.len());
            assert!(quick.points.len() >= 2, "{}", quick.id);
        }
    }
}
