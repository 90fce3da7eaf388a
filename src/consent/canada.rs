//! Section 5 of a GPP string: Canada's Transparency and Consent Framework, version 1.

use super::MAX_STRING;
use super::Unreadable;
use super::bits::Bits;
use super::head::Head;
use super::head::PublisherPurposes;
use super::head::Restriction;
use super::head::purposes;
use super::head::read_fixed_restrictions;
use super::head::read_restrictions;
use super::vendors::Coding;
use super::vendors::Vendors;
use crate::model::Purposes;

/// A decoded section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Canada {
    /// Who made it, when, and from which texts.
    pub head: Head,
    /// Whether the publisher put other words than the framework's before the visitor.
    pub uses_non_standard_texts: bool,
    /// Special features with express consent: a bit for each, that of 1 the lowest.
    pub special_features: u16,
    /// Purposes with express consent.
    pub express: Purposes,
    /// Purposes with implied consent, to which the visitor did not object.
    pub implied: Purposes,
    /// Vendors with express consent.
    pub vendor_express: Vendors,
    /// Vendors with implied consent.
    pub vendor_implied: Vendors,
    /// What the publisher does not leave to vendors.
    pub restrictions: Vec<Restriction>,
    /// Vendors that the visitor was told of, where the section says so.
    pub disclosed: Option<Vendors>,
    /// What the visitor allowed the publisher itself.
    pub publisher: Option<PublisherPurposes>,
}

impl Canada {
    /// Reads a section: the core, and each segment at most once, in any order.
    ///
    /// The specification has ranges in the Fibonacci coding, and the libraries that made strings until 2026 wrote 16
    /// bits an id. A core is read by the specification where that comes out even, else by the libraries.
    pub fn parse(text: &str) -> Result<Self, Unreadable> {
        if text.len() > MAX_STRING {
            return Err(Unreadable::TooLong);
        }
        let mut segments = text.split('.');
        let core = segments.next().unwrap_or_default();
        let core = |coding| Self::core(core, coding);
        let mut canada = core(Coding::Fibonacci).or_else(|_| core(Coding::Fixed))?;
        for segment in segments {
            let mut bits = Bits::new(segment)?;
            let is_doubled = match bits.u8(3)? {
                1 => canada.disclosed.replace(disclosed(&bits)?).is_some(),
                3 => canada.publisher.replace(PublisherPurposes::read(&mut bits)?).is_some(),
                _ => return Err(Unreadable::Segment),
            };
            if is_doubled {
                return Err(Unreadable::Segment);
            }
        }
        Ok(canada)
    }

    fn core(text: &str, coding: Coding) -> Result<Self, Unreadable> {
        let mut bits = Bits::new(text)?;
        let bits = &mut bits;
        if bits.u8(6)? != 1 {
            return Err(Unreadable::Version);
        }
        let canada = Self {
            head: Head::read(bits)?,
            uses_non_standard_texts: bits.flag()?,
            special_features: u16::try_from(bits.set(12)?).map_err(|_| Unreadable::Value)?,
            express: purposes(bits)?,
            implied: purposes(bits)?,
            vendor_express: Vendors::read(bits, coding)?,
            vendor_implied: Vendors::read(bits, coding)?,
            // The field came later than the others.
            restrictions: match coding {
                _ if bits.remaining() < 12 => Vec::new(),
                Coding::Fixed => read_fixed_restrictions(bits)?,
                Coding::Fibonacci => {
                    read_restrictions(bits, |bits| Ok(Vendors::read(bits, coding)?.ranges()))?
                }
            },
            disclosed: None,
            publisher: None,
        };
        if bits.is_at_the_padding() { Ok(canada) } else { Err(Unreadable::Range) }
    }
}

fn disclosed(bits: &Bits<'_>) -> Result<Vendors, Unreadable> {
    let read = |coding| {
        let mut bits = bits.clone();
        let vendors = Vendors::read(&mut bits, coding)?;
        if bits.is_at_the_padding() { Ok(vendors) } else { Err(Unreadable::Range) }
    };
    read(Coding::Fibonacci).or_else(|_| read(Coding::Fixed))
}
