// SPDX-License-Identifier: MIT OR Apache-2.0
//! `cargo xtask demo`: two unmodified programs in two domains meet in one memory; what each saw,
//! and how long a turn takes beside the kernel's System V and TCP.

use crate::programs::{self, Program};
use crate::{Result, project};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// Runs of each kind and size; the median is shown.
const REPETITIONS: usize = 7;

/// Bytes that change hands, and iterations that take long enough to measure and no longer:
/// through memory, and through TCP.
const SIZES: [(usize, u32, u32); 3] = [
    (8, 20_000, 2_000),
    (4096, 10_000, 2_000),
    (65536, 2_000, 700),
];

/// Shows everything.
pub fn demo() -> Result<()> {
    project::build()?;
    programs::take_signals()?;
    let world = World::new()?;
    let result = meet(&world).and_then(|()| race(&world));
    match world.end() {
        Ok(()) if result.is_ok() => println!("\nEverything is stopped."),
        Ok(()) => {}
        Err(error) => eprintln!("xtask: {error}"),
    }
    result
}

/// A directory of daemons for this run alone.
struct World {
    dir: PathBuf,
    bin: PathBuf,
    /// A key that no other run of this demo uses at the moment.
    key: String,
}

impl World {
    fn new() -> Result<Self> {
        let pid = std::process::id();
        let dir = std::env::temp_dir().join(format!("vshmem-demo-{pid}"));
        let bin = project::bin_dir()?;
        std::fs::DirBuilder::new()
            .mode(0o700)
            .create(&dir)
            .map_err(|e| format!("cannot make {}: {e}", dir.display()))?;
        Ok(Self {
            dir,
            bin,
            key: format!("0x5653{:04x}", pid & 0xffff),
        })
    }

    fn vshmem(&self, args: &[&str]) -> Command {
        let mut command = native(&self.bin.join("vshmem"), args);
        command.env("VSHMEM_DIR", &self.dir);
        command
    }

    /// A program in a domain.
    fn run(&self, domain: &str, program: &Path, args: &[&str]) -> Command {
        let mut command = self.vshmem(&["run", "--domain", domain, "--keys", "all", "--"]);
        command.arg(program).args(args);
        command
    }

    /// Stops all that runs and removes what it left.
    fn end(&self) -> Result<()> {
        let mut down = self.vshmem(&["down", "--all", "--force"]);
        project::run(down.stdout(Stdio::null()))?;
        std::fs::remove_dir_all(&self.dir).map_err(|e| format!("{}: {e}", self.dir.display()))
    }
}

/// A program without Vshmem, whatever the environment says.
fn native(program: &Path, args: &[&str]) -> Command {
    let mut command = Command::new(program);
    command.args(args);
    for variable in ["LD_PRELOAD", "VSHMEM_KEYS", "VSHMEM_DOMAIN"] {
        command.env_remove(variable);
    }
    command
}

/// Prints what somebody said, a line of it a line.
fn quote(who: &str, text: &str) {
    for line in text.lines() {
        println!("  {who:>8} | {line}");
    }
}

/// The main job: two programs find each other by a key and work in the same memory.
fn meet(world: &World) -> Result<()> {
    let hello = project::dwarf("hello");
    let key = world.key.as_str();
    println!(
        "Two domains, alpha and beta, each with an unmodified C program that knows\n\
         nothing but the key {key} (dwarfs-c/hello.c, plain shmget and shmat):\n\n  \
         vshmem run --domain alpha -- hello write --key {key}\n  \
         vshmem run --domain beta  -- hello read --key {key}\n"
    );
    programs::output(world.run("beta", Path::new("true"), &[]))?;
    let mut writer = Program::start(world.run("alpha", &hello, &["write", "--key", key]))?;
    quote("alpha", &writer.line()?);
    println!("\nWhat there is now, as `vshmem ls` shows it:\n");
    for line in programs::output(world.vshmem(&["ls"]))?.lines() {
        println!("  {line}");
    }
    println!("\nThe same program asks the kernel for that key, without Vshmem:\n");
    quote("kernel", &kernel_has_none(&hello, key)?);
    println!("\nIn domain beta, it finds what alpha wrote:\n");
    quote(
        "beta",
        &programs::output(world.run("beta", &hello, &["read", "--key", key]))?,
    );
    quote("alpha", &writer.finish()?);
    Ok(())
}

/// Asks the kernel for the key, which must not be there; returns what the program said.
fn kernel_has_none(hello: &Path, key: &str) -> Result<String> {
    let mut command = native(hello, &["read", "--key", key]);
    let output = command
        .output()
        .map_err(|e| project::cannot_run(&command, &e))?;
    if output.status.success() {
        return Err(format!(
            "the kernel has a segment of key {key}: it was not routed"
        ));
    }
    Ok(String::from_utf8_lossy(&output.stderr).into_owned())
}

/// The latency of an exchange through Vshmem, through the kernel's segment, and through TCP, in
/// turn, so that what else the machine does falls on all alike.
fn race(world: &World) -> Result<()> {
    println!(
        "\nControl goes back and forth between two processes, each filling the buffer at\n\
         its turn: dwarfs-c/sync.c in two domains through Vshmem, the same program\n\
         without Vshmem through the kernel's System V segment, and dwarfs-c/socket.c\n\
         through TCP on loopback. Microseconds a turn (one way), median of {REPETITIONS} runs:\n"
    );
    println!("     bytes     Vshmem   System V        TCP    TCP / Vshmem");
    for (size, memory_turns, tcp_turns) in SIZES {
        let mut times = [const { Vec::new() }; 3];
        for _ in 0..REPETITIONS {
            let in_domain =
                |domain: &str, program: &Path, args: &[&str]| world.run(domain, program, args);
            let in_kernel = |_: &str, program: &Path, args: &[&str]| native(program, args);
            times[0].push(sync(world, size, memory_turns, in_domain)?);
            times[1].push(sync(world, size, memory_turns, in_kernel)?);
            times[2].push(tcp(size, tcp_turns)?);
        }
        let [vshmem, kernel, tcp] = times.map(median);
        println!(
            "  {size:8} {:10.3} {:10.3} {:10.3} {:15.1}",
            vshmem / 1000.0,
            kernel / 1000.0,
            tcp / 1000.0,
            tcp / vshmem
        );
    }
    if std::thread::available_parallelism().is_ok_and(|cores| cores.get() < 2) {
        println!(
            "\n  (one core: the processes of the first two columns wait for each other's share)"
        );
    }
    Ok(())
}

/// Nanoseconds a turn of Sync, both sides started as `command` says.
fn sync(
    world: &World,
    size: usize,
    turns: u32,
    command: impl Fn(&str, &Path, &[&str]) -> Command,
) -> Result<f64> {
    let program = project::dwarf("sync");
    let start = |domain, id| {
        let (size, turns) = (size.to_string(), turns.to_string());
        let args = [
            "--id", id, "--key", &world.key, "--size", &size, "--iters", &turns,
        ];
        Program::start(command(domain, &program, &args))
    };
    let first = start("alpha", "0")?;
    let second = start("beta", "1")?;
    let said = first.finish()?;
    second.finish()?;
    nanoseconds(&said)
}

/// Nanoseconds a turn through TCP.
fn tcp(size: usize, turns: u32) -> Result<f64> {
    let program = project::dwarf("socket");
    let (size, turns) = (size.to_string(), turns.to_string());
    let start = |side, port: &str| {
        let args = [
            "tcp", side, "--port", port, "--size", &size, "--iters", &turns,
        ];
        Program::start(native(&program, &args))
    };
    let mut server = start("server", "0")?;
    let line = server.line()?;
    let port = line
        .rsplit(' ')
        .next()
        .ok_or_else(|| format!("no port in '{line}'"))?;
    let client = start("client", port)?;
    let said = client.finish()?;
    server.finish()?;
    nanoseconds(&said)
}

/// The number before "ns a turn" in what a program printed.
fn nanoseconds(said: &str) -> Result<f64> {
    let before = said.split(" ns a turn").next().unwrap_or_default();
    let word = before.split_whitespace().next_back().unwrap_or_default();
    word.parse()
        .map_err(|_| format!("no time a turn in '{}'", said.trim_end()))
}

/// The middle value; there are always some.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_is_read_from_what_the_programs_print() {
        let said = "peer says: sync 1, pid 7\n8 bytes, 200000 turns: 41.6 ns a turn\n";
        assert_eq!(nanoseconds(said), Ok(41.6));
        assert!(nanoseconds("").is_err());
    }

    #[test]
    fn the_median_of_five_is_the_third() {
        assert_eq!(median(vec![9.0, 1.0, 5.0, 2.0, 100.0]), 5.0);
    }
}
