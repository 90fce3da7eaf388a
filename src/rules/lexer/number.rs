//! What begins with a digit: numbers, durations and dates.

use super::Lexer;
use crate::model::Decimal;
use crate::model::time::parse_date;
use crate::rules::ast::Duration;
use crate::rules::ast::DurationUnit;
use crate::rules::ast::Span;
use crate::rules::token::TokenKind;
use crate::rules::token::shorten;
use crate::rules::token::unit_letter;

impl Lexer<'_> {
    /// Everything that begins with a digit: a number, a duration or a date.
    pub(super) fn number(&mut self) {
        let start = self.at;
        self.at += 1;
        loop {
            self.at += self.run(|c| c.is_alphanumeric() || c == '_');
            let mut next = self.rest().chars();
            match (next.next(), next.next()) {
                (Some('-'), Some(c)) if c.is_alphanumeric() => self.at += 1,
                // `3.` is a number that lacks its digits, whatever follows.
                (Some('.'), _) => self.at += 1,
                _ => break,
            }
        }
        let text = &self.text[start..self.at];
        let unsigned = text.strip_prefix('-').unwrap_or(text);
        let digits = unsigned.bytes().take_while(u8::is_ascii_digit).count();
        let (whole, rest) = unsigned.split_at(digits);
        let kind = match rest.as_bytes() {
            [] => self.decimal(start, whole, ""),
            [b'.', fraction @ ..]
                if !fraction.is_empty() && fraction.iter().all(u8::is_ascii_digit) =>
            {
                self.decimal(start, whole, &rest[1..])
            }
            [unit] if text == unsigned && unit_of(*unit).is_some() => {
                let unit = unit_of(*unit).unwrap_or(DurationUnit::Day);
                self.duration(start, whole, unit)
            }
            _ if is_date_shaped(text) => self.date(start),
            _ => self.malformed(start, whole, rest),
        };
        self.push(start, kind);
    }

    fn decimal(&mut self, start: usize, whole: &str, fraction: &str) -> TokenKind {
        const MAX_DIGITS: usize = 18;
        if whole.len() > MAX_DIGITS || fraction.len() > MAX_DIGITS {
            let message = "a number has at most 18 digits before and 18 after its point";
            self.tell("number", start, message, "");
        }
        let text = &self.text[start..self.at];
        TokenKind::Number(Decimal::from_text(text).unwrap_or_else(Decimal::zero))
    }

    fn duration(&mut self, start: usize, digits: &str, unit: DurationUnit) -> TokenKind {
        let count = digits.parse().unwrap_or(u64::MAX);
        let length = Duration { count, unit, span: Span::default() };
        if count >= 1 && length.millis() <= Duration::MAX {
            return TokenKind::Duration { count, unit };
        }
        self.tell("duration", start, "a duration is at least 1 and at most 36500d", "");
        TokenKind::Duration { count: 1, unit }
    }

    fn date(&mut self, start: usize) -> TokenKind {
        /// A day that no window warns about.
        const NEVER: i64 = 2_932_896;
        let text = &self.text[start..self.at];
        TokenKind::Date(parse_date(text).unwrap_or_else(|| {
            let message = format!("{text} is not a day of the calendar");
            self.tell("date", start, message, "");
            NEVER
        }))
    }

    /// Tells what is wrong with a word that begins with a digit, and takes it for what it resembles.
    fn malformed(&mut self, start: usize, whole: &str, rest: &str) -> TokenKind {
        let text = self.text[start..self.at].to_owned();
        let shown = shorten(&text);
        let number = TokenKind::Number(Decimal::zero());
        let parts: Vec<&str> = text.split('-').collect();
        let is_digits = |part: &&str| !part.is_empty() && part.bytes().all(|b| b.is_ascii_digit());
        if parts.len() == 3 && parts.iter().all(is_digits) {
            let message = format!("`{shown}` is no date");
            self.tell("date", start, message, "a date is written YYYY-MM-DD: `2024-01-31`");
            return TokenKind::Date(0);
        }
        if rest.starts_with(|c: char| c.is_ascii_alphabetic()) && is_unit_word(rest) {
            let unit = rest.bytes().next().map_or(b'd', |b| b.to_ascii_lowercase());
            let unit = unit_of(unit).unwrap_or(DurationUnit::Day);
            let message = if text.starts_with('-') {
                "a duration has no sign".to_owned()
            } else {
                format!("`{shown}` is no duration")
            };
            let hint = match rest.to_ascii_lowercase().as_str() {
                "y" | "year" | "years" | "mo" | "month" | "months" => {
                    "count in days (`30d`, `365d`) or weeks (`4w`)".to_owned()
                }
                _ => format!("write `{whole}{}`", unit_letter(unit)),
            };
            self.tell("duration", start, message, &hint);
            return TokenKind::Duration { count: 1, unit };
        }
        let hint = if rest.starts_with(['e', 'E'])
            && rest[1..].starts_with(|c: char| c.is_ascii_digit() || c == '-')
        {
            "numbers have no exponent: write it out"
        } else if rest == "." {
            "write digits after the point, or leave it out"
        } else if rest.starts_with('_') && rest.bytes().all(|b| b.is_ascii_digit() || b == b'_') {
            "write the digits together"
        } else if rest.starts_with('.') || rest.starts_with('-') {
            "a number is digits, perhaps with a point and more digits"
        } else {
            let message = format!("`{shown}` is neither a number, a duration, a date nor a name");
            let hint = "a name that begins with a digit goes between backquotes";
            self.tell("number", start, message, hint);
            return TokenKind::Invalid;
        };
        self.tell("number", start, format!("`{shown}` is no number"), hint);
        number
    }
}

fn unit_of(letter: u8) -> Option<DurationUnit> {
    Some(match letter {
        b's' => DurationUnit::Second,
        b'm' => DurationUnit::Minute,
        b'h' => DurationUnit::Hour,
        b'd' => DurationUnit::Day,
        b'w' => DurationUnit::Week,
        _ => return None,
    })
}

/// Whether a word is a unit of time as people write them.
pub(crate) fn is_unit_word(word: &str) -> bool {
    const UNITS: [&str; 25] = [
        "s", "sec", "secs", "second", "seconds", "m", "min", "mins", "minute", "minutes", "h",
        "hr", "hrs", "hour", "hours", "d", "day", "days", "w", "week", "weeks", "month", "months",
        "year", "years",
    ];
    let word = word.to_ascii_lowercase();
    UNITS.contains(&word.as_str()) || word == "y" || word == "mo"
}

fn is_date_shaped(text: &str) -> bool {
    text.len() == 10
        && text.bytes().enumerate().all(|(place, b)| match place {
            4 | 7 => b == b'-',
            _ => b.is_ascii_digit(),
        })
}
