// SPDX-License-Identifier: MIT OR Apache-2.0
//! A process that does one call after another as the test says: `tests/c/actor.c` for segments,
//! `tests/c/sem_actor.c` for semaphore sets, `tests/c/msg_actor.c` for message queues.

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs::File;
use std::io::{Read, Seek, Write};
use std::os::fd::AsFd;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use crate::guests::{self, Ask};
use crate::program::in_own_namespace;
use crate::{World, cc, sleeps, wait_until};

/// What `IPC_STAT` told an actor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat {
    /// `shm_nattch`.
    pub nattch: i64,
    /// `shm_lpid`.
    pub lpid: i64,
    /// `shm_cpid`.
    pub cpid: i64,
    /// Permission bits and flags.
    pub mode: i64,
    /// Key.
    pub key: i64,
    /// Bytes.
    pub size: i64,
    /// Owner.
    pub uid: i64,
}

/// A running `actor`; killed when dropped.
pub struct Actor {
    child: Child,
    stdin: ChildStdin,
    stdout: ChildStdout,
    stderr: File,
    unread: Vec<u8>,
}

impl Actor {
    /// Starts an actor of `domain`, with all keys routed; as root in an IPC namespace of its own,
    /// so that it lists nothing of the kernel's that others have.
    pub fn of(world: &World, domain: &str) -> Self {
        Self::running(world, domain, "actor")
    }

    /// The same for semaphore sets.
    pub fn of_sets(world: &World, domain: &str) -> Self {
        Self::running(world, domain, "sem_actor")
    }

    /// The same for message queues.
    pub fn of_queues(world: &World, domain: &str) -> Self {
        Self::running(world, domain, "msg_actor")
    }

    fn running(world: &World, domain: &str, program: &str) -> Self {
        let command = world.run(domain, "all,private", cc(program));
        Self::start(if nix::unistd::geteuid().is_root() {
            in_own_namespace(&command)
        } else {
            command
        })
    }

    /// Starts the command, which has to become an actor, and waits until it is one.
    pub fn start(mut command: Command) -> Self {
        let stderr = tempfile::tempfile().expect("temporary file");
        let mut child = command
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(stderr.try_clone().expect("dup"))
            .spawn()
            .unwrap_or_else(|e| panic!("{command:?}: {e}"));
        let stdin = child.stdin.take().expect("stdin");
        let stdout = child.stdout.take().expect("stdout");
        let mut actor = Self {
            child,
            stdin,
            stdout,
            stderr,
            unread: Vec::new(),
        };
        actor.ok("up");
        actor
    }

    /// Its pid, in its own domain.
    pub fn pid(&self) -> i32 {
        match guests::far(self.child.id()) {
            Some(far) => far.pid,
            None => self.child.id().cast_signed(),
        }
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        match guests::far(self.child.id()) {
            Some(far) => {
                let (pid, signal) = (far.pid, signal as i32);
                far.ask(&Ask::Signal { pid, signal });
            }
            None => kill(Pid::from_raw(self.pid()), signal).expect("kill"),
        }
    }

    /// What it wrote to stderr so far.
    pub fn said(&self) -> String {
        // A description of its own: the shared one's offset is where the actor writes.
        let path = format!(
            "/proc/self/fd/{}",
            std::os::fd::AsRawFd::as_raw_fd(&self.stderr)
        );
        let mut text = String::new();
        let mut file = File::open(path).expect("the actor's stderr");
        file.rewind().expect("rewind");
        file.read_to_string(&mut text).expect("UTF-8");
        text
    }

    /// Has it do something and returns what came of it: numbers, or an errno. An answer that
    /// takes longer than a minute is none.
    pub fn ask(&mut self, request: &str) -> Result<Vec<i64>, Errno> {
        self.send(request);
        self.answer(request)
    }

    /// Has it begin something; [`Actor::answer`] fetches what came of it.
    pub fn send(&mut self, request: &str) {
        writeln!(self.stdin, "{request}").unwrap_or_else(|e| panic!("{request}: {e}"));
    }

    /// Has it begin what makes it sleep, and waits until it does.
    pub fn send_to_sleep(&mut self, request: &str) {
        self.send(request);
        let mut seen = 0;
        // More than once, lest it is on its way from one call to the next.
        wait_until("the actor sleeps", || {
            assert!(
                !self.has_answered(),
                "{request}: {:?}",
                self.answer(request)
            );
            let sleeps = sleeps(self.child.id().cast_signed());
            seen = if sleeps { seen + 1 } else { 0 };
            seen == 3
        });
    }

    /// Whether what it began has come to an end: there is an answer to fetch.
    pub fn has_answered(&self) -> bool {
        let mut fds = [PollFd::new(self.stdout.as_fd(), PollFlags::POLLIN)];
        !self.unread.is_empty() || poll(&mut fds, PollTimeout::ZERO).expect("poll") > 0
    }

    /// The answer to a request that was sent.
    pub fn answer(&mut self, request: &str) -> Result<Vec<i64>, Errno> {
        let line = self.line(request);
        let (kind, rest) = line.split_at(1);
        let numbers: Vec<i64> = rest
            .split_whitespace()
            .map(|word| word.parse().unwrap_or_else(|_| panic!("{request}: {line}")))
            .collect();
        match kind {
            "=" => Ok(numbers),
            "!" => Err(Errno::from_raw(numbers[0] as i32)),
            _ => panic!("{request}: {line}"),
        }
    }

    fn line(&mut self, request: &str) -> String {
        loop {
            if let Some(end) = self.unread.iter().position(|&b| b == b'\n') {
                let line: Vec<u8> = self.unread.drain(..=end).collect();
                return String::from_utf8(line).expect("UTF-8").trim().to_owned();
            }
            let mut fds = [PollFd::new(self.stdout.as_fd(), PollFlags::POLLIN)];
            match poll(&mut fds, PollTimeout::from(60_000u16)) {
                Ok(0) => panic!("no answer to '{request}'; stderr: {}", self.said()),
                Ok(_) | Err(Errno::EINTR) => {}
                Err(errno) => panic!("poll: {errno}"),
            }
            let mut buffer = [0; 256];
            let got = self.stdout.read(&mut buffer).expect("read");
            assert!(
                got > 0,
                "the actor has ended at '{request}': {:?}; stderr: {}",
                self.child.wait(),
                self.said()
            );
            self.unread.extend_from_slice(&buffer[..got]);
        }
    }

    /// The one number that a call returns.
    pub fn call(&mut self, request: &str) -> Result<i64, Errno> {
        self.ask(request).map(|numbers| numbers[0])
    }

    /// The one number that a call which has to succeed returns.
    pub fn ok(&mut self, request: &str) -> i64 {
        match self.call(request) {
            Ok(number) => number,
            Err(errno) => panic!("{request}: {errno}; stderr: {}", self.said()),
        }
    }

    /// Makes a segment of its own, which must not be there yet.
    pub fn make(&mut self, key: i32, bytes: u64) -> i64 {
        self.ok(&format!("get {key} {bytes} 03600"))
    }

    /// `IPC_STAT`.
    pub fn stat(&mut self, id: i64) -> Result<Stat, Errno> {
        let numbers = self.ask(&format!("stat {id}"))?;
        let [nattch, lpid, cpid, mode, key, size, uid] = numbers[..] else {
            panic!("stat: {numbers:?}");
        };
        Ok(Stat {
            nattch,
            lpid,
            cpid,
            mode,
            key,
            size,
            uid,
        })
    }

    /// Attachments of a segment that is there.
    pub fn nattch(&mut self, id: i64) -> i64 {
        self.stat(id)
            .unwrap_or_else(|e| panic!("stat {id}: {e}"))
            .nattch
    }

    /// Kills it with `SIGKILL` and waits for its end.
    pub fn kill(mut self) {
        self.end();
    }

    fn end(&mut self) {
        // One that has ended already is fine. What stands for one in another guest ends after it.
        match guests::far(self.child.id()) {
            Some(_) => self.signal(Signal::SIGKILL),
            None => drop(self.child.kill()),
        }
        let _ = self.child.wait();
    }
}

impl Drop for Actor {
    fn drop(&mut self) {
        self.end();
    }
}
