// SPDX-License-Identifier: MIT OR Apache-2.0
//! `vshmem`, the command. Everything is in the library beside this file.
//!
//! The program starts at C's `main`, not at Rust's: Rust's start-up code would ignore `SIGPIPE`
//! and open closed descriptors 0 to 2, and `vshmem run` could not hand both to its command as it
//! got them.
#![no_main]

use std::ffi::{c_char, c_int};

/// Entry point; std reads the arguments by itself.
// SAFETY: the C library looks for exactly this name and signature, and nothing else defines it.
#[unsafe(no_mangle)]
pub extern "C" fn main(_argc: c_int, _argv: *const *const c_char) -> c_int {
    vshmem_cli::main()
}
