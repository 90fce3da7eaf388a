//! The keys that domains publish: asked for over HTTPS, kept for a while, and asked for anew where one is not among them.

use std::collections::BTreeMap;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use parking_lot::Mutex;
use ring::signature::ECDSA_P256_SHA256_FIXED;
use ring::signature::RSA_PKCS1_2048_8192_SHA256;
use ring::signature::RsaPublicKeyComponents;
use ring::signature::UnparsedPublicKey;
use serde_json::Value;

use super::Refusal;
use super::Whose;
use super::token::Algorithm;
use super::token::Token;
use crate::model::Millis;
use crate::model::time::DAY;
use crate::model::time::MINUTE;
use crate::net::Outgoing;
use crate::net::OutgoingError;
use crate::net::OutgoingRequest;

/// How long one call may take.
const TIMEOUT: Duration = Duration::from_secs(5);
/// So many keys of a domain are looked at.
const MOST_KEYS: usize = 64;
/// How long keys are kept at least and at most, and for how long it is not asked again for one that is not there.
const LEAST: Millis = MINUTE;
const MOST: Millis = DAY;
/// For how long it is not asked again where nothing could be read.
const FAILED: Millis = 10_000;

/// The keys of domains.
pub(super) struct Keys {
    outgoing: Outgoing,
    /// Bounded by the domains that the settings list: each is spelled as there.
    known: Mutex<BTreeMap<String, Published>>,
    failed: Mutex<BTreeMap<String, (Refusal, Millis)>>,
}

#[derive(Clone)]
struct Published {
    keys: Vec<Value>,
    read_at: Millis,
    good_for: Millis,
}

impl Keys {
    pub(super) fn new(outgoing: Outgoing) -> Self {
        Self { outgoing, known: Mutex::default(), failed: Mutex::default() }
    }

    /// Whether a domain has signed a token.
    pub(super) fn verify(
        &self,
        domain: &str,
        token: &Token<'_>,
        whose: Whose,
        now: Millis,
    ) -> Result<(), Refusal> {
        let kept = self.known.lock().get(domain).cloned();
        let is_good = |p: &Published| now >= p.read_at && now - p.read_at < p.good_for;
        let has = |p: &Published| !chosen(&p.keys, token).is_empty();
        let published = match kept {
            Some(kept) if is_good(&kept) && (has(&kept) || now - kept.read_at < LEAST) => kept,
            _ => {
                let fresh = self.read_again(domain, whose, now)?;
                self.known.lock().insert(domain.to_owned(), fresh.clone());
                fresh
            }
        };
        let chosen = chosen(&published.keys, token);
        if chosen.is_empty() {
            let kid = token.kid.clone().unwrap_or_else(|| "it names none".to_owned());
            return Err(Refusal::NoKey(whose, kid.chars().take(100).collect()));
        }
        let fitting: Vec<&Value> =
            chosen.into_iter().filter(|key| fits(key, token.algorithm)).collect();
        if fitting.is_empty() {
            return Err(Refusal::OtherAlgorithm(whose));
        }
        match fitting.iter().any(|key| is_signed(key, token)) {
            true => Ok(()),
            false => Err(Refusal::Signature(whose)),
        }
    }

    /// Reads what a domain publishes, where that has not just failed: anybody can name a domain that is listed.
    fn read_again(&self, domain: &str, whose: Whose, now: Millis) -> Result<Published, Refusal> {
        if let Some((refusal, at)) = self.failed.lock().get(domain)
            && (0..FAILED).contains(&(now - at))
        {
            return Err(refusal.of(whose));
        }
        let read = self.read(domain, whose, now);
        let mut failed = self.failed.lock();
        match &read {
            Ok(_) => _ = failed.remove(domain),
            Err(refusal) => _ = failed.insert(domain.to_owned(), (refusal.clone(), now)),
        }
        read
    }

    /// Reads what a domain publishes: its keys, in the file itself or where that says.
    fn read(&self, domain: &str, whose: Whose, now: Millis) -> Result<Published, Refusal> {
        let url = format!("https://{domain}/dsrdelete.json");
        let file = self.get(&url).map_err(|error| match error {
            Miss::OutOfReach(why) => Refusal::OutOfReach(whose, why),
            Miss::Not(why) => Refusal::NoFile(whose, why),
        })?;
        let mut keys: Vec<Value> = file.get("publicKey").map_or_else(Vec::new, list);
        let mut frequency = file.get("pollFrequency").and_then(seconds);
        if let Some(set) = file.get("jwksUri").and_then(Value::as_str) {
            if !set.starts_with("https://") {
                return Err(Refusal::NoKeys(whose, "jwksUri is not https".to_owned()));
            }
            let set = self.get(set).map_err(|error| match error {
                Miss::OutOfReach(why) | Miss::Not(why) => Refusal::NoKeys(whose, why),
            })?;
            keys.extend(set.get("keys").map_or_else(Vec::new, list));
            frequency = set.get("pollFrequency").and_then(seconds).or(frequency);
        }
        keys.truncate(MOST_KEYS);
        let good_for = frequency.map_or(MOST, |s| s.saturating_mul(1_000)).clamp(LEAST, MOST);
        Ok(Published { keys, read_at: now, good_for })
    }

    fn get(&self, url: &str) -> Result<Value, Miss> {
        let request = OutgoingRequest {
            method: "GET",
            url,
            headers: &[("Accept", "application/json")],
            body: &[],
            timeout: TIMEOUT,
        };
        let answer = self.outgoing.call(&request).map_err(|error| match error {
            OutgoingError::NotSent(why) | OutgoingError::Lost(why) => Miss::OutOfReach(why),
        })?;
        if answer.status != 200 {
            return Err(Miss::Not(format!("it was answered with {}", answer.status)));
        }
        serde_json::from_slice(&answer.body).map_err(|_| Miss::Not("it is no JSON".to_owned()))
    }
}

enum Miss {
    OutOfReach(String),
    Not(String),
}

fn list(value: &Value) -> Vec<Value> {
    match value {
        Value::Array(all) => all.clone(),
        one => vec![one.clone()],
    }
}

/// A number of seconds, which some write as a text.
fn seconds(value: &Value) -> Option<i64> {
    value.as_i64().or_else(|| value.as_str()?.trim().parse().ok())
}

/// The keys that a token may be signed with: the one that it names, or all where it names none.
fn chosen<'k>(keys: &'k [Value], token: &Token<'_>) -> Vec<&'k Value> {
    let is_it = |key: &&Value| match &token.kid {
        Some(kid) => key.get("kid").and_then(Value::as_str) == Some(kid),
        None => true,
    };
    keys.iter().filter(is_it).collect()
}

/// Whether a key is of an algorithm: of its kind, and not said to be of another.
fn fits(key: &Value, algorithm: Algorithm) -> bool {
    let text = |name: &str| key.get(name).and_then(Value::as_str);
    let is_kind = match algorithm {
        Algorithm::Es256 => text("kty") == Some("EC") && text("crv") == Some("P-256"),
        Algorithm::Rs256 => text("kty") == Some("RSA"),
    };
    is_kind && text("alg").is_none_or(|name| Algorithm::of(name) == Some(algorithm))
}

fn is_signed(key: &Value, token: &Token<'_>) -> bool {
    let part = |name: &str| {
        let text = key.get(name).and_then(Value::as_str)?;
        URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')).ok()
    };
    let verified = match token.algorithm {
        Algorithm::Es256 => part("x").zip(part("y")).map(|(x, y)| {
            let point = [&[4], &x[..], &y[..]].concat();
            let key = UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point);
            key.verify(token.signed(), &token.signature).is_ok()
        }),
        Algorithm::Rs256 => part("n").zip(part("e")).map(|(n, e)| {
            let key = RsaPublicKeyComponents { n, e };
            key.verify(&RSA_PKCS1_2048_8192_SHA256, token.signed(), &token.signature).is_ok()
        }),
    };
    verified == Some(true)
}
