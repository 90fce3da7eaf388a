//! What one request brings, whatever protocol it speaks: each event judged, and all that are taken recorded.
//!
//! A bad event never fails its neighbours; a body that cannot be read fails as a whole, and so does one
//! that cannot be made durable, to be sent again.

use actix_web::HttpRequest;
use actix_web::http::Method;
use actix_web::http::header::HeaderValue;
use actix_web::web::Bytes;
use actix_web::web::Payload;
use std::rc::Rc;
use std::time::Duration;

use super::answer::Refused;
use super::body;
use super::body::BadBody;
use super::consent::Judgement;
use super::consent::Signal;
use super::consent::is_visitors;
use super::consent::judge;
use super::consent::take_signal;
use super::cookie::Scope;
use super::query::pairs;
use super::sync;
use super::visitor::Page;
use super::visitor::Visitor;
use super::worker::Endpoint;
use super::worker::Ration;
use super::worker::Shared;
use super::worker::Worker;
use crate::config::Site;
use crate::consent::Signals;
use crate::ingest::Quarantine;
use crate::ingest::canonical::Arrival;
use crate::ingest::canonical::Code;
use crate::ingest::canonical::Dropped;
use crate::ingest::canonical::Rejection;
use crate::ingest::canonical::Sent;
use crate::ingest::canonical::sent::Unreadable;
use crate::ingest::canonical::split::NoEvents;
use crate::model::Choice;
use crate::model::Consent;
use crate::model::Event;
use crate::model::Identifier;
use crate::model::Millis;
use crate::model::Outcome;
use crate::model::Record;
use crate::model::Source;

/// The most events of one request.
pub(super) const MAX_EVENTS: usize = 500;

/// What became of the events of one request.
pub(super) struct Taken {
    /// How many are on disk.
    pub(super) accepted: usize,
    /// The others, by their place in the request.
    pub(super) rejected: Vec<(usize, Rejection)>,
    /// Headers that set or take away cookies.
    pub(super) cookies: Vec<HeaderValue>,
    /// The browser's cookie, where an event that was taken carries one.
    pub(super) cookie: Option<Identifier>,
    /// The partners that the page is to sync the browser's cookie with.
    pub(super) due: Vec<String>,
}

/// Reads the body of a request; one that cannot be read counts as one event.
pub(super) async fn read(
    worker: &Worker,
    request: &HttpRequest,
    payload: Payload,
    endpoint: Endpoint,
) -> Result<Bytes, Refused> {
    let (patience, room) = (worker.shared.patience, &worker.shared.arriving);
    body::read(request.headers(), payload, patience, room).await.map_err(|bad| {
        let outcome = match bad {
            BadBody::TooLarge => Outcome::TooLarge,
            BadBody::NoRoom => Outcome::Dropped,
            BadBody::TooSlow | BadBody::Unreadable | BadBody::Encoding => Outcome::Invalid,
        };
        worker.count(endpoint, outcome, 1);
        super::give_up(request);
        Refused::Body(bad)
    })
}

/// The events of a body, each as it was read or with the rule that it broke.
pub(super) type Read = Vec<Result<Sent, Rejection>>;

/// A body that holds no events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unread {
    /// Why.
    pub(super) why: NoEvents,
    /// How many it counts as.
    pub(super) events: usize,
}

impl From<NoEvents> for Unread {
    fn from(why: NoEvents) -> Self {
        Self { why, events: 1 }
    }
}

/// What a query says of consent. A page of Matomo's writes `undefined` where it has nothing.
pub(super) fn signals(query: &str, endpoint: Endpoint) -> Signals<'_> {
    let is_said = |value: &str| !matches!(endpoint, Endpoint::Matomo) || value != "undefined";
    let mut said = Signals::default();
    let pairs = pairs(query).filter(|(_, value)| is_said(value));
    pairs.for_each(|(key, value)| take_signal(&mut said, key, value));
    said
}

/// Bytes that all events of a request may come to by what they share: it is as if each had it.
const MAX_SHARED: usize = 1 << 20;

/// Bounds what a request states once for all of its events.
pub(super) fn shared(bytes: usize, events: usize) -> Result<(), Unread> {
    match bytes.saturating_mul(events) {
        0..=MAX_SHARED => Ok(()),
        _ => Err(Unread { why: NoEvents::TooMany(events), events: 1 }),
    }
}

/// Reads events one by one.
pub(super) fn each(
    parts: &[&[u8]],
    read: impl Fn(&[u8]) -> Result<Sent, Unreadable>,
) -> Result<Read, Unread> {
    let read = |part: &&[u8]| match read(part) {
        Ok(event) => Ok(Ok(event)),
        Err(Unreadable::Rejected(rejection)) => Ok(Err(rejection)),
        Err(Unreadable::NotJson(_)) => Err(Unread { why: NoEvents::NotJson, events: parts.len() }),
    };
    parts.iter().map(read).collect()
}

/// Judges the events that were read of a request, and returns when those that are taken are durable.
pub(super) async fn take(
    worker: &Rc<Worker>,
    request: &HttpRequest,
    endpoint: Endpoint,
    read: Result<Read, Unread>,
) -> Result<Taken, Refused> {
    let count = |outcome, events| worker.count(endpoint, outcome, events);
    let sent = read.map_err(|unread| {
        let (outcome, refused) = match unread.why {
            NoEvents::NotJson => (Outcome::Invalid, Refused::NotJson),
            NoEvents::TooMany(_) => (Outcome::TooLarge, Refused::TooManyEvents),
        };
        count(outcome, unread.events);
        refused
    })?;
    let shared = &*worker.shared;
    let visitor = Visitor::of(request, shared);
    let received = shared.clock.now();
    // An image of a page names the page as its referrer, and has no origin.
    let is_script =
        visitor.has_origin() || (request.method() == Method::GET && visitor.page != Page::Unknown);
    let said = signals(request.query_string(), endpoint);
    let mut gathered = Gathered::new(worker, &visitor, received, (is_script, &said));
    let judged: Vec<_> = sent
        .into_iter()
        .map(|event| {
            let event = event.map_err(unreadable)?;
            let site = gathered.site(&event)?;
            Ok((event, site))
        })
        .collect();
    let all = judged.len();
    let limited = |wait| {
        count(Outcome::RateLimited, all);
        Err(Refused::RateLimited(wait))
    };
    if let Err(wait) = gathered.take_tokens(judged.iter().flatten().map(|(_, site)| *site)) {
        return limited(wait);
    }
    let judged: Vec<_> = judged
        .into_iter()
        .map(|event| {
            let (event, site) = event?;
            let judgement = gathered.judge(&event, site)?;
            Ok((event, site, judgement))
        })
        .collect();
    gathered.refusal = judged.iter().flatten().find_map(|(_, _, judgement)| refusal(judgement));
    let mut outcomes = Vec::new();
    for (index, event) in judged.into_iter().enumerate() {
        let taken = event.and_then(|(event, site, judgement): (Sent, &Site, Judgement)| {
            gathered.take(event, site, judgement)
        });
        if let Err((outcome, rejection)) = taken {
            outcomes.push(outcome);
            gathered.rejected.push((index, rejection));
        }
    }
    // Nothing was kept yet, so all of it can come again.
    if let Some(wait) = gathered.later {
        return limited(wait);
    }
    outcomes.into_iter().for_each(|outcome| count(outcome, 1));
    worker.count_dropped(&gathered.dropped);
    set_aside(worker, endpoint, &gathered).await?;

    let (events, choices) = (&gathered.events, &gathered.choices);
    let pending = if events.is_empty() && choices.is_empty() {
        None
    } else {
        let recorded = worker.recorder.record(|batch| {
            events.iter().try_for_each(|event| batch.push_event(event))?;
            choices.iter().try_for_each(|choice| batch.push(choice))
        });
        let Ok(pending) = recorded else {
            count(Outcome::Dropped, events.len());
            return Err(Refused::NotRecorded);
        };
        Some(pending)
    };
    let outcomes = [Outcome::Accepted, Outcome::Dropped];
    if !worker.settle(endpoint, pending, events.len(), outcomes).await {
        return Err(Refused::NotRecorded);
    }
    let (accepted, cookies) = (events.len() + gathered.aside.len(), gathered.cookies());
    let mut ids = gathered.events.iter().flat_map(|event| &event.ids);
    let cookie = ids.find(|id| id.namespace.as_str() == "cookie").cloned();
    let due = gathered.syncs.map(|site| sync::due(worker, site, &visitor)).unwrap_or_default();
    let due = due.into_iter().map(str::to_owned).collect();
    Ok(Taken { accepted, rejected: gathered.rejected, cookies, cookie, due })
}

/// Keeps the events of identifiers that are set aside, where there are any.
async fn set_aside(
    worker: &Rc<Worker>,
    endpoint: Endpoint,
    gathered: &Gathered<'_>,
) -> Result<(), Refused> {
    let aside = &gathered.aside;
    let Some(recorder) = worker.aside.as_ref().filter(|_| !aside.is_empty()) else { return Ok(()) };
    let recorded =
        recorder.record(|batch| aside.iter().try_for_each(|event| batch.push_event(event)));
    let is_kept = match recorded {
        Ok(pending) => {
            let outcomes = [Outcome::SetAside, Outcome::Dropped];
            worker.settle(endpoint, Some(pending), aside.len(), outcomes).await
        }
        Err(_) => {
            worker.count(endpoint, Outcome::Dropped, aside.len());
            false
        }
    };
    if is_kept {
        return Ok(());
    }
    worker.count(endpoint, Outcome::Dropped, gathered.events.len());
    Err(Refused::NotRecorded)
}

/// What one request brings: its events, its choices, and what was not taken.
struct Gathered<'a> {
    worker: &'a Worker,
    visitor: &'a Visitor<'a>,
    received: Millis,
    /// What the query says of consent: it is of all events that say nothing of it themselves.
    said: &'a Signals<'a>,
    /// Whether a page sent it: its user agent is the visitor's, and a cookie can be made.
    is_script: bool,
    /// What the visitor refuses by any event of the request: whose cookie is not known yet gets none.
    refusal: Option<Signal>,
    country: Option<String>,
    events: Vec<Event>,
    /// Events of identifiers that are set aside.
    aside: Vec<Event>,
    /// How long to wait, where an identifier has sent too much.
    later: Option<Duration>,
    choices: Vec<Record>,
    rejected: Vec<(usize, Rejection)>,
    dropped: Dropped,
    /// The new cookie of each scope that an accepted event carries.
    made: Vec<(Scope<'a>, Identifier)>,
    /// The scopes whose cookie a refusal takes away.
    expired: Vec<Scope<'a>>,
    /// The site of an event that was taken of a browser which is known and may be made known to partners.
    syncs: Option<&'a Site>,
}

type NotTaken = (Outcome, Rejection);

impl<'a> Gathered<'a> {
    fn new(
        worker: &'a Worker,
        visitor: &'a Visitor<'a>,
        received: Millis,
        (is_script, said): (bool, &'a Signals<'a>),
    ) -> Self {
        Self {
            worker,
            visitor,
            received,
            said,
            is_script,
            refusal: None,
            country: visitor.country(&worker.shared),
            events: Vec::new(),
            aside: Vec::new(),
            later: None,
            choices: Vec::new(),
            rejected: Vec::new(),
            dropped: Dropped::default(),
            made: Vec::new(),
            expired: Vec::new(),
            syncs: None,
        }
    }

    /// The site of an event, where it is known and the page is one of its own.
    fn site(&self, event: &Sent) -> Result<&'a Site, NotTaken> {
        let key = event.site().map_err(not_taken)?;
        let Some(site) = self.worker.shared.sites.get(key) else {
            return Err(not_taken(Rejection::new(Code::Site, "site: no such key here")));
        };
        if self.visitor.may_send_for(site) {
            Ok(site)
        } else {
            let message = "the request's origin is none of the site's";
            Err(not_taken(Rejection::new(Code::Origin, message)))
        }
    }

    /// Takes a token of the visitor's address for each event, and of its site, or tells how long to wait.
    fn take_tokens(&self, sites: impl Iterator<Item = &'a Site>) -> Result<(), Duration> {
        let limited = sites.filter(|site| !Shared::is_unlimited(site, self.visitor));
        let mut by_site: Vec<(&str, u32)> = Vec::new();
        for site in limited {
            match by_site.iter_mut().find(|(key, _)| *key == site.key) {
                Some((_, events)) => *events += 1,
                None => by_site.push((&site.key, 1)),
            }
        }
        let (shared, now) = (&self.worker.shared, self.received);
        let all = by_site.iter().map(|(_, events)| events).sum();
        if all > 0 {
            shared.limiter.take(self.visitor.address, all, now)?;
        }
        by_site.into_iter().try_for_each(|(site, events)| shared.take_site(site, events, now))
    }

    /// Judges whether an event may be recorded: by what it says of consent, and by what is said for it and its neighbours.
    fn judge(&self, event: &Sent, site: &Site) -> Result<Judgement, NotTaken> {
        let invalid = |rejection| (Outcome::Invalid, rejection);
        let own = event.consent().map_err(invalid)?;
        let shared = event.shared_consent().map_err(invalid)?;
        let judge = |said| judge(site, self.visitor.browser, said, &self.worker.shared.recipients);
        let silent = Signals::default();
        let said = std::iter::once(&own).chain(&shared).filter(|said| **said != silent);
        Ok(said.map(judge).reduce(Judgement::and).unwrap_or_else(|| judge(self.said)))
    }

    /// Takes what an event becomes that was judged.
    fn take(&mut self, event: Sent, site: &'a Site, judgement: Judgement) -> Result<(), NotTaken> {
        let (worker, visitor) = (self.worker, self.visitor);
        let scope = Scope::of(site, visitor.is_https);
        let known = worker.cookies.read(visitor.headers, scope);
        if let Judgement::Refuse(signal, why) = judgement {
            worker.count_refusal(signal);
            if let Some(identifier) = known
                && is_visitors(why)
                && !self.expired.contains(&scope)
            {
                self.choose(identifier);
                self.expired.push(scope);
            }
            let mut message = format!("consent: refused by {}", signal.as_str());
            if let Some(why) = why {
                message.push_str(&format!(": {why}"));
            }
            return Err((signal.outcome(), Rejection::new(Code::Consent, message)));
        }
        let is_marked = judgement == Judgement::RecordMarked;
        let consent = if let Judgement::Record(consent) = judgement { consent } else { None };
        let may_sync = !is_marked
            && known.is_some()
            && consent.as_deref().is_none_or(Consent::allows_audiences);
        let is_script = self.is_script;
        let made = self.made.iter().find(|(of, _)| *of == scope).map(|(_, id)| id.clone());
        let agent = visitor.user_agent().filter(|_| is_script);
        let arrival = Arrival {
            source: if is_script { Source::Js } else { Source::Api },
            received: self.received,
            window: worker.shared.window,
            order: &worker.shared.order,
            phone_country: site.country.as_deref(),
            cookie: known,
            user_agent: agent.as_deref(),
            country: self.country.as_deref(),
            locale: visitor.locale(),
            consent,
        };
        let mut new = None;
        let mut withheld = None;
        let refusal = self.refusal;
        let mut mint = || {
            if is_script && refusal.is_some() {
                withheld = refusal;
            } else if is_script {
                new = made.clone().or_else(|| worker.cookies.mint());
            }
            new.clone()
        };
        let mut agents = worker.agents.borrow_mut();
        let mut event = event
            .into_event(&arrival, &mut agents, &mut mint, &mut self.dropped)
            .map_err(|rejection| match withheld {
                Some(signal) => {
                    worker.count_refusal(signal);
                    let signal_of = signal.as_str();
                    let message = format!("consent: refused by {signal_of} of another event");
                    (signal.outcome(), Rejection::new(Code::Consent, message))
                }
                None => not_taken(rejection),
            })?;
        let is_unlimited = Shared::is_unlimited(site, visitor);
        match worker.shared.ration(event.owner(), is_unlimited, self.received) {
            Ration::Free => {}
            Ration::Aside => {
                if is_marked {
                    self.choose(event.owner().clone());
                }
                Quarantine::prepare(&mut event);
                self.aside.push(event);
                return Ok(());
            }
            Ration::Later(wait) => {
                self.later = self.later.max(Some(wait));
                return Ok(());
            }
        }
        if let Some(new) = new
            && made.is_none()
        {
            self.made.push((scope, new));
        }
        if is_marked {
            self.choose(event.owner().clone());
        }
        self.events.push(event);
        if may_sync && is_script {
            self.syncs = Some(site);
        }
        Ok(())
    }

    fn choose(&mut self, identifier: Identifier) {
        let choice = Choice { identifier, opted_out: true, received: self.received };
        let choice = Record::Choice(choice);
        if !self.choices.contains(&choice) {
            self.choices.push(choice);
        }
    }

    /// The cookies to set, once everything is durable.
    fn cookies(&self) -> Vec<HeaderValue> {
        let cookies = &self.worker.cookies;
        let made = self.made.iter().filter(|(scope, _)| !self.expired.contains(scope));
        let made = made.map(|(scope, identifier)| cookies.set(identifier, *scope));
        made.chain(self.expired.iter().map(|scope| cookies.expire(*scope))).collect()
    }
}

/// The signal by which a visitor refuses for more than one event. Silence does not: who is silent may be asked next.
fn refusal(judgement: &Judgement) -> Option<Signal> {
    match judgement {
        Judgement::Refuse(Signal::Silence, _) => None,
        Judgement::Refuse(signal, why) if is_visitors(*why) => Some(*signal),
        _ => None,
    }
}

/// The outcome of an event that could be told apart from its neighbours and no more.
fn unreadable(rejection: Rejection) -> NotTaken {
    let outcome = match rejection.code {
        Code::Size => Outcome::TooLarge,
        Code::Consent => Outcome::RefusedConsent,
        _ => Outcome::Invalid,
    };
    (outcome, rejection)
}

/// The outcome of an event that broke a rule.
fn not_taken(rejection: Rejection) -> NotTaken {
    let outcome = match rejection.code {
        Code::Site => Outcome::UnknownSite,
        Code::Origin => Outcome::ForeignOrigin,
        Code::Consent => Outcome::RefusedConsent,
        Code::Size => Outcome::TooLarge,
        Code::EventName | Code::Time | Code::Ids | Code::Props => Outcome::Invalid,
    };
    (outcome, rejection)
}
