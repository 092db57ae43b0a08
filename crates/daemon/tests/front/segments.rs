// SPDX-License-Identifier: MIT OR Apache-2.0
//! Segments over two domains: making, finding, opening, counting, removing.

use crate::world::{Client, World, map, request, wait_until};
use rustix::io::{pread, pwrite};
use rustix::process::{Pid, Signal, WaitOptions, kill_process, waitpid};
use std::os::fd::AsFd;
use vshmem_abi::wire::{MODE_LOCKED, Meta, Op, Request, STAT_ANY, STAT_INDEX, Stat, State, Totals};
use vshmem_engine::client_page::PageMine;

const KEY: i32 = 0x5600_0001;
const CREAT: i32 = libc::IPC_CREAT;
const EXCL: i32 = libc::IPC_CREAT | libc::IPC_EXCL;
/// A user that is not the one the tests run as.
const USER: u32 = 4711;

/// Whether requests can be sent as other users; as root they can, and CI is root.
fn may_become_others() -> bool {
    let root = rustix::process::geteuid().is_root();
    assert!(
        root || std::env::var_os("CI").is_none(),
        "CI has to be root"
    );
    root
}

#[test]
fn a_segment_made_in_one_domain_is_found_in_another_with_the_same_bytes() {
    let world = World::new();
    let (_a, _b) = (world.domain("a"), world.domain("b"));
    let (a, b) = (world.client("a"), world.client("b"));
    let (made, region) = a.get(KEY, 5000, CREAT | 0o640).unwrap();
    let region = region.expect("the region of a segment just made");
    assert!(vshmem_abi::ids::may_be_routed(made.id));
    assert_eq!((made.size, made.mode, made.key), (5000, 0o640, KEY));
    assert_eq!(made.cpid, std::process::id() as i32);
    pwrite(&region, b"from a", 4096).unwrap();

    let (found, none) = b.get(KEY, 0, 0).unwrap();
    assert_eq!((found.id, found.owner), (made.id, a.welcome.domid));
    assert!(none.is_none());
    assert!(b.directory_has(KEY), "the next get asks nobody");
    let mapped = b.open(made.id, 0o600).unwrap();
    let mut seen = [0; 6];
    pread(&mapped, &mut seen, 4096).unwrap();
    assert_eq!(&seen, b"from a");
    pwrite(&mapped, b"from b", 0).unwrap();
    pread(&region, &mut seen, 0).unwrap();
    assert_eq!(&seen, b"from b");
}

#[test]
fn a_descriptor_opened_for_reading_does_not_write() {
    let world = World::new();
    let _a = world.domain("a");
    let a = world.client("a");
    let (made, _) = a.get(KEY, 1, CREAT | 0o600).unwrap();
    let reading = a.open(made.id, 0o400).unwrap();
    assert_eq!(pwrite(&reading, b"x", 0), Err(rustix::io::Errno::BADF));
}

#[test]
fn a_get_answers_in_the_kernels_order() {
    let world = World::new();
    let (_a, _b) = (world.domain("a"), world.domain("b"));
    let (a, b) = (world.client("a"), world.client("b"));
    let errno = |client: &Client, key, size, flags| client.get(key, size, flags).unwrap_err();
    assert_eq!(errno(&a, KEY, 1, 0o600), libc::ENOENT);
    assert_eq!(errno(&a, KEY, 0, CREAT | 0o600), libc::EINVAL);
    assert_eq!(errno(&a, KEY, u64::MAX, CREAT | 0o600), libc::EINVAL);
    // More than the machine has, and less than SHMMAX and any file's limit.
    assert_eq!(errno(&a, KEY, 1 << 62, CREAT | 0o600), libc::ENOMEM);
    let (made, _) = a.get(KEY, 100, EXCL | 0o600).unwrap();
    for client in [&b, &a] {
        assert_eq!(errno(client, KEY, 1000, EXCL), libc::EEXIST);
        assert_eq!(errno(client, KEY, 101, CREAT), libc::EINVAL);
        // Nothing is made, so a size of 0 and a size without end are both fine or too large.
        assert_eq!(client.get(KEY, 0, CREAT).unwrap().0.id, made.id);
        assert_eq!(errno(client, KEY, u64::MAX, CREAT), libc::EINVAL);
    }
}

#[test]
fn private_segments_are_all_different_and_found_by_no_key() {
    let world = World::new();
    let _a = world.domain("a");
    let a = world.client("a");
    let (one, _) = a.get(libc::IPC_PRIVATE, 1, 0o600).unwrap();
    let (two, _) = a.get(libc::IPC_PRIVATE, 1, 0o600).unwrap();
    assert_ne!(one.id, two.id);
    assert!(!a.directory_has(libc::IPC_PRIVATE));
}

#[test]
fn mode_owner_and_group_are_checked_by_the_ids_of_each_request() {
    if !may_become_others() {
        return;
    }
    let world = World::new();
    let _a = world.domain("a");
    let (root, mut user) = (world.client("a"), world.client("a"));
    user.become_user(USER);
    let (made, _) = root.get(KEY, 1, CREAT | 0o640).unwrap();
    assert_eq!(user.get(KEY, 1, 0o400).unwrap_err(), libc::EACCES);
    assert_eq!(user.get(KEY, 1, 0).unwrap().0.id, made.id);
    assert_eq!(user.open(made.id, 0o400).unwrap_err(), libc::EACCES);
    assert_eq!(user.stat(made.id).unwrap_err(), libc::EACCES);
    assert_eq!(user.about(Op::Remove, made.id).unwrap_err(), libc::EPERM);
    let lock = |arg, size| Request {
        id: made.id,
        arg,
        size,
        ..request(Op::Lock)
    };
    assert_eq!(user.ask(lock(1, u64::MAX)).unwrap_err(), libc::EPERM);

    let set = |uid, mode| Request {
        id: made.id,
        uid,
        gid: USER,
        mode,
        ..request(Op::Set)
    };
    assert_eq!(user.ask(set(USER, 0o600)).unwrap_err(), libc::EPERM);
    assert_eq!(root.ask(set(u32::MAX, 0o600)).unwrap_err(), libc::EINVAL);
    root.ask(set(0, 0o7640)).unwrap();
    assert_eq!(root.stat(made.id).unwrap().meta.mode, 0o640);
    user.open(made.id, 0o400).expect("by the group");
    assert_eq!(user.open(made.id, 0o600).unwrap_err(), libc::EACCES);
    root.ask(set(USER, 0o400)).unwrap();
    assert_eq!(user.open(made.id, 0o600).unwrap_err(), libc::EACCES);

    // An owner locks within its limit; a second lock of a locked one takes nothing more.
    assert_eq!(user.ask(lock(1, 0)).unwrap_err(), libc::EPERM);
    assert_eq!(user.ask(lock(1, 4095)).unwrap_err(), libc::ENOMEM);
    let before = user.stat(made.id).unwrap().meta;
    user.ask(lock(1, 4096)).unwrap();
    user.ask(lock(1, 1)).unwrap();
    let locked = user.stat(made.id).unwrap().meta;
    assert_eq!(locked.mode, before.mode | MODE_LOCKED);
    user.ask(lock(0, 0)).unwrap();
    assert_eq!(user.stat(made.id).unwrap().meta.mode, before.mode);
    user.about(Op::Remove, made.id).expect("by its owner");
}

#[test]
fn a_change_in_one_domain_is_seen_in_the_others_at_once() {
    let world = World::new();
    let (_a, _b) = (world.domain("a"), world.domain("b"));
    let (a, b) = (world.client("a"), world.client("b"));
    let (made, _) = a.get(KEY, 1, CREAT | 0o600).unwrap();
    b.get(KEY, 1, 0).unwrap();
    b.ask(Request {
        id: made.id,
        uid: 5,
        gid: 6,
        mode: 0o444,
        ..request(Op::Set)
    })
    .unwrap();
    let seen = a.about(Op::Find, made.id).unwrap().body::<Meta>();
    assert_eq!((seen.uid, seen.gid, seen.mode), (5, 6, 0o444));
    assert_eq!((seen.cuid, seen.cgid), (made.cuid, made.cgid));
}

#[test]
fn a_removed_segment_without_attachments_is_gone_in_all_domains() {
    let world = World::new();
    let (_a, _b) = (world.domain("a"), world.domain("b"));
    let (a, b) = (world.client("a"), world.client("b"));
    let (made, region) = a.get(KEY, 8192, CREAT | 0o600).unwrap();
    let region = region.unwrap();
    pwrite(&region, &[1; 8192], 0).unwrap();
    b.get(KEY, 1, 0).unwrap();
    b.about(Op::Remove, made.id).unwrap();
    for client in [&a, &b] {
        assert!(!client.directory_has(KEY));
        assert_eq!(client.get(KEY, 1, 0).unwrap_err(), libc::ENOENT);
        for op in [Op::Stat, Op::Find, Op::Remove] {
            assert_eq!(client.about(op, made.id).unwrap_err(), libc::EINVAL);
        }
    }
    wait_until("the memory is freed though a descriptor is left", || {
        rustix::fs::fstat(&region).unwrap().st_blocks == 0
    });
}

/// A child with what its parent has attached, that waits to be killed.
struct Fork {
    pid: Pid,
}

impl Fork {
    fn new(parent: &Client) -> Self {
        let (_, [link, page, ..]) = parent
            .ask(Request {
                kind: 0,
                ..request(Op::Fork)
            })
            .unwrap();
        let (link, page) = (link.unwrap(), page.unwrap());
        let (told, tell) = rustix::pipe::pipe().unwrap();
        // SAFETY: the child makes system calls only: nothing that another thread may have locked.
        match unsafe { libc::fork() } {
            0 => {
                let mapped = PageMine::map(
                    page.as_fd(),
                    rustix::process::getpid().as_raw_nonzero().get(),
                );
                let _ = rustix::io::write(&tell, &[u8::from(mapped.is_ok())]);
                loop {
                    // SAFETY: waits for the signal that ends it.
                    unsafe { libc::pause() };
                }
            }
            pid => {
                let mut byte = [0];
                rustix::io::read(&told, &mut byte).unwrap();
                assert_eq!(byte, [1]);
                drop(link);
                Self {
                    pid: Pid::from_raw(pid).expect("fork"),
                }
            }
        }
    }

    fn kill(self) -> i32 {
        kill_process(self.pid, Signal::KILL).unwrap();
        waitpid(Some(self.pid), WaitOptions::empty()).unwrap();
        self.pid.as_raw_nonzero().get()
    }
}

#[test]
fn a_child_is_counted_from_its_fork_until_it_is_killed() {
    let world = World::new();
    let (_a, _b) = (world.domain("a"), world.domain("b"));
    let (a, b) = (world.client("a"), world.client("b"));
    let (made, region) = a.get(KEY, 1, CREAT | 0o600).unwrap();
    let _mapped = map(&region.unwrap());
    b.get(KEY, 1, 0).unwrap();
    a.attach(made.id);
    assert_eq!(b.nattch(made.id), 1);
    let child = Fork::new(&a);
    assert_eq!(b.nattch(made.id), 2);
    let pid = child.kill();
    // Waited for, so no longer counted, and what the kernel does at its end is done.
    let usage = b.stat(made.id).unwrap().usage;
    assert_eq!(
        (usage.nattch, usage.lpid, usage.lpid_domain),
        (1, pid, a.welcome.domid)
    );
    assert!(usage.dtime > 0);
}

#[test]
fn attachments_of_all_domains_are_counted_together() {
    let world = World::new();
    let (_a, _b) = (world.domain("a"), world.domain("b"));
    let (a, b) = (world.client("a"), world.client("b"));
    let (made, region) = a.get(KEY, 1, CREAT | 0o600).unwrap();
    // Inherited by the children: what is counted has to be among their mappings.
    let _mapped = map(&region.unwrap());
    b.get(KEY, 1, 0).unwrap();
    b.open(made.id, 0o600).unwrap();
    let mut children = Vec::new();
    for (client, count) in [(&a, 2), (&b, 1)] {
        client.attach(made.id);
        children.extend((0..count).map(|_| Fork::new(client)));
        client.detach(made.id);
    }
    assert_eq!((a.nattch(made.id), b.nattch(made.id)), (3, 3));
    children.pop().unwrap().kill();
    assert_eq!((a.nattch(made.id), b.nattch(made.id)), (2, 2));
    for child in children {
        child.kill();
    }
    assert_eq!((a.nattch(made.id), b.nattch(made.id)), (0, 0));
}

#[test]
fn a_removed_segment_lives_until_the_last_child_in_any_domain_is_killed() {
    let world = World::new();
    let (_a, _b) = (world.domain("a"), world.domain("b"));
    let (a, b) = (world.client("a"), world.client("b"));
    let (made, _region) = a.get(KEY, 1, CREAT | 0o600).unwrap();
    b.get(KEY, 1, 0).unwrap();
    let region = b.open(made.id, 0o600).unwrap();
    let mapped = map(&region);
    b.attach(made.id);
    let child = Fork::new(&b);
    b.detach(made.id);
    drop(mapped);
    a.about(Op::Remove, made.id).unwrap();
    // The key is free at once, the segment is not.
    let (second, _) = a.get(KEY, 1, EXCL | 0o600).unwrap();
    let stat = a.stat(made.id).unwrap();
    assert_eq!((stat.meta.state, stat.meta.key), (State::Dest as u32, 0));
    assert_eq!(stat.usage.nattch, 1);
    assert_eq!(a.attach(made.id), State::Dest);
    a.about(Op::Confirm, made.id).expect("it lives still");
    a.detach(made.id);
    child.kill();
    wait_until("the segment is gone with its last attachment", || {
        a.stat(made.id).is_err_and(|errno| errno == libc::EINVAL)
    });
    assert_eq!(b.stat(made.id).unwrap_err(), libc::EINVAL);
    a.stat(second.id).unwrap();
}

#[test]
fn the_last_detach_removes_for_good() {
    let world = World::new();
    let _a = world.domain("a");
    let a = world.client("a");
    let (made, region) = a.get(KEY, 1, CREAT | 0o600).unwrap();
    let mapped = map(&region.unwrap());
    a.attach(made.id);
    a.about(Op::Remove, made.id).unwrap();
    assert_eq!(
        a.about(Op::Find, made.id).unwrap().body::<Meta>().state,
        State::Dest as u32
    );
    drop(mapped);
    a.detach(made.id);
    assert_eq!(a.about(Op::Find, made.id).unwrap_err(), libc::EINVAL);
    assert_eq!(a.about(Op::Confirm, made.id).unwrap_err(), libc::EINVAL);
}

#[test]
fn listings_show_the_segments_of_all_domains_in_order() {
    let world = World::new();
    let (_a, _b) = (world.domain("a"), world.domain("b"));
    let (a, b) = (world.client("a"), world.client("b"));
    let mut made = Vec::new();
    for n in 0..3 {
        let client = [&a, &b][n % 2];
        made.push(client.get(KEY + n as i32, 8192, CREAT).unwrap().0.id);
    }
    a.about(Op::Remove, made[1]).unwrap();
    let next = |after| {
        a.ask(Request {
            arg: after,
            ..request(Op::Next)
        })
        .map(|(reply, _)| reply.body::<Stat>().meta)
    };
    let first = next(u32::MAX).unwrap();
    let second = next(first.index).unwrap();
    assert_eq!([first.id, second.id], [made[0], made[2]]);
    assert_eq!(next(second.index).unwrap_err(), libc::ENOENT);

    let totals = a.about(Op::Info, 0).unwrap().body::<Totals>();
    assert_eq!((totals.used, totals.pages), (2, 4));
    assert_eq!(totals.indices, u64::from(second.index) + 1);
    let by_index = |client: &Client, index: u32, flags| {
        client.ask(Request {
            id: index as i32,
            flags,
            ..request(Op::Stat)
        })
    };
    let (reply, _) = by_index(&b, second.index, STAT_INDEX).unwrap();
    assert_eq!(reply.value, made[2]);
    assert_eq!(by_index(&b, 99, STAT_INDEX).unwrap_err(), libc::EINVAL);
    if may_become_others() {
        let mut user = world.client("b");
        user.become_user(USER);
        let refused = by_index(&user, second.index, STAT_INDEX).unwrap_err();
        assert_eq!(refused, libc::EACCES);
        by_index(&user, second.index, STAT_INDEX | STAT_ANY).unwrap();
    }
}
