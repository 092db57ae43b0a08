// SPDX-License-Identifier: MIT OR Apache-2.0
//! Doorbells, as they are asked for: by clients, who have met a sleeper of another domain in a set or
//! queue, and by this daemon.

use super::whole::may_use;
use crate::front::answer::{Answer, Answered, Passed};
use crate::front::bells::{BellError, Numbers};
use crate::front::requests::{Asker, Service};
use rustix::io::Errno;
use vshmem_abi::link::{LinkMsg, LinkOp};
use vshmem_abi::wire::{BELL_WAKE, BELL_WAKE_ALL, Bell, Meta, Request};
use vshmem_abi::{Domid, Kind};
use vshmem_gnt::{GrantRef, LocalPort, Port, PortError, Region};

impl Service {
    /// The doorbell of the domain `request.arg`. Whom the client wants to wake is rung for here, whether
    /// or not it has room for the descriptors.
    pub fn bell(&mut self, kind: Kind, request: &Request, from: &Asker<'_>) -> Answered {
        let (slot, meta) = self.usable(kind, request.id)?;
        may_use(&meta, from)?;
        let other = request.arg;
        if self.domain.bells.with(other).is_none() {
            self.ask_for_bell(&meta, other)?;
        }
        let domain = &self.domain;
        let bell = domain.bells.with(other).ok_or(Errno::NODEV)?;
        match request.flags {
            BELL_WAKE => {
                let of_page = u32::try_from(request.size).map_err(|_| Errno::INVAL)?;
                bell.ring(Some(of_page), &domain.port);
            }
            BELL_WAKE_ALL => bell.ring(None, &domain.port),
            _ => {}
        }
        let notifier = domain.port.notifier(bell.channel());
        let (how, port) = notifier.map_err(PortError::errno)?.1.parts();
        let body = Bell {
            serial: bell.serial,
            how,
            port,
            direction: bell.direction() as u32,
            reserved: 0,
        };
        let memory = bell.page().how() as i32;
        Ok(Answer::with(memory, slot, &body)
            .and(Passed::BellPage(bell.serial))
            .and(Passed::Notifier(bell.serial)))
    }

    /// Takes up the doorbell that came with the place of a region; another one, if that was not meant
    /// for this `vshmemd` any more.
    ///
    /// # Errors
    /// That there is none: nobody would be woken across the two domains.
    pub fn take_up_bell(&mut self, meta: &Meta, place: &LinkMsg) -> Result<(), Errno> {
        let stale = [PortError::BadArgument, PortError::Refused, PortError::Gone];
        match self.take_up(place.domid, place) {
            Err(BellError::Port(error)) if stale.contains(&error) => {
                self.ask_for_bell(meta, place.domid)
            }
            taken => taken.map_err(BellError::errno),
        }
    }

    fn take_up(&mut self, other: Domid, place: &LinkMsg) -> Result<(), BellError> {
        let numbers: Numbers = (GrantRef(place.bell_gref), LocalPort(place.bell_port));
        let domain = &mut self.domain;
        let taken = domain.bells.take_up(other, numbers, &mut domain.port);
        taken.inspect_err(|error| {
            tracing::warn!(domain = other, %error, "cannot take up the doorbell of a domain");
        })
    }

    /// Asks domain `other`, with which this one shares the set or queue, for a doorbell.
    fn ask_for_bell(&mut self, meta: &Meta, other: Domid) -> Result<(), Errno> {
        let wanted = LinkMsg {
            domid: other,
            ..LinkMsg::about(LinkOp::Bell, *meta)
        };
        let offered = self.ask(&wanted)?;
        self.take_up(other, &offered).map_err(BellError::errno)
    }

    /// Rings for those whom this daemon could not wake yet.
    pub fn ring_missing(&mut self) {
        for missing in self.domain.bells.take_missing() {
            let Some((_, meta)) = self.domain.constructs.find(missing.id) else {
                continue;
            };
            // A number that a peer wrote there, as like as not, is none of a domain.
            if self.ask_for_bell(&meta, missing.domid).is_ok()
                && let Some(bell) = self.domain.bells.with(missing.domid)
            {
                bell.ring(missing.slot, &self.domain.port);
            }
        }
    }
}
