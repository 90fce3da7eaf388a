//! What every request of the private listener passes: whether its bearer may, and who answers it.

use actix_web::HttpMessage;
use actix_web::body::EitherBody;
use actix_web::body::MessageBody;
use actix_web::dev::ServiceRequest;
use actix_web::dev::ServiceResponse;
use actix_web::http::header::AUTHORIZATION;
use actix_web::http::header::CONTENT_TYPE;
use actix_web::middleware::Next;
use actix_web::web;

use super::Leader;
use super::Services;
use super::api;
use super::api::Effect;
use super::api::Known;
use super::api::Need;
use super::audit;
use super::audit::By;
use super::audit::Entry;
use super::peers;
use super::problem::PROBLEM;
use super::problem::Problem;
use super::tokens::Bearer;
use super::tokens::Scope;
use super::tokens::Tokens;
use crate::net::listener::Connection;
use crate::store::StoreError;
use crate::store::chain;

/// Lets a request in that needs no token, or has one whose scope reaches so far, and counts the answer.
pub(super) async fn guard(
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
        Ok(Way::Here) => {
            let change = Change::of(&request, &services);
            match begun(change).await {
                Ok(change) => {
                    let answer = next.call(request).await.map(as_problem);
                    ended(change, answer).await.map(ServiceResponse::map_into_left_body)
                }
                Err(problem) => Err(problem.into()),
            }
        }
        Ok(Way::To(leader)) => {
            let by = request.extensions().get::<By>().cloned();
            match peers::pass_on(&mut request, services, leader, by).await {
                Ok(response) => Ok(request.into_response(response).map_into_right_body()),
                Err(problem) => Err(problem.into()),
            }
        }
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

/// A change that is asked for.
struct Change {
    services: web::Data<Services>,
    tokens: web::Data<Tokens>,
    pattern: &'static str,
    target: String,
    entry: Entry,
}

impl Change {
    /// What a request asks to be changed; `None` of one that only asks.
    fn of(request: &ServiceRequest, services: &web::Data<Services>) -> Option<Self> {
        let known = api::known(request).filter(|known| known.effect == Effect::Changes)?;
        let By { bearer, address } = request.extensions().get::<By>()?.clone();
        let target = request.uri().path_and_query().map_or("/", |target| target.as_str());
        // The log is for good, and an identifier is not: nobody could be erased from it.
        let is_of_somebody = known.path.contains("{value}");
        let told = if is_of_somebody { known.path } else { target };
        Some(Self {
            services: services.clone(),
            tokens: request.app_data::<web::Data<Tokens>>()?.clone(),
            pattern: known.path,
            target: target.to_owned(),
            entry: Entry {
                actor: (bearer.name, Some(bearer.id).filter(|id| !id.is_empty())),
                address,
                action: format!("{} {}", request.method(), known.path),
                target: Some(told.to_owned()),
                outcome: "begun".to_owned(),
                ..Entry::default()
            },
        })
    }

    fn state(&self) -> Option<String> {
        audit::state(&self.services, &self.tokens, self.pattern, &self.target)
    }
}

/// Writes down that a change is asked for. Without that it is not made.
async fn begun(change: Option<Change>) -> Result<Option<Change>, Problem> {
    let Some(mut change) = change else { return Ok(None) };
    let written = web::block(move || {
        change.entry.before = change.state();
        let number = change.services.audit.write(&change.entry)?;
        change.entry.of = Some(number);
        Ok::<_, StoreError>(change)
    });
    match written.await.map_err(|error| Problem::internal(&error))? {
        Ok(change) => Ok(Some(change)),
        Err(error) => {
            let error = chain(&error);
            tracing::error!(error, "the audit log cannot be written: nothing is changed meanwhile");
            Err(Problem::unavailable(format!(
                "nothing was changed, because it cannot be written into the audit log: {error}"
            )))
        }
    }
}

/// Writes down what became of a change.
async fn ended<B: MessageBody + 'static>(
    change: Option<Change>,
    answer: Result<ServiceResponse<B>, actix_web::Error>,
) -> Result<ServiceResponse<EitherBody<B>>, actix_web::Error> {
    let Some(mut change) = change else {
        return answer.map(ServiceResponse::map_into_left_body);
    };
    let status = match &answer {
        Ok(response) => response.status(),
        Err(error) => error.as_response_error().status_code(),
    };
    change.entry.outcome = status.as_str().to_owned();
    let written = web::block(move || {
        change.entry.after = change.state();
        change.services.audit.write(&change.entry).map_err(|error| chain(&error))
    });
    let written = written.await.unwrap_or_else(|error| Err(error.to_string()));
    match written {
        Ok(_) => answer.map(ServiceResponse::map_into_left_body),
        Err(error) => {
            tracing::error!(error, "what became of a change cannot be written into the audit log");
            let told = format!(
                "the request was answered with {status}, and that cannot be written into the audit log: {error}"
            );
            Err(Problem::unavailable(told).into())
        }
    }
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
    let known = api::known(request);
    // The socket's own address: a header could claim any.
    let is_local = request.peer_addr().is_some_and(|peer| peer.ip().is_loopback());
    match known.map(|known| known.need) {
        Some(Need::Nothing) => return Ok(Way::Here),
        Some(Need::Metrics) if is_local => return Ok(Way::Here),
        _ => {}
    }
    let tokens = request.app_data::<web::Data<Tokens>>().expect("set for the whole listener");
    let by = if is_peer {
        // Another node says whose call it passes on.
        let on_behalf = request.headers().get(peers::ON_BEHALF).and_then(|by| by.to_str().ok());
        on_behalf.map_or_else(|| By { bearer: Bearer::peer(), address: None }, peers::on_behalf)
    } else {
        let bearer =
            token.and_then(|token| tokens.bearer(token)).ok_or_else(Problem::unauthorized)?;
        let address = request.peer_addr().map(|peer| peer.ip().to_string());
        By { bearer, address }
    };
    // What does not exist is told to who has a token, whatever it may do.
    let Some(Known { need, .. }) = known else { return Ok(Way::Here) };
    let scope = match need {
        Need::Nothing | Need::Token => None,
        Need::Scope(scope) => Some(scope),
        Need::Metrics => Some(Scope::Metrics),
    };
    if let Some(scope) = scope.filter(|scope| !by.bearer.may(*scope)) {
        return Err(Problem::forbidden(format!(
            "the token {:?} has not the scope `{}`, which this call needs",
            by.bearer.name,
            scope.as_str()
        )));
    }
    request.extensions_mut().insert(by.bearer.clone());
    request.extensions_mut().insert(by);
    way(path, services, is_peer)
}

/// Who answers a request of somebody who may.
fn way(path: &str, services: &Services, is_peer: bool) -> Result<Way, Problem> {
    // Tokens and nodes are known to every node, and how it is itself it knows best.
    let of_all = [
        "/api/v1/tokens",
        "/api/v1/nodes",
        "/api/v1/doctor",
        "/api/v1/store",
        "/api/v1/quarantine",
    ];
    let Some(peering) = services.peering.as_ref().filter(|_| path.starts_with("/api/")) else {
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

/// What the framework refuses by itself, such as a body that is too large, is told as a problem document too.
fn as_problem<B: MessageBody + 'static>(
    response: ServiceResponse<B>,
) -> ServiceResponse<impl MessageBody> {
    let status = response.status();
    let is_told = response.headers().get(CONTENT_TYPE).is_some_and(|kind| kind == PROBLEM);
    let Some(error) = response.response().error() else {
        return response.map_into_left_body();
    };
    if is_told || !(status.is_client_error() || status.is_server_error()) {
        return response.map_into_left_body();
    }
    let problem = Problem::of_status(status, &error.to_string());
    let told = actix_web::ResponseError::error_response(&problem);
    response.into_response(told).map_into_right_body()
}
