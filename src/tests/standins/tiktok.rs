//! TikTok's audiences as their contract has them: holds who is in each, and refuses what is not of the form.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::sync::Mutex;
use std::time::Duration;
use std::time::Instant;

use serde_json::Value;
use serde_json::json;

use super::Reply;
use super::Request;
use super::Service;

const BASE: &str = "/open_api/v1.3";
const SCHEMA: [&str; 6] =
    ["AAID_MD5", "AAID_SHA256", "EMAIL_SHA256", "IDFA_MD5", "IDFA_SHA256", "PHONE_SHA256"];
const NOTHING: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

/// An identifier: what it is, and its hash.
pub(crate) type Cell = (String, String);

/// One advertiser.
pub(crate) struct TikTok {
    account: String,
    token: String,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// In the order in which they were made.
    audiences: Vec<Audience>,
    bad: BTreeSet<String>,
    is_updating: bool,
    /// Paths of what came, without their queries.
    calls: Vec<String>,
    /// When each of them came.
    times: Vec<Instant>,
    violations: Vec<String>,
}

struct Audience {
    id: String,
    name: String,
    is_creator: bool,
    members: BTreeSet<Cell>,
}

/// Every answer has this form, and the status 200.
pub(crate) fn says(code: i64, message: &str) -> Reply {
    with_data(code, message, json!({}))
}

fn with_data(code: i64, message: &str, data: Value) -> Reply {
    let body = json!({ "code": code, "message": message, "request_id": "20261128", "data": data });
    Reply::new(200, body.to_string())
}

impl TikTok {
    pub(crate) fn new(account: &str, token: &str) -> Self {
        Self { account: account.to_owned(), token: token.to_owned(), state: Mutex::default() }
    }

    /// An audience that is there already; one of somebody else's where it is shared.
    pub(crate) fn add_audience(&self, id: &str, name: &str, is_creator: bool) {
        let (id, name) = (id.to_owned(), name.to_owned());
        let audience = Audience { id, name, is_creator, members: BTreeSet::new() };
        self.state.lock().unwrap().audiences.push(audience);
    }

    /// The ids of the advertiser's own audiences of a name.
    pub(crate) fn named(&self, name: &str) -> Vec<String> {
        let state = self.state.lock().unwrap();
        let own = state.audiences.iter().filter(|one| one.is_creator && one.name == name);
        own.map(|one| one.id.clone()).collect()
    }

    /// Who is in an audience. What was not as the contract has it fails the test.
    pub(crate) fn members(&self, id: &str) -> BTreeSet<Cell> {
        let state = self.state.lock().unwrap();
        assert_eq!(state.violations, [""; 0]);
        let found = state.audiences.iter().find(|one| one.id == id);
        found.map(|one| one.members.clone()).unwrap_or_default()
    }

    /// Hashes that it takes for no person.
    pub(crate) fn set_bad(&self, bad: &[&str]) {
        self.state.lock().unwrap().bad = bad.iter().map(|&one| one.to_owned()).collect();
    }

    /// Whether audiences are being worked on, and take no changes.
    pub(crate) fn set_updating(&self, is_updating: bool) {
        self.state.lock().unwrap().is_updating = is_updating;
    }

    pub(crate) fn calls(&self) -> Vec<String> {
        self.state.lock().unwrap().calls.clone()
    }

    /// The most calls that came within a second.
    pub(crate) fn busiest(&self) -> usize {
        let times = &self.state.lock().unwrap().times;
        let within = |(at, first): (usize, &Instant)| {
            let second = Duration::from_secs(1);
            times[at..].iter().take_while(|time| time.duration_since(*first) < second).count()
        };
        times.iter().enumerate().map(within).max().unwrap_or(0)
    }

    fn take(&self, request: &Request) -> Result<Reply, String> {
        let path = request.path.strip_prefix(BASE).ok_or("another version")?;
        let (path, query) = path.split_once('?').unwrap_or((path, ""));
        {
            let mut state = self.state.lock().unwrap();
            state.calls.push(path.to_owned());
            state.times.push(Instant::now());
        }
        if !path.ends_with('/') {
            return Err(format!("{path} does not end with a slash"));
        }
        match request.header("access-token").ok_or("no Access-Token")? {
            "" => return Ok(says(40_104, "Access token is empty")),
            token if token != self.token => return Ok(says(40_105, "Access token is incorrect")),
            _ => {}
        }
        match (request.method.as_str(), path) {
            ("GET", "/dmp/custom_audience/list/") => self.list(query),
            ("POST", "/segment/audience/") => self.make(&body(request, query)?),
            ("POST", "/segment/mapping/") => self.map(&body(request, query)?),
            (method, path) => Err(format!("{method} {path}")),
        }
    }

    fn list(&self, query: &str) -> Result<Reply, String> {
        let mut query: BTreeMap<&str, &str> =
            query.split('&').filter_map(|part| part.split_once('=')).collect();
        if query.remove("advertiser_id") != Some(self.account.as_str()) {
            return Err("another advertiser".into());
        }
        let mut number = |key: &str, default: usize| {
            query.remove(key).map_or(Ok(default), |text| text.parse().map_err(|_| key.to_owned()))
        };
        let (page, size) = (number("page", 1)?, number("page_size", 10)?);
        if page < 1 || !(1..=100).contains(&size) || !query.is_empty() {
            return Err(format!("page {page} of {size}, and {query:?}"));
        }
        let state = self.state.lock().unwrap();
        let shown = state.audiences.iter().skip((page - 1) * size).take(size).map(|one| {
            json!({ "audience_id": one.id, "name": one.name, "is_creator": one.is_creator,
                    "audience_type": "Customer File Audience", "cover_num": 0, "is_valid": true })
        });
        let list: Vec<Value> = shown.collect();
        let total = state.audiences.len();
        let info = json!({ "page": page, "page_size": size, "total_number": total,
                           "total_page": total.div_ceil(size) });
        Ok(with_data(0, "OK", json!({ "list": list, "page_info": info })))
    }

    fn make(&self, body: &Value) -> Result<Reply, String> {
        keys(body, &["action", "advertiser_id", "custom_audience_name"])?;
        if body["advertiser_id"] != self.account || body["action"] != "create" {
            return Err(format!("make {body}"));
        }
        let name = body["custom_audience_name"].as_str().ok_or("a name")?;
        let id = format!("7{:018}", self.state.lock().unwrap().audiences.len());
        self.add_audience(&id, name, true);
        Ok(with_data(0, "OK", json!({ "audience_id": id })))
    }

    fn map(&self, body: &Value) -> Result<Reply, String> {
        keys(body, &["action", "advertiser_ids", "batch_data", "id_schema"])?;
        if body["advertiser_ids"] != json!([self.account]) {
            return Err("other advertisers".into());
        }
        let adds = match body["action"].as_str() {
            Some("add") => true,
            Some("delete") => false,
            _ => return Err(format!("action {}", body["action"])),
        };
        let schema =
            body["id_schema"].as_array().filter(|list| !list.is_empty()).ok_or("schema")?;
        let schema: Vec<&str> = schema.iter().filter_map(Value::as_str).collect();
        let distinct: BTreeSet<&&str> = schema.iter().collect();
        if distinct.len() != schema.len() || schema.iter().any(|one| !SCHEMA.contains(one)) {
            return Err(format!("schema {schema:?}"));
        }
        let rows = body["batch_data"].as_array().filter(|rows| !rows.is_empty()).ok_or("rows")?;
        let mut cells = Vec::new();
        for row in rows {
            cells.extend(read(row, &schema)?);
        }
        if cells.len() > 1_000 {
            return Err(format!("{} ids", cells.len()));
        }
        let mut state = self.state.lock().unwrap();
        let State { audiences, bad, is_updating, .. } = &mut *state;
        if *is_updating {
            return Ok(says(40_002, "Audience is being updated, please try again later."));
        }
        let (mut changed, mut wrong) = (0, 0);
        for (audience, cell) in cells {
            let audience = audiences.iter_mut().find(|one| one.id == audience && one.is_creator);
            let members = &mut audience.ok_or("no such audience of ours")?.members;
            let is_done = match (bad.contains(&cell.1), adds) {
                (true, _) => {
                    wrong += 1;
                    continue;
                }
                (false, true) => members.insert(cell),
                (false, false) => members.remove(&cell),
            };
            changed += usize::from(is_done);
        }
        Ok(match (wrong, changed) {
            (1.., _) => says(20_001, "Partial success"),
            (0, 0) if adds => says(40_050, "Duplicate data"),
            _ => says(0, "OK"),
        })
    }
}

/// The body of a call that has no query.
fn body(request: &Request, query: &str) -> Result<Value, String> {
    if request.header("content-type") != Some("application/json") || !query.is_empty() {
        return Err("content type, or a query".into());
    }
    if request.body.len() > 1_000_000 {
        return Err(format!("{} bytes", request.body.len()));
    }
    serde_json::from_slice(&request.body).map_err(|error| error.to_string())
}

fn keys(value: &Value, expected: &[&str]) -> Result<(), String> {
    let mut keys: Vec<&str> = value.as_object().ok_or("an object")?.keys().map(|k| &**k).collect();
    keys.sort_unstable();
    if keys == expected { Ok(()) } else { Err(format!("keys {keys:?}")) }
}

/// The ids of a row, each with the audience that it is for.
fn read(row: &Value, schema: &[&str]) -> Result<Vec<(String, Cell)>, String> {
    let row = row.as_array().filter(|row| row.len() == schema.len()).ok_or("columns of a row")?;
    let mut cells = Vec::new();
    for (cell, column) in row.iter().zip(schema) {
        if *cell == json!({}) {
            continue;
        }
        keys(cell, &["audience_ids", "id"])?;
        let id = cell["id"].as_str().ok_or("an id")?;
        let is_hash = id.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
        let length = if column.ends_with("_MD5") { 32 } else { 64 };
        if !is_hash || id.len() != length || id == NOTHING {
            return Err(format!("{id} of {column}"));
        }
        let audiences = cell["audience_ids"].as_array().filter(|list| !list.is_empty());
        for audience in audiences.ok_or("audiences")? {
            let audience = audience.as_str().ok_or("an audience")?.to_owned();
            cells.push((audience, ((*column).to_owned(), id.to_owned())));
        }
    }
    if cells.is_empty() { Err("a row of nothing".into()) } else { Ok(cells) }
}

impl Service for TikTok {
    fn answer(&self, request: &Request) -> Reply {
        self.take(request).unwrap_or_else(|violation| {
            self.state.lock().unwrap().violations.push(violation.clone());
            says(40_002, &violation)
        })
    }
}
