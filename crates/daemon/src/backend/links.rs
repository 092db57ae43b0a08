// SPDX-License-Identifier: MIT OR Apache-2.0
//! The links to the enrolled domains: answers go out, queries go out and are waited for, and
//! requests that come while the back-end waits are kept for later.

use super::carrier::Carrier;
use rustix::io::Errno;
use std::collections::{HashMap, VecDeque};
use std::time::{Duration, Instant};
use vshmem_abi::link::{LinkMsg, LinkOp};
use vshmem_abi::{ABI_VERSION, Domid};
use vshmem_registry::{NoAnswer, Peers};

/// How long a domain may take to answer a query. It answers from what it holds, so this passes
/// only where its daemon is stopped or starved.
pub const PATIENCE: Duration = Duration::from_secs(2);

/// Requests of one domain that may wait. It sends one at a time, and another only when it has
/// given the last one up.
const MAX_QUEUED: usize = 16;

/// How far a domain has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// It was enrolled at an earlier back-end and has not found this one yet.
    Away,
    /// It has, and asks for all that it knows; until it is through with that it hears of changes and
    /// is not asked.
    Resuming,
    /// It is enrolled and can be asked.
    Enrolled,
}

/// A domain that is enrolled, here or at an earlier back-end.
#[derive(Debug)]
struct Link {
    name: String,
    /// Its daemon, where it is a process of this kernel.
    pid: Option<i32>,
    standing: Standing,
    /// It did not answer, and has sent nothing since: it is told of changes but not waited for.
    silent: bool,
    queued: usize,
}

/// The links by domain, and what has come up while they were used.
pub struct Links<C> {
    carrier: C,
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

impl<C: Carrier> Links<C> {
    /// No links yet; queries will be waited for as long as `patience`.
    pub fn new(carrier: C, patience: Duration) -> Self {
        Self {
            carrier,
            links: HashMap::new(),
            patience,
            seq: 0,
            requests: VecDeque::new(),
            ended: Vec::new(),
            spoke: Vec::new(),
        }
    }

    /// What carries the messages.
    pub fn carrier(&self) -> &C {
        &self.carrier
    }

    /// The same, to change.
    pub fn carrier_mut(&mut self) -> &mut C {
        &mut self.carrier
    }

    /// How long a domain may take to answer a query.
    pub fn patience(&self) -> Duration {
        self.patience
    }

    /// A domain is enrolled, or has come that far; what it wanted before is forgotten.
    pub fn add(&mut self, domid: Domid, name: &str, pid: Option<i32>, standing: Standing) {
        self.drop_pending(domid);
        let link = Link {
            name: name.to_owned(),
            pid,
            standing,
            silent: false,
            queued: 0,
        };
        self.links.insert(domid, link);
    }

    /// How far a domain has come; `None` when it is not enrolled.
    pub fn standing(&self, domid: Domid) -> Option<Standing> {
        self.links.get(&domid).map(|link| link.standing)
    }

    /// A domain has asked for all that it knows.
    pub fn resumed(&mut self, domid: Domid) {
        if let Some(link) = self.links.get_mut(&domid) {
            link.standing = Standing::Enrolled;
        }
    }

    /// Forgets a domain and what it still wanted. Returns its name and the pid of its daemon.
    pub fn remove(&mut self, domid: Domid) -> Option<(String, Option<i32>)> {
        self.drop_pending(domid);
        let link = self.links.remove(&domid)?;
        Some((link.name, link.pid))
    }

    fn drop_pending(&mut self, domid: Domid) {
        self.requests.retain(|(d, _)| *d != domid);
        self.ended.retain(|(d, _)| *d != domid);
        self.spoke.retain(|d| *d != domid);
    }

    /// Sends a domain its answer.
    pub fn answer(&mut self, domid: Domid, answer: &LinkMsg) {
        if let Err(errno) = self.carrier.send(domid, answer) {
            self.ended.push((domid, errno));
        }
    }

    /// Takes one message of a domain of which there seems to be one: a request is kept for
    /// [`Links::todo`].
    pub fn receive(&mut self, domid: Domid) {
        match self.next_message(domid, None) {
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
    fn next_message(&mut self, domid: Domid, until: Option<Instant>) -> Result<LinkMsg, Errno> {
        let link = self.links.get_mut(&domid).ok_or(Errno::CONNRESET)?;
        let message = self.carrier.receive(domid, until)?;
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
            match self.next_message(domid, Some(deadline)) {
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

impl<C: Carrier> Peers for Links<C> {
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
        let is_asked = link.standing == Standing::Enrolled && !link.silent;
        if link.standing == Standing::Away || !is_asked && !is_change {
            return Err(NoAnswer::Silent);
        }
        // One that has not read for so long that it would miss a change cannot go on.
        if let Err(errno) = self.carrier.send(domid, &query) {
            self.ended.push((domid, errno));
            return Err(NoAnswer::Gone);
        }
        if !is_asked {
            return Err(NoAnswer::Silent);
        }
        self.await_answer(domid, &query)
    }
}

fn is_query(message: &LinkMsg) -> bool {
    LinkOp::from_raw(message.op).is_some_and(LinkOp::is_query)
}
