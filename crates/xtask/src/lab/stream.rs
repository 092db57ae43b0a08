// SPDX-License-Identifier: MIT OR Apache-2.0
//! What a domain says, taken apart: lines of text, and between them records of the lab's own
//! scripts, each of them from an RS character (0x1e) to the end of the line.

/// Begins a record; nobody else writes it.
const RECORD: u8 = 0x1e;

/// A line that goes on for longer than this many bytes is cut.
const LONGEST: usize = 16 << 10;

/// A piece of what a domain says.
#[derive(Debug, PartialEq, Eq)]
pub enum Item {
    /// A line of output, without its end.
    Line(String),
    /// What one of the lab's scripts has to say.
    Record(String),
}

/// Takes one domain's bytes apart, however they are cut into pieces on their way.
#[derive(Debug, Default)]
pub struct Stream {
    line: Vec<u8>,
    /// A record that has begun.
    record: Option<Vec<u8>>,
}

impl Stream {
    /// Takes bytes, and hands over what is complete with them.
    pub fn feed(&mut self, bytes: &[u8]) -> Vec<Item> {
        let mut items = Vec::new();
        for &byte in bytes {
            match (byte, &mut self.record) {
                (RECORD, _) => self.record = Some(Vec::new()),
                (b'\n', Some(record)) => {
                    let text = shown(record);
                    self.record = None;
                    items.push(Item::Record(text));
                }
                (b'\n', None) => items.push(Item::Line(self.cut())),
                (_, Some(buffer)) => buffer.push(byte),
                (_, None) => self.line.push(byte),
            }
            if self.line.len() >= LONGEST {
                items.push(Item::Line(self.cut()));
            }
        }
        items
    }

    /// A line that has begun and has not ended, if any, as a line: there will be no more of it.
    pub fn rest(&mut self) -> Option<String> {
        (!self.line.is_empty()).then(|| self.cut())
    }

    fn cut(&mut self) -> String {
        shown(&std::mem::take(&mut self.line))
    }
}

/// A line as a terminal can show it: text alone, without what a console ends lines with.
fn shown(line: &[u8]) -> String {
    let text = String::from_utf8_lossy(line);
    text.chars()
        .filter(|&c| c == '\t' || !c.is_control())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use Item::{Line, Record};

    fn items(pieces: &[&[u8]]) -> Vec<Item> {
        let mut stream = Stream::default();
        let mut items: Vec<_> = pieces.iter().flat_map(|p| stream.feed(p)).collect();
        items.extend(stream.rest().map(Line));
        items
    }

    #[test]
    fn lines_are_the_same_however_they_are_cut_into_pieces() {
        let whole = b"one\r\ntwo\n\x1estatus 3\nthree";
        let want = [
            Line("one".into()),
            Line("two".into()),
            Record("status 3".into()),
            Line("three".into()),
        ];
        assert_eq!(items(&[whole]), want);
        let single: Vec<&[u8]> = whole.chunks(1).collect();
        assert_eq!(items(&single), want);
    }

    #[test]
    fn a_record_in_the_middle_of_a_line_leaves_the_line_whole() {
        let want = [Record("log x".into()), Line("half and half".into())];
        assert_eq!(items(&[b"half and \x1elog x\nhalf\n"]), want);
    }

    #[test]
    fn a_line_that_does_not_end_is_cut() {
        let mut stream = Stream::default();
        let cut = stream.feed(&[b'a'; LONGEST + 1]);
        assert_eq!(cut, [Line("a".repeat(LONGEST))]);
        assert_eq!(stream.rest().as_deref(), Some("a"));
    }

    #[test]
    fn bytes_that_are_no_text_are_shown_as_such() {
        assert_eq!(
            items(&[b"\xff\x07a\x1b[1m\tb\n"]),
            [Line("\u{fffd}a[1m\tb".into())]
        );
    }
}
