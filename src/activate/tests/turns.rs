//! Several segments at one destination: none waits for another for ever.

use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::rig::*;
use super::world::*;
use crate::activate::Audiences;
use crate::activate::Caps;
use crate::activate::Connector;
use crate::activate::Encoded;
use crate::activate::Pusher;
use crate::activate::Verdict;
use crate::model::Millis;
use crate::model::time::SECOND;
use crate::net::Clock;
use crate::store::ledger::Batch;

/// A platform that takes its time over each batch.
struct Slow {
    caps: Caps,
    clock: Arc<TestClock>,
    /// The segments of batches, in the order in which they came.
    came: Arc<Mutex<Vec<String>>>,
    /// It asks to wait at each batch of this segment's.
    throttles: Arc<Mutex<Option<String>>>,
}

impl Connector for Slow {
    fn caps(&self) -> &Caps {
        &self.caps
    }

    fn check(&self, _now: Millis) -> Result<(), String> {
        Ok(())
    }

    fn encode(&self, batch: &Batch, _place: &str) -> Encoded {
        Encoded {
            batch: batch.id(),
            method: "POST",
            address: batch.target.segment.clone(),
            body: Vec::new(),
            lines: batch.changes.len(),
            refused: Vec::new(),
        }
    }

    fn deliver(&self, encoded: &Encoded, now: Millis) -> Verdict {
        self.clock.0.fetch_add(10 * SECOND, Ordering::SeqCst);
        if self.throttles.lock().as_ref() == Some(&encoded.address) {
            return Verdict::Throttled(Some(now + SECOND));
        }
        self.came.lock().push(encoded.address.clone());
        Verdict::Accepted
    }
}

type Order = Arc<Mutex<Vec<String>>>;

/// A large segment, and two small ones after it.
fn rig_of_three() -> (Rig, Pusher, Order, Arc<Mutex<Option<String>>>) {
    let rig = rig(0..12, 0);
    for (segment, members) in [("a-large", 0..12), ("b-small", 0..1), ("c-small", 1..2)] {
        rig.world().members.insert(segment.into(), profiles(members));
        rig.world().activations.push(activation(segment, 0));
    }
    rig.world().activations.remove(0);
    let (came, throttles) = (Order::default(), Arc::default());
    let slow = Slow {
        caps: Caps { max_rows: 2, namespaces: None, mixes: true, ttl: None, min_size: None },
        clock: Arc::clone(&rig.clock),
        came: Arc::clone(&came),
        throttles: Arc::clone(&throttles),
    };
    let kind = file_kind(rig.out());
    let pusher = Pusher::with_connectors(
        vec![(destination("crm", kind), Box::new(slow) as Box<dyn Connector>)],
        rig.ledger(),
        Arc::clone(&rig.source) as Arc<dyn Audiences>,
        Arc::clone(&rig.clock) as Arc<dyn Clock>,
        Arc::clone(&rig.metrics),
    );
    (rig, pusher, came, throttles)
}

#[test]
fn a_large_segment_lets_others_have_their_turn_and_loses_nothing_by_it() {
    let (rig, pusher, came, _) = rig_of_three();
    let reports = pusher.run_once(None, false).unwrap();
    let came = came.lock().clone();
    // Three batches in its half minute, then those of the others, and then the rest.
    let expected = ["a-large"; 3].into_iter().chain(["b-small", "c-small"]);
    assert_eq!(came[..5], expected.collect::<Vec<_>>());
    assert_eq!(came[5..], ["a-large"; 6]);
    let shown = reports.iter().map(|one| (one.segment.as_str(), one.adds, one.held, one.batches));
    let expected = [("a-large", 18, 18, 9), ("b-small", 2, 2, 1), ("c-small", 2, 2, 1)];
    assert_eq!(shown.collect::<Vec<_>>(), expected);
    assert!(reports.iter().all(|report| report.trouble.is_none()));
    drop(rig);
}

#[test]
fn a_segment_at_which_a_destination_asks_to_wait_comes_after_the_others_the_next_time() {
    let (rig, pusher, came, throttles) = rig_of_three();
    *throttles.lock() = Some("a-large".into());
    pusher.run_once(None, false).unwrap();
    assert!(came.lock().is_empty(), "nothing else is sent until then");
    rig.clock.0.fetch_add(2 * SECOND, Ordering::SeqCst);
    pusher.tick();
    assert_eq!(came.lock()[..], ["b-small", "c-small"]);
    *throttles.lock() = None;
    rig.clock.0.fetch_add(60 * SECOND, Ordering::SeqCst);
    pusher.tick();
    assert_eq!(came.lock().len(), 11);
}
