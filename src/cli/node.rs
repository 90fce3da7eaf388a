//! `throng node`: the processes that share a store.

use clap::Subcommand;
use serde_json::Value;
use std::process::ExitCode;

use super::client::{Client, escape};
use super::output::{print, span, table};
use super::{Failure, Global};

/// Sub-commands of `throng node`.
#[derive(Debug, Subcommand)]
pub(super) enum Node {
    /// List the nodes: what each does and holds, when it was heard of, and how far it holds T back
    List,
    /// Strike off a node that will not come back. What it acknowledged and has not shipped is not waited for any
    /// longer; if it comes back after all, those events still count, late
    Retire {
        /// The node's name
        id: String,
        /// Also where it is heard of now
        #[arg(long)]
        force: bool,
    },
}

/// Runs a sub-command.
pub(super) fn run(global: &Global, command: &Node) -> Result<ExitCode, Failure> {
    let client = Client::find(global)?;
    match command {
        Node::List => {
            let answer = client.get("/api/v1/nodes")?;
            print(&if global.json { answer.to_string() } else { listed(&answer) })?;
        }
        Node::Retire { id, force } => {
            let answer = client.delete(&format!("/api/v1/nodes/{}?force={force}", escape(id)))?;
            print(&if global.json { answer.to_string() } else { retired(id, &answer) })?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn listed(answer: &Value) -> String {
    let text = |value: &Value| value.as_str().unwrap_or("–").to_owned();
    let time = |value: &Value| value.as_i64().map_or_else(|| "–".to_owned(), span);
    let nodes = answer["nodes"].as_array().map_or(&[][..], Vec::as_slice);
    let rows = nodes.iter().map(|node| {
        let roles: Vec<&str> =
            node["roles"].as_array().into_iter().flatten().filter_map(Value::as_str).collect();
        let lanes: Vec<u64> =
            node["lanes"].as_array().into_iter().flatten().filter_map(Value::as_u64).collect();
        let ahead = node["offset_ms"].as_i64().unwrap_or_default();
        vec![
            text(&node["id"]),
            roles.join(","),
            text(&node["address"]),
            ranges(&lanes),
            if node["leads"].as_bool() == Some(true) { "yes" } else { "" }.to_owned(),
            format!("{} ago", time(&node["heard_ms"])),
            format!("{}{}", if ahead < 0 { '-' } else { '+' }, span(ahead.saturating_abs())),
            time(&node["mark_age_ms"]),
            text(&node["version"]),
            text(&node["state"]),
        ]
    });
    let header = [
        "NODE",
        "ROLES",
        "ADDRESS",
        "LANES",
        "LEADS",
        "HEARD",
        "CLOCK",
        "HOLDS T BACK",
        "VERSION",
        "STATE",
    ];
    let mut out = table(&header, rows);
    out.push_str(&match answer["t_age_ms"].as_i64() {
        Some(age) => {
            format!("T is {} old; the clocks are {} apart\n", span(age), time(&answer["spread_ms"]))
        }
        None => "no node holds T back\n".to_owned(),
    });
    if answer["leader"].is_null() {
        out.push_str("no node leads: audiences stay as they are until one does\n");
    }
    for node in nodes.iter().filter(|node| node["state"] == "silent" && !node["mark"].is_null()) {
        let id = text(&node["id"]);
        out.push_str(&format!(
            "{id} is silent and holds T back: start it again, or strike it off with `throng node retire {id}`\n"
        ));
    }
    out
}

fn retired(id: &str, answer: &Value) -> String {
    if answer["takes_events"].as_bool() == Some(false) {
        return format!("retired {id}: it took no events, so nothing was waited for");
    }
    format!(
        "retired {id}: events that it has acknowledged and not shipped are not waited for any longer; if it comes \
         back they still count, late"
    )
}

/// Numbers in ascending order, with runs of them drawn together: `0-3,7`.
fn ranges(numbers: &[u64]) -> String {
    let runs = numbers.chunk_by(|one, next| one + 1 == *next);
    let runs = runs.filter_map(|run| match run {
        [] => None,
        [one] => Some(one.to_string()),
        [first, .., last] => Some(format!("{first}-{last}")),
    });
    let text = runs.collect::<Vec<_>>().join(",");
    if text.is_empty() { "–".to_owned() } else { text }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn runs_of_lanes_are_drawn_together() {
        assert_eq!(ranges(&[]), "–");
        assert_eq!(ranges(&[4]), "4");
        assert_eq!(ranges(&[0, 1, 2, 3, 7, 9, 10]), "0-3,7,9-10");
    }

    #[test]
    fn the_list_says_who_holds_the_audiences_back_and_what_to_do() {
        let answer = json!({
            "nodes": [
                { "id": "a", "roles": ["collect", "work"], "address": "h:1", "lanes": [0, 1], "leads": true,
                  "heard_ms": 80, "offset_ms": -3, "mark": "x", "mark_age_ms": 120, "version": "1", "state": "well" },
                { "id": "b", "roles": ["collect"], "address": null, "lanes": [], "leads": false,
                  "heard_ms": 300_000, "offset_ms": 4, "mark": "x", "mark_age_ms": 300_100, "version": "1",
                  "state": "silent" },
            ],
            "leader": "a", "t": "x", "t_age_ms": 300_110, "spread_ms": 7,
        });
        let text = listed(&answer);
        let lines: Vec<&str> = text.lines().collect();
        let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
        assert_eq!(words(lines[1]), "a collect,work h:1 0-1 yes 80 ms ago -3 ms 120 ms 1 well");
        assert_eq!(words(lines[2]), "b collect – – 5 min ago +4 ms 5 min 1 silent");
        assert_eq!(lines[3], "T is 5 min old; the clocks are 7 ms apart");
        assert!(lines[4].contains("`throng node retire b`") && lines.len() == 5, "{text}");
    }
}
