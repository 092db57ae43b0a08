// SPDX-License-Identifier: MIT OR Apache-2.0
//! The functions that change the caller's user and groups: made as they come, and noticed
//! ([`crate::creds`]).

use crate::creds::after;
use crate::next::Next;
use libc::{c_char, c_int, gid_t, size_t, uid_t};
use redhook::hook;

next! {
    SETUID: c"setuid" as unsafe extern "C" fn(uid_t) -> c_int;
    SETEUID: c"seteuid" as unsafe extern "C" fn(uid_t) -> c_int;
    SETREUID: c"setreuid" as unsafe extern "C" fn(uid_t, uid_t) -> c_int;
    SETRESUID: c"setresuid" as unsafe extern "C" fn(uid_t, uid_t, uid_t) -> c_int;
    SETGID: c"setgid" as unsafe extern "C" fn(gid_t) -> c_int;
    SETEGID: c"setegid" as unsafe extern "C" fn(gid_t) -> c_int;
    SETREGID: c"setregid" as unsafe extern "C" fn(gid_t, gid_t) -> c_int;
    SETRESGID: c"setresgid" as unsafe extern "C" fn(gid_t, gid_t, gid_t) -> c_int;
    SETGROUPS: c"setgroups" as unsafe extern "C" fn(size_t, *const gid_t) -> c_int;
    INITGROUPS: c"initgroups" as unsafe extern "C" fn(*const c_char, gid_t) -> c_int;
    SETFSUID: c"setfsuid" as unsafe extern "C" fn(uid_t) -> c_int;
    SETFSGID: c"setfsgid" as unsafe extern "C" fn(gid_t) -> c_int;
}

hook! {
    unsafe fn setuid(uid: uid_t) -> c_int => noticed_setuid {
        after(unsafe { SETUID.get()(uid) })
    }
}

hook! {
    unsafe fn seteuid(uid: uid_t) -> c_int => noticed_seteuid {
        after(unsafe { SETEUID.get()(uid) })
    }
}

hook! {
    unsafe fn setreuid(real: uid_t, effective: uid_t) -> c_int => noticed_setreuid {
        after(unsafe { SETREUID.get()(real, effective) })
    }
}

hook! {
    unsafe fn setresuid(real: uid_t, effective: uid_t, saved: uid_t) -> c_int => noticed_setresuid {
        after(unsafe { SETRESUID.get()(real, effective, saved) })
    }
}

hook! {
    unsafe fn setgid(gid: gid_t) -> c_int => noticed_setgid {
        after(unsafe { SETGID.get()(gid) })
    }
}

hook! {
    unsafe fn setegid(gid: gid_t) -> c_int => noticed_setegid {
        after(unsafe { SETEGID.get()(gid) })
    }
}

hook! {
    unsafe fn setregid(real: gid_t, effective: gid_t) -> c_int => noticed_setregid {
        after(unsafe { SETREGID.get()(real, effective) })
    }
}

hook! {
    unsafe fn setresgid(real: gid_t, effective: gid_t, saved: gid_t) -> c_int => noticed_setresgid {
        after(unsafe { SETRESGID.get()(real, effective, saved) })
    }
}

hook! {
    unsafe fn setgroups(count: size_t, groups: *const gid_t) -> c_int => noticed_setgroups {
        after(unsafe { SETGROUPS.get()(count, groups) })
    }
}

hook! {
    unsafe fn initgroups(user: *const c_char, group: gid_t) -> c_int => noticed_initgroups {
        after(unsafe { INITGROUPS.get()(user, group) })
    }
}

hook! {
    unsafe fn setfsuid(uid: uid_t) -> c_int => noticed_setfsuid {
        after(unsafe { SETFSUID.get()(uid) })
    }
}

hook! {
    unsafe fn setfsgid(gid: gid_t) -> c_int => noticed_setfsgid {
        after(unsafe { SETFSGID.get()(gid) })
    }
}
