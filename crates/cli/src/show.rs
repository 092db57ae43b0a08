// SPDX-License-Identifier: MIT OR Apache-2.0
//! How things are written for people: tables, users, keys, times.

use std::collections::HashMap;

/// Header and rows with each column as wide as its widest entry.
pub fn table<const N: usize>(columns: [&str; N], rows: &[[String; N]]) -> String {
    let header = columns.map(str::to_owned);
    let lines = || std::iter::once(&header).chain(rows);
    let width = |column: usize| lines().map(|line| line[column].chars().count()).max();
    let widths: [usize; N] = std::array::from_fn(|c| width(c).unwrap_or(0));
    lines()
        .map(|line| {
            let cells = line.iter().zip(widths);
            let cells: Vec<_> = cells.map(|(cell, w)| format!("{cell:<w$}")).collect();
            format!("{}\n", cells.join("  ").trim_end())
        })
        .collect()
}

/// A key as `ipcs` writes it.
pub fn key(key: i32) -> String {
    format!("0x{key:08x}")
}

/// Names of users, each looked up once.
#[derive(Default)]
pub struct Users {
    names: HashMap<u32, String>,
}

impl Users {
    /// The name of a user, or its number where it has none.
    pub fn name(&mut self, uid: u32) -> String {
        let of = |uid: u32| match nix::unistd::User::from_uid(uid.into()) {
            Ok(Some(user)) => user.name,
            Ok(None) | Err(_) => uid.to_string(),
        };
        self.names.entry(uid).or_insert_with(|| of(uid)).clone()
    }
}

/// How many, and of what: `1 page`, `2 pages`.
pub fn count(number: u64, noun: &str) -> String {
    match number {
        1 => format!("1 {noun}"),
        _ => format!("{number} {noun}s"),
    }
}

/// Seconds since the epoch.
pub fn now() -> i64 {
    chrono::Utc::now().timestamp()
}

/// A moment, in seconds since the epoch, in local time; 0: never.
pub fn moment(at: i64) -> String {
    use chrono::TimeZone;
    match chrono::Local.timestamp_opt(at, 0) {
        _ if at == 0 => "never".to_owned(),
        chrono::LocalResult::Single(time) => time.format("%Y-%m-%d %H:%M:%S").to_string(),
        _ => format!("second {at} since 1970"),
    }
}

/// A length of time in few characters: `45s`, `12m`, `5h`, `3d`.
pub fn span(seconds: i64) -> String {
    match seconds.max(0) {
        s @ 0..100 => format!("{s}s"),
        s @ 100..6000 => format!("{}m", s / 60),
        s @ 6000..172_800 => format!("{}h", s / 3600),
        s => format!("{}d", s / 86_400),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_table_is_the_header_alone() {
        assert_eq!(table(["key", "id"], &[]), "key  id\n");
    }

    #[test]
    fn columns_line_up_and_nothing_trails() {
        let row = |cells: [&str; 3]| cells.map(str::to_owned);
        let text = table(
            ["a", "b", "c"],
            &[row(["long", "x", ""]), row(["", "long", "x"])],
        );
        assert_eq!(text, "a     b     c\nlong  x\n      long  x\n");
    }

    #[test]
    fn a_user_without_a_name_is_shown_by_number() {
        let mut users = Users::default();
        assert_eq!(users.name(0), "root");
        assert_eq!(users.name(3_999_999_999), "3999999999");
    }

    #[test]
    fn spans_are_short_and_round_down() {
        for (seconds, want) in [
            (-5, "0s"),
            (99, "99s"),
            (100, "1m"),
            (5999, "99m"),
            (7200, "2h"),
            (172_800, "2d"),
        ] {
            assert_eq!(span(seconds), want);
        }
    }

    #[test]
    fn a_moment_that_never_was_is_called_so() {
        assert_eq!(moment(0), "never");
        assert_eq!(moment(1_700_000_000).len(), "2023-11-14 22:13:20".len());
    }
}
