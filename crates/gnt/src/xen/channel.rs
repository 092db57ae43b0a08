// SPDX-License-Identifier: MIT OR Apache-2.0
//! Event channels. Xen does not tell an end that the other one was closed, or that its process was killed. So each
//! channel has a page, granted by the one who made it to the one who may bind: a byte for each of them, which
//! its kernel clears when that process is gone (unmap-notify). Not even that comes when the whole
//! domain is destroyed: the registry knows of such a death.

use super::libs::{AtEnd, Evtchn, Mapper, Pages, Sharer};
use super::memory::{Counted, Made};
use super::to_error;
use crate::port::{Event, Limit, PortError};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use std::mem::offset_of;
use std::os::fd::BorrowedFd;
use std::sync::atomic::{AtomicU8, Ordering};
use vshmem_abi::Domid;
use vshmem_abi::doorbell::Notify;
use vshmem_abi::grants::{CHANNEL_MAGIC, ChannelPage};

const MAKER: u32 = offset_of!(ChannelPage, maker) as u32;
const BINDER: u32 = offset_of!(ChannelPage, binder) as u32;

/// One end of an event channel. Dropping it closes it.
#[derive(Debug)]
pub(super) struct Channel {
    // Dropped first: the event channel exists until the page's end has been told by it.
    page: Pages,
    evtchn: Evtchn,
    closed: bool,
    /// Of its maker: its page is one of gntalloc.
    made: Option<Counted>,
}

impl Channel {
    /// A new one, which domain `remote` may bind to, with its number.
    pub fn make(sharer: &Sharer, remote: Domid, made: &Made) -> Result<(Self, u32), PortError> {
        let evtchn = Evtchn::unbound(remote).map_err(channel_error)?;
        let end = AtEnd {
            byte: MAKER,
            port: evtchn.port(),
        };
        let ((page, gref), counted) = made.ask(1, || sharer.share_until(remote, end))?;
        let channel = Self {
            page,
            evtchn,
            closed: false,
            made: Some(counted),
        };
        let page = channel.page()?;
        page.port.store(channel.evtchn.port(), Ordering::Relaxed);
        page.maker.store(1, Ordering::Relaxed);
        page.magic.store(CHANNEL_MAGIC, Ordering::Release);
        Ok((channel, gref))
    }

    /// The other end of the one of this number, which domain `remote` has made.
    pub fn bind(mapper: &Mapper, remote: Domid, number: u32) -> Result<Self, PortError> {
        let offered = mapper.map(remote, number).map_err(to_error)?;
        let page: &ChannelPage = offered.page(0).ok_or(PortError::BadArgument)?;
        if page.magic.load(Ordering::Acquire) != CHANNEL_MAGIC {
            return Err(PortError::BadArgument);
        }
        let evtchn = Evtchn::bound(remote, page.port.load(Ordering::Relaxed));
        let evtchn = evtchn.map_err(channel_error)?;
        let end = AtEnd {
            byte: BINDER,
            port: evtchn.port(),
        };
        let channel = Self {
            page: mapper.map_until(remote, number, end).map_err(to_error)?,
            evtchn,
            closed: false,
            made: None,
        };
        let page = channel.page()?;
        page.binder.store(1, Ordering::Relaxed);
        page.bound.store(1, Ordering::Release);
        Ok(channel)
    }

    /// Raises the other end.
    pub fn notify(&self) -> Result<(), PortError> {
        self.evtchn.notify().map_err(|_| PortError::BadArgument)
    }

    /// What raises the other end.
    pub fn notifier(&self) -> (BorrowedFd<'_>, Notify) {
        (self.evtchn.fd(), Notify::Evtchn(self.evtchn.port()))
    }

    /// Polls readable while [`Channel::take`] has something new to tell.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.evtchn.fd()
    }

    /// Its port in this domain.
    pub fn port(&self) -> u32 {
        self.evtchn.port()
    }

    /// Looks what came and clears it.
    pub fn take(&mut self) -> Event {
        let now = Timespec::default();
        let mut fds = [PollFd::from_borrowed_fd(self.evtchn.fd(), PollFlags::IN)];
        let ready = poll(&mut fds, Some(&now)).is_ok_and(|ready| ready > 0);
        let raised = ready && self.evtchn.take().is_ok();
        self.closed |= self.other_is_gone();
        match raised {
            _ if self.closed => Event::Closed,
            true => Event::Raised,
            false => Event::Idle,
        }
    }

    fn page(&self) -> Result<&ChannelPage, PortError> {
        self.page.page(0).ok_or(PortError::BadArgument)
    }

    fn ends(&self) -> Option<(&ChannelPage, &AtomicU8, &AtomicU8)> {
        let page = self.page().ok()?;
        let (own, others) = if self.made.is_some() {
            (&page.maker, &page.binder)
        } else {
            (&page.binder, &page.maker)
        };
        Some((page, own, others))
    }

    fn other_is_gone(&self) -> bool {
        let Some((page, _, others)) = self.ends() else {
            return false;
        };
        page.bound.load(Ordering::Acquire) == 1 && others.load(Ordering::Acquire) == 0
    }
}

impl Drop for Channel {
    fn drop(&mut self) {
        // What the kernel does next, for whoever looks at once.
        if let Some((_, own, _)) = self.ends() {
            own.store(0, Ordering::Release);
        }
    }
}

/// What it means that an event channel cannot be had.
fn channel_error(errno: Errno) -> PortError {
    match errno {
        Errno::NOSPC => PortError::NoSpace(Limit::Channels),
        // Xen knows no such port, or it is bound already.
        Errno::INVAL => PortError::BadArgument,
        errno => to_error(errno),
    }
}
