//! Diagnostics for people, with the line and a caret, and for machines.

use codespan_reporting::diagnostic as codespan;
use codespan_reporting::files::SimpleFile;
use codespan_reporting::term;
use codespan_reporting::term::termcolor::Ansi;

use crate::rules::ast::Span;
use crate::rules::diagnostic::Diagnostic;
use crate::rules::diagnostic::Severity;

/// Prints diagnostics of one text as plain text: for each the message, the place, the line with a caret,
/// and what to do.
pub fn render(file_name: &str, source: &str, diagnostics: &[Diagnostic]) -> String {
    emit(file_name, source, diagnostics, false)
}

/// Like [`render`], with the colours of a terminal.
pub fn render_coloured(file_name: &str, source: &str, diagnostics: &[Diagnostic]) -> String {
    emit(file_name, source, diagnostics, true)
}

fn emit(file_name: &str, source: &str, diagnostics: &[Diagnostic], coloured: bool) -> String {
    let source = visible(source);
    let file = SimpleFile::new(file_name, source.as_str());
    let config = term::Config::default();
    let mut out = Vec::new();
    for diagnostic in diagnostics {
        let shown = to_codespan(file_name, &source, diagnostic);
        let emitted = if coloured {
            let mut writer = Ansi::new(&mut out);
            let styles = term::Styles::default();
            let mut writer = term::StylesWriter::new(&mut writer, &styles);
            term::emit_to_write_style(&mut writer, &config, &file, &shown)
        } else {
            term::emit_to_io_write(&mut out, &config, &file, &shown)
        };
        // Spans are clamped to the text, so that only writing could fail, and memory takes it.
        emitted.expect("a diagnostic within its text is written to memory");
    }
    let text = String::from_utf8_lossy(&out);
    // A line that shows nothing but its frame ends with white space.
    text.lines().map(|line| format!("{}\n", line.trim_end())).collect()
}

/// The text with control characters replaced one for one, so that no offset moves and no terminal obeys.
fn visible(source: &str) -> String {
    source
        .chars()
        .map(|c| match c {
            '\n' | '\t' | '\r' => c,
            c if c.is_control() && c.len_utf8() == 1 => '?',
            c if c.is_control() => '·',
            c => c,
        })
        .collect()
}

fn to_codespan(file_name: &str, source: &str, diagnostic: &Diagnostic) -> codespan::Diagnostic<()> {
    let severity = match diagnostic.severity {
        Severity::Error => codespan::Severity::Error,
        Severity::Warning => codespan::Severity::Warning,
        Severity::Note => codespan::Severity::Note,
    };
    let range = |span: Span| {
        let start = boundary(source, span.start as usize);
        start..boundary(source, span.end as usize).max(start)
    };
    let mut labels = Vec::new();
    let mut notes = Vec::new();
    match diagnostic.span {
        Some(span) => labels.push(codespan::Label::primary((), range(span))),
        None => notes.push(format!("in {file_name}")),
    }
    for label in &diagnostic.labels {
        let secondary = codespan::Label::secondary((), range(label.span));
        labels.push(secondary.with_message(&label.message));
    }
    if let Some(expected) = &diagnostic.expected
        && !diagnostic.message.contains(expected.as_str())
    {
        notes.push(format!("expected {expected}"));
    }
    if let Some(hint) = &diagnostic.hint {
        notes.push(format!("hint: {hint}"));
    }
    codespan::Diagnostic::new(severity)
        .with_code(diagnostic.code)
        .with_message(&diagnostic.message)
        .with_labels(labels)
        .with_notes(notes)
}

/// The character boundary at or before an offset.
fn boundary(source: &str, at: usize) -> usize {
    let mut at = at.min(source.len());
    while !source.is_char_boundary(at) {
        at -= 1;
    }
    at
}

/// A diagnostic for machines.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct JsonDiagnostic {
    /// The file's name, as it was given.
    pub file: String,
    /// Where it begins; its keys are absent of what concerns the file as a whole.
    #[serde(flatten)]
    pub start: Option<JsonPlace>,
    /// The place just behind it.
    pub end: Option<JsonPlace>,
    /// `error`, `warning` or `note`.
    pub severity: Severity,
    /// A short stable word for the kind.
    pub code: &'static str,
    /// What is the matter.
    pub message: String,
    /// What was expected.
    pub expected: Option<String>,
    /// What to do.
    pub hint: Option<String>,
    /// Other places that matter.
    pub labels: Vec<JsonLabel>,
}

/// A place in a text, both counted from 1; columns are characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize)]
pub struct JsonPlace {
    /// The line.
    pub line: usize,
    /// The character in the line.
    pub column: usize,
}

/// Another place, for machines.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize)]
pub struct JsonLabel {
    /// Where it begins.
    #[serde(flatten)]
    pub start: JsonPlace,
    /// The place just behind it.
    pub end: JsonPlace,
    /// What it is.
    pub message: String,
}

/// Diagnostics of one text for machines.
pub fn to_json(file_name: &str, source: &str, diagnostics: &[Diagnostic]) -> Vec<JsonDiagnostic> {
    diagnostics
        .iter()
        .map(|diagnostic| JsonDiagnostic {
            file: file_name.to_owned(),
            start: diagnostic.span.map(|span| place(source, span.start)),
            end: diagnostic.span.map(|span| place(source, span.end)),
            severity: diagnostic.severity,
            code: diagnostic.code,
            message: diagnostic.message.clone(),
            expected: diagnostic.expected.clone(),
            hint: diagnostic.hint.clone(),
            labels: diagnostic
                .labels
                .iter()
                .map(|label| JsonLabel {
                    start: place(source, label.span.start),
                    end: place(source, label.span.end),
                    message: label.message.clone(),
                })
                .collect(),
        })
        .collect()
}

fn place(source: &str, at: u32) -> JsonPlace {
    let before = &source[..boundary(source, at as usize)];
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    JsonPlace {
        line: before.bytes().filter(|b| *b == b'\n').count() + 1,
        column: before[line_start..].chars().count() + 1,
    }
}
