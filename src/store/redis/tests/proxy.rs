//! A proxy that loses answers: the call is done, and nobody hears of it.

use std::io::Read;
use std::io::Write;
use std::net::Shutdown;
use std::net::TcpListener;
use std::net::TcpStream;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::AtomicUsize;
use std::sync::atomic::Ordering;

use parking_lot::Mutex;

/// Stands before a server.
pub(crate) struct Proxy {
    port: u16,
    shared: Arc<Shared>,
}

#[derive(Default)]
struct Shared {
    /// The answer of the next call with this in it is lost.
    lose: Mutex<Option<&'static str>>,
    lost: AtomicUsize,
    connections: AtomicUsize,
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
                to_serve.connections.fetch_add(1, Ordering::SeqCst);
                serve(&to_serve, &client, &server);
            }
        });
        Self { port, shared }
    }

    pub(crate) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    /// Loses the answer of the next call that has `name` in it.
    pub(crate) fn lose(&self, name: &'static str) {
        *self.shared.lose.lock() = Some(name);
    }

    /// How many answers were lost.
    pub(crate) fn lost(&self) -> usize {
        self.shared.lost.load(Ordering::SeqCst)
    }

    /// How often somebody connected.
    pub(crate) fn connections(&self) -> usize {
        self.shared.connections.load(Ordering::SeqCst)
    }
}

fn serve(shared: &Arc<Shared>, client: &TcpStream, server: &TcpStream) {
    let losing = Arc::new(AtomicBool::new(false));
    let pump = |mut from: TcpStream, mut to: TcpStream, asks: bool| {
        let (shared, losing) = (shared.clone(), losing.clone());
        std::thread::spawn(move || {
            let mut buffer = vec![0; 1 << 16];
            while let Ok(count @ 1..) = from.read(&mut buffer) {
                let bytes = &buffer[..count];
                if asks {
                    let mut lose = shared.lose.lock();
                    let has = |name: &&str| bytes.windows(name.len()).any(|w| w == name.as_bytes());
                    if lose.as_ref().is_some_and(has) {
                        *lose = None;
                        losing.store(true, Ordering::SeqCst);
                    }
                } else if losing.load(Ordering::SeqCst) {
                    shared.lost.fetch_add(1, Ordering::SeqCst);
                    break;
                }
                if to.write_all(bytes).is_err() {
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
