// SPDX-License-Identifier: MIT OR Apache-2.0
//! Runs a script of calls that may sleep on one side and gives back its trace.

use super::{Call, Meaning, Own, Signal, Sleeper, Step, WAKES};
use crate::conform::Scripted;
use crate::conform::cast::{Cast, KEY_BASE, Live, in_own_namespace};
use crate::conform::process::{Process, Start};
use crate::conform::run::{Clock, NOBODY_THERE};
use crate::conform::script::{Common, End, PROCESSES};
use crate::kernels;
use rustix::process::Signal as Number;
use std::collections::BTreeMap;

/// Processes beside those of the script, one in each domain: they look, and do nothing else.
const OBSERVERS: [usize; 2] = [PROCESSES, PROCESSES + 1];
/// Outcome of a call that has not come back.
const ASLEEP: &str = "asleep";
/// Outcome of a call that is not made ([`Own::is_certain`]).
const UNCERTAIN: &str = "uncertain";

impl<O: Own> Scripted for Step<O> {
    fn trace(
        script: &[Self],
        _clock: Clock,
        program: &(dyn Fn(usize) -> Start + Sync),
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
            Call::Own(call) => format!("{call:?}"),
            Call::Common(call) => format!("{call:?}"),
            call => format!("{call:?}"),
        }
    }
}

/// What is known of a process.
struct Known<O> {
    /// The call that it sleeps in.
    sleeps_in: Option<Sleeper<O>>,
}

impl<O> Default for Known<O> {
    fn default() -> Self {
        Self { sleeps_in: None }
    }
}

/// A construct that a get returned.
struct Construct {
    id: i32,
    /// What was seen of it last.
    seen: String,
}

struct Run<'a, O: Own> {
    cast: Cast<'a, Known<O>>,
    constructs: Vec<Construct>,
    notes: O::Notes,
}

impl<'a, O: Own> Run<'a, O> {
    fn new(program: &'a (dyn Fn(usize) -> Start + Sync)) -> Self {
        Self {
            cast: Cast::start(program, &[0, 1]),
            constructs: Vec::new(),
            notes: O::Notes::default(),
        }
    }

    fn step(&mut self, step: &Step<O>) {
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

    fn outcome(&mut self, step: &Step<O>) -> String {
        let number = usize::from(step.process);
        let raw = if step.raw { "*" } else { "" };
        match &step.call {
            Call::Own(call) => {
                let id = call.id().map_or(-1, |id| self.cast.id(id));
                if !self.is_certain(id, call) {
                    return UNCERTAIN.to_owned();
                }
                let process = self.process(number);
                process.send(&format!("{raw}{}", call.words(id)));
                let answer = if call.may_sleep() {
                    process.answer_unless_asleep()
                } else {
                    process.answer().map(Some)
                };
                match answer {
                    Ok(Some(answer)) => self.took_place(number, call, id, &answer),
                    Ok(None) => {
                        let call = call.clone();
                        let live = self.cast.live[number].as_mut().expect("lives");
                        live.known.sleeps_in = Some(Sleeper { id, call });
                        ASLEEP.to_owned()
                    }
                    Err(silence) => self.cast.lost(number, silence),
                }
            }
            Call::Signal { signal } => {
                let process = self.process(number);
                match signal {
                    Signal::Handled => process.signal(Number::USR1),
                    Signal::Restarting => process.signal(Number::USR2),
                    Signal::Ignored => process.signal(Number::WINCH),
                    Signal::Stop => process.stop_and_continue(),
                }
                "sent".to_owned()
            }
            &Call::Common(Common::New { child, birth }) => {
                let inherit = |_: &Known<O>| Known::default();
                self.cast.new_process(number, child.into(), birth, inherit)
            }
            &Call::Common(Common::Leave { end }) => self.leave(number, end),
            Call::Common(Common::Exec) => {
                let up = self.cast.exec(number);
                up.map_or_else(|silence| silence, |()| "up".to_owned())
            }
            Call::Common(call) => {
                let id = call.id().map_or(-1, |id| self.cast.id(id));
                let words = self.cast.words(O::KIND, call);
                match self.process(number).ask(&format!("{raw}{words}")) {
                    Ok(answer) => self.named(number, id, &answer),
                    Err(silence) => self.cast.lost(number, silence),
                }
            }
        }
    }

    /// A process that was chosen because it lives.
    fn process(&mut self, number: usize) -> &mut Process {
        let live = self.cast.live[number].as_mut();
        &mut live.expect("chosen because it lives").process
    }

    /// Those who sleep in calls on a construct.
    fn sleepers(&self, id: i32) -> Vec<&Sleeper<O>> {
        let live = self.cast.live.iter().flatten();
        let sleepers = live.filter_map(|live| live.known.sleeps_in.as_ref());
        sleepers.filter(|sleeper| sleeper.id == id).collect()
    }

    fn is_certain(&self, id: i32, call: &O) -> bool {
        let construct = self.constructs.iter().find(|c| c.id == id);
        call.is_certain(&self.sleepers(id), construct.map_or("", |c| &c.seen))
    }

    /// Waits until everyone who slept has answered or sleeps on, also those whom one woke who was woken
    /// himself: a sender that was let in.
    fn let_sleepers_answer(&mut self) {
        let mut woken = BTreeMap::new();
        loop {
            self.let_bells_be_answered();
            let before = woken.len();
            for number in 0..PROCESSES {
                if let Some(line) = self.let_sleeper_answer(number) {
                    woken.insert(number, line);
                }
            }
            if woken.len() == before {
                break;
            }
        }
        // In an order that does not depend on who was seen first.
        for (number, line) in woken {
            self.cast.note(&format!("p{number}{WAKES}{line}"));
        }
    }

    /// Where each domain has a kernel of its own, waits until those are awake whom somebody of another domain
    /// has woken: it is their `vshmemd` that does so, which has been told when the call returned. It does before
    /// it answers the second of two requests.
    fn let_bells_be_answered(&mut self) {
        let is_asleep = |live: &Live<Known<O>>| live.known.sleeps_in.is_some();
        if kernels::differ() && self.cast.live.iter().flatten().any(is_asleep) {
            self.let_be_noticed();
            self.let_be_noticed();
        }
    }

    /// The outcome of the call in which a process slept, if it does so no more.
    fn let_sleeper_answer(&mut self, number: usize) -> Option<String> {
        let live = self.cast.live[number].as_mut()?;
        let sleeper = live.known.sleeps_in.take()?;
        match live.process.answer_unless_asleep() {
            Ok(None) => {
                live.known.sleeps_in = Some(sleeper);
                None
            }
            Ok(Some(answer)) => Some(self.took_place(number, &sleeper.call, sleeper.id, &answer)),
            Err(silence) => Some(self.cast.lost(number, silence)),
        }
    }

    /// Has an observer say all that it sees of a construct.
    fn dump(&mut self, observer: usize, construct: usize) -> Option<String> {
        let id = self.constructs[construct].id;
        let live = self.cast.live[observer].as_mut()?;
        Some(match live.process.ask(&format!("{}dump {id}", O::KIND)) {
            Ok(answer) => self.named(observer, id, &answer),
            Err(silence) => self.cast.lost(observer, silence),
        })
    }

    /// Looks at all constructs. The other domain's observer does so first, with which the end of a
    /// process there is noticed.
    fn look(&mut self) {
        for construct in 0..self.constructs.len() {
            let mut seen = "nobody looks".to_owned();
            for observer in OBSERVERS.into_iter().rev() {
                if let Some(dump) = self.dump(observer, construct) {
                    seen = dump;
                }
            }
            self.cast.note(&format!("id{construct}: {seen}"));
            self.constructs[construct].seen = seen;
        }
    }

    /// Notes what a call did and names what it answered.
    fn took_place(&mut self, number: usize, call: &O, id: i32, answer: &str) -> String {
        let (value, rest) = answer.split_once(' ').unwrap_or((answer, ""));
        let Some(value) = value.parse::<i64>().ok().filter(|&value| value != -1) else {
            call.failed(id, rest, &mut self.notes);
            return answer.to_owned();
        };
        let rest = self.named(number, id, rest);
        let Some(slot) = call.slot() else {
            let value = self.name(number, call.value(), value, &value.to_string());
            return format!("{value} {rest}");
        };
        let id = value as i32;
        self.cast.ids[usize::from(slot)] = id;
        let name = self.constructs.iter().position(|c| c.id == id);
        let name = name.unwrap_or_else(|| {
            let seen = String::new();
            self.constructs.push(Construct { id, seen });
            self.constructs.len() - 1
        });
        format!("id{name} {rest}")
    }

    /// Names the numbers in `name=value` fields.
    fn named(&self, viewer: usize, id: i32, text: &str) -> String {
        let named = text.split(' ').map(|field| {
            let Some((name, value)) = field.split_once('=') else {
                return field.to_owned();
            };
            let number = value.parse().unwrap_or(-1);
            let value = self.name(viewer, O::field(name, id, &self.notes), number, value);
            format!("{name}={value}")
        });
        named.collect::<Vec<_>>().join(" ")
    }

    fn name(&self, viewer: usize, meaning: Meaning, number: i64, text: &str) -> String {
        match meaning {
            Meaning::Key if number != 0 => format!("key{}", number - i64::from(KEY_BASE)),
            Meaning::Number | Meaning::Key => text.to_owned(),
            Meaning::Time => self.cast.time(number, || "set".to_owned()),
            Meaning::Pid => self.cast.pid(viewer, number),
            Meaning::Anything => "?".to_owned(),
        }
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

    /// Has both domains look at each construct, before anyone who is woken by the end can be waited
    /// for.
    fn let_be_noticed(&mut self) {
        for observer in OBSERVERS.into_iter().rev() {
            for construct in 0..self.constructs.len() {
                self.dump(observer, construct);
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
        self.observe("totals 0");
        for construct in 0..self.constructs.len() {
            let id = self.constructs[construct].id;
            self.observe(&format!("control {id} {} 0", libc::IPC_RMID));
        }
        self.observe("totals 0");
    }

    fn observe(&mut self, command: &str) {
        let Some(live) = &mut self.cast.live[OBSERVERS[0]] else {
            return;
        };
        let line = match live.process.ask(&format!("{}{command}", O::KIND)) {
            Ok(answer) => self.named(OBSERVERS[0], -1, &answer),
            Err(silence) => self.cast.lost(OBSERVERS[0], silence),
        };
        let word = command.split(' ').next().unwrap_or_default();
        self.cast.note(&format!("{word}: {line}"));
    }
}
