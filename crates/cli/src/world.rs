// SPDX-License-Identifier: MIT OR Apache-2.0
//! The directory of one world: whether it can be trusted, the lock that makes starting and
//! stopping one at a time, and which daemons run in it.

use crate::{Doing, Failure};
use nix::sys::signal::Signal;
use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use vshmem_abi::paths;

/// What the back-end's files are called.
pub const BACKEND: &str = "backend";

/// Longest path that `sockaddr_un` holds, without its final zero byte (unix(7)).
const MAX_SOCKET_PATH: usize = 107;

/// Makes sure that descriptors 0 to 2 are open while this command works, lest a file it opens
/// become what it prints to. They close again when another program is executed.
pub fn occupy_standard_descriptors() -> Result<(), Failure> {
    loop {
        let null = rustix::fs::open("/dev/null", OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())
            .doing(|| "cannot open /dev/null".into())?;
        if null.as_raw_fd() > 2 {
            return Ok(());
        }
        std::mem::forget(null);
    }
}

/// A directory of sockets, pid files and logs that exists and can be trusted.
#[derive(Debug)]
pub struct World {
    /// Absolute path.
    dir: PathBuf,
    /// Whether the caller may start and stop daemons in it.
    own: bool,
}

/// What is known of a directory when it is judged.
#[derive(Clone, Copy, Debug)]
struct Judged {
    owner: u32,
    mode: u32,
    parent_mode: u32,
    euid: u32,
}

impl Judged {
    /// Why the directory cannot be used, if it cannot. Where everybody may make directories
    /// (/tmp), one of somebody else is a trap; where everybody may write in it, so is each file.
    fn objection(self) -> Option<&'static str> {
        if self.mode & 0o002 != 0 {
            return Some("everybody can write in it; take the permission away (chmod o-w)");
        }
        if self.parent_mode & 0o002 != 0 && self.owner != self.euid && self.owner != 0 {
            return Some("it belongs to somebody else; name another directory (VSHMEM_DIR)");
        }
        None
    }
}

impl World {
    /// The world of `dir`, or `None` where there is no such directory.
    pub fn open(dir: &Path) -> Result<Option<Self>, Failure> {
        let what = || dir.display().to_string();
        let dir_now = match dir.canonicalize() {
            Ok(dir) => dir,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error).doing(what),
        };
        let meta = dir_now.metadata().doing(what)?;
        if !meta.is_dir() {
            return Err(Failure::new(format!(
                "{} is not a directory; name another one (VSHMEM_DIR)",
                dir.display()
            )));
        }
        let parent = dir_now.parent().unwrap_or(&dir_now);
        let judged = Judged {
            owner: meta.uid(),
            mode: meta.mode(),
            parent_mode: parent.metadata().doing(what)?.mode(),
            euid: rustix::process::geteuid().as_raw(),
        };
        if let Some(why) = judged.objection() {
            return Err(Failure::new(format!(
                "{} is not safe to use: {why}",
                dir.display()
            )));
        }
        let longest = paths::domain_socket(&dir_now, &"x".repeat(32));
        if longest.as_os_str().len() > MAX_SOCKET_PATH {
            return Err(Failure::new(format!(
                "{} is too long a path for sockets in it; name a shorter one (VSHMEM_DIR)",
                dir.display()
            )));
        }
        Ok(Some(Self {
            dir: dir_now,
            own: judged.euid == 0 || judged.owner == judged.euid,
        }))
    }

    /// The world of `dir`, which is made if it is not there: open to everybody's clients when it
    /// is root's own in /run, else to its owner's.
    pub fn open_or_make(dir: &Path) -> Result<Self, Failure> {
        let what = || format!("cannot make the directory {}", dir.display());
        let public = dir == Path::new("/run/vshmem") && rustix::process::geteuid().is_root();
        let mode = if public { 0o755 } else { 0o700 };
        match std::fs::DirBuilder::new().mode(mode).create(dir) {
            // What the umask took away comes back.
            Ok(()) => {
                std::fs::set_permissions(dir, std::fs::Permissions::from_mode(mode)).doing(what)?
            }
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error).doing(what),
        }
        Self::open(dir)?.ok_or_else(|| Failure::new(format!("{}: it has gone again", what())))
    }

    /// Its directory, as an absolute path.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Whether the caller may start and stop daemons here.
    pub fn is_own(&self) -> bool {
        self.own
    }

    /// Waits until nobody else starts or stops daemons here, and keeps others from it for as long
    /// as the returned descriptor is open.
    pub fn lock(&self) -> Result<OwnedFd, Failure> {
        let path = self.dir.join("lock");
        let what = || format!("cannot lock {}", path.display());
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file = rustix::fs::open(&path, flags, Mode::RUSR | Mode::WUSR).doing(what)?;
        loop {
            match rustix::fs::flock(&file, FlockOperation::LockExclusive) {
                Ok(()) => return Ok(file),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno).doing(what),
            }
        }
    }

    /// The running daemon `name` (a domain, or [`BACKEND`]), if it runs. Call it with the lock
    /// held: a look at a pid file holds it for an instant.
    pub fn running(&self, name: &str) -> Result<Option<Running>, Failure> {
        let path = paths::pid_file(&self.dir, name);
        let start = Instant::now();
        loop {
            let Some(holder) = self.holder(&path)? else {
                return Ok(None);
            };
            // It still holds the file after its process was pinned: so the number was its own.
            if let Some(Holder { pid, in_guest }) = holder
                && is_locked_by(&path, pid)
                && let Ok(process) = rustix::process::pidfd_open(pid, PidfdFlags::empty())
                && self.holder(&path)? == Some(holder)
            {
                return Ok(Some(Running {
                    pid,
                    in_guest,
                    process,
                }));
            }
            // It is just starting or just ending.
            if start.elapsed() > Duration::from_secs(5) {
                return Err(Failure::new(format!(
                    "{} is locked, but by no process that can be seen here; if its holder is in \
                     another container, do there what you want to do, else end it (see lslocks)",
                    path.display()
                )));
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    /// Who holds a pid file: `None` nobody, `Some(None)` somebody who has not written it yet.
    fn holder(&self, path: &Path) -> Result<Option<Option<Holder>>, Failure> {
        let what = || path.display().to_string();
        let flags = OFlags::RDONLY | OFlags::CLOEXEC | OFlags::NOFOLLOW;
        let file = match rustix::fs::open(path, flags, Mode::empty()) {
            Ok(file) => file,
            Err(Errno::NOENT) => return Ok(None),
            Err(errno) => return Err(errno).doing(what),
        };
        match rustix::fs::flock(&file, FlockOperation::NonBlockingLockShared) {
            Ok(()) => Ok(None),
            Err(Errno::WOULDBLOCK) => {
                let text = std::io::read_to_string(std::fs::File::from(file)).doing(what)?;
                Ok(Some(Holder::parse(&text)))
            }
            Err(errno) => Err(errno).doing(what),
        }
    }

    /// The domains that have files here, running or not, in the order of their names.
    pub fn domains(&self) -> Result<Vec<String>, Failure> {
        let what = || format!("cannot read {}", self.dir.display());
        let mut names = Vec::new();
        for entry in self.dir.read_dir().doing(what)? {
            let name = entry.doing(what)?.file_name();
            names.extend(domain_of_pid_file(&name.to_string_lossy()));
        }
        names.sort();
        Ok(names)
    }

    /// Removes what a daemon that ended without cleaning up left behind; not a socket on which systemd
    /// listens for it.
    pub fn sweep(&self, name: &str) {
        let socket = paths::domain_socket(&self.dir, name);
        let left = (!is_listened_on(&socket)).then_some(socket);
        for path in left.into_iter().chain([paths::pid_file(&self.dir, name)]) {
            // Not being there is what is wanted; anything else its next start will report.
            let _ = std::fs::remove_file(path);
        }
    }
}

/// Whether it is this process that has locked a file, as far as `/proc` tells: in a container the number in a
/// pid file that another one has written is somebody else's.
fn is_locked_by(path: &Path, pid: Pid) -> bool {
    let (Ok(meta), Ok(locks)) = (path.metadata(), std::fs::read_to_string("/proc/locks")) else {
        return true;
    };
    // NUMBER: FLOCK ADVISORY WRITE PID MAJOR:MINOR:INODE 0 EOF (proc_locks(5)); of processes that cannot be
    // seen here there is no line.
    let inode = format!(":{}", meta.ino());
    locks.lines().any(|line| {
        let mut words = line.split_whitespace().skip(4);
        words.next().and_then(|word| word.parse().ok()) == Some(pid.as_raw_nonzero().get())
            && words.next().is_some_and(|file| file.ends_with(&inode))
    })
}

/// Whether somebody listens on a socket, found without a connection, on which systemd would start the daemon.
fn is_listened_on(path: &Path) -> bool {
    // Flags are the fourth of the columns, the path the last (proc_pid_net(5)).
    const ACCEPTS: u32 = 0x10000;
    let sockets = std::fs::read_to_string("/proc/net/unix").unwrap_or_default();
    sockets.lines().any(|line| {
        let flags = line.split_whitespace().nth(3);
        let flags = flags.and_then(|flags| u32::from_str_radix(flags, 16).ok());
        flags.is_some_and(|flags| flags & ACCEPTS != 0)
            && line
                .split_once('/')
                .is_some_and(|(_, of)| Some(of) == path.to_string_lossy().strip_prefix('/'))
    })
}

fn domain_of_pid_file(file: &str) -> Option<String> {
    let name = file.strip_suffix(".pid")?;
    paths::domain_name_error(name)
        .is_none()
        .then(|| name.to_owned())
}

/// What a pid file says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Holder {
    pid: Pid,
    in_guest: bool,
}

impl Holder {
    fn parse(text: &str) -> Option<Self> {
        let (pid, rest) = text.split_once('\n')?;
        Some(Self {
            pid: pid.parse().ok().and_then(Pid::from_raw)?,
            in_guest: rest == paths::PID_FILE_OF_GUEST,
        })
    }
}

/// A daemon that runs, pinned: a later process of the same number is never taken for it.
#[derive(Debug)]
pub struct Running {
    /// Its process.
    pub pid: Pid,
    /// It is the `vshmemd` of a Xen guest, whose back-end is in dom0.
    pub in_guest: bool,
    process: OwnedFd,
}

impl Running {
    /// Sends it a signal; one that has ended meanwhile needs none.
    pub fn signal(&self, signal: Signal) -> Result<(), Failure> {
        let signal = rustix::process::Signal::from_named_raw(signal as i32)
            .ok_or_else(|| Failure::new(format!("signal {signal} cannot be sent")))?;
        match rustix::process::pidfd_send_signal(&self.process, signal) {
            Ok(()) | Err(Errno::SRCH) => Ok(()),
            Err(errno) => {
                Err(errno).doing(|| format!("cannot signal process {}", self.pid.as_raw_nonzero()))
            }
        }
    }

    /// Waits until it is gone, for `patience` at the most; says whether it is.
    pub fn wait_gone(&self, patience: Duration) -> Result<bool, Failure> {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        let end = Instant::now() + patience;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let left = Timespec {
                tv_sec: left.as_secs().try_into().unwrap_or(i64::MAX),
                tv_nsec: left.subsec_nanos().into(),
            };
            let mut fds = [PollFd::from_borrowed_fd(
                self.process.as_fd(),
                PollFlags::IN,
            )];
            match poll(&mut fds, Some(&left)) {
                Ok(ended) => return Ok(ended > 0),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno).doing(|| "cannot wait for a process".into()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OK: Judged = Judged {
        owner: 1000,
        mode: 0o40700,
        parent_mode: 0o41777,
        euid: 1000,
    };

    #[test]
    fn a_directory_that_everybody_can_write_in_is_refused() {
        assert!(OK.objection().is_none());
        let open = Judged {
            mode: 0o40777,
            ..OK
        };
        assert!(open.objection().unwrap().contains("everybody"));
    }

    #[test]
    fn in_tmp_only_ones_own_directory_or_roots_is_taken() {
        assert!(Judged { owner: 7, ..OK }.objection().is_some());
        assert!(Judged { euid: 0, ..OK }.objection().is_some());
        assert!(Judged { owner: 0, ..OK }.objection().is_none());
        let home = Judged {
            euid: 0,
            parent_mode: 0o40755,
            ..OK
        };
        assert!(home.objection().is_none());
    }

    #[test]
    fn a_new_directory_is_for_its_owner_only_whatever_the_umask() {
        let tmp = tempfile::tempdir().unwrap();
        let dir = tmp.path().join("w");
        World::open_or_make(&dir).unwrap();
        assert_eq!(dir.metadata().unwrap().mode() & 0o7777, 0o700);
    }

    #[test]
    fn a_directory_that_is_not_there_is_no_world() {
        let tmp = tempfile::tempdir().unwrap();
        assert!(World::open(&tmp.path().join("w")).unwrap().is_none());
    }

    #[test]
    fn a_directory_too_deep_for_socket_names_is_refused() {
        let tmp = tempfile::tempdir().unwrap();
        let dir = tmp.path().join("d".repeat(90));
        let failure = World::open_or_make(&dir).unwrap_err();
        assert!(failure.text.contains("too long"), "{failure}");
    }

    #[test]
    fn a_daemon_counts_as_running_only_while_its_pid_file_is_locked() {
        let tmp = tempfile::tempdir().unwrap();
        let world = World::open_or_make(&tmp.path().join("w")).unwrap();
        assert!(world.running("a").unwrap().is_none());
        let path = paths::pid_file(world.dir(), "a");
        std::fs::write(&path, format!("{}\n", std::process::id())).unwrap();
        assert!(world.running("a").unwrap().is_none(), "a left-over");
        let file = std::fs::File::open(&path).unwrap();
        rustix::fs::flock(&file, FlockOperation::LockExclusive).unwrap();
        let running = world.running("a").unwrap().expect("locked");
        assert_eq!(running.pid, rustix::process::getpid());
        assert!(!running.in_guest && !running.wait_gone(Duration::ZERO).unwrap());
        let text = format!("{}\n{}", std::process::id(), paths::PID_FILE_OF_GUEST);
        std::fs::write(&path, text).unwrap();
        assert!(world.running("a").unwrap().expect("locked").in_guest);
    }

    #[test]
    fn a_sweep_leaves_a_socket_on_which_somebody_listens() {
        let tmp = tempfile::tempdir().unwrap();
        let world = World::open_or_make(&tmp.path().join("w")).unwrap();
        let socket = paths::domain_socket(world.dir(), "a");
        let listener = std::os::unix::net::UnixListener::bind(&socket).unwrap();
        world.sweep("a");
        assert!(socket.exists());
        drop(listener);
        world.sweep("a");
        assert!(!socket.exists());
    }

    #[test]
    fn pid_files_of_domains_are_told_from_other_files() {
        assert_eq!(domain_of_pid_file("a.b.pid").as_deref(), Some("a.b"));
        for other in ["backend.pid", "a.sock", ".pid", "lock"] {
            assert_eq!(domain_of_pid_file(other), None, "{other}");
        }
    }
}
