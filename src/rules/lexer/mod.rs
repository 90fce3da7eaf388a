//! Text to tokens and comments. What is no token is told and made into the token that was meant, so
//! that the parser goes on.

mod number;
mod text;

use crate::model::Decimal;
use crate::rules::ast::Cmp;
use crate::rules::ast::Span;
use crate::rules::diagnostic::Diagnostic;
use crate::rules::token::Token;
use crate::rules::token::TokenKind;
use crate::rules::token::is_slug;
use crate::rules::token::keyword;
use crate::rules::token::shorten;

pub(crate) use number::is_unit_word;

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
}
