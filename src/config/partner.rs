//! Partners whose ids of browsers are matched with ours.

use serde::Deserialize;
use serde::Serialize;
use std::collections::BTreeMap;

use super::Period;
use crate::model::Millis;
use crate::model::Namespace;
use crate::model::time::DAY;

/// A partner that cookies are synced with.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Partner {
    /// Its name in `/sync/NAME` and `/match/NAME`.
    pub name: String,
    /// Whose address it is. Default `generic`.
    #[serde(default)]
    pub kind: PartnerKind,
    /// The namespace of its ids. Default the partner's own: `xandr`, `google`, `ttd`, or the name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub namespace: Option<String>,
    /// Who we are there: `google_nid` of Google, `ttd_pid` of The Trade Desk.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub account: Option<String>,
    /// Of `generic`, where browsers are sent, with macros; no browser is sent anywhere without it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// Of `xandr`, and for `{here}`: the address under which browsers reach this listener.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub here: Option<String>,
    /// A browser is sent there once within so long. Default `14d`.
    #[serde(default = "every")]
    pub every: Period,
    /// Its id of a browser counts for so long after it was last matched. Default `30d`, or twice `every` where that is more.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ttl: Option<Period>,
}

/// Whose address a partner's is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PartnerKind {
    /// Whatever `url` says.
    #[default]
    Generic,
    /// Xandr's `getuid`.
    Xandr,
    /// Google's cookie matching.
    Google,
    /// The Trade Desk's generic cookie sync.
    TradeDesk,
}

fn every() -> Period {
    Period(14 * DAY)
}

/// For how long an id that was matched counts, in milliseconds, where nothing else is stated: as long as The Trade Desk
/// keeps a member by default, since no partner says for how long an id of its own holds.
pub const LIFETIME: Millis = 30 * DAY;

/// What may stand in a partner's address.
pub const MACROS: [&str; 10] = [
    "id",
    "id_base64",
    "site",
    "here",
    "gdpr",
    "gdpr_consent",
    "gpp",
    "gpp_sid",
    "us_privacy",
    "cb",
];

impl Partner {
    /// Where browsers are sent, with macros.
    pub fn template(&self) -> Option<String> {
        let account = self.account.as_deref().unwrap_or_default();
        match self.kind {
            PartnerKind::Generic => self.url.clone(),
            // It sends the browser back to the address that it is given, with the id in the place of `$UID`.
            PartnerKind::Xandr => Some(
                "https://ib.adnxs.com/getuid?{here}%2Fmatch%2FNAME%3Fs%3D{site}%26gdpr%3D{gdpr}%26gdpr_consent%3D{gdpr_consent}\
                 %26uid%3D%24UID&gdpr={gdpr}&gdpr_consent={gdpr_consent}"
                    .replace("NAME", &self.name),
            ),
            PartnerKind::Google => Some(format!(
                "https://cm.g.doubleclick.net/pixel?google_nid={account}&google_cm&google_hm={{id_base64}}\
                 &gdpr={{gdpr}}&gdpr_consent={{gdpr_consent}}"
            )),
            PartnerKind::TradeDesk => Some(format!(
                "https://match.adsrvr.org/track/cmf/generic?ttd_pid={account}&ttd_tpi=1&ttd_puid={{id}}\
                 &gdpr={{gdpr}}&gdpr_consent={{gdpr_consent}}"
            )),
        }
    }

    /// The namespace of its ids.
    pub fn namespace(&self) -> &str {
        let own = match self.kind {
            PartnerKind::Generic => self.name.as_str(),
            PartnerKind::Xandr => "xandr",
            PartnerKind::Google => "google",
            PartnerKind::TradeDesk => "ttd",
        };
        self.namespace.as_deref().unwrap_or(own)
    }

    /// For how long an id counts after it was last matched.
    pub fn lifetime(&self) -> Period {
        self.ttl.unwrap_or(Period(LIFETIME.max(self.every.0.saturating_mul(2))))
    }

    /// The parameter in which it brings its id.
    pub fn parameter(&self) -> &'static str {
        if self.kind == PartnerKind::Google { "google_gid" } else { "uid" }
    }
}

/// How long ids of partners count after they were last matched, by namespace: the longest of those that share one.
pub fn lifetimes(partners: &[Partner]) -> BTreeMap<String, Millis> {
    let mut lifetimes = BTreeMap::new();
    for partner in partners {
        let lifetime: &mut Millis = lifetimes.entry(partner.namespace().to_owned()).or_default();
        *lifetime = partner.lifetime().0.max(*lifetime);
    }
    lifetimes
}

pub(super) fn problems(partners: &[Partner], problems: &mut Vec<String>) {
    for (at, partner) in partners.iter().enumerate() {
        let mut told = |key: &str, what: &str| {
            problems.push(format!("partner[{at}].{key}: {what}"));
        };
        let fits = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b"-_".contains(&b);
        if !(1..=32).contains(&partner.name.len()) || !partner.name.bytes().all(fits) {
            told("name", "expected 1 to 32 lower-case letters, digits, `-` or `_`");
        }
        if partners[..at].iter().any(|other| other.name == partner.name) {
            told("name", &format!("{:?} is used twice", partner.name));
        }
        if Namespace::new(partner.namespace()).is_err() {
            told(
                "namespace",
                "expected a lower-case letter, then letters, digits or `_`, at most 32",
            );
        }
        if !(DAY..=365 * DAY).contains(&partner.every.0) {
            told("every", "expected 1d to 365d");
        }
        if partner.ttl.is_some_and(|ttl| ttl.0 <= partner.every.0 || ttl.0 > 730 * DAY) {
            let what = "expected more than `every`, at most 730d: else ids expire before they are matched again";
            told("ttl", what);
        }
        let is_account = |text: &String| {
            (1..=64).contains(&text.len())
                && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"-_.".contains(&b))
        };
        let wants_account = matches!(partner.kind, PartnerKind::Google | PartnerKind::TradeDesk);
        if wants_account && !partner.account.as_ref().is_some_and(is_account) {
            told("account", "expected who you are there: letters, digits, `-`, `_` or `.`");
        }
        if partner.kind != PartnerKind::Generic && partner.url.is_some() {
            told("url", "it is for kind = \"generic\"");
        }
        let template = partner.template().unwrap_or_default();
        if template.contains("{here}") && partner.here.is_none() {
            told(
                "here",
                "missing: where browsers reach this listener, such as https://t.shop.example",
            );
        }
        let is_origin = |here: &String| {
            let host = here.strip_prefix("https://").or(here.strip_prefix("http://"));
            let fits = |b: u8| b.is_ascii_alphanumeric() || b"-.:[]".contains(&b);
            host.is_some_and(|host| !host.is_empty() && host.bytes().all(fits))
        };
        if partner.here.as_ref().is_some_and(|here| !is_origin(here)) {
            told("here", "expected an origin, such as https://t.shop.example");
        }
        if let Some(url) = &partner.url {
            if !url.starts_with("https://")
                || url.len() > 2_048
                || !url.bytes().all(|b| b.is_ascii_graphic())
            {
                told("url", "expected an address that begins with https://");
            }
            let host = url.trim_start_matches("https://");
            if host[..host.find(['/', '?', '#']).unwrap_or(host.len())].contains(['{', '}', '@']) {
                told("url", "no macro and no name of a user may stand in the host");
            }
            for name in url.split('{').skip(1) {
                let name = name.split_once('}').map(|(name, _)| name);
                if !name.is_some_and(|name| MACROS.contains(&name)) {
                    let known = MACROS.map(|name| format!("{{{name}}}")).join(", ");
                    told("url", &format!("an unknown macro; there are {known}"));
                }
            }
        }
    }
}
