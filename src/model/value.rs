//! JSON values as they were sent: numbers keep their digits, objects their order.

use serde::de::{Deserialize, Deserializer, Error, MapAccess, SeqAccess, Visitor};
use std::fmt;

use super::decimal::Decimal;

/// One value of a property or attribute.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Value {
    /// `null`, which counts as missing in every test.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// A number with its digits as sent.
    Number(Number),
    /// A string.
    String(Box<str>),
    /// An array.
    Array(Vec<Value>),
    /// An object, in the order sent. Of a key that occurs twice the last value stands.
    Object(Vec<(Box<str>, Value)>),
}

/// A JSON number: its text as sent.
///
/// The text is a number of the JSON grammar; `serde_json` spells exponents `e+3`. One with more than [`Number::MAX_DIGITS`] digits, written
/// out without exponent, can be read (so that its event can be refused alone) but has no value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Number(Box<str>);

impl Number {
    /// How many digits a number may have, written out without exponent.
    pub const MAX_DIGITS: usize = 400;

    /// Takes a number of the JSON grammar; `None` where it is none or has too many digits.
    pub fn new(text: &str) -> Option<Self> {
        Decimal::from_json(text).map(|_| Self(text.into()))
    }

    /// The text as sent.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The exact value, or `None` of a number with too many digits.
    pub fn decimal(&self) -> Option<Decimal> {
        Decimal::from_json(&self.0)
    }
}

impl Value {
    /// A string value.
    pub fn string(text: impl Into<Box<str>>) -> Self {
        Self::String(text.into())
    }

    /// The value under a literal key of an object.
    pub fn get(&self, key: &str) -> Option<&Value> {
        match self {
            Self::Object(fields) => get(fields, key),
            _ => None,
        }
    }

    /// Appends the value as compact JSON, numbers with their digits as sent.
    pub fn write_json(&self, out: &mut String) {
        match self {
            Self::Null => out.push_str("null"),
            Self::Bool(true) => out.push_str("true"),
            Self::Bool(false) => out.push_str("false"),
            Self::Number(number) => out.push_str(number.as_str()),
            Self::String(text) => write_json_string(text, out),
            Self::Array(items) => {
                out.push('[');
                for (i, item) in items.iter().enumerate() {
                    if i > 0 {
                        out.push(',');
                    }
                    item.write_json(out);
                }
                out.push(']');
            }
            Self::Object(fields) => write_json_object(fields, out),
        }
    }
}

/// The value under a literal key of a list of fields.
pub fn get<'a>(fields: &'a [(Box<str>, Value)], key: &str) -> Option<&'a Value> {
    fields.iter().find(|(name, _)| &**name == key).map(|(_, value)| value)
}

/// Appends fields as a compact JSON object.
pub fn write_json_object(fields: &[(Box<str>, Value)], out: &mut String) {
    out.push('{');
    for (i, (key, value)) in fields.iter().enumerate() {
        if i > 0 {
            out.push(',');
        }
        write_json_string(key, out);
        out.push(':');
        value.write_json(out);
    }
    out.push('}');
}

/// Appends a text as a JSON string.
pub fn write_json_string(text: &str, out: &mut String) {
    out.push('"');
    let mut plain = 0;
    for (i, byte) in text.bytes().enumerate() {
        let escape = match byte {
            b'"' => "\\\"",
            b'\\' => "\\\\",
            b'\n' => "\\n",
            b'\r' => "\\r",
            b'\t' => "\\t",
            0..0x20 => "",
            _ => continue,
        };
        out.push_str(&text[plain..i]);
        out.push_str(escape);
        if escape.is_empty() {
            out.push_str("\\u00");
            out.push(char::from(b'0' + (byte >> 4)));
            out.push(char::from(b"0123456789abcdef"[usize::from(byte & 15)]));
        }
        plain = i + 1;
    }
    out.push_str(&text[plain..]);
    out.push('"');
}

/// Reads JSON text; what is refused says why. Depth is bounded by `serde_json` (128 levels).
pub fn parse_json(text: &[u8]) -> Result<Value, serde_json::Error> {
    serde_json::from_slice(text)
}

/// The key under which `serde_json` hands over a number with its digits.
const NUMBER_TOKEN: &str = "$serde_json::private::Number";

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(Number(value.to_string().into())))
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(Number(value.to_string().into())))
    }

    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Ok(Value::String(value.into()))
    }

    fn visit_string<E: Error>(self, value: String) -> Result<Value, E> {
        Ok(Value::String(value.into()))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element()? {
            items.push(item);
        }
        Ok(Value::Array(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut fields: Vec<(Box<str>, Value)> = Vec::new();
        while let Some(key) = map.next_key::<String>()? {
            if key == NUMBER_TOKEN && fields.is_empty() {
                let digits: String = map.next_value()?;
                // An object that a sender wrote with this very key is taken for the number it holds.
                return if digits.bytes().all(|b| b.is_ascii_digit() || b"+-.eE".contains(&b)) {
                    Ok(Value::Number(Number(digits.into())))
                } else {
                    Err(A::Error::custom("expected a number"))
                };
            }
            let value = map.next_value()?;
            fields.push((key.into(), value));
        }
        Ok(Value::Object(last_of_each(fields)))
    }
}

/// Keeps the last value of each key, at the place of its first.
fn last_of_each(fields: Vec<(Box<str>, Value)>) -> Vec<(Box<str>, Value)> {
    // A handful of fields is compared pairwise; a wide object goes through an ordered map, since
    // an attacker chooses the keys.
    if fields.len() <= 16 {
        let mut kept: Vec<(Box<str>, Value)> = Vec::with_capacity(fields.len());
        for (key, value) in fields {
            match kept.iter_mut().find(|(name, _)| *name == key) {
                Some(slot) => slot.1 = value,
                None => kept.push((key, value)),
            }
        }
        return kept;
    }
    let mut places = std::collections::BTreeMap::new();
    let mut kept: Vec<(Box<str>, Value)> = Vec::with_capacity(fields.len());
    for (key, value) in fields {
        match places.get(&key) {
            Some(&place) => {
                let slot: &mut (Box<str>, Value) = &mut kept[place];
                slot.1 = value;
            }
            None => {
                places.insert(key.clone(), kept.len());
                kept.push((key, value));
            }
        }
    }
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_keep_their_digits() {
        let text = r#"{"a":9007199254740993,"b":12.50,"c":[1e+3,-0,1e-7],"d":null,"e":{"f":"é"}}"#;
        let value = parse_json(text.as_bytes()).unwrap();
        let mut out = String::new();
        value.write_json(&mut out);
        assert_eq!(out, text);
    }

    #[test]
    fn the_last_of_a_doubled_key_stands() {
        let value = parse_json(br#"{"a":1,"b":2,"a":3}"#).unwrap();
        assert_eq!(value.get("a"), Some(&Value::Number(Number::new("3").unwrap())));
    }

    #[test]
    fn a_number_beyond_four_hundred_digits_has_no_value() {
        for (text, is_one) in
            [("1e400", false), ("1e399", true), ("1e-401", false), ("0e999", true)]
        {
            let Value::Number(number) = parse_json(text.as_bytes()).unwrap() else { panic!() };
            assert_eq!(number.decimal().is_some(), is_one, "{text}");
        }
    }
}
