//! Meta's custom audiences: one ad account with its audiences and their members. Takes calls as the official SDK makes
//! them (forms, and a query for removals) and as JSON.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::sync::Mutex;

use hmac::Hmac;
use hmac::KeyInit;
use hmac::Mac;
use serde_json::Map;
use serde_json::Value;
use serde_json::json;
use sha2::Sha256;

use super::Reply;
use super::Request;
use super::Service;

/// A member: the column, and what stands in it.
pub(crate) type Cell = (String, String);

pub(crate) struct Meta {
    account: String,
    token: Mutex<String>,
    secret: Option<String>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    audiences: BTreeMap<String, Audience>,
    /// Values that it counts as invalid.
    bad: BTreeSet<String>,
    /// How busy the account is said to be, in percent.
    busy: u32,
    calls: Vec<(String, usize)>,
    violations: Vec<String>,
}

#[derive(Default)]
struct Audience {
    name: String,
    members: BTreeSet<Cell>,
}

/// An answer that is an error of the platform's.
fn error(status: u16, code: i64, subcode: i64, message: &str) -> Reply {
    let error = json!({ "message": message, "type": "OAuthException", "code": code,
        "error_subcode": subcode, "fbtrace_id": "A1" });
    Reply::new(status, json!({ "error": error }).to_string())
}

/// An answer that asks to wait so many minutes.
pub(crate) fn throttled(minutes: u32) -> Reply {
    let usage = json!({ "123": [{ "type": "custom_audience", "call_count": 100, "total_cputime": 1,
        "total_time": 1, "estimated_time_to_regain_access": minutes }] });
    error(400, 80_003, 0, "too many calls").with("X-Business-Use-Case-Usage", &usage.to_string())
}

fn is_hash(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b))
}

impl Meta {
    pub(crate) fn new(account: &str, token: &str, secret: Option<&str>) -> Self {
        Self {
            account: account.to_owned(),
            token: Mutex::new(token.to_owned()),
            secret: secret.map(str::to_owned),
            state: Mutex::default(),
        }
    }

    /// Other tokens are refused from now on.
    pub(crate) fn set_token(&self, token: &str) {
        *self.token.lock().unwrap() = token.to_owned();
    }

    pub(crate) fn set_bad(&self, bad: &[&str]) {
        self.state.lock().unwrap().bad = bad.iter().map(|value| (*value).to_owned()).collect();
    }

    pub(crate) fn set_busy(&self, percent: u32) {
        self.state.lock().unwrap().busy = percent;
    }

    pub(crate) fn add_audience(&self, id: &str) {
        self.state.lock().unwrap().audiences.insert(id.to_owned(), Audience::default());
    }

    /// Who is in an audience. What was not as the contract has it fails the test.
    pub(crate) fn members(&self, id: &str) -> BTreeSet<Cell> {
        let state = self.state.lock().unwrap();
        assert_eq!(state.violations, [""; 0]);
        state.audiences.get(id).map(|audience| audience.members.clone()).unwrap_or_default()
    }

    /// Empties an audience.
    pub(crate) fn forget_members(&self, id: &str) {
        self.state.lock().unwrap().audiences.get_mut(id).unwrap().members.clear();
    }

    /// The ids of the audiences with a name.
    pub(crate) fn named(&self, name: &str) -> Vec<String> {
        let state = self.state.lock().unwrap();
        let found = state.audiences.iter().filter(|(_, audience)| audience.name == name);
        found.map(|(id, _)| id.clone()).collect()
    }

    /// The methods of the calls that brought members, and how many each did.
    pub(crate) fn calls(&self) -> Vec<(String, usize)> {
        self.state.lock().unwrap().calls.clone()
    }

    fn take(&self, request: &Request) -> Result<Reply, String> {
        let (path, query) = request.path.split_once('?').unwrap_or((&request.path, ""));
        let mut fields: BTreeMap<String, String> =
            url::form_urlencoded::parse(query.as_bytes()).into_owned().collect();
        let mut body = Value::Null;
        match request.header("content-type") {
            Some(kind) if kind.starts_with("application/x-www-form-urlencoded") => {
                fields.extend(url::form_urlencoded::parse(&request.body).into_owned());
            }
            Some("application/json") if !request.body.is_empty() => {
                body = serde_json::from_slice(&request.body).map_err(|e| e.to_string())?;
            }
            _ if request.body.is_empty() => {}
            kind => return Err(format!("content type {kind:?}")),
        }
        let bearer = request.header("authorization").and_then(|text| text.strip_prefix("Bearer "));
        let token = bearer.map(str::to_owned).or_else(|| fields.remove("access_token"));
        let Some(token) = token.filter(|token| token == &*self.token.lock().unwrap()) else {
            return Ok(error(400, 190, 463, "Error validating access token"));
        };
        let proof = (fields.remove("appsecret_proof"), fields.remove("appsecret_time"));
        self.check_proof(&token, proof)?;
        for (key, value) in std::mem::take(&mut fields) {
            let value = serde_json::from_str(&value).unwrap_or(Value::String(value));
            if body.is_null() {
                body = Value::Object(Map::new());
            }
            body.as_object_mut().ok_or("a body that is no object")?.insert(key, value);
        }
        let parts: Vec<&str> = path.trim_start_matches('/').split('/').collect();
        let [version, rest @ ..] = parts.as_slice() else { return Err(path.to_owned()) };
        if !["v25.0", "v26.0"].contains(version) {
            return Err(format!("version {version}"));
        }
        let own = format!("act_{}", self.account);
        match (request.method.as_str(), rest) {
            ("GET", [account]) if *account == own => {
                Ok(Reply::new(200, json!({ "id": own }).to_string()))
            }
            ("GET", [audience]) => self.count(audience, &body),
            ("POST", [account, "customaudiences"]) if *account == own => self.make(&body),
            ("POST" | "DELETE", [audience, "users"]) => {
                self.change(&request.method, audience, &body)
            }
            (method, _) => Err(format!("{method} {path}")),
        }
    }

    /// About how many of an audience are known, as the fields that are asked for say it.
    fn count(&self, audience: &str, body: &Value) -> Result<Reply, String> {
        let asked = body["fields"].as_str().ok_or("no fields")?;
        let state = self.state.lock().unwrap();
        let Some(audience) = state.audiences.get(audience) else {
            return Ok(error(400, 100, 33, "Unsupported get request"));
        };
        let count = audience.members.len() as i64;
        // Few are not told.
        let (least, most) = if count < 1_000 { (-1, -1) } else { (count / 100 * 100, count + 100) };
        let mut told = Map::new();
        for field in asked.split(',') {
            let value = match field {
                "approximate_count_lower_bound" => least,
                "approximate_count_upper_bound" => most,
                other => return Err(format!("field {other}")),
            };
            told.insert(field.to_owned(), value.into());
        }
        Ok(Reply::new(200, Value::Object(told).to_string()))
    }

    fn check_proof(
        &self,
        token: &str,
        proof: (Option<String>, Option<String>),
    ) -> Result<(), String> {
        let Some(secret) = &self.secret else {
            return if proof == (None, None) { Ok(()) } else { Err("a proof for nothing".into()) };
        };
        let (proof, time) = (proof.0.ok_or("no proof")?, proof.1);
        let text = time.map_or(token.to_owned(), |time| format!("{token}|{time}"));
        let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).unwrap();
        mac.update(text.as_bytes());
        let expected: String =
            mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        if proof == expected { Ok(()) } else { Err("a wrong proof".into()) }
    }

    fn make(&self, body: &Value) -> Result<Reply, String> {
        let object = body.as_object().ok_or("no object")?;
        let known = ["name", "subtype", "customer_file_source", "description"];
        if let Some(key) = object.keys().find(|key| !known.contains(&key.as_str())) {
            return Err(format!("an audience with {key}"));
        }
        let sources =
            ["USER_PROVIDED_ONLY", "PARTNER_PROVIDED_ONLY", "BOTH_USER_AND_PARTNER_PROVIDED"];
        if body["subtype"] != "CUSTOM"
            || !sources.iter().any(|source| body["customer_file_source"] == *source)
        {
            return Err(format!("{body}"));
        }
        let name = body["name"].as_str().filter(|name| !name.is_empty()).ok_or("no name")?;
        let mut state = self.state.lock().unwrap();
        let id = format!("23000{}", state.audiences.len());
        let audience = Audience { name: name.to_owned(), members: BTreeSet::new() };
        state.audiences.insert(id.clone(), audience);
        Ok(Reply::new(200, json!({ "id": id }).to_string()))
    }

    fn change(&self, method: &str, audience: &str, body: &Value) -> Result<Reply, String> {
        let object = body.as_object().ok_or("no object")?;
        if let Some(key) = object.keys().find(|key| !["session", "payload"].contains(&key.as_str()))
        {
            return Err(format!("members with {key}"));
        }
        if let Some(session) = object.get("session") {
            let keys: Vec<&str> =
                session.as_object().ok_or("a session")?.keys().map(|key| &**key).collect();
            if keys != ["batch_seq", "estimated_num_total", "last_batch_flag", "session_id"]
                || session["session_id"].as_u64().is_none()
                || session["batch_seq"].as_u64().is_none_or(|seq| seq < 1)
            {
                return Err(format!("{session}"));
            }
        }
        let payload = object.get("payload").and_then(Value::as_object).ok_or("no payload")?;
        let known = ["schema", "data", "is_raw", "data_source", "app_ids", "hash"];
        if let Some(key) = payload.keys().find(|key| !known.contains(&key.as_str())) {
            return Err(format!("a payload with {key}"));
        }
        let (rows, cells) = rows(&payload["schema"], &payload["data"])?;
        if rows == 0 || rows > 10_000 {
            return Ok(error(400, 105, 0, "too many or no rows"));
        }
        let mut state = self.state.lock().unwrap();
        let State { audiences, bad, busy, calls, .. } = &mut *state;
        let Some(audience) = audiences.get_mut(audience) else {
            return Ok(error(400, 100, 33, "Object with that ID does not exist"));
        };
        calls.push((method.to_owned(), rows));
        let (wrong, right): (Vec<Cell>, Vec<Cell>) =
            cells.into_iter().partition(|(_, value)| bad.contains(value));
        for cell in right {
            match method {
                "POST" => _ = audience.members.insert(cell),
                _ => _ = audience.members.remove(&cell),
            }
        }
        let answer = json!({ "audience_id": "a", "session_id": "1", "num_received": rows,
            "num_invalid_entries": wrong.len(), "invalid_entry_samples": {} });
        let usage = json!({ "123": [{ "type": "custom_audience", "call_count": *busy,
            "total_cputime": 1, "total_time": 1, "estimated_time_to_regain_access": 0 }] });
        let reply = Reply::new(200, answer.to_string());
        Ok(reply.with("X-Business-Use-Case-Usage", &usage.to_string()))
    }
}

/// How many rows there are, and the cells of them all.
fn rows(schema: &Value, data: &Value) -> Result<(usize, Vec<Cell>), String> {
    let data = data.as_array().ok_or("no data")?;
    let (columns, is_flat): (Vec<&str>, bool) = match schema {
        Value::String(one) => (vec![one], true),
        Value::Array(many) => (many.iter().filter_map(Value::as_str).collect(), false),
        _ => return Err("no schema".into()),
    };
    let mut cells = Vec::new();
    for row in data {
        let row: Vec<&str> = match row {
            Value::String(one) if is_flat => vec![one],
            Value::Array(many) => many.iter().filter_map(Value::as_str).collect(),
            _ => return Err(format!("a row {row}")),
        };
        if row.len() != columns.len() || row.iter().all(|cell| cell.is_empty()) {
            return Err(format!("a row of {} for {} columns", row.len(), columns.len()));
        }
        for (column, cell) in columns.iter().zip(row).filter(|(_, cell)| !cell.is_empty()) {
            let column = match (*column, is_flat) {
                ("EMAIL_SHA256", true) | ("EMAIL", false) => "EMAIL",
                ("PHONE_SHA256", true) | ("PHONE", false) => "PHONE",
                ("MADID", _) => "MADID",
                ("EXTERN_ID", false) => "EXTERN_ID",
                ("COUNTRY", false) => "COUNTRY",
                _ => return Err(format!("column {column}")),
            };
            if !["MADID", "EXTERN_ID"].contains(&column) && !is_hash(cell) {
                return Err(format!("{column} is no hash"));
            }
            cells.push((column.to_owned(), cell.to_owned()));
        }
    }
    Ok((data.len(), cells))
}

impl Service for Meta {
    fn answer(&self, request: &Request) -> Reply {
        self.take(request).unwrap_or_else(|violation| {
            self.state.lock().unwrap().violations.push(violation.clone());
            error(400, 100, 0, &violation)
        })
    }
}
