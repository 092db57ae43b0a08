// SPDX-License-Identifier: MIT OR Apache-2.0
//! All tests between guests, in their order: those that the host port passes too, as the same binaries,
//! and those that only guests can be used for.

mod lives;
mod rules;
mod shared;

use super::{Answer, Ask, Connection, ENV_GUESTS, ENV_KINDS, ENV_PROGRAMS, Program};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::{Command, ExitCode};

/// Where the lab has put the tests, in every domain.
const LAB: &str = "/lab";

/// A queue on Xen has room for fewer messages than the kernel's may have (docs/limitations.md), and the daemons of
/// guests are not started anew for a test that configures them.
const NOT_IN_GUESTS: [&str; 4] = [
    "--skip",
    "a_queue_is_full_by_messages",
    "--skip",
    "limits_are_the_kernels_unless",
];

/// Cases of each conformance test: emulation is slow, and the host port runs hundreds.
const CASES: &str = "10";

/// The suite under way.
pub(super) struct Suite {
    hosts: [String; 3],
    only: Option<String>,
    passed: u64,
    failed: u64,
}

/// A program that has ended.
pub(super) struct Ended {
    /// Its status as `wait` has it.
    pub status: i32,
    /// All that it wrote.
    pub text: String,
}

/// Runs all of it, or what `only` chooses ([`Suite::wants`]); the status says whether all passed.
pub fn run(hosts: [String; 3], only: Option<String>) -> ExitCode {
    let mut suite = Suite {
        hosts,
        only,
        passed: 0,
        failed: 0,
    };
    suite.hosts.iter().for_each(|host| await_agent(host));
    suite.same_binaries();
    shared::run(&mut suite);
    rules::run(&mut suite);
    lives::run(&mut suite);
    for host in suite.hosts.clone() {
        // The lab judges how its command ends.
        let _ = Connection::to(&host).say(&Ask::Quit);
    }
    let word = if suite.failed == 0 { "ok" } else { "FAILED" };
    println!(
        "test result: {word}. {} passed; {} failed; 0 ignored",
        suite.passed, suite.failed
    );
    ExitCode::from(u8::from(suite.failed > 0))
}

/// Compiles all programs of `tests/c` and copies them.
pub fn put_programs(dir: &Path) {
    let sources = std::fs::read_dir(crate::root().join("tests/c")).expect("tests/c");
    for source in sources {
        let source = source.expect("an entry of tests/c").path();
        if source.extension().is_some_and(|extension| extension == "c") {
            let name = source.file_stem().and_then(|name| name.to_str());
            let program = crate::cc(name.expect("UTF-8"));
            std::fs::copy(&program, dir.join(name.expect("UTF-8"))).expect("copy of a program");
        }
    }
}

impl Suite {
    /// A test of the suite's own.
    pub(super) fn check(&mut self, name: &str, test: impl FnOnce(&Self)) {
        if !self.wants(name) {
            return;
        }
        let passed = catch_unwind(AssertUnwindSafe(|| test(self))).is_ok();
        self.count(name, passed);
    }

    /// Whether a test of this name was chosen: it has one of the parts between `|` in it, if there are such, and
    /// none of those that begin with `!`.
    fn wants(&self, name: &str) -> bool {
        chosen(self.only.as_deref().unwrap_or_default(), name)
    }

    fn count(&mut self, name: &str, passed: bool) {
        println!("test {name} ... {}", if passed { "ok" } else { "FAILED" });
        *(if passed {
            &mut self.passed
        } else {
            &mut self.failed
        }) += 1;
    }

    /// The address of a guest: 1, 2 or 3.
    pub(super) fn host(&self, guest: usize) -> &str {
        &self.hosts[guest - 1]
    }

    /// Starts a program in a guest, with all keys routed; its answers are read from the connection.
    pub(super) fn start(&self, guest: usize, argv: &[&str]) -> Connection {
        let mut program = plain(&["vshmem", "run", "--keys", "all,private", "--"]);
        program
            .argv
            .extend(argv.iter().map(|arg| (*arg).to_owned()));
        started(self.host(guest), program)
    }

    /// Runs a program in a guest to its end, with all keys routed.
    pub(super) fn routed(&self, guest: usize, argv: &[&str]) -> Ended {
        to_end(self.start(guest, argv))
    }

    /// The same without Vshmem; the program has to succeed.
    pub(super) fn succeed(&self, guest: usize, argv: &[&str]) -> String {
        let ended = to_end(started(self.host(guest), plain(argv)));
        assert_eq!(ended.status, 0, "{argv:?}: {}", ended.text);
        ended.text
    }

    /// The tests that the host port passes: each guest alone, and the first two against each other.
    fn same_binaries(&mut self) {
        // Two guests alone at once, each on a processor, must not see each other's constructs: they are
        // of different kinds.
        let life = ["--skip", "domain", "--skip", "namespace"];
        // Who attached last is told by the clocks of the guests, which are some 50 ms apart in emulation
        // (docs/limitations.md).
        let by_clock = "pids_of_the_own_domain_are_shown";
        let [sets, queues] = [("semaphores", "-s"), ("queues", "-q")];
        // gntalloc's descriptors are for writing, and not for those who may only read (docs/limitations.md).
        let others =
            ["another_user", "mode_bits_decide", "cannot_be_made"].map(|name| ["--skip", name]);
        let [life, permissions] = [
            ("lifecycle", &life[..]),
            ("permissions", others.as_flattened()),
        ];
        for ((one, one_kind), (other, other_kind)) in [(sets, queues), (queues, sets)] {
            let guests = [(1, one, one_kind), (2, other, other_kind)];
            let started = guests.map(|(guest, binary, kinds)| {
                let name = format!("dom{guest} alone, {binary}");
                let connection = self
                    .wants(&name)
                    .then(|| self.binary(guest, binary, &NOT_IN_GUESTS, "a=", kinds));
                (name, connection)
            });
            for (name, connection) in started {
                connection
                    .into_iter()
                    .for_each(|connection| self.judge(&name, connection));
            }
        }
        for guest in [1, 2] {
            for (binary, filters) in [life, permissions] {
                let name = format!("dom{guest} alone, {binary}");
                if self.wants(&name) {
                    let connection = self.binary(guest, binary, filters, "a=", "");
                    self.judge(&name, connection);
                }
            }
        }
        let both = [
            (
                "sem_domains",
                vec!["--skip", "the_death_of", "--skip", "the_end_of"],
            ),
            (
                "queue_domains",
                vec!["--skip", "the_death_of", "--skip", "the_end_of"],
            ),
            (
                "lifecycle",
                vec!["domain", "--skip", "namespace", "--skip", by_clock],
            ),
            ("conformance", vec!["routed_calls"]),
            ("sem_conformance", vec!["routed_calls"]),
            ("msg_conformance", vec!["routed_calls"]),
        ];
        for (binary, filters) in both {
            let name = format!("dom1 and dom2, {binary}");
            if self.wants(&name) {
                let guests = format!("a= b={}", self.host(2));
                let connection = self.binary(1, binary, &filters, &guests, "");
                self.judge(&name, connection);
            }
        }
    }

    /// Starts a test binary in a guest; `guests` says where its domains are, `kinds` of which kinds it makes
    /// constructs ([`ENV_KINDS`]).
    fn binary(
        &self,
        guest: usize,
        name: &str,
        filters: &[&str],
        guests: &str,
        kinds: &str,
    ) -> Connection {
        let mut program = plain(&[&format!("{LAB}/{name}"), "--test-threads=1"]);
        program.argv.extend(filters.iter().map(|f| (*f).to_owned()));
        let env = [
            (ENV_GUESTS, guests),
            (ENV_KINDS, kinds),
            (ENV_PROGRAMS, LAB),
            ("VSHMEM_BIN_DIR", LAB),
            ("VSHMEM_CONFORM_CASES", CASES),
            ("CI", "true"),
        ];
        program.env = env.map(|(name, value)| (name.into(), value.into())).into();
        started(self.host(guest), program)
    }

    /// Counts the tests of a binary as it runs.
    fn judge(&mut self, what: &str, connection: Connection) {
        let (mut tests, mut failed) = (0, false);
        let ended = line_by_line(connection, |line| {
            let named = line.strip_prefix("test ");
            if let Some((name, result)) = named.and_then(|line| line.rsplit_once(" ... ")) {
                tests += 1;
                failed |= result != "ok";
                self.count(&format!("{what}: {name}"), result == "ok");
            }
        });
        if tests == 0 || !failed && ended.status != 0 {
            self.count(&format!("{what}: the binary runs its tests"), false);
            failed = true;
        }
        if failed {
            println!("{}", ended.text);
        }
    }
}

/// [`Suite::wants`].
fn chosen(parts: &str, name: &str) -> bool {
    let mut wanted = None;
    for part in parts.split('|').filter(|part| !part.is_empty()) {
        match part.strip_prefix('!') {
            Some(part) if name.contains(part) => return false,
            Some(_) => {}
            None => wanted = Some(wanted.unwrap_or(false) || name.contains(part)),
        }
    }
    wanted.unwrap_or(true)
}

/// A program without variables.
pub(super) fn plain(argv: &[&str]) -> Program {
    Program {
        argv: argv.iter().map(|arg| (*arg).to_owned()).collect(),
        env: Vec::new(),
    }
}

/// Starts a program by an agent.
pub(super) fn started(host: &str, program: Program) -> Connection {
    let mut connection = Connection::to(host);
    let told = format!("{program:?}");
    match connection.ask(&Ask::Run(program)) {
        Answer::Pid(_) => connection,
        other => panic!("{told}: {other:?}"),
    }
}

/// Waits until a program has ended.
pub(super) fn to_end(connection: Connection) -> Ended {
    line_by_line(connection, |_| ())
}

/// Shows each line that a program writes, and waits until it has ended.
fn line_by_line(mut connection: Connection, mut show: impl FnMut(&str)) -> Ended {
    let mut bytes = Vec::new();
    let mut shown = 0;
    loop {
        match connection.hear() {
            Some(Answer::Output(more) | Answer::Errors(more)) => {
                bytes.extend(more);
                while let Some(length) = bytes[shown..].iter().position(|&b| b == b'\n') {
                    show(&String::from_utf8_lossy(&bytes[shown..shown + length]));
                    shown += length + 1;
                }
            }
            Some(Answer::Ended(status)) => {
                let text = String::from_utf8_lossy(&bytes).into_owned();
                return Ended { status, text };
            }
            other => panic!("not about a program: {other:?}"),
        }
    }
}

/// Waits until an agent serves.
pub(super) fn await_agent(host: &str) {
    crate::wait_until("the agent serves", || {
        std::net::TcpStream::connect((host, super::PORT)).is_ok()
    });
}

/// Runs a command of dom0, which has to succeed.
pub(super) fn in_dom0(argv: &[&str]) -> String {
    let mut command = Command::new(argv[0]);
    command.args(&argv[1..]);
    crate::stdout_of(command)
}

#[cfg(test)]
mod tests {
    use super::chosen;

    #[test]
    fn tests_are_chosen_by_parts_of_their_names() {
        assert!(chosen("", "dom1 alone, queues"));
        assert!(chosen("queues|sets", "dom1 alone, queues"));
        assert!(!chosen("sets", "dom1 alone, queues"));
        assert!(!chosen("!alone", "dom1 alone, queues"));
        assert!(chosen("!alone", "dom1 and dom2, queues"));
        assert!(!chosen("queues|!alone", "dom1 alone, queues"));
        assert!(!chosen("queues|!alone", "the limit"));
    }
}
