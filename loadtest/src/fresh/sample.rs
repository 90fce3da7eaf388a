//! Segments and the events that they ask, made the same at every run.

use anyhow::Result;
use std::fs::File;
use std::io::{BufWriter, Write};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use crate::random::Random;

/// So many events are told apart; what one of them is called.
const NAMES: u64 = 200;
/// The commonest is there so often among the hits that are drawn from, the next half as often, and so on (Zipf).
const COMMONEST: u64 = 80;

fn name(number: u64) -> String {
    format!("event_{number:03}")
}

/// The names of events, each as often as it is to be drawn.
pub(super) fn names() -> Vec<String> {
    let often = |number: u64| usize::try_from((COMMONEST / (number + 1)).max(1)).unwrap_or(1);
    (0..NAMES).flat_map(|number| std::iter::repeat_n(name(number), often(number))).collect()
}

/// A number below `end`.
fn below(random: &mut Random, end: usize) -> usize {
    usize::try_from(random.below(end as u64)).unwrap_or(0)
}

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

/// Names and texts of so many segments: those of the probes, and rules of two to four parts that all have to hold, each
/// one to three events of which one does: within 1, 7, 14 or 30 days, a fifth of them 2 to 5 times. A third of the
/// rules have a part that must not hold, and a tenth ask a sum instead.
pub(super) fn segments(count: usize) -> Vec<(String, String)> {
    let mut random = Random::new(7);
    let mut all = Vec::with_capacity(count);
    for at in 0..PROBES.min(count.max(3)) {
        all.push((format!("probe-{at:03}"), format!("rule = 'count probe_{at} in 7d >= 1'\n")));
    }
    for at in all.len()..count {
        let window = ["1d", "7d", "14d", "30d"][below(&mut random, 4)];
        let one = |random: &mut Random| {
            let event = name(random.below(NAMES));
            match random.below(10) {
                0 | 1 => format!("count {event} in {window} >= {}", 2 + random.below(4)),
                2 => format!("sum {event}.value in {window} >= {}", 20 + random.below(80)),
                _ => format!("did {event} in {window}"),
            }
        };
        let part = |random: &mut Random| {
            let some: Vec<String> = (0..=random.below(3)).map(|_| one(random)).collect();
            format!("({})", some.join(" or "))
        };
        let mut parts: Vec<String> = (0..2 + random.below(3)).map(|_| part(&mut random)).collect();
        if random.below(3) == 0
            && let Some(last) = parts.last_mut()
        {
            *last = format!("not {last}");
        }
        all.push((format!("segment-{at:04}"), format!("rule = '{}'\n", parts.join(" and "))));
    }
    all
}

/// Writes the events of so many profiles as NDJSON.
pub(super) fn write_events(path: &Path, profiles: u64) -> Result<()> {
    let mut out = BufWriter::with_capacity(1 << 20, File::create(path)?);
    let (mut random, names) = (Random::new(11), names());
    #[expect(clippy::disallowed_methods, reason = "the server is another process, with this clock")]
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs();
    for profile in 0..profiles {
        for _ in 0..=random.below(2 * EACH - 1) {
            let name = &names[below(&mut random, names.len())];
            let time = rfc3339(now - random.below(DAYS * 86_400));
            writeln!(
                out,
                r#"{{"site":"demo","event":"{name}","time":"{time}","ids":{{"user_id":"u{profile:07}"}},"props":{{"value":{}}}}}"#,
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
