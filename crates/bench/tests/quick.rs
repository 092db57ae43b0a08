// SPDX-License-Identifier: MIT OR Apache-2.0
//! `vshmem-bench --quick` runs, and what it writes can be read. How fast anything is, no test
//! judges.

use serde_json::Value;
use std::process::Command;
use vshmem_tests::{bin, stdout_of};

fn bench() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_vshmem-bench"));
    let vshmem = bin("vshmem");
    command.env("VSHMEM_BIN_DIR", vshmem.parent().expect("a directory"));
    command
}

/// Runs the cases that begin with `only` and returns the report.
fn quick(only: &str) -> Value {
    let dir = tempfile::tempdir().expect("tempdir");
    let json = dir.path().join("report.json");
    let mut command = bench();
    command
        .args(["--quick", "--only", only, "--json"])
        .arg(&json);
    let table = stdout_of(command);
    assert!(table.contains(only), "{table}");
    let text = std::fs::read_to_string(&json).expect("the report");
    serde_json::from_str(&text).expect("JSON")
}

#[test]
fn each_side_of_each_result_has_samples_and_the_machine_is_named() {
    for only in [
        "cycle-4k",
        "sync-8-across",
        "attach-16m-across",
        "sem-one-across",
        "sem-ping-free-across",
        "sem-mutex-2",
        "start-true",
    ] {
        let report = quick(only);
        assert_eq!(report["quick"], true);
        for field in ["cpu", "kernel", "gcc"] {
            assert_ne!(report["machine"][field], "", "{field}");
        }
        let results = report["results"].as_array().expect("results");
        assert!(!results.is_empty());
        for result in results {
            assert_eq!(result["name"], only);
            for side in ["native", "routed"] {
                let runs = result[side]["runs"].as_array().expect("runs");
                assert!(runs.len() as u64 >= report["pairs"].as_u64().expect("pairs"));
                for run in runs {
                    let samples = run.as_array().expect("samples");
                    let positive = |s: &Value| s.as_f64().is_some_and(|ns| ns > 0.0);
                    assert!(!samples.is_empty() && samples.iter().all(positive), "{run}");
                }
            }
        }
    }
}

#[test]
fn a_name_that_no_case_has_is_refused() {
    let output = bench().args(["--only", "nonesuch"]).output().expect("runs");
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("--list"), "{said}");
}
