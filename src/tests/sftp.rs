//! Audiences on their way to a server of OpenSSH, read back by its own client, and to one of `AsyncSSH`.

use serde_json::{Value, json};
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::archive::python;
use super::harness::{Server, post};
use super::push::held;

/// A server that lets one key in, and nothing else.
pub(super) struct Sshd {
    folder: tempfile::TempDir,
    pub(super) port: u16,
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
    pub(super) fn new() -> Self {
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

    pub(super) fn at(&self, name: &str) -> PathBuf {
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

    pub(super) fn fingerprint(&self) -> String {
        let shown =
            Command::new("ssh-keygen").arg("-lf").arg(self.at("host.pub")).output().unwrap();
        let text = String::from_utf8(shown.stdout).unwrap();
        text.split_whitespace().nth(1).unwrap().to_owned()
    }

    /// Fetches the inbox with OpenSSH's own client.
    pub(super) fn fetch(&self) -> PathBuf {
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

pub(super) fn user() -> String {
    String::from_utf8(Command::new("id").arg("-un").output().unwrap().stdout)
        .unwrap()
        .trim()
        .to_owned()
}

const SEGMENT: &str =
    "rule = 'did purchase in 1h'\nmin_size = 1\n[[activate]]\ndestination = \"partner\"\n";

fn configure(server: &mut Server, sshd: &Sshd, more: &str) {
    configure_at(server, sshd.port, &user(), &sshd.at("inbox"), more);
}

fn configure_at(server: &mut Server, port: u16, user: &str, path: &Path, more: &str) {
    assert!(server.stop());
    let destination = format!(
        "[[destination]]\nname = \"partner\"\nkind = \"sftp\"\nallow_private = true\nhost = \"127.0.0.1\"\nport = {port}\nuser = \"{user}\"\n\
         path = \"{}\"\nevery = \"1h\"\n{more}",
        path.display()
    );
    fs::write(server.folder().join("destinations.toml"), destination).unwrap();
    server.run();
}

fn purchases(server: &Server, users: std::ops::Range<u32>) {
    let events: Vec<Value> = users
        .map(|user| json!({ "site": "t", "event": "purchase", "ids": { "user_id": format!("u{user}") } }))
        .collect();
    server.accepts(&events);
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
        server.push("partner")["trouble"]
            .as_str()
            .is_some_and(|why| why.contains(&sshd.fingerprint()))
    });
    assert!(fs::read_dir(sshd.at("inbox")).unwrap().next().is_none());
    let tested = server.throng(&["destination", "test", "partner"]);
    assert!(String::from_utf8_lossy(&tested.stdout).contains("write it there"), "{tested:?}");
    // Nor is anybody let in with another key.
    configure(&mut server, &sshd, &format!("{other}{fingerprint}"));
    server.until("the refusal is told", || {
        server.push("partner")["trouble"].as_str().is_some_and(|why| why.contains("does not let"))
    });

    configure(&mut server, &sshd, &format!("{own}{fingerprint}"));
    assert!(server.ok(&["destination", "test", "partner"]).contains("ready"));
    server.until("all are held", || server.push("partner")["held"] == 300);
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
    server.until("the trouble is told", || server.push("partner")["trouble"].is_string());
    sshd.start();
    server.until("it is in step", || server.push("partner")["held"] == 309);
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
        server.push("partner")["trouble"]
            .as_str()
            .is_some_and(|why| why.contains("with other content"))
    });
}

/// Another's server, which lets one password in: as it is told, or as the answer to a question.
const ASYNC_SSH: &str = r#"
import asyncio, sys, asyncssh
folder, asks = sys.argv[1], sys.argv[2] == "asks"
class Server(asyncssh.SSHServer):
    def begin_auth(self, user): return True
    def password_auth_supported(self): return not asks
    def validate_password(self, user, password): return (user, password) == ("throng", "pass w0rd")
    def kbdint_auth_supported(self): return asks
    def get_kbdint_challenge(self, user, lang, submethods): return ("", "", "", [("Password:", False)])
    def validate_kbdint_response(self, user, responses): return list(responses) == ["pass w0rd"]
async def main():
    key = asyncssh.generate_private_key("ssh-ed25519")
    server = await asyncssh.create_server(Server, "127.0.0.1", 0, server_host_keys=[key],
        sftp_factory=lambda channel: asyncssh.SFTPServer(channel, chroot=folder))
    print(server.get_port(), key.get_fingerprint(), flush=True)
    await asyncio.Event().wait()
asyncio.run(main())
"#;

struct AsyncSsh(Child);

impl Drop for AsyncSsh {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_password_lets_in_whether_it_is_told_or_asked_for() {
    for way in ["told", "asks"] {
        let files = tempfile::tempdir().unwrap();
        fs::create_dir(files.path().join("in")).unwrap();
        let child = Command::new(python())
            .args(["-c", ASYNC_SSH, files.path().to_str().unwrap(), way])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut partner = AsyncSsh(child);
        let mut line = String::new();
        BufReader::new(partner.0.stdout.as_mut().unwrap()).read_line(&mut line).unwrap();
        let (port, fingerprint) = line.trim().split_once(' ').expect("the server does not start");

        let mut server = Server::start(&[("buyers", SEGMENT)]);
        fs::write(server.folder().join("password"), "hunter2\n").unwrap();
        let more = format!("password = \"file:password\"\nhost_key = \"{fingerprint}\"\n");
        configure_at(&mut server, port.parse().unwrap(), "throng", Path::new("/in"), &more);
        purchases(&server, 0..300);
        server.until("the refusal is told", || {
            server.push("partner")["trouble"].as_str().is_some_and(|why| {
                assert!(!why.contains("hunter2"));
                why.contains("does not let throng in")
            })
        });
        fs::write(server.folder().join("password"), "pass w0rd\n").unwrap();
        server.until("all are held", || server.push("partner")["held"] == 300);
        let expected = (0..300).map(|user| ("user_id".to_owned(), format!("u{user}"))).collect();
        assert_eq!(held(&files.path().join("in/buyers")), expected, "{way}");
    }
}
