//! What a path finds on an event: a built-in, or a property.

use std::borrow::Cow;

use percent_encoding::percent_decode;

use crate::model::Event;
use crate::model::Value;
use crate::model::value::get;

/// What is always on an event, and hides a property of the same name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BuiltIn {
    /// `site`
    Site,
    /// `source`
    Source,
    /// `page.url`
    PageUrl,
    /// `page.host`
    PageHost,
    /// `page.path`
    PagePath,
    /// `page.title`
    PageTitle,
    /// `page.referrer`
    PageReferrer,
    /// `page.referrer_host`
    PageReferrerHost,
    /// `utm.source`
    UtmSource,
    /// `utm.medium`
    UtmMedium,
    /// `utm.campaign`
    UtmCampaign,
    /// `utm.term`
    UtmTerm,
    /// `utm.content`
    UtmContent,
    /// `device.kind`
    DeviceKind,
    /// `device.os`
    DeviceOs,
    /// `device.browser`
    DeviceBrowser,
    /// `geo.country`
    GeoCountry,
    /// `locale`
    Locale,
}

/// The names of the built-ins.
pub const BUILT_INS: [(&str, BuiltIn); 18] = [
    ("site", BuiltIn::Site),
    ("source", BuiltIn::Source),
    ("page.url", BuiltIn::PageUrl),
    ("page.host", BuiltIn::PageHost),
    ("page.path", BuiltIn::PagePath),
    ("page.title", BuiltIn::PageTitle),
    ("page.referrer", BuiltIn::PageReferrer),
    ("page.referrer_host", BuiltIn::PageReferrerHost),
    ("utm.source", BuiltIn::UtmSource),
    ("utm.medium", BuiltIn::UtmMedium),
    ("utm.campaign", BuiltIn::UtmCampaign),
    ("utm.term", BuiltIn::UtmTerm),
    ("utm.content", BuiltIn::UtmContent),
    ("device.kind", BuiltIn::DeviceKind),
    ("device.os", BuiltIn::DeviceOs),
    ("device.browser", BuiltIn::DeviceBrowser),
    ("geo.country", BuiltIn::GeoCountry),
    ("locale", BuiltIn::Locale),
];

impl BuiltIn {
    /// The built-in of a whole name, dots included.
    pub fn named(name: &str) -> Option<Self> {
        BUILT_INS.iter().find(|(known, _)| *known == name).map(|(_, built_in)| *built_in)
    }

    /// Its value on an event; `None` where it is unknown.
    pub fn of(self, event: &Event) -> Option<Cow<'_, str>> {
        let page = &event.page;
        let borrowed = match self {
            Self::Site => Some(&*event.site),
            Self::Source => Some(event.source.as_str()),
            Self::PageUrl => page.url.as_deref(),
            Self::PageTitle => page.title.as_deref(),
            Self::PageReferrer => page.referrer.as_deref(),
            Self::DeviceKind => event.device.kind.as_deref(),
            Self::DeviceOs => event.device.os.as_deref(),
            Self::DeviceBrowser => event.device.browser.as_deref(),
            Self::GeoCountry => event.country.as_deref(),
            Self::Locale => event.locale.as_deref(),
            Self::PagePath => Url::split(page.url.as_deref()?).map(|url| url.path),
            Self::PageHost => return Url::split(page.url.as_deref()?)?.host(),
            Self::PageReferrerHost => return Url::split(page.referrer.as_deref()?)?.host(),
            Self::UtmSource => return Url::split(page.url.as_deref()?)?.first("utm_source"),
            Self::UtmMedium => return Url::split(page.url.as_deref()?)?.first("utm_medium"),
            Self::UtmCampaign => return Url::split(page.url.as_deref()?)?.first("utm_campaign"),
            Self::UtmTerm => return Url::split(page.url.as_deref()?)?.first("utm_term"),
            Self::UtmContent => return Url::split(page.url.as_deref()?)?.first("utm_content"),
        };
        borrowed.map(Cow::Borrowed)
    }
}

/// The parts of an absolute URL, as sent.
struct Url<'a> {
    authority: &'a str,
    path: &'a str,
    query: &'a str,
}

impl<'a> Url<'a> {
    /// Takes `scheme://…` apart; anything else is no absolute URL.
    fn split(url: &'a str) -> Option<Self> {
        let (scheme, rest) = url.split_once("://")?;
        let mut letters = scheme.bytes();
        let is_scheme = letters.next().is_some_and(|b| b.is_ascii_alphabetic())
            && letters.all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b));
        if !is_scheme {
            return None;
        }
        let rest = rest.split('#').next().unwrap_or("");
        let (before, query) = rest.split_once('?').unwrap_or((rest, ""));
        let slash = before.find('/').unwrap_or(before.len());
        let (authority, path) = before.split_at(slash);
        Some(Self { authority, path: if path.is_empty() { "/" } else { path }, query })
    }

    fn host(&self) -> Option<Cow<'a, str>> {
        let host = self.authority.rsplit('@').next().unwrap_or("");
        let host = match host.rsplit_once(':') {
            Some((host, port)) if port.bytes().all(|b| b.is_ascii_digit()) => host,
            _ => host,
        };
        if host.is_empty() {
            return None;
        }
        let is_lower = !host.chars().any(|c| c.is_ascii_uppercase() || !c.is_ascii());
        Some(if is_lower { Cow::Borrowed(host) } else { Cow::Owned(host.to_lowercase()) })
    }

    /// The first value of a name in the form-encoded query; an empty one is missing.
    fn first(&self, name: &str) -> Option<Cow<'a, str>> {
        let (_, value) = self
            .query
            .split('&')
            .map(|pair| pair.split_once('=').unwrap_or((pair, "")))
            .find(|(key, _)| form_decode(key) == name)?;
        let value = form_decode(value);
        (!value.is_empty()).then_some(value)
    }
}

fn form_decode(text: &str) -> Cow<'_, str> {
    if !text.contains(['+', '%']) {
        return Cow::Borrowed(text);
    }
    let spaced = text.replace('+', " ");
    Cow::Owned(percent_decode(spaced.as_bytes()).decode_utf8_lossy().into_owned())
}

/// A property's path, ready to be looked up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Path {
    /// A built-in, which is not looked for among the properties.
    BuiltIn(BuiltIn),
    /// A property.
    Property {
        /// All names joined by dots, which is tried first.
        literal: Box<str>,
        /// The names, one for each level.
        levels: Vec<Box<str>>,
    },
}

/// What a path found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found<'e> {
    /// Nothing.
    Missing,
    /// A built-in's text.
    Text(Cow<'e, str>),
    /// A property's value, null included.
    One(&'e Value),
    /// At least one value, found through an array: they count as one array.
    Many(Vec<&'e Value>),
}

impl Path {
    /// The path of a rule's names.
    pub fn new(names: &[Box<str>]) -> Self {
        let literal = names.join(".");
        match BuiltIn::named(&literal) {
            Some(built_in) => Self::BuiltIn(built_in),
            None => Self::Property { literal: literal.into(), levels: names.to_vec() },
        }
    }

    /// Looks the path up on an event.
    pub fn find<'e>(&self, event: &'e Event) -> Found<'e> {
        match self {
            Self::BuiltIn(built_in) => built_in.of(event).map_or(Found::Missing, Found::Text),
            Self::Property { literal, levels } => {
                if let Some(value) = get(&event.props, literal) {
                    return Found::One(value);
                }
                let (Some(first), rest) = (levels.first(), levels.get(1..).unwrap_or(&[])) else {
                    return Found::Missing;
                };
                if rest.is_empty() {
                    return Found::Missing;
                }
                get(&event.props, first).map_or(Found::Missing, |value| descend(value, rest))
            }
        }
    }
}

fn descend<'e>(value: &'e Value, levels: &[Box<str>]) -> Found<'e> {
    match (value, levels) {
        (value, []) => Found::One(value),
        (Value::Array(items), levels) => {
            let mut found = Vec::new();
            for item in items {
                match descend(item, levels) {
                    Found::One(value) if *value != Value::Null => found.push(value),
                    Found::Many(more) => found.extend(more),
                    Found::One(_) | Found::Text(_) | Found::Missing => {}
                }
            }
            if found.is_empty() { Found::Missing } else { Found::Many(found) }
        }
        (value, [key, rest @ ..]) => {
            value.get(key).map_or(Found::Missing, |value| descend(value, rest))
        }
    }
}
