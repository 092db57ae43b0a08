// SPDX-License-Identifier: MIT OR Apache-2.0
//! XenStore, as far as Vshmem uses it: a tree of small texts that dom0's xenstored keeps, with
//! watches that tell of changes.
//!
//! [`XenStore`] is a connection to it. [`library`] is the real one, over libxenstore; [`fake`] is a
//! store in this process that has the real one's rules, for tests. On it stand the [`mailbox`]es, in
//! which the messages of [`vshmem_abi::link`] travel between a guest and dom0, and the [`Books`], in
//! which the back-end keeps what has to outlive it.
//!
//! A guest may write below its own `data` and nowhere else, and whatever it likes: what is read from
//! there is bounded by its place and length before it is looked at, and never says where to write.

mod books;
#[doc(hidden)]
pub mod fake;
pub mod library;
pub mod mailbox;
pub mod paths;

pub use books::{Books, KeptDomain};

use rustix::io::Errno;
use std::os::fd::BorrowedFd;
use vshmem_abi::{ABI_VERSION, Domid};

/// What domains other than its owner may do with a node. dom0 may do everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Others {
    /// Nothing.
    Nothing,
    /// Read it.
    Read,
}

/// A watch has something to tell.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The node that was written or removed, or the watched one when it is above that; at first the
    /// path that is watched.
    pub path: String,
    /// As it was given with the watch.
    pub token: String,
}

/// A connection to XenStore. Calls wait for xenstored, which answers from what it holds, and never for
/// a guest.
///
/// All errors are those of xenstored: `ENOENT` where there is no such node, `EACCES` where it may not
/// be accessed, `ENOSPC` and `E2BIG` when a quota of the calling domain is used up
/// ([`is_quota`]); `EIO` or the like when the connection is lost.
pub trait XenStore {
    /// The value of a node.
    ///
    /// # Errors
    /// As above.
    fn read(&self, path: &str) -> Result<Vec<u8>, Errno>;

    /// Writes a node, making it and those above it if they are not there; they get the permissions of
    /// the one above them, and the writing domain as their owner, unless that is dom0.
    ///
    /// # Errors
    /// As above.
    fn write(&self, path: &str, value: &[u8]) -> Result<(), Errno>;

    /// Writes a node as [`XenStore::write`] does, if there is another one, `witness`, at that moment.
    ///
    /// # Errors
    /// As above; `ENOENT` when `witness` is not there, `EAGAIN` when somebody changes what is there
    /// all the time.
    fn write_while(&self, witness: &str, path: &str, value: &[u8]) -> Result<(), Errno>;

    /// Removes a node with all below it; one that is not there is as good.
    ///
    /// # Errors
    /// As above.
    fn rm(&self, path: &str) -> Result<(), Errno>;

    /// The names of the nodes right below a node.
    ///
    /// # Errors
    /// As above.
    fn directory(&self, path: &str) -> Result<Vec<String>, Errno>;

    /// Sets whose a node is, and what others may do with it.
    ///
    /// # Errors
    /// As above.
    fn set_permissions(&self, path: &str, owner: Domid, others: Others) -> Result<(), Errno>;

    /// Watches a node, which need not be there, and all below it. There is one event at once.
    ///
    /// # Errors
    /// As above.
    fn watch(&self, path: &str, token: &str) -> Result<(), Errno>;

    /// Ends a watch. Events of it may still come.
    ///
    /// # Errors
    /// `ENOENT` when there is none.
    fn unwatch(&self, path: &str, token: &str) -> Result<(), Errno>;

    /// The next event, if one has come.
    ///
    /// # Errors
    /// As above.
    fn next_event(&self) -> Result<Option<Event>, Errno>;

    /// A descriptor that polls readable while there are events.
    fn fd(&self) -> BorrowedFd<'_>;
}

/// The value of a node; `None` where there is none.
///
/// # Errors
/// What else xenstored says.
pub fn read_if_there(store: &dyn XenStore, path: &str) -> Result<Option<Vec<u8>>, Errno> {
    match store.read(path) {
        Ok(value) => Ok(Some(value)),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno),
    }
}

/// Whether an error says that a quota of the calling domain is used up.
pub fn is_quota(errno: Errno) -> bool {
    matches!(errno, Errno::NOSPC | Errno::TOOBIG | Errno::DQUOT)
}

/// Nodes that xenstored lets a domain have, unless it is told otherwise.
pub const NODES: u64 = 1000;

/// How many nodes this guest has below its own `data`, as far as eight times [`NODES`].
///
/// # Errors
/// What xenstored says.
pub fn own_nodes(store: &dyn XenStore) -> Result<u64, Errno> {
    count_nodes(store, "data", NODES * 8)
}

fn count_nodes(store: &dyn XenStore, path: &str, most: u64) -> Result<u64, Errno> {
    let mut count = 1;
    for name in store.directory(path)? {
        if count >= most {
            break;
        }
        // It may have gone.
        count += count_nodes(store, &format!("{path}/{name}"), most - count).unwrap_or(0);
    }
    Ok(count)
}

/// What to tell an operator whose quota is used up.
pub const QUOTA_ADVICE: &str = "raise xenstored's quota of nodes for each domain (1000; \
     XENSTORED_ARGS=\"--entry-nb 4000\" in dom0's /etc/default/xen or xencommons, or quota-maxentity of \
     oxenstored.conf), or see what in this domain uses it: xenstore-ls data";

/// What [`paths::BACKEND`] says: `GENERATION VERSION`, in hexadecimal digits and decimal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Announcement {
    /// A random number that each start of the back-end draws anew.
    pub generation: u64,
    /// Its [`ABI_VERSION`].
    pub version: u32,
}

impl Announcement {
    /// What a back-end of this version with this generation says.
    pub fn new(generation: u64) -> Self {
        Self {
            generation,
            version: ABI_VERSION,
        }
    }

    /// As it stands in its node.
    pub fn text(self) -> String {
        format!("{:016x} {}", self.generation, self.version)
    }

    /// What a node says; `None` where that is nothing of the kind.
    pub fn parse(value: &[u8]) -> Option<Self> {
        let (generation, version) = str::from_utf8(value).ok()?.split_once(' ')?;
        Some(Self {
            generation: number(generation)?,
            version: version.parse().ok()?,
        })
    }
}

/// What [`paths::FRONT`] says: `GENERATION BACKEND SESSION`, in hexadecimal digits.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Session {
    /// Generation of the guest's `vshmemd`.
    pub front: u64,
    /// Generation of the back-end that it wants to talk to.
    pub back: u64,
    /// A random number, drawn anew whenever it begins to talk to a back-end. Messages bear it.
    pub number: u64,
}

impl Session {
    /// As it stands in its node.
    pub fn text(self) -> String {
        format!(
            "{:016x} {:016x} {:016x}",
            self.front, self.back, self.number
        )
    }

    /// What a node says; `None` where that is nothing of the kind.
    pub fn parse(value: &[u8]) -> Option<Self> {
        let mut words = str::from_utf8(value).ok()?.split(' ').map(number);
        let session = Self {
            front: words.next()??,
            back: words.next()??,
            number: words.next()??,
        };
        words.next().is_none().then_some(session)
    }
}

/// A number of 16 hexadecimal digits.
fn number(digits: &str) -> Option<u64> {
    let sound = digits.len() == 16 && digits.bytes().all(|b| b.is_ascii_hexdigit());
    sound.then(|| u64::from_str_radix(digits, 16).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_announced_is_read_again_and_other_texts_are_nothing() {
        let announcement = Announcement::new(0xabc);
        let text = announcement.text();
        assert_eq!(Announcement::parse(text.as_bytes()), Some(announcement));
        let session = Session {
            front: 1,
            back: u64::MAX,
            number: 3,
        };
        assert_eq!(Session::parse(session.text().as_bytes()), Some(session));
        let long = format!("{} 0000000000000004", session.text());
        for other in [
            "",
            " ",
            "1 2 3",
            "0000000000000001",
            &long,
            "+000000000000001 3",
        ] {
            assert_eq!(Session::parse(other.as_bytes()), None, "{other}");
            assert_eq!(Announcement::parse(other.as_bytes()), None, "{other}");
        }
        assert_eq!(Session::parse(&[0xff; 50]), None);
    }
}
