// SPDX-License-Identifier: MIT OR Apache-2.0
//! The link over a socket, to a back-end that is this test.

use super::*;
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, socketpair};
use std::os::fd::{AsFd, OwnedFd};
use vshmem_abi::channel::{recv, send};
use vshmem_abi::wire::Meta;

fn pair(patience: Duration) -> (Link, OwnedFd) {
    let (a, b) = socketpair(
        AddressFamily::UNIX,
        SocketType::SEQPACKET,
        SocketFlags::CLOEXEC,
        None,
    )
    .unwrap();
    let mut link = Link::new(Socket::from(a));
    link.patience = patience;
    (link, b)
}

fn say(socket: &OwnedFd, message: &LinkMsg) {
    send(socket.as_fd(), message, &[], None, SendFlags::empty()).unwrap();
}

fn hear(socket: &OwnedFd) -> LinkMsg {
    recv(socket.as_fd(), RecvFlags::empty()).unwrap().0
}

/// Counts five attachments of everything, and remembers what was late.
#[derive(Default)]
struct Five {
    late: Vec<i32>,
}

impl Attend for Five {
    fn query(&mut self, query: &LinkMsg) -> LinkMsg {
        let mut answer = query.answer();
        answer.usage.nattch = 5;
        answer
    }

    fn late(&mut self, answer: &LinkMsg) {
        self.late.push(answer.meta.id);
    }

    fn questions(&self) -> Vec<LinkMsg> {
        Vec::new()
    }

    fn told(&mut self, _: &LinkMsg, _: Result<&LinkMsg, Errno>) {}

    fn ready(&mut self, _: BTreeMap<Domid, String>) {}
}

#[test]
fn queries_are_answered_while_a_call_waits() {
    let (mut link, back) = pair(PATIENCE);
    let back_end = std::thread::spawn(move || {
        let request = hear(&back);
        let query = LinkMsg {
            seq: 77,
            ..LinkMsg::new(LinkOp::Count)
        };
        say(&back, &query);
        let answer = hear(&back);
        assert_eq!((answer.seq, answer.usage.nattch), (77, 5));
        say(
            &back,
            &LinkMsg {
                domid: 9,
                ..request.answer()
            },
        );
    });
    let answer = link.call(&LinkMsg::new(LinkOp::Locate), &mut Five::default());
    assert_eq!(answer.unwrap().0.domid, 9);
    back_end.join().unwrap();
}

#[test]
fn an_answer_that_comes_too_late_is_not_taken_for_the_next() {
    let (mut link, back) = pair(Duration::ZERO);
    let mut others = Five::default();
    let refused = link.call(&LinkMsg::new(LinkOp::Get), &mut others);
    assert_eq!(refused.err(), Some(Errno::NODEV));
    let meta = Meta {
        id: 42,
        ..Meta::default()
    };
    let late = LinkMsg {
        created: 1,
        meta,
        ..hear(&back).answer()
    };
    say(&back, &late);
    link.patience = PATIENCE;
    let back_end = std::thread::spawn(move || {
        let request = hear(&back);
        say(&back, &request.refuse(libc::ENOENT));
    });
    let refused = link.call(&LinkMsg::new(LinkOp::Get), &mut others);
    assert_eq!(refused.err(), Some(Errno::NOENT));
    assert_eq!(others.late, [42]);
    back_end.join().unwrap();
}

#[test]
fn without_a_back_end_every_call_gives_enodev() {
    let (mut link, back) = pair(PATIENCE);
    drop(back);
    for _ in 0..2 {
        let refused = link.call(&LinkMsg::new(LinkOp::Find), &mut Five::default());
        assert_eq!(refused.err(), Some(Errno::NODEV));
    }
    assert!(link.fd().is_none());
}

#[test]
fn a_back_end_of_another_version_is_none() {
    let (mut link, back) = pair(PATIENCE);
    say(
        &back,
        &LinkMsg {
            version: ABI_VERSION + 1,
            ..LinkMsg::new(LinkOp::Count)
        },
    );
    link.attend(&mut Five::default());
    assert!(link.fd().is_none());
}
