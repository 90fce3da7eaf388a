//! The public listener: untrusted HTTP in, events into the journal.
//!
//! ```text
//! request ─► visitor (address, origin, cookies, signals) ─► site ─► origin ─► rate ─► consent
//!         ─► canonical event ─► recorder ─► answer, when durable
//! ```
//!
//! Consent is judged before any id is made, and nothing of a refused hit is written but the choice itself.
//! Every event ends in exactly one outcome, counted here. No call here reads an id back; which audiences one is in is
//! told to its own browser, and to servers that have a token.

mod answer;
mod body;
mod consent;
mod cookie;
mod deletion;
mod events;
mod forwarded;
#[cfg(any(test, feature = "fuzzing"))]
pub(crate) mod fuzz;
mod gather;
mod limit;
mod lookup;
mod partner_id;
mod pixel;
mod privacy;
mod protocols;
mod query;
mod secret;
mod sync;
mod tag;
mod visitor;
mod worker;

use actix_web::App;
use actix_web::HttpRequest;
use actix_web::HttpResponse;
use actix_web::dev::Server;
use actix_web::web;
use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

pub use deletion::Deletion;
pub use lookup::Lookup;
pub use secret::Secret;
pub use secret::SecretError;

use crate::config::Config;
use crate::config::ConsentRegime;
use crate::ingest::Quarantine;
use crate::metrics::Metrics;
use crate::net::Clock;
use crate::net::listener;
use crate::net::listener::BadCertificate;
use crate::net::listener::Certificate;
use crate::net::listener::Connection;
use crate::net::listener::Gate;
use crate::net::listener::Listener;
use crate::net::listener::Patience;
use crate::store::journal::Sink;
use worker::Shared;
use worker::Worker;

/// How long a client may take for its request's head, and then for its body.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a connection may be idle between requests.
const KEEP_ALIVE: Duration = Duration::from_secs(30);
/// How long a request may take from its head to its answer: beyond its body's time, what keeps its events.
const HANDLING: Duration = Duration::from_secs(60);
/// How long a stop waits for requests under way, in seconds.
const STOP: u64 = 10;
/// Files that are left to the rest of the process.
const FILES: u64 = 1_000;

/// Why the listener did not start.
#[derive(Debug, thiserror::Error)]
pub enum CollectError {
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: free it, or set collect.listen to another")]
    Listen {
        /// The address of `collect.listen`.
        address: SocketAddr,
        /// What the system answered.
        #[source]
        source: io::Error,
    },
    /// The certificate cannot be shown.
    #[error(transparent)]
    Certificate(#[from] BadCertificate),
}

/// A listener's server, its address, and the certificate that it shows, where it shows one.
pub type Started = (Server, SocketAddr, Option<Arc<Certificate>>);

/// What a listener has of its own: the key of cookies, who answers lookups and who takes deletion requests of others, where
/// anybody does, and who is set aside.
pub type Own = (Secret, Option<Lookup>, Option<Deletion>, Arc<Quarantine>);

/// Starts the public listener on `collect.listen` and tells its address; port 0 takes a free one.
///
/// The server runs when it is awaited on an actix or tokio runtime and stops through its handle; signals
/// are the caller's. `recipients` are the vendor ids of destinations: what a visitor allowed is recorded for these alone.
pub fn run(
    config: &Config,
    sink: Arc<dyn Sink>,
    clock: Arc<dyn Clock>,
    metrics: Metrics,
    (secret, lookup, deletion, quarantine): Own,
    recipients: BTreeSet<u16>,
) -> Result<Started, CollectError> {
    for notice in notices(config) {
        tracing::warn!("{notice}");
    }
    let mut shared = Shared::new(config, clock, metrics, secret, PATIENCE);
    shared.lookup = lookup.map(Arc::new);
    shared.quarantine = Some(quarantine);
    shared.deletion = deletion.map(Arc::new);
    shared.recipients = recipients.into_iter().collect();
    start(config, sink, shared)
}

fn start(
    config: &Config,
    sink: Arc<dyn Sink>,
    mut shared: Shared,
) -> Result<Started, CollectError> {
    let listen = |source| CollectError::Listen { address: config.collect.listen, source };
    let certificate = config.collect.tls.as_ref();
    let certificate =
        certificate.map(|files| Certificate::read("collect.tls", files)).transpose()?;
    let certificate = certificate.map(Arc::new);
    let shown = certificate.clone();
    let patience = Patience {
        head: shared.patience,
        idle: KEEP_ALIVE,
        handling: Some(HANDLING),
        reading: Some(shared.patience),
    };
    let gate = shared.gate.take().unwrap_or_else(|| gate(config, &shared.metrics));
    let shared = Arc::new(shared);
    let durability = config.journal.durability;
    let snowplow_path = config.collect.snowplow_path.clone();
    let socket = listener::bind(config.collect.listen).map_err(listen)?;
    let address = socket.local_addr().map_err(listen)?;
    let workers = config.collect.workers;
    let listener =
        Listener { socket, gate: gate.into(), patience, certificate, workers, stop: STOP };
    let server = listener.serve(move || {
        let worker = Worker::new(Arc::clone(&shared), Arc::clone(&sink), durability);
        App::new()
            .app_data(Rc::new(worker))
            .configure(configure)
            .configure(|app| protocols::configure(app, snowplow_path.as_deref()))
            .default_service(web::to(not_found))
    });
    Ok((server.map_err(listen)?, address, shown))
}

/// Who may connect: no more than there are files for.
fn gate(config: &Config, metrics: &Metrics) -> Gate {
    let collect = &config.collect;
    let mut most = collect.connections;
    if let Some(files) = listener::files() {
        let room = usize::try_from(files.saturating_sub(FILES).max(files / 2)).unwrap_or(most);
        if room < most {
            tracing::warn!(
                "collect.connections = {most}, but the process may have {files} files open, so that it takes {room}: raise \
                 the limit (LimitNOFILE, ulimit -n)"
            );
            most = room;
        }
    }
    let proxies = collect.trusted_proxies.iter().copied();
    let trusted = config.sites.iter().flat_map(|site| site.trusted.iter().copied());
    let exempt = proxies.chain(trusted).collect();
    Gate::new("public", (most, collect.connections_per_address), exempt, metrics)
}

/// What a site loses by its settings without a word, to be said at the start.
pub fn notices(config: &Config) -> Vec<String> {
    let sites = config.sites.iter().filter(|site| site.tcf_vendor.is_none());
    sites
        .filter_map(|site| {
            let what = match site.consent {
                ConsentRegime::OptIn => "\"opt_in\" refuses every hit",
                ConsentRegime::OptOut => "\"opt_out\" refuses every hit with gdpr=1",
                ConsentRegime::None => return None,
            };
            let key = &site.key;
            Some(format!(
                "site {key}: consent = {what}: set tcf_vendor to your id in the Global Vendor List, \
                 without which no TCF string can be a consent to you"
            ))
        })
        .collect()
}

fn configure(app: &mut web::ServiceConfig) {
    app.service(
        web::resource("/pixel.gif")
            .route(web::get().to(pixel::pixel))
            .default_service(wrong_method()),
    )
    .service(
        web::resource("/t.js")
            .route(web::get().to(tag::tag))
            .route(web::head().to(tag::tag))
            .default_service(wrong_method()),
    )
    .service(
        web::resource("/v1/events")
            .route(web::post().to(events::events))
            .route(web::method(actix_web::http::Method::OPTIONS).to(answer::preflight))
            .default_service(wrong_method()),
    )
    .service(
        web::resource("/v1/audiences")
            .route(web::get().to(lookup::one))
            .route(web::post().to(lookup::many))
            .route(web::method(actix_web::http::Method::OPTIONS).to(answer::preflight))
            .default_service(wrong_method()),
    )
    .service(
        web::resource("/sync/{partner}")
            .route(web::get().to(sync::sync))
            .default_service(wrong_method()),
    )
    .service(
        web::resource("/match/{partner}")
            .route(web::get().to(sync::matched))
            .default_service(wrong_method()),
    )
    .service(
        web::resource("/privacy/opt-out")
            .route(web::get().to(privacy::show))
            .route(web::post().to(privacy::opt_out))
            .default_service(wrong_method()),
    )
    .service(
        web::resource("/privacy/opt-in")
            .route(web::post().to(privacy::opt_in))
            .default_service(wrong_method()),
    )
    .service(
        web::resource(["/dsrdelete.json", "/.well-known/iabtl/dsrdelete.json"])
            .route(web::get().to(deletion::file))
            .default_service(wrong_method()),
    )
    .service(
        web::resource("/.well-known/iabtl/jwks.json")
            .route(web::get().to(deletion::key_set))
            .default_service(wrong_method()),
    )
    .service(
        web::resource("/privacy/delete")
            .route(web::post().to(deletion::take))
            .default_service(wrong_method()),
    )
    .service(
        web::resource("/.well-known/gpc.json")
            .route(web::get().to(privacy::gpc))
            .default_service(wrong_method()),
    );
}

fn wrong_method() -> actix_web::Route {
    web::to(|request: HttpRequest| async move {
        worker(&request).answered(HttpResponse::MethodNotAllowed().body("no such method here\n"))
    })
}

async fn not_found(request: HttpRequest) -> HttpResponse {
    worker(&request).answered(HttpResponse::NotFound().body("nothing is here\n"))
}

/// Takes no more of a request's body: what its client sends on is not waited for.
fn give_up(request: &HttpRequest) {
    if let Some(connection) = request.conn_data::<Connection>() {
        connection.ending();
    }
}

/// The state of the worker thread that runs the request, which is being handled from here on.
fn worker(request: &HttpRequest) -> &Rc<Worker> {
    if let Some(connection) = request.conn_data::<Connection>() {
        connection.handling();
    }
    request.app_data::<Rc<Worker>>().expect("every app of this server is made with its worker")
}

#[cfg(test)]
mod tests;
