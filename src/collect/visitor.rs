//! Who asks: what a request tells about the browser or server that sent it.

use actix_web::HttpRequest;
use actix_web::http::header::ACCEPT_LANGUAGE;
use actix_web::http::header::HeaderMap;
use actix_web::http::header::HeaderName;
use actix_web::http::header::ORIGIN;
use actix_web::http::header::REFERER;
use actix_web::http::header::USER_AGENT;
use std::borrow::Cow;
use std::net::IpAddr;
use std::net::Ipv4Addr;

use super::consent::Browser;
use super::cookie;
use super::forwarded;
use super::forwarded::Forwarded;
use super::worker::Shared;
use crate::config::Site;
use crate::net::listener::Connection;

const DNT: HeaderName = HeaderName::from_static("dnt");
const SEC_GPC: HeaderName = HeaderName::from_static("sec-gpc");

/// What a request tells, read once.
pub(super) struct Visitor<'a> {
    pub(super) headers: &'a HeaderMap,
    /// The address, for limits only; it is written nowhere.
    pub(super) address: IpAddr,
    pub(super) is_https: bool,
    pub(super) page: Page<'a>,
    pub(super) browser: Browser,
}

/// The origin of the page that a request came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Page<'a> {
    /// The `Origin` header.
    Origin(&'a str),
    /// The origin of the `Referer` header.
    Referrer(&'a str),
    /// Neither was sent.
    Unknown,
}

impl<'a> Visitor<'a> {
    pub(super) fn of(request: &'a HttpRequest, shared: &Shared) -> Self {
        let headers = request.headers();
        let peer = request.peer_addr().map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |peer| peer.ip());
        let peer = peer.to_canonical();
        let is_tls = request.conn_data::<Connection>().is_some_and(Connection::is_tls);
        let forwarded = if shared.proxies.contains(&peer) {
            forwarded::read(headers, &shared.proxies, peer)
        } else {
            Forwarded { address: peer, is_https: false }
        };
        let is_https = is_tls || forwarded.is_https;
        Self {
            headers,
            address: forwarded.address,
            is_https,
            page: page(headers),
            browser: Browser {
                gpc: says_one(headers, &SEC_GPC),
                dnt: says_one(headers, &DNT),
                opted_out: cookie::is_opted_out(headers, is_https),
            },
        }
    }

    /// Whether the page may send events of the site.
    pub(super) fn may_send_for(&self, site: &Site) -> bool {
        match self.page {
            Page::Origin(origin) | Page::Referrer(origin) => site.allows(origin),
            Page::Unknown => !site.require_origin,
        }
    }

    /// Whether the request came by a browser's script: with an `Origin`.
    pub(super) fn has_origin(&self) -> bool {
        matches!(self.page, Page::Origin(_))
    }

    /// As it can be read: any byte may be in it.
    pub(super) fn user_agent(&self) -> Option<Cow<'a, str>> {
        Some(String::from_utf8_lossy(self.headers.get(USER_AGENT)?.as_bytes()))
    }

    /// The country that the configured header tells, as two capital letters. It is read from any
    /// peer, trusted proxy or not: who may send events may state `geo.country` in them anyway.
    pub(super) fn country(&self, shared: &Shared) -> Option<String> {
        let header = self.headers.get(shared.country_header.as_ref()?)?.to_str().ok()?.trim();
        let is_country = header.len() == 2 && header.bytes().all(|b| b.is_ascii_alphabetic());
        // XX is what proxies send for "unknown".
        (is_country && !header.eq_ignore_ascii_case("xx")).then(|| header.to_ascii_uppercase())
    }

    /// The first tag of `Accept-Language`.
    pub(super) fn locale(&self) -> Option<&'a str> {
        let header = self.headers.get(ACCEPT_LANGUAGE)?.to_str().ok()?;
        let tag = header.split([',', ';']).next()?.trim();
        let fits = |b: u8| b.is_ascii_alphanumeric() || b == b'-';
        ((1..=35).contains(&tag.len()) && tag.bytes().all(fits)).then_some(tag)
    }
}

fn says_one(headers: &HeaderMap, name: &HeaderName) -> bool {
    headers.get(name).is_some_and(|value| value.as_bytes().trim_ascii() == b"1")
}

fn page(headers: &HeaderMap) -> Page<'_> {
    // A header that is no text is of no site, and `null` (a sandboxed page) is none either.
    if let Some(origin) = headers.get(ORIGIN) {
        return Page::Origin(origin.to_str().unwrap_or("null").trim());
    }
    match headers.get(REFERER) {
        Some(referrer) if !referrer.is_empty() => {
            Page::Referrer(referrer.to_str().map_or("null", origin_of))
        }
        _ => Page::Unknown,
    }
}

/// `scheme://host[:port]` of an absolute URL, or the text itself.
fn origin_of(url: &str) -> &str {
    let Some(at) = url.find(':').filter(|at| url[at + 1..].starts_with("//")) else { return url };
    let end = url[at + 3..].find(['/', '?', '#', '\\']).map_or(url.len(), |end| at + 3 + end);
    &url[..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_origin_of_a_referrer_ends_at_its_path() {
        for (url, origin) in [
            ("https://shop.example/a?b#c", "https://shop.example"),
            ("http://localhost:8000", "http://localhost:8000"),
            ("https://shop.example?x", "https://shop.example"),
            ("https://shop.example\\@evil.example/", "https://shop.example"),
            ("about:client", "about:client"),
        ] {
            assert_eq!(origin_of(url), origin);
        }
    }
}
