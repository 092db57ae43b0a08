// SPDX-License-Identifier: MIT OR Apache-2.0
//! The functions that ours stand before: those of the next library in the search order, as a rule
//! the C library's.
//!
//! They are looked up so that a hook can end in a jump to them, not in a call: on processors whose
//! return stack is useless after a system call, each return on the way back to the program is
//! mispredicted, which costs more than all that a hook does. For that a hook must have nothing on
//! its stack, so the look-up is a function of its own.

use crate::message;
use std::ffi::CStr;
use std::marker::PhantomData;
use std::sync::atomic::{AtomicUsize, Ordering::Relaxed};

/// A function of the next library, of type `F`. Its address comes first, for assembly.
#[repr(C)]
pub struct Next<F> {
    /// 0 until it is looked up.
    address: AtomicUsize,
    name: &'static CStr,
    function: PhantomData<F>,
}

impl<F: Copy> Next<F> {
    /// The function `name`.
    ///
    /// # Safety
    /// `F` is the type of a pointer to it.
    pub const unsafe fn new(name: &'static CStr) -> Self {
        const { assert!(size_of::<F>() == size_of::<usize>()) };
        Self {
            address: AtomicUsize::new(0),
            name,
            function: PhantomData,
        }
    }

    /// The function.
    #[inline(always)]
    pub fn get(&self) -> F {
        let mut address = self.address.load(Relaxed);
        if address == 0 {
            address = self.look_up();
        }
        // SAFETY: the address is that of the function, and `F` its type, as `new` was promised.
        unsafe { std::mem::transmute_copy(&address) }
    }

    /// Finds the function; ends the program where there is none.
    #[cold]
    #[inline(never)]
    pub fn look_up(&self) -> usize {
        // SAFETY: the name is a C string.
        let address = unsafe { libc::dlsym(libc::RTLD_NEXT, self.name.as_ptr()) } as usize;
        if address == 0 {
            message::say(format_args!(
                "no library after this one has {:?}",
                self.name
            ));
            // SAFETY: ends the program; there is nothing that its call could do.
            unsafe { libc::abort() }
        }
        self.address.store(address, Relaxed);
        address
    }
}
