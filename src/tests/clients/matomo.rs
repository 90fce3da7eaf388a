//! Matomo's clients: on servers and in pages.

use serde_json::{Value, json};

use super::{House, ids, now, only};

#[test]
fn matomo_on_node() {
    let house = House::new();
    let started = now();
    house.node(
        "matomo-tracker",
        r#"
import { once } from "node:events";
tracker.on("error", (error) => { console.error(error); process.exit(1); });
tracker.track({ url: "https://shop.example/", action_name: "A page", uid: "u-42", _id: "0123456789abcdef",
                ua: "Mozilla/5.0 (X11; Linux x86_64) Chrome/120.0.0.0", cvar: JSON.stringify({ 1: ["plan", "pro"] }) });
const answer = await new Promise((done) => tracker.trackBulk([
  { url: "https://shop.example/", uid: "u-42", e_c: "video", e_a: "play", e_v: 3 },
  { url: "https://shop.example/", uid: "u-42", idgoal: 0, ec_id: "o1", revenue: 39.95 },
  { url: "https://shop.example/", uid: "u-42", idgoal: 0, ec_id: "o1", revenue: 39.95 },
  { url: "https://shop.example/", uid: "u-42", ca: 1 },
], done));
const { status, tracked, invalid } = JSON.parse(answer);
if (status != "success" || tracked != 3 || invalid != 1) throw new Error(answer);
"#,
    );
    let events = house.events(3);
    let view = only(&events, "page_view");
    assert_eq!(
        (&view["page_title"], &view["props"]),
        (&json!("A page"), &json!({ "plan": "pro" }))
    );
    assert_eq!((&view["source"], &view["device_kind"]), (&json!("api"), &json!("desktop")));
    assert_eq!(ids(view, "anonymous_id"), ["0123456789abcdef"]);
    assert_eq!(only(&events, "play")["props"], json!({ "category": "video", "value": 3 }));
    // It came twice.
    assert_eq!(only(&events, "purchase")["props"], json!({ "value": 39.95, "order_id": "o1" }));
    for event in &events {
        assert_eq!(ids(event, "user_id"), ["u-42"]);
        assert!((event["time"].as_i64().unwrap() - started).abs() < 30_000, "{event}");
    }
}

const FILE: &str = "../loadtest/clients/matomo.js";
/// What a page sends, by each of the ways that it has.
const PAGE: &str = r#"
_paq.push(["setUserId", "u-42"]);
_paq.push(["setEcommerceView", "SKU1", "Shoe", "Shoes", 39.95]);
_paq.push(["trackPageView"]);
_paq.push(["trackEvent", "video", "play", "P1", 3]);
_paq.push(["addEcommerceItem", "SKU1", "Shoe", "Shoes", 39.95, 1]);
_paq.push(["trackEcommerceOrder", "o1", 39.95]);
_paq.push(["trackSiteSearch", "shoes", "all", 4]);
"#;

#[track_caller]
fn assert_of_a_page(events: &[Value]) {
    let view = only(events, "page_view");
    assert_eq!(view["page_title"], "A page");
    let product = json!({ "sku": "SKU1", "name": "Shoe", "category": "Shoes", "price": 39.95 });
    assert_eq!(view["props"], json!({ "product": product }));
    let play = json!({ "category": "video", "name": "P1", "value": 3 });
    assert_eq!(only(events, "play")["props"], play);
    let order = only(events, "purchase");
    let item = json!({ "sku": "SKU1", "name": "Shoe", "category": "Shoes", "price": 39.95, "quantity": 1 });
    assert_eq!(order["props"], json!({ "value": 39.95, "order_id": "o1", "items": [item] }));
    let search = json!({ "query": "shoes", "category": "all", "results": 4 });
    assert_eq!(only(events, "search")["props"], search);
    for event in events {
        assert_eq!((ids(event, "user_id"), ids(event, "anonymous_id").len()), (vec!["u-42"], 1));
        assert_eq!(ids(event, "anonymous_id"), ids(view, "anonymous_id"));
        let of = |key: &str| event[key].clone();
        let expected = [json!("js"), json!(false), json!("desktop")];
        assert_eq!([of("source"), of("bot"), of("device_kind")], expected);
        assert!(event["page_url"].as_str().unwrap().starts_with("http://127.0.0.1:"), "{event}");
    }
}

#[test]
fn matomo_in_a_page() {
    let house = House::new();
    let _browser = house.browse_with("matomo.js", FILE, PAGE);
    assert_of_a_page(&house.events(4));
    let passed = house.passed("/matomo.php");
    assert!(passed.iter().all(|(request, reply)| request.method == "POST" && reply.status == 204));
}

#[test]
fn matomo_in_a_page_without_beacons() {
    let house = House::new();
    let page = format!("_paq.push([\"disableAlwaysUseSendBeacon\"]);{PAGE}");
    let _browser = house.browse_with("matomo.js", FILE, &page);
    assert_of_a_page(&house.events(4));
    let passed = house.passed("/matomo.php");
    assert!(passed.iter().all(|(request, reply)| request.method == "GET" && reply.status == 200));
}

#[test]
fn matomo_in_a_page_that_posts_forms_and_lists() {
    let house = House::new();
    let list = "_paq.push([\"queueRequest\", \"e_c=video&e_a=queued\"]);\
                _paq.push([\"queueRequest\", \"e_c=video&e_a=queued\"]);";
    let page = format!("_paq.push([\"setRequestMethod\", \"POST\"]);{PAGE}{list}");
    let _browser = house.browse_with("matomo.js", FILE, &page);
    let events = house.events(6);
    let (queued, others): (Vec<_>, Vec<_>) =
        events.into_iter().partition(|event| event["event"] == "queued");
    assert_of_a_page(&others);
    assert_eq!((queued.len(), &queued[0]["props"]["category"]), (2, &json!("video")));
    let bodies: Vec<_> =
        house.passed("/matomo.php").into_iter().map(|(request, _)| request.body).collect();
    let begins =
        |text: &str| bodies.iter().filter(|body| body.starts_with(text.as_bytes())).count();
    assert_eq!(begins("{\"requests\":"), 1, "{}", bodies.len());
    assert!(bodies.iter().all(|body| !body.is_empty()));
}
