// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the file may say, word by word, and how mistakes in it are told.

use crate::Settings;
use crate::metrics::Listen;
use crate::policy::{Access, DomainLimits, LimitRule, Policy, Rule};
use serde::Deserialize;
use std::fmt;
use std::path::Path;
use toml::Spanned;
use vshmem_abi::keys::KeySet;
use vshmem_abi::limits::MsgLimits;

/// What is wrong, and at which byte.
pub(crate) struct Mistake {
    pub at: usize,
    pub what: String,
}

/// The file.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    #[serde(default)]
    limits: Limits,
    #[serde(default)]
    xen: Xen,
    #[serde(default)]
    metrics: Metrics,
    policy: Option<PolicyText>,
}

/// `[xen]`: what counts for domains of Xen only.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Xen {
    peer: Option<DomainSpec>,
}

/// `[metrics]`: where the numbers of a daemon are read.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Metrics {
    listen: Option<Listen>,
}

/// A domain, as the file names it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(
    untagged,
    expecting = "a domain is given by its name or its number (0 to 65535)"
)]
pub enum DomainSpec {
    /// By its number.
    Domid(u16),
    /// By its name.
    Name(String),
}

impl fmt::Display for DomainSpec {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Domid(domid) => write!(f, "{domid}"),
            Self::Name(name) => f.write_str(name),
        }
    }
}

/// `[limits]`. What is not named is not raised.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Limits {
    #[serde(default)]
    msgmax: Limit,
    #[serde(default)]
    msgmnb: Limit,
    #[serde(default)]
    msgmni: Limit,
}

/// A limit that is raised to this; 0 where the file does not say.
#[derive(Default, Deserialize)]
#[serde(try_from = "i64")]
struct Limit(u64);

/// Also the largest value of the kernel's settings.
const LARGEST: i64 = i32::MAX as i64;

impl TryFrom<i64> for Limit {
    type Error = String;

    fn try_from(value: i64) -> Result<Self, String> {
        match value {
            1..=LARGEST => Ok(Self(value.unsigned_abs())),
            _ => Err(format!("a limit is a number from 1 to {LARGEST}")),
        }
    }
}

/// `[policy]`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct PolicyText {
    default: Option<Access>,
    #[serde(default)]
    rule: Vec<Spanned<RuleText>>,
    #[serde(default)]
    limit: Vec<Spanned<LimitText>>,
}

/// `[[policy.rule]]`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RuleText {
    domains: Spanned<Domains>,
    keys: Spanned<Keys>,
    access: Access,
}

/// `[[policy.limit]]`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LimitText {
    domains: Spanned<Domains>,
    constructs: Option<Amount>,
    segments: Option<Amount>,
    sets: Option<Amount>,
    queues: Option<Amount>,
    bytes: Option<Amount>,
    semaphores: Option<Amount>,
}

/// How much a domain may make.
#[derive(Deserialize)]
#[serde(try_from = "i64")]
struct Amount(u64);

impl TryFrom<i64> for Amount {
    type Error = &'static str;

    fn try_from(value: i64) -> Result<Self, &'static str> {
        u64::try_from(value)
            .map(Self)
            .map_err(|_| "a limit is a number from 0 on")
    }
}

#[derive(Deserialize)]
#[serde(
    untagged,
    expecting = "domains are a list of names and numbers (0 to 65535), \"*\" for all"
)]
enum Domains {
    One(DomainSpec),
    Several(Vec<DomainSpec>),
}

#[derive(Deserialize)]
#[serde(
    untagged,
    expecting = "keys are a list as of VSHMEM_KEYS: \"0x56000000-0x56ffffff, 1234, private\""
)]
enum Keys {
    One(KeyItem),
    Several(Vec<KeyItem>),
}

#[derive(Deserialize)]
#[serde(untagged)]
enum KeyItem {
    Number(u32),
    Text(String),
}

impl fmt::Display for KeyItem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{number:#010x}"),
            Self::Text(text) => f.write_str(text),
        }
    }
}

/// What the contents of `path` say.
pub(crate) fn settings(path: &Path, text: &str) -> Result<Settings, Mistake> {
    let config: Config = toml::from_str(text).map_err(|error| Mistake {
        at: error.span().map_or(0, |span| span.start),
        what: with_nearest(error.message()),
    })?;
    let Limits {
        msgmax: Limit(max),
        msgmnb: Limit(mnb),
        msgmni: Limit(mni),
    } = config.limits;
    let policy = match config.policy {
        Some(said) => policy(path, text, said)?,
        None => Policy::default(),
    };
    Ok(Settings {
        file: Some(path.to_owned()),
        raised: MsgLimits { max, mnb, mni },
        peer: config.xen.peer,
        metrics: config.metrics.listen,
        policy,
    })
}

fn policy(path: &Path, text: &str, said: PolicyText) -> Result<Policy, Mistake> {
    let line = |at: usize| crate::place(text, at).0;
    let mut rules = Vec::new();
    for rule in said.rule {
        let at = rule.span().start;
        let RuleText {
            domains: who,
            keys: which,
            access,
        } = rule.into_inner();
        let (keys, keys_text) = keys(which)?;
        rules.push(Rule {
            domains: domains(who)?,
            keys,
            keys_text,
            access,
            line: line(at),
        });
    }
    let mut limits = Vec::new();
    for limit in said.limit {
        let at = limit.span().start;
        let said = limit.into_inner();
        let amount = |said: Option<Amount>| said.map(|Amount(most)| most);
        let limit = DomainLimits {
            constructs: amount(said.constructs),
            segments: amount(said.segments),
            sets: amount(said.sets),
            queues: amount(said.queues),
            bytes: amount(said.bytes),
            semaphores: amount(said.semaphores),
        };
        if limit == DomainLimits::default() {
            return Err(Mistake {
                at,
                what:
                    "this limits nothing: say one of `constructs`, `segments`, `sets`, `queues`, \
                       `bytes`, `semaphores`"
                        .to_owned(),
            });
        }
        limits.push(LimitRule {
            domains: domains(said.domains)?,
            limits: limit,
            line: line(at),
        });
    }
    Ok(Policy::new(path, said.default, rules, limits))
}

fn domains(said: Spanned<Domains>) -> Result<Vec<DomainSpec>, Mistake> {
    let at = said.span().start;
    let domains = match said.into_inner() {
        Domains::One(domain) => vec![domain],
        Domains::Several(domains) => domains,
    };
    let nameless = |domain: &DomainSpec| *domain == DomainSpec::Name(String::new());
    if domains.is_empty() || domains.iter().any(nameless) {
        return Err(Mistake {
            at,
            what: "no domain is named: give names or numbers, or \"*\" for all".to_owned(),
        });
    }
    Ok(domains)
}

fn keys(said: Spanned<Keys>) -> Result<(KeySet, String), Mistake> {
    let at = said.span().start;
    let items = match said.into_inner() {
        Keys::One(item) => vec![item],
        Keys::Several(items) => items,
    };
    let items: Vec<String> = items.iter().map(KeyItem::to_string).collect();
    let text = items.join(", ");
    let set = KeySet::parse(&text).map_err(|error| Mistake {
        at,
        what: format!(
            "bad key '{}': {} (use a key like 0x5601, a range like 0x56000000-0x56ffffff, 'all' or \
             'private')",
            error.item, error.why
        ),
    })?;
    if set.is_empty() {
        return Err(Mistake {
            at,
            what: "no key is named".to_owned(),
        });
    }
    Ok((set, text))
}

/// How alike a word has to be for it to be what was meant, from 0 to 1: as in messages of `clap`.
const ALIKE: f64 = 0.7;

/// Adds the right word that is nearest to the wrong one, where the message names both.
fn with_nearest(message: &str) -> String {
    let mut words = message.split('`').skip(1).step_by(2);
    let wrong = words.next().filter(|_| message.starts_with("unknown "));
    let alike = |right: &&str| wrong.map_or(0.0, |wrong| strsim::jaro(wrong, right));
    let nearest = words
        .filter(|right| alike(right) > ALIKE)
        .max_by(|a, b| alike(a).total_cmp(&alike(b)));
    match nearest {
        Some(nearest) => format!("{message}; did you mean `{nearest}`?"),
        None => message.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse;

    fn parsed(text: &str) -> Result<Settings, String> {
        parse(Path::new("f"), text).map_err(|error| error.to_string())
    }

    fn limits(text: &str) -> Result<MsgLimits, String> {
        parsed(text).map(|settings| settings.raised)
    }

    #[test]
    fn limits_are_read_and_what_is_not_named_is_not_raised() {
        let text = "# Larger messages.\n[limits]\nmsgmax = 1_048_576\nmsgmni = 40000\n";
        let want = MsgLimits {
            max: 1 << 20,
            mnb: 0,
            mni: 40000,
        };
        assert_eq!(limits(text), Ok(want));
        for nothing in ["", "\n# nothing\n", "[limits]\n", "[xen]\n", "[metrics]\n"] {
            let nothing = parsed(nothing).unwrap();
            let want = Settings {
                file: Some("f".into()),
                ..Settings::default()
            };
            assert_eq!(nothing, want);
        }
    }

    #[test]
    fn a_peer_is_a_name_or_a_number() {
        let peer = |text| parsed(text).map(|settings| settings.peer);
        let name = DomainSpec::Name("beta".to_owned());
        assert_eq!(peer("[xen]\npeer = \"beta\"\n"), Ok(Some(name)));
        assert_eq!(peer("[xen]\npeer = 7\n"), Ok(Some(DomainSpec::Domid(7))));
        assert_eq!(peer("[xen]\n"), Ok(None));
    }

    #[test]
    fn what_the_file_may_not_say_is_refused_with_its_place() {
        let range = "a limit is a number from 1 to 2147483647";
        let rule = |domains: &str, keys: &str, access: &str| {
            format!("[[policy.rule]]\ndomains = {domains}\nkeys = {keys}\naccess = {access}\n")
        };
        let all = ("[\"*\"]", "\"all\"", "\"none\"");
        let limit = |line: &str| format!("[[policy.limit]]\ndomains = [\"a\"]\n{line}\n");
        let a = |text: &str| text.to_owned();
        for (text, place, what) in [
            (
                a("[limits]\nmsgmin = 1\n"),
                "f:2:1: ",
                "expected one of `msgmax`, `msgmnb`, `msgmni`; did you mean `msgm",
            ),
            (
                a("[limit]\n"),
                "f:1:2: ",
                "expected one of `limits`, `xen`, `metrics`, `policy`; did you mean `limits`?",
            ),
            (a("[limits]\n  msgmax = 0\n"), "f:2:12: ", range),
            (a("[limits]\nmsgmax = -1\n"), "f:2:10: ", range),
            (a("[limits]\nmsgmax = 2147483648\n"), "f:2:10: ", range),
            (
                a("[limits]\nmsgmax = \"8K\"\n"),
                "f:2:10: ",
                "invalid type: string",
            ),
            (a("limits = 5\n"), "f:1:10: ", "invalid type: integer"),
            (
                a("[limits]\nmsgmax = 1\nmsgmax = 2\n"),
                "f:3:1: ",
                "duplicate key",
            ),
            (a("[limits]\nmsgmax =\n"), "f:2:", ""),
            (a("[xen]\npeer = -1\n"), "f:2:8: ", "by its name"),
            (a("[xen]\npeer = 70000\n"), "f:2:8: ", "or its number"),
            (a("[xen]\npear = 1\n"), "f:2:1: ", "expected `peer`"),
            (
                a("[policy]\nrules = 1\n"),
                "f:2:1: ",
                "did you mean `rule`?",
            ),
            (
                rule(all.0, all.1, "\"readonly\""),
                "f:4:10: ",
                "did you mean `read-only`?",
            ),
            (rule("[]", all.1, all.2), "f:2:11: ", "no domain is named"),
            (rule("[-1]", all.1, all.2), "f:2:11: ", "names and numbers"),
            (rule(all.0, "\"\"", all.2), "f:3:8: ", "no key is named"),
            (
                rule(all.0, "\"1, 9-5\"", all.2),
                "f:3:8: ",
                "bad key '9-5': the range ends before it begins",
            ),
            (rule(all.0, "-1", all.2), "f:3:8: ", "as of VSHMEM_KEYS"),
            (
                a("[[policy.rule]]\ndomains = 1\nkeys = 1\n"),
                "f:1:1: ",
                "missing field `access`",
            ),
            (limit(""), "f:1:1: ", "this limits nothing"),
            (limit("byte = 1"), "f:3:1: ", "did you mean `bytes`?"),
            (limit("bytes = -1"), "f:3:9: ", "a number from 0 on"),
        ] {
            let error = parsed(&text).unwrap_err();
            assert!(error.starts_with(place) && error.contains(what), "{error}");
        }
    }

    #[test]
    fn domains_and_keys_of_a_rule_may_be_one_or_a_list() {
        for (domains, keys) in [
            ("\"a\"", "0x5601"),
            ("[\"a\", 3]", "[\"0x5601\", 7]"),
            ("3", "\"0x5601, 7, private\""),
        ] {
            let text = format!(
                "[[policy.rule]]\ndomains = {domains}\nkeys = {keys}\naccess = \"read-only\"\n"
            );
            let policy = parsed(&text).unwrap().policy;
            let [rule] = policy.rules() else {
                panic!("one rule");
            };
            assert!(rule.keys.contains(0x5601), "{keys}");
            assert_eq!(rule.line, 1);
            assert_eq!(rule.access, Access::ReadOnly);
        }
    }

    /// The names that may stand where `nonsense` does, as the error says.
    fn names(text: &str) -> Vec<String> {
        let error = parsed(text).unwrap_err();
        let (_, expected) = error.split_once("expected").expect("names");
        let expected = expected.split("; did you mean").next().unwrap();
        let quoted = expected.split('`').skip(1).step_by(2);
        quoted.map(str::to_owned).collect()
    }

    #[test]
    fn the_man_page_has_every_section_and_name() {
        let page = include_str!("../../../docs/man/vshmem.toml.5");
        let has_names = |section: &str, tables: &[&str]| {
            let title = format!(".SS {section}\n");
            let (_, from) = page.split_once(&title).expect(&title);
            let of_section = from.split("\n.S").next().unwrap();
            for name in names(&format!("{section}\nnonsense = 1\n")) {
                let item = format!(".TP\n.B {name}\n");
                let is_table = tables.contains(&name.as_str());
                assert_eq!(of_section.contains(&item), !is_table, "{section}: {name}");
            }
        };
        let sections = names("nonsense = 1\n");
        assert_eq!(sections, ["limits", "xen", "metrics", "policy"]);
        for section in sections {
            has_names(&format!("[{section}]"), &["rule", "limit"]);
        }
        for table in ["rule", "limit"] {
            has_names(&format!("[[policy.{table}]]"), &[]);
        }
    }
}
