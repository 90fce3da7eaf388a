//! The steps of a training, in one hand and in several.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use super::gather::NOW;
use super::gather::SHARDS;
use super::gather::World;
use super::gather::id;
use super::gather::local;
use super::gather::names;
use crate::plan::lookalike::Cut;
use crate::plan::lookalike::Feature;
use crate::plan::lookalike::chosen;
use crate::plan::lookalike::learn;
use crate::plan::lookalike::line;
use crate::plan::lookalike::narrowed;
use crate::rules::Level;
use crate::rules::Reach;
use crate::rules::SegmentFile;
use crate::segment::AskError;
use crate::segment::Caller;
use crate::segment::Compiled;
use crate::segment::Found;
use crate::segment::Live;
use crate::segment::Outcome;
use crate::segment::Segment;
use crate::segment::Shards;
use crate::segment::Step;
use crate::store::audiences::Last;

const PRINT: u64 = 77;
const FILE: &str = "[lookalike]\nseed = 'buyers'\nreach = 0.2\nwithin = 'not did search'";

fn step(shards: &dyn Shards, step: &Step) -> Found {
    shards.learn(step, &Caller::default()).unwrap().whole(SHARDS).unwrap()
}

/// All steps of a training; what each found.
fn trained(shards: &dyn Shards, training: u64) -> Vec<Found> {
    let survey = Step::Survey {
        training,
        rules: ["segment buyers".into(), "not did search".into()],
        library: BTreeMap::from([("buyers".into(), "did purchase".into())]),
        level: Level::Person,
        traits: vec!["did view".into(), "did search".into()],
        true_for: NOW + 1,
    };
    let mut all = vec![step(shards, &survey)];
    let Found::Survey(survey) = &all[0] else { panic!("{all:?}") };
    let mut features: Vec<Feature> =
        ["did view", "did search"].map(|text| Feature::Did(text.into())).to_vec();
    features.extend(survey.features());
    assert!(features.len() >= 5, "{features:?}");
    let counts = step(shards, &Step::Count { training, features: features.clone() });
    let Found::Counts(counted) = &counts else { panic!("{counts:?}") };
    let weights = learn(&features, counted, &|_| false).weights();
    assert!(!weights.is_empty());
    all.push(counts);
    let found = step(shards, &Step::Score { training, weights });
    let Found::Scores(scores) = &found else { panic!("{found:?}") };
    let most = chosen(scores.candidates.len(), Reach(200_000));
    let (score, mut wanted) = line(&scores.candidates, most).unwrap();
    all.push(found);
    let (mut prefix, mut bits) = (0, 0);
    let order = loop {
        let found = step(shards, &Step::Ties { training, score, prefix, bits });
        let Found::Ties(ties) = &found else { panic!("{found:?}") };
        let next = narrowed(ties, (prefix, bits), &mut wanted);
        all.push(found);
        match next {
            Ok(order) => break order,
            Err(longer) => (prefix, bits) = longer,
        }
    };
    let cut = Cut { score, order };
    let taken = step(shards, &Step::Take { training, segment: "like".into(), print: PRINT, cut });
    assert_eq!(taken, Found::Taken(most));
    all.push(taken);
    all
}

fn compiled(trained: Option<u64>) -> Arc<Compiled> {
    let mut live = Live { version: 1, ..Live::default() };
    for (id, text) in [("buyers", "rule = 'did purchase'"), ("like", FILE)] {
        let (file, _) = SegmentFile::parse(id, text);
        let segment = Segment { file, text: text.to_owned(), hidden: false, frozen: false };
        live.segments.insert(id.to_owned(), Arc::new(segment));
    }
    let trained = trained.map(|print| ("like".to_owned(), print)).into_iter().collect();
    Arc::new(Compiled::with(Arc::new(live), trained))
}

/// The refresh once nothing is being filled.
fn refreshed(shards: &dyn Shards, compiled: &Arc<Compiled>) -> (i64, BTreeMap<String, Outcome>) {
    loop {
        let at = shards.reach(NOW + 1, Duration::from_secs(60)).unwrap().whole(SHARDS).unwrap();
        let found = shards.refresh(compiled, at).unwrap();
        found.is_whole(SHARDS).unwrap();
        let outcomes = &found.found.segments;
        assert!(!outcomes.values().any(|o| matches!(o, Outcome::Failing(_))), "{outcomes:?}");
        if !outcomes.values().any(|outcome| matches!(outcome, Outcome::Filling(_))) {
            return (at, outcomes.clone());
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_training_comes_to_the_same_in_however_many_hands_and_its_members_are_kept() {
    let world = World::new();
    let (one, all) = (&*world.one, &world.all);
    for shards in [one as &dyn Shards, all] {
        let (_, found) = refreshed(shards, &compiled(None));
        assert_eq!(found["like"], Outcome::Training);
    }
    let expected = trained(one, 1);
    assert_eq!(trained(all, 2), expected);
    assert_eq!(trained(one, 3), expected);
    // A training that has ended, and one that nobody began.
    let late = all.learn(&Step::Count { training: 2, features: Vec::new() }, &Caller::default());
    assert!(matches!(late, Err(AskError::Moving | AskError::Away(_))), "{late:?}");

    let with = compiled(Some(PRINT));
    let members =
        |shards: &dyn Shards, found: &BTreeMap<String, Outcome>, id: &str| match &found[id] {
            Outcome::Members(members) => names(shards, &members.shards),
            other => panic!("{other:?}"),
        };
    let ((_, of_one), (at, of_all)) = (refreshed(one, &with), refreshed(all, &with));
    let like = members(all, &of_all, "like");
    assert_eq!(like, members(one, &of_one, "like"));
    let buyers = members(all, &of_all, "buyers");
    assert!(!like.is_empty() && like.iter().all(|name| !buyers.contains(name)), "{like:?}");
    // Asked again it is the same answer.
    let again = refreshed(all, &with).1;
    let (Outcome::Members(a), Outcome::Members(b)) = (&of_all["like"], &again["like"]) else {
        panic!("{again:?}")
    };
    assert!(Arc::ptr_eq(a, b));

    // Kept with the audiences, they are found by a process that has not trained, and no others.
    let kept = all.keep(Last { generation: 5, true_for: at }, 0).unwrap();
    assert_eq!(kept.len(), usize::from(SHARDS));
    let next = local(&world.lanes[1..]);
    assert_eq!(members(&*next, &refreshed(&*next, &with).1, "like"), like);
    let (_, other) = refreshed(&*next, &compiled(Some(PRINT + 1)));
    assert_eq!(other["like"], Outcome::Training);
}

#[test]
fn what_a_profile_has_is_told_by_who_holds_it() {
    let world = World::new();
    let text = |value: &str| crate::plan::lookalike::Plain::Text(value.into());
    let of = |value: &str| Feature::Value { attribute: "kind".into(), value: text(value) };
    let features = vec![of("a"), Feature::Did("did view".into()), of("b"), of("c")];
    for user in [1u32, 2, 3, 10, 11] {
        let name = format!("u{user}");
        let identifier = ("user_id".to_owned(), name.clone());
        let step = Step::Profile { identifier, features: features.clone(), true_for: NOW + 1 };
        let told =
            |shards: &dyn Shards| match shards.learn(&step, &Caller::default()).unwrap().found {
                Found::Profile(Some(found)) => found,
                other => panic!("{other:?}"),
            };
        let found = told(&world.all);
        let profile = world.one.profile(&id("user_id", &name), NOW, &Caller::default());
        let profile = profile.unwrap().unwrap();
        assert_eq!((found.shard, found.ordinal), (profile.shard, profile.ordinal));
        let has_viewed = (0..user % 4).any(|at| (user + at) % 3 == 0);
        let kind = [0, 2, 3][user as usize % 7 % 3];
        let mut expected: Vec<usize> = [kind].into_iter().chain(has_viewed.then_some(1)).collect();
        expected.sort_unstable();
        assert_eq!(found.features, expected, "{name}");
        assert_eq!(told(&*world.one), found);
    }
}
