// SPDX-License-Identifier: MIT OR Apache-2.0
//! The back-end: one a machine. It enrols domains, is the single arbiter of keys and ids and, on
//! the host port, keeps the thread that stands in for the hypervisor.
//!
//! One thread, one request at a time: while a request is worked on, which may need the answers of
//! other domains, all others wait. That order is what makes a key have one winner. A domain that
//! does not answer is waited for once and not again until it speaks; one that sends nonsense
//! loses its link, which is its end as a domain, and no other notices.
//!
//! What is the same on all ports is here and in [`links`]. How domains come, and what carries their
//! messages, is in [`host`] and [`sockets`], and in [`xen`] and [`mailboxes`].

mod carrier;
mod host;
mod links;
mod mailboxes;
mod sockets;
mod xen;

use crate::PortKind;
use crate::config::Config;
use crate::metrics::back::Series;
use crate::metrics::exporter::Exporter;
use crate::server::{self, DaemonError, PidFile, Signals, Told};
use crate::throttle::Throttle;
use carrier::Carrier;
use links::{Links, Todo};
use rustix::io::Errno;
use std::collections::HashMap;
use std::os::fd::RawFd;
use std::path::PathBuf;
use std::time::Duration;
use vshmem_abi::link::LinkOp;
use vshmem_abi::{Domid, paths};
use vshmem_gnt::Limits;
use vshmem_registry::{Keeper, NoKeeper, Registrar, System};

/// Domains whose refusals are counted, also of those that are gone: on Xen a domain is soon back under its
/// number.
const REFUSED: usize = 1024;

/// What the command line says to a back-end.
#[derive(Debug)]
pub struct BackArgs {
    /// What the domains are.
    pub port: PortKind,
    /// Directory of sockets and pid files.
    pub dir: PathBuf,
    /// Where to write the ready line.
    pub ready_fd: Option<RawFd>,
    /// What each domain may have.
    pub limits: Limits,
    /// Whether the domains are to do as if each had a kernel of its own.
    pub separate_kernels: bool,
    /// The configuration.
    pub config: Config,
}

/// Serves all domains until it is told to stop.
///
/// # Errors
/// When it cannot begin: another back-end serves the directory, or the socket cannot be made;
/// later, when epoll itself fails.
pub fn run(args: BackArgs) -> Result<(), DaemonError> {
    let signals = Signals::block()?;
    let _pid = PidFile::take(&paths::pid_file(&args.dir, "backend"))?;
    server::raise_descriptor_limit();
    match args.port {
        PortKind::Host => host::run(args, signals),
        PortKind::Xen => xen::run(args, signals),
    }
}

/// What a back-end is on any port: the registrar, and the links over which domains ask it.
struct Core<C, K = NoKeeper> {
    signals: Signals,
    config: Config,
    registrar: Registrar<System, K>,
    links: Links<C>,
    /// By domain, so that none keeps another's refusals out of the log.
    refusals: HashMap<Domid, Throttle>,
    series: Series,
    exporter: Exporter,
}

impl<C: Carrier, K: Keeper> Core<C, K> {
    /// Of a registrar that knows of nothing and whose constructs are kept by `keeper`.
    ///
    /// # Errors
    /// What epoll says.
    fn new(
        signals: Signals,
        config: Config,
        keeper: K,
        carrier: C,
        patience: Duration,
    ) -> Result<Self, Errno> {
        let settings = config.settings();
        let mut registrar = Registrar::with_keeper(System::new(settings.raised), keeper);
        registrar.set_policy(settings.policy.clone());
        let mut exporter = Exporter::new("backend")?;
        exporter.listen(settings.metrics.as_ref());
        Ok(Self {
            signals,
            config,
            registrar,
            links: Links::new(carrier, patience),
            refusals: HashMap::new(),
            series: Series::new(),
            exporter,
        })
    }

    /// Does what signals tell; returns whether it is to stop.
    fn take_signals(&mut self) -> bool {
        while let Some(told) = self.signals.take() {
            match told {
                Told::Stop => return true,
                Told::Reload => {
                    if let Some(settings) = self.config.reload() {
                        self.registrar.environment_mut().raise(settings.raised);
                        self.registrar.set_policy(settings.policy.clone());
                        self.exporter.listen(settings.metrics.as_ref());
                    }
                }
            }
        }
        false
    }

    /// Answers who wants to read numbers.
    fn tell_numbers(&mut self) {
        let (series, registrar) = (&self.series, &self.registrar);
        self.exporter
            .serve(|| series.text(registrar.domains(), |kind| registrar.constructs(kind)));
    }

    /// Does what there is to do until it is time to wait again.
    fn work(&mut self) {
        while let Some(todo) = self.links.todo() {
            match todo {
                Todo::Ended(domid, errno) => self.bury(domid, errno),
                Todo::Spoke(domid) => self.registrar.domain_spoke(domid, &mut self.links),
                Todo::Request(domid, request) => {
                    let answer = if request.op == LinkOp::Resumed as u32 {
                        self.resumed(domid);
                        request.answer()
                    } else {
                        self.registrar.handle(domid, &request, &mut self.links)
                    };
                    self.log_refusal();
                    self.series.asked.note(request.op, answer.errno);
                    tracing::trace!(domid, op = request.op, errno = answer.errno, "request");
                    self.links.answer(domid, &answer);
                }
            }
        }
    }

    /// Says what the policy has refused, if it has.
    fn log_refusal(&mut self) {
        let Some(refusal) = self.registrar.take_refusal() else {
            return;
        };
        self.series.refusals.inc();
        if self.refusals.len() >= REFUSED {
            let links = &self.links;
            self.refusals
                .retain(|domid, _| links.standing(*domid).is_some());
        }
        let throttle = self.refusals.entry(refusal.domid).or_default();
        if let Some(more) = throttle.speak() {
            tracing::warn!(more, "{}", refusal.text);
        }
    }

    /// A domain has asked for all that it knows.
    fn resumed(&mut self, domid: Domid) {
        self.links.resumed(domid);
        self.registrar.domain_resumed(domid, &mut self.links);
    }

    /// Forgets what nobody can have attached, when all that an earlier back-end left is known.
    fn settle_restored(&mut self) {
        self.registrar.settle_restored(&mut self.links);
    }

    /// A domain is gone.
    fn bury(&mut self, domid: Domid, errno: Errno) {
        let Some((name, pid)) = self.links.remove(domid) else {
            return;
        };
        self.series.gone.inc();
        match errno {
            Errno::CONNRESET | Errno::PIPE => tracing::info!(domid, name, pid, "domain gone"),
            Errno::PROTO | Errno::MFILE => tracing::error!(
                domid,
                name,
                pid,
                "the domain has sent what no vshmemd of this version sends and is cut off; \
                 restart it with the vshmemd that this back-end is of"
            ),
            Errno::AGAIN => tracing::error!(
                domid,
                name,
                pid,
                "the domain has not read its messages for long and is cut off; restart its vshmemd"
            ),
            _ => tracing::error!(
                domid, name, pid, %errno,
                "the link to the domain broke, and the domain is given up; restart its vshmemd"
            ),
        }
        self.forget(domid);
    }

    /// A domain is gone, or did not get as far as to be linked.
    fn forget(&mut self, domid: Domid) {
        self.links.carrier_mut().close(domid);
        self.registrar.domain_died(domid, &mut self.links);
        self.links.carrier_mut().buried(domid);
    }
}
