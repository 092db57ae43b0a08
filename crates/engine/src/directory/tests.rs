// SPDX-License-Identifier: MIT OR Apache-2.0
use super::*;
use vshmem_abi::ids::ROUTED_BIT;

fn meta(n: i32, key: i32) -> Meta {
    let (kind, state) = (Kind::Shm as u32, State::Live as u32);
    Meta {
        id: ROUTED_BIT | n,
        kind,
        key,
        state,
        size: n as u64,
        ..Meta::default()
    }
}

fn pair() -> (DirectoryWriter, &'static Directory) {
    let writer = DirectoryWriter::create(3, 99).unwrap();
    let reader = map_for_reading(writer.fd()).unwrap();
    (writer, reader)
}

#[test]
fn a_reader_finds_by_key_and_by_id_what_the_writer_inserted() {
    let (mut writer, reader) = pair();
    let m = meta(1, 0x1234);
    let slot = writer.insert(&m).unwrap();
    assert_eq!(find_key(reader, Kind::Shm, 0x1234), Lookup::Found(slot, m));
    assert_eq!(find_id(reader, Kind::Shm, m.id), Lookup::Found(slot, m));
    assert_eq!(state_of(reader, slot, m.id), State::Live);
    assert_eq!(find_key(reader, Kind::Sem, 0x1234), Lookup::Absent);
    assert_eq!(find_id(reader, Kind::Shm, m.id + 1), Lookup::Absent);
}

#[test]
fn a_removed_key_is_free_at_once_and_its_id_still_found() {
    let (mut writer, reader) = pair();
    let m = meta(1, 0x1234);
    let slot = writer.insert(&m).unwrap();
    writer.update(
        slot,
        &Meta {
            key: 0,
            state: State::Dest as u32,
            ..m
        },
    );
    assert_eq!(find_key(reader, Kind::Shm, 0x1234), Lookup::Absent);
    assert_eq!(state_of(reader, slot, m.id), State::Dest);
    let second = writer.insert(&meta(2, 0x1234)).unwrap();
    assert_eq!(
        find_key(reader, Kind::Shm, 0x1234),
        Lookup::Found(second, meta(2, 0x1234))
    );
    writer.remove(slot);
    assert_eq!(find_id(reader, Kind::Shm, m.id), Lookup::Absent);
    assert_eq!(state_of(reader, slot, m.id), State::Free);
    assert_eq!(
        find_key(reader, Kind::Shm, 0x1234),
        Lookup::Found(second, meta(2, 0x1234))
    );
}

#[test]
fn a_directory_that_is_being_changed_for_ever_is_reported_busy() {
    let (writer, reader) = pair();
    writer.map.head.seq.store(1, Relaxed);
    assert_eq!(find_key(reader, Kind::Shm, 1), Lookup::Busy);
}

#[test]
fn a_full_directory_refuses_and_a_freed_slot_is_used_again() {
    let (mut writer, _) = pair();
    let slots: Vec<u32> = (0..DIR_SLOTS as i32)
        .map(|n| writer.insert(&meta(n, 0)).unwrap())
        .collect();
    assert_eq!(writer.insert(&meta(DIR_SLOTS as i32, 0)), None);
    writer.remove(slots[77]);
    assert_eq!(writer.insert(&meta(DIR_SLOTS as i32, 0)), Some(slots[77]));
}

#[test]
fn clients_cannot_map_the_directory_for_writing() {
    let (writer, _) = pair();
    assert_eq!(
        Mapping::<Directory>::new(writer.fd(), true).err(),
        Some(Errno::PERM)
    );
}

#[test]
fn the_death_of_the_writer_shows_in_the_directory() {
    let (sender, receiver) = std::sync::mpsc::channel();
    // The death of the holding thread is what the kernel notices; a process has at least one.
    let writer = std::thread::spawn(move || {
        let writer = DirectoryWriter::create(1, 1).unwrap();
        let reader = map_for_reading(writer.fd()).unwrap();
        assert!(writer_lives(reader));
        sender.send(reader).unwrap();
        std::mem::forget(writer);
    });
    let reader = receiver.recv().unwrap();
    writer.join().unwrap();
    // join() returns when the thread's stack is free; the kernel has walked its robust list then.
    assert!(!writer_lives(reader));
}

#[test]
fn readers_never_see_half_a_change() {
    let (mut writer, reader) = pair();
    let stop = std::sync::atomic::AtomicBool::new(false);
    let found = std::sync::atomic::AtomicU32::new(0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !stop.load(Relaxed) {
                if let Lookup::Found(_, m) = find_key(reader, Kind::Shm, 7) {
                    assert_eq!(m.size, m.uid.into(), "torn entry {m:?}");
                    found.fetch_add(1, Relaxed);
                }
            }
        });
        let mut n = 0u32;
        // Goes on until the reader has really been reading between changes.
        while n < 20_000 || found.load(Relaxed) < 1000 {
            n += 1;
            let m = Meta {
                size: n.into(),
                uid: n,
                ..meta(1, 7)
            };
            let slot = writer.insert(&m).unwrap();
            if n.is_multiple_of(7) {
                writer.remove(slot);
            }
        }
        stop.store(true, Relaxed);
    });
}

#[test]
fn each_change_of_an_entry_moves_its_version_and_no_other() {
    let (mut writer, reader) = pair();
    let m = meta(1, 0x1234);
    let slot = writer.insert(&m).unwrap();
    let other = writer.insert(&meta(2, 0)).unwrap();
    let still = version_of(reader, other);
    let mut seen = vec![version_of(reader, slot)];
    let changed = Meta { mode: 0o600, ..m };
    writer.update(slot, &changed);
    seen.push(version_of(reader, slot));
    writer.update(slot, &changed);
    assert_eq!(version_of(reader, slot), seen[1], "nothing has changed");
    writer.remove(slot);
    seen.push(version_of(reader, slot));
    assert_eq!(writer.insert(&meta(3, 0)), Some(slot));
    seen.push(version_of(reader, slot));
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len(), 4, "{seen:?}");
    assert_eq!(version_of(reader, other), still);
    assert_eq!(version_of(reader, u32::MAX), 0);
}

proptest::proptest! {
    #[test]
    fn any_sequence_of_changes_leaves_what_a_map_would_hold(
        steps in proptest::collection::vec((0..4u8, 0..12i32, 1..6i32), 0..200)
    ) {
        let (mut writer, reader) = pair();
        let mut model: HashMap<i32, Meta> = HashMap::new();
        for (what, n, key) in steps {
            let id = ROUTED_BIT | n;
            let key_taken = model.values().any(|m| m.key == key && m.id != id);
            match what {
                0 | 1 if !key_taken => {
                    writer.insert(&meta(n, key));
                    model.insert(id, meta(n, key));
                }
                2 => if let (Some((slot, _)), Some(m)) = (writer.find(id), model.get_mut(&id)) {
                    *m = Meta { key: 0, state: State::Dest as u32, ..*m };
                    writer.update(slot, m);
                },
                3 => if let Some((slot, _)) = writer.find(id) {
                    writer.remove(slot);
                    model.remove(&id);
                },
                _ => {}
            }
            for n in 0..12 {
                let id = ROUTED_BIT | n;
                let got = match find_id(reader, Kind::Shm, id) { Lookup::Found(_, m) => Some(m), _ => None };
                proptest::prop_assert_eq!(got.as_ref(), model.get(&id));
            }
            for key in 1..6 {
                let got = match find_key(reader, Kind::Shm, key) { Lookup::Found(_, m) => Some(m), _ => None };
                proptest::prop_assert_eq!(got.as_ref(), model.values().find(|m| m.key == key));
            }
        }
    }
}
