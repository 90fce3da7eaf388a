//! A real S3-compatible server for tests: the S3 gateway of `JuiceFS`, which is `MinIO`'s, on a folder and a free port.
//!
//! It runs below a shell that waits for the end of its input and then kills it: whatever ends the test process,
//! a panic or a signal, closes that pipe.

use std::io::BufRead;
use std::io::BufReader;
use std::net::TcpListener;
use std::path::Path;
use std::path::PathBuf;
use std::process::Child;
use std::process::Command;
use std::process::Stdio;
use std::time::Duration;
use std::time::Instant;

use parking_lot::Mutex;
use rustix::process::Pid;
use rustix::process::Signal;
use rustix::process::kill_process;
use tempfile::TempDir;

/// The keys that it knows.
pub(crate) const ACCESS: &str = "throng-test";
pub(crate) const SECRET: &str = "not-a-secret-of-anybody";
/// Its one bucket.
pub(crate) const BUCKET: &str = "events";

/// How long a server may take to start.
const PATIENCE: Duration = Duration::from_secs(60);

/// One server.
pub(crate) struct ObjectStore {
    port: u16,
    dir: TempDir,
    running: Mutex<Option<(Child, Pid)>>,
}

/// The program, which `make test` installs.
fn program() -> PathBuf {
    let program = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/venv/bin/juicefs");
    assert!(program.exists(), "{} is missing: run `make tools` once", program.display());
    program
}

impl ObjectStore {
    /// Starts a server with an empty bucket.
    pub(crate) fn start() -> Self {
        // Another process may take a free port before the server does.
        for _ in 0..20 {
            let dir = tempfile::tempdir().unwrap();
            let port = TcpListener::bind(("127.0.0.1", 0)).unwrap().local_addr().unwrap().port();
            let server = Self { port, dir, running: Mutex::default() };
            let made = Command::new(program())
                .args(["format", "--storage", "file", "--trash-days", "0", "--bucket"])
                .arg(format!("{}/", server.dir.path().join("objects").display()))
                .args([&server.names(), BUCKET])
                .output()
                .unwrap();
            assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
            if server.try_run() {
                return server;
            }
        }
        panic!("no port for an object store");
    }

    fn names(&self) -> String {
        format!("sqlite3://{}", self.dir.path().join("names.db").display())
    }

    /// Where it answers.
    pub(crate) fn endpoint(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    fn try_run(&self) -> bool {
        let script = "\"$@\" >/dev/null 2>&1 & pid=$!; echo $pid; \
                      cat >/dev/null; kill -9 $pid 2>/dev/null; wait";
        let mut shell = Command::new("sh")
            .args(["-c", script, "sh"])
            .arg(program())
            .args([
                "gateway",
                "--no-usage-report",
                "--no-banner",
                "--no-bgjob",
                "--cache-size",
                "0",
            ])
            .args(["--backup-meta", "0", "--metrics", "127.0.0.1:0", "--cache-dir"])
            .arg(self.dir.path().join("cache"))
            .arg("--log")
            .arg(self.dir.path().join("log"))
            .args([self.names(), format!("127.0.0.1:{}", self.port)])
            .env("MINIO_ROOT_USER", ACCESS)
            .env("MINIO_ROOT_PASSWORD", SECRET)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(shell.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let pid = Pid::from_raw(line.trim().parse().unwrap()).unwrap();
        *self.running.lock() = Some((shell, pid));
        let agent: ureq::Agent =
            ureq::Agent::config_builder().http_status_as_error(false).build().into();
        let deadline = Instant::now() + PATIENCE;
        loop {
            // Nobody may ask without a key; before it is ready it says so otherwise.
            let answer = agent.get(format!("{}/{BUCKET}/", self.endpoint())).call();
            if answer.is_ok_and(|answer| answer.status() == 403) {
                return true;
            }
            if rustix::process::test_kill_process(pid).is_err() || Instant::now() > deadline {
                self.kill();
                return false;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Ends it as a crash would.
    pub(crate) fn kill(&self) {
        if let Some((mut shell, pid)) = self.running.lock().take() {
            let _ = kill_process(pid, Signal::KILL);
            drop(shell.stdin.take());
            shell.wait().unwrap();
        }
    }

    /// Starts it again on what it has kept.
    pub(crate) fn restart(&self) {
        self.kill();
        let deadline = Instant::now() + PATIENCE;
        while !self.try_run() {
            assert!(Instant::now() < deadline, "the object store does not start again");
        }
    }
}

impl ObjectStore {
    /// Stops it without a word, or lets it go on.
    pub(crate) fn freeze(&self, frozen: bool) {
        if let Some((_, pid)) = &*self.running.lock() {
            kill_process(*pid, if frozen { Signal::STOP } else { Signal::CONT }).unwrap();
        }
    }
}

impl Drop for ObjectStore {
    fn drop(&mut self) {
        self.kill();
    }
}
