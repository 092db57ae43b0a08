// SPDX-License-Identifier: MIT OR Apache-2.0
//! What is left of an attachment in the address space: the program may have unmapped, protected
//! or replaced parts of it. The kernel's `shmdt` unmaps what still is the segment and nothing
//! else; so does ours, by looking at `/proc/self/maps`.

use crate::attachments::Attachment;
use rustix::fd::OwnedFd;
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

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
    let file = rustix::fs::open(
        "/proc/self/maps",
        OFlags::RDONLY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    let mut count = 0;
    // The file is read to its end before anything is unmapped: what is done to the address space
    // in between would show in it. Pieces are few, so a second read is for the rare rest.
    let mut seen = [(0usize, 0usize); 64];
    scan(&file, |line| {
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

/// Whether anything of `attachment` is still mapped where `shmat` put it.
pub fn any_left(attachment: &Attachment) -> Result<bool, Errno> {
    any(|line| piece_of(attachment, line).is_some())
}

/// Whether anything at all is mapped in the range.
pub fn is_taken(start: usize, end: usize) -> Result<bool, Errno> {
    // The page of vsyscalls that the file ends with belongs to no process.
    any(|line| line.start < end && start < line.end && line.end <= isize::MAX as usize)
}

fn any(wanted: impl Fn(&Line) -> bool) -> Result<bool, Errno> {
    let file = rustix::fs::open(
        "/proc/self/maps",
        OFlags::RDONLY | OFlags::CLOEXEC,
        Mode::empty(),
    )?;
    let mut found = false;
    scan(&file, |line| found |= wanted(&line))?;
    Ok(found)
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

fn piece_of(attachment: &Attachment, line: &Line) -> Option<(usize, usize)> {
    let (dev, ino) = attachment.file;
    let same_file = line.inode == ino
        && line.major == u64::from(rustix::fs::major(dev))
        && line.minor == u64::from(rustix::fs::minor(dev));
    let inside = line.start >= attachment.addr && line.start - attachment.addr < attachment.len;
    let in_place = (line.start.wrapping_sub(attachment.addr)) as u64 == line.offset;
    (same_file && inside && in_place).then(|| (line.start, line.end.saturating_sub(line.start)))
}

#[cfg(test)]
mod tests {
    use super::*;

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
