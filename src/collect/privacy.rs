//! This browser's choice: the page that shows it and the calls that make it, and what we say about GPC.

use actix_web::HttpRequest;
use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use actix_web::http::header::CACHE_CONTROL;
use actix_web::http::header::CONTENT_SECURITY_POLICY;
use actix_web::http::header::CONTENT_TYPE;
use actix_web::http::header::HOST;
use actix_web::http::header::HeaderName;
use actix_web::http::header::HeaderValue;
use actix_web::http::header::REFERRER_POLICY;
use actix_web::http::header::SET_COOKIE;

use super::cookie::Scope;
use super::cookie::remember_opt_out;
use super::visitor::Page;
use super::visitor::Visitor;
use super::worker::Worker;
use crate::model::Choice;
use crate::model::Record;

const SEC_FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");

/// `GET /privacy/opt-out`: the choice as it stands, and a form.
pub(super) async fn show(request: HttpRequest) -> HttpResponse {
    let worker = super::worker(&request);
    let visitor = Visitor::of(&request, &worker.shared);
    worker.answered(page(StatusCode::OK, visitor.browser.opted_out, visitor.browser.gpc))
}

/// `POST /privacy/opt-out`.
pub(super) async fn opt_out(request: HttpRequest) -> HttpResponse {
    choose(&request, true).await
}

/// `POST /privacy/opt-in`.
pub(super) async fn opt_in(request: HttpRequest) -> HttpResponse {
    choose(&request, false).await
}

/// `GET /.well-known/gpc.json`: we honour Global Privacy Control.
pub(super) async fn gpc(request: HttpRequest) -> HttpResponse {
    let response = HttpResponse::Ok()
        .insert_header((CONTENT_TYPE, "application/json"))
        .body(r#"{"gpc":true,"lastUpdate":"2026-11-24"}"#);
    super::worker(&request).answered(response)
}

async fn choose(request: &HttpRequest, opted_out: bool) -> HttpResponse {
    let worker = super::worker(request);
    let visitor = Visitor::of(request, &worker.shared);
    if !is_same_origin(&visitor) {
        let message = "this choice can only be made on its own page\n";
        return worker.answered(HttpResponse::Forbidden().body(message));
    }
    let now = worker.shared.clock.now();
    if worker.shared.limiter.take(visitor.address, 1, now).is_err() {
        let message = "too many requests: try again in a minute\n";
        return worker.answered(HttpResponse::TooManyRequests().body(message));
    }
    let mut cookies = vec![remember_opt_out(opted_out, visitor.is_https)];
    let mut choices = Vec::new();
    for scope in scopes(worker, &visitor) {
        let Some(identifier) = worker.cookies.read(visitor.headers, scope) else { continue };
        choices.push(Record::Choice(Choice { identifier, opted_out, received: now }));
        if opted_out {
            cookies.push(worker.cookies.expire(scope));
        }
    }
    if !choices.is_empty() {
        let recorded = worker
            .recorder
            .record(|batch| choices.iter().try_for_each(|choice| batch.push(choice)));
        let is_kept = match recorded {
            Ok(pending) => pending.await.is_ok(),
            Err(_) => false,
        };
        if !is_kept {
            let message = "your choice could not be kept: please try again in a moment\n";
            let mut response = HttpResponse::ServiceUnavailable();
            return worker.answered(response.insert_header(("Retry-After", "1")).body(message));
        }
    }
    let mut response = page(StatusCode::OK, opted_out, visitor.browser.gpc);
    for cookie in cookies {
        response.headers_mut().append(SET_COOKIE, cookie);
    }
    worker.answered(response)
}

/// Every scope under which this browser may hold an identifier of ours.
fn scopes<'a>(worker: &'a Worker, visitor: &Visitor<'_>) -> Vec<Scope<'a>> {
    let mut scopes = Vec::new();
    for site in worker.shared.sites.values() {
        let scope = Scope::of(site, visitor.is_https);
        if !scopes.contains(&scope) {
            scopes.push(scope);
        }
    }
    scopes
}

/// Whether our own page sent the form. A browser says so; where it does not, its origin is the host.
fn is_same_origin(visitor: &Visitor<'_>) -> bool {
    if let Some(site) = visitor.headers.get(SEC_FETCH_SITE) {
        return site == "same-origin";
    }
    let host = visitor.headers.get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let (Page::Origin(origin) | Page::Referrer(origin)) = visitor.page else { return false };
    let scheme = if visitor.is_https { "https://" } else { "http://" };
    let Some(from) = origin.strip_prefix(scheme) else { return false };
    !host.is_empty() && from.eq_ignore_ascii_case(host)
}

fn page(status: StatusCode, opted_out: bool, gpc: bool) -> HttpResponse {
    let (state, action, button) = if opted_out {
        ("This browser is opted out: nothing it does is recorded.", "opt-in", "Opt in again")
    } else {
        ("This browser is not opted out.", "opt-out", "Opt out")
    };
    let signal = if gpc {
        "<p>Your browser sends Global Privacy Control, which counts as an opt-out by itself.</p>"
    } else {
        ""
    };
    let html = format!(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>Your choice</title>\
         <meta name=\"viewport\" content=\"width=device-width\"></head><body><h1>Your choice</h1>\
         <p>{state}</p>{signal}<form method=\"post\" action=\"/privacy/{action}\">\
         <button>{button}</button></form></body></html>\n"
    );
    let mut response = HttpResponse::new(status).set_body(html).map_into_boxed_body();
    let headers = response.headers_mut();
    let fixed = [
        (CONTENT_TYPE, "text/html; charset=utf-8"),
        (CACHE_CONTROL, "no-store, private"),
        (CONTENT_SECURITY_POLICY, "default-src 'none'; form-action 'self'; frame-ancestors 'none'"),
        (REFERRER_POLICY, "same-origin"),
    ];
    for (name, value) in fixed {
        headers.insert(name, HeaderValue::from_static(value));
    }
    response
}
