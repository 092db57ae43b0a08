// SPDX-License-Identifier: MIT OR Apache-2.0
//! Random requests of several domains, each answer compared with that of a model which is a plain
//! list of constructs.

use crate::fake::{Env, Fake, about, get, state};
use libc::{EAGAIN, EEXIST, EIDRM, EINVAL, ENODEV, ENOENT, ENOSPC, IPC_CREAT, IPC_EXCL};
use proptest::prelude::*;
use std::collections::{BTreeMap, BTreeSet};
use vshmem_abi::ids::ROUTED_BIT;
use vshmem_abi::limits::{MsgLimits, SemLimits, ShmLimits};
use vshmem_abi::link::{LinkMsg, LinkOp};
use vshmem_abi::wire::State;
use vshmem_abi::{Domid, Kind};
use vshmem_registry::Registrar;

const LIMITS: ShmLimits = ShmLimits {
    max: u64::MAX,
    all: 12,
    mni: 5,
};

const SEM_LIMITS: SemLimits = SemLimits {
    mns: 12 * 4096,
    mni: 4,
    ..SemLimits::DEFAULT
};

const MSG_LIMITS: MsgLimits = MsgLimits {
    mni: 2,
    ..MsgLimits::DEFAULT
};

/// One step; which domain takes it and on what is chosen among those that there are.
#[derive(Clone, Debug)]
enum Step {
    Get {
        kind: Kind,
        key: i32,
        pages: u64,
        flags: i32,
        ids: [i32; 4],
    },
    Find,
    Set {
        mode: u32,
    },
    Lock,
    Remove,
    /// Locate it if need be and attach it once more.
    Attach,
    /// Detach once; at the last one of what is removed or lost, say so.
    Detach,
    Usage,
    Next {
        kind: Kind,
        index: u32,
        exact: bool,
    },
    Totals {
        kind: Kind,
    },
    Die,
    FallSilent,
    SpeakAgain,
}

fn kinds() -> impl Strategy<Value = Kind> {
    prop_oneof![6 => Just(Kind::Shm), 1 => Just(Kind::Sem), 1 => Just(Kind::Msg)]
}

fn steps() -> impl Strategy<Value = Step> {
    let flags = prop_oneof![
        1 => Just(0),
        4 => Just(IPC_CREAT),
        1 => Just(IPC_CREAT | IPC_EXCL),
        1 => Just(IPC_EXCL)
    ];
    let ids = proptest::array::uniform4(0..12i32);
    prop_oneof![
        6 => (kinds(), 0..4i32, 1..6u64, flags, ids)
            .prop_map(|(kind, key, pages, flags, ids)| Step::Get { kind, key, pages, flags, ids }),
        3 => Just(Step::Find),
        1 => (0..0o1000u32).prop_map(|mode| Step::Set { mode }),
        1 => Just(Step::Lock),
        3 => Just(Step::Remove),
        6 => Just(Step::Attach),
        5 => Just(Step::Detach),
        2 => Just(Step::Usage),
        2 => (kinds(), 0..6u32, any::<bool>())
            .prop_map(|(kind, index, exact)| Step::Next { kind, index, exact }),
        1 => kinds().prop_map(|kind| Step::Totals { kind }),
        1 => Just(Step::Die),
        1 => Just(Step::FallSilent),
        2 => Just(Step::SpeakAgain),
    ]
}

/// A construct as the model sees it.
#[derive(Clone, Debug)]
struct Thing {
    id: i32,
    kind: Kind,
    key: i32,
    pages: u64,
    owner: Domid,
    state: State,
    mode: u32,
    locked: bool,
    ctime: i64,
    index: u32,
    /// The domains that have the region.
    mapped: BTreeSet<Domid>,
}

impl Thing {
    /// What it counts against the limit of all of its kind.
    fn weight(&self) -> u64 {
        match self.kind {
            Kind::Shm => self.pages,
            Kind::Sem => self.pages * 4096 - 1,
            Kind::Msg => 0,
        }
    }
}

struct Model {
    /// The time, in seconds.
    now: i64,
    registrar: Registrar<Env>,
    /// Also holds the truth about attachments.
    fake: Fake,
    things: Vec<Thing>,
    /// What each domain was told or answered last, by id.
    view: BTreeMap<(Domid, i32), State>,
    enrolled: u32,
}

impl Model {
    fn new() -> Self {
        let env = Env::new();
        env.limits.set(LIMITS);
        env.sem_limits.set(SEM_LIMITS);
        env.msg_limits.set(MSG_LIMITS);
        let mut model = Self {
            now: 1000,
            registrar: Registrar::new(env),
            fake: Fake::default(),
            things: Vec::new(),
            view: BTreeMap::new(),
            enrolled: 0,
        };
        for _ in 0..3 {
            model.enrol();
        }
        model
    }

    fn enrol(&mut self) {
        self.enrolled += 1;
        let domid = self.registrar.enrol(&format!("d{}", self.enrolled));
        assert_eq!(domid, Ok(self.enrolled));
        self.fake.domains.insert(self.enrolled, Default::default());
    }

    fn ask(&mut self, from: Domid, request: &LinkMsg) -> LinkMsg {
        let answer = self.registrar.handle(from, request, &mut self.fake);
        if answer.errno == 0 && answer.meta.id != 0 {
            // Who looks at a construct without asking to know it, is told of no change.
            let told = [LinkOp::Get, LinkOp::Find, LinkOp::Locate, LinkOp::Remove];
            let knows = told.iter().any(|op| *op as u32 == request.op)
                || self.view.contains_key(&(from, answer.meta.id));
            if knows {
                self.view.insert((from, answer.meta.id), state(&answer));
            }
        }
        answer
    }

    fn thing(&self, id: i32) -> Option<&Thing> {
        self.things.iter().find(|t| t.id == id)
    }

    fn thing_mut(&mut self, id: i32) -> Option<&mut Thing> {
        self.things.iter_mut().find(|t| t.id == id)
    }

    fn silent(&self, domid: Domid) -> bool {
        self.fake.domains.get(&domid).is_some_and(|d| d.silent)
    }

    /// Whether somebody has it attached, or may have as far as the registrar can know.
    fn in_use(&self, thing: &Thing) -> bool {
        let used = |d: &Domid| self.fake.attached(*d, thing.id) > 0 || self.silent(*d);
        thing.mapped.iter().any(used)
    }

    /// Ends what is removed or lost and not in use.
    fn settle(&mut self) {
        let things = std::mem::take(&mut self.things);
        let (stay, _) = things
            .into_iter()
            .partition(|t| t.state == State::Live || self.in_use(t));
        self.things = stay;
    }

    /// The errno of a call that nothing can be done about.
    fn unsound(&self, id: i32) -> Option<i32> {
        match self.thing(id) {
            None => Some(EINVAL),
            Some(t) if t.state == State::Lost => Some(EIDRM),
            Some(_) => None,
        }
    }

    fn get(&mut self, from: Domid, step: &Step) {
        let &Step::Get {
            kind,
            key,
            pages,
            flags,
            ids,
        } = step
        else {
            return;
        };
        let mut request = get(kind, key, pages * 4096 - 1, flags | 0o600, ids);
        request.meta.ctime = self.now;
        let answer = self.ask(from, &request);
        let there = self
            .things
            .iter()
            .find(|t| key != 0 && t.kind == kind && t.key == key);
        if let Some(thing) = there {
            let exclusive = flags == IPC_CREAT | IPC_EXCL;
            let want = if exclusive {
                (EEXIST, 0)
            } else {
                (0, thing.id)
            };
            assert_eq!(
                (answer.errno, answer.meta.id, answer.created),
                (want.0, want.1, 0)
            );
            return;
        }
        let of_kind = |t: &&Thing| t.kind == kind;
        let alike = self.things.iter().filter(of_kind);
        let count = alike.clone().count() as u64;
        let total: u64 = alike.map(|t| t.weight()).sum();
        let full = match kind {
            Kind::Shm => count >= LIMITS.mni || total + pages > LIMITS.all,
            Kind::Sem => count >= SEM_LIMITS.mni || total + pages * 4096 - 1 > SEM_LIMITS.mns,
            Kind::Msg => count >= MSG_LIMITS.mni,
        };
        let free = |id: &&i32| self.thing(**id | ROUTED_BIT).is_none();
        let id = ids.iter().find(free).map(|id| id | ROUTED_BIT);
        let want = if key != 0 && flags & IPC_CREAT == 0 {
            Err(ENOENT)
        } else if full {
            Err(ENOSPC)
        } else {
            id.ok_or(EAGAIN)
        };
        let id = match want {
            Err(errno) => return assert_eq!(answer.errno, errno),
            Ok(id) => id,
        };
        let used: BTreeSet<u32> = self
            .things
            .iter()
            .filter(of_kind)
            .map(|t| t.index)
            .collect();
        let index = (0..).find(|i| !used.contains(i)).expect("a free index");
        let made = answer.meta;
        assert_eq!((answer.errno, answer.created), (0, 1));
        assert_eq!((made.id, made.index, made.key), (id, index, key));
        // A left-over of a lost construct of the same id is not the new one's.
        self.view.retain(|(d, i), _| *i != id || *d == from);
        for domain in self.fake.domains.values_mut() {
            domain.usage.remove(&id);
            domain.told.remove(&id);
        }
        self.things.push(Thing {
            id,
            kind,
            key,
            pages,
            owner: from,
            state: State::Live,
            mode: 0o600,
            locked: false,
            ctime: self.now,
            index,
            mapped: BTreeSet::from([from]),
        });
    }

    fn set(&mut self, from: Domid, id: i32, mode: Option<u32>) {
        let mut request = about(LinkOp::Set, id);
        request.flags = i32::from(mode.is_none());
        request.meta.mode = mode.unwrap_or(0o2000);
        request.meta.ctime = self.now;
        let answer = self.ask(from, &request);
        let want = self.unsound(id);
        assert_eq!(answer.errno, want.unwrap_or(0));
        if want.is_none()
            && let Some(thing) = self.thing_mut(id)
        {
            match mode {
                Some(mode) => (thing.mode, thing.ctime) = (mode, request.meta.ctime),
                None => thing.locked = true,
            }
        }
    }

    fn remove(&mut self, from: Domid, id: i32) {
        let mut request = about(LinkOp::Remove, id);
        request.usage.nattch = self.fake.attached(from, id);
        let answer = self.ask(from, &request);
        if let Some(errno) = self.unsound(id) {
            return assert_eq!(answer.errno, errno);
        }
        if let Some(thing) = self.thing_mut(id) {
            thing.key = 0;
            thing.state = State::Dest;
            if thing.kind != Kind::Shm {
                thing.mapped.clear();
            }
        }
        self.settle();
        let want = self.thing(id).map_or(State::Free, |t| t.state);
        assert_eq!((answer.errno, state(&answer)), (0, want));
    }

    fn attach(&mut self, from: Domid, id: i32) {
        let Some(thing) = self.thing(id).cloned() else {
            return;
        };
        if !thing.mapped.contains(&from) {
            let answer = self.ask(from, &about(LinkOp::Locate, id));
            let want = match self.unsound(id) {
                None if self.silent(thing.owner) => ENODEV,
                errno => errno.unwrap_or(0),
            };
            assert_eq!(answer.errno, want);
            if want != 0 {
                return;
            }
            assert_eq!((answer.domid, answer.gref), (thing.owner, 7000 + from));
            if let Some(thing) = self.thing_mut(id) {
                thing.mapped.insert(from);
            }
        }
        if self.unsound(id).is_none() && thing.kind == Kind::Shm {
            let count = self.fake.attached(from, id);
            self.fake.attach(from, id, count + 1);
        }
    }

    fn detach(&mut self, from: Domid, id: i32) {
        let count = self.fake.attached(from, id);
        if count == 0 {
            return;
        }
        self.fake.attach(from, id, count - 1);
        let known = self.view.get(&(from, id)).copied();
        if count == 1 && known.is_some_and(|s| s != State::Live) {
            let answer = self.ask(from, &about(LinkOp::Zero, id));
            self.settle();
            let want = self.thing(id).map_or(State::Free, |t| t.state);
            assert_eq!((answer.errno, state(&answer)), (0, want));
        }
    }

    fn usage(&mut self, from: Domid, id: i32) {
        let answer = self.ask(from, &about(LinkOp::Usage, id));
        let want = self.unsound(id);
        assert_eq!(answer.errno, want.unwrap_or(0));
        let Some(thing) = self.thing(id).filter(|_| want.is_none()) else {
            return;
        };
        // What a silent domain was last heard to have is not the model's to know.
        if thing.mapped.iter().any(|d| self.silent(*d)) {
            return;
        }
        let others = thing.mapped.iter().filter(|d| **d != from);
        let count: u64 = others.map(|d| self.fake.attached(*d, id)).sum();
        assert_eq!(answer.usage.nattch, count);
    }

    fn die(&mut self, domid: Domid) {
        self.fake.domains.remove(&domid);
        self.registrar.domain_died(domid, &mut self.fake);
        self.view.retain(|(d, _), _| *d != domid);
        self.check_departed(domid);
        for thing in &mut self.things {
            thing.mapped.remove(&domid);
            if thing.owner == domid {
                thing.state = State::Lost;
                thing.key = 0;
            }
        }
        self.settle();
        self.enrol();
    }

    /// The owners of what the dead domain had, and nobody else, were told so.
    fn check_departed(&mut self, domid: Domid) {
        for (owner, domain) in &mut self.fake.domains {
            let mut told = std::mem::take(&mut domain.departed);
            told.sort_unstable();
            let had = |t: &&Thing| {
                t.kind != Kind::Shm
                    && t.state == State::Live
                    && t.owner == *owner
                    && t.mapped.contains(&domid)
            };
            let mut want: Vec<_> = self
                .things
                .iter()
                .filter(had)
                .map(|t| (t.id, domid))
                .collect();
            want.sort_unstable();
            assert_eq!(told, want);
        }
    }

    fn step(&mut self, who: usize, what: usize, step: &Step) {
        self.now += 1;
        let able: Vec<Domid> = self.fake.domains.keys().copied().collect();
        let from = able[who % able.len()];
        let id = match self.things.get(what % (self.things.len() + 1)) {
            Some(thing) => thing.id,
            None => 11 | ROUTED_BIT,
        };
        // A stopped daemon does nothing but come back or die.
        if self.silent(from) && !matches!(step, Step::Die | Step::SpeakAgain) {
            return;
        }
        match *step {
            Step::Get { .. } => self.get(from, step),
            Step::Find => {
                let answer = self.ask(from, &about(LinkOp::Find, id));
                let want = self.thing(id).map_or(EINVAL, |_| 0);
                assert_eq!(answer.errno, want);
            }
            Step::Set { mode } => self.set(from, id, Some(mode)),
            Step::Lock => self.set(from, id, None),
            Step::Remove => self.remove(from, id),
            Step::Attach => self.attach(from, id),
            Step::Detach => self.detach(from, id),
            Step::Usage => self.usage(from, id),
            Step::Next { kind, index, exact } => {
                let mut request = LinkMsg::new(LinkOp::Next);
                request.meta.kind = kind as u32;
                request.meta.index = index;
                request.flags = i32::from(exact);
                let answer = self.ask(from, &request);
                let things = self.things.iter().filter(|t| t.kind == kind);
                let want = things
                    .filter(|t| t.index >= index && (!exact || t.index == index))
                    .min_by_key(|t| t.index);
                match want {
                    None => assert_eq!(answer.errno, ENOENT),
                    Some(thing) => assert_eq!((answer.errno, answer.meta.id), (0, thing.id)),
                }
            }
            Step::Totals { kind } => {
                let mut request = LinkMsg::new(LinkOp::Totals);
                request.meta.kind = kind as u32;
                let totals = self.ask(from, &request).totals;
                let things = || self.things.iter().filter(|t| t.kind == kind);
                assert_eq!(totals.used, things().count() as u64);
                let end = things().map(|t| u64::from(t.index) + 1).max();
                assert_eq!(totals.indices, end.unwrap_or(0));
                assert_eq!(totals.pages, things().map(|t| t.weight()).sum::<u64>());
            }
            Step::Die => self.die(from),
            Step::FallSilent => self.speak(from, false),
            Step::SpeakAgain => self.speak(from, true),
        }
        self.check();
    }

    fn speak(&mut self, domid: Domid, speaks: bool) {
        if let Some(domain) = self.fake.domains.get_mut(&domid) {
            domain.silent = !speaks;
        }
        if speaks {
            self.registrar.domain_spoke(domid, &mut self.fake);
            self.settle();
        }
    }

    /// What has to hold after every step.
    fn check(&mut self) {
        for (domid, domain) in &mut self.fake.domains {
            for (id, raw) in std::mem::take(&mut domain.told) {
                let known = self.view.contains_key(&(*domid, id));
                assert!(known, "domain {domid} was told of {id:#x}, unknown to it");
                self.view.insert((*domid, id), State::from_raw(raw));
            }
        }
        for ((domid, id), seen) in &self.view {
            let want = match self.things.iter().find(|t| t.id == *id) {
                Some(thing) => *seen == thing.state,
                None => matches!(seen, State::Free | State::Lost),
            };
            assert!(want, "domain {domid} sees {id:#x} as {seen:?}");
        }
        // A listing shows each of them as it should be.
        for kind in [Kind::Shm, Kind::Sem, Kind::Msg] {
            let mut request = LinkMsg::new(LinkOp::Next);
            request.meta.kind = kind as u32;
            let mut seen = 0;
            loop {
                let answer = self.registrar.handle(1, &request, &mut self.fake);
                if answer.errno != 0 {
                    break;
                }
                seen += 1;
                let meta = answer.meta;
                request.meta.index = meta.index + 1;
                let thing = self.thing(meta.id).expect("a construct of the model");
                assert_eq!((meta.key, state(&answer)), (thing.key, thing.state));
                assert_eq!((meta.owner, meta.ctime), (thing.owner, thing.ctime));
                let locked = if thing.locked { 0o2000 } else { 0 };
                assert_eq!(meta.mode, thing.mode | locked);
                assert_eq!(meta.index, thing.index);
            }
            assert_eq!(seen, self.things.iter().filter(|t| t.kind == kind).count());
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

    #[test]
    fn the_registrar_answers_as_a_plain_list_of_constructs_would(
        steps in proptest::collection::vec((any::<usize>(), any::<usize>(), steps()), 1..150)
    ) {
        let mut model = Model::new();
        for (who, what, step) in &steps {
            model.step(*who, *what, step);
        }
    }
}
