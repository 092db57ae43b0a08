// SPDX-License-Identifier: MIT OR Apache-2.0
//! The sizes of grant tables, which no driver tells: Xen itself is asked, through the kernel's privcmd. Dom0 may
//! ask for all of them, a guest for its own, unless its kernel keeps hypercalls to itself, as Debian's does. Layouts and numbers are those of `xen/include/public/grant_table.h` and Linux's
//! `include/uapi/xen/privcmd.h`.

use super::memory::driver;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use std::mem::offset_of;
use vshmem_abi::Domid;

/// `IOCTL_PRIVCMD_HYPERCALL`: `_IOC(_IOC_NONE, 'P', 0, sizeof(struct privcmd_hypercall))`.
const HYPERCALL: u32 = (size_of::<Hypercall>() as u32) << 16 | (b'P' as u32) << 8;
/// `__HYPERVISOR_grant_table_op`.
const GRANT_TABLE_OP: u64 = 20;
/// `GNTTABOP_query_size`.
const QUERY_SIZE: u64 = 6;

/// `struct privcmd_hypercall`.
#[repr(C)]
struct Hypercall {
    op: u64,
    arg: [u64; 5],
}

/// `struct gnttab_query_size`.
#[repr(C)]
struct QuerySize {
    dom: u16,
    nr_frames: u32,
    max_nr_frames: u32,
    status: i16,
}

const _: () = assert!(offset_of!(QuerySize, nr_frames) == 4 && size_of::<QuerySize>() == 16);

/// Frames of a grant table: pages of 512 grants each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Frames {
    /// Those that the kernel has asked for so far. It gives none back.
    pub used: u32,
    /// Those that it may have (`max_grant_frames` in the guest's xl.cfg).
    pub most: u32,
}

/// The frames of a domain's grant table.
///
/// # Errors
/// `ENOENT` where there is no privcmd, `EACCES` for others than root, `EPERM` where the kernel lets nobody;
/// what Xen says.
pub fn grant_frames(domid: Domid) -> Result<Frames, Errno> {
    let flags = OFlags::RDWR | OFlags::CLOEXEC;
    let privcmd = rustix::fs::open("/dev/xen/privcmd", flags, Mode::empty())?;
    let mut query = QuerySize {
        dom: u16::try_from(domid).map_err(|_| Errno::INVAL)?,
        nr_frames: 0,
        max_nr_frames: 0,
        status: -1,
    };
    let mut call = Hypercall {
        op: GRANT_TABLE_OP,
        arg: [QUERY_SIZE, (&raw mut query) as u64, 1, 0, 0],
    };
    // SAFETY: the number's argument is such a call, which has Xen write to one query, on the stack, that is there
    // until it returns.
    unsafe { driver(&privcmd, HYPERCALL, (&raw mut call).cast())? };
    // SAFETY: a local of this function; read so since the compiler has not seen Xen write to it.
    let query = unsafe { (&raw const query).read_volatile() };
    match query.status {
        0 => Ok(Frames {
            used: query.nr_frames,
            most: query.max_nr_frames,
        }),
        _ => Err(Errno::INVAL),
    }
}
