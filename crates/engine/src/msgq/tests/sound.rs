// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is true of a queue that nobody works on.

use super::*;
use crate::testing::{check_quiet, walk};
use vshmem_abi::msgq::{CHECK, SENDS, TYPES, wants};
use vshmem_abi::region;

fn messages<C: Cell64>(queue: &Queue<'_, C>) -> Vec<u32> {
    walk(queue, queue.messages())
}

/// A list of free things: what `next` names from the first.
fn free<C: Cell64>(
    queue: &Queue<'_, C>,
    word: usize,
    next: impl Fn(u32) -> u32,
) -> (Vec<u32>, u32) {
    let (mut name, high) = halves(queue.load(word));
    let mut list = Vec::new();
    while let Some(index) = name.checked_sub(1) {
        assert!(index < high && !list.contains(&index), "free {index}");
        list.push(index);
        name = next(index);
    }
    (list, high)
}

/// Blocks of a message.
fn chain<C: Cell64>(queue: &Queue<'_, C>, message: Message) -> Vec<u32> {
    let (first, last) = halves(queue.load(queue.header(message.index) + header::BLOCKS));
    let mut chain = Vec::new();
    let mut name = first;
    for _ in 0..blocks_for(message.size) {
        chain.push(name - 1);
        name = queue.load(queue.chain(name - 1)) as u32;
    }
    if let Some(end) = chain.last() {
        assert_eq!(last, end + 1, "last block of {}", message.index);
    }
    chain
}

/// The message that a waiter's record names.
fn named<C: Cell64>(queue: &Queue<'_, C>, index: u32) -> Option<u32> {
    (queue.load(queue.waiter(index) + wants::MESSAGE) as u32).checked_sub(1)
}

/// Asserts it.
pub fn check<C: Cell64>(queue: &Queue<'_, C>) {
    check_quiet(queue);
    let state = |message| queue.message_at(message).expect("a header");
    // Headers: each in one place.
    let mut headers = Vec::new();
    let mut blocks = Vec::new();
    let queued = messages(queue);
    let mut by_type: Vec<Vec<u32>> = vec![Vec::new(); TYPES];
    let (mut bytes, mut seq) = (0, None);
    for &message in &queued {
        assert!(state(message).is(header::QUEUED), "state of {message}");
        bytes += u64::from(state(message).size);
        by_type[queue.type_of(message) as usize % TYPES].push(message);
        let own = queue.load(queue.header(message) + header::SEQ);
        assert!(seq < Some(own), "order of {message}");
        seq = Some(own);
        blocks.extend(chain(queue, state(message)));
    }
    assert_eq!(
        halves(queue.load(msgq::QNUM)),
        (queued.len() as u32, blocks.len() as u32),
        "counts"
    );
    assert_eq!(queue.load(msgq::CBYTES), bytes);
    for (mtype, list) in (0..).zip(&by_type) {
        assert_eq!(&walk(queue, queue.of_type(mtype)), list, "list {mtype}");
    }
    headers.extend(queued);
    let held = walk(queue, queue.in_hands());
    assert!(held.iter().all(|&message| state(message).is(header::HELD)));
    headers.extend(&held);
    // Waiters.
    let receivers = walk(queue, queue.receivers());
    let senders = walk(queue, queue.senders());
    let all = receivers.len() + senders.len();
    let counts = (all as u32, senders.len() as u32);
    assert_eq!(halves(queue.load(region::COUNTS)), counts);
    for index in 0..queue.shape.waiters {
        let word = queue.load(queue.waiter(index) + waiter::STATE);
        let in_line = (receivers.contains(&index), senders.contains(&index));
        match word & 0xff {
            waiter::QUEUED => assert_eq!(in_line, (word & SENDS == 0, word & SENDS != 0)),
            _ => assert_eq!(in_line, (false, false), "waiter {index}"),
        }
        if word & 0xff == waiter::FREE {
            continue;
        }
        let sends = word & SENDS != 0;
        if let Some(message) = named(queue, index) {
            let given = !sends && word & 0xff == waiter::DONE;
            assert!(state(message).is(if given { header::GIVEN } else { header::HELD }));
            let token = queue.load(queue.waiter(index) + waiter::TOKEN);
            assert!(queue.is_owned_by(message, Token::from_raw(token)));
            headers.push(message);
        } else {
            assert!(!sends || word & 0xff == waiter::DONE);
        }
        assert!(word & CHECK == 0 || sends);
    }
    let out = headers[by_type.iter().map(Vec::len).sum::<usize>()..].to_vec();
    for message in out {
        blocks.extend(chain(queue, state(message)));
    }
    let (unused, high) = free(queue, msgq::FREE_HEADERS, |m| state(m).size);
    assert!(
        unused
            .iter()
            .all(|&message| state(message).is(header::FREE))
    );
    headers.extend(unused);
    headers.sort_unstable();
    assert_eq!(headers, Vec::from_iter(0..high), "each header in one place");
    let (unused, high) = free(queue, msgq::FREE_BLOCKS, |block| {
        queue.load(queue.chain(block)) as u32
    });
    blocks.extend(unused);
    blocks.sort_unstable();
    assert_eq!(blocks, Vec::from_iter(0..high), "each block in one place");
}

/// A message as a program would see it: type, size, and what its text consists of.
pub type Text = (i64, u32, u64);

/// The text of a message, each word of which is the same one.
pub fn text<C: Cell64>(queue: &Queue<'_, C>, message: u32) -> Text {
    let size = queue.message_at(message).expect("a header").size;
    let mut words = Vec::new();
    for (piece, _) in queue.pieces(message, size) {
        words.extend(piece.iter().map(|word| word.load(Relaxed)));
    }
    words.dedup();
    assert!(words.len() <= 1, "the text of {message} is not whole");
    let word = words.first().copied().unwrap_or(0);
    (queue.type_of(message), size, word)
}

/// What of a queue can be seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub messages: Vec<Text>,
    /// Who waits: token, and what its message is if it sends.
    pub waiting: Vec<(u64, Option<Text>)>,
    /// What those have who were served: token, errno, message.
    pub results: Vec<(u64, i32, Option<Text>)>,
    pub held: Vec<Text>,
    pub qbytes: u64,
}

impl Seen {
    pub fn of<C: Cell64>(queue: &Queue<'_, C>) -> Self {
        let token = |index| queue.load(queue.waiter(index) + waiter::TOKEN);
        let message = |index| named(queue, index).map(|message| text(queue, message));
        let lines = [queue.receivers(), queue.senders()];
        let waiting = lines.into_iter().flat_map(|line| walk(queue, line));
        let done =
            |index: &u32| queue.load(queue.waiter(*index) + waiter::STATE) & 0xff == waiter::DONE;
        let mut results: Vec<_> = (0..queue.shape.waiters)
            .filter(done)
            .map(|index| (token(index), queue.result(index), message(index)))
            .collect();
        results.sort_unstable();
        let held = walk(queue, queue.in_hands());
        Self {
            messages: messages(queue)
                .into_iter()
                .map(|m| text(queue, m))
                .collect(),
            waiting: waiting
                .map(|index| (token(index), message(index)))
                .collect(),
            results,
            held: held.into_iter().map(|m| text(queue, m)).collect(),
            qbytes: queue.load(msgq::QBYTES),
        }
    }
}
