// SPDX-License-Identifier: MIT OR Apache-2.0
//! What both parts of `vshmemd` need to be a daemon: a listening socket, a locked pid file,
//! signals as a descriptor, the ready line, and a thin level-triggered epoll.

use rustix::buffer::spare_capacity;
use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, sockopt};
use rustix::process::{Resource, Rlimit};
use sd_notify::NotifyState;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;
use vshmem_abi::paths;

/// Why a daemon does not start, or ends other than by being told to. One line for the operator.
#[derive(Debug, thiserror::Error)]
pub enum DaemonError {
    /// Another daemon holds the pid file.
    #[error("already running (pid {pid}, {})", path.display())]
    AlreadyRunning {
        /// Its process, as the pid file says.
        pid: String,
        /// The pid file.
        path: PathBuf,
    },
    /// A system call failed.
    #[error("{what}: {source}")]
    Io {
        /// What was being done, with the path.
        what: String,
        /// What the kernel said.
        source: std::io::Error,
    },
    /// The configuration is of no use.
    #[error(transparent)]
    Config(#[from] vshmem_config::ConfigError),
    /// A condition of its own, with what to do about it.
    #[error("{0}")]
    Refused(String),
}

impl DaemonError {
    /// For `map_err`: says what was being done when the kernel refused.
    pub fn io<E: Into<std::io::Error>>(what: impl Into<String>) -> impl FnOnce(E) -> Self {
        let what = what.into();
        move |source| Self::Io {
            what,
            source: source.into(),
        }
    }
}

/// How many programs may have connected before one of them is served, as systemd has it for sockets of its own; the
/// kernel takes no more than `net.core.somaxconn`. Whoever finds no place waits a few seconds and gives up, so hundreds
/// that begin at once while the machine is busy need one each.
const BACKLOG: i32 = 4096;

/// A listening `SOCK_SEQPACKET` socket; a file that it has made goes when it is dropped.
#[derive(Debug)]
pub struct Listener {
    socket: OwnedFd,
    /// The file, if it was made here.
    path: Option<PathBuf>,
}

impl Listener {
    /// Takes the socket that whoever started this daemon has made at `path` and handed over, as systemd
    /// does (sd_listen_fds(3)), or else makes it, with permission bits `mode`. To be called once.
    ///
    /// # Errors
    /// When what was handed over is something else, or `path` cannot be listened on.
    pub fn open(path: &Path, mode: u32) -> Result<Self, DaemonError> {
        let fail = DaemonError::io("sockets that are handed over (LISTEN_FDS)");
        let mut handed = sd_notify::listen_fds().map_err(fail)?;
        match (handed.next(), handed.next()) {
            (None, _) => Self::bind(path, mode),
            (Some(fd), None) => {
                // SAFETY: it was opened for this process, which asks for it this once.
                Self::adopt(unsafe { OwnedFd::from_raw_fd(fd) }, path)
            }
            _ => Err(DaemonError::Refused(format!(
                "more than one socket is handed over (LISTEN_FDS); there is one only, {}",
                path.display()
            ))),
        }
    }

    /// Takes a socket that listens on `path` already.
    fn adopt(socket: OwnedFd, path: &Path) -> Result<Self, DaemonError> {
        let attempt = || -> Result<bool, Errno> {
            let address = rustix::net::getsockname(&socket)?;
            rustix::io::ioctl_fionbio(&socket, true)?;
            Ok(sockopt::socket_acceptconn(&socket)?
                && sockopt::socket_type(&socket)? == SocketType::SEQPACKET
                && SocketAddrUnix::try_from(address)?.path_bytes()
                    == Some(path.as_os_str().as_bytes()))
        };
        match attempt() {
            Ok(true) => Ok(Self { socket, path: None }),
            Ok(false) | Err(Errno::NOTSOCK | Errno::AFNOSUPPORT) => {
                Err(DaemonError::Refused(format!(
                    "what is handed over (LISTEN_FDS) has to be a socket that listens on {} for \
                     sequential packets (systemd: ListenSequentialPacket=)",
                    path.display()
                )))
            }
            Err(errno) => Err(DaemonError::io("the socket that is handed over")(errno)),
        }
    }

    /// Listens on `path` with permission bits `mode`. A file that is there already is taken for
    /// the left-over of a dead daemon: the caller holds the pid file, so no live one owns it.
    pub fn bind(path: &Path, mode: u32) -> Result<Self, DaemonError> {
        let attempt = || -> Result<OwnedFd, Errno> {
            let address = SocketAddrUnix::new(path)?;
            let socket = rustix::net::socket_with(
                AddressFamily::UNIX,
                SocketType::SEQPACKET,
                SocketFlags::CLOEXEC | SocketFlags::NONBLOCK,
                None,
            )?;
            match rustix::fs::unlink(path) {
                Ok(()) | Err(Errno::NOENT) => {}
                Err(errno) => return Err(errno),
            }
            let mode = Mode::from_raw_mode(mode);
            // The file takes the mode of the socket at bind, so it is never wider than asked for;
            // what the umask took away comes back after.
            rustix::fs::fchmod(&socket, mode)?;
            rustix::net::bind(&socket, &address)?;
            rustix::fs::chmod(path, mode)?;
            rustix::net::listen(&socket, BACKLOG)?;
            Ok(socket)
        };
        let socket = attempt().map_err(DaemonError::io(format!(
            "cannot listen on {}",
            path.display()
        )))?;
        Ok(Self {
            socket,
            path: Some(path.to_owned()),
        })
    }

    /// The next connection, non-blocking and close-on-exec; `None` when none is waiting.
    pub fn accept(&self) -> Result<Option<OwnedFd>, Errno> {
        loop {
            let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
            match rustix::net::accept_with(&self.socket, flags) {
                Ok(connection) => return Ok(Some(connection)),
                Err(Errno::AGAIN) => return Ok(None),
                // The peer of one connection went away: the next may be sound.
                Err(Errno::INTR | Errno::CONNABORTED) => {}
                Err(errno) => return Err(errno),
            }
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Some(path) = &self.path {
            // Gone already is as good.
            let _ = rustix::fs::unlink(path);
        }
    }
}

/// A pid file with an exclusive `flock` on it; removed when dropped. Hold it longer than the
/// [`Listener`], whose file it guards.
#[derive(Debug)]
pub struct PidFile {
    _file: OwnedFd,
    path: PathBuf,
}

impl PidFile {
    /// Locks `path` and writes this process's pid into it.
    ///
    /// # Errors
    /// [`DaemonError::AlreadyRunning`] when another process has it locked.
    pub fn take(path: &Path) -> Result<Self, DaemonError> {
        Self::take_as(path, "")
    }

    /// The same for the daemon of a Xen guest, which its second line says: it is enrolled at a back-end
    /// elsewhere.
    ///
    /// # Errors
    /// As [`Self::take`].
    pub fn take_in_guest(path: &Path) -> Result<Self, DaemonError> {
        Self::take_as(path, paths::PID_FILE_OF_GUEST)
    }

    fn take_as(path: &Path, second_line: &str) -> Result<Self, DaemonError> {
        let fail = || DaemonError::io(format!("pid file {}", path.display()));
        loop {
            let flags = OFlags::RDWR | OFlags::CREATE | OFlags::CLOEXEC | OFlags::NOFOLLOW;
            let file = rustix::fs::open(path, flags, Mode::from_raw_mode(0o644)).map_err(fail())?;
            match rustix::fs::flock(&file, FlockOperation::NonBlockingLockExclusive) {
                Ok(()) => {}
                Err(Errno::WOULDBLOCK) => {
                    let pid = std::fs::read_to_string(path).unwrap_or_default();
                    return Err(DaemonError::AlreadyRunning {
                        pid: match pid.lines().next() {
                            None => "not written yet".to_owned(),
                            Some(pid) => pid.to_owned(),
                        },
                        path: path.to_owned(),
                    });
                }
                Err(errno) => return Err(fail()(errno)),
            }
            // One that just ended may have removed the file between our open and our lock: then
            // what we locked is no longer what the next one would open.
            let ours = rustix::fs::fstat(&file).map_err(fail())?;
            match rustix::fs::stat(path) {
                Ok(now) if (now.st_dev, now.st_ino) == (ours.st_dev, ours.st_ino) => {}
                Ok(_) | Err(Errno::NOENT) => continue,
                Err(errno) => return Err(fail()(errno)),
            }
            rustix::fs::ftruncate(&file, 0).map_err(fail())?;
            let text = format!("{}\n{second_line}", std::process::id());
            rustix::io::pwrite(&file, text.as_bytes(), 0).map_err(fail())?;
            return Ok(Self {
                _file: file,
                path: path.to_owned(),
            });
        }
    }
}

impl Drop for PidFile {
    fn drop(&mut self) {
        // Gone already is as good.
        let _ = rustix::fs::unlink(&self.path);
    }
}

/// What a signal tells a daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Told {
    /// To stop: `SIGTERM` or `SIGINT`.
    Stop,
    /// To read its configuration again: `SIGHUP`.
    Reload,
}

/// Signals as a descriptor, which is readable when one has come.
#[derive(Debug)]
pub struct Signals(OwnedFd);

impl Signals {
    /// Blocks the signals that [`Told`] names, to take them from here. `SIGPIPE` is ignored by Rust's
    /// start-up code. Call it before any thread is started, so that all of them have them blocked.
    ///
    /// # Errors
    /// What `signalfd` says.
    pub fn block() -> Result<Self, DaemonError> {
        use nix::sys::signal::{SigSet, Signal};
        use nix::sys::signalfd::{SfdFlags, SignalFd};
        let signals = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP];
        let set: SigSet = signals.into_iter().collect();
        let attempt = || -> nix::Result<SignalFd> {
            set.thread_block()?;
            SignalFd::with_flags(&set, SfdFlags::SFD_CLOEXEC | SfdFlags::SFD_NONBLOCK)
        };
        let fd = attempt().map_err(DaemonError::io("cannot take signals"))?;
        Ok(Self(fd.into()))
    }

    /// What the next signal tells, if one has come.
    pub fn take(&self) -> Option<Told> {
        let mut info = [0u8; size_of::<libc::signalfd_siginfo>()];
        rustix::io::read(&self.0, &mut info).ok()?;
        // `ssi_signo`, its first field.
        let signal = info.first_chunk().map(|first| i32::from_ne_bytes(*first));
        Some(match signal {
            Some(libc::SIGHUP) => Told::Reload,
            _ => Told::Stop,
        })
    }
}

impl AsFd for Signals {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

/// For tests: numbers of signals that are written to an eventfd.
#[cfg(test)]
impl From<OwnedFd> for Signals {
    fn from(eventfd: OwnedFd) -> Self {
        Self(eventfd)
    }
}

/// Raises the number of descriptors this process may open to the hard limit: each region is one.
pub fn raise_descriptor_limit() {
    let limit = rustix::process::getrlimit(Resource::Nofile);
    let wanted = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    if let Err(errno) = rustix::process::setrlimit(Resource::Nofile, wanted) {
        tracing::warn!(%errno, "cannot raise the limit of open files; fewer segments will fit");
    }
}

/// A random number from the kernel.
pub fn random() -> u64 {
    let mut bytes = [0u8; 8];
    // Requests of up to 256 bytes are never cut short, and after boot they never fail.
    let got = rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty());
    assert_eq!(got, Ok(bytes.len()), "getrandom");
    u64::from_ne_bytes(bytes)
}

fn tell_systemd(what: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(what) {
        tracing::warn!(%error, "cannot tell systemd how this daemon fares (NOTIFY_SOCKET)");
    }
}

/// Tells systemd that this daemon reads its configuration again; [`ready`] says that it is done.
pub fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell_systemd(&[NotifyState::Reloading, now]),
        Err(error) => tracing::warn!(%error, "no monotonic clock"),
    }
}

/// Tells whoever started this daemon that it serves: systemd, and by one line to `fd`, which is closed.
pub fn ready(fd: Option<RawFd>) {
    tell_systemd(&[NotifyState::Ready]);
    let Some(fd) = fd else { return };
    // SAFETY: the command line gave us this descriptor to own; nothing else here uses it. If it
    // is not open, the write fails and nothing is closed.
    let mut file = unsafe { std::fs::File::from_raw_fd(fd) };
    if let Err(error) = file.write_all(b"ready\n") {
        tracing::warn!(fd, %error, "nobody takes the ready line");
        if error.raw_os_error() == Some(Errno::BADF.raw_os_error()) {
            std::mem::forget(file);
        }
    }
}

/// A level-triggered epoll whose events carry a token.
pub struct Epoll {
    fd: OwnedFd,
    events: Vec<Event>,
}

impl Epoll {
    /// A new one that watches nothing.
    pub fn new() -> Result<Self, Errno> {
        Ok(Self {
            fd: epoll::create(CreateFlags::CLOEXEC)?,
            events: Vec::with_capacity(64),
        })
    }

    /// Watches `source` for `flags` (`HUP` and `ERR` are always reported); its events carry
    /// `token`.
    pub fn add(&self, source: impl AsFd, token: u64, flags: EventFlags) -> Result<(), Errno> {
        epoll::add(&self.fd, source, EventData::new_u64(token), flags)
    }

    /// Ends watching `source`. Needed before it is closed only when a duplicate of it lives on.
    pub fn remove(&self, source: impl AsFd) -> Result<(), Errno> {
        epoll::delete(&self.fd, source)
    }

    /// Waits for events, for `timeout` at the most, and returns them with their tokens; none when
    /// the time is over or a signal came.
    pub fn wait(
        &mut self,
        timeout: Option<Duration>,
    ) -> Result<impl Iterator<Item = (u64, EventFlags)> + '_, Errno> {
        let timeout = timeout.map(|t| rustix::event::Timespec {
            tv_sec: t.as_secs().try_into().unwrap_or(i64::MAX),
            tv_nsec: t.subsec_nanos().into(),
        });
        self.events.clear();
        match epoll::wait(&self.fd, spare_capacity(&mut self.events), timeout.as_ref()) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
        Ok(self.events.iter().map(|event| {
            let (data, flags) = (event.data, event.flags);
            (data.u64(), flags)
        }))
    }
}

impl AsFd for Epoll {
    /// Readable when there are events: to be watched by another one.
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Read;
    use std::os::fd::IntoRawFd;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_pid_file_is_taken_once_and_gone_when_it_is_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.pid");
        let first = PidFile::take(&path).unwrap();
        let own = std::process::id().to_string();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), format!("{own}\n"));
        match PidFile::take(&path) {
            Err(DaemonError::AlreadyRunning { pid, .. }) => assert_eq!(pid, own),
            other => panic!("taken twice: {other:?}"),
        }
        drop(first);
        assert!(!path.exists());
    }

    #[test]
    fn the_pid_file_of_a_daemon_that_was_killed_is_taken_over() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.pid");
        std::fs::write(&path, "1234567890\n").unwrap();
        let _pid = PidFile::take(&path).unwrap();
        let text = std::fs::read_to_string(&path).unwrap();
        assert_eq!(text, format!("{}\n", std::process::id()));
    }

    #[test]
    fn a_socket_replaces_a_left_over_has_its_mode_and_goes_when_it_is_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.sock");
        for mode in [0o600, 0o666] {
            std::fs::write(&path, "").unwrap();
            let listener = Listener::bind(&path, mode).unwrap();
            let there = std::fs::metadata(&path).unwrap().permissions().mode();
            assert_eq!(there & 0o777, mode);
            assert!(listener.accept().unwrap().is_none());
            drop(listener);
            assert!(!path.exists());
        }
    }

    #[test]
    fn a_socket_that_is_handed_over_is_served_and_its_file_stays() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.sock");
        let made = Listener::bind(&path, 0o600).unwrap();
        let handed = || made.as_fd().try_clone_to_owned().unwrap();
        let listener = Listener::adopt(handed(), &path).unwrap();
        assert!(listener.accept().unwrap().is_none());
        drop(listener);
        assert!(path.exists());

        let elsewhere = Listener::adopt(handed(), &dir.path().join("b.sock"));
        let stream = std::os::unix::net::UnixListener::bind(dir.path().join("c.sock")).unwrap();
        let of_another_type = Listener::adopt(stream.into(), &dir.path().join("c.sock"));
        let internet = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let no_file = Listener::adopt(internet.into(), &path);
        let none = Listener::adopt(std::fs::File::open("/dev/null").unwrap().into(), &path);
        for refused in [elsewhere, of_another_type, no_file, none] {
            let error = refused.unwrap_err().to_string();
            assert!(error.contains("ListenSequentialPacket="), "{error}");
        }
    }

    #[test]
    fn a_path_too_long_for_a_socket_is_named_in_the_error() {
        let path = Path::new("/tmp").join("x".repeat(120));
        let error = Listener::bind(&path, 0o600).unwrap_err().to_string();
        assert!(error.contains("cannot listen on /tmp/xxx"), "{error}");
    }

    #[test]
    fn the_ready_line_is_written_and_its_descriptor_closed() {
        let (mut read, write) = std::io::pipe().unwrap();
        ready(Some(write.into_raw_fd()));
        let mut text = String::new();
        read.read_to_string(&mut text).unwrap();
        assert_eq!(text, "ready\n");
    }

    #[test]
    fn events_carry_their_tokens_and_stop_when_removed() {
        let mut epoll = Epoll::new().unwrap();
        let (read, mut write) = std::io::pipe().unwrap();
        epoll.add(&read, 7, EventFlags::IN).unwrap();
        write.write_all(b"x").unwrap();
        let events: Vec<_> = epoll.wait(None).unwrap().collect();
        assert_eq!(events, [(7, EventFlags::IN)]);
        epoll.remove(&read).unwrap();
        let none = epoll.wait(Some(Duration::ZERO)).unwrap().count();
        assert_eq!(none, 0);
    }
}
