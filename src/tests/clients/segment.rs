//! Segment, RudderStack and Jitsu: on servers and in pages.

use serde_json::{Value, json};

use super::{Fault, House, ids, named, now, only};

/// SHA-256 of `ada@shop.example`.
const ADA: &str = "a4c14f1b068bf2c602e289b5dfcd89085692c73c63daf5a90a0b481b7328ee35";

/// What a server's client sends: ten messages. The first answer is lost.
#[track_caller]
fn assert_arrived(house: &House, started: i64) {
    let events = house.events(10);
    let identify = only(&events, "identify");
    assert_eq!(identify["attrs"], json!({ "plan": "pro" }));
    assert_eq!(ids(identify, "user_id"), ["u-42"], "{identify}");
    assert_eq!(ids(identify, "email_sha256"), [ADA], "{identify}");
    let order = only(&events, "Order Completed");
    assert_eq!(order["props"]["revenue"].to_string(), "39.95");
    let of = |key: &str| order[key].clone();
    assert_eq!([of("site"), of("source"), of("bot")], [json!("shop"), json!("api"), json!(false)]);
    let page = only(&events, "page_view");
    assert_eq!(page["page_url"], "https://shop.example/docs");
    assert_eq!(ids(page, "anonymous_id"), ["anon-1"]);
    let alias = only(&events, "alias");
    assert_eq!((ids(alias, "user_id"), ids(alias, "anonymous_id")), (vec!["u-42"], vec!["anon-1"]));
    let mut numbers: Vec<_> =
        named(&events, "View").iter().map(|view| view["props"]["n"].as_i64().unwrap()).collect();
    numbers.sort_unstable();
    assert_eq!(numbers, [0, 1, 2, 3, 4, 5]);
    for event in &events {
        let time = event["time"].as_i64().unwrap();
        let is_dated = event["event"] == "Order Completed";
        let expected = if is_dated { started - 86_400_000 } else { started };
        assert!((time - expected).abs() < 30_000, "{started} {event}");
        assert_eq!(event["time_replaced"], false);
    }
    // What was taken came again, and something had to wait.
    assert!(house.accepted("segment") > 10.0 && house.door.is_through());
}

#[test]
fn segment_on_node() {
    let house = House::limited();
    house.door.script([Fault::LoseAnswer]);
    let started = now();
    house.node(
        "@segment/analytics-node",
        r#"
analytics.identify({ userId: "u-42", traits: { email: "ada@shop.example", plan: "pro" } });
analytics.track({ userId: "u-42", event: "Order Completed", properties: { revenue: 39.95 },
                  timestamp: new Date(Date.now() - 86400000) });
analytics.page({ anonymousId: "anon-1", properties: { url: "https://shop.example/docs" } });
analytics.alias({ userId: "u-42", previousId: "anon-1" });
for (let n = 0; n < 6; n++) analytics.track({ userId: "u-42", event: "View", properties: { n } });
await analytics.closeAndFlush({ timeout: 60000 });
"#,
    );
    assert_arrived(&house, started);
    // All of the limit went to what was lost.
    assert!(house.statuses("/v1/batch").contains(&429), "{:?}", house.statuses("/v1/batch"));
}

/// What a client in Python sends; both of them are of one kind.
const PYTHON: &str = r#"
import datetime
yesterday = datetime.datetime.now(datetime.timezone.utc) - datetime.timedelta(days=1)
analytics.identify("u-42", {"email": "ada@shop.example", "plan": "pro"})
analytics.track("u-42", "Order Completed", {"revenue": 39.95}, timestamp=yesterday)
analytics.page(anonymous_id="anon-1", properties={"url": "https://shop.example/docs"})
analytics.alias("anon-1", "u-42")
for n in range(6):
    analytics.track("u-42", "View", {"n": n})
analytics.shutdown()
"#;

#[test]
fn segment_on_python() {
    let house = House::new();
    house.disturb(0);
    let started = now();
    house.python("segment-analytics-python", &format!("analytics.gzip = True\n{PYTHON}"));
    assert_arrived(&house, started);
    let (request, _) = &house.passed("/v1/batch")[0];
    assert_eq!(request.body[..2], *b"\x1f\x8b");
}

#[test]
fn rudderstack_on_python() {
    let house = House::new();
    house.disturb(0);
    let started = now();
    house.python("rudder-sdk-python", PYTHON);
    assert_arrived(&house, started);
}

#[test]
fn rudderstack_on_node() {
    let house = House::new();
    house.disturb(0);
    let started = now();
    house.node(
        "@rudderstack/rudder-sdk-node",
        r#"
analytics.identify({ userId: "u-42", traits: { email: "ada@shop.example", plan: "pro" } });
analytics.track({ userId: "u-42", event: "Order Completed", properties: { revenue: 39.95 },
                  timestamp: new Date(Date.now() - 86400000) });
analytics.page({ anonymousId: "anon-1", properties: { url: "https://shop.example/docs" } });
analytics.alias({ userId: "u-42", previousId: "anon-1" });
for (let n = 0; n < 6; n++) analytics.track({ userId: "u-42", event: "View", properties: { n } });
await analytics.flush();
"#,
    );
    assert_arrived(&house, started);
    let (request, _) = &house.passed("/v1/batch")[0];
    assert_eq!(request.header("content-type"), Some("application/x-www-form-urlencoded"));
    assert_eq!(request.body[..2], *b"\x1f\x8b");
}

#[test]
fn jitsu_on_node() {
    let house = House::new();
    house.node(
        "@jitsu/js",
        r#"
await analytics.identify("u-42", { email: "ada@shop.example", plan: "pro" });
await analytics.track("Order Completed", { revenue: 39.95 });
"#,
    );
    let events = house.events(2);
    assert_eq!(only(&events, "identify")["attrs"], json!({ "plan": "pro" }));
    let order = only(&events, "Order Completed");
    assert_eq!((&order["props"], &order["source"]), (&json!({ "revenue": 39.95 }), &json!("api")));
    assert_eq!(ids(order, "user_id"), ["u-42"]);
}

/// What a page sends by each of these clients, the answer of whose first message is lost where it sends it again.
const PAGE: &str = r#"
analytics.page("Docs", "Intro");
analytics.identify("u-42", { email: "ada@shop.example", plan: "pro" });
analytics.track("Product Viewed", { sku: "P1", price: 39.95 });
"#;

#[track_caller]
fn assert_of_a_page(events: &[Value], house: &House) {
    let view = only(events, "page_view");
    assert_eq!(view["page_title"], "A page");
    assert!(view["page_url"].as_str().unwrap().starts_with("http://127.0.0.1:"), "{view}");
    assert_eq!(
        (&view["props"]["name"], &view["device_kind"]),
        (&json!("Intro"), &json!("desktop"))
    );
    let identify = only(events, "identify");
    assert_eq!(ids(identify, "user_id"), ["u-42"]);
    assert_eq!(ids(identify, "email_sha256"), [ADA]);
    assert_eq!(identify["attrs"], json!({ "plan": "pro" }));
    let product = only(events, "Product Viewed");
    assert_eq!(product["props"], json!({ "sku": "P1", "price": 39.95 }));
    for event in events {
        assert_eq!((&event["source"], &event["bot"]), (&json!("js"), &json!(false)), "{event}");
        // Nothing but what the client made names the browser.
        assert_eq!(ids(event, "anonymous_id"), ids(view, "anonymous_id"));
        assert_eq!((ids(event, "anonymous_id").len(), ids(event, "cookie").len()), (1, 0));
        assert!((event["time"].as_i64().unwrap() - now()).abs() < 60_000, "{event}");
    }
    let text = serde_json::to_string(events).unwrap();
    assert!(!text.contains("ada@shop.example"), "{text}");
    assert!(house.server.log().is_empty() || !house.server.log().contains("ada@shop.example"));
}

#[test]
fn segment_in_a_page() {
    let house = House::limited();
    house.disturb(1);
    let _browser = house.browse(
        "@segment/analytics-next",
        "clients/node_modules/@segment/analytics-next/dist/umd/index.js",
        "export const AnalyticsBrowser = AnalyticsNext.AnalyticsBrowser;",
        &format!("{PAGE}\nfor (let n = 0; n < 12; n++) analytics.track(\"View\", {{ n }});"),
    );
    let events = house.events(15);
    assert_of_a_page(&events[..], &house);
    assert_eq!(house.statuses("/v1/projects/shop/settings"), [200]);
    let views = house.statuses("/v1/t");
    assert!(views.contains(&429), "{views:?}");
    house.server.until("it comes again", || house.accepted("segment") > 15.0);
    assert_eq!(house.events(15), events);
}

#[test]
fn rudderstack_in_a_page() {
    let house = House::new();
    house.disturb(1);
    let _browser = house.browse(
        "@rudderstack/analytics-js",
        "clients/node_modules/@rudderstack/analytics-js/dist/npm/modern/bundled/esm/index.mjs",
        "",
        &format!("{PAGE}\nfor (let n = 0; n < 4; n++) analytics.track(\"View\", {{ n }});"),
    );
    let events = house.events(7);
    assert_of_a_page(&events[..], &house);
    assert_eq!(house.statuses("/sourceConfig/"), [200]);
    house.server.until("it comes again", || house.accepted("segment") > 7.0);
    assert_eq!(house.events(7), events);
    assert!(house.door.is_through());
}

#[test]
fn rudderstack_in_a_page_that_sends_beacons() {
    let house = House::new();
    let documented = "configUrl: ";
    let _browser = house.browse_changed(
        "@rudderstack/analytics-js",
        "clients/node_modules/@rudderstack/analytics-js/dist/npm/modern/bundled/esm/index.mjs",
        "",
        (
            documented,
            "useBeacon: true, beaconQueueOptions: { flushQueueInterval: 500 }, configUrl: ",
        ),
        PAGE,
    );
    let events = house.events(3);
    assert_of_a_page(&events[..], &house);
    assert_eq!(house.statuses("/beacon/v1/batch"), [200]);
}

#[test]
fn jitsu_in_a_page() {
    let house = House::new();
    let _browser = house.browse(
        "@jitsu/js",
        "clients/node_modules/@jitsu/js/dist/jitsu.es.js",
        "",
        &PAGE.replace("\"Docs\", \"Intro\"", "{ name: \"Intro\" }"),
    );
    let events = house.events(3);
    assert_of_a_page(&events[..], &house);
    assert_eq!(house.statuses("/api/s/page"), [200]);
}
