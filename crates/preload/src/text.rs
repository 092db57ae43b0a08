// SPDX-License-Identifier: MIT OR Apache-2.0
//! The text of messages on its way between the program's memory and a region: copied once, straight from
//! one to the other. A text that is short comes by way of the stack.

use crate::sys::{self, Way};
use crate::user;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use vshmem_engine::msgq::{Pieces, Text};

/// What the program points at (`struct msgbuf`), if the text is short.
#[repr(C)]
#[derive(Clone, Copy)]
pub struct Short {
    /// Its type.
    pub mtype: i64,
    /// Its text.
    pub text: Text,
}

impl Short {
    /// An empty one.
    pub const fn new() -> Self {
        Self {
            mtype: 0,
            text: [0; size_of::<Text>() / 8],
        }
    }
}

/// Where the text begins behind its type.
pub const HEAD: usize = size_of::<i64>();

/// Reads a short text of `size` bytes; `None` where the kernel would say `EFAULT`.
#[inline]
pub fn read_short(from: usize, size: usize) -> Option<Text> {
    let mut text = Short::new().text;
    let size = size.min(size_of::<Text>());
    if user::is_there(from, size) {
        // SAFETY: so many bytes are there, and as many fit.
        unsafe { std::ptr::copy_nonoverlapping(from as *const u8, text.as_mut_ptr().cast(), size) };
    } else if size != 0 {
        let own = sys::part(text.as_mut_ptr(), size);
        // SAFETY: a local that is large enough.
        if !unsafe { sys::copy(Way::In, &[own], from) } {
            return None;
        }
    }
    Some(text)
}

/// Writes type and text, `size` bytes of it; `false` where the kernel would say `EFAULT`.
#[inline]
pub fn write_short(to: usize, short: &Short, size: usize) -> bool {
    let bytes = (HEAD + size).min(size_of::<Short>());
    let from = std::ptr::from_ref(short);
    if user::is_writable(to, bytes) {
        // SAFETY: so many bytes are there for writing, and as many are in `short`.
        unsafe { std::ptr::copy_nonoverlapping(from.cast::<u8>(), to as *mut u8, bytes) };
        return true;
    }
    let own = sys::part(from.cast_mut(), bytes);
    // SAFETY: `short`, which is read.
    unsafe { sys::copy(Way::Out, &[own], to) }
}

/// Whether `size` bytes can be read; takes as long as copying them.
pub fn is_readable(from: usize, size: usize) -> bool {
    if user::is_there(from, size) {
        return true;
    }
    let mut nowhere = [0u8; 4096];
    let mut done = 0;
    while done < size {
        let part = sys::part(nowhere.as_mut_ptr(), nowhere.len().min(size - done));
        done += part.iov_len;
        // SAFETY: a local that is large enough.
        if !unsafe { sys::copy(Way::In, &[part], from.wrapping_add(done - part.iov_len)) } {
            return false;
        }
    }
    true
}

/// Pieces of a text that are copied by one call of the kernel.
const BATCH: usize = 32;

/// Fills the pieces of a message with the `size` bytes that the program points at; `false` where the
/// kernel would say `EFAULT`.
pub fn fill(pieces: Pieces<'_, AtomicU64>, from: usize, size: usize) -> bool {
    let certain = user::is_there(from, size);
    transfer(Way::In, certain, None, pieces, from, size)
}

/// Writes a message to where the program points: its type, and `size` bytes of its text; `false` where the
/// kernel would say `EFAULT`.
pub fn write(to: usize, mtype: i64, pieces: Pieces<'_, AtomicU64>, size: usize) -> bool {
    let certain = user::is_writable(to, HEAD + size);
    let head = mtype.to_ne_bytes();
    transfer(Way::Out, certain, Some(&head), pieces, to, size)
}

/// Copies `head`, and then the first `size` bytes of the text.
#[inline]
fn transfer(
    way: Way,
    certain: bool,
    head: Option<&[u8; HEAD]>,
    pieces: Pieces<'_, AtomicU64>,
    theirs: usize,
    size: usize,
) -> bool {
    let mut batch = Batch {
        way,
        certain,
        parts: [sys::part(std::ptr::null_mut::<u8>(), 0); BATCH],
        used: 0,
        theirs,
    };
    if let Some(head) = head
        && !batch.push(head.as_ptr().cast_mut(), HEAD)
    {
        return false;
    }
    let mut left = size;
    for (words, bytes) in pieces {
        let bytes = bytes.min(left);
        left -= bytes;
        if !batch.push(words.as_ptr().cast_mut().cast(), bytes) {
            return false;
        }
        if left == 0 {
            break;
        }
    }
    batch.flush()
}

/// Pieces of memory of our own that go to, or come from, one place of the program's.
struct Batch {
    way: Way,
    /// Whether that place is certain to be there.
    certain: bool,
    parts: [libc::iovec; BATCH],
    used: usize,
    theirs: usize,
}

impl Batch {
    fn push(&mut self, own: *mut u8, len: usize) -> bool {
        let last = self
            .used
            .checked_sub(1)
            .and_then(|at| self.parts.get_mut(at));
        if let Some(last) = last
            && last.iov_base as usize + last.iov_len == own as usize
        {
            last.iov_len += len;
            return true;
        }
        if self.used == BATCH && !self.flush() {
            return false;
        }
        if let Some(place) = self.parts.get_mut(self.used) {
            *place = sys::part(own, len);
            self.used += 1;
        }
        true
    }

    fn flush(&mut self) -> bool {
        let parts = self.parts.get(..self.used).unwrap_or_default();
        self.used = 0;
        let all: usize = parts.iter().map(|part| part.iov_len).sum();
        if !self.certain {
            // SAFETY: pieces of a region that is mapped for as long as the process lives, and locals that are
            // read.
            let copied = all == 0 || unsafe { sys::copy(self.way, parts, self.theirs) };
            self.theirs = self.theirs.wrapping_add(all);
            return copied;
        }
        for part in parts {
            let (own, theirs) = (part.iov_base.cast::<u8>(), self.theirs as *mut u8);
            let (from, to) = match self.way {
                Way::In => (theirs, own),
                Way::Out => (own, theirs),
            };
            // SAFETY: both are there; others may be writing to a region at any time.
            unsafe { sys::copy_bytes(from, to, part.iov_len) };
            self.theirs = self.theirs.wrapping_add(part.iov_len);
        }
        true
    }
}

/// Fills a message with a short text.
pub fn fill_short(pieces: Pieces<'_, AtomicU64>, text: &Text) {
    for (words, _) in pieces {
        for (to, word) in words.iter().zip(text) {
            to.store(*word, Relaxed);
        }
    }
}

/// Writes a message that was copied as a whole, as [`write`].
pub fn write_whole(to: usize, mtype: i64, text: &[u64], size: usize) -> bool {
    let parts = [
        sys::part(std::ptr::from_ref(&mtype).cast_mut().cast::<u8>(), HEAD),
        sys::part(
            text.as_ptr().cast_mut().cast::<u8>(),
            size.min(size_of_val(text)),
        ),
    ];
    // SAFETY: a local and a slice, which are read.
    unsafe { sys::copy(Way::Out, &parts, to) }
}
