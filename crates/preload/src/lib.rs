// SPDX-License-Identifier: MIT OR Apache-2.0
//! `libvshmem.so`: loaded with `LD_PRELOAD` into an unmodified program, it routes the calls of
//! System V IPC whose key or id is Vshmem's and passes all others on untouched.
//!
//! This code runs inside other people's programs. What that means here:
//! - It makes no thread, installs no signal handler where the program has none ([`signals`]), leaves
//!   no signal mask changed, touches errno only where a call fails, and prints only what `docs/`
//!   says it prints.
//! - Every system call of its own is a raw one (rustix): no cancellation point, no interposed
//!   function of another library, no allocation. [`lock`] keeps signals out while its state is in
//!   use, so a handler that makes the same calls cannot meet it half changed.
//! - No hook panics: nothing is unwrapped or indexed unchecked.
//! - A descriptor of its own is looked at before each use: the program may have closed it and got
//!   the number for a file of its own.
//!
//! Where to begin reading: [`hooks`] has the exported functions, [`shm`] what they do.

// A panic would end, or mislead, somebody else's program.
#![cfg_attr(
    not(test),
    deny(
        clippy::expect_used,
        clippy::indexing_slicing,
        clippy::panic,
        clippy::unreachable,
        clippy::unwrap_used
    )
)]

mod attachments;
mod bells;
mod cancel;
mod config;
mod construct;
mod creds;
mod errno;
mod fork;
mod hooks;
mod inherit;
mod kernel_ids;
mod listing;
mod loading;
mod locals;
mod lock;
mod maps;
mod message;
mod msg;
mod msg_ctl;
mod next;
mod own;
mod own_fd;
mod process;
mod regions;
mod runs;
mod sem;
mod sem_ctl;
mod session;
mod shm;
mod signals;
mod sleep;
mod sys;
mod syscall;
mod sysvipc;
mod text;
mod thread;
mod user;
mod wait;

// The unwinder that std's panic messages refer to, from gcc's archive: without this it comes from
// libgcc_s.so.1, which every program would have to load, map and copy at fork. That is half of
// what starting /bin/true with this library costs.
#[link(name = "gcc_eh", kind = "static", modifiers = "-bundle")]
unsafe extern "C" {}
