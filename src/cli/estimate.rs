//! `throng estimate`: about how many members a rule has, and then exactly.

use clap::Args;
use serde_json::{Value, json};
use std::process::ExitCode;

use super::client::Client;
use super::eval::{Level, Line, warn};
use super::output::{count, print};
use super::{Failure, Global};

/// Arguments of `throng estimate`.
#[derive(Debug, Args)]
pub(super) struct Estimate {
    /// The rule, such as 'count purchase in 30d >= 2'
    rule: String,
    /// What one member is
    #[arg(long, value_enum, default_value = "person")]
    level: Level,
    /// Ends with the first estimate that is within so many percent of its number, instead of the exact one
    #[arg(long, value_name = "PERCENT", value_parser = clap::value_parser!(u8).range(1..=100))]
    within: Option<u8>,
}

/// Asks, and shows each estimate in the place of the last.
pub(super) fn run(global: &Global, command: &Estimate) -> Result<ExitCode, Failure> {
    let client = Client::find(global)?;
    let body = json!({
        "rule": command.rule,
        "level": command.level.as_str(),
        "at": global.at,
    });
    let mut shown = Line::new(global);
    let mut last = Value::Null;
    let mut is_enough = false;
    let lines = client.lines("/api/v1/estimate", Some(&body), |line| {
        let line: Value = serde_json::from_str(line)
            .map_err(|_| Failure::OutOfReach("the server's answer is not JSON".into()))?;
        if line["problem"].is_object() {
            shown.end();
            let status = line["problem"]["status"].as_u64().unwrap_or_default();
            let status = u16::try_from(status).unwrap_or_default();
            return Err(client.problem(status, &line["problem"], "no answer"));
        }
        if global.json {
            print(&line.to_string())?;
        } else {
            shown.show(&about(&line));
        }
        is_enough = command.within.is_some_and(|within| is_within(&line, within));
        last = line;
        // Who has heard enough goes away.
        if is_enough { Err(Failure::No(String::new())) } else { Ok(()) }
    });
    shown.end();
    match lines {
        Err(failure) if !is_enough => return Err(failure),
        _ => {}
    }
    warn(&last["diagnostics"]);
    match (&last["exact"], global.json) {
        (_, true) => {}
        (Value::Bool(true), _) => print(&last["count"].to_string())?,
        _ if last["count"].is_u64() => print(&about(&last))?,
        _ => return Err(Failure::OutOfReach("the server's answer broke off".into())),
    }
    Ok(ExitCode::SUCCESS)
}

/// An estimate in words.
fn about(line: &Value) -> String {
    let number = |field: &str| line[field].as_u64().map_or_else(|| "–".to_owned(), count);
    if line["count"].is_null() {
        return "nobody is counted yet".to_owned();
    }
    format!(
        "about {}, with 95 % confidence {} to {} ({} of {} profiles asked)",
        number("count"),
        number("low"),
        number("high"),
        number("sampled"),
        number("of"),
    )
}

fn is_within(line: &Value, percent: u8) -> bool {
    let number = |field: &str| line[field].as_f64();
    let (Some(count), Some(low), Some(high)) = (number("count"), number("low"), number("high"))
    else {
        return false;
    };
    (high - count).max(count - low) * 100.0 <= f64::from(percent) * count
}
