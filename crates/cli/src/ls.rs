// SPDX-License-Identifier: MIT OR Apache-2.0
//! `vshmem ls`: the segments of all domains, one a line, like `ipcs -m`; then the semaphore sets and
//! the message queues, if there are any.

use crate::ask::{self, Daemon};
use crate::world::World;
use crate::{DirArg, Failure, domain, say};
use rustix::io::Errno;
use std::collections::HashMap;
use vshmem_abi::Kind;
use vshmem_abi::wire::{MODE_LOCKED, Meta, Op, QueueStat, Request, Stat, State};
use zerocopy::FromBytes;

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
    let mut owner = |meta: &Meta| {
        let uid = meta.uid;
        let name = users.entry(uid).or_insert_with(|| user_name(uid));
        name.clone()
    };
    let segments: Vec<Stat> = list(&name, &daemon, Kind::Shm)?;
    let rows: Vec<_> = segments.iter().map(|s| row(s, &owner(&s.meta))).collect();
    let mut text = table(COLUMNS, &rows);
    let sets: Vec<Stat> = list(&name, &daemon, Kind::Sem)?;
    let rows: Vec<_> = sets.iter().map(|s| set_row(s, &owner(&s.meta))).collect();
    text.push_str(&further_table(SET_COLUMNS, &rows));
    let queues: Vec<QueueStat> = list(&name, &daemon, Kind::Msg)?;
    let rows: Vec<_> = queues
        .iter()
        .map(|q| queue_row(q, &owner(&q.meta)))
        .collect();
    text.push_str(&further_table(QUEUE_COLUMNS, &rows));
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

/// What is told of a construct in a listing.
trait Listed: FromBytes {
    /// The construct.
    fn meta(&self) -> &Meta;
}

impl Listed for Stat {
    fn meta(&self) -> &Meta {
        &self.meta
    }
}

impl Listed for QueueStat {
    fn meta(&self) -> &Meta {
        &self.meta
    }
}

/// All constructs of a kind, by index.
fn list<T: Listed>(name: &str, daemon: &Daemon, kind: Kind) -> Result<Vec<T>, Failure> {
    let fail = |why: &str| {
        Failure::new(format!(
            "domain {name} does not tell what it knows ({why}); see its log"
        ))
    };
    let mut list: Vec<T> = Vec::new();
    loop {
        let last = list.last().map(|stat| stat.meta().index);
        let request = Request {
            kind: kind as u32,
            // "After" the highest number is the beginning.
            arg: last.unwrap_or(u32::MAX),
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
        let stat = reply.body::<T>();
        // Indices only rise, or this would never end.
        if last.is_some_and(|last| last >= stat.meta().index) {
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
    let [key, id, owner, perms, status, domain, cpid] = cells(&stat.meta, owner);
    let (bytes, nattch) = (stat.meta.size.to_string(), stat.usage.nattch.to_string());
    [key, id, owner, perms, bytes, nattch, status, domain, cpid]
}

/// What stands in a row of whatever kind: key, id, owner, permissions, status, domain and pid of the
/// creator.
fn cells(meta: &Meta, owner: &str) -> [String; 7] {
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
        status.join(","),
        meta.owner.to_string(),
        meta.cpid.to_string(),
    ]
}

const SET_COLUMNS: [&str; 8] = [
    "key", "id", "owner", "perms", "nsems", "status", "domain", "cpid",
];

/// What stands in [`SET_COLUMNS`] for one set.
fn set_row(stat: &Stat, owner: &str) -> [String; SET_COLUMNS.len()] {
    let [key, id, owner, perms, status, domain, cpid] = cells(&stat.meta, owner);
    let nsems = stat.meta.size.to_string();
    [key, id, owner, perms, nsems, status, domain, cpid]
}

const QUEUE_COLUMNS: [&str; 9] = [
    "key",
    "id",
    "owner",
    "perms",
    "used-bytes",
    "messages",
    "status",
    "domain",
    "cpid",
];

/// What stands in [`QUEUE_COLUMNS`] for one queue.
fn queue_row(stat: &QueueStat, owner: &str) -> [String; QUEUE_COLUMNS.len()] {
    let [key, id, owner, perms, status, domain, cpid] = cells(&stat.meta, owner);
    let (bytes, messages) = (stat.queue.cbytes.to_string(), stat.queue.qnum.to_string());
    [key, id, owner, perms, bytes, messages, status, domain, cpid]
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

/// A table behind another one; nothing if it is empty.
fn further_table<const N: usize>(columns: [&str; N], rows: &[[String; N]]) -> String {
    match rows {
        [] => String::new(),
        rows => format!("\n{}", table(columns, rows)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use vshmem_abi::wire::{QueueUse, Usage};

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
    fn a_row_of_a_queue_shows_what_is_in_it() {
        let queue = QueueStat {
            meta: stat(State::Live, 0o644).meta,
            queue: QueueUse {
                qnum: 5,
                cbytes: 700,
                qbytes: 16384,
                ..QueueUse::default()
            },
        };
        let row = queue_row(&queue, "ann");
        assert_eq!(row[3..], ["644", "700", "5", "-", "2", "77"]);
    }

    #[test]
    fn a_further_table_stands_apart_and_is_left_out_if_it_is_empty() {
        assert_eq!(further_table(SET_COLUMNS, &[]), "");
        let rows = [set_row(&stat(State::Live, 0o644), "ann")];
        assert!(further_table(SET_COLUMNS, &rows).starts_with("\nkey "));
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
