//! A receiver of signed calls: holds what it was told, and refuses what is not as the contract has it.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::sync::Mutex;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

use hmac::Hmac;
use hmac::KeyInit;
use hmac::Mac;
use serde_json::Value;
use sha2::Sha256;

use super::Reply;
use super::Request;
use super::Service;

/// An identifier: namespace and value.
pub(crate) type Line = (String, String);

/// The receiver.
pub(crate) struct Webhook {
    secret: String,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    held: BTreeMap<String, BTreeSet<Line>>,
    /// The bytes of each batch.
    batches: BTreeMap<String, Vec<u8>>,
    repeats: usize,
    largest: usize,
    violations: Vec<String>,
}

impl Webhook {
    pub(crate) fn new(secret: &str) -> Self {
        Self { secret: secret.to_owned(), state: Mutex::default() }
    }

    /// What it holds of a segment. What was not as the contract has it fails the test.
    pub(crate) fn held(&self, segment: &str) -> BTreeSet<Line> {
        let state = self.state.lock().unwrap();
        assert_eq!(state.violations, [""; 0]);
        state.held.get(segment).cloned().unwrap_or_default()
    }

    /// How many batches came, and how often one came again.
    pub(crate) fn batches(&self) -> (usize, usize) {
        let state = self.state.lock().unwrap();
        (state.batches.len(), state.repeats)
    }

    /// Members of the largest call.
    pub(crate) fn largest(&self) -> usize {
        self.state.lock().unwrap().largest
    }

    fn take(&self, request: &Request) -> Result<(), String> {
        let header = |name| request.header(name).ok_or_else(|| format!("no {name}"));
        if (request.method.as_str(), request.path.as_str()) != ("POST", "/in?key=k3y") {
            return Err(format!("{} {}", request.method, request.path));
        }
        if header("content-type")? != "application/json" {
            return Err("content type".into());
        }
        let signature = header("x-throng-signature")?;
        let (time, code) = signature
            .strip_prefix("t=")
            .and_then(|rest| rest.split_once(",v1="))
            .ok_or(signature)?;
        #[expect(clippy::disallowed_methods, reason = "a receiver has the clock of its system")]
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        if now.abs_diff(time.parse().map_err(|_| "time of the signature")?) > 300 {
            return Err("an old signature".into());
        }
        let mut mac = Hmac::<Sha256>::new_from_slice(self.secret.as_bytes()).unwrap();
        mac.update(time.as_bytes());
        mac.update(b".");
        mac.update(&request.body);
        let expected: String =
            mac.finalize().into_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
        if code != expected {
            return Err("signature".into());
        }
        let body: Value = serde_json::from_slice(&request.body).map_err(|e| e.to_string())?;
        let keys: Vec<&str> = body.as_object().ok_or("an object")?.keys().map(|k| &**k).collect();
        let known =
            ["adds", "batch", "destination", "generation", "removes", "segment", "true_for"];
        if keys != known {
            return Err(format!("keys {keys:?}"));
        }
        let text = |key: &str| body[key].as_str().ok_or_else(|| format!("{key} is no text"));
        let (batch, segment) = (text("batch")?, text("segment")?);
        if batch != header("idempotency-key")? {
            return Err("the key is not the batch".into());
        }
        if body["generation"].as_u64().is_none() || text("true_for")?.len() != 24 {
            return Err("generation or time".into());
        }
        let (adds, removes) = (members(&body["adds"])?, members(&body["removes"])?);
        if adds.len() + removes.len() > 1_000 || adds.iter().any(|add| removes.contains(add)) {
            return Err("too many members, or one on both sides".into());
        }
        let mut state = self.state.lock().unwrap();
        state.largest = state.largest.max(adds.len() + removes.len());
        match state.batches.get(batch) {
            Some(bytes) if *bytes != request.body => return Err("a repeat with other bytes".into()),
            Some(_) => {
                state.repeats += 1;
                return Ok(());
            }
            None => _ = state.batches.insert(batch.to_owned(), request.body.clone()),
        }
        let held = state.held.entry(segment.to_owned()).or_default();
        held.extend(adds);
        removes.iter().for_each(|line| _ = held.remove(line));
        Ok(())
    }
}

/// Each is an object of namespaces with lists of values.
fn members(value: &Value) -> Result<Vec<Line>, String> {
    let mut lines = Vec::new();
    for member in value.as_array().ok_or("a list of members")? {
        let ids = member.as_object().filter(|ids| !ids.is_empty()).ok_or("a member")?;
        for (namespace, values) in ids {
            let values = values.as_array().filter(|values| !values.is_empty()).ok_or("values")?;
            for value in values {
                lines.push((namespace.clone(), value.as_str().ok_or("a value")?.to_owned()));
            }
        }
    }
    Ok(lines)
}

impl Service for Webhook {
    fn answer(&self, request: &Request) -> Reply {
        if request.method == "HEAD" {
            return Reply::new(405, "");
        }
        match self.take(request) {
            Ok(()) => Reply::new(202, "{}"),
            Err(violation) => {
                self.state.lock().unwrap().violations.push(violation.clone());
                Reply::new(400, violation)
            }
        }
    }
}
