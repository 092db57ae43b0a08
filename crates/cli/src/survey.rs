// SPDX-License-Identifier: MIT OR Apache-2.0
//! What the daemons of a directory say: each of its domain, and any one of them of all constructs.

use crate::ask::{self, Daemon};
use crate::world::World;
use crate::{DirArg, Failure, domain};
use rustix::io::Errno;
use std::ops::Deref;
use std::path::{Path, PathBuf};
use std::time::Duration;
use vshmem_abi::Kind;
use vshmem_abi::wire::{Meta, Op, QueueStat, Request, Stat};
use vshmem_report::DomainReport;
use zerocopy::FromBytes;

/// How long a domain may take to tell of itself, where others are there to ask.
const PATIENCE: Duration = Duration::from_secs(3);

/// `--dir` and `--domain` of the commands that ask about constructs.
#[derive(Debug, Default, clap::Args)]
pub struct Via {
    #[command(flatten)]
    pub dir: DirArg,

    /// Domain whose vshmemd is asked: all of them know the same constructs, but for those that the
    /// policy does not let one have [default: any that is up]
    #[arg(long, value_name = "NAME")]
    pub domain: Option<String>,
}

impl Via {
    /// Connects to the domain that is named, or to any that is up.
    pub fn connect(&self) -> Result<(String, Daemon), Failure> {
        let dir = self.dir.path();
        let nothing = || {
            Failure::new(format!(
                "no domain is up in {}; start one with `vshmem run`, or name another directory \
                 (VSHMEM_DIR)",
                dir.display()
            ))
        };
        let world = World::open(&dir)?.ok_or_else(nothing)?;
        let names = match &self.domain {
            Some(name) => vec![domain(Some(name))?],
            None => world.domains()?,
        };
        for name in names {
            match Daemon::connect(world.dir(), &name, ask::PATIENCE) {
                Ok(daemon) => return Ok((name, daemon)),
                Err(Errno::NOENT | Errno::CONNREFUSED) if self.domain.is_none() => {}
                Err(errno) => {
                    return Err(Failure::new(format!(
                        "domain {name} does not answer in {} ({}); is it up? `vshmem run \
                         --domain {name} -- true` starts it",
                        world.dir().display(),
                        ask::text(errno.raw_os_error())
                    )));
                }
            }
        }
        Err(nothing())
    }
}

/// A domain that tells of itself.
#[derive(Debug)]
pub struct Told {
    /// What its files here are called: in a guest of Xen something else than its name.
    pub socket: String,
    /// What it tells.
    pub report: DomainReport,
}

impl Deref for Told {
    type Target = DomainReport;

    fn deref(&self) -> &DomainReport {
        &self.report
    }
}

/// A domain whose daemon does not tell of itself.
pub struct Silent {
    /// What its files here are called.
    pub name: String,
    /// Why.
    pub why: Errno,
}

/// The domains of a directory.
#[derive(Default)]
pub struct Survey {
    /// The directory.
    pub dir: PathBuf,
    /// Those that tell, in the order of their names.
    pub domains: Vec<Told>,
    /// Those that are up, but do not.
    pub silent: Vec<Silent>,
}

impl Survey {
    /// Asks every domain of a directory. Those that are not up are passed over.
    pub fn of(dir: &Path) -> Result<Self, Failure> {
        let Some(world) = World::open(dir)? else {
            return Ok(Self::default());
        };
        let mut survey = Self {
            dir: world.dir().to_owned(),
            ..Self::default()
        };
        for name in world.domains()? {
            let told = Daemon::connect(world.dir(), &name, PATIENCE)
                .and_then(|daemon| daemon.report::<DomainReport>(0));
            match told {
                Ok(report) => survey.domains.push(Told {
                    socket: name,
                    report,
                }),
                Err(Errno::NOENT | Errno::CONNREFUSED) => {}
                Err(why) => survey.silent.push(Silent { name, why }),
            }
        }
        Ok(survey)
    }

    /// A line on stderr for each domain of which nothing is known.
    pub fn warn(&self) {
        for Silent { name, why } in &self.silent {
            let why = match *why {
                Errno::CONNRESET | Errno::PIPE => "its vshmemd is older than this command",
                why => ask::text(why.raw_os_error()),
            };
            eprintln!("vshmem: domain {name} does not tell of itself ({why}); left out");
        }
    }

    /// What each domain says of the construct `id`.
    pub fn on<T: serde::de::DeserializeOwned>(&self, id: i32) -> Vec<T> {
        let ask = |domain: &Told| {
            let daemon = Daemon::connect(&self.dir, &domain.socket, PATIENCE).ok()?;
            daemon.report(id).ok()
        };
        self.domains.iter().filter_map(ask).collect()
    }

    /// The name of a domain, if it is one of those that tell.
    pub fn name(&self, domid: u32) -> Option<&str> {
        let of = self.domains.iter().find(|domain| domain.domid == domid);
        of.map(|domain| domain.name.as_str())
    }

    /// The name of a domain, or else its number.
    pub fn called(&self, domid: u32) -> String {
        let name = self.name(domid).map(str::to_owned);
        name.unwrap_or_else(|| domid.to_string())
    }
}

/// What is told of a construct in a listing.
pub trait Listed: FromBytes {
    /// The construct.
    fn meta(&self) -> &Meta;
}

impl Listed for Stat {
    fn meta(&self) -> &Meta {
        &self.meta
    }
}

impl Listed for QueueStat {
    fn meta(&self) -> &Meta {
        &self.meta
    }
}

/// All constructs of a kind, by index.
pub fn list<T: Listed>(name: &str, daemon: &Daemon, kind: Kind) -> Result<Vec<T>, Failure> {
    let fail = |why: &str| {
        Failure::new(format!(
            "domain {name} does not tell what it knows ({why}); see its log"
        ))
    };
    let mut list: Vec<T> = Vec::new();
    loop {
        let last = list.last().map(|stat| stat.meta().index);
        let request = Request {
            kind: kind as u32,
            // "After" the highest number is the beginning.
            arg: last.unwrap_or(u32::MAX),
            ..Request::default()
        };
        let reply = daemon
            .ask(Op::Next, request)
            .map_err(|errno| fail(ask::text(errno.raw_os_error())))?;
        if reply.errno == Errno::NOENT.raw_os_error() {
            return Ok(list);
        }
        if reply.errno != 0 {
            return Err(fail(ask::text(reply.errno)));
        }
        let stat = reply.body::<T>();
        // Indices only rise, or this would never end.
        if last.is_some_and(|last| last >= stat.meta().index) {
            return Err(fail("it answers out of order"));
        }
        list.push(stat);
    }
}
