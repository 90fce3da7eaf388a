//! The clock: the only place that asks the system for the time.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use crate::model::Millis;

/// Tells the time. Tests bring their own.
pub trait Clock: Send + Sync {
    /// The time now. Never goes back within a process, so that receive times and T do not either.
    fn now(&self) -> Millis;

    /// By how many milliseconds the system's clock is behind this one, which stands still meanwhile.
    fn behind(&self) -> Millis {
        0
    }
}

/// The system's clock, held where it would go back.
#[derive(Debug, Default)]
pub struct SystemClock {
    last: AtomicI64,
}

impl SystemClock {
    /// A clock that goes on from a time at which another process had stopped. Where the system's clock is
    /// behind it, it is waited for, so long at most; then this one stands still until it has come.
    pub fn after(last: Millis, patience: Duration) -> Self {
        let clock = Self::default();
        let step = Duration::from_millis(50);
        let mut waited = Duration::ZERO;
        while clock.now() < last && waited < patience {
            std::thread::sleep(step);
            waited += step;
        }
        clock.last.fetch_max(last, Ordering::AcqRel);
        clock
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Millis {
        let now = system_time();
        self.last.fetch_max(now, Ordering::AcqRel).max(now)
    }

    fn behind(&self) -> Millis {
        self.last.load(Ordering::Acquire).saturating_sub(system_time()).max(0)
    }
}

fn system_time() -> Millis {
    #[expect(clippy::disallowed_methods, reason = "this is the clock")]
    let now = SystemTime::now();
    match now.duration_since(UNIX_EPOCH) {
        Ok(since) => i64::try_from(since.as_millis()).unwrap_or(i64::MAX),
        Err(before) => -i64::try_from(before.duration().as_millis()).unwrap_or(i64::MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_does_not_go_back() {
        let clock = SystemClock { last: AtomicI64::new(i64::MAX - 1) };
        assert_eq!(clock.now(), i64::MAX - 1);
        assert!(SystemClock::default().now() > 1_700_000_000_000);
    }

    #[test]
    fn a_clock_behind_the_last_process_stands_still() {
        let last = SystemClock::default().now() + 3_600_000;
        let clock = SystemClock::after(last, Duration::from_millis(60));
        assert_eq!(clock.now(), last);
        assert!((3_500_000..=3_600_000).contains(&clock.behind()));
        let clock = SystemClock::after(Millis::MIN, Duration::MAX);
        assert!(clock.now() < last);
        assert_eq!(clock.behind(), 0);
    }
}
