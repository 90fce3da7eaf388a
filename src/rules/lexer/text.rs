//! What stands between marks: strings with their escapes, and names between backquotes.

use super::Lexer;
use crate::rules::token::TokenKind;
use crate::rules::token::shorten;

impl Lexer<'_> {
    pub(super) fn quoted_name(&mut self) {
        let start = self.at;
        self.at += 1;
        let length = self.run(|c| c != '`' && c != '\n' && c != '\r');
        let text: Box<str> = self.rest()[..length].into();
        self.at += length;
        if self.peek() == Some('`') {
            self.at += 1;
            if text.is_empty() {
                self.tell("name", start, "a name has at least one character", "");
            }
        } else {
            let hint = "close it with a backquote on the same line";
            self.tell("name", start, "this name is not closed", hint);
        }
        self.push(start, TokenKind::Name { text, quoted: true });
    }

    pub(super) fn string(&mut self) {
        let start = self.at;
        self.at += 1;
        let mut value = String::new();
        loop {
            let Some(c) = self.peek().filter(|c| !matches!(c, '\n' | '\r')) else {
                let hint =
                    "close it with `\"` on the same line; a line break in it is written `\\n`";
                self.tell("string", start, "this string is not closed", hint);
                break;
            };
            match c {
                '"' => {
                    self.at += 1;
                    break;
                }
                '\\' => self.escape(&mut value),
                c => {
                    self.at += c.len_utf8();
                    value.push(c);
                }
            }
        }
        self.push(start, TokenKind::String(value.into()));
    }

    fn escape(&mut self, value: &mut String) {
        let start = self.at;
        self.at += 1;
        let Some(c) = self.peek().filter(|c| !matches!(c, '\n' | '\r')) else { return };
        self.at += c.len_utf8();
        match c {
            '"' | '\\' => value.push(c),
            'n' => value.push('\n'),
            't' => value.push('\t'),
            'u' => self.unicode_escape(start, value),
            c => {
                let hint = match c {
                    '\'' | '`' | '/' | '[' | ']' => format!("write `{c}` alone"),
                    c => format!("write a backslash as `\\\\`: `\\\\{}`", shorten(&c.to_string())),
                };
                let shown = shorten(&c.to_string());
                let message = format!(
                    "`\\{shown}` is no escape; those are `\\\"`, `\\\\`, `\\n`, `\\t` and `\\u{{…}}`"
                );
                self.tell("string", start, message, &hint);
                value.push(c);
            }
        }
    }

    fn unicode_escape(&mut self, start: usize, value: &mut String) {
        let digits = match self.rest().strip_prefix('{') {
            Some(rest) => rest.find(|c: char| !c.is_ascii_hexdigit()).unwrap_or(rest.len()),
            None => 0,
        };
        if digits == 0 || !self.rest()[1 + digits..].starts_with('}') {
            let hint = "`\\u{e9}` is `é`: 1 to 6 hexadecimal digits between braces";
            return self.tell("string", start, "this `\\u` escape is not whole", hint);
        }
        let hex = self.rest()[1..=digits].to_owned();
        self.at += digits + 2;
        match u32::from_str_radix(&hex, 16).ok().filter(|_| digits <= 6).and_then(char::from_u32) {
            Some(c) => value.push(c),
            None => {
                let message = "this is no character of Unicode";
                self.tell("string", start, message, "1 to 6 hexadecimal digits, at most 10ffff");
            }
        }
    }

    pub(super) fn foreign_quotes(&mut self, open: char, close: char) {
        let start = self.at;
        self.at += open.len_utf8();
        let is_end = |c: char| match close {
            '\'' => c == '\'',
            '’' => matches!(c, '’' | '‘'),
            _ => matches!(c, '”' | '“' | '»' | '«' | '"'),
        };
        let line = self.run(|c| c != '\n' && c != '\r');
        let Some(length) = self.rest()[..line].find(is_end) else {
            let message = format!("`{open}` has no meaning here");
            self.tell("syntax", start, message, "strings stand between double quotes");
            return self.push(start, TokenKind::Invalid);
        };
        let text: Box<str> = self.rest()[..length].into();
        self.at += length;
        self.at += self.peek().map_or(0, char::len_utf8);
        let hint = format!("write \"{}\"", shorten(&text));
        self.tell("string", start, "strings stand between double quotes", &hint);
        self.push(start, TokenKind::String(text));
    }
}
