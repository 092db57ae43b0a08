// SPDX-License-Identifier: MIT OR Apache-2.0
//! What Xen says of grants and event channels (its debug keys `g` and `e`), counted by domain.

use std::collections::BTreeMap;

/// Printed behind Xen's lists: all of them are there.
const COUNTED: &str = "lab: counted";

/// An event channel's state that says: connected with one of another domain.
const INTERDOMAIN: u32 = 3;

/// Reads Xen's console. Domains are by their domids.
#[derive(Debug, Default)]
pub struct Report {
    /// Domains, as Xen has them.
    domains: Vec<u32>,
    /// Pages granted by the first that the second has mapped.
    mapped: BTreeMap<(u32, u32), u32>,
    /// All event channels of a domain.
    channels: BTreeMap<u32, u32>,
    /// Event channels of the first that are connected with the second.
    connected: BTreeMap<(u32, u32), u32>,
    /// The domain that the list is about which is being read.
    whose: Option<u32>,
}

impl Report {
    /// Takes a line; with the last of a report, returns the counts, in lines for people, who know
    /// domains by name.
    pub fn line(&mut self, line: &str, name: impl Fn(u32) -> String) -> Option<Vec<String>> {
        if line.ends_with(COUNTED) {
            return Some(std::mem::take(self).summary(name));
        }
        let line = line.strip_prefix("(XEN)")?.trim_start();
        // Whoever asks has all of it printed: the last time is the one that counts.
        if line.starts_with("gnttab_usage_print_all [") {
            *self = Self::default();
        } else if let Some(rest) = line.strip_prefix("grant-table for remote d") {
            self.whose = number(rest);
        } else if let Some(rest) = line.strip_prefix("Event channel information for domain ") {
            self.whose = number(rest);
            self.domains.extend(self.whose);
        } else if let Some(grant) = line.strip_prefix("[0x") {
            let (_, entry) = grant.split_once(']')?;
            let by = number(entry.trim_start())?;
            *self.mapped.entry((self.whose?, by)).or_default() += 1;
        } else if let Some((_, channel)) = line.split_once("]: ") {
            let field = |name| {
                let mut words = channel.split_whitespace();
                words.find_map(|word| word.strip_prefix(name).and_then(number))
            };
            // What is of this form and no event channel has no state.
            let state = field("s=")?;
            *self.channels.entry(self.whose?).or_default() += 1;
            if let (INTERDOMAIN, Some(with)) = (state, field("d=")) {
                *self.connected.entry((self.whose?, with)).or_default() += 1;
            }
        }
        None
    }

    fn summary(self, name: impl Fn(u32) -> String) -> Vec<String> {
        let pairs = |counts: &BTreeMap<(u32, u32), u32>, whose, word: &str| {
            let of_it = counts.iter().filter(|((first, _), _)| *first == whose);
            let shown: Vec<_> = of_it
                .map(|((_, second), count)| format!("{count} {word} {}", name(*second)))
                .collect();
            match shown.is_empty() {
                true => "none".into(),
                false => shown.join(", "),
            }
        };
        let line = |&whose: &u32| {
            format!(
                "{} (domid {whose}): grants mapped: {}; event channels: {}, connected: {}",
                name(whose),
                pairs(&self.mapped, whose, "by"),
                self.channels.get(&whose).unwrap_or(&0),
                pairs(&self.connected, whose, "with"),
            )
        };
        self.domains.iter().map(line).collect()
    }
}

/// The number that a text begins with.
fn number(text: &str) -> Option<u32> {
    let digits = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    text[..digits].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As Xen 4.17 prints it.
    const CONSOLE: &str = "\
(XEN) gnttab_usage_print_all [ key 'g' pressed
(XEN)       -------- active --------       -------- shared --------
(XEN) [ref] localdom mfn      pin          localdom gmfn     flags
(XEN) grant-table for remote d0 (v1)
(XEN)   1 frames (256 max), 1 maptrack frames (1024 max)
(XEN) no active grant table entries
(XEN) grant-table for remote d1 (v1)
(XEN)   1 frames (256 max), 0 maptrack frames (1024 max)
(XEN) [0x000]      0 0x2f802 0x00000002          0 0x02f802 0x19
(XEN) [0x009]      2 0x2f801 0x00000001          2 0x02f801 0x19
(XEN) [0x00a]      2 0x2f800 0x00000001          2 0x02f800 0x19
(XEN) gnttab_usage_print_all ] done
(XEN) 'e' pressed -> dumping event-channel info
(XEN) Event channel information for domain 0:
(XEN) Polling vCPUs: {}
(XEN)     port [p/m/s]
(XEN)        1 [0/0/  -   ]: s=5 n=0 x=0 v=0
(XEN)       18 [0/0/  -   ]: s=3 n=0 x=0 d=1 p=1
(XEN) Event channel information for domain 1:
(XEN)     port [p/m/s]
(XEN)        1 [0/0/  -   ]: s=3 n=0 x=0 d=0 p=18
";

    #[test]
    fn grants_and_event_channels_are_counted_by_domain() {
        let mut report = Report::default();
        let name = |id| format!("dom{id}");
        // The first time somebody else had asked.
        for line in CONSOLE.lines().chain(CONSOLE.lines()) {
            assert_eq!(report.line(line, name), None);
        }
        let want = [
            "dom0 (domid 0): grants mapped: none; event channels: 2, connected: 1 with dom1",
            "dom1 (domid 1): grants mapped: 1 by dom0, 2 by dom2; event channels: 1, \
             connected: 1 with dom0",
        ];
        assert_eq!(report.line("lab: counted", name).unwrap(), want);
        let none: [&str; 0] = [];
        assert_eq!(report.line("lab: counted", name).unwrap(), none);
    }
}
