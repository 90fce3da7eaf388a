//! Cookie-sync: `GET /sync/{partner}` sends a browser to a partner with our id of it, `GET /match/{partner}` takes the
//! partner's.
//!
//! Where a browser is sent follows from the settings alone; what a request says is encoded into places that these name. A
//! partner's id becomes an identifier of the browser's profile by an event `id_match`. Neither happens without consent,
//! without our cookie, or to tell anything: the answer is a redirection or the pixel's image.

use actix_web::HttpRequest;
use actix_web::HttpResponse;
use actix_web::http::StatusCode;
use actix_web::http::header::CACHE_CONTROL;
use actix_web::http::header::HeaderValue;
use actix_web::http::header::LOCATION;
use actix_web::http::header::SET_COOKIE;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use percent_encoding::AsciiSet;
use percent_encoding::NON_ALPHANUMERIC;
use percent_encoding::utf8_percent_encode;
use std::borrow::Cow;
use std::rc::Rc;
use std::time::Instant;

use super::consent::take_signal;
use super::cookie::syncs;
use super::partner_id::is_id;
use super::pixel;
use super::pixel::Admitted;
use super::pixel::Taken;
use super::query::decode;
use super::query::pairs;
use super::visitor::Visitor;
use super::worker::Worker;
use crate::config::Partner;
use crate::config::PartnerKind;
use crate::config::Site;
use crate::consent::Signals;
use crate::model::Identifier;
use crate::model::Outcome;
use crate::model::time::Day;
use crate::model::time::day_of;

/// So many partners are remembered of a browser.
const MOST_REMEMBERED: usize = 32;
/// The most bytes of an address that a browser is sent to.
const MAX_ADDRESS: usize = 16 << 10;
/// The most bytes of what Google wants to see again.
const MAX_PUSH: usize = 512;

/// What is encoded of a value in an address.
const VALUE: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// What became of a call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Synced {
    /// The browser was sent there.
    Sent,
    /// It was, not long ago.
    Fresh,
    /// The partner has no id of it, or says none.
    NoId,
    /// The partner says that it failed, with a number where that is one of a few.
    Failed(Option<u8>),
    /// It has no cookie of ours.
    NoCookie,
    /// Its visitor, the site or the limits do not allow it.
    Refused,
    /// The partner's id was taken.
    Matched,
}

impl Synced {
    fn label(self) -> Cow<'static, str> {
        Cow::Borrowed(match self {
            Self::Sent => "sent",
            Self::Fresh => "fresh",
            Self::NoId => "no_id",
            Self::Failed(None) => "error",
            Self::Failed(Some(code)) => return format!("error_{code}").into(),
            Self::NoCookie => "no_cookie",
            Self::Refused => "refused",
            Self::Matched => "matched",
        })
    }
}

/// What a call says beside a partner's id, decoded.
#[derive(Default)]
struct Said<'a> {
    site: Cow<'a, str>,
    gdpr: Cow<'a, str>,
    gdpr_consent: Cow<'a, str>,
    gpp: Cow<'a, str>,
    gpp_sid: Cow<'a, str>,
    us_privacy: Cow<'a, str>,
    signals: Signals<'a>,
}

impl<'a> Said<'a> {
    fn read(query: &'a str) -> Self {
        let mut said = Self::default();
        for (key, value) in pairs(query) {
            let place = match key {
                "s" => &mut said.site,
                "gdpr" => &mut said.gdpr,
                "gdpr_consent" => &mut said.gdpr_consent,
                "gpp" => &mut said.gpp,
                "gpp_sid" => &mut said.gpp_sid,
                "us_privacy" => &mut said.us_privacy,
                _ => continue,
            };
            *place = decode(value);
            take_signal(&mut said.signals, key, value);
        }
        said
    }
}

/// Sends the browser to a partner.
pub(super) async fn sync(request: HttpRequest) -> HttpResponse {
    let worker = Rc::clone(super::worker(&request));
    let Some(partner) = partner(&worker, &request) else { return unknown(&worker) };
    let (said, started) = (Said::read(request.query_string()), Instant::now());
    let visitor = Visitor::of(&request, &worker.shared);
    let day = day_of(worker.shared.clock.now());
    let (synced, answer) = match admit(&worker, &visitor, &said, request.query_string()) {
        Err(taken) => (Synced::Refused, pixel::finish(&worker, taken, started).await),
        Ok((_, None)) => (Synced::NoCookie, pixel::image(None)),
        Ok((Admitted { site, .. }, Some(id))) => {
            let known = syncs(visitor.headers, visitor.is_https);
            match address(partner, site, &id, &said) {
                _ if is_fresh(&known, partner, day) => (Synced::Fresh, pixel::image(None)),
                None => (Synced::NoId, pixel::image(None)),
                Some(address) => {
                    let memory = remember(&worker, known, partner, day, visitor.is_https);
                    (Synced::Sent, redirect(address, Some(memory)))
                }
            }
        }
    };
    count(&worker, partner, "out", synced);
    worker.answered(answer)
}

/// Takes a partner's id.
pub(super) async fn matched(request: HttpRequest) -> HttpResponse {
    let worker = Rc::clone(super::worker(&request));
    let Some(partner) = partner(&worker, &request) else { return unknown(&worker) };
    let (started, query) = (Instant::now(), request.query_string());
    let (mut id, mut push, mut failed) = ("", "", None);
    for (key, value) in pairs(query) {
        match key {
            _ if key == partner.parameter() => id = value,
            "google_error" => {
                failed = Some(decode(value).parse::<u8>().ok().filter(|code| *code < 32))
            }
            "google_push" if partner.kind == PartnerKind::Google => push = value,
            _ => {}
        }
    }
    let said = Said::read(query);
    let visitor = Visitor::of(&request, &worker.shared);
    let (synced, answer) = match failed {
        Some(code) => (Synced::Failed(code), pixel::image(None)),
        None if !is_id(&decode(id)) => (Synced::NoId, pixel::image(None)),
        None => match admit(&worker, &visitor, &said, query) {
            Err(taken) => (Synced::Refused, pixel::finish(&worker, taken, started).await),
            Ok((_, None)) => (Synced::NoCookie, pixel::image(None)),
            Ok((admitted, Some(ours))) => {
                let pushed = pushed(partner, admitted.site, &ours, &said, &decode(push));
                let id = (partner.namespace(), id);
                let taken = pixel::record_match(&worker, &visitor, admitted, id);
                let is_taken = taken.outcome() == Outcome::Accepted;
                let answer = pixel::finish(&worker, taken, started).await;
                match (is_taken, pushed) {
                    (false, _) => (Synced::Refused, answer),
                    (true, None) => (Synced::Matched, answer),
                    (true, Some(address)) => (Synced::Matched, redirect(address, None)),
                }
            }
        },
    };
    count(&worker, partner, "in", synced);
    worker.answered(answer)
}

/// The partners of a site that a browser is to be sent to by the page that it shows: those it was not sent to of late, as
/// many as a page may have. None of a browser that keeps no cookie.
pub(super) fn due<'w>(worker: &'w Worker, site: &Site, visitor: &Visitor<'_>) -> Vec<&'w str> {
    if site.partners.is_empty() {
        return Vec::new();
    }
    let known = syncs(visitor.headers, visitor.is_https);
    let day = day_of(worker.shared.clock.now());
    let partners = worker.shared.partners.iter();
    partners
        .filter(|partner| site.partners.contains(&partner.name))
        .filter(|partner| partner.template().is_some() && !is_fresh(&known, partner, day))
        .map(|partner| partner.name.as_str())
        .take(site.max_syncs_per_page)
        .collect()
}

fn partner<'w>(worker: &'w Worker, request: &HttpRequest) -> Option<&'w Partner> {
    let name = request.match_info().get("partner")?;
    worker.shared.partners.iter().find(|partner| partner.name == name)
}

fn unknown(worker: &Worker) -> HttpResponse {
    worker.answered(HttpResponse::NotFound().body("no such partner here\n"))
}

fn count(worker: &Worker, partner: &Partner, direction: &str, synced: Synced) {
    worker.count_sync(&partner.name, direction, &synced.label());
}

/// The key of the site that a call is of: the only one, where it names none.
fn site<'s>(worker: &'s Worker, said: &'s Said<'_>) -> &'s str {
    let sites = &worker.shared.sites;
    match &*said.site {
        "" if sites.len() == 1 => sites.keys().next().map_or("", String::as_str),
        key => key,
    }
}

/// A call of a browser that may be made known to others, and its identifier where it has one; what becomes of the call
/// otherwise.
fn admit<'w>(
    worker: &'w Worker,
    visitor: &Visitor<'_>,
    said: &Said<'_>,
    query: &str,
) -> Result<(Admitted<'w>, Option<Identifier>), Taken> {
    if query.len() > pixel::MAX_QUERY {
        return Err(Taken::nothing(Outcome::TooLarge));
    }
    let admitted = pixel::admit(worker, visitor, site(worker, said), &said.signals)?;
    // Who is recorded, but for no audience, is made known to nobody.
    if !admitted.allows_audiences() {
        return Err(Taken::nothing(Outcome::RefusedConsent));
    }
    let known = admitted.known.clone();
    Ok((admitted, known))
}

/// The cookie that says where a browser was sent, with one more partner; those that are configured no more are left out.
fn remember(
    worker: &Worker,
    mut known: Vec<(String, Day)>,
    partner: &Partner,
    day: Day,
    is_https: bool,
) -> HeaderValue {
    let configured = &worker.shared.partners;
    known.retain(|(name, _)| *name != partner.name && configured.iter().any(|p| p.name == *name));
    known.push((partner.name.clone(), day));
    let beyond = known.len().saturating_sub(MOST_REMEMBERED);
    known.drain(..beyond);
    worker.cookies.remember_syncs(&known, is_https)
}

/// Where a browser goes that Google sent of its own accord: back, with what it wants to see again.
fn pushed(
    partner: &Partner,
    site: &Site,
    id: &Identifier,
    said: &Said<'_>,
    push: &str,
) -> Option<String> {
    if !(1..=MAX_PUSH).contains(&push.len()) {
        return None;
    }
    // Its id has come already: `google_cm` would send it once more.
    let mut address = address(partner, site, id, said)?.replacen("&google_cm&", "&", 1);
    address.push_str("&google_push=");
    address.extend(utf8_percent_encode(push, VALUE));
    Some(address)
}

fn is_fresh(known: &[(String, Day)], partner: &Partner, today: Day) -> bool {
    let days = partner.every.0 / crate::model::time::DAY;
    known
        .iter()
        .any(|(name, day)| *name == partner.name && (0..days).contains(&today.saturating_sub(*day)))
}

/// The partner's address with everything in its place; `None` where it has none, or that would be too long.
fn address(partner: &Partner, site: &Site, id: &Identifier, said: &Said<'_>) -> Option<String> {
    let template = partner.template()?;
    let (mut address, mut rest) = (String::with_capacity(template.len() + 64), &*template);
    while let Some((before, after)) = rest.split_once('{') {
        let (name, after) = after.split_once('}')?;
        address.push_str(before);
        let value = match name {
            "id" => Cow::Borrowed(id.value()),
            "id_base64" => URL_SAFE_NO_PAD.encode(id.value()).into(),
            "site" => site.key.as_str().into(),
            "here" => partner.here.as_deref()?.into(),
            "gdpr" => said.gdpr.clone(),
            "gdpr_consent" => said.gdpr_consent.clone(),
            "gpp" => said.gpp.clone(),
            "gpp_sid" => said.gpp_sid.clone(),
            "us_privacy" => said.us_privacy.clone(),
            "cb" => getrandom::u32().unwrap_or_default().to_string().into(),
            _ => return None,
        };
        address.extend(utf8_percent_encode(&value, VALUE));
        rest = after;
    }
    address.push_str(rest);
    (address.len() <= MAX_ADDRESS).then_some(address)
}

fn redirect(address: String, memory: Option<HeaderValue>) -> HttpResponse {
    let Ok(location) = HeaderValue::try_from(address) else { return pixel::image(None) };
    let mut response = HttpResponse::new(StatusCode::FOUND);
    let headers = response.headers_mut();
    headers.insert(LOCATION, location);
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store, private"));
    if let Some(memory) = memory {
        headers.insert(SET_COOKIE, memory);
    }
    response
}
