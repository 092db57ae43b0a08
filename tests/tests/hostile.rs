// SPDX-License-Identifier: MIT OR Apache-2.0
//! Local processes that do not keep to the protocol: noise on the sockets, with valid parts and
//! descriptors in it, and clients that misuse what they were given. Others do not notice.

use nix::errno::Errno;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType};
use std::fs::{File, OpenOptions};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;
use vshmem_abi::channel::{self, Fds};
use vshmem_abi::layout::{AttachEntry, ClientPage, Directory};
use vshmem_abi::link::{LinkMsg, LinkOp};
use vshmem_abi::wire::{Op, Reply, Request};
use vshmem_abi::{ABI_VERSION, Kind, perm};
use vshmem_tests::World;
use vshmem_tests::actor::Actor;
use vshmem_tests::program::{descriptors, is_root, segments};
use vshmem_tests::wait_until;
use zerocopy::{FromBytes, IntoBytes};

/// Numbers that look random and are the same in every run (xorshift64).
struct Random(u64);

impl Random {
    fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: usize) -> usize {
        (self.next() >> 16) as usize % limit
    }

    fn pick<T: Copy>(&mut self, from: &[T]) -> T {
        from[self.below(from.len())]
    }

    /// A number of the kind that finds forgotten checks.
    fn number(&mut self) -> u64 {
        let edge = [
            0,
            1,
            2,
            3,
            16,
            4095,
            4096,
            1 << 17,
            1 << 30,
            0x7fff_ffff,
            1 << 31,
            u64::MAX,
        ];
        match self.below(3) {
            0 => self.next(),
            1 => self.pick(&edge),
            _ => self.pick(&edge).wrapping_sub(1),
        }
    }

    fn bytes(&mut self, length: usize) -> Vec<u8> {
        (0..length).map(|_| self.next() as u8).collect()
    }
}

fn connect(socket: &Path) -> Option<OwnedFd> {
    let address = SocketAddrUnix::new(socket).expect("path");
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    let fd = rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None);
    let fd = fd.expect("socket");
    // A full queue is no failure of the one who is shouted at.
    rustix::net::connect(&fd, &address).ok()?;
    Some(fd)
}

/// Sends bytes, as one packet, with copies of `fd`; whether it is taken, nobody promised.
fn throw(socket: BorrowedFd<'_>, bytes: &[u8], fd: BorrowedFd<'_>, copies: usize) {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(16))];
    let mut control = rustix::net::SendAncillaryBuffer::new(&mut space);
    let fds = vec![fd; copies];
    if copies > 0 {
        assert!(control.push(rustix::net::SendAncillaryMessage::ScmRights(&fds)));
    }
    let _ = rustix::net::sendmsg(
        socket,
        &[std::io::IoSlice::new(bytes)],
        &mut control,
        SendFlags::NOSIGNAL | SendFlags::DONTWAIT,
    );
}

fn request(random: &mut Random) -> Request {
    let op = match random.below(4) {
        // Root may stop a daemon with this one, and the tests are root.
        0 => random.pick(&[0, 15, 16, 32, 33, 34, u32::MAX]),
        _ => 1 + random.below(13) as u32,
    };
    let any = random.number();
    Request {
        version: random.pick(&[ABI_VERSION, ABI_VERSION, ABI_VERSION, ABI_VERSION + 1, 0]),
        op,
        kind: random.pick(&[1, 1, 1, 2, 3, 0, 4, u32::MAX]),
        key: random.number() as i32,
        id: random.number() as i32,
        flags: random.pick(&[0, 0o600, 0o1600, 0o3600, 0o4600, -1, any as i32]),
        // Sizes within reason: a page of all of them would be much memory.
        size: random.number(),
        uid: random.number() as u32,
        gid: random.number() as u32,
        mode: random.number() as u32,
        arg: random.number() as u32,
        token: random.number(),
    }
}

fn link_message(random: &mut Random) -> LinkMsg {
    let mut message = LinkMsg::read_from_bytes(&random.bytes(size_of::<LinkMsg>())).expect("size");
    let any = random.number() as u32;
    message.version = random.pick(&[ABI_VERSION, ABI_VERSION, ABI_VERSION, 0]);
    message.op = random.pick(&[
        1,
        1,
        2,
        2,
        3,
        4,
        5,
        6,
        7,
        8,
        9,
        10,
        32,
        33,
        34,
        11,
        0,
        u32::MAX,
    ]);
    message.seq = random.pick(&[0, 1, 2, any]);
    message.domid = random.number() as u32;
    message.flags = random.pick(&[0, 0o1600, 0o3600, -1]);
    message.meta.kind = random.pick(&[Kind::Shm as u32, 2, 3, 0]);
    message.meta.key = random.number() as i32;
    message.meta.id = random.number() as i32;
    message.meta.size = random.number();
    message.ids = [(); 4].map(|()| random.number() as i32 | 1 << 30);
    if random.below(2) == 0 {
        message.name = [0; 32];
        let name = random.pick(&["a", "b", "rogue", "../x", "backend", ""]);
        message.name[..name.len()].copy_from_slice(name.as_bytes());
    }
    message
}

/// Noise of all kinds on a socket; `valid` makes a message of the right size, `hello` the first
/// message of a connection with that number.
fn make_noise(
    socket: &Path,
    random: &mut Random,
    packets: usize,
    hello: impl Fn(usize) -> Vec<u8>,
    valid: fn(&mut Random) -> Vec<u8>,
) {
    let file = File::open("/dev/null").expect("/dev/null");
    let (pipe, _end) = rustix::pipe::pipe().expect("pipe");
    let mut connections: Vec<Option<OwnedFd>> = (0..40).map(|_| None).collect();
    for packet in 0..packets {
        let place = random.below(connections.len());
        if connections[place].is_none() || random.below(8) == 0 {
            connections[place] = connect(socket);
            if let Some(new) = connections[place].as_ref().filter(|_| random.below(3) != 0) {
                throw(new.as_fd(), &hello(packet), file.as_fd(), 0);
            }
        }
        let Some(connection) = &connections[place] else {
            continue;
        };
        let length = random.below(4097);
        let mut bytes = match random.below(4) {
            0 => random.bytes(length),
            _ => valid(random),
        };
        match random.below(8) {
            0 => bytes.truncate(random.below(bytes.len() + 1)),
            1 => bytes.extend(random.bytes(8)),
            2 => {
                for _ in 0..4 {
                    let at = random.below(bytes.len().max(1));
                    if let Some(byte) = bytes.get_mut(at) {
                        *byte = random.next() as u8;
                    }
                }
                // A mutation is not to become the one request that stops the daemon.
                if bytes.get(4..8) == Some(&(Op::Shutdown as u32).to_ne_bytes()) {
                    bytes[4] = 0;
                }
            }
            _ => {}
        }
        let copies = random.pick(&[0, 0, 0, 1, 4, 5, 16]);
        let sent = random.pick(&[file.as_fd(), pipe.as_fd(), connection.as_fd()]);
        // Many at once fill the queue for the answers, which are mostly not read.
        let times = random.pick(&[1, 1, 1, 1, 1, 1, 1, 300]);
        for _ in 0..times {
            throw(connection.as_fd(), &bytes, sent, copies);
        }
        if random.below(4) == 0 {
            let mut buffer = [0; 256];
            let _ = rustix::net::recv(connection, &mut buffer, RecvFlags::DONTWAIT);
        }
        if random.below(32) == 0 {
            let _ = rustix::net::shutdown(connection, rustix::net::Shutdown::Write);
        }
    }
}

fn names(world: &World) -> [i32; 3] {
    ["a", "b", "backend"].map(|name| world.pid(name))
}

/// A new client in each of two domains does all of it, and nothing is left of the noise. Returns
/// how many descriptors the daemons have open, which is not more than before.
fn all_is_well(world: &World, pids: [i32; 3], before: [usize; 3]) -> [usize; 3] {
    assert_eq!(names(world), pids);
    let (mut a, mut b) = (Actor::of(world, "a"), Actor::of(world, "b"));
    assert_eq!(names(world), pids, "the daemons were started anew");
    for segment in segments(world, "a") {
        a.ok(&format!("rm {}", segment.id));
    }
    let id = a.make(0x601, 4096);
    a.ok(&format!("at {id} 0"));
    b.ok(&format!("at {id} 0"));
    a.ok("poke 0 0 5");
    assert_eq!(b.ok("peek 0 0"), 5);
    assert_eq!((a.nattch(id), b.nattch(id)), (2, 2));
    a.ok(&format!("rm {id}"));
    a.kill();
    b.kill();
    assert_eq!(segments(world, "b"), []);
    let mut open = [0; 3];
    wait_until("descriptors are not more than before", || {
        open = pids.map(|pid| descriptors(pid).len());
        open.iter().zip(before).all(|(now, before)| *now <= before)
    });
    open
}

#[test]
fn noise_on_a_domains_socket_disturbs_nobody() {
    let world = World::new();
    world.up("a");
    world.up("b");
    let pids = names(&world);
    let mut open = pids.map(|pid| descriptors(pid).len());
    let socket = world.dir().join("a.sock");
    let hello = Request {
        version: ABI_VERSION,
        op: Op::Hello as u32,
        arg: std::process::id(),
        ..Request::default()
    };
    for seed in 1..=4 {
        let mut random = Random::new(seed);
        make_noise(
            &socket,
            &mut random,
            1500,
            |_| hello.as_bytes().to_vec(),
            |random| request(random).as_bytes().to_vec(),
        );
        open = all_is_well(&world, pids, open);
    }
}

#[test]
fn noise_on_the_back_ends_socket_disturbs_nobody() {
    let world = World::new();
    world.up("a");
    world.up("b");
    let pids = names(&world);
    let mut open = pids.map(|pid| descriptors(pid).len());
    let socket = world.dir().join("backend.sock");
    let hello = |number: usize| {
        let mut hello = LinkMsg::new(LinkOp::Enrol);
        let name = format!("rogue{number}");
        hello.name[..name.len()].copy_from_slice(name.as_bytes());
        hello.as_bytes().to_vec()
    };
    for seed in 1..=4 {
        let mut random = Random::new(seed);
        make_noise(&socket, &mut random, 1500, hello, |random| {
            link_message(random).as_bytes().to_vec()
        });
        open = all_is_well(&world, pids, open);
    }
}

/// A client that speaks the protocol itself.
struct Rogue {
    socket: OwnedFd,
}

impl Rogue {
    /// Connects and says hello; the descriptors are the directory's and the client page's.
    fn new(world: &World, domain: &str) -> (Self, File, File) {
        let socket = connect(&world.dir().join(format!("{domain}.sock"))).expect("connect");
        rustix::io::ioctl_fionbio(&socket, false).expect("blocking");
        let rogue = Self { socket };
        let (reply, fds) = rogue.ask(Request {
            op: Op::Hello as u32,
            arg: std::process::id(),
            ..Request::default()
        });
        assert_eq!(reply.errno, 0);
        let [Some(directory), Some(page), ..] = fds else {
            panic!("no descriptors")
        };
        (rogue, directory.into(), page.into())
    }

    fn ask(&self, request: Request) -> (Reply, Fds) {
        let request = Request {
            version: ABI_VERSION,
            ..request
        };
        let creds = rustix::net::UCred {
            pid: rustix::process::getpid(),
            uid: rustix::process::geteuid(),
            gid: rustix::process::getegid(),
        };
        let socket = self.socket.as_fd();
        channel::send(socket, &request, &[], Some(creds), SendFlags::empty()).expect("send");
        channel::recv(socket, RecvFlags::empty()).expect("recv")
    }
}

/// The file opened anew, by number, for reading and writing.
fn reopen(file: &File) -> std::io::Result<File> {
    let path = format!("/proc/self/fd/{}", file.as_raw_fd());
    OpenOptions::new().read(true).write(true).open(path)
}

#[test]
fn nobody_but_the_daemon_writes_the_directory() {
    let world = World::new();
    let mut a = Actor::of(&world, "a");
    let id = a.make(0x610, 4096);
    let (_rogue, directory, page) = Rogue::new(&world, "a");
    let length = directory.metadata().expect("stat").len();
    assert!(length >= size_of::<Directory>() as u64, "{length}");
    let mut files = vec![directory];
    files.extend(reopen(&files[0]));
    for file in &files {
        file.write_at(b"x", 0)
            .expect_err("a write into the directory");
        file.set_len(0).expect_err("a directory made shorter");
        // SAFETY: a new mapping at an address of the kernel's choice, which is not used.
        let map = unsafe {
            rustix::mm::mmap(
                std::ptr::null_mut(),
                4096,
                rustix::mm::ProtFlags::READ | rustix::mm::ProtFlags::WRITE,
                rustix::mm::MapFlags::SHARED,
                file,
                0,
            )
        };
        map.expect_err("a writable mapping of the directory");
    }
    // The page is the client's to write, but not to make shorter under the daemon.
    for length in [0, 4096, size_of::<ClientPage>() as u64 + 4096] {
        page.set_len(length).expect_err("another length");
    }
    assert_eq!(a.nattch(id), 0);
}

#[test]
fn a_client_that_fills_its_page_with_lies_disturbs_nobody_and_is_forgotten() {
    let world = World::new();
    let (mut a, mut b) = (Actor::of(&world, "a"), Actor::of(&world, "b"));
    let id = a.make(0x620, 4096);
    a.ok(&format!("at {id} 0"));
    assert_eq!(b.nattch(id), 1);
    let pid = world.pid("a");
    let before = descriptors(pid).len();
    for seal in [false, true] {
        let (rogue, _directory, page) = Rogue::new(&world, "a");
        let entry = |id: i32, count: u32| {
            let mut bytes = [0xffu8; size_of::<AttachEntry>()];
            bytes[..4].copy_from_slice(&id.to_ne_bytes());
            bytes[4..8].copy_from_slice(&count.to_ne_bytes());
            bytes
        };
        // High-water mark and number of the client, then attachments of everything there is.
        page.write_at(&[0xff; 48], 16).expect("write");
        let lies = entry(id as i32, u32::MAX).repeat(4096);
        page.write_at(&lies, 64).expect("write");
        for actor in [&mut a, &mut b] {
            assert!(actor.nattch(id) >= 1);
        }
        page.write_at(&entry(id as i32, 5).repeat(4096), 64)
            .expect("write");
        // What seals a client may add, the daemon has to live with.
        if seal {
            let _ = rustix::fs::fcntl_add_seals(&page, rustix::fs::SealFlags::SEAL);
        }
        for actor in [&mut a, &mut b] {
            assert!(actor.nattch(id) >= 1);
            actor.ok("list");
        }
        drop((rogue, page));
        wait_until("the lies are forgotten", || a.nattch(id) == 1);
        assert_eq!(b.nattch(id), 1);
    }
    assert_eq!(world.pid("a"), pid);
    wait_until("descriptors are as before", || {
        descriptors(pid).len() <= before
    });
}

#[test]
fn what_was_opened_for_reading_cannot_be_written_by_another_way() {
    if !is_root() {
        return;
    }
    const NOBODY: u32 = 65534;
    let world = World::new();
    std::fs::set_permissions(world.dir(), std::fs::Permissions::from_mode(0o755)).expect("chmod");
    world.up("b");
    let mut a = Actor::of(&world, "a");
    let id = a.make(0x630, 4096);
    a.ok(&format!("at {id} 0"));
    a.ok(&format!("set {id} 0 0644"));
    for domain in ["a", "b"] {
        let dir = &world;
        std::thread::scope(|scope| {
            let thread = scope.spawn(move || {
                // These change the calling thread alone.
                let gid = rustix::fs::Gid::from_raw(NOBODY);
                rustix::thread::set_thread_groups(&[]).expect("groups");
                rustix::thread::set_thread_res_gid(gid, gid, gid).expect("gid");
                let uid = rustix::fs::Uid::from_raw(NOBODY);
                rustix::thread::set_thread_res_uid(uid, uid, uid).expect("uid");
                let (rogue, ..) = Rogue::new(dir, domain);
                let open = |flags: u32| {
                    rogue.ask(Request {
                        op: Op::Open as u32,
                        kind: Kind::Shm as u32,
                        id: id as i32,
                        flags: flags as i32,
                        ..Request::default()
                    })
                };
                let (reply, fds) = open(perm::READ | perm::WRITE);
                assert_eq!(reply.errno, libc::EACCES);
                assert!(fds.iter().all(Option::is_none));
                let (reply, [Some(region), ..]) = open(perm::READ) else {
                    panic!("no descriptor")
                };
                assert_eq!(reply.errno, 0);
                let region = File::from(region);
                region.write_at(b"x", 0).expect_err("a write");
                region.set_len(0).expect_err("another length");
                rustix::fs::fchmod(&region, 0o777.into()).expect_err("another mode");
                if let Ok(again) = reopen(&region) {
                    again
                        .write_at(b"x", 0)
                        .expect_err("a write through a second opening");
                }
            });
            thread.join().expect("the other user's thread");
        });
    }
    assert_eq!(a.ok("peek 0 0"), 0);
    assert_eq!(a.call("peek 0 1"), Ok(0));
}

#[test]
fn a_client_that_forks_without_end_is_stopped_or_borne() {
    let world = World::new();
    let mut a = Actor::of(&world, "a");
    let id = a.make(0x640, 4096);
    let pid = world.pid("a");
    let before = descriptors(pid).len();
    let (rogue, ..) = Rogue::new(&world, "a");
    let mut kept = Vec::new();
    for _ in 0..3000 {
        let (reply, fds) = rogue.ask(Request {
            op: Op::Fork as u32,
            ..Request::default()
        });
        // At some number the daemon may have enough of it; the test keeps some of what it gets.
        if kept.len() < 200 {
            kept.push(fds);
        }
        assert!(
            [0, libc::EMFILE, libc::ENFILE, libc::ENOMEM, libc::EAGAIN].contains(&reply.errno),
            "{}",
            Errno::from_raw(reply.errno)
        );
    }
    a.ok(&format!("at {id} 0"));
    assert_eq!(a.nattch(id), 1);
    drop(kept);
    drop(rogue);
    wait_until("descriptors are as before", || {
        descriptors(pid).len() <= before
    });
    assert_eq!(Actor::of(&world, "a").nattch(id), 1);
    assert_eq!(world.pid("a"), pid);
}
