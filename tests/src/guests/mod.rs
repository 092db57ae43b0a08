// SPDX-License-Identifier: MIT OR Apache-2.0
//! The same tests between virtual machines: a test that runs in one guest starts programs in another
//! through the **agent** that waits there (`guest_agent serve`).
//!
//! `VSHMEM_TEST_GUESTS` says where the domains of a test are: `a= b=192.0.2.12` means that domain `a`
//! is the guest that the test runs in, and that an agent at that address starts the programs of domain
//! `b`. Where it is set a [`crate::World`] is that of the guests, whose daemons run already; where it
//! is not, each world is a directory of its own on this machine.
//!
//! A connection is for one program. What is said on it are lines of JSON ([`Ask`], [`Answer`]).

pub mod agent;
pub mod exec;
pub mod suite;

use crate::conform::process::Silence;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::io::{self, BufRead, BufReader, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::Command;

/// Where domains are.
pub const ENV_GUESTS: &str = "VSHMEM_TEST_GUESTS";
/// Of which kinds a test makes constructs, as options of `vshmem ls` (`-s`), where tests of other kinds
/// run in another guest at the same time.
pub const ENV_KINDS: &str = "VSHMEM_TEST_KINDS";
/// Where the compiled programs of `tests/c` are, in every guest.
pub const ENV_PROGRAMS: &str = "VSHMEM_TEST_PROGRAMS";
/// The port on which agents wait.
pub const PORT: u16 = 7373;

/// A program to be started, as it was put together for [`Command`].
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Program {
    /// The program and its arguments.
    pub argv: Vec<String>,
    /// Variables to set.
    pub env: Vec<(String, String)>,
}

impl Program {
    /// What a command would start.
    pub fn of(command: &Command) -> Self {
        let text = |text: &std::ffi::OsStr| text.to_str().expect("UTF-8").to_owned();
        let argv = std::iter::once(command.get_program()).chain(command.get_args());
        let set = |(name, value): (&std::ffi::OsStr, Option<&std::ffi::OsStr>)| {
            value.map(|value| (text(name), text(value)))
        };
        Self {
            argv: argv.map(text).collect(),
            env: command.get_envs().filter_map(set).collect(),
        }
    }

    /// The command that starts it here.
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.argv[0]);
        command.args(&self.argv[1..]);
        command.envs(self.env.iter().map(|(name, value)| (name, value)));
        command
    }
}

/// What an agent is asked.
#[derive(Debug, Serialize, Deserialize)]
pub enum Ask {
    /// Run a program, whose input and output travel on this connection. Answers: its pid, what it
    /// writes, and last how it ended. When the connection ends the program is killed.
    Run(Program),
    /// Bytes for its standard input.
    Input(Vec<u8>),
    /// No more of them.
    EndOfInput,
    /// A signal for process `pid`.
    Signal {
        /// The process.
        pid: i32,
        /// The signal's number.
        signal: i32,
    },
    /// End, with success.
    Quit,
    /// Whether process `pid` waits for another ([`crate::sleeps`]).
    Sleeps(i32),
    /// Start an interpreter of the conformance tests; the rest is about it.
    Start(Program),
    /// Go on with the child that was announced with this number ([`Answer::Child`]).
    Adopt(u64),
    /// Wait until it says that it has begun.
    ExpectUp,
    /// A command for it.
    Send(String),
    /// Its next answer.
    Receive,
    /// Its next answer, unless it sleeps.
    ReceiveUnlessAsleep,
    /// A command with which it makes a child.
    MakeChild(String),
    /// Stop it, and let it go on.
    StopAndContinue,
    /// Wait for its end.
    WaitEnd,
}

/// What an agent answers.
#[derive(Debug, Serialize, Deserialize)]
pub enum Answer {
    /// The pid of the program.
    Pid(i32),
    /// What it wrote to its standard output.
    Output(Vec<u8>),
    /// What it wrote to its standard error.
    Errors(Vec<u8>),
    /// It has ended, with this status as `wait` has it.
    Ended(i32),
    /// Done, with nothing to say.
    Done,
    /// Yes or no.
    Is(bool),
    /// An interpreter's answer.
    Text(String),
    /// It sleeps.
    Asleep,
    /// There is no answer.
    Silent(Silence),
    /// A child was made: its pid, and the number to adopt it by.
    Child {
        /// Its pid.
        pid: i32,
        /// See [`Ask::Adopt`].
        number: u64,
    },
}

/// A connection, of either side.
pub struct Connection {
    reader: BufReader<TcpStream>,
    writer: TcpStream,
}

impl Connection {
    /// Over a connected socket.
    pub fn new(stream: TcpStream) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        Ok(Self {
            reader: BufReader::new(stream.try_clone()?),
            writer: stream,
        })
    }

    /// To the agent of `host`.
    pub fn to(host: &str) -> Self {
        let connected = TcpStream::connect((host, PORT)).and_then(Self::new);
        connected.unwrap_or_else(|e| panic!("no agent at {host}: {e}"))
    }

    /// Both halves, to be used by two threads.
    pub fn split(self) -> (BufReader<TcpStream>, TcpStream) {
        (self.reader, self.writer)
    }

    /// Says something.
    ///
    /// # Errors
    /// That the other side is gone.
    pub fn say(&mut self, what: &impl Serialize) -> io::Result<()> {
        say(&mut self.writer, what)
    }

    /// What the other side says next; `None` when it is gone.
    pub fn hear<T: DeserializeOwned>(&mut self) -> Option<T> {
        hear(&mut self.reader)
    }

    /// Asks an agent; one that is gone ends the test.
    pub fn ask(&mut self, what: &Ask) -> Answer {
        self.say(what).expect("the agent takes a question");
        self.hear().expect("the agent answers")
    }
}

/// Writes a line.
pub(crate) fn say(to: &mut impl Write, what: &impl Serialize) -> io::Result<()> {
    let mut line = serde_json::to_vec(what)?;
    line.push(b'\n');
    to.write_all(&line)
}

/// Reads a line.
pub(crate) fn hear<T: DeserializeOwned>(from: &mut impl BufRead) -> Option<T> {
    let mut line = String::new();
    match from.read_line(&mut line) {
        Ok(0) | Err(_) => None,
        Ok(_) => Some(serde_json::from_str(&line).expect("a line of the agent's protocol")),
    }
}

/// The address of the agent of `domain`; `None` when the domain is this guest.
///
/// # Panics
/// When there is no such guest: the test is none for guests.
pub fn host_of(guests: &str, domain: &str) -> Option<String> {
    let host = guests.split_whitespace().find_map(|place| {
        let (name, host) = place.split_once('=')?;
        (name == domain).then_some(host)
    });
    let host = host.unwrap_or_else(|| panic!("no guest is domain {domain} ({ENV_GUESTS})"));
    (!host.is_empty()).then(|| host.to_owned())
}

/// What is known of a process that stands for one in another guest ([`exec`]).
#[derive(Debug, Serialize, Deserialize)]
pub struct Far {
    /// Address of the agent.
    pub host: String,
    /// The pid there.
    pub pid: i32,
}

/// Where [`exec`] notes for which process the process `pid` stands.
fn note(pid: u32) -> PathBuf {
    std::env::temp_dir().join(format!("vshmem-stands-for-{pid}"))
}

/// For which process of another guest the process `pid` stands, if it does.
pub fn far(pid: u32) -> Option<Far> {
    serde_json::from_slice(&std::fs::read(note(pid)).ok()?).ok()
}

impl Far {
    /// Asks the agent of its guest about it.
    pub fn ask(&self, what: &Ask) -> Answer {
        Connection::to(&self.host).ask(what)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn domains_are_here_or_at_an_address() {
        let guests = "a= b=192.0.2.12";
        assert_eq!(host_of(guests, "a"), None);
        assert_eq!(host_of(guests, "b"), Some("192.0.2.12".to_owned()));
    }

    #[test]
    #[should_panic(expected = "no guest is domain c")]
    fn a_domain_without_a_guest_is_named() {
        host_of("a= b=192.0.2.12", "c");
    }

    #[test]
    fn a_command_survives_the_trip() {
        let mut command = Command::new("sh");
        command.args(["-c", "exit $N"]).env("N", "3");
        let line = serde_json::to_vec(&Program::of(&command)).unwrap();
        let program: Program = serde_json::from_slice(&line).unwrap();
        assert_eq!(program.command().status().unwrap().code(), Some(3));
    }
}
