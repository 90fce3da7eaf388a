//! Snowplow's trackers: on servers and in pages.

use serde_json::{Value, json};

use super::{House, ids, named, now, only};

const PATH: &str = "/com.snowplowanalytics.snowplow/tp2";

/// What each tracker sends: a page view, a structured event, and six that describe themselves.
#[track_caller]
fn assert_events(house: &House, started: i64) -> Vec<Value> {
    let events = house.events(8);
    assert_eq!(only(&events, "page_view")["page_title"], "A page");
    let add = only(&events, "add-to-basket");
    assert_eq!(add["props"]["category"], "shop");
    assert_eq!(add["props"]["value"].as_f64(), Some(2.5));
    let views = named(&events, "view_product");
    let mut numbers: Vec<_> =
        views.iter().map(|view| view["props"]["n"].as_i64().unwrap()).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, [0, 1, 2, 3, 4, 5]);
    for event in &events {
        assert_eq!(ids(event, "user_id"), ["u-42"], "{event}");
        assert!((event["time"].as_i64().unwrap() - started).abs() < 30_000, "{event}");
        assert_eq!(event["time_replaced"], false);
    }
    house.server.until("what was taken comes again", || house.accepted("snowplow") > 8.0);
    assert_eq!(house.events(8), events);
    assert!(house.door.is_through());
    events
}

#[test]
fn snowplow_on_node() {
    let house = House::new();
    house.disturb(0);
    let started = now();
    // It sends again what it holds whenever it is to send.
    house.node(
        "@snowplow/node-tracker",
        r#"
tracker.setUserId("u-42");
tracker.setDomainUserId("d-1");
tracker.track(buildPageView({ pageUrl: "https://shop.example/", pageTitle: "A page" }),
  [{ schema: "iglu:com.acme/user/jsonschema/1-0-0", data: { tier: "gold" } }]);
tracker.track(buildStructEvent({ category: "shop", action: "add-to-basket", value: 2.5 }));
const view = (n) => tracker.track(buildSelfDescribingEvent({ event: {
  schema: "iglu:com.acme/view_product/jsonschema/1-0-0", data: { n } } }));
for (let n = 0; n < 3; n++) view(n);
for (let turn = 0; turn < 6; turn++) {
  await tracker.flush();
  await new Promise((done) => setTimeout(done, 1500));
  if (turn == 0) for (let n = 3; n < 6; n++) view(n);
}
"#,
    );
    let events = assert_events(&house, started);
    let view = only(&events, "page_view");
    assert_eq!(view["props"], json!({ "user": { "tier": "gold" } }));
    assert_eq!((ids(view, "anonymous_id"), &view["source"]), (vec!["d-1"], &json!("api")));
}

#[test]
fn snowplow_on_python() {
    let house = House::new();
    house.disturb(0);
    let started = now();
    house.python(
        "snowplow-tracker",
        r#"
import time
subject = Subject()
subject.set_user_id("u-42")
def view(n):
    schema = "iglu:com.acme/view_product/jsonschema/1-0-0"
    tracker.track(SelfDescribing(event_json=SelfDescribingJson(schema, {"n": n}), event_subject=subject))
tracker.track(PageView(page_url="https://shop.example/", page_title="A page", event_subject=subject))
tracker.track(StructuredEvent(category="shop", action="add-to-basket", value=2.5, event_subject=subject))
for n in range(3):
    view(n)
tracker.flush()
for n in range(3, 6):
    view(n)
for turn in range(6):
    time.sleep(1.5)
    tracker.flush()
"#,
    );
    assert_events(&house, started);
}

/// What a page sends; what could not be sent goes out with what comes next.
const PAGE: &str = r#"
import { flushBuffer } from "@snowplow/browser-tracker";
setUserId("u-42");
trackPageView({ context: [{ schema: "iglu:com.acme/user/jsonschema/1-0-0", data: { tier: "gold" } }] });
trackStructEvent({ category: "shop", action: "add-to-basket", value: 2.5 });
for (let n = 0; n < 6; n++) trackSelfDescribingEvent({ event: {
  schema: "iglu:com.acme/view_product/jsonschema/1-0-0", data: { n } } });
setInterval(flushBuffer, 1000);
"#;
const FILE: &str = "clients/node_modules/@snowplow/browser-tracker/dist/index.umd.js";
const EXPORTS: &str = "export const { flushBuffer, newTracker, setUserId, trackPageView, trackSelfDescribingEvent, \
                       trackStructEvent } = snowplowBrowserTracking;";

#[track_caller]
fn assert_of_a_page(events: &[Value]) {
    let view = only(events, "page_view");
    assert_eq!(view["props"], json!({ "user": { "tier": "gold" } }));
    for event in events {
        assert_eq!(ids(event, "anonymous_id"), ids(view, "anonymous_id"));
        assert_eq!(ids(event, "anonymous_id").len(), 1);
        let of = |key: &str| event[key].clone();
        let expected = [json!("js"), json!(false), json!("desktop")];
        assert_eq!([of("source"), of("bot"), of("device_kind")], expected);
        assert!(event["page_url"].as_str().unwrap().starts_with("http://127.0.0.1:"), "{event}");
    }
}

#[test]
fn snowplow_in_a_page() {
    let house = House::new();
    house.disturb(0);
    let started = now();
    let _browser = house.browse("@snowplow/browser-tracker", FILE, EXPORTS, PAGE);
    assert_of_a_page(&assert_events(&house, started));
}

#[test]
fn snowplow_in_a_page_that_gets() {
    let house = House::limited();
    let _browser = house.browse_changed(
        "@snowplow/browser-tracker",
        FILE,
        EXPORTS,
        ("appId:", "eventMethod: \"get\", encodeBase64: false, appId:"),
        &PAGE.replace("n < 6", "n < 16"),
    );
    assert_of_a_page(&house.events(18));
    assert!(house.statuses("/i").contains(&429), "{:?}", house.statuses("/i"));
}

#[test]
fn an_anonymous_page_of_snowplow_leaves_nothing() {
    let house = House::new();
    let _browser = house.browse_changed(
        "@snowplow/browser-tracker",
        FILE,
        EXPORTS,
        ("appId:", "anonymousTracking: { withServerAnonymisation: true }, appId:"),
        "trackPageView();",
    );
    let outcome = "{endpoint=\"snowplow\",outcome=\"refused_consent\"}";
    house.server.until("it is refused", || {
        house.server.metric(&format!("throng_collect_events_total{outcome}")) == 1.0
    });
    let (request, reply) = house.passed(PATH).remove(0);
    assert_eq!((request.header("sp-anonymous"), reply.status), (Some("*"), 200));
    assert!(reply.headers.iter().all(|(name, _)| *name != "Set-Cookie"));
    assert_eq!(house.accepted("snowplow"), 0.0);
}
