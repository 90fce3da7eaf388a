//! What a visitor's consent allows, as it travels with an event.

/// A set of purposes of the Transparency and Consent Framework, 1 to 24.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Purposes(u32);

impl Purposes {
    /// The highest purpose that a string has room for.
    pub const MAX: u8 = 24;

    /// The set whose bits, from the lowest, are the purposes from 1; bits beyond the 24th are left out.
    pub fn from_bits(bits: u32) -> Self {
        Self(bits & ((1 << Self::MAX) - 1))
    }

    /// One bit for each purpose, that of 1 the lowest.
    pub fn bits(self) -> u32 {
        self.0
    }

    /// Whether a purpose is in the set; 0 and what is beyond 24 never are.
    pub fn contains(self, purpose: u8) -> bool {
        (1..=Self::MAX).contains(&purpose) && self.0 >> (purpose - 1) & 1 == 1
    }

    /// The purposes, in ascending order.
    pub fn iter(self) -> impl Iterator<Item = u8> {
        (1..=Self::MAX).filter(move |purpose| self.contains(*purpose))
    }

    /// The purposes that are in both.
    pub fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

impl FromIterator<u8> for Purposes {
    fn from_iter<T: IntoIterator<Item = u8>>(purposes: T) -> Self {
        let within = purposes.into_iter().filter(|purpose| (1..=Self::MAX).contains(purpose));
        Self(within.fold(0, |bits, purpose| bits | 1 << (purpose - 1)))
    }
}

/// The purposes of which one allows look-alikes: to understand audiences by statistics, and to develop services.
pub const LOOK_ALIKES: [u8; 2] = [9, 10];

/// What a visitor allowed, where a signal asked for it.
///
/// An event without one came where no such signal applied: nothing is forbidden by its silence.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Consent {
    /// The purposes for which we may process.
    pub purposes: Purposes,
    /// The vendor ids, in ascending order, of destinations to which the visitor may be made known.
    pub vendors: Vec<u16>,
}

impl Consent {
    /// Whether something may be kept on the device and read from it, and so recorded at all: purpose 1.
    pub fn allows_storage(&self) -> bool {
        self.purposes.contains(1)
    }

    /// Whether the profile may be in audiences that are sent: purposes 3 and 4.
    pub fn allows_audiences(&self) -> bool {
        self.purposes.contains(3) && self.purposes.contains(4)
    }

    /// Whether the profile may teach look-alikes, and be chosen by them: one of [`LOOK_ALIKES`].
    pub fn allows_look_alikes(&self) -> bool {
        LOOK_ALIKES.iter().any(|purpose| self.purposes.contains(*purpose))
    }

    /// Whether the profile may be made known to the vendor of a destination.
    pub fn allows_vendor(&self, vendor: u16) -> bool {
        self.allows_audiences() && self.vendors.binary_search(&vendor).is_ok()
    }

    /// What both allow.
    pub fn and(&self, other: &Self) -> Self {
        let vendors = self.vendors.iter().copied().filter(|vendor| other.vendors.contains(vendor));
        Self { purposes: self.purposes.and(other.purposes), vendors: vendors.collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn purposes_are_a_set_of_1_to_24() {
        let purposes: Purposes = [24, 1, 0, 25, 3, 3].into_iter().collect();
        assert_eq!(purposes.iter().collect::<Vec<_>>(), [1, 3, 24]);
        assert!(!purposes.contains(0) && !purposes.contains(25) && !purposes.contains(255));
        assert_eq!(Purposes::from_bits(u32::MAX).iter().count(), 24);
        assert_eq!(Purposes::from_bits(purposes.bits()), purposes);
    }

    #[test]
    fn each_use_asks_its_purposes() {
        let consent = |purposes: &[u8]| Consent {
            purposes: purposes.iter().copied().collect(),
            vendors: vec![7, 755],
        };
        for (purposes, storage, audiences, look_alikes) in [
            (&[][..], false, false, false),
            (&[1], true, false, false),
            (&[1, 3], true, false, false),
            (&[1, 4], true, false, false),
            (&[1, 3, 4], true, true, false),
            (&[2, 5, 6, 7, 8, 11], false, false, false),
            (&[9], false, false, true),
            (&[10], false, false, true),
        ] {
            let consent = consent(purposes);
            assert_eq!(consent.allows_storage(), storage, "{purposes:?}");
            assert_eq!(consent.allows_audiences(), audiences, "{purposes:?}");
            assert_eq!(consent.allows_look_alikes(), look_alikes, "{purposes:?}");
            assert_eq!(consent.allows_vendor(755), audiences, "{purposes:?}");
            assert!(!consent.allows_vendor(8));
        }
    }

    #[test]
    fn two_signals_allow_what_both_do() {
        let one = Consent { purposes: [1, 3, 4].into_iter().collect(), vendors: vec![1, 2] };
        let other = Consent { purposes: [1, 4, 9].into_iter().collect(), vendors: vec![2, 3] };
        let both = Consent { purposes: [1, 4].into_iter().collect(), vendors: vec![2] };
        assert_eq!(one.and(&other), both);
    }
}
