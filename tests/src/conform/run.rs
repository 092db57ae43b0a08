// SPDX-License-Identifier: MIT OR Apache-2.0
//! Runs a script on one side and gives back its trace, in which names stand for numbers.

use super::Scripted;
use super::accept::{self, Cloud};
use super::cast::{self, Cast, KEY_BASE, full_slot, in_own_namespace, now};
use super::process::Start;
use super::script::{
    AREA, ATTACHMENTS, Address, Birth, Buffer, Call, Common, End, Id, Look, PAGE, PROCESSES, Step,
};
use std::time::Duration;

/// Nothing is ever mapped here.
const HOLE: u64 = AREA + 60 * PAGE;
/// The area and what lies behind it.
const AREA_END: u64 = AREA + 64 * PAGE;
/// Outcome of a step of a process that does not live.
pub const NOBODY_THERE: &str = "no such process";
/// Before the lines of what the harness asks of its own accord.
pub const INDENT: &str = "    ";
/// A process beside those of the script, in the first domain: it looks, and does nothing else.
const OBSERVER: usize = PROCESSES;

/// How times are named.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Clock {
    /// As `set` or `0`.
    Loose,
    /// By the step in which they lie: each step waits for a second of its own.
    Steps,
}

impl Scripted for Step {
    fn trace(
        script: &[Self],
        clock: Clock,
        program: &(dyn Fn(usize) -> Start + Sync),
    ) -> Vec<String> {
        in_own_namespace(|| {
            let mut run = Run::new(clock, program);
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

/// What the harness knows of a process.
#[derive(Clone, Default)]
struct Place {
    slots: [Option<u64>; ATTACHMENTS],
    maps: Vec<Map>,
}

/// An attachment.
#[derive(Clone)]
struct Map {
    start: u64,
    end: u64,
    segment: usize,
}

struct Segment {
    id: i32,
    bytes: u64,
    cloud: Cloud,
}

struct Run<'a> {
    clock: Clock,
    cast: Cast<'a, Place>,
    segments: Vec<Segment>,
    /// A byte was read, maybe of a page that nobody has written to.
    read: bool,
    /// The second in which each step began.
    seconds: Vec<i64>,
}

impl<'a> Run<'a> {
    fn new(clock: Clock, program: &'a (dyn Fn(usize) -> Start + Sync)) -> Self {
        Self {
            clock,
            cast: Cast::start(program, &[0]),
            segments: Vec::new(),
            read: false,
            seconds: Vec::new(),
        }
    }

    fn step(&mut self, step: &Step) {
        if self.clock == Clock::Steps {
            // Kernel times are those of the last tick: a little after the second has begun.
            let left = Duration::from_secs(1) - Duration::from_nanos(now().subsec_nanos().into());
            std::thread::sleep(left + Duration::from_millis(30));
        }
        self.seconds.push(now().as_secs() as i64);
        self.untimed_step(step);
        let begin = self.cast.trace.len();
        if self.clock == Clock::Steps {
            for segment in 0..self.segments.len() {
                self.untimed_step(&Step {
                    call: Call::Common(Common::Stat {
                        id: Id::Number(self.segments[segment].id),
                        look: Look::Id(Buffer::Good),
                    }),
                    ..step.clone()
                });
            }
        }
        for line in &mut self.cast.trace[begin..] {
            line.insert_str(0, INDENT);
        }
    }

    fn untimed_step(&mut self, step: &Step) {
        // A process that does not live is stood in for by the next one that does.
        let number = usize::from(step.process);
        let mut round = (number..PROCESSES).chain(0..number);
        let actor = match number {
            OBSERVER => self.cast.live[OBSERVER].as_ref().map(|_| OBSERVER),
            _ => round.find(|&number| self.cast.live[number].is_some()),
        };
        let line = match actor {
            Some(actor) => {
                let step = Step {
                    process: actor as u8,
                    ..step.clone()
                };
                format!("{} -> {}", self.describe(&step), self.outcome(&step))
            }
            None => format!("{step} -> {NOBODY_THERE}"),
        };
        self.cast.trace.push(line);
    }

    /// The step, with a name for an id that it has as a number and that a get returned.
    fn describe(&self, step: &Step) -> String {
        let Some(id @ Id::Number(number)) = accept::id_of(&step.call) else {
            return step.to_string();
        };
        match self.segment(id) {
            Some(segment) => step
                .to_string()
                .replace(&format!("({number},"), &format!("(id{segment},")),
            None => step.to_string(),
        }
    }

    fn outcome(&mut self, step: &Step) -> String {
        let number = usize::from(step.process);
        let live = self.cast.live[number]
            .as_ref()
            .expect("chosen because it lives");
        let gone = |id| {
            self.segment(id)
                .is_some_and(|s| self.segments[s].cloud.may_be_gone())
        };
        if accept::id_of(&step.call).is_some_and(gone) {
            return "not compared".to_owned();
        }
        match step.call {
            Call::Common(Common::New { child, birth }) => {
                return self.new_process(number, child.into(), birth);
            }
            Call::Common(Common::Leave { end }) => return self.leave(number, end),
            Call::Common(Common::Exec) => return self.exec(number),
            _ => {}
        }
        let raw = if step.raw { "*" } else { "" };
        let command = format!("{raw}{}", self.command(&live.known, &step.call));
        let live = self.cast.live[number].as_mut().expect("looked at before");
        match live.process.ask(&command) {
            Ok(answer) => self.took_place(number, &step.call, &answer),
            Err(silence) => self.cast.lost(number, silence),
        }
    }

    /// Place in `segments`.
    fn segment(&self, id: Id) -> Option<usize> {
        let id = self.cast.id(id);
        self.segments.iter().position(|s| s.id == id)
    }

    fn address(place: &Place, address: Address) -> u64 {
        match address {
            Address::Number(number) => number,
            Address::Area { page, byte } => AREA + u64::from(page) * PAGE + u64::from(byte),
            Address::Attached { slot, page, byte } => {
                let (page, byte) = (u64::from(page), u64::from(byte));
                let Some(&Some(start)) = full_slot(&place.slots, slot, Option::is_some) else {
                    return HOLE;
                };
                let map = place.maps.iter().find(|map| map.start == start);
                match map {
                    // Behind it lies what is the program's own.
                    Some(map) if !in_area(start) => {
                        start + page % ((map.end - start) / PAGE) * PAGE + byte
                    }
                    None if !in_area(start) => HOLE,
                    _ => start + page * PAGE + byte,
                }
            }
        }
    }

    /// The words for the interpreter.
    fn command(&self, place: &Place, call: &Call) -> String {
        let at = |address| Self::address(place, address);
        let area = |page: u8| AREA + u64::from(page) * PAGE;
        match *call {
            Call::Get {
                key, size, flags, ..
            } => {
                format!("get {} {size} {flags}", cast::key(key))
            }
            Call::Attach {
                id, at: a, flags, ..
            } => format!("attach {} {} {flags}", self.cast.id(id), at(a)),
            Call::Detach { at: a } => format!("detach {}", at(a)),
            Call::Read { at: a } => format!("peek {}", at(a)),
            Call::Write { at: a, value } => format!("poke {} {value}", at(a)),
            Call::Common(ref call) => self.cast.words("", call),
            Call::Unmap { page, pages } => {
                format!("unmap {} {}", area(page), u64::from(pages) * PAGE)
            }
            Call::Protect { page, pages, prot } => {
                format!("protect {} {} {prot}", area(page), u64::from(pages) * PAGE)
            }
        }
    }

    /// Notes what a call did and names what it answered.
    fn took_place(&mut self, number: usize, call: &Call, answer: &str) -> String {
        if let Call::Unmap { page, pages } | Call::Protect { page, pages, .. } = *call {
            // Also when it failed: it may have done a part.
            let start = AREA + u64::from(page) * PAGE;
            self.cut(number, start, start + u64::from(pages) * PAGE);
        }
        let (value, rest) = answer.split_once(' ').unwrap_or((answer, ""));
        let Some(value) = value.parse::<i64>().ok().filter(|&value| value != -1) else {
            return answer.to_owned();
        };
        let rest = self.fields(number, call, rest);
        match *call {
            Call::Get { slot, size, .. } => {
                let id = value as i32;
                self.cast.ids[usize::from(slot)] = id;
                let name = self.segments.iter().position(|s| s.id == id);
                let name = name.unwrap_or_else(|| {
                    self.segments.push(Segment {
                        id,
                        bytes: size,
                        cloud: Cloud::default(),
                    });
                    self.segments.len() - 1
                });
                return format!("id{name} {rest}");
            }
            Call::Attach {
                slot, id, flags, ..
            } => {
                let name = self.attached(number, slot.into(), id, value as u64, flags);
                return format!("{name} {rest}");
            }
            Call::Detach { at } => self.detached(number, at),
            Call::Read { .. } => self.read = true,
            Call::Common(Common::Control {
                id,
                command: libc::IPC_RMID,
                ..
            }) => {
                if let Some(segment) = self.segment(id) {
                    self.segments[segment].cloud.removed = true;
                }
            }
            _ => {}
        }
        format!("{value} {rest}")
    }

    fn place(&mut self, number: usize) -> &mut Place {
        &mut self.cast.live[number]
            .as_mut()
            .expect("a process that answered")
            .known
    }

    fn attached(&mut self, number: usize, slot: usize, id: Id, start: u64, flags: i32) -> String {
        let segment = self.segment(id);
        let bytes = segment.map_or(1, |s| self.segments[s].bytes);
        let end = start + bytes.next_multiple_of(PAGE);
        if flags & libc::SHM_REMAP != 0 {
            self.cut(number, start, end);
        }
        let place = self.place(number);
        place.slots[slot] = Some(start);
        place.maps.push(Map {
            start,
            end,
            // An attach to an id that no get returned is a difference in itself.
            segment: segment.unwrap_or(usize::MAX),
        });
        if !start.is_multiple_of(PAGE) {
            "unaligned".to_owned()
        } else if in_area(start) {
            format!("area+{}p", (start - AREA) / PAGE)
        } else if start == 0 {
            "NULL".to_owned()
        } else {
            "mapped".to_owned()
        }
    }

    fn detached(&mut self, number: usize, at: Address) {
        let place = self.place(number);
        let start = Self::address(place, at);
        place.maps.retain(|map| map.start != start);
        if !in_area(start) {
            // Whatever comes to lie there next may be anyone's.
            for slot in &mut place.slots {
                *slot = slot.filter(|&address| address != start);
            }
        }
    }

    /// Attachments that lie in the range were changed by other means than `shmat` and `shmdt`.
    fn cut(&mut self, number: usize, start: u64, end: u64) {
        let place = self.place(number);
        let hit: Vec<usize> = place
            .maps
            .iter()
            .filter(|map| map.start < end && start < map.end)
            .map(|map| map.segment)
            .collect();
        for segment in hit {
            if let Some(segment) = self.segments.get_mut(segment) {
                segment.cloud.cut = true;
            }
        }
    }

    /// Names the numbers in `name=value` fields.
    fn fields(&self, viewer: usize, call: &Call, text: &str) -> String {
        let cut = accept::id_of(call)
            .and_then(|id| self.segment(id))
            .is_some_and(|s| self.segments[s].cloud.cut);
        let uncertain = self.segments.iter().any(|s| s.cloud.may_be_gone());
        let named = text.split(' ').map(|field| {
            let Some((name, value)) = field.split_once('=') else {
                return field.to_owned();
            };
            let number: i64 = value.parse().unwrap_or(-1);
            let value = match name {
                _ if cut && !accept::is_compared_when_cut(name) => "?".to_owned(),
                "used" | "pages" | "resident" if uncertain => "?".to_owned(),
                // Pages that gntalloc makes are there from the beginning.
                "resident" if self.read || crate::in_guests() => "?".to_owned(),
                "key" if number != 0 => format!("key{}", number - i64::from(KEY_BASE)),
                "atime" | "dtime" | "ctime" => self.time(number),
                "cpid" | "lpid" => self.cast.pid(viewer, number),
                _ => value.to_owned(),
            };
            format!("{name}={value}")
        });
        named.collect::<Vec<_>>().join(" ")
    }

    fn time(&self, time: i64) -> String {
        self.cast.time(time, || match self.clock {
            Clock::Loose => "set".to_owned(),
            Clock::Steps => {
                let steps = self.seconds.iter().take_while(|&&second| second <= time);
                format!("step{}", steps.count())
            }
        })
    }

    fn new_process(&mut self, number: usize, child: usize, birth: Birth) -> String {
        let inherit = |place: &Place| match birth {
            Birth::Fork => place.clone(),
            Birth::Vfork | Birth::Spawn => Place::default(),
        };
        self.cast.new_process(number, child, birth, inherit)
    }

    fn exec(&mut self, number: usize) -> String {
        match self.cast.exec(number) {
            Ok(()) => {
                self.let_be_noticed();
                "up".to_owned()
            }
            Err(silence) => silence,
        }
    }

    /// Looks at each segment, with which the end of a process is noticed everywhere
    /// ([`accept`], order of ends).
    fn let_be_noticed(&mut self) {
        let Some(observer) = &mut self.cast.live[OBSERVER] else {
            return;
        };
        let mut look = |segment: &Segment| observer.process.ask(&format!("stat {} 0", segment.id));
        if let Err(silence) = self.segments.iter().try_for_each(|s| look(s).map(|_| ())) {
            let lost = self.cast.lost(OBSERVER, silence);
            self.cast.trace.push(format!("the observer: {lost}"));
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

    /// Ends all processes and looks at what is left; then removes it.
    fn finish(&mut self) {
        let step = |call| Step {
            process: OBSERVER as u8,
            raw: false,
            call,
        };
        for number in (0..PROCESSES).rev() {
            if self.cast.live[number].is_some() {
                self.leave(number, End::Kill);
            }
        }
        // A cut that is over with its process has no further consequence.
        for segment in &mut self.segments {
            segment.cloud.removed = false;
        }
        let begin = self.cast.trace.len();
        let totals = step(Call::Common(Common::Totals {
            buffer: Buffer::Good,
        }));
        self.untimed_step(&totals);
        for segment in 0..self.segments.len() {
            let id = Id::Number(self.segments[segment].id);
            self.untimed_step(&step(Call::Common(Common::Stat {
                id,
                look: Look::Id(Buffer::Good),
            })));
            self.untimed_step(&step(Call::Common(Common::Control {
                id,
                command: libc::IPC_RMID,
                buffer: Buffer::Good,
            })));
        }
        for segment in &mut self.segments {
            segment.cloud.cut = false;
        }
        self.untimed_step(&totals);
        for line in &mut self.cast.trace[begin..] {
            line.insert_str(0, INDENT);
        }
    }
}

fn in_area(address: u64) -> bool {
    (AREA..AREA_END).contains(&address)
}
