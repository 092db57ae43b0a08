// SPDX-License-Identifier: MIT OR Apache-2.0
//! The rules of the fake, which are those of the real one.

use super::*;

fn machine() -> (FakeStore, Client, Client, Client) {
    let store = FakeStore::new();
    store.introduce(1, "one");
    store.introduce(2, "two");
    let clients = (store.connect(0), store.connect(1), store.connect(2));
    (store, clients.0, clients.1, clients.2)
}

fn events(client: &Client) -> Vec<String> {
    std::iter::from_fn(|| client.next_event().unwrap())
        .map(|event| event.path)
        .collect()
}

#[test]
fn a_guest_writes_below_its_data_and_nowhere_else() {
    let (_store, dom0, one, two) = machine();
    one.write("data/vshmem/a/b", b"x").unwrap();
    assert_eq!(dom0.read("/local/domain/1/data/vshmem/a/b").unwrap(), b"x");
    for path in ["/vshmem", "name", "/local/domain/2/data/x", "/tool/x"] {
        assert_eq!(one.write(path, b"x"), Err(Errno::ACCESS), "{path}");
    }
    let of_one = "/local/domain/1/data/vshmem";
    assert_eq!(two.read(of_one), Err(Errno::ACCESS));
    assert_eq!(two.rm(of_one), Err(Errno::ACCESS));
    assert_eq!(two.directory("/local/domain"), Err(Errno::ACCESS));
    assert_eq!(one.read("name").unwrap(), b"one");
    // What dom0 makes in it is the guest's.
    dom0.write("/local/domain/1/data/vshmem/c", b"y").unwrap();
    one.rm("data/vshmem/c").unwrap();
}

#[test]
fn a_guest_has_its_quotas_and_dom0_has_none() {
    let (store, dom0, one, _two) = machine();
    store.set_quota(Quota {
        nodes: 5,
        ..Quota::default()
    });
    // One is `data` itself.
    for n in 0..4 {
        one.write(&format!("data/{n}"), b"").unwrap();
    }
    assert_eq!(one.write("data/4", b""), Err(Errno::NOSPC));
    assert_eq!(one.write("data/0", &[b'x'; 2048]), Err(Errno::NOSPC));
    dom0.write("/local/domain/1/data/5", &[b'x'; 3000]).unwrap();
    one.rm("data/5").unwrap();
    one.rm("data/3").unwrap();
    one.write("data/4", b"").unwrap();
}

#[test]
fn a_watch_fires_once_when_it_is_set_and_then_for_all_below() {
    let (_store, dom0, one, two) = machine();
    two.watch("/local/domain/1/data", "t").unwrap();
    one.watch("data/a", "t").unwrap();
    assert_eq!(events(&one), ["data/a"]);
    dom0.write("/local/domain/1/data/a/b", b"").unwrap();
    dom0.write("/local/domain/1/data/ab", b"").unwrap();
    assert_eq!(events(&one), ["/local/domain/1/data/a/b"]);
    // Exactly what is watched goes with what it is in; of others below only that is told.
    one.rm("data/a").unwrap();
    dom0.write("/local/domain/1/data/a/b", b"").unwrap();
    events(&one);
    one.rm("data").unwrap();
    assert_eq!(events(&one), ["/local/domain/1/data/a"]);
    // What one may not read, one does not hear of.
    assert_eq!(events(&two), ["/local/domain/1/data"]);
}

#[test]
fn a_domain_that_is_released_leaves_nothing_and_dom0_hears_of_it() {
    let (store, dom0, one, _two) = machine();
    one.write("data/vshmem/front", b"").unwrap();
    dom0.watch("@releaseDomain", "r").unwrap();
    dom0.watch("/local/domain/1/data/vshmem/front", "f")
        .unwrap();
    assert_eq!(events(&dom0).len(), 2);
    store.release(1);
    assert!(events(&dom0).contains(&"@releaseDomain".to_owned()));
    assert!(!store.paths().iter().any(|path| path.contains("/1")));
    assert_eq!(one.read("domid"), Err(Errno::IO));
}
