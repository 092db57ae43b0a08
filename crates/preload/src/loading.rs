// SPDX-License-Identifier: MIT OR Apache-2.0
//! `dlopen(3)` with `RTLD_DEEPBIND`: an object that is loaded so finds the C library's functions before
//! ours, and its calls would go to the kernel past us (PHP loads all its extensions so). Where keys are routed
//! it is loaded without that flag; what it was for, its own definitions before those of the program, it does not
//! get then.
//!
//! It is written in assembly because it must not have a frame of its own: the C library takes the object that
//! `dlopen` returns to for the one that asks, and looks in the directories that this one names.

use crate::config::config;
use crate::next::Next;
use libc::{RTLD_DEEPBIND, c_char, c_int, c_void};

/// The next library's `dlopen`.
// SAFETY: it is only jumped to, from assembly that has its arguments in place.
static NEXT: Next<unsafe extern "C" fn()> = unsafe { Next::new(c"dlopen") };

/// Finds the next library's `dlopen`. Called from assembly with the arguments kept on the stack.
extern "C" fn resolve() {
    NEXT.look_up();
}

/// Whether any key is routed. Called from assembly likewise.
extern "C" fn routes() -> bool {
    config().is_some()
}

/// `void *dlopen(const char *file, int flags)`.
///
/// # Safety
/// As the function that it stands before.
#[unsafe(no_mangle)]
#[unsafe(naked)]
unsafe extern "C" fn dlopen(file: *const c_char, flags: c_int) -> *mut c_void {
    core::arch::naked_asm!(
        "test esi, {deep}",
        "jnz 4f",
        "2:",
        "mov rax, qword ptr [rip + {next}]",
        "test rax, rax",
        "jz 3f",
        "jmp rax",
        "3:",                               // first time: keep the arguments and look it up
        "push rdi",
        "push rsi",
        "sub rsp, 8",                       // the stack is aligned at a call
        "call {resolve}",
        "add rsp, 8",
        "pop rsi",
        "pop rdi",
        "jmp 2b",
        "4:",
        "push rdi",
        "push rsi",
        "sub rsp, 8",
        "call {routes}",
        "add rsp, 8",
        "pop rsi",
        "pop rdi",
        "test al, al",
        "jz 2b",
        "and esi, {others}",
        "jmp 2b",
        deep = const RTLD_DEEPBIND,
        others = const !RTLD_DEEPBIND,
        next = sym NEXT,
        resolve = sym resolve,
        routes = sym routes,
    )
}
