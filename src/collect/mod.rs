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
mod events;
mod gather;
mod limit;
mod lookup;
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
use actix_web::HttpServer;
use actix_web::dev::Server;
use actix_web::web;
use std::collections::BTreeSet;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

pub use lookup::Lookup;
pub use secret::Secret;
pub use secret::SecretError;

use crate::config::Config;
use crate::config::ConsentRegime;
use crate::metrics::Metrics;
use crate::net::Clock;
use crate::store::journal::Sink;
use worker::Shared;
use worker::Worker;

/// How long a client may take for its request's head, and then for its body.
const PATIENCE: Duration = Duration::from_secs(10);
/// How long a connection may be idle between requests.
const KEEP_ALIVE: Duration = Duration::from_secs(30);

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
}

/// Starts the public listener on `collect.listen` and tells its address; port 0 takes a free one.
///
/// The server runs when it is awaited on an actix or tokio runtime and stops through its handle; signals
/// are the caller's. `recipients` are the vendor ids of destinations: what a visitor allowed is recorded for these alone.
pub fn run(
    config: &Config,
    sink: Arc<dyn Sink>,
    clock: Arc<dyn Clock>,
    metrics: Metrics,
    (secret, lookup): (Secret, Option<Lookup>),
    recipients: BTreeSet<u16>,
) -> Result<(Server, SocketAddr), CollectError> {
    for notice in notices(config) {
        tracing::warn!("{notice}");
    }
    let mut shared = Shared::new(config, clock, metrics, secret, PATIENCE);
    shared.lookup = lookup.map(Arc::new);
    shared.recipients = recipients.into_iter().collect();
    start(config, sink, shared)
}

fn start(
    config: &Config,
    sink: Arc<dyn Sink>,
    shared: Shared,
) -> Result<(Server, SocketAddr), CollectError> {
    let listen = |source| CollectError::Listen { address: config.collect.listen, source };
    let patience = shared.patience;
    let shared = Arc::new(shared);
    let durability = config.journal.durability;
    let snowplow_path = config.collect.snowplow_path.clone();
    let mut server = HttpServer::new(move || {
        let worker = Worker::new(Arc::clone(&shared), Arc::clone(&sink), durability);
        App::new()
            .app_data(Rc::new(worker))
            .configure(configure)
            .configure(|app| protocols::configure(app, snowplow_path.as_deref()))
            .default_service(web::to(not_found))
    })
    .tcp_nodelay(true)
    .keep_alive(KEEP_ALIVE)
    .client_request_timeout(patience)
    .client_disconnect_timeout(Duration::from_secs(1))
    .shutdown_timeout(10)
    .disable_signals();
    if config.collect.workers > 0 {
        server = server.workers(config.collect.workers);
    }
    let server = server.bind(config.collect.listen).map_err(listen)?;
    let address = server.addrs().first().copied();
    let address =
        address.ok_or_else(|| listen(io::Error::from(io::ErrorKind::AddrNotAvailable)))?;
    Ok((server.run(), address))
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

/// The state of the worker thread that runs the request.
fn worker(request: &HttpRequest) -> &Rc<Worker> {
    request.app_data::<Rc<Worker>>().expect("every app of this server is made with its worker")
}

#[cfg(test)]
mod tests;
