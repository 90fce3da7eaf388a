//! A generation: one consistent version of all audiences, true for one time.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use crate::model::Millis;
use crate::plan::Members;
use crate::rules::Body;
use crate::segment::history::Hour;
use crate::segment::live::Segment;

/// One consistent version of all audiences.
#[derive(Debug, Clone, Default)]
pub struct Generation {
    /// Its number; later ones are larger, over restarts too.
    pub number: u64,
    /// T: every event acknowledged before it is in, none with a later event time.
    pub true_for: Millis,
    /// The version of the live segments.
    pub version: u64,
    /// The audiences by segment.
    pub audiences: BTreeMap<String, Arc<Audience>>,
    /// The hour of T, and what it has come to so far.
    pub hour: Arc<Hour>,
}

/// The members of one segment.
#[derive(Debug, Clone)]
pub struct Audience {
    /// The segment.
    pub segment: Arc<Segment>,
    /// Its members, once its traits are whole. While an edited rule's are filled, those of the rule before.
    pub members: Option<Arc<Members>>,
    /// How many members there are.
    pub count: Option<u64>,
    /// The generation its members are of.
    pub generation: u64,
    /// The time its members are true for.
    pub true_for: Millis,
    /// The time at which its members last became others; `None` where it has none, or it is not known.
    pub changed: Option<Millis>,
    /// Whether its members are those of its rule, now.
    pub state: AudienceState,
}

/// Whether an audience's members are those of its rule.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AudienceState {
    /// They are, and follow every event.
    Live,
    /// Its traits are being filled from the archive.
    Backfilling {
        /// How much of the archive has been read, in percent.
        percent: u8,
    },
    /// A look-alike that is being trained, or waits for it.
    Training,
    /// It cannot be evaluated.
    Failing {
        /// Why.
        reason: String,
    },
}

impl fmt::Display for AudienceState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Live => f.write_str("live"),
            Self::Backfilling { percent } => write!(f, "backfilling {percent} %"),
            Self::Training => f.write_str("training"),
            Self::Failing { reason } => write!(f, "failing: {reason}"),
        }
    }
}

impl Audience {
    /// Whether it is a look-alike that cannot be trained as things are.
    pub fn is_untrained(&self) -> bool {
        let is_lookalike = matches!(self.segment.file.body, Body::Lookalike(_));
        is_lookalike && matches!(self.state, AudienceState::Failing { .. })
    }

    /// The time at which members became others, where these are those at a time, and what was before is known.
    pub(super) fn changed(before: Option<&Self>, members: &Members, at: Millis) -> Option<Millis> {
        let is_same = |before: &&Self| match &before.members {
            Some(before) => members.is_same(before),
            // Who they were is not read yet after a start.
            None => before.count == Some(members.len()),
        };
        before.filter(is_same).map_or(Some(at), |before| before.changed)
    }
}
