// SPDX-License-Identifier: MIT OR Apache-2.0
//! `vshmemd`: the front-end daemon of one domain (`--domain NAME`), or the back-end of a machine
//! (`--backend`). Both are serial loops over their sockets; this file reads the command line,
//! sets up the log, has the configuration read and hands over.

mod backend;
mod config;
mod front;
mod log;
mod metrics;
mod server;
mod throttle;

use clap::{ArgGroup, CommandFactory, Parser};
use config::Config;
use server::DaemonError;
use std::os::fd::RawFd;
use std::path::PathBuf;
use std::process::ExitCode;
use vshmem_abi::paths::DEFAULT_DOMAIN;

/// What domains are, and so how they come together.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum PortKind {
    /// Groups of processes on one kernel
    Host,
    /// Virtual machines of Xen
    Xen,
}

/// The daemon of Vshmem. `vshmem run` starts it where it is needed.
#[derive(Debug, Parser)]
#[command(name = "vshmemd", version, group = ArgGroup::new("part"))]
struct Args {
    /// Be the back-end: the registrar of keys and ids and, on the host port, the stand-in for the
    /// hypervisor
    #[arg(long, group = "part")]
    backend: bool,

    /// Be the front-end of this domain of the host port; of the Xen port each guest is one, and
    /// nothing is to be said
    #[arg(long, group = "part", value_name = "NAME", value_parser = domain_name)]
    domain: Option<String>,

    /// Read the configuration that daemons of the directory would, say what is wrong with it, and end
    #[arg(long, group = "part")]
    check_config: bool,

    /// What domains are; on Xen the back-end runs in dom0 and a front-end in each guest
    #[arg(long, value_enum, default_value_t = PortKind::Host)]
    port: PortKind,

    /// Directory of sockets and pid files
    #[arg(long, env = vshmem_abi::paths::ENV_DIR, default_value_os_t = vshmem_abi::paths::default_dir())]
    dir: PathBuf,

    /// The configuration file [default: DIR/vshmem.toml if it is there, else
    /// /etc/vshmem/vshmem.toml]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// What is logged: error, warn, info, debug or trace, or such a word for each part, as
    /// vshmemd::front=debug,info
    #[arg(long, value_name = "LEVEL", env = log::ENV_LOG, default_value = "info",
          value_parser = log::parse)]
    log: String,

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

impl Args {
    /// Why these do not go together, if they do not.
    fn objection(&self) -> Option<&'static str> {
        match (self.port, self.backend, &self.domain) {
            (PortKind::Host, false, None) if !self.check_config => {
                Some("say --backend or --domain NAME, or in a Xen guest --port xen")
            }
            (PortKind::Xen, _, Some(_)) => {
                Some("a domain of Xen has the name that xl gave it: leave --domain out")
            }
            _ => None,
        }
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    if let Some(why) = args.objection() {
        let kind = clap::error::ErrorKind::ArgumentConflict;
        Args::command().error(kind, why).exit();
    }
    log::begin(&args.log);
    match serve(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("vshmemd: {error}");
            ExitCode::FAILURE
        }
    }
}

fn serve(args: Args) -> Result<(), DaemonError> {
    let config = Config::read(args.config, &args.dir)?;
    if args.check_config {
        return Ok(());
    }
    config.log();
    if args.backend {
        return backend::run(backend::BackArgs {
            port: args.port,
            dir: args.dir,
            ready_fd: args.ready_fd,
            limits: vshmem_gnt::Limits {
                grants: args.grant_limit,
                channels: args.evtchn_limit,
            },
            separate_kernels: args.separate_kernels,
            config,
        });
    }
    front::run(front::FrontArgs {
        port: args.port,
        dir: args.dir,
        domain: args.domain.unwrap_or_else(|| DEFAULT_DOMAIN.to_owned()),
        ready_fd: args.ready_fd,
        config,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_daemon_is_one_of_the_two_parts() {
        let objects = |args: &[&str]| {
            let args = Args::try_parse_from([&["vshmemd"], args].concat()).unwrap();
            args.objection().is_some()
        };
        assert!(objects(&[]) && objects(&["--port", "host"]));
        assert!(objects(&["--port", "xen", "--domain", "a"]));
        assert!(!objects(&["--port", "xen"]) && !objects(&["--backend", "--port", "xen"]));
        assert!(Args::try_parse_from(["vshmemd", "--backend", "--domain", "a"]).is_err());
        assert!(Args::try_parse_from(["vshmemd", "--domain", "a/b"]).is_err());
        assert!(Args::try_parse_from(["vshmemd", "--backend", "--ready-fd", "1"]).is_err());
    }

    #[test]
    fn the_man_page_has_every_option() {
        let page = include_str!("../../../docs/man/vshmemd.8").replace('\\', "");
        let command = Args::command();
        for name in command.get_arguments().filter_map(clap::Arg::get_long) {
            assert!(page.contains(&format!("--{name}")), "--{name}");
        }
    }

    #[test]
    fn limits_in_the_environment_of_both_do_not_keep_a_front_end_from_starting() {
        let limits = ["--grant-limit", "2", "--evtchn-limit", "3"];
        let args = ["vshmemd", "--domain", "a"].into_iter().chain(limits);
        assert!(Args::try_parse_from(args).is_ok());
    }
}
