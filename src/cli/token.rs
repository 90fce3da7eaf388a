//! `throng token`: tokens of the private listener.

use clap::Subcommand;
use serde_json::{Value, json};
use std::process::ExitCode;

use super::client::{Client, escape};
use super::output::{print, table};
use super::{Failure, Global};
use crate::config::Period;
use crate::model::Millis;
use crate::model::time::DAY;
use crate::model::time::format_rfc3339;
use crate::model::time::parse_rfc3339;
use crate::net::Clock as _;
use crate::net::SystemClock;

/// Sub-commands of `throng token`.
#[derive(Debug, Subcommand)]
pub(super) enum Token {
    /// Make a token; it is shown once
    Create {
        /// What it is for
        name: String,
        /// What it may do, more than once for several: `read`, `segments`, `destinations`, `import`, `privacy`, `admin`,
        /// `metrics`, `lookup` (audiences of any identifier, on the public listener) or `operator` (everything)
        #[arg(long, value_name = "SCOPE", default_value = "operator", value_parser = SCOPES)]
        scope: Vec<String>,
        /// From when on it opens nothing: a time such as 2027-01-31T00:00:00Z, or a length such as 90d; never if left out
        #[arg(long, value_name = "TIME")]
        expires: Option<String>,
    },
    /// List tokens, without their secrets
    List,
    /// Revoke a token
    Revoke {
        /// Its name
        name: String,
    },
}

/// What there is to be allowed.
const SCOPES: [&str; 9] = [
    "read",
    "segments",
    "destinations",
    "import",
    "privacy",
    "admin",
    "metrics",
    "lookup",
    "operator",
];

/// Runs a sub-command.
pub(super) fn run(global: &Global, command: &Token) -> Result<ExitCode, Failure> {
    let client = Client::find(global)?;
    match command {
        Token::Create { name, scope, expires } => {
            let expires = expires.as_deref().map(instant).transpose()?;
            let wanted = json!({ "name": name, "scopes": scope, "expires": expires });
            let answer = client.post_json("/api/v1/tokens", &wanted)?;
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
                let scopes = token["scopes"].as_array().cloned().unwrap_or_default();
                let scopes: Vec<String> = scopes.iter().map(text).collect();
                vec![
                    text(&token["name"]),
                    text(&token["id"]),
                    scopes.join(" "),
                    text(&token["created"]),
                    text(&token["expires"]),
                    text(&token["last_used"]),
                ]
            });
            print(&table(&["NAME", "ID", "SCOPES", "CREATED", "EXPIRES", "LAST USED"], rows))?;
        }
        Token::Revoke { name } => {
            client.delete(&format!("/api/v1/tokens/{}", escape(name)))?;
            print(&format!("revoked {name}"))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

/// No token is made for longer than a hundred years.
const LONGEST: Millis = 36_500 * DAY;

/// A time, or one so long from now.
fn instant(text: &str) -> Result<String, Failure> {
    let wrong = || {
        Failure::Usage(format!(
            "--expires {text}: expected a time such as 2027-01-31T00:00:00Z, or a length such as 90d"
        ))
    };
    if let Some(time) = parse_rfc3339(text) {
        return Ok(format_rfc3339(time));
    }
    let Period(length) = text.parse().map_err(|_| wrong())?;
    if length > LONGEST {
        return Err(wrong());
    }
    Ok(format_rfc3339(SystemClock::default().now() + length))
}
