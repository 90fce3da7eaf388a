//! Every example of the users' reference is right, and printed the canonical way.

use crate::rules::SegmentFile;
use crate::rules::comment::format_rule;
use crate::rules::parse;
use crate::rules::render;
use crate::rules::token::KEYWORDS;

const REFERENCE: &str = include_str!("../../../segments/README.md");

/// The texts between fences of a language.
fn fenced(language: &str) -> Vec<&'static str> {
    let open = format!("```{language}\n");
    let texts: Vec<&str> = REFERENCE
        .split(open.as_str())
        .skip(1)
        .map(|rest| rest.split("\n```").next().expect("split gives one at least"))
        .collect();
    assert!(!texts.is_empty(), "no example in {language}");
    texts
}

#[test]
fn every_rule_of_the_reference_is_right() {
    for rule in fenced("rule").into_iter().flat_map(|text| text.split("\n\n")) {
        let (_, diagnostics) = parse(rule);
        assert!(diagnostics.is_empty(), "{}", render("README.md", rule, &diagnostics));
        // An example of an escape shows what no print would.
        if !rule.contains("\\u{") {
            assert_eq!(format_rule(rule).as_deref(), Some(rule));
        }
    }
}

#[test]
fn every_file_of_the_reference_is_right() {
    for text in fenced("toml") {
        let (_, diagnostics) = SegmentFile::parse("example", text);
        assert!(diagnostics.is_empty(), "{}", render("README.md", text, &diagnostics));
    }
}

#[test]
fn every_segment_that_is_shipped_is_right_and_canonical() {
    let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/segments");
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|kind| kind != "toml") {
            continue;
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let id = path.file_stem().unwrap().to_string_lossy();
        let (canonical, diagnostics) = SegmentFile::format(&id, &text);
        assert!(diagnostics.is_empty(), "{}", render(&id, &text, &diagnostics));
        assert_eq!(canonical, text, "{id}");
    }
}

#[test]
fn the_reference_names_every_keyword_and_shows_each_in_a_rule() {
    let rules = fenced("rule").join("\n");
    let words: Vec<&str> = rules.split(|c: char| !c.is_ascii_alphanumeric()).collect();
    for keyword in KEYWORDS {
        assert!(REFERENCE.contains(&format!("`{keyword}`")), "{keyword} is not listed");
        let shown = words.contains(&keyword) || keyword == "false";
        assert!(shown, "{keyword} has no example");
    }
}

#[test]
fn the_message_that_the_reference_shows_is_the_one_that_is_told() {
    let text = "name = \"x\"\nowner = \"crm\"\nrule = '''\ndid purchase in 30 days\n'''\n";
    let (_, diagnostics) = SegmentFile::parse("win-back", text);
    let told = render("segments/win-back.toml", text, &diagnostics);
    assert!(REFERENCE.contains(told.trim_end()), "{told}");
}
