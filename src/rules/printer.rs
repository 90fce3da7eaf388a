//! Trees to text: the one canonical way to say each thing.
//!
//! Parentheses and backquotes stand only where they are needed, and a rule that is longer than
//! [`WIDTH`] is broken at its `and` and `or`, filters and lists.

use std::fmt;

use crate::model::time::format_day;
use crate::rules::ast::Duration;
use crate::rules::ast::Filter;
use crate::rules::ast::FilterKind;
use crate::rules::ast::Literal;
use crate::rules::ast::LiteralKind;
use crate::rules::ast::MeasureKind;
use crate::rules::ast::Name;
use crate::rules::ast::Property;
use crate::rules::ast::Rule;
use crate::rules::ast::RuleKind;
use crate::rules::ast::Selector;
use crate::rules::ast::Test;
use crate::rules::ast::TestKind;
use crate::rules::ast::Window;
use crate::rules::ast::WindowKind;
use crate::rules::layout::Comments;
use crate::rules::layout::Doc;
use crate::rules::layout::Layout;
use crate::rules::token::unit_letter;
use crate::rules::token::write_name;

/// How many characters a line should have at most.
pub const WIDTH: usize = 80;

/// How much deeper the second line of a rule stands than its first, where no mark encloses them.
const HANGING: usize = 2;

/// Prints a rule the one canonical way, over several lines where one is too short. It has no line
/// break at its end.
///
/// [`parse`](crate::rules::parse) reads the same tree from it, provided that names hold neither
/// backquotes nor line breaks and that nothing is an `Error`, which prints as `…`.
pub fn print(rule: &Rule) -> String {
    print_with(rule, &[])
}

/// Prints a rule the one canonical way, on one line.
pub fn print_inline(rule: &Rule) -> String {
    inline(|printer| printer.rule(rule))
}

/// Prints a string literal with its quotes and escapes.
pub fn print_string(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' => out.push_str("\\\""),
            '\\' => out.push_str("\\\\"),
            '\n' => out.push_str("\\n"),
            '\t' => out.push_str("\\t"),
            c if c.is_control() => out.push_str(&format!("\\u{{{:x}}}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// Prints a name as rules write it: with backquotes where it needs them.
pub fn print_name(name: &str) -> String {
    write_name(name)
}

/// Prints with comments: for each token those that belong to it, then those at the end.
pub(crate) fn print_with(rule: &Rule, comments: &[Comments]) -> String {
    let mut printer = Printer { tokens: Vec::new() };
    let docs = [Doc::Group(printer.rule(rule))];
    Layout { tokens: &printer.tokens, comments, width: WIDTH }.write(&docs)
}

/// The tokens that `print` writes, in order.
pub(crate) fn printed_tokens(rule: &Rule) -> Vec<String> {
    let mut printer = Printer { tokens: Vec::new() };
    printer.rule(rule);
    printer.tokens
}

fn inline(part: impl FnOnce(&mut Printer) -> Vec<Doc>) -> String {
    let mut printer = Printer { tokens: Vec::new() };
    let docs = [Doc::Group(part(&mut printer))];
    Layout { tokens: &printer.tokens, comments: &[], width: usize::MAX }.write(&docs)
}

/// Makes `Display` print a part of a tree on one line.
macro_rules! display_inline {
    ($($part:ident by $method:ident),*) => {
        $(
            /// Prints the canonical text, on one line.
            impl fmt::Display for $part {
                fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                    f.write_str(&inline(|printer| printer.$method(self)))
                }
            }
        )*
    };
}

display_inline!(
    Rule by rule, Selector by selector, Filter by filter, Property by property, Test by test,
    Literal by literal, Duration by duration, Window by window, Name by name
);

struct Printer {
    tokens: Vec<String>,
}

impl Printer {
    fn token(&mut self, text: impl Into<String>) -> Doc {
        self.tokens.push(text.into());
        Doc::Token(self.tokens.len() - 1)
    }

    fn word(&mut self, word: &str, out: &mut Vec<Doc>) {
        out.push(self.token(word));
        out.push(Doc::Blank);
    }

    fn rule(&mut self, rule: &Rule) -> Vec<Doc> {
        self.rule_at(rule, HANGING)
    }

    /// Prints a rule whose `and` and `or` begin lines that stand `deeper` than its first.
    fn rule_at(&mut self, rule: &Rule, deeper: usize) -> Vec<Doc> {
        match &rule.kind {
            RuleKind::Or(parts) => self.joined("or", parts, deeper, |printer, part| {
                let docs = printer.rule(part);
                let is_and = matches!(part.kind, RuleKind::And(_));
                (docs, is_and)
            }),
            RuleKind::And(parts) => {
                self.joined("and", parts, deeper, |printer, part| match part.kind {
                    RuleKind::Or(_) => (printer.grouped_rule(part), false),
                    _ => (printer.rule(part), false),
                })
            }
            RuleKind::Not(inner) => {
                let mut out = Vec::new();
                self.word("not", &mut out);
                out.extend(match inner.kind {
                    RuleKind::Or(_) | RuleKind::And(_) => self.grouped_rule(inner),
                    _ => self.rule(inner),
                });
                out
            }
            clause => self.clause(clause),
        }
    }

    fn grouped_rule(&mut self, rule: &Rule) -> Vec<Doc> {
        self.group(('(', ')'), |printer| printer.rule_at(rule, 0))
    }

    /// Parts with a word between them, which begins a line where not all fit on one. `print` also says
    /// whether a part is such a row of parts itself.
    fn joined<T>(
        &mut self,
        word: &str,
        parts: &[T],
        deeper: usize,
        print: impl Fn(&mut Self, &T) -> (Vec<Doc>, bool),
    ) -> Vec<Doc> {
        let mut out = Vec::new();
        for (place, part) in parts.iter().enumerate() {
            if place == 0 {
                let (docs, is_row) = print(self, part);
                let first = Doc::Group(docs);
                // Its lines stand deeper than those of this row, like those of the other parts.
                out.push(if is_row { Doc::Nest(deeper, vec![first]) } else { first });
            } else {
                let mut line = vec![Doc::Line];
                self.word(word, &mut line);
                line.push(Doc::Group(print(self, part).0));
                out.push(Doc::Nest(deeper, line));
            }
        }
        out
    }

    fn group(
        &mut self,
        (open, close): (char, char),
        inner: impl FnOnce(&mut Self) -> Vec<Doc>,
    ) -> Vec<Doc> {
        let open = self.token(open);
        let mut nested = vec![Doc::Soft];
        nested.extend(inner(self));
        let close = self.token(close);
        vec![Doc::Group(vec![open, Doc::Nest(2, nested), Doc::Soft, close])]
    }

    fn clause(&mut self, clause: &RuleKind) -> Vec<Doc> {
        let mut out = Vec::new();
        match clause {
            RuleKind::Everyone => out.push(self.token("everyone")),
            RuleKind::Segment(id) => {
                self.word("segment", &mut out);
                out.push(self.token(&*id.text));
            }
            RuleKind::Has(namespace) => {
                self.word("has", &mut out);
                out.extend(self.name(namespace));
            }
            RuleKind::Attribute { name, test } => {
                out.push(self.token("profile"));
                out.push(self.token("."));
                out.extend(self.name(name));
                out.push(Doc::Blank);
                out.extend(self.test(test));
            }
            RuleKind::Did { selector, window } => {
                self.word("did", &mut out);
                out.extend(self.selector(selector));
                self.then_window(window.as_ref(), &mut out);
            }
            RuleKind::Sequence { first, then, within, window } => {
                self.word("did", &mut out);
                out.extend(self.selector(first));
                out.push(Doc::Blank);
                self.word("then", &mut out);
                out.extend(self.selector(then));
                out.push(Doc::Blank);
                self.word("within", &mut out);
                out.extend(self.duration(within));
                self.then_window(window.as_ref(), &mut out);
            }
            RuleKind::Measure { measure, selector, window, cmp, number } => {
                let (word, property) = match measure {
                    MeasureKind::Count => ("count", None),
                    MeasureKind::Days => ("days", None),
                    MeasureKind::Sum(property) => ("sum", Some(property)),
                    MeasureKind::Min(property) => ("min", Some(property)),
                    MeasureKind::Max(property) => ("max", Some(property)),
                    MeasureKind::Avg(property) => ("avg", Some(property)),
                };
                self.word(word, &mut out);
                out.extend(self.selector(selector));
                if let Some(property) = property {
                    out.push(self.token("."));
                    out.extend(self.property(property));
                }
                self.then_window(window.as_ref(), &mut out);
                out.push(Doc::Blank);
                self.word(cmp.as_str(), &mut out);
                out.extend(self.literal(number));
            }
            RuleKind::First { selector, window } => {
                self.word("first", &mut out);
                out.extend(self.selector(selector));
                self.then_window(Some(window), &mut out);
            }
            RuleKind::LastAfter { selector, after } => {
                self.word("last", &mut out);
                out.extend(self.selector(selector));
                out.push(Doc::Blank);
                self.word("after", &mut out);
                self.word("last", &mut out);
                out.extend(self.selector(after));
            }
            RuleKind::Error | RuleKind::Or(_) | RuleKind::And(_) | RuleKind::Not(_) => {
                out.push(self.token("…"));
            }
        }
        out
    }

    fn then_window(&mut self, window: Option<&Window>, out: &mut Vec<Doc>) {
        if let Some(window) = window {
            out.push(Doc::Blank);
            out.extend(self.window(window));
        }
    }

    fn name(&mut self, name: &Name) -> Vec<Doc> {
        vec![self.token(write_name(&name.text))]
    }

    fn selector(&mut self, selector: &Selector) -> Vec<Doc> {
        let mut out = self.name(&selector.event);
        if let Some(filter) = &selector.filter {
            out.extend(self.grouped_filter(('[', ']'), filter));
        }
        out
    }

    fn filter(&mut self, filter: &Filter) -> Vec<Doc> {
        self.filter_at(filter, HANGING)
    }

    fn filter_at(&mut self, filter: &Filter, deeper: usize) -> Vec<Doc> {
        match &filter.kind {
            FilterKind::Or(parts) => self.joined("or", parts, deeper, |printer, part| {
                let docs = printer.filter(part);
                let is_and = matches!(part.kind, FilterKind::And(_));
                (docs, is_and)
            }),
            FilterKind::And(parts) => {
                self.joined("and", parts, deeper, |printer, part| match part.kind {
                    FilterKind::Or(_) => (printer.grouped_filter(('(', ')'), part), false),
                    _ => (printer.filter(part), false),
                })
            }
            FilterKind::Not(inner) => {
                let mut out = Vec::new();
                self.word("not", &mut out);
                out.extend(match inner.kind {
                    FilterKind::Or(_) | FilterKind::And(_) => {
                        self.grouped_filter(('(', ')'), inner)
                    }
                    _ => self.filter(inner),
                });
                out
            }
            FilterKind::Test(property, test) => {
                let mut out = self.property(property);
                out.push(Doc::Blank);
                out.extend(self.test(test));
                out
            }
            FilterKind::Error => vec![self.token("…")],
        }
    }

    fn grouped_filter(&mut self, marks: (char, char), filter: &Filter) -> Vec<Doc> {
        self.group(marks, |printer| printer.filter_at(filter, 0))
    }

    fn property(&mut self, property: &Property) -> Vec<Doc> {
        let mut out = Vec::new();
        for (place, name) in property.path.iter().enumerate() {
            if place > 0 {
                out.push(self.token("."));
            }
            out.push(self.token(write_name(name)));
        }
        out
    }

    fn test(&mut self, test: &Test) -> Vec<Doc> {
        let mut out = Vec::new();
        match &test.kind {
            TestKind::Compare(cmp, literal) => {
                self.word(cmp.as_str(), &mut out);
                out.extend(self.literal(literal));
            }
            TestKind::In(literals) => {
                self.word("in", &mut out);
                out.extend(self.list(literals));
            }
            TestKind::NotIn(literals) => {
                self.word("not", &mut out);
                self.word("in", &mut out);
                out.extend(self.list(literals));
            }
            TestKind::Contains(text) => self.text_test(&["contains"], text, &mut out),
            TestKind::StartsWith(text) => self.text_test(&["starts", "with"], text, &mut out),
            TestKind::EndsWith(text) => self.text_test(&["ends", "with"], text, &mut out),
            TestKind::Matches(text) => self.text_test(&["matches"], text, &mut out),
            TestKind::Exists => out.push(self.token("exists")),
        }
        out
    }

    fn text_test(&mut self, words: &[&str], text: &str, out: &mut Vec<Doc>) {
        for word in words {
            self.word(word, out);
        }
        out.push(self.token(print_string(text)));
    }

    fn list(&mut self, literals: &[Literal]) -> Vec<Doc> {
        self.group(('(', ')'), |printer| {
            let mut out = Vec::new();
            for (place, literal) in literals.iter().enumerate() {
                if place > 0 {
                    out.push(printer.token(","));
                    out.push(Doc::Fill);
                }
                out.extend(printer.literal(literal));
            }
            out
        })
    }

    fn literal(&mut self, literal: &Literal) -> Vec<Doc> {
        let text = match &literal.kind {
            LiteralKind::String(text) => print_string(text),
            LiteralKind::Number(number) => number.to_string(),
            LiteralKind::Bool(value) => value.to_string(),
        };
        vec![self.token(text)]
    }

    fn duration(&mut self, duration: &Duration) -> Vec<Doc> {
        vec![self.token(format!("{}{}", duration.count, unit_letter(duration.unit)))]
    }

    fn window(&mut self, window: &Window) -> Vec<Doc> {
        let mut out = Vec::new();
        match &window.kind {
            WindowKind::In(length) => {
                self.word("in", &mut out);
                out.extend(self.duration(length));
            }
            WindowKind::Between(far, near) => {
                self.word("between", &mut out);
                out.extend(self.duration(far));
                out.push(Doc::Blank);
                self.word("and", &mut out);
                out.extend(self.duration(near));
                out.push(Doc::Blank);
                out.push(self.token("ago"));
            }
            WindowKind::Since(day) => {
                self.word("since", &mut out);
                out.push(self.token(format_day(*day)));
            }
            WindowKind::FromTo(from, to) => {
                self.word("from", &mut out);
                out.push(self.token(format_day(*from)));
                out.push(Doc::Blank);
                self.word("to", &mut out);
                out.push(self.token(format_day(*to)));
            }
        }
        out
    }
}
