// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is true of a set that nobody works on.

use super::*;
use crate::testing::{check_quiet, walk};
use std::collections::{HashMap, HashSet};
use vshmem_abi::limits::SEMVMX;
use vshmem_abi::set::undo;

/// Asserts it.
pub fn check<C: Cell64>(set: &Set<'_, C>) {
    let shape = set.shape;
    check_quiet(set);
    let all = walk(set, set.line_of_waiters(waiter::LINK, region::QUEUE));
    let mut by_sem: HashMap<u32, Vec<u32>> = HashMap::new();
    let mut complex = 0;
    for &index in &all {
        let state = set.load(set.waiter(index) + waiter::STATE);
        assert_eq!(state & 0xff, waiter::QUEUED, "state of waiter {index}");
        if (state >> 16) as u16 == 1 {
            let op = Op(set.load(set.waiter(index) + waiter::OPS));
            by_sem.entry(op.num()).or_default().push(index);
        } else {
            complex += 1;
        }
    }
    assert_eq!(
        halves(set.load(region::COUNTS)),
        (all.len() as u32, complex),
        "counts"
    );
    for num in 0..shape.sems {
        let line = set.line_of_waiters(waiter::SEM_LINK, set.sem_queue(num));
        let own = walk(set, line);
        assert_eq!(own, by_sem.remove(&num).unwrap_or_default(), "queue {num}");
        assert!((set.load(set.sem(num)) & 0xffff) as i32 <= SEMVMX);
    }
    assert!(by_sem.is_empty());
    check_records(set, &all);
    check_undo(set);
}

fn check_records<C: Cell64>(set: &Set<'_, C>, queued: &[u32]) {
    let shape = set.shape;
    let mut longs = 0;
    for index in 0..shape.waiters {
        let at = set.waiter(index);
        let state = set.load(at + waiter::STATE);
        let count = (state >> 16) as u16 as usize;
        match state & 0xff {
            waiter::FREE => continue,
            waiter::QUEUED => {
                assert!(queued.contains(&index), "waiter {index} is in no queue");
                assert!((set.load(at + waiter::OUTCOME) as usize) < count);
            }
            _ => {}
        }
        assert!((1..=shape.ops as usize).contains(&count));
        match ((state >> 32) as u32).checked_sub(1) {
            Some(long) => {
                longs += 1;
                assert!(long < set.load(set::LONG_HIGH) as u32);
                assert_eq!(set.load(set.long(long)), u64::from(index) + 1);
            }
            None => assert!(count <= waiter::INLINE),
        }
    }
    let taken = (0..shape.longs).filter(|&long| set.load(set.long(long)) != 0);
    assert_eq!(taken.count(), longs, "long lists");
}

fn check_undo<C: Cell64>(set: &Set<'_, C>) {
    let mut tokens = HashSet::new();
    for record in 0..set.shape.undos {
        let at = set.undo(record);
        let token = set.load(at + undo::TOKEN);
        if token == 0 {
            let words = undo::ADJUST..set.shape.undo_words();
            assert!(words.clone().all(|word| set.load(at + word) == 0));
        } else {
            assert!(u64::from(record) < set.load(set::UNDO_HIGH));
            assert!(tokens.insert(token), "two undo records of one process");
        }
    }
}

/// What callers can tell of a set: values and who set them, who waits for what, results that are to be
/// taken, undo by process, time of the last change by `semctl`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub sems: Vec<u64>,
    pub waiting: Vec<(u64, Vec<u64>)>,
    pub results: Vec<(u32, u64, i32)>,
    pub undo: Vec<(u64, Vec<u64>)>,
    pub changed: u64,
}

impl Seen {
    pub fn of<C: Cell64>(set: &Set<'_, C>) -> Self {
        let shape = set.shape;
        let token = |index: u32| set.load(set.waiter(index) + waiter::TOKEN);
        let ops = |index: u32| {
            let state = set.load(set.waiter(index) + waiter::STATE);
            let at = match ((state >> 32) as u32).checked_sub(1) {
                Some(long) => set.long(long) + 1,
                None => set.waiter(index) + waiter::OPS,
            };
            let count = (state >> 16) as u16 as usize;
            (at..at + count).map(|at| set.load(at)).collect()
        };
        let is_done =
            |&index: &u32| set.load(set.waiter(index) + waiter::STATE) & 0xff == waiter::DONE;
        let adjustments = |record: u32| {
            let at = set.undo(record);
            (at + undo::ADJUST..at + shape.undo_words())
                .map(|at| set.load(at))
                .collect::<Vec<_>>()
        };
        let mut undo: Vec<_> = (0..shape.undos)
            .map(|record| {
                (
                    set.load(set.undo(record) + undo::TOKEN),
                    adjustments(record),
                )
            })
            // A record without adjustments is as good as none.
            .filter(|(_, adjustments)| adjustments.iter().any(|&word| word != 0))
            .collect();
        undo.sort();
        Self {
            sems: (0..shape.sems).map(|num| set.load(set.sem(num))).collect(),
            waiting: walk(set, set.line_of_waiters(waiter::LINK, region::QUEUE))
                .into_iter()
                .map(|index| (token(index), ops(index)))
                .collect(),
            results: (0..shape.waiters)
                .filter(is_done)
                .map(|index| (index, token(index), set.result(index)))
                .collect(),
            undo,
            changed: set.load(set::CTIME),
        }
    }
}
