//! Windows: what a rule writes, and the closed interval it stands for at an instant.

use crate::bitmap::Interval;
use crate::bitmap::Snapshot;
use crate::model::time::Day;
use crate::model::time::Millis;
use crate::model::time::day_start;
use crate::model::time::minute_start;
use crate::rules::ast;
use crate::rules::ast::WindowKind;

/// When a rule is asked, and of what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Moment {
    /// The instant.
    pub now: Millis,
    /// T: what the columns are true for.
    pub true_for: Millis,
    /// How long events count.
    pub retention: Millis,
}

/// A window reaches before what is retained, at a past instant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error(
    "a window of the rule reaches before the retained events; the earliest instant that can be answered is {}",
    crate::model::time::format_rfc3339(*.earliest)
)]
pub struct TooEarly {
    /// The earliest instant that can be answered.
    pub earliest: Millis,
}

/// A window without the place it is written at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Window {
    /// All that is retained.
    Retained,
    In(Millis),
    Between(Millis, Millis),
    Since(Day),
    FromTo(Day, Day),
}

impl Window {
    pub(super) fn new(window: Option<&ast::Window>) -> Self {
        match window.map(|window| &window.kind) {
            None => Self::Retained,
            Some(WindowKind::In(length)) => Self::In(length.millis()),
            Some(WindowKind::Between(from, to)) => Self::Between(from.millis(), to.millis()),
            Some(WindowKind::Since(day)) => Self::Since(*day),
            Some(WindowKind::FromTo(from, to)) => Self::FromTo(*from, *to),
        }
    }

    /// How far before the instant it reaches, where that is written.
    pub(super) fn reach(self) -> Option<Millis> {
        match self {
            Self::In(length) | Self::Between(length, _) => Some(length),
            Self::Retained | Self::Since(_) | Self::FromTo(..) => None,
        }
    }
}

impl Moment {
    /// An instant, asked of a snapshot.
    pub fn of(snapshot: &Snapshot, now: Millis) -> Self {
        Self { now, true_for: snapshot.true_for, retention: snapshot.retention }
    }

    /// The earliest time that counts.
    pub fn edge(self) -> Millis {
        minute_start(self.now.max(self.true_for).saturating_sub(self.retention))
    }

    /// All that is retained and seen.
    pub fn retained(self) -> Interval {
        Interval { lo: self.edge(), hi: self.now }
    }

    /// The times a window holds. None lies before what is retained.
    pub(super) fn interval(self, window: Window) -> Interval {
        let Interval { lo: edge, hi: now } = self.retained();
        // The last millisecond before a time; where the time lies below the range there is none.
        let before = |time: Option<Millis>| time.and_then(|time| time.checked_sub(1));
        let (lo, hi) = match window {
            Window::Retained => (edge, Some(now)),
            Window::In(length) => (minute_start(now.saturating_sub(length)), Some(now)),
            Window::Between(from, to) => (
                minute_start(now.saturating_sub(from)),
                before(now.checked_sub(to).map(minute_start)),
            ),
            Window::Since(day) => (day_start(day), Some(now)),
            Window::FromTo(from, to) => {
                (day_start(from), before(Some(day_start(to.saturating_add(1)))))
            }
        };
        match hi {
            Some(hi) => Interval { lo: lo.max(edge), hi: hi.min(now) },
            None => Interval::EMPTY,
        }
    }

    /// Whether windows that reach back by `reach` can be answered.
    pub(super) fn admits(self, reach: Option<Millis>) -> Result<(), TooEarly> {
        let Some(reach) = reach else { return Ok(()) };
        let edge = minute_start(self.true_for.saturating_sub(self.retention));
        if self.now < self.true_for && minute_start(self.now.saturating_sub(reach)) < edge {
            return Err(TooEarly { earliest: edge.saturating_add(reach) });
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::time::DAY;
    use crate::model::time::MINUTE;

    fn moment(now: Millis) -> Moment {
        Moment { now, true_for: 100 * DAY, retention: 90 * DAY }
    }

    #[test]
    fn edges_are_cut_to_the_minute_and_the_near_one_to_the_millisecond() {
        let now = 100 * DAY + 3 * MINUTE + 7;
        let interval = moment(now).interval(Window::In(DAY));
        assert_eq!(interval, Interval { lo: 99 * DAY + 3 * MINUTE, hi: now });
        let interval = moment(now).interval(Window::Between(2 * DAY, DAY));
        assert_eq!(interval, Interval { lo: 98 * DAY + 3 * MINUTE, hi: 99 * DAY + 3 * MINUTE - 1 });
    }

    #[test]
    fn dates_take_what_is_still_retained_and_seen() {
        let now = 100 * DAY + 5;
        assert_eq!(moment(now).interval(Window::Since(3)), Interval { lo: 10 * DAY, hi: now });
        let ahead = moment(now).interval(Window::FromTo(99, 200));
        assert_eq!(ahead, Interval { lo: 99 * DAY, hi: now });
        let day = moment(now).interval(Window::FromTo(50, 50));
        assert_eq!(day, Interval { lo: 50 * DAY, hi: 51 * DAY - 1 });
    }

    #[test]
    fn a_past_instant_names_the_earliest_that_can_be_answered() {
        let past = moment(30 * DAY);
        assert_eq!(past.admits(None), Ok(()));
        assert_eq!(past.admits(Some(20 * DAY)), Ok(()));
        let refused = TooEarly { earliest: 31 * DAY };
        assert_eq!(past.admits(Some(21 * DAY)), Err(refused));
        assert_eq!(moment(31 * DAY).admits(Some(21 * DAY)), Ok(()));
        assert_eq!(moment(31 * DAY - 1).admits(Some(21 * DAY)), Err(refused));
    }

    #[test]
    fn the_ends_of_time_do_not_overflow() {
        for now in [i64::MIN, i64::MIN + 1, i64::MAX] {
            for window in [
                Window::Retained,
                Window::In(DAY),
                Window::Between(2 * DAY, DAY),
                Window::Since(i64::MIN),
                Window::FromTo(0, i64::MAX),
            ] {
                let moment = Moment { now, true_for: i64::MIN, retention: 90 * DAY };
                let _ = moment.interval(window);
                let _ = moment.admits(Some(DAY));
            }
        }
        let start = Moment { now: i64::MIN, true_for: i64::MIN, retention: DAY };
        assert!(start.interval(Window::Between(2, 1)).is_empty());
    }
}
