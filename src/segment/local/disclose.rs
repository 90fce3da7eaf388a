//! All that is held of some profiles, for who has the right to see it: from the columns, the archive, the journal and the
//! dead letters.

use std::collections::BTreeSet;
use std::ops::ControlFlow;

use serde_json::Map;
use serde_json::Value as Json;
use serde_json::json;

use super::Holding;
use super::Local;
use super::scan;
use crate::archive;
use crate::bitmap::Block;
use crate::bitmap::Mark;
use crate::bitmap::TraitColumns;
use crate::bitmap::TraitId;
use crate::ingest::Pin;
use crate::model::BLOCK;
use crate::model::Event;
use crate::model::Identifier;
use crate::model::Millis;
use crate::model::Ordinal;
use crate::model::Record;
use crate::model::ShardId;
use crate::model::Value;
use crate::model::time::format_rfc3339;
use crate::segment::AskError;
use crate::segment::Caller;
use crate::segment::Disclosed;
use crate::segment::MOST_DISCLOSED;
use crate::segment::Of;

/// So many dead letters are read at once.
const PAGE: usize = 256;

impl Local {
    /// See [`Shards::events_of`](crate::segment::Shards::events_of).
    pub(super) fn counted_of(&self, owners: &[Identifier]) -> Of<u64> {
        let mut all = Of { shards: Vec::new(), found: 0 };
        for lane in self.lanes.held().values() {
            let pin = lane.engine.pin();
            let of = owners.iter().filter_map(|owner| lane.engine.find(owner));
            all.found += of.map(|(shard, ordinal)| count(&pin, shard, ordinal)).sum::<u64>();
            all.shards.extend(&lane.shards);
        }
        all.shards.sort_unstable();
        all
    }

    /// See [`Shards::disclose`](crate::segment::Shards::disclose).
    pub(super) fn disclosed(
        &self,
        named: &[Identifier],
        caller: &Caller,
    ) -> Result<Of<Disclosed>, AskError> {
        let mut all = Of { shards: Vec::new(), found: Disclosed::default() };
        for holding in self.holdings() {
            holding.caught_up(caller)?;
            all.found.add(holding.disclosed(named, caller)?);
            all.shards.extend(&holding.lane.shards);
        }
        all.shards.sort_unstable();
        Ok(all)
    }
}

impl Holding {
    fn disclosed(&self, named: &[Identifier], caller: &Caller) -> Result<Disclosed, AskError> {
        let lane = &*self.lane;
        let mut found = Disclosed::default();
        let (mut held, pin) = lane.catalog.pin(&*lane.journal, |_| lane.engine.pin());
        let mut owners: BTreeSet<Identifier> = named.iter().cloned().collect();
        for (shard, profiles) in (0..ShardId::MAX).zip(lane.engine.holding(named)) {
            for ordinal in &profiles {
                let identifiers = lane.engine.identifiers(shard, ordinal);
                owners.extend(identifiers.first().cloned());
                found.profiles.push(profile(&pin, shard, ordinal, &identifiers));
            }
        }
        // An event of someone else's profile may carry one all the same, where it was too many for the dictionary.
        let is_of = |event: &Event| {
            let is_named = event.ids.iter().any(|id| named.contains(id));
            (is_named || owners.contains(event.owner())) && !lane.engine.is_erased(event)
        };
        let mut give = |event: &Event| {
            if is_of(event) {
                if found.events.len() >= MOST_DISCLOSED {
                    found.is_cut = true;
                    return ControlFlow::Break(());
                }
                found.events.push(json_of(event));
            }
            match caller.still_wanted() {
                Ok(()) => ControlFlow::Continue(()),
                Err(_) => ControlFlow::Break(()),
            }
        };
        let scanned = archive::scan(
            &held.home,
            held.files.iter(),
            &archive::Scan::default(),
            &mut |_, event| give(&event),
        );
        let scanned = scanned.map_err(|error| AskError::Fill(error.into()))?;
        scan::count(lane.engine.metrics(), &scanned);
        let is_late = || caller.still_wanted().is_err();
        scan::tail(&mut *held.tail, &pin, &is_late, &|_| true, &mut give)
            .map_err(AskError::Fill)?;
        caller.still_wanted()?;
        let mut after = None;
        loop {
            let letters = lane.engine.dead_letters(after, PAGE)?;
            let Some(last) = letters.last() else { break };
            after = Some(last.event);
            for letter in &letters {
                let events: Vec<Event> = match Record::decode(&letter.bytes) {
                    Ok(Record::Event(event)) => vec![event],
                    Ok(Record::Import(lines)) => {
                        lines.events.into_iter().map(|imported| imported.event).collect()
                    }
                    _ => Vec::new(),
                };
                found.dead_letters.extend(events.iter().filter(|event| is_of(event)).map(
                    |event| {
                        json!({
                            "put_aside": format_rfc3339(letter.time),
                            "reason": letter.reason,
                            "event": json_of(event),
                        })
                    },
                ));
            }
        }
        Ok(found)
    }
}

fn place(pin: &Pin, shard: ShardId, ordinal: Ordinal) -> Option<(&Block, u16)> {
    let blocks = pin.snapshot.shards.get(usize::from(shard))?;
    let block = blocks.get(usize::try_from(ordinal / BLOCK).ok()?)?;
    Some((block, u16::try_from(ordinal % BLOCK).ok()?))
}

fn count(pin: &Pin, shard: ShardId, ordinal: Ordinal) -> u64 {
    let Some((block, low)) = place(pin, shard, ordinal) else { return 0 };
    let all = block.columns(TraitId::ANY);
    all.map_or(0, |all| all.facts_of(low, Millis::MIN / 2, Millis::MAX / 2).len() as u64)
}

/// What the columns have of a profile.
fn profile(pin: &Pin, shard: ShardId, ordinal: Ordinal, identifiers: &[Identifier]) -> Json {
    let identifiers: Vec<Json> = identifiers.iter().map(id).collect();
    let mut told = json!({ "shard": shard, "identifiers": identifiers });
    let Some((block, low)) = place(pin, shard, ordinal) else { return told };
    let marked = |mark| block.marked(mark).contains(low);
    told["opted_out"] = marked(Mark::OptedOut).into();
    told["bot"] = marked(Mark::Bot).into();
    told["consent"] = block.consents().of(low).map_or(Json::Null, |consent| {
        let purposes: Vec<u8> = consent.purposes.iter().collect();
        json!({ "purposes": purposes, "vendors": consent.vendors })
    });
    let mut attributes = Map::new();
    for (name, column) in block.attributes() {
        let history = column.history_of(low);
        if !history.is_empty() {
            let entry = |(time, value): (Millis, &Value)| json!({ "time": format_rfc3339(time), "value": json_of_value(value) });
            attributes.insert(name.to_owned(), history.into_iter().map(entry).collect());
        }
    }
    told["attributes"] = attributes.into();
    let mut traits = Vec::new();
    for id in std::iter::once(TraitId::ANY).chain(pin.traits.ids()) {
        let facts = block
            .columns(id)
            .map(|columns: &TraitColumns| columns.facts_of(low, Millis::MIN / 2, Millis::MAX / 2));
        let facts: Vec<Json> = facts
            .unwrap_or_default()
            .into_iter()
            .map(|(time, value)| match value {
                Some(value) => json!({ "time": format_rfc3339(time), "value": value.0 }),
                None => json!({ "time": format_rfc3339(time) }),
            })
            .collect();
        if !facts.is_empty() {
            let text =
                pin.traits.spec(id).map_or_else(|| "any event".to_owned(), |s| s.to_string());
            traits.push(json!({ "trait": text, "facts": facts }));
        }
    }
    told["traits"] = traits.into();
    told
}

fn id(identifier: &Identifier) -> Json {
    json!({ "namespace": identifier.namespace.as_str(), "value": identifier.value() })
}

fn json_of_value(value: &Value) -> Json {
    let mut text = String::new();
    value.write_json(&mut text);
    serde_json::from_str(&text).unwrap_or(Json::Null)
}

/// An event in the form in which it is sent, with what was noted of it.
pub fn json_of(event: &Event) -> Json {
    let fields = |fields: &[(Box<str>, Value)]| -> Map<String, Json> {
        fields.iter().map(|(name, value)| (name.to_string(), json_of_value(value))).collect()
    };
    let mut ids: Map<String, Json> = Map::new();
    for identifier in &event.ids {
        let name = identifier.namespace.as_str().to_owned();
        match ids.get_mut(&name) {
            None => _ = ids.insert(name, identifier.value().into()),
            Some(Json::Array(values)) => values.push(identifier.value().into()),
            Some(one) => *one = json!([one.take(), identifier.value()]),
        }
    }
    let mut told = json!({
        "site": event.site,
        "event": event.name,
        "time": format_rfc3339(event.time),
        "received": format_rfc3339(event.received),
        "source": event.source.as_str(),
        "ids": ids,
        "props": fields(&event.props),
        "attrs": fields(&event.attrs),
    });
    let texts =
        [("message_id", &event.message_id), ("country", &event.country), ("locale", &event.locale)];
    for (name, text) in texts {
        if let Some(text) = text {
            told[name] = (**text).into();
        }
    }
    let page = [
        ("url", &event.page.url),
        ("referrer", &event.page.referrer),
        ("title", &event.page.title),
    ];
    let device = [
        ("kind", &event.device.kind),
        ("os", &event.device.os),
        ("browser", &event.device.browser),
    ];
    for (name, part) in [("page", page), ("device", device)] {
        let part: Map<String, Json> = part
            .into_iter()
            .filter_map(|(name, text)| Some((name.to_owned(), Json::from(&**text.as_ref()?))))
            .collect();
        if !part.is_empty() {
            told[name] = part.into();
        }
    }
    if event.time_replaced {
        told["time_replaced"] = true.into();
    }
    if event.bot {
        told["bot"] = true.into();
    }
    told
}
