//! Consent strings that were never seen: the IAB's own encoders make them of choices drawn by chance, and the listener
//! records, and tells of, whom the IAB's decoders say that it may.

use serde_json::Value;
use serde_json::json;
use std::path::Path;
use std::process::Command;

use super::harness::Server;
use super::harness::post;

const SITES: &str = "[[site]]\nkey = \"eu\"\nconsent = \"opt_in\"\ntcf_vendor = 7\n\
    [[site]]\nkey = \"us\"\nconsent = \"opt_out\"\ntcf_vendor = 7\n";
/// So many of each framework.
const COUNT: usize = 1_000;

struct Made {
    kind: String,
    text: String,
    may_record: bool,
    may_be_in_audiences: bool,
    sections: Vec<u64>,
}

fn made(seed: u32) -> Vec<Made> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let output = Command::new("node")
        .arg(root.join("src/tests/consent_strings.js"))
        .arg(root.join("target/npm"))
        .args([seed.to_string(), COUNT.to_string()])
        .output()
        .expect("node is missing: run `make tools`");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let lines = output.stdout.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    lines
        .map(|line| {
            let (kind, text, may_record, may_be_in_audiences, sections) =
                serde_json::from_slice(line).unwrap();
            Made { kind, text, may_record, may_be_in_audiences, sections }
        })
        .collect()
}

#[test]
fn strings_never_seen_allow_what_the_iabs_libraries_say() {
    let server = Server::start_with(&[("seen", "rule = 'did page_view in 1h'\n")], SITES, &[]);
    let made = made(20_261_129);
    assert_eq!(made.len(), 2 * COUNT);
    let events = made.iter().enumerate().map(|(at, made)| {
        let (site, consent) = match &*made.kind {
            "tcf" => ("eu", json!({ "gdpr": 1, "tcf": made.text })),
            _ => ("us", json!({ "gpp": made.text, "gpp_sid": made.sections })),
        };
        json!({ "site": site, "event": "page_view", "ids": { "user_id": format!("u{at}") }, "consent": consent })
    });
    let events: Vec<Value> = events.collect();
    let mut recorded = 0;
    for (part, made) in events.chunks(500).zip(made.chunks(500)) {
        let answer = server.post_events(&Value::Array(part.to_vec())).json();
        let mut rejected = answer["rejected"].as_array().unwrap().iter().peekable();
        for (at, made) in made.iter().enumerate() {
            let why = rejected.next_if(|rejected| rejected["index"] == at);
            assert_eq!(why.is_none(), made.may_record, "{} {:?} {why:?}", made.text, made.sections);
            assert!(why.is_none_or(|why| why["code"] == "consent"), "{why:?}");
            recorded += u64::from(made.may_record);
        }
    }
    assert!((500..1_500).contains(&recorded), "{recorded}");
    assert_eq!(server.count("did page_view in 1h"), recorded);

    let bearer = super::lookup::token(&server, "lookup");
    let url = format!("{}/v1/audiences", server.collect());
    let ids: Vec<Value> =
        (0..made.len()).map(|at| json!({ "user_id": format!("u{at}") })).collect();
    let told = || -> Vec<bool> {
        let mut told = Vec::new();
        for ids in ids.chunks(1_000) {
            let body = json!({ "ids": ids, "format": "ids" }).to_string();
            let answer = post(&url, &body, &[("Authorization", &bearer)]).json();
            let results = answer["results"].as_array().unwrap().iter();
            told.extend(
                results.map(|audiences| audiences.as_array().is_some_and(|a| !a.is_empty())),
            );
        }
        told
    };
    let expected = made.iter().filter(|made| made.may_be_in_audiences).count();
    server
        .until("the audience is whole", || told().iter().filter(|told| **told).count() >= expected);
    for (made, told) in made.iter().zip(told()) {
        assert_eq!(told, made.may_be_in_audiences, "{} {:?}", made.text, made.sections);
    }
}
