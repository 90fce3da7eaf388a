//! Which event names a file may hold: a small Bloom filter in its row of the manifest, so that a file is passed
//! over without a look at it.

use crate::store::state::NameBits;

/// How many bits a name sets, at most.
const PER_NAME: u32 = 3;

/// The bits of a name.
fn bits_of(name: &str) -> impl Iterator<Item = u8> {
    // Kept in stores: the same for ever.
    let hash = crc32c::crc32c(name.as_bytes());
    (0..PER_NAME).map(move |at| (hash >> (8 * at)).to_le_bytes()[0])
}

/// Adds a name.
pub(super) fn add(bits: &mut NameBits, name: &str) {
    for bit in bits_of(name) {
        bits[usize::from(bit / 64)] |= 1 << (bit % 64);
    }
}

/// Whether it may be there; `false` is certain.
pub(super) fn may_have(bits: &NameBits, name: &str) -> bool {
    bits_of(name).all(|bit| bits[usize::from(bit / 64)] >> (bit % 64) & 1 == 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_is_found_and_most_of_the_rest_is_not() {
        let name = |n: u32| format!("event {n}");
        for count in [0, 1, 8, 30] {
            let mut bits = NameBits::default();
            (0..count).for_each(|n| add(&mut bits, &name(n)));
            assert!((0..count).all(|n| may_have(&bits, &name(n))));
            let wrong = (1_000..11_000).filter(|n| may_have(&bits, &name(*n))).count();
            let most = [0, 20, 100, 1_000][[0, 1, 8, 30].iter().position(|c| *c == count).unwrap()];
            assert!(wrong <= most, "{count} names: {wrong} of 10,000");
        }
        // As it stands in stores.
        let mut bits = NameBits::default();
        add(&mut bits, "purchase");
        assert_eq!(bits.iter().map(|part| part.count_ones()).sum::<u32>(), 3);
    }
}
