//! A proxy on the way to a server, which loses answers, cuts connections, or lets nothing through any more.

use std::io::Read;
use std::io::Write;
use std::net::Shutdown;
use std::net::TcpListener;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

use parking_lot::Condvar;
use parking_lot::Mutex;

/// Stands before a server.
pub(crate) struct Proxy {
    port: u16,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    faults: Mutex<Faults>,
    changed: Condvar,
    lost: AtomicUsize,
    cut: AtomicUsize,
    connections: AtomicUsize,
}

/// What goes wrong.
#[derive(Default)]
struct Faults {
    /// The answer of the next call with one of these in it is lost.
    lose: Vec<&'static str>,
    /// How many such calls are let through before each whose answer is lost; `None` loses one and no more.
    every: Option<usize>,
    passed: usize,
    /// Connections are cut after so many bytes.
    cut_after: Option<usize>,
    /// Nothing passes on connections that were made before this one.
    held_before: usize,
}

impl Proxy {
    pub(crate) fn before(server: u16) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let shared = Arc::new(Shared::default());
        let to_serve = shared.clone();
        // It ends with the process, as the connections do.
        std::thread::spawn(move || {
            for client in listener.incoming() {
                let (Ok(client), Ok(server)) = (client, TcpStream::connect(("127.0.0.1", server)))
                else {
                    continue;
                };
                let number = to_serve.connections.fetch_add(1, Ordering::SeqCst);
                serve(&to_serve, number, &client, &server);
            }
        });
        Self { port, shared }
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    fn set(&self, set: impl FnOnce(&mut Faults)) {
        set(&mut self.shared.faults.lock());
        self.shared.changed.notify_all();
    }

    /// Loses the answer of the next call that has `name` in it.
    pub(crate) fn lose(&self, name: &'static str) {
        self.set(|faults| (faults.lose, faults.every) = (vec![name], None));
    }

    /// Loses the answer of one call in `every` that have one of the names in it; of none where there are no names.
    pub(crate) fn lose_one_in(&self, every: usize, names: &[&'static str]) {
        self.set(|faults| (faults.lose, faults.every) = (names.to_vec(), Some(every)));
    }

    /// How many answers were lost.
    pub(crate) fn lost(&self) -> usize {
        self.shared.lost.load(Ordering::SeqCst)
    }

    /// Cuts each connection after so many bytes, in the middle of whatever is said.
    pub(crate) fn cut_after(&self, bytes: Option<usize>) {
        self.set(|faults| faults.cut_after = bytes);
    }

    /// How many connections were cut.
    pub(crate) fn cut(&self) -> usize {
        self.shared.cut.load(Ordering::SeqCst)
    }

    /// Lets nothing pass any more on the connections that there are, without closing them; and on new ones neither,
    /// where `all` are held.
    pub(crate) fn hold(&self, all: bool) {
        let known = self.connections();
        self.set(|faults| faults.held_before = if all { usize::MAX } else { known });
    }

    /// Lets pass what comes on new connections; the others stay as they are.
    pub(crate) fn let_new_pass(&self) {
        self.hold(false);
    }

    /// How often somebody connected.
    pub(crate) fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }
}

impl Faults {
    /// Whether the answer of this call is lost.
    fn loses(&mut self, call: &[u8]) -> bool {
        let has = |name: &&str| call.windows(name.len()).any(|part| part == name.as_bytes());
        if !self.lose.iter().any(has) {
            return false;
        }
        let Some(every) = self.every else {
            self.lose.clear();
            return true;
        };
        self.passed += 1;
        self.passed.is_multiple_of(every)
    }
}

fn serve(shared: &Arc<Shared>, number: usize, client: &TcpStream, server: &TcpStream) {
    let losing = Arc::new(AtomicBool::new(false));
    let passed = Arc::new(AtomicUsize::new(0));
    let pump = |mut from: TcpStream, mut to: TcpStream, asks: bool| {
        let (shared, losing, passed) = (shared.clone(), losing.clone(), passed.clone());
        std::thread::spawn(move || {
            let mut buffer = vec![0; 1 << 16];
            while let Ok(count @ 1..) = from.read(&mut buffer) {
                let mut bytes = &buffer[..count];
                let mut faults = shared.faults.lock();
                while number < faults.held_before {
                    shared.changed.wait(&mut faults);
                }
                if asks && faults.loses(bytes) {
                    losing.store(true, Ordering::SeqCst);
                }
                let room =
                    faults.cut_after.map(|most| most.saturating_sub(passed.load(Ordering::SeqCst)));
                drop(faults);
                if !asks && losing.load(Ordering::SeqCst) {
                    shared.lost.fetch_add(1, Ordering::SeqCst);
                    break;
                }
                let is_cut = room.is_some_and(|room| room < count);
                bytes = &bytes[..room.unwrap_or(count).min(count)];
                passed.fetch_add(bytes.len(), Ordering::SeqCst);
                if to.write_all(bytes).is_err() {
                    break;
                }
                if is_cut {
                    shared.cut.fetch_add(1, Ordering::SeqCst);
                    break;
                }
            }
            let _ = from.shutdown(Shutdown::Both);
            let _ = to.shutdown(Shutdown::Both);
        });
    };
    let copy = |stream: &TcpStream| stream.try_clone().unwrap();
    pump(copy(client), copy(server), true);
    pump(copy(server), copy(client), false);
}
