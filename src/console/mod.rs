//! The private listener: the management API, health and metrics, for those who hold a token.
//!
//! Handlers translate and decide nothing: what there is to know is asked of `segment`, `ingest` and
//! `activate`. `/livez` and `/readyz` are open, `/metrics` is open on loopback; all else wants a token.

mod api;
mod asking;
mod audiences;
mod audit;
mod backup;
mod cost;
mod destinations;
mod doctor;
mod estimate;
mod guard;
mod health;
mod history;
mod import;
mod letters;
mod lookalike;
mod nodes;
mod overlap;
mod partners;
mod peers;
mod privacy;
mod problem;
mod profiles;
mod quarantine;
mod rules;
mod segments;
mod store;
mod tokens;

use actix_web::App;
use actix_web::dev::Server;
use actix_web::middleware::from_fn;
use actix_web::web;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

use crate::activate::Pusher;
use crate::archive::Home;
use crate::backup::Backups;
use crate::config::Config;
use crate::ingest::Importer;
use crate::ingest::Lanes;
use crate::ingest::Quarantine;
use crate::metrics::Metrics;
use crate::net::Clock;
use crate::net::Workers;
use crate::net::listener;
use crate::net::listener::Certificate;
use crate::net::listener::Gate;
use crate::net::listener::Listener;
use crate::net::listener::Patience;
use crate::privacy::Privacy;
use crate::segment::Segments;
use crate::store::health::Checkup;
use crate::store::journal::Sink;
use crate::store::nodes::Roles;
use crate::store::shelf::Shelf;
use crate::store::sizes::Sizes;
pub use audit::Audit;
pub use audit::KEY as AUDIT_KEY;
pub use audit::Key as AuditKey;
pub use audit::first_seal as first_audit_seal;
pub use audit::fresh_key as fresh_audit_key;
pub use audit::key_of_directory as audit_key_of;
pub use peers::Leader;
pub use peers::Peering;

use problem::Problem;
pub use tokens::Tokens;

/// Everything that handlers ask.
pub struct Services {
    /// Settings.
    pub config: Arc<Config>,
    /// The clock.
    pub clock: Arc<dyn Clock>,
    /// Metrics.
    pub metrics: Metrics,
    /// Where events go.
    pub sink: Arc<dyn Sink>,
    /// The lanes in this process's hands.
    pub lanes: Arc<Lanes>,
    /// Who is set aside at collect.
    pub quarantine: Arc<Quarantine>,
    /// Backups.
    pub backups: Backups,
    /// The shelf of a store that others share.
    pub shelf: Option<Arc<dyn Shelf>>,
    /// Imports.
    pub importer: Arc<Importer>,
    /// Segments and their audiences.
    pub segments: Arc<Segments>,
    /// Pushes to destinations.
    pub pusher: Arc<Pusher>,
    /// Access, erasure and opt-out.
    pub privacy: Arc<Privacy>,
    /// What this node is to others that share its store.
    pub peering: Option<Peering>,
    /// Looks at the servers that the store is kept on, where there are any.
    pub checkup: Option<Arc<dyn Checkup>>,
    /// Measures what the store takes.
    pub sizes: Arc<dyn Sizes>,
    /// What this process does.
    pub roles: Roles,
    /// The data directory.
    pub data: PathBuf,
    /// Where the archive's files are.
    pub archive: Home,
    /// The threads, for the probes.
    pub workers: Workers,
    /// Who changed what.
    pub audit: Arc<Audit>,
    /// Set when the process is about to stop: it is not ready then.
    pub draining: Arc<AtomicBool>,
}

/// The largest body that is taken: a chunk of an import, or a set of rules.
const MAX_BODY: usize = 4 << 20;

/// What this module keeps in a data directory.
pub const FILES: [&str; 3] = [tokens::OPERATOR, tokens::OTHERS, audit::KEY];
/// The tokens but for the operator's, in a data directory.
pub const TOKENS_FILE: &str = tokens::OTHERS;
/// The same on the shelf of a store that nodes share.
pub const TOKENS_NAME: &str = tokens::SHELVED;

/// How many may be connected: people, machines that watch, and other nodes.
const CONNECTIONS: usize = 1_000;
/// How long a request's head is waited for, and then the next one. Work takes as long as it takes, and so do those who read
/// what came of it.
const PATIENCE: Patience = Patience {
    head: Duration::from_secs(10),
    idle: Duration::from_secs(5),
    handling: None,
    reading: None,
};
/// How long a stop waits for requests under way, in seconds.
const STOP: u64 = 5;

/// A listener's server, its address, and the certificate that it shows, where it shows one.
pub type Started = (Server, SocketAddr, Option<Arc<Certificate>>);

/// Binds the listener and returns its server, not yet polled, with the address it has.
pub fn run(services: Services, tokens: Arc<Tokens>) -> io::Result<Started> {
    let listen = services.config.console.listen;
    let certificate = services.config.console.tls.as_ref();
    let certificate = certificate.map(|files| Certificate::read("console.tls", files)).transpose();
    let certificate = certificate.map_err(io::Error::other)?.map(Arc::new);
    let shown = certificate.clone();
    let gate = Gate::new("private", (CONNECTIONS, CONNECTIONS), Vec::new(), &services.metrics);
    let tokens = web::Data::from(tokens);
    let (kept, draining) = (tokens.clone(), services.draining.clone());
    services.workers.spawn("tokens", move || tokens::keep(&kept, &draining))?;
    let services = web::Data::new(services);
    let failed = |error: io::Error| {
        io::Error::new(error.kind(), format!("console.listen = {listen}: {error}"))
    };
    let socket = listener::bind(listen).map_err(failed)?;
    let address = socket.local_addr().map_err(failed)?;
    let gate = Arc::new(gate);
    let listener =
        Listener { socket, gate, patience: PATIENCE, certificate, workers: 2, stop: STOP };
    let server = listener.serve(move || {
        App::new()
            .app_data(services.clone())
            .app_data(tokens.clone())
            .app_data(web::PayloadConfig::new(MAX_BODY))
            .app_data(
                web::JsonConfig::default()
                    .limit(MAX_BODY)
                    .error_handler(|error, _| Problem::of_json(&error).into()),
            )
            .app_data(
                web::PathConfig::default()
                    .error_handler(|error, _| Problem::not_found(error.to_string()).into()),
            )
            .app_data(
                web::QueryConfig::default()
                    .error_handler(|error, _| Problem::bad_request(error.to_string()).into()),
            )
            .wrap(from_fn(guard::guard))
            .configure(routes)
            .default_service(web::to(health::nowhere))
    });
    Ok((server.map_err(failed)?, address, shown))
}

fn routes(service: &mut web::ServiceConfig) {
    api::routes(service);
    // What nodes ask each other is no part of the API: it is as the version has it.
    service.service(
        web::resource("/internal/v1/{what}")
            .app_data(web::PayloadConfig::new(peers::MAX_QUESTION))
            .route(web::post().to(peers::answer)),
    );
}
