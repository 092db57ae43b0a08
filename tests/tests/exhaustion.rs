// SPDX-License-Identifier: MIT OR Apache-2.0
//! Everything that can be used up: segments, descriptors, connections, memory, the disk. The
//! calls say so with an errno, nobody dies, nothing is lost, and it passes.

use nix::errno::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use std::fs::File;
use std::io::Write;
use std::os::fd::OwnedFd;
use std::path::PathBuf;
use std::process::Command;
use vshmem_tests::actor::Actor;
use vshmem_tests::program::{descriptors, is_root, run_to_end, segments};
use vshmem_tests::{World, cc, succeed, wait_until};

/// A number from `/proc/PID/status`, in its unit (KiB for memory).
fn status(pid: i32, what: &str) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/status")).expect("status");
    let line = text.lines().find(|line| line.starts_with(what));
    let number = line.and_then(|line| line.split_whitespace().nth(1));
    number.and_then(|n| n.parse().ok()).expect("a number")
}

fn open_descriptors(world: &World) -> [usize; 3] {
    ["a", "b", "backend"].map(|name| descriptors(world.pid(name)).len())
}

#[test]
fn as_many_segments_as_the_kernel_allows_and_not_one_more() {
    let text = std::fs::read_to_string("/proc/sys/kernel/shmmni").expect("shmmni");
    let most: i64 = text.trim().parse().expect("a number");
    if most > 5000 {
        // More than the actor remembers: the machine's owner has changed the setting.
        assert!(
            std::env::var_os("CI").is_none(),
            "skipped: SHMMNI is {most}"
        );
        eprintln!("skipped: SHMMNI is {most}");
        return;
    }
    let world = World::new();
    // The limit of descriptors that a login gives: the daemons have to cope with it.
    for domain in ["a", "b"] {
        let run = world.run(domain, "all", "true");
        let mut limited = Command::new("sh");
        limited
            .args(["-c", "ulimit -S -n 1024; exec \"$@\"", "sh"])
            .arg(run.get_program())
            .args(run.get_args())
            .env("VSHMEM_DIR", world.dir());
        succeed(limited);
    }
    let (mut a, mut b) = (Actor::of(&world, "a"), Actor::of(&world, "b"));
    a.make(1, 4096);
    a.ok("get 1 0 0");
    let first = a.ok("get 1 0 0");
    a.ok(&format!("rm {first}"));
    b.call("get 1 0 0").expect_err("removed");
    let before = open_descriptors(&world);
    let mut memory = [0; 2];
    for sum in &mut memory {
        let made = a.ask("many 0x1000 8000").expect("many");
        assert_eq!(made, [i64::from(libc::ENOSPC), most]);
        assert_eq!(b.call("get 0x501 4096 01600"), Err(Errno::ENOSPC));
        assert_eq!(a.ok("list"), most);
        let list = segments(&world, "b");
        assert_eq!(list.len() as i64, most);
        for n in (0..most).step_by(most as usize / 50) {
            let id = b.ok(&format!("get {} 4096 0600", 0x1000 + n));
            let (at_b, at_a) = (b.ok(&format!("at {id} 0")), a.ok(&format!("at {id} 0")));
            b.ok(&format!("poke {at_b} 0 {}", n % 100));
            assert_eq!(a.ok(&format!("peek {at_a} 0")), n % 100);
            assert_eq!(a.nattch(id), 2);
            b.ok(&format!("dt {at_b}"));
            a.ok(&format!("dt {at_a}"));
        }
        // One less, one more.
        let id = a.ok("get 0x1000 0 0");
        a.ok(&format!("rm {id}"));
        let id = b.make(0x1000, 4096);
        assert_eq!(a.call("get 0x501 4096 01600"), Err(Errno::ENOSPC));
        b.ok(&format!("rm {id}"));
        assert_eq!(a.ok("drop"), most - 1);
        assert_eq!(segments(&world, "a"), []);
        wait_until("the descriptors are closed", || {
            let now = open_descriptors(&world);
            now.iter().zip(before).all(|(now, before)| *now <= before)
        });
        *sum = ["a", "b", "backend"]
            .iter()
            .map(|name| status(world.pid(name), "VmRSS"))
            .sum();
    }
    // What the first round needed is used again by the second.
    assert!(memory[1] <= memory[0] + 1024, "KiB in memory: {memory:?}");
}

/// Sets a soft limit of a daemon: `nofile` or `as`.
fn limit(world: &World, name: &str, what: &str, soft: &str) {
    let mut command = Command::new("prlimit");
    command.args(["--pid", &world.pid(name).to_string()]);
    command.arg(format!("--{what}={soft}:"));
    succeed(command);
}

fn is_out_of_something(errno: Errno) -> bool {
    matches!(errno, Errno::EMFILE | Errno::ENFILE | Errno::ENOMEM)
}

#[test]
fn a_daemon_without_descriptors_says_so_and_recovers() {
    let world = World::new();
    let (mut a, mut b) = (Actor::of(&world, "a"), Actor::of(&world, "b"));
    let id = a.make(0x510, 4096);
    a.ok(&format!("at {id} 0"));
    b.ok(&format!("at {id} 0"));
    let pid = world.pid("a");
    let before = descriptors(pid).len();
    limit(&world, "a", "nofile", &(before + 4).to_string());
    let failed = a.ask("many 0x2000 100").expect("many");
    let errno = Errno::from_raw(failed[0] as i32);
    assert!(is_out_of_something(errno) && failed[1] < 5, "{failed:?}");
    // Newcomers are told, and those who are there go on.
    let mut late = Actor::of(&world, "a");
    for _ in 0..20 {
        let refused = late.call("get 0x511 4096 01600").expect_err("no room");
        assert!(
            is_out_of_something(refused) || refused == Errno::ENODEV,
            "{refused}"
        );
    }
    assert_eq!((a.nattch(id), b.nattch(id)), (2, 2));
    a.ok("poke 0 0 1");
    assert_eq!(a.ok("drop"), failed[1]);

    limit(&world, "a", "nofile", "1024");
    let made = late.make(0x511, 4096);
    late.ok(&format!("at {made} 0"));
    assert_eq!((a.nattch(made), b.nattch(made)), (1, 1));
    late.ok(&format!("rm {made}"));
    late.kill();
    wait_until("descriptors are as before", || {
        descriptors(pid).len() <= before
    });
    assert_eq!(world.pid("a"), pid);
}

#[test]
fn a_back_end_without_descriptors_says_so_and_recovers() {
    let world = World::new();
    let (mut a, mut b) = (Actor::of(&world, "a"), Actor::of(&world, "b"));
    a.make(0x520, 4096);
    let pid = world.pid("backend");
    limit(
        &world,
        "backend",
        "nofile",
        &descriptors(pid).len().to_string(),
    );
    // Whether this much needs one there is the back-end's affair; an errno is all it may cost.
    for key in 0x521..0x525 {
        match a.call(&format!("get {key} 4096 03600")) {
            Ok(id) => match b.call(&format!("at {id} 0")) {
                Ok(_) => {}
                Err(errno) => assert!(is_out_of_something(errno), "{errno}"),
            },
            Err(errno) => assert!(is_out_of_something(errno), "{errno}"),
        }
    }
    let ended = run_to_end(world.run("c", "all", "true"));
    assert!(
        ended.status.success() || !ended.stderr.is_empty(),
        "{ended:?}"
    );
    limit(&world, "backend", "nofile", "1024");
    let mut c = Actor::of(&world, "c");
    let id = c.make(0x526, 4096);
    for actor in [&mut a, &mut b] {
        actor.ok(&format!("at {id} 0"));
    }
    assert_eq!(c.nattch(id), 2);
    assert_eq!(world.pid("backend"), pid);
}

#[test]
fn a_daemon_without_memory_says_so_and_recovers() {
    let world = World::new();
    let (mut a, mut b) = (Actor::of(&world, "a"), Actor::of(&world, "b"));
    let id = a.make(0x530, 4096);
    a.ok(&format!("at {id} 0"));
    b.ok(&format!("at {id} 0"));
    let pid = world.pid("a");
    limit(
        &world,
        "a",
        "as",
        &(status(pid, "VmSize") * 1024).to_string(),
    );
    let mut newcomers: Vec<_> = (0..4).map(|_| Actor::of(&world, "a")).collect();
    for late in &mut newcomers {
        if let Err(refused) = late.call("get 0x531 4096 01600") {
            assert!(is_out_of_something(refused), "{refused}");
        }
    }
    let made = a.ask("many 0x3000 1000").expect("many");
    if made[0] != 0 {
        assert!(
            is_out_of_something(Errno::from_raw(made[0] as i32)),
            "{made:?}"
        );
    }
    assert_eq!((a.nattch(id), b.nattch(id)), (2, 2));
    assert_eq!(a.ok("drop"), made[1]);
    limit(&world, "a", "as", "unlimited");
    for late in &mut newcomers {
        let id = late.ok("get 0x531 4096 01600");
        late.ok(&format!("at {id} 0"));
    }
    let found = b.ok("get 0x531 0 0");
    assert_eq!(b.nattch(found), 4);
    assert_eq!(world.pid("a"), pid);
}

#[test]
fn what_a_program_makes_that_cannot_take_up_its_connection_is_not_left_behind() {
    let world = World::new();
    let mut b = Actor::of(&world, "b");
    b.make(0x560, 4096);
    let mut a = Actor::of(&world, "a");
    // One number for the connection, and one more: not enough for what comes with the welcome.
    a.ok("limit files 5");
    for get in ["get 0x561 4096 03600", "get 0 4096 0600", "get 0x560 0 0"] {
        assert_eq!(a.call(get), Err(Errno::EMFILE), "{get}");
    }
    assert_eq!(b.ok("list"), 1);
    a.ok("limit files -1");
    let id = a.ok("get 0x561 4096 03600");
    assert_eq!(b.ok("get 0x561 0 0"), id);
}

#[test]
fn sizes_that_no_machine_has_are_refused_as_the_kernel_refuses_them() {
    let world = World::new();
    let mut routed = Actor::of(&world, "a");
    let mut native = Actor::start(vshmem_tests::program::native(&cc("actor")));
    for actor in [&mut native, &mut routed] {
        let id = actor.make(0x540, 4096);
        actor.ok(&format!("at {id} 0"));
    }
    for size in [
        "0x40000000000000",
        "0x100000000000",
        "-1",
        "-4096",
        "-16777217",
        "0",
    ] {
        let get = format!("get 0x541 {size} 01600");
        let refused = native.call(&get).expect_err("refused natively");
        assert_eq!(routed.call(&get), Err(refused), "{size}");
    }
    let id = routed.ok("get 0x540 0 0");
    assert_eq!(routed.nattch(id), 1);
}

#[test]
fn a_program_without_address_space_gets_enomem_as_from_the_kernel() {
    let world = World::new();
    world.up("a");
    let native = vshmem_tests::program::native(&cc("actor"));
    let routed = world.run("a", "all,private", cc("actor"));
    for command in [native, routed] {
        let mut actor = Actor::start(command);
        let id = actor.make(0x550, 1 << 30);
        let size = status(actor.pid(), "VmSize") * 1024;
        actor.ok(&format!("limit memory {}", size + (1 << 20)));
        for _ in 0..20 {
            assert_eq!(actor.call(&format!("at {id} 0")), Err(Errno::ENOMEM));
        }
        assert_eq!(actor.nattch(id), 0);
        actor.ok("limit memory -1");
        let n = actor.ok(&format!("at {id} 0"));
        actor.ok(&format!("poke {n} 1000000 1"));
        assert_eq!(actor.nattch(id), 1);
        actor.ok(&format!("dt {n}"));
        actor.ok(&format!("rm {id}"));
    }
}

/// A small disk on the directory of a world; what runs there is stopped when it goes.
struct SmallDisk(PathBuf);

impl SmallDisk {
    fn new(world: &World) -> Self {
        let mut mount = Command::new("mount");
        mount.args(["-t", "tmpfs", "-o", "size=64k,mode=0700", "vshmem-test"]);
        mount.arg(world.dir());
        succeed(mount);
        Self(world.dir().to_owned())
    }

    /// Writes until there is no room left.
    fn fill(&self) {
        let mut file = File::create(self.0.join("full")).expect("file");
        while file.write_all(&[0; 512]).is_ok() {}
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let mut down = Command::new(vshmem_tests::bin("vshmem"));
        down.args(["down", "--all", "--force"]);
        let _ = down.env("VSHMEM_DIR", &self.0).output();
        let _ = Command::new("umount")
            .args(["--lazy"])
            .arg(&self.0)
            .output();
    }
}

#[test]
fn with_the_disk_full_daemons_go_on_serving() {
    if !is_root() {
        return;
    }
    let world = World::new();
    let disk = SmallDisk::new(&world);
    let (mut a, mut b) = (Actor::of(&world, "a"), Actor::of(&world, "b"));
    let id = a.make(0x560, 4096);
    assert_eq!(b.ok("get 0x560 0 0"), id);
    disk.fill();
    b.ok(&format!("at {id} 0"));
    let mut late = Actor::of(&world, "a");
    let next = late.make(0x561, 100_000);
    let n = late.ok(&format!("at {next} 0"));
    late.ok(&format!("poke {n} 99999 1"));
    assert_eq!(b.ok("get 0x561 0 0"), next);
    assert_eq!((a.nattch(id), a.nattch(next)), (1, 1));
    late.kill();
    // Something to log: a daemon that dies.
    world.kill_and_wait("b");
    wait_until("the death of the domain is known", || a.nattch(id) == 0);
    // A domain that cannot be started is told why; one that can, works.
    let ended = run_to_end(world.run("c", "all", "true"));
    assert!(
        ended.status.success() || ended.stderr.contains("no space left"),
        "{ended:?}"
    );
    std::fs::remove_file(disk.0.join("full")).expect("rm");
    let mut c = Actor::of(&world, "c");
    assert_eq!(c.ok("get 0x560 0 0"), id);
    c.ok(&format!("at {id} 0"));
    assert_eq!(a.nattch(id), 1);
}

#[test]
fn a_world_on_a_full_disk_is_refused_with_the_reason() {
    if !is_root() {
        return;
    }
    let world = World::new();
    let disk = SmallDisk::new(&world);
    disk.fill();
    let ended = run_to_end(world.run("a", "all", "true"));
    assert!(!ended.status.success(), "{ended:?}");
    assert!(ended.stderr.contains("no space left"), "{ended:?}");
    std::fs::remove_file(disk.0.join("full")).expect("rm");
    Actor::of(&world, "a").make(0x570, 4096);
}

/// Connections that never say anything.
fn silent(world: &World, count: usize) -> Vec<OwnedFd> {
    use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType};
    let address = SocketAddrUnix::new(world.dir().join("a.sock")).expect("path");
    let connect = || {
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket =
            rustix::net::socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)
                .expect("socket");
        wait_until("the connection is queued", || {
            match rustix::net::connect(&socket, &address) {
                Ok(()) => true,
                // The queue of those who wait to be accepted is full for the moment.
                Err(rustix::io::Errno::AGAIN) => false,
                Err(errno) => panic!("connect: {errno}"),
            }
        });
        socket
    };
    (0..count).map(|_| connect()).collect()
}

#[test]
fn clients_that_connect_and_say_nothing_take_nothing_from_others() {
    let maximum = getrlimit(Resource::Nofile).maximum;
    let all = Rlimit {
        current: maximum,
        maximum,
    };
    setrlimit(Resource::Nofile, all).expect("setrlimit");
    let world = World::new();
    let mut a = Actor::of(&world, "a");
    let id = a.make(0x580, 4096);
    let pid = world.pid("a");
    let before = descriptors(pid).len();
    for count in [1, 2000] {
        let connections = silent(&world, count);
        a.ok(&format!("at {id} 0"));
        let mut late = Actor::of(&world, "a");
        late.ok(&format!("at {id} 0"));
        assert_eq!((a.nattch(id), late.nattch(id)), (2, 2));
        late.make(0x581, 4096);
        let made = a.ok("get 0x581 0 0");
        a.ok(&format!("rm {made}"));
        late.kill();
        assert_eq!(a.nattch(id), 1);
        a.ok("dt 0");
        let n = a.ok(&format!("at {id} 0"));
        a.ok(&format!("dt {n}"));
        drop(connections);
        wait_until("descriptors are as before", || {
            descriptors(pid).len() <= before
        });
    }
    assert_eq!(world.pid("a"), pid);
}
