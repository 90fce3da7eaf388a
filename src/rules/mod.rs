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
pub mod taxonomy;

mod comment;
mod layout;
mod lexer;
mod parser;
mod printer;
mod render;
mod set;
mod token;
mod toml_text;

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
pub use render::JsonDiagnostic;
pub use render::JsonLabel;
pub use render::JsonPlace;
pub use render::render;
pub use render::render_coloured;
pub use render::to_json;
pub use segment_file::Activate;
pub use segment_file::Body;
pub use segment_file::Level;
pub use segment_file::Lookalike;
pub use segment_file::MAX_FILE;
pub use segment_file::MAX_ID;
pub use segment_file::Reach;
pub use segment_file::SegmentFile;
pub use set::ParsedFile;
pub use set::parse_files;

#[cfg(test)]
mod tests;
