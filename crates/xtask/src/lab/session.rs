// SPDX-License-Identifier: MIT OR Apache-2.0
//! One run from power-on to its end: what follows from what the domains say. No input or output of
//! its own.

use super::machine::Source;
use super::report::Report;
use super::stream::{Item, Stream};
use std::collections::BTreeMap;

/// How far a run has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// Not all domains are ready; no command has begun.
    Booting,
    /// Commands are under way.
    Running,
    /// All commands have ended; Xen counts.
    Counting,
    /// The machine was told to end.
    Ending,
}

/// What is to be done.
#[derive(Debug, PartialEq, Eq)]
pub enum Step {
    /// Show a line behind a name.
    Show(String, String),
    /// Tell the script in dom0.
    Tell(&'static str),
    /// This run comes to nothing, for this reason.
    Fail(String),
}

/// What is known of a domain.
#[derive(Debug, Default)]
struct Domain {
    /// Its number, while it is there.
    id: Option<u32>,
    ready: bool,
    /// Whether what it prints is its command's.
    shown: bool,
    /// Commands that have not ended.
    pending: u32,
    /// It went away with its commands under way, and nobody had asked for that.
    lost: bool,
    /// How its commands ended.
    statuses: Vec<i32>,
}

/// A run.
#[derive(Debug)]
pub struct Session {
    phase: Phase,
    /// By their numbers in the lab: 0 is dom0.
    domains: BTreeMap<usize, Domain>,
    streams: BTreeMap<Source, Stream>,
    report: Report,
}

impl Session {
    /// The beginning of a run with so many guests, in which these domains have commands.
    pub fn new(guests: usize, commands: impl Iterator<Item = usize>) -> Self {
        let mut domains: BTreeMap<_, _> = (0..=guests)
            .map(|number| (number, Domain::default()))
            .collect();
        for number in commands {
            domains.entry(number).or_default().pending = 1;
        }
        if let Some(dom0) = domains.get_mut(&0) {
            dom0.id = Some(0);
            dom0.ready = true;
            dom0.shown = true;
        }
        Self {
            phase: Phase::Booting,
            domains,
            streams: BTreeMap::new(),
            report: Report::default(),
        }
    }

    /// How far the run has come.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// Takes what somebody said.
    pub fn said(&mut self, source: Source, bytes: &[u8]) -> Vec<Step> {
        let items = self.streams.entry(source).or_default().feed(bytes);
        let mut steps = Vec::new();
        for item in items {
            match (source, item) {
                (Source::Xen, Item::Line(line)) => self.console(&line, &mut steps),
                (Source::Control, Item::Record(record)) => self.control(&record, &mut steps),
                (Source::Domain(number), Item::Line(line)) => {
                    self.line(number, line, &mut steps);
                }
                (Source::Domain(number), Item::Record(record)) => {
                    self.record(number, &record, &mut steps);
                }
                (Source::Xen, Item::Record(_)) | (Source::Control, Item::Line(_)) => {}
            }
        }
        steps
    }

    /// What each domain's commands came to, and whether all is well: every command has ended with
    /// status 0.
    pub fn verdict(&self) -> (Vec<String>, bool) {
        let mut lines = Vec::new();
        let mut well = true;
        for (number, domain) in &self.domains {
            for status in &domain.statuses {
                lines.push(format!("dom{number}: exit status {status}"));
                well &= *status == 0;
            }
            if domain.pending > 0 {
                well = false;
                lines.push(format!(
                    "dom{number}: its command has not ended{}",
                    if domain.lost {
                        ", and the domain is gone"
                    } else {
                        ""
                    }
                ));
            }
        }
        (lines, well)
    }

    /// A line of the console of Xen and of dom0's kernel.
    fn console(&mut self, line: &str, steps: &mut Vec<Step>) {
        if let Some(rest) = line.strip_prefix("(XEN) Xen version ") {
            let version = rest.split(" (").take(2).collect::<Vec<_>>().join(" (");
            steps.push(lab(format!("Xen {version}")));
        }
        if let Some((_, what)) = line.split_once("lab: failed: ") {
            steps.push(Step::Fail(format!("dom0: {what}")));
        }
        if line.contains("Panic on CPU") || line.contains("Kernel panic") {
            steps.push(Step::Fail(format!("the machine died: {line}")));
        }
        let domains = &self.domains;
        let name = |id| {
            let known = domains.iter().find(|(_, domain)| domain.id == Some(id));
            known.map_or_else(
                || format!("domid {id}"),
                |(number, _)| format!("dom{number}"),
            )
        };
        if let Some(lines) = self.report.line(line, name) {
            steps.extend(lines.into_iter().map(lab));
            if self.phase == Phase::Counting {
                self.phase = Phase::Ending;
                steps.push(Step::Tell("end"));
            }
        }
    }

    /// A record of the script in dom0.
    fn control(&mut self, record: &str, steps: &mut Vec<Step>) {
        let mut words = record.split(' ');
        let (what, first, second) = (words.next(), words.next(), words.next());
        match (what, first) {
            (Some("booted"), Some(kernel)) => {
                steps.push(lab(format!("dom0 is up, Linux {kernel}")));
            }
            (Some("failed"), _) => {
                steps.push(Step::Fail(record["failed".len()..].trim().to_owned()));
            }
            (Some("created"), Some(name)) => {
                let id = second.and_then(|id| id.parse().ok());
                if let Some(domain) = self.named(name) {
                    domain.id = id;
                    domain.lost = false;
                    if words.next() == Some("again") {
                        domain.pending += 1;
                    }
                }
            }
            (Some("gone"), Some(name)) => {
                let id = second.and_then(|id| id.parse().ok());
                if let Some(domain) = self.named(name)
                    && domain.id == id
                {
                    domain.id = None;
                    domain.lost = domain.pending > 0;
                    steps.push(lab(format!(
                        "{name} is gone (domid {})",
                        second.unwrap_or("?")
                    )));
                }
                if self.phase == Phase::Booting {
                    steps.push(Step::Fail(format!("{name} went away before it was ready")));
                }
                self.look(steps);
            }
            (Some("unjudged"), Some(name)) => {
                if let Some(domain) = self.named(name) {
                    domain.pending = 0;
                }
                self.look(steps);
            }
            _ => {}
        }
    }

    /// A line that a domain printed.
    fn line(&mut self, number: usize, line: String, steps: &mut Vec<Step>) {
        let Some(domain) = self.domains.get(&number) else {
            return;
        };
        if domain.shown || line.contains("Kernel panic") {
            steps.push(Step::Show(format!("dom{number}"), line));
        }
    }

    /// A record of the script in a domain.
    fn record(&mut self, number: usize, record: &str, steps: &mut Vec<Step>) {
        let rest = self
            .streams
            .get_mut(&Source::Domain(number))
            .and_then(Stream::rest);
        if let Some(line) = rest {
            self.line(number, line, steps);
        }
        let Some(domain) = self.domains.get_mut(&number) else {
            return;
        };
        let mut words = record.split(' ');
        match (words.next(), words.next()) {
            (Some("ready"), Some(id)) => {
                domain.ready = true;
                domain.shown = false;
                let kernel = words.next().unwrap_or("?");
                steps.push(lab(format!(
                    "dom{number} is ready: domid {id}, Linux {kernel}"
                )));
                if self.phase == Phase::Booting && self.domains.values().all(|d| d.ready) {
                    self.phase = Phase::Running;
                    steps.push(Step::Tell("go"));
                }
            }
            (Some("begin"), _) => domain.shown = true,
            (Some("status"), Some(status)) => {
                domain.pending = domain.pending.saturating_sub(1);
                domain.shown = number == 0;
                domain.statuses.push(status.parse().unwrap_or(-1));
            }
            _ => {}
        }
        self.look(steps);
    }

    fn named(&mut self, name: &str) -> Option<&mut Domain> {
        let number = name.strip_prefix("dom")?.parse().ok()?;
        self.domains.get_mut(&number)
    }

    /// When all commands have ended, it is time to count.
    fn look(&mut self, steps: &mut Vec<Step>) {
        let over = |domain: &Domain| domain.pending == 0 || domain.lost;
        if self.phase == Phase::Running && self.domains.values().all(over) {
            self.phase = Phase::Counting;
            steps.push(Step::Tell("count"));
        }
    }
}

/// A line of the lab's own.
fn lab(line: impl Into<String>) -> Step {
    Step::Show("lab".into(), line.into())
}
