// SPDX-License-Identifier: MIT OR Apache-2.0
//! Where the registrar's constructs outlive it.

use rustix::io::Errno;
use vshmem_abi::wire::{Meta, Usage};

/// What is kept of a construct. Who knows it and how it is used there, the domains say themselves.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Kept {
    /// The construct.
    pub meta: Meta,
    /// Times and pids from domains that are gone; nothing is attached there.
    pub departed: Usage,
}

/// A place for constructs that a later registrar reads them from. What is kept is written before
/// anybody hears of the change, so that no domain knows of a construct, or of a state, that a
/// registrar which begins at that moment would not.
pub trait Keeper {
    /// Keeps a construct, or what has changed of it.
    ///
    /// # Errors
    /// It is not kept: `ENOSPC`, or what else the place says.
    fn keep(&mut self, construct: &Kept) -> Result<(), Errno>;

    /// There is no construct `id` any more.
    fn forget(&mut self, id: i32);
}

/// Nothing is kept: what the registrar knows ends with it (host port, where its end is the end of all
/// domains).
#[derive(Clone, Copy, Debug, Default)]
pub struct NoKeeper;

impl Keeper for NoKeeper {
    fn keep(&mut self, _: &Kept) -> Result<(), Errno> {
        Ok(())
    }

    fn forget(&mut self, _: i32) {}
}
