//! Sizes and periods as people write them: `256MiB`, `90d`, `60s`.

use serde::de::{Error, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use std::fmt;
use std::str::FromStr;

use crate::model::Millis;
use crate::model::time::{DAY, HOUR, MINUTE, SECOND};

/// A number of bytes, written `512KiB`, `256MiB`, `2GiB` or as a plain number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

/// A length of time in milliseconds, written `90d`, `12h`, `5m`, `60s` or `200ms`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Period(pub Millis);

/// A size or period that cannot be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected {0}")]
pub struct InvalidUnit(&'static str);

const SIZES: [(&str, u64); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];
const PERIODS: [(&str, Millis); 6] =
    [("ms", 1), ("w", 7 * DAY), ("d", DAY), ("h", HOUR), ("m", MINUTE), ("s", SECOND)];

impl ByteSize {
    const EXPECTED: &str = "a size such as 512KiB, 256MiB or 2GiB";
}

impl FromStr for ByteSize {
    type Err = InvalidUnit;

    fn from_str(text: &str) -> Result<Self, InvalidUnit> {
        let expected = InvalidUnit(Self::EXPECTED);
        let (digits, unit) = SIZES
            .iter()
            .find_map(|(suffix, unit)| Some((text.strip_suffix(suffix)?, *unit)))
            .unwrap_or((text, 1));
        let count: u64 = digits.trim_end().parse().map_err(|_| expected)?;
        count.checked_mul(unit).map(Self).ok_or(expected)
    }
}

impl FromStr for Period {
    type Err = InvalidUnit;

    fn from_str(text: &str) -> Result<Self, InvalidUnit> {
        let expected = InvalidUnit("a period such as 90d, 12h, 5m, 60s or 200ms");
        let (digits, unit) = PERIODS
            .iter()
            .find_map(|(suffix, unit)| Some((text.strip_suffix(suffix)?, *unit)))
            .ok_or(expected)?;
        if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
            return Err(expected);
        }
        let count: Millis = digits.parse().map_err(|_| expected)?;
        count.checked_mul(unit).map(Self).ok_or(expected)
    }
}

/// The largest unit that divides the size.
impl fmt::Display for ByteSize {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (suffix, unit) = SIZES
            .iter()
            .find(|(_, unit)| self.0 >= *unit && self.0.is_multiple_of(*unit))
            .unwrap_or(&("B", 1));
        write!(f, "{}{suffix}", self.0 / unit)
    }
}

/// The largest unit below a week that divides the period.
impl fmt::Display for Period {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (suffix, unit) = [("d", DAY), ("h", HOUR), ("m", MINUTE), ("s", SECOND)]
            .into_iter()
            .find(|(_, unit)| self.0 >= *unit && self.0 % unit == 0)
            .unwrap_or(("ms", 1));
        write!(f, "{}{suffix}", self.0 / unit)
    }
}

impl Period {
    /// The same length for timers.
    pub fn to_duration(self) -> std::time::Duration {
        std::time::Duration::from_millis(self.0.unsigned_abs())
    }
}

impl Serialize for ByteSize {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl Serialize for Period {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// As text, or as a number of bytes.
impl<'de> Deserialize<'de> for ByteSize {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Size;

        impl Visitor<'_> for Size {
            type Value = ByteSize;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(ByteSize::EXPECTED)
            }

            fn visit_u64<E: Error>(self, count: u64) -> Result<ByteSize, E> {
                Ok(ByteSize(count))
            }

            fn visit_i64<E: Error>(self, count: i64) -> Result<ByteSize, E> {
                u64::try_from(count)
                    .map(ByteSize)
                    .map_err(|_| E::custom(InvalidUnit(ByteSize::EXPECTED)))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<ByteSize, E> {
                text.parse().map_err(E::custom)
            }
        }

        deserializer.deserialize_any(Size)
    }
}

impl<'de> Deserialize<'de> for Period {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = std::borrow::Cow::<'_, str>::deserialize(deserializer)?;
        text.parse().map_err(Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_periods_read_and_print() {
        for text in ["256MiB", "2GiB", "1KiB", "3B"] {
            assert_eq!(text.parse::<ByteSize>().unwrap().to_string(), text);
        }
        for text in ["90d", "12h", "5m", "60s", "200ms"] {
            let period: Period = text.parse().unwrap();
            assert_eq!(period.to_string().parse::<Period>(), Ok(period), "{text}");
        }
        for wrong in ["", "d", "-1d", "1.5d", "1y", "99999999999999999999d"] {
            assert!(wrong.parse::<Period>().is_err(), "{wrong}");
        }
        assert!("12XB".parse::<ByteSize>().is_err());
    }
}
