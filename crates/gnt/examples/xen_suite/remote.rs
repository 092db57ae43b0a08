// SPDX-License-Identifier: MIT OR Apache-2.0
//! A port whose domain is an agent: what is done with it is asked of the agent.

use super::suite::Memory;
use super::words::{await_change, read, to_error, to_event};
use std::cell::Cell;
use std::fmt::Display;
use std::os::fd::BorrowedFd;
use std::rc::Rc;
use std::str::FromStr;
use vshmem_abi::Domid;
use vshmem_abi::doorbell::Notify;
use vshmem_abi::grants::How;
use vshmem_abi::region::Memory as Cost;
use vshmem_gnt::{Event, GrantRef, LocalPort, Port, PortError, Region, RegionOptions};
use vshmem_registry::xenstore::XenStore;
use vshmem_registry::xenstore::library::Library;

/// The way to an agent.
pub struct Wire {
    store: Rc<Library>,
    base: String,
    seq: Cell<u32>,
    dead: Cell<bool>,
}

impl Wire {
    /// To the agent whose nodes are below `base`; waits until it is there.
    pub fn new(store: &Rc<Library>, base: String) -> Rc<Self> {
        let answer = format!("{base}/answer");
        store.watch(&answer, &answer).expect("XenStore");
        await_change(store, "an agent", || read(store, &answer));
        Rc::new(Self {
            store: store.clone(),
            base,
            seq: Cell::new(0),
            dead: Cell::new(false),
        })
    }

    /// The agent is dead: nothing is asked of it any more.
    pub fn cut(&self) {
        self.dead.set(true);
        let answer = format!("{}/answer", self.base);
        let _ = self.store.unwatch(&answer, &answer);
    }

    /// What the agent says to a request; `Err` with a word if it could not be done.
    pub fn ask(&self, request: &str) -> Result<String, String> {
        assert!(!self.dead.get(), "a dead agent is asked: {request}");
        self.seq.set(self.seq.get() + 1);
        let seq = self.seq.get().to_string();
        let text = format!("{seq} {request}");
        let ask = format!("{}/ask", self.base);
        self.store.write(&ask, text.as_bytes()).expect("XenStore");
        let answer = format!("{}/answer", self.base);
        await_change(&self.store, &text, || {
            let said = read(&self.store, &answer)?;
            let mut words = said.splitn(3, ' ');
            if words.next() != Some(seq.as_str()) {
                return None;
            }
            let is_done = words.next() == Some("ok");
            let rest = words.next().unwrap_or("").to_owned();
            Some(if is_done { Ok(rest) } else { Err(rest) })
        })
    }

    fn call(&self, request: &str) -> Result<String, PortError> {
        self.ask(request).map_err(|word| to_error(&word))
    }

    /// For what is dropped: nothing is left of a dead agent anyway.
    fn tell(&self, request: &str) {
        if !self.dead.get() {
            let _ = self.ask(request);
        }
    }
}

/// The port of an agent.
pub struct RemotePort {
    pub wire: Rc<Wire>,
    pub domid: Domid,
}

/// A region that an agent has.
pub struct RemoteRegion {
    wire: Rc<Wire>,
    number: u32,
    len: u64,
    how: How,
    futexes: bool,
    read_only: bool,
}

fn number<T: FromStr>(words: &str, at: usize) -> T {
    let word = words.split(' ').nth(at).and_then(|word| word.parse().ok());
    word.unwrap_or_else(|| panic!("an agent says {words}"))
}

fn or_none(peer: Option<impl Display>) -> String {
    peer.map_or_else(|| "none".to_owned(), |peer| peer.to_string())
}

impl RemotePort {
    fn region(&self, said: &str) -> RemoteRegion {
        RemoteRegion {
            wire: self.wire.clone(),
            number: number(said, 0),
            len: number(said, 1),
            how: How::from_raw(number(said, 2)).expect("a how"),
            futexes: number::<u32>(said, 3) == 1,
            read_only: number::<u32>(said, 4) == 1,
        }
    }

    /// Sleeps until something comes.
    pub fn await_event(&mut self, end: LocalPort) -> Event {
        let said = self.wire.ask(&format!("await {}", end.0));
        to_event(&said.expect("an event"))
    }

    /// Raises the other end by the notifier.
    pub fn pass_notifier(&mut self, end: LocalPort) {
        self.wire.tell(&format!("pass-notifier {}", end.0));
    }

    /// Sets gntalloc's limit in the guest; returns what it was.
    pub fn set_limit(&mut self, pages: u64) -> u64 {
        number(&self.wire.ask(&format!("limit {pages}")).expect("done"), 0)
    }
}

impl RemoteRegion {
    /// Maps it; `Err` with the name of the error.
    pub fn attach(&self, access: &str) -> Result<RemoteMemory, String> {
        let said = self.wire.ask(&format!("attach {} {access}", self.number));
        Ok(RemoteMemory {
            wire: self.wire.clone(),
            number: number(&said?, 0),
        })
    }

    /// Keeps its descriptor, as a client does. Returns what maps that later.
    pub fn keep(&self) -> impl Fn() -> Result<(), String> + use<> {
        let kept = self.wire.ask(&format!("keep {}", self.number));
        let kept: u32 = number(&kept.expect("done"), 0);
        let wire = self.wire.clone();
        move || wire.ask(&format!("attach-kept {kept}")).map(drop)
    }
}

/// A region in an agent's memory.
pub struct RemoteMemory {
    wire: Rc<Wire>,
    number: u32,
}

impl Memory for RemoteMemory {
    fn load(&self, at: usize) -> u8 {
        let said = self.wire.ask(&format!("load {} {at}", self.number));
        number(&said.expect("a byte"), 0)
    }

    fn is_zero(&self, bytes: usize) -> bool {
        let said = self.wire.ask(&format!("is-zero {} {bytes}", self.number));
        number(&said.expect("true or false"), 0)
    }

    fn store(&self, at: usize, value: u8) {
        let said = self
            .wire
            .ask(&format!("store {} {at} {value}", self.number));
        said.expect("done");
    }
}

impl Drop for RemoteMemory {
    fn drop(&mut self) {
        self.wire.tell(&format!("detach {}", self.number));
    }
}

impl Drop for RemoteRegion {
    fn drop(&mut self) {
        self.wire.tell(&format!("drop {}", self.number));
    }
}

impl Region for RemoteRegion {
    fn fd(&self) -> BorrowedFd<'_> {
        panic!("the descriptor is an agent's");
    }

    fn how(&self) -> How {
        self.how
    }

    fn len(&self) -> u64 {
        self.len
    }

    fn has_futexes(&self) -> bool {
        self.futexes
    }

    fn is_read_only(&self) -> bool {
        self.read_only
    }

    fn release(self) {
        self.wire.tell(&format!("release {}", self.number));
        // What is dropped now is not there any more, which does no harm.
    }
}

impl Port for RemotePort {
    type Region = RemoteRegion;

    fn domid(&self) -> Domid {
        self.domid
    }

    fn memory(&self) -> Cost {
        Cost::AtOnce
    }

    fn create(&mut self, bytes: u64, options: RegionOptions) -> Result<RemoteRegion, PortError> {
        let peer = or_none(options.peer);
        let access = if options.read_only {
            "read-only"
        } else {
            "both"
        };
        let said = self.wire.call(&format!("create {bytes} {peer} {access}"))?;
        Ok(self.region(&said))
    }

    fn grant(&mut self, region: &RemoteRegion, to: Domid) -> Result<GrantRef, PortError> {
        let said = self.wire.call(&format!("grant {} {to}", region.number))?;
        Ok(GrantRef(number(&said, 0)))
    }

    fn grant_read_only(&mut self, region: &RemoteRegion, to: Domid) -> Result<GrantRef, PortError> {
        let number_of = region.number;
        let said = self
            .wire
            .call(&format!("grant-read-only {number_of} {to}"))?;
        Ok(GrantRef(number(&said, 0)))
    }

    fn end_grant(&mut self, gref: GrantRef) -> Result<(), PortError> {
        self.wire.call(&format!("end {}", gref.0)).map(drop)
    }

    fn map(&mut self, owner: Domid, gref: GrantRef) -> Result<RemoteRegion, PortError> {
        let said = self.wire.call(&format!("map {owner} {}", gref.0))?;
        Ok(self.region(&said))
    }

    fn alloc_unbound(&mut self, remote: Domid) -> Result<LocalPort, PortError> {
        let said = self.wire.call(&format!("unbound {remote}"))?;
        Ok(LocalPort(number(&said, 0)))
    }

    fn bind_interdomain(
        &mut self,
        remote: Domid,
        remote_port: LocalPort,
    ) -> Result<LocalPort, PortError> {
        let said = self
            .wire
            .call(&format!("bind {remote} {}", remote_port.0))?;
        Ok(LocalPort(number(&said, 0)))
    }

    fn notify(&mut self, port: LocalPort) -> Result<(), PortError> {
        self.wire.call(&format!("notify {}", port.0)).map(drop)
    }

    fn notifier(&self, _: LocalPort) -> Result<(BorrowedFd<'_>, Notify), PortError> {
        panic!("the descriptor is an agent's");
    }

    fn wait_fd(&self, _: LocalPort) -> Result<BorrowedFd<'_>, PortError> {
        panic!("the descriptor is an agent's");
    }

    fn take(&mut self, port: LocalPort) -> Result<Event, PortError> {
        let said = self.wire.call(&format!("take {}", port.0))?;
        Ok(to_event(&said))
    }

    fn close(&mut self, port: LocalPort) -> Result<(), PortError> {
        self.wire.call(&format!("close {}", port.0)).map(drop)
    }
}
