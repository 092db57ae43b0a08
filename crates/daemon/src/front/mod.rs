// SPDX-License-Identifier: MIT OR Apache-2.0
//! The front-end of a domain: serves its clients, keeps its directory, owns its regions.
//!
//! One serial loop. [`serving`] takes connections and requests apart; [`requests`] says
//! what a request about a construct means, with [`kinds`] for what differs between them; [`domain`]
//! is what is held and can be said without the [`link`] to the back-end; [`aftermath`] is what is
//! done after deaths. Nothing here waits for a client: what one sends is read when it
//! is there, what one does not take is dropped with its connection.

mod aftermath;
mod answer;
mod bells;
pub mod clients;
mod connections;
mod constructs;
mod creation;
mod creds;
pub mod domain;
mod ended;
mod kinds;
pub mod link;
mod maps;
pub mod peers;
pub mod report;
mod requests;
mod resuming;
mod serving;
mod shared;
mod start;
mod undoers;

use crate::PortKind;
use crate::config::Config;
use crate::server::{self, DaemonError, Listener, PidFile, Signals};
use clients::Run;
use domain::Domain;
use peers::Peers;
use report::Identity;
use requests::Service;
use serving::Front;
use std::os::fd::RawFd;
use std::path::PathBuf;
use vshmem_abi::paths;
use vshmem_gnt::Port;

/// What the command line says to a front-end.
#[derive(Debug)]
pub struct FrontArgs {
    /// What domains are.
    pub port: PortKind,
    /// Directory of sockets and pid files.
    pub dir: PathBuf,
    /// The domain to serve, as its clients call it.
    pub domain: String,
    /// Where to write the ready line.
    pub ready_fd: Option<RawFd>,
    /// The configuration.
    pub config: Config,
}

/// Serves the domain until it is told to stop.
///
/// # Errors
/// When it cannot begin: another daemon serves the domain, there is no back-end, or the back-end
/// does not take the domain; later, when epoll itself fails.
pub fn run(args: FrontArgs) -> Result<(), DaemonError> {
    let mut config = args.config;
    let signals = Signals::block()?;
    let pid_file = paths::pid_file(&args.dir, &args.domain);
    let _pid = match args.port {
        PortKind::Host => PidFile::take(&pid_file)?,
        PortKind::Xen => PidFile::take_in_guest(&pid_file)?,
    };
    server::raise_descriptor_limit();
    set_memory_aside();
    let generation = Run::draw_generation();
    let enrolled = match args.port {
        PortKind::Host => start::on_host(&args.dir, &args.domain, generation)?,
        PortKind::Xen => match start::on_xen(generation, &signals, &mut config)? {
            Some(enrolled) => enrolled,
            // Told to stop before there was a back-end.
            None => return Ok(()),
        },
    };
    let (domid, run) = (enrolled.port.domid(), enrolled.run);
    let settings = config.settings();
    let peers = Peers::new(settings.peer.clone());
    let domain = Domain::new(enrolled.port, peers, run, settings.raised);
    let domain = domain.map_err(DaemonError::io("cannot make the directory"))?;
    let listener = Listener::open(&paths::domain_socket(&args.dir, &args.domain), 0o666)?;
    let mut service = Service::new(domain, enrolled.link);
    service.answer_back_end();
    let identity = Identity {
        name: enrolled.name.clone(),
        since: domain::seconds(),
        grants_limit: enrolled.grants_limit,
    };
    let front = Front::new(listener, signals, config, service, identity)
        .map_err(DaemonError::io("epoll"))?;
    let epoch = run.epoch;
    tracing::info!(domain = enrolled.name, domid, generation, epoch, "serving");
    server::ready(args.ready_fd);
    front.serve().map_err(DaemonError::io("epoll"))
}

/// Has the heap take address space for thousands of constructs at once. What cannot be made when
/// memory runs out is refused with an errno; the daemon's own books have to go on.
fn set_memory_aside() {
    const ASIDE: libc::c_int = 16 << 20;
    // SAFETY: these set numbers that the allocator reads when it grows or shrinks the heap.
    unsafe {
        libc::mallopt(libc::M_TOP_PAD, ASIDE);
        // Also large tables are to come from there.
        libc::mallopt(libc::M_MMAP_THRESHOLD, ASIDE);
    }
    // Too large for what the heap has now, so it grows, and by so much more.
    drop(std::hint::black_box(Vec::<u8>::with_capacity(1 << 20)));
}
