// SPDX-License-Identifier: MIT OR Apache-2.0
//! The loop: connections come and go, requests are received and answered, clients begin, fork
//! and end. Whoever sends what no client sends loses its connection, and nobody else notices.

use super::answer::{Answer, Answered, Passed};
use super::clients::Client;
use super::connections::Connections;
use super::creds::{Caller, Received, Receiver, errno_of};
use super::report::{self, Identity};
use super::requests::{Asker, Service};
use crate::config::Config;
use crate::metrics::exporter::Exporter;
use crate::metrics::front::{LinkState, Series};
use crate::server::{Epoll, Listener, Signals, Told};
use crate::throttle::Throttle;
use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use rustix::net::sockopt::set_socket_passcred;
use rustix::net::{AddressFamily, SendFlags, SocketFlags, SocketType, socketpair};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;
use std::time::{Duration, Instant};
use vshmem_abi::channel::send;
use vshmem_abi::wire::{Op, Reply, Request};
use vshmem_abi::{ABI_VERSION, Kind};
use vshmem_gnt::{Port, Region};

// Tokens of epoll: connections have their numbers, pidfds that of their client and a bit.
const SIGNALS: u64 = 0;
const LISTENER: u64 = 1;
const LINK: u64 = 2;
const METRICS: u64 = 3;
const RESERVED: u64 = 15;
const PIDFD: u64 = 1 << 63;
/// A pidfd of a process with undo: the rest of the token is its undo token's serial.
const UNDOER: u64 = 1 << 62;
/// The event channel of a doorbell: the rest of the token is its number.
const BELL: u64 = 1 << 61;

/// How often leftovers are looked at while there are any.
const TICK: Duration = Duration::from_millis(250);

/// How often it is tried to do what somebody who lives, and holds a lock, keeps us from.
const SHORT_TICK: Duration = Duration::from_millis(5);

/// How long the loop looks for the next request before it sleeps, when requests come in quick
/// succession: about as long as it takes to be woken on another core.
const LINGER: Duration = Duration::from_micros(60);

/// Requests that follow one another within this time come in quick succession.
const SUCCESSION: Duration = Duration::from_micros(300);

/// How often in a row doorbells are answered that were rung meanwhile. One who rings without end is then
/// kept waiting between one answer and the next.
const ROUNDS: u32 = 100;
/// See [`ROUNDS`].
const BREATH: Duration = Duration::from_millis(1);

/// Connections taken at once before others get their turn.
const ACCEPTS: usize = 32;

/// What to do about a request.
enum Outcome {
    /// Answer it.
    Answer(Answer),
    /// Drop the connection: no client sends this.
    Drop(&'static str),
}

/// How fast requests come, and so whether it pays to stay awake for the next one. It never does
/// where the client runs only while this process does not.
struct Pace {
    several_cores: bool,
    last: Option<Instant>,
    until: Option<Instant>,
}

impl Pace {
    fn new() -> Self {
        let set = rustix::thread::sched_getaffinity(None);
        Self {
            several_cores: set.is_ok_and(|set| set.count() > 1),
            last: None,
            until: None,
        }
    }

    /// Something came just now.
    fn request(&mut self) {
        let now = Instant::now();
        let quick = self
            .last
            .is_some_and(|last| now.duration_since(last) < SUCCESSION);
        self.until = (quick && self.several_cores).then(|| now + LINGER);
        self.last = Some(now);
    }

    /// Whether to look again rather than to sleep.
    fn lingers(&mut self) -> bool {
        if self.until.is_some_and(|until| Instant::now() >= until) {
            self.until = None;
        }
        self.until.is_some()
    }
}

/// The running front-end.
pub struct Front {
    epoll: Epoll,
    listener: Listener,
    signals: Signals,
    config: Config,
    connections: Connections,
    receiver: Receiver,
    service: Service,
    /// A descriptor to give up when there are no others left, so that one more connection can
    /// be taken and told so.
    spare: Option<OwnedFd>,
    /// No connections are taken until descriptors are to be had again.
    paused: bool,
    stopping: bool,
    garbage: Throttle,
    full: Throttle,
    identity: Identity,
    series: Series,
    exporter: Exporter,
}

impl Front {
    /// Watches `listener`, `signals` and the link to the back-end.
    ///
    /// # Errors
    /// What epoll says.
    pub fn new(
        listener: Listener,
        signals: Signals,
        config: Config,
        service: Service,
        identity: Identity,
    ) -> Result<Self, Errno> {
        let epoll = Epoll::new()?;
        epoll.add(&signals, SIGNALS, EventFlags::IN)?;
        // Connections inherit it: what is sent before we accept one has credentials too.
        set_socket_passcred(&listener, true)?;
        epoll.add(&listener, LISTENER, EventFlags::IN)?;
        if let Some(link) = service.link.fd() {
            epoll.add(link, LINK, EventFlags::IN)?;
        }
        let mut exporter = Exporter::new(&identity.name)?;
        exporter.listen(config.settings().metrics.as_ref());
        epoll.add(&exporter, METRICS, EventFlags::IN)?;
        Ok(Self {
            series: Series::new(&service.domain, &identity),
            exporter,
            epoll,
            listener,
            signals,
            config,
            connections: Connections::new(RESERVED),
            receiver: Receiver::new(),
            service,
            spare: spare(),
            paused: false,
            stopping: false,
            garbage: Throttle::default(),
            full: Throttle::default(),
            identity,
        })
    }

    /// Serves until a signal or an operator says to stop.
    ///
    /// # Errors
    /// What epoll says.
    pub fn serve(mut self) -> Result<(), Errno> {
        let mut events = Vec::new();
        let mut last_look = Instant::now();
        let mut pace = Pace::new();
        let mut rounds = 0;
        while !self.stopping {
            let leftovers = self.paused || self.service.domain.has_leftovers();
            let lingers = pace.lingers();
            let rung = !self.service.domain.answer_bells();
            rounds = if rung { rounds + 1 } else { 0 };
            let timeout = if rounds > ROUNDS {
                Some(BREATH)
            } else if lingers || rung {
                Some(Duration::ZERO)
            } else if self.service.domain.has_pending() || self.service.domain.has_buried() {
                Some(SHORT_TICK)
            } else {
                leftovers.then_some(TICK)
            };
            events.clear();
            events.extend(self.epoll.wait(timeout)?.map(|(token, _)| token));
            if !events.is_empty() {
                pace.request();
            } else if lingers {
                // Whoever else has something to do here goes first.
                rustix::thread::sched_yield();
                continue;
            }
            for &token in &events {
                match token {
                    SIGNALS => self.take_signals(),
                    LISTENER => self.accept(),
                    LINK => self.service.answer_back_end(),
                    METRICS => self.tell_numbers(),
                    undoer if undoer & UNDOER != 0 => {
                        self.service.domain.undoer_ended(undoer & !UNDOER);
                    }
                    bell if bell & BELL != 0 => {
                        let domain = &mut self.service.domain;
                        domain.bells.raised(bell & !BELL, &mut domain.port);
                    }
                    pidfd if pidfd & PIDFD != 0 => self.process_ended(pidfd & !PIDFD),
                    number => self.receive(number),
                }
                self.settle();
                if self.stopping {
                    return Ok(());
                }
            }
            if self.service.domain.has_pending() {
                self.service.domain.do_pending();
            }
            self.service.domain.bury();
            if self.service.domain.bells.has_missing() {
                self.settle();
            }
            if leftovers && last_look.elapsed() >= TICK {
                last_look = Instant::now();
                self.service.domain.look_at_leftovers();
                self.settle();
                self.resume_accepting();
            }
        }
        Ok(())
    }

    fn take_signals(&mut self) {
        while let Some(told) = self.signals.take() {
            match told {
                Told::Stop => self.stopping = true,
                Told::Reload => {
                    if let Some(settings) = self.config.reload() {
                        self.service.domain.configure(settings);
                        self.exporter.listen(settings.metrics.as_ref());
                    }
                }
            }
        }
    }

    fn tell_numbers(&mut self) {
        let Service { domain, link, .. } = &self.service;
        let (series, identity) = (&self.series, &self.identity);
        self.exporter.serve(|| {
            let link = LinkState {
                is_up: link.is_up(),
                nodes: link.nodes(),
            };
            series.text(domain, identity, &link)
        });
    }

    /// Does what could wait until a client had its answer.
    fn settle(&mut self) {
        self.service.settle();
        self.watch_bells();
        while let Some(number) = self.service.domain.orphaned.pop() {
            self.connections.close(number);
        }
        while let Some((undoer, pidfd)) = self.service.domain.undoers.next_unwatched() {
            // Without it the end of the client still tells.
            let _ = self.epoll.add(pidfd, UNDOER | undoer, EventFlags::IN);
        }
        if self.spare.is_none() {
            self.spare = spare();
        }
    }

    /// Watches the event channels of new doorbells, and ends those that were given up.
    fn watch_bells(&mut self) {
        let domain = &mut self.service.domain;
        while let Some((serial, fd)) = domain.bells.next_unwatched(&domain.port) {
            if let Err(errno) = self.epoll.add(fd, BELL | serial, EventFlags::IN) {
                tracing::error!(
                    %errno,
                    "cannot watch an event channel: sleepers are woken two seconds late; raise \
                     fs.epoll.max_user_watches"
                );
            }
        }
        while let Some(bell) = domain.bells.next_over() {
            if let Ok(fd) = domain.port.wait_fd(bell.channel()) {
                let _ = self.epoll.remove(fd);
            }
            bell.close(&mut domain.port);
        }
    }

    // Connections.

    fn accept(&mut self) {
        let mut accepted = false;
        for _ in 0..ACCEPTS {
            match self.listener.accept() {
                Ok(Some(socket)) => {
                    accepted = true;
                    let number = self.connections.number();
                    // One that came before we had the listener does not inherit it.
                    let tells = set_socket_passcred(&socket, true).is_ok();
                    if tells && self.epoll.add(&socket, number, EventFlags::IN).is_ok() {
                        self.connections.add_opened(number, socket);
                    }
                    if self.connections.too_many_ungreeted() {
                        self.connections.close_oldest_ungreeted();
                    }
                }
                Ok(None) => return,
                // The kernel looks for a descriptor first, so this says nothing of whether
                // another one waits. If so, epoll tells again.
                Err(_) if accepted => return,
                Err(errno) => {
                    if let Some(more) = self.full.speak() {
                        tracing::error!(
                            %errno, more,
                            "cannot take a connection; raise the limit of open files (ulimit -n)"
                        );
                    }
                    // One that says nothing gives way to one that may have something to say.
                    if !self.connections.close_oldest_ungreeted() && self.spare.take().is_none() {
                        // Still waiting in the queue, it would wake us all the time.
                        self.paused = self.epoll.remove(&self.listener).is_ok();
                        return;
                    }
                }
            }
        }
    }

    fn resume_accepting(&mut self) {
        if self.paused {
            let added = self.epoll.add(&self.listener, LISTENER, EventFlags::IN);
            self.paused = added.is_err();
        }
    }

    fn receive(&mut self, number: u64) {
        // Closed since epoll told of it.
        let Some(connection) = self.connections.get(number) else {
            return;
        };
        match self.receiver.receive(connection.fd()) {
            Received::Request(request, caller) => match self.handle(number, &request, &caller) {
                Outcome::Answer(answer) => self.reply(number, answer),
                Outcome::Drop(why) => self.drop_hostile(number, why, caller.pid),
            },
            Received::Nothing => {}
            Received::Closed => self.close(number),
            Received::Garbage(why) => self.drop_hostile(number, why, 0),
        }
    }

    fn drop_hostile(&mut self, number: u64, why: &str, pid: i32) {
        if let Some(more) = self.garbage.speak() {
            tracing::warn!(pid, more, "dropped a connection that sent {why}");
        }
        self.close(number);
    }

    fn close(&mut self, number: u64) {
        if self.connections.close(number) {
            self.service.domain.ended(number);
        }
    }

    fn reply(&mut self, number: u64, answer: Answer) {
        let Some(connection) = self.connections.get(number) else {
            return;
        };
        let domain = &self.service.domain;
        let fds = answer.fds.iter().filter_map(|passed| match passed {
            Passed::Own(fd) => Some(fd.as_fd()),
            Passed::Directory => Some(domain.constructs.directory_fd()),
            Passed::WaitPage => Some(domain.waits.fd()),
            Passed::Page(client) => Some(domain.clients.get(*client)?.page.fd()),
            Passed::Region(id) => domain.constructs.get(*id)?.fd(),
            Passed::BellPage(serial) => Some(domain.bells.get(*serial)?.page().fd()),
            Passed::Notifier(serial) => {
                let channel = domain.bells.get(*serial)?.channel();
                Some(domain.port.notifier(channel).ok()?.0)
            }
        });
        let fds: Vec<BorrowedFd<'_>> = fds.collect();
        let flags = SendFlags::DONTWAIT;
        if let Err(errno) = send(connection.fd(), &answer.reply, &fds, None, flags) {
            // It does not read its answers, or has gone.
            tracing::debug!(number, %errno, "an answer was not taken");
            self.close(number);
        }
    }

    // Requests.

    fn handle(&mut self, number: u64, request: &Request, caller: &Caller) -> Outcome {
        let Some(op) = Op::from_raw(request.op) else {
            return Outcome::Drop("an unknown operation");
        };
        self.identify(number, caller.pid);
        let answered = match op {
            Op::Hello => self.hello(number, request, caller),
            Op::Fork => self.fork(number),
            Op::Shutdown => self.shutdown(number, request.arg, caller.uid),
            Op::Report => self.report(number, request.id, caller),
            _ => match Kind::from_raw(request.kind) {
                Some(kind) => self.ask(number, op, kind, request, caller),
                None => return Outcome::Drop("an unknown kind of construct"),
            },
        };
        let answer = answered.unwrap_or_else(Answer::from);
        self.series.asked.note(request.op, answer.reply.errno);
        Outcome::Answer(answer)
    }

    /// Remembers whose process a client is with the first request that tells.
    fn identify(&mut self, number: u64, pid: i32) {
        let client = self.service.domain.clients.get_mut(number);
        if let Some(pidfd) = client.and_then(|client| client.identify(pid)) {
            // Without it the end of the connection still tells.
            let _ = self.epoll.add(pidfd, PIDFD | number, EventFlags::IN);
        }
    }

    fn ask(
        &mut self,
        number: u64,
        op: Op,
        kind: Kind,
        request: &Request,
        caller: &Caller,
    ) -> Answered {
        let client = self.service.domain.clients.get(number);
        let needs_client = matches!(
            op,
            Op::Get | Op::Open | Op::Confirm | Op::Detached | Op::Undo | Op::Settle
        );
        if needs_client && client.is_none() {
            return Err(Errno::PROTO);
        }
        let asker = Self::asker(number, caller, client, &self.connections);
        self.service.answer(op, kind, request, &asker)
    }

    fn asker<'a>(
        number: u64,
        caller: &'a Caller,
        client: Option<&Client>,
        connections: &'a Connections,
    ) -> Asker<'a> {
        Asker {
            caller,
            opened: connections.get(number).and_then(|c| c.opened()),
            own_pid: client.map_or(caller.pid, |client| client.own_pid()),
            client: client.map_or(0, |_| number),
        }
    }

    fn report(&self, number: u64, id: i32, caller: &Caller) -> Answered {
        let domain = &self.service.domain;
        if id == 0 {
            return report::answer(&domain.report(&self.identity));
        }
        let client = domain.clients.get(number);
        let asker = Self::asker(number, caller, client, &self.connections);
        report::answer(&domain.report_on(id, &asker))
    }

    fn hello(&mut self, number: u64, request: &Request, caller: &Caller) -> Answered {
        let domain = &mut self.service.domain;
        if request.version != ABI_VERSION || domain.clients.get(number).is_some() {
            return Err(Errno::PROTO);
        }
        let generation = domain.clients.run.generation;
        if request.token != 0 && request.token != generation {
            tracing::warn!(
                pid = caller.pid,
                "a client belonged to an earlier run of this daemon: the constructs of that time \
                 are gone, and what it has attached of them stays until it detaches"
            );
        }
        let client = domain.clients.add(number).map_err(|e| errno_of(&e))?;
        client.says_pid(request.arg as i32);
        if request.token == generation {
            domain.clients.carry_token_over(number, caller.pid);
        }
        let client = domain.clients.get(number).ok_or(Errno::PROTO)?;
        let welcome = client.welcome(domain.domid, generation);
        self.connections.greeted(number);
        self.identify(number, caller.pid);
        Ok(Answer::with(0, 0, &welcome)
            .and(Passed::Directory)
            .and(Passed::Page(number))
            .and(Passed::WaitPage))
    }

    fn fork(&mut self, parent: u64) -> Answered {
        if self.service.domain.clients.get(parent).is_none() {
            return Err(Errno::PROTO);
        }
        let kind = SocketType::SEQPACKET;
        let (ours, theirs) = socketpair(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None)?;
        set_socket_passcred(&ours, true)?;
        let child = self.connections.number();
        let domain = &mut self.service.domain;
        let added = domain.clients.add_child(child, parent);
        added.map_err(|e| errno_of(&e))?;
        let ours = Rc::new(ours);
        if let Some(client) = domain.clients.get_mut(child) {
            client.expect_birth(ours.clone());
        }
        let welcome = domain
            .clients
            .get(child)
            .ok_or(Errno::PROTO)?
            .welcome(domain.domid, domain.clients.run.generation);
        domain.note_fork(parent);
        if let Err(errno) = self.epoll.add(&ours, child, EventFlags::IN) {
            domain.clients.remove(child);
            return Err(errno);
        }
        self.connections.add_made(child, ours);
        Ok(Answer::with(0, 0, &welcome)
            .and(Passed::Own(theirs))
            .and(Passed::Page(child)))
    }

    fn shutdown(&mut self, number: u64, arg: u32, uid: u32) -> Answered {
        if uid != 0 && uid != rustix::process::geteuid().as_raw() {
            return Err(Errno::PERM);
        }
        let present = self
            .service
            .domain
            .clients
            .iter()
            .filter(|&(other, client)| {
                let uses = client.page.pid() > 0 || client.page.attached().next().is_some();
                other != number && uses && client.lives()
            });
        let value = present.count() as i32;
        let errno = match arg {
            0 if value > 0 => libc::EBUSY,
            0 | 1 => {
                tracing::info!(clients = value, "told to stop");
                self.stopping = true;
                0
            }
            2 => 0,
            _ => libc::EINVAL,
        };
        let reply = Reply {
            errno,
            value,
            ..Reply::OK
        };
        Ok(reply.into())
    }

    fn process_ended(&mut self, number: u64) {
        if let Some(client) = self.service.domain.clients.get_mut(number) {
            // It stays readable for ever.
            client.unwatch();
            self.service.domain.ended(number);
        }
    }
}

fn spare() -> Option<OwnedFd> {
    use rustix::fs::{Mode, OFlags, open};
    open("/dev/null", OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty()).ok()
}
