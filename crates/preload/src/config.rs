// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the environment says, read once, before `main`.

use crate::message;
use rustix::io::Errno;
use rustix::net::SocketAddrUnix;
use std::path::PathBuf;
use std::sync::OnceLock;
use vshmem_abi::keys::KeySet;
use vshmem_abi::paths;

/// Exit status for a configuration that is not understood (`EX_CONFIG` of `sysexits.h`).
const EX_CONFIG: i32 = 78;

/// What is routed, and where to.
pub struct Config {
    /// The routed keys; never empty.
    pub keys: KeySet,
    /// The world's directory.
    pub dir: PathBuf,
    /// The domain this process belongs to.
    pub domain: String,
    /// Where its `vshmemd` listens; made here, since connecting must not allocate.
    pub socket: Result<SocketAddrUnix, Errno>,
}

static CONFIG: OnceLock<Option<Config>> = OnceLock::new();

/// The configuration; `None` when no key is routed. Normally loaded by the constructor, or by the
/// first call if another library's constructor makes one before.
#[inline]
pub fn config() -> Option<&'static Config> {
    CONFIG.get_or_init(load).as_ref()
}

fn load() -> Option<Config> {
    let list = std::env::var_os(paths::ENV_KEYS)?;
    let list = list.to_string_lossy();
    let keys = match KeySet::parse(&list) {
        Ok(keys) => keys,
        Err(error) => refuse(format_args!("{error}")),
    };
    if keys.is_empty() {
        return None;
    }
    let domain = paths::default_domain();
    if let Some(why) = paths::domain_name_error(&domain) {
        refuse(format_args!("bad {} '{domain}': {why}", paths::ENV_DOMAIN));
    }
    // The program may change its directory before the first call.
    let dir = paths::default_dir();
    let dir = std::path::absolute(&dir).unwrap_or(dir);
    let socket = SocketAddrUnix::new(paths::domain_socket(&dir, &domain));
    Some(Config {
        keys,
        dir,
        domain,
        socket,
    })
}

/// Ends the process before its `main`: a configuration that is not understood must not become a
/// program that quietly talks to nobody.
fn refuse(text: std::fmt::Arguments<'_>) -> ! {
    message::say(text);
    // SAFETY: ends the process at once, without running what has not been set up yet.
    unsafe { libc::_exit(EX_CONFIG) }
}

extern "C" fn constructor() {
    if config().is_some() {
        crate::fork::register();
    }
}

/// Runs [`constructor`] when the library is loaded, before `main`.
#[used]
#[unsafe(link_section = ".init_array")]
static CONSTRUCTOR: extern "C" fn() = constructor;
