//! Estimates: soon from a sample, then exact, and never far off.

use serde_json::Value;
use serde_json::json;

use crate::harness::Server;

/// A number of users, each with one event of the archive, and the newest with one of the journal's end as well.
const USERS: usize = 4_000;

fn lines(text: &str) -> Vec<Value> {
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

#[test]
fn an_estimate_comes_in_steps_and_ends_with_the_number_that_eval_tells() {
    let server = Server::start_with(&[], "[archive]\nfile_age = \"1s\"\n", &[]);
    let post = |users: std::ops::Range<usize>, kind: usize| {
        let users: Vec<usize> = users.collect();
        for some in users.chunks(500) {
            let events: Vec<Value> = some
                .iter()
                .map(|user| {
                    let ids = json!({ "user_id": format!("u{user}") });
                    let kind = if user % 10 < kind { "hat" } else { "shoes" };
                    json!({ "site": "t", "event": "view", "ids": ids, "props": { "kind": kind } })
                })
                .collect();
            assert_eq!(server.post_events(&json!(events)).json()["accepted"], some.len());
        }
    };
    post(0..USERS, 1);
    let pending = || server.metric("throng_archive_pending_bytes");
    server.until("the archive has all", || pending() == 0.0);
    post(USERS - 200..USERS, 9);

    let hats = "did view[kind = \"hat\"]";
    let shown = lines(&server.ok(&["estimate", hats, "--json"]));
    let (last, before) = shown.split_last().unwrap();
    // Every tenth, and of the last two hundred nine of ten.
    assert_eq!(
        (&last["count"], &last["exact"]),
        (&json!(USERS / 10 + 160), &json!(true)),
        "{last}"
    );
    assert_eq!((&last["low"], &last["high"]), (&last["count"], &last["count"]));
    assert_eq!((&last["sampled"], &last["of"]), (&json!(USERS), &json!(USERS)));
    for line in before.iter().filter(|line| line["count"].is_u64()) {
        let number = |field: &str| line[field].as_u64().unwrap();
        assert!(number("low") <= number("count") && number("count") <= number("high"), "{line}");
        assert!(line["exact"] == false && line["confidence"] == 0.95 && number("sampled") > 0);
        // Far beyond 95 %: a sample of one shard that misses by so much is none.
        assert!(number("high") > 200 && number("low") < 1_500, "{line}");
    }
    // What was read is kept, and the number alone is printed for people.
    assert_eq!(server.ok(&["estimate", hats]).trim(), (USERS / 10 + 160).to_string());
    assert_eq!(server.count(hats), USERS as u64 / 10 + 160);
    assert_eq!(server.ok(&["estimate", "everyone"]).trim(), USERS.to_string());
    assert_eq!(server.ok(&["estimate", "everyone", "--level", "device"]).trim(), "0");

    let wrong = server.throng(&["estimate", "did view and"]);
    assert_eq!(wrong.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&wrong.stderr).contains("expected"), "{wrong:?}");
    let asked = json!({ "rule": "everyone", "members": "user_id" }).to_string();
    let refused = server.api_send("POST", "/api/v1/estimate", &asked, "application/json");
    assert_eq!(refused.status, 400, "{refused:?}");
}
