//! Tokens to a tree, by recursive descent over the grammar.
//!
//! What cannot be read is told once and becomes an `Error` part; reading goes on at the next `and`,
//! `or` or closing mark, so that one run finds the errors of every part.

mod clause;
mod filter;
mod group;

use group::Word;
use group::combine;

use crate::rules::ast::Rule;
use crate::rules::ast::RuleKind;
use crate::rules::ast::Span;
use crate::rules::diagnostic::Diagnostic;
use crate::rules::diagnostic::nearest;
use crate::rules::lexer::lex;
use crate::rules::token::Token;
use crate::rules::token::TokenKind;
use crate::rules::token::join;
use crate::rules::token::keyword;
use crate::rules::token::shorten;

/// The longest rule, in bytes.
pub const MAX_LENGTH: usize = 64 * 1024;
/// How deep parentheses and `not` may nest.
pub const MAX_DEPTH: u32 = 200;
/// How many diagnostics one rule gets.
const MAX_DIAGNOSTICS: usize = 100;

/// The words a part of a rule begins with.
const STARTERS: [&str; 12] = [
    "everyone", "segment", "has", "profile", "did", "count", "days", "sum", "min", "max", "avg",
    "first",
];

/// Reads a rule. Never fails: what could not be read is [`RuleKind::Error`] in the tree, and at least
/// one diagnostic is then an error.
///
/// No part of an `And` is an `And` itself, and no part of an `Or` an `Or`: parentheses that group
/// nothing leave no trace.
pub fn parse(text: &str) -> (Rule, Vec<Diagnostic>) {
    parse_at(text, &|span| span)
}

/// Reads a rule that stands in another text: `place` says where a span of the rule stands there.
pub(crate) fn parse_at(text: &str, place: &dyn Fn(Span) -> Span) -> (Rule, Vec<Diagnostic>) {
    if text.len() > MAX_LENGTH {
        let span = place(Span { start: 0, end: 0 });
        let message = format!("a rule is at most {MAX_LENGTH} bytes, this one is {}", text.len());
        let told = Diagnostic::error("length", span, message)
            .with_hint("move parts of it to segments of their own, and ask those by `segment …`");
        return (Rule { kind: RuleKind::Error, span }, vec![told]);
    }
    let mut lexed = lex(text);
    for token in &mut lexed.tokens {
        token.span = place(token.span);
    }
    for told in &mut lexed.diagnostics {
        told.span = told.span.map(place);
    }
    let mut parser = Parser {
        tokens: lexed.tokens,
        at: 0,
        depth: 0,
        stopped: false,
        told_at: None,
        diagnostics: lexed.diagnostics,
    };
    let rule = parser.text();
    let mut diagnostics = parser.diagnostics;
    diagnostics.sort_by_key(|told| told.span.map(|span| span.start));
    if diagnostics.len() > MAX_DIAGNOSTICS {
        let more = diagnostics.len() - MAX_DIAGNOSTICS;
        diagnostics.truncate(MAX_DIAGNOSTICS);
        let message = format!("{more} more errors in this rule are not shown");
        diagnostics.push(Diagnostic::note("syntax", rule.span, message));
    }
    (rule, diagnostics)
}

/// The mark of a part that could not be read, and has been told.
struct Told;

type Parsed<T> = Result<T, Told>;

struct Parser {
    tokens: Vec<Token>,
    at: usize,
    depth: u32,
    /// Set when reading was given up: nothing more is told.
    stopped: bool,
    /// The token that the last error was told of; there is one for each token at most.
    told_at: Option<usize>,
    diagnostics: Vec<Diagnostic>,
}

impl Parser {
    fn kind(&self) -> &TokenKind {
        &self.tokens[self.at].kind
    }

    fn next_kind(&self) -> &TokenKind {
        self.tokens.get(self.at + 1).map_or(&TokenKind::End, |token| &token.kind)
    }

    fn span(&self) -> Span {
        self.tokens[self.at].span
    }

    /// Where the last token that was taken stands.
    fn last_span(&self) -> Span {
        self.tokens[self.at.saturating_sub(1)].span
    }

    /// Takes a token; the end is never passed.
    fn bump(&mut self) -> Span {
        let span = self.span();
        if self.at + 1 < self.tokens.len() {
            self.at += 1;
        }
        span
    }

    fn at_end(&self) -> bool {
        *self.kind() == TokenKind::End
    }

    fn at_mark(&self, mark: char) -> bool {
        *self.kind() == TokenKind::Punctuation(mark)
    }

    fn eat_mark(&mut self, mark: char) -> bool {
        let there = self.at_mark(mark);
        if there {
            self.bump();
        }
        there
    }

    fn at_keyword(&self, word: &str) -> bool {
        matches!(self.kind(), TokenKind::Keyword(found) if *found == word)
    }

    /// Takes a keyword; one in capitals too, where no name can stand, and tells it.
    fn eat(&mut self, word: &'static str) -> bool {
        if self.at_keyword(word) {
            self.bump();
            return true;
        }
        if self.capital_keyword() == Some(word) {
            let found = self.kind().describe();
            let message = format!("{found} is no keyword");
            let hint = format!("keywords are lower case: `{word}`");
            self.tell(Diagnostic::error("keyword", self.span(), message).with_hint(hint));
            self.bump();
            return true;
        }
        false
    }

    /// The keyword that the name here is but for its case.
    fn capital_keyword(&self) -> Option<&'static str> {
        match self.kind() {
            TokenKind::Name { text, quoted: false } => keyword(&text.to_ascii_lowercase()),
            _ => None,
        }
    }

    /// Takes a keyword that must stand here.
    fn expect(&mut self, word: &'static str, hint: &str) -> Parsed<()> {
        if self.eat(word) { Ok(()) } else { Err(self.unexpected(&format!("`{word}`"), hint)) }
    }

    /// Tells an error of syntax, unless one was told of this token.
    fn tell(&mut self, told: Diagnostic) {
        if self.stopped || self.told_at == Some(self.at) {
            return;
        }
        self.told_at = Some(self.at);
        self.diagnostics.push(told);
    }

    /// Tells that something else was expected here. Without a hint the token itself may have one.
    fn unexpected(&mut self, expected: &str, hint: &str) -> Told {
        if *self.kind() != TokenKind::Invalid {
            let found = self.kind().describe();
            let told = Diagnostic::error(
                "syntax",
                self.span(),
                format!("expected {expected}, found {found}"),
            )
            .with_expected(expected);
            let told = match (hint, self.capital_keyword()) {
                (_, Some(word)) => told.with_hint(format!("keywords are lower case: `{word}`")),
                ("", None) => told,
                (hint, None) => told.with_hint(hint),
            };
            self.tell(told);
        }
        self.told_at = Some(self.at);
        Told
    }

    /// Goes one level deeper, or gives up.
    fn enter(&mut self) -> Parsed<()> {
        if self.depth == MAX_DEPTH {
            let message = format!("a rule nests at most {MAX_DEPTH} levels deep");
            let told = Diagnostic::error("depth", self.span(), message).with_hint(
                "move the inner part to a segment of its own, and ask it by `segment …`",
            );
            self.tell(told);
            self.stopped = true;
            self.at = self.tokens.len() - 1;
            return Err(Told);
        }
        self.depth += 1;
        Ok(())
    }

    fn leave(&mut self) {
        self.depth -= 1;
    }

    /// Passes over what is left of a part that could not be read.
    fn skip_part(&mut self, closing: &[char]) {
        let mut open = 0usize;
        loop {
            match self.kind() {
                TokenKind::End => break,
                TokenKind::Punctuation('(' | '[') => open += 1,
                TokenKind::Punctuation(mark @ (')' | ']')) => match open.checked_sub(1) {
                    Some(outer) => open = outer,
                    None if closing.contains(mark) => break,
                    None => {}
                },
                TokenKind::Keyword("and" | "or") if open == 0 => break,
                _ => {}
            }
            self.bump();
        }
        self.told_at = Some(self.at);
    }

    /// The whole text.
    fn text(&mut self) -> Rule {
        if self.at_end() {
            let span = self.span();
            if self.diagnostics.is_empty() {
                let told = Diagnostic::error("syntax", span, "the rule is empty")
                    .with_expected("a rule")
                    .with_hint("`everyone` takes every profile");
                self.tell(told);
            }
            return Rule { kind: RuleKind::Error, span };
        }
        let first = self.or();
        let mut parts = vec![first];
        while !self.at_end() {
            let hint = match self.kind() {
                TokenKind::Punctuation(mark @ (')' | ']')) => {
                    format!("this `{mark}` closes nothing: remove it")
                }
                _ => String::new(),
            };
            self.unexpected("`and`, `or` or the end of the rule", &hint);
            self.bump();
            self.skip_part(&[]);
            if self.eat("and") || self.eat("or") {
                parts.push(self.or());
            }
        }
        combine(parts, Word::And)
    }

    fn or(&mut self) -> Rule {
        let mut parts = vec![self.and()];
        while self.eat("or") {
            parts.push(self.and());
        }
        combine(parts, Word::Or)
    }

    fn and(&mut self) -> Rule {
        let mut parts = vec![self.unary()];
        loop {
            if self.eat("and") {
                parts.push(self.unary());
            } else if self.at_part() && self.told_at != Some(self.at) {
                self.unexpected("`and` or `or`", "join the parts of a rule by `and` or `or`");
                parts.push(self.unary());
            } else {
                break;
            }
        }
        combine(parts, Word::And)
    }

    fn unary(&mut self) -> Rule {
        let start = self.span();
        if !self.eat("not") {
            return self.primary();
        }
        if self.enter().is_err() {
            return Rule { kind: RuleKind::Error, span: start };
        }
        let inner = self.unary();
        self.leave();
        let span = join(start, self.last_span());
        Rule { kind: RuleKind::Not(Box::new(inner)), span }
    }

    fn primary(&mut self) -> Rule {
        let start = self.span();
        if self.at_mark('(') {
            return self.group();
        }
        match self.clause() {
            Ok(kind) => Rule { kind, span: join(start, self.last_span()) },
            Err(Told) => {
                self.skip_part(&[')']);
                Rule { kind: RuleKind::Error, span: join(start, self.last_span()) }
            }
        }
    }

    fn group(&mut self) -> Rule {
        let open = self.bump();
        if self.enter().is_err() {
            return Rule { kind: RuleKind::Error, span: open };
        }
        let rule = self.or();
        self.leave();
        if !self.eat_mark(')') {
            self.unclosed(open, ')', "`and`, `or` or `)`");
            if !self.at_end() {
                self.skip_part(&[')']);
                self.eat_mark(')');
            }
        }
        rule
    }

    /// Tells of a mark that is not closed where it should be.
    fn unclosed(&mut self, open: Span, close: char, expected: &str) {
        if self.told_at == Some(self.at) || *self.kind() == TokenKind::Invalid {
            return;
        }
        let found = self.kind().describe();
        let opened = if close == ')' { '(' } else { '[' };
        let told =
            Diagnostic::error("syntax", self.span(), format!("expected {expected}, found {found}"))
                .with_expected(expected)
                .with_label(open, format!("this `{opened}` is not closed"));
        self.tell(told);
    }

    /// Whether a part of a rule begins here.
    fn at_part(&self) -> bool {
        match self.kind() {
            TokenKind::Punctuation('(') => true,
            TokenKind::Keyword(word) => STARTERS.contains(word) || matches!(*word, "last" | "not"),
            _ => false,
        }
    }

    /// The keyword a clause begins with.
    fn starter(&mut self) -> Parsed<&'static str> {
        for word in STARTERS.into_iter().chain(["last"]) {
            if self.eat(word) {
                return Ok(word);
            }
        }
        let hint = match self.kind() {
            TokenKind::Name { text, quoted } => {
                let name = shorten(text);
                match nearest(text, STARTERS.into_iter().chain(["last", "not"])) {
                    Some(near) if !quoted => format!("did you mean `{near}`?"),
                    _ if text.eq_ignore_ascii_case("all") => "`everyone` takes all".into(),
                    _ if *quoted => format!("to ask for events, write `` did `{name}` ``"),
                    _ => format!("to ask for events, write `did {name}`"),
                }
            }
            TokenKind::Keyword("true") => "`everyone` takes every profile".into(),
            TokenKind::Keyword("false") => "`not everyone` takes none".into(),
            TokenKind::Keyword("exists") => "`exists` goes after what it tests: \
                `profile.country exists`"
                .into(),
            TokenKind::Keyword("and" | "or") => "a part of the rule is missing here".into(),
            _ => String::new(),
        };
        Err(self.unexpected(
            "a part of a rule (`did`, `count`, `days`, `sum`, `profile`, `segment`, `has`, `not`, …)",
            &hint,
        ))
    }
}
