//! `kind = "linkedin"`: LinkedIn DMP segments of users.
//!
//! ```text
//! GET  /dmpSegments?q=account&account=…&sourceSegmentId=<segment>&sourcePlatform=<source>   finds one
//! POST /dmpSegments               makes one: its id is in a header
//! POST /dmpSegments/<id>/users    {"elements":[{"action":"ADD"|"REMOVE",
//!                                    "userIds":[{"idType":"SHA256_EMAIL","idValue":"<hash>"}]},…]}
//! ```
//! An element is one identifier, and each has its own status in an answer whose own says little. A segment that was
//! made is not there for a minute or two. Adds and removes leave the segment as if they had been made once.
//!
//! Written from the published contract of 202604, and verified against a stand-in; it never met the platform itself.

use std::borrow::Cow;
use std::collections::BTreeMap;

use parking_lot::Mutex;
use percent_encoding::AsciiSet;
use percent_encoding::NON_ALPHANUMERIC;
use percent_encoding::utf8_percent_encode;
use serde::Deserialize;
use serde::Serialize;
use serde_json::Value;
use serde_json::json;

use super::api::Api;
use super::api::Call;
use super::fit;
use super::http;
use crate::activate::connector::Caps;
use crate::activate::connector::Connector;
use crate::activate::connector::Encoded;
use crate::activate::connector::Found;
use crate::activate::connector::Place;
use crate::activate::connector::Verdict;
use crate::config::Platform;
use crate::model::Identifier;
use crate::model::Millis;
use crate::model::time::MINUTE;
use crate::model::time::SECOND;
use crate::net::Answered;
use crate::net::Limit;
use crate::net::Outgoing;
use crate::store::ledger::Batch;
use crate::store::ledger::Refusal;

/// How often a user may call.
const LIMITS: &[Limit] = &[Limit::a_minute(600)];
const MAX_ROWS: usize = 5_000;
/// With fewer members an audience is not used.
const MIN_SIZE: u64 = 300;
const NAMESPACES: &[&str] = &["email_sha256", "gaid"];
/// A segment that was just made is asked for again after so long.
const SOON: Millis = 5 * SECOND;
/// What is not there for so long is not being made: someone has deleted it.
const GONE: Millis = 10 * MINUTE;
/// So much of what is wrong with a line is kept.
const SHOWN: usize = 200;
/// What does not stand in a query as it is.
const QUERY: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~');

/// Keeps segments of one sponsored account.
pub struct LinkedInConnector {
    api: Api,
    caps: Caps,
    /// Addresses that were not there, and since when.
    missing: Mutex<BTreeMap<String, Millis>>,
}

#[derive(Serialize)]
struct Body<'a> {
    elements: Vec<Line<'a>>,
}

#[derive(Serialize)]
struct Line<'a> {
    action: &'static str,
    #[serde(rename = "userIds")]
    user_ids: [UserId<'a>; 1],
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct UserId<'a> {
    id_type: &'static str,
    id_value: Cow<'a, str>,
}

/// What is said of each line.
#[derive(Deserialize)]
struct Told {
    elements: Vec<Element>,
}

#[derive(Deserialize)]
struct Element {
    status: u16,
    #[serde(default)]
    error: Value,
}

impl LinkedInConnector {
    /// A connector for an account; nothing is called yet.
    pub fn new(settings: Platform, outgoing: Outgoing) -> Self {
        let caps = Caps {
            max_rows: MAX_ROWS,
            namespaces: Some(NAMESPACES),
            mixes: true,
            ttl: None,
            min_size: Some(MIN_SIZE),
        };
        Self { api: Api::new(settings, outgoing, LIMITS), caps, missing: Mutex::default() }
    }

    /// The account as calls name it.
    fn account(&self) -> String {
        match &self.api.settings.account {
            urn if urn.starts_with("urn:") => urn.clone(),
            number => format!("urn:li:sponsoredAccount:{number}"),
        }
    }

    /// Who we are there.
    fn source(&self) -> &str {
        self.api.settings.source.as_deref().unwrap_or_default()
    }

    fn call(
        &self,
        method: &'static str,
        path: &str,
        more: &[(&str, &str)],
        body: &[u8],
        now: Millis,
    ) -> Result<Answered, Verdict> {
        let bearer = format!("Bearer {}", self.api.token()?);
        let version = self.api.settings.version.as_deref().unwrap_or_default();
        let all = [
            ("Authorization", bearer.as_str()),
            ("LinkedIn-Version", version),
            ("X-Restli-Protocol-Version", "2.0.0"),
        ];
        let headers = [&all[..], more].concat();
        self.api.call(&Call { method, path, headers: &headers, body }, now)
    }

    /// The segments of a name of ours.
    fn segments(&self, segment: &str, now: Millis) -> Result<Vec<Value>, Verdict> {
        let text = |text: &str| utf8_percent_encode(text, QUERY).to_string();
        let (account, source) = (text(&self.account()), text(self.source()));
        let path = format!(
            "/dmpSegments?q=account&account={account}&sourceSegmentId={}&sourcePlatform={source}",
            text(segment)
        );
        let answered = self.call("GET", &path, &[], b"", now)?;
        let name = self.api.name();
        if answered.status != 200 {
            return Err(failed(&name, &answered, now));
        }
        match serde_json::from_slice::<Value>(&answered.body)
            .map(|mut told| told["elements"].take())
        {
            Ok(Value::Array(elements)) => Ok(elements),
            _ => Err(Verdict::Retry(http::said(&name, &answered))),
        }
    }

    /// For how long an address is not there by now.
    fn missing_for(&self, address: &str, is_missing: bool, now: Millis) -> Millis {
        let mut missing = self.missing.lock();
        if !is_missing {
            missing.remove(address);
            return 0;
        }
        now - *missing.entry(address.to_owned()).or_insert(now)
    }
}

/// What a call that did not work means, whatever it was for.
fn failed(name: &str, answered: &Answered, now: Millis) -> Verdict {
    let said = http::said(name, answered);
    match answered.status {
        401 => Verdict::Fatal(format!("the token is refused; give it a new one: {said}")),
        403 => Verdict::Fatal(format!("the token may not do this: {said}")),
        426 => Verdict::Fatal(format!(
            "the version is not spoken there any more; give the destination another `version`: {said}"
        )),
        200..=299 => Verdict::Unknown(said),
        _ => http::later(name, answered, now).unwrap_or(Verdict::Fatal(said)),
    }
}

/// What the answer to a batch means; the segment is not there for `missing_for` by now, where it is not. Pure.
fn judge(
    name: &str,
    answered: &Answered,
    encoded: &Encoded,
    missing_for: Millis,
    now: Millis,
) -> Verdict {
    let said = || http::said(name, answered);
    match answered.status {
        200 => {}
        404 if missing_for >= GONE => {
            return Verdict::Fatal(format!(
                "the segment is not there any more: make one, and write its id into `audiences` of the destination: {}",
                said()
            ));
        }
        404 => {
            let wait = if missing_for < MINUTE { SOON } else { MINUTE };
            return Verdict::NotReady(now + wait, format!("it is not there yet: {}", said()));
        }
        409 => return Verdict::NotReady(now + MINUTE, said()),
        413 => return Verdict::Split(said()),
        _ => return failed(name, answered, now),
    }
    let elements = match serde_json::from_slice::<Told>(&answered.body) {
        Ok(Told { elements }) if elements.len() == encoded.lines => elements,
        _ => return Verdict::Unknown(said()),
    };
    // Lines of the batch that were sent, in order.
    let is_sent =
        |line: &usize| encoded.refused.binary_search_by_key(line, |refusal| refusal.line).is_err();
    let lines = (0..encoded.lines + encoded.refused.len()).filter(is_sent);
    let (mut refused, mut retry, mut is_throttled) = (Vec::new(), None, false);
    for (line, Element { status, error }) in lines.zip(elements) {
        let why = || format!("{status}: {}", shown(&error));
        match status {
            200..=299 => {}
            401 => return Verdict::Fatal(format!("{name}: give it a new token: {}", why())),
            403 => return Verdict::Fatal(format!("{name}: the token may not do this: {}", why())),
            429 => is_throttled = true,
            408 | 409 | 425 | 500..=599 => retry = retry.or_else(|| Some(why())),
            _ => refused.push(Refusal { line, why: why() }),
        }
    }
    match (is_throttled, retry) {
        (true, _) => Verdict::Throttled(http::wait_until(answered, now)),
        (_, Some(why)) => Verdict::Retry(format!("{name} did not take a line: {why}")),
        _ if refused.is_empty() => Verdict::Accepted,
        _ => Verdict::Partial(refused),
    }
}

/// What is said to be wrong with a line, in a few words.
fn shown(error: &Value) -> String {
    let text = match error["message"].as_str() {
        Some(message) => message.to_owned(),
        None => error.to_string(),
    };
    text.chars().filter(|c| !c.is_control()).take(SHOWN).collect()
}

/// An identifier as the platform names it; else why it has no name for it.
fn user_id(identifier: &Identifier) -> Result<UserId<'_>, &'static str> {
    let value = identifier.value();
    let (id_type, unfit) = match identifier.namespace.as_str() {
        "email_sha256" => ("SHA256_EMAIL", fit::unfit_hash(value)),
        "gaid" => ("GOOGLE_AID", fit::unfit_device(value)),
        _ => return Err("the platform takes no such identifier"),
    };
    let id_value = match value.bytes().any(|byte| byte.is_ascii_uppercase()) {
        true => Cow::Owned(value.to_ascii_lowercase()),
        false => Cow::Borrowed(value),
    };
    unfit.map_or(Ok(UserId { id_type, id_value }), Err)
}

/// An id that can stand in an address.
fn id_of(text: &str) -> Option<String> {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
    ((1..=128).contains(&text.len()) && text.bytes().all(fits)).then(|| text.to_owned())
}

impl Connector for LinkedInConnector {
    fn caps(&self) -> &Caps {
        &self.caps
    }

    fn check(&self, now: Millis) -> Result<(), String> {
        // Whether there is one does not matter.
        match self.segments("throng", now) {
            Ok(_) => Ok(()),
            Err(verdict) => verdict.why().map_or(Ok(()), Err),
        }
    }

    fn place(&self, segment: &str) -> Place {
        self.api.place(segment)
    }

    fn find(&self, segment: &str, now: Millis) -> Result<Found, Verdict> {
        let mut elements = self.segments(segment, now)?;
        elements.retain(|one| one["sourceSegmentId"].as_str().is_none_or(|id| id == segment));
        let name = self.api.name();
        match &elements[..] {
            [] => Ok(Found::Nothing),
            [one] => {
                let id = match &one["id"] {
                    Value::Number(number) => id_of(&number.to_string()),
                    id => id.as_str().and_then(id_of),
                };
                let without = || Verdict::Retry(format!("{name} gave the segment no id"));
                id.map(Found::Place).ok_or_else(without)
            }
            _ => Err(Verdict::Fatal(format!(
                "{name} has two segments for {segment}: choose, and write its id into `audiences` of the destination"
            ))),
        }
    }

    fn make(&self, segment: &str, now: Millis) -> Result<String, Verdict> {
        let body = json!({
            "name": segment,
            "sourcePlatform": self.source(),
            "sourceSegmentId": segment,
            "account": self.account(),
            "type": "USER",
            "destinations": [{ "destination": "LINKEDIN" }],
        });
        let body = body.to_string();
        let json = [("Content-Type", "application/json")];
        let answered = self.call("POST", "/dmpSegments", &json, body.as_bytes(), now)?;
        let name = self.api.name();
        match answered.status {
            200..=299 => {}
            409 => {
                let why = format!("{segment} is there already and is looked for");
                let said = http::said(&name, &answered);
                return Err(Verdict::NotReady(now + SOON, format!("{why}: {said}")));
            }
            _ => return Err(failed(&name, &answered, now)),
        }
        let id = answered.header("x-restli-id").or_else(|| answered.header("x-linkedin-id"));
        id.and_then(id_of).ok_or_else(|| {
            Verdict::Unknown(format!("{name} made a segment for {segment} and did not say its id"))
        })
    }

    fn encode(&self, batch: &Batch, place: &str) -> Encoded {
        let adds = batch.changes.adds.iter().map(|identifier| ("ADD", identifier));
        let removes = batch.changes.removes.iter().map(|identifier| ("REMOVE", identifier));
        let (mut elements, mut refused) = (Vec::with_capacity(batch.changes.len()), Vec::new());
        for (line, (action, identifier)) in adds.chain(removes).enumerate() {
            match user_id(identifier) {
                Ok(user_id) => elements.push(Line { action, user_ids: [user_id] }),
                Err(why) => refused.push(Refusal { line, why: why.to_owned() }),
            }
        }
        let lines = elements.len();
        Encoded {
            batch: batch.id(),
            method: "POST",
            address: format!("/dmpSegments/{place}/users"),
            body: serde_json::to_vec(&Body { elements }).expect("texts are JSON"),
            lines,
            refused,
        }
    }

    fn deliver(&self, encoded: &Encoded, now: Millis) -> Verdict {
        let more = [("Content-Type", "application/json"), ("X-RestLi-Method", "BATCH_CREATE")];
        match self.call(encoded.method, &encoded.address, &more, &encoded.body, now) {
            Ok(answered) => {
                let is_missing = answered.status == 404;
                let missing_for = self.missing_for(&encoded.address, is_missing, now);
                judge(&self.api.name(), &answered, encoded, missing_for, now)
            }
            Err(verdict) => verdict,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::SecretSource;
    use crate::model::Namespace;
    use crate::store::ledger::Changes;
    use crate::store::ledger::Target;

    const NOW: Millis = 1_795_500_000_123;
    const JANE: &str = "f41439c944a763c9812d700a779941cec169de13c9ccd13aaf9424ba5231620a";
    const DEVICE: &str = "4b61639e-47cc-4056-a16a-c8217e029462";

    fn connector() -> LinkedInConnector {
        let settings = Platform {
            url: "https://api.linkedin.com/rest".parse().unwrap(),
            account: "123".into(),
            token: SecretSource::Env("THRONG_NO_SUCH".into()),
            audiences: [("loyal".to_owned(), "23857".to_owned())].into(),
            secret: None,
            ttl: None,
            version: Some("202604".into()),
            source: Some("EXAMPLE".into()),
        };
        LinkedInConnector::new(settings, Outgoing::new())
    }

    fn encoded(adds: &[(&str, &str)], removes: &[(&str, &str)]) -> Encoded {
        let identifier = |(namespace, value): &(&str, &str)| {
            Identifier::new(Namespace::new(namespace).unwrap(), value).unwrap()
        };
        let changes = Changes {
            adds: adds.iter().map(identifier).collect(),
            removes: removes.iter().map(identifier).collect(),
        };
        let batch = Batch {
            target: Target::new("linkedin", "buyers"),
            generation: 12,
            seq: 3,
            true_for: NOW,
            prepared_at: 0,
            changes,
        };
        let encoded = connector().encode(&batch, "10804");
        assert_eq!(encoded, connector().encode(&batch, "10804"));
        encoded
    }

    /// Six lines, of which the second, the third and the last are not sent.
    fn six() -> Encoded {
        encoded(
            &[
                ("email_sha256", JANE),
                ("email_sha256", http::SHA256_OF_NOTHING),
                ("gaid", "4b61639e"),
                ("gaid", &DEVICE.to_uppercase()),
            ],
            &[("email_sha256", JANE), ("user_id", "12680")],
        )
    }

    #[test]
    fn ten_thousand_are_as_the_contract_has_them() {
        let read = |encoded: &Encoded, _: bool| {
            let body: Value = serde_json::from_slice(&encoded.body).map_err(|e| e.to_string())?;
            let elements = body["elements"].as_array().ok_or("no elements")?;
            let mut found = Vec::new();
            for element in elements {
                let is_well =
                    ["ADD", "REMOVE"].contains(&element["action"].as_str().unwrap_or_default());
                let [id] = &element["userIds"].as_array().ok_or("no ids")?[..] else {
                    return Err("several people in one".to_owned());
                };
                let value = id["idValue"].as_str().ok_or("no value")?;
                let expected = if id["idType"] == "SHA256_EMAIL" { 64 } else { 36 };
                if !is_well || value.len() != expected || value != value.to_lowercase() {
                    return Err(element.to_string());
                }
                found.push(value.to_owned());
            }
            Ok(found)
        };
        super::super::testing::holds_for_ten_thousand(&connector(), ("10804", 4 << 20), &read);
    }

    #[test]
    fn adds_and_removes_are_elements_of_one_call() {
        let Encoded { method, address, body, lines, refused, .. } = six();
        assert_eq!((method, address.as_str(), lines), ("POST", "/dmpSegments/10804/users", 3));
        let element = |action: &str, of: &str, value: &str| {
            format!(
                r#"{{"action":"{action}","userIds":[{{"idType":"{of}","idValue":"{value}"}}]}}"#
            )
        };
        let expected = [
            element("ADD", "SHA256_EMAIL", JANE),
            element("ADD", "GOOGLE_AID", DEVICE),
            element("REMOVE", "SHA256_EMAIL", JANE),
        ];
        let expected = format!(r#"{{"elements":[{}]}}"#, expected.join(","));
        assert_eq!(String::from_utf8(body).unwrap(), expected);
        let refused: Vec<(usize, &str)> =
            refused.iter().map(|refusal| (refusal.line, refusal.why.as_str())).collect();
        assert_eq!(refused[0], (1, "it is the hash of nothing"));
        assert!(refused[1].0 == 2 && refused[1].1.starts_with("it is no device id"));
        assert_eq!(refused[2], (5, "the platform takes no such identifier"));
    }

    #[test]
    fn a_segment_is_that_of_the_configuration_or_is_made_and_an_account_is_a_urn() {
        let mut connector = connector();
        assert_eq!(connector.place("loyal"), Place::Named("23857".into()));
        assert_eq!(connector.place("buyers"), Place::Made);
        assert_eq!(connector.account(), "urn:li:sponsoredAccount:123");
        connector.api.settings.account = "urn:li:sponsoredAccount:9".into();
        assert_eq!(connector.account(), "urn:li:sponsoredAccount:9");
        assert_eq!(id_of("10804"), Some("10804".to_owned()));
        assert_eq!(id_of("../x"), None);
        assert_eq!(id_of(""), None);
    }

    fn answered(status: u16, body: &str) -> Answered {
        Answered { status, headers: Vec::new(), body: body.as_bytes().to_vec() }
    }

    /// What comes of three lines with statuses.
    fn of(statuses: [u16; 3]) -> Verdict {
        let element = |status: u16| match status {
            200..=299 => json!({ "status": status }),
            _ => json!({ "status": status, "error": { "message": "no\nsuch", "code": "X" } }),
        };
        let body = json!({ "elements": statuses.map(element) }).to_string();
        judge("it", &answered(200, &body), &six(), 0, NOW)
    }

    #[test]
    fn each_line_has_its_own_status() {
        assert_eq!(of([201, 201, 201]), Verdict::Accepted);
        assert_eq!(of([201, 200, 204]), Verdict::Accepted);
        let refusal = |line, status| Refusal { line, why: format!("{status}: nosuch") };
        // Lines of the batch, those that were not sent counted.
        assert_eq!(of([201, 400, 201]), Verdict::Partial(vec![refusal(3, 400)]));
        assert_eq!(of([422, 201, 404]), Verdict::Partial(vec![refusal(0, 422), refusal(4, 404)]));
        assert!(matches!(of([201, 400, 500]), Verdict::Retry(_)));
        assert!(matches!(of([201, 409, 201]), Verdict::Retry(_)));
        assert_eq!(of([201, 429, 500]), Verdict::Throttled(None));
        for status in [401, 403] {
            assert!(matches!(of([429, 500, status]), Verdict::Fatal(_)), "{status}");
        }
        for body in [
            "",
            "{}",
            r#"{"elements":[]}"#,
            r#"{"elements":[{"status":201}]}"#,
            r#"{"elements":[{},{},{}]}"#,
        ] {
            let verdict = judge("it", &answered(200, body), &six(), 0, NOW);
            assert!(matches!(verdict, Verdict::Unknown(_)), "{body}: {verdict:?}");
        }
    }

    #[test]
    fn other_answers_are_judged_by_their_status() {
        let of = |status, missing_for| {
            judge("it", &answered(status, "because"), &six(), missing_for, NOW)
        };
        for (status, part) in [
            (301, "answered 301"),
            (400, "answered 400: because"),
            (401, "give it a new one"),
            (403, "may not do this"),
            (426, "another `version`"),
        ] {
            let Verdict::Fatal(why) = of(status, 0) else { panic!("{status}") };
            assert!(why.contains(part) && why.contains("because"), "{status}: {why}");
        }
        for (missing_for, wait) in
            [(0, 5 * SECOND), (59 * SECOND, 5 * SECOND), (MINUTE, MINUTE), (GONE - 1, MINUTE)]
        {
            let verdict = of(404, missing_for);
            let Verdict::NotReady(until, _) = verdict else { panic!("{verdict:?}") };
            assert_eq!(until, NOW + wait, "{missing_for}");
        }
        assert!(matches!(of(404, GONE), Verdict::Fatal(_)));
        assert!(matches!(of(409, 0), Verdict::NotReady(until, _) if until == NOW + MINUTE));
        assert!(matches!(of(413, 0), Verdict::Split(_)));
        for status in [201, 202, 204] {
            assert!(matches!(of(status, 0), Verdict::Unknown(_)), "{status}");
        }
        for status in [408, 429, 500, 502, 503] {
            assert!(matches!(of(status, 0), Verdict::Retry(_)), "{status}");
        }
        let mut slower = answered(429, "");
        slower.headers.push(("retry-after".into(), "7".into()));
        let verdict = judge("it", &slower, &six(), 0, NOW);
        assert_eq!(verdict, Verdict::Throttled(Some(NOW + 7 * SECOND)));
    }

    #[test]
    fn what_is_missing_is_so_from_the_first_time_on() {
        let connector = connector();
        assert_eq!(connector.missing_for("/a", true, NOW), 0);
        assert_eq!(connector.missing_for("/a", true, NOW + 7), 7);
        assert_eq!(connector.missing_for("/b", true, NOW + 8), 0);
        assert_eq!(connector.missing_for("/a", false, NOW + 9), 0);
        assert_eq!(connector.missing_for("/a", true, NOW + 10), 0);
    }
}
