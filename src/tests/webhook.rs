//! Audiences on their way to a destination, as signed calls.

use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::fs;
use std::process::Command;
use std::sync::Arc;

use super::certificates::Certificates;
use super::harness::{Server, THRONG};
use super::killed::Pushes;
use super::standins::webhook::{Line, Webhook};
use super::standins::{Fault, Reply, Request, Service, StandIn};

const SECRET: &str = "a secret of two";
const SEGMENT: &str = "rule = 'did purchase in 1h'\nmin_size = 1\n\
                       [[activate]]\ndestination = \"hook\"\nidentifiers = [\"user_id\"]\n";

fn start(url: &str, every: &str, environment: &[(&'static str, String)]) -> Server {
    let mut server = Server::start_in(&[("buyers", SEGMENT)], "", &[], environment);
    assert!(server.stop());
    let destination = format!(
        "[[destination]]\nname = \"hook\"\nkind = \"webhook\"\nallow_private = true\nurl = \"{url}\"\nsecret = \"file:secret\"\n\
         every = \"{every}\"\n"
    );
    fs::write(server.folder().join("destinations.toml"), destination).unwrap();
    fs::write(server.folder().join("secret"), format!("{SECRET}\n")).unwrap();
    server.run();
    server
}

fn purchases(server: &Server, users: std::ops::Range<u32>) {
    for from in users.clone().step_by(500) {
        let events: Vec<Value> = (from..users.end.min(from + 500))
            .map(|user| {
                json!({ "site": "t", "event": "purchase", "ids": { "user_id": user.to_string() } })
            })
            .collect();
        let count = events.len();
        assert_eq!(server.post_events(&Value::Array(events)).json()["accepted"], count);
    }
}

fn users(users: std::ops::Range<u32>) -> BTreeSet<Line> {
    users.map(|user| ("user_id".to_owned(), user.to_string())).collect()
}

#[test]
fn a_receiver_is_kept_in_step_whatever_becomes_of_calls() {
    let receiver = Arc::new(Webhook::new(SECRET));
    let standin = StandIn::start(Arc::clone(&receiver) as _, None);
    let url = format!("http://{}/in?key=k3y", standin.address);
    let mut server = start(&url, "100ms", &[]);
    assert!(server.ok(&["destination", "test", "hook"]).contains("ready"));
    standin.script([
        Fault::Refuse(Reply::new(503, "later")),
        Fault::LoseAnswer,
        Fault::Lose,
        Fault::Refuse(Reply::new(429, "slower").with("Retry-After", "1")),
        Fault::LoseAnswer,
    ]);
    purchases(&server, 0..2_500);
    let in_step = |users: BTreeSet<Line>| {
        server.until("the receiver is in step", || {
            // Sooner than it tries again by itself.
            server.push("hook");
            receiver.held("buyers") == users
        });
    };
    in_step(users(0..2_500));
    assert!(standin.is_through());
    assert_eq!(receiver.largest(), 1_000);
    let (_, repeats) = receiver.batches();
    assert!(repeats >= 1, "an answer that was lost is asked for again under the same name");

    // A server that is killed while an answer is under way asks again too.
    standin.script([Fault::LoseAnswer]);
    purchases(&server, 2_500..2_600);
    server.until("the call was made", || standin.is_through());
    server.kill();
    server.run();
    let again = || receiver.held("buyers") == users(0..2_600) && receiver.batches().1 > repeats;
    server.until("the call is made again", again);

    let shown = server.api("/api/v1/destinations/hook").body;
    assert!(
        shown.contains("/in?…") && !shown.contains("k3y") && !shown.contains(SECRET),
        "{shown}"
    );
    fs::remove_file(server.folder().join("segments/buyers.toml")).unwrap();
    server.until("nothing is held", || receiver.held("buyers").is_empty());
}

#[test]
fn a_call_that_is_refused_waits_for_someone_and_goes_on_when_it_is_pushed() {
    let receiver = Arc::new(Webhook::new(SECRET));
    let standin = StandIn::start(Arc::clone(&receiver) as _, None);
    let url = format!("http://{}/in?key=k3y", standin.address);
    let server = start(&url, "1h", &[]);
    purchases(&server, 0..3);
    standin.script([Fault::Refuse(Reply::new(401, "who are you?"))]);
    let report = server.push("hook");
    assert!(report["trouble"].as_str().unwrap().contains("answered 401: who are you?"), "{report}");
    let destination = server.api("/api/v1/destinations/hook").json();
    assert_eq!(destination["segments"][0]["parked"], true);
    let parked = server.api("/metrics").body;
    assert!(parked.contains("throng_delivery_parked{destination=\"hook\"} 1"), "{parked}");
    assert_eq!(server.push("hook")["held"], 3);
    let deliveries = server.ok(&["destination", "deliveries", "hook"]);
    for part in ["buyers", "acknowledged", "answered 401: who are you?"] {
        assert!(deliveries.contains(part), "{part} in {deliveries}");
    }
    assert_eq!(receiver.held("buyers"), users(0..3));

    fs::remove_file(server.folder().join("secret")).unwrap();
    purchases(&server, 3..4);
    let report = server.push("hook");
    assert!(report["trouble"].as_str().unwrap().contains("secret: cannot read"), "{report}");
    let test = server.throng(&["destination", "test", "hook"]);
    assert_eq!(test.status.code(), Some(1));
    fs::write(server.folder().join("secret"), SECRET).unwrap();
    assert_eq!(server.push("hook")["held"], 4);
    assert_eq!(receiver.held("buyers"), users(0..4));
}

/// Something that answers as a server without destinations does.
struct Empty;

impl Service for Empty {
    fn answer(&self, _: &Request) -> Reply {
        Reply::new(200, r#"{"destinations":[]}"#)
    }
}

/// TLS with one of some certificates.
pub(super) fn tls(made: &Certificates, name: &str) -> Arc<rustls::ServerConfig> {
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    let chain = CertificateDer::pem_file_iter(made.file(&format!("{name}.pem"))).unwrap();
    let key = PrivateKeyDer::from_pem_file(made.file(&format!("{name}.key"))).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_no_client_auth()
        .with_single_cert(chain.map(Result::unwrap).collect(), key)
        .unwrap();
    Arc::new(config)
}

#[test]
fn a_receiver_of_tls_is_who_its_certificate_says_or_nothing_is_sent() {
    let made = Certificates::make();
    for (name, is_trusted) in
        [("server", true), ("elsewhere", false), ("expired", false), ("stranger", false)]
    {
        let receiver = Arc::new(Webhook::new(SECRET));
        let standin = StandIn::start(Arc::clone(&receiver) as _, Some(tls(&made, name)));
        let url = format!("https://localhost:{}/in?key=k3y", standin.address.port());
        let roots = made.file("ca.pem").to_str().unwrap().to_owned();
        let server = start(&url, "1h", &[("SSL_CERT_FILE", roots)]);
        purchases(&server, 0..2);
        let report = server.push("hook");
        assert_eq!(report["trouble"].is_null(), is_trusted, "{name}: {report}");
        let expected = if is_trusted { users(0..2) } else { BTreeSet::new() };
        assert_eq!(receiver.held("buyers"), expected, "{name}");

        // The command line calls a server behind TLS in the same way.
        let standin = StandIn::start(Arc::new(Empty), Some(tls(&made, name)));
        let mut command = Command::new(THRONG);
        let url = format!("https://localhost:{}", standin.address.port());
        command.args(["--server", &url, "--token", "t", "destination", "list"]);
        let output = command.env("SSL_CERT_FILE", made.file("ca.pem")).output().unwrap();
        let code = if is_trusted { 0 } else { 3 };
        assert_eq!(output.status.code(), Some(code), "{name}: {output:?}");
    }
}

#[test]
fn a_crash_at_any_call_leaves_a_receiver_in_step() {
    let receiver = Arc::new(Webhook::new(SECRET));
    let standin = StandIn::start(Arc::clone(&receiver) as _, None);
    let server = start(&format!("http://{}/in?key=k3y", standin.address), "1h", &[]);
    let has = |people: &BTreeSet<u32>| {
        let lines = people.iter().map(|one| ("user_id".to_owned(), one.to_string()));
        receiver.held("buyers") == lines.collect()
    };
    let event = |user: u32| json!({ "site": "t", "event": "purchase", "ids": { "user_id": user.to_string() } });
    Pushes { server, standin: &standin, destination: "hook", event: &event, has: &has }
        .survive_a_crash_at_any_call();
}
