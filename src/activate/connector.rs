//! The seam between the run protocol and the platforms: what a connector must be able to do.
//!
//! `encode` and `classify` are pure, so that payloads and answers are tested as tables; `send` and
//! `delivered` are all the I/O there is.

use std::io;

use crate::model::Millis;
use crate::model::Namespace;
use crate::net::Answered;
use crate::net::OutgoingError;
use crate::store::ledger::Batch;
use crate::store::ledger::BatchId;

/// What a platform takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caps {
    /// The most lines that a batch may have.
    pub max_rows: usize,
    /// The namespaces it takes; every one where `None`.
    pub namespaces: Option<&'static [&'static str]>,
}

/// A batch as the platform wants it: the same for every repeat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoded {
    /// The batch's name.
    pub batch: BatchId,
    /// Where it goes at the destination.
    pub address: String,
    /// What is sent.
    pub body: Vec<u8>,
}

/// What came back, before anyone has judged it.
#[derive(Debug)]
pub enum Reply {
    /// It was written, or was there already with the same bytes.
    Written,
    /// Something else is there under its name.
    Differs,
    /// The system refused.
    Failed(io::Error),
    /// The platform answered.
    Answered(Answered),
    /// It did not.
    Unanswered(OutgoingError),
    /// Nothing was sent, because something that it needs is not there: what to do.
    Unfit(String),
}

/// The verdict on one attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The destination has every line of the batch.
    Accepted,
    /// Not now, and not before the given time where there is one; nothing else goes to the destination
    /// until then.
    Throttled(Option<Millis>),
    /// It did not work and may work later: why.
    Retry(String),
    /// Nobody knows whether it worked: why. It may be sent again.
    Unknown(String),
    /// It will not work until someone does something: what.
    Fatal(String),
}

/// Speaks to one destination.
///
/// A batch sent twice must leave the destination as if it had been sent once.
pub trait Connector: Send + Sync {
    /// What the platform takes.
    fn caps(&self) -> &Caps;

    /// Tries whether the destination would take a batch, without sending one; else what to do.
    fn check(&self) -> Result<(), String>;

    /// Writes a batch as the platform wants it. Pure.
    fn encode(&self, batch: &Batch) -> Encoded;

    /// Whether the destination is known to have these very bytes already; `false` where it cannot tell.
    fn delivered(&self, encoded: &Encoded) -> bool;

    /// Sends it.
    fn send(&self, encoded: &Encoded) -> Reply;

    /// Judges an answer that came at a time. Pure.
    fn classify(&self, reply: &Reply, now: Millis) -> Verdict;
}

impl Caps {
    /// Whether the platform takes identifiers of a namespace.
    pub fn takes(&self, namespace: &Namespace) -> bool {
        self.namespaces.is_none_or(|taken| taken.contains(&namespace.as_str()))
    }
}

impl Verdict {
    /// The result's label in metrics.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Accepted => "accepted",
            Self::Throttled(_) | Self::Retry(_) | Self::Unknown(_) => "retry",
            Self::Fatal(_) => "rejected",
        }
    }
}
