// SPDX-License-Identifier: MIT OR Apache-2.0
//! Going on at a back-end that was started anew: what the domain asks it, and what follows from the
//! answers. It has kept the constructs; what has changed while it was away, and which domains have
//! gone, the domain asks of all that it knows.

use super::domain::Domain;
use rustix::io::Errno;
use std::collections::BTreeSet;
use vshmem_abi::Domid;
use vshmem_abi::link::{LinkMsg, LinkOp};
use vshmem_abi::wire::{Meta, State};

/// The domains that have had a region of this one, each in its epoch.
#[derive(Debug, Default)]
pub struct Partners(BTreeSet<(Domid, u8, i32)>);

impl Partners {
    /// Domain `domid` may map the region of `id`.
    pub fn note(&mut self, id: i32, domid: Domid, epoch: u8) {
        self.0.insert((domid, epoch, id));
    }

    /// It is gone in this epoch.
    pub fn forget(&mut self, id: i32, domid: Domid, epoch: u8) {
        self.0.remove(&(domid, epoch, id));
    }
}

impl Domain {
    /// What a back-end that was started anew is to be asked.
    pub fn questions(&self) -> Vec<LinkMsg> {
        let find = |id: i32| {
            let meta = Meta {
                id,
                ..Meta::default()
            };
            let at_hand = self.constructs.get(id).is_some_and(|k| k.fd().is_some());
            LinkMsg {
                flags: at_hand.into(),
                ..LinkMsg::about(LinkOp::Find, meta)
            }
        };
        let there = |id: i32| {
            let found = self.constructs.find(id);
            found.is_some_and(|(_, meta)| meta.state != State::Free as u32)
        };
        let constructs = self.constructs.iter().map(|(id, _)| id);
        let mut questions: Vec<LinkMsg> = constructs.filter(|id| there(*id)).map(find).collect();
        let partners: BTreeSet<(Domid, u8)> =
            self.partners.0.iter().map(|(d, e, _)| (*d, *e)).collect();
        questions.extend(partners.into_iter().map(|(domid, epoch)| LinkMsg {
            domid,
            epoch: epoch.into(),
            ..LinkMsg::new(LinkOp::Enrolled)
        }));
        questions
    }

    /// Hears the answer to one of these.
    pub fn told(&mut self, question: &LinkMsg, answer: Result<&LinkMsg, Errno>) {
        let id = question.meta.id;
        match LinkOp::from_raw(question.op) {
            Some(LinkOp::Find) => match answer {
                Ok(answer) if answer.meta.id == id => drop(self.changed(&answer.meta)),
                Ok(_) | Err(Errno::INVAL) => self.forget(id),
                Err(errno) => tracing::warn!(id, %errno, "what has become of it is not known"),
            },
            Some(LinkOp::Enrolled) if answer.err() == Some(Errno::NOENT) => {
                let gone = |(d, e, _): &&(Domid, u8, i32)| {
                    *d == question.domid && u32::from(*e) == question.epoch
                };
                let gone: Vec<_> = self.partners.0.iter().filter(gone).copied().collect();
                for (domid, epoch, id) in gone {
                    self.departed(id, domid, epoch);
                }
            }
            _ => {}
        }
    }
}
