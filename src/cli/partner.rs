//! `throng partner`: the partners that cookies are synced with.

use clap::Subcommand;
use serde_json::Value;
use std::process::ExitCode;

use super::client::Client;
use super::output::{count, print, table};
use super::{Failure, Global};

/// Sub-commands of `throng partner`.
#[derive(Debug, Subcommand)]
pub(super) enum Partner {
    /// List the partners: how many browsers were sent to each and matched since the server started, and of how many
    /// profiles an id counts or has expired
    List,
}

/// Runs a sub-command.
pub(super) fn run(global: &Global, command: &Partner) -> Result<ExitCode, Failure> {
    let Partner::List = command;
    let answer = Client::find(global)?.get("/api/v1/partners")?;
    print(&if global.json { answer.to_string() } else { listed(&answer) })?;
    Ok(ExitCode::SUCCESS)
}

fn listed(answer: &Value) -> String {
    let number = |value: &Value| value.as_u64().unwrap_or(0);
    let partners = answer["partners"].as_array().map_or(&[][..], Vec::as_slice);
    if partners.is_empty() {
        return "no partners: see [[partner]] in config/README.md\n".to_owned();
    }
    let rows = partners.iter().map(|partner| {
        let (asked, matched) = (number(&partner["asked"]), number(&partner["matched"]));
        let mut row = vec![partner["name"].as_str().unwrap_or_default().to_owned()];
        for name in ["asked", "matched"] {
            row.push(count(number(&partner[name])));
        }
        // A partner that calls of its own accord is matched more often than it is asked.
        let rate = matched.saturating_mul(100).checked_div(asked).filter(|_| matched <= asked);
        row.push(rate.map_or_else(|| "–".to_owned(), |rate| format!("{rate} %")));
        row.push(count(number(&partner["no_match"]) + number(&partner["errors"])));
        for name in ["no_cookie", "refused", "current", "expired"] {
            row.push(count(number(&partner[name])));
        }
        row
    });
    let header = [
        "PARTNER",
        "ASKED",
        "MATCHED",
        "RATE",
        "NO MATCH",
        "NO COOKIE",
        "REFUSED",
        "CURRENT",
        "EXPIRED",
    ];
    table(&header, rows)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_rate_is_of_those_who_were_asked() {
        let of = |name: &str, asked: u64, matched: u64| {
            json!({ "name": name, "asked": asked, "matched": matched, "no_match": 3, "errors": 1, "no_cookie": 0,
                    "refused": 2, "current": 1500, "expired": 7 })
        };
        let answer =
            json!({ "partners": [of("xandr", 200, 150), of("dsp", 0, 5), of("ttd", 3, 5)] });
        let shown = listed(&answer);
        let lines: Vec<&str> = shown.lines().collect();
        assert!(lines[1].contains("75 %") && lines[1].contains("1,500"), "{shown}");
        assert!(lines[1].contains("  4  "), "{shown}");
        assert!(lines[2..].iter().all(|line| line.contains('–')), "{shown}");
        assert!(listed(&json!({ "partners": [] })).starts_with("no partners"));
    }
}
