// SPDX-License-Identifier: MIT OR Apache-2.0
//! `vshmem rm`: removes routed constructs: those that are named, as `ipcrm` does, or those that a
//! domain owns or that nobody uses, which are shown first and never in use.

use crate::ask::{self, Daemon};
use crate::constructs::{self, Construct, noun};
use crate::pick;
use crate::survey::{Survey, Told, Via};
use crate::{Failure, say, show};
use rustix::io::Errno;
use std::time::Duration;
use vshmem_abi::Kind;
use vshmem_abi::wire::{Meta, Op, Request};
use vshmem_report::ConstructReport;

#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("what").required(true).multiple(true))]
pub struct Args {
    /// Constructs, by id
    #[arg(value_name = "ID", group = "what")]
    pub ids: Vec<i32>,

    /// Segment, by id
    #[arg(short = 'm', long = "shmem-id", value_name = "ID", group = "what")]
    pub shmem_ids: Vec<i32>,

    /// Segment, by key
    #[arg(short = 'M', long = "shmem-key", value_name = "KEY", group = "what",
          allow_hyphen_values = true, value_parser = pick::parse_public_key)]
    pub shmem_keys: Vec<i32>,

    /// Message queue, by id
    #[arg(short = 'q', long = "queue-id", value_name = "ID", group = "what")]
    pub queue_ids: Vec<i32>,

    /// Message queue, by key
    #[arg(short = 'Q', long = "queue-key", value_name = "KEY", group = "what",
          allow_hyphen_values = true, value_parser = pick::parse_public_key)]
    pub queue_keys: Vec<i32>,

    /// Semaphore set, by id
    #[arg(short = 's', long = "semaphore-id", value_name = "ID", group = "what")]
    pub semaphore_ids: Vec<i32>,

    /// Semaphore set, by key
    #[arg(short = 'S', long = "semaphore-key", value_name = "KEY", group = "what",
          allow_hyphen_values = true, value_parser = pick::parse_public_key)]
    pub semaphore_keys: Vec<i32>,

    /// What this domain is the owner of and nobody has attached or open; shown only, unless --yes
    #[arg(long, value_name = "NAME", group = "what", conflicts_with_all = NAMED)]
    pub owner: Option<String>,

    /// What nobody has attached or open, nor used for the time of --idle; shown only, unless --yes
    #[arg(long, group = "what", conflicts_with_all = NAMED)]
    pub orphans: bool,

    /// With --orphans: how long it has not been used, as 90s, 15m, 2h or 3days
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = humantime::parse_duration)]
    pub idle: Duration,

    /// Remove what --owner or --orphans show
    #[arg(long)]
    pub yes: bool,

    #[command(flatten)]
    pub via: Via,
}

const NAMED: [&str; 7] = [
    "ids",
    "shmem_ids",
    "shmem_keys",
    "queue_ids",
    "queue_keys",
    "semaphore_ids",
    "semaphore_keys",
];

/// Removes what is named; everything that can be, also when something cannot.
pub fn rm(args: &Args) -> Result<(), Failure> {
    let (domain, daemon) = args.via.connect()?;
    if args.owner.is_some() || args.orphans {
        return rm_unused(args, &domain, &daemon);
    }
    let mut failed: Vec<String> = Vec::new();
    for target in targets(args) {
        match target.find(&daemon, &domain)? {
            None => failed.push(target.not_found()),
            Some(meta) => failed.extend(remove(&daemon, &meta).err()),
        }
    }
    all_done(failed)
}

fn all_done(failed: Vec<String>) -> Result<(), Failure> {
    if failed.is_empty() {
        Ok(())
    } else {
        Err(Failure::new(failed.join("\nvshmem: ")))
    }
}

/// Something that is named.
enum Target {
    Id(Option<Kind>, i32),
    Key(Kind, i32),
}

fn targets(args: &Args) -> Vec<Target> {
    let mut all: Vec<Target> = Vec::new();
    all.extend(args.ids.iter().map(|&id| Target::Id(None, id)));
    for (kind, ids, keys) in [
        (Kind::Shm, &args.shmem_ids, &args.shmem_keys),
        (Kind::Msg, &args.queue_ids, &args.queue_keys),
        (Kind::Sem, &args.semaphore_ids, &args.semaphore_keys),
    ] {
        all.extend(ids.iter().map(|&id| Target::Id(Some(kind), id)));
        all.extend(keys.iter().map(|&key| Target::Key(kind, key)));
    }
    all
}

impl Target {
    fn find(&self, daemon: &Daemon, domain: &str) -> Result<Option<Meta>, Failure> {
        match *self {
            Self::Id(kind, id) => {
                let found = pick::by_id(daemon, domain, id)?;
                Ok(found.filter(|meta| kind.is_none_or(|kind| meta.kind == kind as u32)))
            }
            Self::Key(kind, key) => {
                // Keys are found by clients; a second greeting is refused, and no matter.
                let _ = daemon.greet();
                pick::by_key(daemon, domain, kind, key)
            }
        }
    }

    fn not_found(&self) -> String {
        match *self {
            Self::Id(kind, id) => format!(
                "no routed {} has the id {id}; `vshmem ls` shows what there is, `vshmem stat {id}` \
                 why it went; the kernel's own are for ipcrm",
                kind.map_or("construct", noun)
            ),
            Self::Key(kind, key) => format!(
                "no routed {} has the key {}; `vshmem ls` shows what there is",
                noun(kind),
                show::key(key)
            ),
        }
    }
}

/// Removes one; what went wrong otherwise.
fn remove(daemon: &Daemon, meta: &Meta) -> Result<(), String> {
    let request = Request {
        kind: meta.kind,
        id: meta.id,
        ..Request::default()
    };
    let what = noun(Kind::from_raw(meta.kind).unwrap_or(Kind::Shm));
    match daemon.ask(Op::Remove, request).and_then(ask::refused) {
        Ok(_) | Err(Errno::INVAL | Errno::IDRM) => Ok(()),
        Err(Errno::PERM) => Err(format!(
            "{what} {} is not yours to remove: it takes its owner (uid {}), its creator or root",
            meta.id, meta.uid
        )),
        Err(errno) => Err(format!(
            "cannot remove {what} {}: {}",
            meta.id,
            ask::text(errno.raw_os_error())
        )),
    }
}

/// Shows, and with `--yes` removes, what nobody has.
fn rm_unused(args: &Args, domain: &str, daemon: &Daemon) -> Result<(), Failure> {
    let dir = args.via.dir.path();
    let survey = Survey::of(&dir)?;
    if let Some(silent) = survey.silent.first() {
        return Err(Failure::new(format!(
            "domain {} does not tell what its processes have open, so nothing can be said to be \
             unused; see its log, or remove by id",
            silent.name
        )));
    }
    let kinds = [Kind::Shm, Kind::Sem, Kind::Msg];
    let all = constructs::routed(domain, daemon, &survey, &kinds)?;
    let is_chosen = |one: &Construct| match &args.owner {
        Some(owner) => one.domain.as_ref() == Some(owner),
        None => true,
    };
    let idle = i64::try_from(args.idle.as_secs()).unwrap_or(i64::MAX);
    let chosen = all.iter().filter(|one| {
        is_chosen(one) && (!args.orphans || one.idle >= idle) && why_kept(one, &survey).is_none()
    });
    let mut failed = Vec::new();
    let mut number = 0;
    for one in chosen {
        number += 1;
        let what = format!("{} {} (key {}", noun(one.kind()), one.id, one.key);
        let of = one.domain.as_deref().unwrap_or("?");
        let line = format!(
            "{what}, domain {of}, not used for {})",
            show::span(one.idle)
        );
        if !args.yes {
            say(&format!("would remove {line}\n"))?;
            continue;
        }
        // Somebody may have come while the others were removed.
        if let Some(why) = why_kept_now(one, &dir)? {
            say(&format!("kept {line}: {why}\n"))?;
            continue;
        }
        let meta = Meta {
            kind: one.kind() as u32,
            id: one.id,
            uid: one.uid,
            ..Meta::default()
        };
        match remove(daemon, &meta) {
            Ok(()) => say(&format!("removed {line}\n"))?,
            Err(why) => failed.push(why),
        }
    }
    if number == 0 {
        say("nothing to remove\n")?;
    } else if !args.yes {
        say("nothing was removed; --yes does it\n")?;
    }
    all_done(failed)
}

/// Why a construct is not taken for unused, if it is not: somebody has it, or waits, or has something to
/// undo in it.
fn why_kept(one: &Construct, survey: &Survey) -> Option<&'static str> {
    if one.in_use() > 0 {
        return Some("somebody has it");
    }
    if !one.status.is_empty() && one.status != ["locked"] {
        return Some("it goes by itself");
    }
    let reports: Vec<ConstructReport> = survey.on(one.id);
    // Its owner knows what is in it.
    if !reports.iter().any(|report| Some(report.domid) == one.domid) {
        return Some("its owner domain does not tell of it");
    }
    let waits = |report: &ConstructReport| {
        let sets = report.set.as_ref();
        let queues = report.queue.as_ref();
        !report.processes.is_empty()
            || report.withheld
            || sets.is_some_and(|set| !set.waiters.is_empty() || !set.undo.is_empty())
            || queues.is_some_and(|queue| !queue.senders.is_empty() || !queue.receivers.is_empty())
    };
    reports.iter().any(waits).then_some("somebody has it")
}

fn why_kept_now(one: &Construct, dir: &std::path::Path) -> Result<Option<&'static str>, Failure> {
    let survey = Survey::of(dir)?;
    let mut now = one.clone();
    let of_domain = |domain: &Told| {
        let held = domain.held.iter().filter(|held| held.id == one.id);
        held.map(|held| held.processes).sum::<u64>()
    };
    if survey.domains.iter().map(of_domain).sum::<u64>() > 0 {
        return Ok(Some("somebody has it now"));
    }
    now.holders.clear();
    Ok(why_kept(&now, &survey))
}
