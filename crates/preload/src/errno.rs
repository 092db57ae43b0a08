// SPDX-License-Identifier: MIT OR Apache-2.0
//! The one place where errno is read and written.

use std::ffi::c_int;

/// Sets errno and returns -1, as a failed call does.
pub fn fail(errno: c_int) -> c_int {
    set(errno);
    -1
}

/// Sets errno.
pub fn set(errno: c_int) {
    // SAFETY: the C library gives each thread an errno of its own at a valid address.
    unsafe { *libc::__errno_location() = errno };
}

/// The errno of this thread.
pub fn get() -> c_int {
    // SAFETY: as in `set`.
    unsafe { *libc::__errno_location() }
}
