// SPDX-License-Identifier: MIT OR Apache-2.0
//! Medians, percentiles, how far a median can be trusted, and how a time is written.

/// Sorted copy; times are numbers.
fn sorted(values: &[f64]) -> Vec<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted
}

/// The middle value, or the mean of the two in the middle. 0 for no values.
pub fn median(values: &[f64]) -> f64 {
    let sorted = sorted(values);
    let middle = sorted.len() / 2;
    match sorted.len() {
        0 => 0.0,
        n if n % 2 == 1 => sorted[middle],
        _ => (sorted[middle - 1] + sorted[middle]) / 2.0,
    }
}

/// The smallest value that at least `percent` of the values do not exceed. 0 for no values.
pub fn percentile(values: &[f64], percent: f64) -> f64 {
    let sorted = sorted(values);
    let rank = (percent / 100.0 * sorted.len() as f64).ceil() as usize;
    sorted
        .get(rank.saturating_sub(1))
        .or(sorted.last())
        .copied()
        .unwrap_or(0.0)
}

/// Bounds between which the true median lies with a probability of at least 95 %, whatever the
/// distribution: the order statistics that the binomial distribution gives. With fewer than six
/// values that is more than they can say, and the bounds are the extremes.
pub fn median_bounds(values: &[f64]) -> (f64, f64) {
    let sorted = sorted(values);
    let n = sorted.len();
    if n == 0 {
        return (0.0, 0.0);
    }
    // P(at most k of n values are below the median), summed until it would pass 2.5 %.
    let mut term = 0.5f64.powi(n as i32);
    let mut sum = term;
    let mut outside = 0;
    while sum <= 0.025 {
        outside += 1;
        term *= (n - outside + 1) as f64 / outside as f64;
        sum += term;
    }
    let low = outside.saturating_sub(1);
    (sorted[low], sorted[n - 1 - low])
}

/// Nanoseconds with a unit, in few digits.
pub fn time(ns: f64) -> String {
    match ns.abs() {
        size if size < 999.5 => format!("{ns:.1} ns"),
        size if size < 999_500.0 => format!("{:.2} us", ns / 1e3),
        size if size < 999_500_000.0 => format!("{:.2} ms", ns / 1e6),
        _ => format!("{:.2} s", ns / 1e9),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn medians_of_odd_even_and_no_values() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!(median(&[]), 0.0);
    }

    #[test]
    fn a_percentile_is_one_of_the_values() {
        let values: Vec<f64> = (1..=100).map(f64::from).collect();
        assert_eq!(percentile(&values, 50.0), 50.0);
        assert_eq!(percentile(&values, 99.0), 99.0);
        assert_eq!(percentile(&values[..10], 99.0), 10.0);
        assert_eq!(percentile(&[], 99.0), 0.0);
    }

    #[test]
    fn bounds_of_the_median_are_those_of_the_tables() {
        // Ranks from the table of the sign test at 95 %.
        for (n, low, high) in [(5, 1, 5), (6, 1, 6), (9, 2, 8), (15, 4, 12), (21, 6, 16)] {
            let values: Vec<f64> = (1..=n).map(f64::from).collect();
            let want = (f64::from(low), f64::from(high));
            assert_eq!(median_bounds(&values), want, "{n}");
        }
    }

    #[test]
    fn times_have_a_fitting_unit() {
        assert_eq!(time(5.0), "5.0 ns");
        assert_eq!(time(-1234.0), "-1.23 us");
        assert_eq!(time(7_200_000.0), "7.20 ms");
        assert_eq!(time(1e10), "10.00 s");
    }
}
