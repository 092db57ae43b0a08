// SPDX-License-Identifier: MIT OR Apache-2.0
//! Regions of the Xen port: pages of gntalloc, which one other domain may map; a memfd, where there is no
//! other domain; or what another domain granted, known by its grant list.
//!
//! What Linux's `drivers/xen/gntalloc.c` does decides how: pages belong to the descriptor that they were
//! made with, and stay while that is open, or somebody has them mapped, in this domain or in the other.

use super::to_error;
use crate::host::HostRegion;
use crate::port::{Limit, PortError, Region, RegionOptions};
use nix::libc;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use std::ffi::c_void;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use vshmem_abi::grants::{
    AllocGref, DeallocGref, GNTALLOC, GNTALLOC_FLAG_WRITABLE, How, IOCTL_GNTALLOC_ALLOC_GREF,
    IOCTL_GNTALLOC_DEALLOC_GREF,
};
use vshmem_abi::limits::setting;
use vshmem_abi::{Domid, PAGE_SIZE, pages};
use zerocopy::{FromBytes, IntoBytes};

/// Numbers from here on mean no domain (`DOMID_FIRST_RESERVED` of `xen/xen.h`).
const DOMIDS: Domid = 0x7ff0;

/// Pages that gntalloc makes for the whole domain, where its setting cannot be read.
const GNTALLOC_LIMIT: u64 = 1024;

/// The memory behind a construct.
#[derive(Debug)]
pub struct XenRegion(Kind);

#[derive(Debug)]
enum Kind {
    /// Made for this domain alone.
    Alone(HostRegion),
    /// Made for another domain too.
    Shared(SharedRegion),
    /// Another domain's.
    Mapped {
        list: OwnedFd,
        len: u64,
        read_only: bool,
    },
}

/// Pages of gntalloc.
#[derive(Debug)]
pub(super) struct SharedRegion {
    device: OwnedFd,
    /// Who may map them.
    pub peer: Domid,
    /// Their references.
    pub refs: Vec<u32>,
    /// The peer may only read them.
    pub read_only: bool,
    _counted: Counted,
}

impl Region for XenRegion {
    fn fd(&self) -> BorrowedFd<'_> {
        match &self.0 {
            Kind::Alone(region) => region.fd(),
            Kind::Shared(region) => region.device.as_fd(),
            Kind::Mapped { list, .. } => list.as_fd(),
        }
    }

    fn how(&self) -> How {
        match &self.0 {
            Kind::Alone(_) | Kind::Shared(_) => How::Direct,
            Kind::Mapped { .. } => How::Grants,
        }
    }

    fn has_futexes(&self) -> bool {
        matches!(self.0, Kind::Alone(_))
    }

    fn is_read_only(&self) -> bool {
        matches!(
            self.0,
            Kind::Mapped {
                read_only: true,
                ..
            }
        )
    }

    fn len(&self) -> u64 {
        match &self.0 {
            Kind::Alone(region) => region.len(),
            Kind::Shared(region) => region.refs.len() as u64 * PAGE_SIZE,
            Kind::Mapped { len, .. } => *len,
        }
    }

    fn release(self) {
        match self.0 {
            Kind::Alone(region) => region.release(),
            Kind::Shared(region) => region.release(),
            Kind::Mapped { .. } => {}
        }
    }
}

impl XenRegion {
    /// A new region, of pages that `options.peer` may map, if there is one.
    pub(super) fn create(
        bytes: u64,
        options: RegionOptions,
        made: &Made,
    ) -> Result<Self, PortError> {
        if options.huge_shift != 0 {
            return Err(PortError::BadArgument);
        }
        let Some(peer) = options.peer else {
            let options = RegionOptions {
                // Nobody else will have it.
                read_only: false,
                ..options
            };
            return HostRegion::create(bytes, options).map(|r| Self(Kind::Alone(r)));
        };
        let count = pages(bytes).filter(|&count| count > 0 && bytes <= i64::MAX as u64);
        let count = count.ok_or(PortError::BadArgument)?;
        let region = SharedRegion::create(count, peer, options.read_only, made)?;
        Ok(Self(Kind::Shared(region)))
    }

    /// A region of another domain.
    pub(super) fn mapped(list: OwnedFd, len: u64, read_only: bool) -> Self {
        Self(Kind::Mapped {
            list,
            len,
            read_only,
        })
    }

    /// The pages that can be granted to domain `to`.
    pub(super) fn for_peer(&self, to: Domid) -> Result<&SharedRegion, PortError> {
        match &self.0 {
            Kind::Alone(_) => Err(PortError::NoPeer),
            Kind::Shared(region) if region.peer == to => Ok(region),
            Kind::Shared(region) => Err(PortError::OtherPeer { peer: region.peer }),
            Kind::Mapped { .. } => Err(PortError::BadArgument),
        }
    }
}

impl SharedRegion {
    fn create(count: u64, peer: Domid, read_only: bool, made: &Made) -> Result<Self, PortError> {
        // More than it may, gntalloc refuses too; but room for the references comes first.
        let asked = u32::try_from(count.min(made.limit() + 1)).map_err(|_| PortError::NoMemory)?;
        let domid = u16::try_from(peer).ok().filter(|_| peer < DOMIDS);
        let head = AllocGref {
            domid: domid.ok_or(PortError::Gone)?,
            flags: if read_only { 0 } else { GNTALLOC_FLAG_WRITABLE },
            count: asked,
            index: 0,
        };
        let flags = OFlags::RDWR | OFlags::CLOEXEC;
        let device = rustix::fs::open(GNTALLOC, flags, Mode::empty()).map_err(to_error)?;
        let (refs, counted) = made.ask(count, || allocate(&device, head))?;
        Ok(Self {
            device,
            peer,
            refs,
            read_only,
            _counted: counted,
        })
    }

    /// Takes the pages out of the descriptor, so that who still has it cannot map them any more. Those
    /// that nobody has mapped go now; the rest when the last one unmaps them, here or in the
    /// other domain: the kernel looks after that.
    fn release(self) {
        let mut argument = DeallocGref {
            index: 0,
            count: self.refs.len() as u32,
            pad: 0,
        };
        let at = (&raw mut argument).cast();
        // SAFETY: the number's argument is such a structure. If it fails they go with the descriptor.
        let _ = unsafe { driver(&self.device, IOCTL_GNTALLOC_DEALLOC_GREF, at) };
    }
}

/// Makes pages of gntalloc; returns their references.
fn allocate(device: &OwnedFd, head: AllocGref) -> Result<Vec<u32>, Errno> {
    let count = head.count as usize;
    // The head, then room for the references; in words, for the head's sake.
    let mut request = vec![0u64; size_of::<AllocGref>() / 8 + count.div_ceil(2)];
    let bytes = request.as_mut_bytes();
    head.write_to_prefix(bytes).map_err(|_| Errno::INVAL)?;
    // SAFETY: the number's argument is such a head with room for so many references.
    unsafe { driver(device, IOCTL_GNTALLOC_ALLOC_GREF, bytes.as_mut_ptr().cast())? };
    let (_, refs) = AllocGref::read_from_prefix(bytes).map_err(|_| Errno::INVAL)?;
    let refs = refs.chunks_exact(4).take(count);
    let refs = refs.map(|r| u32::from_ne_bytes([r[0], r[1], r[2], r[3]]));
    Ok(refs.collect())
}

/// Asks a driver.
///
/// # Safety
/// `argument` is what `number` takes.
pub(super) unsafe fn driver(
    device: &OwnedFd,
    number: u32,
    argument: *mut c_void,
) -> Result<(), Errno> {
    // SAFETY: the caller answers for the argument; a file that is not this driver's does not know
    // the number.
    let done = unsafe { libc::ioctl(device.as_raw_fd(), number.into(), argument) };
    if done >= 0 {
        return Ok(());
    }
    Err(Errno::from_io_error(&io::Error::last_os_error()).unwrap_or(Errno::INVAL))
}

/// How many pages of gntalloc this process has: to say which limit was reached, since gntalloc says `ENOSPC`
/// for its own and for the grant table, and to ask it in vain no more often than it bears.
///
/// Each time that it runs out of grants, Linux's gntalloc counts one page too few from then on (`add_grefs`
/// takes one page too many back). Below zero it takes its limit for reached, and makes no page any more until it
/// is loaded again. So [`SPARE`] pages are kept, and beyond so many failures it is not asked for what was
/// refused before.
#[derive(Clone, Debug, Default)]
pub(super) struct Made(Arc<Counts>);

#[derive(Debug)]
struct Counts {
    pages: AtomicU64,
    failures: AtomicU64,
    /// The least sum of pages that there were no grants for.
    full_at: AtomicU64,
}

/// Pages that are kept so that gntalloc's count does not go below zero.
pub(super) const SPARE: u32 = 8;

/// Pages that are counted until this is dropped.
#[derive(Debug)]
pub(super) struct Counted(Made, u64);

impl Default for Counts {
    fn default() -> Self {
        Self {
            pages: AtomicU64::new(0),
            failures: AtomicU64::new(0),
            full_at: AtomicU64::new(u64::MAX),
        }
    }
}

impl Made {
    /// Counts pages that were made.
    pub fn count(&self, pages: u64) -> Counted {
        self.0.pages.fetch_add(pages, Ordering::Relaxed);
        Counted(self.clone(), pages)
    }

    /// Makes so many pages by asking gntalloc in a way that a caller knows.
    pub fn ask<T>(
        &self,
        more: u64,
        ask: impl FnOnce() -> Result<T, Errno>,
    ) -> Result<(T, Counted), PortError> {
        let wanted = self.pages().saturating_add(more);
        let has_failed_often = self.0.failures.load(Ordering::Relaxed) >= SPARE.into();
        if wanted <= self.limit()
            && has_failed_often
            && wanted >= self.0.full_at.load(Ordering::Relaxed)
        {
            return Err(PortError::NoSpace(Limit::GrantTable));
        }
        match ask() {
            Ok(made) => Ok((made, self.count(more))),
            Err(Errno::NOSPC) if wanted > self.limit() => {
                Err(PortError::NoSpace(Limit::GrantedPages))
            }
            Err(errno @ (Errno::NOSPC | Errno::NOMEM)) => {
                self.0.failures.fetch_add(1, Ordering::Relaxed);
                self.0.full_at.fetch_min(wanted, Ordering::Relaxed);
                Err(match errno {
                    Errno::NOSPC => PortError::NoSpace(Limit::GrantTable),
                    errno => to_error(errno),
                })
            }
            Err(errno) => Err(to_error(errno)),
        }
    }

    /// Pages that were made here and are there.
    pub fn pages(&self) -> u64 {
        self.0.pages.load(Ordering::Relaxed)
    }

    /// Pages that gntalloc makes for the whole domain, at this moment.
    pub fn limit(&self) -> u64 {
        setting("/sys/module/xen_gntalloc/parameters/limit").unwrap_or(GNTALLOC_LIMIT)
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.0.pages.fetch_sub(self.1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn create(bytes: u64, options: RegionOptions) -> Result<XenRegion, PortError> {
        XenRegion::create(bytes, options, &Made::default())
    }

    #[test]
    fn without_another_domain_a_region_is_a_file_that_cannot_be_granted() {
        let region = create(5000, RegionOptions::default()).unwrap();
        assert_eq!((region.len(), region.how()), (8192, How::Direct));
        assert!(region.has_futexes());
        assert_eq!(region.for_peer(2).err(), Some(PortError::NoPeer));
    }

    #[test]
    fn huge_pages_and_sizes_that_nothing_has_are_refused() {
        let huge = RegionOptions {
            huge_shift: 21,
            ..RegionOptions::default()
        };
        assert_eq!(create(4096, huge).err(), Some(PortError::BadArgument));
        for peer in [None, Some(2)] {
            for bytes in [0, 1 << 63, u64::MAX] {
                let options = RegionOptions {
                    peer,
                    ..RegionOptions::default()
                };
                let made = create(bytes, options);
                assert_eq!(made.err(), Some(PortError::BadArgument), "{bytes}");
            }
        }
    }

    /// Asks for pages, of which gntalloc says this.
    fn asked(made: &Made, pages: u64, says: Result<(), Errno>) -> Result<Counted, PortError> {
        made.ask(pages, || says).map(|((), counted)| counted)
    }

    #[test]
    fn the_limit_that_is_named_is_the_one_that_was_reached() {
        let made = Made::default();
        let full = Err(Errno::NOSPC);
        let limit = made.limit();
        let counted = asked(&made, limit - 1, Ok(())).unwrap();
        let refused = |pages| asked(&made, pages, full).err();
        let named = |limit| Some(PortError::NoSpace(limit));
        assert_eq!(refused(2), named(Limit::GrantedPages));
        assert_eq!(refused(1), named(Limit::GrantTable));
        drop(counted);
        assert_eq!(refused(limit), named(Limit::GrantTable));
        assert_eq!(refused(limit + 1), named(Limit::GrantedPages));
    }

    #[test]
    fn gntalloc_is_not_asked_again_and_again_for_what_there_are_no_grants_for() {
        let made = Made::default();
        let full = Some(PortError::NoSpace(Limit::GrantTable));
        let held = asked(&made, 100, Ok(())).unwrap();
        for _ in 0..SPARE {
            assert_eq!(asked(&made, 50, Err(Errno::NOSPC)).err(), full);
        }
        let never = || -> Result<(), Errno> { panic!("it is asked again") };
        assert_eq!(made.ask(50, never).err(), full);
        // What is less than that it is asked for, and for as much when other pages have gone.
        drop(asked(&made, 49, Ok(())).unwrap());
        drop(held);
        assert!(asked(&made, 149, Ok(())).is_ok());
        assert_eq!(made.ask(150, never).err(), full);
    }

    #[test]
    fn another_domains_region_is_its_grant_list() {
        let list = crate::host::memory::memfd(0).unwrap();
        let region = XenRegion::mapped(list, 4096, true);
        assert_eq!((region.len(), region.how()), (4096, How::Grants));
        assert!(!region.has_futexes() && region.is_read_only());
        assert_eq!(region.for_peer(2).err(), Some(PortError::BadArgument));
    }
}
