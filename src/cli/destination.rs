//! `throng destination`: what is pushed where.

use clap::Subcommand;
use serde_json::{Value, json};
use std::process::ExitCode;

use super::authorize;
use super::authorize::Authorize;
use super::client::{Client, escape};
use super::output::{NO, count, print, span, table};
use super::{Failure, Global};
use crate::model::Millis;
use crate::model::time::parse_rfc3339;

/// Sub-commands of `throng destination`.
#[derive(Debug, Subcommand)]
pub(super) enum Destination {
    /// List the configured destinations
    List,
    /// Get the refresh token of a destination that uses one, from somebody who agrees in a browser
    ///
    /// It prints the address to open, waits on 127.0.0.1 until the browser comes back, and writes the token to the file that
    /// `refresh_token` of the destination names; the token is never printed. It needs no running server: run it in the folder
    /// where the server is started, as the user that it runs as. With --json it prints two lines: what to open, and then, once
    /// that is done, what was written.
    Authorize(Authorize),
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
    /// Show how many of each audience are left at each step to a destination, and why the others are not
    Waterfall {
        /// The destination's name
        name: String,
        /// The id of one segment; all without it
        #[arg(long)]
        segment: Option<String>,
    },
    /// Pause a destination: nobody is added, and nobody removed but who opts out
    Pause {
        /// The destination's name
        name: String,
    },
    /// Let a paused destination go on
    Resume {
        /// The destination's name
        name: String,
    },
    /// List what a destination would not take, and why
    Refused {
        /// The destination's name
        name: String,
        /// How many of each segment
        #[arg(long, default_value_t = 20)]
        limit: u16,
    },
    /// Send a destination what it would not take again
    Replay {
        /// The destination's name
        name: String,
    },
    /// Send a destination all that it should hold again
    Resync {
        /// The destination's name
        name: String,
    },
    /// Empty a destination of what was sent there, and fill it anew
    Reseed {
        /// The destination's name
        name: String,
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
    if let Destination::Authorize(command) = command {
        return authorize::run(global, command);
    }
    let client = Client::find(global)?;
    match command {
        Destination::Authorize(command) => authorize::run(global, command),
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
            print(&listed(&destinations, time(&answer["now"]).unwrap_or(0)))?;
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
        Destination::Waterfall { name, segment } => {
            waterfall(global, &client, name, segment.as_deref())
        }
        Destination::Pause { name } => pause(global, &client, name, "pause"),
        Destination::Resume { name } => pause(global, &client, name, "resume"),
        Destination::Refused { name, limit } => refused(global, &client, name, *limit),
        Destination::Replay { name } => again(global, &client, name, "replay"),
        Destination::Resync { name } => again(global, &client, name, "resync"),
        Destination::Reseed { name } => again(global, &client, name, "reseed"),
        Destination::Push { name, dry_run, drain } => {
            push(global, &client, name.as_deref(), *dry_run, *drain)
        }
    }
}

/// A line for each destination, as of `now`.
fn listed(destinations: &[Value], now: Millis) -> String {
    let text = |value: &Value| value.as_str().unwrap_or("–").to_owned();
    let ago = |value: &Value| time(value).map_or("–".to_owned(), |at| since(now - at));
    let rows = destinations.iter().map(|destination| {
        let segments = destination["segments"].as_array().cloned().unwrap_or_default();
        let trouble = destination["trouble"].as_str();
        let trouble =
            trouble.or_else(|| segments.iter().find_map(|segment| segment["trouble"].as_str()));
        let state = match (trouble, destination["paused"] == true) {
            (Some(trouble), _) => trouble,
            (None, true) => "paused",
            (None, false) => "well",
        };
        let next = match time(&destination["next_run"]) {
            Some(next) if next > now => format!("in {}", since(next - now)),
            _ => "now".to_owned(),
        };
        vec![
            text(&destination["name"]),
            text(&destination["kind"]),
            text(&destination["every"]),
            segments.len().to_string(),
            match time(&destination["last_success"]) {
                Some(at) => format!("{} ago", since(now - at)),
                None => "never".to_owned(),
            },
            next,
            ago(&destination["oldest_pending"]),
            state.to_owned(),
        ]
    });
    let header = [
        "DESTINATION",
        "KIND",
        "EVERY",
        "SEGMENTS",
        "LAST SUCCESS",
        "NEXT RUN",
        "OLDEST PENDING",
        "STATE",
    ];
    table(&header, rows)
}

fn time(value: &Value) -> Option<Millis> {
    parse_rfc3339(value.as_str()?)
}

/// A span in words, no finer than a second.
fn since(millis: Millis) -> String {
    match millis {
        ..10_000 => format!("{} s", millis.max(0) / 1_000),
        _ => span(millis),
    }
}

fn pause(global: &Global, client: &Client, name: &str, what: &str) -> Result<ExitCode, Failure> {
    let path = format!("/api/v1/destinations/{}/{what}", escape(name));
    let answer = client.post_json(&path, &json!({}))?;
    if global.json {
        print(&answer.to_string())?;
    } else if answer["paused"] == true {
        print(&format!("{name} is paused; who opts out is still removed"))?;
    } else {
        print(&format!("{name} goes on"))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn waterfall(
    global: &Global,
    client: &Client,
    name: &str,
    segment: Option<&str>,
) -> Result<ExitCode, Failure> {
    let query = segment.map(|id| format!("?segment={}", escape(id))).unwrap_or_default();
    let answer = client.get(&format!("/api/v1/destinations/{}/waterfall{query}", escape(name)))?;
    let found = answer["waterfalls"].as_array().cloned().unwrap_or_default();
    if global.json {
        print(&Value::Array(found).to_string())?;
    } else if found.is_empty() {
        let which = segment.map_or_else(|| "no segment".to_owned(), |id| format!("{id} not"));
        print(&format!("{which} goes to {name}, or has an audience yet"))?;
    } else {
        let shown: Vec<String> = found.iter().map(fallen).collect();
        print(&shown.join("\n\n"))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// The widest bar.
const BAR: u64 = 24;

/// The steps of one segment, each with a bar of its own.
fn fallen(waterfall: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let steps = waterfall["steps"].as_array().cloned().unwrap_or_default();
    let most = steps.iter().filter_map(|step| step["count"].as_u64()).max().unwrap_or(0).max(1);
    let mut rows: Vec<Vec<String>> = steps
        .iter()
        .map(|step| {
            let number = step["count"].as_u64().unwrap_or(0);
            let width = (number * BAR).div_ceil(most);
            let lost = step["lost"].as_array().cloned().unwrap_or_default();
            let lost = lost.iter().map(|lost| {
                format!("-{} {}", count(lost["count"].as_u64().unwrap_or(0)), text(&lost["why"]))
            });
            vec![
                text(&step["step"]).replace('_', " "),
                count(number),
                "█".repeat(usize::try_from(width).unwrap_or(0)),
                lost.collect::<Vec<_>>().join("; "),
            ]
        })
        .collect();
    let matched = &waterfall["matched"];
    if let (Some(least), Some(most)) = (matched["least"].as_u64(), matched["most"].as_u64()) {
        let said = format!("{} to {}", count(least), count(most));
        rows.push(vec!["matched".into(), said, String::new(), "as the platform says".into()]);
    }
    let mut shown = format!(
        "{} to {}, true for {}\n",
        text(&waterfall["segment"]),
        text(&waterfall["destination"]),
        text(&waterfall["true_for"])
    );
    if let Some(trouble) = waterfall["trouble"].as_str() {
        shown += &format!("! {trouble}\n");
    }
    shown + &table(&["STEP", "LEFT", "", "LOST"], rows)
}

fn refused(global: &Global, client: &Client, name: &str, limit: u16) -> Result<ExitCode, Failure> {
    let path = format!("/api/v1/destinations/{}/refused?limit={limit}", escape(name));
    let answer = client.get(&path)?;
    let found = answer["refused"].as_array().cloned().unwrap_or_default();
    if global.json {
        print(&Value::Array(found).to_string())?;
    } else if found.is_empty() {
        print(&format!("{name} has taken all that was sent"))?;
    } else {
        let keys = ["segment", "namespace", "value", "since", "why"];
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let rows = found.iter().map(|one| keys.map(|key| text(&one[key])).to_vec());
        print(&table(&["SEGMENT", "NAMESPACE", "VALUE", "SINCE", "WHY"], rows))?;
    }
    Ok(ExitCode::SUCCESS)
}

fn again(global: &Global, client: &Client, name: &str, what: &str) -> Result<ExitCode, Failure> {
    let path = format!("/api/v1/destinations/{}/{what}", escape(name));
    let answer = client.post_json(&path, &json!({}))?;
    report(global, answer["reports"].as_array().cloned().unwrap_or_default(), false)
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
    report(global, reports, dry_run)
}

/// Shows what was pushed.
fn report(global: &Global, reports: Vec<Value>, dry_run: bool) -> Result<ExitCode, Failure> {
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
            if let Some(refused @ 1..) = report["refused"].as_u64() {
                notes.push(format!("{} refused", count(refused)));
            }
            if let Some(staged @ 1..) = report["staged"].as_u64() {
                notes.push(format!("{} batches are worked on there", count(staged)));
            }
            notes.extend(
                ["note", "trouble"]
                    .iter()
                    .filter_map(|key| report[key].as_str())
                    .map(str::to_owned),
            );
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
    fn a_destination_is_a_line_that_says_how_late_it_is() {
        let shown = listed(
            &[
                json!({ "name": "crm", "kind": "file", "every": "1m", "paused": false, "trouble": null,
                        "last_success": "2026-11-24T06:00:00.000Z", "next_run": "2026-11-24T06:00:45.500Z",
                        "oldest_pending": "2026-11-24T03:30:30.000Z", "segments": [{ "trouble": null }, {}] }),
                json!({ "name": "ads", "kind": "google", "every": "1h", "paused": false, "trouble": null,
                        "last_success": "2026-11-21T06:00:00.000Z", "next_run": "2026-11-24T06:00:00.000Z",
                        "oldest_pending": null, "segments": [{ "trouble": null }, { "trouble": "answered 503" }] }),
                json!({ "name": "new", "kind": "s3", "every": "1h", "paused": true, "trouble": null,
                        "last_success": null, "next_run": null, "oldest_pending": null, "segments": [] }),
                json!({ "name": "old", "kind": "s3", "every": "1h", "paused": false, "trouble": "no ledger",
                        "last_success": null, "next_run": null, "oldest_pending": null, "segments": [] }),
            ],
            parse_rfc3339("2026-11-24T06:00:30.000Z").unwrap(),
        );
        let lines: Vec<Vec<&str>> = shown
            .lines()
            .map(|line| line.split("  ").map(str::trim).filter(|s| !s.is_empty()).collect())
            .collect();
        assert_eq!(lines[0][4..], ["LAST SUCCESS", "NEXT RUN", "OLDEST PENDING", "STATE"]);
        assert_eq!(lines[1], ["crm", "file", "1m", "2", "30 s ago", "in 15 s", "2 h", "well"]);
        assert_eq!(lines[2], ["ads", "google", "1h", "2", "3 d ago", "now", "–", "answered 503"]);
        assert_eq!(lines[3], ["new", "s3", "1h", "0", "never", "now", "–", "paused"]);
        assert_eq!(lines[4][4..], ["never", "now", "–", "no ledger"]);
        assert_eq!([-5, 0, 999, 9_999].map(since), ["0 s", "0 s", "0 s", "9 s"]);
    }

    #[test]
    fn each_step_is_a_line_with_a_bar_and_why_others_are_lost() {
        let step = |step: &str, count: u64, lost: Value| json!({ "step": step, "count": count, "lost": lost });
        let shown = fallen(&json!({
            "segment": "buyers", "destination": "ads", "true_for": "2026-11-24T06:00:00.000Z", "trouble": null,
            "steps": [step("members", 1000, json!([])),
                      step("above_minimum", 500, json!([{ "why": "opted out", "count": 500 }])),
                      step("sent", 0, json!([]))],
            "matched": { "least": 300, "most": 400 },
        }));
        let lines: Vec<&str> = shown.lines().collect();
        let bars: Vec<usize> = lines.iter().map(|line| line.matches('█').count()).collect();
        assert_eq!(bars[2..], [24, 12, 0, 0], "{shown}");
        assert!(lines[2].contains("1,000") && lines[3].contains("-500 opted out"), "{shown}");
        assert!(lines[5].contains("300 to 400"), "{shown}");
    }

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
