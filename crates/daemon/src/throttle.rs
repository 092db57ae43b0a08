// SPDX-License-Identifier: MIT OR Apache-2.0
//! Keeping a log readable, and the daemon quick, when somebody misbehaves all the time.

use std::time::{Duration, Instant};

/// At most one line in this time.
const INTERVAL: Duration = Duration::from_secs(1);

/// Lets one occasion a second through.
#[derive(Debug, Default)]
pub struct Throttle {
    last: Option<Instant>,
    passed_over: u64,
}

impl Throttle {
    /// Whether to speak now: how many occasions were passed over in silence since the last time.
    pub fn speak(&mut self) -> Option<u64> {
        self.speak_at(Instant::now())
    }

    fn speak_at(&mut self, now: Instant) -> Option<u64> {
        if self.last.is_some_and(|last| now < last + INTERVAL) {
            self.passed_over += 1;
            return None;
        }
        self.last = Some(now);
        Some(std::mem::take(&mut self.passed_over))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_occasion_a_second_passes_and_the_others_are_counted() {
        let start = Instant::now();
        let mut throttle = Throttle::default();
        assert_eq!(throttle.speak_at(start), Some(0));
        assert_eq!(throttle.speak_at(start + INTERVAL / 2), None);
        assert_eq!(throttle.speak_at(start + INTERVAL / 2), None);
        assert_eq!(throttle.speak_at(start + INTERVAL), Some(2));
    }
}
