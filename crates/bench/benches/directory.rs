// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a get of a known key and an attachment cost inside the library: the look into the
//! directory, and the account in the client page.

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use std::hint::black_box;
use vshmem_abi::Kind;
use vshmem_abi::ids::ROUTED_BIT;
use vshmem_abi::layout::Directory;
use vshmem_abi::wire::{Meta, State};
use vshmem_engine::attach;
use vshmem_engine::client_page::{PageMaster, PageMine};
use vshmem_engine::directory::{DirectoryWriter, Lookup, find_id, find_key, map_for_reading};

/// The key of the construct number `n`.
fn key(n: i32) -> i32 {
    0x5600_0000 + n
}

/// A directory of `count` segments, as a client sees it, with the slot of the last one.
fn directory(count: i32) -> (DirectoryWriter, &'static Directory, u32) {
    let mut writer = DirectoryWriter::create(1, 1).expect("directory");
    let mut slot = 0;
    for n in 0..count {
        let meta = Meta {
            id: ROUTED_BIT | n,
            kind: Kind::Shm as u32,
            key: key(n),
            state: State::Live as u32,
            mode: 0o600,
            size: 4096,
            ..Meta::default()
        };
        slot = writer.insert(&meta).expect("a slot");
    }
    let reader = map_for_reading(writer.fd()).expect("mapping");
    (writer, reader, slot)
}

fn lookups(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("lookup");
    for count in [1, 64, 4096] {
        let (_writer, reader, _) = directory(count);
        let last = count - 1;
        group.bench_function(BenchmarkId::new("known key", count), |bencher| {
            bencher.iter(|| {
                let found = find_key(reader, Kind::Shm, black_box(key(last)));
                assert!(matches!(found, Lookup::Found(..)));
            });
        });
        group.bench_function(BenchmarkId::new("unknown key", count), |bencher| {
            bencher.iter(|| {
                let found = find_key(reader, Kind::Shm, black_box(key(count)));
                assert_eq!(found, Lookup::Absent);
            });
        });
        group.bench_function(BenchmarkId::new("id", count), |bencher| {
            bencher.iter(|| {
                let found = find_id(reader, Kind::Shm, black_box(ROUTED_BIT | last));
                assert!(matches!(found, Lookup::Found(..)));
            });
        });
    }
    group.finish();
}

fn changes(criterion: &mut Criterion) {
    let (mut writer, _, slot) = directory(4096);
    let (_, meta) = writer.find(ROUTED_BIT | 4095).expect("the last one");
    criterion.bench_function("update of an entry", |bencher| {
        bencher.iter(|| writer.update(slot, black_box(&meta)));
    });
}

fn attachments(criterion: &mut Criterion) {
    let (_writer, reader, slot) = directory(64);
    let id = ROUTED_BIT | 63;
    let master = PageMaster::create(0, 1).expect("client page");
    let page = PageMine::map(master.fd(), 1).expect("mapping");
    criterion.bench_function("attachment counted and taken off", |bencher| {
        bencher.iter(|| {
            assert_eq!(attach::begin(&page, reader, slot, id, 1), State::Live);
            attach::end(&page, reader, slot, id, 2)
        });
    });
}

criterion_group!(benches, lookups, changes, attachments);
criterion_main!(benches);
