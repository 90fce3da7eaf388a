use super::*;
use crate::consent::tests::encode::Eu;
use crate::consent::tests::encode::Form;
use crate::consent::tests::encode::gpp;
use crate::model::Consent;
use crate::model::Purposes;

const ALL: &str = "1,2,3,4,5,6,7,8,9,10,11";

/// A listener whose sites are vendor 7.
fn listener() -> Listener {
    Listener::with(|config| {
        config.sites.iter_mut().for_each(|site| site.tcf_vendor = Some(7));
    })
}

fn purposes(list: &str) -> Purposes {
    list.split(',').filter_map(|purpose| purpose.parse().ok()).collect()
}

/// A string that consents to purposes for vendors 7 and 755.
fn tcf(list: &str) -> String {
    Eu { consents: purposes(list), ..Eu::default() }.text()
}

/// What is allowed by such a string, whose other vendor is a destination's.
fn consent(list: &str) -> Box<Consent> {
    let mut consent = Box::new(Consent { purposes: purposes(list), vendors: Vec::new() });
    // A destination is one for audiences.
    consent.vendors.extend(consent.allows_audiences().then_some(755));
    consent
}

#[test]
fn a_hit_that_its_visitor_consented_to_is_recorded_with_what_was_allowed() {
    let listener = listener();
    let (all, some) = (tcf(ALL), tcf("1,3,4"));
    let section = gpp(&[(2, &some), (7, "BVQqAAAAAgA")]);
    for (site, query, allowed) in [
        ("demo", format!("gdpr=1&gdpr_consent={all}"), Some(ALL)),
        ("strict", format!("gdpr=1&gdpr_consent={all}"), Some(ALL)),
        ("strict", format!("gdpr_consent={some}"), Some("1,3,4")),
        ("strict", format!("gpp_sid=2&gpp={section}"), Some("1,3,4")),
        ("strict", format!("gpp_sid=2,7&gpp={section}&gdpr=0"), Some("1,3,4")),
        ("demo", format!("gdpr=1&gdpr_consent={all}&gpp_sid=2&gpp={section}"), Some("1,3,4")),
        ("demo", format!("gpp_sid=7&gpp={section}"), None),
        ("strict", format!("gdpr_consent={}", tcf("1,7")), Some("1,7")),
        ("demo", "gdpr=0&gdpr_consent=what&gpp=what".to_owned(), None),
        // Where no consent is needed none is read.
        ("open", format!("gdpr=1&gdpr_consent={all}"), None),
    ] {
        let before = listener.events().len();
        let answer = listener.get(&format!("/pixel.gif?s={site}&{query}"), &[]);
        assert_gif(&answer);
        assert_eq!(answer.cookies().len(), 1, "{query}");
        let event = listener.events().remove(before);
        let expected = allowed.map(consent);
        assert_eq!(event.consent, expected, "{query}");
    }
    assert_eq!((listener.refusals("gdpr"), listener.refusals("gpp")), (0, 0));
}

#[test]
fn a_string_that_does_not_allow_it_leaves_nothing_of_the_hit() {
    let strings = [
        tcf("3,4"),
        tcf(""),
        Eu { vendors: (vec![755], Form::Bits), ..Eu::default() }.text(),
        Eu { restrictions: vec![(1, 0, vec![7])], ..Eu::default() }.text(),
        Eu { policy: 3, ..Eu::default() }.text(),
        Eu { is_service_specific: false, ..Eu::default() }.text(),
        Eu { disclosed: None, ..Eu::default() }.text(),
        tcf(ALL)[..30].to_owned(),
        "A".repeat(5_000),
    ];
    let listener = listener();
    for string in &strings {
        for site in ["demo", "strict"] {
            let query = format!("s={site}&id.user_id=1&gdpr=1&gdpr_consent={string}");
            let answer = listener.get(&format!("/pixel.gif?{query}"), &[]);
            assert_gif(&answer);
            assert!(answer.cookies().is_empty(), "{string}");
        }
    }
    assert!(listener.records().is_empty());
    assert_eq!(listener.refusals("gdpr"), 2 * strings.len() as u64);
    assert_eq!(listener.outcomes("pixel"), [("refused_consent", 2 * strings.len() as u64)]);
}

#[test]
fn a_consent_that_is_withdrawn_marks_the_browser_and_takes_its_cookie() {
    let listener = listener();
    let given = format!("/pixel.gif?s=strict&gdpr=1&gdpr_consent={}", tcf(ALL));
    let withdrawn = format!("/pixel.gif?s=strict&gdpr=1&gdpr_consent={}", tcf(""));
    let pair = listener.get(&given, &[]).cookies()[0].split(';').next().unwrap().to_owned();
    let answer = listener.get(&withdrawn, &[("Cookie", &pair)]);
    assert_eq!(answer.cookies(), ["throng=; Path=/; Max-Age=0; HttpOnly; SameSite=Lax"]);
    assert_eq!(listener.choices(), [(pair["throng=".len()..][..32].to_owned(), true)]);
    // Whoever consents anew is somebody new.
    let again = listener.get(&given, &[]);
    assert_ne!(again.cookies()[0].split(';').next().unwrap(), pair);
    assert_eq!(listener.events().len(), 2);
}

#[test]
fn who_refuses_by_one_event_of_a_request_gets_no_id_by_another() {
    let listener = listener();
    let page = ("Origin", "http://localhost:1");
    let (event, with_id) =
        (r#"{"site":"demo","event":"e"}"#, r#"{"site":"demo","event":"e","ids":{"user_id":"1"}}"#);
    let refuses = |consent: &str| event.replace('}', &format!(r#","consent":{consent}}}"#));
    for consent in [
        r#"{"withdrawn":true}"#.to_owned(),
        r#"{"us_privacy":"1YYN"}"#.to_owned(),
        format!(r#"{{"tcf":"{}"}}"#, tcf("")),
    ] {
        for body in [
            format!("[{event},{with_id},{}]", refuses(&consent)),
            format!("[{},{with_id},{event}]", refuses(&consent)),
        ] {
            let before = listener.events().len();
            let answer = listener.post("/v1/events", &[page], body);
            assert_eq!(answer.cookies(), [""; 0], "{consent}");
            assert!(answer.text().starts_with(r#"{"accepted":1,"#), "{}", answer.text());
            assert!(answer.text().contains("of another event"), "{}", answer.text());
            let ids = listener.events().into_iter().skip(before).flat_map(|event| event.ids);
            let ids: Vec<_> = ids.map(|id| id.namespace.as_str().to_owned()).collect();
            assert_eq!(ids, ["user_id"], "{consent}");
        }
    }
    assert_eq!(
        listener.outcomes("events"),
        [("accepted", 6), ("refused_consent", 8), ("opted_out", 4)]
    );
    assert_eq!(listener.refusals("opt_out"), 4);
    // Who is silent first and then consents is somebody.
    let silent = r#"{"site":"strict","event":"e"}"#;
    let given = format!(r#"{{"site":"strict","event":"e","consent":{{"tcf":"{}"}}}}"#, tcf(ALL));
    let strict = ("Origin", "https://strict.example");
    let answer = listener.post("/v1/events", &[strict], format!("[{silent},{given}]"));
    assert_eq!(answer.cookies().len(), 1);
    // Snowplow's way of saying so.
    let withdrawn = r#"{\"schema\":\"iglu:a/unstruct_event/c/1\",\"data\":{\"schema\":\"iglu:a/consent_withdrawn/c/1\",\"data\":{\"all\":true}}}"#;
    let body = format!(
        r#"{{"data":[{{"e":"pv","aid":"demo"}},{{"e":"ue","aid":"demo","ue_pr":"{withdrawn}"}}]}}"#
    );
    let answer = listener.post("/com.snowplowanalytics.snowplow/tp2", &[page], body);
    assert_eq!((answer.status, answer.cookies()), (200, vec![]));
    assert_eq!(listener.outcomes("snowplow"), [("opted_out", 2)]);
}

#[test]
fn who_refuses_by_what_cannot_be_mapped_refuses() {
    let snowplow = |event: &str| format!(r#"{{"data":[{{"e":"pv","aid":"demo"}},{event}]}}"#);
    let described = |name: &str, data: &str| {
        let event = format!(r#"{{"schema":"iglu:a/{name}/c/1","data":{data}}}"#);
        event.replace('"', "\\\"")
    };
    let withdrawn = format!(
        r#"{{\"schema\":\"iglu:a/unstruct_event/c/1\",\"data\":{}}}"#,
        described("consent_withdrawn", r#"{"all":true}"#)
    );
    let refusing = described("consent", r#"{"us_privacy":"1YYN"}"#);
    let entities =
        format!(r#"{{\"schema\":\"iglu:a/contexts/c/1\",\"data\":[7,{refusing},{{}}]}}"#);
    let segment = |message: &str| {
        let page = r#"{"type":"page"}"#;
        let context = r#""context":{"consent":{"us_privacy":"1YYN"}}"#;
        format!(r#"{{"writeKey":"demo","batch":[{page},{{{message},{context}}}]}}"#)
    };
    let page = ("Origin", "http://localhost:1");
    for (path, body) in [
        (
            "snowplow",
            snowplow(&format!(r#"{{"e":"ue","aid":"demo","ue_pr":"{withdrawn}","cx":"?"}}"#)),
        ),
        ("snowplow", snowplow(&format!(r#"{{"e":"pv","aid":"demo","co":"{entities}"}}"#))),
        (
            "snowplow",
            snowplow(&format!(r#"{{"e":"ue","aid":"demo","ue_px":"?","co":"{entities}"}}"#)),
        ),
        ("segment", segment(r#""type":"track","event":"e","properties":7"#)),
        ("segment", segment(r#""type":"merge""#)),
        ("segment", segment(r#""type":"identify","traits":[]"#)),
    ] {
        let listener = Listener::new();
        let cookie = listener.get("/pixel.gif?s=demo", &[]).cookies()[0].to_owned();
        let pair = cookie.split(';').next().unwrap();
        let at = match path {
            "segment" => "/v1/batch",
            _ => "/com.snowplowanalytics.snowplow/tp2",
        };
        let answer = listener.post(at, &[page, ("Cookie", pair)], &body);
        assert_eq!(answer.status, 200);
        assert!(answer.cookies()[0].starts_with("throng=; "), "{body}: {:?}", answer.cookies());
        let browser = pair["throng=".len()..][..32].to_owned();
        assert_eq!(listener.choices(), [(browser, true)], "{body}");
        // Nor does its neighbour make somebody of a browser that has no cookie.
        let before = listener.events().len();
        assert_eq!(listener.post(at, &[page], &body).cookies(), [""; 0], "{body}");
        assert_eq!(listener.events().len(), before, "{body}");
    }
    // Who refuses nothing hears what is wrong.
    let listener = Listener::new();
    let wrong = r#"{"writeKey":"demo","type":"merge","userId":"1"}"#;
    let answer = listener.post("/v1/batch", &[page], wrong);
    assert!(answer.text().contains("type: expected identify"), "{}", answer.text());
    assert_eq!(listener.outcomes("segment"), [("invalid", 1)]);
}

#[test]
fn a_site_that_does_not_say_which_vendor_it_is_opts_nobody_out() {
    let listener = Listener::new();
    let pair =
        listener.get("/pixel.gif?s=demo", &[]).cookies()[0].split(';').next().unwrap().to_owned();
    let query = format!("s=demo&gdpr=1&gdpr_consent={}", tcf(ALL));
    let answer = listener.get(&format!("/pixel.gif?{query}"), &[("Cookie", &pair)]);
    assert_eq!(answer.cookies(), [""; 0]);
    assert_eq!((listener.refusals("gdpr"), listener.choices().len()), (1, 0));
}

#[test]
fn events_of_a_script_and_of_a_server_are_told_why_they_were_refused() {
    let listener = listener();
    let event = |consent: String| {
        format!(r#"{{"site":"strict","event":"e","ids":{{"user_id":"1"}},"consent":{consent}}}"#)
    };
    let section = gpp(&[(2, &tcf("1,3,4")), (6, "1YYN")]);
    let events = [
        event(format!(r#"{{"tcf":"{}"}}"#, tcf("1,3,4,9"))),
        event(format!(r#"{{"gpp":"{section}","gpp_sid":[2]}}"#)),
        event(format!(r#"{{"gpp":"{section}","gpp_sid":[2,6]}}"#)),
        event(format!(r#"{{"tcf":"{}"}}"#, tcf(""))),
        event(r#"{"gdpr":1}"#.to_owned()),
        event(r#"{"gpp":"DBAA","gpp_sid":[24]}"#.to_owned()),
        event("{}".to_owned()),
    ];
    let answer = listener.post("/v1/events", &[], format!("[{}]", events.join(",")));
    let answer: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!(answer["accepted"], 2);
    let rejected = answer["rejected"].as_array().unwrap();
    let messages: Vec<&str> = rejected.iter().map(|r| r["message"].as_str().unwrap()).collect();
    assert_eq!(
        messages,
        [
            "consent: refused by gpp: section 6 of the string is an opt-out",
            "consent: refused by gdpr: the string does not allow us purpose 1",
            "consent: refused by gdpr: it applies, but there is no string",
            "consent: refused by gpp: the string has no section 24 that can be read",
            "consent: refused by silence",
        ]
    );
    assert!(rejected.iter().all(|r| r["code"] == "consent"));
    let allowed: Vec<_> = listener.events().into_iter().map(|event| event.consent).collect();
    assert_eq!(allowed, [Some(consent("1,3,4,9")), Some(consent("1,3,4"))]);
}
