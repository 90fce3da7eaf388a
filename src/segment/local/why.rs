//! Why a profile is in a segment: its facts from the columns of its lane, and the properties of its events from the
//! events.

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use super::Holding;
use super::Local;
use super::Part;
use super::reads::unknown;
use super::scan;
use crate::archive;
use crate::model::Event;
use crate::model::Glance;
use crate::model::Identifier;
use crate::model::Ordinal;
use crate::model::ShardId;
use crate::model::time::day_of;
use crate::plan;
use crate::plan::Membership;
use crate::segment::AskError;
use crate::segment::Asked;
use crate::segment::Caller;
use crate::store::chain;

impl Local {
    /// See [`Shards::why`](crate::segment::Shards::why).
    pub(super) fn membership(
        &self,
        asked: &Asked<'_>,
        identifier: &Identifier,
        read: Duration,
        caller: &Caller,
    ) -> Result<Option<Membership>, AskError> {
        let Some(lane) = self.lane_of(identifier) else { return Ok(None) };
        let holdings = self.holdings();
        // Where the lane was lost meanwhile nobody here can tell.
        let Some(holding) = holdings.iter().find(|h| Arc::ptr_eq(&h.lane, &lane)) else {
            return Ok(None);
        };
        let specs = plan::traits_of([asked.rule], asked.library)
            .map_err(|error| AskError::NotYet(error.to_string()))?;
        let part = Part { place: 0, of: holdings.len(), caller };
        let (snapshot, traits) =
            holding.snapshot_with(&specs, asked.true_for, &self.numbers, &part)?;
        let profile = lane.engine.find(identifier).ok_or_else(|| unknown(identifier))?;
        let found = plan::why(
            asked.rule,
            asked.level,
            asked.library,
            &traits,
            &snapshot,
            profile,
            asked.now,
        );
        let mut found = found.map_err(|error| match error {
            plan::WhyError::TooEarly(error) => AskError::TooEarly(error),
            plan::WhyError::Rule(error) => AskError::NotYet(error.to_string()),
        })?;
        holding.complete(&mut found, profile, read, caller)?;
        Ok(Some(found))
    }
}

impl Holding {
    /// Reads the properties that columns do not keep from the events of a profile, for so long at most.
    fn complete(
        &self,
        found: &mut Membership,
        profile: (ShardId, Ordinal),
        read: Duration,
        caller: &Caller,
    ) -> Result<(), AskError> {
        let mut completion = found.completion();
        let Some(times) = completion.times() else { return Ok(()) };
        let names: BTreeSet<String> = completion.names().map(str::to_owned).collect();
        let until = Instant::now() + read;
        let is_late = || Instant::now() >= until || caller.still_wanted().is_err();
        let lane = &*self.lane;
        let (mut held, pin) = lane.catalog.pin(&*lane.journal, |_| lane.engine.pin());
        let mut give = |event: &Event| {
            if times.contains(&event.time)
                && names.contains(&*event.name)
                && lane.engine.find(event.owner()) == Some(profile)
                && !lane.engine.is_erased(event)
            {
                completion.give(event);
            }
            if completion.is_done() || is_late() {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        };
        // The latest events are told, and these come last: from the end of the archive on first.
        let is_wanted = |glance: &Glance<'_>| {
            let is_of = |(namespace, value): (&str, &str)| {
                lane.engine.shard_of_owner(namespace, value) == profile.0
            };
            names.contains(glance.name()) && glance.owner().is_ok_and(is_of)
        };
        scan::tail(&mut *held.tail, &pin, &is_late, &is_wanted, &mut give)?;
        let wanted = |name: &str| names.contains(name) && !is_late();
        let days = day_of(*times.start())..=day_of(*times.end());
        let texts: Vec<&str> = names.iter().map(String::as_str).collect();
        let scan = archive::Scan {
            days,
            shard: Some(profile.0),
            times: times.clone(),
            names: Some(&texts),
            wanted: &wanted,
        };
        let mut files: Vec<_> = held.files.iter().filter(|file| scan.reads(file)).collect();
        files.sort_by_key(|file| std::cmp::Reverse(file.day));
        let mut last = ControlFlow::Continue(());
        for file in files {
            if last.is_break() || is_late() {
                break;
            }
            let scanned = archive::scan(&held.home, [file], &scan, &mut |_, event| {
                last = give(&event);
                last
            });
            match scanned {
                Ok(scanned) => scan::count(lane.engine.metrics(), &scanned),
                // The rest of the answer follows from the columns, and it is said that it is not complete.
                Err(error) => {
                    let error = chain(&error);
                    tracing::warn!(
                        error,
                        "why: the events of a day cannot be read and are left out"
                    );
                }
            }
        }
        caller.still_wanted()
    }
}
