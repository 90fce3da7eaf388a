//! When an event happened: the sent time where it can be believed, else the receive time.

use super::Code;
use super::Rejection;
use crate::model::Millis;
use crate::model::time::MINUTE;
use crate::model::time::parse_rfc3339;

/// How far ahead of its receipt an event may be dated.
const AHEAD: Millis = 5 * MINUTE;

/// Which sent times count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Window {
    /// From this long before receipt to 5 minutes after it.
    Within(Millis),
    /// Every time: imports are trusted.
    Any,
}

impl Window {
    /// The event's time, and whether it is the receive time in place of a sent one that is missing or does
    /// not count.
    ///
    /// `sent_at` is the sender's clock when it sent: its distance from the receive time corrects `time`.
    pub fn place(
        self,
        time: Option<Millis>,
        sent_at: Option<Millis>,
        received: Millis,
    ) -> (Millis, bool) {
        let Some(time) = time else { return (received, true) };
        let time = match sent_at {
            Some(sent_at) => time.checked_add(received.saturating_sub(sent_at)),
            None => Some(time),
        };
        let counts = |time: &Millis| match self {
            Self::Any => true,
            Self::Within(retention) => {
                *time >= received.saturating_sub(retention)
                    && *time <= received.saturating_add(AHEAD)
            }
        };
        time.filter(counts).map_or((received, true), |time| (time, false))
    }
}

/// Reads whole milliseconds.
pub fn millis(text: &str) -> Option<Millis> {
    let digits = text.strip_prefix('-').unwrap_or(text);
    let fits = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_digit());
    fits.then(|| text.parse().ok()).flatten()
}

/// Reads RFC 3339 text with a zone.
pub(super) fn rfc3339(key: &str, text: &str) -> Result<Millis, Rejection> {
    parse_rfc3339(text).ok_or_else(|| malformed(key))
}

/// What is said of a time that is none.
pub(super) fn malformed(key: &str) -> Rejection {
    let message = format!(
        "{key}: expected RFC 3339 with a zone (2011-12-09T12:50:00Z) or integer milliseconds"
    );
    Rejection::new(Code::Time, message)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::time::DAY;

    #[test]
    fn a_time_counts_from_the_retention_to_five_minutes_ahead() {
        let window = Window::Within(90 * DAY);
        let now = 1_700_000_000_000;
        for (time, counts) in [
            (now, true),
            (now - 90 * DAY, true),
            (now - 90 * DAY - 1, false),
            (now + 5 * MINUTE, true),
            (now + 5 * MINUTE + 1, false),
            (i64::MIN, false),
            (i64::MAX, false),
        ] {
            let expected = if counts { (time, false) } else { (now, true) };
            assert_eq!(window.place(Some(time), None, now), expected, "{time}");
            assert_eq!(Window::Any.place(Some(time), None, now), (time, false));
        }
        assert_eq!(window.place(None, None, now), (now, true));
    }

    #[test]
    fn a_wrong_clock_is_corrected_by_when_it_sent() {
        let window = Window::Within(DAY);
        let now = 1_700_000_000_000;
        let sender = now - 400 * DAY;
        assert_eq!(window.place(Some(sender - 1_000), Some(sender), now), (now - 1_000, false));
        assert_eq!(window.place(Some(i64::MAX), Some(i64::MIN), now), (now, true));
    }

    #[test]
    fn only_whole_numbers_are_milliseconds() {
        assert_eq!(millis("-1"), Some(-1));
        assert_eq!(millis("1700000000000"), Some(1_700_000_000_000));
        for wrong in ["", "-", "+1", "1.0", "1e3", "9223372036854775808", " 1"] {
            assert_eq!(millis(wrong), None, "{wrong}");
        }
    }
}
