//! Text ⇄ tree: the lexer, the parser that never fails, segment files, diagnostics and the printer.
//!
//! ```text
//!               toml_text            lexer        parser
//! segment file ───────────► rule ───────────► tokens ───► tree ──► plan
//!      ▲                     ▲                  │ comments  │
//!      └──── format ─────────┴──── comment ◄────┴── printer ┘   (layout breaks lines)
//! ```
//!
//! Pure, and ignorant of data: what names mean is `plan`'s to check.

pub mod ast;
pub mod diagnostic;
pub mod segment_file;

mod comment;
mod layout;
mod lexer;
mod parser;
mod printer;
mod token;

pub use ast::Rule;
pub use ast::Span;
pub use comment::format_rule;
pub use diagnostic::Diagnostic;
pub use diagnostic::Label;
pub use diagnostic::Severity;
pub use diagnostic::has_errors;
pub use diagnostic::nearest;
pub use parser::MAX_DEPTH;
pub use parser::MAX_LENGTH;
pub use parser::parse;
pub use printer::WIDTH;
pub use printer::print;
pub use printer::print_inline;
pub use printer::print_name;
pub use printer::print_string;
pub use segment_file::Activate;
pub use segment_file::Body;
pub use segment_file::Level;
pub use segment_file::Lookalike;
pub use segment_file::Reach;
pub use segment_file::SegmentFile;

#[cfg(test)]
mod tests;

impl SegmentFile {
    /// Reads a segment file, whose stem is `id`. Never fails: the diagnostics have all that is wrong
    /// with it, and where one is an error the segment is not to be used.
    pub fn parse(id: &str, text: &str) -> (Self, Vec<Diagnostic>) {
        let (rule, diagnostics) = parse(text);
        let file = Self {
            id: id.into(),
            name: id.into(),
            description: String::new(),
            owner: String::new(),
            body: Body::Rule(rule),
            level: Level::default(),
            min_size: None,
            taxonomy: std::collections::BTreeMap::new(),
            tags: Vec::new(),
            activate: Vec::new(),
        };
        (file, diagnostics)
    }
}
