//! `throng audience overlap`: the regions of a few audiences as a chart, or a table of what many share two by two.

use clap::Args;
use serde_json::{Value, json};
use std::collections::BTreeMap;

use super::client::Client;
use super::output::{bar, count, print, table};
use super::{Failure, Global};
use crate::segment::MOST_PAIRED;

/// Arguments of `throng audience overlap`.
#[derive(Debug, Args)]
pub(super) struct Overlap {
    /// Segments' ids: up to 6, or up to 100 with --matrix
    #[arg(value_name = "ID", required_unless_present = "matrix")]
    segments: Vec<String>,
    /// Counts what they share two by two, instead of all regions; without ids, of all audiences
    #[arg(long)]
    matrix: bool,
    /// Up to 100 other segments for the columns, separated by commas
    #[arg(long, value_name = "IDS", value_delimiter = ',', requires = "matrix")]
    against: Vec<String>,
}

/// Columns of a terminal, where nobody says how many there are.
const WIDTH: usize = 100;
/// A row's name is cut to so many characters.
const NAME: usize = 24;
/// Columns of a cell.
const CELL: usize = 5;
/// Columns of the longest bar.
const BAR: usize = 40;

/// Asks, and shows the answer.
pub(super) fn run(global: &Global, client: &Client, command: &Overlap) -> Result<(), Failure> {
    let body = if command.matrix {
        let rows = match &command.segments[..] {
            [] => all(client)?,
            named => named.to_vec(),
        };
        match &command.against[..] {
            [] => json!({ "rows": rows }),
            columns => json!({ "rows": rows, "columns": columns }),
        }
    } else {
        json!({ "audiences": command.segments })
    };
    let answer = client.post_json("/api/v1/overlap", &body)?;
    if global.json {
        return print(&answer.to_string());
    }
    for field in ["audiences", "rows", "columns"] {
        stale(&answer[field]);
    }
    if command.matrix {
        let terminal = comfy_table::Table::new().width().map_or(WIDTH, usize::from);
        print(&heat(&answer, terminal))
    } else {
        print(&chart(&answer))
    }
}

/// All audiences that can be compared: those of the level that most have.
fn all(client: &Client) -> Result<Vec<String>, Failure> {
    let answer = client.get("/api/v1/audiences")?;
    let mut by_level: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    let whole = items(&answer["audiences"]).filter(|audience| audience["members"].is_u64());
    for audience in whole {
        let level = text(&audience["level"]);
        by_level.entry(level).or_default().push(text(&audience["id"]).to_owned());
    }
    let most = by_level.iter().max_by_key(|(_, ids)| ids.len());
    let level = most.map(|(level, _)| *level).unwrap_or_default();
    let rows = by_level.remove(level).unwrap_or_default();
    if rows.is_empty() {
        return Err(Failure::No("there is no audience with members to count yet".into()));
    }
    if rows.len() > MOST_PAIRED {
        let there = rows.len();
        return Err(Failure::Usage(format!(
            "there are {there} audiences, and a table has up to {MOST_PAIRED}: name those that it is to have"
        )));
    }
    for (level, left_out) in by_level {
        eprintln!("left out, since they are of level {level}: {}", left_out.join(", "));
    }
    Ok(rows)
}

/// Says whose members are not those of its rule now.
fn stale(audiences: &Value) {
    for audience in items(audiences).filter(|audience| audience["state"] != "live") {
        eprintln!(
            "{} is {}; counted are its members of before, true for {}",
            text(&audience["id"]),
            text(&audience["state"]),
            text(&audience["true_for"]),
        );
    }
}

fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("–")
}

fn size(value: &Value) -> u64 {
    value.as_u64().unwrap_or(0)
}

/// A share in whole percent. Who is somebody is not nobody, and who is not all is not all.
fn percent(part: u64, whole: u64) -> String {
    match u128::from(part) * 100 / u128::from(whole.max(1)) {
        0 if part > 0 => "<1".to_owned(),
        share => share.to_string(),
    }
}

/// The letter of a place: `A` for the first.
fn letter(place: usize) -> String {
    ('A'..='Z').nth(place).unwrap_or('?').to_string()
}

/// The regions with a bar for each, the largest first.
fn chart(answer: &Value) -> String {
    let audiences: Vec<&str> = items(&answer["audiences"]).map(|a| text(&a["id"])).collect();
    let any = size(&answer["any"]);
    let rows = items(&answer["audiences"]).enumerate();
    let rows = rows.map(|(place, audience)| {
        let members = size(&audience["members"]);
        vec![letter(place), text(&audience["id"]).to_owned(), count(members)]
    });
    let mut out = table(&["COLUMN", "SEGMENT", "MEMBERS"], rows);
    let mut regions: Vec<(Vec<&str>, u64)> = items(&answer["regions"])
        .map(|region| (items(&region["in"]).map(text).collect(), size(&region["members"])))
        .collect();
    let all = regions.len();
    regions.retain(|(_, members)| *members > 0);
    regions.sort_by_key(|(_, members)| std::cmp::Reverse(*members));
    let largest = regions.first().map_or(0, |(_, members)| *members);
    let width = count(largest).len().max("MEMBERS".len());
    let head: Vec<String> = (0..audiences.len()).map(letter).collect();
    out.push_str(&format!("\n{}  {:>width$}  SHARE\n", head.join(" "), "MEMBERS"));
    for (inside, members) in &regions {
        let dots: Vec<&str> =
            audiences.iter().map(|id| if inside.contains(id) { "●" } else { "·" }).collect();
        let line = format!(
            "{}  {:>width$}  {:>3} %  {}",
            dots.join(" "),
            count(*members),
            percent(*members, any),
            bar(*members, largest, BAR),
        );
        out.push_str(line.trim_end());
        out.push('\n');
    }
    let empty = match all - regions.len() {
        0 => String::new(),
        1 => "; one region is empty".to_owned(),
        empty => format!("; {empty} regions are empty"),
    };
    let (any, true_for) = (count(any), text(&answer["true_for"]));
    out.push_str(&format!("\n{any} in any of them, true for {true_for}{empty}\n"));
    out
}

/// Which share of each row's members is in each column's audience, darker where more; as many columns side by side
/// as the terminal has room for.
fn heat(answer: &Value, terminal: usize) -> String {
    let rows: Vec<&Value> = items(&answer["rows"]).collect();
    let columns: Vec<&Value> = items(&answer["columns"]).collect();
    let numbered = |audiences: &[&Value]| {
        let rows = audiences.iter().enumerate().map(|(place, audience)| {
            let members = count(size(&audience["members"]));
            vec![(place + 1).to_string(), text(&audience["id"]).to_owned(), members]
        });
        table(&["COLUMN", "SEGMENT", "MEMBERS"], rows)
    };
    let same = answer["rows"] == answer["columns"];
    // Rows have their names beside them; only where columns are others are these listed too.
    let mut out = if same { String::new() } else { format!("{}\n", numbered(&columns)) };
    let names: Vec<String> = rows.iter().map(|row| shortened(text(&row["id"]))).collect();
    let name = names.iter().map(|name| name.chars().count()).max().unwrap_or(0);
    let name = name.max("SEGMENT".len());
    let members = rows.iter().map(|row| count(size(&row["members"])).len()).max().unwrap_or(0);
    let members = members.max("MEMBERS".len());
    let left = 3 + 2 + name + 2 + members + 1;
    let side_by_side = (terminal.saturating_sub(left) / CELL).max(1);
    for first in (0..columns.len()).step_by(side_by_side) {
        let band = first..columns.len().min(first + side_by_side);
        let mut line = format!("{:>3}  {:<name$}  {:>members$} ", "", "SEGMENT", "MEMBERS");
        band.clone().for_each(|column| line.push_str(&format!("{:>CELL$}", column + 1)));
        out.push_str(&format!("{line}\n"));
        for (place, row) in rows.iter().enumerate() {
            let of = size(&row["members"]);
            let number = place + 1;
            let mut line =
                format!("{number:>3}  {:<name$}  {:>members$} ", names[place], count(of));
            for column in band.clone() {
                line.push_str(&cell(size(&answer["members"][place][column]), of));
            }
            out.push_str(&format!("{line}\n"));
        }
        out.push('\n');
    }
    let true_for = text(&answer["true_for"]);
    out.push_str(&format!(
        "percent of the row's members that are in the column's audience, true for {true_for}\n"
    ));
    out
}

fn shortened(id: &str) -> String {
    if id.chars().count() <= NAME {
        return id.to_owned();
    }
    id.chars().take(NAME - 1).chain(['…']).collect()
}

fn cell(shared: u64, of: u64) -> String {
    if shared == 0 {
        return format!("{:>CELL$}", "·");
    }
    let shade = match u128::from(shared) * 4 / u128::from(of.max(1)) {
        0 => ' ',
        1 => '░',
        2 => '▒',
        3 => '▓',
        _ => '█',
    };
    format!(" {shade}{:>3}", percent(shared, of))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn regions_are_drawn_the_largest_first_and_empty_ones_are_told() {
        let answer = json!({
            "true_for": "2011-12-09T12:50:00.000Z", "any": 12_002,
            "audiences": [
                { "id": "buyers", "members": 10_002 }, { "id": "readers", "members": 4_002 },
            ],
            "regions": [
                { "in": ["buyers"], "members": 8_000 }, { "in": ["readers"], "members": 0 },
                { "in": ["buyers", "readers"], "members": 4_002 },
            ],
        });
        let drawn = "COLUMN  SEGMENT  MEMBERS\nA       buyers   10,002\nB       readers  4,002\n\n\
            A B  MEMBERS  SHARE\n\
            ● ·    8,000   66 %  ████████████████████████████████████████\n\
            ● ●    4,002   33 %  ████████████████████\n\n\
            12,002 in any of them, true for 2011-12-09T12:50:00.000Z; one region is empty\n";
        assert_eq!(chart(&answer), drawn);
    }

    #[test]
    fn a_table_is_cut_into_bands_that_fit_and_no_share_is_rounded_away() {
        let audience = |id: &str, members: u64| json!({ "id": id, "members": members });
        let all = [audience("a", 1_000), audience("b", 200), audience("none", 0)];
        let answer = json!({
            "true_for": "T", "rows": all, "columns": all,
            "members": [[1_000, 1, 0], [1, 200, 0], [0, 0, 0]],
        });
        let wide = heat(&answer, 100);
        assert_eq!(
            wide.lines().take(4).collect::<Vec<_>>(),
            [
                "     SEGMENT  MEMBERS     1    2    3",
                "  1  a          1,000  █100   <1    ·",
                "  2  b            200    <1 █100    ·",
                "  3  none           0     ·    ·    ·",
            ]
        );
        let narrow = heat(&answer, 34);
        assert!(narrow.lines().take(8).all(|line| line.chars().count() <= 34), "{narrow}");
        assert_eq!(narrow.matches("SEGMENT").count(), 2, "{narrow}");
        assert_eq!(cell(999, 1_000), " ▓ 99");
        assert_eq!(cell(250, 1_000), " ░ 25");
    }
}
