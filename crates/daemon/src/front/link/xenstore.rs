// SPDX-License-Identifier: MIT OR Apache-2.0
//! The connection of the Xen port: mailboxes in XenStore, below this domain's own `data`.
//!
//! It outlives back-ends. Which one there is, dom0 announces; this domain answers with a session
//! ([`Session`]), in which both sides number their messages anew. The session's node is also what this
//! `vshmemd` lives by: when it is gone, or another's, so is this one for the back-end.

use super::transport::{Incoming, Transport};
use crate::server::random;
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::os::fd::BorrowedFd;
use std::rc::Rc;
use vshmem_abi::link::{LinkMsg, LinkOp};
use vshmem_abi::{ABI_VERSION, Domid};
use vshmem_registry::xenstore::mailbox::{Inbox, Outbox};
use vshmem_registry::xenstore::{
    Announcement, Event, Session, XenStore, own_nodes, paths, read_if_there,
};

/// Messages that may wait until the back-end reads them: one request, and answers to queries.
const ROOM: u32 = 64;

/// Bytes of a ready domain's name.
const NAME: usize = 256;

/// The boxes of a session.
struct Boxes {
    up: Outbox,
    down: Inbox,
}

/// This domain's end of the mailboxes.
pub struct Mailboxes {
    store: Rc<dyn XenStore>,
    domid: Domid,
    /// Of this run of `vshmemd`.
    generation: u64,
    /// The back-end that there is.
    back_end: Option<Announcement>,
    /// The last session that was begun.
    session: Option<Session>,
    /// Its boxes, as long as there is the back-end that it is with.
    boxes: Option<Boxes>,
    /// There may be a message.
    more: bool,
    /// These nodes are to be looked at.
    back_end_changed: bool,
    ready_changed: bool,
    /// This domain is enrolled, and so among those that are ready.
    enrolled: bool,
}

impl Mailboxes {
    /// Watches for a back-end, on behalf of a `vshmemd` with this generation.
    ///
    /// # Errors
    /// What XenStore says; `EINVAL` in dom0.
    pub fn new(store: Rc<dyn XenStore>, generation: u64) -> Result<Self, Errno> {
        let domid = store.read(paths::OWN_DOMID)?;
        let domid = str::from_utf8(&domid).ok().and_then(|d| d.parse().ok());
        let domid: Domid = domid.filter(|domid| *domid != 0).ok_or(Errno::INVAL)?;
        for path in [paths::BACKEND, paths::READY] {
            store.watch(path, path)?;
        }
        for pattern in [paths::FRONT, paths::DOWN] {
            store.watch(&paths::of_domain(pattern, domid), pattern)?;
        }
        let mut mailboxes = Self {
            store,
            domid,
            generation,
            back_end: None,
            session: None,
            boxes: None,
            more: false,
            back_end_changed: false,
            ready_changed: true,
            enrolled: false,
        };
        mailboxes.look_for_back_end()?;
        Ok(mailboxes)
    }

    /// Number of this domain, as XenStore has it.
    pub fn domid(&self) -> Domid {
        self.domid
    }

    /// Name of this domain, as XenStore has it.
    pub fn name(&self) -> String {
        let name = self.store.read(&paths::of_domain(paths::NAME, self.domid));
        String::from_utf8_lossy(&name.unwrap_or_default()).into_owned()
    }

    fn look_for_back_end(&mut self) -> Result<(), Errno> {
        self.back_end_changed = false;
        let value = self.read_of_dom0(paths::BACKEND)?;
        self.back_end = value.and_then(|value| Announcement::parse(&value));
        let with = self.session.map(|session| session.back);
        if self.back_end.map(|back_end| back_end.generation) != with {
            self.boxes = None;
        }
        Ok(())
    }

    /// What dom0 has written. Before the back-end's first start there is nothing that may be read.
    fn read_of_dom0(&self, path: &str) -> Result<Option<Vec<u8>>, Errno> {
        match read_if_there(&*self.store, path) {
            Err(Errno::ACCESS) => Ok(None),
            value => value,
        }
    }

    /// The other domains that are ready.
    ///
    /// # Errors
    /// What XenStore says; `ECONNRESET` when the back-end has cut this one off.
    fn ready(&mut self) -> Result<BTreeMap<Domid, String>, Errno> {
        self.ready_changed = false;
        let mut ready = BTreeMap::new();
        let domids = match self.store.directory(paths::READY) {
            Err(Errno::NOENT | Errno::ACCESS) => Vec::new(),
            domids => domids?,
        };
        for domid in domids.iter().filter_map(|domid| domid.parse().ok()) {
            let path = paths::of_domain(paths::READY_DOMAIN, domid);
            // It may be gone by now.
            if let Some(mut name) = read_if_there(&*self.store, &path)? {
                name.truncate(NAME);
                ready.insert(domid, String::from_utf8_lossy(&name).into_owned());
            }
        }
        if ready.remove(&self.domid).is_none() && self.enrolled {
            tracing::error!(
                "the back-end in dom0 has cut this domain off: its log says why; when that is mended, end the \
                 programs of this domain and start this vshmemd again"
            );
            return Err(Errno::CONNRESET);
        }
        Ok(ready)
    }

    /// Takes note of what has happened.
    fn note(&mut self, event: &Event) -> Result<(), Errno> {
        match event.token.as_str() {
            paths::BACKEND => self.back_end_changed = true,
            paths::READY => self.ready_changed = true,
            paths::DOWN => {
                let boxes = self.boxes.as_ref();
                self.more |= boxes.is_some_and(|boxes| boxes.down.concerns(&event.path));
            }
            paths::FRONT => return self.check_own(),
            _ => {}
        }
        Ok(())
    }

    /// Nobody but this `vshmemd` writes its session.
    fn check_own(&self) -> Result<(), Errno> {
        let Some(session) = self.session else {
            return Ok(());
        };
        let path = paths::of_domain(paths::FRONT, self.domid);
        let value = read_if_there(&*self.store, &path)?;
        if value.as_deref() == Some(session.text().as_bytes()) {
            return Ok(());
        }
        tracing::error!(
            path,
            "the session of this vshmemd is not in XenStore any more: another vshmemd was started in \
             this domain, or somebody has removed it"
        );
        Err(Errno::CONNRESET)
    }
}

impl Transport for Mailboxes {
    fn fd(&self) -> BorrowedFd<'_> {
        self.store.fd()
    }

    fn nodes(&self) -> Option<u64> {
        own_nodes(&*self.store).ok()
    }

    fn is_up(&self) -> bool {
        self.boxes.is_some()
    }

    fn begin(&mut self) -> Result<(), Errno> {
        self.look_for_back_end()?;
        let Some(back_end) = self.back_end else {
            return Ok(());
        };
        if back_end.version != ABI_VERSION {
            tracing::error!(
                version = back_end.version,
                own = ABI_VERSION,
                "the back-end in dom0 is of another version than this vshmemd: install the same one there \
                 and here"
            );
            return Err(Errno::PROTO);
        }
        let session = Session {
            front: self.generation,
            back: back_end.generation,
            number: random(),
        };
        let at = |pattern| paths::of_domain(pattern, self.domid);
        // What is in them is of another session. The node that this one lives by is never missing.
        self.store.rm(&at(paths::UP))?;
        self.store.rm(&at(paths::DOWN))?;
        self.store
            .write(&at(paths::FRONT), session.text().as_bytes())?;
        self.session = Some(session);
        self.enrolled = false;
        self.boxes = Some(Boxes {
            up: Outbox::new(at(paths::UP), session.number, ROOM),
            down: Inbox::new(at(paths::DOWN), session.number),
        });
        self.more = true;
        Ok(())
    }

    fn send(&mut self, message: &LinkMsg) -> Result<(), Errno> {
        match &mut self.boxes {
            Some(boxes) => boxes.up.put(&*self.store, message),
            None => Err(Errno::AGAIN),
        }
    }

    fn receive(&mut self) -> Result<Incoming, Errno> {
        loop {
            if self.more
                && let Some(boxes) = &mut self.boxes
            {
                if let Some(message) = boxes.down.take(&*self.store)? {
                    if message.op == LinkOp::Enrol as u32 && message.errno == 0 {
                        self.enrolled = true;
                        // Who was ready before has been heard of by nobody who keeps it.
                        self.ready_changed = true;
                    }
                    return Ok(Incoming::Message(message, Default::default()));
                }
                self.more = false;
            }
            if self.back_end_changed {
                self.look_for_back_end()?;
                if self.boxes.is_none() && self.back_end.is_some() {
                    return Ok(Incoming::BackEnd);
                }
            }
            if self.ready_changed {
                return self.ready().map(Incoming::Ready);
            }
            match self.store.next_event()? {
                Some(event) => self.note(&event)?,
                None => return Ok(Incoming::Nothing),
            }
        }
    }

    fn holds_more(&self) -> bool {
        self.more || self.back_end_changed || self.ready_changed
    }

    fn advice(&self) -> &'static str {
        "stop the vshmemd of this domain and start it again to have a back-end"
    }
}

impl Drop for Mailboxes {
    fn drop(&mut self) {
        // The back-end need not find out by asking in vain. A domain of others' is left alone.
        if self.session.is_some() && self.check_own().is_ok() {
            let _ = self.store.rm(&paths::of_domain(paths::GUEST, self.domid));
        }
    }
}
