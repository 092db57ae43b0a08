// SPDX-License-Identifier: MIT OR Apache-2.0
//! The names of series are the same in the code, in the document, on the dashboard and in the alert rules.

use super::{back, front};
use crate::front::clients::Run;
use crate::front::domain::Domain;
use crate::front::peers::Peers;
use crate::front::report::Identity;
use std::collections::BTreeSet;
use vshmem_abi::limits::MsgLimits;
use vshmem_gnt::host::{HostPort, hub};
use vshmem_gnt::{AnyPort, Limits};

const PAGE: &str = include_str!("../../../../docs/metrics.md");
const DASHBOARD: &str = include_str!("../../../../monitoring/grafana.json");
const ALERTS: &str = include_str!("../../../../monitoring/alerts.yml");

/// What a front-end and a back-end tell, each after one request that was refused.
fn texts() -> [String; 2] {
    let hub = hub::serve(Limits::DEFAULT).unwrap();
    let port = HostPort::new(1, hub.add_domain(1).unwrap()).unwrap();
    let run = Run {
        generation: 9,
        epoch: 0,
    };
    let domain = Domain::new(
        AnyPort::from(port),
        Peers::default(),
        run,
        MsgLimits::default(),
    );
    let domain = domain.unwrap();
    let identity = Identity {
        name: "a \"b\"".to_owned(),
        since: 0,
        grants_limit: 5,
    };
    let front = front::Series::new(&domain, &identity);
    front.asked.note(2, libc::ENOENT);
    let link = front::LinkState {
        is_up: true,
        nodes: Some(7),
    };
    let back = back::Series::new();
    back.asked.note(2, libc::ENOENT);
    [
        front.text(&domain, &identity, &link),
        back.text(3, |kind| kind as u64),
    ]
}

/// The series of a text, without labels.
fn names(text: &str) -> BTreeSet<String> {
    let samples = text.lines().filter(|line| !line.starts_with('#'));
    let names = samples.map(|line| line.split(['{', ' ']).next().unwrap().to_owned());
    names.collect()
}

fn all() -> BTreeSet<String> {
    texts().iter().flat_map(|text| names(text)).collect()
}

/// Words of a text that are names of series.
fn used(text: &str) -> BTreeSet<String> {
    let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let names = words.filter(|word| word.starts_with("vshmem_"));
    names.map(str::to_owned).collect()
}

#[test]
fn the_document_has_a_row_for_each_series_and_for_no_other() {
    let rows = PAGE.lines().filter_map(|line| line.strip_prefix("| `"));
    let rows = rows.map(|row| row.split(['`', '{']).next().unwrap().to_owned());
    assert_eq!(rows.collect::<BTreeSet<_>>(), all());
}

#[test]
fn dashboard_and_alert_rules_use_series_that_there_are() {
    let all = all();
    for (text, least) in [(DASHBOARD, 10), (ALERTS, 5)] {
        let used = used(text);
        assert!(used.len() >= least, "{used:?}");
        let unknown: Vec<_> = used.difference(&all).collect();
        assert!(unknown.is_empty(), "{unknown:?}");
    }
}

#[test]
fn what_is_told_is_what_was_counted_and_what_is_there() {
    let [front, back] = texts();
    for line in [
        "vshmem_daemon_info{domain=\"a \\\"b\\\"\",domid=\"1\",port=\"host\",version=\"0.1.0\"} 1",
        "vshmem_requests_total{op=\"get\"} 1",
        "vshmem_requests_total{op=\"open\"} 0",
        "vshmem_errors_total{errno=\"ENOENT\"} 1",
        "vshmem_grant_pages{state=\"free\"} 5",
        "vshmem_constructs{kind=\"sem\",owner=\"own\"} 0",
        "vshmem_backend_connected 1",
    ] {
        assert!(front.lines().any(|have| have == line), "{line}\n{front}");
    }
    for line in [
        "vshmem_backend_domains 3",
        "vshmem_backend_errors_total{errno=\"ENOENT\"} 1",
        "vshmem_policy_refusals_total 0",
    ] {
        assert!(back.lines().any(|have| have == line), "{line}\n{back}");
    }
    assert!(front.ends_with("# EOF\n") && back.ends_with("# EOF\n"));
}
