//! `/v1/audiences`: who is told which audiences somebody is in, in which form, and who is not.

use serde_json::{Value, json};
use std::collections::BTreeSet;

use super::harness::{Answer, Server, get, post};
use super::nodes::Nodes;

const SHOP: &str = "https://shop.example";
const SEGMENTS: [(&str, &str); 4] = [
    ("buyers", "rule = 'did purchase'\ntags = [\"page\"]\ntaxonomy = { iab_audience = \"687\" }"),
    ("lookers", "rule = 'did page_view'\ntaxonomy = { iab_audience = \"Sports\" }"),
    ("twice", "rule = 'count page_view >= 2'\ntaxonomy = { iab_audience = \"607\" }"),
    ("nobody", "rule = 'did refund'\ntaxonomy = { iab_audience = \"1\" }"),
];

/// The cookie that a hit is answered with, as a browser sends it.
fn hit(server: &Server, event: &str, cookie: Option<&str>) -> String {
    let url = format!("{}/pixel.gif?s=t&e={event}", server.collect());
    let mut headers =
        vec![("Referer", SHOP), ("User-Agent", "Mozilla/5.0 (X11; Linux x86_64) Firefox/145.0")];
    headers.extend(cookie.map(|cookie| ("Cookie", cookie)));
    let answer = get(&url, &headers);
    match answer.headers.get("set-cookie") {
        Some(set) => set.to_str().unwrap().split(';').next().unwrap().to_owned(),
        None => cookie.unwrap().to_owned(),
    }
}

fn ask(server: &Server, query: &str, headers: &[(&str, &str)]) -> Answer {
    get(&format!("{}/v1/audiences{query}", server.collect()), headers)
}

fn of_browser(server: &Server, query: &str, cookie: &str) -> Answer {
    ask(server, query, &[("Origin", SHOP), ("Cookie", cookie)])
}

pub(super) fn token(server: &Server, scope: &str) -> String {
    let made = server.ok(&["token", "create", scope, "--scope", scope, "--json"]);
    let token = serde_json::from_str::<Value>(&made).unwrap()["token"].as_str().unwrap().to_owned();
    format!("Bearer {token}")
}

/// The taxonomy as it is published, not as the server reads it.
fn iab() -> BTreeSet<String> {
    let rows = include_str!("../rules/taxonomy/iab_audience_1.1.tsv").lines();
    rows.map(|row| row.split('\t').next().unwrap().to_owned()).collect()
}

/// Holds an answer against OpenRTB 2.6, `segtax` and the taxonomy: what is wrong with it.
fn lint(answer: &Value) -> Vec<String> {
    let (ids, mut wrong, mut taxonomies) = (iab(), Vec::new(), BTreeSet::new());
    let only = |object: &Value, keys: &[&str], wrong: &mut Vec<String>| {
        for key in object.as_object().map(|of| of.keys()).into_iter().flatten() {
            if !keys.contains(&key.as_str()) {
                wrong.push(format!("an unknown key {key}"));
            }
        }
    };
    only(answer, &["user"], &mut wrong);
    only(&answer["user"], &["data"], &mut wrong);
    let Some(data) = answer["user"]["data"].as_array() else { return vec!["no user.data".into()] };
    for one in data {
        only(one, &["id", "name", "ext", "segment"], &mut wrong);
        let name = one["name"].as_str().unwrap_or_default();
        if name.is_empty() || name.contains([':', '/', ' ']) {
            wrong.push(format!("the provider {name:?} is no domain"));
        }
        let Some(segtax) = one["ext"]["segtax"].as_u64() else {
            wrong.push("no segtax".into());
            continue;
        };
        if !taxonomies.insert(segtax) {
            wrong.push(format!("two objects of taxonomy {segtax}"));
        }
        let mut seen = BTreeSet::new();
        let segments = one["segment"].as_array().cloned().unwrap_or_default();
        if segments.is_empty() {
            wrong.push("data without a segment".into());
        }
        for segment in segments {
            only(&segment, &["id"], &mut wrong);
            let Some(id) = segment["id"].as_str() else {
                wrong.push(format!("an id that is no text: {segment}"));
                continue;
            };
            if segtax == 4 && !ids.contains(id) {
                wrong.push(format!("{id} is not in the taxonomy"));
            }
            if !seen.insert(id.to_owned()) {
                wrong.push(format!("{id} twice"));
            }
        }
    }
    wrong
}

#[test]
fn a_page_is_told_what_its_own_visitor_is_in_and_in_the_form_it_wants() {
    let server = Server::start(&SEGMENTS);
    let cookie = hit(&server, "purchase", None);
    hit(&server, "page_view", Some(&cookie));
    server.until("the visitor is in both", || {
        of_browser(&server, "", &cookie).json() == json!(["buyers", "lookers"])
    });
    hit(&server, "page_view", Some(&cookie));
    server.until("and in a third", || {
        of_browser(&server, "?format=ids&s=t", &cookie).json()
            == json!(["buyers", "lookers", "twice"])
    });
    let told = of_browser(&server, "?format=keywords", &cookie);
    assert_eq!(told.json(), json!({ "s": ["buyers", "lookers", "twice"], "t": [] }));
    let header = |name: &str| told.headers[name].to_str().unwrap().to_owned();
    assert_eq!(header("access-control-allow-origin"), SHOP);
    assert_eq!(header("access-control-allow-credentials"), "true");
    assert_eq!(
        (header("vary"), header("cache-control")),
        ("Origin".into(), "no-store, private".into())
    );
    assert!(header("throng-generation").parse::<u64>().unwrap() > 0);
    assert!(told.headers.get("set-cookie").is_none(), "nobody gets an id by asking");

    let ortb2 = of_browser(&server, "?format=ortb2", &cookie).json();
    assert_eq!(lint(&ortb2), Vec::<String>::new(), "{ortb2}");
    // What names a place that the taxonomy does not have is told to nobody there.
    let data = &ortb2["user"]["data"];
    assert_eq!(data[0]["segment"], json!([{ "id": "607" }, { "id": "687" }]));
    assert_eq!((&data[0]["name"], &data[1]), (&json!("127.0.0.1"), &Value::Null));

    // Another browser, one without a cookie, and one whose cookie was not made here.
    let forged = format!("{}0", &cookie[..cookie.len() - 1]);
    let forged =
        if forged == cookie { format!("{}1", &cookie[..cookie.len() - 1]) } else { forged };
    let stranger = hit(&server, "search", None);
    for other in [&forged, &stranger, "a=b"] {
        let told = of_browser(&server, "", other);
        assert_eq!((told.status, told.json()), (200, json!([])), "{other}");
        assert_eq!(
            of_browser(&server, "?format=ortb2", other).json(),
            json!({ "user": { "data": [] } })
        );
    }
    // A page that is none of the site's, and one that asks about somebody.
    let foreign = ask(&server, "", &[("Origin", "https://evil.example"), ("Cookie", &cookie)]);
    assert_eq!((foreign.status, &foreign.json()["error"]), (403, &json!("origin")));
    assert!(foreign.headers.get("access-control-allow-credentials").is_none());
    let (_, id) = cookie.split_once('=').unwrap();
    let named = of_browser(&server, &format!("?id.cookie={}", &id[..32]), &cookie);
    assert_eq!((named.status, &named.json()["error"]), (401, &json!("token")));
}

#[test]
fn who_says_no_is_told_nothing_and_neither_is_anybody_else() {
    let server = Server::start(&SEGMENTS);
    let cookie = hit(&server, "purchase", None);
    let may_ask = token(&server, "lookup");
    let (_, value) = cookie.split_once('=').unwrap();
    let of_server = format!("?id.cookie={}", &value[..32]);
    let asked = || ask(&server, &of_server, &[("Authorization", &may_ask)]).json();
    server.until("the visitor is in", || asked() == json!(["buyers"]));
    for says in [("Sec-GPC", "1"), ("Cookie", "throng-optout=1")] {
        let cookies = format!("{cookie}; {}", says.1);
        let cookies = if says.0 == "Cookie" { &cookies } else { &cookie };
        let mut headers = vec![("Origin", SHOP), ("Cookie", cookies)];
        headers.extend((says.0 != "Cookie").then_some(says));
        assert_eq!(ask(&server, "", &headers).json(), json!([]), "{says:?}");
    }
    // So far only this request said so; the server asks on behalf of an auction where the visitor says no.
    assert_eq!(asked(), json!(["buyers"]));
    let auction =
        ask(&server, &format!("{of_server}&us_privacy=1YYN"), &[("Authorization", &may_ask)]);
    assert_eq!(auction.json(), json!([]));
    // A hit that says so is remembered, and rules say what they said.
    let url = format!("{}/pixel.gif?s=t&e=page_view", server.collect());
    get(&url, &[("Referer", SHOP), ("Cookie", &cookie), ("Sec-GPC", "1")]);
    server.until("nobody is told", || asked() == json!([]));
    assert_eq!(server.count("did purchase"), 1);
    let answer = server.api(&format!("/api/v1/profiles/cookie/{}/audiences", &value[..32]));
    assert!(
        answer.json()["audiences"].as_array().unwrap().contains(&json!("buyers")),
        "{answer:?}"
    );
    let metrics = server.api("/metrics").body;
    assert!(
        metrics.contains(r#"throng_lookups_total{asker="page",told="withheld"} 2"#),
        "{metrics}"
    );
}

#[test]
fn a_server_asks_about_anybody_and_about_many_at_once() {
    let server = Server::start(&SEGMENTS);
    let events: Vec<Value> = (0..500)
        .map(|user| {
            let event = if user % 2 == 0 { "purchase" } else { "page_view" };
            json!({ "site": "t", "event": event, "ids": { "email": format!("u{user}@shop.example") } })
        })
        .collect();
    assert_eq!(server.post_events(&Value::Array(events)).json()["accepted"], 500);
    let may_ask = token(&server, "lookup");
    let url = format!("{}/v1/audiences", server.collect());
    let batch = |body: &Value| post(&url, &body.to_string(), &[("Authorization", &may_ask)]);
    // In an order of their own, each twice, and some whom nobody knows.
    let asked: Vec<Value> = (0..1_000)
        .rev()
        .map(|user| json!({ "email": format!(" U{}@shop.example", user % 600) }))
        .collect();
    let expected: Vec<Value> = (0..1_000)
        .rev()
        .map(|user| match user % 600 {
            user if user >= 500 => json!([]),
            user if user % 2 == 0 => json!(["buyers"]),
            _ => json!(["lookers"]),
        })
        .collect();
    server.until("all are in", || {
        batch(&json!({ "ids": asked })).json()["results"] == json!(expected)
    });
    // Two of one visitor are asked about together.
    let both = json!({ "ids": [{ "email": "u0@shop.example", "email_sha256": "no hash" }, {}], "format": "keywords" });
    assert_eq!(
        batch(&both).json()["results"],
        json!([{ "s": ["buyers"], "t": [] }, { "s": [], "t": [] }])
    );
    let ortb2 = batch(&json!({ "ids": [{ "email": "u2@shop.example" }], "format": "ortb2" }));
    assert_eq!(lint(&ortb2.json()["results"][0]), Vec::<String>::new());
    let two = ask(
        &server,
        "?id.email=u0%40shop.example&id.user_id=nobody",
        &[("Authorization", &may_ask)],
    );
    assert_eq!(two.json(), json!(["buyers"]));

    // What cannot be answered says why, and nothing of it is a surprise to the server.
    let metrics = token(&server, "metrics");
    let refused = |body: &str, token: &str| {
        let answer = post(&url, body, &[("Authorization", token)]);
        (answer.status, answer.json()["error"].as_str().unwrap().to_owned())
    };
    let many = json!({ "ids": vec![json!({}); 1_001] }).to_string();
    let ids: serde_json::Map<String, Value> =
        (0..65).map(|number| (format!("n{number}"), json!("x"))).collect();
    let deep = format!("{{\"ids\":{}", "[".repeat(100_000));
    for (body, status, error) in [
        (many.as_str(), 413, "too_many"),
        (&json!({ "ids": [ids] }).to_string(), 400, "ids"),
        (&deep, 400, "not_json"),
        ("{\"ids\":[{\"user_id\":7}]}", 400, "not_json"),
        ("{\"ids\":[],\"formt\":\"ids\"}", 400, "not_json"),
        ("{\"ids\":[],\"format\":\"xml\"}", 400, "format"),
        ("", 400, "not_json"),
        (&"x".repeat(600 << 10), 413, "too_large"),
    ] {
        let shown = &body[..body.len().min(40)];
        assert_eq!(refused(body, &may_ask), (status, error.to_owned()), "{shown}");
    }
    for token in [metrics.as_str(), "Bearer thr_", "Basic eA==", ""] {
        assert_eq!(refused(&both.to_string(), token), (401, "token".to_owned()));
    }
    for (query, status, error) in [
        ("?format=xml".to_owned(), 400, "format"),
        ("?id.user_id=%00".to_owned(), 400, "ids"),
        ("".to_owned(), 400, "ids"),
        ("?id.user_id=1&s=nosuch".to_owned(), 403, "site"),
        (format!("?id.user_id={}", "x".repeat(9_000)), 414, "too_large"),
    ] {
        let answer = ask(&server, &query, &[("Authorization", &may_ask)]);
        let told = (answer.status, answer.json()["error"].as_str().unwrap().to_owned());
        assert_eq!(told, (status, error.to_owned()), "{query}");
    }
    let answer =
        get(&format!("{}/api/v1/audiences", server.console()), &[("Authorization", &may_ask)]);
    assert_eq!(answer.status, 403, "{answer:?}");
}

#[test]
fn the_operator_says_what_pages_are_told() {
    let settings = "[lookup]\npage_tags = [\"page\"]\nprovider = \"dmp.example\"\nsegtax = 600\n";
    let server = Server::start_with(&SEGMENTS, settings, &[]);
    let cookie = hit(&server, "purchase", None);
    hit(&server, "page_view", Some(&cookie));
    server.until("the page is told of one", || {
        of_browser(&server, "", &cookie).json() == json!(["buyers"])
    });
    let may_ask = token(&server, "lookup");
    let (_, value) = cookie.split_once('=').unwrap();
    let query = format!("?id.cookie={}", &value[..32]);
    server.until("the server is told of both", || {
        ask(&server, &query, &[("Authorization", &may_ask)]).json() == json!(["buyers", "lookers"])
    });
    let ortb2 =
        ask(&server, &format!("{query}&format=ortb2"), &[("Authorization", &may_ask)]).json();
    assert_eq!(lint(&ortb2), Vec::<String>::new());
    let data = &ortb2["user"]["data"];
    assert_eq!((&data[0]["id"], &data[0]["ext"]["segtax"]), (&json!("dmp.example"), &json!(4)));
    assert_eq!(data[1]["ext"]["segtax"], json!(600));
    assert_eq!(data[1]["segment"], json!([{ "id": "buyers" }, { "id": "lookers" }]));

    let server = Server::start_with(&SEGMENTS, "[lookup]\npages = false\n", &[]);
    let answer = of_browser(&server, "", &cookie);
    assert_eq!((answer.status, &answer.json()["error"]), (403, &json!("pages")));
}

#[test]
fn a_node_that_holds_nobody_tells_what_others_hold() {
    let nodes = Nodes::new();
    let work = nodes.start("work", "");
    let collect = nodes.start("collect", "");
    let cookie = hit(&collect, "purchase", None);
    collect.until("it is told", || {
        let answer = of_browser(&collect, "", &cookie);
        answer.status == 200 && answer.json() == json!(["buyers"])
    });
    let labelled = "rule = 'did purchase'\ntaxonomy = { iab_audience = \"607\" }";
    work.write_segment("buyers", labelled);
    collect.until("labels are those of the node that leads", || {
        of_browser(&collect, "?format=ortb2", &cookie).json()["user"]["data"][0]["segment"]
            == json!([{ "id": "607" }])
    });
    let may_ask = token(&collect, "lookup");
    let url = format!("{}/v1/audiences", collect.collect());
    let ids: Vec<Value> = (0..200).map(|user| json!({ "user_id": format!("u{user}") })).collect();
    let events: Vec<Value> = (0..100)
        .map(|user| json!({ "site": "t", "event": "purchase", "ids": { "user_id": format!("u{user}") } }))
        .collect();
    assert_eq!(collect.post_events(&Value::Array(events)).json()["accepted"], 100);
    let expected: Vec<Value> =
        (0..200).map(|user| if user < 100 { json!(["buyers"]) } else { json!([]) }).collect();
    collect.until("many are told", || {
        let answer = post(&url, &json!({ "ids": ids }).to_string(), &[("Authorization", &may_ask)]);
        answer.status == 200 && answer.json()["results"] == json!(expected)
    });
    // Who says no has no list that is told, on whichever node.
    let url_of_pixel = format!("{}/pixel.gif?s=t&e=page_view", collect.collect());
    get(&url_of_pixel, &[("Referer", SHOP), ("Cookie", &cookie), ("Sec-GPC", "1")]);
    let (_, value) = cookie.split_once('=').unwrap();
    collect.until("nobody is told", || {
        let query = format!("?id.cookie={}", &value[..32]);
        ask(&collect, &query, &[("Authorization", &may_ask)]).json() == json!([])
    });
}
