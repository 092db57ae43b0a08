// SPDX-License-Identifier: MIT OR Apache-2.0
//! The same scripts of calls on the kernel and routed: traces must be equal.

use vshmem_tests::conform::generate::{NOBODY, scripts, timed_scripts};
use vshmem_tests::conform::run::{Clock, INDENT};
use vshmem_tests::conform::script::{Address, Buffer, Call, Common, Id, Look, PAGE, Step};
use vshmem_tests::conform::test::{assert_kernel_reaches, assert_routed_as_native, may_run};
use vshmem_tests::conform::{Native, Plan, Routed, Side, both, compare};

#[test]
fn routed_calls_do_what_the_kernels_do() {
    if !may_run() {
        return;
    }
    let plan = Plan::from_env(500, || scripts(1..=100));
    assert_routed_as_native(&plan, Clock::Loose);
}

#[test]
fn calls_with_keys_that_are_not_routed_are_the_kernels() {
    if !may_run() {
        return;
    }
    for keys in ["", "0x1"] {
        let plan = Plan::from_env(100, || scripts(1..=100));
        let native = || Native(Clock::Loose);
        let local = || Routed::new(Clock::Loose, keys);
        if let Err(difference) = compare(&plan, native, local) {
            panic!("VSHMEM_KEYS={keys}: {difference}");
        }
    }
}

#[test]
fn times_change_with_the_same_calls_as_the_kernels() {
    if !may_run() {
        return;
    }
    // Every step takes a second, so that each can be told by its time; many cases at once.
    let plan = Plan {
        workers: 12,
        ..Plan::from_env(24, || timed_scripts(1..=25))
    };
    assert_routed_as_native(&plan, Clock::Steps);
}

fn step(process: u8, call: Call) -> Step {
    Step {
        process,
        raw: false,
        call,
    }
}

fn make(size: u64, flags: i32) -> Call {
    Call::Get {
        slot: 0,
        key: 1,
        size,
        flags: libc::IPC_CREAT | 0o600 | flags,
    }
}

fn attach(at: Address, flags: i32) -> Call {
    Call::Attach {
        slot: 0,
        id: Id::Slot(0),
        at,
        flags,
    }
}

fn stat() -> Call {
    Call::Common(Common::Stat {
        id: Id::Slot(0),
        look: Look::Id(Buffer::Good),
    })
}

fn at(page: u8) -> Address {
    Address::Attached {
        slot: 0,
        page,
        byte: 0,
    }
}

/// Cases at the edges, each of which was once answered otherwise than by the kernel.
fn edges() -> Vec<Vec<Call>> {
    let area = Address::Area { page: 0, byte: 0 };
    let none = Address::Number(0);
    let become_nobody = Call::Common(Common::Become {
        uid: NOBODY,
        gid: NOBODY,
        for_good: false,
        group: -1,
    });
    let private = Call::Get {
        slot: 0,
        key: 0,
        size: 1,
        flags: 0o600,
    };
    let totals = Call::Common(Common::Totals {
        buffer: Buffer::Good,
    });
    vec![
        // An attach that fails leaves neither time nor pid behind.
        vec![make(1, 0), attach(area, 0), make(1, 0), stat()],
        vec![make(1, 0), attach(Address::Number(1), 0), stat()],
        // Where a page would end at the end of the address space.
        vec![make(1, 0), attach(Address::Number(u64::MAX), libc::SHM_RND)],
        vec![
            make(PAGE, 0),
            attach(Address::Number(u64::MAX), libc::SHM_RND),
        ],
        // Page zero, where root may attach, and detach.
        vec![
            make(1, 0),
            attach(Address::Number(1), libc::SHM_RND),
            stat(),
            Call::Detach { at: none },
            stat(),
        ],
        // A buffer that lies in a segment, which it must not seem to have been written to before.
        vec![
            make(1, 0),
            attach(Address::Number(1), libc::SHM_RND),
            Call::Common(Common::Totals {
                buffer: Buffer::Null,
            }),
        ],
        // Two attachments at one address: the beginning of one is under the other.
        vec![
            make(3 * PAGE, 0),
            attach(area, 0),
            private.clone(),
            attach(area, libc::SHM_REMAP),
            Call::Write {
                at: at(0),
                value: 7,
            },
            Call::Detach { at: area },
            Call::Read { at: area },
            Call::Read { at: at(1) },
            Call::Detach { at: area },
            Call::Read { at: at(1) },
        ],
        // Who may use huge pages.
        vec![become_nobody, make(1, libc::SHM_HUGETLB)],
        // The largest file, and a place that it does not fit into.
        vec![
            make(i64::MAX as u64, libc::SHM_NORESERVE),
            attach(none, 0),
            stat(),
        ],
        vec![make(1 << 62, libc::SHM_NORESERVE), attach(area, 0)],
        vec![
            make(1 << 62, libc::SHM_NORESERVE),
            attach(Address::Number(1 << 47), 0),
        ],
        // What is in memory: pages that were written to.
        vec![
            make(3 * PAGE, 0),
            attach(none, 0),
            totals.clone(),
            Call::Write {
                at: at(1),
                value: 7,
            },
            totals.clone(),
            Call::Write {
                at: at(2),
                value: 7,
            },
            totals,
        ],
    ]
}

#[test]
fn edges_are_where_the_kernel_has_them() {
    if !may_run() {
        return;
    }
    let (mut native, mut routed) = (
        Native(Clock::Loose),
        Routed::new(Clock::Loose, "all,private"),
    );
    for calls in edges() {
        for process in 0..2 {
            let calls = calls.iter().enumerate();
            // The construct is of the first domain, the rest of the script is the other's.
            let script =
                calls.map(|(at, call)| step(if at == 0 { 0 } else { process }, call.clone()));
            let script: Vec<Step> = script.collect();
            let (native, routed) = both(&mut native, &mut routed, &script);
            assert_eq!(native, routed);
        }
    }
}

/// What random scripts must reach to be worth their while: the errors that the man pages name,
/// and success.
const WANTED: [&str; 40] = [
    "Attach EACCES",
    "Attach EINVAL",
    "Attach ENOMEM",
    "Attach done",
    "Become EPERM",
    "Become done",
    "CloseAll done",
    "Control EINVAL",
    "Control EPERM",
    "Control done",
    "Detach EINVAL",
    "Detach done",
    "Exec up",
    "Get EACCES",
    "Get EEXIST",
    "Get EINVAL",
    "Get ENOENT",
    "Get ENOMEM",
    "Get done",
    "Leave ended",
    "Limits EFAULT",
    "Limits done",
    "New born",
    "Protect ENOMEM",
    "Protect done",
    "Read SEGV",
    "Read done",
    "Set EFAULT",
    "Set EINVAL",
    "Set EPERM",
    "Set done",
    "Stat EACCES",
    "Stat EFAULT",
    "Stat EINVAL",
    "Stat done",
    "Stat unlisted",
    "Totals EFAULT",
    "Totals done",
    "Write SEGV",
    "Write done",
];

#[test]
fn the_kernel_agrees_with_itself_in_all_that_can_happen() {
    if !may_run() {
        return;
    }
    let plan = Plan::from_env(400, || scripts(1..=100));
    assert_kernel_reaches(&plan, &WANTED);
}

/// A kernel that refuses every second removal.
struct Altered(Native);

impl Side<Step> for Altered {
    fn trace(&mut self, script: &[Step]) -> Vec<String> {
        let mut trace = self.0.trace(script);
        let removals = trace
            .iter_mut()
            .filter(|line| !line.starts_with(INDENT))
            .filter(|line| line.contains("IPC_RMID") && line.ends_with("-> 0 -"));
        for line in removals.skip(1).step_by(2) {
            *line = line.replace("-> 0 -", "-> -1 EINVAL");
        }
        trace
    }
}

#[test]
fn a_difference_is_found_and_shrunk_to_the_calls_that_it_takes() {
    if !may_run() {
        return;
    }
    let plan = Plan::from_env(400, || scripts(1..=100));
    let native = || Native(Clock::Loose);
    let altered = || Altered(Native(Clock::Loose));
    let difference = compare(&plan, native, altered).expect_err("the sides differ");
    // Of two segments each is removed; or of one that lives on, attached, twice.
    let count = |wanted: fn(&Call) -> bool| {
        let calls = difference.script.iter().map(|step| &step.call);
        calls.filter(|call| wanted(call)).count()
    };
    let removals = count(|call| matches!(call, Call::Common(Common::Control { .. })));
    let others = count(|call| matches!(call, Call::Get { .. } | Call::Attach { .. }));
    assert_eq!((removals, others), (2, 2), "{difference}");
    assert_eq!(difference.script.len(), 4, "{difference}");
    let lines = difference.left.iter().zip(&difference.right);
    let (left, right) = lines
        .into_iter()
        .find(|(l, r)| l != r)
        .expect("a line that differs");
    assert!(left.ends_with("-> 0 -") && right.ends_with("-> -1 EINVAL"));
}
