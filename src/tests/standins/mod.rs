//! Stand-ins for what cannot be run here: strict, with state, written from the contract and not from our code.

pub(super) mod consent;
pub(super) mod gcs;
pub(super) mod google;
pub(super) mod linkedin;
pub(super) mod meta;
pub(super) mod pinterest;
pub(super) mod tiktok;
pub(super) mod trade_desk;
pub(super) mod webhook;
pub(super) mod xandr;

use std::collections::VecDeque;
use std::io::Read;
use std::io::Write;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

/// What came.
#[derive(Debug, Clone)]
pub(super) struct Request {
    pub(super) method: String,
    /// The path with its query.
    pub(super) path: String,
    /// Names in lower case.
    pub(super) headers: Vec<(String, String)>,
    pub(super) body: Vec<u8>,
}

/// What is answered.
#[derive(Debug, Clone)]
pub(super) struct Reply {
    pub(super) status: u16,
    pub(super) headers: Vec<(&'static str, String)>,
    pub(super) body: String,
}

/// What goes wrong with a request, for each in turn.
#[derive(Debug, Clone)]
pub(super) enum Fault {
    /// It is answered this, and nothing comes of it.
    Refuse(Reply),
    /// Nothing comes of it, and no answer either.
    Lose,
    /// What it says is done, and the answer is lost.
    LoseAnswer,
    /// A process is killed, before what the request says is done or after.
    Kill { pid: u32, is_done: bool },
    /// Nothing.
    Pass,
}

/// A service behind a port of this machine.
pub(super) trait Service: Send + Sync + 'static {
    /// Does what a request asks.
    fn answer(&self, request: &Request) -> Reply;
}

/// A running stand-in; it ends when it is dropped.
pub(super) struct StandIn {
    pub(super) address: SocketAddr,
    faults: Arc<Mutex<VecDeque<Fault>>>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Request {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(key, _)| key == name).map(|(_, value)| value.as_str())
    }
}

impl Reply {
    pub(super) fn new(status: u16, body: impl Into<String>) -> Self {
        Self { status, headers: Vec::new(), body: body.into() }
    }

    pub(super) fn with(mut self, name: &'static str, value: &str) -> Self {
        self.headers.push((name, value.to_owned()));
        self
    }
}

impl StandIn {
    /// Serves plain HTTP, or TLS with a certificate.
    pub(super) fn start(service: Arc<dyn Service>, tls: Option<Arc<rustls::ServerConfig>>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, faults) = (Arc::new(AtomicBool::new(false)), Arc::default());
        let (ends, script): (_, Arc<Mutex<VecDeque<Fault>>>) =
            (Arc::clone(&stop), Arc::clone(&faults));
        let thread = std::thread::spawn(move || {
            for stream in listener.incoming() {
                if ends.load(Ordering::SeqCst) {
                    return;
                }
                let Ok(stream) = stream else { continue };
                stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
                let (service, script, tls) = (service.clone(), script.clone(), tls.clone());
                std::thread::spawn(move || match tls {
                    None => serve(stream, &*service, &script),
                    Some(config) => {
                        let session = rustls::ServerConnection::new(config).unwrap();
                        serve(rustls::StreamOwned::new(session, stream), &*service, &script);
                    }
                });
            }
        });
        Self { address, faults, stop, thread: Some(thread) }
    }

    /// What goes wrong with the next requests.
    pub(super) fn script(&self, faults: impl IntoIterator<Item = Fault>) {
        self.faults.lock().unwrap().extend(faults);
    }

    /// Nothing goes wrong any more.
    pub(super) fn relent(&self) {
        self.faults.lock().unwrap().clear();
    }

    /// Whether all that was to go wrong has.
    pub(super) fn is_through(&self) -> bool {
        self.faults.lock().unwrap().is_empty()
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        let _ = TcpStream::connect(self.address);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// Answers one request, and closes.
fn serve(mut stream: impl Read + Write, service: &dyn Service, script: &Mutex<VecDeque<Fault>>) {
    let Some(request) = read(&mut stream) else { return };
    let fault = match request.method.as_str() {
        "HEAD" | "OPTIONS" => None,
        _ => script.lock().unwrap().pop_front(),
    };
    let reply = match fault {
        None | Some(Fault::Pass) => service.answer(&request),
        Some(Fault::Refuse(reply)) => reply,
        Some(Fault::Lose) => return,
        Some(Fault::LoseAnswer) => {
            service.answer(&request);
            return;
        }
        Some(Fault::Kill { pid, is_done }) => {
            if is_done {
                service.answer(&request);
            }
            let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).unwrap();
            kill_process(pid, Signal::KILL).unwrap();
            return;
        }
    };
    let mut head = format!("HTTP/1.1 {} Said\r\nConnection: close\r\n", reply.status);
    for (name, value) in &reply.headers {
        head += &format!("{name}: {value}\r\n");
    }
    head += &format!("Content-Length: {}\r\n\r\n", reply.body.len());
    // Who asked may have gone.
    let _ =
        stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(reply.body.as_bytes()));
    let _ = stream.flush();
}

/// Reads a request; `None` of what breaks off.
fn read(stream: &mut impl Read) -> Option<Request> {
    let mut bytes = Vec::new();
    let mut part = [0; 16 << 10];
    let end = loop {
        if let Some(end) = bytes.windows(4).position(|four| four == b"\r\n\r\n") {
            break end;
        }
        match stream.read(&mut part).ok()? {
            0 => return None,
            count => bytes.extend_from_slice(&part[..count]),
        }
    };
    let head = String::from_utf8(bytes[..end].to_vec()).ok()?;
    let mut lines = head.split("\r\n");
    let mut words = lines.next()?.split(' ');
    let (method, path) = (words.next()?.to_owned(), words.next()?.to_owned());
    let headers: Vec<(String, String)> = lines
        .filter_map(|line| line.split_once(':'))
        .map(|(name, value)| (name.to_lowercase(), value.trim().to_owned()))
        .collect();
    let length = headers.iter().find(|(name, _)| name == "content-length");
    let length: usize = length.map_or(Some(0), |(_, value)| value.parse().ok())?;
    let mut body = bytes.split_off(end + 4);
    while body.len() < length {
        match stream.read(&mut part).ok()? {
            0 => return None,
            count => body.extend_from_slice(&part[..count]),
        }
    }
    Some(Request { method, path, headers, body })
}
