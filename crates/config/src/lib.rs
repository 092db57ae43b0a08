// SPDX-License-Identifier: MIT OR Apache-2.0
//! The configuration file, `vshmem.toml`: what both parts of `vshmemd` read, and the command checks.
//! `docs/configuration.md` describes it. A file that is there is right in every word, or nothing
//! starts with it.
//!
//! [`file`] is what may be written, [`policy`] what the policy in it allows, [`metrics`] where numbers are
//! read; reading the file is here.

mod file;
pub mod metrics;
pub mod policy;

pub use file::DomainSpec;
pub use metrics::Listen;
pub use policy::Policy;

use std::path::{Path, PathBuf};
use vshmem_abi::limits::MsgLimits;
use vshmem_abi::paths;

/// Why a configuration is of no use. One line for the operator.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read, or is not there.
    #[error("cannot read {}: {source}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the kernel says.
        source: std::io::Error,
    },
    /// It says what it may not.
    #[error("{}:{line}:{column}: {what}", path.display())]
    Wrong {
        /// The file.
        path: PathBuf,
        /// Where, from 1.
        line: usize,
        /// Where in the line, in characters from 1.
        column: usize,
        /// What is wrong, and the nearest right word where there is one.
        what: String,
    },
}

/// What the file says.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// The file that says so; `None`: there is none.
    pub file: Option<PathBuf>,
    /// The limits of queues are raised to these; 0 where one is not.
    pub raised: MsgLimits,
    /// The domain that memory is made for, where that has to be one.
    pub peer: Option<DomainSpec>,
    /// Where the numbers of a daemon are read, if they are.
    pub metrics: Option<Listen>,
    /// Which domains may use which keys, and how much each may make.
    pub policy: Policy,
}

/// What the configuration says: `file`, or else the first of the files of `dir` that is there.
///
/// # Errors
/// A file that cannot be read, `file` also when it is not there; one that says what it may not.
pub fn read(file: Option<&Path>, dir: &Path) -> Result<Settings, ConfigError> {
    if let Some(file) = file {
        return read_file(file).map_err(|error| unreadable(file, error))?;
    }
    for file in paths::config_files(dir) {
        match read_file(&file) {
            Ok(read) => return read,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(unreadable(&file, error)),
        }
    }
    Ok(Settings::default())
}

fn read_file(file: &Path) -> std::io::Result<Result<Settings, ConfigError>> {
    let text = std::fs::read_to_string(file)?;
    Ok(parse(file, &text))
}

fn unreadable(path: &Path, source: std::io::Error) -> ConfigError {
    let path = path.to_owned();
    ConfigError::Unreadable { path, source }
}

/// What `text`, the contents of `path`, says.
///
/// # Errors
/// What is wrong with it, and where.
pub fn parse(path: &Path, text: &str) -> Result<Settings, ConfigError> {
    file::settings(path, text).map_err(|file::Mistake { at, what }| {
        let (line, column) = place(text, at);
        ConfigError::Wrong {
            path: path.to_owned(),
            line,
            column,
            what,
        }
    })
}

/// Line and column, from 1, of the byte at an offset.
fn place(text: &str, at: usize) -> (usize, usize) {
    let before = text.get(..at).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let start = before.rfind('\n').map_or(0, |end| end + 1);
    let column = before.get(start..).unwrap_or("").chars().count() + 1;
    (line, column)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_is_named_has_to_be_there_and_comes_before_that_of_the_directory() {
        let dir = tempfile::tempdir().unwrap();
        let named = dir.path().join("named");
        let missing = read(Some(&named), dir.path()).unwrap_err().to_string();
        assert!(missing.starts_with("cannot read /"), "{missing}");
        std::fs::write(&named, "[limits]\nmsgmnb = 7\n").unwrap();
        let own = dir.path().join("vshmem.toml");
        std::fs::write(&own, "[limits]\nmsgmnb = 8\n").unwrap();
        let said = |file| read(file, dir.path()).unwrap();
        assert_eq!(said(Some(named.as_path())).raised.mnb, 7);
        let settings = said(None);
        assert_eq!((settings.raised.mnb, settings.file), (8, Some(own)));
    }
}
