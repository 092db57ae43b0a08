// SPDX-License-Identifier: MIT OR Apache-2.0
//! Kinds of construct that are not routed yet. A routed key of such a kind is refused: the
//! kernel's own object under that key would look right and be shared with nobody.

use crate::construct::is_routed_key;
use crate::errno::fail;
use crate::message;
use std::ffi::c_int;
use std::sync::atomic::AtomicBool;
use vshmem_abi::Kind;

/// If a get of `key` is routed: the failed result to return, after saying why once.
pub fn refused(kind: Kind, key: libc::key_t) -> Option<c_int> {
    static SAID: AtomicBool = AtomicBool::new(false);
    if !is_routed_key(key) {
        return None;
    }
    message::say_once(
        &SAID,
        format_args!(
            "{kind}get of routed key {key:#x}: queues are not routed by this version (ENOSYS); leave \
             the key out of VSHMEM_KEYS to use the kernel's"
        ),
    );
    Some(fail(libc::ENOSYS))
}
