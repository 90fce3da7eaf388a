//! `kind = "tiktok"`: TikTok custom audiences.
//!
//! ```text
//! POST /segment/mapping/   {"action":"add"|"delete","id_schema":["EMAIL_SHA256","IDFA_SHA256"],
//!                           "batch_data":[[{"id":"<hash>","audience_ids":["<audience>"]},{}],…]}
//! GET  /dmp/custom_audience/list/   finds an audience by its name
//! POST /segment/audience/           makes one
//! ```
//! A row is one identifier, in its column of `id_schema`; the others hold `{}`, so that none moves. The status is
//! always 200: the body's `code` is the verdict. Where it says that some rows are wrong it does not say which, so such
//! a batch is halved. Both actions leave the audience as if they had been made once.
//!
//! Written from the published contract of v1.3, and verified against a stand-in; it never met the platform itself.

use std::borrow::Cow;

use serde::Deserialize;
use serde::Serialize;
use serde_json::Value;
use serde_json::json;
use sha2::Digest;
use sha2::Sha256;

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
use crate::model::hex;
use crate::model::time::MINUTE;
use crate::model::time::SECOND;
use crate::model::time::day_of;
use crate::model::time::day_start;
use crate::net::Answered;
use crate::net::Limit;
use crate::net::Outgoing;
use crate::store::ledger::Batch;
use crate::store::ledger::Refusal;

/// How often an app may call.
const LIMITS: &[Limit] = &[Limit::a_second(10), Limit::a_minute(600)];
/// Identifiers of a call. Also with the longest name of an audience they come to less than its 1 MB.
const MAX_ROWS: usize = 1_000;
/// With fewer members an audience is not used.
const MIN_SIZE: u64 = 1_000;
const NAMESPACES: &[&str] = &["email_sha256", "phone_e164_sha256", "idfa", "gaid"];
/// Audiences of a page of their list: the most that there may be.
const PAGE: usize = 100;
/// Of an account with more pages, an audience has to be named in the configuration.
const MOST_PAGES: u64 = 100;
/// An audience that is being worked on is left alone for so long.
const UPDATING: Millis = 10 * MINUTE;
/// So much of a message is shown.
const SHOWN: usize = 300;

/// Keeps custom audiences of one advertiser.
pub struct TikTokConnector {
    api: Api,
    caps: Caps,
}

#[derive(Serialize)]
struct Body<'a> {
    advertiser_ids: [&'a str; 1],
    action: &'static str,
    id_schema: Vec<&'static str>,
    batch_data: Vec<Vec<Cell<'a>>>,
}

/// An identifier in its column, or `{}` in one that is not its own.
#[derive(Default, Clone, Serialize)]
struct Cell<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<Cow<'a, str>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    audience_ids: Option<[&'a str; 1]>,
}

/// What a call says of itself, read back to judge its answer.
#[derive(Deserialize)]
struct Action<'a> {
    action: &'a str,
}

/// Every answer.
#[derive(Deserialize)]
struct Said {
    code: i64,
    message: Option<String>,
    #[serde(default)]
    data: Value,
}

impl TikTokConnector {
    /// A connector for an advertiser; nothing is called yet.
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

    fn call(
        &self,
        method: &'static str,
        path: &str,
        body: &[u8],
        now: Millis,
    ) -> Result<Answered, Verdict> {
        let token = self.api.token()?;
        let headers = [("Access-Token", token.as_str()), ("Content-Type", "application/json")];
        let headers = if body.is_empty() { &headers[..1] } else { &headers[..] };
        self.api.call(&Call { method, path, headers, body }, now)
    }

    /// The data of an answer that says that all went well.
    fn data(&self, answered: &Answered, now: Millis) -> Result<Value, Verdict> {
        match read(answered) {
            Some(Said { code: 0, data, .. }) => Ok(data),
            _ => Err(judge(&self.api.name(), answered, false, now)),
        }
    }

    /// A page of the list of audiences.
    fn page(&self, page: u64, size: usize, now: Millis) -> Result<Value, Verdict> {
        let account = &self.api.settings.account;
        let path = format!(
            "/dmp/custom_audience/list/?advertiser_id={account}&page={page}&page_size={size}"
        );
        let answered = self.call("GET", &path, b"", now)?;
        self.data(&answered, now)
    }
}

fn read(answered: &Answered) -> Option<Said> {
    match answered.status {
        200..=299 => serde_json::from_slice(&answered.body).ok(),
        _ => None,
    }
}

/// What the answer to a call means; `adds` where it was one to add. Pure.
fn judge(name: &str, answered: &Answered, adds: bool, now: Millis) -> Verdict {
    let Some(Said { code, message, .. }) = read(answered) else {
        let later = http::later(name, answered, now);
        return later.unwrap_or_else(|| match answered.status {
            200..=299 => Verdict::Unknown(http::said(name, answered)),
            _ => Verdict::Fatal(http::said(name, answered)),
        });
    };
    let message = message.unwrap_or_default();
    let shown: String = message.chars().filter(|c| !c.is_control()).take(SHOWN).collect();
    let why = |what: &str| format!("{name}: {what} ({code}: {shown})");
    match code {
        0 => Verdict::Accepted,
        20_001 => Verdict::Split(why("some of it is not taken")),
        40_002 if is_updating(&message) => {
            Verdict::NotReady(now + UPDATING, why("the audience cannot be changed now"))
        }
        // It is there already, which is what was asked for.
        40_050 if adds => Verdict::Accepted,
        40_016 | 40_100 => Verdict::Throttled(again(answered, &message, now)),
        40_001 => Verdict::Fatal(why("the token may not do this")),
        40_102..=40_105 => Verdict::Fatal(why("the token is refused; give it a new one")),
        50_000..=59_999 => Verdict::Retry(why("try again")),
        _ => Verdict::Fatal(why("refused")),
    }
}

/// Whether a wrong parameter is none: an audience that is new, small or being worked on takes no changes for a while.
fn is_updating(message: &str) -> bool {
    let message = message.to_lowercase();
    let says = |words: &[&str]| words.iter().any(|word| message.contains(word));
    let is_small = says(&["1000", "1,000"]) && says(&["below", "less", "fewer", "under", "<"]);
    is_small || says(&["updating", "being updated"])
}

/// When calls are taken again, by the limit that a message names: by second, by minute or by day.
fn again(answered: &Answered, message: &str, now: Millis) -> Option<Millis> {
    let message = message.to_lowercase();
    let says = |words: [&str; 3]| words.iter().any(|word| message.contains(word));
    let by_limit = if says(["qpd", "per day", "daily"]) {
        Some(day_start(day_of(now) + 1))
    } else if says(["qpm", "per minute", "minutely"]) {
        Some(now + 5 * MINUTE)
    } else if says(["qps", "per second", "secondly"]) {
        Some((now.div_euclid(SECOND) + 1) * SECOND)
    } else {
        None
    };
    http::wait_until(answered, now).or(by_limit)
}

/// The column of an identifier, and what stands there; else why it has none. Devices are hashed here, in lower case.
fn cell(identifier: &Identifier) -> Result<(&'static str, Cow<'_, str>), &'static str> {
    let value = identifier.value();
    let hash = |column| match fit::unfit_hash(value) {
        None => Ok((column, Cow::Borrowed(value))),
        Some(why) => Err(why),
    };
    let device = |column| match fit::unfit_device(value) {
        None => Ok((column, Cow::Owned(hex(&Sha256::digest(value.to_ascii_lowercase()))))),
        Some(why) => Err(why),
    };
    match identifier.namespace.as_str() {
        "email_sha256" => hash("EMAIL_SHA256"),
        "phone_e164_sha256" => hash("PHONE_SHA256"),
        "idfa" => device("IDFA_SHA256"),
        "gaid" => device("AAID_SHA256"),
        _ => Err("the platform takes no such identifier"),
    }
}

/// A name of the platform's: a text, or a number of any length.
fn name_of(value: &Value) -> Option<String> {
    match value {
        Value::String(text) if !text.is_empty() => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

impl Connector for TikTokConnector {
    fn caps(&self) -> &Caps {
        &self.caps
    }

    fn check(&self, now: Millis) -> Result<(), String> {
        let verdict = match self.page(1, 1, now) {
            Ok(_) => return Ok(()),
            Err(verdict) => verdict,
        };
        verdict.why().map_or(Ok(()), Err)
    }

    fn place(&self, segment: &str) -> Place {
        self.api.place(segment)
    }

    fn find(&self, segment: &str, now: Millis) -> Result<Found, Verdict> {
        let name = self.api.name();
        let write = "write its id into `audiences` of the destination";
        let mut found: Option<String> = None;
        for page in 1..=MOST_PAGES {
            let data = self.page(page, PAGE, now)?;
            let Some(list) = data["list"].as_array() else {
                return Err(Verdict::Retry(format!("{name} gave no list of audiences")));
            };
            // What others share with us is not ours to change.
            let is_ours = |one: &&Value| {
                one["name"].as_str() == Some(segment) && one["is_creator"].as_bool() != Some(false)
            };
            for id in list.iter().filter(is_ours).filter_map(|one| name_of(&one["audience_id"])) {
                if found.as_ref().is_some_and(|earlier| *earlier != id) {
                    let why =
                        format!("{name} has two audiences named {segment}: choose, and {write}");
                    return Err(Verdict::Fatal(why));
                }
                found = Some(id);
            }
            let is_last = match data["page_info"]["total_page"].as_u64() {
                Some(pages) => page >= pages,
                None => list.len() < PAGE,
            };
            if is_last {
                return Ok(found.map_or(Found::Nothing, Found::Place));
            }
        }
        let most = MOST_PAGES * PAGE as u64;
        let why =
            format!("{name} has more than {most} audiences: make one for {segment}, and {write}");
        Err(Verdict::Fatal(why))
    }

    fn make(&self, segment: &str, now: Millis) -> Result<String, Verdict> {
        let body = json!({
            "custom_audience_name": segment,
            "advertiser_id": self.api.settings.account,
            "action": "create",
        });
        let body = body.to_string();
        let answered = self.call("POST", "/segment/audience/", body.as_bytes(), now)?;
        if let Some(Said { code: 40_050, .. }) = read(&answered) {
            let why = format!("{}: {segment} is there already and is looked for", self.api.name());
            return Err(Verdict::Retry(why));
        }
        let data = self.data(&answered, now)?;
        let said = || Verdict::Unknown(http::said(&self.api.name(), &answered));
        name_of(&data["audience_id"]).ok_or_else(said)
    }

    fn encode(&self, batch: &Batch, place: &str) -> Encoded {
        let adds = !batch.changes.adds.is_empty();
        let identifiers = if adds { &batch.changes.adds } else { &batch.changes.removes };
        let (mut cells, mut refused) = (Vec::with_capacity(identifiers.len()), Vec::new());
        for (line, identifier) in identifiers.iter().enumerate() {
            match cell(identifier) {
                Ok(cell) => cells.push(cell),
                Err(why) => refused.push(Refusal { line, why: why.to_owned() }),
            }
        }
        let mut id_schema: Vec<&'static str> = cells.iter().map(|(column, _)| *column).collect();
        id_schema.sort_unstable();
        id_schema.dedup();
        let lines = cells.len();
        let rows = cells.into_iter().map(|(column, id)| {
            let mut id = Some(id);
            let cell = |of: &&'static str| match *of == column {
                true => Cell { id: id.take(), audience_ids: Some([place]) },
                false => Cell::default(),
            };
            id_schema.iter().map(cell).collect()
        });
        let batch_data = rows.collect();
        let body = Body {
            advertiser_ids: [&self.api.settings.account],
            action: if adds { "add" } else { "delete" },
            id_schema,
            batch_data,
        };
        Encoded {
            batch: batch.id(),
            method: "POST",
            address: "/segment/mapping/".to_owned(),
            body: serde_json::to_vec(&body).expect("texts are JSON"),
            lines,
            refused,
        }
    }

    fn deliver(&self, encoded: &Encoded, now: Millis) -> Verdict {
        let action = serde_json::from_slice::<Action<'_>>(&encoded.body);
        let adds = action.is_ok_and(|said| said.action == "add");
        match self.call(encoded.method, &encoded.address, &encoded.body, now) {
            Ok(answered) => judge(&self.api.name(), &answered, adds, now),
            Err(verdict) => verdict,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::SecretSource;
    use crate::model::Namespace;
    use crate::model::time::HOUR;
    use crate::store::ledger::Changes;
    use crate::store::ledger::Target;

    const NOW: Millis = 1_795_500_000_123;
    const JANE: &str = "f41439c944a763c9812d700a779941cec169de13c9ccd13aaf9424ba5231620a";
    const PHONE: &str = "b4fa1a0e9e520f7186de1a00b1b84abb55a5c7feab09e7c3b8059ca32a6abd4f";
    const DEVICE: &str = "4b61639e-47cc-4056-a16a-c8217e029462";

    fn connector() -> TikTokConnector {
        let settings = Platform {
            url: "https://business-api.tiktok.com/open_api/v1.3".parse().unwrap(),
            account: "7001".into(),
            token: SecretSource::Env("THRONG_NO_SUCH".into()),
            audiences: [("loyal".to_owned(), "23857".to_owned())].into(),
            secret: None,
            ttl: None,
            version: None,
            source: None,
        };
        TikTokConnector::new(settings, Outgoing::new())
    }

    fn identifier(namespace: &str, value: &str) -> Identifier {
        Identifier::new(Namespace::new(namespace).unwrap(), value).unwrap()
    }

    fn batch(adds: Vec<Identifier>, removes: Vec<Identifier>) -> Batch {
        Batch {
            target: Target::new("tiktok", "buyers"),
            generation: 12,
            seq: 3,
            true_for: NOW,
            prepared_at: 0,
            changes: Changes { adds, removes },
        }
    }

    #[test]
    fn ten_thousand_are_as_the_contract_has_them() {
        let read = |encoded: &Encoded, is_add: bool| {
            let body: Value = serde_json::from_slice(&encoded.body).map_err(|e| e.to_string())?;
            if body["action"] != if is_add { "add" } else { "delete" } {
                return Err("another action".to_owned());
            }
            let schema = body["id_schema"].as_array().ok_or("no schema")?;
            let mut found = Vec::new();
            for row in body["batch_data"].as_array().ok_or("no data")? {
                let cells = row
                    .as_array()
                    .filter(|cells| cells.len() == schema.len())
                    .ok_or("a column is missing")?;
                let full: Vec<&Value> = cells.iter().filter(|cell| **cell != json!({})).collect();
                let [cell] = full[..] else { return Err(format!("several people in {cells:?}")) };
                if cell["audience_ids"] != json!(["23857"]) {
                    return Err(cell.to_string());
                }
                found.push(cell["id"].as_str().ok_or("no id")?.to_owned());
            }
            Ok(found)
        };
        let write = |identifier: &Identifier| match identifier.namespace.as_str() {
            "idfa" | "gaid" => hex(&Sha256::digest(identifier.value().to_lowercase())),
            _ => identifier.value().to_owned(),
        };
        super::super::testing::holds_as_written(&connector(), ("23857", 1 << 20), &write, &read);
    }

    #[test]
    fn columns_are_those_of_the_batch_and_none_moves() {
        let identifiers = vec![
            identifier("email_sha256", JANE),
            identifier("email_sha256", "jane@example.com"),
            identifier("gaid", DEVICE),
            identifier("idfa", &DEVICE.to_uppercase()),
            identifier("idfa", "4b61639e"),
            identifier("phone_e164_sha256", PHONE),
            identifier("phone_e164_sha256", http::SHA256_OF_NOTHING),
            identifier("user_id", "12680"),
        ];
        let adds = batch(identifiers.clone(), Vec::new());
        let encoded = connector().encode(&adds, "23857");
        assert_eq!(encoded, connector().encode(&adds, "23857"));
        assert_eq!((encoded.method, encoded.address.as_str()), ("POST", "/segment/mapping/"));
        // printf 4b61639e-47cc-4056-a16a-c8217e029462 | sha256sum
        let device = "225859d35b46df63b4fb381eb3f815b2ef4620bec0a79f2115a6a3eb71a5fa1a";
        let cell = |id: &str| format!(r#"{{"id":"{id}","audience_ids":["23857"]}}"#);
        let expected = |action: &str| {
            format!(
                r#"{{"advertiser_ids":["7001"],"action":"{action}","id_schema":["AAID_SHA256","EMAIL_SHA256","IDFA_SHA256","PHONE_SHA256"],"batch_data":[[{{}},{jane},{{}},{{}}],[{device},{{}},{{}},{{}}],[{{}},{{}},{device},{{}}],[{{}},{{}},{{}},{phone}]]}}"#,
                jane = cell(JANE),
                device = cell(device),
                phone = cell(PHONE),
            )
        };
        assert_eq!(String::from_utf8(encoded.body).unwrap(), expected("add"));
        let refused: Vec<(usize, &str)> =
            encoded.refused.iter().map(|refusal| (refusal.line, refusal.why.as_str())).collect();
        assert_eq!(refused.iter().map(|(line, _)| *line).collect::<Vec<_>>(), [1, 4, 6, 7]);
        assert_eq!(refused[0].1, "it is no SHA-256 in lower-case hexadecimal");
        assert_eq!(refused[2].1, "it is the hash of nothing");
        assert_eq!(encoded.lines, 4);
        let encoded = connector().encode(&batch(Vec::new(), identifiers), "23857");
        assert_eq!(String::from_utf8(encoded.body).unwrap(), expected("delete"));

        let encoded =
            connector().encode(&batch(vec![identifier("email_sha256", JANE)], vec![]), "1");
        assert_eq!(
            String::from_utf8(encoded.body).unwrap(),
            format!(
                r#"{{"advertiser_ids":["7001"],"action":"add","id_schema":["EMAIL_SHA256"],"batch_data":[[{{"id":"{JANE}","audience_ids":["1"]}}]]}}"#
            )
        );
    }

    #[test]
    fn the_largest_call_is_less_than_a_megabyte() {
        let kinds = [
            ("email_sha256", JANE),
            ("phone_e164_sha256", PHONE),
            ("idfa", DEVICE),
            ("gaid", DEVICE),
        ];
        let identifiers =
            kinds.iter().cycle().take(MAX_ROWS).map(|(ns, value)| identifier(ns, value)).collect();
        let encoded = connector().encode(&batch(identifiers, Vec::new()), &"9".repeat(128));
        assert_eq!(encoded.lines, MAX_ROWS);
        assert!(encoded.body.len() < 1_000_000, "{}", encoded.body.len());
    }

    #[test]
    fn an_audience_is_that_of_the_configuration_or_is_made() {
        assert_eq!(connector().place("loyal"), Place::Named("23857".into()));
        assert_eq!(connector().place("buyers"), Place::Made);
    }

    fn answered(status: u16, body: &str) -> Answered {
        Answered { status, headers: Vec::new(), body: body.as_bytes().to_vec() }
    }

    fn says(code: i64, message: &str) -> Answered {
        answered(200, &json!({ "code": code, "message": message, "data": {} }).to_string())
    }

    /// What a verdict is, without its words.
    fn kind(verdict: &Verdict) -> &'static str {
        match verdict {
            Verdict::Accepted => "accepted",
            Verdict::Partial(_) => "partial",
            Verdict::Staged(_) => "staged",
            Verdict::Split(_) => "split",
            Verdict::Throttled(_) => "throttled",
            Verdict::NotReady(..) => "not ready",
            Verdict::Retry(_) => "retry",
            Verdict::Unknown(_) => "unknown",
            Verdict::Gone(_) => "gone",
            Verdict::Fatal(_) => "fatal",
        }
    }

    #[test]
    fn the_code_is_the_verdict() {
        let midnight = 1_795_564_800_000;
        for (code, message, adds, expected) in [
            (0, "OK", true, "accepted"),
            (20_001, "Partial success", true, "split"),
            (20_001, "Partial success", false, "split"),
            (40_001, "No permission to operate audience", true, "fatal"),
            (40_002, "id_schema: unknown value", true, "fatal"),
            (40_002, "The audience is Updating, try again later", true, "not ready"),
            (40_002, "Audience size is below 1000", false, "not ready"),
            (40_050, "Duplicate", true, "accepted"),
            (40_050, "Duplicate", false, "fatal"),
            (40_016, "Too many requests", true, "throttled"),
            (40_100, "Too many requests", true, "throttled"),
            (40_102, "Access token is expired", true, "fatal"),
            (40_104, "Access token is empty", true, "fatal"),
            (40_105, "Access token is incorrect or has been revoked", true, "fatal"),
            (41_000, "Something new", true, "fatal"),
            (50_000, "System error", true, "retry"),
            (50_002, "Internal service error", false, "retry"),
            (51_010, "Internal service timeout", false, "retry"),
        ] {
            let verdict = judge("it", &says(code, message), adds, NOW);
            assert_eq!(kind(&verdict), expected, "{code} {message}: {verdict:?}");
            let told = verdict.why().unwrap_or_else(|| message.to_owned());
            assert!(told.contains(message) || expected == "throttled", "{told}");
        }
        let waits = |code, message| match judge("it", &says(code, message), true, NOW) {
            Verdict::Throttled(until) => until,
            verdict => panic!("{verdict:?}"),
        };
        assert_eq!(waits(40_100, "QPS limit reached"), Some(1_795_500_001_000));
        assert_eq!(waits(40_016, "more than 600 requests per minute"), Some(NOW + 5 * MINUTE));
        assert_eq!(waits(40_100, "QPD limit reached"), Some(midnight));
        assert!(midnight - NOW < 24 * HOUR && midnight % (24 * HOUR) == 0);
        assert_eq!(waits(40_100, "slower"), None);
        let updating = judge("it", &says(40_002, "it is being updated"), true, NOW);
        let Verdict::NotReady(until, _) = updating else { panic!("{updating:?}") };
        assert_eq!(until, NOW + 10 * MINUTE);
    }

    #[test]
    fn an_answer_without_a_code_is_judged_by_its_status() {
        for (status, body, expected) in [
            (200, "", "unknown"),
            (200, "<html>", "unknown"),
            (200, r#"{"message":"OK"}"#, "unknown"),
            (200, r#"{"code":"0"}"#, "unknown"),
            (200, r#"{"code":0,"message":null,"data":null}"#, "accepted"),
            (301, "", "fatal"),
            (404, r#"{"code":0}"#, "fatal"),
            (429, "", "retry"),
            (502, r#"{"code":0}"#, "retry"),
        ] {
            let verdict = judge("it", &answered(status, body), true, NOW);
            assert_eq!(kind(&verdict), expected, "{status} {body}: {verdict:?}");
        }
        let mut slower = answered(429, "");
        slower.headers.push(("retry-after".into(), "7".into()));
        assert_eq!(judge("it", &slower, true, NOW), Verdict::Throttled(Some(NOW + 7 * SECOND)));
    }

    #[test]
    fn what_is_said_is_shown_in_part_and_on_one_line() {
        let verdict = judge("it", &says(40_002, &format!("a\n{}", "b".repeat(9_999))), true, NOW);
        let Verdict::Fatal(why) = verdict else { panic!("{verdict:?}") };
        assert!(why.len() < 400 && !why.contains('\n'), "{why}");
    }
}
