//! Every metric, on one registry that its owner passes around: two servers in one test do not meet.
//!
//! *Instance* metrics change as things happen. *Service* metrics (marked so below) are set when a
//! scrape asks, from the state they describe. Labels come from closed enums or from configuration,
//! never from a request.

use parking_lot::Mutex;
use prometheus::core::Collector;
use prometheus::{
    Encoder, Gauge, GaugeVec, HistogramOpts, HistogramVec, IntCounterVec, IntGaugeVec, Opts,
    Registry, TextEncoder,
};
pub use prometheus::{Histogram, IntCounter, IntGauge};
use std::collections::BTreeMap;

use crate::model::{FoldOutcome, Outcome};

/// Declares the struct, its registration, and the list of names: the doc is the help text.
macro_rules! metrics {
    ($($(#[doc = $help:literal])+ $field:ident: $kind:tt $name:literal [$($label:literal),*] $(buckets $buckets:expr)?;)+) => {
        /// Every metric of the process.
        #[derive(Debug, Clone)]
        pub struct Metrics {
            registry: Registry,
            $($(#[doc = $help])+ pub $field: metrics!(@type $kind),)+
        }

        /// The name of every metric.
        pub const NAMES: &[&str] = &[$($name),+];

        impl Metrics {
            /// Registers every metric on a registry of its own.
            pub fn new() -> Self {
                let registry = Registry::new();
                $(let $field = {
                    let help = concat!($($help),+).trim();
                    let labels: &[&str] = &[$($label),*];
                    let made = metrics!(@make $kind $name, help, labels $(, $buckets)?)
                        .expect("names and labels are literals");
                    register(&registry, &made);
                    made
                };)+
                Self { registry, $($field),+ }.with_zeros()
            }
        }
    };
    (@type counter) => { IntCounter };
    (@type counters) => { IntCounterVec };
    (@type gauge) => { IntGauge };
    (@type gauges) => { IntGaugeVec };
    (@type float) => { Gauge };
    (@type floats) => { GaugeVec };
    (@type histogram) => { Histogram };
    (@type histograms) => { HistogramVec };
    (@make counter $name:literal, $help:ident, $labels:ident) => {{ let _ = $labels; IntCounter::new($name, $help) }};
    (@make counters $name:literal, $help:ident, $labels:ident) => { IntCounterVec::new(Opts::new($name, $help), $labels) };
    (@make gauge $name:literal, $help:ident, $labels:ident) => {{ let _ = $labels; IntGauge::new($name, $help) }};
    (@make gauges $name:literal, $help:ident, $labels:ident) => { IntGaugeVec::new(Opts::new($name, $help), $labels) };
    (@make float $name:literal, $help:ident, $labels:ident) => {{ let _ = $labels; Gauge::new($name, $help) }};
    (@make floats $name:literal, $help:ident, $labels:ident) => { GaugeVec::new(Opts::new($name, $help), $labels) };
    (@make histogram $name:literal, $help:ident, $labels:ident, $buckets:expr) => {{ let _ = $labels; Histogram::with_opts(HistogramOpts::new($name, $help).buckets($buckets.to_vec())) }};
    (@make histograms $name:literal, $help:ident, $labels:ident, $buckets:expr) => { HistogramVec::new(HistogramOpts::new($name, $help).buckets($buckets.to_vec()), $labels) };
}

/// From 50 µs to 10 s: a hit answered from memory, and one behind a slow disk.
const FAST: [f64; 12] =
    [0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.05, 0.25, 1.0, 10.0];
/// From 1 ms to 100 s: work over a whole store.
const SLOW: [f64; 11] = [0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0, 5.0, 25.0, 100.0];

metrics! {
    /// Events by what became of them at collect. `endpoint`: `pixel`, `events`, `import`, or a protocol:
    /// `segment`, `snowplow`, `matomo`, `unomi`;
    /// `outcome`: see the interface's list. Alert when `dropped` rises.
    collect_events: counters "throng_collect_events_total" ["endpoint", "outcome"];
    /// Events refused for consent, by the signal that said so (`silence`, `gpc`, `dnt`, `us_privacy`,
    /// `gdpr`, `gpp`, `opt_out`).
    collect_refusals: counters "throng_collect_refusals_total" ["signal"];
    /// Calls of cookie-sync by partner, direction (`out`, `in`) and what became of them (`sent`, `fresh`, `matched`,
    /// `no_id`, `error` or `error_N` as Google numbers them, `no_cookie`, `refused`).
    collect_syncs: counters "throng_collect_syncs_total" ["partner", "direction", "result"];
    /// Identifiers dropped from events that were kept, by reason (`namespace`, `value`, `zero`,
    /// `email`, `phone`).
    collect_identifiers_dropped: counters "throng_collect_identifiers_dropped_total" ["reason"];
    /// Time to answer a request, by endpoint.
    collect_request_duration: histograms "throng_collect_request_duration_seconds" ["endpoint"] buckets FAST;
    /// Lookups of audiences by who asked (`page`, `server`) and what was told (`some`, `none`; `withheld`: the browser or
    /// the profile says no; `refused`: a request that is not answered; `failed`).
    lookups: counters "throng_lookups_total" ["asker", "told"];
    /// Time to answer a request of lookups, by who asked.
    lookup_duration: histograms "throng_lookup_duration_seconds" ["asker"] buckets FAST;
    /// Answers by listener (`public`, `private`) and status class (`2xx` …). Alert on `5xx`.
    http_responses: counters "throng_http_responses_total" ["listener", "class"];
    /// Connections that are open, by listener (`public`, `private`).
    connections: gauges "throng_connections" ["listener"];
    /// Connections that were ended by listener and why (`full`: as many as there may be; `address`: as many as one address may
    /// have; `handshake`: no terms about TLS; `slow`: its client kept the server waiting; `heads`: heads without an end).
    connections_refused: counters "throng_connections_refused_total" ["listener", "reason"];
    /// Records made durable in the journal.
    ingest_logged: counter "throng_ingest_logged_events_total" [];
    /// Time for one append to the journal, `fdatasync` included where the mode asks for it.
    journal_append_duration: histogram "throng_journal_append_duration_seconds" [] buckets FAST;
    /// Appends that failed, by kind (`full`, `io`). Alert on any.
    journal_errors: counters "throng_journal_errors_total" ["kind"];
    /// Panics by thread (`segments`, `fill`, …). Alert on any.
    thread_panics: counters "throng_thread_panics_total" ["thread"];
    /// Bytes of the journal that wait to be shipped to the store; 0 where nothing is shipped. Alert above 70 % of the
    /// limit.
    spool_bytes: gauge "throng_spool_bytes" [];
    /// How many bytes may wait before events are refused: `journal.spool`; 0 where nothing is shipped.
    spool_limit: gauge "throng_spool_limit_bytes" [];
    /// Age of the oldest event that waits to be shipped, 0 where none does. Alert above 300.
    spool_oldest: float "throng_spool_oldest_seconds" [];
    /// Records shipped from the journal to the store.
    shipped_records: counter "throng_shipped_records_total" [];
    /// Tries to ship that failed. What failed is tried again.
    ship_errors: counter "throng_ship_errors_total" [];
    /// Bytes of the journal on disk (service).
    journal_bytes: gauge "throng_journal_bytes" [];
    /// Frames of the journals that were added, and are neither released nor held any more, over all lanes held
    /// (service). Somebody else has deleted them. Alert above 0.
    journal_imbalance: gauge "throng_journal_imbalance" [];
    /// Bytes of frames that were acknowledged here and are gone again: a failover took them, within what the
    /// durability allows (service). Alert on any.
    journal_lost_bytes: counter "throng_journal_lost_bytes_total" [];
    /// Events by what became of them at fold (`counted`, `duplicate`, `dead_letter`; `erased` where they are of someone
    /// who was erased, and of before that).
    ingest_folded: counters "throng_ingest_folded_events_total" ["outcome"];
    /// Age of the oldest event that is durable and not folded, 0 where there is none (service). Alert
    /// above 300.
    ingest_fold_lag: float "throng_ingest_fold_lag_seconds" [];
    /// Processor time the fold has used.
    ingest_fold_cpu: float "throng_ingest_fold_cpu_seconds" [];
    /// Measured values beyond ±9·10¹⁴, which count as missing.
    ingest_measures_out_of_range: counter "throng_ingest_measures_out_of_range_total" [];
    /// Values of attributes that were not kept, for there were 4,096 names of attributes already.
    ingest_attributes_dropped: counter "throng_ingest_attributes_dropped_total" [];
    /// By how much the system's clock is behind the last time used, which is used until it has come
    /// (service). Alert above 0.
    clock_behind: float "throng_clock_behind_seconds" [];
    /// Time for one commit of the fold.
    store_commit_duration: histogram "throng_store_commit_duration_seconds" [] buckets SLOW;
    /// Failed operations of the store, by operation. What failed is tried again. Alert when it rises.
    store_errors: counters "throng_store_errors_total" ["operation"];
    /// Bytes of the store by what they are for, journal and archive apart (service): of files (`state`, `audiences`,
    /// `ledger`, `shelf`) and of the lists in memory every 15 s; of the memory of Redis (`dictionary`, `columns`,
    /// `streams`, `message_ids`, `audiences`, `lists` and others) every 10 minutes, told by the node that leads.
    store_bytes: gauges "throng_store_bytes" ["kind"];
    /// Profiles in the dictionary (service).
    profiles: gauge "throng_profiles" [];
    /// Facts in the columns of all traits (service).
    facts: gauge "throng_facts" [];
    /// Bytes of memory by part: `columns`, `dictionary`, `attributes`, `dedup` (service).
    memory_bytes: gauges "throng_memory_bytes" ["part"];
    /// Traits kept as columns (service).
    traits: gauge "throng_traits" [];
    /// Traits that are being filled from the archive.
    traits_unfilled: gauge "throng_traits_unfilled" [];
    /// Traits that no segment asks, until their grace is over (`traits.grace`).
    traits_unasked: gauge "throng_traits_unasked" [];
    /// How much of the archive the fill under way has read, in percent; 100 where none is.
    fill_percent: gauge "throng_fill_percent" [];
    /// Rows written to the archive.
    archive_rows: counter "throng_archive_rows_total" [];
    /// Files and row groups of the archive that scans read, or passed over since nothing asked for is in them.
    archive_scanned: counters "throng_archive_scanned_total" ["what", "outcome"];
    /// Bytes of the archive's files (service).
    archive_bytes: gauge "throng_archive_bytes" [];
    /// Lanes that the store has; 1 of an embedded one.
    lanes: gauge "throng_lanes" [];
    /// Lanes in this process's hands (service). Over all nodes they are to come to those that the store has.
    lanes_held: gauge "throng_lanes_held" [];
    /// Lanes that this process took.
    lanes_taken: counter "throng_lanes_taken_total" [];
    /// Lanes that another took over, or whose store turned out to be behind.
    lanes_lost: counter "throng_lanes_lost_total" [];
    /// Nodes of the store that were heard of in the last 10 s.
    cluster_nodes: gauge "throng_cluster_nodes" [];
    /// Nodes of the store that were not: those that take events hold the audiences back. Alert above 0.
    cluster_nodes_silent: gauge "throng_cluster_nodes_silent" [];
    /// How far the nodes' clocks are apart, which the audiences trail by.
    cluster_clock_spread: float "throng_cluster_clock_spread_seconds" [];
    /// How old T is, the time before which all events of all nodes are in the lanes; 0 where nobody takes events.
    cluster_t_age: float "throng_cluster_t_age_seconds" [];
    /// Whether this node leads: 1 or 0.
    cluster_leader: gauge "throng_cluster_leader" [];
    /// Beats that did not arrive; the next comes within a second.
    cluster_beat_errors: counter "throng_cluster_beat_errors_total" [];
    /// Files of the archive (service).
    archive_files: gauge "throng_archive_files" [];
    /// Journal bytes that the archive has not passed (service).
    archive_pending_bytes: gauge "throng_archive_pending_bytes" [];
    /// Members of each segment (service).
    segment_members: gauges "throng_segment_members" ["segment"];
    /// Time for one evaluation of all segments.
    segment_refresh_duration: histogram "throng_segment_refresh_duration_seconds" [] buckets SLOW;
    /// The time that the published generation is true for. Alert on `time() -` this above 120.
    segment_last_refresh: float "throng_segment_last_refresh_timestamp_seconds" [];
    /// Members that a segment had and should not, or had not and should, when its shard was last asked anew in full;
    /// such are mended at once. 0 unless there is a defect. Alert above 0.
    audience_divergence: gauge "throng_audience_divergence" [];
    /// Shards whose audiences were compared with all rules asked anew.
    audience_audits: counter "throng_audience_audits_total" [];
    /// Segment files whose latest edit is wrong, so that the last good version stands (service). Alert
    /// above 0.
    segment_files_wrong: gauge "throng_segment_files_wrong" [];
    /// Erasures by how far they came: `forgotten` (no profile is known any more), `done` (nor held anywhere).
    erasures: counters "throng_erasures_total" ["stage"];
    /// Age of the oldest erasure that is not done, 0 where all are (service). Alert above a day.
    erasure_oldest: gauge "throng_erasure_oldest_seconds" [];
    /// Batches sent or asked for, by destination and result (`accepted`, `partial`, `staged`, `split`, `retry`, `gone`,
    /// `rejected`).
    delivery_attempts: counters "throng_delivery_attempts_total" ["destination", "result"];
    /// Identifiers acknowledged, by destination and operation (`add`, `remove`), and those that it would not take
    /// (`refuse`).
    delivery_identifiers: counters "throng_delivery_identifiers_total" ["destination", "operation"];
    /// When the oldest batch that waits was prepared, 0 where none waits (service).
    delivery_oldest_pending: floats "throng_delivery_oldest_pending_timestamp_seconds" ["destination"];
    /// Segments that are not sent to a destination before someone acts (service). Alert above 0.
    delivery_parked: gauges "throng_delivery_parked" ["destination"];
    /// What is left of an audience on its way to a destination, by step: profiles that are `members`, `reachable`, `consented`,
    /// `fresh`, `above_minimum`; `identifiers` of these, and of them those `sent` and `accepted`. As of the last run.
    waterfall: gauges "throng_waterfall" ["destination", "segment", "step"];
}

fn register<C: Collector + Clone + 'static>(registry: &Registry, metric: &C) {
    registry.register(Box::new(metric.clone())).expect("every name is declared once");
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// What became of calls of cookie-sync with a partner, by direction and result.
    pub fn syncs_of(&self, partner: &str) -> BTreeMap<(String, String), u64> {
        let mut calls = BTreeMap::new();
        for family in self.collect_syncs.collect() {
            for metric in family.get_metric() {
                let label = |name: &str| {
                    let labels = metric.get_label().iter();
                    labels.filter(|label| label.name() == name).map(|label| label.value()).next()
                };
                if label("partner") == Some(partner)
                    && let (Some(direction), Some(result)) = (label("direction"), label("result"))
                {
                    #[expect(
                        clippy::cast_possible_truncation,
                        clippy::cast_sign_loss,
                        reason = "a counter of whole calls"
                    )]
                    let count = metric.get_counter().get_value() as u64;
                    calls.insert((direction.to_owned(), result.to_owned()), count);
                }
            }
        }
        calls
    }

    /// Reports every value of the closed labels from the start, at zero.
    fn with_zeros(self) -> Self {
        for endpoint in ["pixel", "events", "import", "segment", "snowplow", "matomo", "unomi"] {
            for outcome in Outcome::ALL {
                self.collect_events.with_label_values(&[endpoint, outcome.as_str()]);
            }
            self.collect_request_duration.with_label_values(&[endpoint]);
        }
        for asker in ["page", "server"] {
            for told in ["some", "none", "withheld", "refused", "failed"] {
                self.lookups.with_label_values(&[asker, told]);
            }
            self.lookup_duration.with_label_values(&[asker]);
        }
        for signal in ["silence", "gpc", "dnt", "us_privacy", "gdpr", "gpp", "opt_out"] {
            self.collect_refusals.with_label_values(&[signal]);
        }
        for reason in ["namespace", "value", "zero", "email", "phone"] {
            self.collect_identifiers_dropped.with_label_values(&[reason]);
        }
        for outcome in FoldOutcome::ALL {
            self.ingest_folded.with_label_values(&[outcome.as_str()]);
        }
        for stage in ["forgotten", "done"] {
            self.erasures.with_label_values(&[stage]);
        }
        for listener in ["public", "private"] {
            self.connections.with_label_values(&[listener]);
            for reason in ["full", "address", "handshake", "slow", "heads"] {
                self.connections_refused.with_label_values(&[listener, reason]);
            }
            for class in ["2xx", "3xx", "4xx", "5xx"] {
                self.http_responses.with_label_values(&[listener, class]);
            }
        }
        for kind in ["full", "io"] {
            self.journal_errors.with_label_values(&[kind]);
        }
        for operation in ["commit", "compact", "archive", "ledger", "lane", "privacy"] {
            self.store_errors.with_label_values(&[operation]);
        }
        for thread in [
            "segments", "fill", "audit", "fold", "commit", "archive", "ship", "nodes", "lanes",
            "leases",
        ] {
            self.thread_panics.with_label_values(&[thread]);
        }
        for what in ["file", "row_group"] {
            for outcome in ["read", "skipped"] {
                self.archive_scanned.with_label_values(&[what, outcome]);
            }
        }
        for part in ["columns", "dictionary", "attributes", "dedup"] {
            self.memory_bytes.with_label_values(&[part]);
        }
        self
    }

    /// Brings a counter up to a total that is counted elsewhere.
    pub fn raise(&self, counter: &IntCounter, total: u64) {
        // Two scrapes at a time would both add what is new.
        static TURN: Mutex<()> = Mutex::new(());
        let _turn = TURN.lock();
        counter.inc_by(total.saturating_sub(counter.get()));
    }

    /// All metrics in the text format of Prometheus.
    pub fn render(&self) -> String {
        let mut out = Vec::new();
        if let Err(error) = TextEncoder::new().encode(&self.registry.gather(), &mut out) {
            tracing::error!(%error, "metrics cannot be written");
        }
        String::from_utf8_lossy(&out).into_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_total_that_is_counted_elsewhere_is_taken_over_once() {
        let metrics = Metrics::new();
        for total in [0, 5, 5, 7] {
            metrics.raise(&metrics.journal_lost_bytes, total);
            assert_eq!(metrics.journal_lost_bytes.get(), total);
        }
    }

    #[test]
    fn names_follow_the_pattern_and_closed_labels_start_at_zero() {
        let metrics = Metrics::new();
        let text = metrics.render();
        for name in NAMES {
            assert!(name.starts_with("throng_"), "{name}");
        }
        assert!(
            text.contains(r#"throng_collect_events_total{endpoint="pixel",outcome="dropped"} 0"#),
            "{text}"
        );
        Metrics::new().ingest_logged.inc();
        assert!(metrics.render().contains("throng_ingest_logged_events_total 0"));
    }
}
