// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whichever port a daemon was started with.

use crate::host::{HostPort, HostRegion};
use crate::port::{Event, GrantRef, LocalPort, Port, PortError, Region, RegionOptions};
use crate::xen::{XenPort, XenRegion};
use std::os::fd::BorrowedFd;
use vshmem_abi::Domid;
use vshmem_abi::doorbell::Notify;
use vshmem_abi::grants::How;
use vshmem_abi::region::Memory;

/// One of the ports.
#[derive(Debug)]
pub enum AnyPort {
    /// The host port.
    Host(HostPort),
    /// The Xen port.
    Xen(XenPort),
}

/// A region of one of the ports.
#[derive(Debug)]
pub enum AnyRegion {
    /// Of the host port.
    Host(HostRegion),
    /// Of the Xen port.
    Xen(XenRegion),
}

impl From<HostPort> for AnyPort {
    fn from(port: HostPort) -> Self {
        Self::Host(port)
    }
}

impl From<XenPort> for AnyPort {
    fn from(port: XenPort) -> Self {
        Self::Xen(port)
    }
}

/// Does the same with whichever it is.
macro_rules! each {
    ($of:ident, $any:expr, $one:ident => $does:expr) => {
        match $any {
            $of::Host($one) => $does,
            $of::Xen($one) => $does,
        }
    };
}

impl Region for AnyRegion {
    fn fd(&self) -> BorrowedFd<'_> {
        each!(AnyRegion, self, region => region.fd())
    }

    fn how(&self) -> How {
        each!(AnyRegion, self, region => region.how())
    }

    fn has_futexes(&self) -> bool {
        each!(AnyRegion, self, region => region.has_futexes())
    }

    fn is_read_only(&self) -> bool {
        each!(AnyRegion, self, region => region.is_read_only())
    }

    fn len(&self) -> u64 {
        each!(AnyRegion, self, region => region.len())
    }

    fn release(self) {
        each!(AnyRegion, self, region => region.release());
    }
}

impl Port for AnyPort {
    type Region = AnyRegion;

    fn domid(&self) -> Domid {
        each!(AnyPort, self, port => port.domid())
    }

    fn memory(&self) -> Memory {
        each!(AnyPort, self, port => port.memory())
    }

    fn create(&mut self, bytes: u64, options: RegionOptions) -> Result<AnyRegion, PortError> {
        Ok(match self {
            Self::Host(port) => AnyRegion::Host(port.create(bytes, options)?),
            Self::Xen(port) => AnyRegion::Xen(port.create(bytes, options)?),
        })
    }

    fn grant(&mut self, region: &AnyRegion, to: Domid) -> Result<GrantRef, PortError> {
        match (self, region) {
            (Self::Host(port), AnyRegion::Host(region)) => port.grant(region, to),
            (Self::Xen(port), AnyRegion::Xen(region)) => port.grant(region, to),
            (Self::Host(_), AnyRegion::Xen(_)) | (Self::Xen(_), AnyRegion::Host(_)) => {
                Err(PortError::BadArgument)
            }
        }
    }

    fn grant_read_only(&mut self, region: &AnyRegion, to: Domid) -> Result<GrantRef, PortError> {
        match (self, region) {
            (Self::Host(port), AnyRegion::Host(region)) => port.grant_read_only(region, to),
            (Self::Xen(port), AnyRegion::Xen(region)) => port.grant_read_only(region, to),
            (Self::Host(_), AnyRegion::Xen(_)) | (Self::Xen(_), AnyRegion::Host(_)) => {
                Err(PortError::BadArgument)
            }
        }
    }

    fn end_grant(&mut self, gref: GrantRef) -> Result<(), PortError> {
        each!(AnyPort, self, port => port.end_grant(gref))
    }

    fn map(&mut self, owner: Domid, gref: GrantRef) -> Result<AnyRegion, PortError> {
        Ok(match self {
            Self::Host(port) => AnyRegion::Host(port.map(owner, gref)?),
            Self::Xen(port) => AnyRegion::Xen(port.map(owner, gref)?),
        })
    }

    fn alloc_unbound(&mut self, remote: Domid) -> Result<LocalPort, PortError> {
        each!(AnyPort, self, port => port.alloc_unbound(remote))
    }

    fn bind_interdomain(
        &mut self,
        remote: Domid,
        remote_port: LocalPort,
    ) -> Result<LocalPort, PortError> {
        each!(AnyPort, self, port => port.bind_interdomain(remote, remote_port))
    }

    fn notify(&mut self, port: LocalPort) -> Result<(), PortError> {
        each!(AnyPort, self, any => any.notify(port))
    }

    fn notifier(&self, port: LocalPort) -> Result<(BorrowedFd<'_>, Notify), PortError> {
        each!(AnyPort, self, any => any.notifier(port))
    }

    fn wait_fd(&self, port: LocalPort) -> Result<BorrowedFd<'_>, PortError> {
        each!(AnyPort, self, any => any.wait_fd(port))
    }

    fn take(&mut self, port: LocalPort) -> Result<Event, PortError> {
        each!(AnyPort, self, any => any.take(port))
    }

    fn close(&mut self, port: LocalPort) -> Result<(), PortError> {
        each!(AnyPort, self, any => any.close(port))
    }
}
