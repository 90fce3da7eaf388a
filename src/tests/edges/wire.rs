//! Requests as bytes on a socket, and what came back of them.

use std::fs;
use std::io::Read;
use std::io::Write;
use std::net::Shutdown;
use std::net::TcpStream;
use std::time::Duration;

use crate::harness::Server;

/// A browser's own words, which no list takes for a crawler's.
pub(super) const BROWSER: &str = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/120.0.0.0 \
     Safari/537.36";

/// The public listener's address and port.
pub(super) fn address(server: &Server) -> String {
    server.collect().split_once("://").unwrap().1.to_owned()
}

/// A request with its body's length.
pub(super) fn request(method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut head = format!("{method} {path} HTTP/1.1\r\nHost: collect.example\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    if !body.is_empty() || method == "POST" {
        head.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    head.push_str("\r\n");
    [head.as_bytes(), body].concat()
}

/// Everything that comes back of bytes, after which nothing is sent.
pub(super) fn exchange(address: &str, sent: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream.set_write_timeout(Some(Duration::from_secs(20))).unwrap();
    // What is refused may be cut off on its way.
    let _ = stream.write_all(sent);
    let _ = stream.shutdown(Shutdown::Write);
    let mut came = Vec::new();
    let _ = stream.read_to_end(&mut came);
    came
}

/// The answer to a request.
pub(super) struct Answer {
    pub(super) status: u16,
    /// Lines of the head after the first.
    pub(super) head: String,
    pub(super) body: Vec<u8>,
}

impl Answer {
    /// The first answer in what came back; status 0 where there is none.
    pub(super) fn of(came: &[u8]) -> Self {
        let Some(end) = came.windows(4).position(|window| window == b"\r\n\r\n") else {
            return Self { status: 0, head: String::new(), body: came.to_vec() };
        };
        let head = String::from_utf8_lossy(&came[..end]).into_owned();
        let (first, head) = head.split_once("\r\n").unwrap_or((&head, ""));
        let status = first.split(' ').nth(1).unwrap().parse().unwrap();
        Self { status, head: head.to_owned(), body: came[end + 4..].to_vec() }
    }

    pub(super) fn header(&self, name: &str) -> Option<&str> {
        let mut lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    pub(super) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub(super) fn is_gif(&self) -> bool {
        self.status == 200 && self.body.starts_with(b"GIF89a") && self.body.len() == 43
    }
}

/// Sends a request, and reads its answer.
pub(super) fn send(
    server: &Server,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Answer {
    Answer::of(&exchange(&address(server), &request(method, path, headers, body)))
}

/// The statuses of all answers in what came back.
pub(super) fn statuses(came: &[u8]) -> Vec<u16> {
    let mut found = Vec::new();
    let mut rest = came;
    while let Some(at) = rest.windows(9).position(|window| window == b"HTTP/1.1 ") {
        rest = &rest[at + 9..];
        let digits = rest.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        found.push(digits.and_then(|digits| digits.parse().ok()).unwrap_or(0));
    }
    found
}

/// Bytes of memory that the server has now.
pub(super) fn resident(server: &Server) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", server.pid())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").trim().parse::<u64>().unwrap() << 10
}

/// Nothing has gone wrong inside: no panic, no answer that says so.
#[track_caller]
pub(super) fn assert_well(server: &Server) {
    let log = server.log();
    assert!(!log.contains("panicked"), "{log}");
    let metrics = crate::harness::get(&format!("{}/metrics", server.console()), &[]).body;
    for line in metrics.lines() {
        let is_failure = line.contains("class=\"5xx\"") && line.contains("\"public\"");
        if is_failure || line.starts_with("throng_thread_panics_total{") {
            assert!(line.ends_with(" 0"), "{line}\n{log}");
        }
    }
}

/// An event is taken, and counted once.
#[track_caller]
pub(super) fn assert_serves(server: &Server, name: &str) {
    let body = format!(r#"{{"site":"t","event":"{name}","ids":{{"user_id":"1"}}}}"#);
    let answer = send(server, "POST", "/v1/events", &[], body.as_bytes());
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(server.count(&format!("did {name}")), 1);
}
