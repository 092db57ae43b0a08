// SPDX-License-Identifier: MIT OR Apache-2.0
//! Daemons of a world of its own for each test, and clients that speak raw messages to them.

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, UCred, connect,
    socket_with,
};
use rustix::process::{Gid, Pid, Signal, Uid, kill_process};
use std::io::{BufRead, BufReader};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use vshmem_abi::channel::{Fds, recv, send};
use vshmem_abi::layout::Directory;
use vshmem_abi::wire::{Meta, Op, Reply, Request, Stat, State, Welcome};
use vshmem_abi::{ABI_VERSION, Kind, paths};
use vshmem_engine::client_page::PageMine;
use vshmem_engine::wait_page::WaitPage;
use vshmem_engine::{attach, directory};

/// Waits until `condition` holds; a minute without it is a failure, not a slow machine.
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < Duration::from_secs(60), "in vain: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// Where a daemon of a test writes its log.
fn log_file(dir: &Path, part: &[&str]) -> PathBuf {
    dir.join("test.log").with_extension(part.join("_"))
}

/// A daemon, killed when dropped.
pub struct Daemon(Child);

impl Daemon {
    fn start(dir: &Path, part: &[&str], before: &str) -> Self {
        // The ready line comes through the shell's stdout.
        let script = format!("{before} exec \"$0\" \"$@\" --ready-fd 3 3>&1 1>&2");
        let mut child = Command::new("sh")
            .args(["-c", &script, env!("CARGO_BIN_EXE_vshmemd"), "--dir"])
            .arg(dir)
            .args(part)
            .env("VSHMEM_LOG", "debug")
            .stdout(Stdio::piped())
            .stderr(std::fs::File::create(log_file(dir, part)).unwrap())
            .spawn()
            .unwrap();
        let mut line = String::new();
        let stdout = child.stdout.take().unwrap();
        BufReader::new(stdout).read_line(&mut line).unwrap();
        assert_eq!(line, "ready\n", "{part:?} does not start");
        Self(child)
    }

    /// Its process.
    pub fn pid(&self) -> i32 {
        self.0.id() as i32
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) {
        kill_process(Pid::from_raw(self.pid()).unwrap(), signal).unwrap();
    }

    /// Waits for its end and returns whether it was a clean one.
    pub fn wait(&mut self) -> bool {
        self.0.wait().unwrap().success()
    }

    /// How many descriptors it has open.
    pub fn descriptors(&self) -> usize {
        std::fs::read_dir(format!("/proc/{}/fd", self.pid()))
            .unwrap()
            .count()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Ended already is as good.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A directory with a back-end and domains of its own.
pub struct World {
    /// The back-end.
    pub back: Daemon,
    dir: tempfile::TempDir,
}

impl World {
    /// With a back-end that runs.
    pub fn new() -> Self {
        Self::with_config("")
    }

    /// The same, whose daemons find this configuration.
    pub fn with_config(text: &str) -> Self {
        Self::begin(text, &["--backend"])
    }

    /// The same, whose domains do as if each had a kernel of its own.
    pub fn with_separate_kernels() -> Self {
        Self::begin("", &["--backend", "--separate-kernels"])
    }

    fn begin(config: &str, back: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("vshmem.toml"), config).unwrap();
        let back = Daemon::start(dir.path(), back, "");
        Self { back, dir }
    }

    /// Its directory.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// Starts the front-end of a domain.
    pub fn domain(&self, name: &str) -> Daemon {
        Daemon::start(self.dir(), &["--domain", name], "")
    }

    /// Starts it after a shell command, as `ulimit -n 40;`.
    pub fn domain_after(&self, name: &str, before: &str) -> Daemon {
        Daemon::start(self.dir(), &["--domain", name], before)
    }

    /// What the front-end of a domain has logged.
    pub fn log_of(&self, name: &str) -> String {
        std::fs::read_to_string(log_file(self.dir(), &["--domain", name])).unwrap()
    }

    /// A bare connection.
    pub fn connect(&self, domain: &str) -> OwnedFd {
        let kind = SocketType::SEQPACKET;
        let socket = socket_with(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None).unwrap();
        let path = paths::domain_socket(self.dir(), domain);
        connect(&socket, &SocketAddrUnix::new(path).unwrap()).unwrap();
        socket
    }

    /// A client that has said Hello.
    pub fn client(&self, domain: &str) -> Client {
        Client::hello(self.connect(domain), 0).unwrap()
    }

    /// What a daemon has logged (`--backend` or `--domain_NAME`).
    pub fn log(&self, part: &str) -> String {
        std::fs::read_to_string(self.dir().join("test").with_extension(part)).unwrap()
    }
}

/// The ids that a request is sent with.
pub fn own_ids() -> UCred {
    UCred {
        pid: rustix::process::getpid(),
        uid: rustix::process::geteuid(),
        gid: rustix::process::getegid(),
    }
}

/// Sends a request and waits for its answer.
pub fn ask(socket: BorrowedFd<'_>, request: &Request, ids: UCred) -> Result<(Reply, Fds), Errno> {
    send(socket, request, &[], Some(ids), SendFlags::empty())?;
    recv(socket, RecvFlags::empty())
}

/// A request for `op` about segments.
pub fn request(op: Op) -> Request {
    Request {
        version: ABI_VERSION,
        op: op as u32,
        kind: Kind::Shm as u32,
        ..Request::default()
    }
}

/// A client in this process, as the client library would be.
pub struct Client {
    pub socket: OwnedFd,
    pub directory: &'static Directory,
    pub page: PageMine,
    pub waits: &'static WaitPage,
    pub welcome: Welcome,
    ids: UCred,
}

impl Client {
    /// Says Hello on a connection.
    pub fn hello(socket: OwnedFd, token: u64) -> Result<Self, Errno> {
        let pid = std::process::id();
        let hello = Request {
            arg: pid,
            token,
            kind: 0,
            ..request(Op::Hello)
        };
        let (reply, fds) = ask(socket.as_fd(), &hello, own_ids())?;
        if reply.errno != 0 {
            return Err(Errno::from_raw_os_error(reply.errno));
        }
        let [Some(directory), Some(page), Some(waits), None] = fds else {
            panic!("{fds:?}");
        };
        Ok(Self {
            socket,
            directory: directory::map_for_reading(directory.as_fd()).unwrap(),
            page: PageMine::map(page.as_fd(), pid as i32).unwrap(),
            waits: WaitPage::map(waits.as_fd()).unwrap(),
            welcome: reply.body(),
            ids: own_ids(),
        })
    }

    /// From now on asks as another user, which only root can.
    pub fn become_user(&mut self, id: u32) {
        self.ids.uid = Uid::from_raw(id);
        self.ids.gid = Gid::from_raw(id);
    }

    /// Asks; the errno of a refusal is the error.
    pub fn ask(&self, request: Request) -> Result<(Reply, Fds), i32> {
        let (reply, fds) = ask(self.socket.as_fd(), &request, self.ids).expect("an answer");
        match reply.errno {
            0 => Ok((reply, fds)),
            errno => Err(errno),
        }
    }

    /// `shmget`; returns the segment and, where it was made, its region.
    pub fn get(&self, key: i32, size: u64, flags: i32) -> Result<(Meta, Option<OwnedFd>), i32> {
        let (reply, [fd, ..]) = self.ask(Request {
            key,
            size,
            flags,
            ..request(Op::Get)
        })?;
        let meta = reply.body::<Meta>();
        assert_eq!(meta.id, reply.value);
        Ok((meta, fd))
    }

    /// An operation that takes nothing but an id.
    pub fn about(&self, op: Op, id: i32) -> Result<Reply, i32> {
        let (reply, _) = self.ask(Request { id, ..request(op) })?;
        Ok(reply)
    }

    /// The region of `id`.
    pub fn open(&self, id: i32, access: i32) -> Result<OwnedFd, i32> {
        let flags = access;
        let (_, [fd, ..]) = self.ask(Request {
            id,
            flags,
            ..request(Op::Open)
        })?;
        Ok(fd.expect("a descriptor"))
    }

    /// `IPC_STAT`.
    pub fn stat(&self, id: i32) -> Result<Stat, i32> {
        Ok(self.about(Op::Stat, id)?.body())
    }

    /// `shm_nattch`.
    pub fn nattch(&self, id: i32) -> u64 {
        self.stat(id).unwrap().usage.nattch
    }

    fn slot(&self, id: i32) -> u32 {
        match directory::find_id(self.directory, Kind::Shm, id) {
            directory::Lookup::Found(slot, _) => slot,
            other => panic!("{other:?}"),
        }
    }

    /// Counts an attachment.
    pub fn attach(&self, id: i32) -> State {
        attach::begin(&self.page, self.directory, self.slot(id), id, now())
    }

    /// Counts a detachment and tells the daemon where that is due.
    pub fn detach(&self, id: i32) {
        if attach::end(&self.page, self.directory, self.slot(id), id, now()) {
            self.about(Op::Detached, id).unwrap();
        }
    }

    /// Whether the directory has the key.
    pub fn directory_has(&self, key: i32) -> bool {
        matches!(
            directory::find_key(self.directory, Kind::Shm, key),
            directory::Lookup::Found(..)
        )
    }
}

/// Nanoseconds since the epoch.
fn now() -> i64 {
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Realtime);
    now.tv_sec * 1_000_000_000 + now.tv_nsec
}

/// A mapping of the first page of a region, which counts as an attachment of this process.
pub struct Mapped(*mut std::ffi::c_void);

/// Maps the first page of a region.
pub fn map(region: &OwnedFd) -> Mapped {
    use rustix::mm::{MapFlags, ProtFlags, mmap};
    let (prot, flags) = (ProtFlags::READ, MapFlags::SHARED);
    // SAFETY: a new mapping at an address of the kernel's choice, which nothing touches.
    Mapped(unsafe { mmap(std::ptr::null_mut(), 4096, prot, flags, region, 0) }.unwrap())
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: the mapping that `map` made; nothing refers to it.
        unsafe { rustix::mm::munmap(self.0, 4096) }.unwrap();
    }
}
