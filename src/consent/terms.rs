//! From what a string says to what it allows us.

use super::Canada;
use super::Gpp;
use super::Restriction;
use super::Signals;
use super::Tcf;
use super::Unreadable;
use super::Us;
use super::Usp;
use super::Vendors;
use crate::model::Consent;
use crate::model::Millis;
use crate::model::Purposes;

/// From here on a string that is made has to say which vendors the visitor was told of: 2026-02-28T00:00:00Z.
const DISCLOSED_SINCE: Millis = 1_772_236_800_000;
/// The first version of the policies under which purposes 3 to 6 need consent.
const MIN_POLICY: u8 = 4;
/// Platforms have ids from here on.
const MIN_CMP: u16 = 2;

/// For whom strings are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Terms<'a> {
    /// Our own id in the Global Vendor List; without one no vendor bit can be ours.
    pub vendor: Option<u16>,
    /// The ids of those to whom the visitor may be made known, ascending.
    pub recipients: &'a [u16],
}

/// Why a string that applies does not allow to record its visitor.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// It is not there.
    #[error("it applies, but there is no string")]
    Missing,
    /// It cannot be read.
    #[error("the string cannot be read: {0}")]
    Unreadable(#[from] Unreadable),
    /// It says for which vendors it is, and nobody said which one we are.
    #[error("the site has no `tcf_vendor`, so that no vendor's consent can be ours")]
    NoVendor,
    /// It was made by no registered platform.
    #[error("the string is of no registered consent management platform")]
    Cmp,
    /// It was made under policies by which 3 to 6 needed no consent.
    #[error("the string was made under policies before version 4")]
    Policy,
    /// It is of the global scope, which is no more.
    #[error("the string is not of one service")]
    Global,
    /// It does not say which vendors the visitor was told of.
    #[error("the string was made since 28 February 2026 and has no disclosed vendors")]
    Undisclosed,
    /// The visitor, or the publisher, does not let us keep anything on the device.
    #[error("the string does not allow us purpose 1")]
    Storage,
    /// A section that applies is not in the string, or of no kind that is read.
    #[error("the string has no section {0} that can be read")]
    Section(u16),
    /// A section that applies is an opt-out.
    #[error("section {0} of the string is an opt-out")]
    OptedOut(u16),
    /// What applies cannot be told.
    #[error("the ids of the sections that apply cannot be read")]
    Sections,
}

impl Signals<'_> {
    /// What the EU's string allows; `None` where it does not apply.
    pub fn of_tcf(&self, terms: Terms<'_>) -> Result<Option<Consent>, Refusal> {
        if !self.gdpr_applies() {
            return Ok(None);
        }
        match self.tcf.trim() {
            "" => Err(Refusal::Missing),
            text => terms.tcf(&Tcf::parse(text)?).map(Some),
        }
    }

    /// What the sections that apply allow: `None` where none does that asks for consent.
    pub fn of_gpp(&self, terms: Terms<'_>) -> Result<Option<Consent>, Refusal> {
        if self.sections.is_unreadable() {
            return Err(Refusal::Sections);
        }
        if self.sections.is_empty() {
            return Ok(None);
        }
        let gpp = match self.gpp.trim() {
            "" => return Err(Refusal::Missing),
            text => Gpp::parse(text)?,
        };
        let mut allowed: Option<Consent> = None;
        for id in self.sections.iter() {
            let section = gpp.section(id).ok_or(Refusal::Section(id))?;
            let consent = match id {
                2 => terms.tcf(&Tcf::parse(section)?)?,
                5 => terms.canada(&Canada::parse(section)?)?,
                6 if Usp::parse(section)?.sale_opt_out != Some(true) => continue,
                7..=27 if !Us::parse(id, section)?.is_opted_out() => continue,
                6..=27 => return Err(Refusal::OptedOut(id)),
                _ => return Err(Refusal::Section(id)),
            };
            allowed = Some(allowed.map_or(consent.clone(), |allowed| allowed.and(&consent)));
        }
        Ok(allowed)
    }
}

impl Terms<'_> {
    /// What a string of the EU's framework allows us.
    pub fn tcf(self, tcf: &Tcf) -> Result<Consent, Refusal> {
        let vendor = self.vendor.ok_or(Refusal::NoVendor)?;
        if tcf.head.cmp_id < MIN_CMP {
            return Err(Refusal::Cmp);
        }
        if tcf.head.policy_version < MIN_POLICY {
            return Err(Refusal::Policy);
        }
        if !tcf.is_service_specific {
            return Err(Refusal::Global);
        }
        let made = tcf.head.created.max(tcf.head.updated);
        if tcf.disclosed.is_none() && made >= DISCLOSED_SINCE {
            return Err(Refusal::Undisclosed);
        }
        let consents = Ground {
            purposes: tcf.consents,
            vendors: &tcf.vendor_consents,
            forbidden_by: |kind| kind != 1,
        };
        // Purposes 1 and 3 to 6 have no other ground than consent.
        let interests = [2, 7, 8, 9, 10, 11].into_iter().collect::<Purposes>();
        let interests = Ground {
            purposes: tcf.interests.and(interests),
            vendors: &tcf.vendor_interests,
            forbidden_by: |kind| kind != 2,
        };
        let said = Said {
            disclosed: tcf.disclosed.as_ref(),
            restrictions: &tcf.restrictions,
            grounds: [consents, interests],
        };
        self.allowed(vendor, &said)
    }

    /// What a section of Canada's framework allows us: express consent or, where the publisher does not ask for that,
    /// implied consent.
    pub fn canada(self, canada: &Canada) -> Result<Consent, Refusal> {
        let vendor = self.vendor.ok_or(Refusal::NoVendor)?;
        if canada.head.cmp_id < MIN_CMP {
            return Err(Refusal::Cmp);
        }
        let express = Ground {
            purposes: canada.express,
            vendors: &canada.vendor_express,
            forbidden_by: |kind| kind != 1,
        };
        let implied = Ground {
            purposes: canada.implied,
            vendors: &canada.vendor_implied,
            forbidden_by: |kind| kind != 2,
        };
        let said = Said {
            disclosed: canada.disclosed.as_ref(),
            restrictions: &canada.restrictions,
            grounds: [express, implied],
        };
        self.allowed(vendor, &said)
    }

    fn allowed(self, vendor: u16, said: &Said<'_>) -> Result<Consent, Refusal> {
        let consent = Consent {
            purposes: said.purposes_of(vendor),
            vendors: self
                .recipients
                .iter()
                .copied()
                .filter(|recipient| {
                    let purposes = said.purposes_of(*recipient);
                    purposes.contains(3) && purposes.contains(4)
                })
                .collect(),
        };
        if !consent.allows_storage() {
            return Err(Refusal::Storage);
        }
        Ok(consent)
    }
}

/// A ground on which vendors may process.
struct Ground<'a> {
    purposes: Purposes,
    vendors: &'a Vendors,
    /// Whether a restriction of a kind takes this ground away.
    forbidden_by: fn(u8) -> bool,
}

/// What a string says of all vendors.
struct Said<'a> {
    disclosed: Option<&'a Vendors>,
    restrictions: &'a [Restriction],
    grounds: [Ground<'a>; 2],
}

impl Said<'_> {
    /// The purposes for which a vendor may process, on any ground.
    fn purposes_of(&self, vendor: u16) -> Purposes {
        if self.disclosed.is_some_and(|disclosed| !disclosed.contains(vendor)) {
            return Purposes::default();
        }
        let mut allowed = 0;
        for ground in &self.grounds {
            if !ground.vendors.contains(vendor) {
                continue;
            }
            let of_us = self.restrictions.iter().filter(|r| (r.first..=r.last).contains(&vendor));
            let forbidden = of_us.filter(|r| (ground.forbidden_by)(r.kind)).map(|r| r.purpose);
            let forbidden: Purposes = forbidden.collect();
            allowed |= ground.purposes.bits() & !forbidden.bits();
        }
        Purposes::from_bits(allowed)
    }
}
