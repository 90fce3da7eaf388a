//! `kind = "pinterest"`: customer lists of Pinterest, of e-mail addresses.
//!
//! ```text
//! PATCH /ad_accounts/<account>/customer_lists/<list>   {"operation_type":"ADD"|"REMOVE","records":"<hash>,<hash>"}
//! ```
//! A list has one type, so a destination sends one namespace, that of `EMAIL`. The platform makes no list that is empty, so
//! lists are made there. It works on what it has taken for hours, and does not say then what it made of a record; its
//! counters count repeats, too. Both calls leave the list as if they had been made once.
//!
//! Written from the published description of v5, and verified against a stand-in; it never met the platform itself.

use serde::Deserialize;
use serde::Serialize;
use serde_json::Value;

use super::api::Api;
use super::api::Call;
use super::fit;
use super::http;
use crate::activate::connector::Caps;
use crate::activate::connector::Connector;
use crate::activate::connector::Encoded;
use crate::activate::connector::Place;
use crate::activate::connector::Verdict;
use crate::config::Platform;
use crate::model::Identifier;
use crate::model::Millis;
use crate::model::time::MINUTE;
use crate::net::Answered;
use crate::net::Limit;
use crate::net::Outgoing;
use crate::store::ledger::Batch;
use crate::store::ledger::Refusal;

/// How often a user of an app may call.
const LIMITS: &[Limit] = &[Limit::a_second(100)];
/// So many hashes are less than 1 MB.
const MAX_ROWS: usize = 10_000;
/// With fewer members an audience is not used.
const MIN_SIZE: u64 = 100;
const NAMESPACES: &[&str] = &["email_sha256"];

/// Keeps customer lists of one ad account.
pub struct PinterestConnector {
    api: Api,
    caps: Caps,
}

#[derive(Serialize)]
struct Body {
    operation_type: &'static str,
    records: String,
}

/// What is said of a call that was taken: the list.
#[derive(Deserialize)]
struct List {
    id: Value,
    #[serde(default)]
    exceptions: Value,
}

/// What is said of one that was not.
#[derive(Deserialize)]
struct Failed {
    code: i64,
    #[serde(default)]
    message: String,
}

impl PinterestConnector {
    /// A connector for an account; nothing is called yet.
    pub fn new(settings: Platform, outgoing: Outgoing) -> Self {
        let caps = Caps {
            max_rows: MAX_ROWS,
            namespaces: Some(NAMESPACES),
            mixes: false,
            ttl: None,
            min_size: Some(MIN_SIZE),
        };
        Self { api: Api::new(settings, outgoing, LIMITS), caps }
    }

    fn address(&self, list: &str) -> String {
        format!("/ad_accounts/{}/customer_lists/{list}", self.api.settings.account)
    }

    fn call(
        &self,
        method: &'static str,
        path: &str,
        body: &[u8],
        now: Millis,
    ) -> Result<Answered, Verdict> {
        let bearer = format!("Bearer {}", self.api.token()?);
        let mut headers = vec![("Authorization", bearer.as_str())];
        if !body.is_empty() {
            headers.push(("Content-Type", "application/json"));
        }
        self.api.call(&Call { method, path, headers: &headers, body }, now)
    }

    /// Judges the answer to a call whose address ends with the list.
    fn judge(&self, address: &str, answered: &Answered, now: Millis) -> Verdict {
        let name = self.api.name();
        let said = || http::said(&name, answered);
        let why = |what: &str| format!("{}; {what}", said());
        match answered.status {
            200..=299 => match serde_json::from_slice::<List>(&answered.body) {
                Ok(list) if !is_of(&list, address) => Verdict::Unknown(why("it is another list")),
                Ok(list) if has_exceptions(&list) => {
                    Verdict::Fatal(why("the list has errors; see to it there"))
                }
                Ok(_) => Verdict::Accepted,
                Err(_) => Verdict::Unknown(said()),
            },
            400 | 422 if speaks_of_records(answered) => Verdict::Split(said()),
            401 => Verdict::Fatal(why("the token is refused; give it a new one")),
            403 => Verdict::Fatal(why("the token may not write lists of this account")),
            404 => Verdict::Fatal(why("the list is not there, or not this account's")),
            413 => Verdict::Split(said()),
            429 => {
                let until = http::wait_until(answered, now);
                Verdict::Throttled(Some(until.unwrap_or(now + MINUTE)))
            }
            _ => http::later(&name, answered, now).unwrap_or_else(|| Verdict::Fatal(said())),
        }
    }
}

fn is_of(list: &List, address: &str) -> bool {
    let id = list.id.as_str().map_or_else(|| list.id.to_string(), str::to_owned);
    address.rsplit('/').next() == Some(id.as_str())
}

fn has_exceptions(list: &List) -> bool {
    match &list.exceptions {
        Value::Null => false,
        Value::Object(exceptions) => !exceptions.is_empty(),
        Value::Array(exceptions) => !exceptions.is_empty(),
        _ => true,
    }
}

/// Whether a refusal is for what is in the call. What else may be wrong with it concerns each half of it, too.
fn speaks_of_records(answered: &Answered) -> bool {
    let failed = serde_json::from_slice::<Failed>(&answered.body);
    failed.is_ok_and(|failed| failed.code > 0 && failed.message.to_lowercase().contains("record"))
}

/// What is wrong with an identifier, where it is not as the platform wants it.
fn unfit(identifier: &Identifier) -> Option<&'static str> {
    match identifier.namespace.as_str() {
        "email_sha256" => fit::unfit_hash(identifier.value()),
        _ => Some("the platform takes no such identifier"),
    }
}

impl Connector for PinterestConnector {
    fn caps(&self) -> &Caps {
        &self.caps
    }

    fn check(&self, now: Millis) -> Result<(), String> {
        let lists: Vec<&String> = self.api.settings.audiences.values().collect();
        if lists.is_empty() {
            return Err("no list is named: write the id of each segment's into `audiences`".into());
        }
        for list in lists {
            let address = self.address(list);
            let verdict = match self.call("GET", &address, b"", now) {
                Ok(answered) => self.judge(&address, &answered, now),
                Err(verdict) => verdict,
            };
            if let Some(why) = verdict.why() {
                return Err(why);
            }
        }
        Ok(())
    }

    fn place(&self, segment: &str) -> Place {
        self.api.place(segment)
    }

    fn make(&self, segment: &str, _now: Millis) -> Result<String, Verdict> {
        Err(Verdict::Fatal(format!(
            "{}: no list is named for {segment}, and none can be made empty: make one there, of the type EMAIL, and write \
             its id into `audiences` of the destination, as {{ {segment} = \"643\" }}",
            self.api.name()
        )))
    }

    fn encode(&self, batch: &Batch, place: &str) -> Encoded {
        let is_add = !batch.changes.adds.is_empty();
        let identifiers = if is_add { &batch.changes.adds } else { &batch.changes.removes };
        let (mut records, mut refused) = (Vec::with_capacity(identifiers.len()), Vec::new());
        for (line, identifier) in identifiers.iter().enumerate() {
            match unfit(identifier) {
                None => records.push(identifier.value()),
                Some(why) => refused.push(Refusal { line, why: why.to_owned() }),
            }
        }
        let lines = records.len();
        let operation_type = if is_add { "ADD" } else { "REMOVE" };
        let body = Body { operation_type, records: records.join(",") };
        Encoded {
            batch: batch.id(),
            method: "PATCH",
            address: self.address(place),
            body: serde_json::to_vec(&body).expect("texts are JSON"),
            lines,
            refused,
        }
    }

    fn deliver(&self, encoded: &Encoded, now: Millis) -> Verdict {
        let verdict = match self.call(encoded.method, &encoded.address, &encoded.body, now) {
            Ok(answered) => self.judge(&encoded.address, &answered, now),
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
    use crate::config::SecretSource;
    use crate::model::Namespace;
    use crate::store::ledger::Changes;
    use crate::store::ledger::Target;

    const NOW: Millis = 1_795_500_000_000;
    const JANE: &str = "f41439c944a763c9812d700a779941cec169de13c9ccd13aaf9424ba5231620a";
    const OTHER: &str = "dbf1912b4cad4df9823f627874244e64b50a6ac550b9cb33b17df671a26679db";

    fn connector(audiences: &[(&str, &str)]) -> PinterestConnector {
        let audiences = audiences.iter().map(|(segment, id)| ((*segment).into(), (*id).into()));
        let settings = Platform {
            url: "http://127.0.0.1:1/v5".parse().unwrap(),
            account: "549755885175".into(),
            token: SecretSource::Env("THRONG_NO_SUCH".into()),
            audiences: audiences.collect::<BTreeMap<_, _>>(),
            secret: None,
            ttl: None,
            version: None,
            source: None,
        };
        PinterestConnector::new(settings, Outgoing::new())
    }

    fn identifier(namespace: &str, value: &str) -> Identifier {
        Identifier::new(Namespace::new(namespace).unwrap(), value).unwrap()
    }

    fn encoded(adds: Vec<Identifier>, removes: Vec<Identifier>) -> Encoded {
        let batch = Batch {
            target: Target::new("pins", "buyers"),
            generation: 12,
            seq: 3,
            true_for: NOW,
            prepared_at: NOW,
            changes: Changes { adds, removes },
        };
        connector(&[]).encode(&batch, "643")
    }

    #[test]
    fn ten_thousand_are_as_the_contract_has_them() {
        let read = |encoded: &Encoded, is_add: bool| {
            let body: Value = serde_json::from_slice(&encoded.body).map_err(|e| e.to_string())?;
            if body["operation_type"] != if is_add { "ADD" } else { "REMOVE" } {
                return Err("another operation".to_owned());
            }
            let records = body["records"].as_str().ok_or("no records")?;
            Ok(records.split(',').filter(|one| !one.is_empty()).map(str::to_owned).collect())
        };
        super::super::testing::holds_for_ten_thousand(
            &connector(&[("buyers", "643")]),
            ("643", 4 << 20),
            &read,
        );
    }

    #[test]
    fn a_batch_is_one_call_with_the_same_bytes_each_time() {
        let both = || vec![identifier("email_sha256", OTHER), identifier("email_sha256", JANE)];
        let add = encoded(both(), Vec::new());
        assert_eq!(add, encoded(both(), Vec::new()));
        let expected = format!(r#"{{"operation_type":"ADD","records":"{OTHER},{JANE}"}}"#);
        assert_eq!(std::str::from_utf8(&add.body).unwrap(), expected);
        let address = "/ad_accounts/549755885175/customer_lists/643";
        assert_eq!((add.method, add.address.as_str(), add.lines), ("PATCH", address, 2));
        let remove = encoded(Vec::new(), vec![identifier("email_sha256", JANE)]);
        let expected = format!(r#"{{"operation_type":"REMOVE","records":"{JANE}"}}"#);
        assert_eq!(std::str::from_utf8(&remove.body).unwrap(), expected);
        assert_eq!((remove.lines, remove.refused), (1, Vec::new()));
    }

    #[test]
    fn what_is_no_hash_is_not_sent() {
        let encoded = encoded(
            vec![
                identifier("email_sha256", &JANE.to_uppercase()),
                identifier("email_sha256", "jane.doe@example.com"),
                identifier("email_sha256", OTHER),
                identifier("email_sha256", http::SHA256_OF_NOTHING),
                identifier("email_gmail_sha256", JANE),
                identifier("idfa", "123e4567-e89b-12d3-a456-426652340000"),
            ],
            Vec::new(),
        );
        let lines: Vec<usize> = encoded.refused.iter().map(|refusal| refusal.line).collect();
        assert_eq!((encoded.lines, lines), (1, vec![0, 1, 3, 4, 5]));
        let body = String::from_utf8(encoded.body).unwrap();
        assert_eq!(body, format!(r#"{{"operation_type":"ADD","records":"{OTHER}"}}"#));
        assert_eq!(encoded.refused[2].why, "it is the hash of nothing");
    }

    fn verdict(status: u16, retry_after: Option<&str>, body: &str) -> Verdict {
        let header = |value: &str| ("retry-after".to_owned(), value.to_owned());
        let headers = retry_after.map(header).into_iter().collect();
        let answered = Answered { status, headers, body: body.as_bytes().to_vec() };
        connector(&[]).judge("/ad_accounts/1/customer_lists/643", &answered, NOW)
    }

    #[test]
    fn the_body_of_an_answer_is_the_verdict() {
        for status in ["PROCESSING", "READY", "TOO_SMALL", "UPLOADING"] {
            let list = format!(
                r#"{{"ad_account_id":"1","id":"643","type":"customerlist","status":"{status}","num_uploaded_user_records":11,"exceptions":{{}}}}"#
            );
            assert_eq!(verdict(200, None, &list), Verdict::Accepted);
        }
        for body in
            [r#"{"id":"643"}"#, r#"{"id":643}"#, r#"{"id":"643","exceptions":null,"more":1}"#]
        {
            assert_eq!(verdict(200, None, body), Verdict::Accepted, "{body}");
        }
        for body in ["", "{}", "<html>", r#"{"id":"644"}"#, r#"{"id":null}"#, r#"{"code":2}"#] {
            assert!(matches!(verdict(200, None, body), Verdict::Unknown(_)), "{body}");
        }
        for exceptions in [r#"{"x":1}"#, "[1]", "\"broken\""] {
            let body = format!(r#"{{"id":"643","exceptions":{exceptions}}}"#);
            assert!(matches!(verdict(200, None, &body), Verdict::Fatal(_)), "{exceptions}");
        }
    }

    #[test]
    fn statuses_are_judged() {
        let failed = r#"{"code":7,"message":"no"}"#;
        for status in [301, 400, 401, 403, 404, 409, 422] {
            let verdict = verdict(status, Some("7"), failed);
            let Verdict::Fatal(why) = verdict else { panic!("{status}: {verdict:?}") };
            assert!(why.contains(&status.to_string()), "{why}");
        }
        let of_records = r#"{"code":1,"message":"Invalid Records"}"#;
        for (status, body) in [(400, of_records), (422, of_records), (413, ""), (413, failed)] {
            assert!(matches!(verdict(status, None, body), Verdict::Split(_)), "{status}");
        }
        assert!(matches!(verdict(403, None, of_records), Verdict::Fatal(_)));
        for status in [429, 500, 503] {
            let until = Verdict::Throttled(Some(NOW + 7_000));
            assert_eq!(verdict(status, Some("7"), failed), until, "{status}");
        }
        assert_eq!(verdict(429, None, ""), Verdict::Throttled(Some(NOW + MINUTE)));
        for status in [408, 500, 502, 503] {
            assert!(matches!(verdict(status, None, failed), Verdict::Retry(_)), "{status}");
        }
    }

    #[test]
    fn a_list_is_named_or_the_trouble_says_what_to_do() {
        let connector = connector(&[("buyers", "643")]);
        assert_eq!(connector.place("buyers"), Place::Named("643".into()));
        assert_eq!(connector.place("others"), Place::Made);
        let made = connector.make("others", NOW);
        let Err(Verdict::Fatal(why)) = made else { panic!("{made:?}") };
        assert!(why.contains("`audiences`") && why.contains("others = "), "{why}");
        assert_eq!(connector.check(0), Err("token: the variable THRONG_NO_SUCH is not set".into()));
        assert!(self::connector(&[]).check(0).unwrap_err().contains("no list is named"));
    }
}
