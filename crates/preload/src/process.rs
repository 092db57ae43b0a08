// SPDX-License-Identifier: MIT OR Apache-2.0
//! What this process is to others, where the hot calls find it without the lock: in a page that the
//! kernel zeroes in every child that gets a copy of it. So a child of `fork` never acts in the name of
//! its parent: it finds nothing here, and begins anew.

use crate::sys;
use rustix::io::Errno;
use std::sync::atomic::{AtomicI32, AtomicPtr, AtomicU32, AtomicU64, Ordering::*};
use vshmem_abi::layout::Shared;
use vshmem_abi::token::Token;

/// The page's contents.
#[repr(C)]
pub struct Process {
    /// 1; 0 in a child that came about behind our back.
    pub is_own: AtomicU32,
    /// Its pid as it sees itself.
    pid: AtomicI32,
    token: AtomicU64,
    undo_token: AtomicU64,
    /// Slot of the wait page that it holds for as long as it may have undo.
    pub undo_slot: AtomicU32,
    domid: AtomicU32,
}

// SAFETY: repr(C), atomics only, no padding (all offsets are multiples of their sizes).
unsafe impl Shared for Process {}

const _: () = assert!(size_of::<Process>() == 32);

static PROCESS: AtomicPtr<Process> = AtomicPtr::new(std::ptr::null_mut());

impl Process {
    /// The page; made when first needed, under the session's lock.
    pub fn make() -> Result<&'static Self, Errno> {
        if let Some(process) = Self::page() {
            return Ok(process);
        }
        let process = sys::wiped_on_fork::<Self>()?;
        PROCESS.store(std::ptr::from_ref(process).cast_mut(), Release);
        Ok(process)
    }

    #[inline(always)]
    fn page() -> Option<&'static Self> {
        // SAFETY: null, or a page that is mapped for as long as the process lives.
        unsafe { PROCESS.load(Acquire).as_ref() }
    }

    /// This process, if it is known to its `vshmemd`.
    #[inline(always)]
    pub fn known() -> Option<&'static Self> {
        Self::page().filter(|process| process.token.load(Acquire) != 0)
    }

    /// Its `vshmemd` calls it so from now on.
    pub fn is_client(&self, token: Token, pid: i32) {
        self.pid.store(pid, Relaxed);
        self.domid.store(token.domid(), Relaxed);
        self.undo_token.store(0, Relaxed);
        self.is_own.store(1, Relaxed);
        self.token.store(token.raw(), Release);
    }

    /// It is known to nobody from now on.
    pub fn is_nobody(&self) {
        self.token.store(0, Release);
        self.undo_token.store(0, Relaxed);
        self.is_own.store(1, Relaxed);
    }

    /// Its token.
    #[inline(always)]
    pub fn token(&self) -> Token {
        Token::from_raw(self.token.load(Relaxed))
    }

    /// Its domain.
    #[inline(always)]
    pub fn domid(&self) -> u32 {
        self.domid.load(Relaxed)
    }

    /// Its pid as it sees itself.
    #[inline(always)]
    pub fn pid(&self) -> i32 {
        self.pid.load(Relaxed)
    }

    /// The token of its undo records; none as long as it has not asked for one.
    #[inline(always)]
    pub fn undo_token(&self) -> Token {
        Token::from_raw(self.undo_token.load(Acquire))
    }

    /// Its undo records bear `token`, and `slot` of the wait page tells that it lives.
    pub fn has_undo(&self, token: Token, slot: u32) {
        self.undo_slot.store(slot, Relaxed);
        self.undo_token.store(token.raw(), Release);
    }
}

/// Processors of the machine that are running. Not those that this process may use: whoever serves us
/// may have others.
#[inline]
pub fn processors() -> u32 {
    static PROCESSORS: AtomicU32 = AtomicU32::new(0);
    match PROCESSORS.load(Relaxed) {
        0 => {
            // SAFETY: asks for a number.
            let online = unsafe { libc::sysconf(libc::_SC_NPROCESSORS_ONLN) };
            let online = u32::try_from(online).unwrap_or(1).max(1);
            PROCESSORS.store(online, Relaxed);
            online
        }
        known => known,
    }
}
