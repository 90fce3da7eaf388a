//! Why a run did not get to its end.

use crate::activate::audience::NoAudience;
use crate::activate::connector::Verdict;
use crate::store::StoreError;
use crate::store::chain;

/// Why a run did not get to its end.
#[derive(Debug)]
pub(in crate::activate) enum Halt {
    /// The process stops.
    Stopping,
    /// The ledger, or what identifiers come from, failed.
    Store(StoreError),
    /// Its turn is over, and others wait.
    Turn,
    /// There is no audience to bring it in step with; who opted out was removed.
    NoAudience(NoAudience),
    /// A segment that says who may go there has no audience; who is known not to was removed.
    Unknown {
        /// The segment.
        segment: String,
        /// Why there is none.
        why: NoAudience,
    },
    /// More would be removed than may be without someone's word; who opted out was removed.
    Drain {
        /// The destination.
        destination: String,
        /// How many identifiers would be.
        removes: u64,
        /// How many are held.
        held: u64,
        /// The most that may be, in percent.
        max_drain: u8,
    },
    /// Someone has paused the destination; who opted out was removed.
    Paused(String),
    /// What it was sent before waits for someone to act, as this says; who opted out was removed.
    Waits(String),
    /// The destination did not take a batch.
    Verdict(Verdict),
}

impl From<StoreError> for Halt {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl std::fmt::Display for Halt {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Stopping => f.write_str("the server stops; the rest is sent when it runs again"),
            Self::Store(error) => f.write_str(&chain(error)),
            Self::Turn => f.write_str("goes on when others had their turn"),
            Self::NoAudience(why) => why.fmt(f),
            Self::Waits(why) => f.write_str(why),
            Self::Unknown { segment, why } => write!(
                f,
                "{segment}, which `suppress` or `fresh` of the destination names, {why}; where there is no such segment, write \
                 it, or take it out of destinations.toml"
            ),
            Self::Drain { destination, removes, held, max_drain } => write!(
                f,
                "{removes} of {held} would be removed, more than the {max_drain} % of max_drain; if that is meant, \
                 `throng destination push {destination} --drain`, else see where the audience went"
            ),
            Self::Paused(name) => {
                write!(f, "paused; `throng destination resume {name}` lets it go on")
            }
            Self::Verdict(verdict) => f.write_str(&verdict.why().unwrap_or("accepted".to_owned())),
        }
    }
}
