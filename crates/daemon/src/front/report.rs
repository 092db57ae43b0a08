// SPDX-License-Identifier: MIT OR Apache-2.0
//! What an operator is told: of the domain, and of one construct as far as this domain has to do with it.
//! Nothing here changes anything, takes a lock of a region, or asks anybody.

use super::answer::{Answer, Answered, Passed};
use super::constructs::Known;
use super::domain::{Domain, seconds};
use super::requests::Asker;
use rustix::fs::{MemfdFlags, SealFlags};
use rustix::io::Errno;
use std::collections::BTreeMap;
use std::io::Write;
use vshmem_abi::perm::READ;
use vshmem_abi::wire::{Meta, Reply, State};
use vshmem_abi::{ABI_VERSION, Kind, pages};
use vshmem_engine::mapping::How;
use vshmem_engine::msgq::look::Waits;
use vshmem_engine::msgq::{QueueMap, Search, Want};
use vshmem_engine::set::SetMap;
use vshmem_gnt::AnyPort;
use vshmem_report::{
    ConstructReport, DomainReport, GrantReport, Held, OfType, Owned, ProcessReport, QueueReport,
    Receiver, RegionReport, Sender, SetReport, SetWaiter, Undo, UndoerReport, Who, Why,
};

/// Words of undo records, and headers of messages, that are looked at: with more of them the report has
/// the first ones.
const LOOKED_AT: usize = 1 << 20;

/// Entries of a list whose length processes decide.
const TOLD: usize = 4096;

/// What a front-end knows of itself beside its [`Domain`].
#[derive(Debug)]
pub struct Identity {
    /// Name of the domain.
    pub name: String,
    /// When it began to serve, in seconds since the epoch.
    pub since: i64,
    /// Pages that it may grant at a time; 0: not known.
    pub grants_limit: u64,
}

/// The answer with a report.
///
/// # Errors
/// What making a file says.
pub fn answer<T: serde::Serialize>(report: &T) -> Answered {
    let text = vshmem_report::write(report).map_err(|_| Errno::INVAL)?;
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let file = rustix::fs::memfd_create("vshmem-report", flags)?;
    let mut file = std::fs::File::from(file);
    file.write_all(&text)
        .map_err(|e| super::creds::errno_of(&e))?;
    let all = SealFlags::WRITE | SealFlags::GROW | SealFlags::SHRINK | SealFlags::SEAL;
    rustix::fs::fcntl_add_seals(&file, all)?;
    Ok(Answer::from(Reply::OK).and(Passed::Own(file.into())))
}

impl Domain {
    /// What there is to say of the domain.
    pub fn report(&self, identity: &Identity) -> DomainReport {
        let mut owned = Owned::default();
        let mut held = Vec::new();
        for (id, known) in self.constructs.iter() {
            let Some((_, meta)) = self.constructs.find(id) else {
                continue;
            };
            if meta.state == State::Free as u32 {
                continue;
            }
            if meta.owner == self.domid {
                match Kind::from_raw(meta.kind) {
                    Some(Kind::Shm) => owned.segments += 1,
                    Some(Kind::Sem) => owned.sets += 1,
                    Some(Kind::Msg) => owned.queues += 1,
                    None => {}
                }
            }
            let processes = self.processes_of(id, known).len() as u64;
            if processes > 0 {
                held.push(Held { id, processes });
            }
        }
        held.sort_by_key(|held| held.id);
        let is_there = |client: &super::clients::Client| client.page.pid() > 0 && client.lives();
        let (grants_used, grants_limit) = self.grants(identity);
        DomainReport {
            name: identity.name.clone(),
            domid: self.domid,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            abi: ABI_VERSION,
            pid: rustix::process::getpid().as_raw_nonzero().get(),
            since: identity.since,
            port: name_of(&self.port).to_owned(),
            clients: self.clients.iter().filter(|(_, c)| is_there(c)).count() as u64,
            waiting: self
                .waits
                .held()
                .filter(|held| held.waits.is_some())
                .count() as u64,
            owned,
            grants_used,
            grants_limit,
            held,
        }
    }

    /// Pages that are granted to other domains, and how many may be. On Xen, where memory is granted when it is
    /// made, what was made.
    pub fn grants(&self, identity: &Identity) -> (u64, u64) {
        match &self.port {
            AnyPort::Host(_) => {
                let all = self.constructs.iter();
                let used = all.map(|(_, known)| granted(known)).sum();
                (used, identity.grants_limit)
            }
            AnyPort::Xen(port) => port.allocated(),
        }
    }

    /// The living processes of this domain that have a segment attached, or a set or queue open.
    fn processes_of(&self, id: i32, known: &Known) -> Vec<ProcessReport> {
        let mut by_pid: BTreeMap<i32, ProcessReport> = BTreeMap::new();
        for (_, client) in self.clients.iter() {
            let usage = client.page.usage(known.slot, id, self.domid);
            if (usage.nattch == 0 && !client.has_open(id)) || !client.lives() {
                continue;
            }
            let pid = client.own_pid();
            let of = by_pid.entry(pid).or_default();
            of.pid = pid;
            of.attachments += usage.nattch;
            of.atime = of.atime.max(usage.atime / 1_000_000_000);
            of.dtime = of.dtime.max(usage.dtime / 1_000_000_000);
        }
        by_pid.into_values().collect()
    }

    /// What there is to say of the construct `id`. Who has it, and what is in it, is for those who may
    /// read it, and for whoever runs this daemon.
    pub fn report_on(&self, id: i32, from: &Asker<'_>) -> ConstructReport {
        let mut report = ConstructReport {
            domid: self.domid,
            ended: self.ended.get(id).cloned(),
            ..ConstructReport::default()
        };
        let Some((known, (_, meta))) = self.constructs.get(id).zip(self.constructs.find(id)) else {
            return report;
        };
        report.region = known.source().map(|source| RegionReport {
            bytes: source.len,
            resident: known.resident(),
            how: match source.how {
                How::Direct => "file",
                How::Grants => "grants",
            }
            .to_owned(),
        });
        let each = known
            .source()
            .map_or(0, |source| pages(source.len).unwrap_or(0));
        let grant = |(domid, reference)| GrantReport {
            domid,
            reference,
            pages: each,
        };
        report.grants = known.grants().map(grant).collect();
        if !self.may_look(&meta, from) {
            report.withheld = true;
            return report;
        }
        report.processes = self.processes_of(id, known);
        let undoers = self
            .undoers
            .iter()
            .filter(|undoer| undoer.sets.contains(&id));
        let undoers = undoers.map(|undoer| UndoerReport {
            token: undoer.token.raw(),
            pid: undoer.own_pid,
        });
        report.undoers = undoers.collect();
        report.set = known.set().map(set);
        report.queue = known.queue().map(queue);
        report
    }

    /// The process that asks has removed a construct.
    pub fn note_removal(&mut self, meta: &Meta, from: &Asker<'_>) {
        let why = Why::Removed {
            pid: from.own_pid,
            uid: from.caller.uid,
        };
        self.ended.note(meta, why, seconds());
    }

    fn may_look(&self, meta: &Meta, from: &Asker<'_>) -> bool {
        from.caller.uid == rustix::process::geteuid().as_raw() || from.may_access(meta, READ)
    }
}

/// What a port is called.
pub const fn name_of(port: &AnyPort) -> &'static str {
    match port {
        AnyPort::Host(_) => "host",
        AnyPort::Xen(_) => "xen",
    }
}

/// Pages that count as granted of a construct.
fn granted(known: &Known) -> u64 {
    let each = known
        .source()
        .map_or(0, |source| pages(source.len).unwrap_or(0));
    each.saturating_mul(known.grants().count() as u64)
}

fn who((pid, domid): (i32, u32)) -> Who {
    Who { pid, domid }
}

fn set(map: &SetMap) -> SetReport {
    let set = map.region();
    let mut report = SetReport::default();
    for semaphore in set.semaphores() {
        report.values.push(semaphore.value);
        report.changed_by.push(who(semaphore.who));
    }
    let waiters = set.sleepers().map(|sleeper| SetWaiter {
        who: who(sleeper.who),
        num: sleeper.op.num(),
        change: sleeper.op.change(),
        operations: sleeper.ops,
    });
    report.waiters = waiters.collect();
    let undo = set.adjustments(LOOKED_AT).take(TOLD).map(|one| Undo {
        token: one.token.raw(),
        domid: one.token.domid(),
        num: one.num,
        adjust: one.adjust,
    });
    report.undo = undo.collect();
    report.undo_cut = report.undo.len() == TOLD;
    report
}

fn queue(map: &QueueMap) -> QueueReport {
    let queue = map.region();
    let mut types: BTreeMap<i64, OfType> = BTreeMap::new();
    let mut report = QueueReport::default();
    let mut seen = 0;
    for message in queue.queued(LOOKED_AT as u32) {
        seen += 1;
        if types.len() == TOLD && !types.contains_key(&message.mtype) {
            report.types_cut = true;
            continue;
        }
        let of = types.entry(message.mtype).or_default();
        of.r#type = message.mtype;
        of.messages += 1;
        of.bytes += u64::from(message.size);
    }
    report.types_cut |= seen == LOOKED_AT;
    report.types = types.into_values().collect();
    for (whose, waits) in queue.sleepers() {
        match waits {
            Waits::Send(message) => report.senders.push(Sender {
                who: who(whose),
                r#type: message.mtype,
                bytes: message.size.into(),
            }),
            Waits::Receive(want) => report.receivers.push(Receiver {
                who: who(whose),
                wants: in_words(&want),
            }),
        }
    }
    report
}

fn in_words(want: &Want) -> String {
    match want.search {
        Search::Any => "any".to_owned(),
        Search::Equal => want.mtype.to_string(),
        Search::NotEqual => format!("not {}", want.mtype),
        Search::UpTo => format!("up to {}", want.mtype),
    }
}
