// SPDX-License-Identifier: MIT OR Apache-2.0
//! Processes that send what no client sends. Whatever it is, they lose their connection, the
//! daemon loses nothing, and a client beside them notices nothing.

use crate::world::{Client, World, ask, own_ids, request, wait_until};
use rustix::io::Errno;
use rustix::net::{RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags, sendmsg};
use std::io::IoSlice;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use vshmem_abi::ABI_VERSION;
use vshmem_abi::channel::{recv, send};
use vshmem_abi::wire::{Op, Reply, Request};
use zerocopy::IntoBytes;

const KEY: i32 = 0x5600_0001;
const CREAT: i32 = libc::IPC_CREAT;

/// Numbers that look random and are the same in each run.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        // xorshift64.
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len).map(|_| self.next() as u8).collect()
    }
}

fn send_bytes(socket: &OwnedFd, bytes: &[u8], fds: &[BorrowedFd<'_>]) -> Result<(), Errno> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(16))];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !fds.is_empty() {
        assert!(control.push(SendAncillaryMessage::ScmRights(fds)));
    }
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    sendmsg(socket, &[IoSlice::new(bytes)], &mut control, flags).map(|_| ())
}

/// Whether the daemon has dropped the connection.
fn is_dropped(socket: &OwnedFd) -> bool {
    matches!(
        recv::<Reply>(socket.as_fd(), RecvFlags::empty()),
        Err(Errno::CONNRESET | Errno::PIPE)
    )
}

/// A client's whole round, to see that it is served.
fn is_served(client: &Client, key: i32) {
    let (made, region) = client
        .get(key, 4096, CREAT | libc::IPC_EXCL | 0o600)
        .unwrap();
    assert!(region.is_some());
    client.stat(made.id).unwrap();
    client.about(Op::Remove, made.id).unwrap();
}

#[test]
fn packets_that_no_client_sends_cost_the_sender_its_connection() {
    let world = World::new();
    let _a = world.domain("a");
    let client = world.client("a");
    let good = request(Op::Find);
    let whole = good.as_bytes();
    let bad_fields = [
        Request { op: 0, ..good },
        Request { op: 99, ..good },
        Request { kind: 0, ..good },
        Request { kind: 4, ..good },
        Request {
            version: ABI_VERSION + 1,
            ..good
        },
    ];
    let mut bad: Vec<Vec<u8>> = bad_fields.iter().map(|r| r.as_bytes().to_vec()).collect();
    bad.extend([
        vec![0; 1],
        whole[..55].to_vec(),
        [whole, &[0]].concat(),
        vec![7; 60_000],
    ]);
    for (n, packet) in bad.into_iter().enumerate() {
        let socket = world.connect("a");
        send_bytes(&socket, &packet, &[]).unwrap();
        assert!(is_dropped(&socket), "packet {n}");
        is_served(&client, KEY);
    }
    let stuffed = world.connect("a");
    send_bytes(&stuffed, whole, &[stuffed.as_fd(); 16]).unwrap();
    assert!(is_dropped(&stuffed));
}

#[test]
fn a_hello_of_another_version_is_answered_so_that_the_client_can_say_it() {
    let world = World::new();
    let _a = world.domain("a");
    let socket = world.connect("a");
    let hello = Request {
        version: ABI_VERSION + 1,
        ..request(Op::Hello)
    };
    let (reply, _) = ask(socket.as_fd(), &hello, own_ids()).unwrap();
    assert_eq!(reply.errno, libc::EPROTO);
}

#[test]
fn operations_that_need_a_client_are_refused_before_hello() {
    let world = World::new();
    let _a = world.domain("a");
    let socket = world.connect("a");
    for op in [Op::Get, Op::Open, Op::Confirm, Op::Detached, Op::Fork] {
        let (reply, fds) = ask(socket.as_fd(), &request(op), own_ids()).unwrap();
        assert_eq!(reply.errno, libc::EPROTO, "{op:?}");
        assert!(fds.iter().all(Option::is_none));
    }
    let (reply, _) = ask(socket.as_fd(), &request(Op::Next), own_ids()).unwrap();
    assert_eq!(
        reply.errno,
        libc::ENOENT,
        "an operator's connection lives on"
    );
}

#[test]
fn a_second_hello_on_a_connection_is_refused() {
    let world = World::new();
    let _a = world.domain("a");
    let client = world.client("a");
    assert_eq!(client.ask(request(Op::Hello)).unwrap_err(), libc::EPROTO);
    is_served(&client, KEY);
}

#[test]
fn random_packets_harm_nobody_and_leave_nothing_behind() {
    let world = World::new();
    let a = world.domain("a");
    let client = world.client("a");
    is_served(&client, KEY);
    let before = a.descriptors();
    let mut numbers = Numbers(0x5eed_0002);
    for round in 0..400 {
        // Half of them know how to say Hello first.
        let socket = world.connect("a");
        let known = (round % 2 == 0).then(|| Client::hello(socket.try_clone().unwrap(), 0));
        for _ in 0..numbers.below(8) {
            let packet = match numbers.below(4) {
                0 => {
                    let len = numbers.below(200) as usize;
                    numbers.bytes(len)
                }
                // The right size and version, an operation that exists, and anything else.
                _ => {
                    let mut bytes = numbers.bytes(size_of::<Request>());
                    bytes[..4].copy_from_slice(&ABI_VERSION.to_ne_bytes());
                    let op = numbers.below(14) as u32;
                    bytes[4..8].copy_from_slice(&op.to_ne_bytes());
                    let kind = numbers.below(3) as u32;
                    bytes[8..12].copy_from_slice(&kind.to_ne_bytes());
                    bytes
                }
            };
            let fds = vec![socket.as_fd(); numbers.below(4) as usize / 2];
            // The daemon may have dropped it before.
            if send_bytes(&socket, &packet, &fds).is_err() {
                break;
            }
        }
        drop(known);
        if round % 50 == 0 {
            is_served(&client, KEY);
        }
    }
    // What they made under random keys is there; the descriptors of their connections, pages and
    // whatever they sent along are not.
    let mut kept = 0;
    let mut after = u32::MAX;
    while let Ok((reply, _)) = client.ask(Request {
        arg: after,
        ..request(Op::Next)
    }) {
        after = reply.body::<vshmem_abi::wire::Stat>().meta.index;
        kept += 1;
    }
    wait_until("only the client is left", || {
        a.descriptors() <= before + kept
    });
    is_served(&client, KEY);
}

#[test]
fn connections_that_say_nothing_give_way_to_those_that_speak() {
    let world = World::new();
    let _a = world.domain("a");
    let client = world.client("a");
    let mut silent: Vec<OwnedFd> = (0..600).map(|_| world.connect("a")).collect();
    is_served(&client, KEY);
    is_served(&world.client("a"), KEY);
    assert!(is_dropped(&silent[0]), "the oldest is gone");
    let last = silent.pop().unwrap();
    is_served(&Client::hello(last, 0).unwrap(), KEY);
}

#[test]
fn a_client_that_does_not_read_its_answers_is_dropped() {
    let world = World::new();
    let _a = world.domain("a");
    let client = world.client("a");
    let deaf = world.client("a");
    let flags = SendFlags::empty();
    let find = request(Op::Find);
    let socket = deaf.socket.as_fd();
    let mut sent = 0;
    while send(socket, &find, &[], Some(own_ids()), flags).is_ok() {
        sent += 1;
        assert!(sent < 1_000_000, "its answers are kept without end");
    }
    is_served(&client, KEY);
}
