// SPDX-License-Identifier: MIT OR Apache-2.0
//! `vshmemd`: the front-end daemon of one domain (`--domain NAME`), or the back-end of a machine
//! (`--backend`). Both are serial loops over their sockets; this file reads the command line,
//! sets up the log, has the configuration read and hands over.

mod backend;
mod config;
mod front;
mod server;

use clap::{ArgGroup, Parser};
use server::DaemonError;
use std::io::IsTerminal;
use std::os::fd::RawFd;
use std::path::PathBuf;
use std::process::ExitCode;

/// The daemon of Vshmem. `vshmem run` starts it where it is needed.
#[derive(Debug, Parser)]
#[command(name = "vshmemd", version, group = ArgGroup::new("part").required(true))]
struct Args {
    /// Be the back-end: the registrar of keys and ids and, on the host port, the stand-in for the
    /// hypervisor
    #[arg(long, group = "part")]
    backend: bool,

    /// Be the front-end of this domain
    #[arg(long, group = "part", value_name = "NAME", value_parser = domain_name)]
    domain: Option<String>,

    /// Read the configuration that daemons of the directory would, say what is wrong with it, and end
    #[arg(long, group = "part")]
    check_config: bool,

    /// Directory of sockets and pid files
    #[arg(long, env = vshmem_abi::paths::ENV_DIR, default_value_os_t = vshmem_abi::paths::default_dir())]
    dir: PathBuf,

    /// The configuration file [default: DIR/vshmem.toml if it is there, else
    /// /etc/vshmem/vshmem.toml]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// Write "ready" and a newline to this descriptor and close it once the socket is served
    #[arg(long, value_name = "FD", value_parser = clap::value_parser!(RawFd).range(3..))]
    ready_fd: Option<RawFd>,

    /// For the back-end: pages that one domain may have granted at a time
    #[arg(long, value_name = "PAGES", env = "VSHMEM_GRANT_LIMIT",
          default_value_t = vshmem_gnt::Limits::DEFAULT.grants)]
    grant_limit: u64,

    /// For the back-end: event channels that one domain may have at a time
    #[arg(long, value_name = "NUMBER", env = "VSHMEM_EVTCHN_LIMIT",
          default_value_t = vshmem_gnt::Limits::DEFAULT.channels)]
    evtchn_limit: u32,

    /// For the back-end: have the domains do as if each had a kernel of its own, as on Xen, where
    /// no futex reaches from one to another
    #[arg(long, env = "VSHMEM_SEPARATE_KERNELS", value_parser = clap::builder::FalseyValueParser::new())]
    separate_kernels: bool,
}

fn domain_name(name: &str) -> Result<String, &'static str> {
    match vshmem_abi::paths::domain_name_error(name) {
        Some(why) => Err(why),
        None => Ok(name.to_owned()),
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    let filter = tracing_subscriber::EnvFilter::try_from_env("VSHMEM_LOG")
        .unwrap_or_else(|_| tracing_subscriber::EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .init();
    match serve(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("vshmemd: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve(args: Args) -> Result<(), DaemonError> {
    let config::Settings { raised, peer } = config::read(args.config.as_deref(), &args.dir)?;
    if args.check_config {
        return Ok(());
    }
    match args.domain {
        Some(domain) => front::run(&front::FrontArgs {
            dir: args.dir,
            domain,
            ready_fd: args.ready_fd,
            raised,
            peer,
        }),
        None => backend::run(&backend::BackArgs {
            dir: args.dir,
            ready_fd: args.ready_fd,
            limits: vshmem_gnt::Limits {
                grants: args.grant_limit,
                channels: args.evtchn_limit,
            },
            separate_kernels: args.separate_kernels,
            raised,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_daemon_is_one_of_the_two_parts() {
        assert!(Args::try_parse_from(["vshmemd"]).is_err());
        assert!(Args::try_parse_from(["vshmemd", "--backend", "--domain", "a"]).is_err());
        assert!(Args::try_parse_from(["vshmemd", "--domain", "a/b"]).is_err());
        assert!(Args::try_parse_from(["vshmemd", "--backend", "--ready-fd", "1"]).is_err());
    }

    #[test]
    fn limits_in_the_environment_of_both_do_not_keep_a_front_end_from_starting() {
        let limits = ["--grant-limit", "2", "--evtchn-limit", "3"];
        let args = ["vshmemd", "--domain", "a"].into_iter().chain(limits);
        assert!(Args::try_parse_from(args).is_ok());
    }
}
