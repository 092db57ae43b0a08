// SPDX-License-Identifier: MIT OR Apache-2.0
//! One run from power-on to its end: what follows from what the domains say. No input or output of
//! its own.

use super::machine::Source;
use super::report::Report;
use super::stream::{Item, Stream};
use std::collections::BTreeMap;

/// Printed by a domain that cannot be got ready.
const FAILED: &str = "lab: failed: ";

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
    /// Say a line of the lab's own.
    Say(String),
    /// Show a line behind a domain's name.
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
    /// The number it had when it was destroyed on purpose.
    destroyed: Option<u32>,
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

    /// The domains that are not ready.
    pub fn unready(&self) -> Vec<String> {
        let unready = self.domains.iter().filter(|(_, domain)| !domain.ready);
        unready.map(|(number, _)| format!("dom{number}")).collect()
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
            steps.push(Step::Say(format!("Xen {version}")));
        }
        if let Some((_, what)) = line.split_once(FAILED) {
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
            steps.extend(lines.into_iter().map(Step::Say));
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
                steps.push(Step::Say(format!("dom0 is up, Linux {kernel}")));
            }
            (Some("failed"), _) => {
                steps.push(Step::Fail(record["failed".len()..].trim().to_owned()));
            }
            (Some("again"), Some(name)) => {
                if let Some(domain) = self.named(name) {
                    domain.pending += 1;
                    domain.lost = false;
                }
            }
            (Some("log"), _) => log("dom0", record, steps),
            (Some("gone"), Some(name)) => {
                self.gone(name, second.and_then(|id| id.parse().ok()), steps);
            }
            (Some("unjudged"), Some(name)) => {
                if let Some(domain) = self.named(name) {
                    domain.pending = 0;
                    domain.shown = false;
                    domain.destroyed = domain.id.take();
                }
                self.look(steps);
            }
            _ => {}
        }
    }

    /// A guest is gone, which had this number.
    fn gone(&mut self, name: &str, id: Option<u32>, steps: &mut Vec<Step>) {
        let booting = self.phase == Phase::Booting;
        let Some(domain) = self.named(name) else {
            return;
        };
        let number = id.map_or_else(|| "?".into(), |id| id.to_string());
        steps.push(Step::Say(format!("{name} is gone (domid {number})")));
        // One of its name may be there already, or was destroyed for that.
        if domain.destroyed != id && (domain.id.is_none() || domain.id == id) {
            domain.id = None;
            domain.lost = domain.pending > 0;
        }
        if booting {
            steps.push(Step::Fail(format!(
                "{name} went away before all were ready"
            )));
        }
        self.look(steps);
    }

    /// A line that a domain printed.
    fn line(&mut self, number: usize, line: String, steps: &mut Vec<Step>) {
        let Some(domain) = self.domains.get_mut(&number) else {
            return;
        };
        // The kernel's first line: one of that name was started again.
        if number > 0 && line.contains("] Linux version ") {
            domain.shown = false;
        }
        if let Some((_, what)) = line.split_once(FAILED) {
            steps.push(Step::Fail(format!("dom{number}: {what}")));
        }
        if domain.shown || line.contains("Kernel panic") {
            steps.push(Step::Show(format!("dom{number}"), line));
        }
    }

    /// A record of the script in a domain.
    fn record(&mut self, number: usize, record: &str, steps: &mut Vec<Step>) {
        if record.starts_with("status ") {
            let stream = self.streams.get_mut(&Source::Domain(number));
            if let Some(line) = stream.and_then(Stream::rest) {
                self.line(number, line, steps);
            }
        }
        let Some(domain) = self.domains.get_mut(&number) else {
            return;
        };
        let mut words = record.split(' ');
        match (words.next(), words.next()) {
            (Some("ready"), Some(id)) => {
                domain.ready = true;
                domain.shown = false;
                domain.id = id.parse().ok();
                let kernel = words.next().unwrap_or("?");
                steps.push(Step::Say(format!(
                    "dom{number} is ready: domid {id}, Linux {kernel}"
                )));
                if self.phase == Phase::Booting && self.domains.values().all(|d| d.ready) {
                    self.phase = Phase::Running;
                    steps.push(Step::Tell("go"));
                }
            }
            (Some("failed"), _) => {
                let why = record["failed".len()..].trim();
                steps.push(Step::Fail(format!("dom{number}: {why}")));
            }
            (Some("log"), _) => log(&format!("dom{number}"), record, steps),
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

/// A line of a daemon's log, of which warnings are shown.
fn log(name: &str, record: &str, steps: &mut Vec<Step>) {
    let line = record["log".len()..].trim();
    if line.contains(" WARN ") || line.contains(" ERROR ") || line.starts_with("vshmemd:") {
        steps.push(Step::Show(name.into(), format!("[vshmemd] {line}")));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use Step::{Fail, Say, Show, Tell};

    const CONTROL: Source = Source::Control;
    const XEN: Source = Source::Xen;

    fn dom(number: usize) -> Source {
        Source::Domain(number)
    }

    /// A run with two guests in which each domain of `commands` has one, up to the begin of these.
    fn running(commands: &[usize]) -> Session {
        let mut session = Session::new(2, commands.iter().copied());
        session.said(dom(1), b"booting\n\x1eready 4 6.1.0\n");
        assert_eq!(session.unready(), ["dom2"]);
        let steps = session.said(dom(2), b"\x1eready 5 6.1.0\n");
        let ready = Say("dom2 is ready: domid 5, Linux 6.1.0".into());
        assert_eq!(steps, [ready, Tell("go")]);
        assert_eq!(session.phase(), Phase::Running);
        session.said(dom(1), b"\x1ebegin\n");
        session.said(dom(2), b"\x1ebegin\n");
        session
    }

    fn show(who: &str, line: &str) -> Step {
        Show(who.into(), line.into())
    }

    #[test]
    fn only_what_commands_print_is_shown() {
        let mut session = Session::new(1, [1].into_iter());
        assert_eq!(session.said(dom(1), b"a kernel's line\n"), []);
        session.said(dom(1), b"\x1eready 1 6.1.0\n");
        let steps = session.said(dom(1), b"noise\n\x1ebegin\none\nhalf");
        assert_eq!(steps, [show("dom1", "one")]);
        let steps = session.said(dom(1), b"\x1estatus 0\n");
        assert_eq!(steps, [show("dom1", "half"), Tell("count")]);
        assert_eq!(
            session.said(dom(0), b"of dom0\n"),
            [show("dom0", "of dom0")]
        );
    }

    #[test]
    fn all_is_well_if_every_command_ended_with_0() {
        for (second, well) in [(0, true), (1, false)] {
            let mut session = running(&[0, 1, 2]);
            session.said(dom(1), b"\x1estatus 0\n");
            session.said(dom(2), format!("\x1estatus {second}\n").as_bytes());
            assert_eq!(session.phase(), Phase::Running);
            let steps = session.said(dom(0), b"\x1estatus 0\n");
            assert_eq!(steps, [Tell("count")]);
            let (lines, verdict) = session.verdict();
            assert_eq!(verdict, well);
            assert_eq!(lines[2], format!("dom2: exit status {second}"));
        }
    }

    #[test]
    fn the_machine_is_switched_off_when_xen_has_counted() {
        let mut session = running(&[1]);
        assert_eq!(session.said(XEN, b"lab: counted\n"), []);
        session.said(dom(1), b"\x1estatus 0\n");
        let console = "(XEN) Event channel information for domain 5:\nlab: counted\n";
        let steps = session.said(XEN, console.as_bytes());
        let line = "dom2 (domid 5): grants mapped: none; event channels: 0, connected: none";
        assert_eq!(steps, [Say(line.into()), Tell("end")]);
        assert_eq!(session.phase(), Phase::Ending);
    }

    #[test]
    fn a_domain_that_goes_away_under_its_command_is_no_success() {
        let mut session = running(&[1, 2]);
        session.said(dom(2), b"\x1estatus 0\n");
        let steps = session.said(CONTROL, b"\x1egone dom1 4\n");
        assert_eq!(steps, [Say("dom1 is gone (domid 4)".into()), Tell("count")]);
        let (lines, well) = session.verdict();
        assert!(!well);
        assert_eq!(
            lines[0],
            "dom1: its command has not ended, and the domain is gone"
        );
    }

    #[test]
    fn a_domain_that_goes_away_after_its_command_takes_nothing_from_the_result() {
        let mut session = running(&[1, 2]);
        // Its last word comes on another way than that it is gone, and later.
        session.said(CONTROL, b"\x1egone dom1 4\n");
        session.said(dom(1), b"\x1estatus 0\n");
        session.said(dom(2), b"\x1estatus 0\n");
        assert!(session.verdict().1);
    }

    #[test]
    fn a_domain_destroyed_on_purpose_is_not_judged_and_its_next_command_is() {
        let mut session = running(&[0, 1]);
        assert_eq!(
            session
                .said(CONTROL, b"\x1eunjudged dom1\n\x1egone dom1 4\n")
                .len(),
            1
        );
        session.said(CONTROL, b"\x1eagain dom1\n");
        session.said(dom(0), b"\x1estatus 0\n");
        let steps = session.said(dom(1), b"[    0.000000] Linux version 6.1.0\nbooting\n");
        assert_eq!(steps, []);
        session.said(dom(1), b"\x1eready 6 6.1.0\n");
        assert_eq!(session.phase(), Phase::Running);
        let steps = session.said(dom(1), b"\x1ebegin\nagain\n\x1estatus 7\n");
        assert_eq!(steps, [show("dom1", "again"), Tell("count")]);
        let (lines, well) = session.verdict();
        assert_eq!(lines, ["dom0: exit status 0", "dom1: exit status 7"]);
        assert!(!well);
    }

    #[test]
    fn a_machine_that_dies_and_a_guest_that_is_not_built_end_the_run() {
        let mut session = Session::new(2, [1].into_iter());
        let steps = session.said(XEN, b"[ 1.0] Kernel panic - not syncing: x\n");
        assert!(matches!(&steps[..], [Fail(why)] if why.contains("Kernel panic")));
        let steps = session.said(CONTROL, b"\x1efailed dom1 is not built: y\n");
        assert_eq!(steps, [Fail("dom1 is not built: y".into())]);
        let steps = session.said(CONTROL, b"\x1egone dom2 9\n");
        assert!(matches!(&steps[..], [Say(_), Fail(_)]));
    }

    #[test]
    fn warnings_of_a_daemon_are_shown_and_the_rest_of_its_log_is_not() {
        let mut session = running(&[1]);
        let steps = session.said(dom(1), b"\x1elog 2026 INFO x\n\x1elog 2026  WARN y\n");
        assert_eq!(steps, [show("dom1", "[vshmemd] 2026  WARN y")]);
    }
}
