//! `throng audience history`: how large an audience was, as a table with a bar for each day or hour.

use clap::Args;
use clap::ValueEnum;
use serde_json::Value;

use super::client::{Client, escape};
use super::output::{bar, count, print};
use super::{Failure, Global};

/// Arguments of `throng audience history`.
#[derive(Debug, Args)]
pub(super) struct History {
    /// The segment's id
    id: String,
    /// What a row is of; days and hours are those of UTC
    #[arg(long, value_enum, default_value = "day")]
    per: Per,
    /// Begins here, such as -90d; 30 days ago, or 48 hours
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    from: Option<String>,
    /// Ends here; now
    #[arg(long, value_name = "TIME", allow_hyphen_values = true)]
    to: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, ValueEnum)]
enum Per {
    Hour,
    Day,
}

/// Columns of the longest bar.
const BAR: usize = 40;

/// Asks, and shows the answer.
pub(super) fn run(global: &Global, client: &Client, command: &History) -> Result<(), Failure> {
    let (per, from) = match command.per {
        Per::Hour => ("hour", "-48h"),
        Per::Day => ("day", "-30d"),
    };
    let from = command.from.as_deref().unwrap_or(from);
    let id = escape(&command.id);
    let mut path = format!("/api/v1/audiences/{id}/history?per={per}&from={}", escape(from));
    if let Some(to) = &command.to {
        path.push_str(&format!("&to={}", escape(to)));
    }
    let answer = client.get(&path)?;
    print(&if global.json { answer.to_string() } else { picture(&answer, command.per) })
}

fn picture(answer: &Value, per: Per) -> String {
    let rows: &[Value] = answer["rows"].as_array().map_or(&[], Vec::as_slice);
    if rows.is_empty() {
        return "nothing is on record of this time\n".to_owned();
    }
    let text = |value: &Value| value.as_str().unwrap_or("–").to_owned();
    let number = |value: &Value| value.as_u64().unwrap_or(0);
    let largest = rows.iter().map(|row| number(&row["members"])).max().unwrap_or(0);
    let signed = |sign: &str, value: &Value| match number(value) {
        0 => "·".to_owned(),
        some => format!("{sign}{}", count(some)),
    };
    let cells = rows.iter().map(|row| {
        let time = text(&row["time"]);
        let (day, hour) = time.split_once('T').unwrap_or((&time, ""));
        let hour = hour.get(..5).unwrap_or_default();
        [
            if per == Per::Day { day.to_owned() } else { format!("{day} {hour}") },
            count(number(&row["members"])),
            signed("+", &row["adds"]),
            signed("−", &row["removes"]),
        ]
    });
    let cells: Vec<[String; 4]> = cells.collect();
    let head = if per == Per::Day { "DAY" } else { "HOUR" };
    let head = [head, "MEMBERS", "ADDS", "REMOVES"];
    let width = |column: usize| {
        let widths = cells.iter().map(|cells| cells[column].chars().count());
        widths.max().unwrap_or(0).max(head[column].len())
    };
    let [time, members, adds, removes] = [0, 1, 2, 3].map(width);
    let line = |cells: [&str; 4], rest: &str| {
        let [a, b, c, d] = cells;
        let line = format!("{a:<time$}  {b:>members$}  {c:>adds$}  {d:>removes$}  {rest}");
        format!("{}\n", line.trim_end())
    };
    let mut out = line(head, "");
    for (row, cells) in rows.iter().zip(&cells) {
        let bar = bar(number(&row["members"]), largest, BAR);
        out.push_str(&line([&cells[0], &cells[1], &cells[2], &cells[3]], &bar));
    }
    out.push_str(&format!(
        "\nmembers at the end of each, by UTC; the last is true for {}\n",
        text(&answer["true_for"])
    ));
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn each_day_has_a_bar_that_is_as_long_as_its_share() {
        let row = |time: &str, members: u64, adds: u64, removes: u64| json!({ "time": time, "members": members, "adds": adds, "removes": removes });
        let answer = json!({
            "true_for": "2011-12-09T12:50:00.000Z",
            "rows": [
                row("2011-12-08T00:00:00.000Z", 6_000, 6_000, 0),
                row("2011-12-09T00:00:00.000Z", 12_000, 7_234, 1_234),
            ],
        });
        let drawn = "DAY         MEMBERS    ADDS  REMOVES\n\
            2011-12-08    6,000  +6,000        ·  ████████████████████\n\
            2011-12-09   12,000  +7,234   −1,234  ████████████████████████████████████████\n\n\
            members at the end of each, by UTC; the last is true for 2011-12-09T12:50:00.000Z\n";
        assert_eq!(picture(&answer, Per::Day), drawn);
        let hour = json!({ "true_for": null, "rows": [row("2011-12-09T12:00:00.000Z", 0, 0, 3)] });
        let drawn = "HOUR              MEMBERS  ADDS  REMOVES\n\
            2011-12-09 12:00        0     ·       −3\n";
        assert!(picture(&hour, Per::Hour).starts_with(drawn), "{}", picture(&hour, Per::Hour));
        assert!(picture(&json!({ "rows": [] }), Per::Day).starts_with("nothing"));
    }
}
