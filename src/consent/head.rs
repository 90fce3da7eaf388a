//! What the strings of the EU's and of Canada's framework have in common.

use super::Unreadable;
use super::bits::Bits;
use super::vendors::Coding;
use super::vendors::read_ranges;
use crate::model::Millis;
use crate::model::Purposes;

/// Who made a string, when, and from which texts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// When it was made, in steps of 100 ms.
    pub created: Millis,
    /// When it was changed last.
    pub updated: Millis,
    /// The consent management platform that made it.
    pub cmp_id: u16,
    /// The version of that platform.
    pub cmp_version: u16,
    /// The screen of that platform on which the choice was made.
    pub consent_screen: u8,
    /// The language of that screen, as two capital letters.
    pub language: [char; 2],
    /// The version of the vendor list that it was made from.
    pub vendor_list_version: u16,
    /// The version of the framework's policies that it was made under.
    pub policy_version: u8,
}

impl Head {
    /// Reads all behind the version.
    pub(super) fn read(bits: &mut Bits<'_>) -> Result<Self, Unreadable> {
        Ok(Self {
            created: bits.i64(36)? * 100,
            updated: bits.i64(36)? * 100,
            cmp_id: bits.u16(12)?,
            cmp_version: bits.u16(12)?,
            consent_screen: bits.u8(6)?,
            language: letters(bits)?,
            vendor_list_version: bits.u16(12)?,
            policy_version: bits.u8(6)?,
        })
    }
}

/// A publisher's word that vendors may not use a purpose, or only on one ground.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Restriction {
    /// The purpose.
    pub purpose: u8,
    /// 0: not at all; 1: with consent alone (in Canada, express consent); 2: with legitimate interest alone (implied
    /// consent); 3 has no meaning.
    pub kind: u8,
    /// The first of the vendors that it is for.
    pub first: u16,
    /// The last of them.
    pub last: u16,
}

/// Reads the restrictions, one for each range of vendors.
pub(super) fn read_restrictions(
    bits: &mut Bits<'_>,
    mut ranges: impl FnMut(&mut Bits<'_>) -> Result<Vec<(u16, u16)>, Unreadable>,
) -> Result<Vec<Restriction>, Unreadable> {
    let mut restrictions = Vec::new();
    for _ in 0..bits.u16(12)? {
        let (purpose, kind) = (bits.u8(6)?, bits.u8(2)?);
        let ranges = ranges(bits)?.into_iter();
        restrictions.extend(ranges.map(|(first, last)| Restriction { purpose, kind, first, last }));
    }
    Ok(restrictions)
}

/// Reads restrictions whose ranges have ends of 16 bits.
pub(super) fn read_fixed_restrictions(bits: &mut Bits<'_>) -> Result<Vec<Restriction>, Unreadable> {
    read_restrictions(bits, |bits| read_ranges(bits, Coding::Fixed))
}

/// What the visitor allowed the publisher itself, which says nothing about vendors.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PublisherPurposes {
    /// The purposes with consent; in Canada, with express consent.
    pub consents: Purposes,
    /// The purposes with legitimate interest; in Canada, with implied consent.
    pub interests: Purposes,
    /// How many purposes of its own the publisher has, at most 63.
    pub custom: u8,
    /// Those of its own with consent: a bit for each, the lowest first.
    pub custom_consents: u64,
    /// Those of its own with legitimate interest.
    pub custom_interests: u64,
}

impl PublisherPurposes {
    /// Reads all behind the segment's type.
    pub(super) fn read(bits: &mut Bits<'_>) -> Result<Self, Unreadable> {
        let (consents, interests) = (purposes(bits)?, purposes(bits)?);
        let custom = bits.u8(6)?;
        let mut set = || bits.set(usize::from(custom));
        Ok(Self { consents, interests, custom, custom_consents: set()?, custom_interests: set()? })
    }
}

/// Reads a set of purposes.
pub(super) fn purposes(bits: &mut Bits<'_>) -> Result<Purposes, Unreadable> {
    let set = u32::try_from(bits.set(24)?).map_err(|_| Unreadable::Value)?;
    Ok(Purposes::from_bits(set))
}

/// Reads two letters, each as its place in the alphabet.
pub(super) fn letters(bits: &mut Bits<'_>) -> Result<[char; 2], Unreadable> {
    let mut letter = || match bits.u8(6)? {
        place @ 0..26 => Ok(char::from(b'A' + place)),
        _ => Err(Unreadable::Value),
    };
    Ok([letter()?, letter()?])
}
