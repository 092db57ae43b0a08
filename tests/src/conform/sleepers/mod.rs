// SPDX-License-Identifier: MIT OR Apache-2.0
//! Scripts of calls that may not come back until another process does something, or ever: those on
//! semaphore sets and on message queues.
//!
//! A step whose process sleeps in an earlier call is another process's; only signals and `SIGKILL`
//! reach who sleeps. After each step the runner waits until every process has answered or sleeps
//! again, and notes who was woken; then all that there is to see of each construct is looked at.

pub mod generate;
pub mod run;

use super::script::{self, Common, Id};
use std::fmt;

/// In the line of a process that slept in a call until another's step.
pub(super) const WAKES: &str = " wakes -> ";

/// A signal that comes to who sleeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// One with a handler.
    Handled,
    /// One with a handler that has `SA_RESTART`.
    Restarting,
    /// One that is ignored.
    Ignored,
    /// `SIGSTOP`, and when it has stopped `SIGCONT`.
    Stop,
}

/// A call in a process, or a signal to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call<O> {
    /// One that is made on this kind of construct alone.
    Own(O),
    /// One that scripts on other constructs make too.
    Common(Common),
    /// A signal to the process, if it sleeps in a call.
    Signal {
        /// Which.
        signal: Signal,
    },
}

/// A step of such a script.
pub type Step<O> = script::Step<Call<O>>;

/// What a number in an answer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// Itself.
    Number,
    /// A key.
    Key,
    /// A time.
    Time,
    /// A pid.
    Pid,
    /// Something that is not compared.
    Anything,
}

/// A process that sleeps in a call.
#[derive(Debug)]
pub struct Sleeper<O> {
    /// The construct.
    pub id: i32,
    /// The call.
    pub call: O,
}

/// The calls on one kind of construct.
pub trait Own: Clone + fmt::Debug + fmt::Display + Send + Sync + 'static {
    /// What the names of the interpreter's commands begin with.
    const KIND: &'static str;

    /// What a run has to know of constructs to tell what is compared.
    type Notes: Default;

    /// The id that it names.
    fn id(&self) -> Option<Id>;

    /// Of a get: the slot for the id.
    fn slot(&self) -> Option<u8>;

    /// The words for the interpreter; `id` is the number behind [`Own::id`].
    fn words(&self, id: i32) -> String;

    /// Whether it may have to wait for another process. One that comes back by itself after a while
    /// is waited for.
    fn may_sleep(&self) -> bool;

    /// Whether the kernel itself has only one outcome for it, among those who sleep in calls on the
    /// same construct, of which was `seen` what there is to see. What has not is not done.
    fn is_certain(&self, _sleepers: &[&Sleeper<Self>], _seen: &str) -> bool {
        true
    }

    /// It was called on `id` and failed with `errno`.
    fn failed(&self, _id: i32, _errno: &str, _notes: &mut Self::Notes) {}

    /// What the value is that a successful call returned.
    fn value(&self) -> Meaning {
        Meaning::Number
    }

    /// What the number in the field `name` is that was told of the construct `id`.
    fn field(name: &str, id: i32, notes: &Self::Notes) -> Meaning;
}

impl<O: Own> Call<O> {
    /// The id that it names.
    pub fn id(&self) -> Option<Id> {
        match self {
            Self::Own(call) => call.id(),
            Self::Common(call) => call.id(),
            Self::Signal { .. } => None,
        }
    }
}

impl<O: Own> fmt::Display for Call<O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Own(call) => write!(f, "{call}"),
            Self::Common(call) => write!(f, "{call}"),
            Self::Signal { signal } => write!(f, "Signal {{ signal: {signal:?} }}"),
        }
    }
}
