// SPDX-License-Identifier: MIT OR Apache-2.0
//! `vshmem policy`: what a `vshmem.toml` lets each domain do, before any daemon reads it.

use crate::{DirArg, Failure, pick, say};
use std::path::PathBuf;
use vshmem_abi::{Kind, paths};
use vshmem_config::policy::{Access, Who};
use vshmem_config::{DomainSpec, Policy, Settings};

#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(subcommand)]
    pub command: Action,
}

#[derive(Debug, clap::Subcommand)]
pub enum Action {
    /// Say what is wrong with a vshmem.toml, with status 1, or else what it lets each domain do
    Check(Check),
}

#[derive(Debug, clap::Args)]
pub struct Check {
    /// The file [default: the one that daemons of the directory read]
    pub file: Option<PathBuf>,

    /// Only what counts for this domain: its name, or its number
    #[arg(long, value_name = "NAME", value_parser = domain)]
    pub domain: Option<DomainSpec>,

    /// What the domain may do with this key, and which rule says so
    #[arg(long, requires = "domain", allow_hyphen_values = true, value_parser = key)]
    pub key: Option<i32>,

    #[command(flatten)]
    pub dir: DirArg,
}

fn domain(text: &str) -> Result<DomainSpec, String> {
    match text.parse() {
        Ok(number) => Ok(DomainSpec::Domid(number)),
        Err(_) if text.is_empty() => Err("a domain is given by its name or its number".into()),
        Err(_) => Ok(DomainSpec::Name(text.to_owned())),
    }
}

/// A key, or `private`.
fn key(text: &str) -> Result<i32, String> {
    match text {
        "private" => Ok(vshmem_abi::ids::IPC_PRIVATE),
        text => pick::parse_public_key(text),
    }
}

/// Does what the subcommand says.
pub fn policy(args: &Args) -> Result<(), Failure> {
    match &args.command {
        Action::Check(check) => self::check(check),
    }
}

fn check(args: &Check) -> Result<(), Failure> {
    let dir = args.dir.path();
    let settings = vshmem_config::read(args.file.as_deref(), &dir)
        .map_err(|error| Failure::new(error.to_string()))?;
    let Settings { file, policy, .. } = settings;
    let Some(file) = file else {
        let [own, common] = paths::config_files(&dir);
        let text = "there is none of the two, so every domain may use every key";
        return say(&format!(
            "{}, {}: {text}\n",
            own.display(),
            common.display()
        ));
    };
    match (&args.domain, args.key) {
        (Some(domain), Some(key)) => say(&verdicts(&policy, domain, key)),
        (Some(domain), None) => say(&of_domain(&policy, Some(domain))),
        (None, _) => {
            let mut text = format!("{}: nothing is wrong with it\n", file.display());
            for (idle, first) in policy.idle_rules() {
                let (idle, first) = (idle.line, first.line);
                let why = format!("that of line {first} has all its domains and keys");
                text.push_str(&format!("the rule of line {idle} never counts: {why}\n"));
            }
            for domain in policy.domains() {
                text.push('\n');
                text.push_str(&of_domain(&policy, Some(domain)));
            }
            text.push('\n');
            text.push_str(&of_domain(&policy, None));
            say(&text)
        }
    }
}

/// Who is meant, as far as one word tells.
fn who(domain: Option<&DomainSpec>) -> Who<'_> {
    match domain {
        Some(DomainSpec::Domid(domid)) => Who {
            domid: Some((*domid).into()),
            name: None,
        },
        Some(DomainSpec::Name(name)) => Who {
            domid: None,
            name: Some(name),
        },
        None => Who {
            domid: None,
            name: None,
        },
    }
}

/// What may be done with each kind of construct, and why.
fn verdicts(policy: &Policy, domain: &DomainSpec, key: i32) -> String {
    let mut text = String::new();
    for (kind, what) in [
        (Kind::Shm, "segments"),
        (Kind::Sem, "semaphore sets"),
        (Kind::Msg, "message queues"),
    ] {
        let verdict = policy.verdict(who(Some(domain)), kind, key);
        let access = verdict.access.to_string();
        let why = match policy.is_open() {
            true => "there are no rules".to_owned(),
            false => policy.reason(&verdict),
        };
        text.push_str(&format!("{what:<15} {access:<11} {why}\n"));
    }
    text
}

/// The rules that count for a domain, the first of which that has a key decides, and its limits. `None`:
/// those that the file does not name.
fn of_domain(policy: &Policy, domain: Option<&DomainSpec>) -> String {
    let who = who(domain);
    let mut text = match domain {
        Some(DomainSpec::Domid(domid)) => format!("domain number {domid}\n"),
        Some(DomainSpec::Name(name)) => format!("domain {name}\n"),
        None if policy.domains().is_empty() => "every domain\n".to_owned(),
        None => "every other domain\n".to_owned(),
    };
    let mut line = |access: Access, keys: &str, at: Option<usize>| {
        let access = access.to_string();
        let at = at.map_or(String::new(), |line| format!(" (line {line})"));
        text.push_str(&format!("  {access:<11} {keys}{at}\n"));
    };
    let mut are_some = false;
    for rule in policy.rules_of(who) {
        line(rule.access, &rule.keys_text, Some(rule.line));
        are_some = true;
    }
    let others = if are_some {
        "all other keys"
    } else {
        "all keys"
    };
    line(policy.default_access(), others, None);
    if let Some(limit) = policy.limits_of(who) {
        let of_each = |(name, most): (&str, u64)| format!("{most} {name}");
        let limits: Vec<String> = limit.limits.named().map(of_each).collect();
        let (limits, at) = (limits.join(", "), limit.line);
        text.push_str(&format!("  makes       at most {limits} (line {at})\n"));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn read(text: &str) -> Policy {
        vshmem_config::parse(Path::new("f"), text).unwrap().policy
    }

    const TEXT: &str = "
[[policy.rule]]
domains = [\"alpha\", 3]
keys = \"0x5600-0x56ff, private\"
access = \"read-write\"

[[policy.rule]]
domains = [\"*\"]
keys = \"0x5600-0x56ff\"
access = \"read-only\"

[[policy.limit]]
domains = [\"alpha\"]
sets = 0
bytes = 4096
";

    #[test]
    fn what_a_domain_may_do_is_told_rule_by_rule() {
        let policy = read(TEXT);
        let alpha = DomainSpec::Name("alpha".into());
        assert_eq!(
            of_domain(&policy, Some(&alpha)),
            "domain alpha\n  \
             read-write  0x5600-0x56ff, private (line 2)\n  \
             read-only   0x5600-0x56ff (line 7)\n  \
             none        all other keys\n  \
             makes       at most 0 sets, 4096 bytes (line 12)\n"
        );
        assert_eq!(
            of_domain(&policy, None),
            "every other domain\n  \
             read-only   0x5600-0x56ff (line 7)\n  \
             none        all other keys\n"
        );
        let open = "every domain\n  read-write  all keys\n";
        assert_eq!(of_domain(&read(""), None), open);
    }

    #[test]
    fn of_one_key_the_verdict_is_told_for_each_kind_with_its_reason() {
        let policy = read(TEXT);
        let third = domain("3").unwrap();
        let told = verdicts(&policy, &third, key("0x5601").unwrap());
        let lines: Vec<&str> = told.lines().collect();
        assert_eq!(
            lines[1],
            "semaphore sets  read-write  the rule of f:2 says read-write"
        );
        let told = verdicts(&policy, &domain("beta").unwrap(), 0x5601);
        assert!(told.starts_with("segments        read-only "), "{told}");
        assert!(told.contains("message queues  none "), "{told}");
        let told = verdicts(&policy, &third, key("private").unwrap());
        assert!(told.starts_with("segments        read-write "), "{told}");
        let told = verdicts(&read(""), &third, 1);
        assert!(told.contains("there are no rules"), "{told}");
    }
}
