//! The cookie that names a browser, and the one that remembers its refusal.
//!
//! The value is 32 hexadecimal digits of 128 random bits, a dot, and the first 64 bits of their
//! HMAC-SHA256: a value that was not made here counts as absent, and so does a doubled one, since a
//! neighbouring subdomain can toss a second cookie of the name.

use actix_web::http::header::COOKIE;
use actix_web::http::header::HeaderMap;
use actix_web::http::header::HeaderValue;
use hmac::Hmac;
use hmac::KeyInit;
use hmac::Mac;
use sha2::Sha256;
use std::cell::RefCell;
use subtle::ConstantTimeEq;

use super::secret::Secret;
use crate::config::Site;
use crate::model::Identifier;
use crate::model::Namespace;
use crate::model::hex;
use crate::model::time::Day;

/// 395 days in seconds: browsers cut cookies at 400.
const MAX_AGE: u32 = 395 * 86_400;
const ID_LENGTH: usize = 32;
const CHECK_LENGTH: usize = 16;
/// How many random bytes are fetched at once: a system call for each cookie would show.
const POOL: usize = 1_024;

/// Where a cookie lives, which its name says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scope<'a> {
    /// Plain http, for development.
    Plain,
    /// One host, over https.
    Host,
    /// A domain and its subdomains, over https.
    Domain(&'a str),
}

impl<'a> Scope<'a> {
    /// The scope of a site's cookie.
    pub(super) fn of(site: &'a Site, is_https: bool) -> Self {
        match &site.cookie_domain {
            _ if !is_https => Self::Plain,
            Some(domain) => Self::Domain(domain),
            None => Self::Host,
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Plain => "throng",
            Self::Host => "__Host-throng",
            Self::Domain(_) => "__Secure-throng",
        }
    }
}

fn opt_out_name(is_https: bool) -> &'static str {
    if is_https { "__Host-throng-optout" } else { "throng-optout" }
}

/// Reads, checks and makes cookies; one a worker.
pub(super) struct Cookies {
    keyed: Hmac<Sha256>,
    partitioned: bool,
    pool: RefCell<(usize, [u8; POOL])>,
    namespace: Namespace,
}

impl Cookies {
    pub(super) fn new(secret: &Secret, partitioned: bool) -> Self {
        Self {
            keyed: Hmac::new_from_slice(secret.as_bytes()).expect("HMAC takes a key of any length"),
            partitioned,
            pool: RefCell::new((POOL, [0; POOL])),
            namespace: Namespace::new("cookie").expect("a namespace of the form"),
        }
    }

    fn check(&self, id: &str) -> String {
        let mut mac = self.keyed.clone();
        mac.update(id.as_bytes());
        hex(&mac.finalize().into_bytes()[..CHECK_LENGTH / 2])
    }

    fn identifier(&self, id: &str) -> Option<Identifier> {
        Identifier::new(self.namespace.clone(), id).ok()
    }

    /// The browser's identifier, where it sent exactly one cookie of the scope and it was made here.
    pub(super) fn read(&self, headers: &HeaderMap, scope: Scope<'_>) -> Option<Identifier> {
        let mut values = all(headers, scope.name());
        let value = values.next().filter(|_| values.next().is_none())?;
        let (id, check) = value.split_once('.')?;
        let is_hex = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
        if id.len() != ID_LENGTH || check.len() != CHECK_LENGTH || !id.bytes().all(is_hex) {
            return None;
        }
        let is_ours = bool::from(self.check(id).as_bytes().ct_eq(check.as_bytes()));
        is_ours.then(|| self.identifier(id)).flatten()
    }

    /// A new identifier of 128 random bits; none where the system gives no random bytes.
    pub(super) fn mint(&self) -> Option<Identifier> {
        let mut pool = self.pool.borrow_mut();
        let (at, bytes) = &mut *pool;
        if *at + ID_LENGTH / 2 > POOL {
            if let Err(error) = getrandom::fill(bytes) {
                tracing::error!(%error, "the system gives no random bytes: no cookie was made");
                return None;
            }
            *at = 0;
        }
        let id = hex(&bytes[*at..*at + ID_LENGTH / 2]);
        *at += ID_LENGTH / 2;
        self.identifier(&id)
    }

    /// What a page may know a browser by: as lasting as its identifier, and nobody else can tell one from the other.
    pub(super) fn alias(&self, identifier: &Identifier) -> String {
        let mut mac = self.keyed.clone();
        mac.update(b"alias:");
        mac.update(identifier.value().as_bytes());
        hex(&mac.finalize().into_bytes()[..ID_LENGTH / 2])
    }

    /// The header that gives a browser its identifier.
    pub(super) fn set(&self, identifier: &Identifier, scope: Scope<'_>) -> HeaderValue {
        let id = identifier.value();
        let check = self.check(id);
        header(&format!(
            "{}={id}.{check}; Path=/; Max-Age={MAX_AGE}; HttpOnly{}",
            scope.name(),
            self.attributes(scope)
        ))
    }

    /// The header that takes it away.
    pub(super) fn expire(&self, scope: Scope<'_>) -> HeaderValue {
        let (name, attributes) = (scope.name(), self.attributes(scope));
        header(&format!("{name}=; Path=/; Max-Age=0; HttpOnly{attributes}"))
    }

    /// The header that remembers where a browser was sent. It is no identifier, and kept where the browser keeps that.
    pub(super) fn remember_syncs(&self, syncs: &[(String, Day)], is_https: bool) -> HeaderValue {
        let value: Vec<String> = syncs.iter().map(|(name, day)| format!("{name}.{day}")).collect();
        let (name, value) = (syncs_name(is_https), value.join("/"));
        let attributes = self.attributes(if is_https { Scope::Host } else { Scope::Plain });
        header(&format!("{name}={value}; Path=/; Max-Age={MAX_AGE}; HttpOnly{attributes}"))
    }

    fn attributes(&self, scope: Scope<'_>) -> String {
        let partitioned = if self.partitioned { "; Partitioned" } else { "" };
        match scope {
            Scope::Plain => "; SameSite=Lax".to_owned(),
            Scope::Host => format!("; Secure; SameSite=None{partitioned}"),
            Scope::Domain(domain) => {
                format!("; Domain={domain}; Secure; SameSite=None{partitioned}")
            }
        }
    }
}

/// Whether the browser opted out with us.
pub(super) fn is_opted_out(headers: &HeaderMap, is_https: bool) -> bool {
    all(headers, opt_out_name(is_https)).any(|value| value == "1")
}

/// The header that remembers an opt-out, or forgets it. It is no identifier.
pub(super) fn remember_opt_out(opted_out: bool, is_https: bool) -> HeaderValue {
    let name = opt_out_name(is_https);
    let (value, age) = if opted_out { ("1", MAX_AGE) } else { ("", 0) };
    let attributes = if is_https { "; Secure; SameSite=None" } else { "; SameSite=Lax" };
    header(&format!("{name}={value}; Path=/; Max-Age={age}; HttpOnly{attributes}"))
}

fn syncs_name(is_https: bool) -> &'static str {
    if is_https { "__Host-throng-sync" } else { "throng-sync" }
}

/// The partners that a browser was sent to, each with the day; as the browser says, which may say anything.
pub(super) fn syncs(headers: &HeaderMap, is_https: bool) -> Vec<(String, Day)> {
    let one = |text: &str| {
        let (name, day) = text.split_once('.')?;
        // Whatever is no partner's name is not sent back.
        let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
        if name.is_empty() || !name.bytes().all(fits) {
            return None;
        }
        Some((name.to_owned(), day.parse().ok()?))
    };
    let value = all(headers, syncs_name(is_https)).next().unwrap_or_default();
    value.split('/').filter_map(one).take(64).collect()
}

fn header(text: &str) -> HeaderValue {
    // Only a configured domain can hold a byte that no header takes.
    HeaderValue::from_str(text).unwrap_or_else(|_| HeaderValue::from_static(""))
}

/// The values of every cookie of a name, in all headers. Others send what they like beside ours: browsers pass on any byte
/// that a page puts into a cookie.
fn all<'a>(headers: &'a HeaderMap, name: &'a str) -> impl Iterator<Item = &'a str> {
    headers.get_all(COOKIE).flat_map(move |header| {
        header.as_bytes().split(|byte| *byte == b';').filter_map(move |pair| {
            let (key, value) = std::str::from_utf8(pair).ok()?.split_once('=')?;
            (key.trim() == name).then(|| value.trim().trim_matches('"'))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cookies() -> Cookies {
        Cookies::new(&Secret::new([7; 32]), false)
    }

    fn sent(headers: &[String]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for header in headers {
            map.append(COOKIE, HeaderValue::from_str(header).unwrap());
        }
        map
    }

    fn pair(header: &HeaderValue) -> String {
        header.to_str().unwrap().split(';').next().unwrap().to_owned()
    }

    #[test]
    fn what_was_made_here_is_read_back() {
        let cookies = cookies();
        let made = cookies.mint().unwrap();
        assert_eq!(made.value().len(), 32);
        let pair = pair(&cookies.set(&made, Scope::Host));
        let headers = sent(&[format!("a=b; {pair}; c")]);
        assert_eq!(cookies.read(&headers, Scope::Host), Some(made.clone()));
        let mut beside = HeaderMap::new();
        for other in ["name=José", "name=Jos\u{e9}\u{1F600}"] {
            beside.insert(COOKIE, HeaderValue::from_str(&format!("{other}; {pair}; x=é")).unwrap());
            assert_eq!(cookies.read(&beside, Scope::Host), Some(made.clone()), "{other}");
        }
        let latin = [b"name=Jos\xe9; ".as_slice(), pair.as_bytes()].concat();
        beside.insert(COOKIE, HeaderValue::from_bytes(&latin).unwrap());
        assert_eq!(cookies.read(&beside, Scope::Host), Some(made.clone()));
        assert_eq!(cookies.read(&headers, Scope::Plain), None);
        assert_ne!(cookies.mint(), Some(made));
    }

    #[test]
    fn forged_and_doubled_cookies_are_absent() {
        let cookies = cookies();
        let made = pair(&cookies.set(&cookies.mint().unwrap(), Scope::Plain));
        let other = pair(&cookies.set(&cookies.mint().unwrap(), Scope::Plain));
        let foreign = Cookies::new(&Secret::new([8; 32]), false);
        let forged = pair(&foreign.set(&foreign.mint().unwrap(), Scope::Plain));
        let (id, _) = made.split_once('.').unwrap();
        for wrong in [
            vec![made.clone(), other.clone()],
            vec![format!("{made}; {made}")],
            vec![forged],
            vec![id.to_owned()],
            vec![format!("{id}.")],
            vec![made.to_uppercase().replace("THRONG", "throng")],
            vec![format!("{made}0")],
            vec!["throng=.".to_owned()],
            vec!["throng=é.é".to_owned()],
        ] {
            assert_eq!(cookies.read(&sent(&wrong), Scope::Plain), None, "{wrong:?}");
        }
        assert!(cookies.read(&sent(&[made]), Scope::Plain).is_some());
    }

    #[test]
    fn the_scope_decides_name_and_attributes() {
        let made = cookies().mint().unwrap();
        let text = |cookies: &Cookies, scope| {
            let header = cookies.set(&made, scope).to_str().unwrap().to_owned();
            header.replace(&pair(&cookies.set(&made, scope))[scope.name().len()..], "=V")
        };
        assert_eq!(
            text(&cookies(), Scope::Plain),
            "throng=V; Path=/; Max-Age=34128000; HttpOnly; SameSite=Lax"
        );
        assert_eq!(
            text(&cookies(), Scope::Host),
            "__Host-throng=V; Path=/; Max-Age=34128000; HttpOnly; Secure; SameSite=None"
        );
        let partitioned = Cookies::new(&Secret::new([7; 32]), true);
        assert_eq!(
            partitioned.remember_syncs(&[("a".to_owned(), 7), ("b".to_owned(), 8)], true),
            "__Host-throng-sync=a.7/b.8; Path=/; Max-Age=34128000; HttpOnly; Secure; SameSite=None; Partitioned"
        );
        assert_eq!(
            text(&partitioned, Scope::Domain("shop.example")),
            "__Secure-throng=V; Path=/; Max-Age=34128000; HttpOnly; Domain=shop.example; Secure; \
             SameSite=None; Partitioned"
        );
    }

    #[test]
    fn an_opt_out_is_remembered_under_its_own_name() {
        let header = remember_opt_out(true, true);
        assert!(is_opted_out(&sent(&[format!("name=José; {}", pair(&header))]), true));
        assert!(is_opted_out(&sent(&[pair(&header)]), true));
        assert!(!is_opted_out(&sent(&[pair(&header)]), false));
        assert!(!is_opted_out(&sent(&[pair(&remember_opt_out(false, true))]), true));
    }
}
