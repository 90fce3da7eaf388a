//! The listener from outside: real requests over loopback, a real journal, and what it then holds.

mod consent;
mod events;
mod hostile;
mod pixel;
mod privacy;
mod protocols;
mod sync;
mod tag;

use actix_web::dev::ServerHandle;
use parking_lot::Mutex;
use std::collections::BTreeSet;
use std::io::Read;
use std::io::Write;
use std::net::SocketAddr;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicI64;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use super::secret::Secret;
use super::worker::Shared;
use crate::config::Config;
use crate::config::ConsentRegime;
use crate::config::Durability;
use crate::config::OriginPattern;
use crate::config::Site;
use crate::metrics::Metrics;
use crate::model::Event;
use crate::model::Millis;
use crate::model::Outcome;
use crate::model::Record;
use crate::net::Clock;
use crate::store::embedded::journal::EmbeddedJournal;
use crate::store::embedded::journal::Options;
use crate::store::journal::Batch;
use crate::store::journal::Journal;
use crate::store::journal::JournalError;
use crate::store::journal::Position;
use crate::store::journal::Sink;

const NOW: Millis = 1_700_000_000_000;

/// A clock that stands where the test put it.
struct Hands(AtomicI64);

impl Clock for Hands {
    fn now(&self) -> Millis {
        self.0.load(Ordering::SeqCst)
    }
}

/// The real journal on a disk that is full when the test says so.
struct Disk {
    journal: EmbeddedJournal,
    is_full: AtomicBool,
    /// Appends wait for it, and those that came so far.
    gate: Mutex<()>,
    appends: AtomicUsize,
}

impl Sink for Disk {
    fn append(&self, batch: &Batch) -> Result<(), JournalError> {
        self.appends.fetch_add(1, Ordering::SeqCst);
        drop(self.gate.lock());
        if self.is_full.load(Ordering::SeqCst) {
            return Err(JournalError::Full(std::io::ErrorKind::StorageFull.into()));
        }
        Journal::append(&self.journal, batch).map(|_| ())
    }

    fn trouble(&self) -> Option<String> {
        None
    }
}

/// A running listener, stopped when dropped.
struct Listener {
    address: SocketAddr,
    disk: Arc<Disk>,
    metrics: Metrics,
    clock: Arc<Hands>,
    handle: ServerHandle,
    thread: Option<JoinHandle<()>>,
    _data: tempfile::TempDir,
}

impl Listener {
    /// Sites `demo` (`opt_out`), `strict` (`opt_in`) and `open` (`none`), each with its own origin.
    fn new() -> Self {
        Self::with(|_| {})
    }

    fn with(change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config::default();
        config.collect.listen = SocketAddr::from(([127, 0, 0, 1], 0));
        config.collect.workers = 1;
        let site = |key: &str, consent| Site {
            key: key.to_owned(),
            origins: vec![OriginPattern(format!("https://{key}.example"))],
            consent,
            ..config.sites[0].clone()
        };
        config
            .sites
            .extend([site("strict", ConsentRegime::OptIn), site("open", ConsentRegime::None)]);
        change(&mut config);
        let data = tempfile::tempdir().unwrap();
        let options = Options::new(config.journal.durability);
        let (journal, _) = EmbeddedJournal::open(&data.path().join("journal"), options).unwrap();
        let disk = Arc::new(Disk {
            journal,
            is_full: AtomicBool::new(false),
            gate: Mutex::default(),
            appends: AtomicUsize::new(0),
        });
        let metrics = Metrics::new();
        let clock = Arc::new(Hands(AtomicI64::new(NOW)));
        let secret = Secret::load_or_create(data.path()).unwrap();
        let shared_clock: Arc<dyn Clock> = Arc::clone(&clock) as _;
        // Long enough for a busy machine, short enough to wait for.
        let patience = Duration::from_millis(1_500);
        let mut shared = Shared::new(&config, shared_clock, metrics.clone(), secret, patience);
        shared.recipients = vec![21, 755];
        let sink: Arc<dyn Sink> = Arc::clone(&disk) as _;
        let (send, receive) = std::sync::mpsc::channel();
        let thread = std::thread::spawn(move || {
            actix_web::rt::System::new().block_on(async move {
                let (server, address, _) = super::start(&config, sink, shared).unwrap();
                send.send((server.handle(), address)).unwrap();
                server.await.unwrap();
            });
        });
        let (handle, address) = receive.recv().unwrap();
        let thread = Some(thread);
        Self { address, disk, metrics, clock, handle, thread, _data: data }
    }

    /// Sends bytes and reads one answer, or what came of it until the connection closed.
    fn send(&self, request: impl AsRef<[u8]>) -> Answer {
        let mut stream = TcpStream::connect(self.address).unwrap();
        // A refused body may be cut off while it is still on its way.
        let _ = stream.write_all(request.as_ref());
        Answer::read(&mut stream)
    }

    fn get(&self, path: &str, headers: &[(&str, &str)]) -> Answer {
        self.send(request("GET", path, headers, b""))
    }

    fn post(&self, path: &str, headers: &[(&str, &str)], body: impl AsRef<[u8]>) -> Answer {
        self.send(request("POST", path, headers, body.as_ref()))
    }

    /// Everything that the journal holds.
    fn records(&self) -> Vec<Record> {
        let mut reader = self.disk.journal.reader(Position(0));
        let mut records = Vec::new();
        while let Some(frame) = reader.next().unwrap() {
            records.extend(frame.records().map(|r| Record::decode(r.unwrap().1).unwrap()));
        }
        records
    }

    fn events(&self) -> Vec<Event> {
        let events = self.records().into_iter().filter_map(|record| match record {
            Record::Event(event) => Some(event),
            _ => None,
        });
        events.collect()
    }

    /// The choices in the journal: identifier's value, opted out.
    fn choices(&self) -> Vec<(String, bool)> {
        let choices = self.records().into_iter().filter_map(|record| match record {
            Record::Choice(choice) => {
                Some((choice.identifier.value().to_owned(), choice.opted_out))
            }
            _ => None,
        });
        choices.collect()
    }

    /// The outcomes counted so far that are not zero.
    fn outcomes(&self, endpoint: &str) -> Vec<(&'static str, u64)> {
        let count = |outcome: Outcome| {
            let labels = [endpoint, outcome.as_str()];
            (outcome.as_str(), self.metrics.collect_events.with_label_values(&labels).get())
        };
        Outcome::ALL.into_iter().map(count).filter(|(_, count)| *count > 0).collect()
    }

    fn refusals(&self, signal: &str) -> u64 {
        self.metrics.collect_refusals.with_label_values(&[signal]).get()
    }

    /// The pair `name=value` of a fresh cookie, as a browser sends it back.
    fn cookie(&self) -> String {
        let answer = self.get("/pixel.gif?s=demo", &[]);
        answer.cookies()[0].split(';').next().unwrap().to_owned()
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        drop(self.handle.stop(false));
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn request(method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut head = format!("{method} {path} HTTP/1.1\r\nHost: collect.example\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    if !body.is_empty() {
        head.push_str(&format!("Content-Length: {}\r\n", body.len()));
    }
    head.push_str("\r\n");
    [head.as_bytes(), body].concat()
}

#[derive(Debug)]
struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Answer {
    fn read(stream: &mut TcpStream) -> Self {
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let mut bytes = Vec::new();
        let mut chunk = [0; 4096];
        loop {
            if let Some(answer) = Self::parse(&bytes) {
                return answer;
            }
            match stream.read(&mut chunk) {
                Ok(0) | Err(_) => return Self { status: 0, headers: Vec::new(), body: bytes },
                Ok(count) => bytes.extend_from_slice(&chunk[..count]),
            }
        }
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let end = bytes.windows(4).position(|window| window == b"\r\n\r\n")?;
        let head = std::str::from_utf8(&bytes[..end]).unwrap();
        let mut lines = head.split("\r\n");
        let status = lines.next()?.split(' ').nth(1)?.parse().unwrap();
        let headers: Vec<(String, String)> = lines
            .map(|line| line.split_once(": ").unwrap())
            .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
            .collect();
        let length = headers.iter().find(|(name, _)| name == "content-length");
        let length: usize = length.map_or(0, |(_, value)| value.parse().unwrap());
        let body = bytes.get(end + 4..end + 4 + length)?.to_vec();
        Some(Self { status, headers, body })
    }

    fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }

    fn cookies(&self) -> Vec<&str> {
        let cookies = self.headers.iter().filter(|(name, _)| name == "set-cookie");
        cookies.map(|(_, value)| value.as_str()).collect()
    }

    fn text(&self) -> &str {
        std::str::from_utf8(&self.body).unwrap()
    }
}

#[track_caller]
fn assert_gif(answer: &Answer) {
    assert_eq!(answer.status, 200);
    assert_eq!(answer.header("content-type"), Some("image/gif"));
    assert_eq!(answer.header("cache-control"), Some("no-store, private"));
    assert_eq!(answer.body.len(), 43);
    assert!(answer.body.starts_with(b"GIF89a"));
}

#[test]
fn a_port_in_use_is_told_with_its_way_out() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut config = Config::default();
    config.collect.listen = taken.local_addr().unwrap();
    let listener = Listener::new();
    let sink: Arc<dyn Sink> = Arc::clone(&listener.disk) as _;
    let clock: Arc<dyn Clock> = Arc::clone(&listener.clock) as _;
    let secret = Secret::new([0; 32]);
    let data = tempfile::tempdir().unwrap();
    let quarantine = Arc::new(crate::ingest::Quarantine::open(data.path()).unwrap());
    let error = actix_web::rt::System::new().block_on(async {
        let own = (secret, None, None, quarantine);
        super::run(&config, sink, clock, Metrics::new(), own, BTreeSet::new()).err().unwrap()
    });
    let text = error.to_string();
    assert!(text.contains(&taken.local_addr().unwrap().to_string()), "{text}");
    assert!(text.contains("collect.listen"), "{text}");
}

#[test]
fn a_strict_site_says_what_it_refuses_without_a_vendor_id() {
    let mut config = Config::default();
    let site = |consent| Site { consent, ..Config::default().sites[0].clone() };
    let regimes = [ConsentRegime::OptIn, ConsentRegime::OptOut, ConsentRegime::None];
    config.sites = regimes.map(site).into();
    let notices = super::notices(&config);
    assert!(notices.iter().all(|notice| notice.contains("set tcf_vendor")), "{notices:?}");
    assert_eq!(notices.len(), 2);
    assert!(notices[0].contains("every hit") && notices[1].contains("gdpr=1"), "{notices:?}");
    config.sites.iter_mut().for_each(|site| site.tcf_vendor = Some(7));
    assert!(super::notices(&config).is_empty());
}
