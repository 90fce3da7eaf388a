//! `throng access`, `throng erase`, `throng opt-out` and `throng receipt`: the rights of those whose data this is.

use clap::Args;
use clap::Subcommand;
use serde_json::Value;
use serde_json::json;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;
use std::time::Instant;

use super::Failure;
use super::Global;
use super::client::Client;
use super::client::escape;
use super::output::print;
use super::output::table;
use crate::privacy::verify;

/// How often a command that waits asks for the receipt.
const LOOK: Duration = Duration::from_millis(200);

/// Who is meant.
#[derive(Debug, Args)]
struct Subject {
    /// The namespace of an identifier, such as `cookie` or `user_id`; `email` and `phone` stand for their hashes
    namespace: String,
    /// Its value
    value: String,
}

/// `throng access`
#[derive(Debug, Args)]
pub(super) struct Access {
    #[command(flatten)]
    subject: Subject,
    /// Also profiles that share an identifier with theirs, and so on
    #[arg(long)]
    person: bool,
}

/// `throng erase`
#[derive(Debug, Args)]
pub(super) struct Erase {
    #[command(flatten)]
    subject: Subject,
    /// Also profiles that share an identifier with theirs, and so on
    #[arg(long)]
    person: bool,
    /// Take nothing of them any more; without it, who comes again is a new visitor
    #[arg(long)]
    suppress: bool,
    /// Wait until nothing is pending, at destinations neither, at most for so many seconds; exit 1 where something is
    #[arg(long, value_name = "SECONDS")]
    wait: Option<u64>,
}

/// `throng opt-out`
#[derive(Debug, Args)]
pub(super) struct OptOut {
    #[command(flatten)]
    subject: Subject,
    /// Also profiles that share an identifier with theirs, and so on
    #[arg(long)]
    person: bool,
    /// Take an opt-out back
    #[arg(long)]
    undo: bool,
}

/// Sub-commands of `throng receipt`.
#[derive(Debug, Subcommand)]
pub(super) enum Receipt {
    /// List the last erasures
    List,
    /// Show one as it stands now, signed
    Show {
        /// Its id
        id: String,
    },
    /// Print the public key that receipts are signed with
    Key,
    /// Check the signature of a receipt in a file, against the server's key or the one given; exit 1 where it is wrong
    Verify {
        /// The file; `-` is standard input
        file: PathBuf,
        /// The key, as `throng receipt key` prints it; no server is asked then
        #[arg(long)]
        key: Option<String>,
    },
}

/// Prints all that is held.
pub(super) fn access(global: &Global, command: &Access) -> Result<ExitCode, Failure> {
    let Access { subject: Subject { namespace, value }, person } = command;
    let asked = json!({ "namespace": namespace, "value": value, "person": person });
    let held = Client::find(global)?.post_json("/api/v1/privacy/access", &asked)?;
    print(&pretty(&held))?;
    Ok(ExitCode::SUCCESS)
}

/// Erases, and prints the receipt.
pub(super) fn erase(global: &Global, command: &Erase) -> Result<ExitCode, Failure> {
    let Erase { subject: Subject { namespace, value }, person, suppress, wait } = command;
    let client = Client::find(global)?;
    let asked = json!({
        "namespace": namespace,
        "value": value,
        "person": person,
        "suppress": suppress,
    });
    let mut receipt = client.post_json("/api/v1/privacy/erase", &asked)?;
    let id = receipt["receipt"]["id"].as_str().unwrap_or_default().to_owned();
    let until = wait.map(|seconds| Instant::now() + Duration::from_secs(seconds));
    while until.is_some_and(|until| Instant::now() < until) && !is_done(&receipt) {
        std::thread::sleep(LOOK);
        receipt = client.get(&format!("/api/v1/privacy/receipts/{}", escape(&id)))?;
    }
    show(global, &receipt)?;
    let in_time = wait.is_none() || is_done(&receipt);
    Ok(if in_time { ExitCode::SUCCESS } else { ExitCode::from(1) })
}

/// Keeps a choice.
pub(super) fn opt_out(global: &Global, command: &OptOut) -> Result<ExitCode, Failure> {
    let OptOut { subject: Subject { namespace, value }, person, undo } = command;
    let asked = json!({
        "namespace": namespace,
        "value": value,
        "person": person,
        "opted_out": !undo,
    });
    let kept = Client::find(global)?.post_json("/api/v1/privacy/opt-out", &asked)?;
    print(&if global.json { kept.to_string() } else { chosen(&kept) })?;
    Ok(ExitCode::SUCCESS)
}

/// A choice that was kept, and what is still to be done, in words.
fn chosen(kept: &Value) -> String {
    if kept["opted_out"] == false {
        return "opted in again".to_owned();
    }
    let known = match kept["profiles"].as_u64() {
        Some(0) => "no profile has it yet, and it stands for one that comes".to_owned(),
        Some(1) => "1 profile".to_owned(),
        _ => format!("{} profiles", kept["profiles"]),
    };
    match held_at(&kept["destinations"]).join(", ") {
        held if held.is_empty() => format!("opted out: {known}; no destination holds any of it"),
        held => format!("opted out: {known}; still to be taken back: {held}"),
    }
}

/// Runs a sub-command of `throng receipt`.
pub(super) fn receipt(global: &Global, command: &Receipt) -> Result<ExitCode, Failure> {
    match command {
        Receipt::List => {
            let answer = Client::find(global)?.get("/api/v1/privacy/receipts")?;
            if global.json {
                print(&answer["receipts"].to_string())?;
                return Ok(ExitCode::SUCCESS);
            }
            let receipts = answer["receipts"].as_array().cloned().unwrap_or_default();
            let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
            let rows = receipts.iter().map(|signed| {
                let receipt = &signed["receipt"];
                vec![
                    text(&receipt["id"]),
                    text(&receipt["asked_at"]),
                    text(&receipt["asked_by"]),
                    text(&receipt["state"]),
                    receipt["erased"]["profiles"].to_string(),
                    pending(receipt),
                ]
            });
            let header = ["ID", "ASKED", "BY", "STATE", "PROFILES", "PENDING"];
            print(&table(&header, rows))?;
        }
        Receipt::Show { id } => {
            let path = format!("/api/v1/privacy/receipts/{}", escape(id));
            show(global, &Client::find(global)?.get(&path)?)?;
        }
        Receipt::Key => {
            let answer = Client::find(global)?.get("/api/v1/privacy/key")?;
            match global.json {
                true => print(&answer.to_string())?,
                false => print(answer["key"].as_str().unwrap_or_default())?,
            }
        }
        Receipt::Verify { file, key } => {
            let text = match file.as_os_str() == "-" {
                true => std::io::read_to_string(std::io::stdin()),
                false => std::fs::read_to_string(file),
            };
            let no = |why: String| Failure::No(format!("{}: {why}", file.display()));
            let text = text.map_err(|error| no(error.to_string()))?;
            let document: Value =
                serde_json::from_str(&text).map_err(|error| no(format!("no JSON: {error}")))?;
            let key = match key {
                Some(key) => key.clone(),
                None => {
                    let answer = Client::find(global)?.get("/api/v1/privacy/key")?;
                    answer["key"].as_str().unwrap_or_default().to_owned()
                }
            };
            verify(&document, Some(&key)).map_err(no)?;
            print("the signature is right")?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

fn is_done(receipt: &Value) -> bool {
    receipt["receipt"]["state"] == "done"
}

/// A receipt for people, or as it is.
fn show(global: &Global, signed: &Value) -> Result<(), Failure> {
    if global.json {
        return print(&pretty(signed));
    }
    let receipt = &signed["receipt"];
    let text = |name: &str| receipt[name].as_str().unwrap_or("-").to_owned();
    let erased = &receipt["erased"];
    let lines = [
        ("receipt", text("id")),
        ("asked", format!("{} by {}", text("asked_at"), text("asked_by"))),
        ("state", text("state")),
        (
            "erased",
            format!(
                "{} profiles, {} identifiers, {} events; {} events of the archive, {} dead letters, {} events set aside",
                erased["profiles"],
                erased["identifiers"],
                erased["events"],
                erased["archived_events"],
                erased["dead_letters"],
                erased["events_set_aside"]
            ),
        ),
        ("pending", pending(receipt)),
    ];
    let lines: Vec<String> = lines.iter().map(|(name, text)| format!("{name:<8} {text}")).collect();
    print(&lines.join("\n"))
}

/// What is pending, in words.
fn pending(receipt: &Value) -> String {
    let pending = &receipt["pending"];
    let mut parts = Vec::new();
    if pending["profiles"] == true {
        parts.push("profiles".to_owned());
    }
    if pending["lanes"].as_u64().is_some_and(|lanes| lanes > 0) {
        parts.push("archive and journal".to_owned());
    }
    parts.extend(held_at(&pending["destinations"]));
    if parts.is_empty() { "nothing".to_owned() } else { parts.join(", ") }
}

/// What each destination holds, in words.
fn held_at(destinations: &Value) -> Vec<String> {
    let told = |held: &Value| {
        let text = |name: &str| held[name].as_str().unwrap_or_default().to_owned();
        format!("{} of {} at {}", held["identifiers"], text("segment"), text("destination"))
    };
    destinations.as_array().into_iter().flatten().map(told).collect()
}

fn pretty(value: &Value) -> String {
    serde_json::to_string_pretty(value).unwrap_or_else(|_| value.to_string())
}
