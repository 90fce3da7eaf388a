//! What a trusted proxy says of a request: who sent it, and whether by https.
//!
//! `X-Forwarded-For` and `X-Forwarded-Proto`, or where neither is there `Forwarded` (RFC 7239). A proxy has to take away, or
//! write itself, all three: what it passes on as a client sent it would be believed.

use actix_web::http::header::FORWARDED;
use actix_web::http::header::HeaderMap;
use actix_web::http::header::HeaderName;
use std::net::IpAddr;
use std::net::SocketAddr;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");

/// What proxies say.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Forwarded {
    /// The nearest address that is no trusted proxy: what lies beyond is hearsay.
    pub(super) address: IpAddr,
    /// Whether the nearest proxy took off TLS.
    pub(super) is_https: bool,
}

/// Reads the headers of a request that came from a trusted proxy.
pub(super) fn read(headers: &HeaderMap, proxies: &[IpAddr], peer: IpAddr) -> Forwarded {
    let mut nearest = Nearest { proxies, address: peer };
    if headers.contains_key(X_FORWARDED_FOR) || headers.contains_key(X_FORWARDED_PROTO) {
        let is_https = entries(headers, &X_FORWARDED_PROTO)
            .next()
            .is_some_and(|scheme| scheme.eq_ignore_ascii_case("https"));
        nearest.follow(entries(headers, &X_FORWARDED_FOR).map(address));
        return Forwarded { address: nearest.address, is_https };
    }
    let mut elements = entries(headers, &FORWARDED).peekable();
    let is_https = elements
        .peek()
        .and_then(|element| parameter(element, "proto"))
        .is_some_and(|scheme| scheme.eq_ignore_ascii_case("https"));
    nearest.follow(elements.map(|element| address(parameter(element, "for")?)));
    Forwarded { address: nearest.address, is_https }
}

struct Nearest<'a> {
    proxies: &'a [IpAddr],
    address: IpAddr,
}

impl Nearest<'_> {
    /// Goes from proxy to proxy, the nearest first, up to what is none, or cannot be read.
    fn follow(&mut self, addresses: impl Iterator<Item = Option<IpAddr>>) {
        for address in addresses {
            let Some(address) = address else { return };
            self.address = address;
            if !self.proxies.contains(&address) {
                return;
            }
        }
    }
}

/// The entries of a header's list, the last first: that is the one which the nearest proxy wrote. A comma in a quoted text
/// divides, too: there is none in what a proxy writes, and what is cut in two cannot be read. What is no text cannot
/// either, and hides nothing of what a proxy wrote after it.
fn entries<'a>(headers: &'a HeaderMap, name: &HeaderName) -> impl Iterator<Item = &'a str> {
    let lines: Vec<_> = headers.get_all(name).collect();
    let lines = lines.into_iter().rev();
    lines.flat_map(|line| {
        let entries = line.as_bytes().rsplit(|byte| *byte == b',');
        entries.map(|entry| std::str::from_utf8(entry).unwrap_or_default().trim())
    })
}

/// A parameter of an element of `Forwarded`.
fn parameter<'a>(element: &'a str, name: &str) -> Option<&'a str> {
    element.split(';').find_map(|pair| {
        let (key, value) = pair.split_once('=')?;
        let value = value.trim();
        let value =
            value.strip_prefix('"').and_then(|value| value.strip_suffix('"')).unwrap_or(value);
        key.trim().eq_ignore_ascii_case(name).then_some(value)
    })
}

/// An address, with a port or without; in brackets where it is of IPv6 and has one.
fn address(text: &str) -> Option<IpAddr> {
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let address = bare.parse().ok().or_else(|| Some(text.parse::<SocketAddr>().ok()?.ip()))?;
    Some(IpAddr::to_canonical(&address))
}

#[cfg(test)]
mod tests {
    use super::*;
    use actix_web::http::header::HeaderValue;

    fn said(lines: &[(&str, &str)]) -> (String, bool) {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(name.parse().unwrap(), HeaderValue::from_str(value).unwrap());
        }
        let proxies: Vec<IpAddr> = ["10.0.0.1", "10.0.0.2"].map(|it| it.parse().unwrap()).into();
        let said = read(&headers, &proxies, proxies[0]);
        (said.address.to_string(), said.is_https)
    }

    #[test]
    fn the_nearest_address_that_is_no_proxy_is_who_sent_it() {
        for (lines, address, is_https) in [
            (&[][..], "10.0.0.1", false),
            (&[("x-forwarded-for", "1.2.3.4, 192.0.2.1, 10.0.0.2")], "192.0.2.1", false),
            (
                &[("x-forwarded-for", "1.2.3.4"), ("x-forwarded-for", "192.0.2.1:4711")],
                "192.0.2.1",
                false,
            ),
            (&[("x-forwarded-for", "192.0.2.1, unknown, 10.0.0.2")], "10.0.0.2", false),
            (
                &[("x-forwarded-for", "::ffff:192.0.2.1"), ("x-forwarded-proto", "HTTPS")],
                "192.0.2.1",
                true,
            ),
            (&[("x-forwarded-proto", "https, http")], "10.0.0.1", false),
            (
                &[("x-forwarded-for", "é, 192.0.2.1"), ("x-forwarded-proto", "é, https")],
                "192.0.2.1",
                true,
            ),
            (
                &[("forwarded", "for=1.2.3.4, for=\"[2001:db8::1]:4711\";Proto=https")],
                "2001:db8::1",
                true,
            ),
            (
                &[("forwarded", "for=192.0.2.1;proto=https, for=10.0.0.2;proto=http")],
                "192.0.2.1",
                false,
            ),
            (&[("forwarded", "proto=https;for=_hidden")], "10.0.0.1", true),
            (&[("forwarded", "for=\"1.2.3.4, 5.6.7.8")], "10.0.0.1", false),
            (
                &[("forwarded", "for=1.2.3.4;proto=https"), ("x-forwarded-for", "192.0.2.1")],
                "192.0.2.1",
                false,
            ),
        ] {
            assert_eq!(said(lines), (address.to_owned(), is_https), "{lines:?}");
        }
    }
}
