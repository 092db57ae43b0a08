// SPDX-License-Identifier: MIT OR Apache-2.0
//! `vshmem down`: stops domains, and with all of them the back-end.

use crate::ask::{self, Daemon};
use crate::world::{BACKEND, Running, World};
use crate::{DirArg, Failure, domain, say};
use nix::sys::signal::Signal;
use rustix::io::Errno;
use std::time::Duration;
use vshmem_abi::wire::{Op, Request};

/// How long a daemon that was told to stop may take before it is told more rudely.
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Debug, clap::Args)]
pub struct Args {
    /// Domain to stop [default: $VSHMEM_DOMAIN, else "local"]
    #[arg(long, value_name = "NAME")]
    domain: Option<String>,

    /// Stop all domains and the back-end
    #[arg(long, conflicts_with = "domain")]
    all: bool,

    /// Stop even while clients are connected, and a daemon that does not answer
    #[arg(long)]
    force: bool,

    #[command(flatten)]
    dir: DirArg,
}

/// What [`Op::Shutdown`] is asked for in `arg`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
enum Shutdown {
    /// Stop unless there are clients.
    IfIdle = 0,
    /// Stop.
    Forced = 1,
    /// Only say how many clients there are.
    Ask = 2,
}

/// Stops what is asked for, all of it or, where a domain has clients, nothing.
pub fn down(args: &Args) -> Result<(), Failure> {
    let dir = args.dir.path();
    let named = if args.all {
        None
    } else {
        Some(domain(args.domain.as_deref())?)
    };
    let Some(world) = World::open(&dir)? else {
        return say(&format!("nothing runs in {}\n", dir.display()));
    };
    if !world.is_own() {
        return Err(Failure::new(format!(
            "{} belongs to somebody else; only its owner or root can stop what runs there",
            dir.display()
        )));
    }
    let _lock = world.lock()?;
    let mut domains = Vec::new();
    for name in named
        .clone()
        .map_or_else(|| world.domains(), |name| Ok(vec![name]))?
    {
        match world.running(&name)? {
            Some(running) => domains.push((name, running)),
            None => world.sweep(&name),
        }
    }
    let backend = match named {
        None => world.running(BACKEND)?,
        Some(_) => None,
    };
    if domains.is_empty() && backend.is_none() {
        return say(&match named {
            Some(name) => format!("domain {name} is not up in {}\n", dir.display()),
            None => format!("nothing runs in {}\n", dir.display()),
        });
    }

    if domains.len() > 1 && !args.force {
        refuse_if_busy(&world, &domains)?;
    }
    for (name, running) in &domains {
        stop_domain(&world, name, running, args.force)?;
        say(&format!("domain {name} is stopped\n"))?;
    }
    if let Some(backend) = backend {
        end(&world, BACKEND, &backend, args.force)?;
        say("the back-end is stopped\n")?;
    }
    Ok(())
}

/// Fails when one of the domains has clients, before any is stopped.
fn refuse_if_busy(world: &World, domains: &[(String, Running)]) -> Result<(), Failure> {
    let mut busy = Vec::new();
    for (name, running) in domains {
        match request(world, name, Shutdown::Ask) {
            Ok(0) => {}
            Ok(clients) | Err(Refusal::Busy(clients)) => busy.push((name.as_str(), clients)),
            Err(refusal) => return Err(refusal.failure(name, running)),
        }
    }
    if busy.is_empty() {
        Ok(())
    } else {
        Err(too_busy(&busy))
    }
}

fn too_busy(busy: &[(&str, i32)]) -> Failure {
    let list: Vec<_> = busy
        .iter()
        .map(|(name, clients)| {
            let noun = if *clients == 1 { "client" } else { "clients" };
            format!("domain {name} has {clients} {noun}")
        })
        .collect();
    Failure::new(format!("{}; stop them, or use --force", list.join(", ")))
}

/// Why a domain does not stop when it is asked to.
#[derive(Debug, PartialEq, Eq)]
enum Refusal {
    /// It has so many clients.
    Busy(i32),
    /// It answered with another error number.
    Errno(i32),
    /// It does not answer.
    Silent(Errno),
}

impl Refusal {
    fn failure(&self, name: &str, running: &Running) -> Failure {
        match *self {
            Self::Busy(clients) => too_busy(&[(name, clients)]),
            Self::Errno(errno) => Failure::new(format!(
                "domain {name} refuses to stop: {}",
                ask::text(errno)
            )),
            Self::Silent(errno) => Failure::new(format!(
                "vshmemd of domain {name} (pid {}) does not answer ({}); use --force to kill it",
                running.pid.as_raw_nonzero(),
                ask::text(errno.raw_os_error())
            )),
        }
    }
}

/// Asks a domain to stop, or how it stands with that; returns the number of its clients.
fn request(world: &World, name: &str, what: Shutdown) -> Result<i32, Refusal> {
    // One that waits for the back-end gives up on it after 5 s. Whoever forces does not wait.
    let patience = match what {
        Shutdown::Forced => Duration::from_secs(2),
        Shutdown::IfIdle | Shutdown::Ask => ask::PATIENCE,
    };
    let request = Request {
        arg: what as u32,
        ..Request::default()
    };
    let reply = Daemon::connect(world.dir(), name, patience)
        .and_then(|daemon| daemon.ask(Op::Shutdown, request));
    match reply {
        Ok(reply) if reply.errno == 0 => Ok(reply.value),
        Ok(reply) if reply.errno == Errno::BUSY.raw_os_error() => Err(Refusal::Busy(reply.value)),
        Ok(reply) => Err(Refusal::Errno(reply.errno)),
        // It ended before it answered.
        Err(Errno::CONNRESET | Errno::PIPE) if what != Shutdown::Ask => Ok(0),
        Err(errno) => Err(Refusal::Silent(errno)),
    }
}

/// Stops a domain whose back-end is gone, so that it can be started anew; not while it has clients,
/// which still work with what they have.
pub fn stop_without_back_end(world: &World, name: &str, running: &Running) -> Result<(), Failure> {
    stop_domain(world, name, running, false).map_err(|failure| {
        Failure::new(format!(
            "domain {name} has lost its back-end and has to start anew, but cannot be stopped: \
             {failure} (`vshmem down --domain {name} --force`, which ends its segments)"
        ))
    })
}

fn stop_domain(world: &World, name: &str, running: &Running, force: bool) -> Result<(), Failure> {
    let what = if force {
        Shutdown::Forced
    } else {
        Shutdown::IfIdle
    };
    match request(world, name, what) {
        Ok(_) if running.wait_gone(PATIENCE)? => Ok(()),
        Ok(_) | Err(Refusal::Silent(_)) if force => end(world, name, running, force),
        Ok(_) => Err(Failure::new(format!(
            "vshmemd of domain {name} (pid {}) agreed to stop and has not yet; use --force to \
             kill it",
            running.pid.as_raw_nonzero()
        ))),
        Err(refusal) => Err(refusal.failure(name, running)),
    }
}

/// Ends a daemon with signals: `SIGTERM`, and where that does not help and force is allowed,
/// `SIGKILL`.
fn end(world: &World, name: &str, running: &Running, force: bool) -> Result<(), Failure> {
    running.signal(Signal::SIGTERM)?;
    if running.wait_gone(PATIENCE)? {
        return Ok(());
    }
    let pid = running.pid.as_raw_nonzero();
    if !force {
        return Err(Failure::new(format!(
            "process {pid} ({name}) does not end on SIGTERM; use --force to kill it"
        )));
    }
    running.signal(Signal::SIGKILL)?;
    if !running.wait_gone(PATIENCE)? {
        return Err(Failure::new(format!(
            "process {pid} ({name}) does not even end on SIGKILL: the kernel holds it; see \
             /proc/{pid}/stack"
        )));
    }
    world.sweep(name);
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_busy_domain_is_named_with_its_number_of_clients() {
        assert_eq!(
            too_busy(&[("a", 1), ("b", 3)]).text,
            "domain a has 1 client, domain b has 3 clients; stop them, or use --force"
        );
    }
}
