// SPDX-License-Identifier: MIT OR Apache-2.0
//! `vshmem ls`: the segments of all domains, one a line, like `ipcs -m`; then the semaphore sets, if
//! there are any.

use crate::ask::{self, Daemon};
use crate::world::World;
use crate::{DirArg, Failure, domain, say};
use rustix::io::Errno;
use std::collections::HashMap;
use vshmem_abi::Kind;
use vshmem_abi::wire::{MODE_LOCKED, Op, Request, Stat, State};

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    pub dir: DirArg,

    /// Domain whose vshmemd is asked: all of them know the same constructs
    /// [default: any that is up]
    #[arg(long, value_name = "NAME")]
    pub domain: Option<String>,
}

/// Prints the list.
pub fn ls(args: &Args) -> Result<(), Failure> {
    let (name, daemon) = connect(args)?;
    let mut users = HashMap::new();
    let mut owner = |stat: &Stat| {
        let uid = stat.meta.uid;
        let name = users.entry(uid).or_insert_with(|| user_name(uid));
        name.clone()
    };
    let segments = list(&name, &daemon, Kind::Shm)?;
    let rows: Vec<_> = segments.iter().map(|s| row(s, &owner(s))).collect();
    let mut text = table(COLUMNS, &rows);
    let sets = list(&name, &daemon, Kind::Sem)?;
    if !sets.is_empty() {
        let rows: Vec<_> = sets.iter().map(|s| set_row(s, &owner(s))).collect();
        text.push('\n');
        text.push_str(&table(SET_COLUMNS, &rows));
    }
    say(&text)
}

fn connect(args: &Args) -> Result<(String, Daemon), Failure> {
    let dir = args.dir.path();
    let nothing = || {
        Failure::new(format!(
            "no domain is up in {}; start one with `vshmem run`, or name another directory \
             (VSHMEM_DIR)",
            dir.display()
        ))
    };
    let world = World::open(&dir)?.ok_or_else(nothing)?;
    let names = match &args.domain {
        Some(name) => vec![domain(Some(name))?],
        None => world.domains()?,
    };
    for name in names {
        match Daemon::connect(world.dir(), &name, ask::PATIENCE) {
            Ok(daemon) => return Ok((name, daemon)),
            Err(Errno::NOENT | Errno::CONNREFUSED) if args.domain.is_none() => {}
            Err(errno) => {
                return Err(Failure::new(format!(
                    "domain {name} does not answer in {} ({}); is it up? `vshmem run \
                     --domain {name} -- true` starts it",
                    world.dir().display(),
                    ask::text(errno.raw_os_error())
                )));
            }
        }
    }
    Err(nothing())
}

/// All constructs of a kind, by index.
fn list(name: &str, daemon: &Daemon, kind: Kind) -> Result<Vec<Stat>, Failure> {
    let fail = |why: &str| {
        Failure::new(format!(
            "domain {name} does not tell what it knows ({why}); see its log"
        ))
    };
    let mut list: Vec<Stat> = Vec::new();
    loop {
        let request = Request {
            kind: kind as u32,
            // "After" the highest number is the beginning.
            arg: list.last().map_or(u32::MAX, |stat| stat.meta.index),
            ..Request::default()
        };
        let reply = daemon
            .ask(Op::Next, request)
            .map_err(|errno| fail(ask::text(errno.raw_os_error())))?;
        if reply.errno == Errno::NOENT.raw_os_error() {
            return Ok(list);
        }
        if reply.errno != 0 {
            return Err(fail(ask::text(reply.errno)));
        }
        let stat = reply.body::<Stat>();
        // Indices only rise, or this would never end.
        if list
            .last()
            .is_some_and(|last| last.meta.index >= stat.meta.index)
        {
            return Err(fail("it answers out of order"));
        }
        list.push(stat);
    }
}

const COLUMNS: [&str; 9] = [
    "key", "id", "owner", "perms", "bytes", "nattch", "status", "domain", "cpid",
];

/// What stands in [`COLUMNS`] for one segment.
fn row(stat: &Stat, owner: &str) -> [String; COLUMNS.len()] {
    let meta = &stat.meta;
    let mut status = Vec::new();
    match State::from_raw(meta.state) {
        State::Dest => status.push("dest"),
        State::Lost => status.push("lost"),
        State::Live | State::Free => {}
    }
    if meta.mode & MODE_LOCKED != 0 {
        status.push("locked");
    }
    if status.is_empty() {
        status.push("-");
    }
    [
        format!("0x{:08x}", meta.key),
        meta.id.to_string(),
        owner.to_owned(),
        format!("{:03o}", meta.mode & 0o777),
        meta.size.to_string(),
        stat.usage.nattch.to_string(),
        status.join(","),
        meta.owner.to_string(),
        meta.cpid.to_string(),
    ]
}

const SET_COLUMNS: [&str; 8] = [
    "key", "id", "owner", "perms", "nsems", "status", "domain", "cpid",
];

/// What stands in [`SET_COLUMNS`] for one set: what stands there for a segment, but for its use.
fn set_row(stat: &Stat, owner: &str) -> [String; SET_COLUMNS.len()] {
    let [key, id, owner, perms, nsems, _, status, domain, cpid] = row(stat, owner);
    [key, id, owner, perms, nsems, status, domain, cpid]
}

/// The name of a user, or its number where it has none.
fn user_name(uid: u32) -> String {
    match nix::unistd::User::from_uid(uid.into()) {
        Ok(Some(user)) => user.name,
        Ok(None) | Err(_) => uid.to_string(),
    }
}

/// Header and rows with each column as wide as its widest entry.
fn table<const N: usize>(columns: [&str; N], rows: &[[String; N]]) -> String {
    let header = columns.map(str::to_owned);
    let lines = || std::iter::once(&header).chain(rows);
    let width = |column: usize| lines().map(|line| line[column].chars().count()).max();
    let widths: [usize; N] = std::array::from_fn(|c| width(c).unwrap_or(0));
    lines()
        .map(|line| {
            let cells = line.iter().zip(widths);
            let cells: Vec<_> = cells.map(|(cell, w)| format!("{cell:<w$}")).collect();
            format!("{}\n", cells.join("  ").trim_end())
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use vshmem_abi::wire::{Meta, Usage};

    fn stat(state: State, mode: u32) -> Stat {
        Stat {
            meta: Meta {
                id: 1_300_000_000,
                key: -1,
                state: state as u32,
                mode,
                owner: 2,
                size: 4096,
                cpid: 77,
                ..Meta::default()
            },
            usage: Usage {
                nattch: 3,
                ..Usage::default()
            },
        }
    }

    #[test]
    fn a_row_shows_key_mode_use_and_where_the_memory_is() {
        let row = row(&stat(State::Live, 0o644), "ann");
        assert_eq!(
            row,
            [
                "0xffffffff",
                "1300000000",
                "ann",
                "644",
                "4096",
                "3",
                "-",
                "2",
                "77"
            ]
        );
    }

    #[test]
    fn a_row_of_a_set_shows_its_semaphores_in_place_of_bytes_and_attachments() {
        let row = set_row(&stat(State::Live, 0o644), "ann");
        let columns = SET_COLUMNS.iter().zip(&row);
        let nsems = columns.clone().find(|(column, _)| **column == "nsems");
        assert_eq!(nsems.unwrap().1, "4096");
        assert_eq!(row[5..], ["-", "2", "77"]);
    }

    #[test]
    fn the_status_says_removed_locked_or_lost() {
        for (state, mode, want) in [
            (State::Dest, 0o600, "dest"),
            (State::Live, 0o600 | MODE_LOCKED, "locked"),
            (State::Dest, 0o600 | MODE_LOCKED, "dest,locked"),
            (State::Lost, 0o600, "lost"),
        ] {
            assert_eq!(row(&stat(state, mode), "x")[6], want);
        }
    }

    #[test]
    fn an_empty_list_is_the_header_alone() {
        assert_eq!(
            table(COLUMNS, &[]),
            "key  id  owner  perms  bytes  nattch  status  domain  cpid\n"
        );
    }

    #[test]
    fn columns_line_up() {
        let rows = [
            row(&stat(State::Live, 0o600), "root"),
            row(&stat(State::Dest, 0o600), "somebody"),
        ];
        let table = table(COLUMNS, &rows);
        let starts: Vec<_> = table
            .lines()
            .map(|line| line.find("600").or(line.find("perms")))
            .collect();
        assert!(starts.iter().all(|start| *start == starts[0]), "{table}");
    }

    #[test]
    fn a_user_without_a_name_is_shown_by_number() {
        assert_eq!(user_name(0), "root");
        assert_eq!(user_name(3_999_999_999), "3999999999");
    }
}
