// SPDX-License-Identifier: MIT OR Apache-2.0
//! The connection to the back-end: one request of ours at a time, and queries of its own that are
//! answered whenever they come, also while we wait for an answer.

mod socket;
#[cfg(test)]
mod tests;
mod transport;
mod xenstore;

pub use socket::Socket;
pub use xenstore::Mailboxes;

use crate::throttle::Throttle;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::os::fd::BorrowedFd;
use std::time::{Duration, Instant};
use transport::{Incoming, Transport};
use vshmem_abi::channel::Fds;
use vshmem_abi::link::{BY_POLICY, LinkMsg, LinkOp};
use vshmem_abi::{ABI_VERSION, Domid};
use vshmem_registry::xenstore::{QUOTA_ADVICE, is_quota};

/// How long an answer of the back-end may take. It waits for other domains for less.
const PATIENCE: Duration = Duration::from_secs(5);

/// What is done about messages that are not the answer that is being waited for.
pub trait Attend {
    /// Answers a query.
    fn query(&mut self, query: &LinkMsg) -> LinkMsg;

    /// Hears the answer to a request that was given up on.
    fn late(&mut self, answer: &LinkMsg);

    /// What a back-end that was started anew is to be asked by a domain that goes on.
    fn questions(&self) -> Vec<LinkMsg>;

    /// Hears the answer to one of these.
    fn told(&mut self, question: &LinkMsg, answer: Result<&LinkMsg, Errno>);

    /// Hears which other domains are ready, and what they are called.
    fn ready(&mut self, ready: BTreeMap<Domid, String>);
}

/// Why there is no answer.
enum Fail {
    /// The back-end says so.
    Refused(Errno),
    /// It has not been sent, or not been answered in time.
    Silent(Errno),
    /// Another back-end is there, which knows nothing of the request.
    Restarted,
}

/// The connection. Once it is lost, every call fails with `ENODEV`.
///
/// On Xen it outlives the back-end: a call waits for the next one as long as for an answer, and the
/// domain then goes on there with what it knows. A back-end that has not answered in time is not
/// waited for again until it is heard of.
pub struct Link {
    transport: Option<Box<dyn Transport>>,
    seq: u32,
    patience: Duration,
    /// What the domain was enrolled with.
    enrolment: Option<LinkMsg>,
    /// The domain has to go on at the back-end that there is, and could not yet.
    behind: bool,
    silent: bool,
    quota: Throttle,
    policy: Throttle,
}

impl Link {
    /// Over a connection to a back-end.
    pub fn new(transport: impl Transport + 'static) -> Self {
        Self {
            transport: Some(Box::new(transport)),
            seq: 0,
            patience: PATIENCE,
            enrolment: None,
            behind: false,
            silent: false,
            quota: Throttle::default(),
            policy: Throttle::default(),
        }
    }

    /// Has answers be waited for so long.
    #[cfg(test)]
    pub fn set_patience(&mut self, patience: Duration) {
        self.patience = patience;
    }

    /// Whether the back-end is there, as far as is known.
    #[cfg(test)]
    pub fn is_heard(&self) -> bool {
        !self.silent && !self.behind
    }

    /// The descriptor to watch for queries; `None` once the connection is lost.
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.transport.as_ref().map(|transport| transport.fd())
    }

    /// Whether there is a back-end that this domain talks to, as far as is known.
    pub fn is_up(&self) -> bool {
        self.transport.as_ref().is_some_and(|t| t.is_up())
    }

    /// [`Transport::nodes`].
    pub fn nodes(&self) -> Option<u64> {
        self.transport.as_ref()?.nodes()
    }

    /// Whether there is something to attend to of which the descriptor does not tell.
    pub fn holds_more(&self) -> bool {
        self.transport.as_ref().is_some_and(|t| t.holds_more())
    }

    /// Makes the domain known to the back-end, in a session of its own.
    ///
    /// # Errors
    /// As [`Self::call`].
    pub fn enrol(
        &mut self,
        request: &LinkMsg,
        others: &mut impl Attend,
    ) -> Result<(LinkMsg, Fds), Errno> {
        self.begin().map_err(Self::errno)?;
        let answer = self.call(request, others)?;
        self.enrolment = Some(*request);
        Ok(answer)
    }

    /// Sends a request and waits for its answer; `others` attends to what comes meanwhile.
    ///
    /// # Errors
    /// The errno of the answer; `ENODEV` when there is no answer in five seconds, or no back-end, or
    /// when it is not known whether a removal was done; `ENOSPC` when a quota of XenStore's is used up.
    pub fn call(
        &mut self,
        request: &LinkMsg,
        others: &mut impl Attend,
    ) -> Result<(LinkMsg, Fds), Errno> {
        if self.silent || self.holds_more() {
            self.attend(others);
        }
        if self.silent {
            return Err(Errno::NODEV);
        }
        let deadline = Instant::now() + self.patience;
        self.await_back_end(deadline, others).map_err(Self::errno)?;
        loop {
            match self.exchange(request, deadline, others) {
                Err(Fail::Restarted) => {
                    self.go_on(others).map_err(Self::errno)?;
                    // All else can be asked again. What was made for the request is not there any more.
                    if request.op == LinkOp::Remove as u32 {
                        return Err(Errno::NODEV);
                    }
                }
                answered => return answered.map_err(Self::errno),
            }
        }
    }

    fn errno(fail: Fail) -> Errno {
        match fail {
            Fail::Refused(errno) | Fail::Silent(errno) => errno,
            Fail::Restarted => Errno::NODEV,
        }
    }

    /// Attends to everything that is waiting; for when nothing of ours is under way.
    pub fn attend(&mut self, others: &mut impl Attend) {
        while self.attend_once(others) {}
        // What it had not answered in time it has answered now.
        if self.behind && !self.silent {
            // If it fails again, the next sign of life is the next occasion.
            let _ = self.go_on(others);
        }
    }

    fn attend_once(&mut self, others: &mut impl Attend) -> bool {
        match self.receive() {
            Incoming::Nothing => return false,
            Incoming::Message(message, _) => self.attend_to(&message, others),
            Incoming::Ready(ready) => others.ready(ready),
            Incoming::BackEnd => {
                // Whatever comes of it, the next call finds out.
                let _ = self.go_on(others);
            }
        }
        true
    }

    /// Attends to a message that is not an answer that is waited for.
    fn attend_to(&mut self, message: &LinkMsg, others: &mut impl Attend) {
        if is_query(message) {
            // One that cannot be answered is taken for not answered.
            let _ = self.send(&others.query(message));
        } else {
            tracing::warn!(seq = message.seq, "an answer of the back-end came too late");
            others.late(message);
        }
    }

    /// Waits until there is a back-end at which the domain is known.
    fn await_back_end(&mut self, deadline: Instant, others: &mut impl Attend) -> Result<(), Fail> {
        if self.behind {
            return self.go_on(others);
        }
        while !self.transport()?.is_up() {
            if !self.attend_once(others) {
                self.wait_until(deadline)?;
            }
        }
        Ok(())
    }

    /// Sends a request and waits for its answer.
    fn exchange(
        &mut self,
        request: &LinkMsg,
        deadline: Instant,
        others: &mut impl Attend,
    ) -> Result<(LinkMsg, Fds), Fail> {
        self.seq = self.seq.wrapping_add(1);
        let seq = self.seq;
        self.send(&LinkMsg { seq, ..*request })?;
        loop {
            match self.receive() {
                Incoming::Nothing => self.wait_until(deadline)?,
                Incoming::BackEnd => return Err(Fail::Restarted),
                Incoming::Ready(ready) => others.ready(ready),
                Incoming::Message(message, fds) => {
                    if message.seq != seq || message.op != request.op {
                        self.attend_to(&message, others);
                    } else if message.errno == 0 {
                        return Ok((message, fds));
                    } else {
                        let errno = Errno::from_raw_os_error(message.errno);
                        if message.flags & BY_POLICY != 0 {
                            self.log_refusal(request, errno);
                        }
                        return Err(Fail::Refused(errno));
                    }
                }
            }
        }
    }

    /// The back-end has said more, where its own operator sees it.
    fn log_refusal(&mut self, request: &LinkMsg, errno: Errno) {
        if let Some(more) = self.policy.speak() {
            let (id, key) = (request.meta.id, format!("{:#010x}", request.meta.key));
            tracing::warn!(
                id, key, %errno, more,
                "the policy of the back-end refuses what a program of this domain wants: the log of \
                 the back-end names the rule or limit"
            );
        }
    }

    /// Goes on at a back-end that was started anew, once the domain was enrolled at one.
    fn go_on(&mut self, others: &mut impl Attend) -> Result<(), Fail> {
        self.behind = false;
        self.silent = false;
        loop {
            self.begin()?;
            if !self.transport()?.is_up() {
                // It is gone again. The next one is another occasion.
                return Err(Fail::Silent(Errno::NODEV));
            }
            let done = match self.enrolment {
                Some(enrolment) => self.catch_up(&enrolment, others),
                None => Ok(()),
            };
            match done {
                Err(Fail::Restarted) => {}
                Err(Fail::Refused(errno)) => {
                    tracing::error!(
                        %errno,
                        "the back-end does not know this domain any more: end its programs, and start this \
                         vshmemd again"
                    );
                    self.lose(errno);
                    return Err(Fail::Silent(Errno::NODEV));
                }
                Err(fail) => {
                    self.behind = true;
                    return Err(fail);
                }
                Ok(()) => return Ok(()),
            }
        }
    }

    /// Lets the back-end know of this domain, and asks for all that the domain knows.
    fn catch_up(&mut self, enrolment: &LinkMsg, others: &mut impl Attend) -> Result<(), Fail> {
        let again = LinkMsg {
            flags: 1,
            ..*enrolment
        };
        self.exchange(&again, Instant::now() + self.patience, others)?;
        let questions = others.questions();
        for question in &questions {
            match self.exchange(question, Instant::now() + self.patience, others) {
                Ok((answer, _)) => others.told(question, Ok(&answer)),
                Err(Fail::Refused(errno)) => others.told(question, Err(errno)),
                Err(fail) => return Err(fail),
            }
        }
        let resumed = LinkMsg::new(LinkOp::Resumed);
        self.exchange(&resumed, Instant::now() + self.patience, others)?;
        tracing::info!(
            questions = questions.len(),
            "the back-end was started anew; this domain goes on"
        );
        Ok(())
    }

    fn transport(&mut self) -> Result<&mut Box<dyn Transport>, Fail> {
        self.transport.as_mut().ok_or(Fail::Silent(Errno::NODEV))
    }

    fn begin(&mut self) -> Result<(), Fail> {
        let begun = self.transport()?.begin();
        begun.map_err(|errno| self.failed(errno))
    }

    fn send(&mut self, message: &LinkMsg) -> Result<(), Fail> {
        let sent = self.transport()?.send(message);
        sent.map_err(|errno| self.failed(errno))
    }

    /// What it means that something could not be written.
    fn failed(&mut self, errno: Errno) -> Fail {
        if errno == Errno::AGAIN {
            tracing::warn!(
                "the back-end takes no messages: it is stopped, or has too much to do; what needs it gives \
                 ENODEV"
            );
            return Fail::Silent(Errno::NODEV);
        }
        if is_quota(errno) {
            if let Some(more) = self.quota.speak() {
                tracing::error!(%errno, more, "this domain may write no more to XenStore; {QUOTA_ADVICE}");
            }
            return Fail::Silent(Errno::NOSPC);
        }
        self.lose(errno);
        Fail::Silent(Errno::NODEV)
    }

    /// What comes next, if something has come.
    fn receive(&mut self) -> Incoming {
        let Some(transport) = &mut self.transport else {
            return Incoming::Nothing;
        };
        match transport.receive() {
            Ok(Incoming::Message(message, _)) if message.version != ABI_VERSION => {
                self.lose(Errno::PROTO);
                Incoming::Nothing
            }
            Ok(Incoming::Message(message, fds)) => {
                if std::mem::take(&mut self.silent) {
                    tracing::info!("the back-end answers again");
                }
                Incoming::Message(message, fds)
            }
            Ok(incoming) => incoming,
            Err(errno) => {
                self.lose(errno);
                Incoming::Nothing
            }
        }
    }

    /// Waits until there is something to receive.
    fn wait_until(&mut self, deadline: Instant) -> Result<(), Fail> {
        loop {
            let fd = self.fd().ok_or(Fail::Silent(Errno::NODEV))?;
            let left = deadline.saturating_duration_since(Instant::now());
            let timeout = Timespec {
                tv_sec: left.as_secs() as i64,
                tv_nsec: left.subsec_nanos().into(),
            };
            let mut fds = [PollFd::new(&fd, PollFlags::IN)];
            match poll(&mut fds, Some(&timeout)) {
                Ok(0) => {
                    tracing::error!(
                        "no answer from the back-end in {:?}; requests that need it give ENODEV \
                         until it is heard of again",
                        self.patience
                    );
                    self.silent = true;
                    return Err(Fail::Silent(Errno::NODEV));
                }
                Ok(_) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(Fail::Silent(errno)),
            }
        }
    }

    fn lose(&mut self, errno: Errno) {
        if let Some(transport) = self.transport.take() {
            tracing::error!(
                %errno,
                "the back-end is gone: constructs that this domain knows go on, all else gives \
                 ENODEV; {}",
                transport.advice()
            );
        }
    }
}

fn is_query(message: &LinkMsg) -> bool {
    LinkOp::from_raw(message.op).is_some_and(LinkOp::is_query)
}
