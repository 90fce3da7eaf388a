//! The contract of a [`Ledger`], run against every backend.

use std::sync::Arc;

use super::*;
use crate::model::Namespace;

/// Opens the store, the same one at each call.
pub(crate) type Open<'a> = &'a dyn Fn() -> Arc<dyn Ledger>;

/// The contracts that hold across processes: a backend opens the store anew at each call.
pub(crate) const ACROSS_PROCESSES: [fn(Open<'_>); 2] =
    [names_of_batches_only_rise, everything_outlives_the_process];

/// Every contract. Each gets a store of its own.
pub(crate) const ALL: [fn(Open<'_>); 14] = [
    what_is_acknowledged_is_held_in_order,
    what_is_held_comes_in_pages,
    what_is_held_of_some_is_told_of_these,
    targets_do_not_meet,
    a_withdrawn_batch_leaves_its_identifiers_unsure,
    names_of_batches_only_rise,
    settling_twice_changes_nothing,
    everything_outlives_the_process,
    deliveries_are_remembered_and_bounded,
    another_goes_on_where_one_has_ended,
    one_goes_on_where_another_has_ended,
    what_is_refused_is_not_held_and_is_remembered,
    many_are_refused_and_come_in_pages,
    a_job_lasts_as_long_as_its_batch,
];

fn identifier(namespace: &str, value: &str) -> Identifier {
    Identifier::new(Namespace::new(namespace).unwrap(), value).unwrap()
}

fn users(values: &[&str]) -> Vec<Identifier> {
    values.iter().map(|value| identifier("user_id", value)).collect()
}

fn changes(adds: &[&str], removes: &[&str]) -> Changes {
    Changes { adds: users(adds), removes: users(removes) }
}

fn target() -> Target {
    Target::new("crm", "buyers")
}

fn held(ledger: &dyn Ledger, target: &Target) -> Vec<(String, bool)> {
    let held = ledger.held(target, None, 1_000).unwrap();
    held.into_iter().map(|held| (held.identifier.value().to_owned(), held.unsure)).collect()
}

fn sure(values: &[&str]) -> Vec<(String, bool)> {
    values.iter().map(|value| ((*value).to_owned(), false)).collect()
}

fn what_is_acknowledged_is_held_in_order(open: Open<'_>) {
    let ledger = open();
    let batch = ledger.prepare(&target(), 4, 77, changes(&["b", "a", "ab"], &[]), 100).unwrap();
    assert_eq!((batch.generation, batch.seq, batch.true_for, batch.prepared_at), (4, 1, 77, 100));
    assert_eq!(held(&*ledger, &target()), []);
    assert_eq!(ledger.prepared(&target()).unwrap(), std::slice::from_ref(&batch));
    ledger.acknowledge(&batch, 101).unwrap();
    assert_eq!(held(&*ledger, &target()), sure(&["a", "ab", "b"]));
    assert_eq!(ledger.prepared(&target()).unwrap(), []);

    let batch = ledger.prepare(&target(), 5, 78, changes(&["c"], &["a", "gone"]), 102).unwrap();
    ledger.acknowledge(&batch, 103).unwrap();
    assert_eq!(held(&*ledger, &target()), sure(&["ab", "b", "c"]));
    let standing = Standing { target: target(), held: 3, prepared: 0 };
    assert_eq!(ledger.standings().unwrap(), [standing]);
}

fn what_is_held_comes_in_pages(open: Open<'_>) {
    let ledger = open();
    let mut all: Vec<Identifier> =
        (0..25).map(|n| identifier("user_id", &format!("{n}"))).collect();
    // A namespace that begins another, and values that sort around the byte between the halves.
    all.extend(["user", "user_id_x", "a", "z9"].map(|namespace| identifier(namespace, "!")));
    all.sort();
    let changes = Changes { adds: all.clone(), removes: Vec::new() };
    let batch = ledger.prepare(&target(), 1, 0, changes, 0).unwrap();
    ledger.acknowledge(&batch, 0).unwrap();
    let mut read: Vec<Identifier> = Vec::new();
    loop {
        let page = ledger.held(&target(), read.last(), 7).unwrap();
        assert!(page.len() <= 7);
        if page.is_empty() {
            break;
        }
        read.extend(page.into_iter().map(|held| held.identifier));
    }
    assert_eq!(read, all);
    let between = identifier("user_id", "10x");
    let page = ledger.held(&target(), Some(&between), 1).unwrap();
    assert_eq!(page[0].identifier, identifier("user_id", "11"));
}

fn what_is_held_of_some_is_told_of_these(open: Open<'_>) {
    let ledger = open();
    let ask = |asked: &[&str]| -> Vec<(String, bool)> {
        let held = ledger.held_among(&target(), &users(asked)).unwrap();
        held.into_iter().map(|held| (held.identifier.value().to_owned(), held.unsure)).collect()
    };
    assert_eq!(ask(&["a"]), []);
    let batch = ledger.prepare(&target(), 1, 0, changes(&["a", "c", "d"], &[]), 0).unwrap();
    ledger.acknowledge(&batch, 0).unwrap();
    let batch = ledger.prepare(&target(), 2, 0, changes(&["e"], &["c"]), 0).unwrap();
    assert_eq!(ask(&["c", "e"]), sure(&["c"]));
    ledger.withdraw(&batch, 0).unwrap();
    let marks = [("a", false), ("c", true), ("e", true)].map(|(v, mark)| (v.to_owned(), mark));
    assert_eq!(ask(&["a", "b", "c", "e", "f"]), marks);
    assert_eq!(ask(&[]), []);
    assert_eq!(ledger.held_among(&target(), &[identifier("cookie", "a")]).unwrap(), []);
    let other = Target::new("crm", "lookers");
    assert_eq!(ledger.held_among(&other, &users(&["a"])).unwrap(), []);
    let many: Vec<String> = (0..2_500).map(|n| format!("{n:04}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    let batch = ledger.prepare(&target(), 3, 0, changes(&many, &[]), 0).unwrap();
    ledger.acknowledge(&batch, 0).unwrap();
    let with_others = [&many[..], &["a", "b"]].concat();
    assert_eq!(ask(&with_others), [sure(&many), sure(&["a"])].concat());
}

fn targets_do_not_meet(open: Open<'_>) {
    let ledger = open();
    let targets =
        [("crm", "buyers"), ("crm", "lookers"), ("ads", "buyers")].map(|(d, s)| Target::new(d, s));
    for (at, target) in targets.iter().enumerate() {
        let value = at.to_string();
        let batch = ledger.prepare(target, 1, 0, changes(&[&value], &[]), 0).unwrap();
        assert_eq!(batch.seq, 1);
        ledger.acknowledge(&batch, 0).unwrap();
    }
    for (at, target) in targets.iter().enumerate() {
        assert_eq!(held(&*ledger, target), sure(&[&at.to_string()]));
    }
    assert_eq!(held(&*ledger, &Target::new("ads", "lookers")), []);
    let mut sorted = targets.to_vec();
    sorted.sort();
    let standings = ledger.standings().unwrap();
    assert_eq!(standings.iter().map(|s| s.target.clone()).collect::<Vec<_>>(), sorted);
    let batch = ledger.prepare(&targets[0], 1, 0, changes(&[], &["0"]), 0).unwrap();
    assert_eq!(ledger.prepared(&targets[1]).unwrap(), []);
    ledger.acknowledge(&batch, 0).unwrap();
    assert_eq!(ledger.standings().unwrap().len(), 2);
}

fn a_withdrawn_batch_leaves_its_identifiers_unsure(open: Open<'_>) {
    let ledger = open();
    let batch = ledger.prepare(&target(), 1, 0, changes(&["a", "b"], &[]), 0).unwrap();
    ledger.acknowledge(&batch, 0).unwrap();
    let batch = ledger.prepare(&target(), 2, 0, changes(&["c"], &["a"]), 0).unwrap();
    ledger.withdraw(&batch, 0).unwrap();
    let marks = [("a", true), ("b", false), ("c", true)].map(|(value, m)| (value.to_owned(), m));
    assert_eq!(held(&*ledger, &target()), marks);
    assert_eq!(ledger.prepared(&target()).unwrap(), []);
    // The next batch settles it.
    let batch = ledger.prepare(&target(), 2, 0, changes(&["a"], &["c"]), 0).unwrap();
    ledger.acknowledge(&batch, 0).unwrap();
    assert_eq!(held(&*ledger, &target()), sure(&["a", "b"]));
    assert_eq!(ledger.standings().unwrap()[0].held, 2);
}

fn names_of_batches_only_rise(open: Open<'_>) {
    let mut names = Vec::new();
    let mut ids = std::collections::HashSet::new();
    for generation in [0, 3, 3, 2, 3, 4, 1, 0] {
        // A number is used up by a batch that went nowhere, and by an earlier process.
        let ledger = open();
        let batch = ledger.prepare(&target(), generation, 0, changes(&["a"], &[]), 0).unwrap();
        assert!(ids.insert(batch.id()));
        names.push((batch.generation, batch.seq));
        match names.len() % 3 {
            0 => ledger.acknowledge(&batch, 0).unwrap(),
            1 => ledger.withdraw(&batch, 0).unwrap(),
            _ => {}
        }
    }
    assert_eq!(names, [(0, 1), (3, 1), (3, 2), (3, 3), (3, 4), (4, 1), (4, 2), (4, 3)]);
    let other = Target::new("crm", "lookers");
    let batch = open().prepare(&other, 3, 0, changes(&["a"], &[]), 0).unwrap();
    assert!(ids.insert(batch.id()));
    assert_eq!(batch.id().as_str().len(), 32);
}

fn settling_twice_changes_nothing(open: Open<'_>) {
    let ledger = open();
    let first = ledger.prepare(&target(), 1, 0, changes(&["a"], &[]), 0).unwrap();
    ledger.acknowledge(&first, 0).unwrap();
    let second = ledger.prepare(&target(), 1, 0, changes(&[], &["a"]), 0).unwrap();
    ledger.acknowledge(&second, 0).unwrap();
    ledger.acknowledge(&first, 0).unwrap();
    ledger.withdraw(&second, 0).unwrap();
    ledger.failed(&second, "late").unwrap();
    assert_eq!(held(&*ledger, &target()), []);
    assert_eq!(ledger.standings().unwrap(), []);
    assert_eq!(ledger.deliveries("crm", 1).unwrap()[0].failures, 0);
}

fn everything_outlives_the_process(open: Open<'_>) {
    let ledger = open();
    let batch = ledger.prepare(&target(), 1, 5, changes(&["a"], &[]), 6).unwrap();
    ledger.acknowledge(&batch, 7).unwrap();
    let batch = ledger.prepare(&target(), 2, 8, changes(&["b"], &["a"]), 9).unwrap();
    ledger.failed(&batch, "no room").unwrap();
    drop(ledger);
    let ledger = open();
    assert_eq!(ledger.prepared(&target()).unwrap(), [batch]);
    assert_eq!(held(&*ledger, &target()), sure(&["a"]));
    let standing = Standing { target: target(), held: 1, prepared: 1 };
    assert_eq!(ledger.standings().unwrap(), [standing]);
    let deliveries = ledger.deliveries("crm", 9).unwrap();
    assert_eq!(deliveries.len(), 2);
    let (last, first) = (&deliveries[0], &deliveries[1]);
    assert_eq!((last.generation, last.seq, last.adds, last.removes), (2, 1, 1, 1));
    assert_eq!((last.state, last.settled_at, last.failures), (DeliveryState::Prepared, None, 1));
    assert_eq!(last.trouble.as_deref(), Some("no room"));
    assert_eq!((first.state, first.settled_at), (DeliveryState::Acknowledged, Some(7)));
}

fn deliveries_are_remembered_and_bounded(open: Open<'_>) {
    let ledger = open();
    let other = Target::new("ads", "buyers");
    let first = ledger.prepare(&other, 1, 0, changes(&["a"], &[]), 0).unwrap();
    let old = ledger.prepare(&target(), 1, 0, changes(&["a"], &[]), 0).unwrap();
    for seq in 2..=DELIVERIES_KEPT + 1 {
        let batch = ledger.prepare(&target(), 1, 0, changes(&[], &["x"]), 0).unwrap();
        assert_eq!(batch.seq, seq);
        ledger.withdraw(&batch, 1).unwrap();
    }
    let deliveries = ledger.deliveries("crm", usize::MAX).unwrap();
    assert_eq!(deliveries.len() as u64, DELIVERIES_KEPT);
    assert_eq!(deliveries[0].seq, DELIVERIES_KEPT + 1);
    assert_eq!(deliveries[0].state, DeliveryState::Withdrawn);
    // A batch that is no longer on record is still delivered.
    ledger.acknowledge(&old, 2).unwrap();
    assert!(held(&*ledger, &target()).contains(&("a".to_owned(), false)));
    assert_eq!(ledger.deliveries("ads", 5).unwrap(), [first.delivery()]);
}

fn another_goes_on_where_one_has_ended(open: Open<'_>) {
    let here = open();
    let batches: [(&str, u64, &[&str], &[&str]); 5] = [
        ("buyers", 3, &["a", "b", "c"], &[]),
        ("buyers", 3, &["d"], &["a"]),
        ("lookers", 4, &["a"], &[]),
        ("buyers", 5, &["e"], &["b"]),
        ("buyers", 5, &["f"], &[]),
    ];
    for (at, (segment, generation, adds, removes)) in (0..).zip(batches) {
        let target = Target::new("crm", segment);
        let changes = changes(adds, removes);
        let batch = here.prepare(&target, generation, at, changes, at + 10).unwrap();
        match at {
            0 | 2 => here.acknowledge(&batch, at + 20).unwrap(),
            1 => here.withdraw(&batch, at + 20).unwrap(),
            _ => here.failed(&batch, "no room").unwrap(),
        }
    }
    let other = Target::new("ads", "buyers");
    // All of it went, and its names are used up all the same.
    for (adds, removes) in [(&["a"][..], &[][..]), (&[], &["a"])] {
        let batch = here.prepare(&other, 9, 0, changes(adds, removes), 0).unwrap();
        here.acknowledge(&batch, 1).unwrap();
    }
    // One batch is worked on; the destination has a name for the segment, someone has paused it, and some are refused.
    let waits = here.prepared(&target()).unwrap().remove(0);
    let job = Job { name: "j1".into(), ask_at: 60, since: 40 };
    here.begin_job(&waits, &job).unwrap();
    here.set_place(&target(), "their name").unwrap();
    here.set_renewed(&target(), 20_000).unwrap();
    here.set_paused("ads", true).unwrap();
    let lookers = Target::new("crm", "lookers");
    let batch = here.prepare(&lookers, 4, 0, changes(&["x", "y", "z"], &[]), 30).unwrap();
    here.acknowledge_but(&batch, &refusals(&[0, 2]), 31).unwrap();
    let elsewhere = crate::store::embedded::ledger::EmbeddedLedger::in_memory();
    hand_on(&*here, &elsewhere);
    assert_eq!(elsewhere.job(&waits).unwrap(), Some(job));
    assert_eq!(elsewhere.place(&target()).unwrap().as_deref(), Some("their name"));
    assert_eq!(elsewhere.place(&lookers).unwrap(), None);
    assert_eq!(elsewhere.renewed(&target()).unwrap(), Some(20_000));
    assert_eq!(["ads", "crm"].map(|name| elsewhere.paused(name).unwrap()), [true, false]);
    let refused = elsewhere.refused(&lookers, None, 9).unwrap();
    assert_eq!(refused, here.refused(&lookers, None, 9).unwrap());
    assert_eq!(refused.len(), 2);
    let marks = [("a", true), ("b", false), ("c", false), ("d", true)];
    let marks = marks.map(|(value, unsure)| (value.to_owned(), unsure));
    assert_eq!(held(&elsewhere, &target()), marks);
    // It goes on there.
    let go_on = |ledger: &dyn Ledger| {
        let prepared = ledger.prepared(&target()).unwrap();
        assert_eq!(prepared.len(), 2);
        ledger.failed(&prepared[0], "still none").unwrap();
        ledger.acknowledge(&prepared[0], 50).unwrap();
        let on_record = ledger.deliveries("crm", 3).unwrap();
        assert_eq!((on_record[2].failures, on_record[2].settled_at), (2, Some(50)));
        let batch = ledger.prepare(&target(), 1, 0, changes(&["g"], &[]), 51).unwrap();
        assert_eq!((batch.generation, batch.seq), (5, 3));
        let batch = ledger.prepare(&other, 9, 0, changes(&["h"], &[]), 52).unwrap();
        assert_eq!((batch.generation, batch.seq), (9, 3));
        assert_eq!(ledger.deliveries("crm", 9).unwrap().len(), 7);
    };
    go_on(&elsewhere);
}

fn one_goes_on_where_another_has_ended(open: Open<'_>) {
    let elsewhere = crate::store::embedded::ledger::EmbeddedLedger::in_memory();
    for value in ["a", "b"] {
        let batch = elsewhere.prepare(&target(), 7, 0, changes(&[value], &[]), 3).unwrap();
        elsewhere.withdraw(&batch, 4).unwrap();
    }
    elsewhere.prepare(&target(), 7, 5, changes(&["c"], &["a"]), 6).unwrap();
    let here = open();
    hand_on(&elsewhere, &*here);
    let batch = here.prepared(&target()).unwrap().remove(0);
    here.acknowledge(&batch, 8).unwrap();
    let marks = [("b", true), ("c", false)].map(|(value, unsure)| (value.to_owned(), unsure));
    assert_eq!(held(&*here, &target()), marks);
    assert_eq!(here.deliveries("crm", 9).unwrap()[0].settled_at, Some(8));
    let batch = here.prepare(&target(), 7, 0, changes(&["d"], &[]), 9).unwrap();
    assert_eq!((batch.generation, batch.seq), (7, 4));
}

/// Hands on all of a ledger, as much of it twice as a repeat would.
fn hand_on(from: &dyn Ledger, to: &dyn Ledger) {
    let destinations = from.destinations().unwrap();
    for destination in &destinations {
        let books = from.books(destination).unwrap();
        for _ in 0..2 {
            to.take_over(&books).unwrap();
            for last in &books.last {
                let target = Target::new(&**destination, &*last.segment);
                let mut after: Option<Identifier> = None;
                loop {
                    let page = from.held(&target, after.as_ref(), 2).unwrap();
                    let Some(last) = page.last() else { break };
                    after = Some(last.identifier.clone());
                    to.take_held(&target, &page).unwrap();
                }
                let refused = from.refused(&target, None, 1_000).unwrap();
                to.take_refused(&target, &refused).unwrap();
            }
        }
        assert_eq!(to.books(destination).unwrap(), books);
    }
    assert_eq!(to.destinations().unwrap(), destinations);
    assert_eq!(to.standings().unwrap(), from.standings().unwrap());
}

fn refusals(lines: &[usize]) -> Vec<Refusal> {
    lines.iter().map(|line| Refusal { line: *line, why: format!("no \"{line}\"") }).collect()
}

fn refused(ledger: &dyn Ledger) -> Vec<(String, String, Millis)> {
    let refused = ledger.refused(&target(), None, 1_000).unwrap();
    refused.into_iter().map(|one| (one.identifier.value().to_owned(), one.why, one.since)).collect()
}

fn what_is_refused_is_not_held_and_is_remembered(open: Open<'_>) {
    let ledger = open();
    let add = |values: &[&str], lines: &[usize], now: Millis| {
        let batch = ledger.prepare(&target(), 1, 0, changes(values, &[]), now).unwrap();
        ledger.acknowledge_but(&batch, &refusals(lines), now).unwrap();
    };
    add(&["a", "b", "c", "d"], &[1, 3], 5);
    assert_eq!(held(&*ledger, &target()), sure(&["a", "c"]));
    let told = |value: &str, line: usize, now| (value.to_owned(), format!("no \"{line}\""), now);
    assert_eq!(refused(&*ledger), [told("b", 1, 5), told("d", 3, 5)]);
    assert_eq!(ledger.standings().unwrap()[0].held, 2);
    assert_eq!(ledger.deliveries("crm", 9).unwrap()[0].refused, 2);
    assert_eq!(ledger.refused(&Target::new("crm", "buyer"), None, 9).unwrap(), []);

    // Refused again, and taken the next time.
    add(&["b", "d"], &[0], 6);
    assert_eq!(refused(&*ledger), [told("b", 0, 6)]);
    assert_eq!(held(&*ledger, &target()), sure(&["a", "c", "d"]));
    add(&["ba", "b"], &[0], 7);
    assert_eq!(refused(&*ledger), [told("ba", 0, 7)]);
    // Held, unsure since, and refused then.
    let batch = ledger.prepare(&target(), 1, 0, changes(&["c"], &["a"]), 8).unwrap();
    ledger.withdraw(&batch, 8).unwrap();
    add(&["c"], &[0], 9);
    let unsure = ("a".to_owned(), true);
    let mut expected = vec![unsure.clone()];
    expected.extend(sure(&["b", "d"]));
    assert_eq!(held(&*ledger, &target()), expected);
    assert_eq!(ledger.standings().unwrap()[0].held, 3);

    // What could not be removed may be held or not.
    let batch = ledger.prepare(&target(), 1, 0, changes(&["e"], &["a", "b", "d"]), 10).unwrap();
    ledger.acknowledge_but(&batch, &refusals(&[2]), 10).unwrap();
    let unsure = ("b".to_owned(), true);
    assert_eq!(held(&*ledger, &target()), [unsure, ("e".to_owned(), false)]);
    assert_eq!(refused(&*ledger), [told("ba", 0, 7), told("c", 0, 9)]);

    ledger.forget_refused(&target(), &users(&["c", "nobody"])).unwrap();
    drop(ledger);
    assert_eq!(refused(&*open()), [told("ba", 0, 7)]);
}

fn many_are_refused_and_come_in_pages(open: Open<'_>) {
    let ledger = open();
    let mut all: Vec<Identifier> =
        (0..25).map(|n| identifier("user_id", &format!("{n}"))).collect();
    all.extend(["user", "user_id_x", "a", "z9"].map(|namespace| identifier(namespace, "!")));
    all.sort();
    let changes = Changes { adds: all.clone(), removes: Vec::new() };
    let lines: Vec<usize> = (0..all.len()).collect();
    let batch = ledger.prepare(&target(), 1, 0, changes, 0).unwrap();
    ledger.acknowledge_but(&batch, &refusals(&lines), 0).unwrap();
    let mut read: Vec<Identifier> = Vec::new();
    loop {
        let page = ledger.refused(&target(), read.last(), 7).unwrap();
        assert!(page.len() <= 7);
        if page.is_empty() {
            break;
        }
        read.extend(page.into_iter().map(|refused| refused.identifier));
    }
    assert_eq!(read, all);
    let page = ledger.refused(&target(), Some(&identifier("user_id", "10x")), 1).unwrap();
    assert_eq!(page[0].identifier, identifier("user_id", "11"));
}

fn a_job_lasts_as_long_as_its_batch(open: Open<'_>) {
    let ledger = open();
    let job = |at| Job { name: "j-1".to_owned(), ask_at: at, since: 3 };
    let batch = ledger.prepare(&target(), 1, 0, changes(&["a"], &[]), 3).unwrap();
    let other = ledger.prepare(&target(), 1, 0, changes(&["b"], &[]), 3).unwrap();
    assert_eq!(ledger.job(&batch).unwrap(), None);
    ledger.begin_job(&batch, &job(7)).unwrap();
    ledger.begin_job(&batch, &job(8)).unwrap();
    drop(ledger);
    let ledger = open();
    assert_eq!(ledger.job(&batch).unwrap(), Some(job(8)));
    assert_eq!(ledger.job(&other).unwrap(), None);
    assert_eq!(ledger.prepared(&target()).unwrap().len(), 2);
    ledger.acknowledge(&batch, 9).unwrap();
    assert_eq!(ledger.job(&batch).unwrap(), None);
    ledger.begin_job(&batch, &job(9)).unwrap();
    assert_eq!(ledger.job(&batch).unwrap(), None);
    assert_eq!(ledger.prepared(&target()).unwrap(), std::slice::from_ref(&other));

    assert_eq!(ledger.place(&target()).unwrap(), None);
    ledger.set_place(&target(), "1").unwrap();
    ledger.set_place(&target(), "2é").unwrap();
    assert_eq!(ledger.place(&target()).unwrap().as_deref(), Some("2é"));
    assert_eq!(ledger.place(&Target::new("crm", "lookers")).unwrap(), None);

    assert_eq!(ledger.renewed(&target()).unwrap(), None);
    ledger.set_renewed(&target(), 20_000).unwrap();
    ledger.set_renewed(&target(), 20_001).unwrap();
    assert_eq!(ledger.renewed(&target()).unwrap(), Some(20_001));
    assert_eq!(ledger.renewed(&Target::new("crm", "buyer")).unwrap(), None);

    assert!(!ledger.paused("crm").unwrap());
    ledger.set_paused("crm", true).unwrap();
    drop(ledger);
    let ledger = open();
    assert!(ledger.paused("crm").unwrap() && !ledger.paused("ads").unwrap());
    ledger.set_paused("crm", false).unwrap();
    assert!(!ledger.paused("crm").unwrap());
}
