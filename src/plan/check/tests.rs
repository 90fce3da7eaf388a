use super::*;
use crate::model::time::DAY;
use crate::rules;
use crate::rules::Severity;

struct Sent;

impl Schema for Sent {
    fn events(&self) -> Vec<&str> {
        vec!["view", "buy"]
    }
    fn knows_event(&self, name: &str) -> bool {
        self.events().contains(&name)
    }
    fn properties(&self, event: &str) -> Vec<&str> {
        if event == "view" { vec!["category", "cart.items", "source"] } else { vec![] }
    }
    fn knows_property(&self, event: &str, path: &str) -> bool {
        self.properties(event).contains(&path)
    }
    fn attributes(&self) -> Vec<&str> {
        vec!["country"]
    }
    fn knows_attribute(&self, name: &str) -> bool {
        self.attributes().contains(&name)
    }
}

fn file(id: &str, rule: &str) -> SegmentFile {
    let (file, diagnostics) = SegmentFile::parse(id, &format!("rule = '''{rule}'''"));
    assert!(!has_errors(&diagnostics), "{diagnostics:?}");
    file
}

/// What is told of a set of segments, as `id severity code`, notes left out.
fn told(
    rules: &[(&str, &str)],
    seen: Option<&BTreeSet<Namespace>>,
    schema: Option<&dyn Schema>,
) -> Vec<String> {
    let files: Vec<SegmentFile> = rules.iter().map(|(id, rule)| file(id, rule)).collect();
    let order = NamespaceOrder::default();
    let known =
        Context { namespaces: &order, seen, retention: 90 * DAY, schema, now: Some(15_000 * DAY) };
    let checked = check(&files.iter().collect::<Vec<_>>(), &known);
    let lines = checked.into_iter().flat_map(|(id, diagnostics)| {
        diagnostics
            .into_iter()
            .filter(|told| told.severity != Severity::Note)
            .map(move |told| format!("{id} {} {}", told.severity.as_str(), told.code))
    });
    lines.collect()
}

/// What is told of one rule offline: the code and the text it points to.
fn of(rule: &str) -> Vec<(&'static str, String)> {
    let (tree, diagnostics) = rules::parse(rule);
    assert!(!has_errors(&diagnostics), "{rule}: {diagnostics:?}");
    let order = NamespaceOrder::default();
    let context = Context {
        namespaces: &order,
        seen: None,
        retention: 90 * DAY,
        schema: None,
        now: Some(15_000 * DAY),
    };
    check_rule(&tree, &Library::new(), &context)
        .into_iter()
        .map(|told| {
            let span = told.span.unwrap_or_default();
            (told.code, rule[span.start as usize..span.end as usize].to_owned())
        })
        .collect()
}

#[test]
fn names_are_followed() {
    assert_eq!(told(&[("a", "segment b"), ("b", "did x")], None, None), ["a warning equal"; 0]);
    assert_eq!(told(&[("a", "segment c")], None, None), ["a error unknown-segment"]);
    assert_eq!(
        told(
            &[("a", "segment b"), ("b", "not segment a"), ("c", "segment a or did x")],
            None,
            None
        ),
        ["a error cycle", "b error cycle"]
    );
    assert_eq!(told(&[("a", "segment a")], None, None), ["a error cycle"]);
}

/// Walks over rules are as deep as these nest, segment behind segment: endlessly, and the process would be at its end.
#[test]
fn nesting_has_an_end() {
    let chain = |rule: &dyn Fn(usize) -> String| -> Vec<(String, String)> {
        let rules = (1..1_000).map(|number| (format!("s{number:04}"), rule(number)));
        std::iter::once(("s0000".to_owned(), "did x".to_owned())).chain(rules).collect()
    };
    let told = |rules: &[(String, String)]| {
        let rules: Vec<(&str, &str)> = rules.iter().map(|(id, rule)| (&**id, &**rule)).collect();
        told(&rules, None, None)
    };
    // Two levels each.
    let flat = chain(&|number| format!("segment s{:04} or did e{number}", number - 1));
    assert_eq!(told(&flat[..200]), ["x"; 0]);
    assert_eq!(told(&flat[..202]), ["s0200 error depth", "s0201 error depth"]);
    assert_eq!(told(&flat).len(), 800);
    // A hundred each.
    let steep = chain(&|number| {
        let inner = format!("segment s{:04}", number - 1);
        (1..100).fold(inner, |inner, level| {
            let word = ["or", "and"][level % 2];
            format!("(did e{number}_{level} {word} {inner})")
        })
    });
    assert_eq!(told(&steep[..4]), ["x"; 0]);
    assert_eq!(told(&steep[..6]), ["s0004 error depth", "s0005 error depth"]);
}

#[test]
fn a_circle_is_printed() {
    let files = [file("a", "segment b"), file("b", "did x and segment a")];
    let order = NamespaceOrder::default();
    let context =
        Context { namespaces: &order, seen: None, retention: DAY, schema: None, now: None };
    let checked = check(&[&files[0], &files[1]], &context);
    assert_eq!(checked[0].1[0].message, "segments go in a circle: b → a → b");
}

#[test]
fn namespaces_are_known_or_seen() {
    assert_eq!(told(&[("a", "has gaid")], None, None), ["x"; 0]);
    assert_eq!(told(&[("a", "has loyalty")], None, None), ["a warning unknown-namespace"]);
    assert_eq!(told(&[("a", "has Loyalty")], None, None), ["a error unknown-namespace"]);
    let none = BTreeSet::new();
    let told_none = told(&[("a", "has loyalty")], Some(&none), None);
    assert_eq!(told_none, ["a error unknown-namespace"]);
    let seen: BTreeSet<_> = [Namespace::new("loyalty").unwrap()].into();
    assert_eq!(told(&[("a", "has loyalty")], Some(&seen), None), ["x"; 0]);
}

#[test]
fn windows_are_held_against_the_retention() {
    assert_eq!(of("did x in 90d"), []);
    assert_eq!(of("did x in 129601m"), [("window", "in 129601m".to_owned())]);
    assert_eq!(
        of("count x between 91d and 1d ago >= 2"),
        [("window", "between 91d and 1d ago".to_owned())]
    );
    // 2011-01-26 is day 15000, so day 14910 is the last that is kept.
    assert_eq!(of("did x since 2010-10-28"), []);
    assert_eq!(of("did x since 2010-10-27")[0].0, "window");
    assert_eq!(of("first x from 2010-10-27 to 2010-12-01")[0].0, "window");
}

#[test]
fn bad_expressions_are_pointed_to() {
    let wrong = of(r#"did x[a = 1 and b matches "("]"#);
    assert_eq!(wrong, [("regex", r#"matches "(""#.to_owned())]);
    assert_eq!(of(r#"profile.a matches "\\w{900}{9}""#)[0].0, "regex");
}

#[test]
fn what_was_never_sent_is_a_warning_of_the_server() {
    let with = |rule: &str| told(&[("a", rule)], None, Some(&Sent));
    assert_eq!(with(r#"did view[category = "x" and cart.items exists]"#), ["x"; 0]);
    assert_eq!(with("did viwe"), ["a warning unknown-event"]);
    assert_eq!(with("sum view.valu >= 3"), ["a warning unknown-property"]);
    assert_eq!(with("did view[page.host exists]"), ["x"; 0]);
    assert_eq!(with("profile.contry = 1"), ["a warning unknown-attribute"]);
    assert_eq!(of("did viwe[never = 1] and profile.x exists"), []);
}

#[test]
fn contradictions_are_found() {
    for rule in [
        "count x >= 3 and count x < 2",
        "did x in 7d and count x in 1w < 1",
        "did x and not did x",
        "days x > 2 and days x < 3",
        "count x < 0",
        "count x = 1.5",
        "sum x.v > 1 and sum x.v < 1.00005",
        "min x.v > 3 and not min x.v > 2",
        "max x.v > 900000000000000",
        "avg x.v = 1 and avg x.v < 1",
        "(did x or did y) and not did x and not did y",
        "last x after last x",
    ] {
        let told = of(rule);
        assert_eq!(told.first().map(|(code, _)| *code), Some("never"), "{rule}: {told:?}");
    }
}

#[test]
fn what_can_be_met_is_not_called_a_contradiction() {
    for rule in [
        "count x in 7d >= 3 and count x in 14d < 4",
        "count x >= 3 and count x <= 3",
        "count x > 2 and count x < 4",
        "sum x.v > 1 and sum x.v < 1.0002",
        "sum x.v < 0",
        "avg x.v > 1 and avg x.v < 1.000000000000000001",
        "not min x.v > 2 and not min x.v <= 2",
        r#"profile.a = "x" and profile.a = "y""#,
        "did x[a = 1] and did x[a != 1]",
        "count x >= 3 and count x[a = 1] < 2",
    ] {
        assert_eq!(of(rule), [], "{rule}");
    }
}

#[test]
fn rules_of_everyone_are_found() {
    for rule in
        ["count x >= 0", "did x or not did x", "count x < 2 or count x > 1", "not count x < 0"]
    {
        let told = of(rule);
        assert_eq!(told.first().map(|(code, _)| *code), Some("always"), "{rule}: {told:?}");
    }
    assert_eq!(of("everyone"), []);
    assert_eq!(of("sum x.v >= 0"), []);
    assert_eq!(of("min x.v < 2 or min x.v >= 2"), []);
}

#[test]
fn needless_parts_are_pointed_to() {
    for (rule, part) in [
        ("did a and (did a or did b)", "did a or did b"),
        ("did a or (did a and did b)", "did a and did b"),
        ("did a and did a", "did a"),
        ("did a and everyone", "everyone"),
        ("count a >= 2 and did a", "did a"),
        ("count a >= 2 or count a >= 3", "count a >= 3"),
        ("did b or not (did a and (did a or did b))", "did a or did b"),
        ("did b or (count a >= 3 and count a < 2)", "count a >= 3 and count a < 2"),
    ] {
        assert_eq!(of(rule), [("needless", part.to_owned())], "{rule}");
    }
    assert_eq!(of("did a and (did b or did c)"), []);
}

#[test]
fn segments_are_looked_into() {
    assert_eq!(
        told(&[("a", "count x >= 3"), ("b", "segment a and count x < 2")], None, None),
        ["b warning never"]
    );
    assert_eq!(
        told(&[("a", "did x and did y"), ("b", "segment a and did x")], None, None),
        ["b warning needless"]
    );
}

#[test]
fn equal_rules_are_told_of_the_later() {
    assert_eq!(
        told(&[("a", "did x in 7d and did y"), ("b", "did y and (did x in 1w)")], None, None),
        ["b warning equal"]
    );
    assert_eq!(told(&[("a", "did x in 7d"), ("b", "did x in 8d")], None, None), ["x"; 0]);
}

#[test]
fn level_person_is_noted_once() {
    let files = [file("a", "did x"), file("b", "did y")];
    let order = NamespaceOrder::default();
    let context =
        Context { namespaces: &order, seen: None, retention: DAY, schema: None, now: None };
    let checked = check(&[&files[0], &files[1]], &context);
    let notes: Vec<_> = checked.iter().flat_map(|(_, told)| told).collect();
    assert_eq!(notes.len(), 1);
    assert_eq!((notes[0].code, notes[0].severity), ("person", Severity::Note));
}
