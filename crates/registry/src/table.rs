// SPDX-License-Identifier: MIT OR Apache-2.0
//! The constructs, and the three ways to find one: by id, by key, by index.

use crate::keeper::Kept;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use vshmem_abi::ids::IPC_PRIVATE;
use vshmem_abi::limits::DIR_SLOTS;
use vshmem_abi::wire::{Meta, Totals, Usage};
use vshmem_abi::{Domid, Kind, pages};

/// A domain that knows a construct.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Known {
    /// Its use there, as last heard.
    pub usage: Usage,
    /// Whether it has been told where the region is, or owns it: no other domain can have
    /// anything attached.
    pub mapped: bool,
    /// Whether it did not answer when it was last asked.
    pub silent: bool,
    /// It was there before this registrar, and has not said whether it knows the construct.
    pub presumed: bool,
}

#[derive(Debug)]
pub(crate) struct Construct {
    pub kind: Kind,
    pub meta: Meta,
    pub known: BTreeMap<Domid, Known>,
    /// Times and pids from domains that are gone; nothing is attached there.
    pub departed: Usage,
}

impl Construct {
    /// Whether something is, or may be, attached anywhere. A domain that has the region and does
    /// not say counts as attached: taking memory away from a program is worse than keeping it
    /// until the domain speaks or dies.
    pub fn in_use(&self) -> bool {
        let attached = |k: &Known| k.usage.nattch > 0 || (k.silent && k.mapped);
        self.known.values().any(attached)
    }

    /// A domain knows it: what was only presumed of that domain is so no more.
    pub fn learnt_by(&mut self, domid: Domid) -> &mut Known {
        let known = self.known.entry(domid).or_default();
        if std::mem::take(&mut known.presumed) {
            known.mapped = false;
        }
        known
    }

    /// What is to be kept of it.
    pub fn kept(&self) -> Kept {
        Kept {
            meta: self.meta,
            departed: self.departed,
        }
    }
}

#[derive(Debug, Default)]
struct Indices {
    used: BTreeMap<u32, i32>,
    /// Unused ones below `next`.
    holes: BTreeSet<u32>,
    next: u32,
    pages: u64,
}

/// All constructs of a machine.
#[derive(Debug, Default)]
pub(crate) struct Table {
    by_id: HashMap<i32, Construct>,
    keys: HashMap<(Kind, i32), i32>,
    kinds: [Indices; 3],
    /// By kind, what each domain owns.
    made: HashMap<(Domid, Kind), Made>,
}

/// What a domain owns of a kind.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Made {
    /// How many constructs.
    pub count: u64,
    /// What they count against limits of all together: pages of segments, semaphores of sets.
    pub weight: u64,
}

impl Table {
    fn indices(&self, kind: Kind) -> &Indices {
        &self.kinds[kind as usize - 1]
    }

    fn indices_mut(&mut self, kind: Kind) -> &mut Indices {
        &mut self.kinds[kind as usize - 1]
    }

    pub fn get(&self, id: i32) -> Option<&Construct> {
        self.by_id.get(&id)
    }

    pub fn get_mut(&mut self, id: i32) -> Option<&mut Construct> {
        self.by_id.get_mut(&id)
    }

    /// The construct that `key` finds; `IPC_PRIVATE` finds none.
    pub fn by_key(&self, kind: Kind, key: i32) -> Option<i32> {
        self.keys.get(&(kind, key)).copied()
    }

    /// The construct with the lowest index from `index` on.
    pub fn lowest_from(&self, kind: Kind, index: u32) -> Option<i32> {
        let mut from = self.indices(kind).used.range(index..);
        from.next().map(|(_, id)| *id)
    }

    /// The construct with this index.
    pub fn at_index(&self, kind: Kind, index: u32) -> Option<i32> {
        self.indices(kind).used.get(&index).copied()
    }

    /// The ids that satisfy `wanted`, in no order.
    pub fn ids(&self, wanted: impl Fn(&Construct) -> bool) -> Vec<i32> {
        let mut ids = Vec::new();
        ids.extend(self.by_id.values().filter(|c| wanted(c)).map(|c| c.meta.id));
        ids
    }

    /// Whether the directories have no room for another construct.
    pub fn is_full(&self) -> bool {
        self.by_id.len() >= DIR_SLOTS
    }

    /// What there is of a kind; `resident` is left 0.
    pub fn totals(&self, kind: Kind) -> Totals {
        let indices = self.indices(kind);
        Totals {
            used: indices.used.len() as u64,
            indices: indices.used.last_key_value().map_or(0, |(i, _)| *i) as u64
                + u64::from(!indices.used.is_empty()),
            pages: indices.pages,
            resident: 0,
        }
    }

    /// What a domain owns of a kind.
    pub fn made(&self, owner: Domid, kind: Kind) -> Made {
        self.made.get(&(owner, kind)).copied().unwrap_or_default()
    }

    /// Adds a construct under `meta.id`, which is free, and gives it the lowest free index.
    pub fn insert(&mut self, kind: Kind, mut meta: Meta) -> &mut Construct {
        let indices = self.indices_mut(kind);
        meta.index = indices.holes.pop_first().unwrap_or_else(|| {
            indices.next += 1;
            indices.next - 1
        });
        indices.used.insert(meta.index, meta.id);
        indices.pages = indices.pages.saturating_add(weight(kind, &meta));
        self.enter(kind, meta, Usage::default())
    }

    /// Adds a construct as it was kept, with its index. `None`: that makes no sense, or something is in
    /// its place already.
    pub fn restore(&mut self, kept: &Kept) -> Option<&mut Construct> {
        let Kept { meta, departed } = *kept;
        let kind = Kind::from_raw(meta.kind)?;
        let indices = self.indices_mut(kind);
        if meta.index as usize >= DIR_SLOTS || indices.used.contains_key(&meta.index) {
            return None;
        }
        indices.holes.remove(&meta.index);
        indices.holes.extend(indices.next..meta.index);
        indices.next = indices.next.max(meta.index + 1);
        indices.used.insert(meta.index, meta.id);
        indices.pages = indices.pages.saturating_add(weight(kind, &meta));
        Some(self.enter(kind, meta, departed))
    }

    fn enter(&mut self, kind: Kind, meta: Meta, departed: Usage) -> &mut Construct {
        if meta.key != IPC_PRIVATE {
            self.keys.insert((kind, meta.key), meta.id);
        }
        let made = self.made.entry((meta.owner, kind)).or_default();
        made.count += 1;
        made.weight = made.weight.saturating_add(weight(kind, &meta));
        let construct = Construct {
            kind,
            meta,
            known: BTreeMap::new(),
            departed,
        };
        self.by_id.entry(meta.id).insert_entry(construct).into_mut()
    }

    /// Takes the key away from a construct, which lives on without.
    pub fn free_key(&mut self, id: i32) {
        if let Some(construct) = self.by_id.get_mut(&id)
            && construct.meta.key != IPC_PRIVATE
        {
            self.keys.remove(&(construct.kind, construct.meta.key));
            construct.meta.key = IPC_PRIVATE;
        }
    }

    /// Forgets a construct: its key, id and index are free at once.
    pub fn remove(&mut self, id: i32) -> Option<Construct> {
        self.free_key(id);
        let construct = self.by_id.remove(&id)?;
        let (kind, meta) = (construct.kind, construct.meta);
        let indices = self.indices_mut(kind);
        indices.used.remove(&meta.index);
        indices.holes.insert(meta.index);
        indices.pages -= weight(kind, &meta);
        if let Some(made) = self.made.get_mut(&(meta.owner, kind)) {
            made.count -= 1;
            made.weight = made.weight.saturating_sub(weight(kind, &meta));
            if made.count == 0 {
                self.made.remove(&(meta.owner, kind));
            }
        }
        Some(construct)
    }
}

/// What a construct counts against the limit of all of its kind: pages of a segment (SHMALL),
/// semaphores of a set (SEMMNS).
fn weight(kind: Kind, meta: &Meta) -> u64 {
    match kind {
        Kind::Shm => pages(meta.size).unwrap_or(u64::MAX),
        Kind::Sem => meta.size,
        Kind::Msg => 0,
    }
}
