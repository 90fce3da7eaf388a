//! The clauses of a rule: one question each, with its selector, window and comparison.

use super::Parsed;
use super::Parser;
use super::Told;
use crate::model::Decimal;
use crate::model::time::Day;
use crate::model::time::format_day;
use crate::rules::ast::Cmp;
use crate::rules::ast::Duration;
use crate::rules::ast::DurationUnit;
use crate::rules::ast::Literal;
use crate::rules::ast::LiteralKind;
use crate::rules::ast::MeasureKind;
use crate::rules::ast::Name;
use crate::rules::ast::Property;
use crate::rules::ast::RuleKind;
use crate::rules::ast::Selector;
use crate::rules::ast::Window;
use crate::rules::ast::WindowKind;
use crate::rules::diagnostic::Diagnostic;
use crate::rules::lexer::is_unit_word;
use crate::rules::token::TokenKind;
use crate::rules::token::join;
use crate::rules::token::shorten;
use crate::rules::token::unit_letter;
use crate::rules::token::write_name;

const EVENT: &str = "the name of an event";
const A_DURATION: &str = "a duration (`30m`, `12h`, `14d`, `2w`)";

impl Parser {
    pub(super) fn clause(&mut self) -> Parsed<RuleKind> {
        match self.starter()? {
            "everyone" => Ok(RuleKind::Everyone),
            "segment" => self.segment(),
            "has" => {
                let hint = "`has email_sha256` asks for an identifier of that namespace";
                Ok(RuleKind::Has(self.name("the name of a namespace", hint)?))
            }
            "profile" => self.attribute(),
            "did" => self.did(),
            "first" => {
                let selector = self.selector()?;
                match self.window()? {
                    Some(window) => Ok(RuleKind::First { selector, window }),
                    None => Err(self.unexpected(
                        "a window (`in`, `between`, `since`, `from`)",
                        "`first` asks when the earliest event was: `first purchase in 7d`",
                    )),
                }
            }
            "last" => self.last_after(),
            measure => self.measure(measure),
        }
    }

    fn segment(&mut self) -> Parsed<RuleKind> {
        let span = self.span();
        let text = match self.kind() {
            TokenKind::Slug(text) => text.clone(),
            TokenKind::String(text) | TokenKind::Name { text, quoted: true } => {
                let text = text.clone();
                let message = "a segment's id stands without quotes";
                let hint = format!("write `segment {}`", shorten(&text));
                self.tell(Diagnostic::error("syntax", span, message).with_hint(hint));
                text
            }
            _ => return Err(self.unexpected("the id of a segment", "")),
        };
        self.bump();
        Ok(RuleKind::Segment(Name { text, span }))
    }

    fn attribute(&mut self) -> Parsed<RuleKind> {
        if !self.eat_mark('.') {
            let hint = "an attribute is written `profile.country`";
            return Err(self.unexpected("`.` and the name of an attribute", hint));
        }
        let name = self.name("the name of an attribute", "")?;
        if self.at_mark('.') {
            let hint = "an attribute of a name with dots goes between backquotes: \
                        profile.`a.b`";
            return Err(self.unexpected("a test of the attribute", hint));
        }
        let subject = format!("profile.{}", write_name(&name.text));
        let test = self.test(&subject)?;
        Ok(RuleKind::Attribute { name, test })
    }

    fn did(&mut self) -> Parsed<RuleKind> {
        let selector = self.selector()?;
        if self.eat("then") {
            let then = self.selector()?;
            self.expect("within", "a sequence has a limit: `did a then b within 2h`")?;
            let within = self.duration("within")?;
            let window = self.window()?;
            return Ok(RuleKind::Sequence { first: selector, then, within, window });
        }
        let window = self.window()?;
        if let TokenKind::Cmp(cmp) = self.kind() {
            let name = write_name(&selector.event.text);
            let hint = format!("to count, write `count {} {} …`", shorten(&name), cmp.as_str());
            return Err(self.unexpected("`and`, `or` or the end of the rule", &hint));
        }
        if self.at_keyword("within") && window.is_none() {
            let hint = "`in 30d` is the window; `within` belongs to `did a then b within 2h`";
            return Err(self.unexpected("a window", hint));
        }
        Ok(RuleKind::Did { selector, window })
    }

    fn measure(&mut self, word: &str) -> Parsed<RuleKind> {
        let selector = self.selector()?;
        let event = shorten(&write_name(&selector.event.text));
        let measure = match word {
            "count" => MeasureKind::Count,
            "days" => MeasureKind::Days,
            _ => {
                if !self.eat_mark('.') {
                    let hint = format!("`{word}` takes a property: `{word} {event}.value`");
                    return Err(self.unexpected("`.` and the name of a property", &hint));
                }
                let property = self.property()?;
                match word {
                    "sum" => MeasureKind::Sum(property),
                    "min" => MeasureKind::Min(property),
                    "max" => MeasureKind::Max(property),
                    _ => MeasureKind::Avg(property),
                }
            }
        };
        if self.at_mark('.') {
            let hint = format!(
                "`{word}` takes no property; an event of a name with dots goes between backquotes"
            );
            return Err(self.unexpected("a window or a comparison", &hint));
        }
        let window = self.window()?;
        let (cmp, number) = self.comparison(word, &event)?;
        Ok(RuleKind::Measure { measure, selector, window, cmp, number })
    }

    fn comparison(&mut self, word: &str, event: &str) -> Parsed<(Cmp, Literal)> {
        let TokenKind::Cmp(cmp) = *self.kind() else {
            let hint = match word {
                "count" | "days" => {
                    format!("write `{word} {event} >= 3`; `did {event}` asks for one or more")
                }
                _ => format!("compare with a number: `{word} {event}.value >= 100`"),
            };
            return Err(self.unexpected("a comparison (`>=`, `=`, `<`, …)", &hint));
        };
        self.bump();
        let span = self.span();
        let number = match self.kind() {
            TokenKind::Number(number) => number.clone(),
            TokenKind::String(text) if Decimal::from_text(text).is_some() => {
                let hint = format!("write {} without quotes", shorten(text));
                self.unexpected("a number", &hint);
                Decimal::zero()
            }
            TokenKind::Duration { .. } | TokenKind::Date(_) | TokenKind::String(_) => {
                self.unexpected("a number", "");
                Decimal::zero()
            }
            _ => return Err(self.unexpected("a number", "")),
        };
        self.bump();
        if let TokenKind::Keyword("in" | "since" | "between" | "from") = self.kind() {
            let hint =
                format!("the window goes before the comparison: `{word} {event} in 7d >= 3`");
            return Err(self.unexpected("`and`, `or` or the end of the rule", &hint));
        }
        Ok((cmp, Literal { kind: LiteralKind::Number(number), span }))
    }

    fn last_after(&mut self) -> Parsed<RuleKind> {
        let hint = "`last` compares two events: `last cart after last purchase`; \
                    for a window write `did cart in 7d`";
        let selector = self.selector()?;
        self.expect("after", hint)?;
        if !self.eat("last") {
            if !matches!(self.kind(), TokenKind::Name { .. }) {
                return Err(self.unexpected("`last`", hint));
            }
            self.unexpected("`last`", hint);
        }
        let after = self.selector()?;
        Ok(RuleKind::LastAfter { selector, after })
    }

    pub(super) fn selector(&mut self) -> Parsed<Selector> {
        let event = self.name(EVENT, "")?;
        let mut span = event.span;
        let filter = if self.at_mark('[') {
            let filter = self.bracketed()?;
            span = join(span, self.last_span());
            Some(filter)
        } else {
            None
        };
        Ok(Selector { event, filter, span })
    }

    /// A name; a keyword or a string in its place is told and taken for one.
    pub(super) fn name(&mut self, what: &str, hint: &str) -> Parsed<Name> {
        let span = self.span();
        let text = match self.kind() {
            TokenKind::Name { text, .. } => text.clone(),
            TokenKind::String(text) => {
                let text = text.clone();
                let quoted = shorten(&text);
                let message = format!("expected {what}, found the string \"{quoted}\"");
                let hint = format!("names go between backquotes: `{quoted}`");
                let told = Diagnostic::error("syntax", span, message).with_expected(what);
                self.tell(told.with_hint(hint));
                text
            }
            TokenKind::Keyword(word) => {
                let word: &'static str = word;
                let message = format!("expected {what}, found the keyword `{word}`");
                let hint =
                    format!("a name that is a keyword goes between backquotes: `` `{word}` ``");
                let told = Diagnostic::error("keyword", span, message).with_expected(what);
                self.tell(told.with_hint(hint));
                if !self.keyword_is_meant_as_name(word) {
                    return Err(Told);
                }
                word.into()
            }
            TokenKind::Number(_) | TokenKind::Duration { .. } | TokenKind::Date(_) => {
                let hint = "a name that begins with a digit goes between backquotes";
                return Err(self.unexpected(what, hint));
            }
            _ => return Err(self.unexpected(what, hint)),
        };
        self.bump();
        Ok(Name { text, span })
    }

    /// Whether what follows a keyword reads as if the keyword were a name.
    fn keyword_is_meant_as_name(&self, word: &str) -> bool {
        let structural =
            matches!(word, "and" | "or" | "not" | "then" | "in" | "since" | "between" | "from");
        match self.next_kind() {
            TokenKind::Cmp(_) | TokenKind::Punctuation('.') => !matches!(word, "and" | "or"),
            TokenKind::Punctuation('[' | ')' | ']') | TokenKind::End => !structural,
            TokenKind::Keyword(_) => !structural,
            _ => false,
        }
    }

    pub(super) fn property(&mut self) -> Parsed<Property> {
        let first = self.name("the name of a property", "")?;
        let mut path = vec![first.text];
        while self.eat_mark('.') {
            path.push(self.name("the name of a property", "")?.text);
        }
        Ok(Property { path, span: join(first.span, self.last_span()) })
    }

    fn window(&mut self) -> Parsed<Option<Window>> {
        let start = self.span();
        let kind = if self.eat("in") {
            if self.at_keyword("last") {
                self.unexpected(A_DURATION, "`in 30d` is the last 30 days");
                self.bump();
            }
            WindowKind::In(self.duration("in")?)
        } else if self.at_keyword("last") && matches!(self.next_kind(), TokenKind::Duration { .. })
        {
            self.unexpected("a window", "`in 30d` is the last 30 days");
            self.bump();
            WindowKind::In(self.duration("in")?)
        } else if self.eat("between") {
            self.between()?
        } else if self.eat("since") {
            WindowKind::Since(self.date()?)
        } else if self.eat("from") {
            let from = self.date()?;
            self.expect(
                "to",
                "`from` has an end: `from 2024-01-01 to 2024-01-31`, or use `since`",
            )?;
            let to = self.date()?;
            if from > to {
                let (first, last) = (format_day(to), format_day(from));
                let span = join(start, self.last_span());
                let told = Diagnostic::error("window", span, "the window ends before it starts")
                    .with_hint(format!("write `from {first} to {last}`"));
                self.diagnostics.push(told);
            }
            WindowKind::FromTo(from, to)
        } else if let TokenKind::Duration { count, unit } = *self.kind() {
            let hint = format!("write `in {count}{}`", unit_letter(unit));
            return Err(self.unexpected("a window", &hint));
        } else if let TokenKind::Date(day) = *self.kind() {
            let hint = format!("write `since {}`", format_day(day));
            return Err(self.unexpected("a window", &hint));
        } else {
            return Ok(None);
        };
        Ok(Some(Window { kind, span: join(start, self.last_span()) }))
    }

    fn between(&mut self) -> Parsed<WindowKind> {
        let hint = "`between 30d and 7d ago` is from 30 days ago to 7 days ago";
        let start = self.last_span();
        let far = self.duration("between")?;
        self.expect("and", hint)?;
        let near = self.duration("between")?;
        self.expect("ago", hint)?;
        if far.millis() <= near.millis() {
            let span = join(start, self.last_span());
            let print = |d: Duration| format!("{}{}", d.count, unit_letter(d.unit));
            let told = if far == near {
                Diagnostic::error("window", span, "the window is empty: both ends are the same")
            } else {
                let hint = format!("write `between {} and {} ago`", print(near), print(far));
                Diagnostic::error("window", span, "the longer time ago comes first").with_hint(hint)
            };
            self.diagnostics.push(told);
        }
        Ok(WindowKind::Between(far, near))
    }

    /// A duration after `word`; what resembles one is told and passed over.
    fn duration(&mut self, word: &str) -> Parsed<Duration> {
        let span = self.span();
        let placeholder = Duration { count: 1, unit: DurationUnit::Day, span };
        match self.kind() {
            TokenKind::Duration { count, unit } => {
                let duration = Duration { count: *count, unit: *unit, span };
                if *unit == DurationUnit::Second && word != "within" {
                    let message = "seconds are for `within` alone: windows are exact to the minute";
                    let hint = format!("the shortest window is `{word} 1m`");
                    self.tell(Diagnostic::error("duration", span, message).with_hint(hint));
                }
                self.bump();
                Ok(duration)
            }
            TokenKind::Number(number) => {
                let unit = match self.next_kind() {
                    TokenKind::Name { text, quoted: false } if is_unit_word(text) => {
                        text.to_ascii_lowercase().get(..1).map(str::to_owned)
                    }
                    TokenKind::Keyword("days") => Some("d".to_owned()),
                    _ => None,
                };
                let hint = match &unit {
                    Some(letter) if "smhdw".contains(letter.as_str()) => {
                        format!(
                            "write `{}{letter}`, without white space",
                            shorten(&number.to_string())
                        )
                    }
                    _ => "a duration is a number and its unit, written together: `30d`".into(),
                };
                self.unexpected(A_DURATION, &hint);
                self.bump();
                if unit.is_some() {
                    self.bump();
                }
                Ok(placeholder)
            }
            TokenKind::Date(day) => {
                let hint = match word {
                    "in" => format!("write `since {}`", format_day(*day)),
                    "between" => "two dates make `from 2024-01-01 to 2024-01-31`".to_owned(),
                    _ => String::new(),
                };
                self.unexpected(A_DURATION, &hint);
                self.bump();
                Ok(placeholder)
            }
            _ => Err(self.unexpected(A_DURATION, "")),
        }
    }

    fn date(&mut self) -> Parsed<Day> {
        let hint = match self.kind() {
            TokenKind::Date(day) => {
                let day = *day;
                self.bump();
                return Ok(day);
            }
            TokenKind::Duration { count, unit } => {
                format!("write `in {count}{}`", unit_letter(*unit))
            }
            TokenKind::String(_) => "dates stand without quotes".to_owned(),
            _ => String::new(),
        };
        Err(self.unexpected("a date (`2024-01-31`)", &hint))
    }
}
