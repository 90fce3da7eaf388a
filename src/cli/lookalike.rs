//! `throng lookalike`: what a look-alike has learnt, and another training.

use clap::Args;
use serde_json::{Value, json};
use std::process::ExitCode;

use super::client::{Client, escape};
use super::output::{count, print, table};
use super::{Failure, Global};

/// Arguments of `throng lookalike`.
#[derive(Debug, Args)]
pub(super) struct Lookalike {
    /// The segment's id
    segment: String,
    /// Trains it now instead of within a day, and waits until its members are published
    #[arg(long)]
    train: bool,
    /// Shows every feature, not the 20 alone that tell the most
    #[arg(long)]
    all: bool,
}

/// So many features are shown.
const SHOWN: usize = 20;

/// Asks, and shows what was learnt.
pub(super) fn run(global: &Global, command: &Lookalike) -> Result<ExitCode, Failure> {
    let client = Client::find(global)?;
    let path = format!("/api/v1/audiences/{}/lookalike", escape(&command.segment));
    let answer = match command.train {
        true => client.post_json(&path, &json!({}))?,
        false => client.get(&path)?,
    };
    let text = if global.json { answer.to_string() } else { shown(&answer, command.all) };
    print(&text)?;
    Ok(ExitCode::SUCCESS)
}

fn shown(answer: &Value, all: bool) -> String {
    let text = |value: &Value| value.as_str().unwrap_or("–").to_owned();
    let number = |value: &Value| value.as_u64().map_or_else(|| "–".to_owned(), count);
    let percent = |value: &Value| format!("{:.2} %", value.as_f64().unwrap_or(0.0) * 100.0);
    let trained = &answer["trained"];
    let mut out = format!(
        "{} resembles {}: {}\n",
        text(&answer["id"]),
        text(&answer["seed"]),
        text(&answer["state"])
    );
    if trained.is_null() {
        return out;
    }
    let learnt = |side: &Value| {
        format!("{} ({} more held out)", number(&side["learnt_from"]), number(&side["held_out"]))
    };
    let auc = trained["auc"].as_f64().map_or_else(|| "–".to_owned(), |auc| format!("{auc:.3}"));
    let lines = [
        ("trained", format!("{}, in {} ms", text(&trained["at"]), number(&trained["took_ms"]))),
        ("true for", text(&trained["true_for"])),
        ("seed", learnt(&trained["seed"])),
        ("others", learnt(&trained["others"])),
        ("AUC", auc),
        (
            "chosen",
            format!(
                "{} of {} ({})",
                number(&trained["chosen"]),
                number(&trained["candidates"]),
                percent(&answer["reach"])
            ),
        ),
        ("threshold", trained["threshold"].to_string()),
    ];
    for (name, value) in lines {
        out.push_str(&format!("{name:<10} {value}\n"));
    }
    out.push('\n');
    let features = trained["features"].as_array().map_or(&[][..], Vec::as_slice);
    let most = if all { features.len() } else { SHOWN };
    let rows = features.iter().take(most).map(|feature| {
        let weight = match feature["asked_by_seed"] == true {
            true => "not used: the seed asks it".to_owned(),
            false => format!("{:+.2}", feature["weight"].as_f64().unwrap_or(0.0)),
        };
        vec![
            text(&feature["feature"]),
            percent(&feature["seed"]),
            percent(&feature["others"]),
            feature["lift"].as_f64().map_or_else(|| "–".to_owned(), |lift| format!("{lift:.2}")),
            weight,
        ]
    });
    out.push_str(&table(&["FEATURE", "SEED", "OTHERS", "LIFT", "WEIGHT"], rows));
    if features.len() > most {
        out.push_str(&format!("\n{} more with --all\n", features.len() - most));
    }
    out
}
