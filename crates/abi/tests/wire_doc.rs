// SPDX-License-Identifier: MIT OR Apache-2.0
//! `docs/wire.md` describes every shared byte. This check fails when a layout changes and the
//! page does not.

use std::mem::{offset_of, size_of};
use vshmem_abi::doorbell::{self, Page};
use vshmem_abi::grants::{ChannelPage, DirectoryPage, GrantRef, ListHead, MapGrantRef};
use vshmem_abi::layout::{
    AttachEntry, ClientPage, DirEntry, DirHeader, Directory, PageHeader, WaitHeader, WaitPage,
    WaitSlot,
};
use vshmem_abi::link::{LinkMsg, LinkOp};
use vshmem_abi::msgq::{self, header};
use vshmem_abi::region::{self, waiter};
use vshmem_abi::set::{self, undo};
use vshmem_abi::wire::{
    Bell, Meta, Op, Opened, QueueUse, Reply, Request, Totals, Undoer, Usage, Welcome,
};

/// The rows that the page must have for a type: its size, and the offset of each field.
macro_rules! rows {
    ($rows:ident, $ty:ident, $($field:ident),*) => {
        $rows.push(format!("### {} ({} bytes)", stringify!($ty), size_of::<$ty>()));
        $( $rows.push(format!("| {} | `{}` |", offset_of!($ty, $field), stringify!($field))); )*
    };
}

/// The rows for words of a set's region.
macro_rules! words {
    ($rows:ident, $of:ident, $($word:ident),*) => {
        $( $rows.push(format!("| {} | `{}` |", $of::$word, stringify!($word))); )*
    };
}

#[test]
fn the_wire_page_names_every_field_at_its_offset() {
    let mut rows = vec![format!("ABI version {}", vshmem_abi::ABI_VERSION)];
    rows!(
        rows, DirHeader, magic, generation, version, domid, seq, high_water, owner, msgmax, msgmnb,
        msgmni, reserved, keys, ids
    );
    rows!(rows, DirEntry, word, next_key, next_id, meta, version);
    rows!(rows, Directory, head, entries);
    rows!(
        rows, PageHeader, magic, generation, pid, client, high_water, reserved
    );
    rows!(rows, AttachEntry, id, count, atime, dtime, reserved);
    rows!(rows, ClientPage, head, attach);
    rows!(rows, WaitHeader, magic, generation, high_water, reserved);
    rows!(
        rows,
        WaitSlot,
        mark,
        wakes,
        reserved,
        reserved_too,
        links,
        token,
        construct,
        undoer
    );
    rows!(rows, WaitPage, head, slots);
    words!(
        rows,
        region,
        MAGIC,
        SHAPE,
        LOCK,
        IDENT,
        COUNTS,
        QUEUE,
        INTENT,
        POSTING,
        WAITER_HIGH,
        INTENT_WHO
    );
    rows.push(format!("### Waiter ({} words)", waiter::WORDS));
    words!(
        rows, waiter, STATE, LINK, SEM_LINK, TOKEN, WHO, PLACE, OUTCOME, OPS, POST
    );
    words!(
        rows,
        set,
        SHAPE_SEMS,
        SHAPE_WAITERS,
        SHAPE_LONGS,
        OTIME,
        CTIME,
        UNDO_HIGH,
        LONG_HIGH,
        JOURNAL
    );
    words!(rows, undo, TOKEN, SLOT, ADJUST);
    words!(
        rows,
        msgq,
        SHAPE_MESSAGES,
        SHAPE_BLOCKS,
        SHAPE_WAITERS,
        MESSAGES,
        QNUM,
        CBYTES,
        QBYTES,
        FREE_HEADERS,
        FREE_BLOCKS,
        SENDERS,
        LSPID,
        LRPID,
        STIME,
        RTIME,
        HELD,
        NEXT_SEQ,
        JOURNAL
    );
    rows.push(format!("### Header of a message ({} words)", header::WORDS));
    words!(
        rows, header, STATE, LINK, TYPE_LINK, TYPE, OWNER, SEQ, BLOCKS, TEXT
    );
    rows.push(format!(
        "### Direction of a doorbell ({} words)",
        doorbell::WORDS
    ));
    words!(rows, doorbell, ANSWERS, LIVES, SUMMARY, RUNG);
    rows!(rows, Page, directions);
    rows!(
        rows,
        DirectoryPage,
        magic,
        bytes,
        count,
        next,
        flags,
        reserved,
        refs
    );
    rows!(rows, ListHead, magic, bytes, owner, flags, reserved);
    rows!(rows, MapGrantRef, count, pad, index);
    rows!(rows, GrantRef, domid, reference);
    rows!(
        rows,
        ChannelPage,
        magic,
        port,
        bound,
        maker,
        binder,
        reserved
    );
    rows!(
        rows, Meta, id, kind, key, state, uid, gid, cuid, cgid, mode, owner, size, ctime, cpid,
        index, huge_shift, made_with
    );
    rows!(
        rows,
        Usage,
        nattch,
        atime,
        dtime,
        lpid,
        lpid_domain,
        resident
    );
    rows!(
        rows,
        QueueUse,
        qnum,
        cbytes,
        qbytes,
        stime,
        rtime,
        lspid,
        lspid_domain,
        lrpid,
        lrpid_domain
    );
    rows!(rows, Totals, used, indices, pages, resident);
    rows!(rows, Welcome, generation, domid, client, serial);
    rows!(rows, Opened, meta, bytes);
    rows!(rows, Undoer, token);
    rows!(rows, Bell, serial, how, port, direction, reserved);
    rows!(
        rows, Request, version, op, kind, key, id, flags, size, uid, gid, mode, arg, token
    );
    rows!(rows, Reply, errno, value, slot, fds, body);
    rows!(
        rows, LinkMsg, version, op, seq, errno, domid, flags, gref, created, bell_gref, bell_port,
        meta, usage, totals, queue, ids, name, generation, epoch, reserved
    );
    rows.extend((0..256).filter_map(|n| Some(format!("| {n} | {:?} |", Op::from_raw(n)?))));
    rows.extend((0..256).filter_map(|n| Some(format!("| {n} | {:?} |", LinkOp::from_raw(n)?))));
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/wire.md");
    let page = std::fs::read_to_string(path).expect("docs/wire.md");
    // In the order of the page: a row is looked for behind the one before.
    let mut rest = page.as_str();
    for row in rows {
        match rest.find(&row) {
            Some(at) => rest = &rest[at + row.len()..],
            None => panic!("docs/wire.md lacks (at this place): {row}"),
        }
    }
}
