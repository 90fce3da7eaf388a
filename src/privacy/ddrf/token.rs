//! A signed token (JWT) as it came, taken apart and not yet believed.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;

use super::AHEAD;
use super::Refusal;
use super::Whose;

/// How a token is signed. There are no others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Algorithm {
    Es256,
    Rs256,
}

/// A token.
#[derive(Debug)]
pub(super) struct Token<'t> {
    text: &'t str,
    /// The length of what is signed.
    signed: usize,
    pub(super) algorithm: Algorithm,
    pub(super) kid: Option<String>,
    claims: Value,
    pub(super) signature: Vec<u8>,
}

impl Algorithm {
    pub(super) fn of(name: &str) -> Option<Self> {
        match name {
            "ES256" => Some(Self::Es256),
            "RS256" => Some(Self::Rs256),
            _ => None,
        }
    }
}

impl<'t> Token<'t> {
    /// Takes a token apart; `None` where it is none, or is signed in another way than is allowed.
    pub(super) fn read(text: &'t str) -> Option<Self> {
        let signed = text.rfind('.')?;
        let (header, claims) = text[..signed].split_once('.')?;
        let decode = |part: &str| URL_SAFE_NO_PAD.decode(part).ok();
        let header: Value = serde_json::from_slice(&decode(header)?).ok()?;
        let claims: Value = serde_json::from_slice(&decode(claims)?).ok()?;
        // What says that it must be understood is not.
        if !claims.is_object() || header.get("crit").is_some() {
            return None;
        }
        Some(Self {
            text,
            signed,
            algorithm: Algorithm::of(header.get("alg")?.as_str()?)?,
            kid: header.get("kid").and_then(Value::as_str).map(str::to_owned),
            claims,
            signature: decode(&text[signed + 1..])?,
        })
    }

    pub(super) fn text(&self) -> &str {
        self.text
    }

    /// What the signature is over.
    pub(super) fn signed(&self) -> &[u8] {
        &self.text.as_bytes()[..self.signed]
    }

    pub(super) fn claims(&self) -> &Value {
        &self.claims
    }

    /// A claim that is a text, and not an empty one.
    pub(super) fn claim(&self, name: &str) -> Option<&str> {
        self.claims.get(name)?.as_str().filter(|text| !text.is_empty())
    }

    /// When it was issued, in seconds: not in the future.
    pub(super) fn issued(&self, whose: Whose, now: i64) -> Result<i64, Refusal> {
        let at = self.claims.get("iat").and_then(Value::as_i64).filter(|at| *at > 0);
        let at = at.ok_or(Refusal::Time(whose))?;
        if at > now + AHEAD { Err(Refusal::Future(whose)) } else { Ok(at) }
    }

    /// When it expires, in seconds, where it says so.
    pub(super) fn expires(&self) -> Option<i64> {
        let end = self.claims.get("exp")?;
        // One that cannot be read is over.
        Some(end.as_i64().unwrap_or(i64::MIN))
    }

    /// From when on it is good, in seconds, where it says so.
    pub(super) fn begins(&self) -> Option<i64> {
        let begin = self.claims.get("nbf")?;
        // One that cannot be read does not come.
        Some(begin.as_i64().unwrap_or(i64::MAX))
    }

    /// Whether it is for one of these, where it says for whom.
    pub(super) fn is_for(&self, names: &[String]) -> bool {
        let is_one =
            |value: &Value| value.as_str().is_some_and(|one| names.iter().any(|n| n == one));
        match self.claims.get("aud") {
            None => true,
            Some(Value::Array(all)) => all.iter().any(is_one),
            Some(one) => is_one(one),
        }
    }
}
