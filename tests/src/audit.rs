// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which futexes programs and daemons use: they run under strace, and what it has written is followed
//! through all of their processes.

use crate::program::succeed_silently;
use crate::{World, bin, cc, kernels};
use std::cell::RefCell;
use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::rc::Rc;

/// The domains that programs are run in.
const DOMAINS: &str = "a b";

/// Futex calls, by where their word is.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Futexes {
    /// In a region.
    pub in_regions: usize,
    /// In a wait page.
    pub in_wait_pages: usize,
}

/// Runs programs of `tests/c`, each with its arguments separated by blanks, in two domains that start and
/// end with them; each has to succeed.
pub fn futexes_of(scenarios: &[(&str, &str)], separate_kernels: bool) -> Futexes {
    let world = World::new();
    let vshmem = bin("vshmem");
    let vshmem = vshmem.display();
    let mut script = String::from("set -e\n");
    for domain in DOMAINS.split(' ') {
        script += &format!("{vshmem} run --domain {domain} -- true\n");
    }
    for (program, arguments) in scenarios {
        let program = cc(program);
        script += &format!(
            "LD_PRELOAD={} VSHMEM_DOMAIN=a VSHMEM_KEYS=all,private DOMAINS='{DOMAINS}' {} {arguments}\n",
            bin("libvshmem.so").display(),
            program.display()
        );
    }
    // It ends when the daemons have.
    script += &format!("{vshmem} down --all --force > /dev/null\n");
    let written = tempfile::tempdir().expect("temporary directory");
    let mut command = Command::new("strace");
    command
        .args([
            "-f",
            "-ff",
            "--seccomp-bpf",
            "-y",
            "-ttt",
            "-e",
            "signal=none",
        ])
        .args([
            "-e",
            "trace=futex,mmap,munmap,clone,clone3,fork,vfork,execve",
        ])
        .arg("-o")
        .arg(written.path().join("t"))
        .args(["sh", "-c", &script])
        .env("VSHMEM_DIR", world.dir())
        .env(kernels::ENV, if separate_kernels { "1" } else { "0" });
    succeed_silently(command);
    follow(&events(written.path()))
}

/// A part of a process's memory.
#[derive(Clone, Copy)]
struct Range {
    start: u64,
    end: u64,
    /// Of which kind of file it is, if of one of ours.
    of: Of,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Of {
    Region,
    WaitPage,
    Other,
}

/// What a thread has done.
enum Did {
    Map(Range),
    Clone { child: u32, shares: bool },
    Exec,
    Futex(u64),
}

/// All that threads have done, in the order in which they began it.
fn events(dir: &Path) -> Vec<(f64, u32, Did)> {
    let mut all = Vec::new();
    for entry in fs::read_dir(dir).expect("what strace has written") {
        let path = entry.expect("an entry").path();
        let tid = path.extension().and_then(|tid| tid.to_str()?.parse().ok());
        let tid: u32 = tid.expect("a name that ends in a number");
        let text = fs::read_to_string(&path).expect("a file of strace");
        for line in text.lines() {
            let (time, call) = line.split_once(' ').expect("a time");
            if let Some(did) = did(call) {
                all.push((time.parse::<f64>().expect("a time"), tid, did));
            }
        }
    }
    all.sort_by(|(one, ..), (other, ..)| one.total_cmp(other));
    all
}

fn did(call: &str) -> Option<Did> {
    let (name, rest) = call.split_once('(')?;
    let result = rest.rsplit_once(" = ").map(|(_, result)| result);
    let arguments: Vec<&str> = rest.split(", ").collect();
    Some(match name {
        "mmap" => {
            let start = address(result?)?;
            let of = if rest.contains("</memfd:vshmem>") {
                Of::Region
            } else if rest.contains("</memfd:vshmem-wait>") {
                Of::WaitPage
            } else {
                Of::Other
            };
            let end = start + arguments.get(1)?.parse::<u64>().ok()?;
            Did::Map(Range { start, end, of })
        }
        "munmap" => {
            let start = address(arguments.first()?)?;
            let len = arguments.get(1)?.split(')').next()?;
            Did::Map(Range {
                start,
                end: start + len.parse::<u64>().ok()?,
                of: Of::Other,
            })
        }
        "clone" | "clone3" | "fork" | "vfork" => Did::Clone {
            child: result?.parse().ok()?,
            shares: name == "vfork" || rest.contains("CLONE_VM"),
        },
        "execve" if result? == "0" => Did::Exec,
        "futex" => Did::Futex(address(arguments.first()?)?),
        _ => return None,
    })
}

fn address(text: &str) -> Option<u64> {
    u64::from_str_radix(text.strip_prefix("0x")?, 16).ok()
}

type Memory = Rc<RefCell<Vec<Range>>>;

fn follow(events: &[(f64, u32, Did)]) -> Futexes {
    let mut memories: HashMap<u32, Memory> = HashMap::new();
    let mut futexes = Futexes::default();
    for (_, tid, did) in events {
        let memory = memories.entry(*tid).or_default().clone();
        match did {
            Did::Map(new) => {
                let mut memory = memory.borrow_mut();
                memory.retain(|old| old.end <= new.start || new.end <= old.start);
                memory.push(*new);
            }
            Did::Clone { child, shares } => {
                let its = if *shares {
                    memory
                } else {
                    Rc::new(RefCell::new(memory.borrow().clone()))
                };
                memories.insert(*child, its);
            }
            Did::Exec => {
                memories.insert(*tid, Memory::default());
            }
            Did::Futex(at) => {
                let memory = memory.borrow();
                let of = memory.iter().find(|r| (r.start..r.end).contains(at));
                match of.map_or(Of::Other, |range| range.of) {
                    Of::Region => futexes.in_regions += 1,
                    Of::WaitPage => futexes.in_wait_pages += 1,
                    Of::Other => {}
                }
            }
        }
    }
    futexes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_strace_writes_is_followed_through_processes_and_threads() {
        let events: Vec<_> = [
            (1, "execve(\"/bin/x\", [\"x\"], 0x7ffc /* 3 vars */) = 0"),
            (1, "mmap(NULL, 8192, PROT_READ, MAP_SHARED, 3</memfd:vshmem>(deleted), 0) = 0x7000"),
            (1, "mmap(NULL, 4096, PROT_READ, MAP_SHARED, 4</memfd:vshmem-wait>(deleted), 0) = 0xa000"),
            (1, "clone(child_stack=NULL, flags=CLONE_CHILD_SETTID|SIGCHLD, child_tidptr=0x7) = 2"),
            (2, "futex(0x7ff8, FUTEX_WAIT, 2, NULL) = ? ERESTARTSYS (To be restarted)"),
            (2, "munmap(0x7000, 8192) = 0"),
            (2, "futex(0x7ff8, FUTEX_WAKE, 1) = 1"),
            (1, "clone3({flags=CLONE_VM|CLONE_THREAD, exit_signal=0} => {parent_tid=[3]}, 88) = 3"),
            (3, "futex(0x8ff8, FUTEX_WAKE, 1) = 0"),
            (3, "futex(0xa008, FUTEX_WAIT, 0, NULL) = -1 EAGAIN (Resource temporarily unavailable)"),
            (3, "mmap(0x7000, 8192, PROT_NONE, MAP_FIXED|MAP_ANONYMOUS, -1, 0) = 0x7000"),
            (1, "futex(0x7008, FUTEX_WAKE, 1) = 0"),
            (1, "+++ exited with 0 +++"),
        ]
        .into_iter()
        .enumerate()
        .filter_map(|(time, (tid, call))| Some((time as f64, tid, did(call)?)))
        .collect();
        let expected = Futexes {
            in_regions: 2,
            in_wait_pages: 1,
        };
        assert_eq!(follow(&events), expected);
    }
}
