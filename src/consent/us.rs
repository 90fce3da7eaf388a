//! Sections 6 to 27 of a GPP string: what a visitor in the United States opted out of.
//!
//! Sections 7 and above are of one kind: a version, then fields of two bits, in an order of each section's own, which
//! [`LAYOUTS`] holds. In all of them 1 is an opt-out, 2 is none, and 0 is that the field does not apply.

use super::MAX_STRING;
use super::Unreadable;
use super::bits::Bits;

/// A field of a section, by its name in the specification.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Field {
    /// The visitor was told that data is processed.
    ProcessingNotice,
    /// The visitor was told that data is shared.
    SharingNotice,
    /// The visitor was told of the right to opt out of sale.
    SaleOptOutNotice,
    /// The visitor was told of the right to opt out of sharing.
    SharingOptOutNotice,
    /// The visitor was told of the right to opt out of targeted advertising.
    TargetedAdvertisingOptOutNotice,
    /// The visitor was told of the right to opt out of the processing of sensitive data.
    SensitiveDataProcessingOptOutNotice,
    /// The same in Iowa.
    SensitiveDataOptOutNotice,
    /// The visitor was told of the right to limit the use of sensitive data.
    SensitiveDataLimitUseNotice,
    /// An opt-out of sale.
    SaleOptOut,
    /// An opt-out of sharing.
    SharingOptOut,
    /// An opt-out of targeted advertising.
    TargetedAdvertisingOptOut,
    /// What holds for each kind of sensitive data.
    SensitiveDataProcessing,
    /// What holds for a known child, by age; 0 where the visitor is not known to be one.
    KnownChildSensitiveDataConsents,
    /// A consent to uses that are none of those that were told.
    PersonalDataConsents,
    /// The same in later sections.
    AdditionalDataProcessingConsent,
    /// Whether the parties' agreement covers the transaction.
    MspaCoveredTransaction,
    /// Whether its mode for opt-outs is on.
    MspaOptOutOptionMode,
    /// Whether its mode for service providers is on.
    MspaServiceProviderMode,
    /// Which of its modes is on, in the sections since Maryland's.
    MspaMode,
}

use Field as F;

/// The fields of a section in order, and how many values each has.
type Layout = &'static [(Field, usize)];

/// The most values that a section has: those of section 7.
const MAX_VALUES: usize = 32;

/// Section 7 as it was until it had more kinds of sensitive data and more ages.
const US_NATIONAL_1: Layout = &[
    (F::SharingNotice, 1),
    (F::SaleOptOutNotice, 1),
    (F::SharingOptOutNotice, 1),
    (F::TargetedAdvertisingOptOutNotice, 1),
    (F::SensitiveDataProcessingOptOutNotice, 1),
    (F::SensitiveDataLimitUseNotice, 1),
    (F::SaleOptOut, 1),
    (F::SharingOptOut, 1),
    (F::TargetedAdvertisingOptOut, 1),
    (F::SensitiveDataProcessing, 12),
    (F::KnownChildSensitiveDataConsents, 2),
    (F::PersonalDataConsents, 1),
    (F::MspaCoveredTransaction, 1),
    (F::MspaOptOutOptionMode, 1),
    (F::MspaServiceProviderMode, 1),
];

/// Section 7 as it is.
const US_NATIONAL_2: Layout = &[
    (F::SharingNotice, 1),
    (F::SaleOptOutNotice, 1),
    (F::SharingOptOutNotice, 1),
    (F::TargetedAdvertisingOptOutNotice, 1),
    (F::SensitiveDataProcessingOptOutNotice, 1),
    (F::SensitiveDataLimitUseNotice, 1),
    (F::SaleOptOut, 1),
    (F::SharingOptOut, 1),
    (F::TargetedAdvertisingOptOut, 1),
    (F::SensitiveDataProcessing, 16),
    (F::KnownChildSensitiveDataConsents, 3),
    (F::PersonalDataConsents, 1),
    (F::MspaCoveredTransaction, 1),
    (F::MspaOptOutOptionMode, 1),
    (F::MspaServiceProviderMode, 1),
];

const CALIFORNIA: Layout = &[
    (F::SaleOptOutNotice, 1),
    (F::SharingOptOutNotice, 1),
    (F::SensitiveDataLimitUseNotice, 1),
    (F::SaleOptOut, 1),
    (F::SharingOptOut, 1),
    (F::SensitiveDataProcessing, 9),
    (F::KnownChildSensitiveDataConsents, 2),
    (F::PersonalDataConsents, 1),
    (F::MspaCoveredTransaction, 1),
    (F::MspaOptOutOptionMode, 1),
    (F::MspaServiceProviderMode, 1),
];

/// The layout of the early states, which differ in how many kinds of sensitive data and ages they have.
macro_rules! early {
    ($sensitive:literal, $child:literal $(, $consent:ident)?) => {
        &[
            (F::SharingNotice, 1),
            (F::SaleOptOutNotice, 1),
            (F::TargetedAdvertisingOptOutNotice, 1),
            (F::SaleOptOut, 1),
            (F::TargetedAdvertisingOptOut, 1),
            (F::SensitiveDataProcessing, $sensitive),
            (F::KnownChildSensitiveDataConsents, $child),
            $((F::$consent, 1),)?
            (F::MspaCoveredTransaction, 1),
            (F::MspaOptOutOptionMode, 1),
            (F::MspaServiceProviderMode, 1),
        ]
    };
}

/// The layout of the later states.
macro_rules! later {
    ($sensitive:literal, $child:literal) => {
        &[
            (F::ProcessingNotice, 1),
            (F::SaleOptOutNotice, 1),
            (F::TargetedAdvertisingOptOutNotice, 1),
            (F::SaleOptOut, 1),
            (F::TargetedAdvertisingOptOut, 1),
            (F::SensitiveDataProcessing, $sensitive),
            (F::KnownChildSensitiveDataConsents, $child),
            (F::AdditionalDataProcessingConsent, 1),
            (F::MspaCoveredTransaction, 1),
            (F::MspaOptOutOptionMode, 1),
            (F::MspaServiceProviderMode, 1),
        ]
    };
}

const UTAH: Layout = &[
    (F::SharingNotice, 1),
    (F::SaleOptOutNotice, 1),
    (F::TargetedAdvertisingOptOutNotice, 1),
    (F::SensitiveDataProcessingOptOutNotice, 1),
    (F::SaleOptOut, 1),
    (F::TargetedAdvertisingOptOut, 1),
    (F::SensitiveDataProcessing, 8),
    (F::KnownChildSensitiveDataConsents, 1),
    (F::MspaCoveredTransaction, 1),
    (F::MspaOptOutOptionMode, 1),
    (F::MspaServiceProviderMode, 1),
];

const IOWA: Layout = &[
    (F::ProcessingNotice, 1),
    (F::SaleOptOutNotice, 1),
    (F::TargetedAdvertisingOptOutNotice, 1),
    (F::SensitiveDataOptOutNotice, 1),
    (F::SaleOptOut, 1),
    (F::TargetedAdvertisingOptOut, 1),
    (F::SensitiveDataProcessing, 8),
    (F::KnownChildSensitiveDataConsents, 1),
    (F::MspaCoveredTransaction, 1),
    (F::MspaOptOutOptionMode, 1),
    (F::MspaServiceProviderMode, 1),
];

/// The layout of the states since Maryland, but for hers, which has nothing of children. What holds for sensitive data is a
/// segment of its own.
const LATEST: Layout = &[
    (F::MspaCoveredTransaction, 1),
    (F::MspaMode, 1),
    (F::ProcessingNotice, 1),
    (F::SaleOptOutNotice, 1),
    (F::TargetedAdvertisingOptOutNotice, 1),
    (F::SaleOptOut, 1),
    (F::TargetedAdvertisingOptOut, 1),
    (F::KnownChildSensitiveDataConsents, 1),
    (F::AdditionalDataProcessingConsent, 1),
];

const MARYLAND: Layout = &[
    (F::MspaCoveredTransaction, 1),
    (F::MspaMode, 1),
    (F::ProcessingNotice, 1),
    (F::SaleOptOutNotice, 1),
    (F::TargetedAdvertisingOptOutNotice, 1),
    (F::SaleOptOut, 1),
    (F::TargetedAdvertisingOptOut, 1),
    (F::AdditionalDataProcessingConsent, 1),
];

/// How many kinds of sensitive data have a segment of their own.
const SENSITIVE: usize = 8;

/// The sections of the states, by id from 8.
const LAYOUTS: [Layout; 20] = [
    CALIFORNIA,
    early!(8, 1), // Virginia
    early!(7, 1), // Colorado
    UTAH,
    early!(8, 3),                                  // Connecticut
    later!(8, 3),                                  // Florida
    early!(8, 3, AdditionalDataProcessingConsent), // Montana
    later!(11, 3),                                 // Oregon
    later!(8, 1),                                  // Texas
    later!(9, 5),                                  // Delaware
    IOWA,
    later!(8, 1),  // Nebraska
    later!(8, 3),  // New Hampshire
    later!(10, 5), // New Jersey
    later!(8, 1),  // Tennessee
    later!(8, 1),  // Minnesota
    MARYLAND,
    LATEST, // Indiana
    LATEST, // Kentucky
    LATEST, // Rhode Island
];

/// A decoded section 7 to 27.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Us {
    /// The version of the section.
    pub version: u8,
    /// Whether the browser sent Global Privacy Control; `None` where the section does not say.
    pub gpc: Option<bool>,
    layout: Layout,
    values: [u8; MAX_VALUES],
}

impl Us {
    /// Reads a section by its id.
    pub fn parse(id: u16, text: &str) -> Result<Self, Unreadable> {
        if text.len() > MAX_STRING {
            return Err(Unreadable::TooLong);
        }
        let mut segments = text.split('.');
        let mut bits = Bits::new(segments.next().unwrap_or_default())?;
        let length = bits.remaining();
        let version = bits.u8(6)?;
        let layout = match (id, version) {
            // For a while the longer layout was written under the first version, too.
            (7, 1) if length <= 66 => US_NATIONAL_1,
            (7, 1 | 2) => US_NATIONAL_2,
            (8..=27, 1) => LAYOUTS[usize::from(id) - 8],
            _ => return Err(Unreadable::Version),
        };
        let mut values = [0; MAX_VALUES];
        let count = layout.iter().map(|(_, count)| count).sum();
        for value in &mut values[..count] {
            *value = bits.u8(2)?;
            if *value > 2 {
                return Err(Unreadable::Value);
            }
        }
        let mut gpc = None;
        for (at, segment) in segments.enumerate() {
            let mut bits = Bits::new(segment)?;
            if id > 24 {
                // Theirs is of sensitive data alone, and says not what it is.
                let is_read =
                    at == 0 && (0..SENSITIVE).all(|_| bits.u8(2).is_ok_and(|value| value < 3));
                if !is_read {
                    return Err(Unreadable::Segment);
                }
                continue;
            }
            if bits.u8(2)? != 1 || gpc.replace(bits.flag()?).is_some() {
                return Err(Unreadable::Segment);
            }
        }
        Ok(Self { version, gpc, layout, values })
    }

    /// The values of a field; none where the section does not have it.
    pub fn get(&self, field: Field) -> &[u8] {
        let mut at = 0;
        for (other, count) in self.layout {
            if *other == field {
                return &self.values[at..at + count];
            }
            at += count;
        }
        &[]
    }

    /// The fields of the section, in order.
    pub fn fields(&self) -> impl Iterator<Item = Field> {
        self.layout.iter().map(|(field, _)| *field)
    }

    /// Whether the visitor opted out of sale, of sharing or of targeted advertising, by a choice or by Global Privacy
    /// Control, or is known to be a child.
    pub fn is_opted_out(&self) -> bool {
        let opted_out = [F::SaleOptOut, F::SharingOptOut, F::TargetedAdvertisingOptOut];
        opted_out.into_iter().any(|field| self.get(field).contains(&1))
            || self.get(F::KnownChildSensitiveDataConsents).iter().any(|age| *age != 0)
            || self.gpc == Some(true)
    }
}

/// A decoded section 6, and `us_privacy`: `1YNN`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Usp {
    /// Whether the visitor was told of the right to opt out; `None` where it does not apply.
    pub notice: Option<bool>,
    /// Whether the visitor opted out of sale.
    pub sale_opt_out: Option<bool>,
    /// Whether the parties' agreement covers the transaction.
    pub covered: Option<bool>,
}

impl Usp {
    /// Reads a string of version 1.
    pub fn parse(text: &str) -> Result<Self, Unreadable> {
        let [version, notice, sale_opt_out, covered] = text.as_bytes() else {
            return Err(Unreadable::CutShort);
        };
        if *version != b'1' {
            return Err(Unreadable::Version);
        }
        let said = |letter: &u8| match letter {
            b'Y' | b'y' => Ok(Some(true)),
            b'N' | b'n' => Ok(Some(false)),
            b'-' => Ok(None),
            _ => Err(Unreadable::Value),
        };
        Ok(Self {
            notice: said(notice)?,
            sale_opt_out: said(sale_opt_out)?,
            covered: said(covered)?,
        })
    }
}
