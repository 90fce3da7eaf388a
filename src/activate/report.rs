//! What a push did, and how destinations stand.

use schemars::JsonSchema;
use serde::Serialize;

use crate::config::Destination;
use crate::model::Millis;
use crate::store::ledger::Target;

/// What one run did for one segment at one destination. Times are RFC 3339.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct PushReport {
    /// The destination's name.
    pub destination: String,
    /// The segment's id.
    pub segment: String,
    /// The audience's generation; none where it is not activated, or not whole yet.
    pub generation: Option<u64>,
    /// The time that the audience is true for.
    #[serde(with = "crate::model::rfc3339::option")]
    #[schemars(with = "Option<String>")]
    pub true_for: Option<Millis>,
    /// Members of the audience.
    pub members: u64,
    /// Those of them that hold an identifier that the destination takes.
    pub reachable: u64,
    /// How many of these may not go there, and why; of several reasons the first.
    pub kept_out: Vec<KeptOut>,
    /// Those of them that may.
    pub eligible: u64,
    /// With fewer eligible members nothing is added.
    pub min_size: u64,
    /// With fewer members the platform uses no audience; 0 where it has no such minimum. It counts where the segment has
    /// no `min_size` of its own.
    pub min_of_platform: u64,
    /// Whether there are fewer.
    pub below_minimum: bool,
    /// Identifiers added, each acknowledged; in a dry run, those that would be sent.
    pub adds: u64,
    /// Those of them that were sent by a run before: they are in step, too.
    #[serde(skip)]
    pub settled: u64,
    /// Identifiers removed, each acknowledged; in a dry run, those that would be sent.
    pub removes: u64,
    /// Identifiers not added because the audience is below its minimum.
    pub withheld: u64,
    /// Identifiers that it holds for sure already, and is to.
    pub in_step: u64,
    /// Identifiers that the destination would not take, in this run or before.
    pub refused: u64,
    /// Those of them that it would not remove: they are tried again.
    pub not_removed: u64,
    /// Batches that the destination has taken and works on.
    pub staged: u64,
    /// Identifiers that the destination holds for the segment after the run.
    pub held: u64,
    /// Batches acknowledged; in a dry run, those that would be sent.
    pub batches: u64,
    /// Batches that wait for their verdict.
    pub pending: u64,
    /// Profiles that came, went or got an identifier since the destination was last in step, where these alone were read;
    /// none where everything was.
    pub changed: Option<u64>,
    /// Whether nothing was sent or written.
    pub dry_run: bool,
    /// Why the run did not get to its end, and what to do.
    pub trouble: Option<String>,
    /// What else is to be known of it.
    pub note: Option<String>,
}

/// Members that may not go to a destination.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, JsonSchema)]
pub struct KeptOut {
    /// Why, for people.
    pub why: String,
    /// How many profiles.
    pub profiles: u64,
    /// Whether it is that they were not seen lately.
    #[serde(skip)]
    pub is_stale: bool,
}

/// How one destination stands. Times are RFC 3339.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DestinationStatus {
    /// The settings.
    #[serde(flatten)]
    pub destination: Destination,
    /// When it was last brought up to date, whole or in part.
    #[serde(with = "crate::model::rfc3339::option")]
    pub last_run: Option<Millis>,
    /// When it was last in step with every segment.
    #[serde(with = "crate::model::rfc3339::option")]
    pub last_success: Option<Millis>,
    /// When the next run is due.
    #[serde(with = "crate::model::rfc3339::option")]
    pub next_run: Option<Millis>,
    /// Whether someone has paused it.
    pub paused: bool,
    /// When the oldest batch that waits for its verdict was prepared.
    #[serde(with = "crate::model::rfc3339::option")]
    pub oldest_pending: Option<Millis>,
    /// What stands in the way of all its segments.
    pub trouble: Option<String>,
    /// Its segments.
    pub segments: Vec<TargetStatus>,
}

/// How one segment stands at one destination.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct TargetStatus {
    /// The segment's id.
    pub segment: String,
    /// Identifiers held.
    pub held: u64,
    /// Batches that wait for their verdict.
    pub pending: u64,
    /// What stands in the way.
    pub trouble: Option<String>,
    /// Whether it waits for someone to act, and is not tried again by itself.
    pub parked: bool,
    /// When it is tried again.
    #[serde(with = "crate::model::rfc3339::option")]
    pub retry_at: Option<Millis>,
}

impl PushReport {
    /// Takes over what a later turn of the same run found.
    pub(super) fn follow(&mut self, later: Self) {
        let before = (self.adds, self.removes, self.batches, self.staged);
        *self = later;
        // The run before it has added them: this one found them in step.
        self.settled += before.0;
        self.adds += before.0;
        self.removes += before.1;
        self.batches += before.2;
        self.staged += before.3;
    }

    /// The report of a run that has done nothing yet.
    pub(super) fn new(target: &Target, dry_run: bool) -> Self {
        Self {
            destination: target.destination.clone(),
            segment: target.segment.clone(),
            generation: None,
            true_for: None,
            members: 0,
            reachable: 0,
            kept_out: Vec::new(),
            eligible: 0,
            min_size: 0,
            min_of_platform: 0,
            below_minimum: false,
            adds: 0,
            settled: 0,
            removes: 0,
            withheld: 0,
            in_step: 0,
            refused: 0,
            not_removed: 0,
            staged: 0,
            held: 0,
            batches: 0,
            pending: 0,
            changed: None,
            dry_run,
            trouble: None,
            note: None,
        }
    }
}
