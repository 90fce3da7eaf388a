//! Filters between brackets, and the tests that filters and attributes share.

use super::Parsed;
use super::Parser;
use super::Told;
use super::group::Word;
use super::group::combine;
use crate::rules::ast::Filter;
use crate::rules::ast::FilterKind;
use crate::rules::ast::Literal;
use crate::rules::ast::LiteralKind;
use crate::rules::ast::Span;
use crate::rules::ast::Test;
use crate::rules::ast::TestKind;
use crate::rules::diagnostic::Diagnostic;
use crate::rules::token::TokenKind;
use crate::rules::token::join;
use crate::rules::token::keyword;
use crate::rules::token::shorten;
use crate::rules::token::write_name;

const A_TEST: &str =
    "a test (`=`, `<`, `in`, `contains`, `starts with`, `ends with`, `matches`, `exists`, …)";
const A_LITERAL: &str = "a string, a number, `true` or `false`";
const A_PROPERTY: &str = "a property and its test";

impl Parser {
    /// A filter with its brackets.
    pub(super) fn bracketed(&mut self) -> Parsed<Filter> {
        let open = self.bump();
        if self.at_mark(']') {
            self.unexpected(A_PROPERTY, "leave the brackets out to take every event of the name");
            let span = join(open, self.bump());
            return Ok(Filter { kind: FilterKind::Error, span });
        }
        let filter = self.filter_or();
        if !self.eat_mark(']') {
            self.unclosed(open, ']', "`and`, `or` or `]`");
            // What follows may still be a window and its comparison, if the bracket is all that lacks.
            let goes_on = matches!(
                self.kind(),
                TokenKind::Keyword("in" | "between" | "since" | "from" | "then" | "after")
                    | TokenKind::End
            );
            if !goes_on {
                self.skip_part(&[']', ')']);
                if !self.eat_mark(']') {
                    return Err(Told);
                }
            }
        }
        Ok(filter)
    }

    fn filter_or(&mut self) -> Filter {
        let mut parts = vec![self.filter_and()];
        while self.eat("or") {
            parts.push(self.filter_and());
        }
        combine(parts, Word::Or)
    }

    fn filter_and(&mut self) -> Filter {
        let mut parts = vec![self.filter_not()];
        while self.eat_connector() {
            parts.push(self.filter_not());
        }
        combine(parts, Word::And)
    }

    /// Takes `and`, or tells of a comma in its place.
    fn eat_connector(&mut self) -> bool {
        if self.at_mark(',') {
            self.unexpected("`and`, `or` or `]`", "write `and` in place of the comma");
            self.bump();
            return true;
        }
        self.eat("and")
    }

    fn filter_not(&mut self) -> Filter {
        let start = self.span();
        if self.at_keyword("not") {
            self.bump();
            if self.enter().is_err() {
                return Filter { kind: FilterKind::Error, span: start };
            }
            let inner = self.filter_not();
            self.leave();
            let span = join(start, self.last_span());
            return Filter { kind: FilterKind::Not(Box::new(inner)), span };
        }
        if self.at_mark('(') {
            return self.filter_group();
        }
        match self.property_test() {
            Ok(kind) => Filter { kind, span: join(start, self.last_span()) },
            Err(Told) => {
                self.skip_part(&[']', ')']);
                Filter { kind: FilterKind::Error, span: join(start, self.last_span()) }
            }
        }
    }

    fn filter_group(&mut self) -> Filter {
        let open = self.bump();
        if self.enter().is_err() {
            return Filter { kind: FilterKind::Error, span: open };
        }
        let filter = self.filter_or();
        self.leave();
        if !self.eat_mark(')') {
            self.unclosed(open, ')', "`and`, `or` or `)`");
            if !self.at_mark(']') {
                self.skip_part(&[']', ')']);
                self.eat_mark(')');
            }
        }
        filter
    }

    fn property_test(&mut self) -> Parsed<FilterKind> {
        if let TokenKind::String(_)
        | TokenKind::Number(_)
        | TokenKind::Punctuation(_)
        | TokenKind::Cmp(_)
        | TokenKind::End = self.kind()
        {
            let hint = match self.kind() {
                TokenKind::String(_) => {
                    "the property comes first: `category = \"shoes\"`; \
                     a name of other characters goes between backquotes"
                }
                _ => "",
            };
            return Err(self.unexpected(A_PROPERTY, hint));
        }
        let property = self.property()?;
        let names: Vec<String> = property.path.iter().map(|name| write_name(name)).collect();
        let test = self.test(&names.join("."))?;
        Ok(FilterKind::Test(property, test))
    }

    /// The test of `subject`, which hints name.
    pub(super) fn test(&mut self, subject: &str) -> Parsed<Test> {
        let start = self.span();
        let subject = shorten(subject);
        let kind = if let TokenKind::Cmp(cmp) = *self.kind() {
            self.bump();
            TestKind::Compare(cmp, self.literal()?)
        } else if self.eat("not") {
            if self.eat("in") {
                TestKind::NotIn(self.list()?)
            } else {
                let hint = format!("`not` goes before the name: `not {subject} …`");
                return Err(self.unexpected("`in`", &hint));
            }
        } else if self.eat("in") {
            TestKind::In(self.list()?)
        } else if self.eat("contains") {
            TestKind::Contains(self.text_literal()?)
        } else if self.eat("starts") {
            self.expect("with", &format!("write `{subject} starts with \"…\"`"))?;
            TestKind::StartsWith(self.text_literal()?)
        } else if self.eat("ends") {
            self.expect("with", &format!("write `{subject} ends with \"…\"`"))?;
            TestKind::EndsWith(self.text_literal()?)
        } else if self.eat("matches") {
            TestKind::Matches(self.text_literal()?)
        } else if self.eat("exists") {
            TestKind::Exists
        } else {
            let hint = self.test_hint(&subject);
            let told = self.unexpected(A_TEST, &hint);
            if self.at_keyword("between") {
                self.skip_between();
            }
            return Err(told);
        };
        Ok(Test { kind, span: join(start, self.last_span()) })
    }

    /// Passes over `between 3 and 5`, whose `and` joins no parts.
    fn skip_between(&mut self) {
        self.bump();
        self.bump();
        if self.at_keyword("and") {
            self.bump();
        }
    }

    fn test_hint(&self, subject: &str) -> String {
        if let Some(word) = keyword(&subject.to_ascii_lowercase()) {
            return format!("keywords are lower case: `{word}`");
        }
        match self.kind() {
            TokenKind::Name { text, quoted: false } => match text.to_ascii_lowercase().as_str() {
                "is" | "equals" | "eq" => format!("write `{subject} = …`"),
                "like" | "ilike" => format!("write `{subject} contains \"…\"` or `matches`"),
                "includes" | "contain" | "has" => format!("write `{subject} contains \"…\"`"),
                "startswith" | "starts_with" => format!("write `{subject} starts with \"…\"`"),
                "endswith" | "ends_with" => format!("write `{subject} ends with \"…\"`"),
                "match" | "regex" | "regexp" => format!("write `{subject} matches \"…\"`"),
                "exist" => format!("write `{subject} exists`"),
                _ => String::new(),
            },
            TokenKind::Keyword("has") => format!("write `{subject} contains \"…\"`"),
            TokenKind::Keyword("between") => format!("write `{subject} >= 1 and {subject} <= 9`"),
            TokenKind::Punctuation(']' | ')')
            | TokenKind::End
            | TokenKind::Keyword("and" | "or") => {
                format!("`{subject} exists` asks for any value, `{subject} = true` for true")
            }
            _ => String::new(),
        }
    }

    fn list(&mut self) -> Parsed<Vec<Literal>> {
        if !self.at_mark('(') {
            let hint = "a list stands between parentheses: `in (\"DE\", \"AT\")`";
            let is_literal = matches!(self.kind(), TokenKind::String(_) | TokenKind::Number(_));
            self.unexpected("`(`", hint);
            return if is_literal { Ok(vec![self.literal()?]) } else { Err(Told) };
        }
        let open = self.bump();
        let mut literals = Vec::new();
        loop {
            if self.at_mark(')') {
                let hint = match literals.as_slice() {
                    [] => "a list has at least one value",
                    _ => "no comma goes after the last value",
                };
                self.unexpected(A_LITERAL, hint);
                self.bump();
                break;
            }
            literals.push(self.literal()?);
            if self.eat_mark(')') {
                break;
            }
            if self.eat_mark(',') {
                continue;
            }
            let is_literal = matches!(
                self.kind(),
                TokenKind::String(_) | TokenKind::Number(_) | TokenKind::Keyword("true" | "false")
            );
            if !is_literal {
                self.unclosed(open, ')', "`,` or `)`");
                return Err(Told);
            }
            self.unexpected("`,` or `)`", "values stand between commas");
            // The value itself is not at fault.
            self.told_at = None;
        }
        Ok(literals)
    }

    fn text_literal(&mut self) -> Parsed<Box<str>> {
        match self.kind() {
            TokenKind::String(text) => {
                let text = text.clone();
                self.bump();
                Ok(text)
            }
            kind => {
                let hint = match kind {
                    TokenKind::Name { text, .. } => {
                        format!("strings stand between double quotes: \"{}\"", shorten(text))
                    }
                    TokenKind::Number(number) => {
                        format!("write \"{}\" with its quotes", shorten(&number.to_string()))
                    }
                    _ => String::new(),
                };
                let resembles = matches!(kind, TokenKind::Name { .. } | TokenKind::Number(_));
                let told = self.unexpected("a string", &hint);
                if !resembles {
                    return Err(told);
                }
                self.bump();
                Ok("".into())
            }
        }
    }

    fn literal(&mut self) -> Parsed<Literal> {
        let span = self.span();
        let kind = match self.kind() {
            TokenKind::String(text) => LiteralKind::String(text.clone()),
            TokenKind::Number(number) => LiteralKind::Number(number.clone()),
            TokenKind::Keyword("true") => LiteralKind::Bool(true),
            TokenKind::Keyword("false") => LiteralKind::Bool(false),
            TokenKind::Duration { .. } | TokenKind::Date(_) => {
                let hint = "a text stands between double quotes";
                self.unexpected(A_LITERAL, hint);
                LiteralKind::Bool(false)
            }
            TokenKind::Name { text, .. } => {
                let lower = text.to_ascii_lowercase();
                let hint = match lower.as_str() {
                    "null" | "none" | "nil" => "`not … exists` asks for what is missing".to_owned(),
                    "true" | "false" => format!("write `{lower}` in lower case"),
                    _ => format!("strings stand between double quotes: \"{}\"", shorten(text)),
                };
                self.told(span, A_LITERAL, &hint);
                LiteralKind::Bool(false)
            }
            _ => return Err(self.unexpected(A_LITERAL, "")),
        };
        self.bump();
        Ok(Literal { kind, span })
    }

    /// Like `unexpected`, with a hint that no keyword takes the place of.
    fn told(&mut self, span: Span, expected: &str, hint: &str) {
        let message = format!("expected {expected}, found {}", self.kind().describe());
        let told = Diagnostic::error("syntax", span, message).with_expected(expected);
        self.tell(told.with_hint(hint));
    }
}
