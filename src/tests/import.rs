//! `throng import events`: every line once, whatever happens on the way.

use serde_json::{Value, json};
use std::fs;
use std::process::{Command, Stdio};
use std::time::Duration;

use super::harness::{Server, THRONG};

fn line(user: u64, message: Option<&str>) -> String {
    let mut event = json!({
        "site": "anything", "event": "visit", "time": "2011-12-09T12:50:00Z",
        "ids": { "user_id": user.to_string() },
    });
    if let Some(message) = message {
        event["message_id"] = json!(message);
    }
    event.to_string()
}

fn server() -> Server {
    Server::start_with(&[], "[events]\nretention = \"36500d\"\n", &[])
}

#[test]
fn a_file_is_imported_once_and_its_bad_lines_are_listed() {
    let server = server();
    let file = server.folder().join("events.ndjson");
    let lines = [
        line(1, None),
        line(1, None),
        "{\"site\":\"a\"}".to_owned(),
        String::new(),
        "nonsense".to_owned(),
        line(2, Some("m")),
        line(3, Some("m")),
    ];
    fs::write(&file, lines.join("\n")).unwrap();
    let file = file.to_str().unwrap();
    let output = server.throng(&["import", "events", file]);
    assert_eq!(output.status.code(), Some(1));
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(told.contains("events.ndjson:3: ") && told.contains("events.ndjson:5: "), "{told}");
    assert_eq!(server.members("count visit = 2", "user_id"), ["1"]);
    assert_eq!(server.members("did visit[source = \"import\"]", "user_id"), ["1", "2"]);
    for _ in 0..2 {
        let report: Value =
            serde_json::from_str(&server.ok(&["import", "events", file, "--skip-bad", "--json"]))
                .unwrap();
        assert_eq!(report["counted"], 3);
        assert_eq!(report["duplicates"], 1);
        assert_eq!(report["rejected"], 2);
        assert_eq!(server.count("count visit = 2"), 1);
    }
}

#[test]
fn an_import_goes_on_where_a_kill_stopped_it() {
    let mut server = server();
    let file = server.folder().join("events.ndjson");
    let total = 60_000;
    let text: String = (1..=total).map(|user| line(user, None) + "\n").collect();
    fs::write(&file, text).unwrap();
    for wait in [40, 120, 250] {
        let mut import = Command::new(THRONG)
            .current_dir(server.folder())
            .args(["import", "events", file.to_str().unwrap()])
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        std::thread::sleep(Duration::from_millis(wait));
        server.kill();
        import.wait().unwrap();
        server.run();
    }
    let output = server.throng(&["import", "events", file.to_str().unwrap()]);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(server.count("count visit = 1"), total);
    assert_eq!(server.count("count visit > 1"), 0);
}

#[test]
fn a_pipe_with_a_name_skips_what_was_taken() {
    let server = server();
    let pipe = |text: &str| {
        let mut import = Command::new(THRONG)
            .current_dir(server.folder())
            .args(["import", "events", "-", "--name", "nightly"])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        std::io::Write::write_all(&mut import.stdin.take().unwrap(), text.as_bytes()).unwrap();
        assert!(import.wait().unwrap().success());
    };
    let first = format!("{}\n{}\n", line(1, None), line(2, None));
    pipe(&first);
    pipe(&format!("{first}{}\n", line(3, None)));
    assert_eq!(server.count("count visit = 1"), 3);
}
