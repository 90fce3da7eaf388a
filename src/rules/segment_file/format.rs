//! A segment file with its rules printed the canonical way, and not one other byte changed.

use toml::de::DeTable;
use toml::de::DeValue;

use crate::rules::ast::Span;
use crate::rules::comment::format_rule;
use crate::rules::diagnostic::Diagnostic;
use crate::rules::diagnostic::has_errors;
use crate::rules::segment_file::read::read;
use crate::rules::toml_text::Form;
use crate::rules::toml_text::write_string;

/// Prints the rules of a segment file; see `SegmentFile::format`.
pub(super) fn format(id: &str, text: &str) -> (String, Vec<Diagnostic>) {
    let mut diagnostics = read(id, text).diagnostics;
    if has_errors(&diagnostics) {
        return (text.to_owned(), diagnostics);
    }
    let Ok(table) = DeTable::parse(text) else { return (text.to_owned(), diagnostics) };
    let table = table.get_ref();
    let lookalike = table.get("lookalike").and_then(|value| value.get_ref().as_table());
    let within = lookalike.and_then(|lookalike| lookalike.get("within"));
    let newline = match text.find('\n') {
        Some(at) if text[..at].ends_with('\r') => "\r\n",
        _ => "\n",
    };
    let mut replaced = Vec::new();
    for (value, form) in [(table.get("rule"), Form::Block), (within, Form::Line)] {
        let Some(value) = value else { continue };
        let DeValue::String(rule) = value.get_ref() else { continue };
        match format_rule(rule) {
            Some(rule) => replaced.push((value.span(), write_string(&rule, form, newline))),
            None => {
                let offset = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
                let span =
                    Span { start: offset(value.span().start), end: offset(value.span().end) };
                let message = "this rule is left as it is: its comments could not be placed";
                let told = Diagnostic::warning("format", span, message)
                    .with_hint("put each comment on a line of its own, before an `and` or an `or`");
                diagnostics.push(told);
            }
        }
    }
    replaced.sort_by_key(|(span, _)| span.start);
    let mut out = String::with_capacity(text.len());
    let mut copied = 0;
    for (span, rule) in replaced {
        out.push_str(&text[copied..span.start]);
        out.push_str(&rule);
        copied = span.end;
    }
    out.push_str(&text[copied..]);
    (out, diagnostics)
}
