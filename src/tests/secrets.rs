//! No secret is ever shown: not in the log at its most talkative, not in an answer, not by a command.

use serde_json::Value;
use serde_json::json;
use std::fs;
use std::io::Write as _;
use std::process::Command;
use std::process::Stdio;

use super::harness::Server;
use super::harness::THRONG;

/// What stands where, each of its own.
const SECRETS: [(&str, &str); 14] = [
    ("HOOK", "s3cret-of-hook"),
    ("META_TOKEN", "s3cret-of-meta-token"),
    ("META", "s3cret-of-meta"),
    ("TTD_TOKEN", "s3cret-of-ttd-token"),
    ("TTD", "s3cret-of-ttd"),
    ("TIKTOK", "s3cret-of-tiktok"),
    ("PINS", "s3cret-of-pins"),
    ("LINKEDIN", "s3cret-of-linkedin"),
    ("XANDR", "s3cret-of-xandr"),
    ("GOOGLE", "s3cret-of-google-client"),
    ("REFRESH", "s3cret-of-google-refresh"),
    ("S3_KEY", "s3cret-of-s3-access"),
    ("S3", "s3cret-of-s3"),
    ("SFTP", "s3cret-of-sftp"),
];

const DESTINATIONS: [&str; 9] =
    ["hook", "meta", "ttd", "tiktok", "pins", "linkedin", "xandr", "google", "bucket"];

fn destinations() -> String {
    let one = |name: &str, kind: &str, more: &str| {
        format!(
            "[[destination]]\nname = \"{name}\"\nkind = \"{kind}\"\nallow_private = true\nevery = \"1h\"\n{more}\n"
        )
    };
    let url = "url = \"http://127.0.0.1:1/\"\naccount = \"77\"\n";
    [
        one("hook", "webhook", "url = \"http://127.0.0.1:1/h?key=s3cret-of-address\"\nsecret = \"@hook@\""),
        one("meta", "meta", &format!("{url}token = \"env:META_TOKEN\"\nsecret = \"env:META\"")),
        one("ttd", "trade-desk", &format!("{url}token = \"env:TTD_TOKEN\"\nsecret = \"env:TTD\"")),
        one("tiktok", "tiktok", &format!("{url}token = \"env:TIKTOK\"")),
        one("pins", "pinterest", &format!("{url}token = \"env:PINS\"\naudiences = {{ buyers = \"1\" }}")),
        one("linkedin", "linkedin", &format!("{url}source = \"A\"\ntoken = \"env:LINKEDIN\"")),
        one(
            "xandr",
            "xandr",
            "url = \"http://127.0.0.1:1/\"\nmember = \"4\"\nusername = \"u\"\npassword = \"env:XANDR\"",
        ),
        one(
            "google",
            "google",
            "url = \"http://127.0.0.1:1/v1\"\ntoken_url = \"http://127.0.0.1:1/token\"\naccount = \"1234567890\"\n\
             terms_accepted = true\nad_user_data = true\nad_personalization = true\nclient_id = \"c\"\n\
             client_secret = \"env:GOOGLE\"\nrefresh_token = \"env:REFRESH\"",
        ),
        one(
            "bucket",
            "s3",
            "path = \"s3://bucket/x\"\nendpoint = \"http://127.0.0.1:1\"\naccess_key = \"env:S3_KEY\"\nsecret_key = \"env:S3\"",
        ),
        one(
            "partner",
            "sftp",
            "host = \"127.0.0.1\"\nport = 1\nuser = \"u\"\npath = \"/x\"\npassword = \"env:SFTP\"\n\
             host_key = \"SHA256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA\"",
        ),
    ]
    .concat()
}

/// Everything that a command prints.
fn said(server: &Server, arguments: &[&str]) -> String {
    let output = server.throng(arguments);
    let parts = [output.stdout, output.stderr].concat();
    String::from_utf8_lossy(&parts).into_owned()
}

/// Runs a command with something on its standard input.
fn fed(server: &Server, arguments: &[&str], input: &str) -> String {
    let mut child = Command::new(THRONG)
        .current_dir(server.folder())
        .args(["--config", "throng.toml"])
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{arguments:?}");
    String::from_utf8(output.stdout).unwrap().trim().to_owned()
}

fn set_up(server: &mut Server) {
    assert!(server.stop());
    let key = server.ok(&["secret", "new-key"]);
    fs::write(server.folder().join("master"), &key).unwrap();
    let settings = fs::read_to_string(server.folder().join("throng.toml")).unwrap();
    let settings = format!("[secrets]\nmaster_key = \"file:master\"\n{settings}");
    fs::write(server.folder().join("throng.toml"), settings).unwrap();
    let envelope =
        fed(server, &["secret", "encrypt", "destination.hook.secret"], "s3cret-of-hook\n");
    let text = destinations().replace("@hook@", &envelope);
    fs::write(server.folder().join("destinations.toml"), text).unwrap();
}

#[test]
fn no_secret_is_ever_shown() {
    let mut server = Server::start(&[]);
    set_up(&mut server);
    let activate: String = DESTINATIONS
        .iter()
        .chain(&["partner"])
        .map(|name| format!("\n[[activate]]\ndestination = \"{name}\"\n"))
        .collect();
    let segment =
        format!("name = \"Buyers\"\nrule = \"did purchase in 30d\"\nmin_size = 1\n{activate}");
    server.write_segment("buyers", &segment);
    let mut environment: Vec<(&'static str, String)> =
        SECRETS.map(|(name, secret)| (name, secret.to_owned())).to_vec();
    environment.push(("THRONG_LOG", "trace".to_owned()));
    server.set_environment(&environment);
    server.run();
    let event = |user: u32| {
        json!({ "site": "t", "event": "purchase",
                "ids": { "user_id": format!("u{user}"), "email": format!("u{user}@a.example"), "ttd": format!("t{user}") } })
    };
    server.accepts(&(0..5).map(event).collect::<Vec<Value>>());
    let mut all = String::new();
    for name in DESTINATIONS.iter().chain(&["partner"]) {
        for command in ["push", "test", "deliveries", "refused", "waterfall"] {
            all.push_str(&said(&server, &["destination", command, name]));
        }
    }
    // The calls were tried, with what they need, and failed where nobody listens.
    let listed = server.api("/api/v1/destinations");
    let statuses = listed.json()["destinations"].clone();
    for name in ["hook", "meta", "bucket"] {
        let status = statuses.as_array().unwrap().iter().find(|one| one["name"] == name).unwrap();
        let trouble = status.to_string();
        assert!(!trouble.contains("does not open") && !trouble.contains("is not set"), "{trouble}");
    }
    all.push_str(&listed.body);
    let document = server.api("/openapi.json").json();
    for (path, operations) in document["paths"].as_object().unwrap() {
        if operations.get("get").is_some() {
            let path = path
                .replace("{name}", "hook")
                .replace("{id}", "buyers")
                .replace("{segment}", "buyers");
            let path = path.replace("{namespace}", "user_id").replace("{value}", "u1");
            all.push_str(&server.api(&path).body);
        }
    }
    for arguments in [
        &["destination", "list"][..],
        &["destination", "list", "--json"],
        &["doctor"],
        &["doctor", "--json"],
        &["audit", "list", "--json"],
        &["token", "list"],
        &["why", "buyers", "user_id", "u1"],
        &["snippet", "t", "--config", "throng.toml"],
    ] {
        all.push_str(&said(&server, arguments));
    }
    all.push_str(&server.api_send("PUT", "/api/v1/segments/x", "s = ", "application/toml").body);
    let token = fs::read_to_string(server.data().join("token")).unwrap();
    let master = fs::read_to_string(server.folder().join("master")).unwrap();
    all.push_str(&server.log());
    assert!(all.contains("TRACE") && all.contains("enc:v1:…"), "{}", all.len());
    for secret in SECRETS.iter().map(|(_, secret)| *secret).chain([
        "s3cret-of-address",
        token.trim(),
        master.trim(),
        "s3cret",
    ]) {
        if let Some(at) = all.find(secret) {
            let from = all[..at].rfind('\n').unwrap_or(0);
            panic!("{secret} is shown: {}", all[from..].chars().take(600).collect::<String>());
        }
    }
    // What was encrypted opens, and another master key is taken.
    let rotated = server.ok(&["secret", "new-key"]);
    fs::write(server.folder().join("next"), rotated).unwrap();
    let told =
        server.ok(&["secret", "rotate", "--config", "throng.toml", "--new-key", "file:next"]);
    assert!(told.contains("destinations.toml: 1 wrapped"), "{told}");
    let hook = |server: &Server| said(server, &["destination", "push", "hook", "--json"]);
    assert!(server.stop());
    server.run();
    assert!(hook(&server).contains("does not open"), "{}", hook(&server));
    assert!(server.stop());
    fs::rename(server.folder().join("next"), server.folder().join("master")).unwrap();
    server.run();
    assert!(!hook(&server).contains("does not open"));
}

/// Whatever names an address is held to the internet, unless it is said that it may be private.
#[test]
fn nothing_private_is_called_unless_that_is_said() {
    let mut server = Server::start(&[]);
    set_up(&mut server);
    let text = fs::read_to_string(server.folder().join("destinations.toml")).unwrap();
    // Written as this machine's it would be meant.
    let text = text.replace("allow_private = true\n", "").replace("127.0.0.1", "10.255.255.1");
    fs::write(server.folder().join("destinations.toml"), text).unwrap();
    let environment = SECRETS.map(|(name, secret)| (name, secret.to_owned()));
    server.set_environment(&environment);
    server.run();
    for name in DESTINATIONS.iter().chain(&["partner"]) {
        let said = said(&server, &["destination", "test", name]);
        assert!(said.contains("allow_private = true"), "{name}: {said}");
    }
    assert!(server.stop());
    let key = |name: &str| format!("archive.{name}=env:S3");
    let (path, endpoint) = ("archive.path=s3://bucket/y", "archive.endpoint=http://10.255.255.1:1");
    let output = server
        .command()
        .args([
            "--set",
            path,
            "--set",
            endpoint,
            "--set",
            &key("access_key"),
            "--set",
            &key("secret_key"),
        ])
        .output()
        .unwrap();
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(!output.status.success() && errors.contains("allow_private = true"), "{errors}");
}
