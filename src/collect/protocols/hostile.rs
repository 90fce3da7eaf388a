//! Whatever the network sends is read without a panic, within its bounds, and into what the canonical form takes or refuses.

use proptest::prelude::*;

use super::draft::from_query;
use super::gather::Read;
use super::gather::Unread;
use super::golden::recorded;
use super::matomo;
use super::segment;
use super::snowplow;
use super::unomi;
use crate::ingest::canonical::Agents;
use crate::ingest::canonical::Arrival;
use crate::ingest::canonical::Dropped;
use crate::ingest::canonical::Window;
use crate::model::NamespaceOrder;
use crate::model::Source;

const RECORDED: [&str; 12] = [
    "segment-analytics-node.json",
    "segment-analytics-next-page.json",
    "rudder-analytics-js-batch.json",
    "jitsu-js-identify.json",
    "snowplow-node-tracker.json",
    "snowplow-browser-tracker.json",
    "snowplow-node-tracker.txt",
    "snowplow-browser-tracker.txt",
    "matomo-js.txt",
    "matomo-tracker.json",
    "apache-unomi-tracker-context.json",
    "apache-unomi-tracker-eventcollector.json",
];
/// What means something in one of the protocols, to put anywhere.
const PIECES: [&str; 16] = [
    "\"", "\\", "{", "}", "[", "]", ",", ":", "null", "1e999", "\\ud800", "&", "=", "%", "\0", "-",
];

/// Takes all that was read on to the form that is journaled.
fn finish(read: Result<Read, Unread>) {
    let order = NamespaceOrder::default();
    let arrival = Arrival {
        source: Source::Js,
        received: 1_700_000_000_000,
        window: Window::Within(86_400_000),
        order: &order,
        phone_country: Some("DE"),
        cookie: None,
        user_agent: None,
        country: None,
        locale: None,
        consent: None,
    };
    let (mut agents, mut dropped) = (Agents::default(), Dropped::default());
    for sent in read.into_iter().flatten().flatten() {
        let _ = sent.consent().map(|said| said.gdpr_applies());
        if let Ok(event) = sent.into_event(&arrival, &mut agents, &mut || None, &mut dropped) {
            assert!(!event.ids.is_empty() && (1..=128).contains(&event.name.len()));
        }
    }
}

/// Reads bytes by every protocol.
fn by_all(bytes: &[u8]) {
    for kind in [None, Some("track"), Some("alias")] {
        finish(segment::read(bytes, Some("s".to_owned()), kind));
    }
    finish(snowplow::read(bytes, false));
    finish(matomo::read("idsite=s&rec=1&uid=u", bytes).map(|(read, _)| read));
    finish(unomi::read(bytes).map(|asked| asked.events));
    let query = String::from_utf8_lossy(bytes);
    let hit = from_query(&format!("aid=s&uid=u&idsite=s&rec=1&{query}"));
    finish(Ok(vec![snowplow::map(&hit, false), matomo::map(&hit)]));
}

proptest! {
    #[test]
    fn any_bytes_are_read_by_every_protocol(bytes in prop::collection::vec(any::<u8>(), 0..512)) {
        by_all(&bytes);
    }

    #[test]
    fn what_clients_send_may_be_broken_anywhere(
        which in 0..RECORDED.len(),
        breaks in prop::collection::vec((any::<prop::sample::Index>(), 0..PIECES.len(), 0..4usize), 1..6),
    ) {
        let mut bytes = recorded(RECORDED[which]).into_bytes();
        for (at, piece, removed) in breaks {
            let at = at.index(bytes.len());
            let end = (at + removed).min(bytes.len());
            bytes.splice(at..end, PIECES[piece].bytes());
        }
        by_all(&bytes);
    }
}

/// What one event costs at the worst is bounded by its bytes.
#[test]
fn what_is_as_wide_as_it_can_be_is_read_at_once() {
    let started = std::time::Instant::now();
    let wide: String = (0..4_000).map(|n| format!("\"{n}\":1,")).collect();
    let query: String = (0..2_000).map(|n| format!("{n}=1&")).collect();
    for body in [
        format!(
            r#"{{"type":"identify","traits":{{{wide}"a":1}},"context":{{"traits":{{{wide}"b":1}}}}}}"#
        ),
        format!(
            r#"{{"events":[{{"eventType":"e","properties":{{{wide}"a":1}},"target":{{"itemType":"p","properties":{{{wide}"b":1}}}}}}]}}"#
        ),
        format!(r#"{{"requests":[{}"?rec=1"]}}"#, "\"?rec=1\",".repeat(499)),
        query,
    ] {
        by_all(body.as_bytes());
    }
    // The contract's 50 ms are for the product as shipped; this build is an order slower.
    assert!(started.elapsed() < std::time::Duration::from_secs(2), "{:?}", started.elapsed());
}
