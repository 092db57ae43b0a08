// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is mapped again, and where, in place of what a child has not inherited. A file stands for gntdev:
//! the byte of its page `n` is `n`.

use super::*;
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use rustix::fs::{MemfdFlags, Mode, OFlags, SealFlags, memfd_create};
use std::cell::Cell;
use std::ptr::NonNull;
use std::sync::atomic::AtomicUsize;
use vshmem_abi::grants::{GrantRef, LIST_MAGIC, LIST_REQUEST, MapGrantRef, list_bytes};
use vshmem_engine::mapping::KeptList;

const PAGE: usize = PAGE_SIZE as usize;
const PAGES: usize = 8;
const READ_WRITE: ProtFlags = ProtFlags::READ.union(ProtFlags::WRITE);

/// gntdev, by which so many more requests can be made.
struct Fake {
    memory: OwnedFd,
    index: Cell<u64>,
    requests: Cell<u32>,
}

impl Fake {
    fn new(requests: u32) -> Self {
        let memory = memfd_create("memory", MemfdFlags::CLOEXEC).unwrap();
        let bytes: Vec<u8> = (0..PAGES * PAGE).map(|at| (at / PAGE) as u8).collect();
        rustix::io::pwrite(&memory, &bytes, 0).unwrap();
        Self {
            memory,
            index: Cell::new(0),
            requests: Cell::new(requests),
        }
    }
}

impl Device for Fake {
    fn open(&self, access: OFlags) -> Result<OwnedFd, Errno> {
        self.index.set(0);
        let path = format!("/proc/self/fd/{}", self.memory.as_raw_fd());
        rustix::fs::open(path, access | OFlags::CLOEXEC, Mode::empty())
    }

    unsafe fn prepare(
        &self,
        _: BorrowedFd<'_>,
        mut request: NonNull<MapGrantRef>,
    ) -> Result<(), Errno> {
        let left = self.requests.get().checked_sub(1).ok_or(Errno::NOMEM)?;
        self.requests.set(left);
        // SAFETY: as the caller promises.
        let request = unsafe { request.as_mut() };
        request.index = self.index.get();
        self.index
            .set(request.index + u64::from(request.count) * PAGE_SIZE);
        Ok(())
    }

    fn give_back(&self, _: BorrowedFd<'_>, _: u64, _: u32) {}
}

/// A grant list as `vshmemd` hands it out.
fn list() -> KeptList {
    let len = PAGES as u64 * PAGE_SIZE;
    let mut bytes = vec![0u8; list_bytes(PAGES as u32)];
    bytes[..8].copy_from_slice(&LIST_MAGIC.to_ne_bytes());
    bytes[8..16].copy_from_slice(&len.to_ne_bytes());
    bytes[LIST_REQUEST..][..4].copy_from_slice(&(PAGES as u32).to_ne_bytes());
    assert_eq!(
        bytes.len(),
        LIST_REQUEST + size_of::<MapGrantRef>() + PAGES * size_of::<GrantRef>()
    );
    let file = memfd_create("list", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
    rustix::io::pwrite(&file, &bytes, 0).unwrap();
    rustix::fs::fcntl_add_seals(&file, SealFlags::SHRINK | SealFlags::WRITE).unwrap();
    GrantList::map(file.as_fd(), len).unwrap().keep()
}

/// Free addresses, far from where the kernel maps what other tests ask for meanwhile.
struct Area {
    at: usize,
    again: Again,
}

impl Area {
    fn new() -> Self {
        static NEXT: AtomicUsize = AtomicUsize::new(0x2000_0000_0000);
        let at = NEXT.fetch_add((PAGES + 1) * PAGE, Relaxed);
        Self {
            at,
            again: Again {
                list: list(),
                prot: READ_WRITE,
            },
        }
    }

    fn attachment(&self) -> Attachment {
        Attachment {
            addr: self.at,
            len: PAGES * PAGE,
            id: 1,
            slot: 0,
            generation: 1,
            counted: true,
            file: (0, 0),
            again: Some(self.again),
            overlaid: false,
            order: 0,
        }
    }

    fn map(&self, device: &Fake, birth: Birth) -> Result<FileId, MapError> {
        map_again(device, &self.attachment(), &self.again, birth)
    }

    /// Something of the program's own at a page.
    fn put(&self, page: usize) {
        let at = (self.at + page * PAGE) as *mut c_void;
        let flags = MapFlags::PRIVATE | MapFlags::FIXED_NOREPLACE;
        // SAFETY: nothing is replaced; then the page that was mapped just now.
        unsafe {
            mmap_anonymous(at, PAGE, READ_WRITE, flags).unwrap();
            at.cast::<u8>().write(0xee);
        }
    }

    /// The first byte of each page; `None`: nothing that could be read.
    fn bytes(&self) -> [Option<u8>; PAGES] {
        std::array::from_fn(|page| crate::sys::read_user((self.at + page * PAGE) as *const u8))
    }

    fn pieces(&self, file: FileId) -> usize {
        let a = Attachment {
            file,
            ..self.attachment()
        };
        maps::pieces(&a, |_, _| {}).unwrap()
    }
}

fn file_of(device: &Fake) -> FileId {
    let stat = rustix::fs::fstat(&device.memory).unwrap();
    (stat.st_dev, stat.st_ino)
}

#[test]
fn where_nothing_is_the_whole_attachment_is_mapped_at_its_address() {
    for birth in [Birth::Attended, Birth::Unattended] {
        let (area, device) = (Area::new(), Fake::new(1));
        assert_eq!(area.map(&device, birth), Ok(file_of(&device)));
        assert_eq!(area.bytes(), std::array::from_fn(|page| Some(page as u8)));
        assert_eq!(area.pieces(file_of(&device)), 1);
    }
}

#[test]
fn what_the_program_has_put_over_a_part_stays_and_the_rest_is_mapped_around_it() {
    let own: [&[usize]; 5] = [&[0], &[7], &[3], &[0, 2, 5], &[1, 2, 3, 4, 5, 6]];
    for own in own {
        let (area, device) = (Area::new(), Fake::new(16));
        own.iter().for_each(|&page| area.put(page));
        assert_eq!(area.map(&device, Birth::Attended), Ok(file_of(&device)));
        let want = |page| {
            if own.contains(&page) {
                Some(0xee)
            } else {
                Some(page as u8)
            }
        };
        assert_eq!(area.bytes(), std::array::from_fn(want));
        // Each is known for a piece of the attachment, at its own offset.
        let is_own = |page: &usize| own.contains(page);
        let runs = (0..PAGES).filter(|page| !is_own(page) && (*page == 0 || is_own(&(page - 1))));
        assert_eq!(area.pieces(file_of(&device)), runs.count());
    }
}

#[test]
fn a_child_that_has_run_before_gets_nothing_around_what_it_has_mapped() {
    let (area, device) = (Area::new(), Fake::new(16));
    area.put(3);
    let refused = area.map(&device, Birth::Unattended);
    assert_eq!(refused, Err(MapError::Os(Errno::EXIST)));
    let want = |page| (page == 3).then_some(0xee);
    assert_eq!(area.bytes(), std::array::from_fn(want));
}

#[test]
fn where_all_is_taken_nothing_is_mapped_and_nothing_is_wrong() {
    let (area, device) = (Area::new(), Fake::new(1));
    (0..PAGES).for_each(|page| area.put(page));
    assert!(area.map(&device, Birth::Attended).is_ok());
    assert_eq!(area.bytes(), [Some(0xee); PAGES]);
}

#[test]
fn addresses_of_what_cannot_be_mapped_stay_taken_and_cannot_be_used() {
    for (requests, own) in [(0, None), (0, Some(4)), (1, Some(4)), (2, Some(4))] {
        let (area, device) = (Area::new(), Fake::new(requests));
        own.into_iter().for_each(|page| area.put(page));
        let refused = area.map(&device, Birth::Attended);
        assert_eq!(refused, Err(MapError::Os(Errno::NOMEM)));
        let gap = maps::first_gap(area.at, area.at + PAGES * PAGE);
        assert_eq!(gap, Ok(None));
        // With two requests the part in front was mapped before it failed.
        let want = |page| match own {
            Some(4) if page == 4 => Some(0xee),
            Some(4) if page < 4 && requests == 2 => Some(page as u8),
            _ => None,
        };
        assert_eq!(area.bytes(), std::array::from_fn(want), "{requests}");
    }
}

#[test]
fn a_gap_is_what_lies_between_mappings_or_at_the_ends() {
    let area = Area::new();
    let gap = |from: usize, to: usize| {
        let gap = maps::first_gap(area.at + from * PAGE, area.at + to * PAGE).unwrap();
        gap.map(|(start, len)| ((start - area.at) / PAGE, len / PAGE))
    };
    assert_eq!(gap(0, PAGES), Some((0, PAGES)));
    area.put(2);
    area.put(3);
    area.put(5);
    assert_eq!(gap(0, PAGES), Some((0, 2)));
    assert_eq!(gap(2, PAGES), Some((4, 1)));
    assert_eq!(gap(2, 4), None);
    assert_eq!(gap(5, PAGES), Some((6, 2)));
    assert_eq!(gap(6, 7), Some((6, 1)));
}
