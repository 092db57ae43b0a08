// SPDX-License-Identifier: MIT OR Apache-2.0
//! Grant lists, good and bad, and what is asked of gntdev, for which a file stands in that has a byte of its own in
//! each page.

use super::*;
use crate::mapping::Source;
use rustix::fs::{MemfdFlags, fcntl_add_seals, ftruncate, memfd_create};
use rustix::io::pwrite;
use std::cell::RefCell;
use vshmem_abi::grants::How;
use zerocopy::IntoBytes;

const PAGE: usize = PAGE_SIZE as usize;
const OWNER: u32 = 7;
const WRITE: ProtFlags = ProtFlags::READ.union(ProtFlags::WRITE);

fn memfd(bytes: &[u8], size: u64) -> OwnedFd {
    let fd = memfd_create("list", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING).unwrap();
    ftruncate(&fd, size).unwrap();
    pwrite(&fd, bytes, 0).unwrap();
    fd
}

fn seal(fd: OwnedFd) -> OwnedFd {
    fcntl_add_seals(&fd, SEALS | SealFlags::GROW | SealFlags::SEAL).unwrap();
    fd
}

/// Reference of page `n`.
fn reference(n: u32) -> u32 {
    1000 + 3 * n
}

fn bytes_of_list(pages: u32, change: impl FnOnce(&mut ListHead, &mut MapGrantRef)) -> Vec<u8> {
    let mut head = ListHead {
        magic: LIST_MAGIC,
        bytes: u64::from(pages) * PAGE_SIZE,
        owner: OWNER,
        flags: 0,
        reserved: 0,
    };
    let mut request = MapGrantRef {
        count: pages,
        ..MapGrantRef::default()
    };
    change(&mut head, &mut request);
    let mut bytes = head.as_bytes().to_vec();
    bytes.extend_from_slice(request.as_bytes());
    for n in 0..pages {
        let reference = GrantRef {
            domid: OWNER,
            reference: reference(n),
        };
        bytes.extend_from_slice(reference.as_bytes());
    }
    bytes
}

fn sealed(bytes: &[u8]) -> OwnedFd {
    seal(memfd(bytes, bytes.len() as u64))
}

fn list(pages: u32) -> GrantList {
    let file = sealed(&bytes_of_list(pages, |_, _| {}));
    GrantList::map(file.as_fd(), u64::from(pages) * PAGE_SIZE).unwrap()
}

/// What gntdev was asked for.
#[derive(Debug, PartialEq, Eq)]
enum Asked {
    Open(OFlags),
    Prepare(Vec<u32>),
    GiveBack(u64, u32),
}

/// A gntdev, and one other domain that has granted pages: the byte of page `n` is `n`.
struct Fake {
    memory: OwnedFd,
    asked: RefCell<Vec<Asked>>,
    index: RefCell<u64>,
}

impl Fake {
    /// What it maps at most by one request.
    const LIMIT: u32 = 64;

    fn new(pages: u32) -> Self {
        let bytes = (0..pages as usize * PAGE).map(|at| (at / PAGE) as u8);
        let bytes: Vec<u8> = bytes.collect();
        Self {
            memory: memfd(&bytes, bytes.len() as u64),
            asked: RefCell::default(),
            index: RefCell::default(),
        }
    }

    fn asked(&self) -> Vec<Asked> {
        self.asked.take()
    }
}

impl Device for Fake {
    fn open(&self, access: OFlags) -> Result<OwnedFd, Errno> {
        self.asked.borrow_mut().push(Asked::Open(access));
        self.index.replace(0);
        let path = format!("/proc/self/fd/{}", self.memory.as_raw_fd());
        rustix::fs::open(path, access | OFlags::CLOEXEC, Mode::empty())
    }

    unsafe fn prepare(
        &self,
        _: BorrowedFd<'_>,
        mut request: NonNull<MapGrantRef>,
    ) -> Result<(), Errno> {
        // SAFETY: as the caller promises.
        let (request, refs) = unsafe {
            let refs = request.add(1).cast::<GrantRef>().as_ptr();
            let count = request.as_ref().count as usize;
            (request.as_mut(), std::slice::from_raw_parts(refs, count))
        };
        if request.count > Self::LIMIT {
            return Err(Errno::INVAL);
        }
        assert_eq!(request.pad, 0);
        assert!(refs.iter().all(|grant| grant.domid == OWNER));
        let refs = refs.iter().map(|grant| grant.reference).collect();
        self.asked.borrow_mut().push(Asked::Prepare(refs));
        request.index = *self.index.borrow();
        *self.index.borrow_mut() += u64::from(request.count) * PAGE_SIZE;
        Ok(())
    }

    fn give_back(&self, _: BorrowedFd<'_>, index: u64, count: u32) {
        self.asked.borrow_mut().push(Asked::GiveBack(index, count));
    }
}

/// A gntdev that does nothing but say this.
struct Refuses {
    open: Option<Errno>,
    prepare: Result<u64, Errno>,
}

impl Device for Refuses {
    fn open(&self, _: OFlags) -> Result<OwnedFd, Errno> {
        self.open.map_or_else(|| Ok(memfd(&[], PAGE_SIZE)), Err)
    }

    unsafe fn prepare(
        &self,
        _: BorrowedFd<'_>,
        mut request: NonNull<MapGrantRef>,
    ) -> Result<(), Errno> {
        let index = self.prepare?;
        // SAFETY: as the caller promises.
        unsafe { request.as_mut() }.index = index;
        Ok(())
    }

    fn give_back(&self, _: BorrowedFd<'_>, _: u64, _: u32) {}
}

fn anywhere(
    list: &mut GrantList,
    device: &impl Device,
    prot: ProtFlags,
) -> Result<usize, MapError> {
    // SAFETY: a new mapping at an address of the kernel's choice.
    unsafe { list.map_region(device, Place::anywhere(prot)) }.map(|(at, _)| at)
}

fn byte(at: usize) -> u8 {
    // SAFETY: the tests hand in what they have mapped.
    unsafe { (at as *const u8).read_volatile() }
}

fn unmap(at: usize, pages: usize) {
    // SAFETY: what a test has mapped, and uses no more.
    unsafe { rustix::mm::munmap(at as *mut c_void, pages * PAGE) }.unwrap();
}

fn refs(pages: std::ops::Range<u32>) -> Asked {
    Asked::Prepare(pages.map(reference).collect())
}

#[test]
fn a_region_is_mapped_as_often_as_wanted_each_time_by_a_request_of_its_own() {
    let mut list = list(3);
    let device = Fake::new(3);
    for _ in 0..3 {
        let at = anywhere(&mut list, &device, WRITE).unwrap();
        assert_eq!(device.asked(), [Asked::Open(OFlags::RDWR), refs(0..3)]);
        for page in 0..3 {
            assert_eq!(byte(at + page * PAGE), page as u8);
        }
        unmap(at, 3);
    }
}

#[test]
fn what_is_mapped_for_reading_is_opened_for_reading_so_that_mprotect_gives_no_more() {
    let mut list = list(1);
    let device = Fake::new(1);
    let at = anywhere(&mut list, &device, ProtFlags::READ).unwrap();
    assert_eq!(device.asked(), [Asked::Open(OFlags::RDONLY), refs(0..1)]);
    let all = rustix::mm::MprotectFlags::READ | rustix::mm::MprotectFlags::WRITE;
    // SAFETY: the page that was mapped just now.
    let result = unsafe { rustix::mm::mprotect(at as *mut c_void, PAGE, all) };
    assert_eq!(result, Err(Errno::ACCESS));
    unmap(at, 1);
}

#[test]
fn a_part_of_a_region_shows_the_offset_that_it_has_in_the_whole() {
    let mut list = list(5);
    let device = Fake::new(5);
    for (first, count) in [(1, 1), (2, 2), (1, 4), (4, 1), (0, 2)] {
        let place = Place::anywhere(ProtFlags::READ);
        // SAFETY: a new mapping at an address of the kernel's choice.
        let (at, _) = unsafe { list.map_pages(&device, first, count, place) }.unwrap();
        let mut want = vec![Asked::Open(OFlags::RDONLY)];
        if first > 0 {
            want.push(refs(0..first));
        }
        want.push(refs(first..first + count));
        if first > 0 {
            want.push(Asked::GiveBack(0, first));
        }
        assert_eq!(device.asked(), want);
        for page in 0..count {
            // The file that stands for gntdev was mapped at the index.
            assert_eq!(byte(at + page as usize * PAGE), (first + page) as u8);
        }
        unmap(at, count as usize);
    }
}

#[test]
fn pages_that_a_region_has_not_are_not_mapped() {
    let mut list = list(5);
    let device = Fake::new(5);
    for (first, count) in [(0, 0), (5, 0), (5, 1), (0, 6), (1, u32::MAX), (u32::MAX, 1)] {
        let place = Place::anywhere(ProtFlags::READ);
        // SAFETY: nothing comes of it.
        let mapped = unsafe { list.map_pages(&device, first, count, place) };
        assert_eq!(mapped.unwrap_err(), MapError::Os(Errno::INVAL));
    }
    assert_eq!(device.asked(), []);
}

#[test]
fn what_is_there_already_is_left_and_the_device_is_closed_again() {
    let mut list = list(2);
    let device = Fake::new(2);
    let taken = anywhere(&mut list, &device, WRITE).unwrap();
    let descriptors = || std::fs::read_dir("/proc/self/fd").unwrap().count();
    let before = descriptors();
    for _ in 0..64 {
        // SAFETY: it replaces nothing.
        let mapped = unsafe { list.map_region(&device, Place::if_free(taken, WRITE)) };
        assert_eq!(mapped.unwrap_err(), MapError::Os(Errno::EXIST));
    }
    // Other tests of this process open and close a few at the same time.
    assert!(descriptors() < before + 32);
    unmap(taken, 2);
}

#[test]
fn each_refusal_has_an_errno_and_says_what_to_do() {
    let mut list = list(1);
    let mut refused = |open, prepare| {
        let error = anywhere(&mut list, &Refuses { open, prepare }, WRITE).unwrap_err();
        (error.errno(), error.to_string())
    };
    for (errno, want, says) in [
        (Errno::ACCESS, Errno::ACCESS, "group"),
        (Errno::PERM, Errno::ACCESS, "group"),
        (Errno::NOENT, Errno::NODEV, "xen-gntdev"),
        (Errno::NXIO, Errno::NODEV, "xen-gntdev"),
        (Errno::MFILE, Errno::MFILE, ""),
        (Errno::NFILE, Errno::NFILE, ""),
    ] {
        let (errno, text) = refused(Some(errno), Ok(0));
        assert_eq!(errno, want);
        assert!(text.contains(says), "{text}");
    }
    // An offset that mmap refuses as it does gntdev's of which the grants are no more.
    let unaligned = Ok(1);
    for (prepare, want, says) in [
        (Err(Errno::INVAL), Errno::NOSPC, "parameters/limit"),
        (Err(Errno::NOTTY), Errno::NODEV, "xen-gntdev"),
        (Err(Errno::NOMEM), Errno::NOMEM, ""),
        (unaligned, Errno::IDRM, "maptrack"),
    ] {
        let (errno, text) = refused(None, prepare);
        assert_eq!(errno, want);
        assert!(text.contains(says), "{text}");
    }
}

#[test]
fn a_region_that_the_kernel_does_not_map_at_once_is_no_space() {
    let device = Fake::new(1);
    let refused = anywhere(&mut list(Fake::LIMIT + 1), &device, WRITE);
    assert_eq!(refused.unwrap_err(), MapError::TooLarge);
    assert!(anywhere(&mut list(Fake::LIMIT), &device, WRITE).is_ok());
}

#[test]
fn grants_for_reading_are_mapped_for_reading_only() {
    let file = sealed(&bytes_of_list(1, |head, _| head.flags = READ_ONLY));
    let mut list = GrantList::map(file.as_fd(), PAGE_SIZE).unwrap();
    let device = Fake::new(1);
    let refused = anywhere(&mut list, &device, WRITE).unwrap_err();
    assert_eq!(refused, MapError::ReadOnly);
    assert_eq!(refused.errno(), Errno::ACCESS);
    unmap(anywhere(&mut list, &device, ProtFlags::READ).unwrap(), 1);
}

#[test]
fn a_list_is_put_away_and_taken_up_again() {
    let device = Fake::new(2);
    let kept = list(2).keep();
    for _ in 0..2 {
        // SAFETY: by this test alone, one at a time.
        let mut list = unsafe { GrantList::take_up(kept) };
        unmap(anywhere(&mut list, &device, WRITE).unwrap(), 2);
        assert_eq!(list.keep(), kept);
    }
    // SAFETY: as above, the last time.
    drop(unsafe { GrantList::take_up(kept) });
}

#[test]
fn what_is_not_the_list_of_the_region_is_refused() {
    let good = bytes_of_list(3, |_, _| {});
    let len = 3 * PAGE_SIZE;
    let size = good.len() as u64;
    let map = |fd: &OwnedFd, len| GrantList::map(fd.as_fd(), len).map(|_| ());
    assert_eq!(map(&sealed(&good), len), Ok(()));
    for wrong in [0, 1, PAGE_SIZE, len - 1, len + 1, 4 * PAGE_SIZE, u64::MAX] {
        assert_eq!(map(&sealed(&good), wrong), Err(Errno::PROTO), "{wrong}");
    }
    for wrong in [0, 1, size - 8, size - 1, size + 1, 1 << 40] {
        let begin = &good[..good.len().min(wrong as usize)];
        let file = seal(memfd(begin, wrong));
        assert_eq!(map(&file, len), Err(Errno::PROTO), "{wrong}");
    }
    let open = memfd(&good, size);
    assert_eq!(map(&open, len), Err(Errno::PROTO), "not sealed");
    for half in [SealFlags::SHRINK, SealFlags::WRITE] {
        let file = memfd(&good, size);
        fcntl_add_seals(&file, half).unwrap();
        assert_eq!(map(&file, len), Err(Errno::PROTO), "{half:?}");
    }
    let changes: [fn(&mut ListHead, &mut MapGrantRef); 5] = [
        |head, _| head.magic += 1,
        |head, _| head.bytes = 0,
        |_, request| request.count = 2,
        |_, request| request.count = u32::MAX,
        |_, request| request.pad = 1,
    ];
    for change in changes {
        let file = sealed(&bytes_of_list(3, change));
        assert_eq!(map(&file, len), Err(Errno::PROTO));
    }
    let (reading, _writing) = rustix::pipe::pipe().unwrap();
    assert_eq!(map(&reading, len), Err(Errno::PROTO), "a pipe");
    let null = std::fs::File::open("/dev/null").unwrap().into();
    assert_eq!(map(&null, len), Err(Errno::PROTO), "a device");
}

#[test]
fn garbage_of_the_right_size_is_refused_or_asks_for_what_it_says_and_no_more() {
    let mut random = 0x9E37_79B9_7F4A_7C15u64;
    let mut bytes = bytes_of_list(2, |_, _| {});
    let (mut refused, mut mapped) = (0, 0);
    for _ in 0..2000 {
        random = random.wrapping_mul(6364136223846793005).wrapping_add(1);
        let at = (random >> 33) as usize % (LIST_REQUEST + size_of::<MapGrantRef>());
        let before = bytes[at];
        bytes[at] ^= (random >> 20) as u8;
        if let Ok(mut list) = GrantList::map(sealed(&bytes).as_fd(), 2 * PAGE_SIZE) {
            let device = Fake::new(2);
            let at = anywhere(&mut list, &device, ProtFlags::READ).unwrap();
            assert_eq!(device.asked()[1..], [refs(0..2)]);
            unmap(at, 2);
            mapped += 1;
        } else {
            refused += 1;
        }
        bytes[at] = before;
    }
    assert!(refused > 0 && mapped > 0);
}

#[test]
fn a_file_that_is_too_short_is_not_mapped_and_a_device_has_no_size() {
    let map = |fd: &OwnedFd, len| {
        let source = Source {
            fd: fd.as_fd(),
            how: How::Direct,
            len,
        };
        // SAFETY: a new mapping at an address of the kernel's choice.
        let mapped = unsafe { source.map(Place::anywhere(WRITE)) }?;
        assert!(mapped.list.is_none());
        unmap(mapped.at, len as usize / PAGE);
        Ok(())
    };
    let short = memfd(&[], PAGE_SIZE);
    assert_eq!(map(&short, PAGE_SIZE), Ok(()));
    assert_eq!(map(&short, 2 * PAGE_SIZE), Err(MapError::Os(Errno::PROTO)));
    assert_eq!(map(&short, 0), Err(MapError::Os(Errno::PROTO)));
    let zero = std::fs::File::options()
        .read(true)
        .write(true)
        .open("/dev/zero");
    assert_eq!(map(&zero.unwrap().into(), 2 * PAGE_SIZE), Ok(()));
}
