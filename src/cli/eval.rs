//! `throng eval`, `throng explain` and `throng why`: questions about a rule.

use clap::{Args, ValueEnum};
use serde_json::{Value, json};
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
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Level {
    Person,
    Device,
}

impl Level {
    fn as_str(self) -> &'static str {
        match self {
            Self::Person => "person",
            Self::Device => "device",
        }
    }
}

/// Answers a rule: the number alone, or each member's identifiers.
pub(super) fn run(global: &Global, command: &Eval) -> Result<ExitCode, Failure> {
    let client = Client::find(global)?;
    let mut body = json!({
        "rule": command.rule,
        "level": command.level.as_str(),
        "at": global.at,
    });
    let Some(namespace) = &command.members else {
        let answer = client.post_json("/api/v1/eval", &body)?;
        warn(&answer["diagnostics"]);
        if global.json {
            let fields = ["count", "level", "true_for", "at", "took_ms"];
            let shown: serde_json::Map<String, Value> =
                fields.map(|field| (field.to_owned(), answer[field].clone())).into_iter().collect();
            print(&Value::Object(shown).to_string())?;
        } else {
            print(&answer["count"].to_string())?;
        }
        return Ok(ExitCode::SUCCESS);
    };
    body["members"] = json!(namespace);
    let checked = client.post_json("/api/v1/check", &json!({ "rule": command.rule }))?;
    warn(&checked["diagnostics"]);
    let mut out = String::new();
    let mut members = Vec::new();
    client.lines("/api/v1/eval", Some(&body), |line| {
        let value: String = serde_json::from_str(line)
            .map_err(|_| Failure::OutOfReach("the server's answer is no list of members".into()))?;
        if global.json {
            members.push(value);
        } else {
            out.push_str(&value);
            out.push('\n');
            if out.len() > 1 << 16 {
                print(&out)?;
                out.clear();
            }
        }
        Ok(())
    })?;
    if global.json {
        print(&json!(members).to_string())?;
    } else if !out.is_empty() {
        print(&out)?;
    }
    Ok(ExitCode::SUCCESS)
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
    if let Some(at) = &global.at {
        path.push_str("?at=");
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
