//! The innermost loops, over words of 64 ordinals.
//!
//! Each is plain code that is compiled several times: for every processor, and for those with wider registers, which are
//! told apart where it runs.

#[cfg(target_arch = "x86_64")]
use std::arch::x86_64::{
    _mm512_add_epi16, _mm512_castsi512_si256, _mm512_cvtepu8_epi16, _mm512_extracti64x4_epi64,
    _mm512_maskz_compress_epi8, _mm512_maskz_compress_epi16, _mm512_set1_epi16,
    _mm512_test_epi64_mask,
};
#[cfg(target_arch = "x86_64")]
use std::sync::OnceLock;

use super::summed::Within;

/// How wide the registers of the processor are.
#[cfg(target_arch = "x86_64")]
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Width {
    /// As every processor has them.
    Plain,
    /// AVX2.
    Wide,
    /// AVX-512, with what counts bits and brings chosen lanes together.
    Widest,
}

#[cfg(target_arch = "x86_64")]
fn width() -> Width {
    static WIDTH: OnceLock<Width> = OnceLock::new();
    *WIDTH.get_or_init(|| {
        macro_rules! has {
            ($($feature:tt),*) => { $(is_x86_feature_detected!($feature))&&* };
        }
        if !has!("avx2", "bmi1", "bmi2", "popcnt") {
            Width::Plain
        } else if !has!("avx512f", "avx512bw", "avx512vl", "avx512vbmi2", "avx512vpopcntdq") {
            Width::Wide
        } else {
            Width::Widest
        }
    })
}

/// A function that is compiled for each width. Where its second body is given, that is the one for the widest.
macro_rules! kernel {
    (@widest $plain:block) => { $plain };
    (@widest $plain:block $widest:block) => { $widest };
    (
        $(#[$doc:meta])*
        fn $name:ident($($argument:ident: $type:ty),*) $(-> $result:ty)? $body:block
        $(widest $other:block)?
    ) => {
        $(#[$doc])*
        pub(super) fn $name($($argument: $type),*) $(-> $result)? {
            #[inline(always)]
            fn plain($($argument: $type),*) $(-> $result)? $body
            #[cfg(target_arch = "x86_64")]
            {
                #[target_feature(enable = "avx2,bmi1,bmi2,popcnt")]
                fn wide($($argument: $type),*) $(-> $result)? {
                    plain($($argument),*)
                }
                #[target_feature(enable = "avx2,bmi1,bmi2,popcnt")]
                #[target_feature(enable = "avx512f,avx512bw,avx512vl,avx512vbmi2,avx512vpopcntdq")]
                fn widest($($argument: $type),*) $(-> $result)? {
                    kernel!(@widest { plain($($argument),*) } $($other)?)
                }
                #[expect(unsafe_code, reason = "safe code for a processor that was looked at")]
                match width() {
                    Width::Plain => {}
                    // SAFETY: the processor has the features that the function is compiled for.
                    Width::Wide => return unsafe { wide($($argument),*) },
                    // SAFETY: as before.
                    Width::Widest => return unsafe { widest($($argument),*) },
                }
            }
            plain($($argument),*)
        }
    };
}

kernel! {
    /// Adds the members of another set.
    fn union(words: &mut [u64], others: &[u64]) {
        for (word, more) in words.iter_mut().zip(others) {
            *word |= more;
        }
    }
}

kernel! {
    /// Keeps what is in another set too.
    fn intersect(words: &mut [u64], others: &[u64]) {
        for (word, mask) in words.iter_mut().zip(others) {
            *word &= mask;
        }
    }
}

kernel! {
    /// Takes away the members of another set.
    fn subtract(words: &mut [u64], others: &[u64]) {
        for (word, less) in words.iter_mut().zip(others) {
            *word &= !less;
        }
    }
}

kernel! {
    /// Whether there is no member.
    fn is_empty(words: &[u64]) -> bool {
        words.chunks(32).all(|words| words.iter().fold(0, |all, word| all | word) == 0)
    }
}

kernel! {
    /// How many members there are.
    fn count(words: &[u64]) -> u32 {
        words.iter().map(|word| word.count_ones()).sum()
    }
}

kernel! {
    /// Adds ordinals for which there is room.
    fn add(words: &mut [u64], ordinals: &[u16]) {
        for ordinal in ordinals {
            words[usize::from(ordinal >> 6)] |= 1 << (ordinal & 63);
        }
    }
}

/// The room that lists need: beyond what is listed they leave what is of no use.
pub(super) const ROOM: usize = (1 << 16) + LANES;
const AT_ONCE: usize = 4;
/// So many ordinals the widest registers hold.
const LANES: usize = 32;

/// The numbers from 0 on.
#[cfg(target_arch = "x86_64")]
macro_rules! lanes {
    ($count:literal) => {{
        let (mut lanes, mut lane) = ([0; $count], 0);
        while lane < $count {
            lanes[lane as usize] = lane;
            lane += 1;
        }
        lanes
    }};
}

/// Lists the members of a word at a place, so many at once whether there are so many or not: a guess of how many there
/// are would often be wrong.
#[inline(always)]
fn list_word(place: u16, word: u64, count: usize, out: &mut [u16; ROOM]) -> usize {
    let mut rest = word;
    let (mut at, next) = (count, count + word.count_ones() as usize);
    while at < next {
        let Some(slots) = out.get_mut(at..at + AT_ONCE) else { break };
        for slot in slots {
            // Of no bit the lowest is the 64th, which does not count.
            #[expect(clippy::cast_possible_truncation, reason = "no more than 64")]
            let lowest = rest.trailing_zeros() as u16;
            *slot = (place << 6).wrapping_add(lowest);
            rest &= rest.wrapping_sub(1);
        }
        at += AT_ONCE;
    }
    next
}

/// As [`list_few`], without a guess: lanes that are chosen are brought together.
#[cfg(target_arch = "x86_64")]
#[inline]
#[target_feature(enable = "avx2,popcnt,avx512f,avx512bw,avx512vbmi2")]
fn list_lanes(words: &[u64], out: &mut [u16; ROOM]) -> usize {
    const EIGHT: [u8; 64] = lanes!(64);
    const SIXTEEN: [u16; LANES] = lanes!(32);
    // First which words have any.
    let mut filled = [0u16; (1 << 16) / 64 + LANES];
    let mut last = 0;
    let (chunks, rest) = words.as_chunks::<LANES>();
    let mut place = 0;
    for chunk in chunks {
        let mut chosen = 0;
        for (at, eight) in chunk.as_chunks::<8>().0.iter().enumerate() {
            let eight = bytemuck::cast(*eight);
            chosen |= u32::from(_mm512_test_epi64_mask(eight, eight)) << (8 * at);
        }
        let places = _mm512_add_epi16(bytemuck::cast(SIXTEEN), _mm512_set1_epi16(place));
        let places: [u16; LANES] = bytemuck::cast(_mm512_maskz_compress_epi16(chosen, places));
        if let Some(slots) = filled.get_mut(last..last + LANES) {
            slots.copy_from_slice(&places);
        }
        last += chosen.count_ones() as usize;
        place += 32;
    }
    for (place, word) in (place.cast_unsigned()..1 << 10).zip(rest) {
        if let Some(slot) = filled.get_mut(last) {
            *slot = place;
        }
        last += usize::from(*word != 0);
    }
    let mut count = 0;
    for place in &filled[..last] {
        let word = words[usize::from(*place)];
        let members = word.count_ones() as usize;
        let first = _mm512_set1_epi16((place << 6).cast_signed());
        let listed = _mm512_maskz_compress_epi8(word, bytemuck::cast(EIGHT));
        let mut put = |at: usize, half| {
            let half: [u16; LANES] = bytemuck::cast(_mm512_add_epi16(first, half));
            if let Some(slots) = out.get_mut(at..at + LANES) {
                slots.copy_from_slice(&half);
            }
        };
        put(count, _mm512_cvtepu8_epi16(_mm512_castsi512_si256(listed)));
        if members > LANES {
            put(count + LANES, _mm512_cvtepu8_epi16(_mm512_extracti64x4_epi64::<1>(listed)));
        }
        count += members;
    }
    count
}

kernel! {
    /// Lists the members, ascending, and returns how many there are.
    fn list(words: &[u64], out: &mut [u16; ROOM]) -> usize {
        let mut count = 0;
        for (place, word) in (0u16..1 << 10).zip(words) {
            count = list_word(place, *word, count, out);
        }
        count
    }
    widest { list_lanes(words, out) }
}

kernel! {
    /// As [`list`], of words that mostly have no member.
    fn list_few(words: &[u64], out: &mut [u16; ROOM]) -> usize {
        // First which words have any, for to guess that would often be wrong.
        let mut filled = [0u16; (1 << 16) / 64];
        let mut last = 0;
        for (place, word) in (0u16..1 << 10).zip(words) {
            if let Some(slot) = filled.get_mut(last) {
                *slot = place;
            }
            last += usize::from(*word != 0);
        }
        let mut count = 0;
        for place in &filled[..last] {
            count = list_word(*place, words[usize::from(*place)], count, out);
        }
        count
    }
    widest { list_lanes(words, out) }
}

kernel! {
    /// Raises counts in unary, in sets of so many words: what was in one set is carried to the next.
    fn carry(levels: &mut [u64], stride: usize, others: &[u64]) {
        // A stretch that stays near while it goes through all levels.
        const STRETCH: usize = 64;
        let mut carried = [0; STRETCH];
        for (place, others) in (0..).step_by(STRETCH).zip(others.chunks(STRETCH)) {
            let carried = &mut carried[..others.len()];
            carried.copy_from_slice(others);
            for level in levels.chunks_mut(stride.max(1)) {
                for (word, carried) in level[place..].iter_mut().zip(carried.iter_mut()) {
                    let next = *word & *carried;
                    *word |= *carried;
                    *carried = next;
                }
            }
        }
    }
}

kernel! {
    /// Raises the counts of ordinals by one each, as [`carry`] does.
    fn carry_each(levels: &mut [u64], stride: usize, ordinals: &[u16]) {
        for ordinal in ordinals {
            let (mut place, mut bit) = (usize::from(ordinal >> 6), 1u64 << (ordinal & 63));
            while let Some(word) = levels.get_mut(place) {
                let next = *word & bit;
                *word |= bit;
                if next == 0 {
                    break;
                }
                bit = next;
                place += stride;
            }
        }
    }
}

kernel! {
    /// Adds the ordinals whose values add up to what is within, which 0 is not. The facts lie in the order of their
    /// ordinals; on other days than these a value counts as 0.
    fn select_sums(facts: (&[u16], &[u16], &[i32]), days: (u16, u16), within: Within, words: &mut [u64]) {
        let (ordinals, of_days, values) = facts;
        let value_of = |day: u16, value: i32| {
            if (days.0 <= day) & (day <= days.1) { value } else { 0 }
        };
        // Most ordinals have one fact. Whether the last of a stretch goes on in the next.
        let mut goes_on = false;
        for (start, own) in (0..).step_by(64).zip(ordinals.chunks(64)) {
            let end = start + own.len();
            let (mut pass, mut same) = ([0u8; 64], [0u8; 64]);
            for (pass, (day, value)) in pass.iter_mut().zip(of_days[start..end].iter().zip(&values[start..end])) {
                *pass = u8::from(within.holds(i64::from(value_of(*day, *value))));
            }
            for (same, (one, next)) in same.iter_mut().zip(own.iter().zip(&ordinals[start + 1..])) {
                *same = u8::from(one == next);
            }
            let (pass, same) = (bits(&pass), bits(&same));
            let joined = same << 1 | u64::from(goes_on);
            let single = pass & !(same | joined);
            for (place, ordinal) in own.iter().enumerate() {
                if let Some(word) = words.get_mut(usize::from(ordinal >> 6)) {
                    *word |= (single >> place & 1) << (ordinal & 63);
                }
            }
            let mut firsts = same & !joined;
            while firsts != 0 {
                let first = start + firsts.trailing_zeros() as usize;
                firsts &= firsts - 1;
                let (ordinal, mut sum) = (ordinals[first], 0);
                let all = ordinals[first..].iter().zip(of_days[first..].iter().zip(&values[first..]));
                for (_, (day, value)) in all.take_while(|(other, _)| **other == ordinal) {
                    sum += i64::from(value_of(*day, *value));
                }
                if let Some(word) = words.get_mut(usize::from(ordinal >> 6)) {
                    *word |= u64::from(within.holds(sum)) << (ordinal & 63);
                }
            }
            goes_on = same >> 63 == 1;
        }
    }
}

/// Gathers 64 flags, each 0 or 1, into the bits of a word.
#[inline(always)]
pub(super) fn bits(flags: &[u8; 64]) -> u64 {
    let mut word = 0;
    for (place, eight) in flags.as_chunks::<8>().0.iter().enumerate() {
        // The product moves the flag of lane k to bit 56 + k.
        let lanes = u64::from_le_bytes(*eight);
        word |= (lanes.wrapping_mul(0x0102_0408_1020_4080) >> 56) << (place * 8);
    }
    word
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn listed(list: impl Fn(&[u64], &mut [u16; ROOM]) -> usize, words: &[u64]) -> Vec<u16> {
        let mut out = vec![0; ROOM];
        let count = list(words, out.as_mut_slice().try_into().unwrap());
        out.truncate(count);
        out
    }

    proptest! {
        /// Whatever the processor's registers are, and as it would be with plain ones.
        #[test]
        fn members_are_listed(
            words in prop::collection::vec(
                prop_oneof![3 => Just(0), 2 => (0u32..64).prop_map(|bit| 1 << bit), 2 => any::<u64>(), 1 => Just(u64::MAX)],
                0..200,
            ),
        ) {
            let mut expected = Vec::new();
            for (place, word) in (0u16..).zip(&words) {
                expected.extend((0..64).filter(|bit| word >> bit & 1 == 1).map(|bit| place * 64 + bit));
            }
            prop_assert_eq!(&listed(list, &words), &expected);
            prop_assert_eq!(&listed(list_few, &words), &expected);
            prop_assert_eq!(count(&words) as usize, expected.len());
            let plain = |words: &[u64], out: &mut [u16; ROOM]| {
                let words = (0u16..).zip(words);
                words.fold(0, |count, (place, word)| list_word(place, *word, count, out))
            };
            prop_assert_eq!(&listed(plain, &words), &expected);
        }

        #[test]
        fn sums_are_selected(
            mut facts in prop::collection::vec((0u16..400, 0u16..6, -9i32..9), 0..400),
            days in (0u16..6, 0u16..6),
            (lo, hi, outside) in (-12i64..12, -12i64..12, any::<bool>()),
        ) {
            let within = Within { lo, hi, outside };
            prop_assume!(!within.holds(0));
            facts.sort_unstable();
            let of = |ordinal| {
                let own = facts.iter().filter(|(other, day, _)| {
                    *other == ordinal && (days.0..=days.1).contains(day)
                });
                own.map(|(_, _, value)| i64::from(*value)).sum::<i64>()
            };
            let ordinals: Vec<u16> = facts.iter().map(|(ordinal, ..)| *ordinal).collect();
            let of_days: Vec<u16> = facts.iter().map(|(_, day, _)| *day).collect();
            let values: Vec<i32> = facts.iter().map(|(.., value)| *value).collect();
            let mut words = [0; 400usize.div_ceil(64)];
            select_sums((&ordinals, &of_days, &values), days, within, &mut words);
            for ordinal in 0..400u16 {
                let is_selected = words[usize::from(ordinal >> 6)] >> (ordinal & 63) & 1 == 1;
                prop_assert_eq!(is_selected, within.holds(of(ordinal)));
            }
        }
    }
}
