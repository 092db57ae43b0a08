// SPDX-License-Identifier: MIT OR Apache-2.0
//! The texts that go through XenStore, and waiting for them.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use std::time::{Duration, Instant};
use vshmem_abi::Domid;
use vshmem_gnt::{Event, Limit, PortError};
use vshmem_registry::xenstore::XenStore;
use vshmem_registry::xenstore::library::Library;

/// Longer than anything takes in an emulated machine.
const PATIENCE: Duration = Duration::from_secs(120);

/// Connects to XenStore.
pub fn store() -> Library {
    Library::open().unwrap_or_else(|error| panic!("{error}"))
}

/// The text of a node; none if there is no such node.
pub fn read(store: &Library, path: &str) -> Option<String> {
    let bytes = store.read(path).ok()?;
    Some(String::from_utf8_lossy(&bytes).into_owned())
}

/// The number of the domain that this is, and its place in XenStore, below which it may write.
pub fn home(store: &Library) -> (Domid, String) {
    // A path that begins with no slash is one below a guest's home. dom0 has no such paths.
    let domid = read(store, "domid").and_then(|domid| domid.parse().ok());
    let domid = domid.unwrap_or(0);
    (domid, format!("/local/domain/{domid}/data/suite"))
}

/// Sleeps until a watch of the connection tells of a change, or for a second.
pub fn doze(store: &Library) {
    let second = Timespec {
        tv_sec: 1,
        tv_nsec: 0,
    };
    let mut fds = [PollFd::from_borrowed_fd(store.fd(), PollFlags::IN)];
    poll(&mut fds, Some(&second)).expect("poll");
    while store.next_event().expect("XenStore").is_some() {}
}

/// Waits until `look` finds something.
pub fn await_change<T>(store: &Library, what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(start.elapsed() < PATIENCE, "waited in vain for {what}");
        doze(store);
    }
}

const ERRORS: [PortError; 12] = [
    PortError::Refused,
    PortError::NoPeer,
    PortError::MadeWritable,
    PortError::NoMemory,
    PortError::TooManyDescriptors,
    PortError::Gone,
    PortError::Disconnected,
    PortError::BadArgument,
    PortError::NoSpace(Limit::Channels),
    PortError::NoSpace(Limit::GrantedPages),
    PortError::NoSpace(Limit::GrantTable),
    PortError::NoSpace(Limit::MappedPages),
];

/// An error as one word.
pub fn of_error(error: PortError) -> String {
    match error {
        PortError::OtherPeer { peer } => format!("OtherPeer:{peer}"),
        error => format!("{error:?}"),
    }
}

/// The error that a word says.
pub fn to_error(word: &str) -> PortError {
    if let Some(peer) = word.strip_prefix("OtherPeer:") {
        let peer = peer.parse().expect("a domain");
        return PortError::OtherPeer { peer };
    }
    let known = ERRORS.into_iter().find(|e| format!("{e:?}") == word);
    known.unwrap_or_else(|| panic!("an agent says {word}"))
}

/// The event that a word says.
pub fn to_event(word: &str) -> Event {
    let events = [Event::Idle, Event::Raised, Event::Closed];
    let known = events.into_iter().find(|e| format!("{e:?}") == word);
    known.unwrap_or_else(|| panic!("an agent says {word}"))
}
