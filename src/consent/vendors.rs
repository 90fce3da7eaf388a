//! Sets of vendor ids, 1 to 65,535, in the three forms that strings have them.

use super::Unreadable;
use super::bits::Bits;

/// A set of vendor ids.
///
/// It takes no more memory than the text it was read from has bits for: a range is kept as its two ends,
/// whatever lies between.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Vendors(Kind);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Kind {
    /// A bit for each id from 1, the lowest of each word first.
    Bits(Vec<u64>),
    /// First and last id of each range, ascending and apart.
    Ranges(Vec<(u16, u16)>),
}

/// How the ids of ranges are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Coding {
    /// As 16 bits each.
    Fixed,
    /// As the distance from the id before, in the Fibonacci coding.
    Fibonacci,
}

impl Vendors {
    /// Whether an id is in the set. It takes a step for each doubling of the number of ranges.
    pub fn contains(&self, id: u16) -> bool {
        match &self.0 {
            Kind::Bits(words) => id.checked_sub(1).is_some_and(|bit| {
                let word = words.get(usize::from(bit / 64)).copied().unwrap_or(0);
                word >> (bit % 64) & 1 == 1
            }),
            Kind::Ranges(ranges) => {
                let at = ranges.partition_point(|(_, last)| *last < id);
                ranges.get(at).is_some_and(|(first, _)| *first <= id)
            }
        }
    }

    /// The ids, ascending, each once.
    pub fn iter(&self) -> impl Iterator<Item = u16> {
        let (words, ranges): (&[u64], &[(u16, u16)]) = match &self.0 {
            Kind::Bits(words) => (words, &[]),
            Kind::Ranges(ranges) => (&[], ranges),
        };
        let bits = (1..=u16::MAX).take(words.len() * 64).filter(|id| self.contains(*id));
        bits.chain(ranges.iter().flat_map(|(first, last)| *first..=*last))
    }

    /// Reads the highest id, then a bit for each id up to it, or ranges.
    pub(super) fn read(bits: &mut Bits<'_>, coding: Coding) -> Result<Self, Unreadable> {
        let max = bits.u16(16)?;
        if bits.flag()? {
            let vendors = Self::of_ranges(read_ranges(bits, coding)?);
            // A reader that takes one coding for the other is off the track here.
            let is_in_step = coding == Coding::Fixed || vendors.last().unwrap_or(0) == max;
            return if is_in_step { Ok(vendors) } else { Err(Unreadable::Range) };
        }
        let max = usize::from(max);
        if max > bits.remaining() {
            return Err(Unreadable::CutShort);
        }
        let words = (0..max).step_by(64).map(|from| bits.set((max - from).min(64)));
        Ok(Self(Kind::Bits(words.collect::<Result<_, _>>()?)))
    }

    fn of_ranges(mut ranges: Vec<(u16, u16)>) -> Self {
        ranges.sort_unstable();
        ranges.dedup_by(|next, kept| {
            let joins = next.0 <= kept.1.saturating_add(1);
            if joins {
                kept.1 = kept.1.max(next.1);
            }
            joins
        });
        Self(Kind::Ranges(ranges))
    }

    /// The first and the last id of each run of ids, ascending and apart.
    pub(super) fn ranges(&self) -> Vec<(u16, u16)> {
        match &self.0 {
            Kind::Ranges(ranges) => ranges.clone(),
            Kind::Bits(_) => {
                let mut runs: Vec<(u16, u16)> = Vec::new();
                for id in self.iter() {
                    match runs.last_mut() {
                        Some((_, last)) if *last == id - 1 => *last = id,
                        _ => runs.push((id, id)),
                    }
                }
                runs
            }
        }
    }

    /// The bytes that the set holds beside itself.
    #[cfg(test)]
    pub(super) fn heap(&self) -> usize {
        match &self.0 {
            Kind::Bits(words) => words.capacity() * size_of::<u64>(),
            Kind::Ranges(ranges) => ranges.capacity() * size_of::<(u16, u16)>(),
        }
    }

    fn last(&self) -> Option<u16> {
        match &self.0 {
            Kind::Bits(_) => self.iter().last(),
            Kind::Ranges(ranges) => ranges.last().map(|(_, last)| *last),
        }
    }
}

/// Reads the number of ranges and their ends, in the order in which they are written.
pub(super) fn read_ranges(
    bits: &mut Bits<'_>,
    coding: Coding,
) -> Result<Vec<(u16, u16)>, Unreadable> {
    let count = usize::from(bits.u16(12)?);
    // What is declared is believed only as far as the text could hold it.
    let mut ranges = Vec::with_capacity(count.min(bits.remaining() / 17));
    let mut before = 0u16;
    for _ in 0..count {
        let is_range = bits.flag()?;
        let mut id = |before: u16| match coding {
            Coding::Fixed => bits.u16(16),
            Coding::Fibonacci => before.checked_add(bits.fibonacci()?).ok_or(Unreadable::Value),
        };
        let first = id(before)?;
        let last = if is_range { id(first)? } else { first };
        if first == 0 || last < first {
            return Err(Unreadable::Range);
        }
        ranges.push((first, last));
        before = last;
    }
    Ok(ranges)
}
