//! Reads the JSON that `Value::write_json` writes, exactly: a number keeps its text and every key is a key.
//!
//! `serde_json` is not asked here, since it respells some numbers and takes one key for a sign of its own.

use crate::model::Identifier;
use crate::model::Namespace;
use crate::model::Number;
use crate::model::Value;

/// How deep a value may nest: more than any event that was taken.
const MAX_DEPTH: usize = 256;

/// Text that is not what the archive writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct NotOurs;

/// Named values, as of `props`.
pub(super) type Fields = Vec<(Box<str>, Value)>;

/// Reads an object.
pub(super) fn read_fields(text: &str) -> Result<Fields, NotOurs> {
    if text == "{}" {
        return Ok(Vec::new());
    }
    let mut reader = Reader { text, at: 0 };
    reader.eat(b'{')?;
    let fields = reader.fields(MAX_DEPTH)?;
    reader.finish()?;
    Ok(fields)
}

/// Reads a list of pairs of namespace and value.
pub(super) fn read_ids(text: &str) -> Result<Vec<Identifier>, NotOurs> {
    let mut reader = Reader { text, at: 0 };
    let mut ids = Vec::new();
    reader.eat(b'[')?;
    loop {
        reader.eat(b'[')?;
        let namespace = Namespace::new(&reader.string()?).map_err(|_| NotOurs)?;
        reader.eat(b',')?;
        ids.push(Identifier::new(namespace, &reader.string()?).map_err(|_| NotOurs)?);
        reader.eat(b']')?;
        if !reader.more(b']')? {
            break;
        }
    }
    reader.finish()?;
    Ok(ids)
}

struct Reader<'a> {
    text: &'a str,
    at: usize,
}

impl Reader<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn eat(&mut self, byte: u8) -> Result<(), NotOurs> {
        if self.peek() != Some(byte) {
            return Err(NotOurs);
        }
        self.at += 1;
        Ok(())
    }

    /// Whether a comma follows, or else the end.
    fn more(&mut self, end: u8) -> Result<bool, NotOurs> {
        if self.peek() == Some(b',') {
            self.at += 1;
            return Ok(true);
        }
        self.eat(end)?;
        Ok(false)
    }

    fn finish(&self) -> Result<(), NotOurs> {
        if self.at == self.text.len() { Ok(()) } else { Err(NotOurs) }
    }

    fn word(&mut self, word: &str, value: Value) -> Result<Value, NotOurs> {
        if !self.text[self.at..].starts_with(word) {
            return Err(NotOurs);
        }
        self.at += word.len();
        Ok(value)
    }

    fn value(&mut self, depth: usize) -> Result<Value, NotOurs> {
        let depth = depth.checked_sub(1).ok_or(NotOurs)?;
        match self.peek().ok_or(NotOurs)? {
            b'n' => self.word("null", Value::Null),
            b't' => self.word("true", Value::Bool(true)),
            b'f' => self.word("false", Value::Bool(false)),
            b'"' => Ok(Value::String(self.string()?)),
            b'[' => {
                self.at += 1;
                let mut items = Vec::new();
                if self.peek() == Some(b']') {
                    self.at += 1;
                    return Ok(Value::Array(items));
                }
                loop {
                    items.push(self.value(depth)?);
                    if !self.more(b']')? {
                        return Ok(Value::Array(items));
                    }
                }
            }
            b'{' => {
                self.at += 1;
                Ok(Value::Object(self.fields(depth)?))
            }
            _ => {
                let rest = &self.text[self.at..];
                let length =
                    rest.bytes().take_while(|b| b.is_ascii_digit() || b"+-.eE".contains(b)).count();
                let number = Number::new(&rest[..length]).ok_or(NotOurs)?;
                self.at += length;
                Ok(Value::Number(number))
            }
        }
    }

    /// The fields of an object whose brace is behind.
    fn fields(&mut self, depth: usize) -> Result<Fields, NotOurs> {
        let mut fields = Vec::new();
        if self.peek() == Some(b'}') {
            self.at += 1;
            return Ok(fields);
        }
        loop {
            let key = self.string()?;
            self.eat(b':')?;
            fields.push((key, self.value(depth)?));
            if !self.more(b'}')? {
                return Ok(fields);
            }
        }
    }

    fn string(&mut self) -> Result<Box<str>, NotOurs> {
        self.eat(b'"')?;
        let rest = &self.text[self.at..];
        let plain = rest.bytes().position(|b| b == b'"' || b == b'\\').ok_or(NotOurs)?;
        if rest.as_bytes()[plain] == b'"' {
            self.at += plain + 1;
            return Ok(rest[..plain].into());
        }
        let mut out = String::with_capacity(rest.len().min(2 * plain + 16));
        loop {
            let rest = &self.text[self.at..];
            let plain = rest.bytes().position(|b| b == b'"' || b == b'\\').ok_or(NotOurs)?;
            out.push_str(&rest[..plain]);
            self.at += plain + 1;
            if rest.as_bytes()[plain] == b'"' {
                return Ok(out.into());
            }
            let escape = self.peek().ok_or(NotOurs)?;
            self.at += 1;
            out.push(match escape {
                b'"' | b'\\' | b'/' => char::from(escape),
                b'b' => '\u{8}',
                b'f' => '\u{c}',
                b'n' => '\n',
                b'r' => '\r',
                b't' => '\t',
                b'u' => self.escaped()?,
                _ => return Err(NotOurs),
            });
        }
    }

    /// The character of a `\u` escape, or of two that are a pair.
    fn escaped(&mut self) -> Result<char, NotOurs> {
        let first = self.hex()?;
        if let Some(character) = char::from_u32(first) {
            return Ok(character);
        }
        self.eat(b'\\')?;
        self.eat(b'u')?;
        let second = self.hex()?;
        if !(0xd800..0xdc00).contains(&first) || !(0xdc00..0xe000).contains(&second) {
            return Err(NotOurs);
        }
        char::from_u32(0x1_0000 + ((first - 0xd800) << 10) + (second - 0xdc00)).ok_or(NotOurs)
    }

    fn hex(&mut self) -> Result<u32, NotOurs> {
        let digits = self.text.get(self.at..self.at + 4).ok_or(NotOurs)?;
        if !digits.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(NotOurs);
        }
        self.at += 4;
        u32::from_str_radix(digits, 16).map_err(|_| NotOurs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::value::write_json_object;

    fn round_trip(fields: &Fields) {
        let mut text = String::new();
        write_json_object(fields, &mut text);
        assert_eq!(read_fields(&text).as_ref(), Ok(fields), "{text}");
    }

    #[test]
    fn values_come_back_as_they_were() {
        let number = |text: &str| Value::Number(Number::new(text).unwrap());
        let mut deep = Value::Null;
        for _ in 0..200 {
            deep = Value::Array(vec![deep]);
        }
        round_trip(&vec![]);
        round_trip(&vec![
            ("".into(), Value::string("")),
            (
                "q\"\\/\u{8}\u{c}\n\r\t\u{0}\u{1f}\u{7f}é😀\u{2028}".into(),
                Value::string("\"\\\u{1}é"),
            ),
            ("n".into(), Value::Array(vec![number("-0"), number("14.850"), number("1E+3")])),
            ("big".into(), number(&"9".repeat(400))),
            ("o".into(), Value::Object(vec![("a".into(), Value::Bool(true))])),
            ("e".into(), Value::Array(vec![Value::Array(vec![]), Value::Object(vec![])])),
            ("f".into(), Value::Bool(false)),
            ("deep".into(), deep),
        ]);
    }

    #[test]
    fn a_key_that_another_reader_takes_for_its_own_is_a_key() {
        round_trip(&vec![("$serde_json::private::Number".into(), Value::string("no"))]);
        round_trip(&vec![("a".into(), Value::Null), ("a".into(), Value::Bool(true))]);
    }

    #[test]
    fn other_text_is_refused() {
        for text in [
            "",
            "{",
            "{}x",
            "[]",
            "{\"a\"}",
            "{\"a\":}",
            "{\"a\":1,}",
            "{\"a\":\"\\x\"}",
            "{\"a\":\"\\ud800\"}",
            "{\"a\":\"\\ud800\\u0041\"}",
            "{\"a\":\"\\u12\"}",
            "{\"a\":01}",
            "{\"a\":nul}",
            "{\"a\":[1",
            "{\"a\":\"é",
        ] {
            assert_eq!(read_fields(text), Err(NotOurs), "{text}");
        }
        let deep = format!("{{\"a\":{}", "[".repeat(1000));
        assert_eq!(read_fields(&deep), Err(NotOurs));
        for text in ["[]", "[[\"cookie\"]]", "[[\"Bad\",\"1\"]]", "[[\"gaid\",\"0\"]]"] {
            assert_eq!(read_ids(text).err(), Some(NotOurs), "{text}");
        }
    }
}
