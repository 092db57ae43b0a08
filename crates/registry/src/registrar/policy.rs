// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the policy says to a request, and what is told of one that it refuses.
//!
//! It is asked when a domain gets to know a construct, when it is told where the memory is, and when
//! it wants to change or list something. A construct is judged by the key that it was made with. With
//! what a domain owns it does as it likes: that is its own memory.

use super::Registrar;
use crate::env::Environment;
use crate::keeper::Keeper;
use crate::table::Construct;
use rustix::io::Errno;
use vshmem_abi::ids::IPC_PRIVATE;
use vshmem_abi::link::LinkMsg;
use vshmem_abi::{Domid, Kind, PAGE_SIZE};
use vshmem_config::Policy;
use vshmem_config::policy::{Access, Who};

/// A request that the policy has refused, for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// Who asked.
    pub domid: Domid,
    /// Its name.
    pub name: String,
    /// Who, what, why, and what to do about it: one line.
    pub text: String,
}

/// What a domain wants to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// Find it, read it, write to it: how, the memory decides that it gets.
    Use,
    /// Change or remove it.
    Change,
    /// Make it.
    Make,
}

impl<E: Environment, K: Keeper> Registrar<E, K> {
    /// This is the policy from now on. What domains have of what it does not allow them any more,
    /// they keep.
    pub fn set_policy(&mut self, policy: Policy) {
        self.policy = policy;
    }

    /// What the policy has refused of the last request, if it has.
    pub fn take_refusal(&mut self) -> Option<Refusal> {
        self.refusal.take()
    }

    /// What a domain may do with a construct of `kind` that was made with `key` by another.
    pub(super) fn access(&self, domid: Domid, kind: Kind, key: i32) -> Access {
        self.policy.verdict(self.who(domid), kind, key).access
    }

    /// Whether a construct is to be there for a domain that looks what there is.
    pub(super) fn may_see(&self, from: Domid, construct: &Construct) -> bool {
        let (kind, key) = (construct.kind, construct.meta.made_with);
        construct.meta.owner == from || self.access(from, kind, key) != Access::None
    }

    fn who(&self, domid: Domid) -> Who<'_> {
        let enrolled = self.domains.get(&domid);
        Who {
            domid: Some(domid),
            name: enrolled.map(|domain| domain.name.as_str()),
        }
    }

    /// Whether a domain may do what it asks to do with the construct of a request.
    ///
    /// # Errors
    /// `EINVAL` when there is none; `EACCES`.
    pub(super) fn permit_on(
        &mut self,
        from: Domid,
        request: &LinkMsg,
        wanted: Wanted,
    ) -> Result<Access, Errno> {
        let construct = self.construct(request)?;
        let (kind, key, owner) = (
            construct.kind,
            construct.meta.made_with,
            construct.meta.owner,
        );
        self.permit(from, (kind, key), Some(owner), wanted)
    }

    /// Whether a domain may do that with a construct of this kind and key, and what it may do at all.
    /// `owner` is whose it is, where it is there.
    ///
    /// # Errors
    /// `EACCES`.
    pub(super) fn permit(
        &mut self,
        from: Domid,
        (kind, key): (Kind, i32),
        owner: Option<Domid>,
        wanted: Wanted,
    ) -> Result<Access, Errno> {
        if owner == Some(from) {
            return Ok(Access::ReadWrite);
        }
        let verdict = self.policy.verdict(self.who(from), kind, key);
        let needed = match wanted {
            Wanted::Use => Access::ReadOnly,
            Wanted::Change | Wanted::Make => Access::ReadWrite,
        };
        if verdict.access >= needed {
            return Ok(verdict.access);
        }
        let to_do = match wanted {
            Wanted::Use => "use",
            Wanted::Change => "change or remove",
            Wanted::Make => "make",
        };
        let with = match key {
            IPC_PRIVATE => "IPC_PRIVATE".to_owned(),
            key => format!("key {key:#010x}"),
        };
        let why = self.policy.reason(&verdict);
        let kind = noun(kind);
        self.refuse(from, |who| {
            format!("{who} may not {to_do} a {kind} of {with}: {why}; if it is to, change that")
        });
        Err(Errno::ACCESS)
    }

    /// Whether a domain may own one more construct of `kind`, which takes so many pages or semaphores.
    ///
    /// # Errors
    /// `ENOSPC`.
    pub(super) fn check_limits(
        &mut self,
        from: Domid,
        kind: Kind,
        weight: u64,
    ) -> Result<(), Errno> {
        let Some(rule) = self.policy.limits_of(self.who(from)) else {
            return Ok(());
        };
        let made = |kind| self.table.made(from, kind);
        let all: u64 = [Kind::Shm, Kind::Sem, Kind::Msg]
            .map(|kind| made(kind).count)
            .iter()
            .sum();
        let of_kind = |name| (name, made(kind).count, 1);
        let (count, amount) = match kind {
            Kind::Shm => {
                let bytes = |pages: u64| pages.saturating_mul(PAGE_SIZE);
                let had = bytes(made(kind).weight);
                (of_kind("segments"), Some(("bytes", had, bytes(weight))))
            }
            Kind::Sem => {
                let had = made(kind).weight;
                (of_kind("sets"), Some(("semaphores", had, weight)))
            }
            Kind::Msg => (of_kind("queues"), None),
        };
        let wanted = [Some(("constructs", all, 1)), Some(count), amount];
        let exceeded = rule.limits.named().find_map(|(name, most)| {
            let mut wanted = wanted.iter().flatten();
            let (_, had, more) = *wanted.find(|(limited, ..)| *limited == name)?;
            (had.saturating_add(more) > most).then_some((name, most, had, more))
        });
        let Some((name, most, had, more)) = exceeded else {
            return Ok(());
        };
        let place = format!("{}:{}", self.policy.file().display(), rule.line);
        let kind = noun(kind);
        self.refuse(from, |who| {
            format!(
                "{who} may not make another {kind}: it has {had} {name} and wants {more} more, and the \
                 limit of {place} says {name} = {most}; remove what is not needed (vshmem rm --orphans), \
                 or raise that"
            )
        });
        Err(Errno::NOSPC)
    }

    fn refuse(&mut self, domid: Domid, text: impl FnOnce(&str) -> String) {
        let name = self.who(domid).name.unwrap_or_default().to_owned();
        let text = text(&format!("domain {name} ({domid})"));
        self.refusal = Some(Refusal { domid, name, text });
    }
}

/// What a construct is called.
const fn noun(kind: Kind) -> &'static str {
    match kind {
        Kind::Shm => "segment",
        Kind::Sem => "semaphore set",
        Kind::Msg => "message queue",
    }
}
