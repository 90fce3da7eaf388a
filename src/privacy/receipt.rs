//! Receipts: what was erased and what is pending, signed, and without an identifier.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::signature::ED25519;
use ring::signature::UnparsedPublicKey;
use serde_json::Value;
use serde_json::json;

use super::Privacy;
use super::PrivacyError;
use super::job::HeldAt;
use super::job::Job;
use super::job::Stage;
use super::keys::public;
use crate::model::Millis;
use crate::model::time::format_rfc3339;

/// A receipt as it is handed out: `receipt`, and the `signature` over its JSON without white space, members in the order
/// of their names.
#[derive(Debug, Clone, PartialEq)]
pub struct Receipt {
    /// The document.
    pub document: Value,
    /// Whether nothing is pending.
    pub is_done: bool,
}

/// No id of an erasure has more bytes.
const MOST_ID: usize = 64;

impl Privacy {
    /// The receipt of an erasure, as it stands now.
    pub fn receipt(&self, id: &str) -> Result<Receipt, PrivacyError> {
        let unknown = || PrivacyError::Unknown(id.to_owned());
        // What an id never is, no store is asked for.
        let is_id = |byte: u8| matches!(byte, b'0'..=b'9' | b'a'..=b'f' | b'-');
        if id.is_empty() || id.len() > MOST_ID || !id.bytes().all(is_id) {
            return Err(unknown());
        }
        let job = self.job(id)?.ok_or_else(unknown)?;
        self.signed(&job)
    }

    /// The last receipts, the latest first.
    pub fn receipts(&self, limit: usize) -> Result<Vec<Receipt>, PrivacyError> {
        self.last_jobs(limit)?.iter().map(|job| self.signed(job)).collect()
    }

    /// The public key that receipts are verified with: Ed25519, in base64url.
    pub fn receipt_key(&self) -> Result<String, PrivacyError> {
        Ok(public(&*self.keys.receipts(&*self.parts.shelf)?))
    }

    fn signed(&self, job: &Job) -> Result<Receipt, PrivacyError> {
        let key = self.keys.receipts(&*self.parts.shelf)?;
        let receipt = self.told(job);
        let signature = key.sign(receipt.to_string().as_bytes());
        let document = json!({
            "receipt": receipt,
            "signature": {
                "algorithm": "Ed25519",
                "key": public(&*key),
                "value": URL_SAFE_NO_PAD.encode(signature.as_ref()),
            },
        });
        Ok(Receipt { document, is_done: job.stage == Stage::Done })
    }

    fn told(&self, job: &Job) -> Value {
        let time = |time: Option<Millis>| time.map(format_rfc3339);
        let sum = |of: fn(&super::job::Swept) -> Option<u64>| -> u64 {
            job.lanes.values().filter_map(of).sum()
        };
        let done = job.lanes.values().filter(|swept| swept.is_done).count();
        let lanes = match job.stage {
            Stage::Asked | Stage::Forgotten => {
                u64::from(self.parts.lane_count).saturating_sub(done as u64)
            }
            Stage::Swept | Stage::Done => 0,
        };
        let held: Vec<Value> = job
            .held
            .iter()
            .map(|HeldAt { destination, segment, identifiers }| {
                json!({
                    "destination": destination,
                    "segment": segment,
                    "identifiers": identifiers,
                })
            })
            .collect();
        json!({
            "id": job.id,
            "asked_at": format_rfc3339(job.asked_at),
            "asked_by": job.asked_by,
            "namespace": job.namespace,
            "subject": job.prints.first(),
            "person": job.person,
            "suppress": job.suppress,
            "erased_before": format_rfc3339(job.before),
            "state": job.stage,
            "forgotten_at": time(job.forgotten_at),
            "swept_at": time(job.swept_at),
            "done_at": time(job.done_at),
            "erased": {
                "profiles": job.profiles,
                "identifiers": job.identifier_count,
                "events": job.events,
                "archived_events": sum(|swept| swept.events),
                "dead_letters": sum(|swept| swept.dead_letters),
                "events_set_aside": job.set_aside.values().sum::<u64>(),
            },
            "pending": {
                "profiles": job.stage == Stage::Asked,
                "lanes": lanes,
                "destinations": held,
            },
        })
    }
}

/// Whether a receipt was signed with a key; the key that it names where none is given. The error says what is wrong.
pub fn verify(document: &Value, key: Option<&str>) -> Result<(), String> {
    let receipt = document.get("receipt").ok_or("it has no `receipt`: this is no receipt")?;
    let signature = document.get("signature").ok_or("it has no `signature`")?;
    let text = |name: &str| {
        let text = signature.get(name).and_then(Value::as_str);
        text.ok_or_else(|| format!("its signature has no `{name}`"))
    };
    if text("algorithm")? != "Ed25519" {
        return Err("its signature is not of Ed25519".to_owned());
    }
    let named = text("key")?;
    if key.is_some_and(|key| key != named) {
        return Err("it was signed with another key than the store's".to_owned());
    }
    let decode = |text: &str| {
        URL_SAFE_NO_PAD.decode(text).map_err(|_| "its signature is no base64url".to_owned())
    };
    let key = UnparsedPublicKey::new(&ED25519, decode(named)?);
    key.verify(receipt.to_string().as_bytes(), &decode(text("value")?)?).map_err(|_| {
        "its signature does not fit: it was changed, or not signed with this key".into()
    })
}
