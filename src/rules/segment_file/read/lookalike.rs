//! The `[lookalike]` of a segment file.

use toml::de::DeString;
use toml::de::DeValue;

use super::Reader;
use super::Value;
use super::to_span;
use crate::rules::ast::Name;
use crate::rules::diagnostic::Diagnostic;
use crate::rules::segment_file::Lookalike;
use crate::rules::segment_file::MAX_ID;
use crate::rules::segment_file::Reach;
use crate::rules::token::is_slug;
use crate::rules::token::shorten;

impl Reader<'_> {
    pub(super) fn lookalike(&mut self, value: &Value<'_>) -> Option<Lookalike> {
        const KEYS: [&str; 3] = ["seed", "reach", "within"];
        let Some(table) = value.get_ref().as_table() else {
            self.wrong_type("lookalike", value, "a table").hint =
                Some("write `[lookalike]`, and its keys on the lines below".into());
            return None;
        };
        self.known_keys(table, &KEYS, "`[lookalike]`");
        let span = to_span(&value.span());
        let seed = self.required(table, "seed", span, "the id of the segment to resemble");
        let seed = seed.and_then(|value| {
            let text: Box<str> = self.string("seed", value)?.into();
            let span = to_span(&value.span());
            if !is_slug(&text) || text.len() > MAX_ID {
                let message = format!("`{}` is no segment's id", shorten(&text));
                self.diagnostics.push(Diagnostic::error("value", span, message));
                return None;
            }
            Some(Name { text, span })
        });
        let reach = self.required(table, "reach", span, "a share, such as `reach = 0.05`");
        let reach = reach.and_then(|value| self.reach(value));
        let within = table.get("within").and_then(|value| self.rule("within", value));
        Some(Lookalike { seed: seed?, reach: reach?, within, span })
    }

    fn reach(&mut self, value: &Value<'_>) -> Option<Reach> {
        const WHOLE: f64 = 1_000_000.0;
        let digits: DeString<'_> = match value.get_ref() {
            DeValue::Float(float) => float.as_str().into(),
            DeValue::Integer(integer) if integer.radix() == 10 => integer.as_str().into(),
            _ => {
                self.wrong_type("reach", value, "a number").hint =
                    Some("the best-scoring 5 % are `reach = 0.05`".into());
                return None;
            }
        };
        let share: f64 = digits.parse().unwrap_or(f64::NAN);
        let millionths = (share * WHOLE).round();
        if (1.0..=WHOLE).contains(&millionths) && share <= 1.0 {
            // In range, as was just seen.
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
            return Some(Reach(millionths as u32));
        }
        let message = "`reach` is a share from 0.000001, a millionth, to 1";
        let told = Diagnostic::error("value", to_span(&value.span()), message);
        self.diagnostics.push(told.with_hint("the best-scoring 5 % are `reach = 0.05`"));
        None
    }
}
