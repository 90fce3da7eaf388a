//! What a request passes on of its visitor's choice, before anything of it is decoded.

use std::borrow::Cow;

/// The signals of one hit, as they were sent.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Signals<'a> {
    /// Whether the EU's framework applies, where the hit says so.
    pub gdpr: Option<bool>,
    /// The EU's string; empty where there is none.
    pub tcf: Cow<'a, str>,
    /// The string of the Global Privacy Platform; empty where there is none.
    pub gpp: Cow<'a, str>,
    /// Which sections of that apply.
    pub sections: Sections,
    /// Whether `us_privacy` is an opt-out of sale.
    pub sale_opt_out: bool,
    /// Whether the visitor took consent back, by no string but in a word of the client's own.
    pub withdrawn: bool,
}

impl Signals<'_> {
    /// Whether the EU's framework applies: the hit says so, or has a string and does not say that it does not.
    pub fn gdpr_applies(&self) -> bool {
        self.gdpr.unwrap_or(!self.tcf.trim().is_empty())
    }

    /// Whether a hit says anything about consent.
    pub fn is_silent(&self) -> bool {
        !self.gdpr_applies() && self.sections.is_empty() && !self.sale_opt_out && !self.withdrawn
    }
}

/// Whether a `us_privacy` string is an opt-out of sale, whatever else it says.
pub fn is_sale_opt_out(us_privacy: &str) -> bool {
    matches!(us_privacy.trim().as_bytes(), [b'1', _, b'Y' | b'y', _])
}

/// Ids of sections that apply.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sections {
    /// A bit for each id below 64.
    ids: u64,
    is_unreadable: bool,
}

impl Sections {
    /// Reads `gpp_sid`: ids with `,` or `_` between; 0 and -1 mean that none applies.
    pub fn parse(text: &str) -> Self {
        let mut sections = Self::default();
        for id in text.split([',', '_']) {
            match id.trim() {
                "" => {}
                id => sections.add(id.parse().ok()),
            }
        }
        sections
    }

    /// Adds an id, or that there is one which cannot be read.
    pub fn add(&mut self, id: Option<i64>) {
        match id {
            Some(-1 | 0) => {}
            Some(id @ 1..64) => self.ids |= 1 << id,
            _ => self.is_unreadable = true,
        }
    }

    /// Whether no section applies.
    pub fn is_empty(self) -> bool {
        self == Self::default()
    }

    /// Whether something was named that is no id of a section.
    pub fn is_unreadable(self) -> bool {
        self.is_unreadable
    }

    /// The ids, ascending.
    pub fn iter(self) -> impl Iterator<Item = u16> {
        (1..64).filter(move |id| self.ids >> id & 1 == 1)
    }
}
