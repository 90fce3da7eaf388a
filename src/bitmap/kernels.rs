//! The innermost loops, over words of 64 ordinals.
//!
//! Each is plain code that is compiled twice: for every processor, and for those with wider registers, which are told
//! apart where it runs.

#[cfg(target_arch = "x86_64")]
fn is_wide() -> bool {
    is_x86_feature_detected!("avx2")
        && is_x86_feature_detected!("bmi1")
        && is_x86_feature_detected!("bmi2")
        && is_x86_feature_detected!("popcnt")
}

macro_rules! kernel {
    ($(#[$doc:meta])* fn $name:ident($($argument:ident: $type:ty),*) $(-> $result:ty)? $body:block) => {
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
                if is_wide() {
                    #[expect(unsafe_code, reason = "the same safe code for a processor that was looked at")]
                    // SAFETY: the processor has the features that the function is compiled for.
                    return unsafe { wide($($argument),*) };
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
pub(super) const ROOM: usize = (1 << 16) + AT_ONCE;
const AT_ONCE: usize = 4;

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

kernel! {
    /// Lists the members, ascending, and returns how many there are.
    fn list(words: &[u64], out: &mut [u16; ROOM]) -> usize {
        let mut count = 0;
        for (place, word) in (0u16..1 << 10).zip(words) {
            count = list_word(place, *word, count, out);
        }
        count
    }
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
