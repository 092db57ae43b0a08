// SPDX-License-Identifier: MIT OR Apache-2.0
//! The port itself.

use super::channel::Channel;
use super::directory;
use super::libs::{Evtchn, Mapper, Pages, Sharer};
use super::memory::{Counted, Made, SPARE, XenRegion};
use super::to_error;
use crate::port::{Event, GrantRef, LocalPort, Port, PortError, RegionOptions};
use rustix::io::Errno;
use std::collections::HashMap;
use std::os::fd::BorrowedFd;
use vshmem_abi::doorbell::Notify;
use vshmem_abi::region::Memory;
use vshmem_abi::{Domid, PAGE_SIZE};
use xen_gnttab_sys::LoadError;

/// Why there is no Xen port to be had.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// One of Xen's libraries is missing.
    #[error(transparent)]
    Library(#[from] LoadError),
    /// One of the kernel's drivers for Xen is missing, or not for this user.
    #[error("cannot open {device}: {errno} ({advice})")]
    Device {
        /// The device file.
        device: &'static str,
        /// What `open` says.
        errno: Errno,
        /// What to do about it.
        advice: String,
    },
    /// gntalloc makes no pages.
    #[error(
        "gntalloc makes no pages ({0}): other programs have used up its limit \
         (/sys/module/xen_gntalloc/parameters/limit), or it has lost count since the grant table was \
         full (then stop what uses it, rmmod xen-gntalloc, modprobe xen-gntalloc)"
    )]
    NoPages(Errno),
}

/// The Xen port of this domain.
#[derive(Debug)]
pub struct XenPort {
    domid: Domid,
    mapper: Mapper,
    sharer: Sharer,
    made: Made,
    _spare: (Pages, Counted),
    directories: HashMap<GrantRef, (Pages, Counted)>,
    channels: HashMap<LocalPort, Channel>,
}

/// In the numbers of ends that were bound here, beside the port; those of ends made here are grant
/// references, of which there are far fewer.
const BOUND: u32 = 1 << 31;

impl XenPort {
    /// Pages that this port has had from gntalloc, for regions, directories and event channels, and how many
    /// gntalloc makes at most.
    pub fn allocated(&self) -> (u64, u64) {
        (self.made.pages(), self.made.limit())
    }

    /// The port of this domain, whose number is `domid`.
    ///
    /// # Errors
    /// [`OpenError`]: this is no domain of Xen, or something is missing in it.
    pub fn new(domid: Domid) -> Result<Self, OpenError> {
        let mapper = opened("/dev/xen/gntdev", "xen-gntdev", Mapper::open()?)?;
        let sharer = opened("/dev/xen/gntalloc", "xen-gntalloc", Sharer::open()?)?;
        opened("/dev/xen/evtchn", "xen-evtchn", Evtchn::open()?)?;
        let made = Made::default();
        let (spare, _) = sharer.share(domid, SPARE).map_err(OpenError::NoPages)?;
        Ok(Self {
            domid,
            _spare: (spare, made.count(SPARE.into())),
            mapper,
            sharer,
            made,
            directories: HashMap::new(),
            channels: HashMap::new(),
        })
    }

    fn channel(&self, port: LocalPort) -> Result<&Channel, PortError> {
        self.channels.get(&port).ok_or(PortError::BadArgument)
    }
}

fn opened<T>(device: &'static str, module: &str, result: Result<T, Errno>) -> Result<T, OpenError> {
    result.map_err(|errno| {
        let advice = match errno {
            Errno::ACCESS | Errno::PERM => {
                "run vshmemd as root, or as a user of the group that has the device".to_owned()
            }
            _ => format!("is this a domain of Xen, with the kernel module {module} loaded?"),
        };
        OpenError::Device {
            device,
            errno,
            advice,
        }
    })
}

impl Port for XenPort {
    type Region = XenRegion;

    fn domid(&self) -> Domid {
        self.domid
    }

    fn memory(&self) -> Memory {
        Memory::AtOnce
    }

    fn create(&mut self, bytes: u64, options: RegionOptions) -> Result<XenRegion, PortError> {
        XenRegion::create(bytes, options, &self.made)
    }

    /// The reference is that of the first page of the region's directory. A second grant to the same
    /// domain has a directory of its own.
    fn grant(&mut self, region: &XenRegion, to: Domid) -> Result<GrantRef, PortError> {
        let shared = region.for_peer(to)?;
        let count = directory::pages_for(shared.refs.len());
        let ((pages, first), counted) = self.made.ask(count.into(), || {
            directory::write(&self.sharer, to, &shared.refs, shared.read_only)
        })?;
        let gref = GrantRef(first);
        self.directories.insert(gref, (pages, counted));
        Ok(gref)
    }

    fn grant_read_only(&mut self, region: &XenRegion, to: Domid) -> Result<GrantRef, PortError> {
        if !region.for_peer(to)?.read_only {
            return Err(PortError::MadeWritable);
        }
        self.grant(region, to)
    }

    /// Takes the directory back. The pages stay granted until the region is given up: who noted
    /// their references could still map them.
    fn end_grant(&mut self, gref: GrantRef) -> Result<(), PortError> {
        let ended = self.directories.remove(&gref);
        ended.map(drop).ok_or(PortError::BadArgument)
    }

    /// Reads the directory; the region's own pages are mapped by whoever maps it.
    fn map(&mut self, owner: Domid, gref: GrantRef) -> Result<XenRegion, PortError> {
        let contents = directory::read(&self.mapper, owner, gref.0)?;
        let list = directory::list(owner, &contents).map_err(to_error)?;
        let len = contents.refs.len() as u64 * PAGE_SIZE;
        Ok(XenRegion::mapped(list, len, contents.read_only))
    }

    fn alloc_unbound(&mut self, remote: Domid) -> Result<LocalPort, PortError> {
        let (channel, number) = Channel::make(&self.sharer, remote, &self.made)?;
        let port = LocalPort(number);
        self.channels.insert(port, channel);
        Ok(port)
    }

    fn bind_interdomain(
        &mut self,
        remote: Domid,
        remote_port: LocalPort,
    ) -> Result<LocalPort, PortError> {
        let channel = Channel::bind(&self.mapper, remote, remote_port.0)?;
        let port = LocalPort(BOUND | channel.port());
        self.channels.insert(port, channel);
        Ok(port)
    }

    fn notify(&mut self, port: LocalPort) -> Result<(), PortError> {
        self.channel(port)?.notify()
    }

    fn notifier(&self, port: LocalPort) -> Result<(BorrowedFd<'_>, Notify), PortError> {
        Ok(self.channel(port)?.notifier())
    }

    fn wait_fd(&self, port: LocalPort) -> Result<BorrowedFd<'_>, PortError> {
        Ok(self.channel(port)?.fd())
    }

    fn take(&mut self, port: LocalPort) -> Result<Event, PortError> {
        let channel = self.channels.get_mut(&port);
        Ok(channel.ok_or(PortError::BadArgument)?.take())
    }

    fn close(&mut self, port: LocalPort) -> Result<(), PortError> {
        let closed = self.channels.remove(&port);
        closed.map(drop).ok_or(PortError::BadArgument)
    }
}
