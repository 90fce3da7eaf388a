//! Requests that were right until something was done to them: whatever comes, the server answers and goes on.
//!
//! `MUTATIONS=100000` tries more of them; `MUTATION_SEED` tries others.

use flate2::Compression;
use flate2::write::GzEncoder;
use std::io::Write;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

use super::wire::BROWSER;
use super::wire::address;
use super::wire::assert_serves;
use super::wire::assert_well;
use super::wire::exchange;
use super::wire::request;
use super::wire::resident;
use super::wire::statuses;
use crate::harness::Server;

/// Every kind of thing that the listener is asked for.
const SETTINGS: &str = r#"
[collect]
trusted_proxies = ["127.0.0.1"]
country_header = "cf-ipcountry"
snowplow_path = "/com.acme/track"
rate_per_address = 1000000
burst_per_address = 1000000
[[partner]]
name = "dsp"
url = "https://dsp.example/m?id={id}&g={gdpr}&c={gdpr_consent}&p={gpp}&q={gpp_sid}&u={us_privacy}&b={id_base64}"
[[partner]]
name = "xandr"
kind = "xandr"
here = "https://t.shop.example"
[[site]]
key = "strict"
consent = "opt_in"
tcf_vendor = 755
origins = ["https://shop.example"]
[[site]]
key = "shop"
consent = "opt_out"
tcf_vendor = 755
origins = ["http://localhost:*"]
"#;

const TCF: &str = "CPXxRfAPXxRfAAfKABENB-CgAAAAAAAAAAYgAAAAAAAA";

/// The body of a recording.
macro_rules! recorded {
    ($name:literal) => {
        include_str!(concat!("../../collect/protocols/tests/", $name))
    };
}

/// Requests that are taken, by every way there is.
fn seeds() -> Vec<Vec<u8>> {
    let json = [("Content-Type", "application/json"), ("User-Agent", BROWSER)];
    let page = [("Origin", "https://shop.example"), ("User-Agent", BROWSER)];
    let basic = [("Authorization", "Basic c2hvcDo="), ("Content-Type", "text/plain")];
    let jitsu = [("X-Write-Key", "shop:secret"), ("Content-Type", "application/json")];
    let cookie = [
        (
            "Cookie",
            "throng=0190a1b2c3d4e5f60190a1b2c3d4e5f6.0123456789abcdef; throng-sync=dsp.20000",
        ),
        ("X-Forwarded-For", "198.51.100.7, 127.0.0.1"),
        ("X-Forwarded-Proto", "https"),
        ("Accept-Language", "fr-FR,fr;q=0.9"),
        ("CF-IPCountry", "FR"),
        ("Sec-GPC", "0"),
    ];
    let forwarded =
        [("Forwarded", "for=\"[2001:db8::1]:4711\";proto=https, for=127.0.0.1"), ("DNT", "1")];
    let consent =
        format!("gdpr=1&gdpr_consent={TCF}&gpp=DBABLA~BVQqAAAAAgA.QA&gpp_sid=2_7&us_privacy=1YNN");
    let pixel = format!(
        "/pixel.gif?s=t&e=product_view&u=https%3A%2F%2Fshop.example%2F%C3%A9%3Fa%3D1&r=&t=Caf%C3%A9&ts=1700000000000&m=m-1\
         &id.user_id=ada&id.email=ada%40example.com&p.value=14.85&p.sku=22138&a.country=FR&{consent}"
    );
    let event = r#"[{"site":"t","event":"purchase","time":"2026-11-24T06:00:00.123Z","message_id":"m1","sentAt":1700000000000,
        "ids":{"cookie":"0190","user_id":"12680","email":"a@b.example","phone":"+4915112345678"},
        "props":{"value":14.85,"sku":"22138","tags":["gift","kitchen"],"n":{"a":[1e3,-0,null,true]}},"attrs":{"country":"FR"},
        "page":{"url":"https://shop.example","referrer":"","title":"T"},"user_agent":"Mozilla/5.0","locale":"fr-FR",
        "device":{"kind":"mobile"},"geo":{"country":"FR"},
        "consent":{"tcf":"CPXxRfA","gpp":"DBABLA~BVQqAAAAAgA.QA","gpp_sid":[7],"us_privacy":"1YNN","gdpr":0}},
        {"site":"shop","event":"page_view","ids":{"user_id":"1"}}]"#;
    let snowplow = recorded!("snowplow-browser-tracker.txt").lines().next().unwrap();
    let matomo = recorded!("matomo-js.txt").lines().next().unwrap();
    let mut seeds = vec![
        request("GET", &pixel, &cookie, b""),
        request("GET", &pixel, &forwarded, b""),
        request("GET", &format!("/pixel.gif?s=strict&{consent}"), &page, b""),
        request("POST", "/v1/events", &json, event.as_bytes()),
        request("POST", "/v1/events", &page, event.as_bytes()),
        request("POST", "/v1/events", &[("Content-Encoding", "gzip")], &gzip(event.as_bytes())),
        request("OPTIONS", "/v1/events", &page, b""),
        request("GET", "/t.js", &[("If-None-Match", "\"x\""), ("Accept-Encoding", "gzip")], b""),
        request("GET", "/v1/audiences?format=ortb2&s=shop", &cookie, b""),
        request("GET", "/v1/audiences?id.user_id=ada", &[("Authorization", "Bearer thr_0")], b""),
        request(
            "POST",
            "/v1/audiences",
            &json,
            br#"{"format":"ids","ids":[{"user_id":"ada"},{"cookie":"1"}]}"#,
        ),
        request("GET", &format!("/sync/dsp?s=t&{consent}"), &cookie, b""),
        request("GET", "/match/xandr?s=t&uid=5727816213491965430", &cookie, b""),
        request("GET", "/privacy/opt-out", &cookie, b""),
        request("POST", "/privacy/opt-out", &[("Sec-Fetch-Site", "same-origin")], b""),
        request("POST", "/privacy/opt-in", &[("Origin", "http://collect.example")], b""),
        request("GET", "/.well-known/gpc.json", &[], b""),
        request("GET", "/v1/projects/shop/settings", &page, b""),
        request("GET", "/sourceConfig/?p=npm&v=3&writeKey=shop", &page, b""),
        request("GET", &format!("/i?{snowplow}"), &[("SP-Anonymous", "*")], b""),
        request("GET", &format!("/i?{snowplow}"), &page, b""),
        request("POST", &format!("/matomo.php?{matomo}"), &page, b""),
        request(
            "GET",
            &format!("/piwik.php?{}", recorded!("matomo-tracker.txt").lines().next().unwrap()),
            &[],
            b"",
        ),
    ];
    for (path, headers, body) in [
        ("/v1/batch", &basic[..], recorded!("segment-analytics-node.json")),
        ("/v1/batch", &basic, recorded!("segment-analytics-python.json")),
        ("/v1/batch", &basic, recorded!("rudder-sdk-node.json")),
        ("/v1/batch", &basic, recorded!("rudder-sdk-python.json")),
        ("/v1/p", &basic, recorded!("segment-analytics-next-page.json")),
        ("/v1/b", &basic, recorded!("segment-analytics-next-batch.json")),
        ("/beacon/v1/batch?writeKey=shop", &page, recorded!("rudder-analytics-js-batch.json")),
        ("/api/s/identify", &jitsu, recorded!("jitsu-js-identify.json")),
        ("/api/s/page", &jitsu, recorded!("jitsu-js-page.json")),
        ("/com.snowplowanalytics.snowplow/tp2", &json, recorded!("snowplow-browser-tracker.json")),
        ("/com.acme/track", &json, recorded!("snowplow-node-tracker.json")),
        ("/matomo.php", &json, recorded!("matomo-tracker.json")),
        ("/context.json", &page, recorded!("apache-unomi-tracker-context.json")),
        ("/eventcollector", &page, recorded!("apache-unomi-tracker-eventcollector.json")),
    ] {
        seeds.push(request("POST", path, headers, body.as_bytes()));
        seeds.push(request("POST", path, headers, &gzip(body.as_bytes())));
    }
    seeds
}

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

/// What means something to one of the readers, to put anywhere.
const PIECES: [&[u8]; 48] = [
    b"\r\n",
    b"\r\n\r\n",
    b"\n",
    b"\0",
    b"%00",
    b"%0d%0aX: y",
    b"%ff",
    b"%",
    b"%u0000",
    b"+",
    b"&",
    b"=",
    b"?",
    b"#",
    b"\"",
    b"\\",
    b"\\ud800",
    b"\\u0000",
    b"{",
    b"}",
    b"[",
    b"]",
    b"[[[[[[[[[[[[[[[[",
    b",",
    b":",
    b"null",
    b"1e400",
    b"-1e999999999",
    b"99999999999999999999999999",
    b"-0",
    b"NaN",
    b"\xef\xbb\xbf",
    b"\xc3\x28",
    b"\xf0\x9f\x92",
    b"\x1f\x8b\x08\0",
    b"//evil.example",
    b"https://u:p@evil.example\\@x/",
    b"Transfer-Encoding: chunked\r\n",
    b"Content-Length: 18446744073709551616\r\n",
    b"Content-Encoding: br\r\n",
    b"Expect: 100-continue\r\n",
    b"Upgrade: websocket\r\nConnection: upgrade\r\n",
    b"ffffffffffffffff\r\n",
    b"-1",
    b"~~~~",
    b"AAAAAAAAAAAAAAAA",
    b"$serde_json::private::Number",
    b";for=\"_x\"",
];

/// A small seeded source of random numbers (`SplitMix64`).
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((z ^ (z >> 31)) % end as u64).unwrap()
    }
}

/// Does something to bytes.
fn mutate(bytes: &mut Vec<u8>, others: &[Vec<u8>], random: &mut Random) {
    if bytes.is_empty() {
        return;
    }
    let at = random.below(bytes.len());
    let end = (at + 1 + random.below(24)).min(bytes.len());
    match random.below(8) {
        0 => bytes[at] ^= 1 << random.below(8),
        1 => bytes[at] = u8::try_from(random.below(256)).unwrap(),
        2 => drop(bytes.drain(at..end)),
        3 => {
            let part = bytes[at..end].repeat(1 + random.below(40));
            drop(bytes.splice(at..at, part));
        }
        4 => bytes.truncate(at),
        5 => {
            let other = &others[random.below(others.len())];
            let from = random.below(other.len());
            let to = (from + random.below(200)).min(other.len());
            drop(bytes.splice(at..end, other[from..to].iter().copied()));
        }
        _ => {
            let piece = PIECES[random.below(PIECES.len())];
            drop(bytes.splice(at..at + random.below(2), piece.iter().copied()));
        }
    }
}

/// One request with one to four things done to it: to all of it, or to its body, whose length is then told as it is.
fn mutated(seeds: &[Vec<u8>], random: &mut Random) -> Vec<u8> {
    let seed = &seeds[random.below(seeds.len())];
    let times = 1 + random.below(4);
    let head_ends = seed.windows(4).position(|w| w == b"\r\n\r\n").unwrap() + 4;
    let mut body = seed[head_ends..].to_vec();
    if body.is_empty() || random.below(3) == 0 {
        let mut whole = seed.clone();
        (0..times).for_each(|_| mutate(&mut whole, seeds, random));
        return whole;
    }
    let is_packed = body.starts_with(b"\x1f\x8b");
    // Half of what is packed is changed inside, so that it is still unpacked.
    if is_packed && random.below(2) == 0 {
        let mut inside = Vec::new();
        std::io::Read::read_to_end(&mut flate2::read::GzDecoder::new(&body[..]), &mut inside)
            .unwrap();
        (0..times).for_each(|_| mutate(&mut inside, seeds, random));
        body = gzip(&inside);
    } else {
        (0..times).for_each(|_| mutate(&mut body, seeds, random));
    }
    let head = std::str::from_utf8(&seed[..head_ends - 2]).unwrap();
    let mut sent: Vec<u8> = Vec::new();
    for line in head.split_inclusive("\r\n") {
        if !line.starts_with("Content-Length") {
            sent.extend_from_slice(line.as_bytes());
        }
    }
    if random.below(4) == 0 {
        sent.extend_from_slice(b"Transfer-Encoding: chunked\r\n\r\n");
        for part in body.chunks(1 + random.below(500)) {
            sent.extend_from_slice(format!("{:x}\r\n", part.len()).as_bytes());
            sent.extend_from_slice(part);
            sent.extend_from_slice(b"\r\n");
        }
        sent.extend_from_slice(b"0\r\n\r\n");
    } else {
        sent.extend_from_slice(format!("Content-Length: {}\r\n\r\n", body.len()).as_bytes());
        sent.extend_from_slice(&body);
    }
    sent
}

fn number(name: &str, otherwise: usize) -> usize {
    std::env::var(name).ok().map_or(otherwise, |text| text.parse().unwrap())
}

#[test]
fn ten_thousand_mutated_requests_panic_nowhere_and_fail_nothing() {
    let (count, seed) = (number("MUTATIONS", 10_000), number("MUTATION_SEED", 1));
    let server = Server::start_with(&[], SETTINGS, &[]);
    let (seeds, to) = (seeds(), address(&server));
    // As they are they are answered, none by an error of the server.
    for sent in &seeds {
        let came = exchange(&to, sent);
        let first = String::from_utf8_lossy(&sent[..60.min(sent.len())]).into_owned();
        assert!(
            matches!(statuses(&came)[..], [200..=399 | 401 | 403]),
            "{first}: {:?}",
            statuses(&came)
        );
    }
    let before = resident(&server);
    let next = AtomicUsize::new(0);
    let largest = AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, Ordering::Relaxed);
                    if number >= count {
                        break;
                    }
                    // Each follows from its number alone, so that one that does harm can be sent again.
                    let mut random = Random((seed as u64) << 32 | number as u64);
                    let sent = mutated(&seeds, &mut random);
                    let came = exchange(&to, &sent);
                    let failed = statuses(&came).into_iter().find(|status| *status >= 500);
                    assert_eq!(failed, None, "{number}: {:?}", String::from_utf8_lossy(&sent));
                    if number.is_multiple_of(256) {
                        largest.fetch_max(
                            usize::try_from(resident(&server)).unwrap(),
                            Ordering::Relaxed,
                        );
                    }
                }
            });
        }
    });
    assert_well(&server);
    assert_serves(&server, "after_all_that");
    let grown = largest.into_inner().saturating_sub(usize::try_from(before).unwrap());
    assert!(grown < 256 << 20, "{grown} bytes more than the {before} before");
    // What was taken could be folded, all of it.
    let letters = server.api("/api/v1/dead-letters").json();
    assert_eq!(letters["dead_letters"].as_array().map(Vec::len), Some(0), "{letters}");
}
