// SPDX-License-Identifier: MIT OR Apache-2.0
//! A registrar that is killed before any of what it does reaches anybody, and one that goes on with what
//! it has kept, while domains live, die and hold on to what they know.

use crate::fake::{Env, about, get, state};
use libc::IPC_CREAT;
use proptest::prelude::*;
use rustix::io::Errno;
use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::rc::Rc;
use vshmem_abi::link::{LinkMsg, LinkOp};
use vshmem_abi::wire::{Meta, State, Usage};
use vshmem_abi::{Domid, Kind};
use vshmem_registry::{Keeper, Kept, NoAnswer, Peers, Registrar};

const DOMAINS: [Domid; 3] = [1, 2, 3];

/// Kills the registrar after so many steps that others see.
#[derive(Clone, Default)]
struct Fuse(Rc<Cell<Option<u32>>>);

/// What a registrar that is killed unwinds with.
struct Killed;

impl Fuse {
    fn set(&self, steps: u32) {
        self.0.set(Some(steps));
    }

    fn burn(&self) {
        match self.0.get() {
            Some(0) => resume_unwind(Box::new(Killed)),
            left => self.0.set(left.map(|n| n - 1)),
        }
    }
}

#[derive(Clone, Default)]
struct Place {
    kept: Rc<RefCell<BTreeMap<i32, Kept>>>,
    fuse: Fuse,
    full: Rc<Cell<bool>>,
}

impl Keeper for Place {
    fn keep(&mut self, construct: &Kept) -> Result<(), Errno> {
        self.fuse.burn();
        if self.full.get() {
            return Err(Errno::NOMEM);
        }
        self.kept.borrow_mut().insert(construct.meta.id, *construct);
        Ok(())
    }

    fn forget(&mut self, id: i32) {
        self.fuse.burn();
        self.kept.borrow_mut().remove(&id);
    }
}

/// A domain, as its front-end sees itself.
#[derive(Clone, Default)]
struct Front {
    /// What it knows, and whether it has the region.
    known: BTreeMap<i32, (Meta, bool)>,
    attached: BTreeMap<i32, u64>,
    departed: Vec<(i32, Domid, u32)>,
    /// It has not resumed since the registrar began.
    away: bool,
}

impl Front {
    fn apply(&mut self, meta: &Meta) {
        let is_over = match State::from_raw(meta.state) {
            State::Free => true,
            // It forgets by itself what is lost and not attached.
            State::Lost => self.nattch(meta.id) == 0,
            State::Live | State::Dest => false,
        };
        if is_over {
            self.forget(meta.id);
        } else if let Some((known, _)) = self.known.get_mut(&meta.id) {
            *known = *meta;
        }
    }

    fn forget(&mut self, id: i32) {
        let gone = self.known.remove(&id);
        // A set is removed however it is used.
        if gone.is_some_and(|(meta, _)| meta.kind != Kind::Shm as u32) {
            self.attached.remove(&id);
        }
    }

    fn nattch(&self, id: i32) -> u64 {
        self.attached.get(&id).copied().unwrap_or(0)
    }
}

#[derive(Default)]
struct Fronts {
    all: BTreeMap<Domid, Front>,
    fuse: Fuse,
}

impl Peers for Fronts {
    fn query(&mut self, domid: Domid, query: &LinkMsg) -> Result<LinkMsg, NoAnswer> {
        self.fuse.burn();
        let front = self.all.get_mut(&domid).ok_or(NoAnswer::Gone)?;
        if front.away {
            return Err(NoAnswer::Silent);
        }
        match LinkOp::from_raw(query.op) {
            Some(LinkOp::Update) => front.apply(&query.meta),
            Some(LinkOp::Departed) => {
                let gone = (query.meta.id, query.domid, query.epoch);
                front.departed.push(gone);
            }
            _ => {}
        }
        let usage = Usage {
            nattch: front.nattch(query.meta.id),
            ..Usage::default()
        };
        Ok(LinkMsg {
            usage,
            ..query.answer()
        })
    }
}

struct World {
    place: Place,
    fronts: Fronts,
    registrar: Registrar<Env, Place>,
    /// Domains that were enrolled and have not been found dead.
    enrolled: Vec<Domid>,
    /// What somebody has tried to remove.
    unwanted: BTreeSet<i32>,
    next_id: i32,
}

/// What a front-end's request came to; `None`: the registrar was killed.
type Answered = Option<LinkMsg>;

impl World {
    fn new() -> Self {
        let fuse = Fuse::default();
        let place = Place {
            fuse: fuse.clone(),
            ..Place::default()
        };
        let mut registrar = Registrar::with_keeper(Env::new(), place.clone());
        let mut fronts = Fronts {
            fuse,
            ..Fronts::default()
        };
        for domid in DOMAINS {
            registrar.enrol_as(domid, "name", 7);
            fronts.all.insert(domid, Front::default());
        }
        Self {
            place,
            fronts,
            registrar,
            enrolled: DOMAINS.to_vec(),
            unwanted: BTreeSet::new(),
            next_id: 1,
        }
    }

    fn work<T>(
        &mut self,
        work: impl FnOnce(&mut Registrar<Env, Place>, &mut Fronts) -> T,
    ) -> Option<T> {
        let (registrar, fronts) = (&mut self.registrar, &mut self.fronts);
        match catch_unwind(AssertUnwindSafe(|| work(registrar, fronts))) {
            Ok(done) => Some(done),
            Err(killed) if killed.is::<Killed>() => {
                self.place.fuse.0.set(None);
                None
            }
            Err(other) => resume_unwind(other),
        }
    }

    fn ask(&mut self, from: Domid, request: &LinkMsg) -> Answered {
        self.work(|registrar, fronts| {
            let answer = registrar.handle(from, request, fronts);
            // Killed between its last change and the answer.
            fronts.fuse.burn();
            answer
        })
    }

    fn front(&mut self, domid: Domid) -> &mut Front {
        self.fronts.all.get_mut(&domid).unwrap()
    }

    fn living(&self) -> Vec<Domid> {
        self.fronts.all.keys().copied().collect()
    }

    /// The first construct of a kind that a domain knows.
    fn id_of(&mut self, domid: Domid, kind: Kind) -> i32 {
        let known = self.front(domid).known.values();
        let mut ids = known.filter_map(|(m, _)| (m.kind == kind as u32).then_some(m.id));
        ids.next().unwrap()
    }

    /// A later registrar, at which all living domains resume.
    fn restart(&mut self) {
        self.restart_without(0);
    }

    /// The same for all but one.
    fn restart_without(&mut self, absent: Domid) {
        let later = Registrar::with_keeper(Env::new(), self.place.clone());
        self.registrar = later;
        for front in self.fronts.all.values_mut() {
            front.away = true;
        }
        let kept: Vec<Kept> = self.place.kept.borrow().values().copied().collect();
        let domains = self.enrolled.iter().map(|&domid| (domid, "name".into(), 7));
        self.registrar.restore(kept, domains);
        let living = self.living();
        self.enrolled.retain(|domid| living.contains(domid));
        for dead in DOMAINS.iter().filter(|domid| !living.contains(domid)) {
            self.registrar.domain_died(*dead, &mut self.fronts);
        }
        self.registrar.settle_restored(&mut self.fronts);
        for domid in living.into_iter().filter(|domid| *domid != absent) {
            self.resume(domid);
        }
    }

    fn resume(&mut self, domid: Domid) {
        for (id, (meta, mapped)) in self.front(domid).known.clone() {
            let find = LinkMsg {
                flags: mapped.into(),
                ..about(LinkOp::Find, id)
            };
            let answer = self.ask(domid, &find).unwrap();
            if answer.errno == 0 {
                self.front(domid).apply(&answer.meta);
            } else {
                let owned = self.fronts.all.contains_key(&meta.owner);
                assert!(!owned || self.unwanted.contains(&id), "{id} is lost");
                self.front(domid).forget(id);
            }
        }
        self.front(domid).away = false;
        self.registrar.domain_resumed(domid, &mut self.fronts);
    }

    /// Takes a step; `false`: the registrar was killed in it.
    fn step(&mut self, step: &Step) -> bool {
        let living = self.living();
        let Some(&domid) = living.get(step.domain % living.len().max(1)) else {
            return true;
        };
        let known: Vec<i32> = self.front(domid).known.keys().copied().collect();
        let id = known.get(step.which % known.len().max(1)).copied();
        match (step.what, id) {
            (What::Get(kind, key), _) => self.get(domid, kind, key),
            (What::Attach, Some(id)) => self.attach(domid, id),
            (What::Detach, Some(id)) => self.detach(domid, id),
            (What::Remove, Some(id)) => self.remove(domid, id),
            (What::Set, Some(id)) => self.change(domid, &about(LinkOp::Set, id)),
            (What::Die, _) if living.len() > 1 => {
                self.fronts.all.remove(&domid);
                let died = self.work(|registrar, fronts| registrar.domain_died(domid, fronts));
                if died.is_some() {
                    self.enrolled.retain(|other| *other != domid);
                }
                died.is_some()
            }
            _ => true,
        }
    }

    /// Asks for a change, and takes over what came of it.
    fn change(&mut self, domid: Domid, request: &LinkMsg) -> bool {
        match self.ask(domid, request) {
            Some(answer) => {
                if answer.errno == 0 {
                    self.front(domid).apply(&answer.meta);
                }
                true
            }
            None => false,
        }
    }

    fn get(&mut self, domid: Domid, kind: Kind, key: i32) -> bool {
        let id = self.next_id;
        self.next_id += 1;
        let request = get(kind, key, 4096, IPC_CREAT, [id; 4]);
        let Some(answer) = self.ask(domid, &request) else {
            return false;
        };
        if answer.errno == 0 {
            let known = &mut self.front(domid).known;
            let there = known.get(&answer.meta.id).is_some_and(|(_, m)| *m);
            known.insert(answer.meta.id, (answer.meta, there || answer.created == 1));
        }
        true
    }

    fn attach(&mut self, domid: Domid, id: i32) -> bool {
        let (meta, mapped) = self.front(domid).known[&id];
        if meta.kind != Kind::Shm as u32 && mapped || meta.state == State::Lost as u32 {
            return true;
        }
        if !mapped {
            let Some(answer) = self.ask(domid, &about(LinkOp::Locate, id)) else {
                return false;
            };
            if answer.errno != 0 {
                return true;
            }
            self.front(domid).known.insert(id, (answer.meta, true));
        }
        *self.front(domid).attached.entry(id).or_default() += 1;
        true
    }

    fn detach(&mut self, domid: Domid, id: i32) -> bool {
        let front = self.front(domid);
        let Some(nattch @ 1..) = front.attached.get_mut(&id) else {
            return true;
        };
        *nattch -= 1;
        if *nattch > 0 || front.known[&id].0.state == State::Live as u32 {
            return true;
        }
        self.change(domid, &about(LinkOp::Zero, id))
    }

    fn remove(&mut self, domid: Domid, id: i32) -> bool {
        self.unwanted.insert(id);
        let mut request = about(LinkOp::Remove, id);
        request.usage.nattch = self.front(domid).nattch(id);
        self.change(domid, &request)
    }

    /// What must be true whenever no request is under way.
    fn check(&mut self) {
        let mut there: BTreeMap<i32, Meta> = BTreeMap::new();
        let asker = self.living()[0];
        for kind in [Kind::Shm, Kind::Sem, Kind::Msg] {
            let mut index = 0;
            loop {
                let mut next = LinkMsg::new(LinkOp::Next);
                (next.meta.kind, next.meta.index) = (kind as u32, index);
                let answer = self.ask(asker, &next).unwrap();
                if answer.errno != 0 {
                    break;
                }
                index = answer.meta.index + 1;
                there.insert(answer.meta.id, answer.meta);
            }
        }
        let kept: BTreeMap<i32, Meta> = self
            .place
            .kept
            .borrow()
            .iter()
            .map(|(id, kept)| (*id, kept.meta))
            .collect();
        assert_eq!(there, kept, "what is kept is what there is");
        for (domid, front) in &self.fronts.all {
            for (id, (meta, _)) in &front.known {
                assert_eq!(there.get(id), Some(meta), "as domain {domid} knows it");
            }
            for (id, nattch) in &front.attached {
                let known = front.known.contains_key(id);
                let lost = !known && *nattch > 0;
                assert!(!lost, "{id} went while domain {domid} had it attached");
            }
        }
        for (id, meta) in &there {
            match self.fronts.all.get(&meta.owner) {
                Some(owner) => assert!(owner.known.contains_key(id), "{id} has no memory"),
                None => assert_eq!(meta.state, State::Lost as u32, "{id} has no owner"),
            }
            let used = self.fronts.all.values().any(|front| front.nattch(*id) > 0);
            let live = meta.state == State::Live as u32;
            assert!(
                live || used || meta.kind != Kind::Shm as u32,
                "{id} is left"
            );
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum What {
    Get(Kind, i32),
    Attach,
    Detach,
    Remove,
    Set,
    Die,
}

#[derive(Clone, Debug)]
struct Step {
    what: What,
    domain: usize,
    which: usize,
}

fn steps() -> impl Strategy<Value = Step> {
    let kind = prop_oneof![3 => Just(Kind::Shm), 1 => Just(Kind::Sem)];
    let what = prop_oneof![
        4 => (kind, 0..3i32).prop_map(|(kind, key)| What::Get(kind, key)),
        3 => Just(What::Attach),
        2 => Just(What::Detach),
        2 => Just(What::Remove),
        1 => Just(What::Set),
        1 => Just(What::Die),
    ];
    (what, 0..3usize, 0..4usize).prop_map(|(what, domain, which)| Step {
        what,
        domain,
        which,
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// For each step of a script: the registrar is killed after each of the things that it does there,
    /// then another goes on, and so does the script.
    #[test]
    fn a_registrar_may_be_killed_at_any_moment(script in prop::collection::vec(steps(), 1..24)) {
        for at in 0..script.len() {
            let mut fuse = 0;
            while killed_at(&script, at, fuse) {
                fuse += 1;
            }
        }
    }
}

/// Whether the registrar does so much in a step of the script that it is killed there.
fn killed_at(script: &[Step], at: usize, fuse: u32) -> bool {
    let mut world = World::new();
    let mut killed = false;
    for (n, step) in script.iter().enumerate() {
        if n == at {
            world.place.fuse.set(fuse);
        }
        if !world.step(step) {
            killed = true;
            world.restart();
        }
        world.place.fuse.0.set(None);
        world.check();
    }
    killed
}

#[test]
fn keys_survive_and_a_domain_that_died_meanwhile_is_found_dead() {
    let mut world = World::new();
    assert!(world.get(1, Kind::Shm, 5) && world.get(2, Kind::Sem, 6));
    assert!(world.get(2, Kind::Shm, 5) && world.get(3, Kind::Sem, 6));
    let segment = world.id_of(1, Kind::Shm);
    let set = world.id_of(3, Kind::Sem);
    assert!(world.attach(2, segment) && world.attach(3, set));
    world.fronts.all.remove(&1);
    world.restart();
    world.check();
    let of_dead = world.front(2).known[&segment].0;
    assert_eq!((of_dead.state, of_dead.key), (State::Lost as u32, 0));
    let again = get(Kind::Sem, 6, 4096, 0, [9; 4]);
    assert_eq!(world.ask(3, &again).unwrap().meta.id, set);
}

#[test]
fn a_domain_that_dies_after_a_restart_has_departed_with_its_epoch() {
    let mut world = World::new();
    assert!(world.get(1, Kind::Sem, 6) && world.get(2, Kind::Sem, 6));
    let set = world.id_of(2, Kind::Sem);
    assert!(world.attach(2, set));
    world.restart();
    let dies = Step {
        what: What::Die,
        domain: 1,
        which: 0,
    };
    assert!(world.step(&dies));
    assert_eq!(world.front(1).departed, [(set, 2, 7)]);
}

#[test]
fn a_domain_that_has_not_resumed_may_have_anything_attached() {
    let mut world = World::new();
    assert!(world.get(1, Kind::Shm, 5) && world.get(2, Kind::Shm, 5));
    let segment = world.id_of(1, Kind::Shm);
    world.restart_without(2);
    let removed = world.ask(1, &about(LinkOp::Remove, segment)).unwrap();
    assert_eq!(state(&removed), State::Dest);
    world.front(1).apply(&removed.meta);
    world.resume(2);
    assert!(world.front(1).known.is_empty() && world.front(2).known.is_empty());
    world.check();
}

#[test]
fn nothing_of_which_nothing_is_attached_outlives_a_removal_and_a_restart() {
    let mut world = World::new();
    assert!(world.get(1, Kind::Shm, 5) && world.get(2, Kind::Shm, 5));
    let id = world.id_of(1, Kind::Shm);
    assert!(world.attach(2, id) && world.remove(1, id));
    assert_eq!(
        state(&world.ask(1, &about(LinkOp::Find, id)).unwrap()),
        State::Dest
    );
    // Its last attachment goes while nobody can be told.
    world.front(2).attached.clear();
    world.restart();
    world.check();
    assert!(
        world
            .fronts
            .all
            .values()
            .all(|front| front.known.is_empty())
    );
}

#[test]
fn what_cannot_be_kept_is_not_made() {
    let mut world = World::new();
    world.place.full.set(true);
    let refused = world.ask(1, &get(Kind::Shm, 5, 4096, IPC_CREAT, [1; 4]));
    assert_eq!(refused.unwrap().errno, libc::ENOSPC);
    world.place.full.set(false);
    world.check();
    let made = world
        .ask(1, &get(Kind::Shm, 5, 4096, IPC_CREAT, [1; 4]))
        .unwrap();
    assert_eq!((made.errno, made.created, made.meta.index), (0, 1, 0));
}
