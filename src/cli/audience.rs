//! `throng audience`: what the segments hold now.

use clap::Subcommand;
use serde_json::Value;
use std::process::ExitCode;

use super::client::{Client, escape};
use super::cost;
use super::eval::members;
use super::history;
use super::output::{print, table};
use super::overlap;
use super::{Failure, Global};

/// Sub-commands of `throng audience`.
#[derive(Debug, Subcommand)]
pub(super) enum Audience {
    /// List every audience with its size and how fresh it is
    List,
    /// Show one audience
    Show {
        /// The segment's id
        id: String,
    },
    /// List the audiences that an identifier is in: that of a profile's events, as with `why`. Audiences follow from
    /// rules alone; who opted out or is a bot stays in them, and is pushed nowhere
    Of {
        /// The identifier's namespace, such as `cookie`
        namespace: String,
        /// Its value
        value: String,
    },
    /// List members' identifiers, one a line, each once; with --at those of another instant, by what is known now
    Members {
        /// The segment's id
        id: String,
        /// The identifiers' namespace, such as `user_id`
        #[arg(long = "as", value_name = "NAMESPACE")]
        namespace: String,
    },
    /// Count what audiences share, exactly and all of one generation: every region of up to 6, or with --matrix up
    /// to 100 two by two
    Overlap(overlap::Overlap),
    /// Show what each audience costs to evaluate, shared parts divided among those that have them; the dearest first
    Cost,
    /// Show how large an audience was, and how many entered and left it, day by day or hour by hour
    History(history::History),
}

/// Runs a sub-command.
pub(super) fn run(global: &Global, command: &Audience) -> Result<ExitCode, Failure> {
    let client = Client::find(global)?;
    match command {
        Audience::List => list(global, &client)?,
        Audience::Show { id } => show(global, &client, id)?,
        Audience::Of { namespace, value } => {
            let path =
                format!("/api/v1/profiles/{}/{}/audiences", escape(namespace), escape(value));
            let answer = client.get(&path)?;
            if global.json {
                print(&answer.to_string())?;
            } else {
                for id in answer["audiences"].as_array().into_iter().flatten() {
                    print(id.as_str().unwrap_or_default())?;
                }
                eprintln!("true for {}", answer["true_for"].as_str().unwrap_or("–"));
            }
        }
        Audience::Overlap(command) => overlap::run(global, &client, command)?,
        Audience::Cost => cost::run(global, &client)?,
        Audience::History(command) => history::run(global, &client, command)?,
        Audience::Members { id, namespace } => {
            let mut path =
                format!("/api/v1/audiences/{}/members?as={}", escape(id), escape(namespace));
            if let Some(at) = &global.at {
                path.push_str("&at=");
                path.push_str(&escape(at));
            }
            client.lines(&path, None, |line| {
                if global.json {
                    return print(line);
                }
                let value: String = serde_json::from_str(line).map_err(|_| {
                    Failure::OutOfReach("the server's answer is no list of members".into())
                })?;
                print(&value)
            })?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn list(global: &Global, client: &Client) -> Result<(), Failure> {
    let answer = client.get("/api/v1/audiences")?;
    if global.json {
        return print(&answer["audiences"].to_string());
    }
    for problem in answer["problems"].as_array().into_iter().flatten() {
        eprintln!("{}", problem["rendered"].as_str().unwrap_or_default().trim_end());
    }
    let audiences = answer["audiences"].as_array().cloned().unwrap_or_default();
    if audiences.is_empty() {
        let wrong = answer["problems"].as_array().is_some_and(|problems| !problems.is_empty());
        return print(if wrong {
            "no segment without a mistake yet"
        } else {
            "no segments yet; put a file such as segments/buyers.toml beside the server"
        });
    }
    let text = |value: &Value| value.as_str().unwrap_or("–").to_owned();
    let rows = audiences.iter().map(|audience| {
        vec![
            text(&audience["id"]),
            members(&audience["members"]),
            text(&audience["level"]),
            text(&audience["state"]),
            text(&audience["changed_at"]),
            text(&audience["true_for"]),
            lag(&audience["lag_ms"]),
            text(&audience["name"]),
        ]
    });
    let head = ["SEGMENT", "MEMBERS", "LEVEL", "STATE", "CHANGED", "TRUE FOR", "LAG", "NAME"];
    print(&table(&head, rows))
}

/// How long ago the time is that members are true for.
fn lag(millis: &Value) -> String {
    match millis.as_f64() {
        Some(millis) if millis < 60_000.0 => format!("{:.1} s", millis / 1e3),
        Some(millis) if millis < 3_600_000.0 => format!("{:.0} min", millis / 60e3),
        Some(millis) => format!("{:.0} h", millis / 3_600e3),
        None => "–".to_owned(),
    }
}

fn show(global: &Global, client: &Client, id: &str) -> Result<(), Failure> {
    let answer = client.get(&format!("/api/v1/audiences/{}", escape(id)))?;
    if global.json {
        return print(&answer.to_string());
    }
    let mut out = String::new();
    for field in [
        "id",
        "name",
        "description",
        "owner",
        "level",
        "rule",
        "members",
        "state",
        "generation",
        "changed_at",
        "true_for",
        "lag_ms",
        "min_size",
        "destinations",
        "problem",
    ] {
        let value = &answer[field];
        let text = match value {
            Value::Null => continue,
            Value::String(text) if text.is_empty() => continue,
            Value::String(text) => text.trim().replace('\n', "\n              "),
            Value::Array(items) => {
                items.iter().filter_map(Value::as_str).collect::<Vec<_>>().join(", ")
            }
            Value::Number(_) if field == "members" => members(value),
            Value::Number(_) if field == "lag_ms" => lag(value),
            other => other.to_string(),
        };
        let field = if field == "lag_ms" { "lag" } else { field };
        out.push_str(&format!("{field:<13} {text}\n"));
    }
    print(&out)
}
