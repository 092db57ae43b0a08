// SPDX-License-Identifier: MIT OR Apache-2.0
//! A run of the lab: what is to be booted is built, it is booted until that works, what the session
//! asks for is done, and the verdict is said.

use super::debian::Root;
use super::image::{self, Work};
use super::machine::{self, Boot, Machine};
use super::place::Place;
use super::session::{Phase, Session, Step};
use super::{Accelerator, Kind, Run, Setup, qemu};
use crate::{Result, programs, project};
use std::io::Write;
use std::path::Path;
use std::process::{Command, ExitCode};
use std::sync::mpsc::RecvTimeoutError;
use std::time::{Duration, Instant};

/// Boots that fail before it is given up.
const BOOTS: u32 = 4;

/// A boot in which for so long nobody says anything has failed.
const SILENCE: Duration = Duration::from_secs(180);

/// Xen's first word comes within this time where KVM can run it.
const FIRST_WORD: Duration = Duration::from_secs(10);

/// Xen has counted, and the machine is off, within this time.
const END: Duration = Duration::from_secs(120);

/// How it went, if not well.
enum Failure {
    /// It came to nothing before any command began.
    Boot(String),
    /// By KVM, not even Xen came up.
    Mute,
    /// It came to nothing after that.
    Run(String),
}

/// Lines for people, with the time since the beginning before the lab's own.
struct Voice(Instant);

impl Voice {
    fn lab(&self, line: &str) {
        let seconds = self.0.elapsed().as_secs();
        self.show("lab", &format!("{seconds:3} s: {line}"));
    }

    fn show(&self, who: &str, line: &str) {
        // A reader that went away takes nothing from the result.
        let _ = writeln!(std::io::stdout(), "{who:>4} | {line}");
    }
}

/// Boots, runs the commands, and says how they ended.
pub fn run(run: &Run) -> Result<ExitCode> {
    run.commands.check(run.setup.domains)?;
    let (place, boot) = prepare(&run.setup, Work::Commands(&run.commands))?;
    programs::take_signals()?;
    let voice = Voice(Instant::now());
    let mut accelerator = place.accelerator(&run.setup);
    let mut failed = 0;
    loop {
        if qemu::is_for(&run.setup, accelerator) {
            qemu::provide(place.dir())?;
        }
        voice.lab(&format!(
            "booting Xen with {} {} guest(s) in QEMU, by {}",
            run.setup.domains,
            run.setup.guest.shown(),
            accelerator.shown()
        ));
        match once(&boot, run, accelerator, &place, &voice) {
            Ok(session) => {
                let (lines, well) = session.verdict();
                for line in lines {
                    voice.lab(&line);
                }
                voice.lab(&format!(
                    "off; boots that failed before: {failed}; logs: {}",
                    place.logs().display()
                ));
                return Ok(match well {
                    true => ExitCode::SUCCESS,
                    false => ExitCode::FAILURE,
                });
            }
            Err(Failure::Mute) => {
                voice.lab("there is KVM here, but it does not run Xen");
                place.forget_kvm();
                accelerator = Accelerator::Tcg;
            }
            Err(Failure::Boot(error)) if failed + 1 < BOOTS && error != programs::INTERRUPTED => {
                failed += 1;
                voice.lab(&format!("boot {failed} failed: {error}; once more"));
                place.put_aside(failed)?;
            }
            Err(Failure::Boot(error) | Failure::Run(error)) => {
                if error != programs::INTERRUPTED {
                    for line in place.last_lines() {
                        voice.show("lab", &line);
                    }
                }
                return Err(format!(
                    "{error}; the logs are in {}",
                    place.logs().display()
                ));
            }
        }
    }
}

/// Boots with dom0 on the terminal.
pub fn shell(setup: &Setup) -> Result<()> {
    let (place, boot) = prepare(setup, Work::Shell)?;
    let accelerator = place.accelerator(setup);
    if qemu::is_for(setup, accelerator) {
        qemu::provide(place.dir())?;
    }
    eprintln!(
        "xtask: booting Xen in QEMU, by {}; if nothing comes: Ctrl-a x, and --accelerator tcg",
        accelerator.shown()
    );
    machine::on_terminal(&boot, setup, accelerator, &place.logs())
}

impl Accelerator {
    fn shown(self) -> &'static str {
        match self {
            Accelerator::Kvm => "KVM",
            Accelerator::Tcg => "emulation (TCG)",
        }
    }
}

impl Kind {
    fn shown(self) -> &'static str {
        match self {
            Kind::Pv => "PV",
            Kind::Pvh => "PVH",
        }
    }
}

/// Takes the place, and makes what is booted.
fn prepare(setup: &Setup, work: Work) -> Result<(Place, Boot)> {
    machine::provide()?;
    if !setup.bare {
        project::build()?;
    }
    let place = Place::take()?;
    let root = Root::provide(place.dir())?;
    let xen = place.dir().join("xen");
    let mut gunzip = Command::new("gzip");
    gunzip.arg("-dc").arg(root.find("boot", "xen-4.", ".gz")?);
    let output = gunzip
        .output()
        .map_err(|e| project::cannot_run(&gunzip, &e))?;
    project::judge(&gunzip, output.status)?;
    std::fs::write(&xen, output.stdout).map_err(|e| format!("{}: {e}", xen.display()))?;
    let guest = place.dir().join("guest.cpio");
    image::guest(&root, setup, work)?.write(&guest)?;
    fits(&guest, setup.memory, "--memory, or fewer --files")?;
    let archive = place.dir().join("dom0.cpio");
    image::dom0(&root, setup, work, &guest)?.write(&archive)?;
    fits(&archive, machine::DOM0_MEMORY, "fewer --files")?;
    let kernel = root.image();
    let lab = place.dir().to_owned();
    Ok((
        place,
        Boot {
            xen,
            kernel,
            archive,
            lab,
        },
    ))
}

/// Refuses an archive that a domain's memory, in MiB, has no room for: it is there packed and
/// unpacked while the domain boots, and files that do not fit would be missing without a word.
fn fits(archive: &Path, memory: u32, remedy: &str) -> Result<()> {
    let found = std::fs::metadata(archive).map_err(|e| format!("{}: {e}", archive.display()))?;
    let size = found.len() >> 20;
    if size <= u64::from(memory / 3) {
        return Ok(());
    }
    Err(format!(
        "a domain of {memory} MiB of memory has no room for {size} MiB of files; try {remedy}"
    ))
}

/// Boots once, and if that works, sees the commands through.
fn once(
    boot: &Boot,
    run: &Run,
    accelerator: Accelerator,
    place: &Place,
    voice: &Voice,
) -> std::result::Result<Session, Failure> {
    let commands = run.commands.of_domains().map(|(number, _)| number);
    let mut session = Session::new(run.setup.domains, commands);
    let mut machine =
        Machine::start(boot, &run.setup, accelerator, &place.logs()).map_err(Failure::Boot)?;
    let failure = |phase, error| match phase {
        Phase::Booting => Failure::Boot(error),
        _ => Failure::Run(error),
    };
    let mut phase = session.phase();
    let mut mute = accelerator == Accelerator::Kvm && run.setup.accelerator.is_none();
    let mut limit = Instant::now() + if mute { FIRST_WORD } else { SILENCE };
    loop {
        let left = limit.saturating_duration_since(Instant::now());
        let (source, bytes) = match machine.events().recv_timeout(left) {
            Ok(event) => event,
            Err(RecvTimeoutError::Timeout) if mute => return Err(Failure::Mute),
            Err(RecvTimeoutError::Timeout) => {
                return Err(failure(phase, late(&session, run.timeout)));
            }
            Err(RecvTimeoutError::Disconnected) => {
                return match (phase, machine.finish(&place.logs())) {
                    (Phase::Ending, Ok(())) => Ok(session),
                    (_, Ok(())) => Err(failure(phase, "the machine switched itself off".into())),
                    (_, Err(error)) => Err(failure(phase, error)),
                };
            }
        };
        mute = false;
        for step in session.said(source, &bytes) {
            match step {
                Step::Say(line) => voice.lab(&line),
                Step::Show(who, line) => voice.show(&who, &line),
                Step::Tell(command) => machine.tell(command),
                Step::Fail(error) => return Err(failure(phase, error)),
            }
        }
        let now = session.phase();
        if now == Phase::Booting {
            limit = Instant::now() + SILENCE;
        } else if now != phase {
            let time = match now {
                Phase::Running => Duration::from_secs(run.timeout),
                _ => END,
            };
            limit = Instant::now() + time;
        }
        phase = now;
    }
}

/// The error for a run that takes too long.
fn late(session: &Session, timeout: u64) -> String {
    match session.phase() {
        Phase::Booting => format!("not ready, and silent: {}", session.unready().join(", ")),
        Phase::Running => format!(
            "time is up (--timeout {timeout}): {}",
            session.verdict().0.join("; ")
        ),
        Phase::Counting => "Xen does not come to an end with counting".into(),
        Phase::Ending => "the machine does not switch off".into(),
    }
}
