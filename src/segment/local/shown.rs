//! The audiences of all segments that are to be seen, whether or not they were evaluated the last time: one that was not
//! has the members it had.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::Holding;
use crate::model::ShardId;
use crate::plan::Members;
use crate::segment::Outcome;
use crate::segment::refresh::Compiled;
use crate::store::StoreError;
use crate::store::audiences::RulePrint;

/// By segment, the rule that found its members, and these. They are of the shards of this process.
pub(super) type Shown = BTreeMap<String, (RulePrint, Arc<Members>)>;

/// The audiences after a refresh, from those of the refresh before, which were of `before.1`; `count` is how many shards
/// the store has.
pub(super) fn next(
    before: Option<(&Shown, &[ShardId])>,
    compiled: &Compiled,
    segments: &BTreeMap<String, Outcome>,
    holdings: &[Arc<Holding>],
    count: u16,
) -> Result<Shown, StoreError> {
    let mut shown = Shown::new();
    let mut left = Vec::new();
    for (id, _) in compiled.live.segments.iter().filter(|(_, segment)| !segment.hidden) {
        match (segments.get(id), compiled.prints.get(id)) {
            (Some(Outcome::Members(members)), Some(rule)) => {
                shown.insert(id.clone(), (*rule, members.clone()));
            }
            _ => left.push(id),
        }
    }
    if left.is_empty() {
        return Ok(shown);
    }
    let (before, known) = before.unwrap_or((const { &Shown::new() }, &[]));
    for id in &left {
        if let Some((rule, members)) = before.get(*id) {
            shown.insert((*id).clone(), (*rule, members.clone()));
        }
    }
    for holding in holdings {
        let new: Vec<ShardId> = holding.lane.shards.clone();
        if new.iter().all(|shard| known.binary_search(shard).is_ok()) {
            continue;
        }
        // Of a lane that came, what is kept of it.
        holding.with_book(|book| {
            for (segment, shard, content) in book.contents() {
                if left.iter().any(|id| **id == *segment) {
                    let empty = || (content.rule, Arc::new(Members::none(usize::from(count))));
                    let (_, members) = shown.entry(segment.to_owned()).or_insert_with(empty);
                    if let Some(place) = Arc::make_mut(members).shards.get_mut(usize::from(shard)) {
                        *place = content.members.clone();
                    }
                }
            }
            Ok(())
        })?;
    }
    Ok(shown)
}

/// Whether two are the same, members not only equal but shared.
pub(super) fn are_same(before: &Shown, now: &Shown) -> bool {
    before.len() == now.len()
        && before.iter().zip(now).all(|((id, (rule, members)), (other, (by, now)))| {
            id == other && rule == by && Arc::ptr_eq(members, now)
        })
}
