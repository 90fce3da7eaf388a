//! Shards in several hands answer as those in one.

use std::collections::BTreeMap;
use std::io::Cursor;
use std::io::Read;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;

use crate::archive::Catalog;
use crate::archive::Folded;
use crate::config::Config;
use crate::config::Durability;
use crate::ingest;
use crate::ingest::Engine;
use crate::ingest::Lane;
use crate::ingest::Lanes;
use crate::ingest::Matches;
use crate::metrics::Metrics;
use crate::model::Choice;
use crate::model::Consent;
use crate::model::Event;
use crate::model::Identifier;
use crate::model::Millis;
use crate::model::Namespace;
use crate::model::Record;
use crate::model::ShardId;
use crate::model::Source;
use crate::model::Value;
use crate::model::time::DAY;
use crate::net::SystemClock;
use crate::net::Workers;
use crate::plan::Library;
use crate::rules::Level;
use crate::segment::AskError;
use crate::segment::Asked;
use crate::segment::Caller;
use crate::segment::Compiled;
use crate::segment::Counted;
use crate::segment::Gather;
use crate::segment::Group;
use crate::segment::Holder;
use crate::segment::Live;
use crate::segment::Local;
use crate::segment::Message;
use crate::segment::Of;
use crate::segment::Outcome;
use crate::segment::Peer;
use crate::segment::Remote;
use crate::segment::Segment;
use crate::segment::Serve;
use crate::segment::Shards;
use crate::segment::Which;
use crate::store::embedded;
use crate::store::embedded::journal::EmbeddedJournal;
use crate::store::journal::Batch;
use crate::store::journal::Journal;
use crate::store::lanes::Layout;
use crate::store::state::State;

pub(super) const SHARDS: u16 = 6;
pub(super) const NOW: Millis = 1_700_000_000_000;

/// A lane on a directory of its own, of the store that `key` is a copy of.
fn lane(dir: &Path, key: &Path, number: u16, shards: Vec<ShardId>) -> Arc<Lane> {
    std::fs::create_dir_all(dir).unwrap();
    std::fs::copy(key.join(embedded::STATE), dir.join(embedded::STATE)).unwrap();
    let state: Arc<dyn State> = Arc::new(embedded::State::open(dir, SHARDS).unwrap());
    let options = embedded::journal::Options::new(Durability::DiskBuffered);
    let (journal, _) = EmbeddedJournal::open(&dir.join("journal"), options).unwrap();
    let journal: Arc<dyn Journal> = Arc::new(journal);
    let engine = Engine::open(
        state.clone(),
        journal.clone(),
        Arc::new(SystemClock::default()),
        Arc::new(Metrics::new()),
        ingest::Options {
            shards: Some(shards.clone()),
            ..ingest::Options::new(36_500 * DAY, 1 << 20)
        },
    )
    .unwrap();
    let loaded = state.load().unwrap();
    let (catalog, _) =
        Catalog::open(&dir.join("archive"), &shards, state, loaded.manifest, loaded.archived)
            .unwrap();
    engine.start(&Workers::new(Metrics::new())).unwrap();
    let audiences = Arc::new(embedded::Audiences::open(dir).unwrap());
    Arc::new(Lane { number, shards, journal, engine, catalog: Arc::new(catalog), audiences })
}

pub(super) fn local(lanes: &[Arc<Lane>]) -> Arc<Local> {
    let held = Arc::new(Lanes::new(SHARDS));
    lanes.iter().for_each(|lane| held.insert(lane.clone()));
    let workers = Workers::new(Metrics::new());
    Arc::new(Local::new(held, &Config::default(), Metrics::new(), workers, None))
}

/// Another node, reached without a network.
struct Direct(Serve);

impl Peer for Direct {
    fn ask(&self, what: &str, body: Vec<u8>, _: Duration) -> Result<Vec<u8>, AskError> {
        let answer = self.0.answer(what, &Message::decode(&body)?, &Caller::default());
        Ok(Message::answer(&answer))
    }

    fn stream(&self, body: Vec<u8>) -> Result<Box<dyn Read + Send>, AskError> {
        let mut all = Vec::new();
        self.0.stream(&Message::decode(&body)?, &mut |chunk| {
            all.extend(chunk);
            true
        })?;
        Ok(Box::new(Cursor::new(all)))
    }
}

pub(super) fn id(namespace: &str, value: &str) -> Identifier {
    Identifier::new(Namespace::new(namespace).unwrap(), value).unwrap()
}

fn event(user: u32, name: &str, time: Millis) -> Event {
    Event {
        received: NOW,
        time,
        source: Source::Api,
        site: "s".into(),
        name: name.into(),
        message_id: None,
        ids: vec![id("user_id", &format!("u{user}")), id("crm_id", &format!("c{}", user / 3))],
        props: Vec::new(),
        attrs: vec![("kind".into(), Value::string(["a", "b", "c"][user as usize % 7 % 3]))],
        page: crate::model::Page::default(),
        device: crate::model::Device::default(),
        country: None,
        locale: None,
        consent: user.is_multiple_of(5).then(|| {
            let purposes = [1, 3, 4].into_iter().take(2 + user as usize % 3 / 2).collect();
            Box::new(Consent { purposes, vendors: vec![755] })
        }),
        bot: user % 50 == 7,
        time_replaced: false,
    }
}

/// One engine for all shards, and the same events in three lanes, of which another node has two.
pub(super) struct World {
    _dir: tempfile::TempDir,
    pub(super) lanes: Vec<Arc<Lane>>,
    pub(super) one: Arc<Local>,
    pub(super) all: Gather,
}

impl World {
    pub(super) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let key = dir.path().join("key");
        std::fs::create_dir_all(&key).unwrap();
        drop(embedded::State::open(&key, SHARDS).unwrap());
        let layout = Layout::new(SHARDS, 3);
        let whole = lane(&dir.path().join("whole"), &key, 0, (0..SHARDS).collect());
        let parts: Vec<_> = (0..3)
            .map(|n| lane(&dir.path().join(n.to_string()), &key, n, layout.shards_of(n)))
            .collect();
        for user in 0..300 {
            for at in 0..user % 4 {
                let name = ["view", "purchase", "search"][(user + at) as usize % 3];
                let event = event(user, name, NOW - Millis::from(user * 7 % 40) * DAY / 2);
                let shard = whole.engine.shard_of(event.owner());
                let mut batch = Batch::new();
                batch.push_event(&event).unwrap();
                whole.journal.append(&batch).unwrap();
                parts[usize::from(layout.lane_of(shard))].journal.append(&batch).unwrap();
            }
        }
        let choice = Choice { identifier: id("user_id", "u9"), opted_out: true, received: NOW };
        let shard = whole.engine.shard_of(&choice.identifier);
        let mut batch = Batch::new();
        batch.push(&Record::Choice(choice)).unwrap();
        whole.journal.append(&batch).unwrap();
        parts[usize::from(layout.lane_of(shard))].journal.append(&batch).unwrap();
        let here: Arc<dyn Shards> = local(&parts[..1]);
        let serve = Serve::new(local(&parts[1..]), SHARDS);
        let there: Arc<dyn Shards> =
            Arc::new(Remote::new(Box::new(Direct(serve)), SHARDS, "leader:1".into()));
        let holders = Box::new(move || {
            vec![
                Holder { lanes: vec![0], shards: here.clone() },
                Holder { lanes: vec![1, 2], shards: there.clone() },
            ]
        });
        let all = Gather::new(layout, holders);
        let lanes = std::iter::once(whole.clone()).chain(parts).collect();
        Self { _dir: dir, lanes, one: local(&[whole]), all }
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.lanes.iter().for_each(|lane| lane.engine.stop());
    }
}

/// How long events may be read.
const MOMENT: Duration = Duration::from_secs(20);

/// The identifiers of members: ordinals may differ where lanes have not folded in the same order.
pub(super) fn names(shards: &dyn Shards, members: &[Arc<roaring::RoaringBitmap>]) -> Vec<String> {
    let mut found = Vec::new();
    let namespace = Namespace::new("user_id").unwrap();
    shards
        .values(Which::Owner, members, &namespace, &mut |value| {
            found.push(value.to_owned());
            true
        })
        .unwrap();
    found.sort();
    found
}

fn compiled(rules: &[(&str, &str)]) -> Arc<Compiled> {
    let mut live = Live { version: 1, ..Live::default() };
    for (id, rule) in rules {
        let text = format!("rule = '{rule}'");
        let (file, _) = crate::rules::SegmentFile::parse(id, &text);
        let segment = Segment { file, text, hidden: false, frozen: false };
        live.segments.insert((*id).to_owned(), Arc::new(segment));
    }
    Arc::new(Compiled::new(Arc::new(live)))
}

#[test]
fn a_question_has_one_answer_in_however_many_hands_the_shards_are() {
    let world = World::new();
    let (one, all, caller) = (&*world.one, &world.all, Caller::default());
    let mut library = Library::new();
    let (buyers, _) = crate::rules::parse("did purchase");
    library.insert("buyers", crate::rules::Body::Rule(buyers));
    for text in [
        "did view",
        "count purchase in 10d >= 1 and not did search",
        "segment buyers or count view >= 2",
        "everyone",
    ] {
        let (rule, diagnostics) = crate::rules::parse(text);
        assert!(!crate::rules::has_errors(&diagnostics), "{text}");
        let asked = Asked {
            rule: &rule,
            level: Level::Person,
            library: &library,
            true_for: NOW,
            now: NOW + 1,
        };
        // Before anything is kept of what the rule asks, and after.
        let counts = |shards: &dyn Shards| {
            let counted = Mutex::new(vec![None; usize::from(SHARDS)]);
            let each = |of: Counted| counted.lock()[usize::from(of.shard)] = Some(of.members);
            shards.counts(&asked, &caller, &each).unwrap().is_whole(SHARDS).unwrap();
            counted.into_inner()
        };
        let before = [counts(one), counts(all)];
        let expected = one.eval(&asked, &caller).unwrap().whole(SHARDS).unwrap();
        let each: Vec<_> = expected.shards.iter().map(|shard| Some(shard.len())).collect();
        for counted in before.into_iter().chain([counts(one), counts(all)]) {
            assert_eq!(counted, each, "{text}");
        }
        let found = all.eval(&asked, &caller).unwrap().whole(SHARDS).unwrap();
        assert!(!expected.is_empty(), "{text}");
        assert_eq!(names(all, &found.shards), names(one, &expected.shards), "{text}");
        let cost = |shards: &dyn Shards| -> BTreeMap<String, u64> {
            let explained = shards.explain(&asked, &caller).unwrap().whole(SHARDS).unwrap();
            explained.parts.into_iter().map(|part| (part.what, part.members)).collect()
        };
        assert_eq!(cost(all), cost(one), "{text}");
        for user in ["u1", "u9", "u57"] {
            let why =
                |shards: &dyn Shards| shards.why(&asked, &id("user_id", user), MOMENT, &caller);
            assert_eq!(why(all).unwrap(), why(one).unwrap(), "{user}: {text}");
        }
    }
    let unknown = all.profile(&id("user_id", "nobody"), NOW, &caller);
    assert!(matches!(unknown, Err(AskError::Unknown(_))), "{unknown:?}");
    let found = all.profile(&id("user_id", "u10"), NOW, &caller).unwrap().unwrap();
    assert_eq!(found.identifiers, [id("user_id", "u10"), id("crm_id", "c3")]);
    let holders = Group::Holders(vec!["crm_id".to_owned(), "nobody_has".to_owned()]);
    // Of an owner, of a further identifier that many share, and of nobody.
    let some = [id("user_id", "u57"), id("crm_id", "c3"), id("crm_id", "nobody's"), id("x", "y")];
    let holding = Group::Holding(some.to_vec());
    let marks = |shards: &dyn Shards| shards.watermarks().unwrap().whole(SHARDS).unwrap();
    // All who ever got one: each has numbers of its own.
    let grown = Group::Grown(vec![0; SHARDS.into()]);
    let unconsented =
        [Group::Unconsented(None), Group::Unconsented(Some(755)), Group::Unconsented(Some(21))];
    let groups = [Group::Everyone, Group::OptedOut, Group::Bots, holders, holding, grown];
    for group in groups.into_iter().chain(unconsented) {
        let (expected, found) = (one.group(&group), all.group(&group));
        let whole = |of: Result<Of<Vec<roaring::RoaringBitmap>>, AskError>| -> Vec<_> {
            of.unwrap().whole(SHARDS).unwrap().into_iter().map(Arc::new).collect()
        };
        let (found, expected) = (names(all, &whole(found)), names(one, &whole(expected)));
        assert_eq!(found, expected, "{group:?}");
        if matches!(group, Group::Holding(_)) {
            assert_eq!(found, ["u10", "u11", "u57", "u9"]);
        }
        if matches!(group, Group::Grown(_) | Group::Unconsented(_)) {
            assert!(!found.is_empty());
        }
    }
    for shards in [one as &dyn Shards, all] {
        let marks = marks(shards);
        assert!(marks.iter().all(|mark| mark.loaded != 0 && mark.forgotten == 0));
        let since = Group::Grown(marks.iter().map(|mark| mark.others).collect());
        let grown = shards.group(&since).unwrap().whole(SHARDS).unwrap();
        assert!(grown.iter().all(roaring::RoaringBitmap::is_empty));
    }
    assert_eq!(all.namespaces(), one.namespaces());
    assert_eq!(all.schema().rows().len(), one.schema().rows().len());
    assert!(all.commit(Duration::from_secs(60)).unwrap());
    let mut identifiers = [Vec::new(), Vec::new()];
    for (shards, found) in [one as &dyn Shards, all].into_iter().zip(&mut identifiers) {
        let everyone = shards.group(&Group::Everyone).unwrap().found;
        for (shard, profiles) in (0..).zip(&everyone) {
            shards
                .identifiers(shard, profiles, Matches::All, &mut |id| found.push(id.clone()))
                .unwrap();
        }
        found.sort();
    }
    assert_eq!(identifiers[0], identifiers[1]);
}

/// The audiences, once none is filled any more.
fn settled(shards: &dyn Shards, compiled: &Arc<Compiled>) -> Arc<Of<crate::segment::Refreshed>> {
    loop {
        let at = shards.reach(NOW, Duration::from_secs(60)).unwrap().whole(SHARDS).unwrap();
        let refreshed = shards.refresh(compiled, at).unwrap();
        refreshed.is_whole(SHARDS).unwrap();
        let filling =
            |outcome: &Outcome| matches!(outcome, Outcome::Filling(_) | Outcome::Failing(_));
        if !refreshed.found.segments.values().any(filling) {
            return refreshed;
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn what_segments_cost_is_the_sum_over_all_who_hold_shards() {
    let world = World::new();
    let compiled = compiled(&[
        ("viewers", "did view"),
        ("both", "did view and did purchase"),
        ("alone", "has crm_id"),
    ]);
    let costs = [&*world.one as &dyn Shards, &world.all].map(|shards| {
        // The nodes learn what the segments are by being asked, whatever it is that is asked first.
        assert!(shards.costs(&compiled, NOW).unwrap().whole(SHARDS).unwrap().len() <= 3);
        settled(shards, &compiled);
        let costs = shards.costs(&compiled, NOW).unwrap().whole(SHARDS).unwrap();
        let shape: Vec<_> =
            costs.iter().map(|(id, cost)| (id.clone(), cost.parts, cost.shared)).collect();
        let of = |id: &str, parts, shared| (id.to_owned(), parts, shared);
        assert_eq!(shape, [of("alone", 1, 0), of("both", 3, 1), of("viewers", 1, 1)]);
        assert!(costs.values().all(|cost| 0 < cost.nanoseconds && cost.nanoseconds <= cost.alone));
        assert!(costs["viewers"].nanoseconds < costs["viewers"].alone);
        costs.values().map(|cost| cost.bytes).sum::<u64>()
    });
    assert!(costs[0] > 0);
    assert_eq!(costs[0], costs[1]);
}

#[test]
fn audiences_that_did_not_change_are_the_same_and_not_sent_again() {
    let world = World::new();
    let (one, all) = (&*world.one, &world.all);
    let compiled = compiled(&[("viewers", "did view"), ("buyers", "did purchase")]);
    let refresh = |shards: &dyn Shards| settled(shards, &compiled);
    let members = |shards: &dyn Shards, outcome: &Outcome| match outcome {
        Outcome::Members(members) => names(shards, &members.shards),
        other => panic!("{other:?}"),
    };
    let (expected, found) = (refresh(one), refresh(all));
    for (id, outcome) in &expected.found.segments {
        let of_all = members(all, &found.found.segments[id]);
        assert!(!of_all.is_empty());
        assert_eq!(of_all, members(one, outcome), "{id}");
    }
    assert!(Arc::ptr_eq(&refresh(all), &found));
    // One event of one lane changes one audience.
    let lane = &world.lanes[3];
    let mut batch = Batch::new();
    let user = (1000..2000).find(|user| {
        let owner = id("user_id", &format!("u{user}"));
        lane.shards.contains(&lane.engine.shard_of(&owner))
    });
    batch.push_event(&event(user.unwrap(), "view", NOW - DAY)).unwrap();
    lane.journal.append(&batch).unwrap();
    let after = refresh(all);
    assert!(!Arc::ptr_eq(&after, &found));
    let of = |refreshed: &crate::segment::Refreshed, id: &str| match &refreshed.segments[id] {
        Outcome::Members(members) => members.clone(),
        other => panic!("{other:?}"),
    };
    assert!(Arc::ptr_eq(&of(&after.found, "buyers"), &of(&found.found, "buyers")));
    let (now, then) = (of(&after.found, "viewers").len(), of(&found.found, "viewers").len());
    assert_eq!(now, then + 1);
}

#[test]
fn a_shard_in_nobodys_hands_is_missing_and_not_empty() {
    let world = World::new();
    let local = local(&world.lanes[1..3]);
    let (rule, _) = crate::rules::parse("everyone");
    let library = Library::new();
    let asked =
        Asked { rule: &rule, level: Level::Person, library: &library, true_for: 0, now: NOW };
    let some = local.eval(&asked, &Caller::default()).unwrap();
    assert!(matches!(some.whole(SHARDS), Err(AskError::Missing(4))));
}
