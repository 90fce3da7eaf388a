//! What a listener that anybody can reach answers to what nobody should send, line by line of its contract.

use flate2::Compression;
use flate2::write::GzEncoder;
use std::io::Write;
use std::time::Duration;
use std::time::Instant;

use super::wire::Answer;
use super::wire::BROWSER;
use super::wire::address;
use super::wire::assert_serves;
use super::wire::assert_well;
use super::wire::exchange;
use super::wire::request;
use super::wire::resident;
use super::wire::send;
use crate::harness::Server;
use crate::harness::get;

/// Every path that takes a body.
const POSTS: [&str; 9] = [
    "/v1/events",
    "/v1/batch",
    "/v1/t",
    "/beacon/v1/batch?writeKey=t",
    "/api/s/track",
    "/com.snowplowanalytics.snowplow/tp2",
    "/matomo.php?idsite=t&rec=1&uid=u",
    "/context.json",
    "/eventcollector",
];
/// Every path that reads a query.
const GETS: [&str; 10] = [
    "/pixel.gif",
    "/i",
    "/matomo.php",
    "/piwik.php",
    "/sync/dsp",
    "/match/dsp",
    "/v1/audiences",
    "/privacy/opt-out",
    "/t.js",
    "/sourceConfig/",
];
const EVENT: &str = r#"{"site":"t","event":"e","ids":{"user_id":"1"}}"#;
const KEY: (&str, &str) = ("Authorization", "Basic dDo=");

const PARTNER: &str = "[[partner]]\nname = \"dsp\"\n\
    url = \"https://dsp.example/m?id={id}&s={site}&g={gdpr}&c={gdpr_consent}&p={gpp}&q={gpp_sid}&u={us_privacy}\"\n";

fn post(server: &Server, path: &str, body: impl AsRef<[u8]>) -> Answer {
    send(server, "POST", path, &[KEY], body.as_ref())
}

/// How many events of an endpoint had an outcome.
fn outcome(server: &Server, endpoint: &str, outcome: &str) -> u64 {
    let name =
        format!("throng_collect_events_total{{endpoint=\"{endpoint}\",outcome=\"{outcome}\"}} ");
    let text = get(&format!("{}/metrics", server.console()), &[]).body;
    text.lines().find_map(|line| line.strip_prefix(&name)).unwrap().parse().unwrap()
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

#[test]
fn a_body_or_a_query_that_is_too_large_is_refused_before_it_is_in_memory() {
    let server = Server::start_with(&[], PARTNER, &[]);
    let before = resident(&server);
    let large = vec![b' '; (512 << 10) + 1];
    let chunk = format!("{:x}\r\n{}\r\n", 64 << 10, " ".repeat(64 << 10)).repeat(9);
    for path in POSTS {
        assert_eq!(post(&server, path, &large).status, 413, "{path}");
        let head = format!("POST {path} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
        let came = exchange(&address(&server), format!("{head}{chunk}0\r\n\r\n").as_bytes());
        assert_eq!(Answer::of(&came).status, 413, "{path}");
        // What a client only says that it will send is not waited for.
        let head = format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 9999999999\r\n\r\n");
        assert_eq!(Answer::of(&exchange(&address(&server), head.as_bytes())).status, 413, "{path}");
    }
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                assert_eq!(post(&server, "/v1/events", vec![b' '; 16 << 20]).status, 413)
            });
        }
    });
    let many = format!("[{}]", vec![EVENT; 501].join(","));
    assert_eq!(post(&server, "/v1/events", many).status, 413);
    // An event that is too large by itself fails no neighbour.
    let wide = format!(
        r#"[{EVENT},{{"site":"t","event":"e","props":{{"a":"{}"}}}}]"#,
        "x".repeat(33 << 10)
    );
    let answer = post(&server, "/v1/events", wide);
    assert!(answer.text().contains(r#""accepted":1"#) && answer.text().contains("size"));

    let query = format!("s=t&x={}", "x".repeat(8 << 10));
    let get = |path: &str| send(&server, "GET", &format!("{path}?{query}"), &[], b"");
    assert!(get("/pixel.gif").is_gif());
    assert_eq!(outcome(&server, "pixel", "too_large"), 1);
    for (path, status) in [("/i", 414), ("/matomo.php", 414), ("/v1/audiences", 414)] {
        assert_eq!(get(path).status, status, "{path}");
    }
    assert_eq!(post(&server, &format!("/v1/batch?{query}"), "{}").status, 414);
    assert!(get("/sync/dsp").is_gif());
    let head = format!("GET /pixel.gif?x={} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(200 << 10));
    let status = Answer::of(&exchange(&address(&server), head.as_bytes())).status;
    assert!(matches!(status, 0 | 400 | 414 | 431), "{status}");
    let grown = resident(&server).saturating_sub(before);
    assert!(grown < 64 << 20, "{grown}");
    assert_serves(&server, "still");
    assert_well(&server);
}

#[test]
fn gzip_bombs_and_unknown_encodings_cost_next_to_nothing() {
    let server = Server::start(&[]);
    let before = resident(&server);
    let bomb = gzip(&vec![b' '; 100 << 20]);
    // Each member is small, and there are many.
    let members = gzip(&vec![b' '; 64 << 10]).repeat(2_000);
    let empty = gzip(b"").repeat(20_000);
    let nested = gzip(&gzip(EVENT.as_bytes()));
    let mut cut = gzip(EVENT.as_bytes());
    cut.truncate(cut.len() - 4);
    for path in POSTS {
        let started = Instant::now();
        assert_eq!(post(&server, path, &bomb).status, 413, "{path}");
        assert_eq!(post(&server, path, &members).status, 413, "{path}");
        assert_eq!(post(&server, path, &nested).status, 415, "{path}");
        for encoding in ["br", "zstd", "deflate", "compress", "gzip, br", "x"] {
            let headers = [KEY, ("Content-Encoding", encoding)];
            let answer = send(&server, "POST", path, &headers, EVENT.as_bytes());
            assert_eq!(answer.status, 415, "{path} {encoding}");
        }
        assert_eq!(post(&server, path, b"\x1f\x8bnot gzip").status, 400, "{path}");
        assert_eq!(post(&server, path, &cut).status, 400, "{path}");
        assert!(matches!(post(&server, path, &empty).status, 200 | 400), "{path}");
        assert!(started.elapsed() < Duration::from_secs(10), "{path}");
    }
    // In two members an event is whole.
    let (first, last) = EVENT.as_bytes().split_at(20);
    assert_eq!(post(&server, "/v1/events", [gzip(first), gzip(last)].concat()).status, 200);
    // Many at once, while others are served.
    let largest = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..16)
            .map(|_| {
                scope.spawn(|| {
                    for _ in 0..20 {
                        assert_eq!(post(&server, "/v1/events", &bomb).status, 413);
                    }
                })
            })
            .collect();
        let mut largest = 0;
        while threads.iter().any(|thread| !thread.is_finished()) {
            let started = Instant::now();
            assert!(send(&server, "GET", "/pixel.gif?s=t", &[], b"").is_gif());
            assert!(started.elapsed() < Duration::from_secs(2), "{:?}", started.elapsed());
            largest = largest.max(resident(&server));
        }
        largest
    });
    let grown = largest.saturating_sub(before);
    assert!(grown < 64 << 20, "{grown}");
    assert_well(&server);
}

#[test]
fn json_that_no_honest_client_writes_is_400_or_set_aside_at_once() {
    let server = Server::start(&[]);
    let wide: String = (0..20_000).map(|n| format!("\"{n}\":{n},")).collect();
    let twice: String = (0..2_000).map(|_| "\"a\":1,").collect();
    let bodies = [
        "[".repeat(500_000),
        "{\"a\":".repeat(80_000),
        format!("[{}{}]", "[".repeat(200), "]".repeat(200)),
        format!("{{{wide}\"site\":\"t\"}}"),
        format!("{{\"site\":\"t\",\"event\":\"e\",\"ids\":{{\"user_id\":\"1\"}},\"props\":{{{twice}\"b\":2}}}}"),
        r#"{"site":"t","site":"t","event":"e","event":"f","ids":{"user_id":"1","user_id":"2"}}"#.to_owned(),
        r#"{"site":"t","event":"e\ud800","ids":{"user_id":"1"}}"#.to_owned(),
        r#"{"site":"t","event":"e","ids":{"user_id":"\udfff\ud83d"},"props":{"\ud800":"\ud800"}}"#.to_owned(),
        r#"{"site":"t","event":"e","ids":{"user_id":"1"},"props":{"a":1e400,"b":-1e999999999999}}"#.to_owned(),
        format!(r#"{{"site":"t","event":"e","ids":{{"user_id":"1"}},"props":{{"a":{}}}}}"#, "9".repeat(20_000)),
        r#"{"site":"t","event":"e\u0000","ids":{"user_id":"\u0000"}}"#.to_owned(),
        "{\"site\":\"t\",\"event\":\"e\0\",\"ids\":{\"user_id\":\"1\"}}".to_owned(),
        r#"{"$serde_json::private::Number":"x"}"#.to_owned(),
        r#"{"batch":[{"type":"track","event":1e400,"userId":{"$serde_json::private::Number":"1"}}]}"#.to_owned(),
        r#"{"data":[{"e":"ue","aid":"t","ue_px":"////","cx":"e30=","duid":"\ud800"}]}"#.to_owned(),
        r#"{"requests":["?idsite=t&rec=1&uid=%00%ff","?",""]}"#.to_owned(),
        r#"{"site":"t","event":NaN}"#.to_owned(),
        "{\"site\":\"t\"".to_owned(),
        "\u{feff}\u{feff}{}".to_owned(),
        "\0".to_owned(),
        String::new(),
    ];
    for path in POSTS {
        for body in &bodies {
            let started = Instant::now();
            let answer = post(&server, path, body);
            let took = started.elapsed();
            assert!(
                matches!(answer.status, 200 | 204 | 400 | 401 | 413),
                "{path} {} {body:.60}",
                answer.status
            );
            // The contract's 50 ms are for the product as shipped; this build is an order slower.
            assert!(took < Duration::from_millis(500), "{path} {took:?} {body:.60}");
        }
    }
    assert_well(&server);
    assert_serves(&server, "still");
    let letters = server.api("/api/v1/dead-letters").json();
    assert_eq!(letters["dead_letters"].as_array().map(Vec::len), Some(0), "{letters}");
}

#[test]
fn nothing_of_a_parameter_comes_back_in_a_header_or_as_an_address() {
    let server = Server::start_with(&[], PARTNER, &[]);
    let known = send(&server, "GET", "/pixel.gif?s=t", &[("User-Agent", BROWSER)], b"");
    let cookie = known.header("set-cookie").unwrap().split(';').next().unwrap().to_owned();
    let names = [
        "s",
        "e",
        "u",
        "r",
        "t",
        "ts",
        "m",
        "id.user_id",
        "p.x",
        "a.x",
        "gdpr",
        "gdpr_consent",
        "gpp",
        "gpp_sid",
        "us_privacy",
        "uid",
        "format",
        "redirect",
        "return",
        "url",
        "next",
        "writeKey",
        "idsite",
        "aid",
        "cb",
        "callback",
    ];
    let evil = [
        "%0d%0aSet-Cookie:%20evil=1",
        "%0aevil:1",
        "//evil.example",
        "%5c%5cevil.example",
        "https://dsp.example@evil.example/",
        "https:%2f%2fu:p@evil.example%5c@dsp.example/",
        "%E5%98%8A%E5%98%8Devil",
        "evil%00",
        "javascript:evil",
    ];
    for path in GETS {
        for value in evil {
            let query: Vec<String> = names.iter().map(|name| format!("{name}={value}")).collect();
            for query in
                [query.join("&"), format!("s=t&{}", query[1..].join("&")), value.to_owned()]
            {
                let headers = [
                    ("Cookie", &*cookie),
                    ("X-Forwarded-Host", "evil.example"),
                    ("Referer", "https://shop.example/evil"),
                ];
                let answer = send(&server, "GET", &format!("{path}?{query}"), &headers, b"");
                assert!(answer.status < 500, "{path}?{query}: {}", answer.text());
                let place =
                    answer.header("location").unwrap_or("https://dsp.example/m?").to_owned();
                // Encoded it may stand in the place that the settings name.
                assert!(place.starts_with("https://dsp.example/m?"), "{path}?{query}: {place}");
                assert!(!place.contains(['@', '\\', '\r', '\n']), "{place}");
                let rest = answer.head.replace(&place, "");
                assert!(
                    !rest.to_ascii_lowercase().contains("evil"),
                    "{path}?{query}: {}",
                    answer.head
                );
            }
        }
    }
    for value in evil {
        for path in [format!("/{value}"), format!("/sync/{value}"), format!("/match/{value}?s=t")] {
            let answer = send(&server, "GET", &path, &[], b"");
            assert!(!answer.head.contains("evil"), "{path}: {}", answer.head);
            assert_eq!(answer.status, 404, "{path}");
        }
    }
    // An origin that no site lists is not told that it may read with credentials.
    let headers = [("Origin", "https://evil.example"), ("Cookie", &*cookie)];
    for path in ["/v1/events", "/v1/audiences", "/context.json"] {
        let answer = send(&server, "OPTIONS", path, &headers, b"");
        assert_eq!(answer.header("access-control-allow-origin"), Some("*"), "{path}");
        assert_eq!(answer.header("access-control-allow-credentials"), None, "{path}");
    }
    assert_well(&server);
}

#[test]
fn a_foreign_origin_and_an_unknown_key_are_refused_and_counted() {
    let server = Server::start(&[]);
    let foreign = ("Origin", "https://evil.example");
    let event = |site: &str| format!(r#"{{"site":"{site}","event":"e","ids":{{"user_id":"1"}}}}"#);
    let answer = send(&server, "POST", "/v1/events", &[foreign], event("t").as_bytes());
    assert!(answer.text().contains(r#""code":"origin""#), "{}", answer.text());
    let answer = post(&server, "/v1/events", event("nobody"));
    assert!(answer.text().contains(r#""code":"site""#), "{}", answer.text());
    for (path, header) in [("/pixel.gif?s=t", foreign), ("/pixel.gif?s=nobody", ("Accept", "*/*"))]
    {
        assert!(send(&server, "GET", path, &[header], b"").is_gif());
    }
    let track = r#"{"type":"track","event":"e","userId":"1"}"#;
    send(&server, "POST", "/v1/t", &[KEY, foreign], track.as_bytes());
    let unknown = ("Authorization", "Basic bm9ib2R5Og==");
    assert_eq!(send(&server, "POST", "/v1/t", &[unknown], track.as_bytes()).status, 401);
    for endpoint in ["events", "pixel", "segment"] {
        assert_eq!(outcome(&server, endpoint, "foreign_origin"), 1, "{endpoint}");
        assert_eq!(outcome(&server, endpoint, "unknown_site"), 1, "{endpoint}");
        assert_eq!(outcome(&server, endpoint, "accepted"), 0, "{endpoint}");
    }
    assert_eq!(server.count("did e"), 0);
}

#[test]
fn times_of_wrong_clocks_are_replaced_and_receive_times_never_go_back() {
    let server = Server::start(&[]);
    let times = [
        "9223372036854775807",
        "-9223372036854775808",
        "0",
        "\"1970-01-01T00:00:00Z\"",
        "\"9999-12-31T23:59:60Z\"",
    ];
    for (number, time) in times.iter().enumerate() {
        let body = format!(
            r#"{{"site":"t","event":"e","time":{time},"sentAt":{time},"ids":{{"user_id":"{number}"}}}}"#
        );
        let answer = post(&server, "/v1/events", body);
        assert!(
            answer.text().contains(r#""accepted":1"#) || answer.text().contains(r#""code":"time""#),
            "{}",
            answer.text()
        );
    }
    assert!(
        send(&server, "GET", "/pixel.gif?s=t&e=e&id.user_id=p&ts=99999999999999", &[], b"")
            .is_gif()
    );
    // What was dated away was received now.
    assert!(server.count("did e in 1h") >= 4);
    assert_well(&server);
}

#[test]
fn keys_that_a_stranger_chose_cost_what_any_keys_cost() {
    let server = Server::start(&[]);
    // Keys that collide under hashes without a key (FNV, Fx, djb2: equal tails, equal sums), and as many that do not.
    let colliding = |n: usize| {
        let pairs = (0..9).map(|bit| if n >> bit & 1 == 1 { "Ez" } else { "FY" });
        pairs.collect::<String>()
    };
    let body = |key: &dyn Fn(usize) -> String| {
        let event = |number: usize| {
            let props: Vec<String> = (0..500).map(|n| format!("\"{}\":1", key(n))).collect();
            format!(
                r#"{{"site":"t","event":"e","ids":{{"user_id":"{number}"}},"props":{{{}}}}}"#,
                props.join(",")
            )
        };
        format!("[{}]", (0..40).map(event).collect::<Vec<_>>().join(","))
    };
    let took = |body: String| {
        let started = Instant::now();
        let answer = post(&server, "/v1/events", body);
        assert_eq!(answer.status, 200, "{}", answer.text());
        started.elapsed()
    };
    let plain = took(body(&|n| format!("plain-key-{n:08}")));
    let collided = took(body(&colliding));
    assert!(collided < plain * 5 + Duration::from_millis(500), "{collided:?} against {plain:?}");
}

#[test]
fn no_answer_tells_a_known_id_from_an_unknown_one() {
    let server =
        Server::start(&[("buyers", "rule = 'did purchase'\nmin_size = 1\ntags = [\"page\"]")]);
    let bought = r#"{"site":"t","event":"purchase","ids":{"user_id":"known","cookie":"0190a1b2c3d4e5f60190a1b2c3d4e5f6"}}"#;
    assert_eq!(post(&server, "/v1/events", bought).status, 200);
    assert_eq!(server.count("did purchase"), 1);
    let seen = |method: &str, path: &str, headers: &[(&str, &str)], body: &str| {
        let answer = send(&server, method, path, headers, body.as_bytes());
        // What is random in an answer is new in each.
        let mut head: Vec<String> = answer
            .head
            .lines()
            .filter(|line| !line.to_ascii_lowercase().starts_with("date"))
            .map(|line| line.split("throng=").next().unwrap().to_owned())
            .collect();
        head.sort();
        (answer.status, head, answer.text())
    };
    for (method, path, body) in [
        ("GET", "/pixel.gif?s=t&e=x&id.user_id=WHO", ""),
        ("GET", "/v1/audiences?id.user_id=WHO", ""),
        ("POST", "/v1/events", r#"{"site":"t","event":"x","ids":{"user_id":"WHO"}}"#),
        ("POST", "/v1/t", r#"{"type":"track","event":"x","userId":"WHO"}"#),
        ("POST", "/v1/audiences", r#"{"ids":[{"user_id":"WHO"}]}"#),
    ] {
        let with =
            |who: &str| seen(method, &path.replace("WHO", who), &[KEY], &body.replace("WHO", who));
        assert_eq!(with("known"), with("other"), "{path}");
    }
    // A cookie that was not made here is none, whosever value it has.
    for path in ["/v1/audiences?s=t", "/pixel.gif?s=t&e=x&id.user_id=1", "/privacy/opt-out"] {
        let with = |value: &str| {
            let cookie = format!("throng={value}.0123456789abcdef");
            seen("GET", path, &[("Cookie", &cookie), ("Origin", "https://shop.example")], "")
        };
        let [known, other] =
            ["0190a1b2c3d4e5f60190a1b2c3d4e5f6", "0190a1b2c3d4e5f60190a1b2c3d4e5f7"];
        assert_eq!(with(known), with(other), "{path}");
    }
}

#[test]
fn only_a_trusted_proxy_says_who_sent_a_request_and_how() {
    let cookie = |server: &Server, headers: &[(&str, &str)]| {
        let headers = [&[("User-Agent", BROWSER)], headers].concat();
        let answer = send(server, "GET", "/pixel.gif?s=t", &headers, b"");
        answer.header("set-cookie").unwrap().split('=').next().unwrap().to_owned()
    };
    let https = [
        &[("X-Forwarded-Proto", "https"), ("X-Forwarded-For", "192.0.2.1")][..],
        &[("Forwarded", "for=192.0.2.1;proto=https")],
    ];
    let alone = Server::start(&[]);
    let proxied = Server::start_with(&[], "[collect]\ntrusted_proxies = [\"127.0.0.1\"]\n", &[]);
    for headers in https {
        assert_eq!(cookie(&alone, headers), "throng", "{headers:?}");
        assert_eq!(cookie(&proxied, headers), "__Host-throng", "{headers:?}");
    }
    assert_eq!(cookie(&proxied, &[("X-Forwarded-Proto", "http")]), "throng");
    // Nobody can claim an address that has tokens left.
    let limited = "[collect]\ntrusted_proxies = [\"127.0.0.1\"]\nrate_per_address = 1\nburst_per_address = 1\n";
    let proxied = Server::start_with(&[], limited, &[]);
    let from =
        |headers: &[(&str, &str)]| send(&proxied, "POST", "/v1/events", headers, EVENT.as_bytes());
    assert_eq!(from(&[("X-Forwarded-For", "192.0.2.1")]).status, 200);
    let refused = from(&[("X-Forwarded-For", "198.51.100.1, 192.0.2.1")]);
    assert_eq!(refused.status, 429);
    let wait: u64 = refused.header("retry-after").unwrap().parse().unwrap();
    assert!((1..=2).contains(&wait), "{wait}");
    assert_eq!(
        from(&[("Forwarded", "for=198.51.100.1"), ("X-Forwarded-For", "192.0.2.1")]).status,
        429
    );
    assert_eq!(from(&[("Forwarded", "for=\"192.0.2.2:80\"")]).status, 200);
    // Loopback, which the proxy speaks from, has no limit of its own.
    assert!((0..10).all(|_| from(&[]).status == 200));
    for _ in 0..3 {
        let headers = [("X-Forwarded-For", "192.0.2.1")];
        assert!(send(&proxied, "GET", "/pixel.gif?s=t&id.user_id=1", &headers, b"").is_gif());
    }
    assert!(outcome(&proxied, "pixel", "rate_limited") >= 2);
    assert!(outcome(&proxied, "events", "rate_limited") == 2);
}

#[test]
fn a_request_that_cannot_be_read_ends_its_connection_and_no_other() {
    let server = Server::start(&[]);
    let good = request("GET", "/pixel.gif?s=t", &[], b"");
    for bad in [
        &b"GET /pixel.gif?s=t\r\n\r\n"[..],
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"GET / HTTP/9.9\r\n\r\n",
        b"POST /v1/events HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /v1/events HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n{}",
        b"POST /v1/events HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nfffffffffffffffff\r\n",
        b"POST /v1/events HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n-5\r\nabc\r\n",
        b"GET /pixel.gif HTTP/1.1\r\nHost: a\r\n folded: x\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ] {
        // What is smuggled behind it is answered by nobody.
        let came = exchange(&address(&server), &[bad, &good].concat());
        assert!(Answer::of(&came).status == 0 || (400..500).contains(&Answer::of(&came).status), "{came:?}");
    }
    assert_well(&server);
    assert_serves(&server, "still");
    // Nor does it fill the log.
    assert!(server.log().lines().count() < 20, "{}", server.log());
}
