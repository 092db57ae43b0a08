// SPDX-License-Identifier: MIT OR Apache-2.0
//! System calls that rustix does not offer, made directly, and memory of the program that may
//! not be there.

use rustix::io::Errno;
use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous};
use rustix::time::Timespec;
use std::ffi::{c_int, c_long, c_void};
use vshmem_abi::layout::Shared;

/// A signal mask as the kernel has it: one bit a signal.
pub type SignalMask = u64;

/// Makes system call `number`.
///
/// # Safety
/// As the system call with these arguments.
pub unsafe fn raw(number: c_long, args: [usize; 6]) -> Result<usize, Errno> {
    let result: isize;
    // SAFETY: the registers are those of the kernel's calling convention on x86-64; what the call
    // itself does is the caller's promise.
    unsafe {
        std::arch::asm!(
            "syscall",
            inlateout("rax") number as isize => result,
            in("rdi") args[0],
            in("rsi") args[1],
            in("rdx") args[2],
            in("r10") args[3],
            in("r8") args[4],
            in("r9") args[5],
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    if (-4095..0).contains(&result) {
        Err(Errno::from_raw_os_error(-result as i32))
    } else {
        Ok(result as usize)
    }
}

/// The time of a clock. Through the C library, which knows where that is to be had without a system call:
/// rustix looks for itself, and finds what a debugger (valgrind) does not let the program use.
pub fn time_of(clock: libc::clockid_t) -> Timespec {
    let mut now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: the pointer is to a local.
    unsafe { libc::clock_gettime(clock, &mut now) };
    Timespec {
        tv_sec: now.tv_sec,
        tv_nsec: now.tv_nsec,
    }
}

/// Blocks every signal in this thread, also those that the C library keeps to itself for thread
/// cancellation, and returns the mask to put back.
pub fn block_signals() -> SignalMask {
    let all: SignalMask = !0;
    let mut old: SignalMask = 0;
    // SAFETY: both pointers are to masks of the size given.
    let _ = unsafe {
        raw(
            libc::SYS_rt_sigprocmask,
            [
                libc::SIG_SETMASK as usize,
                &raw const all as usize,
                &raw mut old as usize,
                8,
                0,
                0,
            ],
        )
    };
    old
}

/// Puts back a mask that [`block_signals`] returned.
pub fn restore_signals(mask: SignalMask) {
    // SAFETY: the pointer is to a mask of the size given.
    let _ = unsafe {
        raw(
            libc::SYS_rt_sigprocmask,
            [
                libc::SIG_SETMASK as usize,
                &raw const mask as usize,
                0,
                8,
                0,
                0,
            ],
        )
    };
}

unsafe extern "C" {
    /// Not in the libc crate. Sets one word of the thread; makes no system call.
    fn pthread_setcancelstate(state: c_int, old: *mut c_int) -> c_int;
}

/// `PTHREAD_CANCEL_DISABLE` of `pthread.h`.
const CANCEL_DISABLE: c_int = 1;

/// Keeps this thread from being cancelled for as long as it lives. Of the calls of System V IPC two
/// alone are cancellation points, where they wait, but `close` is one, which every owned descriptor ends with:
/// a cancelled thread would end there, with the lock held.
pub struct NoCancel {
    old: c_int,
}

impl NoCancel {
    /// From now on.
    pub fn begin() -> Self {
        let mut old = 0;
        // SAFETY: the pointer is to a local.
        unsafe { pthread_setcancelstate(CANCEL_DISABLE, &raw mut old) };
        Self { old }
    }

    /// Puts it away without an end.
    pub fn suspend(self) -> c_int {
        let old = self.old;
        std::mem::forget(self);
        old
    }

    /// Takes up what [`Self::suspend`] put away in this thread.
    pub fn resume(old: c_int) -> Self {
        Self { old }
    }
}

/// Whether this thread may be cancelled as it is.
pub fn may_be_cancelled() -> bool {
    NoCancel::begin().old != CANCEL_DISABLE
}

impl Drop for NoCancel {
    fn drop(&mut self) {
        // SAFETY: a null pointer is allowed where the old state does not matter.
        unsafe { pthread_setcancelstate(self.old, std::ptr::null_mut()) };
    }
}

/// Whether the thread `tid` belongs to this process.
pub fn is_own_thread(tid: u32) -> bool {
    let pid = own_pid();
    // SAFETY: signal 0 is sent to nobody; only the existence is checked.
    unsafe { raw(libc::SYS_tgkill, [pid as usize, tid as usize, 0, 0, 0, 0]) }.is_ok()
}

/// Copies a `T` from an address that the program gave; `None` where the kernel would say
/// `EFAULT`.
pub fn read_user<T: Copy>(from: *const T) -> Option<T> {
    let mut value = std::mem::MaybeUninit::<T>::uninit();
    let own = part(value.as_mut_ptr(), size_of::<T>());
    // SAFETY: a local of that size.
    if !unsafe { copy(Way::In, &[own], from as usize) } {
        return None;
    }
    // SAFETY: all bytes were copied, and the types read here are plain C structures.
    Some(unsafe { value.assume_init() })
}

/// Copies `value` to an address that the program gave; `false` where the kernel would say
/// `EFAULT`.
pub fn write_user<T: Copy>(to: *mut T, value: &T) -> bool {
    write_user_all(to, std::slice::from_ref(value))
}

/// Copies as many `T` as `to` has from where the program points; `false` where the kernel would say
/// `EFAULT`.
pub fn read_user_all<T: Copy>(from: *const T, to: &mut [T]) -> bool {
    let own = part(to.as_mut_ptr(), size_of_val(to));
    // SAFETY: a slice of that size.
    unsafe { copy(Way::In, &[own], from as usize) }
}

/// Copies all of `from` to where the program points; `false` where the kernel would say `EFAULT`.
pub fn write_user_all<T: Copy>(to: *mut T, from: &[T]) -> bool {
    let own = part(from.as_ptr().cast_mut(), size_of_val(from));
    // SAFETY: a slice of that size, which is read.
    unsafe { copy(Way::Out, &[own], to as usize) }
}

/// A piece of memory of our own, for [`copy`].
pub fn part<T>(at: *mut T, len: usize) -> libc::iovec {
    libc::iovec {
        iov_base: at.cast(),
        iov_len: len,
    }
}

/// Which way [`copy`] goes.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// From the program.
    In,
    /// To the program.
    Out,
}

/// Lets the kernel copy between memory of our own, no more than 1024 pieces, and `theirs`, which it
/// refuses where that is not mapped so. `false`: not all of it was copied.
///
/// # Safety
/// The pieces are there, for writing if the way is [`Way::In`].
pub unsafe fn copy(way: Way, own: &[libc::iovec], theirs: usize) -> bool {
    let len = own.iter().map(|part| part.iov_len).sum();
    let their_part = part(theirs as *mut c_void, len);
    let call = match way {
        Way::In => libc::SYS_process_vm_readv,
        Way::Out => libc::SYS_process_vm_writev,
    };
    let args = [
        own_pid() as usize,
        own.as_ptr() as usize,
        own.len(),
        &raw const their_part as usize,
        1,
        0,
    ];
    // SAFETY: our own pieces are there, as the caller promises; the kernel checks theirs.
    match unsafe { raw(call, args) } {
        Ok(copied) => copied == len,
        Err(Errno::FAULT) => false,
        Err(_) if theirs == 0 => false,
        Err(_) => {
            // A seccomp filter forbids the call. Trust the pointer, as any library would.
            let mut theirs = theirs as *mut u8;
            for part in own {
                let (own, len) = (part.iov_base.cast::<u8>(), part.iov_len);
                let (from, to) = match way {
                    Way::In => (theirs, own),
                    Way::Out => (own, theirs),
                };
                // SAFETY: the program promised that all of it is there when it made its call.
                unsafe { copy_bytes(from, to, len) };
                theirs = theirs.wrapping_add(len);
            }
            true
        }
    }
}

/// Copies memory that others may be writing to meanwhile: by an instruction of the processor, of which
/// the compiler assumes nothing.
///
/// # Safety
/// Both ranges are mapped, the second for writing.
#[inline]
pub unsafe fn copy_bytes(from: *const u8, to: *mut u8, len: usize) {
    // SAFETY: as the caller promises; the direction is upwards, as at every call.
    unsafe {
        std::arch::asm!(
            "rep movsb",
            inout("rcx") len => _,
            inout("rsi") from => _,
            inout("rdi") to => _,
            options(nostack, preserves_flags),
        );
    }
}

/// New memory of our own, zeroed, at an address of the kernel's choice; taken as it is touched.
pub fn anonymous(len: usize) -> Result<*mut c_void, Errno> {
    // SAFETY: replaces nothing.
    unsafe { anonymous_at(std::ptr::null_mut(), len, MapFlags::empty()) }
}

/// [`anonymous`] at a place, as `how` says.
///
/// # Safety
/// With `FIXED`, nothing of what is there is needed any more.
pub unsafe fn anonymous_at(
    at: *mut c_void,
    len: usize,
    how: MapFlags,
) -> Result<*mut c_void, Errno> {
    let prot = ProtFlags::READ | ProtFlags::WRITE;
    // SAFETY: as the caller promises.
    unsafe { mmap_anonymous(at, len, prot, MapFlags::PRIVATE | MapFlags::NORESERVE | how) }
}

/// Memory for what is too large for a stranger's stack, straight from the kernel; zeroed.
pub struct Space {
    at: *mut c_void,
    len: usize,
}

impl Space {
    /// So many bytes; `None` when there is no memory.
    pub fn new(len: usize) -> Option<Self> {
        anonymous(len).ok().map(|at| Self { at, len })
    }

    /// The memory as `count` values, or as many as fit.
    pub fn as_slice_of<T: Copy>(&mut self, count: usize) -> &mut [T] {
        let count = count.min(self.len / size_of::<T>());
        // SAFETY: page-aligned, zeroed at first, long enough; only plain numbers are kept here.
        unsafe { std::slice::from_raw_parts_mut(self.at.cast(), count) }
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        // SAFETY: the range is this mapping, and no reference into it outlives `self`.
        let _ = unsafe { rustix::mm::munmap(self.at, self.len) };
    }
}

/// A zeroed `T` that the kernel zeroes again in every child that gets a copy of this address space,
/// and only there.
pub fn wiped_on_fork<T: Shared>() -> Result<&'static T, Errno> {
    const { assert!(size_of::<T>() <= vshmem_abi::PAGE_SIZE as usize) };
    let len = vshmem_abi::PAGE_SIZE as usize;
    let page = anonymous(len)?;
    // SAFETY: a new private mapping, never unmapped, large and aligned enough for a `T`, which is atomics
    // only and so may be zero.
    unsafe {
        raw(
            libc::SYS_madvise,
            [page as usize, len, libc::MADV_WIPEONFORK as usize, 0, 0, 0],
        )?;
        Ok(&*page.cast::<T>())
    }
}

/// The pid of this process, as it sees it.
pub fn own_pid() -> c_int {
    rustix::process::getpid().as_raw_nonzero().get()
}
