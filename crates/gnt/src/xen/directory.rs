// SPDX-License-Identifier: MIT OR Apache-2.0
//! How the references of a region's pages get to whoever maps it: the owner's `vshmemd` writes them
//! into a **grant directory**, pages that it grants as well; the other one reads it, believing nothing, and
//! makes a **grant list** for its clients (layouts: [`vshmem_abi::grants`]).

use super::libs::{Mapper, Pages, Sharer};
use super::to_error;
use crate::host::memory::memfd;
use crate::port::{Limit, PortError};
use rustix::fs::SealFlags;
use rustix::io::Errno;
use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::sync::atomic::Ordering;
use vshmem_abi::grants::{
    DIRECTORY_MAGIC, DIRECTORY_REFS, DirectoryPage, GrantRef, LIST_MAGIC, ListHead, MapGrantRef,
    READ_ONLY, list_bytes,
};
use vshmem_abi::limits::setting;
use vshmem_abi::{Domid, PAGE_SIZE};
use zerocopy::IntoBytes;

/// A grant list never changes.
const SEALS: SealFlags = SealFlags::SHRINK
    .union(SealFlags::GROW)
    .union(SealFlags::WRITE)
    .union(SealFlags::SEAL);

/// Pages that gntdev maps at a time, where its setting cannot be read.
const GNTDEV_LIMIT: u64 = 65536;

/// Pages of the directory of a region that has so many.
pub(super) fn pages_for(refs: usize) -> u32 {
    refs.div_ceil(DIRECTORY_REFS) as u32
}

/// Writes the directory of a region, granted to domain `to`. Returns it, which ends when it is dropped, and
/// the reference of its first page.
pub(super) fn write(
    sharer: &Sharer,
    to: Domid,
    refs: &[u32],
    read_only: bool,
) -> Result<(Pages, u32), Errno> {
    let (pages, grefs) = sharer.share(to, pages_for(refs.len()))?;
    let bytes = refs.len() as u64 * PAGE_SIZE;
    let next = grefs.iter().skip(1).copied().chain([0]);
    for (index, (part, next)) in (0..).zip(refs.chunks(DIRECTORY_REFS).zip(next)) {
        let page: &DirectoryPage = pages.page(index).ok_or(Errno::FAULT)?;
        page.bytes.store(bytes, Ordering::Relaxed);
        page.count.store(part.len() as u32, Ordering::Relaxed);
        page.next.store(next, Ordering::Relaxed);
        let flags = if read_only { READ_ONLY } else { 0 };
        page.flags.store(flags, Ordering::Relaxed);
        for (place, reference) in page.refs.iter().zip(part) {
            place.store(*reference, Ordering::Relaxed);
        }
        page.magic.store(DIRECTORY_MAGIC, Ordering::Release);
    }
    let first = grefs.first().copied().ok_or(Errno::INVAL)?;
    Ok((pages, first))
}

/// What a directory says of a region.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Contents {
    /// References of its pages.
    pub refs: Vec<u32>,
    /// They are for reading only.
    pub read_only: bool,
}

/// Reads the directory that begins at grant `first` of domain `owner`.
pub(super) fn read(mapper: &Mapper, owner: Domid, first: u32) -> Result<Contents, PortError> {
    let limit = setting("/sys/module/xen_gntdev/parameters/limit").unwrap_or(GNTDEV_LIMIT);
    gather(first, limit, |gref| {
        let pages = mapper.map(owner, gref).map_err(to_error)?;
        pages.page(0).and_then(Part::of).ok_or(PortError::Refused)
    })
}

/// What one page of a directory said when it was looked at.
struct Part {
    bytes: u64,
    next: u32,
    flags: u32,
    refs: Vec<u32>,
}

impl Part {
    /// Takes each word once; `None` for a page that is none of a directory.
    fn of(page: &DirectoryPage) -> Option<Self> {
        if page.magic.load(Ordering::Acquire) != DIRECTORY_MAGIC {
            return None;
        }
        let count = page.count.load(Ordering::Relaxed) as usize;
        let refs = page.refs.get(..count)?.iter();
        Some(Self {
            bytes: page.bytes.load(Ordering::Relaxed),
            next: page.next.load(Ordering::Relaxed),
            flags: page.flags.load(Ordering::Relaxed),
            refs: refs.map(|r| r.load(Ordering::Relaxed)).collect(),
        })
    }
}

/// Puts the pages of a directory together that begins at `first`; a region may have `limit` pages.
fn gather(
    first: u32,
    limit: u64,
    mut fetch: impl FnMut(u32) -> Result<Part, PortError>,
) -> Result<Contents, PortError> {
    let mut part = fetch(first)?;
    let (bytes, flags) = (part.bytes, part.flags);
    let pages = bytes / PAGE_SIZE;
    if pages == 0 || bytes % PAGE_SIZE != 0 || flags & !READ_ONLY != 0 {
        return Err(PortError::Refused);
    }
    if pages > limit {
        return Err(PortError::NoSpace(Limit::MappedPages));
    }
    let mut refs = Vec::new();
    loop {
        let left = pages - refs.len() as u64;
        let fits = part.refs.len() as u64 == left.min(DIRECTORY_REFS as u64);
        let is_last = left <= DIRECTORY_REFS as u64;
        if !fits || (part.bytes, part.flags) != (bytes, flags) || is_last != (part.next == 0) {
            return Err(PortError::Refused);
        }
        refs.append(&mut part.refs);
        if is_last {
            let read_only = flags & READ_ONLY != 0;
            return Ok(Contents { refs, read_only });
        }
        part = fetch(part.next)?;
    }
}

/// Makes the grant list of a region of domain `owner`.
pub(super) fn list(owner: Domid, contents: &Contents) -> Result<OwnedFd, Errno> {
    let count = u32::try_from(contents.refs.len()).map_err(|_| Errno::NOSPC)?;
    let head = ListHead {
        magic: LIST_MAGIC,
        bytes: u64::from(count) * PAGE_SIZE,
        owner,
        flags: if contents.read_only { READ_ONLY } else { 0 },
        reserved: 0,
    };
    let request = MapGrantRef {
        count,
        ..MapGrantRef::default()
    };
    let mut bytes = Vec::with_capacity(list_bytes(count));
    bytes.extend_from_slice(head.as_bytes());
    bytes.extend_from_slice(request.as_bytes());
    for &reference in &contents.refs {
        let page = GrantRef {
            domid: owner,
            reference,
        };
        bytes.extend_from_slice(page.as_bytes());
    }
    let mut file = File::from(memfd(0)?);
    file.write_all(&bytes)
        .map_err(|error| Errno::from_io_error(&error).unwrap_or(Errno::IO))?;
    rustix::fs::fcntl_add_seals(&file, SEALS)?;
    Ok(file.into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashMap;
    use std::io::Read;
    use zerocopy::FromBytes;

    /// The pages of a directory, by their references, as its owner would write them.
    fn directory(refs: &[u32], flags: u32) -> HashMap<u32, Part> {
        let last = pages_for(refs.len());
        let parts = (1..).zip(refs.chunks(DIRECTORY_REFS));
        let part = |(number, refs): (u32, &[u32])| {
            let part = Part {
                bytes: 0,
                next: if number == last { 0 } else { number + 1 },
                flags,
                refs: refs.to_vec(),
            };
            (number, part)
        };
        let mut pages: HashMap<u32, Part> = parts.map(part).collect();
        for page in pages.values_mut() {
            page.bytes = refs.len() as u64 * PAGE_SIZE;
        }
        pages
    }

    fn gathered(pages: &HashMap<u32, Part>, limit: u64) -> Result<Contents, PortError> {
        gather(1, limit, |gref| {
            let page = pages.get(&gref).ok_or(PortError::Refused)?;
            Ok(Part {
                refs: page.refs.clone(),
                ..*page
            })
        })
    }

    #[test]
    fn a_directory_of_any_number_of_pages_is_put_together() {
        for count in [1, 2, 1015, 1016, 1017, 2032, 2033, 5000] {
            let refs: Vec<u32> = (1000..).take(count).collect();
            let contents = gathered(&directory(&refs, READ_ONLY), 5000).unwrap();
            assert_eq!(contents.refs, refs);
            assert!(contents.read_only);
        }
    }

    #[test]
    fn a_region_of_more_pages_than_are_mapped_at_a_time_names_the_limit() {
        let pages = directory(&[7; 101], 0);
        let refused = Err(PortError::NoSpace(Limit::MappedPages));
        assert_eq!(gathered(&pages, 100), refused);
        let mut huge = directory(&[7], 0);
        huge.get_mut(&1).unwrap().bytes = 1 << 62;
        assert_eq!(gathered(&huge, 1 << 32), refused);
    }

    /// A directory of three pages, with something wrong.
    fn spoiled(spoil: impl FnOnce(&mut HashMap<u32, Part>)) -> Result<Contents, PortError> {
        let mut pages = directory(&[9; 3000], 0);
        spoil(&mut pages);
        gathered(&pages, 65536)
    }

    #[test]
    fn a_directory_that_contradicts_itself_is_refused() {
        fn at(pages: &mut HashMap<u32, Part>, page: u32) -> &mut Part {
            pages.get_mut(&page).unwrap()
        }
        assert!(spoiled(|_| {}).is_ok());
        let refused = Err(PortError::Refused);
        for bytes in [0, 1, PAGE_SIZE, 2999 * PAGE_SIZE, 3001 * PAGE_SIZE] {
            assert_eq!(spoiled(|p| at(p, 1).bytes = bytes), refused, "{bytes}");
            assert_eq!(spoiled(|p| at(p, 2).bytes = bytes), refused, "{bytes}");
        }
        assert_eq!(spoiled(|p| at(p, 1).flags = 2), refused);
        assert_eq!(spoiled(|p| at(p, 3).flags = READ_ONLY), refused);
        assert_eq!(spoiled(|p| at(p, 2).refs.clear()), refused);
        assert_eq!(spoiled(|p| at(p, 3).refs.push(1)), refused);
        // A chain too short, too long, in circles, to nowhere.
        assert_eq!(spoiled(|p| at(p, 2).next = 0), refused);
        assert_eq!(spoiled(|p| at(p, 3).next = 1), refused);
        assert_eq!(spoiled(|p| at(p, 2).next = 1), refused);
        assert_eq!(spoiled(|p| at(p, 2).next = 77), refused);
    }

    #[test]
    fn a_page_is_read_only_if_it_is_one_of_a_directory() {
        let page: Box<DirectoryPage> = {
            // SAFETY: a page of atomics, for which zero is a value.
            unsafe { Box::new(std::mem::zeroed()) }
        };
        assert!(Part::of(&page).is_none());
        page.magic.store(DIRECTORY_MAGIC, Ordering::Relaxed);
        assert!(Part::of(&page).is_some_and(|part| part.refs.is_empty()));
        for (count, has) in [(1, true), (1016, true), (1017, false), (u32::MAX, false)] {
            page.count.store(count, Ordering::Relaxed);
            assert_eq!(Part::of(&page).is_some(), has, "{count}");
        }
    }

    #[test]
    fn a_grant_list_is_what_the_ioctl_takes_and_never_changes() {
        let contents = Contents {
            refs: vec![11, 12],
            read_only: true,
        };
        let mut file = File::from(list(3, &contents).unwrap());
        let mut bytes = Vec::new();
        std::io::Seek::rewind(&mut file).unwrap();
        file.read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes.len(), list_bytes(2));
        let (head, rest) = ListHead::read_from_prefix(&bytes).unwrap();
        let (magic, bytes, flags) = (head.magic, head.bytes, head.flags);
        assert_eq!((magic, bytes, flags), (LIST_MAGIC, 8192, READ_ONLY));
        let (request, rest) = MapGrantRef::read_from_prefix(rest).unwrap();
        assert_eq!((request.count, request.index), (2, 0));
        let last = GrantRef::read_from_bytes(&rest[8..]).unwrap();
        assert_eq!((last.domid, last.reference), (3, 12));
        assert!(file.write_all(b"x").is_err());
        assert_eq!(rustix::fs::ftruncate(&file, 0), Err(Errno::PERM));
    }
}
