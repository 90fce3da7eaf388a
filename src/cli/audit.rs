//! `throng audit`: who changed what.

use clap::Subcommand;
use serde_json::Value;
use std::process::ExitCode;

use super::client::Client;
use super::output::{print, table};
use super::{Failure, Global};

/// Sub-commands of `throng audit`.
#[derive(Debug, Subcommand)]
pub(super) enum Audit {
    /// List the records, from the oldest to the newest
    List {
        /// Behind the record of this number
        #[arg(long, value_name = "NUMBER", default_value_t = 0)]
        after: u64,
        /// How many at most [default: all]
        #[arg(long, value_name = "COUNT")]
        limit: Option<usize>,
    },
    /// Check that no record was changed, left out or cut off; exit 1 and the place if one was
    Verify,
}

/// So many are asked for at once.
const PAGE: usize = 1_000;

/// Runs a sub-command.
pub(super) fn run(global: &Global, command: &Audit) -> Result<ExitCode, Failure> {
    let client = Client::find(global)?;
    match command {
        Audit::List { after, limit } => list(global, &client, *after, limit.unwrap_or(usize::MAX)),
        Audit::Verify => verify(global, &client),
    }
}

fn list(
    global: &Global,
    client: &Client,
    after: u64,
    mut left: usize,
) -> Result<ExitCode, Failure> {
    let (mut records, mut next) = (Vec::new(), Some(after));
    while let Some(after) = next.filter(|_| left > 0) {
        let limit = left.min(PAGE);
        let page = client.get(&format!("/api/v1/audit?after={after}&limit={limit}"))?;
        for number in page["unreadable"].as_array().into_iter().flatten() {
            eprintln!(
                "record {number} cannot be read, or is not one that the server wrote: `throng audit verify` says more"
            );
        }
        let found = page["records"].as_array().cloned().unwrap_or_default();
        left -= limit;
        records.extend(found);
        next = page["next"].as_u64();
    }
    if global.json {
        print(&Value::Array(records).to_string())?;
        return Ok(ExitCode::SUCCESS);
    }
    let text = |value: &Value| value.as_str().unwrap_or("–").to_owned();
    let rows = records.iter().map(|record| {
        let outcome = match record["of"].as_u64() {
            Some(of) => format!("{} of {of}", text(&record["outcome"])),
            None => text(&record["outcome"]),
        };
        vec![
            record["number"].to_string(),
            text(&record["time"]),
            text(&record["actor"]),
            text(&record["address"]),
            text(&record["action"]),
            text(&record["target"]),
            outcome,
        ]
    });
    print(&table(&["NO", "TIME", "ACTOR", "ADDRESS", "ACTION", "TARGET", "OUTCOME"], rows))?;
    Ok(ExitCode::SUCCESS)
}

fn verify(global: &Global, client: &Client) -> Result<ExitCode, Failure> {
    let found = client.get("/api/v1/audit/check")?;
    let is_whole = found["ok"] == true;
    if global.json {
        print(&found.to_string())?;
    } else if is_whole {
        let first = found["first"].as_u64().filter(|first| *first > 1);
        let first = first.map(|first| format!(", from {first} on")).unwrap_or_default();
        let hash = found["hash"].as_str().unwrap_or("none");
        print(&format!(
            "whole: {} records{first}; the hash of the last is {hash}",
            found["records"]
        ))?;
    } else {
        print(&format!(
            "broken at record {}: {}",
            found["broken_at"],
            found["why"].as_str().unwrap_or_default()
        ))?;
    }
    Ok(if is_whole { ExitCode::SUCCESS } else { ExitCode::from(1) })
}
