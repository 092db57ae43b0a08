// SPDX-License-Identifier: MIT OR Apache-2.0
//! `SHM_HUGETLB`, with huge pages in the machine's pool. In a test program of its own, since the
//! size of the pool is everybody's.

use std::process::Command;
use vshmem_tests::{World, cc, stdout_of};

const POOL: &str = "/proc/sys/vm/nr_hugepages";

/// Puts the pool back as it was.
struct Restore(String);

impl Drop for Restore {
    fn drop(&mut self) {
        let _ = std::fs::write(POOL, &self.0);
    }
}

#[test]
fn segments_of_huge_pages_are_made_refused_and_touched_as_the_kernel_does() {
    let before = std::fs::read_to_string(POOL).expect("a kernel with huge pages");
    if let Err(error) = std::fs::write(POOL, "8") {
        assert!(
            std::env::var_os("CI").is_none(),
            "{POOL}: {error}: run as root"
        );
        eprintln!("skipped: {POOL}: {error}");
        return;
    }
    let _restore = Restore(before);
    let pool = std::fs::read_to_string(POOL).expect("the pool's size");
    assert_eq!(
        pool.trim(),
        "8",
        "the machine has no memory in one piece for 8 huge pages"
    );
    let program = cc("huge");
    let world = World::new();
    let native = stdout_of(Command::new(&program));
    assert!(native.contains("default size: attach ok"), "{native}");
    let routed = stdout_of(world.run("a", "private", &program));
    assert_eq!(routed, native);
}
