use super::*;
use actix_web::App;
use actix_web::HttpRequest;
use actix_web::HttpResponse;
use actix_web::dev::ServerHandle;
use actix_web::web;
use std::io::Read;
use std::io::Write;
use std::time::Instant;

use crate::metrics::Metrics;

/// A listener with short patience, whose answer is large.
struct Running {
    address: SocketAddr,
    metrics: Metrics,
    handle: ServerHandle,
    thread: Option<std::thread::JoinHandle<()>>,
}

/// More than the buffers of both ends hold.
const LARGE: usize = 64 << 20;

impl Running {
    fn new(limits: (usize, usize)) -> Self {
        Self::with(limits, true)
    }

    fn with(limits: (usize, usize), is_hurried: bool) -> Self {
        let metrics = Metrics::new();
        let gate = Gate::new("public", limits, Vec::new(), &metrics).counting_loopback();
        let socket = bind(SocketAddr::from(([127, 0, 0, 1], 0))).unwrap();
        let address = socket.local_addr().unwrap();
        let patience = Patience {
            head: Duration::from_secs(1),
            idle: Duration::from_secs(2),
            handling: is_hurried.then_some(Duration::from_secs(30)),
            reading: is_hurried.then_some(Duration::from_secs(1)),
        };
        let gate = Arc::new(gate);
        let listener = Listener { socket, gate, patience, certificate: None, workers: 1, stop: 1 };
        let (send, receive) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            actix_web::rt::System::new().block_on(async move {
                let small = async |request: HttpRequest| {
                    request.conn_data::<Connection>().unwrap().handling();
                    HttpResponse::Ok().body("small")
                };
                let parts = async |request: HttpRequest, body: web::Bytes| {
                    request.conn_data::<Connection>().unwrap().handling();
                    let mut left = 2;
                    let mut wait = Box::pin(tokio::time::sleep(Duration::from_secs(4)));
                    let length = body.len();
                    HttpResponse::Ok().streaming(Parts(Box::new(move |context| {
                        std::task::ready!(wait.as_mut().poll(context));
                        wait = Box::pin(tokio::time::sleep(Duration::from_secs(4)));
                        left -= 1;
                        std::task::Poll::Ready((left >= 0).then(|| format!("{length};")))
                    })))
                };
                let large = async || HttpResponse::Ok().body(vec![b'x'; LARGE]);
                let server = listener
                    .serve(move || {
                        App::new()
                            .route("/small", web::get().to(small))
                            .route("/parts", web::post().to(parts))
                            .route("/large", web::get().to(large))
                    })
                    .unwrap();
                send.send(server.handle()).unwrap();
                server.await.unwrap();
            });
        });
        let handle = receive.recv().unwrap();
        Self { address, metrics, handle, thread: Some(thread) }
    }

    fn connect(&self) -> std::net::TcpStream {
        let stream = std::net::TcpStream::connect(self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        stream
    }

    fn refused(&self, why: &str) -> u64 {
        self.metrics.connections_refused.with_label_values(&["public", why]).get()
    }

    /// Waits until so many connections are open.
    fn until_open(&self, count: i64) {
        let until = Instant::now() + Duration::from_secs(10);
        while self.metrics.connections.with_label_values(&["public"]).get() != count {
            assert!(Instant::now() < until);
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        drop(self.handle.stop(false));
        let _ = self.thread.take().unwrap().join();
    }
}

/// What is sent in parts.
struct Parts(Next);

/// The next part, when it is there.
type Next = Box<dyn FnMut(&mut std::task::Context<'_>) -> std::task::Poll<Option<String>>>;

impl futures_core::Stream for Parts {
    type Item = Result<web::Bytes, std::io::Error>;

    fn poll_next(
        mut self: std::pin::Pin<&mut Self>,
        context: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<Self::Item>> {
        (self.0)(context).map(|part| part.map(|part| Ok(web::Bytes::from(part))))
    }
}

/// Reads until an answer's body has come.
fn answer(stream: &mut std::net::TcpStream) -> String {
    let mut read = String::new();
    let mut byte = [0; 1];
    while !read.ends_with("small") && stream.read(&mut byte).unwrap_or(0) == 1 {
        read.push(char::from(byte[0]));
    }
    read
}

#[test]
fn a_second_head_that_does_not_end_is_given_up_as_the_first_is() {
    let running = Running::new((100, 100));
    let mut stream = running.connect();
    let whole = b"GET /small HTTP/1.1\r\nHost: a\r\n\r\n";
    stream.write_all(whole).unwrap();
    assert!(answer(&mut stream).starts_with("HTTP/1.1 200"));
    stream.write_all(b"GET /small HTTP/1.1\r\nHost: a\r\nX-Slow: ").unwrap();
    let started = Instant::now();
    // A byte now and then is no reason to wait for more.
    let mut sent = 0;
    while stream.write_all(b"x").is_ok() && started.elapsed() < Duration::from_secs(15) {
        sent += 1;
        std::thread::sleep(Duration::from_millis(100));
    }
    assert!(started.elapsed() < Duration::from_secs(8), "{sent}");
    assert_eq!(running.refused("slow"), 1);
    running.until_open(0);
    // One that came with the request before it ends as an idle connection does.
    let started = Instant::now();
    let mut stream = running.connect();
    stream.write_all(&[&whole[..], b"GET /small"].concat()).unwrap();
    assert!(answer(&mut stream).starts_with("HTTP/1.1 200"));
    let mut rest = Vec::new();
    let _ = stream.read_to_end(&mut rest);
    assert!(rest.is_empty());
    assert!(started.elapsed() < Duration::from_secs(15), "{:?}", started.elapsed());
}

#[test]
fn an_answer_that_is_not_read_is_given_up() {
    let running = Running::new((100, 100));
    let mut stream = running.connect();
    stream.write_all(b"GET /large HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    running.until_open(1);
    running.until_open(0);
    assert_eq!(running.refused("slow"), 1);
}

#[test]
fn work_takes_as_long_as_it_takes_where_there_is_no_limit() {
    let running = Running::with((100, 100), false);
    let mut stream = running.connect();
    // Its client waits to be told to go on, and its answer comes in parts that are further apart than heads may be.
    let head = "POST /parts HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\nExpect: 100-continue\r\nConnection: close\r\n\r\n";
    stream.write_all(head.as_bytes()).unwrap();
    let mut told = [0; 25];
    stream.read_exact(&mut told).unwrap();
    assert_eq!(&told, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"abc").unwrap();
    let mut came = String::new();
    stream.read_to_string(&mut came).unwrap();
    assert_eq!(came.matches("3;").count(), 2, "{came}");
    // Nor is a client hurried that reads later.
    let mut stream = running.connect();
    stream.write_all(b"GET /large HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
    std::thread::sleep(Duration::from_secs(4));
    let mut came = Vec::new();
    stream.read_to_end(&mut came).unwrap();
    assert!(came.len() > LARGE, "{}", came.len());
    assert_eq!(running.refused("slow"), 0);
}

#[test]
fn an_answer_that_is_read_slowly_is_sent_to_its_end() {
    let running = Running::new((100, 100));
    let mut stream = running.connect();
    stream.write_all(b"GET /large HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").unwrap();
    let (mut part, mut total, started) = (vec![0; LARGE / 8], 0, Instant::now());
    loop {
        let read = stream.read(&mut part).unwrap();
        if read == 0 {
            break;
        }
        total += read;
        if started.elapsed() < Duration::from_secs(2) {
            std::thread::sleep(Duration::from_millis(200));
        }
    }
    assert!(total > LARGE, "{total}");
    assert_eq!(running.refused("slow"), 0);
}

#[test]
fn what_is_beyond_the_caps_is_closed_and_makes_room_again() {
    let running = Running::new((100, 3));
    let held: Vec<_> = (0..3).map(|_| running.connect()).collect();
    running.until_open(3);
    let mut beyond = running.connect();
    assert_eq!(beyond.read(&mut [0]).unwrap_or(0), 0);
    assert_eq!(running.refused("address"), 1);
    drop(held);
    running.until_open(0);
    let mut stream = running.connect();
    stream.write_all(b"GET /small HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    assert!(answer(&mut stream).starts_with("HTTP/1.1 200"));
}

#[test]
fn heads_without_an_end_share_a_bounded_room() {
    let metrics = Metrics::new();
    let gate = Arc::new(Gate::new("public", (10_000, 10_000), Vec::new(), &metrics));
    let room = 64 << 20;
    assert!(gate.take_head(room) && !gate.take_head(1));
    gate.give_head(1);
    assert!(gate.take_head(1));
    let refused = metrics.connections_refused.with_label_values(&["public", "heads"]).get();
    assert_eq!(refused, 1);
}
