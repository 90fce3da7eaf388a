//! The archive, read by tools that others wrote.

use serde_json::json;
use std::path::{Path, PathBuf};
use std::process::Command;

use super::harness::Server;

/// The Python that `make test` prepares.
fn python() -> PathBuf {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let python = root.join("target/venv/bin/python");
    assert!(python.exists(), "{} is missing: run `make tools` once", python.display());
    python
}

const READ: &str = r#"
import sys, duckdb, pandas, glob, json
files = sorted(glob.glob(sys.argv[1] + "/**/*.parquet", recursive=True))
assert files, "no files"
rows = duckdb.sql(f"select event, ids, props, epoch_ms(time) from read_parquet({files!r}, hive_partitioning=true)").fetchall()
frame = pandas.concat(pandas.read_parquet(file) for file in files)
assert len(frame) == len(rows), (len(frame), len(rows))
values = sorted(json.loads(props)["n"] for _, _, props, _ in rows)
print(json.dumps({"rows": len(rows), "distinct": len(set(values)), "time": min(row[3] for row in rows)}))
"#;

#[test]
fn duckdb_and_pandas_read_every_counted_event_once() {
    let mut server = Server::start_with(
        &[],
        "[archive]\nfile_age = \"1s\"\n[events]\nretention = \"36500d\"\n",
        &[],
    );
    let post = |server: &Server, from: u32| {
        let events: Vec<_> = (from..from + 100)
            .map(|n| {
                json!({ "site": "t", "event": "visit", "message_id": format!("m{n}"),
                        "time": "1969-12-31T23:59:59.999Z", "ids": { "user_id": n.to_string() },
                        "props": { "n": n, "odd": "é\u{1f600}\"" } })
            })
            .collect();
        assert_eq!(server.post_events(&json!(events)).json()["accepted"], 100);
    };
    post(&server, 0);
    post(&server, 50); // Half of them are duplicates.
    let pending = |server: &Server| {
        let metrics = server.api("/metrics").body;
        let line = metrics.lines().find(|l| l.starts_with("throng_archive_pending_bytes")).unwrap();
        line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()
    };
    server.until("the archive has all", || pending(&server) == 0.0);
    server.kill();
    server.run();
    post(&server, 100);
    server.until("the archive has all again", || pending(&server) == 0.0);
    let output = Command::new(python())
        .args(["-c", READ])
        .arg(server.data().join("archive"))
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(text.trim(), r#"{"rows": 200, "distinct": 200, "time": -1}"#);
    // A rule that nobody asked before is answered from it.
    assert_eq!(server.count("did visit[n >= 150]"), 50);
}
