use super::*;
use flate2::Compression;
use flate2::write::GzEncoder;

const TRACK: &str = r#"{"type":"track","event":"e","userId":"1","messageId":"m-1"}"#;
/// Of the site `demo`.
const KEY: (&str, &str) = ("Authorization", "Basic ZGVtbzo=");

#[test]
fn every_path_of_the_segment_family_takes_its_message() {
    let listener = Listener::new();
    let message = |kind: &str| format!(r#"{{"type":"{kind}","event":"e","userId":"1"}}"#);
    for (short, kind) in [
        ("p", "page"),
        ("i", "identify"),
        ("t", "track"),
        ("g", "group"),
        ("a", "alias"),
        ("s", "screen"),
    ] {
        let paths = [
            format!("/v1/{short}"),
            format!("/v1/{kind}"),
            format!("/api/s/{kind}"),
            format!("/api/s/s2s/{kind}"),
        ];
        for path in paths {
            let answer = listener.post(&path, &[KEY], message(kind));
            assert_eq!((answer.status, answer.text()), (200, r#"{"success":true}"#), "{path}");
            assert_eq!(listener.get(&path, &[KEY]).status, 405);
        }
    }
    let names: Vec<_> = listener.events().into_iter().map(|event| event.name).collect();
    let each = ["page_view", "identify", "e", "group", "alias", "screen_view"];
    assert_eq!(names.chunks(4).map(|four| &*four[3]).collect::<Vec<_>>(), each);
    for path in ["/v1/batch", "/v1/b", "/beacon/v1/batch?writeKey=demo"] {
        let headers: &[_] = if path.contains('?') { &[] } else { &[KEY] };
        let answer = listener.post(path, headers, format!(r#"{{"batch":[{TRACK},{TRACK}]}}"#));
        assert_eq!((answer.status, answer.text()), (200, r#"{"success":true}"#), "{path}");
    }
    assert_eq!(listener.outcomes("segment"), [("accepted", 30)]);
}

#[test]
fn a_bad_message_is_set_aside_and_its_batch_is_taken() {
    let listener = Listener::new();
    let body = format!(r#"{{"batch":[{TRACK},{{"type":"track","userId":"1"}},{TRACK}]}}"#);
    let answer = listener.post("/v1/batch", &[KEY], body);
    assert_eq!(
        answer.text(),
        r#"{"success":true,"rejected":[{"index":1,"code":"event_name","message":"event: expected a name of 1 to 128 bytes without control characters"}]}"#
    );
    assert_eq!(listener.events().len(), 2);
    assert_eq!(listener.outcomes("segment"), [("accepted", 2), ("invalid", 1)]);
}

#[test]
fn gzip_is_known_by_its_first_bytes_and_json_by_whatever_it_is_called() {
    let listener = Listener::new();
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(TRACK.as_bytes()).unwrap();
    let gzip = encoder.finish().unwrap();
    let form = ("Content-Type", "application/x-www-form-urlencoded");
    let encoded = ("Content-Encoding", "gzip");
    assert_eq!(listener.post("/v1/batch", &[KEY, form, encoded], &gzip).status, 200);
    assert_eq!(listener.post("/v1/t", &[KEY, ("Content-Type", "text/plain")], TRACK).status, 200);
    assert_eq!(listener.events().len(), 2);
}

#[test]
fn a_batch_that_is_much_alike_is_taken_gzipped() {
    let listener = Listener::new();
    let product = r#"{"sku":"22138","name":"Baking set","price":4.95,"quantity":1},"#.repeat(7);
    let message = |n: usize| {
        format!(
            r#"{{"type":"track","event":"e","userId":"1","messageId":"m-{n}","properties":{{"v":NaN,"products":[{product}{{}}]}}}}"#
        )
    };
    let messages: Vec<_> = (0..100).map(message).collect();
    let body = format!(r#"{{"sentAt":"2023-11-14T22:13:20Z","batch":[{}]}}"#, messages.join(","));
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(body.as_bytes()).unwrap();
    let gzip = encoder.finish().unwrap();
    assert!(body.len() > 20 * gzip.len(), "{} {}", body.len(), gzip.len());
    let answer = listener.post("/v1/batch", &[KEY], &gzip);
    assert_eq!((answer.status, answer.text()), (200, r#"{"success":true}"#));
    assert_eq!(listener.outcomes("segment"), [("accepted", 100)]);
}

#[test]
fn a_key_that_is_no_sites_is_told_and_a_foreign_page_is_not() {
    let listener = Listener::new();
    let unknown = ("Authorization", "Basic bm9ib2R5Og==");
    let answer = listener.post("/v1/t", &[unknown], TRACK);
    assert_eq!(answer.status, 401);
    assert!(answer.text().contains("[[site]] key"), "{}", answer.text());
    assert_eq!(listener.post("/v1/t", &[], TRACK).status, 401);
    assert_eq!(listener.outcomes("segment"), [("unknown_site", 2)]);
    let answer = listener.post("/v1/t", &[KEY, ("Origin", "https://evil.example")], TRACK);
    assert_eq!(answer.status, 200);
    assert!(answer.text().contains(r#""code":"origin""#), "{}", answer.text());
    assert!(listener.records().is_empty());
}

#[test]
fn a_body_that_cannot_be_read_is_refused() {
    let listener = Listener::new();
    for (body, status) in [
        ("[".repeat(400_000), 400),
        (format!(r#"{{"batch":{}"#, "[".repeat(400_000)), 400),
        (format!(r#"{{"a":{}}}"#, "[".repeat(400_000)), 400),
        (format!("{{{}}}", r#""a":1,"#.repeat(60_000)), 400),
        (format!(r#"{{"batch":[{}1]}}"#, "1,".repeat(200_000)), 413),
        (String::new(), 400),
        (" ".repeat(513 << 10), 413),
    ] {
        let answer = listener.post("/v1/batch", &[KEY], &body);
        assert_eq!(answer.status, status, "{:.40}", body);
    }
    // A message that is as deep or as large can be told from its neighbours.
    let deep = format!(r#"{{"type":"track","context":{}{}}}"#, "[".repeat(500), "]".repeat(500));
    let large = format!(r#"{{"type":"track","x":"{}"}}"#, "x".repeat(33 << 10));
    let body = format!(r#"{{"batch":[{deep},{TRACK},{large}]}}"#);
    let answer = listener.post("/v1/batch", &[KEY], body);
    assert!(answer.status == 200 && answer.text().contains(r#""code":"size""#));
    assert_eq!(listener.events().len(), 1);
}

#[test]
fn clients_are_asked_to_wait_and_never_told_that_we_failed() {
    let listener = Listener::with(|config| {
        config.collect.rate_per_address = 1;
        config.collect.burst_per_address = 2;
        config.collect.trusted_proxies = vec![[127, 0, 0, 1].into()];
    });
    let client = ("X-Forwarded-For", "203.0.113.9");
    let body = format!(r#"{{"batch":[{TRACK},{TRACK}]}}"#);
    assert_eq!(listener.post("/v1/batch", &[KEY, client], &body).status, 200);
    let answer = listener.post("/v1/batch", &[KEY, client], &body);
    assert_eq!((answer.status, answer.header("retry-after")), (429, Some("3")));
    assert_eq!(answer.header("access-control-expose-headers"), Some("Retry-After"));
    listener.disk.is_full.store(true, Ordering::SeqCst);
    let answer = listener.post("/v1/batch", &[KEY], &body);
    assert_eq!((answer.status, answer.header("retry-after")), (429, Some("1")));
    let outcomes = [("accepted", 2), ("rate_limited", 2), ("dropped", 2)];
    assert_eq!(listener.outcomes("segment"), outcomes);
}

#[test]
fn pages_hear_their_settings_and_may_send() {
    let listener = Listener::new();
    let page = ("Origin", "http://localhost:3000");
    let answer = listener.get("/v1/projects/demo/settings", &[page]);
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("access-control-allow-origin"), Some("http://localhost:3000"));
    let settings: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(settings["integrations"]["Segment.io"]["apiKey"], "demo");
    let answer = listener.get("/sourceConfig/?p=npm&writeKey=demo", &[page]);
    let settings: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(settings["source"]["writeKey"], "demo");
    assert_eq!(listener.get("/sourceConfig/", &[KEY]).status, 200);
    for path in ["/v1/projects/nobody/settings", "/sourceConfig/?writeKey=nobody", "/sourceConfig"]
    {
        assert_eq!(listener.get(path, &[]).status, 401, "{path}");
    }
    let ask = ("Access-Control-Request-Method", "POST");
    for path in ["/v1/track", "/v1/t", "/v1/batch", "/api/s/page", "/sourceConfig/"] {
        let answer = listener.send(request("OPTIONS", path, &[page, ask], b""));
        assert_eq!(answer.status, 204);
        let allowed = answer.header("access-control-allow-headers").unwrap();
        // What was asked for by the pages that were recorded, also when they sent again.
        for name in "anonymousid,authorization,content-type,rsa-retry-attempt,rsa-retry-reason,\
            rsa-since-first-attempt,rsa-since-last-attempt,sentat,sp-anonymous,x-enable-debug,\
            x-retry-count,x-write-key"
            .split(',')
        {
            assert!(allowed.split(", ").any(|allowed| allowed == name), "{name}");
        }
    }
}

#[test]
fn consent_holds_for_them_too() {
    let listener = Listener::new();
    let strict = ("Authorization", "Basic c3RyaWN0Og==");
    let answer = listener.post("/v1/t", &[strict], TRACK);
    assert!(answer.status == 200 && answer.text().contains("refused by silence"));
    let answer = listener.post("/v1/t", &[KEY, ("Sec-GPC", "1")], TRACK);
    assert!(answer.status == 200 && answer.text().contains("refused by gpc"));
    let said = TRACK.replace("}", r#","context":{"consent":{"us_privacy":"1YYN"}}}"#);
    let answer = listener.post("/v1/t", &[KEY], said);
    assert!(answer.status == 200 && answer.text().contains("refused by us_privacy"));
    assert!(listener.events().is_empty());
}

const SNOWPLOW: &str = "/com.snowplowanalytics.snowplow/tp2";

#[test]
fn what_a_batch_says_of_consent_holds_for_messages_with_a_context_of_their_own() {
    let (no, yes) = (r#""consent":{"us_privacy":"1YYN"}"#, r#""consent":{"us_privacy":"1YNN"}"#);
    let library = r#""library":{"name":"x"}"#;
    let send = |listener: &Listener, batch: &str, message: &str| {
        let message =
            format!(r#"{{"type":"track","event":"e","userId":"1","context":{{{message}}}}}"#);
        let body = format!(r#"{{"context":{batch},"batch":[{message}]}}"#);
        listener.post("/v1/batch", &[KEY], body)
    };
    let listener = Listener::new();
    for (batch, message, is_refused) in [
        (no, library.to_owned(), true),
        (no, String::new(), true),
        (no, format!("{library},{yes}"), true),
        (yes, format!("{library},{no}"), true),
        (yes, format!("{library},{yes}"), false),
        (yes, library.to_owned(), false),
        // What it says is nothing.
        (no, format!(r#"{library},"consent":{{"gdpr":null}}"#), true),
    ] {
        let before = listener.events().len();
        let answer = send(&listener, &format!("{{{batch}}}"), &message);
        assert_eq!(answer.status, 200);
        assert_eq!(answer.text().contains("us_privacy"), is_refused, "{batch} {message}");
        assert_eq!(listener.events().len() == before, is_refused, "{batch} {message}");
    }
    // A context that cannot be read may have said no.
    assert_eq!(send(&listener, "{\"consent\":}", library).status, 400);
    let half = send(&listener, r#"{"a":"\ud83d","consent":{"us_privacy":"1YYN"}}"#, library);
    assert!(half.text().contains(r#""code":"props""#), "{}", half.text());
    assert_eq!(listener.events().len(), 2);
    // Unomi's source is of all events, too.
    let event = |own: &str| {
        format!(r#"{{"eventType":"e","scope":"demo","target":{{"properties":{{{own}}}}}}}"#)
    };
    let source = format!(r#"{{"itemId":"p","scope":"demo","properties":{{{no}}}}}"#);
    let body = format!(r#"{{"source":{source},"events":[{},{}]}}"#, event(yes), event(""));
    let page = ("Origin", "http://localhost:1");
    assert_eq!(listener.post("/context.json", &[page], body).cookies(), [""; 0]);
    assert_eq!(listener.outcomes("unomi"), [("refused_consent", 2)]);
}

fn payload(events: &str) -> String {
    format!(
        r#"{{"schema":"iglu:com.snowplowanalytics.snowplow/payload_data/jsonschema/1-0-4","data":[{events}]}}"#
    )
}

#[test]
fn snowplow_posts_where_it_is_told_to_and_gets_an_image() {
    let listener =
        Listener::with(|config| config.collect.snowplow_path = Some("/com.acme/track".to_owned()));
    let body = payload(r#"{"e":"pv","aid":"demo","duid":"d-1"}"#);
    for path in [SNOWPLOW, "/com.acme/track"] {
        let answer = listener.post(path, &[], &body);
        assert_eq!((answer.status, answer.text()), (200, "ok"));
        assert_eq!(listener.get(path, &[]).status, 405);
    }
    assert_gif(&listener.get("/i?e=pv&aid=demo&duid=d-1", &[]));
    assert_eq!(listener.events().len(), 3);
    assert_eq!(listener.get("/i?e=pv&aid=nobody&duid=d-1", &[]).status, 401);
    assert_eq!(listener.post(SNOWPLOW, &[], body.replace("demo", "nobody")).status, 401);
    assert_eq!(listener.post(SNOWPLOW, &[], "{}").status, 400);
    assert_eq!(
        listener.get(&format!("/i?e=pv&aid=demo&x={}", "x".repeat(8 << 10)), &[]).status,
        414
    );
    let outcomes = [("accepted", 3), ("unknown_site", 2), ("invalid", 1), ("too_large", 1)];
    assert_eq!(listener.outcomes("snowplow"), outcomes);
}

#[test]
fn a_page_of_snowplow_is_known_by_our_cookie_unless_it_asks_not_to_be() {
    let listener = Listener::new();
    let cookie = listener.cookie();
    let page = [("Origin", "http://localhost"), ("Cookie", cookie.as_str())];
    let body = payload(r#"{"e":"pv","aid":"demo","duid":"d-1"}"#);
    let answer = listener.post(SNOWPLOW, &page, &body);
    assert_eq!(answer.header("access-control-allow-origin"), Some("http://localhost"));
    assert_eq!(answer.header("access-control-allow-credentials"), Some("true"));
    let events = listener.events();
    let names: Vec<_> = events[1].ids.iter().map(|id| id.namespace.as_str()).collect();
    assert_eq!(names, ["cookie", "anonymous_id"]);
    assert_eq!(events[1].ids[0], events[0].ids[0]);

    let anonymous = [page[0], page[1], ("SP-Anonymous", "*")];
    let answer = listener.post(SNOWPLOW, &anonymous, payload(r#"{"e":"pv","aid":"demo"}"#));
    assert_eq!((answer.status, answer.text(), answer.cookies().len()), (200, "ok", 0));
    let query = "/i?e=pv&aid=demo&uid=u-1";
    assert_gif(&listener.get(query, &anonymous));
    assert_eq!(listener.records().len(), 2);
    assert_eq!(listener.outcomes("snowplow"), [("accepted", 1), ("refused_consent", 2)]);
}

#[test]
fn matomo_answers_as_each_way_of_sending_wants() {
    let listener = Listener::new();
    let hit = "idsite=demo&rec=1&_id=0123456789abcdef";
    for path in ["/matomo.php", "/piwik.php"] {
        assert_gif(&listener.get(&format!("{path}?{hit}"), &[]));
        assert_gif(&listener.post(path, &[], hit));
        let answer = listener.post(&format!("{path}?{hit}&send_image=0"), &[], "");
        assert_eq!((answer.status, answer.text()), (204, ""));
    }
    let list = format!(r#"{{"requests":["?{hit}","?{hit}&rec=0"]}}"#);
    assert_eq!(
        listener.post("/matomo.php", &[], list).text(),
        r#"{"status":"success","tracked":1,"invalid":1,"invalid_indices":[1]}"#
    );
    assert_eq!(listener.post("/matomo.php", &[], "{").status, 400);
    assert_eq!(listener.get("/matomo.php?idsite=nobody&rec=1", &[]).status, 401);
    let outcomes = [("accepted", 7), ("unknown_site", 1), ("invalid", 2)];
    assert_eq!(listener.outcomes("matomo"), outcomes);
}

#[test]
fn an_image_of_matomos_in_a_page_gets_a_cookie_and_a_server_needs_an_id() {
    let listener = Listener::new();
    let page = ("Referer", "http://localhost:3000/a");
    let answer = listener.get("/matomo.php?idsite=demo&rec=1", &[page]);
    let [cookie] = answer.cookies()[..] else { panic!("one cookie") };
    let pair = cookie.split(';').next().unwrap();
    let foreign = ("Referer", "https://evil.example/");
    assert_gif(&listener.get("/matomo.php?idsite=demo&rec=1", &[page, ("Cookie", pair)]));
    assert_gif(&listener.get("/matomo.php?idsite=demo&rec=1", &[foreign]));
    assert_gif(&listener.get("/matomo.php?idsite=demo&rec=1", &[]));
    let events = listener.events();
    assert_eq!((events.len(), &events[0].ids), (2, &events[1].ids));
    assert!(events.iter().all(|event| event.source == crate::model::Source::Js));
    let outcomes = [("accepted", 2), ("foreign_origin", 1), ("invalid", 1)];
    assert_eq!(listener.outcomes("matomo"), outcomes);
    let refused = "/matomo.php?idsite=demo&rec=1&us_privacy=1YYN";
    assert_gif(&listener.get(refused, &[page, ("Cookie", pair)]));
    assert_eq!(listener.choices().len(), 1);
}

#[test]
fn unomi_is_answered_in_the_same_call() {
    let listener = Listener::new();
    let page = ("Origin", "http://localhost");
    let event = r#"{"eventType":"view","scope":"demo"}"#;
    let body = format!(r#"{{"source":{{"scope":"demo"}},"sessionId":"s-1","events":[{event}]}}"#);
    let context = |answer: &Answer| -> serde_json::Value {
        assert_eq!(answer.status, 200, "{}", answer.text());
        serde_json::from_slice(&answer.body).unwrap()
    };
    let answer = listener.post("/context.json", &[page], &body);
    let pair = answer.cookies()[0].split(';').next().unwrap().to_owned();
    let first = context(&answer);
    assert_eq!((&first["sessionId"], &first["processedEvents"]), (&"s-1".into(), &1.into()));
    assert_eq!(first["profileSegments"], serde_json::json!([]));
    let id = &listener.events()[0].ids[0];
    let profile = first["profileId"].as_str().unwrap();
    assert!(profile.len() == 32 && profile != id.value());
    // Whoever asks without bringing anything is known, too, and nobody is made.
    let known = [page, ("Cookie", pair.as_str())];
    let empty = r#"{"source":{"scope":"demo"},"sessionId":7}"#;
    let again = context(&listener.post("/cxs/context.json", &known, empty));
    assert_eq!((&again["profileId"], &again["sessionId"]), (&profile.into(), &().into()));
    let nobody = listener.post("/context.json", &[page], empty);
    assert!(nobody.cookies().is_empty() && context(&nobody)["profileId"].is_null());

    let events = format!(r#"{{"events":[{event},{{"scope":"demo"}}]}}"#);
    let answer = listener.post("/eventcollector", &known, &events);
    assert_eq!((answer.status, answer.text()), (200, r#"{"updated":4}"#));
    let refused = [known[0], known[1], ("Sec-GPC", "1")];
    let refused = context(&listener.post("/context.json", &refused, &body));
    assert!(refused["profileId"].is_null(), "{refused}");
    assert_eq!(listener.post("/context.json", &[page], "{").status, 400);
    assert_eq!(listener.post("/context.json", &[page], body.replace("demo", "x")).status, 401);
    let outcomes = [("accepted", 2), ("refused_consent", 1), ("unknown_site", 1), ("invalid", 2)];
    assert_eq!(listener.outcomes("unomi"), outcomes);
}
