//! Who is erased is in nothing that is kept, and what is read back is what was.

use super::world::T0;
use super::world::World;
use super::world::event;
use super::world::fields;
use super::world::id;
use super::world::options;
use crate::model::Choice;
use crate::model::Erasure;
use crate::model::Event;
use crate::model::Record;

fn ada(name: &str, time: i64, plan: &str) -> Record {
    let attrs = fields(&format!("{{\"plan\":\"{plan}\"}}"));
    let ids = vec![id("cookie", "ada"), id("user_id", "ada-of-old")];
    Record::Event(Event { attrs, ids, ..event("ada", name, time) })
}

#[test]
fn a_profile_is_erased_from_memory_and_from_what_is_read_back() {
    for (kept_before, commits) in [(false, 1), (true, 1), (true, 4)] {
        let mut world = World::new(options());
        let buys = world.traits(&["did buy"])[0];
        world.send(&[ada("buy", T0, "plan-of-old"), Record::Event(event("bob", "buy", T0))]);
        if kept_before {
            (0..commits).for_each(|_| world.commit());
        }
        let print = world.engine.print(&id("cookie", "ada"));
        let choice = Choice { identifier: id("cookie", "ada"), opted_out: true, received: T0 + 1 };
        let new = Event { ids: vec![id("cookie", "ada")], ..event("ada", "buy", T0 + 6) };
        world.send(&[
            Record::Erase(Erasure {
                received: T0 + 2,
                prints: vec![print],
                before: T0 + 5,
                for_good: false,
            }),
            // Late, and then of a new visitor.
            ada("buy", T0 + 3, "plan-of-late"),
            Record::Choice(choice),
            Record::Event(new),
        ]);
        assert_eq!(world.engine.erasures(), 1);
        assert!(world.engine.take_late());
        (0..commits).for_each(|_| world.commit());
        let twin = world.twin();
        for world in [&world, &twin] {
            let facts = world.facts(buys);
            assert_eq!(facts.keys().collect::<Vec<_>>(), ["ada", "bob"]);
            assert_eq!(facts["ada"], [(T0 + 6, None)]);
            let (shard, ordinal) = world.engine.find(&id("cookie", "ada")).unwrap();
            assert_eq!(world.engine.identifiers(shard, ordinal).len(), 1);
            for (part, bytes) in world.picture() {
                let text = String::from_utf8_lossy(&bytes).into_owned();
                assert!(!text.contains("-of-old") && !text.contains("-of-late"), "{part}");
            }
        }
        assert_eq!(twin.picture(), world.picture(), "{kept_before} {commits}");
    }
}
