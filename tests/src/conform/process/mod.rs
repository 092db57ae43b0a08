// SPDX-License-Identifier: MIT OR Apache-2.0
//! One interpreter (`tests/c/conf_interp.c`) as the harness drives it: on this machine, or in another
//! guest through the agent there.

mod here;
mod there;

pub use here::Here;

use rustix::process::Signal;
use serde::{Deserialize, Serialize};
use std::process::Command;
use there::There;

/// Why there is no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Silence {
    /// The process is gone.
    Gone,
    /// It did not answer within half a minute.
    Hung,
}

/// How an interpreter is started.
pub struct Start {
    /// What runs it.
    pub command: Command,
    /// The address of the agent that does, if it is to run in another guest.
    pub host: Option<String>,
}

impl From<Command> for Start {
    fn from(command: Command) -> Self {
        Self {
            command,
            host: None,
        }
    }
}

/// A running interpreter. Killed when dropped.
pub enum Process {
    /// Here.
    Here(Here),
    /// In another guest.
    There(There),
}

/// The same call of either.
macro_rules! either {
    ($self:ident, $process:ident => $call:expr) => {
        match $self {
            Self::Here($process) => $call,
            Self::There($process) => $call,
        }
    };
}

impl Process {
    /// Starts an interpreter and waits until it is up.
    ///
    /// # Errors
    /// What came instead of the sign of life.
    pub fn start(start: Start) -> Result<Self, Silence> {
        match start.host {
            None => Here::start(start.command).map(Self::Here),
            Some(host) => There::start(&host, &start.command).map(Self::There),
        }
    }

    /// Its pid.
    pub fn pid(&self) -> i32 {
        either!(self, process => process.pid())
    }

    /// Waits until the program says that it has begun.
    ///
    /// # Errors
    /// What came instead.
    pub fn expect_up(&mut self) -> Result<(), Silence> {
        either!(self, process => process.expect_up())
    }

    /// Sends a command; a process that is gone is noticed when its answer is missing.
    pub fn send(&mut self, command: &str) {
        either!(self, process => process.send(command));
    }

    /// The next answer.
    ///
    /// # Errors
    /// That there is none.
    pub fn answer(&mut self) -> Result<String, Silence> {
        match self {
            Self::Here(process) => process.receive().map(|(text, _)| text),
            Self::There(process) => process.receive(),
        }
    }

    /// Sends a command and waits for its answer.
    ///
    /// # Errors
    /// That there is none.
    pub fn ask(&mut self, command: &str) -> Result<String, Silence> {
        self.send(command);
        self.answer()
    }

    /// Sends a command that makes a new process, and adopts that one.
    ///
    /// # Errors
    /// That there is no answer; the text of the answer when no process was made.
    pub fn ask_for_child(&mut self, command: &str) -> Result<Result<Self, String>, Silence> {
        Ok(match self {
            Self::Here(process) => process.ask_for_child(command)?.map(Self::Here),
            Self::There(process) => process.ask_for_child(command)?.map(Self::There),
        })
    }

    /// The answer to a command that was sent, when the process has done it or sleeps in it: `None`
    /// when it sleeps.
    ///
    /// # Errors
    /// That there is no answer.
    pub fn answer_unless_asleep(&mut self) -> Result<Option<String>, Silence> {
        either!(self, process => process.answer_unless_asleep())
    }

    /// Sends a signal to a process that lives.
    pub fn signal(&mut self, signal: Signal) {
        either!(self, process => process.signal(signal));
    }

    /// Stops it, and lets it go on once it has stopped.
    pub fn stop_and_continue(&mut self) {
        either!(self, process => process.stop_and_continue());
    }

    /// Sends `SIGKILL`.
    pub fn kill(&mut self) {
        self.signal(Signal::KILL);
    }

    /// Waits until the process has ended; a zombie has.
    ///
    /// # Errors
    /// That it goes on.
    pub fn wait_end(&mut self) -> Result<(), Silence> {
        either!(self, process => process.wait_end())
    }
}
