// SPDX-License-Identifier: MIT OR Apache-2.0
//! The constructs that the domain knows: the directory that clients read, and beside it what
//! `vshmemd` alone needs: the region, to whom it is granted, and how the dead have used it.

use super::maps::FileId;
use super::shared::{Shared, source};
use crate::metrics::counts::Calls;
use std::collections::HashMap;
use std::os::fd::BorrowedFd;
use vshmem_abi::ids::Domid;
use vshmem_abi::limits::MsgLimits;
use vshmem_abi::wire::{Meta, State, Totals, Usage};
use vshmem_abi::{Kind, PAGE_SIZE, pages};
use vshmem_engine::directory::DirectoryWriter;
use vshmem_engine::mapping::{How, Source};
use vshmem_engine::msgq::QueueMap;
use vshmem_engine::set::SetMap;
use vshmem_gnt::{AnyRegion, GrantRef, Port, PortError, Region};

/// A grant of a region.
#[derive(Clone, Copy)]
struct Granted {
    to: Domid,
    /// Whether that domain may not write.
    read_only: bool,
    gref: GrantRef,
}

/// What is known of one construct beside its entry in the directory.
#[derive(Default)]
pub struct Known {
    /// Slot in the directory.
    pub slot: u32,
    /// Own, or mapped from another domain when a client first needed it.
    region: Option<AnyRegion>,
    /// The same region, if it is a set's or a queue's, for what is done on behalf of the dead.
    shared: Option<Shared>,
    file: Option<FileId>,
    grants: Vec<Granted>,
    /// Times and pid of the last attach or detach of clients that are gone; `nattch` is 0.
    pub retained: Usage,
}

impl Known {
    /// The file behind the region, if we have it or had it, and mappings of it can be told from those of others: a
    /// device is one file for all regions.
    pub fn file(&self) -> Option<FileId> {
        self.file
    }

    /// The region as whoever maps it gets it, if it is at hand.
    pub fn source(&self) -> Option<Source<'_>> {
        self.region.as_ref().map(source)
    }

    /// Whether futexes work in the region, as far as it is at hand.
    pub fn has_futexes(&self) -> bool {
        self.region.as_ref().is_none_or(Region::has_futexes)
    }

    /// Whether those who sleep here have to be woken by way of doorbells.
    pub fn needs_bells(&self) -> bool {
        self.shared.is_some() && !self.has_futexes()
    }

    /// Whether the region is at hand and this domain may only read it.
    pub fn is_read_only(&self) -> bool {
        self.region.as_ref().is_some_and(Region::is_read_only)
    }

    /// The region's descriptor, for all that this domain may do with it, if it is at hand.
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.region.as_ref().map(Region::fd)
    }

    /// The set or queue, if it is one and its region is at hand.
    pub fn shared(&self) -> Option<&Shared> {
        self.shared.as_ref()
    }

    /// The same, of a set only.
    pub fn set(&self) -> Option<&SetMap> {
        self.shared()?.set()
    }

    /// The same, of a queue only.
    pub fn queue(&self) -> Option<&QueueMap> {
        self.shared()?.queue()
    }

    /// Calls that were done in it, if it is a set or queue and its region is at hand.
    pub fn calls(&self) -> Calls {
        self.shared().map_or(Calls::default(), Shared::calls)
    }

    /// To whom it is granted, and by which grants.
    pub fn grants(&self) -> impl Iterator<Item = (Domid, u32)> {
        self.grants.iter().map(|grant| (grant.to, grant.gref.0))
    }

    /// Pages of the region that are in memory, as far as it is at hand.
    pub fn resident(&self) -> u64 {
        let Some(source) = self.source() else {
            return 0;
        };
        if self.file.is_none() {
            // What is granted is in memory.
            return source.len / PAGE_SIZE;
        }
        // Blocks are of 512 bytes whatever the file system.
        rustix::fs::fstat(source.fd).map_or(0, |stat| stat.st_blocks as u64 / 8)
    }

    /// Lets domain `to` map the region, perhaps for reading only; a second time it is the same grant.
    ///
    /// # Errors
    /// What the port says; `BadArgument` when the region is not at hand.
    pub fn grant(
        &mut self,
        port: &mut impl Port<Region = AnyRegion>,
        to: Domid,
        read_only: bool,
    ) -> Result<GrantRef, PortError> {
        let is_it = |grant: &&Granted| (grant.to, grant.read_only) == (to, read_only);
        if let Some(grant) = self.grants.iter().find(is_it) {
            return Ok(grant.gref);
        }
        let region = self.region.as_ref().ok_or(PortError::BadArgument)?;
        let gref = match read_only {
            true => port.grant_read_only(region, to)?,
            false => port.grant(region, to)?,
        };
        self.grants.push(Granted {
            to,
            read_only,
            gref,
        });
        Ok(gref)
    }

    /// Frees the memory and ends the grants. Nobody has the construct attached any more.
    pub fn release(self, port: &mut impl Port<Region = AnyRegion>) {
        for Granted { to, gref, .. } in self.grants {
            if let Err(error) = port.end_grant(gref) {
                tracing::debug!(domid = to, %error, "a grant ended before");
            }
        }
        if let Some(region) = self.region {
            region.release();
        }
    }
}

/// The constructs by id.
pub struct Constructs {
    directory: DirectoryWriter,
    known: HashMap<i32, Known>,
}

impl Constructs {
    /// None yet.
    pub fn new(directory: DirectoryWriter) -> Self {
        Self {
            directory,
            known: HashMap::new(),
        }
    }

    /// Tells clients what the limits of queues are raised to.
    pub fn tell_limits(&mut self, raised: &MsgLimits) {
        self.directory.tell_limits(raised);
    }

    /// The directory's descriptor, to pass to clients.
    pub fn directory_fd(&self) -> BorrowedFd<'_> {
        self.directory.fd()
    }

    /// The construct `id` with its slot, whatever its state.
    pub fn find(&self, id: i32) -> Option<(u32, Meta)> {
        self.directory.find(id)
    }

    /// The construct that `key` names.
    pub fn find_key(&self, kind: Kind, key: i32) -> Option<(u32, Meta)> {
        self.directory.find_key(kind, key)
    }

    /// What is known of `id` beside that.
    pub fn get(&self, id: i32) -> Option<&Known> {
        self.known.get(&id)
    }

    /// The same, to change.
    pub fn get_mut(&mut self, id: i32) -> Option<&mut Known> {
        self.known.get_mut(&id)
    }

    /// All that are known, by id.
    pub fn iter(&self) -> impl Iterator<Item = (i32, &Known)> {
        self.known.iter().map(|(&id, known)| (id, known))
    }

    /// Those of this domain itself, `domid`.
    pub fn own(&self, domid: Domid) -> impl Iterator<Item = &Known> {
        let is_own = move |id| self.find(id).is_some_and(|(_, meta)| meta.owner == domid);
        self.iter()
            .filter(move |(id, _)| is_own(*id))
            .map(|(_, known)| known)
    }

    /// The same, to change.
    pub fn iter_mut(&mut self) -> impl Iterator<Item = (i32, &mut Known)> {
        self.known.iter_mut().map(|(&id, known)| (id, known))
    }

    /// Enters a construct, or what has changed of it; returns its slot. `None`: the directory
    /// is full.
    pub fn learn(&mut self, meta: &Meta) -> Option<u32> {
        let slot = self.directory.insert(meta)?;
        self.known.entry(meta.id).or_default().slot = slot;
        Some(slot)
    }

    /// Changes an entry that is there.
    pub fn update(&mut self, slot: u32, meta: &Meta) {
        self.directory.update(slot, meta);
    }

    /// Keeps the region of a construct that was learnt; of a set or queue the mapping too.
    pub fn hold(&mut self, id: i32, region: AnyRegion, shared: Option<Shared>) {
        if let Some(known) = self.known.get_mut(&id) {
            known.file = match region.how() {
                How::Direct => FileId::of(region.fd()),
                How::Grants => None,
            };
            known.region = Some(region);
            known.shared = shared;
        }
    }

    /// Gives up the hold on a region without freeing it.
    pub fn let_go(&mut self, id: i32) {
        if let Some(known) = self.known.get_mut(&id) {
            known.region = None;
            known.shared = None;
        }
    }

    /// Takes a construct out for good.
    pub fn remove(&mut self, id: i32) -> Option<Known> {
        let known = self.known.remove(&id)?;
        self.directory.remove(known.slot);
        Some(known)
    }

    /// All of `kind` that this domain knows, together: for when the back-end cannot be asked.
    pub fn totals(&self, kind: Kind) -> Totals {
        let mut totals = Totals::default();
        for (&id, known) in &self.known {
            let Some((_, meta)) = self.find(id) else {
                continue;
            };
            if meta.kind == kind as u32 && meta.state != State::Free as u32 {
                totals.used += 1;
                totals.indices = totals.indices.max(u64::from(meta.index) + 1);
                let (pages, resident) = match kind {
                    Kind::Shm => (pages(meta.size).unwrap_or(0), known.resident()),
                    Kind::Sem => (meta.size, 0),
                    Kind::Msg => {
                        let status = known.queue().map(|queue| queue.region().status());
                        status.map_or((0, 0), |status| (status.qnum, status.cbytes))
                    }
                };
                totals.pages += pages;
                totals.resident += resident;
            }
        }
        totals
    }
}
