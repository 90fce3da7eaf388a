//! `GET /pixel.gif`: one event from a page that can load an image but not run a script.
//!
//! Always 200 and the GIF, whatever became of the event: an `<img>` cannot act on an error. What became of
//! it is counted. An address that is none in HTTP is refused before it comes here.

use actix_web::HttpRequest;
use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use actix_web::http::header::CACHE_CONTROL;
use actix_web::http::header::CONTENT_TYPE;
use actix_web::http::header::HeaderValue;
use actix_web::http::header::SET_COOKIE;
use actix_web::web::Bytes;
use std::borrow::Cow;
use std::rc::Rc;
use std::time::Instant;

use super::consent::Judgement;
use super::consent::Signal;
use super::consent::is_visitors;
use super::consent::judge;
use super::consent::take_signal;
use super::cookie::Scope;
use super::query::decode;
use super::query::pairs;
use super::visitor::Visitor;
use super::worker::Endpoint;
use super::worker::Ration;
use super::worker::Shared;
use super::worker::Worker;
use crate::config::Site;
use crate::consent::Refusal;
use crate::consent::Signals;
use crate::ingest::Quarantine;
use crate::ingest::canonical::Arrival;
use crate::ingest::canonical::Code;
use crate::ingest::canonical::DropReason;
use crate::ingest::canonical::Dropped;
use crate::ingest::canonical::Ids;
use crate::ingest::canonical::MAX_FIELDS;
use crate::ingest::canonical::Rejection;
use crate::ingest::canonical::event_name;
use crate::ingest::canonical::is_whole;
use crate::ingest::canonical::message_id;
use crate::ingest::canonical::time;
use crate::ingest::record::Pending;
use crate::model::Choice;
use crate::model::Consent;
use crate::model::Device;
use crate::model::Event;
use crate::model::ID_MATCH;
use crate::model::Identifier;
use crate::model::Millis;
use crate::model::Outcome;
use crate::model::Page;
use crate::model::Record;
use crate::model::Source;
use crate::model::Value;

/// A transparent image of 1×1 pixel.
const GIF: &[u8; 43] =
    b"GIF89a\x01\0\x01\0\x80\0\0\0\0\0\0\0\0!\xf9\x04\x01\0\0\0\0,\0\0\0\0\x01\0\x01\0\
    \0\x02\x02D\x01\0;";
/// The most bytes of a query.
pub(super) const MAX_QUERY: usize = 8 << 10;

/// Collects the event of the query and answers with the image.
pub(super) async fn pixel(request: HttpRequest) -> HttpResponse {
    let started = Instant::now();
    let worker = Rc::clone(super::worker(&request));
    // What is held while the journal writes is held for every waiting hit: no event, no request.
    let taken = take(&worker, &request);
    drop(request);
    let response = finish(&worker, taken, started).await;
    worker.answered(response)
}

/// Waits until what was taken is kept, and answers with the image.
pub(super) async fn finish(worker: &Rc<Worker>, taken: Taken, started: Instant) -> HttpResponse {
    let Taken { pending, outcome, otherwise, mut cookie } = taken;
    if !worker.settle(Endpoint::Pixel, pending, 1, [outcome, otherwise]).await {
        cookie = None;
    }
    worker.took(Endpoint::Pixel, started.elapsed().as_secs_f64());
    image(cookie)
}

/// The image, and a cookie.
pub(super) fn image(cookie: Option<HeaderValue>) -> HttpResponse {
    let mut response = HttpResponse::new(StatusCode::OK).set_body(Bytes::from_static(GIF));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("image/gif"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store, private"));
    if let Some(cookie) = cookie {
        headers.insert(SET_COOKIE, cookie);
    }
    response.map_into_boxed_body()
}

/// A hit on its way: what becomes of it when its records are durable, where it has any.
pub(super) struct Taken {
    pending: Option<Pending>,
    outcome: Outcome,
    /// The outcome where the records were not kept; then no cookie is set either.
    otherwise: Outcome,
    cookie: Option<HeaderValue>,
}

impl Taken {
    /// A hit of which nothing is kept.
    pub(super) fn nothing(outcome: Outcome) -> Self {
        Self { pending: None, outcome, otherwise: outcome, cookie: None }
    }

    /// What becomes of it where its records are kept.
    pub(super) fn outcome(&self) -> Outcome {
        self.outcome
    }
}

/// Judges the hit and hands its records over.
fn take(worker: &Worker, request: &HttpRequest) -> Taken {
    let query = request.query_string();
    if query.len() > MAX_QUERY {
        return Taken::nothing(Outcome::TooLarge);
    }
    let hit = Hit::read(query);
    let visitor = Visitor::of(request, &worker.shared);
    match admit(worker, &visitor, &hit.site, &hit.signals) {
        Ok(admitted) => record(worker, &visitor, admitted, hit),
        Err(taken) => taken,
    }
}

/// A hit that may be recorded.
pub(super) struct Admitted<'w> {
    pub(super) site: &'w Site,
    /// The browser's identifier, where it has one.
    pub(super) known: Option<Identifier>,
    scope: Scope<'w>,
    received: Millis,
    consent: Option<Box<Consent>>,
    /// Whether its profile is to be marked as opted out.
    is_marked: bool,
}

impl Admitted<'_> {
    /// Whether its visitor may be in audiences, and so be made known to others.
    pub(super) fn allows_audiences(&self) -> bool {
        !self.is_marked && self.consent.as_deref().is_none_or(Consent::allows_audiences)
    }
}

/// Judges whether a hit may be recorded: site, origin, rate, consent. What becomes of it where it may not.
pub(super) fn admit<'w>(
    worker: &'w Worker,
    visitor: &Visitor<'_>,
    site: &str,
    signals: &Signals<'_>,
) -> Result<Admitted<'w>, Taken> {
    let shared = &*worker.shared;
    let site = shared.sites.get(site).ok_or_else(|| Taken::nothing(Outcome::UnknownSite))?;
    if !visitor.may_send_for(site) {
        return Err(Taken::nothing(Outcome::ForeignOrigin));
    }
    let received = shared.clock.now();
    if shared.take(site, visitor, 1, received).is_err() {
        return Err(Taken::nothing(Outcome::RateLimited));
    }
    let scope = Scope::of(site, visitor.is_https);
    let known = worker.cookies.read(visitor.headers, scope);
    let (consent, is_marked) = match judge(site, visitor.browser, signals, &shared.recipients) {
        Judgement::Refuse(signal, why) => {
            return Err(refuse(worker, (signal, why), known, scope, received));
        }
        Judgement::Record(consent) => (consent, false),
        Judgement::RecordMarked => (None, true),
    };
    Ok(Admitted { site, known, scope, received, consent, is_marked })
}

/// Hands over the records of a partner's id of a browser that is known.
pub(super) fn record_match(
    worker: &Worker,
    visitor: &Visitor<'_>,
    admitted: Admitted<'_>,
    id: (&str, &str),
) -> Taken {
    // The event would be kept under the cookie alone, and say nothing.
    if !is_whole(&decode(id.1)) {
        let mut dropped = Dropped::default();
        dropped.count(DropReason::Value);
        worker.count_dropped(&dropped);
        return Taken::nothing(Outcome::Invalid);
    }
    record(worker, visitor, admitted, Hit { event: ID_MATCH, ids: vec![id], ..Hit::default() })
}

/// Hands over the records of a hit.
fn record(worker: &Worker, visitor: &Visitor<'_>, admitted: Admitted<'_>, hit: Hit<'_>) -> Taken {
    let shared = &*worker.shared;
    let Admitted { site, known, scope, received, consent, is_marked } = admitted;
    let (country, agent) = (visitor.country(shared), visitor.user_agent());
    let arrival = Arrival {
        source: Source::Pixel,
        received,
        window: shared.window,
        order: &shared.order,
        phone_country: site.country.as_deref(),
        cookie: known,
        user_agent: agent.as_deref(),
        country: country.as_deref(),
        locale: visitor.locale(),
        consent,
    };
    let mut dropped = Dropped::default();
    let mut made = None;
    let event = hit.into_event(worker, site, &arrival, &mut made, &mut dropped);
    worker.count_dropped(&dropped);
    let mut event = match event {
        Ok(event) => event,
        Err(rejection) if rejection.code == Code::Size => {
            return Taken::nothing(Outcome::TooLarge);
        }
        Err(_) => return Taken::nothing(Outcome::Invalid),
    };
    let choice = is_marked.then(|| {
        Record::Choice(Choice { identifier: event.owner().clone(), opted_out: true, received })
    });
    let (mut recorder, mut outcome) = (&worker.recorder, Outcome::Accepted);
    let is_unlimited = Shared::is_unlimited(site, visitor);
    // Who has just been made has sent nothing.
    if made.is_none() {
        match (shared.ration(event.owner(), is_unlimited, received), &worker.aside) {
            (Ration::Free, _) => {}
            (Ration::Aside, Some(aside)) => {
                Quarantine::prepare(&mut event);
                (recorder, outcome) = (aside, Outcome::SetAside);
            }
            (Ration::Aside | Ration::Later(_), _) => return Taken::nothing(Outcome::RateLimited),
        }
    }
    let recorded = recorder.record(|batch| {
        batch.push_event(&event)?;
        if outcome == Outcome::SetAside {
            return Ok(());
        }
        choice.iter().try_for_each(|choice| batch.push(choice))
    });
    match recorded {
        Ok(pending) => Taken {
            pending: Some(pending),
            outcome,
            otherwise: Outcome::Dropped,
            cookie: made.map(|made| worker.cookies.set(&made, scope)),
        },
        Err(_) => Taken::nothing(Outcome::Dropped),
    }
}

/// Counts a refusal, and makes it the choice of the browser that is known.
fn refuse(
    worker: &Worker,
    (signal, why): (Signal, Option<Refusal>),
    known: Option<Identifier>,
    scope: Scope<'_>,
    received: Millis,
) -> Taken {
    worker.count_refusal(signal);
    let refused = Taken::nothing(signal.outcome());
    let Some(identifier) = known.filter(|_| is_visitors(why)) else { return refused };
    // The choice is kept before the cookie goes: else the next hit could not make it any more.
    let choice = Record::Choice(Choice { identifier, opted_out: true, received });
    match worker.recorder.record(|batch| batch.push(&choice)) {
        Ok(pending) => {
            let cookie = Some(worker.cookies.expire(scope));
            Taken { pending: Some(pending), cookie, ..refused }
        }
        Err(_) => refused,
    }
}

/// The parameters of one hit, still encoded where they are not needed yet. An empty one is as if it were
/// not there, but for properties and attributes; of a doubled one the last stands.
#[derive(Default)]
struct Hit<'a> {
    site: Cow<'a, str>,
    event: &'a str,
    url: &'a str,
    referrer: &'a str,
    title: &'a str,
    time: &'a str,
    message_id: &'a str,
    signals: Signals<'a>,
    ids: Vec<(&'a str, &'a str)>,
    props: Vec<(&'a str, &'a str)>,
    attrs: Vec<(&'a str, &'a str)>,
}

impl<'a> Hit<'a> {
    fn read(query: &'a str) -> Self {
        let mut hit = Self::default();
        for (key, value) in pairs(query) {
            match key {
                "s" => hit.site = decode(value),
                "e" => hit.event = value,
                "u" => hit.url = value,
                "r" => hit.referrer = value,
                "t" => hit.title = value,
                "ts" => hit.time = value,
                "m" => hit.message_id = value,
                _ => {
                    if let Some(namespace) = key.strip_prefix("id.") {
                        hit.ids.push((namespace, value));
                    } else if let Some(name) = key.strip_prefix("p.") {
                        hit.props.push((name, value));
                    } else if let Some(name) = key.strip_prefix("a.") {
                        hit.attrs.push((name, value));
                    } else {
                        take_signal(&mut hit.signals, key, value);
                    }
                }
            }
        }
        hit
    }

    fn into_event(
        self,
        worker: &Worker,
        site: &Site,
        arrival: &Arrival<'_>,
        made: &mut Option<Identifier>,
        dropped: &mut Dropped,
    ) -> Result<Event, Rejection> {
        let name = decode(self.event);
        let name = if name.is_empty() { "page_view" } else { event_name(&name)? };
        let time =
            match self.time {
                "" => None,
                text => Some(time::millis(text).ok_or_else(|| {
                    Rejection::new(Code::Time, "ts: expected integer milliseconds")
                })?),
            };
        let (time, time_replaced) = arrival.window.place(time, None, arrival.received);
        let message_id = match &*decode(self.message_id) {
            "" => None,
            id => Some(message_id(id)?.into()),
        };
        let mut ids = Ids::default();
        for (at, (namespace, value)) in self.ids.iter().enumerate() {
            let is_last = !self.ids[at + 1..].iter().any(|(later, _)| later == namespace);
            if is_last && !value.is_empty() {
                ids.add(&decode(namespace), &decode(value), arrival.phone_country);
            }
        }
        let mut mint = || {
            *made = worker.cookies.mint();
            made.clone()
        };
        let ids = ids.finish(arrival, &mut mint, dropped)?;
        let props = named(&self.props)?;
        let attrs = named(&self.attrs)?;
        let text = |encoded: &str| (!encoded.is_empty()).then(|| decode(encoded).into());
        let agent = match arrival.user_agent {
            Some(text) => worker.agents.borrow_mut().judge(text),
            None => Default::default(),
        };
        Ok(Event {
            site: site.key.as_str().into(),
            name: name.into(),
            time,
            received: arrival.received,
            time_replaced,
            source: arrival.source,
            message_id,
            ids,
            props,
            attrs,
            page: Page {
                url: text(self.url),
                referrer: text(self.referrer),
                title: text(self.title),
            },
            device: Device {
                kind: agent.kind.map(Into::into),
                os: agent.os.map(Into::into),
                browser: agent.browser.map(Into::into),
            },
            bot: agent.bot,
            country: arrival.country.map(Into::into),
            locale: arrival.locale.map(Into::into),
            consent: arrival.consent.clone(),
        })
    }
}

/// Reads a query, and makes of it what would be journaled.
#[cfg(any(test, feature = "fuzzing"))]
pub(super) fn read_alone(worker: &Worker, query: &str, arrival: &Arrival<'_>) -> Option<Event> {
    let hit = Hit::read(query);
    let _ = judge(&worker.shared.sites["demo"], Default::default(), &hit.signals, &[21, 755]);
    let (mut made, mut dropped) = (None, Dropped::default());
    hit.into_event(worker, &worker.shared.sites["demo"], arrival, &mut made, &mut dropped).ok()
}

/// Named values, each name once with its last value, at the place of its first.
fn named(sent: &[(&str, &str)]) -> Result<Vec<(Box<str>, Value)>, Rejection> {
    let mut named: Vec<(Box<str>, Value)> = Vec::with_capacity(sent.len().min(MAX_FIELDS));
    for (name, value) in sent {
        let name = decode(name);
        if name.is_empty() {
            continue;
        }
        let value = Value::string(decode(value));
        if let Some(known) = named.iter_mut().find(|(known, _)| **known == *name) {
            known.1 = value;
        } else if named.len() < MAX_FIELDS {
            named.push((name.into(), value));
        } else {
            let message = format!("expected at most {MAX_FIELDS} properties");
            return Err(Rejection::new(Code::Size, message));
        }
    }
    Ok(named)
}
