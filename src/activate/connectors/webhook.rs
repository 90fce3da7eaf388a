//! `kind = "webhook"`: each batch is one signed call.
//!
//! ```text
//! POST url        {"destination","segment","generation","true_for","batch","adds":[{"user_id":["12680"]}],"removes":[…]}
//! Idempotency-Key     the batch's name: a repeat has the same, and the same bytes
//! X-Throng-Signature  t=<unix seconds>,v1=<hex HMAC-SHA256(secret, t "." body)>
//! ```
//! A member is one identifier: who has several comes several times, so that an identifier that two people share
//! stays while one of them is in the audience. Names of batches rise with `generation`, so a receiver may drop what
//! comes late.

use std::sync::Arc;
use std::time::Duration;

use hmac::Hmac;
use hmac::KeyInit;
use hmac::Mac;
use serde::Serialize;
use serde::Serializer;
use serde::ser::SerializeMap;
use sha2::Sha256;

use crate::activate::connector::Caps;
use crate::activate::connector::Connector;
use crate::activate::connector::Encoded;
use crate::activate::connector::Verdict;
use crate::activate::connectors::http;
use crate::config::SecretSource;
use crate::config::WebUrl;
use crate::model::Identifier;
use crate::model::Millis;
use crate::model::hex;
use crate::model::time::SECOND;
use crate::model::time::format_rfc3339;
use crate::net::Answered;
use crate::net::Clock;
use crate::net::Outgoing;
use crate::net::OutgoingRequest;
use crate::net::read_secret;
use crate::store::ledger::Batch;
use crate::store::ledger::BatchId;

/// Members of a call.
const MAX_ROWS: usize = 1_000;
/// How long a call may take.
const TIMEOUT: Duration = Duration::from_secs(10);

/// Calls an address.
#[derive(Clone)]
pub struct WebhookConnector {
    url: WebUrl,
    secret: SecretSource,
    outgoing: Outgoing,
    clock: Arc<dyn Clock>,
    caps: Caps,
}

/// The body of a call.
#[derive(Serialize)]
struct Body<'a> {
    destination: &'a str,
    segment: &'a str,
    generation: u64,
    true_for: String,
    batch: BatchId,
    adds: Vec<Member<'a>>,
    removes: Vec<Member<'a>>,
}

/// `{"user_id":["12680"]}`
struct Member<'a>(&'a Identifier);

impl Serialize for Member<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(Some(1))?;
        map.serialize_entry(self.0.namespace.as_str(), &[self.0.value()])?;
        map.end()
    }
}

impl WebhookConnector {
    /// A connector for an address; nothing is called yet.
    pub fn new(
        url: WebUrl,
        secret: SecretSource,
        outgoing: Outgoing,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self {
            url,
            secret,
            outgoing,
            clock,
            caps: Caps {
                max_rows: MAX_ROWS,
                namespaces: None,
                mixes: true,
                ttl: None,
                min_size: None,
            },
        }
    }
}

/// The value of `X-Throng-Signature` for a body that is sent at a time, in seconds since 1970.
fn signature(secret: &str, seconds: i64, body: &[u8]) -> String {
    let mut mac = Hmac::<Sha256>::new_from_slice(secret.as_bytes()).expect("any key will do");
    mac.update(format!("{seconds}.").as_bytes());
    mac.update(body);
    format!("t={seconds},v1={}", hex(&mac.finalize().into_bytes()))
}

impl Connector for WebhookConnector {
    fn caps(&self) -> &Caps {
        &self.caps
    }

    fn check(&self, _now: Millis) -> Result<(), String> {
        read_secret("secret", &self.secret)?;
        let head = OutgoingRequest {
            method: "HEAD",
            url: self.url.as_str(),
            headers: &[],
            body: &[],
            timeout: TIMEOUT,
        };
        // What it answers to a call without a batch says nothing of one with.
        match self.outgoing.call(&head) {
            Ok(_) => Ok(()),
            Err(error) => Err(format!("{} is out of reach: {error}", self.url)),
        }
    }

    fn encode(&self, batch: &Batch, _place: &str) -> Encoded {
        let body = Body {
            destination: &batch.target.destination,
            segment: &batch.target.segment,
            generation: batch.generation,
            true_for: format_rfc3339(batch.true_for),
            batch: batch.id(),
            adds: batch.changes.adds.iter().map(Member).collect(),
            removes: batch.changes.removes.iter().map(Member).collect(),
        };
        Encoded {
            batch: batch.id(),
            method: "POST",
            address: self.url.as_str().to_owned(),
            body: serde_json::to_vec(&body).expect("texts and numbers are JSON"),
            lines: batch.changes.len(),
            refused: Vec::new(),
        }
    }

    fn deliver(&self, encoded: &Encoded, now: Millis) -> Verdict {
        let secret = match read_secret("secret", &self.secret) {
            Ok(secret) => secret,
            Err(why) => return Verdict::Retry(why),
        };
        let signature = signature(&secret, self.clock.now().div_euclid(SECOND), &encoded.body);
        let request = OutgoingRequest {
            method: encoded.method,
            url: &encoded.address,
            headers: &[
                ("Content-Type", "application/json"),
                ("Idempotency-Key", encoded.batch.as_str()),
                ("X-Throng-Signature", &signature),
            ],
            body: &encoded.body,
            timeout: TIMEOUT,
        };
        match self.outgoing.call(&request) {
            Ok(answered) => self.judge(&answered, now),
            Err(error) => http::unanswered(&self.url.to_string(), &error),
        }
    }
}

impl WebhookConnector {
    fn judge(&self, answered: &Answered, now: Millis) -> Verdict {
        let (url, status) = (self.url.to_string(), answered.status);
        if let Some(later) = http::later(&url, answered, now) {
            return later;
        }
        match status {
            200..=299 => Verdict::Accepted,
            300..=399 => Verdict::Fatal(format!(
                "{url} answered {status}: it leads elsewhere, and calls are not sent on; give the destination its \
                 last address"
            )),
            _ => Verdict::Fatal(http::said(&url, answered)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::Namespace;
    use crate::model::time::DAY;
    use crate::net::OutgoingError;
    use crate::net::SystemClock;
    use crate::store::ledger::Changes;
    use crate::store::ledger::Target;

    fn connector() -> WebhookConnector {
        WebhookConnector::new(
            "https://crm.example/in?key=k3y".parse().unwrap(),
            SecretSource::Env("THRONG_NO_SUCH".into()),
            Outgoing::new(),
            Arc::new(SystemClock::default()),
        )
    }

    #[test]
    fn a_batch_is_one_call_with_the_same_bytes_each_time() {
        let identifier =
            |ns: &str, value: &str| Identifier::new(Namespace::new(ns).unwrap(), value).unwrap();
        let batch = Batch {
            target: Target::new("crm", "buyers"),
            generation: 12,
            seq: 3,
            true_for: 1_795_500_000_123,
            prepared_at: 0,
            changes: Changes {
                adds: vec![identifier("user_id", "12680"), identifier("user_id", "a \"b\" é")],
                removes: vec![identifier("cookie", "0a")],
            },
        };
        let encoded = connector().encode(&batch, "");
        assert_eq!(encoded, connector().encode(&batch, ""));
        assert_eq!(encoded.address, "https://crm.example/in?key=k3y");
        let expected = format!(
            r#"{{"destination":"crm","segment":"buyers","generation":12,"true_for":"2026-11-24T06:00:00.123Z","batch":"{}","adds":[{{"user_id":["12680"]}},{{"user_id":["a \"b\" é"]}}],"removes":[{{"cookie":["0a"]}}]}}"#,
            batch.id()
        );
        assert_eq!(String::from_utf8(encoded.body).unwrap(), expected);
    }

    #[test]
    fn a_call_is_signed_as_others_compute_it() {
        // printf '1795500000.{"a":1}' | openssl dgst -sha256 -hmac s3cret
        assert_eq!(
            signature("s3cret", 1_795_500_000, br#"{"a":1}"#),
            "t=1795500000,v1=23489ab7aa7615d38f9edcf616b39b92831a2745a1ee1fd9dcab786bc75e8228"
        );
    }

    #[test]
    fn answers_are_judged() {
        let connector = connector();
        let now = 1_795_500_000_000;
        let of = |status, retry_after: Option<&str>| {
            let header = |value: &str| ("retry-after".to_owned(), value.to_owned());
            let headers = retry_after.map(header).into_iter().collect();
            let answered = Answered { status, headers, body: b"no such key".to_vec() };
            connector.judge(&answered, now)
        };
        for status in [200, 201, 202, 204] {
            assert_eq!(of(status, None), Verdict::Accepted);
        }
        for status in [408, 425, 429, 500, 502, 503, 599] {
            assert!(matches!(of(status, None), Verdict::Retry(_)), "{status}");
            assert_eq!(of(status, Some("7")), Verdict::Throttled(Some(now + 7_000)));
        }
        for status in [301, 307, 400, 401, 404, 410, 413, 422] {
            let verdict = of(status, Some("7"));
            let Verdict::Fatal(why) = verdict else { panic!("{status}: {verdict:?}") };
            assert!(why.contains(&status.to_string()) && !why.contains("k3y"), "{why}");
        }
        assert_eq!(
            of(503, Some("Tue, 24 Nov 2026 06:00:30 GMT")),
            Verdict::Throttled(Some(now + 30_000))
        );
        assert_eq!(of(503, Some("Tue, 24 Nov 2020 06:00:30 GMT")), Verdict::Throttled(Some(now)));
        assert_eq!(of(503, Some("4294967295")), Verdict::Throttled(Some(now + DAY)));
        assert!(matches!(of(503, Some("soon")), Verdict::Retry(_)));
        let lost = OutgoingError::Lost("no answer in time".into());
        assert!(matches!(http::unanswered("it", &lost), Verdict::Unknown(_)));
        let not_sent = OutgoingError::NotSent("refused".into());
        assert!(matches!(http::unanswered("it", &not_sent), Verdict::Retry(_)));
    }

    #[test]
    fn without_its_secret_nothing_is_sent_and_the_trouble_says_why() {
        let connector = connector();
        let encoded = Encoded {
            batch: connector_batch().id(),
            method: "POST",
            address: "http://127.0.0.1:1/".into(),
            body: Vec::new(),
            lines: 0,
            refused: Vec::new(),
        };
        let verdict = connector.deliver(&encoded, 0);
        let Verdict::Retry(why) = verdict else { panic!("{verdict:?}") };
        assert_eq!(why, "secret: the variable THRONG_NO_SUCH is not set");
        assert_eq!(connector.check(0), Err(why));
    }

    fn connector_batch() -> Batch {
        Batch {
            target: Target::new("crm", "buyers"),
            generation: 1,
            seq: 1,
            true_for: 0,
            prepared_at: 0,
            changes: Changes::default(),
        }
    }
}
