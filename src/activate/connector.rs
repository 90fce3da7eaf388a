//! The seam between the run protocol and the platforms: what a connector must be able to do.
//!
//! `encode` is pure, and each connector judges answers in a function that is, so that payloads and answers are tested as
//! tables. What came back is the connector's own affair: a folder and a server have nothing in common there.

use std::path::Path;

use super::connectors::liveramp::Layout;
use super::waterfall::Matched;
use crate::model::Millis;
use crate::model::Namespace;
use crate::store::ledger::Batch;
use crate::store::ledger::BatchId;
use crate::store::ledger::Job;
use crate::store::ledger::Refusal;

/// What a platform takes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caps {
    /// The most lines that a batch may have.
    pub max_rows: usize,
    /// The namespaces it takes; every one where `None`.
    pub namespaces: Option<&'static [&'static str]>,
    /// Whether one batch may add and remove; else all that is added goes first.
    pub mixes: bool,
    /// How long a member stays that is not sent again; for ever where `None`.
    pub ttl: Option<Millis>,
    /// With fewer members the platform uses no audience.
    pub min_size: Option<u64>,
}

/// A batch as the platform wants it: the same for every repeat.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Encoded {
    /// The batch's name.
    pub batch: BatchId,
    /// The method of the call, where it is one.
    pub method: &'static str,
    /// Where it goes at the destination.
    pub address: String,
    /// What is sent.
    pub body: Vec<u8>,
    /// How many lines of the batch are in it.
    pub lines: usize,
    /// Lines of the batch that are not in it, in order: the platform would take none such.
    pub refused: Vec<Refusal>,
}

/// Where a segment goes at a platform.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// The platform has nothing that stands for a segment.
    None,
    /// An audience with this name of the platform's own, as the configuration says.
    Named(String),
    /// An audience that has to be found or made.
    Made,
}

/// Whether a platform has an audience for a segment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Found {
    /// It has: the platform's own name of it.
    Place(String),
    /// It has none.
    Nothing,
    /// It does not say.
    Untold,
}

/// The verdict on one attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// The destination has every line that was sent.
    Accepted,
    /// It has all but some lines, in order.
    Partial(Vec<Refusal>),
    /// It has taken the batch, and what becomes of it is to be asked for later.
    Staged(Job),
    /// It will not take the batch as it is, for one or more of its lines or for its size, and does not say which: why.
    Split(String),
    /// Not now, and not before the given time where there is one; nothing else goes to the destination
    /// until then.
    Throttled(Option<Millis>),
    /// Not before a time, which concerns this audience alone: why.
    NotReady(Millis, String),
    /// It did not work and may work later: why.
    Retry(String),
    /// Nobody knows whether it worked: why. It may be sent again.
    Unknown(String),
    /// It knows nothing of what it had taken: why. What is still wanted is sent in another batch.
    Gone(String),
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
    fn check(&self, now: Millis) -> Result<(), String>;

    /// Where a segment goes. Pure.
    fn place(&self, segment: &str) -> Place {
        let _ = segment;
        Place::None
    }

    /// Looks for the audience of a segment. Asked where the place is to be made.
    fn find(&self, segment: &str, now: Millis) -> Result<Found, Verdict> {
        let _ = (segment, now);
        Ok(Found::Untold)
    }

    /// Makes the audience of a segment: the platform's own name of it.
    fn make(&self, segment: &str, now: Millis) -> Result<String, Verdict> {
        let _ = now;
        Err(Verdict::Fatal(format!("the audience of {segment} cannot be made by us")))
    }

    /// Writes a batch as the platform wants it; `place` is the platform's own name of the audience, where it has one.
    /// Pure.
    fn encode(&self, batch: &Batch, place: &str) -> Encoded;

    /// Whether the destination is known to have these very bytes already; `false` where it cannot tell.
    fn delivered(&self, encoded: &Encoded) -> bool {
        let _ = encoded;
        false
    }

    /// Sends it, and judges the answer.
    fn deliver(&self, encoded: &Encoded, now: Millis) -> Verdict;

    /// Asks how many of an audience the platform knows; `None` of one that does not say.
    fn matched(&self, place: &str, now: Millis) -> Option<Matched> {
        let _ = (place, now);
        None
    }

    /// How a whole audience is written, of a destination that takes these and no changes: its batches then go to the ledger
    /// alone, and a file follows each run that had some.
    fn whole(&self) -> Option<&Layout> {
        None
    }

    /// Puts a file of the own disk under a name, unless something else has that: then nothing is written over.
    fn put_file(&self, name: &str, from: &Path, now: Millis) -> Verdict {
        let _ = (from, now);
        Verdict::Fatal(format!("{name}: the destination takes no files"))
    }

    /// Asks what became of a batch that was taken.
    fn ask(&self, job: &Job, (batch, encoded): (&Batch, &Encoded), now: Millis) -> Verdict {
        let _ = (batch, encoded, now);
        Verdict::Gone(format!("{} is no job of ours", job.name))
    }
}

impl Caps {
    /// The namespaces that a destination is sent of those asked for; all that there are where `None`.
    pub fn wanted(&self, asked: Option<&[Namespace]>) -> Option<Vec<String>> {
        match (asked, self.namespaces) {
            (None, None) => None,
            (None, Some(taken)) => Some(taken.iter().map(|taken| (*taken).to_owned()).collect()),
            (Some(asked), _) => {
                let asked = asked.iter().filter(|asked| self.takes(asked));
                Some(asked.map(ToString::to_string).collect())
            }
        }
    }

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
            Self::Partial(_) => "partial",
            Self::Staged(_) => "staged",
            Self::Split(_) => "split",
            Self::Throttled(_) | Self::NotReady(..) | Self::Retry(_) | Self::Unknown(_) => "retry",
            Self::Gone(_) => "gone",
            Self::Fatal(_) => "rejected",
        }
    }

    /// What it says to people; nothing where all went well.
    pub fn why(&self) -> Option<String> {
        match self {
            Self::Accepted | Self::Partial(_) => None,
            Self::Staged(_) => Some("the destination works on it".to_owned()),
            Self::Throttled(_) => Some("the destination asks to wait".to_owned()),
            Self::Retry(why)
            | Self::Unknown(why)
            | Self::Split(why)
            | Self::NotReady(_, why)
            | Self::Gone(why)
            | Self::Fatal(why) => Some(why.clone()),
        }
    }

    /// Whether the platform may have done what was asked without anybody knowing.
    pub fn is_unknown(&self) -> bool {
        matches!(self, Self::Unknown(_))
    }
}
