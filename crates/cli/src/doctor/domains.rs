// SPDX-License-Identifier: MIT OR Apache-2.0
//! The back-end and the domains of the directory: who runs, who answers, and whether they are of one
//! version. In a guest of Xen the one domain is the guest, its files are called otherwise than it, and its
//! back-end is in dom0.

use super::machine::Place;
use super::{Findings, NEARLY, probe, xen};
use crate::ask::{self, Daemon};
use crate::survey::{Silent, Survey, Told};
use crate::world::{BACKEND, World};
use crate::{show, start};
use rustix::io::Errno;
use std::path::Path;
use vshmem_abi::paths;

/// The port of a domain of Xen, as its report has it.
const XEN: &str = "xen";

/// Looks at all of them, as far as there is a directory; with a library also whether programs with that in
/// them reach their domains.
pub fn look(found: &mut Findings, world: Option<&World>, place: Place, library: Option<&Path>) {
    let mut survey = Survey::default();
    let mut waits = false;
    if let Some(world) = world {
        match Survey::of(world.dir()) {
            Ok(asked) => survey = asked,
            Err(failure) => return found.wrong("domains", failure.text, "see above"),
        }
        waits = waiting_in_guest(found, world, &survey);
    }
    let told = survey.domains.iter().find(|told| told.port == XEN);
    let is_of_guest = told.is_some() || waits;
    // The back-end of the host port has a socket.
    let is_of_host = |world: &World| paths::backend_socket(world.dir()).exists();
    let runs_on_host = world.is_some_and(is_of_host);
    if let Some(world) = world
        && !is_of_guest
    {
        back_end(found, world);
    }
    if place != Place::Host && !runs_on_host {
        let domain = xen::Domain {
            place,
            in_use: is_of_guest || place == Place::Dom0,
            granted: told.map_or(0, |told| told.grants_used),
        };
        xen::look(found, domain);
    }
    if let Some(world) = world {
        domains(found, world, &survey, library);
    }
}

/// The daemon of a guest that runs and does not serve yet; returns whether there is one.
fn waiting_in_guest(found: &mut Findings, world: &World, survey: &Survey) -> bool {
    let waits = |name: &String| !is_up(survey, name) && runs_in_guest(world, name);
    let waiting = world.domains().unwrap_or_default().into_iter().find(waits);
    if let Some(name) = &waiting {
        found.wrong(
            "domain",
            format!("{name}: the vshmemd of this guest waits for the back-end in dom0"),
            "start that there: vshmemd --backend --port xen",
        );
    }
    waiting.is_some()
}

fn is_up(survey: &Survey, name: &str) -> bool {
    survey.domains.iter().any(|told| told.socket == name)
        || survey.silent.iter().any(|silent| silent.name == name)
}

fn runs_in_guest(world: &World, name: &str) -> bool {
    // Who may not lock may not look who runs either.
    let running = world.is_own().then(|| world.lock());
    let running = running.and_then(|lock| lock.and_then(|_lock| world.running(name)).ok());
    running.flatten().is_some_and(|running| running.in_guest)
}

/// The back-end of a directory of one's own.
fn back_end(found: &mut Findings, world: &World) {
    if !world.is_own() {
        return;
    }
    let running = world.lock().and_then(|_lock| world.running(BACKEND));
    match running {
        Ok(Some(running)) => {
            let pid = running.pid.as_raw_nonzero();
            found.fine("back-end", format!("runs (pid {pid})"));
        }
        Ok(None) if world.domains().is_ok_and(|domains| domains.is_empty()) => {
            found.fine("back-end", "nothing runs");
        }
        Ok(None) => found.warn(
            "back-end",
            "does not run",
            "`vshmem run` starts it, and anew every domain that has no clients",
        ),
        Err(failure) => found.wrong("back-end", failure.text, "see above"),
    }
}

/// Every domain of the directory.
fn domains(found: &mut Findings, world: &World, survey: &Survey, library: Option<&Path>) {
    for of_nothing_known in &survey.silent {
        silent(found, of_nothing_known);
    }
    for told in &survey.domains {
        domain(found, world, told, library);
    }
    for name in world.domains().unwrap_or_default() {
        if !is_up(survey, &name) && !runs_in_guest(world, &name) {
            found.warn(
                "domain",
                format!("{name}: it has ended without clearing up"),
                format!("`vshmem down --domain {name}` does, or its next start"),
            );
        }
    }
}

fn silent(found: &mut Findings, Silent { name, why }: &Silent) {
    let said = ask::text(why.raw_os_error());
    match *why {
        Errno::CONNRESET | Errno::PIPE => found.wrong(
            "domain",
            format!("{name}: its vshmemd is of another version"),
            format!("start it anew: `vshmem down --domain {name}`, then `vshmem run`"),
        ),
        Errno::ACCESS | Errno::PERM => found.wrong(
            "domain",
            format!("{name}: its socket is not for you ({said})"),
            format!("the socket is to be writable for all: chmod 666 {name}.sock"),
        ),
        _ => found.wrong(
            "domain",
            format!("{name}: its vshmemd does not answer ({said})"),
            format!("see {name}.log; `vshmem down --domain {name} --force` ends it"),
        ),
    }
}

fn domain(found: &mut Findings, world: &World, told: &Told, library: Option<&Path>) {
    let (name, socket) = (&told.name, &told.socket);
    let is_guest = told.port == XEN;
    let version = env!("CARGO_PKG_VERSION");
    if told.version != version || told.abi != vshmem_abi::ABI_VERSION {
        let (its, abi) = (&told.version, told.abi);
        found.wrong(
            "domain",
            format!("{name}: its vshmemd is {its} (ABI {abi}), this is vshmem {version}"),
            match is_guest {
                true => "end its programs, and start it anew: systemctl restart vshmemd".to_owned(),
                false => {
                    format!("start it anew: `vshmem down --domain {socket}`, then `vshmem run`")
                }
            },
        );
        return;
    }
    let connected = Daemon::connect(world.dir(), socket, ask::PATIENCE);
    let has_back_end =
        connected.is_ok_and(|daemon| start::has_back_end(&daemon, socket).unwrap_or(false));
    if !has_back_end {
        found.wrong(
            "domain",
            format!("{name}: it has lost its back-end"),
            match is_guest {
                true => {
                    "start that in dom0 (vshmemd --backend --port xen); if the log of vshmemd here \
                         says so, start that again too"
                        .to_owned()
                }
                false => format!("end its programs, then `vshmem run --domain {socket} -- true`"),
            },
        );
        return;
    }
    if let Some(library) = library
        && let Err(said) = probe::reaches(world.dir(), socket, library)
    {
        found.wrong(
            "domain",
            format!(
                "{name}: a program with {} does not reach it: {said}",
                library.display()
            ),
            "install command, library and daemon of one version, and start the daemon anew",
        );
        return;
    }
    let since = show::moment(told.since);
    let clients = show::count(told.clients, "client");
    found.fine("domain", format!("{name}: ready since {since}, {clients}"));
    let (used, limit) = (told.grants_used, told.grants_limit);
    if limit > 0 && used >= limit / 100 * NEARLY {
        found.warn(
            "grants",
            format!("{name}: {used} of {limit} pages are granted"),
            "remove what is not needed (vshmem rm --orphans), or raise VSHMEM_GRANT_LIMIT (on Xen, the limit of gntalloc)",
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::doctor::Level;
    use rustix::fs::{FlockOperation, MemfdFlags, flock};
    use rustix::net::{
        AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType,
    };
    use std::fs::File;
    use std::io::Write;
    use std::os::fd::AsFd;
    use vshmem_abi::channel::{recv, send};
    use vshmem_abi::wire::{Op, Reply, Request};
    use vshmem_report::DomainReport;

    /// A directory as in a guest, with the pid file of a daemon that runs: of this process.
    fn guest() -> (tempfile::TempDir, File) {
        let dir = tempfile::tempdir().unwrap();
        let mut pid_file = File::create(paths::pid_file(dir.path(), "local")).unwrap();
        let text = format!("{}\n{}", std::process::id(), paths::PID_FILE_OF_GUEST);
        pid_file.write_all(text.as_bytes()).unwrap();
        flock(&pid_file, FlockOperation::LockExclusive).unwrap();
        (dir, pid_file)
    }

    /// Has a thread answer as the daemon of a guest that is called `dom1`, for as long as the test lasts.
    fn serve(dir: &Path) {
        let flags = SocketFlags::CLOEXEC;
        let kind = SocketType::SEQPACKET;
        let listener = rustix::net::socket_with(AddressFamily::UNIX, kind, flags, None).unwrap();
        let address = SocketAddrUnix::new(paths::domain_socket(dir, "local")).unwrap();
        rustix::net::bind(&listener, &address).unwrap();
        rustix::net::listen(&listener, 8).unwrap();
        let report = DomainReport {
            name: "dom1".into(),
            port: XEN.into(),
            version: env!("CARGO_PKG_VERSION").into(),
            abi: vshmem_abi::ABI_VERSION,
            ..DomainReport::default()
        };
        let text = serde_json::to_string(&report).unwrap();
        std::thread::spawn(move || {
            while let Ok(client) = rustix::net::accept(&listener) {
                while let Ok((request, _)) = recv::<Request>(client.as_fd(), RecvFlags::empty()) {
                    let file = rustix::fs::memfd_create("report", MemfdFlags::CLOEXEC).unwrap();
                    let mut file = File::from(file);
                    file.write_all(text.as_bytes()).unwrap();
                    let (errno, fds) = match Op::from_raw(request.op) {
                        Some(Op::Report) => (0, vec![file.as_fd()]),
                        _ => (libc::ENOENT, Vec::new()),
                    };
                    let reply = Reply { errno, ..Reply::OK };
                    send(client.as_fd(), &reply, &fds, None, SendFlags::empty()).unwrap();
                }
            }
        });
    }

    fn found(dir: &Path) -> Findings {
        let mut found = Findings::default();
        let world = World::open(dir).unwrap();
        look(&mut found, world.as_ref(), Place::Host, None);
        found
    }

    #[test]
    fn the_domain_of_a_guest_is_asked_by_its_socket_and_its_back_end_is_not_missed_here() {
        let (dir, _pid_file) = guest();
        serve(dir.path());
        let found = found(dir.path());
        let text = found.text(false);
        assert_eq!(found.number(Level::Wrong), 0, "{text}");
        assert_eq!(found.number(Level::Warning), 0, "{text}");
        assert!(text.contains("dom1: ready since"), "{text}");
    }

    #[test]
    fn a_guest_that_waits_for_its_back_end_has_not_ended() {
        let (dir, _pid_file) = guest();
        let found = found(dir.path());
        let text = found.text(false);
        assert_eq!(found.number(Level::Wrong), 1, "{text}");
        assert_eq!(found.number(Level::Warning), 0, "{text}");
        assert!(text.contains("waits for the back-end in dom0"), "{text}");
    }
}
