//! An event: something that happened, with a name, a time, properties and the identifiers that carried it.

use super::consent::Consent;
use super::identifier::Identifier;
use super::time::Millis;
use super::value::Value;

/// The event that brings a partner's id of a browser: its further identifiers are matched with the profile from then on.
pub const ID_MATCH: &str = "id_match";

/// A collected event in its canonical form, whatever protocol brought it.
///
/// Invariant: `ids` is not empty, sorted by the namespace order and without doubles: the first owns
/// the event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// The site's key.
    pub site: Box<str>,
    /// The event's name: 1 to 128 bytes of UTF-8 without control characters.
    pub name: Box<str>,
    /// When it happened.
    pub time: Millis,
    /// When it was received.
    pub received: Millis,
    /// Whether the sent time lay outside what counts, and `time` is the receive time instead.
    pub time_replaced: bool,
    /// How it came.
    pub source: Source,
    /// The sender's id of the message; one `(site, message_id)` counts once.
    pub message_id: Option<Box<str>>,
    /// The identifiers that carried it, the owner first.
    pub ids: Vec<Identifier>,
    /// Properties, as sent.
    pub props: Vec<(Box<str>, Value)>,
    /// Attributes of the profile; `null` clears one.
    pub attrs: Vec<(Box<str>, Value)>,
    /// The page it happened on.
    pub page: Page,
    /// The device, as stated or as read from the user agent.
    pub device: Device,
    /// Whether a crawler sent it, by its user agent.
    pub bot: bool,
    /// The country, as stated or as told by a trusted header.
    pub country: Option<Box<str>>,
    /// The language tag.
    pub locale: Option<Box<str>>,
    /// What its visitor allowed; `None` where no signal asked for it.
    pub consent: Option<Box<Consent>>,
}

/// How an event came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Source {
    /// The GIF.
    Pixel,
    /// A browser protocol, or a request with an `Origin`.
    Js,
    /// A server.
    Api,
    /// An import.
    Import,
}

impl Source {
    /// The text that a rule sees as `source`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pixel => "pixel",
            Self::Js => "js",
            Self::Api => "api",
            Self::Import => "import",
        }
    }
}

/// The page an event happened on, as sent; host, path and `utm.*` are read from the URL when asked.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Page {
    /// Its URL.
    pub url: Option<Box<str>>,
    /// The URL it was reached from.
    pub referrer: Option<Box<str>>,
    /// Its title.
    pub title: Option<Box<str>>,
}

/// The device an event came from.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Device {
    /// `desktop`, `mobile`, `tablet`, `tv`, `bot` or `other`.
    pub kind: Option<Box<str>>,
    /// The operating system.
    pub os: Option<Box<str>>,
    /// The browser.
    pub browser: Option<Box<str>>,
}

impl Event {
    /// The identifier whose profile the event belongs to.
    pub fn owner(&self) -> &Identifier {
        &self.ids[0]
    }
}
