//! Text ⇄ tree: the lexer, the parser that never fails, segment files, diagnostics and the printer.
//!
//! Pure, and ignorant of data: what names mean is `plan`'s to check.

pub mod ast;
