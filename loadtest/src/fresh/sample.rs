//! Segments and the events that they ask, made the same at every run.

use anyhow::Result;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::random::Random;

/// Events of the sample, as the load's hits have them.
const NAMES: [&str; 3] = ["page_view", "product_view", "purchase"];
/// Names that nobody but the probes use, a third for each of them.
const PROBES: usize = 60;
/// Events of a profile, on average.
const EACH: u64 = 3;
/// Over so many days.
const DAYS: u64 = 60;

/// A segment that a probe enters, and with which event.
pub(super) fn probe(segments: usize, number: usize, place: usize) -> (String, String) {
    let probes = PROBES.min(segments.max(3));
    let at = (number * 3 + place) % (probes - probes % 3).max(3);
    (format!("probe-{at:03}"), format!("probe_{at}"))
}

/// Names and texts of so many segments: those of the probes, and rules of many kinds over the load's events.
pub(super) fn segments(count: usize) -> Vec<(String, String)> {
    let mut random = Random::new(7);
    let mut all = Vec::with_capacity(count);
    for at in 0..PROBES.min(count.max(3)) {
        all.push((format!("probe-{at:03}"), format!("rule = 'count probe_{at} in 7d >= 1'\n")));
    }
    for at in all.len()..count {
        let mut any = |of: &[&str]| {
            of[usize::try_from(random.below(of.len() as u64)).unwrap_or(0)].to_owned()
        };
        let (a, b) = (any(&NAMES), any(&NAMES));
        let window = any(&["1d", "3d", "7d", "14d", "30d", "45d"]);
        let number = any(&["1", "2", "3", "5", "8"]);
        let value = any(&["10", "20", "35", "50", "90"]);
        let kind = any(&["shoes", "shirts", "hats", "bags"]);
        let rule = match at % 8 {
            0 => format!("count {a} in {window} >= {number}"),
            1 => format!("sum purchase.value in {window} >= {value}"),
            2 => format!("did {a} in {window} and not did {b} between 60d and {window} ago"),
            3 => format!("did product_view[category = \"{kind}\"] in {window}"),
            4 => format!("days {a} in {window} >= {number} or max purchase.value > {value}"),
            5 => format!("did product_view then purchase within {window}"),
            6 => format!("did purchase[value > {value}] in {window} and count {b} < {number}"),
            _ => format!("first {a} in {window} and count {b} in 30d >= {number}"),
        };
        all.push((format!("segment-{at:04}"), format!("rule = '{rule}'\n")));
    }
    all
}

/// Writes the events of so many profiles as NDJSON.
pub(super) fn write_events(path: &Path, profiles: u64) -> Result<()> {
    let mut out = BufWriter::with_capacity(1 << 20, File::create(path)?);
    let mut random = Random::new(11);
    #[expect(clippy::disallowed_methods, reason = "the server is another process, with this clock")]
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    for profile in 0..profiles {
        for _ in 0..=random.below(2 * EACH - 1) {
            let name = NAMES[usize::try_from(random.below(3)).unwrap_or(0)];
            let time = rfc3339(now - random.below(DAYS * 86_400));
            let kind = ["shoes", "shirts", "hats", "bags"][usize::try_from(random.below(4))?];
            writeln!(
                out,
                r#"{{"site":"demo","event":"{name}","time":"{time}","ids":{{"user_id":"u{profile:07}"}},"props":{{"category":"{kind}","value":{}}}}}"#,
                random.below(100)
            )?;
        }
    }
    out.flush()?;
    Ok(())
}

/// A time in seconds since 1970 as RFC 3339.
fn rfc3339(seconds: u64) -> String {
    let (days, of_day) = (seconds / 86_400, seconds % 86_400);
    // Days of eras of 400 years that begin in March (Hinnant, "chrono-compatible low-level date algorithms").
    let shifted = days + 719_468;
    let (era, of_era) = (shifted / 146_097, shifted % 146_097);
    let year = (of_era - of_era / 1_460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    let year = year + era * 400 + u64::from(month <= 2);
    format!(
        "{year:04}-{month:02}-{day:02}T{:02}:{:02}:{:02}Z",
        of_day / 3_600,
        of_day / 60 % 60,
        of_day % 60
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_written_as_the_calendar_has_them() {
        for (seconds, text) in [
            (0, "1970-01-01T00:00:00Z"),
            (951_782_400, "2000-02-29T00:00:00Z"),
            (1_709_251_199, "2024-02-29T23:59:59Z"),
            (4_107_542_400, "2100-03-01T00:00:00Z"),
        ] {
            assert_eq!(rfc3339(seconds), text);
        }
    }

    #[test]
    fn each_probe_has_a_segment_of_its_own() {
        let segments = segments(1_000);
        assert_eq!(segments.len(), 1_000);
        for number in 0..100 {
            let of: Vec<_> = (0..3).map(|place| probe(1_000, number, place)).collect();
            assert!(of[0] != of[1] && of[1] != of[2] && of[0] != of[2]);
            for (name, event) in of {
                let (_, text) = segments.iter().find(|(other, _)| *other == name).unwrap();
                assert!(text.contains(&format!("{event} ")));
            }
        }
    }
}
