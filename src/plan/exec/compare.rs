//! Arrays with a place for each ordinal, compared into bitsets 64 at a time.

use crate::bitmap::BlockSet;
use crate::bitmap::Unary;
use crate::plan::number::Band;

/// Makes `out` the set of the places whose value passes.
#[inline]
pub(super) fn select<T: Copy>(values: &[T], out: &mut BlockSet, passes: impl Fn(T) -> bool) {
    let words = values.chunks(64).map(|chunk| {
        // Flags first, then bits: the compiler makes vectors of the first.
        let mut flags = [0u8; 64];
        for (flag, value) in flags.iter_mut().zip(chunk) {
            *flag = u8::from(passes(*value));
        }
        pack(&flags)
    });
    out.assign_words(words);
}

/// Gathers 64 flags, each 0 or 1, into the bits of a word.
#[inline]
fn pack(flags: &[u8; 64]) -> u64 {
    let mut word = 0;
    for (place, eight) in flags.chunks_exact(8).enumerate() {
        let lanes = u64::from_le_bytes([
            eight[0], eight[1], eight[2], eight[3], eight[4], eight[5], eight[6], eight[7],
        ]);
        // The product moves lane k's flag to bit 56 + k.
        word |= (lanes.wrapping_mul(0x0102_0408_1020_4080) >> 56) << (place * 8);
    }
    word
}

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
                return select(values, out, |_| outside);
            }
            let (lo, hi) = (clamp(band.lo), clamp(band.hi));
            if outside {
                select(values, out, |value| (value < lo) | (value > hi));
            } else if hi == <$type>::MAX {
                select(values, out, |value| value >= lo);
            } else {
                select(values, out, |value| (value >= lo) & (value <= hi));
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
    fn every_place_gets_its_bit() {
        for length in [0usize, 1, 63, 64, 65, 200] {
            let values: Vec<u32> =
                (0..200u32).map(|i| i.wrapping_mul(2_654_435_761) % 5).take(length).collect();
            let mut out = BlockSet::new();
            select(&values, &mut out, |value| value == 3);
            let expected: BlockSet =
                (0u16..).zip(&values).filter(|(_, v)| **v == 3).map(|(place, _)| place).collect();
            assert_eq!(out, expected);
        }
    }

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
