// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the policy allows: which domains may use which keys and how, and how much each may make.
//!
//! The first rule counts that names both the domain and the key; of limits the first that names the
//! domain. Without any rule everything is allowed; with rules, what none of them names is not, unless
//! `default` says otherwise.

use crate::file::DomainSpec;
use serde::Deserialize;
use std::fmt;
use std::path::{Path, PathBuf};
use vshmem_abi::keys::KeySet;
use vshmem_abi::{Domid, Kind};

/// How a domain may use a construct.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Access {
    /// Not at all.
    None,
    /// A segment can be attached for reading. Nothing else: what is done with a set or queue, be it
    /// looking at a value, takes its lock, which is a change.
    ReadOnly,
    /// In every way.
    ReadWrite,
}

impl fmt::Display for Access {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "none",
            Self::ReadOnly => "read-only",
            Self::ReadWrite => "read-write",
        })
    }
}

/// A domain that is asked about: on a machine both are known, of a question perhaps one.
#[derive(Clone, Copy, Debug)]
pub struct Who<'a> {
    /// Its number.
    pub domid: Option<Domid>,
    /// Its name.
    pub name: Option<&'a str>,
}

impl Who<'_> {
    /// Whether one of `domains` names it.
    fn is_among(&self, domains: &[DomainSpec]) -> bool {
        domains.iter().any(|domain| match domain {
            DomainSpec::Domid(domid) => self.domid == Some((*domid).into()),
            DomainSpec::Name(name) => name == ALL || self.name == Some(name),
        })
    }
}

/// The name that names all domains.
const ALL: &str = "*";

/// `[[policy.rule]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Rule {
    /// Whom it is about.
    pub domains: Vec<DomainSpec>,
    /// Which keys.
    pub keys: KeySet,
    /// The same as the file has them.
    pub keys_text: String,
    /// How they may use them.
    pub access: Access,
    /// Its line in the file.
    pub line: usize,
}

/// How much a domain may have made, of what there is at one time; `None`: any number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DomainLimits {
    /// Constructs of all kinds together.
    pub constructs: Option<u64>,
    /// Segments.
    pub segments: Option<u64>,
    /// Semaphore sets.
    pub sets: Option<u64>,
    /// Message queues.
    pub queues: Option<u64>,
    /// Bytes of its segments together, each in whole pages.
    pub bytes: Option<u64>,
    /// Semaphores of its sets together.
    pub semaphores: Option<u64>,
}

impl DomainLimits {
    /// Those that are set, as the file names them.
    pub fn named(&self) -> impl Iterator<Item = (&'static str, u64)> {
        [
            ("constructs", self.constructs),
            ("segments", self.segments),
            ("sets", self.sets),
            ("queues", self.queues),
            ("bytes", self.bytes),
            ("semaphores", self.semaphores),
        ]
        .into_iter()
        .filter_map(|(name, most)| Some((name, most?)))
    }
}

/// `[[policy.limit]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LimitRule {
    /// Whom it is about.
    pub domains: Vec<DomainSpec>,
    /// How much.
    pub limits: DomainLimits,
    /// Its line in the file.
    pub line: usize,
}

/// What the policy says of a domain and a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict<'a> {
    /// What it may do.
    pub access: Access,
    /// The rule that says so; `None`: none names the two.
    pub rule: Option<&'a Rule>,
    /// The rule has it read, and this is a set or queue, which cannot be read only.
    pub is_whole: bool,
}

/// `[policy]`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Policy {
    file: PathBuf,
    default: Option<Access>,
    rules: Vec<Rule>,
    limits: Vec<LimitRule>,
}

impl Policy {
    /// What the file `path` says.
    pub fn new(
        path: &Path,
        default: Option<Access>,
        rules: Vec<Rule>,
        limits: Vec<LimitRule>,
    ) -> Self {
        Self {
            file: path.to_owned(),
            default,
            rules,
            limits,
        }
    }

    /// The file that says it; empty where none says anything.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Its rules, in their order.
    pub fn rules(&self) -> &[Rule] {
        &self.rules
    }

    /// Its limits, in their order.
    pub fn limits(&self) -> &[LimitRule] {
        &self.limits
    }

    /// What counts where no rule names domain and key.
    pub fn default_access(&self) -> Access {
        match self.default {
            Some(access) => access,
            None if self.rules.is_empty() => Access::ReadWrite,
            None => Access::None,
        }
    }

    /// What `who` may do with a construct of `kind` that was made with `key`.
    pub fn verdict(&self, who: Who<'_>, kind: Kind, key: i32) -> Verdict<'_> {
        let rule = self
            .rules
            .iter()
            .find(|rule| rule.keys.contains(key) && who.is_among(&rule.domains));
        let access = rule.map_or_else(|| self.default_access(), |rule| rule.access);
        let is_whole = access == Access::ReadOnly && kind != Kind::Shm;
        Verdict {
            access: if is_whole { Access::None } else { access },
            rule,
            is_whole,
        }
    }

    /// The rules that name `who`, in their order.
    pub fn rules_of<'a>(&'a self, who: Who<'a>) -> impl Iterator<Item = &'a Rule> {
        let rules = self.rules.iter();
        rules.filter(move |rule| who.is_among(&rule.domains))
    }

    /// Rules that never count, each with the earlier one that has all its domains and keys.
    pub fn idle_rules(&self) -> impl Iterator<Item = (&Rule, &Rule)> {
        let named = |domain: &DomainSpec, rule: &Rule| {
            let all = DomainSpec::Name(ALL.to_owned());
            rule.domains.contains(domain) || rule.domains.contains(&all)
        };
        self.rules.iter().enumerate().filter_map(move |(at, rule)| {
            let mut earlier = self.rules[..at].iter();
            let first = earlier.find(|first| {
                first.keys.covers(&rule.keys) && rule.domains.iter().all(|d| named(d, first))
            });
            Some((rule, first?))
        })
    }

    /// Whether it says nothing of any domain and key.
    pub fn is_open(&self) -> bool {
        self.rules.is_empty() && self.default_access() == Access::ReadWrite
    }

    /// How much `who` may make, if that is limited.
    pub fn limits_of(&self, who: Who<'_>) -> Option<&LimitRule> {
        let mut limits = self.limits.iter();
        limits.find(|limit| who.is_among(&limit.domains))
    }

    /// Every domain that is named, in the order of the file.
    pub fn domains(&self) -> Vec<&DomainSpec> {
        let of_rules = self.rules.iter().flat_map(|rule| &rule.domains);
        let of_limits = self.limits.iter().flat_map(|limit| &limit.domains);
        let mut all: Vec<&DomainSpec> = Vec::new();
        for domain in of_rules.chain(of_limits) {
            if !all.contains(&domain) && *domain != DomainSpec::Name(ALL.to_owned()) {
                all.push(domain);
            }
        }
        all
    }

    /// What a verdict rests on, as a phrase with file and line.
    pub fn reason(&self, verdict: &Verdict<'_>) -> String {
        let file = self.file.display();
        match verdict.rule {
            Some(rule) if verdict.is_whole => format!(
                "the rule of {file}:{} says {}, and a set or queue cannot be used without changing \
                 it",
                rule.line, rule.access
            ),
            Some(rule) => format!("the rule of {file}:{} says {}", rule.line, rule.access),
            None => format!(
                "no rule of [policy] in {file} names domain and key, and the default is {}",
                self.default_access()
            ),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(text: &str) -> Policy {
        crate::parse(Path::new("f"), text).unwrap().policy
    }

    fn named(name: &str) -> Who<'_> {
        Who {
            domid: Some(9),
            name: Some(name),
        }
    }

    fn segment(policy: &Policy, name: &str, key: i32) -> Access {
        policy.verdict(named(name), Kind::Shm, key).access
    }

    const RULES: &str = "
        [[policy.rule]]
        domains = [\"alpha\", 3]
        keys = \"0x5600-0x56ff\"
        access = \"read-write\"

        [[policy.rule]]
        domains = \"*\"
        keys = [\"0x5600-0x56ff\", 7]
        access = \"read-only\"
    ";

    #[test]
    fn without_rules_everything_is_allowed_and_with_some_only_what_they_name() {
        assert_eq!(segment(&policy(""), "x", 5), Access::ReadWrite);
        assert_eq!(segment(&policy("[policy]\n"), "x", 5), Access::ReadWrite);
        assert_eq!(segment(&policy(RULES), "alpha", 5), Access::None);
        let open = format!("[policy]\ndefault = \"read-write\"\n{RULES}");
        assert_eq!(segment(&policy(&open), "alpha", 5), Access::ReadWrite);
        let closed = "[policy]\ndefault = \"none\"\n";
        assert_eq!(segment(&policy(closed), "x", 5), Access::None);
    }

    #[test]
    fn the_first_rule_that_names_domain_and_key_counts() {
        let policy = policy(RULES);
        assert_eq!(segment(&policy, "alpha", 0x5601), Access::ReadWrite);
        assert_eq!(segment(&policy, "alpha", 7), Access::ReadOnly);
        assert_eq!(segment(&policy, "beta", 0x5601), Access::ReadOnly);
        let third = Who {
            domid: Some(3),
            name: Some("x"),
        };
        let verdict = policy.verdict(third, Kind::Shm, 0x5601);
        assert_eq!(
            (verdict.access, verdict.rule.map(|rule| rule.line)),
            (Access::ReadWrite, Some(2))
        );
    }

    #[test]
    fn a_rule_after_one_that_has_all_of_it_is_idle() {
        let first = policy(RULES);
        assert_eq!(first.idle_rules().count(), 0);
        let text = format!(
            "{RULES}\n[[policy.rule]]\ndomains = [\"x\"]\nkeys = 7\naccess = \"none\"\n\
             [[policy.rule]]\ndomains = [\"alpha\"]\nkeys = \"0x5601, 8\"\naccess = \"none\"\n"
        );
        let policy = policy(&text);
        let lines = policy
            .idle_rules()
            .map(|(idle, first)| (idle.line, first.line));
        assert_eq!(lines.collect::<Vec<_>>(), [(12, 7)]);
    }

    #[test]
    fn private_constructs_are_named_by_private_alone() {
        let text = |keys: &str| {
            format!("[[policy.rule]]\ndomains = 9\nkeys = \"{keys}\"\naccess = \"read-write\"\n")
        };
        assert_eq!(segment(&policy(&text("all")), "x", 0), Access::None);
        let both = policy(&text("all, private"));
        assert_eq!(segment(&both, "x", 0), Access::ReadWrite);
    }

    #[test]
    fn a_set_or_queue_cannot_be_read_only() {
        let policy = policy(RULES);
        for kind in [Kind::Sem, Kind::Msg] {
            let verdict = policy.verdict(named("beta"), kind, 0x5601);
            assert_eq!(verdict.access, Access::None);
            let reason = policy.reason(&verdict);
            assert!(reason.contains("f:7 says read-only, and a set"), "{reason}");
            let verdict = policy.verdict(named("alpha"), kind, 0x5601);
            assert_eq!(verdict.access, Access::ReadWrite);
        }
    }

    #[test]
    fn the_first_limit_that_names_the_domain_counts() {
        let policy = policy(
            "[[policy.limit]]\ndomains = [\"alpha\"]\nbytes = 1\nsets = 0\n\
             [[policy.limit]]\ndomains = [\"*\"]\nconstructs = 2\n",
        );
        let named_limits = |name| {
            let limits = policy.limits_of(named(name)).unwrap();
            limits.limits.named().collect::<Vec<_>>()
        };
        assert_eq!(named_limits("alpha"), [("sets", 0), ("bytes", 1)]);
        assert_eq!(named_limits("beta"), [("constructs", 2)]);
        assert_eq!(segment(&policy, "x", 5), Access::ReadWrite);
    }
}
