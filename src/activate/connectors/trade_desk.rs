//! `kind = "trade-desk"`: the first-party Data API of The Trade Desk.
//!
//! ```text
//! POST /data/advertiser   {"AdvertiserId":"…","DataLoadTraceId":"<batch>","DataOrigins":[…],"Items":[
//!                          {"DAID":"<uuid>","Data":[{"Name":"buyers","TtlInMinutes":43200}]},…]}
//! ```
//! An item is one identifier. What it says of a name stands until it is said again or its time is over, and 0 minutes
//! remove, so a call may be made twice; a name needs no making. Status 200 is no verdict: `FailedLines` says which items
//! were not taken, with numbers that are texts and begin at 1.
//!
//! Written from the published contract, and verified against a stand-in; it never met the platform itself.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use hmac::Hmac;
use hmac::KeyInit;
use hmac::Mac;
use serde::Deserialize;
use serde::Serialize;
use serde_json::Value;
use sha1::Sha1;

use super::api::Api;
use super::api::Call;
use super::http;
use crate::activate::connector::Caps;
use crate::activate::connector::Connector;
use crate::activate::connector::Encoded;
use crate::activate::connector::Place;
use crate::activate::connector::Verdict;
use crate::config::Platform;
use crate::model::Identifier;
use crate::model::Millis;
use crate::model::time::DAY;
use crate::model::time::MINUTE;
use crate::net::Answered;
use crate::net::Outgoing;
use crate::store::ledger::Batch;
use crate::store::ledger::BatchId;
use crate::store::ledger::Refusal;

/// So many have less than the 2.5 MB that a call may have, however long a name is.
const MAX_ROWS: usize = 1_600;
const NAMESPACES: &[&str] = &["ttd", "idfa", "gaid", "uid2"];
const PATH: &str = "/data/advertiser";
/// Codes of items that say nothing of the identifier: each other item would get them, too.
const OF_ALL: [&str; 5] = [
    "DataNameTooLong",
    "InvalidTtlInMinutes",
    "TargetingDataCountLimitExceeded",
    "TargetingDataCreationLimitExceeded",
    "TargetingDataDisabled",
];
/// The platform knows nobody by the identifier.
const NOBODY: &str = "UserNotMapped";
/// So many characters of what is said of an item are kept.
const LONGEST_MESSAGE: usize = 200;

/// Keeps data of one advertiser.
pub struct TradeDeskConnector {
    api: Api,
    caps: Caps,
    /// How long an item stays.
    minutes: i64,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Body<'a> {
    advertiser_id: &'a str,
    data_load_trace_id: BatchId,
    data_origins: [Origin<'a>; 1],
    items: Vec<Item<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Origin<'a> {
    r#type: &'static str,
    id: &'a str,
}

#[derive(Serialize)]
struct Item<'a> {
    #[serde(flatten)]
    who: Who<'a>,
    #[serde(rename = "Data")]
    data: [Data<'a>; 1],
}

#[derive(Serialize)]
enum Who<'a> {
    #[serde(rename = "TDID")]
    Cookie(&'a str),
    #[serde(rename = "DAID")]
    Device(&'a str),
    #[serde(rename = "UID2")]
    Uid2(&'a str),
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Data<'a> {
    name: &'a str,
    ttl_in_minutes: i64,
}

/// What is said of a call; nothing else is in it.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Said {
    #[serde(default, rename = "FailedLines")]
    failed: Option<Vec<Failed>>,
}

/// What is said of an item that was not taken.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Failed {
    #[serde(default)]
    item_number: Value,
    error_code: Option<String>,
    message: Option<String>,
}

impl TradeDeskConnector {
    /// A connector for an advertiser; nothing is called yet.
    pub fn new(settings: Platform, outgoing: Outgoing) -> Self {
        let ttl = settings.ttl.map(|ttl| ttl.0);
        let caps = Caps {
            max_rows: MAX_ROWS,
            namespaces: Some(NAMESPACES),
            mixes: true,
            ttl,
            min_size: None,
        };
        let ttl = settings.ttl.map_or(30 * DAY, |ttl| ttl.0);
        Self { api: Api::new(settings, outgoing, &[]), caps, minutes: ttl / MINUTE }
    }

    /// Makes a call with the headers that say who calls.
    fn call(&self, encoded: &Encoded, now: Millis) -> Result<Answered, Verdict> {
        let token = self.api.token()?;
        let secret = self.api.secret()?;
        let signature = secret.map(|secret| signature(&secret, &encoded.body));
        let mut headers = vec![("Content-Type", "application/json"), ("TTD-Auth", &token)];
        headers.extend(signature.as_deref().map(|signature| ("TtdSignature", signature)));
        let path = &encoded.address;
        let call = Call { method: encoded.method, path, headers: &headers, body: &encoded.body };
        self.api.call(&call, now)
    }

    fn judge(&self, encoded: &Encoded, answered: &Answered, now: Millis) -> Verdict {
        let name = self.api.name();
        let why = |what: &str| format!("{}; {what}", http::said(&name, answered));
        let failed = serde_json::from_slice::<Said>(&answered.body).ok();
        let failed = failed.map(|said| said.failed.unwrap_or_default());
        match (answered.status, failed) {
            (200..=299, None) => Verdict::Unknown(http::said(&name, answered)),
            (200..=299, Some(failed)) if failed.is_empty() => Verdict::Accepted,
            (200..=299 | 400, Some(failed)) if !failed.is_empty() => {
                if let Some(code) = failed.iter().map(Failed::code).find(|of| OF_ALL.contains(of)) {
                    return Verdict::Fatal(format!("{name}: {code}; see to the data's name there"));
                }
                let all = encoded.lines;
                let refused = refusals(encoded, &failed).filter(|_| answered.status != 400);
                match refused {
                    Some(refused) if refused.is_empty() => Verdict::Accepted,
                    Some(refused) => Verdict::Partial(refused),
                    None => Verdict::Split(format!("{} of {all} items are wrong", failed.len())),
                }
            }
            (401, _) => Verdict::Fatal(why("the token or the signature is refused; give new ones")),
            (403, _) => Verdict::Fatal(why("the token may not write data of this advertiser")),
            (413, _) => Verdict::Split(http::said(&name, answered)),
            (429, _) => {
                let until = http::wait_until(answered, now);
                Verdict::Throttled(Some(until.unwrap_or(now + MINUTE)))
            }
            _ => http::later(&name, answered, now)
                .unwrap_or_else(|| Verdict::Fatal(http::said(&name, answered))),
        }
    }
}

impl Failed {
    fn code(&self) -> &str {
        self.error_code.as_deref().unwrap_or("no code")
    }

    /// The place of the item among those that were sent, from 0.
    fn at(&self) -> Option<usize> {
        let text = self.item_number.as_str().map(str::to_owned);
        let number = text.unwrap_or_else(|| self.item_number.to_string());
        number.trim().parse::<usize>().ok()?.checked_sub(1)
    }

    fn why(&self) -> String {
        let message = self.message.as_deref().unwrap_or_default();
        let shown = message.chars().filter(|c| !c.is_control()).take(LONGEST_MESSAGE);
        let shown: String = shown.collect();
        if shown.is_empty() { self.code().to_owned() } else { format!("{}: {shown}", self.code()) }
    }
}

/// Which lines of the batch were not taken, in order; `None` where that is not said of each.
fn refusals(encoded: &Encoded, failed: &[Failed]) -> Option<Vec<Refusal>> {
    let sent: Value = match failed.iter().any(|failed| failed.code() == NOBODY) {
        true => serde_json::from_slice(&encoded.body).unwrap_or_default(),
        false => Value::Null,
    };
    let mut refused = Vec::with_capacity(failed.len());
    for failed in failed {
        let at = failed.at().filter(|at| *at < encoded.lines)?;
        // Who is not known there need not be removed.
        let minutes = sent["Items"][at]["Data"][0]["TtlInMinutes"].as_i64();
        if failed.code() != NOBODY || minutes != Some(0) {
            refused.push(Refusal { line: line(&encoded.refused, at), why: failed.why() });
        }
    }
    refused.sort_by_key(|refusal| refusal.line);
    refused.dedup_by_key(|refusal| refusal.line);
    Some(refused)
}

/// The line of the batch that an item stands for: those that were not sent have no number.
fn line(not_sent: &[Refusal], at: usize) -> usize {
    not_sent.iter().fold(at, |line, refusal| line + usize::from(refusal.line <= line))
}

/// The value of `TtdSignature` for these very bytes.
fn signature(secret: &str, body: &[u8]) -> String {
    let mut mac = Hmac::<Sha1>::new_from_slice(secret.as_bytes()).expect("any key will do");
    mac.update(body);
    STANDARD.encode(mac.finalize().into_bytes())
}

/// An identifier as the platform names it, or what is wrong with it.
fn who(identifier: &Identifier) -> Result<Who<'_>, &'static str> {
    let value = identifier.value();
    let uuid = || match is_uuid(value) {
        true if value.bytes().all(|byte| matches!(byte, b'0' | b'-')) => {
            Err("an id of zeros alone identifies nobody")
        }
        true => Ok(value),
        false => Err("it is no UUID"),
    };
    match identifier.namespace.as_str() {
        "ttd" => uuid().map(Who::Cookie),
        "idfa" | "gaid" => uuid().map(Who::Device),
        "uid2" if is_uid2(value) => Ok(Who::Uid2(value)),
        "uid2" => Err("it is no raw UID2: 44 characters of base64; a token is none"),
        _ => Err("the platform takes no such identifier"),
    }
}

fn is_uuid(text: &str) -> bool {
    text.len() == 36
        && text.bytes().enumerate().all(|(at, byte)| match at {
            8 | 13 | 18 | 23 => byte == b'-',
            _ => byte.is_ascii_hexdigit(),
        })
}

/// A raw UID2 is 32 bytes, or 33 of its third version, in base64.
fn is_uid2(text: &str) -> bool {
    text.len() == 44 && STANDARD.decode(text).is_ok_and(|raw| matches!(raw.len(), 32 | 33))
}

impl Connector for TradeDeskConnector {
    fn caps(&self) -> &Caps {
        &self.caps
    }

    fn check(&self, now: Millis) -> Result<(), String> {
        let call = Call { method: "HEAD", path: PATH, headers: &[], body: &[] };
        let tried = self.api.token().and_then(|_| self.api.secret());
        // What it answers to a call without data says nothing of one with.
        match tried.and_then(|_| self.api.call(&call, now)) {
            Ok(_) => Ok(()),
            Err(verdict) => verdict.why().map_or(Ok(()), Err),
        }
    }

    fn place(&self, segment: &str) -> Place {
        match self.api.place(segment) {
            Place::Named(name) => Place::Named(name),
            Place::None | Place::Made => Place::Named(segment.to_owned()),
        }
    }

    fn encode(&self, batch: &Batch, place: &str) -> Encoded {
        let adds = batch.changes.adds.iter().map(|identifier| (identifier, self.minutes));
        let removes = batch.changes.removes.iter().map(|identifier| (identifier, 0));
        let (mut items, mut refused) = (Vec::with_capacity(batch.changes.len()), Vec::new());
        for (line, (identifier, ttl_in_minutes)) in adds.chain(removes).enumerate() {
            match who(identifier) {
                Ok(who) => items.push(Item { who, data: [Data { name: place, ttl_in_minutes }] }),
                Err(why) => refused.push(Refusal { line, why: why.to_owned() }),
            }
        }
        let lines = items.len();
        let account = self.api.settings.account.as_str();
        let body = Body {
            advertiser_id: account,
            data_load_trace_id: batch.id(),
            data_origins: [Origin { r#type: "Advertiser", id: account }],
            items,
        };
        Encoded {
            batch: batch.id(),
            method: "POST",
            address: PATH.to_owned(),
            body: serde_json::to_vec(&body).expect("texts and numbers are JSON"),
            lines,
            refused,
        }
    }

    fn deliver(&self, encoded: &Encoded, now: Millis) -> Verdict {
        let verdict = match self.call(encoded, now) {
            Ok(answered) => self.judge(encoded, &answered, now),
            Err(verdict) => verdict,
        };
        if let Verdict::Throttled(Some(until)) = verdict {
            self.api.rest_until(until);
        }
        verdict
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::config::Period;
    use crate::config::SecretSource;
    use crate::model::Namespace;
    use crate::store::ledger::Changes;
    use crate::store::ledger::Target;

    const NOW: Millis = 1_795_500_000_000;
    const UUID: &str = "123e4567-e89b-12d3-a456-426652340000";

    fn connector() -> TradeDeskConnector {
        let settings = Platform {
            url: "http://127.0.0.1:1/".parse().unwrap(),
            account: "abc123".into(),
            token: SecretSource::Env("THRONG_NO_SUCH".into()),
            audiences: BTreeMap::from([("buyers".into(), "auto_intenders".into())]),
            secret: None,
            ttl: Some(Period(30 * DAY)),
            version: None,
            source: None,
        };
        TradeDeskConnector::new(settings, Outgoing::new())
    }

    fn identifier(namespace: &str, value: &str) -> Identifier {
        Identifier::new(Namespace::new(namespace).unwrap(), value).unwrap()
    }

    fn batch(adds: Vec<Identifier>, removes: Vec<Identifier>) -> Batch {
        Batch {
            target: Target::new("ttd", "buyers"),
            generation: 12,
            seq: 3,
            true_for: NOW,
            prepared_at: NOW,
            changes: Changes { adds, removes },
        }
    }

    /// Five lines, of which the second and the fourth are not sent; the last is a removal.
    fn encoded() -> Encoded {
        let uid2 = "9vkMzlLP1WM6jDFJcyJhxxwcdUWBFBNM6ck0m42Sq3k=";
        let adds = vec![
            identifier("gaid", UUID),
            identifier("idfa", "no-uuid"),
            identifier("ttd", "223E4567-E89B-12D3-A456-426652340000"),
            identifier("uid2", "a token"),
            identifier("uid2", uid2),
        ];
        let removes = vec![identifier("idfa", "323e4567-e89b-12d3-a456-426652340000")];
        connector().encode(&batch(adds, removes), "auto_intenders")
    }

    #[test]
    fn ten_thousand_are_as_the_contract_has_them() {
        let read = |encoded: &Encoded, _: bool| {
            let body: serde_json::Value =
                serde_json::from_slice(&encoded.body).map_err(|e| e.to_string())?;
            let mut found = Vec::new();
            for item in body["Items"].as_array().ok_or("no items")? {
                let item = item.as_object().ok_or("no item")?;
                let ids: Vec<&str> =
                    item.keys().map(String::as_str).filter(|key| *key != "Data").collect();
                let [kind] = ids[..] else { return Err(format!("several people in {ids:?}")) };
                let [data] = &item["Data"].as_array().ok_or("no data")?[..] else {
                    return Err("not one name".into());
                };
                let minutes = data["TtlInMinutes"].as_i64();
                if !["TDID", "DAID", "UID2"].contains(&kind)
                    || data["Name"] != "buyers"
                    || minutes.is_none()
                {
                    return Err(format!("{item:?}"));
                }
                found.push(item[kind].as_str().ok_or("no text")?.to_owned());
            }
            Ok(found)
        };
        super::super::testing::holds_for_ten_thousand(&connector(), ("buyers", 2_500_000), &read);
    }

    #[test]
    fn a_batch_is_one_call_with_the_same_bytes_each_time() {
        let encoded = encoded();
        assert_eq!(encoded, self::encoded());
        let id = batch(Vec::new(), Vec::new()).id();
        let expected = format!(
            r#"{{"AdvertiserId":"abc123","DataLoadTraceId":"{id}","DataOrigins":[{{"Type":"Advertiser","Id":"abc123"}}],"Items":[{{"DAID":"123e4567-e89b-12d3-a456-426652340000","Data":[{{"Name":"auto_intenders","TtlInMinutes":43200}}]}},{{"TDID":"223E4567-E89B-12D3-A456-426652340000","Data":[{{"Name":"auto_intenders","TtlInMinutes":43200}}]}},{{"UID2":"9vkMzlLP1WM6jDFJcyJhxxwcdUWBFBNM6ck0m42Sq3k=","Data":[{{"Name":"auto_intenders","TtlInMinutes":43200}}]}},{{"DAID":"323e4567-e89b-12d3-a456-426652340000","Data":[{{"Name":"auto_intenders","TtlInMinutes":0}}]}}]}}"#
        );
        assert_eq!(String::from_utf8(encoded.body).unwrap(), expected);
        assert_eq!((encoded.method, encoded.address.as_str()), ("POST", "/data/advertiser"));
        assert_eq!(encoded.lines, 4);
        let refused: Vec<_> =
            encoded.refused.iter().map(|refusal| (refusal.line, refusal.why.as_str())).collect();
        let no_uid2 = "it is no raw UID2: 44 characters of base64; a token is none";
        assert_eq!(refused, [(1, "it is no UUID"), (3, no_uid2)]);
    }

    #[test]
    fn a_body_is_signed_as_others_compute_it() {
        // printf '{"data":"example"}' | openssl dgst -sha1 -hmac secret -binary | base64
        let body = br#"{"data":"example"}"#;
        assert_eq!(signature("secret", body), "rvxETQ7kIU5Cko3GddD2AeFpz8E=");
        assert_ne!(signature("secret", br#"{"data": "example"}"#), signature("secret", body));
    }

    #[test]
    fn what_is_no_identifier_of_theirs_is_not_sent() {
        let zeros = "00000000-0000-0000-0000-000000000000";
        for (namespace, value, fits) in [
            ("ttd", UUID, true),
            ("ttd", zeros, false),
            ("ttd", "123e4567e89b12d3a456426652340000", false),
            ("ttd", "123e4567-e89b-12d3-a456-42665234000g", false),
            ("gaid", UUID, true),
            ("idfa", "123E4567-E89B-12D3-A456-426652340000", true),
            ("idfa", "123E4567-E89B-12D3-A456-4266523400001", false),
            ("uid2", "9vkMzlLP1WM6jDFJcyJhxxwcdUWBFBNM6ck0m42Sq3k=", true),
            // Of version 3: 33 bytes.
            ("uid2", "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8g", true),
            ("uid2", "9vkMzlLP1WM6jDFJcyJhxxwcdUWBFBNM6ck0m42Sq3k", false),
            ("uid2", "9vkMzlLP1WM6jDFJcyJhxxwcdUWBFBNM6ck0m42Sq3!=", false),
            ("cookie", UUID, false),
        ] {
            assert_eq!(who(&identifier(namespace, value)).is_ok(), fits, "{namespace} {value}");
        }
    }

    #[test]
    fn the_largest_batch_is_no_larger_than_a_call_may_be() {
        let adds = (0..MAX_ROWS).map(|at| identifier("gaid", &format!("{at:08x}{}", &UUID[8..])));
        let encoded = connector().encode(&batch(adds.collect(), Vec::new()), &"n".repeat(128));
        assert_eq!(encoded.lines, MAX_ROWS);
        assert!(encoded.body.len() < 2_500_000, "{}", encoded.body.len());
    }

    #[test]
    fn a_number_among_what_was_sent_leads_to_its_line() {
        for not_sent in 0_usize..1 << 6 {
            let (mut sent, mut refused) = (Vec::new(), Vec::new());
            for line in 0..8 {
                match not_sent >> line & 1 {
                    1 => refused.push(Refusal { line, why: String::new() }),
                    _ => sent.push(line),
                }
            }
            let lines: Vec<usize> = (0..sent.len()).map(|at| line(&refused, at)).collect();
            assert_eq!(lines, sent, "{not_sent:b}");
        }
    }

    fn verdict(status: u16, retry_after: Option<&str>, body: &str) -> Verdict {
        let header = |value: &str| ("retry-after".to_owned(), value.to_owned());
        let headers = retry_after.map(header).into_iter().collect();
        let answered = Answered { status, headers, body: body.as_bytes().to_vec() };
        connector().judge(&encoded(), &answered, NOW)
    }

    fn failed(item: &str, code: &str) -> String {
        format!(
            r#"{{"ItemNumber":{item},"DataNumber":"1","DataName":"x","ErrorCode":"{code}","Message":"m"}}"#
        )
    }

    fn with(lines: &[String]) -> String {
        format!(r#"{{"FailedLines":[{}]}}"#, lines.join(","))
    }

    #[test]
    fn the_body_of_an_answer_is_the_verdict() {
        for body in ["{}", r#"{"FailedLines":[]}"#, r#"{"FailedLines":null}"#] {
            assert_eq!(verdict(200, None, body), Verdict::Accepted, "{body}");
        }
        for body in ["", "OK", "<html>", "[1]", r#"{"Message":"An error has occurred."}"#] {
            assert!(matches!(verdict(200, None, body), Verdict::Unknown(_)), "{body}");
        }
        let refused = |lines: &[(usize, &str)]| {
            let refusal = |(line, why): &(usize, &str)| Refusal { line: *line, why: (*why).into() };
            Verdict::Partial(lines.iter().map(refusal).collect())
        };
        for code in [
            "Unknown",
            "MissingUserId",
            "UserNotMapped",
            "InvalidParameterFormat",
            "ItemDeserializationError",
            "Uid2Error",
        ] {
            let body = with(&[failed("\"2\"", code)]);
            assert_eq!(verdict(200, None, &body), refused(&[(2, &format!("{code}: m"))]));
            assert!(matches!(verdict(400, None, &body), Verdict::Split(_)), "{code}");
        }
        // In any order, twice, or as numbers; the fourth is the removal.
        let several = ["\"4\"", "3", "\"1\"", "\"3\""].map(|item| failed(item, "Uid2Error"));
        let why = "Uid2Error: m";
        assert_eq!(verdict(200, None, &with(&several)), refused(&[(0, why), (4, why), (5, why)]));
        let bare = r#"{"FailedLines":[{"ItemNumber":"1"}]}"#;
        assert_eq!(verdict(200, None, bare), refused(&[(0, "no code")]));
        // Who is not known need not be removed.
        let unknown = ["\"1\"", "\"4\""].map(|item| failed(item, NOBODY));
        assert_eq!(verdict(200, None, &with(&unknown)), refused(&[(0, "UserNotMapped: m")]));
        assert_eq!(verdict(200, None, &with(&unknown[1..])), Verdict::Accepted);
        for item in ["\"0\"", "\"5\"", "\"-1\"", "\"two\"", "null", "{}", "1.5"] {
            let body = with(&[failed("\"1\"", "Uid2Error"), failed(item, "Uid2Error")]);
            assert!(matches!(verdict(200, None, &body), Verdict::Split(_)), "{item}");
        }
        for code in OF_ALL {
            let body = with(&[failed("\"1\"", "Uid2Error"), failed("\"2\"", code)]);
            for status in [200, 400] {
                let verdict = verdict(status, None, &body);
                let Verdict::Fatal(why) = verdict else { panic!("{code}: {verdict:?}") };
                assert!(why.contains(code), "{why}");
            }
        }
    }

    #[test]
    fn statuses_are_judged() {
        for status in [301, 400, 401, 403, 404, 422] {
            let verdict = verdict(status, Some("7"), "\"no\"");
            let Verdict::Fatal(why) = verdict else { panic!("{status}: {verdict:?}") };
            assert!(why.contains(&status.to_string()), "{why}");
        }
        assert!(matches!(verdict(400, None, "{}"), Verdict::Fatal(_)));
        assert!(matches!(verdict(413, None, "\"too large\""), Verdict::Split(_)));
        for status in [429, 500, 503] {
            let until = Verdict::Throttled(Some(NOW + 7_000));
            assert_eq!(verdict(status, Some("7"), "{}"), until, "{status}");
        }
        assert_eq!(verdict(429, None, ""), Verdict::Throttled(Some(NOW + MINUTE)));
        for status in [408, 500, 502, 503] {
            assert!(matches!(verdict(status, None, ""), Verdict::Retry(_)), "{status}");
        }
    }

    #[test]
    fn a_name_is_the_segments_unless_another_is_given() {
        let connector = connector();
        assert_eq!(connector.place("buyers"), Place::Named("auto_intenders".into()));
        assert_eq!(connector.place("others"), Place::Named("others".into()));
    }

    #[test]
    fn without_its_token_nothing_is_sent_and_the_trouble_says_why() {
        let connector = connector();
        let why = "token: the variable THRONG_NO_SUCH is not set".to_owned();
        assert_eq!(connector.deliver(&encoded(), 0), Verdict::Retry(why.clone()));
        assert_eq!(connector.check(0), Err(why));
    }
}
