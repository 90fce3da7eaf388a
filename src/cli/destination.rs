//! `throng destination`: what is pushed where.

use clap::Subcommand;
use serde_json::{Value, json};
use std::process::ExitCode;

use super::client::{Client, escape};
use super::output::{NO, count, print, table};
use super::{Failure, Global};

/// Sub-commands of `throng destination`.
#[derive(Debug, Subcommand)]
pub(super) enum Destination {
    /// List the configured destinations
    List,
    /// Check that a destination can be reached and written
    Test {
        /// The destination's name
        name: String,
    },
    /// Show the last batches, and what became of each
    Deliveries {
        /// The destination's name
        name: String,
        /// How many
        #[arg(long, default_value_t = 20)]
        limit: u16,
    },
    /// Push what changed, now
    Push {
        /// The destination's name; all without one
        name: Option<String>,
        /// Says what would be pushed, and sends nothing
        #[arg(long)]
        dry_run: bool,
        /// Removes what is to be removed, also where it is more than `max_drain` lets a push remove
        #[arg(long, requires = "name", conflicts_with = "dry_run")]
        drain: bool,
    },
}

/// Runs a sub-command.
pub(super) fn run(global: &Global, command: &Destination) -> Result<ExitCode, Failure> {
    let client = Client::find(global)?;
    match command {
        Destination::List => {
            let answer = client.get("/api/v1/destinations")?;
            if global.json {
                print(&answer["destinations"].to_string())?;
                return Ok(ExitCode::SUCCESS);
            }
            let destinations = answer["destinations"].as_array().cloned().unwrap_or_default();
            if destinations.is_empty() {
                print("no destinations yet; name them in config/destinations.toml")?;
                return Ok(ExitCode::SUCCESS);
            }
            let text = |value: &Value| value.as_str().unwrap_or("–").to_owned();
            let rows = destinations.iter().map(|destination| {
                let segments = destination["segments"].as_array().cloned().unwrap_or_default();
                let trouble = segments.iter().find_map(|segment| segment["trouble"].as_str());
                let state = trouble.map_or_else(|| "well".to_owned(), str::to_owned);
                vec![
                    text(&destination["name"]),
                    text(&destination["kind"]),
                    text(&destination["every"]),
                    segments.len().to_string(),
                    text(&destination["last_success"]),
                    state,
                ]
            });
            print(&table(
                &["DESTINATION", "KIND", "EVERY", "SEGMENTS", "LAST PUSH", "STATE"],
                rows,
            ))?;
            Ok(ExitCode::SUCCESS)
        }
        Destination::Test { name } => {
            let answer = client
                .post_json(&format!("/api/v1/destinations/{}/test", escape(name)), &json!({}))?;
            let is_well = answer["ok"].as_bool().unwrap_or(false);
            if global.json {
                print(&answer.to_string())?;
            } else {
                print(&format!("{name}: {}", answer["message"].as_str().unwrap_or("no answer")))?;
            }
            Ok(if is_well { ExitCode::SUCCESS } else { ExitCode::from(NO) })
        }
        Destination::Deliveries { name, limit } => deliveries(global, &client, name, *limit),
        Destination::Push { name, dry_run, drain } => {
            push(global, &client, name.as_deref(), *dry_run, *drain)
        }
    }
}

fn deliveries(
    global: &Global,
    client: &Client,
    name: &str,
    limit: u16,
) -> Result<ExitCode, Failure> {
    let path = format!("/api/v1/destinations/{}/deliveries?limit={limit}", escape(name));
    let answer = client.get(&path)?;
    let found = answer["deliveries"].as_array().cloned().unwrap_or_default();
    if global.json {
        print(&Value::Array(found).to_string())?;
    } else if found.is_empty() {
        print(&format!("nothing was sent to {name} yet"))?;
    } else {
        print(&delivered(&found))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// A line for each batch.
fn delivered(deliveries: &[Value]) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let number = |value: &Value| value.as_u64().map_or_else(|| "–".to_owned(), count);
    let rows = deliveries.iter().map(|delivery| {
        vec![
            text(&delivery["prepared_at"]),
            text(&delivery["segment"]),
            format!("{}-{}", delivery["generation"], delivery["seq"]),
            number(&delivery["adds"]),
            number(&delivery["removes"]),
            text(&delivery["state"]),
            number(&delivery["failures"]),
            text(&delivery["trouble"]),
        ]
    });
    let header =
        ["PREPARED", "SEGMENT", "BATCH", "ADDS", "REMOVES", "STATE", "FAILED", "LAST TROUBLE"];
    table(&header, rows)
}

fn push(
    global: &Global,
    client: &Client,
    name: Option<&str>,
    dry_run: bool,
    drain: bool,
) -> Result<ExitCode, Failure> {
    let names: Vec<String> = match name {
        Some(name) => vec![name.to_owned()],
        None => client.get("/api/v1/destinations")?["destinations"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|destination| destination["name"].as_str().map(str::to_owned))
            .collect(),
    };
    let mut reports = Vec::new();
    for name in names {
        let path =
            format!("/api/v1/destinations/{}/push?dry_run={dry_run}&drain={drain}", escape(&name));
        let answer = client.post_json(&path, &json!({}))?;
        reports.extend(answer["reports"].as_array().cloned().unwrap_or_default());
    }
    let failed = reports.iter().any(|report| report["trouble"].is_string());
    if global.json {
        print(&Value::Array(reports).to_string())?;
    } else if reports.is_empty() {
        print("nothing is to be pushed: no segment names a destination")?;
    } else {
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let number = |value: &Value| value.as_u64().map_or_else(|| "–".to_owned(), count);
        let rows = reports.iter().map(|report| {
            let mut notes = Vec::new();
            if report["below_minimum"].as_bool() == Some(true) {
                notes.push(format!(
                    "{} of {} members may be sent, below min_size {}: nothing is added",
                    report["eligible"], report["members"], report["min_size"]
                ));
            }
            notes.extend(report["trouble"].as_str().map(str::to_owned));
            vec![
                text(&report["destination"]),
                text(&report["segment"]),
                number(&report["adds"]),
                number(&report["removes"]),
                number(&report["held"]),
                notes.join("; "),
            ]
        });
        let (adds, removes) =
            if dry_run { ("WOULD ADD", "WOULD REMOVE") } else { ("ADDED", "REMOVED") };
        print(&table(&["DESTINATION", "SEGMENT", adds, removes, "HELD", "NOTE"], rows))?;
    }
    Ok(if failed { ExitCode::from(NO) } else { ExitCode::SUCCESS })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_batch_is_a_line_with_what_became_of_it() {
        let batch = |state: &str, failures: u64, trouble: Value| {
            json!({ "prepared_at": "2026-11-24T06:00:00.000Z", "segment": "buyers", "generation": 12, "seq": 3,
                    "adds": 1200, "removes": 7, "state": state, "failures": failures, "trouble": trouble })
        };
        let shown = delivered(&[
            batch("prepared", 2, json!("answered 503: later")),
            batch("acknowledged", 0, Value::Null),
        ]);
        let lines: Vec<&str> = shown.lines().collect();
        for part in ["12-3", "1,200", "prepared", "2", "answered 503: later"] {
            assert!(lines[1].contains(part), "{part} in {shown}");
        }
        assert!(lines[2].contains("acknowledged") && !lines[2].contains("null"), "{shown}");
    }
}
