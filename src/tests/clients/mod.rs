//! The clients of others, unmodified, as a site that moves here runs them: what they send arrives, once.
//!
//! Between a client and the server stands a door, which loses answers and asks to wait, and behind which every client is far
//! away, so that the server's own limit can hold for it. Each client is set up as `throng snippet` prints, which is what the
//! documentation says, word for word.

mod consent;
mod matomo;
mod segment;
mod snowplow;
mod unomi;

use serde_json::Value;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::archive::python;
use super::browser::{Browser, Site, of_npm};
use super::harness::Server;
use super::standins::{Fault, Reply, Request, Service, StandIn};

const SETTINGS: &str = "[archive]\nfile_age = \"1s\"\n\
    [[site]]\nkey = \"shop\"\nconsent = \"none\"\norigins = [\"http://127.0.0.1:*\"]\n";
/// One address may send five events at once, and two a second.
const LIMITED: &str =
    "[collect]\ntrusted_proxies = [\"127.0.0.1\"]\nrate_per_address = 2\nburst_per_address = 5\n";

/// All that counted, as others read it, in the order of time.
const READ: &str = r#"
import sys, duckdb, glob, json
files = sorted(glob.glob(sys.argv[1] + "/**/*.parquet", recursive=True))
names = "site event ids props attrs message_id page_url page_referrer page_title device_kind device_os locale source bot time_replaced".split()
rows = duckdb.sql(f"select {', '.join(names)}, epoch_ms(time) from read_parquet({files!r}, hive_partitioning=true) order by time, sequence").fetchall() if files else []
events = []
for row in rows:
    event = dict(zip(names + ["time"], row))
    for name in ["ids", "props", "attrs"]:
        event[name] = json.loads(event[name])
    events.append(event)
print(json.dumps(events))
"#;

/// A server, and the door that clients come in by.
struct House {
    server: Server,
    door: StandIn,
    passed: Arc<Door>,
}

/// Hands requests on, each from an address far away.
struct Door {
    to: String,
    passed: Mutex<Vec<(Request, Reply)>>,
}

impl Service for Door {
    fn answer(&self, request: &Request) -> Reply {
        let agent: ureq::Agent = ureq::Agent::config_builder()
            .http_status_as_error(false)
            .timeout_global(Some(Duration::from_secs(20)))
            .build()
            .into();
        let mut to = ureq::http::Request::builder()
            .method(request.method.as_str())
            .uri(format!("{}{}", self.to, request.path))
            .header("X-Forwarded-For", "203.0.113.7");
        let own = ["host", "connection", "content-length", "accept-encoding"];
        for (name, value) in &request.headers {
            if !own.contains(&name.as_str()) {
                to = to.header(name, value);
            }
        }
        let mut answer = agent.run(to.body(request.body.clone()).unwrap()).unwrap();
        let body = answer.body_mut().read_to_vec().unwrap();
        let mut reply = Reply::new(answer.status().as_u16(), String::from_utf8_lossy(&body));
        for name in [
            "Content-Type",
            "Retry-After",
            "Set-Cookie",
            "Vary",
            "Access-Control-Allow-Origin",
            "Access-Control-Allow-Credentials",
            "Access-Control-Allow-Headers",
            "Access-Control-Allow-Methods",
            "Access-Control-Expose-Headers",
        ] {
            if let Some(value) = answer.headers().get(name) {
                reply = reply.with(name, value.to_str().unwrap());
            }
        }
        if request.method != "OPTIONS" {
            self.passed.lock().unwrap().push((request.clone(), reply.clone()));
        }
        reply
    }
}

impl House {
    fn new() -> Self {
        Self::with(&[], SETTINGS)
    }

    /// A house that takes few events at once.
    fn limited() -> Self {
        Self::with(&[], &format!("{LIMITED}{SETTINGS}"))
    }

    fn with(segments: &[(&str, &str)], settings: &str) -> Self {
        let server = Server::start_with(segments, settings, &[]);
        let passed = Arc::new(Door { to: server.collect(), passed: Mutex::default() });
        let door = StandIn::start(Arc::clone(&passed) as _, None);
        Self { server, door, passed }
    }

    fn url(&self) -> String {
        format!("http://{}", self.door.address)
    }

    /// The answer of a request is lost, though what it brings is taken: of the next, or one that comes after so many. The
    /// one that follows is to come again later.
    fn disturb(&self, after: usize) {
        let pass = std::iter::repeat_n(Fault::Pass, after);
        let wait = Reply::new(429, "{}").with("Retry-After", "1");
        let wait = wait.with("Access-Control-Allow-Origin", "*");
        self.door.script(pass.chain([Fault::LoseAnswer, Fault::Refuse(wait)]));
    }

    /// What came through the door to a path, and what was answered.
    fn passed(&self, path: &str) -> Vec<(Request, Reply)> {
        let passed = self.passed.passed.lock().unwrap();
        let of_path = |request: &Request| request.path.split('?').next() == Some(path);
        passed.iter().filter(|(request, _)| of_path(request)).cloned().collect()
    }

    /// The statuses of the answers to a path, in order.
    fn statuses(&self, path: &str) -> Vec<u16> {
        self.passed(path).iter().map(|(_, reply)| reply.status).collect()
    }

    /// What is printed for a client, which is what the documentation says of it, with this house's address.
    fn documented(&self, client: &str) -> String {
        let host = self.url();
        self.server.ok(&["snippet", "shop", client, "--config", "throng.toml", "--host", &host])
    }

    /// Runs a client in Node.js: the documented lines, and these.
    fn node(&self, client: &str, lines: &str) {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/clients");
        assert!(folder.join("installed").exists(), "run `make tools`");
        let script = format!("{}\n{lines}", self.documented(client));
        run(Command::new("node").current_dir(folder).args(["--input-type=module", "-e", &script]));
    }

    /// Runs a client in Python: the documented lines, and these.
    fn python(&self, client: &str, lines: &str) {
        let script = format!("{}\n{lines}", self.documented(client));
        run(Command::new(python()).args(["-c", &script]));
    }

    /// Opens a page that runs the documented lines, and these. What they import is a module, or a script of which `exports`
    /// makes one.
    fn browse(&self, client: &str, file: &str, exports: &str, lines: &str) -> Browser {
        self.browse_changed(client, file, exports, ("", ""), lines)
    }

    /// The same, with something in the documented lines replaced.
    fn browse_changed(
        &self,
        client: &str,
        file: &str,
        exports: &str,
        (from, to): (&str, &str),
        lines: &str,
    ) -> Browser {
        let documented = self.documented(client);
        assert!(documented.contains(from), "{documented}");
        let documented = if from.is_empty() { documented } else { documented.replace(from, to) };
        let (_, imported) = documented.split_once("from \"").unwrap();
        let (imported, _) = imported.split_once('"').unwrap();
        let module = match exports {
            "" => of_npm(file),
            exports => format!("import \"/script.js\";\n{exports}"),
        };
        let page = format!(
            "<!doctype html><title>A page</title>\
             <script type=\"importmap\">{{\"imports\":{{\"{imported}\":\"/module.js\"}}}}</script>\
             <script type=\"module\">{documented}\n{lines}</script>"
        );
        Browser::open(Site::new(vec![
            ("/", "text/html; charset=utf-8", page),
            ("/module.js", "text/javascript", module),
            ("/script.js", "text/javascript", of_npm(file)),
        ]))
    }

    /// Opens a page that runs the documented lines, and these, and then loads a script.
    fn browse_with(&self, client: &str, file: &str, lines: &str) -> Browser {
        let page = format!(
            "<!doctype html><title>A page</title><script>{}\n{lines}</script>\
             <script async src=\"/script.js\"></script>",
            self.documented(client)
        );
        Browser::open(Site::new(vec![
            ("/", "text/html; charset=utf-8", page),
            ("/script.js", "text/javascript", of_npm(file)),
        ]))
    }

    /// All that counted, when it is so many events.
    #[track_caller]
    fn events(&self, count: usize) -> Vec<Value> {
        let until = Instant::now() + Duration::from_secs(60);
        loop {
            let output = Command::new(python())
                .args(["-c", READ])
                .arg(self.server.data().join("archive"))
                .output()
                .unwrap();
            // A file that was listed may be part of a larger one, and gone, when it is read.
            let events: Vec<Value> = serde_json::from_slice(&output.stdout).unwrap_or_default();
            if events.len() == count {
                return events;
            }
            let passed = self.passed.passed.lock().unwrap();
            let passed = passed.iter().map(|(request, reply)| (&request.path, reply.status));
            let is_over = events.len() > count || Instant::now() > until;
            assert!(!is_over, "{} {events:#?} {:#?}", events.len(), passed.collect::<Vec<_>>());
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// How many events were taken on a path of a protocol, those that came again counted each time.
    fn accepted(&self, endpoint: &str) -> f64 {
        let labels = format!("{{endpoint=\"{endpoint}\",outcome=\"accepted\"}}");
        self.server.metric(&format!("throng_collect_events_total{labels}"))
    }
}

fn run(command: &mut Command) {
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert!(
        output.status.success(),
        "{}\n{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
}

/// The only event of a name.
#[track_caller]
fn only<'a>(events: &'a [Value], name: &str) -> &'a Value {
    let [event] = named(events, name)[..] else { panic!("{name}: {events:#?}") };
    event
}

/// The identifiers of an event in a namespace.
fn ids<'a>(event: &'a Value, namespace: &str) -> Vec<&'a str> {
    let ids = event["ids"].as_array().unwrap().iter();
    ids.filter(|id| id[0] == namespace).map(|id| id[1].as_str().unwrap()).collect()
}

/// The events of a name.
fn named<'a>(events: &'a [Value], name: &str) -> Vec<&'a Value> {
    events.iter().filter(|event| event["event"] == name).collect()
}

fn now() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}
