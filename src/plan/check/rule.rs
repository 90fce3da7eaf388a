//! One rule, part by part: are its names known, its windows within reach, its expressions sound?

use super::Context;
use crate::model::Namespace;
use crate::model::time::DAY;
use crate::model::time::Millis;
use crate::model::time::day_start;
use crate::model::time::format_day;
use crate::model::time::minute_start;
use crate::plan::library::Library;
use crate::plan::library::each_part;
use crate::plan::property::BUILT_INS;
use crate::plan::property::BuiltIn;
use crate::plan::test::BadTest;
use crate::plan::test::compile_regex;
use crate::rules::Body;
use crate::rules::Diagnostic;
use crate::rules::Rule;
use crate::rules::ast::Filter;
use crate::rules::ast::FilterKind;
use crate::rules::ast::MeasureKind;
use crate::rules::ast::Name;
use crate::rules::ast::Property;
use crate::rules::ast::RuleKind;
use crate::rules::ast::Selector;
use crate::rules::ast::Test;
use crate::rules::ast::TestKind;
use crate::rules::ast::Window;
use crate::rules::ast::WindowKind;

pub(super) struct Checker<'a> {
    pub(super) library: &'a Library,
    pub(super) context: &'a Context<'a>,
}

impl Checker<'_> {
    pub(super) fn rule(&self, rule: &Rule, out: &mut Vec<Diagnostic>) {
        each_part(rule, &mut |part| self.part(part, out));
    }

    fn part(&self, rule: &Rule, out: &mut Vec<Diagnostic>) {
        match &rule.kind {
            RuleKind::Segment(name) => self.segment(name, out),
            RuleKind::Has(name) => self.namespace(name, out),
            RuleKind::Attribute { name, test } => {
                self.attribute(name, out);
                self.test(test, out);
            }
            RuleKind::Did { selector, window } => {
                self.selector(selector, out);
                self.window(window.as_ref(), out);
            }
            RuleKind::Sequence { first, then, window, .. } => {
                self.selector(first, out);
                self.selector(then, out);
                self.window(window.as_ref(), out);
            }
            RuleKind::Measure { measure, selector, window, .. } => {
                self.selector(selector, out);
                if let MeasureKind::Sum(property)
                | MeasureKind::Min(property)
                | MeasureKind::Max(property)
                | MeasureKind::Avg(property) = measure
                {
                    self.property(&selector.event, property, out);
                }
                self.window(window.as_ref(), out);
            }
            RuleKind::First { selector, window } => {
                self.selector(selector, out);
                self.window(Some(window), out);
            }
            RuleKind::LastAfter { selector, after } => {
                self.selector(selector, out);
                self.selector(after, out);
            }
            RuleKind::And(_) | RuleKind::Or(_) | RuleKind::Not(_) => {}
            RuleKind::Everyone | RuleKind::Error => {}
        }
    }

    /// A reference to a segment, which must be a rule.
    pub(super) fn segment(&self, name: &Name, out: &mut Vec<Diagnostic>) {
        match self.library.body(&name.text) {
            None => {
                let message = format!("there is no segment `{}`", name.text);
                let told = Diagnostic::error("unknown-segment", name.span, message);
                out.push(told.with_nearest(&name.text, self.library.ids()));
            }
            Some(Body::Lookalike(_)) => {
                let message = format!(
                    "`{}` is a look-alike segment, which no rule or seed can ask yet",
                    name.text
                );
                let told = Diagnostic::error("look-alike", name.span, message);
                out.push(
                    told.with_hint("a look-alike is an audience: push it, or export its members"),
                );
            }
            Some(_) => {}
        }
    }

    fn namespace(&self, name: &Name, out: &mut Vec<Diagnostic>) {
        let namespace = Namespace::new(&name.text);
        let is_seen = |namespace| self.context.seen.is_some_and(|seen| seen.contains(namespace));
        if self.context.namespaces.knows(&name.text) || namespace.as_ref().is_ok_and(is_seen) {
            return;
        }
        let message = format!("no identifier has the namespace `{}`", name.text);
        let told = match (&namespace, self.context.seen) {
            (Ok(_), None) => Diagnostic::warning(
                "unknown-namespace",
                name.span,
                format!("the namespace `{}` is neither listed nor configured", name.text),
            ),
            _ => Diagnostic::error("unknown-namespace", name.span, message),
        };
        let seen = self.context.seen.into_iter().flatten().map(Namespace::as_str);
        let told = told.with_nearest(&name.text, self.context.namespaces.known().chain(seen));
        let has_hint = told.hint.is_some();
        out.push(match namespace {
            _ if has_hint => told,
            Ok(_) => told.with_hint("list it under `[identity] namespaces` if it is still to come"),
            Err(error) => told.with_hint(error.to_string()),
        });
    }

    fn selector(&self, selector: &Selector, out: &mut Vec<Diagnostic>) {
        let event = &selector.event;
        if let Some(schema) = self.context.schema
            && !schema.knows_event(&event.text)
        {
            let message = format!("no site has ever sent the event `{}`", event.text);
            let told = Diagnostic::warning("unknown-event", event.span, message);
            out.push(told.with_nearest(&event.text, schema.events()));
        }
        if let Some(filter) = &selector.filter {
            self.filter(event, filter, out);
        }
    }

    fn filter(&self, event: &Name, filter: &Filter, out: &mut Vec<Diagnostic>) {
        match &filter.kind {
            FilterKind::And(parts) | FilterKind::Or(parts) => {
                parts.iter().for_each(|part| self.filter(event, part, out));
            }
            FilterKind::Not(part) => self.filter(event, part, out),
            FilterKind::Test(property, test) => {
                self.property(event, property, out);
                self.test(test, out);
            }
            FilterKind::Error => {}
        }
    }

    fn property(&self, event: &Name, property: &Property, out: &mut Vec<Diagnostic>) {
        let Some(schema) = self.context.schema.filter(|s| s.knows_event(&event.text)) else {
            return;
        };
        let path = property.path.join(".");
        if BuiltIn::named(&path).is_some() {
            // Only what was surely sent hides anything.
            if schema.properties(&event.text).contains(&&*path) {
                let message = format!(
                    "`{path}` is always on an event, and hides the property of that name that `{}` is sent with",
                    event.text
                );
                let told = Diagnostic::note("hidden", property.span, message);
                out.push(told.with_hint("send the property under another name to ask it"));
            }
            return;
        }
        if !schema.knows_property(&event.text, &path) {
            let message = format!(
                "no site has ever sent the property `{path}` on the event `{}`",
                event.text
            );
            let told = Diagnostic::warning("unknown-property", property.span, message);
            let known = schema.properties(&event.text).into_iter();
            let built_in = BUILT_INS.iter().map(|(name, _)| *name);
            out.push(told.with_nearest(&path, known.chain(built_in)));
        }
    }

    fn attribute(&self, name: &Name, out: &mut Vec<Diagnostic>) {
        if let Some(schema) = self.context.schema
            && !schema.knows_attribute(&name.text)
        {
            let message = format!("no site has ever sent the attribute `{}`", name.text);
            let told = Diagnostic::warning("unknown-attribute", name.span, message);
            out.push(told.with_nearest(&name.text, schema.attributes()));
        }
    }

    fn test(&self, test: &Test, out: &mut Vec<Diagnostic>) {
        if let TestKind::Matches(pattern) = &test.kind
            && let Err(BadTest::Regex(error)) = compile_regex(pattern)
        {
            // The library draws the place over several lines; its last one says what is wrong.
            let reason = error.rsplit("error: ").next().unwrap_or(&error).trim().to_owned();
            let message = format!("bad regular expression: {reason}");
            let told = Diagnostic::error("regex", test.span, message);
            out.push(told.with_hint(
                "the syntax is that of Rust's `regex` crate, without look-around and back-references, at most 1 MiB compiled",
            ));
        }
    }

    fn window(&self, window: Option<&Window>, out: &mut Vec<Diagnostic>) {
        let Some(window) = window else { return };
        let retention = self.context.retention;
        let from = match &window.kind {
            WindowKind::In(length) | WindowKind::Between(length, _) => {
                if length.millis() > retention {
                    let message = format!(
                        "the window reaches further back than events are kept, which is {}",
                        length_text(retention)
                    );
                    let told = Diagnostic::error("window", window.span, message);
                    out.push(
                        told.with_hint("shorten the window, or raise `retention` under `[events]`"),
                    );
                }
                return;
            }
            WindowKind::Since(day) | WindowKind::FromTo(day, _) => *day,
        };
        if let Some(now) = self.context.now {
            let edge = minute_start(now.saturating_sub(retention));
            if day_start(from) < edge {
                let message = format!(
                    "events of {} are not kept any more; the window takes those since {}",
                    format_day(from),
                    crate::model::time::format_rfc3339(edge)
                );
                out.push(Diagnostic::warning("window", window.span, message));
            }
        }
    }
}

/// A length of time in the largest unit that it is a whole number of.
fn length_text(length: Millis) -> String {
    use crate::model::time::HOUR;
    use crate::model::time::MINUTE;
    for (unit, letter) in [(DAY, 'd'), (HOUR, 'h'), (MINUTE, 'm')] {
        if length % unit == 0 {
            return format!("{}{letter}", length / unit);
        }
    }
    format!("{} ms", length)
}
