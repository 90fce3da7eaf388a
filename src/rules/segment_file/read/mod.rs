//! A segment file's TOML to a segment: every key, every type, every error in one run.

mod activate;
mod lookalike;

use std::collections::BTreeMap;

use toml::Spanned;
use toml::de::DeTable;
use toml::de::DeValue;

use super::Body;
use super::Level;
use super::MAX_FILE;
use super::MAX_ID;
use super::SegmentFile;
use crate::rules::ast::Rule;
use crate::rules::ast::RuleKind;
use crate::rules::ast::Span;
use crate::rules::diagnostic::Diagnostic;
use crate::rules::parser::parse_at;
use crate::rules::taxonomy::IAB_AUDIENCE;
use crate::rules::taxonomy::iab_audience;
use crate::rules::taxonomy::iab_audience_hint;
use crate::rules::token::is_slug;
use crate::rules::token::shorten;
use crate::rules::toml_text::Places;

const KEYS: [&str; 10] = [
    "name",
    "description",
    "owner",
    "rule",
    "lookalike",
    "level",
    "min_size",
    "taxonomy",
    "tags",
    "activate",
];

type Value<'t> = Spanned<DeValue<'t>>;

/// What a file says, and where its name stands.
pub(crate) struct Read {
    pub(crate) file: SegmentFile,
    pub(crate) name: Option<Span>,
    pub(crate) diagnostics: Vec<Diagnostic>,
}

/// Reads a segment file; see [`SegmentFile::parse`].
pub(crate) fn read(id: &str, text: &str) -> Read {
    let mut reader = Reader { text, broken: Vec::new(), diagnostics: Vec::new() };
    reader.id(id);
    let mut file = SegmentFile {
        id: id.into(),
        name: id.into(),
        description: String::new(),
        owner: String::new(),
        body: Body::Rule(Rule { kind: RuleKind::Error, span: Span::default() }),
        level: Level::default(),
        min_size: None,
        taxonomy: BTreeMap::new(),
        tags: Vec::new(),
        activate: Vec::new(),
    };
    if text.len() > MAX_FILE {
        let message =
            format!("a segment file is at most {MAX_FILE} bytes, this one is {}", text.len());
        reader.diagnostics.push(Diagnostic::error("length", None, message));
        return Read { file, name: None, diagnostics: reader.diagnostics };
    }
    let (table, errors) = DeTable::parse_recoverable(text);
    let whole = Span { start: 0, end: to_span(&(0..text.len())).end };
    for error in &errors {
        let span = error.span().map(|span| to_span(&span));
        let message = format!("this is no TOML: {}", error.message());
        let hint = "a line is `key = value`; texts stand between quotes, a rule between `'''`";
        reader.diagnostics.push(Diagnostic::error("toml", span, message).with_hint(hint));
        reader.broken.push(lines(text, span.unwrap_or(whole)));
    }
    let name = reader.segment(table.get_ref(), &mut file);
    let Reader { mut diagnostics, broken, .. } = reader;
    // What the TOML reader made up on a broken line to go on is not to be told of, nor what lacks.
    diagnostics.retain(|told| {
        let made_up = told.code == "missing-key"
            || told.span.is_none_or(|span| broken.iter().any(|lines| touch(*lines, span)));
        told.code == "toml" || told.code == "id" || broken.is_empty() || !made_up
    });
    diagnostics.sort_by_key(|told| told.span.map(|span| span.start));
    Read { file, name, diagnostics }
}

/// The lines that a span stands on.
fn lines(text: &str, span: Span) -> Span {
    let (start, end) = (span.start as usize, span.end as usize);
    let before = text.get(..start).and_then(|text| text.rfind('\n')).map_or(0, |at| at + 1);
    let behind = text.get(end..).and_then(|text| text.find('\n')).map_or(text.len(), |at| end + at);
    to_span(&(before..behind))
}

fn touch(a: Span, b: Span) -> bool {
    a.start <= b.end && b.start <= a.end
}

fn to_span(range: &std::ops::Range<usize>) -> Span {
    let offset = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
    Span { start: offset(range.start), end: offset(range.end) }
}

/// "a string", as messages say it.
fn type_name(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "a string",
        DeValue::Integer(_) => "an integer",
        DeValue::Float(_) => "a float",
        DeValue::Boolean(_) => "a boolean",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "an array",
        DeValue::Table(_) => "a table",
    }
}

struct Reader<'t> {
    text: &'t str,
    /// The lines that are no TOML.
    broken: Vec<Span>,
    diagnostics: Vec<Diagnostic>,
}

impl Reader<'_> {
    fn id(&mut self, id: &str) {
        if is_slug(id) && id.len() <= MAX_ID {
            return;
        }
        let shown = shorten(id);
        let message =
            format!("the file's name makes `{shown}` the segment's id, which it cannot be");
        let told = Diagnostic::error("id", None, message)
            .with_expected("1 to 64 lower-case letters, digits and `-`, the first of them no `-`");
        let meant: String = id
            .to_lowercase()
            .chars()
            .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
            .collect();
        let meant = meant.trim_matches('-');
        let hint = if is_slug(meant) && meant.len() <= MAX_ID {
            format!("call the file `{meant}.toml`")
        } else {
            "give the file a name of 1 to 64 lower-case letters, digits and `-`".into()
        };
        self.diagnostics.push(told.with_hint(hint));
    }

    fn segment(&mut self, table: &DeTable<'_>, file: &mut SegmentFile) -> Option<Span> {
        self.known_keys(table, &KEYS, "a segment file");
        let mut name = None;
        if let Some(value) = table.get("name")
            && let Some(text) = self.string("name", value)
            && !text.is_empty()
        {
            file.name = text.into();
            name = Some(to_span(&value.span()));
        }
        for (key, field) in [("description", &mut file.description), ("owner", &mut file.owner)] {
            if let Some(text) = table.get(key).and_then(|value| self.string(key, value)) {
                *field = text.into();
            }
        }
        self.body(table, file);
        if let Some(value) = table.get("level") {
            file.level = self.level(value).unwrap_or_default();
        }
        if let Some(value) = table.get("min_size") {
            file.min_size = self.min_size(value);
        }
        if let Some(value) = table.get("taxonomy") {
            file.taxonomy = self.taxonomy(value);
        }
        if let Some(value) = table.get("tags") {
            file.tags = self.strings("tags", value).into_iter().map(|(text, _)| text).collect();
        }
        if let Some(value) = table.get("activate") {
            file.activate = self.activations(value);
        }
        name
    }

    fn known_keys(&mut self, table: &DeTable<'_>, known: &[&str], of: &str) {
        for key in table.keys().filter(|key| !known.contains(&&**key.get_ref())) {
            let text = key.get_ref();
            let message = format!("`{}` is no key of {of}", shorten(text));
            let told = Diagnostic::error("unknown-key", to_span(&key.span()), message)
                .with_hint(format!("the keys are {}", listed(known)))
                .with_nearest(text, known.iter().copied());
            self.diagnostics.push(told);
        }
    }

    fn wrong_type(&mut self, key: &str, value: &Value<'_>, expected: &str) -> &mut Diagnostic {
        let message = format!("`{key}` is {expected}, not {}", type_name(value.get_ref()));
        let told = Diagnostic::error("type", to_span(&value.span()), message);
        self.diagnostics.push(told.with_expected(expected));
        self.diagnostics.last_mut().expect("one was just pushed")
    }

    fn string<'v>(&mut self, key: &str, value: &'v Value<'_>) -> Option<&'v str> {
        let text = value.get_ref().as_str();
        if text.is_none() {
            self.wrong_type(key, value, "a string");
        }
        text
    }

    fn strings(&mut self, key: &str, value: &Value<'_>) -> Vec<(String, Span)> {
        let Some(array) = value.get_ref().as_array() else {
            let told = self.wrong_type(key, value, "an array of strings");
            if value.get_ref().is_str() {
                told.hint = Some(format!("put it between brackets: `{key} = [\"…\"]`"));
            }
            return Vec::new();
        };
        let mut strings = Vec::new();
        for element in array.iter() {
            match element.get_ref().as_str() {
                Some(text) => strings.push((text.to_owned(), to_span(&element.span()))),
                None => {
                    self.wrong_type(key, element, "an array of strings");
                }
            }
        }
        strings
    }

    fn body(&mut self, table: &DeTable<'_>, file: &mut SegmentFile) {
        match (table.get("rule"), table.get_key_value("lookalike")) {
            (Some(rule), None) => {
                if let Some(rule) = self.rule("rule", rule) {
                    file.body = Body::Rule(rule);
                }
            }
            (None, Some((_, value))) => {
                if let Some(lookalike) = self.lookalike(value) {
                    file.body = Body::Lookalike(lookalike);
                }
            }
            (Some(rule), Some((key, value))) => {
                let message = "a segment has a `rule` or a `[lookalike]`, not both";
                let told = Diagnostic::error("conflict", to_span(&key.span()), message)
                    .with_label(to_span(&rule.span()), "the rule")
                    .with_hint("who may be chosen is said by `within` in `[lookalike]`");
                self.diagnostics.push(told);
                self.rule("rule", rule);
                self.lookalike(value);
            }
            (None, None) => {
                let message = "a segment has a `rule` or a `[lookalike]`, this one has neither";
                let told = Diagnostic::error("missing-key", None, message)
                    .with_expected("`rule` or `[lookalike]`")
                    .with_hint("add `rule = 'everyone'` and go on from there");
                self.diagnostics.push(told);
            }
        }
    }

    fn rule(&mut self, key: &str, value: &Value<'_>) -> Option<Rule> {
        let span = to_span(&value.span());
        if self.broken.iter().any(|lines| touch(*lines, span)) {
            return None;
        }
        let rule = self.string(key, value)?;
        let places = Places::new(self.text, span, rule);
        let (rule, diagnostics) = parse_at(rule, &|span| places.span(span));
        self.diagnostics.extend(diagnostics);
        Some(rule)
    }

    fn required<'v, 't>(
        &mut self,
        table: &'v DeTable<'t>,
        key: &str,
        span: Span,
        expected: &str,
    ) -> Option<&'v Value<'t>> {
        let value = table.get(key);
        if value.is_none() {
            let told = Diagnostic::error("missing-key", span, format!("`{key}` is missing here"));
            self.diagnostics
                .push(told.with_expected(expected).with_hint(format!("add {expected}")));
        }
        value
    }

    fn level(&mut self, value: &Value<'_>) -> Option<Level> {
        match self.string("level", value)? {
            "person" => Some(Level::Person),
            "device" => Some(Level::Device),
            other => {
                let message = format!("`{}` is no level", shorten(other));
                let told = Diagnostic::error("value", to_span(&value.span()), message)
                    .with_expected("`\"person\"` or `\"device\"`")
                    .with_hint("the levels are `\"person\"` and `\"device\"`")
                    .with_nearest(other, ["person", "device"]);
                self.diagnostics.push(told);
                None
            }
        }
    }

    fn min_size(&mut self, value: &Value<'_>) -> Option<u64> {
        let DeValue::Integer(integer) = value.get_ref() else {
            self.wrong_type("min_size", value, "an integer");
            return None;
        };
        let size = i64::from_str_radix(integer.as_str(), integer.radix());
        match size.ok().and_then(|size| u64::try_from(size).ok()) {
            Some(size) => Some(size),
            None => {
                let message = format!("`min_size` is 0 to {}", i64::MAX);
                self.diagnostics.push(Diagnostic::error("value", to_span(&value.span()), message));
                None
            }
        }
    }

    fn taxonomy(&mut self, value: &Value<'_>) -> BTreeMap<String, String> {
        let mut taxonomy = BTreeMap::new();
        let Some(table) = value.get_ref().as_table() else {
            self.wrong_type("taxonomy", value, "a table of strings").hint =
                Some("write `taxonomy = { iab_audience = \"607\" }`".into());
            return taxonomy;
        };
        for (key, value) in table.iter() {
            let key = &**key.get_ref();
            match value.get_ref().as_str() {
                Some(text) => {
                    if key == IAB_AUDIENCE && iab_audience(text).is_none() {
                        let message = format!(
                            "the IAB Audience Taxonomy 1.1 has no id \"{}\", so it is told to nobody",
                            shorten(text)
                        );
                        let told = Diagnostic::warning("taxonomy", to_span(&value.span()), message);
                        self.diagnostics.push(told.with_hint(iab_audience_hint(text)));
                    }
                    taxonomy.insert(key.to_owned(), text.to_owned());
                }
                None => {
                    let shown = shorten(key);
                    let told = self.wrong_type(&format!("taxonomy.{shown}"), value, "a string");
                    told.hint = Some("put it between quotes".into());
                }
            }
        }
        taxonomy
    }
}

fn listed(words: &[&str]) -> String {
    words.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
}
