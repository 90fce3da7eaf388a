//! `kind = "meta"`: Meta Custom Audiences.
//!
//! ```text
//! POST|DELETE /<audience>/users   {"session":{…},"payload":{"schema":["EMAIL","MADID"],"data":[["<hash>",""],…]}}
//! POST /act_<account>/customaudiences   makes an audience
//! ```
//! A row is one identifier. An answer counts the rows that are wrong and does not say which, so such a batch is halved.
//! Both calls leave the audience as if they had been made once.
//!
//! Written from the published contract of v25.0, and verified against a stand-in; it never met the platform itself.

use std::borrow::Cow;

use hmac::Hmac;
use hmac::KeyInit;
use hmac::Mac;
use serde::Deserialize;
use serde::Serialize;
use serde_json::Value;
use serde_json::json;
use sha2::Sha256;

use super::api::Api;
use super::api::Call;
use super::fit;
use super::http;
use crate::activate::connector::Caps;
use crate::activate::connector::Connector;
use crate::activate::connector::Encoded;
use crate::activate::connector::Place;
use crate::activate::connector::Verdict;
use crate::activate::waterfall::Matched;
use crate::config::Platform;
use crate::model::Identifier;
use crate::model::Millis;
use crate::model::hex;
use crate::model::time::HOUR;
use crate::model::time::MINUTE;
use crate::model::time::SECOND;
use crate::net::Answered;
use crate::net::Outgoing;
use crate::store::ledger::Batch;
use crate::store::ledger::Refusal;

const MAX_ROWS: usize = 10_000;
/// Namespaces, and what a column of them is called.
const COLUMNS: [(&str, &str); 4] = [
    ("email_sha256", "EMAIL"),
    ("phone_digits_sha256", "PHONE"),
    ("idfa", "MADID"),
    ("gaid", "MADID"),
];
/// With fewer members an audience is not used.
const MIN_SIZE: u64 = 100;
const NAMESPACES: &[&str] = &["email_sha256", "phone_digits_sha256", "idfa", "gaid"];
/// Above so many percent of what may be called in an hour, calls are made more slowly.
const BUSY: f64 = 75.0;
/// The longest that an answer may ask to wait.
const LONGEST_WAIT: Millis = 24 * HOUR;

/// Keeps custom audiences of one ad account.
pub struct MetaConnector {
    api: Api,
    caps: Caps,
}

#[derive(Serialize)]
struct Body<'a> {
    session: Session,
    payload: Payload<'a>,
}

#[derive(Serialize)]
struct Session {
    session_id: u64,
    batch_seq: u32,
    last_batch_flag: bool,
    estimated_num_total: usize,
}

#[derive(Serialize)]
struct Payload<'a> {
    schema: Vec<&'static str>,
    is_raw: bool,
    data: Vec<Vec<Cow<'a, str>>>,
}

/// What is said of a call that was taken.
#[derive(Deserialize)]
struct Taken {
    num_received: Option<u64>,
    num_invalid_entries: Option<u64>,
}

/// What is said of one that was not.
#[derive(Deserialize)]
struct Failed {
    error: Trouble,
}

#[derive(Deserialize)]
struct Trouble {
    #[serde(default)]
    code: i64,
    #[serde(default)]
    error_subcode: i64,
    #[serde(default)]
    message: String,
}

impl MetaConnector {
    /// A connector for an account; nothing is called yet.
    pub fn new(settings: Platform, outgoing: Outgoing) -> Self {
        let caps = Caps {
            max_rows: MAX_ROWS,
            namespaces: Some(NAMESPACES),
            mixes: false,
            ttl: None,
            min_size: Some(MIN_SIZE),
        };
        Self { api: Api::new(settings, outgoing, &[]), caps }
    }

    /// Makes a call of the account's.
    fn call(
        &self,
        method: &'static str,
        path: &str,
        body: &[u8],
        now: Millis,
    ) -> Result<Answered, Verdict> {
        let token = self.api.token()?;
        let proof = self.api.secret()?.map(|secret| proof(&secret, &token, now.div_euclid(SECOND)));
        let mark = if path.contains('?') { '&' } else { '?' };
        let proof = proof.map(|proof| format!("{mark}{proof}"));
        let path = format!("{path}{}", proof.unwrap_or_default());
        let bearer = format!("Bearer {token}");
        let headers = [("Authorization", bearer.as_str()), ("Content-Type", "application/json")];
        self.api.call(&Call { method, path: &path, headers: &headers, body }, now)
    }

    /// What a failed call means.
    fn failed(&self, answered: &Answered, now: Millis) -> Verdict {
        let name = self.api.name();
        let Ok(Failed { error }) = serde_json::from_slice::<Failed>(&answered.body) else {
            let later = http::later(&name, answered, now);
            return later.unwrap_or_else(|| match answered.status {
                200..=299 => Verdict::Unknown(http::said(&name, answered)),
                _ => Verdict::Fatal(http::said(&name, answered)),
            });
        };
        let Trouble { code, error_subcode, message } = error;
        let why = |what: &str| format!("{name}: {what} ({code}: {message})");
        match (code, error_subcode) {
            (4 | 17 | 32 | 613 | 80_000..=80_014, _) => {
                Verdict::Throttled(Some(usage(answered).1.map_or(now + MINUTE, |wait| now + wait)))
            }
            (1 | 2 | 341 | 368 | 2650 | 5000 | 21_009, _) => Verdict::Retry(why("try again")),
            (190, _) => Verdict::Fatal(why("the token is refused; give it a new one")),
            (10 | 200..=299, _) => Verdict::Fatal(why("the token may not do this")),
            (2655, _) => Verdict::Fatal(why("the terms of custom audiences are to be signed")),
            (100, 1_713_230) => {
                Verdict::Fatal(why("uploads are blocked until someone looks there"))
            }
            (100, 33) | (1_487_301 | 1_487_366, _) => {
                Verdict::Fatal(why("the audience is not there, or not ours"))
            }
            _ => http::later(&name, answered, now).unwrap_or(Verdict::Fatal(why("refused"))),
        }
    }

    fn judge(&self, answered: &Answered, lines: usize, now: Millis) -> Verdict {
        let (busy, wait) = usage(answered);
        if busy >= BUSY {
            self.api.rest_until(now + wait.unwrap_or(MINUTE));
        }
        let taken = match answered.status {
            200..=299 => serde_json::from_slice::<Taken>(&answered.body).ok(),
            _ => None,
        };
        match taken {
            Some(Taken { num_received: Some(received), num_invalid_entries: invalid }) => {
                match invalid.unwrap_or(0) {
                    0 if received == lines as u64 => Verdict::Accepted,
                    0 => Verdict::Unknown(format!(
                        "{} has received {received} rows of {lines}",
                        self.api.name()
                    )),
                    count => Verdict::Split(format!("{count} of {lines} rows are invalid there")),
                }
            }
            _ => self.failed(answered, now),
        }
    }
}

/// The query that proves that who has the token has the app's secret, too.
fn proof(secret: &str, token: &str, seconds: i64) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("any key will do");
    mac.update(format!("{token}|{seconds}").as_bytes());
    format!("appsecret_proof={}&appsecret_time={seconds}", hex(&mac.finalize().into_bytes()))
}

/// How much of what may be called is used, in percent, and how long to wait, where an answer says it.
fn usage(answered: &Answered) -> (f64, Option<Millis>) {
    let header = answered.header("x-business-use-case-usage");
    let value = header.and_then(|text| serde_json::from_str::<Value>(text).ok());
    let entries = value.iter().filter_map(Value::as_object).flat_map(|by| by.values());
    let (mut busy, mut wait) = (0.0_f64, None);
    for entry in entries.filter_map(Value::as_array).flatten() {
        for key in ["call_count", "total_cputime", "total_time"] {
            busy = busy.max(entry[key].as_f64().unwrap_or(0.0));
        }
        let minutes =
            entry["estimated_time_to_regain_access"].as_i64().filter(|minutes| *minutes > 0);
        let asked = minutes.map(|minutes| minutes.saturating_mul(MINUTE).min(LONGEST_WAIT));
        wait = wait.max(asked);
    }
    (busy, wait)
}

/// What is wrong with an identifier, where it is not as the platform wants it.
fn unfit(identifier: &Identifier) -> Option<&'static str> {
    match identifier.namespace.as_str() {
        "email_sha256" | "phone_digits_sha256" => fit::unfit_hash(identifier.value()),
        _ => fit::unfit_device(identifier.value()),
    }
}

/// How many an audience is said to have; it is not counted where a number is below 0.
fn matched(body: &[u8]) -> Option<Matched> {
    let told: Value = serde_json::from_slice(body).ok()?;
    let bound = |which: &str| told[format!("approximate_count_{which}_bound")].as_u64();
    let (least, most) = (bound("lower")?, bound("upper")?);
    (least <= most).then_some(Matched { least, most })
}

impl Connector for MetaConnector {
    fn caps(&self) -> &Caps {
        &self.caps
    }

    fn matched(&self, place: &str, now: Millis) -> Option<Matched> {
        let fields = "approximate_count_lower_bound,approximate_count_upper_bound";
        let answered = self.call("GET", &format!("/{place}?fields={fields}"), b"", now).ok()?;
        matched(&answered.body).filter(|_| answered.status == 200)
    }

    fn check(&self, now: Millis) -> Result<(), String> {
        let path = format!("/act_{}", self.api.settings.account);
        let verdict = match self.call("GET", &path, b"", now) {
            Ok(answered) if answered.status == 200 => return Ok(()),
            Ok(answered) => self.failed(&answered, now),
            Err(verdict) => verdict,
        };
        verdict.why().map_or(Ok(()), Err)
    }

    fn place(&self, segment: &str) -> Place {
        self.api.place(segment)
    }

    fn make(&self, segment: &str, now: Millis) -> Result<String, Verdict> {
        let body = json!({
            "name": segment,
            "subtype": "CUSTOM",
            "customer_file_source": "USER_PROVIDED_ONLY",
            "description": "Kept in step by Throng",
        });
        let path = format!("/act_{}/customaudiences", self.api.settings.account);
        let answered = self.call("POST", &path, body.to_string().as_bytes(), now)?;
        let made = match answered.status {
            200..=299 => serde_json::from_slice::<Value>(&answered.body).ok(),
            _ => None,
        };
        // It stands in addresses from then on.
        let fits =
            |id: &&str| !id.is_empty() && id.bytes().all(|byte| byte.is_ascii_alphanumeric());
        let id = made.as_ref().and_then(|made| made["id"].as_str()).filter(fits);
        id.map(str::to_owned).ok_or_else(|| self.failed(&answered, now))
    }

    fn encode(&self, batch: &Batch, place: &str) -> Encoded {
        let is_add = !batch.changes.adds.is_empty();
        let identifiers = if is_add { &batch.changes.adds } else { &batch.changes.removes };
        let column = |identifier: &Identifier| {
            let found = COLUMNS.iter().find(|(ns, _)| *ns == identifier.namespace.as_str());
            found.map(|(_, column)| *column)
        };
        let mut schema: Vec<&'static str> = identifiers.iter().filter_map(column).collect();
        schema.sort_unstable();
        schema.dedup();
        let (mut data, mut refused) = (Vec::with_capacity(identifiers.len()), Vec::new());
        for (line, identifier) in identifiers.iter().enumerate() {
            let at = column(identifier).and_then(|of| schema.iter().position(|one| *one == of));
            match (at, unfit(identifier)) {
                (Some(at), None) => {
                    let mut row = vec![Cow::Borrowed(""); schema.len()];
                    // Of devices the platform knows the lower case; hashes are in it.
                    row[at] = match identifier.value() {
                        value if value.bytes().any(|byte| byte.is_ascii_uppercase()) => {
                            Cow::Owned(value.to_ascii_lowercase())
                        }
                        value => Cow::Borrowed(value),
                    };
                    data.push(row);
                }
                (None, _) => {
                    let why = "the platform takes no such identifier".to_owned();
                    refused.push(Refusal { line, why });
                }
                (_, Some(why)) => refused.push(Refusal { line, why: why.to_owned() }),
            }
        }
        let lines = data.len();
        // Of the batch's name, as much as a number there may have.
        let id = u64::from_str_radix(&batch.id().as_str()[..13], 16).unwrap_or(1);
        let session = Session {
            session_id: id,
            batch_seq: 1,
            last_batch_flag: true,
            estimated_num_total: lines,
        };
        let body = Body { session, payload: Payload { schema, is_raw: false, data } };
        Encoded {
            batch: batch.id(),
            method: if is_add { "POST" } else { "DELETE" },
            address: format!("/{place}/users"),
            body: serde_json::to_vec(&body).expect("texts and numbers are JSON"),
            lines,
            refused,
        }
    }

    fn deliver(&self, encoded: &Encoded, now: Millis) -> Verdict {
        match self.call(encoded.method, &encoded.address, &encoded.body, now) {
            Ok(answered) => self.judge(&answered, encoded.lines, now),
            Err(verdict) => verdict,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Namespace;
    use crate::store::ledger::Changes;
    use crate::store::ledger::Target;
    use std::collections::BTreeMap;

    const JANE: &str = "f41439c944a763c9812d700a779941cec169de13c9ccd13aaf9424ba5231620a";
    const PHONE: &str = "0000fd214ade3cd6a790d9a949f519b17b7c993625dd4782e14166523c66d415";

    fn connector() -> MetaConnector {
        let settings = Platform {
            url: "https://graph.facebook.com/v25.0".parse().unwrap(),
            account: "77".into(),
            token: "env:THRONG_NO_SUCH".parse().unwrap(),
            audiences: BTreeMap::new(),
            secret: None,
            ttl: None,
            version: None,
            source: None,
        };
        MetaConnector::new(settings, Outgoing::new())
    }

    fn identifier(namespace: &str, value: &str) -> Identifier {
        Identifier::new(Namespace::new(namespace).unwrap(), value).unwrap()
    }

    fn batch(adds: Vec<Identifier>, removes: Vec<Identifier>) -> Batch {
        let target = Target::new("meta", "buyers");
        let changes = Changes { adds, removes };
        Batch { target, generation: 12, seq: 3, true_for: 0, prepared_at: 0, changes }
    }

    #[test]
    fn ten_thousand_are_as_the_contract_has_them() {
        let read = |encoded: &Encoded, is_add: bool| {
            let body: Value = serde_json::from_slice(&encoded.body).map_err(|e| e.to_string())?;
            let method = if is_add { "POST" } else { "DELETE" };
            if (encoded.method, &*encoded.address) != (method, "/23857/users")
                || body["payload"]["is_raw"] != false
            {
                return Err("another call".to_owned());
            }
            let schema = body["payload"]["schema"].as_array().ok_or("no schema")?;
            if !schema
                .iter()
                .all(|key| ["EMAIL", "PHONE", "MADID"].contains(&key.as_str().unwrap_or_default()))
            {
                return Err(format!("{schema:?}"));
            }
            let mut found = Vec::new();
            for row in body["payload"]["data"].as_array().ok_or("no data")? {
                let cells = row
                    .as_array()
                    .filter(|cells| cells.len() == schema.len())
                    .ok_or("a column is missing")?;
                let full: Vec<(usize, &str)> = cells
                    .iter()
                    .enumerate()
                    .filter_map(|(at, cell)| Some((at, cell.as_str()?)))
                    .filter(|(_, cell)| !cell.is_empty())
                    .collect();
                let [(at, cell)] = full[..] else {
                    return Err(format!("several people in {cells:?}"));
                };
                if (schema[at] == "MADID") != (cell.len() == 36) {
                    return Err(format!("{cell} under {}", schema[at]));
                }
                found.push(cell.to_owned());
            }
            Ok(found)
        };
        super::super::testing::holds_for_ten_thousand(&connector(), ("23857", 4 << 20), &read);
    }

    #[test]
    fn how_many_are_matched_is_told_where_it_is_counted() {
        let told = |lower: i64, upper: i64| {
            let body = json!({ "approximate_count_lower_bound": lower, "approximate_count_upper_bound": upper, "id": "1" });
            matched(body.to_string().as_bytes())
        };
        assert_eq!(told(1_000, 1_200), Some(Matched { least: 1_000, most: 1_200 }));
        assert_eq!(
            (told(-1, -1), told(2, 1), matched(b"{}"), matched(b"no")),
            (None, None, None, None)
        );
    }

    #[test]
    fn a_batch_is_rows_of_one_identifier_each() {
        let adds = vec![
            identifier("email_sha256", JANE),
            identifier("idfa", "1F2E3D4C-0000-4000-8000-000000000001"),
            identifier("phone_digits_sha256", PHONE),
        ];
        let added = batch(adds.clone(), Vec::new());
        let encoded = connector().encode(&added, "23857");
        assert_eq!(encoded, connector().encode(&added, "23857"));
        assert_eq!((encoded.method, &*encoded.address), ("POST", "/23857/users"));
        let id = u64::from_str_radix(&added.id().as_str()[..13], 16).unwrap();
        let expected = format!(
            r#"{{"session":{{"session_id":{id},"batch_seq":1,"last_batch_flag":true,"estimated_num_total":3}},"payload":{{"schema":["EMAIL","MADID","PHONE"],"is_raw":false,"data":[["{JANE}","",""],["","1f2e3d4c-0000-4000-8000-000000000001",""],["","","{PHONE}"]]}}}}"#
        );
        assert_eq!(String::from_utf8(encoded.body).unwrap(), expected);
        let removed = connector().encode(&batch(Vec::new(), adds[..1].to_vec()), "23857");
        assert_eq!((removed.method, removed.lines), ("DELETE", 1));
        let body = String::from_utf8(removed.body).unwrap();
        assert!(body.contains(r#""schema":["EMAIL"],"is_raw":false,"data":[["f41439"#), "{body}");
    }

    #[test]
    fn what_is_no_hash_is_not_sent() {
        let adds = vec![
            identifier("email_sha256", "jane@example.com"),
            identifier("email_sha256", JANE),
            identifier("email_sha256", http::SHA256_OF_NOTHING),
            identifier("user_id", "1"),
            identifier("phone_digits_sha256", &PHONE.to_uppercase()),
        ];
        let encoded = connector().encode(&batch(adds, Vec::new()), "1");
        let refused: Vec<usize> = encoded.refused.iter().map(|refusal| refusal.line).collect();
        assert_eq!((encoded.lines, refused), (1, vec![0, 2, 3, 4]));
        assert!(!String::from_utf8(encoded.body).unwrap().contains("jane"));
    }

    fn answered(status: u16, body: &str) -> Answered {
        Answered { status, headers: Vec::new(), body: body.into() }
    }

    #[test]
    fn a_call_that_was_taken_may_have_wrong_rows() {
        let judge = |body: &str| connector().judge(&answered(200, body), 3, 0);
        let taken = |received, invalid| {
            format!(
                r#"{{"audience_id":"1","session_id":"1","num_received":{received},"num_invalid_entries":{invalid},"invalid_entry_samples":{{}}}}"#
            )
        };
        assert_eq!(judge(&taken(3, 0)), Verdict::Accepted);
        assert!(matches!(judge(&taken(3, 1)), Verdict::Split(_)));
        assert!(matches!(judge(&taken(2, 0)), Verdict::Unknown(_)));
        for odd in ["", "{}", "<html>", "[]", r#"{"num_received":"3"}"#] {
            assert!(matches!(judge(odd), Verdict::Unknown(_)), "{odd}");
        }
    }

    #[test]
    fn errors_are_judged_by_their_code() {
        let judge = |status: u16, code: i64, subcode: i64| {
            let body = format!(
                r#"{{"error":{{"message":"so","type":"OAuthException","code":{code},"error_subcode":{subcode}}}}}"#
            );
            connector().judge(&answered(status, &body), 3, 0)
        };
        for code in [190, 10, 200, 294, 2655, 100, 105, 1_487_301, 1_487_366] {
            assert!(matches!(judge(400, code, 0), Verdict::Fatal(_)), "{code}");
        }
        let Verdict::Fatal(why) = judge(400, 100, 1_713_230) else { panic!() };
        assert!(why.contains("until someone looks there"), "{why}");
        for code in [1, 2, 341, 368, 2650, 5000, 21_009] {
            assert!(matches!(judge(500, code, 0), Verdict::Retry(_)), "{code}");
        }
        for code in [4, 17, 613, 80_003] {
            assert_eq!(judge(400, code, 0), Verdict::Throttled(Some(MINUTE)), "{code}");
        }
        // Inside an answer that says that all is well.
        assert!(matches!(judge(200, 190, 0), Verdict::Fatal(_)));
        let plain = |status| connector().judge(&answered(status, "busy"), 3, 0);
        assert!(matches!(plain(502), Verdict::Retry(_)));
        assert!(matches!(plain(404), Verdict::Fatal(_)));
    }

    #[test]
    fn who_is_busy_is_left_alone_for_as_long_as_it_says() {
        let usage = |percent: u32, minutes: u32| {
            let text = format!(
                r#"{{"77":[{{"type":"custom_audience","call_count":{percent},"total_cputime":2,"total_time":3,"estimated_time_to_regain_access":{minutes}}}]}}"#
            );
            ("x-business-use-case-usage".to_owned(), text)
        };
        let connector = connector();
        let mut answer = answered(400, r#"{"error":{"message":"slow","code":80003}}"#);
        answer.headers = vec![usage(100, 7)];
        assert_eq!(connector.judge(&answer, 1, 5), Verdict::Throttled(Some(5 + 7 * MINUTE)));
        answer.headers = vec![usage(100, u32::MAX)];
        assert_eq!(connector.judge(&answer, 1, 5), Verdict::Throttled(Some(5 + LONGEST_WAIT)));
        assert_eq!(usage_of("not json"), (0.0, None));
        // Nothing is sent before that, though nobody is there to be asked.
        let call = Call { method: "GET", path: "/", headers: &[], body: b"" };
        let told = connector.api.call(&call, 5).unwrap_err();
        assert_eq!(told, Verdict::Throttled(Some(5 + LONGEST_WAIT)));
    }

    fn usage_of(text: &str) -> (f64, Option<Millis>) {
        let headers = vec![("x-business-use-case-usage".to_owned(), text.to_owned())];
        usage(&Answered { status: 200, headers, body: Vec::new() })
    }

    #[test]
    fn the_secret_is_proved_with_the_time() {
        // printf 'EAAB|1795500000' | openssl dgst -sha256 -hmac s3cret
        let query = proof("s3cret", "EAAB", 1_795_500_000);
        let proof = "de20cb25d24507ead6693f94637d2bcdaaa7939c3f950c5e30fd4a98a5658487";
        assert_eq!(query, format!("appsecret_proof={proof}&appsecret_time=1795500000"));
    }
}
