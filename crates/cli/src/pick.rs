// SPDX-License-Identifier: MIT OR Apache-2.0
//! How constructs are named on a command line: ids, and keys with their kind.

use crate::Failure;
use crate::ask::{self, Daemon};
use rustix::io::Errno;
use vshmem_abi::Kind;
use vshmem_abi::wire::{Meta, Op, Request};

/// A key, as `ipcrm` takes it: decimal, octal after 0, hexadecimal after 0x.
pub fn parse_key(text: &str) -> Result<i32, String> {
    let bad = || format!("'{text}' is no key: it is a number, as 1234 or 0x56d00009");
    let digits = |rest: &str, radix| u32::from_str_radix(rest, radix).map_err(|_| bad());
    if let Some(hex) = text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        return digits(hex, 16).map(u32::cast_signed);
    }
    if text.len() > 1 && text.starts_with('0') {
        return digits(text, 8).map(u32::cast_signed);
    }
    let number: i64 = text.parse().map_err(|_| bad())?;
    let unsigned = u32::try_from(number).map(u32::cast_signed);
    unsigned
        .or_else(|_| i32::try_from(number))
        .map_err(|_| bad())
}

/// The same of a key that finds something.
pub fn parse_public_key(text: &str) -> Result<i32, String> {
    match parse_key(text)? {
        0 => Err("key 0 is IPC_PRIVATE, which finds nothing; name the construct by its id".into()),
        key => Ok(key),
    }
}

/// The routed construct `id`, of whatever kind.
pub fn by_id(daemon: &Daemon, domain: &str, id: i32) -> Result<Option<Meta>, Failure> {
    for kind in [Kind::Shm, Kind::Sem, Kind::Msg] {
        let request = Request {
            kind: kind as u32,
            id,
            ..Request::default()
        };
        match daemon.ask(Op::Find, request).and_then(ask::refused) {
            Ok(reply) => return Ok(Some(reply.body())),
            Err(Errno::INVAL | Errno::IDRM) => {}
            Err(errno) => return Err(no_answer(domain, errno)),
        }
    }
    Ok(None)
}

/// The construct of `kind` that `key` finds. The daemon has been greeted.
pub fn by_key(
    daemon: &Daemon,
    domain: &str,
    kind: Kind,
    key: i32,
) -> Result<Option<Meta>, Failure> {
    let request = Request {
        kind: kind as u32,
        key,
        ..Request::default()
    };
    match daemon.ask(Op::Get, request).and_then(ask::refused) {
        Ok(reply) => Ok(Some(reply.body())),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(no_answer(domain, errno)),
    }
}

/// A daemon does not do as it is asked.
pub fn no_answer(domain: &str, errno: Errno) -> Failure {
    let why = ask::text(errno.raw_os_error());
    Failure::new(format!(
        "domain {domain} does not tell ({why}); its log says more"
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_read_as_ipcrm_reads_them() {
        for (text, want) in [
            ("0x56d00009", 0x56d0_0009),
            ("0xFFFFFFFF", -1),
            ("4294967295", -1),
            ("-1", -1),
            ("010", 8),
            ("0", 0),
            ("1234", 1234),
        ] {
            assert_eq!(parse_key(text), Ok(want), "{text}");
        }
        for bad in ["", "x", "0x", "0x1ffffffff", "09", "-2147483649", "1 2"] {
            assert!(parse_key(bad).unwrap_err().contains("no key"), "{bad}");
        }
        assert!(parse_public_key("0").unwrap_err().contains("IPC_PRIVATE"));
    }
}
