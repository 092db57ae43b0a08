// SPDX-License-Identifier: MIT OR Apache-2.0
//! The commands of an operator: what `vshmem ls`, `stat`, `peers` and `doctor` tell, what `mk` makes, what
//! `rm` removes and what not, and what `wait` waits for. By hand they are read as text; here as JSON where
//! there is some.

use nix::errno::Errno;
use nix::sys::signal::Signal;
use serde_json::Value;
use std::process::Stdio;
use vshmem_tests::actor::Actor;
use vshmem_tests::program::{Ended, in_own_namespace, run_to_end, succeed_silently};
use vshmem_tests::{World, wait_until};

vshmem_tests::scenarios! {
    the_files_of_sysvipc_show_lines_like_the_kernels: "sysvipc_files" "lines_are_the_kernels";
    files_are_opened_as_ever_but_for_those_of_sysvipc:
        "sysvipc_files" "other_files_are_opened_as_ever";
}

fn vshmem(world: &World, args: &[&str]) -> Ended {
    run_to_end(world.vshmem(args))
}

fn json(world: &World, args: &[&str]) -> Value {
    let text = succeed_silently(world.vshmem(&[args, &["--json"]].concat()));
    serde_json::from_str(&text).expect("JSON")
}

/// What `vshmem ls --json` says of a construct, if it is there.
fn listed(world: &World, id: i64) -> Option<Value> {
    let list = json(world, &["ls"]);
    let all = list["constructs"].as_array().expect("a list").clone();
    all.into_iter().find(|one| one["id"] == id)
}

fn stat(world: &World, id: i64) -> Value {
    json(world, &["stat", &id.to_string()])
}

/// Removes what is not used, whenever it was last; returns what is said.
fn rm_orphans(world: &World, more: &[&str]) -> String {
    let args = ["rm", "--orphans", "--idle", "0s"];
    succeed_silently(world.vshmem(&[&args, more].concat()))
}

#[test]
fn a_listing_tells_domain_holders_and_key_of_every_construct() {
    let world = World::new();
    let mut a = Actor::of(&world, "a");
    let mut b = Actor::of(&world, "b");
    let id = a.make(0x56d0_0009, 5000);
    a.ok(&format!("at {id} 0"));
    b.ok(&format!("at {id} 0"));
    b.ok(&format!("at {id} 0"));
    let one = listed(&world, id).expect("listed");
    assert_eq!(one["key"], "0x56d00009");
    assert_eq!(
        (&one["kind"], &one["bytes"], &one["nattch"]),
        (&"shm".into(), &5000.into(), &3.into())
    );
    assert_eq!(
        (&one["domain"], &one["routed"]),
        (&"a".into(), &true.into())
    );
    let holders = one["holders"].as_array().expect("a list");
    let of = |holder: &Value| (holder["domain"].clone(), holder["processes"].clone());
    let holders: Vec<_> = holders.iter().map(of).collect();
    assert_eq!(holders, [("a".into(), 1.into()), ("b".into(), 1.into())]);
    let of_b = json(&world, &["ls", "--owner", "b"]);
    assert_eq!(of_b["constructs"], Value::Array(Vec::new()));
    let sets = succeed_silently(world.vshmem(&["ls", "-s"]));
    assert_eq!(sets.lines().count(), 1, "{sets}");
}

#[test]
fn who_waits_and_who_holds_a_semaphore_is_told_across_domains() {
    let world = World::new();
    let mut a = Actor::of_sets(&world, "a");
    let mut b = Actor::of_sets(&world, "b");
    let id = a.ok("get 0x301 2 03600");
    b.ok(&format!("op {id} 1 7 {}", libc::SEM_UNDO));
    a.send_to_sleep(&format!("op {id} 0 -1 0"));
    let told = stat(&world, id);
    assert_eq!(told["values"], serde_json::json!([0, 7]));
    assert_eq!(told["changed_by"][1]["pid"], b.pid());
    let waiter = &told["waiters"][0];
    assert_eq!(
        (&waiter["domain"], &waiter["pid"], &waiter["change"]),
        (&"a".into(), &a.pid().into(), &(-1).into())
    );
    let undo = &told["undo"][0];
    assert_eq!(
        (&undo["domain"], &undo["pid"], &undo["adjust"]),
        (&"b".into(), &b.pid().into(), &(-7).into())
    );
    assert_eq!(told["processes"].as_array().map(Vec::len), Some(2));
    let text = succeed_silently(world.vshmem(&["stat", &id.to_string()]));
    assert!(text.contains("waits to add -1"), "{text}");
    assert!(text.contains("adds -7 (SEM_UNDO)"), "{text}");
}

#[test]
fn messages_are_told_by_type() {
    let world = World::new();
    let mut a = Actor::of_queues(&world, "a");
    let id = a.ok("get 0x302 03600");
    for (mtype, size) in [(3, 10), (4, 100), (3, 1)] {
        a.ok(&format!("send {id} {mtype} {size} 0"));
    }
    let told = stat(&world, id);
    let types = serde_json::json!([
        {"type": 3, "messages": 2, "bytes": 11},
        {"type": 4, "messages": 1, "bytes": 100},
    ]);
    assert_eq!(told["types"], types);
    assert_eq!(told["construct"]["used_bytes"], 111);
}

#[test]
fn of_what_is_gone_it_is_told_who_removed_it() {
    let world = World::new();
    let mut a = Actor::of(&world, "a");
    let mut b = Actor::of(&world, "b");
    let id = a.make(0x303, 4096);
    b.ok(&format!("at {id} 0"));
    b.ok(&format!("rm {id}"));
    // It lives until its last detach.
    let ended = &stat(&world, id)["ended"];
    assert_eq!(
        (&ended["key"], &ended["by"]["pid"]),
        (&"0x00000303".into(), &b.pid().into())
    );
    b.ok("dt 0");
    wait_until("it is gone", || listed(&world, id).is_none());
    let said = vshmem(&world, &["stat", &id.to_string()]);
    assert_eq!(said.status.code(), Some(1));
    let who = format!("by pid {} of b", b.pid());
    assert!(said.stderr.contains("any more: removed at"), "{said:?}");
    assert!(said.stderr.contains(&who), "{said:?}");
    let lost = a.make(0x304, 4096);
    b.ok(&format!("at {lost} 0"));
    world.kill_and_wait("a");
    wait_until("b knows", || {
        b.call(&format!("stat {lost}")) == Err(Errno::EIDRM)
    });
    let said = vshmem(&world, &["stat", &lost.to_string()]);
    assert!(said.stderr.contains("lost at"), "{said:?}");
}

#[test]
fn only_what_nobody_has_is_removed_as_an_orphan_and_not_without_yes() {
    let world = World::new();
    let mut a = Actor::of(&world, "a");
    let mut b = Actor::of_sets(&world, "b");
    let attached = a.make(0x311, 4096);
    a.ok(&format!("at {attached} 0"));
    let orphan = a.make(0x312, 4096);
    let open = b.ok("get 0x313 1 03600");
    b.ok(&format!("op {open} 0 1 0"));
    let idle = b.ok("get 0x314 1 03600");
    let all = [attached, orphan, open, idle];
    let left = |world: &World| all.map(|id| listed(world, id).is_some());

    let said = rm_orphans(&world, &[]);
    assert!(
        said.contains("--yes") && said.contains(&orphan.to_string()),
        "{said}"
    );
    assert_eq!(left(&world), [true; 4]);
    let hour = ["rm", "--orphans", "--yes"];
    let said = succeed_silently(world.vshmem(&hour));
    assert_eq!(
        (said.as_str(), left(&world)),
        ("nothing to remove\n", [true; 4])
    );
    rm_orphans(&world, &["--yes"]);
    assert_eq!(left(&world), [true, false, true, false]);
    a.kill();
    b.kill();
    wait_until("the dead have nothing", || {
        rm_orphans(&world, &["--yes"]);
        left(&world) == [false; 4]
    });
}

#[test]
fn nothing_is_called_unused_while_a_domain_does_not_tell() {
    let world = World::new();
    let mut a = Actor::of(&world, "a");
    world.up("b");
    let id = a.make(0x315, 4096);
    world.kill("b", Signal::SIGSTOP);
    let said = vshmem(
        &world,
        &["rm", "--orphans", "--idle", "0s", "--yes", "--domain", "a"],
    );
    world.kill("b", Signal::SIGCONT);
    assert_eq!(said.status.code(), Some(1), "{said:?}");
    assert!(said.stderr.contains("domain b"), "{said:?}");
    assert_eq!(a.nattch(id), 0);
}

#[test]
fn constructs_are_removed_by_id_and_by_key_and_what_is_not_there_is_named() {
    let world = World::new();
    let mut a = Actor::of(&world, "a");
    let mut sets = Actor::of_sets(&world, "a");
    let [first, second] = [0x321, 0x322].map(|key| a.make(key, 4096));
    let set = sets.ok("get 0x321 1 03600");
    succeed_silently(world.vshmem(&["rm", &first.to_string(), "-S", "0x321"]));
    let left = [first, second, set].map(|id| listed(&world, id).is_some());
    assert_eq!(left, [false, true, false]);
    // What can be removed is, whatever else cannot.
    let said = vshmem(
        &world,
        &[
            "rm",
            "-M",
            "0x999",
            "-q",
            &second.to_string(),
            "-M",
            "0x322",
        ],
    );
    assert_eq!(said.status.code(), Some(1));
    assert!(
        said.stderr
            .contains("no routed segment has the key 0x00000999"),
        "{said:?}"
    );
    assert!(
        said.stderr.contains("no routed message queue has the id"),
        "{said:?}"
    );
    assert!(listed(&world, second).is_none());
}

#[test]
fn what_is_made_is_there_for_programs_of_all_domains() {
    let world = World::new();
    world.up("a");
    let mut b = Actor::of(&world, "b");
    let made = json(
        &world,
        &[
            "mk", "-M", "8K", "-k", "0x331", "-p", "600", "--domain", "a",
        ],
    );
    let id = made["made"][0]["id"].as_i64().expect("an id");
    assert_eq!(b.call("get 0x331 8192 0"), Ok(id));
    assert_eq!(
        b.stat(id).map(|stat| (stat.mode, stat.size)),
        Ok((0o600, 8192))
    );
    let said = vshmem(&world, &["mk", "-M", "1", "-k", "0x331"]);
    assert!(
        said.stderr.contains("there is one of key 0x00000331"),
        "{said:?}"
    );
    let said = succeed_silently(world.vshmem(&["mk", "-S", "2", "-Q"]));
    assert!(said.starts_with("Semaphore id: ") && said.contains("\nMessage queue id: "));
}

#[test]
fn a_wait_ends_when_the_domain_and_the_key_are_there() {
    let world = World::new();
    let args = ["wait", "--peer", "a", "--key", "0x341"];
    let mut wait = world.vshmem(&args);
    let wait = wait.stdout(Stdio::piped()).spawn().expect("vshmem wait");
    let said = vshmem(&world, &["wait", "--peer", "a", "--timeout", "1ms"]);
    assert_eq!(said.status.code(), Some(1));
    assert!(said.stderr.contains("domain a is not ready"), "{said:?}");
    let id = Actor::of(&world, "a").make(0x341, 4096);
    let output = wait.wait_with_output().expect("wait");
    assert!(output.status.success());
    assert_eq!(String::from_utf8_lossy(&output.stdout), format!("{id}\n"));
}

#[test]
fn peers_are_listed_with_what_they_have_and_have_granted() {
    let world = World::new();
    let mut a = Actor::of(&world, "a");
    let mut b = Actor::of(&world, "b");
    let id = a.make(0x351, 3 * 4096);
    b.ok(&format!("at {id} 0"));
    let told = json(&world, &["peers"]);
    let [a, b] = [0, 1].map(|place| told["domains"][place].clone());
    assert_eq!((&a["domain"], &b["domain"]), (&"a".into(), &"b".into()));
    assert_eq!((&a["segments"], &a["grants_used"]), (&1.into(), &3.into()));
    assert_eq!((&b["segments"], &b["grants_used"]), (&0.into(), &0.into()));
    assert_eq!(a["grants_limit"], 1 << 20);
    assert_eq!(a["pid"], world.pid("a"));
}

#[test]
fn the_doctor_finds_what_is_wrong_and_its_status_says_whether() {
    let world = World::new();
    world.up("a");
    let said = vshmem(&world, &["doctor"]);
    assert!(said.status.success(), "{said:?}");
    assert!(!said.stdout.contains("WRONG"), "{said:?}");
    let file = world.dir().join("vshmem.toml");
    std::fs::write(&file, "[limits]\nmsgmin = 1\n").expect("write");
    let said = vshmem(&world, &["doctor", "-q"]);
    assert_eq!(said.status.code(), Some(1));
    assert!(said.stdout.contains("unknown field `msgmin`"), "{said:?}");
    let all = "domains = [\"*\"]\nkeys = \"all\"\n";
    let rule = |access| format!("[[policy.rule]]\n{all}access = \"{access}\"\n");
    std::fs::write(&file, rule("read-write") + &rule("none")).expect("write");
    let said = vshmem(&world, &["doctor"]);
    assert!(said.status.success(), "{said:?}");
    assert!(said.stdout.contains("2 rules and 0 limits"), "{said:?}");
    assert!(
        said.stdout.contains("the rule of line 5 never counts"),
        "{said:?}"
    );
    std::fs::remove_file(&file).expect("remove");
    world.kill_and_wait("backend");
    let said = vshmem(&world, &["doctor", "-q"]);
    assert_eq!(said.status.code(), Some(1));
    assert!(
        said.stdout.contains("a: it has lost its back-end"),
        "{said:?}"
    );
}

#[test]
fn completions_know_the_subcommands() {
    let world = World::new();
    for shell in ["bash", "zsh", "fish"] {
        let script = succeed_silently(world.vshmem(&["completions", shell]));
        assert!(
            script.contains("orphans") && script.contains("peers"),
            "{shell}"
        );
    }
}

/// Makes a local segment, and one routed construct of each kind; lists and removes what there is, by the
/// tools of util-linux under the library. Writes the listings, with a line between them.
const TOOLS: &str = "VSHMEM_KEYS= ipcmk -M 100 >&2; ipcmk -M 5000 -S 3 -Q >&2; ipcs; echo ===; \
                     lsipc -m; echo ===; ipcrm -a; ipcs";

#[test]
fn the_tools_of_util_linux_show_and_remove_routed_constructs_with_local_ones() {
    let world = World::new();
    let mut command = world.run("a", "all", "sh");
    command.args(["-c", TOOLS]);
    let ended = run_to_end(in_own_namespace(&command));
    assert!(ended.status.success(), "{ended:?}");
    let of = |table: &str| table.lines().filter(|line| line.starts_with("0x")).count();
    let listings: Vec<_> = ended.stdout.split("===").map(of).collect();
    assert_eq!(listings, [4, 2, 0], "{ended:?}");
    let left = json(&world, &["ls"]);
    assert_eq!(left["constructs"], Value::Array(Vec::new()));
}
