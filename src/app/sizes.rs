//! Measures what the store takes, now and then, for those who scrape.

use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering;
use std::time::Duration;
use std::time::Instant;

use crate::metrics::Metrics;
use crate::segment::Segments;
use crate::store::chain;
use crate::store::sizes::Sizes;

/// How often where it costs next to nothing…
const OFTEN: Duration = Duration::from_secs(15);
/// …and where every key is looked at.
const SELDOM: Duration = Duration::from_secs(600);
/// How often it looks whether it is time, or the process stops.
const LOOK: Duration = Duration::from_millis(250);

/// Runs until the process stops. Of all that share a store, the one that publishes audiences measures it.
pub(super) fn run(sizes: &dyn Sizes, segments: &Segments, metrics: &Metrics, stop: &AtomicBool) {
    let every = if sizes.is_cheap() { OFTEN } else { SELDOM };
    let mut due = Instant::now();
    while !stop.load(Ordering::Acquire) {
        if !segments.leads() {
            metrics.store_bytes.reset();
            due = Instant::now();
        } else if Instant::now() >= due {
            due = Instant::now() + every;
            match sizes.measure() {
                Ok(found) => {
                    metrics.store_bytes.reset();
                    for size in found {
                        let bytes = i64::try_from(size.bytes).unwrap_or(i64::MAX);
                        metrics.store_bytes.with_label_values(&[size.kind]).set(bytes);
                    }
                }
                Err(error) => {
                    tracing::debug!(error = %chain(&error), "the store cannot be measured now")
                }
            }
        }
        std::thread::sleep(LOOK);
    }
}
