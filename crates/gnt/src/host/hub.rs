// SPDX-License-Identifier: MIT OR Apache-2.0
//! The stand-in for the hypervisor: who granted what to whom, who waits for whom, and how much
//! each may have.
//!
//! [`Hub`] is the state alone and does no waiting; [`serve`] runs a thread that puts it at the
//! end of one connection for each domain.

pub use super::serve::{HubHandle, serve};

use super::CLOSED;
use super::memory::{SEALS, to_error};
use crate::port::{GrantRef, Limit, Limits, LocalPort, PortError};
use rustix::event::EventfdFlags;
use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use vshmem_abi::{Domid, pages};

/// A region of a domain and who may map it.
#[derive(Debug)]
struct Grant {
    to: Domid,
    /// What it counts against the owner's limit.
    pages: u64,
    /// `None` once the domain that it was for is gone.
    memory: Option<Arc<OwnedFd>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ChannelState {
    /// This domain may bind to it.
    Unbound(Domid),
    /// Bound to that end.
    Bound(Domid, LocalPort),
    /// The other end was closed.
    Closed,
}

/// One end of an event channel.
#[derive(Debug)]
struct Channel {
    state: ChannelState,
    ends: Ends,
}

/// The two eventfds of an event channel, as one end sees them.
#[derive(Clone, Debug)]
pub struct Ends {
    /// Raised by the other end.
    pub wait: Arc<OwnedFd>,
    /// Raises the other end.
    pub kick: Arc<OwnedFd>,
}

#[derive(Debug, Default)]
struct Domain {
    grants: HashMap<GrantRef, Grant>,
    granted: u64,
    last_gref: u32,
    channels: HashMap<LocalPort, Channel>,
    last_port: u32,
}

/// The tables of all domains.
#[derive(Debug)]
pub struct Hub {
    limits: Limits,
    domains: HashMap<Domid, Domain>,
}

impl Hub {
    /// A hub without domains, each of which will have `limits`.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            domains: HashMap::new(),
        }
    }

    /// A domain appears. Its number must not have been used before.
    pub fn add_domain(&mut self, domid: Domid) {
        self.domains.insert(domid, Domain::default());
    }

    /// A domain is gone: its grants end, its event channels close, and grants to it are void.
    pub fn remove_domain(&mut self, domid: Domid) {
        let Some(dead) = self.domains.remove(&domid) else {
            return;
        };
        for channel in dead.channels.values() {
            if let ChannelState::Bound(remote, port) = channel.state {
                self.close_end(remote, port);
            }
        }
        for domain in self.domains.values_mut() {
            for channel in domain.channels.values_mut() {
                if channel.state == ChannelState::Unbound(domid) {
                    channel.close();
                }
            }
            for grant in domain.grants.values_mut().filter(|g| g.to == domid) {
                domain.granted -= grant.pages;
                grant.pages = 0;
                grant.memory = None;
            }
        }
    }

    /// Grants the memory behind `memory` to domain `to`; see [`crate::Port::grant`].
    pub fn grant(
        &mut self,
        owner: Domid,
        to: Domid,
        memory: OwnedFd,
    ) -> Result<GrantRef, PortError> {
        // What can be resized or is no memory file would let the owner raise SIGBUS in others.
        match rustix::fs::fcntl_get_seals(&memory) {
            Ok(seals) if seals.contains(SEALS) => {}
            _ => return Err(PortError::BadArgument),
        }
        let bytes = bytes_of(&memory)?;
        let wanted = pages(bytes).ok_or(PortError::BadArgument)?;
        if !self.domains.contains_key(&to) {
            return Err(PortError::Gone);
        }
        let limit = self.limits.grants;
        let domain = self.domain(owner)?;
        if wanted > limit.saturating_sub(domain.granted) {
            return Err(PortError::NoSpace(Limit::Grants));
        }
        let gref = free_number(&mut domain.last_gref, |n| {
            domain.grants.contains_key(&GrantRef(n))
        });
        let gref = GrantRef(gref);
        domain.granted += wanted;
        let grant = Grant {
            to,
            pages: wanted,
            memory: Some(Arc::new(memory)),
        };
        domain.grants.insert(gref, grant);
        Ok(gref)
    }

    /// Takes a grant back; see [`crate::Port::end_grant`].
    pub fn end_grant(&mut self, owner: Domid, gref: GrantRef) -> Result<(), PortError> {
        let domain = self.domain(owner)?;
        let grant = domain.grants.remove(&gref).ok_or(PortError::BadArgument)?;
        domain.granted -= grant.pages;
        Ok(())
    }

    /// The memory of a grant to `asker`, and its size in bytes; see [`crate::Port::map`].
    pub fn map(
        &self,
        asker: Domid,
        owner: Domid,
        gref: GrantRef,
    ) -> Result<(Arc<OwnedFd>, u64), PortError> {
        let domain = self.domains.get(&owner).ok_or(PortError::Gone)?;
        match domain.grants.get(&gref) {
            Some(Grant {
                to,
                memory: Some(memory),
                ..
            }) if *to == asker => Ok((memory.clone(), bytes_of(memory)?)),
            _ => Err(PortError::Refused),
        }
    }

    /// Makes an end of an event channel; see [`crate::Port::alloc_unbound`].
    pub fn alloc_unbound(
        &mut self,
        domid: Domid,
        remote: Domid,
    ) -> Result<(LocalPort, Ends), PortError> {
        if !self.domains.contains_key(&remote) {
            return Err(PortError::Gone);
        }
        let ends = Ends {
            wait: eventfd(0)?,
            // Raised from the start: see `bind_interdomain`.
            kick: eventfd(1)?,
        };
        let port = self.new_end(domid, ChannelState::Unbound(remote), ends.clone())?;
        Ok((port, ends))
    }

    /// Binds to another domain's end; see [`crate::Port::bind_interdomain`].
    pub fn bind_interdomain(
        &mut self,
        domid: Domid,
        remote: Domid,
        remote_port: LocalPort,
    ) -> Result<(LocalPort, Ends), PortError> {
        let domain = self.domains.get(&remote).ok_or(PortError::Gone)?;
        let offered = domain.channels.get(&remote_port);
        let offered = offered.ok_or(PortError::BadArgument)?;
        match offered.state {
            ChannelState::Unbound(to) if to == domid => {}
            ChannelState::Unbound(_) => return Err(PortError::Refused),
            _ => return Err(PortError::BadArgument),
        }
        let ends = Ends {
            wait: offered.ends.kick.clone(),
            kick: offered.ends.wait.clone(),
        };
        let state = ChannelState::Bound(remote, remote_port);
        let port = self.new_end(domid, state, ends.clone())?;
        let offered = self.domain(remote)?.channels.get_mut(&remote_port);
        if let Some(offered) = offered {
            offered.state = ChannelState::Bound(domid, port);
        }
        Ok((port, ends))
    }

    /// Closes an end; see [`crate::Port::close`].
    pub fn close(&mut self, domid: Domid, port: LocalPort) -> Result<(), PortError> {
        let channels = &mut self.domain(domid)?.channels;
        let channel = channels.remove(&port).ok_or(PortError::BadArgument)?;
        if let ChannelState::Bound(remote, remote_port) = channel.state {
            self.close_end(remote, remote_port);
        }
        Ok(())
    }

    fn domain(&mut self, domid: Domid) -> Result<&mut Domain, PortError> {
        self.domains.get_mut(&domid).ok_or(PortError::Gone)
    }

    fn new_end(
        &mut self,
        domid: Domid,
        state: ChannelState,
        ends: Ends,
    ) -> Result<LocalPort, PortError> {
        let limit = self.limits.channels as usize;
        let domain = self.domain(domid)?;
        if domain.channels.len() >= limit {
            return Err(PortError::NoSpace(Limit::Channels));
        }
        let port = LocalPort(free_number(&mut domain.last_port, |n| {
            domain.channels.contains_key(&LocalPort(n))
        }));
        domain.channels.insert(port, Channel { state, ends });
        Ok(port)
    }

    fn close_end(&mut self, domid: Domid, port: LocalPort) {
        let domain = self.domains.get_mut(&domid);
        if let Some(channel) = domain.and_then(|d| d.channels.get_mut(&port)) {
            channel.close();
        }
    }
}

impl Channel {
    fn close(&mut self) {
        self.state = ChannelState::Closed;
        // It fails only where the count is as high already, which says the same.
        let _ = rustix::io::write(&self.ends.wait, &CLOSED.to_ne_bytes());
    }
}

fn bytes_of(memory: &OwnedFd) -> Result<u64, PortError> {
    let stat = rustix::fs::fstat(memory).map_err(to_error)?;
    u64::try_from(stat.st_size).map_err(|_| PortError::BadArgument)
}

fn eventfd(count: u32) -> Result<Arc<OwnedFd>, PortError> {
    let flags = EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK;
    let fd = rustix::event::eventfd(count, flags).map_err(to_error)?;
    Ok(Arc::new(fd))
}

/// The next number after `last` that is not in use and not 0: numbers come back as late as
/// possible, so that a stale one is refused rather than taken for another.
fn free_number(last: &mut u32, used: impl Fn(u32) -> bool) -> u32 {
    loop {
        *last = last.wrapping_add(1);
        if *last != 0 && !used(*last) {
            return *last;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::HostRegion;
    use crate::port::{Region, RegionOptions};

    fn hub(grants: u64, channels: u32) -> Hub {
        let mut hub = Hub::new(Limits { grants, channels });
        for domid in 1..=3 {
            hub.add_domain(domid);
        }
        hub
    }

    fn memory(pages: u64) -> OwnedFd {
        let region = HostRegion::create(pages * 4096, RegionOptions::default()).unwrap();
        region.fd().try_clone_to_owned().unwrap()
    }

    #[test]
    fn memory_that_could_be_resized_is_not_granted() {
        let flags = rustix::fs::MemfdFlags::ALLOW_SEALING;
        let loose = rustix::fs::memfd_create("loose", flags).unwrap();
        rustix::fs::ftruncate(&loose, 4096).unwrap();
        assert_eq!(hub(9, 9).grant(1, 2, loose), Err(PortError::BadArgument));
        let file = std::fs::File::open("/proc/self/exe").unwrap();
        assert_eq!(
            hub(9, 9).grant(1, 2, file.into()),
            Err(PortError::BadArgument)
        );
    }

    #[test]
    fn a_grant_counts_its_pages_against_the_limit_of_its_owner_alone() {
        let mut hub = hub(4, 9);
        let first = hub.grant(1, 2, memory(3)).unwrap();
        let full = Err(PortError::NoSpace(Limit::Grants));
        assert_eq!(hub.grant(1, 3, memory(2)), full);
        hub.grant(2, 1, memory(4)).unwrap();
        hub.end_grant(1, first).unwrap();
        hub.grant(1, 3, memory(4)).unwrap();
    }

    #[test]
    fn the_death_of_the_granted_domain_gives_the_owner_its_pages_back() {
        let mut hub = hub(4, 9);
        let gref = hub.grant(1, 2, memory(4)).unwrap();
        hub.remove_domain(2);
        hub.grant(1, 3, memory(4)).unwrap();
        hub.end_grant(1, gref).unwrap();
        let full = Err(PortError::NoSpace(Limit::Grants));
        assert_eq!(hub.grant(1, 3, memory(1)), full);
    }

    #[test]
    fn a_grant_that_was_ended_is_not_found_under_its_old_number() {
        let mut hub = hub(4, 9);
        let old = hub.grant(1, 2, memory(1)).unwrap();
        hub.end_grant(1, old).unwrap();
        let new = hub.grant(1, 2, memory(1)).unwrap();
        assert_ne!(old, new);
        assert_eq!(hub.map(2, 1, old).err(), Some(PortError::Refused));
    }

    #[test]
    fn numbers_skip_zero_and_those_in_use_when_they_wrap() {
        let mut last = u32::MAX - 1;
        let used = |n| n == u32::MAX || n == 1;
        assert_eq!(free_number(&mut last, used), 2);
    }

    #[test]
    fn a_dead_domain_can_do_nothing_more() {
        let mut hub = hub(4, 4);
        hub.remove_domain(1);
        assert_eq!(hub.grant(1, 2, memory(1)), Err(PortError::Gone));
        assert_eq!(hub.alloc_unbound(1, 2).err(), Some(PortError::Gone));
    }
}
