// SPDX-License-Identifier: MIT OR Apache-2.0
//! `vshmem peers`: the domains of a directory, and how far they have used up what they may.

use crate::ask;
use crate::survey::Survey;
use crate::{DirArg, Failure, json, say, show};
use serde::Serialize;
use vshmem_report::DomainReport;

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    pub dir: DirArg,

    /// JSON (docs/json.md)
    #[arg(long)]
    pub json: bool,
}

/// What `--json` writes.
#[derive(Serialize)]
struct Peers {
    domains: Vec<Peer>,
    silent: Vec<Silent>,
}

#[derive(Serialize)]
struct Peer {
    domain: String,
    domid: u32,
    version: String,
    abi: u32,
    pid: i32,
    ready_since: i64,
    port: String,
    clients: u64,
    waiting: u64,
    segments: u64,
    sets: u64,
    queues: u64,
    grants_used: u64,
    grants_limit: Option<u64>,
}

#[derive(Serialize)]
struct Silent {
    domain: String,
    why: &'static str,
}

impl From<&DomainReport> for Peer {
    fn from(report: &DomainReport) -> Self {
        Self {
            domain: report.name.clone(),
            domid: report.domid,
            version: report.version.clone(),
            abi: report.abi,
            pid: report.pid,
            ready_since: report.since,
            port: report.port.clone(),
            clients: report.clients,
            waiting: report.waiting,
            segments: report.owned.segments,
            sets: report.owned.sets,
            queues: report.owned.queues,
            grants_used: report.grants_used,
            grants_limit: Some(report.grants_limit).filter(|limit| *limit > 0),
        }
    }
}

impl Peer {
    fn row(&self) -> [String; 9] {
        let limit = self
            .grants_limit
            .map_or("?".into(), |limit| limit.to_string());
        [
            self.domain.clone(),
            self.domid.to_string(),
            show::moment(self.ready_since),
            self.version.clone(),
            self.clients.to_string(),
            self.segments.to_string(),
            self.sets.to_string(),
            self.queues.to_string(),
            format!("{}/{limit}", self.grants_used),
        ]
    }
}

/// Prints the domains.
pub fn peers(args: &Args) -> Result<(), Failure> {
    let dir = args.dir.path();
    let survey = Survey::of(&dir)?;
    let domains: Vec<Peer> = survey
        .domains
        .iter()
        .map(|told| Peer::from(&told.report))
        .collect();
    if args.json {
        let silent = survey.silent.iter().map(|silent| Silent {
            domain: silent.name.clone(),
            why: ask::text(silent.why.raw_os_error()),
        });
        let silent = silent.collect();
        return json(&Peers { domains, silent });
    }
    survey.warn();
    if domains.is_empty() {
        return say(&format!(
            "no domain is up in {}; `vshmem run` starts one\n",
            dir.display()
        ));
    }
    let rows: Vec<_> = domains.iter().map(Peer::row).collect();
    let columns = [
        "domain",
        "domid",
        "ready since",
        "version",
        "clients",
        "shm",
        "sem",
        "msg",
        "grants",
    ];
    say(&show::table(columns, &rows))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_that_is_not_known_is_not_taken_for_none() {
        let report = DomainReport {
            grants_used: 3,
            ..DomainReport::default()
        };
        assert_eq!(Peer::from(&report).row()[8], "3/?");
        let report = DomainReport {
            grants_limit: 9,
            ..report
        };
        assert_eq!(Peer::from(&report).row()[8], "3/9");
    }

    #[test]
    fn every_field_is_documented() {
        let domains = vec![Peer::from(&DomainReport::default())];
        let silent = vec![Silent {
            domain: "a".into(),
            why: "",
        }];
        crate::constructs::tests::assert_documented(&Peers { domains, silent });
    }
}
