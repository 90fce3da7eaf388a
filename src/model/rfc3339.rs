//! Times as RFC 3339 in serialized forms: `#[serde(with = "crate::model::rfc3339")]`, and `option` of it.

use serde::Deserialize;
use serde::Deserializer;
use serde::Serializer;
use serde::de::Error;

use super::time::Millis;
use super::time::format_rfc3339;
use super::time::parse_rfc3339;

/// Writes a time.
pub fn serialize<S: Serializer>(time: &Millis, to: S) -> Result<S::Ok, S::Error> {
    to.serialize_str(&format_rfc3339(*time))
}

/// Reads a time.
pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Millis, D::Error> {
    read(&String::deserialize(from)?)
}

fn read<E: Error>(text: &str) -> Result<Millis, E> {
    parse_rfc3339(text).ok_or_else(|| E::custom("expected an RFC 3339 time"))
}

/// The same of times that may be missing.
pub mod option {
    use serde::Deserialize;
    use serde::Deserializer;
    use serde::Serialize;
    use serde::Serializer;

    use crate::model::time::Millis;
    use crate::model::time::format_rfc3339;

    /// Writes a time, or null.
    pub fn serialize<S: Serializer>(time: &Option<Millis>, to: S) -> Result<S::Ok, S::Error> {
        time.map(format_rfc3339).serialize(to)
    }

    /// Reads a time, or null.
    pub fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Millis>, D::Error> {
        Option::<String>::deserialize(from)?.map(|text| super::read(&text)).transpose()
    }
}
