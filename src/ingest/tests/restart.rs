//! Killed at each step, and compared with a run that was not.

use super::world::T0;
use super::world::World;
use super::world::event;
use super::world::fields;
use super::world::id;
use super::world::message;
use super::world::options;
use crate::archive::Folded;
use crate::bitmap::TraitColumns;
use crate::bitmap::TraitId;
use crate::ingest::Options;
use crate::model::Record;
use crate::model::time::DAY;
use crate::store::state::ArchivePosition;

fn batch(n: i64) -> Vec<Record> {
    let mut records = Vec::new();
    for k in 0..20 {
        let cookie = format!("{:032x}", (n * 7 + k * 3) % 61 + 1);
        let mut event = event(&cookie, "buy", T0 + n * DAY / 2 + k);
        event.ids.push(id("user_id", &format!("u{}", k % 5)));
        event.props = fields(&format!(r#"{{"value":{k}}}"#));
        if k % 4 == 0 {
            event.attrs = fields(&format!(r#"{{"n":{n}}}"#));
        }
        event.message_id = Some(format!("{}", n * 13 + k).into());
        records.push(Record::Event(event));
    }
    records
}

#[test]
fn a_kill_at_any_step_changes_nothing() {
    a_kill_at_any_step_changes_nothing_with(options());
    // Days are dropped and profiles forgotten on the way.
    a_kill_at_any_step_changes_nothing_with(Options { retention: DAY, ..options() });
}

fn a_kill_at_any_step_changes_nothing_with(options: Options) {
    let mut uninterrupted = World::new(options.clone());
    uninterrupted.traits(&["did buy", "sum buy.value"]);
    for n in 0..12 {
        uninterrupted.send(&batch(n));
    }
    let expected = uninterrupted.picture();
    let forgets = options.retention == DAY;
    assert_eq!(uninterrupted.engine.stats().profiles < 61, forgets);
    // Steps: append, fold, cut and commit, compact. Another process takes over before each.
    for kill in 0..48 {
        let mut world = World::new(options.clone());
        world.traits(&["did buy", "sum buy.value"]);
        world.commit();
        let mut step = 0;
        for n in 0..12 {
            for action in 0..4 {
                if step == kill {
                    world = world.crash();
                    world.fold_all();
                }
                step += 1;
                match action {
                    0 => world.append(&batch(n)),
                    1 => world.fold_all(),
                    _ => world.commit(),
                }
            }
        }
        world = world.crash();
        world.fold_all();
        // The lists of what was seen and skipped, columns, dictionary, counters: all of it.
        assert_eq!(world.picture(), expected, "killed before step {kill}");
    }
}

#[test]
fn a_commit_that_is_kept_twice_counts_once() {
    let mut world = World::new(options());
    world.send(&batch(0));
    let mut work = world.fold.cut();
    world.committer.commit(&mut work).unwrap();
    world.committer.commit(&mut work).unwrap();
    let expected = world.picture();
    let world = world.crash();
    assert_eq!(world.picture(), expected);
}

#[test]
fn a_pin_stays_as_it_was_while_folding_goes_on() {
    let mut world = World::new(options());
    world.send(&batch(0));
    let pin = world.engine.pin();
    let facts = |pin: &crate::ingest::Pin| -> usize {
        let blocks = pin.snapshot.shards.iter().flatten();
        blocks.filter_map(|block| block.columns(TraitId::ANY)).map(TraitColumns::len).sum()
    };
    let before = facts(&pin);
    world.send(&batch(5));
    assert_eq!(facts(&pin), before);
    assert!(facts(&world.engine.pin()) > before);
    assert!(pin.position < world.engine.pin().position);
}

/// Fills a trait as the archive would: with what was folded before it.
fn fill(world: &World, id: TraitId, from: TraitId) {
    let pin = world.engine.pin();
    for (shard, blocks) in (0..).zip(&pin.snapshot.shards) {
        for (number, block) in (0..).zip(blocks) {
            let Some(columns) = block.columns(from) else { continue };
            // The new trait asks what the other does, so its older facts are those it lacks.
            let mut lacking = TraitColumns::new();
            for low in 0..u16::try_from(block.population()).unwrap() {
                let all = columns.facts_of(low, i64::MIN, i64::MAX);
                let has =
                    block.columns(id).map_or(0, |own| own.facts_of(low, i64::MIN, i64::MAX).len());
                for (time, value) in &all[..all.len() - has] {
                    lacking.add(low, *time, *value);
                }
            }
            world.engine.absorb(id, shard, [(number, &lacking)]);
        }
    }
    world.engine.mark_whole([id]);
}

#[test]
fn a_trait_that_was_filled_is_whole_after_a_restart_and_one_that_was_not_is_gone() {
    for commits in [false, true] {
        let mut world = World::new(options());
        let first = world.traits(&["did buy"])[0];
        assert!(world.engine.traits().is_whole(first), "nothing was there to fill it with");
        world.send(&batch(0));
        if commits {
            world.commit();
        }
        let both = ["did buy", "did buy[value >= 0]"];
        let second = world.traits(&both)[1];
        assert!(!world.engine.traits().is_whole(second));
        world.send(&batch(5));
        if commits {
            (0..6).for_each(|_| world.commit());
        }
        let unfilled = world.twin();
        assert_eq!(
            unfilled.engine.traits().ids().collect::<Vec<_>>(),
            if commits { vec![first] } else { vec![] }
        );
        fill(&world, second, first);
        assert!(world.engine.traits().is_whole(second));
        assert_eq!(world.facts(second), world.facts(first));
        world.send(&batch(9));
        world.commit();
        world.send(&batch(12));
        let expected = world.facts(first);
        let mut world = world.crash();
        world.fold_all();
        assert_eq!(world.facts(first), expected);
        assert_eq!(world.facts(second), expected);
        assert!(world.engine.traits().is_whole(second));
        (0..6).for_each(|_| world.commit());
        let mut world = world.crash();
        world.fold_all();
        assert_eq!(world.facts(second), expected);
        // A number is never given again.
        let third = world.traits(&["did buy", "did sell"])[1];
        assert!(third > second);
        world.commit();
        assert!(world.facts(second).is_empty());
        let world = world.crash();
        assert!(world.facts(second).is_empty());
        assert_eq!(world.facts(first), expected);
    }
}

#[test]
fn a_fill_that_broke_off_starts_anew() {
    let mut world = World::new(options());
    let first = world.traits(&["did buy"])[0];
    world.send(&batch(0));
    let second = world.traits(&["did buy", "did buy[value >= 0]"])[1];
    world.send(&batch(5));
    let pin = world.engine.restart_fill();
    assert_eq!(pin.traits.folded_from(second), Some(pin.position));
    assert!(world.facts(second).is_empty());
    world.send(&batch(9));
    fill(&world, second, first);
    assert_eq!(world.facts(second), world.facts(first));
}

#[test]
fn skips_go_when_the_archive_has_passed_them() {
    let mut world = World::new(options());
    world.send(&[message("a", "1", T0), message("a", "1", T0)]);
    world.commit();
    world.send(&[message("a", "2", T0), message("a", "2", T0)]);
    world.commit();
    let counted = |world: &World, record| {
        world.engine.is_counted(crate::store::journal::EventNo { record, part: 0 })
    };
    assert_eq!([0, 1, 2, 3].map(|record| counted(&world, record)), [true, false, true, false]);
    let position = world.engine.pin().position;
    world.engine.archived(ArchivePosition { position, next_record: 2 });
    assert!(!counted(&world, 3));
    assert_eq!(world.engine.shared.memory.read().skips.len(), 1);
}

#[test]
fn images_are_of_their_commit_though_profiles_are_forgotten_meanwhile() {
    let options = Options { retention: DAY, compact_bytes: 20, ..options() };
    let mut world = World::new(options);
    let mut idle = event("idle", "view", T0);
    idle.ids.push(id("user_id", "u"));
    world.send(&[Record::Event(idle)]);
    world.commit();
    let mut work = world.fold.cut();
    world.committer.commit(&mut work).unwrap();
    let before = world.twin().picture();
    world.send(&[Record::Event(event("other", "view", T0 + 5 * DAY))]);
    assert_eq!(world.engine.find(&id("cookie", "idle")), None);
    let (shard, view) = work.compact.take().unwrap();
    world.committer.compact(shard, &view, &work).unwrap();
    let after = world.picture();
    let mut world = world.crash();
    assert_eq!(world.picture(), before);
    assert!(world.engine.find(&id("cookie", "idle")).is_some());
    world.fold_all();
    assert_eq!(world.picture(), after);
}
