//! The ports: what the engine asks of a store, in the domain's language, and the backends behind them.
//!
//! Ports are synchronous and shared between threads; async callers go through a blocking thread.
//! Nothing above this module knows which backend answers. No rule is evaluated and no event decoded here.

pub mod audiences;
pub mod audit;
pub mod claims;
#[cfg(test)]
mod conformance;
pub mod embedded;
pub mod health;
pub mod intake;
pub mod journal;
pub mod lanes;
pub mod ledger;
pub mod nodes;
pub mod redis;
mod rows;
pub mod shelf;
pub mod sizes;
pub mod spools;
pub mod state;
pub mod suppression;

use std::error::Error;
use std::io;

/// Watches a copy that is being made: told how many bytes have come since it was last told. An error ends
/// the copying.
pub type Watch<'a> = &'a mut dyn FnMut(u64) -> io::Result<()>;

/// Why a store did not do what was asked, sorted by what the caller can do.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It cannot be reached, read or written now. Trying again may help.
    #[error("{what} is out of reach")]
    Unavailable {
        /// The part of the store, with its path or address.
        what: String,
        /// What it answered.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// It holds what this program cannot read. Trying again does not help.
    #[error("{what} cannot be read: {hint}")]
    Malformed {
        /// The part of the store, with its path or address.
        what: String,
        /// What is wrong, and the way out.
        hint: String,
        /// What the decoder said.
        #[source]
        source: Option<Box<dyn Error + Send + Sync>>,
    },
    /// There is no room. It goes on as soon as there is.
    #[error("{what} has no room left: free some, and it goes on")]
    Full {
        /// The part of the store, with its path or address.
        what: String,
        /// What it answered.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// It does not keep such a thing. Trying again does not help.
    #[error("{what} cannot be kept: {hint}")]
    Refused {
        /// What it was asked to keep.
        what: String,
        /// What it keeps, and the way out.
        hint: String,
    },
    /// Another owner has taken over, or a failover took the store back behind what this owner remembers. What is
    /// in memory is to be thrown away, and read anew by whoever acquires it next.
    #[error("{what} is no longer in the hands of this owner: it has to be acquired and read anew")]
    Fenced {
        /// The part of the store.
        what: String,
    },
}

impl StoreError {
    /// Whether the same call may succeed later.
    pub fn is_retryable(&self) -> bool {
        !matches!(self, Self::Malformed { .. } | Self::Refused { .. } | Self::Fenced { .. })
    }

    /// The same error for one more who waited for the same; its causes are a text.
    pub fn again(&self) -> Self {
        let cause = || self.source().map_or_else(String::new, chain);
        match self {
            Self::Unavailable { what, .. } => {
                Self::Unavailable { what: what.clone(), source: cause().into() }
            }
            Self::Malformed { what, hint, source } => Self::Malformed {
                what: what.clone(),
                hint: hint.clone(),
                source: source.as_ref().map(|_| cause().into()),
            },
            Self::Full { what, .. } => Self::Full { what: what.clone(), source: cause().into() },
            Self::Refused { what, hint } => {
                Self::Refused { what: what.clone(), hint: hint.clone() }
            }
            Self::Fenced { what } => Self::Fenced { what: what.clone() },
        }
    }
}

/// An error with its causes, for a log or a report.
pub fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
