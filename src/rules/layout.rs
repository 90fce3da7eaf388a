//! Where lines break: a document of tokens and possible breaks, and the writer that lays it out.
//!
//! A group stands on one line where it fits, else all its own breaks are taken. Comments ride on
//! tokens: those before it have lines of their own, one after it ends its line.

/// A token's comments.
#[derive(Debug, Default, Clone)]
pub(crate) struct Comments {
    pub(crate) leading: Vec<Box<str>>,
    pub(crate) trailing: Option<Box<str>>,
}

/// A document. Tokens are numbered in the order in which they are written.
#[derive(Debug)]
pub(crate) enum Doc {
    Token(usize),
    /// A space that never breaks.
    Blank,
    /// A space, or a break.
    Line,
    /// Nothing, or a break.
    Soft,
    /// A space where the next item still fits, else a break.
    Fill,
    Nest(usize, Vec<Doc>),
    Group(Vec<Doc>),
}

/// Tokens, their comments (none, or some for each token and one more for the end), and the width.
pub(crate) struct Layout<'d> {
    pub(crate) tokens: &'d [String],
    pub(crate) comments: &'d [Comments],
    pub(crate) width: usize,
}

#[derive(Clone, Copy)]
struct Item<'d> {
    indent: usize,
    flat: bool,
    doc: &'d Doc,
}

struct Writer {
    out: String,
    /// Characters on the current line.
    column: usize,
    /// Whether the current line holds more than its indentation.
    started: bool,
    /// Whether a comment stands at the end of the current line, so that it must break.
    ended: bool,
}

impl Writer {
    fn newline(&mut self, indent: usize) {
        let kept = self.out.trim_end_matches(' ').len();
        self.out.truncate(kept);
        if !self.out.is_empty() {
            self.out.push('\n');
        }
        self.out.extend(std::iter::repeat_n(' ', indent));
        self.column = indent;
        self.started = false;
        self.ended = false;
    }

    fn space(&mut self) {
        if self.started && !self.ended {
            self.out.push(' ');
            self.column += 1;
        }
    }

    fn text(&mut self, text: &str, indent: usize) {
        if self.ended {
            self.newline(indent);
        }
        self.out.push_str(text);
        self.column += text.chars().count();
        self.started = true;
    }
}

impl<'d> Layout<'d> {
    /// Lays a document out. Lines have no space at their end.
    pub(crate) fn write(&self, docs: &'d [Doc]) -> String {
        let mut writer = Writer { out: String::new(), column: 0, started: false, ended: false };
        let mut stack: Vec<Item<'d>> =
            docs.iter().rev().map(|doc| Item { indent: 0, flat: false, doc }).collect();
        while let Some(Item { indent, flat, doc }) = stack.pop() {
            match doc {
                Doc::Token(number) => self.token(*number, indent, &mut writer),
                Doc::Blank => writer.space(),
                Doc::Line if flat => writer.space(),
                Doc::Soft if flat => {}
                Doc::Fill if flat => writer.space(),
                Doc::Line | Doc::Soft => writer.newline(indent),
                Doc::Fill => {
                    if self.fits(writer.column + 1, &[], &stack) {
                        writer.space();
                    } else {
                        writer.newline(indent);
                    }
                }
                Doc::Nest(more, inner) => {
                    let indent = indent + more;
                    stack.extend(inner.iter().rev().map(|doc| Item { indent, flat, doc }));
                }
                Doc::Group(inner) => {
                    let flat = flat || self.fits(writer.column, inner, &stack);
                    stack.extend(inner.iter().rev().map(|doc| Item { indent, flat, doc }));
                }
            }
        }
        if let Some(last) = self.comments.get(self.tokens.len()) {
            for comment in &last.leading {
                writer.newline(0);
                writer.text(comment, 0);
            }
        }
        writer.out
    }

    fn token(&self, number: usize, indent: usize, writer: &mut Writer) {
        let comments = self.comments.get(number);
        for comment in comments.iter().flat_map(|c| &c.leading) {
            if writer.started {
                writer.newline(indent);
            }
            writer.text(comment, indent);
            writer.ended = true;
        }
        writer.text(&self.tokens[number], indent);
        if let Some(comment) = comments.and_then(|c| c.trailing.as_ref()) {
            writer.out.push_str("  ");
            writer.out.push_str(comment);
            writer.ended = true;
        }
    }

    /// Whether a group fits on the line, with what follows it up to the next break.
    fn fits(&self, column: usize, group: &'d [Doc], rest: &[Item<'d>]) -> bool {
        let mut column = column;
        let mut work: Vec<(bool, &'d Doc)> = group.iter().rev().map(|doc| (true, doc)).collect();
        let mut inside = !group.is_empty();
        let mut rest = rest.iter().rev();
        let mut first = true;
        let mut ended = false;
        loop {
            let (flat, doc) = match work.pop() {
                Some(next) => next,
                None => {
                    inside = false;
                    match rest.next() {
                        Some(item) if !ended => (item.flat, item.doc),
                        _ => return true,
                    }
                }
            };
            match doc {
                Doc::Token(number) => {
                    let comments = self.comments.get(*number);
                    let leading = comments.is_some_and(|c| !c.leading.is_empty());
                    if leading && !first {
                        return !inside;
                    }
                    if ended {
                        return false;
                    }
                    first = false;
                    column += self.tokens[*number].chars().count();
                    if column > self.width {
                        return false;
                    }
                    ended = comments.is_some_and(|c| c.trailing.is_some());
                    if ended && !inside {
                        return true;
                    }
                }
                Doc::Blank => column += 1,
                Doc::Line | Doc::Fill if flat => column += 1,
                Doc::Soft if flat => {}
                Doc::Line | Doc::Soft | Doc::Fill => return true,
                Doc::Nest(_, inner) => work.extend(inner.iter().rev().map(|doc| (flat, doc))),
                // What follows may still break, where the group itself may not.
                Doc::Group(inner) => {
                    let flat = inside || flat;
                    work.extend(inner.iter().rev().map(|doc| (flat, doc)));
                }
            }
        }
    }
}
