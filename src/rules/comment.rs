//! The canonical print of a text with its comments kept.

use crate::rules::ast::Rule;
use crate::rules::diagnostic::Diagnostic;
use crate::rules::diagnostic::has_errors;
use crate::rules::layout::Comments;
use crate::rules::lexer::Comment;
use crate::rules::lexer::lex;
use crate::rules::parser::parse;
use crate::rules::printer::print;
use crate::rules::printer::print_with;
use crate::rules::printer::printed_tokens;
use crate::rules::token::Token;
use crate::rules::token::TokenKind;

/// Prints a rule's text the one canonical way, its comments where they belong.
///
/// `None` where the text has errors, or where its comments could not be placed so that they are read
/// back the same.
pub fn format_rule(text: &str) -> Option<String> {
    let (rule, diagnostics): (Rule, Vec<Diagnostic>) = parse(text);
    if has_errors(&diagnostics) {
        return None;
    }
    let lexed = lex(text);
    let printed = if lexed.comments.is_empty() {
        print(&rule)
    } else {
        let tokens = printed_tokens(&rule);
        let places = align(&lexed.tokens, &tokens)?;
        print_with(&rule, &attach(&lexed.comments, &places, tokens.len()))
    };
    // Nobody's words are to be lost: what is printed must read as what was written.
    let again = lex(&printed);
    let said = |comments: &[Comment]| -> String {
        comments.iter().map(|comment| &*comment.text).collect::<Vec<_>>().join(" ")
    };
    let same = parse(&printed).0 == rule && said(&again.comments) == said(&lexed.comments);
    same.then_some(printed)
}

/// For each token that was written, the first printed one at or after it, and whether it is that one.
/// The two differ by parentheses that group nothing.
fn align(written: &[Token], printed: &[String]) -> Option<Vec<(usize, bool)>> {
    let mut next = 0;
    let mut places = Vec::with_capacity(written.len());
    for token in written {
        let kept = match &token.kind {
            TokenKind::End => false,
            TokenKind::Punctuation(mark @ ('(' | ')')) => {
                printed.get(next).is_some_and(|text| text.starts_with(*mark))
            }
            _ => true,
        };
        places.push((next, kept));
        next += usize::from(kept);
    }
    (next == printed.len()).then_some(places)
}

/// Gives each comment to a printed token: one on a line of its own to the token after it, one at the
/// end of a line to the token before it. The last element has those after all tokens.
fn attach(comments: &[Comment], places: &[(usize, bool)], tokens: usize) -> Vec<Comments> {
    let mut attached = vec![Comments::default(); tokens + 1];
    for comment in comments {
        let following = places.get(comment.before).map_or(tokens, |(place, _)| *place);
        let before = following.checked_sub(1).filter(|_| !comment.own_line);
        match before {
            Some(place)
                if attached[place].trailing.is_none() && attached[following].leading.is_empty() =>
            {
                attached[place].trailing = Some(comment.text.clone());
            }
            _ => attached[following].leading.push(comment.text.clone()),
        }
    }
    attached
}
