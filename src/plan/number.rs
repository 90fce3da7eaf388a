//! The numbers that measures are compared with, exactly, as bands of whole units.

use std::cmp::Ordering;

use crate::bitmap::Within;
use crate::model::Decimal;
use crate::rules::ast::Cmp;

/// How many digits a number may have before the point, and after it.
pub(super) const MAX_DIGITS: usize = 18;

/// Places after the point of a `Number`.
pub(super) const SCALE: i128 = 10i128.pow(18);
/// A ten-thousandth, in which measures are kept, at that scale.
pub(super) const TEN_THOUSANDTH: i128 = SCALE / 10_000;

/// A number of a rule in 10⁻¹⁸; `None` where it has too many digits.
pub(super) fn scaled(number: &Decimal) -> Option<i128> {
    let text = number.to_string();
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, &*text),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    if whole.len() > MAX_DIGITS || fraction.len() > MAX_DIGITS {
        return None;
    }
    let size: i128 = format!("{whole}{fraction:0<MAX_DIGITS$}").parse().ok()?;
    Some(if negative { -size } else { size })
}

/// The whole numbers that pass a comparison: those from `lo` to `hi`, or those outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Band {
    pub(super) lo: i128,
    pub(super) hi: i128,
    pub(super) outside: bool,
}

impl Band {
    /// The counts that pass.
    pub(super) fn of_count(cmp: Cmp, number: i128) -> Self {
        Self::new(cmp, number, SCALE)
    }

    /// The measures, in ten-thousandths, that pass.
    pub(super) fn of_measure(cmp: Cmp, number: i128) -> Self {
        Self::new(cmp, number, TEN_THOUSANDTH)
    }

    fn new(cmp: Cmp, number: i128, unit: i128) -> Self {
        let floor = number.div_euclid(unit);
        let exact = number.rem_euclid(unit) == 0;
        let band = |lo, hi, outside| Self { lo, hi, outside };
        let (least, most) = (i128::MIN, i128::MAX);
        match cmp {
            Cmp::Eq | Cmp::Ne if !exact => band(1, 0, cmp == Cmp::Ne),
            Cmp::Eq | Cmp::Ne => band(floor, floor, cmp == Cmp::Ne),
            Cmp::Lt if exact => band(least, floor - 1, false),
            Cmp::Lt | Cmp::Le => band(least, floor, false),
            Cmp::Gt => band(floor + 1, most, false),
            Cmp::Ge if exact => band(floor, most, false),
            Cmp::Ge => band(floor + 1, most, false),
        }
    }

    pub(super) fn holds(self, value: i128) -> bool {
        (self.lo <= value && value <= self.hi) != self.outside
    }

    /// The same band of numbers of 64 bits.
    pub(super) fn narrow(self) -> Within {
        let narrow = |edge: i128| {
            let edge = edge.clamp(i128::from(i64::MIN), i128::from(i64::MAX));
            i64::try_from(edge).unwrap_or(i64::MAX)
        };
        let is_empty = self.lo > i128::from(i64::MAX) || self.hi < i128::from(i64::MIN);
        let (lo, hi) = if is_empty { (1, 0) } else { (narrow(self.lo), narrow(self.hi)) };
        Within { lo, hi, outside: self.outside }
    }

    /// Counts that stop at this number tell which pass: those from it on all do, or none does.
    pub(super) fn stop(self) -> i128 {
        let above = if self.hi == i128::MAX { 0 } else { self.hi.saturating_add(1) };
        above.max(self.lo).max(1)
    }
}

/// Whether the mean of `count` measures that add up to `sum` ten-thousandths passes, without a division
/// of the sum. `count` is at least 1.
pub(super) fn mean_passes(sum: i128, count: u32, cmp: Cmp, number: i128) -> bool {
    // number × count = (floor + part / unit) × count; each product stays far below 2¹²⁷.
    let count = i128::from(count);
    let part = number.rem_euclid(TEN_THOUSANDTH) * count;
    let whole = number.div_euclid(TEN_THOUSANDTH) * count + part / TEN_THOUSANDTH;
    let ordering = match sum.cmp(&whole) {
        Ordering::Equal if part % TEN_THOUSANDTH != 0 => Ordering::Less,
        ordering => ordering,
    };
    cmp.holds(ordering)
}

/// A sum of ten-thousandths as a decimal text.
pub(super) fn measure_text(units: i128) -> String {
    let (sign, size) = (if units < 0 { "-" } else { "" }, units.unsigned_abs());
    let text = format!("{sign}{}.{:04}", size / 10_000, size % 10_000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn number(text: &str) -> i128 {
        scaled(&Decimal::from_text(text).unwrap()).unwrap()
    }

    const ALL: [Cmp; 6] = [Cmp::Eq, Cmp::Ne, Cmp::Lt, Cmp::Le, Cmp::Gt, Cmp::Ge];

    #[test]
    fn bands_hold_what_the_comparison_does() {
        for text in ["0", "2", "-1", "2.5", "-0.5", "1.99999", "0.00005"] {
            let limit = number(text);
            for cmp in ALL {
                for value in -5i128..=5 {
                    let expected = cmp.holds((value * SCALE).cmp(&limit));
                    assert_eq!(Band::of_count(cmp, limit).holds(value), expected);
                    let expected = cmp.holds((value * TEN_THOUSANDTH).cmp(&limit));
                    assert_eq!(Band::of_measure(cmp, limit).holds(value), expected);
                    let narrow = Band::of_measure(cmp, limit).narrow();
                    assert_eq!(narrow.holds(i64::try_from(value).unwrap()), expected);
                }
            }
        }
    }

    #[test]
    fn means_are_compared_without_rounding() {
        // 1/3 of a unit is neither 0.3333 nor 0.3334 of it.
        for (text, ordering) in
            [("0.333333333333333333", Ordering::Greater), ("0.333333333333333334", Ordering::Less)]
        {
            for cmp in ALL {
                assert_eq!(mean_passes(10_000, 3, cmp, number(text)), cmp.holds(ordering));
            }
        }
        assert!(mean_passes(-15_000, 2, Cmp::Eq, number("-0.75")));
        let most = i128::from(crate::model::Measure::MAX.0) * i128::from(u32::MAX);
        assert!(mean_passes(most, u32::MAX, Cmp::Eq, number("900000000000000")));
        assert!(mean_passes(most, u32::MAX, Cmp::Gt, number("-999999999999999999")));
    }

    #[test]
    fn texts_of_sums_are_plain() {
        for (units, text) in [(0, "0"), (-5, "-0.0005"), (148_500, "14.85"), (30_000, "3")] {
            assert_eq!(measure_text(units), text);
        }
        assert_eq!(scaled(&Decimal::from_text("1234567890123456789").unwrap()), None);
    }
}
