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

use super::consent::Judgement;
use super::consent::judge;
use super::consent::take_signal;
use super::cookie::Scope;
use super::cookie::remember_syncs;
use super::cookie::syncs;
use super::pixel;
use super::pixel::Taken;
use super::query::decode;
use super::query::pairs;
use super::visitor::Visitor;
use super::worker::Worker;
use crate::config::Partner;
use crate::config::Site;
use crate::consent::Signals;
use crate::model::Identifier;
use crate::model::Outcome;
use crate::model::time::Day;
use crate::model::time::day_of;

/// The event that brings a partner's id.
const EVENT: &str = "id_match";
/// So many partners are remembered of a browser.
const MOST_REMEMBERED: usize = 32;
/// The most bytes of an address that a browser is sent to.
const MAX_ADDRESS: usize = 16 << 10;

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
    /// It has no cookie of ours.
    NoCookie,
    /// Its visitor, the site or the limits do not allow it.
    Refused,
    /// The partner's id was taken.
    Matched,
}

impl Synced {
    fn as_str(self) -> &'static str {
        match self {
            Self::Sent => "sent",
            Self::Fresh => "fresh",
            Self::NoId => "no_id",
            Self::NoCookie => "no_cookie",
            Self::Refused => "refused",
            Self::Matched => "matched",
        }
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
    let (synced, answer) = match consented(&worker, &visitor, &said, request.query_string()) {
        Err(taken) => (Synced::Refused, pixel::finish(&worker, taken, started).await),
        Ok((_, None)) => (Synced::NoCookie, pixel::image(None)),
        Ok((site, Some(id))) => {
            let mut known = syncs(visitor.headers, visitor.is_https);
            match address(partner, site, &id, &said) {
                _ if is_fresh(&known, partner, day) => (Synced::Fresh, pixel::image(None)),
                None => (Synced::NoId, pixel::image(None)),
                Some(address) => {
                    known.retain(|(name, _)| *name != partner.name);
                    known.push((partner.name.clone(), day));
                    let beyond = known.len().saturating_sub(MOST_REMEMBERED);
                    known.drain(..beyond);
                    let memory = remember_syncs(&known, visitor.is_https);
                    (Synced::Sent, redirect(address, memory))
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
    let (mut id, mut is_error) = ("", false);
    for (key, value) in pairs(query) {
        if key == partner.parameter() {
            id = value;
        }
        is_error |= key == "google_error";
    }
    let said = Said::read(query);
    let (synced, answer) = if is_error || !is_id(&decode(id)) {
        (Synced::NoId, pixel::image(None))
    } else {
        let visitor = Visitor::of(&request, &worker.shared);
        let taken = match consented(&worker, &visitor, &said, query) {
            Err(taken) => Some(taken),
            Ok((_, None)) => None,
            Ok((site, Some(_))) => {
                let id = (partner.namespace(), id);
                pixel::take_match(&worker, &request, &site.key, EVENT, id)
            }
        };
        let synced = match taken.as_ref().map(Taken::outcome) {
            Some(Outcome::Accepted) => Synced::Matched,
            Some(_) => Synced::Refused,
            None => Synced::NoCookie,
        };
        match taken {
            Some(taken) => (synced, pixel::finish(&worker, taken, started).await),
            None => (synced, pixel::image(None)),
        }
    };
    count(&worker, partner, "in", synced);
    worker.answered(answer)
}

fn partner<'w>(worker: &'w Worker, request: &HttpRequest) -> Option<&'w Partner> {
    let name = request.match_info().get("partner")?;
    worker.shared.partners.iter().find(|partner| partner.name == name)
}

fn unknown(worker: &Worker) -> HttpResponse {
    worker.answered(HttpResponse::NotFound().body("no such partner here\n"))
}

fn count(worker: &Worker, partner: &Partner, direction: &str, synced: Synced) {
    worker.count_sync(&partner.name, direction, synced.as_str());
}

/// The site that a call is of: the only one, where it names none.
fn site<'w>(worker: &'w Worker, said: &Said<'_>) -> Option<&'w Site> {
    let sites = &worker.shared.sites;
    match &*said.site {
        "" if sites.len() == 1 => sites.values().next(),
        key => sites.get(key),
    }
}

/// The site and the browser's identifier, where it may be made known to partners; what becomes of the call otherwise.
fn consented<'w>(
    worker: &'w Worker,
    visitor: &Visitor<'_>,
    said: &Said<'_>,
    query: &str,
) -> Result<(&'w Site, Option<Identifier>), Taken> {
    if query.len() > pixel::MAX_QUERY {
        return Err(Taken::nothing(Outcome::TooLarge));
    }
    let shared = &worker.shared;
    let site = site(worker, said).ok_or_else(|| Taken::nothing(Outcome::UnknownSite))?;
    if !visitor.may_send_for(site) {
        return Err(Taken::nothing(Outcome::ForeignOrigin));
    }
    let received = shared.clock.now();
    if shared.take(site, visitor, 1, received).is_err() {
        return Err(Taken::nothing(Outcome::RateLimited));
    }
    let scope = Scope::of(site, visitor.is_https);
    let known = worker.cookies.read(visitor.headers, scope);
    match judge(site, visitor.browser, &said.signals, &shared.recipients) {
        Judgement::Refuse(signal, why) => {
            Err(pixel::refuse(worker, (signal, why), known, scope, received))
        }
        // Who is recorded, but for no audience, is made known to nobody.
        Judgement::RecordMarked => Err(Taken::nothing(Outcome::OptedOut)),
        Judgement::Record(Some(consent)) if !consent.allows_audiences() => {
            Err(Taken::nothing(Outcome::RefusedConsent))
        }
        Judgement::Record(_) => Ok((site, known)),
    }
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

/// Whether a text is an id: partners send `0`, nothing, or the macro itself where they have none.
fn is_id(text: &str) -> bool {
    let text = text.trim();
    let is_word = ["0", "-1", "null", "undefined", "none", "optout", "opt-out"]
        .iter()
        .any(|word| text.eq_ignore_ascii_case(word));
    let is_macro = ['$', '{', '}', '[', ']', '#', '<'].iter().any(|mark| text.contains(*mark));
    !text.is_empty() && !is_word && !is_macro && !text.starts_with("%%")
}

fn redirect(address: String, memory: HeaderValue) -> HttpResponse {
    let Ok(location) = HeaderValue::try_from(address) else { return pixel::image(None) };
    let mut response = HttpResponse::new(StatusCode::FOUND);
    let headers = response.headers_mut();
    headers.insert(LOCATION, location);
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store, private"));
    headers.insert(SET_COOKIE, memory);
    response
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_stands_for_no_id_is_none() {
        for id in
            ["5727816213491965430", "AEBE52E7-03EE-455A-B3C4-E57283966239", "CAESEKx_y-z", "00"]
        {
            assert!(is_id(id), "{id}");
        }
        for none in [
            "",
            " ",
            "0",
            "-1",
            "$UID",
            "${UID}",
            "%%TDID%%",
            "{uid}",
            "[UID]",
            "#PMUID",
            "null",
            "Undefined",
        ] {
            assert!(!is_id(none), "{none}");
        }
    }
}
