// SPDX-License-Identifier: MIT OR Apache-2.0
//! The back-end of the Xen port, in dom0: guests come through XenStore, and what it knows it keeps
//! there.
//!
//! A guest is whom the directory belongs to that its messages come from; its name is XenStore's. It
//! wants to be enrolled when its `vshmemd` writes a session with this back-end into its `front` node,
//! and is gone when that node is gone, or says another generation: when the domain is destroyed, its
//! `vshmemd` has stopped, or was started again.
//!
//! It may be killed at any moment. Enrolled domains and constructs are kept before anybody hears of
//! them, and a domain that has died is struck out after all that follows from it is done; so a later
//! back-end finds again what domains know, and finds the dead once more.

#[cfg(test)]
mod tests;

use super::links::{PATIENCE, Standing};
use super::mailboxes::Mailboxes;
use super::{BackArgs, Core};
use crate::config::Config;
use crate::server::{self, DaemonError, Epoll, Signals};
use crate::throttle::Throttle;
use rustix::event::epoll::EventFlags;
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::rc::Rc;
use std::time::Duration;
use vshmem_abi::link::{LinkMsg, LinkOp};
use vshmem_abi::{ABI_VERSION, Domid};
use vshmem_registry::xenstore::library::Library;
use vshmem_registry::xenstore::{Announcement, Books, KeptDomain, XenStore, paths, read_if_there};

const SIGNALS: u64 = 0;
const STORE: u64 = 1;
const METRICS: u64 = 2;

/// Characters of a domain's name that are kept.
const NAME: usize = 64;

/// Serves all guests until it is told to stop.
///
/// # Errors
/// When it cannot begin: there is no XenStore, or this is not dom0; later, when XenStore fails.
pub fn run(args: BackArgs, signals: Signals) -> Result<(), DaemonError> {
    let store = Library::open().map_err(|error| DaemonError::Refused(error.to_string()))?;
    check_dom0(&store)?;
    let fail = || DaemonError::io("XenStore");
    let backend = Backend::new(Rc::new(store), signals, args.config, PATIENCE);
    let backend = backend.map_err(fail())?;
    backend.announce().map_err(fail())?;
    tracing::info!(generation = backend.generation, "serving");
    server::ready(args.ready_fd);
    backend.serve().map_err(fail())
}

/// The back-end writes where only dom0 may.
fn check_dom0(store: &dyn XenStore) -> Result<(), DaemonError> {
    match read_if_there(store, paths::OWN_DOMID) {
        Ok(Some(domid)) if domid != b"0" => Err(DaemonError::Refused(format!(
            "this is domain {}, and the back-end runs in dom0; here start: vshmemd --port xen",
            String::from_utf8_lossy(&domid)
        ))),
        Ok(_) => Ok(()),
        Err(errno) => Err(DaemonError::io("XenStore")(errno)),
    }
}

/// The running back-end.
struct Backend {
    epoll: Epoll,
    store: Rc<dyn XenStore>,
    books: Books,
    core: Core<Mailboxes, Books>,
    /// A random number that tells this back-end from others.
    generation: u64,
    /// As they are in the books.
    enrolled: BTreeMap<Domid, KeptDomain>,
    /// The last epochs of domains that are there and not enrolled.
    epochs: BTreeMap<Domid, u8>,
    refusals: Throttle,
}

impl Backend {
    /// Goes on with what an earlier one has kept.
    fn new(
        store: Rc<dyn XenStore>,
        signals: Signals,
        config: Config,
        patience: Duration,
    ) -> Result<Self, Errno> {
        let epoll = Epoll::new()?;
        epoll.add(&signals, SIGNALS, EventFlags::IN)?;
        epoll.add(store.fd(), STORE, EventFlags::IN)?;
        let books = Books::open(store.clone())?;
        let mut carrier = Mailboxes::new(store.clone(), books.clone())?;
        carrier.pump()?;
        let core = Core::new(signals, config, books.clone(), carrier, patience)?;
        epoll.add(&core.exporter, METRICS, EventFlags::IN)?;
        let mut backend = Self {
            epoll,
            store,
            core,
            books,
            generation: server::random(),
            enrolled: BTreeMap::new(),
            epochs: BTreeMap::new(),
            refusals: Throttle::default(),
        };
        backend.restore()?;
        Ok(backend)
    }

    fn restore(&mut self) -> Result<(), Errno> {
        let domains = self.books.domains()?;
        let constructs = self.books.constructs()?;
        let count = constructs.len();
        let known = domains.iter().map(|d| (d.domid, d.name.clone(), d.epoch));
        self.core.registrar.restore(constructs, known);
        for domain in &domains {
            let (domid, name) = (domain.domid, &domain.name);
            self.core.links.add(domid, name, None, Standing::Away);
            self.enrolled.insert(domid, domain.clone());
        }
        for domain in &domains {
            self.look(domain.domid)?;
        }
        self.core.work();
        self.strike();
        self.core.settle_restored();
        for domid in self.books.announced()? {
            if !self.enrolled.contains_key(&domid) {
                self.books.withdraw(domid);
            }
        }
        if count > 0 || !domains.is_empty() {
            let domains = self.enrolled.len();
            tracing::info!(
                constructs = count,
                domains,
                "goes on for an earlier back-end"
            );
        }
        Ok(())
    }

    /// Lets guests know that it is there.
    fn announce(&self) -> Result<(), Errno> {
        let announcement = Announcement::new(self.generation);
        let text = announcement.text();
        self.store.write(paths::BACKEND, text.as_bytes())
    }

    fn serve(mut self) -> Result<(), Errno> {
        loop {
            let timeout = self
                .core
                .links
                .carrier()
                .is_busy()
                .then_some(Duration::ZERO);
            let (mut has_signal, mut is_read) = (false, false);
            for (token, _) in self.epoll.wait(timeout)? {
                has_signal |= token == SIGNALS;
                is_read |= token == METRICS;
            }
            if is_read {
                self.core.tell_numbers();
            }
            if has_signal && self.core.take_signals() {
                // Guests need not find out by waiting for an answer.
                return self.store.rm(paths::BACKEND);
            }
            self.turn()?;
        }
    }

    /// One round of what there is to do.
    fn turn(&mut self) -> Result<(), Errno> {
        self.core.links.carrier_mut().pump()?;
        while let Some(domid) = self.core.links.carrier_mut().next_changed() {
            self.look(domid)?;
        }
        if let Some(domid) = self.core.links.carrier_mut().next_waiting() {
            match self.core.links.standing(domid) {
                Some(Standing::Resuming | Standing::Enrolled) => self.core.links.receive(domid),
                Some(Standing::Away) | None => self.greet(domid)?,
            }
        }
        self.core.work();
        self.strike();
        self.core.links.carrier().failure().map_or(Ok(()), Err)
    }

    /// Takes note of those that were cut off.
    fn strike(&mut self) {
        let links = &self.core.links;
        let gone = |domid: &Domid| links.standing(*domid).is_none();
        let gone: Vec<Domid> = self.enrolled.keys().copied().filter(gone).collect();
        for domid in gone {
            self.bury(domid);
        }
    }

    /// Looks what session a guest wants to have.
    fn look(&mut self, domid: Domid) -> Result<(), Errno> {
        let carrier = self.core.links.carrier();
        let wanted = carrier.wanted(domid)?;
        let has = carrier.session(domid);
        if has.is_some() && wanted == has {
            return Ok(());
        }
        let enrolled = self.enrolled.get(&domid);
        if let Some(enrolled) = enrolled
            && wanted.is_none_or(|session| session.front != enrolled.generation)
        {
            self.bury(domid);
        }
        let carrier = self.core.links.carrier_mut();
        carrier.end(domid);
        match wanted {
            Some(session) if session.back == self.generation => {
                if let Some(enrolled) = self.enrolled.get(&domid) {
                    // It goes on over another session.
                    let name = &enrolled.name;
                    self.core.links.add(domid, name, None, Standing::Away);
                }
                self.core.links.carrier_mut().begin(domid, session);
            }
            Some(_) => {}
            // A later domain of this number is another one.
            None if !self.is_there(domid)? => drop(self.epochs.remove(&domid)),
            None => {}
        }
        Ok(())
    }

    fn is_there(&self, domid: Domid) -> Result<bool, Errno> {
        let name = paths::of_domain(paths::NAME, domid);
        Ok(read_if_there(&*self.store, &name)?.is_some())
    }

    /// A domain, or its `vshmemd`, is gone.
    fn bury(&mut self, domid: Domid) {
        if let Some(gone) = self.enrolled.remove(&domid) {
            self.epochs.insert(domid, gone.epoch);
        }
        self.core.bury(domid, Errno::CONNRESET);
    }

    /// A guest that is not linked says something: it is enrolled, goes on, or is refused.
    fn greet(&mut self, domid: Domid) -> Result<(), Errno> {
        use super::carrier::Carrier;
        let Some(session) = self.core.links.carrier().session(domid) else {
            return Ok(());
        };
        let request = match self.core.links.carrier_mut().receive(domid, None) {
            Ok(request) => request,
            Err(Errno::AGAIN) => return Ok(()),
            Err(errno) => {
                self.refuse(domid, errno);
                return Ok(());
            }
        };
        let is_enrolment = request.op == LinkOp::Enrol as u32
            && request.version == ABI_VERSION
            && request.generation == session.front;
        let enrolled = match is_enrolment {
            true => self.enrol(domid, &request),
            false => Err(Errno::PROTO),
        };
        let answer = match enrolled {
            Ok(epoch) => LinkMsg {
                domid,
                epoch: epoch.into(),
                ..request.answer()
            },
            Err(errno) => request.refuse(errno.raw_os_error()),
        };
        let sent = self.core.links.carrier_mut().send(domid, &answer);
        if let Err(errno) = enrolled.and(sent) {
            self.refuse(domid, errno);
        }
        Ok(())
    }

    /// A guest is not enrolled, and not heard in this session any more.
    fn refuse(&mut self, domid: Domid, errno: Errno) {
        if let Some(more) = self.refusals.speak() {
            tracing::warn!(
                domid, more, %errno,
                "a domain is refused; its vshmemd is to be started again, and to be the one that this \
                 back-end is of"
            );
        }
        if self.enrolled.contains_key(&domid) {
            self.bury(domid);
        } else {
            self.core.links.carrier_mut().end(domid);
        }
    }

    /// Enrols a guest, or lets it go on; returns its epoch.
    fn enrol(&mut self, domid: Domid, request: &LinkMsg) -> Result<u8, Errno> {
        let again = request.flags == 1;
        let domain = match self.enrolled.get(&domid) {
            // Its `vshmemd` is the same: who is enrolled and has another is buried.
            Some(enrolled) => enrolled.clone(),
            // What it goes on with, nobody else knows of any more.
            None if again => return Err(Errno::STALE),
            None => {
                let name = self.store.read(&paths::of_domain(paths::NAME, domid))?;
                let name = String::from_utf8_lossy(&name).chars().take(NAME).collect();
                let last = self.epochs.remove(&domid);
                let epoch = last.map_or_else(|| server::random() as u8, |e| e.wrapping_add(1));
                let domain = KeptDomain {
                    domid,
                    generation: request.generation,
                    epoch,
                    name,
                };
                self.books.enrol(&domain)?;
                self.core.registrar.enrol_as(domid, &domain.name, epoch);
                self.enrolled.insert(domid, domain.clone());
                domain
            }
        };
        self.books.announce(domid, &domain.name)?;
        let links = &mut self.core.links;
        if again {
            links.add(domid, &domain.name, None, Standing::Resuming);
            tracing::info!(domid, name = domain.name, "domain goes on");
        } else {
            links.add(domid, &domain.name, None, Standing::Enrolled);
            // Of what there was before it knows nothing.
            self.core.resumed(domid);
            tracing::info!(domid, name = domain.name, "domain enrolled");
        }
        Ok(domain.epoch)
    }
}
