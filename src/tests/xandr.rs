//! Audiences on their way to segments of Xandr.

use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::fs;
use std::process::Command;
use std::sync::Arc;

use super::archive::python;
use super::harness::{Server, post};
use super::killed::Pushes;
use super::standins::xandr::{User, Xandr, error};
use super::standins::{Fault, Reply, StandIn};

const SEGMENT: &str =
    "rule = 'did purchase in 1h'\nmin_size = 1\n[[activate]]\ndestination = \"bss\"\n";
/// 30 days.
const MINUTES: i64 = 43_200;

fn start(more: &str) -> (Server, Arc<Xandr>, StandIn) {
    let platform = Arc::new(Xandr::new("456"));
    let standin = StandIn::start(Arc::clone(&platform) as _, None);
    let mut server = Server::start(&[("buyers", SEGMENT)]);
    assert!(server.stop());
    let destination = format!(
        "[[destination]]\nname = \"bss\"\nkind = \"xandr\"\nallow_private = true\nurl = \"http://{}\"\nmember = \"456\"\nusername = \"u\"\n\
         password = \"file:password\"\nevery = \"1h\"\npace = \"1s\"\nsettle = \"1s\"\n{more}",
        standin.address
    );
    fs::write(server.folder().join("destinations.toml"), destination).unwrap();
    fs::write(server.folder().join("password"), "p\n").unwrap();
    server.run();
    (server, platform, standin)
}

fn device(number: u32) -> String {
    format!("{number:08x}-0000-4000-8000-0000000000aa")
}

/// Of each person an id of Xandr's or a device.
fn event(person: u32) -> Value {
    let ids = match person % 2 {
        0 => json!({ "xandr": (5_000_000_000_000_000_000_u64 + u64::from(person)).to_string() }),
        _ => json!({ "gaid": device(person) }),
    };
    json!({ "site": "t", "event": "purchase", "ids": ids })
}

fn user(person: u32) -> User {
    match person % 2 {
        0 => ((5_000_000_000_000_000_000_u64 + u64::from(person)).to_string(), String::new()),
        _ => (device(person), "8".to_owned()),
    }
}

fn members(people: std::ops::Range<u32>) -> BTreeMap<User, i64> {
    people.map(|person| (user(person), MINUTES)).collect()
}

fn purchases(server: &Server, people: std::ops::Range<u32>) {
    let events: Vec<Value> = people.map(event).collect();
    server.accepts(&events);
}

fn waits_for(server: &Server, adds: usize) {
    server.until("what is to be sent is known", || {
        let dry = server.ok(&["destination", "push", "bss", "--dry-run", "--json"]);
        serde_json::from_str::<Value>(&dry).unwrap()[0]["adds"] == adds
    });
}

fn in_step(server: &Server, platform: &Xandr, expected: &BTreeMap<User, i64>) {
    server.until("the platform is in step", || {
        let report = server.push("bss");
        report["trouble"].is_null()
            && report["pending"] == 0
            && platform.members("buyers").as_ref() == Some(expected)
    });
}

#[test]
fn a_segment_is_made_once_and_kept_in_step_whatever_becomes_of_calls() {
    let (server, platform, standin) = start("format = \"text\"\n");
    purchases(&server, 0..300);
    waits_for(&server, 300);
    assert_eq!(platform.members("buyers"), None, "a dry run makes nothing");
    assert!(server.ok(&["destination", "test", "bss"]).contains("ready"));
    // Looked for and not there, made and its answer lost; then found.
    standin.script([Fault::Pass, Fault::LoseAnswer]);
    assert!(server.push("bss")["trouble"].is_string());
    assert_eq!(platform.members("buyers"), Some(BTreeMap::new()));
    let refuse = |reply: Reply| Fault::Refuse(reply);
    standin.script([
        Fault::Pass,
        refuse(Reply::new(503, "busy")),
        // The job, and its file.
        Fault::Pass,
        Fault::LoseAnswer,
        Fault::Pass,
        Fault::Lose,
        refuse(error("SYSTEM")),
    ]);
    in_step(&server, &platform, &members(0..300));

    // Who opts out, who comes, and a token that is not known after three calls.
    platform.forget_tokens(3);
    purchases(&server, 300..310);
    let body = event(7).to_string();
    let url = format!("{}/v1/events", server.collect());
    assert_eq!(post(&url, &body, &[("Sec-GPC", "1")]).json()["accepted"], 1);
    let mut expected = members(0..310);
    expected.remove(&user(7));
    in_step(&server, &platform, &expected);
    assert!(platform.logins() < 10, "{}", platform.logins());
}

#[test]
fn a_file_whose_answer_is_lost_is_asked_for_and_not_sent_again() {
    let (server, platform, standin) = start("format = \"text\"\n");
    purchases(&server, 0..20);
    waits_for(&server, 20);
    // The login, the search, the making, the job; and the file arrived.
    standin.script([Fault::Pass, Fault::Pass, Fault::Pass, Fault::Pass, Fault::LoseAnswer]);
    in_step(&server, &platform, &members(0..20));
    assert_eq!(platform.files(), 1);
    // The next one did not: after a while it is taken to another job.
    purchases(&server, 20..30);
    waits_for(&server, 10);
    standin.script([Fault::Pass, Fault::Lose]);
    in_step(&server, &platform, &members(0..30));
    assert_eq!(platform.files(), 2);
}

#[test]
fn one_bad_line_costs_itself_whether_it_is_told_or_found() {
    for tells in [true, false] {
        let (server, platform, _standin) = start("format = \"text\"\n");
        let bad = user(5);
        platform.set_bad(&[&bad.0], tells);
        purchases(&server, 0..8);
        waits_for(&server, 8);
        let mut expected = members(0..8);
        expected.remove(&bad);
        in_step(&server, &platform, &expected);
        assert!(server.ok(&["destination", "refused", "bss"]).contains(&bad.0), "{tells}");
        assert_eq!(server.push("bss")["refused"], 1);
    }
}

#[test]
fn a_limit_is_waited_for_and_a_password_that_is_refused_is_told() {
    let (server, platform, standin) = start("");
    purchases(&server, 0..3);
    waits_for(&server, 3);
    // The login, the search and the making.
    standin.script([
        Fault::Pass,
        Fault::Pass,
        Fault::Pass,
        Fault::Refuse(error("RATE_LIMIT_EXCEEDED")),
    ]);
    server.until("it is told", || {
        server.push("bss")["trouble"].as_str().is_some_and(|why| why.contains("asks to wait"))
    });
    fs::write(server.folder().join("password"), "wrong\n").unwrap();
    platform.forget_tokens(0);
    let tested = server.throng(&["destination", "test", "bss"]);
    let said = String::from_utf8_lossy(&tested.stdout).into_owned();
    assert!(said.contains("does not let u in"), "{said}");
}

/// Reads a file of Avro as a stranger would.
const READ: &str = r#"
import fastavro, json, sys
with open(sys.argv[1], "rb") as file:
    reader = fastavro.reader(file)
    rows = list(reader)
    print(json.dumps({"codec": reader.metadata["avro.codec"], "rows": rows}))
"#;

#[test]
fn a_file_of_avro_is_read_by_others() {
    let (server, platform, _standin) = start("");
    let hash = "f41439c944a763c9812d700a779941cec169de13c9ccd13aaf9424ba5231620a";
    let mut events: Vec<Value> = (0..6_000).map(event).collect();
    events.push(json!({ "site": "t", "event": "purchase", "ids": { "email_sha256": hash } }));
    server.accepts(&events);
    waits_for(&server, 6_001);
    server.until("a file is there", || server.push("bss")["held"] == 6_001);
    let file = server.folder().join("file.avro");
    fs::write(&file, platform.last_file()).unwrap();
    let ran = Command::new(python()).args(["-c", READ]).arg(&file).output().unwrap();
    assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
    let read: Value = serde_json::from_slice(&ran.stdout).unwrap();
    assert_eq!(read["codec"], "deflate");
    let rows = read["rows"].as_array().unwrap();
    let segment = json!([{ "id": 10_000, "code": "", "member_id": 0, "expiration": MINUTES, "timestamp": 0, "value": 0 }]);
    assert!(rows.iter().all(|row| row["segments"] == segment), "{}", rows[0]);
    let mut found: Vec<String> = rows.iter().map(|row| row["uid"].to_string()).collect();
    let mut expected: Vec<String> = (0..6_000)
        .map(|person| match person % 2 {
            0 => user(person).0,
            _ => json!({ "id": device(person), "domain": "aaid" }).to_string(),
        })
        .collect();
    expected.push(json!({ "hex_encoded": hash }).to_string());
    found.sort();
    expected.sort();
    assert_eq!(found, expected);
}

#[test]
fn a_crash_at_any_call_leaves_a_segment_in_step() {
    let (server, platform, standin) = start("format = \"text\"\n");
    let has = |people: &BTreeSet<u32>| {
        let members = people.iter().map(|one| (user(*one), MINUTES));
        platform.members("buyers") == Some(members.collect())
    };
    Pushes { server, standin: &standin, destination: "bss", event: &event, has: &has }
        .survive_a_crash_at_any_call();
}
