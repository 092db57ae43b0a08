// SPDX-License-Identifier: MIT OR Apache-2.0
//! What `vshmem stat` knows, for people.

use super::{End, Everything, Party, has_contents};
use crate::constructs::{Construct, Of, noun};
use crate::show::{count, moment, span};
use std::collections::BTreeMap;
use std::fmt::Write;
use vshmem_abi::Kind;

/// Lines under a heading, written one by one.
struct Page {
    text: String,
}

impl Page {
    fn line(&mut self, name: &str, what: impl std::fmt::Display) {
        // Writing to a string does not fail.
        let _ = writeln!(self.text, "  {name:<14}{what}");
    }

    /// Further lines under the one before.
    fn more(&mut self, what: impl std::fmt::Display) {
        self.line("", what);
    }

    fn all(&mut self, name: &str, lines: impl IntoIterator<Item = String>) {
        let mut name = name;
        for line in lines {
            self.line(std::mem::take(&mut name), line);
        }
    }
}

/// A kind as a daemon names it, in a sentence.
pub fn noun_of(kind: &str) -> &'static str {
    [Kind::Shm, Kind::Sem, Kind::Msg]
        .into_iter()
        .find(|one| one.name() == kind)
        .map_or("construct", noun)
}

fn party(of: &Party) -> String {
    match (&of.domain, of.pid) {
        (Some(domain), Some(pid)) => format!("pid {pid} of {domain}"),
        (Some(domain), None) => format!("a process of {domain}"),
        (None, _) => "nobody".to_owned(),
    }
}

/// How a construct ended, behind its name.
pub fn end(end: &End) -> String {
    let when = moment(end.when);
    let had = format!("(it had the key {}, in domain {})", end.key, end.domain);
    match (&end.by, end.why) {
        (Some(by), _) => {
            let uid = end.by_uid.unwrap_or(0);
            format!("removed at {when} by {}, uid {uid} {had}", party(by))
        }
        (None, "owner-gone") => {
            format!("lost at {when}, when its owner domain or that domain's vshmemd ended {had}")
        }
        (None, _) => format!("removed at {when} in a domain that is not up any more {had}"),
    }
}

/// All of it.
pub fn of(one: &Construct, all: &Everything) -> String {
    let mut page = Page {
        text: format!("{} {}, key {}\n", noun(one.kind()), one.id, one.key),
    };
    if let Some(first) = page.text.get_mut(..1) {
        first.make_ascii_uppercase();
    }
    head(&mut page, one, all);
    uses(&mut page, one, all);
    if has_contents(one) {
        contents(&mut page, one, all);
    }
    page.text
}

fn head(page: &mut Page, one: &Construct, all: &Everything) {
    let domid = one.domid.unwrap_or(0);
    let domain = one
        .domain
        .as_deref()
        .unwrap_or("a domain that does not tell of itself");
    page.line("owner domain", format!("{domain} ({domid})"));
    if let Some(end_of) = &all.ended {
        page.line("state", end(end_of));
        page.more("it goes with its last detach");
    } else if !one.status.is_empty() {
        page.line("state", one.status.join(", "));
    }
    page.line(
        "owner",
        format!(
            "{} (uid {}, gid {}), mode {}",
            one.owner, one.uid, one.gid, one.mode
        ),
    );
    page.line(
        "creator",
        format!(
            "pid {} of {domain}, uid {}, gid {}",
            one.cpid.unwrap_or(0),
            one.cuid,
            one.cgid
        ),
    );
    page.line(
        "changed",
        format!("{}, when it was made or by IPC_SET", moment(one.ctime)),
    );
    page.line("idle", span(one.idle));
    match one.of {
        Of::Shm {
            bytes,
            nattch,
            atime,
            dtime,
            lpid,
            ..
        } => {
            page.line("size", count(bytes, "byte"));
            page.line("attachments", nattch);
            page.line("last attach", moment(atime));
            page.line("last detach", moment(dtime));
            if lpid != 0 {
                page.line("last used by", format!("pid {lpid}"));
            }
        }
        Of::Sem {
            nsems,
            otime,
            setval_time,
        } => {
            page.line("size", count(nsems, "semaphore"));
            page.line("last semop", moment(otime));
            page.line(
                "last set",
                format!("{} (SETVAL, SETALL)", moment(setval_time.unwrap_or(0))),
            );
        }
        Of::Msg {
            messages,
            used_bytes,
            limit_bytes,
            stime,
            rtime,
            lspid,
            lrpid,
        } => {
            let (messages, bytes) = (count(messages, "message"), count(used_bytes, "byte"));
            let limit = limit_bytes.unwrap_or(0);
            page.line("in it", format!("{messages}, {bytes} of {limit}"));
            let by = |time: i64, pid: i32| match pid {
                0 => moment(time),
                pid => format!("{} by pid {pid}", moment(time)),
            };
            page.line("last sent", by(stime, lspid));
            page.line("last received", by(rtime, lrpid));
        }
    }
}

fn uses(page: &mut Page, one: &Construct, all: &Everything) {
    if let Some(region) = &all.region {
        let (bytes, resident) = (region.region_bytes, region.resident_bytes);
        let how = match region.how.as_str() {
            "grants" => "grants",
            _ => "a file",
        };
        page.line(
            "region",
            format!(
                "{}, {resident} in memory, mapped from {how}",
                count(bytes, "byte")
            ),
        );
    }
    let grants = all.grants.iter().map(|grant| {
        let (pages, to) = (count(grant.pages, "page"), &grant.to);
        format!(
            "to {to} by {}: {pages}, reference {}",
            grant.from, grant.reference
        )
    });
    page.all("granted", grants);
    if all.withheld {
        page.line(
            "withheld",
            "who uses it and what is in it: you may not read it",
        );
    }
    let processes = all.processes.iter().map(|process| {
        let who = party(&process.party);
        match (has_contents(one), process.attachments) {
            (true, _) => who,
            (false, number) => format!(
                "{who}: {}, last at {}",
                count(number, "attachment"),
                moment(process.atime)
            ),
        }
    });
    let name = if has_contents(one) {
        "open in"
    } else {
        "attached in"
    };
    page.all(name, processes);
}

fn contents(page: &mut Page, one: &Construct, all: &Everything) {
    match one.kind() {
        Kind::Sem => match &all.values {
            Some(values) => semaphores(page, values, all),
            None => untold(page, all),
        },
        Kind::Msg => match &all.types {
            Some(types) => {
                let of = |t: &super::OfType| {
                    let messages = count(t.messages, "message");
                    format!("type {}: {messages}, {}", t.r#type, count(t.bytes, "byte"))
                };
                page.all("messages", types.iter().map(of));
                let senders = all.senders.iter().map(|sender| {
                    let (who, bytes) = (party(&sender.party), count(sender.message_bytes, "byte"));
                    format!("{who} to send {bytes} of type {}", sender.r#type)
                });
                page.all("waits", senders);
                let receivers = all.receivers.iter();
                let receivers = receivers.map(|r| {
                    let who = party(&r.party);
                    match r.wants.as_str() {
                        "any" => format!("{who} to receive"),
                        wants => format!("{who} to receive type {wants}"),
                    }
                });
                page.all("waits", receivers);
            }
            None => untold(page, all),
        },
        Kind::Shm => {}
    }
    if all.cut {
        page.line("and more", "than is shown here");
    }
}

fn untold(page: &mut Page, all: &Everything) {
    if !all.withheld {
        page.line(
            "contents",
            "only its owner domain can tell, which does not tell here",
        );
    }
}

/// The semaphores of which there is something to say, with who waits for each and who holds it.
fn semaphores(page: &mut Page, values: &[i32], all: &Everything) {
    let mut lines: BTreeMap<usize, Vec<String>> = BTreeMap::new();
    for (num, value) in values.iter().enumerate() {
        let by = all.changed_by.get(num).filter(|by| by.domain.is_some());
        if *value != 0 || by.is_some() || values.len() <= 8 {
            let by = by.map(|by| format!(", last changed by {}", party(by)));
            let text = format!("#{num} is {value}{}", by.unwrap_or_default());
            lines.insert(num, vec![text]);
        }
    }
    for waiter in &all.waiters {
        let who = party(&waiter.party);
        let what = match waiter.change {
            0 => "until it is 0".to_owned(),
            change => format!("to add {change}"),
        };
        let of = match waiter.operations {
            0 | 1 => String::new(),
            operations => format!(" (one of {operations} operations)"),
        };
        let line = format!("   {who} waits {what}{of}");
        lines.entry(waiter.num as usize).or_default().push(line);
    }
    for undo in &all.undo {
        let (who, adjust) = (party(&undo.party), undo.adjust);
        let line = format!("   the end of {who} adds {adjust} (SEM_UNDO)");
        lines.entry(undo.num as usize).or_default().push(line);
    }
    let left = values.len() - lines.keys().filter(|num| **num < values.len()).count();
    page.all("semaphores", lines.into_values().flatten());
    if left > 0 {
        page.more(format!("{} more, never used, at 0", left));
    }
}
