//! One sent event, as JSON or as the parts of a pixel's query, to the [`Event`] that is journaled.
//!
//! Used by the public listener and by imports. Holds the rules for values of the interface: names,
//! times, identifiers, sizes. E-mail addresses and phone numbers end here: only their hashes go on.
//! Whether a site is known, its origin and consent are not judged here.
//!
//! ```text
//! bytes ── split ──► one event's bytes ── Sent ──► fields ── into_event(Arrival) ──► Event
//!                                                             ids, time, agent
//! ```

pub mod agent;
pub mod email;
pub mod ids;
pub mod import;
pub mod json;
pub mod phone;
pub mod sent;
pub mod split;
pub mod time;

pub use agent::{Agent, Agents};
pub use ids::{DropReason, Dropped, Ids, identifiers_of, is_whole};
pub use import::{Import, import_lines};
pub use sent::Sent;
pub use time::Window;

use crate::model::Consent;
use crate::model::Identifier;
use crate::model::Millis;
use crate::model::NamespaceOrder;
use crate::model::Source;

#[cfg(doc)]
use crate::model::Event;

/// The most bytes of one event's JSON.
pub const MAX_EVENT: usize = 32 << 10;
/// The most identifiers that one event carries.
pub const MAX_IDS: usize = 64;
/// The most properties, and the most attributes, of one event.
pub const MAX_FIELDS: usize = 512;

/// Which rule an event broke; in the answer of `POST /v1/events` and in the report of an import.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Code {
    /// It names no known site.
    Site,
    /// Its page is none of the site's.
    Origin,
    /// A signal, or the silence about consent, forbids to record it.
    Consent,
    /// Its name is missing or malformed.
    EventName,
    /// Its time is neither RFC 3339 nor milliseconds.
    Time,
    /// It carries no usable identifier.
    Ids,
    /// It is too large.
    Size,
    /// Its properties, or another part, are not of the form.
    Props,
}

impl Code {
    /// The text in answers.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Site => "site",
            Self::Origin => "origin",
            Self::Consent => "consent",
            Self::EventName => "event_name",
            Self::Time => "time",
            Self::Ids => "ids",
            Self::Size => "size",
            Self::Props => "props",
        }
    }
}

/// Why an event was not taken. The message names keys, never values: they may be personal.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Rejection {
    /// The rule.
    pub code: Code,
    /// What is wrong, for a person.
    pub message: String,
}

impl Rejection {
    /// A rejection with its message.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self { code, message: message.into() }
    }
}

/// What is known of an event from around it: the request, or the import.
#[derive(Debug, Clone)]
pub struct Arrival<'a> {
    /// How it came.
    pub source: Source,
    /// When it was received.
    pub received: Millis,
    /// Which sent times count.
    pub window: Window,
    /// The order in which an identifier owns the event.
    pub order: &'a NamespaceOrder,
    /// The country of phone numbers without `+`.
    pub phone_country: Option<&'a str>,
    /// The browser's valid cookie.
    pub cookie: Option<Identifier>,
    /// The `User-Agent` of the request, where it is the visitor's; the event's own goes before it.
    pub user_agent: Option<&'a str>,
    /// The country, where the event states none.
    pub country: Option<&'a str>,
    /// The language tag, where the event states none.
    pub locale: Option<&'a str>,
    /// What the visitor allowed, where a signal asked for it.
    pub consent: Option<Box<Consent>>,
}

/// Takes an event name: 1 to 128 bytes without control characters.
pub fn event_name(text: &str) -> Result<&str, Rejection> {
    if (1..=128).contains(&text.len()) && !text.chars().any(char::is_control) {
        Ok(text)
    } else {
        let message = "event: expected a name of 1 to 128 bytes without control characters";
        Err(Rejection::new(Code::EventName, message))
    }
}

/// Takes a message id: 1 to 256 bytes without control characters.
pub fn message_id(text: &str) -> Result<&str, Rejection> {
    if (1..=256).contains(&text.len()) && !text.chars().any(char::is_control) {
        Ok(text)
    } else {
        let message = "message_id: expected 1 to 256 bytes without control characters";
        Err(Rejection::new(Code::Ids, message))
    }
}

#[cfg(test)]
mod tests;
