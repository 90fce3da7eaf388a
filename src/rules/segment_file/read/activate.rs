//! The `[[activate]]` tables of a segment file.

use super::Reader;
use super::Value;
use super::to_span;
use crate::model::Namespace;
use crate::rules::ast::Name;
use crate::rules::diagnostic::Diagnostic;
use crate::rules::segment_file::Activate;
use crate::rules::token::shorten;

impl Reader<'_> {
    pub(super) fn activations(&mut self, value: &Value<'_>) -> Vec<Activate> {
        let tables = value.get_ref().as_array();
        let Some(tables) = tables else {
            let told = self.wrong_type("activate", value, "an array of tables");
            told.hint = Some("write `[[activate]]`, with two brackets".into());
            return Vec::new();
        };
        let mut activations: Vec<Activate> = Vec::new();
        for value in tables.iter() {
            let Some(activate) = self.activation(value) else { continue };
            let same = |other: &&Activate| other.destination.text == activate.destination.text;
            if let Some(first) = activations.iter().find(same) {
                let name = shorten(&activate.destination.text);
                let message = format!("the destination `{name}` stands here twice");
                let told = Diagnostic::error("duplicate", activate.destination.span, message)
                    .with_label(first.destination.span, "here first")
                    .with_hint("put their identifiers together");
                self.diagnostics.push(told);
            }
            activations.push(activate);
        }
        activations
    }

    fn activation(&mut self, value: &Value<'_>) -> Option<Activate> {
        let Some(table) = value.get_ref().as_table() else {
            self.wrong_type("activate", value, "an array of tables");
            return None;
        };
        let span = to_span(&value.span());
        self.known_keys(table, &["destination", "identifiers"], "`[[activate]]`");
        let destination = self.required(
            table,
            "destination",
            span,
            "the name of a destination: `destination = \"…\"`",
        );
        let destination = destination.and_then(|value| {
            let text = self.string("destination", value)?.into();
            Some(Name { text, span: to_span(&value.span()) })
        });
        let identifiers = table.get("identifiers").map(|value| self.identifiers(value));
        Some(Activate { destination: destination?, identifiers, span })
    }

    fn identifiers(&mut self, value: &Value<'_>) -> Vec<Name> {
        let before = self.diagnostics.len();
        let mut names: Vec<Name> = Vec::new();
        for (text, span) in self.strings("identifiers", value) {
            let shown = shorten(&text);
            if Namespace::new(&text).is_err() {
                let message = format!("`{shown}` is no namespace");
                let told = Diagnostic::error("value", span, message);
                let hint = "a namespace is a lower-case letter, then up to 31 lower-case letters, \
                            digits or `_`";
                self.diagnostics.push(told.with_hint(hint));
            } else if let Some(first) = names.iter().find(|name| *name.text == *text) {
                let message = format!("`{shown}` stands here twice");
                let told = Diagnostic::error("duplicate", span, message);
                self.diagnostics.push(told.with_label(first.span, "here first"));
            } else {
                names.push(Name { text: text.into(), span });
            }
        }
        if names.is_empty() && self.diagnostics.len() == before {
            let message = "an empty list sends nothing";
            let told = Diagnostic::error("value", to_span(&value.span()), message);
            self.diagnostics.push(told.with_hint("leave it out to send all the destination takes"));
        }
        names
    }
}
