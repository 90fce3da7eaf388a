//! Latencies in nanoseconds, in buckets that are at most 1.6 % wide.

use std::time::Duration;

/// Buckets for each power of two.
const STEPS: u64 = 64;

/// Counts of durations from 1 ns to 584 years.
#[derive(Debug, Clone)]
pub struct Histogram {
    buckets: Vec<u64>,
    count: u64,
    max: u64,
}

impl Default for Histogram {
    fn default() -> Self {
        // Values below 64 have a bucket each; above, 58 powers of two have 64 buckets each.
        Self { buckets: vec![0; 59 * 64], count: 0, max: 0 }
    }
}

impl Histogram {
    /// Counts one duration.
    pub fn record(&mut self, duration: Duration) {
        let value = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        self.buckets[bucket(value)] += 1;
        self.count += 1;
        self.max = self.max.max(value);
    }

    /// Adds what another one counted.
    pub fn merge(&mut self, other: &Self) {
        for (mine, theirs) in self.buckets.iter_mut().zip(&other.buckets) {
            *mine += theirs;
        }
        self.count += other.count;
        self.max = self.max.max(other.max);
    }

    /// How many durations were counted.
    pub fn count(&self) -> u64 {
        self.count
    }

    /// The longest duration, exactly; zero where there is none.
    pub fn max(&self) -> Duration {
        Duration::from_nanos(self.max)
    }

    /// The duration that a share of all does not exceed, at most one bucket too long; zero where
    /// there is none. `share` is between 0 and 1.
    pub fn quantile(&self, share: f64) -> Duration {
        let mut seen = 0;
        for (index, count) in self.buckets.iter().enumerate() {
            seen += count;
            #[expect(clippy::cast_precision_loss, reason = "counts stay far below 2^53")]
            if *count > 0 && seen as f64 >= share * self.count as f64 {
                return Duration::from_nanos(end(index as u64).min(self.max));
            }
        }
        self.max()
    }
}

fn bucket(value: u64) -> usize {
    let index = match value.checked_ilog2() {
        Some(power) if power >= 6 => {
            let shift = u64::from(power) - 6;
            (shift + 1) * STEPS + (value >> shift) - STEPS
        }
        _ => value,
    };
    usize::try_from(index).expect("below 59 * 64")
}

/// The largest value of a bucket.
fn end(index: u64) -> u64 {
    if index < STEPS {
        return index;
    }
    let shift = index / STEPS - 1;
    let first = (index % STEPS + STEPS) << shift;
    first + ((1 << shift) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buckets_meet_without_gap_or_overlap() {
        for value in (0..4096).chain([u64::MAX / 3, u64::MAX - 1, u64::MAX]) {
            let index = bucket(value) as u64;
            assert!(value <= end(index), "{value}");
            assert!(index == 0 || value > end(index - 1), "{value}");
        }
    }

    #[test]
    fn quantiles_are_within_a_bucket_of_the_truth() {
        let mut histogram = Histogram::default();
        for micros in 1..=1000 {
            histogram.record(Duration::from_micros(micros));
        }
        let p99 = histogram.quantile(0.99).as_secs_f64();
        assert!((0.000_990..0.001_006).contains(&p99), "{p99}");
        assert_eq!(histogram.quantile(1.0), Duration::from_millis(1));
        assert_eq!(Histogram::default().quantile(0.5), Duration::ZERO);
    }
}
