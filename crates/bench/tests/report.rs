// SPDX-License-Identifier: MIT OR Apache-2.0
//! `vshmem-report --quick` runs, and its JSON has every figure and every series with every sample.
//! How fast anything is, no test judges.

use serde_json::Value;
use std::path::Path;
use std::process::{Command, Stdio};
use vshmem_tests::{bin, stdout_of, wait_until};

/// Figures of the paper, and how many series each has.
const FIGURES: [(&str, usize); 11] = [
    ("latency", 12),
    ("fig8-blas1-float", 6),
    ("fig8-blas1-double", 6),
    ("fig8-blas2-float", 6),
    ("fig8-blas2-double", 6),
    ("fig8-blas3-float", 6),
    ("fig8-blas3-double", 6),
    ("fig9-laplace", 8),
    ("fig10-pi", 6),
    ("fig11-md-2d", 6),
    ("fig11-md-3d", 6),
];

/// Files of the pictures, without their extension.
const PICTURES: [&str; 14] = [
    "fig4",
    "fig7",
    "fig7-beside",
    "fig8-blas1-float",
    "fig8-blas1-double",
    "fig8-blas2-float",
    "fig8-blas2-double",
    "fig8-blas3-float",
    "fig8-blas3-double",
    "fig9-laplace",
    "fig10-pi",
    "fig11-md-2d",
    "fig11-md-3d",
    "lab-sync",
];

const LAB: &str = r#"{"format": "vshmem-lab 1", "machine": "a lab & its guests", "taken": 1,
    "figures": [{"id": "sync", "title": "Sync between two guests", "x_label": "bytes",
    "y_label": "a turn", "series": [{"name": "Vshmem", "points": [
    {"x": 8, "samples": [1000, 1100.5]}, {"x": 64, "samples": [1200]}]}]}]}"#;

fn report(dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vshmem-report"));
    let vshmem = bin("vshmem");
    command
        .env("VSHMEM_BIN_DIR", vshmem.parent().expect("a directory"))
        .args(["--quick", "--out"])
        .arg(dir)
        .arg("--lab")
        .arg(dir.join("figures.json"));
    command
}

/// How many runs the journal of an unfinished report has.
fn runs_in_journal(dir: &Path) -> usize {
    let text = std::fs::read_to_string(dir.join("unfinished.jsonl")).unwrap_or_default();
    text.lines().count().saturating_sub(1)
}

fn above_zero(value: &Value) -> bool {
    value.as_f64().is_some_and(|number| number > 0.0)
}

/// Each point has as many runs as there are rounds, each with samples, and what follows from them.
fn check_points(figure: &Value, series: &Value, rounds: usize) {
    let what = format!("{} {}", figure["id"], series["id"]);
    let points = series["points"].as_array().expect("points");
    assert!(points.len() >= 2, "{what}");
    for point in points {
        let runs = point["runs"].as_array().expect("runs");
        assert_eq!(runs.len(), rounds, "{what}");
        for run in runs {
            let batches = run["batches"].as_array().expect("batches");
            assert!(!batches.is_empty() && batches.iter().all(above_zero));
        }
        for field in [
            "median", "p50", "p99", "min", "max", "ratio", "whole", "total",
        ] {
            assert!(
                above_zero(&point[field]),
                "{what}: {field}: {}",
                point[field]
            );
        }
        let has_set_up = figure["id"] != "latency";
        assert_eq!(point["setup"].is_number(), has_set_up, "{what}");
    }
}

#[test]
fn an_interrupted_report_goes_on_and_has_every_figure_and_series_and_the_lab() {
    let dir = tempfile::tempdir().expect("tempdir");
    std::fs::write(dir.path().join("figures.json"), LAB).expect("the lab's file");

    // It is interrupted as soon as some runs are done.
    let mut first = report(dir.path())
        .stderr(Stdio::null())
        .spawn()
        .expect("runs");
    wait_until("some runs are done", || runs_in_journal(dir.path()) > 3);
    let pid = nix::unistd::Pid::from_raw(first.id().cast_signed());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM).expect("kill");
    assert_eq!(first.wait().expect("wait").code(), Some(1));
    let done = runs_in_journal(dir.path());
    assert!(done > 3);

    let output = report(dir.path()).output().expect("runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}");
    assert!(
        said.contains(&format!("going on after {done} of ")),
        "{said}"
    );
    assert!(!dir.path().join("unfinished.jsonl").exists());

    let text = std::fs::read_to_string(dir.path().join("report.json")).expect("JSON");
    let json: Value = serde_json::from_str(&text).expect("JSON");
    for field in ["cpu", "kernel", "gcc", "mpi", "libc"] {
        assert_ne!(json["machine"][field], "", "{field}");
    }
    let rounds = json["rounds"].as_u64().expect("rounds") as usize;
    let figures = json["figures"].as_array().expect("figures");
    let found = figures.iter().map(|figure| {
        let series = figure["series"].as_array().expect("series");
        for series in series {
            check_points(figure, series, rounds);
        }
        (figure["id"].as_str().expect("id"), series.len())
    });
    assert_eq!(found.collect::<Vec<_>>(), FIGURES);
    for list in ["claims", "goals"] {
        let list = json[list].as_array().expect("a list");
        assert!(list.iter().all(|entry| entry["measured"] != ""), "{list:?}");
        assert!(list.len() >= 5);
    }
    assert_eq!(json["lab"]["figures"][0]["id"], "sync");

    let page = std::fs::read_to_string(dir.path().join("index.html")).expect("the page");
    assert_eq!(page.matches("<svg ").count(), PICTURES.len());
    for text in ["a lab &amp; its guests", "<b>emulated</b>", "quick form"] {
        assert!(page.contains(text), "{text}");
    }
    for picture in PICTURES {
        for extension in ["svg", "png"] {
            let file = dir.path().join(picture).with_extension(extension);
            assert!(
                file.metadata().is_ok_and(|file| file.len() > 1000),
                "{file:?}"
            );
        }
    }
}

#[test]
fn a_lab_that_cannot_be_read_is_told_before_anything_runs() {
    let dir = tempfile::tempdir().expect("tempdir");
    std::fs::write(dir.path().join("figures.json"), "{}").expect("the lab's file");
    let output = report(dir.path()).output().expect("runs");
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("docs/report.md"), "{said}");
    assert!(!dir.path().join("unfinished.jsonl").exists());
}

#[test]
fn its_options_are_told() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vshmem-report"));
    command.arg("--help");
    assert!(stdout_of(command).contains("--quick"));
}
