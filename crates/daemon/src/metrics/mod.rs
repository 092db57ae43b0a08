// SPDX-License-Identifier: MIT OR Apache-2.0
//! Numbers for Prometheus: what is counted ([`counts`]), what is told of it by the front-end ([`front`]) and
//! by the back-end ([`back`]), and how it is read ([`exporter`]). `docs/metrics.md` describes each series.
//!
//! Only `vshmemd` counts, what it does itself. What programs do in shared memory without it is not
//! counted: that would be work in calls that are a few instructions long.

pub mod back;
pub mod counts;
pub mod exporter;
pub mod front;

use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use vshmem_abi::Kind;

/// The kinds of constructs, and what they are called in labels: as in [`vshmem_report::Ended`].
pub const KINDS: [(Kind, &str); 3] = [(Kind::Shm, "shm"), (Kind::Sem, "sem"), (Kind::Msg, "msg")];

/// An empty registry: all names begin with this.
fn registry() -> Registry {
    Registry::with_prefix("vshmem")
}

/// What is read (OpenMetrics).
fn text(registry: &Registry) -> String {
    let mut text = String::new();
    // Writing to a string does not fail.
    let _ = encode(&mut text, registry);
    text
}

#[cfg(test)]
mod tests;
