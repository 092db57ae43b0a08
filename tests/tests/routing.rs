// SPDX-License-Identifier: MIT OR Apache-2.0
//! Which calls Vshmem takes and which go to the kernel, and what happens when it cannot take
//! them: see `tests/c/route.c`.

use std::process::Command;
use vshmem_tests::program::{Ended, native, run_to_end, succeed_silently};
use vshmem_tests::{World, bin, cc};

vshmem_tests::scenarios! {
    bare_system_calls_are_routed_like_the_functions: "route" "bare_system_calls";
    a_listing_has_all_segments_each_at_its_index: "route" "listing_shows_all";
}

/// Keys of which the programs use some; others stay local.
const SOME: &str = "0x56000000-0x56ffffff";

/// A scenario of `route` under the library, in an IPC namespace of its own; `domain` has to be up
/// already, if it is to be.
fn mixed(world: &World, domain: &str, keys: &str, scenario: &[&str]) -> Command {
    let mut command = native(&cc("route"));
    command
        .args(scenario)
        .env("LD_PRELOAD", bin("libvshmem.so"))
        .env("VSHMEM_DIR", world.dir())
        .env("VSHMEM_DOMAIN", domain)
        .env("VSHMEM_KEYS", keys);
    command
}

#[test]
fn local_keys_and_private_segments_stay_the_kernels() {
    let world = World::new();
    world.up("a");
    succeed_silently(mixed(&world, "a", SOME, &["local_keys_stay_local"]));
}

#[test]
fn ids_of_the_kernel_that_look_routed_still_work() {
    if !vshmem_tests::program::is_root() {
        return;
    }
    let world = World::new();
    world.up("a");
    succeed_silently(mixed(&world, "a", SOME, &["ids_as_high_as_routed_ones"]));
}

#[test]
fn a_listing_has_local_and_routed_segments() {
    let world = World::new();
    world.up("a");
    succeed_silently(mixed(&world, "a", SOME, &["listing_shows_all"]));
}

/// One line, of Vshmem, on stderr and nothing else.
fn the_one_line(ended: &Ended) -> &str {
    let lines: Vec<_> = ended.stderr.lines().collect();
    assert_eq!(lines.len(), 1, "{ended:?}");
    assert!(lines[0].starts_with("vshmem"), "{ended:?}");
    lines[0]
}

#[test]
fn without_routed_keys_a_program_sees_no_difference() {
    let world = World::new();
    let mut native = native(&cc("route"));
    native.arg("what_it_sees");
    let native = succeed_silently(native);
    assert!(native.contains("in the child 2"), "{native}");
    for keys in ["", " "] {
        let routed = succeed_silently(mixed(&world, "a", keys, &["what_it_sees"]));
        assert_eq!(routed, native, "VSHMEM_KEYS='{keys}'");
    }
    let mut unset = mixed(&world, "a", "", &["what_it_sees"]);
    unset.env_remove("VSHMEM_KEYS");
    assert_eq!(succeed_silently(unset), native);
    assert_eq!(std::fs::read_dir(world.dir()).expect("dir").count(), 0);
}

#[test]
fn a_bad_list_of_keys_ends_the_program_before_main() {
    let world = World::new();
    world.up("a");
    let list65 = (1..=65)
        .map(|n| n.to_string())
        .collect::<Vec<_>>()
        .join(",");
    for (keys, item) in [
        ("foo", "'foo'"),
        ("1,2,0x", "'0x'"),
        ("1,,2", "''"),
        ("5-4", "'5-4'"),
        ("0x56000000-", "'0x56000000-'"),
        ("0", "'0'"),
        ("0x100000000", "'0x100000000'"),
        ("all,privat", "'privat'"),
        ("0x-1", "'0x-1'"),
        (list65.as_str(), "'65'"),
    ] {
        // The program would say more, and take its status from it.
        let mut plain = world.preload("a", keys, "/bin/echo");
        plain.arg("started");
        let mut by_command = world.run("a", keys, "/bin/echo");
        by_command.arg("started");
        for command in [plain, by_command] {
            let ended = run_to_end(command);
            assert_eq!(ended.status.code(), Some(78), "{keys}: {ended:?}");
            assert_eq!(ended.stdout, "", "{keys}");
            let line = the_one_line(&ended);
            assert!(
                line.contains(item) && line.contains("VSHMEM_KEYS"),
                "{line}"
            );
        }
    }
}

#[test]
fn a_bad_domain_name_ends_the_program_before_main() {
    let world = World::new();
    for name in ["a/b", "..", "backend", "a b"] {
        let mut command = world.preload(name, "all", "/bin/echo");
        command.arg("started");
        let ended = run_to_end(command);
        assert_eq!((ended.status.code(), &*ended.stdout), (Some(78), ""));
        assert!(the_one_line(&ended).contains("VSHMEM_DOMAIN"), "{ended:?}");
    }
}

#[test]
fn without_a_daemon_a_routed_get_is_enodev_and_says_how_to_start_it() {
    let enodev = libc::ENODEV.to_string();
    let world = World::new();
    world.up("other");
    let absent = world.dir().join("absent");
    // Its domain is not up, or nothing is: not even the directory.
    for dir in [world.dir(), &absent] {
        let mut command = mixed(&world, "a", SOME, &["refused", &enodev]);
        command.env("VSHMEM_DIR", dir);
        let ended = run_to_end(command);
        assert!(ended.status.success(), "{ended:?}");
        let line = the_one_line(&ended);
        let socket = dir.join("a.sock");
        assert!(line.contains(socket.to_str().expect("UTF-8")), "{line}");
        assert!(line.contains("vshmem run"), "{line}");
    }
}

#[test]
fn a_directory_whose_path_is_too_long_for_a_socket_is_enodev_with_one_line() {
    let world = World::new();
    let long = world.dir().join("x".repeat(120));
    std::fs::create_dir(&long).expect("mkdir");
    let enodev = libc::ENODEV.to_string();
    let mut command = mixed(&world, "a", SOME, &["refused", &enodev]);
    command.env("VSHMEM_DIR", &long);
    let ended = run_to_end(command);
    assert!(ended.status.success(), "{ended:?}");
    the_one_line(&ended);
    // The command says so, and hangs no more than the library does.
    let mut command = world.run("a", "all", "true");
    command.env("VSHMEM_DIR", &long);
    let ended = run_to_end(command);
    assert!(
        !ended.status.success() && !ended.stderr.is_empty(),
        "{ended:?}"
    );
}
