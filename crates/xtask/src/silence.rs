// SPDX-License-Identifier: MIT OR Apache-2.0
//! Tests that hang: what they were doing is said, and they are ended, so that the others still run and the
//! failure says more than that time was up.

use crate::{Result, project};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

/// Runs a command and passes each line of its output to `heard`. After `patience` without a line the programs
/// below it are told to `hung`, a line each, and what the command itself has started is killed with all below: the
/// command may go on with its next. Returns how it ended.
pub fn run(
    command: &mut Command,
    patience: Duration,
    mut heard: impl FnMut(&[u8]),
    mut hung: impl FnMut(&str),
) -> Result<ExitStatus> {
    let mut child: Child = command
        .stdout(Stdio::piped())
        .spawn()
        .map_err(|e| project::cannot_run(command, &e))?;
    let (lines, come) = channel();
    if let Some(stdout) = child.stdout.take() {
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).split(b'\n') {
                if lines.send(line).is_err() {
                    break;
                }
            }
        });
    }
    loop {
        match come.recv_timeout(patience) {
            Ok(line) => heard(&line.map_err(|e| format!("cannot read the tests' output: {e}"))?),
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                for process in below(child.id().cast_signed()) {
                    hung(&process.to_string());
                    // It may have ended by itself, which is as well.
                    let _ = kill(Pid::from_raw(process.pid), Signal::SIGKILL);
                }
            }
        }
    }
    child.wait().map_err(|e| project::cannot_run(command, &e))
}

/// A process as `/proc` has it.
struct Process {
    pid: i32,
    parent: i32,
    /// As in proc_pid_stat(5): `S` sleeps, `R` runs.
    state: char,
    /// Where in the kernel it sleeps.
    place: String,
    command: String,
}

impl std::fmt::Display for Process {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            pid,
            parent,
            state,
            place,
            command,
        } = self;
        write!(f, "pid {pid}, of {parent}, {state} in {place}: {command}")
    }
}

impl Process {
    /// Of one that lives; none that has ended meanwhile.
    fn read(pid: i32) -> Option<Self> {
        let file = |name| std::fs::read_to_string(format!("/proc/{pid}/{name}")).ok();
        let stat = file("stat")?;
        // The fields follow the name, which may have anything in it, in parentheses.
        let mut fields = stat.rsplit_once(") ")?.1.split(' ');
        let state = fields.next()?.chars().next()?;
        Some(Self {
            pid,
            parent: fields.next()?.parse().ok()?,
            state,
            place: file("wchan").unwrap_or_default(),
            command: file("cmdline")?.replace('\0', " "),
        })
    }
}

/// The processes below one, parents before their children.
fn below(top: i32) -> Vec<Process> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let mut others: Vec<_> = entries
        .filter_map(|entry| Process::read(entry.file_name().to_str()?.parse().ok()?))
        .collect();
    let mut parents = vec![top];
    let mut found = Vec::new();
    while let Some(parent) = parents.pop() {
        for process in others.extract_if(.., |process| process.parent == parent) {
            parents.push(process.pid);
            found.push(process);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_hangs_is_named_and_ended_and_the_command_goes_on() {
        let mut command = Command::new("sh");
        command.args(["-c", "echo first; sh -c 'sleep 1001; true'; echo second"]);
        let (mut heard, mut hung) = (Vec::new(), Vec::new());
        let status = run(
            &mut command,
            Duration::from_millis(300),
            |line| heard.push(String::from_utf8_lossy(line).into_owned()),
            |process| hung.push(process.to_owned()),
        );
        assert!(status.unwrap().success());
        assert_eq!(heard, ["first", "second"]);
        assert!(hung[0].contains("sh -c sleep 1001"), "{hung:?}");
        assert!(hung.iter().any(|line| line.ends_with("sleep 1001 ")));
    }
}
