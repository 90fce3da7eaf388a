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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Device;
    use crate::model::Identifier;
    use crate::model::Namespace;
    use crate::model::Page;
    use crate::model::Source;
    use crate::model::value::parse_json;

    fn event(props: &str, url: &str) -> Event {
        let Value::Object(props) = parse_json(props.as_bytes()).unwrap() else { panic!() };
        Event {
            site: "shop".into(),
            name: "view".into(),
            time: 0,
            received: 0,
            time_replaced: false,
            source: Source::Api,
            message_id: None,
            ids: vec![Identifier::new(Namespace::new("cookie").unwrap(), "1").unwrap()],
            props,
            attrs: Vec::new(),
            page: Page { url: Some(url.into()), ..Page::default() },
            device: Device::default(),
            bot: false,
            country: None,
            locale: None,
            consent: None,
        }
    }

    /// What a path finds, as JSON; what is found through an array in brackets.
    fn found(props: &str, path: &[&str]) -> String {
        let names: Vec<Box<str>> = path.iter().map(|name| Box::from(*name)).collect();
        let event = event(props, "https://Shop.example/a");
        let mut out = String::new();
        match Path::new(&names).find(&event) {
            Found::Missing => out.push_str("missing"),
            Found::Text(text) => out.push_str(&text),
            Found::One(value) => value.write_json(&mut out),
            Found::Many(values) => {
                Value::Array(values.into_iter().cloned().collect()).write_json(&mut out);
            }
        }
        out
    }

    #[test]
    fn a_literal_key_comes_first_and_ends_the_lookup() {
        assert_eq!(found(r#"{"a.b":1,"a":{"b":2}}"#, &["a", "b"]), "1");
        assert_eq!(found(r#"{"a.b":null,"a":{"b":2}}"#, &["a", "b"]), "null");
        assert_eq!(found(r#"{"a":{"b":2}}"#, &["a", "b"]), "2");
        assert_eq!(found(r#"{"a":{"b":2}}"#, &["a.b"]), "missing");
        assert_eq!(found(r#"{"a":{"b.c":2}}"#, &["a", "b.c"]), "2");
        assert_eq!(found(r#"{"a":{"b.c":2}}"#, &["a", "b", "c"]), "missing");
    }

    #[test]
    fn through_an_array_the_path_goes_on_into_each_element() {
        assert_eq!(found(r#"{"a":[{"b":1},{"b":null},2,{"b":"x"}]}"#, &["a", "b"]), r#"[1,"x"]"#);
        assert_eq!(found(r#"{"a":[[{"b":1}],{"b":[]}]}"#, &["a", "b"]), "[1,[]]");
        assert_eq!(found(r#"{"a":[{"b":null}]}"#, &["a", "b"]), "missing");
        assert_eq!(found(r#"{"a":[]}"#, &["a", "b"]), "missing");
        assert_eq!(found(r#"{"a":[]}"#, &["a"]), "[]");
        assert_eq!(found(r#"{"a":"x"}"#, &["a", "b"]), "missing");
    }

    #[test]
    fn a_built_in_hides_a_property_also_where_it_is_missing() {
        let props =
            r#"{"page":{"host":"x","kind":"y"},"page.title":"x","source":"x","locale":"x"}"#;
        assert_eq!(found(props, &["page", "host"]), "shop.example");
        assert_eq!(found(props, &["page.host"]), "shop.example");
        assert_eq!(found(props, &["page", "title"]), "missing");
        assert_eq!(found(props, &["locale"]), "missing");
        assert_eq!(found(props, &["source"]), "api");
        assert_eq!(found(props, &["page", "kind"]), r#""y""#);
    }

    #[test]
    fn urls_are_taken_apart() {
        let part = |url: &str, part: BuiltIn| part.of(&event("{}", url)).map(Cow::into_owned);
        for (url, host, path) in [
            ("https://Shop.Example:8443/A%20b;x?y#z", Some("shop.example"), Some("/A%20b;x")),
            ("http://me:pw@b@shop.example", Some("shop.example"), Some("/")),
            ("https://shop.example?x=/y", Some("shop.example"), Some("/")),
            ("https://shop.example#/y", Some("shop.example"), Some("/")),
            ("http://[::1]:80/x", Some("[::1]"), Some("/x")),
            ("http://[::1]/x", Some("[::1]"), Some("/x")),
            ("file:///x", None, Some("/x")),
            ("//shop.example/x", None, None),
            ("/x", None, None),
            ("mailto:a@b", None, None),
            ("1x://shop.example/x", None, None),
        ] {
            assert_eq!(part(url, BuiltIn::PageHost).as_deref(), host, "{url}");
            assert_eq!(part(url, BuiltIn::PagePath).as_deref(), path, "{url}");
        }
        for (query, source) in [
            ("?utm_source=a+b%26%C3%A9", Some("a b&é")),
            ("?x=1&utm_source=first&utm_source=second", Some("first")),
            ("?utm_source=&utm_source=second", None),
            ("?utm_source", None),
            ("?utm%5Fsource=a", Some("a")),
            ("?utm_source=%zz%4", Some("%zz%4")),
            ("#?utm_source=a", None),
            ("?a=b?utm_source=c&utm_source=d#e", Some("d")),
        ] {
            let url = format!("https://shop.example/{query}");
            assert_eq!(part(&url, BuiltIn::UtmSource).as_deref(), source, "{url}");
        }
    }
}
