// SPDX-License-Identifier: MIT OR Apache-2.0
//! Whom the memory of a construct is made for, where it can be granted to one other domain only (Xen).

use std::collections::BTreeMap;
use vshmem_abi::Domid;
use vshmem_config::DomainSpec;

/// The other domains, and which of them to choose.
#[derive(Debug, Default)]
pub struct Peers {
    wanted: Option<DomainSpec>,
    /// Those that are ready, with their names.
    ready: BTreeMap<Domid, String>,
    /// The log says that there is none to choose.
    missed: bool,
}

impl Peers {
    /// None yet; to share with `wanted` is configured.
    pub fn new(wanted: Option<DomainSpec>) -> Self {
        Self {
            wanted,
            ..Self::default()
        }
    }

    /// From now on to share with `wanted` is configured.
    pub fn want(&mut self, wanted: Option<DomainSpec>) {
        self.wanted = wanted;
        self.missed = false;
    }

    /// These are ready now.
    pub fn are_ready(&mut self, ready: BTreeMap<Domid, String>) {
        tracing::debug!(?ready, "other domains that are ready");
        self.ready = ready;
        self.missed = false;
    }

    /// The domain to make a region for: the one that is configured; else the only other one that is ready,
    /// or the one with the lowest number. `None`: there is none.
    pub fn choose(&mut self) -> Option<Domid> {
        let chosen = match &self.wanted {
            Some(DomainSpec::Domid(domid)) => Some((*domid).into()),
            Some(DomainSpec::Name(wanted)) => {
                let mut ready = self.ready.iter();
                let found = ready.find(|(_, name)| *name == wanted);
                found.map(|(domid, _)| *domid)
            }
            None => self.ready.keys().next().copied(),
        };
        if chosen.is_none() && !std::mem::replace(&mut self.missed, true) {
            tracing::info!(
                "no other domain is ready that memory could be made for: what is made now is this \
                 domain's alone"
            );
        }
        chosen
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whom a domain chooses when these others are ready.
    fn chosen(ready: &[(Domid, &str)], wanted: Option<DomainSpec>) -> Option<Domid> {
        let mut peers = Peers::new(wanted);
        let ready = ready
            .iter()
            .map(|(domid, name)| (*domid, (*name).to_owned()));
        peers.are_ready(ready.collect());
        peers.choose()
    }

    const TWO: [(Domid, &str); 2] = [(11, "eleven"), (5, "five")];

    #[test]
    fn without_a_configured_one_the_ready_domain_with_the_lowest_number_is_chosen() {
        assert_eq!(chosen(&TWO, None), Some(5));
        assert_eq!(chosen(&TWO[..1], None), Some(11));
        assert_eq!(chosen(&[], None), None);
    }

    #[test]
    fn a_configured_domain_is_chosen_by_its_name_once_it_is_ready_and_no_other() {
        let name = |name: &str| Some(DomainSpec::Name(name.to_owned()));
        assert_eq!(chosen(&TWO, name("eleven")), Some(11));
        assert_eq!(chosen(&TWO, name("twelve")), None);
    }

    #[test]
    fn a_configured_domain_is_chosen_by_its_number_ready_or_not() {
        assert_eq!(chosen(&TWO, Some(DomainSpec::Domid(12))), Some(12));
    }
}
