// SPDX-License-Identifier: MIT OR Apache-2.0
//! The runs that are done, in a file that grows by a line a run: whoever interrupts a report goes on
//! from there.

use crate::launch::Run;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::path::{Path, PathBuf};
use vshmem_bench::Result;

/// Which run it is.
#[derive(Clone, Debug, Deserialize, Eq, Hash, PartialEq, Serialize)]
pub struct Which {
    pub figure: String,
    pub series: String,
    pub size: u64,
    pub round: usize,
}

/// What has to be the same for runs to belong to one report.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct Header {
    pub format: String,
    pub quick: bool,
    pub cpu: String,
    pub kernel: String,
    /// Whether all runs before everything of ordinary priority.
    pub real_time: bool,
    /// When the programs that are measured were built, in nanoseconds since the epoch.
    pub built: Vec<u128>,
}

#[derive(Deserialize, Serialize)]
struct Line {
    #[serde(flatten)]
    which: Which,
    run: Run,
}

/// The file, and what is in it.
pub struct Journal {
    path: PathBuf,
    file: File,
    done: HashMap<Which, Run>,
}

impl Journal {
    /// Opens the journal in `path`; one that was written under another header begins anew.
    pub fn open(path: &Path, header: &Header) -> Result<Self> {
        let fail = |error| format!("{}: {error}", path.display());
        let text = match std::fs::read_to_string(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => String::new(),
            text => text.map_err(fail)?,
        };
        let mut lines = text.lines();
        let first = lines
            .next()
            .and_then(|line| serde_json::from_str(line).ok());
        let mut options = OpenOptions::new();
        let mut done = HashMap::new();
        let file = if first.as_ref() == Some(header) {
            // Whoever wrote the last line may not have come to its end.
            let read = lines.filter_map(|line| serde_json::from_str::<Line>(line).ok());
            done.extend(read.map(|line| (line.which, line.run)));
            let mut file = options.append(true).open(path).map_err(fail)?;
            if !text.ends_with('\n') {
                file.write_all(b"\n")?;
            }
            file
        } else {
            let mut file = options
                .write(true)
                .create(true)
                .truncate(true)
                .open(path)
                .map_err(fail)?;
            writeln!(file, "{}", serde_json::to_string(header)?)?;
            file
        };
        Ok(Self {
            path: path.to_owned(),
            file,
            done,
        })
    }

    /// How many runs it has.
    pub fn len(&self) -> usize {
        self.done.len()
    }

    /// A run, if it is done.
    pub fn get(&self, which: &Which) -> Option<&Run> {
        self.done.get(which)
    }

    /// Adds a run.
    pub fn add(&mut self, which: Which, run: Run) -> Result<()> {
        let line = Line { which, run };
        let mut text = serde_json::to_string(&line)?;
        text.push('\n');
        self.file
            .write_all(text.as_bytes())
            .map_err(|error| format!("{}: {error}", self.path.display()))?;
        self.done.insert(line.which, line.run);
        Ok(())
    }

    /// Removes the file: all that it has is elsewhere now.
    pub fn remove(self) -> Result<()> {
        Ok(std::fs::remove_file(self.path)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(quick: bool) -> Header {
        Header {
            format: "test".into(),
            quick,
            cpu: "one".into(),
            kernel: "two".into(),
            real_time: false,
            built: vec![3],
        }
    }

    fn which(round: usize) -> Which {
        Which {
            figure: "figure".into(),
            series: "series".into(),
            size: 8,
            round,
        }
    }

    fn run() -> Run {
        Run {
            batches: vec![1.5],
            mean: 1.5,
            iters: 7,
            setup: None,
            whole: 9.0,
        }
    }

    #[test]
    fn what_was_added_is_there_again_also_after_a_line_that_was_not_finished() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        let mut journal = Journal::open(&path, &header(true)).unwrap();
        journal.add(which(0), run()).unwrap();
        drop(journal);
        let mut file = OpenOptions::new().append(true).open(&path).unwrap();
        file.write_all(b"{\"figure\":\"fig").unwrap();
        let mut journal = Journal::open(&path, &header(true)).unwrap();
        assert_eq!((journal.len(), journal.get(&which(0))), (1, Some(&run())));
        journal.add(which(1), run()).unwrap();
        let journal = Journal::open(&path, &header(true)).unwrap();
        assert_eq!((journal.len(), journal.get(&which(1))), (2, Some(&run())));
        assert_eq!(journal.get(&which(2)), None);
    }

    #[test]
    fn runs_of_another_form_are_not_taken() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal");
        let mut journal = Journal::open(&path, &header(true)).unwrap();
        journal.add(which(0), run()).unwrap();
        assert_eq!(Journal::open(&path, &header(false)).unwrap().len(), 0);
        assert_eq!(Journal::open(&path, &header(false)).unwrap().len(), 0);
    }
}
