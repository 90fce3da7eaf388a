//! Access: all that is held of someone, as JSON.

use serde_json::Value;
use serde_json::json;
use std::collections::BTreeSet;
use std::time::Duration;
use std::time::Instant;

use super::Privacy;
use super::PrivacyError;
use crate::model::Event;
use crate::model::Identifier;
use crate::model::time::format_rfc3339;
use crate::segment::AskError;
use crate::segment::Caller;
use crate::segment::Disclosed;
use crate::segment::InAudiences;
use crate::segment::MOST_DISCLOSED;
use crate::segment::json_of;
use crate::store::ledger::Target;

/// So many events are told by each lane.
pub const MOST_EVENTS: usize = MOST_DISCLOSED;

/// So many rows of the ledger are read at once.
const PAGE: usize = 4_096;
/// How long the lists of audiences are waited for.
const LISTS: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(50);

impl Privacy {
    /// All that is held of someone: of every profile that has one of some identifiers; of a person, also of those that
    /// share one with any of these, and so on.
    pub fn access(
        &self,
        named: &[Identifier],
        person: bool,
        caller: &Caller,
    ) -> Result<Value, PrivacyError> {
        let segments = &self.parts.segments;
        segments.caught_up(super::erasure::PATIENCE)?;
        let holders = self.holders(named, person)?;
        let mut asked: BTreeSet<Identifier> = named.iter().cloned().collect();
        asked.extend(if person { &holders.all } else { &holders.owners }.iter().cloned());
        let asked: Vec<Identifier> = asked.into_iter().collect();
        let of = segments.shards().disclose(&asked, caller)?;
        let Disclosed { profiles, events, dead_letters, is_cut } =
            of.whole(self.parts.identity.shards)?;
        let [set_aside, events_aside] = self.aside(&asked, &holders.owners)?;
        let owners: Vec<Identifier> = holders.owners.iter().cloned().collect();
        let mut audiences = Vec::new();
        if !owners.is_empty() {
            for (owner, found) in owners.iter().zip(self.audiences_of(&owners)?) {
                audiences.push(json!({
                    "owner": id(owner),
                    "segments": found.audiences.iter().map(|id| &**id).collect::<Vec<_>>(),
                    "generation": found.generation,
                    "true_for": format_rfc3339(found.true_for),
                }));
            }
        }
        let mut all: BTreeSet<Identifier> = holders.all;
        all.extend(named.iter().cloned());
        let [destinations, queued, refused] = self.at_destinations(&all)?;
        let erased: Vec<Value> = named
            .iter()
            .zip(self.prints(named.iter()))
            .filter_map(|(identifier, print)| {
                let erased = self.parts.suppression.of(print)?;
                Some(json!({
                    "identifier": id(identifier),
                    "before": format_rfc3339(erased.before),
                    "for_good": erased.for_good,
                }))
            })
            .collect();
        Ok(json!({
            "asked_at": format_rfc3339(self.now()),
            "asked": named.iter().map(id).collect::<Vec<_>>(),
            "person": person,
            "profiles": profiles,
            "audiences": audiences,
            "events": events,
            "events_are_all": !is_cut,
            "dead_letters": dead_letters,
            "set_aside": set_aside,
            "events_set_aside": events_aside,
            "destinations": destinations,
            "queued": queued,
            "refused": refused,
            "erased": erased,
        }))
    }

    /// Who of some identifiers is set aside by this process, and the events that it keeps of them. They are not more than
    /// fit into the quarantine.
    fn aside(
        &self,
        asked: &[Identifier],
        owners: &BTreeSet<Identifier>,
    ) -> Result<[Vec<Value>; 2], PrivacyError> {
        let (quarantine, suppression) = (&self.parts.quarantine, &self.parts.suppression);
        let who: BTreeSet<&Identifier> = asked.iter().chain(owners).collect();
        let is_of = |event: &Event| {
            let is_named = event.ids.iter().any(|one| who.contains(one));
            is_named && !suppression.takes(&self.parts.identity, event)
        };
        let events = quarantine.events_of(&is_of)?;
        let since = who.iter().filter_map(|identifier| {
            let since = quarantine.since(identifier)?;
            Some(json!({ "identifier": id(identifier), "since": format_rfc3339(since) }))
        });
        Ok([since.collect(), events.iter().map(json_of).collect()])
    }

    /// What profiles are in, by the lists of the last refresh; the first of all may take a moment to come.
    fn audiences_of(&self, owners: &[Identifier]) -> Result<Vec<InAudiences>, PrivacyError> {
        let until = Instant::now() + LISTS;
        loop {
            match self.parts.segments.audiences_of_all(owners) {
                Err(AskError::Behind) if Instant::now() < until => std::thread::sleep(LOOK),
                found => return Ok(found?),
            }
        }
    }

    /// What destinations hold of some identifiers, what is on its way there, and what they would not take.
    fn at_destinations(&self, all: &BTreeSet<Identifier>) -> Result<[Vec<Value>; 3], PrivacyError> {
        let ledger = &self.parts.ledger;
        let in_order: Vec<Identifier> = all.iter().cloned().collect();
        let (mut held, mut queued, mut refused) = (Vec::new(), Vec::new(), Vec::new());
        let told = |target: &Target, identifier: &Identifier| {
            json!({
                "destination": target.destination,
                "segment": target.segment,
                "identifier": id(identifier),
            })
        };
        for standing in ledger.standings()? {
            let target = &standing.target;
            for one in ledger.held_among(target, &in_order)? {
                let mut told = told(target, &one.identifier);
                told["sure"] = (!one.unsure).into();
                held.push(told);
            }
            for batch in ledger.prepared(target)? {
                let adds = batch.changes.adds.iter().map(|one| ("add", one));
                let removes = batch.changes.removes.iter().map(|one| ("remove", one));
                for (action, identifier) in adds.chain(removes).filter(|(_, one)| all.contains(one))
                {
                    let mut told = told(target, identifier);
                    told["action"] = action.into();
                    told["prepared_at"] = format_rfc3339(batch.prepared_at).into();
                    queued.push(told);
                }
            }
        }
        for destination in ledger.destinations()? {
            for last in ledger.last_batches(&destination)? {
                let target = Target::new(&*destination, &*last.segment);
                let mut after = None;
                loop {
                    let page = ledger.refused(&target, after.as_ref(), PAGE)?;
                    let Some(last) = page.last() else { break };
                    after = Some(last.identifier.clone());
                    for one in page.iter().filter(|one| all.contains(&one.identifier)) {
                        let mut told = told(&target, &one.identifier);
                        told["why"] = one.why.clone().into();
                        told["since"] = format_rfc3339(one.since).into();
                        refused.push(told);
                    }
                }
            }
        }
        Ok([held, queued, refused])
    }
}

fn id(identifier: &Identifier) -> Value {
    json!({ "namespace": identifier.namespace.as_str(), "value": identifier.value() })
}
