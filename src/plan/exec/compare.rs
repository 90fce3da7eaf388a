//! Arrays with a place for each ordinal, compared into bitsets 64 at a time.

use crate::bitmap::BlockSet;
use crate::bitmap::Unary;
use crate::plan::number::Band;

/// Selects the integers of a type that lie in a band.
macro_rules! select_band {
    ($name:ident, $type:ty) => {
        /// Makes `out` the set of the places whose value lies in the band.
        pub(super) fn $name(values: &[$type], band: Band, out: &mut BlockSet) {
            let clamp = |edge: i128| {
                let edge = edge.clamp(i128::from(<$type>::MIN), i128::from(<$type>::MAX));
                <$type>::try_from(edge).unwrap_or(<$type>::MAX)
            };
            let is_empty = band.lo > band.hi
                || band.lo > i128::from(<$type>::MAX)
                || band.hi < i128::from(<$type>::MIN);
            let outside = band.outside;
            if is_empty {
                return out.select(values, |_| outside);
            }
            let (lo, hi) = (clamp(band.lo), clamp(band.hi));
            if outside {
                out.select(values, |value| (value < lo) | (value > hi));
            } else if hi == <$type>::MAX {
                out.select(values, |value| value >= lo);
            } else {
                out.select(values, |value| (value >= lo) & (value <= hi));
            }
        }
    };
}

select_band!(select_u8, u8);
select_band!(select_u32, u32);
select_band!(select_i64, i64);

/// Makes `out` the set of those of a population whose count lies in the band; counts stop at `stop`, which is above
/// what the band's edges name.
pub(super) fn select_unary(
    counts: &Unary,
    stop: u8,
    band: Band,
    (population, out): (u32, &mut BlockSet),
) {
    let below = |edge: i128| u8::try_from(edge).ok().filter(|edge| *edge <= stop);
    let (least, above) = (band.lo.max(0), band.hi.checked_add(1));
    if band.lo > band.hi || band.hi < 0 {
        out.reset(population);
    } else {
        match below(least) {
            Some(0) => out.fill(population),
            Some(least) => counts.at_least(least, out),
            None => out.reset(population),
        }
        if let Some(above) = above.and_then(below) {
            counts.subtract_at_least(above, out);
        }
    }
    if band.outside {
        out.complement(population);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bands_beyond_the_type_are_cut() {
        let bands = [(1, 0), (300, 400), (-5, -1), (-5, 2), (254, 300), (i128::MIN, i128::MAX)];
        let values: Vec<u8> = (0..=255).collect();
        for (lo, hi) in bands {
            for outside in [false, true] {
                let band = Band { lo, hi, outside };
                let mut out = BlockSet::new();
                select_u8(&values, band, &mut out);
                let expected: BlockSet = values
                    .iter()
                    .filter(|value| band.holds(i128::from(**value)))
                    .map(|value| u16::from(*value))
                    .collect();
                assert_eq!(out, expected, "{band:?}");
            }
        }
    }
}
