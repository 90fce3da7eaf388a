//! What is told of one profile.

use std::sync::Arc;

use serde_json::json;

use super::*;
use crate::model::Device;
use crate::model::Event;
use crate::model::Identifier;
use crate::model::Namespace;
use crate::model::Page;
use crate::model::Source;
use crate::model::Value;
use crate::model::time::DAY;
use crate::model::time::MINUTE;
use crate::model::time::parse_rfc3339;
use crate::model::value::parse_json;
use crate::plan;

/// Of a profile with these facts, at a time.
struct Profile {
    block: Block,
    traits: TraitSet,
    library: Library,
}

fn rule(text: &str) -> Rule {
    let (rule, diagnostics) = rules::parse(text);
    assert_eq!(diagnostics, [], "{text}");
    rule
}

fn time(text: &str) -> Millis {
    parse_rfc3339(&format!("2026-03-{text}Z")).unwrap()
}

impl Profile {
    fn new(rules: &[&str], events: &[(&str, &str, &str)]) -> Self {
        let rules: Vec<Rule> = rules.iter().map(|text| rule(text)).collect();
        let mut traits = TraitSet::new();
        let library = Library::new();
        let specs = plan::traits_of(&rules, &library).unwrap();
        (1..).zip(specs).for_each(|(id, spec)| traits.insert(TraitId(id), spec).unwrap());
        let mut block = Block::new();
        let mut facts = Vec::new();
        for (at, name, props) in events {
            let event = event(at, name, props);
            facts.clear();
            traits.facts(&event, &mut facts);
            for (id, value) in &facts {
                block.add_fact(*id, 3, event.time, *value);
            }
        }
        Self { block, traits, library }
    }

    fn why(&self, text: &str, now: &str) -> Membership {
        let snapshot = Snapshot {
            shards: vec![vec![Arc::new(self.block.clone())]],
            true_for: time(now),
            retention: 30 * DAY,
        };
        let (rule, now) = (rule(text), time(now));
        why(&rule, Level::Person, &self.library, &self.traits, &snapshot, (0, 3), now).unwrap()
    }
}

fn event(at: &str, name: &str, props: &str) -> Event {
    let Value::Object(props) = parse_json(props.as_bytes()).unwrap() else { panic!() };
    let user = Identifier::new(Namespace::new("user_id").unwrap(), "u").unwrap();
    Event {
        site: "shop".into(),
        name: name.into(),
        time: time(at),
        received: time(at),
        time_replaced: false,
        source: Source::Api,
        message_id: None,
        ids: vec![user],
        props,
        attrs: Vec::new(),
        page: Page::default(),
        device: Device::default(),
        bot: false,
        country: None,
        locale: None,
        consent: None,
    }
}

fn short(why: &Membership) -> Vec<(&str, bool, Option<String>)> {
    let need = |need: &'_ Need| need.short.as_ref().map(ToString::to_string);
    why.nearest.iter().map(|of| (&*of.clause, of.must_hold, need(of))).collect()
}

const BOUGHT: &[(&str, &str, &str)] = &[
    ("01T10:00:30", "purchase", r#"{"value":80,"kind":"shoes","gift":true}"#),
    ("03T10:00:00", "purchase", r#"{"value":120.5,"kind":"hat"}"#),
    ("20T00:00:00", "refund", "{}"),
];

#[test]
fn who_is_in_is_told_since_when_and_until_when() {
    let text = "count purchase in 7d >= 2 and not did refund";
    let profile = Profile::new(&[text], BOUGHT);
    let why = profile.why(text, "04T00:00:00");
    assert!(why.member && why.nearest.is_empty());
    assert_eq!(why.since.as_deref(), Some("2026-03-03T10:00:00.000Z"));
    // The first purchase leaves the window with its minute, long before the refund.
    assert_eq!(why.until.as_deref(), Some("2026-03-08T10:01:00.000Z"));
    let [count, not] = &why.rule.parts[..] else { panic!("{why:?}") };
    assert_eq!(count.until, why.until);
    assert_eq!(
        (not.since.as_deref(), not.until.as_deref()),
        (None, Some("2026-03-20T00:00:00.000Z"))
    );
    let times: Vec<&str> = count.events.iter().map(|event| &*event.time).collect();
    assert_eq!(times, ["2026-03-03T10:00:00.000Z", "2026-03-01T10:00:30.000Z"]);
    assert!(count.events.iter().all(|event| event.complete && event.event == "purchase"));
}

#[test]
fn who_is_not_in_is_told_what_is_lacking_and_when_time_alone_brings_it() {
    let text = "not did purchase in 7d";
    let profile = Profile::new(&[text], BOUGHT);
    let why = profile.why(text, "04T00:00:00");
    assert_eq!(why.until.as_deref(), Some("2026-03-10T10:01:00.000Z"));
    assert_eq!(short(&why), [("did purchase in 7d", false, None)]);

    let text =
        "count purchase >= 5 or sum purchase.value > 210 or did purchase and did x and did y";
    let profile = Profile::new(&[text], BOUGHT);
    let why = profile.why(text, "04T00:00:00");
    assert!(!why.member && why.until.is_none());
    let sum = "sum purchase.value > 210";
    assert_eq!(short(&why), [(sum, true, Some("9.5001".to_owned()))]);
    let text = "count purchase >= 5 and did x and not did purchase";
    let why = Profile::new(&[text], BOUGHT).why(text, "04T00:00:00");
    assert_eq!(
        short(&why),
        [
            ("did x", true, None),
            ("count purchase >= 5", true, Some("3".to_owned())),
            ("did purchase", false, None),
        ]
    );
}

#[test]
fn the_nearest_is_what_fewest_events_do_and_what_time_alone_does_comes_last() {
    for (text, nearest) in [
        ("count na >= 1000 or count nc >= 2", ("count nc >= 2", true, Some("2".to_owned()))),
        ("count purchase >= 500 or count nb >= 4", ("count nb >= 4", true, Some("4".to_owned()))),
        ("not (did purchase and not did na)", ("did na", true, None)),
        ("not count purchase < 4", ("count purchase < 4", false, None)),
        ("count purchase <= 1 or did na", ("did na", true, None)),
        ("first purchase in 1h or did na", ("did na", true, None)),
        (
            "sum purchase.value >= 9000 or count na >= 2",
            ("sum purchase.value >= 9000", true, Some("8799.5".to_owned())),
        ),
    ] {
        let why = Profile::new(&[text], BOUGHT).why(text, "04T00:00:00");
        assert_eq!(short(&why), [nearest], "{text}");
    }
}

#[test]
fn properties_come_from_the_rule_and_where_it_does_not_say_them_from_the_events() {
    let text =
        r#"did purchase[value > 50 and kind in ("shoes", "hat")] and did purchase[gift = true]"#;
    let profile = Profile::new(&[text], BOUGHT);
    let mut why = profile.why(text, "04T00:00:00");
    let [bought, given] = &why.rule.parts[..] else { panic!("{why:?}") };
    assert_eq!(json!(given.events[0].properties), json!({ "gift": true }));
    assert!(given.events[0].complete && !bought.events[0].complete);
    assert!(bought.events[0].properties.is_empty());

    let mut completion = why.completion();
    assert!(completion.names().eq(["purchase"; 2]) && !completion.is_done());
    assert_eq!(completion.times(), Some(time("01T10:00:30")..=time("03T10:00:00")));
    // An event of the same time that the filter refuses, and then the ones that were counted.
    completion.give(&event("03T10:00:00", "purchase", r#"{"value":7,"kind":"hat"}"#));
    for (at, name, props) in BOUGHT {
        completion.give(&event(at, name, props));
    }
    assert!(completion.is_done() && completion.times().is_none());
    let told: Vec<Json> =
        why.rule.parts[0].events.iter().map(|event| json!(event.properties)).collect();
    assert_eq!(
        told,
        [json!({ "value": 120.5, "kind": "hat" }), json!({ "value": 80, "kind": "shoes" })]
    );
}

#[test]
fn two_events_of_one_millisecond_are_two_contributions() {
    let text = "count purchase[value > 1] >= 2";
    let at = "03T10:00:00";
    let same = [(at, "purchase", r#"{"value":2}"#), (at, "purchase", r#"{"value":3}"#)];
    let mut why = Profile::new(&[text], &same).why(text, "04T00:00:00");
    let mut completion = why.completion();
    for (at, name, props) in same {
        completion.give(&event(at, name, props));
    }
    let told: Vec<Json> = why.rule.events.iter().map(|event| json!(event.properties)).collect();
    assert_eq!(told, [json!({ "value": 2 }), json!({ "value": 3 })]);
}

#[test]
fn of_many_events_the_latest_are_told_and_a_segment_stands_in_an_answer_once() {
    let many: Vec<String> = (0..40).map(|at| format!("03T10:00:{at:02}")).collect();
    let many: Vec<_> = many.iter().map(|at| (&**at, "view", "{}")).collect();
    let mut profile = Profile::new(&["did view"], &many);
    profile.library.insert("seen", Body::Rule(rule("did view")));
    let why = profile.why("segment seen and not not segment seen", "04T00:00:00");
    let [first, second] = &why.rule.parts[..] else { panic!("{why:?}") };
    let seen = &first.parts[0];
    assert_eq!((seen.events.len(), &seen.found["count"]), (MOST_EVENTS, &json!(40)));
    assert_eq!(seen.events[0].time, "2026-03-03T10:00:39.000Z");
    assert_eq!((seen.more_events, json!(seen)["more_events"].as_u64()), (30, Some(30)));
    assert_eq!(json!(second).get("more_events"), None);
    assert!(second.holds && second.parts[0].parts[0].parts.is_empty());
    let far = time("03T10:00:00") + MINUTE + 30 * DAY;
    assert_eq!(why.until, Some(format_rfc3339(far)));
}
