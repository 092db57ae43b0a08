// SPDX-License-Identifier: MIT OR Apache-2.0
//! `vshmem wait`: for scripts, until a domain or a key is there.

use crate::ask::{self, Daemon};
use crate::constructs::noun;
use crate::ls::Kinds;
use crate::survey::Survey;
use crate::world::World;
use crate::{DirArg, Failure, domain, pick, say, show};
use std::path::Path;
use std::time::{Duration, Instant};
use vshmem_abi::Kind;

/// How often is looked.
const PACE: Duration = Duration::from_millis(50);

#[derive(Debug, clap::Args)]
#[command(group = clap::ArgGroup::new("for").required(true).multiple(true))]
pub struct Args {
    /// Until these domains are ready
    #[arg(long = "peer", value_name = "NAME", group = "for")]
    pub peers: Vec<String>,

    /// Until something has this key, in whatever domain: a segment, unless -s or -q says otherwise.
    /// Prints its id
    #[arg(long, group = "for", allow_hyphen_values = true, value_parser = pick::parse_public_key)]
    pub key: Option<i32>,

    #[command(flatten)]
    pub kinds: Kinds,

    /// Give up after this time, as 30s or 5m, with status 1 [default: never]
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    pub timeout: Option<Duration>,

    #[command(flatten)]
    pub dir: DirArg,
}

/// Waits.
pub fn wait(args: &Args) -> Result<(), Failure> {
    for name in &args.peers {
        domain(Some(name))?;
    }
    let dir = args.dir.path();
    let start = Instant::now();
    let mut found = None;
    loop {
        let missing = args.peers.iter().find(|name| !is_ready(&dir, name));
        if let (None, Some(key)) = (missing, args.key) {
            found = find(&dir, key, args.kinds)?;
        }
        if missing.is_none() && (args.key.is_none() || found.is_some()) {
            break;
        }
        if args
            .timeout
            .is_some_and(|patience| start.elapsed() >= patience)
        {
            let what = match (missing, args.key) {
                (Some(name), _) => format!("domain {name} is not ready in {}", dir.display()),
                (None, key) => format!(
                    "nothing has the key {} in {}",
                    show::key(key.unwrap_or(0)),
                    dir.display()
                ),
            };
            return Err(Failure::new(format!("gave up waiting: {what}")));
        }
        std::thread::sleep(PACE);
    }
    match found {
        Some(id) => say(&format!("{id}\n")),
        None => Ok(()),
    }
}

fn is_ready(dir: &Path, name: &str) -> bool {
    Daemon::connect(dir, name, ask::PATIENCE).is_ok()
}

/// The id of what has the key, if a domain is up to ask.
fn find(dir: &Path, key: i32, kinds: Kinds) -> Result<Option<i32>, Failure> {
    let wanted = match kinds.are_none() {
        true => vec![Kind::Shm],
        false => kinds.wanted(),
    };
    if World::open(dir)?.is_none() {
        return Ok(None);
    }
    let survey = Survey::of(dir)?;
    for domain in &survey.domains {
        let Ok(daemon) = Daemon::connect(dir, &domain.socket, ask::PATIENCE) else {
            continue;
        };
        if daemon.greet().is_err() {
            continue;
        }
        for &kind in &wanted {
            match pick::by_key(&daemon, &domain.name, kind, key) {
                Ok(Some(meta)) => return Ok(Some(meta.id)),
                Ok(None) => {}
                // It has just ended, or has lost its back-end: the next look tells.
                Err(_) => break,
            }
        }
        return Ok(None);
    }
    if let Some(silent) = survey.silent.first() {
        return Err(Failure::new(format!(
            "domain {} does not answer, so nobody can tell whether there is a {} of that key",
            silent.name,
            noun(wanted.first().copied().unwrap_or(Kind::Shm))
        )));
    }
    Ok(None)
}
