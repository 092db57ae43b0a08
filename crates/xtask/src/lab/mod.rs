// SPDX-License-Identifier: MIT OR Apache-2.0
//! `cargo xtask lab`: real Xen in QEMU, with a Debian dom0 and guests, for tests and a look around.
//! What it does and how to use it is in `docs/lab.md`.
//!
//! `debian` fetches packages, `image` and `libraries` say what is in the domains, `tree` makes
//! archives of that, `machine` runs QEMU, `stream` takes apart what the domains say, `session`
//! decides what follows from it, `report` counts what Xen lists.

mod commands;
mod debian;
mod image;
mod libraries;
mod machine;
mod report;
mod session;
mod stream;
mod tree;

use crate::{Result, programs, project};
use clap::{Args, Subcommand, ValueEnum};
use commands::Commands;
use machine::{Boot, Machine, Source};
use session::{Phase, Session, Step};
use std::fs::{File, TryLockError};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};

/// The most guests there can be.
pub const MOST_GUESTS: usize = 9;

/// Boots that fail before one is given up on.
const BOOTS: u32 = 4;

/// Within this time all domains are ready, or the boot has failed.
const BOOT_LIMIT: Duration = Duration::from_secs(400);

/// Xen's first word comes within this time, where KVM can run it.
const FIRST_WORD: Duration = Duration::from_secs(10);

/// Counting, and switching off.
const END_LIMIT: Duration = Duration::from_secs(60);

/// Lines of a log that are shown when something went wrong.
const LAST_LINES: usize = 25;

/// What to do in the lab
#[derive(Debug, Subcommand)]
pub enum Task {
    /// Boot, run a command in each domain, all at once, and say how they ended
    ///
    /// The exit status is 0 only if that of every command was.
    Run(Options),
}

/// How the lab is to be
#[derive(Debug, Args)]
pub struct Options {
    /// The kind of the guests
    #[arg(long, value_enum, default_value_t = Kind::Pv)]
    guest: Kind,

    /// Number of guests, dom1 and so on
    #[arg(long, default_value_t = 2, value_parser = guests)]
    domains: usize,

    /// Copy a directory to /lab of every domain, with the shared libraries its programs need
    #[arg(long, value_name = "DIR")]
    files: Option<PathBuf>,

    /// Nothing of Vshmem is in the domains
    #[arg(long)]
    bare: bool,

    /// Memory of each guest, in MiB
    #[arg(long, value_name = "MIB", default_value_t = 256)]
    memory: u32,

    /// Seconds that the commands may take, from when all domains are ready
    #[arg(long, value_name = "S", default_value_t = 600)]
    timeout: u64,

    /// What runs the machine [default: kvm where it can run Xen, else tcg]
    #[arg(long, value_enum)]
    accelerator: Option<Accelerator>,

    #[command(flatten)]
    commands: Commands,
}

/// The kind of a guest
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Kind {
    /// Paravirtualized
    Pv,
    /// With the processor's virtualization
    Pvh,
}

/// What QEMU runs the machine by
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Accelerator {
    /// The kernel's virtual machines
    Kvm,
    /// Emulation
    Tcg,
}

impl Accelerator {
    /// As QEMU wants it.
    fn argument(self) -> &'static str {
        match self {
            Accelerator::Kvm => "kvm",
            Accelerator::Tcg => "tcg,thread=multi",
        }
    }

    fn shown(self) -> &'static str {
        match self {
            Accelerator::Kvm => "KVM",
            Accelerator::Tcg => "emulation (TCG)",
        }
    }
}

fn guests(text: &str) -> std::result::Result<usize, String> {
    match text.parse() {
        Ok(number @ 1..=MOST_GUESTS) => Ok(number),
        _ => Err(format!("a number from 1 to {MOST_GUESTS}")),
    }
}

/// Does it.
pub fn lab(task: Task) -> Result<ExitCode> {
    match task {
        Task::Run(options) => run(&options),
    }
}

/// The lab's place, of which this process has the only hold.
struct Place {
    dir: PathBuf,
    _lock: File,
}

impl Place {
    fn take() -> Result<Self> {
        let bin = project::bin_dir()?;
        let dir = bin.parent().unwrap_or(&bin).join("lab");
        let fail = |e: std::io::Error| format!("{}: {e}", dir.display());
        std::fs::create_dir_all(&dir).map_err(fail)?;
        let lock = File::create(dir.join("lock")).map_err(fail)?;
        match lock.try_lock() {
            Ok(()) => Ok(Self { dir, _lock: lock }),
            Err(TryLockError::WouldBlock) => Err(format!(
                "another lab of this checkout runs ({} is locked); wait for it to end",
                dir.join("lock").display()
            )),
            Err(TryLockError::Error(error)) => Err(fail(error)),
        }
    }

    /// An empty directory for logs.
    fn logs(&self) -> Result<PathBuf> {
        let logs = self.dir.join("log");
        let fail = |e: std::io::Error| format!("{}: {e}", logs.display());
        match std::fs::remove_dir_all(&logs) {
            Err(e) if e.kind() != std::io::ErrorKind::NotFound => return Err(fail(e)),
            _ => {}
        }
        std::fs::create_dir_all(&logs).map_err(fail)?;
        Ok(logs)
    }
}

/// How a boot went that came to nothing.
enum Failure {
    /// Before any command began: it may be tried again.
    Boot(String),
    /// This machine's KVM does not run Xen.
    Silent,
    /// After that.
    Run(String),
}

fn run(options: &Options) -> Result<ExitCode> {
    options.commands.check(options.domains)?;
    machine::provide()?;
    if !options.bare {
        project::build()?;
    }
    let place = Place::take()?;
    let boot = build(&place, options)?;
    programs::take_signals()?;
    let mut accelerator = accelerator(options);
    let mut failed = 0;
    loop {
        let logs = place.logs()?;
        show(
            "lab",
            &format!(
                "booting Xen in QEMU by {}, {} guest(s); logs in {}",
                accelerator.shown(),
                options.domains,
                logs.display()
            ),
        );
        match once(&boot, options, accelerator, &logs) {
            Ok(session) => {
                let (lines, well) = session.verdict();
                for line in lines {
                    show("lab", &line);
                }
                if failed > 0 {
                    show("lab", &format!("boots that failed before: {failed}"));
                }
                return Ok(if well {
                    ExitCode::SUCCESS
                } else {
                    ExitCode::FAILURE
                });
            }
            Err(Failure::Silent) => {
                show(
                    "lab",
                    "KVM is here, but Xen does not run by it: emulation it is",
                );
                accelerator = Accelerator::Tcg;
            }
            Err(Failure::Boot(error)) if failed + 1 < BOOTS && error != "interrupted" => {
                failed += 1;
                show(
                    "lab",
                    &format!("boot {failed} failed: {error}; trying again"),
                );
            }
            Err(Failure::Boot(error)) | Err(Failure::Run(error)) => {
                for line in last_lines(&logs) {
                    show("lab", &line);
                }
                return Err(format!("{error}; the logs are in {}", logs.display()));
            }
        }
    }
}

/// Makes what is booted.
fn build(place: &Place, options: &Options) -> Result<Boot> {
    let root = debian::Root::provide(&place.dir)?;
    let xen = place.dir.join("xen");
    let packed = root.find("boot", "xen-4.", ".gz")?;
    let mut gunzip = Command::new("gzip");
    let output = gunzip
        .arg("-dc")
        .arg(&packed)
        .output()
        .map_err(|e| project::cannot_run(&gunzip, &e))?;
    project::judge(&gunzip, output.status)?;
    std::fs::write(&xen, output.stdout).map_err(|e| format!("{}: {e}", xen.display()))?;
    let guest = place.dir.join("guest.cpio");
    image::guest(&root, options)?.write(&guest)?;
    let archive = place.dir.join("dom0.cpio");
    image::dom0(&root, options, &guest)?.write(&archive)?;
    let kernel = root.path("boot").join(format!("vmlinuz-{}", root.kernel));
    Ok(Boot {
        xen,
        kernel,
        archive,
    })
}

fn accelerator(options: &Options) -> Accelerator {
    let kvm = || {
        File::options()
            .read(true)
            .write(true)
            .open("/dev/kvm")
            .is_ok()
    };
    options.accelerator.unwrap_or_else(|| {
        if kvm() {
            Accelerator::Kvm
        } else {
            Accelerator::Tcg
        }
    })
}

/// Boots once, and if that works, runs the commands.
fn once(
    boot: &Boot,
    options: &Options,
    accelerator: Accelerator,
    logs: &Path,
) -> std::result::Result<Session, Failure> {
    let commands = options.commands.of_domains().map(|(number, _)| number);
    let mut session = Session::new(options.domains, commands);
    let mut machine = Machine::start(boot, options, accelerator, logs).map_err(Failure::Boot)?;
    let mut phase = session.phase();
    let mut heard = false;
    let mut limit = Instant::now() + BOOT_LIMIT;
    if accelerator == Accelerator::Kvm {
        limit = Instant::now() + FIRST_WORD;
    }
    loop {
        let wait = limit.saturating_duration_since(Instant::now());
        let steps = match machine.events().recv_timeout(wait) {
            Ok((source, bytes)) => {
                if source == Source::Xen && !heard {
                    heard = true;
                    limit = Instant::now() + BOOT_LIMIT;
                }
                session.said(source, &bytes)
            }
            Err(RecvTimeoutError::Disconnected) => {
                return ended(session, machine, logs);
            }
            Err(RecvTimeoutError::Timeout) => match phase {
                Phase::Booting if !heard && options.accelerator.is_none() => {
                    return Err(Failure::Silent);
                }
                Phase::Booting => {
                    return Err(Failure::Boot("the domains did not get ready".into()));
                }
                Phase::Running => {
                    let (lines, _) = session.verdict();
                    let error = format!("time is up ({} s): {}", options.timeout, lines.join("; "));
                    return Err(Failure::Run(error));
                }
                Phase::Counting => return Err(Failure::Run("Xen does not count".into())),
                Phase::Ending => return Ok(session),
            },
        };
        for step in steps {
            match step {
                Step::Show(who, line) => show(&who, &line),
                Step::Tell(command) => machine.tell(command),
                Step::Fail(error) if phase == Phase::Booting => return Err(Failure::Boot(error)),
                Step::Fail(error) => return Err(Failure::Run(error)),
            }
        }
        if session.phase() != phase {
            phase = session.phase();
            limit = Instant::now()
                + match phase {
                    Phase::Running => Duration::from_secs(options.timeout),
                    _ => END_LIMIT,
                };
        }
    }
}

/// The machine has ended: as it should, or not.
fn ended(session: Session, machine: Machine, logs: &Path) -> std::result::Result<Session, Failure> {
    let phase = session.phase();
    let result = machine.finish();
    match (phase, result) {
        (Phase::Ending, Ok(())) => Ok(session),
        (Phase::Booting, Ok(())) => Err(Failure::Boot("the machine switched itself off".into())),
        (_, Ok(())) => Err(Failure::Run("the machine switched itself off".into())),
        (phase, Err(error)) => {
            let said = std::fs::read_to_string(logs.join("qemu.log")).unwrap_or_default();
            let error = match said.trim() {
                "" => error,
                _ if error == "interrupted" => error,
                said => format!("{error}: {said}"),
            };
            match phase {
                Phase::Booting => Err(Failure::Boot(error)),
                _ => Err(Failure::Run(error)),
            }
        }
    }
}

/// The ends of the logs.
fn last_lines(logs: &Path) -> Vec<String> {
    let mut lines = Vec::new();
    let Ok(entries) = std::fs::read_dir(logs) else {
        return lines;
    };
    let mut paths: Vec<_> = entries.flatten().map(|entry| entry.path()).collect();
    paths.sort();
    for path in paths {
        let text = std::fs::read(&path).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let all: Vec<_> = text.lines().collect();
        if all.is_empty() {
            continue;
        }
        lines.push(format!("the end of {}:", path.display()));
        let from = all.len().saturating_sub(LAST_LINES);
        lines.extend(all[from..].iter().map(|line| format!("  {line}")));
    }
    lines
}

/// Shows a line behind a name.
fn show(who: &str, line: &str) {
    use std::io::Write;
    // A reader that went away takes nothing from the result.
    let _ = writeln!(std::io::stdout(), "{who:>4} | {line}");
}
