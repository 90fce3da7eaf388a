//! What an author is told: where, what, and what to do about it.
//!
//! The parser, the reader of segment files and `plan`'s check all make these; `render` prints them.

use crate::rules::ast::Span;

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Severity {
    /// Good to know; never fails anything.
    Note,
    /// Probably not what was meant; `throng check --strict` fails on it.
    Warning,
    /// The text has no meaning.
    Error,
}

impl Severity {
    /// The word that is printed.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Note => "note",
            Self::Warning => "warning",
            Self::Error => "error",
        }
    }
}

/// Another place that a diagnostic speaks of.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Label {
    /// Where.
    pub span: Span,
    /// What it is, as a fragment.
    pub message: String,
}

/// One thing an author is told about a text.
///
/// Spans are bytes of the text that was parsed: of the rule for [`parse`](crate::rules::parse), of the
/// whole file for [`SegmentFile::parse`](crate::rules::SegmentFile::parse), whose rules carry spans of
/// the file too. Like spans of trees, they do not take part in `==`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Diagnostic {
    /// How bad it is.
    pub severity: Severity,
    /// A short stable word for the kind, for machines: `syntax`, `unknown-segment`.
    pub code: &'static str,
    /// What is the matter, as a fragment that reads alone.
    pub message: String,
    /// Where; `None` of what concerns the text as a whole.
    pub span: Option<Span>,
    /// Other places that matter.
    pub labels: Vec<Label>,
    /// What was expected there, where that can be said in a few words.
    pub expected: Option<String>,
    /// What to do.
    pub hint: Option<String>,
}

impl Diagnostic {
    /// An error at a span, or of the whole text (`None`).
    pub fn error(
        code: &'static str,
        span: impl Into<Option<Span>>,
        message: impl Into<String>,
    ) -> Self {
        Self::new(Severity::Error, code, span.into(), message.into())
    }

    /// A warning at a span, or of the whole text (`None`).
    pub fn warning(
        code: &'static str,
        span: impl Into<Option<Span>>,
        message: impl Into<String>,
    ) -> Self {
        Self::new(Severity::Warning, code, span.into(), message.into())
    }

    /// A note at a span, or of the whole text (`None`).
    pub fn note(
        code: &'static str,
        span: impl Into<Option<Span>>,
        message: impl Into<String>,
    ) -> Self {
        Self::new(Severity::Note, code, span.into(), message.into())
    }

    fn new(severity: Severity, code: &'static str, span: Option<Span>, message: String) -> Self {
        Self { severity, code, message, span, labels: Vec::new(), expected: None, hint: None }
    }

    /// Names another place.
    #[must_use]
    pub fn with_label(mut self, span: Span, message: impl Into<String>) -> Self {
        self.labels.push(Label { span, message: message.into() });
        self
    }

    /// Says what was expected.
    #[must_use]
    pub fn with_expected(mut self, expected: impl Into<String>) -> Self {
        self.expected = Some(expected.into());
        self
    }

    /// Says what to do.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Hints at the candidate that `name` was perhaps meant to be, where one is near.
    #[must_use]
    pub fn with_nearest<'c>(
        mut self,
        name: &str,
        candidates: impl IntoIterator<Item = &'c str>,
    ) -> Self {
        if let Some(near) = nearest(name, candidates) {
            self.hint = Some(format!("did you mean `{near}`?"));
        }
        self
    }

    /// Whether the text has no meaning because of it.
    pub fn is_error(&self) -> bool {
        self.severity == Severity::Error
    }
}

/// Whether any of them is an error.
pub fn has_errors(diagnostics: &[Diagnostic]) -> bool {
    diagnostics.iter().any(Diagnostic::is_error)
}

/// The candidate that a mistyped name was most likely meant to be.
///
/// A name that differs by case alone comes first; otherwise about one slip for each three letters is
/// forgiven, and of equally near ones the first in alphabetical order is taken.
pub fn nearest<'c>(name: &str, candidates: impl IntoIterator<Item = &'c str>) -> Option<&'c str> {
    let folded = name.to_lowercase();
    let length = folded.chars().count();
    let forgiven = (length / 3).max(1);
    candidates
        .into_iter()
        .filter(|candidate| *candidate != name && !candidate.is_empty())
        .filter(|candidate| candidate.chars().count().abs_diff(length) <= forgiven)
        .map(|candidate| (strsim::osa_distance(&folded, &candidate.to_lowercase()), candidate))
        // One letter replaced by another is no resemblance.
        .filter(|(distance, _)| *distance <= forgiven && *distance < length.max(1))
        .min()
        .map(|(_, candidate)| candidate)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_nearest_name_is_found_and_a_far_one_is_not() {
        let events = ["purchase", "product_view", "page_view", "Purchase2"];
        assert_eq!(nearest("purchse", events), Some("purchase"));
        assert_eq!(nearest("PURCHASE", events), Some("purchase"));
        assert_eq!(nearest("page_veiw", events), Some("page_view"));
        assert_eq!(nearest("login", events), None);
        assert_eq!(nearest("x", ["y"]), None);
        assert_eq!(nearest("purchase", ["purchase"]), None);
        assert_eq!(nearest("", events), None);
    }
}
