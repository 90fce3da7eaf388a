//! How often a platform lets itself be called: we keep within it, so that it need not say no.

use std::collections::BTreeMap;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use parking_lot::Mutex;

/// So many calls within a time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limit {
    /// How many.
    pub calls: usize,
    /// Within which time, wherever it begins.
    pub within: Duration,
}

/// The calls to one platform, of all who call it from this process.
#[derive(Debug, Default)]
pub struct Pace {
    /// When each of the last was made, the first first.
    made: Mutex<VecDeque<Instant>>,
}

/// The paces of all platforms, by address.
#[derive(Debug, Clone, Default)]
pub(super) struct Paces(Arc<Mutex<BTreeMap<String, Arc<Pace>>>>);

impl Paces {
    pub(super) fn of(&self, address: &str) -> Arc<Pace> {
        Arc::clone(self.0.lock().entry(address.to_owned()).or_default())
    }
}

impl Limit {
    /// So many calls a second.
    pub const fn a_second(calls: usize) -> Self {
        Self { calls, within: Duration::from_secs(1) }
    }

    /// So many calls a minute.
    pub const fn a_minute(calls: usize) -> Self {
        Self { calls, within: Duration::from_secs(60) }
    }

    /// What is used of it. Calls do not arrive as evenly as they are made, so a tenth is left.
    fn used(self) -> usize {
        (self.calls * 9 / 10).max(1)
    }
}

impl Pace {
    /// Waits until a call may be made, and counts it; where that would take longer than `patience`, counts nothing and
    /// tells how long it would.
    pub fn take(&self, limits: &[Limit], patience: Duration) -> Result<(), Duration> {
        loop {
            let left = {
                let mut made = self.made.lock();
                let now = Instant::now();
                match left(&made, limits, now) {
                    Duration::ZERO => {
                        made.push_back(now);
                        let most = limits.iter().map(|limit| limit.used()).max().unwrap_or(0);
                        let beyond = made.len().saturating_sub(most);
                        made.drain(..beyond);
                        return Ok(());
                    }
                    left => left,
                }
            };
            if left > patience {
                return Err(left);
            }
            std::thread::sleep(left);
        }
    }
}

/// How long until another call is within all limits.
fn left(made: &VecDeque<Instant>, limits: &[Limit], now: Instant) -> Duration {
    let of = |limit: &Limit| {
        let first = made.get(made.len().checked_sub(limit.used())?)?;
        Some((*first + limit.within).saturating_duration_since(now))
    };
    limits.iter().filter_map(of).max().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_window_has_more_calls_than_are_allowed() {
        let start = Instant::now();
        let limits = [Limit::a_second(10), Limit::a_minute(60)];
        // Of each, nine tenths: nine a second, and fifty-four a minute.
        let mut made = VecDeque::new();
        let mut now = start;
        while now < start + Duration::from_secs(130) {
            match left(&made, &limits, now) {
                Duration::ZERO => made.push_back(now),
                wait => now += wait,
            }
        }
        for limit in limits {
            for (at, first) in made.iter().enumerate() {
                let within = made.range(at..).take_while(|one| **one < *first + limit.within);
                assert!(within.count() <= limit.used(), "{limit:?} at {at}");
            }
        }
        // And no fewer.
        assert_eq!(made.len(), 3 * 54);
        assert_eq!(made[8], start);
        assert_eq!(made[9], start + Duration::from_secs(1));
        assert_eq!(made[54], start + Duration::from_secs(60));
    }

    #[test]
    fn a_short_wait_is_waited_and_a_long_one_told() {
        let pace = Pace::default();
        let limits = [Limit { calls: 2, within: Duration::from_millis(50) }];
        let begun = Instant::now();
        for _ in 0..4 {
            assert_eq!(pace.take(&limits, Duration::from_secs(1)), Ok(()));
        }
        assert!(begun.elapsed() >= Duration::from_millis(150));
        let (pace, limits) = (Pace::default(), [Limit::a_minute(4)]);
        assert!((0..3).all(|_| pace.take(&limits, Duration::ZERO).is_ok()));
        let told = pace.take(&limits, Duration::from_secs(1)).unwrap_err();
        assert!(told > Duration::from_secs(50) && told <= Duration::from_secs(60), "{told:?}");
        assert_eq!(pace.take(&[], Duration::ZERO), Ok(()));
    }

    #[test]
    fn who_calls_the_same_platform_shares_its_pace() {
        let paces = Paces::default();
        let (one, other) =
            (paces.of("https://a.example/v1"), paces.clone().of("https://a.example/v1"));
        assert!(Arc::ptr_eq(&one, &other));
        assert!(!Arc::ptr_eq(&one, &paces.of("https://b.example")));
    }
}
