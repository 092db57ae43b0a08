// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is left of an attachment in the address space: the program may have unmapped, protected
//! or replaced parts of it. The kernel's `shmdt` unmaps what still is the segment and nothing
//! else; so does ours, by looking at `/proc/self/maps`: asking for the range in question where the
//! kernel lets one ask (Linux 6.11), else reading all of it.

use crate::attachments::Attachment;
use rustix::fd::OwnedFd;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use vshmem_engine::mapping::FileId;

/// One line of the file, as far as it matters here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Line {
    start: usize,
    end: usize,
    offset: u64,
    major: u64,
    minor: u64,
    inode: u64,
}

/// Reads lines from bytes that come in any pieces, without allocating.
#[derive(Default)]
struct Parser {
    line: Line,
    field: Field,
}

#[derive(Clone, Copy, Default, PartialEq, Eq)]
enum Field {
    #[default]
    Start,
    End,
    Permissions,
    Offset,
    Major,
    Minor,
    Inode,
    Rest,
}

impl Parser {
    /// Takes one byte; returns the line that it ends.
    fn push(&mut self, byte: u8) -> Option<Line> {
        if byte == b'\n' {
            let line = self.line;
            *self = Self::default();
            return Some(line);
        }
        let hex = (byte as char).to_digit(16).map(u64::from);
        let next = |number: &mut u64, base: u64| match hex {
            Some(digit) => {
                *number = number.wrapping_mul(base).wrapping_add(digit);
                false
            }
            None => true,
        };
        let line = &mut self.line;
        let mut start = line.start as u64;
        let mut end = line.end as u64;
        self.field = match self.field {
            Field::Start if next(&mut start, 16) => Field::End,
            Field::End if next(&mut end, 16) => Field::Permissions,
            Field::Permissions if byte == b' ' => Field::Offset,
            Field::Offset if next(&mut line.offset, 16) => Field::Major,
            Field::Major if next(&mut line.major, 16) => Field::Minor,
            Field::Minor if next(&mut line.minor, 16) => Field::Inode,
            Field::Inode if next(&mut line.inode, 10) => Field::Rest,
            same => same,
        };
        line.start = start as usize;
        line.end = end as usize;
        None
    }
}

/// Calls `found` with start and length of every piece of `attachment` that is still mapped where
/// `shmat` put it, and returns how many there were.
///
/// # Errors
/// What opening and reading `/proc/self/maps` say (no `/proc` after `chroot`, no descriptors).
pub fn pieces(
    attachment: &Attachment,
    mut found: impl FnMut(usize, usize),
) -> Result<usize, Errno> {
    let mut count = 0;
    // All are found before anything is unmapped: what is done to the address space in between
    // would show. Pieces are few, so a second look is for the rare rest.
    let mut seen = [(0usize, 0usize); 64];
    let end = attachment.addr.saturating_add(attachment.len);
    lines_in(attachment.addr, end, |line| {
        if let Some(piece) = piece_of(attachment, &line) {
            if let Some(place) = seen.get_mut(count) {
                *place = piece;
            }
            count += 1;
        }
    })?;
    for &(start, len) in seen.iter().take(count) {
        found(start, len);
    }
    if count > seen.len() {
        count = seen.len() + pieces(attachment, found)?;
    }
    Ok(count)
}

/// Where the first piece of `attachment` is that is still mapped where `shmat` put it.
pub fn first_piece(attachment: &Attachment) -> Result<Option<usize>, Errno> {
    let mut first = None;
    let end = attachment.addr.saturating_add(attachment.len);
    lines_in(attachment.addr, end, |line| {
        if let (None, Some((start, _))) = (first, piece_of(attachment, &line)) {
            first = Some(start);
        }
    })?;
    Ok(first)
}

/// Whether anything at all is mapped in the range.
pub fn is_taken(start: usize, end: usize) -> Result<bool, Errno> {
    let mut taken = false;
    // The page of vsyscalls that the file ends with belongs to no process.
    lines_in(start, end, |line| {
        taken |= line.end <= isize::MAX as usize;
    })?;
    Ok(taken)
}

/// Whether a mapping of `file` has anything of the range.
pub fn has_file(start: usize, end: usize, file: FileId) -> Result<bool, Errno> {
    let mut found = false;
    lines_in(start, end, |line| found |= is_of(&line, file))?;
    Ok(found)
}

/// The first part of the range in which nothing is mapped: where it begins, and its length.
pub fn first_gap(start: usize, end: usize) -> Result<Option<(usize, usize)>, Errno> {
    // Where nothing was found to be mapped so far, and where that ends.
    let (mut free, mut taken) = (start, None);
    lines_in(start, end, |line| {
        if taken.is_none() {
            if line.start > free {
                taken = Some(line.start);
            } else {
                free = free.max(line.end);
            }
        }
    })?;
    let taken = taken.unwrap_or(end).min(end);
    Ok((free < taken).then(|| (free, taken - free)))
}

/// Bounds of the mapping that has the address `at`; `None` where that cannot be seen.
pub fn mapping_at(at: usize) -> Option<(usize, usize)> {
    let mut bounds = None;
    lines_in(at, at + 1, |line| bounds = Some((line.start, line.end))).ok()?;
    bounds
}

/// Calls `each` with every line of the file that has something of the range.
fn lines_in(start: usize, end: usize, mut each: impl FnMut(Line)) -> Result<(), Errno> {
    let file = rustix::fs::open(
        "/proc/self/maps",
        OFlags::RDONLY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    let mut at = start;
    while at < end {
        match query::at_or_after(&file, at) {
            Ok(line) if line.start < end && line.end > at => {
                at = line.end;
                each(line);
            }
            Ok(_) | Err(Errno::NOENT) => return Ok(()),
            // An older kernel, or a filter of system calls: nothing was found yet.
            Err(_) if at == start => {
                return scan(&file, |line| {
                    if line.start < end && start < line.end {
                        each(line);
                    }
                });
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// `PROCMAP_QUERY` of `linux/fs.h`.
mod query {
    use super::Line;
    use rustix::fd::OwnedFd;
    use rustix::io::Errno;
    use rustix::ioctl::{Updater, ioctl, opcode};

    /// `struct procmap_query`.
    #[repr(C)]
    #[derive(Default)]
    struct Query {
        size: u64,
        flags: u64,
        addr: u64,
        start: u64,
        end: u64,
        vma_flags: u64,
        page_size: u64,
        offset: u64,
        inode: u64,
        major: u32,
        minor: u32,
        name_size: u32,
        build_id_size: u32,
        name: u64,
        build_id: u64,
    }

    const _: () = assert!(size_of::<Query>() == 104);

    /// `PROCMAP_QUERY_COVERING_OR_NEXT_VMA`.
    const COVERING_OR_NEXT: u64 = 0x10;

    /// The mapping that has the address `addr`, or the next one above it.
    ///
    /// # Errors
    /// `NOENT` when there is none; `NOTTY` before Linux 6.11.
    pub fn at_or_after(maps: &OwnedFd, addr: usize) -> Result<Line, Errno> {
        let mut query = Query {
            size: size_of::<Query>() as u64,
            flags: COVERING_OR_NEXT,
            addr: addr as u64,
            ..Query::default()
        };
        // SAFETY: the number is that of `_IOWR('f', 17, struct procmap_query)`, which fills in
        // the structure given; it is told of no buffers for name and build id.
        unsafe {
            let ask = Updater::<{ opcode::read_write::<Query>(b'f', 17) }, _>::new(&mut query);
            ioctl(maps, ask)?;
        }
        Ok(Line {
            start: query.start as usize,
            end: query.end as usize,
            offset: query.offset,
            major: query.major.into(),
            minor: query.minor.into(),
            inode: query.inode,
        })
    }
}

fn scan(file: &OwnedFd, mut each: impl FnMut(Line)) -> Result<(), Errno> {
    let mut parser = Parser::default();
    let mut buffer = [0u8; 4096];
    loop {
        let got = rustix::io::read(file, &mut buffer)?;
        if got == 0 {
            return Ok(());
        }
        for &byte in buffer.iter().take(got) {
            if let Some(line) = parser.push(byte) {
                each(line);
            }
        }
    }
}

/// Whether the line is of a mapping of `file`.
fn is_of(line: &Line, (dev, ino): FileId) -> bool {
    line.inode == ino
        && line.major == u64::from(rustix::fs::major(dev))
        && line.minor == u64::from(rustix::fs::minor(dev))
}

fn piece_of(attachment: &Attachment, line: &Line) -> Option<(usize, usize)> {
    let same_file = is_of(line, attachment.file);
    let inside = line.start >= attachment.addr && line.start - attachment.addr < attachment.len;
    let in_place = (line.start.wrapping_sub(attachment.addr)) as u64 == line.offset;
    (same_file && inside && in_place).then(|| (line.start, line.end.saturating_sub(line.start)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_asked_for_a_range_answers_what_its_whole_list_says() {
        let file = std::fs::File::open("/proc/self/maps").unwrap().into();
        let mut listed = Vec::new();
        scan(&file, |line| listed.push(line)).unwrap();
        // Stack and text stay as they are while other tests run.
        let here = the_kernel_asked_for_a_range_answers_what_its_whole_list_says as fn() as usize;
        let stack = &raw const file as usize;
        for address in [here, stack] {
            let has = |line: &&Line| line.start <= address && address < line.end;
            let want = listed.iter().find(has).unwrap();
            let mut got = Vec::new();
            lines_in(address, address + 1, |line| got.push(line)).unwrap();
            assert_eq!(got.first(), Some(want));
            assert_eq!(got.len(), 1);
            match query::at_or_after(&file, address) {
                Ok(line) => assert_eq!(line, *want),
                Err(error) => assert_eq!(error, Errno::NOTTY),
            }
        }
    }

    #[test]
    fn a_line_is_read_field_by_field() {
        let text =
            b"7f0000001000-7f0000003000 rw-s 00002000 00:01 1042   /memfd:vshmem (deleted)\n\
                     5500-5600 r--p 0 fd:0a 7\n";
        let mut parser = Parser::default();
        let lines: Vec<Line> = text.iter().filter_map(|&b| parser.push(b)).collect();
        let (start, end) = (0x7f00_0000_1000, 0x7f00_0000_3000);
        assert_eq!(
            lines[0],
            Line {
                start,
                end,
                offset: 0x2000,
                major: 0,
                minor: 1,
                inode: 1042
            }
        );
        assert_eq!(
            lines[1],
            Line {
                start: 0x5500,
                end: 0x5600,
                offset: 0,
                major: 0xfd,
                minor: 10,
                inode: 7
            }
        );
    }

    #[test]
    fn only_mappings_of_the_region_at_their_own_place_are_pieces() {
        let file = (rustix::fs::makedev(0, 1), 9);
        let a = Attachment {
            addr: 0x10000,
            len: 0x4000,
            id: 1,
            slot: 0,
            generation: 1,
            counted: true,
            file,
            again: None,
            overlaid: false,
            order: 0,
        };
        let line = |start, end, offset, inode| Line {
            start,
            end,
            offset,
            major: 0,
            minor: 1,
            inode,
        };
        assert_eq!(
            piece_of(&a, &line(0x11000, 0x12000, 0x1000, 9)),
            Some((0x11000, 0x1000))
        );
        assert_eq!(
            piece_of(&a, &line(0x11000, 0x12000, 0x1000, 8)),
            None,
            "another file"
        );
        assert_eq!(
            piece_of(&a, &line(0x11000, 0x12000, 0x2000, 9)),
            None,
            "another attachment"
        );
        assert_eq!(
            piece_of(&a, &line(0x14000, 0x15000, 0x4000, 9)),
            None,
            "behind the end"
        );
    }
}
