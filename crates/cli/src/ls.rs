// SPDX-License-Identifier: MIT OR Apache-2.0
//! `vshmem ls`: the segments of all domains, one a line, like `ipcs`; then the semaphore sets and the
//! message queues, if there are any. With `--all` the kernel's own too.

use crate::constructs::{self, Construct, Of};
use crate::survey::{Survey, Via};
use crate::{Failure, json, say, show};
use serde::Serialize;
use vshmem_abi::Kind;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    pub via: Via,

    #[command(flatten)]
    pub kinds: Kinds,

    /// Only what this domain is the owner of
    #[arg(long, value_name = "NAME")]
    pub owner: Option<String>,

    /// The kernel's own constructs too
    #[arg(long, short)]
    pub all: bool,

    /// More columns: holders (processes of each domain), creator, group; wider than 80
    #[arg(long, short)]
    pub long: bool,

    /// JSON (docs/json.md)
    #[arg(long, conflicts_with = "long")]
    pub json: bool,
}

/// Which kinds are wanted.
#[derive(Clone, Copy, Debug, Default, clap::Args)]
pub struct Kinds {
    /// Shared memory segments
    #[arg(short = 'm', long)]
    pub shmems: bool,

    /// Message queues
    #[arg(short = 'q', long)]
    pub queues: bool,

    /// Semaphore sets
    #[arg(short = 's', long)]
    pub semaphores: bool,
}

impl Kinds {
    /// Those that are named, in the order of the tables; all of them where none is.
    pub fn wanted(self) -> Vec<Kind> {
        let named = [
            (Kind::Shm, self.shmems),
            (Kind::Sem, self.semaphores),
            (Kind::Msg, self.queues),
        ];
        let none = self.are_none();
        let wanted = named.into_iter().filter(|(_, named)| *named || none);
        wanted.map(|(kind, _)| kind).collect()
    }

    /// Whether none is named.
    pub fn are_none(self) -> bool {
        !(self.shmems || self.queues || self.semaphores)
    }
}

/// What `--json` writes.
#[derive(Serialize)]
struct Listing {
    constructs: Vec<Construct>,
}

/// Prints the list.
pub fn ls(args: &Args) -> Result<(), Failure> {
    let kinds = args.kinds.wanted();
    let mut all = match args.via.connect() {
        Ok((name, daemon)) => {
            let survey = Survey::of(&args.via.dir.path())?;
            survey.warn();
            constructs::routed(&name, &daemon, &survey, &kinds)?
        }
        // There is something to show all the same.
        Err(failure) if args.all && args.via.domain.is_none() => {
            eprintln!("vshmem: {failure}");
            Vec::new()
        }
        Err(failure) => return Err(failure),
    };
    if args.all {
        all.extend(constructs::local(&kinds));
    }
    if let Some(owner) = &args.owner {
        all.retain(|one| one.domain.as_ref() == Some(owner));
    }
    if args.json {
        return json(&Listing { constructs: all });
    }
    let mut text = String::new();
    for &kind in &kinds {
        let of_kind: Vec<_> = all.iter().filter(|one| one.kind() == kind).collect();
        let expected = kind == Kind::Shm || !args.kinds.are_none();
        if of_kind.is_empty() && !expected {
            continue;
        }
        if !text.is_empty() {
            text.push('\n');
        }
        text.push_str(&table(kind, &of_kind, args.long));
    }
    say(&text)
}

/// The table of one kind.
fn table(kind: Kind, all: &[&Construct], long: bool) -> String {
    let [first, second] = match kind {
        Kind::Shm => ["bytes", "nattch"],
        Kind::Sem => ["nsems", "holders"],
        Kind::Msg => ["used", "messages"],
    };
    let columns = [
        "key", "id", "owner", "perms", first, second, "status", "domain", "idle",
    ];
    if !long {
        let rows: Vec<_> = all.iter().map(|one| row(one)).collect();
        return show::table(columns, &rows);
    }
    let [a, b, c, d, e, f, g, h, i] = columns;
    let columns = [
        a, b, c, d, e, f, g, h, i, "cpid", "gid", "creator", "holders",
    ];
    let rows: Vec<_> = all.iter().map(|one| long_row(one)).collect();
    show::table(columns, &rows)
}

/// What stands in a row.
fn row(one: &Construct) -> [String; 9] {
    let [first, second] = match one.of {
        Of::Shm { bytes, nattch, .. } => [bytes, nattch],
        Of::Sem { nsems, .. } => [nsems, one.in_use()],
        Of::Msg {
            messages,
            used_bytes,
            ..
        } => [used_bytes, messages],
    };
    [
        one.key.clone(),
        one.id.to_string(),
        one.owner.clone(),
        one.mode.trim_start_matches('0').to_owned(),
        first.to_string(),
        second.to_string(),
        or_dash(one.status.join(",")),
        domain_of(one),
        show::span(one.idle),
    ]
    .map(or_dash)
}

/// What stands in a row with more columns.
fn long_row(one: &Construct) -> [String; 13] {
    let holder = |of: &constructs::Holder| format!("{}:{}", of.domain, of.processes);
    let holders: Vec<_> = one.holders.iter().map(holder).collect();
    let [a, b, c, d, e, f, g, h, i] = row(one);
    let cpid = one.cpid.map(|pid| pid.to_string()).unwrap_or_default();
    let (gid, creator) = (one.gid.to_string(), one.cuid.to_string());
    [
        a,
        b,
        c,
        d,
        e,
        f,
        g,
        h,
        i,
        or_dash(cpid),
        gid,
        creator,
        or_dash(holders.join(",")),
    ]
}

/// The owner domain of a construct, as a cell of a table.
fn domain_of(one: &Construct) -> String {
    match (&one.domain, one.domid) {
        (Some(name), _) => name.clone(),
        (None, Some(domid)) => domid.to_string(),
        // No name of a domain has a bracket in it.
        (None, None) => "[kernel]".to_owned(),
    }
}

/// A cell that is not empty, for those who split lines at blanks.
fn or_dash(text: String) -> String {
    if text.is_empty() {
        "-".to_owned()
    } else {
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::constructs::tests::{stat, survey};
    use vshmem_abi::wire::{QueueStat, QueueUse, State};

    fn rows() -> [Construct; 3] {
        let survey = survey();
        let mut maker = constructs::Maker::new(&survey);
        let stat = stat(State::Live, 0o644);
        let (meta, queue) = (
            stat.meta,
            QueueUse {
                qnum: 5,
                cbytes: 700,
                ..QueueUse::default()
            },
        );
        let mut rows = [
            maker.segment(&stat),
            maker.set(&stat),
            maker.queue(&QueueStat { meta, queue }),
        ];
        for row in &mut rows {
            row.idle = 61;
        }
        rows
    }

    #[test]
    fn a_row_shows_key_mode_use_and_where_the_memory_is() {
        let [segment, set, queue] = rows();
        let cells = "0xffffffff 1300000000 root 644";
        let text = |one| row(one).join(" ");
        assert_eq!(text(&segment), format!("{cells} 4096 3 - alpha 61s"));
        assert_eq!(text(&set), format!("{cells} 4096 2 - alpha 61s"));
        assert_eq!(text(&queue), format!("{cells} 700 5 - alpha 61s"));
    }

    #[test]
    fn a_long_row_tells_holders_by_domain_and_the_creator() {
        let cells = long_row(&rows()[0]);
        assert_eq!(cells[9..], ["77", "0", "0", "alpha:2"]);
    }

    #[test]
    fn nothing_is_left_empty_in_a_row() {
        let [mut segment, ..] = rows();
        segment.mode = "0000".into();
        segment.domain = None;
        assert_eq!(row(&segment)[3], "-");
        assert_eq!(row(&segment)[7], "2");
        segment.domid = None;
        assert_eq!(row(&segment)[7], "[kernel]");
    }

    #[test]
    fn an_ordinary_table_fits_into_eighty_columns() {
        for (kind, one) in [Kind::Shm, Kind::Sem, Kind::Msg].into_iter().zip(rows()) {
            let one = Construct {
                owner: "postgres".into(),
                ..one
            };
            for line in table(kind, &[&one], false).lines() {
                assert!(line.len() <= 80, "{line}");
            }
        }
    }
}
