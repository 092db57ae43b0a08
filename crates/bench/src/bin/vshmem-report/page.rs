// SPDX-License-Identifier: MIT OR Apache-2.0
//! The report as one page of HTML with the figures in it.

use crate::claims::setups;
use crate::lab::{Lab, LabFigure};
use crate::measured::{MeasuredFigure, MeasuredPoint, Report};
use crate::plot::{Chart, Curve, Dot, draw};
use std::fmt::Write;
use std::path::Path;
use std::time::{Duration, UNIX_EPOCH};
use vshmem_bench::Result;
use vshmem_bench::stats::{median, percentile, time};

const STYLE: &str = "body{font:15px/1.5 sans-serif;max-width:62em;margin:2em auto;padding:0 1em;color:#222}\
h1,h2{line-height:1.2}h2{margin-top:2.2em}table{border-collapse:collapse;margin:1em 0;font-size:13px}\
td,th{border-bottom:1px solid #ccc;padding:.25em .6em;text-align:right;vertical-align:top}\
td:first-child,th:first-child,table.text td,table.text th{text-align:left}\
svg{max-width:100%;height:auto}.note{background:#fff3cd;padding:.6em 1em}\
.yes{color:#00643c}.no{color:#b02a00}summary{cursor:pointer;margin:.5em 0}";

/// Writes the page, and the figures beside it.
pub fn write(report: &Report, dir: &Path) -> Result<()> {
    let mut page = String::new();
    let out = &mut page;
    writeln!(
        out,
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n\
         <title>Vshmem: the paper's figures</title>\n<style>{STYLE}</style>\n\
         <h1>Vshmem: the paper's figures, measured again</h1>"
    )?;
    head(out, report)?;
    writeln!(out, "<h2>What the paper says, and what was measured</h2>")?;
    let claims = report.claims.iter().map(|claim| {
        let word = verdict(claim.agrees, "agrees", "differs");
        [
            claim.paper.into(),
            escape(claim.claim),
            escape(&claim.measured),
            word,
            escape(claim.why),
        ]
    });
    table(
        out,
        "text",
        &["where", "the paper", "here", "", "because"],
        claims,
    )?;
    writeln!(out, "<h2>What is wanted</h2>")?;
    let goals = report.goals.iter().map(|goal| {
        let word = verdict(goal.met, "met", "not met");
        [
            escape(goal.goal),
            escape(&goal.measured),
            word,
            escape(goal.why),
        ]
    });
    table(out, "text", &["goal", "measured", "", "because"], goals)?;
    set_up(out, report)?;
    for figure in &report.figures {
        writeln!(
            out,
            "<h2>{} <small>({})</small></h2>",
            escape(figure.title),
            figure.paper
        )?;
        for picture in &figure.pictures {
            let chart = chart(figure, picture.title, picture.series);
            writeln!(out, "{}", draw(&chart, dir, picture.file)?)?;
        }
        medians(out, figure)?;
        details(out, figure)?;
    }
    if let Some(lab) = &report.lab {
        emulated(out, lab, dir)?;
    }
    writeln!(out, "</html>")?;
    Ok(std::fs::write(dir.join("index.html"), page)?)
}

/// Where and how.
fn head(out: &mut String, report: &Report) -> Result<()> {
    if report.quick {
        writeln!(
            out,
            "<p class=\"note\">This is the quick form: it shows that everything works. Its runs are too few \
             and too short to judge by.</p>"
        )?;
    }
    writeln!(
        out,
        "<p>The programs of <code>dwarfs-c</code>, run on the kernel's own System V, through Vshmem in one \
         and in two domains of this machine, with OpenMP and with MPI. The variants took turns, run by run, \
         {} runs each. Curves go through the medians; a thin line goes from the shortest to the longest \
         sample (a sample is the mean of a tenth of a run). Both axes are logarithmic.</p>",
        report.rounds
    )?;
    let machine = &report.machine;
    let guest = if machine.virtual_machine {
        ", a virtual machine"
    } else {
        ""
    };
    let rows = [
        [
            "machine",
            &format!("{}, {} cores{guest}", machine.cpu, machine.cores),
        ],
        ["kernel", &format!("Linux {}", machine.kernel)],
        ["huge pages of shared memory", &machine.huge_pages],
        ["load before", &machine.load],
        [
            "priority",
            if machine.real_time {
                "real time"
            } else {
                "ordinary"
            },
        ],
        [
            "workers",
            &format!("{} ({})", report.workers, report.pinning),
        ],
        ["compiler, OpenMP", &machine.gcc],
        ["C library", &machine.libc],
        ["MPI", &machine.mpi],
        ["Vshmem", machine.vshmem],
        ["taken", &date(report.taken)],
    ];
    let rows = rows.map(|row| row.map(escape));
    table(out, "text", &[], rows.into_iter())
}

fn set_up(out: &mut String, report: &Report) -> Result<()> {
    writeln!(
        out,
        "<h2>Set-up apart</h2>\n<p>At the smallest size of each dwarf, where it weighs most: the time of all \
         calls of System V that make, find and remove what the two workers share (those of the first and of \
         the slower other), and the whole from the start of both processes to their end.</p>"
    )?;
    let heads = [
        "",
        "set-up, System V",
        "Vshmem, one domain",
        "Vshmem, two",
        "set-up and iterations, ratio",
        "whole, System V",
        "whole, Vshmem, two",
        "ratio",
    ];
    table(out, "", &heads, setups(&report.figures).into_iter())
}

/// A figure with some of its series, or all where none is named.
fn chart(figure: &MeasuredFigure, title: &str, ids: &[&str]) -> Chart {
    let shown = |id| ids.is_empty() || ids.contains(&id);
    let scale = f64::from(figure.iterations);
    let curves = figure.series.iter().filter(|series| shown(series.id));
    let curves = curves.map(|series| Curve {
        id: series.id.into(),
        name: series.name.into(),
        dots: series
            .points
            .iter()
            .map(|point| dot(point, scale))
            .collect(),
    });
    Chart {
        title: title.into(),
        x_label: figure.x_label.into(),
        y_label: figure.y_label.into(),
        curves: curves.collect(),
    }
}

fn dot(point: &MeasuredPoint, scale: f64) -> Dot {
    Dot {
        x: point.x as f64,
        median: point.median * scale,
        min: point.min * scale,
        max: point.max * scale,
    }
}

/// Sizes down, series across.
fn medians(out: &mut String, figure: &MeasuredFigure) -> Result<()> {
    let scale = f64::from(figure.iterations);
    let heads = [figure.x_label]
        .into_iter()
        .chain(figure.series.iter().map(|series| series.name));
    let heads = heads.collect::<Vec<_>>();
    let sizes = figure
        .series
        .iter()
        .map(|series| &series.points)
        .max_by_key(|points| points.len());
    let rows = sizes.into_iter().flatten().map(|size| {
        let cells = figure.series.iter().map(|series| {
            let point = series.points.iter().find(|point| point.x == size.x);
            point.map_or("-".into(), |point| time(point.median * scale))
        });
        [size.x.to_string()]
            .into_iter()
            .chain(cells)
            .collect::<Vec<_>>()
    });
    writeln!(out, "<p>Medians, {}:</p>", figure.y_label)?;
    table(out, "", &heads, rows)
}

/// Everything that is known of each point.
fn details(out: &mut String, figure: &MeasuredFigure) -> Result<()> {
    let scale = f64::from(figure.iterations);
    let points = figure
        .series
        .iter()
        .flat_map(|series| series.points.iter().map(move |p| (series.name, p)));
    let rows = points.map(|(name, point)| {
        let scaled = |ns: f64| time(ns * scale);
        let (low, high) = point.ratio_bounds;
        [
            name.to_owned(),
            point.x.to_string(),
            scaled(point.median),
            scaled(point.p50),
            scaled(point.p99),
            format!("{} - {}", scaled(point.min), scaled(point.max)),
            format!("{:.3} ({low:.3} - {high:.3})", point.ratio),
            point.setup.map_or("-".into(), time),
            time(point.whole),
        ]
    });
    writeln!(out, "<details><summary>All figures of each point</summary>")?;
    let heads = [
        "series",
        figure.x_label,
        "median of runs",
        "p50",
        "p99",
        "min - max",
        "ratio to System V (95 %)",
        "set-up",
        "whole run",
    ];
    table(out, "", &heads, rows)?;
    Ok(writeln!(out, "</details>")?)
}

/// What the lab left.
fn emulated(out: &mut String, lab: &Lab, dir: &Path) -> Result<()> {
    writeln!(
        out,
        "<h2>Between guests, emulated</h2>\n<p class=\"note\">These figures are of real guests, but of a \
         machine that is <b>emulated</b>: they show that it works and how the ways compare with each other. \
         Their times say nothing about a real machine, and are not to be put beside those above.</p>\n\
         <p>{}; taken {}.</p>",
        escape(&lab.machine),
        date(lab.taken)
    )?;
    for figure in &lab.figures {
        let chart = lab_chart(figure);
        writeln!(out, "{}", draw(&chart, dir, &format!("lab-{}", figure.id))?)?;
        let rows = figure.series.iter().flat_map(|series| {
            series.points.iter().map(|point| {
                let part = |percent| time(percentile(&point.samples, percent));
                [
                    escape(&series.name),
                    point.x.to_string(),
                    time(median(&point.samples)),
                    part(50.0),
                    part(99.0),
                    format!("{} - {}", part(0.0), part(100.0)),
                ]
            })
        });
        let label = escape(&figure.x_label);
        let heads = [
            "series (emulated)",
            &label,
            "median",
            "p50",
            "p99",
            "min - max",
        ];
        table(out, "", &heads, rows)?;
    }
    Ok(())
}

fn lab_chart(figure: &LabFigure) -> Chart {
    let curves = figure.series.iter().map(|series| Curve {
        id: String::new(),
        name: series.name.clone(),
        dots: series
            .points
            .iter()
            .map(|point| Dot {
                x: point.x as f64,
                median: median(&point.samples),
                min: percentile(&point.samples, 0.0),
                max: percentile(&point.samples, 100.0),
            })
            .collect(),
    });
    Chart {
        title: format!("Emulated: {}", figure.title),
        x_label: figure.x_label.clone(),
        y_label: figure.y_label.clone(),
        curves: curves.collect(),
    }
}

/// A table of cells that are HTML already.
fn table<R: AsRef<[String]>>(
    out: &mut String,
    class: &str,
    heads: &[&str],
    rows: impl Iterator<Item = R>,
) -> Result<()> {
    writeln!(out, "<table class=\"{class}\">")?;
    if !heads.is_empty() {
        let cells = heads.iter().map(|head| format!("<th>{head}</th>"));
        writeln!(out, "<tr>{}</tr>", cells.collect::<String>())?;
    }
    for row in rows {
        let cells = row.as_ref().iter().map(|cell| format!("<td>{cell}</td>"));
        writeln!(out, "<tr>{}</tr>", cells.collect::<String>())?;
    }
    Ok(writeln!(out, "</table>")?)
}

fn verdict(good: bool, yes: &str, no: &str) -> String {
    let (class, word) = if good { ("yes", yes) } else { ("no", no) };
    format!("<span class=\"{class}\">{word}</span>")
}

/// A time in seconds since the epoch, for people.
fn date(seconds: u64) -> String {
    humantime::format_rfc3339_seconds(UNIX_EPOCH + Duration::from_secs(seconds)).to_string()
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}
