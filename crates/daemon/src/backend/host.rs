// SPDX-License-Identifier: MIT OR Apache-2.0
//! The back-end of the host port: domains connect to its socket, and the hub stands in for the
//! hypervisor.

#[cfg(test)]
mod tests;

use super::links::{PATIENCE, Standing};
use super::sockets::Sockets;
use super::{BackArgs, Core};
use crate::server::{self, DaemonError, Epoll, Listener, Signals};
use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::PeerCredentials;
use rustix::event::epoll::EventFlags;
use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendFlags};
use std::collections::BTreeMap;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};
use vshmem_abi::channel::{recv, send};
use vshmem_abi::link::{LinkMsg, LinkOp, SEPARATE_KERNELS};
use vshmem_abi::{ABI_VERSION, Domid, paths};
use vshmem_gnt::host::hub;
use vshmem_registry::{EnrolError, NoKeeper};

// Tokens of epoll. Those of enrolled domains are their numbers; connections that have not said
// yet who they are count on from `FIRST_NEWCOMER`.
const SIGNALS: u64 = u64::MAX;
const LISTENER: u64 = u64::MAX - 1;
const METRICS: u64 = u64::MAX - 2;
const FIRST_NEWCOMER: u64 = 1 << 32;

/// Connections that have not said who they are; the oldest makes room for one more.
const MAX_NEWCOMERS: usize = 64;

/// How long no connections are taken when there was no descriptor for one.
const PAUSE: Duration = Duration::from_millis(100);

/// How long to wait for the end of a domain whose name is claimed by another: its daemon's pid
/// file is free a moment before its link closes.
const SUCCESSION: Duration = Duration::from_millis(200);

/// Serves all domains until it is told to stop.
///
/// # Errors
/// When it cannot begin: the socket cannot be made; later, when epoll itself fails.
pub fn run(args: BackArgs, signals: Signals) -> Result<(), DaemonError> {
    let hub = hub::serve(args.limits).map_err(DaemonError::io("cannot start the hub"))?;
    let listener = Listener::open(&paths::backend_socket(&args.dir), 0o600)?;
    let fail = || DaemonError::io("epoll");
    let carrier = Sockets::new(hub);
    let core = Core::new(signals, args.config, NoKeeper, carrier, PATIENCE).map_err(fail())?;
    let mut backend = Backend::new(listener, core).map_err(fail())?;
    backend.separate_kernels = args.separate_kernels;
    backend.grants_limit = args.limits.grants;
    tracing::info!(dir = %args.dir.display(), limits = ?args.limits, "serving");
    server::ready(args.ready_fd);
    backend.serve().map_err(fail())
}

/// A connection that has not said who it is.
struct Newcomer {
    socket: OwnedFd,
    /// Its process; 0 for one of another container, which cannot be seen here.
    pid: i32,
}

/// The running back-end.
struct Backend {
    epoll: Epoll,
    listener: Listener,
    core: Core<Sockets>,
    /// What domains are told when they are enrolled.
    separate_kernels: bool,
    grants_limit: u64,
    /// By token, so the oldest first.
    newcomers: BTreeMap<u64, Newcomer>,
    next_token: u64,
    /// No connections are taken before.
    resume: Option<Instant>,
    /// There was no descriptor for the last one who came, and the log says so.
    starved: bool,
}

impl Backend {
    fn new(listener: Listener, core: Core<Sockets>) -> Result<Self, Errno> {
        let epoll = Epoll::new()?;
        epoll.add(&core.signals, SIGNALS, EventFlags::IN)?;
        epoll.add(&listener, LISTENER, EventFlags::IN)?;
        epoll.add(&core.exporter, METRICS, EventFlags::IN)?;
        Ok(Self {
            epoll,
            listener,
            core,
            separate_kernels: false,
            grants_limit: 0,
            newcomers: BTreeMap::new(),
            next_token: FIRST_NEWCOMER,
            resume: None,
            starved: false,
        })
    }

    fn serve(mut self) -> Result<(), Errno> {
        let mut tokens = Vec::new();
        loop {
            tokens.clear();
            let timeout = self.resume.map(|_| PAUSE);
            tokens.extend(self.epoll.wait(timeout)?.map(|(token, _)| token));
            for &token in &tokens {
                match token {
                    SIGNALS => {
                        if self.core.take_signals() {
                            return Ok(());
                        }
                    }
                    LISTENER => self.accept(),
                    METRICS => self.core.tell_numbers(),
                    newcomer if newcomer >= FIRST_NEWCOMER => self.greet(newcomer),
                    // Tokens below are numbers of domains.
                    domid => self.core.links.receive(domid as Domid),
                }
                self.core.work();
            }
            if self.resume.is_some_and(|at| Instant::now() >= at) {
                self.resume = None;
                self.epoll.add(&self.listener, LISTENER, EventFlags::IN)?;
            }
        }
    }

    // Newcomers.

    fn accept(&mut self) {
        loop {
            match self.listener.accept() {
                Ok(Some(socket)) => {
                    self.starved = false;
                    self.admit(socket);
                }
                Ok(None) => return,
                Err(errno) => {
                    // One that says nothing gives way to one that may have something to say.
                    if self.newcomers.pop_first().is_none() {
                        // Once, not at each attempt for as long as it lasts.
                        if !self.starved {
                            tracing::error!(
                                %errno,
                                "cannot take a connection; raise the limit of open files \
                                 (ulimit -n)"
                            );
                        }
                        self.starved = true;
                        if self.epoll.remove(&self.listener).is_ok() {
                            self.resume = Some(Instant::now() + PAUSE);
                        }
                        return;
                    }
                }
            }
        }
    }

    fn admit(&mut self, socket: OwnedFd) {
        // Not rustix's, which has no room for a pid of 0.
        let Ok(creds) = getsockopt(&socket, PeerCredentials) else {
            return;
        };
        let (pid, uid) = (creds.pid(), creds.uid());
        if uid != 0 && uid != rustix::process::geteuid().as_raw() {
            tracing::warn!(
                pid,
                uid,
                "a process of another user wants to be a domain and is refused; start its vshmemd \
                 as this user or as root"
            );
            return;
        }
        let token = self.next_token;
        if let Err(errno) = self.epoll.add(&socket, token, EventFlags::IN) {
            tracing::error!(%errno, "cannot watch a connection");
            return;
        }
        self.next_token += 1;
        self.newcomers.insert(token, Newcomer { socket, pid });
        if self.newcomers.len() > MAX_NEWCOMERS
            && let Some((_, oldest)) = self.newcomers.pop_first()
        {
            tracing::warn!(
                pid = oldest.pid,
                "a connection that never said which domain it is makes room for another"
            );
        }
    }

    /// A newcomer says something: it is enrolled, or refused and closed.
    fn greet(&mut self, token: u64) {
        // One that made room since epoll told of it is there no more.
        let Some(Newcomer { socket, pid }) = self.newcomers.remove(&token) else {
            return;
        };
        let (request, why) = match recv::<LinkMsg>(socket.as_fd(), RecvFlags::DONTWAIT) {
            Ok((m, _)) if m.version == ABI_VERSION && m.op == LinkOp::Enrol as u32 => (m, None),
            Ok((message, _)) => (message, Some(Errno::PROTO)),
            Err(Errno::AGAIN) => {
                self.newcomers.insert(token, Newcomer { socket, pid });
                return;
            }
            Err(Errno::CONNRESET) => return,
            Err(errno) => (LinkMsg::new(LinkOp::Enrol), Some(errno)),
        };
        let refusal = match why {
            Some(_) => {
                tracing::warn!(
                    pid,
                    "refused a connection that does not enrol as a vshmemd of this version does; \
                     use the vshmemd that this back-end is of"
                );
                Err(Errno::PROTO)
            }
            None => self.enrol(&request, pid),
        };
        let (domid, name, theirs) = match refusal {
            Ok(enrolled) => enrolled,
            Err(errno) => {
                let refusal = request.refuse(errno.raw_os_error());
                // Who does not take its refusal is refused all the same.
                let _ = send(socket.as_fd(), &refusal, &[], None, SendFlags::DONTWAIT);
                return;
            }
        };
        let flags = if self.separate_kernels {
            SEPARATE_KERNELS
        } else {
            0
        };
        let mut answer = LinkMsg {
            domid,
            flags,
            ..request.answer()
        };
        answer.totals.used = self.grants_limit;
        let links = &mut self.core.links;
        let welcome = || -> Result<(), Errno> {
            self.epoll.remove(&socket)?;
            self.epoll.add(&socket, u64::from(domid), EventFlags::IN)?;
            let flags = SendFlags::DONTWAIT;
            send(socket.as_fd(), &answer, &[theirs.as_fd()], None, flags)?;
            let patience = links.patience();
            links.carrier_mut().add(domid, socket, patience)?;
            links.add(domid, &name, Some(pid), Standing::Enrolled);
            Ok(())
        };
        match welcome() {
            Ok(()) => tracing::info!(domid, name, pid, "domain enrolled"),
            Err(errno) => {
                tracing::warn!(domid, name, pid, %errno, "a domain left before it was enrolled");
                self.core.forget(domid);
            }
        }
    }

    /// Gives a newcomer its number and its connection to the hub.
    fn enrol(&mut self, request: &LinkMsg, pid: i32) -> Result<(Domid, String, OwnedFd), Errno> {
        let name = request.name.split(|b| *b == 0).next().unwrap_or_default();
        let name = String::from_utf8_lossy(name).into_owned();
        let enrolled = match self.core.registrar.enrol(&name) {
            Err(EnrolError::Taken(other)) if self.has_ended(other) => {
                self.core.bury(other, Errno::CONNRESET);
                self.core.registrar.enrol(&name)
            }
            other => other,
        };
        let domid = enrolled.map_err(|error| {
            tracing::warn!(pid, name, %error, "a domain is refused");
            error.errno()
        })?;
        match self.core.links.carrier().introduce(domid) {
            Ok(theirs) => Ok((domid, name, theirs)),
            Err(error) => {
                tracing::error!(
                    pid, name, %error,
                    "a domain is refused: no connection to the hub for it; raise the limit of \
                     open files (ulimit -n)"
                );
                self.core.forget(domid);
                Err(Errno::MFILE)
            }
        }
    }

    /// Whether a domain's daemon has closed its link, or does so in a moment.
    fn has_ended(&self, domid: Domid) -> bool {
        let Some(socket) = self.core.links.carrier().socket(domid) else {
            return true;
        };
        let patience = Timespec {
            tv_sec: 0,
            tv_nsec: SUCCESSION.subsec_nanos().into(),
        };
        // HUP is reported without being asked for.
        let mut fds = [PollFd::from_borrowed_fd(socket, PollFlags::empty())];
        matches!(rustix::event::poll(&mut fds, Some(&patience)), Ok(1))
    }
}
