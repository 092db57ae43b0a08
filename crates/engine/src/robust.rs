// SPDX-License-Identifier: MIT OR Apache-2.0
//! Robust mutexes of the C library, used for one thing only: a thread holds one for as long as it
//! lives, or as something of it is to be waited for, and when it dies the kernel says so in the
//! mutex's first word.

use std::sync::atomic::AtomicU64;

/// Room for a `pthread_mutex_t`.
pub(crate) type Place = [AtomicU64; 5];

const _: () = assert!(size_of::<libc::pthread_mutex_t>() <= size_of::<Place>());

fn mutex(place: &Place) -> *mut libc::pthread_mutex_t {
    place.as_ptr().cast_mut().cast()
}

/// Initialises the robust, process-shared mutex in `place` and locks it. `place` is of a mapping
/// that stays until the thread ends or [`release`] is called.
///
/// # Errors
/// What the C library says.
pub(crate) fn hold(place: &Place) -> std::io::Result<()> {
    let check = |error: i32| match error {
        0 => Ok(()),
        error => Err(std::io::Error::from_raw_os_error(error)),
    };
    // SAFETY: `mutex` points to 40 writable, aligned bytes, which the caller alone has to do with;
    // the attributes are initialised before they are used.
    unsafe {
        let mut attr = std::mem::zeroed();
        check(libc::pthread_mutexattr_init(&mut attr))?;
        check(libc::pthread_mutexattr_setpshared(
            &mut attr,
            libc::PTHREAD_PROCESS_SHARED,
        ))?;
        check(libc::pthread_mutexattr_setrobust(
            &mut attr,
            libc::PTHREAD_MUTEX_ROBUST,
        ))?;
        check(libc::pthread_mutex_init(mutex(place), &attr))?;
        libc::pthread_mutexattr_destroy(&mut attr);
        check(libc::pthread_mutex_lock(mutex(place)))
    }
}

/// Unlocks what [`hold`] has locked, in the same thread.
pub(crate) fn release(place: &Place) {
    // SAFETY: initialised and locked by `hold`, says the caller.
    unsafe { libc::pthread_mutex_unlock(mutex(place)) };
}
