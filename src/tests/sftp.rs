//! Audiences on their way to a server of OpenSSH, read back by its own client.

use serde_json::{Value, json};
use std::fs;
use std::io::Write;
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::harness::{Server, post};
use super::push::held;

/// A server that lets one key in, and nothing else.
struct Sshd {
    folder: tempfile::TempDir,
    port: u16,
    child: Option<Child>,
}

fn make_key(path: &Path) {
    let made = Command::new("ssh-keygen")
        .args(["-q", "-t", "ed25519", "-N", "", "-f"])
        .arg(path)
        .status()
        .expect("ssh-keygen is missing: run `make tools`");
    assert!(made.success());
}

impl Sshd {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        for name in ["host", "client", "other"] {
            make_key(&at(name));
        }
        fs::create_dir(at("inbox")).unwrap();
        let port = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let settings = format!(
            "Port {port}\nListenAddress 127.0.0.1\nHostKey {}\nPidFile none\nAuthorizedKeysFile {}\nStrictModes no\n\
             UsePAM no\nPasswordAuthentication no\nPermitRootLogin prohibit-password\nSubsystem sftp internal-sftp\n",
            at("host").display(),
            at("client.pub").display()
        );
        fs::write(at("settings"), settings).unwrap();
        // Where it is run by root it goes there first.
        let _ = fs::create_dir_all("/run/sshd");
        let mut sshd = Self { folder, port, child: None };
        sshd.start();
        sshd
    }

    fn at(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn start(&mut self) {
        let child = Command::new("/usr/sbin/sshd")
            .args(["-D", "-e", "-f"])
            .arg(self.at("settings"))
            .stderr(fs::File::create(self.at("log")).unwrap())
            .spawn()
            .expect("sshd is missing: run `make tools`");
        self.child = Some(child);
        let until = Instant::now() + Duration::from_secs(20);
        while TcpStream::connect(("127.0.0.1", self.port)).is_err() {
            let log = || fs::read_to_string(self.at("log")).unwrap_or_default();
            assert!(Instant::now() < until, "sshd does not answer: {}", log());
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    fn fingerprint(&self) -> String {
        let shown =
            Command::new("ssh-keygen").arg("-lf").arg(self.at("host.pub")).output().unwrap();
        let text = String::from_utf8(shown.stdout).unwrap();
        text.split_whitespace().nth(1).unwrap().to_owned()
    }

    /// Fetches the inbox with OpenSSH's own client.
    fn fetch(&self) -> PathBuf {
        let to = self.at("fetched");
        let _ = fs::remove_dir_all(&to);
        fs::create_dir(&to).unwrap();
        let mut client = Command::new("sftp")
            .args(["-q", "-b", "-", "-P", &self.port.to_string(), "-i"])
            .arg(self.at("client"))
            .args(["-o", "StrictHostKeyChecking=no", "-o", "UserKnownHostsFile=/dev/null"])
            .args(["-o", "IdentitiesOnly=yes", &format!("{}@127.0.0.1", user())])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("sftp is missing: run `make tools`");
        let command = format!("get -r {} {}\n", self.at("inbox").display(), to.display());
        client.stdin.take().unwrap().write_all(command.as_bytes()).unwrap();
        assert!(client.wait().unwrap().success());
        to.join("inbox")
    }
}

impl Drop for Sshd {
    fn drop(&mut self) {
        self.stop();
    }
}

fn user() -> String {
    String::from_utf8(Command::new("id").arg("-un").output().unwrap().stdout)
        .unwrap()
        .trim()
        .to_owned()
}

const SEGMENT: &str =
    "rule = 'did purchase in 1h'\nmin_size = 1\n[[activate]]\ndestination = \"partner\"\n";

fn configure(server: &mut Server, sshd: &Sshd, more: &str) {
    assert!(server.stop());
    let destination = format!(
        "[[destination]]\nname = \"partner\"\nkind = \"sftp\"\nhost = \"127.0.0.1\"\nport = {}\nuser = \"{}\"\n\
         path = \"{}\"\nevery = \"1h\"\n{more}",
        sshd.port,
        user(),
        sshd.at("inbox").display()
    );
    fs::write(server.folder().join("destinations.toml"), destination).unwrap();
    server.run();
}

fn purchases(server: &Server, users: std::ops::Range<u32>) {
    let events: Vec<Value> = users
        .map(|user| json!({ "site": "t", "event": "purchase", "ids": { "user_id": format!("u{user}") } }))
        .collect();
    let count = events.len();
    assert_eq!(server.post_events(&Value::Array(events)).json()["accepted"], count);
}

fn push(server: &Server) -> Value {
    let output = server.throng(&["destination", "push", "partner", "--json"]);
    serde_json::from_slice::<Value>(&output.stdout).unwrap()[0].clone()
}

#[test]
fn files_arrive_whole_at_a_server_that_shows_the_key_that_it_should() {
    let mut sshd = Sshd::new();
    let mut server = Server::start(&[("buyers", SEGMENT)]);
    let key = |name: &str| format!("key = \"file:{}\"\n", sshd.at(name).display());
    let (own, other) = (key("client"), key("other"));
    let fingerprint = format!("host_key = \"{}\"\n", sshd.fingerprint());

    // Its key is not known yet: what it is, is told, and nothing is sent.
    configure(&mut server, &sshd, &own);
    purchases(&server, 0..300);
    server.until("the key is told", || {
        push(&server)["trouble"].as_str().is_some_and(|why| why.contains(&sshd.fingerprint()))
    });
    assert!(fs::read_dir(sshd.at("inbox")).unwrap().next().is_none());
    let tested = server.throng(&["destination", "test", "partner"]);
    assert!(String::from_utf8_lossy(&tested.stdout).contains("write it there"), "{tested:?}");
    // Nor is anybody let in with another key.
    configure(&mut server, &sshd, &format!("{other}{fingerprint}"));
    server.until("the refusal is told", || {
        push(&server)["trouble"].as_str().is_some_and(|why| why.contains("does not let"))
    });

    configure(&mut server, &sshd, &format!("{own}{fingerprint}"));
    assert!(server.ok(&["destination", "test", "partner"]).contains("ready"));
    server.until("all are held", || push(&server)["held"] == 300);
    let users = |range: std::ops::Range<u32>| {
        range
            .map(|user| ("user_id".to_owned(), format!("u{user}")))
            .collect::<std::collections::BTreeSet<_>>()
    };
    assert_eq!(held(&sshd.fetch().join("buyers")), users(0..300));
    let left: Vec<_> = fs::read_dir(sshd.at("inbox/buyers"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .filter(|name| !name.ends_with(".csv"))
        .collect();
    assert_eq!(left, [""; 0], "nothing is left aside");

    // While it is away nothing is lost; who opted out meanwhile is removed when it is back.
    sshd.stop();
    purchases(&server, 300..310);
    let body = json!({ "site": "t", "event": "x", "ids": { "user_id": "u7" } }).to_string();
    let url = format!("{}/v1/events", server.collect());
    assert_eq!(post(&url, &body, &[("Sec-GPC", "1")]).json()["accepted"], 1);
    server.until("the trouble is told", || push(&server)["trouble"].is_string());
    sshd.start();
    server.until("it is in step", || push(&server)["held"] == 309);
    let mut expected = users(0..310);
    expected.remove(&("user_id".to_owned(), "u7".to_owned()));
    assert_eq!(held(&sshd.fetch().join("buyers")), expected);

    // What has the name of the next file, and other content, is not written over.
    let deliveries = server.ok(&["destination", "deliveries", "partner", "--json"]);
    let last = serde_json::from_str::<Value>(&deliveries).unwrap()[0].clone();
    for generation in
        last["generation"].as_u64().unwrap()..last["generation"].as_u64().unwrap() + 40
    {
        for seq in 1..4 {
            let path = sshd.at("inbox/buyers").join(format!("{generation}-{seq}.csv"));
            if !path.exists() {
                fs::write(path, "theirs").unwrap();
            }
        }
    }
    purchases(&server, 400..401);
    server.until("it is told", || {
        push(&server)["trouble"].as_str().is_some_and(|why| why.contains("with other content"))
    });
}
