// SPDX-License-Identifier: MIT OR Apache-2.0
//! The client's side of its connection to `vshmemd`: made when first needed, made anew when the
//! program closed it or the daemon was started again, and given up in children of `fork`.

use crate::attachments::Attachments;
use crate::bells::Bells;
use crate::config::config;
use crate::inherit::{self, Birth};
use crate::locals::Locals;
use crate::message;
use crate::own_fd::OwnFd;
use crate::process::Process;
use crate::regions::Regions;
use crate::sys::{self, SignalMask};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use rustix::io::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, UCred, sockopt};
use std::ffi::c_int;
use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering::*};
use vshmem_abi::channel::{self, Fds};
use vshmem_abi::layout::Directory;
use vshmem_abi::token::Token;
use vshmem_abi::wire::{Op, Reply, Request, State, Welcome};
use vshmem_abi::{ABI_VERSION, msgq, set};
use vshmem_engine::client_page::PageMine;
use vshmem_engine::wait_page::WaitPage;
use vshmem_engine::{attach, directory};

/// How long an answer may take. `vshmemd` itself gives up on others sooner, so running into this
/// means that it is stopped or hung.
const PATIENCE: Timespec = Timespec {
    tv_sec: 12,
    tv_nsec: 0,
};

/// Looks for an answer before sleeping: no longer than what being put to sleep and woken costs. It is lost where
/// `vshmemd` waits for this core.
const SPINS: u32 = 32;

/// The directory for those who read it without the lock; null before the first connection.
static DIRECTORY: AtomicPtr<Directory> = AtomicPtr::new(std::ptr::null_mut());

/// The domain's wait page, likewise.
static WAIT_PAGE: AtomicPtr<WaitPage> = AtomicPtr::new(std::ptr::null_mut());

static SAID_NO_DAEMON: AtomicBool = AtomicBool::new(false);
static SAID_RESTARTED: AtomicBool = AtomicBool::new(false);

/// The directory, if there is a connection and the daemon behind it lives. Takes no lock and makes
/// no system call.
#[inline]
pub fn live_directory() -> Option<&'static Directory> {
    // SAFETY: null, or a directory that is mapped for as long as the process lives.
    let directory = unsafe { DIRECTORY.load(Acquire).as_ref() }?;
    directory::writer_lives(directory).then_some(directory)
}

/// The domain's wait page, if there was a connection.
#[inline]
pub fn wait_page() -> Option<&'static WaitPage> {
    // SAFETY: null, or a wait page that is mapped for as long as the process lives.
    unsafe { WAIT_PAGE.load(Acquire).as_ref() }
}

/// Everything that the lock guards.
pub struct Session {
    link: Option<OwnFd>,
    page: Option<PageMine>,
    generation: u64,
    domid: u32,
    /// A page that the kernel zeroes in children of `fork` (and not in those of `vfork`, which
    /// share it with their parent, as they share all that it guards).
    process: Option<&'static Process>,
    /// Descriptors of regions.
    pub regions: Regions,
    spin: bool,
    /// What this process has attached.
    pub attachments: Attachments,
    /// The semaphore sets that it has mapped.
    pub sets: Locals<set::Shape>,
    /// The message queues that it has mapped.
    pub queues: Locals<msgq::Shape>,
    /// The doorbells of other domains.
    pub bells: Bells,
    /// During `fork`: what the child is going to use.
    pub(crate) child: Option<(OwnedFd, OwnedFd, Welcome)>,
    /// During `fork`: the signal mask to put back.
    pub(crate) fork_mask: SignalMask,
    /// During `fork`: whether the thread may be cancelled after it.
    pub(crate) fork_cancel: c_int,
    /// The daemon that some earlier construct of this process belonged to is gone.
    pub restarted: bool,
}

enum Broken {
    /// The request did not go out.
    Send,
    /// It went out, and no answer came.
    Receive,
}

impl Session {
    /// A session that has not begun.
    pub const fn new() -> Self {
        Self {
            link: None,
            page: None,
            generation: 0,
            domid: 0,
            process: None,
            regions: Regions::new(),
            spin: false,
            attachments: Attachments::the_one(),
            sets: Locals::the_one(),
            queues: Locals::the_one(),
            bells: Bells::the_one(),
            child: None,
            fork_mask: 0,
            fork_cancel: 0,
            restarted: false,
        }
    }

    /// Number of this domain; 0 before the first connection.
    pub fn domid(&self) -> u32 {
        self.domid
    }

    /// Generation of this domain; 0 before the first connection.
    pub fn generation(&self) -> u64 {
        self.generation
    }

    /// The client page, if there is one.
    pub fn page(&self) -> Option<&PageMine> {
        self.page.as_ref()
    }

    /// Directory and client page of a `vshmemd` that lives, connecting to it if need be.
    ///
    /// # Errors
    /// `ENODEV` when there is none; what making the connection says (`EMFILE`).
    pub fn connected(&mut self) -> Result<(&'static Directory, &PageMine), c_int> {
        self.notice_fork();
        if self.link.is_none() || self.page.is_none() || live_directory().is_none() {
            self.connect()?;
        }
        match (live_directory(), &self.page) {
            (Some(directory), Some(page)) => Ok((directory, page)),
            _ => Err(libc::ENODEV),
        }
    }

    /// Sends a request and waits for its answer.
    ///
    /// # Errors
    /// The errno of the answer; `ENODEV` when there is no `vshmemd`, or none that answers.
    pub fn call(&mut self, request: Request) -> Result<(Reply, Fds), c_int> {
        self.call_within(request, &PATIENCE)
    }

    /// [`Self::call`] of one who has less patience: with a `vshmemd` that does not answer in that time.
    ///
    /// # Errors
    /// As there.
    pub fn call_within(
        &mut self,
        request: Request,
        patience: &Timespec,
    ) -> Result<(Reply, Fds), c_int> {
        self.notice_fork();
        let usable = self.link.as_ref().is_some_and(|link| link.get().is_some());
        let mut answer = Err(Broken::Send);
        if usable {
            answer = self.exchange(&request, patience);
        }
        if matches!(answer, Err(Broken::Send)) {
            // The daemon we knew, if any, is gone; there may be another one by now.
            answer = self.connect_and_exchange(&request, patience)?;
        }
        match answer {
            Ok((reply, _)) if reply.errno != 0 => Err(reply.errno),
            Ok(answered) => Ok(answered),
            Err(_) => {
                self.link = None;
                self.say_no_daemon("it closed the connection or does not answer");
                Err(libc::ENODEV)
            }
        }
    }

    fn exchange(&mut self, request: &Request, patience: &Timespec) -> Result<(Reply, Fds), Broken> {
        let link = self
            .link
            .as_ref()
            .and_then(OwnFd::get)
            .ok_or(Broken::Send)?;
        exchange_on(link, request, self.spin, patience)
    }

    /// Connects, and has a request answered.
    fn connect_and_exchange(
        &mut self,
        request: &Request,
        patience: &Timespec,
    ) -> Result<Result<(Reply, Fds), Broken>, c_int> {
        if !may_go_along(request) {
            self.connect()?;
            return Ok(self.exchange(request, patience));
        }
        self.connect_along_with(Some(request))?;
        let link = self.link.as_ref().and_then(OwnFd::get);
        Ok(link
            .ok_or(Broken::Receive)
            .and_then(|link| receive_on(link, self.spin, patience)))
    }

    fn connect(&mut self) -> Result<(), c_int> {
        self.connect_along_with(None)
    }

    /// Connects. `first` goes out together with the greeting, which saves `vshmemd` and this process
    /// from being woken once more; its answer is still to come.
    fn connect_along_with(&mut self, first: Option<&Request>) -> Result<(), c_int> {
        let config = config().ok_or(libc::ENODEV)?;
        self.link = None;
        let address = match &config.socket {
            Ok(address) => address,
            Err(_) => {
                self.say_no_daemon(
                    "its path is too long for a socket: choose a shorter VSHMEM_DIR",
                );
                return Err(libc::ENODEV);
            }
        };
        let kind = SocketType::SEQPACKET;
        let socket =
            rustix::net::socket_with(AddressFamily::UNIX, kind, SocketFlags::CLOEXEC, None)
                .map_err(Errno::raw_os_error)?;
        let socket = OwnFd::new(socket).map_err(Errno::raw_os_error)?;
        let fd = socket.get().ok_or(libc::EMFILE)?;
        // Bounds `connect` and `send` where the daemon is stopped and its queue full.
        let limit = std::time::Duration::from_secs(5);
        let _ = sockopt::set_socket_timeout(fd, sockopt::Timeout::Send, Some(limit));
        if let Err(error) = rustix::net::connect(fd, address) {
            self.say_no_daemon(why(error));
            return Err(libc::ENODEV);
        }
        self.spin = more_than_one_cpu();
        let pid = sys::own_pid();
        let hello = Request {
            op: Op::Hello as u32,
            arg: pid as u32,
            token: self.generation,
            ..Request::default()
        };
        let greeted = send_on(fd, &hello)
            .and_then(|()| first.map_or(Ok(()), |first| send_on(fd, first)))
            .and_then(|()| receive_on(fd, self.spin, &PATIENCE));
        let (reply, fds) = match greeted {
            Ok((reply, fds)) if reply.errno == 0 => (reply, fds),
            Ok((reply, _)) if reply.errno == libc::EPROTO => {
                self.say_no_daemon("it is of another version than libvshmem.so");
                return Err(libc::ENODEV);
            }
            Ok((reply, _)) => return Err(reply.errno),
            Err(_) => {
                self.say_no_daemon("it does not answer");
                return Err(libc::ENODEV);
            }
        };
        let (directory, page) = match self.map_shared(fds, pid) {
            Ok(mapped) => mapped,
            Err(error) => {
                if let Some(first) = first.filter(|first| makes(first)) {
                    take_back(fd, first, self.spin);
                }
                return Err(error);
            }
        };
        self.link = Some(socket);
        self.begin(reply.body::<Welcome>(), directory, page);
        Ok(())
    }

    /// Maps what `vshmemd` has passed with its welcome.
    fn map_shared(
        &mut self,
        fds: Fds,
        pid: c_int,
    ) -> Result<(&'static Directory, PageMine), c_int> {
        let [Some(directory), Some(page), Some(wait), ..] = fds else {
            return Err(libc::EMFILE);
        };
        let directory =
            directory::map_for_reading(directory.as_fd()).map_err(Errno::raw_os_error)?;
        let page = PageMine::map(page.as_fd(), pid).map_err(Errno::raw_os_error)?;
        let wait = WaitPage::map(wait.as_fd()).map_err(Errno::raw_os_error)?;
        self.process = Some(Process::make().map_err(Errno::raw_os_error)?);
        WAIT_PAGE.store(std::ptr::from_ref(wait).cast_mut(), Release);
        Ok((directory, page))
    }

    /// Begins to use a new client page: attachments that the daemon knows go over to it.
    fn begin(&mut self, welcome: Welcome, directory: &'static Directory, page: PageMine) {
        if self.generation != 0 && self.generation != welcome.generation {
            self.restarted = true;
            self.regions.clear();
            self.bells.forget();
            message::say_once(
                &SAID_RESTARTED,
                format_args!(
                    "vshmemd was started again: what this program had before is gone (EIDRM); \
                     what it has attached stays until it detaches"
                ),
            );
        }
        self.generation = welcome.generation;
        self.domid = welcome.domid;
        self.is_client(&welcome);
        let old = self.page.take();
        self.attachments.for_each(|a| {
            if a.generation != welcome.generation {
                a.counted = false;
                return;
            }
            match attach::carry_over(&page, directory, a.slot, a.id) {
                State::Live | State::Dest => {
                    // Counted twice for a moment rather than not at all.
                    if let Some(old) = old.as_ref().filter(|_| a.counted) {
                        attach::cancel(old, a.slot, a.id);
                    }
                    a.counted = true;
                }
                State::Free | State::Lost => {
                    attach::cancel(&page, a.slot, a.id);
                    a.counted = false;
                }
            }
        });
        self.page = Some(page);
        DIRECTORY.store(std::ptr::from_ref(directory).cast_mut(), Release);
    }

    /// From now on this process is the client that `vshmemd` has greeted so.
    fn is_client(&self, welcome: &Welcome) {
        if let Some(process) = self.process {
            process.is_client(Token::new(welcome.domid, welcome.serial), sys::own_pid());
        }
    }

    fn say_no_daemon(&self, why: &str) {
        let Some(config) = config() else { return };
        message::say_once(
            &SAID_NO_DAEMON,
            format_args!(
                "no vshmemd at {}/{}.sock: {why}; start one with: vshmem run --dir {} --domain {} -- COMMAND",
                config.dir.display(),
                config.domain,
                config.dir.display(),
                config.domain
            ),
        );
    }

    // Children of fork.

    /// If a child of `fork` is going to inherit attachments: has `vshmemd` make connection and
    /// page of the child that is about to be made. If that fails the child begins anew, as one
    /// that came about behind our back.
    pub fn prepare_child(&mut self) {
        if self.page.is_none() || !self.attachments.iter().any(|a| a.counted) {
            return;
        }
        if self.link.as_ref().is_none_or(|link| link.get().is_none()) && self.connect().is_err() {
            return;
        }
        let request = Request {
            op: Op::Fork as u32,
            ..Request::default()
        };
        if let Ok((reply @ Reply { errno: 0, .. }, [Some(link), Some(page), ..])) =
            self.exchange(&request, &PATIENCE)
        {
            self.child = Some((link, page, reply.body()));
        }
    }

    /// In the child: goes over to what [`Self::prepare_child`] got, or to nothing.
    pub fn become_child(&mut self) {
        self.leave_parent();
        let child = self.child.take().and_then(|(link, page, welcome)| {
            let page = PageMine::map(page.as_fd(), sys::own_pid()).ok()?;
            Some((OwnFd::new(link).ok()?, page, welcome))
        });
        if let Some((link, page, welcome)) = child {
            self.page = Some(page);
            self.link = Some(link);
            self.is_client(&welcome);
            let generation = self.generation;
            self.attachments
                .for_each(|a| a.counted = a.generation == generation);
        }
        inherit::make_up(self, Birth::Attended);
    }

    /// In a child that came about behind our back (a raw `clone`): begins anew.
    pub fn notice_fork(&mut self) {
        if self
            .process
            .is_some_and(|process| process.is_own.load(Relaxed) == 0)
        {
            self.leave_parent();
            inherit::make_up(self, Birth::Unattended);
        }
    }

    fn leave_parent(&mut self) {
        if let Some(page) = self.page.take() {
            page.forget();
        }
        self.link = None;
        self.bells.forget_in_child();
        self.attachments.for_each(|a| a.counted = false);
        if let Some(process) = self.process {
            process.is_nobody();
        }
    }

    /// Closes descriptors that can be had again, where the program has no number left. `false`
    /// if there is none whose number would help.
    pub fn free_a_number(&mut self) -> bool {
        // A program that has lowered the limit gets no number from what is above it.
        let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
        let limit = limit.current.unwrap_or(u64::MAX);
        let helps = |fd: &OwnFd| fd.get().is_some_and(|fd| (fd.as_raw_fd() as u64) < limit);
        let mut freed = self.regions.free_numbers(helps);
        if !freed && self.link.as_ref().is_some_and(helps) {
            self.link = None;
            freed = true;
        }
        freed
    }
}

/// Whether a request may go out before it is known that `vshmemd` is one to talk to: a get, which is
/// refused to those it has not welcomed, and of which the answer tells whether it has made
/// something that has to be taken back.
fn may_go_along(request: &Request) -> bool {
    let create = request.flags & libc::IPC_CREAT != 0;
    request.op == Op::Get as u32 && (!create || makes(request))
}

/// Whether a get that succeeds has made a construct.
fn makes(request: &Request) -> bool {
    const EXCLUSIVE: c_int = libc::IPC_CREAT | libc::IPC_EXCL;
    request.key == libc::IPC_PRIVATE || request.flags & EXCLUSIVE == EXCLUSIVE
}

/// Removes what `get` has made, whose answer is still to come: the call is going to fail.
fn take_back(link: BorrowedFd<'_>, get: &Request, spin: bool) {
    if let Ok((made, _)) = receive_on(link, spin, &PATIENCE)
        && made.errno == 0
    {
        let remove = Request {
            op: Op::Remove as u32,
            kind: get.kind,
            id: made.value,
            ..Request::default()
        };
        // If `vshmemd` is gone, so is what it has made.
        let _ = exchange_on(link, &remove, spin, &PATIENCE);
    }
}

fn exchange_on(
    link: BorrowedFd<'_>,
    request: &Request,
    spin: bool,
    patience: &Timespec,
) -> Result<(Reply, Fds), Broken> {
    send_on(link, request)?;
    receive_on(link, spin, patience)
}

fn send_on(link: BorrowedFd<'_>, request: &Request) -> Result<(), Broken> {
    let request = Request {
        version: ABI_VERSION,
        ..*request
    };
    let creds = UCred {
        pid: rustix::process::getpid(),
        uid: rustix::process::geteuid(),
        gid: rustix::process::getegid(),
    };
    channel::send(link, &request, &[], Some(creds), SendFlags::empty()).map_err(|_| Broken::Send)
}

fn receive_on(
    link: BorrowedFd<'_>,
    spin: bool,
    patience: &Timespec,
) -> Result<(Reply, Fds), Broken> {
    if spin {
        for _ in 0..SPINS {
            match channel::recv(link, RecvFlags::DONTWAIT) {
                Err(Errno::AGAIN) => std::hint::spin_loop(),
                answer => return answer.map_err(|_| Broken::Receive),
            }
        }
    }
    let mut wait = [PollFd::new(&link, PollFlags::IN)];
    match poll(&mut wait, Some(patience)) {
        Ok(1..) => channel::recv(link, RecvFlags::DONTWAIT).map_err(|_| Broken::Receive),
        _ => Err(Broken::Receive),
    }
}

fn why(error: Errno) -> &'static str {
    match error {
        Errno::NOENT => "there is no such socket",
        Errno::CONNREFUSED => "nobody listens on it",
        Errno::ACCESS => "permission denied",
        Errno::AGAIN => "it takes no more connections",
        _ => "it cannot be reached",
    }
}

fn more_than_one_cpu() -> bool {
    rustix::thread::sched_getaffinity(None).is_ok_and(|set| set.count() > 1)
}
