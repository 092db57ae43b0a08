// SPDX-License-Identifier: MIT OR Apache-2.0
//! Programs that run at the same time and end with this one: on an error, and on Ctrl-C.

use crate::{Result, project};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::unistd::Pid;
use std::io::{BufRead, BufReader, Read};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// The error of what a signal has ended.
pub const INTERRUPTED: &str = "interrupted";

/// What the signal thread and the starting of programs share.
struct State {
    interrupted: bool,
    running: Vec<u32>,
}

static STATE: Mutex<State> = Mutex::new(State {
    interrupted: false,
    running: Vec::new(),
});

fn state() -> MutexGuard<'static, State> {
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// From now on a signal that would end this process ends the programs instead, and no new one
/// starts: each waiting for them returns with an error, so that there is one way out and all is
/// cleaned up on it.
pub fn take_signals() -> Result<()> {
    let signals: SigSet = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP]
        .into_iter()
        .collect();
    signals
        .thread_block()
        .map_err(|e| format!("cannot block signals: {e}"))?;
    std::thread::spawn(move || {
        while signals.wait().is_ok() {
            let mut state = state();
            state.interrupted = true;
            for &pid in &state.running {
                // One that has just ended is only not waited for yet: the number is still its.
                let _ = kill(Pid::from_raw(pid.cast_signed()), Signal::SIGTERM);
            }
        }
    });
    Ok(())
}

/// A program under way. Dropped before it ended, it is killed.
pub struct Program {
    command: Command,
    child: Child,
    stdout: BufReader<ChildStdout>,
}

impl Program {
    /// Starts it, with its output for us to read.
    pub fn start(mut command: Command) -> Result<Self> {
        let mut state = state();
        if state.interrupted {
            return Err(INTERRUPTED.into());
        }
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = command
            .spawn()
            .map_err(|e| project::cannot_run(&command, &e))?;
        let Some(stdout) = child.stdout.take() else {
            return Err("a program has no stdout".into());
        };
        state.running.push(child.id());
        Ok(Self {
            command,
            child,
            stdout: BufReader::new(stdout),
        })
    }

    /// The next line that it prints, without its end; an error when it ended instead.
    pub fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        match self.stdout.read_line(&mut line) {
            Ok(0) => {
                self.reap()?;
                Err("a program ended before it said what was awaited".into())
            }
            Ok(_) => Ok(line.trim_end().to_owned()),
            Err(error) => Err(format!("cannot read a program's output: {error}")),
        }
    }

    /// Waits for its end; returns the rest of its output.
    pub fn finish(mut self) -> Result<String> {
        let mut rest = String::new();
        self.stdout
            .read_to_string(&mut rest)
            .map_err(|e| format!("cannot read a program's output: {e}"))?;
        self.reap()?;
        Ok(rest)
    }

    fn reap(&mut self) -> Result<()> {
        // Its end is awaited without taking its number away, which the signal thread may be using.
        let id = nix::sys::wait::Id::Pid(self.pid());
        let flags = nix::sys::wait::WaitPidFlag::WEXITED | nix::sys::wait::WaitPidFlag::WNOWAIT;
        // Any failure here the wait below reports.
        let _ = nix::sys::wait::waitid(id, flags);
        let mut state = state();
        let interrupted = state.interrupted;
        state.running.retain(|&pid| pid != self.child.id());
        let status = self
            .child
            .wait()
            .map_err(|e| format!("cannot wait for a program: {e}"))?;
        if interrupted {
            return Err(INTERRUPTED.into());
        }
        project::judge(&self.command, status)
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.child.id().cast_signed())
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let running = state().running.contains(&self.child.id());
        if running {
            // It is our child and not waited for: it can be killed, and then it ends.
            let _ = self.child.kill();
            let _ = self.reap();
        }
    }
}

/// Runs a program to its end and returns its output.
pub fn output(command: Command) -> Result<String> {
    Program::start(command)?.finish()
}
