//! A canonical event's JSON, key by key: what is there, of which type, and what it becomes.

use super::Agents;
use super::Arrival;
use super::Code;
use super::DropReason;
use super::Dropped;
use super::Ids;
use super::MAX_EVENT;
use super::MAX_FIELDS;
use super::Rejection;
use super::event_name;
use super::json;
use super::message_id;
use super::time;
use crate::consent::Sections;
use crate::consent::Signals;
use crate::consent::is_sale_opt_out;
use crate::model::Device;
use crate::model::Event;
use crate::model::Identifier;
use crate::model::Millis;
use crate::model::Page;
use crate::model::Value;
use crate::model::value::get;

/// One event as its sender wrote it. Unknown keys are ignored.
pub struct Sent {
    fields: Vec<(Box<str>, Value)>,
    /// What was said of consent for it and its neighbours, beside what it says itself.
    shared_consent: Vec<Value>,
    /// What of it could not be mapped.
    fault: Option<Rejection>,
}

/// Why bytes are no event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unreadable {
    /// They are not JSON, so that what lies around them is in doubt too.
    NotJson(String),
    /// They are JSON, and can be set aside alone.
    Rejected(Rejection),
}

impl Unreadable {
    /// The rejection of this event alone.
    pub fn into_rejection(self) -> Rejection {
        match self {
            Self::NotJson(message) => Rejection::new(Code::Props, message),
            Self::Rejected(rejection) => rejection,
        }
    }
}

/// Reads the JSON object of one event, whatever protocol it is of: at most 32 KiB.
pub fn object(text: &[u8]) -> Result<Vec<(Box<str>, Value)>, Unreadable> {
    match value(text)? {
        Value::Object(fields) => Ok(fields),
        _ => {
            let rejection = Rejection::new(Code::Site, "expected a JSON object");
            Err(Unreadable::Rejected(rejection))
        }
    }
}

/// Reads the JSON that one event stands in, whatever it is: at most 32 KiB.
pub fn value(text: &[u8]) -> Result<Value, Unreadable> {
    if text.len() > MAX_EVENT {
        let rejection = Rejection::new(Code::Size, "an event is at most 32 KiB");
        return Err(Unreadable::Rejected(rejection));
    }
    readable(text)
}

/// The same of JSON that several events share, of any size.
pub fn readable(text: &[u8]) -> Result<Value, Unreadable> {
    match json::read(text) {
        Ok(value) => Ok(value),
        Err(error) => {
            let message = format!("not JSON: {error}");
            // Well-formed text that cannot be taken: half an emoji, bytes of another charset, 128
            // levels. A browser writes the first by itself, and must not lose its neighbours.
            let alone = ["hex escape", "unicode code point", "recursion limit"];
            if alone.iter().any(|part| message.contains(part)) {
                Err(Unreadable::Rejected(Rejection::new(Code::Props, message)))
            } else {
                Err(Unreadable::NotJson(message))
            }
        }
    }
}

impl Sent {
    /// Reads one event's JSON.
    pub fn parse(json: &[u8]) -> Result<Self, Unreadable> {
        object(json).map(Self::of)
    }

    /// Takes an event by its keys, as another protocol's mapping writes them.
    pub fn of(fields: Vec<(Box<str>, Value)>) -> Self {
        Self { fields, shared_consent: Vec::new(), fault: None }
    }

    /// The event, of which more is said of consent than it says itself, such as together with its neighbours.
    #[must_use]
    pub fn with_shared_consent(mut self, said: Vec<Value>) -> Self {
        self.shared_consent = said;
        self
    }

    /// The event as far as it could be mapped: it is never taken, but what its visitor refuses by it is refused.
    #[must_use]
    pub fn with_fault(mut self, fault: Option<Rejection>) -> Self {
        self.fault = fault;
        self
    }

    /// Why it cannot be taken, where its mapping said so.
    #[cfg(test)]
    pub fn fault(&self) -> Option<&Rejection> {
        self.fault.as_ref()
    }

    /// The keys with their values.
    pub fn fields(&self) -> &[(Box<str>, Value)] {
        &self.fields
    }

    /// A key's value, `null` being absent.
    fn field(&self, key: &str) -> Option<&Value> {
        get(&self.fields, key).filter(|value| **value != Value::Null)
    }

    fn take(&mut self, key: &str) -> Option<Value> {
        let field = self.fields.iter_mut().find(|(name, _)| &**name == key)?;
        Some(std::mem::replace(&mut field.1, Value::Null)).filter(|value| *value != Value::Null)
    }

    /// The site's key.
    pub fn site(&self) -> Result<&str, Rejection> {
        match self.field("site") {
            Some(Value::String(site)) => Ok(site),
            Some(_) => Err(Rejection::new(Code::Site, "site: expected a string")),
            None => Err(Rejection::new(Code::Site, "site: expected a site's key")),
        }
    }

    /// What the event says about consent.
    pub fn consent(&self) -> Result<Signals<'_>, Rejection> {
        signals(self.field("consent"))
    }

    /// What else is said of consent for the event: what any of it refuses is refused.
    pub fn shared_consent(&self) -> Result<Vec<Signals<'_>>, Rejection> {
        self.shared_consent.iter().map(|said| signals(Some(said))).collect()
    }

    /// The event, or the first rule it breaks in the order of [`Code`].
    ///
    /// `mint` makes the browser's new cookie where the event has no identifier.
    pub fn into_event(
        mut self,
        arrival: &Arrival<'_>,
        agents: &mut Agents,
        mint: &mut dyn FnMut() -> Option<Identifier>,
        dropped: &mut Dropped,
    ) -> Result<Event, Rejection> {
        if let Some(fault) = self.fault {
            return Err(fault);
        }
        let site = self.site()?.into();
        let name = match self.field("event") {
            Some(Value::String(name)) => event_name(name)?.into(),
            Some(_) => return Err(Rejection::new(Code::EventName, "event: expected a string")),
            None => return Err(Rejection::new(Code::EventName, "event: expected a name")),
        };
        let (time, time_replaced) =
            arrival.window.place(self.time("time")?, self.time("sentAt")?, arrival.received);
        let message_id = match self.field("message_id") {
            None => None,
            Some(Value::String(id)) => Some(message_id(id)?.into()),
            Some(_) => return Err(Rejection::new(Code::Ids, "message_id: expected a string")),
        };
        let ids = self.ids(arrival.phone_country)?.finish(arrival, mint, dropped)?;
        let props = self.named_values("props")?;
        let attrs = self.named_values("attrs")?;
        let page = Page {
            url: self.text_in("page", "url")?,
            referrer: self.text_in("page", "referrer")?,
            title: self.text_in("page", "title")?,
        };
        let country = self.text_in("geo", "country")?.or_else(|| arrival.country.map(Into::into));
        let locale = self.text("locale")?.or_else(|| arrival.locale.map(Into::into));
        let user_agent = self.text("user_agent")?;
        let agent = user_agent.as_deref().or(arrival.user_agent).map(|text| agents.judge(text));
        let agent = agent.unwrap_or_default();
        let device = Device {
            kind: self.text_in("device", "kind")?.or_else(|| agent.kind.map(Into::into)),
            os: self.text_in("device", "os")?.or_else(|| agent.os.map(Into::into)),
            browser: self.text_in("device", "browser")?.or_else(|| agent.browser.map(Into::into)),
        };
        Ok(Event {
            site,
            name,
            time,
            received: arrival.received,
            time_replaced,
            source: arrival.source,
            message_id,
            ids,
            props,
            attrs,
            page,
            device,
            bot: agent.bot,
            country,
            locale,
            consent: arrival.consent.clone(),
        })
    }

    fn time(&self, key: &str) -> Result<Option<Millis>, Rejection> {
        match self.field(key) {
            None => Ok(None),
            Some(Value::String(text)) => time::rfc3339(key, text).map(Some),
            Some(Value::Number(number)) => {
                time::millis(number.as_str()).map(Some).ok_or_else(|| time::malformed(key))
            }
            Some(_) => Err(time::malformed(key)),
        }
    }

    fn ids(&self, phone_country: Option<&str>) -> Result<Ids, Rejection> {
        let mut ids = Ids::default();
        match self.field("ids") {
            None => {}
            Some(Value::Object(sent)) => {
                for (namespace, value) in sent {
                    match value {
                        Value::Null => {}
                        Value::String(value) => ids.add(namespace, value, phone_country),
                        _ => ids.drop_one(DropReason::Value),
                    }
                }
            }
            Some(_) => {
                let message = "ids: expected an object of strings";
                return Err(Rejection::new(Code::Ids, message));
            }
        }
        Ok(ids)
    }

    /// The values under `props` or `attrs`, every number with a value.
    fn named_values(&mut self, key: &str) -> Result<Vec<(Box<str>, Value)>, Rejection> {
        let fields = match self.take(key) {
            None => return Ok(Vec::new()),
            Some(Value::Object(fields)) => fields,
            Some(_) => return Err(wrong_type(key, "an object")),
        };
        if fields.len() > MAX_FIELDS {
            let message = format!("{key}: expected at most {MAX_FIELDS} keys");
            return Err(Rejection::new(Code::Size, message));
        }
        if let Some((name, _)) = fields.iter().find(|(_, value)| !numbers_have_values(value)) {
            let name: String = name.chars().take(64).collect();
            let message = format!("{key}.{name}: a number has more than 400 digits written out");
            return Err(Rejection::new(Code::Props, message));
        }
        Ok(fields)
    }

    fn text(&mut self, key: &str) -> Result<Option<Box<str>>, Rejection> {
        match self.take(key) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(wrong_type(key, "a string")),
        }
    }

    fn text_in(&self, object: &str, key: &str) -> Result<Option<Box<str>>, Rejection> {
        match self.field(object) {
            None => Ok(None),
            Some(Value::Object(fields)) => match get(fields, key) {
                None | Some(Value::Null) => Ok(None),
                Some(Value::String(text)) => Ok(Some(text.clone())),
                Some(_) => Err(wrong_type(&format!("{object}.{key}"), "a string")),
            },
            Some(_) => Err(wrong_type(object, "an object")),
        }
    }
}

/// What an object says of consent.
fn signals(said: Option<&Value>) -> Result<Signals<'_>, Rejection> {
    let wrong = |message: &str| Rejection::new(Code::Consent, message);
    let fields = match said {
        None => return Ok(Signals::default()),
        Some(Value::Object(fields)) => fields,
        Some(_) => return Err(wrong("consent: expected an object")),
    };
    let text = |key: &str| match get(fields, key) {
        None | Some(Value::Null) => Ok(""),
        Some(Value::String(text)) => Ok(&**text),
        Some(_) => Err(wrong(&format!("consent.{key}: expected a string"))),
    };
    let gdpr = match get(fields, "gdpr") {
        None | Some(Value::Null) => None,
        Some(Value::Bool(applies)) => Some(*applies),
        Some(Value::Number(number)) => Some(number.as_str() != "0"),
        Some(Value::String(text)) if text.is_empty() => None,
        Some(Value::String(text)) => Some(&**text != "0"),
        Some(_) => return Err(wrong("consent.gdpr: expected 0 or 1")),
    };
    let sections = match get(fields, "gpp_sid") {
        None | Some(Value::Null) => Sections::default(),
        Some(Value::String(ids)) => Sections::parse(ids),
        Some(Value::Number(id)) => Sections::parse(id.as_str()),
        Some(Value::Array(ids)) => {
            let mut sections = Sections::default();
            for id in ids {
                sections.add(match id {
                    Value::Number(id) => id.as_str().parse().ok(),
                    Value::String(id) => id.parse().ok(),
                    _ => None,
                });
            }
            sections
        }
        Some(_) => return Err(wrong("consent.gpp_sid: expected an array of numbers")),
    };
    Ok(Signals {
        gdpr,
        tcf: text("tcf")?.into(),
        gpp: text("gpp")?.into(),
        sections,
        sale_opt_out: is_sale_opt_out(text("us_privacy")?),
        withdrawn: match get(fields, "withdrawn") {
            None | Some(Value::Null) => false,
            Some(Value::Bool(withdrawn)) => *withdrawn,
            Some(_) => return Err(wrong("consent.withdrawn: expected true or false")),
        },
    })
}

fn wrong_type(key: &str, expected: &str) -> Rejection {
    Rejection::new(Code::Props, format!("{key}: expected {expected}"))
}

/// Whether every number in a value has at most 400 digits. The depth is bounded by the JSON reader.
fn numbers_have_values(value: &Value) -> bool {
    match value {
        Value::Number(number) => {
            let text = number.as_str().as_bytes();
            let plain = text.len() < 32 && text.iter().all(u8::is_ascii_digit);
            // The quick way for what nearly every number is; it must not let a malformed one through.
            (plain && matches!(text, [b'1'..=b'9', ..])) || number.decimal().is_some()
        }
        Value::Array(items) => items.iter().all(numbers_have_values),
        Value::Object(fields) => fields.iter().all(|(_, value)| numbers_have_values(value)),
        Value::Null | Value::Bool(_) | Value::String(_) => true,
    }
}
