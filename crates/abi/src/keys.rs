// SPDX-License-Identifier: MIT OR Apache-2.0
//! `VSHMEM_KEYS`: which keys are routed.

use core::fmt;

/// How many items a list may have. The set lives in a static of the client library, so that
/// asking it allocates nothing and takes no lock.
pub const MAX_ITEMS: usize = 64;

/// The keys that are routed. Made once from `VSHMEM_KEYS`, then only asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeySet {
    ranges: [(u32, u32); MAX_ITEMS],
    len: usize,
    all: bool,
    private: bool,
}

/// What is wrong with a key list, naming the bad item.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeyError<'a> {
    /// The item as it was written.
    pub item: &'a str,
    /// What is wrong with it, as a phrase.
    pub why: &'static str,
}

impl fmt::Display for KeyError<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "bad item '{}' in VSHMEM_KEYS: {} (use a key like 0x5601, a range like \
             0x56000000-0x56ffffff, 'all' or 'private', separated by commas)",
            self.item, self.why
        )
    }
}

impl std::error::Error for KeyError<'_> {}

impl Default for KeySet {
    fn default() -> Self {
        Self::none()
    }
}

impl KeySet {
    /// The set that routes nothing.
    pub const fn none() -> Self {
        Self {
            ranges: [(0, 0); MAX_ITEMS],
            len: 0,
            all: false,
            private: false,
        }
    }

    /// Reads a list as `VSHMEM_KEYS` holds it. An empty or blank text routes nothing; an empty
    /// item between commas is an error, as is everything else that is not understood.
    pub fn parse(text: &str) -> Result<Self, KeyError<'_>> {
        let mut set = Self::none();
        if text.trim().is_empty() {
            return Ok(set);
        }
        for item in text.split(',') {
            let item = item.trim();
            match item {
                "all" => set.all = true,
                "private" => set.private = true,
                _ => set.push(item)?,
            }
        }
        Ok(set)
    }

    fn push<'a>(&mut self, item: &'a str) -> Result<(), KeyError<'a>> {
        let fail = |why| KeyError { item, why };
        let (low, high) = match item.split_once('-') {
            Some((low, high)) => (low.trim(), high.trim()),
            None => (item, item),
        };
        let low = number(low).map_err(fail)?;
        let high = number(high).map_err(fail)?;
        if high < low {
            return Err(fail("the range ends before it begins"));
        }
        if high == 0 {
            return Err(fail("key 0 is IPC_PRIVATE, which 'private' selects"));
        }
        if self.len == MAX_ITEMS {
            return Err(fail("there are more than 64 keys and ranges"));
        }
        self.ranges[self.len] = (low, high);
        self.len += 1;
        Ok(())
    }

    /// Whether nothing at all is routed.
    pub fn is_empty(&self) -> bool {
        self.len == 0 && !self.all && !self.private
    }

    /// Whether every key of `other` is one of these, as far as one range of these has each range of it.
    pub fn covers(&self, other: &Self) -> bool {
        let within = |&(low, high): &(u32, u32)| {
            let mut ranges = self.ranges[..self.len].iter();
            self.all || ranges.any(|range| range.0 <= low && high <= range.1)
        };
        (self.private || !other.private)
            && (self.all || !other.all)
            && other.ranges[..other.len].iter().all(within)
    }

    /// Whether a get of `key` is routed. `IPC_PRIVATE` is selected by `private` alone.
    #[inline]
    pub fn contains(&self, key: i32) -> bool {
        if key == crate::ids::IPC_PRIVATE {
            return self.private;
        }
        // A key is a bit pattern to its users: ranges are of the unsigned value.
        let key = key as u32;
        self.all
            || self.ranges[..self.len]
                .iter()
                .any(|&(low, high)| low <= key && key <= high)
    }
}

fn number(text: &str) -> Result<u32, &'static str> {
    if text.is_empty() {
        return Err("an item or a bound is empty");
    }
    let (digits, radix) = match text.strip_prefix("0x").or_else(|| text.strip_prefix("0X")) {
        Some(hex) => (hex, 16),
        None => (text, 10),
    };
    // from_str_radix takes a sign; a key here is written without one.
    if !digits.chars().all(|c| c.is_digit(radix)) || digits.is_empty() {
        return Err("not a number");
    }
    u32::from_str_radix(digits, radix).map_err(|_| "does not fit in 32 bits")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_single_keys_all_and_private_are_understood() {
        let set = KeySet::parse("0x56000000-0x56ffffff, 1234,private").unwrap();
        assert!(set.contains(0x5600_0000) && set.contains(0x56ff_ffff) && set.contains(1234));
        assert!(!set.contains(0x5700_0000) && !set.contains(1233));
        assert!(set.contains(0));
        let all = KeySet::parse("all").unwrap();
        assert!(all.contains(-1) && all.contains(1) && !all.contains(0));
    }

    #[test]
    fn keys_with_the_top_bit_set_are_compared_unsigned() {
        let set = KeySet::parse("0x80000000-0xffffffff").unwrap();
        assert!(set.contains(-1) && set.contains(i32::MIN) && !set.contains(i32::MAX));
    }

    #[test]
    fn a_list_covers_what_lies_within_its_ranges() {
        let covers = |one, other| {
            KeySet::parse(one)
                .unwrap()
                .covers(&KeySet::parse(other).unwrap())
        };
        assert!(covers("1-9, 20", "2-3, 9, 20") && covers("all, private", "private, 5"));
        assert!(!covers("1-9", "9-10") && !covers("all", "private") && !covers("1-9", "all"));
        assert!(covers("1", "") && !covers("", "1"));
    }

    #[test]
    fn an_unset_or_blank_list_routes_nothing() {
        assert!(KeySet::parse("").unwrap().is_empty());
        assert!(KeySet::parse("  ").unwrap().is_empty());
    }

    #[test]
    fn each_bad_item_is_named() {
        for (list, bad) in [
            ("1,,2", ""),
            ("0x", "0x"),
            ("foo", "foo"),
            ("1,2-", "2-"),
            ("5-4", "5-4"),
            ("0", "0"),
            ("0x1ffffffff", "0x1ffffffff"),
            ("+5", "+5"),
            ("ALL", "ALL"),
        ] {
            assert_eq!(KeySet::parse(list).unwrap_err().item, bad, "{list}");
        }
    }

    #[test]
    fn more_items_than_fit_are_refused_not_dropped() {
        let list = (1..=65)
            .map(|n| n.to_string())
            .collect::<Vec<_>>()
            .join(",");
        assert_eq!(KeySet::parse(&list).unwrap_err().item, "65");
    }
}
