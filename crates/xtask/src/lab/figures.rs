// SPDX-License-Identifier: MIT OR Apache-2.0
//! `cargo xtask lab figures`: what turns between two guests take, by Vshmem and by the network, and what it
//! takes to have a segment. The programs are those of `dwarfs-c`; what they say is written as
//! `docs/report.md` has it ("Figures of the lab"), and ratios are shown. The machine is emulated as a
//! rule: of the times themselves little is to be learnt.

use super::Kind;
use super::files::{copy, fresh, more_grants, on_network};
use super::place::Place;
use crate::{Result, project};
use serde::Serialize;
use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::PathBuf;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

/// The programs that run in both guests.
const PROGRAMS: [&str; 5] = ["sync", "semsync", "msgsync", "socket", "costs"];

/// Bytes of the buffer, as in the paper's figures 4 and 7.
const SIZES: [u64; 5] = [8, 64, 1024, 8192, 65_536];

/// What a message of the default limits holds, and a UDP packet.
const MESSAGE_MOST: u64 = 8192;
const PACKET_MOST: u64 = 65_507;

/// Bytes of segments.
const SEGMENTS: [u64; 3] = [4096, 1 << 20, 16 << 20];

/// Segments of each size whose making is timed, and batches that turns are timed in.
const SEGMENTS_TIMED: usize = 5;
const BATCHES: u32 = 10;

/// Seconds that all of it may take in emulation.
const LIMIT: u32 = 1200;

/// A way to take turns: its name in the figure, the program, and how many turns of each side.
struct Way {
    name: &'static str,
    program: &'static str,
    turns: u32,
    most: u64,
}

const WAYS: [Way; 5] = [
    Way {
        name: "Vshmem, spinning (sync)",
        program: "sync",
        turns: 2000,
        most: u64::MAX,
    },
    Way {
        name: "Vshmem, semop (semsync)",
        program: "semsync",
        turns: 300,
        most: u64::MAX,
    },
    Way {
        name: "Vshmem, messages (msgsync)",
        program: "msgsync",
        turns: 300,
        most: MESSAGE_MOST,
    },
    Way {
        name: "TCP",
        program: "socket tcp",
        turns: 200,
        most: u64::MAX,
    },
    Way {
        name: "UDP",
        program: "socket udp",
        turns: 200,
        most: PACKET_MOST,
    },
];

/// A measurement of both guests: what its lines are behind, and the commands of dom1 and dom2.
struct Measurement {
    title: String,
    commands: [String; 2],
}

#[derive(Serialize)]
struct Figures {
    format: &'static str,
    machine: String,
    taken: u64,
    figures: Vec<Figure>,
}

#[derive(Serialize)]
struct Figure {
    id: &'static str,
    title: &'static str,
    x_label: &'static str,
    y_label: &'static str,
    series: Vec<Series>,
}

#[derive(Serialize)]
struct Series {
    name: String,
    points: Vec<Point>,
}

#[derive(Serialize)]
struct Point {
    x: u64,
    samples: Vec<f64>,
}

/// Boots, measures, writes `target/lab/figures.json` and shows medians and ratios.
pub fn run(kind: Kind) -> Result<()> {
    let strace = strace()?;
    project::build()?;
    let mut make = Command::new("make");
    make.arg("-C").arg(project::root().join("dwarfs-c"));
    project::run(make.arg("basic"))?;
    let dir = Place::path()?.join("figures");
    fresh(&dir)?;
    for program in PROGRAMS {
        copy(&project::dwarf(program), &dir, program)?;
    }
    copy(&strace, &dir, "strace")?;
    let measurements = plan();
    for guest in 0..2 {
        let script = script(&measurements, guest);
        let path = dir.join(format!("guest{}.sh", guest + 1));
        std::fs::write(&path, script).map_err(|e| format!("{}: {e}", path.display()))?;
    }
    let mut lab = on_network(kind, 2, LIMIT, &dir)?;
    lab.args(["--dom1", "sh /lab/guest1.sh", "--dom2", "sh /lab/guest2.sh"]);
    project::run(&mut lab)?;
    let logs = Place::path()?.join("log");
    let said = [1, 2].map(|guest| {
        let path = logs.join(format!("dom{guest}.log"));
        std::fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))
    });
    let [one, two] = said;
    let (one, two) = (sections(&one?), sections(&two?));
    let figures = Figures {
        format: "vshmem-lab 1",
        machine: machine(kind, &one)?,
        taken: SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_secs()),
        figures: vec![turns(&one)?, costs(&one, &two)?],
    };
    let json = serde_json::to_string_pretty(&figures).map_err(|e| format!("figures: {e}"))?;
    let path = Place::path()?.join("figures.json");
    std::fs::write(&path, json).map_err(|e| format!("{}: {e}", path.display()))?;
    print!("{}", table(&figures, &one, &two));
    println!("written: {}", path.display());
    Ok(())
}

/// Counts the calls of drivers.
fn strace() -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|dir| dir.join("strace"))
        .find(|file| file.is_file())
        .ok_or_else(|| {
            "strace is needed, which counts ioctls in the guests: apt install strace".into()
        })
}

/// All that is measured.
fn plan() -> Vec<Measurement> {
    let mut key = 0x5600_0100;
    let mut next_key = || {
        key += 0x100;
        key
    };
    let mut all = Vec::new();
    for way in &WAYS {
        for size in SIZES.into_iter().filter(|&size| size <= way.most) {
            let options = format!("--size {size} --iters {} --batches {BATCHES}", way.turns);
            let sides = if let Some(kind) = way.program.strip_prefix("socket ") {
                let port = next_key() & 0x7fff | 0x4000;
                let at = format!("--host 192.0.2.11 --port {port} {options}");
                [
                    format!("./socket {kind} server {at}"),
                    // It listens a moment after it has started.
                    format!(
                        "for n in 1 2 3 4 5 6 7 8 9; do ./socket {kind} client {at} 2>/tmp/said && break; sleep 0.3; done || cat /tmp/said"
                    ),
                ]
            } else {
                let key = next_key();
                ["0", "1"].map(|id| {
                    format!(
                        "vshmem run --keys all -- ./{} --id {id} --key {key} {options}",
                        way.program
                    )
                })
            };
            all.push(Measurement {
                title: format!("{} {size}", way.name),
                commands: sides,
            });
        }
    }
    for size in SEGMENTS {
        let cost = |key: i32, times: usize, before: &str| {
            ["0", "1"].map(|id| {
                format!(
                    "vshmem run --keys all -- {before}./costs --id {id} --key {key} --size {size} --iters {times}"
                )
            })
        };
        all.push(Measurement {
            title: format!("costs {size}"),
            commands: cost(next_key(), SEGMENTS_TIMED, ""),
        });
        // Beside the program, the domain's vshmemd.
        let traced = cost(next_key(), 1, "./strace -f -e trace=ioctl -o /tmp/program ");
        all.push(Measurement {
            title: format!("calls {size}"),
            commands: traced.map(|command| {
                format!(
                    "./strace -f -e trace=ioctl -o /tmp/daemon -p $(head -n 1 /run/vshmem/local.pid) 2>/tmp/said & \
                     until grep -q attached /tmp/said; do sleep 0.1; done; {command}; kill $!; wait; \
                     for who in program daemon; do grep -o 'ioctl([^,]*, [A-Z_0-9a-z]*' /tmp/$who | sed \"s/ioctl([^,]*, /$who /\" | sort | uniq -c; done"
                )
            }),
        });
    }
    all
}

/// What a guest runs: a line names each measurement, and no guest begins one before the other does.
fn script(measurements: &[Measurement], guest: usize) -> String {
    let mut text = format!(
        "cd /lab\nmkdir -p /tmp\n{}\necho \"kernel $(uname -r)\"\n",
        more_grants()
    );
    let (me, other) = (guest + 1, 2 - guest);
    for (number, measurement) in measurements.iter().enumerate() {
        let _ = writeln!(
            text,
            "lab say at{number} && lab await dom{other} at{number}\necho '# {}'\n{}",
            measurement.title, measurement.commands[guest]
        );
    }
    let _ = writeln!(text, "lab say done{me} && lab await dom{other} done{other}");
    text
}

/// The lines behind each title.
fn sections(log: &str) -> BTreeMap<String, Vec<String>> {
    let mut sections = BTreeMap::new();
    let mut title = String::new();
    for line in log.lines() {
        match line.trim_end().strip_prefix("# ") {
            Some(new) => title = new.to_owned(),
            None => sections
                .entry(title.clone())
                .or_insert_with(Vec::new)
                .push(line.trim_end().to_owned()),
        }
    }
    sections
}

/// What the figures are of.
fn machine(kind: Kind, said: &BTreeMap<String, Vec<String>>) -> Result<String> {
    let kernel = said
        .get("")
        .and_then(|lines| lines.iter().find_map(|line| line.strip_prefix("kernel ")))
        .unwrap_or("?");
    let xen = std::fs::read_to_string(Place::path()?.join("log/xen.log")).unwrap_or_default();
    let xen = xen
        .lines()
        .find_map(|line| line.strip_prefix("(XEN) Xen version "))
        .unwrap_or("?");
    let xen = xen.split(' ').next().unwrap_or(xen);
    let cpu = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let cpu = cpu
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .map_or("?", |name| name.trim_start_matches([' ', '\t', ':']));
    Ok(format!(
        "Xen {xen}, two {} guests with Linux {kernel}, in QEMU on {cpu}",
        kind.word().to_uppercase()
    ))
}

/// Times behind a word, as `costs` says them, and of batches.
fn times(lines: &[String], what: &str) -> Vec<f64> {
    let number = |line: &String| {
        let rest = line.strip_prefix(what)?.strip_prefix(' ')?;
        rest.strip_suffix(" ns")?.parse().ok()
    };
    lines.iter().filter_map(number).collect()
}

fn point(said: &BTreeMap<String, Vec<String>>, title: &str, what: &str, x: u64) -> Result<Point> {
    let samples = said
        .get(title)
        .map(|lines| times(lines, what))
        .unwrap_or_default();
    if samples.is_empty() {
        return Err(format!("nothing was measured: {title} ({what})"));
    }
    Ok(Point { x, samples })
}

fn turns(said: &BTreeMap<String, Vec<String>>) -> Result<Figure> {
    let series = WAYS.iter().map(|way| {
        let sizes = SIZES.into_iter().filter(|&size| size <= way.most);
        let points = sizes.map(|size| point(said, &format!("{} {size}", way.name), "batch", size));
        Ok(Series {
            name: way.name.to_owned(),
            points: points.collect::<Result<_>>()?,
        })
    });
    Ok(Figure {
        id: "turns",
        title: "Turns between two guests",
        x_label: "buffer, bytes",
        y_label: "time of a turn (one way)",
        series: series.collect::<Result<_>>()?,
    })
}

fn costs(
    one: &BTreeMap<String, Vec<String>>,
    two: &BTreeMap<String, Vec<String>>,
) -> Result<Figure> {
    let steps = [
        ("create (granted to the other guest)", one, "create"),
        ("attach in the guest that made it", one, "attach"),
        ("find in the other guest", two, "find"),
        ("attach in the other guest", two, "attach"),
        ("touch all pages in the other guest", two, "touch"),
        ("remove", one, "remove"),
    ];
    let series = steps.iter().map(|(name, said, what)| {
        let points = SEGMENTS.map(|size| point(said, &format!("costs {size}"), what, size));
        Ok(Series {
            name: (*name).to_owned(),
            points: points.into_iter().collect::<Result<_>>()?,
        })
    });
    Ok(Figure {
        id: "costs",
        title: "What it takes to have a segment",
        x_label: "segment, bytes",
        y_label: "time of a step",
        series: series.collect::<Result<_>>()?,
    })
}

fn median(samples: &[f64]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted[sorted.len() / 2]
}

/// Medians, for people; of turns also how many times as long as spinning, and of segments the ioctls.
fn table(
    figures: &Figures,
    one: &BTreeMap<String, Vec<String>>,
    two: &BTreeMap<String, Vec<String>>,
) -> String {
    let mut text = format!("{}\n", figures.machine);
    for figure in &figures.figures {
        let _ = writeln!(text, "\n{} ({})", figure.title, figure.x_label);
        let base = &figure.series[0];
        for series in &figure.series {
            let _ = write!(text, "  {:<36}", series.name);
            for point in &series.points {
                let median_us = median(&point.samples) / 1000.0;
                let _ = write!(text, " {:>7}: {median_us:>9.1} us", point.x);
                let same = base.points.iter().find(|base| base.x == point.x);
                if let (Some(same), "turns") = (same, figure.id) {
                    let times = median(&point.samples) / median(&same.samples);
                    let _ = write!(text, " ({times:.1})");
                }
            }
            text.push('\n');
        }
    }
    text.push_str("\nioctls for one segment, from the first call to the end of the program\n");
    for size in SEGMENTS {
        for (guest, said) in [(1, one), (2, two)] {
            let _ = writeln!(text, "  {size} bytes, dom{guest}:");
            let calls = said.get(&format!("calls {size}"));
            let counted = calls.into_iter().flatten().filter(|line| {
                let mut words = line.split_whitespace();
                words.next().is_some_and(|word| word.parse::<u32>().is_ok())
                    && matches!(words.next(), Some("program" | "daemon"))
            });
            for line in counted {
                let _ = writeln!(text, "    {}", line.trim());
            }
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_belong_to_the_title_before_them() {
        let said = sections("kernel 6.1\n# a 8\nbatch 12.50 ns\r\nbatch 13.00 ns\n# b\nx\n");
        assert_eq!(times(&said["a 8"], "batch"), [12.5, 13.0]);
        assert_eq!(said["b"], ["x"]);
        assert!(point(&said, "a 8", "create", 8).is_err());
    }

    #[test]
    fn both_guests_have_each_measurement_in_the_same_order() {
        let plan = plan();
        let titles = |guest| {
            let script = script(&plan, guest);
            let lines = script.lines().filter(|line| line.starts_with("echo '# "));
            lines.map(str::to_owned).collect::<Vec<_>>()
        };
        assert_eq!(titles(0), titles(1));
        assert_eq!(titles(0).len(), plan.len());
    }
}
