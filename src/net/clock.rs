//! The clock: the only place that asks the system for the time.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::model::Millis;

/// Tells the time. Tests bring their own.
pub trait Clock: Send + Sync {
    /// The time now. Never goes back within a process, so that receive times and T do not either.
    fn now(&self) -> Millis;
}

/// The system's clock, held where it would go back.
#[derive(Debug, Default)]
pub struct SystemClock {
    last: AtomicI64,
}

impl Clock for SystemClock {
    fn now(&self) -> Millis {
        #[expect(clippy::disallowed_methods, reason = "this is the clock")]
        let now = SystemTime::now();
        let now = match now.duration_since(UNIX_EPOCH) {
            Ok(since) => i64::try_from(since.as_millis()).unwrap_or(i64::MAX),
            Err(before) => -i64::try_from(before.duration().as_millis()).unwrap_or(i64::MAX),
        };
        self.last.fetch_max(now, Ordering::AcqRel).max(now)
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
}
