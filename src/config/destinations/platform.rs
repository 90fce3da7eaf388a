//! What ad platforms with audiences of their own have in common.

use serde::Serialize;
use std::collections::BTreeMap;
use toml::Value;

use super::Entry;
use crate::config::Period;
use crate::config::SecretSource;
use crate::config::WebUrl;
use crate::model::time::DAY;

/// An account on an ad platform.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Platform {
    /// Where the platform answers.
    pub url: WebUrl,
    /// The account, as the platform names it.
    pub account: String,
    /// Where the token is that calls are made with.
    pub token: SecretSource,
    /// The platform's own names of audiences, by segment. Those of other segments are found or made.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub audiences: BTreeMap<String, String>,
    /// Where the secret is that calls are signed with, of a platform that has one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub secret: Option<SecretSource>,
    /// How long a member stays that is not sent again, of a platform where that ends.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ttl: Option<Period>,
    /// The version of the platform's interface, where a header says it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub version: Option<String>,
    /// Who sends, as the platform calls us.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub source: Option<String>,
}

/// What a platform's settings are where the file says nothing, and which it has beside those of all.
pub(super) struct Traits {
    pub(super) url: &'static str,
    pub(super) account: &'static str,
    pub(super) has_secret: bool,
    /// Default and most, in days.
    pub(super) ttl: Option<(i64, i64)>,
    pub(super) version: Option<&'static str>,
    pub(super) has_source: bool,
}

const KEYS: [&str; 4] = ["url", "account", "token", "audiences"];

impl Entry<'_> {
    /// The settings of a platform, if nothing is wrong with what it cannot do without.
    pub(super) fn platform(&mut self, traits: &Traits) -> Option<Platform> {
        let more = [
            ("secret", traits.has_secret),
            ("ttl", traits.ttl.is_some()),
            ("version", traits.version.is_some()),
            ("source", traits.has_source),
        ];
        let more = more.into_iter().filter(|(_, has)| *has).map(|(key, _)| key);
        let known: Vec<&str> = KEYS.into_iter().chain(more).collect();
        self.refuse_unknown(&known);
        let url = match self.text("url")? {
            None => Some(traits.url.parse().expect("an address of ours")),
            Some(_) => self.parsed("url", ""),
        };
        let account = match self.text("account")? {
            Some(account) if is_name(account) => Some(account.to_owned()),
            Some(_) => {
                self.problem("account", "expected letters, digits, `-`, `_`, `:` and `.`");
                None
            }
            None => {
                self.problem("account", &format!("missing: {}", traits.account));
                None
            }
        };
        let token = self.parsed("token", "missing: where the token is, such as env:TOKEN");
        let secret = match self.text("secret")? {
            None => Some(None),
            Some(_) => self.parsed("secret", "").map(Some),
        };
        let (audiences, ttl) = (self.audiences(), self.ttl(traits));
        let text = |value: Option<&str>| value.map(str::to_owned);
        Some(Platform {
            version: text(self.text("version")?.or(traits.version)),
            source: text(self.text("source")?),
            url: url?,
            account: account?,
            token: token?,
            secret: secret?,
            audiences: audiences?,
            ttl: ttl?,
        })
    }

    fn ttl(&mut self, traits: &Traits) -> Option<Option<Period>> {
        let Some((default, most)) = traits.ttl else { return Some(None) };
        let Some(text) = self.text("ttl")? else { return Some(Some(Period(default * DAY))) };
        match text.parse::<Period>() {
            Ok(ttl) if (2 * DAY..=most * DAY).contains(&ttl.0) => return Some(Some(ttl)),
            _ => self.problem("ttl", &format!("expected a time from 2d to {most}d")),
        }
        None
    }

    pub(super) fn audiences(&mut self) -> Option<BTreeMap<String, String>> {
        let Some(value) = self.table.get("audiences") else { return Some(BTreeMap::new()) };
        let expected =
            "expected the platform's id for each segment, such as { buyers = \"238571\" }";
        let Value::Table(table) = value else {
            self.problem("audiences", expected);
            return None;
        };
        let mut audiences = BTreeMap::new();
        for (segment, id) in table {
            match id.as_str().filter(|id| is_name(id)) {
                Some(id) if audiences.values().any(|known| known == id) => {
                    let what =
                        format!("two segments go to {id}, and would remove each other's members");
                    self.problem("audiences", &what);
                    return None;
                }
                Some(id) => _ = audiences.insert(segment.clone(), id.to_owned()),
                None => {
                    self.problem("audiences", expected);
                    return None;
                }
            }
        }
        Some(audiences)
    }
}

/// Whether a text can stand in an address as it is.
fn is_name(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_:.".contains(&byte);
    (1..=128).contains(&text.len()) && text.bytes().all(fits) && text.bytes().any(|b| b != b'.')
}
