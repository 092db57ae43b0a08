// SPDX-License-Identifier: MIT OR Apache-2.0
//! An interpreter on this machine.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendFlags, SocketFlags,
    SocketType, recvmsg, send, socketpair,
};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open, pidfd_send_signal};
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::Silence;

/// How long an answer may take before the process counts as hung. Who waits for another process is
/// seen to sleep, so this is a bound for the test's patience and no property of what is tested.
const PATIENCE: Duration = Duration::from_secs(30);

/// A running interpreter. Killed when dropped.
pub struct Here {
    socket: OwnedFd,
    pidfd: OwnedFd,
    pid: i32,
    /// Of those that the harness itself started, to be waited for.
    child: Option<Child>,
}

impl Here {
    /// Starts `command`, which is to run the interpreter, and waits until it is up.
    ///
    /// # Errors
    /// What came instead of the sign of life.
    pub fn start(mut command: Command) -> Result<Self, Silence> {
        let (ours, theirs) = socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )
        .expect("socketpair");
        let child = command
            .stdin(Stdio::from(theirs))
            .stdout(Stdio::null())
            .spawn()
            .unwrap_or_else(|e| panic!("{command:?}: {e}"));
        // Command keeps the other end of the socket, and with it the end of file from us.
        drop(command);
        let process = Self::adopt(child.id() as i32, ours, Some(child)).ok_or(Silence::Gone)?;
        process.expect_up()?;
        Ok(process)
    }

    /// A process that an interpreter has made. `None` when it is gone already.
    fn adopt(pid: i32, socket: OwnedFd, child: Option<Child>) -> Option<Self> {
        let pidfd = match pidfd_open(Pid::from_raw(pid)?, PidfdFlags::empty()) {
            Ok(pidfd) => pidfd,
            Err(Errno::SRCH) => return None,
            Err(errno) => panic!("pidfd_open: {errno}"),
        };
        Some(Self {
            socket,
            pidfd,
            pid,
            child,
        })
    }

    /// Its pid.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Waits until the program says that it has begun.
    ///
    /// # Errors
    /// What came instead.
    pub fn expect_up(&self) -> Result<(), Silence> {
        let (text, _) = self.receive()?;
        assert_eq!(text, "up", "first words of an interpreter");
        Ok(())
    }

    /// Sends a command; a process that is gone is noticed when its answer is missing.
    pub fn send(&self, command: &str) {
        match send(&self.socket, command.as_bytes(), SendFlags::NOSIGNAL) {
            Ok(_) | Err(Errno::PIPE | Errno::CONNRESET) => {}
            Err(errno) => panic!("send to an interpreter: {errno}"),
        }
    }

    /// The next answer, and the descriptor that came with it.
    ///
    /// # Errors
    /// That there is none.
    pub fn receive(&self) -> Result<(String, Option<OwnedFd>), Silence> {
        wait(&self.socket, PATIENCE).ok_or(Silence::Hung)?;
        let mut bytes = [0u8; 4096];
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let got = recvmsg(
            &self.socket,
            &mut [IoSliceMut::new(&mut bytes)],
            &mut control,
            RecvFlags::CMSG_CLOEXEC,
        );
        let length = match got {
            Ok(got) if got.bytes > 0 => got.bytes,
            Ok(_) | Err(Errno::CONNRESET) => return Err(Silence::Gone),
            Err(errno) => panic!("answer of an interpreter: {errno}"),
        };
        let fd = control.drain().find_map(|part| match part {
            RecvAncillaryMessage::ScmRights(mut fds) => fds.next(),
            _ => None,
        });
        Ok((String::from_utf8_lossy(&bytes[..length]).into_owned(), fd))
    }

    /// Sends a command that makes a new process, and adopts that one.
    ///
    /// # Errors
    /// That there is no answer; the text of the answer when no process was made.
    pub fn ask_for_child(&self, command: &str) -> Result<Result<Self, String>, Silence> {
        self.send(command);
        let (text, fd) = self.receive()?;
        let pid = text.split(' ').next().and_then(|word| word.parse().ok());
        let (Some(socket), Some(pid)) = (fd, pid) else {
            return Ok(Err(text));
        };
        // What was wrong with a call that did succeed (see the program) is told like a failure.
        if text.contains('!') {
            return Ok(Err(text));
        }
        Ok(Self::adopt(pid, socket, None).ok_or_else(|| "gone".to_owned()))
    }

    /// The answer to a command that was sent, when the process has done it or sleeps in it: `None`
    /// when it sleeps, in a call of the kernel's own or on a futex. Time decides nothing but whether the
    /// process hangs: one that runs, however slowly, is waited for.
    ///
    /// # Errors
    /// That there is no answer.
    pub fn answer_unless_asleep(&self) -> Result<Option<String>, Silence> {
        let begun = Instant::now();
        let mut asleep = 0;
        while begun.elapsed() < PATIENCE {
            if wait(&self.socket, Duration::ZERO).is_some() {
                return self.receive().map(|(text, _)| Some(text));
            }
            // Seen twice, lest it was on its way from one call to the next.
            asleep = if crate::sleeps(self.pid) {
                asleep + 1
            } else {
                0
            };
            if asleep > 2 {
                return Ok(None);
            }
            std::thread::sleep(Duration::from_micros(if asleep == 0 { 50 } else { 400 }));
        }
        Err(Silence::Hung)
    }

    /// Sends a signal to a process that lives.
    pub fn signal(&self, signal: Signal) {
        match pidfd_send_signal(&self.pidfd, signal) {
            Ok(()) | Err(Errno::SRCH) => {}
            Err(errno) => panic!("signal to an interpreter: {errno}"),
        }
    }

    /// Stops it, and lets it go on once it has stopped.
    pub fn stop_and_continue(&self) {
        self.signal(Signal::STOP);
        let stopped = || {
            let stat = std::fs::read_to_string(format!("/proc/{}/stat", self.pid));
            stat.is_ok_and(|stat| stat.contains(") T "))
        };
        crate::wait_until("the interpreter has stopped", stopped);
        self.signal(Signal::CONT);
    }

    /// Sends `SIGKILL`.
    pub fn kill(&self) {
        self.signal(Signal::KILL);
    }

    /// Waits until the process has ended; a zombie has.
    ///
    /// # Errors
    /// That it goes on.
    pub fn wait_end(&mut self) -> Result<(), Silence> {
        wait(&self.pidfd, PATIENCE).ok_or(Silence::Hung)?;
        if let Some(mut child) = self.child.take() {
            child.wait().expect("wait for an interpreter");
        }
        Ok(())
    }
}

impl Drop for Here {
    fn drop(&mut self) {
        self.kill();
        // Nothing to be done about one that even SIGKILL does not end.
        let _ = self.wait_end();
    }
}

/// Waits until `fd` is readable or hung up; `None` when it is not within `patience`.
fn wait(fd: &impl AsFd, patience: Duration) -> Option<()> {
    let timeout = Timespec::try_from(patience).expect("a short time");
    loop {
        match poll(&mut [PollFd::new(fd, PollFlags::IN)], Some(&timeout)) {
            Ok(0) => return None,
            Ok(_) => return Some(()),
            Err(Errno::INTR) => {}
            Err(errno) => panic!("poll: {errno}"),
        }
    }
}
