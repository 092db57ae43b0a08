// SPDX-License-Identifier: MIT OR Apache-2.0
//! Starting daemons: in a session of their own, with nothing of the caller's but its user, and
//! not before they serve.

use crate::ask::{self, Daemon};
use crate::world::{BACKEND, Running, World};
use crate::{Doing, Failure, down, find};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use std::io::{Read, Seek, SeekFrom};
use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use vshmem_abi::wire::{Op, Request};
use vshmem_abi::{Kind, paths};

/// How long a daemon may take until it serves.
const PATIENCE: Duration = Duration::from_secs(20);
/// Lines of a daemon's log that are shown when it does not start.
const TAIL_LINES: usize = 8;

/// Makes sure that the back-end and the `vshmemd` of `domain` are up.
pub fn ensure_up(world: &World, domain: &str) -> Result<(), Failure> {
    if !world.is_own() {
        return match Daemon::connect(world.dir(), domain, ask::PATIENCE) {
            Ok(daemon) if has_back_end(&daemon, domain)? => Ok(()),
            Ok(_) => Err(Failure::new(format!(
                "domain {domain} has lost its back-end; ask the owner of {} to start it again",
                world.dir().display()
            ))),
            Err(errno) => Err(Failure::new(format!(
                "domain {domain} is not up in {} ({}), and you are not its owner; ask the \
                 owner to start it, or use a directory of your own (VSHMEM_DIR)",
                world.dir().display(),
                ask::text(errno.raw_os_error())
            ))),
        };
    }
    let _lock = world.lock()?;
    // What answers is up, whoever has started it: this command, systemd at this connection, or somebody
    // in another container, whose process cannot be seen here.
    if let Ok(daemon) = Daemon::connect(world.dir(), domain, ask::PATIENCE)
        && has_back_end(&daemon, domain)?
    {
        return Ok(());
    }
    let running = world.running(domain)?;
    if let Some(running) = running.as_ref().filter(|running| running.in_guest) {
        return is_up_in_guest(world, domain, running);
    }
    if !answers(world, BACKEND) && world.running(BACKEND)?.is_none() {
        start(world, BACKEND)?;
    }
    if let Some(running) = running {
        let daemon = await_socket(world, domain, &running)?;
        if has_back_end(&daemon, domain)? {
            return Ok(());
        }
        // It was enrolled at a back-end that died: with that its keys went, and it cannot make or
        // find anything any more.
        down::stop_without_back_end(world, domain, &running)?;
    }
    if answers(world, domain) {
        return Err(Failure::new(format!(
            "whoever listens for domain {domain} does not get it up with a back-end; where that is \
             systemd, see `systemctl status 'vshmem*'`"
        )));
    }
    start(world, domain)
}

/// Whether a daemon takes connections, or somebody does in its place.
fn answers(world: &World, name: &str) -> bool {
    Daemon::connect(world.dir(), name, ask::PATIENCE).is_ok()
}

/// Makes sure that the `vshmemd` of this Xen guest can reach its back-end, which is not for us to start.
fn is_up_in_guest(world: &World, domain: &str, running: &Running) -> Result<(), Failure> {
    let daemon = await_socket(world, domain, running)?;
    match has_back_end(&daemon, domain)? {
        true => Ok(()),
        false => Err(Failure::new(
            "this guest has lost its back-end; start that in dom0 (vshmemd --backend --port xen), and \
             if the log of this guest's vshmemd says so, start that again too",
        )),
    }
}

/// Whether a domain can reach the back-end it is enrolled at.
pub fn has_back_end(daemon: &Daemon, domain: &str) -> Result<bool, Failure> {
    // The back-end is asked what there is after the last index but one: nothing, in general.
    let request = Request {
        kind: Kind::Shm as u32,
        arg: u32::MAX - 1,
        ..Request::default()
    };
    match daemon.ask(Op::Next, request) {
        Ok(reply) => Ok(reply.errno != Errno::NODEV.raw_os_error()),
        Err(errno) => Err(Failure::new(format!(
            "vshmemd of domain {domain} does not serve ({}); stop it with `vshmem down --domain \
             {domain} --force`",
            ask::text(errno.raw_os_error())
        ))),
    }
}

/// Connects to a daemon that runs; waits for one that somebody else has just started.
fn await_socket(world: &World, domain: &str, running: &Running) -> Result<Daemon, Failure> {
    let start = Instant::now();
    loop {
        match Daemon::connect(world.dir(), domain, ask::PATIENCE) {
            Ok(daemon) => return Ok(daemon),
            Err(Errno::NOENT | Errno::CONNREFUSED) if start.elapsed() < PATIENCE => {
                std::thread::sleep(Duration::from_millis(5));
            }
            Err(errno) => {
                return Err(Failure::new(format!(
                    "vshmemd of domain {domain} (pid {}) runs, but takes no connections \
                     ({}); stop it with `vshmem down --domain {domain} --force`",
                    running.pid.as_raw_nonzero(),
                    ask::text(errno.raw_os_error())
                )));
            }
        }
    }
}

/// Starts the daemon `name` and waits until it serves.
fn start(world: &World, name: &str) -> Result<(), Failure> {
    let program = find::vshmemd()?;
    let log_path = paths::log_file(world.dir(), name);
    let mut log = open_log(&log_path)?;
    let log_start = log
        .seek(SeekFrom::End(0))
        .doing(|| log_path.display().to_string())?;
    let what = || format!("cannot start {}", program.display());
    let (ready, ready_end) =
        rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).doing(what)?;

    let mut command = Command::new(&program);
    match name {
        BACKEND => command.arg("--backend"),
        domain => command.args(["--domain", domain]),
    };
    command
        .arg("--dir")
        .arg(world.dir())
        .args(["--ready-fd", &ready_end.as_raw_fd().to_string()])
        // A library that is meant for the command to run has no business in a daemon.
        .env_remove("LD_PRELOAD")
        .env_remove(paths::ENV_KEYS)
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(log.try_clone().doing(what)?)
        .stderr(log.try_clone().doing(what)?);
    let keep = ready_end.as_raw_fd();
    // SAFETY: this process has one thread, so that the child may do whatever this one may.
    unsafe { command.pre_exec(move || become_daemon(keep)) };
    // The child that is waited for ends at once; the daemon is its child, and so nobody's whom
    // the command to run could wait for.
    let mut child = command.spawn().doing(what)?;
    drop(ready_end);
    child.wait().doing(what)?;

    let problem = match await_ready(&ready) {
        Ok(true) => return Ok(()),
        Ok(false) => "did not start",
        Err(Errno::TIMEDOUT) => "is not ready yet after 20 s",
        Err(errno) => return Err(errno).doing(what),
    };
    let said = tail(&mut log, log_start);
    let who = match name {
        BACKEND => "the back-end".to_owned(),
        domain => format!("vshmemd of domain {domain}"),
    };
    Err(Failure::new(format!(
        "{who} {problem}; {}see {}",
        match said.as_str() {
            // What it said found no room in its log either.
            "" if is_full(world.dir()) => "there is no space left on the disk; ".to_owned(),
            "" => String::new(),
            said => format!("it said:\n{said}\n"),
        },
        log_path.display()
    )))
}

/// Whether nothing more can be written there.
fn is_full(dir: &Path) -> bool {
    rustix::fs::statvfs(dir).is_ok_and(|disk| disk.f_bavail == 0 || disk.f_ffree == 0)
}

fn open_log(path: &Path) -> Result<std::fs::File, Failure> {
    let flags = OFlags::RDWR | OFlags::APPEND | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
    let file = rustix::fs::open(path, flags, Mode::RUSR | Mode::WUSR)
        .doing(|| format!("cannot open {}", path.display()))?;
    Ok(file.into())
}

/// Runs in the child before it executes the daemon: a session and process group of its own, no
/// descriptor but 0 to 2 and `keep`, signals as they are at boot.
fn become_daemon(keep: RawFd) -> std::io::Result<()> {
    let check = |result: libc::c_int| match result {
        -1 => Err(std::io::Error::last_os_error()),
        result => Ok(result),
    };
    // SAFETY: these calls take numbers and, where they take a pointer, the address of a local
    // that lives through the call. _exit does not run what the parent has yet to run.
    unsafe {
        check(libc::setsid())?;
        if check(libc::fork())? != 0 {
            libc::_exit(0);
        }
        libc::umask(0o022);
        // Closed by the execution, not now: std has a descriptor open to report its failure.
        check(libc::close_range(
            3,
            libc::c_uint::MAX,
            libc::CLOSE_RANGE_CLOEXEC as libc::c_int,
        ))?;
        check(libc::fcntl(keep, libc::F_SETFD, 0))?;
        for signal in 1..=libc::SIGRTMAX() {
            // SIGKILL, SIGSTOP and those of the C library refuse, and need no resetting.
            libc::signal(signal, libc::SIG_DFL);
        }
        let mut none: libc::sigset_t = std::mem::zeroed();
        check(libc::sigemptyset(&mut none))?;
        check(libc::sigprocmask(
            libc::SIG_SETMASK,
            &none,
            std::ptr::null_mut(),
        ))?;
    }
    Ok(())
}

/// Waits for the ready line. `false` when the daemon ended without one.
fn await_ready(pipe: &OwnedFd) -> Result<bool, Errno> {
    let end = Instant::now() + PATIENCE;
    let mut line = Vec::new();
    while !line.contains(&b'\n') {
        let left = end.saturating_duration_since(Instant::now());
        let left = Timespec {
            tv_sec: left.as_secs().try_into().unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        };
        let mut fds = [PollFd::from_borrowed_fd(pipe.as_fd(), PollFlags::IN)];
        match poll(&mut fds, Some(&left)) {
            Ok(0) => return Err(Errno::TIMEDOUT),
            Ok(_) => {}
            Err(Errno::INTR) => continue,
            Err(errno) => return Err(errno),
        }
        let mut buffer = [0u8; 64];
        match rustix::io::read(pipe, &mut buffer) {
            Ok(0) => return Ok(false),
            Ok(n) => line.extend_from_slice(&buffer[..n]),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
    Ok(line == b"ready\n")
}

/// The last lines that were written to a log after `from`, each indented; empty when nothing was,
/// or it cannot be read.
fn tail(log: &mut std::fs::File, from: u64) -> String {
    let mut text = Vec::new();
    let read = log
        .seek(SeekFrom::Start(from))
        .and_then(|_| log.read_to_end(&mut text));
    if read.is_err() {
        return String::new();
    }
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<_> = text.lines().collect();
    lines[lines.len().saturating_sub(TAIL_LINES)..]
        .iter()
        .map(|line| format!("  {line}"))
        .collect::<Vec<_>>()
        .join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    #[test]
    fn the_tail_has_the_last_lines_since_the_start_only() {
        let mut log = tempfile::tempfile().unwrap();
        writeln!(log, "of an earlier run").unwrap();
        let from = log.stream_position().unwrap();
        assert_eq!(tail(&mut log, from), "");
        for line in 0..20 {
            writeln!(log, "line {line}").unwrap();
        }
        let tail = tail(&mut log, from);
        assert_eq!(tail.lines().count(), TAIL_LINES);
        assert!(tail.starts_with("  line 12\n") && tail.ends_with("  line 19"));
    }

    #[test]
    fn a_daemon_is_ready_when_it_says_so_and_not_when_it_closes_the_pipe() {
        for (said, ready) in [("ready\n", true), ("", false), ("rea", false)] {
            let (pipe, end) = rustix::pipe::pipe().unwrap();
            rustix::io::write(&end, said.as_bytes()).unwrap();
            drop(end);
            assert_eq!(await_ready(&pipe), Ok(ready), "{said:?}");
        }
    }
}
