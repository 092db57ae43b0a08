// SPDX-License-Identifier: MIT OR Apache-2.0
//! Keeping a log readable, and the daemon quick, when somebody misbehaves all the time.

use std::time::{Duration, Instant};

/// Lines that may follow one another: a program that goes wrong in several ways is told all of them.
const BURST: u32 = 8;

/// After that one line in this time.
const INTERVAL: Duration = Duration::from_secs(1);

/// Lets a few occasions through, then one a second.
#[derive(Debug)]
pub struct Throttle {
    burst: u32,
    /// Lines that may be spoken at once.
    left: u32,
    /// Until when they are counted.
    counted: Option<Instant>,
    passed_over: u64,
}

impl Default for Throttle {
    fn default() -> Self {
        Self::with_burst(BURST)
    }
}

impl Throttle {
    /// One that lets so many through before it counts seconds.
    pub fn with_burst(burst: u32) -> Self {
        Self {
            burst,
            left: burst,
            counted: None,
            passed_over: 0,
        }
    }

    /// Whether to speak now: how many occasions were passed over in silence since the last time.
    pub fn speak(&mut self) -> Option<u64> {
        self.speak_at(Instant::now())
    }

    fn speak_at(&mut self, now: Instant) -> Option<u64> {
        let counted = *self.counted.get_or_insert(now);
        let passed = now.saturating_duration_since(counted);
        if passed >= INTERVAL * self.burst {
            self.left = self.burst;
            self.counted = Some(now);
        } else {
            let more = passed.as_secs() / INTERVAL.as_secs();
            self.left = (self.left + more as u32).min(self.burst);
            self.counted = Some(counted + INTERVAL * more as u32);
        }
        if self.left == 0 {
            self.passed_over += 1;
            return None;
        }
        self.left -= 1;
        Some(std::mem::take(&mut self.passed_over))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_occasions_pass_then_one_a_second_and_the_others_are_counted() {
        let start = Instant::now();
        let mut throttle = Throttle::default();
        for _ in 0..BURST {
            assert_eq!(throttle.speak_at(start), Some(0));
        }
        assert_eq!(throttle.speak_at(start), None);
        assert_eq!(throttle.speak_at(start + INTERVAL / 2), None);
        assert_eq!(throttle.speak_at(start + INTERVAL), Some(2));
        assert_eq!(throttle.speak_at(start + INTERVAL * 3 / 2), None);
        assert_eq!(throttle.speak_at(start + INTERVAL * 2), Some(1));
        assert_eq!(throttle.speak_at(start + INTERVAL * 2), None);
    }

    #[test]
    fn after_a_silence_a_few_occasions_pass_again() {
        let start = Instant::now();
        let mut throttle = Throttle::default();
        while throttle.speak_at(start).is_some() {}
        let later = start + INTERVAL * 1000;
        let spoken = (0..100).filter(|_| throttle.speak_at(later).is_some());
        assert_eq!(spoken.count(), BURST as usize);
    }
}
