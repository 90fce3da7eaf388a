//! `throng token`: tokens of the private listener.

use clap::Subcommand;
use serde_json::{Value, json};
use std::process::ExitCode;

use super::client::{Client, escape};
use super::output::{print, table};
use super::{Failure, Global};

/// Sub-commands of `throng token`.
#[derive(Debug, Subcommand)]
pub(super) enum Token {
    /// Make a token; it is shown once
    Create {
        /// What it is for
        name: String,
        /// What it may do: `operator` (everything), `lookup` (audiences of any identifier, on the public listener) or `metrics`
        #[arg(long, default_value = "operator")]
        scope: String,
    },
    /// List tokens, without their secrets
    List,
    /// Revoke a token
    Revoke {
        /// Its name
        name: String,
    },
}

/// Runs a sub-command.
pub(super) fn run(global: &Global, command: &Token) -> Result<ExitCode, Failure> {
    let client = Client::find(global)?;
    match command {
        Token::Create { name, scope } => {
            let answer =
                client.post_json("/api/v1/tokens", &json!({ "name": name, "scope": scope }))?;
            if global.json {
                print(&answer.to_string())?;
            } else {
                print(answer["token"].as_str().unwrap_or_default())?;
                eprintln!("keep it: it is not shown again");
            }
        }
        Token::List => {
            let answer = client.get("/api/v1/tokens")?;
            if global.json {
                print(&answer["tokens"].to_string())?;
                return Ok(ExitCode::SUCCESS);
            }
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let rows = answer["tokens"].as_array().cloned().unwrap_or_default();
            let rows = rows.iter().map(|token| {
                vec![text(&token["name"]), text(&token["scope"]), text(&token["created"])]
            });
            print(&table(&["NAME", "SCOPE", "CREATED"], rows))?;
        }
        Token::Revoke { name } => {
            client.delete(&format!("/api/v1/tokens/{}", escape(name)))?;
            print(&format!("revoked {name}"))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
