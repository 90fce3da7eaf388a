//! Strings of the EU's Transparency and Consent Framework, 2.0 to 2.3: the core and the segments behind it.

use super::MAX_STRING;
use super::Unreadable;
use super::bits::Bits;
use super::head::Head;
use super::head::PublisherPurposes;
use super::head::Restriction;
use super::head::letters;
use super::head::purposes;
use super::head::read_fixed_restrictions;
use super::vendors::Coding;
use super::vendors::Vendors;
use crate::model::Purposes;

/// A decoded string of version 2.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tcf {
    /// Who made it, when, and from which texts.
    pub head: Head,
    /// Whether it is of one service, and not of all that took part in a global scope, which is no more.
    pub is_service_specific: bool,
    /// Whether the publisher put other words than the framework's before the visitor.
    pub uses_non_standard_texts: bool,
    /// Special features that were opted into: a bit for each, that of 1 the lowest.
    pub special_features: u16,
    /// Purposes that the visitor consented to.
    pub consents: Purposes,
    /// Purposes with legitimate interest, which the visitor was told of and did not object to.
    pub interests: Purposes,
    /// Whether the visitor was not asked about purpose 1, by the law of the publisher's country.
    pub purpose_one_treatment: bool,
    /// The country whose law is the publisher's, as two capital letters.
    pub publisher_country: [char; 2],
    /// Vendors that the visitor consented to.
    pub vendor_consents: Vendors,
    /// Vendors with legitimate interest.
    pub vendor_interests: Vendors,
    /// What the publisher does not leave to vendors.
    pub restrictions: Vec<Restriction>,
    /// Vendors that the visitor was told of, where the string says so.
    pub disclosed: Option<Vendors>,
    /// Vendors that the publisher allows, a segment of the global scope.
    pub allowed: Option<Vendors>,
    /// What the visitor allowed the publisher itself.
    pub publisher: Option<PublisherPurposes>,
}

impl Tcf {
    /// Reads a string: the core, and each segment at most once, in any order.
    pub fn parse(text: &str) -> Result<Self, Unreadable> {
        if text.len() > MAX_STRING {
            return Err(Unreadable::TooLong);
        }
        let mut segments = text.split('.');
        let mut tcf = Self::core(segments.next().unwrap_or_default())?;
        for segment in segments {
            let mut bits = Bits::new(segment)?;
            let is_doubled = match bits.u8(3)? {
                1 => tcf.disclosed.replace(Vendors::read(&mut bits, Coding::Fixed)?).is_some(),
                2 => tcf.allowed.replace(Vendors::read(&mut bits, Coding::Fixed)?).is_some(),
                3 => tcf.publisher.replace(PublisherPurposes::read(&mut bits)?).is_some(),
                _ => return Err(Unreadable::Segment),
            };
            if is_doubled {
                return Err(Unreadable::Segment);
            }
        }
        Ok(tcf)
    }

    fn core(text: &str) -> Result<Self, Unreadable> {
        let mut bits = Bits::new(text)?;
        let bits = &mut bits;
        if bits.u8(6)? != 2 {
            return Err(Unreadable::Version);
        }
        Ok(Self {
            head: Head::read(bits)?,
            is_service_specific: bits.flag()?,
            uses_non_standard_texts: bits.flag()?,
            special_features: u16::try_from(bits.set(12)?).map_err(|_| Unreadable::Value)?,
            consents: purposes(bits)?,
            interests: purposes(bits)?,
            purpose_one_treatment: bits.flag()?,
            publisher_country: letters(bits)?,
            vendor_consents: Vendors::read(bits, Coding::Fixed)?,
            vendor_interests: Vendors::read(bits, Coding::Fixed)?,
            restrictions: read_fixed_restrictions(bits)?,
            disclosed: None,
            allowed: None,
            publisher: None,
        })
    }
}
