// SPDX-License-Identifier: MIT OR Apache-2.0
//! A XenStore in this process, with the rules of the C xenstored of Xen 4.17: who may read and write
//! what, quotas of guests, and when watches fire. For tests, in which domains are threads.

#[cfg(test)]
mod tests;

use super::{Event, Others, XenStore};
use rustix::event::{EventfdFlags, eventfd};
use rustix::io::Errno;
use std::collections::{BTreeMap, VecDeque};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use vshmem_abi::Domid;

/// Bytes of a node's record beside its value and the names below it (`struct xs_tdb_record_hdr`).
const RECORD: usize = 24;
/// `XENSTORE_PAYLOAD_MAX`.
const PAYLOAD: usize = 4096;

/// What a guest may have at a time.
#[derive(Clone, Copy, Debug)]
pub struct Quota {
    /// Nodes that are its own.
    pub nodes: usize,
    /// Bytes of a node's record.
    pub size: usize,
    /// Watches.
    pub watches: usize,
}

impl Default for Quota {
    fn default() -> Self {
        Self {
            nodes: 1000,
            size: 2048,
            watches: 128,
        }
    }
}

/// Who beside its owner and dom0 may read a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Readers {
    Nobody,
    One(Domid),
    All,
}

#[derive(Clone, Debug)]
struct Node {
    value: Vec<u8>,
    owner: Domid,
    readers: Readers,
}

impl Node {
    fn lets_read(&self, domid: Domid) -> bool {
        let listed = [Readers::All, Readers::One(domid)].contains(&self.readers);
        self.lets_write(domid) || listed
    }

    fn lets_write(&self, domid: Domid) -> bool {
        domid == 0 || domid == self.owner
    }
}

struct Connection {
    domid: Domid,
    watches: Vec<(String, String)>,
    events: VecDeque<Event>,
    broken: bool,
    /// Readable while there are events.
    signal: OwnedFd,
}

impl Connection {
    fn tell(&mut self, path: &str, token: &str) {
        self.events.push_back(Event {
            path: path.to_owned(),
            token: token.to_owned(),
        });
        // A counter that is high enough already is readable too.
        let _ = rustix::io::write(&self.signal, &1u64.to_ne_bytes());
    }
}

struct Tree {
    nodes: BTreeMap<String, Node>,
    connections: BTreeMap<u64, Connection>,
    next: u64,
    quota: Quota,
    /// Requests after which the connections of a domain break.
    fuses: BTreeMap<Domid, u32>,
}

/// The store.
#[derive(Clone)]
pub struct FakeStore(Arc<Mutex<Tree>>);

impl Default for FakeStore {
    fn default() -> Self {
        Self::new()
    }
}

impl FakeStore {
    /// A store of a machine with dom0 only.
    pub fn new() -> Self {
        let tree = Tree {
            nodes: BTreeMap::new(),
            connections: BTreeMap::new(),
            next: 0,
            quota: Quota::default(),
            fuses: BTreeMap::new(),
        };
        let store = Self(Arc::new(Mutex::new(tree)));
        let mut tree = store.tree();
        for path in ["/", "/local", "/local/domain"] {
            tree.put(path, b"", 0, Readers::Nobody);
        }
        drop(tree);
        store.introduce(0, "Domain-0");
        store
    }

    /// Sets what each guest may have.
    pub fn set_quota(&self, quota: Quota) {
        self.tree().quota = quota;
    }

    /// A domain comes, as xl makes one: its home can be read by it, `data` is its own.
    pub fn introduce(&self, domid: Domid, name: &str) {
        let mut tree = self.tree();
        let home = format!("/local/domain/{domid}");
        let number = domid.to_string();
        for (place, value) in [("", ""), ("/name", name), ("/domid", &number)] {
            let path = format!("{home}{place}");
            tree.put(&path, value.as_bytes(), 0, Readers::One(domid));
        }
        tree.put(&format!("{home}/data"), b"", domid, Readers::Nobody);
        tree.fire_special("@introduceDomain");
    }

    /// A domain is destroyed: what is its own goes, its home too, its connections hear nothing more.
    pub fn release(&self, domid: Domid) {
        let mut tree = self.tree();
        tree.connections.retain(|_, c| c.domid != domid);
        tree.nodes
            .retain(|_, node| node.owner != domid || domid == 0);
        tree.fire_special("@releaseDomain");
        tree.remove_tree(&format!("/local/domain/{domid}"));
    }

    /// A connection of a domain.
    ///
    /// # Panics
    /// When there is no descriptor left.
    pub fn connect(&self, domid: Domid) -> Client {
        let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
        let signal = eventfd(0, flags).expect("an eventfd");
        let mut tree = self.tree();
        let number = tree.next;
        tree.next += 1;
        let connection = Connection {
            domid,
            watches: Vec::new(),
            events: VecDeque::new(),
            broken: false,
            signal: signal.try_clone().expect("a descriptor"),
        };
        tree.connections.insert(number, connection);
        Client {
            store: self.clone(),
            domid,
            number,
            signal,
        }
    }

    /// Every connection of a domain breaks, as when its processes are killed; what they have written
    /// stays.
    pub fn cut(&self, domid: Domid) {
        self.cut_after(domid, 0);
    }

    /// The same after so many more things have been asked over them together.
    pub fn cut_after(&self, domid: Domid, requests: u32) {
        let mut tree = self.tree();
        tree.fuses.insert(domid, requests);
        tree.burn(domid, 0);
    }

    /// What is asked for from now on over new connections of a domain is done.
    pub fn mend(&self, domid: Domid) {
        self.tree().fuses.remove(&domid);
    }

    /// All paths that there are, for a look at what was left behind.
    pub fn paths(&self) -> Vec<String> {
        self.tree().nodes.keys().cloned().collect()
    }

    fn tree(&self) -> MutexGuard<'_, Tree> {
        // A test that failed meanwhile leaves a tree that can be read.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Tree {
    /// A domain has asked for so many things more.
    fn burn(&mut self, domid: Domid, requests: u32) {
        let Some(left) = self.fuses.get_mut(&domid) else {
            return;
        };
        match left.checked_sub(requests) {
            Some(rest @ 1..) => *left = rest,
            _ => {
                *left = 0;
                for connection in self.connections.values_mut() {
                    if connection.domid == domid {
                        connection.broken = true;
                        // Who waits for events finds out.
                        let _ = rustix::io::write(&connection.signal, &1u64.to_ne_bytes());
                    }
                }
            }
        }
    }

    fn put(&mut self, path: &str, value: &[u8], owner: Domid, readers: Readers) {
        let value = value.to_vec();
        let node = Node {
            value,
            owner,
            readers,
        };
        self.nodes.insert(path.to_owned(), node);
    }

    /// Names right below a node.
    fn names(&self, path: &str) -> Vec<String> {
        let prefix = format!("{}/", path.trim_end_matches('/'));
        let below = self.nodes.range(prefix.clone()..);
        below
            .map_while(|(path, _)| path.strip_prefix(&prefix))
            .filter(|name| !name.is_empty() && !name.contains('/'))
            .map(str::to_owned)
            .collect()
    }

    /// A node that `domid` may do something with. Whether one that is not there is missing or hidden
    /// depends on the one above.
    fn node(
        &self,
        path: &str,
        allowed: impl Fn(&Node) -> bool,
        domid: Domid,
    ) -> Result<&Node, Errno> {
        match self.nodes.get(path) {
            Some(node) if allowed(node) => Ok(node),
            Some(_) => Err(Errno::ACCESS),
            None => {
                let above = self.nodes.get(&self.nearest(path));
                match above.is_some_and(|node| node.lets_read(domid)) {
                    true => Err(Errno::NOENT),
                    false => Err(Errno::ACCESS),
                }
            }
        }
    }

    /// The path of the nearest node above one that is there.
    fn nearest(&self, path: &str) -> String {
        let mut path = path;
        loop {
            path = above(path);
            if self.nodes.contains_key(path) {
                return path.to_owned();
            }
        }
    }

    /// Whether a guest may have a node with a value and these names below it.
    fn check_size(&self, domid: Domid, value: usize, names: &[String]) -> Result<(), Errno> {
        let names: usize = names.iter().map(|name| name.len() + 1).sum();
        match domid != 0 && RECORD + value + names >= self.quota.size {
            true => Err(Errno::NOSPC),
            false => Ok(()),
        }
    }

    fn write(&mut self, domid: Domid, path: &str, value: &[u8]) -> Result<(), Errno> {
        if value.len() > PAYLOAD - path.len() {
            return Err(Errno::TOOBIG);
        }
        if self.nodes.contains_key(path) {
            self.node(path, |node| node.lets_write(domid), domid)?;
            self.check_size(domid, value.len(), &self.names(path))?;
            if let Some(node) = self.nodes.get_mut(path) {
                node.value = value.to_vec();
            }
        } else {
            self.make(domid, path, value)?;
        }
        self.fire(path, path, false);
        Ok(())
    }

    fn make(&mut self, domid: Domid, path: &str, value: &[u8]) -> Result<(), Errno> {
        let nearest = self.nearest(path);
        let parent = self.nodes.get(&nearest).cloned().ok_or(Errno::NOENT)?;
        if !parent.lets_write(domid) {
            return Err(Errno::ACCESS);
        }
        let below = path[nearest.len()..].trim_start_matches('/');
        let parts: Vec<&str> = below.split('/').collect();
        let own = self.nodes.values().filter(|node| node.owner == domid);
        if domid != 0 && own.count() + parts.len() > self.quota.nodes {
            return Err(Errno::NOSPC);
        }
        let mut names = self.names(&nearest);
        names.push(parts[0].to_owned());
        self.check_size(domid, parent.value.len(), &names)?;
        self.check_size(domid, value.len(), &[])?;
        let owner = if domid == 0 { parent.owner } else { domid };
        let mut place = nearest.trim_end_matches('/').to_owned();
        for part in parts {
            place = format!("{place}/{part}");
            self.put(&place, b"", owner, parent.readers);
        }
        self.put(&place, value, owner, parent.readers);
        Ok(())
    }

    /// Removes a node and all below it.
    fn remove_tree(&mut self, path: &str) {
        let prefix = format!("{path}/");
        let is_in = |other: &str| other == path || other.starts_with(&prefix);
        let gone: Vec<String> = self.nodes.keys().filter(|p| is_in(p)).cloned().collect();
        // Those below first, as xenstored does; who watches just one of them hears of that.
        for node in gone.iter().rev() {
            self.fire(node, node, node != path);
            self.nodes.remove(node);
        }
    }

    /// Tells those who watch `path`, or if not `exactly` that also what is above it, and may read it or
    /// what it is in.
    fn fire(&mut self, path: &str, node: &str, exactly: bool) {
        let node = self.nodes.get(node).cloned();
        let parent = self.nodes.get(above(path)).cloned();
        for connection in self.connections.values_mut() {
            let domid = connection.domid;
            let readable = |node: &Option<Node>| node.as_ref().is_some_and(|n| n.lets_read(domid));
            if !readable(&node) && !readable(&parent) {
                continue;
            }
            let concerns = |watched: &str| {
                let below = path.strip_prefix(watched.trim_end_matches('/'));
                match below {
                    Some("") => true,
                    Some(below) => !exactly && below.starts_with('/'),
                    None => false,
                }
            };
            for (watched, token) in connection.watches.clone() {
                if concerns(&watched) {
                    connection.tell(path, &token);
                }
            }
        }
    }

    fn fire_special(&mut self, name: &str) {
        for connection in self.connections.values_mut().filter(|c| c.domid == 0) {
            for (watched, token) in connection.watches.clone() {
                if watched == name {
                    connection.tell(name, &token);
                }
            }
        }
    }
}

/// The path of the node that one is in.
fn above(path: &str) -> &str {
    match path.rfind('/') {
        Some(0) | None => "/",
        Some(at) => &path[..at],
    }
}

/// A connection to a [`FakeStore`]. Once its domain is released it is broken: every call gives `EIO`.
pub struct Client {
    store: FakeStore,
    domid: Domid,
    number: u64,
    signal: OwnedFd,
}

impl Client {
    fn tree(&self) -> Result<MutexGuard<'_, Tree>, Errno> {
        let mut tree = self.store.tree();
        let connection = tree.connections.get(&self.number);
        if connection.is_none_or(|connection| connection.broken) {
            return Err(Errno::IO);
        }
        tree.burn(self.domid, 1);
        Ok(tree)
    }

    /// The absolute path of one that may be relative to the domain's home.
    fn absolute(&self, path: &str) -> Result<String, Errno> {
        let sound = |b: u8| b.is_ascii_alphanumeric() || b"-/_@".contains(&b);
        if path.is_empty() || !path.bytes().all(sound) || path.contains("//") {
            return Err(Errno::INVAL);
        }
        Ok(match path.starts_with(['/', '@']) {
            true => path.to_owned(),
            false => format!("/local/domain/{}/{path}", self.domid),
        })
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        self.store.tree().connections.remove(&self.number);
    }
}

impl XenStore for Client {
    fn read(&self, path: &str) -> Result<Vec<u8>, Errno> {
        let path = self.absolute(path)?;
        let tree = self.tree()?;
        let node = tree.node(&path, |node| node.lets_read(self.domid), self.domid)?;
        Ok(node.value.clone())
    }

    fn write(&self, path: &str, value: &[u8]) -> Result<(), Errno> {
        let path = self.absolute(path)?;
        self.tree()?.write(self.domid, &path, value)
    }

    fn write_while(&self, witness: &str, path: &str, value: &[u8]) -> Result<(), Errno> {
        let (witness, path) = (self.absolute(witness)?, self.absolute(path)?);
        let mut tree = self.tree()?;
        tree.node(&witness, |node| node.lets_read(self.domid), self.domid)?;
        tree.write(self.domid, &path, value)
    }

    fn rm(&self, path: &str) -> Result<(), Errno> {
        let path = self.absolute(path)?;
        let mut tree = self.tree()?;
        match tree.node(&path, |node| node.lets_write(self.domid), self.domid) {
            Ok(_) => {}
            Err(Errno::NOENT) => return Ok(()),
            Err(errno) => return Err(errno),
        }
        tree.remove_tree(&path);
        Ok(())
    }

    fn directory(&self, path: &str) -> Result<Vec<String>, Errno> {
        let path = self.absolute(path)?;
        let tree = self.tree()?;
        tree.node(&path, |node| node.lets_read(self.domid), self.domid)?;
        Ok(tree.names(&path))
    }

    fn set_permissions(&self, path: &str, owner: Domid, others: Others) -> Result<(), Errno> {
        let path = self.absolute(path)?;
        let mut tree = self.tree()?;
        let node = tree.node(&path, |node| node.lets_write(self.domid), self.domid)?;
        // Only dom0 gives a node away.
        if self.domid != 0 && owner != node.owner {
            return Err(Errno::PERM);
        }
        if let Some(node) = tree.nodes.get_mut(&path) {
            node.owner = owner;
            node.readers = match others {
                Others::Nothing => Readers::Nobody,
                Others::Read => Readers::All,
            };
        }
        tree.fire(&path, &path, false);
        Ok(())
    }

    fn watch(&self, path: &str, token: &str) -> Result<(), Errno> {
        let absolute = self.absolute(path)?;
        let mut tree = self.tree()?;
        let most = tree.quota.watches;
        let domid = self.domid;
        let connections = tree.connections.values().filter(|c| c.domid == domid);
        let there: usize = connections.map(|c| c.watches.len()).sum();
        if domid != 0 && there >= most {
            return Err(Errno::TOOBIG);
        }
        let connection = tree.connections.get_mut(&self.number).ok_or(Errno::IO)?;
        let watch = (absolute, token.to_owned());
        if connection.watches.contains(&watch) {
            return Err(Errno::EXIST);
        }
        connection.watches.push(watch);
        connection.tell(path, token);
        Ok(())
    }

    fn unwatch(&self, path: &str, token: &str) -> Result<(), Errno> {
        let watch = (self.absolute(path)?, token.to_owned());
        let mut tree = self.tree()?;
        let connection = tree.connections.get_mut(&self.number).ok_or(Errno::IO)?;
        let place = connection.watches.iter().position(|other| *other == watch);
        connection.watches.remove(place.ok_or(Errno::NOENT)?);
        Ok(())
    }

    fn next_event(&self) -> Result<Option<Event>, Errno> {
        let mut tree = self.tree()?;
        let connection = tree.connections.get_mut(&self.number).ok_or(Errno::IO)?;
        let event = connection.events.pop_front();
        if connection.events.is_empty() && !connection.broken {
            let mut count = [0; 8];
            // Nothing to read is what is wanted.
            let _ = rustix::io::read(&self.signal, &mut count);
        }
        Ok(event)
    }

    fn fd(&self) -> BorrowedFd<'_> {
        self.signal.as_fd()
    }
}
