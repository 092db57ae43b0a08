// SPDX-License-Identifier: MIT OR Apache-2.0
//! Processes that are measured, and rounds of runs.

use crate::Result;
use std::process::{Child, Command, Stdio};

/// Starts a command, with its output for [`output`] to read. What it says on stderr is seen.
pub fn start(mut command: Command) -> Result<Child> {
    command.stdout(Stdio::piped());
    command.spawn().map_err(|error| {
        let program = command.get_program().to_string_lossy();
        format!("cannot run {program}: {error}").into()
    })
}

/// What a program wrote until it ended well.
pub fn output(child: Child) -> Result<String> {
    let output = child.wait_with_output()?;
    if !output.status.success() {
        return Err(format!("it ended with {}", output.status).into());
    }
    Ok(String::from_utf8(output.stdout)?)
}

/// The order of the runs of a round: every other round is the reverse, so that nobody profits from
/// what the same other has left in the caches.
pub fn in_round<T>(mut runs: Vec<T>, round: usize) -> Vec<T> {
    if round % 2 == 1 {
        runs.reverse();
    }
    runs
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_other_round_is_reversed() {
        assert_eq!(in_round(vec![1, 2, 3], 0), [1, 2, 3]);
        assert_eq!(in_round(vec![1, 2, 3], 1), [3, 2, 1]);
    }

    #[test]
    fn a_program_that_fails_is_an_error() {
        let child = start(Command::new("false")).unwrap();
        assert!(output(child).is_err());
        let mut echo = Command::new("echo");
        echo.arg("said");
        assert_eq!(output(start(echo).unwrap()).unwrap(), "said\n");
        assert!(start(Command::new("/nonesuch")).is_err());
    }
}
