//! The times of a day's facts, ascending, in as little memory as lets a part of the day be found.
//!
//! Of a day with many facts the lower 16 bits of each time lie one after the other, and the upper ones as Elias and Fano
//! have them: a bit for each fact, those of one stretch of 65.5 s after the other, and a zero after each stretch. A time
//! takes two bytes and little more than a bit so.

use std::iter::Enumerate;
use std::ops::Range;
use std::slice;

/// The bits of a time that are kept by themselves.
const LOWER: u32 = 16;
const WORD: usize = 32;

/// Milliseconds of a day, ascending.
#[derive(Debug, Clone, Copy)]
pub(super) enum Times<'a> {
    /// Each whole.
    Plain(&'a [u32]),
    /// In two parts.
    Split(Split<'a>),
}

/// Times in two parts, some of those that lie together.
#[derive(Debug, Clone, Copy)]
pub(super) struct Split<'a> {
    uppers: &'a [u32],
    /// Of all that lie together.
    lowers: &'a [u16],
    first: u32,
    end: u32,
}

impl Default for Times<'_> {
    fn default() -> Self {
        Self::Plain(&[])
    }
}

impl<'a> Times<'a> {
    pub(super) fn split(uppers: &'a [u32], lowers: &'a [u16]) -> Self {
        // A block has fewer facts of a day than 32 bits count.
        Self::Split(Split { uppers, lowers, first: 0, end: small(lowers.len()) })
    }

    /// How many are earlier than a time.
    pub(super) fn before(self, millis: u32) -> usize {
        match self {
            Self::Plain(times) => times.partition_point(|time| *time < millis),
            Self::Split(split) => {
                let place = split.before(millis).clamp(split.first as usize, split.end as usize);
                place - split.first as usize
            }
        }
    }

    /// Those at some places.
    pub(super) fn at(self, places: Range<usize>) -> Self {
        match self {
            Self::Plain(times) => Self::Plain(&times[places]),
            Self::Split(split) => {
                let first = split.first + small(places.start);
                let end = split.first + small(places.end);
                Self::Split(Split { first, end, ..split })
            }
        }
    }

    pub(super) fn iter(self) -> Iter<'a> {
        match self {
            Self::Plain(times) => Iter::Plain(times.iter()),
            Self::Split(split) => Iter::Split(split.iter()),
        }
    }
}

impl<'a> Split<'a> {
    /// How many of all that lie together are earlier than a time.
    fn before(self, millis: u32) -> usize {
        let stretch = (millis >> LOWER) as usize;
        let Some(at) = after_zeros(self.uppers, stretch) else { return self.lowers.len() };
        let first = at - stretch;
        let end = (first + ones(self.uppers, at)).min(self.lowers.len());
        first
            + self.lowers[first..end].partition_point(|lower| u32::from(*lower) < lower_of(millis))
    }

    fn iter(self) -> SplitIter<'a> {
        let places = self.first as usize..self.end as usize;
        let mut left = self.uppers.iter().enumerate();
        let (mut passed, mut at, mut word) = (0, 0, 0u32);
        for (number, upper) in left.by_ref() {
            (at, word) = (number, *upper);
            let count = word.count_ones() as usize;
            if passed + count > places.start {
                break;
            }
            (passed, word) = (passed + count, 0);
        }
        for _ in passed..places.start {
            word &= word.wrapping_sub(1);
        }
        SplitIter { left, at, word, place: places.start, lowers: self.lowers[places].iter() }
    }
}

/// Times, one after the other.
#[derive(Debug, Clone)]
pub(super) enum Iter<'a> {
    Plain(slice::Iter<'a, u32>),
    Split(SplitIter<'a>),
}

#[derive(Debug, Clone)]
pub(super) struct SplitIter<'a> {
    left: Enumerate<slice::Iter<'a, u32>>,
    /// The number of the word that is read, and what is left of it.
    at: usize,
    word: u32,
    /// The place of the next among all.
    place: usize,
    lowers: slice::Iter<'a, u16>,
}

impl Iterator for Iter<'_> {
    type Item = u32;

    #[inline]
    fn next(&mut self) -> Option<u32> {
        match self {
            Self::Plain(times) => times.next().copied(),
            Self::Split(split) => split.next(),
        }
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        match self {
            Self::Plain(times) => times.size_hint(),
            Self::Split(split) => split.lowers.size_hint(),
        }
    }
}

impl SplitIter<'_> {
    #[inline]
    fn next(&mut self) -> Option<u32> {
        let lower = *self.lowers.next()?;
        while self.word == 0 {
            let (at, word) = self.left.next()?;
            (self.at, self.word) = (at, *word);
        }
        let bit = self.at * WORD + self.word.trailing_zeros() as usize;
        self.word &= self.word - 1;
        let stretch = small(bit - self.place);
        self.place += 1;
        Some(stretch << LOWER | u32::from(lower))
    }
}

/// How many words the upper parts of ascending times take; `None` where they had better be left whole. (In tests most
/// days have few facts, and all are put in two parts.)
pub(super) fn words_of(times: &[u32]) -> Option<usize> {
    let bits = times.len() + (times.last()? >> LOWER) as usize + 1;
    let words = bits.div_ceil(WORD);
    (words * 2 < times.len() || cfg!(test)).then_some(words)
}

/// Puts ascending times in two parts; there is room for both, and the upper one is zero.
pub(super) fn put(times: &[u32], uppers: &mut [u32], lowers: &mut [u16]) {
    for ((place, time), lower) in times.iter().enumerate().zip(lowers) {
        let bit = place + (time >> LOWER) as usize;
        uppers[bit / WORD] |= 1 << (bit % WORD);
        // What is masked fits.
        *lower = u16::try_from(lower_of(*time)).unwrap_or(0);
    }
}

fn lower_of(millis: u32) -> u32 {
    millis & ((1 << LOWER) - 1)
}

fn small(place: usize) -> u32 {
    u32::try_from(place).unwrap_or(u32::MAX)
}

/// Where as many zeros have passed; `None` where there are fewer.
fn after_zeros(words: &[u32], count: usize) -> Option<usize> {
    if count == 0 {
        return Some(0);
    }
    let mut left = count;
    for (number, word) in words.iter().enumerate() {
        let zeros = word.count_zeros() as usize;
        if left <= zeros {
            let mut bits = !word;
            for _ in 1..left {
                bits &= bits - 1;
            }
            return Some(number * WORD + bits.trailing_zeros() as usize + 1);
        }
        left -= zeros;
    }
    None
}

/// How many ones follow each other from a bit on.
fn ones(words: &[u32], from: usize) -> usize {
    let (mut number, mut bit, mut count) = (from / WORD, from % WORD, 0);
    while let Some(word) = words.get(number) {
        let of_word = (!(word >> bit)).trailing_zeros() as usize;
        // Zeros were moved in from above.
        count += of_word;
        if bit + of_word < WORD {
            break;
        }
        (number, bit) = (number + 1, 0);
    }
    count
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn times() -> impl Strategy<Value = Vec<u32>> {
        // All over the day, and many at once.
        let time =
            prop_oneof![0..86_400_000u32, 0..3u32 << 16, 70_000..70_100u32, Just(86_399_999)];
        prop::collection::vec(time, 1..400).prop_map(|mut times| {
            times.sort_unstable();
            times
        })
    }

    proptest! {
        #[test]
        fn two_parts_are_as_one(times in times(), from in 0..400usize, to in 0..400usize, more in 0..86_400_000u32) {
            let bits = times.len() + (times[times.len() - 1] >> LOWER) as usize + 1;
            let mut uppers = vec![0; bits.div_ceil(WORD)];
            let mut lowers = vec![0; times.len()];
            put(&times, &mut uppers, &mut lowers);
            let split = Times::split(&uppers, &lowers);
            prop_assert_eq!(split.iter().collect::<Vec<_>>(), &times[..]);
            let (from, to) = (from.min(times.len()), to.min(times.len()));
            let places = from.min(to)..from.max(to);
            let (split, plain) = (split.at(places.clone()), Times::Plain(&times).at(places.clone()));
            prop_assert_eq!(split.iter().size_hint().0, places.len());
            prop_assert_eq!(split.iter().collect::<Vec<_>>(), plain.iter().collect::<Vec<_>>());
            let near = times.iter().flat_map(|time| [time.saturating_sub(1), *time, time + 1]);
            for millis in near.chain([0, more, u32::MAX]) {
                prop_assert_eq!(split.before(millis), plain.before(millis), "{}", millis);
            }
        }
    }
}
