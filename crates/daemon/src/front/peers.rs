// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whom the memory of a construct is made for, where it can be granted to one other domain only (Xen).

use rustix::io::Errno;
use serde::Deserialize;
use vshmem_abi::Domid;
use vshmem_gnt::{AnyPort, Port};
use vshmem_registry::xenstore::library::{Library, OpenError};
use vshmem_registry::xenstore::{XenStore, paths};

/// A domain, as `peer` in `vshmem.toml` names it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged, expecting = "a peer is the name of a domain or its number")]
pub enum Peer {
    /// By its number, ready or not.
    Domid(u16),
    /// By its name.
    Name(String),
}

/// The other domains, and which of them to choose.
pub struct Peers {
    /// Where it stands who is ready; `None` where a region can be granted to any number of domains.
    store: Option<Box<dyn XenStore>>,
    own: Domid,
    wanted: Option<Peer>,
}

impl Peers {
    /// For the domain of this port, which is configured to share with `wanted`.
    ///
    /// # Errors
    /// On Xen, when there is no connection to XenStore to be had.
    pub fn of(port: &AnyPort, wanted: Option<Peer>) -> Result<Self, OpenError> {
        let store: Option<Box<dyn XenStore>> = match port {
            AnyPort::Host(_) => None,
            AnyPort::Xen(_) => Some(Box::new(Library::open()?)),
        };
        Ok(Self {
            store,
            own: port.domid(),
            wanted,
        })
    }

    /// The domain to make a region for: the one that is configured; else the only other one that is ready,
    /// or the one with the lowest number. `None`: there is none.
    pub fn choose(&self) -> Option<Domid> {
        let store = self.store.as_deref()?;
        let chosen = match &self.wanted {
            Some(Peer::Domid(domid)) => Some((*domid).into()),
            Some(Peer::Name(name)) => self.others(store).into_iter().find(|domid| {
                let path = paths::of_domain(paths::READY_DOMAIN, *domid);
                store.read(&path).is_ok_and(|read| read == name.as_bytes())
            }),
            None => self.others(store).into_iter().min(),
        };
        if chosen.is_none() {
            tracing::info!(
                "no other domain is ready that memory could be made for: what is made now is this \
                 domain's alone"
            );
        }
        chosen
    }

    /// The other domains that are ready.
    fn others(&self, store: &dyn XenStore) -> Vec<Domid> {
        let ready = store.directory(paths::READY).unwrap_or_else(|errno| {
            // Before the back-end's first start there is no such node.
            if errno != Errno::NOENT {
                tracing::warn!(%errno, "cannot read from XenStore which domains are ready");
            }
            Vec::new()
        });
        let ready = ready.iter().filter_map(|name| name.parse().ok());
        ready.filter(|domid| *domid != self.own).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::rc::Rc;
    use vshmem_registry::xenstore::Books;
    use vshmem_registry::xenstore::fake::FakeStore;

    /// Whom domain 3 chooses when these are ready.
    fn chosen(ready: &[(Domid, &str)], wanted: Option<Peer>) -> Option<Domid> {
        let store = FakeStore::new();
        let books = Books::open(Rc::new(store.connect(0))).unwrap();
        for &(domid, name) in ready {
            store.introduce(domid, name);
            books.announce(domid, name).unwrap();
        }
        let peers = Peers {
            store: Some(Box::new(store.connect(3))),
            own: 3,
            wanted,
        };
        peers.choose()
    }

    const THREE: [(Domid, &str); 3] = [(11, "eleven"), (5, "five"), (3, "three")];

    #[test]
    fn without_a_configured_one_the_ready_domain_with_the_lowest_number_is_chosen() {
        assert_eq!(chosen(&THREE, None), Some(5));
        assert_eq!(chosen(&[(3, "three"), (11, "eleven")], None), Some(11));
        assert_eq!(chosen(&[(3, "three")], None), None);
        assert_eq!(chosen(&[], None), None);
    }

    #[test]
    fn a_configured_domain_is_chosen_by_its_name_once_it_is_ready_and_no_other() {
        let name = |name: &str| Some(Peer::Name(name.to_owned()));
        assert_eq!(chosen(&THREE, name("eleven")), Some(11));
        assert_eq!(chosen(&THREE, name("twelve")), None);
        assert_eq!(chosen(&THREE, name("three")), None);
    }

    #[test]
    fn a_configured_domain_is_chosen_by_its_number_ready_or_not() {
        assert_eq!(chosen(&THREE, Some(Peer::Domid(12))), Some(12));
    }
}
