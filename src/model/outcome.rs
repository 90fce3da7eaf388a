//! What becomes of an event. Each ends in exactly one outcome at collect, and each accepted one in
//! exactly one at fold.

/// What became of an event at collect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Durable as its mode promises.
    Accepted,
    /// Refused by a consent signal, or by its absence.
    RefusedConsent,
    /// Refused because this browser opted out with us.
    OptedOut,
    /// No such site key.
    UnknownSite,
    /// The request's origin is not one of the site's.
    ForeignOrigin,
    /// Unreadable, or against the rules for values.
    Invalid,
    /// Over a size limit.
    TooLarge,
    /// Over a rate limit.
    RateLimited,
    /// Not durable: full disk or shedding.
    Dropped,
    /// Durable, and kept from being folded: its identifier kept sending.
    SetAside,
}

impl Outcome {
    /// Every outcome, for metrics that report all from the start.
    pub const ALL: [Self; 10] = [
        Self::Accepted,
        Self::RefusedConsent,
        Self::OptedOut,
        Self::UnknownSite,
        Self::ForeignOrigin,
        Self::Invalid,
        Self::TooLarge,
        Self::RateLimited,
        Self::Dropped,
        Self::SetAside,
    ];

    /// The name in metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::RefusedConsent => "refused_consent",
            Self::OptedOut => "opted_out",
            Self::UnknownSite => "unknown_site",
            Self::ForeignOrigin => "foreign_origin",
            Self::Invalid => "invalid",
            Self::TooLarge => "too_large",
            Self::RateLimited => "rate_limited",
            Self::Dropped => "dropped",
            Self::SetAside => "set_aside",
        }
    }
}

/// What became of an accepted event at fold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum FoldOutcome {
    /// In the columns and the archive, once.
    Counted,
    /// Its `(site, message_id)` was received before, within 24 hours or in the same import.
    Duplicate,
    /// Kept aside with the reason.
    DeadLetter,
    /// It is of an identifier that was erased, and of before that.
    Erased,
}

impl FoldOutcome {
    /// Every outcome, for metrics that report all from the start.
    pub const ALL: [Self; 4] = [Self::Counted, Self::Duplicate, Self::DeadLetter, Self::Erased];

    /// The name in metrics and logs.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Counted => "counted",
            Self::Duplicate => "duplicate",
            Self::DeadLetter => "dead_letter",
            Self::Erased => "erased",
        }
    }
}
