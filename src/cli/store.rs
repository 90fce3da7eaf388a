//! `throng store`: what the store of a running server takes.

use clap::Subcommand;
use serde_json::Value;
use std::process::ExitCode;

use super::client::Client;
use super::output::{count, print, table};
use super::{Failure, Global};

/// Sub-commands of `throng store`.
#[derive(Debug, Subcommand)]
pub(super) enum Store {
    /// Measure how many bytes each kind of contents takes. On Redis every key is looked at, in small steps: that takes
    /// some seconds for a million of them
    Size,
}

/// Runs a sub-command.
pub(super) fn run(global: &Global, command: &Store) -> Result<ExitCode, Failure> {
    let client = Client::find(global)?;
    match command {
        Store::Size => {
            let answer = client.get("/api/v1/store/size")?;
            print(&if global.json { answer.to_string() } else { sizes(&answer) })?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn sizes(answer: &Value) -> String {
    let number = |value: &Value| value.as_u64().map_or_else(|| "–".to_owned(), count);
    let kinds = answer["kinds"].as_array().map_or(&[][..], Vec::as_slice);
    let row = |kind: &Value| {
        let name = kind["kind"].as_str().unwrap_or("–").to_owned();
        vec![name, number(&kind["bytes"]), number(&kind["entries"])]
    };
    let total = vec!["all".to_owned(), number(&answer["bytes"]), String::new()];
    let rows = kinds.iter().map(row).chain([total]);
    table(&["KIND", "BYTES", "ENTRIES"], rows)
}
