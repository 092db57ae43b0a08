// SPDX-License-Identifier: MIT OR Apache-2.0
//! The front-end of a domain.

use crate::server::DaemonError;
use std::os::fd::RawFd;
use std::path::PathBuf;

/// What the command line says to a front-end.
#[derive(Debug)]
pub struct FrontArgs {
    /// Directory of sockets and pid files.
    pub dir: PathBuf,
    /// The domain to serve.
    pub domain: String,
    /// Where to write the ready line.
    pub ready_fd: Option<RawFd>,
}

/// Serves the domain until it is told to stop.
pub fn run(args: &FrontArgs) -> Result<(), DaemonError> {
    Err(DaemonError::Refused(format!(
        "the front-end of domain '{}' is not built in",
        args.domain
    )))
}
