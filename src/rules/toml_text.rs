//! Texts in TOML strings: where each byte of the text stands in the file, and back into a string.
//!
//! The TOML library decodes strings and keeps no map, so the four kinds are read again here, escapes,
//! line continuations and all; the result is held against the library's.

use crate::rules::ast::Span;

/// Where the bytes of a decoded string stand in its file.
#[derive(Debug)]
pub(crate) struct Places {
    runs: Vec<Run>,
    /// The file's offset just behind the last byte of the content.
    end: u32,
}

/// A stretch of the text that was copied, or one escape.
#[derive(Debug, Clone, Copy)]
struct Run {
    /// The first byte in the text.
    decoded: u32,
    /// The first byte in the file, and how many there are.
    raw: u32,
    raw_length: u32,
    copied: bool,
}

impl Places {
    /// The places of `decoded` in the string that stands at `span` of `file`, delimiters included.
    pub(crate) fn new(file: &str, span: Span, decoded: &str) -> Self {
        let raw = file.get(span.start as usize..span.end as usize).unwrap_or("");
        match decode(raw, span.start) {
            Some((text, places)) if text == decoded => places,
            // Never seen; then all of the text points at the string as a whole.
            _ => {
                let whole = Run {
                    decoded: 0,
                    raw: span.start,
                    raw_length: span.end - span.start,
                    copied: false,
                };
                Self { runs: vec![whole], end: span.end }
            }
        }
    }

    /// Where a span of the text stands in the file.
    pub(crate) fn span(&self, span: Span) -> Span {
        let start = self.start(span.start);
        let end = match span.end.checked_sub(1).filter(|_| span.end > span.start) {
            Some(last) => self.behind(last),
            None => start,
        };
        Span { start, end: end.max(start) }
    }

    fn run(&self, at: u32) -> Option<&Run> {
        let next = self.runs.partition_point(|run| run.decoded <= at);
        self.runs.get(next.checked_sub(1)?)
    }

    fn start(&self, at: u32) -> u32 {
        match self.run(at) {
            Some(run) if run.copied => (run.raw + (at - run.decoded)).min(self.end),
            Some(run) => run.raw,
            None => self.end,
        }
    }

    fn behind(&self, at: u32) -> u32 {
        match self.run(at) {
            Some(run) if run.copied => (run.raw + (at - run.decoded) + 1).min(self.end),
            Some(run) => run.raw + run.raw_length,
            None => self.end,
        }
    }
}

/// Decodes a TOML string with its delimiters, which begins at `offset` of its file.
fn decode(raw: &str, offset: u32) -> Option<(String, Places)> {
    let (quote, multi_line) = ["'''", "\"\"\"", "'", "\""]
        .into_iter()
        .find(|quote| raw.starts_with(quote))
        .map(|quote| (quote, quote.len() == 3))?;
    let mut body = raw.strip_prefix(quote)?.strip_suffix(quote)?;
    let mut at = offset + to_u32(quote.len());
    if multi_line {
        let first = ["\r\n", "\n"].into_iter().find(|newline| body.starts_with(newline));
        let length = first.map_or(0, str::len);
        body = &body[length..];
        at += to_u32(length);
    }
    let escapes = quote.starts_with('"');
    let mut text = String::with_capacity(body.len());
    let mut runs = Vec::new();
    while !body.is_empty() {
        let copied = if escapes { body.find('\\').unwrap_or(body.len()) } else { body.len() };
        let decoded = to_u32(text.len());
        if copied > 0 {
            runs.push(Run { decoded, raw: at, raw_length: to_u32(copied), copied: true });
            text.push_str(&body[..copied]);
        } else {
            let (length, value) = escape(body)?;
            if let Some(value) = value {
                runs.push(Run { decoded, raw: at, raw_length: to_u32(length), copied: false });
                text.push(value);
            }
            at += to_u32(length);
            body = body.get(length..)?;
            continue;
        }
        at += to_u32(copied);
        body = &body[copied..];
    }
    Some((text, Places { runs, end: at }))
}

/// The length of the escape that a text begins with, and the character it stands for; none where a
/// line goes on.
fn escape(text: &str) -> Option<(usize, Option<char>)> {
    let c = text[1..].chars().next()?;
    let hex = |digits: usize| {
        let value = u32::from_str_radix(text.get(2..2 + digits)?, 16).ok()?;
        Some((2 + digits, Some(char::from_u32(value)?)))
    };
    let simple = |value: char| Some((2, Some(value)));
    match c {
        'b' => simple('\u{8}'),
        't' => simple('\t'),
        'n' => simple('\n'),
        'f' => simple('\u{c}'),
        'r' => simple('\r'),
        'e' => simple('\u{1b}'),
        '"' | '\\' => simple(c),
        'x' => hex(2),
        'u' => hex(4),
        'U' => hex(8),
        ' ' | '\t' | '\r' | '\n' => {
            let rest = text[1..].trim_start_matches([' ', '\t', '\r', '\n']);
            Some((text.len() - rest.len(), None))
        }
        _ => None,
    }
}

fn to_u32(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX)
}

/// How a text is written as a TOML string.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    /// On lines of its own, between `'''`.
    Block,
    /// On one line between `'`, where it can be.
    Line,
}

/// Writes a text as a TOML string: between `'`, without escapes, unless it holds what cannot stand
/// there. A block ends with a line break that the text does not have.
pub(crate) fn write_string(text: &str, form: Form, newline: &str) -> String {
    let is_plain = |c: char| c == '\t' || c == '\n' || !c.is_ascii_control();
    let plain = text.chars().all(is_plain);
    if form == Form::Line && plain && !text.contains(['\'', '\n']) {
        return format!("'{text}'");
    }
    let (quote, body) = if plain && !text.contains("'''") {
        ("'''", text.to_owned())
    } else {
        ("\"\"\"", escaped(text))
    };
    let body = body.replace('\n', newline);
    format!("{quote}{newline}{body}{newline}{quote}")
}

fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        match c {
            '\\' => out.push_str("\\\\"),
            '"' if out.ends_with("\"\"") => out.push_str("\\\""),
            '\t' | '\n' => out.push(c),
            c if c.is_ascii_control() => out.push_str(&format!("\\u{:04X}", u32::from(c))),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use toml::de::DeTable;

    /// What the TOML library makes of `k = <raw>`, and where it says that the string stands.
    fn library(file: &str) -> (String, Span) {
        let table = DeTable::parse(file).unwrap();
        let value = &table.get_ref()["k"];
        let span = Span { start: to_u32(value.span().start), end: to_u32(value.span().end) };
        (value.get_ref().as_str().unwrap().to_owned(), span)
    }

    #[test]
    fn every_byte_of_every_kind_of_string_is_found_in_the_file() {
        for (raw, decoded) in [
            ("'did a'", "did a"),
            ("'x\\n'", "x\\n"),
            ("''", ""),
            (r#""a \"b\" \\ \t \u00e9 \U0001F600 \x41 \e c""#, "a \"b\" \\ \t é 😀 A \u{1b} c"),
            ("'''\ndid a\n  and did b\n'''", "did a\n  and did b\n"),
            ("'''did 'a' ''b'' '''", "did 'a' ''b'' "),
            ("'''\r\ndid a\r\n  and b'''", "did a\r\n  and b"),
            ("\"\"\"\ndid \\\n   a \\\r\n\r\n \t b\\\\\n\"\"\"", "did a b\\\n"),
            ("\"\"\"a \"quoted\" b\"\"\"", "a \"quoted\" b"),
            ("\"\"\"\"a\" b\"\"\"\"", "\"a\" b\""),
            ("\"\"\"\\   \n  a\\u0022\\u0022\"\"\"", "a\"\""),
            ("\"é\\u00e9é\"", "ééé"),
        ] {
            let file = format!("# é\nk = {raw} # end\n");
            let (value, span) = library(&file);
            assert_eq!(value, decoded, "{raw}");
            assert_eq!(&file[span.start as usize..span.end as usize], raw);
            let places = Places::new(&file, span, &value);
            for (at, c) in value.char_indices() {
                let of = Span { start: to_u32(at), end: to_u32(at + c.len_utf8()) };
                let found = places.span(of);
                let there = &file[found.start as usize..found.end as usize];
                let is_escape = there.starts_with('\\') && there.len() > 1;
                assert!(there == c.to_string() || is_escape, "{raw}: {c:?} at {there:?}");
                if is_escape {
                    assert_eq!(library(&format!("k = \"{there}\"")).0, c.to_string());
                }
            }
        }
    }

    #[test]
    fn a_span_over_an_escape_holds_all_of_it() {
        let file = r#"k = "did a\u0020b""#;
        let (value, span) = library(file);
        let places = Places::new(file, span, &value);
        let found = places.span(Span { start: 4, end: 7 });
        assert_eq!(&file[found.start as usize..found.end as usize], "a\\u0020b");
        let end = places.span(Span { start: 7, end: 7 });
        assert_eq!((end.start, end.end), (to_u32(file.len()) - 1, to_u32(file.len()) - 1));
    }

    proptest! {
        #[test]
        fn any_text_is_written_so_that_toml_reads_it(text in any::<String>(), line in any::<bool>()) {
            // No rule's print has a carriage return in it.
            let text = text.replace('\r', "");
            for newline in ["\n", "\r\n"] {
                let form = if line { Form::Line } else { Form::Block };
                let written = write_string(&text, form, newline);
                let (read, _) = library(&format!("k = {written}{newline}"));
                let read = read.replace("\r\n", "\n");
                let block = format!("{text}\n");
                prop_assert!(read == text || read == block, "{}", written);
            }
        }
    }
}
