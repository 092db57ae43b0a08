// SPDX-License-Identifier: MIT OR Apache-2.0
//! `vshmem run`: brings a domain up and becomes a program in it.

use crate::world::World;
use crate::{DirArg, Failure, domain, find, start};
use nix::errno::Errno;
use std::collections::BTreeMap;
use std::ffi::{CString, OsStr, OsString};
use std::os::unix::ffi::OsStringExt;
use vshmem_abi::keys::KeySet;
use vshmem_abi::paths;

/// Exit status for a bad list of keys: `EX_CONFIG` of sysexits.h, the client library's as well.
const BAD_KEYS: u8 = 78;

#[derive(Debug, clap::Args)]
#[command(override_usage = "vshmem run [--domain NAME] [--keys LIST] [--dir DIR] -- CMD [ARGS...]")]
pub struct Args {
    /// Domain to run in [default: $VSHMEM_DOMAIN, else "local"]
    #[arg(long, value_name = "NAME")]
    pub domain: Option<String>,

    /// Keys that Vshmem handles: comma-separated 0x5601, 0x56000000-0x56ffffff, all, private
    /// [default: $VSHMEM_KEYS, else all]
    #[arg(long, value_name = "LIST")]
    pub keys: Option<OsString>,

    #[command(flatten)]
    pub dir: DirArg,

    /// Program to run and its arguments
    #[arg(required = true, trailing_var_arg = true, value_name = "CMD")]
    pub command: Vec<OsString>,
}

/// Becomes the command; returns only when it cannot.
pub fn run(args: &Args) -> Result<(), Failure> {
    let keys = keys(
        args.keys
            .clone()
            .or_else(|| std::env::var_os(paths::ENV_KEYS)),
    )?;
    let domain = domain(args.domain.as_deref())?;
    let library = find::library()?;
    let world = World::open_or_make(&args.dir.path())?;
    start::ensure_up(&world, &domain)?;

    let mut env: BTreeMap<OsString, OsString> = std::env::vars_os().collect();
    let preload = preload(library.as_os_str(), env.get(OsStr::new("LD_PRELOAD")));
    for (name, value) in [
        ("LD_PRELOAD", preload),
        (paths::ENV_KEYS, keys.into()),
        (paths::ENV_DOMAIN, domain.into()),
        (paths::ENV_DIR, world.dir().as_os_str().to_owned()),
    ] {
        env.insert(name.into(), value);
    }
    let env: Vec<CString> = env
        .into_iter()
        .map(|(mut entry, value)| {
            entry.push("=");
            entry.push(value);
            c_string(entry)
        })
        .collect();
    let command: Vec<CString> = args.command.iter().cloned().map(c_string).collect();
    // Not std's exec, which would reset the signal mask and SIGPIPE: the command gets them, as
    // everything else, as this process got them.
    let Err(errno) = nix::unistd::execvpe(&command[0], &command, &env);
    Err(Failure::with_status(
        if errno == Errno::ENOENT { 127 } else { 126 },
        format!(
            "cannot run '{}': {}",
            args.command[0].display(),
            errno.desc()
        ),
    ))
}

/// Arguments and variables of this process came as C strings: none has a zero byte in it.
fn c_string(text: OsString) -> CString {
    let mut bytes = text.into_vec();
    bytes.retain(|&byte| byte != 0);
    CString::new(bytes).unwrap_or_default()
}

/// The list of keys, checked.
fn keys(list: Option<OsString>) -> Result<String, Failure> {
    let list = list.unwrap_or_else(|| "all".into());
    let bad = |text: String| Failure::with_status(BAD_KEYS, text);
    let list = list
        .into_string()
        .map_err(|list| bad(format!("bad list of keys {list:?}: it is not text")))?;
    match KeySet::parse(&list) {
        Ok(_) => Ok(list),
        Err(error) => Err(bad(error.to_string())),
    }
}

/// `LD_PRELOAD` with the library before whatever is in it already.
fn preload(library: &OsStr, present: Option<&OsString>) -> OsString {
    let mut list = library.to_owned();
    if let Some(present) = present.filter(|present| !present.is_empty()) {
        let first = present
            .as_encoded_bytes()
            .split(|b| b" :".contains(b))
            .next();
        if first == Some(library.as_encoded_bytes()) {
            // One vshmem run inside another.
            return present.clone();
        }
        list.push(":");
        list.push(present);
    }
    list
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_library_is_prepended_once_to_what_is_preloaded_already() {
        let lib = OsStr::new("/x/libvshmem.so");
        for (present, want) in [
            (None, "/x/libvshmem.so"),
            (Some(""), "/x/libvshmem.so"),
            (Some("/y.so"), "/x/libvshmem.so:/y.so"),
            (Some("/x/libvshmem.so:/y.so"), "/x/libvshmem.so:/y.so"),
            (Some("/x/libvshmem.so /y.so"), "/x/libvshmem.so /y.so"),
        ] {
            let present = present.map(OsString::from);
            assert_eq!(preload(lib, present.as_ref()), want, "{present:?}");
        }
    }

    #[test]
    fn a_bad_list_of_keys_has_status_78_and_names_the_item() {
        let failure = keys(Some("1,foo".into())).unwrap_err();
        assert_eq!(failure.status, 78);
        assert!(failure.text.contains("'foo'"));
        assert_eq!(keys(None).unwrap(), "all");
        assert_eq!(keys(Some("".into())).unwrap(), "");
        let failure = keys(Some(OsString::from_vec(vec![0xff]))).unwrap_err();
        assert_eq!(failure.status, 78);
    }
}
