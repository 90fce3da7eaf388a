//! What a command prints, and how it fails.

use std::io::{self, Write};
use std::process::ExitCode;

/// Why a command failed; the kind decides the exit code.
#[derive(Debug)]
pub enum Failure {
    /// The answer is no; what there is to say has been said, or is said here. Exit 1.
    No(String),
    /// The server's answer is no, with what is wrong as its problem document says it. Exit 1.
    Refused(String, serde_json::Value),
    /// The command was wrongly used. Exit 2.
    Usage(String),
    /// The server or the store is out of reach. Exit 3.
    OutOfReach(String),
}

/// The answer is no, and it has been said.
pub(super) const NO: u8 = 1;
/// The command was wrongly used, or given what is wrong, and it has been said.
pub(super) const USAGE: u8 = 2;
/// The server or the store is out of reach, and it has been said.
pub(super) const OUT_OF_REACH: u8 = 3;

impl Failure {
    /// What there is to say.
    pub(super) fn message(&self) -> &str {
        match self {
            Self::No(message)
            | Self::Refused(message, _)
            | Self::Usage(message)
            | Self::OutOfReach(message) => message,
        }
    }

    pub(super) fn report(&self) -> ExitCode {
        let (code, message) = match self {
            Self::No(message) | Self::Refused(message, _) => (NO, message),
            Self::Usage(message) => (USAGE, message),
            Self::OutOfReach(message) => (OUT_OF_REACH, message),
        };
        if !message.is_empty() {
            eprintln!("throng: {message}");
        }
        ExitCode::from(code)
    }
}

impl From<anyhow::Error> for Failure {
    fn from(error: anyhow::Error) -> Self {
        Self::OutOfReach(format!("{error:#}"))
    }
}

/// Prints lines to standard output; a reader that went away ends the command quietly.
pub(super) fn print(text: &str) -> Result<(), Failure> {
    let mut out = io::stdout().lock();
    let written = out
        .write_all(text.as_bytes())
        .and_then(|()| if text.ends_with('\n') { Ok(()) } else { out.write_all(b"\n") })
        .and_then(|()| out.flush());
    match written {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Err(Failure::No(String::new())),
        Err(error) => Err(Failure::OutOfReach(format!("standard output: {error}"))),
        Ok(()) => Ok(()),
    }
}

/// A table with a header, without frames, for a terminal.
pub(super) fn table(header: &[&str], rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let mut table = comfy_table::Table::new();
    table.load_style(comfy_table::TableStyle::new()).set_header(header.to_vec());
    for row in rows {
        table.add_row(row);
    }
    table.lines().map(|line| format!("{}\n", line.trim_end().trim_start_matches(' '))).collect()
}

/// A span of time in words, as exact as it is short: `120 ms`, `45 s`, `5 min`, `7 h`, `3 d`.
pub(super) fn span(millis: i64) -> String {
    const UNITS: [(i64, i64, &str); 4] = [
        (10_000, 1, "ms"),
        (120_000, 1_000, "s"),
        (7_200_000, 60_000, "min"),
        (172_800_000, 3_600_000, "h"),
    ];
    let unit = UNITS.iter().find(|(below, _, _)| millis < *below);
    let (_, of, unit) = unit.unwrap_or(&(0, 86_400_000, "d"));
    format!("{} {unit}", millis / of)
}

/// A count with thousands set apart: `170,978`.
pub(super) fn count(number: u64) -> String {
    let digits = number.to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A bar of at most so many columns, exact to an eighth of one. What is not zero is seen.
pub(super) fn bar(part: u64, whole: u64, width: usize) -> String {
    const EIGHTHS: [&str; 8] = ["", "▏", "▎", "▍", "▌", "▋", "▊", "▉"];
    let eighths = u128::from(part) * 8 * width as u128 / u128::from(whole.max(1));
    let eighths = usize::try_from(eighths).unwrap_or(usize::MAX).min(8 * width);
    let eighths = if part > 0 { eighths.max(1) } else { 0 };
    format!("{}{}", "█".repeat(eighths / 8), EIGHTHS[eighths % 8])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bar_is_as_long_as_its_share() {
        let bars = [(0, 9), (1, 1_000), (1, 2), (9, 16), (9, 9), (0, 0)];
        let bars = bars.map(|(part, whole)| bar(part, whole, 2));
        assert_eq!(bars, ["", "▏", "█", "█▏", "██", ""]);
    }

    #[test]
    fn a_span_is_told_in_the_unit_that_fits() {
        let spans = [0, 9_999, 10_000, 119_999, 120_000, 7_200_000, 172_800_000].map(span);
        assert_eq!(spans, ["0 ms", "9999 ms", "10 s", "119 s", "2 min", "2 h", "2 d"]);
    }
}
