//! The words of the language.

use crate::model::Decimal;
use crate::model::time::Day;
use crate::model::time::format_day;
use crate::rules::ast::Cmp;
use crate::rules::ast::DurationUnit;
use crate::rules::ast::Span;

/// Every reserved word, sorted.
pub(crate) const KEYWORDS: [&str; 33] = [
    "after", "ago", "and", "avg", "between", "contains", "count", "days", "did", "ends",
    "everyone", "exists", "false", "first", "from", "has", "in", "last", "matches", "max", "min",
    "not", "or", "profile", "segment", "since", "starts", "sum", "then", "to", "true", "with",
    "within",
];

/// The reserved word that `text` is.
pub(crate) fn keyword(text: &str) -> Option<&'static str> {
    KEYWORDS.into_iter().find(|word| *word == text)
}

/// Whether a name stands without backquotes.
pub(crate) fn is_plain_name(text: &str) -> bool {
    let mut bytes = text.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_alphabetic() || b == b'_')
        && bytes.all(|b| b.is_ascii_alphanumeric() || b == b'_')
        && keyword(text).is_none()
}

/// Whether a text has the form of a segment's id (of any length).
pub(crate) fn is_slug(text: &str) -> bool {
    let mut bytes = text.bytes();
    bytes.next().is_some_and(|b| b.is_ascii_lowercase() || b.is_ascii_digit())
        && bytes.all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

/// A name as a rule writes it: plain, or between backquotes.
pub(crate) fn write_name(text: &str) -> String {
    if is_plain_name(text) { text.into() } else { format!("`{text}`") }
}

/// One token and where it stands.
#[derive(Debug, Clone)]
pub(crate) struct Token {
    pub(crate) kind: TokenKind,
    pub(crate) span: Span,
}

/// What a token is. Values are read, so that nothing looks at the text again.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum TokenKind {
    Keyword(&'static str),
    /// A name, without its backquotes.
    Name {
        text: Box<str>,
        quoted: bool,
    },
    /// The word after `segment`.
    Slug(Box<str>),
    String(Box<str>),
    Number(Decimal),
    Duration {
        count: u64,
        unit: DurationUnit,
    },
    Date(Day),
    Cmp(Cmp),
    /// One of `( ) [ ] , .`
    Punctuation(char),
    /// What is no token; the lexer has said so.
    Invalid,
    End,
}

impl TokenKind {
    /// The token in a message: "found …".
    pub(crate) fn describe(&self) -> String {
        match self {
            Self::Keyword(word) => format!("`{word}`"),
            Self::Name { text, quoted: false } => format!("`{}`", shorten(text)),
            Self::Name { text, quoted: true } => format!("the name `{}`", shorten(text)),
            Self::Slug(text) => format!("`{}`", shorten(text)),
            Self::String(text) => format!("the string \"{}\"", shorten(text)),
            Self::Number(number) => format!("the number {}", shorten(&number.to_string())),
            Self::Duration { count, unit } => format!("the duration {count}{}", unit_letter(*unit)),
            Self::Date(day) => format!("the date {}", format_day(*day)),
            Self::Cmp(cmp) => format!("`{}`", cmp.as_str()),
            Self::Punctuation(mark) => format!("`{mark}`"),
            Self::Invalid => "something else".into(),
            Self::End => "the end of the rule".into(),
        }
    }
}

/// The letter of a unit.
pub(crate) fn unit_letter(unit: DurationUnit) -> char {
    match unit {
        DurationUnit::Second => 's',
        DurationUnit::Minute => 'm',
        DurationUnit::Hour => 'h',
        DurationUnit::Day => 'd',
        DurationUnit::Week => 'w',
    }
}

/// A text that fits a message, with what cannot be seen escaped.
pub(crate) fn shorten(text: &str) -> String {
    const LONGEST: usize = 40;
    let mut short = String::new();
    for (place, c) in text.chars().enumerate() {
        if place == LONGEST {
            short.push('…');
            break;
        }
        if c.is_control() { short.extend(c.escape_default()) } else { short.push(c) }
    }
    short
}

/// The span from the start of one to the end of another.
pub(crate) fn join(first: Span, last: Span) -> Span {
    Span { start: first.start, end: last.end.max(first.start) }
}
