//! Features: what a profile has or has not, and what learning goes by.

use std::fmt;

use serde::Deserialize;
use serde::Serialize;

use crate::model::Decimal;
use crate::model::Measure;
use crate::model::Value;
use crate::model::value::write_json_string;

/// A name or a value of an attribute that has more bytes is no feature.
const LONGEST: usize = 128;

/// What a profile has or has not.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Feature {
    /// An event that is retained and that the trait of this text takes.
    Did(String),
    /// An attribute with this value, or with an array that holds it.
    Value {
        /// The attribute.
        attribute: String,
        /// The value.
        value: Plain,
    },
    /// An attribute that is a number, at least `from` and less than `to`, in ten-thousandths.
    Number {
        /// The attribute.
        attribute: String,
        /// No bound where `None`.
        from: Option<i64>,
        /// No bound where `None`.
        to: Option<i64>,
    },
}

/// A value that is compared as it is.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Plain {
    /// `true` or `false`.
    Bool(bool),
    /// A text.
    Text(String),
}

impl Feature {
    /// Whether a number, in ten-thousandths, lies within its bounds.
    pub(super) fn holds(&self, number: i64) -> bool {
        let Self::Number { from, to, .. } = self else { return false };
        from.is_none_or(|from| from <= number) && to.is_none_or(|to| number < to)
    }
}

impl fmt::Display for Feature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Did(text) => f.write_str(text),
            Self::Value { attribute, value: Plain::Bool(value) } => {
                write!(f, "profile.{attribute} = {value}")
            }
            Self::Value { attribute, value: Plain::Text(value) } => {
                let mut text = String::new();
                write_json_string(value, &mut text);
                write!(f, "profile.{attribute} = {text}")
            }
            Self::Number { attribute, from, to } => match (from, to) {
                (Some(from), Some(to)) => {
                    write!(f, "profile.{attribute} >= {} and < {}", Units(*from), Units(*to))
                }
                (Some(from), None) => write!(f, "profile.{attribute} >= {}", Units(*from)),
                (None, Some(to)) => write!(f, "profile.{attribute} < {}", Units(*to)),
                (None, None) => write!(f, "profile.{attribute} is a number"),
            },
        }
    }
}

/// Ten-thousandths as a decimal number.
struct Units(i64);

impl fmt::Display for Units {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scale = Measure::SCALE.unsigned_abs();
        let (whole, rest) = (self.0.unsigned_abs() / scale, self.0.unsigned_abs() % scale);
        let sign = if self.0 < 0 { "-" } else { "" };
        let rest = format!("{rest:04}");
        match rest.trim_end_matches('0') {
            "" => write!(f, "{sign}{whole}"),
            rest => write!(f, "{sign}{whole}.{rest}"),
        }
    }
}

/// Whether an attribute of this name can be one.
pub(super) fn is_name(name: &str) -> bool {
    name.len() <= LONGEST
}

/// The values that a value is compared as, each once.
pub(super) fn plain(value: &Value) -> Vec<Plain> {
    let one = |value: &Value| match value {
        Value::Bool(value) => Some(Plain::Bool(*value)),
        Value::String(text) if text.len() <= LONGEST => Some(Plain::Text(text.to_string())),
        _ => None,
    };
    let mut all: Vec<Plain> = match value {
        Value::Array(values) => values.iter().filter_map(one).collect(),
        value => one(value).into_iter().collect(),
    };
    all.sort_unstable();
    all.dedup();
    all
}

/// A number in ten-thousandths, rounded half to even.
pub(super) fn number(value: &Value) -> Option<i64> {
    let Value::Number(number) = value else { return None };
    number.decimal().as_ref().and_then(Decimal::to_measure).map(|measure| measure.0)
}
