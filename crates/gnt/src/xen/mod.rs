// SPDX-License-Identifier: MIT OR Apache-2.0
//! The Xen port: domains of Xen, each with a kernel of its own.
//!
//! The memory of a region that is to be granted is made by the kernel's driver gntalloc, for one
//! other domain; whoever maps it there has its references from a **grant list** and maps them by
//! the driver gntdev. How the references get from one `vshmemd` to the other is in `directory`, event
//! channels are in `channel`; `libs` has what is called of Xen's libraries. libxengnttab maps and
//! grants the pages that the two `vshmemd`s exchange; the memory of regions is asked of gntalloc
//! directly, since what that library makes cannot be mapped from a passed descriptor any more.
//!
//! Where another domain is gone Xen says no more than where it never granted anything: such calls
//! give [`PortError::Refused`](crate::PortError::Refused). Which domains there are is the
//! registry's business.

mod channel;
mod directory;
mod libs;
mod memory;
mod port;
mod table;

pub use memory::XenRegion;
pub use port::{OpenError, XenPort};
pub use table::{Frames, grant_frames};

use crate::port::PortError;
use rustix::io::Errno;

/// What a driver's, or a library's, refusal means; `EINVAL` is what Xen says of a grant that is not
/// for this domain.
fn to_error(errno: Errno) -> PortError {
    match errno {
        Errno::MFILE | Errno::NFILE => PortError::TooManyDescriptors,
        Errno::NOMEM => PortError::NoMemory,
        Errno::NOENT | Errno::NXIO | Errno::NODEV | Errno::ACCESS | Errno::PERM => {
            PortError::Disconnected
        }
        Errno::SRCH => PortError::Gone,
        _ => PortError::Refused,
    }
}
