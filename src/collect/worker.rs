//! What the handlers share: across all workers, and within one worker thread.

use actix_web::HttpRequest;
use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use actix_web::http::header::HeaderName;
use std::cell::RefCell;
use std::collections::HashMap;
use std::future::Future;
use std::net::IpAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Context;
use std::task::Poll;
use std::task::ready;
use std::time::Duration;

use super::body::MAX_ARRIVING;
use super::body::Room;
use super::consent::Signal;
use super::cookie::Cookies;
use super::cookie::Scope;
use super::deletion::Deletion;
use super::limit::Limiter;
use super::lookup::Asker;
use super::lookup::Lookup;
use super::lookup::Told;
use super::secret::Secret;
use super::visitor::Visitor;
use crate::config::Config;
use crate::config::Durability;
use crate::config::Lookup as Telling;
use crate::config::Partner;
use crate::config::Site;
use crate::ingest::Quarantine;
use crate::ingest::canonical::Agents;
use crate::ingest::canonical::Dropped;
use crate::ingest::canonical::Window;
use crate::ingest::record::Pending;
use crate::ingest::record::Recorder;
use crate::metrics::Histogram;
use crate::metrics::IntCounter;
use crate::metrics::Metrics;
use crate::model::Identifier;
use crate::model::Millis;
use crate::model::NamespaceOrder;
use crate::model::Outcome;
use crate::net::Clock;
use crate::net::listener::Gate;
use crate::store::journal::Sink;

/// What all workers of one listener share.
pub(super) struct Shared {
    pub(super) sites: HashMap<String, Site>,
    pub(super) partners: Vec<Partner>,
    pub(super) order: NamespaceOrder,
    pub(super) window: Window,
    pub(super) proxies: Vec<IpAddr>,
    pub(super) country_header: Option<HeaderName>,
    /// The vendor ids of destinations, ascending.
    pub(super) recipients: Vec<u16>,
    pub(super) limiter: Limiter,
    /// The same for sites, and for identifiers.
    site_limiter: Limiter,
    id_limiter: Limiter,
    /// An identifier is set aside when so many of its events were refused.
    keeps_sending: u32,
    /// Who is set aside; nobody ever in some tests.
    pub(super) quarantine: Option<Arc<Quarantine>>,
    pub(super) clock: Arc<dyn Clock>,
    /// How long a client may take for its request's head, and then for its body.
    pub(super) patience: Duration,
    /// What is told of audiences, and to whom.
    pub(super) telling: Telling,
    /// Who is asked; nobody in some tests.
    pub(super) lookup: Option<Arc<Lookup>>,
    /// Room for bodies on their way.
    pub(super) arriving: Room,
    /// Who may connect, where a test says so.
    pub(super) gate: Option<Gate>,
    /// Who takes deletion requests of others; nobody where the settings name no domain.
    pub(super) deletion: Option<Arc<Deletion>>,
    secret: Secret,
    partitioned: bool,
    pub(super) metrics: Metrics,
}

impl Shared {
    pub(super) fn new(
        config: &Config,
        clock: Arc<dyn Clock>,
        metrics: Metrics,
        secret: Secret,
        patience: Duration,
    ) -> Self {
        let country_header = config.collect.country_header.as_deref();
        Self {
            sites: config.sites.iter().map(|site| (site.key.clone(), site.clone())).collect(),
            partners: config.partners.clone(),
            order: config.namespace_order(),
            window: Window::Within(config.events.retention.0),
            proxies: config.collect.trusted_proxies.iter().map(IpAddr::to_canonical).collect(),
            country_header: country_header.and_then(|name| name.parse().ok()),
            recipients: Vec::new(),
            limiter: Limiter::new(
                config.collect.rate_per_address,
                config.collect.burst_per_address,
            ),
            site_limiter: Limiter::new(config.collect.rate_per_site, config.collect.burst_per_site),
            id_limiter: Limiter::new(config.collect.rate_per_id, config.collect.burst_per_id),
            keeps_sending: config.collect.burst_per_id,
            quarantine: None,
            clock,
            patience,
            telling: config.lookup.clone(),
            lookup: None,
            arriving: Room::new(MAX_ARRIVING),
            gate: None,
            deletion: None,
            secret,
            partitioned: config.collect.cookie_partitioned,
            metrics,
        }
    }
}

/// Where an event came in.
#[derive(Debug, Clone, Copy)]
pub(super) enum Endpoint {
    Pixel,
    Events,
    /// Segment, RudderStack and Jitsu: one and the same message.
    Segment,
    Snowplow,
    Matomo,
    Unomi,
}

impl Endpoint {
    const ALL: [Self; 6] =
        [Self::Pixel, Self::Events, Self::Segment, Self::Snowplow, Self::Matomo, Self::Unomi];

    fn as_str(self) -> &'static str {
        match self {
            Self::Pixel => "pixel",
            Self::Events => "events",
            Self::Segment => "segment",
            Self::Snowplow => "snowplow",
            Self::Matomo => "matomo",
            Self::Unomi => "unomi",
        }
    }
}

/// Events on their way to the journal: waits for them, and counts what became of them, also where the
/// request is dropped meanwhile. Tells whether they are kept.
pub(super) struct Awaited {
    worker: Rc<Worker>,
    endpoint: Endpoint,
    events: usize,
    /// What they are where they are kept, and where they are not.
    outcomes: [Outcome; 2],
    pending: Option<Pending>,
}

impl Future for Awaited {
    type Output = bool;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<bool> {
        let kept = match &mut self.pending {
            None => true,
            Some(pending) => ready!(Pin::new(pending).poll(context)).is_ok(),
        };
        self.pending = None;
        self.worker.count(self.endpoint, self.outcomes[usize::from(!kept)], self.events);
        Poll::Ready(kept)
    }
}

impl Drop for Awaited {
    fn drop(&mut self) {
        let Some(pending) = self.pending.take() else { return };
        let (worker, endpoint) = (Rc::clone(&self.worker), self.endpoint);
        let (outcomes, events) = (self.outcomes, self.events);
        pending.leave(move |result| {
            worker.count(endpoint, outcomes[usize::from(result.is_err())], events);
        });
    }
}

/// Whether an event may be sent, by what its identifier has sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ration {
    /// It may.
    Free,
    /// It is kept from being folded.
    Aside,
    /// Not now, but in so long.
    Later(Duration),
}

impl Shared {
    /// Whether a visitor sends without a limit for a site: from this machine, or from an address that the site trusts.
    pub(super) fn is_unlimited(site: &Site, visitor: &Visitor<'_>) -> bool {
        visitor.address.is_loopback() || site.trusted.contains(&visitor.address)
    }

    /// Takes a token for each event of a visitor, of its address and of the site, or tells how long to wait.
    pub(super) fn take(
        &self,
        site: &Site,
        visitor: &Visitor<'_>,
        events: u32,
        now: Millis,
    ) -> Result<(), Duration> {
        if Self::is_unlimited(site, visitor) {
            return Ok(());
        }
        self.limiter.take(visitor.address, events, now)?;
        self.site_limiter.take_site(&site.key, events, now)
    }

    /// The same of a site alone.
    pub(super) fn take_site(&self, site: &str, events: u32, now: Millis) -> Result<(), Duration> {
        self.site_limiter.take_site(site, events, now)
    }

    /// Whether an event of an identifier may be sent.
    pub(super) fn ration(&self, of: &Identifier, is_unlimited: bool, now: Millis) -> Ration {
        let quarantine = self.quarantine.as_ref();
        if quarantine.is_some_and(|quarantine| quarantine.holds(of)) {
            return Ration::Aside;
        }
        if is_unlimited {
            return Ration::Free;
        }
        match self.id_limiter.take_identifier(of, now) {
            Ok(()) => Ration::Free,
            Err(empty) if empty.refused < self.keeps_sending => Ration::Later(empty.wait),
            Err(empty) => match quarantine {
                Some(quarantine) if quarantine.set_aside(of, now) => Ration::Aside,
                _ => Ration::Later(empty.wait),
            },
        }
    }
}

/// The state of one worker thread.
pub(super) struct Worker {
    pub(super) shared: Arc<Shared>,
    pub(super) recorder: Recorder,
    /// Where events go of identifiers that are set aside.
    pub(super) aside: Option<Recorder>,
    pub(super) agents: RefCell<Agents>,
    pub(super) cookies: Cookies,
    outcomes: [[IntCounter; Outcome::ALL.len()]; Endpoint::ALL.len()],
    durations: [Histogram; Endpoint::ALL.len()],
    refusals: [IntCounter; Signal::ALL.len()],
    classes: [IntCounter; 4],
    lookups: Lookups,
}

/// Counters of lookups, by who asked and what came of it.
struct Lookups {
    results: [[IntCounter; Told::ALL.len()]; 2],
    durations: [Histogram; 2],
}

impl Worker {
    pub(super) fn new(shared: Arc<Shared>, sink: Arc<dyn Sink>, durability: Durability) -> Self {
        // Looked up once: a label's lookup costs as much as the rest of the count.
        let metrics = &shared.metrics;
        let outcomes = Endpoint::ALL.map(|endpoint| {
            Outcome::ALL.map(|outcome| {
                let labels = [endpoint.as_str(), outcome.as_str()];
                metrics.collect_events.with_label_values(&labels)
            })
        });
        let durations = Endpoint::ALL.map(|endpoint| {
            metrics.collect_request_duration.with_label_values(&[endpoint.as_str()])
        });
        let refusals = Signal::ALL
            .map(|signal| metrics.collect_refusals.with_label_values(&[signal.as_str()]));
        let classes = ["2xx", "3xx", "4xx", "5xx"]
            .map(|class| metrics.http_responses.with_label_values(&["public", class]));
        Self {
            recorder: Recorder::new(sink, durability, metrics.clone()),
            aside: shared
                .quarantine
                .clone()
                .map(|quarantine| Recorder::new(quarantine, Durability::Disk, metrics.clone())),
            agents: RefCell::default(),
            cookies: Cookies::new(&shared.secret, shared.partitioned),
            outcomes,
            durations,
            refusals,
            classes,
            lookups: Lookups {
                results: Asker::ALL.map(|asker| {
                    Told::ALL.map(|told| {
                        let labels = [asker.as_str(), told.as_str()];
                        metrics.lookups.with_label_values(&labels)
                    })
                }),
                durations: Asker::ALL
                    .map(|asker| metrics.lookup_duration.with_label_values(&[asker.as_str()])),
            },
            shared,
        }
    }

    /// The identifier of the cookie that a browser sends for a site, where there is such a site.
    pub(super) fn known(&self, request: &HttpRequest, site: &str) -> Option<Identifier> {
        let site = self.shared.sites.get(site)?;
        let visitor = Visitor::of(request, &self.shared);
        self.cookies.read(visitor.headers, Scope::of(site, visitor.is_https))
    }

    /// Counts what became of events.
    pub(super) fn count(&self, endpoint: Endpoint, outcome: Outcome, events: usize) {
        self.outcomes[endpoint as usize][outcome as usize].inc_by(events as u64);
    }

    /// Waits for records, where there are any, and counts the events they are of: as the first outcome
    /// where they are kept, as the second where they are not.
    pub(super) fn settle(
        self: &Rc<Self>,
        endpoint: Endpoint,
        pending: Option<Pending>,
        events: usize,
        outcomes: [Outcome; 2],
    ) -> Awaited {
        Awaited { worker: Rc::clone(self), endpoint, events, outcomes, pending }
    }

    /// Counts a refusal for consent.
    pub(super) fn count_refusal(&self, signal: Signal) {
        self.refusals[signal as usize].inc();
    }

    /// Counts what became of a call of cookie-sync.
    pub(super) fn count_sync(&self, partner: &str, direction: &str, result: &str) {
        let labels = [partner, direction, result];
        self.shared.metrics.collect_syncs.with_label_values(&labels).inc();
    }

    /// Counts identifiers that were dropped.
    pub(super) fn count_dropped(&self, dropped: &Dropped) {
        for (reason, count) in dropped.iter() {
            let counter = &self.shared.metrics.collect_identifiers_dropped;
            counter.with_label_values(&[reason.as_str()]).inc_by(u64::from(count));
        }
    }

    /// Counts how long a request took.
    pub(super) fn took(&self, endpoint: Endpoint, seconds: f64) {
        self.durations[endpoint as usize].observe(seconds);
    }

    /// Counts what came of some lookups.
    pub(super) fn looked_up(&self, asker: Asker, told: Told, count: usize) {
        self.lookups.results[asker as usize][told as usize].inc_by(count as u64);
    }

    /// Counts how long a lookup took.
    pub(super) fn lookup_took(&self, asker: Asker, seconds: f64) {
        self.lookups.durations[asker as usize].observe(seconds);
    }

    /// Counts an answer on its way out.
    pub(super) fn answered(&self, response: HttpResponse) -> HttpResponse {
        self.count_answer(response.status());
        response
    }

    fn count_answer(&self, status: StatusCode) {
        let class = usize::from(status.as_u16() / 100).saturating_sub(2);
        if let Some(counter) = self.classes.get(class) {
            counter.inc();
        }
    }
}
