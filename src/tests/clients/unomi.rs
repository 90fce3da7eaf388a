//! Apache Unomi's tracker in a page.

use serde_json::json;

use super::{House, SETTINGS, ids, named, now, only};

#[test]
fn unomi_in_a_page_hears_what_its_visitor_is_in() {
    let house = House::with(&[("viewers", "rule = 'did viewProduct'")], SETTINGS);
    let started = now();
    // The session is the page's own, and there before the tracker is. So is what bundlers put in the place of Node's
    // buffers, which the published script asks for.
    let lines = r#"
let first = null;
tracker._registerCallback(() => {
  const context = tracker.getLoadedContext();
  if (first == null) {
    first = context;
    const target = tracker.buildTarget("P1", "product", { sku: "P1", price: 39.95 });
    const ask = () => setTimeout(() => tracker.loadContext(true, false, true), 600);
    return tracker.collectEvent(tracker.buildEvent("viewProduct", target), ask);
  }
  if (!context.profileSegments.length) return setTimeout(() => tracker.loadContext(true, false, true), 600);
  const found = { first, now: context, cookies: document.cookie };
  fetch("/result", { method: "POST", body: JSON.stringify(found) });
}, "the test");
"#;
    let browser = house.browse_changed(
        "apache-unomi-tracker",
        "clients/node_modules/apache-unomi-tracker/dist/apache-unomi-tracker.umd.js",
        "globalThis.Buffer = { byteLength: (text) => new Blob([text]).size };\n\
         export const { useTracker } = globalThis[\"apache-unomi-tracker\"];",
        ("const tracker", "document.cookie = \"wem-session-id=sess-1\"; const tracker"),
        lines,
    );
    let found = browser.result();
    let (first, now) = (&found["first"], &found["now"]);
    assert_eq!((&first["profileSegments"], &first["processedEvents"]), (&json!([]), &json!(1)));
    assert_eq!(
        (&now["profileSegments"], &now["sessionId"]),
        (&json!(["viewers"]), &json!("sess-1"))
    );
    let profile = first["profileId"].as_str().unwrap();
    assert_eq!((now["profileId"].as_str(), profile.len()), (Some(profile), 32));
    assert!(found["cookies"].as_str().unwrap().contains(&format!("wem-profile-id={profile}")));

    let events = house.events(2);
    let view = only(&events, "page_view");
    assert_eq!((&view["page_title"], &view["source"]), (&json!("A page"), &json!("js")));
    let product = json!({ "sku": "P1", "price": 39.95, "item_id": "P1", "item_type": "product" });
    assert_eq!(named(&events, "viewProduct")[0]["props"], product);
    for event in &events {
        let cookie = ids(event, "cookie");
        assert_eq!((cookie.len(), &cookie), (1, &ids(view, "cookie")));
        assert_ne!(cookie[0], profile);
        assert!((event["time"].as_i64().unwrap() - started).abs() < 30_000, "{event}");
    }
    // It sends what it may keep back, and so the cookie.
    let (asked, answered) = house.passed("/context.json").remove(1);
    assert!(asked.header("cookie").unwrap().contains("throng="), "{asked:?}");
    let allowed = ("Access-Control-Allow-Credentials", "true".to_owned());
    assert!(answered.headers.contains(&allowed), "{answered:?}");
}
