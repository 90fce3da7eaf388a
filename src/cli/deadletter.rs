//! `throng deadletter`: records that were accepted and could not be folded.

use clap::Subcommand;
use serde_json::Value;
use std::process::ExitCode;

use super::client::{Client, escape};
use super::output::{print, table};
use super::{Failure, Global};

/// Sub-commands of `throng deadletter`.
#[derive(Debug, Subcommand)]
pub(super) enum Deadletter {
    /// List them
    List,
    /// Show one
    Show {
        /// Its number in the list
        number: String,
    },
    /// Drop one for good
    Drop {
        /// Its number in the list
        number: String,
    },
}

/// Runs a sub-command.
pub(super) fn run(global: &Global, command: &Deadletter) -> Result<ExitCode, Failure> {
    let client = Client::find(global)?;
    match command {
        Deadletter::List => {
            let answer = client.get("/api/v1/dead-letters")?;
            if global.json {
                print(&answer["dead_letters"].to_string())?;
                return Ok(ExitCode::SUCCESS);
            }
            let letters = answer["dead_letters"].as_array().cloned().unwrap_or_default();
            if letters.is_empty() {
                print("none: every accepted event was folded")?;
                return Ok(ExitCode::SUCCESS);
            }
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let rows = letters.iter().map(|letter| {
                vec![
                    text(&letter["number"]),
                    text(&letter["received"]),
                    letter["bytes"].to_string(),
                    text(&letter["reason"]),
                ]
            });
            print(&table(&["NUMBER", "RECEIVED", "BYTES", "REASON"], rows))?;
        }
        Deadletter::Show { number } => {
            print(&client.get(&format!("/api/v1/dead-letters/{}", escape(number)))?.to_string())?;
        }
        Deadletter::Drop { number } => {
            client.delete(&format!("/api/v1/dead-letters/{}", escape(number)))?;
            print(&format!("dropped {number}"))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
