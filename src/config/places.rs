//! Where each setting stands, so that a problem is told with its line, or with the variable it came from.

use std::collections::BTreeMap;
use toml::Spanned;
use toml::de::DeTable;
use toml::de::DeValue;

/// The lines of a file by the paths of what they set, such as `collect.listen` and `site[0].key`.
#[derive(Debug, Default)]
pub(super) struct Places {
    file: Option<String>,
    lines: BTreeMap<String, usize>,
    overrides: BTreeMap<String, String>,
}

impl Places {
    /// The places of a file; what is no TOML is told, each error with its line.
    pub(super) fn of(file: &str, text: &str) -> Result<Self, Vec<String>> {
        let (table, errors) = DeTable::parse_recoverable(text);
        let line = |at: usize| text[..at.min(text.len())].matches('\n').count() + 1;
        if !errors.is_empty() {
            let mut places: Vec<_> = errors
                .iter()
                .map(|error| (error.span().map_or(1, |span| line(span.start)), error.message()))
                .collect();
            places.sort_unstable();
            let told = places.iter().map(|(line, message)| format!("{file}:{line}: {message}"));
            return Err(told.collect());
        }
        let mut lines = BTreeMap::new();
        walk_table(table.get_ref(), "", &mut |path, at| {
            lines.insert(path, line(at));
        });
        Ok(Self { file: Some(file.to_owned()), lines, overrides: BTreeMap::new() })
    }

    /// Says that a value came from elsewhere, such as a variable.
    pub(super) fn overridden(&mut self, path: &[String], from: &str) {
        self.overrides.insert(path.join("."), from.to_owned());
    }

    /// A problem that begins with its path, with its place in front.
    pub(super) fn tell(&self, problem: &str) -> String {
        let mut path = problem.split_once(": ").map_or("", |(path, _)| path);
        while !path.is_empty() {
            if let Some(from) = self.overrides.get(path) {
                return format!("{from}: {problem}");
            }
            if let (Some(file), Some(line)) = (&self.file, self.lines.get(path)) {
                return format!("{file}:{line}: {problem}");
            }
            path = path.rfind(['.', '[']).map_or("", |end| &path[..end]);
        }
        match &self.file {
            Some(file) => format!("{file}: {problem}"),
            None => problem.to_owned(),
        }
    }
}

fn walk_table(table: &DeTable<'_>, path: &str, found: &mut dyn FnMut(String, usize)) {
    for (key, value) in table {
        let dot = if path.is_empty() { "" } else { "." };
        let path = format!("{path}{dot}{}", key.get_ref());
        found(path.clone(), key.span().start);
        walk_value(value, &path, found);
    }
}

fn walk_value(value: &Spanned<DeValue<'_>>, path: &str, found: &mut dyn FnMut(String, usize)) {
    match value.get_ref() {
        DeValue::Table(table) => walk_table(table, path, found),
        DeValue::Array(items) => {
            for (at, item) in items.iter().enumerate() {
                let path = format!("{path}[{at}]");
                found(path.clone(), item.span().start);
                walk_value(item, &path, found);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_told_with_the_nearest_place() {
        let text =
            "\n[collect]\nlisten = 1\n\n[[site]]\nkey = 'a'\n[[site]]\norigins = [\n'x',\n'y']\n";
        let mut places = Places::of("t.toml", text).unwrap();
        places.overridden(&["collect".into(), "workers".into()], "THRONG_COLLECT__WORKERS");
        for (problem, told) in [
            ("collect.listen: no", "t.toml:3: collect.listen: no"),
            ("site[1].origins[1]: no", "t.toml:10: site[1].origins[1]: no"),
            ("site[1].key: missing", "t.toml:7: site[1].key: missing"),
            ("collect.workers: no", "THRONG_COLLECT__WORKERS: collect.workers: no"),
            ("no sites: none", "t.toml: no sites: none"),
        ] {
            assert_eq!(places.tell(problem), told);
        }
        let wrong = Places::of("t.toml", "a = \nb = 1\nc d\n").unwrap_err();
        assert!(wrong.len() == 2 && wrong[0].starts_with("t.toml:1: "), "{wrong:?}");
        assert!(wrong[1].starts_with("t.toml:3: "), "{wrong:?}");
    }
}
