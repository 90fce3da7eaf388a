//! A full disk, a damaged journal: what is said, and how it goes on.

use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::harness::{Server, get};

/// A file system of 8 MiB, unmounted at the end; `None` where this user may not mount one.
pub(super) struct SmallDisk(PathBuf);

impl SmallDisk {
    pub(super) fn mount(at: &Path) -> Option<Self> {
        fs::create_dir_all(at).unwrap();
        let status = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=8m", "tmpfs"])
            .arg(at)
            .stderr(std::process::Stdio::null())
            .status();
        status.is_ok_and(|status| status.success()).then(|| Self(at.to_path_buf()))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("--lazy").arg(&self.0).status();
    }
}

fn purchase(user: usize) -> Value {
    json!({ "site": "t", "event": "purchase", "message_id": user.to_string(),
            "ids": { "user_id": user.to_string() }, "props": { "note": "x".repeat(2_000) } })
}

#[test]
fn a_full_disk_answers_503_and_recovers() {
    let folder = tempfile::tempdir().unwrap();
    let Some(_disk) = SmallDisk::mount(folder.path()) else {
        // Only root may mount; elsewhere the journal's own tests stand for a full disk.
        eprintln!("left out: this user may not mount a small file system");
        return;
    };
    let data = folder.path().join("data");
    let server = Server::start_with(&[], "", &["--data", data.to_str().unwrap()]);
    let filler = folder.path().join("filler");
    fs::write(&filler, vec![0u8; 2 << 20]).unwrap();

    let mut acknowledged = 0;
    let mut refused = None;
    for user in 0..20_000 {
        let answer = server.post_events(&purchase(user));
        match answer.status {
            200 => acknowledged = user + 1,
            _ => {
                refused = Some(answer);
                break;
            }
        }
    }
    let refused = refused.expect("8 MiB do not hold 20,000 events of 2 KiB");
    assert_eq!(refused.status, 503, "{refused:?}");
    assert!(refused.headers.contains_key("Retry-After"));
    let ready = || get(&format!("{}/readyz", server.console()), &[]);
    assert_eq!(ready().status, 503);
    assert!(ready().body.contains("full"), "{:?}", ready());
    assert_eq!(get(&format!("{}/livez", server.console()), &[]).status, 200);
    // A hit is smaller than what was refused; some may still fit.
    let hit = format!("{}/pixel.gif?s=t&id.user_id=p&p.note={}", server.collect(), "x".repeat(500));
    server.until("a hit is dropped, and still answered with the image", || {
        let pixel = get(&hit, &[]);
        assert_eq!((pixel.status, pixel.body.starts_with("GIF89a")), (200, true));
        let metrics = get(&format!("{}/metrics", server.console()), &[]).body;
        let dropped = r#"throng_collect_events_total{endpoint="pixel",outcome="dropped"} "#;
        metrics.lines().any(|line| line.strip_prefix(dropped).is_some_and(|count| count != "0"))
    });

    fs::remove_file(&filler).unwrap();
    // Before anybody sends again: a sender may wait for just this.
    server.until("it is ready again", || ready().status == 200);
    server.until("events are taken again", || {
        server.post_events(&purchase(acknowledged)).status == 200
    });
    server.until("every acknowledged event is counted", || {
        let output =
            server.throng(&["eval", "count purchase = 1", "--data", data.to_str().unwrap()]);
        String::from_utf8_lossy(&output.stdout).trim() == (acknowledged + 1).to_string()
    });
}

#[test]
fn a_damaged_journal_is_refused_and_salvaged_when_told_to() {
    let mut server = Server::start(&[]);
    for user in 0..50 {
        assert_eq!(server.post_events(&purchase(user)).json()["accepted"], 1);
    }
    assert_eq!(server.count("did purchase"), 50);
    server.kill();
    let journal = fs::read_dir(server.data().join("journal")).unwrap();
    let segment = journal.map(|entry| entry.unwrap().path()).max().unwrap();
    let mut bytes = fs::read(&segment).unwrap();
    let used = bytes.iter().rposition(|byte| *byte != 0).unwrap();
    bytes[used / 2] ^= 0x40;
    fs::write(&segment, bytes).unwrap();

    let output = server.command().output().unwrap();
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(text.contains("damaged") && text.contains("--salvage"), "{text}");
    let mut salvage = server.command();
    let mut child = salvage.arg("--salvage").stderr(std::process::Stdio::null()).spawn().unwrap();
    server.until("the salvaged server runs", || {
        let run = fs::read_to_string(server.data().join("run.json")).unwrap_or_default();
        run.contains(&child.id().to_string())
    });
    // What the fold had committed before the damage stays counted.
    let counted = server.count("did purchase");
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(counted >= 48, "{counted}");
}
