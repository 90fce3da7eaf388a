//! A real browser, on pages of a test.

use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::standins::{Reply, Request, Service, StandIn};

/// Headless ones say so, and count as bots.
const AGENT: &str = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/156.0.0.0 Safari/537.36";

/// A site with some pages, and a browser that looks at one of them. A page says what it found with
/// `POST /result`.
pub(super) struct Browser {
    child: Child,
    _profile: tempfile::TempDir,
    site: Arc<Site>,
    _server: StandIn,
}

/// What a site serves: paths, what kind each is of, and what is there.
pub(super) struct Site {
    pages: Vec<(&'static str, &'static str, String)>,
    results: Mutex<Vec<String>>,
}

impl Site {
    pub(super) fn new(pages: Vec<(&'static str, &'static str, String)>) -> Self {
        Self { pages, results: Mutex::default() }
    }
}

impl Service for Site {
    fn answer(&self, request: &Request) -> Reply {
        if (request.method.as_str(), request.path.as_str()) == ("POST", "/result") {
            let body = String::from_utf8_lossy(&request.body).into_owned();
            self.results.lock().unwrap().push(body);
            return Reply::new(200, "");
        }
        let path = request.path.split('?').next().unwrap();
        match self.pages.iter().find(|(of, ..)| *of == path) {
            Some((_, kind, text)) => Reply::new(200, text.as_str()).with("Content-Type", kind),
            None => Reply::new(404, ""),
        }
    }
}

impl Browser {
    /// Opens the page `/` of a site.
    pub(super) fn open(site: Site) -> Self {
        Self::open_with(site, &[])
    }

    /// The same, with more arguments of the browser.
    pub(super) fn open_with(site: Site, more: &[&str]) -> Self {
        let site = Arc::new(site);
        let server = StandIn::start(Arc::clone(&site) as _, None);
        let profile = tempfile::tempdir().unwrap();
        let child = Command::new("chromium")
            .args([
                "--headless",
                "--no-sandbox",
                "--disable-gpu",
                "--disable-quic",
                "--no-first-run",
            ])
            .args([
                "--disable-background-networking",
                "--disable-component-update",
                "--disable-sync",
            ])
            .args(["--remote-debugging-port=0", "--disable-dev-shm-usage"])
            .args(more)
            .arg(format!("--user-agent={AGENT}"))
            .arg(format!("--user-data-dir={}", profile.path().display()))
            .arg(format!("http://{}/", server.address))
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("chromium is missing: run `make tools`");
        Self { child, _profile: profile, site, _server: server }
    }

    /// What the page found, as JSON.
    pub(super) fn result(&self) -> serde_json::Value {
        let until = Instant::now() + Duration::from_secs(60);
        loop {
            if let Some(result) = self.site.results.lock().unwrap().pop() {
                return serde_json::from_str(&result).unwrap_or_else(|_| panic!("{result}"));
            }
            assert!(Instant::now() < until, "the page said nothing for a minute");
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Browser {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A file of a package of npm, as it is published, by its path in `target`.
pub(super) fn of_npm(file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("target").join(file);
    let read = std::fs::read_to_string(&path);
    read.unwrap_or_else(|error| panic!("{}: {error}: run `make tools`", path.display()))
}
