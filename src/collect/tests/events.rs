use super::*;
use crate::model::Source;
use flate2::Compression;
use flate2::write::GzEncoder;

const JSON: (&str, &str) = ("Content-Type", "application/json");
const ONE: &str = r#"{"site":"demo","event":"e","ids":{"user_id":"1"}}"#;

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn one_event_or_many_are_taken() {
    let listener = Listener::new();
    let answer = listener.post("/v1/events", &[JSON], ONE);
    assert_eq!((answer.status, answer.text()), (200, r#"{"accepted":1,"rejected":[]}"#));
    let answer = listener.post("/v1/events", &[JSON], format!("[{ONE},{ONE}]"));
    assert_eq!(answer.text(), r#"{"accepted":2,"rejected":[]}"#);
    assert_eq!(listener.post("/v1/events", &[], "[]").text(), r#"{"accepted":0,"rejected":[]}"#);
    let events = listener.events();
    assert_eq!((events.len(), events[0].source), (3, Source::Api));
    assert_eq!(listener.outcomes("events"), [("accepted", 3)]);
}

#[test]
fn a_bad_event_never_fails_its_neighbours() {
    let listener = Listener::new();
    let large = format!(
        r#"{{"site":"demo","event":"e","ids":{{"user_id":"1"}},"props":{{"a":"{}"}}}}"#,
        "x".repeat(33 << 10)
    );
    let body = [
        ONE,
        r#"{"site":"nobody","event":"e","ids":{"user_id":"1"}}"#,
        r#"{"site":"demo","event":"","ids":{"user_id":"1"}}"#,
        r#"{"site":"demo","event":"e","time":"now","ids":{"user_id":"1"}}"#,
        r#"{"site":"demo","event":"e"}"#,
        r#"{"site":"demo","event":"e","ids":{"user_id":"1"},"props":[]}"#,
        r#"{"site":"demo","event":"e","ids":{"user_id":"1"},"props":{"a":1e400}}"#,
        r#"{"site":"demo","event":"e","ids":{"user_id":"1"},"props":{"a":"\ud83d"}}"#,
        r#"{"site":"demo","event":"e","ids":{"user_id":"1"},"consent":{"us_privacy":"1YYN"}}"#,
        r#"{"site":"strict","event":"e","ids":{"user_id":"1"}}"#,
        r#"7"#,
        &large,
        ONE,
    ]
    .join(",");
    let answer = listener.post("/v1/events", &[JSON], format!("[{body}]"));
    assert_eq!(answer.status, 200);
    let answer: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(answer["accepted"], 2);
    let rejected: Vec<_> = answer["rejected"]
        .as_array()
        .unwrap()
        .iter()
        .map(|rejected| {
            assert!(!rejected["message"].as_str().unwrap().is_empty());
            (rejected["index"].as_u64().unwrap(), rejected["code"].as_str().unwrap())
        })
        .collect();
    let expected = [
        (1, "site"),
        (2, "event_name"),
        (3, "time"),
        (4, "ids"),
        (5, "props"),
        (6, "props"),
        (7, "props"),
        (8, "consent"),
        (9, "consent"),
        (10, "site"),
        (11, "size"),
    ];
    assert_eq!(rejected, expected);
    assert_eq!(listener.events().len(), 2);
    assert_eq!(
        listener.outcomes("events"),
        [
            ("accepted", 2),
            ("refused_consent", 2),
            ("unknown_site", 1),
            ("invalid", 7),
            ("too_large", 1)
        ]
    );
}

#[test]
fn a_number_that_is_none_costs_neither_its_event_nor_its_neighbours() {
    let listener = Listener::new();
    let odd = ONE.replace("}}", r#"},"props":{"a":NaN,"b":[-Infinity,1.50],"c":"NaN"}}"#);
    let answer = listener.post("/v1/events", &[JSON], format!("[{ONE},{odd}]"));
    assert_eq!((answer.status, answer.text()), (200, r#"{"accepted":2,"rejected":[]}"#));
    let mut props = String::new();
    crate::model::value::write_json_object(&listener.events()[1].props, &mut props);
    assert_eq!(props, r#"{"a":null,"b":[null,1.50],"c":"NaN"}"#);
    // In the place of what is no number it is what is not stated.
    let nobody = r#"[{"site":NaN,"event":"e","ids":{"user_id":"1"}}]"#;
    assert!(listener.post("/v1/events", &[JSON], nobody).text().contains(r#""code":"site""#));
    assert_eq!(listener.post("/v1/events", &[JSON], "[{\"a\":nan}]").status, 400);
}

#[test]
fn a_foreign_page_is_refused_and_may_still_read_why() {
    let listener = Listener::new();
    let answer = listener.post("/v1/events", &[("Origin", "https://evil.example")], ONE);
    assert_eq!(answer.status, 200);
    assert!(answer.text().contains(r#""code":"origin""#), "{}", answer.text());
    assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
    assert_eq!(answer.header("access-control-allow-credentials"), None);
    assert!(listener.records().is_empty());
}

#[test]
fn a_script_without_identifiers_gets_a_cookie_and_a_server_does_not() {
    let listener = Listener::new();
    let event = r#"{"site":"demo","event":"e"}"#;
    let page = ("Origin", "http://localhost:3000");
    let answer = listener.post("/v1/events", &[page], format!("[{event},{event},{ONE}]"));
    let [cookie] = answer.cookies()[..] else { panic!("one cookie for the request") };
    assert_eq!(answer.header("access-control-allow-origin"), Some("http://localhost:3000"));
    assert_eq!(answer.header("access-control-allow-credentials"), Some("true"));
    assert_eq!(answer.header("vary"), Some("Origin"));
    let pair = cookie.split(';').next().unwrap();
    let again = listener.post("/v1/events", &[page, ("Cookie", pair)], ONE);
    assert!(again.cookies().is_empty());
    let events = listener.events();
    assert!(events.iter().all(|event| event.source == Source::Js));
    assert_eq!(events[0].ids, events[1].ids);
    let names =
        |event: &Event| event.ids.iter().map(|id| id.namespace.to_string()).collect::<Vec<_>>();
    assert_eq!(names(&events[2]), ["user_id"]);
    assert_eq!(names(&events[3]), ["cookie", "user_id"]);
    let server = listener.post("/v1/events", &[], event);
    assert!(server.text().contains(r#""code":"ids""#) && server.cookies().is_empty());
}

#[test]
fn the_header_of_a_script_is_its_visitors_and_that_of_a_server_is_not() {
    let listener = Listener::new();
    let agent = ("User-Agent", "python-requests/2.31.0");
    listener.post("/v1/events", &[agent], ONE);
    listener.post("/v1/events", &[agent, ("Origin", "http://localhost")], ONE);
    let events = listener.events();
    assert_eq!((events[0].bot, events[0].device.kind.as_deref()), (false, None));
    assert_eq!((events[1].bot, events[1].device.kind.as_deref()), (true, Some("bot")));
}

#[test]
fn a_refusal_marks_the_browser_and_takes_its_cookie() {
    let listener = Listener::new();
    let pair = listener.cookie();
    let headers = [("Origin", "http://localhost"), ("Cookie", pair.as_str()), ("Sec-GPC", "1")];
    let answer = listener.post("/v1/events", &headers, format!("[{ONE},{ONE}]"));
    assert!(answer.text().starts_with(r#"{"accepted":0,"#), "{}", answer.text());
    assert_eq!(answer.cookies(), ["throng=; Path=/; Max-Age=0; HttpOnly; SameSite=Lax"]);
    assert_eq!(listener.choices().len(), 1);
    assert_eq!(listener.refusals("gpc"), 2);
}

#[test]
fn browsers_send_text_and_some_clients_mislabelled_gzip() {
    let listener = Listener::new();
    let text = ("Content-Type", "text/plain;charset=UTF-8");
    let form = ("Content-Type", "application/x-www-form-urlencoded");
    for (headers, body) in [
        (vec![text], ONE.as_bytes().to_vec()),
        (vec![form], gzip(ONE.as_bytes())),
        (vec![JSON, ("Content-Encoding", "gzip")], gzip(ONE.as_bytes())),
        (vec![JSON], [b"\xef\xbb\xbf ", ONE.as_bytes()].concat()),
    ] {
        let answer = listener.post("/v1/events", &headers, body);
        assert_eq!(answer.text(), r#"{"accepted":1,"rejected":[]}"#, "{headers:?}");
    }
}

#[test]
fn a_full_disk_is_told_and_the_events_can_be_sent_again() {
    let listener = Listener::new();
    listener.disk.is_full.store(true, Ordering::SeqCst);
    let answer = listener.post("/v1/events", &[JSON], format!("[{ONE},{ONE}]"));
    assert_eq!(answer.status, 503);
    assert!(answer.header("retry-after").is_some());
    listener.disk.is_full.store(false, Ordering::SeqCst);
    assert_eq!(listener.post("/v1/events", &[JSON], ONE).status, 200);
    assert_eq!(listener.outcomes("events"), [("accepted", 1), ("dropped", 2)]);
}

#[test]
fn a_flood_of_events_is_told_when_to_come_back() {
    let listener = Listener::with(|config| {
        config.collect.trusted_proxies = vec!["127.0.0.1".parse().unwrap()];
        config.collect.rate_per_address = 1;
        config.collect.burst_per_address = 3;
    });
    let from = ("X-Forwarded-For", "192.0.2.1");
    assert_eq!(listener.post("/v1/events", &[from], format!("[{ONE},{ONE}]")).status, 200);
    let answer = listener.post("/v1/events", &[from], format!("[{ONE},{ONE}]"));
    assert_eq!((answer.status, answer.header("retry-after")), (429, Some("2")));
    assert_eq!(listener.outcomes("events"), [("accepted", 2), ("rate_limited", 2)]);
}

#[test]
fn a_preflight_names_the_headers_that_clients_send() {
    let listener = Listener::new();
    let preflight = |origin: &str| {
        let headers = [
            ("Origin", origin),
            ("Access-Control-Request-Method", "POST"),
            ("Access-Control-Request-Headers", "content-type,x-write-key"),
        ];
        listener.send(request("OPTIONS", "/v1/events", &headers, b""))
    };
    let listed = preflight("https://strict.example");
    assert_eq!(listed.status, 204);
    assert_eq!(listed.header("access-control-allow-origin"), Some("https://strict.example"));
    assert_eq!(listed.header("access-control-allow-credentials"), Some("true"));
    let allowed = listed.header("access-control-allow-headers").unwrap();
    for name in
        "authorization, content-type, anonymousid, sentat, x-write-key, x-retry-count, sp-anonymous"
            .split(", ")
    {
        assert!(allowed.split(", ").any(|allowed| allowed == name), "{name}");
    }
    let other = preflight("https://evil.example");
    assert_eq!(other.header("access-control-allow-origin"), Some("*"));
    assert_eq!(other.header("access-control-allow-credentials"), None);
}

#[test]
fn an_event_counts_though_its_sender_has_gone() {
    let listener = Listener::new();
    let gate = listener.disk.gate.lock();
    let hit = request("GET", "/pixel.gif?s=demo", &[], b"");
    for (n, sent) in
        [request("POST", "/v1/events", &[JSON], ONE.as_bytes()), hit].iter().enumerate()
    {
        let mut stream = TcpStream::connect(listener.address).unwrap();
        stream.write_all(sent).unwrap();
        // What waits is one batch and the next: the first is with the disk, the second behind it.
        while listener.disk.appends.load(Ordering::SeqCst) == 0 {
            std::thread::yield_now();
        }
        // Who comes later is answered later: by then the worker has read it.
        listener.get("/pixel.gif?s=unknown", &[]);
        // Closed with bytes unread, a connection is reset.
        stream.write_all(b"x").unwrap();
        rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
        drop(stream);
        // The worker has seen that by the time it has answered others.
        for _ in 0..5 {
            listener.get("/pixel.gif?s=unknown", &[]);
        }
        assert_eq!(listener.outcomes("events"), [], "{n}");
    }
    drop(gate);
    while listener.events().len() < 2 {
        std::thread::yield_now();
    }
    // An answer comes after what was counted before it.
    listener.get("/pixel.gif?s=demo", &[]);
    assert_eq!(listener.outcomes("events"), [("accepted", 1)]);
    assert_eq!(listener.outcomes("pixel"), [("accepted", 2), ("unknown_site", 12)]);
}
