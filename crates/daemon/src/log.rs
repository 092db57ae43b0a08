// SPDX-License-Identifier: MIT OR Apache-2.0
//! The log: one line an event on stderr; where that is the journal's, with the priority that the journal
//! wants (sd-daemon(3)) and without the time, which it knows.
//!
//! However often something happens, it is not written without end: of the lines that come from one place of the code
//! a few may follow one another, then one a second, and then it is said how many there were. This is the
//! last resort; whoever can tell the domains apart keeps a [`Throttle`] for each.

use crate::throttle::Throttle;
use std::collections::HashMap;
use std::fmt;
use std::io::IsTerminal;
use std::os::fd::AsFd;
use std::sync::{Mutex, PoisonError};
use tracing::callsite::Identifier;
use tracing::{Event, Level, Subscriber};
use tracing_subscriber::fmt::format::{Format, Full, Writer};
use tracing_subscriber::fmt::{self as lines, FmtContext, FormatEvent, FormatFields};
use tracing_subscriber::layer::{Context, SubscriberExt};
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer};

/// Environment variable that says what is logged.
pub const ENV_LOG: &str = "VSHMEM_LOG";

/// Lines of one place that may follow one another.
const BURST: u32 = 64;

/// What is logged, as the command line has it: a level, or a list of `part=level`.
///
/// # Errors
/// A word that is none of these.
pub fn parse(text: &str) -> Result<String, String> {
    let levels = ["off", "error", "warn", "info", "debug", "trace"];
    for item in text.split(',') {
        let (part, level) = match item.split_once('=') {
            Some((part, level)) => (part, level),
            None => ("", item),
        };
        let is_level = levels.contains(&level.trim().to_ascii_lowercase().as_str());
        if !is_level || part.is_empty() && item.contains('=') {
            return Err(format!(
                "'{item}' is no level: say error, warn, info, debug or trace, or such a word for each \
                 part, as vshmemd::front=debug,info"
            ));
        }
    }
    match EnvFilter::try_new(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// Begins to log what `filter`, which [`parse`] has taken, says.
pub fn begin(filter: &str) {
    let to_journal = std::env::var("JOURNAL_STREAM")
        .is_ok_and(|stream| is_stream(&stream, std::io::stderr().as_fd()));
    let format = Format::default().with_ansi(std::io::stderr().is_terminal());
    let lines = lines::layer().with_writer(std::io::stderr);
    let registry = tracing_subscriber::registry().with(EnvFilter::new(filter));
    if to_journal {
        let format = Prioritized(format.without_time());
        registry
            .with(Limited::over(lines.event_format(format)))
            .init();
    } else {
        registry
            .with(Limited::over(lines.event_format(format)))
            .init();
    }
}

/// Whether a descriptor is that which `JOURNAL_STREAM` says: `DEVICE:INODE`.
fn is_stream(stream: &str, fd: impl AsFd) -> bool {
    let Ok(stat) = rustix::fs::fstat(fd) else {
        return false;
    };
    stream == format!("{}:{}", stat.st_dev, stat.st_ino)
}

/// Lines that begin with their priority.
struct Prioritized<F>(F);

/// The priority of a level (sd-daemon(3)).
fn priority(level: Level) -> u8 {
    match level {
        Level::ERROR => 3,
        Level::WARN => 4,
        Level::INFO => 6,
        _ => 7,
    }
}

impl<S, N> FormatEvent<S, N> for Prioritized<Format<Full, ()>>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    N: for<'a> FormatFields<'a> + 'static,
{
    fn format_event(
        &self,
        context: &FmtContext<'_, S, N>,
        mut writer: Writer<'_>,
        event: &Event<'_>,
    ) -> fmt::Result {
        write!(writer, "<{}>", priority(*event.metadata().level()))?;
        self.0.format_event(context, writer, event)
    }
}

/// A layer to which not more than some events of one place are passed on.
struct Limited<L> {
    inner: L,
    places: Mutex<HashMap<Identifier, Throttle>>,
}

impl<L> Limited<L> {
    fn over(inner: L) -> Self {
        Self {
            inner,
            places: Mutex::default(),
        }
    }

    /// Whether another event of a place is passed on, and how many before it were not.
    fn passes(&self, place: Identifier) -> Option<u64> {
        let mut places = self.places.lock().unwrap_or_else(PoisonError::into_inner);
        let throttle = places.entry(place);
        throttle
            .or_insert_with(|| Throttle::with_burst(BURST))
            .speak()
    }
}

impl<S: Subscriber, L: Layer<S>> Layer<S> for Limited<L> {
    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        // Who asks for more than is written by itself wants all of it.
        if *event.metadata().level() > Level::INFO {
            return self.inner.on_event(event, context);
        }
        match self.passes(event.metadata().callsite()) {
            Some(0) => self.inner.on_event(event, context),
            Some(more) => {
                self.inner.on_event(event, context);
                eprintln!("{more} lines like that one were left out before it");
            }
            None => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_or_one_for_each_part_is_understood_and_other_words_are_named() {
        for good in ["warn", "DEBUG", "vshmemd::front=debug,info", "off"] {
            assert_eq!(parse(good).as_deref(), Ok(good));
        }
        for (bad, named) in [
            ("inof", "'inof'"),
            ("", "''"),
            ("info,vshmemd", "'vshmemd'"),
            ("vshmemd=loud", "'vshmemd=loud'"),
            ("=info", "'=info'"),
        ] {
            let error = parse(bad).unwrap_err();
            assert!(error.starts_with(named), "{error}");
        }
    }

    #[test]
    fn the_journal_is_known_by_device_and_inode() {
        let file = tempfile::tempfile().unwrap();
        let stat = rustix::fs::fstat(&file).unwrap();
        let stream = format!("{}:{}", stat.st_dev, stat.st_ino);
        assert!(is_stream(&stream, &file));
        assert!(!is_stream(&format!("{stream}0"), &file) && !is_stream("", &file));
    }

    /// Counts what is passed on.
    #[derive(Clone, Default)]
    struct Count(std::sync::Arc<std::sync::atomic::AtomicUsize>);

    impl<S: Subscriber> Layer<S> for Count {
        fn on_event(&self, _: &Event<'_>, _: Context<'_, S>) {
            self.0.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        }
    }

    #[test]
    fn what_happens_without_end_is_not_written_without_end() {
        let count = Count::default();
        let of = |count: &Count| count.0.load(std::sync::atomic::Ordering::Relaxed);
        let log = tracing_subscriber::registry().with(Limited::over(count.clone()));
        tracing::subscriber::with_default(log, || {
            for n in 0..100 * BURST {
                tracing::warn!(n, "again and again");
            }
            // Some more pass while this takes seconds.
            assert!(of(&count) < 2 * BURST as usize);
            let before = of(&count);
            tracing::warn!("something else");
            assert_eq!(of(&count), before + 1);
            for _ in 0..2 * BURST {
                tracing::debug!("asked for");
            }
            assert_eq!(of(&count), before + 1 + 2 * BURST as usize);
        });
    }
}
