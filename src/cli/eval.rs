//! `throng eval`, `throng explain` and `throng why`: questions about a rule.

use clap::{Args, ValueEnum};
use serde_json::{Value, json};
use std::io::IsTerminal;
use std::process::ExitCode;

use super::client::{Client, escape};
use super::output::{count, print};
use super::{Failure, Global};

/// Arguments of `throng eval`.
#[derive(Debug, Args)]
pub(super) struct Eval {
    /// The rule, such as 'count purchase in 30d >= 2'
    rule: String,
    /// Lists each member's identifiers of this namespace, one a line, instead of the number
    #[arg(long, value_name = "NAMESPACE")]
    members: Option<String>,
    /// What one member is
    #[arg(long, value_enum, default_value = "person")]
    level: Level,
}

/// Arguments of `throng explain`.
#[derive(Debug, Args)]
pub(super) struct Explain {
    /// The rule
    rule: String,
    /// What one member is
    #[arg(long, value_enum, default_value = "person")]
    level: Level,
}

/// Arguments of `throng why`.
#[derive(Debug, Args)]
pub(super) struct Why {
    /// The segment's id
    segment: String,
    /// The identifier's namespace, such as `user_id`
    namespace: String,
    /// The identifier
    value: String,
    /// Looks for the properties of every event that is shown, also where that takes long
    #[arg(long)]
    events: bool,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
pub(super) enum Level {
    Person,
    Device,
}

impl Level {
    pub(super) fn as_str(self) -> &'static str {
        match self {
            Self::Person => "person",
            Self::Device => "device",
        }
    }
}

/// Answers a rule: the number alone, or each member's identifiers.
pub(super) fn run(global: &Global, command: &Eval) -> Result<ExitCode, Failure> {
    let client = Client::find(global)?;
    let body = json!({
        "rule": command.rule,
        "level": command.level.as_str(),
        "at": global.at,
        "members": command.members,
        "progress": true,
    });
    let mut progress = Line::new(global);
    let mut number = Value::Null;
    let mut members = Vec::new();
    let mut out = String::new();
    client.lines("/api/v1/eval", Some(&body), |line| {
        let line: Value = serde_json::from_str(line)
            .map_err(|_| Failure::OutOfReach("the server's answer is not JSON".into()))?;
        match line {
            Value::String(value) if global.json => members.push(value),
            Value::String(value) => {
                out.push_str(&value);
                out.push('\n');
                if out.len() > 1 << 16 {
                    print(&out)?;
                    out.clear();
                }
            }
            line if line["problem"].is_object() => {
                progress.end();
                let status = line["problem"]["status"].as_u64().unwrap_or_default();
                let status = u16::try_from(status).unwrap_or_default();
                return Err(client.problem(status, &line["problem"], "no answer"));
            }
            line if line["stage"].is_string() => progress.show(&stage(&line)),
            line => {
                progress.end();
                warn(&line["diagnostics"]);
                number = line;
            }
        }
        Ok(())
    })?;
    if number.is_null() {
        return Err(Failure::OutOfReach("the server's answer broke off".into()));
    }
    match (command.members.is_some(), global.json) {
        (true, true) => print(&json!(members).to_string())?,
        (true, false) if out.is_empty() => {}
        (true, false) => print(&out)?,
        (false, true) => {
            let fields = ["count", "level", "true_for", "at", "took_ms"];
            let shown: serde_json::Map<String, Value> =
                fields.map(|field| (field.to_owned(), number[field].clone())).into_iter().collect();
            print(&Value::Object(shown).to_string())?;
        }
        (false, false) => print(&number["count"].to_string())?,
    }
    Ok(ExitCode::SUCCESS)
}

/// How far an answer is, in words.
fn stage(line: &Value) -> String {
    match line["stage"].as_str() {
        Some("reading") => format!("reading the archive: {} %", line["percent"]),
        Some("evaluating") => "evaluating".to_owned(),
        _ => "waiting for the fold".to_owned(),
    }
}

/// One line of a terminal, written again and again.
pub(super) struct Line {
    is_shown: bool,
    width: usize,
}

impl Line {
    pub(super) fn new(global: &Global) -> Self {
        Self { is_shown: !global.json && std::io::stderr().is_terminal(), width: 0 }
    }

    pub(super) fn show(&mut self, text: &str) {
        if !self.is_shown {
            return;
        }
        eprint!("\r{text:<width$}", width = self.width);
        self.width = text.chars().count();
    }

    pub(super) fn end(&mut self) {
        if self.width > 0 {
            eprint!("\r{:width$}\r", "", width = self.width);
            self.width = 0;
        }
    }
}

/// Shows how a rule is answered.
pub(super) fn explain(global: &Global, command: &Explain) -> Result<ExitCode, Failure> {
    let client = Client::find(global)?;
    let body = json!({ "rule": command.rule, "level": command.level.as_str(), "at": global.at });
    let answer = client.post_json("/api/v1/explain", &body)?;
    warn(&answer["diagnostics"]);
    if global.json {
        print(&answer["explain"].to_string())?;
    } else {
        print(answer["text"].as_str().unwrap_or_default())?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Says why a profile is in a segment, or not.
pub(super) fn why(global: &Global, command: &Why) -> Result<ExitCode, Failure> {
    let client = Client::find(global)?;
    let mut path = format!(
        "/api/v1/profiles/{}/{}/why/{}",
        escape(&command.namespace),
        escape(&command.value),
        escape(&command.segment)
    );
    path.push_str(if command.events { "?events=all" } else { "?events=soon" });
    if let Some(at) = &global.at {
        path.push_str("&at=");
        path.push_str(&escape(at));
    }
    let answer = client.get(&path)?;
    if global.json {
        print(&answer.to_string())?;
    } else {
        print(answer["text"].as_str().unwrap_or_default())?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Shows warnings on standard error, as the server rendered them.
pub(super) fn warn(diagnostics: &Value) {
    for diagnostic in diagnostics.as_array().into_iter().flatten() {
        if let Some(text) = diagnostic["rendered"].as_str() {
            eprintln!("{}", text.trim_end());
        }
    }
}

/// The size of an audience in words.
pub(super) fn members(value: &Value) -> String {
    value.as_u64().map_or_else(|| "–".to_owned(), count)
}
