//! TLS that this process speaks itself, on both listeners.

use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use super::wire::BROWSER;
use super::wire::address;
use crate::certificates::Certificates;
use crate::harness::Server;

/// A server with TLS on both listeners, whose files are copies that can be changed.
fn start(made: &Certificates, folder: &Path) -> Server {
    show(made, "server", folder);
    let at = |name: &str| folder.join(name).display().to_string();
    let tls =
        format!("tls = {{ certificate = \"{}\", key = \"{}\" }}\n", at("tls.pem"), at("tls.key"));
    let segments = [("buyers", "rule = 'did purchase'\nmin_size = 1")];
    Server::start_with(&segments, &format!("[collect]\n{tls}[console]\n{tls}"), &[])
}

fn show(made: &Certificates, name: &str, folder: &Path) {
    for (from, to) in [("pem", "tls.pem"), ("key", "tls.key")] {
        fs::copy(made.file(&format!("{name}.{from}")), folder.join(to)).unwrap();
    }
}

/// What curl says, which trusts `ca` and nobody else.
fn curl(ca: &Path, arguments: &[&str]) -> (bool, String) {
    let mut command = Command::new("curl");
    command
        .args(["-s", "-S", "-i", "--noproxy", "*", "--max-time", "20", "-A", BROWSER, "--cacert"])
        .arg(ca);
    let output = command.args(arguments).output().expect("curl is installed");
    let said = if output.status.success() { output.stdout } else { output.stderr };
    (output.status.success(), String::from_utf8_lossy(&said).into_owned())
}

#[test]
fn both_listeners_speak_tls_and_cookies_know_it() {
    let (made, folder) = (Certificates::make(), tempfile::tempdir().unwrap());
    let server = start(&made, folder.path());
    let (ca, at) = (made.file("ca.pem"), address(&server));
    for version in ["--tlsv1.2", "--tlsv1.3"] {
        let pixel = format!("https://{at}/pixel.gif?s=t&e=purchase&id.user_id=1");
        let (is_well, said) = curl(&ca, &[version, "--tls-max", &version[6..], &pixel]);
        assert!(is_well && said.starts_with("HTTP/1.1 200"), "{said}");
    }
    let (_, said) = curl(&ca, &[&format!("https://{at}/pixel.gif?s=t")]);
    let cookie = said.lines().find_map(|line| line.strip_prefix("set-cookie: ")).unwrap();
    assert!(cookie.starts_with("__Host-throng=") && cookie.contains("Secure"), "{cookie}");
    // Who trusts somebody else does not take it for the server, and who speaks no TLS is not answered.
    assert!(!curl(&made.file("other-ca.pem"), &[&format!("https://{at}/")]).0);
    assert!(!curl(&ca, &[&format!("http://{at}/")]).0);
    assert!(!curl(&ca, &["--tls-max", "1.1", &format!("https://{at}/")]).0);
    // Commands on the machine find their way, with the token.
    assert_eq!(server.count("did purchase"), 1);
    let console = server.console().replace("http://", "https://");
    let (_, said) = curl(&ca, &[&format!("{console}/metrics")]);
    assert!(
        said.contains(
            "throng_connections_refused_total{listener=\"public\",reason=\"handshake\"} 3"
        ),
        "{said}"
    );
    assert!(curl(&ca, &[&format!("{console}/api/v1/segments")]).1.starts_with("HTTP/1.1 401"));
}

#[test]
fn a_renewed_certificate_is_shown_without_a_restart_and_a_broken_one_is_not() {
    let (made, folder) = (Certificates::make(), tempfile::tempdir().unwrap());
    let mut server = start(&made, folder.path());
    let url = format!("https://{}/.well-known/gpc.json", address(&server));
    let is_trusted = |by: &str| curl(&made.file(by), &[&url]).0;
    assert!(is_trusted("ca.pem") && !is_trusted("other-ca.pem"));
    let hangup = |server: &Server| {
        let pid = i32::try_from(server.pid()).unwrap();
        let pid = rustix::process::Pid::from_raw(pid).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::HUP).unwrap();
    };
    // Half a renewal: the key is another one's.
    fs::copy(made.file("stranger.pem"), folder.path().join("tls.pem")).unwrap();
    hangup(&server);
    server.until("it is told", || server.log().contains("collect.tls.key"));
    assert!(is_trusted("ca.pem"));
    show(&made, "stranger", folder.path());
    // By itself, without being asked.
    server.until("the renewed one is shown", || is_trusted("other-ca.pem"));
    assert!(!is_trusted("ca.pem"));
    show(&made, "server", folder.path());
    hangup(&server);
    server.until("the first is shown again", || is_trusted("ca.pem"));
    assert!(server.stop());
}

#[test]
fn what_cannot_be_shown_stops_the_start_with_its_name() {
    let made = Certificates::make();
    let server = Server::start(&[]);
    let file = |name: &str| made.file(name).display().to_string();
    for (certificate, key, said) in [
        (file("server.pem"), file("stranger.key"), "collect.tls.key"),
        (file("server.key"), file("server.key"), "collect.tls.certificate"),
        (file("server.pem"), file("server.pem"), "collect.tls.key"),
        (file("server.pem"), "/nowhere/tls.key".to_owned(), "/nowhere/tls.key"),
    ] {
        let settings = format!(
            "[collect]\nlisten = \"127.0.0.1:0\"\ntls = {{ certificate = \"{certificate}\", key = \"{key}\" }}\n"
        );
        fs::write(server.folder().join("other.toml"), settings).unwrap();
        let console = ["--set", "console.listen=127.0.0.1:0"];
        let arguments =
            [&["serve", "--config", "other.toml", "--data", "other"][..], &console].concat();
        let output = server.throng(&arguments);
        let text = String::from_utf8_lossy(&output.stderr);
        assert!(!output.status.success() && text.contains(said), "{text}");
    }
}

#[test]
fn who_does_not_finish_a_handshake_is_not_waited_for() {
    let (made, folder) = (Certificates::make(), tempfile::tempdir().unwrap());
    let server = start(&made, folder.path());
    let mut held: Vec<TcpStream> =
        (0..200).map(|_| TcpStream::connect(address(&server)).unwrap()).collect();
    held.iter_mut().for_each(|stream| stream.write_all(b"\x16\x03\x01\x02\0").unwrap());
    let url = format!("https://{}/pixel.gif?s=t", address(&server));
    assert!(curl(&made.file("ca.pem"), &[&url]).1.starts_with("HTTP/1.1 200"));
    for stream in &mut held {
        stream.set_read_timeout(Some(Duration::from_secs(15))).unwrap();
        let closed = std::io::Read::read(stream, &mut [0; 64]);
        assert!(
            closed.is_ok() || closed.is_err_and(|e| e.kind() != std::io::ErrorKind::WouldBlock)
        );
    }
    assert!(!server.log().contains("panicked"), "{}", server.log());
}
