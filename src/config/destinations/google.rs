//! User lists of Google, by the Data Manager API.

use serde::Serialize;
use std::collections::BTreeMap;

use super::Entry;
use crate::config::Period;
use crate::config::SecretSource;
use crate::config::WebUrl;
use crate::model::time::DAY;
use crate::model::time::MINUTE;
use crate::model::time::SECOND;

/// An account whose user lists are kept.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Google {
    /// Where the API answers.
    pub url: WebUrl,
    /// The account that the lists are of.
    pub account: String,
    /// What kind of account that is. Default `GOOGLE_ADS`.
    pub account_type: String,
    /// The account that has access to it, where that is another, of the same kind.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub login_account: Option<String>,
    /// What members of a list are known by: a list takes one kind.
    pub members: GoogleMembers,
    /// The app that device ids are of, for lists of devices.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub app: Option<String>,
    /// The platform's own ids of lists, by segment. Those of other segments are found or made.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub audiences: BTreeMap<String, String>,
    /// What access tokens are made from.
    #[serde(flatten)]
    pub grant: GoogleGrant,
    /// Where they are asked for.
    pub token_url: WebUrl,
    /// The page where a refresh token is agreed to.
    pub auth_url: WebUrl,
    /// Whether all who are sent have agreed to data about them being used for ads; not said where `None`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ad_user_data: Option<bool>,
    /// Whether they have agreed to ads being made for them; not said where `None`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ad_personalization: Option<bool>,
    /// Whether the terms of Customer Match were accepted by who has the account.
    pub terms_accepted: bool,
    /// How long a member stays that is not sent again, at most 540 days.
    pub ttl: Period,
    /// So long after a request was taken it is first asked what became of it. Default 30 minutes.
    pub poll: Period,
}

/// What members of a list are known by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum GoogleMembers {
    /// Hashes of e-mail addresses and phone numbers.
    Contact,
    /// Advertising ids of iOS.
    Idfa,
    /// Advertising ids of Android.
    Gaid,
    /// Ids of the advertiser's own.
    User,
}

/// What access tokens are made from.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(untagged)]
pub enum GoogleGrant {
    /// The key of a service account.
    Key {
        /// Where its JSON is.
        key: SecretSource,
    },
    /// A refresh token of a user's.
    Refresh {
        /// The client that it was given to.
        client_id: String,
        /// Where that one's secret is.
        client_secret: SecretSource,
        /// Where the token is.
        refresh_token: SecretSource,
    },
}

const KEYS: [&str; 18] = [
    "url",
    "account",
    "account_type",
    "login_account",
    "members",
    "app",
    "audiences",
    "key",
    "client_id",
    "client_secret",
    "refresh_token",
    "token_url",
    "auth_url",
    "ad_user_data",
    "ad_personalization",
    "terms_accepted",
    "ttl",
    "poll",
];
const TYPES: [&str; 8] = [
    "GOOGLE_ADS",
    "DISPLAY_VIDEO_PARTNER",
    "DISPLAY_VIDEO_ADVERTISER",
    "DATA_PARTNER",
    "GOOGLE_ANALYTICS_PROPERTY",
    "GOOGLE_AD_MANAGER_AUDIENCE_LINK",
    "FLOODLIGHT_CONFIG",
    "GOOGLE_AD_MANAGER",
];
const URL: &str = "https://datamanager.googleapis.com/v1";
pub(super) const TOKEN_URL: &str = "https://oauth2.googleapis.com/token";
pub(super) const AUTH_URL: &str = "https://accounts.google.com/o/oauth2/v2/auth";
const TTL: i64 = 540 * DAY;

impl Entry<'_> {
    pub(super) fn google(&mut self) -> Option<Google> {
        self.refuse_unknown(&KEYS);
        let url = self.url_or("url", URL);
        let token_url = self.url_or("token_url", TOKEN_URL);
        let auth_url = self.url_or("auth_url", AUTH_URL);
        let account = self.number("account", "missing: the account's number");
        let login_account = match self.text("login_account")? {
            None => Some(None),
            Some(_) => self.number("login_account", "").map(Some),
        };
        let account_type = self.text("account_type")?.unwrap_or(TYPES[0]).to_owned();
        if !TYPES.contains(&account_type.as_str()) {
            self.problem("account_type", &format!("expected one of {}", TYPES.join(", ")));
        }
        let members = match self.text("members")? {
            None | Some("contact") => Some(GoogleMembers::Contact),
            Some("idfa") => Some(GoogleMembers::Idfa),
            Some("gaid") => Some(GoogleMembers::Gaid),
            Some("user") => Some(GoogleMembers::User),
            Some(_) => {
                self.problem("members", "expected \"contact\", \"idfa\", \"gaid\" or \"user\"");
                None
            }
        };
        let app = self.text("app")?.map(str::to_owned);
        let is_device = matches!(members, Some(GoogleMembers::Idfa | GoogleMembers::Gaid));
        if is_device && app.as_ref().is_none_or(String::is_empty) {
            self.problem("app", "missing: the app that device ids are of, as its store names it");
        }
        let terms_accepted = self.flag("terms_accepted");
        if members == Some(GoogleMembers::Contact) && terms_accepted != Some(Some(true)) {
            self.problem(
                "terms_accepted",
                "expected true, once the terms of Customer Match are accepted in the account",
            );
        }
        let (ad_user_data, ad_personalization) =
            (self.flag("ad_user_data"), self.flag("ad_personalization"));
        let ttl = self.period("ttl", TTL, (DAY, TTL), "whole days, up to 540d");
        let ttl = ttl.filter(|ttl| ttl.0 % DAY == 0).or_else(|| {
            self.problem("ttl", "expected whole days, up to 540d");
            None
        });
        let poll = self.period("poll", 30 * MINUTE, (SECOND, DAY), "a time from 1s to 1d");
        let (grant, audiences) = (self.grant(), self.audiences());
        Some(Google {
            url: url?,
            account: account?,
            account_type,
            login_account: login_account?,
            members: members?,
            app,
            audiences: audiences?,
            grant: grant?,
            token_url: token_url?,
            auth_url: auth_url?,
            ad_user_data: ad_user_data?,
            ad_personalization: ad_personalization?,
            terms_accepted: terms_accepted?.unwrap_or(false),
            ttl: ttl?,
            poll: poll?,
        })
    }

    pub(super) fn grant(&mut self) -> Option<GoogleGrant> {
        match (self.text("key")?, self.text("refresh_token")?) {
            (Some(_), None) => Some(GoogleGrant::Key { key: self.parsed("key", "")? }),
            (None, Some(_)) => {
                let client_id = self.text("client_id")?.map(str::to_owned);
                if client_id.is_none() {
                    self.problem(
                        "client_id",
                        "missing: the client that the refresh token was given to",
                    );
                }
                let secret = self.parsed("client_secret", "missing: where the client's secret is");
                let refresh_token = self.parsed("refresh_token", "");
                Some(GoogleGrant::Refresh {
                    client_id: client_id?,
                    client_secret: secret?,
                    refresh_token: refresh_token?,
                })
            }
            _ => {
                self.problem(
                    "key",
                    "expected where the key of a service account is, or instead of it refresh_token, client_id and \
                     client_secret",
                );
                None
            }
        }
    }

    pub(super) fn number(&mut self, key: &str, missing: &str) -> Option<String> {
        match self.text(key)? {
            Some(text)
                if (1..=20).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit()) =>
            {
                return Some(text.to_owned());
            }
            Some(_) => {
                self.problem(key, "expected the digits of an account's number, without dashes")
            }
            None => self.problem(key, missing),
        }
        None
    }

    pub(super) fn url_or(&mut self, key: &str, default: &str) -> Option<WebUrl> {
        match self.text(key)? {
            None => Some(default.parse().expect("an address of ours")),
            Some(_) => self.parsed(key, ""),
        }
    }

    pub(super) fn period(
        &mut self,
        key: &str,
        default: i64,
        (least, most): (i64, i64),
        expected: &str,
    ) -> Option<Period> {
        let Some(text) = self.text(key)? else { return Some(Period(default)) };
        match text.parse::<Period>() {
            Ok(period) if (least..=most).contains(&period.0) => return Some(period),
            _ => self.problem(key, &format!("expected {expected}")),
        }
        None
    }

    fn flag(&mut self, key: &str) -> Option<Option<bool>> {
        let value = self.table.get(key);
        let flag = value.map(toml::Value::as_bool);
        if flag == Some(None) {
            self.problem(key, "expected true or false");
            return None;
        }
        Some(flag.flatten())
    }
}
