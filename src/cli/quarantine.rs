//! `throng quarantine`: identifiers that were set aside because they kept sending.

use clap::Subcommand;
use serde_json::{Value, json};
use std::process::ExitCode;

use super::client::{Client, escape};
use super::output::{print, table};
use super::{Failure, Global};

/// Sub-commands of `throng quarantine`.
#[derive(Debug, Subcommand)]
pub(super) enum Quarantine {
    /// List who is set aside, and how many events are kept of each
    List,
    /// Take one back: its events count, those that were kept included
    Restore {
        /// Its namespace
        namespace: String,
        /// Its value
        value: String,
    },
}

/// Runs a sub-command.
pub(super) fn run(global: &Global, command: &Quarantine) -> Result<ExitCode, Failure> {
    let client = Client::find(global)?;
    match command {
        Quarantine::List => {
            let answer = client.get("/api/v1/quarantine")?;
            if global.json {
                print(&answer["quarantine"].to_string())?;
                return Ok(ExitCode::SUCCESS);
            }
            let found = answer["quarantine"].as_array().cloned().unwrap_or_default();
            if found.is_empty() {
                print("none: nobody is set aside")?;
                return Ok(ExitCode::SUCCESS);
            }
            let text = |value: &Value| value.as_str().unwrap_or("-").to_owned();
            let rows = found.iter().map(|aside| {
                vec![
                    text(&aside["namespace"]),
                    text(&aside["value"]),
                    text(&aside["since"]),
                    aside["events"].to_string(),
                    aside["bytes"].to_string(),
                ]
            });
            print(&table(&["NAMESPACE", "VALUE", "SINCE", "EVENTS", "BYTES"], rows))?;
        }
        Quarantine::Restore { namespace, value } => {
            let path =
                format!("/api/v1/quarantine/{}/{}/restore", escape(namespace), escape(value));
            let answer = client.post_json(&path, &json!({}))?;
            if global.json {
                print(&answer.to_string())?;
            } else {
                print(&format!("restored, with {} events", answer["events"]))?;
            }
        }
    }
    Ok(ExitCode::SUCCESS)
}
