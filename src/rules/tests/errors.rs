//! What authors are told.

use crate::rules::Diagnostic;
use crate::rules::ast::RuleKind;
use crate::rules::parse;
use crate::rules::print_inline;

/// The text an error points at, its message and its hint.
fn told(text: &str) -> Vec<(String, String, String)> {
    let (_, diagnostics) = parse(text);
    diagnostics
        .iter()
        .map(|Diagnostic { span, message, hint, .. }| {
            let span = span.unwrap();
            let at = text[span.start as usize..span.end as usize].to_owned();
            (at, message.clone(), hint.clone().unwrap_or_default())
        })
        .collect()
}

#[test]
fn an_error_names_the_place_and_the_way_out() {
    let mut wrong = Vec::new();
    // (rule, where, what the message or the hint says)
    for (text, place, says) in [
        ("", "", "`everyone` takes every profile"),
        ("purchase in 30d", "purchase", "write `did purchase`"),
        ("cuont purchase >= 3", "cuont", "did you mean `count`?"),
        ("all", "all", "`everyone`"),
        ("did", "", "the name of an event"),
        ("did purchase >= 3", ">=", "write `count purchase >= …`"),
        ("did purchase 30d", "30d", "write `in 30d`"),
        ("did purchase last 30d", "last", "`in 30d` is the last 30 days"),
        ("did purchase in last 30d", "last", "`in 30d` is the last 30 days"),
        ("did purchase in 30", "30", "a duration is a number and its unit"),
        ("did purchase in 30 d", "30", "write `30d`, without white space"),
        ("did purchase in 30 days", "30", "write `30d`, without white space"),
        ("did purchase in 30days", "30days", "write `30d`"),
        ("did purchase in 30D", "30D", "write `30d`"),
        ("did purchase in 2months", "2months", "count in days"),
        ("did purchase in 0d", "0d", "at least 1"),
        ("did purchase in 36501d", "36501d", "at most 36500d"),
        ("did purchase in 99999999999999999999w", "99999999999999999999w", "at most 36500d"),
        ("did purchase in -3d", "-3d", "no sign"),
        ("did purchase in 30s", "30s", "exact to the minute"),
        ("did purchase in 2024-01-01", "2024-01-01", "write `since 2024-01-01`"),
        ("did purchase since 7d", "7d", "write `in 7d`"),
        ("did purchase since 2023-02-29", "2023-02-29", "not a day of the calendar"),
        ("did purchase since 2024-1-31", "2024-1-31", "YYYY-MM-DD"),
        ("did purchase from 2024-01-01", "", "`from` has an end"),
        (
            "did purchase from 2024-02-01 to 2024-01-31",
            "from 2024-02-01 to 2024-01-31",
            "write `from 2024-01-31 to 2024-02-01`",
        ),
        (
            "did purchase between 7d and 30d ago",
            "between 7d and 30d ago",
            "write `between 30d and 7d ago`",
        ),
        ("did purchase between 7d and 1w ago", "between 7d and 1w ago", "both ends are the same"),
        ("did purchase between 30d and 7d", "", "`ago`"),
        ("did purchase within 30d", "within", "`in 30d` is the window"),
        ("did a then b in 3d", "in", "did a then b within 2h"),
        ("did \"Order Completed\"", "\"Order Completed\"", "`Order Completed`"),
        ("did add-to-cart", "add-to-cart", "`add-to-cart` with its backquotes"),
        ("did café", "café", "`café`"),
        ("did page.view", ".", "`and`, `or` or the end"),
        ("did 7up", "7up", "begins with a digit goes between backquotes"),
        ("did ``", "``", "at least one character"),
        ("did `a", "`a", "not closed"),
        ("did last", "last", "between backquotes: `` `last` ``"),
        ("sum order.count > 1", "count", "between backquotes: `` `count` ``"),
        ("profile.last exists", "last", "between backquotes"),
        ("did x[last = 1]", "last", "between backquotes"),
        ("count purchase", "", "`did purchase` asks for one or more"),
        ("count purchase >= 3 in 7d", "in", "the window goes before the comparison"),
        ("count purchase in 7d >= \"3\"", "\"3\"", "write 3 without quotes"),
        ("count purchase.value > 3", ".", "`count` takes no property"),
        ("sum purchase > 3", ">", "`sum` takes a property"),
        ("first purchase", "", "`first purchase in 7d`"),
        ("last purchase in 7d", "in", "for a window write `did cart in 7d`"),
        ("last cart after purchase", "purchase", "last cart after last purchase"),
        ("profile country = \"FR\"", "country", "`profile.country`"),
        ("profile.country is \"FR\"", "is", "write `profile.country = …`"),
        ("profile.country = FR", "FR", "\"FR\""),
        ("profile.country = 'FR'", "'FR'", "write \"FR\""),
        ("profile.country = “FR”", "“FR”", "write \"FR\""),
        ("profile.country == \"FR\"", "==", "write `=`"),
        ("profile.country = null", "null", "`not … exists`"),
        ("profile.a.b = 1", ".", "between backquotes"),
        ("profile.country in \"FR\"", "\"FR\"", "between parentheses"),
        ("profile.country in ()", ")", "at least one value"),
        ("profile.country in (\"FR\",)", ")", "no comma goes after"),
        ("profile.country in (\"FR\" \"DE\")", "\"DE\"", "between commas"),
        ("profile.country not contains \"a\"", "contains", "`not profile.country …`"),
        ("profile.age between 3 and 5", "between", "profile.age >= 1 and"),
        ("profile.age => 3", "=>", "write `>=`"),
        ("profile.age ≥ 3", "≥", "write `>=`"),
        ("profile.age = 1e5", "1e5", "exponent"),
        ("profile.age = 1_000", "1_000", "digits together"),
        ("profile.age = 3.", "3.", "digits after the point"),
        ("profile.age = .5", ".5", "write `0.5`"),
        ("profile.age = - 5", "-", "right before its digits"),
        ("profile.age = 1234567890123456789", "1234567890123456789", "18 digits"),
        ("profile.age = 0.1234567890123456789", "0.1234567890123456789", "18 digits"),
        ("profile.since exists", "since", "between backquotes"),
        ("profile.day > 2024-01-01", "2024-01-01", "between double quotes"),
        ("profile.x = \"a", "\"a", "not closed"),
        ("profile.x matches \"\\d\"", "\\d", "`\\\\d`"),
        ("profile.x = \"\\u{d800}\"", "\\u{d800}", "no character"),
        ("profile.x = \"\\u{1234567}\"", "\\u{1234567}", "no character"),
        ("profile.x = \"\\u00e9\"", "\\u", "not whole"),
        ("did x[]", "]", "leave the brackets out"),
        ("did x[member]", "]", "`member exists`"),
        ("did x[a = 1, b = 2]", ",", "write `and`"),
        ("did x[\"a\" = 1]", "\"a\"", "the property comes first"),
        ("did x[a = 1 in 7d", "in", "`and`, `or` or `]`"),
        ("(did x", "", "`and`, `or` or `)`"),
        ("did x)", ")", "closes nothing"),
        ("did x && did y", "&&", "write `and`"),
        ("did x AND did y", "AND", "lower case: `and`"),
        ("NOT did x", "NOT", "lower case: `not`"),
        ("Did x", "Did", "lower case: `did`"),
        ("did x[NOT a = 1]", "a", "lower case: `not`"),
        ("!did x", "!", "write `not`"),
        ("did x and", "", "a part of a rule"),
        ("and did x", "and", "a part of the rule is missing here"),
        ("did x did y", "did", "join the parts"),
        ("did x;", ";", "ends where its text ends"),
        ("did\u{a0}x", "\u{a0}", "U+00A0"),
        ("segment Top_10", "Top_10", "perhaps `top-10`"),
        ("segment \"top\"", "\"top\"", "write `segment top`"),
        ("segment `top`", "`top`", "write `segment top`"),
        ("segment", "", "the id of a segment"),
        ("has", "", "the name of a namespace"),
        ("true", "true", "`everyone`"),
        ("exists profile.x", "exists", "profile.country exists"),
    ] {
        let all = told(text);
        let said =
            all.iter().any(|(_, message, hint)| message.contains(says) || hint.contains(says));
        // One slip, one error.
        if all.len() != 1 || all[0].0 != place || !said {
            wrong.push((text, all));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn one_run_finds_the_errors_of_every_part() {
    let text = "count purchase in 30 days >= 3\n  and profile.country = FR\n  \
                and (did x[a == 1 and b is 2] or sum y > 3)\n  or segment Top";
    let found: Vec<String> = told(text).into_iter().map(|(at, ..)| at).collect();
    assert_eq!(found, ["30", "FR", "==", "is", ">", "Top"]);
}

#[test]
fn the_sound_parts_of_a_wrong_rule_are_kept() {
    let (rule, _) = parse("did a and count b and did c in 7d");
    assert_eq!(print_inline(&rule), "did a and … and did c in 7d");
    let RuleKind::And(parts) = rule.kind else { panic!("three parts") };
    assert_eq!(parts[1].kind, RuleKind::Error);
}
