// SPDX-License-Identifier: MIT OR Apache-2.0
//! The configuration file, `vshmem.toml`: what both parts of `vshmemd` read when they start.
//! `docs/configuration.md` describes it. A file that is there is right in every word, or nothing
//! starts.

use crate::front::Peer;
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
    #[serde(default)]
    xen: Xen,
}

/// `[xen]`: what counts for domains of Xen only.
#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
struct Xen {
    peer: Option<Peer>,
}

/// What the file says.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Settings {
    /// The limits of queues are raised to these.
    pub raised: MsgLimits,
    /// The domain that memory is made for, where that has to be one.
    pub peer: Option<Peer>,
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

/// What the configuration says: `file`, or else the first of the files of `dir` that is there.
///
/// # Errors
/// A file that cannot be read, `file` also when it is not there; one that says what it may not.
pub fn read(file: Option<&Path>, dir: &Path) -> Result<Settings, DaemonError> {
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
    Ok(Settings::default())
}

fn text(file: &Path) -> std::io::Result<String> {
    std::fs::read_to_string(file)
}

fn cannot_read(file: &Path, error: std::io::Error) -> DaemonError {
    DaemonError::io(format!("cannot read {}", file.display()))(error)
}

fn parse(file: &Path, text: &str) -> Result<Settings, DaemonError> {
    let config = match toml::from_str::<Config>(text) {
        Ok(config) => config,
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
    let Limits {
        msgmax: Limit(max),
        msgmnb: Limit(mnb),
        msgmni: Limit(mni),
    } = config.limits;
    let peer = config.xen.peer;
    tracing::info!(file = %file.display(), max, mnb, mni, ?peer, "configured");
    Ok(Settings {
        raised: MsgLimits { max, mnb, mni },
        peer,
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

    fn parsed(text: &str) -> Result<Settings, String> {
        parse(Path::new("f"), text).map_err(|error| error.to_string())
    }

    fn limits(text: &str) -> Result<MsgLimits, String> {
        parsed(text).map(|settings| settings.raised)
    }

    #[test]
    fn limits_are_read_and_what_is_not_named_is_not_raised() {
        let text = "# Larger messages.\n[limits]\nmsgmax = 1_048_576\nmsgmni = 40000\n";
        let want = MsgLimits {
            max: 1 << 20,
            mnb: 0,
            mni: 40000,
        };
        assert_eq!(limits(text), Ok(want));
        for nothing in ["", "\n# nothing\n", "[limits]\n"] {
            assert_eq!(parsed(nothing), Ok(Settings::default()));
        }
    }

    #[test]
    fn a_peer_is_a_name_or_a_number() {
        let peer = |text| parsed(text).map(|settings| settings.peer);
        let name = Peer::Name("beta".to_owned());
        assert_eq!(peer("[xen]\npeer = \"beta\"\n"), Ok(Some(name)));
        assert_eq!(peer("[xen]\npeer = 7\n"), Ok(Some(Peer::Domid(7))));
        assert_eq!(peer("[xen]\n"), Ok(None));
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
                "unknown field `limit`, expected `limits` or `xen`",
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
            ("[xen]\npeer = -1\n", "f:2:8: ", "the name of a domain"),
            ("[xen]\npeer = 70000\n", "f:2:8: ", "or its number"),
            ("[xen]\npear = 1\n", "f:2:1: ", "expected `peer`"),
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
        let mnb = |file| read(file, dir.path()).unwrap().raised.mnb;
        assert_eq!((mnb(Some(named.as_path())), mnb(None)), (7, 8));
    }

    /// The names that may stand where `nonsense` does, as the error says.
    fn names(text: &str) -> Vec<String> {
        let error = parsed(text).unwrap_err();
        let (_, expected) = error.split_once("expected").expect("names");
        let quoted = expected.split('`').skip(1).step_by(2);
        quoted.map(str::to_owned).collect()
    }

    #[test]
    fn the_man_page_has_every_section_and_name() {
        let page = include_str!("../../../docs/man/vshmem.toml.5");
        for section in names("nonsense = 1\n") {
            let title = format!(".SS [{section}]\n");
            let (_, from) = page.split_once(&title).expect(&title);
            let of_section = from.split("\n.S").next().unwrap();
            for name in names(&format!("[{section}]\nnonsense = 1\n")) {
                let item = format!(".TP\n.B {name}\n");
                assert!(of_section.contains(&item), "{section}: {name}");
            }
        }
    }
}
