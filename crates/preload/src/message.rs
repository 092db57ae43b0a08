// SPDX-License-Identifier: MIT OR Apache-2.0
//! The lines that the library writes to stderr: few, each at most once in a process, each naming
//! what is wrong and what to do.

use rustix::fd::BorrowedFd;
use std::fmt::Write;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

/// A line of limited length, built without allocating.
pub struct Line {
    bytes: [u8; 512],
    len: usize,
}

impl Line {
    /// An empty one.
    pub const fn new() -> Self {
        Self {
            bytes: [0; 512],
            len: 0,
        }
    }

    /// What was written to it, as far as it fits.
    pub fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }
}

impl Write for Line {
    fn write_str(&mut self, text: &str) -> std::fmt::Result {
        for &byte in text.as_bytes() {
            if let Some(place) = self.bytes.get_mut(self.len) {
                *place = byte;
                self.len += 1;
            }
        }
        Ok(())
    }
}

/// Writes one line to stderr, whatever the program has done to its streams.
pub fn say(text: std::fmt::Arguments<'_>) {
    let mut line = Line::new();
    let _ = write!(line, "vshmem: {text}");
    let end = line.len.min(line.bytes.len() - 1);
    if let Some(place) = line.bytes.get_mut(end) {
        *place = b'\n';
    }
    // SAFETY: the number is used for this one write only; if it is closed the write fails.
    let stderr = unsafe { BorrowedFd::borrow_raw(2) };
    let _ = rustix::io::write(stderr, line.bytes.get(..=end).unwrap_or_default());
}

/// Says something once in the life of a process.
pub fn say_once(said: &AtomicBool, text: std::fmt::Arguments<'_>) {
    if !said.swap(true, Relaxed) {
        say(text);
    }
}
