// SPDX-License-Identifier: MIT OR Apache-2.0
//! The functions of `xenevtchn.h`, made by bindgen from that header; not to be edited.

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
pub type domid_t = u16;
pub type evtchn_port_t = u32;
pub type xenevtchn_port_or_error_t = ::std::os::raw::c_int;
#[repr(C)]
#[derive(Debug)]
pub struct xenevtchn_handle {
    _unused: [u8; 0],
}
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
pub struct XenEvtchn {
    __library: ::libloading::Library,
    pub xenevtchn_open: unsafe extern "C" fn(
        logger: *mut xentoollog_logger,
        flags: ::std::os::raw::c_uint,
    ) -> *mut xenevtchn_handle,
    pub xenevtchn_fdopen: unsafe extern "C" fn(
        logger: *mut xentoollog_logger,
        fd: ::std::os::raw::c_int,
        open_flags: ::std::os::raw::c_uint,
    ) -> *mut xenevtchn_handle,
    pub xenevtchn_close: unsafe extern "C" fn(
        xce: *mut xenevtchn_handle,
    ) -> ::std::os::raw::c_int,
    pub xenevtchn_fd: unsafe extern "C" fn(
        xce: *mut xenevtchn_handle,
    ) -> ::std::os::raw::c_int,
    pub xenevtchn_notify: unsafe extern "C" fn(
        xce: *mut xenevtchn_handle,
        port: evtchn_port_t,
    ) -> ::std::os::raw::c_int,
    pub xenevtchn_bind_unbound_port: unsafe extern "C" fn(
        xce: *mut xenevtchn_handle,
        domid: u32,
    ) -> xenevtchn_port_or_error_t,
    pub xenevtchn_bind_interdomain: unsafe extern "C" fn(
        xce: *mut xenevtchn_handle,
        domid: u32,
        remote_port: evtchn_port_t,
    ) -> xenevtchn_port_or_error_t,
    pub xenevtchn_bind_virq: unsafe extern "C" fn(
        xce: *mut xenevtchn_handle,
        virq: ::std::os::raw::c_uint,
    ) -> xenevtchn_port_or_error_t,
    pub xenevtchn_unbind: unsafe extern "C" fn(
        xce: *mut xenevtchn_handle,
        port: evtchn_port_t,
    ) -> ::std::os::raw::c_int,
    pub xenevtchn_pending: unsafe extern "C" fn(
        xce: *mut xenevtchn_handle,
    ) -> xenevtchn_port_or_error_t,
    pub xenevtchn_unmask: unsafe extern "C" fn(
        xce: *mut xenevtchn_handle,
        port: evtchn_port_t,
    ) -> ::std::os::raw::c_int,
    pub xenevtchn_restrict: unsafe extern "C" fn(
        xce: *mut xenevtchn_handle,
        domid: domid_t,
    ) -> ::std::os::raw::c_int,
}
impl XenEvtchn {
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
        let xenevtchn_open = unsafe { __library.get(b"xenevtchn_open\0") }
            .map(|sym| *sym)?;
        let xenevtchn_fdopen = unsafe { __library.get(b"xenevtchn_fdopen\0") }
            .map(|sym| *sym)?;
        let xenevtchn_close = unsafe { __library.get(b"xenevtchn_close\0") }
            .map(|sym| *sym)?;
        let xenevtchn_fd = unsafe { __library.get(b"xenevtchn_fd\0") }.map(|sym| *sym)?;
        let xenevtchn_notify = unsafe { __library.get(b"xenevtchn_notify\0") }
            .map(|sym| *sym)?;
        let xenevtchn_bind_unbound_port = unsafe {
            __library.get(b"xenevtchn_bind_unbound_port\0")
        }
            .map(|sym| *sym)?;
        let xenevtchn_bind_interdomain = unsafe {
            __library.get(b"xenevtchn_bind_interdomain\0")
        }
            .map(|sym| *sym)?;
        let xenevtchn_bind_virq = unsafe { __library.get(b"xenevtchn_bind_virq\0") }
            .map(|sym| *sym)?;
        let xenevtchn_unbind = unsafe { __library.get(b"xenevtchn_unbind\0") }
            .map(|sym| *sym)?;
        let xenevtchn_pending = unsafe { __library.get(b"xenevtchn_pending\0") }
            .map(|sym| *sym)?;
        let xenevtchn_unmask = unsafe { __library.get(b"xenevtchn_unmask\0") }
            .map(|sym| *sym)?;
        let xenevtchn_restrict = unsafe { __library.get(b"xenevtchn_restrict\0") }
            .map(|sym| *sym)?;
        Ok(XenEvtchn {
            __library,
            xenevtchn_open,
            xenevtchn_fdopen,
            xenevtchn_close,
            xenevtchn_fd,
            xenevtchn_notify,
            xenevtchn_bind_unbound_port,
            xenevtchn_bind_interdomain,
            xenevtchn_bind_virq,
            xenevtchn_unbind,
            xenevtchn_pending,
            xenevtchn_unmask,
            xenevtchn_restrict,
        })
    }
    pub unsafe fn xenevtchn_open(
        &self,
        logger: *mut xentoollog_logger,
        flags: ::std::os::raw::c_uint,
    ) -> *mut xenevtchn_handle {
        unsafe { (self.xenevtchn_open)(logger, flags) }
    }
    pub unsafe fn xenevtchn_fdopen(
        &self,
        logger: *mut xentoollog_logger,
        fd: ::std::os::raw::c_int,
        open_flags: ::std::os::raw::c_uint,
    ) -> *mut xenevtchn_handle {
        unsafe { (self.xenevtchn_fdopen)(logger, fd, open_flags) }
    }
    pub unsafe fn xenevtchn_close(
        &self,
        xce: *mut xenevtchn_handle,
    ) -> ::std::os::raw::c_int {
        unsafe { (self.xenevtchn_close)(xce) }
    }
    pub unsafe fn xenevtchn_fd(
        &self,
        xce: *mut xenevtchn_handle,
    ) -> ::std::os::raw::c_int {
        unsafe { (self.xenevtchn_fd)(xce) }
    }
    pub unsafe fn xenevtchn_notify(
        &self,
        xce: *mut xenevtchn_handle,
        port: evtchn_port_t,
    ) -> ::std::os::raw::c_int {
        unsafe { (self.xenevtchn_notify)(xce, port) }
    }
    pub unsafe fn xenevtchn_bind_unbound_port(
        &self,
        xce: *mut xenevtchn_handle,
        domid: u32,
    ) -> xenevtchn_port_or_error_t {
        unsafe { (self.xenevtchn_bind_unbound_port)(xce, domid) }
    }
    pub unsafe fn xenevtchn_bind_interdomain(
        &self,
        xce: *mut xenevtchn_handle,
        domid: u32,
        remote_port: evtchn_port_t,
    ) -> xenevtchn_port_or_error_t {
        unsafe { (self.xenevtchn_bind_interdomain)(xce, domid, remote_port) }
    }
    pub unsafe fn xenevtchn_bind_virq(
        &self,
        xce: *mut xenevtchn_handle,
        virq: ::std::os::raw::c_uint,
    ) -> xenevtchn_port_or_error_t {
        unsafe { (self.xenevtchn_bind_virq)(xce, virq) }
    }
    pub unsafe fn xenevtchn_unbind(
        &self,
        xce: *mut xenevtchn_handle,
        port: evtchn_port_t,
    ) -> ::std::os::raw::c_int {
        unsafe { (self.xenevtchn_unbind)(xce, port) }
    }
    pub unsafe fn xenevtchn_pending(
        &self,
        xce: *mut xenevtchn_handle,
    ) -> xenevtchn_port_or_error_t {
        unsafe { (self.xenevtchn_pending)(xce) }
    }
    pub unsafe fn xenevtchn_unmask(
        &self,
        xce: *mut xenevtchn_handle,
        port: evtchn_port_t,
    ) -> ::std::os::raw::c_int {
        unsafe { (self.xenevtchn_unmask)(xce, port) }
    }
    pub unsafe fn xenevtchn_restrict(
        &self,
        xce: *mut xenevtchn_handle,
        domid: domid_t,
    ) -> ::std::os::raw::c_int {
        unsafe { (self.xenevtchn_restrict)(xce, domid) }
    }
}
