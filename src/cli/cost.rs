//! `throng audience cost`: what each audience costs to evaluate, the dearest first.

use serde_json::Value;

use super::client::Client;
use super::output::{bar, count, print, table};
use super::{Failure, Global};

/// Columns of the longest bar.
const BAR: usize = 20;

/// Asks, and shows the answer.
pub(super) fn run(global: &Global, client: &Client) -> Result<(), Failure> {
    let answer = client.get("/api/v1/costs")?;
    if global.json {
        return print(&answer.to_string());
    }
    print(&shown(&answer))
}

fn shown(answer: &Value) -> String {
    let number = |value: &Value| value.as_u64().unwrap_or(0);
    let all = number(&answer["nanoseconds"]);
    let mut segments: Vec<&Value> = answer["segments"].as_array().into_iter().flatten().collect();
    segments.sort_by_key(|segment| std::cmp::Reverse(number(&segment["nanoseconds"])));
    let most = segments.first().map_or(0, |segment| number(&segment["nanoseconds"]));
    let rows = segments.iter().map(|segment| {
        let own = number(&segment["nanoseconds"]);
        vec![
            segment["id"].as_str().unwrap_or_default().to_owned(),
            micros(own),
            micros(number(&segment["alone_nanoseconds"])),
            format!("{} KiB", count(number(&segment["bytes"]).div_ceil(1024))),
            format!("{} of {}", number(&segment["shared_parts"]), number(&segment["parts"])),
            bar(own, most, BAR),
        ]
    });
    let header = ["SEGMENT", "COST", "ALONE", "READ", "SHARED PARTS", ""];
    format!(
        "{}\nall {} segments: {} of one processor, every part by itself, for all profiles\n",
        table(&header, rows).trim_end(),
        segments.len(),
        micros(all),
    )
}

fn micros(nanoseconds: u64) -> String {
    format!("{} µs", count(nanoseconds.div_ceil(1000)))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_dearest_comes_first() {
        let of = |id: &str, own: u64, alone: u64| {
            json!({ "id": id, "nanoseconds": own, "alone_nanoseconds": alone, "bytes": 2050, "parts": 3,
                    "shared_parts": 1 })
        };
        let answer = json!({
            "nanoseconds": 3_700_000,
            "segments": [of("a", 1_200_000, 1_300_000), of("b", 2_500_000, 2_600_001)],
        });
        let shown = shown(&answer);
        let lines: Vec<&str> = shown.lines().collect();
        assert!(lines[1].starts_with("b") && lines[2].starts_with("a"), "{shown}");
        for text in ["2,500 µs", "2,601 µs", "3 KiB", "1 of 3", "████████████████████"]
        {
            assert!(lines[1].contains(text), "{text} in {shown}");
        }
        assert!(lines[3].starts_with("all 2 segments: 3,700 µs"), "{shown}");
    }
}
