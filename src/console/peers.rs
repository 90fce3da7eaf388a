//! Node to node: what others ask of the shards held here, and calls that the node which leads has to answer.
//!
//! Every node takes every call. One that does not lead passes it on with the secret that the nodes share, and
//! passes the answer back as it comes.

use actix_web::HttpResponse;
use actix_web::dev::ServiceRequest;
use actix_web::http::StatusCode;
use actix_web::http::header::CONTENT_TYPE;
use actix_web::web;
use actix_web::web::Bytes;
use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use super::Services;
use super::asking::ask;
use super::audiences::Broken;
use super::audiences::lines;
use super::audit::By;
use super::problem::Problem;
use super::tokens::Bearer;
use crate::net::Call;
use crate::net::Limits;
use crate::net::PeerSecret;
use crate::net::Peers;
use crate::net::peers::Relayed;
use crate::segment::AskError;
use crate::segment::Message;
use crate::segment::Serve;
use crate::store::nodes::Nodes;

/// Who leads, as far as this node knows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Leader {
    /// This node.
    Here,
    /// The node at this address.
    At(String),
    /// None has been heard of.
    Unknown,
}

/// What this node is to the others.
pub struct Peering {
    /// What nodes show to each other.
    pub secret: PeerSecret,
    /// Calls others.
    pub peers: Peers,
    /// Answers for the shards held here.
    pub serve: Arc<Serve>,
    /// The register of nodes.
    pub nodes: Arc<dyn Nodes>,
    /// How many lanes the store has.
    pub lanes: u16,
    /// Who leads now.
    pub leader: Box<dyn Fn() -> Leader + Send + Sync>,
}

/// Whose call is passed on: the name of the token, its id or `-`, and the address or `-`.
pub(super) const ON_BEHALF: &str = Call::ON_BEHALF;
/// The path of what nodes ask each other.
pub(super) const INTERNAL: &str = "/internal/v1/";
/// What a question may bring: the profiles of an audience, as bitmaps.
pub(super) const MAX_QUESTION: usize = 256 << 20;
/// How long an answer that is passed on may take.
const PATIENCE: Duration = Duration::from_secs(1800);
/// Headers that are passed back.
const PASSED: [&str; 4] = ["content-type", "retry-after", "throng-generation", "throng-true-for"];

/// `POST /internal/v1/{what}`: a question of another node.
pub(super) async fn answer(
    services: web::Data<Services>,
    what: web::Path<String>,
    body: Bytes,
) -> Result<HttpResponse, Problem> {
    let Some(peering) = services.peering.as_ref() else {
        return Err(Problem::not_found("this node has its store for itself"));
    };
    let message =
        Message::decode(&body).map_err(|error| Problem::bad_request(error.to_string()))?;
    let serve = peering.serve.clone();
    if *what == "values" {
        let (send, body) = lines();
        tokio::task::spawn_blocking(move || {
            let told = serve
                .stream(&message, &mut |chunk| send.blocking_send(Ok(Bytes::from(chunk))).is_ok());
            if let Err(error) = told {
                tracing::warn!(%error, "another node's question was not answered to its end");
                let _ = send.blocking_send(Err(Broken));
            }
        });
        return Ok(HttpResponse::Ok().content_type(KIND).streaming(body));
    }
    let answered =
        ask(move |caller| Ok::<_, AskError>(serve.answer(&what, &message, caller))).await?;
    Ok(HttpResponse::Ok().content_type(KIND).body(Message::answer(&answered)))
}

const KIND: &str = "application/octet-stream";

/// Whose call another node passes on.
pub(super) fn on_behalf(text: &str) -> By {
    let mut parts = text.split(' ').map(|part| if part == "-" { "" } else { part });
    let (name, id) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
    let address = parts.next().filter(|address| !address.is_empty()).map(str::to_owned);
    By { bearer: Bearer::passed_on(name, id), address }
}

/// Passes a call on to the node that leads, and its answer back.
pub(super) async fn pass_on(
    request: &mut ServiceRequest,
    services: web::Data<Services>,
    address: String,
    by: Option<By>,
) -> Result<HttpResponse, Problem> {
    let by = by.map(|By { bearer, address }| {
        let id = if bearer.id.is_empty() { "-" } else { &bearer.id };
        format!("{} {id} {}", bearer.name, address.as_deref().unwrap_or("-"))
    });
    let method = request.method().as_str().to_owned();
    let path = request.uri().path_and_query().map_or_else(|| "/".to_owned(), ToString::to_string);
    let kind = request.headers().get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok());
    let kind = kind.map(str::to_owned);
    let body: Bytes = request
        .extract::<Bytes>()
        .await
        .map_err(|error| Problem::bad_request(error.to_string()))?;
    let (begun, begins) = tokio::sync::oneshot::channel();
    let (send, receive) = lines();
    tokio::task::spawn_blocking(move || {
        let Some(peering) = services.peering.as_ref() else { return };
        let limits = Limits { timeout: PATIENCE, bytes: u64::MAX };
        let call = Call {
            method: &method,
            path: &path,
            kind: kind.as_deref(),
            on_behalf: by.as_deref(),
            body: &body,
        };
        let Relayed { status, headers, body: mut from } =
            match peering.peers.relay(&address, &call, limits) {
                Ok(relayed) => relayed,
                Err(error) => {
                    let _ = begun.send(Err(crate::store::chain(&error)));
                    return;
                }
            };
        if begun.send(Ok((status, headers))).is_err() {
            return;
        }
        let mut buffer = vec![0; 1 << 16];
        loop {
            let chunk = match from.read(&mut buffer) {
                Ok(0) => return,
                Ok(count) => Ok(Bytes::copy_from_slice(&buffer[..count])),
                Err(error) => {
                    tracing::warn!(%error, "an answer of the node that leads broke off");
                    Err(Broken)
                }
            };
            let is_last = chunk.is_err();
            if send.blocking_send(chunk).is_err() || is_last {
                return;
            }
        }
    });
    let (status, headers) = match begins.await {
        Ok(Ok(begun)) => begun,
        Ok(Err(error)) => {
            return Err(Problem::unavailable(format!("the node that leads: {error}")));
        }
        Err(_) => return Err(Problem::internal(&"a call was not passed on")),
    };
    let status = StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_GATEWAY);
    let mut response = HttpResponse::build(status);
    for (name, value) in headers.iter().filter(|(name, _)| PASSED.contains(&name.as_str())) {
        response.insert_header((name.as_str(), value.as_str()));
    }
    Ok(response.streaming(receive))
}
