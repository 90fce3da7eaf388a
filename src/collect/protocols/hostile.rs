//! Whatever the network sends is read without a panic, within its bounds, and into what the canonical form takes or refuses.

use proptest::prelude::*;

use super::fuzz::matomo;
use super::fuzz::segment;
use super::fuzz::snowplow;
use super::fuzz::unomi;
use super::golden::recorded;

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

/// Reads bytes by every protocol.
fn by_all(bytes: &[u8]) {
    [segment, snowplow, matomo, unomi].into_iter().for_each(|read| read(bytes));
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
