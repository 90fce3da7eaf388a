//! The page where somebody agrees, and the exchange of codes, as RFC 6749, RFC 7636 and Google's guide for installed apps have
//! them. Codes are good once, for the client, the address and the verifier that they were asked with.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::Value;
use serde_json::json;
use sha2::Digest;
use sha2::Sha256;
use std::collections::BTreeMap;
use url::Url;
use url::form_urlencoded;

use super::Reply;

/// What the page wants, and no more.
const ASKED: [&str; 9] = [
    "access_type",
    "client_id",
    "code_challenge",
    "code_challenge_method",
    "prompt",
    "redirect_uri",
    "response_type",
    "scope",
    "state",
];

/// What somebody does who is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Choice {
    /// Agrees.
    #[default]
    Agree,
    /// Does not.
    Deny,
    /// Agrees, and leaves what is asked for unticked.
    Untick,
    /// Agrees, and gets no refresh token.
    AgreeOnline,
    /// Agrees, and comes back when the code is too old.
    AgreeLate,
}

/// One page.
#[derive(Default)]
pub(crate) struct Consent {
    pub(crate) choice: Choice,
    codes: BTreeMap<String, Code>,
    made: u32,
}

struct Code {
    asked: BTreeMap<String, String>,
    choice: Choice,
    is_used: bool,
}

impl Consent {
    /// `GET` of the page: what is wrong with the request, or the way back.
    pub(crate) fn ask(&mut self, scope: &str, client: &str, path: &str) -> Result<Reply, String> {
        let (_, query) = path.split_once('?').ok_or("nothing is asked")?;
        let pairs: Vec<(String, String)> =
            form_urlencoded::parse(query.as_bytes()).into_owned().collect();
        let asked: BTreeMap<String, String> = pairs.iter().cloned().collect();
        let names: Vec<&str> = asked.keys().map(String::as_str).collect();
        if names != ASKED || pairs.len() != ASKED.len() {
            return Err(format!("asked with {names:?}"));
        }
        for (name, wanted) in [
            ("access_type", "offline"),
            ("client_id", client),
            ("code_challenge_method", "S256"),
            ("prompt", "consent"),
            ("response_type", "code"),
            ("scope", scope),
        ] {
            if asked[name] != wanted {
                return Err(format!("{name} is {}", asked[name]));
            }
        }
        let is_hash = URL_SAFE_NO_PAD.decode(&asked["code_challenge"]).is_ok_and(|b| b.len() == 32);
        if !is_hash || asked["state"].len() < 22 {
            return Err("a challenge or a state that can be guessed".into());
        }
        let mut back = Url::parse(&asked["redirect_uri"]).map_err(|error| error.to_string())?;
        let is_loopback = back.scheme() == "http"
            && back.host_str() == Some("127.0.0.1")
            && back.port().is_some()
            && back.query().is_none();
        if !is_loopback {
            return Err(format!("redirect_uri_mismatch: {back}"));
        }
        let state = asked["state"].clone();
        if self.choice == Choice::Deny {
            back.query_pairs_mut()
                .append_pair("error", "access_denied")
                .append_pair("state", &state);
            return Ok(Reply::new(302, "").with("Location", back.as_str()));
        }
        self.made += 1;
        let code = format!("4/0A-{}", self.made);
        back.query_pairs_mut()
            .append_pair("state", &state)
            .append_pair("code", &code)
            .append_pair("scope", scope);
        self.codes.insert(code, Code { asked, choice: self.choice, is_used: false });
        Ok(Reply::new(302, "").with("Location", back.as_str()))
    }

    /// `grant_type=authorization_code`: what the answer has beside the access token, and whether a refresh token is among it; else
    /// the error that is told, and what was against the contract, where something was.
    pub(crate) fn redeem(
        &mut self,
        form: &BTreeMap<String, String>,
    ) -> Result<(Value, bool), (&'static str, Option<String>)> {
        let text = |name: &str| form.get(name).map(String::as_str).unwrap_or_default();
        let names: Vec<&str> = form.keys().map(String::as_str).collect();
        let wanted =
            ["client_id", "client_secret", "code", "code_verifier", "grant_type", "redirect_uri"];
        if names != wanted {
            return Err(("invalid_request", Some(format!("exchanged with {names:?}"))));
        }
        let Some(code) = self.codes.get_mut(text("code")) else {
            return Err(("invalid_grant", Some("a code that was not given".into())));
        };
        if std::mem::replace(&mut code.is_used, true) {
            return Err(("invalid_grant", Some("a code was used twice".into())));
        }
        let verifier = text("code_verifier");
        let is_verifier = (43..=128).contains(&verifier.len())
            && verifier.bytes().all(|b| b.is_ascii_alphanumeric() || b"-._~".contains(&b));
        let challenge = URL_SAFE_NO_PAD.encode(Sha256::digest(verifier));
        for (what, is_well) in [
            ("the verifier", is_verifier && challenge == code.asked["code_challenge"]),
            ("redirect_uri", text("redirect_uri") == code.asked["redirect_uri"]),
            ("client_id", text("client_id") == code.asked["client_id"]),
        ] {
            if !is_well {
                return Err((
                    "invalid_grant",
                    Some(format!("{what} is not the one it was asked with")),
                ));
            }
        }
        let scope = match code.choice {
            Choice::AgreeLate => return Err(("invalid_grant", None)),
            Choice::Untick => "openid",
            _ => &code.asked["scope"],
        };
        Ok((json!({ "scope": scope }), code.choice != Choice::AgreeOnline))
    }
}
