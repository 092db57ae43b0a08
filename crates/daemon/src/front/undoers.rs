// SPDX-License-Identifier: MIT OR Apache-2.0
//! The processes that have used `SEM_UNDO`: on which sets, and whether they live.
//!
//! What a process would undo stays when it becomes another program (`exec`), so an undoer is a
//! process, not a client: it goes by its pid, and a pidfd tells of its end. Where its pid cannot be
//! seen, it is taken to end with its client.

use super::clients::Client;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
use std::collections::BTreeSet;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use vshmem_abi::Domid;
use vshmem_abi::token::Token;

/// Whether a process has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It has, or is beyond return.
    Ended,
    /// It has not.
    Lives,
    /// It cannot be told; its pidfd will.
    Unknown,
}

/// A process with undo.
pub struct Undoer {
    /// Its undo token.
    pub token: Token,
    /// Its pid as it saw itself.
    pub own_pid: i32,
    /// The sets it may have something to undo of.
    pub sets: BTreeSet<i32>,
    /// As our pid namespace numbers it; 0: not known.
    pid: i32,
    pidfd: Option<OwnedFd>,
    watched: bool,
}

impl Undoer {
    /// Whether it is the process of `client`, of the domain `domid`.
    fn is_of(&self, client: &Client, domid: Domid) -> bool {
        if self.pidfd.is_some() {
            client.is_process(self.pid)
        } else {
            client.token(domid) == Some(self.token)
        }
    }

    /// Its pid, if it is known by that.
    pub fn pid(&self) -> Option<i32> {
        self.pidfd.as_ref().map(|_| self.pid)
    }

    /// Whether the process has ended; `image_gone`: the program that it was has.
    pub fn fate(&self, image_gone: bool) -> Fate {
        let Some(pidfd) = &self.pidfd else {
            return if image_gone { Fate::Ended } else { Fate::Lives };
        };
        if is_readable(pidfd.as_fd()) {
            return Fate::Ended;
        }
        if !image_gone {
            return Fate::Lives;
        }
        // Without memory, or with that of another program?
        match std::fs::read_to_string(format!("/proc/{}/statm", self.pid)) {
            Ok(statm) if statm.starts_with("0 ") => Fate::Ended,
            Ok(_) if !is_readable(pidfd.as_fd()) => Fate::Lives,
            Ok(_) => Fate::Ended,
            Err(_) => Fate::Unknown,
        }
    }
}

/// All of them.
#[derive(Default)]
pub struct Undoers {
    all: Vec<Undoer>,
}

impl Undoers {
    /// The process of `client`, which is one with undo from now on.
    ///
    /// # Errors
    /// `ENOMEM` when its end cannot be watched for.
    pub fn remember(&mut self, client: &Client, domid: Domid) -> Result<&mut Undoer, Errno> {
        let there = self
            .all
            .iter()
            .position(|undoer| undoer.is_of(client, domid) && undoer.fate(false) != Fate::Ended);
        let place = match there {
            Some(place) => place,
            None => {
                let pidfd = match Pid::from_raw(client.pid()) {
                    Some(pid) => match pidfd_open(pid, PidfdFlags::empty()) {
                        Ok(pidfd) => Some(pidfd),
                        Err(Errno::NOSYS | Errno::PERM) => None,
                        Err(_) => return Err(Errno::NOMEM),
                    },
                    None => None,
                };
                self.all.push(Undoer {
                    token: client.token(domid).ok_or(Errno::PROTO)?,
                    own_pid: client.own_pid(),
                    sets: BTreeSet::new(),
                    pid: client.pid(),
                    watched: pidfd.is_none(),
                    pidfd,
                });
                self.all.len() - 1
            }
        };
        self.all.get_mut(place).ok_or(Errno::NOMEM)
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = &Undoer> {
        self.all.iter()
    }

    /// The process that `client` is or was.
    pub fn of(&self, client: &Client, domid: Domid) -> Option<&Undoer> {
        self.all.iter().find(|undoer| undoer.is_of(client, domid))
    }

    /// The one with this undo token.
    pub fn get(&self, token: Token) -> Option<&Undoer> {
        self.all.iter().find(|undoer| undoer.token == token)
    }

    /// Takes the one with this undo token out.
    pub fn take(&mut self, token: Token) -> Option<Undoer> {
        let place = self.all.iter().position(|undoer| undoer.token == token)?;
        Some(self.all.swap_remove(place))
    }

    /// There is no set `id` any more.
    pub fn forget_set(&mut self, id: i32) {
        for undoer in &mut self.all {
            undoer.sets.remove(&id);
        }
    }

    /// One whose pidfd nobody watches yet: the serial of its token, and the pidfd.
    pub fn next_unwatched(&mut self) -> Option<(u64, BorrowedFd<'_>)> {
        let undoer = self.all.iter_mut().find(|undoer| !undoer.watched)?;
        undoer.watched = true;
        let pidfd = undoer.pidfd.as_ref()?;
        Some((undoer.token.serial(), pidfd.as_fd()))
    }
}

fn is_readable(pidfd: BorrowedFd<'_>) -> bool {
    let mut fds = [PollFd::from_borrowed_fd(pidfd, PollFlags::IN)];
    poll(&mut fds, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
}

#[cfg(test)]
mod tests {
    use super::super::clients::{Clients, Run};
    use super::*;
    use std::process::{Child, Command, Stdio};

    const DOMID: Domid = 3;

    fn clients_of(pids: &[i32]) -> Clients {
        let mut clients = Clients::new(Run {
            generation: 1,
            epoch: 0,
        });
        for (number, &pid) in (100..).zip(pids) {
            clients.add(number).unwrap().identify(pid);
        }
        clients
    }

    fn remember(undoers: &mut Undoers, clients: &Clients, number: u64) -> Token {
        let client = clients.get(number).unwrap();
        undoers.remember(client, DOMID).unwrap().token
    }

    fn cat() -> Child {
        let cat = Command::new("cat").stdin(Stdio::piped()).spawn();
        cat.unwrap()
    }

    fn end(mut child: Child) {
        drop(child.stdin.take());
        child.wait().unwrap();
    }

    #[test]
    fn a_process_keeps_its_token_over_its_clients_and_two_processes_have_two() {
        let other = cat();
        let own = std::process::id() as i32;
        let clients = clients_of(&[own, own, other.id() as i32]);
        let mut undoers = Undoers::default();
        let tokens = [100, 101, 102].map(|number| remember(&mut undoers, &clients, number));
        assert_eq!(tokens[0], Token::new(DOMID, 100));
        assert_eq!(tokens[1], tokens[0]);
        assert_eq!(tokens[2], Token::new(DOMID, 102));
        let own = undoers.of(clients.get(101).unwrap(), DOMID).unwrap();
        assert_eq!(own.token, tokens[0]);
        end(other);
    }

    #[test]
    fn a_process_that_has_ended_is_not_taken_for_a_later_one_of_its_pid() {
        let child = cat();
        let clients = clients_of(&[child.id() as i32, child.id() as i32]);
        let mut undoers = Undoers::default();
        let first = remember(&mut undoers, &clients, 100);
        assert_eq!(undoers.get(first).unwrap().fate(false), Fate::Lives);
        assert_eq!(undoers.get(first).unwrap().fate(true), Fate::Lives);
        // Ended and not waited for, so its pid is still taken.
        let mut child = child;
        drop(child.stdin.take());
        while undoers.get(first).unwrap().fate(false) != Fate::Ended {
            std::thread::yield_now();
        }
        let second = remember(&mut undoers, &clients, 101);
        assert_eq!(second, Token::new(DOMID, 101));
        child.wait().unwrap();
        assert_eq!(undoers.take(first).map(|undoer| undoer.token), Some(first));
        assert!(undoers.get(first).is_none());
    }

    #[test]
    fn one_whose_pid_is_not_seen_ends_with_its_client() {
        let clients = clients_of(&[0, 0]);
        let mut undoers = Undoers::default();
        let first = remember(&mut undoers, &clients, 100);
        assert_eq!(remember(&mut undoers, &clients, 100), first);
        assert_ne!(remember(&mut undoers, &clients, 101), first);
        let undoer = undoers.get(first).unwrap();
        assert_eq!(undoer.fate(false), Fate::Lives);
        assert_eq!(undoer.fate(true), Fate::Ended);
        assert!(undoers.next_unwatched().is_none());
    }

    #[test]
    fn each_is_to_be_watched_once() {
        let clients = clients_of(&[std::process::id() as i32]);
        let mut undoers = Undoers::default();
        remember(&mut undoers, &clients, 100);
        assert_eq!(
            undoers.next_unwatched().map(|(serial, _)| serial),
            Some(100)
        );
        remember(&mut undoers, &clients, 100);
        assert!(undoers.next_unwatched().is_none());
    }
}
