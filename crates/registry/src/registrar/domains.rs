// SPDX-License-Identifier: MIT OR Apache-2.0
//! Domains come, go, and go on at another registrar.

use super::{Registrar, keep};
use crate::env::{Environment, Peers};
use crate::keeper::{Keeper, Kept};
use crate::table::{Construct, Known};
use rustix::io::Errno;
use vshmem_abi::ids::MAX_DOMID;
use vshmem_abi::link::{LinkMsg, LinkOp};
use vshmem_abi::wire::State;
use vshmem_abi::{Domid, Kind, paths};

/// Why a domain is not enrolled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnrolError {
    /// Its name cannot be one.
    #[error("{0}")]
    BadName(&'static str),
    /// A domain of that name is there.
    #[error(
        "a domain of that name is enrolled already, as number {0}; stop that, or take another name"
    )]
    Taken(Domid),
    /// All numbers were used once.
    #[error("no domain number is left; restart the back-end")]
    NoNumber,
}

impl EnrolError {
    /// The errno of the refusal.
    pub const fn errno(self) -> Errno {
        match self {
            Self::BadName(_) => Errno::INVAL,
            Self::Taken(_) => Errno::EXIST,
            Self::NoNumber => Errno::NOSPC,
        }
    }
}

/// An enrolled domain.
#[derive(Debug)]
pub(super) struct Enrolled {
    pub name: String,
    /// Which `vshmemd` of the domain this is ([`vshmem_abi::token`]).
    pub epoch: u8,
}

impl<E: Environment, K: Keeper> Registrar<E, K> {
    /// Knows again what an earlier registrar has kept, and the domains that were enrolled there: also
    /// those that are gone since, whose death is to be told next ([`Self::domain_died`]).
    ///
    /// Which domain knows what, nothing says but the domains. Until each has said it
    /// ([`Self::domain_resumed`]) it is taken to know everything, and to have it attached.
    pub fn restore(
        &mut self,
        kept: impl IntoIterator<Item = Kept>,
        domains: impl IntoIterator<Item = (Domid, String, u8)>,
    ) {
        for (domid, name, epoch) in domains {
            self.domains.insert(domid, Enrolled { name, epoch });
        }
        let presumed = Known {
            mapped: true,
            silent: true,
            presumed: true,
            ..Known::default()
        };
        for kept in kept {
            if let Some(construct) = self.table.restore(&kept) {
                let known = self.domains.keys().map(|domid| (*domid, presumed));
                construct.known.extend(known);
            }
        }
    }

    /// What nobody can have attached any more is forgotten, when all deaths since the registrar before
    /// this one have been told.
    pub fn settle_restored(&mut self, peers: &mut dyn Peers) {
        for id in self.table.ids(|c| c.meta.state != State::Live as u32) {
            self.settle(id, None, peers);
        }
    }

    /// A domain of a number that is given, on Xen. One that had the number before is not there any
    /// more.
    pub fn enrol_as(&mut self, domid: Domid, name: &str, epoch: u8) {
        let name = name.to_owned();
        self.domains.insert(domid, Enrolled { name, epoch });
    }

    /// Which `vshmemd` of a domain is enrolled, if one is.
    pub fn epoch_of(&self, domid: Domid) -> Option<u8> {
        self.domains.get(&domid).map(|d| d.epoch)
    }

    /// A new domain, with a number that no domain had before.
    pub fn enrol(&mut self, name: &str) -> Result<Domid, EnrolError> {
        if let Some(why) = paths::domain_name_error(name) {
            return Err(EnrolError::BadName(why));
        }
        if let Some((domid, _)) = self.domains.iter().find(|(_, d)| d.name == name) {
            return Err(EnrolError::Taken(*domid));
        }
        let domid = self.last_domid + 1;
        if domid > MAX_DOMID {
            return Err(EnrolError::NoNumber);
        }
        self.last_domid = domid;
        let enrolled = Enrolled {
            name: name.to_owned(),
            // A number is never used again here.
            epoch: 0,
        };
        self.domains.insert(domid, enrolled);
        Ok(domid)
    }

    pub(super) fn enrolled(&self, request: &LinkMsg) -> Result<LinkMsg, Errno> {
        match self.domains.get(&request.domid) {
            Some(enrolled) if u32::from(enrolled.epoch) == request.epoch => Ok(request.answer()),
            _ => Err(Errno::NOENT),
        }
    }

    pub(super) fn epoch(&self, domid: Domid) -> u8 {
        self.epoch_of(domid).unwrap_or(0)
    }

    /// A domain is gone. What it owned is lost, what it had attached is not attached any more.
    pub fn domain_died(&mut self, domid: Domid, peers: &mut dyn Peers) {
        let epoch = self.domains.remove(&domid).map_or(0, |d| d.epoch);
        let known_there = |c: &Construct| c.known.contains_key(&domid);
        for id in self.table.ids(known_there) {
            let Some(construct) = self.table.get_mut(id) else {
                continue;
            };
            let mut had_region = false;
            if let Some(mut last) = construct.known.remove(&domid) {
                last.usage.nattch = 0;
                last.usage.resident = 0;
                construct.departed.merge(&last.usage);
                had_region = last.mapped;
            }
            if construct.meta.owner == domid {
                self.lose(id, peers);
            } else if construct.meta.state != State::Live as u32 {
                self.settle(id, None, peers);
            } else {
                keep(&mut self.keeper, construct);
                if construct.kind != Kind::Shm && had_region {
                    tell_departed(construct, domid, epoch, peers);
                }
            }
        }
    }

    /// A domain that was enrolled at an earlier registrar has asked for all that it knows. What it has
    /// not asked for, it does not know; if that is its own, it was made for a request that never got its
    /// answer.
    pub fn domain_resumed(&mut self, domid: Domid, peers: &mut dyn Peers) {
        let unknown = |c: &Construct| c.known.get(&domid).is_some_and(|k| k.presumed);
        for id in self.table.ids(unknown) {
            let Some(construct) = self.table.get_mut(id) else {
                continue;
            };
            construct.known.remove(&domid);
            if construct.meta.owner == domid {
                // Not told to it, which does not know it.
                let _ = self.destroy(id, Some(domid), peers);
            }
        }
        self.settle_restored(peers);
    }

    /// A domain that did not answer speaks again: what was kept on its account is looked at anew.
    pub fn domain_spoke(&mut self, domid: Domid, peers: &mut dyn Peers) {
        let waiting = |c: &Construct| {
            c.meta.state != State::Live as u32 && c.known.get(&domid).is_some_and(|k| k.silent)
        };
        for id in self.table.ids(waiting) {
            self.settle(id, None, peers);
        }
    }
}

/// Tells the owner of a set or queue that a domain which had the region is gone, so that what its
/// processes were doing there is brought to an end.
fn tell_departed(construct: &Construct, gone: Domid, epoch: u8, peers: &mut dyn Peers) {
    let query = LinkMsg {
        domid: gone,
        epoch: epoch.into(),
        ..LinkMsg::about(LinkOp::Departed, construct.meta)
    };
    // An owner that does not answer hears of it all the same, or is gone itself.
    let _ = peers.query(construct.meta.owner, &query);
}
