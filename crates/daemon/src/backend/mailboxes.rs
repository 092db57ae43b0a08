// SPDX-License-Identifier: MIT OR Apache-2.0
//! Connections of the Xen port: a pair of mailboxes in XenStore for each guest.
//!
//! All of them come over one connection to XenStore, whose events tell where to look. What a guest
//! writes is looked at in one place at a time; what it does elsewhere below its `data` costs an event.

use super::carrier::Carrier;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::rc::Rc;
use std::time::Instant;
use vshmem_abi::Domid;
use vshmem_abi::link::LinkMsg;
use vshmem_registry::xenstore::mailbox::{Inbox, Outbox};
use vshmem_registry::xenstore::{Books, Event, Session, XenStore, paths, read_if_there};

/// Messages to a guest that may wait to be read: the changes that a stopped one has to hear of. They
/// count as the guest's nodes, of which it may have 1000 in all.
const ROOM: u32 = 512;

/// Events that are taken before what they tell of is looked at.
const EVENTS: usize = 1024;

/// What the token of a watch begins with, before the number of the guest.
const FRONT: char = 'f';
const UP: char = 'u';

/// A guest that there is.
#[derive(Default)]
struct Guest {
    boxes: Option<Boxes>,
    /// The number of a session that is not to be taken up (again).
    refused: Option<u64>,
}

struct Boxes {
    session: Session,
    up: Inbox,
    down: Outbox,
}

/// The guests, and which of them have something to say.
pub struct Mailboxes {
    store: Rc<dyn XenStore>,
    books: Books,
    guests: BTreeMap<Domid, Guest>,
    /// Guests in whose boxes there may be a message, in the order of their turns.
    waiting: VecDeque<Domid>,
    /// Guests whose session may be another.
    changed: BTreeSet<Domid>,
    /// Domains have come or gone.
    turnover: bool,
    /// What XenStore has refused, which is no guest's fault: nothing more is to be written there.
    failed: Option<Errno>,
}

impl Mailboxes {
    /// Watches for guests.
    ///
    /// # Errors
    /// What XenStore says.
    pub fn new(store: Rc<dyn XenStore>, books: Books) -> Result<Self, Errno> {
        for special in [paths::INTRODUCED, paths::RELEASED] {
            store.watch(special, special)?;
        }
        Ok(Self {
            store,
            books,
            guests: BTreeMap::new(),
            waiting: VecDeque::new(),
            changed: BTreeSet::new(),
            turnover: true,
            failed: None,
        })
    }

    /// Takes in what has happened.
    ///
    /// # Errors
    /// What XenStore says.
    pub fn pump(&mut self) -> Result<(), Errno> {
        for _ in 0..EVENTS {
            match self.store.next_event()? {
                Some(event) => self.note(&event),
                None => break,
            }
        }
        if std::mem::take(&mut self.turnover) {
            self.census()?;
        }
        Ok(())
    }

    fn note(&mut self, event: &Event) {
        let mut token = event.token.chars();
        let (what, guest) = (token.next(), token.as_str().parse());
        match (what, guest) {
            (Some(FRONT), Ok(domid)) => drop(self.changed.insert(domid)),
            (Some(UP), Ok(domid)) => {
                let boxes = self.boxes(domid);
                if boxes.is_some_and(|boxes| boxes.up.concerns(&event.path)) {
                    self.has_said_something(domid);
                }
            }
            _ => self.turnover = true,
        }
    }

    /// What XenStore has refused: the back-end cannot go on.
    pub fn failure(&self) -> Option<Errno> {
        self.failed
    }

    /// Tells the errors that guests cause from those of XenStore.
    fn blame<T>(&mut self, result: Result<T, Errno>) -> Result<T, Errno> {
        if let Err(errno) = result
            && ![Errno::AGAIN, Errno::CONNRESET, Errno::PROTO].contains(&errno)
        {
            self.failed = Some(errno);
        }
        result
    }

    /// Looks which guests there are.
    fn census(&mut self) -> Result<(), Errno> {
        let names = self.store.directory(paths::ALL_DOMAINS)?;
        let domids = names.iter().filter_map(|name| name.parse().ok());
        // Not dom0, which is where this is.
        let there: BTreeSet<Domid> = domids.filter(|domid| *domid != 0).collect();
        for &domid in &there {
            if let Entry::Vacant(place) = self.guests.entry(domid) {
                place.insert(Guest::default());
                for (what, pattern) in [(FRONT, paths::FRONT), (UP, paths::UP)] {
                    let path = paths::of_domain(pattern, domid);
                    self.store.watch(&path, &format!("{what}{domid}"))?;
                }
            }
        }
        // A domain that is gone may have left its nodes, for a while.
        self.changed.extend(self.guests.keys());
        for &domid in self.guests.keys().filter(|domid| !there.contains(domid)) {
            for (what, pattern) in [(FRONT, paths::FRONT), (UP, paths::UP)] {
                let path = paths::of_domain(pattern, domid);
                // It ends with the connection at the latest.
                let _ = self.store.unwatch(&path, &format!("{what}{domid}"));
            }
        }
        self.guests.retain(|domid, _| there.contains(domid));
        Ok(())
    }

    /// A guest whose session may be another than before.
    pub fn next_changed(&mut self) -> Option<Domid> {
        self.changed.pop_first()
    }

    /// A guest that may have something to say; each gets its turn.
    pub fn next_waiting(&mut self) -> Option<Domid> {
        let domid = self.waiting.pop_front()?;
        self.waiting.push_back(domid);
        Some(domid)
    }

    /// Whether there is something to look at without another event.
    pub fn is_busy(&self) -> bool {
        !self.waiting.is_empty() || !self.changed.is_empty()
    }

    fn boxes(&self, domid: Domid) -> Option<&Boxes> {
        self.guests.get(&domid)?.boxes.as_ref()
    }

    fn has_said_something(&mut self, domid: Domid) {
        if !self.waiting.contains(&domid) {
            self.waiting.push_back(domid);
        }
    }

    /// The session that a guest wants to have, if it says so.
    ///
    /// # Errors
    /// What XenStore says.
    pub fn wanted(&self, domid: Domid) -> Result<Option<Session>, Errno> {
        let path = paths::of_domain(paths::FRONT, domid);
        let value = read_if_there(&*self.store, &path)?;
        Ok(value.and_then(|value| Session::parse(&value)))
    }

    /// The session that a guest has.
    pub fn session(&self, domid: Domid) -> Option<Session> {
        self.boxes(domid).map(|boxes| boxes.session)
    }

    /// Begins a session with a guest, unless it was refused.
    pub fn begin(&mut self, domid: Domid, session: Session) {
        let Some(guest) = self.guests.get_mut(&domid) else {
            return;
        };
        if guest.refused == Some(session.number) {
            return;
        }
        guest.boxes = Some(Boxes {
            session,
            up: Inbox::new(paths::of_domain(paths::UP, domid), session.number),
            // A node of a domain that is gone would be dom0's, and stay.
            down: Outbox::new(paths::of_domain(paths::DOWN, domid), session.number, ROOM)
                .only_while(paths::of_domain(paths::FRONT, domid)),
        });
        self.has_said_something(domid);
    }

    /// Ends the session of a guest. That it wants to have the same is not heard any more.
    pub fn end(&mut self, domid: Domid) {
        self.waiting.retain(|other| *other != domid);
        if let Some(guest) = self.guests.get_mut(&domid)
            && let Some(boxes) = guest.boxes.take()
        {
            guest.refused = Some(boxes.session.number);
        }
    }

    /// The next message of a guest, if there is one.
    fn take(&mut self, domid: Domid) -> Result<Option<LinkMsg>, Errno> {
        let guest = self.guests.get_mut(&domid);
        let boxes = guest.and_then(|guest| guest.boxes.as_mut());
        let taken = boxes.ok_or(Errno::CONNRESET)?.up.take(&*self.store)?;
        if taken.is_none() {
            self.waiting.retain(|other| *other != domid);
        }
        Ok(taken)
    }

    /// Looks whether a guest still has the session that it had.
    ///
    /// # Errors
    /// `ECONNRESET` when its `vshmemd` is gone, `EAGAIN` when that has begun another one: in this one it
    /// says nothing more.
    fn check(&self, domid: Domid) -> Result<(), Errno> {
        if !self.changed.contains(&domid) {
            return Ok(());
        }
        let (wanted, has) = (self.wanted(domid)?, self.session(domid));
        if wanted == has {
            Ok(())
        } else if wanted.map(|session| session.front) == has.map(|session| session.front) {
            Err(Errno::AGAIN)
        } else {
            Err(Errno::CONNRESET)
        }
    }
}

impl Carrier for Mailboxes {
    fn send(&mut self, to: Domid, message: &LinkMsg) -> Result<(), Errno> {
        let guest = self.guests.get_mut(&to);
        let boxes = guest.and_then(|guest| guest.boxes.as_mut());
        let boxes = boxes.ok_or(Errno::CONNRESET)?;
        let put = boxes.down.put(&*self.store, message);
        self.blame(put)
    }

    fn receive(&mut self, from: Domid, until: Option<Instant>) -> Result<LinkMsg, Errno> {
        let received = self.receive_until(from, until);
        self.blame(received)
    }

    fn close(&mut self, domid: Domid) {
        // It is for the next back-end to find out who is gone.
        if self.failed.is_none() {
            self.books.withdraw(domid);
        }
        self.end(domid);
    }

    fn buried(&mut self, domid: Domid) {
        if self.failed.is_none() {
            self.books.strike(domid);
        }
    }
}

impl Mailboxes {
    fn receive_until(&mut self, from: Domid, until: Option<Instant>) -> Result<LinkMsg, Errno> {
        loop {
            if let Some(message) = self.take(from)? {
                return Ok(message);
            }
            self.check(from)?;
            let until = until.ok_or(Errno::AGAIN)?;
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Errno::AGAIN);
            }
            let timeout = Timespec {
                tv_sec: left.as_secs().try_into().unwrap_or(i64::MAX),
                tv_nsec: left.subsec_nanos().into(),
            };
            let fd = self.store.fd();
            let mut fds = [PollFd::from_borrowed_fd(fd, PollFlags::IN)];
            match poll(&mut fds, Some(&timeout)) {
                Ok(_) | Err(Errno::INTR) => self.pump()?,
                Err(errno) => return Err(errno),
            }
        }
    }
}
