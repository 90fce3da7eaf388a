use std::io::BufRead;
use std::io::BufReader;
use std::io::Write;
use std::net::TcpListener;
use std::net::TcpStream;
use std::sync::mpsc::Receiver;
use std::sync::mpsc::channel;

use super::*;

const SECRET: &str = "a-secret-of-the-nodes";
const LIMITS: Limits = Limits { timeout: Duration::from_secs(60), bytes: 1_000 };

fn peers() -> Peers {
    Peers::new(PeerSecret::new(SECRET).unwrap())
}

/// What a request said.
#[derive(Debug)]
struct Asked {
    line: String,
    headers: Vec<String>,
    body: Vec<u8>,
}

impl Asked {
    fn has(&self, header: &str) -> bool {
        self.headers.iter().any(|line| line.eq_ignore_ascii_case(header))
    }
}

/// Answers each request with these bytes and closes the connection; gives what it was asked.
fn server(answer: impl Into<Vec<u8>>) -> (String, Receiver<Asked>) {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (tell, told) = channel();
    let answer = answer.into();
    // It ends with the process.
    std::thread::spawn(move || {
        for connection in listener.incoming() {
            let mut connection = connection.unwrap();
            tell.send(read(&connection)).unwrap();
            connection.write_all(&answer).unwrap();
        }
    });
    (address, told)
}

fn read(connection: &TcpStream) -> Asked {
    let mut reader = BufReader::new(connection);
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        reader.read_line(&mut line).unwrap();
        match line.trim_end() {
            "" => break,
            line => lines.push(line.to_owned()),
        }
    }
    let length = |line: &String| {
        let line = line.to_ascii_lowercase();
        line.strip_prefix("content-length: ").and_then(|length| length.parse::<usize>().ok())
    };
    let mut body = vec![0; lines.iter().find_map(length).unwrap_or(0)];
    reader.read_exact(&mut body).unwrap();
    Asked { line: lines.remove(0), headers: lines, body }
}

fn whole(status: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
        body.len()
    )
}

#[test]
fn a_call_shows_the_secret_and_brings_the_answer() {
    let (address, asked) = server(whole("200 OK", "good"));
    assert_eq!(peers().get(&address, "/peer/x?y=1", LIMITS).unwrap(), b"good");
    let seen = asked.recv().unwrap();
    assert_eq!(seen.line, "GET /peer/x?y=1 HTTP/1.1");
    assert!(seen.has(&format!("Authorization: Bearer {SECRET}")), "{seen:?}");
    let body = b"\0\xff".repeat(10_000);
    let kind = "application/octet-stream";
    assert_eq!(peers().post(&address, "/peer/y", kind, &body, LIMITS).unwrap(), b"good");
    let seen = asked.recv().unwrap();
    assert_eq!(seen.line, "POST /peer/y HTTP/1.1");
    assert!(seen.has(&format!("Authorization: Bearer {SECRET}")), "{seen:?}");
    assert!(seen.has("Content-Type: application/octet-stream"), "{seen:?}");
    assert!(seen.body == body);
}

#[test]
fn an_answer_is_read_as_it_comes() {
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let (go_on, wait) = channel::<()>();
    std::thread::spawn(move || {
        let mut connection = listener.accept().unwrap().0;
        read(&connection);
        connection
            .write_all(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n")
            .unwrap();
        wait.recv().unwrap();
        connection.write_all(b"3\r\ntwo\r\n0\r\n\r\n").unwrap();
    });
    let mut answer = peers().open_post(&address, "/", "text/plain", b"", LIMITS).unwrap();
    let mut first = [0; 3];
    answer.read_exact(&mut first).unwrap();
    // The rest is sent only when the first part has been read.
    go_on.send(()).unwrap();
    assert_eq!((&first, &*answer.all().unwrap()), (b"one", &b"two"[..]));
}

#[test]
fn a_refusal_is_told_with_its_reason() {
    let long = "x".repeat(2_000);
    for (status, body, detail) in [
        ("409 Conflict", r#"{"title":"conflict","detail":"another leads"}"#, "another leads"),
        ("503 Service Unavailable", r#"{"title":"not now"}"#, "not now"),
        ("500 Internal Server Error", " broken\n", "broken"),
        ("401 Unauthorized", "", ""),
        ("502 Bad Gateway", &long, &long[..DETAIL]),
        // A secret is for the node that was asked, and not for where it sends us.
        ("302 Found\r\nLocation: http://127.0.0.1:1/", "elsewhere", "elsewhere"),
    ] {
        let (address, _asked) = server(whole(status, body));
        let error = peers().get(&address, "/", LIMITS).unwrap_err();
        let PeerError::Refused { status: found, detail: said, .. } = &error else {
            panic!("{error:?}");
        };
        assert_eq!((&found.to_string(), &**said), (&status[..3].to_owned(), detail));
        assert!(!format!("{error} {error:?}").contains(SECRET));
    }
}

#[test]
fn an_answer_that_is_too_long_or_none_is_malformed() {
    let exact = "y".repeat(1_000);
    let (address, _asked) = server(whole("200 OK", &exact));
    assert_eq!(peers().get(&address, "/", LIMITS).unwrap(), exact.as_bytes());
    let (address, _asked) = server(whole("200 OK", &format!("{exact}z")));
    let error = peers().get(&address, "/", LIMITS).unwrap_err();
    assert!(matches!(error, PeerError::Malformed { .. }), "{error:?}");
    assert!(error.to_string().contains("limit: 1000"), "{error}");
    let mut answer = peers().open(&address, "/", LIMITS).unwrap();
    let mut read = Vec::new();
    let error = answer.read_to_end(&mut read).unwrap_err().downcast::<PeerError>().unwrap();
    assert!(matches!(error, PeerError::Malformed { .. }), "{error:?}");
    assert_eq!(read, exact.as_bytes());
    let (address, _asked) = server("220 mail.example ESMTP\r\n\r\n");
    let error = peers().get(&address, "/", LIMITS).unwrap_err();
    assert!(matches!(error, PeerError::Malformed { .. }), "{error:?}");
}

#[test]
fn a_node_that_does_not_answer_is_out_of_reach() {
    let out_of_reach = |error: PeerError| {
        assert!(matches!(error, PeerError::OutOfReach { .. }), "{error:?}");
    };
    let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
    let address = listener.local_addr().unwrap().to_string();
    // It takes the connection and says nothing.
    let short = Limits { timeout: Duration::from_millis(50), ..LIMITS };
    out_of_reach(peers().get(&address, "/", short).unwrap_err());
    out_of_reach(peers().post(&address, "/", "text/plain", b"x", short).unwrap_err());
    drop(listener);
    out_of_reach(peers().get(&address, "/", LIMITS).unwrap_err());
    // It breaks off.
    for cut in [
        "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n",
        "",
    ] {
        let (address, _asked) = server(cut);
        out_of_reach(peers().get(&address, "/", LIMITS).unwrap_err());
    }
}

#[test]
fn nothing_that_is_shown_has_the_secret_in_it() {
    assert!(!format!("{:?}", peers()).contains(SECRET));
}
