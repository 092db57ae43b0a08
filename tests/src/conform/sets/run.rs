// SPDX-License-Identifier: MIT OR Apache-2.0
//! Runs a script of calls on semaphore sets on one side and gives back its trace.

use super::script::{Call, Signal, Step, Timeout};
use crate::conform::process::{Process, Silence};
use crate::conform::run::{
    Clock, DOMAINS, INDENT, KEY_BASE, NOBODY_THERE, full_slot, in_own_namespace, now,
};
use crate::conform::script::{Birth, Buffer, End, IDS, Id, Look, PROCESSES};
use crate::conform::{Scripted, accept};
use rustix::process::Signal as Number;
use std::collections::{HashMap, HashSet};
use std::process::Command;

/// Processes beside those of the script, one in each domain: they look, and do nothing else.
const OBSERVERS: [usize; 2] = [PROCESSES, PROCESSES + 1];
/// Outcome of a call that has not come back.
const ASLEEP: &str = "asleep";

impl Scripted for Step {
    fn trace(
        script: &[Self],
        _clock: Clock,
        program: &(dyn Fn(usize) -> Command + Sync),
    ) -> Vec<String> {
        in_own_namespace(|| {
            let mut run = Run::new(program);
            run.start();
            for step in script {
                run.step(step);
            }
            run.finish();
            run.trace
        })
    }

    fn call(&self) -> String {
        format!("{:?}", self.call)
    }
}

/// A process that lives.
struct Live {
    process: Process,
    domain: usize,
    /// The call that it sleeps in.
    sleeps_in: Option<Call>,
}

struct Run<'a> {
    program: &'a (dyn Fn(usize) -> Command + Sync),
    live: [Option<Live>; PROCESSES + 2],
    /// By pid: in which order the process was born, and its domain.
    born: HashMap<i32, (usize, usize)>,
    births: usize,
    ids: [i32; IDS],
    /// Each id that a get returned.
    sets: Vec<i32>,
    /// Those whose `sem_otime` is not compared ([`accept`], empty undo).
    untimed: HashSet<i32>,
    began: i64,
    trace: Vec<String>,
}

impl<'a> Run<'a> {
    fn new(program: &'a (dyn Fn(usize) -> Command + Sync)) -> Self {
        Self {
            program,
            live: [const { None }; PROCESSES + 2],
            born: HashMap::new(),
            births: 0,
            ids: [-1; IDS],
            sets: Vec::new(),
            untimed: HashSet::new(),
            began: now().as_secs() as i64,
            trace: Vec::new(),
        }
    }

    fn start(&mut self) {
        let script = DOMAINS.into_iter().enumerate();
        for (number, domain) in script.chain([(OBSERVERS[0], 0), (OBSERVERS[1], 1)]) {
            match Process::start((self.program)(domain)) {
                Ok(process) => self.enter(number, process, domain),
                Err(silence) => self
                    .trace
                    .push(format!("p{number} did not start: {silence:?}")),
            }
        }
    }

    fn enter(&mut self, number: usize, process: Process, domain: usize) {
        self.born.insert(process.pid(), (self.births, domain));
        self.births += 1;
        self.live[number] = Some(Live {
            process,
            domain,
            sleeps_in: None,
        });
    }

    fn note(&mut self, line: &str) {
        self.trace.push(format!("{INDENT}{line}"));
    }

    fn step(&mut self, step: &Step) {
        // A process that cannot do it is stood in for by the next one that can.
        let number = usize::from(step.process);
        let mut round = (number..PROCESSES).chain(0..number);
        let can = |number: &usize| match (&self.live[*number], &step.call) {
            (None, _) => false,
            (Some(live), Call::Signal { .. }) => live.sleeps_in.is_some(),
            (Some(live), Call::Leave { end: End::Kill }) => live.sleeps_in.is_some() || step.raw,
            (Some(live), _) => live.sleeps_in.is_none(),
        };
        let Some(actor) = round.find(can) else {
            self.trace.push(format!("{step} -> {NOBODY_THERE}"));
            return;
        };
        let step = Step {
            process: actor as u8,
            ..step.clone()
        };
        let outcome = self.outcome(&step);
        self.trace.push(format!("{step} -> {outcome}"));
        self.let_sleepers_answer();
        self.look();
    }

    fn outcome(&mut self, step: &Step) -> String {
        let number = usize::from(step.process);
        let live = self.live[number].as_ref().expect("chosen because it lives");
        match step.call {
            Call::New { child, birth } => return self.new_process(number, child.into(), birth),
            Call::Leave { end } => return self.leave(number, end),
            Call::Exec => return self.exec(number),
            Call::Signal { signal } => {
                match signal {
                    Signal::Handled => live.process.signal(Number::USR1),
                    Signal::Restarting => live.process.signal(Number::USR2),
                    Signal::Ignored => live.process.signal(Number::WINCH),
                    Signal::Stop => live.process.stop_and_continue(),
                }
                return "sent".to_owned();
            }
            _ => {}
        }
        let raw = if step.raw { "*" } else { "" };
        live.process
            .send(&format!("{raw}{}", self.command(&step.call)));
        let answer = if may_sleep(&step.call) {
            live.process.answer_unless_asleep()
        } else {
            live.process.receive().map(|(text, _)| Some(text))
        };
        match answer {
            Ok(Some(answer)) => self.took_place(number, &step.call, &answer),
            Ok(None) => {
                self.live[number].as_mut().expect("lives").sleeps_in = Some(step.call.clone());
                ASLEEP.to_owned()
            }
            Err(silence) => self.lost(number, silence),
        }
    }

    /// Waits until everyone who slept has answered or sleeps on.
    fn let_sleepers_answer(&mut self) {
        for number in 0..PROCESSES {
            let Some(live) = &mut self.live[number] else {
                continue;
            };
            let Some(call) = live.sleeps_in.take() else {
                continue;
            };
            let line = match live.process.answer_unless_asleep() {
                Ok(None) => {
                    live.sleeps_in = Some(call);
                    continue;
                }
                Ok(Some(answer)) => self.took_place(number, &call, &answer),
                Err(silence) => self.lost(number, silence),
            };
            self.note(&format!("p{number} wakes -> {line}"));
        }
    }

    /// Looks at all sets. The other domain's observer does so first, with which the end of a process
    /// there is noticed.
    fn look(&mut self) {
        for set in 0..self.sets.len() {
            let mut seen = "nobody looks".to_owned();
            for observer in OBSERVERS.into_iter().rev() {
                let Some(live) = &self.live[observer] else {
                    continue;
                };
                seen = match live.process.ask(&format!("dump {}", self.sets[set])) {
                    Ok(answer) => self.named(observer, self.sets[set], &answer),
                    Err(silence) => self.lost(observer, silence),
                };
            }
            self.note(&format!("id{set}: {seen}"));
        }
    }

    /// A process did not answer: it is out of the game.
    fn lost(&mut self, number: usize, silence: Silence) -> String {
        self.live[number] = None;
        format!("{silence:?}")
    }

    fn id(&self, id: Id) -> i32 {
        match id {
            Id::Slot(slot) => full_slot(&self.ids, slot, |&id| id != -1).map_or(-1, |&id| id),
            Id::Number(number) => number,
        }
    }

    /// The words for the interpreter.
    fn command(&self, call: &Call) -> String {
        let to = |buffer: Buffer| buffer as u32;
        let id = call.id().map_or(-1, |id| self.id(id));
        match *call {
            Call::Get {
                key, sems, flags, ..
            } => {
                let key = if key == 0 {
                    0
                } else {
                    KEY_BASE + i32::from(key)
                };
                format!("semget {key} {sems} {flags}")
            }
            Call::Op {
                ref ops, timeout, ..
            } => {
                let timeout = match timeout {
                    Timeout::Semop => "0 0 0".to_owned(),
                    Timeout::Null => "1 0 0".to_owned(),
                    Timeout::Short(nanoseconds) => format!("2 0 {nanoseconds}"),
                    Timeout::Long => "2 100000 1".to_owned(),
                    Timeout::Bad(seconds, nanoseconds) => format!("2 {seconds} {nanoseconds}"),
                    Timeout::Nowhere => "3 0 0".to_owned(),
                };
                let mut text = format!("semop {id} {timeout} {}", ops.len());
                for op in ops {
                    text.push_str(&format!(" {} {} {}", op.sem, op.by, op.flags));
                }
                text
            }
            Call::BadOp { buffer, count, .. } => format!("badop {id} {} {count}", to(buffer)),
            Call::Number { sem, command, .. } => format!("semnum {id} {sem} {command} 0"),
            Call::SetVal { sem, value, .. } => {
                format!("semnum {id} {sem} {} {value}", libc::SETVAL)
            }
            Call::GetAll { buffer, .. } => format!("getall {id} {}", to(buffer)),
            Call::SetAll { first, buffer, .. } => format!("setall {id} {first} {}", to(buffer)),
            Call::Stat { look, .. } => match look {
                Look::Id(buffer) => format!("semstat {id} {}", to(buffer)),
                Look::Index => format!("semlist {id} 0"),
                Look::IndexAny => format!("semlist {id} 1"),
            },
            Call::Set {
                uid,
                gid,
                mode,
                buffer,
                ..
            } => format!("semset {id} {uid} {gid} {mode} {}", to(buffer)),
            Call::Control {
                command, buffer, ..
            } => format!("semctl {id} {command} {}", to(buffer)),
            Call::Limits { buffer } => format!("semlimits {}", to(buffer)),
            Call::Totals { buffer } => format!("semtotals {}", to(buffer)),
            Call::Become {
                uid,
                gid,
                for_good,
                group,
            } => format!("become {uid} {gid} {group} {}", u32::from(for_good)),
            Call::CloseAll => "close".to_owned(),
            Call::New { .. } | Call::Leave { .. } | Call::Exec | Call::Signal { .. } => {
                unreachable!("these are not plain commands")
            }
        }
    }

    /// Notes what a call did and names what it answered.
    fn took_place(&mut self, number: usize, call: &Call, answer: &str) -> String {
        let (value, rest) = answer.split_once(' ').unwrap_or((answer, ""));
        let Some(value) = value.parse::<i64>().ok().filter(|&value| value != -1) else {
            if let Call::Op { id, ops, .. } = call
                && (answer.contains("EACCES") || answer.contains("EFBIG"))
                && ops
                    .iter()
                    .any(|op| i32::from(op.flags) & libc::SEM_UNDO != 0)
            {
                self.untimed.insert(self.id(*id));
            }
            return answer.to_owned();
        };
        let set = call.id().map_or(-1, |id| self.id(id));
        let rest = self.named(number, set, rest);
        match *call {
            Call::Get { slot, .. } => {
                let id = value as i32;
                self.ids[usize::from(slot)] = id;
                let name = self.sets.iter().position(|&set| set == id);
                let name = name.unwrap_or_else(|| {
                    self.sets.push(id);
                    self.sets.len() - 1
                });
                format!("id{name} {rest}")
            }
            Call::Number {
                command: libc::GETPID,
                ..
            } => format!("{} {rest}", self.pid(number, value)),
            _ => format!("{value} {rest}"),
        }
    }

    fn pid(&self, viewer: usize, pid: i64) -> String {
        match (&self.live[viewer], self.born.get(&(pid as i32))) {
            (Some(live), Some(&(birth, domain))) => accept::pid(birth, domain, live.domain),
            _ if pid == 0 => "0".to_owned(),
            _ => format!("unknown {pid}"),
        }
    }

    /// Names the numbers in `name=value` fields.
    fn named(&self, viewer: usize, set: i32, text: &str) -> String {
        let named = text.split(' ').map(|field| {
            let Some((name, value)) = field.split_once('=') else {
                return field.to_owned();
            };
            let number: i64 = value.parse().unwrap_or(-1);
            let value = match name {
                "key" if number != 0 => format!("key{}", number - i64::from(KEY_BASE)),
                "otime" if self.untimed.contains(&set) => "?".to_owned(),
                "otime" | "ctime" if number != 0 => self.time(number),
                "pid" => self.pid(viewer, number),
                _ => value.to_owned(),
            };
            format!("{name}={value}")
        });
        named.collect::<Vec<_>>().join(" ")
    }

    fn time(&self, time: i64) -> String {
        // The kernel's seconds are those of its last tick, and may lag a little.
        if time < self.began - 1 || time > now().as_secs() as i64 {
            return format!("wrong {time}");
        }
        "set".to_owned()
    }

    fn new_process(&mut self, number: usize, child: usize, birth: Birth) -> String {
        if self.live[child].is_some() {
            return "lives".to_owned();
        }
        let live = self.live[number].as_ref().expect("checked before");
        let domain = live.domain;
        let born = match live.process.ask_for_child(&format!("new {}", birth as u32)) {
            Ok(Ok(process)) => process,
            Ok(Err(answer)) => return answer,
            Err(silence) => return self.lost(number, silence),
        };
        // One that ended before its first instruction would end as nobody.
        if let Err(silence) = born.expect_up() {
            return format!("child: {silence:?}");
        }
        self.enter(child, born, domain);
        "born".to_owned()
    }

    fn exec(&mut self, number: usize) -> String {
        let live = self.live[number].as_ref().expect("checked before");
        live.process.send("exec");
        match live.process.expect_up() {
            Ok(()) => "up".to_owned(),
            Err(silence) => self.lost(number, silence),
        }
    }

    fn leave(&mut self, number: usize, end: End) -> String {
        let mut live = self.live[number].take().expect("checked before");
        match end {
            End::Kill => live.process.kill(),
            _ => live.process.send(&format!("leave {}", end as u32)),
        }
        match live.process.wait_end() {
            Ok(()) => {
                self.let_be_noticed();
                "ended".to_owned()
            }
            Err(silence) => format!("{silence:?}"),
        }
    }

    /// Has both domains look at each set, before anyone who is woken by the end can be waited for.
    fn let_be_noticed(&mut self) {
        for observer in OBSERVERS.into_iter().rev() {
            for set in 0..self.sets.len() {
                let Some(live) = &self.live[observer] else {
                    continue;
                };
                if let Err(silence) = live.process.ask(&format!("dump {}", self.sets[set])) {
                    let lost = self.lost(observer, silence);
                    self.note(&format!("an observer: {lost}"));
                }
            }
        }
    }

    /// Ends all processes and looks at what is left; then removes it.
    fn finish(&mut self) {
        for number in (0..PROCESSES).rev() {
            if self.live[number].is_some() {
                let outcome = self.leave(number, End::Kill);
                self.note(&format!("p{number} {outcome}"));
                self.let_sleepers_answer();
                self.look();
            }
        }
        self.observe("semtotals 0");
        for set in 0..self.sets.len() {
            self.observe(&format!("semctl {} {} 0", self.sets[set], libc::IPC_RMID));
        }
        self.observe("semtotals 0");
    }

    fn observe(&mut self, command: &str) {
        let Some(live) = &self.live[OBSERVERS[0]] else {
            return;
        };
        let line = match live.process.ask(command) {
            Ok(answer) => self.named(OBSERVERS[0], -1, &answer),
            Err(silence) => self.lost(OBSERVERS[0], silence),
        };
        let word = command.split(' ').next().unwrap_or_default();
        self.note(&format!("{word}: {line}"));
    }
}

/// Whether a call may have to wait for another process. One with a short timeout comes back by
/// itself, and is waited for; operations that are not the program's own may be zeros, and so wait for
/// zero.
fn may_sleep(call: &Call) -> bool {
    match call {
        Call::Op { timeout, .. } => !matches!(timeout, Timeout::Short(_)),
        Call::BadOp { .. } => true,
        _ => false,
    }
}
