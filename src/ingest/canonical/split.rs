//! Finds the events in a body without reading them, so that each can be measured and judged alone.
//!
//! Knows strings, escapes and brackets, in one pass and constant memory; whether an event is JSON shows
//! when it is read.

/// Why a body holds no events.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum NoEvents {
    /// It is neither an object nor an array.
    #[error("expected a JSON object, or an array of them")]
    NotJson,
    /// It holds more events than one request may.
    #[error("expected at most {0} events")]
    TooMany(usize),
}

/// The bytes of each event: of the one object, or of each element of the array.
pub fn events(body: &[u8], most: usize) -> Result<Vec<&[u8]>, NoEvents> {
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body).trim_ascii();
    match body.first() {
        Some(b'{') => Ok(vec![body]),
        Some(b'[') => elements(body, most),
        _ => Err(NoEvents::NotJson),
    }
}

/// A member of an object: its key as it is written between the quotes, and the bytes of its value.
pub type Member<'a> = (&'a [u8], &'a [u8]);

/// The members of an object, in their order.
pub fn members(body: &[u8], most: usize) -> Result<Vec<Member<'_>>, NoEvents> {
    let body = body.strip_prefix(b"\xef\xbb\xbf").unwrap_or(body).trim_ascii();
    if body.first() != Some(&b'{') {
        return Err(NoEvents::NotJson);
    }
    elements(body, most)?.into_iter().map(|part| member(part).ok_or(NoEvents::NotJson)).collect()
}

fn member(part: &[u8]) -> Option<Member<'_>> {
    let rest = part.strip_prefix(b"\"")?;
    let mut end = 0;
    while *rest.get(end)? != b'"' {
        end += if rest[end] == b'\\' { 2 } else { 1 };
    }
    let value = rest[end + 1..].trim_ascii_start().strip_prefix(b":")?.trim_ascii();
    (!value.is_empty()).then_some((&rest[..end], value))
}

/// What stands between the commas of an array or object.
fn elements(body: &[u8], most: usize) -> Result<Vec<&[u8]>, NoEvents> {
    let close = if body.first() == Some(&b'{') { b'}' } else { b']' };
    let mut found = Vec::new();
    let mut depth = 0usize;
    let mut in_string = false;
    let mut start = 1;
    let mut at = 1;
    while let Some(&byte) = body.get(at) {
        if in_string {
            match byte {
                b'\\' => at += 1,
                b'"' => in_string = false,
                _ => {}
            }
        } else {
            match byte {
                b'"' => in_string = true,
                b'{' | b'[' => depth += 1,
                _ if depth == 0 && (byte == b',' || byte == close) => {
                    let element = body[start..at].trim_ascii();
                    let is_empty = byte == close && found.is_empty() && element.is_empty();
                    if !is_empty {
                        if element.is_empty() {
                            return Err(NoEvents::NotJson);
                        }
                        if found.len() == most {
                            return Err(NoEvents::TooMany(most));
                        }
                        found.push(element);
                    }
                    if byte == close {
                        let rest = &body[at + 1..];
                        return if rest.is_empty() { Ok(found) } else { Err(NoEvents::NotJson) };
                    }
                    start = at + 1;
                }
                b'}' | b']' => match depth.checked_sub(1) {
                    Some(outer) => depth = outer,
                    None => return Err(NoEvents::NotJson),
                },
                _ => {}
            }
        }
        at += 1;
    }
    Err(NoEvents::NotJson)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(body: &str) -> Result<Vec<&str>, NoEvents> {
        let found = events(body.as_bytes(), 3)?;
        Ok(found.into_iter().map(|bytes| std::str::from_utf8(bytes).unwrap()).collect())
    }

    #[test]
    fn an_object_is_one_event_and_an_array_as_many_as_it_has() {
        assert_eq!(texts(" {\"a\":[1,2]} "), Ok(vec!["{\"a\":[1,2]}"]));
        assert_eq!(texts("\u{feff}[]"), Ok(vec![]));
        assert_eq!(texts("[ {} , 1,\"a,]\\\"\"]\n"), Ok(vec!["{}", "1", "\"a,]\\\"\""]));
        assert_eq!(texts(r#"[{"a":{"b":[",]}"]}}]"#), Ok(vec![r#"{"a":{"b":[",]}"]}}"#]));
    }

    #[test]
    fn anything_else_is_no_events() {
        for wrong in
            ["", "1", "\"{}\"", "[", "[1", "[1,]", "[,1]", "[1]]", "[}]", "[\"a]", "[1] x", "[\"\\"]
        {
            assert_eq!(texts(wrong), Err(NoEvents::NotJson), "{wrong}");
        }
        assert_eq!(texts("[1,2,3,4]"), Err(NoEvents::TooMany(3)));
    }

    #[test]
    fn the_members_of_an_object_are_told_apart() {
        let texts = |body: &str| {
            let found = members(body.as_bytes(), 3)?;
            let text = |bytes: &[u8]| std::str::from_utf8(bytes).unwrap().to_owned();
            Ok(found.into_iter().map(|(key, value)| (text(key), text(value))).collect::<Vec<_>>())
        };
        let pair = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        assert_eq!(texts(" {} "), Ok(vec![]));
        assert_eq!(
            texts(r#"{"a" : [1,{"b":"},"}] , "c\":":"d\"", "a":2}"#),
            Ok(vec![pair("a", r#"[1,{"b":"},"}]"#), pair(r#"c\":"#, r#""d\"""#), pair("a", "2")])
        );
        for wrong in
            ["[]", "{", "{]", "{1:2}", "{\"a\"}", "{\"a\":}", "{\"a:1}", "{\"a\":1,}", "{} x"]
        {
            assert_eq!(texts(wrong), Err(NoEvents::NotJson), "{wrong}");
        }
        assert_eq!(texts(r#"{"a":1,"b":1,"c":1,"d":1}"#), Err(NoEvents::TooMany(3)));
    }

    #[test]
    fn depth_costs_no_stack() {
        let deep = format!("[{}", "[".repeat(500_000));
        assert_eq!(texts(&deep), Err(NoEvents::NotJson));
    }
}
