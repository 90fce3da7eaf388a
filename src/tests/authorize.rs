//! A refresh token on its way from somebody who agrees in a browser to its file, and the pushes that use it.

use serde_json::Value;
use std::fs;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Read;
use std::io::Write;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::process::Child;
use std::process::ChildStdout;
use std::process::Command;
use std::process::Stdio;
use std::time::Duration;
use std::time::Instant;

use super::google;
use super::harness::Answer;
use super::harness::Server;
use super::harness::THRONG;
use super::harness::get;
use super::harness::post;
use super::standins::Fault;
use super::standins::Reply;
use super::standins::consent::Choice;

const GRANT: &str =
    "refresh_token = \"file:refresh\"\nclient_id = \"a-client\"\nclient_secret = \"file:secret\"\n";

/// A command that waits for a browser.
struct Asking {
    child: Child,
    out: BufReader<ChildStdout>,
    url: String,
    redirect_uri: String,
}

/// How one ended.
struct Ended {
    code: Option<i32>,
    out: String,
    error: String,
}

fn command(server: &Server, arguments: &[&str]) -> Command {
    let mut command = Command::new(THRONG);
    command
        .current_dir(server.folder())
        .args(["destination", "authorize", "ads", "--config", "throng.toml"])
        .args(arguments)
        .env_remove("THRONG_DATA");
    command
}

/// Starts one, and reads what it wants opened.
fn ask(server: &Server, arguments: &[&str]) -> Asking {
    let mut child =
        command(server, arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    out.read_line(&mut line).unwrap();
    let line = line.trim_end();
    let (url, redirect_uri) = match serde_json::from_str::<Value>(line) {
        Ok(told) => {
            let text = |key: &str| told[key].as_str().unwrap().to_owned();
            (text("authorization_url"), text("redirect_uri"))
        }
        Err(_) => {
            let url = url::Url::parse(line).unwrap_or_else(|_| panic!("{line}"));
            let redirect_uri = url.query_pairs().find(|(name, _)| name == "redirect_uri");
            (line.to_owned(), redirect_uri.unwrap().1.into_owned())
        }
    };
    Asking { child, out, url, redirect_uri }
}

impl Asking {
    /// What the page of the platform sends a browser to.
    fn agreed(&self) -> String {
        let page = get(&self.url, &[]);
        assert_eq!(page.status, 302, "{page:?}");
        page.headers["location"].to_str().unwrap().to_owned()
    }

    /// Plays the browser.
    fn browse(&self) -> Answer {
        get(&self.agreed(), &[])
    }

    fn end(mut self) -> Ended {
        let until = Instant::now() + Duration::from_secs(30);
        while self.child.try_wait().unwrap().is_none() {
            assert!(Instant::now() < until, "the command goes on");
            std::thread::sleep(Duration::from_millis(10));
        }
        let (mut out, mut error) = (String::new(), String::new());
        self.out.read_to_string(&mut out).unwrap();
        self.child.stderr.take().unwrap().read_to_string(&mut error).unwrap();
        Ended { code: self.child.wait().unwrap().code(), out, error }
    }
}

impl Drop for Asking {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn what_somebody_agrees_to_is_written_for_the_server_alone_and_pushes_go_on_with_it() {
    let (server, platform, _standin) = google::start(GRANT);
    platform.set_refresh_token("another");
    google::purchases(&server, 0..20);
    google::waits_for(&server, 20);
    let trouble = server.push("ads")["trouble"].as_str().unwrap().to_owned();
    assert!(trouble.contains("destination authorize"), "{trouble}");
    let file = server.folder().join("refresh");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o644)).unwrap();

    let asking = ask(&server, &["--json"]);
    let page = asking.browse();
    assert_eq!(page.status, 200, "{page:?}");
    assert!(page.body.contains("<h1>Done</h1>"), "{page:?}");
    for (header, value) in [("cache-control", "no-store"), ("referrer-policy", "no-referrer")] {
        assert_eq!(page.headers[header], value);
    }
    let ended = asking.end();
    assert_eq!((ended.code, &*ended.error), (Some(0), ""));
    let done: Value = serde_json::from_str(&ended.out).unwrap();
    assert_eq!(done["refresh_token"], "file:refresh");
    let token = fs::read_to_string(&file).unwrap();
    assert_eq!(token, "1//agreed\n");
    assert!(!ended.out.contains(token.trim()) && !page.body.contains(token.trim()));
    assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    assert!(!server.folder().join("refresh.new").exists());
    google::in_step(&server, &platform, "buyers", &google::members(0..20));
}

#[test]
fn nothing_but_the_answer_ends_the_wait_and_the_answer_is_taken_once() {
    let (server, platform, _standin) = google::start(GRANT);
    let asking = ask(&server, &[]);
    let (uri, back) = (asking.redirect_uri.clone(), asking.agreed());
    let state = back.split(['?', '&']).find(|part| part.starts_with("state=")).unwrap().to_owned();
    let long = format!("{uri}?{state}&code={}", "x".repeat(20_000));
    for (url, status) in [
        (uri.clone(), 400),
        (format!("{uri}?code=stolen&state=another"), 400),
        (format!("{uri}?error=access_denied&state=another"), 400),
        (format!("{uri}?{state}&{state}&code=x"), 400),
        (long, 400),
        (format!("{uri}favicon.ico?{state}&code=x"), 404),
        (format!("{uri}elsewhere?{state}&error=access_denied"), 404),
    ] {
        let page = get(&url, &[]);
        assert_eq!(page.status, status, "{url}: {page:?}");
    }
    let address = uri.trim_start_matches("http://").trim_end_matches('/');
    let query = &back[uri.len()..];
    let raw = |text: &str| {
        let mut stream = TcpStream::connect(address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream.write_all(text.as_bytes()).unwrap();
        let mut answer = String::new();
        // It may be closed without a word.
        let _ = stream.read_to_string(&mut answer);
        answer
    };
    // Another method with all that is right; what is no request; and a head that does not end.
    let posted =
        raw(&format!("POST /{query} HTTP/1.1\r\nHost: {address}\r\nContent-Length: 0\r\n\r\n"));
    assert!(posted.starts_with("HTTP/1.1 404"), "{posted}");
    assert!(raw("\0\0\0\r\n\r\n").starts_with("HTTP/1.1 400"));
    let endless = raw(&format!("GET / HTTP/1.1\r\nX: {}", "x".repeat(1 << 20)));
    assert!(!endless.contains("200 OK"), "{endless}");
    let started = Instant::now();
    let slow = raw("GET / HTTP/1.1\r\nHost:");
    assert!(
        slow.starts_with("HTTP/1.1 408") && started.elapsed() < Duration::from_secs(15),
        "{slow}"
    );
    assert_eq!(fs::read_to_string(server.folder().join("refresh")).unwrap(), "first\n");

    assert_eq!(get(&back, &[]).status, 200);
    let ended = asking.end();
    assert_eq!(ended.code, Some(0));
    let said = "the refresh token is in refresh; `throng destination test ads` tries it";
    assert!(ended.out.starts_with(said) && !ended.out.contains("1//agreed"), "{}", ended.out);
    assert!(
        ended.error.starts_with("Open this address") && ended.error.contains("ssh -L"),
        "{}",
        ended.error
    );
    assert_eq!(
        platform.violations(),
        [""; 0],
        "no code but the right one was exchanged, and that once"
    );
}

#[test]
fn what_goes_wrong_is_told_in_the_browser_and_by_the_command_and_the_old_token_stays() {
    let (server, platform, standin) = google::start(GRANT);
    let file = server.folder().join("refresh");
    for (choice, part) in [
        (Choice::Deny, "access was not granted"),
        (Choice::Untick, "leave it ticked"),
        (Choice::AgreeOnline, "without a refresh token"),
        (Choice::AgreeLate, "too old or was used"),
    ] {
        platform.set_choice(choice);
        let asking = ask(&server, &[]);
        let page = asking.browse();
        assert!(page.status == 400 && page.body.contains(part), "{choice:?}: {page:?}");
        let ended = asking.end();
        assert_eq!((ended.code, &*ended.out), (Some(1), ""), "{}", ended.error);
        assert!(ended.error.contains(part) && ended.error.contains("again"), "{}", ended.error);
        assert_eq!(fs::read_to_string(&file).unwrap(), "first\n");
    }
    platform.set_choice(Choice::Agree);
    let asking = ask(&server, &[]);
    let back = asking.agreed();
    standin.script([Fault::Refuse(Reply::new(503, "busy"))]);
    assert_eq!(get(&back, &[]).status, 502);
    let ended = asking.end();
    assert_eq!(ended.code, Some(3));
    assert!(
        ended.error.contains("answered 503") && ended.error.contains("again"),
        "{}",
        ended.error
    );
    fs::write(server.folder().join("secret"), "not-its-secret\n").unwrap();
    let asking = ask(&server, &[]);
    assert!(asking.browse().body.contains("may not do this"));
    assert_eq!(asking.end().code, Some(1));
    assert_eq!(platform.violations(), [""; 0]);
    assert_eq!(fs::read_to_string(&file).unwrap(), "first\n");
}

#[test]
fn a_code_is_worth_nothing_to_who_has_seen_the_browser_come_back() {
    let (server, platform, standin) = google::start(GRANT);
    let asking = ask(&server, &[]);
    let back = asking.agreed();
    let code = back.split(['?', '&']).find_map(|part| part.strip_prefix("code=")).unwrap();
    let form = format!(
        "grant_type=authorization_code&code={code}&redirect_uri={}&client_id=a-client&client_secret=its-secret&\
         code_verifier={}",
        asking.redirect_uri,
        "x".repeat(43)
    );
    let stolen = post(&format!("http://{}/token", standin.address), &form, &[]);
    assert_eq!(stolen.json()["error"], "invalid_grant");
    // It was spent by that, and the command says so.
    assert!(get(&back, &[]).body.contains("too old or was used"));
    assert_eq!(asking.end().code, Some(1));
    let violations = platform.violations();
    assert!(
        violations[0].contains("the verifier") && violations[1].contains("used twice"),
        "{violations:?}"
    );
}

#[test]
fn a_wait_that_nobody_answers_ends_and_says_how_it_goes_on() {
    let (server, _platform, _standin) = google::start(GRANT);
    let asking = ask(&server, &["--json", "--timeout", "1s"]);
    assert_eq!(get(&format!("{}?code=x&state=y", asking.redirect_uri), &[]).status, 400);
    let ended = asking.end();
    assert_eq!(ended.code, Some(1));
    for part in ["nobody agreed within 1s", "1 calls came", "--timeout", "ssh -L"] {
        assert!(ended.error.contains(part), "{part}: {}", ended.error);
    }

    // For people, on a port that was told; and once more while that one waits.
    let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let port = port.to_string();
    let waiting = ask(&server, &["--port", &port]);
    assert_eq!(waiting.redirect_uri, format!("http://127.0.0.1:{port}/"));
    let second = command(&server, &["--port", &port]).output().unwrap();
    let error = String::from_utf8(second.stderr).unwrap();
    assert!(second.status.code() == Some(3) && error.contains("take another --port"), "{error}");
    let third = command(&server, &["--timeout", "1s"]).output().unwrap();
    let (out, error) =
        (String::from_utf8(third.stdout).unwrap(), String::from_utf8(third.stderr).unwrap());
    assert!(out.starts_with("http://127.0.0.1:") && out.lines().count() == 1, "{out}");
    assert!(error.contains("ssh -L"), "{error}");
    drop(waiting);

    let settings = server.folder().join("destinations.toml");
    let text = fs::read_to_string(&settings).unwrap();
    fs::write(&settings, text.replace("file:refresh", "env:REFRESH")).unwrap();
    let refused = command(&server, &[]).output().unwrap();
    let error = String::from_utf8(refused.stderr).unwrap();
    assert!(refused.status.code() == Some(1) && error.contains("make it a file"), "{error}");
    fs::write(&settings, text.replace("\"ads\"", "\"others\"")).unwrap();
    let refused = command(&server, &[]).output().unwrap();
    let error = String::from_utf8(refused.stderr).unwrap();
    assert!(
        error.contains("no destination is named `ads`") && error.contains("there is others"),
        "{error}"
    );
}
