// SPDX-License-Identifier: MIT OR Apache-2.0
//! The semantics of the kernel's `ipc/sem.c`, written down plainly: its queues (of each semaphore, of
//! the set, merged while a call of several operations waits) and the order in which it serves them.

use super::*;
use std::collections::BTreeMap;
use vshmem_abi::limits::{SEMAEM, SEMVMX};

/// A call that sleeps.
#[derive(Clone, Debug)]
struct Sleeper {
    name: usize,
    process: usize,
    ops: Vec<Op>,
    blocking: usize,
}

impl Sleeper {
    fn alters(&self) -> bool {
        self.ops.iter().any(|op| op.change() != 0)
    }
}

#[derive(Clone, Debug, Default)]
struct Sem {
    value: i32,
    setter: Option<usize>,
    pending_alter: Vec<Sleeper>,
    pending_const: Vec<Sleeper>,
}

/// A set as the kernel has it. Processes are numbers that are never used again.
#[derive(Clone, Debug, Default)]
pub struct Kernel {
    sems: Vec<Sem>,
    pending_alter: Vec<Sleeper>,
    pending_const: Vec<Sleeper>,
    complex: usize,
    undo: BTreeMap<usize, Vec<i32>>,
    /// Calls that were served and have not taken their result.
    pub results: BTreeMap<usize, i32>,
    pub otime: i64,
    pub ctime: i64,
}

/// What came of trying a call.
enum Tried {
    Done,
    Failed(i32),
    Blocked(usize),
}

/// Which queue is looked at: that of a semaphore, or the set's.
type Which = Option<usize>;

impl Kernel {
    pub fn new(sems: usize) -> Self {
        Self {
            sems: vec![Sem::default(); sems],
            ..Self::default()
        }
    }

    pub fn value(&self, num: usize) -> i32 {
        self.sems[num].value
    }

    pub fn setter(&self, num: usize) -> Option<usize> {
        self.sems[num].setter
    }

    pub fn adjustments(&self, process: usize) -> Option<&Vec<i32>> {
        self.undo.get(&process)
    }

    /// `semop`, which may sleep by that name.
    pub fn semop(&mut self, name: usize, process: usize, ops: &[Op], now: i64) -> Outcome {
        if ops.iter().any(|op| op.has(SEM_UNDO)) {
            let adjustments = vec![0; self.sems.len()];
            self.undo.entry(process).or_insert(adjustments);
        }
        let mut call = Sleeper {
            name,
            process,
            ops: ops.to_vec(),
            blocking: 0,
        };
        match self.perform(&call) {
            Tried::Done => {
                if call.alters() {
                    self.smart_update(Some(ops));
                }
                self.otime = now;
                self.unlock();
                Outcome::Done
            }
            Tried::Failed(errno) => Outcome::Failed(errno),
            Tried::Blocked(place) => {
                call.blocking = place;
                self.sleep(call);
                self.unlock();
                Outcome::Blocked(place as u32)
            }
        }
    }

    fn sleep(&mut self, call: Sleeper) {
        if let [op] = call.ops[..] {
            let sem = &mut self.sems[op.num() as usize];
            match (call.alters(), self.complex) {
                (false, _) => sem.pending_const.push(call),
                (true, 0) => sem.pending_alter.push(call),
                (true, _) => self.pending_alter.push(call),
            }
            return;
        }
        if self.complex == 0 {
            // `merge_queues`: each is put before what is there.
            for sem in &mut self.sems {
                let own = std::mem::take(&mut sem.pending_alter);
                self.pending_alter.splice(0..0, own);
            }
        }
        self.complex += 1;
        if call.alters() {
            self.pending_alter.push(call);
        } else {
            self.pending_const.push(call);
        }
    }

    /// `sem_unlock`, with `unmerge_queues`.
    fn unlock(&mut self) {
        if self.complex == 0 {
            for call in std::mem::take(&mut self.pending_alter) {
                let num = call.ops[0].num() as usize;
                self.sems[num].pending_alter.push(call);
            }
        }
    }

    /// A sleeper goes: by a signal, by time, by its death.
    pub fn give_up(&mut self, gone: impl Fn(usize, usize) -> bool) {
        let stays = |call: &Sleeper| !gone(call.name, call.process);
        for sem in &mut self.sems {
            sem.pending_alter.retain(stays);
            sem.pending_const.retain(stays);
        }
        self.pending_alter.retain(stays);
        self.pending_const.retain(stays);
        let all = self.pending_alter.iter().chain(&self.pending_const);
        self.complex = all.filter(|call| call.ops.len() > 1).count();
        self.unlock();
    }

    /// `SETVAL`.
    pub fn set_value(&mut self, process: usize, num: usize, value: i32, now: i64) {
        self.undo.values_mut().for_each(|own| own[num] = 0);
        self.sems[num].value = value;
        self.sems[num].setter = Some(process);
        self.set_done(now);
    }

    /// `SETALL`.
    pub fn set_all(&mut self, process: usize, values: &[u16], now: i64) {
        for (sem, &value) in self.sems.iter_mut().zip(values) {
            sem.value = value.into();
            sem.setter = Some(process);
        }
        self.undo.values_mut().for_each(|own| own.fill(0));
        self.set_done(now);
    }

    fn set_done(&mut self, now: i64) {
        self.ctime = now;
        if self.smart_update(None) {
            self.otime = now;
        }
        self.unlock();
    }

    /// The end of a process: its sleepers, then `exit_sem`.
    pub fn exit(&mut self, process: usize, now: i64) {
        self.give_up(|_, of| of == process);
        let Some(adjustments) = self.undo.remove(&process) else {
            return;
        };
        for (sem, adjustment) in self.sems.iter_mut().zip(adjustments) {
            if adjustment != 0 {
                sem.value = (sem.value + adjustment).clamp(0, SEMVMX);
                sem.setter = Some(process);
            }
        }
        self.smart_update(None);
        self.otime = now;
        self.unlock();
    }

    /// `GETNCNT`, `GETZCNT`.
    pub fn count(&self, num: usize, for_zero: bool) -> usize {
        let sem = &self.sems[num];
        let blocks = |call: &&Sleeper| {
            let op = call.ops[call.blocking];
            let kind = if for_zero {
                op.change() == 0
            } else {
                op.change() < 0
            };
            op.num() as usize == num && kind
        };
        let of_set = self.pending_alter.iter().filter(blocks).count();
        if for_zero {
            let constant = self.pending_const.iter().filter(blocks).count();
            sem.pending_const.len() + of_set + constant
        } else {
            sem.pending_alter.len() + of_set
        }
    }

    /// `perform_atomic_semop`.
    fn perform(&mut self, call: &Sleeper) -> Tried {
        let mut values: Vec<i32> = self.sems.iter().map(|sem| sem.value).collect();
        let mut adjustments = self.undo.get(&call.process).cloned();
        for (place, op) in call.ops.iter().enumerate() {
            let num = op.num() as usize;
            if num >= values.len() {
                return Tried::Failed(libc::EFBIG);
            }
            let result = values[num] + op.change();
            if op.change() == 0 && values[num] != 0 || result < 0 {
                return if op.has(NOWAIT) {
                    Tried::Failed(libc::EAGAIN)
                } else {
                    Tried::Blocked(place)
                };
            }
            if result > SEMVMX {
                return Tried::Failed(libc::ERANGE);
            }
            if op.has(SEM_UNDO)
                && let Some(own) = &mut adjustments
            {
                own[num] -= op.change();
                if own[num] < -SEMAEM - 1 || own[num] > SEMAEM {
                    return Tried::Failed(libc::ERANGE);
                }
            }
            values[num] = result;
        }
        for op in &call.ops {
            self.sems[op.num() as usize].setter = Some(call.process);
        }
        for (sem, value) in self.sems.iter_mut().zip(values) {
            sem.value = value;
        }
        if let Some(adjustments) = adjustments {
            self.undo.insert(call.process, adjustments);
        }
        Tried::Done
    }

    fn pending(&mut self, which: Which, alter: bool) -> &mut Vec<Sleeper> {
        match (which, alter) {
            (Some(num), true) => &mut self.sems[num].pending_alter,
            (Some(num), false) => &mut self.sems[num].pending_const,
            (None, true) => &mut self.pending_alter,
            (None, false) => &mut self.pending_const,
        }
    }

    /// Tries the one at `place` of a queue; takes it out if it is served.
    fn try_at(&mut self, which: Which, alter: bool, place: usize) -> Option<(Sleeper, i32)> {
        let call = self.pending(which, alter)[place].clone();
        let errno = match self.perform(&call) {
            Tried::Done => 0,
            Tried::Failed(errno) => errno,
            Tried::Blocked(blocking) => {
                self.pending(which, alter)[place].blocking = blocking;
                return None;
            }
        };
        self.pending(which, alter).remove(place);
        if call.ops.len() > 1 {
            self.complex -= 1;
        }
        self.results.insert(call.name, errno);
        Some((call, errno))
    }

    /// `do_smart_update`.
    fn smart_update(&mut self, ops: Option<&[Op]>) -> bool {
        let mut done = self.wakeup_zero(ops);
        if !self.pending_alter.is_empty() {
            done |= self.update_queue(None);
        } else if let Some(ops) = ops {
            for op in ops.iter().filter(|op| op.change() > 0) {
                done |= self.update_queue(Some(op.num() as usize));
            }
        } else {
            for num in 0..self.sems.len() {
                done |= self.update_queue(Some(num));
            }
        }
        done
    }

    fn update_queue(&mut self, which: Which) -> bool {
        let mut done = false;
        let mut place = 0;
        while place < self.pending(which, true).len() {
            if which.is_some_and(|num| self.sems[num].value == 0) {
                break;
            }
            match self.try_at(which, true, place) {
                None => place += 1,
                Some((call, 0)) => {
                    done = true;
                    self.wakeup_zero(Some(&call.ops));
                    // `check_restart`
                    if !self.pending_alter.is_empty() || call.ops.len() > 1 {
                        place = 0;
                    }
                }
                Some(_) => {}
            }
        }
        done
    }

    /// `do_smart_wakeup_zero`.
    fn wakeup_zero(&mut self, ops: Option<&[Op]>) -> bool {
        let nums: Vec<usize> = match ops {
            Some(ops) => ops.iter().map(|op| op.num() as usize).collect(),
            None => (0..self.sems.len()).collect(),
        };
        let mut done = false;
        let mut got_zero = false;
        for num in nums {
            if self.sems[num].value == 0 {
                got_zero = true;
                done |= self.wake_const(Some(num));
            }
        }
        if got_zero {
            done |= self.wake_const(None);
        }
        done
    }

    /// `wake_const_ops`.
    fn wake_const(&mut self, which: Which) -> bool {
        let mut done = false;
        let mut place = 0;
        while place < self.pending(which, false).len() {
            match self.try_at(which, false, place) {
                None => place += 1,
                Some((_, errno)) => done |= errno == 0,
            }
        }
        done
    }
}
