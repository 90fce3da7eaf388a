//! Dashboards and alerts name only metrics, labels and label values that the server has.

#![expect(clippy::unwrap_used, reason = "a test fails by a panic")]

use regex::Regex;
use serde_json::Value;
use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use throng::metrics::{Metrics, NAMES};

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("dashboards")
}

fn read(path: &str) -> String {
    fs::read_to_string(folder().join(path)).unwrap()
}

pub(super) fn dashboards() -> Vec<(PathBuf, Value)> {
    let files = fs::read_dir(folder().join("grafana")).unwrap().map(|entry| entry.unwrap().path());
    files
        .map(|path| {
            let text = fs::read_to_string(&path).unwrap();
            let json = serde_json::from_str(&text).unwrap_or_else(|e| panic!("{path:?}: {e}"));
            (path, json)
        })
        .collect()
}

/// The queries of a dashboard's panels.
pub(super) fn queries(dashboard: &Value) -> Vec<String> {
    let panels = dashboard["panels"].as_array().unwrap().iter();
    let targets = panels.flat_map(|panel| panel["targets"].as_array().into_iter().flatten());
    targets.map(|target| target["expr"].as_str().unwrap().to_owned()).collect()
}

/// The alerts by name, with what each asks.
pub(super) fn alerts() -> Vec<(String, String)> {
    // An expression is one line, or a folded block that ends at the next key.
    let alert = Regex::new(r"(?s)- alert: (\w+)\n +expr:(?: >-)?(.*?)\n +(?:for|labels):").unwrap();
    let text = read("prometheus/alerts.yml");
    let found = alert.captures_iter(&text);
    found
        .map(|c| (c[1].to_owned(), c[2].split_whitespace().collect::<Vec<_>>().join(" ")))
        .collect()
}

/// The selectors of an expression, without their ranges.
pub(super) fn selectors(expression: &str) -> Vec<String> {
    let selector = Regex::new(r"\bthrong_[a-z0-9_]+(?:\{[^}]*\})?").unwrap();
    selector.find_iter(expression).map(|found| found.as_str().to_owned()).collect()
}

/// Every expression of every dashboard and alert.
fn expressions() -> Vec<String> {
    let mut found = Vec::new();
    for (_, dashboard) in dashboards() {
        found.extend(queries(&dashboard));
        for variable in dashboard["templating"]["list"].as_array().unwrap() {
            found.extend(variable["query"]["query"].as_str().map(str::to_owned));
        }
    }
    found.extend(alerts().into_iter().map(|(_, expression)| expression));
    found
}

/// The metric behind a series: a histogram's has three endings.
fn metric(series: &str) -> Option<&'static str> {
    let endings = ["", "_bucket", "_sum", "_count"];
    endings.iter().find_map(|ending| {
        let base = series.strip_suffix(ending)?;
        NAMES.iter().copied().find(|name| *name == base)
    })
}

#[test]
fn every_expression_names_metrics_that_exist() {
    let name = Regex::new(r"\bthrong_[a-z0-9_]+").unwrap();
    let expressions = expressions();
    assert!(expressions.len() > 50, "only {} expressions were found", expressions.len());
    for expression in &expressions {
        let mut names = name.find_iter(expression).peekable();
        assert!(names.peek().is_some(), "no metric in `{expression}`");
        for found in names {
            let found = found.as_str();
            assert!(metric(found).is_some(), "no metric {found}, in `{expression}`");
        }
    }
}

#[test]
fn every_matcher_asks_for_a_value_that_its_label_has() {
    let rendered = Metrics::new().render();
    let selector = Regex::new(r"\b(throng_[a-z0-9_]+)\{([^}]*)\}").unwrap();
    let matcher = Regex::new(r#"([a-z_]+)(?:=~|!~|!=|=)"([^"]*)""#).unwrap();
    for expression in expressions() {
        for selected in selector.captures_iter(&expression) {
            let metric = metric(&selected[1]).unwrap();
            let series: Vec<&str> =
                rendered.lines().filter(|line| line.starts_with(metric)).collect();
            for matched in matcher.captures_iter(&selected[2]) {
                let label = &matched[1];
                // `instance` is the scrape's, and a metric whose labels are configured has no series yet.
                if label == "instance" || series.is_empty() {
                    continue;
                }
                for value in matched[2].split('|') {
                    let pair = format!("{label}=\"{value}\"");
                    assert!(
                        series.iter().any(|line| line.contains(&pair)),
                        "{metric} has no {pair}, in `{expression}`"
                    );
                }
            }
        }
    }
}

#[test]
fn every_alert_has_a_severity_and_a_runbook() {
    let alerts = read("prometheus/alerts.yml");
    let mut names = BTreeSet::new();
    for alert in alerts.split("- alert: ").skip(1) {
        let name = alert.lines().next().unwrap();
        assert!(names.insert(name), "{name} is there twice");
        assert!(name.starts_with("Throng"), "{name}");
        assert!(alert.contains("severity: page") || alert.contains("severity: ticket"), "{name}");
        assert!(alert.contains("summary: ") && alert.contains("runbook: "), "{name}");
    }
    assert!(names.len() >= 10);
}

#[test]
fn a_dashboard_s_panels_are_told_apart_and_do_not_overlap() {
    for (path, dashboard) in dashboards() {
        let panels = dashboard["panels"].as_array().unwrap();
        let ids: BTreeSet<u64> = panels.iter().map(|p| p["id"].as_u64().unwrap()).collect();
        assert_eq!(ids.len(), panels.len(), "{path:?}");
        let place = |panel: &Value| {
            ["x", "y", "w", "h"].map(|side| panel["gridPos"][side].as_u64().unwrap())
        };
        for (at, one) in panels.iter().enumerate() {
            let [x, y, w, h] = place(one);
            assert!(x + w <= 24, "{path:?}: {}", one["title"]);
            for other in &panels[at + 1..] {
                let [ox, oy, ow, oh] = place(other);
                let apart = x + w <= ox || ox + ow <= x || y + h <= oy || oy + oh <= y;
                assert!(apart, "{path:?}: {} covers {}", one["title"], other["title"]);
            }
        }
    }
}
