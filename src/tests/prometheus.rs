//! A real Prometheus scrapes a server under load, and two nodes on a Redis: every query of a dashboard has data
//! of those that it is for, every alert is evaluated, and none of what wakes somebody fires while all are healthy.

use serde_json::{Value, json};
use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::dashboards::{alerts, dashboards, queries, selectors};
use super::harness::{Server, get};
use super::nodes::Nodes;

/// What Prometheus calls a server.
fn instance(server: &Server) -> String {
    server.console().strip_prefix("http://").unwrap().to_owned()
}

/// A Prometheus of the test's own.
struct Prometheus {
    address: String,
    folder: tempfile::TempDir,
    child: Child,
}

impl Prometheus {
    /// Starts one that scrapes the servers of each job twice a second, with the alerts of this repository.
    fn start(jobs: &[(&str, &[&Server])]) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("dashboards/prometheus/alerts.yml");
        let mut settings = format!(
            "global: {{ scrape_interval: 500ms, evaluation_interval: 1s }}\n\
             rule_files: [{:?}]\nscrape_configs:\n",
            rules.display().to_string(),
        );
        for (job, servers) in jobs {
            let targets: Vec<String> = servers.iter().map(|server| instance(server)).collect();
            settings.push_str(&format!(
                "  - job_name: {job}\n    static_configs: [{{ targets: {targets:?} }}]\n"
            ));
        }
        fs::write(folder.path().join("prometheus.yml"), settings).unwrap();
        let free = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = free.local_addr().unwrap().to_string();
        drop(free);
        let log = fs::File::create(folder.path().join("log")).unwrap();
        let child = Command::new("prometheus")
            .current_dir(folder.path())
            .args(["--config.file=prometheus.yml", "--storage.tsdb.path=data"])
            .arg(format!("--web.listen-address={address}"))
            .stderr(log)
            .stdout(Stdio::null())
            .spawn()
            .expect("Debian's package `prometheus` is installed: `make tools` sees to it");
        Self { address: format!("http://{address}"), folder, child }
    }

    fn log(&self) -> String {
        fs::read_to_string(self.folder.path().join("log")).unwrap_or_default()
    }

    fn ask(&self, path: &str) -> Result<Value, String> {
        let answer = get(&format!("{}/api/v1/{path}", self.address), &[]);
        // While it starts it says in words that it is not ready.
        let answer: Value = serde_json::from_str(&answer.body).map_err(|_| answer.body.clone())?;
        if answer["status"] == "success" {
            Ok(answer["data"].clone())
        } else {
            Err(answer["error"].as_str().unwrap_or_default().to_owned())
        }
    }

    /// The series that a query comes to.
    fn query(&self, expression: &str) -> Result<Vec<Value>, String> {
        let encoded: String = expression.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let data = self.ask(&format!("query?query={encoded}"))?;
        Ok(data["result"].as_array().unwrap().clone())
    }

    /// Waits until a query has data; what it said last where it does not come.
    fn until(&mut self, expression: &str) -> Result<(), String> {
        let until = Instant::now() + Duration::from_secs(60);
        loop {
            assert!(self.child.try_wait().unwrap().is_none(), "it ended: {}", self.log());
            // It refuses connections until it has started.
            let is_up = std::net::TcpStream::connect(self.address.trim_start_matches("http://"));
            let found = if is_up.is_ok() { self.query(expression) } else { Ok(Vec::new()) };
            match found {
                Ok(series) if !series.is_empty() => return Ok(()),
                found if Instant::now() > until => {
                    return found.map(|_| ()).and(Err("no data".into()));
                }
                _ => std::thread::sleep(Duration::from_millis(100)),
            }
        }
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

const SEGMENT: &str = "rule = 'sum purchase.size in 1h > 1'\nmin_size = 1\n\
                       [[activate]]\ndestination = \"files\"\n[[activate]]\ndestination = \"nowhere\"\n";
const SETTINGS: &str = "[archive]\nfile_age = \"1s\"\n\
                        [[partner]]\nname = \"dsp\"\nurl = \"https://dsp.example/?id={id}\"\n";
/// One that takes what comes, and one that cannot: its folder is a file.
const DESTINATIONS: &str = "[[destination]]\nname = \"files\"\nkind = \"file\"\npath = \"pushed\"\nevery = \"1s\"\n\
                            [[destination]]\nname = \"nowhere\"\nkind = \"file\"\npath = \"throng.toml/x\"\nevery = \"1s\"\n";

/// Sends of everything that ends well, and of everything that is counted as something else.
fn load(server: &Server, round: u64) {
    let purchase = |user: u64, size: Value| {
        json!({ "site": "t", "event": "purchase", "ids": { "user_id": user.to_string() },
                "message_id": format!("{round}-{user}"), "props": { "size": size } })
    };
    let twice = json!([purchase(1, json!(2)), purchase(2, json!(1e300)), purchase(1, json!(2))]);
    server.post_events(&twice);
    server.post_events(&json!({ "site": "nobody's", "event": "x" }));
    server.post_events(&json!({ "site": "t", "event": "x", "ids": { "email": "no address" } }));
    get(&format!("{}/pixel.gif?s=t&id.user_id=3", server.collect()), &[]);
    get(&format!("{}/nothing", server.collect()), &[]);
    // A browser that is sent to a partner, and comes back with its id.
    let hit = get(&format!("{}/pixel.gif?s=t", server.collect()), &[]);
    let cookie = hit.headers.get("set-cookie").and_then(|cookie| cookie.to_str().ok());
    if let Some(cookie) = cookie.and_then(|cookie| cookie.split(';').next()) {
        for path in ["sync/dsp?s=t".to_owned(), format!("match/dsp?s=t&uid=theirs-{round}")] {
            get(&format!("{}/{path}", server.collect()), &[("Cookie", cookie)]);
        }
    }
    // A page that has no cookie, and a server without a token.
    for query in ["", "?id.user_id=1"] {
        get(&format!("{}/v1/audiences{query}", server.collect()), &[]);
    }
}

#[test]
fn every_query_has_data_and_no_page_goes_out_for_healthy_servers() {
    let shared = Nodes::new();
    let nodes = [shared.start("all", ""), shared.start("work", "")];
    let mut server = Server::start_with(&[("buyers", SEGMENT)], SETTINGS, &[]);
    assert!(server.stop());
    fs::write(server.folder().join("destinations.toml"), DESTINATIONS).unwrap();
    server.run();
    let jobs: [(&str, &[&Server]); 2] =
        [("throng", &[&server]), ("nodes", &[&nodes[0], &nodes[1]])];
    let mut prometheus = Prometheus::start(&jobs);
    prometheus.until("count(up == 1) == 3").unwrap();
    // A rate needs two scrapes of a series, and of some the first comes with the first event.
    let mut round = 0;
    let mut asked = Vec::new();
    for (path, dashboard) in dashboards() {
        let instances = match path.ends_with("redis.json") {
            true => nodes.iter().map(instance).collect::<Vec<_>>().join("|"),
            false => instance(&server),
        };
        asked.extend(queries(&dashboard).into_iter().map(|query| (query, instances.clone())));
    }
    assert!(asked.len() > 60, "only {} queries were found", asked.len());
    server.until("some scrapes beside the load", || {
        load(&server, round);
        load(&nodes[0], round);
        round += 1;
        let enough = prometheus.query("min(count_over_time(up[1m])) >= 8");
        enough.is_ok_and(|series| !series.is_empty())
    });
    for (query, instances) in &asked {
        let query = query.replace("$instance", instances).replace("$__rate_interval", "1m");
        if let Err(error) = prometheus.until(&query) {
            panic!("{error}, of `{query}`\n{}", server.log());
        }
    }
    let alerts = alerts();
    assert!(alerts.len() > 10, "only {} alerts were found", alerts.len());
    for (alert, expression) in &alerts {
        // An alert that does not fire has no data, but what it looks at has.
        for selector in selectors(expression) {
            if let Err(error) = prometheus.until(&selector) {
                panic!("{error}, of `{selector}` in {alert}");
            }
        }
    }
    let rules = prometheus.ask("rules").unwrap();
    let rules: Vec<&Value> = rules["groups"]
        .as_array()
        .unwrap()
        .iter()
        .flat_map(|group| group["rules"].as_array().unwrap())
        .collect();
    assert_eq!(rules.len(), alerts.len());
    for rule in rules {
        assert_eq!(rule["health"], "ok", "{rule}");
        let firing = rule["state"] == "firing" && rule["labels"]["severity"] == "page";
        assert!(!firing, "{rule}");
    }
}
