// SPDX-License-Identifier: MIT OR Apache-2.0
//! The functions that install signal handlers ([`crate::signals`]), under all the names that the C
//! library has for them.

use crate::config::config;
use crate::next::Next;
use crate::signals::{self, SigAction, SigInterrupt, Signal};
use libc::{c_int, sighandler_t};
use redhook::hook;

next! {
    SIGACTION: c"sigaction" as SigAction;
    SIGNAL: c"signal" as Signal;
    SYSV_SIGNAL: c"sysv_signal" as Signal;
    SIGSET: c"sigset" as Signal;
    SIGINTERRUPT: c"siginterrupt" as SigInterrupt;
}

macro_rules! sigactions {
    ($($name:ident => $hook:ident;)*) => {
        $(
            hook! {
                unsafe fn $name(number: c_int, new: *const libc::sigaction, old: *mut libc::sigaction) -> c_int
                    => $hook
                {
                    if config().is_some() {
                        unsafe { signals::action(SIGACTION.get(), number, new, old) }
                    } else {
                        unsafe { SIGACTION.get()(number, new, old) }
                    }
                }
            }
        )*
    };
}

sigactions! {
    sigaction => routed_sigaction;
    __sigaction => routed_underscored_sigaction;
}

macro_rules! signals {
    ($($name:ident => $hook:ident, $real:ident, $module:ident;)*) => {
        $(
            hook! {
                unsafe fn $name(number: c_int, handler: sighandler_t) -> sighandler_t => $hook {
                    if config().is_some() {
                        unsafe { signals::$module($real.get(), SIGACTION.get(), number, handler) }
                    } else {
                        unsafe { $real.get()(number, handler) }
                    }
                }
            }
        )*
    };
}

signals! {
    signal => routed_signal, SIGNAL, signal;
    bsd_signal => routed_bsd_signal, SIGNAL, signal;
    ssignal => routed_ssignal, SIGNAL, signal;
    sysv_signal => routed_sysv_signal, SYSV_SIGNAL, sysv_signal;
    __sysv_signal => routed_underscored_sysv_signal, SYSV_SIGNAL, sysv_signal;
    sigset => routed_sigset, SIGSET, sigset;
}

hook! {
    unsafe fn siginterrupt(number: c_int, interrupts: c_int) -> c_int => routed_siginterrupt {
        unsafe { signals::siginterrupt(SIGINTERRUPT.get(), number, interrupts) }
    }
}
