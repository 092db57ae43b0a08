// SPDX-License-Identifier: MIT OR Apache-2.0
//! `vshmem mk`: makes routed constructs, as `ipcmk` makes the kernel's.

use crate::ask;
use crate::constructs::noun;
use crate::pick;
use crate::survey::Via;
use crate::{Failure, json, say, show};
use rustix::io::Errno;
use serde::Serialize;
use vshmem_abi::Kind;
use vshmem_abi::wire::{Meta, Op, Request};

/// How often another key is drawn that nobody has.
const DRAWS: usize = 16;

#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("what").required(true).multiple(true))]
pub struct Args {
    /// A segment of so many bytes (K, M and G are understood)
    #[arg(short = 'M', long = "shmem", value_name = "SIZE", group = "what", value_parser = size)]
    pub shmem: Option<u64>,

    /// A set of so many semaphores
    #[arg(short = 'S', long = "semaphore", value_name = "NUMBER", group = "what")]
    pub semaphore: Option<u64>,

    /// A message queue
    #[arg(short = 'Q', long = "queue", group = "what")]
    pub queue: bool,

    /// Key [default: a random one]
    #[arg(short, long, allow_hyphen_values = true, value_parser = pick::parse_public_key)]
    pub key: Option<i32>,

    /// Permissions, in octal
    #[arg(short = 'p', long, value_name = "MODE", default_value = "0644", value_parser = mode)]
    pub mode: i32,

    /// JSON (docs/json.md)
    #[arg(long)]
    pub json: bool,

    #[command(flatten)]
    pub via: Via,
}

fn mode(text: &str) -> Result<i32, String> {
    match u16::from_str_radix(text, 8) {
        Ok(mode @ 0..=0o777) => Ok(mode.into()),
        _ => Err("permissions are an octal number up to 777, as 0600".into()),
    }
}

fn size(text: &str) -> Result<u64, String> {
    let (digits, unit) = match text.find(|c: char| !c.is_ascii_digit()) {
        Some(at) => text.split_at(at),
        None => (text, ""),
    };
    let factor = match unit.to_ascii_uppercase().as_str() {
        "" => Some(1),
        "K" | "KIB" => Some(1 << 10),
        "M" | "MIB" => Some(1 << 20),
        "G" | "GIB" => Some(1 << 30),
        _ => None,
    };
    let bytes = factor.and_then(|factor: u64| digits.parse::<u64>().ok()?.checked_mul(factor));
    bytes.ok_or_else(|| format!("'{text}' is no size: it is a number of bytes, as 4096, 64K or 1G"))
}

/// What `--json` writes.
#[derive(Serialize)]
struct Report {
    made: Vec<Made>,
}

#[derive(Serialize)]
struct Made {
    kind: &'static str,
    key: String,
    id: i32,
}

/// Makes what is asked for.
pub fn mk(args: &Args) -> Result<(), Failure> {
    let (domain, daemon) = args.via.connect()?;
    daemon
        .greet()
        .map_err(|errno| pick::no_answer(&domain, errno))?;
    let wanted = [
        args.shmem.map(|bytes| (Kind::Shm, bytes)),
        args.semaphore.map(|number| (Kind::Sem, number)),
        args.queue.then_some((Kind::Msg, 0)),
    ];
    let mut made = Vec::new();
    for (kind, size) in wanted.into_iter().flatten() {
        let meta = make(&daemon, &domain, kind, size, args)?;
        if !args.json {
            // The words of ipcmk, for scripts that know them.
            let what = match kind {
                Kind::Shm => "Shared memory",
                Kind::Sem => "Semaphore",
                Kind::Msg => "Message queue",
            };
            say(&format!("{what} id: {}\n", meta.id))?;
        }
        made.push(Made {
            kind: kind.name(),
            key: show::key(meta.key),
            id: meta.id,
        });
    }
    if args.json {
        return json(&Report { made });
    }
    Ok(())
}

fn make(
    daemon: &ask::Daemon,
    domain: &str,
    kind: Kind,
    size: u64,
    args: &Args,
) -> Result<Meta, Failure> {
    for _ in 0..DRAWS {
        let key = match args.key {
            Some(key) => key,
            None => random_key()?,
        };
        let request = Request {
            kind: kind as u32,
            key,
            size,
            flags: libc::IPC_CREAT | libc::IPC_EXCL | args.mode,
            ..Request::default()
        };
        match daemon.ask(Op::Get, request).and_then(ask::refused) {
            Ok(reply) => return Ok(reply.body()),
            Err(Errno::EXIST) if args.key.is_none() => {}
            Err(errno) => return Err(cannot(kind, key, domain, errno)),
        }
    }
    Err(Failure::new(
        "no key was found that nobody has; name one (--key)",
    ))
}

fn random_key() -> Result<i32, Failure> {
    use crate::Doing;
    let mut bytes = [0; 4];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())
        .doing(|| "cannot draw a key".into())?;
    // 0 would be IPC_PRIVATE.
    Ok(match i32::from_ne_bytes(bytes) {
        0 => 1,
        key => key,
    })
}

fn cannot(kind: Kind, key: i32, domain: &str, errno: Errno) -> Failure {
    let what = noun(kind);
    let key = show::key(key);
    let why = match errno {
        Errno::EXIST => format!("there is one of key {key} already; `vshmem ls` shows it"),
        Errno::INVAL => "the size is not one that it can have; see the limits in `ipcs -l`".into(),
        Errno::NOSPC => format!(
            "a limit is reached: the kernel's (`ipcs -l`) for all that is routed; the log of domain \
             {domain} says which"
        ),
        Errno::NOMEM => "there is not so much memory".into(),
        errno => format!(
            "{}; the log of domain {domain} says more",
            ask::text(errno.raw_os_error())
        ),
    };
    Failure::new(format!("cannot make a {what}: {why}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_may_have_a_unit() {
        for (text, want) in [("0", 0), ("4096", 4096), ("64K", 65536), ("1g", 1 << 30)] {
            assert_eq!(size(text), Ok(want));
        }
        for bad in ["", "K", "1T", "-1", "99999999999G"] {
            assert!(size(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn modes_are_octal() {
        assert_eq!(mode("0640"), Ok(0o640));
        assert!(mode("1777").is_err() && mode("rw").is_err() && mode("8").is_err());
    }

    #[test]
    fn what_is_made_is_documented() {
        let made = Made {
            kind: "shm",
            key: show::key(1),
            id: 1,
        };
        crate::constructs::tests::assert_documented(&Report { made: vec![made] });
    }
}
