// SPDX-License-Identifier: MIT OR Apache-2.0
//! The back-end: one a machine. Enrols domains, is the single arbiter of keys and ids and, on
//! the host port, stands in for the hypervisor.

use crate::server::{self, DaemonError, Epoll, Listener, PidFile};
use rustix::event::epoll::EventFlags;
use std::os::fd::RawFd;
use std::path::PathBuf;
use vshmem_abi::paths;
use vshmem_gnt::Limits;

/// What the command line says to a back-end.
#[derive(Debug)]
pub struct BackArgs {
    /// Directory of sockets and pid files.
    pub dir: PathBuf,
    /// Where to write the ready line.
    pub ready_fd: Option<RawFd>,
    /// What each domain may have.
    pub limits: Limits,
}

/// Serves all domains until it is told to stop.
pub fn run(args: &BackArgs) -> Result<(), DaemonError> {
    let signals = server::signal_fd()?;
    let _pid = PidFile::take(&paths::pid_file(&args.dir, "backend"))?;
    server::raise_descriptor_limit();
    let listener = Listener::bind(&paths::backend_socket(&args.dir), 0o600)?;
    let mut epoll = Epoll::new().map_err(DaemonError::io("epoll"))?;
    epoll
        .add(&signals, 0, EventFlags::IN)
        .map_err(DaemonError::io("epoll"))?;
    epoll
        .add(&listener, 1, EventFlags::IN)
        .map_err(DaemonError::io("epoll"))?;
    server::ready(args.ready_fd);
    loop {
        let mut events = epoll.wait(None).map_err(DaemonError::io("epoll"))?;
        if events.any(|(token, _)| token == 0) {
            return Ok(());
        }
        while let Ok(Some(_)) = listener.accept() {}
        tracing::debug!(limits = ?args.limits, "connection");
    }
}
