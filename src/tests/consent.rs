//! Consent from outside: given, refused and withdrawn, and what the disk then holds.

use serde_json::Value;
use serde_json::json;
use std::fs;
use std::path::Path;

use super::harness::Answer;
use super::harness::Server;
use super::harness::get;

/// Strings of June 2026, for vendors 7 and 755 of which both were disclosed: all purposes, none, and 1 and 7.
pub(super) const ALL: &str = "CQlH_MAQlH_MAAKABCENADFgAP_gAAAAAAqIF5wAgADgLzAAAAA.IF5wAgADgLz";
pub(super) const NONE: &str = "CQlH_MAQlH_MAAKABCENADFgAAAAAAAAAAqIF5wAgADgLzAAAAA.IF5wAgADgLz";
/// No audiences.
const MEASURING: &str = "CQlH_MAQlH_MAAKABCENADFgAIIAAAAAAAqIF5wAgADgLzAAAAA.IF5wAgADgLz";
/// The first of them without vendor 755.
const OURS_ALONE: &str = "CQlH_MAQlH_MAAKABCENADFgAP_gAAAAAAqIADwAQADgAAAA.IADwAQADg";
/// The first of them as section 2.
const GPP: &str = "DBABM~CQlH_MAQlH_MAAKABCENADFgAP_gAAAAAAqIF5wAgADgLzAAAAA.IF5wAgADgLz";
/// A section of the United States that is no opt-out, and one that is.
const US: &str = "DBABLA~BVQqAAAAAgA.QA";
const US_OPTED_OUT: &str = "DBABLA~BVQVAAAAAgA.QA";

const SITES: &str = "[collect]\ntrusted_proxies = [\"127.0.0.1\"]\n\
    [[site]]\nkey = \"shop\"\nconsent = \"opt_in\"\ntcf_vendor = 7\norigins = [\"https://shop.example\"]\n\
    [[site]]\nkey = \"us\"\nconsent = \"opt_out\"\ntcf_vendor = 7\norigins = [\"https://us.example\"]\n";
pub(super) const DESTINATION: &str = "[[destination]]\nname = \"files\"\nkind = \"file\"\npath = \"pushed\"\n\
                           format = \"csv\"\nevery = \"1h\"\n";
pub(super) const SEGMENT: &str = "rule = 'did page_view in 1h'\nmin_size = 1\n\
                       [[activate]]\ndestination = \"files\"\n";

fn start() -> Server {
    start_with(DESTINATION)
}

fn start_with(destinations: &str) -> Server {
    let mut server = Server::start_with(&[("readers", SEGMENT)], SITES, &[]);
    assert!(server.stop());
    fs::write(server.folder().join("destinations.toml"), destinations).unwrap();
    server.run();
    server
}

/// A hit of a browser behind a proxy.
fn hit(server: &Server, query: &str, address: &str, cookie: &str) -> Answer {
    let url = format!("{}/pixel.gif?{query}", server.collect());
    let answer = get(&url, &[("X-Forwarded-For", address), ("Cookie", cookie)]);
    assert_eq!(answer.status, 200);
    assert_eq!(answer.headers["content-type"], "image/gif");
    answer
}

/// The pair of the cookie that an answer sets, as a browser sends it back.
fn cookie(answer: &Answer) -> Option<String> {
    let header = answer.headers.get("set-cookie")?.to_str().unwrap();
    Some(header.split(';').next().unwrap().to_owned())
}

/// The files under a folder that hold a text.
pub(super) fn holding(folder: &Path, text: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            found.extend(holding(&path, text));
        } else if let Ok(bytes) = fs::read(&path)
            && bytes.windows(text.len()).any(|window| window == text.as_bytes())
        {
            found.push(path.display().to_string());
        }
    }
    found
}

fn refusals(server: &Server, signal: &str) -> f64 {
    server.metric(&format!("throng_collect_refusals_total{{signal=\"{signal}\"}}"))
}

#[test]
fn of_a_refused_hit_nothing_is_written() {
    let server = start();
    let given = hit(
        &server,
        &format!("s=shop&gdpr=1&gdpr_consent={ALL}&u=https://shop.example/given-4f1c"),
        "203.0.113.10",
        "",
    );
    let given = cookie(&given).unwrap();
    assert!(!holding(server.data(), "given-4f1c").is_empty());
    assert!(!holding(server.data(), &given["throng=".len()..][..32]).is_empty());

    let sent = "throng=0123456789abcdef0123456789abcdef.0123456789abcdef";
    let mut refused = 0;
    for (query, signal) in [
        (format!("s=shop&gdpr=1&gdpr_consent={NONE}"), "gdpr"),
        ("s=shop&gdpr=1".to_owned(), "gdpr"),
        (format!("s=shop&gdpr=1&gdpr_consent={}", &ALL[..40]), "gdpr"),
        (format!("s=us&gdpr=1&gdpr_consent={NONE}"), "gdpr"),
        (format!("s=us&gpp_sid=7&gpp={US_OPTED_OUT}"), "gpp"),
        (format!("s=us&gpp_sid=8&gpp={US}"), "gpp"),
        (format!("s=shop&gpp_sid=7&gpp={US}"), "silence"),
        ("s=shop".to_owned(), "silence"),
        ("s=us&us_privacy=1YYN".to_owned(), "us_privacy"),
    ] {
        let before = refusals(&server, signal);
        let query = format!("{query}&u=https://shop.example/refused-9e2d&id.user_id=nobody-77aa");
        let answer = hit(&server, &query, "203.0.113.99", sent);
        assert_eq!(cookie(&answer), None, "{query}");
        assert_eq!(refusals(&server, signal), before + 1.0, "{query}");
        refused += 1;
    }
    assert_eq!(refused, 9);
    // What is folded since is on disk, and nothing of those is.
    assert_eq!(server.count("did page_view in 1h"), 1);
    let folders = [server.data(), server.folder()];
    for text in ["refused-9e2d", "nobody-77aa", "0123456789abcdef", "203.0.113"] {
        for folder in folders {
            assert_eq!(holding(folder, text), [""; 0], "{text}");
        }
    }
}

#[test]
fn what_was_consented_to_counts_and_what_is_withdrawn_is_taken_back() {
    let server = start();
    let give = format!("s=shop&gdpr=1&gdpr_consent={ALL}");
    let by_gpp = format!("s=shop&gpp_sid=2&gpp={GPP}");
    let us = format!("s=us&gpp_sid=7&gpp={US}");
    let cookies: Vec<String> = [&give, &by_gpp, &us]
        .into_iter()
        .map(|query| cookie(&hit(&server, query, "203.0.113.10", "")).unwrap())
        .collect();
    let event = json!({ "site": "shop", "event": "page_view", "ids": { "user_id": "ada" },
                        "consent": { "tcf": ALL } });
    assert_eq!(server.post_events(&event).json()["accepted"], 1);
    server.until("all are held", || server.push("files")["held"] == 4);

    let withdrawn = [
        format!("s=shop&gdpr=1&gdpr_consent={NONE}"),
        format!("s=shop&gpp_sid=2&gpp={GPP}&gdpr=1&gdpr_consent={NONE}"),
        format!("s=us&gpp_sid=7&gpp={US_OPTED_OUT}"),
    ];
    for (query, pair) in withdrawn.iter().zip(&cookies) {
        let answer = hit(&server, query, "203.0.113.10", pair);
        let header = answer.headers["set-cookie"].to_str().unwrap();
        assert!(header.starts_with("throng=; ") && header.contains("Max-Age=0"), "{header}");
    }
    server.until("they are taken back", || {
        let _ = server.throng(&["destination", "push", "files"]);
        let shown = server.push("files");
        shown["held"] == 1
    });
    // Rules still count who was there.
    assert_eq!(server.count("did page_view in 1h"), 4);

    // Whoever consents again is somebody new.
    let again = cookie(&hit(&server, &give, "203.0.113.10", "")).unwrap();
    assert!(!cookies.contains(&again));
    server.until("one more is held", || server.push("files")["held"] == 2);

    let refused = json!({ "site": "shop", "event": "page_view", "ids": { "user_id": "bob" },
                          "consent": { "tcf": NONE } });
    let answer = server.post_events(&refused).json();
    let message: &Value = &answer["rejected"][0]["message"];
    assert_eq!(message, "consent: refused by gdpr: the string does not allow us purpose 1");
}

#[test]
fn each_destination_gets_those_who_consented_to_it_and_loses_who_takes_that_back() {
    let second = DESTINATION.replace("files", "ads").replace("pushed", "ads");
    let segment = format!("{SEGMENT}[[activate]]\ndestination = \"ads\"\n");
    let mut server = start_with(&format!("{DESTINATION}{second}tcf_vendor = 755\n"));
    server.write_segment("readers", &segment);
    let said = |consent: &str| format!("s=shop&gdpr=1&gdpr_consent={consent}");
    let first = |consent: &str| cookie(&hit(&server, &said(consent), "203.0.113.1", "")).unwrap();
    let (all, ours, measured) = (first(ALL), first(OURS_ALONE), first(MEASURING));
    assert_eq!(server.count("did page_view in 1h"), 3);
    let held = |server: &Server, destination: &str| {
        let _ = server.throng(&["destination", "push", destination]);
        super::push::held(
            &server.folder().join(destination.replace("files", "pushed")).join("readers"),
        )
        .into_iter()
        .map(|(_, value)| value)
        .collect::<Vec<_>>()
    };
    let ids = |pairs: &[&String]| {
        let mut ids: Vec<String> =
            pairs.iter().map(|pair| pair["throng=".len()..][..32].to_owned()).collect();
        ids.sort();
        ids
    };
    let settle = |server: &Server, files: &[&String], ads: &[&String]| {
        server.until("each has those it may have", || {
            held(server, "files") == ids(files) && held(server, "ads") == ids(ads)
        });
    };
    settle(&server, &[&all, &ours], &[&all]);
    // What was said is kept with the profile.
    server.kill();
    server.run();
    settle(&server, &[&all, &ours], &[&all]);
    for (consent, pair) in [(OURS_ALONE, &all), (MEASURING, &ours), (ALL, &measured)] {
        hit(&server, &said(consent), "203.0.113.1", pair);
    }
    settle(&server, &[&all, &measured], &[&measured]);
    let shown = server.ok(&["destination", "waterfall", "ads"]);
    assert!(shown.contains("-2 no consent for the destination"), "{shown}");
    assert_eq!(server.count("did page_view in 1h"), 3);
}
