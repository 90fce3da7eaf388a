//! Consent strings: what they say, and what that allows.
//!
//! ```text
//! gdpr_consent ──► Tcf ─────────────────────────────┐
//! gpp ──► Gpp ── a section that applies ──► Tcf     ├─► terms: our vendor id, ──► Consent, or why not
//!                                           Canada  │   those of destinations
//!                                           Us, Usp ┘
//! ```
//!
//! A string comes from anyone, so each decoder is total: any bytes, at most [`MAX_STRING`] of them, end in a
//! value or in [`Unreadable`], after work and with memory in proportion to their number. A range that is
//! declared is kept as its two ends and never written out.
//!
//! Knows nothing of requests, sites and regimes, nor what silence means: the listener does.

mod bits;
mod canada;
mod gpp;
mod head;
mod signals;
mod tcf;
mod terms;
mod us;
mod vendors;

pub use canada::Canada;
pub use gpp::Gpp;
pub use head::Head;
pub use head::PublisherPurposes;
pub use head::Restriction;
pub use signals::Sections;
pub use signals::Signals;
pub use signals::is_sale_opt_out;
pub use tcf::Tcf;
pub use terms::Refusal;
pub use terms::Terms;
pub use us::Field;
pub use us::Us;
pub use us::Usp;
pub use vendors::Vendors;

/// The most bytes of a string.
pub const MAX_STRING: usize = 4 << 10;

/// Why a text is not a string of its kind.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// It is longer than [`MAX_STRING`].
    #[error("it is longer than 4 KiB")]
    TooLong,
    /// It has a character that stands for no bits.
    #[error("it has a character that is not of base64url")]
    Character,
    /// It ends before all of its fields were there.
    #[error("it is cut short")]
    CutShort,
    /// It is of another kind, or of a version that is not read.
    #[error("it is of a version that is not read")]
    Version,
    /// A range of it ends before it begins, or begins at 0.
    #[error("a range of it is none")]
    Range,
    /// A field of it has a value that it cannot have.
    #[error("a field of it has a value that it cannot have")]
    Value,
    /// A segment of it is doubled, or of a type that is not known.
    #[error("a segment of it is doubled or not known")]
    Segment,
    /// It has more or fewer sections than its header names.
    #[error("it has other sections than its header names")]
    Sections,
}

#[cfg(test)]
pub(crate) mod tests;
