// SPDX-License-Identifier: MIT OR Apache-2.0
//! PostgreSQL 15 with all its shared memory in System V segments, natively and routed.
//!
//! Its postmaster makes the segment that its children inherit, parallel workers attach segments
//! of their own, and its interlock trusts `shm_nattch` with people's data: a second postmaster
//! must not start while any process of a first one lives.

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, User, chown, geteuid};
use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use vshmem_abi::ids::may_be_routed;
use vshmem_tests::{World, copy_product, stdout_of, succeed, wait_until};

/// Where Debian's package has its programs.
const PROGRAMS: &str = "/usr/lib/postgresql/15/bin";
/// The user whom Debian's package makes; PostgreSQL refuses to run as root.
const USER: &str = "postgres";
/// The domain of the routed run.
const DOMAIN: &str = "database";

/// An installation of its own: data, socket and log in a directory that is removed at the end.
struct Postgres {
    base: tempfile::TempDir,
    /// Where its segments are: `None` for the kernel's own.
    world: Option<World>,
}

/// A segment as its lister shows it.
#[derive(Debug, PartialEq)]
struct Segment {
    id: i32,
    bytes: u64,
    nattch: u64,
    cpid: i32,
}

/// A postmaster; told to stop at once when dropped, so that a failing test leaves nothing behind.
struct Postmaster(Child);

impl Postmaster {
    fn pid(&self) -> i32 {
        self.0.id() as i32
    }

    /// Kills it as `kill -9` does; returns the pid it had.
    fn kill(mut self) -> i32 {
        self.0.kill().expect("SIGKILL");
        self.0.wait().expect("wait");
        self.pid()
    }
}

impl Drop for Postmaster {
    fn drop(&mut self) {
        if let Ok(None) = self.0.try_wait() {
            // It was not waited for, so the pid is still its own.
            let _ = kill(Pid::from_raw(self.pid()), Signal::SIGQUIT);
            let _ = self.0.wait();
        }
    }
}

/// A process that is stopped until it is dropped, and then killed.
struct Stopped(Pid);

impl Stopped {
    fn stop(pid: i32) -> Self {
        let pid = Pid::from_raw(pid);
        kill(pid, Signal::SIGSTOP).expect("SIGSTOP");
        Self(pid)
    }
}

impl Drop for Stopped {
    fn drop(&mut self) {
        let _ = kill(self.0, Signal::SIGKILL);
    }
}

impl Postgres {
    fn new(world: Option<World>) -> Self {
        assert!(
            Path::new(PROGRAMS).exists(),
            "{PROGRAMS} is missing: install the Debian package postgresql-15"
        );
        let base = tempfile::Builder::new()
            .prefix("vshmem-pg-")
            .tempdir()
            .expect("tempdir");
        let new = Self { base, world };
        let readable = Permissions::from_mode(0o755);
        fs::set_permissions(new.base.path(), readable.clone()).expect("chmod");
        for name in ["data", "socket", "bin"] {
            fs::create_dir(new.path(name)).expect("mkdir");
        }
        if geteuid().is_root() {
            let user = User::from_name(USER).expect("passwd").expect("postgres");
            for name in ["data", "socket"] {
                chown(&new.path(name), Some(user.uid), Some(user.gid)).expect("chown");
            }
        }
        if let Some(world) = &new.world {
            // The daemons are the caller's, the clients another user's, who may not even be
            // able to reach the directory that the programs were built in.
            copy_product(&new.path("bin"));
            fs::set_permissions(world.dir(), readable).expect("chmod");
            world.up(DOMAIN);
        }
        new
    }

    fn path(&self, name: &str) -> PathBuf {
        self.base.path().join(name)
    }

    /// A command as PostgreSQL's user.
    fn as_user(&self, program: &Path) -> Command {
        let mut command = if geteuid().is_root() {
            let mut command = Command::new("setpriv");
            command
                .args(["--reuid", USER, "--regid", USER, "--clear-groups"])
                .arg(program);
            command
        } else {
            Command::new(program)
        };
        command
            .env("PGHOST", self.path("socket"))
            .env("PGUSER", USER)
            .env("PGDATABASE", "postgres")
            .current_dir(self.base.path());
        command
    }

    /// A program of the server, with its keys routed in the routed run.
    fn server(&self, name: &str) -> Command {
        let program = Path::new(PROGRAMS).join(name);
        let Some(world) = &self.world else {
            return self.as_user(&program);
        };
        let mut command = self.as_user(&self.path("bin/vshmem"));
        command
            .env("VSHMEM_DIR", world.dir())
            .args(["run", "--domain", DOMAIN, "--keys", "all,private", "--"])
            .arg(program);
        command
    }

    /// A program that only talks to the server.
    fn client(&self, name: &str, args: &[&str]) -> Command {
        let mut command = self.as_user(&Path::new(PROGRAMS).join(name));
        command.args(args);
        command
    }

    fn query(&self, sql: &str) -> String {
        let text = stdout_of(self.client("psql", &["-X", "-A", "-t", "-q", "-c", sql]));
        text.trim().to_owned()
    }

    fn initdb(&self) {
        let mut initdb = self.server("initdb");
        initdb
            .args(["--auth=trust", "--no-sync", "--username", USER, "--pgdata"])
            .arg(self.path("data"));
        succeed(initdb);
        let conf = self.path("data/postgresql.conf");
        let mut text = fs::read_to_string(&conf).expect("postgresql.conf");
        text += &format!(
            "shared_memory_type = sysv\n\
             dynamic_shared_memory_type = sysv\n\
             listen_addresses = ''\n\
             unix_socket_directories = '{}'\n",
            self.path("socket").display()
        );
        fs::write(&conf, text).expect("postgresql.conf");
    }

    /// The command that becomes a postmaster, which writes to the log file `log`.
    fn postmaster(&self, log: &str) -> Command {
        let log = File::create(self.path(log)).expect("log file");
        let mut command = self.server("postgres");
        command
            .arg("-D")
            .arg(self.path("data"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().expect("dup"))
            .stderr(log);
        command
    }

    fn log(&self, log: &str) -> String {
        fs::read_to_string(self.path(log)).expect("log file")
    }

    /// Starts a postmaster and waits until it takes connections.
    fn start(&self, log: &str) -> Postmaster {
        let mut postmaster = Postmaster(self.postmaster(log).spawn().expect("postgres"));
        wait_until("PostgreSQL takes connections", || {
            let ended = postmaster.0.try_wait().expect("wait");
            assert!(ended.is_none(), "{ended:?}:\n{}", self.log(log));
            self.client("pg_isready", &["-q"])
                .status()
                .expect("pg_isready")
                .success()
        });
        postmaster
    }

    /// The segments that the postmaster `cpid` made, the largest first, as Vshmem lists them in
    /// the routed run.
    fn segments(&self, cpid: i32) -> Vec<Segment> {
        let mut segments = match &self.world {
            None => kernel_segments(),
            Some(world) => {
                let list = stdout_of(world.vshmem(&["ls", "--long"]));
                table(&list, ["id", "bytes", "nattch", "cpid"])
            }
        };
        segments.retain(|segment| segment.cpid == cpid);
        segments.sort_by_key(|segment| std::cmp::Reverse(segment.bytes));
        segments
    }
}

/// The segments of the kernel: what `ipcs -m` shows.
fn kernel_segments() -> Vec<Segment> {
    let list = fs::read_to_string("/proc/sysvipc/shm").expect("/proc/sysvipc/shm");
    table(&list, ["shmid", "size", "nattch", "cpid"])
}

/// Four columns, chosen by their names, of a table that has no blanks in its fields.
fn table(text: &str, columns: [&str; 4]) -> Vec<Segment> {
    let mut lines = text.lines().map(|line| line.split_whitespace());
    let header: Vec<&str> = lines.next().expect("a header").collect();
    let places = columns.map(|column| {
        let place = header.iter().position(|name| *name == column);
        place.unwrap_or_else(|| panic!("no column {column} in {header:?}"))
    });
    lines
        .map(|line| {
            let fields: Vec<&str> = line.collect();
            let field = |column: usize| fields[places[column]].parse::<u64>().expect("a number");
            Segment {
                id: field(0) as i32,
                bytes: field(1),
                nattch: field(2),
                cpid: field(3) as i32,
            }
        })
        .collect()
}

/// The same for both memories. `seconds` is how long pgbench runs.
fn serves_dies_and_recovers(postgres: &Postgres, seconds: u32) {
    let routed = postgres.world.is_some();
    postgres.initdb();
    let first = postgres.start("first.log");

    // Its segments are where they should be, and nowhere else: the main one, with 128 MiB of
    // buffers, and the one that lists the parallel workers' segments.
    let segments = postgres.segments(first.pid());
    assert_eq!(segments.len(), 2, "{segments:?}");
    let main = &segments[0];
    assert!(main.bytes > 128 << 20, "{segments:?}");
    assert!(segments.iter().all(|s| s.nattch > 1), "{segments:?}");
    let in_kernel = kernel_segments().iter().any(|s| s.cpid == first.pid());
    assert_eq!(in_kernel, !routed);
    let high = segments.iter().all(|s| may_be_routed(s.id));
    assert!(!routed || high, "{segments:?}");

    // Work by several backends, and a query whose parallel workers share a segment of their own.
    succeed(postgres.client("pgbench", &["--quiet", "-i", "-s", "2"]));
    let bench = stdout_of(postgres.client("pgbench", &["-c4", &format!("-T{seconds}")]));
    println!("{bench}");
    assert!(
        bench.contains("number of failed transactions: 0 "),
        "{bench}"
    );
    let plan = postgres.query(
        "set min_parallel_table_scan_size = 0; set parallel_setup_cost = 0; \
         set parallel_tuple_cost = 0; \
         explain (analyze, costs off) select sum(abalance) from pgbench_accounts",
    );
    assert!(plan.contains("Workers Launched: 2"), "{plan}");
    let sums = "select (select sum(abalance) from pgbench_accounts), \
                (select sum(delta) from pgbench_history), count(*) from pgbench_history";
    let before = postgres.query(sums);
    let fields: Vec<&str> = before.split('|').collect();
    assert_eq!(fields[0], fields[1], "balances are what history adds up to");

    // One backend is kept from noticing that its postmaster is killed.
    let backends = "select coalesce(min(pid), 0) from pg_stat_activity \
                    where query = 'select pg_sleep(10000)'";
    let mut session = postgres
        .client("psql", &["-X", "-c", "select pg_sleep(10000)"])
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("psql");
    let mut orphan = 0;
    wait_until("a backend sleeps", || {
        orphan = postgres.query(backends).parse().expect("a pid");
        orphan != 0
    });
    let orphan = Stopped::stop(orphan);
    let first_pid = first.kill();
    wait_until("the orphan alone is left", || {
        let segments = postgres.segments(first_pid);
        segments.len() == 2 && segments.iter().all(|s| s.nattch == 1)
    });

    // The interlock holds as long as the orphan lives.
    let refused = postgres
        .postmaster("refused.log")
        .status()
        .expect("postgres");
    assert_eq!(refused.code(), Some(1));
    let log = postgres.log("refused.log");
    assert!(log.contains("pre-existing shared memory block"), "{log}");
    assert!(log.contains(&format!("ID {}", main.id)), "{log}");
    assert!(log.contains("is still in use"), "{log}");

    drop(orphan);
    session.wait().expect("psql");
    wait_until("nobody is left", || {
        postgres.segments(first_pid).iter().all(|s| s.nattch == 0)
    });

    // Then the next one takes over, with all that was committed.
    let second = postgres.start("second.log");
    let log = postgres.log("second.log");
    assert!(log.contains("automatic recovery in progress"), "{log}");
    assert_eq!(postgres.query(sums), before);
    assert_eq!(postgres.segments(first_pid), [], "leftovers are removed");
    assert_eq!(postgres.segments(second.pid()).len(), 2);

    stop(postgres, second);
}

/// A clean stop, which leaves no segment behind.
fn stop(postgres: &Postgres, mut postmaster: Postmaster) {
    kill(Pid::from_raw(postmaster.pid()), Signal::SIGINT).expect("SIGINT");
    let status = postmaster.0.wait().expect("wait");
    assert!(status.success(), "{status}");
    assert_eq!(postgres.segments(postmaster.pid()), []);
    let log = postgres.log("second.log");
    assert!(log.contains("database system is shut down"), "{log}");
}

#[test]
fn postgresql_serves_dies_and_recovers_on_the_kernels_memory() {
    serves_dies_and_recovers(&Postgres::new(None), 1);
}

#[test]
fn postgresql_serves_dies_and_recovers_on_routed_memory() {
    serves_dies_and_recovers(&Postgres::new(Some(World::new())), 10);
}
