//! Shapes that several calls have in common: what a parameter may be, and how that is documented.

use schemars::JsonSchema;
use schemars::Schema;
use schemars::SchemaGenerator;
use schemars::json_schema;
use serde::Deserialize;
use serde::Deserializer;
use serde::de::Error;
use std::borrow::Cow;

/// How many of a list: 1 to 1,000.
#[derive(Debug, Clone, Copy)]
pub(in crate::console) struct Limit(pub(in crate::console) usize);

const MOST: usize = 1_000;

impl Default for Limit {
    fn default() -> Self {
        Self(100)
    }
}

impl<'de> Deserialize<'de> for Limit {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match usize::deserialize(deserializer) {
            Ok(limit @ 1..=MOST) => Ok(Self(limit)),
            _ => Err(D::Error::custom(format!("limit: expected a number from 1 to {MOST}"))),
        }
    }
}

impl JsonSchema for Limit {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Limit".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "integer", "minimum": 1, "maximum": MOST, "default": 100 })
    }
}

/// The schema of a namespace of identifiers.
pub(in crate::console) fn namespace(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "pattern": "^[a-z][a-z0-9_]{0,31}$", "example": "user_id" })
}

/// The schema of a name that may be left out.
pub(in crate::console) fn namespace_or_none(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": ["string", "null"], "pattern": "^[a-z][a-z0-9_]{0,31}$" })
}

/// The schema of an instant, as `segment::ask` reads it.
pub(in crate::console) fn instant(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "anyOf": [
            { "type": "string", "format": "date-time" },
            { "type": "string", "pattern": "^-[0-9]{1,6}[smhdw]$" },
        ],
    })
}

/// The schema of an instant that may be left out.
pub(in crate::console) fn instant_or_none(generator: &mut SchemaGenerator) -> Schema {
    let mut schema = instant(generator);
    if let Some(kinds) = schema.get_mut("anyOf").and_then(serde_json::Value::as_array_mut) {
        kinds.push(serde_json::json!({ "type": "null" }));
    }
    schema
}

/// The schema of a time that may be left out.
pub(in crate::console) fn time_or_none(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": ["string", "null"], "format": "date-time" })
}

/// The schema of an identifier's value: 1 to 256 bytes of UTF-8 without control characters, not all of them spaces.
pub(in crate::console) fn value(_: &mut SchemaGenerator) -> Schema {
    let plain = "[ -~]*[!-~][ -~]*";
    let pattern = format!("^{plain}$|^{}[^\\s{CONTROL}]{}$", some(31), some(32));
    json_schema!({ "type": "string", "pattern": pattern, "minLength": 1, "maxLength": 256 })
}

/// The schema of an import's name: 1 to 200 bytes of UTF-8 without control characters.
pub(in crate::console) fn import_name(_: &mut SchemaGenerator) -> Schema {
    let pattern = format!("^[ -~]*$|^{}$", some(50));
    json_schema!({ "type": "string", "pattern": pattern, "minLength": 1, "maxLength": 200 })
}

const CONTROL: &str = "\\u0000-\\u001f\\u007f-\\u009f";

/// Up to so many characters of any kind: lengths are counted in bytes, of which each may have four.
fn some(most: usize) -> String {
    format!("[^{CONTROL}]{{0,{most}}}")
}

/// The schema of the name of a token.
pub(in crate::console) fn token_name(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "pattern": "^[A-Za-z0-9._-]{1,64}$" })
}

/// Anything that JSON can say in braces.
#[derive(JsonSchema)]
#[schemars(transparent, inline)]
pub(in crate::console) struct Object(
    #[schemars(with = "std::collections::BTreeMap<String, serde_json::Value>")] (),
);

/// A problem document (RFC 9457).
#[derive(JsonSchema)]
#[schemars(rename = "Problem")]
#[expect(dead_code, reason = "it is the form that `problem` writes")]
pub(in crate::console) struct ProblemDocument {
    /// What kind of problem it is, in a few words.
    title: String,
    /// The status of the answer.
    status: u16,
    /// What is wrong with this request, and what to do.
    detail: String,
    /// What is wrong with a rule, for machines.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    diagnostics: Option<Vec<crate::segment::Told>>,
}
