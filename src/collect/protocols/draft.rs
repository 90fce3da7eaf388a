//! A canonical event in the making, and how the objects of other protocols are read.
//!
//! Addresses and numbers of persons are identifiers, of which only hashes are kept: [`Draft::contact`] takes them out
//! of what would be stored as it was sent, and what is written is without them at any depth.

use std::collections::HashMap;
use std::collections::HashSet;

use crate::collect::query::decode;
use crate::collect::query::pairs;
use crate::ingest::canonical::Code;
use crate::ingest::canonical::Rejection;
use crate::ingest::canonical::Sent;
use crate::model::Value;
use crate::model::value::Number;
use crate::model::value::get;

/// What an object holds, in its order.
pub(super) type Fields = Vec<(Box<str>, Value)>;

/// The keys under which persons are named by what only hashes are kept of.
const CONTACTS: [&str; 2] = ["email", "phone"];
/// What else clients call the same, in lower case and without marks.
const CONTACTS_SPELLED: [&str; 8] = [
    "email",
    "emails",
    "emailaddress",
    "emailaddresses",
    "phone",
    "phones",
    "phonenumber",
    "phonenumbers",
];

/// Reads an object of another protocol, of which anything may be missing or of another type.
#[derive(Debug, Clone, Copy)]
pub(super) struct Object<'a>(pub(super) &'a [(Box<str>, Value)]);

impl<'a> Object<'a> {
    /// A value, `null` being absent.
    pub(super) fn value(self, key: &str) -> Option<&'a Value> {
        get(self.0, key).filter(|value| **value != Value::Null)
    }

    /// A string that is not empty.
    pub(super) fn text(self, key: &str) -> Option<&'a str> {
        match self.value(key)? {
            Value::String(text) if !text.is_empty() => Some(text),
            _ => None,
        }
    }

    /// A string that is not empty, or a number's digits: what names something.
    pub(super) fn name(self, key: &str) -> Option<&'a str> {
        match self.value(key)? {
            Value::Number(number) => Some(number.as_str()),
            _ => self.text(key),
        }
    }

    /// An object, without anything in it where there is none.
    pub(super) fn object(self, key: &str) -> Self {
        match self.value(key) {
            Some(Value::Object(fields)) => Object(fields),
            _ => Object(&[]),
        }
    }
}

/// Takes an object out of another; what is there must be one.
pub(super) fn take_object(fields: &mut Fields, key: &str) -> Result<Fields, Rejection> {
    let Some(at) = fields.iter().position(|(name, _)| &**name == key) else {
        return Ok(Vec::new());
    };
    match std::mem::replace(&mut fields[at].1, Value::Null) {
        Value::Object(taken) => Ok(taken),
        Value::Null => Ok(Vec::new()),
        _ => Err(Rejection::new(Code::Props, format!("{key}: expected an object"))),
    }
}

/// The parameters of a query, still encoded, as an object of texts. Of a doubled one the last stands.
pub(super) fn from_query(query: &str) -> Fields {
    let mut fields = Fields::new();
    let mut places = HashMap::new();
    for (key, value) in pairs(query) {
        let key: Box<str> = decode(key).into();
        let value = Value::string(decode(value));
        match places.get(&key) {
            Some(place) => {
                let slot: &mut (Box<str>, Value) = &mut fields[*place];
                slot.1 = value;
            }
            None => {
                places.insert(key.clone(), fields.len());
                fields.push((key, value));
            }
        }
    }
    fields
}

/// The number that a text is, or else the text.
pub(super) fn number(text: &str) -> Value {
    Number::new(text).map_or_else(|| Value::string(text), Value::Number)
}

/// A canonical event, as far as it is written.
#[derive(Debug, Default)]
pub(super) struct Draft {
    fields: Fields,
    ids: Fields,
    props: Fields,
    attrs: Fields,
    page: Fields,
    device: Fields,
    shared_consent: Vec<Value>,
    fault: Option<Rejection>,
}

impl Draft {
    /// Begins an event of a site, whose name is set next.
    pub(super) fn new(site: &str) -> Self {
        let mut draft = Self::default();
        draft.set("site", site);
        draft
    }

    /// Writes a key of the event itself, where there is a value.
    pub(super) fn set<'a>(&mut self, key: &str, value: impl Into<Option<&'a str>>) {
        push(&mut self.fields, key, value.into());
    }

    /// Writes a value of any type under a key of the event itself.
    pub(super) fn set_value(&mut self, key: &str, value: Option<Value>) {
        self.fields.extend(value.map(|value| (key.into(), value)));
    }

    /// Writes a value under a key of the event itself, in the place of one that is there.
    pub(super) fn replace(&mut self, key: &str, value: Value) {
        self.fields.retain(|(name, _)| &**name != key);
        self.set_value(key, Some(value));
    }

    /// Writes an identifier, where there is one; one of the same namespace may be there already.
    pub(super) fn id<'a>(&mut self, namespace: &str, value: impl Into<Option<&'a str>>) {
        push(&mut self.ids, namespace, value.into());
    }

    /// Writes an identifier that is a person's address or number, where an object names one.
    pub(super) fn contact(&mut self, object: Object<'_>) {
        for namespace in CONTACTS {
            if self.ids.iter().all(|(known, _)| &**known != namespace) {
                self.id(namespace, object.name(namespace));
            }
        }
    }

    /// Writes properties as sent, but for addresses and numbers of persons, wherever in them. What is there already
    /// stands.
    pub(super) fn props(&mut self, fields: Fields) {
        add(&mut self.props, fields);
    }

    /// Writes a property, where there is a value and none of the name is there yet.
    pub(super) fn prop<'a>(&mut self, name: &str, value: impl Into<Option<&'a str>>) {
        self.prop_value(name, value.into().map(Value::string));
    }

    /// Writes a property of any type, where there is a value and none of the name is there yet.
    pub(super) fn prop_value(&mut self, name: &str, value: Option<Value>) {
        add(&mut self.props, value.map(|value| (name.into(), value)));
    }

    /// Writes attributes as [`Draft::props`] does properties.
    pub(super) fn attrs(&mut self, fields: Fields) {
        add(&mut self.attrs, fields);
    }

    /// Writes a part of the page, where there is one.
    pub(super) fn page<'a>(&mut self, part: &str, value: impl Into<Option<&'a str>>) {
        push(&mut self.page, part, value.into());
    }

    /// Writes a part of the device, where there is one.
    pub(super) fn device<'a>(&mut self, part: &str, value: impl Into<Option<&'a str>>) {
        push(&mut self.device, part, value.into());
    }

    /// Writes what is said of consent in several places, the event's own first: what any of them refuses is refused.
    pub(super) fn consent(&mut self, said: impl IntoIterator<Item = Value>) {
        let mut all: Vec<Value> = Vec::new();
        for said in said {
            if !all.contains(&said) {
                all.push(said);
            }
        }
        let mut all = all.into_iter();
        self.set_value("consent", all.next());
        self.shared_consent = all.collect();
    }

    /// Takes what could be mapped; of what could not, the first is why the event is not taken.
    pub(super) fn mapped<T: Default>(&mut self, part: Result<T, Rejection>) -> T {
        part.unwrap_or_else(|fault| {
            self.fault.get_or_insert(fault);
            T::default()
        })
    }

    /// The event.
    pub(super) fn finish(mut self) -> Sent {
        for (key, fields) in [
            ("ids", self.ids),
            ("props", self.props),
            ("attrs", self.attrs),
            ("page", self.page),
            ("device", self.device),
        ] {
            if !fields.is_empty() {
                self.fields.push((key.into(), Value::Object(fields)));
            }
        }
        Sent::of(self.fields).with_shared_consent(self.shared_consent).with_fault(self.fault)
    }
}

/// What an object says of consent under the keys of a canonical event: what consent managers write beside them is theirs.
pub(super) fn consent(said: Object<'_>) -> Option<Value> {
    let keys = ["gdpr", "tcf", "gpp", "gpp_sid", "us_privacy", "withdrawn"];
    let said: Fields = said.0.iter().filter(|(key, _)| keys.contains(&&**key)).cloned().collect();
    (!said.is_empty()).then_some(Value::Object(said))
}

fn push(fields: &mut Fields, key: &str, value: Option<&str>) {
    fields.extend(value.map(|value| (key.into(), Value::string(value))));
}

/// Takes what names persons out of an object, at any depth.
fn strip(fields: &mut Fields) {
    fields.retain(|(name, value)| !is_contact(name, value));
    fields.iter_mut().for_each(|(_, value)| strip_value(value));
}

/// The same of a value. The depth is bounded by the JSON reader.
fn strip_value(value: &mut Value) {
    match value {
        Value::Object(fields) => strip(fields),
        Value::Array(items) => items.iter_mut().for_each(strip_value),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// Whether a key says that its value is a person's address or number. That somebody wants mail is none.
fn is_contact(name: &str, value: &Value) -> bool {
    // Some clients write the way to a value.
    let name = name.rsplit('.').next().unwrap_or(name);
    if CONTACTS.contains(&name) {
        return !matches!(value, Value::Bool(_));
    }
    // Nearly every name is told by how it begins.
    let begins = |word: &str| {
        let name = name.as_bytes();
        name.len() >= word.len() && name[..word.len()].eq_ignore_ascii_case(word.as_bytes())
    };
    if name.len() > 32 || !(begins("e") || begins("phone")) || matches!(value, Value::Bool(_)) {
        return false;
    }
    let plain = name.chars().filter(|c| !matches!(c, '_' | '-' | ' '));
    let plain: String = plain.map(|c| c.to_ascii_lowercase()).collect();
    CONTACTS_SPELLED.contains(&&*plain)
}

fn add(to: &mut Fields, fields: impl IntoIterator<Item = (Box<str>, Value)>) {
    // A set, not a comparison with each: what an attacker sends is wide.
    let known: HashSet<Box<str>> = to.iter().map(|(name, _)| name.clone()).collect();
    let is_new =
        |(name, value): &(Box<str>, Value)| !is_contact(name, value) && !known.contains(name);
    to.extend(fields.into_iter().filter(is_new).map(|(name, mut value)| {
        strip_value(&mut value);
        (name, value)
    }));
}
