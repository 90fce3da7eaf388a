//! Random journals, cut, committed, compacted and restarted at random: always the same state, and the counts
//! of a naive reading.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::world::T0;
use super::world::World;
use super::world::event;
use super::world::fields;
use super::world::id;
use super::world::options;
use crate::bitmap::TraitId;
use crate::ingest::Options;
use crate::model::Choice;
use crate::model::Consent;
use crate::model::Event;
use crate::model::ImportLines;
use crate::model::Millis;
use crate::model::Record;
use crate::model::record::ImportedEvent;
use crate::model::time::DAY;
use crate::model::time::HOUR;

#[derive(Debug, Clone)]
enum Do {
    Fold,
    Commit,
    Restart,
}

fn any_event() -> impl Strategy<Value = Event> {
    let message = proptest::option::of(0..12u8);
    let age = prop_oneof![Just(0), 0..HOUR, 0..120 * DAY, -5 * 60_000..0i64];
    (0..9u8, 0..4u8, message, age, 0..8u8, any::<bool>()).prop_map(
        |(cookie, name, message, age, extra, bot)| {
            let mut event = event(
                &format!("{:032x}", cookie + 1),
                ["a", "b", "c", "d"][usize::from(name)],
                -age,
            );
            event.message_id = message.map(|n| n.to_string().into());
            event.bot = bot && extra == 5;
            match extra {
                0 => event.ids.push(id("user_id", &format!("u{}", cookie % 3))),
                1 => event.ids = vec![id("user_id", &format!("u{}", cookie % 3))],
                2 => event.attrs = fields(&format!(r#"{{"x":{name},"y":null}}"#)),
                3 => event.props = fields(&format!(r#"{{"v":{cookie}.5,"o":{{"p":{name}}}}}"#)),
                // Cannot be read back.
                4 if cookie == 0 => event.ids.clear(),
                6 | 7 => {
                    let purposes = [1, 3 + name, 4].into_iter().collect();
                    let vendors = if extra == 6 { vec![7, 755] } else { vec![u16::from(cookie)] };
                    event.consent = Some(Box::new(Consent { purposes, vendors }));
                }
                _ => {}
            }
            event
        },
    )
}

#[derive(Debug, Clone)]
enum Sent {
    Event(Box<Event>),
    Import(Vec<(Event, bool)>, u64),
    Choice(u8, bool),
}

fn any_sent() -> impl Strategy<Value = Sent> {
    prop_oneof![
        8 => any_event().prop_map(|event| Sent::Event(Box::new(event))),
        1 => (proptest::collection::vec((any_event(), any::<bool>()), 0..4), 0..2u64)
            .prop_map(|(events, again)| Sent::Import(events, again)),
        1 => (0..12u8, any::<bool>()).prop_map(|(cookie, out)| Sent::Choice(cookie, out)),
    ]
}

fn any_do() -> impl Strategy<Value = Do> {
    prop_oneof![3 => Just(Do::Fold), 3 => Just(Do::Commit), 1 => Just(Do::Restart)]
}

/// The records, each received a while after the one before it.
fn journal(sent: &[(Sent, i64)]) -> Vec<Record> {
    let mut now = T0;
    let mut line = 1;
    let place = |event: &Event, now: Millis| {
        let mut event = event.clone();
        event.time += now;
        event.received = now;
        event
    };
    let mut records = Vec::new();
    for (sent, later) in sent {
        now += later;
        records.push(match sent {
            Sent::Event(event) => Record::Event(place(event, now)),
            Sent::Choice(cookie, opted_out) => Record::Choice(Choice {
                identifier: id("cookie", &format!("{:032x}", cookie + 1)),
                opted_out: *opted_out,
                received: now,
            }),
            Sent::Import(events, again) => {
                // A line that was taken may come again.
                let first_line = (line - again.min(&(line - 1))).max(1);
                let events: Vec<_> = (first_line..)
                    .zip(events.iter().filter(|(event, _)| !event.ids.is_empty()))
                    .map(|(line, (event, own_message_id))| {
                        let mut event = place(event, now);
                        event.message_id.get_or_insert_with(|| format!("line {line}").into());
                        ImportedEvent { line, own_message_id: *own_message_id, event }
                    })
                    .collect();
                let lines = events.len() as u64;
                line = line.max(first_line + lines);
                Record::Import(ImportLines {
                    import: "file".into(),
                    first_line,
                    lines,
                    events,
                    rejected: Vec::new(),
                })
            }
        });
    }
    records
}

/// How often each profile's events count, read one by one.
fn naive(records: &[Record]) -> BTreeMap<String, usize> {
    let mut counts = BTreeMap::new();
    let mut seen: Vec<(Box<str>, Millis)> = Vec::new();
    let mut imported: Vec<Box<str>> = Vec::new();
    let mut taken = 0;
    let mut newest = Millis::MIN;
    let mut count = |event: &Event, import: Option<(u64, bool)>, taken: u64| {
        if event.ids.is_empty() || import.is_some_and(|(line, _)| line <= taken) {
            return;
        }
        if let Some(message) = &event.message_id {
            let is_recent =
                |(held, at): &(Box<str>, Millis)| held == message && event.received - at <= DAY;
            let own = import.is_some_and(|(_, own)| own);
            if seen.iter().any(is_recent) || (own && imported.contains(message)) {
                return;
            }
            seen.push((message.clone(), event.received));
            if own {
                imported.push(message.clone());
            }
        }
        newest = newest.max(event.received);
        *counts.entry(event.owner().value().to_owned()).or_default() += 1;
    };
    for record in records {
        match record {
            Record::Event(event) => count(event, None, 0),
            Record::Import(lines) => {
                for imported in &lines.events {
                    count(&imported.event, Some((imported.line, imported.own_message_id)), taken);
                }
                taken = taken.max(lines.first_line + lines.lines - 1);
            }
            Record::Choice(_) | Record::Erase(_) | Record::OptOut(_) => {}
        }
    }
    counts
}

const TRAITS: [&str; 3] = ["did a", "sum b.v", "did c[page.path exists]"];

proptest! {
    #![proptest_config(ProptestConfig { cases: 40, ..ProptestConfig::default() })]

    #[test]
    fn a_journal_has_one_meaning(
        sent in proptest::collection::vec((any_sent(), prop_oneof![0..1000i64, 0..20 * HOUR]), 1..60),
        actions in proptest::collection::vec(any_do(), 60),
        forever in any::<bool>(),
    ) {
        let records = journal(&sent);
        let retention = if forever { 36_500 * DAY } else { 30 * DAY };
        // So little memory that sets of messages go to disk all the time.
        let options = Options { retention, dedup_memory: 600, ..options() };
        let mut straight = World::new(options.clone());
        straight.traits(&TRAITS);
        for record in &records {
            straight.append(std::slice::from_ref(record));
        }
        straight.fold_all();
        if forever {
            let counts: BTreeMap<_, _> =
                straight.facts(TraitId::ANY).into_iter().map(|(owner, facts)| (owner, facts.len())).collect();
            prop_assert_eq!(counts, naive(&records));
        }
        let mut world = World::new(options);
        world.traits(&TRAITS);
        world.commit();
        for (record, action) in records.iter().zip(&actions) {
            world.append(std::slice::from_ref(record));
            match action {
                Do::Fold => world.fold_all(),
                Do::Commit => {
                    world.fold_all();
                    world.commit();
                }
                Do::Restart => world = world.crash(),
            }
        }
        world.fold_all();
        prop_assert_eq!(world.picture(), straight.picture());
    }
}
