//! A listener for strangers: how many connections it takes, how long each may keep it waiting, and with TLS where it has
//! a certificate.
//!
//! actix-web would time a connection's first head alone, and no answer that is not read. Its HTTP/1.1 is used as it is;
//! what it reads from and writes to is a `Stream`, which knows when a client owes something.
//!
//! ```text
//! accept ─► Gate (how many, in all and from one address) ─► TLS, within its time ─► Stream ─► HTTP/1.1 ─► handlers
//! ```

mod certificate;
mod gate;
mod limits;
mod stream;

use std::fmt;
use std::io;
use std::net::SocketAddr;
use std::net::TcpListener;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use actix_http::HttpService;
use actix_http::Request;
use actix_http::Response;
use actix_http::body::MessageBody;
use actix_http::error::DispatchError;
use actix_server::Server;
use actix_service::IntoServiceFactory;
use actix_service::Service;
use actix_service::ServiceFactory;
use actix_service::ServiceFactoryExt;
use actix_service::fn_service;
use actix_service::map_config;
use actix_web::dev::AppConfig;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;

pub use certificate::BadCertificate;
pub use certificate::Certificate;
pub use gate::Gate;
pub use gate::Refusal;
pub use limits::files;
pub use stream::Connection;
use stream::Pace;
use stream::Stream;

/// How long a client may take for the handshake of TLS.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// Connections that wait to be accepted.
const BACKLOG: i32 = 2_048;

/// What is expected of clients, and how long is waited for it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Patience {
    /// For a request's head, from its first byte.
    pub head: Duration,
    /// Between requests.
    pub idle: Duration,
    /// For a request to be answered from its head on, and between parts of its answer; `None` waits for ever.
    pub handling: Option<Duration>,
    /// For a client to read on; `None` waits for ever.
    pub reading: Option<Duration>,
}

/// A listener that is not served yet.
pub struct Listener {
    /// The socket.
    pub socket: TcpListener,
    /// Who is let in.
    pub gate: Arc<Gate>,
    /// How long clients are waited for.
    pub patience: Patience,
    /// What is shown to clients, where they are spoken to with TLS.
    pub certificate: Option<Arc<Certificate>>,
    /// Threads; 0 means one a core.
    pub workers: usize,
    /// How long a stop waits for requests under way, in seconds.
    pub stop: u64,
}

/// Listens on an address.
pub fn bind(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = TcpListener::bind(address)?;
    // Once more, for a longer queue than the standard library asks for.
    rustix::net::listen(&socket, BACKLOG)?;
    Ok(socket)
}

impl Listener {
    /// Serves what the factory makes for each thread; it runs when it is awaited.
    pub fn serve<F, I, S, B>(self, factory: F) -> io::Result<Server>
    where
        F: Fn() -> I + Send + Clone + 'static,
        I: IntoServiceFactory<S, Request>,
        S: ServiceFactory<Request, Config = AppConfig> + 'static,
        S::Error: Into<actix_web::Error> + 'static,
        S::InitError: fmt::Debug,
        S::Response: Into<Response<B>> + 'static,
        <S::Service as Service<Request>>::Future: 'static,
        S::Service: 'static,
        B: MessageBody + 'static,
    {
        let Self { socket, gate, patience, certificate, workers, stop } = self;
        let door = Door { gate, patience, tls: certificate.map(|it| it.acceptor()) };
        let mut builder = Server::build().disable_signals().shutdown_timeout(stop);
        if workers > 0 {
            builder = builder.workers(workers);
        }
        // The gate counts them.
        builder = builder.max_concurrent_connections(usize::MAX >> 1);
        let stopping = builder.graceful_shutdown_signal();
        let address = socket.local_addr()?;
        let builder = builder.listen("listener", socket, move || {
            let (door, stopping) = (door.clone(), stopping.clone());
            let service = factory().into_factory();
            let service = service.map_err(|error| error.into().error_response());
            let http = HttpService::build()
                .graceful_shutdown_signal(move || {
                    let signal = stopping.clone();
                    async move { signal.notified().await }
                })
                .keep_alive(patience.idle)
                .client_request_timeout(patience.head)
                .client_disconnect_timeout(Duration::from_secs(1))
                .local_addr(address)
                .on_connect_ext(|stream: &Stream, more| {
                    more.insert(stream.connection());
                })
                .h1(map_config(service, |()| AppConfig::default()));
            fn_service(move |socket: TcpStream| {
                let door = door.clone();
                async move { door.enter(socket).await.map_err(DispatchError::Io) }
            })
            .and_then(http)
        })?;
        Ok(builder.run())
    }
}

/// What a connection passes before anything of it is read.
#[derive(Clone)]
struct Door {
    gate: Arc<Gate>,
    patience: Patience,
    tls: Option<TlsAcceptor>,
}

impl Door {
    async fn enter(&self, socket: TcpStream) -> io::Result<(Stream, Option<SocketAddr>)> {
        let peer = socket.peer_addr()?;
        let pass = self.gate.admit(peer.ip()).ok_or(io::ErrorKind::ConnectionRefused)?;
        socket.set_nodelay(true)?;
        let pace = Rc::new(Pace::new(pass, self.patience, self.tls.is_some()));
        let stream = match &self.tls {
            None => Stream::plain(socket, pace),
            Some(tls) => match tokio::time::timeout(HANDSHAKE, tls.accept(socket)).await {
                Ok(Ok(stream)) => Stream::encrypted(stream, pace),
                failed => {
                    self.gate.refused(Refusal::Handshake);
                    return Err(failed.map_or_else(io::Error::from, |it| {
                        it.err().unwrap_or_else(|| io::ErrorKind::InvalidData.into())
                    }));
                }
            },
        };
        Ok((stream, Some(peer)))
    }
}

#[cfg(test)]
mod tests;
