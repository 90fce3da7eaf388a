//! When alerts fire, as Prometheus itself says: `promtool` runs the rules over series that are made up.

use std::fs;
use std::path::Path;
use std::process::Command;

/// Runs the alerts over series of ten minutes, a sample each half minute, and compares what fires in the end.
fn fires(series: &[(&str, &str)], expected: &[&str]) {
    let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("dashboards/prometheus/alerts.yml");
    let mut test = format!(
        "rule_files: [{:?}]\nevaluation_interval: 30s\ntests:\n  - interval: 30s\n    input_series:\n",
        rules.display().to_string()
    );
    for (series, values) in series {
        test.push_str(&format!("      - {{ series: '{series}', values: '{values}' }}\n"));
    }
    test.push_str(
        "    promql_expr_test:\n      - expr: count by (alertname) (ALERTS{alertstate=\"firing\"})\n        \
         eval_time: 10m\n        exp_samples:\n",
    );
    for alert in expected {
        test.push_str(&format!("          - {{ labels: '{{alertname={alert:?}}}', value: 1 }}\n"));
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("alerts.test.yml");
    fs::write(&path, &test).unwrap();
    let told = Command::new("promtool").args(["test", "rules"]).arg(&path).output();
    let told = told.expect("promtool comes with Debian's package `prometheus`");
    assert!(
        told.status.success(),
        "{test}\n{}{}",
        String::from_utf8_lossy(&told.stdout),
        String::from_utf8_lossy(&told.stderr)
    );
}

/// A store that three nodes share: one leads, two hold the lanes, one only takes events.
const SHARED: [(&str, &str); 17] = [
    (r#"throng_lanes{job="s",instance="a"}"#, "4x20"),
    (r#"throng_lanes{job="s",instance="b"}"#, "4x20"),
    (r#"throng_lanes{job="s",instance="c"}"#, "4x20"),
    (r#"throng_lanes_held{job="s",instance="a"}"#, "2x20"),
    (r#"throng_lanes_held{job="s",instance="b"}"#, "2x20"),
    (r#"throng_lanes_held{job="s",instance="c"}"#, "0x20"),
    (r#"throng_cluster_nodes{job="s",instance="a"}"#, "3x20"),
    (r#"throng_cluster_nodes{job="s",instance="c"}"#, "3x20"),
    (r#"throng_cluster_leader{job="s",instance="a"}"#, "1x20"),
    (r#"throng_cluster_leader{job="s",instance="c"}"#, "0x20"),
    (r#"throng_lanes_lost_total{job="s",instance="b"}"#, "0x20"),
    (r#"throng_journal_imbalance{job="s",instance="a"}"#, "0x20"),
    // Published by the node that leads, folded by those that hold lanes.
    (r#"throng_segment_last_refresh_timestamp_seconds{job="s",instance="a"}"#, "0+30x20"),
    (r#"throng_segment_last_refresh_timestamp_seconds{job="s",instance="c"}"#, "0x20"),
    (r#"throng_ingest_logged_events_total{job="s",instance="c"}"#, "0+50x20"),
    (r#"throng_ingest_folded_events_total{job="s",instance="c",outcome="counted"}"#, "0x20"),
    (r#"throng_ingest_folded_events_total{job="s",instance="a",outcome="counted"}"#, "0+50x20"),
];

/// The store, with other values for some of its series.
fn shared(changed: &[(&str, &'static str)]) -> Vec<(&'static str, &'static str)> {
    let mut series = SHARED.to_vec();
    for (name, values) in changed {
        let found = series.iter_mut().find(|(series, _)| series.starts_with(name));
        found.unwrap_or_else(|| panic!("no {name}")).1 = values;
    }
    series
}

#[test]
fn a_destination_that_refuses_many_and_lookups_that_fail_are_told_of() {
    let identifiers = |operation: &str| {
        format!(
            "throng_delivery_identifiers_total{{instance=\"a\",destination=\"ads\",operation=\"{operation}\"}}"
        )
    };
    let (add, refuse) = (identifiers("add"), identifiers("refuse"));
    let lookups = r#"throng_lookups_total{instance="a",asker="page",told="failed"}"#;
    // The server is there.
    let is_up = (r#"throng_ingest_logged_events_total{instance="a"}"#, "0+1x20");
    fires(&[is_up, (&add, "0+1000x20"), (&refuse, "0+50x20"), (lookups, "0x20")], &[]);
    fires(&[is_up, (&add, "0+1000x20"), (&refuse, "0+200x20")], &["ThrongDeliveryRefused"]);
    // Few are not worth a word.
    fires(&[is_up, (&add, "0+1x20"), (&refuse, "0+4x20")], &[]);
    fires(&[is_up, (lookups, "0+1x20")], &["ThrongLookupsFail"]);
}

#[test]
fn a_store_that_is_shared_in_good_order_wakes_nobody() {
    fires(&SHARED, &[]);
}

#[test]
fn lanes_that_nobody_holds_and_a_store_that_nobody_leads_wake_somebody() {
    fires(&shared(&[("throng_lanes_held", "2 2 2 2 0x16")]), &["ThrongLanesFree"]);
    fires(&shared(&[("throng_cluster_leader", "1 1 1 0x17")]), &["ThrongNoLeader"]);
    // A node that died is not scraped any more.
    fires(&shared(&[("throng_lanes_held", "2 2 stale")]), &["ThrongLanesFree"]);
}

#[test]
fn what_is_missing_from_a_stream_wakes_somebody_and_lanes_lost_once_do_not() {
    fires(&shared(&[("throng_journal_imbalance", "0 0 1x18")]), &["ThrongJournalImbalance"]);
    fires(&shared(&[("throng_lanes_lost_total", "0 0 4x18")]), &[]);
    fires(&shared(&[("throng_lanes_lost_total", "0+1x20")]), &["ThrongLanesLost"]);
}

#[test]
fn an_audience_that_is_not_what_its_rule_says_wakes_somebody() {
    let divergence = r#"throng_audience_divergence{job="s",instance="b"}"#;
    let with = |values: &'static str| {
        let mut series = SHARED.to_vec();
        series.push((divergence, values));
        series
    };
    fires(&with("0x20"), &[]);
    fires(&with("0 0 3x18"), &["ThrongAudienceDivergence"]);
}

#[test]
fn audiences_that_their_leader_does_not_refresh_wake_somebody_and_so_do_those_of_a_server_alone() {
    let last = "throng_segment_last_refresh_timestamp_seconds";
    fires(&shared(&[(last, "0x20")]), &["ThrongAudiencesStale"]);
    let alone = [
        (r#"throng_segment_last_refresh_timestamp_seconds{job="e",instance="e"}"#, "0x20"),
        (r#"throng_cluster_leader{job="e",instance="e"}"#, "0x20"),
        (r#"throng_cluster_nodes{job="e",instance="e"}"#, "0x20"),
        (r#"throng_lanes{job="e",instance="e"}"#, "1x20"),
        (r#"throng_lanes_held{job="e",instance="e"}"#, "1x20"),
        (r#"throng_ingest_logged_events_total{job="e",instance="e"}"#, "0+50x20"),
        (r#"throng_ingest_folded_events_total{job="e",instance="e",outcome="counted"}"#, "0x20"),
    ];
    fires(&alone, &["ThrongAudiencesStale", "ThrongFoldStuck"]);
}
