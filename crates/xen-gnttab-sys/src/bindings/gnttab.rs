// SPDX-License-Identifier: MIT OR Apache-2.0
//! The functions of `xengnttab.h`, made by bindgen from that header; not to be edited.

pub type va_list = __builtin_va_list;
pub const xentoollog_level_XTL_NONE: xentoollog_level = 0;
pub const xentoollog_level_XTL_DEBUG: xentoollog_level = 1;
pub const xentoollog_level_XTL_VERBOSE: xentoollog_level = 2;
pub const xentoollog_level_XTL_DETAIL: xentoollog_level = 3;
pub const xentoollog_level_XTL_PROGRESS: xentoollog_level = 4;
pub const xentoollog_level_XTL_INFO: xentoollog_level = 5;
pub const xentoollog_level_XTL_NOTICE: xentoollog_level = 6;
pub const xentoollog_level_XTL_WARN: xentoollog_level = 7;
pub const xentoollog_level_XTL_ERROR: xentoollog_level = 8;
pub const xentoollog_level_XTL_CRITICAL: xentoollog_level = 9;
pub const xentoollog_level_XTL_NUM_LEVELS: xentoollog_level = 10;
pub type xentoollog_level = ::std::os::raw::c_uint;
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct xentoollog_logger {
    pub vmessage: ::std::option::Option<
        unsafe extern "C" fn(
            logger: *mut xentoollog_logger,
            level: xentoollog_level,
            errnoval: ::std::os::raw::c_int,
            context: *const ::std::os::raw::c_char,
            format: *const ::std::os::raw::c_char,
            al: *mut __va_list_tag,
        ),
    >,
    pub progress: ::std::option::Option<
        unsafe extern "C" fn(
            logger: *mut xentoollog_logger,
            context: *const ::std::os::raw::c_char,
            doing_what: *const ::std::os::raw::c_char,
            percent: ::std::os::raw::c_int,
            done: ::std::os::raw::c_ulong,
            total: ::std::os::raw::c_ulong,
        ),
    >,
    pub destroy: ::std::option::Option<
        unsafe extern "C" fn(logger: *mut xentoollog_logger),
    >,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of xentoollog_logger"][::std::mem::size_of::<xentoollog_logger>() - 24usize];
    [
        "Alignment of xentoollog_logger",
    ][::std::mem::align_of::<xentoollog_logger>() - 8usize];
    [
        "Offset of field: xentoollog_logger::vmessage",
    ][::std::mem::offset_of!(xentoollog_logger, vmessage) - 0usize];
    [
        "Offset of field: xentoollog_logger::progress",
    ][::std::mem::offset_of!(xentoollog_logger, progress) - 8usize];
    [
        "Offset of field: xentoollog_logger::destroy",
    ][::std::mem::offset_of!(xentoollog_logger, destroy) - 16usize];
};
pub type evtchn_port_t = u32;
#[repr(C)]
#[derive(Debug)]
pub struct xengntdev_handle {
    _unused: [u8; 0],
}
pub type xengnttab_handle = xengntdev_handle;
#[repr(C)]
#[derive(Copy, Clone)]
pub struct xengnttab_grant_copy_segment {
    pub source: xengnttab_grant_copy_segment_xengnttab_copy_ptr,
    pub dest: xengnttab_grant_copy_segment_xengnttab_copy_ptr,
    pub len: u16,
    pub flags: u16,
    pub status: i16,
}
#[repr(C)]
#[derive(Copy, Clone)]
pub union xengnttab_grant_copy_segment_xengnttab_copy_ptr {
    pub virt: *mut ::std::os::raw::c_void,
    pub foreign: xengnttab_grant_copy_segment_xengnttab_copy_ptr__bindgen_ty_1,
}
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct xengnttab_grant_copy_segment_xengnttab_copy_ptr__bindgen_ty_1 {
    pub ref_: u32,
    pub offset: u16,
    pub domid: u16,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    [
        "Size of xengnttab_grant_copy_segment_xengnttab_copy_ptr__bindgen_ty_1",
    ][::std::mem::size_of::<
        xengnttab_grant_copy_segment_xengnttab_copy_ptr__bindgen_ty_1,
    >() - 8usize];
    [
        "Alignment of xengnttab_grant_copy_segment_xengnttab_copy_ptr__bindgen_ty_1",
    ][::std::mem::align_of::<
        xengnttab_grant_copy_segment_xengnttab_copy_ptr__bindgen_ty_1,
    >() - 4usize];
    [
        "Offset of field: xengnttab_grant_copy_segment_xengnttab_copy_ptr__bindgen_ty_1::ref_",
    ][::std::mem::offset_of!(
        xengnttab_grant_copy_segment_xengnttab_copy_ptr__bindgen_ty_1, ref_
    ) - 0usize];
    [
        "Offset of field: xengnttab_grant_copy_segment_xengnttab_copy_ptr__bindgen_ty_1::offset",
    ][::std::mem::offset_of!(
        xengnttab_grant_copy_segment_xengnttab_copy_ptr__bindgen_ty_1, offset
    ) - 4usize];
    [
        "Offset of field: xengnttab_grant_copy_segment_xengnttab_copy_ptr__bindgen_ty_1::domid",
    ][::std::mem::offset_of!(
        xengnttab_grant_copy_segment_xengnttab_copy_ptr__bindgen_ty_1, domid
    ) - 6usize];
};
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    [
        "Size of xengnttab_grant_copy_segment_xengnttab_copy_ptr",
    ][::std::mem::size_of::<xengnttab_grant_copy_segment_xengnttab_copy_ptr>() - 8usize];
    [
        "Alignment of xengnttab_grant_copy_segment_xengnttab_copy_ptr",
    ][::std::mem::align_of::<xengnttab_grant_copy_segment_xengnttab_copy_ptr>()
        - 8usize];
    [
        "Offset of field: xengnttab_grant_copy_segment_xengnttab_copy_ptr::virt",
    ][::std::mem::offset_of!(xengnttab_grant_copy_segment_xengnttab_copy_ptr, virt)
        - 0usize];
    [
        "Offset of field: xengnttab_grant_copy_segment_xengnttab_copy_ptr::foreign",
    ][::std::mem::offset_of!(xengnttab_grant_copy_segment_xengnttab_copy_ptr, foreign)
        - 0usize];
};
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    [
        "Size of xengnttab_grant_copy_segment",
    ][::std::mem::size_of::<xengnttab_grant_copy_segment>() - 24usize];
    [
        "Alignment of xengnttab_grant_copy_segment",
    ][::std::mem::align_of::<xengnttab_grant_copy_segment>() - 8usize];
    [
        "Offset of field: xengnttab_grant_copy_segment::source",
    ][::std::mem::offset_of!(xengnttab_grant_copy_segment, source) - 0usize];
    [
        "Offset of field: xengnttab_grant_copy_segment::dest",
    ][::std::mem::offset_of!(xengnttab_grant_copy_segment, dest) - 8usize];
    [
        "Offset of field: xengnttab_grant_copy_segment::len",
    ][::std::mem::offset_of!(xengnttab_grant_copy_segment, len) - 16usize];
    [
        "Offset of field: xengnttab_grant_copy_segment::flags",
    ][::std::mem::offset_of!(xengnttab_grant_copy_segment, flags) - 18usize];
    [
        "Offset of field: xengnttab_grant_copy_segment::status",
    ][::std::mem::offset_of!(xengnttab_grant_copy_segment, status) - 20usize];
};
pub type xengnttab_grant_copy_segment_t = xengnttab_grant_copy_segment;
pub type xengntshr_handle = xengntdev_handle;
pub type __builtin_va_list = [__va_list_tag; 1usize];
#[repr(C)]
#[derive(Debug, Copy, Clone)]
pub struct __va_list_tag {
    pub gp_offset: ::std::os::raw::c_uint,
    pub fp_offset: ::std::os::raw::c_uint,
    pub overflow_arg_area: *mut ::std::os::raw::c_void,
    pub reg_save_area: *mut ::std::os::raw::c_void,
}
#[allow(clippy::unnecessary_operation, clippy::identity_op)]
const _: () = {
    ["Size of __va_list_tag"][::std::mem::size_of::<__va_list_tag>() - 24usize];
    ["Alignment of __va_list_tag"][::std::mem::align_of::<__va_list_tag>() - 8usize];
    [
        "Offset of field: __va_list_tag::gp_offset",
    ][::std::mem::offset_of!(__va_list_tag, gp_offset) - 0usize];
    [
        "Offset of field: __va_list_tag::fp_offset",
    ][::std::mem::offset_of!(__va_list_tag, fp_offset) - 4usize];
    [
        "Offset of field: __va_list_tag::overflow_arg_area",
    ][::std::mem::offset_of!(__va_list_tag, overflow_arg_area) - 8usize];
    [
        "Offset of field: __va_list_tag::reg_save_area",
    ][::std::mem::offset_of!(__va_list_tag, reg_save_area) - 16usize];
};
pub struct XenGnttab {
    __library: ::libloading::Library,
    pub xengnttab_open: unsafe extern "C" fn(
        logger: *mut xentoollog_logger,
        open_flags: ::std::os::raw::c_uint,
    ) -> *mut xengnttab_handle,
    pub xengnttab_close: unsafe extern "C" fn(
        xgt: *mut xengnttab_handle,
    ) -> ::std::os::raw::c_int,
    pub xengnttab_fd: unsafe extern "C" fn(
        xgt: *mut xengnttab_handle,
    ) -> ::std::os::raw::c_int,
    pub xengnttab_map_grant_ref: unsafe extern "C" fn(
        xgt: *mut xengnttab_handle,
        domid: u32,
        ref_: u32,
        prot: ::std::os::raw::c_int,
    ) -> *mut ::std::os::raw::c_void,
    pub xengnttab_map_grant_refs: unsafe extern "C" fn(
        xgt: *mut xengnttab_handle,
        count: u32,
        domids: *mut u32,
        refs: *mut u32,
        prot: ::std::os::raw::c_int,
    ) -> *mut ::std::os::raw::c_void,
    pub xengnttab_map_domain_grant_refs: unsafe extern "C" fn(
        xgt: *mut xengnttab_handle,
        count: u32,
        domid: u32,
        refs: *mut u32,
        prot: ::std::os::raw::c_int,
    ) -> *mut ::std::os::raw::c_void,
    pub xengnttab_map_grant_ref_notify: unsafe extern "C" fn(
        xgt: *mut xengnttab_handle,
        domid: u32,
        ref_: u32,
        prot: ::std::os::raw::c_int,
        notify_offset: u32,
        notify_port: evtchn_port_t,
    ) -> *mut ::std::os::raw::c_void,
    pub xengnttab_unmap: unsafe extern "C" fn(
        xgt: *mut xengnttab_handle,
        start_address: *mut ::std::os::raw::c_void,
        count: u32,
    ) -> ::std::os::raw::c_int,
    pub xengnttab_set_max_grants: unsafe extern "C" fn(
        xgt: *mut xengnttab_handle,
        nr_grants: u32,
    ) -> ::std::os::raw::c_int,
    pub xengnttab_grant_copy: unsafe extern "C" fn(
        xgt: *mut xengnttab_handle,
        count: u32,
        segs: *mut xengnttab_grant_copy_segment_t,
    ) -> ::std::os::raw::c_int,
    pub xengnttab_dmabuf_exp_from_refs: unsafe extern "C" fn(
        xgt: *mut xengnttab_handle,
        domid: u32,
        flags: u32,
        count: u32,
        refs: *const u32,
        fd: *mut u32,
    ) -> ::std::os::raw::c_int,
    pub xengnttab_dmabuf_exp_wait_released: unsafe extern "C" fn(
        xgt: *mut xengnttab_handle,
        fd: u32,
        wait_to_ms: u32,
    ) -> ::std::os::raw::c_int,
    pub xengnttab_dmabuf_imp_to_refs: unsafe extern "C" fn(
        xgt: *mut xengnttab_handle,
        domid: u32,
        fd: u32,
        count: u32,
        refs: *mut u32,
    ) -> ::std::os::raw::c_int,
    pub xengnttab_dmabuf_imp_release: unsafe extern "C" fn(
        xgt: *mut xengnttab_handle,
        fd: u32,
    ) -> ::std::os::raw::c_int,
    pub xengntshr_open: unsafe extern "C" fn(
        logger: *mut xentoollog_logger,
        open_flags: ::std::os::raw::c_uint,
    ) -> *mut xengntshr_handle,
    pub xengntshr_close: unsafe extern "C" fn(
        xgs: *mut xengntshr_handle,
    ) -> ::std::os::raw::c_int,
    pub xengntshr_fd: unsafe extern "C" fn(
        xgs: *mut xengntshr_handle,
    ) -> ::std::os::raw::c_int,
    pub xengntshr_share_pages: unsafe extern "C" fn(
        xgs: *mut xengntshr_handle,
        domid: u32,
        count: ::std::os::raw::c_int,
        refs: *mut u32,
        writable: ::std::os::raw::c_int,
    ) -> *mut ::std::os::raw::c_void,
    pub xengntshr_share_page_notify: unsafe extern "C" fn(
        xgs: *mut xengntshr_handle,
        domid: u32,
        ref_: *mut u32,
        writable: ::std::os::raw::c_int,
        notify_offset: u32,
        notify_port: evtchn_port_t,
    ) -> *mut ::std::os::raw::c_void,
    pub xengntshr_unshare: unsafe extern "C" fn(
        xgs: *mut xengntshr_handle,
        start_address: *mut ::std::os::raw::c_void,
        count: u32,
    ) -> ::std::os::raw::c_int,
}
impl XenGnttab {
    pub unsafe fn new<P>(path: P) -> Result<Self, ::libloading::Error>
    where
        P: AsRef<::std::ffi::OsStr>,
    {
        let path = path.as_ref();
        let library = unsafe { ::libloading::Library::new(path) }?;
        unsafe { Self::from_library(library) }
    }
    pub unsafe fn from_library<L>(library: L) -> Result<Self, ::libloading::Error>
    where
        L: Into<::libloading::Library>,
    {
        let __library = library.into();
        let xengnttab_open = unsafe { __library.get(b"xengnttab_open\0") }
            .map(|sym| *sym)?;
        let xengnttab_close = unsafe { __library.get(b"xengnttab_close\0") }
            .map(|sym| *sym)?;
        let xengnttab_fd = unsafe { __library.get(b"xengnttab_fd\0") }.map(|sym| *sym)?;
        let xengnttab_map_grant_ref = unsafe {
            __library.get(b"xengnttab_map_grant_ref\0")
        }
            .map(|sym| *sym)?;
        let xengnttab_map_grant_refs = unsafe {
            __library.get(b"xengnttab_map_grant_refs\0")
        }
            .map(|sym| *sym)?;
        let xengnttab_map_domain_grant_refs = unsafe {
            __library.get(b"xengnttab_map_domain_grant_refs\0")
        }
            .map(|sym| *sym)?;
        let xengnttab_map_grant_ref_notify = unsafe {
            __library.get(b"xengnttab_map_grant_ref_notify\0")
        }
            .map(|sym| *sym)?;
        let xengnttab_unmap = unsafe { __library.get(b"xengnttab_unmap\0") }
            .map(|sym| *sym)?;
        let xengnttab_set_max_grants = unsafe {
            __library.get(b"xengnttab_set_max_grants\0")
        }
            .map(|sym| *sym)?;
        let xengnttab_grant_copy = unsafe { __library.get(b"xengnttab_grant_copy\0") }
            .map(|sym| *sym)?;
        let xengnttab_dmabuf_exp_from_refs = unsafe {
            __library.get(b"xengnttab_dmabuf_exp_from_refs\0")
        }
            .map(|sym| *sym)?;
        let xengnttab_dmabuf_exp_wait_released = unsafe {
            __library.get(b"xengnttab_dmabuf_exp_wait_released\0")
        }
            .map(|sym| *sym)?;
        let xengnttab_dmabuf_imp_to_refs = unsafe {
            __library.get(b"xengnttab_dmabuf_imp_to_refs\0")
        }
            .map(|sym| *sym)?;
        let xengnttab_dmabuf_imp_release = unsafe {
            __library.get(b"xengnttab_dmabuf_imp_release\0")
        }
            .map(|sym| *sym)?;
        let xengntshr_open = unsafe { __library.get(b"xengntshr_open\0") }
            .map(|sym| *sym)?;
        let xengntshr_close = unsafe { __library.get(b"xengntshr_close\0") }
            .map(|sym| *sym)?;
        let xengntshr_fd = unsafe { __library.get(b"xengntshr_fd\0") }.map(|sym| *sym)?;
        let xengntshr_share_pages = unsafe { __library.get(b"xengntshr_share_pages\0") }
            .map(|sym| *sym)?;
        let xengntshr_share_page_notify = unsafe {
            __library.get(b"xengntshr_share_page_notify\0")
        }
            .map(|sym| *sym)?;
        let xengntshr_unshare = unsafe { __library.get(b"xengntshr_unshare\0") }
            .map(|sym| *sym)?;
        Ok(XenGnttab {
            __library,
            xengnttab_open,
            xengnttab_close,
            xengnttab_fd,
            xengnttab_map_grant_ref,
            xengnttab_map_grant_refs,
            xengnttab_map_domain_grant_refs,
            xengnttab_map_grant_ref_notify,
            xengnttab_unmap,
            xengnttab_set_max_grants,
            xengnttab_grant_copy,
            xengnttab_dmabuf_exp_from_refs,
            xengnttab_dmabuf_exp_wait_released,
            xengnttab_dmabuf_imp_to_refs,
            xengnttab_dmabuf_imp_release,
            xengntshr_open,
            xengntshr_close,
            xengntshr_fd,
            xengntshr_share_pages,
            xengntshr_share_page_notify,
            xengntshr_unshare,
        })
    }
    pub unsafe fn xengnttab_open(
        &self,
        logger: *mut xentoollog_logger,
        open_flags: ::std::os::raw::c_uint,
    ) -> *mut xengnttab_handle {
        unsafe { (self.xengnttab_open)(logger, open_flags) }
    }
    pub unsafe fn xengnttab_close(
        &self,
        xgt: *mut xengnttab_handle,
    ) -> ::std::os::raw::c_int {
        unsafe { (self.xengnttab_close)(xgt) }
    }
    pub unsafe fn xengnttab_fd(
        &self,
        xgt: *mut xengnttab_handle,
    ) -> ::std::os::raw::c_int {
        unsafe { (self.xengnttab_fd)(xgt) }
    }
    pub unsafe fn xengnttab_map_grant_ref(
        &self,
        xgt: *mut xengnttab_handle,
        domid: u32,
        ref_: u32,
        prot: ::std::os::raw::c_int,
    ) -> *mut ::std::os::raw::c_void {
        unsafe { (self.xengnttab_map_grant_ref)(xgt, domid, ref_, prot) }
    }
    pub unsafe fn xengnttab_map_grant_refs(
        &self,
        xgt: *mut xengnttab_handle,
        count: u32,
        domids: *mut u32,
        refs: *mut u32,
        prot: ::std::os::raw::c_int,
    ) -> *mut ::std::os::raw::c_void {
        unsafe { (self.xengnttab_map_grant_refs)(xgt, count, domids, refs, prot) }
    }
    pub unsafe fn xengnttab_map_domain_grant_refs(
        &self,
        xgt: *mut xengnttab_handle,
        count: u32,
        domid: u32,
        refs: *mut u32,
        prot: ::std::os::raw::c_int,
    ) -> *mut ::std::os::raw::c_void {
        unsafe { (self.xengnttab_map_domain_grant_refs)(xgt, count, domid, refs, prot) }
    }
    pub unsafe fn xengnttab_map_grant_ref_notify(
        &self,
        xgt: *mut xengnttab_handle,
        domid: u32,
        ref_: u32,
        prot: ::std::os::raw::c_int,
        notify_offset: u32,
        notify_port: evtchn_port_t,
    ) -> *mut ::std::os::raw::c_void {
        unsafe {
            (self
                .xengnttab_map_grant_ref_notify)(
                xgt,
                domid,
                ref_,
                prot,
                notify_offset,
                notify_port,
            )
        }
    }
    pub unsafe fn xengnttab_unmap(
        &self,
        xgt: *mut xengnttab_handle,
        start_address: *mut ::std::os::raw::c_void,
        count: u32,
    ) -> ::std::os::raw::c_int {
        unsafe { (self.xengnttab_unmap)(xgt, start_address, count) }
    }
    pub unsafe fn xengnttab_set_max_grants(
        &self,
        xgt: *mut xengnttab_handle,
        nr_grants: u32,
    ) -> ::std::os::raw::c_int {
        unsafe { (self.xengnttab_set_max_grants)(xgt, nr_grants) }
    }
    pub unsafe fn xengnttab_grant_copy(
        &self,
        xgt: *mut xengnttab_handle,
        count: u32,
        segs: *mut xengnttab_grant_copy_segment_t,
    ) -> ::std::os::raw::c_int {
        unsafe { (self.xengnttab_grant_copy)(xgt, count, segs) }
    }
    pub unsafe fn xengnttab_dmabuf_exp_from_refs(
        &self,
        xgt: *mut xengnttab_handle,
        domid: u32,
        flags: u32,
        count: u32,
        refs: *const u32,
        fd: *mut u32,
    ) -> ::std::os::raw::c_int {
        unsafe {
            (self.xengnttab_dmabuf_exp_from_refs)(xgt, domid, flags, count, refs, fd)
        }
    }
    pub unsafe fn xengnttab_dmabuf_exp_wait_released(
        &self,
        xgt: *mut xengnttab_handle,
        fd: u32,
        wait_to_ms: u32,
    ) -> ::std::os::raw::c_int {
        unsafe { (self.xengnttab_dmabuf_exp_wait_released)(xgt, fd, wait_to_ms) }
    }
    pub unsafe fn xengnttab_dmabuf_imp_to_refs(
        &self,
        xgt: *mut xengnttab_handle,
        domid: u32,
        fd: u32,
        count: u32,
        refs: *mut u32,
    ) -> ::std::os::raw::c_int {
        unsafe { (self.xengnttab_dmabuf_imp_to_refs)(xgt, domid, fd, count, refs) }
    }
    pub unsafe fn xengnttab_dmabuf_imp_release(
        &self,
        xgt: *mut xengnttab_handle,
        fd: u32,
    ) -> ::std::os::raw::c_int {
        unsafe { (self.xengnttab_dmabuf_imp_release)(xgt, fd) }
    }
    pub unsafe fn xengntshr_open(
        &self,
        logger: *mut xentoollog_logger,
        open_flags: ::std::os::raw::c_uint,
    ) -> *mut xengntshr_handle {
        unsafe { (self.xengntshr_open)(logger, open_flags) }
    }
    pub unsafe fn xengntshr_close(
        &self,
        xgs: *mut xengntshr_handle,
    ) -> ::std::os::raw::c_int {
        unsafe { (self.xengntshr_close)(xgs) }
    }
    pub unsafe fn xengntshr_fd(
        &self,
        xgs: *mut xengntshr_handle,
    ) -> ::std::os::raw::c_int {
        unsafe { (self.xengntshr_fd)(xgs) }
    }
    pub unsafe fn xengntshr_share_pages(
        &self,
        xgs: *mut xengntshr_handle,
        domid: u32,
        count: ::std::os::raw::c_int,
        refs: *mut u32,
        writable: ::std::os::raw::c_int,
    ) -> *mut ::std::os::raw::c_void {
        unsafe { (self.xengntshr_share_pages)(xgs, domid, count, refs, writable) }
    }
    pub unsafe fn xengntshr_share_page_notify(
        &self,
        xgs: *mut xengntshr_handle,
        domid: u32,
        ref_: *mut u32,
        writable: ::std::os::raw::c_int,
        notify_offset: u32,
        notify_port: evtchn_port_t,
    ) -> *mut ::std::os::raw::c_void {
        unsafe {
            (self
                .xengntshr_share_page_notify)(
                xgs,
                domid,
                ref_,
                writable,
                notify_offset,
                notify_port,
            )
        }
    }
    pub unsafe fn xengntshr_unshare(
        &self,
        xgs: *mut xengntshr_handle,
        start_address: *mut ::std::os::raw::c_void,
        count: u32,
    ) -> ::std::os::raw::c_int {
        unsafe { (self.xengntshr_unshare)(xgs, start_address, count) }
    }
}
