// SPDX-License-Identifier: MIT OR Apache-2.0
//! Figures that a lab of real guests has measured, from a file that it leaves (docs/report.md has
//! the format). They stand beside the others and are never put into one figure with them: the
//! machine that the guests run on is emulated.

use serde::{Deserialize, Serialize};
use std::io::ErrorKind;
use std::path::Path;
use vshmem_bench::Result;

/// The layout that is read.
const FORMAT: &str = "vshmem-lab 1";
/// The year 10000, which no date of the page reaches.
const TAKEN_BELOW: u64 = 253_402_300_800;

/// The file.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Lab {
    pub format: String,
    /// What the guests run on, in words: hypervisor, emulator, kernels, their versions.
    pub machine: String,
    /// When, in seconds since the epoch.
    pub taken: u64,
    pub figures: Vec<LabFigure>,
}

/// A figure.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct LabFigure {
    /// Names its files: lower-case letters, digits and hyphens.
    pub id: String,
    pub title: String,
    /// What `x` is.
    pub x_label: String,
    /// What a sample is the time of.
    pub y_label: String,
    pub series: Vec<LabSeries>,
}

/// A curve.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct LabSeries {
    pub name: String,
    pub points: Vec<LabPoint>,
}

/// A size, and every sample of it in nanoseconds.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
#[serde(deny_unknown_fields)]
pub struct LabPoint {
    pub x: u64,
    pub samples: Vec<f64>,
}

/// Reads the file; there may be none.
pub fn read(path: &Path) -> Result<Option<Lab>> {
    let text = match std::fs::read_to_string(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        text => text.map_err(|error| format!("{}: {error}", path.display()))?,
    };
    let lab = parse(&text).map_err(|error| {
        format!(
            "{}: {error}; see docs/report.md for the format",
            path.display()
        )
    })?;
    Ok(Some(lab))
}

fn parse(text: &str) -> Result<Lab> {
    let lab: Lab = serde_json::from_str(text)?;
    if lab.format != FORMAT {
        return Err(format!("the format is '{}', not '{FORMAT}'", lab.format).into());
    }
    if lab.taken >= TAKEN_BELOW {
        return Err("'taken' is not in seconds since the epoch".into());
    }
    for figure in &lab.figures {
        let fine = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
        if figure.id.is_empty() || !figure.id.chars().all(fine) {
            return Err(format!("'{}' is no id of a figure", figure.id).into());
        }
        for point in figure.series.iter().flat_map(|series| &series.points) {
            if point.x == 0 || !point.samples.iter().all(|&ns| ns > 0.0) || point.samples.is_empty()
            {
                let id = &figure.id;
                return Err(format!("{id}: a point has x from 1 on, and times above 0").into());
            }
        }
    }
    Ok(lab)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = r#"{"format": "vshmem-lab 1", "machine": "Xen", "taken": 1, "figures": [
        {"id": "sync", "title": "Sync", "x_label": "bytes", "y_label": "a turn", "series": [
            {"name": "Vshmem", "points": [{"x": 8, "samples": [100.5, 99]}]}]}]}"#;

    #[test]
    fn a_file_as_described_is_read() {
        let lab = parse(GOOD).unwrap();
        assert_eq!(lab.figures[0].series[0].points[0].samples, [100.5, 99.0]);
    }

    #[test]
    fn files_that_are_not_as_described_are_refused_with_a_reason() {
        for (from, to, reason) in [
            ("vshmem-lab 1", "vshmem-lab 2", "format"),
            ("\"sync\"", "\"../sync\"", "no id"),
            ("\"x\": 8", "\"x\": 0", "x from 1 on"),
            ("100.5", "-1", "times above 0"),
            ("\"taken\": 1,", "", "taken"),
            ("\"machine\"", "\"engine\"", "engine"),
            ("\"taken\": 1", "\"taken\": 1000000000000", "epoch"),
        ] {
            let error = parse(&GOOD.replace(from, to)).unwrap_err().to_string();
            assert!(error.contains(reason), "{error}");
        }
    }

    #[test]
    fn without_a_lab_there_is_no_file() {
        assert_eq!(read(Path::new("/nonesuch")).unwrap(), None);
    }
}
