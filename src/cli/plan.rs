//! `throng plan` and `throng apply`: what other segment files would change, and doing exactly that.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io;
use std::io::IsTerminal;
use std::io::Write as _;
use std::path::Path;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::Args;
use serde_json::Value;
use serde_json::json;

use super::Failure;
use super::Global;
use super::client::Client;
use super::files;
use super::output;
use super::output::count;

/// Which files are to be.
#[derive(Debug, Args)]
struct Wanted {
    /// Segment files, or folders of them
    #[arg(value_name = "PATH", default_value = "segments")]
    paths: Vec<PathBuf>,
    /// Segments that are not among the files are removed
    #[arg(long)]
    prune: bool,
}

/// Arguments of `throng plan`.
#[derive(Debug, Args)]
pub(super) struct Plan {
    #[command(flatten)]
    wanted: Wanted,
    /// Writes the plan to a file, for `throng apply`
    #[arg(long, value_name = "FILE")]
    out: Option<PathBuf>,
    /// Exits with 1 where anything would change, and with 2 where the files are wrong
    #[arg(long)]
    exit_code: bool,
}

/// Arguments of `throng apply`.
#[derive(Debug, Args)]
pub(super) struct Apply {
    /// Segment files, folders of them, or one plan that `throng plan --out` wrote (`….json`)
    #[arg(value_name = "PATH", default_value = "segments")]
    paths: Vec<PathBuf>,
    /// Segments that are not among the files are removed
    #[arg(long)]
    prune: bool,
    /// Asks nothing
    #[arg(long)]
    yes: bool,
}

/// Shows what would change.
pub(super) fn plan(global: &Global, command: &Plan) -> Result<ExitCode, Failure> {
    let client = Client::find(global)?;
    let plan = match ask(&client, &command.wanted) {
        Ok(plan) => plan,
        // Of the two that are no, one is to be told from the other.
        Err(failure) if command.exit_code => return refused(global, failure, output::USAGE),
        Err(failure) => return refused(global, failure, output::NO),
    };
    if let Some(path) = &command.out {
        let text = serde_json::to_string_pretty(&plan).map_err(anyhow::Error::from)?;
        std::fs::write(path, text)
            .map_err(|error| Failure::Usage(format!("{}: {error}", path.display())))?;
    }
    if global.json {
        output::print(&serde_json::to_string_pretty(&plan).map_err(anyhow::Error::from)?)?;
    } else {
        output::print(&text(&plan))?;
    }
    let is_no = command.exit_code && changes(&plan) > 0;
    Ok(if is_no { ExitCode::from(output::NO) } else { ExitCode::SUCCESS })
}

/// Does what a plan says.
pub(super) fn apply(global: &Global, command: &Apply) -> Result<ExitCode, Failure> {
    let client = Client::find(global)?;
    let plan = match &command.paths[..] {
        [path] if path.extension().is_some_and(|kind| kind == "json") => saved(path)?,
        paths => match ask(&client, &Wanted { paths: paths.to_vec(), prune: command.prune }) {
            Ok(plan) => plan,
            Err(failure) => return refused(global, failure, output::NO),
        },
    };
    if changes(&plan) == 0 {
        if global.json {
            output::print("{\"changed\":0}")?;
        } else {
            output::print("Nothing to do: all segments are as the files say.")?;
        }
        return Ok(ExitCode::SUCCESS);
    }
    if !global.json {
        output::print(&text(&plan))?;
    }
    if !command.yes && !confirmed()? {
        return Err(Failure::No("nothing was changed".to_owned()));
    }
    let body = json!({ "files": plan["files"], "base": plan["base"] });
    let answer = client.post_json("/api/v1/apply", &body)?;
    if global.json {
        output::print(&answer.to_string())?;
    } else {
        let changed = answer["changed"].as_u64().unwrap_or(0);
        output::print(&format!("Done: {changed} {} live.", is_are(changed)))?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Says why there is no plan: of files that are wrong as JSON too, with a code of its own.
fn refused(global: &Global, failure: Failure, code: u8) -> Result<ExitCode, Failure> {
    let Failure::Refused(message, problem) = failure else { return Err(failure) };
    if global.json {
        output::print(&serde_json::to_string_pretty(&problem).map_err(anyhow::Error::from)?)?;
    } else {
        eprintln!("throng: {message}");
    }
    Ok(ExitCode::from(code))
}

fn is_are(changed: u64) -> &'static str {
    if changed == 1 { "change is" } else { "changes are" }
}

fn confirmed() -> Result<bool, Failure> {
    if !io::stdin().is_terminal() {
        return Err(Failure::Usage(
            "this would change segments: say --yes where nobody can be asked".to_owned(),
        ));
    }
    eprint!("Do it? Only `yes` does: ");
    let failed = |error: io::Error| Failure::OutOfReach(format!("the terminal: {error}"));
    io::stderr().flush().map_err(failed)?;
    let mut answer = String::new();
    io::stdin().read_line(&mut answer).map_err(failed)?;
    Ok(answer.trim() == "yes")
}

fn saved(path: &Path) -> Result<Value, Failure> {
    let wrong = |why: &dyn std::fmt::Display| {
        Failure::Usage(format!("{} is no plan of `throng plan --out`: {why}", path.display()))
    };
    let text = files::read(path).map_err(|error| wrong(&error))?;
    let plan: Value = serde_json::from_str(&text).map_err(|error| wrong(&error))?;
    if plan["files"].is_object() && plan["base"].is_object() {
        Ok(plan)
    } else {
        Err(wrong(&"it has no `files` and `base`"))
    }
}

fn ask(client: &Client, wanted: &Wanted) -> Result<Value, Failure> {
    if wanted.prune && !wanted.paths.iter().all(|path| path.is_dir()) {
        return Err(Failure::Usage(
            "--prune removes what is not among the files, so it takes whole folders".to_owned(),
        ));
    }
    let mut texts: BTreeMap<String, String> = BTreeMap::new();
    for path in files::find(&wanted.paths)? {
        let id = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        let text = files::read(&path)
            .map_err(|error| Failure::Usage(format!("{} {error}", path.display())))?;
        if texts.insert(id.clone(), text).is_some() {
            return Err(Failure::Usage(format!("two of the files make the segment {id}")));
        }
    }
    client.post_json("/api/v1/plan", &json!({ "files": texts, "prune": wanted.prune }))
}

fn list<'v>(value: &'v Value, name: &str) -> &'v [Value] {
    value[name].as_array().map_or(&[], Vec::as_slice)
}

fn changes(plan: &Value) -> usize {
    list(plan, "changes").len()
}

/// The plan for people: a line for each segment, then what goes where.
fn text(plan: &Value) -> String {
    let mut text = String::new();
    let rows = |effects: &[Value]| effects.iter().map(row).collect::<Vec<_>>();
    let mut all = rows(list(plan, "changes"));
    all.extend(rows(list(plan, "affected")));
    if all.is_empty() {
        return "Nothing to do: all segments are as the files say.\n".to_owned();
    }
    let header = ["SEGMENT", "BEFORE", "AFTER", "ADDED", "REMOVED", "SENT TO", "COST"];
    text.push_str(&output::table(&header, all));
    for effect in list(plan, "changes").iter().chain(list(plan, "affected")) {
        let segment = effect["segment"].as_str().unwrap_or_default();
        if let Some(note) = effect["note"].as_str() {
            _ = writeln!(text, "{segment}: {note}");
        }
        if effect["other_level"] == true {
            _ = writeln!(
                text,
                "{segment}: a member is something else (`level`), so all go and others come"
            );
        }
        let through: Vec<&str> = list(effect, "through").iter().filter_map(Value::as_str).collect();
        if !through.is_empty() {
            _ = writeln!(text, "{segment}: its file stays; it refers to {}", through.join(", "));
        }
    }
    for sent in list(plan, "destinations") {
        let [adds, removes] = ["adds", "removes"].map(|name| sent[name].as_u64().unwrap_or(0));
        let destination = sent["destination"].as_str().unwrap_or_default();
        _ = writeln!(
            text,
            "{destination}: {} would come, and {} would go",
            if adds == 1 { "1 member".to_owned() } else { format!("{} members", count(adds)) },
            count(removes)
        );
    }
    for unknown in list(plan, "unknown_destinations").iter().filter_map(Value::as_str) {
        _ = writeln!(
            text,
            "{unknown} is no destination of the server: nothing is sent there until it is in destinations.toml"
        );
    }
    let of = |action: &str| list(plan, "changes").iter().filter(|c| c["action"] == action).count();
    _ = writeln!(
        text,
        "Plan: {} to add, {} to change, {} to remove, {} affected by them; {} as they are to be. True for {}.",
        of("add"),
        of("change"),
        of("remove"),
        list(plan, "affected").len(),
        plan["unchanged"],
        plan["true_for"].as_str().unwrap_or_default(),
    );
    text
}

fn row(effect: &Value) -> Vec<String> {
    let mark = match effect["action"].as_str() {
        Some("add") => "+",
        Some("remove") => "-",
        Some("change") => "~",
        _ => "·",
    };
    let size = |name: &str| effect[name].as_u64().map_or_else(String::new, count);
    let gain = |name: &str, sign: &str| match effect[name].as_u64() {
        None | Some(0) => String::new(),
        Some(many) => format!("{sign}{}", count(many)),
    };
    let goes: Vec<&str> = list(effect, "destinations")
        .iter()
        .filter_map(|sent| sent["destination"].as_str())
        .collect();
    let cost = &effect["cost"];
    let new = cost["new_traits"].as_u64().unwrap_or(0);
    let fills = if new > 0 { format!(", {new} new traits to fill") } else { String::new() };
    vec![
        format!("{mark} {}", effect["segment"].as_str().unwrap_or_default()),
        size("before"),
        size("after"),
        gain("added", "+"),
        gain("removed", "-"),
        goes.join(", "),
        format!("{} ms{fills}", cost["took_ms"]),
    ]
}
