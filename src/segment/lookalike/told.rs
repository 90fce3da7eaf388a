//! What is told of a look-alike: what it learnt, and why a profile is in it.

use std::sync::Arc;
use std::time::Duration;

use serde_json::Value;
use serde_json::json;

use super::record::Record;
use super::step::Found;
use super::step::Holds;
use super::step::Step;
use crate::model::Identifier;
use crate::model::time::format_rfc3339;
use crate::plan::lookalike::Row;
use crate::plan::lookalike::UNIT;
use crate::rules::Body;
use crate::rules::Lookalike;
use crate::segment::AskError;
use crate::segment::Caller;
use crate::segment::Segment;
use crate::segment::Segments;

/// How long a slice of waiting for a training is.
const SLICE: Duration = Duration::from_millis(100);
/// So many features are told of a profile.
const STRONGEST: usize = 10;

impl Segments {
    /// What a look-alike has learnt.
    pub fn lookalike(&self, id: &str) -> Result<Value, AskError> {
        let (segment, of) = self.live_lookalike(id)?;
        let Body::Lookalike(lookalike) = &segment.file.body else { return Err(none(id)) };
        let generation = self.generation();
        let audience = generation.audiences.get(id);
        let mut told = json!({
            "id": id,
            "seed": &*lookalike.seed.text,
            "reach": share(u64::from(lookalike.reach.0), 1_000_000),
            "within": lookalike.within.as_ref().map(crate::rules::print),
            "level": segment.file.level.as_str(),
            "state": audience.map(|audience| audience.state.to_string()),
            "members": audience.and_then(|audience| audience.count),
            "trained": Value::Null,
        });
        if let Some(record) = of {
            told["trained"] = trained(&record);
        }
        Ok(told)
    }

    /// Trains a look-alike now, and tells what it has learnt.
    pub fn train(&self, id: &str, caller: &Caller) -> Result<Value, AskError> {
        self.live_lookalike(id)?;
        let before = self.lookalikes.ask(id);
        while !self.lookalikes.has_ended(id, before, SLICE) {
            caller.still_wanted()?;
            if self.is_stopping() {
                return Err(AskError::Cancelled);
            }
            self.live_lookalike(id)?;
        }
        if let Some(reason) = self.lookalikes.reason(id) {
            return Err(AskError::NotYet(format!("{id} cannot be trained: {reason}")));
        }
        self.settle(caller)?;
        self.lookalike(id)
    }

    fn live_lookalike(&self, id: &str) -> Result<(Arc<Segment>, Option<Arc<Record>>), AskError> {
        let live = self.live();
        let found = live.segments.get(id).filter(|segment| !segment.hidden);
        let segment =
            found.ok_or_else(|| AskError::Unknown(format!("there is no segment {id}")))?;
        match segment.file.body {
            Body::Lookalike(_) => Ok((segment.clone(), self.lookalikes.record(id))),
            Body::Rule(_) => Err(none(id)),
        }
    }

    /// Why a profile is in a look-alike, or not.
    pub(in crate::segment) fn why_lookalike(
        &self,
        id: &str,
        of: &Lookalike,
        identifier: &Identifier,
        caller: &Caller,
    ) -> Result<Value, AskError> {
        let record = self.lookalikes.record(id);
        let record = record.ok_or_else(|| {
            let reason = self.lookalikes.reason(id);
            AskError::NotYet(format!(
                "{id} is not trained yet{}",
                reason.map(|reason| format!(": {reason}")).unwrap_or_default()
            ))
        })?;
        let rows: Vec<&Row> = record.learnt.rows.iter().filter(|row| row.weight != 0).collect();
        let true_for = self.appended(caller)?;
        let step = Step::Profile {
            identifier: (identifier.namespace.as_str().to_owned(), identifier.value().to_owned()),
            features: rows.iter().map(|row| row.feature.clone()).collect(),
            true_for,
        };
        let holds =
            self.patiently(caller, || match self.parts.shards.learn(&step, caller)?.found {
                Found::Profile(Some(holds)) => Ok(holds),
                _ => Err(AskError::Moving),
            })?;
        let Holds { shard, ordinal, features } = holds;
        let generation = self.generation();
        let members = generation.audiences.get(id).and_then(|audience| audience.members.clone());
        let Some(members) = members else {
            return Err(AskError::NotYet(format!("{id} has no members yet")));
        };
        let member = members.shards.get(usize::from(shard)).is_some_and(|m| m.contains(ordinal));
        let mut has: Vec<&Row> = features.iter().filter_map(|at| rows.get(*at).copied()).collect();
        let score: i32 = has.iter().map(|row| row.weight).sum();
        has.sort_by_key(|row| (-row.weight.abs(), &row.feature));
        let strongest: Vec<Value> =
            has.iter().take(STRONGEST).map(|row| told(row, &record)).collect();
        let trained = format_rfc3339(record.true_for);
        let (score, threshold) = (units(score), units(record.cut.score));
        let mut text = format!(
            "the profile {} {id}, a look-alike of {}: the members are those of its training, true for {trained}\n\
             its score is {score} now; at the training {threshold} was needed\n",
            if member { "is in" } else { "is not in" },
            of.seed.text,
        );
        for row in has.iter().take(STRONGEST) {
            text.push_str(&format!("  {:>+7.2}  {}\n", units(row.weight), row.feature));
        }
        if has.is_empty() {
            text.push_str("  it has nothing that the score goes by\n");
        }
        Ok(json!({
            "segment": id,
            "member": member,
            "lookalike_of": &*of.seed.text,
            "score": score,
            "threshold": threshold,
            "features": strongest,
            "trained_for": trained,
            "at": format_rfc3339(true_for),
            "true_for": format_rfc3339(true_for),
            "text": text,
        }))
    }
}

fn none(id: &str) -> AskError {
    AskError::NotYet(format!("{id} has a rule; it is no look-alike"))
}

fn trained(record: &Record) -> Value {
    let [seed, others] = record.learnt.sizes;
    let [seed_held, others_held] = record.held_out;
    let rows: Vec<Value> = record.learnt.rows.iter().map(|row| told(row, record)).collect();
    json!({
        "at": format_rfc3339(record.trained_at),
        "true_for": format_rfc3339(record.true_for),
        "took_ms": record.took_ms,
        "seed": { "learnt_from": seed, "held_out": seed_held },
        "others": { "learnt_from": others, "held_out": others_held },
        "auc": record.auc.map(|auc| (auc.share() * 1e6).round() / 1e6),
        "candidates": record.candidates,
        "chosen": record.chosen,
        "threshold": units(record.cut.score),
        "features": rows,
    })
}

fn told(row: &Row, record: &Record) -> Value {
    let [seed, others] = record.learnt.sizes;
    let shares = [share(row.seed, seed), share(row.others, others)];
    let lift = (shares[1] > 0.0).then(|| (shares[0] / shares[1] * 1e4).round() / 1e4);
    json!({
        "feature": row.feature.to_string(),
        "seed": shares[0],
        "others": shares[1],
        "lift": lift,
        "weight": units(row.weight),
        "asked_by_seed": row.asked,
    })
}

/// A weight or a score, in doublings of the odds.
fn units(weight: i32) -> f64 {
    f64::from(weight) / f64::from(UNIT)
}

#[expect(clippy::cast_precision_loss, reason = "a share to be read")]
fn share(part: u64, of: u64) -> f64 {
    if of == 0 { 0.0 } else { (part as f64 / of as f64 * 1e6).round() / 1e6 }
}
