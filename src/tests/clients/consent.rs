//! Consent as clients bring it that have no field for it: Snowplow's with an entity, Unomi's with its page.

use serde_json::json;

use super::{House, ids, only};
use crate::consent::ALL;
use crate::consent::NONE;

const SETTINGS: &str = "[archive]\nfile_age = \"1s\"\n\
    [[site]]\nkey = \"shop\"\nconsent = \"opt_in\"\ntcf_vendor = 7\norigins = [\"http://127.0.0.1:*\"]\n";

fn refusals(house: &House, signal: &str) -> f64 {
    house.server.metric(&format!("throng_collect_refusals_total{{signal=\"{signal}\"}}"))
}

#[test]
fn snowplow_on_node_brings_it_with_an_entity() {
    let house = House::with(&[], SETTINGS);
    house.node(
        "@snowplow/node-tracker",
        &format!(
            r#"
const consent = (tcf) => ({{ schema: "iglu:com.acme/consent/jsonschema/1-0-0", data: {{ gdpr: 1, tcf }} }});
const view = (user, entities) => {{
  tracker.setUserId(user);
  tracker.track(buildPageView({{ pageUrl: "https://shop.example/", pageTitle: user }}), entities);
}};
view("yes", [consent("{ALL}")]);
view("no", [consent("{NONE}")]);
view("silent", []);
const {{ buildConsentWithdrawn }} = await import("@snowplow/node-tracker");
const {{ event, context }} = buildConsentWithdrawn({{ all: true, id: "policy", version: "1" }});
tracker.track(event, [...context, consent("{ALL}")]);
await tracker.flush();
await new Promise((done) => setTimeout(done, 1500));
"#
        ),
    );
    let events = house.events(1);
    let view = only(&events, "page_view");
    assert_eq!((ids(view, "user_id"), &view["props"]), (vec!["yes"], &json!({})));
    for signal in ["gdpr", "silence", "opt_out"] {
        assert_eq!(refusals(&house, signal), 1.0, "{signal}");
    }
}

#[test]
fn snowplow_in_a_page_brings_it_with_every_event() {
    let house = House::with(&[], SETTINGS);
    let lines = format!(
        r#"
import {{ addGlobalContexts }} from "@snowplow/browser-tracker";
let tcf = "{ALL}";
addGlobalContexts([() => ({{ schema: "iglu:com.acme/consent/jsonschema/1-0-0", data: {{ gdpr: 1, tcf }} }})]);
setUserId("yes");
trackPageView({{ title: "A page" }});
await new Promise((done) => setTimeout(done, 1500));
tcf = "{NONE}";
setUserId("no");
trackPageView({{ title: "Another" }});
await new Promise((done) => setTimeout(done, 1500));
fetch("/result", {{ method: "POST", body: "true" }});
"#
    );
    let file = "clients/node_modules/@snowplow/browser-tracker/dist/index.umd.js";
    let exports = "export const { addGlobalContexts, newTracker, setUserId, trackPageView, trackSelfDescribingEvent, \
                   trackStructEvent } = snowplowBrowserTracking;";
    let browser = house.browse("@snowplow/browser-tracker", file, exports, &lines);
    assert_eq!(browser.result(), true);
    let events = house.events(1);
    assert_eq!(ids(only(&events, "page_view"), "user_id"), ["yes"]);
    assert_eq!(refusals(&house, "gdpr"), 1.0);
}

#[test]
fn unomi_in_a_page_brings_it_with_its_page() {
    for (tcf, count) in [(ALL, 1), (NONE, 0)] {
        let house = House::with(&[("viewers", "rule = 'did page_view in 1h'")], SETTINGS);
        let lines = r#"
let asked = 0;
tracker._registerCallback(() => {
  const context = tracker.getLoadedContext();
  asked += 1;
  if (asked < 4) return setTimeout(() => tracker.loadContext(true, false, true), 600);
  fetch("/result", { method: "POST", body: JSON.stringify(context) });
}, "the test");
"#;
        let documented = "attributes: {} },";
        let with = format!("attributes: {{}}, consent: {{ gdpr: 1, tcf: \"{tcf}\" }} }},");
        let browser = house.browse_changed(
            "apache-unomi-tracker",
            "clients/node_modules/apache-unomi-tracker/dist/apache-unomi-tracker.umd.js",
            "globalThis.Buffer = { byteLength: (text) => new Blob([text]).size };\n\
             document.cookie = \"wem-session-id=sess-1\";\n\
             export const { useTracker } = globalThis[\"apache-unomi-tracker\"];",
            (documented, &with),
            lines,
        );
        let context = browser.result();
        let told = context["profileSegments"].as_array().unwrap().len();
        assert_eq!((told, context["profileId"].is_string()), (count, count > 0), "{context}");
        assert_eq!(house.events(count).len(), count);
        assert_eq!(refusals(&house, "gdpr") > 0.0, count == 0);
    }
}
