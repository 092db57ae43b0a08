// SPDX-License-Identifier: MIT OR Apache-2.0
//! `vshmem stat`: everything that the daemons know of a construct, or how it ended.

mod text;

use crate::constructs::{Construct, Maker, Of};
use crate::survey::{Survey, Via};
use crate::{Failure, ask, json, pick, say, show};
use rustix::io::Errno;
use serde::Serialize;
use vshmem_abi::Kind;
use vshmem_abi::wire::{Meta, Op, Request, STAT_ANY};
use vshmem_report::{ConstructReport, OfType, Why};

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Public id of the construct
    #[arg(value_name = "ID")]
    pub id: i32,

    /// JSON (docs/json.md)
    #[arg(long)]
    pub json: bool,

    #[command(flatten)]
    pub via: Via,
}

/// What `--json` writes.
#[derive(Debug, Default, Serialize)]
pub struct Everything {
    /// The construct; of one that is gone nothing.
    pub construct: Option<Construct>,
    /// The memory behind it.
    pub region: Option<RegionOf>,
    /// To whom it is granted.
    pub grants: Vec<Grant>,
    /// Processes that have it attached, or open.
    pub processes: Vec<Process>,
    /// Values of a set; `null` where no domain tells.
    pub values: Option<Vec<i32>>,
    /// Who changed each value last.
    pub changed_by: Vec<Party>,
    /// Who waits on a set.
    pub waiters: Vec<Waiter>,
    /// What ends of processes will do to the values.
    pub undo: Vec<Undone>,
    /// Messages of a queue by type; `null` where no domain tells.
    pub types: Option<Vec<OfType>>,
    /// Who waits to send.
    pub senders: Vec<Sender>,
    /// Who waits to receive.
    pub receivers: Vec<Receiver>,
    /// `undo` or `types` have not all there is.
    pub cut: bool,
    /// Processes and contents are not for this user.
    pub withheld: bool,
    /// How it was removed or lost.
    pub ended: Option<End>,
}

/// A region.
#[derive(Debug, Serialize)]
pub struct RegionOf {
    /// Bytes, in whole pages.
    pub region_bytes: u64,
    /// Bytes of it in memory.
    pub resident_bytes: u64,
    /// How it is mapped.
    pub how: String,
}

/// A grant.
#[derive(Debug, Serialize)]
pub struct Grant {
    /// From this domain.
    pub from: String,
    /// To this one.
    pub to: String,
    /// Its number.
    pub reference: u32,
    /// Pages that it counts for.
    pub pages: u64,
}

/// A process of a domain.
#[derive(Clone, Debug, Serialize)]
pub struct Party {
    /// Name of the domain, or its number where it has none; of nobody `null`.
    pub domain: Option<String>,
    /// Pid as the process sees itself; `null`: not known.
    pub pid: Option<i32>,
}

/// A process that has the construct.
#[derive(Debug, Serialize)]
pub struct Process {
    /// Which.
    #[serde(flatten)]
    pub party: Party,
    /// Its attachments of a segment.
    pub attachments: u64,
    /// Its last attach.
    pub atime: i64,
    /// Its last detach.
    pub dtime: i64,
}

/// Who waits on a set.
#[derive(Debug, Serialize)]
pub struct Waiter {
    /// Who.
    #[serde(flatten)]
    pub party: Party,
    /// For which semaphore.
    pub num: u32,
    /// What it will add; 0: it waits for zero.
    pub change: i32,
    /// Operations of its call.
    pub operations: u32,
}

/// Who has something to undo.
#[derive(Debug, Serialize)]
pub struct Undone {
    /// Who.
    #[serde(flatten)]
    pub party: Party,
    /// Of which semaphore.
    pub num: u32,
    /// What its end will add.
    pub adjust: i32,
}

/// Who waits to send.
#[derive(Debug, Serialize)]
pub struct Sender {
    /// Who.
    #[serde(flatten)]
    pub party: Party,
    /// Type of its message.
    pub r#type: i64,
    /// Bytes of its text.
    pub message_bytes: u64,
}

/// Who waits to receive.
#[derive(Debug, Serialize)]
pub struct Receiver {
    /// Who.
    #[serde(flatten)]
    pub party: Party,
    /// For which types.
    pub wants: String,
}

/// How a construct ended.
#[derive(Debug, Serialize)]
pub struct End {
    /// When.
    pub when: i64,
    /// What it was.
    pub kind: String,
    /// The key that it had.
    pub key: String,
    /// Its owner domain.
    pub domain: String,
    /// `removed`, `removed-elsewhere`, `owner-gone`.
    pub why: &'static str,
    /// Who removed it, if that is known.
    pub by: Option<Party>,
    /// The user who removed it.
    pub by_uid: Option<u32>,
}

/// Prints what is known.
pub fn stat(args: &Args) -> Result<(), Failure> {
    let (name, daemon) = args.via.connect()?;
    let survey = Survey::of(&args.via.dir.path())?;
    survey.warn();
    // One that is lost is found by its number only where it was known.
    let found = pick::by_id(&daemon, &name, args.id)?;
    let construct = match found {
        Some(meta) => construct(&daemon, &name, &meta, &survey)?,
        None => None,
    };
    let mut everything = gather(&survey.on(args.id), &survey);
    everything.construct = construct;
    if args.json && (everything.construct.is_some() || everything.ended.is_some()) {
        json(&everything)?;
    }
    match (&everything.construct, &everything.ended) {
        (Some(_), _) if args.json => Ok(()),
        (Some(one), _) => say(&text::of(one, &everything)),
        (None, Some(end)) => Err(Failure::new(format!(
            "there is no {} {} any more: {}",
            text::noun_of(&end.kind),
            args.id,
            text::end(end)
        ))),
        (None, None) => Err(Failure::new(format!(
            "no routed construct has the id {}, and none of which the domains remember the end; \
             `vshmem ls` shows what there is, `ipcs -i` the kernel's own",
            args.id
        ))),
    }
}

fn construct(
    daemon: &ask::Daemon,
    name: &str,
    meta: &Meta,
    survey: &Survey,
) -> Result<Option<Construct>, Failure> {
    let kind = Kind::from_raw(meta.kind);
    let request = Request {
        kind: meta.kind,
        id: meta.id,
        flags: STAT_ANY,
        ..Request::default()
    };
    let reply = match daemon.ask(Op::Stat, request).and_then(ask::refused) {
        Ok(reply) => reply,
        Err(Errno::INVAL | Errno::IDRM) => return Ok(None),
        Err(errno) => return Err(pick::no_answer(name, errno)),
    };
    let mut maker = Maker::new(survey);
    Ok(kind.map(|kind| match kind {
        Kind::Shm => maker.segment(&reply.body()),
        Kind::Sem => maker.set(&reply.body()),
        Kind::Msg => maker.queue(&reply.body()),
    }))
}

/// Puts together what the domains say.
fn gather(reports: &[ConstructReport], survey: &Survey) -> Everything {
    let mut all = Everything::default();
    let party = |domid: u32, pid: i32| Party {
        domain: Some(survey.called(domid)).filter(|_| domid != 0 || pid != 0),
        pid: Some(pid).filter(|pid| *pid != 0),
    };
    let undoer = |token: u64| {
        let of = reports.iter().flat_map(|report| &report.undoers);
        of.clone()
            .find(|undoer| undoer.token == token)
            .map_or(0, |undoer| undoer.pid)
    };
    for report in reports {
        all.withheld |= report.withheld;
        all.grants.extend(report.grants.iter().map(|grant| Grant {
            from: survey.called(report.domid),
            to: survey.called(grant.domid),
            reference: grant.reference,
            pages: grant.pages,
        }));
        all.processes
            .extend(report.processes.iter().map(|process| Process {
                party: party(report.domid, process.pid),
                attachments: process.attachments,
                atime: process.atime,
                dtime: process.dtime,
            }));
        if let (None, Some(region)) = (&all.region, &report.region) {
            all.region = Some(RegionOf {
                region_bytes: region.bytes,
                resident_bytes: region.resident.saturating_mul(vshmem_abi::PAGE_SIZE),
                how: region.how.clone(),
            });
        }
        // All see the same memory: the first one that tells is enough.
        if let (None, Some(set)) = (&all.values, &report.set) {
            all.values = Some(set.values.clone());
            all.changed_by = set
                .changed_by
                .iter()
                .map(|who| party(who.domid, who.pid))
                .collect();
            let waiters = set.waiters.iter().map(|waiter| Waiter {
                party: party(waiter.who.domid, waiter.who.pid),
                num: waiter.num,
                change: waiter.change,
                operations: waiter.operations,
            });
            all.waiters = waiters.collect();
            let undo = set.undo.iter().map(|undo| Undone {
                party: party(undo.domid, undoer(undo.token)),
                num: undo.num,
                adjust: undo.adjust,
            });
            all.undo = undo.collect();
            all.cut |= set.undo_cut;
        }
        if let (None, Some(queue)) = (&all.types, &report.queue) {
            all.types = Some(queue.types.clone());
            let senders = queue.senders.iter().map(|sender| Sender {
                party: party(sender.who.domid, sender.who.pid),
                r#type: sender.r#type,
                message_bytes: sender.bytes,
            });
            all.senders = senders.collect();
            let receivers = queue.receivers.iter().map(|receiver| Receiver {
                party: party(receiver.who.domid, receiver.who.pid),
                wants: receiver.wants.clone(),
            });
            all.receivers = receivers.collect();
            all.cut |= queue.types_cut;
        }
        let Some(ended) = &report.ended else {
            continue;
        };
        let (why, by, by_uid) = match ended.why {
            Why::Removed { pid, uid } => ("removed", Some(party(report.domid, pid)), Some(uid)),
            Why::RemovedElsewhere => ("removed-elsewhere", None, None),
            Why::OwnerGone => ("owner-gone", None, None),
        };
        // Who removed it knows best.
        if all.ended.is_none() || by.is_some() {
            all.ended = Some(End {
                when: ended.when,
                kind: ended.kind.clone(),
                key: show::key(ended.key),
                domain: survey.called(ended.owner),
                why,
                by,
                by_uid,
            });
        }
    }
    all
}

/// Whether a construct is one of which there is something inside to tell.
fn has_contents(one: &Construct) -> bool {
    !matches!(one.of, Of::Shm { .. })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::constructs::tests::survey;
    use vshmem_report::*;

    /// What two domains say of a set in which one waits and one has something to undo.
    fn reports() -> Vec<ConstructReport> {
        let who = |pid, domid| vshmem_report::Who { pid, domid };
        let owner = ConstructReport {
            domid: 2,
            set: Some(SetReport {
                values: vec![0, 4],
                changed_by: vec![who(0, 0), who(30, 3)],
                waiters: vec![SetWaiter {
                    who: who(40, 2),
                    num: 0,
                    change: -1,
                    operations: 1,
                }],
                undo: vec![vshmem_report::Undo {
                    token: 99,
                    domid: 3,
                    num: 1,
                    adjust: -4,
                }],
                undo_cut: false,
            }),
            ended: Some(Ended {
                why: Why::RemovedElsewhere,
                ..Ended::default()
            }),
            grants: vec![GrantReport {
                domid: 3,
                reference: 7,
                pages: 40,
            }],
            region: Some(RegionReport::default()),
            queue: Some(QueueReport {
                types: vec![OfType::default()],
                senders: vec![vshmem_report::Sender::default()],
                receivers: vec![vshmem_report::Receiver::default()],
                ..QueueReport::default()
            }),
            ..ConstructReport::default()
        };
        let other = ConstructReport {
            domid: 3,
            processes: vec![ProcessReport {
                pid: 30,
                ..ProcessReport::default()
            }],
            undoers: vec![UndoerReport { token: 99, pid: 31 }],
            ended: Some(Ended {
                why: Why::Removed { pid: 30, uid: 5 },
                ..Ended::default()
            }),
            ..ConstructReport::default()
        };
        vec![owner, other]
    }

    #[test]
    fn what_one_domain_does_not_know_another_one_tells() {
        let all = gather(&reports(), &survey());
        assert_eq!(all.values, Some(vec![0, 4]));
        let undo = &all.undo[0];
        assert_eq!((undo.party.pid, undo.adjust), (Some(31), -4));
        assert_eq!(undo.party.domain.as_deref(), Some("3"));
        assert_eq!(all.waiters[0].party.domain.as_deref(), Some("alpha"));
        assert_eq!(all.changed_by[0].domain, None);
        assert_eq!(all.grants[0].from, "alpha");
        let end = all.ended.unwrap();
        assert_eq!((end.why, end.by_uid), ("removed", Some(5)));
    }

    #[test]
    fn every_field_is_documented() {
        crate::constructs::tests::assert_documented(&gather(&reports(), &survey()));
    }
}
