// SPDX-License-Identifier: MIT OR Apache-2.0
//! Runs a script of calls on semaphore sets on one side and gives back its trace.

use super::script::{Call, Signal, Step, Timeout};
use crate::conform::Scripted;
use crate::conform::cast::{self, Cast, KEY_BASE, in_own_namespace};
use crate::conform::run::{Clock, NOBODY_THERE};
use crate::conform::script::{Buffer, Common, End, PROCESSES};
use rustix::process::Signal as Number;
use std::collections::HashSet;
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
            for step in script {
                run.step(step);
            }
            run.finish();
            run.cast.trace
        })
    }

    fn call(&self) -> String {
        match &self.call {
            Call::Common(call) => format!("{call:?}"),
            call => format!("{call:?}"),
        }
    }
}

/// What is known of a process.
#[derive(Default)]
struct Known {
    /// The call that it sleeps in.
    sleeps_in: Option<Call>,
}

struct Run<'a> {
    cast: Cast<'a, Known>,
    /// Each id that a get returned.
    sets: Vec<i32>,
    /// Those whose `sem_otime` is not compared ([`accept`], empty undo).
    untimed: HashSet<i32>,
}

impl<'a> Run<'a> {
    fn new(program: &'a (dyn Fn(usize) -> Command + Sync)) -> Self {
        Self {
            cast: Cast::start(program, &[0, 1]),
            sets: Vec::new(),
            untimed: HashSet::new(),
        }
    }

    fn step(&mut self, step: &Step) {
        // A process that cannot do it is stood in for by the next one that can.
        let number = usize::from(step.process);
        let mut round = (number..PROCESSES).chain(0..number);
        let can = |number: &usize| match (&self.cast.live[*number], &step.call) {
            (None, _) => false,
            (Some(live), Call::Signal { .. }) => live.known.sleeps_in.is_some(),
            (Some(live), Call::Common(Common::Leave { end: End::Kill })) => {
                live.known.sleeps_in.is_some() || step.raw
            }
            (Some(live), _) => live.known.sleeps_in.is_none(),
        };
        let Some(actor) = round.find(can) else {
            self.cast.trace.push(format!("{step} -> {NOBODY_THERE}"));
            return;
        };
        let step = Step {
            process: actor as u8,
            ..step.clone()
        };
        let outcome = self.outcome(&step);
        self.cast.trace.push(format!("{step} -> {outcome}"));
        self.let_sleepers_answer();
        self.look();
    }

    fn outcome(&mut self, step: &Step) -> String {
        let number = usize::from(step.process);
        let live = self.cast.live[number]
            .as_ref()
            .expect("chosen because it lives");
        match step.call {
            Call::Common(Common::New { child, birth }) => {
                let inherit = |_: &Known| Known::default();
                return self.cast.new_process(number, child.into(), birth, inherit);
            }
            Call::Common(Common::Leave { end }) => return self.leave(number, end),
            Call::Common(Common::Exec) => {
                return self
                    .cast
                    .exec(number)
                    .map_or_else(|silence| silence, |()| "up".to_owned());
            }
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
                self.cast.live[number]
                    .as_mut()
                    .expect("lives")
                    .known
                    .sleeps_in = Some(step.call.clone());
                ASLEEP.to_owned()
            }
            Err(silence) => self.cast.lost(number, silence),
        }
    }

    /// Waits until everyone who slept has answered or sleeps on.
    fn let_sleepers_answer(&mut self) {
        for number in 0..PROCESSES {
            let Some(live) = &mut self.cast.live[number] else {
                continue;
            };
            let Some(call) = live.known.sleeps_in.take() else {
                continue;
            };
            let line = match live.process.answer_unless_asleep() {
                Ok(None) => {
                    live.known.sleeps_in = Some(call);
                    continue;
                }
                Ok(Some(answer)) => self.took_place(number, &call, &answer),
                Err(silence) => self.cast.lost(number, silence),
            };
            self.cast.note(&format!("p{number} wakes -> {line}"));
        }
    }

    /// Looks at all sets. The other domain's observer does so first, with which the end of a process
    /// there is noticed.
    fn look(&mut self) {
        for set in 0..self.sets.len() {
            let mut seen = "nobody looks".to_owned();
            for observer in OBSERVERS.into_iter().rev() {
                let Some(live) = &self.cast.live[observer] else {
                    continue;
                };
                seen = match live.process.ask(&format!("dump {}", self.sets[set])) {
                    Ok(answer) => self.named(observer, self.sets[set], &answer),
                    Err(silence) => self.cast.lost(observer, silence),
                };
            }
            self.cast.note(&format!("id{set}: {seen}"));
        }
    }

    /// The words for the interpreter.
    fn command(&self, call: &Call) -> String {
        let to = |buffer: Buffer| buffer as u32;
        let id = call.id().map_or(-1, |id| self.cast.id(id));
        match *call {
            Call::Get {
                key, sems, flags, ..
            } => {
                format!("semget {} {sems} {flags}", cast::key(key))
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
            Call::Common(ref call) => self.cast.words("sem", call),
            Call::Signal { .. } => {
                unreachable!("it is not a plain command")
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
                self.untimed.insert(self.cast.id(*id));
            }
            return answer.to_owned();
        };
        let set = call.id().map_or(-1, |id| self.cast.id(id));
        let rest = self.named(number, set, rest);
        match *call {
            Call::Get { slot, .. } => {
                let id = value as i32;
                self.cast.ids[usize::from(slot)] = id;
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
            } => format!("{} {rest}", self.cast.pid(number, value)),
            _ => format!("{value} {rest}"),
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
                "otime" | "ctime" => self.cast.time(number, || "set".to_owned()),
                "pid" => self.cast.pid(viewer, number),
                _ => value.to_owned(),
            };
            format!("{name}={value}")
        });
        named.collect::<Vec<_>>().join(" ")
    }

    fn leave(&mut self, number: usize, end: End) -> String {
        match self.cast.leave(number, end) {
            Ok(()) => {
                self.let_be_noticed();
                "ended".to_owned()
            }
            Err(silence) => silence,
        }
    }

    /// Has both domains look at each set, before anyone who is woken by the end can be waited for.
    fn let_be_noticed(&mut self) {
        for observer in OBSERVERS.into_iter().rev() {
            for set in 0..self.sets.len() {
                let Some(live) = &self.cast.live[observer] else {
                    continue;
                };
                if let Err(silence) = live.process.ask(&format!("dump {}", self.sets[set])) {
                    let lost = self.cast.lost(observer, silence);
                    self.cast.note(&format!("an observer: {lost}"));
                }
            }
        }
    }

    /// Ends all processes and looks at what is left; then removes it.
    fn finish(&mut self) {
        for number in (0..PROCESSES).rev() {
            if self.cast.live[number].is_some() {
                let outcome = self.leave(number, End::Kill);
                self.cast.note(&format!("p{number} {outcome}"));
                self.let_sleepers_answer();
                self.look();
            }
        }
        self.observe("semtotals 0");
        for set in 0..self.sets.len() {
            self.observe(&format!(
                "semcontrol {} {} 0",
                self.sets[set],
                libc::IPC_RMID
            ));
        }
        self.observe("semtotals 0");
    }

    fn observe(&mut self, command: &str) {
        let Some(live) = &self.cast.live[OBSERVERS[0]] else {
            return;
        };
        let line = match live.process.ask(command) {
            Ok(answer) => self.named(OBSERVERS[0], -1, &answer),
            Err(silence) => self.cast.lost(OBSERVERS[0], silence),
        };
        let word = command.split(' ').next().unwrap_or_default();
        self.cast.note(&format!("{word}: {line}"));
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
