// SPDX-License-Identifier: MIT OR Apache-2.0
//! A process dies right before one of its stores, before each of them in turn; `vshmemd` clears up
//! after it. Afterwards it looks as if the call had never been made, or as if the process had died
//! after it. The one who clears up can die too.

use super::driver::{self, Driver, Step, domain_of, token_of};
use super::sound::{self, Seen};
use super::*;
use crate::testing::{Mortal, dies_at};
use proptest::prelude::*;
use std::sync::atomic::{AtomicUsize, Ordering};

/// A set as it was at some moment, and who used it.
#[derive(Clone)]
struct Moment {
    words: Vec<u64>,
    driver: Driver,
}

impl Moment {
    fn after(steps: &[Step]) -> Self {
        let words: Vec<Mortal> = new_words(SMALL).into_iter().map(Mortal).collect();
        let mut driver = Driver::new();
        for step in steps {
            driver.take(&Set::new(&words, SMALL).unwrap(), step);
        }
        Self::of(&words, driver)
    }

    fn of(words: &[Mortal], driver: Driver) -> Self {
        let words = words.iter().map(|word| word.0.load(Ordering::Relaxed));
        Self {
            words: words.collect(),
            driver,
        }
    }

    fn words(&self) -> Vec<Mortal> {
        let words = self.words.iter();
        words.map(|&word| Mortal(AtomicU64::new(word))).collect()
    }
}

/// What is seen once `vshmemd` has cleared up after `life`.
fn after_burial(words: &[Mortal], driver: &Driver, life: usize) -> Seen {
    let set = Set::new(words, SMALL).unwrap();
    driver.bury(&set, life, DAEMON);
    sound::check(&set);
    Seen::of(&set)
}

/// Lets `life` die before each of the stores that `step` makes, and clears up. Returns how many there
/// are.
fn die_everywhere(moment: &Moment, life: usize, step: &Step) -> usize {
    let never = after_burial(&moment.words(), &moment.driver, life);
    let words = moment.words();
    let mut driver = moment.driver.clone();
    driver.take(&Set::new(&words, SMALL).unwrap(), step);
    let done = after_burial(&words, &driver, life);
    let slept = asleep(&Set::new(&moment.words(), SMALL).unwrap(), &moment.driver);
    for stores in 0.. {
        let words = moment.words();
        let set = Set::new(&words, SMALL).unwrap();
        let mut driver = moment.driver.clone();
        if !dies_at(stores, || driver.take(&set, step)) {
            return stores;
        }
        // Some who were told take their results before anybody clears up.
        let mut taken = Vec::new();
        if stores % 2 == 1 {
            let told = |of: &&driver::Waiter| set.look(of.index) == waiter::POSTED;
            for of in driver
                .waiters
                .iter()
                .filter(told)
                .filter(|of| of.process != life)
            {
                taken.push((of.index, token_of(of.process).raw(), set.collect(of.index)));
            }
        }
        bury_dying(&words, &driver, life, &slept);
        let mut seen = Seen::of(&set);
        seen.results.extend(taken);
        seen.results.sort_unstable();
        if seen != never {
            assert_eq!(
                seen, done,
                "neither done nor not, store {stores} of {step:?}"
            );
        }
    }
    unreachable!()
}

/// Clears up after `life`, with daemons that die at it before each of their own stores; the last one
/// does not.
fn bury_dying(words: &[Mortal], driver: &Driver, life: usize, slept: &[u32]) {
    let before = Moment::of(words, driver.clone());
    let set = Set::new(words, SMALL).unwrap();
    let woken = driver.bury(&set, life, DAEMON);
    sound::check(&set);
    let seen = Seen::of(&set);
    // `slept` slept before the call began: whoever served them has not woken them.
    let served = |of: &&u32| is_done(&set, **of);
    for of in slept.iter().filter(served) {
        assert!(woken.contains(of), "waiter {of} was told and not woken");
    }
    let other = Token::new(2, 0);
    // Each first death is followed by a second one somewhere: every third place, for time's sake.
    for stores in (0..).step_by(3) {
        let words = before.words();
        let set = Set::new(&words, SMALL).unwrap();
        if !dies_at(stores, || driver.bury(&set, life, DAEMON)) {
            break;
        }
        let around = Around::of(2);
        // Busy: the lock is that of the first dead still.
        let _ = set.clean_up(other, Dead::Client(DAEMON), driver.now, &around);
        driver.bury(&set, life, other);
        sound::check(&set);
        assert_eq!(Seen::of(&set), seen, "second death, store {stores}");
    }
}

/// Who sleeps.
fn asleep<C: Cell64>(set: &Set<'_, C>, driver: &Driver) -> Vec<u32> {
    let indices = driver.waiters.iter().map(|of| of.index);
    indices
        .filter(|&of| set.look(of) == waiter::ASLEEP)
        .collect()
}

fn is_done<C: Cell64>(set: &Set<'_, C>, index: u32) -> bool {
    set.load(set.waiter(index) + waiter::STATE) & 0xff == waiter::DONE
}

fn semop(process: usize, ops: &[(u16, i16, u16)]) -> Step {
    let ops = ops
        .iter()
        .map(|&(num, change, flags)| Op::new(num, change, flags));
    Step::Semop {
        process,
        ops: ops.collect(),
    }
}

fn value(num: u32, value: i32) -> Step {
    Step::SetValue {
        process: 3,
        num,
        value,
    }
}

/// Nine operations, more than fit into a waiter's record.
fn long(process: usize, change: i16) -> Step {
    semop(process, &[(1, change, 0); 9])
}

/// What was before, and the call at which process 0 dies.
fn scenarios() -> Vec<(&'static str, Vec<Step>, Step)> {
    let sleep = |nth| Step::Sleep { nth };
    let waits = |process, num| semop(process, &[(num, -1, 0)]);
    let crowd = || vec![waits(1, 0), waits(2, 0), waits(3, 0), sleep(1)];
    vec![
        ("alone", vec![], semop(0, &[(0, 1, 0)])),
        ("undo", vec![], semop(0, &[(0, 1, SEM_UNDO)])),
        (
            "undo of several",
            vec![value(0, 2), semop(0, &[(0, -1, SEM_UNDO)])],
            semop(
                0,
                &[(0, -1, SEM_UNDO), (1, 1, SEM_UNDO), (1, 1, 0), (2, 0, 0)],
            ),
        ),
        (
            "fails half-way",
            vec![value(0, 2)],
            semop(0, &[(0, -1, SEM_UNDO), (1, -1, NOWAIT)]),
        ),
        ("wakes one", crowd(), semop(0, &[(0, 1, 0)])),
        ("wakes several", crowd(), semop(0, &[(0, 3, SEM_UNDO)])),
        (
            "wakes who waits for zero",
            vec![
                value(0, 1),
                semop(1, &[(0, 0, 0)]),
                semop(2, &[(0, 0, 0)]),
                sleep(0),
                sleep(0),
            ],
            semop(0, &[(0, -1, 0)]),
        ),
        (
            "wakes one who wakes another",
            vec![
                semop(1, &[(0, -1, 0), (1, 1, SEM_UNDO)]),
                waits(2, 1),
                long(3, -1),
                sleep(0),
            ],
            semop(0, &[(0, 1, SEM_UNDO), (1, 9, 0)]),
        ),
        (
            "makes another fail",
            vec![semop(1, &[(0, -1, 0), (1, -1, NOWAIT)]), sleep(0)],
            semop(0, &[(0, 1, 0)]),
        ),
        ("waits", vec![], waits(0, 1)),
        ("waits behind others", crowd(), waits(0, 0)),
        (
            "waits with several",
            crowd(),
            semop(0, &[(0, -1, SEM_UNDO), (2, -1, 0)]),
        ),
        ("waits with many", crowd(), long(0, -1)),
        (
            "gives up",
            vec![waits(0, 0), waits(1, 0), long(2, -1)],
            Step::GiveUp { nth: 0 },
        ),
        (
            "gives up with many",
            vec![long(0, -1), waits(1, 0)],
            Step::GiveUp { nth: 0 },
        ),
        (
            "is interrupted",
            vec![long(0, -1), waits(1, 0)],
            Step::Interrupt { nth: 0 },
        ),
        (
            "takes its result",
            vec![long(0, -1), semop(1, &[(1, 9, 0)])],
            Step::Collect { nth: 0 },
        ),
        (
            "SETVAL",
            [crowd(), vec![semop(2, &[(0, 1, SEM_UNDO)])]].concat(),
            Step::SetValue {
                process: 0,
                num: 0,
                value: 2,
            },
        ),
        (
            "SETALL",
            [crowd(), vec![long(1, -1), semop(2, &[(2, 1, SEM_UNDO)])]].concat(),
            Step::SetAll {
                process: 0,
                values: vec![2, 9, 1],
            },
        ),
        (
            "the end of another",
            vec![
                semop(1, &[(0, 2, SEM_UNDO), (1, 1, SEM_UNDO)]),
                semop(2, &[(0, -2, 0), (2, 1, 0)]),
                semop(3, &[(0, 0, 0), (1, 0, 0), (2, -1, 0)]),
            ],
            semop(0, &[(2, 1, SEM_UNDO)]),
        ),
    ]
}

#[test]
fn a_death_at_any_store_leaves_the_call_done_or_not() {
    let mut points = 0;
    for (name, before, step) in scenarios() {
        let moment = Moment::after(&before);
        let own = die_everywhere(&moment, 0, &step);
        println!("{name}: {own} stores");
        assert!(own > 2, "{name}");
        points += own;
    }
    println!("{points} deaths");
    assert!(points > 500, "{points}");
}

#[test]
fn a_death_at_any_store_of_any_sequence_leaves_the_call_done_or_not() {
    let points = AtomicUsize::new(0);
    let config = ProptestConfig {
        cases: cases(300),
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let sequences = (prop::collection::vec(driver::step(), 0..25), driver::step());
    proptest!(config, |((steps, last) in sequences)| {
        let moment = Moment::after(&steps);
        let life = match &last {
            Step::Semop { process, .. }
            | Step::SetValue { process, .. }
            | Step::SetAll { process, .. } => moment.driver.lives[*process],
            // Whose wait it is depends on the queue.
            _ => return Ok(()),
        };
        points.fetch_add(die_everywhere(&moment, life, &last), Ordering::Relaxed);
    });
    let points = points.into_inner();
    println!("{points} deaths");
    assert!(cfg!(miri) || points > 3000, "{points}");
}

#[test]
fn a_list_whose_owner_died_freeing_its_record_is_not_taken_from_the_next_owner() {
    for stores in 0..3 {
        let mut moment = Moment::after(&[long(0, -1), semop(1, &[(1, 9, 0)])]);
        let words = moment.words();
        let set = Set::new(&words, SMALL).unwrap();
        let mut driver = moment.driver.clone();
        assert!(dies_at(stores, || driver.take(&set, &Step::Collect { nth: 0 })));
        // The lock was not held: others go on.
        driver.take(&set, &long(2, -1));
        driver.take(&set, &long(3, -1));
        driver.bury(&set, 0, DAEMON);
        sound::check(&set);
        driver.take(&set, &semop(1, &[(1, 18, 0)]));
        assert_eq!(
            set.load(set.sem(1)) & 0xffff,
            if stores == 0 { 9 } else { 0 }
        );
        moment.driver = driver;
    }
}

#[test]
fn the_death_of_a_domain_takes_back_what_all_its_processes_would_have() {
    let steps = [
        semop(0, &[(0, 3, SEM_UNDO)]),
        semop(2, &[(1, 2, SEM_UNDO), (0, 1, SEM_UNDO)]),
        semop(1, &[(2, 1, SEM_UNDO)]),
        semop(2, &[(2, -2, 0)]),
        semop(3, &[(2, -2, 0)]),
    ];
    let moment = Moment::after(&steps);
    assert_eq!((domain_of(0), domain_of(2)), (1, 1));
    let other = Token::new(2, 0);
    let around = Around::of(2);
    for stores in 0.. {
        let words = moment.words();
        let set = Set::new(&words, SMALL).unwrap();
        let clean_up = |by: Token, dead: Dead| set.clean_up(by, dead, 5000, &around).unwrap();
        let died = dies_at(stores, || clean_up(other, Dead::Domain(1, 0)));
        clean_up(DAEMON, Dead::Client(other));
        clean_up(DAEMON, Dead::Domain(1, 0));
        sound::check(&set);
        let values = [0, 1, 2].map(|num| set.load(set.sem(num)) & 0xffff);
        assert_eq!(values, [0, 0, 1]);
        let waiting: Vec<_> = Seen::of(&set).waiting;
        assert_eq!(waiting.len(), 1);
        assert_eq!(waiting[0].0, token_of(3).raw());
        if !died {
            assert!(stores > 20);
            return;
        }
    }
}

#[test]
fn the_undo_of_a_process_is_seen_whole_or_not_at_all() {
    let own = [(0, 1, SEM_UNDO), (1, 2, SEM_UNDO), (2, 3, SEM_UNDO)];
    let moment = Moment::after(&[semop(0, &own)]);
    let (other, around) = (Token::new(2, 0), Around::of(2));
    let mut ways = std::collections::BTreeSet::new();
    for stores in 0.. {
        let words = moment.words();
        let set = Set::new(&words, SMALL).unwrap();
        let undone = || set.apply_undo(DAEMON, token_of(0), 1, 5000, &Around::of(1));
        let died = dies_at(stores, undone);
        set.clean_up(other, Dead::Client(DAEMON), 5000, &around)
            .unwrap();
        ways.insert([0, 1, 2].map(|num| set.load(set.sem(num)) & 0xffff));
        if !died {
            break;
        }
    }
    assert_eq!(Vec::from_iter(ways), [[0, 0, 0], [1, 2, 3]]);
}

#[test]
fn a_lock_whose_holder_lives_is_left_alone() {
    let words = new_words(SMALL);
    let set = Set::new(&words, SMALL).unwrap();
    let around = Around::of(1);
    let locked = set.try_lock(token_of(0), &around).unwrap();
    let dead = Dead::Client(token_of(1));
    assert!(set.clean_up(DAEMON, dead, 1, &around).is_err());
    assert!(set.apply_undo(DAEMON, token_of(0), 1, 1, &around).is_err());
    assert_eq!(set.lock_holder(), token_of(0));
    locked.unlock();
    assert!(set.clean_up(DAEMON, dead, 1, &around).is_ok());
}

#[test]
fn the_operations_of_a_waiter_that_is_known_to_be_dead_are_not_carried_out() {
    let words = new_words(SMALL);
    let set = Set::new(&words, SMALL).unwrap();
    let mut around = Around::of(1);
    let mut locked = set.try_lock(call(1).caller.token, &around).unwrap();
    let down = [Op::new(0, -1, 0)];
    let [dead, lives] = [(1, 11), (2, 12)]
        .map(|(serial, slot)| locked.wait(&down, &call(serial), slot, 0).unwrap());
    locked.unlock();
    around.dead.insert(11);
    let mut locked = set.try_lock(call(3).caller.token, &around).unwrap();
    assert_eq!(locked.get_count(0, false), 1);
    assert_eq!(locked.semop(&[Op::new(0, 1, 0)], &call(3)), Outcome::Done);
    assert_eq!(set.look(lives), waiter::POSTED);
    assert_eq!(set.look(dead), waiter::AWAKE);
    locked.unlock();
    set.collect(lives);
    set.clean_up(DAEMON, Dead::Client(call(1).caller.token), 1, &around)
        .unwrap();
    sound::check(&set);
    assert_eq!(set.load(region::COUNTS), 0);
}
