// SPDX-License-Identifier: MIT OR Apache-2.0
//! Memory of another domain on Xen: how the list of a region's grants is handed over between
//! domains (the **grant directory**, pages that the owner grants as well), how a `vshmemd` tells its
//! clients of it (the **grant list**, a sealed file), the page that belongs to an event channel, and
//! what is needed of the kernel's drivers: gntalloc, which makes pages that are granted, and gntdev,
//! which maps them. Every shared byte is described in `docs/wire.md`.

use crate::layout::Shared;
use crate::{Domid, PAGE_SIZE};
use core::sync::atomic::{AtomicU8, AtomicU32, AtomicU64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// First word of each page of a grant directory: "VSHMEMG1" in memory order.
pub const DIRECTORY_MAGIC: u64 = u64::from_le_bytes(*b"VSHMEMG1");
/// First word of a grant list: "VSHMEML1" in memory order.
pub const LIST_MAGIC: u64 = u64::from_le_bytes(*b"VSHMEML1");

/// References that one page of a grant directory holds.
pub const DIRECTORY_REFS: usize = (PAGE_SIZE as usize - 32) / 4;

/// One page of a grant directory, written by the `vshmemd` of the owner domain before it tells
/// anybody its reference, read by the `vshmemd` that maps. It may change under the reader: each
/// word is read once, checked, and the copy used.
#[repr(C)]
pub struct DirectoryPage {
    /// [`DIRECTORY_MAGIC`].
    pub magic: AtomicU64,
    /// Bytes of the region, a multiple of [`PAGE_SIZE`]; the same in each page.
    pub bytes: AtomicU64,
    /// How many of [`DirectoryPage::refs`] count; all of them but in the last page.
    pub count: AtomicU32,
    /// Reference of the next page; 0: this is the last.
    pub next: AtomicU32,
    /// [`READ_ONLY`] or 0; the same in each page.
    pub flags: AtomicU32,
    /// Zero.
    pub reserved: AtomicU32,
    /// References of the region's pages, in their order.
    pub refs: [AtomicU32; DIRECTORY_REFS],
}

// SAFETY: repr(C), atomics only, the size below shows that there is no padding.
unsafe impl Shared for DirectoryPage {}

/// How a region is mapped from the descriptor that stands for it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[repr(u32)]
pub enum How {
    /// The descriptor is the memory: it is mapped, from offset 0 on.
    #[default]
    Direct = 0,
    /// The descriptor is a grant list, see [`ListHead`].
    Grants = 1,
}

impl How {
    /// What a peer's number stands for, if anything.
    pub const fn from_raw(raw: u32) -> Option<Self> {
        match raw {
            0 => Some(Self::Direct),
            1 => Some(Self::Grants),
            _ => None,
        }
    }
}

/// In `flags` of a [`DirectoryPage`] and of a [`ListHead`]: the grants permit reading only, so that
/// mapping them for writing fails.
pub const READ_ONLY: u32 = 1;

/// Head of a grant list: a file, sealed for ever, of this, then exactly what
/// [`IOCTL_GNTDEV_MAP_GRANT_REF`] takes ([`MapGrantRef`] and one [`GrantRef`] for each page). Who
/// maps the region maps the file privately and for writing (the kernel returns the index in it),
/// and hands the ioctl the address of byte [`LIST_REQUEST`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ListHead {
    /// [`LIST_MAGIC`].
    pub magic: u64,
    /// Bytes of the region: [`PAGE_SIZE`] times its grants.
    pub bytes: u64,
    /// Domain that granted it.
    pub owner: Domid,
    /// [`READ_ONLY`] or 0.
    pub flags: u32,
    /// Zero.
    pub reserved: u64,
}

/// Where in a grant list the [`MapGrantRef`] begins.
pub const LIST_REQUEST: usize = size_of::<ListHead>();

/// Bytes of the grant list of a region of `pages` pages.
pub const fn list_bytes(pages: u32) -> usize {
    LIST_REQUEST + size_of::<MapGrantRef>() + pages as usize * size_of::<GrantRef>()
}

/// First word of the page of an event channel: "VSHMEME1" in memory order.
pub const CHANNEL_MAGIC: u64 = u64::from_le_bytes(*b"VSHMEME1");

/// The page that the maker of an event channel grants to the domain which may bind to it. Its reference
/// is the number of the channel in messages. The two `vshmemd`s alone map it, for as long as they
/// have the channel; the kernels clear the two bytes when those mappings go, however they go, and
/// then raise the other end.
#[repr(C)]
pub struct ChannelPage {
    /// [`CHANNEL_MAGIC`].
    pub magic: AtomicU64,
    /// The event channel, as it is numbered in the maker's domain.
    pub port: AtomicU32,
    /// 1 once the other domain has bound to it.
    pub bound: AtomicU32,
    /// 1 while the maker has its end.
    pub maker: AtomicU8,
    /// 1 while the domain that bound has its end.
    pub binder: AtomicU8,
    /// Zero.
    pub reserved: [AtomicU8; 6],
}

// SAFETY: repr(C), atomics only, the size below shows that there is no padding.
unsafe impl Shared for ChannelPage {}

/// `struct ioctl_gntalloc_alloc_gref` of `linux/xen/gntalloc.h`, without the references that follow.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct AllocGref {
    /// The domain that may map the pages.
    pub domid: u16,
    /// [`GNTALLOC_FLAG_WRITABLE`], or 0 for reading only.
    pub flags: u16,
    /// Pages.
    pub count: u32,
    /// Set by the kernel: the offset for the `mmap` of the gntalloc descriptor, 0 for its first
    /// allocation.
    pub index: u64,
}

/// In [`AllocGref::flags`]: the other domain may write.
pub const GNTALLOC_FLAG_WRITABLE: u16 = 1;

/// `struct ioctl_gntalloc_dealloc_gref`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct DeallocGref {
    /// The offset that [`AllocGref::index`] said.
    pub index: u64,
    /// Pages.
    pub count: u32,
    /// Zero.
    pub pad: u32,
}

/// The device file that makes pages which are granted.
pub const GNTALLOC: &core::ffi::CStr = c"/dev/xen/gntalloc";

/// Makes pages, all zero, and grants them ([`AllocGref`] and room for a reference for each page).
/// `ENOSPC` when the module parameter `limit`, or the grant table of the domain, is used up.
pub const IOCTL_GNTALLOC_ALLOC_GREF: u32 = request(5, size_of::<AllocGref>() + 8);
/// Takes pages out of the descriptor ([`DeallocGref`]): they go when nobody has them mapped.
pub const IOCTL_GNTALLOC_DEALLOC_GREF: u32 = request(6, size_of::<DeallocGref>());

/// `struct ioctl_gntdev_map_grant_ref` of `linux/xen/gntdev.h`, without the references that follow.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct MapGrantRef {
    /// References that follow.
    pub count: u32,
    /// Zero.
    pub pad: u32,
    /// Set by the kernel: the offset for the `mmap` of the gntdev descriptor, in bytes.
    pub index: u64,
}

/// `struct ioctl_gntdev_grant_ref`: one page of another domain.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct GrantRef {
    /// Domain that granted it.
    pub domid: Domid,
    /// Number of the grant in that domain's table.
    pub reference: u32,
}

/// `struct ioctl_gntdev_unmap_grant_ref`.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct UnmapGrantRef {
    /// The offset that was mapped.
    pub index: u64,
    /// Pages.
    pub count: u32,
    /// Zero.
    pub pad: u32,
}

/// The device file that maps grants.
pub const GNTDEV: &core::ffi::CStr = c"/dev/xen/gntdev";

/// Prepares a [`MapGrantRef`] with its references for `mmap`. `EINVAL` for more references than
/// gntdev's module parameter `limit` (65,536) allows. A descriptor can have several of them, each is
/// mapped once.
pub const IOCTL_GNTDEV_MAP_GRANT_REF: u32 = request(0, size_of::<MapGrantRef>() + REFS_IN_C);
/// Gives an index back ([`UnmapGrantRef`]). What is mapped stays until it is unmapped.
pub const IOCTL_GNTDEV_UNMAP_GRANT_REF: u32 = request(1, size_of::<UnmapGrantRef>());

/// The C structure ends in an array of one reference, which counts in the ioctl's number.
const REFS_IN_C: usize = size_of::<GrantRef>();

/// `_IOC(_IOC_NONE, 'G', number, size)` of `linux/ioctl.h`.
const fn request(number: u32, size: usize) -> u32 {
    (size as u32) << 16 | (b'G' as u32) << 8 | number
}

const _: () = {
    use core::mem::offset_of;
    assert!(size_of::<DirectoryPage>() == PAGE_SIZE as usize);
    assert!(offset_of!(DirectoryPage, refs) == 32);
    assert!(size_of::<ListHead>() == 32 && LIST_REQUEST.is_multiple_of(8));
    assert!(size_of::<ChannelPage>() == 24);
    assert!(size_of::<AllocGref>() == 16 && size_of::<DeallocGref>() == 16);
    assert!(size_of::<MapGrantRef>() == 16 && offset_of!(MapGrantRef, index) == 8);
    assert!(size_of::<GrantRef>() == 8);
    assert!(size_of::<UnmapGrantRef>() == 16);
    assert!(IOCTL_GNTDEV_MAP_GRANT_REF == 0x0018_4700);
    assert!(IOCTL_GNTDEV_UNMAP_GRANT_REF == 0x0010_4701);
};
