// SPDX-License-Identifier: MIT OR Apache-2.0
//! The machine that Xen runs on: QEMU, as a program of ours, with a channel for each of those that
//! have something to say.

use super::{Accelerator, Kind, Setup, qemu};
use crate::programs::{self, Program};
use crate::{Result, packages, project};
use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use std::fs::File;
use std::io::{Read, Write};
use std::num::NonZero;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc::{Receiver, Sender, channel};

/// QEMU.
const QEMU: &str = "qemu-system-x86_64";

/// Dom0's memory, and what Xen keeps for itself, in MiB.
pub const DOM0_MEMORY: u32 = 2048;
const XEN_MEMORY: u32 = 256;

/// Who says something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Source {
    /// The hypervisor's console, which is dom0's kernel's as well.
    Xen,
    /// The lab's script in dom0.
    Control,
    /// A domain: dom0's command, or a guest's console.
    Domain(usize),
}

impl Source {
    /// Its name: that of its log, and of its port.
    pub fn name(self) -> String {
        match self {
            Source::Xen => "xen".into(),
            Source::Control => "control".into(),
            Source::Domain(number) => format!("dom{number}"),
        }
    }
}

/// What came from the machine, and from whom. When nobody will say any more, the channel ends.
pub type Event = (Source, Vec<u8>);

/// What is booted.
#[derive(Debug)]
pub struct Boot {
    /// The hypervisor, unpacked.
    pub xen: PathBuf,
    /// Dom0's kernel and file system.
    pub kernel: PathBuf,
    pub archive: PathBuf,
    /// Where the lab's own QEMU is.
    pub lab: PathBuf,
}

/// A running machine. Dropped, it ends.
pub struct Machine {
    program: Program,
    control: UnixStream,
    events: Receiver<Event>,
}

impl Machine {
    /// Starts the machine, with logs of what is said in `logs`.
    pub fn start(
        boot: &Boot,
        setup: &Setup,
        accelerator: Accelerator,
        logs: &Path,
    ) -> Result<Self> {
        let mut command = command(boot, setup, accelerator)?;
        let (sender, events) = channel();
        let mut theirs = Vec::new();
        let mut control = None;
        for source in sources(setup) {
            let fail = |e: std::io::Error| format!("cannot make a channel: {e}");
            let (ours, end) = UnixStream::pair().map_err(fail)?;
            // QEMU inherits it; what else this process starts until it is closed here ends soon.
            fcntl(&end, FcntlArg::F_SETFD(FdFlag::empty())).map_err(|e| fail(e.into()))?;
            let name = source.name();
            command
                .arg("-chardev")
                .arg(format!("socket,id={name},fd={}", end.as_raw_fd()));
            port(&mut command, source);
            if source == Source::Control {
                control = Some(ours.try_clone().map_err(fail)?);
            }
            let log = logs.join(format!("{name}.log"));
            let log = File::create(&log).map_err(|e| format!("{}: {e}", log.display()))?;
            listen(source, ours, log, sender.clone());
            theirs.push(end);
        }
        let said = logs.join("qemu.log");
        command.stderr(File::create(&said).map_err(|e| format!("{}: {e}", said.display()))?);
        let program = Program::start(command)?;
        drop(theirs);
        let control = control.ok_or("a machine without control")?;
        Ok(Self {
            program,
            control,
            events,
        })
    }

    /// Where events come from.
    pub fn events(&self) -> &Receiver<Event> {
        &self.events
    }

    /// Tells the lab's script in dom0 something.
    pub fn tell(&mut self, command: &str) {
        // A machine that has ended says so itself.
        let _ = self.control.write_all(format!("{command}\n").as_bytes());
    }

    /// Waits for the end of a machine that has said its last; what QEMU said, in `logs`, is the
    /// reason if it failed.
    pub fn finish(self, logs: &Path) -> Result<()> {
        let error = match self.program.finish() {
            Ok(_) => return Ok(()),
            Err(error) => error,
        };
        let said = std::fs::read_to_string(logs.join("qemu.log")).unwrap_or_default();
        Err(match said.trim() {
            _ if error == programs::INTERRUPTED => error,
            "" => error,
            said => format!("QEMU failed: {said}"),
        })
    }
}

/// Passes on what a source says, and keeps it.
fn listen(source: Source, mut from: UnixStream, mut log: File, events: Sender<Event>) {
    std::thread::spawn(move || {
        let mut buffer = [0; 1 << 16];
        while let Ok(count @ 1..) = from.read(&mut buffer) {
            let bytes = &buffer[..count];
            // A disk that is full shows in what is kept, and takes nothing from the run.
            let _ = log.write_all(bytes);
            if events.send((source, bytes.to_vec())).is_err() {
                return;
            }
        }
    });
}

/// Runs a machine with the console of Xen and dom0 on the terminal, to its end.
pub fn on_terminal(
    boot: &Boot,
    setup: &Setup,
    accelerator: Accelerator,
    logs: &Path,
) -> Result<()> {
    let mut command = command(boot, setup, accelerator)?;
    command.args(["-serial", "mon:stdio"]);
    for source in sources(setup).filter(|&source| source != Source::Xen) {
        let name = source.name();
        let log = logs.join(format!("{name}.log"));
        let log = comma(&log)?;
        let chardev = format!("file,id={name},path={log}");
        command.args(["-chardev", &chardev]);
        port(&mut command, source);
    }
    project::run(&mut command)
}

/// All who have something to say.
fn sources(setup: &Setup) -> impl Iterator<Item = Source> {
    let domains = (0..=setup.domains).map(Source::Domain);
    [Source::Xen, Source::Control].into_iter().chain(domains)
}

/// Where a source's channel is in the machine.
fn port(command: &mut Command, source: Source) {
    let name = source.name();
    match source {
        Source::Xen => command.arg("-serial").arg(format!("chardev:{name}")),
        _ => command
            .arg("-device")
            .arg(format!("virtserialport,chardev={name},name={name}")),
    };
}

/// QEMU's command line without channels.
fn command(boot: &Boot, setup: &Setup, accelerator: Accelerator) -> Result<Command> {
    // It ends with this process, however that ends.
    let mut command = Command::new("setpriv");
    command.args(["--pdeathsig", "KILL", "--"]);
    if qemu::is_for(setup, accelerator) {
        command.args(qemu::command(&boot.lab));
    } else {
        command.arg(QEMU);
    }
    let guests = u32::try_from(setup.domains).unwrap_or(u32::MAX);
    let cores = std::thread::available_parallelism().map_or(1, NonZero::get);
    let processors = cores.clamp(2, setup.domains + 1).to_string();
    let memory = DOM0_MEMORY + XEN_MEMORY + guests * (setup.memory + 16);
    command
        .args(["-accel", accelerator_argument(accelerator)])
        .args(["-cpu", processor(accelerator, setup.guest)])
        .args([
            "-machine",
            "pc",
            "-smp",
            &processors,
            "-m",
            &memory.to_string(),
        ])
        .args(["-nodefaults", "-display", "none", "-no-reboot"])
        .args(["-device", "virtio-serial-pci,max_ports=16"])
        .arg("-kernel")
        .arg(&boot.xen)
        .arg("-append")
        // Without xsave=0 the emulated instruction mixes up the registers of domains that take turns on a
        // processor: with three domains on two, programs crash at random and kernels do not unpack.
        .arg(format!(
            "console=com1 com1=115200,8n1 dom0_mem={DOM0_MEMORY}M,max:{DOM0_MEMORY}M \
             dom0_max_vcpus=1 gnttab_max_frames=256 conring_size=4M xsave=0 loglvl=warning guest_loglvl=warning"
        ))
        .arg("-initrd")
        .arg(format!(
            "{} console=hvc0 earlyprintk=xen rdinit=/init rootfstype=ramfs,{}",
            comma(&boot.kernel)?,
            comma(&boot.archive)?
        ));
    Ok(command)
}

/// A path as QEMU takes it in a list of modules.
fn comma(path: &Path) -> Result<String> {
    match path.to_str() {
        Some(text) if !text.contains([',', ' ']) => Ok(text.to_owned()),
        _ => Err(format!(
            "QEMU takes no path with a comma or a space in it: {}",
            path.display()
        )),
    }
}

fn accelerator_argument(accelerator: Accelerator) -> &'static str {
    match accelerator {
        Accelerator::Kvm => "kvm",
        Accelerator::Tcg => "tcg,thread=multi",
    }
}

/// The processor: emulated, without what the emulation gets wrong.
fn processor(accelerator: Accelerator, guest: Kind) -> &'static str {
    match (accelerator, guest) {
        (Accelerator::Kvm, _) => "host",
        // With SMAP, `iret` of QEMU 7.2 faults in a PV kernel.
        (Accelerator::Tcg, Kind::Pv) => "max,-smap",
        // Its SVM has no RDTSCP.
        (Accelerator::Tcg, Kind::Pvh) => "max,-smap,-rdtscp",
    }
}

/// Installs QEMU if it is missing, or says what to install.
pub fn provide() -> Result<()> {
    let found = || Command::new(QEMU).arg("--version").output();
    if found().is_ok() {
        return Ok(());
    }
    packages::require([qemu::PACKAGE])?;
    found().map(drop).map_err(|e| {
        format!(
            "the lab runs in QEMU, and there is no {QEMU} here ({e}): install {}",
            qemu::PACKAGE
        )
    })
}
