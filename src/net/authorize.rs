//! The authorization code of OAuth 2.0 for a program on somebody's machine (RFC 8252), with PKCE (RFC 7636): from the address that
//! is opened in a browser to the refresh token in its file.
//!
//! Nothing listens here: what a browser was sent back with is given to [`Authorization::hear`].

use std::path::PathBuf;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::Digest;
use sha2::Sha256;
use subtle::ConstantTimeEq;
use url::Url;
use url::form_urlencoded;

use super::OauthError;
use super::Outgoing;
use super::oauth::exchange;
use super::oauth::probe;
use super::oauth::secret;
use super::oauth::write;
use crate::config::SecretSource;

/// Random bytes of a `state` and of a verifier: RFC 7636 wants 32 of the latter.
const RANDOM: usize = 32;
/// No code is longer; Google's have some 70 characters.
const LONGEST_CODE: usize = 4 << 10;
/// So much is repeated of what a browser brings.
const SHOWN: usize = 200;

/// Who asks somebody for a refresh token.
#[derive(Debug, Clone)]
pub struct InstalledApp {
    /// The page where somebody agrees.
    pub auth_url: String,
    /// Where the code is exchanged.
    pub token_url: String,
    /// What is asked for.
    pub scope: &'static str,
    /// What the page wants beside that.
    pub more: &'static [(&'static str, &'static str)],
    /// The client that the token is given to.
    pub client_id: String,
    /// Where its secret is.
    pub client_secret: SecretSource,
    /// The file that the refresh token is written to.
    pub file: PathBuf,
    /// Whether the code may be exchanged in a private network.
    pub allow_private: bool,
}

/// One request for a refresh token. What it is recognised by is its own and never shown.
pub struct Authorization {
    app: InstalledApp,
    redirect_uri: String,
    state: String,
    verifier: String,
}

/// What a browser was sent back with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Heard {
    /// It is no answer to this request: why.
    NotOurs(&'static str),
    /// Somebody agreed: the code.
    Code(String),
    /// It came to nothing: why, and what to do.
    Refused(String),
}

impl Authorization {
    /// Makes a request, once it is sure that the answer can be used: the client's secret can be read and the file be written.
    pub fn begin(app: InstalledApp, redirect_uri: String) -> Result<Self, OauthError> {
        secret("client_secret", &app.client_secret)?;
        probe(&app.file).map_err(|error| {
            OauthError::Refused(format!(
                "cannot write {}: {error}; run this as the user that the server runs as, and make the folder where there is none",
                app.file.display()
            ))
        })?;
        Ok(Self { app, redirect_uri, state: random()?, verifier: random()? })
    }

    /// The address that somebody opens in a browser.
    pub fn url(&self) -> Result<String, OauthError> {
        let mut url = Url::parse(&self.app.auth_url)
            .map_err(|error| OauthError::Refused(format!("auth_url: {error}")))?;
        let challenge = URL_SAFE_NO_PAD.encode(Sha256::digest(&self.verifier));
        url.query_pairs_mut()
            .append_pair("response_type", "code")
            .append_pair("client_id", &self.app.client_id)
            .append_pair("redirect_uri", &self.redirect_uri)
            .append_pair("scope", self.app.scope)
            .append_pair("state", &self.state)
            .append_pair("code_challenge", &challenge)
            .append_pair("code_challenge_method", "S256")
            .extend_pairs(self.app.more);
        Ok(url.into())
    }

    /// What a query that came to the redirect address says. Pure.
    pub fn hear(&self, query: &str) -> Heard {
        let pairs: Vec<_> = form_urlencoded::parse(query.as_bytes()).collect();
        let one = |name: &str| {
            let mut values = pairs.iter().filter(|(key, _)| key == name).map(|(_, value)| &**value);
            (values.next(), values.next().is_some())
        };
        let (state, code, error) = (one("state"), one("code"), one("error"));
        if state.1 || code.1 || error.1 {
            return Heard::NotOurs("a parameter is there twice");
        }
        let Some(state) = state.0 else {
            return Heard::NotOurs("it has no `state`");
        };
        if !bool::from(state.as_bytes().ct_eq(self.state.as_bytes())) {
            return Heard::NotOurs("its `state` is not the one that was sent");
        }
        match (error.0, code.0) {
            (Some("access_denied"), _) => Heard::Refused(
                "access was not granted: run the command again, and agree, as somebody who may use the account; of an app that is in \
                 testing only its test users may"
                    .into(),
            ),
            (Some(error), _) => {
                let described = one("error_description").0.unwrap_or_default();
                Heard::Refused(format!(
                    "the page said {}: see what the client may ask for, and run the command again",
                    shown(&[error, described].join(" "))
                ))
            }
            (None, Some(code)) if is_token(code) && code.len() <= LONGEST_CODE => {
                Heard::Code(code.to_owned())
            }
            (None, _) => Heard::Refused(
                "the page sent neither a code nor an error: see whether `auth_url` is right, and run the command again".into(),
            ),
        }
    }

    /// Exchanges a code, and writes the refresh token to its file.
    pub fn redeem(&self, code: &str, outgoing: &Outgoing) -> Result<(), OauthError> {
        let outgoing = &outgoing.allowing_private(self.app.allow_private);
        let app = &self.app;
        let form = [
            ("grant_type", "authorization_code".to_owned()),
            ("code", code.to_owned()),
            ("redirect_uri", self.redirect_uri.clone()),
            ("client_id", app.client_id.clone()),
            ("client_secret", secret("client_secret", &app.client_secret)?),
            ("code_verifier", self.verifier.clone()),
        ];
        let stale = "the code is refused, as one is that is too old or was used: run the command again, and agree within a few \
                     minutes";
        let given = exchange(&app.token_url, &form, (outgoing, stale))?;
        if let Some(scope) = &given.scope
            && !scope.split(' ').any(|scope| scope == app.scope)
        {
            return Err(OauthError::Refused(format!(
                "{} was not among what was agreed to: run the command again, and leave it ticked",
                app.scope
            )));
        }
        let token = given.refresh_token.filter(|token| is_token(token)).ok_or_else(|| {
            OauthError::Refused(format!(
                "{} answered without a refresh token: take the access that the account gave the client back (Google: \
                 https://myaccount.google.com/permissions), see that the client is one for desktop apps, and run the command again",
                app.token_url
            ))
        })?;
        write(&app.file, &token).map_err(|error| {
            let file = app.file.display();
            OauthError::Refused(format!(
                "cannot write {file}: {error}; run the command again once it can be"
            ))
        })
    }
}

fn random() -> Result<String, OauthError> {
    let mut bytes = [0; RANDOM];
    getrandom::fill(&mut bytes)
        .map_err(|_| OauthError::Later("the system gives no random bytes".into()))?;
    Ok(URL_SAFE_NO_PAD.encode(bytes))
}

/// Whether a text can be a code or a token.
fn is_token(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic())
}

/// The beginning of a text that anybody may have written, for a terminal.
fn shown(text: &str) -> String {
    text.trim().chars().filter(|c| !c.is_control()).take(SHOWN).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn app(folder: &tempfile::TempDir) -> InstalledApp {
        let secret = folder.path().join("secret");
        std::fs::write(&secret, "s\n").unwrap();
        InstalledApp {
            auth_url: "https://a.example/auth?hl=en".into(),
            token_url: "http://127.0.0.1:1/token".into(),
            scope: "https://a.example/scope",
            more: &[("access_type", "offline")],
            client_id: "a client".into(),
            client_secret: SecretSource::File(secret),
            allow_private: true,
            file: folder.path().join("refresh"),
        }
    }

    fn begin(folder: &tempfile::TempDir) -> Authorization {
        Authorization::begin(app(folder), "http://127.0.0.1:9/".into()).ok().unwrap()
    }

    fn parameters(url: &str) -> BTreeMap<String, String> {
        Url::parse(url).unwrap().query_pairs().into_owned().collect()
    }

    #[test]
    fn an_address_holds_a_challenge_and_never_what_answers_it() {
        let folder = tempfile::tempdir().unwrap();
        let mut authorization = begin(&folder);
        // RFC 7636, appendix B.
        authorization.verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk".into();
        let url = authorization.url().unwrap();
        let asked = parameters(&url);
        assert_eq!(asked["code_challenge"], "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM");
        for (name, value) in [
            ("hl", "en"),
            ("response_type", "code"),
            ("client_id", "a client"),
            ("redirect_uri", "http://127.0.0.1:9/"),
            ("scope", "https://a.example/scope"),
            ("code_challenge_method", "S256"),
            ("access_type", "offline"),
        ] {
            assert_eq!(asked[name], value);
        }
        assert_eq!(asked.len(), 9, "{url}");
        assert!(!url.contains(&authorization.verifier));
        let other = begin(&folder);
        assert!(other.state.len() == 43 && other.state != authorization.state);
        assert!(other.verifier.len() == 43 && other.verifier != other.state);
    }

    #[test]
    fn only_what_has_the_state_is_an_answer() {
        let folder = tempfile::tempdir().unwrap();
        let authorization = begin(&folder);
        let state = &authorization.state;
        for query in [
            String::new(),
            "code=x".into(),
            "code=x&state=".into(),
            format!("code=x&state={}", &state[1..]),
            format!("code=x&state={state}x"),
            "error=access_denied".into(),
            "error=access_denied&state=other".into(),
            format!("code=x&state=other&state={state}"),
            format!("code=x&code=y&state={state}"),
            format!("code=x&State={state}"),
        ] {
            assert!(matches!(authorization.hear(&query), Heard::NotOurs(_)), "{query}");
        }
        let heard = authorization.hear(&format!("state={state}&code=4%2F0A&scope=x"));
        assert_eq!(heard, Heard::Code("4/0A".into()));
        for (query, part) in [
            ("error=access_denied&code=x", "was not granted"),
            ("error=invalid_scope&error_description=No%1B%5B2Jsuch", "invalid_scope No[2Jsuch"),
            ("", "neither a code nor an error"),
            ("code=", "neither a code nor an error"),
            ("code=a%0Ab", "neither a code nor an error"),
        ] {
            let heard = authorization.hear(&format!("state={state}&{query}"));
            let Heard::Refused(why) = heard else { panic!("{query}: {heard:?}") };
            assert!(why.contains(part) && why.contains("run the command again"), "{why}");
        }
        let long = format!("state={state}&code={}", "x".repeat(LONGEST_CODE + 1));
        assert!(matches!(authorization.hear(&long), Heard::Refused(_)));
    }

    #[test]
    fn what_the_answer_could_not_be_used_for_is_told_before_anybody_is_asked() {
        let folder = tempfile::tempdir().unwrap();
        let begin = |app| match Authorization::begin(app, "http://127.0.0.1:9/".into()) {
            Err(OauthError::Refused(why)) => why,
            _ => panic!(),
        };
        let client_secret = SecretSource::Env("THRONG_NO_SUCH".into());
        let why = begin(InstalledApp { client_secret, ..app(&folder) });
        assert!(why.contains("THRONG_NO_SUCH is not set"), "{why}");
        let file = folder.path().join("no/such/refresh");
        let why = begin(InstalledApp { file, ..app(&folder) });
        assert!(why.contains("no/such/refresh: ") && why.contains("make the folder"), "{why}");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "the secret alone");
    }
}
