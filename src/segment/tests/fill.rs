//! Traits are filled from the archive whatever befalls the fill, and go when nobody has asked them for long.

use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::LONG;
use super::Rig;
use crate::archive::Archiver;
use crate::archive::Policy;
use crate::bitmap::TraitColumns;
use crate::metrics::Metrics;
use crate::model::Millis;
use crate::model::time::DAY;
use crate::net::Clock;
use crate::net::Workers;
use crate::plan::TraitSpec;
use crate::segment::AudienceState;
use crate::segment::refresh::Last;

fn started(rig: &Rig) {
    rig.engine.start(&Workers::new(Metrics::new())).unwrap();
    rig.engine.settle(LONG).unwrap();
}

fn archive(rig: &Rig) {
    assert!(rig.engine.commit(LONG));
    let (engine, clock) = (rig.engine.clone(), rig.clock.clone());
    let (catalog, journal) = (rig.local.catalog(), rig.journal.clone());
    Archiver::new(catalog, journal, engine, clock, Policy::default()).flush().unwrap();
}

fn specs() -> Vec<TraitSpec> {
    ["did purchase", "did view"].map(|text| TraitSpec::parse(text).unwrap()).to_vec()
}

/// What the columns of the traits hold.
fn columns(rig: &Rig) -> Vec<Vec<u8>> {
    let pin = rig.engine.pin();
    let mut found = Vec::new();
    for spec in specs() {
        let id = pin.traits.id(&spec).unwrap();
        assert!(pin.traits.is_whole(id), "{spec}");
        for (at, block) in pin.snapshot.shards.iter().flatten().enumerate() {
            let days = block.columns(id).into_iter().flat_map(TraitColumns::days);
            for (day, column) in days {
                let mut bytes = format!("{spec} {at} {day} ").into_bytes();
                column.encode(&mut bytes);
                found.push(bytes);
            }
        }
    }
    found
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).unwrap();
    for entry in std::fs::read_dir(from).unwrap() {
        let (from, to) = {
            let path = entry.unwrap().path();
            let name = to.join(path.file_name().unwrap());
            (path, name)
        };
        if from.is_dir() {
            copy(&from, &to);
        } else {
            std::fs::copy(&from, &to).unwrap();
        }
    }
}

/// A copy of a directory as it is now, which is what a kill would leave; and a start on it.
fn killed(rig: &Rig) -> Rig {
    let dir = Arc::new(tempfile::tempdir().unwrap());
    copy(rig.dir.path(), dir.path());
    Rig::open(dir, rig.clock.0.load(Ordering::Relaxed), None)
}

fn events(rig: &Rig, users: std::ops::Range<u32>) {
    for user in users {
        for days in 0..=user % 6 {
            let name = ["purchase", "view", "search"][((user + days) % 3) as usize];
            rig.event(&format!("u{user}"), name, -Millis::from(days) * DAY - Millis::from(user));
        }
    }
}

#[test]
fn a_fill_that_is_killed_at_any_step_goes_on_and_counts_each_event_once() {
    let base = Rig::new(&[]);
    events(&base, 0..30);
    started(&base);
    archive(&base);
    // What the archive has not come to, and a new profile.
    events(&base, 25..40);
    base.engine.settle(LONG).unwrap();
    assert!(base.engine.commit(LONG));
    let whole = killed(&base);
    started(&whole);
    whole.engine.set_traits(&specs()).unwrap();
    let (filled, shares) = whole.local.fill_steps(usize::MAX);
    assert_eq!(filled.unwrap(), 2);
    assert!(shares.len() >= 20, "{shares:?}");
    events(&whole, 0..10);
    events(&whole, 38..45);
    whole.engine.settle(LONG).unwrap();
    let expected = columns(&whole);
    whole.engine.stop();
    for steps in 0..=shares.len() {
        let rig = killed(&base);
        started(&rig);
        rig.engine.set_traits(&specs()).unwrap();
        let catalog = rig.local.catalog();
        let files = catalog.files();
        let (filled, before) = rig.local.fill_steps(steps);
        assert_eq!((filled.is_ok(), before.len()), (false, steps));
        // Folding goes on meanwhile; some of it is committed, and some archived.
        events(&rig, 0..10);
        rig.engine.settle(LONG).unwrap();
        if steps % 3 > 0 {
            assert!(rig.engine.commit(LONG));
        }
        if steps % 3 == 2 {
            archive(&rig);
        }
        let again = killed(&rig);
        rig.engine.stop();
        drop(rig);
        let is_torn = steps % 4 == 3;
        if is_torn {
            // The end of what was kept is torn.
            let path = again.dir.path().join("fills/lane-0");
            let length = std::fs::metadata(&path).unwrap().len();
            std::fs::File::options().write(true).open(&path).unwrap().set_len(length - 3).unwrap();
        }
        started(&again);
        again.engine.set_traits(&specs()).unwrap();
        // What was read is not read again: it is not even there.
        for row in files.iter().take(steps - usize::from(is_torn)) {
            std::fs::remove_file(again.local.catalog().home().place(&row.file)).unwrap();
        }
        let (filled, after) = again.local.fill_steps(usize::MAX);
        assert_eq!(filled.unwrap(), 2);
        assert!(after.len() >= shares.len());
        events(&again, 38..45);
        again.engine.settle(LONG).unwrap();
        assert_eq!(columns(&again), expected, "killed after {steps} steps");
        assert!(!again.dir.path().join("fills/lane-0").exists());
        again.engine.stop();
    }
    base.engine.stop();
}

fn count(rig: &Rig) -> Option<u64> {
    let generation = rig.segments.generation();
    let audience = generation.audiences.get("buyers")?;
    audience.count.filter(|_| audience.state == AudienceState::Live)
}

/// Refreshes until all live segments are.
fn refreshed(rig: &Rig, last: &mut Last) {
    rig.engine.settle(LONG).unwrap();
    rig.segments.scan_folder();
    let is_done = || {
        let generation = rig.segments.generation();
        generation.true_for == rig.clock.now()
            && generation.version == rig.segments.live().version
            && generation.audiences.values().all(|a| a.state == AudienceState::Live)
    };
    rig.segments.refresh(last);
    while !is_done() {
        rig.segments.refresh(last);
    }
}

#[test]
fn a_trait_that_nobody_asks_goes_after_its_grace_and_not_before() {
    const RULE: &str = "rule = 'did purchase'";
    let mut rig = Rig::new(&[("buyers", RULE), ("lookers", "rule = 'did view'")]);
    rig.event("1", "purchase", 0);
    started(&rig);
    let mut last = Last::default();
    refreshed(&rig, &mut last);
    assert_eq!(count(&rig), Some(1));
    let later = |rig: &Rig, time| {
        rig.clock.0.fetch_add(time, Ordering::Relaxed);
    };
    let unasked = |rig: &Rig| rig.engine.traits().unasked().count();
    let all = |rig: &Rig| rig.engine.traits().ids().count();

    std::fs::remove_file(rig.file("buyers")).unwrap();
    later(&rig, 1_000);
    refreshed(&rig, &mut last);
    assert_eq!((all(&rig), unasked(&rig)), (2, 1));
    rig.event("2", "purchase", 0);
    later(&rig, 3 * DAY - 1);
    refreshed(&rig, &mut last);
    assert_eq!((all(&rig), unasked(&rig)), (2, 1));
    // It comes back, and is whole at once: its first refresh answers.
    std::fs::write(rig.file("buyers"), RULE).unwrap();
    rig.segments.scan_folder();
    rig.segments.refresh(&mut last);
    assert_eq!((count(&rig), unasked(&rig)), (Some(2), 0));

    // The time counts from when it was asked last, over a restart.
    std::fs::remove_file(rig.file("buyers")).unwrap();
    later(&rig, 1_000);
    refreshed(&rig, &mut last);
    for (time, left) in [(2 * DAY, 2), (DAY - 1, 2), (1, 1)] {
        assert!(rig.engine.commit(LONG));
        rig = rig.reopen(time);
        started(&rig);
        refreshed(&rig, &mut Last::default());
        assert_eq!(all(&rig), left, "after {time}");
    }
    // And from then on it is filled again.
    std::fs::write(rig.file("buyers"), RULE).unwrap();
    refreshed(&rig, &mut Last::default());
    assert_eq!(count(&rig), Some(2));
    rig.engine.stop();
}
