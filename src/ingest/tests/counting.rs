//! What becomes of an event, and what it leaves behind.

use std::collections::BTreeMap;

use super::world::T0;
use super::world::World;
use super::world::event;
use super::world::fields;
use super::world::id;
use super::world::message;
use super::world::options;
use crate::bitmap::Mark;
use crate::bitmap::TraitId;
use crate::ingest::marked;
use crate::model::Choice;
use crate::model::Consent;
use crate::model::Event;
use crate::model::ImportLines;
use crate::model::Record;
use crate::model::RejectedLine;
use crate::model::Value;
use crate::model::record::ImportedEvent;
use crate::model::record::POISON;
use crate::model::time::DAY;
use crate::model::time::HOUR;
use crate::store::journal::EventNo;

fn counts(world: &World) -> BTreeMap<String, usize> {
    world.facts(TraitId::ANY).into_iter().map(|(owner, facts)| (owner, facts.len())).collect()
}

fn counts_are(world: &World, expected: &[(&str, usize)]) {
    let expected: BTreeMap<_, _> =
        expected.iter().map(|(owner, count)| ((*owner).to_owned(), *count)).collect();
    assert_eq!(counts(world), expected);
}

#[test]
fn an_event_belongs_to_its_first_identifier_and_the_others_are_listed_there() {
    let mut world = World::new(options());
    let mut with_user = event("c1", "view", T0);
    with_user.ids.push(id("user_id", "u"));
    let by_user = Event { ids: vec![id("user_id", "u")], ..event("x", "view", T0) };
    world.send(&[
        Record::Event(with_user.clone()),
        Record::Event(event("c2", "view", T0)),
        Record::Event(by_user),
        Record::Event(with_user),
    ]);
    counts_are(&world, &[("c1", 2), ("c2", 1), ("u", 1)]);
    let (shard, ordinal) = world.engine.find(&id("cookie", "c1")).unwrap();
    assert_eq!(world.engine.identifiers(shard, ordinal), [id("cookie", "c1"), id("user_id", "u")]);
    let (shard, ordinal) = world.engine.find(&id("user_id", "u")).unwrap();
    assert_eq!(world.engine.identifiers(shard, ordinal), [id("user_id", "u")]);
    assert_eq!(world.engine.find(&id("cookie", "c3")), None);
    assert_eq!(world.engine.find(&id("gaid", "c1")), None);
    let pin = world.engine.pin();
    let blocks = pin.snapshot.shards.iter().flatten();
    let holders: u32 =
        blocks.clone().filter_map(|block| block.holders("user_id")).map(|set| set.len()).sum();
    assert_eq!(holders, 2);
    assert_eq!(blocks.map(|block| block.devices().len()).sum::<u32>(), 2);
}

#[test]
fn a_message_counts_once_within_a_day_of_receipt() {
    let mut world = World::new(options());
    world.send(&[message("a", "m", T0), message("b", "m", T0 + DAY)]);
    world.send(&[message("c", "m", T0 + DAY + 1)]);
    // The day starts anew with what was counted, not with what was left out.
    world.send(&[message("d", "m", T0 + 2 * DAY + 1), message("e", "m", T0 + 2 * DAY + 2)]);
    let other_site =
        Event { site: "other".into(), message_id: Some("m".into()), ..event("f", "view", T0) };
    world.send(&[Record::Event(other_site), Record::Event(event("g", "view", T0))]);
    counts_are(&world, &[("a", 1), ("c", 1), ("e", 1), ("f", 1), ("g", 1)]);
    let counters = world.engine.stats().counters;
    assert_eq!((counters.counted, counters.duplicates), (5, 2));
    let pin = world.engine.pin();
    let counted = |record| pin.is_counted(EventNo { record, part: 0 });
    assert_eq!([0, 1, 2, 3, 4, 5, 6].map(counted), [true, false, true, false, true, true, true]);
    // A duplicate brings nothing, not even a profile.
    assert_eq!(world.engine.find(&id("cookie", "b")), None);
}

#[test]
fn a_set_of_messages_that_outgrows_memory_stays_exact() {
    let small = crate::ingest::Options { dedup_memory: 40_000, ..options() };
    let mut world = World::new(small);
    let records = |from: usize, to: usize| -> Vec<Record> {
        let message = |n: usize| message("a", &n.to_string(), T0 + i64::try_from(n).unwrap());
        (from..to).map(message).collect()
    };
    let mut expected = 0;
    for (from, to, new) in
        [(0, 900, 900), (100, 1000, 100), (900, 2000, 1000), (0, 2500, 500), (2400, 2600, 100)]
    {
        world.send(&records(from, to));
        expected += new;
        assert_eq!(world.engine.stats().counters.counted, expected, "{from}..{to}");
        world.commit();
        if to == 2000 {
            world = world.crash();
        }
    }
    let late = |n: usize| message("a", &n.to_string(), T0 + DAY + 500);
    world.send(&[late(499), late(500), late(2599)]);
    assert_eq!(world.engine.stats().counters.counted, expected + 1);
}

fn lines(first_line: u64, events: &[(u64, bool, &str, i64)]) -> Record {
    let last = events.last().map_or(first_line, |(line, ..)| *line);
    let imported = |(line, own_message_id, id, time): &(u64, bool, &str, i64)| ImportedEvent {
        line: *line,
        own_message_id: *own_message_id,
        event: Event { message_id: Some((*id).into()), ..event("a", "view", *time) },
    };
    Record::Import(ImportLines {
        import: "file".into(),
        first_line,
        lines: last - first_line + 1,
        events: events.iter().map(imported).collect(),
        rejected: Vec::new(),
    })
}

#[test]
fn a_line_of_an_import_is_taken_once_and_its_own_message_counts_once_for_ever() {
    let mut world = World::new(options());
    world.send(&[lines(1, &[(1, true, "m", T0), (2, false, "1", T0), (4, true, "m", T0)])]);
    world.commit();
    world = world.crash();
    // Lines come again, and a message comes again after more than a day.
    let later = T0 + 3 * DAY;
    world.send(&[
        lines(3, &[(4, true, "m", T0), (5, true, "m", later), (6, false, "1", later)]),
        message("b", "m", later),
    ]);
    counts_are(&world, &[("a", 3), ("b", 1)]);
    let import = world.engine.import("file").unwrap();
    assert_eq!((import.taken, import.counted, import.duplicates), (6, 3, 2));
    let pin = world.engine.pin();
    let counted = |part| pin.is_counted(EventNo { record: 1, part });
    assert_eq!([0, 1, 2].map(counted), [false, false, true]);
    // What was sent to the public listener counts against an import too.
    world.send(&[lines(7, &[(7, false, "m", later + HOUR)])]);
    assert_eq!(world.engine.import("file").unwrap().duplicates, 3);
}

#[test]
fn rejected_lines_are_kept_once() {
    let mut world = World::new(options());
    let line = |line| RejectedLine { line, code: "time".into(), message: "no".into() };
    let record = |first_line, lines, rejected: Vec<u64>| {
        Record::Import(ImportLines {
            import: "file".into(),
            first_line,
            lines,
            events: Vec::new(),
            rejected: rejected.into_iter().map(line).collect(),
        })
    };
    world.send(&[record(1, 5, vec![2, 5]), record(4, 6, vec![5, 9])]);
    world.commit();
    assert_eq!(world.engine.rejected("file", 0, 10).unwrap(), [2, 5, 9].map(line));
    let import = world.engine.import("file").unwrap();
    assert_eq!((import.taken, import.rejected), (9, 3));
}

#[test]
fn what_cannot_be_read_is_put_aside_with_its_reason() {
    let mut world = World::new(options());
    let nobody = Event { ids: Vec::new(), ..event("x", "view", T0) };
    world.send(&[
        Record::Event(event("a", "view", T0)),
        Record::Event(nobody),
        Record::Event(event("b", "view", T0)),
        Record::Event(event("c", POISON, T0)),
    ]);
    world.commit();
    counts_are(&world, &[("a", 1), ("b", 1)]);
    let letters = world.engine.dead_letters(None, 10).unwrap();
    assert_eq!(letters.len(), 2);
    assert_eq!(letters[1].event, EventNo { record: 3, part: 0 });
    assert_eq!(letters[0].event, EventNo { record: 1, part: 0 });
    assert_eq!(&*letters[0].reason, "an event without an identifier");
    assert!(Record::decode(&letters[0].bytes).is_err());
    assert!(!world.engine.pin().is_counted(letters[0].event));
    assert_eq!(world.engine.stats().counters.dead_letters, 2);
}

#[test]
fn a_choice_stands_for_a_profile_that_comes_later() {
    let mut world = World::new(options());
    let choice = |cookie, opted_out| {
        let identifier = id("cookie", cookie);
        Record::Choice(Choice { identifier, opted_out, received: T0 })
    };
    world.send(&[choice("a", true), choice("b", true), Record::Event(event("a", "view", T0))]);
    world.commit();
    world = world.crash();
    world.send(&[choice("b", false), Record::Event(event("b", "view", T0))]);
    let opted_out = |world: &World| {
        let sets = marked(&world.engine.pin().snapshot, Mark::OptedOut);
        let (shard, ordinal) = world.engine.find(&id("cookie", "a")).unwrap();
        assert!(sets[usize::from(shard)].contains(ordinal));
        sets.iter().map(roaring::RoaringBitmap::len).sum::<u64>()
    };
    assert_eq!(opted_out(&world), 1);
    counts_are(&world, &[("a", 1), ("b", 1)]);
}

#[test]
fn the_last_word_about_consent_stands_with_the_profile() {
    let mut world = World::new(options());
    let said = |cookie, purposes: &[u8], vendors: &[u16]| {
        let purposes = purposes.iter().copied().collect();
        let consent = Some(Box::new(Consent { purposes, vendors: vendors.to_vec() }));
        Record::Event(Event { consent, ..event(cookie, "view", T0) })
    };
    let silent = |cookie| Record::Event(event(cookie, "view", T0));
    let unconsented = |world: &World, vendor| {
        let sets = world.engine.pin().unconsented(vendor);
        let is_out = |cookie: &str| {
            let (shard, ordinal) = world.engine.find(&id("cookie", cookie)).unwrap();
            sets[usize::from(shard)].contains(ordinal)
        };
        ["a", "b", "c", "d"].map(is_out)
    };
    world.send(&[
        said("a", &[1, 3, 4], &[755]),
        said("b", &[1], &[755]),
        said("c", &[1, 3, 4], &[]),
        silent("d"),
    ]);
    let check = |world: &World| {
        assert_eq!(unconsented(world, None), [false, true, false, false]);
        assert_eq!(unconsented(world, Some(755)), [false, true, true, false]);
        assert_eq!(unconsented(world, Some(21)), [true, true, true, false]);
    };
    check(&world);
    world.commit();
    world = world.crash();
    check(&world);
    // Silence takes nothing back and gives nothing.
    world.send(&[silent("a"), silent("b"), silent("c")]);
    check(&world);
    world.send(&[said("a", &[1, 3], &[755]), said("b", &[1, 3, 4], &[21])]);
    assert_eq!(unconsented(&world, None), [true, false, false, false]);
    assert_eq!(unconsented(&world, Some(21)), [true, false, true, false]);
    world.commit();
    world = world.crash();
    assert_eq!(unconsented(&world, Some(755)), [true, true, true, false]);
    // What was said before and comes late gives nothing back that was taken meanwhile, and takes back all the same.
    let late = |record| {
        let Record::Event(event) = record else { unreachable!("an event") };
        Record::Event(Event { received: T0 + HOUR, ..event })
    };
    world.send(&[late(said("a", &[1, 3, 4], &[755])), late(said("b", &[1, 3], &[21]))]);
    assert_eq!(unconsented(&world, None), [true, true, false, false]);
    // It is the first word of one of whom nothing is known.
    world.send(&[late(said("d", &[1], &[]))]);
    assert_eq!(unconsented(&world, None), [true, true, false, true]);
}

#[test]
fn traits_attributes_marks_and_schema_follow_the_event() {
    let mut world = World::new(options());
    let traits = world.traits(&["did buy[value > 3]", "sum buy.value"]);
    let mut buy = event("a", "buy", T0);
    buy.props = fields(r#"{"value":"4.5","order":{"lines":[{"sku":1}]}}"#);
    buy.attrs = fields(r#"{"country":"FR"}"#);
    buy.bot = true;
    let mut huge = event("a", "buy", T0 + 1);
    huge.props = fields(r#"{"value":1e300}"#);
    world.send(&[Record::Event(buy), Record::Event(huge)]);
    assert_eq!(world.facts(traits[0])["a"], [(T0, None), (T0 + 1, None)]);
    assert_eq!(world.facts(traits[1])["a"], [(T0, Some(45_000))]);
    let stats = world.engine.stats();
    assert_eq!((stats.counters.out_of_range, stats.counters.facts, stats.facts), (1, 5, 5));
    let pin = world.engine.pin();
    let (shard, ordinal) = world.engine.find(&id("cookie", "a")).unwrap();
    let block = &pin.snapshot.shards[usize::from(shard)][0];
    let country = block.attribute("country").unwrap();
    let (_, value) = country.value_at(u16::try_from(ordinal).unwrap(), T0).unwrap();
    assert_eq!(value, &crate::model::Value::string("FR"));
    assert_eq!(block.marked(Mark::Bot).len(), 1);
    let schema = world.engine.schema();
    assert!(schema.knows_event("buy") && !schema.knows_event("bought"));
    let paths: Vec<_> = schema.properties("buy").collect();
    assert_eq!(paths, ["order", "order.lines", "order.lines.sku", "value"]);
    assert_eq!(schema.attributes().collect::<Vec<_>>(), ["country"]);
}

#[test]
fn days_before_the_retention_are_dropped_and_not_taken() {
    let mut world = World::new(options());
    let old = |cookie: &str, days: i64| {
        Record::Event(Event { received: T0, ..event(cookie, "view", T0 - days * DAY) })
    };
    world.send(&[old("a", 80), old("b", 95)]);
    // Too old for the columns, but counted: its profile and attributes are there.
    counts_are(&world, &[("a", 1)]);
    assert!(world.engine.find(&id("cookie", "b")).is_some());
    assert_eq!(world.engine.stats().counters.counted, 2);
    world.send(&[Record::Event(event("c", "view", T0 + 5 * DAY))]);
    counts_are(&world, &[("a", 1), ("c", 1)]);
    world.commit();
    world.send(&[Record::Event(event("c", "view", T0 + 13 * DAY))]);
    counts_are(&world, &[("c", 2)]);
    world.commit();
    let before = world.picture();
    let world = world.crash();
    assert_eq!(world.picture(), before);
}

#[test]
fn a_profile_of_which_nothing_is_left_is_forgotten_and_its_ordinal_stays_dead() {
    let mut world = World::new(options());
    let mut idle = event("idle", "view", T0);
    idle.ids.push(id("user_id", "u"));
    idle.bot = true;
    idle.consent = Some(Box::default());
    let mut known = event("known", "view", T0);
    known.attrs = fields(r#"{"country":"FR"}"#);
    let choice = |cookie, opted_out| {
        let identifier = id("cookie", cookie);
        Record::Choice(Choice { identifier, opted_out, received: T0 })
    };
    world.send(&[
        Record::Event(idle.clone()),
        Record::Event(known),
        choice("refused", true),
        choice("undecided", false),
    ]);
    world.commit();
    let (shard, ordinal) = world.engine.find(&id("cookie", "idle")).unwrap();
    world.send(&[Record::Event(event("other", "view", T0 + 91 * DAY))]);
    assert!(world.engine.find(&id("cookie", "idle")).is_some(), "a day is left over");
    world.send(&[Record::Event(event("other", "view", T0 + 92 * DAY))]);
    let is_forgotten = |world: &World| {
        for (cookie, known) in
            [("idle", false), ("undecided", false), ("known", true), ("refused", true)]
        {
            assert_eq!(world.engine.find(&id("cookie", cookie)).is_some(), known, "{cookie}");
        }
        assert_eq!(world.engine.identifiers(shard, ordinal), []);
        assert_eq!(world.engine.stats().profiles, 3);
        let pin = world.engine.pin();
        let blocks = || pin.snapshot.shards.iter().flatten();
        assert!(blocks().all(|block| block.holders("user_id").is_none()));
        assert!(blocks().all(|block| block.marked(Mark::Bot).is_empty()));
        assert!(blocks().all(|block| block.consents().is_empty()));
        assert_eq!(blocks().map(|block| block.marked(Mark::OptedOut).len()).sum::<u32>(), 1);
    };
    is_forgotten(&world);
    world = world.crash();
    world.fold_all();
    is_forgotten(&world);
    // Images are made of it, in which the identifiers are no more.
    for _ in 0..8 {
        world.commit();
    }
    world = world.crash();
    is_forgotten(&world);
    // Who comes back is somebody new.
    idle.received = T0 + 92 * DAY;
    idle.time = idle.received;
    world.send(&[Record::Event(idle)]);
    let (_, again) = world.engine.find(&id("cookie", "idle")).unwrap();
    assert!(again > ordinal);
    assert_eq!(world.engine.identifiers(shard, again), [id("cookie", "idle"), id("user_id", "u")]);
    assert_eq!(world.engine.stats().profiles, 4);
}

#[test]
fn names_of_attributes_are_bounded_and_known_ones_go_on() {
    let mut world = World::new(options());
    let named = |from: usize, to: usize, value: &str| {
        let mut event = event("a", "view", T0);
        let name = |n: usize| (format!("a{n}").into(), Value::string(value));
        event.attrs = (from..to).map(name).collect();
        Record::Event(event)
    };
    world.send(&[named(0, 4_000, "1"), named(4_000, 5_000, "1")]);
    world.commit();
    world = world.crash();
    world.send(&[named(0, 1, "2"), named(6_000, 6_001, "2")]);
    assert_eq!(world.engine.schema().attributes().count(), 4_096);
    assert!(world.engine.schema().knows_attribute("a6000"), "it may have been seen");
    let pin = world.engine.pin();
    let (shard, ordinal) = world.engine.find(&id("cookie", "a")).unwrap();
    let block = &pin.snapshot.shards[usize::from(shard)][0];
    let value = |name: &str| {
        let (_, value) = block.attribute(name)?.value_at(u16::try_from(ordinal).unwrap(), T0)?;
        Some(value.clone())
    };
    assert_eq!(value("a0"), Some(Value::string("2")));
    assert_eq!((value("a4095").is_some(), value("a4999"), value("a6000")), (true, None, None));
    assert_eq!(block.attributes().count(), 4_096);
    assert_eq!(world.engine.stats().counters.counted, 4);
}
