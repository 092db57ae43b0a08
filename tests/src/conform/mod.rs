// SPDX-License-Identifier: MIT OR Apache-2.0
//! Conformance: random scripts of System V calls by several processes, run on two sides, whose
//! traces must be equal line by line. One side is the kernel; the other is the kernel again (to
//! show that the harness itself is sound) or a world of two domains.
//!
//! `VSHMEM_CONFORM_SEED` and `VSHMEM_CONFORM_CASES` choose other cases than the default ones;
//! a failure says which seed shows it again as the first case.

pub mod accept;
mod cast;
pub mod generate;
pub mod process;
pub mod queues;
pub mod run;
pub mod script;
pub mod sets;
pub mod sleepers;
pub mod test;

use crate::World;
use process::Start;
use proptest::strategy::BoxedStrategy;
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};
use run::Clock;
use std::collections::BTreeMap;
use std::fmt;
use std::process::Command;
use std::sync::Mutex;

/// A step of a script. There are scripts of calls on segments ([`script::Step`]), on semaphore sets
/// ([`sets::script::Step`]), and on message queues ([`queues::script::Step`]).
pub trait Scripted: Clone + fmt::Debug + Send + Sync + 'static {
    /// Runs `script` with processes that `program` starts in a domain, in a new IPC namespace, and
    /// returns a line for each step, and some indented ones.
    fn trace(
        script: &[Self],
        clock: Clock,
        program: &(dyn Fn(usize) -> Start + Sync),
    ) -> Vec<String>;

    /// The call that it makes, beginning with its name.
    fn call(&self) -> String;
}

/// A place where scripts are run.
pub trait Side<S>: Send {
    /// Runs a script and returns what happened, a line for each step and some more.
    fn trace(&mut self, script: &[S]) -> Vec<String>;

    /// Forgets what a run that went wrong has left behind.
    fn reset(&mut self) {}
}

/// The kernel.
pub struct Native(pub Clock);

impl<S: Scripted> Side<S> for Native {
    fn trace(&mut self, script: &[S]) -> Vec<String> {
        let program = crate::cc("conf_interp");
        S::trace(script, self.0, &|_| Command::new(&program).into())
    }
}

/// Names of the domains that a routed side spreads its processes over.
const NAMES: [&str; 2] = ["a", "b"];

/// The client library.
const LIBRARY: &str = "libvshmem.so";

/// A world of two domains.
pub struct Routed {
    clock: Clock,
    keys: &'static str,
    world: World,
}

impl Routed {
    /// Starts the world, in which `keys` are to be routed.
    pub fn new(clock: Clock, keys: &'static str) -> Self {
        Self {
            clock,
            keys,
            world: Self::world(),
        }
    }

    fn world() -> World {
        use std::os::unix::fs::PermissionsExt;
        let world = World::new();
        if crate::in_guests() {
            return world;
        }
        // Processes that have given up root reach the daemons by this path too.
        std::fs::set_permissions(world.dir(), PermissionsExt::from_mode(0o755))
            .expect("mode of the world's directory");
        // So they do the library, of which the build's place may be root's own.
        std::fs::copy(crate::bin(LIBRARY), world.dir().join(LIBRARY)).expect("copy of the library");
        for name in NAMES {
            let mut up = world.run(name, "all", "true");
            // What may be granted is limited by design; scripts make segments of any size.
            up.env("VSHMEM_GRANT_LIMIT", u64::MAX.to_string());
            crate::succeed(up);
        }
        world
    }
}

impl<S: Scripted> Side<S> for Routed {
    fn trace(&mut self, script: &[S]) -> Vec<String> {
        let program = crate::cc("conf_interp");
        let own = self.world.dir().join(LIBRARY);
        let library = if crate::in_guests() {
            crate::bin(LIBRARY)
        } else {
            own
        };
        S::trace(script, self.clock, &|domain| {
            let host = self.world.host(NAMES[domain]);
            let command = self
                .world
                .plain(&library, NAMES[domain], self.keys, &program);
            Start { command, host }
        })
    }

    fn reset(&mut self) {
        self.world = Self::world();
    }
}

/// Which cases are run.
#[derive(Clone)]
pub struct Plan<S> {
    /// What scripts are made of.
    pub scripts: fn() -> BoxedStrategy<Vec<S>>,
    /// Seed of the first case; each other has one of its own, derived from it.
    pub seed: u64,
    /// How many.
    pub cases: u64,
    /// How many run at a time, each with sides of its own.
    pub workers: usize,
}

impl<S> Plan<S> {
    /// A plan that `VSHMEM_CONFORM_SEED` and `VSHMEM_CONFORM_CASES` may change.
    pub fn from_env(cases: u64, scripts: fn() -> BoxedStrategy<Vec<S>>) -> Self {
        let number = |name: &str| {
            let text = std::env::var(name).ok()?;
            Some(
                text.parse()
                    .unwrap_or_else(|e| panic!("{name}={text}: {e}")),
            )
        };
        Self {
            seed: number("VSHMEM_CONFORM_SEED").unwrap_or(1),
            cases: number("VSHMEM_CONFORM_CASES").unwrap_or(cases),
            scripts,
            workers: match std::thread::available_parallelism() {
                // There is one world among guests.
                Ok(processors) if !crate::in_guests() => processors.get(),
                _ => 1,
            },
        }
    }

    fn seed_of(&self, case: u64) -> u64 {
        // An odd factor with bits all over: no two cases of a plan have the same seed.
        self.seed
            .wrapping_add(case.wrapping_mul(0x9e37_79b9_7f4a_7c15))
    }
}

/// A script that the two sides disagree about, as small as it could be made.
#[derive(Debug)]
pub struct Difference<S> {
    /// Seed that shows it again.
    pub seed: u64,
    /// The script.
    pub script: Vec<S>,
    /// Trace of the first side.
    pub left: Vec<String>,
    /// Trace of the second.
    pub right: Vec<String>,
}

impl<S: fmt::Debug> fmt::Display for Difference<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "the sides differ; - is the first, + the second")?;
        for line in 0..self.left.len().max(self.right.len()) {
            match (self.left.get(line), self.right.get(line)) {
                (Some(left), Some(right)) if left == right => writeln!(f, "  {left}")?,
                (left, right) => {
                    for (sign, text) in [('-', left), ('+', right)] {
                        writeln!(f, "{sign} {}", text.map_or("", String::as_str))?;
                    }
                    break;
                }
            }
        }
        writeln!(f, "as a script:")?;
        for step in &self.script {
            writeln!(f, "    {step:?},")?;
        }
        write!(
            f,
            "VSHMEM_CONFORM_SEED={} VSHMEM_CONFORM_CASES=1 shows it again",
            self.seed
        )
    }
}

/// What the cases of a plan came to: how often each outcome was seen, by `call outcome`.
pub type Outcomes = BTreeMap<String, u64>;

/// Runs the cases of `plan` on two sides and compares.
///
/// # Errors
/// The first difference, shrunk.
pub fn compare<S: Scripted, A: Side<S>, B: Side<S>>(
    plan: &Plan<S>,
    left: impl Fn() -> A + Sync,
    right: impl Fn() -> B + Sync,
) -> Result<Outcomes, Box<Difference<S>>> {
    struct State<S> {
        next: u64,
        outcomes: Outcomes,
        difference: Option<Box<Difference<S>>>,
    }
    let state = Mutex::new(State {
        next: 0,
        outcomes: Outcomes::new(),
        difference: None,
    });
    let lock = || state.lock().expect("no worker panics with the lock");
    let work = || {
        let scripts = (plan.scripts)();
        let (mut left, mut right) = (left(), right());
        loop {
            let case = {
                let mut state = lock();
                if state.next == plan.cases || state.difference.is_some() {
                    return;
                }
                state.next += 1;
                state.next - 1
            };
            let result = one_case(plan.seed_of(case), &scripts, &mut left, &mut right);
            let mut state = lock();
            match result {
                Ok(outcomes) => {
                    for (outcome, times) in outcomes {
                        *state.outcomes.entry(outcome).or_default() += times;
                    }
                }
                Err(difference) => state.difference = Some(difference),
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..plan.workers {
            scope.spawn(work);
        }
    });
    let state = state.into_inner().expect("no worker panicked");
    match state.difference {
        Some(difference) => Err(difference),
        None => Ok(state.outcomes),
    }
}

/// Compares one case, and shrinks it when the sides differ.
fn one_case<S: Scripted>(
    seed: u64,
    scripts: &BoxedStrategy<Vec<S>>,
    left: &mut impl Side<S>,
    right: &mut impl Side<S>,
) -> Result<Outcomes, Box<Difference<S>>> {
    let mut bytes = [0; 32];
    bytes[..8].copy_from_slice(&seed.to_le_bytes());
    let config = Config {
        cases: 1,
        failure_persistence: None,
        max_shrink_iters: 4000,
        max_shrink_time: 120_000, // milliseconds
        ..Config::default()
    };
    let rng = TestRng::from_seed(RngAlgorithm::ChaCha, &bytes);
    let mut runner = TestRunner::new_with_rng(config, rng);
    // The runner wants a function that it may call again and again, through a shared reference.
    let sides = Mutex::new((left, right, Outcomes::new(), None));
    let result = runner.run(scripts, |script| {
        let mut guard = sides.lock().expect("one thread");
        let (left, right, outcomes, traces) = &mut *guard;
        let (one, other) = both(*left, *right, &script);
        if one == other {
            *outcomes = count(&script, &one);
            return Ok(());
        }
        *traces = Some((script, one, other));
        left.reset();
        right.reset();
        Err(TestCaseError::fail("the traces differ"))
    });
    let (left_side, right_side, outcomes, traces) = sides.into_inner().expect("one thread");
    match (result, traces) {
        (Ok(()), _) => Ok(outcomes),
        // The last failing run is the smallest one.
        (Err(TestError::Fail(..)), Some((script, left, right))) => {
            let mut difference = Difference {
                seed,
                script,
                left,
                right,
            };
            drop_needless(&mut difference, left_side, right_side);
            Err(Box::new(difference))
        }
        (Err(error), _) => panic!("no script could be made: {error}"),
    }
}

/// Takes away each step without which the sides differ as well. The runner tries that once, before
/// it makes the steps simpler; some are needed only until then.
fn drop_needless<S: Scripted>(
    difference: &mut Difference<S>,
    left: &mut impl Side<S>,
    right: &mut impl Side<S>,
) {
    for at in (0..difference.script.len()).rev() {
        let mut script = difference.script.clone();
        script.remove(at);
        let (one, other) = both(left, right, &script);
        if one != other {
            (difference.script, difference.left, difference.right) = (script, one, other);
            left.reset();
            right.reset();
        }
    }
}

/// Runs a script on both sides, at the same time.
pub fn both<S: Scripted>(
    left: &mut impl Side<S>,
    right: &mut impl Side<S>,
    script: &[S],
) -> (Vec<String>, Vec<String>) {
    std::thread::scope(|scope| {
        let left = scope.spawn(|| left.trace(script));
        let right = right.trace(script);
        match left.join() {
            Ok(left) => (left, right),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    })
}

/// The outcomes of a script by the word of the call and the word after the arrow; those of who slept
/// are `Wake`'s.
fn count(script: &[impl Scripted], trace: &[String]) -> Outcomes {
    let mut outcomes = Outcomes::new();
    let mut add = |call: &str, line: &str| {
        let outcome = line.rsplit_once(" -> ").map_or("", |(_, outcome)| outcome);
        let outcome = match outcome.split_once(' ') {
            _ if outcome == run::NOBODY_THERE => return,
            Some(("-1", errno)) => errno,
            Some(_) => "done",
            None => outcome,
        };
        *outcomes.entry(format!("{call} {outcome}")).or_default() += 1;
    };
    let steps = trace.iter().filter(|line| !line.starts_with(run::INDENT));
    for (step, line) in script.iter().zip(steps) {
        let call = step.call();
        add(call.split([' ', '{']).next().unwrap_or_default(), line);
    }
    for line in trace.iter().filter(|line| line.contains(sleepers::WAKES)) {
        add("Wake", line);
    }
    outcomes
}
