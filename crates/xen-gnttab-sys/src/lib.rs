// SPDX-License-Identifier: MIT OR Apache-2.0
//! Xen's libraries: [`gnttab`] (libxengnttab), [`evtchn`] (libxenevtchn) and [`store`] (libxenstore).
//!
//! They are loaded with `dlopen` when one is first asked for, so that whatever uses this crate is
//! built and starts where there is no Xen; what is missing is an error that names the package.
//! Each of these functions gives a table of the library's functions, which are as unsafe as in C:
//! the headers (`xengnttab.h`, `xenevtchn.h`, `xenstore.h` of Debian's package `libxen-dev`) say
//! what each of them wants.
//!
//! The modules of bindings are generated from these headers and checked in. A test compares them;
//! to make them anew: `UPDATE_BINDINGS=1 cargo test -p xen-gnttab-sys`.

// Made by bindgen from C, as they are.
#[rustfmt::skip]
#[allow(clippy::all, clippy::undocumented_unsafe_blocks, missing_docs, nonstandard_style)]
#[path = "bindings/evtchn.rs"]
pub mod xenevtchn;
#[rustfmt::skip]
#[allow(clippy::all, clippy::undocumented_unsafe_blocks, missing_docs, nonstandard_style)]
#[path = "bindings/gnttab.rs"]
pub mod xengnttab;
#[rustfmt::skip]
#[allow(clippy::all, clippy::undocumented_unsafe_blocks, missing_docs, nonstandard_style)]
#[path = "bindings/store.rs"]
pub mod xenstore;

use std::sync::OnceLock;

/// A library of Xen's that cannot be used.
#[derive(Clone, Debug, thiserror::Error)]
#[error("cannot load Xen's {library} (install the Debian package {package}): {why}")]
pub struct LoadError {
    /// Its file name, with the version.
    pub library: &'static str,
    /// The Debian package that has it.
    pub package: &'static str,
    /// What the dynamic linker says.
    pub why: String,
}

/// The table of libxengnttab, loaded at the first call; a failure is remembered too.
///
/// # Errors
/// The library, or one of its functions, is missing.
pub fn gnttab() -> Result<&'static xengnttab::XenGnttab, LoadError> {
    static LOADED: OnceLock<Result<xengnttab::XenGnttab, LoadError>> = OnceLock::new();
    // SAFETY: Xen's library of this name and version: loading it runs nothing, and its functions
    // are those of the header.
    let load = |name: &'static str| unsafe { xengnttab::XenGnttab::new(name) };
    once(&LOADED, "libxengnttab.so.1", "libxengnttab1", load)
}

/// The table of libxenevtchn, likewise.
///
/// # Errors
/// The library, or one of its functions, is missing.
pub fn evtchn() -> Result<&'static xenevtchn::XenEvtchn, LoadError> {
    static LOADED: OnceLock<Result<xenevtchn::XenEvtchn, LoadError>> = OnceLock::new();
    // SAFETY: as for libxengnttab.
    let load = |name: &'static str| unsafe { xenevtchn::XenEvtchn::new(name) };
    once(&LOADED, "libxenevtchn.so.1", "libxenevtchn1", load)
}

/// The table of libxenstore, likewise.
///
/// # Errors
/// The library, or one of its functions, is missing.
pub fn store() -> Result<&'static xenstore::XenStore, LoadError> {
    static LOADED: OnceLock<Result<xenstore::XenStore, LoadError>> = OnceLock::new();
    // SAFETY: as for libxengnttab.
    let load = |name: &'static str| unsafe { xenstore::XenStore::new(name) };
    once(&LOADED, "libxenstore.so.4", "libxenstore4", load)
}

fn once<T>(
    cell: &'static OnceLock<Result<T, LoadError>>,
    library: &'static str,
    package: &'static str,
    load: impl FnOnce(&'static str) -> Result<T, libloading::Error>,
) -> Result<&'static T, LoadError> {
    let loaded = cell.get_or_init(|| {
        load(library).map_err(|why| LoadError {
            library,
            package,
            why: why.to_string(),
        })
    });
    loaded.as_ref().map_err(Clone::clone)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_library_that_is_not_there_is_an_error_that_names_the_package() {
        static CELL: OnceLock<Result<xenstore::XenStore, LoadError>> = OnceLock::new();
        // SAFETY: there is no such library.
        let load = |name: &'static str| unsafe { xenstore::XenStore::new(name) };
        let error = once(&CELL, "libxenstore.so.0", "libxenstore0", load).err();
        let text = error.expect("no such library").to_string();
        assert!(
            text.starts_with(
                "cannot load Xen's libxenstore.so.0 (install the Debian package libxenstore0): "
            ),
            "{text}"
        );
    }
}
