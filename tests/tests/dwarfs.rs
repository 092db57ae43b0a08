// SPDX-License-Identifier: MIT OR Apache-2.0
//! The programs of `dwarfs-c` agree with each other, natively and routed: `make check`, which runs
//! each variant small and compares, and MPI between hosts with Vshmem within them.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use vshmem_tests::program::is_root;
use vshmem_tests::{World, bin, root, stdout_of, succeed};

/// Keys of the programs: of those that are started by hand, and of those that fork.
const KEYS: &str = "all,private";

/// The Makefile, with its programs in a directory of the tests.
fn make(out: &Path) -> Command {
    let mut command = Command::new("make");
    command
        .arg("-sC")
        .arg(root().join("dwarfs-c"))
        .arg(format!("OUT={}", out.display()));
    command
}

/// The directory with the programs, which are built once.
fn programs() -> &'static Path {
    static BUILT: OnceLock<PathBuf> = OnceLock::new();
    BUILT.get_or_init(|| {
        let out = root().join("target/tests-c/dwarfs");
        let mut all = make(&out);
        all.arg("all");
        succeed(all);
        out
    })
}

/// The directory with what MPI between hosts runs, which is built with Open MPI (`hosts.sh`).
fn programs_of_hosts() -> PathBuf {
    let out = root().join("target/tests-c/dwarfs-openmpi");
    let mut hybrid = make(&out);
    hybrid
        .arg("MPICC=mpicc.openmpi")
        .arg(out.join("laplace-hybrid"));
    succeed(hybrid);
    out
}

/// What starts a program in a domain, as the scripts take it.
fn runner(domain: &str) -> String {
    let vshmem = bin("vshmem");
    format!(
        "{} run --domain {domain} --keys {KEYS} --",
        vshmem.display()
    )
}

/// `make check` with the workers in these domains; without any, natively. Nothing stays behind.
fn check(domains: &[&str]) {
    let world = World::new();
    let mut check = make(programs());
    check.arg("check").env("VSHMEM_DIR", world.dir());
    for (number, domain) in domains.iter().enumerate() {
        world.up(domain);
        check.env(format!("RUN_{number}"), runner(domain));
    }
    let said = stdout_of(check);
    assert!(said.contains(" passed, 0 failed"), "{said}");
    if !domains.is_empty() {
        let left = stdout_of(world.vshmem(&["ls"]));
        assert_eq!(left.lines().count(), 1, "{left}");
    }
}

#[test]
fn all_variants_agree_natively() {
    check(&[]);
}

#[test]
fn all_variants_agree_in_one_domain() {
    check(&["a", "a"]);
}

#[test]
fn all_variants_agree_in_two_domains() {
    check(&["a", "b"]);
}

/// What a run says of its results: the lines `NAME = VALUE`.
fn results(said: &str) -> Vec<(&str, f64)> {
    said.lines()
        .filter_map(|line| line.split_once(" = "))
        .map(|(name, value)| (name, value.parse().expect("a number")))
        .collect()
}

#[test]
fn mpi_between_hosts_and_vshmem_within_them_agree_with_one_process() {
    if !is_root() {
        return;
    }
    let sizes = ["--size", "20", "--iters", "30"];
    let mut serial = Command::new(programs().join("laplace-serial"));
    serial.args(sizes);
    let serial = stdout_of(serial);
    // A world on each host: they share nothing but the wire.
    let worlds = [World::new(), World::new()];
    let mut hosts = Command::new(root().join("dwarfs-c/hosts.sh"));
    hosts.arg(programs_of_hosts()).args(sizes);
    for (world, number) in worlds.iter().zip(1..) {
        world.up("a");
        world.up("b");
        let dir = world.dir().display();
        hosts.env(format!("HOST_{number}"), format!("env VSHMEM_DIR={dir}"));
    }
    hosts.env("RUN_0", runner("a")).env("RUN_1", runner("b"));
    let hybrid = stdout_of(hosts);
    assert!(hybrid.contains("4 workers"), "{hybrid}");
    let (wanted, got) = (results(&serial), results(&hybrid));
    assert_eq!(wanted.len(), 4, "{serial}");
    assert_eq!(got.len(), 4, "{hybrid}");
    for ((name, wanted), (got_name, got)) in wanted.into_iter().zip(got) {
        assert_eq!(name, got_name);
        let off = (got - wanted).abs();
        assert!(
            off <= 1e-12 * wanted.abs().max(1.0),
            "{name}: {got}, not {wanted}"
        );
    }
}
