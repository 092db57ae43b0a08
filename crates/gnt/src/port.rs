// SPDX-License-Identifier: MIT OR Apache-2.0
//! The operations of a port, and what can go wrong with them.

use rustix::io::Errno;
use std::fmt;
use std::os::fd::BorrowedFd;
use vshmem_abi::Domid;
use vshmem_abi::doorbell::Notify;
use vshmem_abi::grants::How;
use vshmem_abi::region::Memory;

/// Number of a grant, in the table of the domain that granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GrantRef(pub u32);

/// Number of an event channel's end, in the table of the domain that holds the end.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct LocalPort(pub u32);

/// What one domain may have at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Grants: a region granted to one domain takes as many as it has pages of 4096 bytes.
    pub grants: u64,
    /// Ends of event channels.
    pub channels: u32,
}

impl Limits {
    /// 4 GiB granted once, and the event channels that Xen's 2-level table gives a guest.
    pub const DEFAULT: Self = Self {
        grants: 1 << 20,
        channels: 4095,
    };
}

impl Default for Limits {
    fn default() -> Self {
        Self::DEFAULT
    }
}

/// Which limit was reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// [`Limits::grants`].
    Grants,
    /// [`Limits::channels`], or what Xen gives a domain.
    Channels,
    /// On Xen: pages that gntalloc makes for the whole domain.
    GrantedPages,
    /// On Xen: the table of grants, which the domain's disks and networks use too.
    GrantTable,
    /// On Xen: pages that gntdev maps at a time.
    MappedPages,
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Grants => "grants (raise --grant-limit of the back-end)",
            Self::Channels => {
                "event channels (raise --evtchn-limit of the back-end, on Xen max_event_channels in \
                 the domain's xl.cfg)"
            }
            Self::GrantedPages => {
                "pages of gntalloc (raise /sys/module/xen_gntalloc/parameters/limit)"
            }
            Self::GrantTable => {
                "grants (raise max_grant_frames in the domain's xl.cfg; if other programs of the \
                 domain use gntalloc, /sys/module/xen_gntalloc/parameters/limit)"
            }
            Self::MappedPages => {
                "pages mapped at a time (raise /sys/module/xen_gntdev/parameters/limit)"
            }
        })
    }
}

/// Why a port refuses. [`PortError::errno`] is what a program gets to see of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PortError {
    /// The region, or the event channel, was not offered to this domain.
    #[error("not granted to this domain")]
    Refused,
    /// A limit of the asking domain is used up.
    #[error("this domain has used up its {0}")]
    NoSpace(Limit),
    /// The region's memory was made for another domain, and on this port one region is granted to
    /// one other domain only.
    #[error(
        "its memory was made for domain {peer}, and memory that gntalloc makes can be granted to one \
         other domain only (to share it with another one instead: remove it, and make it again with \
         [xen] peer in vshmem.toml)"
    )]
    OtherPeer {
        /// The domain that it was made for.
        peer: Domid,
    },
    /// The region was granted for writing when it was made, and on this port that cannot be changed.
    #[error(
        "it was made when the policy let that domain write to it, and now it may only read (remove it \
         and make it again)"
    )]
    MadeWritable,
    /// The region's memory was made for this domain alone, and on this port that cannot be changed.
    #[error(
        "it was made when no other domain was ready, or the policy gave none access to it, so its memory \
         cannot be granted to any (remove it and make it again)"
    )]
    NoPeer,
    /// No memory for a region.
    #[error("out of memory, or of huge pages")]
    NoMemory,
    /// This process, the machine or the back-end can open no more descriptors.
    #[error("too many open descriptors (raise RLIMIT_NOFILE or fs.file-max)")]
    TooManyDescriptors,
    /// The other domain is gone, or there never was one of that number.
    #[error("the other domain is gone")]
    Gone,
    /// The hypervisor (on the host port the back-end) does not answer.
    #[error("the back-end is gone or does not answer")]
    Disconnected,
    /// A number, size or option that means nothing.
    #[error("bad argument")]
    BadArgument,
}

impl PortError {
    /// The errno of a call that failed for this reason.
    pub const fn errno(self) -> Errno {
        match self {
            Self::Refused | Self::MadeWritable => Errno::ACCESS,
            Self::NoSpace(_) | Self::OtherPeer { .. } | Self::NoPeer => Errno::NOSPC,
            Self::NoMemory => Errno::NOMEM,
            Self::TooManyDescriptors => Errno::MFILE,
            Self::Gone => Errno::IDRM,
            Self::Disconnected => Errno::NODEV,
            Self::BadArgument => Errno::INVAL,
        }
    }
}

/// How a region is to be made. All regions can be mapped executable.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct RegionOptions {
    /// log2 of the size of the huge pages to make it of; 0: ordinary pages.
    pub huge_shift: u32,
    /// Reserve its huge pages now, as the kernel does without `SHM_NORESERVE`, instead of
    /// raising `SIGBUS` where they are missing at the first touch. Ordinary pages are never
    /// reserved.
    pub reserve: bool,
    /// The other domain that it is to be granted to, where memory is made for one domain (Xen);
    /// `None` there: for none. Elsewhere it says nothing.
    pub peer: Option<Domid>,
    /// Other domains can read it only. Refused where a port cannot see to that.
    pub read_only: bool,
}

/// The memory behind one construct, own or another domain's. Dropping it closes the descriptor;
/// the pages go when nobody has them mapped or open any more.
pub trait Region {
    /// The descriptor that stands for it with clients, open for reading and writing.
    fn fd(&self) -> BorrowedFd<'_>;

    /// How it is mapped from [`Region::fd`].
    fn how(&self) -> How;

    /// Bytes, rounded up to whole pages.
    fn len(&self) -> u64;

    /// Whether there is nothing in it; no region is empty.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Whether a futex on a word of it works, and reaches whoever maps it in all domains.
    fn has_futexes(&self) -> bool;

    /// Whether it is another domain's, which lets this one read it and not write to it.
    fn is_read_only(&self) -> bool;

    /// Frees the pages of an own region at once, even if a client still holds the descriptor.
    /// For a region of which nothing is mapped any more: a mapping that still exists reads
    /// zeroes. On another domain's region it only gives up this domain's hold.
    fn release(self);
}

/// What [`Port::take`] finds at an event channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Event {
    /// Nothing came since the last look.
    Idle,
    /// The other end has notified, once or more often.
    Raised,
    /// The other end was closed or its domain is gone; this stays so.
    Closed,
}

/// A domain's own view of the hypervisor. One caller at a time; calls beside [`Port::notify`]
/// and [`Port::take`] are for setting up and tearing down and may take a round trip.
pub trait Port {
    /// Regions of this port.
    type Region: Region;

    /// The number of this domain.
    fn domid(&self) -> Domid;

    /// What the memory of the regions that it makes costs.
    fn memory(&self) -> Memory;

    /// Makes a region of at least `bytes` zero bytes.
    ///
    /// # Errors
    /// `NoMemory`, `TooManyDescriptors`, `NoSpace`; `BadArgument` for a size of 0 or beyond what
    /// the kernel can have, a huge page size that this machine has not, or other options that
    /// the port has not.
    fn create(&mut self, bytes: u64, options: RegionOptions) -> Result<Self::Region, PortError>;

    /// Lets domain `to` map an own region.
    ///
    /// # Errors
    /// `NoSpace`; `Gone` when there is no domain `to`; `OtherPeer` or `NoPeer` when its memory was
    /// not made for that domain; `BadArgument` when the region is not this domain's own.
    fn grant(&mut self, region: &Self::Region, to: Domid) -> Result<GrantRef, PortError>;

    /// Lets domain `to` map an own region, but not write to it.
    ///
    /// # Errors
    /// As [`Port::grant`]; `MadeWritable` where that was decided when the region was made, and
    /// otherwise.
    fn grant_read_only(&mut self, region: &Self::Region, to: Domid) -> Result<GrantRef, PortError>;

    /// Takes a grant back: nobody maps it any more from now on, what is mapped stays.
    ///
    /// # Errors
    /// `BadArgument` when there is no such grant.
    fn end_grant(&mut self, gref: GrantRef) -> Result<(), PortError>;

    /// Maps what domain `owner` granted to this one.
    ///
    /// # Errors
    /// `Refused` when there is no such grant or it is another domain's, `Gone` when there is no
    /// domain `owner` (any more), `TooManyDescriptors`.
    fn map(&mut self, owner: Domid, gref: GrantRef) -> Result<Self::Region, PortError>;

    /// Makes an end of an event channel, which domain `remote` may bind to.
    ///
    /// # Errors
    /// `NoSpace(Channels)`, `TooManyDescriptors`; `Gone` when there is no domain `remote`.
    fn alloc_unbound(&mut self, remote: Domid) -> Result<LocalPort, PortError>;

    /// Binds to the end `remote_port` that domain `remote` made for this one. As on Xen, the new
    /// end is raised from the start, so that what was notified before is not lost.
    ///
    /// # Errors
    /// `NoSpace(Channels)`, `TooManyDescriptors`; `Gone` when there is no domain `remote`;
    /// `Refused` when the end was made for another domain; `BadArgument` when there is none, or
    /// it is bound already.
    fn bind_interdomain(
        &mut self,
        remote: Domid,
        remote_port: LocalPort,
    ) -> Result<LocalPort, PortError>;

    /// Raises the other end. Where nobody is bound to it, or it is closed, nothing happens.
    ///
    /// # Errors
    /// `BadArgument` when there is no such port.
    fn notify(&mut self, port: LocalPort) -> Result<(), PortError>;

    /// A descriptor that a process of this domain can be given to raise the other end as
    /// [`Port::notify`] does, and how.
    ///
    /// # Errors
    /// `BadArgument` when there is no such port.
    fn notifier(&self, port: LocalPort) -> Result<(BorrowedFd<'_>, Notify), PortError>;

    /// A descriptor that polls readable while [`Port::take`] has something new to tell.
    ///
    /// # Errors
    /// `BadArgument` when there is no such port.
    fn wait_fd(&self, port: LocalPort) -> Result<BorrowedFd<'_>, PortError>;

    /// Looks what came at an end and clears it. Any number of notifications is told once, or once more if some came
    /// after the first was delivered (Xen keeps them until the look).
    ///
    /// # Errors
    /// `BadArgument` when there is no such port.
    fn take(&mut self, port: LocalPort) -> Result<Event, PortError>;

    /// Closes an end; the other one becomes [`Event::Closed`].
    ///
    /// # Errors
    /// `BadArgument` when there is no such port.
    fn close(&mut self, port: LocalPort) -> Result<(), PortError>;
}
