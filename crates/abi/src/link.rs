// SPDX-License-Identifier: MIT OR Apache-2.0
//! Messages between a domain's `vshmemd` (the front-end) and the back-end.
//!
//! One fixed-size [`LinkMsg`] a packet, in both directions. A front-end has at most one request
//! under way and gets its answer in order; while it waits, and at any other time, the back-end
//! may ask it a *query* (numbers from [`LinkOp::Update`] on), which it answers at once from what
//! it holds. The answer to a message has the same `op` and `seq`.

use crate::wire::{Meta, QueueUse, Totals, Usage};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// What a [`LinkMsg`] asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum LinkOp {
    /// First message of a front-end: `generation`, and `name` (host port; on Xen number and name are
    /// what XenStore says). Answer: `domid` and `epoch`, and on the host port `flags`
    /// ([`SEPARATE_KERNELS`]), with the descriptor of the connection to the hypervisor's stand-in.
    /// Asked with `flags` 1 by a front-end that was enrolled at an earlier back-end and goes on: it then
    /// asks with [`LinkOp::Find`] for all that it knows, and ends that with [`LinkOp::Resumed`].
    /// `ESTALE` when this back-end does not know it.
    Enrol = 1,
    /// Find `meta.key` of `meta.kind`, or make it as `flags` say (`IPC_CREAT`, `IPC_EXCL`) with
    /// the rest of `meta` and one of the candidate ids in `ids`; `domid` is the domain that its memory
    /// was made for, where that is one (else 0). Answer: `meta`, `created`, and of what was made in
    /// `flags` what that domain may do with it ([`FOR_READING`], [`FOR_NOBODY`]; 0: everything).
    Get = 2,
    /// The construct `meta.id`. Answer: `meta`. `flags` 1 of one who resumes: its region is at hand.
    Find = 3,
    /// Set `meta.uid`, `gid`, `mode` of `meta.id`. The permission was checked.
    Set = 4,
    /// Remove `meta.id`; `usage.nattch` is what the asking domain itself has attached.
    /// Answer: `meta`, whose state says whether it still lives.
    Remove = 5,
    /// The use of `meta.id` in all other domains. Answer: `meta`, `usage`; of a queue `queue`.
    Usage = 6,
    /// The asking domain has nothing attached of `meta.id`, which is removed. Answer: `meta`.
    Zero = 7,
    /// Where the region of `meta.id` is. Answer: `domid` and `gref` to map, granted to the asker;
    /// `bell_gref` and `bell_port` as of [`LinkOp::Grant`].
    Locate = 8,
    /// The construct of `meta.kind` with the lowest index that is `meta.index` or, with `flags`
    /// 1, exactly that one. Answer: `meta`.
    Next = 9,
    /// Totals of `meta.kind`. Answer: `totals`.
    Totals = 10,
    /// Is a domain enrolled that has the number `domid` and this `epoch`? `ENOENT` when it is not.
    Enrolled = 11,
    /// A doorbell of domain `domid`, of which somebody waits on the set or queue `meta.id`. Answer:
    /// `bell_gref` and `bell_port`, granted and offered to the asker by `domid`.
    Bell = 12,
    /// A front-end that was enrolled at an earlier back-end has asked for all that it knows.
    Resumed = 13,
    /// Query: `meta` has changed. `meta.state` is `Free` when the construct is gone.
    /// Answer: `usage` of this domain.
    Update = 32,
    /// Query: the use of `meta.id` in this domain. Answer: `usage`; of the owner of a queue `queue`.
    Count = 33,
    /// Query to the owner domain: grant the region of `meta.id` to `domid`, now in `epoch`; with `flags`
    /// [`FOR_READING`] so that it can be read only. Answer:
    /// `gref`; of a set or queue in which futexes do not work also `bell_gref` and `bell_port`, the page and the event
    /// channel of the doorbell that the owner has made for `domid` (0: none).
    Grant = 34,
    /// Query to the owner domain of a set or queue: `domid`, which knew `meta.id`, is gone with
    /// all its processes, those of `epoch`.
    Departed = 35,
    /// Query: make a doorbell for `domid`, now in `epoch`, which shares the set or queue `meta.id`.
    /// Answer: `bell_gref`, `bell_port`.
    Offer = 36,
}

impl LinkOp {
    /// The operation that a peer's number stands for, if any.
    pub const fn from_raw(raw: u32) -> Option<Self> {
        Some(match raw {
            1 => Self::Enrol,
            2 => Self::Get,
            3 => Self::Find,
            4 => Self::Set,
            5 => Self::Remove,
            6 => Self::Usage,
            7 => Self::Zero,
            8 => Self::Locate,
            9 => Self::Next,
            10 => Self::Totals,
            11 => Self::Enrolled,
            12 => Self::Bell,
            13 => Self::Resumed,
            32 => Self::Update,
            33 => Self::Count,
            34 => Self::Grant,
            35 => Self::Departed,
            36 => Self::Offer,
            _ => return None,
        })
    }

    /// Whether it is the back-end that asks.
    pub const fn is_query(self) -> bool {
        self as u32 >= Self::Update as u32
    }
}

/// [`LinkOp::Enrol`]: the domains are to do as if each had a kernel of its own.
pub const SEPARATE_KERNELS: i32 = 1;

/// [`LinkOp::Get`], [`LinkOp::Grant`]: the policy lets the domain read, and not write.
pub const FOR_READING: i32 = 1;
/// [`LinkOp::Get`]: the policy does not let the domain have it.
pub const FOR_NOBODY: i32 = 2;
/// `flags` of a refusal: it is the policy that refuses.
pub const BY_POLICY: i32 = 1;

/// Candidate ids that a front-end sends along with [`LinkOp::Get`].
pub const CANDIDATES: usize = 4;

/// A request, a query or the answer to one. What a field means, [`LinkOp`] says.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct LinkMsg {
    /// [`crate::ABI_VERSION`] of the sender.
    pub version: u32,
    /// A [`LinkOp`].
    pub op: u32,
    /// Number of the request or query, repeated in its answer.
    pub seq: u32,
    /// In an answer: 0 or an errno.
    pub errno: i32,
    /// A domain.
    pub domid: u32,
    /// Flags of the operation.
    pub flags: i32,
    /// A grant reference.
    pub gref: u32,
    /// 1 when the construct was made by this request.
    pub created: u32,
    /// Grant of a doorbell's page; 0: there is none.
    pub bell_gref: u32,
    /// Its event channel, as it is numbered where it was made.
    pub bell_port: u32,
    /// A construct.
    pub meta: Meta,
    /// The use of it.
    pub usage: Usage,
    /// Totals.
    pub totals: Totals,
    /// What is in a queue.
    pub queue: QueueUse,
    /// Ids to choose from, each drawn at random with [`crate::ids::ROUTED_BIT`] set and unknown to the
    /// front-end's kernel.
    pub ids: [i32; CANDIDATES],
    /// Name of the domain, padded with zero bytes.
    pub name: [u8; 32],
    /// A random number that each start of a `vshmemd` draws anew.
    pub generation: u64,
    /// Which `vshmemd` of the domain `domid` this is about ([`crate::token`]).
    pub epoch: u32,
    /// 0.
    pub reserved: u32,
}

const _: () = assert!(size_of::<LinkMsg>() == 40 + 72 + 40 + 32 + 56 + 16 + 32 + 16);

impl LinkMsg {
    /// A message that asks for `op`.
    pub fn new(op: LinkOp) -> Self {
        Self {
            version: crate::ABI_VERSION,
            op: op as u32,
            ..Self::default()
        }
    }

    /// A message that asks for `op` about `meta`.
    pub fn about(op: LinkOp, meta: Meta) -> Self {
        Self {
            meta,
            ..Self::new(op)
        }
    }

    /// The answer to this message: same operation and number, nothing else yet.
    pub fn answer(&self) -> Self {
        Self {
            version: crate::ABI_VERSION,
            op: self.op,
            seq: self.seq,
            ..Self::default()
        }
    }

    /// The refusal of this message.
    pub fn refuse(&self, errno: i32) -> Self {
        Self {
            errno,
            ..self.answer()
        }
    }
}
