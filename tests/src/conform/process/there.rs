// SPDX-License-Identifier: MIT OR Apache-2.0
//! An interpreter in another guest: each call is the agent's.

use super::Silence;
use crate::guests::{Answer, Ask, Connection, Program};
use rustix::process::Signal;
use std::process::Command;

/// A running interpreter. Its agent kills it when this is dropped.
pub struct There {
    host: String,
    connection: Connection,
    pid: i32,
}

impl There {
    pub(super) fn start(host: &str, command: &Command) -> Result<Self, Silence> {
        let mut connection = Connection::to(host);
        match connection.ask(&Ask::Start(Program::of(command))) {
            Answer::Pid(pid) => Ok(Self {
                host: host.to_owned(),
                connection,
                pid,
            }),
            other => Err(silence(other)),
        }
    }

    pub(super) fn pid(&self) -> i32 {
        self.pid
    }

    fn do_it(&mut self, what: &Ask) -> Result<(), Silence> {
        match self.connection.ask(what) {
            Answer::Done => Ok(()),
            other => Err(silence(other)),
        }
    }

    pub(super) fn expect_up(&mut self) -> Result<(), Silence> {
        self.do_it(&Ask::ExpectUp)
    }

    pub(super) fn send(&mut self, command: &str) {
        // What a process that is gone does not take is noticed when its answer is missing.
        let _ = self.do_it(&Ask::Send(command.to_owned()));
    }

    pub(super) fn receive(&mut self) -> Result<String, Silence> {
        match self.connection.ask(&Ask::Receive) {
            Answer::Text(text) => Ok(text),
            other => Err(silence(other)),
        }
    }

    pub(super) fn ask_for_child(&mut self, command: &str) -> Result<Result<Self, String>, Silence> {
        match self.connection.ask(&Ask::MakeChild(command.to_owned())) {
            Answer::Child { pid, number } => {
                let mut child = Self {
                    host: self.host.clone(),
                    connection: Connection::to(&self.host),
                    pid,
                };
                child.do_it(&Ask::Adopt(number))?;
                Ok(Ok(child))
            }
            Answer::Text(text) => Ok(Err(text)),
            other => Err(silence(other)),
        }
    }

    pub(super) fn answer_unless_asleep(&mut self) -> Result<Option<String>, Silence> {
        match self.connection.ask(&Ask::ReceiveUnlessAsleep) {
            Answer::Text(text) => Ok(Some(text)),
            Answer::Asleep => Ok(None),
            other => Err(silence(other)),
        }
    }

    pub(super) fn signal(&mut self, signal: Signal) {
        let (pid, signal) = (self.pid, signal.as_raw());
        // One that has ended takes no signal.
        let _ = self.do_it(&Ask::Signal { pid, signal });
    }

    pub(super) fn stop_and_continue(&mut self) {
        let _ = self.do_it(&Ask::StopAndContinue);
    }

    pub(super) fn wait_end(&mut self) -> Result<(), Silence> {
        self.do_it(&Ask::WaitEnd)
    }
}

/// The silence that an answer tells of.
fn silence(answer: Answer) -> Silence {
    match answer {
        Answer::Silent(silence) => silence,
        other => panic!("an answer to something else: {other:?}"),
    }
}
