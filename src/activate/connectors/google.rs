//! `kind = "google"`: user lists of Google Ads, Display & Video 360 and Ad Manager, by the Data Manager API.
//!
//! ```text
//! GET  /accountTypes/<type>/accounts/<account>/userLists     finds one by its name
//! POST /accountTypes/<type>/accounts/<account>/userLists     makes one
//! POST /audienceMembers:ingest, /audienceMembers:remove      {"requestId":"…"}
//! GET  /requestStatus:retrieve?requestId=…                   half an hour later: what became of it
//! ```
//! A list takes one kind of identifier, and a member is one of them. What is taken has no verdict for half an hour. A request
//! in which one line is wrong is refused whole, so halves of it are sent until the line is found.
//!
//! Written from the published discovery document of revision 20261106, and verified against a stand-in that its official client
//! was tried on; it never met the platform itself.

use jiff::tz::Offset;
use percent_encoding::NON_ALPHANUMERIC;
use percent_encoding::utf8_percent_encode;
use serde::Deserialize;
use serde::Serialize;
use serde_json::Value;
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;

use super::fit;
use super::http;
use crate::activate::connector::Caps;
use crate::activate::connector::Connector;
use crate::activate::connector::Encoded;
use crate::activate::connector::Found;
use crate::activate::connector::Place;
use crate::activate::connector::Verdict;
use crate::config::Google;
use crate::config::GoogleGrant;
use crate::config::GoogleMembers;
use crate::model::Identifier;
use crate::model::Millis;
use crate::model::time::DAY;
use crate::model::time::HOUR;
use crate::model::time::MINUTE;
use crate::model::time::SECOND;
use crate::net::AccessTokens;
use crate::net::Answered;
use crate::net::Grant;
use crate::net::Limit;
use crate::net::OauthError;
use crate::net::Outgoing;
use crate::net::OutgoingRequest;
use crate::net::Pace;
use crate::store::ledger::Batch;
use crate::store::ledger::Job;
use crate::store::ledger::Refusal;

/// How often a project may call.
const LIMITS: &[Limit] = &[Limit::a_minute(300)];
const MAX_ROWS: usize = 10_000;
/// With fewer members a list is not used.
const MIN_SIZE: u64 = 100;
/// What tokens are asked for.
pub(super) const SCOPE: &str = "https://www.googleapis.com/auth/datamanager";
const TIMEOUT: Duration = Duration::from_secs(60);
/// What is not done by then is not asked for more often than this.
const LONGEST_POLL: Millis = 2 * HOUR;
/// So many pages of lists are looked through.
const PAGES: usize = 200;
/// The longest id that a user may have.
const MAX_USER_ID: usize = 128;
/// The day of quotas begins at midnight there; summer is left out, which waits an hour too long at most.
const PACIFIC: i8 = -8;

/// Keeps user lists of one account.
pub struct GoogleConnector {
    settings: Google,
    outgoing: Outgoing,
    pace: Arc<Pace>,
    tokens: AccessTokens,
    caps: Caps,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Body<'a> {
    destinations: [Value; 1],
    #[serde(skip_serializing_if = "Option::is_none")]
    consent: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    encoding: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    terms_of_service: Option<Value>,
    audience_members: Vec<Member<'a>>,
}

/// One identifier, in the form of its kind.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
#[expect(clippy::enum_variant_names, reason = "they are the names of fields")]
enum Member<'a> {
    #[serde(rename_all = "camelCase")]
    UserData { user_identifiers: [UserIdentifier<'a>; 1] },
    #[serde(rename_all = "camelCase")]
    MobileData { mobile_ids: [&'a str; 1] },
    #[serde(rename_all = "camelCase")]
    UserIdData { user_id: &'a str },
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
enum UserIdentifier<'a> {
    EmailAddress(&'a str),
    PhoneNumber(&'a str),
}

/// `google.rpc.Status`.
#[derive(Default, Deserialize)]
struct Failed {
    #[serde(default)]
    error: Status,
}

#[derive(Default, Deserialize)]
struct Status {
    #[serde(default)]
    status: String,
    #[serde(default)]
    message: String,
    #[serde(default)]
    details: Vec<Value>,
}

/// What became of a request.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Retrieved {
    #[serde(default)]
    request_status_per_destination: Vec<PerDestination>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct PerDestination {
    #[serde(default)]
    request_status: String,
    #[serde(default)]
    error_info: ErrorInfo,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase")]
struct ErrorInfo {
    #[serde(default)]
    error_counts: Vec<ErrorCount>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct ErrorCount {
    #[serde(default)]
    reason: String,
    /// 64-bit integers come as texts.
    #[serde(default)]
    record_count: Value,
    #[serde(default)]
    record_indices: Vec<usize>,
}

impl GoogleConnector {
    /// A connector for an account; nothing is called yet.
    pub fn new(settings: Google, outgoing: Outgoing) -> Self {
        let namespaces: &[&str] = match settings.members {
            GoogleMembers::Contact => &["email_gmail_sha256", "phone_e164_sha256"],
            GoogleMembers::Idfa => &["idfa"],
            GoogleMembers::Gaid => &["gaid"],
            GoogleMembers::User => &["user_id"],
        };
        let caps = Caps {
            max_rows: MAX_ROWS,
            namespaces: Some(namespaces),
            mixes: false,
            ttl: Some(settings.ttl.0),
            min_size: Some(MIN_SIZE),
        };
        let grant = grant_of(&settings.grant);
        let url = settings.token_url.as_str().to_owned();
        let tokens = AccessTokens::new(grant, url, SCOPE, outgoing.clone());
        let pace = outgoing.pace(settings.url.as_str());
        Self { settings, outgoing, pace, tokens, caps }
    }

    fn name(&self) -> String {
        self.settings.url.to_string()
    }

    fn parent(&self) -> String {
        format!("/accountTypes/{}/accounts/{}", self.settings.account_type, self.settings.account)
    }

    /// A list's name: a segment has one for each kind of identifier.
    fn list_name(&self, segment: &str) -> String {
        match self.settings.members {
            GoogleMembers::Contact => segment.to_owned(),
            GoogleMembers::Idfa => format!("{segment} (idfa)"),
            GoogleMembers::Gaid => format!("{segment} (gaid)"),
            GoogleMembers::User => format!("{segment} (user ids)"),
        }
    }

    /// Makes a call; a token that is refused is asked for anew, once.
    fn call(
        &self,
        method: &str,
        path: &str,
        body: &[u8],
        now: Millis,
    ) -> Result<Answered, Verdict> {
        let url = format!("{}{path}", self.settings.url.as_str().trim_end_matches('/'));
        let account =
            |number: &str| format!("accountTypes/{}/accounts/{number}", self.settings.account_type);
        let login = self.settings.login_account.as_deref().map(account);
        authorized(&self.tokens, now, |bearer| {
            let mut headers = vec![("Authorization", bearer)];
            if !body.is_empty() {
                headers.push(("Content-Type", "application/json"));
            }
            if let Some(login) = login.as_deref().filter(|_| path.contains("/userLists")) {
                headers.push(("login-account", login));
            }
            let request =
                OutgoingRequest { method, url: &url, headers: &headers, body, timeout: TIMEOUT };
            http::keep_pace(&self.pace, LIMITS, now)?;
            let answered = self.outgoing.call(&request);
            answered.map_err(|error| http::unanswered(&self.name(), &error))
        })
    }

    /// Lists of a name.
    fn lists(&self, name: &str, now: Millis) -> Result<Vec<String>, Verdict> {
        let (mut found, mut page) = (Vec::new(), String::new());
        for _ in 0..PAGES {
            let path = format!("{}/userLists?pageSize=100{page}", self.parent());
            let answered = self.call("GET", &path, b"", now)?;
            if answered.status != 200 {
                return Err(failed(&self.name(), &answered, now));
            }
            let told: Value = serde_json::from_slice(&answered.body)
                .map_err(|_| Verdict::Retry(http::said(&self.name(), &answered)))?;
            let lists = told["userLists"].as_array().cloned().unwrap_or_default();
            let ours = lists.iter().filter(|list| list["displayName"] == name);
            found.extend(ours.filter_map(|list| id_of(&list["id"])));
            match told["nextPageToken"].as_str().filter(|next| !next.is_empty()) {
                None => return Ok(found),
                Some(next) => {
                    page = format!("&pageToken={}", utf8_percent_encode(next, NON_ALPHANUMERIC));
                }
            }
        }
        Err(Verdict::Fatal(format!(
            "{} has too many lists to look through: write the list's id into `audiences` of the destination",
            self.name()
        )))
    }

    /// What a member is, in the form that the list's kind has.
    fn member<'a>(&self, identifier: &'a Identifier) -> Result<Member<'a>, &'static str> {
        let value = identifier.value();
        let (member, unfit) = match (self.settings.members, identifier.namespace.as_str()) {
            (GoogleMembers::Contact, "email_gmail_sha256") => (
                Member::UserData { user_identifiers: [UserIdentifier::EmailAddress(value)] },
                fit::unfit_hash(value),
            ),
            (GoogleMembers::Contact, "phone_e164_sha256") => (
                Member::UserData { user_identifiers: [UserIdentifier::PhoneNumber(value)] },
                fit::unfit_hash(value),
            ),
            (GoogleMembers::Idfa, "idfa") | (GoogleMembers::Gaid, "gaid") => {
                (Member::MobileData { mobile_ids: [value] }, fit::unfit_device(value))
            }
            (GoogleMembers::User, "user_id") => (
                Member::UserIdData { user_id: value },
                (value.len() > MAX_USER_ID).then_some("an id has at most 128 bytes"),
            ),
            _ => return Err("the platform takes no such identifier"),
        };
        unfit.map_or(Ok(member), Err)
    }
}

/// What access tokens are made from.
pub(super) fn grant_of(grant: &GoogleGrant) -> Grant {
    match grant.clone() {
        GoogleGrant::Key { key } => Grant::ServiceAccount { key },
        GoogleGrant::Refresh { client_id, client_secret, refresh_token } => {
            Grant::Refresh { client_id, client_secret, token: refresh_token }
        }
    }
}

/// Makes a call with an access token; where it is refused, once more with another.
pub(super) fn authorized(
    tokens: &AccessTokens,
    now: Millis,
    send: impl Fn(&str) -> Result<Answered, Verdict>,
) -> Result<Answered, Verdict> {
    let token = || {
        tokens.get(now).map_err(|error| match error {
            OauthError::Refused(why) => Verdict::Fatal(why),
            OauthError::Later(why) => Verdict::Retry(why),
        })
    };
    let first = token()?;
    let answered = send(&format!("Bearer {first}"))?;
    if answered.status != 401 {
        return Ok(answered);
    }
    tokens.refuse(&first);
    send(&format!("Bearer {}", token()?))
}

/// A list's id: digits, which come as a text or as a number.
fn id_of(value: &Value) -> Option<String> {
    let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
    let fits = (1..=20).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit());
    fits.then_some(text)
}

/// What a call that did not work means. Pure.
fn failed(name: &str, answered: &Answered, now: Millis) -> Verdict {
    let Failed { error } = serde_json::from_slice(&answered.body).unwrap_or_default();
    let of_kind = |kind: &str| {
        let is_kind = move |detail: &&Value| {
            detail["@type"].as_str().is_some_and(|of| of.rsplit('.').next() == Some(kind))
        };
        error.details.iter().find(is_kind).unwrap_or(&Value::Null)
    };
    let info = of_kind("ErrorInfo");
    let reason = info["reason"].as_str().unwrap_or_default();
    let why = || {
        let message: String = error.message.chars().filter(|c| !c.is_control()).take(300).collect();
        match (reason, message.is_empty()) {
            ("", true) => http::said(name, answered),
            _ => format!("{name} answered {}: {reason} {message}", answered.status),
        }
    };
    match (answered.status, error.status.as_str()) {
        (429, _) | (_, "RESOURCE_EXHAUSTED") => {
            let limit = info["metadata"]["quota_limit"].as_str().unwrap_or_default();
            let until = match limit.to_ascii_lowercase().contains("day") {
                true => next_day(now),
                false => (now.div_euclid(MINUTE) + 1) * MINUTE,
            };
            Verdict::Throttled(Some(http::wait_until(answered, now).unwrap_or(until)))
        }
        (401, _) => Verdict::Fatal(format!("the access token is refused: {}", why())),
        (403, _) => Verdict::Fatal(format!("the account may not do this: {}", why())),
        (413, _) => Verdict::Split(why()),
        (400, _) => {
            let violations = of_kind("BadRequest")["fieldViolations"].as_array();
            let fields = violations.into_iter().flatten().filter_map(|one| one["field"].as_str());
            let is_of_line = |field: &str| {
                let field = field.to_ascii_lowercase().replace('_', "");
                field.contains("audiencemembers[")
            };
            let fields: Vec<&str> = fields.collect();
            let is_of_lines = match fields.is_empty() {
                true => reason.contains("FORMAT") || reason.starts_with("TOO_MANY_"),
                false => fields.iter().all(|field| is_of_line(field)),
            };
            if is_of_lines { Verdict::Split(why()) } else { Verdict::Fatal(why()) }
        }
        (200..=299, _) => Verdict::Unknown(http::said(name, answered)),
        _ => http::later(name, answered, now).unwrap_or_else(|| Verdict::Fatal(why())),
    }
}

/// When the next day of quotas begins.
fn next_day(now: Millis) -> Millis {
    let shift = Millis::from(Offset::constant(PACIFIC).seconds()) * SECOND;
    ((now + shift).div_euclid(DAY) + 1) * DAY - shift
}

/// What the answer to a batch means. Pure.
fn judge(name: &str, answered: &Answered, poll: Millis, now: Millis) -> Verdict {
    if answered.status != 200 {
        return failed(name, answered, now);
    }
    let told: Value = serde_json::from_slice(&answered.body).unwrap_or_default();
    match told["requestId"].as_str().filter(|id| (1..=256).contains(&id.len())) {
        Some(id) => Verdict::Staged(Job { name: id.to_owned(), ask_at: now + poll, since: now }),
        None => Verdict::Unknown(http::said(name, answered)),
    }
}

/// What became of a batch that was taken. Pure.
fn judge_later(
    name: &str,
    answered: &Answered,
    job: &Job,
    encoded: &Encoded,
    (poll, now): (Millis, Millis),
) -> Verdict {
    match answered.status {
        200 => {}
        404 => return Verdict::Gone(format!("{name} knows nothing of {}", job.name)),
        _ => {
            return match failed(name, answered, now) {
                // It says nothing of the batch.
                Verdict::Unknown(why) | Verdict::Split(why) => Verdict::Retry(why),
                verdict => verdict,
            };
        }
    }
    let wait = ((now - job.since) / 2).clamp(MINUTE.min(poll), LONGEST_POLL);
    let later = || Verdict::Staged(Job { ask_at: now + wait, ..job.clone() });
    let Ok(Retrieved { request_status_per_destination: told }) =
        serde_json::from_slice::<Retrieved>(&answered.body)
    else {
        return later();
    };
    let Some(PerDestination { request_status, error_info }) = told.into_iter().next() else {
        return later();
    };
    match request_status.as_str() {
        "SUCCESS" => Verdict::Accepted,
        "PARTIAL_SUCCESS" | "FAILED" | "FAILURE" => lost(&error_info.error_counts, encoded),
        _ => later(),
    }
}

/// What it means that lines of a batch did not work.
fn lost(counts: &[ErrorCount], encoded: &Encoded) -> Verdict {
    let reasons = || {
        let reasons = counts.iter().map(|count| count.reason.as_str());
        reasons.collect::<Vec<_>>().join(", ")
    };
    // Nothing is wrong with the lines themselves.
    let is_of_platform = |reason: &str| {
        reason.ends_with("_INTERNAL_ERROR") || reason.ends_with("_DESTINATION_TOO_RECENTLY_CREATED")
    };
    if counts.iter().any(|count| is_of_platform(&count.reason)) {
        return Verdict::Gone(format!("the platform could not: {}", reasons()));
    }
    if let Some(count) = counts.iter().find(|count| count.reason.contains("TERMS_NOT_SIGNED")) {
        return Verdict::Fatal(count.reason.clone());
    }
    let is_sent =
        |line: &usize| encoded.refused.binary_search_by_key(line, |refusal| refusal.line).is_err();
    let lines: Vec<usize> = (0..encoded.lines + encoded.refused.len()).filter(is_sent).collect();
    let count_of = |count: &ErrorCount| match &count.record_count {
        Value::String(text) => text.parse().unwrap_or(0_u64),
        value => value.as_u64().unwrap_or(0),
    };
    let all: u64 = counts.iter().map(count_of).sum();
    if let [one] = counts
        && all == lines.len() as u64
    {
        // All of them, so that it need not be said which.
        let refused = lines.iter().map(|line| Refusal { line: *line, why: one.reason.clone() });
        return Verdict::Partial(refused.collect());
    }
    let mut refused = Vec::new();
    for count in counts {
        let of_count = count.record_indices.iter().filter_map(|index| lines.get(*index));
        refused.extend(of_count.map(|line| Refusal { line: *line, why: count.reason.clone() }));
    }
    refused.sort_by_key(|refusal: &Refusal| refusal.line);
    refused.dedup_by_key(|refusal| refusal.line);
    match refused.len() as u64 == all && all > 0 {
        true => Verdict::Partial(refused),
        false => Verdict::Split(format!("{all} lines did not work: {}", reasons())),
    }
}

impl Connector for GoogleConnector {
    fn caps(&self) -> &Caps {
        &self.caps
    }

    fn check(&self, now: Millis) -> Result<(), String> {
        let path = format!("{}/userLists?pageSize=1", self.parent());
        let verdict = match self.call("GET", &path, b"", now) {
            Ok(answered) if answered.status == 200 => return Ok(()),
            Ok(answered) => failed(&self.name(), &answered, now),
            Err(verdict) => verdict,
        };
        verdict.why().map_or(Ok(()), Err)
    }

    fn place(&self, segment: &str) -> Place {
        match self.settings.audiences.get(segment) {
            Some(place) => Place::Named(place.clone()),
            None => Place::Made,
        }
    }

    fn find(&self, segment: &str, now: Millis) -> Result<Found, Verdict> {
        let name = self.list_name(segment);
        let mut found = self.lists(&name, now)?;
        match (found.pop(), found.is_empty()) {
            (None, _) => Ok(Found::Nothing),
            (Some(id), true) => Ok(Found::Place(id)),
            (Some(_), false) => Err(Verdict::Fatal(format!(
                "{} has two lists named {name}: choose, and write its id into `audiences` of the destination",
                self.name()
            ))),
        }
    }

    fn make(&self, segment: &str, now: Millis) -> Result<String, Verdict> {
        let first_party = json!({ "dataSourceType": "DATA_SOURCE_TYPE_FIRST_PARTY" });
        let mobile = |space: &str| {
            json!({ "uploadKeyTypes": ["MOBILE_ID"], "mobileIdInfo": {
                "dataSourceType": "DATA_SOURCE_TYPE_FIRST_PARTY", "keySpace": space, "appId": self.settings.app } })
        };
        let info = match self.settings.members {
            GoogleMembers::Contact => {
                json!({ "uploadKeyTypes": ["CONTACT_ID"], "contactIdInfo": first_party })
            }
            GoogleMembers::Idfa => mobile("IOS"),
            GoogleMembers::Gaid => mobile("ANDROID"),
            GoogleMembers::User => {
                json!({ "uploadKeyTypes": ["USER_ID"], "userIdInfo": first_party })
            }
        };
        let body = json!({
            "displayName": self.list_name(segment),
            "description": "Kept in step by Throng",
            "membershipDuration": format!("{}s", self.settings.ttl.0 / SECOND),
            "ingestedUserListInfo": info,
        });
        let path = format!("{}/userLists", self.parent());
        let answered = self.call("POST", &path, body.to_string().as_bytes(), now)?;
        if answered.status != 200 {
            return Err(failed(&self.name(), &answered, now));
        }
        let made: Value = serde_json::from_slice(&answered.body).unwrap_or_default();
        id_of(&made["id"]).ok_or_else(|| {
            Verdict::Unknown(format!(
                "{} made a list for {segment} and did not say its id",
                self.name()
            ))
        })
    }

    fn encode(&self, batch: &Batch, place: &str) -> Encoded {
        let is_add = batch.changes.removes.is_empty();
        let lines = if is_add { &batch.changes.adds } else { &batch.changes.removes };
        let (mut audience_members, mut refused) = (Vec::with_capacity(lines.len()), Vec::new());
        for (line, identifier) in lines.iter().enumerate() {
            match self.member(identifier) {
                Ok(member) => audience_members.push(member),
                Err(why) => refused.push(Refusal { line, why: why.to_owned() }),
            }
        }
        let Google { account_type, account, login_account, members, .. } = &self.settings;
        let of = |number: &str| json!({ "accountType": account_type, "accountId": number });
        let mut destination =
            json!({ "operatingAccount": of(account), "productDestinationId": place });
        if let Some(login) = login_account {
            destination["loginAccount"] = of(login);
        }
        let said = |agreed: bool| if agreed { "CONSENT_GRANTED" } else { "CONSENT_DENIED" };
        let mut consent = serde_json::Map::new();
        for (key, agreed) in [
            ("adUserData", self.settings.ad_user_data),
            ("adPersonalization", self.settings.ad_personalization),
        ] {
            consent.extend(agreed.map(|agreed| (key.to_owned(), said(agreed).into())));
        }
        let is_contact = *members == GoogleMembers::Contact;
        let terms = json!({ "customerMatchTermsOfServiceStatus": "ACCEPTED" });
        let count = audience_members.len();
        let body = Body {
            destinations: [destination],
            consent: (is_add && !consent.is_empty()).then(|| consent.into()),
            encoding: is_contact.then_some("HEX"),
            terms_of_service: (is_add && is_contact && self.settings.terms_accepted)
                .then_some(terms),
            audience_members,
        };
        Encoded {
            batch: batch.id(),
            method: "POST",
            address: format!("/audienceMembers:{}", if is_add { "ingest" } else { "remove" }),
            body: serde_json::to_vec(&body).expect("texts are JSON"),
            lines: count,
            refused,
        }
    }

    fn deliver(&self, encoded: &Encoded, now: Millis) -> Verdict {
        match self.call(encoded.method, &encoded.address, &encoded.body, now) {
            Ok(answered) => judge(&self.name(), &answered, self.settings.poll.0, now),
            Err(verdict) => verdict,
        }
    }

    fn ask(&self, job: &Job, (_, encoded): (&Batch, &Encoded), now: Millis) -> Verdict {
        let id = utf8_percent_encode(&job.name, NON_ALPHANUMERIC);
        let path = format!("/requestStatus:retrieve?requestId={id}");
        match self.call("GET", &path, b"", now) {
            Ok(answered) => {
                judge_later(&self.name(), &answered, job, encoded, (self.settings.poll.0, now))
            }
            // Whether it was asked says nothing of the batch.
            Err(Verdict::Unknown(why)) => Verdict::Retry(why),
            Err(verdict) => verdict,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::answered;
    use super::super::testing::batch;
    use super::super::testing::holds_for_ten_thousand;
    use super::super::testing::identifier;
    use super::*;
    use crate::config::Period;
    use crate::config::SecretSource;
    use std::collections::BTreeMap;

    const NOW: Millis = 1_795_500_000_123;
    const JANE: &str = "d6117306485ed0e50afab3ac871e98f81699151f30281527d63ff5f233656c69";
    const PHONE: &str = "b4fa1a0e9e520f7186de1a00b1b84abb55a5c7feab09e7c3b8059ca32a6abd4f";
    const DEVICE: &str = "4b61639e-47cc-4056-a16a-c8217e029462";

    fn connector(members: GoogleMembers) -> GoogleConnector {
        let settings = Google {
            url: "https://datamanager.googleapis.com/v1".parse().unwrap(),
            account: "1234567890".into(),
            account_type: "GOOGLE_ADS".into(),
            login_account: Some("9998887777".into()),
            members,
            app: Some("com.example.shop".into()),
            audiences: BTreeMap::from([("loyal".to_owned(), "8765432109".to_owned())]),
            grant: GoogleGrant::Key { key: SecretSource::Env("THRONG_NO_SUCH".into()) },
            token_url: "https://oauth2.googleapis.com/token".parse().unwrap(),
            auth_url: "https://accounts.google.com/o/oauth2/v2/auth".parse().unwrap(),
            ad_user_data: Some(true),
            ad_personalization: Some(false),
            terms_accepted: true,
            ttl: Period(540 * DAY),
            poll: Period(30 * MINUTE),
        };
        GoogleConnector::new(settings, Outgoing::new())
    }

    #[test]
    fn adds_have_consent_and_terms_and_removes_do_not() {
        let people = || {
            vec![
                identifier("email_gmail_sha256", JANE),
                identifier("email_gmail_sha256", http::SHA256_OF_NOTHING),
                identifier("phone_e164_sha256", PHONE),
                identifier("user_id", "12680"),
            ]
        };
        let connector = connector(GoogleMembers::Contact);
        let Encoded { method, address, body, lines, refused, .. } =
            connector.encode(&batch(people(), Vec::new()), "8765432109");
        assert_eq!((method, &*address, lines), ("POST", "/audienceMembers:ingest", 2));
        let destination = r#""destinations":[{"operatingAccount":{"accountId":"1234567890","accountType":"GOOGLE_ADS"},"productDestinationId":"8765432109","loginAccount":{"accountId":"9998887777","accountType":"GOOGLE_ADS"}}]"#;
        let members = format!(
            r#""audienceMembers":[{{"userData":{{"userIdentifiers":[{{"emailAddress":"{JANE}"}}]}}}},{{"userData":{{"userIdentifiers":[{{"phoneNumber":"{PHONE}"}}]}}}}]"#
        );
        let expected: Value = serde_json::from_str(&format!(
            r#"{{{destination},"consent":{{"adUserData":"CONSENT_GRANTED","adPersonalization":"CONSENT_DENIED"}},"encoding":"HEX","termsOfService":{{"customerMatchTermsOfServiceStatus":"ACCEPTED"}},{members}}}"#
        ))
        .unwrap();
        assert_eq!(serde_json::from_slice::<Value>(&body).unwrap(), expected);
        let refused: Vec<(usize, &str)> =
            refused.iter().map(|refusal| (refusal.line, &*refusal.why)).collect();
        assert_eq!(
            refused,
            [(1, "it is the hash of nothing"), (3, "the platform takes no such identifier"),]
        );
        let removed = connector.encode(&batch(Vec::new(), people()), "8765432109");
        assert_eq!(removed.address, "/audienceMembers:remove");
        let expected: Value =
            serde_json::from_str(&format!(r#"{{{destination},"encoding":"HEX",{members}}}"#))
                .unwrap();
        assert_eq!(serde_json::from_slice::<Value>(&removed.body).unwrap(), expected);
    }

    #[test]
    fn each_kind_of_list_has_its_own_members() {
        for (members, namespace, value, expected) in [
            (
                GoogleMembers::Idfa,
                "idfa",
                DEVICE,
                format!(r#"[{{"mobileData":{{"mobileIds":["{DEVICE}"]}}}}]"#),
            ),
            (
                GoogleMembers::Gaid,
                "gaid",
                DEVICE,
                format!(r#"[{{"mobileData":{{"mobileIds":["{DEVICE}"]}}}}]"#),
            ),
            (
                GoogleMembers::User,
                "user_id",
                "12680",
                r#"[{"userIdData":{"userId":"12680"}}]"#.to_owned(),
            ),
        ] {
            let connector = connector(members);
            let other = identifier("email_gmail_sha256", JANE);
            let encoded = connector
                .encode(&batch(vec![other, identifier(namespace, value)], Vec::new()), "1");
            let body: Value = serde_json::from_slice(&encoded.body).unwrap();
            assert_eq!(body["audienceMembers"], serde_json::from_str::<Value>(&expected).unwrap());
            assert_eq!((&body["encoding"], &body["termsOfService"]), (&Value::Null, &Value::Null));
            assert_eq!(encoded.refused[0].line, 0);
            assert_eq!(connector.caps().namespaces, Some(&[namespace][..]));
        }
    }

    #[test]
    fn ten_thousand_are_as_the_contract_has_them() {
        for members in [GoogleMembers::Contact, GoogleMembers::Idfa, GoogleMembers::User] {
            let read = |encoded: &Encoded, is_add: bool| {
                let body: Value =
                    serde_json::from_slice(&encoded.body).map_err(|e| e.to_string())?;
                let verb = if is_add { "ingest" } else { "remove" };
                if encoded.address != format!("/audienceMembers:{verb}") {
                    return Err(format!("{} for {verb}", encoded.address));
                }
                let all = body["audienceMembers"].as_array().ok_or("no members")?;
                let mut found = Vec::new();
                for one in all {
                    let one = one
                        .as_object()
                        .filter(|one| one.len() == 1)
                        .ok_or("a member of two kinds")?;
                    let is_hash = |text: &str| {
                        text.len() == 64 && !text.bytes().any(|b| b.is_ascii_uppercase())
                    };
                    let mut texts = Vec::new();
                    super::super::testing::texts(&Value::Object(one.clone()), &mut texts);
                    if texts.len() != 1
                        || (members == GoogleMembers::Contact && !is_hash(&texts[0]))
                    {
                        return Err(format!("{texts:?}"));
                    }
                    found.append(&mut texts);
                }
                Ok(found)
            };
            holds_for_ten_thousand(&connector(members), ("8765432109", 4 << 20), &read);
        }
    }

    fn status(code: u16, status: &str, reason: &str, field: Option<&str>) -> Answered {
        let mut details = vec![json!({
            "@type": "type.googleapis.com/google.rpc.ErrorInfo", "reason": reason, "domain": "datamanager.googleapis.com",
            "metadata": { "quota_limit": if reason == "DAY" { "RequestsPerDayPerProject" } else { "RequestsPerMinutePerProject" } },
        })];
        details.extend(field.map(|field| {
            json!({ "@type": "type.googleapis.com/google.rpc.BadRequest", "fieldViolations": [{ "field": field, "description": "no" }] })
        }));
        let body = json!({ "error": { "code": code, "message": "no", "status": status, "details": details } });
        answered(code, &body.to_string())
    }

    #[test]
    fn an_answer_is_judged_by_what_it_says() {
        let judged = |answered: &Answered| judge("g", answered, 30 * MINUTE, NOW);
        let taken = judged(&answered(200, r#"{"requestId":"r1","fieldWarnings":[{"field":"x"}]}"#));
        let job = Job { name: "r1".into(), ask_at: NOW + 30 * MINUTE, since: NOW };
        assert_eq!(taken, Verdict::Staged(job));
        assert!(judged(&answered(200, "{}")).is_unknown());
        assert!(judged(&answered(200, "<html>")).is_unknown());
        let member =
            "audience_members.audience_members[3].user_data.user_identifiers[0].email_address";
        for (answer, expected) in [
            (status(400, "INVALID_ARGUMENT", "INVALID_SHA256_FORMAT", Some(member)), "split"),
            (
                status(
                    400,
                    "INVALID_ARGUMENT",
                    "INVALID_SHA256_FORMAT",
                    Some("audienceMembers[3]"),
                ),
                "split",
            ),
            (status(400, "INVALID_ARGUMENT", "INVALID_SHA256_FORMAT", None), "split"),
            (status(400, "INVALID_ARGUMENT", "TOO_MANY_AUDIENCE_MEMBERS", None), "split"),
            (status(413, "", "", None), "split"),
            (
                status(400, "INVALID_ARGUMENT", "X", Some("destinations[0].operating_account")),
                "rejected",
            ),
            (
                status(400, "FAILED_PRECONDITION", "TERMS_AND_CONDITIONS_NOT_SIGNED", None),
                "rejected",
            ),
            (
                status(
                    400,
                    "INVALID_ARGUMENT",
                    "EU_POLITICAL_ADVERTISING_DECLARATION_REQUIRED",
                    None,
                ),
                "rejected",
            ),
            (status(401, "UNAUTHENTICATED", "", None), "rejected"),
            (status(403, "PERMISSION_DENIED", "", None), "rejected"),
            (status(404, "NOT_FOUND", "", None), "rejected"),
            (status(500, "INTERNAL", "", None), "retry"),
            (status(503, "UNAVAILABLE", "", None), "retry"),
        ] {
            assert_eq!(judged(&answer).as_str(), expected, "{answer:?}");
        }
        let minute = judged(&status(429, "RESOURCE_EXHAUSTED", "MINUTE", None));
        assert_eq!(minute, Verdict::Throttled(Some((NOW / MINUTE + 1) * MINUTE)));
        let Verdict::Throttled(Some(day)) = judged(&status(429, "RESOURCE_EXHAUSTED", "DAY", None))
        else {
            panic!()
        };
        // 2026-11-24T06:00Z is ten in the evening there.
        assert_eq!((day - 8 * HOUR) % DAY, 0);
        assert!(day > NOW && day <= NOW + DAY);
    }

    #[test]
    fn what_became_of_a_request_is_told_by_line_or_found_by_halves() {
        let encoded = connector(GoogleMembers::User).encode(
            &batch(
                vec![
                    identifier("cookie", "not sent"),
                    identifier("user_id", "a"),
                    identifier("user_id", "b"),
                    identifier("user_id", "c"),
                ],
                Vec::new(),
            ),
            "1",
        );
        let job = Job { name: "r1".into(), ask_at: NOW, since: NOW - HOUR };
        let later = |body: Value| {
            judge_later("g", &answered(200, &body.to_string()), &job, &encoded, (30 * MINUTE, NOW))
        };
        let of = |status: &str, counts: Value| json!({ "requestStatusPerDestination": [{ "requestStatus": status, "errorInfo": { "errorCounts": counts } }] });
        assert_eq!(later(of("SUCCESS", json!([]))), Verdict::Accepted);
        let again = Verdict::Staged(Job { ask_at: NOW + 30 * MINUTE, ..job.clone() });
        for body in [
            of("PROCESSING", json!([])),
            of("REQUEST_STATUS_UNKNOWN", json!([])),
            json!({}),
            json!([]),
        ] {
            assert_eq!(later(body), again);
        }
        let refusal = |line, why: &str| Refusal { line, why: why.into() };
        let counts =
            json!([{ "reason": "NO_CONSENT", "recordCount": "2", "recordIndices": [0, 2] }]);
        let some = later(of("PARTIAL_SUCCESS", counts));
        assert_eq!(
            some,
            Verdict::Partial(vec![refusal(1, "NO_CONSENT"), refusal(3, "NO_CONSENT")])
        );
        // Without indices it is not known which, unless it is all of them.
        let without =
            later(of("PARTIAL_SUCCESS", json!([{ "reason": "NO_CONSENT", "recordCount": "2" }])));
        assert_eq!(without.as_str(), "split");
        let short = json!([{ "reason": "NO_CONSENT", "recordCount": "2", "recordIndices": [0] }]);
        assert_eq!(later(of("PARTIAL_SUCCESS", short)).as_str(), "split");
        let all = later(of("FAILED", json!([{ "reason": "NO_CONSENT", "recordCount": "3" }])));
        assert!(matches!(all, Verdict::Partial(refused) if refused.len() == 3));
        let inner =
            json!([{ "reason": "PROCESSING_ERROR_REASON_INTERNAL_ERROR", "recordCount": "3" }]);
        assert_eq!(later(of("FAILURE", inner)).as_str(), "gone");
        let gone = judge_later("g", &answered(404, "{}"), &job, &encoded, (30 * MINUTE, NOW));
        assert_eq!(gone.as_str(), "gone");
        let busy = judge_later("g", &answered(503, ""), &job, &encoded, (30 * MINUTE, NOW));
        assert_eq!(busy.as_str(), "retry");
    }
}
