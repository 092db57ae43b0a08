// SPDX-License-Identifier: MIT OR Apache-2.0
//! Layouts of the memories that a client shares with its `vshmemd`: the **directory** (written by
//! `vshmemd` alone, read by all clients of the domain), the **client page** (written by one
//! client, read by `vshmemd`), and the **wait page** (written by all clients of the domain and by
//! `vshmemd`). The code that works on them is in `vshmem-engine`; every byte is described in
//! `docs/wire.md`.

use crate::limits::DIR_SLOTS;
use core::sync::atomic::{AtomicI32, AtomicI64, AtomicU32, AtomicU64};

/// Marks types that may lie in memory that another process writes at any time.
///
/// # Safety
/// The type is `repr(C)`, has no padding and holds atomics only: no pointer, descriptor, `bool`
/// or enum, so that no value another process writes can be an invalid one.
pub unsafe trait Shared {}

/// First word of a directory: "VSHMEMD1" in memory order.
pub const DIR_MAGIC: u64 = u64::from_le_bytes(*b"VSHMEMD1");
/// First word of a client page: "VSHMEMC1" in memory order.
pub const PAGE_MAGIC: u64 = u64::from_le_bytes(*b"VSHMEMC1");
/// First word of a wait page: "VSHMEMW1" in memory order.
pub const WAIT_MAGIC: u64 = u64::from_le_bytes(*b"VSHMEMW1");
/// Slots of a wait page: so many threads of a domain can wait, or processes have undo, at a time.
pub const WAIT_SLOTS: usize = 1 << 14;
/// Hash chains for keys, and as many for ids.
pub const DIR_BUCKETS: usize = 1 << 14;
/// End of a chain.
pub const NO_SLOT: u32 = u32::MAX;
/// 64-bit words of a [`crate::wire::Meta`].
pub const META_WORDS: usize = size_of::<crate::wire::Meta>() / 8;

/// Head of a directory.
#[repr(C)]
pub struct DirHeader {
    /// [`DIR_MAGIC`]; constant.
    pub magic: AtomicU64,
    /// Generation of the domain; constant.
    pub generation: AtomicU64,
    /// [`crate::ABI_VERSION`]; constant.
    pub version: AtomicU32,
    /// Number of the domain; constant.
    pub domid: AtomicU32,
    /// Odd while `vshmemd` is changing chains or entries; readers begin again when it moved.
    pub seq: AtomicU32,
    /// Slots from here on were never used.
    pub high_water: AtomicU32,
    /// A `pthread_mutex_t` of the C library (robust, process-shared) that `vshmemd` holds for as
    /// long as it lives. Its first 32 bits are the lock word; when `vshmemd` dies, however it
    /// dies, the kernel sets `FUTEX_OWNER_DIED` in it, so that clients know without a system call.
    pub owner: [AtomicU64; 5],
    /// MSGMAX of `vshmem.toml`; 0: it does not raise it. Changes when that is read again, as the next two.
    pub msgmax: AtomicU64,
    /// MSGMNB, likewise.
    pub msgmnb: AtomicU64,
    /// MSGMNI, likewise.
    pub msgmni: AtomicU64,
    /// Zero.
    pub reserved: [AtomicU64; 4],
    /// First slot of each chain of keys, or [`NO_SLOT`].
    pub keys: [AtomicU32; DIR_BUCKETS],
    /// First slot of each chain of ids, or [`NO_SLOT`].
    pub ids: [AtomicU32; DIR_BUCKETS],
}

/// One construct that the domain knows.
#[repr(C)]
pub struct DirEntry {
    /// `id << 32 | state`: what a client that has just counted an attachment looks at, outside
    /// the sequence lock. 0: the slot is free.
    pub word: AtomicU64,
    /// Next slot of the chain of keys.
    pub next_key: AtomicU32,
    /// Next slot of the chain of ids.
    pub next_id: AtomicU32,
    /// A [`crate::wire::Meta`], word by word.
    pub meta: [AtomicU64; META_WORDS],
    /// Another number after each change of the entry, never the same twice in one directory: who
    /// has decided something about the construct need not decide it again while it is the same.
    pub version: AtomicU64,
}

/// The whole directory. Sparse: only what is used takes memory.
#[repr(C)]
pub struct Directory {
    /// The head.
    pub head: DirHeader,
    /// The entries, by slot.
    pub entries: [DirEntry; DIR_SLOTS],
}

/// Head of a client page.
#[repr(C)]
pub struct PageHeader {
    /// [`PAGE_MAGIC`]; written by `vshmemd`, constant.
    pub magic: AtomicU64,
    /// Generation of the domain; written by `vshmemd`, constant.
    pub generation: AtomicU64,
    /// Pid of the client as it sees itself; written by the client when it maps the page.
    pub pid: AtomicI32,
    /// The client's slot; written by `vshmemd`, constant.
    pub client: AtomicU32,
    /// Attachment entries from here on were never used; raised by the client before it uses one.
    pub high_water: AtomicU32,
    /// Segments that the client has attached, modulo 2^32: a number for operators.
    pub attaches: AtomicU32,
    /// Zero.
    pub reserved: [AtomicU32; 8],
}

/// What one process does with one segment, at the place of the segment's directory slot.
#[repr(C)]
pub struct AttachEntry {
    /// Public id; entries of an id that is not the slot's are left-overs and count for nothing.
    pub id: AtomicI32,
    /// Attachments of this process (as many as mappings).
    pub count: AtomicU32,
    /// Last attach, nanoseconds since the epoch; 0: none.
    pub atime: AtomicI64,
    /// Last detach, nanoseconds since the epoch; 0: none.
    pub dtime: AtomicI64,
    /// Zero.
    pub reserved: AtomicU64,
}

/// The whole client page (many pages in truth, sparse).
#[repr(C)]
pub struct ClientPage {
    /// The head.
    pub head: PageHeader,
    /// Attachments, by directory slot.
    pub attach: [AttachEntry; DIR_SLOTS],
}

/// Head of a wait page.
#[repr(C)]
pub struct WaitHeader {
    /// [`WAIT_MAGIC`]; written by `vshmemd`, constant.
    pub magic: AtomicU64,
    /// Generation of the domain; written by `vshmemd`, constant.
    pub generation: AtomicU64,
    /// Slots from here on were never used; raised by a client before it takes one.
    pub high_water: AtomicU64,
    /// Zero.
    pub reserved: [AtomicU64; 5],
}

/// What a thread that waits, or a process that has undo, holds: its death shows in it at once.
#[repr(C)]
pub struct WaitSlot {
    /// The word that the kernel sets `FUTEX_OWNER_DIED` in when the thread dies, however it dies: it is
    /// an entry of the thread's robust list (`get_robust_list(2)`), together with [`Self::links`],
    /// which have to be where they are.
    pub mark: AtomicU64,
    /// What the thread sleeps on, as a futex, when futexes do not work in the region that it waits in:
    /// whoever wakes the slot adds 1. Never set back.
    pub wakes: AtomicU32,
    /// Zero.
    pub reserved: AtomicU32,
    /// Zero.
    pub reserved_too: AtomicU64,
    /// They mean something to the thread and to the kernel only.
    pub links: [AtomicU64; 2],
    /// Token of the client that has the slot ([`crate::token`]); 0: nobody.
    pub token: AtomicU64,
    /// What it waits for: `id << 32 | waiter + 1`; low half 0: it is not in the queue (yet).
    pub construct: AtomicU64,
    /// Undo token of the process, if that is what the slot is held for.
    pub undoer: AtomicU64,
}

/// The whole wait page (many pages in truth, sparse).
#[repr(C)]
pub struct WaitPage {
    /// The head.
    pub head: WaitHeader,
    /// The slots.
    pub slots: [WaitSlot; WAIT_SLOTS],
}

// SAFETY: repr(C), atomics only, sizes below show that there is no padding.
unsafe impl Shared for Directory {}
// SAFETY: as above.
unsafe impl Shared for ClientPage {}
// SAFETY: as above.
unsafe impl Shared for WaitPage {}

const _: () = {
    assert!(size_of::<DirHeader>() == 128 + 2 * 4 * DIR_BUCKETS);
    assert!(size_of::<DirEntry>() == 96);
    assert!(size_of::<PageHeader>() == 64);
    assert!(size_of::<AttachEntry>() == 32);
    assert!(size_of::<Directory>() == size_of::<DirHeader>() + DIR_SLOTS * 96);
    assert!(size_of::<ClientPage>() == 64 + DIR_SLOTS * 32);
    assert!(size_of::<WaitHeader>() == 64);
    assert!(size_of::<WaitSlot>() == 64 && core::mem::offset_of!(WaitSlot, links) == 24);
    assert!(size_of::<WaitPage>() == 64 + WAIT_SLOTS * 64);
    assert!(core::mem::offset_of!(DirHeader, seq) == 24);
    assert!(core::mem::offset_of!(DirHeader, owner) == 32);
    assert!(core::mem::offset_of!(PageHeader, pid) == 16);
};
