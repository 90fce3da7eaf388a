//! Parts joined by `and` or `or`: the same for rules and for filters.

use crate::rules::ast::Filter;
use crate::rules::ast::FilterKind;
use crate::rules::ast::Rule;
use crate::rules::ast::RuleKind;
use crate::rules::ast::Span;
use crate::rules::token::join;

/// The word between parts.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Word {
    And,
    Or,
}

/// What can be a part, and a group of parts.
pub(super) trait Part: Sized {
    fn span(&self) -> Span;

    /// A group of parts.
    fn group(parts: Vec<Self>, word: Word, span: Span) -> Self;

    /// Puts its parts in a list where it is a group by that word, and else itself.
    fn unfold(self, word: Word, into: &mut Vec<Self>);
}

/// One part as it is, more in a group, which takes in groups by its own word.
pub(super) fn combine<T: Part>(mut parts: Vec<T>, word: Word) -> T {
    let span = match (parts.first(), parts.last()) {
        (Some(first), Some(last)) => join(first.span(), last.span()),
        _ => Span::default(),
    };
    if parts.len() == 1
        && let Some(only) = parts.pop()
    {
        return only;
    }
    let mut flat = Vec::with_capacity(parts.len());
    for part in parts {
        part.unfold(word, &mut flat);
    }
    T::group(flat, word, span)
}

macro_rules! part {
    ($type:ident, $kind:ident) => {
        impl Part for $type {
            fn span(&self) -> Span {
                self.span
            }

            fn group(parts: Vec<Self>, word: Word, span: Span) -> Self {
                let kind = match word {
                    Word::And => $kind::And(parts),
                    Word::Or => $kind::Or(parts),
                };
                Self { kind, span }
            }

            fn unfold(self, word: Word, into: &mut Vec<Self>) {
                match self.kind {
                    $kind::And(inner) if word == Word::And => into.extend(inner),
                    $kind::Or(inner) if word == Word::Or => into.extend(inner),
                    _ => into.push(self),
                }
            }
        }
    };
}
part!(Rule, RuleKind);
part!(Filter, FilterKind);
