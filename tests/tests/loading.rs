// SPDX-License-Identifier: MIT OR Apache-2.0
//! Objects that a program loads while it runs, or that were preloaded behind the library.

use std::path::{Path, PathBuf};
use std::process::Command;
use vshmem_abi::ids::may_be_routed;
use vshmem_tests::program::succeed_silently;
use vshmem_tests::{World, cc, root, stdout_of, succeed};

/// Compiles a file of `tests/c` as an object.
fn object(dir: &Path, source: &str) -> PathBuf {
    let object = dir.join("object.so");
    let mut compile = Command::new("gcc");
    compile.args(["-shared", "-fPIC", "-o"]).arg(&object);
    compile.arg(root().join("tests/c").join(source));
    succeed(compile);
    object
}

#[test]
fn calls_of_an_object_that_was_loaded_with_deepbind_are_routed() {
    let world = World::new();
    let object = object(world.dir(), "deep.c");
    let mut make = world.run("a", "0x5601", cc("deep"));
    make.arg(&object);
    let id = stdout_of(make).trim().parse().expect("an id");
    assert!(may_be_routed(id), "{id}");
    let list = stdout_of(world.vshmem(&["ls", "-m"]));
    assert!(list.contains(&id.to_string()), "{list}");
}

#[test]
fn a_thread_is_cancelled_however_long_the_request_for_it_takes() {
    let world = World::new();
    let slow = object(world.dir(), "objects/slow_cancel.c");
    let mut cancel = world.run("a", "all,private", cc("msg_cancel"));
    cancel.arg("after_a_signal").env("LD_PRELOAD", slow);
    succeed_silently(cancel);
}
