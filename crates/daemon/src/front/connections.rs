// SPDX-License-Identifier: MIT OR Apache-2.0
//! The connections of clients and of the `vshmem` command.

use std::collections::{HashMap, VecDeque};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

/// Connections that have not said Hello: so many may be there at a time.
pub const MAX_UNGREETED: usize = 256;

/// One connection.
pub struct Connection {
    socket: Rc<OwnedFd>,
    /// Whether the client opened it; else we made it, for a child of `fork`.
    opened: bool,
}

impl Connection {
    /// The socket.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }

    /// The socket, if the client opened it, so that the kernel knows who that was.
    pub fn opened(&self) -> Option<BorrowedFd<'_>> {
        self.opened.then(|| self.fd())
    }
}

/// All connections, by numbers that are never used again.
pub struct Connections {
    by_number: HashMap<u64, Connection>,
    ungreeted: VecDeque<u64>,
    last: u64,
}

impl Connections {
    /// None yet; numbers begin after `reserved`.
    pub fn new(reserved: u64) -> Self {
        Self {
            by_number: HashMap::new(),
            ungreeted: VecDeque::new(),
            last: reserved,
        }
    }

    /// A number for a connection to come.
    pub fn number(&mut self) -> u64 {
        self.last += 1;
        self.last
    }

    /// Adds one that a client has opened and that has not said Hello.
    pub fn add_opened(&mut self, number: u64, socket: OwnedFd) {
        self.add(number, Rc::new(socket), true);
        self.ungreeted.push_back(number);
    }

    /// Adds one that we have made for a client.
    pub fn add_made(&mut self, number: u64, socket: Rc<OwnedFd>) {
        self.add(number, socket, false);
    }

    fn add(&mut self, number: u64, socket: Rc<OwnedFd>, opened: bool) {
        self.by_number.insert(number, Connection { socket, opened });
    }

    /// One of them.
    pub fn get(&self, number: u64) -> Option<&Connection> {
        self.by_number.get(&number)
    }

    /// It has said Hello.
    pub fn greeted(&mut self, number: u64) {
        self.ungreeted.retain(|&other| other != number);
    }

    /// Closes it. `false`: there was none of this number.
    pub fn close(&mut self, number: u64) -> bool {
        self.greeted(number);
        self.by_number.remove(&number).is_some()
    }

    /// Closes the one that has gone longest without saying Hello.
    pub fn close_oldest_ungreeted(&mut self) -> bool {
        match self.ungreeted.pop_front() {
            Some(number) => self.close(number),
            None => false,
        }
    }

    /// Whether more are there without a Hello than may be.
    pub fn too_many_ungreeted(&self) -> bool {
        self.ungreeted.len() > MAX_UNGREETED
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn socket() -> OwnedFd {
        std::fs::File::open("/dev/null").unwrap().into()
    }

    #[test]
    fn the_oldest_that_never_said_hello_goes_first() {
        let mut all = Connections::new(0);
        let numbers: Vec<u64> = (0..3)
            .map(|_| {
                let number = all.number();
                all.add_opened(number, socket());
                number
            })
            .collect();
        all.greeted(numbers[0]);
        assert!(all.close_oldest_ungreeted());
        let there: Vec<bool> = numbers.iter().map(|&n| all.get(n).is_some()).collect();
        assert_eq!(there, [true, false, true]);
        assert!(all.close_oldest_ungreeted());
        assert!(!all.close_oldest_ungreeted());
    }

    #[test]
    fn a_number_is_never_given_twice() {
        let mut all = Connections::new(15);
        let first = all.number();
        all.add_made(first, Rc::new(socket()));
        all.close(first);
        assert!(all.number() > first && first > 15);
    }
}
