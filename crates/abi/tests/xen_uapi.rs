// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is said here of the kernel's drivers for Xen is what the kernel's own headers say: a C
//! compiler reads them and compares.

use std::io::Write;
use std::mem::{offset_of, size_of};
use std::process::{Command, Stdio};
use vshmem_abi::doorbell::IOCTL_EVTCHN_NOTIFY;
use vshmem_abi::grants::{
    AllocGref, DeallocGref, GNTALLOC_FLAG_WRITABLE, GrantRef, IOCTL_GNTALLOC_ALLOC_GREF,
    IOCTL_GNTALLOC_DEALLOC_GREF, IOCTL_GNTDEV_MAP_GRANT_REF, IOCTL_GNTDEV_UNMAP_GRANT_REF,
    MapGrantRef, UnmapGrantRef,
};

/// What the header uses of Xen's own headers without including them.
const BEFORE: &str = "#include <stddef.h>\n#include <stdint.h>\n#include <sys/ioctl.h>\n\
    typedef uint32_t grant_ref_t;\ntypedef uint16_t domid_t;\n";

/// Has the C compiler check that each expression has the value.
fn assert_in_c(header: &str, equal: &[(&str, usize)]) {
    let mut source = format!("{BEFORE}#include <{header}>\n");
    for (expression, value) in equal {
        source += &format!("_Static_assert(({expression}) == {value}, \"{value}\");\n");
    }
    let mut compiler = Command::new("gcc")
        .args(["-std=gnu11", "-fsyntax-only", "-x", "c", "-"])
        .stdin(Stdio::piped())
        .spawn()
        .expect("gcc (Debian package gcc)");
    let mut input = compiler.stdin.take().expect("a pipe");
    input.write_all(source.as_bytes()).expect("gcc reads");
    drop(input);
    assert!(compiler.wait().expect("gcc ends").success(), "{source}");
}

#[test]
fn gntdev_is_asked_as_the_kernels_header_says() {
    let map = "struct ioctl_gntdev_map_grant_ref";
    let one = "struct ioctl_gntdev_grant_ref";
    let unmap = "struct ioctl_gntdev_unmap_grant_ref";
    let list = [
        (
            "IOCTL_GNTDEV_MAP_GRANT_REF".to_owned(),
            IOCTL_GNTDEV_MAP_GRANT_REF as usize,
        ),
        (
            "IOCTL_GNTDEV_UNMAP_GRANT_REF".to_owned(),
            IOCTL_GNTDEV_UNMAP_GRANT_REF as usize,
        ),
        (
            format!("offsetof({map}, count)"),
            offset_of!(MapGrantRef, count),
        ),
        (
            format!("offsetof({map}, index)"),
            offset_of!(MapGrantRef, index),
        ),
        (format!("offsetof({map}, refs)"), size_of::<MapGrantRef>()),
        (format!("sizeof({one})"), size_of::<GrantRef>()),
        (
            format!("offsetof({one}, domid)"),
            offset_of!(GrantRef, domid),
        ),
        (
            format!("offsetof({one}, ref)"),
            offset_of!(GrantRef, reference),
        ),
        (format!("sizeof({unmap})"), size_of::<UnmapGrantRef>()),
        (
            format!("offsetof({unmap}, index)"),
            offset_of!(UnmapGrantRef, index),
        ),
        (
            format!("offsetof({unmap}, count)"),
            offset_of!(UnmapGrantRef, count),
        ),
    ];
    let list: Vec<(&str, usize)> = list.iter().map(|(e, v)| (e.as_str(), *v)).collect();
    assert_in_c("xen/gntdev.h", &list);
}

#[test]
fn evtchn_is_asked_as_the_kernels_header_says() {
    let list = [
        ("IOCTL_EVTCHN_NOTIFY", IOCTL_EVTCHN_NOTIFY as usize),
        ("sizeof(struct ioctl_evtchn_notify)", size_of::<u32>()),
    ];
    assert_in_c("xen/evtchn.h", &list);
}

#[test]
fn gntalloc_is_asked_as_the_kernels_header_says() {
    let alloc = |field| format!("offsetof(struct ioctl_gntalloc_alloc_gref, {field})");
    let dealloc = "struct ioctl_gntalloc_dealloc_gref";
    let list = [
        (
            "IOCTL_GNTALLOC_ALLOC_GREF".to_owned(),
            IOCTL_GNTALLOC_ALLOC_GREF as usize,
        ),
        (
            "IOCTL_GNTALLOC_DEALLOC_GREF".to_owned(),
            IOCTL_GNTALLOC_DEALLOC_GREF as usize,
        ),
        (
            "GNTALLOC_FLAG_WRITABLE".to_owned(),
            GNTALLOC_FLAG_WRITABLE.into(),
        ),
        (alloc("domid"), offset_of!(AllocGref, domid)),
        (alloc("flags"), offset_of!(AllocGref, flags)),
        (alloc("count"), offset_of!(AllocGref, count)),
        (alloc("index"), offset_of!(AllocGref, index)),
        (alloc("gref_ids"), size_of::<AllocGref>()),
        (format!("sizeof({dealloc})"), size_of::<DeallocGref>()),
        (
            format!("offsetof({dealloc}, index)"),
            offset_of!(DeallocGref, index),
        ),
        (
            format!("offsetof({dealloc}, count)"),
            offset_of!(DeallocGref, count),
        ),
    ];
    let list: Vec<(&str, usize)> = list.iter().map(|(e, v)| (e.as_str(), *v)).collect();
    assert_in_c("xen/gntalloc.h", &list);
}
