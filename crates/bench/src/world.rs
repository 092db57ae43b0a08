// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a measurement runs in: the built programs, a world of its own, and cores to run on.

use crate::Result;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;
use serde::Serialize;
use std::cell::Cell;
use std::ffi::OsStr;
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The domain that is measured.
pub const DOMAIN: &str = "bench-a";
/// The other one.
pub const OTHER: &str = "bench-b";
/// Where the cases take their keys from, and what is routed of it.
pub const ROUTED_KEYS: &str = "0x56000000-0x56ffffff";
/// Set in a key of [`ROUTED_KEYS`], it makes one that is not routed.
const LOCAL_BIT: u32 = 0x2000_0000;

/// Where the processes run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Pinning {
    /// All of them, daemons included, on one core.
    OneCore,
    /// The measured one on one core, its peer and the daemons on another.
    TwoCores,
    /// Wherever the kernel puts them.
    Free,
}

impl fmt::Display for Pinning {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::OneCore => "one core",
            Self::TwoCores => "two cores",
            Self::Free => "unpinned",
        })
    }
}

/// Programs, world and cores; the world's daemons are stopped when it is dropped.
pub struct Bench {
    bin: PathBuf,
    programs: PathBuf,
    dir: tempfile::TempDir,
    all_cores: CpuSet,
    cores: Vec<usize>,
    keys: Cell<u32>,
}

impl Bench {
    /// Starts the two domains.
    pub fn new() -> Result<Self> {
        let bin = bin_dir()?;
        let programs = target_dir()?.join("bench");
        std::fs::create_dir_all(&programs)?;
        let all_cores = sched_getaffinity(Pid::from_raw(0))?;
        let cores = (0..CpuSet::count())
            .filter(|&core| all_cores.is_set(core).unwrap_or(false))
            .collect();
        let bench = Self {
            bin,
            programs,
            dir: tempfile::Builder::new().prefix("vshmem-bench-").tempdir()?,
            all_cores,
            cores,
            keys: Cell::new(0),
        };
        for domain in [DOMAIN, OTHER] {
            let output = bench.routed(domain, ROUTED_KEYS, "true").output()?;
            if !output.status.success() {
                let said = String::from_utf8_lossy(&output.stderr);
                return Err(format!("domain {domain} does not start: {said}").into());
            }
        }
        Ok(bench)
    }

    /// Compiles a C program of this crate.
    pub fn compile(&self, name: &str) -> Result<()> {
        let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("c").join(name);
        compile(&source.with_extension("c"), &self.programs)
    }

    /// Makes a target of the Makefile of `dwarfs-c`.
    pub fn make(&self, target: &str) -> Result<()> {
        let dwarfs = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../dwarfs-c");
        make(&dwarfs, target, &self.programs)
    }

    /// A C program that has been compiled or made.
    pub fn program(&self, name: &str) -> PathBuf {
        self.programs.join(name)
    }

    /// A path that goes with the world.
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The files of the build that is measured: the library and the daemon.
    pub fn built(&self) -> [PathBuf; 2] {
        [self.bin.join("libvshmem.so"), self.bin.join("vshmemd")]
    }

    /// A command as it is without Vshmem.
    pub fn native(&self, program: impl AsRef<OsStr>) -> Command {
        let mut command = Command::new(program);
        for name in ["LD_PRELOAD", "VSHMEM_KEYS", "VSHMEM_DOMAIN"] {
            command.env_remove(name);
        }
        command
    }

    /// The same command in a domain.
    pub fn routed(&self, domain: &str, keys: &str, program: impl AsRef<OsStr>) -> Command {
        let mut command = self.native(self.bin.join("vshmem"));
        command
            .args(["run", "--domain", domain, "--keys", keys, "--dir"])
            .arg(self.dir.path())
            .arg("--")
            .arg(program);
        command
    }

    /// The variables that put a program into a domain, as `NAME=VALUE`.
    pub fn preload(&self, domain: &str, keys: &str) -> [String; 4] {
        [
            format!("LD_PRELOAD={}", self.bin.join("libvshmem.so").display()),
            format!("VSHMEM_DIR={}", self.dir.path().display()),
            format!("VSHMEM_DOMAIN={domain}"),
            format!("VSHMEM_KEYS={keys}"),
        ]
    }

    /// A key of [`ROUTED_KEYS`] that no other run uses.
    pub fn key(&self) -> String {
        format!("{:#x}", self.next_key())
    }

    /// A key that is never routed and that no other run uses.
    pub fn local_key(&self) -> String {
        format!("{:#x}", self.next_key() | LOCAL_BIT)
    }

    /// Native runs share the kernel's keys with whatever else runs, so the pid is in it.
    fn next_key(&self) -> u32 {
        let count = self.keys.get();
        self.keys.set(count + 1);
        0x5600_0000 | (std::process::id() & 0xffff) << 8 | count & 0xff
    }

    /// Whether there are cores enough.
    pub fn can(&self, pinning: Pinning) -> bool {
        pinning != Pinning::TwoCores || self.cores.len() > 1
    }

    /// Puts the daemons where `pinning` wants them.
    pub fn pin_daemons(&self, pinning: Pinning) -> Result<()> {
        for name in ["backend", DOMAIN, OTHER] {
            let path = self.dir.path().join(format!("{name}.pid"));
            let pid: i32 = std::fs::read_to_string(path)?.trim().parse()?;
            // Each of its threads is pinned alone.
            for task in std::fs::read_dir(format!("/proc/{pid}/task"))? {
                let tid: i32 = task?.file_name().to_string_lossy().parse()?;
                self.pin(tid, pinning, 1)?;
            }
        }
        Ok(())
    }

    /// Puts this process where what it starts next shall run: the measured program is 0, its
    /// peer 1.
    pub fn pin_next(&self, pinning: Pinning, side: usize) -> Result<()> {
        self.pin(0, pinning, side)
    }

    fn pin(&self, tid: i32, pinning: Pinning, side: usize) -> Result<()> {
        let mut set = self.all_cores;
        if pinning != Pinning::Free {
            let place = if pinning == Pinning::TwoCores {
                side
            } else {
                0
            };
            set = CpuSet::new();
            set.set(self.cores[place])?;
        }
        sched_setaffinity(Pid::from_raw(tid), &set)?;
        Ok(())
    }
}

impl Drop for Bench {
    fn drop(&mut self) {
        let down = self
            .native(self.bin.join("vshmem"))
            .args(["down", "--all", "--force", "--dir"])
            .arg(self.dir.path())
            .stdout(Stdio::null())
            .status();
        if !down.is_ok_and(|status| status.success()) {
            eprintln!("vshmem-bench: the daemons of {:?} may still run", self.dir);
        }
    }
}

/// Where `vshmem` and the others are: `VSHMEM_BIN_DIR`, else beside this program.
fn bin_dir() -> Result<PathBuf> {
    let dir = match std::env::var_os("VSHMEM_BIN_DIR") {
        Some(dir) => PathBuf::from(dir),
        None => own_dir()?,
    };
    for name in ["vshmem", "vshmemd", "libvshmem.so"] {
        if !dir.join(name).exists() {
            let dir = dir.display();
            return Err(format!(
                "{dir} has no {name}: run `cargo build --release`, or name the directory in \
                 VSHMEM_BIN_DIR"
            )
            .into());
        }
    }
    Ok(dir)
}

/// Where cargo put this program: `release` or `debug` of the target directory.
fn own_dir() -> Result<PathBuf> {
    let own = std::env::current_exe()?;
    Ok(own.parent().ok_or("no directory")?.to_owned())
}

/// The target directory that this program was built in.
pub fn target_dir() -> Result<PathBuf> {
    Ok(own_dir()?.parent().ok_or("no target directory")?.to_owned())
}

/// Makes a target of the Makefile in `source`, with its programs in `dir`.
fn make(source: &Path, target: &str, dir: &Path) -> Result<()> {
    let status = Command::new("make")
        .arg("-sC")
        .arg(source)
        .arg(format!("OUT={}", dir.display()))
        .arg(target)
        .status()
        .map_err(|error| format!("make: {error}"))?;
    if !status.success() {
        let what = "see what make said; ci/packages.txt names what it needs";
        return Err(format!("make {target} failed in {}: {what}", source.display()).into());
    }
    Ok(())
}

/// Compiles `source` to a program of its name in `dir`.
fn compile(source: &Path, dir: &Path) -> Result<()> {
    let program = dir.join(source.file_stem().ok_or("no name")?);
    // Another run may be executing the old one: it is replaced, not written over.
    let own = program.with_extension(std::process::id().to_string());
    let status = Command::new("gcc")
        .args([
            "-std=gnu11",
            "-O2",
            "-g",
            "-Wall",
            "-Wextra",
            "-Werror",
            "-o",
        ])
        .arg(&own)
        .arg(source)
        .status()
        .map_err(|error| format!("gcc: {error}"))?;
    if !status.success() {
        return Err(format!("gcc failed on {}", source.display()).into());
    }
    std::fs::rename(&own, &program)?;
    Ok(())
}
