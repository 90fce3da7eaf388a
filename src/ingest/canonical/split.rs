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

fn elements(body: &[u8], most: usize) -> Result<Vec<&[u8]>, NoEvents> {
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
                b',' | b']' if depth == 0 => {
                    let element = body[start..at].trim_ascii();
                    let is_empty_array = byte == b']' && found.is_empty() && element.is_empty();
                    if !is_empty_array {
                        if element.is_empty() {
                            return Err(NoEvents::NotJson);
                        }
                        if found.len() == most {
                            return Err(NoEvents::TooMany(most));
                        }
                        found.push(element);
                    }
                    if byte == b']' {
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
    fn depth_costs_no_stack() {
        let deep = format!("[{}", "[".repeat(500_000));
        assert_eq!(texts(&deep), Err(NoEvents::NotJson));
    }
}
