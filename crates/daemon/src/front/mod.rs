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
mod clients;
mod connections;
mod constructs;
mod creation;
mod creds;
mod domain;
mod ended;
mod kinds;
mod link;
mod maps;
mod peers;
mod report;
mod requests;
mod serving;
mod shared;
mod throttle;
mod undoers;

use crate::server::{self, DaemonError, Listener, PidFile};
use clients::Run;
use domain::Domain;
use link::{Attend, Link};
pub use peers::Peer;
use peers::Peers;
use report::Identity;
use requests::Service;
use rustix::io::Errno;
use serving::Front;
use std::os::fd::RawFd;
use std::path::PathBuf;
use vshmem_abi::limits::MsgLimits;
use vshmem_abi::link::{LinkMsg, LinkOp, SEPARATE_KERNELS};
use vshmem_abi::paths;
use vshmem_gnt::host::HostPort;
use vshmem_gnt::{AnyPort, Port};

/// What the command line says to a front-end.
#[derive(Debug)]
pub struct FrontArgs {
    /// Directory of sockets and pid files.
    pub dir: PathBuf,
    /// The domain to serve.
    pub domain: String,
    /// Where to write the ready line.
    pub ready_fd: Option<RawFd>,
    /// What the configuration raises the limits of queues to.
    pub raised: MsgLimits,
    /// Whom it says to share memory with, where that can be one domain only.
    pub peer: Option<Peer>,
}

/// Serves the domain until it is told to stop.
///
/// # Errors
/// When it cannot begin: another daemon serves the domain, there is no back-end, or the back-end
/// does not take the domain; later, when epoll itself fails.
pub fn run(args: &FrontArgs) -> Result<(), DaemonError> {
    let signals = server::signal_fd()?;
    let _pid = PidFile::take(&paths::pid_file(&args.dir, &args.domain))?;
    server::raise_descriptor_limit();
    set_memory_aside();
    let mut link = Link::connect(&args.dir).map_err(DaemonError::io(format!(
        "cannot connect to the back-end at {} (start one with: vshmemd --backend --dir {})",
        paths::backend_socket(&args.dir).display(),
        args.dir.display()
    )))?;
    let generation = Run::draw_generation();
    let (port, epoch, grants_limit) = enrol(&mut link, &args.domain, generation)?;
    let domid = port.domid();
    let port = AnyPort::from(port);
    let peers = Peers::of(&port, args.peer.clone());
    let peers = peers.map_err(|error| DaemonError::Refused(error.to_string()))?;
    let domain = Domain::new(port, peers, Run { generation, epoch }, args.raised);
    let domain = domain.map_err(DaemonError::io("cannot make the directory"))?;
    let listener = Listener::bind(&paths::domain_socket(&args.dir, &args.domain), 0o666)?;
    let service = Service::new(domain, link);
    let identity = Identity {
        name: args.domain.clone(),
        since: domain::seconds(),
        grants_limit,
    };
    let front =
        Front::new(listener, signals, service, identity).map_err(DaemonError::io("epoll"))?;
    tracing::info!(domain = args.domain, domid, generation, "serving");
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

/// A domain that is not enrolled yet, and knows nothing.
struct Nobody;

impl Attend for Nobody {
    fn query(&mut self, query: &LinkMsg) -> LinkMsg {
        query.refuse(libc::ENOSYS)
    }

    fn late(&mut self, _: &LinkMsg) {}
}

/// Makes the domain known to the back-end; returns its port, its epoch, and how many pages it may grant.
fn enrol(
    link: &mut Link,
    domain: &str,
    generation: u64,
) -> Result<(HostPort, u8, u64), DaemonError> {
    let mut request = LinkMsg {
        generation,
        ..LinkMsg::new(LinkOp::Enrol)
    };
    for (place, byte) in request.name.iter_mut().zip(domain.bytes()) {
        *place = byte;
    }
    let refused = |why: &str| {
        DaemonError::Refused(format!(
            "the back-end does not take domain '{domain}': {why}"
        ))
    };
    match link.call(&request, &mut Nobody) {
        Ok((answer, [Some(hub), ..])) => {
            let port = HostPort::new(answer.domid, hub);
            let port = port.map_err(DaemonError::io("connection to the hub"))?;
            let port = match answer.flags & SEPARATE_KERNELS {
                0 => port,
                _ => port.with_separate_kernels(),
            };
            Ok((port, answer.epoch as u8, answer.totals.used))
        }
        Ok(_) => Err(refused("no connection to the hub came with its answer")),
        Err(Errno::EXIST) => Err(refused("a domain of that name is enrolled already")),
        Err(Errno::NODEV) => Err(refused("it does not answer, or is of another version")),
        Err(errno) => Err(refused(&errno.to_string())),
    }
}
