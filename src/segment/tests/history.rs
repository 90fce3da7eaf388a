//! What the history says is what was published, hour by hour, whoever published it and however often that began anew.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;

use super::LONG;
use super::Rig;
use crate::metrics::Metrics;
use crate::model::Millis;
use crate::model::time::DAY;
use crate::model::time::HOUR;
use crate::model::time::MINUTE;
use crate::net::Workers;
use crate::segment::AskError;
use crate::segment::KEPT_DAYS;
use crate::segment::Per;
use crate::segment::Period;
use crate::segment::Row;
use crate::segment::Segments;
use crate::segment::Tally;
use crate::segment::refresh::Last;
use crate::store::StoreError;
use crate::store::embedded;
use crate::store::shelf::Shelf;

const RULES: [&str; 5] =
    ["did a", "count a in 1h >= 1", "did b in 5h and not did a in 1h", "segment s0", "everyone"];
const STEPS: [Millis; 6] = [1_000, 7_000, 20 * MINUTE, HOUR, 5 * HOUR, 2 * DAY];

fn dice(sides: u32) -> u32 {
    getrandom::u32().unwrap() % sides
}

fn all(per: Per) -> Period {
    Period { per, from: None, to: None }
}

/// Sets of whoever was in, generation by generation.
#[derive(Default)]
struct Model {
    generation: (u64, Millis),
    last: BTreeMap<String, BTreeSet<(usize, u32)>>,
    hours: BTreeMap<(String, Millis), Tally>,
}

impl Model {
    /// Sees what is published, where that is new.
    fn see(&mut self, segments: &Segments) {
        let generation = segments.generation();
        if (generation.number, generation.true_for) <= self.generation || generation.number == 0 {
            return;
        }
        self.generation = (generation.number, generation.true_for);
        let hour = generation.true_for.div_euclid(HOUR) * HOUR;
        let mut last = std::mem::take(&mut self.last);
        for (id, audience) in &generation.audiences {
            let Some(members) = &audience.members else { continue };
            let now: BTreeSet<(usize, u32)> = (members.shards.iter().enumerate())
                .flat_map(|(shard, members)| members.iter().map(move |member| (shard, member)))
                .collect();
            let then = last.remove(id).unwrap_or_default();
            let tally = self.hours.entry((id.clone(), hour)).or_default();
            tally.adds += now.difference(&then).count() as u64;
            tally.removes += then.difference(&now).count() as u64;
            tally.members = now.len() as u64;
            self.last.insert(id.clone(), now);
        }
        for (id, gone) in last.into_iter().filter(|(_, gone)| !gone.is_empty()) {
            let tally = self.hours.entry((id, hour)).or_default();
            tally.removes += gone.len() as u64;
            tally.members = 0;
        }
    }

    fn agrees(&self, segments: &Segments) {
        let ids: BTreeSet<&String> = self.hours.keys().map(|(id, _)| id).collect();
        for id in ids {
            let expected = self.hours.iter().filter(|((of, _), _)| of == id);
            let expected: Vec<Row> = expected
                .map(|((_, time), tally)| Row { time: *time, hours: 1, tally: *tally })
                .collect();
            let hours = segments.history(id, &all(Per::Hour)).unwrap().rows;
            assert_eq!(hours, expected, "{id}");
            // Whoever came in is there or has left.
            let mut members = 0;
            for Row { tally, .. } in &hours {
                members = members + tally.adds - tally.removes;
                assert_eq!(members, tally.members, "{id}: {hours:?}");
            }
            for day in segments.history(id, &all(Per::Day)).unwrap().rows {
                let of_day = |row: &&Row| row.time.div_euclid(DAY) * DAY == day.time;
                let of_day: Vec<&Row> = hours.iter().filter(of_day).collect();
                let sum = |of: fn(&Tally) -> u64| of_day.iter().map(|row| of(&row.tally)).sum();
                let tally = Tally {
                    members: of_day.last().unwrap().tally.members,
                    adds: sum(|tally| tally.adds),
                    removes: sum(|tally| tally.removes),
                };
                let hours = u32::try_from(of_day.len()).unwrap();
                assert_eq!(day, Row { time: day.time, hours, tally }, "{id}");
            }
        }
    }
}

/// Things happen to the users and to the files.
fn happens(rig: &Rig) {
    for _ in 0..dice(8) {
        rig.event(&dice(30).to_string(), ["a", "b"][dice(2) as usize], 0);
    }
    let id = format!("s{}", 1 + dice(4));
    match dice(4) {
        0 => drop(std::fs::remove_file(rig.file(&id))),
        1 => {
            let rule = RULES[dice(5) as usize];
            std::fs::write(rig.file(&id), format!("rule = '{rule}'")).unwrap();
        }
        _ => {}
    }
    rig.engine.settle(LONG).unwrap();
}

#[test]
fn each_hour_has_who_came_and_went_in_it_also_where_the_server_was_started_anew() {
    let mut rig = Rig::new(&[("s0", "rule = 'did a in 1h'"), ("s1", "rule = 'everyone'")]);
    rig.engine.start(&Workers::new(Metrics::new())).unwrap();
    let (mut model, mut last) = (Model::default(), Last::default());
    for round in 0..60 {
        let step = STEPS[dice(6) as usize];
        if round % 10 == 9 {
            rig = rig.reopen(step);
            model.agrees(&rig.segments);
            rig.engine.start(&Workers::new(Metrics::new())).unwrap();
            last = Last::default();
        } else {
            rig.clock.0.fetch_add(step, Ordering::Relaxed);
        }
        happens(&rig);
        rig.segments.scan_folder();
        for _ in 0..=dice(3) {
            rig.segments.refresh(&mut last);
            model.see(&rig.segments);
        }
        model.agrees(&rig.segments);
    }
    // Whatever the dice have left, somebody is in something at the end.
    std::fs::write(rig.file("s1"), "rule = 'everyone'").unwrap();
    rig.event("1", "a", 0);
    rig.engine.settle(LONG).unwrap();
    rig.segments.scan_folder();
    rig.segments.refresh(&mut last);
    model.see(&rig.segments);
    model.agrees(&rig.segments);
    assert!(model.hours.len() > 50, "{}", model.hours.len());
    assert!(model.last.values().any(|set| !set.is_empty()));
    rig.engine.stop();
}

#[test]
fn who_has_lost_the_lead_unawares_changes_nothing_and_who_regains_it_goes_on_with_what_stands() {
    let rig = Rig::new(&[("s0", "rule = 'did a in 1h'"), ("s1", "rule = 'everyone'")]);
    rig.engine.start(&Workers::new(Metrics::new())).unwrap();
    let mut model = Model::default();
    let mut nodes = [0, 1].map(|_| (rig.node(Arc::new(rig.history())), Last::default()));
    let mut turn = |at: usize, step: Millis| {
        rig.clock.0.fetch_add(step, Ordering::Relaxed);
        happens(&rig);
        let (node, last) = &mut nodes[at];
        node.scan_folder();
        node.refresh(last);
        model.see(node);
        // Whoever has not published sees of the past what stands.
        if model.generation.0 == node.generation().number {
            model.agrees(node);
        }
    };
    for lead in 0..20 {
        for _ in 0..1 + dice(4) {
            turn(lead % 2, STEPS[dice(5) as usize]);
        }
    }
    assert!(model.hours.len() > 8, "{:?}", model.hours);
    rig.engine.stop();
}

#[test]
fn where_it_is_not_known_what_was_published_last_the_history_goes_on_from_what_it_says() {
    let mut rig = Rig::new(&[("s0", "rule = 'did a'")]);
    let members = [3, 4, 6].map(|all| {
        rig.engine.start(&Workers::new(Metrics::new())).unwrap();
        (0..all).for_each(|user: u32| rig.event(&user.to_string(), "a", 0));
        rig.engine.settle(LONG).unwrap();
        let mut last = Last::default();
        let count = |rig: &Rig| Some(rig.segments.generation().audiences.get("s0")?.count);
        while count(&rig) != Some(Some(u64::from(all))) {
            rig.segments.refresh(&mut last);
        }
        // Another hour begins, so that of before is in the history.
        rig.clock.0.fetch_add(HOUR, Ordering::Relaxed);
        let hour = rig.segments.generation().hour.number;
        while rig.segments.generation().hour.number == hour {
            rig.segments.refresh(&mut last);
        }
        rig.engine.stop();
        let clock = rig.clock.0.load(Ordering::Relaxed);
        let dir = rig.dir.clone();
        std::fs::remove_dir_all(dir.path().join(embedded::SHELF)).unwrap();
        // As after a backup was restored, which has no audiences.
        rig.segments.forget_published();
        let next = Rig::new(&[]);
        drop(std::mem::replace(&mut rig, next));
        rig = Rig::open(dir, clock, None);
        assert_eq!(rig.segments.generation().number, 0);
        all
    });
    let mut last = Last::default();
    rig.engine.start(&Workers::new(Metrics::new())).unwrap();
    while rig.segments.generation().number == 0 {
        rig.segments.refresh(&mut last);
    }
    let rows = rig.segments.history("s0", &all(Per::Hour)).unwrap().rows;
    let adds: Vec<u64> = rows.iter().map(|row| row.tally.adds).filter(|adds| *adds > 0).collect();
    assert_eq!((members, &adds[..]), ([3, 4, 6], &[3, 1, 2][..]), "{rows:?}");
    assert!(rows.iter().all(|row| row.tally.removes == 0), "{rows:?}");
    rig.engine.stop();
}

/// A shelf that can be out of reach.
struct Away(Arc<dyn Shelf>, AtomicBool);

impl Away {
    fn reached(&self) -> Result<&dyn Shelf, StoreError> {
        match self.1.load(Ordering::Relaxed) {
            true => Err(StoreError::Unavailable { what: "it".into(), source: "away".into() }),
            false => Ok(&*self.0),
        }
    }
}

impl Shelf for Away {
    fn get(&self, name: &str) -> Result<Option<Vec<u8>>, StoreError> {
        self.reached()?.get(name)
    }

    fn keep(&self, name: &str, bytes: &[u8]) -> Result<Vec<u8>, StoreError> {
        self.reached()?.keep(name, bytes)
    }

    fn swap(&self, name: &str, old: Option<&[u8]>, new: Option<&[u8]>) -> Result<bool, StoreError> {
        self.reached()?.swap(name, old, new)
    }

    fn names(&self, prefix: &str) -> Result<Vec<String>, StoreError> {
        self.reached()?.names(prefix)
    }
}

#[test]
fn while_the_history_is_out_of_reach_audiences_go_on_and_what_happens_is_told_later() {
    let rig = Rig::new(&[("s0", "rule = 'did a'")]);
    rig.engine.start(&Workers::new(Metrics::new())).unwrap();
    let shelf = Arc::new(Away(Arc::new(rig.history()), AtomicBool::new(false)));
    let (node, mut last) = (rig.node(shelf.clone()), Last::default());
    let mut after = |hours: Millis, user: &str| {
        rig.clock.0.fetch_add(hours * HOUR, Ordering::Relaxed);
        rig.event(user, "a", 0);
        rig.engine.settle(LONG).unwrap();
        let now = rig.clock.0.load(Ordering::Relaxed);
        while node.generation().true_for < now || node.generation().audiences["s0"].count.is_none()
        {
            node.refresh(&mut last);
        }
        node.generation().audiences["s0"].count.unwrap()
    };
    assert_eq!(after(0, "1"), 1);
    shelf.1.store(true, Ordering::Relaxed);
    assert_eq!((after(1, "2"), after(1, "3")), (2, 3));
    assert!(node.history("s0", &all(Per::Hour)).is_err());
    shelf.1.store(false, Ordering::Relaxed);
    assert_eq!(after(1, "4"), 4);
    let rows = node.history("s0", &all(Per::Hour)).unwrap().rows;
    let tallies: Vec<Tally> = rows.iter().map(|row| row.tally).collect();
    let tally = |members, adds| Tally { members, adds, removes: 0 };
    assert_eq!(tallies, [tally(3, 3), tally(4, 1)]);
    assert_eq!(rows[1].time - rows[0].time, 3 * HOUR);
    rig.engine.stop();
}

#[test]
fn a_time_is_cut_out_and_what_is_too_old_is_dropped() {
    let rig = Rig::new(&[("s0", "rule = 'everyone'")]);
    rig.engine.start(&Workers::new(Metrics::new())).unwrap();
    let mut last = Last::default();
    let mut after = |time: Millis| {
        rig.clock.0.fetch_add(time, Ordering::Relaxed);
        let now = rig.clock.0.load(Ordering::Relaxed);
        while rig.segments.generation().true_for < now
            || rig.segments.generation().audiences["s0"].count.is_none()
        {
            rig.segments.refresh(&mut last);
        }
        now.div_euclid(HOUR) * HOUR
    };
    let times = [after(0), after(HOUR), after(HOUR), after(DAY), after(HOUR)];
    let told = |per, from: Option<&str>, to: Option<&str>| {
        let period = Period { per, from: from.map(Into::into), to: to.map(Into::into) };
        let told = rig.segments.history("s0", &period).unwrap();
        told.rows.into_iter().map(|row| row.time).collect::<Vec<_>>()
    };
    assert_eq!(told(Per::Hour, None, None), times);
    assert_eq!(told(Per::Hour, Some("-25h"), None), times[2..]);
    assert_eq!(told(Per::Hour, Some("-26h"), Some("-1h")), times[1..4]);
    let day = |time: Millis| time.div_euclid(DAY) * DAY;
    assert_eq!(told(Per::Day, Some("-1h"), None), [day(times[4])]);
    assert_eq!(told(Per::Day, None, Some("-1d")), [times[0], times[2]].map(day));
    assert!(told(Per::Hour, Some("-1h"), Some("-1d")).is_empty());
    let wrong = Period { from: Some("yesterday".into()), ..all(Per::Day) };
    assert!(matches!(rig.segments.history("s0", &wrong), Err(AskError::At(_))));
    let unknown = rig.segments.history("s7", &all(Per::Day));
    assert!(matches!(unknown, Err(AskError::Unknown(_))), "{unknown:?}");

    let later = after(KEPT_DAYS * DAY - DAY);
    assert_eq!(told(Per::Day, None, None).len(), 3, "all but what is {KEPT_DAYS} days old");
    let latest = after(DAY);
    assert_eq!(told(Per::Day, None, None), [times[3], later, latest].map(day));
    assert_eq!(rig.history().names("").unwrap().len(), 2, "the last hour has not ended");
    rig.engine.stop();
}
