// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a front-end tells. All that is not counted is looked up when it is read.

use super::KINDS;
use super::counts::{Asked, Done};
use crate::front::domain::{Domain, seconds};
use crate::front::report::{Identity, name_of};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::Registry;
use vshmem_abi::wire::{Op, State};
use vshmem_registry::xenstore::NODES;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct KindLabel {
    kind: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ConstructLabels {
    kind: &'static str,
    owner: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabel {
    state: &'static str,
}

/// What is known of the link to the back-end.
pub struct LinkState {
    /// It is there.
    pub is_up: bool,
    /// Nodes of XenStore that the domain has, where the link goes by XenStore.
    pub nodes: Option<u64>,
}

/// The series of a front-end.
pub struct Series {
    registry: Registry,
    /// Requests of clients.
    pub asked: Asked,
    done: Done,
    constructs: Family<ConstructLabels, Gauge>,
    region_bytes: Family<KindLabel, Gauge>,
    attachments: Gauge,
    clients: Gauge,
    waiters: Family<KindLabel, Gauge>,
    semaphore_idle: Gauge,
    undoers: Gauge,
    pending: Gauge,
    grant_pages: Family<StateLabel, Gauge>,
    nodes: Family<StateLabel, Gauge>,
    backend_connected: Gauge,
}

impl Series {
    /// Of this domain.
    pub fn new(domain: &Domain, identity: &Identity) -> Self {
        let mut series = Self {
            registry: super::registry(),
            asked: Asked::of(Op::from_raw),
            done: Done::default(),
            constructs: Family::default(),
            region_bytes: Family::default(),
            attachments: Gauge::default(),
            clients: Gauge::default(),
            waiters: Family::default(),
            semaphore_idle: Gauge::default(),
            undoers: Gauge::default(),
            pending: Gauge::default(),
            grant_pages: Family::default(),
            nodes: Family::default(),
            backend_connected: Gauge::default(),
        };
        let registry = &mut series.registry;
        let info = Info::new(vec![
            ("domain", escaped(&identity.name)),
            ("domid", domain.domid.to_string()),
            ("port", name_of(&domain.port).to_owned()),
            ("version", env!("CARGO_PKG_VERSION").to_owned()),
        ]);
        registry.register("daemon", "The domain and its vshmemd", info);
        series.asked.register(registry, "", "programs");
        series.done.register(registry);
        domain.counts.register(registry);
        registry.register(
            "constructs",
            "Constructs that this domain knows",
            series.constructs.clone(),
        );
        registry.register(
            "region_bytes",
            "Bytes of the regions of this domain",
            series.region_bytes.clone(),
        );
        registry.register(
            "attachments",
            "Attachments of segments by processes of this domain",
            series.attachments.clone(),
        );
        registry.register(
            "clients",
            "Processes that are connected",
            series.clients.clone(),
        );
        registry.register(
            "waiters",
            "Threads of this domain that wait in a set or queue",
            series.waiters.clone(),
        );
        registry.register(
            "semaphore_idle_seconds",
            "For how long nothing has happened in that set with waiters of this domain in which it is longest",
            series.semaphore_idle.clone(),
        );
        registry.register(
            "undo_processes",
            "Processes of this domain that have used SEM_UNDO",
            series.undoers.clone(),
        );
        registry.register(
            "cleanups_pending",
            "What is still to be done after deaths",
            series.pending.clone(),
        );
        registry.register(
            "grant_pages",
            "Pages that are granted to other domains, and that may be granted besides",
            series.grant_pages.clone(),
        );
        registry.register(
            "xenstore_nodes",
            "Nodes of XenStore that this domain has, and that it may have besides as a rule",
            series.nodes.clone(),
        );
        registry.register(
            "backend_connected",
            "Whether the link to the back-end is there",
            series.backend_connected.clone(),
        );
        series
    }

    /// What is read now.
    pub fn text(&self, domain: &Domain, identity: &Identity, link: &LinkState) -> String {
        self.look_at_constructs(domain, identity);
        self.look_at_waiters(domain);
        let clients = domain.clients.iter().map(|(_, client)| client);
        let living = clients.filter(|client| client.page.pid() > 0 && client.lives());
        let (mut processes, mut attachments) = (0, 0);
        for client in living {
            processes += 1;
            let counted = client.page.attached();
            attachments += counted.map(|(_, _, count)| i64::from(count)).sum::<i64>();
        }
        self.clients.set(processes);
        self.attachments.set(attachments);
        self.undoers.set(domain.undoers.iter().count() as i64);
        self.pending.set(domain.pending_count() as i64);
        self.backend_connected.set(link.is_up.into());
        if let Some(used) = link.nodes {
            let nodes = |state| self.nodes.get_or_create(&StateLabel { state });
            nodes("used").set(used as i64);
            nodes("free").set(NODES.saturating_sub(used) as i64);
        }
        self.done.are(domain.calls());
        super::text(&self.registry)
    }

    fn look_at_constructs(&self, domain: &Domain, identity: &Identity) {
        // By kind: own ones, those of others, and bytes.
        let mut of_kind = [(0, 0, 0); KINDS.len()];
        for (id, known) in domain.constructs.iter() {
            let Some((_, meta)) = domain.constructs.find(id) else {
                continue;
            };
            let kinds = KINDS.iter().zip(&mut of_kind);
            let mut of_this = kinds.filter(|((kind, _), _)| *kind as u32 == meta.kind);
            let Some((_, (own, others, bytes))) = of_this.next() else {
                continue;
            };
            if meta.state == State::Free as u32 {
                continue;
            }
            if meta.owner == domain.domid {
                *own += 1;
                *bytes += known.source().map_or(0, |source| source.len as i64);
            } else {
                *others += 1;
            }
        }
        for ((_, kind), (own, others, bytes)) in KINDS.into_iter().zip(of_kind) {
            let count = |owner| {
                self.constructs
                    .get_or_create(&ConstructLabels { kind, owner })
            };
            count("own").set(own);
            count("other").set(others);
            self.region_bytes
                .get_or_create(&KindLabel { kind })
                .set(bytes);
        }
        let pages = |state| self.grant_pages.get_or_create(&StateLabel { state });
        let (used, limit) = domain.grants(identity);
        pages("used").set(used as i64);
        pages("free").set(limit.saturating_sub(used) as i64);
    }

    fn look_at_waiters(&self, domain: &Domain) {
        let now = seconds();
        let mut waiters = [0; KINDS.len()];
        let mut idle = 0;
        for (id, _) in domain.waits.held().filter_map(|held| held.waits) {
            let Some((_, meta)) = domain.constructs.find(id) else {
                continue;
            };
            for ((kind, _), count) in KINDS.iter().zip(&mut waiters) {
                *count += i64::from(*kind as u32 == meta.kind);
            }
            let known = domain.constructs.get(id);
            if let Some(set) = known.and_then(|known| known.set()) {
                // Other domains write these too.
                let (otime, ctime) = set.region().times();
                idle = idle.max(now.saturating_sub(otime.max(ctime)));
            }
        }
        // Nobody waits in a segment.
        let with_waiters = KINDS.into_iter().zip(waiters).skip(1);
        for ((_, kind), count) in with_waiters {
            self.waiters.get_or_create(&KindLabel { kind }).set(count);
        }
        self.semaphore_idle.set(idle);
    }
}

/// A value of a label, as the text has it: the library writes it as it is.
fn escaped(value: &str) -> String {
    let value = value.replace('\\', "\\\\").replace('"', "\\\"");
    value.replace('\n', "\\n")
}
