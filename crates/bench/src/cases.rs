// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is measured, with what goals.

mod queues;

use serde::Serialize;
use vshmem_bench::world::Pinning;

/// What the routed figure is held against.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
#[serde(tag = "kind", content = "at_most", rename_all = "snake_case")]
pub enum Goal {
    /// Median ratio to the native call.
    Ratio(f64),
    /// 1.00 within noise: the ratio's lower bound is not above this, which is 1 and a hundredth.
    Noise(f64),
    /// Nanoseconds more than the native call, median of pairs.
    Added(f64),
    /// None: it is good to know.
    Open,
}

/// [`Goal::Noise`] as the issue of speed words it.
const NOISE: Goal = Goal::Noise(1.01);

/// The domain of a peer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Place {
    /// That of the measured program.
    Same,
    /// Another one.
    Other,
}

/// Keys that are routed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keys {
    /// The range that the cases take their keys from ([`vshmem_bench::world::ROUTED_KEYS`]).
    Range,
    /// None at all.
    None,
}

/// A case's program.
#[derive(Clone, Copy, Debug)]
pub enum Program {
    /// `sync` of dwarfs-c with a region of so many bytes: this side's turns are measured, the
    /// peer is in this place.
    Sync(u32, Place),
    /// Two processes of a program of turns: this side's turns are measured, the peer is in this place.
    Two(Turns, Place),
    /// So many processes of a program of turns, all of which it starts itself.
    Many(Turns, u32),
    /// A case of the worker.
    Worker {
        /// Its name there.
        case: &'static str,
        /// Its key: of a segment of so many bytes that a peer made, or of none.
        key: Key,
    },
    /// A program that is started, with the library preloaded, by a worker that has it not.
    Start(&'static str),
}

/// A part of a program that prints what a turn took.
#[derive(Clone, Copy, Debug)]
pub struct Turns {
    /// The program.
    pub program: &'static str,
    /// The part.
    pub part: &'static str,
    /// Bytes of each message, for those that want to know.
    pub size: Option<u32>,
}

/// The key that a worker gets.
#[derive(Clone, Copy, Debug)]
pub enum Key {
    /// None.
    No,
    /// One of the range, of nothing yet.
    Unused,
    /// One that is never routed.
    Local,
    /// One of the range, of a segment of so many bytes that a process in this place made; the
    /// size is an argument after it.
    Held(u32, Place),
    /// One of the range, of a set of so many semaphores that a process in this place made; the number
    /// is an argument after it.
    HeldSet(u32, Place),
    /// One of the range, of a queue with so many messages that a process in this place made; the number
    /// is an argument after it.
    HeldQueue(u32, Place),
}

/// One thing to measure.
#[derive(Clone, Copy, Debug)]
pub struct Case {
    /// For `--only`, and in the results.
    pub name: &'static str,
    /// In words.
    pub what: &'static str,
    /// What runs.
    pub program: Program,
    /// Keys that are routed in the routed run.
    pub keys: Keys,
    /// How often it is done for one sample.
    pub ops: u32,
    /// Multiplies the pairs of runs: differences of a few nanoseconds need many short runs, lest
    /// what the machine does meanwhile is taken for them.
    pub pairs: usize,
    /// Where the processes run.
    pub pinnings: &'static [Pinning],
    /// What is wanted.
    pub goal: Goal,
}

use Pinning::{Free, OneCore, TwoCores};

const fn sync(name: &'static str, size: u32, place: Place, ops: u32) -> Case {
    Case {
        name,
        what: match place {
            Place::Same => "Sync: a turn of spinning P, memset, V; both in one domain",
            Place::Other => "Sync: a turn of spinning P, memset, V; in two domains",
        },
        program: Program::Sync(size, place),
        keys: Keys::Range,
        ops,
        pairs: 1,
        pinnings: &[TwoCores, Free],
        goal: NOISE,
    }
}

const fn worker(
    name: &'static str,
    what: &'static str,
    (case, key): (&'static str, Key),
    ops: u32,
    pinnings: &'static [Pinning],
    goal: Goal,
) -> Case {
    let program = Program::Worker { case, key };
    routed(name, what, program, ops, pinnings, goal)
}

const fn routed(
    name: &'static str,
    what: &'static str,
    program: Program,
    ops: u32,
    pinnings: &'static [Pinning],
    goal: Goal,
) -> Case {
    Case {
        name,
        what,
        program,
        keys: Keys::Range,
        ops,
        pairs: 1,
        pinnings,
        goal,
    }
}

const fn finely(case: Case) -> Case {
    Case {
        ops: case.ops / 10,
        pairs: 4,
        ..case
    }
}

const fn nothing_routed(case: Case) -> Case {
    Case {
        keys: Keys::None,
        ..case
    }
}

const fn start(name: &'static str, what: &'static str, goal: Goal) -> Case {
    Case {
        name,
        what,
        program: Program::Start("/bin/true"),
        keys: Keys::Range,
        ops: 20,
        pairs: 1,
        pinnings: &[OneCore, Free],
        goal,
    }
}

const MIB_16: u32 = 16 << 20;
const fn semaphores(part: &'static str) -> Turns {
    Turns {
        program: "semaphores",
        part,
        size: None,
    }
}

const SEM_PING: Turns = semaphores("ping");
const MUTEX: Turns = semaphores("mutex");

/// So many times as fast as the kernel.
const THIRTY_TIMES: Goal = Goal::Ratio(1.0 / 30.0);
const SIX_TIMES: Goal = Goal::Ratio(1.0 / 6.0);
const FIVE_TIMES: Goal = Goal::Ratio(1.0 / 5.0);
const FOUR_TIMES: Goal = Goal::Ratio(1.0 / 4.0);
const THREE_TIMES: Goal = Goal::Ratio(1.0 / 3.0);
const LOCAL: Goal = Goal::Added(5.0);
const HALF_MS: Goal = Goal::Added(500_000.0);

/// All cases, in the order they are measured in.
pub fn all() -> Vec<Case> {
    use Key::{Held, HeldSet, Local, No, Unused};
    use Place::{Other, Same};
    const ONE: &[Pinning] = &[OneCore];
    const TWO: &[Pinning] = &[TwoCores];
    const FREE: &[Pinning] = &[Free];
    const ONE_FREE: &[Pinning] = &[OneCore, Free];
    const ALL: &[Pinning] = &[OneCore, TwoCores, Free];
    let mut all = vec![
        sync("sync-8", 8, Same, 50_000),
        sync("sync-8-across", 8, Other, 50_000),
        sync("sync-512", 512, Same, 50_000),
        sync("sync-512-across", 512, Other, 50_000),
        sync("sync-4096", 4096, Same, 20_000),
        sync("sync-4096-across", 4096, Other, 20_000),
        sync("sync-65536", 65536, Same, 2_000),
        sync("sync-65536-across", 65536, Other, 2_000),
        worker(
            "shmget",
            "shmget of an existing key, made in the same domain",
            ("shmget", Held(4096, Same)),
            20_000,
            ONE,
            Goal::Ratio(1.0),
        ),
        worker(
            "shmget-across",
            "shmget of an existing key, made in another domain",
            ("shmget", Held(4096, Other)),
            20_000,
            ONE,
            Goal::Ratio(1.0),
        ),
        worker(
            "shmget-or-make",
            "shmget of an existing key with IPC_CREAT | 0600",
            ("shmget-or-make", Held(4096, Same)),
            20_000,
            ONE,
            Goal::Ratio(1.0),
        ),
        worker(
            "attach-16m",
            "attach, touch every page and detach 16 MiB of the same domain",
            ("attach", Held(MIB_16, Same)),
            2,
            ONE_FREE,
            NOISE,
        ),
        worker(
            "attach-16m-across",
            "attach, touch every page and detach 16 MiB of another domain",
            ("attach", Held(MIB_16, Other)),
            2,
            ONE_FREE,
            NOISE,
        ),
        worker(
            "cycle-4k",
            "make, attach, touch, detach and remove 4 KiB",
            ("cycle", Unused),
            200,
            ALL,
            Goal::Ratio(10.0),
        ),
        worker(
            "sem-one",
            "semop, one operation, nobody else there; set made in the same domain",
            ("sem-one", HeldSet(4, Same)),
            20_000,
            ONE,
            SIX_TIMES,
        ),
        worker(
            "sem-one-across",
            "semop, one operation, nobody else there; set made in another domain",
            ("sem-one", HeldSet(4, Other)),
            20_000,
            ONE,
            SIX_TIMES,
        ),
        worker(
            "sem-undo",
            "semop, one operation with SEM_UNDO, nobody else there; set made in the same domain",
            ("sem-undo", HeldSet(4, Same)),
            20_000,
            ONE,
            FIVE_TIMES,
        ),
        worker(
            "sem-undo-across",
            "semop, one operation with SEM_UNDO, nobody else there; set made in another domain",
            ("sem-undo", HeldSet(4, Other)),
            20_000,
            ONE,
            FIVE_TIMES,
        ),
        worker(
            "sem-four",
            "semop, four operations in one call, nobody else there; set made in the same domain",
            ("sem-four", HeldSet(4, Same)),
            20_000,
            ONE,
            FOUR_TIMES,
        ),
        worker(
            "sem-four-across",
            "semop, four operations in one call, nobody else there; set made in another domain",
            ("sem-four", HeldSet(4, Other)),
            20_000,
            ONE,
            FOUR_TIMES,
        ),
        routed(
            "sem-ping-two",
            "semop ping-pong of two processes in one domain",
            Program::Two(SEM_PING, Same),
            5_000,
            TWO,
            THIRTY_TIMES,
        ),
        routed(
            "sem-ping-one",
            "semop ping-pong of two processes in one domain",
            Program::Two(SEM_PING, Same),
            20_000,
            ONE,
            NOISE,
        ),
        routed(
            "sem-ping-free",
            "semop ping-pong of two processes in one domain",
            Program::Two(SEM_PING, Same),
            5_000,
            FREE,
            Goal::Open,
        ),
        routed(
            "sem-ping-two-across",
            "semop ping-pong of two processes in two domains",
            Program::Two(SEM_PING, Other),
            5_000,
            TWO,
            THIRTY_TIMES,
        ),
        routed(
            "sem-ping-one-across",
            "semop ping-pong of two processes in two domains",
            Program::Two(SEM_PING, Other),
            20_000,
            ONE,
            NOISE,
        ),
        routed(
            "sem-ping-free-across",
            "semop ping-pong of two processes in two domains",
            Program::Two(SEM_PING, Other),
            5_000,
            FREE,
            Goal::Open,
        ),
        routed(
            "sem-mutex-2",
            "2 processes that take and give back one mutex semaphore all the time",
            Program::Many(MUTEX, 2),
            10_000,
            FREE,
            THREE_TIMES,
        ),
        routed(
            "sem-mutex-8",
            "8 processes that take and give back one mutex semaphore all the time",
            Program::Many(MUTEX, 8),
            2_500,
            FREE,
            THREE_TIMES,
        ),
    ];
    all.extend(queues::all());
    all.extend([
        finely(worker(
            "local-semop",
            "semop on a local set while other keys are routed",
            ("semop", No),
            20_000,
            ONE,
            LOCAL,
        )),
        finely(worker(
            "local-shmctl",
            "shmctl(IPC_STAT) of a local segment while other keys are routed",
            ("shmctl", Local),
            20_000,
            ONE,
            LOCAL,
        )),
        finely(worker(
            "local-syscall",
            "syscall(SYS_getppid) while keys are routed",
            ("syscall", No),
            20_000,
            ONE,
            LOCAL,
        )),
        finely(nothing_routed(worker(
            "nokeys-semop",
            "semop in a program with no routed keys",
            ("semop", No),
            20_000,
            ONE,
            NOISE,
        ))),
        nothing_routed(worker(
            "nokeys-cycle-4k",
            "make, attach, touch, detach and remove 4 KiB with no routed keys",
            ("cycle", Unused),
            1_000,
            ONE,
            NOISE,
        )),
        nothing_routed(worker(
            "nokeys-fork",
            "fork, _exit and waitpid in a program with no routed keys",
            ("fork", No),
            50,
            ONE,
            NOISE,
        )),
        worker(
            "fork-unused",
            "fork, _exit and waitpid in a program that has not used its routed keys",
            ("fork", No),
            50,
            ONE_FREE,
            Goal::Open,
        ),
        worker(
            "fork-attached",
            "fork, _exit and waitpid with a routed segment of 4 KiB attached",
            ("fork-attached", Held(4096, Same)),
            50,
            ONE_FREE,
            Goal::Open,
        ),
        start(
            "start-true",
            "start-up of /bin/true with routed keys",
            HALF_MS,
        ),
        nothing_routed(start(
            "nokeys-start-true",
            "start-up of /bin/true with no routed keys",
            HALF_MS,
        )),
    ]);
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_case_has_a_name_of_its_own() {
        let mut names: Vec<_> = all().iter().map(|case| case.name).collect();
        let count = names.len();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), count);
    }
}
