// SPDX-License-Identifier: MIT OR Apache-2.0
//! The processes of a script, what they come to and go by, and the names of what they see: all that
//! is the same whatever the calls of the script are on.

use super::accept;
use super::process::{Process, Silence, Start};
use super::run::INDENT;
use super::script::{Birth, Buffer, Common, End, IDS, Id, Look, PROCESSES, STARTED};
use nix::sched::{CloneFlags, unshare};
use std::collections::HashMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Key 1 of a script is this one's successor. Each case has an IPC namespace, and each routed
/// side a world, of its own.
pub(super) const KEY_BASE: i32 = 0x5600_1000;
/// The domain of each process that runs from the start.
const DOMAINS: [usize; STARTED] = [0, 1, 0];

/// Runs `body` with an IPC namespace of its own. That is a thread's affair: this one's children are
/// in it and nobody else.
pub(super) fn in_own_namespace(body: impl FnOnce() -> Vec<String> + Send) -> Vec<String> {
    std::thread::scope(|scope| {
        let run = scope.spawn(|| {
            unshare(CloneFlags::CLONE_NEWIPC).expect("a new IPC namespace (needs root)");
            let trace = body();
            remove_segments();
            trace
        });
        match run.join() {
            Ok(trace) => trace,
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// Removes the segments of this thread's namespace. The kernel gets rid of a namespace some time after
/// its end, and until then what is locked there counts against its user's limit, in others too.
fn remove_segments() {
    let list = std::fs::read_to_string("/proc/sysvipc/shm").expect("/proc/sysvipc/shm");
    let ids = list.lines().skip(1).map(|line| {
        let id = line.split_whitespace().nth(1).map(str::parse);
        id.expect("an id").expect("a number")
    });
    for id in ids {
        // One that waits for its last process to end is removed already.
        // SAFETY: IPC_RMID takes no buffer, and no memory of this process is in these segments.
        unsafe { libc::shmctl(id, libc::IPC_RMID, std::ptr::null_mut()) };
    }
}

pub(super) fn now() -> Duration {
    SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .expect("a clock that was set")
}

/// The number of a script's key.
pub(super) fn key(key: u8) -> i32 {
    if key == 0 {
        0
    } else {
        KEY_BASE + i32::from(key)
    }
}

/// The slot, or when it is empty the next that is not, going round: most steps are to hit something.
pub(super) fn full_slot<T>(slots: &[T], slot: u8, is_full: impl Fn(&T) -> bool) -> Option<&T> {
    let (before, from) = slots.split_at(usize::from(slot));
    from.iter().chain(before).find(|content| is_full(content))
}

/// A process that lives.
pub(super) struct Live<K> {
    pub(super) process: Process,
    pub(super) domain: usize,
    /// What else is known of it, which depends on the calls of the script.
    pub(super) known: K,
}

/// All processes and the trace of what they do.
pub(super) struct Cast<'a, K> {
    program: &'a (dyn Fn(usize) -> Start + Sync),
    /// Those of the script, and observers after them.
    pub(super) live: Vec<Option<Live<K>>>,
    /// By domain and pid: in which order the process was born. Domains in guests each have pids of
    /// their own.
    born: HashMap<(usize, i32), usize>,
    births: usize,
    /// What gets returned, by slot.
    pub(super) ids: [i32; IDS],
    began: i64,
    pub(super) trace: Vec<String>,
}

impl<'a, K: Default> Cast<'a, K> {
    /// Starts the processes that run from the start, and an observer in each domain of `observers`.
    pub(super) fn start(program: &'a (dyn Fn(usize) -> Start + Sync), observers: &[usize]) -> Self {
        let mut cast = Self {
            program,
            live: Vec::new(),
            born: HashMap::new(),
            births: 0,
            ids: [-1; IDS],
            began: now().as_secs() as i64,
            trace: Vec::new(),
        };
        cast.live.resize_with(PROCESSES + observers.len(), || None);
        let script = DOMAINS.into_iter().enumerate();
        for (number, domain) in script.chain((PROCESSES..).zip(observers.iter().copied())) {
            match Process::start((cast.program)(domain)) {
                Ok(process) => cast.enter(number, process, domain, K::default()),
                Err(silence) => cast
                    .trace
                    .push(format!("p{number} did not start: {silence:?}")),
            }
        }
        cast
    }

    fn enter(&mut self, number: usize, process: Process, domain: usize, known: K) {
        self.born.insert((domain, process.pid()), self.births);
        self.births += 1;
        self.live[number] = Some(Live {
            process,
            domain,
            known,
        });
    }

    /// A process did not answer: it is out of the game.
    pub(super) fn lost(&mut self, number: usize, silence: Silence) -> String {
        self.live[number] = None;
        format!("{silence:?}")
    }

    /// A line that is no step's.
    pub(super) fn note(&mut self, line: &str) {
        self.trace.push(format!("{INDENT}{line}"));
    }

    pub(super) fn id(&self, id: Id) -> i32 {
        match id {
            Id::Slot(slot) => full_slot(&self.ids, slot, |&id| id != -1).map_or(-1, |&id| id),
            Id::Number(number) => number,
        }
    }

    /// The words of a common call for the interpreter, in which the commands of a kind of construct
    /// begin with `kind`. The processes' own coming and going has none.
    pub(super) fn words(&self, kind: &str, call: &Common) -> String {
        let to = |buffer: Buffer| buffer as u32;
        let id = call.id().map_or(-1, |id| self.id(id));
        match *call {
            Common::Stat { look, .. } => match look {
                Look::Id(buffer) => format!("{kind}stat {id} {}", to(buffer)),
                Look::Index => format!("{kind}list {id} 0"),
                Look::IndexAny => format!("{kind}list {id} 1"),
            },
            Common::Set {
                uid,
                gid,
                mode,
                buffer,
                ..
            } => format!("{kind}set {id} {uid} {gid} {mode} {}", to(buffer)),
            Common::Control {
                command, buffer, ..
            } => format!("{kind}control {id} {command} {}", to(buffer)),
            Common::Limits { buffer } => format!("{kind}limits {}", to(buffer)),
            Common::Totals { buffer } => format!("{kind}totals {}", to(buffer)),
            Common::Become {
                uid,
                gid,
                for_good,
                group,
            } => format!("become {uid} {gid} {group} {}", u32::from(for_good)),
            Common::CloseAll => "close".to_owned(),
            Common::New { .. } | Common::Leave { .. } | Common::Exec => {
                unreachable!("these are not plain commands")
            }
        }
    }

    /// The name of a pid that the process `viewer` was told.
    pub(super) fn pid(&self, viewer: usize, pid: i64) -> String {
        let Some(live) = &self.live[viewer] else {
            return format!("unknown {pid}");
        };
        let born_in = |domain| self.born.get(&(domain, pid as i32));
        let domains = [live.domain, 0, 1];
        let born = domains.map(|domain| (domain, born_in(domain)));
        match born
            .iter()
            .find_map(|&(domain, birth)| Some((domain, birth?)))
        {
            Some((domain, &birth)) => accept::pid(birth, domain, live.domain),
            None if pid == 0 => "0".to_owned(),
            None => format!("unknown {pid}"),
        }
    }

    /// The name of a time in seconds: one of this run is what `name` says.
    pub(super) fn time(&self, time: i64, name: impl FnOnce() -> String) -> String {
        if time == 0 {
            return "0".to_owned();
        }
        // The kernel's seconds are those of its last tick, and may lag a little; the clocks of guests
        // differ by more.
        let slack = if crate::in_guests() { 5 } else { 0 };
        if time < self.began - 1 - slack || time > now().as_secs() as i64 + slack {
            return format!("wrong {time}");
        }
        name()
    }

    /// Has a process make another, of which is known what `inherit` makes of the first's.
    pub(super) fn new_process(
        &mut self,
        number: usize,
        child: usize,
        birth: Birth,
        inherit: impl FnOnce(&K) -> K,
    ) -> String {
        if self.live[child].is_some() {
            return "lives".to_owned();
        }
        let live = self.live[number].as_mut().expect("checked before");
        let (domain, known) = (live.domain, inherit(&live.known));
        let mut born = match live.process.ask_for_child(&format!("new {}", birth as u32)) {
            Ok(Ok(process)) => process,
            Ok(Err(answer)) => return answer,
            Err(silence) => return self.lost(number, silence),
        };
        // One that ended before its first instruction would end as nobody.
        if let Err(silence) = born.expect_up() {
            return format!("child: {silence:?}");
        }
        self.enter(child, born, domain, known);
        "born".to_owned()
    }

    /// Has a process execute its program anew; when it does not come up, says so.
    pub(super) fn exec(&mut self, number: usize) -> Result<(), String> {
        let live = self.live[number].as_mut().expect("checked before");
        live.process.send("exec");
        live.known = K::default();
        let up = live.process.expect_up();
        up.map_err(|silence| self.lost(number, silence))
    }

    /// Ends a process; when it does not end, says so.
    pub(super) fn leave(&mut self, number: usize, end: End) -> Result<(), String> {
        let mut live = self.live[number].take().expect("checked before");
        match end {
            End::Kill => live.process.kill(),
            _ => live.process.send(&format!("leave {}", end as u32)),
        }
        live.process
            .wait_end()
            .map_err(|silence| format!("{silence:?}"))
    }
}
