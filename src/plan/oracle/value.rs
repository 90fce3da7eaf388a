//! Looking properties up and testing them, as the text says it.

use std::cmp::Ordering;

use super::number::Plain;
use crate::model::Event;
use crate::model::Value;
use crate::rules::ast::Cmp;
use crate::rules::ast::LiteralKind;
use crate::rules::ast::Test;
use crate::rules::ast::TestKind;

/// What a path finds on an event; several values found through an array come as one array.
pub(super) fn look_up(path: &[Box<str>], event: &Event) -> Option<Value> {
    let name = path.join(".");
    let text = |text: Option<String>| text.map(Value::string);
    let sent = |sent: &Option<Box<str>>| sent.as_deref().map(str::to_owned);
    match name.as_str() {
        "site" => return text(Some(event.site.to_string())),
        "source" => return text(Some(format!("{:?}", event.source).to_lowercase())),
        "page.url" => return text(sent(&event.page.url)),
        "page.title" => return text(sent(&event.page.title)),
        "page.referrer" => return text(sent(&event.page.referrer)),
        "page.host" => return text(sent(&event.page.url).and_then(|url| host(&url))),
        "page.referrer_host" => return text(sent(&event.page.referrer).and_then(|url| host(&url))),
        "page.path" => return text(sent(&event.page.url).and_then(|url| url_path(&url))),
        "utm.source" | "utm.medium" | "utm.campaign" | "utm.term" | "utm.content" => {
            let name = name.replace('.', "_");
            return text(sent(&event.page.url).and_then(|url| parameter(&url, &name)));
        }
        "device.kind" => return text(sent(&event.device.kind)),
        "device.os" => return text(sent(&event.device.os)),
        "device.browser" => return text(sent(&event.device.browser)),
        "geo.country" => return text(sent(&event.country)),
        "locale" => return text(sent(&event.locale)),
        _ => {}
    }
    let props = Value::Object(event.props.clone());
    if let Value::Object(fields) = &props
        && let Some((_, value)) = fields.iter().find(|(key, _)| **key == *name)
    {
        return Some(value.clone());
    }
    let mut found = Vec::new();
    let through_array = walk(&props, path, &mut found);
    if through_array {
        found.retain(|value| *value != Value::Null);
        (!found.is_empty()).then_some(Value::Array(found))
    } else {
        found.pop()
    }
}

fn walk(value: &Value, path: &[Box<str>], found: &mut Vec<Value>) -> bool {
    if path.is_empty() {
        found.push(value.clone());
        return false;
    }
    match value {
        Value::Array(items) => {
            for item in items {
                walk(item, path, found);
            }
            true
        }
        Value::Object(fields) => match fields.iter().find(|(key, _)| *key == path[0]) {
            Some((_, inner)) => walk(inner, &path[1..], found),
            None => false,
        },
        _ => false,
    }
}

/// What stands after `scheme://`, where the URL is absolute.
fn after_scheme(url: &str) -> Option<&str> {
    let at = url.find("://")?;
    let scheme = &url[..at];
    let letters = scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-.".contains(c));
    (letters && scheme.starts_with(|c: char| c.is_ascii_alphabetic())).then(|| &url[at + 3..])
}

fn host(url: &str) -> Option<String> {
    let rest = after_scheme(url)?;
    let authority: String = rest.chars().take_while(|c| !"/?#".contains(*c)).collect();
    let host = match authority.rfind('@') {
        Some(at) => authority[at + 1..].to_owned(),
        None => authority,
    };
    let port = host.rfind(':').filter(|at| host[at + 1..].chars().all(|c| c.is_ascii_digit()));
    let host = port.map_or(&*host, |at| &host[..at]).to_lowercase();
    (!host.is_empty()).then_some(host)
}

fn url_path(url: &str) -> Option<String> {
    let rest = after_scheme(url)?;
    let path: String = rest
        .chars()
        .skip_while(|c| !"/?#".contains(*c))
        .take_while(|c| !"?#".contains(*c))
        .collect();
    Some(if path.is_empty() { "/".to_owned() } else { path })
}

fn parameter(url: &str, name: &str) -> Option<String> {
    let rest: String = after_scheme(url)?.chars().take_while(|c| *c != '#').collect();
    let query = &rest[rest.find('?')? + 1..];
    for pair in query.split('&') {
        let (key, value) = match pair.find('=') {
            Some(at) => (&pair[..at], &pair[at + 1..]),
            None => (pair, ""),
        };
        if decode(key) == name {
            return Some(decode(value)).filter(|value| !value.is_empty());
        }
    }
    None
}

fn decode(text: &str) -> String {
    let bytes = text.as_bytes();
    let mut out = Vec::new();
    let mut i = 0;
    while i < bytes.len() {
        let hex = |at: usize| bytes.get(at).and_then(|b| char::from(*b).to_digit(16));
        match (bytes[i], hex(i + 1), hex(i + 2)) {
            (b'+', ..) => out.push(b' '),
            (b'%', Some(high), Some(low)) => {
                out.push(u8::try_from(high * 16 + low).unwrap());
                i += 2;
            }
            (byte, ..) => out.push(byte),
        }
        i += 1;
    }
    String::from_utf8_lossy(&out).into_owned()
}

/// The number that a measure takes of an event.
pub(super) fn number_of(path: &[Box<str>], event: &Event) -> Option<Plain> {
    match look_up(path, event)? {
        Value::Number(number) => Some(Plain::read_json(number.as_str())),
        Value::String(text) => Plain::read(&text),
        _ => None,
    }
}

/// Whether a value that was found passes a test.
pub(super) fn passes(test: &Test, value: &Value) -> bool {
    match (&test.kind, value) {
        (_, Value::Null) => false,
        (TestKind::Exists, _) => true,
        (_, Value::Array(items)) => items.iter().any(|item| passes(test, item)),
        (TestKind::Compare(Cmp::Eq, literal), value) => equal(value, &literal.kind),
        (TestKind::Compare(Cmp::Ne, literal), value) => !equal(value, &literal.kind),
        (TestKind::In(literals), value) => literals.iter().any(|l| equal(value, &l.kind)),
        (TestKind::NotIn(literals), value) => !literals.iter().any(|l| equal(value, &l.kind)),
        (TestKind::Compare(cmp, literal), value) => {
            order(value, &literal.kind).is_some_and(|ordering| match cmp {
                Cmp::Lt => ordering == Ordering::Less,
                Cmp::Le => ordering != Ordering::Greater,
                Cmp::Gt => ordering == Ordering::Greater,
                _ => ordering != Ordering::Less,
            })
        }
        (TestKind::Contains(part), value) => text(value).is_some_and(|t| t.contains(&**part)),
        (TestKind::StartsWith(part), value) => text(value).is_some_and(|t| t.starts_with(&**part)),
        (TestKind::EndsWith(part), value) => text(value).is_some_and(|t| t.ends_with(&**part)),
        (TestKind::Matches(regex), value) => {
            text(value).is_some_and(|t| regex::Regex::new(regex).unwrap().is_match(&t))
        }
    }
}

fn text(value: &Value) -> Option<String> {
    match value {
        Value::String(text) => Some(text.to_string()),
        Value::Bool(value) => Some(value.to_string()),
        Value::Number(number) => Some(Plain::read_json(number.as_str()).text()),
        _ => None,
    }
}

fn number(value: &Value) -> Option<Plain> {
    match value {
        Value::Number(number) => Some(Plain::read_json(number.as_str())),
        Value::String(text) => Plain::read(text),
        _ => None,
    }
}

fn equal(value: &Value, literal: &LiteralKind) -> bool {
    match literal {
        LiteralKind::Bool(wanted) => match value {
            Value::Bool(value) => value == wanted,
            Value::String(text) => **text == wanted.to_string(),
            _ => false,
        },
        LiteralKind::String(wanted) => text(value).is_some_and(|text| text == **wanted),
        LiteralKind::Number(_) => order(value, literal) == Some(Ordering::Equal),
    }
}

fn order(value: &Value, literal: &LiteralKind) -> Option<Ordering> {
    match literal {
        LiteralKind::Number(limit) => {
            let limit = Plain::read(&limit.to_string()).unwrap();
            number(value).map(|number| number.compare(&limit))
        }
        LiteralKind::String(limit) => text(value).map(|text| text.as_bytes().cmp(limit.as_bytes())),
        LiteralKind::Bool(_) => None,
    }
}
