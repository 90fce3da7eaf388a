//! The Data Deletion Request Framework of IAB Tech Lab: whoever received a deletion request passes it on, signed, and is
//! told, signed, that it arrived.
//!
//! Both versions are spoken, and each is answered in its own words: 1.0, where the token of the origin is an `idJWT` that
//! names the identifier, and 2.0, where it is an `orJWT` that does not. A request counts when its requester and its
//! origin are both among those that the settings list, and each has signed with a key that its own domain publishes.
//! The same request again is answered as before, and erases nothing a second time.

mod keys;
mod seen;
mod token;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use parking_lot::Mutex;
use ring::rand::SystemRandom;
use ring::signature::KeyPair;
use serde_json::Value;
use serde_json::json;
use sha2::Digest;
use sha2::Sha256;

use super::Asked;
use super::Privacy;
use super::PrivacyError;
use crate::config;
use crate::ingest::canonical::identifiers_of;
use crate::model::Identifier;
use crate::model::Millis;
use crate::model::hex;
use crate::net::Outgoing;
use token::Token;

/// The longest request that is read, in bytes.
pub const MOST_BYTES: usize = 32 << 10;
/// How far a clock may be ahead, in seconds.
const AHEAD: i64 = 300;
/// A request is good for so long, in seconds; so long it is remembered.
const GOOD_FOR: i64 = 7 * 86_400;
/// How often others should read what is published, in seconds.
const POLL: u64 = 86_400;

/// What is known of requests and of those who make them.
pub struct Ddrf {
    settings: config::Privacy,
    domain: String,
    keys: keys::Keys,
    /// Held while a request is looked for among those of before and kept: the same may come twice at once.
    keeping: Mutex<()>,
}

/// An answer: whether the request was taken, and the acknowledgement.
#[derive(Debug, Clone)]
pub struct Acknowledged {
    /// 202 where it was taken, else 400.
    pub status: u16,
    /// The `acJWT`.
    pub token: String,
}

/// Of which version an answer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    One,
    Two,
}

/// Whose token something is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Whose {
    Origin,
    Requester,
}

/// Why a request is not taken.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Refusal {
    /// A part is missing, or is not of the form.
    Malformed(String),
    Undecodable(Whose),
    /// The requester is not one of those who may ask.
    Stranger(String),
    OutOfReach(Whose, String),
    NoFile(Whose, String),
    NoKeys(Whose, String),
    NoKey(Whose, String),
    OtherAlgorithm(Whose),
    Signature(Whose),
    Time(Whose),
    Future(Whose),
    Sequence,
    Expired(Whose),
    Audience(Whose),
    /// The origin names another one.
    Another,
    Replayed,
    Type(String),
    Format(String),
    NotOfFormat,
    Identifier,
    /// So many profiles have it that it is nobody's.
    Many,
}

impl Refusal {
    /// What could not be read of a domain, where that matters to another token of it.
    fn of(&self, whose: Whose) -> Self {
        match self {
            Self::OutOfReach(_, why) => Self::OutOfReach(whose, why.clone()),
            Self::NoFile(_, why) => Self::NoFile(whose, why.clone()),
            Self::NoKeys(_, why) => Self::NoKeys(whose, why.clone()),
            other => other.clone(),
        }
    }

    /// The code and the words of a version.
    fn told(&self, version: Version) -> (u32, String) {
        let of = |whose: &Whose, or: u32, rq: u32| if *whose == Whose::Origin { or } else { rq };
        let name = |whose: &Whose| if *whose == Whose::Origin { "or" } else { "rq" };
        let (one, two, text) = match self {
            Self::Malformed(what) => (1, 13201, format!("rq_invalid_token: {what}")),
            Self::Undecodable(whose) => {
                (3, of(whose, 13101, 13201), format!("{}_invalid_token", name(whose)))
            }
            Self::Stranger(who) => (
                2,
                10010,
                format!("unknown_error: no agreement with {who} about deletion requests"),
            ),
            Self::OutOfReach(whose, why) => (
                2,
                of(whose, 11101, 11201),
                format!("{}_domain_connection_failed: {why}", name(whose)),
            ),
            Self::NoFile(whose, why) => (
                2,
                of(whose, 11102, 11202),
                format!("{}_dsrdelete_file_not_found: {why}", name(whose)),
            ),
            Self::NoKeys(whose, why) => (
                2,
                of(whose, 11104, 11204),
                format!("{}_jwks_keys_file_not_found: {why}", name(whose)),
            ),
            Self::NoKey(whose, kid) => {
                (2, of(whose, 11105, 11205), format!("{}_jwks_kid_not_found: {kid}", name(whose)))
            }
            Self::OtherAlgorithm(whose) => {
                (2, of(whose, 12101, 12201), format!("{}_alg_claim_mismatch", name(whose)))
            }
            Self::Signature(whose) => {
                (2, of(whose, 13102, 13202), format!("{}_invalid_token_signature", name(whose)))
            }
            Self::Time(whose) => {
                (6, of(whose, 13103, 13203), format!("{}_invalid_token_timestamp", name(whose)))
            }
            Self::Future(whose) => (
                6,
                of(whose, 13104, 13204),
                format!("{}_invalid_token_timestamp_future", name(whose)),
            ),
            Self::Sequence => (6, 13205, "rq_invalid_timestamp_sequence".to_owned()),
            Self::Expired(whose) => (
                6,
                of(whose, 13103, 13203),
                format!("{}_invalid_token_timestamp: it has expired", name(whose)),
            ),
            Self::Audience(whose) => (
                3,
                of(whose, 13101, 13201),
                format!("{}_invalid_token: it is for another", name(whose)),
            ),
            Self::Another => (3, 13101, "or_invalid_token: it names another identifier".to_owned()),
            Self::Replayed => {
                (3, 13201, "rq_invalid_token: its jti was another request's".to_owned())
            }
            Self::Type(which) => (4, 14201, format!("rq_unsupported_identifier_type: {which}")),
            Self::Format(which) => (5, 14202, format!("rq_unsupported_identifier_format: {which}")),
            Self::NotOfFormat => (5, 14203, "rq_incorrect_identifier_format".to_owned()),
            Self::Identifier => (5, 14204, "rq_invalid_identifier_value".to_owned()),
            Self::Many => {
                (5, 14204, "rq_invalid_identifier_value: too many people share it".to_owned())
            }
        };
        (if version == Version::One { one } else { two }, text)
    }
}

/// The identifiers that are taken: type, format.
const IDENTIFIERS: [(&str, &str); 16] = [
    ("email", "sha256"),
    ("email", "plaintext"),
    ("phone", "sha256"),
    ("phone", "plaintext"),
    ("idfa", "plaintext"),
    ("gaid", "plaintext"),
    ("aaid", "plaintext"),
    ("rida", "plaintext"),
    ("afai", "plaintext"),
    ("tifa", "plaintext"),
    ("vida", "plaintext"),
    ("lgudid", "plaintext"),
    ("msai", "plaintext"),
    ("cookie", "plaintext"),
    ("user_id", "plaintext"),
    ("crm_id", "plaintext"),
];

impl Ddrf {
    /// What settings say; `None` where they name no domain of ours.
    pub fn new(settings: &config::Privacy) -> Option<Self> {
        let domain = settings.domain.clone()?;
        let outgoing = Outgoing::new().allowing_private(settings.allow_private);
        let keys = keys::Keys::new(outgoing);
        Some(Self { settings: settings.clone(), domain, keys, keeping: Mutex::default() })
    }

    /// Where the public listener is reached.
    fn url(&self) -> String {
        let url = self.settings.url.clone();
        url.unwrap_or_else(|| format!("https://{}", self.domain)).trim_end_matches('/').to_owned()
    }

    /// `dsrdelete.json`: where to send requests, about what, and what acknowledgements are verified with. It is of both
    /// versions at once.
    pub fn file(&self, privacy: &Privacy) -> Result<Value, PrivacyError> {
        let identifiers: Vec<Value> = (1..)
            .zip(IDENTIFIERS)
            .map(|(id, (kind, format)): (u32, _)| json!({ "id": id, "type": kind, "format": format }))
            .collect();
        let url = self.url();
        Ok(json!({
            "endpoint": format!("{url}/privacy/delete"),
            "pollFrequency": POLL,
            "identifiers": identifiers,
            "publicKey": [public(privacy)?],
            "jwksUri": format!("{url}/.well-known/iabtl/jwks.json"),
            "vendorScriptRequirement": false,
        }))
    }

    /// The set of public keys that acknowledgements are verified with.
    pub fn key_set(&self, privacy: &Privacy) -> Result<Value, PrivacyError> {
        Ok(json!({ "pollFrequency": POLL, "keys": [public(privacy)?] }))
    }

    /// Verifies a request and takes it where it is right. Blocks: the keys of others are asked for.
    pub fn take(&self, privacy: &Privacy, body: &[u8]) -> Result<Acknowledged, PrivacyError> {
        let text = request_of(body).unwrap_or_default();
        let now = privacy.now();
        let (version, verified) = self.verify(&text, now);
        let (code, said) = match verified {
            Ok(request) => match self.keep(privacy, &request, now)? {
                Ok(()) => (if version == Version::One { 0 } else { 10_000 }, "success".to_owned()),
                Err(refusal) => refusal.told(version),
            },
            Err(refusal) => refusal.told(version),
        };
        let is_taken = code == 0 || code == 10_000;
        if !is_taken {
            tracing::info!(code, "a deletion request is not taken");
        }
        let token = self.acknowledge(privacy, version, &text, (code, &said), now)?;
        Ok(Acknowledged { status: if is_taken { 202 } else { 400 }, token })
    }

    /// What a request says, where it is right in all.
    fn verify(&self, text: &str, now: Millis) -> (Version, Result<Request, Refusal>) {
        let Some(token) = Token::read(text) else {
            return (Version::One, Err(Refusal::Undecodable(Whose::Requester)));
        };
        let is_two = token.claim("orJWT").is_some()
            || token.claim("version").is_some_and(|version| version.starts_with('2'));
        let version = if is_two { Version::Two } else { Version::One };
        (version, self.verified(&token, version, now))
    }

    fn verified(
        &self,
        token: &Token<'_>,
        version: Version,
        now: Millis,
    ) -> Result<Request, Refusal> {
        let missing = |name: &str| Refusal::Malformed(format!("{name} is missing"));
        let claim = |token: &Token<'_>, name: &str| -> Result<String, Refusal> {
            token.claim(name).map(str::to_owned).ok_or_else(|| missing(name))
        };
        let (requester, jti) = (claim(token, "iss")?, claim(token, "jti")?);
        if jti.len() > 256 {
            return Err(Refusal::Malformed("jti is too long".to_owned()));
        }
        let inner = claim(token, if version == Version::One { "idJWT" } else { "orJWT" })?;
        let origin_token = Token::read(&inner).ok_or(Refusal::Undecodable(Whose::Origin))?;
        let origin = claim(&origin_token, "iss")?;
        claim(&origin_token, "jti")?;
        // As the settings spell it: else one domain is many, with keys to be asked for and requests of its own.
        let known = |domain: String| {
            let mut all = self.settings.requesters.iter();
            let stranger = || Refusal::Stranger(domain.chars().take(100).collect());
            all.find(|known| known.eq_ignore_ascii_case(&domain)).cloned().ok_or_else(stranger)
        };
        let (requester, origin) = (known(requester)?, known(origin)?);
        let now_s = now.div_euclid(1_000);
        let at = token.issued(Whose::Requester, now_s)?;
        let origin_at = origin_token.issued(Whose::Origin, now_s)?;
        if at < origin_at {
            return Err(Refusal::Sequence);
        }
        let ours = [self.domain.clone(), self.url(), format!("{}/privacy/delete", self.url())];
        let of_whom = [(Whose::Requester, token, at), (Whose::Origin, &origin_token, origin_at)];
        for (whose, token, at) in of_whom {
            if at < now_s - GOOD_FOR || token.expires().is_some_and(|end| end <= now_s) {
                return Err(Refusal::Expired(whose));
            }
            if token.begins().is_some_and(|begin| begin > now_s + AHEAD) {
                return Err(Refusal::Future(whose));
            }
            if !token.is_for(&ours) {
                return Err(Refusal::Audience(whose));
            }
        }
        self.keys.verify(&requester, token, Whose::Requester, now)?;
        self.keys.verify(&origin, &origin_token, Whose::Origin, now)?;
        let named = named(token, version)?;
        let is_direct = requester.eq_ignore_ascii_case(&origin);
        if version == Version::One && names_another(&origin_token, &named, is_direct)? {
            return Err(Refusal::Another);
        }
        Ok(Request { requester, jti, named, digest: Sha256::digest(token.text()).into() })
    }

    /// Keeps a request that is right, once.
    fn keep(
        &self,
        privacy: &Privacy,
        request: &Request,
        now: Millis,
    ) -> Result<Result<(), Refusal>, PrivacyError> {
        let Request { requester, jti, named: (namespace, named), digest } = request;
        let name = privacy.parts.identity.hash(b"jti", &[requester.as_bytes(), jti.as_bytes()]);
        let mark = seen::Mark::new(name, digest);
        let _keeping = self.keeping.lock();
        match seen::find(&*privacy.parts.shelf, mark, now)? {
            seen::Found::Same => return Ok(Ok(())),
            seen::Found::Other => return Ok(Err(Refusal::Replayed)),
            seen::Found::Nothing => {}
        }
        // Whoever else is asked cannot say so any more; where it is not known now, the erasure finds out.
        if let Err(PrivacyError::Wrong(_)) = privacy.holders(named, false) {
            return Ok(Err(Refusal::Many));
        }
        // The erasure first: a crash in between has it asked twice, which is better than never.
        privacy.erase_later(&Asked {
            named: named.clone(),
            namespace: namespace.clone(),
            person: false,
            suppress: false,
            by: requester.clone(),
        })?;
        seen::keep(&*privacy.parts.shelf, mark, now)?;
        Ok(Ok(()))
    }

    fn acknowledge(
        &self,
        privacy: &Privacy,
        version: Version,
        request: &str,
        (code, said): (u32, &str),
        now: Millis,
    ) -> Result<String, PrivacyError> {
        let key = privacy.keys.acknowledgements(&*privacy.parts.shelf)?;
        let mut id = [0; 16];
        getrandom::fill(&mut id)
            .map_err(|_| PrivacyError::Wrong("no random numbers".to_owned()))?;
        let header = json!({ "typ": "JWT", "alg": "ES256", "kid": kid(key.public_key().as_ref()) });
        let claims = json!({
            "version": if version == Version::One { "1.0" } else { "2.0" },
            "rqJWT": request,
            "jti": hex(&id),
            "iss": self.domain,
            "iat": now.div_euclid(1_000),
            "raResultCode": code,
            "raResultString": said,
        });
        let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", encode(&header), encode(&claims));
        let signature = key.sign(&SystemRandom::new(), signed.as_bytes());
        let signature =
            signature.map_err(|_| PrivacyError::Wrong("nothing can be signed".to_owned()))?;
        Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature.as_ref())))
    }
}

/// A request that is right.
struct Request {
    requester: String,
    jti: String,
    named: (String, Vec<Identifier>),
    digest: [u8; 32],
}

/// The token in a body: as it is, as a JSON string, or as the member `rqJWT`.
fn request_of(body: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(body).ok()?.trim();
    if !text.starts_with(['{', '"']) {
        return Some(text.to_owned());
    }
    match serde_json::from_str(text).ok()? {
        Value::String(token) => Some(token),
        value => Some(value.get("rqJWT")?.as_str()?.to_owned()),
    }
}

/// Who is named: the namespace for the receipt, and the identifiers.
fn named(token: &Token<'_>, version: Version) -> Result<(String, Vec<Identifier>), Refusal> {
    let member = |name: &str| -> Result<String, Refusal> {
        let found = match version {
            Version::One => token.claims().get("sub").and_then(|sub| sub.get(name)),
            Version::Two => token.claims().get(name),
        };
        let text = found.and_then(Value::as_str).filter(|text| text.len() <= 512);
        text.map(str::to_owned).ok_or_else(|| Refusal::Malformed(format!("{name} is missing")))
    };
    let (kind, format) = (member("identifierType")?, member("identifierFormat")?);
    let value = member("identifierValue")?;
    let shown = |text: &str| text.chars().take(64).collect::<String>();
    if !IDENTIFIERS.iter().any(|(known, _)| *known == kind) {
        return Err(Refusal::Type(shown(&kind)));
    }
    if !IDENTIFIERS.contains(&(&*kind, &*format)) {
        return Err(Refusal::Format(shown(&format)));
    }
    let namespaces: &[&str] = match (&*kind, &*format) {
        ("email", "sha256") => &["email_sha256", "email_gmail_sha256"],
        ("phone", "sha256") => &["phone_e164_sha256", "phone_digits_sha256"],
        ("aaid", _) => &["gaid"],
        _ => &[],
    };
    let is_hash = |text: &str| text.len() == 64 && text.bytes().all(|b| b.is_ascii_hexdigit());
    if format == "sha256" && !is_hash(&value) {
        return Err(Refusal::NotOfFormat);
    }
    let value = if format == "sha256" { value.to_lowercase() } else { value };
    let all = if namespaces.is_empty() {
        std::slice::from_ref(&&*kind).to_vec()
    } else {
        namespaces.to_vec()
    };
    let mut found = Vec::new();
    for namespace in all {
        found.extend(identifiers_of(namespace, &value).map_err(|_| Refusal::Identifier)?);
    }
    found.sort_unstable();
    found.dedup();
    Ok((kind, found))
}

/// Whether an `idJWT` names someone else than the request does, as far as that can be told: who passes a request on names
/// the user by what the receiver knows, which may be of another type, and a cookie or an account is each party's own.
fn names_another(
    origin: &Token<'_>,
    (kind, of_request): &(String, Vec<Identifier>),
    is_direct: bool,
) -> Result<bool, Refusal> {
    let (origin_kind, of_origin) = match named(origin, Version::One) {
        Ok(named) => named,
        // Of a type that is not taken here.
        Err(Refusal::Type(_) | Refusal::Format(_)) => return Ok(false),
        Err(Refusal::Malformed(what)) => return Err(Refusal::Malformed(format!("idJWT: {what}"))),
        Err(refusal) => return Err(refusal),
    };
    let plain = |kind: &str| if kind == "aaid" { "gaid".to_owned() } else { kind.to_owned() };
    let is_own = matches!(&**kind, "cookie" | "user_id" | "crm_id");
    let is_comparable = plain(kind) == plain(&origin_kind) && (is_direct || !is_own);
    Ok(is_comparable && !of_origin.iter().any(|one| of_request.contains(one)))
}

/// The key of acknowledgements as a JWK.
fn public(privacy: &Privacy) -> Result<Value, PrivacyError> {
    let key = privacy.keys.acknowledgements(&*privacy.parts.shelf)?;
    let point = key.public_key().as_ref();
    // 0x04, then both coordinates of 32 bytes.
    let half = |at: usize| URL_SAFE_NO_PAD.encode(point.get(at..at + 32).unwrap_or_default());
    Ok(json!({
        "kty": "EC",
        "crv": "P-256",
        "alg": "ES256",
        "use": "sig",
        "kid": kid(point),
        "x": half(1),
        "y": half(33),
    }))
}

/// The name of a public key, which follows from it.
fn kid(point: &[u8]) -> String {
    hex(&Sha256::digest(point)[..8])
}
