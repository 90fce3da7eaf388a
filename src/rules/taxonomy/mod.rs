//! Taxonomies of others that a segment may name its place in.

use std::collections::BTreeMap;
use std::sync::LazyLock;

/// The key of the IAB Tech Lab's Audience Taxonomy 1.1 in `taxonomy`.
pub const IAB_AUDIENCE: &str = "iab_audience";
/// Its number in `segtax` of OpenRTB.
pub const IAB_AUDIENCE_SEGTAX: u32 = 4;

static IDS: LazyLock<BTreeMap<u32, &'static str>> = LazyLock::new(|| {
    let lines = include_str!("iab_audience_1.1.tsv").lines();
    let parts = lines.filter_map(|line| line.split_once('\t'));
    parts.filter_map(|(id, name)| Some((id.parse().ok()?, name))).collect()
});

/// The name of an id of the IAB Audience Taxonomy 1.1, written as the taxonomy writes it.
pub fn iab_audience(id: &str) -> Option<(u32, &'static str)> {
    let number = id.parse().ok().filter(|number: &u32| number.to_string() == id)?;
    IDS.get(&number).map(|name| (number, *name))
}

/// What to write in the place of a text that is no id of it: the ids whose names have the text in them, the first few.
pub(super) fn iab_audience_hint(text: &str) -> String {
    let wanted = text.trim().to_lowercase();
    // A number is a wrong id, and not the bound of an income.
    let is_name = wanted.len() > 2 && wanted.bytes().any(|byte| !byte.is_ascii_digit());
    let is_near = |name: &str| is_name && name.to_lowercase().contains(&wanted);
    let near = IDS.iter().filter(|(_, name)| is_near(name)).take(3);
    let near: Vec<String> = near.map(|(id, name)| format!("\"{id}\" ({name})")).collect();
    if near.is_empty() {
        return "write the number of a row of the IAB Audience Taxonomy 1.1, such as \"607\""
            .to_owned();
    }
    format!("did you mean {}?", near.join(", or "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_read_and_gaps_are_gaps() {
        assert_eq!(IDS.len(), 1558);
        assert_eq!(iab_audience("1"), Some((1, "Demographic")));
        assert!(iab_audience("1679").is_some());
        for no_id in ["", "0", "200", "1680", "01", "+1", " 1", "1.0", "Sports", "4294967297"] {
            assert_eq!(iab_audience(no_id), None, "{no_id}");
        }
    }

    #[test]
    fn a_name_is_told_its_number() {
        let hint = iab_audience_hint("Web Hosting");
        assert!(hint.starts_with("did you mean \"") && hint.contains("Web Hosting"), "{hint}");
        assert!(iab_audience_hint("99999").contains("such as \"607\""));
    }
}
