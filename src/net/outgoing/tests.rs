//! Against real sockets.

use std::io::Read;
use std::io::Write;
use std::net::TcpListener;
use std::thread;
use std::time::Duration;

use super::*;

/// Answers connections in turn, each with these bytes, and closes them; gives what was read.
fn serve(answers: Vec<Vec<u8>>) -> (String, thread::JoinHandle<Vec<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/hook?key=1", listener.local_addr().unwrap());
    let thread = thread::spawn(move || {
        let mut seen = Vec::new();
        for answer in answers {
            let (mut stream, _) = listener.accept().unwrap();
            let mut read = Vec::new();
            let mut part = [0; 4096];
            while !String::from_utf8_lossy(&read).contains("\r\n\r\nbody") {
                match stream.read(&mut part).unwrap() {
                    0 => break,
                    count => read.extend_from_slice(&part[..count]),
                }
            }
            seen.push(String::from_utf8(read).unwrap());
            stream.write_all(&answer).unwrap();
        }
        seen
    });
    (url, thread)
}

fn call(url: &str, timeout: Duration) -> Result<Answered, OutgoingError> {
    Outgoing::new().allowing_private(true).call(&OutgoingRequest {
        method: "POST",
        url,
        headers: &[("x-signature", "t=1")],
        body: b"body",
        timeout,
    })
}

const SOON: Duration = Duration::from_secs(20);

#[test]
fn an_answer_is_taken_whatever_its_status_and_no_redirection_is_followed() {
    let answer = |head: &str, body: &str| {
        let length = body.len();
        format!("HTTP/1.1 {head}\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}")
            .into()
    };
    let long = "word ".repeat(200);
    let (url, server) = serve(vec![
        answer("200 OK", "{}"),
        answer("503 Busy\r\nRetry-After: 7", &long),
        answer("302 Found\r\nLocation: http://127.0.0.1:1/", ""),
        // It says more than it sends.
        b"HTTP/1.1 400 Bad\r\nContent-Length: 99\r\n\r\nwhat\x07 is\nthis".to_vec(),
    ]);
    let taken = call(&url, SOON).unwrap();
    assert_eq!((taken.status, taken.header("retry-after"), &*taken.gist()), (200, None, "{}"));
    let busy = call(&url, SOON).unwrap();
    assert_eq!((busy.status, busy.header("retry-after")), (503, Some("7")));
    assert!(busy.gist().ends_with('…') && busy.gist().chars().count() == 301);
    assert_eq!(call(&url, SOON).unwrap().status, 302);
    assert_eq!(call(&url, SOON).unwrap().gist(), "what is this");
    let seen = server.join().unwrap();
    assert!(seen[0].starts_with("POST /hook?key=1 HTTP/1.1\r\n"), "{}", seen[0]);
    for part in ["x-signature: t=1\r\n", "user-agent: throng/", "\r\n\r\nbody"] {
        assert!(seen[0].to_lowercase().contains(part), "{part} in {}", seen[0]);
    }
}

#[test]
fn what_was_not_sent_is_told_from_what_may_have_been_taken() {
    // Nobody listens: the port was just given back.
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    for url in [
        format!("http://{free}/"),
        "http://no-such-host.invalid/".to_owned(),
        "http://169.254.169.254/latest/meta-data".to_owned(),
        "http://[::ffff:169.254.169.254]/".to_owned(),
        "http://0.0.0.0/".to_owned(),
    ] {
        let error = call(&url, SOON).unwrap_err();
        assert!(matches!(error, OutgoingError::NotSent(_)), "{url}: {error:?}");
    }
    let error = call("http://169.254.169.254/", SOON).unwrap_err().to_string();
    assert!(error.contains("is not called"), "{error}");

    let (url, server) = serve(vec![Vec::new()]);
    let error = call(&url, SOON).unwrap_err();
    assert!(matches!(error, OutgoingError::Lost(_)), "{error:?}");
    server.join().unwrap();

    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", silent.local_addr().unwrap());
    let error = call(&url, Duration::from_millis(200)).unwrap_err();
    assert_eq!(error, OutgoingError::Lost("no answer in time".into()));
}
