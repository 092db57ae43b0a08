// SPDX-License-Identifier: MIT OR Apache-2.0
//! A process dies right before one of its stores, before each of them in turn; `vshmemd` clears up
//! after it. Afterwards it looks as if the call had never been made, or as if the process had died
//! after it: a message is there whole, once, or not at all. The one who clears up can die too.

use super::driver::{self, Driver, Step, token_of};
use super::sound::{self, Seen};
use super::*;
use crate::region::recover::Dead;
use crate::testing::{Mortal, dies_at};
use proptest::prelude::*;
use std::sync::atomic::AtomicUsize;

/// A queue as it was at some moment, and who used it.
#[derive(Clone)]
struct Moment {
    words: Vec<u64>,
    driver: Driver,
}

impl Moment {
    fn after(qbytes: u64, steps: &[Step]) -> Self {
        let words: Vec<Mortal> = new_words(qbytes).into_iter().map(Mortal).collect();
        let mut driver = Driver::new();
        let queue = Queue::new(&words, SMALL).unwrap();
        for step in steps {
            if driver.has_room(&queue) || !matches!(step, Step::Send { .. } | Step::Receive { .. })
            {
                driver.take(&queue, step);
            }
        }
        Self::of(&words, driver)
    }

    fn of(words: &[Mortal], driver: Driver) -> Self {
        let words = words.iter().map(|word| word.0.load(Relaxed));
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

fn after_burial(words: &[Mortal], driver: &Driver, life: usize) -> Seen {
    let queue = Queue::new(words, SMALL).unwrap();
    driver.bury(&queue, life, DAEMON);
    sound::check(&queue);
    Seen::of(&queue)
}

/// How often each text is in the queue or in somebody's hands.
fn copies(seen: &Seen) -> Vec<(sound::Text, usize)> {
    let mut texts = seen.messages.clone();
    texts.extend(seen.waiting.iter().filter_map(|waiting| waiting.1));
    texts.extend(seen.results.iter().filter_map(|result| result.2));
    texts.sort_unstable();
    let mut counts: Vec<(sound::Text, usize)> = Vec::new();
    for text in texts {
        match counts.last_mut() {
            Some((last, count)) if *last == text => *count += 1,
            _ => counts.push((text, 1)),
        }
    }
    counts
}

/// Lets `life` die before each of the stores that `step` makes, and clears up. Returns how many there
/// are. With `strict` there is nothing between done and not done; else receivers with too little room may
/// have been told so by a sender that died over it.
fn die_everywhere(moment: &Moment, life: usize, step: &Step, strict: bool) -> usize {
    let never = after_burial(&moment.words(), &moment.driver, life);
    let words = moment.words();
    let mut driver = moment.driver.clone();
    driver.take(&Queue::new(&words, SMALL).unwrap(), step);
    let done = after_burial(&words, &driver, life);
    let several = returned(moment, life) + usize::from(matches!(step, Step::Send { .. })) > 1;
    for stores in 0.. {
        let words = moment.words();
        let queue = Queue::new(&words, SMALL).unwrap();
        let mut driver = moment.driver.clone();
        if !dies_at(stores, || driver.take(&queue, step)) {
            return stores;
        }
        bury_dying(&words, &driver, life, several);
        let seen = Seen::of(&queue);
        if strict && seen != never {
            assert_eq!(
                seen, done,
                "neither done nor not, store {stores} of {step:?}"
            );
        }
        let allowed = [copies(&never), copies(&done)];
        let found = copies(&seen);
        assert!(
            allowed.contains(&found),
            "store {stores} of {step:?}: {found:?}, not {allowed:?}"
        );
    }
    unreachable!()
}

/// How many messages come back from `life`, should it die: those that it was handed.
fn returned(moment: &Moment, life: usize) -> usize {
    let words = moment.words();
    let seen = Seen::of(&Queue::new(&words, SMALL).unwrap());
    let handed = seen
        .results
        .iter()
        .filter(|(token, _, message)| *token == token_of(life).raw() && message.is_some());
    handed.count()
}

/// Clears up after `life`, with daemons that die at it before each of their own stores; the last one
/// does not. If `several` messages come back from the dead, who waits may be given one before the next is there,
/// by whoever goes on after such a death.
fn bury_dying(words: &[Mortal], driver: &Driver, life: usize, several: bool) {
    let before = Moment::of(words, driver.clone());
    let queue = Queue::new(words, SMALL).unwrap();
    driver.bury(&queue, life, DAEMON);
    sound::check(&queue);
    let seen = Seen::of(&queue);
    let other = Token::new(2, 0);
    // Each first death is followed by a second one somewhere: every third place, for time's sake.
    for stores in (0..).step_by(3) {
        let words = before.words();
        let queue = Queue::new(&words, SMALL).unwrap();
        if !dies_at(stores, || driver.bury(&queue, life, DAEMON)) {
            break;
        }
        let around = Around::of(2);
        // Busy: the lock is that of the first dead still.
        let _ = queue.clean_up(other, Dead::Client(DAEMON), 5000, &around);
        driver.bury(&queue, life, other);
        sound::check(&queue);
        let again = Seen::of(&queue);
        if several {
            let found = copies(&again);
            assert_eq!(found, copies(&seen), "second death, store {stores}");
        } else {
            assert_eq!(again, seen, "second death, store {stores}");
        }
    }
}

fn send(process: usize, mtype: i64, size: u32) -> Step {
    Step::Send {
        process,
        mtype,
        size,
    }
}

fn receive(process: usize, mtype: i64) -> Step {
    let want = Want::new(mtype, false, 2000);
    Step::Receive { process, want }
}

const TAKES: Step = Step::Take {
    nth: 0,
    keeps: false,
};

/// What was before, in a queue of so many bytes, and the call at which process 0 dies.
fn scenarios() -> Vec<(&'static str, u64, Vec<Step>, Step)> {
    let full = || vec![send(1, 1, 60), send(1, 2, 40)];
    let waiting_senders =
        || [full(), vec![send(2, 3, 30), send(3, 1, 600), send(1, 2, 5)]].concat();
    let receivers = || {
        vec![
            receive(1, 2),
            receive(2, 1),
            receive(3, 0),
            Step::Sleep { nth: 0 },
        ]
    };
    vec![
        ("sends", 1000, full(), send(0, 1, 8)),
        ("sends a long one", 2000, full(), send(0, 1, 1000)),
        ("hands over", 1000, receivers(), send(0, 1, 8)),
        ("hands a long one over", 2000, receivers(), send(0, 3, 900)),
        ("waits to send", 100, full(), send(0, 1, 8)),
        ("waits to send a long one", 100, full(), send(0, 1, 900)),
        ("receives", 100, full(), receive(0, 2)),
        (
            "receives a long one",
            2000,
            vec![send(1, 1, 700), send(1, 1, 8)],
            receive(0, 1),
        ),
        (
            "receives and lets in",
            100,
            waiting_senders(),
            receive(0, 1),
        ),
        (
            "lets in long ones",
            700,
            [vec![send(1, 1, 690)], waiting_senders()].concat(),
            receive(0, -1),
        ),
        ("waits to receive", 1000, receivers(), receive(0, 1)),
        (
            "takes what it was handed",
            1000,
            vec![receive(0, 0), send(1, 1, 8)],
            TAKES,
        ),
        (
            "takes a long one",
            2000,
            vec![receive(0, 0), send(1, 1, 800)],
            TAKES,
        ),
        (
            "takes a long one for a handler",
            2000,
            vec![receive(0, 0), send(1, 1, 800)],
            Step::Take {
                nth: 0,
                keeps: true,
            },
        ),
        (
            "takes what another wants too",
            2000,
            vec![
                receive(0, 0),
                send(1, 1, 800),
                receive(2, 1),
                Step::Sleep { nth: 1 },
            ],
            TAKES,
        ),
        (
            "gives up sending",
            100,
            vec![send(1, 1, 99), send(0, 1, 600), send(2, 1, 5)],
            Step::GiveUp { nth: 0 },
        ),
        (
            "gives up receiving",
            100,
            vec![receive(0, 1), receive(1, 1)],
            Step::GiveUp { nth: 0 },
        ),
        (
            "is interrupted",
            100,
            vec![send(1, 1, 99), send(0, 1, 600)],
            Step::Interrupt { nth: 0 },
        ),
        (
            "has the queue take more",
            100,
            waiting_senders(),
            Step::SetLimit { qbytes: 2000 },
        ),
    ]
}

#[test]
fn a_death_at_any_store_leaves_a_message_there_whole_or_not_at_all() {
    let mut points = 0;
    for (name, qbytes, before, step) in scenarios() {
        let moment = Moment::after(qbytes, &before);
        let own = die_everywhere(&moment, 0, &step, true);
        println!("{name}: {own} stores");
        assert!(own > 2, "{name}");
        points += own;
    }
    println!("{points} deaths");
    assert!(points > 800, "{points}");
}

#[test]
fn a_death_at_any_store_over_receivers_with_too_little_room_leaves_the_message_whole_or_not() {
    let narrow = |process| Step::Receive {
        process,
        want: Want::new(1, false, 3),
    };
    let before = [narrow(1), narrow(2), receive(3, 1)];
    for size in [8, 900] {
        let moment = Moment::after(2000, &before);
        assert!(die_everywhere(&moment, 0, &send(0, 1, size), false) > 50);
    }
}

#[test]
fn messages_that_come_back_over_several_deaths_are_there_once_each() {
    let before = [
        receive(0, -3),
        send(0, 2, 0),
        receive(0, 0),
        send(0, 1, 0),
        receive(1, -2),
    ];
    let moment = Moment::after(400, &before);
    assert_eq!(returned(&moment, 0), 2);
    assert!(die_everywhere(&moment, 0, &send(0, 1, 0), false) > 2);
}

#[test]
fn a_death_at_any_store_of_any_sequence_leaves_the_queue_sound() {
    let points = AtomicUsize::new(0);
    let config = ProptestConfig {
        cases: cases(200),
        failure_persistence: None,
        ..ProptestConfig::default()
    };
    let sequences = (prop::collection::vec(driver::step(), 0..25), driver::step());
    proptest!(config, |((steps, last) in sequences)| {
        let moment = Moment::after(400, &steps);
        let life = match &last {
            Step::Send { process, .. } | Step::Receive { process, .. } => {
                moment.driver.lives[*process]
            }
            Step::SetLimit { .. } | Step::LookAgain { .. } => moment.driver.lives[0],
            // Whose wait it is depends on the queue.
            _ => return Ok(()),
        };
        let words = moment.words();
        if moment.driver.has_room(&Queue::new(&words, SMALL).unwrap()) {
            points.fetch_add(die_everywhere(&moment, life, &last, false), Relaxed);
        }
    });
    let points = points.into_inner();
    println!("{points} deaths");
    assert!(cfg!(miri) || points > 3000, "{points}");
}

#[test]
fn what_a_dead_domain_held_comes_back_and_what_it_was_handed_is_handed_on() {
    let steps = [
        receive(0, 0),
        send(1, 1, 700),
        receive(2, 2),
        receive(3, 1),
        Step::Sleep { nth: 1 },
    ];
    let moment = Moment::after(2000, &steps);
    let (other, around) = (Token::new(2, 0), Around::of(2));
    for stores in 0.. {
        let words = moment.words();
        let queue = Queue::new(&words, SMALL).unwrap();
        // Somebody of that domain was filling a message.
        let domain = Around::of(1);
        let mut locked = queue.try_lock(token_of(2), &domain).unwrap();
        locked.hold(1000, 1, token_of(2)).unwrap();
        locked.unlock();
        let clear = |by| queue.clean_up(by, Dead::Domain(1, 0), 5000, &around);
        let died = dies_at(stores, || clear(other));
        let third = Token::new(3, 0);
        let _ = queue.clean_up(third, Dead::Client(other), 5000, &around);
        clear(third).unwrap();
        sound::check(&queue);
        let seen = Seen::of(&queue);
        let handed = (token_of(3).raw(), 0, Some((1, 700, 0x100)));
        assert_eq!(seen.results, [handed], "{stores}");
        assert!(seen.messages.is_empty() && seen.waiting.is_empty() && seen.held.is_empty());
        if !died {
            assert!(stores > 40, "{stores}");
            return;
        }
    }
}
