//! Sites: who may send events from where, and what silence about consent means.

use serde::{Deserialize, Serialize};

use super::partner::Partner;

/// A site that may send events.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Site {
    /// The key that its pages and servers send.
    pub key: String,
    /// The origins its pages have, such as `https://www.shop.example`; `*` stands for any port, or
    /// for one or more labels in front of a host (`https://*.shop.example`). Default none.
    #[serde(default)]
    pub origins: Vec<OriginPattern>,
    /// What silence about consent means. Default `opt_out`.
    #[serde(default)]
    pub consent: ConsentRegime,
    /// Refuses requests that have neither `Origin` nor `Referer`. Default `false`.
    #[serde(default)]
    pub require_origin: bool,
    /// Ignores `DNT: 1` under `opt_in` and `opt_out`. Default `false`.
    #[serde(default)]
    pub ignore_dnt: bool,
    /// Whose consent a TCF string has to have: the id in the Global Vendor List of who runs this. Without one every
    /// hit to which TCF applies is refused. Default none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tcf_vendor: Option<u16>,
    /// Country of phone numbers without `+`, as two letters. Default none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub country: Option<String>,
    /// Spans subdomains: the cookie is `__Secure-throng` with this domain. Default none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cookie_domain: Option<String>,
    /// Addresses that no rate limit applies to. Default none.
    #[serde(
        default,
        skip_serializing_if = "Vec::is_empty",
        deserialize_with = "super::address::list"
    )]
    pub trusted: Vec<std::net::IpAddr>,
    /// The partners that the tag of its pages syncs cookies with, by the names of `[[partner]]`. Default none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub partners: Vec<String>,
    /// So many of them at most on one page, 1 to 20. Default `5`.
    #[serde(default = "max_syncs_per_page", skip_serializing_if = "is_default_max_syncs")]
    pub max_syncs_per_page: usize,
}

fn max_syncs_per_page() -> usize {
    5
}

fn is_default_max_syncs(count: &usize) -> bool {
    *count == max_syncs_per_page()
}

/// What silence about consent means.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConsentRegime {
    /// Silence is a refusal.
    OptIn,
    /// Silence is consent; any refusal counts.
    #[default]
    OptOut,
    /// No consent is needed; GPC and our opt-out are recorded, and such profiles never activated.
    None,
}

impl Site {
    /// The built-in site, for pages on this machine.
    pub(super) fn demo() -> Self {
        Self {
            key: "demo".into(),
            origins: vec![
                OriginPattern("http://localhost:*".into()),
                OriginPattern("http://127.0.0.1:*".into()),
            ],
            consent: ConsentRegime::OptOut,
            require_origin: false,
            ignore_dnt: false,
            tcf_vendor: None,
            country: None,
            cookie_domain: None,
            trusted: Vec::new(),
            partners: Vec::new(),
            max_syncs_per_page: max_syncs_per_page(),
        }
    }

    /// Whether a page of this origin may send the site's events.
    pub fn allows(&self, origin: &str) -> bool {
        self.origins.iter().any(|pattern| pattern.matches(origin))
    }
}

/// An origin, or a pattern of origins.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct OriginPattern(pub String);

impl OriginPattern {
    /// Whether an origin (`scheme://host[:port]`) fits. Scheme and host compare without case.
    pub fn matches(&self, origin: &str) -> bool {
        let (Some(pattern), Some(origin)) = (split(&self.0), split(origin)) else { return false };
        let host = match pattern.host.strip_prefix("*.") {
            Some(suffix) => origin.host.len().checked_sub(suffix.len() + 1).is_some_and(|at| {
                at > 0
                    && origin.host.as_bytes()[at] == b'.'
                    && origin.host.is_char_boundary(at + 1)
                    && origin.host[at + 1..].eq_ignore_ascii_case(suffix)
            }),
            None => pattern.host.eq_ignore_ascii_case(origin.host),
        };
        host && pattern.scheme.eq_ignore_ascii_case(origin.scheme)
            && (pattern.port == Some("*") || pattern.port() == origin.port())
    }
}

struct Parts<'a> {
    scheme: &'a str,
    host: &'a str,
    port: Option<&'a str>,
}

impl<'a> Parts<'a> {
    fn port(&self) -> &'a str {
        self.port.unwrap_or(if self.scheme.eq_ignore_ascii_case("https") { "443" } else { "80" })
    }
}

fn split(origin: &str) -> Option<Parts<'_>> {
    let (scheme, rest) = origin.split_once("://")?;
    if rest.is_empty() || rest.contains(['/', '@', '?', '#']) {
        return None;
    }
    let bracket = rest.rfind(']').map_or(0, |at| at + 1);
    let (host, port) = match rest[bracket..].rfind(':') {
        Some(at) => (&rest[..bracket + at], Some(&rest[bracket + at + 1..])),
        None => (rest, None),
    };
    Some(Parts { scheme, host, port })
}

pub(super) fn problems(sites: &[Site], partners: &[Partner], problems: &mut Vec<String>) {
    for (at, site) in sites.iter().enumerate() {
        let fits = |b: u8| b.is_ascii_alphanumeric() || b"-_.".contains(&b);
        if site.key.is_empty() || site.key.len() > 64 || !site.key.bytes().all(fits) {
            problems
                .push(format!("site[{at}].key: expected 1 to 64 letters, digits, `-`, `_` or `.`"));
        }
        if sites[..at].iter().any(|other| other.key == site.key) {
            problems.push(format!("site[{at}].key: {:?} is used twice", site.key));
        }
        for pattern in &site.origins {
            let parts = split(&pattern.0);
            let port = |p: Option<&str>| p.is_none_or(|p| p == "*" || p.parse::<u16>().is_ok());
            if !parts.is_some_and(|p| {
                matches!(p.scheme, "http" | "https") && !p.host.is_empty() && port(p.port)
            }) {
                problems.push(format!(
                    "site[{at}].origins: {:?} is no origin; expected one such as \
                     https://www.shop.example or http://localhost:*",
                    pattern.0
                ));
            }
        }
        for name in &site.partners {
            if !partners.iter().any(|partner| partner.name == *name) {
                problems.push(format!(
                    "site[{at}].partners: no [[partner]] has the name {name:?}: add it, or leave it out"
                ));
            }
        }
        if !(1..=20).contains(&site.max_syncs_per_page) {
            problems.push(format!("site[{at}].max_syncs_per_page: expected 1 to 20"));
        }
        if site.tcf_vendor == Some(0) {
            problems.push(format!(
                "site[{at}].tcf_vendor: expected your id in the Global Vendor List, 1 to 65535"
            ));
        }
        if let Some(country) = &site.country
            && !(country.len() == 2 && country.bytes().all(|b| b.is_ascii_uppercase()))
        {
            problems.push(format!("site[{at}].country: expected two capital letters, such as FR"));
        }
    }
}
