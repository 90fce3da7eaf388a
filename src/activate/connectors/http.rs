//! What the answers of all platforms that are called have in common.

use std::time::Duration;

use jiff::fmt::rfc2822;

use crate::activate::connector::Verdict;
use crate::model::Millis;
use crate::model::time::DAY;
use crate::model::time::SECOND;
use crate::net::Answered;
use crate::net::Limit;
use crate::net::OutgoingError;
use crate::net::Pace;

/// The longest that a platform may ask to wait.
const LONGEST_WAIT: Millis = DAY;

/// The time before which nothing is to be sent, where an answer says one: seconds from now on, or a date.
pub(super) fn wait_until(answered: &Answered, now: Millis) -> Option<Millis> {
    let text = answered.header("retry-after")?.trim();
    let until = match text.parse::<u32>() {
        Ok(seconds) => now + Millis::from(seconds) * SECOND,
        Err(_) => rfc2822::parse(text).ok()?.timestamp().as_millisecond(),
    };
    Some(until.clamp(now, now + LONGEST_WAIT))
}

/// Keeps a call within what a platform allows. A second is waited for here; what takes longer is for later.
pub(super) fn keep_pace(pace: &Pace, limits: &[Limit], now: Millis) -> Result<(), Verdict> {
    pace.take(limits, Duration::from_secs(1)).map_err(|left| {
        let left = Millis::try_from(left.as_millis()).unwrap_or(Millis::MAX);
        Verdict::Throttled(Some(now.saturating_add(left).saturating_add(1)))
    })
}

/// What a platform answered, in a few words.
pub(super) fn said(platform: &str, answered: &Answered) -> String {
    match answered.gist() {
        gist if gist.is_empty() => format!("{platform} answered {}", answered.status),
        gist => format!("{platform} answered {}: {gist}", answered.status),
    }
}

/// The verdict on a call that was not answered.
pub(super) fn unanswered(platform: &str, error: &OutgoingError) -> Verdict {
    let why = format!("{platform}: {error}");
    match error {
        OutgoingError::NotSent(_) => Verdict::Retry(why),
        OutgoingError::Lost(_) => Verdict::Unknown(why),
    }
}

/// The verdict on an answer whose status says by itself that it is to be tried again.
pub(super) fn later(platform: &str, answered: &Answered, now: Millis) -> Option<Verdict> {
    matches!(answered.status, 408 | 425 | 429 | 500..=599).then(|| {
        match wait_until(answered, now) {
            Some(until) => Verdict::Throttled(Some(until)),
            None => Verdict::Retry(said(platform, answered)),
        }
    })
}

/// The SHA-256 of the empty text: of somebody who had nothing to be hashed.
pub(super) const SHA256_OF_NOTHING: &str =
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// Whether a text is a SHA-256 in lower-case hexadecimal.
pub(super) fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}
