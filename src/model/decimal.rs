//! Exact decimal numbers: comparison without floats, and the fixed-point measures of rules.

use std::cmp::Ordering;
use std::fmt;

use super::value::Number;

/// An exact decimal number of at most [`Number::MAX_DIGITS`] digits.
///
/// Invariant: `digits` has neither leading nor trailing zeros and zero has none at all, so equal values
/// have equal representations; the value is `0.digits × 10^exponent`, negative where `negative`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Decimal {
    negative: bool,
    exponent: i32,
    digits: Box<[u8]>,
}

impl Decimal {
    /// Zero.
    pub fn zero() -> Self {
        Self { negative: false, exponent: 0, digits: Box::default() }
    }

    /// Reads a number of the JSON grammar; `None` where it is none, or has more than 400 digits
    /// written out.
    pub fn from_json(text: &str) -> Option<Self> {
        let (mantissa, exponent) = match text.find(['e', 'E']) {
            Some(at) => (&text[..at], Some(&text[at + 1..])),
            None => (text, None),
        };
        let exponent: i64 = match exponent {
            None => 0,
            Some(digits) => {
                let unsigned = digits.strip_prefix(['+', '-']).unwrap_or(digits);
                if unsigned.is_empty() || !unsigned.bytes().all(|b| b.is_ascii_digit()) {
                    return None;
                }
                // An exponent out of i64 is of zero, or far beyond what can be written out.
                let size: i64 = unsigned.parse().unwrap_or(i64::MAX / 4).min(i64::MAX / 4);
                if digits.starts_with('-') { -size } else { size }
            }
        };
        let unsigned = mantissa.strip_prefix('-').unwrap_or(mantissa);
        if unsigned.len() > 1 && unsigned.starts_with('0') && unsigned.as_bytes()[1] != b'.' {
            return None;
        }
        Self::parse(mantissa, exponent)
    }

    /// Reads a string that is wholly a decimal number: `-?digits[.digits]`, nothing else, of at most
    /// 400 digits.
    pub fn from_text(text: &str) -> Option<Self> {
        Self::parse(text, 0)
    }

    fn parse(mantissa: &str, exponent: i64) -> Option<Self> {
        let negative = mantissa.starts_with('-');
        let unsigned = mantissa.strip_prefix('-').unwrap_or(mantissa);
        let (whole, fraction) = match unsigned.split_once('.') {
            Some((_, "")) => return None,
            Some((whole, fraction)) => (whole, fraction),
            None => (unsigned, ""),
        };
        let is_digits = |part: &str| part.bytes().all(|b| b.is_ascii_digit());
        if whole.is_empty() || !is_digits(whole) || !is_digits(fraction) {
            return None;
        }
        // 0.digits × 10^point, before zeros are stripped from either end.
        let mut digits: Vec<u8> = whole.bytes().chain(fraction.bytes()).collect();
        let point = i64::try_from(whole.len()).ok()?.checked_add(exponent)?;
        let leading = digits.iter().take_while(|b| **b == b'0').count();
        digits.drain(..leading);
        while digits.last() == Some(&b'0') {
            digits.pop();
        }
        if digits.is_empty() {
            return Some(Self::zero());
        }
        let point = point.checked_sub(i64::try_from(leading).ok()?)?;
        let length = i64::try_from(digits.len()).ok()?;
        let written_out = if point <= 0 {
            // A zero before the point, then those after it.
            1i64.checked_add(length)?.checked_sub(point)?
        } else {
            point.max(length)
        };
        if written_out > i64::try_from(Number::MAX_DIGITS).ok()? {
            return None;
        }
        Some(Self { negative, exponent: i32::try_from(point).ok()?, digits: digits.into() })
    }

    /// The value rounded half to even to 4 places, in ten-thousandths; `None` beyond ±9·10¹⁴.
    pub fn to_measure(&self) -> Option<Measure> {
        // Digits left of the cut (4 places after the point) make the measure; the rest rounds it.
        let kept = i64::from(self.exponent) + 4;
        if kept > 19 {
            return None;
        }
        let kept = usize::try_from(kept.max(-1)).ok();
        let mut units: i128 = 0;
        let length = self.digits.len();
        let Some(kept) = kept else { return Some(Measure(0)) };
        for place in 0..kept {
            let digit = self.digits.get(place).map_or(0, |d| i128::from(d - b'0'));
            units = units * 10 + digit;
        }
        if kept < length {
            let half = self.digits[kept].cmp(&b'5').then(if kept + 1 < length {
                Ordering::Greater
            } else {
                Ordering::Equal
            });
            if half == Ordering::Greater || (half == Ordering::Equal && units % 2 == 1) {
                units += 1;
            }
        }
        if units > i128::from(Measure::MAX.0) {
            return None;
        }
        let units = i64::try_from(units).ok()?;
        Some(Measure(if self.negative { -units } else { units }))
    }
}

impl Ord for Decimal {
    fn cmp(&self, other: &Self) -> Ordering {
        let sign = |d: &Self| match (d.digits.is_empty(), d.negative) {
            (true, _) => 0,
            (false, true) => -1,
            (false, false) => 1,
        };
        match sign(self).cmp(&sign(other)) {
            Ordering::Equal => {
                let size =
                    self.exponent.cmp(&other.exponent).then_with(|| self.digits.cmp(&other.digits));
                if self.negative { size.reverse() } else { size }
            }
            unequal => unequal,
        }
    }
}

impl PartialOrd for Decimal {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

/// Plain decimal text: no exponent, no trailing zeros after the point (`12.50` → `12.5`).
impl fmt::Display for Decimal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.digits.is_empty() {
            return f.write_str("0");
        }
        let mut out = String::with_capacity(self.digits.len() + 4);
        if self.negative {
            out.push('-');
        }
        let digit = |place: usize| self.digits.get(place).map_or('0', |d| char::from(*d));
        match usize::try_from(self.exponent) {
            Ok(whole) if whole > 0 => {
                out.extend((0..whole).map(digit));
                if self.digits.len() > whole {
                    out.push('.');
                    out.extend((whole..self.digits.len()).map(digit));
                }
            }
            _ => {
                out.push_str("0.");
                out.extend((0..self.exponent.unsigned_abs()).map(|_| '0'));
                out.extend((0..self.digits.len()).map(digit));
            }
        }
        f.write_str(&out)
    }
}

/// A measured value in ten-thousandths: what `sum`, `min`, `max` and `avg` add up.
///
/// Invariant: within ±9·10¹⁴ (9·10¹⁸ ten-thousandths), so it fits an `i64` and sums fit an `i128`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Measure(pub i64);

impl Measure {
    /// The largest measure; values beyond it, either way, are treated as missing.
    pub const MAX: Self = Self(9_000_000_000_000_000_000);
    /// How many units make one.
    pub const SCALE: i64 = 10_000;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn json(text: &str) -> Decimal {
        Decimal::from_json(text).unwrap()
    }

    #[test]
    fn text_is_plain_and_without_trailing_zeros() {
        for (sent, plain) in [
            ("12.50", "12.5"),
            ("-0", "0"),
            ("0.0", "0"),
            ("1e3", "1000"),
            ("1.5E-3", "0.0015"),
            ("100", "100"),
            ("-0.10", "-0.1"),
            ("123456789012345678901234567890", "123456789012345678901234567890"),
            ("10.0e-1", "1"),
            ("0e999999999999999999999", "0"),
        ] {
            assert_eq!(json(sent).to_string(), plain, "{sent}");
        }
    }

    #[test]
    fn order_is_exact() {
        let ascending = [
            "-1e10",
            "-2",
            "-1.5",
            "-0.001",
            "0",
            "0.0001",
            "0.1",
            "1",
            "1.00001",
            "9007199254740992",
            "9007199254740993",
            "1e399",
        ];
        for pair in ascending.windows(2) {
            assert_eq!(json(pair[0]).cmp(&json(pair[1])), Ordering::Less, "{pair:?}");
        }
        assert_eq!(json("1.0"), json("10e-1"));
    }

    #[test]
    fn only_wholly_decimal_text_is_a_number() {
        for wrong in ["", "-", "+1", "1.", ".5", "1e3", " 1", "1 ", "--1", "1.2.3", "٣", "0x1"] {
            assert_eq!(Decimal::from_text(wrong), None, "{wrong}");
        }
        assert_eq!(Decimal::from_text("007.50"), Some(json("7.5")));
        assert_eq!(Decimal::from_json("007"), None);
        assert_eq!(Decimal::from_text(&"9".repeat(401)), None);
    }

    #[test]
    fn measures_round_half_to_even_at_four_places() {
        for (sent, units) in [
            ("1", 10_000),
            ("14.85", 148_500),
            ("0.00005", 0),
            ("0.00015", 2),
            ("0.00025", 2),
            ("0.000250000001", 3),
            ("-0.00015", -2),
            ("-0.00005", 0),
            ("0.00004999", 0),
            ("0.000051", 1),
            ("1e-9", 0),
            ("0.99995", 10_000),
            ("900000000000000", 9_000_000_000_000_000_000),
            ("900000000000000.00005", 9_000_000_000_000_000_000),
        ] {
            assert_eq!(json(sent).to_measure(), Some(Measure(units)), "{sent}");
        }
        assert_eq!(json("900000000000000.0001").to_measure(), None);
        assert_eq!(json("-1e15").to_measure(), None);
        assert_eq!(json("1e399").to_measure(), None);
    }
}
