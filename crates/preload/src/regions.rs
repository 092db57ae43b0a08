// SPDX-License-Identifier: MIT OR Apache-2.0
//! Descriptors of regions, kept for the next attach of the same segment.

use crate::message;
use crate::own_fd::OwnFd;
use rustix::fd::OwnedFd;
use rustix::io::Errno;
use std::ffi::c_int;
use std::sync::atomic::AtomicBool;
use vshmem_engine::mapping::{How, MapError, Source};

static SAID_REFUSED: AtomicBool = AtomicBool::new(false);

/// A segment's region, opened for one kind of access.
pub struct Region {
    id: i32,
    writable: bool,
    fd: OwnFd,
    how: How,
    len: u64,
}

impl Region {
    /// The region to be mapped, if its descriptor is still ours.
    pub fn source(&self) -> Option<Source<'_>> {
        Some(Source {
            fd: self.fd.get()?,
            how: self.how,
            len: self.len,
        })
    }
}

/// The regions of the last few segments that were opened.
pub struct Regions {
    places: [Option<Region>; 4],
    next: usize,
}

impl Regions {
    /// None yet.
    pub const fn new() -> Self {
        Self {
            places: [const { None }; 4],
            next: 0,
        }
    }

    /// Takes over the descriptor of the region of `id`, of `len` bytes.
    ///
    /// # Errors
    /// As [`OwnFd::new`].
    pub fn own(
        &mut self,
        id: i32,
        writable: bool,
        fd: OwnedFd,
        how: How,
        len: u64,
    ) -> Result<Region, Errno> {
        // The new descriptor may get the number of one that the program has closed, and lead to
        // the same file: it must not be taken for that one when that one is dropped.
        for place in &mut self.places {
            if place.as_ref().is_some_and(|old| old.fd.get().is_none()) {
                *place = None;
            }
        }
        Ok(Region {
            id,
            writable,
            fd: OwnFd::new(fd)?,
            how,
            len,
        })
    }

    /// Keeps a region for the next attach. A device is not kept: should the program mix up our descriptors, another
    /// region might be mapped in place of this one.
    pub fn keep(&mut self, region: Region) {
        if region.fd.is_device() {
            return;
        }
        if let Some(place) = self.places.get_mut(self.next) {
            *place = Some(region);
        }
        self.next = (self.next + 1) % self.places.len();
    }

    /// The region of `id` that was kept, opened for just this access.
    pub fn kept(&self, id: i32, writable: bool) -> Option<Source<'_>> {
        let mut kept = self.places.iter().flatten();
        kept.find_map(|region| {
            let fits = region.id == id && region.writable == writable;
            region.source().filter(|_| fits)
        })
    }

    /// Closes what is kept of the segment `id`.
    pub fn drop_region(&mut self, id: i32) {
        self.drop_if(|region| region.id == id);
    }

    /// Closes all.
    pub fn clear(&mut self) {
        self.drop_if(|_| true);
    }

    /// Closes those whose descriptors `which` names; whether there were any.
    pub fn free_numbers(&mut self, which: impl Fn(&OwnFd) -> bool) -> bool {
        self.drop_if(|region| which(&region.fd))
    }

    fn drop_if(&mut self, which: impl Fn(&Region) -> bool) -> bool {
        let mut dropped = false;
        for place in &mut self.places {
            if place.as_ref().is_some_and(&which) {
                *place = None;
                dropped = true;
            }
        }
        dropped
    }
}

/// The errno for a region that cannot be mapped. Says what is to be done, if that is not for the program to do.
pub fn refused(error: MapError) -> c_int {
    match error {
        MapError::Os(_) => {}
        MapError::Device(_) | MapError::TooLarge | MapError::Stale | MapError::ReadOnly => {
            message::say_once(
                &SAID_REFUSED,
                format_args!("cannot map memory of another domain: {error}"),
            );
        }
    }
    error.errno().raw_os_error()
}
