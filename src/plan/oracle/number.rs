//! Decimals as text, with the arithmetic that is learnt at school.

use std::cmp::Ordering;

/// A decimal written out: digits before and after the point, without needless zeros.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Plain {
    negative: bool,
    whole: String,
    fraction: String,
}

impl Plain {
    fn new(negative: bool, whole: &str, fraction: &str) -> Self {
        let whole = whole.trim_start_matches('0').to_owned();
        let fraction = fraction.trim_end_matches('0').to_owned();
        let negative = negative && !(whole.is_empty() && fraction.is_empty());
        Self { negative, whole, fraction }
    }

    /// Reads `-?digits[.digits]`.
    pub(super) fn read(text: &str) -> Option<Self> {
        let (negative, digits) = match text.strip_prefix('-') {
            Some(rest) => (true, rest),
            None => (false, text),
        };
        let (whole, fraction) = match digits.split_once('.') {
            Some((whole, fraction)) if !fraction.is_empty() => (whole, fraction),
            Some(_) => return None,
            None => (digits, ""),
        };
        let digits = |part: &str| part.chars().all(|c| c.is_ascii_digit());
        (!whole.is_empty() && digits(whole) && digits(fraction))
            .then(|| Self::new(negative, whole, fraction))
    }

    /// Reads a JSON number, exponent included.
    pub(super) fn read_json(text: &str) -> Self {
        let lower = text.to_lowercase();
        let (mantissa, exponent) = lower.split_once('e').unwrap_or((&lower, "0"));
        let mut exponent: i32 = exponent.trim_start_matches('+').parse().unwrap();
        let Self { negative, mut whole, mut fraction } = Self::read(mantissa).unwrap();
        while exponent > 0 {
            whole.push(if fraction.is_empty() { '0' } else { fraction.remove(0) });
            exponent -= 1;
        }
        while exponent < 0 {
            fraction.insert(0, whole.pop().unwrap_or('0'));
            exponent += 1;
        }
        Self::new(negative, &whole, &fraction)
    }

    pub(super) fn text(&self) -> String {
        let sign = if self.negative { "-" } else { "" };
        let whole = if self.whole.is_empty() { "0" } else { &self.whole };
        if self.fraction.is_empty() {
            format!("{sign}{whole}")
        } else {
            format!("{sign}{whole}.{}", self.fraction)
        }
    }

    pub(super) fn compare(&self, other: &Self) -> Ordering {
        let size = |a: &Self, b: &Self| {
            let width = a.fraction.len().max(b.fraction.len());
            let digits = |n: &Self| format!("{}{:0<width$}", n.whole, n.fraction);
            let (left, right) = (digits(a), digits(b));
            let (left, right) = (left.trim_start_matches('0'), right.trim_start_matches('0'));
            left.len().cmp(&right.len()).then_with(|| left.cmp(right))
        };
        match (self.negative, other.negative) {
            (false, true) => Ordering::Greater,
            (true, false) => Ordering::Less,
            (false, false) => size(self, other),
            (true, true) => size(other, self),
        }
    }

    /// Ten-thousandths, rounded half to even; `None` beyond ±9·10¹⁴.
    pub(super) fn measure(&self) -> Option<i128> {
        if self.whole.len() > 20 {
            return None;
        }
        let padded = format!("{:0<5}", self.fraction);
        let (kept, rest) = padded.split_at(4);
        let mut units: i128 = format!("0{}{kept}", self.whole).parse().unwrap();
        let rest = rest.trim_end_matches('0');
        let up = match rest.cmp("5") {
            Ordering::Less => false,
            Ordering::Equal => units % 2 == 1,
            Ordering::Greater => true,
        };
        units += i128::from(up);
        (units <= 9 * 10i128.pow(18)).then_some(if self.negative { -units } else { units })
    }
}

/// Compares `top / bottom` with a number; `bottom` is positive.
pub(super) fn compare_ratio(top: i128, bottom: i128, limit: &Plain) -> Ordering {
    // top × 10^k against digits × bottom, both as written digits.
    let scale = "0".repeat(limit.fraction.len());
    let left = Plain::new(top < 0, &format!("{}{scale}", top.unsigned_abs()), "");
    let digits = format!("0{}{}", limit.whole, limit.fraction);
    let right = Plain::new(limit.negative, &times(&digits, bottom), "");
    left.compare(&right)
}

/// Long multiplication.
fn times(digits: &str, factor: i128) -> String {
    let mut total = vec![0u32; digits.len() + 45];
    for (i, a) in digits.bytes().rev().enumerate() {
        for (j, b) in factor.to_string().bytes().rev().enumerate() {
            total[i + j] += u32::from(a - b'0') * u32::from(b - b'0');
            let mut place = i + j;
            while total[place] > 9 {
                total[place + 1] += total[place] / 10;
                total[place] %= 10;
                place += 1;
            }
        }
    }
    total.iter().rev().map(|d| char::from_digit(*d, 10).unwrap()).collect()
}

#[test]
fn school_arithmetic_is_right() {
    assert_eq!(times("123456789", 987_654_321).trim_start_matches('0'), "121932631112635269");
    assert_eq!(Plain::read_json("12.50e1").text(), "125");
    assert_eq!(Plain::read_json("-1.5E-3").text(), "-0.0015");
    assert_eq!(Plain::read_json("-0").text(), "0");
    assert_eq!(compare_ratio(-1, 3, &Plain::read("-0.3334").unwrap()), Ordering::Greater);
    assert_eq!(compare_ratio(30_000, 20_000, &Plain::read("1.5").unwrap()), Ordering::Equal);
}
