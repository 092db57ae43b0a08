// SPDX-License-Identifier: MIT OR Apache-2.0
//! The regions that clients work on themselves, semaphore sets and message queues, as the daemon has
//! them mapped: what is done in them on behalf of the dead is the same for both.

use crate::metrics::counts::Calls;
use rustix::io::Errno;
use vshmem_abi::region::Layout;
use vshmem_abi::token::Token;
use vshmem_abi::wire::Meta;
use vshmem_abi::{Kind, msgq, set};
use vshmem_engine::mapping::Source;
use vshmem_engine::msgq::QueueMap;
use vshmem_engine::region::map::With;
use vshmem_engine::region::recover::{Busy, Dead};
use vshmem_engine::set::SetMap;
use vshmem_gnt::Region;

/// A region as whoever maps it gets it.
pub fn source(region: &impl Region) -> Source<'_> {
    Source {
        fd: region.fd(),
        how: region.how(),
        len: region.len(),
    }
}

/// What is to be made in the region of a new construct.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Inside {
    /// A set.
    Set(set::Shape),
    /// A queue, with its `msg_qbytes`.
    Queue(msgq::Shape, u64),
}

impl Inside {
    /// Bytes of the region.
    pub fn bytes(&self) -> u64 {
        match self {
            Self::Set(shape) => shape.bytes(),
            Self::Queue(shape, _) => shape.bytes(),
        }
    }
}

/// A region that is mapped.
pub enum Shared {
    /// A set's.
    Set(SetMap),
    /// A queue's.
    Queue(QueueMap),
}

impl Shared {
    /// Makes the construct `id` in a region that nobody else has yet.
    ///
    /// # Errors
    /// What mapping it says.
    pub fn create(inside: &Inside, region: &impl Region, id: i32) -> Result<Self, Errno> {
        let source = source(region);
        let created = match inside {
            Inside::Set(shape) => SetMap::create(&source, id, shape).map(Self::Set),
            Inside::Queue(shape, qbytes) => QueueMap::create(&source, id, shape).map(|queue| {
                queue.region().set_qbytes(*qbytes);
                Self::Queue(queue)
            }),
        };
        created.map_err(|error| {
            tracing::warn!(id, %error, "cannot map a set or queue that was just made");
            error.errno()
        })
    }

    /// Maps the region of a construct that another domain has granted; a segment is not mapped.
    ///
    /// # Errors
    /// `EIDRM` when there is no such construct in it: its owner has given it back meanwhile. Else what
    /// `mmap` says.
    pub fn map(meta: &Meta, region: &impl Region) -> Result<Option<Self>, Errno> {
        let source = source(region);
        let mapped = match Kind::from_raw(meta.kind) {
            Some(Kind::Sem) => SetMap::map(&source).map(Self::Set),
            Some(Kind::Msg) => QueueMap::map(&source).map(Self::Queue),
            Some(Kind::Shm) | None => return Ok(None),
        };
        mapped.map(Some).map_err(|error| {
            tracing::warn!(id = meta.id, owner = meta.owner, %error, "cannot map a set or queue");
            match error.errno() {
                Errno::PROTO => Errno::IDRM,
                errno => errno,
            }
        })
    }

    /// The set, if it is one.
    pub fn set(&self) -> Option<&SetMap> {
        match self {
            Self::Set(set) => Some(set),
            Self::Queue(_) => None,
        }
    }

    /// The queue, if it is one.
    pub fn queue(&self) -> Option<&QueueMap> {
        match self {
            Self::Set(_) => None,
            Self::Queue(queue) => Some(queue),
        }
    }

    /// Calls that were done in it.
    pub fn calls(&self) -> Calls {
        match self {
            Self::Set(set) => Calls {
                semop: set.region().calls(),
                ..Calls::default()
            },
            Self::Queue(queue) => Calls {
                msgsnd: queue.region().sent(),
                msgrcv: queue.region().received(),
                ..Calls::default()
            },
        }
    }

    /// Tells the waiter at `index`, who has `slot` of the wait page, that the construct is gone.
    pub fn post_gone(&self, index: u32, slot: u32, with: &With<'_>) {
        match self {
            Self::Set(set) => set.post_gone(index, slot, with),
            Self::Queue(queue) => queue.post_gone(index, slot, with),
        }
    }

    /// Who holds the lock.
    pub fn lock_holder(&self) -> Token {
        match self {
            Self::Set(set) => set.region().lock_holder(),
            Self::Queue(queue) => queue.region().lock_holder(),
        }
    }

    /// Whether the client `token`, which is dead, may have left something though it did not wait.
    pub fn may_concern(&self, token: Token) -> bool {
        match self {
            Self::Set(set) => set.region().may_concern(token),
            Self::Queue(queue) => queue.region().may_concern(token),
        }
    }

    /// Whether somebody still has to take something from the construct, which is gone.
    pub fn is_awaited(&self) -> bool {
        match self {
            Self::Set(set) => set.region().is_awaited(),
            Self::Queue(queue) => queue.region().is_awaited(),
        }
    }

    /// Clears away what the dead have left.
    ///
    /// # Errors
    /// [`Busy`].
    pub fn clean_up(&self, dead: Dead, now: i64, with: &With<'_>) -> Result<(), Busy> {
        match self {
            Self::Set(set) => set.clean_up(dead, now, with),
            Self::Queue(queue) => queue.clean_up(dead, now, with),
        }
    }
}
