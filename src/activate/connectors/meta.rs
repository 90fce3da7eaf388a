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
use super::http;
use crate::activate::connector::Caps;
use crate::activate::connector::Connector;
use crate::activate::connector::Encoded;
use crate::activate::connector::Place;
use crate::activate::connector::Verdict;
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
    data: Vec<Vec<&'a str>>,
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
        let caps = Caps { max_rows: MAX_ROWS, namespaces: Some(NAMESPACES), mixes: false };
        Self { api: Api::new(settings, outgoing), caps }
    }

    /// Makes a call of the account's; `path` has no query.
    fn call(
        &self,
        method: &'static str,
        path: &str,
        body: &[u8],
        now: Millis,
    ) -> Result<Answered, Verdict> {
        let token = self.api.token()?;
        let proof = self.api.secret()?.map(|secret| proof(&secret, &token, now.div_euclid(SECOND)));
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
    format!("?appsecret_proof={}&appsecret_time={seconds}", hex(&mac.finalize().into_bytes()))
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
    let value = identifier.value();
    match identifier.namespace.as_str() {
        "email_sha256" | "phone_digits_sha256" if !http::is_sha256(value) => {
            Some("it is no SHA-256 in lower-case hexadecimal")
        }
        "email_sha256" | "phone_digits_sha256" if value == http::SHA256_OF_NOTHING => {
            Some("it is the hash of nothing")
        }
        _ => None,
    }
}

impl Connector for MetaConnector {
    fn caps(&self) -> &Caps {
        &self.caps
    }

    fn check(&self) -> Result<(), String> {
        let path = format!("/act_{}", self.api.settings.account);
        let verdict = match self.call("GET", &path, b"", 0) {
            Ok(answered) if answered.status == 200 => return Ok(()),
            Ok(answered) => self.failed(&answered, 0),
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
        let id = made.as_ref().and_then(|made| made["id"].as_str());
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
                    let mut row = vec![""; schema.len()];
                    row[at] = identifier.value();
                    data.push(row);
                }
                (_, why) => {
                    let why = why.unwrap_or("the platform takes no such identifier").to_owned();
                    refused.push(Refusal { line, why });
                }
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
