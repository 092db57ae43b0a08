// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a back-end tells.

use super::KINDS;
use super::counts::Asked;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use vshmem_abi::Kind;
use vshmem_abi::link::LinkOp;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabel {
    kind: &'static str,
}

/// The series of a back-end.
pub struct Series {
    registry: Registry,
    /// Requests of domains.
    pub asked: Asked,
    /// Domains that are gone, whichever way.
    pub gone: Counter,
    /// What the policy has refused.
    pub refusals: Counter,
    domains: Gauge,
    constructs: Family<KindLabel, Gauge>,
}

impl Series {
    /// Of a back-end that begins.
    pub fn new() -> Self {
        let mut series = Self {
            registry: super::registry(),
            asked: Asked::of(LinkOp::from_raw),
            gone: Counter::default(),
            refusals: Counter::default(),
            domains: Gauge::default(),
            constructs: Family::default(),
        };
        let registry = &mut series.registry;
        series.asked.register(registry, "backend_", "domains");
        registry.register(
            "backend_domains_gone",
            "Domains that are gone, or whose vshmemd is",
            series.gone.clone(),
        );
        registry.register(
            "policy_refusals",
            "Requests of domains that the policy has refused",
            series.refusals.clone(),
        );
        registry.register(
            "backend_domains",
            "Domains that are enrolled",
            series.domains.clone(),
        );
        registry.register(
            "backend_constructs",
            "Constructs of all domains",
            series.constructs.clone(),
        );
        series
    }

    /// What is read now, with so many domains, and constructs by kind.
    pub fn text(&self, domains: usize, constructs: impl Fn(Kind) -> u64) -> String {
        self.domains.set(domains as i64);
        for (of, kind) in KINDS {
            let count = constructs(of) as i64;
            self.constructs
                .get_or_create(&KindLabel { kind })
                .set(count);
        }
        super::text(&self.registry)
    }
}
