//! Segment files: what is read, what is told, what is printed.

use crate::rules::Body;
use crate::rules::Diagnostic;
use crate::rules::Level;
use crate::rules::Reach;
use crate::rules::SegmentFile;
use crate::rules::Severity;
use crate::rules::parse_files;
use crate::rules::print_inline;
use crate::rules::render;
use crate::rules::to_json;

const SNEAKERS: &str = r#"name = "Sneaker intenders"
description = "Looked at shoes again and again, and has not bought yet."
owner = "growth"
rule = '''
count product_view[category = "shoes"] in 14d >= 3
  and not did purchase in 30d
  and profile.country in ("DE", "AT")
'''
level = "device"            # what one member is
min_size = 1_000
taxonomy = { iab_audience = "607" }
tags = ["intent"]

[[activate]]                # zero or more
destination = "meta-eu"
identifiers = ["email_sha256", "gaid"]

[[activate]]
destination = "file"
"#;

/// The text each diagnostic points at, and its code, message and hint.
fn told(text: &str) -> Vec<(&str, &'static str, String, String)> {
    let (_, diagnostics) = SegmentFile::parse("a", text);
    diagnostics
        .into_iter()
        .map(|Diagnostic { span, code, message, hint, .. }| {
            let at = span.map_or("", |span| &text[span.start as usize..span.end as usize]);
            (at, code, message, hint.unwrap_or_default())
        })
        .collect()
}

#[test]
fn every_key_is_read() {
    let (file, diagnostics) = SegmentFile::parse("sneakers", SNEAKERS);
    assert_eq!(diagnostics, []);
    assert_eq!((file.id.as_str(), file.name.as_str()), ("sneakers", "Sneaker intenders"));
    assert_eq!(file.owner, "growth");
    assert_eq!(file.level, Level::Device);
    assert_eq!(file.min_size, Some(1000));
    assert_eq!(file.taxonomy["iab_audience"], "607");
    assert_eq!(file.tags, ["intent"]);
    let Body::Rule(rule) = &file.body else { panic!("a rule") };
    assert!(print_inline(rule).starts_with("count product_view[category = \"shoes\"] in 14d >= 3"));
    let [meta, other] = file.activate.as_slice() else { panic!("two") };
    assert_eq!(&*meta.destination.text, "meta-eu");
    let namespaces = meta.identifiers.as_ref().unwrap();
    assert_eq!(namespaces.iter().map(|n| &*n.text).collect::<Vec<_>>(), ["email_sha256", "gaid"]);
    assert_eq!(other.identifiers, None);
}

#[test]
fn what_is_left_out_has_its_default() {
    let (file, diagnostics) = SegmentFile::parse("all", "rule = 'everyone'");
    assert_eq!(diagnostics, []);
    assert_eq!((file.name.as_str(), file.level, file.min_size), ("all", Level::Person, None));
    assert!(file.activate.is_empty() && file.tags.is_empty() && file.taxonomy.is_empty());
}

#[test]
fn spans_of_rules_are_of_the_file() {
    let text = "rule = \"did a and \\\"b\\\"\"\n";
    assert_eq!(told(text)[0].0, "\\\"b\\\"");
    let (file, _) = SegmentFile::parse("a", SNEAKERS);
    let Body::Rule(rule) = &file.body else { panic!("a rule") };
    let of = &SNEAKERS[rule.span.start as usize..rule.span.end as usize];
    assert!(of.starts_with("count product_view") && of.ends_with("(\"DE\", \"AT\")"), "{of}");
}

#[test]
fn a_lookalike_is_read() {
    let text =
        "[lookalike]\nseed = \"buyers\"\nreach = 0.05\nwithin = 'profile.country = \"DE\"'\n";
    let (file, diagnostics) = SegmentFile::parse("like-buyers", text);
    assert_eq!(diagnostics, []);
    let Body::Lookalike(lookalike) = file.body else { panic!("a look-alike") };
    assert_eq!((&*lookalike.seed.text, lookalike.reach), ("buyers", Reach(50_000)));
    assert_eq!(print_inline(&lookalike.within.unwrap()), "profile.country = \"DE\"");
}

#[test]
fn the_segments_that_a_file_names_are_found() {
    let named = |text: &str| {
        let (file, _) = SegmentFile::parse("a", text);
        file.references().into_iter().map(str::to_owned).collect::<Vec<_>>()
    };
    assert_eq!(named("rule = 'not segment b and (segment c or did d)'"), ["b", "c"]);
    assert_eq!(named("lookalike = { seed = 'b', reach = 1, within = 'segment c' }"), ["b", "c"]);
}

#[test]
fn an_id_that_a_taxonomy_does_not_have_is_told_with_those_that_may_be_meant() {
    let text = |id: &str| format!("rule = 'did a'\ntaxonomy = {{ iab_audience = \"{id}\" }}\n");
    assert!(told(&text("607")).is_empty());
    let wrong = text("Sports");
    let told = told(&wrong);
    let (at, code, ..) = &told[0];
    assert_eq!((told.len(), &**at, &**code), (1, "\"Sports\"", "taxonomy"));
    let (file, _) = SegmentFile::parse("a", &text("Sports"));
    assert_eq!(file.taxonomy["iab_audience"], "Sports");
}

#[test]
fn one_run_finds_every_error_of_a_file() {
    let text = r#"
nmae = "x"
description = 3
rule = "did a in 30 days and did b[c == 1]"
level = "devices"
min_size = -1
taxonomy = { iab = 607 }
tags = "intent"
[[activate]]
identifiers = ["Email", "gaid", "gaid", 3]
destinaton = "x"
[[activate]]
destination = "a"
identifiers = []
[[activate]]
destination = "a"
"#;
    let found: Vec<(&str, &str)> = told(text).iter().map(|(at, code, ..)| (*at, *code)).collect();
    assert_eq!(
        found,
        [
            ("nmae", "unknown-key"),
            ("3", "type"),
            ("30", "syntax"),
            ("==", "syntax"),
            ("\"devices\"", "value"),
            ("-1", "value"),
            ("607", "type"),
            ("\"intent\"", "type"),
            ("[[activate]]", "missing-key"),
            ("\"Email\"", "value"),
            ("\"gaid\"", "duplicate"),
            ("3", "type"),
            ("destinaton", "unknown-key"),
            ("[]", "value"),
            ("\"a\"", "duplicate"),
        ]
    );
    let all = told(text);
    assert_eq!(all[0].3, "did you mean `name`?");
    assert_eq!(all[4].3, "did you mean `device`?");
    assert!(all[12].3.contains("`destination`"));
}

#[test]
fn rule_and_lookalike_exclude_each_other() {
    let both = "rule = 'did a b'\n[lookalike]\nseed = 'x'\nreach = 2\n";
    let codes: Vec<_> = told(both).iter().map(|told| told.1).collect();
    assert_eq!(codes, ["syntax", "conflict", "value"]);
    assert_eq!(told("name = 'x'")[0].1, "missing-key");
    assert_eq!(told("rule = 3")[0].1, "type");
    assert_eq!(
        told("[activate]\ndestination = 'x'\n[lookalike]\n")[0].3,
        "write `[[activate]]`, with two brackets"
    );
}

#[test]
fn reach_is_a_share() {
    let reach = |reach: &str| {
        let text = format!("[lookalike]\nseed = 'x'\nreach = {reach}\n");
        let (file, diagnostics) = SegmentFile::parse("a", &text);
        match file.body {
            Body::Lookalike(lookalike) => Ok(lookalike.reach.0),
            Body::Rule(_) => Err(diagnostics[0].code),
        }
    };
    assert_eq!(
        [reach("1"), reach("1.0"), reach("0.000001")],
        [Ok(1_000_000), Ok(1_000_000), Ok(1)]
    );
    for wrong in ["0", "0.0", "-0.5", "1.0000001", "2", "nan", "inf", "1e-9"] {
        assert_eq!(reach(wrong), Err("value"), "{wrong}");
    }
    assert_eq!(reach("'5%'"), Err("type"));
}

#[test]
fn an_id_has_its_form() {
    for id in ["a", "7d-buyers", "a--", &"a".repeat(64)] {
        assert_eq!(SegmentFile::parse(id, "rule = 'everyone'").1, [], "{id}");
    }
    for id in ["", "-a", "A", "a_b", "é", "a.b", &"a".repeat(65)] {
        assert_eq!(SegmentFile::parse(id, "rule = 'everyone'").1[0].code, "id", "{id}");
    }
    let (_, diagnostics) = SegmentFile::parse("Big Spenders", "rule = 'everyone'");
    assert_eq!(diagnostics[0].hint.as_deref(), Some("call the file `big-spenders.toml`"));
}

#[test]
fn ids_and_names_are_used_once() {
    let file = |path: &str, text: &str| (path.to_owned(), text.to_owned());
    let named = "name = 'N'\nrule = 'everyone'";
    let parsed = parse_files([
        file("x/a.toml", "rule = 'everyone'"),
        file("y/a.toml", "rule = 'everyone'"),
        file("x/b.toml", named),
        file("x/c.toml", named),
    ]);
    let codes: Vec<Vec<_>> =
        parsed.iter().map(|file| file.diagnostics.iter().map(|d| d.code).collect()).collect();
    assert_eq!(codes, [vec![], vec!["duplicate"], vec![], vec!["duplicate"]]);
    assert_eq!(parsed[3].segment.id, "c");
}

#[test]
fn errors_of_toml_are_told() {
    let all = told("name = \nrule = 'everyone'\nlevel = person\n");
    assert!(all.iter().all(|told| told.1 == "toml"), "{all:?}");
    assert_eq!(all.len(), 2, "{all:?}");
    for broken in
        ["rule = '''\ndid a\n", "rule = 'everyone'\nrule = 'b'\n", "rule = 'a\n", "rule 'a'"]
    {
        let all = told(broken);
        assert!(!all.is_empty() && all.iter().all(|told| told.1 == "toml"), "{all:?}");
    }
    let codes: Vec<_> =
        told("name = \nrule = 'did a and'\nlevl = 3\n").iter().map(|t| t.1).collect();
    assert_eq!(codes, ["toml", "syntax", "unknown-key"]);
}

#[test]
fn formatting_changes_the_rules_alone() {
    let text = "# who\nname='x'   # spaced\nrule = \"( did a )  and profile.b = \\\"c\\\" # why\"\ntags=[ 'z' ]\n";
    let (formatted, diagnostics) = SegmentFile::format("a", text);
    assert_eq!(diagnostics, []);
    assert_eq!(
        formatted,
        "# who\nname='x'   # spaced\nrule = '''\ndid a and profile.b = \"c\"  # why\n'''\ntags=[ 'z' ]\n"
    );
    assert_eq!(SegmentFile::format("a", &formatted).0, formatted);
    assert_eq!(SegmentFile::format("a", SNEAKERS).0, SNEAKERS);
}

#[test]
fn formatting_keeps_the_line_breaks_of_the_file() {
    let text = "rule = \"did a # x\\n and did b\"\r\nlevel = \"device\"\r\n";
    let (formatted, _) = SegmentFile::format("a", text);
    assert_eq!(
        formatted,
        "rule = '''\r\ndid a  # x\r\n  and did b\r\n'''\r\nlevel = \"device\"\r\n"
    );
    assert_eq!(SegmentFile::format("a", &formatted).0, formatted);
}

#[test]
fn what_apostrophes_cannot_hold_is_escaped() {
    let text = "rule = \"profile.a = \\\"'''\\\\\\\\\\\" or did `\\u0001`\"\n";
    let (formatted, diagnostics) = SegmentFile::format("a", text);
    assert_eq!(diagnostics, []);
    assert_eq!(formatted, "rule = \"\"\"\nprofile.a = \"'''\\\\\\\\\" or did `\\u0001`\n\"\"\"\n");
    assert_eq!(SegmentFile::format("a", &formatted).0, formatted);
}

#[test]
fn a_lookalike_is_printed_in_place() {
    let text = "lookalike = { seed = 'x', reach = 1, within = \"(profile.a = 1)\" } # end\n";
    let (formatted, _) = SegmentFile::format("a", text);
    assert_eq!(
        formatted,
        "lookalike = { seed = 'x', reach = 1, within = 'profile.a = 1' } # end\n"
    );
}

#[test]
fn a_wrong_file_is_left_as_it_is() {
    let text = "rule = 'did  a and'\n";
    let (formatted, diagnostics) = SegmentFile::format("a", text);
    assert_eq!(formatted, text);
    assert_eq!(diagnostics[0].severity, Severity::Error);
}

#[test]
fn people_see_the_line_and_a_caret() {
    let text = "name = 'x'\nrule = '''\ndid a\n  and count b >= x\n'''\n";
    let (_, diagnostics) = SegmentFile::parse("x", text);
    assert_eq!(
        render("segments/x.toml", text, &diagnostics),
        "error[syntax]: expected a number, found `x`
  ┌─ segments/x.toml:4:18
  │
4 │   and count b >= x
  │                  ^

"
    );
    let (_, diagnostics) = SegmentFile::parse("X", "rule = 'everyone'");
    assert_eq!(
        render("X.toml", "", &diagnostics),
        "error[id]: the file's name makes `X` the segment's id, which it cannot be
 = in X.toml
 = expected 1 to 64 lower-case letters, digits and `-`, the first of them no `-`
 = hint: call the file `x.toml`

"
    );
}

#[test]
fn machines_get_places_in_characters() {
    let text = "name = 'é'\nrule = 'did é'\n";
    let (_, diagnostics) = SegmentFile::parse("x", text);
    let json = serde_json::to_value(to_json("x.toml", text, &diagnostics)).unwrap();
    assert_eq!(json[0]["file"], "x.toml");
    assert_eq!((&json[0]["line"], &json[0]["column"]), (&2.into(), &13.into()));
    assert_eq!(json[0]["end"], serde_json::json!({"line": 2, "column": 14}));
    assert_eq!(json[0]["severity"], "error");
    assert_eq!(json[0]["code"], "name");
    assert!(json[0]["hint"].as_str().unwrap().contains("`é`"));
}

proptest::proptest! {
    #[test]
    fn any_file_is_read_without_panic(text in proptest::prelude::any::<String>()) {
        let (_, diagnostics) = SegmentFile::parse("a", &text);
        render("a.toml", &text, &diagnostics);
        to_json("a.toml", &text, &diagnostics);
    }

    #[test]
    fn any_rule_in_any_string_is_formatted_once(rule in super::trees::rule(), basic in proptest::prelude::any::<bool>()) {
        let printed = print_inline(&rule);
        let written = if basic || printed.contains("'''") || printed.ends_with('\'') || printed.chars().any(|c| c.is_ascii_control()) {
            toml::Value::String(printed).to_string()
        } else {
            format!("'''{printed}'''")
        };
        let text = format!("# before\nrule = {written} # behind\nlevel = 'device'\n");
        let (formatted, diagnostics) = SegmentFile::format("a", &text);
        proptest::prop_assert!(diagnostics.is_empty(), "{}\n{:?}", text, diagnostics);
        let (again, _) = SegmentFile::format("a", &formatted);
        proptest::prop_assert_eq!(&again, &formatted);
        let (file, _) = SegmentFile::parse("a", &formatted);
        proptest::prop_assert_eq!(file.body, Body::Rule(rule));
    }
}
