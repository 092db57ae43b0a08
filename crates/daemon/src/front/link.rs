// SPDX-License-Identifier: MIT OR Apache-2.0
//! The connection to the back-end: one request of ours at a time, and queries of its own that are
//! answered whenever they come, also while we wait for an answer.

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvFlags, SendFlags, SocketAddrUnix, SocketFlags, SocketType, connect,
    socket_with,
};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};
use vshmem_abi::channel::{Fds, recv, send};
use vshmem_abi::link::{LinkMsg, LinkOp};
use vshmem_abi::{ABI_VERSION, paths};

/// How long an answer of the back-end may take. It waits for other domains for less.
const PATIENCE: Duration = Duration::from_secs(5);

/// What is done about messages that are not the answer that is being waited for.
pub trait Attend {
    /// Answers a query.
    fn query(&mut self, query: &LinkMsg) -> LinkMsg;

    /// Hears the answer to a request that was given up on.
    fn late(&mut self, answer: &LinkMsg);
}

/// The connection. Once the back-end is gone, every call fails with `ENODEV`.
pub struct Link {
    socket: Option<OwnedFd>,
    seq: u32,
    patience: Duration,
}

impl Link {
    /// Connects to the back-end of the world in `dir`.
    ///
    /// # Errors
    /// What `socket` and `connect` say.
    pub fn connect(dir: &Path) -> Result<Self, Errno> {
        let address = SocketAddrUnix::new(paths::backend_socket(dir))?;
        let flags = SocketFlags::CLOEXEC;
        let socket = socket_with(AddressFamily::UNIX, SocketType::SEQPACKET, flags, None)?;
        connect(&socket, &address)?;
        Ok(Self::over(socket, PATIENCE))
    }

    fn over(socket: OwnedFd, patience: Duration) -> Self {
        Self {
            socket: Some(socket),
            seq: 0,
            patience,
        }
    }

    /// The descriptor to watch for queries; `None` once the back-end is gone.
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        self.socket.as_ref().map(AsFd::as_fd)
    }

    /// Sends a request and waits for its answer; `others` attends to what comes meanwhile.
    ///
    /// # Errors
    /// The errno of the answer; `ENODEV` when there is no answer in five seconds, or no back-end.
    pub fn call(
        &mut self,
        request: &LinkMsg,
        others: &mut impl Attend,
    ) -> Result<(LinkMsg, Fds), Errno> {
        self.seq = self.seq.wrapping_add(1);
        let seq = self.seq;
        let deadline = Instant::now() + self.patience;
        self.send(&LinkMsg { seq, ..*request })?;
        loop {
            self.wait_until(deadline)?;
            let Some((message, fds)) = self.receive() else {
                continue;
            };
            if is_query(&message) {
                self.send(&others.query(&message))?;
            } else if message.seq == seq && message.op == request.op {
                return match message.errno {
                    0 => Ok((message, fds)),
                    errno => Err(Errno::from_raw_os_error(errno)),
                };
            } else {
                tracing::warn!(seq = message.seq, "an answer of the back-end came too late");
                others.late(&message);
            }
        }
    }

    /// Attends to every message that is waiting; for when nothing of ours is under way.
    pub fn attend(&mut self, others: &mut impl Attend) {
        while let Some((message, _)) = self.receive() {
            if !is_query(&message) {
                tracing::warn!(seq = message.seq, "an answer of the back-end came too late");
                others.late(&message);
            } else if self.send(&others.query(&message)).is_err() {
                return;
            }
        }
    }

    fn send(&mut self, message: &LinkMsg) -> Result<(), Errno> {
        let socket = self.fd().ok_or(Errno::NODEV)?;
        match send(socket, message, &[], None, SendFlags::DONTWAIT) {
            Ok(()) => Ok(()),
            Err(Errno::AGAIN) => {
                tracing::warn!("the back-end takes no messages");
                Err(Errno::NODEV)
            }
            Err(errno) => {
                self.lose(errno);
                Err(Errno::NODEV)
            }
        }
    }

    /// The next message, if one is waiting.
    fn receive(&mut self) -> Option<(LinkMsg, Fds)> {
        match recv::<LinkMsg>(self.fd()?, RecvFlags::DONTWAIT) {
            Ok((message, fds)) if message.version == ABI_VERSION => Some((message, fds)),
            Ok(_) => {
                self.lose(Errno::PROTO);
                None
            }
            Err(Errno::AGAIN) => None,
            Err(errno) => {
                self.lose(errno);
                None
            }
        }
    }

    /// Waits until there is something to receive.
    fn wait_until(&self, deadline: Instant) -> Result<(), Errno> {
        loop {
            let socket = self.fd().ok_or(Errno::NODEV)?;
            let left = deadline.saturating_duration_since(Instant::now());
            let timeout = Timespec {
                tv_sec: left.as_secs() as i64,
                tv_nsec: left.subsec_nanos().into(),
            };
            let mut fds = [PollFd::new(&socket, PollFlags::IN)];
            match poll(&mut fds, Some(&timeout)) {
                Ok(0) => {
                    tracing::error!(
                        "no answer from the back-end in {:?}; requests that need it give ENODEV",
                        self.patience
                    );
                    return Err(Errno::NODEV);
                }
                Ok(_) => return Ok(()),
                Err(Errno::INTR) => {}
                Err(errno) => return Err(errno),
            }
        }
    }

    fn lose(&mut self, errno: Errno) {
        if self.socket.take().is_some() {
            tracing::error!(
                %errno,
                "the back-end is gone: constructs that this domain knows go on, all else gives \
                 ENODEV; stop this domain (vshmem down --domain NAME --force) and start it again \
                 (vshmem run) to have a back-end"
            );
        }
    }
}

fn is_query(message: &LinkMsg) -> bool {
    LinkOp::from_raw(message.op).is_some_and(LinkOp::is_query)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::net::socketpair;
    use vshmem_abi::wire::Meta;

    fn pair(patience: Duration) -> (Link, OwnedFd) {
        let (a, b) = socketpair(
            AddressFamily::UNIX,
            SocketType::SEQPACKET,
            SocketFlags::CLOEXEC,
            None,
        )
        .unwrap();
        (Link::over(a, patience), b)
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
}
