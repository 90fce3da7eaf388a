//! Text to tokens and comments. What is no token is told and made into the token that was meant, so
//! that the parser goes on.

use crate::model::Decimal;
use crate::model::time::parse_date;
use crate::rules::ast::Cmp;
use crate::rules::ast::Duration;
use crate::rules::ast::DurationUnit;
use crate::rules::ast::Span;
use crate::rules::diagnostic::Diagnostic;
use crate::rules::token::Token;
use crate::rules::token::TokenKind;
use crate::rules::token::is_slug;
use crate::rules::token::keyword;
use crate::rules::token::shorten;

/// A comment, from its `#`, without white space at its end.
#[derive(Debug, Clone)]
pub(crate) struct Comment {
    pub(crate) text: Box<str>,
    /// The token that follows it.
    pub(crate) before: usize,
    /// Whether no token precedes it on its line.
    pub(crate) own_line: bool,
}

/// A text's tokens, with `End` as the last.
#[derive(Debug)]
pub(crate) struct Lexed {
    pub(crate) tokens: Vec<Token>,
    pub(crate) comments: Vec<Comment>,
    pub(crate) diagnostics: Vec<Diagnostic>,
}

/// Cuts a text into tokens.
///
/// The text is at most `u32::MAX` bytes, which the caller has seen to.
pub(crate) fn lex(text: &str) -> Lexed {
    let mut lexer = Lexer {
        text,
        at: 0,
        fresh_line: true,
        out: Lexed { tokens: Vec::new(), comments: Vec::new(), diagnostics: Vec::new() },
    };
    while let Some(c) = lexer.peek() {
        lexer.token(c);
    }
    lexer.push(text.len(), TokenKind::End);
    lexer.out
}

struct Lexer<'t> {
    text: &'t str,
    at: usize,
    fresh_line: bool,
    out: Lexed,
}

impl Lexer<'_> {
    fn rest(&self) -> &str {
        &self.text[self.at..]
    }

    fn peek(&self) -> Option<char> {
        self.rest().chars().next()
    }

    /// The length of the run of characters that fit, from here.
    fn run(&self, fits: impl Fn(char) -> bool) -> usize {
        self.rest().find(|c| !fits(c)).unwrap_or(self.rest().len())
    }

    fn span(&self, start: usize) -> Span {
        let offset = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
        Span { start: offset(start), end: offset(self.at) }
    }

    fn push(&mut self, start: usize, kind: TokenKind) {
        let span = self.span(start);
        self.out.tokens.push(Token { kind, span });
        self.fresh_line = false;
    }

    fn tell(&mut self, code: &'static str, start: usize, message: impl Into<String>, hint: &str) {
        let told = Diagnostic::error(code, self.span(start), message);
        self.out.diagnostics.push(if hint.is_empty() { told } else { told.with_hint(hint) });
    }

    fn token(&mut self, c: char) {
        let start = self.at;
        let is_word = |c: char| c.is_ascii_alphanumeric() || c == '_' || c == '-';
        let after_segment =
            self.out.tokens.last().is_some_and(|t| t.kind == TokenKind::Keyword("segment"));
        match c {
            ' ' | '\t' => self.at += 1,
            '\n' | '\r' => {
                self.at += 1;
                self.fresh_line = true;
            }
            '#' => self.comment(),
            _ if after_segment && is_word(c) => self.slug(),
            '(' | ')' | '[' | ']' | ',' => {
                self.at += 1;
                self.push(start, TokenKind::Punctuation(c));
            }
            '.' => self.dot(),
            '"' => self.string(),
            '`' => self.quoted_name(),
            '0'..='9' => self.number(),
            '-' if self.rest()[1..].starts_with(|c: char| c.is_ascii_digit()) => self.number(),
            '_' => self.word(),
            c if c.is_alphabetic() => self.word(),
            _ => self.operator(c),
        }
    }

    fn comment(&mut self) {
        let length = self.run(|c| c != '\n' && c != '\r');
        let text = self.rest()[..length].trim_end().into();
        let (before, own_line) = (self.out.tokens.len(), self.fresh_line);
        self.out.comments.push(Comment { text, before, own_line });
        self.at += length;
    }

    fn slug(&mut self) {
        let start = self.at;
        self.at += self.run(|c| c.is_alphanumeric() || c == '_' || c == '-');
        let text = &self.text[start..self.at];
        if !is_slug(text) {
            let meant: String = text.to_lowercase().replace('_', "-");
            let hint = if is_slug(&meant) { format!("perhaps `{meant}`") } else { String::new() };
            let message = "a segment's id is made of lower-case letters, digits and `-`";
            self.tell("name", start, message, &hint);
        }
        self.push(start, TokenKind::Slug(self.text[start..self.at].into()));
    }

    fn dot(&mut self) {
        let start = self.at;
        let after_name = matches!(
            self.out.tokens.last().map(|t| &t.kind),
            Some(TokenKind::Name { .. } | TokenKind::Keyword(_) | TokenKind::Punctuation(']'))
        );
        self.at += 1;
        let digits = self.run(|c| c.is_ascii_digit());
        if digits == 0 || after_name {
            return self.push(start, TokenKind::Punctuation('.'));
        }
        self.at += digits;
        let meant = format!("write `0{}`", &self.text[start..self.at]);
        self.tell("number", start, "a number has digits before its point", &meant);
        self.push(start, TokenKind::Number(Decimal::zero()));
    }

    fn word(&mut self) {
        let start = self.at;
        let is_word = |c: char| c.is_alphanumeric() || c == '_';
        loop {
            self.at += self.run(is_word);
            // No rule has a `-` right after a word: one that stands there belongs to a name.
            match self.rest().strip_prefix('-') {
                Some(rest) if rest.starts_with(is_word) => self.at += 1,
                _ => break,
            }
        }
        let text: Box<str> = self.text[start..self.at].into();
        if let Some(word) = keyword(&text) {
            return self.push(start, TokenKind::Keyword(word));
        }
        if !text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') {
            let hint = format!("write `{}` with its backquotes", shorten(&text));
            let message =
                "a name of other characters than A–Z, a–z, 0–9 and `_` goes between backquotes";
            self.tell("name", start, message, &hint);
        }
        self.push(start, TokenKind::Name { text, quoted: false });
    }

    fn quoted_name(&mut self) {
        let start = self.at;
        self.at += 1;
        let length = self.run(|c| c != '`' && c != '\n' && c != '\r');
        let text: Box<str> = self.rest()[..length].into();
        self.at += length;
        if self.peek() == Some('`') {
            self.at += 1;
            if text.is_empty() {
                self.tell("name", start, "a name has at least one character", "");
            }
        } else {
            let hint = "close it with a backquote on the same line";
            self.tell("name", start, "this name is not closed", hint);
        }
        self.push(start, TokenKind::Name { text, quoted: true });
    }

    fn string(&mut self) {
        let start = self.at;
        self.at += 1;
        let mut value = String::new();
        loop {
            let Some(c) = self.peek().filter(|c| !matches!(c, '\n' | '\r')) else {
                let hint =
                    "close it with `\"` on the same line; a line break in it is written `\\n`";
                self.tell("string", start, "this string is not closed", hint);
                break;
            };
            match c {
                '"' => {
                    self.at += 1;
                    break;
                }
                '\\' => self.escape(&mut value),
                c => {
                    self.at += c.len_utf8();
                    value.push(c);
                }
            }
        }
        self.push(start, TokenKind::String(value.into()));
    }

    fn escape(&mut self, value: &mut String) {
        let start = self.at;
        self.at += 1;
        let Some(c) = self.peek().filter(|c| !matches!(c, '\n' | '\r')) else { return };
        self.at += c.len_utf8();
        match c {
            '"' | '\\' => value.push(c),
            'n' => value.push('\n'),
            't' => value.push('\t'),
            'u' => self.unicode_escape(start, value),
            c => {
                let hint = match c {
                    '\'' | '`' | '/' | '[' | ']' => format!("write `{c}` alone"),
                    c => format!("write a backslash as `\\\\`: `\\\\{}`", shorten(&c.to_string())),
                };
                let shown = shorten(&c.to_string());
                let message = format!(
                    "`\\{shown}` is no escape; those are `\\\"`, `\\\\`, `\\n`, `\\t` and `\\u{{…}}`"
                );
                self.tell("string", start, message, &hint);
                value.push(c);
            }
        }
    }

    fn unicode_escape(&mut self, start: usize, value: &mut String) {
        let digits = match self.rest().strip_prefix('{') {
            Some(rest) => rest.find(|c: char| !c.is_ascii_hexdigit()).unwrap_or(rest.len()),
            None => 0,
        };
        if digits == 0 || !self.rest()[1 + digits..].starts_with('}') {
            let hint = "`\\u{e9}` is `é`: 1 to 6 hexadecimal digits between braces";
            return self.tell("string", start, "this `\\u` escape is not whole", hint);
        }
        let hex = self.rest()[1..=digits].to_owned();
        self.at += digits + 2;
        match u32::from_str_radix(&hex, 16).ok().filter(|_| digits <= 6).and_then(char::from_u32) {
            Some(c) => value.push(c),
            None => {
                let message = "this is no character of Unicode";
                self.tell("string", start, message, "1 to 6 hexadecimal digits, at most 10ffff");
            }
        }
    }

    /// Everything that begins with a digit: a number, a duration or a date.
    fn number(&mut self) {
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
                _ => format!("write `{whole}{}`", super::token::unit_letter(unit)),
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

    /// Operators, and what people of other languages write in their place.
    fn operator(&mut self, c: char) {
        const OPERATORS: [(&str, TokenKind, Option<&str>); 22] = [
            ("===", TokenKind::Cmp(Cmp::Eq), Some("=")),
            ("!==", TokenKind::Cmp(Cmp::Ne), Some("!=")),
            ("==", TokenKind::Cmp(Cmp::Eq), Some("=")),
            ("=~", TokenKind::Keyword("matches"), Some("matches")),
            ("=>", TokenKind::Cmp(Cmp::Ge), Some(">=")),
            ("=<", TokenKind::Cmp(Cmp::Le), Some("<=")),
            ("<>", TokenKind::Cmp(Cmp::Ne), Some("!=")),
            ("!=", TokenKind::Cmp(Cmp::Ne), None),
            ("<=", TokenKind::Cmp(Cmp::Le), None),
            (">=", TokenKind::Cmp(Cmp::Ge), None),
            ("&&", TokenKind::Keyword("and"), Some("and")),
            ("||", TokenKind::Keyword("or"), Some("or")),
            ("=", TokenKind::Cmp(Cmp::Eq), None),
            ("<", TokenKind::Cmp(Cmp::Lt), None),
            (">", TokenKind::Cmp(Cmp::Gt), None),
            ("&", TokenKind::Keyword("and"), Some("and")),
            ("|", TokenKind::Keyword("or"), Some("or")),
            ("!", TokenKind::Keyword("not"), Some("not")),
            ("≥", TokenKind::Cmp(Cmp::Ge), Some(">=")),
            ("≤", TokenKind::Cmp(Cmp::Le), Some("<=")),
            ("≠", TokenKind::Cmp(Cmp::Ne), Some("!=")),
            ("~", TokenKind::Keyword("matches"), Some("matches")),
        ];
        let start = self.at;
        if let Some((text, kind, meant)) =
            OPERATORS.into_iter().find(|(text, ..)| self.rest().starts_with(text))
        {
            self.at += text.len();
            if let Some(meant) = meant {
                let message = format!("`{text}` is no operator");
                self.tell("syntax", start, message, &format!("write `{meant}`"));
            }
            return self.push(start, kind);
        }
        if let Some(close) = match c {
            '\'' => Some('\''),
            '“' | '„' | '”' | '«' | '»' => Some('”'),
            '‘' | '’' | '‚' => Some('’'),
            _ => None,
        } {
            return self.foreign_quotes(c, close);
        }
        self.at += c.len_utf8();
        // One thing to tell of a run of the same character.
        self.at += self.run(|next| next == c);
        let hint = match c {
            '-' => "the `-` of a number stands right before its digits",
            '+' | '*' | '/' | '%' => "the language has no arithmetic",
            ';' => "a rule ends where its text ends",
            '{' | '}' => "filters stand between `[` and `]`, lists between `(` and `)`",
            c if c.is_whitespace() || c.is_control() || c == '\u{feff}' || c == '\u{200b}' => {
                "white space is spaces, tabs and line breaks"
            }
            _ => "a name of other characters goes between backquotes, a text between double quotes",
        };
        let shown = if c.is_whitespace() || c.is_control() || !c.is_ascii() {
            format!("U+{:04X}", u32::from(c))
        } else {
            format!("`{c}`")
        };
        self.tell("syntax", start, format!("{shown} has no meaning here"), hint);
        let invisible = c.is_whitespace() || c.is_control() || c == '\u{feff}' || c == '\u{200b}';
        if !invisible {
            self.push(start, TokenKind::Invalid);
        }
    }

    fn foreign_quotes(&mut self, open: char, close: char) {
        let start = self.at;
        self.at += open.len_utf8();
        let is_end = |c: char| match close {
            '\'' => c == '\'',
            '’' => matches!(c, '’' | '‘'),
            _ => matches!(c, '”' | '“' | '»' | '«' | '"'),
        };
        let line = self.run(|c| c != '\n' && c != '\r');
        let Some(length) = self.rest()[..line].find(is_end) else {
            let message = format!("`{open}` has no meaning here");
            self.tell("syntax", start, message, "strings stand between double quotes");
            return self.push(start, TokenKind::Invalid);
        };
        let text: Box<str> = self.rest()[..length].into();
        self.at += length;
        self.at += self.peek().map_or(0, char::len_utf8);
        let hint = format!("write \"{}\"", shorten(&text));
        self.tell("string", start, "strings stand between double quotes", &hint);
        self.push(start, TokenKind::String(text));
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
