//! What is kept of a training: on the shelf of the store, one value for each look-alike.

use serde::Deserialize;
use serde::Serialize;

use crate::model::Millis;
use crate::plan::lookalike::Auc;
use crate::plan::lookalike::Cut;
use crate::plan::lookalike::Learnt;
use crate::store::audiences::RulePrint;

/// What the names on the shelf begin with.
pub(super) const PREFIX: &str = "lookalike.";
/// The form of what is kept.
const FORMAT: u32 = 1;

/// The name of a segment's record.
pub(super) fn name(segment: &str) -> String {
    format!("{PREFIX}{segment}")
}

/// A training, and what came of it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(in crate::segment) struct Record {
    format: u32,
    /// What the members are known by.
    pub(in crate::segment) print: RulePrint,
    /// The file that was trained by, as far as it says who is in.
    pub(super) definition: RulePrint,
    /// When it ended.
    pub(super) trained_at: Millis,
    /// The time that seed and members are true for.
    pub(in crate::segment) true_for: Millis,
    pub(super) took_ms: u64,
    pub(super) learnt: Learnt,
    /// Held out, of the seed and of the others.
    pub(super) held_out: [u64; 2],
    pub(super) auc: Option<Auc>,
    pub(super) candidates: u64,
    pub(super) chosen: u64,
    pub(super) cut: Cut,
}

/// A training, before it is known by anything.
pub(super) struct Trained {
    pub(super) definition: RulePrint,
    pub(super) true_for: Millis,
    pub(super) learnt: Learnt,
    pub(super) held_out: [u64; 2],
    pub(super) auc: Option<Auc>,
    pub(super) candidates: u64,
    pub(super) chosen: u64,
    pub(super) cut: Cut,
}

impl Record {
    pub(super) fn new(
        trained: Trained,
        print: RulePrint,
        trained_at: Millis,
        took_ms: u64,
    ) -> Self {
        let Trained { definition, true_for, learnt, held_out, auc, candidates, chosen, cut } =
            trained;
        let format = FORMAT;
        Self {
            format,
            print,
            definition,
            trained_at,
            true_for,
            took_ms,
            learnt,
            held_out,
            auc,
            candidates,
            chosen,
            cut,
        }
    }

    pub(super) fn encode(&self) -> Vec<u8> {
        serde_json::to_vec(self).expect("a record is made of plain fields")
    }

    /// `None` where it is of another form, or none: it is trained anew.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        serde_json::from_slice(bytes).ok().filter(|record: &Self| record.format == FORMAT)
    }
}
