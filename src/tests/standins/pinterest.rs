//! Customer lists of Pinterest: holds the records of each list, and refuses what is not as the contract has it.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::sync::Mutex;

use serde_json::Value;
use serde_json::json;

use super::Reply;
use super::Request;
use super::Service;

const MOST_BYTES: usize = 1_000_000;

/// The platform, as one ad account sees it.
pub(crate) struct Pinterest {
    account: String,
    token: String,
    state: Mutex<State>,
}

#[derive(Default)]
struct List {
    records: BTreeSet<String>,
    uploaded: usize,
    removed: usize,
    batches: usize,
}

#[derive(Default)]
struct State {
    lists: BTreeMap<String, List>,
    /// Records that make a call be refused, without a word of which.
    bad: BTreeSet<String>,
    calls: usize,
    largest: usize,
    violations: Vec<String>,
}

impl Pinterest {
    /// An account with one list.
    pub(crate) fn new(account: &str, token: &str, list: &str) -> Self {
        let lists = BTreeMap::from([(list.to_owned(), List::default())]);
        let state = Mutex::new(State { lists, ..State::default() });
        Self { account: account.to_owned(), token: token.to_owned(), state }
    }

    /// What is in a list. What was not as the contract has it fails the test.
    pub(crate) fn held(&self, list: &str) -> BTreeSet<String> {
        let state = self.state.lock().unwrap();
        assert_eq!(state.violations, [""; 0]);
        state.lists[list].records.clone()
    }

    /// Refuses every call with a record from now on, or none.
    pub(crate) fn refuse(&self, record: Option<&str>) {
        self.state.lock().unwrap().bad = record.map(str::to_owned).into_iter().collect();
    }

    /// How many calls came.
    pub(crate) fn calls(&self) -> usize {
        self.state.lock().unwrap().calls
    }

    /// Records of the largest call.
    pub(crate) fn largest(&self) -> usize {
        self.state.lock().unwrap().largest
    }

    fn take(&self, request: &Request) -> Result<Reply, String> {
        let mut state = self.state.lock().unwrap();
        let header = |name| request.header(name).ok_or_else(|| format!("no {name}"));
        if header("authorization")? != format!("Bearer {}", self.token) {
            return Err("the token".into());
        }
        let folder = format!("/v5/ad_accounts/{}/customer_lists/", self.account);
        let id = request.path.strip_prefix(&folder).ok_or_else(|| request.path.clone())?.to_owned();
        let State { lists, bad, calls, largest, .. } = &mut *state;
        let Some(list) = lists.get_mut(&id) else {
            return Ok(Reply::new(404, r#"{"code":50,"message":"Customer list not found."}"#));
        };
        match request.method.as_str() {
            "GET" => return Ok(shown(&self.account, &id, list)),
            "PATCH" => *calls += 1,
            other => return Err(other.to_owned()),
        }
        if header("content-type")? != "application/json" || request.body.len() > MOST_BYTES {
            return Err("content type, or too large".into());
        }
        let body: Value = serde_json::from_slice(&request.body).map_err(|e| e.to_string())?;
        let keys: Vec<&str> = body.as_object().ok_or("an object")?.keys().map(|k| &**k).collect();
        if keys != ["operation_type", "records"] {
            return Err(format!("keys {keys:?}"));
        }
        let records: Vec<&str> = body["records"].as_str().ok_or("records")?.split(',').collect();
        let is_hash = |record: &&str| {
            record.len() == 64 && record.chars().all(|c| matches!(c, '0'..='9' | 'a'..='f'))
        };
        let once: BTreeSet<&str> = records.iter().copied().collect();
        if !records.iter().all(is_hash) || once.len() != records.len() {
            return Err("a record that is no hash, or one twice".into());
        }
        *largest = (*largest).max(records.len());
        if records.iter().any(|record| bad.contains(*record)) {
            return Ok(Reply::new(400, r#"{"code":1,"message":"Invalid records."}"#));
        }
        list.batches += 1;
        match body["operation_type"].as_str() {
            Some("ADD") => {
                list.uploaded += records.len();
                list.records.extend(records.into_iter().map(str::to_owned));
            }
            Some("REMOVE") => {
                list.removed += records.len();
                list.records.retain(|record| !once.contains(record.as_str()));
            }
            other => return Err(format!("operation {other:?}")),
        }
        Ok(shown(&self.account, &id, list))
    }
}

fn shown(account: &str, id: &str, list: &List) -> Reply {
    let shown = json!({
        "ad_account_id": account,
        "created_time": 1_452_208_622,
        "exceptions": {},
        "id": id,
        "name": "Made by hand",
        "num_batches": list.batches,
        "num_removed_user_records": list.removed,
        "num_uploaded_user_records": list.uploaded,
        "status": if list.batches == 0 { "TOO_SMALL" } else { "PROCESSING" },
        "type": "customerlist",
        "updated_time": 1_461_269_616,
    });
    Reply::new(200, shown.to_string())
}

impl Service for Pinterest {
    fn answer(&self, request: &Request) -> Reply {
        match self.take(request) {
            Ok(reply) => reply,
            Err(violation) => {
                self.state.lock().unwrap().violations.push(violation.clone());
                let body = json!({ "code": 1, "message": format!("violation: {violation}") });
                Reply::new(400, body.to_string())
            }
        }
    }
}
