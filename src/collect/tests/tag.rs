use flate2::read::GzDecoder;

use super::*;

const SCRIPT: &str = include_str!("../../../dashboards/tag/t.js");

#[test]
fn the_tag_is_kept_for_an_hour_and_then_asked_for_by_its_mark() {
    let listener = Listener::new();
    let plain = listener.get("/t.js", &[("Origin", "https://anybody.example")]);
    assert_eq!((plain.status, plain.text()), (200, SCRIPT));
    for (name, value) in [
        ("content-type", "text/javascript; charset=utf-8"),
        ("cache-control", "public, max-age=3600"),
        ("access-control-allow-origin", "*"),
        ("cross-origin-resource-policy", "cross-origin"),
        ("x-content-type-options", "nosniff"),
        ("vary", "Accept-Encoding"),
    ] {
        assert_eq!(plain.header(name), Some(value), "{name}");
    }
    assert_eq!(plain.cookies().len(), 0);
    let mark = plain.header("etag").unwrap();

    for known in [mark, &format!("\"other\", W/{mark}"), "*"] {
        let answer = listener.get("/t.js", &[("If-None-Match", known)]);
        assert_eq!((answer.status, &*answer.body), (304, &b""[..]), "{known}");
        assert_eq!(answer.header("etag"), Some(mark));
        assert_eq!(answer.header("cache-control"), Some("public, max-age=3600"));
    }
    let answer = listener.get("/t.js", &[("If-None-Match", "\"other\"")]);
    assert_eq!((answer.status, answer.text()), (200, SCRIPT));
    assert_eq!(listener.post("/t.js", &[], "").status, 405);
}

#[test]
fn who_takes_gzip_gets_the_tag_so_under_another_mark() {
    let listener = Listener::new();
    let plain = listener.get("/t.js", &[("Accept-Encoding", "br, gzip;q=0")]);
    assert_eq!((plain.header("content-encoding"), plain.text()), (None, SCRIPT));
    let small = listener.get("/t.js", &[("Accept-Encoding", "deflate, GZIP;q=0.5, br")]);
    assert_eq!(small.header("content-encoding"), Some("gzip"));
    let mut text = String::new();
    GzDecoder::new(&*small.body).read_to_string(&mut text).unwrap();
    assert_eq!(text, SCRIPT);
    let mark = small.header("etag").unwrap();
    assert_ne!(Some(mark), plain.header("etag"));
    let known = [("Accept-Encoding", "gzip"), ("If-None-Match", mark)];
    assert_eq!(listener.get("/t.js", &known).status, 304);
}

#[test]
fn a_notice_without_a_name_withdraws_and_is_never_an_event() {
    let listener = Listener::new();
    let notice =
        |site: &str, consent: &str| format!("[{{\"site\":\"{site}\",\"consent\":{consent}}}]");
    let code = |answer: &Answer| {
        let told: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
        assert_eq!(told["accepted"], 0);
        told["rejected"][0]["code"].as_str().unwrap().to_owned()
    };
    let pair = listener.cookie();
    let before = listener.events().len();
    let origin = ("Origin", "http://localhost:3000");
    let refused =
        [("{\"us_privacy\":\"1-Y-\"}", "us_privacy"), ("{\"gdpr\":1,\"tcf\":\"\"}", "gdpr")];
    for (consent, signal) in refused {
        let headers = [origin, ("Cookie", pair.as_str())];
        let answer = listener.post("/v1/events", &headers, notice("demo", consent));
        assert_eq!(code(&answer), "consent");
        assert_eq!(answer.cookies().len(), 1);
        assert!(answer.cookies()[0].starts_with("throng=; Path=/; Max-Age=0"));
        assert_eq!(listener.refusals(signal), 1);
    }
    let id = pair["throng=".len()..][..32].to_owned();
    assert_eq!(listener.choices(), [(id.clone(), true), (id, true)]);

    // Where nobody is asked, or it is no refusal, nothing comes of it.
    let open = ("Origin", "https://open.example");
    for (origin, site, consent) in [(open, "open", refused[0].0), (origin, "demo", "{\"gdpr\":0}")]
    {
        let answer = listener.post("/v1/events", &[origin], notice(site, consent));
        assert_eq!((code(&answer).as_str(), answer.cookies().len()), ("event_name", 0), "{site}");
    }
    assert_eq!((listener.events().len(), listener.choices().len()), (before, 2));
}
