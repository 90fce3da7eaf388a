//! The private listener: the management API, health and metrics, for those who hold a token.
//!
//! Handlers translate and decide nothing: what there is to know is asked of `segment`, `ingest` and
//! `activate`. `/livez` and `/readyz` are open, `/metrics` is open on loopback; all else wants a token.

mod asking;
mod audiences;
mod backup;
mod cost;
mod destinations;
mod doctor;
mod estimate;
mod health;
mod history;
mod import;
mod letters;
mod lookalike;
mod nodes;
mod overlap;
mod partners;
mod peers;
mod problem;
mod profiles;
mod quarantine;
mod rules;
mod segments;
mod store;
mod tokens;

use actix_web::App;
use actix_web::body::MessageBody;
use actix_web::dev::Server;
use actix_web::dev::ServiceRequest;
use actix_web::dev::ServiceResponse;
use actix_web::http::Method;
use actix_web::http::header::AUTHORIZATION;
use actix_web::middleware::Next;
use actix_web::middleware::from_fn;
use actix_web::web;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
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
use crate::net::listener::Connection;
use crate::net::listener::Gate;
use crate::net::listener::Listener;
use crate::net::listener::Patience;
use crate::segment::Segments;
use crate::store::health::Checkup;
use crate::store::journal::Sink;
use crate::store::nodes::Roles;
use crate::store::shelf::Shelf;
use crate::store::sizes::Sizes;
pub use peers::Leader;
pub use peers::Peering;

use problem::Problem;
use tokens::Scope;
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
    /// Set when the process is about to stop: it is not ready then.
    pub draining: Arc<AtomicBool>,
}

/// The largest body that is taken: a chunk of an import, or a set of rules.
const MAX_BODY: usize = 4 << 20;

/// How often a node looks for tokens that others have made or revoked.
const LOOK_FOR_TOKENS: Duration = Duration::from_secs(1);

/// What this module keeps in a data directory.
pub const FILES: [&str; 2] = [tokens::OPERATOR, tokens::OTHERS];
/// The tokens but for the operator's, in a data directory.
pub const TOKENS_FILE: &str = tokens::OTHERS;
/// The same on the shelf of a store that nodes share.
pub const TOKENS_NAME: &str = tokens::SHELVED;

/// How many may be connected: people, machines that watch, and other nodes.
const CONNECTIONS: usize = 1_000;
/// How long a request's head is waited for, and then the next one. Work takes as long as it takes.
const PATIENCE: Patience =
    Patience { head: Duration::from_secs(10), idle: Duration::from_secs(5), handling: None };
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
    if tokens.are_shared() {
        let (tokens, draining) = (tokens.clone(), services.draining.clone());
        services.workers.spawn("tokens", move || {
            while !draining.load(Ordering::Acquire) {
                if let Err(error) = tokens.reload() {
                    tracing::debug!(%error, "the tokens cannot be read now");
                }
                std::thread::sleep(LOOK_FOR_TOKENS);
            }
        })?;
    }
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
                    .error_handler(|error, _| Problem::bad_request(error.to_string()).into()),
            )
            .app_data(
                web::QueryConfig::default()
                    .error_handler(|error, _| Problem::bad_request(error.to_string()).into()),
            )
            .wrap(from_fn(guard))
            .configure(routes)
            .default_service(web::to(health::nowhere))
    });
    Ok((server.map_err(failed)?, address, shown))
}

fn routes(service: &mut web::ServiceConfig) {
    service
        .route("/livez", web::get().to(health::live))
        .route("/readyz", web::get().to(health::ready))
        .route("/metrics", web::get().to(health::metrics))
        .service(
            web::resource("/internal/v1/{what}")
                .app_data(web::PayloadConfig::new(peers::MAX_QUESTION))
                .route(web::post().to(peers::answer)),
        )
        .service(
            web::scope("/api/v1")
                .route("/segments", web::get().to(segments::list))
                .route("/segments/{id}", web::get().to(segments::show))
                .route("/segments/{id}", web::put().to(segments::put))
                .route("/segments/{id}", web::delete().to(segments::delete))
                .route("/audiences", web::get().to(audiences::list))
                .route("/audiences/{id}", web::get().to(audiences::show))
                .route("/audiences/{id}/members", web::get().to(audiences::members))
                .route("/audiences/{id}/history", web::get().to(history::history))
                .route("/audiences/{id}/lookalike", web::get().to(lookalike::show))
                .route("/audiences/{id}/lookalike", web::post().to(lookalike::train))
                .route("/overlap", web::post().to(overlap::overlap))
                .route("/costs", web::get().to(cost::costs))
                .route("/plan", web::post().to(segments::plan))
                .route("/apply", web::post().to(segments::apply))
                .route("/check", web::post().to(rules::check))
                .route("/eval", web::post().to(rules::eval))
                .route("/estimate", web::post().to(estimate::estimate))
                .route("/explain", web::post().to(rules::explain))
                .route("/profiles/{namespace}/{value}", web::get().to(profiles::show))
                .route(
                    "/profiles/{namespace}/{value}/audiences",
                    web::get().to(profiles::audiences),
                )
                .route("/profiles/{namespace}/{value}/why/{segment}", web::get().to(profiles::why))
                .route("/destinations", web::get().to(destinations::list))
                .route("/destinations/{name}", web::get().to(destinations::show))
                .route("/destinations/{name}/deliveries", web::get().to(destinations::deliveries))
                .route("/destinations/{name}/push", web::post().to(destinations::push))
                .route("/destinations/{name}/refused", web::get().to(destinations::refused))
                .route("/destinations/{name}/waterfall", web::get().to(destinations::waterfall))
                .route("/destinations/{name}/test", web::post().to(destinations::test))
                .route(
                    "/destinations/{name}/{what:pause|resume}",
                    web::post().to(destinations::pause),
                )
                .route(
                    "/destinations/{name}/{what:replay|resync|reseed}",
                    web::post().to(destinations::again),
                )
                .route("/partners", web::get().to(partners::list))
                .route("/import/events", web::get().to(import::status))
                .route("/import/events", web::post().to(import::take))
                .route("/dead-letters", web::get().to(letters::list))
                .route("/dead-letters/{number}", web::get().to(letters::show))
                .route("/dead-letters/{number}", web::delete().to(letters::drop))
                .route("/quarantine", web::get().to(quarantine::list))
                .route(
                    "/quarantine/{namespace}/{value}/restore",
                    web::post().to(quarantine::restore),
                )
                .route("/schema", web::get().to(profiles::schema))
                .route("/backup", web::post().to(backup::take))
                .route("/store/size", web::get().to(store::size))
                .route("/doctor", web::get().to(doctor::look))
                .route("/nodes", web::get().to(nodes::list))
                .route("/nodes/{id}", web::delete().to(nodes::retire))
                .route("/tokens", web::get().to(health::tokens))
                .route("/tokens", web::post().to(health::create_token))
                .route("/tokens/{name}", web::delete().to(health::revoke_token)),
        );
}

/// Lets a request in that needs no token, or has one whose scope reaches so far, and counts the answer.
async fn guard(
    mut request: ServiceRequest,
    next: Next<impl MessageBody + 'static>,
) -> Result<ServiceResponse<impl MessageBody>, actix_web::Error> {
    if let Some(connection) = request.conn_data::<Connection>() {
        connection.handling();
    }
    let services = request.app_data::<web::Data<Services>>();
    let services = services.expect("set for the whole listener").clone();
    let metrics = services.metrics.clone();
    let answer = match allow(&request, &services) {
        Ok(Way::Here) => next.call(request).await.map(ServiceResponse::map_into_left_body),
        Ok(Way::To(leader)) => match peers::pass_on(&mut request, services, leader).await {
            Ok(response) => Ok(request.into_response(response).map_into_right_body()),
            Err(problem) => Err(problem.into()),
        },
        Err(refused) => Err(refused.into()),
    };
    let status = match &answer {
        Ok(response) => response.status(),
        Err(error) => error.as_response_error().status_code(),
    };
    let class = match status.as_u16() {
        500.. => "5xx",
        400..500 => "4xx",
        300..400 => "3xx",
        _ => "2xx",
    };
    metrics.http_responses.with_label_values(&["private", class]).inc();
    answer
}

/// Who answers a request.
enum Way {
    Here,
    /// The node that leads, at this address.
    To(String),
}

/// Who answers a request that needs no token, or has one whose scope reaches so far.
fn allow(request: &ServiceRequest, services: &Services) -> Result<Way, Problem> {
    let path = request.path();
    let is_read = request.method() == Method::GET || request.method() == Method::HEAD;
    let is_probe = is_read && matches!(path, "/livez" | "/readyz");
    let is_metrics = is_read && path == "/metrics";
    // The socket's own address: a header could claim any.
    let is_local = request.peer_addr().is_some_and(|peer| peer.ip().is_loopback());
    if is_probe || (is_metrics && is_local) {
        return Ok(Way::Here);
    }
    let tokens = request.app_data::<web::Data<Tokens>>().expect("set for the whole listener");
    let token = request
        .headers()
        .get(AUTHORIZATION)
        .and_then(|value| value.to_str().ok())
        .and_then(|value| value.strip_prefix("Bearer "))
        .map(str::trim);
    let peering = services.peering.as_ref();
    let is_peer = token.zip(peering).is_some_and(|(token, peering)| peering.secret.is(token));
    if path.starts_with(peers::INTERNAL) {
        return if is_peer { Ok(Way::Here) } else { Err(Problem::unauthorized()) };
    }
    match token.and_then(|token| tokens.scope(token)) {
        None if !is_peer => return Err(Problem::unauthorized()),
        Some(Scope::Metrics) if !is_metrics => {
            return Err(Problem::forbidden("this token reads /metrics and nothing else"));
        }
        Some(Scope::Lookup) => {
            let why = "this token asks the public listener for audiences and nothing else";
            return Err(Problem::forbidden(why));
        }
        _ => {}
    }
    // Tokens and nodes are known to every node, and how it is itself it knows best.
    let of_all = [
        "/api/v1/tokens",
        "/api/v1/nodes",
        "/api/v1/doctor",
        "/api/v1/store",
        "/api/v1/quarantine",
    ];
    let Some(peering) = peering.filter(|_| path.starts_with("/api/")) else {
        return Ok(Way::Here);
    };
    // What a profile is in is a list in the store, and its identifiers are asked of who holds them.
    let is_profile = path.starts_with("/api/v1/profiles/") && !path.contains("/why/");
    if is_profile || of_all.iter().any(|prefix| path.starts_with(prefix)) {
        return Ok(Way::Here);
    }
    match (peering.leader)() {
        Leader::Here => Ok(Way::Here),
        Leader::At(address) if !is_peer => Ok(Way::To(address)),
        Leader::At(_) | Leader::Unknown => {
            Err(Problem::unavailable("no node leads at the moment; try again in some seconds"))
        }
    }
}
