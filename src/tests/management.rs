//! The management API: what its document says is what it does, each call wants its scope, and changes are on record.

use serde_json::Value;
use serde_json::json;
use sha2::Digest;
use sha2::Sha256;
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::process::Command;

use super::harness::Server;
use super::harness::get;
use super::harness::send;

const LOOKERS: &str = "name = \"Lookers\"\nrule = \"did page_view in 30d\"\nmin_size = 1\n\n[[activate]]\ndestination = \"files\"\n";
const BUYERS: &str = "name = \"Buyers\"\nrule = \"did purchase in 30d\"\nmin_size = 1\n";

/// Every call, and the scope that it needs. Whoever adds a call says here who may.
const CALLS: &str = "
GET /livez -
GET /readyz -
GET /metrics metrics
GET /openapi.json any
GET /api/v1/segments read
GET /api/v1/segments/{id} read
PUT /api/v1/segments/{id} segments
DELETE /api/v1/segments/{id} segments
POST /api/v1/plan read
POST /api/v1/apply segments
GET /api/v1/audiences read
GET /api/v1/audiences/{id} read
GET /api/v1/audiences/{id}/members read
GET /api/v1/audiences/{id}/history read
GET /api/v1/audiences/{id}/lookalike read
POST /api/v1/audiences/{id}/lookalike segments
POST /api/v1/overlap read
GET /api/v1/costs read
POST /api/v1/check read
POST /api/v1/eval read
POST /api/v1/estimate read
POST /api/v1/explain read
GET /api/v1/profiles/{namespace}/{value} read
GET /api/v1/profiles/{namespace}/{value}/audiences read
GET /api/v1/profiles/{namespace}/{value}/why/{segment} read
GET /api/v1/schema read
POST /api/v1/privacy/access privacy
POST /api/v1/privacy/erase privacy
POST /api/v1/privacy/opt-out privacy
GET /api/v1/privacy/receipts privacy
GET /api/v1/privacy/receipts/{id} privacy
GET /api/v1/privacy/key privacy
GET /api/v1/quarantine read
POST /api/v1/quarantine/{namespace}/{value}/restore import
GET /api/v1/partners read
GET /api/v1/destinations read
GET /api/v1/destinations/{name} read
GET /api/v1/destinations/{name}/deliveries read
GET /api/v1/destinations/{name}/refused read
GET /api/v1/destinations/{name}/waterfall read
POST /api/v1/destinations/{name}/push destinations
POST /api/v1/destinations/{name}/test destinations
POST /api/v1/destinations/{name}/pause destinations
POST /api/v1/destinations/{name}/resume destinations
POST /api/v1/destinations/{name}/replay destinations
POST /api/v1/destinations/{name}/resync destinations
POST /api/v1/destinations/{name}/reseed destinations
GET /api/v1/import/events import
POST /api/v1/import/events import
GET /api/v1/dead-letters read
GET /api/v1/dead-letters/{number} read
DELETE /api/v1/dead-letters/{number} import
POST /api/v1/backup admin
GET /api/v1/store/size read
GET /api/v1/doctor read
GET /api/v1/nodes read
DELETE /api/v1/nodes/{node} admin
GET /api/v1/audit admin
GET /api/v1/audit/check admin
GET /api/v1/tokens admin
POST /api/v1/tokens admin
DELETE /api/v1/tokens/{name} admin
";

const SCOPES: [&str; 9] = [
    "operator",
    "read",
    "segments",
    "destinations",
    "import",
    "privacy",
    "admin",
    "metrics",
    "lookup",
];

fn shop() -> Server {
    let server = Server::start(&[("buyers", BUYERS)]);
    let mut server = with_destination(server);
    server.write_segment("lookers", LOOKERS);
    server.run();
    let event = |user: u32, event: &str| {
        json!({ "site": "t", "event": event, "ids": { "user_id": format!("u{user}") },
                "page": { "url": "https://shop.example/" } })
    };
    let events: Vec<Value> =
        (0..50).flat_map(|user| ["page_view", "purchase"].map(|name| event(user, name))).collect();
    server.accepts(&events);
    server.until("the audiences are there", || {
        server.api("/api/v1/audiences/lookers?").json()["members"] == 50
    });
    server
}

/// Stops it, and gives it a destination.
fn with_destination(mut server: Server) -> Server {
    assert!(server.stop());
    let out = server.folder().join("out");
    let text = format!(
        "[[destination]]\nname = \"files\"\nkind = \"file\"\npath = {out:?}\nevery = \"1h\"\n"
    );
    fs::write(server.folder().join("destinations.toml"), text).unwrap();
    server
}

fn calls() -> Vec<(&'static str, &'static str, &'static str)> {
    let call = |line: &'static str| {
        let mut words = line.split(' ');
        Some((words.next()?, words.next()?, words.next()?))
    };
    CALLS.lines().filter(|line| !line.is_empty()).map(|line| call(line).unwrap()).collect()
}

/// What a call of the document needs, in the words of the list.
fn need(operation: &Value) -> String {
    let security = operation["security"].as_array().unwrap();
    match security.first().map(|one| &one["token"]) {
        None => "-".to_owned(),
        Some(scopes) if scopes == &json!([]) => "any".to_owned(),
        Some(scopes) => scopes[0].as_str().unwrap().to_owned(),
    }
}

#[test]
fn the_document_has_every_call_and_no_other() {
    let server = Server::start(&[]);
    let document = server.api("/openapi.json").json();
    assert_eq!(document["openapi"], "3.1.0");
    let mut documented = BTreeSet::new();
    for (path, operations) in document["paths"].as_object().unwrap() {
        for (method, operation) in operations.as_object().unwrap() {
            documented.insert(format!("{} {path} {}", method.to_uppercase(), need(operation)));
            let summary = operation["summary"].as_str().unwrap();
            assert!(!summary.is_empty(), "{method} {path}");
        }
    }
    let listed = calls().into_iter().map(|(method, path, need)| format!("{method} {path} {need}"));
    assert_eq!(documented, listed.collect());
    // Each exists, and what has no parameters answers so whoever asks for another method.
    for (method, path, _) in calls() {
        let path = path.replace(['{', '}'], "x");
        let answer = server.api_send(method, &path, "", "text/plain");
        let is_nowhere = answer.status == 404 && answer.body.contains("no such call");
        assert!(!is_nowhere && answer.status != 405, "{method} {path}: {answer:?}");
        let answer = server.api_send("PATCH", &path, "", "text/plain");
        assert_eq!(answer.status, 405, "{path}: {answer:?}");
        assert!(answer.headers["allow"].to_str().unwrap().contains(method), "{path}");
    }
    assert_eq!(server.api("/api/v1/nothing").status, 404);
    // Nothing is routed beside the table but what nodes ask each other.
    let console = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/console");
    let mut routes = 0;
    let mut folders = vec![console.clone()];
    while let Some(folder) = folders.pop() {
        for path in fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                if path != console.join("api") {
                    folders.push(path);
                }
                continue;
            }
            let text = fs::read_to_string(&path).unwrap();
            routes += text.matches(".route(").count() + text.matches("web::scope(").count();
        }
    }
    assert_eq!(routes, 1, "a call belongs into src/console/api/table.rs");
}

#[test]
fn every_call_takes_the_tokens_with_its_scope_and_no_other() {
    let server = Server::start(&[]);
    let tokens: BTreeMap<&str, String> = SCOPES
        .map(|scope| {
            (scope, server.ok(&["token", "create", &format!("{scope}-1"), "--scope", scope]))
        })
        .into_iter()
        .collect();
    for (method, path, need) in calls() {
        let url = format!("{}{}", server.console(), path.replace(['{', '}'], "x"));
        for (scope, token) in &tokens {
            let bearer = format!("Bearer {}", token.trim());
            let headers = [("Authorization", &*bearer), ("Content-Type", "text/plain")];
            let status = send(method, &url, &headers, Vec::new()).status;
            // From this machine metrics are open.
            let may =
                ["-", "any", scope].contains(&need) || *scope == "operator" || path == "/metrics";
            assert_eq!(status != 403, may, "{scope} {method} {path}: {status}");
            assert_ne!(status, 401, "{scope} {method} {path}");
        }
        let status = send(method, &url, &[("Content-Type", "text/plain")], Vec::new()).status;
        let is_open = need == "-" || path == "/metrics";
        assert_eq!(status != 401, is_open, "{method} {path} without a token: {status}");
    }
}

#[test]
fn a_token_makes_none_that_may_more_and_none_that_has_expired() {
    let server = Server::start(&[]);
    let admin = server.ok(&["token", "create", "admin", "--scope", "admin", "--scope", "read"]);
    let bearer = format!("Bearer {}", admin.trim());
    let headers = [("Authorization", &*bearer), ("Content-Type", "application/json")];
    let url = format!("{}/api/v1/tokens", server.console());
    let make = |body: Value| send("POST", &url, &headers, body.to_string().into_bytes());
    assert_eq!(make(json!({ "name": "a", "scopes": ["read"] })).status, 200);
    for more in ["operator", "import", "metrics"] {
        let refused = make(json!({ "name": "b", "scopes": ["read", more] }));
        assert_eq!(refused.status, 403, "{refused:?}");
        assert!(refused.body.contains(more), "{refused:?}");
    }
    let past = json!({ "name": "b", "scopes": ["read"], "expires": "2020-01-01T00:00:00Z" });
    assert_eq!(make(past).status, 409);
    assert_eq!(make(json!({ "name": "b", "scopes": [] })).status, 400);
    let wrong = server.throng(&["token", "create", "c", "--expires", "soon"]);
    assert_eq!(wrong.status.code(), Some(2), "{wrong:?}");
    server.ok(&["token", "create", "brief", "--scope", "read", "--expires", "90d"]);
    let listed = server.ok(&["token", "list", "--json"]);
    let listed: Value = serde_json::from_str(&listed).unwrap();
    let of =
        |name: &str| listed.as_array().unwrap().iter().find(|one| one["name"] == name).unwrap();
    assert!(of("brief")["expires"].is_string() && of("brief")["last_used"].is_null(), "{listed}");
    assert!(of("admin")["last_used"].is_string(), "{listed}");
    // One that expires makes none that lasts longer, nor one that does not expire.
    let args = ["token", "create", "guest", "--scope", "admin", "--expires", "90d"];
    let bearer = format!("Bearer {}", server.ok(&args).trim());
    let headers = [("Authorization", &*bearer), ("Content-Type", "application/json")];
    let make = |expires: Option<&str>| {
        let body = json!({ "name": "d", "scopes": ["admin"], "expires": expires });
        send("POST", &url, &headers, body.to_string().into_bytes())
    };
    for longer in [None, Some("2999-01-01T00:00:00Z")] {
        let refused = make(longer);
        assert_eq!(refused.status, 403, "{refused:?}");
        assert!(refused.body.contains("lasts longer"), "{refused:?}");
    }
    let listed: Value = serde_json::from_str(&server.ok(&["token", "list", "--json"])).unwrap();
    let guest = listed.as_array().unwrap().iter().find(|one| one["name"] == "guest").unwrap();
    assert_eq!(make(guest["expires"].as_str()).status, 200);
}

fn sha256(text: &str) -> String {
    Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn audit(server: &Server) -> Vec<Value> {
    serde_json::from_str(&server.ok(&["audit", "list", "--json"])).unwrap()
}

#[test]
fn a_change_is_on_record_before_it_is_made_and_after() {
    let mut server = Server::start(&[]);
    let before = audit(&server).len();
    assert_eq!(server.api("/api/v1/segments").status, 200);
    let put = |text: &str| {
        server.api_send("PUT", "/api/v1/segments/buyers", text, "application/toml").status
    };
    assert_eq!((put(BUYERS), put("nonsense")), (201, 422));
    let records = audit(&server);
    let [first, second, third, fourth] = &records[before..] else { panic!("{records:?}") };
    let buyers = sha256(BUYERS);
    assert_eq!((&first["before"], &first["after"]), (&Value::Null, &Value::Null));
    assert_eq!((&second["before"], &second["after"]), (&Value::Null, &json!(buyers)));
    assert_eq!((&third["before"], &fourth["after"]), (&json!(buyers), &json!(buyers)));
    assert_eq!((&first["outcome"], &second["outcome"]), (&json!("begun"), &json!("201")));
    assert_eq!((&second["of"], &fourth["outcome"]), (&first["number"], &json!("422")));
    assert_eq!((&first["actor"], &first["address"]), (&json!("operator"), &json!("127.0.0.1")));
    assert_eq!(first["target"], "/api/v1/segments/buyers");
    // Pages follow each other.
    let page = server.api("/api/v1/audit?after=1&limit=2").json();
    assert_eq!(page["records"].as_array().unwrap()[..], records[1..3]);
    assert_eq!(page["next"], 3);
    // What cannot be written down is not done.
    let (seal, away) = (server.data().join("audit.seal"), server.data().join("away"));
    fs::rename(&seal, &away).unwrap();
    fs::create_dir(&seal).unwrap();
    let refused = server.api_send("DELETE", "/api/v1/segments/buyers", "", "text/plain");
    assert_eq!(refused.status, 503, "{refused:?}");
    assert!(refused.body.contains("nothing was changed"), "{refused:?}");
    assert_eq!(server.api("/api/v1/segments/buyers").status, 200);
    fs::remove_dir(&seal).unwrap();
    fs::rename(&away, &seal).unwrap();
    assert_eq!(server.api_send("DELETE", "/api/v1/segments/buyers", "", "text/plain").status, 204);
    assert!(server.ok(&["audit", "verify"]).starts_with("whole: "));
    // A start with the same settings is none, and one with others is.
    let starts =
        |server: &Server| audit(server).iter().filter(|one| one["action"] == "start").count();
    assert_eq!(starts(&server), 1);
    for (level, count) in [("5", 1), ("5", 2), ("7", 3)] {
        assert!(server.stop());
        if count > 1 {
            let settings = fs::read_to_string(server.folder().join("throng.toml")).unwrap();
            let (_, sites) = settings.split_once("[[site]]").unwrap();
            let settings = format!("[activate]\nmin_size = {level}\n[[site]]{sites}");
            fs::write(server.folder().join("throng.toml"), settings).unwrap();
        }
        server.run();
        assert_eq!(starts(&server), count);
    }
}

#[test]
fn a_record_that_was_touched_is_found() {
    let mut server = Server::start(&[]);
    for name in ["one", "two", "three"] {
        server.ok(&["token", "create", name, "--scope", "read"]);
    }
    assert!(server.stop());
    let file = server.data().join("audit/00000000000000000001.ndjson");
    let whole = fs::read_to_string(&file).unwrap();
    let verify = |server: &mut Server, text: &str| {
        fs::write(&file, text).unwrap();
        server.run();
        let output = server.throng(&["audit", "verify"]);
        assert!(server.stop());
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    assert_eq!(verify(&mut server, &whole).0, Some(0));
    let (code, said) = verify(&mut server, &whole.replacen("POST /api/v1/tokens", "GET /livez", 1));
    assert_eq!(code, Some(1));
    assert!(said.starts_with("broken at record 2: "), "{said}");
    let cut: Vec<&str> = whole.lines().take(3).collect();
    let (code, said) = verify(&mut server, &format!("{}\n", cut.join("\n")));
    assert_eq!(code, Some(1));
    assert!(said.starts_with("broken at record 4: the log is cut off"), "{said}");
    // Written anew by somebody without the key: the server goes on behind it, and does not make it good.
    let mut previous = "0".repeat(64);
    let mut forged = String::new();
    for line in whole.lines() {
        let (number, line) = line.split_once(' ').unwrap();
        let mut record: BTreeMap<String, Value> = serde_json::from_str(line).unwrap();
        record.insert("previous".to_owned(), json!(previous));
        record.insert("actor".to_owned(), json!("alice"));
        let hashed = record.iter().filter(|(key, _)| !["hash", "mac"].contains(&key.as_str()));
        let hashed: BTreeMap<_, _> = hashed.collect();
        previous = sha256(&serde_json::to_string(&hashed).unwrap());
        record.insert("hash".to_owned(), json!(previous));
        forged += &format!("{number} {}\n", serde_json::to_string(&record).unwrap());
    }
    let broken_after_a_change = |server: &mut Server, name: &str| {
        server.run();
        server.ok(&["token", "create", name, "--scope", "read"]);
        let output = server.throng(&["audit", "verify"]);
        let said = String::from_utf8(output.stdout).unwrap();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.starts_with("broken at record 1: "), "{said}");
        assert!(server.stop());
    };
    fs::write(&file, forged).unwrap();
    broken_after_a_change(&mut server, "four");
    // The oldest are cut off; all are; and the seal is, too.
    let rest: Vec<&str> = whole.lines().skip(4).collect();
    fs::write(&file, format!("{}\n", rest.join("\n"))).unwrap();
    broken_after_a_change(&mut server, "five");
    fs::remove_file(&file).unwrap();
    broken_after_a_change(&mut server, "six");
    for left in fs::read_dir(server.data().join("audit")).unwrap() {
        fs::remove_file(left.unwrap().path()).unwrap();
    }
    fs::remove_file(server.data().join("audit.seal")).unwrap();
    broken_after_a_change(&mut server, "seven");
}

#[test]
fn wrong_arguments_are_told_apart_from_a_no() {
    let server = Server::start(&[("buyers", BUYERS)]);
    let code = |args: &[&str]| {
        let output = server.throng(args);
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    let wrong: [&[&str]; 13] = [
        &["--at", "yesterday", "eval", "everyone"],
        &["--at", "-30d", "audience", "list"],
        &["plan", "--at", "-30d", "segments"],
        &["token", "create", "x", "--scope", "nope"],
        &["token", "create", "a b"],
        &["access", "User-Id", "x"],
        &["erase", "email", "notanemail"],
        &["why", "buyers", "User-Id", "x"],
        &["deadletter", "show", "1"],
        &["deadletter", "show", "a/b"],
        &["audience", "overlap", "a", "b", "c", "d", "e", "f", "g"],
        &["quarantine", "restore", "", ""],
        &["audience", "show", ""],
    ];
    for args in wrong {
        let (code, said) = code(args);
        assert_eq!(code, Some(2), "{args:?}: {said}");
        assert!(!said.contains("Json deserialize"), "{said}");
    }
    let no: [&[&str]; 5] = [
        &["eval", "did"],
        &["--at", "-2000d", "eval", "did purchase in 1d"],
        &["quarantine", "restore", "user_id", "nobody"],
        &["audience", "show", "nothing"],
        &["token", "revoke", "nobody"],
    ];
    for args in no {
        let (code, said) = code(args);
        assert_eq!(code, Some(1), "{args:?}: {said}");
    }
    // What is asked for as JSON is JSON.
    let key: Value = serde_json::from_str(&server.ok(&["receipt", "key", "--json"])).unwrap();
    assert_eq!(server.ok(&["receipt", "key"]).trim(), key["key"]);
    // A mistake in a file of settings is one in the settings, not a server out of reach.
    fs::write(server.folder().join("destinations.toml"), "[[destination]]\nkind = 7\n").unwrap();
    let again = server.folder().join("again");
    let output = server.command().arg("--data").arg(again).output().unwrap();
    assert_eq!(output.status.code(), Some(2), "{output:?}");
}

/// Schemathesis sends what the document allows and what it does not, and holds every answer against it.
#[test]
fn schemathesis_finds_nothing() {
    let server = shop();
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("loadtest/openapi");
    let python = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/venv/bin/python");
    let token = fs::read_to_string(server.data().join("token")).unwrap();
    let output = Command::new(python)
        .current_dir(server.folder())
        .env("PYTHONPATH", &folder)
        .env("PYTHONDONTWRITEBYTECODE", "1")
        .args(["-m", "schemathesis.cli", "--config-file"])
        .arg(folder.join("schemathesis.toml"))
        .args(["run", &format!("{}/openapi.json", server.console())])
        .args(["--header", &format!("Authorization: Bearer {}", token.trim())])
        .args(["--checks", "all", "--max-examples", "25", "--no-color"])
        // It would write to any folder of this machine.
        .args(["--generation-database", "none", "--exclude-path", "/api/v1/backup"])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}\n{errors}\n{}", server.log());
    // It was no empty run.
    let document = server.api("/openapi.json").json();
    let operations = document["paths"].as_object().unwrap().values();
    let count: usize = operations.map(|path| path.as_object().unwrap().len()).sum();
    assert!(said.contains(&format!("Tested: {}", count - 1)), "{said}");
    assert!(server.ok(&["audit", "verify"]).starts_with("whole: "));
    let url = format!("{}/livez", server.console());
    assert_eq!(get(&url, &[]).status, 200);
}
