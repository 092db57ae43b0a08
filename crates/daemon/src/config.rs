// SPDX-License-Identifier: MIT OR Apache-2.0
//! The configuration file, `vshmem.toml`: what both parts of `vshmemd` read when they start.
//! `docs/configuration.md` describes it. A file that is there is right in every word, or nothing
//! starts.

use crate::server::DaemonError;
use serde::Deserialize;
use std::path::Path;
use vshmem_abi::limits::MsgLimits;
use vshmem_abi::paths;

/// What the file may say.
#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    #[serde(default)]
    limits: Limits,
}

/// `[limits]`. What is not named is not raised.
#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Limits {
    #[serde(default)]
    msgmax: Limit,
    #[serde(default)]
    msgmnb: Limit,
    #[serde(default)]
    msgmni: Limit,
}

/// A limit that is raised to this; 0 where the file does not say.
#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(try_from = "i64")]
struct Limit(u64);

/// Also the largest value of the kernel's settings.
const LARGEST: i64 = i32::MAX as i64;

impl TryFrom<i64> for Limit {
    type Error = String;

    fn try_from(value: i64) -> Result<Self, String> {
        match value {
            1..=LARGEST => Ok(Self(value.unsigned_abs())),
            _ => Err(format!("a limit is a number from 1 to {LARGEST}")),
        }
    }
}

/// What the configuration raises the limits of queues to: that of `file`, or else of the first of the
/// files of `dir` that is there.
///
/// # Errors
/// A file that cannot be read, `file` also when it is not there; one that says what it may not.
pub fn read(file: Option<&Path>, dir: &Path) -> Result<MsgLimits, DaemonError> {
    if let Some(file) = file {
        return parse(file, &text(file).map_err(|error| cannot_read(file, error))?);
    }
    for file in paths::config_files(dir) {
        match text(&file) {
            Ok(text) => return parse(&file, &text),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => return Err(cannot_read(&file, error)),
        }
    }
    Ok(MsgLimits::default())
}

fn text(file: &Path) -> std::io::Result<String> {
    std::fs::read_to_string(file)
}

fn cannot_read(file: &Path, error: std::io::Error) -> DaemonError {
    DaemonError::io(format!("cannot read {}", file.display()))(error)
}

fn parse(file: &Path, text: &str) -> Result<MsgLimits, DaemonError> {
    let Limits {
        msgmax: Limit(max),
        msgmnb: Limit(mnb),
        msgmni: Limit(mni),
    } = match toml::from_str::<Config>(text) {
        Ok(config) => config.limits,
        Err(error) => {
            let at = error.span().map_or(0, |span| span.start);
            let (line, column) = place(text, at);
            return Err(DaemonError::Refused(format!(
                "{}:{line}:{column}: {}",
                file.display(),
                error.message()
            )));
        }
    };
    tracing::info!(file = %file.display(), max, mnb, mni, "configured");
    Ok(MsgLimits { max, mnb, mni })
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

    fn parsed(text: &str) -> Result<MsgLimits, String> {
        parse(Path::new("f"), text).map_err(|error| error.to_string())
    }

    #[test]
    fn limits_are_read_and_what_is_not_named_is_not_raised() {
        let text = "# Larger messages.\n[limits]\nmsgmax = 1_048_576\nmsgmni = 40000\n";
        let want = MsgLimits {
            max: 1 << 20,
            mnb: 0,
            mni: 40000,
        };
        assert_eq!(parsed(text), Ok(want));
        for nothing in ["", "\n# nothing\n", "[limits]\n"] {
            assert_eq!(parsed(nothing), Ok(MsgLimits::default()));
        }
    }

    #[test]
    fn what_the_file_may_not_say_is_refused_with_its_place() {
        let range = "a limit is a number from 1 to 2147483647";
        for (text, place, what) in [
            (
                "[limits]\nmsgmin = 1\n",
                "f:2:1: ",
                "expected one of `msgmax`, `msgmnb`, `msgmni`",
            ),
            (
                "[limit]\n",
                "f:1:2: ",
                "unknown field `limit`, expected `limits`",
            ),
            ("[limits]\n  msgmax = 0\n", "f:2:12: ", range),
            ("[limits]\nmsgmax = -1\n", "f:2:10: ", range),
            ("[limits]\nmsgmax = 2147483648\n", "f:2:10: ", range),
            (
                "[limits]\nmsgmax = \"8K\"\n",
                "f:2:10: ",
                "invalid type: string",
            ),
            ("limits = 5\n", "f:1:10: ", "invalid type: integer"),
            (
                "[limits]\nmsgmax = 1\nmsgmax = 2\n",
                "f:3:1: ",
                "duplicate key",
            ),
            ("[limits]\nmsgmax =\n", "f:2:", ""),
        ] {
            let error = parsed(text).unwrap_err();
            assert!(error.starts_with(place) && error.contains(what), "{error}");
        }
    }

    #[test]
    fn a_file_that_is_named_has_to_be_there_and_comes_before_that_of_the_directory() {
        let dir = tempfile::tempdir().unwrap();
        let named = dir.path().join("named");
        assert!(read(Some(&named), dir.path()).is_err());
        std::fs::write(&named, "[limits]\nmsgmnb = 7\n").unwrap();
        std::fs::write(dir.path().join("vshmem.toml"), "[limits]\nmsgmnb = 8\n").unwrap();
        let mnb = |file| read(file, dir.path()).unwrap().mnb;
        assert_eq!((mnb(Some(named.as_path())), mnb(None)), (7, 8));
    }
}
