//! Access tokens by OAuth 2.0: from the key of a service account (RFC 7523), or from a refresh token (RFC 6749, section 6).
//!
//! A token is asked for anew when four fifths of its life are over, by one caller while the others wait. A refresh token
//! that is replaced by the answer is on disk before the access token that came with it is used.

use std::fs;
use std::fs::File;
use std::fs::OpenOptions;
use std::io;
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::path::PathBuf;
use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use parking_lot::Mutex;
use ring::rand::SystemRandom;
use ring::signature::RSA_PKCS1_SHA256;
use ring::signature::RsaKeyPair;
use serde::Deserialize;
use serde_json::json;

use super::Answered;
use super::Outgoing;
use super::OutgoingRequest;
use super::read_secret;
use super::secret::secret_text;
use crate::config::SecretSource;
use crate::model::Millis;
use crate::model::time::SECOND;

const TIMEOUT: Duration = Duration::from_secs(20);
/// How long what a service account signs is good for.
const HOUR: i64 = 3_600;
/// A token whose answer does not say how long it lives is taken to live so long.
const LIFE: i64 = 3_600;

/// What access tokens are made from.
#[derive(Debug, Clone)]
pub enum Grant {
    /// The key of a service account: JSON, as Google's console gives it.
    ServiceAccount {
        /// Where it is.
        key: SecretSource,
    },
    /// A refresh token.
    Refresh {
        /// The client that it was given to.
        client_id: String,
        /// Where that one's secret is.
        client_secret: SecretSource,
        /// Where the token is; a file is written where the token is replaced.
        token: SecretSource,
    },
}

/// Why there is no token.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OauthError {
    /// Someone has to do something: what.
    Refused(String),
    /// It may work later: why.
    Later(String),
}

/// The access tokens of one account.
pub struct AccessTokens {
    grant: Grant,
    /// Where tokens are asked for.
    url: String,
    scope: &'static str,
    outgoing: Outgoing,
    held: Mutex<Option<Held>>,
}

struct Held {
    token: String,
    /// From then on another is asked for.
    renew_at: Millis,
    /// So long it is good.
    until: Millis,
}

#[derive(Deserialize)]
struct ServiceAccount {
    client_email: String,
    private_key: String,
}

/// What an endpoint of tokens gives.
#[derive(Deserialize)]
pub(super) struct Given {
    access_token: String,
    #[serde(default)]
    expires_in: Option<i64>,
    #[serde(default)]
    pub(super) refresh_token: Option<String>,
    /// What it is good for, where that is said.
    #[serde(default)]
    pub(super) scope: Option<String>,
}

/// What to do where what tokens are made from is refused.
const STALE: &str = "what tokens are made from is refused: give the account a new key, or get a new refresh token (`throng \
                     destination authorize`), and put it where the old one is";

impl AccessTokens {
    /// Nothing is asked for yet.
    pub fn new(grant: Grant, url: String, scope: &'static str, outgoing: Outgoing) -> Self {
        Self { grant, url, scope, outgoing, held: Mutex::default() }
    }

    /// A token that is good now.
    pub fn get(&self, now: Millis) -> Result<String, OauthError> {
        let mut held = self.held.lock();
        match &*held {
            Some(known) if now < known.renew_at => return Ok(known.token.clone()),
            _ => {}
        }
        match self.ask(now) {
            Ok(new) => {
                let token = new.token.clone();
                *held = Some(new);
                Ok(token)
            }
            // The one before is good for a while yet.
            Err(OauthError::Later(why)) => match held.as_ref().filter(|known| now < known.until) {
                Some(known) => Ok(known.token.clone()),
                None => Err(OauthError::Later(why)),
            },
            Err(refused) => {
                *held = None;
                Err(refused)
            }
        }
    }

    /// A token was refused: the next caller asks for another.
    pub fn refuse(&self, token: &str) {
        let mut held = self.held.lock();
        if held.as_ref().is_some_and(|known| known.token == token) {
            *held = None;
        }
    }

    fn ask(&self, now: Millis) -> Result<Held, OauthError> {
        let form = match &self.grant {
            Grant::ServiceAccount { key } => {
                let assertion = self.assertion(key, now)?;
                vec![
                    ("grant_type", "urn:ietf:params:oauth:grant-type:jwt-bearer".to_owned()),
                    ("assertion", assertion),
                ]
            }
            Grant::Refresh { client_id, client_secret, token } => vec![
                ("grant_type", "refresh_token".to_owned()),
                ("client_id", client_id.clone()),
                ("client_secret", secret("client_secret", client_secret)?),
                ("refresh_token", secret("refresh_token", token)?),
            ],
        };
        let given = exchange(&self.url, &form, (&self.outgoing, STALE))?;
        if let (Grant::Refresh { token, .. }, Some(new)) = (&self.grant, &given.refresh_token) {
            replace(token, new)?;
        }
        let life = given.expires_in.unwrap_or(LIFE).clamp(1, 24 * HOUR) * SECOND;
        Ok(Held { token: given.access_token, renew_at: now + life / 5 * 4, until: now + life })
    }

    /// What a service account says to get a token, signed by it.
    fn assertion(&self, key: &SecretSource, now: Millis) -> Result<String, OauthError> {
        let refused =
            |why: String| OauthError::Refused(format!("the service account's key: {why}"));
        let text = secret_text("key", key).map_err(refused)?;
        let ServiceAccount { client_email, private_key } = serde_json::from_str(&text)
            // What is wrong would be shown with what is there.
            .map_err(|_| {
                refused(
                    "expected the JSON of a service account, with client_email and private_key"
                        .into(),
                )
            })?;
        let pair = pkcs8(&private_key).and_then(|der| RsaKeyPair::from_pkcs8(&der).ok());
        let pair = pair.ok_or_else(|| refused("private_key is no RSA key in PKCS#8".into()))?;
        let seconds = now.div_euclid(SECOND);
        let claims = json!({
            "iss": client_email,
            "scope": self.scope,
            "aud": self.url,
            "iat": seconds,
            "exp": seconds + HOUR,
        });
        let header = URL_SAFE_NO_PAD.encode(r#"{"alg":"RS256","typ":"JWT"}"#);
        let signed = format!("{header}.{}", URL_SAFE_NO_PAD.encode(claims.to_string()));
        let mut signature = vec![0; pair.public().modulus_len()];
        pair.sign(&RSA_PKCS1_SHA256, &SystemRandom::new(), signed.as_bytes(), &mut signature)
            .map_err(|_| OauthError::Later("the system gives no random bytes".into()))?;
        Ok(format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature)))
    }
}

/// Keeps a refresh token where it is read from.
fn replace(at: &SecretSource, token: &str) -> Result<(), OauthError> {
    let SecretSource::File(path) = at else {
        return Err(OauthError::Refused(format!(
            "the refresh token is replaced by another, and {at} cannot be written: keep it in a file"
        )));
    };
    write(path, token)
        .map_err(|error| OauthError::Later(format!("cannot write {}: {error}", path.display())))
}

/// Puts a file of its owner's in the place of what was there, whole.
pub(super) fn write(path: &Path, token: &str) -> io::Result<()> {
    let aside = aside(path);
    let written = create(&aside).and_then(|mut file| {
        writeln!(file, "{token}")?;
        file.sync_all()?;
        fs::rename(&aside, path)
    });
    if written.is_err() {
        let _ = fs::remove_file(&aside);
    }
    written?;
    File::open(folder_of(path))?.sync_all()
}

/// Tries whether a file can be written, without changing it.
pub(super) fn probe(path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    let aside = aside(path);
    create(&aside)?;
    fs::remove_file(&aside)
}

fn aside(path: &Path) -> PathBuf {
    let mut aside = path.as_os_str().to_owned();
    aside.push(".new");
    aside.into()
}

/// Makes a file anew: what a crash left there may be readable by others.
fn create(path: &Path) -> io::Result<File> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(path)
}

fn folder_of(path: &Path) -> &Path {
    path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."))
}

/// Asks an endpoint of tokens through `outgoing`; `stale` says what to do where the grant is refused.
pub(super) fn exchange(
    url: &str,
    form: &[(&str, String)],
    (outgoing, stale): (&Outgoing, &str),
) -> Result<Given, OauthError> {
    let body = url::form_urlencoded::Serializer::new(String::new()).extend_pairs(form).finish();
    let request = OutgoingRequest {
        method: "POST",
        url,
        headers: &[
            ("Content-Type", "application/x-www-form-urlencoded"),
            ("Accept", "application/json"),
        ],
        body: body.as_bytes(),
        timeout: TIMEOUT,
    };
    let answered = outgoing.call(&request);
    let answered = answered.map_err(|error| OauthError::Later(format!("{url}: {error}")))?;
    judge(url, &answered, stale)
}

/// What an answer of a token's endpoint means. Nothing of a token is repeated.
fn judge(url: &str, answered: &Answered, stale: &str) -> Result<Given, OauthError> {
    if answered.status == 200 {
        let given = serde_json::from_slice::<Given>(&answered.body).ok();
        let fits = |given: &Given| {
            let token = &given.access_token;
            !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic())
        };
        return given
            .filter(fits)
            .ok_or_else(|| OauthError::Later(format!("{url} answered without a token")));
    }
    let error = serde_json::from_slice::<serde_json::Value>(&answered.body).unwrap_or_default();
    let word = error["error"].as_str().unwrap_or_default();
    let said = format!("{url} answered {}: {}", answered.status, answered.gist());
    match (answered.status, word) {
        (_, "invalid_grant") => Err(OauthError::Refused(format!("{stale} ({said})"))),
        (_, "invalid_client" | "unauthorized_client" | "invalid_scope") | (401 | 403, _) => {
            Err(OauthError::Refused(format!("the client or the account may not do this ({said})")))
        }
        (408 | 425 | 429 | 500..=599, _) => Err(OauthError::Later(said)),
        _ => Err(OauthError::Refused(said)),
    }
}

pub(super) fn secret(setting: &str, from: &SecretSource) -> Result<String, OauthError> {
    read_secret(setting, from).map_err(OauthError::Refused)
}

/// The bytes of a key between its lines of PEM.
fn pkcs8(pem: &str) -> Option<Vec<u8>> {
    let (_, rest) = pem.split_once("-----BEGIN PRIVATE KEY-----")?;
    let (body, _) = rest.split_once("-----END PRIVATE KEY-----")?;
    let packed: String = body.split_whitespace().collect();
    STANDARD.decode(packed).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(status: u16, body: &str) -> Answered {
        Answered { status, headers: Vec::new(), body: body.as_bytes().to_vec() }
    }

    #[test]
    fn an_answer_without_a_token_says_whether_someone_has_to_act() {
        let given =
            judge("u", &answered(200, r#"{"access_token":"ya29.x","expires_in":3599}"#), STALE);
        assert_eq!(
            given.ok().map(|given| (given.access_token, given.expires_in)),
            Some(("ya29.x".into(), Some(3_599)))
        );
        for (status, body, is_refused) in [
            (200, "<html>", false),
            (200, r#"{"access_token":""}"#, false),
            (200, r#"{"access_token":"a\nb"}"#, false),
            (
                400,
                r#"{"error":"invalid_grant","error_description":"Token has been expired or revoked."}"#,
                true,
            ),
            (401, r#"{"error":"invalid_client"}"#, true),
            (403, "", true),
            (400, r#"{"error":"invalid_scope"}"#, true),
            (404, "", true),
            (429, "", false),
            (503, "", false),
        ] {
            let error = judge("u", &answered(status, body), STALE).err().unwrap();
            assert_eq!(
                matches!(error, OauthError::Refused(_)),
                is_refused,
                "{status} {body}: {error:?}"
            );
        }
    }

    #[test]
    fn a_key_that_is_none_is_told_without_what_it_is() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("key.json");
        let key = SecretSource::File(path.clone());
        let grant = Grant::ServiceAccount { key };
        let tokens = AccessTokens::new(grant, "http://127.0.0.1:1/".into(), "s", Outgoing::new());
        for text in ["", "s3cret", r#"{"client_email":"a@b","private_key":"s3cret"}"#] {
            std::fs::write(&path, text).unwrap();
            let OauthError::Refused(why) = tokens.get(0).unwrap_err() else { panic!("{text}") };
            assert!(
                why.starts_with("the service account's key: ") && !why.contains("s3cret"),
                "{why}"
            );
        }
    }

    #[test]
    fn a_token_that_is_replaced_is_its_owners_alone_and_a_variable_cannot_be() {
        use std::os::unix::fs::PermissionsExt;
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("refresh");
        std::fs::write(&path, "before").unwrap();
        // What a crash left there is readable by all.
        std::fs::write(folder.path().join("refresh.new"), "").unwrap();
        replace(&SecretSource::File(path.clone()), "after").unwrap();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "after\n");
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        probe(&path).unwrap();
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
        let error = replace(&SecretSource::Env("X".into()), "after").unwrap_err();
        assert!(matches!(error, OauthError::Refused(why) if why.contains("keep it in a file")));
    }
}
