//! Consent by every way that events come: each brings a string, a refusal writes nothing, and who withdraws is taken back.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;
use serde_json::json;
use std::fs;

use super::consent::ALL;
use super::consent::DESTINATION;
use super::consent::NONE;
use super::consent::holding;
use super::harness::Server;
use super::harness::get;
use super::harness::send;

const SITES: &str = "[collect]\ntrusted_proxies = [\"127.0.0.1\"]\n\
    [[partner]]\nname = \"dsp\"\nurl = \"https://dsp.example/?id={id}\"\n\
    [[site]]\nkey = \"shop\"\nconsent = \"opt_in\"\ntcf_vendor = 7\norigins = [\"https://shop.example\"]\n\
    [[site]]\nkey = \"us\"\nconsent = \"opt_out\"\norigins = [\"https://us.example\"]\n\
    [[site]]\nkey = \"open\"\nconsent = \"none\"\norigins = [\"https://open.example\"]\n";
const SEGMENT: &str = "rule = 'did seen in 1h or did page_view in 1h'\nmin_size = 1\n\
                       [[activate]]\ndestination = \"files\"\n";
const AGENT: &str = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/120.0.0.0 Safari/537.36 Mark-5c1e";
const ADDRESS: &str = "203.0.113.99";

/// A request that brings one event: its path and, where it is posted, its body.
type Request = (String, Option<String>);

/// The ways that events come, each with a string and a mark that stands in everything an event may name.
fn ways(tcf: &str, mark: &str) -> Vec<(&'static str, Request)> {
    let page = format!("https://shop.example/{mark}");
    let query = format!("gdpr=1&gdpr_consent={tcf}");
    let event = |consent: Value| json!([{ "site": "shop", "event": "seen", "ids": { "user_id": mark }, "page": { "url": page }, "consent": consent }]);
    let said = json!({ "gdpr": 1, "tcf": tcf });
    let message = |context: Value| {
        json!({ "type": "track", "event": "seen", "userId": mark, "messageId": mark, "properties": { "mark": mark },
                "context": context, "writeKey": "shop" })
    };
    let batch = |context: Value| json!({ "batch": [message(context)], "writeKey": "shop" });
    // Consent managers write beside it what they make of their own.
    let managed = json!({ "consent": { "gdpr": 1, "tcf": tcf, "categoryPreferences": { "C0004": true } },
                          "consentManagement": { "allowedConsentIds": [], "deniedConsentIds": ["C0004"] } });
    let entity = |tcf: &str| {
        let data = json!([{ "schema": "iglu:com.acme/consent/jsonschema/1-0-0", "data": { "gdpr": 1, "tcf": tcf } }]);
        json!({ "schema": "iglu:com.snowplowanalytics.snowplow/contexts/jsonschema/1-0-1", "data": data }).to_string()
    };
    let snowplow = |more: Value| {
        let mut fields = json!({ "e": "pv", "aid": "shop", "uid": mark, "url": page, "eid": mark });
        fields.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({ "schema": "iglu:com.snowplowanalytics.snowplow/payload_data/jsonschema/1-0-4", "data": [fields] })
    };
    let unomi = |consent: Value| {
        let properties = json!({ "pageInfo": { "destinationURL": page }, "consent": consent });
        let source =
            json!({ "itemType": "page", "scope": "shop", "itemId": "p", "properties": properties });
        json!({ "sessionId": mark, "source": source,
                "events": [{ "eventType": "view", "scope": "shop", "itemId": mark, "properties": { "mark": mark } }] })
    };
    let tp2 = "/com.snowplowanalytics.snowplow/tp2";
    let hit = format!("idsite=shop&rec=1&uid={mark}&url={page}");
    let post = |path: &str, body: Value| (path.to_owned(), Some(body.to_string()));
    let asked = |path: &str, body: Value| (format!("{path}?{query}"), Some(body.to_string()));
    vec![
        ("pixel", (format!("/pixel.gif?s=shop&id.user_id={mark}&u={page}&{query}"), None)),
        (
            "pixel, by GPP",
            (
                format!("/pixel.gif?s=shop&id.user_id={mark}&u={page}&gpp_sid=2&gpp=DBABM~{tcf}"),
                None,
            ),
        ),
        ("events", post("/v1/events", event(said.clone()))),
        (
            "events, by GPP",
            post("/v1/events", event(json!({ "gpp": format!("DBABM~{tcf}"), "gpp_sid": [2] }))),
        ),
        ("events, by the query", asked("/v1/events", event(json!({})))),
        ("segment, batch", post("/v1/batch", batch(managed.clone()))),
        ("segment, batch by the query", asked("/v1/batch", batch(json!({})))),
        ("segment, one", post("/v1/t", message(managed.clone()))),
        ("rudderstack, beacon", post("/beacon/v1/batch?writeKey=shop", batch(managed.clone()))),
        ("jitsu", post("/api/s/track", message(managed))),
        ("snowplow", post(tp2, snowplow(json!({ "co": entity(tcf) })))),
        (
            "snowplow, encoded",
            post(tp2, snowplow(json!({ "cx": URL_SAFE_NO_PAD.encode(entity(tcf)) }))),
        ),
        ("snowplow, by the query", asked(tp2, snowplow(json!({})))),
        (
            "snowplow, get",
            (format!("/i?e=pv&aid=shop&uid={mark}&url={page}&eid={mark}&{query}"), None),
        ),
        ("matomo", (format!("/matomo.php?{hit}&{query}"), None)),
        ("matomo, bulk", post("/matomo.php", json!({ "requests": [format!("?{hit}&{query}")] }))),
        ("unomi, context", post("/context.json", unomi(said.clone()))),
        ("unomi, events", post("/eventcollector", unomi(said))),
        ("unomi, by the query", asked("/context.json", unomi(json!({})))),
    ]
}

fn ask(server: &Server, (path, body): &Request, more: &[(&str, &str)]) -> super::harness::Answer {
    let url = format!("{}{path}", server.collect());
    let mut headers = vec![
        ("X-Forwarded-For", ADDRESS),
        ("User-Agent", AGENT),
        ("Authorization", "Basic c2hvcDo="),
        ("X-Write-Key", "shop:secret"),
    ];
    headers.extend(more);
    match body {
        Some(body) => send("POST", &url, &headers, body.clone().into_bytes()),
        None => get(&url, &headers),
    }
}

fn start() -> Server {
    let mut server = Server::start_with(&[("seen", SEGMENT)], SITES, &[]);
    assert!(server.stop());
    fs::write(server.folder().join("destinations.toml"), DESTINATION).unwrap();
    server.run();
    server
}

fn refusals(server: &Server, signal: &str) -> f64 {
    server.metric(&format!("throng_collect_refusals_total{{signal=\"{signal}\"}}"))
}

fn held(server: &Server) -> Value {
    let _ = server.throng(&["destination", "push", "files"]);
    server.push("files")["held"].clone()
}

const PAGE: (&str, &str) = ("Origin", "https://shop.example");

#[test]
fn whatever_brings_it_a_string_that_refuses_leaves_nothing_behind() {
    let server = start();
    let mut count = 0;
    for (way, request) in ways(NONE, "refused-9e2d") {
        let before = refusals(&server, "gdpr") + refusals(&server, "gpp");
        let answer = ask(&server, &request, &[PAGE]);
        let after = refusals(&server, "gdpr") + refusals(&server, "gpp");
        assert_eq!(after - before, 1.0, "{way}: {answer:?}");
        assert!(!answer.headers.contains_key("set-cookie"), "{way}");
    }
    // Nor does one that says nothing where silence is a refusal.
    for (way, (path, body)) in ways("", "refused-9e2d") {
        let before = refusals(&server, "gdpr") + refusals(&server, "gpp");
        ask(&server, &(path, body), &[PAGE]);
        let after = refusals(&server, "gdpr") + refusals(&server, "gpp");
        assert_eq!(after - before, 1.0, "{way}");
    }
    let mut marks = Vec::new();
    for at in 0..ways("", "").len() {
        let mark = format!("taken-{at}-4f1c");
        let (way, request) = ways(ALL, &mark).swap_remove(at);
        let answer = ask(&server, &request, &[PAGE]);
        count += 1;
        let rule = "count seen in 1h >= 1 or count page_view in 1h >= 1";
        assert_eq!(server.count(rule), count, "{way}: {answer:?}");
        marks.push(mark);
    }
    // What is folded since is on disk: what was taken is found there, and nothing of what was refused.
    for mark in marks {
        assert!(!holding(server.data(), &mark).is_empty(), "{mark}");
    }
    for text in ["refused-9e2d", ADDRESS, "203.0.113", "Mark-5c1e", NONE] {
        for folder in [server.data(), server.folder()] {
            assert_eq!(holding(folder, text), [""; 0], "{text}");
        }
    }
}

#[test]
fn whatever_brings_it_a_withdrawal_takes_a_browser_back() {
    let server = start();
    let mut ways = ways(NONE, "gone");
    let said = format!("s=shop&gdpr=1&gdpr_consent={NONE}");
    ways.push(("match", (format!("/match/dsp?{said}&uid=77"), None)));
    ways.push(("sync", (format!("/sync/dsp?{said}"), None)));
    let browsers: Vec<String> = ways
        .iter()
        .map(|_| {
            let path = format!("/pixel.gif?s=shop&gdpr=1&gdpr_consent={ALL}");
            let answer = ask(&server, &(path, None), &[]);
            let header = answer.headers["set-cookie"].to_str().unwrap();
            header.split(';').next().unwrap().to_owned()
        })
        .collect();
    server.until("all are held", || held(&server) == ways.len());
    for ((way, request), pair) in ways.iter().zip(&browsers) {
        let answer = ask(&server, request, &[PAGE, ("Cookie", pair)]);
        let header = answer.headers.get("set-cookie").map(|header| header.to_str().unwrap());
        assert!(
            header.is_some_and(
                |header| header.starts_with("throng=; ") && header.contains("Max-Age=0")
            ),
            "{way}: {answer:?}"
        );
    }
    server.until("all are taken back", || held(&server) == 0);
}

#[test]
fn global_privacy_control_holds_after_a_hit_without_it() {
    let server = start();
    for (at, (site, origin)) in
        [("us", "https://us.example"), ("open", "https://open.example")].into_iter().enumerate()
    {
        let at = at as u64;
        let path = format!("/pixel.gif?s={site}");
        let first = ask(&server, &(path.clone(), None), &[]);
        let header = first.headers["set-cookie"].to_str().unwrap();
        let pair = header.split(';').next().unwrap().to_owned();
        server.until("it is held", || held(&server) == at + 1);
        let event = json!([{ "site": site, "event": "seen" }]).to_string();
        let event = ("/v1/events".to_owned(), Some(event));
        ask(&server, &event, &[("Origin", origin), ("Cookie", &pair), ("Sec-GPC", "1")]);
        server.until("it is taken back", || held(&server) == at);
        // The browser kept its cookie, and says no more: what was chosen stands.
        let before = server.count("did seen in 1h");
        ask(&server, &event, &[("Origin", origin), ("Cookie", &pair)]);
        ask(&server, &(path, None), &[("Cookie", &pair)]);
        assert_eq!(server.count("did seen in 1h"), before.max(at + 1));
        assert_eq!(held(&server), at, "{site}");
        // Until the visitor says otherwise here.
        let own = server.collect();
        let opt_in = ("/privacy/opt-in".to_owned(), Some(String::new()));
        ask(&server, &opt_in, &[("Origin", &own), ("Cookie", &pair)]);
        server.until("it is held again", || held(&server) == at + 1);
    }
}
