//! Clients that keep a listener waiting, as `slowhttptest` has them, and what others notice of it.

use std::io::Read;
use std::io::Write;
use std::net::TcpStream;
use std::process::Command;
use std::process::Stdio;
use std::time::Duration;
use std::time::Instant;

use super::wire::Answer;
use super::wire::address;
use super::wire::assert_serves;
use super::wire::assert_well;
use super::wire::resident;
use super::wire::send;
use super::wire::statuses;
use crate::harness::Server;
use crate::harness::get;

/// Sends bytes one by one until the other side has had enough; how long that took, and what it answered.
fn drip(server: &Server, first: &[u8], every: Duration) -> (Duration, Answer) {
    let mut stream = TcpStream::connect(address(server)).unwrap();
    stream.write_all(first).unwrap();
    stream.set_read_timeout(Some(every)).unwrap();
    let (started, mut came, mut part) = (Instant::now(), Vec::new(), [0; 4096]);
    while started.elapsed() < Duration::from_secs(40) {
        match stream.read(&mut part) {
            Ok(0) => break,
            Ok(count) => came.extend_from_slice(&part[..count]),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_) => break,
        }
        let _ = stream.write_all(b"a");
    }
    (started.elapsed(), Answer::of(&came))
}

#[test]
fn a_slow_head_and_a_slow_body_are_closed_after_ten_seconds() {
    let server = Server::start(&[]);
    let second = Duration::from_secs(1);
    let head = b"GET /pixel.gif?s=t HTTP/1.1\r\nHost: a\r\nX-Slow: ";
    // What came before on the connection buys no time.
    let next = [&b"GET /pixel.gif?s=t HTTP/1.1\r\nHost: a\r\n\r\n"[..], head].concat();
    let body = b"POST /v1/events HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n{";
    let chunk = b"POST /v1/batch HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nffff\r\n";
    std::thread::scope(|scope| {
        let slow = |first, status| {
            let server = &server;
            scope.spawn(move || {
                let (took, answer) = drip(server, first, second);
                assert_eq!(answer.status, status, "{}", answer.text());
                assert!(took < Duration::from_secs(14), "{took:?}");
            })
        };
        slow(head, 408);
        slow(&next, 200);
        slow(body, 408);
        slow(chunk, 408);
        // One that is slow and gets on is waited for.
        scope.spawn(|| {
            let event = format!(
                r#"{{"site":"t","event":"slow","ids":{{"user_id":"1"}},"props":{{"a":"{}"}}}}"#,
                "x".repeat(20_000)
            );
            let mut stream = TcpStream::connect(address(&server)).unwrap();
            let head = format!(
                "POST /v1/events HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n",
                event.len()
            );
            stream.write_all(head.as_bytes()).unwrap();
            for part in event.as_bytes().chunks(2_500) {
                std::thread::sleep(Duration::from_millis(900));
                stream.write_all(part).unwrap();
            }
            stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
            let mut came = [0; 4096];
            let count = stream.read(&mut came).unwrap();
            assert_eq!(Answer::of(&came[..count]).status, 200);
        });
    });
    assert_eq!(server.count("did slow"), 1);
    assert_well(&server);
}

/// Where a connection that is idle, or one that is not listened to, leaves its memory and its place.
#[test]
fn thousands_of_slow_clients_cost_little_and_others_are_served() {
    let server = Server::start(&[]);
    let before = resident(&server);
    let url = format!("http://{}/v1/events", address(&server));
    let page = format!("http://{}/t.js", address(&server));
    // Slow heads, slow bodies, and answers that are read slowly, each of a hundred of requests in a row.
    let modes: [(&[&str], &str); 3] = [
        (&["-H", "-i", "2"], &url),
        (&["-B", "-i", "2", "-s", "100000"], &url),
        (&["-X", "-w", "1", "-y", "2", "-n", "1", "-z", "1", "-k", "100"], &page),
    ];
    let mut running: Vec<_> = modes
        .iter()
        .map(|(mode, url)| {
            let mut command = Command::new("slowhttptest");
            command
                .args(*mode)
                .args(["-c", "1500", "-r", "500", "-l", "15", "-x", "10", "-u", url]);
            command
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .expect("slowhttptest is installed")
        })
        .collect();
    let (mut largest, mut most, mut slowest, mut served) = (0, 0.0_f64, Duration::ZERO, 0);
    let started = Instant::now();
    while started.elapsed() < Duration::from_secs(18) {
        let asked = Instant::now();
        assert!(send(&server, "GET", "/pixel.gif?s=t&e=seen&id.user_id=1", &[], b"").is_gif());
        slowest = slowest.max(asked.elapsed());
        served += 1;
        if served % 20 == 1 {
            largest = largest.max(resident(&server));
            let text = get(&format!("{}/metrics", server.console()), &[]).body;
            let open = text
                .lines()
                .find_map(|l| l.strip_prefix("throng_connections{listener=\"public\"} "));
            most = most.max(open.unwrap().parse().unwrap());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    for process in &mut running {
        let _ = process.kill();
        let _ = process.wait();
    }
    assert!(most > 1_000.0, "no more than {most} connections were held");
    assert!(slowest < Duration::from_secs(2), "{slowest:?}");
    let grown = largest.saturating_sub(before);
    assert!(grown < 256 << 20, "{grown} bytes for {most} connections");
    assert_serves(&server, "still");
    assert_well(&server);
    // The clock of those that are left runs out.
    server.until("the slow ones are gone", || {
        let text = get(&format!("{}/metrics", server.console()), &[]).body;
        text.lines().any(|line| line == "throng_connections{listener=\"public\"} 0")
    });
}

#[test]
fn more_connections_than_there_may_be_are_closed_and_the_private_listener_has_its_own() {
    let server = Server::start_with(&[], "[collect]\nconnections = 50\n", &[]);
    let held: Vec<TcpStream> =
        (0..60).map(|_| TcpStream::connect(address(&server)).unwrap()).collect();
    let refused = || {
        let text = get(&format!("{}/metrics", server.console()), &[]).body;
        let name = "throng_connections_refused_total{listener=\"public\",reason=\"full\"} ";
        text.lines().find_map(|line| line.strip_prefix(name)).unwrap().parse::<u64>().unwrap()
    };
    server.until("ten are closed", || refused() == 10);
    assert_eq!(get(&format!("{}/livez", server.console()), &[]).status, 200);
    drop(held);
    server
        .until("there is room again", || send(&server, "GET", "/pixel.gif?s=t", &[], b"").is_gif());
    assert_well(&server);
}

#[test]
fn requests_one_behind_the_other_are_not_answered_faster_than_they_are_read() {
    let server = Server::start(&[]);
    assert_serves(&server, "before");
    let before = resident(&server);
    let many = b"GET /t.js HTTP/1.1\r\nHost: a\r\n\r\n".repeat(20_000);
    let mut held = Vec::new();
    for _ in 0..30 {
        let mut stream = TcpStream::connect(address(&server)).unwrap();
        stream.set_nonblocking(true).unwrap();
        // As much as it takes; nothing that comes back is read.
        let mut left = &many[..];
        while !left.is_empty()
            && let Ok(sent) = stream.write(left)
        {
            left = &left[sent..];
        }
        held.push(stream);
    }
    std::thread::sleep(Duration::from_secs(2));
    let grown = resident(&server).saturating_sub(before) >> 20;
    assert!(grown < 100, "{grown} MiB for {} connections", held.len());
    assert_serves(&server, "meanwhile");
    // Who does read has an answer to each.
    let mut stream = TcpStream::connect(address(&server)).unwrap();
    let some = b"GET /livez HTTP/1.1\r\nHost: a\r\n\r\n".repeat(499);
    let last = b"GET /livez HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    stream.write_all(&[&some[..], last].concat()).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
    let mut came = Vec::new();
    stream.read_to_end(&mut came).unwrap();
    assert_eq!(statuses(&came).len(), 500);
    assert_well(&server);
}
