//! Look-alikes from outside: who resembles the seed is known here beforehand.

use serde_json::Value;
use serde_json::json;

use crate::harness::Server;

const BUYERS: &str = "rule = 'did purchase'\n";
const LIKE: &str =
    "[lookalike]\nseed = 'buyers'\nreach = 0.2\nwithin = 'not profile.staff = true'\n";

/// Users from one number up to another: every buyer and one other in five come from Köln, and a few are staff.
fn users(numbers: std::ops::Range<u32>, buys: bool) -> Value {
    let events = numbers.flat_map(|user| {
        let from_koeln = buys || user.is_multiple_of(5);
        let city = if from_koeln { "Köln" } else { ["Bonn", "Wien"][user as usize % 2] };
        let attrs = json!({ "city": city, "age": 20 + user % 30, "staff": user % 50 == 1 });
        let event = |name: &str| {
            let ids = json!({ "user_id": format!("u{user}") });
            json!({ "site": "t", "event": name, "ids": ids, "attrs": attrs })
        };
        let names: &[&str] = if buys { &["view", "purchase"] } else { &["view"] };
        names.iter().map(|name| event(name)).collect::<Vec<_>>()
    });
    Value::Array(events.collect())
}

fn members(server: &Server, id: &str) -> Vec<String> {
    let text = server.ok(&["audience", "members", id, "--as", "user_id"]);
    let mut members: Vec<String> = text.lines().map(str::to_owned).collect();
    members.sort();
    members
}

fn shown(server: &Server) -> Value {
    serde_json::from_str(&server.ok(&["lookalike", "like", "--json"])).unwrap()
}

fn state(server: &Server, id: &str) -> String {
    server.api(&format!("/api/v1/audiences/{id}")).json()["state"].to_string()
}

#[test]
fn those_who_resemble_the_seed_are_found_kept_and_found_anew_when_asked() {
    let mut server = Server::start(&[("buyers", BUYERS), ("viewers", "rule = 'did view'\n")]);
    for chunk in [users(1000..1120, true), users(0..200, false), users(200..400, false)] {
        let answer = server.post_events(&chunk).json();
        assert_eq!(answer["rejected"], json!([]), "{answer}");
    }
    server.until("all are counted", || server.count("everyone") == 520);
    server.write_segment("like", LIKE);
    server.until("it is live", || state(&server, "like") == "\"live\"");

    // 400 others, 8 of them staff: of the 392 a fifth, 78.4, is taken; the 80 from Köln, none of them staff, are best.
    let like = members(&server, "like");
    assert_eq!(like.len(), 78);
    for member in &like {
        let user: u32 = member[1..].parse().unwrap();
        assert!(user < 400 && user.is_multiple_of(5), "{member}");
    }
    let told = shown(&server);
    let trained = &told["trained"];
    assert_eq!((&trained["candidates"], &trained["chosen"]), (&json!(392), &json!(78)), "{told}");
    assert!(trained["auc"].as_f64().unwrap() > 0.8, "{told}");
    let sizes: u64 = ["seed", "others"]
        .iter()
        .flat_map(|side| {
            ["learnt_from", "held_out"].map(|part| trained[*side][part].as_u64().unwrap())
        })
        .sum();
    assert_eq!(sizes, 520);
    let features = trained["features"].as_array().unwrap();
    let of = |text: &str| features.iter().find(|feature| feature["feature"] == text).unwrap();
    let koeln = of("profile.city = \"Köln\"");
    assert_eq!((&koeln["seed"], &koeln["asked_by_seed"]), (&json!(1.0), &json!(false)));
    assert!(koeln["weight"].as_f64().unwrap() > 1.5 && koeln["lift"].as_f64().unwrap() > 4.0);
    assert!(of("profile.city = \"Wien\"")["weight"].as_f64().unwrap() < 0.0);
    // The seed is who purchased: that says nothing more.
    assert_eq!(of("did purchase")["weight"], 0.0);
    assert_eq!(of("did purchase")["asked_by_seed"], true);
    let table = server.ok(&["lookalike", "like"]);
    assert!(table.contains("chosen     78 of 392 (20.00 %)") && table.contains("LIFT"), "{table}");

    let why = server.ok(&["why", "like", "user_id", &like[0]]);
    assert!(why.contains("is in like") && why.contains("profile.city = \"Köln\""), "{why}");
    let why = server.ok(&["why", "like", "user_id", "u1000"]);
    assert!(why.contains("is not in like"), "{why}");
    let past = server.throng(&["why", "like", "user_id", "u1000", "--at", "-1h"]);
    assert!(String::from_utf8_lossy(&past.stderr).contains("last training"), "{past:?}");
    let rule = server.throng(&["lookalike", "buyers"]);
    assert!(String::from_utf8_lossy(&rule.stderr).contains("no look-alike"), "{rule:?}");

    // Neither a restart nor more people change it.
    assert!(server.stop());
    server.run();
    assert_eq!(server.post_events(&users(400..500, false)).json()["rejected"], json!([]));
    server.until("all are counted", || server.count("everyone") == 620);
    server.ok(&["audience", "list"]);
    server.until("it is live", || state(&server, "like") == "\"live\"");
    assert_eq!(members(&server, "like"), like);
    assert_eq!(shown(&server)["trained"], *trained);

    // Trained on demand, and the same twice over.
    let again = server.ok(&["lookalike", "like", "--train", "--json"]);
    let again: Value = serde_json::from_str(&again).unwrap();
    let again = &again["trained"];
    assert_eq!((&again["candidates"], &again["chosen"]), (&json!(490), &json!(98)), "{again}");
    let more = members(&server, "like");
    assert_eq!(more.len(), 98);
    server.ok(&["lookalike", "like", "--train"]);
    assert_eq!(members(&server, "like"), more);

    // An edit is trained by itself; where there is nothing to learn from it says so.
    server.write_segment("like", &LIKE.replace("0.2", "0.1"));
    server.until("it is smaller", || members(&server, "like").len() == 49);
    server.write_segment("nobody", "rule = 'did nothing'\n");
    server.write_segment("none", "[lookalike]\nseed = 'nobody'\nreach = 1\n");
    server.until("it says why", || state(&server, "none").contains("its seed `nobody` is empty"));
    let train = server.throng(&["lookalike", "none", "--train"]);
    assert_eq!(train.status.code(), Some(1));
    assert!(String::from_utf8_lossy(&train.stderr).contains("is empty"), "{train:?}");
    // That is an answer, and none that another try changes.
    for asked in [
        ["audience", "members", "none", "--as", "cookie"].as_slice(),
        &["audience", "overlap", "like", "none"],
    ] {
        let refused = server.throng(asked);
        assert_eq!(refused.status.code(), Some(1), "{refused:?}");
        assert!(String::from_utf8_lossy(&refused.stderr).contains("is empty"), "{refused:?}");
    }
}
