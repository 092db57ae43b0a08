// SPDX-License-Identifier: MIT OR Apache-2.0
//! Objects that a program loads while it runs.

use std::path::Path;
use std::process::Command;
use vshmem_abi::ids::may_be_routed;
use vshmem_tests::{World, cc, root, stdout_of, succeed};

/// Compiles `tests/c/deep.c` as an object.
fn object(dir: &Path) -> std::path::PathBuf {
    let object = dir.join("deep.so");
    let mut compile = Command::new("gcc");
    compile.args(["-shared", "-fPIC", "-o"]).arg(&object);
    compile.arg(root().join("tests/c/deep.c"));
    succeed(compile);
    object
}

#[test]
fn calls_of_an_object_that_was_loaded_with_deepbind_are_routed() {
    let world = World::new();
    let object = object(world.dir());
    let mut make = world.run("a", "0x5601", cc("deep"));
    make.arg(&object);
    let id = stdout_of(make).trim().parse().expect("an id");
    assert!(may_be_routed(id), "{id}");
    let list = stdout_of(world.vshmem(&["ls", "-m"]));
    assert!(list.contains(&id.to_string()), "{list}");
}
