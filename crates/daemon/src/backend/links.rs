// SPDX-License-Identifier: MIT OR Apache-2.0
//! The links to the enrolled domains: answers go out, queries go out and are waited for, and
//! requests that come while the back-end waits are kept for later.

use rustix::io::Errno;
use rustix::net::sockopt::{Timeout, set_socket_send_buffer_size, set_socket_timeout};
use rustix::net::{RecvFlags, SendFlags};
use std::collections::{HashMap, VecDeque};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};
use vshmem_abi::channel::{recv, send};
use vshmem_abi::link::{LinkMsg, LinkOp};
use vshmem_abi::{ABI_VERSION, Domid};
use vshmem_registry::{NoAnswer, Peers};

/// How long a domain may take to answer a query. It answers from what it holds, so this passes
/// only where its daemon is stopped or starved.
pub const PATIENCE: Duration = Duration::from_secs(2);

/// Requests of one domain that may wait. It sends one at a time, and another only when it has
/// given the last one up.
const MAX_QUEUED: usize = 16;

/// Bytes of messages to a domain that may wait to be read, as the kernel counts them.
const SEND_BUFFER: usize = 1 << 20;

/// An enrolled domain.
#[derive(Debug)]
struct Link {
    socket: OwnedFd,
    name: String,
    pid: i32,
    /// It did not answer, and has sent nothing since: it is told of changes but not waited for.
    silent: bool,
    queued: usize,
}

/// The links by domain, and what has come up while they were used.
#[derive(Debug)]
pub struct Links {
    links: HashMap<Domid, Link>,
    patience: Duration,
    seq: u32,
    requests: VecDeque<(Domid, LinkMsg)>,
    ended: Vec<(Domid, Errno)>,
    spoke: Vec<Domid>,
}

/// What there is to do before the next event.
#[derive(Debug)]
#[expect(
    clippy::large_enum_variant,
    reason = "one at a time, on the stack; a request is what it mostly is"
)]
pub enum Todo {
    /// This domain's connection is of no more use.
    Ended(Domid, Errno),
    /// This domain was silent and has spoken.
    Spoke(Domid),
    /// This domain has asked while others were being waited for.
    Request(Domid, LinkMsg),
}

impl Links {
    /// No links yet; queries will be waited for as long as `patience`.
    pub fn new(patience: Duration) -> Self {
        Self {
            links: HashMap::new(),
            patience,
            seq: 0,
            requests: VecDeque::new(),
            ended: Vec::new(),
            spoke: Vec::new(),
        }
    }

    /// A domain is enrolled.
    ///
    /// # Errors
    /// When `socket` is none.
    pub fn add(
        &mut self,
        domid: Domid,
        name: &str,
        pid: i32,
        socket: OwnedFd,
    ) -> Result<(), Errno> {
        // So that a query's answer is waited for in the same call that receives it.
        let mode = rustix::fs::fcntl_getfl(&socket)?;
        rustix::fs::fcntl_setfl(&socket, mode - rustix::fs::OFlags::NONBLOCK)?;
        set_socket_timeout(&socket, Timeout::Recv, Some(self.patience))?;
        // Room for the changes that a stopped domain has to hear of; the kernel gives what it
        // may, and less will do.
        let _ = set_socket_send_buffer_size(&socket, SEND_BUFFER);
        let link = Link {
            socket,
            name: name.to_owned(),
            pid,
            silent: false,
            queued: 0,
        };
        self.links.insert(domid, link);
        Ok(())
    }

    /// Forgets a domain and what it still wanted. Returns its name and the pid of its daemon.
    pub fn remove(&mut self, domid: Domid) -> Option<(String, i32)> {
        let link = self.links.remove(&domid)?;
        self.requests.retain(|(d, _)| *d != domid);
        Some((link.name, link.pid))
    }

    /// The socket of a domain.
    pub fn socket(&self, domid: Domid) -> Option<BorrowedFd<'_>> {
        self.links.get(&domid).map(|link| link.socket.as_fd())
    }

    /// Sends a domain its answer.
    pub fn answer(&mut self, domid: Domid, answer: &LinkMsg) {
        let Some(socket) = self.socket(domid) else {
            return;
        };
        if let Err(errno) = send(socket, answer, &[], None, SendFlags::DONTWAIT) {
            self.ended.push((domid, errno));
        }
    }

    /// Takes the one message of a domain that epoll told of: a request is kept for
    /// [`Links::todo`].
    pub fn receive(&mut self, domid: Domid) {
        match self.next_message(domid, RecvFlags::DONTWAIT) {
            Ok(message) if is_query(&message) => {
                tracing::debug!(domid, op = message.op, "an answer that nobody waits for");
            }
            Ok(message) => self.keep(domid, message),
            Err(Errno::AGAIN) => {}
            Err(errno) => self.ended.push((domid, errno)),
        }
    }

    /// What has come up, the most urgent first; `None` when it is time to wait for events.
    pub fn todo(&mut self) -> Option<Todo> {
        if let Some((domid, errno)) = self.ended.pop() {
            return Some(Todo::Ended(domid, errno));
        }
        if let Some(domid) = self.spoke.pop() {
            return Some(Todo::Spoke(domid));
        }
        let (domid, request) = self.requests.pop_front()?;
        if let Some(link) = self.links.get_mut(&domid) {
            link.queued -= 1;
        }
        Some(Todo::Request(domid, request))
    }

    fn keep(&mut self, domid: Domid, request: LinkMsg) {
        let Some(link) = self.links.get_mut(&domid) else {
            return;
        };
        if link.queued == MAX_QUEUED {
            return self.ended.push((domid, Errno::PROTO));
        }
        link.queued += 1;
        self.requests.push_back((domid, request));
    }

    /// The next message of a domain, which thereby is not silent any more.
    fn next_message(&mut self, domid: Domid, flags: RecvFlags) -> Result<LinkMsg, Errno> {
        let link = self.links.get_mut(&domid).ok_or(Errno::CONNRESET)?;
        let (message, _) = recv::<LinkMsg>(link.socket.as_fd(), flags)?;
        if message.version != ABI_VERSION {
            return Err(Errno::PROTO);
        }
        if link.silent {
            link.silent = false;
            self.spoke.push(domid);
            tracing::info!(domid, name = link.name, "the domain answers again");
        }
        Ok(message)
    }

    fn await_answer(&mut self, domid: Domid, query: &LinkMsg) -> Result<LinkMsg, NoAnswer> {
        let deadline = Instant::now() + self.patience;
        loop {
            match self.next_message(domid, RecvFlags::empty()) {
                Ok(message) if message.op == query.op && message.seq == query.seq => {
                    return Ok(message);
                }
                // The answer to a query that was not waited for any more.
                Ok(message) if is_query(&message) => {}
                Ok(message) => self.keep(domid, message),
                Err(Errno::AGAIN) => break,
                Err(errno) => {
                    self.ended.push((domid, errno));
                    return Err(NoAnswer::Gone);
                }
            }
            if Instant::now() >= deadline {
                break;
            }
        }
        if let Some(link) = self.links.get_mut(&domid) {
            link.silent = true;
            tracing::warn!(
                domid,
                name = link.name,
                pid = link.pid,
                "the domain does not answer and is not waited for until it does; if its vshmemd \
                 is stopped, send it SIGCONT, or kill it to give up the domain"
            );
        }
        Err(NoAnswer::Silent)
    }
}

impl Peers for Links {
    fn query(&mut self, domid: Domid, query: &LinkMsg) -> Result<LinkMsg, NoAnswer> {
        self.seq = self.seq.wrapping_add(1);
        let query = LinkMsg {
            seq: self.seq,
            ..*query
        };
        let ended = self.ended.iter().any(|(d, _)| *d == domid);
        let link = self.links.get(&domid).filter(|_| !ended);
        let link = link.ok_or(NoAnswer::Gone)?;
        // Only a change has to reach one that is not waited for.
        let is_change = [LinkOp::Update, LinkOp::Departed]
            .map(|op| op as u32)
            .contains(&query.op);
        if link.silent && !is_change {
            return Err(NoAnswer::Silent);
        }
        let socket = link.socket.as_fd();
        // One that has not read for so long that it would miss a change cannot go on.
        if let Err(errno) = send(socket, &query, &[], None, SendFlags::DONTWAIT) {
            self.ended.push((domid, errno));
            return Err(NoAnswer::Gone);
        }
        if link.silent {
            return Err(NoAnswer::Silent);
        }
        self.await_answer(domid, &query)
    }
}

fn is_query(message: &LinkMsg) -> bool {
    LinkOp::from_raw(message.op).is_some_and(LinkOp::is_query)
}
