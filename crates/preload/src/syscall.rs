// SPDX-License-Identifier: MIT OR Apache-2.0
//! `syscall(2)`: the numbers of System V IPC are routed like the functions of those names, those that
//! change the caller's user and groups are noticed; all others go on.
//!
//! It is written in assembly because it must not have a frame of its own: `syscall(SYS_vfork)`
//! returns twice on one stack, and how many arguments there are only the callee knows.

use crate::next::Next;
use crate::{creds, hooks};
use libc::{c_int, c_long, c_void};

/// The next library's `syscall`.
// SAFETY: it is only jumped to, from assembly that has its arguments in place.
static NEXT: Next<unsafe extern "C" fn()> = unsafe { Next::new(c"syscall") };

/// Finds the next library's `syscall`. Called from assembly with the arguments kept on the stack.
extern "C" fn resolve() {
    NEXT.look_up();
}

/// `long syscall(long number, ...)`.
///
/// # Safety
/// As the system call of that number.
#[unsafe(no_mangle)]
#[unsafe(naked)]
unsafe extern "C" fn syscall(number: c_long) -> c_long {
    core::arch::naked_asm!(
        "lea rax, [rdi - {shm_first}]",
        "cmp rax, 2",                       // shmget, shmat, shmctl
        "jbe 3f",
        "lea rax, [rdi - {sem_first}]",
        "cmp rax, 7",                       // semget .. shmdt .. msgctl
        "jbe 3f",
        "cmp rdi, {semtimedop}",
        "je 3f",
        "lea rax, [rdi - {creds_first}]",
        "cmp rax, {creds_span}",            // setuid .. setfsgid, and others between them
        "jbe 5f",
        "2:",
        "mov rax, qword ptr [rip + {next}]",
        "test rax, rax",
        "jz 4f",
        "jmp rax",
        "3:",
        "jmp {routed}",
        "4:",                               // first time: keep the arguments and look it up
        "push rdi",
        "push rsi",
        "push rdx",
        "push rcx",
        "push r8",
        "push r9",
        "sub rsp, 8",                       // the stack is aligned at a call
        "call {resolve}",
        "add rsp, 8",
        "pop r9",
        "pop r8",
        "pop rcx",
        "pop rdx",
        "pop rsi",
        "pop rdi",
        "jmp 2b",
        "5:",
        "mov r11d, {creds_calls}",
        "bt r11d, eax",
        "jnc 2b",
        "jmp {creds}",
        shm_first = const libc::SYS_shmget,
        sem_first = const libc::SYS_semget,
        semtimedop = const libc::SYS_semtimedop,
        creds_first = const creds::FIRST,
        creds_span = const creds::SPAN,
        creds_calls = const creds::CALLS,
        creds = sym creds::syscall,
        next = sym NEXT,
        routed = sym routed,
        resolve = sym resolve,
    )
}

// The numbers that the comparisons above take to be neighbours.
const _: () = {
    assert!(libc::SYS_shmat == libc::SYS_shmget + 1 && libc::SYS_shmctl == libc::SYS_shmget + 2);
    assert!(libc::SYS_msgctl == libc::SYS_semget + 7 && libc::SYS_shmdt == libc::SYS_semget + 3);
};

/// Hands a call of System V IPC to what the function of its name does. The C library's functions make
/// the same system call with the same arguments, so what is not routed is none the worse for it. The
/// exported functions themselves are not called: libraries that watch for mappings (UCX, below MPI)
/// write a jump over the beginning of `shmat`, and go on from there by way of `syscall`.
unsafe extern "C" fn routed(
    number: c_long,
    a: c_long,
    b: c_long,
    c: c_long,
    d: c_long,
    e: c_long,
) -> c_long {
    let (id, pointer) = (a as c_int, b as *mut c_void);
    // SAFETY: the arguments are those that the system call of this number takes, as the caller of
    // `syscall` promised.
    unsafe {
        match number {
            libc::SYS_shmget => hooks::routed_shmget(id, b as usize, c as c_int).into(),
            libc::SYS_shmat => hooks::routed_shmat(id, pointer, c as c_int) as c_long,
            libc::SYS_shmdt => hooks::routed_shmdt(a as *const c_void).into(),
            libc::SYS_shmctl => hooks::routed_shmctl(id, b as c_int, c as *mut _).into(),
            libc::SYS_semget => hooks::routed_semget(id, b as c_int, c as c_int).into(),
            libc::SYS_semop => hooks::routed_semop(id, pointer.cast(), c as usize).into(),
            libc::SYS_semtimedop => {
                hooks::routed_semtimedop(id, pointer.cast(), c as usize, d as *const _).into()
            }
            libc::SYS_semctl => {
                hooks::routed_semctl(id, b as c_int, c as c_int, d as *mut c_void).into()
            }
            libc::SYS_msgget => hooks::routed_msgget(id, b as c_int).into(),
            libc::SYS_msgsnd => hooks::routed_msgsnd(id, pointer, c as usize, d as c_int).into(),
            libc::SYS_msgrcv => {
                hooks::routed_msgrcv(id, pointer, c as usize, d, e as c_int) as c_long
            }
            _ => hooks::routed_msgctl(id, b as c_int, c as *mut _).into(),
        }
    }
}
