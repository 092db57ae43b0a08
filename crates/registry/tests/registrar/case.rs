// SPDX-License-Identifier: MIT OR Apache-2.0
//! What cases begin with: a registrar, three domains that are faked, and what is asked of it again and again.

use crate::fake::{Env, Fake, about, get};
use libc::IPC_CREAT;
use vshmem_abi::link::{LinkMsg, LinkOp};
use vshmem_abi::{Domid, Kind};
use vshmem_registry::Registrar;

/// A registrar with domains, to be asked.
pub struct Test {
    pub env: Env,
    pub registrar: Registrar<Env>,
    pub peers: Fake,
    next_id: i32,
}

/// The key of what [`Test::make`] makes.
pub const KEY: i32 = 0x5601;

/// Three domains, 1 to 3.
pub fn test() -> Test {
    let env = Env::new();
    let mut registrar = Registrar::new(env.clone());
    let peers = Fake::enrolled(&mut registrar);
    Test {
        env,
        registrar,
        peers,
        next_id: 1,
    }
}

impl Test {
    pub fn ask(&mut self, from: Domid, request: &LinkMsg) -> LinkMsg {
        let answer = self.registrar.handle(from, request, &mut self.peers);
        assert_eq!((answer.op, answer.seq), (request.op, request.seq));
        answer
    }

    pub fn get(&mut self, from: Domid, kind: Kind, key: i32, flags: i32) -> LinkMsg {
        let id = self.next_id;
        self.next_id += 4;
        self.ask(
            from,
            &get(kind, key, 5000, flags, [id, id + 1, id + 2, id + 3]),
        )
    }

    /// Makes a segment with [`KEY`] in domain 1 and returns its id.
    pub fn make(&mut self) -> i32 {
        let made = self.get(1, Kind::Shm, KEY, IPC_CREAT | 0o640);
        assert_eq!((made.errno, made.created), (0, 1));
        made.meta.id
    }

    /// A segment of domain 1 that domain 2 has found and located.
    pub fn shared(&mut self) -> i32 {
        let id = self.make();
        assert_eq!(self.get(2, Kind::Shm, KEY, 0).errno, 0);
        assert_eq!(self.ask(2, &about(LinkOp::Locate, id)).errno, 0);
        self.peers.take_asked();
        id
    }

    pub fn remove(&mut self, from: Domid, id: i32, nattch: u64) -> LinkMsg {
        self.peers.attach(from, id, nattch);
        let mut request = about(LinkOp::Remove, id);
        request.usage.nattch = nattch;
        self.ask(from, &request)
    }

    pub fn zero(&mut self, from: Domid, id: i32) -> LinkMsg {
        self.peers.attach(from, id, 0);
        self.ask(from, &about(LinkOp::Zero, id))
    }

    pub fn find(&mut self, from: Domid, id: i32) -> LinkMsg {
        self.ask(from, &about(LinkOp::Find, id))
    }

    pub fn die(&mut self, domid: Domid) {
        self.peers.domains.remove(&domid);
        self.registrar.domain_died(domid, &mut self.peers);
    }
}
