//! `/v1/audiences`: which audiences somebody is in.
//!
//! A page is told those of its own visitor, whom it cannot name: the browser's cookie does. A server that has a token asks about
//! any identifier, or about many at once. Nobody is told of a profile that opted out, is a bot or
//! did not consent to audiences, nor by a browser that says no.

mod form;

use actix_web::HttpRequest;
use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use actix_web::http::header::AUTHORIZATION;
use actix_web::http::header::CACHE_CONTROL;
use actix_web::http::header::CONTENT_TYPE;
use actix_web::http::header::HOST;
use actix_web::http::header::HeaderName;
use actix_web::http::header::HeaderValue;
use actix_web::http::header::RETRY_AFTER;
use actix_web::http::header::X_CONTENT_TYPE_OPTIONS;
use actix_web::web;
use actix_web::web::Payload;
use serde::Deserialize;
use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;
use std::time::Instant;

use super::answer;
use super::body;
use super::consent::Judgement;
use super::consent::judge;
use super::consent::says_no;
use super::consent::take_signal;
use super::cookie::Scope;
use super::query::decode;
use super::query::pairs;
use super::visitor::Visitor;
use super::worker::Worker;
use crate::config::Site;
use crate::consent::Signals;
use crate::ingest::canonical::Ids;
use crate::ingest::canonical::MAX_IDS;
use crate::model::Identifier;
use crate::model::Millis;
use crate::model::time::format_rfc3339;
use crate::segment::AskError;
use crate::segment::InAudiences;
use crate::segment::Labels;
use crate::segment::Segments;
use form::Form;
use form::Terms;

/// The most bytes of a query.
const MAX_QUERY: usize = 8 << 10;
/// The most that one request asks about.
const MAX_ASKED: usize = 1_000;
/// Lists that are not in memory are waited for no longer: who asks has an auction to hold.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long the first lists are waited for, after a start, and how soon they are looked for again.
const FIRST: Duration = Duration::from_secs(5);
const NOT_YET: Duration = Duration::from_millis(20);
const GENERATION: HeaderName = HeaderName::from_static("throng-generation");
const TRUE_FOR: HeaderName = HeaderName::from_static("throng-true-for");

/// What lookups are answered from.
pub struct Lookup {
    /// Segments and their audiences.
    pub segments: Arc<Segments>,
    /// Whether the bearer of a token may ask about any identifier.
    pub may_ask: Box<dyn Fn(&str) -> bool + Send + Sync>,
}

/// Who asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Asker {
    Page,
    Server,
}

/// What came of a lookup.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Told {
    /// At least one audience.
    Some,
    /// That there is none, or that nobody is known.
    None,
    /// Nothing, since the browser or the profile says no.
    Withheld,
    /// Why the request was not answered.
    Refused,
    /// That the lists cannot be read now.
    Failed,
}

impl Asker {
    pub(super) const ALL: [Self; 2] = [Self::Page, Self::Server];

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Page => "page",
            Self::Server => "server",
        }
    }
}

impl Told {
    pub(super) const ALL: [Self; 5] =
        [Self::Some, Self::None, Self::Withheld, Self::Refused, Self::Failed];

    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Some => "some",
            Self::None => "none",
            Self::Withheld => "withheld",
            Self::Refused => "refused",
            Self::Failed => "failed",
        }
    }
}

/// Why a request is not answered: the status, a word, and what to do.
type NotAnswered = (StatusCode, &'static str, Cow<'static, str>);

/// An answer on its way.
struct Answer {
    body: Vec<u8>,
    /// Of which generation it is, where anything was looked up, and how true.
    of: Option<(u64, Millis)>,
    told: Vec<Told>,
}

/// `GET /v1/audiences`.
pub(super) async fn one(request: HttpRequest) -> HttpResponse {
    let started = Instant::now();
    let worker = super::worker(&request);
    let asked = Asked::read(request.query_string());
    let is_server =
        bearer(&request).is_some() || asked.as_ref().is_ok_and(|asked| !asked.ids.is_empty());
    let asker = if is_server { Asker::Server } else { Asker::Page };
    let answer = match asked {
        Ok(asked) if is_server => of_server(worker, &request, &asked).await,
        Ok(asked) => of_page(worker, &request, &asked).await,
        Err(why) => Err(why),
    };
    finish(worker, &request, asker, started, answer)
}

/// The ids of the audiences that a page of a site is told its own visitor is in, who says this of consent; none where it may not be told, or where it
/// cannot be said now.
pub(super) async fn told_to_page(
    request: &HttpRequest,
    site: &str,
    signals: Signals<'_>,
) -> Vec<String> {
    let started = Instant::now();
    let worker = super::worker(request);
    let site = Cow::Borrowed(site);
    let (form, ids) = (Form::Ids, Vec::new());
    let answer = of_page(worker, request, &Asked { form, site, ids, signals }).await;
    let told = match &answer {
        Ok(answer) => answer.told.first().copied().unwrap_or(Told::None),
        Err((status, ..)) if status.is_server_error() => Told::Failed,
        Err(_) => Told::Refused,
    };
    worker.looked_up(Asker::Page, told, 1);
    worker.lookup_took(Asker::Page, started.elapsed().as_secs_f64());
    answer.ok().and_then(|answer| serde_json::from_slice(&answer.body).ok()).unwrap_or_default()
}

/// `POST /v1/audiences`.
pub(super) async fn many(request: HttpRequest, payload: Payload) -> HttpResponse {
    let started = Instant::now();
    let worker = super::worker(&request);
    let answer = of_many(worker, &request, payload).await;
    finish(worker, &request, Asker::Server, started, answer)
}

fn finish(
    worker: &Worker,
    request: &HttpRequest,
    asker: Asker,
    started: Instant,
    answer: Result<Answer, NotAnswered>,
) -> HttpResponse {
    let took = |told, count| worker.looked_up(asker, told, count);
    let mut response = match answer {
        Ok(Answer { body, of, told }) => {
            for kind in Told::ALL {
                took(kind, told.iter().filter(|told| **told == kind).count());
            }
            let mut response =
                HttpResponse::new(StatusCode::OK).set_body(body).map_into_boxed_body();
            if let Some((generation, true_for)) = of {
                let headers = response.headers_mut();
                headers.insert(GENERATION, HeaderValue::from(generation));
                if let Ok(time) = HeaderValue::from_str(&format_rfc3339(true_for)) {
                    headers.insert(TRUE_FOR, time);
                }
            }
            response
        }
        Err((status, error, message)) => {
            took(if status.is_server_error() { Told::Failed } else { Told::Refused }, 1);
            let body = serde_json::json!({ "error": error, "message": message }).to_string();
            let mut response = HttpResponse::new(status).set_body(body).map_into_boxed_body();
            if matches!(status.as_u16(), 429 | 503) {
                response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
            }
            response
        }
    };
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store, private"));
    headers.insert(X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    answer::share(worker, request, &mut response);
    worker.lookup_took(asker, started.elapsed().as_secs_f64());
    worker.answered(response)
}

/// The parameters of one lookup.
struct Asked<'a> {
    form: Form,
    site: Cow<'a, str>,
    ids: Vec<(&'a str, &'a str)>,
    signals: Signals<'a>,
}

impl<'a> Asked<'a> {
    fn read(query: &'a str) -> Result<Self, NotAnswered> {
        if query.len() > MAX_QUERY {
            return Err(refused(414, "too_large", "a query is at most 8 KiB"));
        }
        let mut asked = Self {
            form: Form::default(),
            site: Cow::Borrowed(""),
            ids: Vec::new(),
            signals: Signals::default(),
        };
        for (key, value) in pairs(query) {
            match key {
                "format" => asked.form = form(&of_ours(value))?,
                "s" => asked.site = of_ours(value),
                _ => match key.strip_prefix("id.") {
                    Some(namespace) if !value.is_empty() => asked.ids.push((namespace, value)),
                    Some(_) => {}
                    None => take_signal(&mut asked.signals, key, value),
                },
            }
        }
        Ok(asked)
    }
}

/// A value of ours, without a query that a client has appended as if there were none yet, as Prebid's dgkeyword does.
fn of_ours(value: &str) -> Cow<'_, str> {
    decode(value.split('?').next().unwrap_or_default())
}

fn form(text: &str) -> Result<Form, NotAnswered> {
    let expected = "format: expected ids, ortb2 or keywords";
    Form::parse(text).ok_or_else(|| refused(400, "format", expected))
}

/// Answers a page, about its own visitor.
async fn of_page(
    worker: &Worker,
    request: &HttpRequest,
    asked: &Asked<'_>,
) -> Result<Answer, NotAnswered> {
    let shared = &*worker.shared;
    if !shared.telling.pages {
        return Err(refused(403, "pages", "pages are told nothing here: lookup.pages is false"));
    }
    let visitor = Visitor::of(request, shared);
    let mut sites: Vec<&Site> = match &*asked.site {
        "" => shared.sites.values().collect(),
        key => {
            vec![shared.sites.get(key).ok_or_else(|| refused(403, "site", "s: no such key here"))?]
        }
    };
    sites.retain(|site| visitor.may_send_for(site));
    if sites.is_empty() {
        return Err(refused(403, "origin", "the request's origin is none of the site's"));
    }
    if !sites.iter().any(|site| site.trusted.contains(&visitor.address)) {
        take_turn(worker, &visitor, 1)?;
    }
    let judged = |site: &&Site| match judge(site, visitor.browser, &asked.signals, &[]) {
        Judgement::Record(allowed) => allowed.is_none_or(|consent| consent.allows_audiences()),
        Judgement::RecordMarked | Judgement::Refuse(..) => false,
    };
    let before = sites.len();
    sites.retain(judged);
    let mut identifiers: Vec<Identifier> = Vec::new();
    for site in &sites {
        let scope = Scope::of(site, visitor.is_https);
        let known = worker.cookies.read(visitor.headers, scope);
        identifiers.extend(known.filter(|known| !identifiers.contains(known)));
    }
    let host = host(request);
    let terms = |labels| Terms {
        form: asked.form,
        telling: &shared.telling,
        labels,
        provider: shared.telling.provider.as_deref().unwrap_or(host),
    };
    if identifiers.is_empty() {
        let mut body = Vec::new();
        terms(&Labels::new()).write(&[], &mut body);
        let told = if sites.is_empty() && before > 0 { Told::Withheld } else { Told::None };
        return Ok(Answer { body, of: None, told: vec![told] });
    }
    let needs_labels = Terms::need_labels(asked.form, &shared.telling, true);
    let (found, labels) = look(worker, identifiers, needs_labels).await?;
    let terms = terms(&labels);
    let mut merged = Merged::of(&found);
    merged.audiences.retain(|id| terms.page_is_told(id));
    let mut body = Vec::new();
    terms.write(&merged.audiences, &mut body);
    Ok(Answer { body, of: age(&found), told: vec![merged.told()] })
}

/// Answers a server, about an identifier or several of one visitor.
async fn of_server(
    worker: &Worker,
    request: &HttpRequest,
    asked: &Asked<'_>,
) -> Result<Answer, NotAnswered> {
    may_ask(worker, request)?;
    let shared = &*worker.shared;
    let site = shared.sites.get(&*asked.site);
    if site.is_none() && !asked.site.is_empty() {
        return Err(refused(403, "site", "s: no such key here"));
    }
    let ids = asked.ids.iter().map(|(namespace, value)| (decode(namespace), decode(value)));
    let identifiers = identifiers(ids, site.and_then(|site| site.country.as_deref()))?;
    if identifiers.is_empty() {
        let message = "name whom you ask about, as id.NAMESPACE=VALUE; none of what was sent is an identifier";
        return Err(refused(400, "ids", message));
    }
    // What the visitor's own browser says now is with who holds the auction.
    let says_no = says_no(site, &asked.signals);
    let (found, labels) =
        look(worker, identifiers, Terms::need_labels(asked.form, &shared.telling, false)).await?;
    let mut merged = Merged::of(&found);
    if says_no {
        merged = Merged { audiences: Vec::new(), is_withheld: true };
    }
    let terms = Terms {
        form: asked.form,
        telling: &shared.telling,
        labels: &labels,
        provider: shared.telling.provider.as_deref().unwrap_or(host(request)),
    };
    let mut body = Vec::new();
    terms.write(&merged.audiences, &mut body);
    Ok(Answer { body, of: age(&found), told: vec![merged.told()] })
}

/// What many lookups say.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AskedMany<'a> {
    #[serde(borrow, default)]
    format: Cow<'a, str>,
    #[serde(borrow)]
    ids: Vec<BTreeMap<Cow<'a, str>, Cow<'a, str>>>,
}

/// Reads a query, and a body.
#[cfg(any(test, feature = "fuzzing"))]
pub(super) fn read_alone(bytes: &[u8]) {
    if let Ok(asked) = Asked::read(&String::from_utf8_lossy(bytes)) {
        let decoded = asked.ids.iter().map(|(namespace, value)| (decode(namespace), decode(value)));
        let _ = identifiers(decoded, Some("DE"));
    }
    if let Ok(AskedMany { format, ids }) = serde_json::from_slice(bytes) {
        let _ = form(&format);
        ids.into_iter().for_each(|of_one| drop(identifiers(of_one.into_iter(), None)));
    }
}

/// Answers a server, about many visitors.
async fn of_many(
    worker: &Worker,
    request: &HttpRequest,
    payload: Payload,
) -> Result<Answer, NotAnswered> {
    // Before anything is read of it.
    may_ask(worker, request)?;
    let shared = &*worker.shared;
    let (patience, room) = (shared.patience, &shared.arriving);
    let body = body::read(request.headers(), payload, patience, room).await;
    let body = body.inspect_err(|_| super::give_up(request)).map_err(|bad| match bad {
        body::BadBody::TooLarge => refused(413, "too_large", "a body is at most 512 KiB"),
        body::BadBody::TooSlow => refused(408, "too_slow", "a body has to arrive within 10 s"),
        body::BadBody::NoRoom => refused(503, "no_room", "too many bodies are on their way"),
        body::BadBody::Unreadable => refused(400, "unreadable", "the body cannot be read"),
        body::BadBody::Encoding => {
            refused(415, "encoding", "a body is plain JSON, or gzipped once")
        }
    })?;
    let AskedMany { format, ids } = serde_json::from_slice(&body).map_err(|error| {
        let expected = r#"expected {"ids":[{"user_id":"12680"}]}"#;
        refused(400, "not_json", format!("{expected}: {error}"))
    })?;
    let form = form(&format)?;
    if ids.len() > MAX_ASKED {
        return Err(refused(413, "too_many", "a request asks about at most 1,000"));
    }
    let mut all = Vec::with_capacity(ids.len());
    let mut ends = Vec::with_capacity(ids.len());
    for of_one in ids {
        all.append(&mut identifiers(of_one.into_iter(), None)?);
        ends.push(all.len());
    }
    let (found, labels) =
        look(worker, all, Terms::need_labels(form, &shared.telling, false)).await?;
    let terms = Terms {
        form,
        telling: &shared.telling,
        labels: &labels,
        provider: shared.telling.provider.as_deref().unwrap_or(host(request)),
    };
    let of = age(&found);
    let (mut body, mut told) = (b"{\"results\":[".to_vec(), Vec::with_capacity(ends.len()));
    let mut from = 0;
    for end in ends {
        if !told.is_empty() {
            body.push(b',');
        }
        let merged = Merged::of(&found[from..end]);
        terms.write(&merged.audiences, &mut body);
        told.push(merged.told());
        from = end;
    }
    body.extend_from_slice(b"]}");
    Ok(Answer { body, of, told })
}

/// The token that a request carries.
fn bearer(request: &HttpRequest) -> Option<&str> {
    let value = request.headers().get(AUTHORIZATION)?.to_str().ok()?;
    value.strip_prefix("Bearer ").map(str::trim)
}

/// Whether the request's token may ask about anybody. Wrong ones are taken as slowly as events are.
fn may_ask(worker: &Worker, request: &HttpRequest) -> Result<(), NotAnswered> {
    let lookup = worker.shared.lookup.as_ref();
    if bearer(request).is_some_and(|token| lookup.is_some_and(|lookup| (lookup.may_ask)(token))) {
        return Ok(());
    }
    take_turn(worker, &Visitor::of(request, &worker.shared), 1)?;
    let message = "ask about an identifier with Authorization: Bearer and a token of the scope lookup \
                   (throng token create NAME --scope lookup)";
    Err(refused(401, "token", message))
}

fn take_turn(worker: &Worker, visitor: &Visitor<'_>, count: u32) -> Result<(), NotAnswered> {
    let (limiter, now) = (&worker.shared.limiter, worker.shared.clock.now());
    let taken = limiter.take(visitor.address, count, now);
    taken.map_err(|_| refused(429, "rate_limited", "too many requests: ask again later"))
}

/// The identifiers of one visitor as they were sent; those that are none are left out.
fn identifiers<T: AsRef<str>>(
    sent: impl Iterator<Item = (T, T)>,
    phone_country: Option<&str>,
) -> Result<Vec<Identifier>, NotAnswered> {
    let mut ids = Ids::default();
    for (at, (namespace, value)) in sent.enumerate() {
        if at >= MAX_IDS {
            return Err(refused(400, "ids", "expected at most 64 identifiers of one visitor"));
        }
        ids.add(namespace.as_ref(), value.as_ref(), phone_country);
    }
    Ok(ids.taken())
}

/// Looks up what each identifier is in, and reads labels where they are needed.
async fn look(
    worker: &Worker,
    identifiers: Vec<Identifier>,
    needs_labels: bool,
) -> Result<(Vec<InAudiences>, Arc<Labels>), NotAnswered> {
    let unavailable =
        || refused(503, "unavailable", "audiences cannot be read now: ask again later");
    let lookup = worker.shared.lookup.clone().ok_or_else(unavailable)?;
    let at_once = lookup.segments.finds_at_once();
    let read = move |identifiers: &[Identifier]| {
        let found = match lookup.segments.audiences_of_all(identifiers) {
            Ok(found) => found,
            Err(AskError::Behind) => return Look::NotYet,
            Err(error) => {
                tracing::debug!(%error, "a lookup");
                return Look::Failed;
            }
        };
        let labels = needs_labels.then(|| lookup.segments.labels()).transpose();
        match labels.inspect_err(|error| tracing::debug!(%error, "labels")) {
            Ok(labels) => Look::Found(found, labels.unwrap_or_default()),
            Err(_) => Look::Failed,
        }
    };
    let (identifiers, read) = (Arc::new(identifiers), Arc::new(read));
    let look = async || {
        if at_once {
            return read(&identifiers);
        }
        let (identifiers, read) = (identifiers.clone(), read.clone());
        let read = web::block(move || read(&identifiers));
        let read = tokio::time::timeout(PATIENCE, read).await;
        read.ok().and_then(Result::ok).unwrap_or(Look::Failed)
    };
    until_there(look).await.ok_or_else(unavailable)
}

/// Looks until there is something to look into: a server that starts takes calls before its first evaluation ends.
async fn until_there(look: impl AsyncFn() -> Look) -> Option<(Vec<InAudiences>, Arc<Labels>)> {
    let begun = Instant::now();
    loop {
        match look().await {
            Look::Found(found, labels) => return Some((found, labels)),
            Look::NotYet if begun.elapsed() < FIRST => tokio::time::sleep(NOT_YET).await,
            Look::NotYet | Look::Failed => return None,
        }
    }
}

/// What became of a look.
enum Look {
    Found(Vec<InAudiences>, Arc<Labels>),
    /// The server has just started, and nothing has been evaluated.
    NotYet,
    Failed,
}

/// What all identifiers of one visitor say together.
struct Merged {
    audiences: Vec<Arc<str>>,
    is_withheld: bool,
}

impl Merged {
    fn of(found: &[InAudiences]) -> Self {
        if found.iter().any(|one| one.is_barred) {
            return Self { audiences: Vec::new(), is_withheld: true };
        }
        let audiences = match found {
            [one] => one.audiences.clone(),
            found => {
                let mut all: Vec<Arc<str>> =
                    found.iter().flat_map(|one| one.audiences.iter().cloned()).collect();
                all.sort_unstable();
                all.dedup();
                all
            }
        };
        Self { audiences, is_withheld: false }
    }

    fn told(&self) -> Told {
        match self.audiences.is_empty() {
            _ if self.is_withheld => Told::Withheld,
            true => Told::None,
            false => Told::Some,
        }
    }
}

/// The oldest generation of what was found, and the earliest time that it is true for.
fn age(found: &[InAudiences]) -> Option<(u64, Millis)> {
    let generation = found.iter().map(|one| one.generation).min()?;
    Some((generation, found.iter().map(|one| one.true_for).min()?))
}

/// The host that was asked, without its port.
fn host(request: &HttpRequest) -> &str {
    let host = request.headers().get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-.".contains(&byte);
    let is_name = (1..=253).contains(&name.len()) && name.bytes().all(fits);
    if is_name { name } else { "throng" }
}

fn refused(status: u16, error: &'static str, message: impl Into<Cow<'static, str>>) -> NotAnswered {
    (StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST), error, message.into())
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[actix_web::test]
    async fn what_is_not_there_yet_is_waited_for_and_what_failed_is_not() {
        let times = Cell::new(0);
        let found = until_there(async || {
            times.update(|times| times + 1);
            match times.get() {
                ..4 => Look::NotYet,
                _ => Look::Found(Vec::new(), Arc::default()),
            }
        });
        assert!(found.await.is_some());
        assert_eq!(times.get(), 4);

        times.set(0);
        let found = until_there(async || {
            times.update(|times| times + 1);
            Look::Failed
        });
        assert!(found.await.is_none());
        assert_eq!(times.get(), 1);
    }
}
